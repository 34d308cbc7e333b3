//! A target in memory, for tests and as the simplest example of the contract. Touches nothing.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Cause, Stored, Target, TargetError};
use crate::format::name::ObjectKey;

/// Objects by key.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<ObjectKey, Vec<u8>>>);

impl Memory {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Vec<u8>>> {
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
        if objects.contains_key(key) {
            return Err(TargetError::new(Cause::Exists, format!("memory: {key} exists already")));
        }
        let stored = stored(key, &bytes);
        objects.insert(key.clone(), bytes);
        Ok(stored)
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        match self.objects().get(key) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => Err(TargetError::new(Cause::NotFound, format!("memory: there is no {key}"))),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        let objects = self.objects();
        Ok(objects
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, bytes)| stored(key, bytes))
            .collect())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.objects().remove(key);
        Ok(())
    }
}
