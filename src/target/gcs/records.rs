//! Records in a bucket: `ifGenerationMatch` on an upload. Flows in: bytes. Flows out: the same, with the generation as
//! their version. Touches the network.

use std::sync::Arc;

use serde_json::json;

use super::trouble::{is_missing, is_precondition};
use super::wire::{Call, Wire};
use super::{Store, documents};
use crate::format::name::ObjectKey;
use crate::target::records::{Expected, Record, Records, Version, age, http_date};
use crate::target::trouble::{Doing, Line, Trouble};
use crate::target::{Cause, TargetError};

/// What a record is said to hold.
const KIND: &str = "application/json";
/// How often a record that changes while it is read is read again.
const ATTEMPTS: usize = 10;

/// Records of one bucket.
pub struct InBucket {
    /// The bucket.
    pub store: Arc<Store>,
    /// The way to it, which may be one for cleaning up.
    pub wire: Wire,
}

impl InBucket {
    /// Its description first, then the bytes of that very generation: `None` when it was replaced in between.
    fn once(&self, path: &str) -> Result<Option<Option<Record>>, Trouble> {
        let described = self.wire.ask(&|| Call::object(path), &|answer| {
            let date = http_date(answer.header("date"));
            Ok((documents::object(&answer.document()?)?, date))
        });
        let (object, date) = match described {
            Err(trouble) if is_missing(&trouble) => return Ok(Some(None)),
            other => other?,
        };
        let call = || Call {
            query: vec![("alt", "media".to_owned()), ("generation", object.generation.clone())],
            ..Call::object(path)
        };
        let read = self.wire.ask(&call, &|answer| {
            let text = answer.document()?;
            match text.len() as u64 == object.size {
                true => Ok(text),
                false => Err(Trouble::cut(text.len() as u64, object.size)),
            }
        });
        match read {
            Ok(text) => {
                let (version, age) = (Version(object.generation.clone()), age(date, object.created()));
                Ok(Some(Some(Record { bytes: text.into_bytes(), version, age })))
            }
            Err(Trouble::Refused(refusal)) if refusal.status == 404 => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

/// An upload in one request: what the object is called, and its bytes.
fn in_parts(border: &str, path: &str, bytes: &[u8]) -> Vec<u8> {
    let about = json!({"name": path, "contentType": KIND});
    let head = format!(
        "--{border}\r\nContent-Type: {KIND}; charset=UTF-8\r\n\r\n{about}\r\n--{border}\r\nContent-Type: {KIND}\r\n\r\n"
    );
    [head.as_bytes(), bytes, format!("\r\n--{border}--\r\n").as_bytes()].concat()
}

impl Records for InBucket {
    fn read(&self, key: &ObjectKey) -> Result<Option<Record>, TargetError> {
        let path = self.store.path(key.as_str());
        for _ in 0..ATTEMPTS {
            let read = self.once(&path).map_err(|trouble| self.store.tell(&trouble, Doing::Get, &path))?;
            if let Some(found) = read {
                return Ok(found);
            }
        }
        Err(self.store.wrong(&format!("{path} changes faster than it can be read")))
    }

    fn write(&self, key: &ObjectKey, bytes: &[u8], expected: Expected<'_>) -> Result<Option<Version>, TargetError> {
        let path = self.store.path(key.as_str());
        let generation = match expected {
            // Only if there is nothing.
            Expected::Absent => "0",
            Expected::Is(version) => &version.0,
        };
        let random = self.wire.client.world.random_hex(16);
        let border = random.map_err(|error| TargetError { cause: Cause::Failed, error })?;
        let body = in_parts(&border, &path, bytes);
        let call = || Call {
            query: vec![("uploadType", "multipart".to_owned()), ("ifGenerationMatch", generation.to_owned())],
            headers: vec![("content-type", format!("multipart/related; boundary={border}"))],
            body: &body,
            ..Call::begin()
        };
        let written = self.wire.ask(&call, &|answer| {
            let object = answer.document().and_then(|text| documents::object(&text));
            // It is stored; reading it again tells its generation.
            object.map_err(|_| Trouble::Line(Line::Broken, "an answer that describes no object".to_owned()))
        });
        match written {
            Ok(object) => Ok(Some(Version(object.generation))),
            Err(trouble) if is_precondition(&trouble) => Ok(None),
            Err(trouble) if is_missing(&trouble) && matches!(expected, Expected::Is(_)) => Ok(None),
            Err(trouble) => Err(self.store.tell(&trouble, Doing::Put, &path)),
        }
    }
}
