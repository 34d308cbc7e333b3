//! One run of one job: engine → pipeline → targets, then the manifests, then retention. Flows in: a job, its slot, the
//! targets. Flows out: a report; a backup at every target that confirmed it, and nothing at the others. Touches the
//! targets, the state, and what the job's hooks touch. The caller holds the job's lock.

mod run;
mod standing;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use self::run::Run;
use self::standing::{complete, find_id};
use crate::app::{App, Opened};
use crate::catalog::OpenTarget;
use crate::cleanup::{self, Mode};
use crate::config::jobs::JobConfig;
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::exit;
use crate::format::name::BackupId;
use crate::format::time;
use crate::hook::{self, Facts};
use crate::notify;

/// How long a hook that runs after a job may take; the job's own timeout may have passed by then.
const AFTER_TIMEOUT: Duration = Duration::from_secs(600);

/// What became of the backup at one target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    /// The target's name.
    pub target: String,
    /// Whether the backup stands there now.
    pub stored: bool,
    /// Whether an earlier run had already put the slot's backup there.
    pub was_there: bool,
    /// The target that it was copied from, where it was not dumped anew.
    pub copied_from: Option<String>,
    /// The object's name.
    pub object: Option<String>,
    /// Its size.
    pub stored_bytes: Option<u64>,
    /// Ids of backups that retention has removed.
    pub removed: Vec<String>,
    /// What failed.
    pub error: Option<Error>,
}

/// What became of a run.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// The job's name.
    pub job: String,
    /// Its database.
    pub database: String,
    /// The backup's id.
    pub id: Option<String>,
    /// The slot; none for a manual run.
    #[serde(with = "time::serde_rfc3339_option")]
    pub scheduled_for: Option<DateTime<Utc>>,
    /// When the dump began.
    #[serde(with = "time::serde_rfc3339_option")]
    pub created: Option<DateTime<Utc>>,
    /// How long the run took.
    pub duration_ms: u64,
    /// The dump's size.
    pub dump_bytes: Option<u64>,
    /// The targets.
    pub targets: Vec<TargetReport>,
    /// What is not right but stopped nothing.
    pub warnings: Vec<String>,
    /// What failed.
    pub error: Option<Error>,
}

impl JobReport {
    /// How it ended.
    ///
    /// # Errors
    /// The kind of the whole failure.
    pub fn outcome(&self) -> Result<(), Kind> {
        let parts = self.targets.iter().map(|target| target.error.as_ref().map_or(Ok(()), |error| Err(error.kind)));
        match (&self.error, exit::merge(parts)) {
            (Some(error), _) => Err(error.kind),
            (None, outcome) => outcome,
        }
    }

    /// The targets at which the backup stands, and the others.
    fn placed(&self) -> (Vec<&str>, Vec<&str>) {
        let stands = |target: &&TargetReport| target.stored || target.was_there;
        let (at, missing): (Vec<_>, Vec<_>) = self.targets.iter().partition(stands);
        fn names(targets: Vec<&TargetReport>) -> Vec<&str> {
            targets.into_iter().map(|target| target.target.as_str()).collect()
        }
        (names(at), names(missing))
    }

    /// The failures, worst first, for people.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        self.error.iter().chain(self.targets.iter().filter_map(|target| target.error.as_ref()))
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The job.
    pub job: &'a JobConfig,
    /// The slot it fills; none for a manual run.
    pub slot: Option<DateTime<Utc>>,
    /// Where to.
    pub targets: Vec<String>,
}

impl JobReport {
    fn new(order: &Order<'_>) -> Self {
        Self {
            job: order.job.name.clone(),
            database: order.job.database.clone(),
            id: None,
            scheduled_for: order.slot,
            created: None,
            duration_ms: 0,
            dump_bytes: None,
            targets: Vec::new(),
            warnings: Vec::new(),
            error: None,
        }
    }
}

