//! Any S3-compatible store. Flows in and out: objects under keys, with the target's prefix before them. Touches the
//! network. [`settings`] reads the configuration, [`auth`] has the keys, [`wire`] sends one request, [`upload`] and [`download`] make objects
//! of many, [`lock`] looks after locks, [`pages`] reads XML, [`trouble`] says what went wrong.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chrono::{DateTime, Utc};
use s3::command::Command;

use super::records::Records;
use super::trouble::{Doing, Line, Shown, Trouble, without};
use super::{AfterSignal, Cause, Stored, Target, TargetError, TargetKind};
use crate::error::Error;
use crate::format::name::ObjectKey;
use crate::report::Report;

mod auth;
mod download;
mod lock;
mod pages;
mod records;
mod settings;
mod trouble;
mod upload;
mod wire;

pub use auth::{Identity, Pass, Role};
pub use settings::{Keys, Lock, Protection, Settings};
use trouble::Words;
use wire::{Answer, Call, Wire};

/// The S3 kind.
pub const KIND: TargetKind = TargetKind { name: "s3", is_local: false, has_records: true, read: settings::read };

/// A bucket, or what is below a prefix in one.
pub struct S3(Arc<Store>);

/// What uploads and downloads share.
struct Store {
    name: String,
    endpoint: String,
    bucket: String,
    prefix: String,
    wire: Wire,
    /// The size of the first parts, in bytes.
    part_size: u64,
    storage_class: Option<String>,
    /// What the store is to encrypt it with, and how long it is to keep it whatever anybody says.
    protection: Protection,
    /// Whether the store takes `If-None-Match`, as far as is known.
    conditions: AtomicBool,
    /// Where what can't be put in order is told.
    report: Report,
}

impl Store {
    /// A key as the store has it.
    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A failure without an answer of the store's.
    fn wrong(&self, what: &str) -> TargetError {
        TargetError::new(Cause::Failed, format!("target {}: {what}", self.name))
    }

    fn tell(&self, trouble: &Trouble, doing: Doing, on: &str) -> TargetError {
        let secrets = self.wire.auth.secrets();
        let scrub = |text: &str| without(text, &secrets);
        let shown = Shown { name: &self.name, endpoint: &self.endpoint, bucket: &self.bucket, scrub: &scrub };
        let on = if on.is_empty() { format!("bucket {}", self.bucket) } else { on.to_owned() };
        let failure = trouble.tell(&shown, doing, &on);
        if !trouble.is_ended() || !self.wire.auth.is_role() {
            return failure;
        }
        let mend =
            "its keys are those of this host's role: look whether that still gives such, and at this host's clock";
        TargetError { error: Error { hint: Some(mend.to_owned()), ..failure.error }, ..failure }
    }

    /// The sentence for a trouble, without our secrets.
    fn reason(&self, trouble: &Trouble) -> String {
        let secrets = self.wire.auth.secrets();
        trouble.reason(&self.endpoint, "S3", &|text| without(text, &secrets))
    }

    /// What the headers of an answer say of an object.
    fn stored(key: &ObjectKey, answer: &Answer) -> Result<Stored, Trouble> {
        let (Some(size), Some(_)) = (answer.length(), answer.etag()) else {
            return Err(Trouble::Line(Line::Broken, "an answer without length and ETag".to_owned()));
        };
        let modified = answer.header("last-modified").and_then(|text| DateTime::parse_from_rfc2822(text).ok());
        Ok(Stored { key: key.clone(), size, modified: modified.map(|at| at.to_utc()) })
    }

    fn remove(&self, wire: &Wire, path: &str) -> Result<(), Trouble> {
        match wire.ask(&|| Call::new(path, Command::DeleteObject), &|_| Ok(())) {
            Err(trouble) if !trouble.is_missing() => Err(trouble),
            _ => Ok(()),
        }
    }

    /// A key of ours from one of the store's.
    fn key(&self, path: &str) -> Option<ObjectKey> {
        ObjectKey::new(path.strip_prefix(&self.prefix)?).ok()
    }
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text.trim()).ok().map(|at| at.to_utc())
}

impl Target for S3 {
    fn describe(&self) -> String {
        format!("{} ({}/{}/{})", self.0.name, self.0.endpoint, self.0.bucket, self.0.prefix)
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        upload::put(&self.0, key, body, self.0.protection.lock.as_ref())
    }

