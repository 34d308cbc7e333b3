//! Named faults: targets and readers that do one thing wrong and everything else right.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::target::{Cause, Stored, Target, TargetError};
use voxeltron_backup::world::World;

type Reader = Box<dyn Read + Send>;

/// The methods that a fault hands through as they are.
macro_rules! through {
    ($($method:ident)*) => { $(through!(@ $method);)* };
    (@ describe) => { fn describe(&self) -> String { self.inner.describe() } };
    (@ put) => {
        fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> { self.inner.put(key, body) }
    };
    (@ get) => { fn get(&self, key: &ObjectKey) -> Result<Reader, TargetError> { self.inner.get(key) } };
    (@ list) => { fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> { self.inner.list(prefix) } };
    (@ delete) => { fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> { self.inner.delete(key) } };
    (@ sweep) => {
        fn sweep(&self, prefix: &str, before: DateTime<Utc>) -> Result<usize, TargetError> {
            self.inner.sweep(prefix, before)
        }
    };
}

fn failed(what: &str) -> TargetError {
    TargetError::new(Cause::Failed, format!("fault: {what}"))
}

/// Every object ends after so many bytes when it is read, and says nothing of it.
pub struct Truncating<T> {
    pub inner: T,
    pub at: u64,
}

impl<T: Target> Target for Truncating<T> {
    through!(describe put list delete sweep);

    fn get(&self, key: &ObjectKey) -> Result<Reader, TargetError> {
        Ok(Box::new(self.inner.get(key)?.take(self.at)))
    }
}

/// One bit of every object's last byte is wrong when it is read.
pub struct LastByteFlipped<T> {
    pub inner: T,
}

impl<T: Target> Target for LastByteFlipped<T> {
    through!(describe put list delete sweep);

    fn get(&self, key: &ObjectKey) -> Result<Reader, TargetError> {
        let mut bytes = Vec::new();
        self.inner.get(key)?.read_to_end(&mut bytes).map_err(TargetError::body)?;
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        Ok(Box::new(Cursor::new(bytes)))
    }
}

/// The first call of any method fails, all later ones work.
pub struct ErrorOnce<T> {
    pub inner: T,
    done: AtomicBool,
}

impl<T> ErrorOnce<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, done: AtomicBool::new(false) }
    }

    fn once(&self) -> Result<(), TargetError> {
        if self.done.swap(true, Ordering::SeqCst) { Ok(()) } else { Err(failed("this once")) }
    }
}

impl<T: Target> Target for ErrorOnce<T> {
    through!(describe);

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        self.once().and_then(|()| self.inner.put(key, body))
    }

    fn get(&self, key: &ObjectKey) -> Result<Reader, TargetError> {
        self.once().and_then(|()| self.inner.get(key))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        self.once().and_then(|()| self.inner.list(prefix))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.once().and_then(|()| self.inner.delete(key))
    }
}

/// Takes its time before every read of a body.
pub struct SlowTarget<T> {
    pub inner: T,
    pub pause: Duration,
}

impl<T: Target> Target for SlowTarget<T> {
    through!(describe get list delete sweep);

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        self.inner.put(key, &mut Slow { inner: body, pause: self.pause })
    }
}

struct Slow<'a> {
    inner: &'a mut dyn Read,
    pause: Duration,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(self.pause);
        self.inner.read(buffer)
    }
}

/// Can't be listed.
pub struct ListFails<T> {
    pub inner: T,
}

impl<T: Target> Target for ListFails<T> {
    through!(describe put get delete sweep);

    fn list(&self, _: &str) -> Result<Vec<Stored>, TargetError> {
        Err(failed("no listing"))
    }
}

/// Lets nothing be deleted, as a write-only credential or an object lock does.
pub struct DeniedDelete<T> {
    pub inner: T,
}

impl<T: Target> Target for DeniedDelete<T> {
    through!(describe put get list sweep);

    fn delete(&self, _: &ObjectKey) -> Result<(), TargetError> {
        Err(TargetError::new(Cause::Denied, "fault: deleting is not allowed"))
    }
}

