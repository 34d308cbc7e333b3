//! `schedule-check`: what the timer starts. Flows in: the configuration, the state, the clock. Flows out: every job that
//! is due, run. A tick at which nothing is due reads two small files and is over.
//!
//! One that has something to do looks again while it does it, since a timer starts no second one beside it: what falls
//! due during a long dump, drill or hook is begun, as long as no more than `--max-parallel` are under way. By what the
//! configuration says by then: it may have been changed because of what the old one would do.

mod explain;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use self::workers::{Ended, Finished, Item, Terms, Work};
use super::Done;
use crate::app::{self, App};
use crate::backup::JobReport;
use crate::cli::{Global, ScheduleCheckArgs};
use crate::config::jobs::JobConfig;
use crate::config::{Config, read_text};
use crate::drill::{self, Drill};
use crate::error::{Error, Result};
use crate::exit;
use crate::notify::Runs;
use crate::previous::expiry;
use crate::report::Report;
use crate::schedule::due::{Decision, clock_doubt, decide, drill_due};
use crate::schedule::state::{JobState, State, StateFile};
use crate::schedule::tick;
use crate::secret::check_private;
use crate::world::World;

/// How long a host does not change a schedule back that another one has changed: the hosts get a new configuration one
/// after the other, and those that have the old one yet must not undo it each minute.
const DEPLOYED: TimeDelta = TimeDelta::hours(1);
/// How often is looked again while something is under way.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

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
        return explain::explain(&app, args);
    }
    let runs = Runs::new(&app);
    let mut sum = Sum::new(report);
    let asked = Asked { global, run_new: args.run_new, world, report };
    work(
        &asked,
        &app,
        Beside { runs: &runs, most: usize::from(args.max_parallel), drilling: false },
        &digest,
        &mut sum,
    );
    let (reports, drills, errors) = sum.all();
    let done = ended(&reports, &drills, &errors)?;
    runs.end(&reports, &drills, &errors, done.outcome);
    Ok(done)
}

/// What a tick was asked for.
struct Asked<'a> {
    global: &'a Global,
    run_new: bool,
    world: &'a World,
    report: &'a Report,
}

impl Asked<'_> {
    /// Whether the configuration is not that of this digest any more.
    fn has_changed(&self, digest: &str) -> bool {
        read_text(&self.global.config).map_or(true, |text| tick::digest(&text, &self.world.vars) != digest)
    }

    /// A tick by the configuration as it is now, for as long as that has something to do. What was read of it, and what is
    /// open, is kept in `newer` for the next time.
    fn again(&self, beside: Beside<'_>, sum: &mut Sum<'_>, newer: &mut Option<(String, App)>) -> Result<()> {
        let digest = tick::digest(&read_text(&self.global.config)?, &self.world.vars);
        let kept = newer.take().filter(|(known, _)| *known == digest);
        let (digest, app) = match kept {
            Some(kept) => kept,
            None => {
                let config = Config::load(&self.global.config, &self.world.vars, &app::defaults())?;
                (digest, App::silent(config, self.world, self.report))
            }
        };
        work(self, &app, beside, &digest, sum);
        *newer = Some((digest, app));
        Ok(())
    }
}

/// What work goes on beside.
#[derive(Clone, Copy)]
struct Beside<'r> {
    runs: &'r Runs<'r>,
    /// How much more may be under way at once.
    most: usize,
    /// Whether a drill is.
    drilling: bool,
}

/// What a tick has come to. Nothing that goes wrong later takes away from it.
struct Sum<'a> {
    report: &'a Report,
    /// What was said already: each look may find the same.
    said: BTreeSet<String>,
    reports: Vec<JobReport>,
    drills: Vec<Drill>,
    errors: Vec<Error>,
    /// Jobs of which a backup or a drill could not be begun, as long as none was; `true`: a drill.
    failed: BTreeMap<(String, bool), Error>,
    /// What the last look could not see. What an earlier one could not, and a later one could, is over.
    unseen: Vec<Error>,
    /// By which configuration, and when on the monotonic clock, targets were asked last.
    asked: Option<(String, Duration)>,
}

impl<'a> Sum<'a> {
    fn new(report: &'a Report) -> Self {
        let (reports, drills, failed) = Default::default();
        let (errors, unseen) = Default::default();
        Self { report, said: BTreeSet::new(), reports, drills, errors, failed, unseen, asked: None }
    }

    fn all(self) -> (Vec<JobReport>, Vec<Drill>, Vec<Error>) {
        let mut known = BTreeSet::new();
        let errors = self.errors.into_iter().chain(self.failed.into_values()).chain(self.unseen);
        let errors = errors.filter(|error| known.insert(error.to_string())).collect();
        (self.reports, self.drills, errors)
    }

    fn say(&mut self, error: &Error) {
        if self.said.insert(error.to_string()) {
            self.report.error(error);
        }
    }

    fn error(&mut self, error: Error) {
        self.say(&error);
        self.errors.push(error);
    }

    fn is_well(&self) -> bool {
        self.errors.is_empty() && self.failed.is_empty()
    }

