//! Being told: what runs came to, for services and monitors. Flows in: the beginning and the end of runs. Flows out: a
//! ping to a healthcheck, a JSON document to a webhook, Prometheus's textfile. Touches the network and that file.
//!
//! Whoever can't be told is a warning: a backup is not worse for it. A run that a signal stopped says nothing more, since
//! it has no time: the healthcheck that was told of its start misses its end.

pub mod metrics;
pub mod web;

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::app::App;
use crate::backup::JobReport;
use crate::command::JSON_FORMAT;
use crate::config::jobs::JobConfig;
use crate::drill::Drill;
use crate::error::{Error, Kind, Result};
use crate::schedule::state::State;
use crate::secret::Source;

/// A job's run begins.
pub fn job_begins(app: &App, job: &JobConfig) {
    ping(app, job.healthcheck_url.as_ref(), &whose(job), "/start", "");
}

/// A job's run has ended.
pub fn job_ended(app: &App, job: &JobConfig, report: &JobReport) {
    let outcome = report.outcome();
    if matches!(outcome, Err(Kind::Stopped(_))) {
        return;
    }
    let path = if outcome.is_ok() { "" } else { "/fail" };
    ping(app, job.healthcheck_url.as_ref(), &whose(job), path, &words(report));
    let Some(source) = &app.config.notify.webhook_url else { return };
    let event = match outcome {
        Ok(()) => "job-succeeded",
        Err(Kind::Partial) => "job-partial",
        Err(_) => "job-failed",
    };
    let document = json!({ "format": JSON_FORMAT, "event": event, "instance": app.config.instance, "job": report });
    let what = "webhook_url of [backup.notify]";
    let sent = source.fetch(what, &app.cx).and_then(|address| {
        let (kind, body) = ("application/json", document.to_string());
        web::post(&address, "", kind, &body, &app.cx)
    });
    warn(app, what, sent);
}

fn whose(job: &JobConfig) -> String {
    format!("healthcheck_url of job {}", job.name)
}

const COMMON: &str = "healthcheck_url of [backup.notify]";

/// All the runs of one call of the program, for the common healthcheck.
#[derive(Debug)]
pub struct Runs<'a> {
    app: &'a App,
    begun: AtomicBool,
}

impl<'a> Runs<'a> {
    /// None has begun.
    pub fn new(app: &'a App) -> Self {
        Self { app, begun: AtomicBool::new(false) }
    }

    /// There is something to run.
    pub fn begin(&self) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            ping(self.app, self.app.config.notify.healthcheck_url.as_ref(), COMMON, "/start", "");
        }
    }

    /// All have ended, and this went wrong beside them. The common healthcheck is well only when no job of the
    /// configuration is failing: else the success of one would hide another that failed a minute before. Where nothing
    /// has begun and nothing is wrong nobody is told: a run that passes by another one knows nothing of how that fares.
    pub fn end(&self, reports: &[JobReport], drills: &[Drill], errors: &[Error], outcome: Result<(), Kind>) {
        let told = self.begun.load(Ordering::Relaxed) || !errors.is_empty();
        if !told || matches!(outcome, Err(Kind::Stopped(_))) {
            return;
        }
        write_metrics(self.app);
        let Some(source) = &self.app.config.notify.healthcheck_url else { return };
        let failing = failing(self.app, reports);
        let mut said: Vec<String> = reports.iter().map(words).collect();
        said.extend(drills.iter().map(proof));
        said.extend(errors.iter().map(ToString::to_string));
        said.extend(failing.iter().map(|job| format!("{job}: failing, or unproved, since before this run")));
        let path = if outcome.is_ok() && failing.is_empty() { "" } else { "/fail" };
        ping(self.app, Some(source), COMMON, path, &said.join("\n"));
    }
}

/// Jobs that fail, as the state knows, beside those that were run just now; and those whose last drill failed.
fn failing(app: &App, reports: &[JobReport]) -> Vec<String> {
    let Ok(state) = state(app) else { return Vec::new() };
    let fails = |job: &&JobConfig| {
        let ran = reports.iter().any(|report| report.job == job.name);
        let past = state.jobs.get(&job.name);
        past.is_some_and(|past| past.is_unproved() || (!ran && past.failures_in_row > 0))
    };
    app.config.jobs.iter().filter(fails).map(|job| job.name.clone()).collect()
}

/// What is remembered of every job, on all hosts; of one whose record can't be read, what this host knew last.
fn state(app: &App) -> Result<State> {
    let store = app.store()?;
    store.refresh(app.config.jobs.iter().map(|job| job.name.as_str()), &app.cx.report)?;
    store.file().read()
}

/// What a person wants to read of a run.
fn words(report: &JobReport) -> String {
    let id = report.id.as_deref().unwrap_or("no backup");
    let stored = report.targets.iter().filter(|target| target.stored || target.was_there);
    let stored: Vec<&str> = stored.map(|target| target.target.as_str()).collect();
    let mut text = format!("{}: {id}", report.job);
    if !stored.is_empty() {
        text.push_str(&format!(" at {}", stored.join(", ")));
    }
    for error in report.errors() {
        text.push_str(&format!("\n{}: {error}", report.job));
        error.tail.iter().for_each(|line| text.push_str(&format!("\n  | {line}")));
    }
    text
}

/// The same of a drill.
fn proof(drill: &Drill) -> String {
    match (&drill.error, &drill.backup) {
        (Some(error), _) => format!("{}: {error}", drill.job),
        (None, backup) => {
            let id = backup.as_ref().map_or("no backup", |backup| backup.id.as_str());
            format!("{}: proved {id} by a restore into a scratch database", drill.job)
        }
    }
}

fn ping(app: &App, source: Option<&Source>, what: &str, path: &str, said: &str) {
    let Some(source) = source else { return };
    let sent = source
        .fetch(what, &app.cx)
        .and_then(|address| web::post(&address, path, "text/plain; charset=utf-8", web::last_words(said), &app.cx));
    warn(app, what, sent);
}

fn warn(app: &App, what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        app.cx.report.warn(&format!("can't tell {what}: {error}"));
    }
}

/// Writes the textfile anew, if there is one.
pub fn write_metrics(app: &App) {
    let Some(path) = &app.config.notify.metrics_file else { return };
    let outcome: Result<()> = state(app)
        .and_then(|state| metrics::write(path, &metrics::text(&app.config.jobs, &state, app.cx.world.clock.now())));
    if let Err(error) = outcome {
        app.cx.report.warn(&error.to_string());
    }
}
