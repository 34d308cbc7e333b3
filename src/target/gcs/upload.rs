//! Storing an object. Flows in: a body of unknown length. Flows out: one object that is whole, or nothing. It goes by a
//! resumable upload, chunk by chunk; after every answer that is not clear the store is asked how much it has, and the rest
//! of the chunk, which is still in memory, is sent from there. The upload is cancelled by [`Session`]'s end unless it is
//! over; the object's own CRC-32C and size are compared before it counts as stored.

use std::io::Read;

use attohttpc::Method;
use serde_json::json;

use super::Store;
use super::documents::{self, Object};
use super::trouble::is_precondition;
use super::wire::{Call, Wire, refusal};
use crate::format::name::ObjectKey;
use crate::target::http::{Answer, Haste};
use crate::target::trouble::{Doing, Line, Trouble};
use crate::target::{Cause, Stored, TargetError};

/// Carries a random text by which an object is known to be of this very upload, after an answer that got lost.
const MARK: &str = "voxeltron-put";
/// What an object is said to hold. Never a Content-Encoding: the store would unpack it for some readers.
const KIND_OF_BYTES: &str = "application/octet-stream";

/// Reads a body chunk by chunk; one byte ahead, so that the last chunk is known to be the last.
struct Chunks<'b> {
    body: &'b mut dyn Read,
    buffer: Vec<u8>,
    ahead: Option<u8>,
    size: usize,
    /// Where the chunk begins in the object.
    start: u64,
    last: bool,
    /// The CRC-32C of all up to the chunk's end.
    sum: u32,
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
        self.sum = crc32c::crc32c_append(self.sum, &self.buffer);
        Ok(())
    }

    fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// What is missing of the chunk when the store has all before `at`.
    fn rest(&self, at: u64) -> Option<&[u8]> {
        self.buffer.get(usize::try_from(at.checked_sub(self.start)?).ok()?..)
    }
}

/// What the store says of an upload.
enum State {
    /// It has all before this byte.
    Has(u64),
    /// It is over, and this is the object.
    Done(Box<Object>),
}

/// One object on its way.
struct Put<'t> {
    target: &'t Store,
    key: &'t ObjectKey,
    path: String,
    mark: String,
}

/// Stores a body under a key.
pub fn put(target: &Store, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
    let mark = target.wire.client.world.random_hex(16).map_err(|error| TargetError { cause: Cause::Failed, error })?;
    let put = Put { target, key, path: target.path(key.as_str()), mark };
    let mut chunks =
        Chunks { body, buffer: Vec::new(), ahead: None, size: target.chunk, start: 0, last: false, sum: 0 };
    chunks.next()?;
    let mut session = put.begin()?;
    loop {
        if let Some(object) = put.send(&session, &chunks)? {
            session.is_over();
            return put.confirm(&object, &chunks);
        }
        chunks.next()?;
    }
}

