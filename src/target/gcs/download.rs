//! Reading an object. Flows in: a key. Flows out: its bytes by range requests, each begun anew where the one before it
//! broke off, or an error: never fewer bytes than the object has, never bytes of another generation, and at the end the
//! object's own checksum.

use std::io::{self, Read};
use std::sync::Arc;

use super::Store;
use super::documents::Object;
use super::trouble::{is_missing, is_precondition};
use super::wire::Call;
use crate::error::Error;
use crate::target::http::{Body, Haste};
use crate::target::trouble::{Doing, Line, Trouble};
use crate::target::{Cause, TargetError};

/// How much is asked for at once, in bytes: small enough that a reader who takes minutes loses little.
const RANGE: u64 = 16 * 1024 * 1024;

/// Opens an object.
pub fn open(target: &Arc<Store>, path: &str) -> Result<Box<dyn Read + Send>, TargetError> {
    let object = target.look(&target.wire, path).map_err(|trouble| target.tell(&trouble, Doing::Get, path))?;
    let Some(object) = object else {
        let message = format!("target {}: can't read {path}: there is no such object", target.name);
        return Err(TargetError::new(Cause::NotFound, message));
    };
    Ok(Box::new(Reading {
        target: Arc::clone(target),
        path: path.to_owned(),
        object,
        at: 0,
        sum: 0,
        piece: None,
        failed: None,
    }))
}

/// An object that is being read.
struct Reading {
    target: Arc<Store>,
    path: String,
    object: Object,
    at: u64,
    /// The CRC-32C of what was read.
    sum: u32,
    /// The answer that is being read, and where it ends.
    piece: Option<(Body, u64)>,
    /// Why it ended: who reads on gets it again.
    failed: Option<Error>,
}

impl Reading {
    fn next_piece(&self) -> Result<(Body, u64), Trouble> {
        let length = self.object.size;
        let end = length.min(self.at + RANGE);
        let call = Call {
            query: vec![("alt", "media".to_owned()), ("generation", self.object.generation.clone())],
            headers: vec![
                ("range", format!("bytes={}-{}", self.at, end - 1)),
                // An object that somebody says is gzip would be unpacked on its way.
                ("accept-encoding", "gzip".to_owned()),
            ],
            haste: Haste::Reading,
            ..Call::object(&self.path)
        };
        let answer = self.target.wire.once(&call)?;
        let whole = answer.status == 200 && self.at == 0;
        let expected = format!("bytes {}-{}/{length}", self.at, end - 1);
        match answer.header("content-range") {
            Some(range) if answer.status == 206 && range == expected => Ok((answer.body, end)),
            // All of it instead of a piece: as good, at the start.
            _ if whole && answer.length() == Some(length) => Ok((answer.body, length)),
            range => Err(Trouble::Line(Line::Broken, format!("{range:?} came where {expected:?} was asked for"))),
        }
    }

    /// Some bytes; none stands for a piece that broke off.
    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let (mut body, end) = match self.piece.take() {
            Some(piece) => piece,
            None => self.next_piece()?,
        };
        let most = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let count = match body.read(buffer) {
            Ok(0) => return Err(Trouble::cut(self.at, self.object.size)),
            Ok(count) => count,
            Err(error) => return Err(Trouble::from_io(&error)),
        };
        self.at += count as u64;
        self.sum = crc32c::crc32c_append(self.sum, buffer.get(..count).unwrap_or_default());
        if self.at < end {
            self.piece = Some((body, end));
        } else if self.at == self.object.size && self.object.checksum().is_some_and(|sum| sum != self.sum) {
            let failure = self.target.wrong(&format!("{} came with other bytes than its checksum says", self.path));
            return Err(Trouble::Told(failure.error));
        }
        Ok(count)
    }

    fn fail(&mut self, trouble: &Trouble) -> io::Error {
        let failure = if is_missing(trouble) || is_precondition(trouble) {
            self.target.wrong(&format!("{} was replaced or deleted while it was read", self.path))
        } else {
            self.target.tell(trouble, Doing::Get, &self.path)
        };
        self.failed.insert(failure.error).clone().into_io()
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone().into_io());
        }
        if self.at == self.object.size || buffer.is_empty() {
            return Ok(0);
        }
        let target = Arc::clone(&self.target);
        let mut tries = target.wire.client.tries();
        loop {
            let trouble = match self.step(buffer) {
                Ok(count) => return Ok(count),
                Err(trouble) => trouble,
            };
            let again = trouble.is_passing()
                && tries.again(trouble.retry_after()).map_err(|error| self.fail(&Trouble::Told(error)))?;
            if !again {
                return Err(self.fail(&trouble));
            }
        }
    }
}
