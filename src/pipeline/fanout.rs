//! One stream to several targets at once. Flows in: a reader. Flows out: what each target made of it, as each ends. A target
//! that fails, or takes nothing for too long, is dropped and the others go on; a failed stream reaches every target as a read
//! error, so that none of them can take it for finished; memory is bounded by a few blocks for each target. A target works
//! on a thread of its own, which is left behind with it when it is dropped: nobody waits for a disk that hangs.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded, unbounded};

use super::read_full;
use crate::error::{Error, Kind, Result};
use crate::format::name::ObjectKey;
use crate::target::patient::STALL;
use crate::target::{Cause, Stored, Target, TargetError};
use crate::world::World;

/// Bytes in a block.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks that may wait for one target.
const QUEUE_BLOCKS: usize = 8;
/// How long a target may need, once it has all of it, to make sure of it: a disk writes out what memory holds, a store joins
/// thousands of parts. Nobody waits for it but the end of the run.
const FINISH: Duration = Duration::from_secs(1800);
/// How long after a signal the targets may clean up. What takes longer is swept later.
const GRACE: Duration = Duration::from_millis(1500);
/// How often a wait looks for a signal.
const TICK: Duration = Duration::from_millis(50);

/// What a target has made of the stream.
pub type Outcome = Result<Stored, TargetError>;

/// What goes to a target. A channel that closes without an end is a failure, never an end.
enum Message {
    Block(Arc<Vec<u8>>),
    End,
}

/// Reads `source` once and stores it at every target under `key`; the results are in the order of the targets. When
/// the source fails, its error is every target's result.
pub fn fan_out(source: &mut dyn Read, targets: &[Arc<dyn Target>], key: &ObjectKey, world: &World) -> Vec<Outcome> {
    let mut fan = FanOut::new(targets, key, world);
    // Every target says it, too.
    let _ = fan.pump(source);
    let mut outcomes: Vec<Option<Outcome>> = targets.iter().map(|_| None).collect();
    while let Some((at, outcome)) = fan.next() {
        if let Some(place) = outcomes.get_mut(at) {
            *place = Some(outcome);
        }
    }
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(lost()))).collect()
}

/// Stores `source` at one target, whose thread can be left as those of several can. What it completes when nobody waits any
/// more stays there: another may have found it meanwhile, and count on it.
///
/// # Errors
/// As [`Target::put`], or a signal.
pub fn to_one(source: &mut dyn Read, target: &Arc<dyn Target>, key: &ObjectKey, world: &World) -> Outcome {
    let mut fan = FanOut::start(std::slice::from_ref(target), key, world, true);
    let _ = fan.pump(source);
    fan.next().map_or_else(|| Err(lost()), |(_, outcome)| outcome)
}

fn lost() -> TargetError {
    TargetError::new(Cause::Failed, "a thread that wrote to a target ended unexpectedly")
}

/// Whether somebody still waits for a target. Its lock makes the end of its work and the end of our patience one after the
/// other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Working,
    Ended,
    Dropped,
}

/// A target at work.
struct Sink {
    target: Arc<dyn Target>,
    /// Closed at the end of the stream, and when the target is dropped.
    blocks: Option<Sender<Message>>,
    /// Why there will be no end.
    failed: Arc<OnceLock<Error>>,
    state: Arc<Mutex<State>>,
    /// When it last moved, and what it said then.
    alive: (Duration, u64),
    /// Its result was given.
    is_told: bool,
}

/// The targets at work.
#[allow(missing_debug_implementations, reason = "nobody prints targets at work")]
pub struct FanOut<'w> {
    sinks: Vec<Sink>,
    ended: Receiver<(usize, Outcome)>,
    /// Of targets that were dropped.
    dropped: Vec<(usize, TargetError)>,
    world: &'w World,
    /// How long a target may still take.
    patience: Duration,
}

impl<'w> FanOut<'w> {
    /// Lets every target begin.
    pub fn new(targets: &[Arc<dyn Target>], key: &ObjectKey, world: &'w World) -> Self {
        Self::start(targets, key, world, false)
    }

