//! The 256-bit key and what is derived from it. Flows in: base64 text. Flows out: a key that can't be printed, its id,
//! the manifest's key, the key of one stream. Pure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::hex;
use crate::error::{Error, Kind, Result};

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// The key in the example of Voxeltron's documentation.
const PLACEHOLDER: &str = "base64-encoded-256-bit-key";

/// An encryption key. Zeroed on drop, redacted in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(id {})", self.id())
    }
}

impl Key {
    /// Takes raw bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads standard base64 of exactly 32 bytes, and says what is wrong with anything else.
    ///
    /// # Errors
    /// [`Kind::Config`], never with the text in it.
    pub fn parse(text: &str) -> Result<Self> {
        let keygen = "make one with: voxeltron-backup keygen";
        let fail = |why: String, hint: &str| Err(Error::new(Kind::Config, why).hint(hint));
        if text == PLACEHOLDER {
            return fail("is still the placeholder of the documentation".to_owned(), keygen);
        }
        if text.chars().any(char::is_whitespace) {
            return fail(
                "has white space in it".to_owned(),
                "write the 44 characters of the key on one line, without spaces",
            );
        }
        if text.len() == 2 * KEY_BYTES && text.chars().all(|c| c.is_ascii_hexdigit()) {
            let hint = "turn it into base64: printf %s KEY | xxd -r -p | base64";
            return fail("is 64 hex digits, not base64".to_owned(), hint);
        }
        if text.contains(['-', '_']) && (URL_SAFE.decode(text).is_ok() || URL_SAFE_NO_PAD.decode(text).is_ok()) {
            return fail(
                "is base64url, not standard base64".to_owned(),
                "write + for every - and / for every _, and keep the final =",
            );
        }
        match STANDARD.decode(text).map(Zeroizing::new) {
            Ok(bytes) => match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
                Ok(key) => Ok(Self(key)),
                Err(_) => fail(format!("is {} bytes long, not {KEY_BYTES}", bytes.len()), keygen),
            },
            Err(_) => fail("is not base64".to_owned(), keygen),
        }
    }

    /// Standard base64, for `keygen`.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }

    /// Tells keys apart without giving anything away: 16 hex digits.
    pub fn id(&self) -> String {
        hex(&self.derive::<8>(&[], b"voxeltron-backup key id")[..])
    }

    /// The key under which manifests are signed.
    pub fn manifest_key(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        self.derive(&[], b"voxeltron-backup manifest")
    }

    /// The key of one stream, from its salt and associated data, as Tink derives it.
    pub fn stream_key(&self, salt: &[u8], associated_data: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        self.derive(salt, associated_data)
    }

    fn derive<const N: usize>(&self, salt: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
        let mut out = Zeroizing::new([0u8; N]);
        // Expanding fails only for more than 255 blocks, and this one is at most one block long.
        const { assert!(N <= KEY_BYTES) };
        let _ = Hkdf::<Sha256>::new(Some(salt), &self.0).expand(info, &mut out[..]);
        out
    }
}

/// The keys that may open a backup: the one that writes, and those that only read.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Vec<Key>);

impl Keyring {
    /// The keys, the one that writes first.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let mut ring = Self::default();
        for key in keys {
            if !ring.0.contains(&key) {
                ring.0.push(key);
            }
        }
        ring
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key with that id.
    pub fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id() == id)
    }

    /// The ids, for messages.
    pub fn ids(&self) -> String {
        self.0.iter().map(Key::id).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        Key::parse(text).unwrap_err().message
    }

    #[test]
    fn every_wrong_key_is_told_apart() {
        assert_eq!(why(PLACEHOLDER), "is still the placeholder of the documentation");
        assert_eq!(why(&format!(" {}", STANDARD.encode([1; 32]))), "has white space in it");
        assert_eq!(why(&"0a".repeat(32)), "is 64 hex digits, not base64");
        assert_eq!(why(&URL_SAFE.encode([0xfb; 32])), "is base64url, not standard base64");
        assert_eq!(why(&STANDARD.encode([1; 16])), "is 16 bytes long, not 32");
        assert_eq!(why("!"), "is not base64");
        assert_eq!(why(&STANDARD.encode([1; 32]).replace('=', "")), "is not base64");
        assert!(Key::parse(&STANDARD.encode([1; 32])).is_ok());
    }

    #[test]
    fn nothing_of_the_key_shows() {
        let key = Key::new([7; 32]);
        assert_eq!(format!("{key:?}"), format!("Key(id {})", key.id()));
        assert_eq!(key.id().len(), 16);
    }
}
