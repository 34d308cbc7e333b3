//! Databases as they were before a restore in their place. Flows in: a database's engine, the clock. Flows out: what is
//! kept of it, where, until when; at most one of a database after a restore has ended well. Touches the server through the
//! engine, `data_dir/previous`, and the [`record`].
//!
//! Where the engine can, the database itself stands aside at the server under another name. Elsewhere a dump of it is
//! taken at the last moment before it changes, and kept as a backup of nobody's job in `data_dir/previous`: checked to its
//! end mark, encrypted under the key of the database's jobs where there is one, and put back by the same road as any.

pub mod expiry;
pub mod record;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::Serialize;

use self::record::{Kept, Past, Record};
use crate::app::{App, Opened, toml_key};
use crate::backup;
use crate::catalog::{Entry, OpenTarget};
use crate::config::KEEP_PREVIOUS;
use crate::config::jobs::{DEFAULT_TIMEOUT, JobConfig};
use crate::engine::{Aside, Cx, Keep, Previous, Step};
use crate::error::{Error, Kind, Result};
use crate::format::name::{BackupId, Found, ObjectKey, parse};
use crate::format::time::{self, rfc3339};
use crate::process::call::quote;
use crate::retention::Policy;
use crate::schedule::cron::Cron;
use crate::schedule::lock::JobLock;
use crate::target::local::Local;

/// The folder in `data_dir` for what is kept as a dump, and the job's name in it.
const ASIDE: &str = "previous";
/// The fastest: whoever restores is in a hurry.
const COMPRESSION_LEVEL: u8 = 1;
/// How long it may take to drop what is kept no longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long the database that a restore replaces is kept; zero: not at all.
pub fn keeping(app: &App, database: &str) -> Duration {
    app.table(database).map_or(KEEP_PREVIOUS, |table| table.keep_previous)
}

/// When what was replaced then is dropped.
pub fn until(since: DateTime<Utc>, keeping: Duration) -> DateTime<Utc> {
    let keeping = TimeDelta::from_std(keeping).unwrap_or(TimeDelta::MAX);
    since.checked_add_signed(keeping).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// What is kept of a database, as documents show it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The database.
    pub database: String,
    /// When it was replaced.
    #[serde(with = "time::serde_rfc3339")]
    pub since: DateTime<Utc>,
    /// When it is dropped.
    #[serde(with = "time::serde_rfc3339")]
    pub until: DateTime<Utc>,
    /// What it is called at its server, or the id of its dump.
    pub name: String,
    /// Whether it stands at its server.
    pub on_server: bool,
    /// The dump's size in bytes.
    pub bytes: Option<u64>,
}

impl Listed {
    /// Of what is kept of `database`.
    pub fn new(app: &App, database: &str, kept: Kept) -> Self {
        let until = until(kept.since, keeping(app, database));
        let Kept { name, since, on_server, bytes } = kept;
        Self { database: database.to_owned(), since, until, name, on_server, bytes }
    }
}

/// What is kept of one database.
#[derive(Clone, Debug)]
pub struct Shelf {
    app: App,
    database: String,
    opened: Opened,
    /// How much room a dump of it may want, in bytes.
    wanted: u64,
}

impl Shelf {
    /// Of a database whose engine is open; `wanted`: how much room a dump of it may take, in bytes.
    pub fn new(app: &App, database: &str, opened: &Opened, wanted: u64) -> Self {
        let wanted = opened.engine.live_bytes().unwrap_or(wanted);
        Self { app: app.clone(), database: database.to_owned(), opened: opened.clone(), wanted }
    }

    /// Whose it is.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The place of the dumps.
    pub fn aside(&self) -> OpenTarget {
        aside(&self.app)
    }

    /// All that is kept, the newest last.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked; [`Kind::Target`] when the folder can't be read.
    pub fn all(&self, cx: &Cx) -> Result<Vec<Kept>> {
        let at_server = |it: Previous| Kept { name: it.name, since: it.since, on_server: true, bytes: None };
        let mut all: Vec<Kept> = self.opened.engine.previous(cx)?.into_iter().map(at_server).collect();
        all.extend(dumps(&self.app, &self.database)?);
        all.sort_by_key(|kept| kept.since);
        Ok(all)
    }

    /// What `--undo` puts back.
    ///
    /// # Errors
    /// As [`Shelf::all`].
    pub fn newest(&self, cx: &Cx) -> Result<Option<Kept>> {
        let mut all = self.all(cx)?;
        let begun = self.past().undoing;
        let begun = begun.and_then(|name| all.iter().position(|kept| kept.name == name));
        Ok(begun.map(|at| all.swap_remove(at)).or_else(|| all.pop()))
    }

