//! Settings of the server that a restore changes for its time. Flows in: which, and to what. Flows out: nothing; at the end
//! every one is as it was. Touches the server, through the tools, and one file in `data_dir`, 0600.
//!
//! The file says what is to be put back before anything is changed, so that a restore that was killed is put in order by the
//! next one. It is locked while its restore lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::server::{Facts, setting};
use super::tools::{Tool, Tools};
use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result};

/// One setting: its name, what it was, what the restore makes of it, which may be a token. No password is ever changed.
#[derive(Clone, Serialize, Deserialize)]
struct Change {
    name: String,
    old: String,
    new: String,
}

impl Drop for Change {
    fn drop(&mut self) {
        self.old.zeroize();
        self.new.zeroize();
    }
}

/// What the file holds.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// Where the restore listens, as the server sees it: host and port.
    master: String,
    changes: Vec<Change>,
}

/// The changes of one restore. Dropped, it puts them back; see [`Changed::put_back`].
pub struct Changed<'a> {
    tools: &'a Tools,
    client: Tool,
    cx: Cx,
    path: PathBuf,
    file: File,
    record: Record,
}

impl std::fmt::Debug for Changed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changed").field("path", &self.path).finish_non_exhaustive()
    }
}

fn path(tools: &Tools, folder: &Path) -> PathBuf {
    let digest = crate::format::hex(&Sha256::digest(tools.place.server().as_bytes()));
    folder.join(format!("redis-{}.restoring", digest.get(..16).unwrap_or_default()))
}

/// Whether a restore is on its way, or was killed and has left the server with changed settings.
pub fn is_left(tools: &Tools, folder: &Path) -> bool {
    path(tools, folder).metadata().is_ok_and(|meta| meta.len() > 0)
}

impl<'a> Changed<'a> {
    /// Takes the lock, and puts back what a killed restore has left; says whether it had to.
    ///
    /// # Errors
    /// [`Kind::Tool`] when another restore is running, the file can't be written, or the server can't be put in order.
    pub fn open(tools: &'a Tools, client: &Tool, cx: &Cx) -> Result<(Self, bool)> {
        let path = path(tools, &cx.data_dir);
        let failed = || format!("can't write {}", path.display());
        std::fs::create_dir_all(&cx.data_dir).doing(Kind::Tool, failed())?;
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .doing(Kind::Tool, failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another restore of {} is running", tools.place.server());
                return Err(Error::new(Kind::Tool, message).hint("wait for its end"));
            }
            Err(TryLockError::Error(error)) => return Err(error).doing(Kind::Tool, failed()),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).doing(Kind::Tool, failed())?;
        // One that is cut was being written: nothing had been changed yet.
        let record = serde_json::from_str(&text).unwrap_or_default();
        text.zeroize();
        let cleanup = crate::engine::tools::for_cleanup(cx, super::CLEANUP);
        let mut this = Self { tools, client: client.clone(), cx: cleanup, path, file, record };
        let left = !this.record.changes.is_empty();
        this.put_back()?;
        Ok((this, left))
    }

    /// Changes these settings, those that the server has not got or that are so already left out.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server says no; what was changed is put back.
    pub fn change(&mut self, master: &str, wanted: &[(&str, &str)], cx: &Cx) -> Result<()> {
        let mut changes = Vec::new();
        for (name, new) in wanted {
            let old = setting(self.tools, &self.client, name, cx)?;
            if let Some(old) = old.filter(|old| old != new) {
                changes.push(Change { name: (*name).to_owned(), old, new: (*new).to_owned() });
            }
        }
        self.record = Record { master: master.to_owned(), changes };
        self.write()?;
        self.cx.deadline = None;
        for change in &self.record.changes {
            self.tools.ask(&self.client, ["CONFIG", "SET", &change.name, &change.new], cx)?;
        }
        Ok(())
    }

    /// Writes the record, and sees that it is on the disk.
    fn write(&mut self) -> Result<()> {
        let failed = || format!("can't write {}", self.path.display());
        let mut text =
            serde_json::to_vec(&self.record).map_err(|error| Error::other(format!("{}: {error}", failed())))?;
        let mut file = &self.file;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(&text))
            .and_then(|()| file.sync_all());
        text.zeroize();
        written.doing(Kind::Tool, failed())
    }

    /// Puts the server back: follows nobody of ours any more, and every setting that still is what the restore made of it is
    /// what it was before. Once that is done, the file is empty.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked or says no; the file keeps what is to be done.
    pub fn put_back(&mut self) -> Result<()> {
        if self.record.changes.is_empty() && self.record.master.is_empty() {
            return Ok(());
        }
        let world = &self.cx.world;
        let cx = Cx { deadline: Some(world.clock.monotonic() + super::CLEANUP), ..self.cx.clone() };
        let facts = Facts::ask(self.tools, &self.client, &cx)?;
        if facts.is_replica() && facts.master() == self.record.master {
            self.tools.ask(&self.client, ["REPLICAOF", "NO", "ONE"], &cx)?;
        }
        for change in &self.record.changes {
            // The server had it when it was changed: no value is no word that somebody else has changed it since.
            let now = setting(self.tools, &self.client, &change.name, &cx)?.ok_or_else(|| {
                let message = format!("CONFIG GET {}: the server gives no value", change.name);
                let path = self.path.display();
                Error::new(Kind::Tool, message).hint(format!("if another server is there by now, remove {path}"))
            })?;
            if now == change.new {
                self.tools.ask(&self.client, ["CONFIG", "SET", &change.name, &change.old], &cx)?;
            }
        }
        self.record = Record::default();
        self.file.set_len(0).doing(Kind::Tool, format!("can't write {}", self.path.display()))
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        match self.put_back() {
            // Removed while it is locked: whoever comes next makes a new one.
            Ok(()) => drop(std::fs::remove_file(&self.path)),
            Err(error) => self.cx.report.warn(&format!(
                "{}: the settings that the restore changed could not be put back: {error}; the next restore does it, by {}",
                self.tools.place.server(),
                self.path.display()
            )),
        }
    }
}
