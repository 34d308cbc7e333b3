//! Storing an object. Flows in: a body of unknown length. Flows out: one object that is whole, or nothing. A body of one
//! part is one PUT, a longer one a multipart upload that is aborted by [`Upload`]'s end unless it was completed. While parts
//! are under way the next one is read: some at once while they are small, one at a time when they are large.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use s3::command::{Command, Multipart};
use s3::serde_types::{CompleteMultipartUploadData, Part};

use super::pages;
use super::trouble::Words;
use super::wire::{Answer, Call, Wire};
use super::{Lock, Store};
use crate::format::name::ObjectKey;
use crate::format::time::rfc3339;
use crate::target::trouble::{Doing, Line, Trouble};
use crate::target::{Cause, Stored, TargetError};

/// Carries a random text by which an object is known to be of this very upload, after an answer that got lost.
const MARK: &str = "x-amz-meta-voxeltron-put";
/// A mebibyte.
const MIB: u64 = 1024 * 1024;
/// The largest part but for very large objects, in bytes: one is in memory at a time.
const LARGE: u64 = 64 * MIB;
/// What parts under way may take up, in bytes, unless one alone does.
const UNDER_WAY: u64 = 24 * MIB;
/// The largest part that stores take, in bytes.
const LARGEST: u64 = 5000 * MIB;
/// From this part on, parts double every [`STEP`], so that 10,000 of them hold what the largest store takes.
const STEEP: u32 = 4000;
/// How many parts have one size then.
const STEP: u32 = 1000;
/// How many parts have one size before.
const GENTLE: u32 = 100;

/// The size of a part by its number from 1, in bytes. It grows, so that 1,000 parts (all that some stores take) hold
/// 40 GiB, 4,000 parts 228 GiB, with no more than [`LARGE`] in memory, and 10,000 parts 8 TiB.
pub fn part_size(base: u64, number: u32) -> u64 {
    let grown = base.saturating_mul(u64::from(1 + number.saturating_sub(1) / GENTLE)).min(LARGE.max(base));
    let steps = if number > STEEP { 1 + (number - STEEP - 1) / STEP } else { 0 };
    grown.saturating_mul(1 << steps.min(16)).min(LARGEST)
}

/// How many parts of that size are sent at once.
fn lanes(size: u64) -> usize {
    usize::try_from(UNDER_WAY / size.max(1)).unwrap_or(1).clamp(1, 3)
}

/// Reads a body part by part; one byte ahead, so that the last part is known to be the last.
struct Parts<'b> {
    body: &'b mut dyn Read,
    buffer: Vec<u8>,
    ahead: Option<u8>,
    number: u32,
    base: u64,
}

impl Parts<'_> {
    /// Whether the part that is in the buffer now is the last.
    fn next(&mut self) -> Result<bool, TargetError> {
        self.number += 1;
        let size = part_size(self.base, self.number);
        self.buffer.clear();
        self.buffer.extend(self.ahead.take());
        let wanted = size + 1 - self.buffer.len() as u64;
        self.buffer.reserve_exact(usize::try_from(wanted).unwrap_or_default());
        self.body.take(wanted).read_to_end(&mut self.buffer).map_err(TargetError::body)?;
        let more = self.buffer.len() as u64 > size;
        if more {
            self.ahead = self.buffer.pop();
        }
        Ok(!more)
    }
}

/// What stands under a key.
enum Found {
    /// This upload's own object, of that size.
    Mine(Stored),
    /// Another's, of that size, with the mark it has.
    Another(u64, Option<String>),
    /// Nothing.
    Nothing,
    /// We may not know.
    Hidden,
}

/// One object on its way.
struct Put<'t> {
    target: &'t Store,
    key: &'t ObjectKey,
    path: String,
    mark: String,
    size: u64,
    /// Until when nobody may remove it.
    lock: Option<&'t Lock>,
}

