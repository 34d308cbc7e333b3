//! Reading an object. Flows in: a key. Flows out: its bytes by range requests, each begun anew where the one before it
//! broke off, or an error: never fewer bytes than the object has, never bytes of another object.

use std::io::{self, Read};
use std::sync::Arc;

use attohttpc::ResponseReader;
use s3::command::Command;

use super::Store;
use super::wire::Call;
use crate::target::TargetError;
use crate::target::trouble::{Doing, Line, Trouble};

/// How much is asked for at once, in bytes: small enough that a reader who takes minutes loses little.
const RANGE: u64 = 16 * 1024 * 1024;

/// Opens an object.
pub fn open(target: &Arc<Store>, path: &str) -> Result<Box<dyn Read + Send>, TargetError> {
    let tell = |trouble: &Trouble| target.tell(trouble, Doing::Get, path);
    let asked = || {
        target.wire.ask(&|| Call::new(path, Command::HeadObject), &|answer| match (answer.length(), answer.etag()) {
            (Some(length), Some(etag)) => Ok((length, etag)),
            _ => Err(Trouble::Line(Line::Broken, "an answer without length and ETag".to_owned())),
        })
    };
    let mut head = asked();
    if head.as_ref().is_err_and(|trouble| matches!(trouble, Trouble::Refused(_)) && !trouble.is_passing()) {
        // A refused HEAD has no body to say why; the same by GET has one.
        let why = target.wire.ask(
            &|| Call::new(path, Command::GetObjectRange { start: 0, end: Some(0) }),
            // Not refused: it has come in between.
            &|_| Ok(()),
        );
        head = why.and_then(|()| asked());
    }
    let (length, etag) = head.map_err(|trouble| tell(&trouble))?;
    let path = path.to_owned();
    Ok(Box::new(Reading { target: Arc::clone(target), path, etag, length, at: 0, piece: None }))
}

/// An object that is being read.
struct Reading {
    target: Arc<Store>,
    path: String,
    etag: String,
    length: u64,
    at: u64,
    /// The answer that is being read, and where it ends.
    piece: Option<(ResponseReader, u64)>,
}

impl Reading {
    fn next_piece(&self) -> Result<(ResponseReader, u64), Trouble> {
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