    fn start(targets: &[Arc<dyn Target>], key: &ObjectKey, world: &'w World, stays: bool) -> Self {
        let (tell, ended) = unbounded();
        let mut sinks = Vec::new();
        for (at, target) in targets.iter().enumerate() {
            let (blocks, queue) = bounded(QUEUE_BLOCKS);
            let sink = Sink {
                target: Arc::clone(target),
                blocks: Some(blocks),
                failed: Arc::default(),
                state: Arc::new(Mutex::new(State::Working)),
                alive: (world.clock.monotonic(), target.moved()),
                is_told: false,
            };
            let body = Blocks { queue, failed: Arc::clone(&sink.failed), block: Arc::default(), taken: 0, end: None };
            let (target, key, state) = (Arc::clone(target), key.clone(), Arc::clone(&sink.state));
            let work = Work { at, target, key, state, stays, tell: tell.clone() };
            // A thread that is not there ends its channel, which is told below.
            drop(std::thread::Builder::new().name(format!("target {at}")).spawn(move || work.run(body)));
            sinks.push(sink);
        }
        Self { sinks, ended, dropped: Vec::new(), world, patience: FINISH }
    }

    /// Moves blocks until the source ends or fails, or nobody listens any more.
    ///
    /// # Errors
    /// The source's own, or a signal.
    pub fn pump(&mut self, source: &mut dyn Read) -> Result<()> {
        let outcome = self.blocks(source);
        if let Err(error) = &outcome {
            self.patience = STALL;
            self.sinks.iter_mut().for_each(|sink| sink.fail(error.clone()));
        }
        let now = self.world.clock.monotonic();
        for sink in &mut self.sinks {
            sink.blocks = None;
            sink.alive = (now, sink.target.moved());
        }
        outcome
    }

    fn blocks(&mut self, source: &mut dyn Read) -> Result<()> {
        let mut source = source;
        loop {
            self.world.cancel.check()?;
            let mut block = vec![0u8; BLOCK_BYTES];
            let count = read_full(&mut source, &mut block)
                .map_err(|error| Error::from_io(error, Kind::Other, "can't read the dump"))?;
            block.truncate(count);
            let block = Arc::new(block);
            for at in 0..self.sinks.len() {
                if count > 0 {
                    self.send(at, &|| Message::Block(Arc::clone(&block)))?;
                }
                if count < BLOCK_BYTES {
                    self.send(at, &|| Message::End)?;
                }
            }
            if count < BLOCK_BYTES || self.sinks.iter().all(|sink| sink.blocks.is_none()) {
                return Ok(());
            }
        }
    }

    /// Hands a message over, and drops a target that has gone or takes nothing for too long.
    fn send(&mut self, at: usize, message: &dyn Fn() -> Message) -> Result<()> {
        let Some(sink) = self.sinks.get_mut(at) else { return Ok(()) };
        let Some(blocks) = sink.blocks.clone() else { return Ok(()) };
        sink.alive = (self.world.clock.monotonic(), sink.target.moved());
        loop {
            match blocks.send_timeout(message(), TICK) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Disconnected(_)) => {
                    sink.blocks = None;
                    return Ok(());
                }
                Err(SendTimeoutError::Timeout(_)) => self.world.cancel.check()?,
            }
            if let Some(failure) = sink.drop_after(STALL, self.world) {
                self.dropped.push((at, failure));
                return Ok(());
            }
        }
    }

    /// What the next target that ends has made of the stream, and which it is; none, when all have ended. To be asked after
    /// [`FanOut::pump`].
    #[allow(clippy::should_implement_trait, reason = "it waits")]
    pub fn next(&mut self) -> Option<(usize, Outcome)> {
        loop {
            let ended = match self.dropped.pop() {
                Some((at, failure)) => Some((at, Err(failure))),
                None if self.sinks.iter().all(|sink| sink.is_told) => return None,
                None => match self.ended.recv_timeout(TICK) {
                    Ok(ended) => Some(ended),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => {
                        self.sinks.iter().position(|sink| !sink.is_told).map(|at| (at, Err(lost())))
                    }
                },
            };
            if let Some((at, outcome)) = ended {
                let sink = self.sinks.get_mut(at)?;
                sink.is_told = true;
                return Some((at, outcome));
            }
            let late = self.world.cancel.stopped_for().is_some_and(|time| time >= GRACE);
            let patience = if late { Duration::ZERO } else { self.patience };
            for (at, sink) in self.sinks.iter_mut().enumerate().filter(|(_, sink)| !sink.is_told) {
                self.dropped.extend(sink.drop_after(patience, self.world).map(|failure| (at, failure)));
            }
        }
    }
}

