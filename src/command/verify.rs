//! `verify`: reads backups back and, with `--restore`, loads them into a scratch database. Flows in: which backups.
//! Flows out: for each copy whether it is whole. Touches no live database.

use std::io;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Done;
use crate::app::App;
use crate::catalog::{Entry, OpenTarget};
use crate::cli::VerifyArgs;
use crate::config::jobs::JobConfig;
use crate::config::suggest;
use crate::decode;
use crate::engine::{Counts, Destination, Request, summary};
use crate::error::{Error, Kind, Result};
use crate::exit;
use crate::format::count;
use crate::format::time::{self, rfc3339};
use crate::notify;
use crate::select::{Rules, Selector, choose, passed_over};

/// What was found out about one copy.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Its database.
    pub database: String,
    /// Its job.
    pub job: Option<String>,
    /// Its id.
    pub id: String,
    /// Where the copy is.
    pub target: String,
    /// The instant that it shows.
    #[serde(with = "time::serde_rfc3339_option")]
    pub created: Option<DateTime<Utc>>,
    /// Whether it is whole.
    pub ok: bool,
    /// The dump's size.
    pub dump_bytes: Option<u64>,
    /// What the engine's inspector took for its end.
    pub end_mark: Option<String>,
    /// Whether it was loaded into a scratch database, too.
    pub restored: bool,
    /// What was counted in it.
    pub counts: Counts,
    /// How many of the job's own checks held.
    pub checks: usize,
    /// What its restore had to say besides.
    pub notes: Vec<String>,
    /// Whose words say what was counted.
    #[serde(skip)]
    engine: String,
    /// What is wrong with it.
    pub error: Option<Error>,
}

