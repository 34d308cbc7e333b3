//! The XML that a store answers with: listings, page by page, and the beginning and end of an upload. Flows in: documents.
//! Flows out: what stands in them, complete or an error. Read by our own types, which ask only for what we use: stores
//! leave out what others have.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use s3::command::Command;
use s3::serde_types::{DeleteObjectsRequest, ObjectIdentifier};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::trouble;
use super::wire::{Call, Wire};
use crate::target::trouble::Trouble;

/// How many pages a listing may have: 100 million objects.
const MAX_PAGES: usize = 100_000;

/// How many objects one request may remove.
pub const MOST_DELETED: usize = 1_000;

/// An object of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Object {
    /// Its key, prefix and all.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written.
    pub last_modified: Option<String>,
}

/// An upload that is not finished.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Unfinished {
    /// Its key, prefix and all.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// When it was begun.
    pub initiated: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename = "ListBucketResult", rename_all = "PascalCase")]
struct Objects {
    #[serde(default)]
    is_truncated: String,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
}

#[derive(Debug, Deserialize)]
#[serde(rename = "ListMultipartUploadsResult", rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    is_truncated: String,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    encoding_type: Option<String>,
    #[serde(default, rename = "Upload")]
    uploads: Vec<Unfinished>,
}

/// An object that was to be removed and was not.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Kept {
    /// Its key, prefix and all.
    pub key: String,
    /// The store's word for why.
    #[serde(default)]
    pub code: String,
    /// The store's sentence.
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Deserialize)]
struct Deleted {
    #[serde(default, rename = "Error")]
    kept: Vec<Kept>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

/// Reads a document whose outermost element must be `root`: a page of a portal is not an empty listing.
fn read<T: DeserializeOwned>(text: &str, root: &str) -> Result<T, Trouble> {
    if text.contains("<Error>") && !text.contains(&format!("<{root}")) {
        return Err(Trouble::Refused(trouble::read(500, text.as_bytes())));
    }
    // Where nothing is to be said the element may be empty.
    let ends = |text: &str| text.ends_with(&format!("</{root}>")) || (text.ends_with("/>") && !text.contains("</"));
    if !text.contains(&format!("<{root}")) || !ends(text.trim_end()) {
        let begin: String = text.trim_start().chars().take(60).collect();
        return Err(Trouble::Strange(format!("{begin:?} where a {root} was expected")));
    }
    quick_xml::de::from_str(text).map_err(|error| Trouble::Strange(error.to_string()))
}

/// A key as it is, where the store encodes keys unasked.
fn plain(key: &str, encoding: Option<&str>) -> Result<String, Trouble> {
    if encoding != Some("url") {
        return Ok(key.to_owned());
    }
    let spaced: Cow<'_, str> = if key.contains('+') { key.replace('+', " ").into() } else { key.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| Trouble::Strange(format!("the key {key:?} in a listing")))
}

fn is_true(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("true")
}

/// Every object whose key begins with `prefix`, all pages.
pub fn objects(wire: &Wire, prefix: &str) -> Result<Vec<Object>, Trouble> {
    let (mut found, mut token) = (Vec::new(), None::<String>);
    for _ in 0..MAX_PAGES {
        let call = || {
            let command = Command::ListObjectsV2 {
                prefix: prefix.to_owned(),
                delimiter: None,
                continuation_token: token.clone(),
                start_after: None,
                max_keys: None,
            };
            Call::new("", command)
        };
        let page: Objects = wire.ask(&call, &|answer| read(&answer.into_inner().document()?, "ListBucketResult"))?;
        for object in page.contents {
            let key = plain(&object.key, page.encoding_type.as_deref())?;
            if key.starts_with(prefix) {
                found.push(Object { key, ..object });
            }
        }
        let next = page.next_continuation_token.filter(|next| !next.is_empty());
        // Where it is not said whether there is more, a way to go on is word enough.
        let goes_on = is_true(&page.is_truncated) || (page.is_truncated.is_empty() && next.is_some());
        if !goes_on {
            return Ok(found);
        }
        let next = next.filter(|next| Some(next) != token.as_ref());
        token = Some(next.ok_or_else(|| Trouble::Strange("a listing that breaks off".to_owned()))?);
    }
    Err(Trouble::Strange("a listing without end".to_owned()))
}

/// Every unfinished upload whose key begins with `prefix`, all pages.
pub fn uploads(wire: &Wire, prefix: &str) -> Result<Vec<Unfinished>, Trouble> {
    let (mut found, mut marker) = (Vec::new(), (None::<String>, None::<String>));
    for _ in 0..MAX_PAGES {
        let call = || {
            let command = Command::ListMultipartUploads {
                prefix: Some(prefix),
                delimiter: None,
                key_marker: marker.0.clone(),
                upload_id_marker: marker.1.clone(),
                max_uploads: None,
            };
            Call::new("", command)
        };
        let page: Uploads =
            wire.ask(&call, &|answer| read(&answer.into_inner().document()?, "ListMultipartUploadsResult"))?;
        let encoding = page.encoding_type.as_deref();
        for upload in page.uploads {
            let key = plain(&upload.key, encoding)?;
            if key.starts_with(prefix) {
                found.push(Unfinished { key, ..upload });
            }
        }
        if !is_true(&page.is_truncated) {
            return Ok(found);
        }
        let key = page.next_key_marker.filter(|key| !key.is_empty()).map(|key| plain(&key, encoding)).transpose()?;
        let next = (key, page.next_upload_id_marker.filter(|id| !id.is_empty()));
        if next.0.is_none() || next == marker {
            return Err(Trouble::Strange("a listing of uploads that breaks off".to_owned()));
        }
        marker = next;
    }
    Err(Trouble::Strange("a listing of uploads without end".to_owned()))
}

/// Removes up to [`MOST_DELETED`] objects in one request; gives those that the store has kept. One that was not there is
/// removed.
pub fn delete(wire: &Wire, paths: &[String]) -> Result<Vec<Kept>, Trouble> {
    let objects = paths.iter().map(ObjectIdentifier::new).collect();
    let data = DeleteObjectsRequest { objects, quiet: true };
    let body = data.to_string();
    let call = || Call { body: body.as_bytes(), ..Call::new("", Command::DeleteObjects { data: data.clone() }) };
    let deleted: Deleted = wire.ask(&call, &|answer| read(&answer.into_inner().document()?, "DeleteResult"))?;
    Ok(deleted.kept.into_iter().filter(|kept| kept.code != "NoSuchKey").collect())
}

/// The id of an upload that has begun.
pub fn begun(text: &str) -> Result<String, Trouble> {
    // Some leave out the "Result" at its end.
    let root = ["InitiateMultipartUploadResult", "InitiateMultipartUpload"];
    let [usual, short] = root.map(|root| read::<Begun>(text, root));
    let begun = if short.is_ok() { short? } else { usual? };
    if begun.upload_id.is_empty() {
        return Err(Trouble::Strange("an upload without an id".to_owned()));
    }
    Ok(begun.upload_id)
}

/// Whether an upload was completed: a status of 200 alone says nothing.
pub fn completed(text: &str) -> Result<(), Trouble> {
    read::<serde::de::IgnoredAny>(text, "CompleteMultipartUploadResult").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_with_an_error_in_it_is_none() {
        let error = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>try again</Message></Error>";
        let trouble = completed(error).unwrap_err();
        assert!(trouble.is_passing() && trouble.is_unsure(), "{trouble:?}");
        assert!(completed("<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>").is_ok());
        assert!(completed("").is_err());
        assert!(completed("<CompleteMultipartUploadResult><ETag>x</E").is_err());
    }

    #[test]
    fn a_page_that_is_not_a_listing_is_no_empty_one() {
        for text in ["", "<html>sign in</html>", "<ListBucketResult><Name>x</Name>", "<ListBucketResult></x>"] {
            assert!(read::<Objects>(text, "ListBucketResult").is_err(), "{text}");
        }
    }

    #[test]
    fn keys_come_out_as_they_are() {
        assert_eq!(plain("a+b%2B", None).unwrap(), "a+b%2B");
        assert_eq!(plain("a+b%2Bc%252F/d", Some("url")).unwrap(), "a b+c%2F/d");
        let text = "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a&amp;b &lt;</Key><Size>3</Size>\
            </Contents></ListBucketResult>";
        let page: Objects = read(text, "ListBucketResult").unwrap();
        assert_eq!((page.contents[0].key.as_str(), page.contents[0].size), ("a&b <", 3));
    }
}
