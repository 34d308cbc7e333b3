//! `schedule-check --dry-run`: what a tick would do, and why. Flows in: the configuration, what this host knows of the state,
//! an instant. Flows out: a decision for each job. Touches nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::decisions;
use crate::app::App;
use crate::cli::ScheduleCheckArgs;
use crate::command::{Done, table};
use crate::config::jobs::JobConfig;
use crate::error::Result;
use crate::format::time::{self, rfc3339};
use crate::schedule::due::{Decision, clock_doubt};
use crate::schedule::state::{JobState, StateFile};

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
    /// When it ran last, whatever came of it.
    #[serde(with = "time::serde_rfc3339_option")]
    last_run: Option<DateTime<Utc>>,
    /// When its next slot comes.
    #[serde(with = "time::serde_rfc3339_option")]
    next_slot: Option<DateTime<Utc>>,
}

/// Says what would be done, and touches nothing.
pub(super) fn explain(app: &App, args: &ScheduleCheckArgs) -> Result<Done> {
    let now = args.at.unwrap_or_else(|| app.cx.world.clock.now());
    let state = StateFile::new(&app.cx.data_dir).read()?;
    if let Some(name) = &app.config.state {
        app.cx.report.note(&format!("decided from what this host knew last of the state at {name}"));
    }
    let past = |job: &JobConfig| state.jobs.get(&job.name);
    for (job, doubt) in app.config.jobs.iter().filter_map(|job| Some((job, clock_doubt(past(job)?, now)?))) {
        app.cx.report.warn(&format!("{}: {doubt}", job.name));
    }
    let rows: Vec<Row> = decisions(app, &state, now, args.run_new)
        .iter()
        .map(|(job, decision)| row(job, decision, past(job), now))
        .collect();
    let cells = rows.iter().map(|row| {
        let when = row.slot.or(row.until).map_or_else(|| "never".to_owned(), rfc3339);
        let verdict = if row.due { "run" } else { "wait" };
        let or_never = |at: Option<DateTime<Utc>>| at.map_or_else(|| "never".to_owned(), rfc3339);
        let (last, next) = (or_never(row.last_run), or_never(row.next_slot));
        vec![row.job.clone(), verdict.to_owned(), when, last, next, row.reason.clone()]
    });
    let cells: Vec<Vec<String>> = cells.collect();
    if cells.is_empty() {
        app.cx.report.note("no jobs");
    } else {
        app.cx
            .report
            .out(&table(&["JOB", "DECISION", "SLOT OR NEXT LOOK", "LAST RUN", "NEXT SLOT", "REASON"], &cells))?;
    }
    let counts: BTreeMap<&str, usize> = BTreeMap::from([("due", rows.iter().filter(|row| row.due).count())]);
    Done::well().with("dry_run", &true)?.with("at", &rfc3339(now))?.with("counts", &counts)?.with("decisions", &rows)
}

fn row(job: &JobConfig, decision: &Decision, past: Option<&JobState>, now: DateTime<Utc>) -> Row {
    let row = Row {
        job: job.name.clone(),
        due: false,
        slot: None,
        missed: 0,
        attempt: 0,
        until: None,
        reason: String::new(),
        last_run: past.and_then(|past| past.last_attempt),
        next_slot: job.due().next_after(now),
    };
    match decision {
        Decision::Run { slot, missed, attempt } => {
            let mut reason = "due".to_owned();
            if *missed > 0 {
                reason.push_str(&format!(", makes up for {missed} older slots that were missed"));
            }
            if *attempt > 1 {
                reason.push_str(&format!(", attempt {attempt}"));
            }
            Row { due: true, slot: Some(*slot), missed: *missed, attempt: *attempt, reason, ..row }
        }
        Decision::Wait { until, why } => Row { until: *until, reason: why.clone(), ..row },
    }
}
