//! `check`: is everything there that a backup needs. Flows in: the configuration. Flows out: a line for each thing that
//! was looked at. Writes, reads, lists and deletes one small object at every target; `--offline` contacts nothing.

use std::collections::BTreeSet;
use std::io::Read;

use chrono::DateTime;
use serde::Serialize;

use super::Done;
use crate::app::App;
use crate::catalog::OpenTarget;
use crate::cli::CheckArgs;
use crate::error::{Error, Kind, Result};
use crate::exit;
use crate::format::name::{ObjectKey, encode};
use crate::schedule::files;
use crate::secret::Source;
use crate::target::{Cause, TargetError};

/// What was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    ok: bool,
    detail: Option<String>,
    warnings: Vec<String>,
    error: Option<Error>,
}

/// Looks at everything, and tells all that is wrong.
///
/// # Errors
/// When the report can't be written; what is wrong is in the report.
pub fn run(app: &App, args: &CheckArgs) -> Result<Done> {
    let mut findings = vec![finding("configuration", Ok((app.config.path.display().to_string(), Vec::new())))];
    findings.push(finding("data_dir", data_dir(app, args.offline)));
    findings.extend(keys(app, args.offline));
    for job in &app.config.jobs {
        findings.push(finding(format!("job {}", job.name), Ok((format!("database {}", job.database), Vec::new()))));
    }
    // Those without a table are found as containers.
    let names: BTreeSet<&String> =
        app.config.databases.keys().chain(app.config.jobs.iter().map(|job| &job.database)).collect();
    for name in names {
        findings.push(finding(format!("database {name}"), database(app, name, args.offline)));
    }
    for name in app.config.targets.keys() {
        // A target that no job uses may wait for a later version, or for its credentials.
        let used = app.config.jobs.iter().any(|job| job.targets.contains(name));
        if used {
            findings.push(finding(format!("target {name}"), target(app, name, args.offline)));
        }
    }
    if let Some(name) = &app.config.state {
        findings.push(finding("state", state(app, name, args.offline)));
    }
    for found in &findings {
        show(app, found)?;
    }
    let outcome =
        exit::merge_failures(findings.iter().filter_map(|found| found.error.as_ref().map(|error| error.kind)));
    Done::well().ended(outcome).with("offline", &args.offline)?.with("findings", &findings)
}

type Looked = Result<(String, Vec<String>)>;

fn finding(what: impl Into<String>, looked: Looked) -> Finding {
    let what = what.into();
    match looked {
        Ok((detail, warnings)) => Finding { what, ok: true, detail: Some(detail), warnings, error: None },
        Err(error) => Finding { what, ok: false, detail: None, warnings: Vec::new(), error: Some(error) },
    }
}

/// Without it no job can begin: there are its state and its locks.
fn data_dir(app: &App, offline: bool) -> Looked {
    let folder = &app.cx.data_dir;
    if !offline {
        files::make_folder(folder)?;
        tempfile::tempfile_in(folder).map_err(|error| files::failed("write into", folder, error))?;
    }
    Ok((folder.display().to_string(), Vec::new()))
}

fn keys(app: &App, offline: bool) -> Vec<Finding> {
    let own = app.config.jobs.iter().filter_map(|job| {
        let source = job.encryption_key.as_ref()?;
        Some((format!("encryption_key of job {}", job.name), vec![source], Some(job)))
    });
    let common: Vec<&Source> = app.config.encryption_key.iter().chain(&app.config.previous_keys).collect();
    let common = Some(common).filter(|sources| !sources.is_empty());
    let all = common.into_iter().map(|sources| ("encryption_key".to_owned(), sources, None)).chain(own);
    all.map(|(what, sources, job)| {
        if offline && sources.iter().any(|source| matches!(source, Source::Command(_))) {
            return finding(what, Ok(("a command, not run".to_owned(), Vec::new())));
        }
        let ids = match job {
            Some(job) => app.writing_key(job).map(|key| key.map(|key| key.id()).unwrap_or_default()),
            None => app.keyring("").map(|ring| ring.ids()),
        };
        finding(what, ids.map(|ids| (format!("key id {ids}"), Vec::new())))
    })
    .collect()
}

