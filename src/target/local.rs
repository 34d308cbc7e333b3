//! The local disk. Flows in and out: objects as files, 0600, in folders, 0700. Touches the folder of the target: a file
//! is written under a temporary name, synced, given its name without overwriting, and the folder is synced.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

use super::patient::{Patient, STALL};
use super::{Cause, Opener, Stored, Target, TargetError, TargetKind};
use crate::config::table::Table;
use crate::error::{Error, io_reason};
use crate::format::name::ObjectKey;
use crate::format::time;

/// The local kind.
pub const KIND: TargetKind = TargetKind { name: "local", is_local: true, has_records: false, read };
/// How unfinished files begin. No key of ours does.
const PARTIAL: &str = ".voxeltron-partial-";
/// How much is copied at a time, in bytes.
const COPY_BYTES: usize = 256 * 1024;

fn read(table: &mut Table<'_>, prefix: &str) -> Opener {
    let (name, prefix) = (table.name().to_owned(), prefix.to_owned());
    let path = table.required_string("path").map(PathBuf::from);
    if path.as_ref().is_some_and(|path| path.is_relative()) {
        table.problem("path", "is not an absolute path", "begin it with /");
    }
    let root = path.unwrap_or_default().join(prefix);
    Arc::new(move |cx| Ok(Box::new(Patient::new(Local::new(&name, &root), STALL, cx.world.clone()))))
}

/// A folder that keeps objects.
#[derive(Debug)]
pub struct Local {
    name: String,
    root: PathBuf,
    /// Counts up with each file that was looked at or removed.
    moved: AtomicU64,
}

impl Local {
    /// Keeps objects below `root`; `name` is the target's in the configuration.
    pub fn new(name: &str, root: &Path) -> Self {
        Self { name: name.to_owned(), root: root.to_owned(), moved: AtomicU64::new(0) }
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn fail(&self, what: &str, path: &Path, error: &io::Error) -> TargetError {
        let cause = match error.kind() {
            io::ErrorKind::NotFound => Cause::NotFound,
            io::ErrorKind::AlreadyExists => Cause::Exists,
            _ => Cause::Failed,
        };
        let message = format!("target {}: can't {what} {}: {}", self.name, path.display(), io_reason(error));
        let failure = TargetError::new(cause, message);
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                failure.hint(format!("look at the owner and the mode of {}", self.root.display()))
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                failure.hint("mount it for writing, or allow the path in the unit's ReadWritePaths")
            }
            _ => failure,
        }
    }

    /// A full disk is said with what was there and what is left.
    fn full(&self, path: &Path, error: &io::Error, written: u64) -> TargetError {
        let failure = self.fail("write", path, error);
        if !matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        ) {
            return failure;
        }
        let free = rustix::fs::statvfs(&self.root).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        failure.hint(format!(
            "{} of this backup had been written and were removed again, {} are free now; make room, or keep fewer backups",
            time::bytes(written),
            time::bytes(free),
        ))
    }

    /// Makes the folder and what is missing above it, each one synced into its parent.
    fn make_folder(&self, folder: &Path) -> Result<(), TargetError> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_folder(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(self.fail("create", folder, &error)),
            _ => folder.parent().map_or(Ok(()), |parent| self.sync(parent)),
        }
    }

    fn sync(&self, folder: &Path) -> Result<(), TargetError> {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| self.fail("sync", folder, &error))
    }

    /// Files below `folder`, unfinished ones too; a folder that goes away meanwhile has nothing in it.
    fn walk(&self, folder: &Path, found: &mut Vec<(PathBuf, fs::Metadata)>) -> Result<(), TargetError> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != self.root => return Ok(()),
            other => other.map_err(|error| self.missing_root(folder, &error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| self.fail("list", folder, &error))?;
            self.moved.fetch_add(1, Ordering::Relaxed);
            let kind = entry.file_type().map_err(|error| self.fail("list", &entry.path(), &error))?;
            if kind.is_dir() || (kind.is_symlink() && self.is_linked(&entry.path())?) {
                self.walk(&entry.path(), found)?;
            } else if kind.is_file() {
                match entry.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(self.fail("list", &entry.path(), &error)),
                    Ok(meta) => found.push((entry.path(), meta)),
                }
            }
        }
        Ok(())
    }

    /// Whether a link stands for an instance's or a database's folder, which may well be kept on another disk: then what
    /// `put` writes there is listed, too. Links elsewhere are none of ours, and could lead anywhere.
    fn is_linked(&self, path: &Path) -> Result<bool, TargetError> {
        let Ok(name) = path.strip_prefix(&self.root) else { return Ok(false) };
        if name.components().count() > 2 || name.to_str().is_none_or(|name| ObjectKey::new(name).is_err()) {
            return Ok(false);
        }
        // One that leads nowhere is a disk that is not mounted, not an empty folder.
        fs::metadata(path).map(|meta| meta.is_dir()).map_err(|error| self.missing_root(path, &error))
    }

    fn missing_root(&self, folder: &Path, error: &io::Error) -> TargetError {
        let failure = self.fail("list", folder, error);
        match error.kind() {
            io::ErrorKind::NotFound => failure.hint("is the disk mounted? the first backup creates the folder"),
            _ => failure,
        }
    }

    fn below(&self, prefix: &str) -> Result<Vec<(PathBuf, fs::Metadata)>, TargetError> {
        let mut found = Vec::new();
        let folder = prefix.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| ObjectKey::new(*folder).is_ok());
        if !self.root.is_dir() {
            // Said even when only a part is asked for: a disk that is not mounted is not an empty one.
            fs::read_dir(&self.root).map_err(|error| self.missing_root(&self.root, &error))?;
        }
        self.walk(&folder.map_or_else(|| self.root.clone(), |folder| self.root.join(folder)), &mut found)?;
        Ok(found)
    }
}

