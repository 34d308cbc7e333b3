//! The manifest: what makes an object a backup. Flows in: what a run found out, or a manifest's bytes. Flows out: the
//! signed text with its HMAC, or a manifest that is known to be ours, or the reason why it is not. Pure.

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::key::{Key, Keyring};
use super::name::{BackupId, Owner};
use super::{FORMAT, hex};
use crate::engine::Counts;
use crate::error::{Error, Kind, Result};

/// The largest manifest that is read, in bytes. Counts of 100,000 tables fit.
pub const MAX_MANIFEST_BYTES: u64 = 16 * 1024 * 1024;
/// How `encryption` is called when there is some.
pub const ENCRYPTION: &str = "aes256-gcm-hkdf-1mb";

/// The signed text's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The backup's id.
    pub id: String,
    /// Whose backup it is.
    pub instance: String,
    /// The database's name in the configuration.
    pub database: String,
    /// The job's name.
    pub job: String,
    /// The engine's name.
    pub engine: String,
    /// The dump tool's version.
    pub tool_version: Option<String>,
    /// The server's version.
    pub server_version: Option<String>,
    /// When the dump began.
    #[serde(with = "super::time::serde_rfc3339")]
    pub created: DateTime<Utc>,
    /// The slot; none for a manual run.
    #[serde(with = "super::time::serde_rfc3339_option")]
    pub scheduled_for: Option<DateTime<Utc>>,
    /// How long dump and upload took, in milliseconds.
    pub duration_ms: u64,
    /// The object's whole name, without the target's prefix.
    pub object: String,
    /// The object's size.
    pub stored_bytes: u64,
    /// SHA-256 of the object, in hex.
    pub stored_sha256: String,
    /// The dump's size before compression and encryption.
    pub dump_bytes: u64,
    /// `gzip` or `none`.
    pub compression: String,
    /// [`ENCRYPTION`] or `none`.
    pub encryption: String,
    /// The key that signed and, where it is encrypted, opens it.
    pub key_id: Option<String>,
    /// What the engine's check found at the dump's end.
    pub end_mark: String,
    /// What was counted in the dump.
    #[serde(default)]
    pub counts: Counts,
    /// The dump tool's option that left a part of the database out; none for a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// The version of this program that wrote it.
    pub program_version: String,
}

impl Signed {
    /// Whether the object is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encryption != "none"
    }
}

/// A manifest as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Envelope {
    format: u32,
    signed: String,
    key_id: Option<String>,
    hmac: Option<String>,
}

/// Whether a manifest is known to be ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its HMAC holds under one of our keys.
    Authentic,
    /// No key is configured, so that nothing can be said.
    NoKey,
    /// It is not; the reason.
    Unauthenticated(String),
}

/// A manifest that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it says.
    pub signed: Signed,
    /// Whether to believe it.
    pub trust: Trust,
}

fn mac(key: &Key, text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.manifest_key()[..]).ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}

