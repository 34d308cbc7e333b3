//! One run of one job: engine → pipeline → targets, then the manifests, then retention. Flows in: a job, its slot, the
//! targets. Flows out: a report; a backup at every target that confirmed it, and nothing at the others. Touches the
//! targets, the state, and what the job's hooks touch. The caller holds the job's lock.

use std::io::Read;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;

use crate::app::{App, Opened};
use crate::catalog::{self, Entry, OpenTarget};
use crate::cleanup::{self, Mode};
use crate::config::jobs::JobConfig;
use crate::engine::{Counts, Cx, Engine, EngineKind, FindingsCell, Inspected, Probe};
use crate::error::{Error, Kind, Result};
use crate::exit;
use crate::format::header::Header;
use crate::format::key::Key;
use crate::format::manifest::{self, ENCRYPTION, Signed};
use crate::format::name::{self, BackupId, ObjectKey, Owner};
use crate::format::{FORMAT, time};
use crate::hook::{self, Facts};
use crate::notify;
use crate::pipeline::encrypt::Sealer;
use crate::pipeline::fanout::fan_out;
use crate::pipeline::gzip::Compressor;
use crate::pipeline::meter::{Measured, MeasuredCell, Meter};
use crate::recopy;
use crate::target::{Cause, Target};

/// How long a hook that runs after a job may take; the job's own timeout may have passed by then.
const AFTER_TIMEOUT: Duration = Duration::from_secs(600);
/// How often a manual run looks for a second that no backup has taken yet.
const ID_ATTEMPTS: usize = 10;

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
    if let Err(error) = begin(app, order).and_then(|()| with_hooks(app, order, &cx, &mut report)) {
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
fn begin(app: &App, order: &Order<'_>) -> Result<()> {
    let now = app.cx.world.clock.now();
    app.store()?.update(&order.job.name, &app.cx.report, &mut |state| {
        let unasked = order.slot.is_none() && !state.jobs.contains_key(&order.job.name);
        let past = state.seen(&order.job.name, now, &order.job.cron);
        past.unasked |= unasked;
        past.began(order.slot, now);
    })
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
    let stands = !report.targets.is_empty() && report.targets.iter().all(|target| target.stored || target.was_there);
    app.store()?.settle(job.name, &app.cx.report, &mut |state| {
        let past = state.seen(job.name, now, job.cron);
        match (&report.id, report.created) {
            (Some(id), created) if stands => {
                let bytes = report.targets.iter().filter_map(|target| target.stored_bytes).max();
                past.succeeded(order.slot, id, created.or(order.slot).unwrap_or(now), bytes.unwrap_or(0), now);
            }
            _ => past.failed(order.slot, &job, &failure, now),
        }
    })
}

fn attempt(app: &App, order: &Order<'_>, cx: &Cx, report: &mut JobReport) -> Result<()> {
    let job = order.job;
    let opened: Vec<OpenTarget> = order.targets.iter().map(|name| app.open_target(name)).collect::<Result<_>>()?;
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

/// Where a slot's backup stands at some of its targets, brings it to the others by copying, and says whether that is all
/// there is to do: the database is not dumped again for a target that was away. `false`: nothing was done.
fn complete(
    app: &App,
    cx: &Cx,
    owner: &Owner,
    id: &BackupId,
    opened: &[OpenTarget],
    report: &mut JobReport,
) -> Result<bool> {
    let key = name::manifest_key(owner, id)?;
    // A target that does not answer is tried, and told, by the run itself.
    let standing: Vec<bool> = opened.iter().map(|open| has_manifest(open, &key).unwrap_or(false)).collect();
    if standing.iter().all(|stands| *stands) || !standing.contains(&true) {
        return Ok(false);
    }
    let with = |wanted: bool| opened.iter().zip(&standing).filter(move |(_, is)| **is == wanted).map(|(open, _)| open);
    let good = |from: &'_ OpenTarget| is_backup(app, from, owner, id).ok();
    let Some((from, entry)) = with(true).find_map(|from| good(from).map(|entry| (from, entry))) else {
        return Ok(false);
    };
    let mut copied = Vec::new();
    for to in with(false) {
        cx.world.cancel.check()?;
        match recopy::copy(&entry, from, to, cx) {
            Ok(None) => copied.push(standing_report(app, to, owner, id)),
            Ok(Some(signed)) => copied.push(TargetReport {
                stored: true,
                copied_from: Some(from.name.clone()),
                object: Some(signed.object),
                stored_bytes: Some(signed.stored_bytes),
                ..TargetReport::new(to)
            }),
            Err(recopy::Failure::Destination(error)) => copied.push(TargetReport::failed(to, error)),
            // Then a new dump is what is left; what was copied already stays.
            Err(recopy::Failure::Source(error)) if error.is_stopped() => return Err(error),
            Err(recopy::Failure::Source(error)) => {
                cx.report.warn(&format!("can't copy {id} from {} to {}: {error}", from.name, to.name));
                return Ok(false);
            }
        }
    }
    report.created = entry.signed().map(|signed| signed.created);
    report.dump_bytes = entry.signed().map(|signed| signed.dump_bytes);
    report.targets = with(true).map(|open| standing_report(app, open, owner, id)).chain(copied).collect();
    Ok(true)
}

/// What there is to say of a target at which a manifest of the slot stands.
fn standing_report(app: &App, open: &OpenTarget, owner: &Owner, id: &BackupId) -> TargetReport {
    match is_backup(app, open, owner, id) {
        Ok(_) => TargetReport::was_there(open),
        Err(error) => TargetReport::failed(open, error),
    }
}

/// Whether a manifest stands at a target.
fn has_manifest(open: &OpenTarget, key: &ObjectKey) -> Result<bool> {
    match open.target.get(key) {
        Ok(_) => Ok(true),
        Err(failure) if failure.cause == Cause::NotFound => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// The backup that stands under a slot's name. Fails unless what stands under a slot's name is a backup that retention and `restore` would take for one: else a
/// forged, emptied or cut one would pass for the slot's own, and the slot for done.
fn is_backup(app: &App, open: &OpenTarget, owner: &Owner, id: &BackupId) -> Result<Entry> {
    let found = catalog::read(open, &format!("{}{id}.", owner.prefix()), &mut |owner| app.keyring(&owner.database))?;
    let why = match found.entries.into_iter().next() {
        None => "it is no manifest".to_owned(),
        Some(entry) => match entry.distrust().or_else(|| entry.damage()) {
            None => return Ok(entry),
            Some(why) => why,
        },
    };
    let key = name::manifest_key(owner, id)?;
    let message = format!("target {}: {key} is there already, but is no good backup: {why}", open.name);
    Err(Error::new(Kind::Authentication, message)
        .hint("find out who put it there, move it away, and try again: voxeltron-backup run-job"))
}

/// The id, and the targets that have no backup of that id yet. A slot's id is given; a manual run takes the next second
/// that is free at all of them.
fn find_id(
    app: &App,
    order: &Order<'_>,
    owner: &Owner,
    mut open: Vec<OpenTarget>,
    report: &mut JobReport,
) -> Result<(BackupId, Vec<OpenTarget>)> {
    let cx = &app.cx;
    for _ in 0..ID_ATTEMPTS {
        let now = cx.world.clock.now();
        let id = BackupId::new(order.slot.unwrap_or(now), &order.job.name);
        let key = name::manifest_key(owner, &id)?;
        let (mut free, mut taken) = (Vec::new(), Vec::new());
        for target in std::mem::take(&mut open) {
            match has_manifest(&target, &key) {
                Ok(false) => free.push(target),
                Ok(true) => taken.push(target),
                Err(error) => report.targets.push(TargetReport::failed(&target, error)),
            }
        }
        if order.slot.is_some() || taken.is_empty() {
            report.targets.extend(taken.iter().map(|target| standing_report(app, target, owner, &id)));
            return Ok((id, free));
        }
        open = free.into_iter().chain(taken).collect();
        cx.world.cancel.check()?;
        let rest = 1_000_u32.saturating_sub(now.timestamp_subsec_millis());
        cx.world.clock.sleep(Duration::from_millis(u64::from(rest)));
    }
    let why = format!("{ID_ATTEMPTS} seconds in a row have a backup of this job already");
    Err(Error::other(why).hint("look at the clock of this machine"))
}

impl TargetReport {
    fn new(open: &OpenTarget) -> Self {
        Self {
            target: open.name.clone(),
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
        Self { error: Some(error), ..Self::new(open) }
    }

    fn was_there(open: &OpenTarget) -> Self {
        Self { was_there: true, ..Self::new(open) }
    }
}

/// A run whose every part is known.
struct Run<'a> {
    app: &'a App,
    order: &'a Order<'a>,
    cx: &'a Cx,
    owner: Owner,
    id: BackupId,
    key: Option<Key>,
    kind: &'static EngineKind,
    probe: Probe,
}

/// What can be read off the stages once the stream has ended well.
struct Cells {
    dump: MeasuredCell,
    stored: MeasuredCell,
    findings: FindingsCell,
    counts: Counts,
    partial: Option<String>,
}

impl Run<'_> {
    fn store(&self, engine: &dyn Engine, open: &[OpenTarget], report: &mut JobReport) -> Result<()> {
        let (job, world) = (self.order.job, &self.cx.world);
        let object = name::object_key(
            &self.owner,
            &self.id,
            &world.random_hex(4)?,
            self.kind.ending,
            job.compress,
            job.encrypt,
        )?;
        let created = world.clock.now().trunc_subsecs(3);
        report.created = Some(created);
        let started = world.clock.monotonic();
        let (mut stream, cells) = self.stream(engine, created)?;
        let targets: Vec<&dyn Target> = open.iter().map(|open| open.target.as_ref()).collect();
        let results = fan_out(&mut stream, &targets, &object, world);
        drop(stream);
        let duration = world.clock.monotonic().saturating_sub(started);
        if let Some(failure) =
            results.iter().find_map(|result| result.as_ref().err().filter(|failure| failure.cause == Cause::Body))
        {
            // The dump itself failed: every target says the same, and one of them says it for all.
            return Err(failure.error.clone());
        }
        let Some(signed) = self.signed(&cells, &object, created, duration) else {
            let unfinished = || Error::other("the dump did not end as it should");
            for (open, result) in open.iter().zip(results) {
                let error = result.map_or_else(Error::from, |_| unfinished());
                drop(open.target.delete(&object));
                report.targets.push(TargetReport::failed(open, error));
            }
            return Ok(());
        };
        report.dump_bytes = Some(signed.dump_bytes);
        let bytes = manifest::write(&signed, self.key.as_ref())?;
        for (open, result) in open.iter().zip(results) {
            let outcome = result.map_err(Error::from).and_then(|stored| match stored.size == signed.stored_bytes {
                true => self.publish(open, &object, &bytes),
                false => Err(self.size_differs(open, &object, stored.size, signed.stored_bytes)),
            });
            report.targets.push(match outcome {
                Err(error) => TargetReport::failed(open, error),
                Ok(false) => TargetReport::was_there(open),
                Ok(true) => TargetReport {
                    stored: true,
                    object: Some(object.to_string()),
                    stored_bytes: Some(signed.stored_bytes),
                    ..TargetReport::new(open)
                },
            });
        }
        Ok(())
    }

    /// Chains the stages.
    fn stream(&self, engine: &dyn Engine, created: DateTime<Utc>) -> Result<(Box<dyn Read + Send>, Cells)> {
        let (job, cx) = (self.order.job, self.cx);
        cx.report.detail(&format!("job {}: dumping {}", job.name, engine.describe()));
        let dump = engine.dump(cx)?;
        let inspected = Inspected::new(dump.stream, (self.kind.inspector)());
        let findings = inspected.findings();
        let metered = Meter::counting(inspected).with_progress(cx.report.progress(&job.name, None));
        let dump_cell = metered.result();
        let mut stream: Box<dyn Read + Send> = Box::new(metered);
        if job.compress {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            stream = Box::new(Compressor::new(stream, job.compression_level, cores)?);
        }
        if let Some(key) = self.key.as_ref().filter(|_| job.encrypt) {
            let header = Header {
                format: FORMAT,
                instance: self.owner.instance.clone(),
                database: self.owner.database.clone(),
                job: job.name.clone(),
                id: self.id.to_string(),
                engine: self.kind.name.to_owned(),
                created,
                compression: compression(job).to_owned(),
                key_id: key.id(),
            };
            stream = Box::new(Sealer::new(stream, key, header.to_bytes()?, &cx.world)?);
        } else if job.encrypt {
            return Err(Error::new(Kind::Config, "encrypt is true, but there is no encryption_key"));
        }
        let stored = Meter::digesting(stream);
        let cells = Cells {
            dump: dump_cell,
            stored: stored.result(),
            findings,
            counts: dump.counts,
            partial: engine.partial(),
        };
        Ok((Box::new(stored), cells))
    }

    /// What the manifest will say; nothing, unless every stage has seen the end of its stream.
    fn signed(&self, cells: &Cells, object: &ObjectKey, created: DateTime<Utc>, took: Duration) -> Option<Signed> {
        let job = self.order.job;
        let findings = cells.findings.take()?;
        let Measured { bytes: stored_bytes, sha256 } = cells.stored.get()?;
        let mut counts = cells.counts.clone();
        counts.extend(findings.counts);
        Some(Signed {
            id: self.id.to_string(),
            instance: self.owner.instance.clone(),
            database: self.owner.database.clone(),
            job: job.name.clone(),
            engine: self.kind.name.to_owned(),
            tool_version: findings.tool_version.or_else(|| self.probe.tool_version.clone()),
            server_version: findings.server_version.or_else(|| self.probe.server_version.clone()),
            created,
            scheduled_for: self.order.slot,
            duration_ms: millis(took),
            object: object.to_string(),
            stored_bytes,
            stored_sha256: sha256?,
            dump_bytes: cells.dump.get()?.bytes,
            compression: compression(job).to_owned(),
            encryption: if job.encrypt { ENCRYPTION } else { "none" }.to_owned(),
            key_id: self.key.as_ref().map(Key::id),
            end_mark: findings.end_mark,
            counts,
            partial: cells.partial.clone(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Writes the manifest. Only one can win; without one the object is no backup and goes.
    fn publish(&self, open: &OpenTarget, object: &ObjectKey, bytes: &[u8]) -> Result<bool> {
        let key = name::manifest_key(&self.owner, &self.id)?;
        if let Err(lost) = self.cx.world.cancel.check_leases() {
            drop(open.target.delete(object));
            return Err(lost);
        }
        let failure = match open.target.put(&key, &mut &*bytes) {
            Ok(_) => return Ok(true),
            Err(failure) => failure,
        };
        // When the answer was lost the manifest may stand all the same, and then its object must, too.
        let stands = failure.cause != Cause::Exists && has_manifest(open, &key).unwrap_or(true);
        if !stands {
            drop(open.target.delete(object));
        }
        if failure.cause == Cause::Exists && self.order.slot.is_some() {
            return is_backup(self.app, open, &self.owner, &self.id).map(|_| false);
        }
        Err(failure.into())
    }

    fn size_differs(&self, open: &OpenTarget, object: &ObjectKey, has: u64, sent: u64) -> Error {
        drop(open.target.delete(object));
        Error::new(Kind::Target, format!("target {}: {object} has {has} bytes after {sent} were sent", open.name))
    }
}

fn compression(job: &JobConfig) -> &'static str {
    if job.compress { "gzip" } else { "none" }
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
