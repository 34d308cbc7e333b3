//! The head of an encrypted backup: magic, length, JSON. Flows in: a reader at its start, or a header to write. Flows
//! out: the header, and the exact bytes that stand before the ciphertext, which it authenticates. Pure.

use std::io::Read;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::FORMAT;
use super::manifest::Signed;
use crate::error::{Error, Kind, Result};

/// How an encrypted backup begins.
pub const MAGIC: [u8; 8] = *b"VXLBKP\x00\x01";
/// The longest header, in bytes.
pub const MAX_HEADER_BYTES: usize = 65_536;

/// What an encrypted backup says of itself, in the clear but authenticated with every segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose backup it is.
    pub instance: String,
    /// The database's name in the configuration.
    pub database: String,
    /// The job's name.
    pub job: String,
    /// The backup's id.
    pub id: String,
    /// The engine's name.
    pub engine: String,
    /// When the dump began.
    #[serde(with = "super::time::serde_rfc3339")]
    pub created: DateTime<Utc>,
    /// `gzip` or `none`.
    pub compression: String,
    /// Which key opens it.
    pub key_id: String,
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Authentication, format!("the backup's header {why}"))
}

impl Header {
    /// Magic, length and JSON: what stands before the ciphertext.
    ///
    /// # Errors
    /// When the names make it longer than [`MAX_HEADER_BYTES`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let json =
            serde_json::to_vec(self).map_err(|error| Error::other(format!("can't write the header: {error}")))?;
        let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_HEADER_BYTES);
        let length = length.ok_or_else(|| Error::other("the backup's header is too long"))?;
        Ok([&MAGIC[..], &length.to_be_bytes(), &json].concat())
    }

    /// Reads it, and the bytes it was read from.
    ///
    /// # Errors
    /// [`Kind::Authentication`] when it is not a header of format 1; the reader's own errors.
    pub fn read(input: &mut impl Read) -> Result<(Self, Vec<u8>)> {
        let mut bytes = vec![0u8; 12];
        read_exact(input, &mut bytes)?;
        if !bytes.starts_with(&MAGIC) {
            return Err(refuse("does not begin as an encrypted backup does: it is damaged, or something else"));
        }
        let length = bytes.iter().skip(8).fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
        if length > MAX_HEADER_BYTES {
            return Err(refuse(format!("claims to be {length} bytes long")));
        }
        let mut json = vec![0u8; length];
        read_exact(input, &mut json)?;
        let header: Self = serde_json::from_slice(&json).map_err(|error| refuse(format!("can't be read: {error}")))?;
        if header.format != FORMAT {
            return Err(refuse(format!("is of format {}, which this version does not know", header.format))
                .hint("use a newer version of voxeltron-backup"));
        }
        bytes.extend_from_slice(&json);
        Ok((header, bytes))
    }

    /// Compares it with the manifest, so that two backups can't be exchanged.
    ///
    /// # Errors
    /// [`Kind::Authentication`] naming the first field that differs.
    pub fn agrees_with(&self, signed: &Signed) -> Result<()> {
        let differs = [
            ("instance", &self.instance, &signed.instance),
            ("database", &self.database, &signed.database),
            ("job", &self.job, &signed.job),
            ("id", &self.id, &signed.id),
            ("engine", &self.engine, &signed.engine),
            ("compression", &self.compression, &signed.compression),
        ];
        for (field, ours, theirs) in differs {
            if ours != theirs {
                return Err(refuse(format!("says {field} {ours:?}, the manifest {theirs:?}: it is another backup's")));
            }
        }
        if signed.key_id.as_deref().is_some_and(|id| id != self.key_id) || self.created != signed.created {
            return Err(refuse("and the manifest differ in key or date: it is another backup's"));
        }
        Ok(())
    }
}

fn read_exact(input: &mut impl Read, buffer: &mut [u8]) -> Result<()> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => refuse("is cut"),
        _ => Error::from_io(error, Kind::Target, "can't read the backup"),
    })
}
