//! `schedule-check`: what the timer starts. Flows in: the configuration, the state, the clock. Flows out: every job that
//! is due, run. A tick at which nothing is due reads two small files and is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Done, run_job, table};
use crate::app::{self, App};
use crate::backup::{self, JobReport, Order};
use crate::cli::{Global, ScheduleCheckArgs};
use crate::config::jobs::JobConfig;
use crate::config::{Config, read_text};
use crate::drill::{self, Drill};
use crate::error::{Error, Result};
use crate::exit;
use crate::format::time::{self, rfc3339};
use crate::notify::Runs;
use crate::previous::expiry;
use crate::relearn;
use crate::report::Report;
use crate::schedule::due::{Decision, decide, drill_due};
use crate::schedule::state::{JobState, State, StateFile};
use crate::schedule::tick;
use crate::secret::check_private;
use crate::world::World;

/// One job's decision, for people and programs.
#[derive(Debug, Serialize)]
struct Row {
    job: String,
    due: bool,
    #[serde(with = "time::serde_rfc3339_option")]
    slot: Option<DateTime<Utc>>,
    missed: u32,
    attempt: u32,
    /// When to look again, for a job that is not due.
    #[serde(with = "time::serde_rfc3339_option")]
    until: Option<DateTime<Utc>>,
    reason: String,
}

/// What became of a job that was due.
enum Ended {
    Ran(Box<JobReport>),
    /// Another run has it in hand, or has done it in the meantime.
    PassedBy,
    Failed(Error),
}

