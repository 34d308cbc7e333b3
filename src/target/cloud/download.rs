//! Reading an object. Flows in: a key. Flows out: its bytes by range requests, each begun anew where the one before it
//! broke off, or an error: never fewer bytes than the object has, never bytes of another object that took its key, and at the
//! end the object's own SHA-256.

use std::io::{self, Read};
use std::sync::Arc;

use attohttpc::Method;
use sha2::{Digest, Sha256};

use super::Store;
use super::documents::{self, About};
use super::trouble::{is_changed, is_missing};
use super::wire::{Call, Place};
use crate::error::Error;
use crate::target::TargetError;
use crate::target::http::{Answer, Body, Haste};
use crate::target::trouble::{Doing, Line, Trouble};

/// How much is asked for at once, in bytes: small enough that a reader who takes minutes loses little.
const RANGE: u64 = 16 * 1024 * 1024;

/// An answer that is being read, and where it ends in the object.
type Piece = (Body, u64);

/// Opens an object.
pub fn open(target: &Arc<Store>, path: &str) -> Result<Box<dyn Read + Send>, TargetError> {
    let call = Call::new(Place::Object(path), Method::GET).with("range", format!("bytes=0-{}", RANGE - 1));
    let call = Call { haste: Haste::Reading, ..call };
    let first = target.wire.ask(&call, &|answer| {
        let about = documents::about(&answer)?;
        let size = match answer.header("content-range") {
            Some(range) if answer.status == 206 => range.rsplit('/').next().and_then(|size| size.parse().ok()),
            _ => answer.length(),
        };
        let size = size.ok_or_else(|| Trouble::Line(Line::Broken, "an answer without the object's size".to_owned()))?;
        Ok((about, size, piece(answer, 0, size)?))
    });
    let (about, size, piece) = first.map_err(|trouble| target.tell(&trouble, Doing::Get, path))?;
    Ok(Box::new(Reading {
        target: Arc::clone(target),
        path: path.to_owned(),
        about,
        size,
        at: 0,
        sum: Sha256::new(),
        piece: Some(piece),
        failed: None,
    }))
}

/// The piece from `at` on of an object of that size, if it is what was asked for.
fn piece(answer: Answer, at: u64, size: u64) -> Result<Piece, Trouble> {
    let end = size.min(at + RANGE);
    let whole = answer.status == 200 && at == 0;
    match answer.header("content-range") {
        // All of it instead of a piece: as good, at the start.
        _ if whole && answer.length() == Some(size) => Ok((answer.body, size)),
        Some(range) if answer.status == 206 && range == format!("bytes {at}-{}/{size}", end.saturating_sub(1)) => {
            Ok((answer.body, end))
        }
        range => Err(Trouble::Line(Line::Broken, format!("{range:?} came where bytes from {at} on were asked for"))),
    }
}

/// An object that is being read.
struct Reading {
    target: Arc<Store>,
    path: String,
    about: About,
    size: u64,
    at: u64,
    /// The SHA-256 of what was read.
    sum: Sha256,
    piece: Option<Piece>,
    /// Why it ended: who reads on gets it again.
    failed: Option<Error>,
}

impl Reading {
    fn next_piece(&self) -> Result<Piece, Trouble> {
        let end = self.size.min(self.at + RANGE);
        let call = Call::new(Place::Object(&self.path), Method::GET)
            .with("range", format!("bytes={}-{}", self.at, end.saturating_sub(1)))
            .with("if-match", &self.about.etag);
        let answer = self.target.wire.once(&Call { haste: Haste::Reading, ..call })?;
        piece(answer, self.at, self.size)
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
            Ok(0) => return Err(Trouble::cut(self.at, self.size)),
            Ok(count) => count,
            Err(error) => return Err(Trouble::from_io(&error)),
        };
        self.at += count as u64;
        self.sum.update(buffer.get(..count).unwrap_or_default());
        if self.at < end {
            self.piece = Some((body, end));
        } else if self.at == self.size && self.about.sha256 != <[u8; 32]>::from(self.sum.clone().finalize()) {
            let failure = self.target.wrong(&format!("{} came with other bytes than its SHA-256 says", self.path));
            return Err(Trouble::Told(failure.error));
        }
        Ok(count)
    }

    fn fail(&mut self, trouble: &Trouble) -> io::Error {
        let failure = if is_missing(trouble) || is_changed(trouble) {
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
        if self.at == self.size || buffer.is_empty() {
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
