//! A slot's backup that stands at one target, brought to another by copying: no new dump. Flows in: a good copy and a
//! target that has none. Flows out: the same object and the same manifest there. Touches both targets.

use crate::catalog::{Entry, OpenTarget};
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::format::manifest::Signed;
use crate::format::name::ObjectKey;
use crate::pipeline::meter::{Expected, Meter};
use crate::target::{Cause, TargetError};

/// Why a copy did not come about.
#[derive(Debug)]
pub enum Failure {
    /// The copy that was read is not whole, or can't be read: another one, or a new dump, may do.
    Source(Error),
    /// The other target failed.
    Destination(Error),
}

/// Copies `entry`, of target `from`, to target `to`: first the object, checked against its manifest on the way, then the
/// manifest as it is, and only if there is none yet.
///
/// # Errors
/// [`Failure`], which tells whose fault it was; nothing is visible at `to` then.
pub fn copy(entry: &Entry, from: &OpenTarget, to: &OpenTarget, cx: &Cx) -> Result<Signed, Failure> {
    let signed = entry.signed().ok_or_else(|| Failure::Source(Error::new(Kind::Authentication, "it is no backup")))?;
    let key = ObjectKey::new(&signed.object).map_err(Failure::Source)?;
    let stored = send(signed, &key, from, to, cx)?;
    if stored != signed.stored_bytes {
        let why = format!("target {}: {key} has {stored} bytes after {} were sent", to.name, signed.stored_bytes);
        drop(to.target.delete(&key));
        return Err(Failure::Destination(Error::new(Kind::Target, why)));
    }
    let mut manifest = from.target.get(&entry.manifest_key).map_err(|failure| Failure::Source(failure.into()))?;
    match to.target.put(&entry.manifest_key, &mut manifest) {
        Ok(_) => Ok(signed.clone()),
        Err(failure) => {
            let stands = failure.cause != Cause::Exists && to.target.get(&entry.manifest_key).is_ok();
            if !stands {
                drop(to.target.delete(&key));
            }
            Err(whose(failure))
        }
    }
}

fn whose(failure: TargetError) -> Failure {
    match failure.cause {
        Cause::Body => Failure::Source(failure.into()),
        _ => Failure::Destination(failure.into()),
    }
}

/// Sends the object, and gives the size that the other target confirms.
fn send(signed: &Signed, key: &ObjectKey, from: &OpenTarget, to: &OpenTarget, cx: &Cx) -> Result<u64, Failure> {
    let once = || {
        let reader = from.target.get(key).map_err(|failure| Failure::Source(failure.into()))?;
        let expected = Expected {
            what: "the backup",
            bytes: signed.stored_bytes,
            sha256: Some(signed.stored_sha256.to_ascii_lowercase()),
        };
        let bar = cx.report.progress(&format!("{} to {}", signed.id, to.name), Some(signed.stored_bytes));
        let mut body = Meter::expecting(reader, expected).with_progress(bar);
        Ok(to.target.put(key, &mut body))
    };
    match once()? {
        Ok(stored) => Ok(stored.size),
        // A run that died had sent the object, and not its manifest: nobody vouches for what stands there.
        Err(failure) if failure.cause == Cause::Exists => {
            to.target.delete(key).map_err(|failure| Failure::Destination(failure.into()))?;
            once()?.map(|stored| stored.size).map_err(whose)
        }
        Err(failure) => Err(whose(failure)),
    }
}
