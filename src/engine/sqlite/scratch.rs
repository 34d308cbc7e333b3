//! Private folders for temporary copies: 0700, named so that they are swept, locked while in use, gone when dropped.
//! Flows in: the folder they are to stand in. Flows out: paths. Touches that folder. A folder rather than a file, since
//! SQLite may put a journal beside a copy, and because the lock must not be on the copy itself: closing any descriptor
//! of a database drops SQLite's own locks on it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result};

/// How a scratch folder's name begins.
const PREFIX: &str = ".voxeltron-partial-sqlite-";
/// The lock that says that it is in use.
const LOCK: &str = "lock";
/// How old an unlocked one must be before it is taken for a killed run's. Between making the folder and locking it
/// a run has none. No longer, for it may hold a whole database in the clear.
const SWEEP_AFTER: TimeDelta = TimeDelta::minutes(10);

/// A private folder that goes when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in `parent`, and sweeps what killed runs left there.
    pub(super) fn new(parent: &Path, cx: &Cx) -> Result<Self> {
        let shown = parent.display();
        let make = |folder: &Path| DirBuilder::new().mode(0o700).recursive(folder == parent).create(folder);
        make(parent).doing(Kind::Tool, format!("can't create the folder {shown} for a temporary copy"))?;
        sweep(parent, cx);
        let folder = parent.join(format!("{PREFIX}{}", cx.world.random_hex(8)?));
        let failed = |error| Error::from_io(error, Kind::Tool, format!("can't make a temporary copy in {shown}"));
        make(&folder).map_err(failed)?;
        let lock = new_file(&folder.join(LOCK)).and_then(|lock| {
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok(lock)
        });
        match lock {
            Ok(lock) => Ok(Self { folder, _lock: lock }),
            Err(error) => {
                drop(fs::remove_dir_all(&folder));
                Err(failed(error))
            }
        }
    }

    /// A new, empty file in it, 0600, open for writing.
    pub(super) fn file(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.folder.join(name);
        let file = new_file(&path).doing(Kind::Tool, format!("can't create {}", path.display()))?;
        Ok((path, file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is swept later.
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Removes the scratch folders of killed runs from `parent`: old enough, ours, and not locked. Best effort: a sweep
/// that fails must not fail a backup.
pub fn sweep(parent: &Path, cx: &Cx) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let before = cx.world.clock.now() - SWEEP_AFTER;
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if named && is_abandoned(&entry.path(), before) && fs::remove_dir_all(entry.path()).is_ok() {
            cx.report.detail(&format!("removed {}, which a killed run had left", entry.path().display()));
        }
    }
}

fn is_abandoned(folder: &Path, before: DateTime<Utc>) -> bool {
    let Ok(meta) = fs::symlink_metadata(folder) else { return false };
    let ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
    let old = meta.modified().is_ok_and(|at| DateTime::<Utc>::from(at) < before);
    if !ours || !old {
        return false;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let lock = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(folder.join(LOCK));
    match lock {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