/// Stores a body under a key.
pub fn put(target: &Store, key: &ObjectKey, body: &mut dyn Read, lock: Option<&Lock>) -> Result<Stored, TargetError> {
    let mark = target.wire.client.world.random_hex(16).map_err(|error| TargetError { cause: Cause::Failed, error })?;
    let mut put = Put { target, key, path: target.path(key.as_str()), mark, size: 0, lock };
    // Stores that know no conditions are asked before; between this and the end another writer could still come. The
    // others settle it themselves.
    if !matches!(put.look(&target.wire)?, Found::Nothing | Found::Hidden) {
        return Err(put.exists());
    }
    let mut parts = Parts { body, buffer: Vec::new(), ahead: None, number: 0, base: target.part_size };
    if parts.next()? {
        put.size = parts.buffer.len() as u64;
        put.commit(&|conditional| put.whole(&parts.buffer, conditional))?;
    } else {
        put.in_parts(&mut parts)?;
    }
    put.confirm()
}

impl Put<'_> {
    fn tell(&self, trouble: &Trouble) -> TargetError {
        self.target.tell(trouble, Doing::Put, &self.path)
    }

    fn exists(&self) -> TargetError {
        TargetError::new(Cause::Exists, format!("target {}: {} exists already", self.target.name, self.path))
    }

    fn headers(&self, conditional: bool) -> Vec<(&'static str, String)> {
        let mut headers = self.storage_headers();
        headers.extend(conditional.then(|| ("if-none-match", "*".to_owned())));
        headers
    }

    fn storage_headers(&self) -> Vec<(&'static str, String)> {
        let class = self.target.storage_class.clone().map(|class| ("x-amz-storage-class", class));
        let protection = &self.target.protection;
        let encryption = protection.encryption.clone().map(|kind| ("x-amz-server-side-encryption", kind));
        let key = protection.kms_key.clone().map(|key| ("x-amz-server-side-encryption-aws-kms-key-id", key));
        let now = self.target.wire.client.world.clock.now();
        let lock = self.lock.into_iter().flat_map(|lock| {
            let until = now + TimeDelta::days(lock.days.into());
            [("x-amz-object-lock-mode", lock.mode.clone()), ("x-amz-object-lock-retain-until-date", rfc3339(until))]
        });
        let mark = (MARK, self.mark.clone());
        class.into_iter().chain(encryption).chain(key).chain(lock).chain([mark]).collect()
    }

    /// What stands there now. A store's refusal is no answer; that it can't be reached is an error.
    fn look(&self, wire: &Wire) -> Result<Found, TargetError> {
        let answer = wire.ask(&|| Call::new(&self.path, Command::HeadObject), &|answer| {
            Ok((answer.header(MARK).map(ToOwned::to_owned), Store::stored(self.key, &answer)?))
        });
        match answer {
            Ok((Some(mark), stored)) if mark == self.mark => Ok(Found::Mine(stored)),
            Ok((mark, stored)) => Ok(Found::Another(stored.size, mark)),
            Err(trouble) if trouble.is_missing() || trouble.is_bare_404() => Ok(Found::Nothing),
            Err(trouble @ Trouble::Refused(_)) if !trouble.is_passing() => Ok(Found::Hidden),
            Err(trouble) => Err(self.tell(&trouble)),
        }
    }

    /// The object in one request.
    fn whole(&self, bytes: &[u8], conditional: bool) -> Result<(), Trouble> {
        let command =
            Command::PutObject { content: bytes, content_type: KIND_OF_BYTES, custom_headers: None, multipart: None };
        let call = Call { headers: self.headers(conditional), body: bytes, ..Call::new(&self.path, command) };
        check_etag(&self.target.wire.once(call)?).map(drop)
    }

    /// Sends what makes the object visible, until it is known to be, or not to be. After an answer that got lost, what
    /// stands there decides.
    fn commit(&self, send: &dyn Fn(bool) -> Result<(), Trouble>) -> Result<(), TargetError> {
        let mut tries = self.target.wire.tries();
        let conditions: &AtomicBool = &self.target.conditions;
        loop {
            let conditional = conditions.load(Ordering::Relaxed);
            let Err(trouble) = send(conditional) else { return Ok(()) };
            if conditional && trouble.is_not_implemented() {
                conditions.store(false, Ordering::Relaxed);
                continue;
            }
            // A signal in the middle of it leaves it unsure, too.
            let stopped = matches!(trouble, Trouble::Told(_));
            if trouble.is_precondition() || trouble.is_unsure() || trouble.is_missing() || stopped {
                match self.look(&self.target.wire.for_cleanup()) {
                    Ok(Found::Mine(_)) => return Ok(()),
                    Ok(Found::Another(size, None)) if trouble.is_unsure() && size == self.size => return Ok(()),
                    Ok(Found::Another(..)) => return Err(self.exists()),
                    Ok(Found::Hidden) if trouble.is_precondition() => return Err(self.exists()),
                    // Of two that meet, some stores refuse both: then there is nothing, and one tries again.
                    Ok(Found::Nothing) if trouble.is_precondition() => {}
                    _ if !trouble.is_passing() => return Err(self.tell(&trouble)),
                    _ => {}
                }
            } else if !trouble.is_passing() {
                self.clear();
                return Err(self.tell(&trouble));
            }
            let again = tries.again(trouble.retry_after());
            if !again.map_err(|error| TargetError { cause: Cause::Failed, error })? {
                return Err(self.tell(&trouble));
            }
        }
    }

    /// Removes what stands there after a refusal: versitygw makes an object before it refuses the lock for it.
    fn clear(&self) {
        let wire = self.target.wire.for_cleanup();
        if self.lock.is_some() && matches!(self.look(&wire), Ok(Found::Mine(_))) {
            // What can't be removed now is swept later: no manifest names it.
            let _ = self.target.remove(&wire, &self.path);
        }
    }

    /// The object in parts; the first is in the buffer.
    fn in_parts(&mut self, parts: &mut Parts<'_>) -> Result<(), TargetError> {
        let target = self.target;
        let path = self.path.clone();
        let mut upload = Upload::new(target, &path);
        let id = upload.begin(self.storage_headers()).map_err(|trouble| self.tell(&trouble))?;
        let (size, mut done) = self.send_all(&id, parts)?;
        self.size = size;
        done.sort_unstable_by_key(|part| part.part_number);
        let data = CompleteMultipartUploadData { parts: done };
        self.commit(&|conditional| self.complete(&id, &data, conditional))?;
        upload.is_over();
        Ok(())
    }

    /// Reads and sends all parts; gives the size of them all. After the first failure no other part is begun.
    fn send_all(&self, id: &str, parts: &mut Parts<'_>) -> Result<(u64, Vec<Part>), TargetError> {
        let (to_send, work) = crossbeam_channel::bounded::<(u32, Vec<u8>)>(0);
        let (report, sent) = crossbeam_channel::unbounded::<(u32, Vec<u8>, Result<String, Trouble>)>();
        // It owns the channels, so that its end, good or bad, ends the threads.
        std::thread::scope(move |scope| {
            let (mut busy, mut lanes_open) = (0, 0);
            let (mut size, mut done, mut spare) = (0, Vec::new(), Vec::new());
            let mut last = false;
            loop {
                let most = lanes(parts.buffer.len() as u64);
                while busy >= most {
                    let (number, buffer, outcome) = sent.recv().map_err(|_| self.target.wrong("a part got lost"))?;
                    busy -= 1;
                    done.push(Part { part_number: number, etag: outcome.map_err(|trouble| self.tell(&trouble))? });
                    spare.push(buffer);
                }
                if lanes_open <= busy {
                    lanes_open += 1;
                    let (work, report) = (work.clone(), report.clone());
                    scope.spawn(move || {
                        for (number, content) in work {
                            // One that panics must be heard of, too: else everybody waits for it.
                            let outcome = catch_unwind(AssertUnwindSafe(|| self.part(id, number, &content)));
                            let lost = |_| Err(Trouble::Strange("a part that got lost on its way".to_owned()));
                            let outcome = outcome.unwrap_or_else(lost);
                            // Nobody waits for it after a failure.
                            let _ = report.send((number, content, outcome));
                        }
                    });
                }
                size += parts.buffer.len() as u64;
                let full = std::mem::replace(&mut parts.buffer, spare.pop().unwrap_or_default());
                busy += 1;
                to_send.send((parts.number, full)).map_err(|_| self.target.wrong("a part got lost"))?;
                if last {
                    break;
                }
                // A larger part is not read before smaller ones have made room for it, nor are their buffers kept.
                let most = lanes(part_size(parts.base, parts.number + 1));
                while busy > most {
                    let (number, _, outcome) = sent.recv().map_err(|_| self.target.wrong("a part got lost"))?;
                    busy -= 1;
                    done.push(Part { part_number: number, etag: outcome.map_err(|trouble| self.tell(&trouble))? });
                }
                spare.truncate(most - busy);
                last = parts.next()?;
            }
            drop(to_send);
            for _ in 0..busy {
                let (number, _, outcome) = sent.recv().map_err(|_| self.target.wrong("a part got lost"))?;
                done.push(Part { part_number: number, etag: outcome.map_err(|trouble| self.tell(&trouble))? });
            }
            Ok((size, done))
        })
    }

    /// One part, checked by its digest on both sides.
    fn part(&self, id: &str, number: u32, content: &[u8]) -> Result<String, Trouble> {
        let call = || {
            let multipart = Some(Multipart::new(number, id));
            let command = Command::PutObject { content, content_type: KIND_OF_BYTES, custom_headers: None, multipart };
            Call { body: content, ..Call::new(&self.path, command) }
        };
        self.target.wire.ask(&call, &|answer| check_etag(&answer))
    }

    /// Joins the parts. A store may say 200 before it tries, and tell of a failure in the body.
    fn complete(&self, id: &str, data: &CompleteMultipartUploadData, conditional: bool) -> Result<(), Trouble> {
        let body = data.to_string();
        let command = Command::CompleteMultipartUpload { upload_id: id, data: data.clone() };
        let headers = conditional.then(|| ("if-none-match", "*".to_owned())).into_iter().collect();
        let answer =
            self.target.wire.once(Call { headers, body: body.as_bytes(), ..Call::new(&self.path, command) })?;
        pages::completed(&answer.into_inner().document()?)
    }

    /// Looks whether all of it is there, under our mark.
    fn confirm(&self) -> Result<Stored, TargetError> {
        let found = match self.look(&self.target.wire)? {
            // Nothing is removed because of one wrong answer.
            Found::Mine(stored) if stored.size != self.size => self.look(&self.target.wire)?,
            found => found,
        };
        match found {
            Found::Mine(stored) if stored.size == self.size => Ok(stored),
            // A key that may write but not read: every part's digest was confirmed, and that has to do.
            Found::Hidden => Ok(Stored { key: self.key.clone(), size: self.size, modified: None }),
            Found::Mine(stored) => {
                let removed = self.target.remove(&self.target.wire.for_cleanup(), &self.path).is_ok();
                let rest = if removed { "; it was removed" } else { "" };
                Err(self
                    .target
                    .wrong(&format!("{} has {} bytes after {} were sent{rest}", self.path, stored.size, self.size)))
            }
            Found::Nothing => Err(self.target.wrong(&format!("{} was stored, and is not there", self.path))),
            // A store that keeps no metadata is known by the size alone.
            Found::Another(size, None) if size == self.size => {
                Ok(Stored { key: self.key.clone(), size, modified: None })
            }
            Found::Another(..) => Err(self.exists()),
        }
    }
}

