//! `restore`: brings a database back. Flows in: which backup and where to. Flows out: the database, or a file, or a
//! plan. The whole backup is authenticated, and loaded beside the live database, before that one changes.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use serde_json::json;

use super::{Done, undo};
use crate::app::{App, Opened};
use crate::catalog::{Entry, OpenTarget};
use crate::cli::RestoreArgs;
use crate::config::suggest;
use crate::decode;
use crate::elsewhere;
use crate::engine::{Cx, Destination, Engine, EngineKind, Keep, Request, Restored, summary};
use crate::error::{Context, Error, Kind, Result};
use crate::format::manifest::Signed;
use crate::format::time::{self, rfc3339, span};
use crate::hook::{self, Facts};
use crate::previous::{self, Listed, Shelf};
use crate::select::{choose, passed_over};

/// How long the hook that runs after a restore may take.
const AFTER_TIMEOUT: Duration = Duration::from_secs(600);
/// How often it is looked whether somebody reads from a pipe.
const READER_TICK: Duration = Duration::from_millis(50);

/// A backup that has been chosen, with all copies of it, the best first.
pub(super) struct Chosen {
    /// The copies.
    pub copies: Vec<Entry>,
    /// Where they are.
    pub open: Vec<OpenTarget>,
    /// What they say of themselves.
    pub signed: Signed,
}

/// Restores.
///
/// # Errors
/// Whatever kept the database, or the file, from being restored; it is as it was then.
pub fn run(app: &App, args: &RestoreArgs) -> Result<Done> {
    if args.output.as_deref() == Some(Path::new("-")) && app.cx.report.is_json() {
        return Err(Error::new(Kind::Usage, "--json and --output - both want stdout").hint("write the dump to a file"));
    }
    if let Some(at) = args.undo {
        return undo::run(app, args, at);
    }
    let chosen = find(app, args)?;
    for entry in &chosen.copies {
        if let Some(why) = app.rules(&args.database, false).distrust(entry) {
            app.cx.report.warn(&format!("backup {} at {} does not authenticate: {why}", entry.id, entry.target));
        }
    }
    let stands = match &args.output {
        Some(_) if args.dry_run => return plan(app, args, &chosen, None),
        Some(path) => {
            let bytes = to_file(app, args, &chosen, path)?;
            app.cx.report.note(&format!("wrote {} of {}", time::bytes(bytes), chosen.signed.id));
            Stands::default()
        }
        None => match to_database(app, args, &chosen)? {
            Outcome::Planned(done) => return Ok(done),
            Outcome::Declined => return Err(Error::other("not confirmed, nothing was changed")),
            Outcome::Restored(stands) => stands,
        },
    };
    stands.told(Done::well().with("backup", &chosen.signed)?)
}

/// Refuses a name that the configuration does not know.
pub(super) fn check_known(app: &App, database: &str) -> Result<()> {
    if app.config.databases.contains_key(database) || app.jobs_of(database).next().is_some() {
        return Ok(());
    }
    let names = app.config.databases.keys().chain(app.config.jobs.iter().map(|job| &job.database));
    let path = app.config.path.display();
    Err(Error::new(Kind::Usage, format!("there is no database {database:?} in {path}"))
        .hint(suggest(database, names.map(String::as_str))))
}

fn find(app: &App, args: &RestoreArgs) -> Result<Chosen> {
    let database = args.database.as_str();
    if args.target.is_none() && args.instance.is_none() {
        check_known(app, database)?;
    }
    let instance = args.instance.as_deref().unwrap_or(&app.config.instance);
    let open = app.targets_for(Some(database), args.target.as_deref())?;
    let entries = app.entries(&open, instance, database, args.job.as_deref())?;
    let copies = choose(&entries, args.selector(), &app.rules(database, args.allow_unauthenticated))
        .map_err(|error| error.while_doing(format!("database {database}")))?;
    if args.which.latest {
        let over = passed_over(&entries, &copies, &app.rules(database, args.allow_unauthenticated));
        for (entry, why) in over {
            app.cx.report.warn(&format!("backup {} at {} is passed over: {why}", entry.id, entry.target));
        }
    }
    let signed = copies.iter().find_map(Entry::signed).cloned();
    let signed = signed.ok_or_else(|| Error::new(Kind::NoBackup, "no backup"))?;
    Ok(Chosen { copies, open, signed })
}