impl Sink {
    /// There will be no end; what still waits for the target is thrown away.
    fn fail(&mut self, error: Error) {
        let _ = self.failed.set(error);
        self.blocks = None;
    }

    /// Drops the target, if nothing has moved for so long.
    fn drop_after(&mut self, patience: Duration, world: &World) -> Option<TargetError> {
        let (now, moved) = (world.clock.monotonic(), self.target.moved());
        if moved != self.alive.1 {
            self.alive = (now, moved);
        }
        let stood = now.saturating_sub(self.alive.0);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if stood < patience || *state != State::Working {
            return None;
        }
        *state = State::Dropped;
        drop(state);
        let failure = match self.failed.get() {
            // It is over anyway, and this is why.
            Some(error) => TargetError { cause: Cause::Body, error: error.clone() },
            None => match world.cancel.check() {
                Err(error) => TargetError { cause: Cause::Failed, error },
                Ok(()) => stalled(&*self.target, stood, self.blocks.is_none()),
            },
        };
        self.fail(failure.error.clone());
        Some(failure)
    }
}

fn stalled(target: &dyn Target, stood: Duration, has_all: bool) -> TargetError {
    let (place, minutes) = (target.describe(), stood.as_secs().div_ceil(60));
    let what = if has_all { "did not say that it has stored everything" } else { "took no data" };
    TargetError::new(Cause::Failed, format!("target {place}: {what} for {minutes} minutes, and was dropped"))
        .hint("look whether it answers, and how fast: voxeltron-backup check")
}

/// What a target's thread does.
struct Work {
    at: usize,
    target: Arc<dyn Target>,
    key: ObjectKey,
    state: Arc<Mutex<State>>,
    /// Whether what comes late stays.
    stays: bool,
    tell: Sender<(usize, Outcome)>,
}

impl Work {
    fn run(self, mut body: Blocks) {
        let outcome = self.target.put(&self.key, &mut body);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Working {
            *state = State::Ended;
            // Whoever waits is there as long as anybody works.
            return drop(self.tell.send((self.at, outcome)));
        }
        drop(state);
        if outcome.is_ok() && !self.stays {
            // The run has gone on without it: no manifest will ever name it. What can't be removed is swept later.
            self.target.take_back(&self.key);
        }
    }
}

/// A target's view of the stream.
struct Blocks {
    queue: Receiver<Message>,
    failed: Arc<OnceLock<Error>>,
    block: Arc<Vec<u8>>,
    taken: usize,
    end: Option<Result<()>>,
}