/// Runs what is due, and looks again before leaving.
///
/// # Errors
/// [`crate::error::Kind::Config`]; what is wrong with a job is in the report.
pub fn run(global: &Global, args: &ScheduleCheckArgs, world: &World, report: &Report) -> Result<Done> {
    let text = read_text(&global.config)?;
    // Others that can write to it are an error at every tick; that they can read it is said when something is done.
    check_private(&global.config, "configuration")?;
    let digest = tick::digest(&text, &world.vars);
    let plain = !args.dry_run && !args.run_new;
    let data_dir = app::data_dir_of(&text, world).filter(|_| plain);
    if data_dir.is_some_and(|dir| tick::is_idle(&dir, &digest, world.clock.now())) {
        return ended(&[], &[], &[]);
    }
    let app = App::silent(Config::load(&global.config, &world.vars, &app::defaults())?, world, report);
    if args.dry_run {
        app.warn();
        return explain(&app, args);
    }
    let runs = Runs::new(&app);
    let (mut reports, mut errors, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut drills: Option<Vec<Drill>> = None;
    loop {
        refresh(&app, args.run_new)?;
        // A job of unknown past is decided on when its targets have told it.
        let learned = relearn::learn(&app, app.config.jobs.iter())?;
        for (job, created) in &learned.found {
            let created = rfc3339(*created);
            report.note(&format!("{job}: the state knows nothing of it; its newest backup is of {created}"));
        }
        let now = world.clock.now();
        see(&app, now)?;
        let stamp = tick::stamp(&app.cx.data_dir);
        let state = StateFile::new(&app.cx.data_dir).load(report)?;
        let decisions = decisions(&app, &state, now, args.run_new);
        let due: Vec<(&JobConfig, DateTime<Utc>)> = decisions
            .iter()
            .filter_map(|(job, decision)| match decision {
                Decision::Run { slot, .. } if !taken.contains(&(job.name.clone(), *slot)) => Some((*job, *slot)),
                _ => None,
            })
            .collect();
        let stopped = world.cancel.check();
        if due.is_empty() && stopped.is_ok() && drills.is_none() {
            // Backups first; and what falls due during a drill is looked at again.
            drills = Some(drill::run_due(&app)?);
            expiry::expire(&app)?;
            continue;
        }
        if due.is_empty() || stopped.is_err() {
            // What is due and not begun is never a good end.
            let stopped = stopped.err().filter(|_| !due.is_empty());
            errors.extend(stopped.inspect(|stopped| report.error(stopped)));
            match learned.errors.is_empty() {
                true => remember(&app, &digest, &stamp, &decisions, &state, now),
                false => tick::forget(&app.cx.data_dir),
            }
            errors.extend(learned.errors.into_iter().inspect(|error| report.error(error)));
            break;
        }
        if taken.is_empty() {
            app.warn();
        }
        runs.begin();
        taken.extend(due.iter().map(|(job, slot)| (job.name.clone(), *slot)));
        for ended in side_by_side(&app, due, usize::from(args.max_parallel), args.run_new) {
            match ended {
                Ended::Ran(report) => reports.push(*report),
                Ended::Failed(error) => errors.push(error),
                Ended::PassedBy => {}
            }
        }
    }
    let done = ended(&reports, &drills.unwrap_or_default(), &errors)?;
    runs.end(&reports, done.outcome);
    Ok(done)
}

/// Brings what is known of jobs up to date, as far as it may matter: those that are due by what is known here, and those
/// of which nothing is. Of the others no host can have more to do.
fn refresh(app: &App, run_new: bool) -> Result<()> {
    let store = app.store()?;
    if !store.is_shared() {
        return Ok(());
    }
    let (known, now) = (store.file().load(&app.cx.report)?, app.cx.world.clock.now());
    let matters = |job: &&JobConfig| {
        let past = known.jobs.get(&job.name);
        past.is_none_or(|past| past.unasked || !past.is_of(&job.cron) || now < past.first_seen)
            || matches!(decide(&job.due(), past, now, run_new), Decision::Run { .. })
            || job.drill.as_ref().is_some_and(|drill| drill_due(drill, past, now).is_some())
    };
    store.refresh(app.config.jobs.iter().filter(matters).map(|job| job.name.as_str()), &app.cx.report)
}

/// Notes that the configuration has these jobs, of which something is known.
fn see(app: &App, now: DateTime<Utc>) -> Result<()> {
    let (store, report) = (app.store()?, &app.cx.report);
    let all = |state: &mut State| {
        for job in &app.config.jobs {
            if let Some(past) = state.jobs.get_mut(&job.name) {
                past.seen(now, &job.cron);
            }
        }
    };
    if !store.is_shared() {
        return store.file().update(report, all);
    }
    let known = store.file().load(report)?;
    let is_new = |past: &JobState, job: &JobConfig| !past.is_of(&job.cron) || now < past.first_seen;
    for job in app.config.jobs.iter().filter(|job| known.jobs.get(&job.name).is_some_and(|past| is_new(past, job))) {
        store.update(&job.name, report, &mut |state| {
            state.jobs.get_mut(&job.name).into_iter().for_each(|past| past.seen(now, &job.cron));
        })?;
    }
    Ok(())
}

fn ended(reports: &[JobReport], drills: &[Drill], errors: &[Error]) -> Result<Done> {
    let parts = reports.iter().map(JobReport::outcome).chain(drills.iter().map(Drill::outcome));
    let parts = parts.chain(errors.iter().map(|error| Err(error.kind)));
    Done::well()
        .ended(exit::merge(parts))
        .with("idle", &(reports.is_empty() && drills.is_empty() && errors.is_empty()))?
        .with("jobs", &reports)?
        .with("drills", &drills)?
        .with("errors", &errors)
}

fn decisions<'a>(app: &'a App, state: &State, now: DateTime<Utc>, run_new: bool) -> Vec<(&'a JobConfig, Decision)> {
    let decide = |job: &'a JobConfig| (job, decide(&job.due(), state.jobs.get(&job.name), now, run_new));
    app.config.jobs.iter().map(decide).collect()
}

/// Lets the ticks until the next slot be cheap; not while a job waits for another run's lock.
fn remember(
    app: &App,
    digest: &str,
    stamp: &str,
    decisions: &[(&JobConfig, Decision)],
    state: &State,
    now: DateTime<Utc>,
) {
    if !drill::due(app, state, now).is_empty() {
        return tick::forget(&app.cx.data_dir);
    }
    let mut next = app.config.jobs.iter().filter_map(|job| job.drill.as_ref()?.next_after(now)).min();
    next = next.into_iter().chain(expiry::next_due(app)).min();
    for (_, decision) in decisions {
        match decision {
            Decision::Run { .. } => return tick::forget(&app.cx.data_dir),
            Decision::Wait { until, .. } => next = next.into_iter().chain(*until).min(),
        }
    }
    tick::write(&app.cx.data_dir, digest, stamp, now, next);
}

