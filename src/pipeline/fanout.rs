//! One stream to several targets at once. Flows in: a reader. Flows out: what each target made of it. A target that
//! fails is dropped and the others go on; a failed stream reaches every target as a read error, so that none of them
//! can take it for finished; memory is bounded by a few blocks for each target.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};

use super::read_full;
use crate::error::{Error, Kind, Result};
use crate::format::name::ObjectKey;
use crate::target::{Cause, Stored, Target, TargetError};
use crate::world::World;

/// Bytes in a block.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks that may wait for one target.
const QUEUE_BLOCKS: usize = 8;
/// How long a target may take no byte before it is dropped, while others wait for it.
const STALL: Duration = Duration::from_secs(300);
/// How often a wait looks for a signal.
const TICK: Duration = Duration::from_millis(100);

/// What goes to a target. A channel that closes without an end is a failure, never an end.
enum Message {
    Block(Arc<Vec<u8>>),
    End,
    Failed(Error),
}

/// Reads `source` once and stores it at every target under `key`; the results are in the order of the targets. When
/// the source fails, its error is every target's result.
pub fn fan_out(
    source: &mut dyn Read,
    targets: &[&dyn Target],
    key: &ObjectKey,
    world: &World,
) -> Vec<Result<Stored, TargetError>> {
    std::thread::scope(|scope| {
        let mut sinks = Vec::new();
        let mut threads = Vec::new();
        for target in targets {
            let (sink, queue) = bounded(QUEUE_BLOCKS);
            sinks.push(Some(sink));
            threads.push(scope.spawn(move || target.put(key, &mut Blocks::new(queue))));
        }
        pump(source, &mut sinks, world);
        drop(sinks);
        let lost = || TargetError::new(Cause::Failed, "a thread that wrote to a target ended unexpectedly");
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(lost()))).collect()
    })
}

/// Moves blocks until the source ends or fails, or nobody listens any more.
fn pump(source: &mut dyn Read, sinks: &mut [Option<Sender<Message>>], world: &World) {
    let mut source = source;
    loop {
        let mut block = vec![0u8; BLOCK_BYTES];
        let end = match world.cancel.check().map_err(Error::into_io).and_then(|()| read_full(&mut source, &mut block)) {
            Ok(count) => {
                block.truncate(count);
                (count < BLOCK_BYTES).then_some(Message::End)
            }
            Err(error) => {
                let error = Error::from_io(error, Kind::Other, "can't read the dump");
                sinks.iter_mut().for_each(|sink| send(sink, Message::Failed(error.clone()), world));
                return;
            }
        };
        let block = Arc::new(block);
        if !block.is_empty() {
            sinks.iter_mut().for_each(|sink| send(sink, Message::Block(Arc::clone(&block)), world));
        }
        if end.is_some() {
            sinks.iter_mut().for_each(|sink| send(sink, Message::End, world));
            return;
        }
        if sinks.iter().all(Option::is_none) {
            return;
        }
    }
}

/// Hands a message over, and drops a target that has gone, takes nothing for too long, or must stop.
fn send(sink: &mut Option<Sender<Message>>, message: Message, world: &World) {
    let Some(open) = sink else { return };
    let started = world.clock.monotonic();
    let mut message = message;
    loop {
        match open.send_timeout(message, TICK) {
            Ok(()) => return,
            Err(SendTimeoutError::Timeout(back)) => {
                message = match world.cancel.check() {
                    Err(stop) => Message::Failed(stop),
                    Ok(()) => back,
                };
                if world.clock.monotonic().saturating_sub(started) < STALL {
                    continue;
                }
            }
            Err(SendTimeoutError::Disconnected(_)) => {}
        }
        *sink = None;
        return;
    }
}

/// A target's view of the stream.
struct Blocks {
    queue: Receiver<Message>,
    block: Arc<Vec<u8>>,
    taken: usize,
    end: Option<Result<()>>,
}

impl Blocks {
    fn new(queue: Receiver<Message>) -> Self {
        Self { queue, block: Arc::default(), taken: 0, end: None }
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken >= self.block.len() {
            if let Some(end) = &self.end {
                return end.clone().map(|()| 0).map_err(Error::into_io);
            }
            match self.queue.recv() {
                Ok(Message::Block(block)) => (self.block, self.taken) = (block, 0),
                Ok(Message::End) => self.end = Some(Ok(())),
                Ok(Message::Failed(error)) => self.end = Some(Err(error)),
                Err(_) => self.end = Some(Err(Error::new(Kind::Target, "the target took no data for too long"))),
            }
        }
        let rest = self.block.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
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
            let (one, two) = (Memory::default(), Memory::default());
            let results = fan_out(&mut &data[..length], &[&one, &Fails(1_000_000), &two], &key(), &World::system());
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
        let one = Memory::default();
        let results = fan_out(&mut (&[0u8; 1_000_000][..]).chain(Dies), &[&one], &key(), &World::system());
        let failure = results[0].clone().unwrap_err();
        assert_eq!((failure.cause, failure.error.message.as_str()), (Cause::Body, "died"));
        assert!(one.list("").unwrap().is_empty());
    }

    #[test]
    fn a_signal_ends_it() {
        let world = World::system();
        world.cancel.stop(15);
        let one = Memory::default();
        let results = fan_out(&mut io::repeat(1), &[&one], &key(), &world);
        assert_eq!(results[0].clone().unwrap_err().error.kind, Kind::Stopped(15));
    }
}
