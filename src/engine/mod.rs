//! Engines: what to run for a dump, what a whole dump looks like, and how a dump comes back. Flows in: a database's
//! settings. Flows out: a dump as a `Read`, findings about it, a restored database. A new engine is one folder (or file)
//! here, declared below, and its `KIND` in [`REGISTRY`].

pub mod checks;
pub mod image;
pub mod mongodb;
pub mod mysql;
pub mod postgres;
pub mod redis;
mod request;
pub mod sqlite;
pub mod tools;
pub mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::request::{Aside, Destination, Keep, Previous, Request, Restored, Step};
use crate::error::{Error, Kind, Result};
use crate::format::count;
use crate::report::Report;
use crate::secret::Secret;
use crate::world::World;

/// Every engine that is built in.
pub const REGISTRY: &[EngineKind] = &[postgres::KIND, mysql::KIND, redis::KIND, mongodb::KIND, sqlite::KIND];

/// What a command passes to everything that does work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cx {
    /// Clock, randomness, environment, signals.
    pub world: World,
    /// Where messages and progress go.
    pub report: Report,
    /// Where the engine may leave a temporary file, mode 0600, when there is no other way.
    pub data_dir: PathBuf,
    /// When the work must be done, on the monotonic clock.
    pub deadline: Option<Duration>,
}

/// A kind of engine, without a database yet.
#[derive(Clone, Copy)]
pub struct EngineKind {
    /// Its name in the configuration and in manifests.
    pub name: &'static str,
    /// The ending of its dumps' object names.
    pub ending: &'static str,
    /// The schemes of a URL that means it.
    pub schemes: &'static [&'static str],
    /// What its servers' containers look like, if it has servers.
    pub image: Option<image::Image>,
    /// What is counted in its dumps, in words: `2 tables, 3001 rows`.
    pub summary: fn(&Counts) -> String,
    /// A fresh inspector of its dumps.
    pub inspector: fn() -> Box<dyn Inspector>,
    /// Takes a database's settings, checks them, and contacts nothing.
    pub open: fn(Settings) -> Result<Box<dyn Engine>>,
}

impl fmt::Debug for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The engine of that name, if it is built in.
pub fn kind(name: &str) -> Option<&'static EngineKind> {
    REGISTRY.iter().find(|kind| kind.name == name)
}

/// What was counted in a dump of that engine, in its own words.
pub fn summary(engine: &str, counts: &Counts) -> String {
    kind(engine).map_or(summary_of_tables as fn(&Counts) -> String, |kind| kind.summary)(counts)
}

/// The same for SQL engines.
pub fn summary_of_tables(counts: &Counts) -> String {
    let rows = count(counts.values().flatten().sum(), "row", "rows");
    format!("{}, {rows}", count(counts.len() as u64, "table", "tables"))
}

/// How one database is reached, secrets fetched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in the configuration.
    pub database: String,
    /// `[databases.NAME] url`, which may hold a password.
    pub url: Secret,
    /// `[databases.NAME] password`; it wins over the one in the URL.
    pub password: Option<Secret>,
    /// Words put before every tool, so that it runs where the server runs; none: the tools run here.
    pub exec: Vec<String>,
    /// Where the engine's tools are, if not on the path.
    pub tools_dir: Option<PathBuf>,
    /// More arguments for the dump tool.
    pub dump_args: Vec<String>,
    /// More arguments for the restore tool.
    pub restore_args: Vec<String>,
    /// Whether this is another server than the configured one, so that nothing there is the live database.
    pub elsewhere: bool,
}

impl Settings {
    /// Of a database that is reached by its URL and says nothing else.
    pub fn new(database: impl Into<String>, url: Secret) -> Self {
        Self {
            database: database.into(),
            url,
            password: None,
            exec: Vec::new(),
            tools_dir: None,
            dump_args: Vec::new(),
            restore_args: Vec::new(),
            elsewhere: false,
        }
    }
}

/// What is counted in a dump, in its own order of names: rows by table for SQL engines. `None` stands for a table
/// whose rows can't be counted in the stream.
pub type Counts = BTreeMap<String, Option<u64>>;

/// What the inspector has found in a whole dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// What marks the end of this engine's dumps, as it was seen.
    pub end_mark: String,
    /// Version of the tool that wrote it, where the dump says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_version: Option<String>,
    /// Version of the server it was taken from, where the dump says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_version: Option<String>,
    /// Tables and rows.
    #[serde(default)]
    pub counts: Counts,
}

/// Reads a dump as it passes, down to its end mark. Never buffers the dump.
pub trait Inspector: Send {
    /// The next bytes.
    ///
    /// # Errors
    /// [`Kind::Tool`] when they can't stand there in a dump of this engine.
    fn feed(&mut self, bytes: &[u8]) -> Result<()>;

    /// The end of the stream.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the dump is empty or is not whole.
    fn finish(&mut self) -> Result<Findings>;
}

/// A dump on its way.
pub struct Dump {
    /// Its bytes.
    pub stream: Box<dyn Read + Send>,
    /// What was counted in the very snapshot that is dumped, by engines whose dumps can't be counted as they pass; the
    /// others leave it empty and their inspector counts.
    pub counts: Counts,
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// What a look at tool and server found before anything runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Probe {
    /// The dump tool's version.
    pub tool_version: Option<String>,
    /// The server's version.
    pub server_version: Option<String>,
    /// What the operator should know but need not mend.
    pub warnings: Vec<String>,
}