fn modified(meta: &fs::Metadata) -> Option<DateTime<Utc>> {
    meta.modified().ok().map(DateTime::from)
}

impl Target for Local {
    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.root.display())
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        self.make_folder(&folder)?;
        // It removes itself when anything below fails.
        let mut file = tempfile::Builder::new()
            .prefix(PARTIAL)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&folder)
            .map_err(|error| self.full(&folder, &error, 0))?;
        let mut buffer = vec![0u8; COPY_BYTES];
        let mut size = 0u64;
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TargetError::body(error)),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if let Err(error) = file.write_all(bytes) {
                // Removed first, so that what is said to be free includes it.
                drop(file);
                return Err(self.full(&path, &error, size));
            }
            size += count as u64;
        }
        let meta = match file.as_file().sync_all().and_then(|()| file.as_file().metadata()) {
            Ok(meta) => meta,
            Err(error) => {
                drop(file);
                return Err(self.full(&path, &error, size));
            }
        };
        if meta.len() != size {
            let message =
                format!("target {}: {} has {} bytes after {size} were written", self.name, path.display(), meta.len());
            return Err(TargetError::new(Cause::Failed, message));
        }
        file.persist_noclobber(&path).map_err(|failure| self.fail("create", &path, &failure.error))?;
        self.sync(&folder)?;
        Ok(Stored { key: key.clone(), size, modified: modified(&meta) })
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        let path = self.path(key);
        // Opened without waiting: a pipe that somebody has put there would hold us for ever.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(flags).open(&path);
        let opened = opened.and_then(|file| file.metadata().map(|meta| (file, meta)));
        let (file, meta) = opened.map_err(|error| self.fail("read", &path, &error))?;
        if !meta.is_file() {
            let message = format!("target {}: can't read {}: it is not a file", self.name, path.display());
            return Err(TargetError::new(Cause::Failed, message).hint("find out who put it there, and move it away"));
        }
        let what = format!("target {}: can't read {}", self.name, path.display());
        Ok(Box::new(Reading { file, what, size: meta.len(), taken: 0 }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        let mut stored: Vec<Stored> = self
            .below(prefix)?
            .into_iter()
            .filter_map(|(path, meta)| {
                let name = path.strip_prefix(&self.root).ok()?.to_str()?;
                let ours = name.starts_with(prefix) && !path.file_name()?.to_str()?.starts_with(PARTIAL);
                let key = ObjectKey::new(name).ok().filter(|_| ours)?;
                Some(Stored { key, size: meta.len(), modified: modified(&meta) })
            })
            .collect();
        stored.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(stored)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        let path = self.path(key);
        self.moved.fetch_add(1, Ordering::Relaxed);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.fail("delete", &path, &error)),
            Ok(()) => path.parent().map_or(Ok(()), |folder| self.sync(folder)),
        }
    }

    fn sweep(&self, prefix: &str, before: DateTime<Utc>) -> Result<usize, TargetError> {
        let mut swept = 0;
        for (path, meta) in self.below(prefix)? {
            let partial = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PARTIAL));
            if partial && modified(&meta).is_some_and(|at| at < before) {
                self.moved.fetch_add(1, Ordering::Relaxed);
                fs::remove_file(&path).map_err(|error| self.fail("delete", &path, &error))?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// A file whose read errors say which file it was. One that somebody cuts while it is read is an error, not an end.
struct Reading {
    file: File,
    what: String,
    /// How long it was when it was opened.
    size: u64,
    taken: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let failed = |error| Error::from_io(error, crate::error::Kind::Target, &self.what).into_io();
        let count = self.file.read(buffer).map_err(failed)?;
        if count == 0 && !buffer.is_empty() && self.taken < self.size {
            let why = format!("it was cut while it was read: it ended after {} of {} bytes", self.taken, self.size);
            return Err(Error::new(crate::error::Kind::Target, format!("{}: {why}", self.what)).into_io());
        }
        self.taken += count as u64;
        Ok(count)
    }
}
