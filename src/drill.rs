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

/// Runs those that are due, one after the other. One whose job another run holds is passed by, and stays due.
///
/// # Errors
/// A signal; when the state can't be read or written.
pub fn run_due(app: &App) -> Result<Vec<Drill>> {
    let report = &app.cx.report;
    let store = app.store()?;
    let now = app.cx.world.clock.now();
    let mut drills = Vec::new();
    for (job, slot) in due(app, &store.file().load(report)?, now) {
        app.cx.world.cancel.check()?;
        let Some(hold) = app.try_hold(&job.name)? else { continue };
        // It was decided before the lock was held: another host may have done it since.
        if !due(app, &store.file().load(report)?, now)
            .iter()
            .any(|(other, still)| other.name == job.name && *still == slot)
        {
            continue;
        }
        let app = &app.holding(&hold);
        let drill = run(app, job, slot);
        if matches!(drill.outcome(), Err(Kind::Stopped(_))) {
            drills.push(drill);
            break;
        }
        if app.cx.world.cancel.check_leases().is_err() {
            // It stays due, for whoever has the job now.
            drills.push(drill);
            continue;
        }
        let why = drill.error.as_ref().map(ToString::to_string);
        app.store()?.settle(&job.name, report, &mut |state| {
            if let Some(past) = state.jobs.get_mut(&job.name) {
                past.drilled(slot, why.as_deref(), app.cx.world.clock.now());
            }
        })?;
        drills.push(drill);
    }
    Ok(drills)
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
