//! A target whose calls nothing can interrupt, since the system itself may hang in them: a disk that is gone, a file system of
//! a server that is. Flows in: calls. Flows out: their answers, or an error when none has come for minutes or a signal has.
//! Each call is on a thread of its own, which is left behind then: a job is told what is wrong, and the others are run.
//!
//! What a thread that was left behind does yet, nobody hears of: an object without a manifest, which is swept later, or a
//! manifest that the next run finds. So after that no object is taken back here: its manifest may come yet.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::signal::Grace;
use super::{Cause, Stored, Target, TargetError};
use crate::error::{Context as _, Error, Kind, Result};
use crate::format::name::ObjectKey;
use crate::world::{Watch as _, World};

/// How long a target may do nothing at all. What it sends, and what it is answered, counts: a store that asks us to wait two
/// minutes is not given up, nor a disk that is slow with each of a hundred thousand files.
pub const STALL: Duration = Duration::from_secs(300);
/// How often a wait looks for a signal.
const TICK: Duration = Duration::from_millis(50);
/// Bodies that are shorter are taken whole, and the call for them can be left. Longer ones are stored on the caller's thread,
/// so who sends one does it by [`crate::pipeline::fanout`], whose threads can be left.
const SHORT_BYTES: u64 = 256 * 1024;
/// Bytes in a block that is read.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks that may be on their way.
const BLOCKS: usize = 4;

/// A target, with patience that ends.
#[derive(Debug)]
pub struct Patient<T> {
    inner: Arc<T>,
    wait: Wait,
    /// Whether something that was to be stored was left behind.
    left: AtomicBool,
}

#[derive(Clone, Debug)]
struct Wait {
    world: World,
    patience: Duration,
    place: String,
}

impl Wait {
    /// What comes; none, if its sender is gone. `moved` counts up while there is a reason to wait.
    fn on<A>(&self, answers: &Receiver<A>, moved: &dyn Fn() -> u64) -> Result<Option<A>> {
        let mut alive = (self.world.clock.monotonic(), moved());
        let grace = Grace::new(&self.world);
        loop {
            match answers.recv_timeout(TICK) {
                Ok(answer) => return Ok(Some(answer)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let (now, count) = (self.world.clock.monotonic(), moved());
            if count != alive.1 {
                alive = (now, count);
            }
            if now.saturating_sub(alive.0) >= self.patience {
                let message = format!("{} has not answered for {} seconds", self.place, self.patience.as_secs());
                return Err(Error::new(Kind::Target, message)
                    .hint("look at the disk, or at the server of the mounted file system, and at what the system's log says of it"));
            }
            grace.check()?;
        }
    }
}

impl<T: Target + 'static> Patient<T> {
    /// Waits for `inner` no longer than that.
    pub fn new(inner: T, patience: Duration, world: World) -> Self {
        let place = inner.describe();
        Self { inner: Arc::new(inner), wait: Wait { world, patience, place }, left: AtomicBool::new(false) }
    }

    /// Does it on a thread that can be left.
    fn start(&self, work: impl FnOnce(&T) + Send + 'static) -> Result<(), TargetError> {
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || work(&inner));
        thread.map(drop).doing(Kind::Other, format!("can't start a thread for {}", self.wait.place)).map_err(failed)
    }

    fn lost(&self) -> TargetError {
        failed(Error::other(format!("a call to {} got lost", self.wait.place)))
    }

    fn answer<A>(&self, told: &Receiver<Result<A, TargetError>>) -> Result<A, TargetError> {
        let lost = || self.lost();
        self.wait.on(told, &|| self.inner.moved()).map_err(failed)?.ok_or_else(lost)?
    }

    fn call<A: Send + 'static>(
        &self,
        work: impl FnOnce(&T) -> Result<A, TargetError> + Send + 'static,
    ) -> Result<A, TargetError> {
        let (tell, told) = bounded(1);
        self.start(move |inner| drop(tell.send(work(inner))))?;
        self.answer(&told)
    }
}

fn failed(error: Error) -> TargetError {
    TargetError { cause: Cause::Failed, error }
}

/// Reads for somebody who may be gone.
fn read_for(mut reader: Box<dyn Read + Send>, tell: &Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut block = Vec::new();
        let read = reader.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block);
        let is_last = block.is_empty() || read.is_err();
        // What came before an error comes before it; an empty block is the end.
        let sent = (block.is_empty() && read.is_err()) || tell.send(Ok(block)).is_ok();
        if let Some(error) = read.err().filter(|_| sent) {
            drop(tell.send(Err(error)));
        }
        if is_last || !sent {
            return;
        }
    }
}