/// A manifest's bytes, signed if there is a key.
///
/// # Errors
/// When it can't be written as JSON.
pub fn write(signed: &Signed, key: Option<&Key>) -> Result<Vec<u8>> {
    let failed = |error: serde_json::Error| Error::other(format!("can't write the manifest: {error}"));
    let text = serde_json::to_string(signed).map_err(failed)?;
    let hmac = key.and_then(|key| mac(key, &text)).map(|mac| hex(&mac.finalize().into_bytes()));
    if key.is_some() && hmac.is_none() {
        return Err(Error::other("can't sign the manifest"));
    }
    let envelope = Envelope { format: FORMAT, signed: text, key_id: key.map(Key::id), hmac };
    let mut bytes = serde_json::to_vec_pretty(&envelope).map_err(failed)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a manifest that stood under `owner` and `id`, and says whether to believe it.
///
/// # Errors
/// [`Kind::Authentication`] when it is not a manifest of format 1, or is another backup's.
pub fn read(bytes: &[u8], owner: &Owner, id: &BackupId, keys: &Keyring) -> Result<Manifest> {
    let refuse = |why: String| Error::new(Kind::Authentication, format!("the manifest of {id} {why}"));
    let envelope: Envelope =
        serde_json::from_slice(bytes).map_err(|error| refuse(format!("can't be read, it is damaged: {error}")))?;
    if envelope.format != FORMAT {
        return Err(refuse(format!("is of format {}, which this version does not know", envelope.format))
            .hint("use a newer version of voxeltron-backup"));
    }
    let signed: Signed = serde_json::from_str(&envelope.signed)
        .map_err(|error| refuse(format!("can't be read, it is damaged: {error}")))?;
    let same = signed.id == id.as_str()
        && signed.instance == owner.instance
        && signed.database == owner.database
        && id.job().as_deref() == Some(&signed.job)
        && signed.object.starts_with(&format!("{}{id}.", owner.prefix()));
    if !same {
        let theirs = format!("{}/{} {}", signed.instance, signed.database, signed.id);
        return Err(refuse(format!("is that of another backup ({theirs:?}): it was renamed or moved")));
    }
    let trust = trust(&envelope, &signed, keys);
    Ok(Manifest { signed, trust })
}

fn trust(envelope: &Envelope, signed: &Signed, keys: &Keyring) -> Trust {
    if keys.is_empty() {
        return Trust::NoKey;
    }
    let no = |why: String| Trust::Unauthenticated(why);
    let (Some(id), Some(hmac)) = (&envelope.key_id, &envelope.hmac) else {
        return no("its manifest is not signed".to_owned());
    };
    let Some(key) = keys.find(id) else {
        return no(format!("its manifest is signed under key {id:?}; the keys here are {}", keys.ids()));
    };
    let expected =
        (0..hmac.len()).step_by(2).map(|at| hmac.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()));
    let Some(expected) = expected.collect::<Option<Vec<u8>>>() else {
        return no("its manifest's signature is damaged".to_owned());
    };
    let holds = mac(key, &envelope.signed).is_some_and(|mac| mac.verify_slice(&expected).is_ok());
    if !holds || signed.key_id.as_ref() != Some(id) {
        return no("its manifest was changed: the signature does not hold".to_owned());
    }
    Trust::Authentic
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::time::parse_compact;

    fn sample() -> (Signed, Owner, BackupId) {
        let at = parse_compact("20260225T030000Z").unwrap();
        let owner = Owner { instance: "host".into(), database: "db".into() };
        let id = BackupId::new(at, "db@local");
        let signed = Signed {
            id: id.to_string(),
            instance: "host".into(),
            database: "db".into(),
            job: "db@local".into(),
            engine: "sqlite".into(),
            tool_version: None,
            server_version: None,
            created: at,
            scheduled_for: Some(at),
            duration_ms: 1,
            object: format!("host/db/{id}.01234567.sqlite"),
            stored_bytes: 1,
            stored_sha256: "00".into(),
            dump_bytes: 1,
            compression: "none".into(),
            encryption: "none".into(),
            key_id: Some(Key::new([1; 32]).id()),
            end_mark: "x".into(),
            counts: Counts::new(),
            partial: None,
            program_version: "0".into(),
        };
        (signed, owner, id)
    }

    #[test]
    fn only_the_right_key_makes_it_authentic() {
        let (signed, owner, id) = sample();
        let key = Key::new([1; 32]);
        let bytes = write(&signed, Some(&key)).unwrap();
        let trust = |keys: Vec<Key>| read(&bytes, &owner, &id, &Keyring::new(keys)).unwrap().trust;
        assert_eq!(trust(vec![Key::new([2; 32]), key]), Trust::Authentic);
        assert_eq!(trust(vec![]), Trust::NoKey);
        assert!(
            matches!(trust(vec![Key::new([2; 32])]), Trust::Unauthenticated(why) if why.contains("signed under key"))
        );
    }

    #[test]
    fn every_changed_byte_of_the_text_is_noticed() {
        let (signed, owner, id) = sample();
        let keys = Keyring::new([Key::new([1; 32])]);
        let bytes = write(&signed, Some(&Key::new([1; 32]))).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            if let Ok(manifest) = read(&changed, &owner, &id, &keys) {
                let same_text = manifest.signed == signed && manifest.trust == Trust::Authentic;
                // White space round the envelope's fields and the case of hex digits mean nothing.
                assert!(same_text == changed_nothing(&bytes, &changed), "byte {at}: {manifest:?}");
            }
        }
    }

    fn changed_nothing(before: &[u8], after: &[u8]) -> bool {
        let parse = |bytes: &[u8]| {
            let mut value = serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
            value["hmac"] = value["hmac"].as_str().unwrap_or_default().to_lowercase().into();
            value
        };
        parse(before) == parse(after)
    }

    #[test]
    fn another_backups_manifest_is_refused() {
        let (signed, owner, id) = sample();
        let bytes = write(&signed, None).unwrap();
        let other = Owner { database: "other".into(), ..owner };
        assert!(read(&bytes, &other, &id, &Keyring::default()).unwrap_err().message.contains("renamed or moved"));
    }
}
