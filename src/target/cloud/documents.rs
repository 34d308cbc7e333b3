//! What the cloud says. Flows in: a document, or headers. Flows out: an object, a page of a listing, an account, a problem's
//! word (RFC 9457), or that it is none of these: a stranger's 200 is never an empty listing. Touches nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::format::name::ObjectKey;
use crate::target::Stored;
use crate::target::http::Answer;
use crate::target::trouble::{Line, Refusal, Trouble};

/// An object of a listing.
#[derive(Clone, Debug, Deserialize)]
pub struct Listed {
    /// Its key with the target's prefix.
    pub key: String,
    size: u64,
    #[serde(default)]
    modified: Option<DateTime<Utc>>,
}

impl Listed {
    /// As the contract has it, under a key of ours.
    pub fn stored(&self, key: &ObjectKey) -> Stored {
        Stored { key: key.clone(), size: self.size, modified: self.modified }
    }
}

/// A page of a listing.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// What is on it.
    pub objects: Vec<Listed>,
    /// Where the next one begins.
    #[serde(default)]
    pub next_page_token: Option<String>,
}

/// Reads a page of a listing.
///
/// # Errors
/// [`Trouble::Strange`] when it is none.
pub fn page(text: &str) -> Result<Page, Trouble> {
    serde_json::from_str(text).map_err(|error| Trouble::Strange(format!("no listing: {error}")))
}

/// Whose account it is, and how full.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Account {
    /// Its name.
    pub account: String,
    /// How many bytes it may have.
    #[serde(default)]
    pub quota_bytes: Option<u64>,
    /// How many it has.
    #[serde(default)]
    pub used_bytes: Option<u64>,
}

/// Reads an account.
///
/// # Errors
/// [`Trouble::Strange`] when it is none.
pub fn account(text: &str) -> Result<Account, Trouble> {
    serde_json::from_str(text).map_err(|error| Trouble::Strange(format!("no account: {error}")))
}

/// What the headers of an answer say of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Which of the objects that were ever stored under its key it is.
    pub etag: String,
    /// The SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// When it was stored.
    pub modified: Option<DateTime<Utc>>,
}

/// Reads an answer's headers.
///
/// # Errors
/// When they are not an object's: it may be a stranger's answer in between.
pub fn about(answer: &Answer) -> Result<About, Trouble> {
    let etag = answer.header("etag").filter(|etag| !etag.is_empty()).map(ToOwned::to_owned);
    let sha256 = answer.header("repr-digest").and_then(sha256);
    let modified = answer.header("last-modified").and_then(|text| DateTime::parse_from_rfc2822(text).ok());
    match (etag, sha256) {
        (Some(etag), Some(sha256)) => Ok(About { etag, sha256, modified: modified.map(|time| time.to_utc()) }),
        _ => Err(Trouble::Line(Line::Broken, "an answer that is no object's".to_owned())),
    }
}

/// The SHA-256 of a Repr-Digest (RFC 9530).
fn sha256(header: &str) -> Option<[u8; 32]> {
    let text = header.split(',').find_map(|part| part.trim().strip_prefix("sha-256=:")?.strip_suffix(':'))?;
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// The words of a refusal, as far as there are any.
pub fn refusal(status: u16, body: &[u8]) -> Refusal {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Problem {
        r#type: String,
        title: String,
        detail: String,
    }
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let word = problem.r#type.rsplit(['/', ':', '#']).next().unwrap_or_default();
    let is_word = word.len() < 40 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && word != "blank";
    let code = if is_word { word.to_owned() } else { String::new() };
    let message = if problem.detail.is_empty() { problem.title } else { problem.detail };
    // A chunk that was changed on its way is sent once more.
    let is_passing = status == 460;
    Refusal { status, code, message, is_passing, ..Refusal::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_listing_is_no_empty_listing() {
        assert!(page("{\"objects\": []}").unwrap().objects.is_empty());
        for text in ["{}", "", "[]", "<html>sign in</html>", "{\"objects\": null}", "{\"objects\": [{\"key\": \"x\"}]}"]
        {
            assert!(page(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_problem_is_known_by_the_last_word_of_its_type() {
        let read = |text: &str| refusal(507, text.as_bytes());
        for word in ["https://x.example/problems/quota-exceeded", "urn:x:quota-exceeded", "quota-exceeded"] {
            let problem = read(&format!("{{\"type\": \"{word}\", \"title\": \"t\", \"detail\": \"d\"}}"));
            assert_eq!((problem.code.as_str(), problem.message.as_str()), ("quota-exceeded", "d"));
        }
        assert_eq!(read("{\"type\": \"about:blank\", \"title\": \"t\"}").message, "t");
        assert_eq!(read("{\"type\": \"x/Token-Canary\"}").code, "");
        assert_eq!(read("<html>"), Refusal { status: 507, ..Refusal::default() });
    }

    #[test]
    fn a_digest_is_read() {
        let sum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert!(sha256(&format!("sha-256=:{sum}:")).is_some());
        assert!(sha256(&format!("md5=:AAAA:, sha-256=:{sum}:")).is_some());
        assert_eq!(sha256("sha-256=:AAAA:"), None);
        assert_eq!(sha256(sum), None);
    }
}
