//! `status`: how each job is doing. Flows in: the configuration and the state. Flows out: a line for each job; the
//! outcome is partial when one is overdue or failing. Contacts nothing but a state that several hosts share.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::{Done, table};
use crate::app::App;
use crate::config::jobs::JobConfig;
use crate::error::{Kind, Result};
use crate::format::time::{self, rfc3339, span};
use crate::schedule::due::clock_doubt;
use crate::schedule::lock;
use crate::schedule::state::JobState;

/// How late a slot may be before its job is overdue: a tick, and a long dump.
pub const GRACE: TimeDelta = TimeDelta::minutes(15);

/// How a job is doing.
#[derive(Debug, Serialize)]
struct Row {
    job: String,
    database: String,
    state: &'static str,
    #[serde(with = "time::serde_rfc3339_option")]
    last_success: Option<DateTime<Utc>>,
    last_id: Option<String>,
    age_seconds: Option<i64>,
    stored_bytes: Option<u64>,
    #[serde(with = "time::serde_rfc3339_option")]
    next_run: Option<DateTime<Utc>>,
    /// Since when a run is under way.
    #[serde(with = "time::serde_rfc3339_option")]
    running_since: Option<DateTime<Utc>>,
    /// Why it is not well, where that is not `last_error`.
    reason: Option<String>,
    /// Targets at which the newest backup is missing that others have.
    missing_at: Vec<String>,
    failures_in_row: u32,
    last_error: Option<String>,
    #[serde(with = "time::serde_rfc3339_option")]
    last_proved: Option<DateTime<Utc>>,
    #[serde(with = "time::serde_rfc3339_option")]
    next_drill: Option<DateTime<Utc>>,
    last_drill_error: Option<String>,
}

/// Shows the state.
///
/// # Errors
/// When the state can't be read.
pub fn run(app: &App) -> Result<Done> {
    let now = app.cx.world.clock.now();
    let jobs = app.config.jobs.iter().map(|job| job.name.as_str());
    let state = app.store()?.read(jobs, &app.cx.report)?;
    let rows: Vec<Row> = app.config.jobs.iter().map(|job| row(app, job, state.jobs.get(&job.name), now)).collect();
    show(app, &rows, now)?;
    let bad = rows.iter().any(|row| !matches!(row.state, "new" | "good" | "running"));
    Done::well().ended(if bad { Err(Kind::Partial) } else { Ok(()) }).with("jobs", &rows)
}

fn row(app: &App, job: &JobConfig, past: Option<&JobState>, now: DateTime<Utc>) -> Row {
    let success = past.and_then(|past| past.last_success.as_ref());
    let running_since = past.and_then(|past| running(app, job, past, now));
    let (state, reason) = health(app, job, past, running_since.is_some(), now);
    Row {
        job: job.name.clone(),
        database: job.database.clone(),
        state,
        last_success: success.map(|success| success.created),
        last_id: success.map(|success| success.id.clone()),
        age_seconds: success.map(|success| (now - success.created).num_seconds()),
        stored_bytes: success.map(|success| success.stored_bytes),
        next_run: past
            .and_then(|past| past.failing.as_ref())
            .map(|failing| failing.next_try)
            .or_else(|| job.due().next_after(now)),
        running_since,
        reason,
        missing_at: past.map(|past| behind(job, past)).unwrap_or_default(),
        failures_in_row: past.map_or(0, |past| past.failures_in_row),
        last_error: past.and_then(|past| past.last_error.clone()),
        last_proved: past.and_then(|past| past.last_proved),
        next_drill: job.drill.as_ref().and_then(|drill| drill.next_after(now)),
        last_drill_error: past.and_then(|past| past.last_drill.as_ref()).and_then(|last| last.error.clone()),
    }
}

/// Since when a run is under way, as far as can be seen from here: its process lives, or it may be another host's that has
/// time left.
fn running(app: &App, job: &JobConfig, past: &JobState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let started = past.running.as_ref()?.started;
    let has_time =
        || TimeDelta::from_std(job.timeout).is_ok_and(|timeout| now.signed_duration_since(started) < timeout);
    let lives = match app.config.state {
        Some(_) => has_time(),
        None => lock::is_held(&app.cx.data_dir, &job.name),
    };
    lives.then_some(started)
}