/// Verifies.
///
/// # Errors
/// [`Kind::Target`] when a target can't be listed; what is wrong with a backup is in the report.
pub fn run(app: &App, args: &VerifyArgs) -> Result<Done> {
    let databases = databases(app, args)?;
    let (mut found, mut outcomes, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for database in &databases {
        let open = app.targets_for(Some(database), args.target.as_deref())?;
        let entries = app.entries(&open, &app.config.instance, database, args.job.as_deref())?;
        let chosen = match chosen(&entries, args, &app.rules(database, false)) {
            Ok(chosen) => chosen,
            Err(error) => {
                let error = error.while_doing(format!("database {database}"));
                app.cx.report.error(&error);
                outcomes.push(Err(error.kind));
                missing.push(error);
                continue;
            }
        };
        // Of all, each is told for itself; and one that is named is the answer.
        if !args.all && args.which.timestamp.is_none() {
            for (entry, why) in passed_over(&entries, &chosen, &app.rules(database, false)) {
                let message = format!("backup {} at {} is passed over: {why}", entry.id, entry.target);
                let error = Error::new(Kind::Authentication, message).while_doing(format!("database {database}"));
                app.cx.report.error(&error);
                outcomes.push(Err(error.kind));
                missing.push(error);
            }
        }
        let mut loaded = Vec::new();
        for entry in &chosen {
            app.cx.world.cancel.check()?;
            // One copy of a backup proves that it can be loaded; the others are read.
            let load = args.restore && !loaded.contains(&entry.id);
            let verified = one(app, entry, &open, load);
            if verified.restored {
                loaded.push(entry.id.clone());
            }
            outcomes.push(verified.error.as_ref().map_or(Ok(()), |error| Err(error.kind)));
            show(app, &verified)?;
            found.push(verified);
        }
    }
    if args.restore {
        notify::write_metrics(app);
    }
    Done::well().ended(exit::merge(outcomes)).with("backups", &found)?.with("errors", &missing)
}

/// Loads the newest backup of a job into a scratch database; the next copy of it, if one is damaged.
///
/// # Errors
/// [`Kind::Target`] when a target can't be listed; [`Kind::NoBackup`]. What is wrong with the backup is in the report.
pub fn prove(app: &App, job: &JobConfig) -> Result<Verified> {
    let open = app.targets_for(Some(&job.database), None)?;
    let entries = app.entries(&open, &app.config.instance, &job.database, Some(&job.name))?;
    let (mut failed, rules) = (Vec::new(), app.rules(&job.database, false));
    let chosen = choose(&entries, Selector::Latest, &rules)?;
    for (entry, why) in passed_over(&entries, &chosen, &rules) {
        app.cx.report.warn(&format!("backup {} at {} is passed over: {why}", entry.id, entry.target));
    }
    for entry in &chosen {
        let verified = one(app, entry, &open, true);
        if verified.ok || verified.error.as_ref().is_some_and(Error::is_stopped) {
            // It may be proved by this copy; the others are none to count on.
            tell(app, &failed);
            return Ok(verified);
        }
        failed.push(verified);
    }
    // The first is the drill's own failure, which its caller tells.
    tell(app, failed.get(1..).unwrap_or_default());
    failed.into_iter().next().ok_or_else(|| Error::new(Kind::NoBackup, "there is no backup"))
}

fn tell(app: &App, failed: &[Verified]) {
    failed.iter().filter_map(|it| it.error.as_ref()).for_each(|error| app.cx.report.error(error));
}

fn databases(app: &App, args: &VerifyArgs) -> Result<Vec<String>> {
    let mut known: Vec<String> = app.config.jobs.iter().map(|job| job.database.clone()).collect();
    known.extend(app.config.databases.keys().cloned());
    known.sort();
    known.dedup();
    match &args.database {
        Some(name) if known.contains(name) || args.target.is_some() => Ok(vec![name.clone()]),
        Some(name) => {
            let path = app.config.path.display();
            Err(Error::new(Kind::Usage, format!("there is no database {name:?} in {path}"))
                .hint(suggest(name, known.iter().map(String::as_str))))
        }
        // A database that is only configured has no backups to look for.
        None => Ok(known.into_iter().filter(|name| app.jobs_of(name).next().is_some()).collect()),
    }
}

fn chosen(entries: &[Entry], args: &VerifyArgs, rules: &Rules) -> Result<Vec<Entry>> {
    // That there is nothing is no proof: then it goes the common way, which says so.
    if args.all && !entries.is_empty() {
        return Ok(entries.to_vec());
    }
    choose(entries, args.which.timestamp.map_or(Selector::Latest, Selector::At), rules)
}

fn one(app: &App, entry: &Entry, open: &[OpenTarget], load: bool) -> Verified {
    let signed = entry.signed();
    let mut verified = Verified {
        database: entry.owner.database.clone(),
        job: entry.id.job(),
        id: entry.id.to_string(),
        target: entry.target.clone(),
        created: signed.map(|signed| signed.created),
        ok: false,
        dump_bytes: signed.map(|signed| signed.dump_bytes),
        end_mark: None,
        engine: signed.map(|signed| signed.engine.clone()).unwrap_or_default(),
        restored: false,
        counts: Counts::new(),
        checks: 0,
        notes: Vec::new(),
        error: None,
    };
    let outcome = read(app, entry, open, load, &mut verified);
    verified.ok = outcome.is_ok();
    verified.error = outcome.err().map(|error| error.while_doing(format!("backup {} at {}", entry.id, entry.target)));
    verified
}

fn read(app: &App, entry: &Entry, open: &[OpenTarget], load: bool, verified: &mut Verified) -> Result<()> {
    let database = &entry.owner.database;
    if let Some(why) = app.rules(database, false).distrust(entry) {
        return Err(Error::new(Kind::Authentication, format!("it does not authenticate: {why}")));
    }
    let (Some(signed), Some(open)) = (entry.signed(), open.iter().find(|open| open.name == entry.target)) else {
        return Err(Error::new(Kind::Authentication, "it can't be read"));
    };
    let bar = app.cx.report.progress(&format!("{database} from {}", open.name), Some(signed.stored_bytes));
    let mut decoded = decode::open(entry, open, &app.keyring(database)?, bar, &app.cx.world.cancel)?;
    if load {
        let job = app.jobs_of(database).find(|job| job.name == signed.job);
        let request = Request {
            server_version: signed.server_version.clone(),
            checks: job.map(|job| job.checks.clone()).unwrap_or_default(),
            ..Request::new(Destination::Drill, signed.counts.clone())
        };
        // What a check waits for must not hold the job for ever.
        let cx = job.map_or_else(|| app.cx.clone(), |job| app.within(job.timeout));
        let restored = app.engine(database)?.engine.restore(&mut decoded.stream, &request, &cx)?;
        verified.restored = true;
        verified.checks = request.checks.len();
        verified.counts = restored.counts;
        for note in &restored.notes {
            app.cx.report.warn(&format!("backup {} at {}: {note}", entry.id, entry.target));
        }
        verified.notes = restored.notes;
        proved(app, &signed.job, entry.id.as_str())?;
    } else {
        io::copy(&mut decoded.stream, &mut io::sink())
            .map_err(|error| Error::from_io(error, Kind::Target, "can't read the backup"))?;
        verified.counts.clone_from(&signed.counts);
    }
    verified.end_mark = decoded.findings.take().map(|found| found.end_mark);
    Ok(())
}

fn proved(app: &App, job: &str, id: &str) -> Result<()> {
    let now = app.cx.world.clock.now();
    app.store()?.update(job, &app.cx.report, &mut |state| {
        if let Some(past) = state.jobs.get_mut(job) {
            past.proved(id, now);
        }
    })
}

fn show(app: &App, verified: &Verified) -> Result<()> {
    if let Some(error) = &verified.error {
        app.cx.report.error(error);
        return Ok(());
    }
    let created = verified.created.map_or_else(|| "?".to_owned(), rfc3339);
    let size = time::bytes(verified.dump_bytes.unwrap_or(0));
    let end = verified.end_mark.as_deref().unwrap_or("?");
    let mut text = format!("{} at {}: good; created {created}, {size}, end mark {end}", verified.id, verified.target);
    if verified.restored {
        let counted = summary(&verified.engine, &verified.counts);
        text.push_str(&format!("; restored into a scratch database: {counted}"));
        if verified.checks > 0 {
            text.push_str(&format!("; {}", count(verified.checks as u64, "check holds", "checks hold")));
        }
    }
    app.cx.report.out(&text)
}
