//! `status`: how each job is doing. Flows in: the configuration and the state. Flows out: a line for each job; the
//! outcome is partial when one is overdue or failing. Contacts nothing but a state that several hosts share.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::{Done, table};
use crate::app::App;
use crate::config::jobs::JobConfig;
use crate::error::{Kind, Result};
use crate::format::time::{self, rfc3339, span};
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
    let rows: Vec<Row> = app.config.jobs.iter().map(|job| row(job, state.jobs.get(&job.name), now)).collect();
    show(app, &rows, now)?;
    let bad = rows.iter().any(|row| matches!(row.state, "overdue" | "failing" | "unproved"));
    Done::well().ended(if bad { Err(Kind::Partial) } else { Ok(()) }).with("jobs", &rows)
}

fn row(job: &JobConfig, past: Option<&JobState>, now: DateTime<Utc>) -> Row {
    let success = past.and_then(|past| past.last_success.as_ref());
    Row {
        job: job.name.clone(),
        database: job.database.clone(),
        state: health(job, past, now),
        last_success: success.map(|success| success.created),
        last_id: success.map(|success| success.id.clone()),
        age_seconds: success.map(|success| (now - success.created).num_seconds()),
        stored_bytes: success.map(|success| success.stored_bytes),
        next_run: past
            .and_then(|past| past.failing.as_ref())
            .map(|failing| failing.next_try)
            .or_else(|| job.due().next_after(now)),
        failures_in_row: past.map_or(0, |past| past.failures_in_row),
        last_error: past.and_then(|past| past.last_error.clone()),
        last_proved: past.and_then(|past| past.last_proved),
        next_drill: job.drill.as_ref().and_then(|drill| drill.next_after(now)),
        last_drill_error: past.and_then(|past| past.last_drill.as_ref()).and_then(|last| last.error.clone()),
    }
}

/// One word for it. A job is overdue when a slot that should have been done by now is not.
fn health(job: &JobConfig, past: Option<&JobState>, now: DateTime<Utc>) -> &'static str {
    let Some(past) = past.filter(|past| past.is_of(&job.cron)) else { return "new" };
    if past.failures_in_row > 0 {
        return "failing";
    }
    if past.is_unproved() {
        return "unproved";
    }
    let base = past.settled.map_or(past.first_seen, |settled| settled.max(past.first_seen));
    match job.due().previous_or_at(now - GRACE) {
        Some(slot) if slot > base => "overdue",
        _ if past.last_success.is_none() => "new",
        _ => "good",
    }
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
    for row in rows.iter().filter(|row| row.failures_in_row > 0) {
        let why = row.last_error.as_deref().unwrap_or("unknown reason");
        app.cx.report.warn(&format!("{}: {why}", row.job));
    }
    for row in rows.iter().filter(|row| row.state == "unproved") {
        let why = row.last_drill_error.as_deref().unwrap_or("unknown reason");
        app.cx.report.warn(&format!("{}: the last drill failed: {why}", row.job));
    }
    Ok(())
}
