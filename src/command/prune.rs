//! `prune`: applies retention now. Flows in: jobs and targets. Flows out: every backup with its verdict and the reason.

use serde::Serialize;

use super::{Done, table};
use crate::app::App;
use crate::cleanup::{self, Mode, Pruned};
use crate::cli::PruneArgs;
use crate::config::jobs::JobConfig;
use crate::error::{Error, Result};
use crate::exit;
use crate::format::time::rfc3339;
use crate::previous::expiry;

/// What became of a job's backups at one target.
#[derive(Debug, Serialize)]
struct Section {
    job: String,
    target: String,
    #[serde(flatten)]
    pruned: Pruned,
    error: Option<Error>,
}

/// Prunes; a target that fails does not keep the others from being pruned.
///
/// # Errors
/// [`crate::error::Kind::Usage`] for names that are none, before anything is removed.
pub fn run(app: &App, args: &PruneArgs) -> Result<Done> {
    let mode = Mode { dry_run: args.dry_run, force: args.force };
    let mut work: Vec<(&JobConfig, String)> = Vec::new();
    for target in &args.targets {
        app.config.target(target)?;
    }
    for job in app.jobs(&args.jobs)? {
        // Without names every job is meant, so one that does not send to a named target is let be.
        let fits = |target: &&String| args.targets.is_empty() || args.targets.contains(target);
        let targets = if args.jobs.is_empty() { job.targets.clone() } else { app.targets_of(job, &args.targets)? };
        work.extend(targets.iter().filter(fits).map(|target| (job, target.clone())));
    }
    let mut sections = Vec::new();
    for (job, target) in work {
        app.cx.world.cancel.check()?;
        let outcome = one(app, job, &target, mode);
        if let Err(error) = &outcome {
            app.cx.report.error(error);
        }
        let (pruned, error) = match outcome {
            Ok(pruned) => (pruned, None),
            Err(error) => (Pruned::default(), Some(error)),
        };
        let section = Section { job: job.name.clone(), target, pruned, error };
        show(app, &section, mode)?;
        sections.push(section);
    }
    if !mode.dry_run && args.targets.is_empty() {
        expiry::expire(app)?;
    }
    let parts = sections.iter().map(|section| section.error.as_ref().map_or(Ok(()), |error| Err(error.kind)));
    let outcome = exit::merge(parts);
    Done::well().ended(outcome).with("dry_run", &mode.dry_run)?.with("jobs", &sections)
}

fn one(app: &App, job: &JobConfig, target: &str, mode: Mode) -> Result<Pruned> {
    // A dry run writes nothing, not even a lock.
    if mode.dry_run {
        return cleanup::prune(app, job, &app.open_target(target)?, mode);
    }
    let hold = app.hold(&job.name)?;
    let app = app.holding(&hold);
    cleanup::prune(&app, job, &app.open_target(target)?, mode)
}

fn show(app: &App, section: &Section, mode: Mode) -> Result<()> {
    if section.error.is_some() {
        return Ok(());
    }
    let gone = if mode.dry_run { "would remove" } else { "removed" };
    let rows = section.pruned.backups.iter().map(|kept| {
        let verdict = if kept.keep { "keep" } else { gone };
        let created = kept.created.map_or_else(|| "?".to_owned(), rfc3339);
        vec![section.job.clone(), section.target.clone(), created, verdict.to_owned(), kept.reason.clone()]
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    let left = section.pruned.leftovers.iter();
    rows.extend(left.map(|object| {
        let why = format!("left behind by a run that did not finish: {object}");
        vec![section.job.clone(), section.target.clone(), String::new(), gone.to_owned(), why]
    }));
    if rows.is_empty() {
        app.cx.report.note(&format!("{}: no backups at {}", section.job, section.target));
        return Ok(());
    }
    app.cx.report.out(&table(&["JOB", "TARGET", "CREATED", "VERDICT", "REASON"], &rows))
}