    /// Writes down what is being put back: an undo that fails may have kept what stands now, which is newer.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn undoing(&self, kept: &Kept, keep: Option<&Keep>) -> Result<()> {
        Record::of(&self.app).update(|all| {
            let past = all.entry(self.database.clone()).or_default();
            past.undoing = Some(kept.name.clone());
            // However this ends, the next one goes on with the same.
            past.unended = past.unended.filter(|at| keep.is_none_or(|keep| keep.at != *at));
        })
    }

    /// The backup that a kept dump is.
    ///
    /// # Errors
    /// [`Kind::Authentication`] when it is not to be believed; [`Kind::NoBackup`] when it is gone.
    pub fn entry(&self, kept: &Kept) -> Result<Entry> {
        let entries = self.app.entries(&[self.aside()], &self.app.config.instance, &self.database, None)?;
        let entry = entries.into_iter().find(|entry| entry.id.as_str() == kept.name);
        let entry = entry.ok_or_else(|| Error::new(Kind::NoBackup, format!("{} is gone", kept.name)))?;
        match self.app.rules(&self.database, false).distrust(&entry) {
            Some(why) => Err(Error::new(Kind::Authentication, format!("{} does not authenticate: {why}", kept.name))),
            None => Ok(entry),
        }
    }

    /// Before a restore: how the live database is to be kept; `None` if it is not. That something may be kept from now on
    /// is written down first, so that it is dropped in time whatever becomes of this run.
    ///
    /// # Errors
    /// When the server can't be asked or nothing can be written down.
    pub fn begin(self: &Arc<Self>) -> Result<Option<Keep>> {
        if keeping(&self.app, &self.database).is_zero() {
            return Ok(None);
        }
        // Now rather than after: it makes room, and what is kept next may bear the same second in its name.
        tidy(&self.app, &self.database);
        let newest = self.all(&self.app.cx)?.last().map(|kept| kept.since + TimeDelta::seconds(1));
        let at = self.app.cx.world.clock.now().trunc_subsecs(0);
        let at = newest.map_or(at, |newest| newest.max(at));
        Record::of(&self.app).update(|all| {
            let past = all.entry(self.database.clone()).or_default();
            past.begun = Some(at);
            past.unended.get_or_insert(at);
        })?;
        Ok(Some(Keep { at, aside: Arc::clone(self) as Arc<dyn Aside> }))
    }

    /// After a restore that has ended well: drops what was kept before, and says what is kept now. What can't be done is
    /// warned of, and tried again when its time has come. Where nobody knows how an earlier one ended nothing is dropped.
    pub fn settle(&self, keep: Option<&Keep>, is_undo: bool) -> Option<Kept> {
        let cx = self.patient();
        let all = match self.all(&cx) {
            Ok(all) => all,
            Err(error) => {
                cx.report.warn(&format!("can't look what is kept of {} from before: {error}", self.database));
                return None;
            }
        };
        let (new, old): (Vec<Kept>, Vec<Kept>) =
            all.into_iter().partition(|kept| keep.is_some_and(|keep| keep.at == kept.since));
        let (earlier, stays) = self.unended(&old, keep, is_undo);
        let (stay, old) = if stays { (old, Vec::new()) } else { (Vec::new(), old) };
        for kept in &stay {
            let (since, database) = (rfc3339(kept.since), quote(&self.database));
            cx.report.note(&format!(
                "what was kept before the restore at {since} stays, too, since one did not end: voxeltron-backup restore \
                 {database} --undo={since}"
            ));
        }
        let mut left = stay.clone();
        for kept in old {
            if let Err(error) = self.forget(&kept, &cx) {
                let database = &self.database;
                cx.report
                    .warn(&format!("can't drop what was kept of {database} from before: {error}; it is tried again"));
                left.push(kept);
            }
        }
        tidy(&self.app, &self.database);
        let new = new.into_iter().next_back();
        let begun = left.first().map(|kept| kept.since);
        let seconds = Some(keeping(&self.app, &self.database).as_secs()).filter(|_| new.is_some() || begun.is_some());
        let kept = new.clone().or_else(|| left.pop());
        let others = stay.into_iter().filter(|other| kept.as_ref() != Some(other)).collect();
        self.note(kept, |_| Past { begun, unended: earlier, seconds, others, ..Past::default() });
        new
    }

    /// When the first restore before this one began of which nobody knows how it ended, and whether the older copies stay for
    /// that. One that was killed before it kept anything has changed nothing; and what stands aside at a server was put there
    /// by one that was done.
    fn unended(&self, old: &[Kept], keep: Option<&Keep>, is_undo: bool) -> (Option<DateTime<Utc>>, bool) {
        let past = self.past();
        let earlier = past.unended.filter(|at| keep.is_none_or(|keep| keep.at != *at));
        let earlier = earlier.filter(|at| old.iter().any(|kept| !kept.on_server && kept.since >= *at));
        // What an undo was putting back is wanted yet, unless this one has put it back.
        let wanted = past.undoing.filter(|_| !is_undo);
        let stays = earlier.is_some() || wanted.is_some_and(|name| old.iter().any(|kept| kept.name == name));
        (earlier, stays)
    }

    /// What is written down of it.
    fn past(&self) -> Past {
        Record::of(&self.app).read().unwrap_or_default().remove(&self.database).unwrap_or_default()
    }

    /// After a restore that has failed, and may have taken its place in part: the newest is what `--undo` puts back.
    pub fn failed(&self) {
        let cx = self.patient();
        if let (Ok(mut others), Ok(kept)) = (self.all(&cx), self.newest(&cx)) {
            others.retain(|other| kept.as_ref() != Some(other));
            self.note(kept, |past| Past { others, ..past });
        }
    }

    /// Writes down what is kept, and what else is to be remembered.
    fn note(&self, kept: Option<Kept>, rest: impl FnOnce(Past) -> Past) {
        let noted = Record::of(&self.app).update(|all| {
            let past = all.entry(self.database.clone()).or_default();
            *past = Past { kept, not_before: None, ..rest(std::mem::take(past)) };
            if *past == Past::default() {
                all.remove(&self.database);
            }
        });
        if let Err(error) = noted {
            self.app.cx.report.warn(&error.to_string());
        }
    }

    /// Drops what is kept.
    ///
    /// # Errors
    /// As [`crate::engine::Engine::forget`]; [`Kind::Target`].
    pub fn forget(&self, kept: &Kept, cx: &Cx) -> Result<()> {
        match kept.on_server {
            true => self.opened.engine.forget(&kept.as_previous(), cx),
            false => remove(&self.app, &self.database, kept),
        }
    }

    /// The same context for what must be done whatever signal comes.
    fn patient(&self) -> Cx {
        let world = self.app.cx.world.for_cleanup();
        Cx { deadline: Some(world.clock.monotonic() + PATIENCE), world, ..self.app.cx.clone() }
    }

    /// A job that no configuration has: encrypted under the key of the database's jobs, where there is one.
    fn job(&self) -> Result<JobConfig> {
        let mut jobs = self.app.jobs_of(&self.database);
        let own = jobs.find(|job| job.encryption_key.is_some()).and_then(|job| job.encryption_key.clone());
        Ok(JobConfig {
            name: ASIDE.to_owned(),
            database: self.database.clone(),
            cron: Cron::parse("@yearly", "UTC")?,
            targets: Vec::new(),
            compress: true,
            compression_level: COMPRESSION_LEVEL,
            encrypt: own.is_some() || self.app.config.encryption_key.is_some(),
            encryption_key: own,
            retention: Policy::default(),
            catch_up: false,
            timeout: DEFAULT_TIMEOUT,
            retries: Some(0),
            retry_after: Duration::ZERO,
            delay: TimeDelta::zero(),
            drill: None,
            checks: Vec::new(),
            healthcheck_url: None,
            before: None,
            after: None,
        })
    }

    fn cannot(&self, error: Error) -> Error {
        let mend = format!(
            "restore without keeping what is there: [databases.{}] keep_previous = \"0\"",
            toml_key(&self.database)
        );
        let mend = match &error.hint {
            None => mend,
            Some(hint) => format!("{hint}; or {mend}"),
        };
        let error = Error { hint: Some(mend), ..error };
        // Another copy of the backup would not help.
        let kind = if error.is_stopped() { error.kind } else { Kind::Other };
        Error { kind, ..error }.while_doing(format!("can't keep {} as it is", self.database))
    }
}