/// What an object is said to hold.
const KIND_OF_BYTES: &str = "application/octet-stream";

/// The ETag of what was sent. That of plain bytes is their MD5, unless the store encrypts them with a managed key.
fn check_etag(answer: &Answer) -> Result<String, Trouble> {
    let Some(given) = answer.etag() else {
        return Err(Trouble::Line(Line::Broken, "an answer without an ETag".to_owned()));
    };
    let managed = answer.header("x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256")
        || answer.header("x-amz-server-side-encryption-customer-algorithm").is_some();
    let (Some(sent), false) = (answer.sent_md5.as_ref(), managed) else { return Ok(given) };
    let etag = given.trim_matches('"').to_ascii_lowercase();
    let is_md5 = etag.len() == sent.len() && etag.chars().all(|c| c.is_ascii_hexdigit());
    if is_md5 && etag != *sent {
        return Err(Trouble::Line(Line::Broken, format!("the store has other bytes ({etag}) than were sent ({sent})")));
    }
    Ok(given)
}

/// A multipart upload that is begun; aborted when it is dropped before it is over.
struct Upload<'t> {
    target: &'t Store,
    path: &'t str,
    id: Option<String>,
    /// An answer to the beginning got lost: there may be another upload, whose id nobody knows.
    unsure: bool,
}

