//! Google Cloud Storage, by its JSON API. Flows in and out: objects under keys, with the target's prefix before them.
//! Touches the network. [`settings`] reads the configuration, [`auth`] gets tokens, [`wire`] sends one request, [`upload`]
//! and [`download`] make objects of many, [`documents`] is the JSON, [`trouble`] says what went wrong.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use super::records::Records;
use super::trouble::{Doing, Shown, Trouble};
use super::{AfterSignal, Cause, Stored, Target, TargetError, TargetKind};
use crate::format::name::ObjectKey;

mod auth;
mod documents;
mod download;
mod records;
mod settings;
mod trouble;
mod upload;
mod wire;

pub use auth::Identity;
use documents::{Object, Page};
pub use settings::Settings;
use trouble::is_missing;
use wire::{Call, Wire};

/// The Google Cloud Storage kind.
pub const KIND: TargetKind = TargetKind { name: "gcs", is_local: false, has_records: true, read: settings::read };
/// How many pages a listing may have.
const MOST_PAGES: usize = 1_000_000;
/// How many objects a page of a listing has at most.
const PAGE: u32 = 1000;

/// A bucket, or what is below a prefix in one.
pub struct Gcs(Arc<Store>);

/// What uploads and downloads share.
struct Store {
    name: String,
    bucket: String,
    prefix: String,
    wire: Wire,
    /// How much of an upload is in memory, in bytes; a multiple of 256 KiB.
    chunk: usize,
    storage_class: Option<String>,
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
        let on = if on.is_empty() { format!("bucket {}", self.bucket) } else { on.to_owned() };
        let scrub = |text: &str| self.wire.auth.scrub(text);
        let about = Shown { name: &self.name, endpoint: &self.wire.endpoint, bucket: &self.bucket, scrub: &scrub };
        trouble::tell(trouble, &about, self.wire.auth.who(), doing, &on)
    }

    /// What the store knows of an object, or nothing if there is none.
    fn look(&self, wire: &Wire, path: &str) -> Result<Option<Object>, Trouble> {
        match wire.ask(&|| Call::object(path), &|answer| documents::object(&answer.document()?)) {
            Ok(object) => Ok(Some(object)),
            Err(trouble) if is_missing(&trouble) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Removes an object, or only this generation of it.
    fn remove(&self, wire: &Wire, path: &str, generation: Option<&str>) -> Result<(), Trouble> {
        let query: Vec<_> = generation.into_iter().map(|it| ("ifGenerationMatch", it.to_owned())).collect();
        let call = || Call { method: attohttpc::Method::DELETE, query: query.clone(), ..Call::object(path) };
        match wire.ask(&call, &|_| Ok(())) {
            Err(trouble) if !is_missing(&trouble) => Err(trouble),
            _ => Ok(()),
        }
    }

    /// Every object below a prefix.
    fn objects(&self, prefix: &str) -> Result<Vec<Object>, Trouble> {
        let (mut all, mut token, mut seen) = (Vec::new(), None::<String>, HashSet::new());
        for _ in 0..MOST_PAGES {
            let mut query = vec![
                ("prefix", prefix.to_owned()),
                ("maxResults", PAGE.to_string()),
                ("fields", "kind,nextPageToken,items(name,size,generation,crc32c,timeCreated)".to_owned()),
            ];
            query.extend(token.take().map(|token| ("pageToken", token)));
            let call = || Call { query: query.clone(), ..Call::object("") };
            let page: Page = self.wire.ask(&call, &|answer| documents::page(&answer.document()?))?;
            all.extend(page.items);
            match page.next_page_token.filter(|token| !token.is_empty()) {
                None => return Ok(all),
                Some(next) if !seen.insert(next.clone()) => {
                    return Err(Trouble::Strange("a listing that goes in a circle".to_owned()));
                }
                next => token = next,
            }
        }
        Err(Trouble::Strange("a listing without end".to_owned()))
    }
}

impl Target for Gcs {
    fn describe(&self) -> String {
        format!("{} ({}/{}/{})", self.0.name, self.0.wire.endpoint, self.0.bucket, self.0.prefix)
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        upload::put(&self.0, key, body)
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        download::open(&self.0, &self.0.path(key.as_str()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        let path = self.0.path(prefix);
        let objects = self.0.objects(&path).map_err(|trouble| self.0.tell(&trouble, Doing::List, &path))?;
        let ours = objects.into_iter().filter_map(|object| {
            // What is not below the prefix was not asked for.
            let key = object.name.strip_prefix(&self.0.prefix).filter(|key| key.starts_with(prefix))?;
            Some(object.stored(&ObjectKey::new(key).ok()?))
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
        let removed = self.0.remove(&self.0.wire, &path, None);
        removed.map_err(|trouble| self.0.tell(&trouble, Doing::Delete, &path))
    }

    fn take_back(&self, key: &ObjectKey) {
        drop(self.0.remove(&self.0.wire.for_cleanup(), &self.0.path(key.as_str()), None));
    }

    fn records(&self, after: AfterSignal) -> Option<Box<dyn Records>> {
        let wire = self.0.wire.after(after);
        Some(Box::new(records::InBucket { store: Arc::clone(&self.0), wire }))
    }
}

impl std::fmt::Debug for Gcs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gcs").field(&self.describe()).finish()
    }
}
