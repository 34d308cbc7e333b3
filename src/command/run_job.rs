//! `run-job`: runs jobs now. Flows in: names. Flows out: a report for each job.

use super::Done;
use crate::app::App;
use crate::backup::{self, JobReport, Order};
use crate::cli::RunJobArgs;
use crate::error::{Error, Kind, Result};
use crate::exit;
use crate::format::time;
use crate::notify::Runs;
use crate::report::Report;

/// Runs the jobs one after the other; a job that fails does not keep the others from running.
///
/// # Errors
/// [`crate::error::Kind::Usage`] for a name that is none, before anything runs.
pub fn run(app: &App, args: &RunJobArgs) -> Result<Done> {
    let jobs = app.jobs(&args.jobs)?;
    let orders =
        jobs.into_iter().map(|job| Ok(Order { job, slot: None, targets: app.targets_of(job, &args.targets)? }));
    let orders = orders.collect::<Result<Vec<_>>>()?;
    let (mut reports, mut outcomes, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let runs = Runs::new(app);
    for order in &orders {
        match locked(app, order, &runs) {
            Ok(report) => {
                show(&report, &app.cx.report);
                outcomes.push(report.outcome());
                reports.push(report);
            }
            Err(error) => {
                app.cx.report.error(&error);
                outcomes.push(Err(error.kind));
                refused.push(error);
            }
        }
        // A job that was not begun because of a signal says so by itself: what is left undone is never a good end.
        if matches!(outcomes.last(), Some(Err(Kind::Stopped(_)))) {
            break;
        }
    }
    let outcome = exit::merge(outcomes);
    // A job that another run has in hand is that one's to tell of.
    let wrong: Vec<Error> = refused.iter().filter(|error| error.kind != Kind::Locked).cloned().collect();
    runs.end(&reports, &[], &wrong, outcome);
    Done::well().ended(outcome).with("jobs", &reports)?.with("errors", &refused)
}

fn locked(app: &App, order: &Order<'_>, runs: &Runs<'_>) -> Result<JobReport, Error> {
    app.cx.world.cancel.check()?;
    let hold = app.hold(&order.job.name)?;
    runs.begin();
    Ok(backup::run(&app.holding(&hold), order))
}

/// Says what came of a run.
pub fn show(report: &JobReport, out: &Report) {
    for target in &report.targets {
        let id = report.id.as_deref().unwrap_or_default();
        if let Some(from) = &target.copied_from {
            let stored = time::bytes(target.stored_bytes.unwrap_or(0));
            out.note(&format!("{}: copied {id} from {from} to {}: {stored}", report.job, target.target));
        } else if target.stored {
            let stored = time::bytes(target.stored_bytes.unwrap_or(0));
            let dump = time::bytes(report.dump_bytes.unwrap_or(0));
            let took = std::time::Duration::from_millis(report.duration_ms);
            out.note(&format!(
                "{}: stored {id} at {}: {stored} from {dump} in {:.1} s",
                report.job,
                target.target,
                took.as_secs_f64()
            ));
        } else if target.was_there {
            out.note(&format!("{}: {id} is at {} already", report.job, target.target));
        }
        if !target.removed.is_empty() {
            let count = target.removed.len();
            out.note(&format!(
                "{}: retention removed {count} at {}: {}",
                report.job,
                target.target,
                target.removed.join(", ")
            ));
        }
    }
    report.errors().for_each(|error| out.error(error));
}