impl Put<'_> {
    fn tell(&self, trouble: &Trouble) -> TargetError {
        if is_precondition(trouble) {
            return self.exists();
        }
        self.target.tell(trouble, Doing::Put, &self.path)
    }

    fn exists(&self) -> TargetError {
        TargetError::new(Cause::Exists, format!("target {}: {} exists already", self.target.name, self.path))
    }

    /// Begins the upload. One whose answer gets lost shows nothing and ends by itself.
    fn begin(&self) -> Result<Session<'_>, TargetError> {
        let mut about = json!({"name": self.path, "contentType": KIND_OF_BYTES, "metadata": {MARK: self.mark}});
        if let (Some(class), Some(about)) = (&self.target.storage_class, about.as_object_mut()) {
            about.insert("storageClass".to_owned(), json!(class));
        }
        let about = about.to_string();
        let call = || Call {
            query: vec![
                ("uploadType", "resumable".to_owned()),
                ("name", self.path.clone()),
                // Only if there is nothing.
                ("ifGenerationMatch", "0".to_owned()),
            ],
            headers: vec![
                ("content-type", "application/json; charset=UTF-8".to_owned()),
                ("x-upload-content-type", KIND_OF_BYTES.to_owned()),
            ],
            body: about.as_bytes(),
            ..Call::begin()
        };
        let wire = &self.target.wire;
        let begun = wire.ask(&call, &|answer| {
            let session = answer.header("location").and_then(|location| wire.session(location));
            // It may be a stranger's answer in between.
            session.ok_or_else(|| Trouble::Line(Line::Broken, "an upload without an address".to_owned()))
        });
        let url = begun.map_err(|trouble| self.tell(&trouble))?;
        // Who has it can write.
        let id = url.split(['?', '&']).find_map(|pair| pair.strip_prefix("upload_id="));
        id.into_iter().for_each(|id| wire.auth.hide(id));
        Ok(Session { wire, url: Some(url) })
    }

    /// Sends the chunk, whatever comes between. Gives the object when the store has the last one.
    fn send(&self, session: &Session<'_>, chunks: &Chunks<'_>) -> Result<Option<Object>, TargetError> {
        let mut tries = self.target.wire.client.tries();
        // How much the store has, if that is known.
        let (mut at, mut known) = (chunks.start, true);
        // The most it ever had: one that forgets and takes anew makes no progress.
        let mut best = at;
        loop {
            let outcome = if known { session.put(chunks, at) } else { session.state() };
            let trouble = match outcome {
                Ok(State::Done(object)) if chunks.last => return Ok(Some(*object)),
                Ok(State::Done(object)) => {
                    // A part is visible now, and must not stay.
                    let wire = self.target.wire.for_cleanup();
                    let removed = self.target.remove(&wire, &self.path, Some(&object.generation)).is_ok();
                    let rest = if removed { "; it was removed" } else { "" };
                    Trouble::Strange(format!("an upload that is over before its end{rest}"))
                }
                Ok(State::Has(has)) if has == chunks.end() && !chunks.last => return Ok(None),
                Ok(State::Has(has)) if has < chunks.start || has > chunks.end() => {
                    Trouble::Strange(format!("it has {has} bytes of an upload of {} to {}", chunks.start, chunks.end()))
                }
                Ok(State::Has(has)) if has > best => {
                    // It took a part of it: that is progress.
                    (at, known, best) = (has, true, has);
                    tries.succeeded();
                    continue;
                }
                // As much as before. After a question that is an answer; after a chunk it is none.
                Ok(State::Has(has)) if !known => {
                    (at, known) = (has, true);
                    continue;
                }
                Ok(State::Has(_)) => Trouble::Line(Line::Broken, "the store took nothing of it".to_owned()),
                Err(trouble) => trouble,
            };
            if let Some(settled) = self.settle(&trouble, chunks)? {
                return Ok(Some(settled));
            }
            if matches!(&trouble, Trouble::Refused(refusal) if matches!(refusal.status, 404 | 410)) {
                return Err(self.target.wrong(&format!("the upload of {} is gone at the store", self.path)));
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

    /// After the last chunk the upload may be over, and known no more: then what stands there decides.
    fn settle(&self, trouble: &Trouble, chunks: &Chunks<'_>) -> Result<Option<Object>, TargetError> {
        let gone = matches!(trouble, Trouble::Refused(refusal) if matches!(refusal.status, 404 | 410 | 412));
        // A signal in the middle of it leaves it unsure, too.
        let strange = matches!(trouble, Trouble::Strange(_) | Trouble::Told(_));
        if !chunks.last || !(gone || strange) {
            return Ok(None);
        }
        match self.target.look(&self.target.wire.for_cleanup(), &self.path) {
            Ok(Some(object)) if object.said(MARK) == Some(&self.mark) => Ok(Some(object)),
            Ok(Some(_)) => Err(self.exists()),
            _ => Ok(None),
        }
    }

    /// Compares what the store has with what was sent.
    fn confirm(&self, object: &Object, chunks: &Chunks<'_>) -> Result<Stored, TargetError> {
        let (size, sum) = (chunks.end(), chunks.sum);
        let wrong = match object.checksum() {
            _ if object.size != size => format!("{} bytes after {size} were sent", object.size),
            Some(theirs) if theirs != sum => format!("the checksum {theirs:08x} after {sum:08x} was sent"),
            None => "no checksum to compare".to_owned(),
            Some(_) => return Ok(object.stored(self.key)),
        };
        let removed = self.target.remove(&self.target.wire.for_cleanup(), &self.path, Some(&object.generation)).is_ok();
        let rest = if removed { "; it was removed" } else { "" };
        Err(self.target.wrong(&format!("{} has {wrong}{rest}", self.path)))
    }
}

/// An upload that is begun; cancelled when it is dropped before it is over.
struct Session<'t> {
    wire: &'t Wire,
    url: Option<String>,
}

impl Session<'_> {
    fn is_over(&mut self) {
        self.url = None;
    }

    /// Sends what the store has not got of the chunk.
    fn put(&self, chunks: &Chunks<'_>, at: u64) -> Result<State, Trouble> {
        let rest = chunks.rest(at).unwrap_or_default();
        let total = if chunks.last { chunks.end().to_string() } else { "*".to_owned() };
        let range = match rest.len() as u64 {
            // Nothing but the end is missing.
            0 => format!("bytes */{total}"),
            length => format!("bytes {at}-{}/{total}", at + length - 1),
        };
        let haste = if chunks.last { Haste::Completing } else { Haste::Usual };
        self.ask(range, rest, haste)
    }

    /// How much the store has.
    fn state(&self) -> Result<State, Trouble> {
        self.ask("bytes */*".to_owned(), &[], Haste::Usual)
    }

    fn ask(&self, range: String, body: &[u8], haste: Haste) -> Result<State, Trouble> {
        let headers = vec![("content-range", range), ("content-type", KIND_OF_BYTES.to_owned())];
        let url = self.url.as_deref().unwrap_or_default();
        let answer = self.wire.raw(&Call { headers, body, haste, ..Call::session(url) })?;
        match answer.status {
            308 => has(&answer).map(State::Has),
            _ if answer.is_success() => {
                // One that can't be read is as good as none: the next question tells.
                let object = answer.document().and_then(|text| documents::object(&text));
                let lost = |_| Trouble::Line(Line::Broken, "an answer that describes no object".to_owned());
                object.map(|object| State::Done(Box::new(object))).map_err(lost)
            }
            _ => Err(refusal(answer)),
        }
    }
}

/// How much a 308 says that there is: `Range: bytes=0-N`, or no such header for nothing.
fn has(answer: &Answer) -> Result<u64, Trouble> {
    let Some(range) = answer.header("range") else { return Ok(0) };
    let last = range.trim().strip_prefix("bytes=0-").and_then(|last| last.parse::<u64>().ok());
    let strange = || Trouble::Line(Line::Broken, format!("{range:?} as the part of an upload that is there"));
    last.and_then(|last| last.checked_add(1)).ok_or_else(strange)
}

impl Drop for Session<'_> {
    /// What can't be cancelled now shows nothing, and the store forgets it after a week.
    fn drop(&mut self) {
        let Some(url) = self.url.take() else { return };
        let wire = self.wire.for_cleanup();
        let call = Call { method: Method::DELETE, ..Call::session(&url) };
        // 499 is how the store says yes.
        let _ = wire.client.again(&mut || match wire.raw(&call)? {
            answer if answer.status < 500 => Ok(()),
            answer => Err(refusal(answer)),
        });
    }
}
