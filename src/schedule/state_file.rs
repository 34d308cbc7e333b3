//! The file that keeps the state. Flows in: changes. Flows out: what is remembered. Touches `state.json`, the generation
//! before it (`state.json.bak`) and `state.lock` in the data folder.
//!
//! An empty state is not harmless: every job would be new and wait for its next slot, so a due one would be skipped. So
//! a state that can't be read is replaced by the generation before it, which at worst runs a slot again that is
//! published already; and only if that is gone too, it is empty, which is said: then [`crate::relearn`] asks the targets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::files::{self, Durable};
use super::state::{State, VERSION};
use crate::error::{Error, Result};
use crate::format::time;
use crate::report::Report;

/// The state.
pub const NAME: &str = "state.json";
/// The generation before it.
pub const BACKUP_NAME: &str = "state.json.bak";
const LOCK_NAME: &str = "state.lock";
/// The largest state that is read, in bytes: tens of thousands of jobs.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Where the state is kept.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
}

/// What a file holds.
enum Found {
    Nothing,
    /// The state, and its bytes.
    Good(State, Vec<u8>),
    /// Why it can't be understood.
    Corrupt(String),
}

impl StateFile {
    /// In this data folder, which the first change creates.
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// What is remembered, without changing a file; where the state can't be understood, the generation before it.
    ///
    /// # Errors
    /// When a file can't be read, or neither generation can be understood.
    pub fn read(&self) -> Result<State> {
        match (self.find(NAME)?, self.find(BACKUP_NAME)?) {
            (Found::Good(state, _), _) | (_, Found::Good(state, _)) => Ok(state),
            (Found::Nothing, Found::Nothing) => Ok(State::default()),
            (Found::Corrupt(why), _) | (_, Found::Corrupt(why)) => Err(self.corrupt(&why)),
        }
    }

    /// The same, where nothing but the state itself will do.
    ///
    /// # Errors
    /// As [`StateFile::read`], and when the state is missing though the generation before it is there.
    pub fn read_strict(&self) -> Result<State> {
        match self.find(NAME)? {
            Found::Good(state, _) => Ok(state),
            Found::Corrupt(why) => Err(self.corrupt(&why)),
            Found::Nothing => match self.find(BACKUP_NAME)? {
                Found::Nothing => Ok(State::default()),
                _ => Err(self.corrupt("it is missing, and the one before it is there")),
            },
        }
    }

    /// What is remembered; a state that can't be understood is set aside, which is said.
    ///
    /// # Errors
    /// As [`StateFile::update`].
    pub fn load(&self, report: &Report) -> Result<State> {
        self.update(report, |state| state.clone())
    }

    /// Changes the state: one process at a time, and either all of it or nothing.
    ///
    /// # Errors
    /// When a file can't be read or written.
    pub fn update<T>(&self, report: &Report, change: impl FnOnce(&mut State) -> T) -> Result<T> {
        files::make_folder(&self.folder)?;
        let path = self.folder.join(LOCK_NAME);
        // The first change of all leaves the lock file, and with it a state.
        let known = path.exists();
        // Held until the end of this function; others hold it for some milliseconds.
        let lock = files::open_lock(&path)?;
        while let Err(error) = lock.lock() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(files::failed("lock", &path, error));
            }
        }
        let (mut state, bytes) = self.recover(known, report)?;
        let before = state.clone();
        let value = change(&mut state);
        if state != before || bytes.is_none() {
            if let Some(bytes) = &bytes {
                files::replace(&self.folder, BACKUP_NAME, bytes, Durable::Yes)?;
            }
            let text = serde_json::to_vec_pretty(&state)
                .map_err(|error| Error::other(format!("can't write {}: {error}", self.path().display())))?;
            files::replace(&self.folder, NAME, &text, Durable::Yes)?;
        }
        Ok(value)
    }

    /// The state and its bytes; from the generation before it, or empty, where there is no other way. `known`: there has
    /// been a state.
    fn recover(&self, known: bool, report: &Report) -> Result<(State, Option<Vec<u8>>)> {
        let what = match self.find(NAME)? {
            Found::Good(state, bytes) => return Ok((state, Some(bytes))),
            Found::Corrupt(why) => Some(format!("can't be understood ({why}); it is now {}", self.set_aside()?)),
            Found::Nothing => None,
        };
        let path = self.path();
        if let Found::Good(state, bytes) = self.find(BACKUP_NAME)? {
            let what = what.unwrap_or_else(|| "is missing".to_owned());
            report.warn(&format!(
                "{} {what}; the one before it is used: a job may run its last slot again",
                path.display()
            ));
            files::replace(&self.folder, NAME, &bytes, Durable::Yes)?;
            return Ok((state, Some(bytes)));
        }
        let what = what.or_else(|| known.then(|| "is missing".to_owned()));
        if let Some(what) = what {
            report.warn(&format!(
                "{} {what}, and there is none before it: what the jobs have done is read off their targets",
                path.display()
            ));
        }
        Ok((State::default(), None))
    }

    fn find(&self, name: &str) -> Result<Found> {
        let path = self.folder.join(name);
        let Some(bytes) = files::read(&path, MAX_BYTES)? else { return Ok(Found::Nothing) };
        if bytes.len() as u64 > MAX_BYTES {
            return Ok(Found::Corrupt("it is too long".to_owned()));
        }
        // The version first: a newer program may have changed everything else.
        let version = match serde_json::from_slice::<Head>(&bytes) {
            Ok(head) => head.version,
            Err(error) => return Ok(Found::Corrupt(error.to_string())),
        };
        // Set aside like any other that can't be understood: a program that was put back to an older version must go on
        // with backups, and the manifests tell it what it needs.
        if version > VERSION {
            let why = format!("a newer voxeltron-backup has written it: it has version {version}, not {VERSION}");
            return Ok(Found::Corrupt(why));
        }
        match serde_json::from_slice(&bytes) {
            Ok(state) if version == VERSION => Ok(Found::Good(state, bytes)),
            Ok(_) => Ok(Found::Corrupt(format!("there is no version {version}"))),
            Err(error) => Ok(Found::Corrupt(error.to_string())),
        }
    }

    /// Gives a state that can't be understood another name, after the time it was written.
    fn set_aside(&self) -> Result<String> {
        let path = self.path();
        let written = fs::metadata(&path).and_then(|meta| meta.modified()).map(DateTime::<Utc>::from);
        let written = written.map(time::compact).map_err(|error| files::failed("read", &path, error))?;
        let aside = self.folder.join(format!("{NAME}.corrupt-{written}"));
        fs::rename(&path, &aside).map_err(|error| files::failed("set aside", &path, error))?;
        Ok(aside.display().to_string())
    }

    fn corrupt(&self, why: &str) -> Error {
        Error::other(format!("the state {} can't be understood: {why}", self.path().display()))
            .hint("the next schedule-check sets it aside and says what it goes on with")
    }
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}
