//! `keygen`, `completions`, `man`: what is printed from the program itself. `man DIR` writes the pages.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use super::Done;
use crate::cli;
use crate::error::{Context, Error, Kind, Result};
use crate::format::key::{KEY_BYTES, Key};
use crate::report::Report;
use crate::world::World;

/// The page on the stored format, written by hand.
const FORMAT_PAGE: &str = include_str!("../../man/voxeltron-backup-format.5");

/// Prints a fresh key.
///
/// # Errors
/// When the system has no randomness.
pub fn keygen(world: &World, report: &Report) -> Result<Done> {
    let mut bytes = [0u8; KEY_BYTES];
    world.random.fill(&mut bytes)?;
    let key = Key::new(bytes).to_base64();
    report.out(&key)?;
    Done::well().with("key", &key.as_str())
}

/// Prints the completions for a shell.
///
/// # Errors
/// When stdout can't be written.
pub fn completions(shell: Shell, report: &Report) -> Result<Done> {
    report.stdout_bytes(&completion_script(shell))?;
    Ok(Done::well())
}

/// The completions for a shell.
pub fn completion_script(shell: Shell) -> Vec<u8> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "voxeltron-backup", &mut bytes);
    bytes
}

/// Prints the main page, or writes all pages into a folder.
///
/// # Errors
/// When a file can't be written.
pub fn man(dir: Option<&Path>, report: &Report) -> Result<Done> {
    let pages = manual()?;
    let Some(dir) = dir else {
        if let Some((_, main)) = pages.first() {
            report.stdout_bytes(main.as_bytes())?;
        }
        return Ok(Done::well());
    };
    std::fs::create_dir_all(dir).doing(Kind::Other, format!("can't create {}", dir.display()))?;
    let mut names = Vec::new();
    for (name, text) in pages {
        let path = dir.join(&name);
        std::fs::write(&path, text).doing(Kind::Other, format!("can't write {}", path.display()))?;
        report.note(&format!("wrote {}", path.display()));
        names.push(name);
    }
    Done::well().with("pages", &names)
}

/// Every page by its file's name, the main one first.
///
/// # Errors
/// When one can't be made.
pub fn manual() -> Result<Vec<(String, String)>> {
    let mut main = cli::command().disable_help_subcommand(true);
    main.build();
    let mut pages = vec![("voxeltron-backup.1".to_owned(), page(&main, None)?)];
    for command in main.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let name = format!("voxeltron-backup-{}", command.get_name());
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let name = format!("{name}-{}", below.get_name());
            pages.push((format!("{name}.1"), page(below, Some(name))?));
        }
        pages.push((format!("{name}.1"), page(command, Some(name))?));
    }
    pages.push(("voxeltron-backup-format.5".to_owned(), FORMAT_PAGE.to_owned()));
    Ok(pages)
}

fn page(command: &Command, name: Option<String>) -> Result<String> {
    let command = match name {
        Some(name) => command.clone().name(name),
        None => command.clone(),
    };
    let page = clap_mangen::Man::new(command).date(String::new());
    let mut bytes = Vec::new();
    page.render(&mut bytes).doing(Kind::Other, "can't make the manual page")?;
    String::from_utf8(bytes).map_err(|error| Error::other(format!("can't make the manual page: {error}")))
}