/// Stores all but the last `missing` bytes, says so in the size, and calls it a success.
pub struct ShortWrite<T> {
    pub inner: T,
    pub missing: usize,
}

impl<T: Target> Target for ShortWrite<T> {
    through!(describe get list delete sweep);

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map_err(TargetError::body)?;
        bytes.truncate(bytes.len().saturating_sub(self.missing));
        self.inner.put(key, &mut &bytes[..])
    }
}

/// Reads a little of every body, then nothing until it is let go.
pub struct StallingTarget<T> {
    pub inner: T,
    pub gate: Gate,
}

impl<T: Target> Target for StallingTarget<T> {
    through!(describe get list delete sweep);

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        let mut first = [0u8; 1];
        let count = body.read(&mut first).map_err(TargetError::body)?;
        self.gate.wait();
        self.inner.put(key, &mut first.get(..count).unwrap_or_default().chain(body))
    }
}

/// Something to wait for.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().expect("the gate") = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; longer than five minutes is a test that hangs.
    pub fn wait(&self) {
        let open = self.0.0.lock().expect("the gate");
        let (open, _) = self.0.1.wait_timeout_while(open, Duration::from_secs(300), |open| !*open).expect("the gate");
        assert!(*open, "nobody opened the gate");
    }
}

/// A body that gives `first`, says so, and gives `rest` when it is let go.
pub struct StallingBody {
    pub first: Cursor<Vec<u8>>,
    pub reached: Gate,
    pub gate: Gate,
    pub rest: Cursor<Vec<u8>>,
}

impl StallingBody {
    pub fn new(bytes: &[u8], at: usize) -> Self {
        let (first, rest) = bytes.split_at(at);
        let (first, rest) = (Cursor::new(first.to_vec()), Cursor::new(rest.to_vec()));
        Self { first, reached: Gate::default(), gate: Gate::default(), rest }
    }
}

impl Read for StallingBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.first.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        self.reached.open();
        self.gate.wait();
        self.rest.read(buffer)
    }
}

/// A body that fails with `error` once its bytes have been read.
pub struct FailingBody<'a> {
    pub bytes: &'a [u8],
    pub error: voxeltron_backup::error::Error,
}

impl Read for FailingBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(self.error.clone().into_io());
        }
        self.bytes.read(buffer)
    }
}

/// A reader that fails once after `at` bytes, and then goes on as if nothing had been.
pub struct FailingOnce<R> {
    pub inner: R,
    pub at: usize,
    pub error: Option<voxeltron_backup::error::Error>,
}

impl<R: Read> Read for FailingOnce<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == 0
            && let Some(error) = self.error.take()
        {
            return Err(error.into_io());
        }
        let most = if self.error.is_some() { buffer.len().min(self.at) } else { buffer.len() };
        let count = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.at = self.at.saturating_sub(count);
        Ok(count)
    }
}

/// A body that is interrupted before every read and then gives one byte, or a few.
pub struct Stuttering<R> {
    pub inner: R,
    pub at_once: usize,
    pub turn: usize,
}

impl<R: Read> Read for Stuttering<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn % 2 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buffer.len().min(self.at_once);
        self.inner.read(buffer.get_mut(..count).unwrap_or_default())
    }
}

/// A body that brings a signal with it after so many bytes.
pub struct CancelAfter<R> {
    pub inner: R,
    pub bytes: usize,
    pub world: World,
    pub signal: i32,
}

impl<R: Read> Read for CancelAfter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.bytes.checked_sub(count) {
            Some(rest) if rest > 0 => self.bytes = rest,
            _ => self.world.cancel.stop(self.signal),
        }
        Ok(count)
    }
}

/// A clock on which a quarter of a minute passes at every look, so that no test waits for a limit. Not more: who is at work on
/// a busy machine must come to his turn before his time is over.
#[derive(Debug, Default)]
pub struct HastyClock(AtomicUsize);

impl voxeltron_backup::world::Clock for HastyClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(15 * self.0.fetch_add(1, Ordering::SeqCst) as u64)
    }

    fn sleep(&self, _: Duration) {}
}