impl Blocks {
    fn next(&mut self) -> Result<()> {
        let over = || self.failed.get().cloned().unwrap_or_else(|| Error::other("the stream has no end"));
        match (self.failed.get(), self.queue.recv()) {
            (None, Ok(Message::Block(block))) => (self.block, self.taken) = (block, 0),
            (None, Ok(Message::End)) => self.end = Some(Ok(())),
            _ => {
                (self.block, self.taken) = (Arc::default(), 0);
                self.end = Some(Err(over()));
            }
        }
        self.end.clone().unwrap_or(Ok(()))
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken >= self.block.len() {
            if let Some(end) = &self.end {
                return end.clone().map(|()| 0).map_err(Error::into_io);
            }
            self.next().map_err(Error::into_io)?;
        }
        let count = self.block.get(self.taken..).unwrap_or_default().read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::Memory;

    /// A target that fails after so many bytes.
    struct Fails(u64);

    impl Target for Fails {
        fn describe(&self) -> String {
            "fails".into()
        }
        fn put(&self, _: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
            io::copy(&mut body.take(self.0), &mut io::sink()).map_err(TargetError::body)?;
            Err(TargetError::new(Cause::Failed, "no"))
        }
        fn get(&self, _: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
            Err(TargetError::new(Cause::NotFound, "no"))
        }
        fn list(&self, _: &str) -> Result<Vec<Stored>, TargetError> {
            Ok(Vec::new())
        }
        fn delete(&self, _: &ObjectKey) -> Result<(), TargetError> {
            Ok(())
        }
    }

    fn key() -> ObjectKey {
        ObjectKey::new("a/b").unwrap()
    }

    #[test]
    fn a_target_that_fails_does_not_stop_the_others() {
        let data: Vec<u8> = (0..10_000_000u32).map(|at| at as u8).collect();
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, data.len()] {
            let (one, two) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
            let targets: [Arc<dyn Target>; 3] = [one.clone(), Arc::new(Fails(1_000_000)), two.clone()];
            let results = fan_out(&mut &data[..length], &targets, &key(), &World::system());
            assert!(results[0].is_ok() && results[1].is_err() && results[2].is_ok());
            for target in [one, two] {
                let mut back = Vec::new();
                target.get(&key()).unwrap().read_to_end(&mut back).unwrap();
                assert!(back == data[..length]);
            }
        }
    }

    #[test]
    fn a_failing_source_leaves_nothing_anywhere() {
        struct Dies;
        impl Read for Dies {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(Error::new(Kind::Tool, "died").into_io())
            }
        }
        let one = Arc::new(Memory::default());
        let targets: Vec<Arc<dyn Target>> = vec![one.clone()];
        let results = fan_out(&mut (&[0u8; 1_000_000][..]).chain(Dies), &targets, &key(), &World::system());
        let failure = results[0].clone().unwrap_err();
        assert_eq!((failure.cause, failure.error.message.as_str()), (Cause::Body, "died"));
        assert!(one.list("").unwrap().is_empty());
    }

    /// Takes no more of a body than its first block until it is let go; then it stores all that there is.
    struct Hangs {
        memory: Memory,
        gate: Receiver<()>,
    }

    impl Target for Hangs {
        fn describe(&self) -> String {
            "hangs".into()
        }
        fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
            let mut taken = vec![0; BLOCK_BYTES];
            body.read_exact(&mut taken).map_err(TargetError::body)?;
            let _ = self.gate.recv();
            self.memory.put(key, &mut &*taken)
        }
        fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
            self.memory.get(key)
        }
        fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
            self.memory.list(prefix)
        }
        fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
            self.memory.delete(key)
        }
    }

    #[test]
    fn one_target_that_hangs_is_left_and_what_it_stores_late_stays_there() {
        for length in [BLOCK_BYTES, 40 * BLOCK_BYTES] {
            let (let_go, gate) = bounded(0);
            let (memory, world) = (Memory::default(), World::system());
            let target: Arc<dyn Target> = Arc::new(Hangs { memory: memory.clone(), gate });
            let cancel = world.cancel.clone();
            let signal = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                cancel.stop(15);
            });
            let failure = to_one(&mut &vec![1; length][..], &target, &key(), &world).unwrap_err();
            assert_eq!(failure.error.kind, Kind::Stopped(15));
            signal.join().unwrap();
            drop(let_go);
            let since = std::time::Instant::now();
            while memory.list("").unwrap().is_empty() {
                assert!(since.elapsed() < Duration::from_secs(60), "it was taken back");
                std::thread::sleep(TICK);
            }
            // Long enough for it to be taken back.
            std::thread::sleep(4 * TICK);
            assert_eq!(memory.list("").unwrap().len(), 1);
        }
    }

    #[test]
    fn a_signal_ends_it() {
        let world = World::system();
        world.cancel.stop(15);
        let one = Arc::new(Memory::default());
        let targets: Vec<Arc<dyn Target>> = vec![one.clone()];
        let results = fan_out(&mut io::repeat(1), &targets, &key(), &world);
        assert_eq!(results[0].clone().unwrap_err().error.kind, Kind::Stopped(15));
    }
}
