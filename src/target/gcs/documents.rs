//! The JSON of Google Cloud Storage. Flows in: a document. Flows out: an object, a page of a listing, a refusal's words, or
//! that it is none of these: a stranger's 200 is never an empty listing. Touches nothing.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::format::name::ObjectKey;
use crate::target::Stored;
use crate::target::trouble::{Refusal, Trouble};

/// An object as the store describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its key with the target's prefix.
    pub name: String,
    #[serde(deserialize_with = "number")]
    /// Its size in bytes.
    pub size: u64,
    /// Which of the objects that were ever stored under its name it is.
    pub generation: String,
    /// Its CRC-32C, big-endian, in base64.
    #[serde(default)]
    pub crc32c: Option<String>,
    /// When it was stored.
    #[serde(default)]
    time_created: Option<DateTime<Utc>>,
    /// What its writer said of it.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// 64-bit numbers are texts.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl Object {
    /// As the contract has it, under a key of ours.
    pub fn stored(&self, key: &ObjectKey) -> Stored {
        Stored { key: key.clone(), size: self.size, modified: self.time_created }
    }

    /// When it was stored, by the store's clock.
    pub fn created(&self) -> Option<DateTime<Utc>> {
        self.time_created
    }

    /// What its writer said of it under that name.
    pub fn said(&self, name: &str) -> Option<&str> {
        self.metadata.as_ref()?.get(name).map(String::as_str)
    }

    /// Its CRC-32C; one that is no CRC-32C counts as none.
    pub fn checksum(&self) -> Option<u32> {
        let bytes = STANDARD.decode(self.crc32c.as_deref()?).ok()?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// A page of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Page {
    kind: String,
    /// Where the next one begins.
    pub next_page_token: Option<String>,
    /// What is on it.
    pub items: Vec<Object>,
}

/// Reads an object's document.
///
/// # Errors
/// [`Trouble::Strange`] when it is none.
pub fn object(text: &str) -> Result<Object, Trouble> {
    serde_json::from_str(text).map_err(|error| Trouble::Strange(format!("no object's description: {error}")))
}

/// Reads a page of a listing.
///
/// # Errors
/// [`Trouble::Strange`] when it is none.
pub fn page(text: &str) -> Result<Page, Trouble> {
    let page: Page = serde_json::from_str(text).map_err(|error| Trouble::Strange(format!("no listing: {error}")))?;
    if page.kind != "storage#objects" {
        return Err(Trouble::Strange("a document that is no listing".to_owned()));
    }
    Ok(page)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    error: Words,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Words {
    message: String,
    errors: Vec<Reason>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

/// The words of a refusal, as far as there are any.
pub fn refusal(status: u16, body: &[u8]) -> Refusal {
    let Words { message, errors } = serde_json::from_slice::<Document>(body).unwrap_or_default().error;
    let code = errors.into_iter().next().unwrap_or_default().reason;
    let is_word = !code.is_empty() && code.len() < 60 && code.chars().all(|c| c.is_ascii_alphanumeric());
    let code = if is_word { code } else { String::new() };
    let is_passing = matches!(code.as_str(), "rateLimitExceeded" | "userRateLimitExceeded" | "backendError");
    Refusal { status, code, message, is_passing, ..Refusal::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_listing_is_no_empty_listing() {
        assert!(page("{\"kind\": \"storage#objects\"}").unwrap().items.is_empty());
        for text in ["{}", "", "[]", "<html>sign in</html>", "{\"kind\": \"storage#buckets\", \"items\": []}"] {
            assert!(page(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_is_read_as_far_as_it_has_words() {
        let text =
            br#"{"error": {"code": 403, "message": "no", "errors": [{"domain": "global", "reason": "forbidden"}]}}"#;
        let read = refusal(403, text);
        assert_eq!((read.code.as_str(), read.message.as_str()), ("forbidden", "no"));
        let strange = refusal(403, br#"{"error": {"errors": [{"reason": "ya29.token-canary"}]}}"#);
        assert_eq!((strange.code.as_str(), strange.message.as_str()), ("", ""));
        assert_eq!(refusal(502, b"<html>"), Refusal { status: 502, ..Refusal::default() });
    }

    #[test]
    fn a_checksum_is_read() {
        let text = |crc: &str| format!(r#"{{"name": "x", "size": "9", "generation": "1", "crc32c": {crc}}}"#);
        assert_eq!(object(&text("\"4waSgw==\"")).unwrap().checksum(), Some(crc32c::crc32c(b"123456789")));
        assert_eq!(object(&text("\"4waS\"")).unwrap().checksum(), None);
        assert_eq!(object(&text("null")).unwrap().checksum(), None);
    }
}