/// Runs jobs on up to `most` threads.
fn side_by_side(app: &App, due: Vec<(&JobConfig, DateTime<Utc>)>, most: usize, run_new: bool) -> Vec<Ended> {
    let count = most.min(due.len());
    let queue = Mutex::new(VecDeque::from(due));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut ended = Vec::new();
        while let Some((job, slot)) = next() {
            ended.push(one(app, job, slot, run_new));
        }
        ended
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let lost = |_| vec![Ended::Failed(Error::other("a thread that ran jobs ended unexpectedly"))];
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(lost)).collect()
    })
}

fn one(app: &App, job: &JobConfig, slot: DateTime<Utc>, run_new: bool) -> Ended {
    match locked(app, job, slot, run_new) {
        Ok(Some(report)) => {
            run_job::show(&report, &app.cx.report);
            Ended::Ran(Box::new(report))
        }
        Ok(None) => Ended::PassedBy,
        Err(error) => {
            app.cx.report.error(&error);
            Ended::Failed(error)
        }
    }
}

fn locked(app: &App, job: &JobConfig, slot: DateTime<Utc>, run_new: bool) -> Result<Option<JobReport>> {
    app.cx.world.cancel.check()?;
    let now = app.cx.world.clock.now();
    let Some(hold) = app.try_hold(&job.name)? else { return Ok(None) };
    let app = &app.holding(&hold);
    // It was decided before the lock was held: another run may have done the slot since.
    let state = StateFile::new(&app.cx.data_dir).load(&app.cx.report)?;
    match decide(&job.due(), state.jobs.get(&job.name), now, run_new) {
        Decision::Run { slot: still, missed, attempt } if still == slot => {
            if missed > 0 {
                app.cx.report.note(&format!("{}: makes up for {missed} older slots that were missed", job.name));
            }
            if attempt > 1 {
                app.cx.report.note(&format!("{}: attempt {attempt} at {}", job.name, rfc3339(slot)));
            }
            Ok(Some(backup::run(app, &Order { job, slot: Some(slot), targets: job.targets.clone() })))
        }
        _ => Ok(None),
    }
}

/// Says what would be done, and touches nothing.
fn explain(app: &App, args: &ScheduleCheckArgs) -> Result<Done> {
    let now = args.at.unwrap_or_else(|| app.cx.world.clock.now());
    let state = StateFile::new(&app.cx.data_dir).read()?;
    if let Some(name) = &app.config.state {
        app.cx.report.note(&format!("decided from what this host knew last of the state at {name}"));
    }
    let rows: Vec<Row> =
        decisions(app, &state, now, args.run_new).iter().map(|(job, decision)| row(job, decision)).collect();
    let cells = rows.iter().map(|row| {
        let when = row.slot.or(row.until).map_or_else(|| "never".to_owned(), rfc3339);
        let verdict = if row.due { "run" } else { "wait" };
        vec![row.job.clone(), verdict.to_owned(), when, row.reason.clone()]
    });
    let cells: Vec<Vec<String>> = cells.collect();
    if cells.is_empty() {
        app.cx.report.note("no jobs");
    } else {
        app.cx.report.out(&table(&["JOB", "DECISION", "SLOT OR NEXT LOOK", "REASON"], &cells))?;
    }
    let counts: BTreeMap<&str, usize> = BTreeMap::from([("due", rows.iter().filter(|row| row.due).count())]);
    Done::well().with("dry_run", &true)?.with("at", &rfc3339(now))?.with("counts", &counts)?.with("decisions", &rows)
}

fn row(job: &JobConfig, decision: &Decision) -> Row {
    let job = job.name.clone();
    match decision {
        Decision::Run { slot, missed, attempt } => {
            let mut reason = "due".to_owned();
            if *missed > 0 {
                reason.push_str(&format!(", makes up for {missed} older slots that were missed"));
            }
            if *attempt > 1 {
                reason.push_str(&format!(", attempt {attempt}"));
            }
            Row { job, due: true, slot: Some(*slot), missed: *missed, attempt: *attempt, until: None, reason }
        }
        Decision::Wait { until, why } => {
            Row { job, due: false, slot: None, missed: 0, attempt: 0, until: *until, reason: why.clone() }
        }
    }
}
