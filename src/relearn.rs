//! What the targets know of jobs that the state has nothing of: a lost state is made again from the manifests. Flows in:
//! the jobs and what stands at their targets. Flows out: their past in the state. Touches targets and the state.
//!
//! To the state alone a job whose past was lost looks like a new one, and would wait for its next slot: the ones that
//! came meanwhile would be skipped. Its backups tell the difference.

use chrono::{DateTime, TimeDelta, Utc};

use crate::app::App;
use crate::catalog::Entry;
use crate::config::jobs::JobConfig;
use crate::error::{Error, Result};
use crate::format::name::Owner;
use crate::schedule::state::{JobState, State, Success};
use crate::target::Cause;

/// What came of asking.
#[derive(Debug, Default)]
pub struct Learned {
    /// Jobs of which there was nothing at all, though they have backups; and when the newest was made.
    pub found: Vec<(String, DateTime<Utc>)>,
    /// Why nothing could be found out, for jobs that the state still has nothing of.
    pub errors: Vec<Error>,
}

/// Gives each of these jobs that the state has nothing of a past: that of its backups, or none. A job whose targets can't
/// be asked gets none, so that it is looked for again.
///
/// # Errors
/// When the state can't be read.
pub fn learn<'a>(app: &App, jobs: impl Iterator<Item = &'a JobConfig>) -> Result<Learned> {
    let store = app.store()?;
    let state = store.file().load(&app.cx.report)?;
    let mut learned = Learned::default();
    for job in jobs.filter(|job| state.jobs.get(&job.name).is_none_or(|past| past.unasked)) {
        if app.cx.world.cancel.check().is_err() {
            break;
        }
        let now = app.cx.world.clock.now();
        let found = match newest(app, job, now) {
            Ok(found) => found,
            Err(error) => {
                let doing = format!("job {}: can't see whether it has run before", job.name);
                learned.errors.push(error.while_doing(doing));
                continue;
            }
        };
        let local = state.jobs.get(&job.name);
        let remembered =
            store.update(&job.name, &app.cx.report, &mut |state| remember(state, job, local, found.clone(), now));
        match remembered {
            Err(error) => learned.errors.push(error),
            Ok(()) if local.is_some() => {}
            Ok(()) => learned.found.extend(found.map(|found| (job.name.clone(), found.success.created))),
        }
    }
    Ok(learned)
}

/// What stands at a job's targets.
#[derive(Clone, Debug)]
struct Past {
    /// The newest backup, at any of them.
    success: Success,
    /// The newest slot, if all that answer have its backup.
    settled: Option<DateTime<Utc>>,
    /// Slots up to this one are done.
    since: DateTime<Utc>,
}

/// What stands at a job's targets, if anything does.
fn newest(app: &App, job: &JobConfig, now: DateTime<Utc>) -> Result<Option<Past>> {
    let owner = app.owner(&job.database);
    let (mut entries, mut failure, mut asked) = (Vec::new(), None, 0);
    for name in &job.targets {
        match known_at(app, name, &owner) {
            Ok(found) => {
                asked += 1;
                entries.extend(found);
            }
            Err(error) => failure = Some(error),
        }
    }
    // One that answers is enough: a backup goes to all of them. None at all is another matter.
    if let Some(failure) = failure.filter(|failure| asked == 0 || failure.is_stopped()) {
        return Err(failure);
    }
    let good = |entry: &&Entry| {
        entry.id.job().as_deref() == Some(&job.name)
            && entry.distrust().or_else(|| entry.damage()).is_none()
            && !entry.is_from_future(now)
    };
    let good: Vec<&Entry> = entries.iter().filter(good).collect();
    let slot_of = |entry: &Entry| entry.signed().and_then(|signed| signed.scheduled_for);
    let slot = good.iter().filter_map(|entry| slot_of(entry)).filter(|slot| *slot <= now).max();
    // A slot that some of them lack is open: its copies are yet to be made.
    let stands = good.iter().filter(|entry| slot.is_some() && slot_of(entry) == slot).count();
    let settled = slot.filter(|_| stands >= asked);
    let newest = good.iter().filter_map(|entry| entry.signed()).max_by_key(|signed| signed.created);
    Ok(newest.map(|signed| {
        let success = Success {
            id: signed.id.clone(),
            created: signed.created,
            finished: signed.created,
            slot: signed.scheduled_for,
            stored_bytes: signed.stored_bytes,
        };
        let open = slot.filter(|_| settled.is_none()).map(|slot| slot - TimeDelta::seconds(1));
        Past { settled, since: open.or(slot).unwrap_or(success.created), success }
    }))
}

/// The backups of a database at a target. A place that is yet to be made, by the first backup, has none.
fn known_at(app: &App, target: &str, owner: &Owner) -> Result<Vec<Entry>> {
    let open = app.open_target(target)?;
    match open.target.list(&owner.prefix()) {
        Ok(listed) if listed.is_empty() => Ok(Vec::new()),
        Err(failure) if failure.cause == Cause::NotFound => Ok(Vec::new()),
        Err(failure) => Err(failure.into()),
        Ok(_) => Ok(app.catalog(&open, &owner.instance, Some(&owner.database))?.entries),
    }
}

fn remember(state: &mut State, job: &JobConfig, local: Option<&JobState>, found: Option<Past>, now: DateTime<Utc>) {
    // Another host may have learnt it, and gone on, since it was looked for.
    if state.jobs.get(&job.name).is_some_and(|past| !past.unasked) {
        return;
    }
    let past = state.seen(&job.name, now, &job.cron);
    past.unasked = false;
    // No manifest tells what was proved; this host may know.
    if let Some(local) = local.filter(|_| past.last_proved_id.is_none()) {
        past.last_proved = local.last_proved;
        past.last_proved_id.clone_from(&local.last_proved_id);
    }
    let Some(found) = found else { return };
    // What came after that backup is due, as it would be with the state that is lost.
    past.first_seen = past.first_seen.min(found.since);
    past.settled = found.settled;
    if past.last_success.as_ref().is_none_or(|last| last.created < found.success.created) {
        past.last_success = Some(found.success);
    }
}
