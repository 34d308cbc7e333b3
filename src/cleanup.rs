//! Removing: what retention does not keep, and what runs that died have left. Flows in: a job, one of its targets, the
//! clock. Flows out: a verdict for each backup, carried out. Deletes at the target, and only what this program wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::app::App;
use crate::catalog::{Entry, OpenTarget};
use crate::config::jobs::JobConfig;
use crate::error::{Error, Kind, Result};
use crate::format::name::ObjectKey;
use crate::format::time;
use crate::retention::{self, Candidate, Terms};
use crate::schedule::state::State;
use crate::target::{Cause, TargetError};

/// How many backups are removed before a signal is looked for.
const AT_ONCE: usize = 1_000;
/// A gap before the newest backup that is told though it keeps nothing: a host may be off at night, and for a week.
const FAR: TimeDelta = TimeDelta::days(30);
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
    let store = app.store()?;
    let state = store.read([job.name.as_str()].into_iter(), &app.cx.report)?;
    // A record that was lost and made again knows of no proof; this host may.
    let known = if store.is_shared() { store.file().read()? } else { state.clone() };
    let of = |state: &'_ State| state.jobs.get(&job.name).and_then(|past| past.last_proved_id.clone());
    let proved = of(&state).or_else(|| of(&known));
    let proved = proved.as_deref();
    let terms = Terms { now, pace: job.cron.pace(now), force: mode.force };
    let (backups, leap) = verdicts(job, &entries, proved, &terms);
    if let Some(leap) = leap.as_ref().filter(|leap| !mode.dry_run && (leap.spared > 0 || leap.gap > FAR)) {
        app.cx.report.warn(&format!("{} at {}: {}", job.name, open.name, said(leap)));
    }
    // Everything is tried before the first failure is told, so that one object that can't go does not keep the rest.
    let mut failures = Vec::new();
    let mut pruned = Pruned { backups, leftovers: Vec::new() };
    // By a clock that may have jumped, everything is old: what a sibling is sending just now, too.
    let doubts = leap.is_some() && !mode.force;
    let before = |timeout| if doubts { DateTime::<Utc>::MIN_UTC } else { now - age(timeout) };
    let own = before(job.timeout);
    let left = catalog.orphans.iter().filter(|orphan| orphan.id.job().as_deref() == Some(&job.name));
    let left: Vec<ObjectKey> = left
        .filter(|orphan| orphan.object.modified.or_else(|| orphan.id.at()).is_some_and(|at| at < own))
        .map(|orphan| orphan.object.key.clone())
        .collect();
    pruned.leftovers = left.iter().map(|key| key.to_string()).collect();
    if mode.dry_run {
        return Ok(pruned);
    }
    let by_id: BTreeMap<&str, &Entry> = entries.iter().map(|entry| (entry.id.as_str(), *entry)).collect();
    let mut going: Vec<(&mut Kept, &Entry)> = Vec::new();
    for kept in pruned.backups.iter_mut().filter(|kept| !kept.keep) {
        let entry = by_id.get(kept.id.as_str()).copied();
        going.extend(entry.map(|entry| (kept, entry)));
    }
    for some in going.chunks_mut(AT_ONCE) {
        app.cx.world.cancel.check()?;
        failures.extend(remove(open, some));
    }
    for some in left.chunks(AT_ONCE) {
        app.cx.world.cancel.check()?;
        failures.extend(open.target.delete_all(some).into_iter().filter_map(Result::err).filter(is_failure));
    }
    // Whose unfinished upload it is does not show: the job that may take longest decides.
    let longest = app.jobs_of(&job.database).map(|job| job.timeout).max().unwrap_or(job.timeout);
    match open.target.sweep(&owner.prefix(), before(longest)) {
        // No backup is the worse for it, but what dead runs left stays, and may cost.
        Err(failure) if !is_failure(&failure) => {
            let hint = failure.error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            app.cx.report.warn(&format!("job {}: {}{hint}", job.name, failure.error.message));
        }
        swept => failures.extend(swept.err()),
    }
    match failures.into_iter().next() {
        Some(failure) => Err(Error::from(failure).while_doing(format!("pruning {} at {}", job.name, open.name))),
        None => Ok(pruned),
    }
}

