//! Object names: `<instance>/<database>/<id>.<random>.<what>` and `<id>.manifest.json`. Flows in: names as the
//! configuration has them. Flows out: keys that no target can misread, and back. Pure.

use std::fmt;

use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::time;
use crate::error::{Error, Kind, Result};

/// What stays as it is in a name; everything else is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'@').remove(b'+');
/// The longest part of a key between two slashes, in bytes: what a file name can have.
const MAX_SEGMENT_BYTES: usize = 255;
/// The longest encoded job, database or instance name, in bytes, so that the longest object name still fits.
pub const MAX_NAME_BYTES: usize = 180;
/// The ending of a manifest's name.
const MANIFEST: &str = ".manifest.json";
/// The ending of the name of a mark that keeps a backup for ever.
const PIN: &str = ".pin";

/// A name as it stands in a key.
pub fn encode(name: &str) -> String {
    match name {
        // Alone they would climb out of the folder.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        name => utf8_percent_encode(name, ENCODED).to_string(),
    }
}

/// The name behind its form in a key; `None` if it is not in the form that [`encode`] gives.
pub fn decode(encoded: &str) -> Option<String> {
    let name = percent_decode_str(encoded).decode_utf8().ok()?.into_owned();
    (encode(&name) == encoded).then_some(name)
}

/// A name at a target: parts joined by `/`, none of them empty, `.`, `..` or longer than a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Kind::Target`] when a part of it is empty, `.`, `..`, too long, or has a character that no key of ours has.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.@+%".contains(c);
        for part in text.split('/') {
            let bad = part.is_empty() || part == "." || part == ".." || part.len() > MAX_SEGMENT_BYTES;
            if bad || !part.chars().all(fine) {
                return Err(Error::new(Kind::Target, format!("{text:?} can't be an object's name")));
            }
        }
        Ok(Self(text))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the last slash.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose backup it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The host, or whatever shares a store with others.
    pub instance: String,
    /// The database's name in the configuration.
    pub database: String,
}

impl Owner {
    /// What every key of this database begins with.
    pub fn prefix(&self) -> String {
        format!("{}/{}/", encode(&self.instance), encode(&self.database))
    }
}

/// `<slot or start>-<job>`: names a backup among those of its database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

impl BackupId {
    /// The id of `job`'s backup for the slot, or the start of a manual run, at `at`.
    pub fn new(at: DateTime<Utc>, job: &str) -> Self {
        Self(format!("{}-{}", time::compact(at), encode(job)))
    }

    /// Reads an id.
    pub fn parse(text: &str) -> Option<Self> {
        let (at, job) = text.split_once('-')?;
        time::parse_compact(at)?;
        decode(job).filter(|job| !job.is_empty())?;
        Some(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The slot, or the start of a manual run.
    pub fn at(&self) -> Option<DateTime<Utc>> {
        time::parse_compact(self.0.split_once('-')?.0)
    }

    /// The job's name.
    pub fn job(&self) -> Option<String> {
        decode(self.0.split_once('-')?.1)
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Key of a backup's manifest.
///
/// # Errors
/// When the names are too long.
pub fn manifest_key(owner: &Owner, id: &BackupId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{}{id}{MANIFEST}", owner.prefix()))
}

/// Key of the mark that keeps a backup for ever.
///
/// # Errors
/// When the names are too long.
pub fn pin_key(owner: &Owner, id: &BackupId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{}{id}{PIN}", owner.prefix()))
}

/// Key of a backup's object; `random` is 8 hex digits, `what` the engine's ending.
///
/// # Errors
/// When the names are too long.
pub fn object_key(owner: &Owner, id: &BackupId, random: &str, what: &str, gz: bool, enc: bool) -> Result<ObjectKey> {
    let (gz, enc) = (if gz { ".gz" } else { "" }, if enc { ".enc" } else { "" });
    ObjectKey::new(format!("{}{id}.{random}.{what}{gz}{enc}", owner.prefix()))
}

/// What a key at a target is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The manifest of a backup.
    Manifest(Owner, BackupId),
    /// A backup's bytes.
    Object(Owner, BackupId),
    /// The mark that keeps a backup for ever.
    Pin(Owner, BackupId),
}

/// Reads a key; `None` if it is none of ours.
pub fn parse(key: &ObjectKey) -> Option<Found> {
    let mut parts = key.as_str().split('/');
    let (instance, database, file, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let owner = Owner { instance: decode(instance)?, database: decode(database)? };
    if let Some(id) = file.strip_suffix(MANIFEST) {
        return Some(Found::Manifest(owner, BackupId::parse(id)?));
    }
    if let Some(id) = file.strip_suffix(PIN) {
        return Some(Found::Pin(owner, BackupId::parse(id)?));
    }
    let bare = file.strip_suffix(".enc").unwrap_or(file);
    let bare = bare.strip_suffix(".gz").unwrap_or(bare);
    let (bare, _ending) = bare.rsplit_once('.')?;
    let (id, random) = bare.rsplit_once('.')?;
    let eight = random.len() == 8 && random.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    eight.then(|| BackupId::parse(id)).flatten().map(|id| Found::Object(owner, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(instance: &str, database: &str) -> Owner {
        Owner { instance: instance.into(), database: database.into() }
    }

    #[test]
    fn awkward_names_go_both_ways() {
        for name in ["a", "my db", "a/b", ".", "..", "...", "%", "Ünï", "a\\b", "x\ny", "a.b@c+d-e_f", "💾"] {
            assert_eq!(decode(&encode(name)).as_deref(), Some(name), "{name:?}");
            let at = time::parse_compact("20260225T030000Z").unwrap();
            let (owner, id) = (owner(name, name), BackupId::new(at, name));
            let manifest = manifest_key(&owner, &id).unwrap();
            assert_eq!(parse(&manifest), Some(Found::Manifest(owner.clone(), id.clone())));
            assert_eq!(parse(&pin_key(&owner, &id).unwrap()), Some(Found::Pin(owner.clone(), id.clone())));
            let object = object_key(&owner, &id, "0123abcd", "pgdump", true, true).unwrap();
            assert_eq!(parse(&object), Some(Found::Object(owner, id.clone())));
            assert_eq!(id.job().as_deref(), Some(name));
        }
    }

    #[test]
    fn one_name_has_one_form() {
        assert_eq!(decode("%61"), None, "an encoded letter");
        assert_eq!(decode("%2f"), None, "lower-case hex");
    }

    #[test]
    fn keys_cannot_climb() {
        for bad in ["", "/", "a//b", "../x", "a/../b", "a/.", "a b", "a\0b", "ä"] {
            assert!(ObjectKey::new(bad).is_err(), "{bad:?}");
        }
        assert!(ObjectKey::new("x".repeat(256)).is_err());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for foreign in
            ["a", "a/b", "a/b/c", "a/b/20260225T030000Z-j.sql", "a/b/20260225T030000Z-j.0123ABCD.sql", "a/b/c/d"]
        {
            assert_eq!(parse(&ObjectKey::new(foreign).unwrap()), None, "{foreign}");
        }
    }
}