impl<T: Target + 'static> Target for Patient<T> {
    fn describe(&self) -> String {
        self.wait.place.clone()
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        let mut head = Vec::new();
        let end = body.take(SHORT_BYTES).read_to_end(&mut head);
        if end.is_ok() && (head.len() as u64) < SHORT_BYTES {
            let (key, (tell, told)) = (key.clone(), bounded(1));
            self.start(move |inner| drop(tell.send(inner.put(&key, &mut head.as_slice()))))?;
            let answer = self.wait.on(&told, &|| self.inner.moved());
            self.left.fetch_or(answer.is_err(), Ordering::SeqCst);
            return answer.map_err(failed)?.ok_or_else(|| self.lost())?;
        }
        let rest = Rest { failed: end.err(), body };
        self.inner.put(key, &mut head.as_slice().chain(rest))
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        let key = key.clone();
        let ((tell, told), (send, blocks)) = (bounded(1), bounded(BLOCKS));
        self.start(move |inner| match inner.get(&key) {
            Err(failure) => drop(tell.send(Err(failure))),
            Ok(reader) => {
                if tell.send(Ok(())).is_ok() {
                    read_for(reader, &send);
                }
            }
        })?;
        self.answer(&told)?;
        Ok(Box::new(Reading { blocks, block: Vec::new(), taken: 0, wait: self.wait.clone(), ended: false }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        let prefix = prefix.to_owned();
        self.call(move |inner| inner.list(&prefix))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        let key = key.clone();
        self.call(move |inner| inner.delete(&key))
    }

    fn take_back(&self, key: &ObjectKey) {
        if !self.left.load(Ordering::SeqCst) {
            drop(self.delete(key));
        }
    }

    fn delete_all(&self, keys: &[ObjectKey]) -> Vec<Result<(), TargetError>> {
        let all = keys.to_vec();
        let outcomes = self.call(move |inner| Ok(inner.delete_all(&all)));
        outcomes.unwrap_or_else(|failure| keys.iter().map(|_| Err(failure.clone())).collect())
    }

    fn sweep(&self, prefix: &str, before: DateTime<Utc>) -> Result<usize, TargetError> {
        let prefix = prefix.to_owned();
        self.call(move |inner| inner.sweep(&prefix, before))
    }
}

/// The rest of a body; or why there is none.
struct Rest<'b> {
    failed: Option<io::Error>,
    body: &'b mut dyn Read,
}

impl Read for Rest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failed.take().map_or_else(|| self.body.read(buffer), Err)
    }
}

/// An object that another thread reads.
struct Reading {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    taken: usize,
    wait: Wait,
    ended: bool,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.block.len() && !self.ended {
            let lost = || io::Error::other(format!("a reader of {} got lost", self.wait.place));
            let block = self.wait.on(&self.blocks, &|| 0).map_err(Error::into_io)?.ok_or_else(lost)??;
            self.ended = block.is_empty();
            (self.block, self.taken) = (block, 0);
        }
        let count = self.block.get(self.taken..).unwrap_or_default().read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    /// Hangs in every call, or in every read, until it is let go.
    #[derive(Debug)]
    struct Hangs {
        in_reads: bool,
        gate: Mutex<Receiver<()>>,
    }

    impl Hangs {
        fn hang(&self) -> TargetError {
            let _ = self.gate.lock().unwrap().recv();
            TargetError::new(Cause::Failed, "let go".to_owned())
        }
    }