/// How old what a run left must be, if it may take so long.
fn age(timeout: Duration) -> TimeDelta {
    TimeDelta::from_std(timeout).unwrap_or(LEFTOVER_AGE) + LEFTOVER_AGE
}

/// Decides on every backup of a job. What can't be read, is cut, or has lost its object is no good one: it keeps no
/// other from staying and makes no other go. Beside them what there is to say of the clock.
fn verdicts(job: &JobConfig, entries: &[&Entry], proved: Option<&str>, terms: &Terms) -> (Vec<Kept>, Option<Leap>) {
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
    let plan = retention::plan(&job.retention, &candidates, terms);
    let spared = plan.iter().filter(|verdict| verdict.by_gap).count();
    let leap = retention::leap(&job.retention, &candidates, terms).map(|gap| Leap { gap, spared });
    let by_id: BTreeMap<&str, &Entry> = entries.iter().map(|entry| (entry.id.as_str(), *entry)).collect();
    let kept = plan.into_iter().map(|verdict| {
        let entry = by_id.get(verdict.id.as_str());
        let why = entry.and_then(|entry| entry.distrust().or_else(|| entry.damage()));
        let reason = match why {
            Some(why) => format!("{}: {why}", verdict.reason),
            None => verdict.reason,
        };
        Kept { id: verdict.id, created: Some(verdict.created), keep: verdict.keep, reason }
    });
    (kept.chain(unreadable).collect(), leap)
}

/// A newest backup that stands alone.
struct Leap {
    /// For how long none was made before it, by the dates.
    gap: TimeDelta,
    /// How many stay only because that does not count.
    spared: usize,
}

/// What is said of it.
fn said(leap: &Leap) -> String {
    let gap = time::span(leap.gap);
    let stays = match leap.spared {
        0 => String::new(),
        1 => "; 1 backup stays that is too old only by that gap".to_owned(),
        count => format!("; {count} backups stay that are too old only by that gap"),
    };
    let mend = "if the clock of this machine is right, they go in time, or with: voxeltron-backup prune --force";
    let mend = if leap.spared == 0 { "look at the clock of this machine" } else { mend };
    format!("no backup was made in the {gap} before the newest one, or the clock has jumped{stays}: {mend}")
}

/// Whether it is more than a target's word that it keeps what it has: an object lock, or a key that may only write.
fn is_failure(failure: &TargetError) -> bool {
    !matches!(failure.cause, Cause::Denied | Cause::Retained)
}

/// Removes backups: first what makes them such, so that no manifest ever stands without its object. What the target does
/// not let go is kept, and says so.
fn remove(open: &OpenTarget, going: &mut [(&mut Kept, &Entry)]) -> Vec<TargetError> {
    let mut failures = Vec::new();
    let manifests: Vec<ObjectKey> = going.iter().map(|(_, entry)| entry.manifest_key.clone()).collect();
    let mut objects = Vec::new();
    for ((kept, entry), outcome) in going.iter_mut().zip(open.target.delete_all(&manifests)) {
        match outcome {
            Ok(()) => objects.extend(entry.object.as_ref().map(|object| object.key.clone())),
            Err(failure) if is_failure(&failure) => failures.push(failure),
            Err(failure) => {
                kept.keep = true;
                kept.reason = format!("{}, but the target retains it: {}", kept.reason, failure.error.message);
            }
        }
    }
    failures.extend(open.target.delete_all(&objects).into_iter().filter_map(Result::err).filter(is_failure));
    failures
}

/// Turns a failure of pruning after a good backup into one that says so.
pub fn after_good_backup(error: Error) -> Error {
    match error.is_stopped() {
        true => error,
        false => Error { kind: Kind::Partial, ..error }.hint("the backup itself is good; try: voxeltron-backup prune"),
    }
}
