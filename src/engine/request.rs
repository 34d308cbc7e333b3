//! What is asked of an engine that restores, and what it says of it. Flows in: where a dump is to go, what it should hold, how
//! the live database is kept. Flows out: what stands then, and the steps on the way. Touches nothing but the report.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::checks::Check;
use super::{Counts, Cx};
use crate::error::Result;

/// The steps of every restore, in their order. What is selected and authenticated has been told before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The backup is loaded beside the live database, and authenticated on its way.
    Load,
    /// What was loaded is compared with what the backup should hold.
    Check,
    /// The live database is kept as it is.
    Keep,
    /// What was loaded takes its place.
    Swap,
    /// What is needed no more goes.
    Tidy,
}

impl Cx {
    /// Tells that a step begins: what is done, and to what.
    pub fn begins(&self, step: Step, what: &str) {
        self.report.step(step, self.world.clock.now(), what);
    }
}

/// Where a dump is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// In the place of the live database.
    InPlace,
    /// Beside it, under a name (for SQLite: a path) that must be free.
    Into(String),
    /// Into a scratch database that is counted and dropped.
    Drill,
}

/// What to restore and where.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it goes.
    pub destination: Destination,
    /// Counts that the loaded data must have; empty when there are none to compare.
    pub expected: Counts,
    /// The engine's server version at dump time, for messages.
    pub server_version: Option<String>,
    /// What a drill asks of the loaded data before it is dropped.
    pub checks: Vec<Check>,
    /// How many parts are loaded at once, by an engine that can; none: one stream, as it comes.
    pub jobs: Option<u16>,
    /// How much the dump will be, where that is known.
    pub dump_bytes: Option<u64>,
    /// How the database that is replaced is kept, so that it can be put back; in place alone.
    pub keep: Option<Keep>,
}

impl Request {
    /// Tells that a step begins: what is done, and to what.
    pub fn begins(&self, step: Step, what: &str, cx: &Cx) {
        match self.destination {
            // There may be a drill of every backup.
            Destination::Drill => cx.report.detail(what),
            _ => cx.begins(step, what),
        }
    }

    /// [`Aside::untouched`], where something is kept.
    pub fn untouched(&self) {
        self.keep.iter().for_each(Keep::untouched);
    }

    /// A restore to `destination` of which nothing else is said.
    pub fn new(destination: Destination, expected: Counts) -> Self {
        Self {
            destination,
            expected,
            server_version: None,
            checks: Vec::new(),
            jobs: None,
            dump_bytes: None,
            keep: None,
        }
    }
}

/// How a database that is about to be replaced is kept.
#[derive(Clone)]
pub struct Keep {
    /// The instant that it is kept under, in whole seconds.
    pub at: DateTime<Utc>,
    /// Takes a dump of it, for engines that can't let the database itself stand aside.
    pub aside: Arc<dyn Aside>,
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keep").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Keep {
    /// [`Aside::untouched`].
    pub fn untouched(&self) {
        self.aside.untouched(self.at);
    }

    /// [`Aside::room`].
    ///
    /// # Errors
    /// As there.
    pub fn room(&self) -> Result<()> {
        self.aside.room()
    }

    /// [`Aside::take`].
    ///
    /// # Errors
    /// As there.
    pub fn take(&self) -> Result<()> {
        self.aside.take(self.at)
    }
}

/// Keeps a dump of the live database.
pub trait Aside: Send + Sync {
    /// Looks whether there is room for it. An engine asks before it loads anything.
    ///
    /// # Errors
    /// [`Kind::Other`] with what is free and what is wanted.
    fn room(&self) -> Result<()>;

    /// Takes it, under that instant. An engine asks when all is loaded and checked, at the last moment before the live database changes.
    ///
    /// # Errors
    /// Whatever kept it from being whole; the engine must then change nothing.
    fn take(&self, at: DateTime<Utc>) -> Result<()>;

    /// Drops it again. An engine asks where a restore has failed and it knows that the live database is as it was: else what
    /// an earlier restore has replaced would be taken for older than this.
    fn untouched(&self, at: DateTime<Utc>);
}

/// A database as it was before a restore took its place, kept at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// What it is called there.
    pub name: String,
    /// When it was replaced.
    pub since: DateTime<Utc>,
}

/// What stands now.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Restored {
    /// What was counted in the loaded data before it took its place.
    pub counts: Counts,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// What of the backup is not there, which a note explains: the rest stands.
    pub missing: Vec<String>,
}
