//! From a stored object back to the dump. Flows in: one copy of a backup, its target and the keys. Flows out: the dump
//! as a `Read` that fails unless every byte is the one that was stored: sizes and digest as in the manifest, tags,
//! checksums, the engine's end mark. Reads the target.

use std::io::{self, Read};

use crate::catalog::{Entry, OpenTarget};
use crate::engine::{self, FindingsCell, Inspected};
use crate::error::{Error, Kind, Result};
use crate::format::header::Header;
use crate::format::key::Keyring;
use crate::format::manifest::Signed;
use crate::format::name::ObjectKey;
use crate::pipeline::encrypt::Opener;
use crate::pipeline::gzip::Decompressor;
use crate::pipeline::meter::{Expected, Meter};
use crate::report::Progress;
use crate::world::Cancel;

/// A dump on its way back.
pub struct Decoded {
    /// Its bytes.
    pub stream: Box<dyn Read + Send>,
    /// What the engine's inspector found, once the stream has ended well.
    pub findings: FindingsCell,
}

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded").finish_non_exhaustive()
    }
}

/// Opens a copy. Nothing of it is believed before the stream has ended well, and a signal ends it at the next read.
///
/// # Errors
/// [`Kind::Authentication`] when the header is not this backup's or no key fits; [`Kind::Target`].
pub fn open(
    entry: &Entry,
    target: &OpenTarget,
    keys: &Keyring,
    progress: Progress,
    cancel: &Cancel,
) -> Result<Decoded> {
    let signed = entry.manifest.as_ref().map(|manifest| &manifest.signed).map_err(Clone::clone)?;
    let key = ObjectKey::new(&signed.object)?;
    let reader = target.target.get(&key).map_err(|failure| {
        let hint = "take another copy or an earlier backup: voxeltron-backup list";
        Error::from(failure).hint(hint)
    })?;
    let stored = Expected {
        what: "the backup",
        bytes: signed.stored_bytes,
        sha256: Some(signed.stored_sha256.to_ascii_lowercase()),
    };
    let reader = Meter::expecting(reader, stored).with_progress(progress);
    let opened = decrypt(Box::new(reader), signed, keys)?;
    let unpacked: Box<dyn Read + Send> = match signed.compression.as_str() {
        "gzip" => Box::new(Decompressor::new(opened)),
        "none" => opened,
        other => return Err(unknown("compression", other)),
    };
    let dump = Expected { what: "the dump", bytes: signed.dump_bytes, sha256: None };
    let engine = engine::kind(&signed.engine).ok_or_else(|| unknown("engine", &signed.engine))?;
    let inspected = Inspected::new(Meter::expecting(unpacked, dump), (engine.inspector)());
    let findings = inspected.findings();
    Ok(Decoded { stream: Box::new(Stored { inner: inspected, cancel: cancel.clone() }), findings })
}

/// A dump that was whole when it was stored: what its inspector dislikes now is damage to the backup, no tool's failure.
struct Stored<R> {
    inner: R,
    cancel: Cancel,
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(Error::into_io)?;
        self.inner.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => {
                let error = Error::from_io(error, Kind::Target, "can't read the backup");
                match error.kind {
                    Kind::Tool => Error { kind: Kind::Authentication, ..error }.while_doing("the backup was changed"),
                    _ => error,
                }
                .into_io()
            }
        })
    }
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(Kind::Config, format!("the backup's {what} {name:?} is not in this version of voxeltron-backup"))
        .hint("use a newer version of voxeltron-backup")
}

fn decrypt(mut reader: Box<dyn Read + Send>, signed: &Signed, keys: &Keyring) -> Result<Box<dyn Read + Send>> {
    match signed.encryption.as_str() {
        "none" => Ok(reader),
        crate::format::manifest::ENCRYPTION => {
            let (header, bytes) = Header::read(&mut reader)?;
            header.agrees_with(signed)?;
            let Some(key) = keys.find(&header.key_id) else {
                let have = if keys.is_empty() {
                    "there is no key here".to_owned()
                } else {
                    format!("the keys here are {}", keys.ids())
                };
                return Err(Error::new(
                    Kind::Authentication,
                    format!("the backup is encrypted under key {}; {have}", header.key_id),
                )
                .hint("put the key it was made with into previous_encryption_keys"));
            };
            Ok(Box::new(Opener::new(reader, key, &bytes)?))
        }
        other => Err(unknown("encryption", other)),
    }
}
