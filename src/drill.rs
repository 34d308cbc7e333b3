//! Drills on schedule: the newest backup of a job is loaded into a scratch database, so that the day it is needed is never
//! the first time. Flows in: the jobs, what is remembered of them, the clock. Flows out: for each drill whether the backup
//! was proved. Touches targets, scratch databases and the state.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::app::App;
use crate::command::verify::{self, Verified};
use crate::config::jobs::JobConfig;
use crate::error::{Error, Kind, Result};
use crate::format::time;
use crate::schedule::due::drill_due;
use crate::schedule::state::State;

/// What came of a drill.
#[derive(Debug, Serialize)]
pub struct Drill {
    /// The job's name.
    pub job: String,
    /// The slot of its `drill`.
    #[serde(with = "time::serde_rfc3339")]
    pub slot: DateTime<Utc>,
    /// The backup that was tried; none when none could be chosen.
    pub backup: Option<Verified>,
    /// What failed.
    pub error: Option<Error>,
}

impl Drill {
    /// How it ended.
    ///
    /// # Errors
    /// The kind of its failure.
    pub fn outcome(&self) -> Result<(), Kind> {
        self.error.as_ref().map_or(Ok(()), |error| Err(error.kind))
    }
}

/// The drills that are due.
pub fn due<'a>(app: &'a App, state: &State, now: DateTime<Utc>) -> Vec<(&'a JobConfig, DateTime<Utc>)> {
    let slot = |job: &JobConfig| drill_due(job.drill.as_ref()?, state.jobs.get(&job.name), now);
    app.config.jobs.iter().filter_map(|job| Some((job, slot(job)?))).collect()
}

/// Runs a drill for this slot; `begins` is called before. `None`: another run holds the job, or has done it.
///
/// # Errors
/// When the state can't be read or written.
pub fn scheduled(app: &App, job: &JobConfig, slot: DateTime<Utc>, begins: impl FnOnce()) -> Result<Option<Drill>> {
    let (report, store) = (&app.cx.report, app.store()?);
    let Some(hold) = app.try_hold(&job.name)? else { return Ok(None) };
    // It was decided before the lock was held: another host may have done it since.
    let due = due(app, &store.file().load(report)?, app.cx.world.clock.now());
    if !due.iter().any(|(other, still)| other.name == job.name && *still == slot) {
        return Ok(None);
    }
    begins();
    let app = &app.holding(&hold);
    let mut drill = run(app, job, slot);
    let stopped = matches!(drill.outcome(), Err(Kind::Stopped(_)));
    // One whose lease is lost stays due, for whoever has the job now.
    if stopped || app.cx.world.cancel.check_leases().is_err() {
        return Ok(Some(drill));
    }
    let why = drill.error.as_ref().map(ToString::to_string);
    let settled = app.store()?.settle(&job.name, report, &mut |state| {
        if let Some(past) = state.jobs.get_mut(&job.name) {
            past.drilled(slot, why.as_deref(), app.cx.world.clock.now());
        }
    });
    if let Err(error) = settled {
        report.error(&error);
        drill.error.get_or_insert(error);
    }
    Ok(Some(drill))
}

fn run(app: &App, job: &JobConfig, slot: DateTime<Utc>) -> Drill {
    let (backup, error) = match verify::prove(app, job) {
        Ok(verified) => {
            let error = verified.error.clone();
            (Some(verified), error)
        }
        Err(error) => (None, Some(error)),
    };
    let error = error.map(|error| error.while_doing(format!("drill of job {}", job.name)));
    match &error {
        Some(error) => app.cx.report.error(error),
        None => {
            let id = backup.as_ref().map(|backup| backup.id.as_str()).unwrap_or_default();
            app.cx.report.note(&format!("{}: proved {id} by a restore into a scratch database", job.name));
        }
    }
    Drill { job: job.name.clone(), slot, backup, error }
}