    impl Read for Hangs {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.hang().error.into_io())
        }
    }

    impl Target for Hangs {
        fn describe(&self) -> String {
            "disk (/mnt)".to_owned()
        }

        fn put(&self, _: &ObjectKey, _: &mut dyn Read) -> Result<Stored, TargetError> {
            Err(self.hang())
        }

        fn get(&self, _: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
            let gate = Mutex::new(self.gate.lock().unwrap().clone());
            if self.in_reads { Ok(Box::new(Self { in_reads: true, gate })) } else { Err(self.hang()) }
        }

        fn list(&self, _: &str) -> Result<Vec<Stored>, TargetError> {
            Err(self.hang())
        }

        fn delete(&self, _: &ObjectKey) -> Result<(), TargetError> {
            Err(self.hang())
        }

        fn sweep(&self, _: &str, _: DateTime<Utc>) -> Result<usize, TargetError> {
            Err(self.hang())
        }
    }

    fn read(target: &dyn Target) -> Error {
        let key = ObjectKey::new("a/b").unwrap();
        let outcome = target.get(&key).map_err(Error::from);
        let read = |mut reader: Box<dyn Read + Send>| {
            let read = reader.read_to_end(&mut Vec::new());
            read.map_err(|error| Error::from_io(error, Kind::Other, "read")).map(|_| ())
        };
        outcome.and_then(read).unwrap_err()
    }

    /// What becomes of every call.
    fn all(target: &dyn Target) -> Vec<Error> {
        let key = ObjectKey::new("a/b").unwrap();
        let calls = [
            target.put(&key, &mut &b"short"[..]).map(drop),
            target.list("").map(drop),
            target.delete(&key),
            target.sweep("", Utc::now()).map(drop),
        ];
        let failures = calls.into_iter().map(|outcome| outcome.unwrap_err().error);
        failures.chain([read(target)]).collect()
    }

    #[test]
    fn what_hangs_is_left_when_patience_or_time_is_over() {
        for in_reads in [false, true] {
            let (_gate, wait) = bounded(0);
            let hangs = || Hangs { in_reads, gate: Mutex::new(wait.clone()) };
            let patience = Duration::from_millis(60);
            for error in all(&Patient::new(hangs(), patience, World::system())) {
                assert_eq!(error.kind, Kind::Target);
                assert!(error.to_string().contains("disk (/mnt) has not answered for "), "{error}");
            }
            let world = World::system();
            world.cancel.stop(15);
            let since = Instant::now();
            for error in all(&Patient::new(hangs(), STALL, world)) {
                assert!(error.is_stopped(), "{error}");
            }
            assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
        }
    }

    /// Says that it works on, for as long as it does; and keeps what it is given late.
    #[derive(Clone, Debug, Default)]
    struct Slow {
        memory: crate::target::memory::Memory,
        pause: Duration,
        is_still: bool,
        moved: Arc<std::sync::atomic::AtomicU64>,
    }

    impl Slow {
        fn work(&self) {
            for _ in 0..10 {
                std::thread::sleep(self.pause);
                self.moved.fetch_add(u64::from(!self.is_still), Ordering::SeqCst);
            }
        }
    }

    impl Target for Slow {
        fn describe(&self) -> String {
            "disk (/mnt)".to_owned()
        }

        fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
            self.work();
            self.memory.put(key, body)
        }

        fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
            self.memory.get(key)
        }

        fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
            self.work();
            self.memory.list(prefix)
        }

        fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
            self.work();
            self.memory.delete(key)
        }

        fn moved(&self) -> u64 {
            self.moved.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_slow_disk_that_works_on_is_no_disk_that_hangs() {
        let (patience, pause) = (Duration::from_millis(2_000), Duration::from_millis(300));
        let slow = |is_still| Slow { pause, is_still, ..Slow::default() };
        assert_eq!(Patient::new(slow(false), patience, World::system()).list("").unwrap(), []);
        let still = Patient::new(slow(true), patience, World::system());
        assert!(still.list("").is_err());
        // Of many objects, too, only one is waited for.
        let keys: Vec<ObjectKey> = (0..50).map(|at| ObjectKey::new(format!("a/{at}")).unwrap()).collect();
        let since = Instant::now();
        let outcomes = still.delete_all(&keys);
        assert!(outcomes.len() == 50 && outcomes.iter().all(Result::is_err), "{outcomes:?}");
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    }

    #[test]
    fn nothing_is_taken_back_where_its_manifest_may_yet_come() {
        let slow = Slow { pause: Duration::from_millis(30), is_still: true, ..Slow::default() };
        let memory = slow.memory.clone();
        let (object, manifest) = (ObjectKey::new("a/object").unwrap(), ObjectKey::new("a/manifest").unwrap());
        memory.put(&object, &mut &b"bytes"[..]).unwrap();
        let target = Patient::new(slow, Duration::from_millis(60), World::system());
        assert!(target.put(&manifest, &mut &b"{}"[..]).is_err());
        target.take_back(&object);
        let since = Instant::now();
        while memory.list("").unwrap().len() < 2 {
            assert!(since.elapsed() < Duration::from_secs(60), "{:?}", memory.list(""));
            std::thread::sleep(TICK);
        }
        // Long enough for a call that was left behind, too.
        std::thread::sleep(Duration::from_millis(1_000));
        assert_eq!(memory.list("").unwrap().len(), 2, "the object is gone");
        // Where nothing was left behind it goes.
        let target = Patient::new(memory.clone(), Duration::from_secs(60), World::system());
        target.take_back(&object);
        assert_eq!(memory.list("").unwrap().len(), 1);
    }

    #[test]
    fn a_signal_leaves_a_disk_that_answers_the_time_to_do_so() {
        let world = World::system();
        world.cancel.stop(15);
        let _ = world.cancel.stopped_for();
        std::thread::sleep(crate::target::signal::GRACE);
        let target = Patient::new(crate::target::memory::Memory::default(), STALL, world);
        let key = ObjectKey::new("a/b").unwrap();
        target.put(&key, &mut &b"bytes"[..]).unwrap();
        target.take_back(&key);
        assert_eq!(target.list("").unwrap(), []);
    }

    #[test]
    fn bytes_and_errors_come_in_their_order() {
        struct Breaks(usize);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.0.min(buffer.len());
                self.0 -= count;
                if count == 0 { Err(io::Error::other("broken")) } else { Ok(count) }
            }
        }
        let memory = crate::target::memory::Memory::default();
        let target = Patient::new(memory.clone(), STALL, World::system());
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES] {
            let key = ObjectKey::new(format!("a/{length}")).unwrap();
            let failure = target.put(&key, &mut Breaks(length)).unwrap_err();
            assert_eq!(failure.cause, Cause::Body, "{failure:?}");
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            assert_eq!(target.put(&key, &mut bytes.as_slice()).unwrap().size, length as u64);
            let mut read = Vec::new();
            target.get(&key).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{length}");
            let (send, blocks) = bounded(100);
            read_for(Box::new(Breaks(length)), &send);
            let wait = target.wait.clone();
            let mut reading = Reading { blocks, block: Vec::new(), taken: 0, wait, ended: false };
            let mut read = Vec::new();
            assert_eq!(reading.read_to_end(&mut read).unwrap_err().to_string(), "broken");
            assert_eq!(read.len(), length);
        }
    }
}
