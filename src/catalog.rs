//! The catalog: from a target's listing to backups. Flows in: listings and manifests. Flows out: what each backup says
//! of itself, whether to believe it, whether its object is there, and what belongs to no backup. Reads targets, decides
//! nothing.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{Error, Kind, Result};
use crate::format::key::Keyring;
use crate::format::manifest::{self, MAX_MANIFEST_BYTES, Manifest, Signed, Trust};
use crate::format::name::{self, BackupId, Found, ObjectKey, Owner};
use crate::target::{Cause, Stored, Target};

/// How far ahead of our clock a manifest's date may be before it counts as one from the future.
pub const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// How many manifests are read at once from a target on a network, where each is a round trip.
const READERS: usize = 8;
/// How many manifests are in memory at most before they are read.
const MOST_AT_ONCE: usize = 128;

/// A target that has been opened.
pub struct OpenTarget {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// The place itself.
    pub target: Arc<dyn Target>,
}

impl std::fmt::Debug for OpenTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenTarget({})", self.target.describe())
    }
}

/// One copy of a backup: a manifest at one target.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The target's name.
    pub target: String,
    /// Whether the target is on this machine.
    pub is_local: bool,
    /// Whose it is.
    pub owner: Owner,
    /// Which it is.
    pub id: BackupId,
    /// Where the manifest stands.
    pub manifest_key: ObjectKey,
    /// What it says, or why it can't be read.
    pub manifest: Result<Manifest>,
    /// The object that the manifest names, if it is there.
    pub object: Option<Stored>,
    /// Whether a mark beside it keeps it for ever.
    pub pinned: bool,
}

impl Entry {
    /// What the manifest says, whether it is to be believed or not.
    pub fn signed(&self) -> Option<&Signed> {
        self.manifest.as_ref().ok().map(|manifest| &manifest.signed)
    }

    /// Why the manifest is not to be believed; `None` if it is, or if there is no key to tell by.
    pub fn distrust(&self) -> Option<String> {
        match &self.manifest {
            Err(error) => Some(error.message.clone()),
            Ok(Manifest { trust: Trust::Unauthenticated(why), .. }) => Some(why.clone()),
            Ok(_) => None,
        }
    }

    /// Whether its manifest is signed under one of our keys.
    pub fn is_authentic(&self) -> bool {
        matches!(&self.manifest, Ok(Manifest { trust: Trust::Authentic, .. }))
    }

    /// Why the object can't be what the manifest says, as far as the listing tells.
    pub fn damage(&self) -> Option<String> {
        let signed = self.signed()?;
        match &self.object {
            None => Some("its object is missing".to_owned()),
            Some(object) if object.size < signed.stored_bytes => {
                Some(format!("it is cut: {} of the manifest's {} bytes are there", object.size, signed.stored_bytes))
            }
            Some(object) if object.size > signed.stored_bytes => {
                Some(format!("it has {} bytes, more than the manifest's {}", object.size, signed.stored_bytes))
            }
            Some(_) => None,
        }
    }

    /// Whether its date lies ahead of `now` by more than clocks differ.
    pub fn is_from_future(&self, now: DateTime<Utc>) -> bool {
        self.signed().is_some_and(|signed| signed.created > now + CLOCK_SKEW)
    }
}

/// An object that no manifest names.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// What it would belong to.
    pub id: BackupId,
    /// The object.
    pub object: Stored,
}

/// What a target holds of a database, or of all of an instance.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Copies of backups, in the order of their keys.
    pub entries: Vec<Entry>,
    /// What was left behind by a run that did not finish.
    pub orphans: Vec<Orphan>,
}

