//! What is written down of kept databases, so that they are dropped in time and a tick that has nothing to drop contacts
//! nobody. Flows in: what a restore has kept. Flows out: the same later. Touches `previous.json` in `data_dir`.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::engine::Previous;
use crate::error::{Error, Result};
use crate::format::time::{serde_rfc3339, serde_rfc3339_option};
use crate::schedule::files::{self, Durable};
use crate::schedule::tick;

const NAME: &str = "previous.json";
const LOCK: &str = "previous.lock";
const VERSION: u32 = 1;
const MAX_BYTES: u64 = 1 << 20;

/// A database as it was before a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What it is called at the server, or the id of its dump.
    pub name: String,
    /// When it was replaced.
    #[serde(with = "serde_rfc3339")]
    pub since: DateTime<Utc>,
    /// Whether it stands at the server; else a dump of it is in `data_dir`.
    pub on_server: bool,
    /// Its size there, where it is known.
    pub bytes: Option<u64>,
}

impl Kept {
    /// As the engine knows it.
    pub fn as_previous(&self) -> Previous {
        Previous { name: self.name.clone(), since: self.since }
    }
}

/// What is remembered of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// When a restore began that may have kept something, and has not said what.
    #[serde(with = "serde_rfc3339_option", default)]
    pub begun: Option<DateTime<Utc>>,
    /// What is kept.
    #[serde(default)]
    pub kept: Option<Kept>,
    /// When it is to be looked at again, after it could not be dropped.
    #[serde(with = "serde_rfc3339_option", default)]
    pub not_before: Option<DateTime<Utc>>,
    /// What an undo that has not ended well was putting back: the next one goes on with it, whatever was kept since.
    #[serde(default)]
    pub undoing: Option<String>,
    /// What is kept beside it: the same from before earlier restores, of which one did not end.
    #[serde(default)]
    pub others: Vec<Kept>,
    /// When a restore began, the first of them, of which nobody knows how it ended: killed, or failed half-way. What was kept
    /// by it and before it may be the only copy of what the operator wants back, so it goes by its time alone.
    #[serde(with = "serde_rfc3339_option", default)]
    pub unended: Option<DateTime<Utc>>,
    /// For how many seconds it is kept, where the configuration does not say so any more.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// What is remembered of all.
pub type All = BTreeMap<String, Past>;

#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    databases: All,
}

/// The file.
#[derive(Debug)]
pub struct Record {
    folder: PathBuf,
}

impl Record {
    /// That of this host.
    pub fn of(app: &App) -> Self {
        Self { folder: app.cx.data_dir.clone() }
    }

    /// What it says; nothing, if there is none.
    ///
    /// # Errors
    /// When it can't be read or understood.
    pub fn read(&self) -> Result<All> {
        let path = self.folder.join(NAME);
        let Some(bytes) = files::read(&path, MAX_BYTES)? else { return Ok(All::new()) };
        self.parse(&bytes)
    }

    fn parse(&self, bytes: &[u8]) -> Result<All> {
        let path = self.folder.join(NAME);
        let wrong = |why: String| {
            Error::other(format!("{} can't be understood: {why}", path.display()))
                .hint("move it away; what restores have kept is then dropped by the next restore of each database")
        };
        let text: Text = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        match text.version {
            VERSION => Ok(text.databases),
            other => Err(wrong(format!("it has version {other}, and this program knows {VERSION}"))),
        }
    }

    /// Changes it: one process at a time, all of it or nothing; one that can't be understood begins anew. The next tick looks
    /// properly.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn update(&self, change: impl FnOnce(&mut All)) -> Result<()> {
        files::make_folder(&self.folder)?;
        let path = self.folder.join(LOCK);
        // Held until the end of this function; others hold it for some milliseconds.
        let lock = files::open_lock(&path)?;
        while let Err(error) = lock.lock() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(files::failed("lock", &path, error));
            }
        }
        // A restore can't wait for somebody to mend this file.
        let bytes = files::read(&self.folder.join(NAME), MAX_BYTES)?;
        let before = bytes.map(|bytes| self.parse(&bytes).unwrap_or_default()).unwrap_or_default();
        let mut databases = before.clone();
        change(&mut databases);
        if databases == before {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&Text { version: VERSION, databases })
            .map_err(|error| Error::other(format!("can't write {NAME}: {error}")))?;
        files::replace(&self.folder, NAME, &text, Durable::Yes)?;
        tick::forget(&self.folder);
        Ok(())
    }
}
