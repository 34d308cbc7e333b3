//! Storing an object. Flows in: a body of unknown length. Flows out: one object that is whole, or nothing. It goes by a tus
//! upload whose length is told with the last chunk. Every chunk carries its SHA-256; after every answer that is not clear the
//! server is asked how much it has, and the rest of the chunk, which is still in memory, is sent from there. The upload is
//! terminated by [`Session`]'s end unless it is over, which takes back even an object that came of it; the object's own
//! SHA-256 is compared before it counts as stored.

use std::io::Read;

use attohttpc::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::Store;
use super::documents::{self, About};
use super::trouble::is_existing;
use super::wire::{Call, Place, Wire, refusal};
use crate::format::name::ObjectKey;
use crate::target::http::{Answer, Haste};
use crate::target::trouble::{Doing, Line, Trouble};
use crate::target::{Cause, Stored, TargetError};

/// Reads a body chunk by chunk; one byte ahead, so that the last chunk is known to be the last.
struct Chunks<'b> {
    body: &'b mut dyn Read,
    buffer: Vec<u8>,
    ahead: Option<u8>,
    size: usize,
    /// Where the chunk begins in the object.
    start: u64,
    last: bool,
    /// The SHA-256 of all up to the chunk's end.
    sum: Sha256,
}

impl Chunks<'_> {
    fn next(&mut self) -> Result<(), TargetError> {
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.extend(self.ahead.take());
        let wanted = self.size + 1 - self.buffer.len();
        self.buffer.reserve_exact(wanted);
        self.body.take(wanted as u64).read_to_end(&mut self.buffer).map_err(TargetError::body)?;
        self.last = self.buffer.len() <= self.size;
        if !self.last {
            self.ahead = self.buffer.pop();
        }
        self.sum.update(&self.buffer);
        Ok(())
    }

    fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// What is missing of the chunk when the server has all before `at`.
    fn rest(&self, at: u64) -> Option<&[u8]> {
        self.buffer.get(usize::try_from(at.checked_sub(self.start)?).ok()?..)
    }
}

/// What the server says of an upload.
enum State {
    /// It has all before `at`; whether it has been told the length.
    Has { at: u64, told: bool },
    /// It is over, and this is the object.
    Done(About),
}

/// One object on its way.
struct Put<'t> {
    target: &'t Store,
    key: &'t ObjectKey,
    path: String,
}

/// Stores a body under a key.
pub fn put(target: &Store, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
    let put = Put { target, key, path: target.path(key.as_str()) };
    let (size, sum) = (target.chunk, Sha256::new());
    let mut chunks = Chunks { body, buffer: Vec::new(), ahead: None, size, start: 0, last: false, sum };
    chunks.next()?;
    let session = put.begin()?;
    loop {
        if let Some(about) = put.send(&session, &chunks)? {
            return put.confirm(session, &about, &chunks);
        }
        chunks.next()?;
    }
}

