//! What the client prints as a dump, without what is not part of it. Flows in: the output of `redis-cli --rdb -`. Flows
//! out: the RDB alone. Pure.
//!
//! Where the server sends its RDB straight from memory, the transfer has a mark of 40 bytes at its end, which the client
//! prints too. A file with it does load, but no checker calls it clean, so it is cut off, and nothing else is.

use std::io::{self, Read};

use super::rdb::Parser;
use crate::error::{Context, Error, Kind, Result};

/// The length of the mark at the end of a transfer.
const MARK_BYTES: usize = 40;
/// How much behind the end is read at once.
const REST_BYTES: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct WithoutMark<R> {
    inner: R,
    parser: Parser,
    end: Option<Result<()>>,
    /// What came behind the end.
    behind: Vec<u8>,
}

impl<R: Read> WithoutMark<R> {
    /// Cuts the mark off what `inner` gives.
    pub fn new(inner: R) -> Self {
        // The checksum is the inspector's.
        Self { inner, parser: Parser::new(false), end: None, behind: Vec::new() }
    }

    /// Reads what comes behind the end, down to the tool's own end.
    fn rest(&mut self) -> Result<()> {
        let mut bytes = [0; REST_BYTES];
        loop {
            match self.inner.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.behind.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing(Kind::Tool, "can't read the dump"),
            }
            if self.behind.len() > MARK_BYTES {
                break;
            }
        }
        let hex = || self.behind.iter().all(u8::is_ascii_hexdigit);
        match self.behind.len() {
            0 => Ok(()),
            MARK_BYTES if hex() => Ok(()),
            _ => Err(Error::new(
                Kind::Tool,
                format!(
                    "the dump is damaged: behind its end, at byte {}, there is something that is not the mark of a transfer",
                    self.parser.position()
                ),
            )),
        }
    }

    fn pass(&mut self, buffer: &mut [u8]) -> Result<usize, io::Error> {
        if self.parser.ended() {
            return self.rest().map(|()| 0).map_err(Error::into_io);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            return self.parser.finish().map(|()| 0).map_err(Error::into_io);
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        let used = self.parser.feed(bytes, &mut |_| Ok(())).map_err(Error::into_io)?;
        self.behind.extend(bytes.iter().skip(used));
        Ok(used)
    }
}

impl<R: Read> Read for WithoutMark<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| 0).map_err(Error::into_io);
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let end = match self.pass(buffer) {
            Ok(0) => Ok(()),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Err(Error::from_io(error, Kind::Tool, "can't read the dump")),
        };
        self.end = Some(end.clone());
        end.map(|()| 0).map_err(Error::into_io)
    }
}