impl Aside for Shelf {
    fn room(&self) -> Result<()> {
        let folder = &self.app.cx.data_dir;
        // Where it can't be told, writing tells it, still before anything has changed.
        let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= self.wanted {
            return Ok(());
        }
        let (free, wanted) = (time::bytes(free), time::bytes(self.wanted));
        let why = format!("{} has {free} free, and a dump of it may take {wanted}", folder.display());
        Err(self.cannot(Error::other(why).hint("make room there")))
    }

    fn take(&self, at: DateTime<Utc>) -> Result<()> {
        if let Some(option) = self.opened.engine.leaves_out() {
            self.app.cx.report.warn(&format!(
                "{} is not kept as it is: a dump of it leaves a part out ({option} in dump_args)",
                self.database
            ));
            return Ok(());
        }
        self.app.cx.begins(Step::Keep, &format!("keeping {} as it is, so that it can be put back", self.database));
        let id = BackupId::new(at, ASIDE);
        let engine = self.opened.engine.for_keeping().unwrap_or_else(|| Arc::clone(&self.opened.engine));
        let opened = Opened { kind: self.opened.kind, engine };
        backup::keep(&self.app, &self.job()?, id, &opened, &self.aside()).map_err(|error| self.cannot(error))
    }

    fn untouched(&self, at: DateTime<Utc>) {
        let here = dumps(&self.app, &self.database).unwrap_or_default();
        let dropped =
            here.iter().filter(|kept| kept.since == at).try_for_each(|kept| remove(&self.app, &self.database, kept));
        let noted = dropped.and_then(|()| {
            Record::of(&self.app).update(|all| {
                let Some(past) = all.get_mut(&self.database) else { return };
                past.begun = past.begun.filter(|begun| *begun != at);
                past.unended = past.unended.filter(|unended| *unended != at);
            })
        });
        if let Err(error) = noted {
            let database = &self.database;
            self.app.cx.report.warn(&format!("can't drop what was kept of {database} for this restore: {error}"));
        }
    }
}

