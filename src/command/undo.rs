//! `restore --undo`: puts the database back as it was before the last restore in its place. Flows in: a database. Flows
//! out: the same, exchanged for what was kept of it; what stood until now is kept in its turn.

use serde::Serialize;
use serde_json::json;

use super::Done;
use super::restore::{Chosen, check_known, in_place, load};
use crate::app::{App, Opened, toml_key};
use crate::cli::RestoreArgs;
use crate::engine::{Counts, Destination, Keep, Request, Restored};
use crate::error::{Error, Kind, Result};
use crate::format::time::{self, rfc3339, span};
use crate::previous::record::Kept;
use crate::previous::{Shelf, keeping};
use crate::select::Moment;

/// What is put back, for programs.
#[derive(Debug, Serialize)]
struct Undone {
    database: String,
    #[serde(with = "time::serde_rfc3339")]
    since: chrono::DateTime<chrono::Utc>,
    name: String,
    on_server: bool,
}

/// Puts it back.
///
/// # Errors
/// [`Kind::NoBackup`] when nothing is kept; whatever kept it from being put back: the database is as it was then.
pub fn run(app: &App, args: &RestoreArgs, at: Option<Moment>) -> Result<Done> {
    let database = args.database.as_str();
    check_known(app, database)?;
    let opened = app.engine(database)?;
    let engine = opened.engine.as_ref();
    let shelf = Shelf::new(app, database, &opened, 0);
    let kept = find(app, &shelf, at)?;
    let undone =
        Undone { database: database.to_owned(), since: kept.since, name: kept.name.clone(), on_server: kept.on_server };
    if args.dry_run {
        let steps = match kept.on_server {
            true => engine.plan_undo(&kept.as_previous()),
            false => engine.plan_for(&Request::new(Destination::InPlace, Counts::new()), &app.cx),
        };
        let from = format!("take what was kept at {}: {}", rfc3339(kept.since), kept.name);
        let numbered: Vec<String> = [from].into_iter().chain(steps).collect();
        let lines = numbered.iter().enumerate().map(|(number, step)| format!("{}. {step}", number + 1));
        app.cx.report.out(&lines.collect::<Vec<_>>().join("\n"))?;
        return Done::well().with("undone", &undone)?.with("steps", &numbered)?.with("dry_run", &json!(true));
    }
    let (report, age) = (&app.cx.report, span(app.cx.world.clock.now() - kept.since));
    let what = format!("as it was before the restore at {}, {age} ago", rfc3339(kept.since));
    report.note(&format!("putting {} back {what}", engine.describe()));
    if !args.yes
        && report.can_ask()
        && !report.ask(&format!("this replaces what is in {}; go on?", engine.describe()))?
    {
        return Err(Error::other("not confirmed, nothing was changed"));
    }
    let stands = in_place(app, database, &opened, kept.bytes.unwrap_or(0), true, |app, keep| {
        back(app, &opened, at, &Shelf::new(app, database, &opened, 0), keep)
    })?;
    report.note(&format!("{} is {what}", engine.describe()));
    stands.told(Done::well().with("undone", &undone)?)
}

/// What is to be put back: what was kept at that time, or last.
fn find(app: &App, shelf: &Shelf, at: Option<Moment>) -> Result<Kept> {
    let database = shelf.database();
    let Some(at) = at else { return shelf.newest(&app.cx)?.ok_or_else(|| nothing(app, database)) };
    let (mut found, others): (Vec<Kept>, Vec<Kept>) =
        shelf.all(&app.cx)?.into_iter().partition(|kept| at.has(kept.since));
    match (found.pop(), found.is_empty(), others.is_empty()) {
        (Some(kept), true, _) => Ok(kept),
        (None, _, true) => Err(nothing(app, database)),
        (one, ..) => {
            let all = one.iter().chain(&found).chain(&others);
            let times = all.map(|kept| rfc3339(kept.since)).collect::<Vec<_>>().join(", ");
            let how_many = if one.is_some() { "more than one was kept" } else { "nothing is kept" };
            Err(Error::new(Kind::NoBackup, format!("{how_many} of {database} from a restore at that time"))
                .hint(format!("take one of these: {times}")))
        }
    }
}

/// With the locks held: what is the newest may have changed until then.
fn back(app: &App, opened: &Opened, at: Option<Moment>, shelf: &Shelf, keep: Option<&Keep>) -> Result<Restored> {
    let database = shelf.database();
    let kept = find(app, shelf, at)?;
    shelf.undoing(&kept, keep)?;
    if !kept.on_server {
        return from_dump(app, opened, shelf, &kept, keep);
    }
    let restored = opened.engine.undo(&kept.as_previous(), keep, &app.cx);
    let restored = restored.map_err(|error| error.while_doing(format!("can't put {database} back")))?;
    restored.notes.iter().for_each(|note| app.cx.report.warn(note));
    Ok(restored)
}

fn from_dump(app: &App, opened: &Opened, shelf: &Shelf, kept: &Kept, keep: Option<&Keep>) -> Result<Restored> {
    let entry = shelf.entry(kept)?;
    let signed = entry.signed().cloned().ok_or_else(|| Error::new(Kind::NoBackup, "no backup"))?;
    if signed.engine != opened.kind.name {
        let why = format!("what is kept is of {}, but {} is {}", signed.engine, signed.database, opened.kind.name);
        return Err(Error::new(Kind::Config, why).hint("correct the engine"));
    }
    let chosen = Chosen { copies: vec![entry], open: vec![shelf.aside()], signed };
    let request = Request {
        server_version: chosen.signed.server_version.clone(),
        dump_bytes: Some(chosen.signed.dump_bytes),
        keep: keep.cloned(),
        ..Request::new(Destination::InPlace, chosen.signed.counts.clone())
    };
    load(app, &chosen, opened.engine.as_ref(), &request)
}

fn nothing(app: &App, database: &str) -> Error {
    let why = format!("nothing is kept of {database} from before a restore");
    let hint = match keeping(app, database) {
        time if time.is_zero() => {
            format!(
                "keep_previous of [databases.{}] is \"0\": take a backup: restore {database} --latest",
                toml_key(database)
            )
        }
        time => format!(
            "what a restore in place replaces is kept for {}; take a backup: restore {database} --latest",
            span(chrono::TimeDelta::from_std(time).unwrap_or(chrono::TimeDelta::MAX))
        ),
    };
    Error::new(Kind::NoBackup, why).hint(hint)
}
