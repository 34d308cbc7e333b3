//! Voxeltron Cloud, by the protocol of `docs/cloud-protocol.md`. Flows in and out: objects under keys, with the target's
//! prefix before them. Touches the network, and the link's file in the data folder. [`link`] keeps what the instance is
//! linked to, [`oauth`] links and renews, [`auth`] gives the token, [`wire`] sends one request, [`upload`] and [`download`]
//! make objects of many, [`documents`] is what the server says, [`trouble`] what went wrong.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use attohttpc::Method;

use super::trouble::{Doing, Shown, Trouble};
use super::{Cause, Stored, Target, TargetError, TargetKind};
use crate::format::name::ObjectKey;

mod auth;
mod documents;
mod download;
pub mod link;
pub mod oauth;
mod settings;
mod trouble;
mod upload;
mod wire;

pub use documents::Account;
use documents::Listed;
pub use settings::{Settings, without_table};
use trouble::is_missing;
use wire::{Call, Place, Wire};

/// The kind's name, and the name of a target that needs no table.
pub const NAME: &str = "cloud";
/// The Voxeltron Cloud kind.
pub const KIND: TargetKind = TargetKind { name: NAME, is_local: false, has_records: false, read: settings::read };
/// How many pages a listing may have.
const MOST_PAGES: usize = 1_000_000;
/// How many objects a page of a listing has at most.
const PAGE: u32 = 1000;

/// What an account holds, or what is below a prefix there.
pub struct Cloud(Arc<Store>);

/// What uploads and downloads share.
struct Store {
    name: String,
    prefix: String,
    wire: Wire,
    /// How much of an upload is in memory, in bytes.
    chunk: usize,
}

impl Store {
    /// A key as the cloud has it.
    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A failure without an answer of the server's.
    fn wrong(&self, what: &str) -> TargetError {
        TargetError::new(Cause::Failed, format!("target {}: {what}", self.name))
    }

    fn tell(&self, trouble: &Trouble, doing: Doing, on: &str) -> TargetError {
        let on = if on.is_empty() { "the account" } else { on };
        let scrub = |text: &str| self.wire.auth.scrub(text);
        let about = Shown { name: &self.name, endpoint: &self.wire.endpoint, bucket: "", scrub: &scrub };
        trouble::tell(trouble, &about, doing, on)
    }

    fn remove(&self, wire: &Wire, path: &str) -> Result<(), Trouble> {
        match wire.ask(&Call::new(Place::Object(path), Method::DELETE), &|answer| match answer.status {
            204 => Ok(()),
            status => Err(Trouble::Strange(format!("{status} where it should be 204"))),
        }) {
            Err(trouble) if !is_missing(&trouble) => Err(trouble),
            _ => Ok(()),
        }
    }

    /// Every object below a prefix.
    fn objects(&self, prefix: &str) -> Result<Vec<Listed>, Trouble> {
        let (mut all, mut token, mut seen) = (Vec::new(), None::<String>, HashSet::new());
        for _ in 0..MOST_PAGES {
            let mut query = vec![("prefix", prefix.to_owned()), ("limit", PAGE.to_string())];
            query.extend(token.take().map(|token| ("page_token", token)));
            let call = Call { query, ..Call::new(Place::Objects, Method::GET) };
            let page = self.wire.ask(&call, &|answer| documents::page(&answer.document()?))?;
            all.extend(page.objects);
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

impl Cloud {
    /// Whose account it is, and how full.
    ///
    /// # Errors
    /// The server's refusal, or why there is no answer.
    pub fn account(&self) -> Result<Account, TargetError> {
        let asked =
            self.0.wire.ask(&Call::new(Place::Account, Method::GET), &|answer| documents::account(&answer.document()?));
        asked.map_err(|trouble| self.0.tell(&trouble, Doing::Get, "the account"))
    }
}

impl Target for Cloud {
    fn describe(&self) -> String {
        format!("{} ({}/{})", self.0.name, self.0.wire.endpoint, self.0.prefix)
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
            let key = object.key.strip_prefix(&self.0.prefix).filter(|key| key.starts_with(prefix))?;
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
        self.0.remove(&self.0.wire, &path).map_err(|trouble| self.0.tell(&trouble, Doing::Delete, &path))
    }

    fn take_back(&self, key: &ObjectKey) {
        drop(self.0.remove(&self.0.wire.for_cleanup(), &self.0.path(key.as_str())));
    }
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cloud").field(&self.describe()).finish()
    }
}