    /// What a look could not see.
    fn unseen(&mut self, unseen: Vec<Error>) {
        for error in &unseen {
            self.say(error);
        }
        self.unseen = unseen;
    }

    /// What a look has seen. What is due no longer another has done, or nobody is to do: that it could not be begun here is
    /// over.
    fn seen(&mut self, looked: &Looked<'_>) {
        self.unseen(looked.errors.iter().map(|(_, error)| error.clone()).collect());
        looked.doubts.iter().for_each(|doubt| self.warn(doubt.clone()));
        let is_unseen = |name: &str| looked.errors.iter().any(|(job, _)| job == name);
        let runs = |name: &str| {
            let mut decisions = looked.decisions.iter().filter(|(job, _)| job.name == name);
            decisions.any(|(_, decision)| matches!(decision, Decision::Run { .. }))
        };
        let drills = |name: &str| looked.drills.iter().any(|(job, _)| job.name == name);
        self.failed.retain(|(job, is_drill), _| is_unseen(job) || if *is_drill { drills(job) } else { runs(job) });
    }

    fn warn(&mut self, warning: String) {
        if self.said.insert(warning.clone()) {
            self.report.warn(&warning);
        }
    }

    fn add(&mut self, item: Item<'_>, ended: Ended) {
        let begun = item.job().map(|job| (job.to_owned(), matches!(item, Item::Drill(..))));
        if let (Some(begun), Ended::Ran(_) | Ended::Drilled(_) | Ended::PassedBy) = (&begun, &ended) {
            self.failed.remove(begun);
        }
        match ended {
            Ended::Ran(report) => self.reports.push(*report),
            Ended::Drilled(drill) => self.drills.push(*drill),
            Ended::Asked(errors) => errors.into_iter().for_each(|error| self.error(error)),
            Ended::Failed(error) => match begun {
                Some(begun) => {
                    self.say(&error);
                    self.failed.insert(begun, error);
                }
                None => self.error(error),
            },
            Ended::Done | Ended::PassedBy | Ended::NotBegun | Ended::Stale => {}
        }
    }
}

/// Looks, gives the workers what is due, and looks again whenever something has ended or some time has passed; until
/// nothing is due and nothing under way. Once the configuration is another one nothing more is begun by this one.
fn work(asked: &Asked<'_>, app: &App, beside: Beside<'_>, digest: &str, sum: &mut Sum<'_>) {
    let is_stale = || asked.has_changed(digest);
    let Beside { runs, most, drilling } = beside;
    let terms = Terms { runs, most, run_new: asked.run_new, drilling, is_stale: &is_stale };
    let earlier = sum.asked.as_ref().filter(|(known, _)| known == digest).map(|(_, at)| *at);
    std::thread::scope(|scope| {
        let mut work = Work::new(app, terms, earlier);
        let (mut left, mut newer) = (false, None);
        loop {
            let stopped = app.cx.world.cancel.check();
            let changed = work.has_begun() && is_stale();
            // After a signal nothing is begun, so there is no need to look; a shared state could not be asked either.
            let idle = changed || (stopped.is_err() && work.has_begun());
            let looked =
                if idle { None } else { look(app, asked.run_new).map_err(|error| sum.unseen(vec![error])).ok() };
            if let Some(looked) = &looked {
                sum.seen(looked);
                let items = work.choose(looked);
                left |= stopped.is_err() && !items.is_empty();
                if stopped.is_ok() {
                    if items.iter().any(|item| item.job().is_some()) {
                        app.config.warnings.iter().for_each(|warning| sum.warn(warning.clone()));
                    }
                    work.begin(scope, items);
                }
            }
            if work.is_idle() {
                // What is due and not begun is never a good end.
                if let Some(stopped) = stopped.err().filter(|_| left) {
                    sum.error(stopped);
                }
                match looked.filter(|looked| looked.errors.is_empty() && sum.is_well()) {
                    Some(looked) => remember(app, digest, &looked),
                    None => tick::forget(&app.cx.data_dir),
                }
                return;
            }
            let room = work.room();
            if changed && stopped.is_ok() && room > 0 {
                let beside = Beside { runs, most: room, drilling: work.is_drilling() };
                asked.again(beside, sum, &mut newer).unwrap_or_else(|error| sum.unseen(vec![error]));
            }
            for Finished { item, ended } in work.wait(LOOK_AGAIN) {
                left |= matches!(ended, Ended::NotBegun);
                work.over(item, &ended);
                if item == Item::Ask && !matches!(ended, Ended::Stale) {
                    sum.asked = Some((digest.to_owned(), app.cx.world.clock.monotonic()));
                }
                sum.add(item, ended);
            }
        }
    });
}

/// What a look finds.
struct Looked<'a> {
    now: DateTime<Utc>,
    stamp: String,
    state: State,
    /// Of all jobs but those whose past can't be seen.
    decisions: Vec<(&'a JobConfig, Decision)>,
    drills: Vec<(&'a JobConfig, DateTime<Utc>)>,
    /// Why the past of a job can't be seen.
    errors: Vec<(String, Error)>,
    /// What is odd about the clock.
    doubts: Vec<String>,
}

impl Looked<'_> {
    /// Whether nothing at all is known of a job: then its targets are asked before it is decided on.
    fn is_unknown(&self, job: &JobConfig) -> bool {
        self.state.jobs.get(&job.name).is_none_or(|past| past.unasked)
    }
}

