//! Whether what was loaded is what the backup holds. Flows in: the archive, the shell's count, what was counted when the backup
//! was made. Flows out: the counts, or the first difference. Pure.

use serde::Deserialize;

use super::archive::{Archive, Collection, Sort};
use crate::engine::Counts;
use crate::error::{Error, Kind, Result};
use crate::format::count;

/// What has been loaded.
#[derive(Debug, Deserialize)]
pub struct Loaded {
    /// Its collections, by the names that they are to have.
    pub collections: Vec<LoadedCollection>,
}

/// One collection of it.
#[derive(Debug, Deserialize)]
pub struct LoadedCollection {
    name: String,
    /// What stays with it when it is renamed.
    pub identity: Option<String>,
    documents: u64,
    indexes: Vec<String>,
}

impl Loaded {
    /// The collection of that name.
    pub fn find(&self, name: &str) -> Option<&LoadedCollection> {
        self.collections.iter().find(|it| it.name == name)
    }
}

/// The number of documents in each collection. Where documents expire, the server may have removed some since.
///
/// # Errors
/// [`Kind::Tool`] with the first difference.
pub fn compare(archive: &Archive, loaded: &Loaded, expected: &Counts) -> Result<Counts> {
    for (name, expected) in expected {
        match (archive.collections.get(name).filter(|it| it.sort != Sort::View), expected) {
            (None, _) => return Err(differs(&format!("the collection {name} is missing"))),
            (Some(it), Some(expected)) if it.sort == Sort::Collection && it.documents != *expected => {
                return Err(differs(&has(name, it.documents, *expected)));
            }
            _ => {}
        }
    }
    let stored = archive.collections.iter().filter(|(_, it)| it.sort != Sort::View);
    stored.map(|(name, it)| Ok((name.clone(), one(name, it, loaded)?))).collect()
}

fn one(name: &str, it: &Collection, loaded: &Loaded) -> Result<Option<u64>> {
    let Some(found) = loaded.find(name) else {
        return Err(differs(&format!("the collection {name} is missing")));
    };
    let fits = if it.expires { found.documents <= it.documents } else { found.documents == it.documents };
    if it.sort == Sort::Collection && !fits {
        return Err(differs(&has(name, found.documents, it.documents)));
    }
    if let Some(index) = it.indexes.iter().find(|index| !found.indexes.contains(index)) {
        return Err(differs(&format!("the index {index} of the collection {name} is missing")));
    }
    Ok((it.sort == Sort::Collection).then_some(found.documents))
}

fn has(name: &str, found: u64, wanted: u64) -> String {
    format!("the collection {name} has {} instead of {wanted}", count(found, "document", "documents"))
}

fn differs(what: &str) -> Error {
    Error::new(Kind::Tool, format!("what was loaded is not what the backup held: {what}"))
        .hint("look into the server's log; another backup may be whole: list shows them")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three documents in each of these collections.
    fn archive(all: &[(&str, bool)]) -> Archive {
        let mut archive = Archive::default();
        for (name, expires) in all {
            let mut one = Collection::default();
            (one.documents, one.expires) = (3, *expires);
            archive.collections.insert((*name).to_owned(), one);
        }
        archive
    }

    fn loaded(documents: u64) -> Loaded {
        let text = format!(r#"{{"collections":[{{"name":"a","identity":"x","documents":{documents},"indexes":[]}}]}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn documents_that_expire_may_be_fewer_and_never_more() {
        let counted = |expires, documents| compare(&archive(&[("a", expires)]), &loaded(documents), &Counts::new());
        assert_eq!(counted(false, 3).unwrap(), Counts::from([("a".to_owned(), Some(3))]));
        assert_eq!(counted(true, 1).unwrap(), Counts::from([("a".to_owned(), Some(1))]));
        assert!(counted(false, 2).unwrap_err().message.contains("the collection a has 2 documents instead of 3"));
        assert!(counted(false, 4).is_err() && counted(true, 4).is_err());
        // What was counted when it was made is in the archive, or the archive is another one.
        let expected = Counts::from([("a".to_owned(), Some(4))]);
        let error = compare(&archive(&[("a", true)]), &loaded(1), &expected).unwrap_err();
        assert!(error.message.contains("the collection a has 3 documents instead of 4"), "{error}");
        assert!(compare(&archive(&[("a", true), ("b", true)]), &loaded(3), &Counts::new()).is_err());
    }
}
