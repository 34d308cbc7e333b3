//! Who may run a job now. Flows in: the job's name. Flows out: a lock that ends with the process, however that ends, or
//! who holds it. Touches `locks/` in the data folder.
//!
//! The lock is the system's (`flock`), on an open file that children don't inherit; what stands in the file only tells
//! people who it is. The file stays when the lock goes: removing it would let two processes lock two files of one name.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use chrono::{DateTime, Utc};

use super::files;
use crate::error::{Error, Kind, Result};
use crate::format::{name, time};

/// Where the locks are, in the data folder.
pub const FOLDER: &str = "locks";
/// More than anyone of ours writes into a lock file.
const MAX_HOLDER_BYTES: u64 = 200;

/// The process and since when, if the file says so.
type Holder = Option<(u32, DateTime<Utc>)>;

/// A job's lock, held as long as this lives.
#[derive(Debug)]
pub struct JobLock {
    file: File,
}

impl JobLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`Kind::Locked`] when another run holds it; others when the file can't be opened.
    pub fn acquire(data_dir: &Path, job: &str, now: DateTime<Utc>) -> Result<Self> {
        match Self::take(data_dir, job, now)? {
            Ok(lock) => Ok(lock),
            Err(holder) => {
                let mut error =
                    Error::new(Kind::Locked, format!("job {job}: another run holds its lock{}", shown(&holder)));
                if let Some((pid, _)) = &holder {
                    error = error.hint(format!("wait for it to end, or look at it with: ps -p {pid}"));
                }
                Err(error.hint("wait for it to end"))
            }
        }
    }

    /// Takes the lock; `None` when another run holds it.
    ///
    /// # Errors
    /// When the file can't be opened or locked.
    pub fn try_acquire(data_dir: &Path, job: &str, now: DateTime<Utc>) -> Result<Option<Self>> {
        Ok(Self::take(data_dir, job, now)?.ok())
    }

    fn take(data_dir: &Path, job: &str, now: DateTime<Utc>) -> Result<Result<Self, Holder>> {
        let folder = data_dir.join(FOLDER);
        files::make_folder(&folder)?;
        let path = folder.join(format!("{}.lock", name::encode(job)));
        let mut file = files::open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(holder(&mut file))),
            Err(TryLockError::Error(error)) => return Err(files::failed("lock", &path, error)),
        }
        // Only for people: a disk that is full must not stop a backup to somewhere else.
        let text = format!("{} {}\n", std::process::id(), time::rfc3339(now));
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Ok(Self { file }))
    }
}

/// Whether a process that lives has said that it holds a job's lock. Takes no lock, so that nobody finds it taken.
pub fn is_held(data_dir: &Path, job: &str) -> bool {
    let file = File::open(data_dir.join(FOLDER).join(format!("{}.lock", name::encode(job))));
    let holder = file.ok().and_then(|mut file| holder(&mut file));
    holder.is_some_and(|(pid, _)| Path::new("/proc").join(pid.to_string()).exists())
}

impl Drop for JobLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        // Closing the file would let it go, too, but for a child that is just being started and has the file for an instant.
        let _ = self.file.unlock();
    }
}

fn holder(file: &mut File) -> Holder {
    let mut text = String::new();
    file.take(MAX_HOLDER_BYTES).read_to_string(&mut text).ok()?;
    let (pid, since) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, since.parse().ok()?))
}

fn shown(holder: &Holder) -> String {
    match holder {
        Some((pid, since)) => format!(" (process {pid}, since {})", time::rfc3339(*since)),
        None => String::new(),
    }
}
