//! Reading an object. Flows in: a key. Flows out: its bytes by range requests, each begun anew where the one before it
//! broke off, or an error: never fewer bytes than the object has, never bytes of another object.

use std::io::{self, Read};
use std::sync::Arc;

use s3::command::Command;

use super::Store;
use super::wire::{Answer, Call};
use crate::target::TargetError;
use crate::target::http::Body;
use crate::target::trouble::{Doing, Line, Trouble};

/// How much is asked for at once, in bytes: small enough that a reader who takes minutes loses little.
const RANGE: u64 = 16 * 1024 * 1024;

/// Opens an object, by asking for its first piece: the answer says how long the object is and which one it is.
pub fn open(target: &Arc<Store>, path: &str) -> Result<Box<dyn Read + Send>, TargetError> {
    let first = || Call::new(path, Command::GetObjectRange { start: 0, end: Some(RANGE - 1) });
    let opened = target.wire.ask(&first, &first_piece);
    let opened = match opened {
        // Of an object without a byte there is no piece.
        Err(Trouble::Refused(refusal)) if refusal.status == 416 => target.wire.ask(
            &|| Call::new(path, Command::HeadObject),
            &|answer| match (answer.length(), answer.etag()) {
                (Some(0), Some(etag)) => Ok((etag, 0, None)),
                _ => Err(Trouble::Line(Line::Broken, "no first piece of an object that has one".to_owned())),
            },
        ),
        opened => opened,
    };
    let (etag, length, piece) = opened.map_err(|trouble| target.tell(&trouble, Doing::Get, path))?;
    Ok(Box::new(Reading { target: Arc::clone(target), path: path.to_owned(), etag, length, at: 0, piece }))
}

/// The ETag, the length of the whole object, and its first piece.
fn first_piece(answer: Answer) -> Result<(String, u64, Option<Piece>), Trouble> {
    let Some(etag) = answer.etag() else {
        return Err(Trouble::Line(Line::Broken, "an answer without ETag".to_owned()));
    };
    let range = answer.header("content-range").map(ToOwned::to_owned);
    let length = match (answer.status, &range) {
        (206, Some(range)) => range.rsplit_once('/').and_then(|(_, length)| length.parse().ok()),
        // All of it instead of a piece: as good, at the start.
        (200, _) => answer.length(),
        _ => None,
    };
    let wrong = || Trouble::Line(Line::Broken, format!("{range:?} came where the first piece was asked for"));
    let length = length.ok_or_else(wrong)?;
    let end = if answer.status == 200 { length } else { length.min(RANGE) };
    if answer.status == 206 && (end == 0 || range != Some(format!("bytes 0-{}/{length}", end - 1))) {
        return Err(wrong());
    }
    Ok((etag, length, Some((answer.into_inner().body, end)).filter(|_| length > 0)))
}

/// An answer that is being read, and where it ends.
type Piece = (Body, u64);

/// An object that is being read.
struct Reading {
    target: Arc<Store>,
    path: String,
    etag: String,
    length: u64,
    at: u64,
    piece: Option<Piece>,
}

impl Reading {
    fn next_piece(&self) -> Result<Piece, Trouble> {
        let end = self.length.min(self.at + RANGE);
        let command = Command::GetObjectRange { start: self.at, end: Some(end - 1) };
        let headers = vec![("if-match", self.etag.clone())];
        let answer = self.target.wire.once(Call { headers, ..Call::new(&self.path, command) })?;
        let whole = answer.status == 200 && self.at == 0;
        let expected = format!("bytes {}-{}/{}", self.at, end - 1, self.length);
        match answer.header("content-range") {
            Some(range) if answer.status == 206 && range == expected => Ok((answer.into_inner().body, end)),
            // All of it instead of a piece: as good, at the start.
            _ if whole && answer.length() == Some(self.length) => Ok((answer.into_inner().body, self.length)),
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
        let count = match body.read(buffer.get_mut(..most).unwrap_or_default()) {
            Ok(0) => return Err(Trouble::cut(self.at, self.length)),
            Ok(count) => count,
            Err(error) => return Err(Trouble::from_io(&error)),
        };
        self.at += count as u64;
        if self.at < end {
            self.piece = Some((body, end));
        }
        Ok(count)
    }

    fn fail(&self, trouble: &Trouble) -> io::Error {
        let failure = match trouble {
            Trouble::Refused(refusal) if refusal.status == 412 => {
                self.target.wrong(&format!("{} was replaced while it was read", self.path))
            }
            _ => self.target.tell(trouble, Doing::Get, &self.path),
        };
        failure.error.into_io()
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.length || buffer.is_empty() {
            return Ok(0);
        }
        let target = Arc::clone(&self.target);
        let mut tries = target.wire.tries();
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