/// One database of one engine.
pub trait Engine: Send + Sync {
    /// Names the database for messages; never a secret.
    fn describe(&self) -> String;

    /// Looks whether the tools are there and fit the server, and whether the database answers.
    ///
    /// # Errors
    /// [`Kind::Tool`] with the mend.
    fn probe(&self, cx: &Cx) -> Result<Probe>;

    /// Starts a dump. Every failure of the tool is an error of the stream, at its end at the latest. The caller sends
    /// it through the kind's inspector.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be started.
    fn dump(&self, cx: &Cx) -> Result<Dump>;

    /// The option of the dump tool that leaves a part of the database out of its dumps, if there is one: such a backup
    /// never takes the place of the whole.
    fn partial(&self) -> Option<String> {
        None
    }

    /// The option by which its dumps hold less than the database does, be it only rows: such a dump can't stand in for what a
    /// restore replaces.
    fn leaves_out(&self) -> Option<String> {
        self.partial()
    }

    /// The same database for a dump of what a restore at work is about to replace, where that takes what is no backup; else
    /// it is taken as any other.
    fn for_keeping(&self) -> Option<Arc<dyn Engine>> {
        None
    }

    /// The steps of a restore with their exact commands, secrets left out, for `--dry-run`.
    fn plan(&self, destination: &Destination) -> Vec<String>;

    /// The same for one restore: the server may be asked, where the way depends on what it allows.
    fn plan_for(&self, request: &Request, cx: &Cx) -> Vec<String> {
        let _ = cx;
        self.plan(&request.destination)
    }

    /// Whether a restore can load several parts of a dump at once.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the reason when it can't.
    fn loads_in_parallel(&self) -> Result<()> {
        Err(Error::new(Kind::Usage, "--jobs: only PostgreSQL loads a backup in parallel").hint("leave --jobs out"))
    }

    /// Loads `dump` beside the live database, compares it with `expected`, and only after the stream has ended well
    /// puts it where it belongs; for a drill it then asks the request's checks. On any error the live database is as it was and the scratch is gone.
    ///
    /// # Errors
    /// The stream's own error, or [`Kind::Tool`].
    fn restore(&self, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored>;

    /// The size of the live database in bytes, where it can be told without asking a server.
    fn live_bytes(&self) -> Option<u64> {
        None
    }

    /// What earlier restores in place have left standing at the server, so that it can be put back. Engines of whose
    /// databases a dump is kept instead have none.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked.
    fn previous(&self, _cx: &Cx) -> Result<Vec<Previous>> {
        Ok(Vec::new())
    }

    /// Exchanges the live database for one of [`Engine::previous`]; with `keep`, the one that stood is kept in its turn.
    ///
    /// # Errors
    /// [`Kind::Tool`]; both are then as they were.
    fn undo(&self, previous: &Previous, _keep: Option<&Keep>, _cx: &Cx) -> Result<Restored> {
        Err(Error::new(Kind::Tool, format!("{} can't be put back", previous.name)))
    }

    /// The steps of [`Engine::undo`], as [`Engine::plan`] gives those of a restore.
    fn plan_undo(&self, _previous: &Previous) -> Vec<String> {
        Vec::new()
    }

    /// Drops one of [`Engine::previous`]; that it is gone already is success.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be dropped.
    fn forget(&self, _previous: &Previous, _cx: &Cx) -> Result<()> {
        Ok(())
    }
}

/// Passes a dump through and shows it to an inspector. At the end of the stream the inspector has its say: an
/// incomplete dump is a read error that stays.
pub struct Inspected<R> {
    inner: R,
    inspector: Box<dyn Inspector>,
    end: Option<Result<()>>,
    findings: FindingsCell,
}

/// Where the findings of an [`Inspected`] stream appear once it has ended well.
#[derive(Clone, Debug, Default)]
pub struct FindingsCell(Arc<Mutex<Option<Findings>>>);

impl FindingsCell {
    /// The findings, once the stream has ended well.
    pub fn take(&self) -> Option<Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R: Read> Inspected<R> {
    /// Shows what `inner` gives to `inspector`.
    pub fn new(inner: R, inspector: Box<dyn Inspector>) -> Self {
        Self { inner, inspector, end: None, findings: FindingsCell::default() }
    }

    /// Where the findings will be.
    pub fn findings(&self) -> FindingsCell {
        self.findings.clone()
    }
}

impl<R> fmt::Debug for Inspected<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspected").field("end", &self.end).finish_non_exhaustive()
    }
}

impl<R: Read> Read for Inspected<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| 0).map_err(Error::into_io);
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let end = match self.inner.read(buffer) {
            Ok(0) => self.inspector.finish().map(|found| {
                *self.findings.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            }),
            Ok(count) => match self.inspector.feed(buffer.get(..count).unwrap_or_default()) {
                Ok(()) => return Ok(count),
                Err(error) => Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Err(Error::from_io(error, Kind::Tool, "can't read the dump")),
        };
        self.end = Some(end.clone());
        end.map(|()| 0).map_err(Error::into_io)
    }
}
