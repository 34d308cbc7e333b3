//! The commands. Each arranges: it asks the configuration, the catalog and the pure decisions, lets the engines and the
//! targets work, and says what came of it, as text or as one JSON document. It decides nothing itself.

pub mod check;
pub mod cloud;
pub mod demo;
pub mod list;
pub mod pages;
pub mod pin;
pub mod prune;
pub mod restore;
pub mod run_job;
pub mod schedule_check;
pub mod status;
pub mod undo;
pub mod verify;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::app::App;
use crate::cli::{Cli, Command, DbCommand};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::report::Report;
use crate::world::World;

/// The format of the JSON documents; it grows only by new fields.
pub const JSON_FORMAT: u32 = 1;

/// What a command has to say at its end.
#[derive(Debug)]
pub struct Done {
    /// What its JSON document holds besides format and command.
    pub document: Map<String, Value>,
    /// How it ended.
    pub outcome: Result<(), Kind>,
}

impl Done {
    /// A good end, nothing in the document.
    pub fn well() -> Self {
        Self { document: Map::new(), outcome: Ok(()) }
    }

    /// Adds a field to the document.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    pub fn with(mut self, name: &str, value: &impl Serialize) -> Result<Self> {
        let value = serde_json::to_value(value)
            .map_err(|error| Error::other(format!("can't write the JSON document: {error}")))?;
        self.document.insert(name.to_owned(), value);
        Ok(self)
    }

    /// Sets how it ended.
    #[must_use]
    pub fn ended(self, outcome: Result<(), Kind>) -> Self {
        Self { outcome, ..self }
    }
}

/// Does what the command line says, and tells how it ended.
pub fn run(cli: &Cli, world: &World, report: &Report) -> Exit {
    let outcome = dispatch(cli, world, report);
    let mut document = Map::new();
    document.insert("format".to_owned(), JSON_FORMAT.into());
    document.insert("command".to_owned(), cli.command.name().into());
    let exit = match outcome {
        Ok(Done { document: fields, outcome }) => {
            document.extend(fields);
            outcome.err().map_or(Exit::Done, Exit::from)
        }
        Err(error) => {
            report.error(&error);
            document.insert("error".to_owned(), serde_json::to_value(&error).unwrap_or_default());
            Exit::from(error.kind)
        }
    };
    let steps = report.steps();
    if !steps.is_empty() && matches!(cli.command, Command::Restore(_) | Command::Db(_)) {
        document.insert("steps_done".to_owned(), serde_json::to_value(&steps).unwrap_or_default());
    }
    // Commands whose stdout is what was asked for, and no report, have no document.
    let plain = matches!(cli.command, Command::Completions { .. } | Command::Man { dir: None });
    if plain && exit == Exit::Done {
        return exit;
    }
    match report.json(&document) {
        Ok(()) => exit,
        Err(error) => {
            report.error(&error);
            Exit::from(error.kind)
        }
    }
}

fn dispatch(cli: &Cli, world: &World, report: &Report) -> Result<Done> {
    let app = || App::load(&cli.global, world, report);
    match &cli.command {
        Command::RunJob(args) => run_job::run(&app()?, args),
        Command::ScheduleCheck(args) => schedule_check::run(&cli.global, args, world, report),
        Command::Restore(args) | Command::Db(DbCommand::Restore(args)) => restore::run(&app()?, args),
        Command::Prune(args) => prune::run(&app()?, args),
        Command::List(args) => list::run(&app()?, args),
        Command::Pin(args) => pin::run(&app()?, args, true),
        Command::Unpin(args) => pin::run(&app()?, args, false),
        Command::Verify(args) => verify::run(&app()?, args),
        Command::Check(args) => check::run(&app()?, args),
        Command::Status => status::run(&app()?),
        Command::Cloud(command) => cloud::run(&app()?, command),
        Command::Keygen => pages::keygen(world, report),
        Command::Demo(args) => demo::run(args, world, report),
        Command::Completions { shell } => pages::completions(*shell, report),
        Command::Man { dir } => pages::man(dir.as_deref(), report),
    }
}

/// Rows of text in columns, as wide as their widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    // A name with a newline must not look like another row.
    let one_line = |row: &Vec<String>| row.iter().map(|cell| cell.replace(char::is_control, "\u{fffd}")).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(one_line).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}