    fn put_briefly(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        upload::put(&self.0, key, body, None)
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        download::open(&self.0, &self.0.path(key.as_str()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        let path = self.0.path(prefix);
        let objects = pages::objects(&self.0.wire, &path);
        let objects = objects.map_err(|trouble| self.0.tell(&trouble, Doing::List, &path))?;
        let ours = objects.into_iter().filter_map(|object| {
            let modified = object.last_modified.as_deref().and_then(instant);
            Some(Stored { key: self.0.key(&object.key)?, size: object.size, modified })
        });
        let mut stored: Vec<Stored> = ours.collect();
        stored.sort_by(|a, b| a.key.cmp(&b.key));
        stored.dedup_by(|a, b| a.key == b.key);
        Ok(stored)
    }

    fn moved(&self) -> u64 {
        self.0.wire.client.moved()
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        let path = self.0.path(key.as_str());
        lock::unless_locked(&self.0, &path)?;
        self.0.remove(&self.0.wire, &path).map_err(|trouble| self.0.tell(&trouble, Doing::Delete, &path))
    }

    fn take_back(&self, key: &ObjectKey) {
        drop(self.0.remove(&self.0.wire.for_cleanup(), &self.0.path(key.as_str())));
    }

    fn look_closer(&self, probe: &ObjectKey) -> Result<Vec<String>, TargetError> {
        lock::look_closer(&self.0, &self.0.path(probe.as_str()))
    }

    fn delete_all(&self, keys: &[ObjectKey]) -> Vec<Result<(), TargetError>> {
        if self.0.protection.lock.is_some() {
            return keys.iter().map(|key| self.delete(key)).collect();
        }
        let mut outcomes = Vec::new();
        for chunk in keys.chunks(pages::MOST_DELETED) {
            let paths: Vec<String> = chunk.iter().map(|key| self.0.path(key.as_str())).collect();
            match pages::delete(&self.0.wire, &paths) {
                // It kept something, and does not say what by its name: one by one tells.
                Ok(kept) if kept.iter().any(|kept| !paths.contains(&kept.key)) => {
                    outcomes.extend(chunk.iter().map(|key| self.delete(key)));
                }
                Ok(kept) => outcomes.extend(paths.iter().map(|path| {
                    let refused = kept.iter().find(|kept| kept.key == *path).map(trouble::kept);
                    refused.map_or(Ok(()), |trouble| Err(self.0.tell(&trouble, Doing::Delete, path)))
                })),
                // A store that does not know it, or does not let us: one by one tells for each. One that has no time would
                // be asked a thousand times more.
                Err(trouble @ Trouble::Refused(_)) if !trouble.is_passing() => {
                    outcomes.extend(chunk.iter().map(|key| self.delete(key)))
                }
                Err(trouble) => {
                    outcomes.extend(paths.iter().map(|path| Err(self.0.tell(&trouble, Doing::Delete, path))));
                }
            }
        }
        outcomes
    }

    fn sweep(&self, prefix: &str, before: DateTime<Utc>) -> Result<usize, TargetError> {
        let path = self.0.path(prefix);
        let tell = |trouble: &Trouble| self.0.tell(trouble, Doing::Sweep, &path);
        let uploads = match pages::uploads(&self.0.wire, &path) {
            // Some say "no such upload" where there is none at all.
            Err(trouble) if trouble.is_not_implemented() || trouble.is_missing() => return Ok(0),
            other => other.map_err(|trouble| tell(&trouble))?,
        };
        let mut swept = 0;
        for upload in uploads {
            let is_old = upload.initiated.as_deref().and_then(instant).is_some_and(|at| at < before);
            if is_old && self.0.key(&upload.key).is_some() {
                let id = upload::query(&upload.upload_id);
                upload::abort(&self.0.wire, &upload.key, &id).map_err(|trouble| tell(&trouble))?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn records(&self, after: AfterSignal) -> Option<Box<dyn Records>> {
        let wire = self.0.wire.after(after);
        Some(Box::new(records::InBucket { store: Arc::clone(&self.0), wire }))
    }
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("S3").field(&self.describe()).finish()
    }
}
