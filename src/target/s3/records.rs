//! Records in a bucket: `If-None-Match` and `If-Match` on a PUT. Flows in: bytes. Flows out: the same, with the ETag as
//! their version. Touches the network.

use std::sync::Arc;

use s3::command::Command;

use super::Store;
use super::trouble::Words;
use super::wire::{Call, Wire};
use crate::format::name::ObjectKey;
use crate::target::records::{Expected, Record, Records, Version, age, http_date};
use crate::target::trouble::{Doing, Line, Trouble};
use crate::target::{Cause, TargetError};

/// Records of one bucket.
pub struct InBucket {
    /// The bucket.
    pub store: Arc<Store>,
    /// The way to it, which may be one for cleaning up.
    pub wire: Wire,
}

impl Records for InBucket {
    fn read(&self, key: &ObjectKey) -> Result<Option<Record>, TargetError> {
        let path = self.store.path(key.as_str());
        let read = self.wire.ask(&|| Call::new(&path, Command::GetObject), &|answer| {
            let age = age(http_date(answer.header("date")), http_date(answer.header("last-modified")));
            let Some(etag) = answer.etag() else {
                return Err(Trouble::Line(Line::Broken, "an answer without an ETag".to_owned()));
            };
            let bytes = answer.into_inner().document()?.into_bytes();
            Ok(Record { bytes, version: Version(etag), age })
        });
        match read {
            Ok(record) => Ok(Some(record)),
            Err(trouble) if trouble.is_missing() => Ok(None),
            Err(trouble) => Err(self.store.tell(&trouble, Doing::Get, &path)),
        }
    }

    fn write(&self, key: &ObjectKey, bytes: &[u8], expected: Expected<'_>) -> Result<Option<Version>, TargetError> {
        let path = self.store.path(key.as_str());
        let protection = &self.store.protection;
        let encryption = protection.encryption.clone().map(|kind| ("x-amz-server-side-encryption", kind));
        let kms = protection.kms_key.clone().map(|key| ("x-amz-server-side-encryption-aws-kms-key-id", key));
        let condition = match expected {
            Expected::Absent => ("if-none-match", "*".to_owned()),
            Expected::Is(version) => ("if-match", version.0.clone()),
        };
        let call = || {
            let headers = encryption.clone().into_iter().chain(kms.clone()).chain([condition.clone()]).collect();
            let command = Command::PutObject {
                content: bytes,
                content_type: "application/json",
                custom_headers: None,
                multipart: None,
            };
            Call { headers, body: bytes, ..Call::new(&path, command) }
        };
        let written = self.wire.ask(&call, &|answer| {
            answer.etag().ok_or_else(|| Trouble::Line(Line::Broken, "an answer without an ETag".to_owned()))
        });
        match written {
            Ok(etag) => Ok(Some(Version(etag))),
            Err(trouble) if trouble.is_precondition() => Ok(None),
            Err(trouble) if trouble.is_missing() && matches!(expected, Expected::Is(_)) => Ok(None),
            Err(trouble) if trouble.is_not_implemented() => {
                let what = format!("target {}: the store takes no conditional writes", self.store.name);
                Err(TargetError::new(Cause::Failed, what).hint("use another store for `state` in [backup]"))
            }
            Err(trouble) => Err(self.store.tell(&trouble, Doing::Put, &path)),
        }
    }
}