fn database(app: &App, name: &str, offline: bool) -> Looked {
    let table = app.table(name);
    let url = table.and_then(|table| table.place.as_ref()).map(|(_, url)| url);
    let command = |source: &Source| matches!(source, Source::Command(_));
    if offline && url.is_none() {
        return Ok((format!("{}, not looked for", app.place(name)), Vec::new()));
    }
    let secrets = url.into_iter().chain(table.and_then(|table| table.password.as_ref()));
    if offline && secrets.into_iter().any(command) {
        return Ok(("its secret is a command, not run".to_owned(), Vec::new()));
    }
    let engine = app.engine(name)?.engine;
    if offline {
        return Ok((engine.describe(), Vec::new()));
    }
    let probe = engine.probe(&app.within(std::time::Duration::from_secs(60)))?;
    let versions =
        [probe.tool_version.map(|v| format!("tool {v}")), probe.server_version.map(|v| format!("server {v}"))];
    let versions: Vec<String> = versions.into_iter().flatten().collect();
    Ok((format!("{} answers: {}", engine.describe(), versions.join(", ")), probe.warnings))
}

fn target(app: &App, name: &str, offline: bool) -> Looked {
    let open = app.open_target(name)?;
    if offline {
        return Ok((open.target.describe(), Vec::new()));
    }
    let text = "voxeltron-backup was here";
    let key = ObjectKey::new(format!(
        "{}/voxeltron-backup-check-{}",
        encode(&app.config.instance),
        app.cx.world.random_hex(4)?
    ))?;
    open.target.put_briefly(&key, &mut text.as_bytes())?;
    let tried = read_back(&open, &key, text).and_then(|()| listed(&open, &key));
    let tried = tried.and_then(|()| Ok(open.target.look_closer(&key)?));
    let deleted = open.target.delete(&key);
    let mut warnings = tried?;
    match deleted {
        Ok(()) => {}
        Err(TargetError { cause: Cause::Retained, error }) => warnings.push(said(error)),
        Err(failure) => return Err(failure.into()),
    }
    // Nothing is as old as that: it only shows whether we may look.
    match open.target.sweep(key.as_str(), DateTime::UNIX_EPOCH) {
        Ok(_) => {}
        Err(TargetError { cause: Cause::Denied, error }) => warnings.push(said(error)),
        Err(failure) => return Err(failure.into()),
    }
    Ok((format!("{}: written, read, listed and deleted", open.target.describe()), warnings))
}

/// A failure that is none, in one line.
fn said(error: Error) -> String {
    let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{}{hint}", error.message)
}

fn read_back(open: &OpenTarget, key: &ObjectKey, text: &str) -> Result<()> {
    let (mut back, name) = (String::new(), &open.name);
    let mut reader = open.target.get(key)?;
    reader
        .read_to_string(&mut back)
        .map_err(|error| Error::from_io(error, Kind::Target, format!("target {name}: can't read {key}")))?;
    if back != text {
        return Err(Error::new(Kind::Target, format!("target {name}: what was read is not what was written")));
    }
    Ok(())
}

fn listed(open: &OpenTarget, key: &ObjectKey) -> Result<()> {
    if open.target.list(key.as_str())?.iter().any(|stored| stored.key == *key) {
        return Ok(());
    }
    let message = format!("target {}: {key} was stored, and its listing has not got it", open.name);
    Err(Error::new(Kind::Target, message).hint("a store whose listings come late can't be trusted with retention"))
}

/// Whether several hosts can keep their state there.
fn state(app: &App, name: &str, offline: bool) -> Looked {
    let shared = app.open_shared(name)?;
    if offline {
        return Ok((shared.describe(), Vec::new()));
    }
    shared.prove()?;
    Ok((format!("{}: checks conditional writes", shared.describe()), Vec::new()))
}

fn show(app: &App, found: &Finding) -> Result<()> {
    match (&found.error, &found.detail) {
        (Some(error), _) if error.message.starts_with(&found.what) => app.cx.report.error(error),
        (Some(error), _) => app.cx.report.error(&error.clone().while_doing(&found.what)),
        (None, detail) => {
            app.cx.report.out(&format!("ok  {}: {}", found.what, detail.as_deref().unwrap_or_default()))?
        }
    }
    for warning in &found.warnings {
        app.cx.report.warn(&format!("{}: {warning}", found.what));
    }
    Ok(())
}
