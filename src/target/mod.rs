//! Targets: where backups are kept. Flows in: bytes under a key. Flows out: the same bytes, and listings. A new target
//! is one file and one line in [`REGISTRY`]; `tests/conformance` is what each has to pass.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::table::Table;
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::format::name::ObjectKey;
use records::Records;
pub use signal::AfterSignal;

pub mod cloud;
pub mod gcs;
pub mod http;
pub mod local;
pub mod memory;
pub mod patient;
pub mod records;
pub mod retry;
pub mod s3;
pub mod signal;
pub mod trouble;

/// Every kind of target that the configuration knows.
pub const REGISTRY: &[TargetKind] = &[local::KIND, s3::KIND, gcs::KIND, cloud::KIND];

/// Opens a target whose settings have been read; fetches its secrets.
pub type Opener = Arc<dyn Fn(&Cx) -> Result<Box<dyn Target>> + Send + Sync>;

/// A kind of target, without a place yet.
#[derive(Clone, Copy)]
pub struct TargetKind {
    /// Its `type` in the configuration.
    pub name: &'static str,
    /// Whether what it holds is on this machine; a backup that is at several targets is read from such a one first.
    pub is_local: bool,
    /// Whether it may keep the state of several hosts: whether it has records.
    pub has_records: bool,
    /// Reads its settings; the second argument is the prefix before every key, empty or with a slash at its end.
    pub read: fn(&mut Table<'_>, &str) -> Opener,
}

impl fmt::Debug for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// An object at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key, without the target's prefix.
    pub key: ObjectKey,
    /// Its size in bytes, as the target says.
    pub size: u64,
    /// When it was written, as the target says.
    pub modified: Option<DateTime<Utc>>,
}

/// What sort of failure of a target it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such object.
    NotFound,
    /// There is one already, and it was not touched.
    Exists,
    /// The target lets us do much, but not that.
    Denied,
    /// The target keeps it for a time, whoever asks: an object lock, a retention policy, a hold.
    Retained,
    /// The bytes that were to be stored could not be read: not the target's fault.
    Body,
    /// Anything else.
    Failed,
}

/// A target's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError {
    /// What sort.
    pub cause: Cause,
    /// What to show.
    pub error: Error,
}

impl TargetError {
    /// A failure with a message of its own.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, error: Error::new(Kind::Target, message) }
    }

    /// The body's own error.
    pub fn body(error: std::io::Error) -> Self {
        Self { cause: Cause::Body, error: Error::from_io(error, Kind::Other, "can't read what is to be stored") }
    }

    /// Adds the mend.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { error: self.error.hint(hint), ..self }
    }
}

impl From<TargetError> for Error {
    fn from(failure: TargetError) -> Self {
        failure.error
    }
}

/// A place that keeps objects. Every method may be called from several threads at once.
///
/// The contract, which the conformance suite holds every target to:
/// - An object is visible under its key only when it is whole. Until then `list` and `get` don't show it.
/// - What is visible is never overwritten: `put` on an existing key is [`Cause::Exists`], also in a race.
/// - When `body` fails, nothing becomes visible, what was sent is removed, and the error is the body's own.
/// - `put` returns only when the target has confirmed every byte and would survive a power cut.
/// - `list` is complete, or an error. It gives only whole objects whose key begins with the prefix, in the order of
///   their keys, and leaves out what is none of ours.
/// - `delete` of what is not there is success.
/// - No error ever has a secret in it.
pub trait Target: Send + Sync {
    /// Names the place for messages; never a secret.
    fn describe(&self) -> String;

    /// Stores `body` under `key`.
    ///
    /// # Errors
    /// [`Cause::Exists`], [`Cause::Body`] or the target's own failure; nothing is visible then.
    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError>;

    /// Stores what goes again in a moment: without what would make the target keep it.
    ///
    /// # Errors
    /// As [`Target::put`].
    fn put_briefly(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        self.put(key, body)
    }

    /// Opens an object.
    ///
    /// # Errors
    /// [`Cause::NotFound`] or the target's own failure. A read that is cut short is an error of the reader.
    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError>;

    /// Every object whose key begins with `prefix`.
    ///
    /// # Errors
    /// The target's own failure; never a part of the listing.
    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError>;

    /// Looks at what storing, reading and removing does not show, for `check`, while the object `probe` stands there; what is
    /// in doubt, in words.
    ///
    /// # Errors
    /// Why no backup can be stored there.
    fn look_closer(&self, _probe: &ObjectKey) -> Result<Vec<String>, TargetError> {
        Ok(Vec::new())
    }

    /// Removes an object for good.
    ///
    /// # Errors
    /// [`Cause::Denied`] where we may not, [`Cause::Retained`] where the target keeps what it has; its own failure.
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError>;

    /// Removes what a run has stored and will not publish, also after a signal or when its lease is lost; what can't be
    /// removed then is swept later.
    fn take_back(&self, key: &ObjectKey) {
        drop(self.delete(key));
    }

    /// Removes many objects for good; what came of each, in their order. Some stores take many in one request.
    fn delete_all(&self, keys: &[ObjectKey]) -> Vec<Result<(), TargetError>> {
        keys.iter().map(|key| self.delete(key)).collect()
    }

    /// Removes what uploads of ours that died before `before` have left under `prefix`, and says how much it was. Most
    /// targets leave nothing.
    ///
    /// # Errors
    /// The target's own failure.
    fn sweep(&self, _prefix: &str, _before: DateTime<Utc>) -> Result<usize, TargetError> {
        Ok(0)
    }

    /// Counts up while anything moves on the line to it: bytes sent, answers got, files looked at. A target that takes nothing
    /// of a body for minutes is given up, unless this goes on. One that has nothing to say of it says nothing.
    fn moved(&self) -> u64 {
        0
    }

    /// Records that several hosts change by turns, where the target has such.
    fn records(&self, _after: AfterSignal) -> Option<Box<dyn Records>> {
        None
    }
}