/// Dumps a database to one place, as a backup that no job knows of: no state, no hooks, no retention.
///
/// # Errors
/// Whatever kept it from being whole; nothing stands there then.
pub fn keep(app: &App, job: &JobConfig, id: BackupId, opened: &Opened, open: &OpenTarget) -> Result<()> {
    let (cx, owner, key) = (&app.cx, app.owner(&job.database), app.writing_key(job)?);
    let probe = opened.engine.probe(cx)?;
    let order = Order { job, slot: None, targets: Vec::new() };
    let mut report = JobReport::new(&order);
    let run = Run { app, order: &order, cx, owner, id, key, kind: opened.kind, probe };
    run.store(opened.engine.as_ref(), std::slice::from_ref(open), &mut report)?;
    match report.targets.into_iter().next() {
        Some(TargetReport { stored: true, .. }) => Ok(()),
        kept => Err(kept.and_then(|kept| kept.error).unwrap_or_else(|| Error::other("it was not stored"))),
    }
}

/// Runs a job. Failures are in the report.
pub fn run(app: &App, order: &Order<'_>) -> JobReport {
    let clock = &app.cx.world.clock;
    let started = clock.monotonic();
    let mut report = JobReport::new(order);
    let cx = app.within(order.job.timeout);
    notify::job_begins(app, order.job);
    let ended = begin(app, order).and_then(|unnoted| {
        if let Some(unnoted) = &unnoted {
            app.cx.report.warn(&format!("job {}: {unnoted}", order.job.name));
        }
        let ended = with_hooks(app, order, &cx, &mut report);
        report.warnings.extend(unnoted);
        ended
    });
    if let Err(error) = ended {
        report.error = Some(error.while_doing(format!("job {}", order.job.name)));
    }
    report.duration_ms = millis(clock.monotonic().saturating_sub(started));
    if let Err(error) = remember(app, order, &report) {
        report.error.get_or_insert(error);
    }
    notify::job_ended(app, order.job, &report);
    report
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn with_hooks(app: &App, order: &Order<'_>, cx: &Cx, report: &mut JobReport) -> Result<()> {
    let job = order.job;
    let facts = Facts { job: &job.name, database: &job.database, outcome: None };
    let before = hook::run(job.before.as_ref(), &format!("before of job {}", job.name), &facts, cx);
    let attempt = before.and_then(|()| attempt(app, order, cx, report));
    let good = attempt.is_ok() && report.outcome().is_ok();
    let after = Facts { outcome: Some(if good { "success" } else { "failure" }), ..facts };
    // It puts right what the one before has done, so it runs in any case, and also after a signal.
    let world = app.cx.world.for_cleanup();
    let cx = Cx { deadline: Some(world.clock.monotonic() + AFTER_TIMEOUT), world, ..cx.clone() };
    let after = hook::run(job.after.as_ref(), &format!("after of job {}", job.name), &after, &cx);
    attempt.and(after)
}

/// Writes down that the run has begun, so that one that is killed is noticed. A job that a run by hand makes known has a
/// past that only its targets know: they are asked before its slots are decided on.
///
/// A full disk here must not keep the backup from places elsewhere: gives what could not be written. If that is still so
/// at the end, the run has failed; the slot then stays due, and its manifests keep it from being dumped again.
fn begin(app: &App, order: &Order<'_>) -> Result<Option<String>> {
    let now = app.cx.world.clock.now();
    let noted = app.store()?.update(&order.job.name, &app.cx.report, &mut |state| {
        let unasked = order.slot.is_none() && !state.jobs.contains_key(&order.job.name);
        let past = state.seen(&order.job.name, now, &order.job.cron);
        past.unasked |= unasked;
        past.began(order.slot, now);
    });
    match noted {
        Ok(()) => Ok(None),
        // What becomes of a file of ours; what becomes of a record that hosts share has another kind.
        Err(error) if error.kind == Kind::Other => Ok(Some(format!("can't note that it begins: {error}"))),
        Err(error) => Err(error),
    }
}

/// Puts the outcome into the state. A run that was stopped by a signal, or has lost its lease, counts as not made.
fn remember(app: &App, order: &Order<'_>, report: &JobReport) -> Result<()> {
    let now = app.cx.world.clock.now();
    let job = order.job.due();
    let outcome = report.outcome();
    if matches!(outcome, Err(Kind::Stopped(_))) || app.cx.world.cancel.check_leases().is_err() {
        return app.cx.world.cancel.check_leases();
    }
    let failure = report.errors().next().map(|error| error.message.clone()).unwrap_or_default();
    // A backup that stands everywhere is a success, whatever happened to pruning or to a hook.
    let (at, missing) = report.placed();
    let stands = !at.is_empty() && missing.is_empty();
    app.store()?.settle(job.name, &app.cx.report, &mut |state| {
        let past = state.seen(job.name, now, job.cron);
        match (&report.id, report.created) {
            (Some(id), created) if stands => {
                let bytes = report.targets.iter().filter_map(|target| target.stored_bytes).max();
                past.succeeded(order.slot, id, created.or(order.slot).unwrap_or(now), bytes.unwrap_or(0), now);
            }
            _ => past.failed(order.slot, &job, &failure, now),
        }
        past.placed(report.id.as_deref().unwrap_or_default(), &at, &missing);
    })
}

fn attempt(app: &App, order: &Order<'_>, cx: &Cx, report: &mut JobReport) -> Result<()> {
    let job = order.job;
    let opened = open_all(app, order, report)?;
    if opened.is_empty() {
        return Ok(());
    }
    let key = app.writing_key(job)?;
    let owner = app.owner(&job.database);
    if let Some(slot) = order.slot {
        let id = BackupId::new(slot, &job.name);
        if complete(app, cx, &owner, &id, &opened, report)? {
            report.id = Some(id.to_string());
            return prune(app, job, &opened, report);
        }
    }
    let Opened { kind, engine } = app.engine(&job.database)?;
    let probe = engine.probe(cx)?;
    for warning in &probe.warnings {
        cx.report.warn(&format!("job {}: {warning}", job.name));
    }
    report.warnings.clone_from(&probe.warnings);
    let (id, open) = find_id(app, order, &owner, opened, report)?;
    report.id = Some(id.to_string());
    if open.is_empty() {
        return Ok(());
    }
    let run = Run { app, order, cx, owner, id, key, kind, probe };
    run.store(engine.as_ref(), &open, report)?;
    prune(app, job, &open, report)
}

/// Opens the targets. One that can't be, whose key is not to be had in this moment, fails by itself: the others get the
/// backup.
fn open_all(app: &App, order: &Order<'_>, report: &mut JobReport) -> Result<Vec<OpenTarget>> {
    let mut opened = Vec::new();
    for name in &order.targets {
        match app.open_target(name) {
            Ok(open) => opened.push(open),
            Err(error) if error.is_stopped() => return Err(error),
            Err(error) => report.targets.push(TargetReport { error: Some(error), ..TargetReport::new(name) }),
        }
    }
    Ok(opened)
}

impl TargetReport {
    fn new(name: &str) -> Self {
        Self {
            target: name.to_owned(),
            stored: false,
            was_there: false,
            copied_from: None,
            object: None,
            stored_bytes: None,
            removed: Vec::new(),
            error: None,
        }
    }

    fn failed(open: &OpenTarget, error: Error) -> Self {
        Self { error: Some(error), ..Self::new(&open.name) }
    }

    fn was_there(open: &OpenTarget) -> Self {
        Self { was_there: true, ..Self::new(&open.name) }
    }
}

/// Applies retention at every target that has got the backup.
fn prune(app: &App, job: &JobConfig, open: &[OpenTarget], report: &mut JobReport) -> Result<()> {
    for target in report.targets.iter_mut().filter(|target| target.stored) {
        let Some(open) = open.iter().find(|open| open.name == target.target) else { continue };
        match cleanup::prune(app, job, open, Mode::default()) {
            Ok(pruned) => {
                let gone = pruned.backups.into_iter().filter(|kept| !kept.keep);
                target.removed = gone.map(|kept| kept.id).collect();
            }
            Err(error) if error.is_stopped() => return Err(error),
            Err(error) => target.error = Some(cleanup::after_good_backup(error)),
        }
    }
    Ok(())
}
