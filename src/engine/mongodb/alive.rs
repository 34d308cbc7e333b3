//! Whether a restore lives. Flows in: the restores that have left a mark in a database. Flows out: a sign of life in ours for
//! as long as it is at work, and which of the others have ended. Touches one file of each restore in `data_dir`, which is
//! locked while that lives, and the server, through the shell.
//!
//! On one host the lock tells at once that a restore was killed. Of those of other hosts the server tells when they gave
//! their last sign of life, by its own clock.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::tools::Tools;
use crate::engine::Cx;
use crate::error::{Error, Kind, Result, io_reason};
use crate::world::World;

/// How long after its last sign of life a restore of another host counts as dead.
pub const LAPSE: Duration = Duration::from_secs(300);
/// How often a living one gives a sign.
const EVERY: Duration = Duration::from_secs(30);
/// How long that may take.
const ANSWER: Duration = Duration::from_secs(60);
/// How often the thread looks whether it is over.
const TICK: Duration = Duration::from_millis(50);
const STEM: &str = "mongodb-";
const ENDING: &str = ".restoring";

/// For how long a file is kept whose restore's mark is not found: its signs of life have ended long before.
const KEPT: TimeDelta = TimeDelta::days(1);

/// The lock of a restore, which says on this host that it lives. Its file stays, and says that it has ended, unless nothing of
/// the restore is left.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock of the restore `hex`.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the file can't be made.
    pub fn take(folder: &Path, hex: &str) -> Result<Self> {
        let path = folder.join(format!("{STEM}{hex}{ENDING}"));
        let failed = |error: &std::io::Error| {
            Error::new(Kind::Tool, format!("can't make and lock {}: {}", path.display(), io_reason(error)))
        };
        // It gets its name when it is locked: nobody finds it free in between.
        let make = || {
            std::fs::create_dir_all(folder)?;
            let file = tempfile::NamedTempFile::new_in(folder)?;
            file.as_file().lock()?;
            file.persist_noclobber(&path).map_err(|error| error.error)
        };
        let file = make().map_err(|error| failed(&error))?;
        Ok(Self { path, _file: file })
    }
}

impl Lock {
    /// Nothing of the restore is left.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes the files of restores that have ended: of those that were `cleared`, and old ones.
pub fn sweep(ended: &[(String, PathBuf)], cleared: &[String], now: DateTime<Utc>) {
    let is_old = |path: &PathBuf| {
        let modified = path.metadata().and_then(|meta| meta.modified());
        modified.is_ok_and(|at| now.signed_duration_since(DateTime::<Utc>::from(at)) > KEPT)
    };
    for (_, path) in ended.iter().filter(|(hex, path)| cleared.contains(hex) || is_old(path)) {
        let _ = std::fs::remove_file(path);
    }
}

/// The restores of this host whose locks are free, by what tells them from others, with their files.
pub fn ended(folder: &Path) -> Vec<(String, PathBuf)> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        Some(name.strip_prefix(STEM)?.strip_suffix(ENDING)?.to_owned())
    };
    let is_free = |path: &PathBuf| {
        // Shared: two that look at once don't take each other for the owner.
        File::open(path).is_ok_and(|file| !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    names.filter_map(|path| Some((of(&path)?, path))).filter(|(_, path)| is_free(path)).collect()
}

/// Gives signs of life until it is dropped.
#[derive(Debug)]
pub struct Signs {
    over: Arc<AtomicBool>,
    world: World,
    thread: Option<JoinHandle<()>>,
}

impl Signs {
    /// For the restore `hex`, whose mark is in `database`.
    pub fn give(tools: &Tools, database: &str, hex: &str, cx: &Cx) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let world = cx.world.for_cleanup();
        let (tools, cx, its) = (tools.clone(), Cx { world: world.clone(), ..cx.clone() }, Arc::clone(&over));
        let request = json!({ "action": "beat", "database": database, "hex": hex });
        let thread = std::thread::spawn(move || {
            let clock = &cx.world.clock;
            let mut next = clock.monotonic() + EVERY;
            while !its.load(Ordering::SeqCst) {
                if clock.monotonic() < next {
                    clock.sleep(TICK);
                    continue;
                }
                let deadline = Some(clock.monotonic() + ANSWER);
                // One that does not arrive is given again; whether the mark still stands is looked at before the exchange.
                drop(tools.ask::<Value>(request.clone(), &Cx { deadline, ..cx.clone() }));
                next = clock.monotonic() + EVERY;
            }
        });
        Self { over, world, thread: Some(thread) }
    }
}

impl Drop for Signs {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.world.cancel.stop(15);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_the_living_alone() {
        let folder = tempfile::tempdir().unwrap();
        let found = || ended(folder.path()).into_iter().map(|(hex, _)| hex).collect::<Vec<_>>();
        std::fs::write(folder.path().join("mongodb-0badcafe.restoring"), "").unwrap();
        std::fs::write(folder.path().join("redis-0badcafe.restoring"), "").unwrap();
        let held = Lock::take(folder.path(), "01234567").unwrap();
        assert_eq!(found(), ["0badcafe"]);
        Lock::take(folder.path(), "01234567").unwrap_err();
        drop(held);
        assert_eq!(std::collections::BTreeSet::from_iter(found()).len(), 2, "it ended, and has left something");
        let now = Utc::now();
        sweep(&ended(folder.path()), &["01234567".to_owned()], now);
        assert_eq!(found(), ["0badcafe"]);
        sweep(&ended(folder.path()), &[], now + TimeDelta::hours(25));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        Lock::take(folder.path(), "01234567").unwrap().remove();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(ended(&folder.path().join("none")).is_empty());
    }
}
