//! A slot's backup that stands at one target, brought to another by copying: no new dump. Flows in: a good copy and a
//! target that has none. Flows out: the same object and the same manifest there. Touches both targets.

use std::io::{self, Read};

use crate::catalog::{Entry, OpenTarget};
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::format::manifest::Signed;
use crate::format::name::ObjectKey;
use crate::pipeline::fanout::to_one;
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
/// manifest as it is. `None`: another writer's manifest stands there.
///
/// An object that stands at `to` already is never taken away while it is what the manifest says: another host may be
/// copying the same backup in this instant, and its manifest names the same object.
///
/// # Errors
/// [`Failure`], which tells whose fault it was; no manifest of ours stands at `to` then.
pub fn copy(entry: &Entry, from: &OpenTarget, to: &OpenTarget, cx: &Cx) -> Result<Option<Signed>, Failure> {
    let signed = entry.signed().ok_or_else(|| Failure::Source(Error::new(Kind::Authentication, "it is no backup")))?;
    let key = ObjectKey::new(&signed.object).map_err(Failure::Source)?;
    match send(signed, &key, from, to, cx) {
        Ok(()) => {}
        Err(failure) if failure.cause == Cause::Exists => {
            if !is_whole(signed, &key, to).map_err(Failure::Destination)? {
                to.target.delete(&key).map_err(|failure| Failure::Destination(failure.into()))?;
                send(signed, &key, from, to, cx).map_err(whose)?;
            }
        }
        Err(failure) => return Err(whose(failure)),
    }
    let mut manifest = from.target.get(&entry.manifest_key).map_err(|failure| Failure::Source(failure.into()))?;
    match to.target.put(&entry.manifest_key, &mut manifest) {
        Ok(_) => Ok(Some(signed.clone())),
        Err(failure) if failure.cause == Cause::Exists => Ok(None),
        // The object stays: the next attempt finds it, and if there is none it is swept.
        Err(failure) => Err(whose(failure)),
    }
}

fn whose(failure: TargetError) -> Failure {
    match failure.cause {
        Cause::Body => Failure::Source(failure.into()),
        _ => Failure::Destination(failure.into()),
    }
}

/// The object's bytes at a target; what is not as the manifest says is an error at the end.
fn checked(signed: &Signed, key: &ObjectKey, open: &OpenTarget) -> Result<Meter<Box<dyn Read + Send>>, TargetError> {
    let sha256 = Some(signed.stored_sha256.to_ascii_lowercase());
    let expected = Expected { what: "the backup", bytes: signed.stored_bytes, sha256 };
    Ok(Meter::expecting(open.target.get(key)?, expected))
}

fn send(signed: &Signed, key: &ObjectKey, from: &OpenTarget, to: &OpenTarget, cx: &Cx) -> Result<(), TargetError> {
    let bar = cx.report.progress(&format!("{} to {}", signed.id, to.name), Some(signed.stored_bytes));
    let source = checked(signed, key, from).map_err(|failure| TargetError { cause: Cause::Body, ..failure })?;
    let stored = to_one(&mut source.with_progress(bar), &to.target, key, &cx.world)?;
    if stored.size == signed.stored_bytes {
        return Ok(());
    }
    let why = format!("target {}: {key} has {} bytes after {} were sent", to.name, stored.size, signed.stored_bytes);
    // Nobody's manifest can name it, cut as it is.
    drop(to.target.delete(key));
    Err(TargetError::new(Cause::Failed, why))
}

/// Whether the object at a target is what the manifest says.
fn is_whole(signed: &Signed, key: &ObjectKey, open: &OpenTarget) -> Result<bool> {
    let read = checked(signed, key, open).map_err(Error::from).and_then(|mut reader| {
        let outcome = io::copy(&mut reader, &mut io::sink());
        outcome
            .map(drop)
            .map_err(|error| Error::from_io(error, Kind::Target, format!("can't read {key} at {}", open.name)))
    });
    match read {
        Ok(()) => Ok(true),
        Err(error) if error.kind == Kind::Authentication => Ok(false),
        Err(error) => Err(error),
    }
}
