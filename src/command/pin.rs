//! `pin` and `unpin`: a mark beside a backup that keeps it for ever. Flows in: which backup. Flows out: the mark at every
//! target that holds a copy, or its removal. Touches the targets.
//!
//! The mark is an empty file: who can write to a store can keep what is there, and who can delete there needs no mark.

use serde::Serialize;

use super::Done;
use crate::app::App;
use crate::catalog::{Entry, OpenTarget};
use crate::cli::PinArgs;
use crate::error::{Error, Kind, Result};
use crate::exit;
use crate::format::name::{self, ObjectKey};
use crate::select::{Selector, choose};
use crate::target::Cause;

/// What was done to one copy.
#[derive(Debug, Serialize)]
struct Marked {
    id: String,
    target: String,
    pinned: bool,
    error: Option<Error>,
}

/// Pins every copy of a backup, or lets go of it.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such backup; [`Kind::Target`] when a target can't be listed.
pub fn run(app: &App, args: &PinArgs, pinned: bool) -> Result<Done> {
    let open = app.targets_for(Some(&args.database), args.target.as_deref())?;
    let entries = app.entries(&open, &app.config.instance, &args.database, args.job.as_deref())?;
    let selector = args.which.timestamp.map_or(Selector::Latest, Selector::At);
    let chosen = choose(&entries, selector, &app.rules(&args.database, false))
        .map_err(|error| error.while_doing(format!("database {}", args.database)))?;
    let mut marked = Vec::new();
    for entry in &chosen {
        app.cx.world.cancel.check()?;
        let Some(open) = open.iter().find(|open| open.name == entry.target) else { continue };
        let key = name::pin_key(&entry.owner, &entry.id)?;
        let outcome = match pinned {
            true => pin(app, open, entry, &key),
            false => open.target.delete(&key).map_err(Error::from),
        };
        let verb = if pinned { "pinned" } else { "unpinned" };
        let error = outcome.err();
        match &error {
            Some(error) => app.cx.report.error(error),
            None => app.cx.report.note(&format!("{verb} {} at {}", entry.id, entry.target)),
        }
        marked.push(Marked { id: entry.id.to_string(), target: entry.target.clone(), pinned, error });
    }
    let parts = marked.iter().map(|mark| mark.error.as_ref().map_or(Ok::<(), Kind>(()), |error| Err(error.kind)));
    Done::well().ended(exit::merge(parts)).with("backups", &marked)
}

/// Puts the mark, and sees that the backup is still there. While this holds the job no run of it removes anything; a run
/// that has it now looked for marks when it had stored its backup, or is yet to.
fn pin(app: &App, open: &OpenTarget, entry: &Entry, key: &ObjectKey) -> Result<()> {
    let job = entry.id.job().filter(|name| app.config.jobs.iter().any(|job| job.name == *name));
    let hold = job.as_ref().map(|job| app.try_hold(job)).transpose()?;
    match open.target.put(key, &mut std::io::empty()) {
        Err(failure) if failure.cause == Cause::Exists => {}
        outcome => drop(outcome?),
    }
    if let (Some(job), Some(None)) = (&job, &hold) {
        app.cx.report.warn(&format!(
            "a run of job {job} is under way: if it is removing backups in this instant it may not see the mark; look \
             again when it has ended, with: voxeltron-backup list {}",
            entry.owner.database
        ));
    }
    let listed = open.target.list(entry.manifest_key.as_str())?;
    if listed.iter().any(|stored| stored.key == entry.manifest_key) {
        return Ok(());
    }
    drop(open.target.delete(key));
    Err(Error::new(Kind::NoBackup, format!("{} at {} has just been removed", entry.id, open.name))
        .hint("look at what there is, with: voxeltron-backup list"))
}