impl Put<'_> {
    fn tell(&self, trouble: &Trouble) -> TargetError {
        if is_existing(trouble) {
            let message = format!("target {}: {} exists already", self.target.name, self.path);
            return TargetError::new(Cause::Exists, message);
        }
        self.target.tell(trouble, Doing::Put, &self.path)
    }

    /// Begins the upload. One whose answer gets lost shows nothing and ends by itself.
    fn begin(&self) -> Result<Session<'_>, TargetError> {
        let wire = &self.target.wire;
        let call = Call::tus(Place::Uploads, Method::POST)
            .with("upload-defer-length", "1")
            .with("upload-metadata", format!("key {}", STANDARD.encode(&self.path)));
        let begun = wire.ask(&call, &|answer| {
            let place = answer.header("location").and_then(|location| wire.upload(location));
            // It may be a stranger's answer in between.
            let place = place.filter(|_| answer.status == 201);
            place.ok_or_else(|| Trouble::Line(Line::Broken, "an upload without an address".to_owned()))
        });
        Ok(Session { wire, place: Some(begun.map_err(|trouble| self.tell(&trouble))?) })
    }

    /// Sends the chunk, whatever comes between. Gives the object when the server has made it.
    fn send(&self, session: &Session<'_>, chunks: &Chunks<'_>) -> Result<Option<About>, TargetError> {
        let mut tries = self.target.wire.client.tries();
        // How much the server has, if that is known, and whether it knows the length.
        let (mut at, mut told, mut known) = (chunks.start, false, true);
        // The most it ever had: one that forgets and takes anew makes no progress.
        let mut best = at;
        loop {
            let outcome = if known { session.patch(chunks, at, told) } else { session.state() };
            let trouble = match outcome {
                Ok(State::Done(about)) if chunks.last => return Ok(Some(about)),
                Ok(State::Done(_)) => Trouble::Strange("an upload that is over before its end".to_owned()),
                Ok(State::Has { at: has, .. }) if has == chunks.end() && !chunks.last => return Ok(None),
                Ok(State::Has { at: has, .. }) if has < chunks.start || has > chunks.end() => {
                    Trouble::Strange(format!("it has {has} bytes of an upload of {} to {}", chunks.start, chunks.end()))
                }
                // It took a part of it, which is progress, or has answered a question.
                Ok(State::Has { at: has, told: its }) if has > best || !known => {
                    if has > best {
                        tries.succeeded();
                    }
                    best = best.max(has);
                    (at, told, known) = (has, its, true);
                    continue;
                }
                Ok(State::Has { .. }) => Trouble::Line(Line::Broken, "the server took nothing of it".to_owned()),
                Err(trouble) => trouble,
            };
            if matches!(&trouble, Trouble::Refused(refusal) if matches!(refusal.status, 404 | 410)) {
                return Err(self.target.wrong(&format!("the upload of {} is gone at the server", self.path)));
            }
            if !trouble.is_passing() {
                return Err(self.tell(&trouble));
            }
            known = false;
            let again = tries.again(trouble.retry_after());
            if !again.map_err(|error| TargetError { cause: Cause::Failed, error })? {
                return Err(self.tell(&trouble));
            }
        }
    }

    /// Compares what the server has with what was sent.
    fn confirm(&self, mut session: Session<'_>, about: &About, chunks: &Chunks<'_>) -> Result<Stored, TargetError> {
        let sum: [u8; 32] = chunks.sum.clone().finalize().into();
        if about.sha256 != sum {
            let rest = if session.terminate() { "; it was removed" } else { "" };
            return Err(self.target.wrong(&format!("{} has another SHA-256 than what was sent{rest}", self.path)));
        }
        session.place = None;
        Ok(Stored { key: self.key.clone(), size: chunks.end(), modified: about.modified })
    }
}

/// An upload that is begun; terminated when it is dropped before it is over.
struct Session<'t> {
    wire: &'t Wire,
    place: Option<String>,
}

impl Session<'_> {
    /// Sends what the server has not got of the chunk, and with the last one the length.
    fn patch(&self, chunks: &Chunks<'_>, at: u64, told: bool) -> Result<State, Trouble> {
        let rest = chunks.rest(at).unwrap_or_default();
        let sum = STANDARD.encode(Sha256::digest(rest));
        let mut call = Call::tus(self.place(), Method::PATCH)
            .with("content-type", "application/offset+octet-stream")
            .with("upload-offset", at.to_string())
            .with("upload-checksum", format!("sha256 {sum}"));
        if chunks.last && !told {
            call = call.with("upload-length", chunks.end().to_string());
        }
        let haste = if chunks.last { Haste::Completing } else { Haste::Usual };
        state(self.wire.raw(&Call { body: rest, haste, ..call })?, chunks.last)
    }

    /// How much the server has.
    fn state(&self) -> Result<State, Trouble> {
        let call = Call { haste: Haste::Completing, ..Call::tus(self.place(), Method::HEAD) };
        state(self.wire.raw(&call)?, false)
    }

    fn place(&self) -> Place<'_> {
        Place::Upload(self.place.as_deref().unwrap_or_default())
    }

    /// Ends it for good, also after a signal; whether that is sure. What can't be ended now shows nothing, and the server
    /// forgets it.
    fn terminate(&mut self) -> bool {
        let Some(place) = self.place.take() else { return true };
        let wire = self.wire.for_cleanup();
        let call = Call::tus(Place::Upload(&place), Method::DELETE);
        let ended = wire.client.again(&mut || match wire.raw(&call)? {
            answer if matches!(answer.status, 204 | 404 | 410) => Ok(()),
            answer => Err(refusal(answer)),
        });
        ended.is_ok()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Reads what an answer says of the upload. `told`: whether the request told the length.
fn state(answer: Answer, told: bool) -> Result<State, Trouble> {
    let broken = |why: &str| Trouble::Line(Line::Broken, why.to_owned());
    if !answer.is_success() {
        let trouble = refusal(answer);
        return match &trouble {
            Trouble::Refused(refusal) if refusal.status == 409 && !is_existing(&trouble) => {
                Err(broken("the server is at another offset"))
            }
            _ => Err(trouble),
        };
    }
    if answer.header("content-location").is_some() {
        return documents::about(&answer).map(State::Done);
    }
    let at = answer.header("upload-offset").and_then(|offset| offset.trim().parse().ok());
    let told = told || answer.header("upload-length").is_some();
    at.map(|at| State::Has { at, told }).ok_or_else(|| broken("an answer that says nothing of the upload"))
}