/// Decides on every job. What is wrong with one of them keeps no other from being run.
fn look(app: &App, run_new: bool) -> Result<Looked<'_>> {
    let mut errors = refresh(app, run_new)?;
    let now = app.cx.world.clock.now();
    errors.extend(see(app, now)?);
    let stamp = tick::stamp(&app.cx.data_dir);
    let state = StateFile::new(&app.cx.data_dir).load(&app.cx.report)?;
    let is_seen = |job: &JobConfig| errors.iter().all(|(other, _)| *other != job.name);
    let mut decisions = decisions(app, &state, now, run_new);
    decisions.retain(|(job, _)| is_seen(job));
    let mut drills = drill::due(app, &state, now);
    drills.retain(|(job, _)| is_seen(job));
    let doubt = |job: &JobConfig| Some(format!("{}: {}", job.name, clock_doubt(state.jobs.get(&job.name)?, now)?));
    let doubts = app.config.jobs.iter().filter_map(doubt).collect();
    Ok(Looked { now, stamp, state, decisions, drills, errors, doubts })
}

/// Brings what is known of jobs up to date, as far as it may matter: those that are due by what is known here, and those
/// of which nothing is. Of the others no host can have more to do. Gives what can't be brought up to date.
fn refresh(app: &App, run_new: bool) -> Result<Vec<(String, Error)>> {
    let store = app.store()?;
    if !store.is_shared() {
        return Ok(Vec::new());
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

/// Notes that the configuration has these jobs, of which something is known. Gives those of which it can't be noted.
fn see(app: &App, now: DateTime<Utc>) -> Result<Vec<(String, Error)>> {
    let (store, report) = (app.store()?, &app.cx.report);
    let all = |state: &mut State| {
        for job in &app.config.jobs {
            if let Some(past) = state.jobs.get_mut(&job.name) {
                past.seen(now, &job.cron);
            }
        }
    };
    if !store.is_shared() {
        return store.file().update(report, all).map(|()| Vec::new());
    }
    let known = store.file().load(report)?;
    let is_new = |past: &JobState, job: &JobConfig| {
        (!past.is_of(&job.cron) && !is_newer(past, job, now)) || (past.is_of(&job.cron) && now < past.first_seen)
    };
    let mut errors = Vec::new();
    for job in app.config.jobs.iter().filter(|job| known.jobs.get(&job.name).is_some_and(|past| is_new(past, job))) {
        let seen = store.update(&job.name, report, &mut |state| {
            if let Some(past) = state.jobs.get_mut(&job.name).filter(|past| is_new(past, job)) {
                // Who changes back what others have had for long goes on where that schedule was left.
                let left = past.former.take().filter(|former| former.is(&job.cron)).map(|former| former.until);
                past.seen(now, &job.cron);
                past.first_seen = past.first_seen.min(left.unwrap_or(now));
            }
        });
        errors.extend(seen.err().map(|error| (job.name.clone(), error)));
    }
    Ok(errors)
}

/// Whether another host has a newer schedule of this job than this one, as far as can be seen.
fn is_newer(past: &JobState, job: &JobConfig, now: DateTime<Utc>) -> bool {
    let changed = past.former.as_ref().filter(|former| former.is(&job.cron)).map(|former| former.until);
    changed.is_some_and(|changed| now.signed_duration_since(changed) < DEPLOYED)
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
fn remember(app: &App, digest: &str, looked: &Looked<'_>) {
    let now = looked.now;
    if !looked.drills.is_empty() {
        return tick::forget(&app.cx.data_dir);
    }
    let mut next = app.config.jobs.iter().filter_map(|job| job.drill.as_ref()?.next_after(now)).min();
    next = next.into_iter().chain(expiry::next_due(app)).min();
    for (_, decision) in &looked.decisions {
        match decision {
            Decision::Run { .. } => return tick::forget(&app.cx.data_dir),
            Decision::Wait { until, .. } => next = next.into_iter().chain(*until).min(),
        }
    }
    tick::write(&app.cx.data_dir, digest, &looked.stamp, now, next);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_that_began_says_nothing_of_a_backup_that_could_not() {
        let (now, report) = (Utc::now(), Report::default());
        let (backup, drill) = (Item::Job("a", now, 1), Item::Drill("a", now));
        let drilled = || Ended::Drilled(Box::new(Drill { job: "a".to_owned(), slot: now, backup: None, error: None }));
        let mut sum = Sum::new(&report);
        sum.add(backup, Ended::Failed(Error::other("no backup")));
        sum.add(drill, Ended::Failed(Error::other("no drill")));
        sum.add(drill, drilled());
        assert!(!sum.is_well());
        let (_, drills, errors) = sum.all();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!((drills.len(), errors), (1, vec!["no backup".to_owned()]));
    }
}
