//! Small records that several hosts change by turns: created only if absent, replaced only if they are what was read. Flows
//! in: bytes under a key. Flows out: the same bytes, their version, and how old they are by the store's own clock. A target
//! that can do it says so by [`Target::records`](super::Target::records); [`prove`] sees whether the store keeps its word.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Cause, Target, TargetError};
use crate::error::{Error, Kind, Result};
use crate::format::name::{ObjectKey, encode};
use crate::world::World;

/// What tells a record from any other that was or will be under its key; only the store knows what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Which it is.
    pub version: Version,
    /// How long before this reading it was written, both by the store's clock, where the store says so.
    pub age: Option<TimeDelta>,
}

/// What must stand under a key for a write to happen.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'v> {
    /// Nothing.
    Absent,
    /// This very record.
    Is(&'v Version),
}

/// A store of records. The bytes of two writes are never alike: else a version may not tell them apart.
pub trait Records: Send + Sync {
    /// The record under a key, if there is one.
    ///
    /// # Errors
    /// The target's own failure.
    fn read(&self, key: &ObjectKey) -> Result<Option<Record>, TargetError>;

    /// Writes a record if what is expected stands there. `None`: it does not, or an earlier attempt of this very call has
    /// changed it and its answer got lost; reading it again tells. After an error it may have been written, too.
    ///
    /// # Errors
    /// The target's own failure.
    fn write(&self, key: &ObjectKey, bytes: &[u8], expected: Expected<'_>) -> Result<Option<Version>, TargetError>;
}

/// How long before `now` something was done; a store's clock that goes backwards makes it young.
pub fn age(now: Option<DateTime<Utc>>, done: Option<DateTime<Utc>>) -> Option<TimeDelta> {
    Some(now?.signed_duration_since(done?))
}

/// The time in a header as HTTP writes it.
pub fn http_date(text: Option<&str>) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc2822(text?.trim()).ok()?.to_utc())
}

/// Sees by a record of its own whether the store checks conditions: some take them and do not look at them.
///
/// # Errors
/// [`Kind::Config`] when it does not check them; [`Kind::Target`] when it can't be asked.
pub fn prove(target: &dyn Target, records: &dyn Records, instance: &str, world: &World) -> Result<()> {
    let key = ObjectKey::new(format!("{}/.voxeltron/probe/{}", encode(instance), world.random_hex(8)?))?;
    let outcome = tried(target, records, &key, world);
    let removed = target.delete(&key);
    outcome?;
    // One that keeps what it has, by a lock, is no worse for it.
    match removed {
        Err(failure) if !matches!(failure.cause, Cause::Denied | Cause::Retained) => Err(failure.into()),
        _ => Ok(()),
    }
}

fn tried(target: &dyn Target, records: &dyn Records, key: &ObjectKey, world: &World) -> Result<()> {
    let text = |what: &str| Ok::<_, Error>(format!("{what} {}", world.random_hex(8)?).into_bytes());
    let ignored = |what: &str| {
        let message = format!(
            "{}: the store does not check conditional writes ({what}), so several hosts can't keep their state there",
            target.describe()
        );
        Err(Error::new(Kind::Config, message)
            .hint("use a store that does, or leave out `state` in [backup] and run the jobs on one host only"))
    };
    // An attempt whose answer got lost looks like a conflict: what stands there is what tells.
    let now = || -> Result<Option<Record>> { Ok(records.read(key)?) };
    let (first, second, third, last) = (text("first")?, text("second")?, text("third")?, text("last")?);
    records.write(key, &first, Expected::Absent)?;
    let Some(stands) = now()?.filter(|record| record.bytes == first) else {
        return Err(Error::new(Kind::Target, format!("{}: {key} was stored, and is not there", target.describe())));
    };
    records.write(key, &second, Expected::Absent)?;
    if now()?.is_none_or(|record| record.bytes != first) {
        return ignored("If-None-Match");
    }
    records.write(key, &third, Expected::Is(&stands.version))?;
    if now()?.is_none_or(|record| record.bytes != third) {
        return Err(Error::new(Kind::Target, format!("{}: {key} can't be replaced", target.describe())));
    }
    records.write(key, &last, Expected::Is(&stands.version))?;
    if now()?.is_none_or(|record| record.bytes != third) {
        return ignored("If-Match");
    }
    Ok(())
}