impl<'t> Upload<'t> {
    fn new(target: &'t Store, path: &'t str) -> Self {
        Self { target, path, id: None, unsure: false }
    }

    fn begin(&mut self, headers: Vec<(&'static str, String)>) -> Result<String, Trouble> {
        let wire = &self.target.wire;
        let mut tries = wire.tries();
        loop {
            let command = Command::InitiateMultipartUpload { content_type: KIND_OF_BYTES };
            let call = Call { headers: headers.clone(), ..Call::new(self.path, command) };
            let answer = wire.once(call).and_then(|answer| pages::begun(&answer.into_inner().document()?));
            let trouble = match answer {
                Ok(id) => return Ok(self.id.insert(query(&id)).clone()),
                Err(trouble) => trouble,
            };
            self.unsure |= trouble.is_unsure();
            if !trouble.is_passing() || !tries.again(trouble.retry_after()).map_err(Trouble::Told)? {
                return Err(trouble);
            }
        }
    }

    fn is_over(&mut self) {
        self.id = None;
    }
}

impl Drop for Upload<'_> {
    /// What can't be aborted now is swept later.
    fn drop(&mut self) {
        let wire = self.target.wire.for_cleanup();
        if let Some(id) = self.id.take()
            && let Err(trouble) = abort(&wire, self.path, &id)
        {
            let failure = self.target.tell(&trouble, Doing::Sweep, self.path).error;
            let hint = failure.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            let text = format!("{}: what was sent stays there until it is swept{hint}", failure.message);
            self.target.report.warn(&text);
        }
        if self.unsure {
            let found = pages::uploads(&wire, self.path).unwrap_or_default();
            for upload in found.into_iter().filter(|upload| upload.key == self.path) {
                let _ = abort(&wire, self.path, &query(&upload.upload_id));
            }
        }
    }
}