/// Tries the copies one after the other: what `with` makes of a copy is all or nothing.
fn each_copy<T>(app: &App, chosen: &Chosen, mut with: impl FnMut(&mut dyn Read) -> Result<T>) -> Result<T> {
    let keys = app.keyring(&chosen.signed.database)?;
    let mut failed: Option<Error> = None;
    for entry in &chosen.copies {
        let Some(open) = chosen.open.iter().find(|open| open.name == entry.target) else { continue };
        let bar = app
            .cx
            .report
            .progress(&format!("{} from {}", chosen.signed.database, open.name), Some(chosen.signed.stored_bytes));
        app.cx.report.detail(&format!("reading {} at {}", chosen.signed.object, open.target.describe()));
        match decode::open(entry, open, &keys, bar, &app.cx.world.cancel)
            .and_then(|mut decoded| with(&mut decoded.stream))
        {
            Ok(value) => {
                // It is restored all the same; but that copy is none to count on.
                failed.iter().for_each(|error| app.cx.report.warn(&format!("{error}; another copy was taken")));
                return Ok(value);
            }
            Err(error) if matches!(error.kind, Kind::Authentication | Kind::Target) => {
                let error = error.while_doing(format!("backup {} at {}", entry.id, entry.target));
                if let Some(before) = failed.replace(error) {
                    app.cx.report.error(&before);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(Kind::NoBackup, "no copy of the backup could be opened")))
}

fn to_file(app: &App, args: &RestoreArgs, chosen: &Chosen, path: &Path) -> Result<u64> {
    let cancel = &app.cx.world.cancel;
    // What is out is out: only one copy can be tried.
    let mut once = false;
    let mut only = |place: &str| match std::mem::replace(&mut once, true) {
        false => Ok(()),
        true => Err(Error::other(format!("a part of a damaged copy has gone to {place}"))
            .hint("write to a file that is not there yet: --output FILE")),
    };
    if path == Path::new("-") {
        return each_copy(app, chosen, |stream| only("stdout").and_then(|()| app.cx.report.stdout_copy(stream)));
    }
    if path.exists() && !path.is_file() {
        // A device or a pipe that is there already.
        let mut file = open_special(app, path)?;
        let place = path.display().to_string();
        return each_copy(app, chosen, |stream| only(&place).and_then(|()| copy(stream, &mut file, path)));
    }
    if path.exists() {
        return Err(Error::other(format!("{} exists already", path.display())).hint("name a file that is not there"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let bytes = each_copy(app, chosen, |stream| {
        // It removes itself unless the whole backup has been read well.
        let mut file = tempfile::Builder::new()
            .prefix(".voxeltron-partial-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .doing(Kind::Other, format!("can't write into {}", folder.display()))?;
        let bytes = copy(stream, file.as_file_mut(), path)?;
        cancel.check()?;
        file.as_file().sync_all().doing(Kind::Other, format!("can't write {}", path.display()))?;
        file.persist_noclobber(path)
            .map_err(|failure| failure.error)
            .doing(Kind::Other, format!("can't create {}", path.display()))?;
        Ok(bytes)
    });
    bytes.map_err(|error| match args.allow_unauthenticated {
        true => error.hint("the object itself is damaged; nothing can mend that"),
        false => error,
    })
}

/// Opens a device, or a pipe that somebody will read from: until he does, a signal must be heeded.
fn open_special(app: &App, path: &Path) -> Result<File> {
    let what = format!("can't write {}", path.display());
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    loop {
        app.cx.world.cancel.check()?;
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                app.cx.world.clock.sleep(READER_TICK);
            }
            other => {
                let file = other.doing(Kind::Other, &what)?;
                let flags = fcntl_getfl(&file).doing(Kind::Other, &what)?;
                fcntl_setfl(&file, flags - OFlags::NONBLOCK).doing(Kind::Other, &what)?;
                return Ok(file);
            }
        }
    }
}

fn copy(stream: &mut dyn Read, file: &mut dyn io::Write, path: &Path) -> Result<u64> {
    io::copy(stream, file)
        .map_err(|error| Error::from_io(error, Kind::Other, format!("can't write {}", path.display())))
}

enum Outcome {
    Planned(Done),
    Declined,
    Restored(Stands),
}

fn to_database(app: &App, args: &RestoreArgs, chosen: &Chosen) -> Result<Outcome> {
    let (database, signed) = (args.database.as_str(), &chosen.signed);
    // Before anything is fetched or looked for, where the file says it.
    let said = app.table(database).and_then(|table| table.place.as_ref()).map(|(kind, _)| *kind);
    let fits = |kind: &EngineKind| match (kind.name == signed.engine, &args.url) {
        (true, _) => Ok(()),
        (false, None) => Err(Error::new(
            Kind::Config,
            format!("backup {} is of {}, but {} is {}", signed.id, signed.engine, app.place(database), kind.name),
        )
        .hint("write the dump to a file with --output, or correct the engine")),
        (false, Some(_)) => Err(Error::new(
            Kind::Usage,
            format!("backup {} is of {}, but --url names {}", signed.id, signed.engine, kind.name),
        )
        .hint(format!("give the URL of a server of {}", signed.engine))),
    };
    let opened = match &args.url {
        Some(url) => elsewhere::engine(app, database, url, args.password_file.as_deref())?,
        None => {
            said.map_or(Ok(()), fits)?;
            app.engine(database)?
        }
    };
    let Opened { kind, engine } = opened.clone();
    fits(kind)?;
    let destination = args.into.clone().map_or(Destination::InPlace, Destination::Into);
    if let (Destination::InPlace, Some(option)) = (&destination, &signed.partial) {
        let why =
            format!("backup {} holds a part of {database} ({option}): in its place the rest would be lost", signed.id);
        let hint = "restore it beside with --into NAME, and take from there what is needed";
        return Err(Error::new(Kind::Config, why).hint(hint));
    }
    if args.jobs.is_some() {
        engine.loads_in_parallel()?;
    }
    let request = Request {
        server_version: signed.server_version.clone(),
        jobs: args.jobs,
        dump_bytes: Some(signed.dump_bytes),
        ..Request::new(destination.clone(), signed.counts.clone())
    };
    if args.dry_run {
        return plan(app, args, chosen, Some((engine.as_ref(), &request))).map(Outcome::Planned);
    }
    if destination == Destination::InPlace {
        let report = &app.cx.report;
        report.note(&format!("restoring {} from {}: {}", engine.describe(), signed.id, age(app, signed)));
        if !args.yes
            && report.can_ask()
            && !report.ask(&format!("this replaces what is in {}; go on?", engine.describe()))?
        {
            return Ok(Outcome::Declined);
        }
    }
    if destination != Destination::InPlace {
        let restored = load(app, chosen, engine.as_ref(), &request).map_err(|error| match &args.url {
            Some(_) => elsewhere::said(database, error),
            None => error,
        });
        return restored.map(|restored| Outcome::Restored(Stands { restored, previous: None }));
    }
    in_place(app, database, &opened, signed.stored_bytes, false, |app, keep| {
        load(app, chosen, engine.as_ref(), &Request { keep: keep.cloned(), ..request })
    })
    .map(Outcome::Restored)
}

/// What stands after a restore, and what is kept of the database that it replaced.
#[derive(Debug, Default)]
pub(super) struct Stands {
    restored: Restored,
    previous: Option<Listed>,
}

impl Stands {
    /// The document of a restore that was done.
    pub(super) fn told(&self, done: Done) -> Result<Done> {
        let outcome = if self.restored.missing.is_empty() { Ok(()) } else { Err(Kind::Partial) };
        let done = done.ended(outcome).with("restored", &self.restored)?;
        done.with("previous", &self.previous)?.with("dry_run", &false)
    }
}

/// Does `work` on the live database with all that belongs round it: locks, hooks, and what was there before kept. A dump of
/// that may take `wanted` bytes.
pub(super) fn in_place(
    app: &App,
    database: &str,
    opened: &Opened,
    wanted: u64,
    is_undo: bool,
    work: impl FnOnce(&App, Option<&Keep>) -> Result<Restored>,
) -> Result<Stands> {
    // No job may dump the database while it changes, here or on another host.
    let holds = app.jobs_of(database).map(|job| app.hold(&job.name)).collect::<Result<Vec<_>>>()?;
    // Nor may another change what is kept of it; a database may have no job.
    let _alone = previous::alone(app, database)?.ok_or_else(|| {
        Error::new(Kind::Locked, format!("another run is at work on {database}")).hint("wait for it to end")
    })?;
    let held = holds.iter().fold(None::<App>, |held, hold| Some(held.as_ref().unwrap_or(app).holding(hold)));
    let app = held.as_ref().unwrap_or(app);
    let shelf = Arc::new(Shelf::new(app, database, opened, wanted));
    with_hooks(app, database, || {
        let keep = shelf.begin()?;
        let restored = work(app, keep.as_ref()).inspect_err(|_| keep.iter().for_each(|_| shelf.failed()))?;
        let previous = shelf.settle(keep.as_ref(), is_undo).map(|kept| Listed::new(app, database, kept));
        previous.iter().for_each(|kept| app.cx.report.note(&previous::told(kept)));
        Ok(Stands { restored, previous })
    })
}

fn with_hooks<T>(app: &App, database: &str, restore: impl FnOnce() -> Result<T>) -> Result<T> {
    let facts = Facts { job: "", database, outcome: None };
    let which = |when: &str| format!("restore.{when} of {database}");
    let table = app.table(database);
    let before = table.and_then(|table| table.restore_before.as_ref());
    let outcome = hook::run(before, &which("before"), &facts, &app.cx).and_then(|()| restore());
    let facts = Facts { outcome: Some(if outcome.is_ok() { "success" } else { "failure" }), ..facts };
    // What the hook before has stopped must start again, whatever came of the restore, also after a signal.
    let world = app.cx.world.for_cleanup();
    let cx = Cx { deadline: Some(world.clock.monotonic() + AFTER_TIMEOUT), world, ..app.cx.clone() };
    let after = hook::run(table.and_then(|table| table.restore_after.as_ref()), &which("after"), &facts, &cx);
    match (outcome, after) {
        (Ok(restored), after) => {
            after.map(|()| restored).map_err(|error| error.hint("the database itself is restored"))
        }
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(second)) => {
            app.cx.report.error(&second);
            Err(error)
        }
    }
}

pub(super) fn load(app: &App, chosen: &Chosen, engine: &dyn Engine, request: &Request) -> Result<Restored> {
    let signed = &chosen.signed;
    let restored = each_copy(app, chosen, |stream| engine.restore(stream, request, &app.cx))
        .map_err(|error| error.while_doing(format!("can't restore {}", signed.database)))?;
    for note in &restored.notes {
        app.cx.report.warn(note);
    }
    let what = match &request.destination {
        Destination::Into(name) => name.clone(),
        _ => engine.describe(),
    };
    let counted = summary(&signed.engine, &restored.counts);
    app.cx.report.note(&format!("restored {what} from {}: {counted}", signed.id));
    Ok(restored)
}

fn age(app: &App, signed: &Signed) -> String {
    let age = span(app.cx.world.clock.now() - signed.created);
    format!("{age} old, created {}", rfc3339(signed.created))
}

fn plan(app: &App, args: &RestoreArgs, chosen: &Chosen, with: Option<(&dyn Engine, &Request)>) -> Result<Done> {
    let signed = &chosen.signed;
    let places: Vec<&str> = chosen.copies.iter().map(|entry| entry.target.as_str()).collect();
    let mut steps = vec![
        format!("take backup {} from {}: {}", signed.id, places.join(", else "), age(app, signed)),
        format!(
            "read {} ({}), check size, digest{} and end mark",
            signed.object,
            time::bytes(signed.stored_bytes),
            if signed.is_encrypted() { ", every segment's tag" } else { "" }
        ),
    ];
    match (with, &args.output) {
        (Some((engine, request)), _) => {
            let hooks = app.table(&args.database).filter(|_| request.destination == Destination::InPlace);
            let line = |when: &str, words: &Vec<String>| format!("run restore.{when}: {}", words.join(" "));
            steps.extend(hooks.and_then(|hooks| hooks.restore_before.as_ref()).map(|words| line("before", words)));
            steps.extend(engine.plan_for(request, &app.cx));
            let in_place = request.destination == Destination::InPlace;
            steps.extend(in_place.then(|| kept_step(app, &args.database)));
            steps.extend(hooks.and_then(|hooks| hooks.restore_after.as_ref()).map(|words| line("after", words)));
        }
        (None, Some(path)) => steps.push(format!("write the dump to {}", path.display())),
        (None, None) => {}
    }
    let numbered = steps.iter().enumerate().map(|(number, step)| format!("{}. {step}", number + 1));
    app.cx.report.out(&numbered.collect::<Vec<_>>().join("\n"))?;
    Done::well().with("backup", signed)?.with("steps", &steps)?.with("dry_run", &json!(true))
}

fn kept_step(app: &App, database: &str) -> String {
    match previous::keeping(app, database) {
        time if time.is_zero() => "keep nothing of the database as it was (keep_previous = \"0\")".to_owned(),
        time => {
            let time = TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX);
            format!("keep the database as it was for {}, for --undo", span(time))
        }
    }
}
