//! Compression and its opposite. Flows in: a dump. Flows out: independent gzip members of 1 MiB of input each, in
//! order, made on several cores behind one `Read`; and back, from any gzip file. Touches worker threads only.

use std::io::{self, BufReader, Read};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::bufread::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor as Deflater};

use super::{Outbox, Sticky, Uninterrupted, read_full};
use crate::error::{Error, Kind, Result};

/// Input bytes in a member. Smaller ones lose ratio: 64 KiB costs 3 %.
const MEMBER_BYTES: usize = 1024 * 1024;
/// The most threads that compress, so that memory stays bounded on large machines: 3 MiB each.
const MAX_WORKERS: usize = 8;
/// The default of `compression_level`.
pub const DEFAULT_LEVEL: u8 = 6;

/// Work for a thread, and the way back. The buffer of the input comes back with the output, to be used again.
struct Task {
    input: Vec<u8>,
    back: Sender<Member>,
}

/// A member that a worker has made, with the buffer of its input.
type Member = Result<(Vec<u8>, Vec<u8>)>;

/// A reader of compressed bytes.
pub struct Compressor<R> {
    inner: R,
    tasks: Option<Sender<Task>>,
    workers: Vec<JoinHandle<()>>,
    waiting: std::collections::VecDeque<Receiver<Member>>,
    spare: Vec<Vec<u8>>,
    ready: Outbox,
    ended: bool,
    any: bool,
    failed: Sticky,
}

impl<R> std::fmt::Debug for Compressor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl<R: Read> Compressor<R> {
    /// Compresses at `level`, 1 to 9, on up to `cores` threads.
    ///
    /// # Errors
    /// When the level is out of range.
    pub fn new(inner: R, level: u8, cores: usize) -> Result<Self> {
        let level = CompressionLvl::new(i32::from(level))
            .map_err(|_| Error::new(Kind::Config, format!("compression level {level} is not between 1 and 9")))?;
        let count = cores.clamp(1, MAX_WORKERS);
        let (tasks, queue) = bounded::<Task>(count);
        let workers = (0..count)
            .map(|_| {
                let queue = queue.clone();
                std::thread::spawn(move || work(&queue, level))
            })
            .collect();
        Ok(Self {
            inner,
            tasks: Some(tasks),
            workers,
            waiting: std::collections::VecDeque::new(),
            spare: Vec::new(),
            ready: Outbox::default(),
            ended: false,
            any: false,
            failed: Sticky::default(),
        })
    }

    /// Hands members out until every worker has one and one waits, or the input ends.
    fn feed(&mut self) -> io::Result<()> {
        while !self.ended && self.waiting.len() <= self.workers.len() {
            let mut input = self.spare.pop().unwrap_or_default();
            input.resize(MEMBER_BYTES, 0);
            let count = read_full(&mut self.inner, &mut input)?;
            input.truncate(count);
            self.ended = count < MEMBER_BYTES;
            // Nothing at all still makes one empty member: an empty file is not a gzip file.
            if count == 0 && self.any {
                break;
            }
            self.any = true;
            let (back, result) = bounded(1);
            let sent = self.tasks.as_ref().is_some_and(|tasks| tasks.send(Task { input, back }).is_ok());
            if !sent {
                return Err(lost_worker().into_io());
            }
            self.waiting.push_back(result);
        }
        Ok(())
    }

    fn next_member(&mut self) -> io::Result<bool> {
        self.feed()?;
        let Some(result) = self.waiting.pop_front() else { return Ok(false) };
        let member = result.recv().unwrap_or_else(|_| Err(lost_worker()));
        let (input, output) = member.map_err(Error::into_io)?;
        self.spare.push(input);
        self.ready.refill(output);
        Ok(true)
    }
}

fn lost_worker() -> Error {
    Error::other("a compressing thread ended unexpectedly")
}

fn work(queue: &Receiver<Task>, level: CompressionLvl) {
    let mut deflater = Deflater::new(level);
    for Task { input, back } in queue {
        let mut output = vec![0u8; deflater.gzip_compress_bound(input.len())];
        let member = match deflater.gzip_compress(&input, &mut output) {
            Ok(count) => {
                output.truncate(count);
                Ok((input, output))
            }
            Err(error) => Err(Error::other(format!("can't compress: {error}"))),
        };
        // The reader may be gone; then nobody wants it.
        drop(back.send(member));
    }
}

impl<R> Drop for Compressor<R> {
    fn drop(&mut self) {
        self.tasks = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has already been noticed by the reader.
            drop(worker.join());
        }
    }
}

impl<R: Read> Read for Compressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failed.check()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.ready.is_empty() {
            match self.next_member() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => return Err(self.failed.keep(Error::from_io(error, Kind::Other, "can't compress"))),
            }
        }
        Ok(self.ready.read(buffer))
    }
}

/// A reader of what a gzip file holds, however many members it has.
#[derive(Debug)]
pub struct Decompressor<R> {
    inner: MultiGzDecoder<BufReader<Uninterrupted<R>>>,
    failed: Sticky,
}

impl<R: Read> Decompressor<R> {
    /// Decompresses all members.
    pub fn new(inner: R) -> Self {
        let inner = BufReader::with_capacity(128 * 1024, Uninterrupted(inner));
        Self { inner: MultiGzDecoder::new(inner), failed: Sticky::default() }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failed.check()?;
        self.inner.read(buffer).map_err(|error| {
            let cut = error.kind() == io::ErrorKind::UnexpectedEof;
            let what =
                if cut { "the backup's compressed data is cut" } else { "the backup's compressed data is damaged" };
            self.failed.keep(Error::from_io(error, Kind::Authentication, what))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state & 0x8000_0000 == 0 { 7 } else { (state >> 24) as u8 }
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for length in [0, 1, MEMBER_BYTES - 1, MEMBER_BYTES, MEMBER_BYTES + 1, 3 * MEMBER_BYTES, 5_000_000] {
            let data = noise(length);
            for cores in [1, 3] {
                let mut packed = Vec::new();
                Compressor::new(&data[..], 6, cores).unwrap().read_to_end(&mut packed).unwrap();
                assert!(!packed.is_empty());
                let mut back = Vec::new();
                Decompressor::new(&packed[..]).read_to_end(&mut back).unwrap();
                assert!(back == data, "{length} bytes on {cores} cores");
            }
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let mut packed = Vec::new();
        Compressor::new(&noise(3000)[..], 6, 1).unwrap().read_to_end(&mut packed).unwrap();
        for length in 1..packed.len() {
            let error = Decompressor::new(&packed[..length]).read_to_end(&mut Vec::new()).unwrap_err();
            let error = Error::from_io(error, Kind::Other, "");
            assert_eq!(error.kind, Kind::Authentication, "cut at {length}");
        }
    }

    #[test]
    fn the_sources_error_comes_through_and_stays() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(Error::new(Kind::Tool, "died").into_io())
            }
        }
        let source = (&[1u8; 3 * MEMBER_BYTES][..]).chain(Fails);
        let mut packer = Compressor::new(source, 6, 2).unwrap();
        let error = packer.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(Error::from_io(error, Kind::Other, "").message, "died");
        assert!(packer.read(&mut [0; 8]).is_err());
    }
}
