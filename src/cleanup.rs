//! Removing: what retention does not keep, and what runs that died have left. Flows in: a job, one of its targets, the
//! clock. Flows out: a verdict for each backup, carried out. Deletes at the target, and only what this program wrote.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::app::App;
use crate::catalog::{Entry, OpenTarget};
use crate::config::jobs::JobConfig;
use crate::error::{Error, Kind, Result};
use crate::format::name::ObjectKey;
use crate::retention::{self, Candidate};
use crate::schedule::state::StateFile;

/// How old something that no manifest names must be before it counts as left behind, beyond the job's timeout.
const LEFTOVER_AGE: TimeDelta = TimeDelta::days(1);

/// What becomes of one backup.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// When it was created.
    #[serde(with = "crate::format::time::serde_rfc3339_option")]
    pub created: Option<DateTime<Utc>>,
    /// Whether it stays.
    pub keep: bool,
    /// Why.
    pub reason: String,
}

/// What was decided, and done, at one target.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pruned {
    /// Backups of the job, newest first.
    pub backups: Vec<Kept>,
    /// Objects of runs that did not finish, removed too.
    pub leftovers: Vec<String>,
}

/// How to prune.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// Decide only.
    pub dry_run: bool,
    /// Remove more than half, if retention says so.
    pub force: bool,
}

/// Applies a job's retention at one target. The caller holds the job's lock.
///
/// # Errors
/// [`Kind::Target`] when the listing fails (then nothing is removed) or a removal does.
pub fn prune(app: &App, job: &JobConfig, open: &OpenTarget, mode: Mode) -> Result<Pruned> {
    let now = app.cx.world.clock.now();
    let owner = app.owner(&job.database);
    let catalog = app.catalog(open, &owner.instance, Some(&owner.database))?;
    let entries: Vec<&Entry> =
        catalog.entries.iter().filter(|entry| entry.id.job().as_deref() == Some(&job.name)).collect();
    let state = StateFile::new(&app.cx.data_dir).read()?;
    let proved = state.jobs.get(&job.name).and_then(|past| past.last_proved_id.as_deref());
    let backups = verdicts(job, &entries, proved, now, mode.force);
    // Everything is tried before the first failure is told, so that one object that can't go does not keep the rest.
    let mut failed = None;
    let mut pruned = Pruned { backups, leftovers: Vec::new() };
    let deadline = TimeDelta::from_std(job.timeout).unwrap_or(LEFTOVER_AGE) + LEFTOVER_AGE;
    let before = now - deadline;
    let left = catalog.orphans.iter().filter(|orphan| orphan.id.job().as_deref() == Some(&job.name));
    let left: Vec<&ObjectKey> = left
        .filter(|orphan| orphan.object.modified.or_else(|| orphan.id.at()).is_some_and(|at| at < before))
        .map(|orphan| &orphan.object.key)
        .collect();
    pruned.leftovers = left.iter().map(|key| key.to_string()).collect();
    if mode.dry_run {
        return Ok(pruned);
    }
    for kept in pruned.backups.iter().filter(|kept| !kept.keep) {
        app.cx.world.cancel.check()?;
        let entry = entries.iter().find(|entry| entry.id.as_str() == kept.id);
        if let Some(Err(error)) = entry.map(|entry| remove(open, entry)) {
            failed.get_or_insert(error);
        }
    }
    for key in left {
        app.cx.world.cancel.check()?;
        if let Err(failure) = open.target.delete(key) {
            failed.get_or_insert(failure.into());
        }
    }
    if let Err(failure) = open.target.sweep(&owner.prefix(), before) {
        failed.get_or_insert(failure.into());
    }
    match failed {
        Some(error) => Err(error.while_doing(format!("pruning {} at {}", job.name, open.name))),
        None => Ok(pruned),
    }
}

/// Decides on every backup of a job. What can't be read, is cut, or has lost its object is no good one: it keeps no
/// other from staying and makes no other go.
fn verdicts(job: &JobConfig, entries: &[&Entry], proved: Option<&str>, now: DateTime<Utc>, force: bool) -> Vec<Kept> {
    let mut unreadable = Vec::new();
    let mut candidates = Vec::new();
    for entry in entries {
        let why = entry.distrust().or_else(|| entry.damage());
        match entry.signed() {
            Some(signed) => {
                let id = entry.id.to_string();
                let proved = proved == Some(entry.id.as_str());
                candidates.push(Candidate {
                    id,
                    created: signed.created,
                    trusted: why.is_none(),
                    pinned: entry.pinned,
                    proved,
                });
            }
            None => unreadable.push(Kept {
                id: entry.id.to_string(),
                created: None,
                keep: true,
                reason: why.unwrap_or_default(),
            }),
        }
    }
    let plan = retention::plan(&job.retention, &candidates, now, force);
    let kept = plan.into_iter().map(|verdict| {
        let entry = entries.iter().find(|entry| entry.id.as_str() == verdict.id);
        let why = entry.and_then(|entry| entry.distrust().or_else(|| entry.damage()));
        let reason = match why {
            Some(why) => format!("{}: {why}", verdict.reason),
            None => verdict.reason,
        };
        Kept { id: verdict.id, created: Some(verdict.created), keep: verdict.keep, reason }
    });
    kept.chain(unreadable).collect()
}

/// Removes a backup: first what makes it one, so that no manifest ever stands without its object.
fn remove(open: &OpenTarget, entry: &Entry) -> Result<()> {
    open.target.delete(&entry.manifest_key)?;
    match &entry.object {
        Some(object) => Ok(open.target.delete(&object.key)?),
        None => Ok(()),
    }
}

/// Turns a failure of pruning after a good backup into one that says so.
pub fn after_good_backup(error: Error) -> Error {
    match error.is_stopped() {
        true => error,
        false => Error { kind: Kind::Partial, ..error }.hint("the backup itself is good; try: voxeltron-backup prune"),
    }
}