/// Aborts an upload; one that is not there is aborted already. `id` is as [`query`] gives it.
pub fn abort(wire: &Wire, path: &str, id: &str) -> Result<(), Trouble> {
    let call = || Call::new(path, Command::AbortMultipartUpload { upload_id: id });
    match wire.ask(&call, &|_| Ok(())) {
        Err(trouble) if !trouble.is_missing() => Err(trouble),
        _ => Ok(()),
    }
}

/// An upload's id as it stands in a URL: `s3` puts it there as it is.
pub fn query(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(base: u64, parts: u32) -> u64 {
        (1..=parts).map(|number| part_size(base, number)).sum::<u64>() / (1024 * MIB)
    }

    #[test]
    fn parts_grow_so_that_their_number_limits_nothing() {
        assert_eq!(part_size(8 * MIB, 1), 8 * MIB);
        assert_eq!(part_size(8 * MIB, 100), 8 * MIB);
        assert_eq!(part_size(8 * MIB, 101), 16 * MIB);
        assert_eq!((held(8 * MIB, 1000), held(8 * MIB, 4000)), (40, 228));
        assert!(held(8 * MIB, 10_000) > 8000 && held(5 * MIB, 10_000) > 7000);
    }

    #[test]
    fn no_part_is_too_large_or_smaller_than_the_one_before() {
        for base in [5 * MIB, 8 * MIB, 100 * MIB, LARGEST] {
            let mut before = base;
            for number in 1..=10_000 {
                let size = part_size(base, number);
                assert!((before..=LARGEST).contains(&size), "{number}: {size}");
                assert!(number > STEEP || size <= LARGE.max(base));
                before = size;
            }
        }
    }
}
