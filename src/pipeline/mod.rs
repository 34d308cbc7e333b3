//! The stages between an engine and a target: bytes only. A stage is a function from a reader to a reader, and every
//! failure travels in the stream: a reader that has failed once fails for ever, so that nothing downstream can take a
//! broken stream for a finished one.

pub mod encrypt;
pub mod fanout;
pub mod gzip;
pub mod meter;

use std::io::{self, Read};

use crate::error::{Error, io_reason};

/// Fills `buffer` as far as the reader goes; fewer bytes than asked for mean its end.
///
/// # Errors
/// The reader's own.
pub fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A reader whose interruptions nobody sees, for a decoder that would take one for damage.
#[derive(Debug)]
struct Uninterrupted<R>(R);

impl<R: Read> Read for Uninterrupted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

/// Bytes on their way from a stage that makes blocks to a reader that takes what it likes.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Outbox {
    /// Puts a new block in; the old one must be gone.
    fn refill(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.taken = 0;
        std::mem::replace(&mut self.bytes, bytes)
    }

    fn is_empty(&self) -> bool {
        self.taken >= self.bytes.len()
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.taken += count;
        count
    }
}

/// Keeps the first error of a stage and gives it again at every later read.
#[derive(Clone, Debug, Default)]
struct Sticky(Option<Error>);

impl Sticky {
    fn check(&self) -> io::Result<()> {
        match &self.0 {
            Some(error) => Err(error.clone().into_io()),
            None => Ok(()),
        }
    }

    fn keep(&mut self, error: Error) -> io::Error {
        self.0.get_or_insert(error).clone().into_io()
    }

    /// Keeps an error of the reader below and hands it on as it is, for a later stage to name. An interruption is none.
    fn pass(&mut self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::Interrupted {
            let ours = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
            let failed = || Error::other(format!("the stream has failed before: {}", io_reason(&error)));
            self.0.get_or_insert_with(|| ours.unwrap_or_else(failed));
        }
        error
    }
}