/// Reads all of a target below `prefix`; `keys` gives the keys of a database.
///
/// # Errors
/// [`Kind::Target`] when the listing fails or a manifest can't be fetched; never a part of it.
pub fn read(open: &OpenTarget, prefix: &str, keys: &mut dyn FnMut(&Owner) -> Result<Keyring>) -> Result<Catalog> {
    let mut objects: BTreeMap<ObjectKey, (Owner, BackupId, Stored)> = BTreeMap::new();
    let mut manifests = Vec::new();
    let mut pins = BTreeSet::new();
    for stored in open.target.list(prefix)? {
        match name::parse(&stored.key) {
            Some(Found::Manifest(owner, id)) => manifests.push((owner, id, stored)),
            Some(Found::Object(owner, id)) => drop(objects.insert(stored.key.clone(), (owner, id, stored))),
            Some(Found::Pin(owner, id)) => drop(pins.insert((owner, id))),
            None => {}
        }
    }
    let mut catalog = Catalog::default();
    // To fetch keys may take a command and a second, so they are fetched once for a database and not for each manifest.
    let mut rings: BTreeMap<Owner, Keyring> = BTreeMap::new();
    let mut rest = manifests.as_slice();
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(batch(rest));
        rest = others;
        // A failure ends it, so that what is not there behind one is not missed.
        for ((owner, id, stored), bytes) in batch.iter().zip(fetch_all(open, batch)) {
            let keyring = match rings.entry(owner.clone()) {
                Place::Occupied(known) => known.into_mut(),
                Place::Vacant(new) => new.insert(keys(owner)?),
            };
            let Some(bytes) = bytes? else {
                // Another run's retention has removed it since the listing; its object goes next, and is no left-over.
                objects.retain(|_, (whose, other, _)| (&*whose, &*other) != (owner, id));
                continue;
            };
            let manifest = bytes.and_then(|bytes| manifest::read(&bytes, owner, id, keyring));
            let object = manifest.as_ref().ok().and_then(|manifest| {
                let key = ObjectKey::new(&manifest.signed.object).ok()?;
                objects.remove(&key).map(|(.., object)| object)
            });
            if manifest.is_err() {
                // What it names is unknown, so nothing with its id may pass for left behind.
                objects.retain(|_, (whose, other, _)| (&*whose, &*other) != (owner, id));
            }
            catalog.entries.push(Entry {
                target: open.name.clone(),
                is_local: open.is_local,
                owner: owner.clone(),
                id: id.clone(),
                manifest_key: stored.key.clone(),
                manifest,
                object,
                pinned: pins.contains(&(owner.clone(), id.clone())),
            });
        }
    }
    catalog.orphans = objects.into_values().map(|(_, id, object)| Orphan { id, object }).collect();
    Ok(catalog)
}

/// A manifest that a listing shows.
type Listed = (Owner, BackupId, Stored);

/// How many of these are fetched before the first is read, so that memory stays bounded whatever stands there.
fn batch(listed: &[Listed]) -> usize {
    let mut bytes = 0u64;
    let within = listed.iter().take(MOST_AT_ONCE).take_while(|(.., stored)| {
        bytes = bytes.saturating_add(stored.size);
        bytes <= MAX_MANIFEST_BYTES
    });
    within.count().max(1)
}

/// Fetches these, some at a time; in their order, and none behind the first that fails, which would be tried as long.
fn fetch_all(open: &OpenTarget, batch: &[Listed]) -> Vec<Result<Fetched>> {
    let readers = if open.is_local { 1 } else { READERS };
    let share = batch.len().div_ceil(readers).max(1);
    let fetch = |part: &[Listed]| {
        let mut fetched = Vec::with_capacity(part.len());
        for (.., stored) in part {
            fetched.push(fetch(open, stored));
            if fetched.last().is_some_and(Result::is_err) {
                break;
            }
        }
        fetched
    };
    if readers == 1 || batch.len() == 1 {
        return fetch(batch);
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = batch.chunks(share).map(|part| scope.spawn(move || fetch(part))).collect();
        let lost = |_| vec![Err(Error::other("a thread that read manifests ended unexpectedly"))];
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(lost)).collect()
    })
}

/// A manifest's bytes, or what is wrong with it; nothing, if it is there no more.
type Fetched = Option<Result<Vec<u8>>>;

fn fetch(open: &OpenTarget, stored: &Stored) -> Result<Fetched> {
    if stored.size > MAX_MANIFEST_BYTES {
        let why = format!("the manifest {} is {} bytes long, which no manifest is", stored.key, stored.size);
        return Ok(Some(Err(Error::new(Kind::Authentication, why))));
    }
    let mut bytes = Vec::new();
    let reader = match open.target.get(&stored.key) {
        // Only a listing without it says that it is gone: what is there and can't be found is a failure.
        Err(failure) if failure.cause == Cause::NotFound => {
            let still = open.target.list(stored.key.as_str())?;
            return if still.iter().any(|other| other.key == stored.key) { Err(failure.into()) } else { Ok(None) };
        }
        reader => reader?,
    };
    reader
        // No more than the listing says, whatever comes: one that is longer can't be read.
        .take(stored.size.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Error::from_io(error, Kind::Target, format!("can't read {} at {}", stored.key, open.name)))?;
    Ok(Some(Ok(bytes)))
}