/// The job's targets at which a backup is missing that others have.
fn behind(job: &JobConfig, past: &JobState) -> Vec<String> {
    let behind = past.behind.iter().flat_map(|behind| behind.targets.iter());
    behind.filter(|target| job.targets.contains(target)).cloned().collect()
}

/// One word for it, and why. A job is overdue when a slot that should have been done by now is not, and partial when its
/// newest backup is missing at a target.
fn health(
    app: &App,
    job: &JobConfig,
    past: Option<&JobState>,
    runs: bool,
    now: DateTime<Utc>,
) -> (&'static str, Option<String>) {
    let Some(past) = past.filter(|past| past.is_of(&job.cron)) else {
        return match unseen(app, now) {
            Some(age) => {
                let why = format!("no schedule-check has seen it in the {age} since the configuration was written");
                ("overdue", Some(format!("{why}: is the timer running?")))
            }
            None => ("new", None),
        };
    };
    let missing = behind(job, past);
    if let Some(behind) = past.behind.as_ref().filter(|behind| !missing.is_empty() && !behind.failed_since) {
        let why = past.last_error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        return ("partial", Some(format!("{} is missing at {}{why}", behind.id, missing.join(", "))));
    }
    if past.failures_in_row > 0 {
        return ("failing", None);
    }
    if let Some(doubt) = clock_doubt(past, now) {
        return ("clock", Some(doubt));
    }
    if past.is_unproved() {
        return ("unproved", None);
    }
    let base = past.settled.map_or(past.first_seen, |settled| settled.max(past.first_seen));
    match job.due().previous_or_at(now - GRACE) {
        Some(slot) if slot > base && runs => ("running", None),
        Some(slot) if slot > base => {
            let why = format!("the slot {} has not run: is the timer running?", rfc3339(slot));
            ("overdue", Some(why))
        }
        _ if past.last_success.is_none() => ("new", None),
        _ => ("good", None),
    }
}

/// How long ago the configuration was written, if a tick should have seen it since.
fn unseen(app: &App, now: DateTime<Utc>) -> Option<String> {
    let written = std::fs::metadata(&app.config.path).and_then(|meta| meta.modified()).ok()?;
    let age = now.signed_duration_since(DateTime::<Utc>::from(written));
    (age > GRACE).then(|| span(age))
}

fn show(app: &App, rows: &[Row], now: DateTime<Utc>) -> Result<()> {
    if rows.is_empty() {
        app.cx.report.note("no jobs");
        return Ok(());
    }
    let cells = rows.iter().map(|row| {
        let age = row.last_success.map_or_else(|| "never".to_owned(), |at| format!("{} ago", span(now - at)));
        let next = row.next_run.map_or_else(|| "never".to_owned(), rfc3339);
        let proved = row.last_proved.map_or_else(|| "never".to_owned(), |at| format!("{} ago", span(now - at)));
        vec![row.job.clone(), row.state.to_owned(), age, next, row.failures_in_row.to_string(), proved]
    });
    let cells: Vec<Vec<String>> = cells.collect();
    app.cx.report.out(&table(&["JOB", "STATE", "LAST SUCCESS", "NEXT RUN", "FAILURES", "PROVED"], &cells))?;
    for row in rows {
        let since = row.running_since.map(|since| format!("{}: a run is under way since {}", row.job, rfc3339(since)));
        since.into_iter().for_each(|since| app.cx.report.note(&since));
        let why = row.reason.as_ref().map(|reason| format!("{}: {reason}", row.job));
        why.into_iter().for_each(|why| app.cx.report.warn(&why));
    }
    for row in rows.iter().filter(|row| row.state == "failing") {
        let why = row.last_error.as_deref().unwrap_or("unknown reason");
        app.cx.report.warn(&format!("{}: {why}", row.job));
    }
    for row in rows.iter().filter(|row| row.state == "unproved") {
        let why = row.last_drill_error.as_deref().unwrap_or("unknown reason");
        app.cx.report.warn(&format!("{}: the last drill failed: {why}", row.job));
    }
    Ok(())
}