/// The right to change what is kept of a database; `None` where another run has it.
///
/// # Errors
/// When the lock can't be taken for another reason.
pub fn alone(app: &App, database: &str) -> Result<Option<JobLock>> {
    JobLock::try_acquire(&app.cx.data_dir, &format!("{ASIDE}/{database}"), app.cx.world.clock.now())
}

/// The place of the dumps.
fn aside(app: &App) -> OpenTarget {
    let root = app.cx.data_dir.join(ASIDE);
    OpenTarget { name: ASIDE.to_owned(), is_local: true, target: Arc::new(Local::new(ASIDE, &root)) }
}

/// The dumps that are kept of a database.
fn dumps(app: &App, database: &str) -> Result<Vec<Kept>> {
    if !app.cx.data_dir.join(ASIDE).is_dir() {
        return Ok(Vec::new());
    }
    let stored = aside(app).target.list(&app.owner(database).prefix())?;
    let ids = stored.iter().filter_map(|object| manifest_of(&object.key));
    let kept = ids.filter_map(|id| {
        let start = format!("{}{id}.", app.owner(database).prefix());
        let own = stored.iter().filter(|object| object.key.as_str().starts_with(&start));
        let bytes = Some(own.map(|object| object.size).sum());
        Some(Kept { since: id.at()?, name: id.to_string(), on_server: false, bytes })
    });
    Ok(kept.collect())
}

/// Removes a kept dump: first what makes it a backup.
fn remove(app: &App, database: &str, kept: &Kept) -> Result<()> {
    let target = aside(app).target;
    let start = format!("{}{}.", app.owner(database).prefix(), kept.name);
    let (first, rest): (Vec<_>, Vec<_>) =
        target.list(&start)?.into_iter().partition(|object| matches!(parse(&object.key), Some(Found::Manifest(..))));
    for object in first.iter().chain(&rest) {
        target.delete(&object.key)?;
    }
    Ok(())
}

/// Removes what dumps that did not end have left. The caller is the only one at work on this database.
fn tidy(app: &App, database: &str) {
    if !app.cx.data_dir.join(ASIDE).is_dir() {
        return;
    }
    let (target, prefix) = (aside(app).target, app.owner(database).prefix());
    let stored = target.list(&prefix).unwrap_or_default();
    let whole: Vec<BackupId> = stored.iter().filter_map(|object| manifest_of(&object.key)).collect();
    for object in &stored {
        if matches!(parse(&object.key), Some(Found::Object(_, id)) if !whole.contains(&id)) {
            // What can't be removed now is tried again.
            drop(target.delete(&object.key));
        }
    }
    drop(target.sweep(&prefix, app.cx.world.clock.now()));
}

fn manifest_of(key: &ObjectKey) -> Option<BackupId> {
    match parse(key)? {
        Found::Manifest(_, id) => Some(id),
        _ => None,
    }
}

/// What is said when a database is kept.
pub fn told(kept: &Listed) -> String {
    let (until, database) = (rfc3339(kept.until), quote(&kept.database));
    format!(
        "the database as it was is kept until {until}: put it back with: voxeltron-backup restore {database} --undo"
    )
}
