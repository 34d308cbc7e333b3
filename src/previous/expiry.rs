//! What is kept from before a restore goes when its time has come. Flows in: the record, the clock. Flows out: what is due
//! dropped, or a warning and another try later. Touches servers and `data_dir`, but only when something is due.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::record::{All, Past, Record};
use super::{Shelf, alone, dumps, keeping, remove, tidy, until};
use crate::app::App;
use crate::error::{Error, Result};

/// How long to wait after what could not be dropped.
const RETRY_AFTER: TimeDelta = TimeDelta::hours(1);
/// How long to wait for a run that has the database in hand.
const BUSY: TimeDelta = TimeDelta::minutes(5);
/// How long it may take to drop what is kept of one database.
const PATIENCE: Duration = Duration::from_secs(600);

/// When something is to be dropped next; `None`: nothing is kept. Contacts nobody.
pub fn next_due(app: &App) -> Option<DateTime<Utc>> {
    // What can't be read is told by whoever drops.
    let all = Record::of(app).read().unwrap_or_default();
    all.iter().filter_map(|(database, past)| due_at(past, time_of(app, database, past))).min()
}

/// Whether there is something to drop now, or to tell: that what is kept can't be read.
pub fn is_due(app: &App, now: DateTime<Utc>) -> bool {
    Record::of(app).read().is_err() || next_due(app).is_some_and(|at| at <= now)
}

/// Whether the configuration has a word of it.
fn is_known(app: &App, database: &str) -> bool {
    app.table(database).is_some() || app.jobs_of(database).next().is_some()
}

/// How long it is kept: as the configuration says, or said when it knew it.
fn time_of(app: &App, database: &str, past: &Past) -> Duration {
    let said = past.seconds.filter(|_| !is_known(app, database)).map(Duration::from_secs);
    said.unwrap_or_else(|| keeping(app, database))
}

fn due_at(past: &Past, keeping: Duration) -> Option<DateTime<Utc>> {
    let begun = past.begun.into_iter().chain(past.unended);
    let since = begun.chain(past.kept.as_ref().map(|kept| kept.since)).min()?;
    past.not_before.into_iter().chain([until(since, keeping)]).max()
}

/// Drops what is due. What can't be dropped is warned of and tried again in an hour.
///
/// # Errors
/// A signal.
pub fn expire(app: &App) -> Result<()> {
    let (record, now) = (Record::of(app), app.cx.world.clock.now());
    let all = match record.read() {
        Ok(all) => all,
        Err(error) => {
            app.cx.report.warn(&error.to_string());
            return Ok(());
        }
    };
    let due = |database: &str, past: &Past| due_at(past, time_of(app, database, past)).is_some_and(|at| at <= now);
    for (database, past) in all.iter().filter(|(database, past)| due(database, past)) {
        app.cx.world.cancel.check()?;
        let wait = match one(app, database, past, now) {
            Ok(true) => None,
            Ok(false) => Some(BUSY),
            Err(error) if error.is_stopped() => return Err(error),
            Err(error) => {
                app.cx.report.warn(&format!(
                    "can't drop what is kept of {database} from before a restore: {error}; it is tried again in an hour"
                ));
                Some(RETRY_AFTER)
            }
        };
        if let Some(wait) = wait {
            let later = |all: &mut All| {
                all.entry(database.clone()).and_modify(|past| past.not_before = Some(now + wait));
            };
            record.update(later).unwrap_or_else(|error| app.cx.report.warn(&error.to_string()));
        }
    }
    Ok(())
}

/// `false`: another run has the database in hand.
fn one(app: &App, database: &str, past: &Past, now: DateTime<Utc>) -> Result<bool> {
    let mut holds = Vec::new();
    for job in app.jobs_of(database) {
        match app.try_hold(&job.name)? {
            Some(hold) => holds.push(hold),
            None => return Ok(false),
        }
    }
    let Some(_alone) = alone(app, database)? else { return Ok(false) };
    let time = time_of(app, database, past);
    if !is_known(app, database) {
        return orphaned(app, database, past).map(|()| true);
    }
    let shelf = Shelf::new(app, database, &app.engine(database)?, 0);
    let cx = app.within(PATIENCE);
    let mut left = shelf.all(&cx)?;
    for kept in left.iter().filter(|kept| until(kept.since, time) <= now) {
        shelf.forget(kept, &cx)?;
        let since = crate::format::time::rfc3339(kept.since);
        app.cx.report.note(&format!("dropped what was kept of {database} from before the restore at {since}"));
    }
    tidy(app, database);
    left.retain(|kept| until(kept.since, time) > now);
    Record::of(app).update(|all| {
        let Some(past) = all.get_mut(database) else { return };
        past.kept = left.pop();
        past.others.retain(|kept| left.contains(kept));
        past.begun = past.begun.filter(|at| until(*at, time) > now);
        past.unended = past.unended.filter(|at| until(*at, time) > now);
        past.not_before = None;
        if past.kept.is_none() && past.begun.is_none() && past.unended.is_none() {
            all.remove(database);
        }
    })?;
    Ok(true)
}

/// The configuration knows the database no more: what lies here goes, and what stands at its server can't be reached.
fn orphaned(app: &App, database: &str, past: &Past) -> Result<()> {
    tidy(app, database);
    for kept in dumps(app, database)? {
        remove(app, database, &kept)?;
        let since = crate::format::time::rfc3339(kept.since);
        app.cx.report.warn(&format!(
            "the configuration knows {database} no more: dropped what was kept of it from before the restore at {since}"
        ));
    }
    Record::of(app).update(|all| drop(all.remove(database)))?;
    match past.kept.as_ref().filter(|kept| kept.on_server) {
        Some(kept) => Err(Error::other(format!(
            "the configuration knows {database} no more, and {} stands at its server: drop it by hand",
            kept.name
        ))),
        None => Ok(()),
    }
}
