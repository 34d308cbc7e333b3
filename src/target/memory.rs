//! A target in memory, for tests and as the simplest example of the contract. Touches nothing.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::records::{Expected, Record, Records, Version};
use super::{AfterSignal, Cause, Stored, Target, TargetError};
use crate::format::name::ObjectKey;

/// Objects by key. A clone is the same store.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Objects>>);

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<ObjectKey, (Vec<u8>, u64)>,
    /// How often anything was stored.
    writes: u64,
}

impl Objects {
    fn insert(&mut self, key: &ObjectKey, bytes: Vec<u8>) -> u64 {
        self.writes += 1;
        self.by_key.insert(key.clone(), (bytes, self.writes));
        self.writes
    }
}

impl Memory {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stored(key: &ObjectKey, bytes: &[u8]) -> Stored {
    Stored { key: key.clone(), size: bytes.len() as u64, modified: None }
}

impl Target for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map_err(TargetError::body)?;
        let mut objects = self.objects();
        if objects.by_key.contains_key(key) {
            return Err(TargetError::new(Cause::Exists, format!("memory: {key} exists already")));
        }
        let stored = stored(key, &bytes);
        objects.insert(key, bytes);
        Ok(stored)
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        match self.objects().by_key.get(key) {
            Some((bytes, _)) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => Err(TargetError::new(Cause::NotFound, format!("memory: there is no {key}"))),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        let objects = self.objects();
        let listed = objects.by_key.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok(listed.map(|(key, (bytes, _))| stored(key, bytes)).collect())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.objects().by_key.remove(key);
        Ok(())
    }

    fn records(&self, _: AfterSignal) -> Option<Box<dyn Records>> {
        Some(Box::new(self.clone()))
    }
}

impl Records for Memory {
    fn read(&self, key: &ObjectKey) -> Result<Option<Record>, TargetError> {
        let objects = self.objects();
        let record = |(bytes, version): &(Vec<u8>, u64)| Record {
            bytes: bytes.clone(),
            version: Version(version.to_string()),
            age: None,
        };
        Ok(objects.by_key.get(key).map(record))
    }

    fn write(&self, key: &ObjectKey, bytes: &[u8], expected: Expected<'_>) -> Result<Option<Version>, TargetError> {
        let mut objects = self.objects();
        let stands = objects.by_key.get(key).map(|(_, version)| version.to_string());
        let fits = match expected {
            Expected::Absent => stands.is_none(),
            Expected::Is(version) => stands.as_ref() == Some(&version.0),
        };
        Ok(fits.then(|| Version(objects.insert(key, bytes.to_vec()).to_string())))
    }
}
