//! An archive of mongodump, as it passes. Flows in: its bytes. Flows out: what it holds, and whether it is whole. Pure.
//!
//! It is a magic number, a block that names all collections, and blocks of documents, each for one collection; a block
//! ends with four bytes 0xff. Nothing marks the archive's own end: it is whole when every collection that the first block
//! promises has had its last block, whose checksum (CRC-64) fits its documents, and nothing follows.

use std::collections::BTreeMap;

use crc::{CRC_64_XZ, Crc, Digest, Table};
use serde::Deserialize;

use super::bson::{Value, fields};
use crate::engine::{Counts, Findings, Inspector};
use crate::error::{Error, Kind, Result};

/// The first four bytes.
const MAGIC: [u8; 4] = 0x8199_e26d_u32.to_le_bytes();
/// What ends a block, where a document's length would stand.
const END_OF_BLOCK: u32 = u32::MAX;
/// The largest document, in bytes: 16 MiB, and what the server adds.
const DOCUMENT_BYTES: u32 = 16 * 1024 * 1024 + 64 * 1024;
/// How much of the first block is kept, in bytes.
const PRELUDE_BYTES: usize = 256 * 1024 * 1024;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// What a collection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Documents.
    #[default]
    Collection,
    /// A query under a name.
    View,
    /// Documents in buckets under another name.
    TimeSeries,
}

/// A collection that the archive promises.
#[derive(Clone, Default)]
pub struct Collection {
    /// What it is.
    pub sort: Sort,
    /// Its options and indexes, as the archive gives them.
    pub metadata: String,
    /// The names of its indexes.
    pub indexes: Vec<String>,
    /// Whether its server removes documents by their age.
    pub expires: bool,
    /// How many documents have passed.
    pub documents: u64,
    digest: Option<Digest<'static, u64, Table<16>>>,
    ended: bool,
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection")
            .field("sort", &self.sort)
            .field("documents", &self.documents)
            .finish_non_exhaustive()
    }
}

/// Options and indexes, as far as they matter here.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    options: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    indexes: Vec<Index>,
}

#[derive(Deserialize)]
struct Index {
    name: String,
    #[serde(default, rename = "expireAfterSeconds")]
    expires: Option<serde_json::Value>,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Magic,
    /// A document's length, or the end of the block.
    Length,
    /// A document that is kept: this many bytes in all.
    Kept(u32),
    /// A document that passes: this many bytes are left.
    Passing(u32),
}

/// Reads an archive.
#[derive(Debug, Default)]
pub struct Archive {
    state: State,
    /// The bytes of a number, or of a document that is kept.
    held: Vec<u8>,
    /// How many documents of this block have begun.
    begun: usize,
    prelude: bool,
    kept: usize,
    current: Option<String>,
    /// The database that it is of.
    pub database: Option<String>,
    /// Version of the tool that wrote it.
    pub tool_version: Option<String>,
    /// Version of the server it was taken from.
    pub server_version: Option<String>,
    /// What it promises.
    pub collections: BTreeMap<String, Collection>,
}

impl Archive {
    /// Whether all collections are known.
    pub fn knows_all(&self) -> bool {
        self.prelude
    }

    /// Documents by collection.
    pub fn counts(&self) -> Counts {
        let counted = self.collections.iter().filter(|(_, it)| it.sort != Sort::View);
        counted.map(|(name, it)| (name.clone(), (it.sort == Sort::Collection).then_some(it.documents))).collect()
    }

    /// Takes what it needs from `bytes` to fill `held` to `size`; whether it is full.
    fn hold(&mut self, bytes: &mut &[u8], size: usize) -> bool {
        let count = bytes.len().min(size.saturating_sub(self.held.len()));
        let (taken, rest) = bytes.split_at(count);
        self.held.extend_from_slice(taken);
        *bytes = rest;
        self.held.len() == size
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`Kind::Tool`] when they can't stand there.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let wanted = match self.state {
                State::Magic | State::Length => 4,
                State::Kept(size) => size as usize,
                State::Passing(left) => {
                    let count = bytes.len().min(left as usize);
                    let (taken, rest) = bytes.split_at(count);
                    bytes = rest;
                    self.documents(taken, left - u32::try_from(count).unwrap_or(left))?;
                    continue;
                }
            };
            if !self.hold(&mut bytes, wanted) {
                break;
            }
            match self.state {
                State::Magic if self.held != MAGIC => {
                    return Err(Error::new(Kind::Tool, "this is no archive of mongodump"));
                }
                State::Magic => self.held.clear(),
                State::Kept(_) => {
                    let document = std::mem::take(&mut self.held);
                    self.state = State::Length;
                    self.header(&document)?;
                }
                State::Length | State::Passing(_) => self.length()?,
            }
            if self.state == State::Magic {
                self.state = State::Length;
            }
        }
        Ok(())
    }

    fn length(&mut self) -> Result<()> {
        let length = u32::from_le_bytes(self.held.as_slice().try_into().unwrap_or_default());
        if length == END_OF_BLOCK {
            if self.begun == 0 {
                return Err(broken("a block of it is empty"));
            }
            self.held.clear();
            self.begun = 0;
            self.current = None;
            self.prelude = true;
            return Ok(());
        }
        if !(5..=DOCUMENT_BYTES).contains(&length) {
            return Err(broken("a document of it has an impossible length"));
        }
        self.begun += 1;
        if self.prelude && self.begun > 1 {
            let begin = std::mem::take(&mut self.held);
            let Some(it) = self.current.as_ref().and_then(|name| self.collections.get_mut(name)) else {
                return Err(broken("documents follow the end of a collection"));
            };
            it.documents += 1;
            self.state = State::Passing(length);
            return self.documents(&begin, length - 4);
        }
        self.kept += length as usize;
        if !self.prelude && self.kept > PRELUDE_BYTES {
            return Err(broken("it names too many collections"));
        }
        self.state = State::Kept(length);
        Ok(())
    }

    /// Bytes of a document, of which `left` follow.
    fn documents(&mut self, bytes: &[u8], left: u32) -> Result<()> {
        let name = self.current.as_deref().unwrap_or_default();
        if let Some(it) = self.collections.get_mut(name) {
            it.digest.get_or_insert_with(|| CRC.digest()).update(bytes);
        }
        self.state = if left > 0 { State::Passing(left) } else { State::Length };
        match (left, bytes.last()) {
            (0, Some(last)) if *last != 0 => Err(broken(&format!("a document of {name} does not end as it should"))),
            _ => Ok(()),
        }
    }

    fn header(&mut self, document: &[u8]) -> Result<()> {
        if document.last() != Some(&0) {
            return Err(broken("a header of it does not end as it should"));
        }
        let mut fields: BTreeMap<_, _> = fields(document)?.into_iter().collect();
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        if !self.prelude && self.begun == 1 {
            self.tool_version = text("tool_version");
            self.server_version = text("server_version");
            return match text("version") {
                Some(version) if version == "0.1" => Ok(()),
                _ => Err(Error::new(Kind::Tool, "the archive is of a version that is not known")
                    .hint("update voxeltron-backup")),
            };
        }
        let (Some(database), Some(name)) = (text("db"), text("collection")) else {
            return Err(broken("a header of it names no collection"));
        };
        if *self.database.get_or_insert_with(|| database.clone()) != database {
            return Err(broken("it is of more than one database"));
        }
        if !self.prelude {
            return self.promise(name, text("metadata").unwrap_or_default(), text("type").as_deref());
        }
        let ended = fields.get("EOF") == Some(&Value::Truth(true));
        let crc = match fields.get("CRC") {
            Some(Value::Number(crc)) => *crc,
            _ => return Err(broken("a header of it has no checksum")),
        };
        self.begin(name, ended.then_some(crc.cast_unsigned()))
    }

    fn promise(&mut self, name: String, metadata: String, sort: Option<&str>) -> Result<()> {
        let about: Metadata = match metadata.as_str() {
            "" => Metadata { options: Default::default(), indexes: Vec::new() },
            text => serde_json::from_str(text)
                .map_err(|_| broken(&format!("what it says about the collection {name} can't be read")))?,
        };
        let sort = match sort {
            Some("view") => Sort::View,
            Some("timeseries") => Sort::TimeSeries,
            _ if about.options.contains_key("viewOn") => Sort::View,
            _ if about.options.contains_key("timeseries") => Sort::TimeSeries,
            _ => Sort::Collection,
        };
        // By an index, or where the collection is ordered by its key.
        let expires = about.options.contains_key("expireAfterSeconds")
            || about.indexes.iter().any(|index| index.expires.is_some());
        let indexes = about.indexes.into_iter().map(|index| index.name).collect();
        let promised = Collection { sort, metadata, indexes, expires, ..Collection::default() };
        match self.collections.insert(name.clone(), promised) {
            None => Ok(()),
            Some(_) => Err(broken(&format!("it names the collection {name} twice"))),
        }
    }

    /// A block of a collection begins; with a checksum it is the last one.
    fn begin(&mut self, name: String, crc: Option<u64>) -> Result<()> {
        // The documents of a time series have the name of its buckets.
        let owner = name.strip_prefix("system.buckets.").filter(|name| self.collections.contains_key(*name));
        let name = owner.map(str::to_owned).unwrap_or(name);
        let Some(it) = self.collections.get_mut(&name) else {
            return Err(broken(&format!("it holds documents of {name}, which it does not announce")));
        };
        if it.ended {
            return Err(broken(&format!("more documents of {name} follow their end")));
        }
        match crc {
            None => self.current = Some(name),
            Some(crc) => {
                it.ended = true;
                if it.digest.take().unwrap_or_else(|| CRC.digest()).finalize() != crc {
                    return Err(broken(&format!("the documents of {name} don't fit their checksum")));
                }
            }
        }
        Ok(())
    }

    /// The end of the stream.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the archive is empty or is not whole.
    pub fn end(&mut self) -> Result<()> {
        let cut = |why: &str| Error::new(Kind::Tool, format!("the dump is cut: {why}"));
        if self.state == State::Magic && self.held.is_empty() {
            return Err(Error::new(Kind::Tool, "the dump is empty"));
        }
        if !self.prelude || self.state != State::Length || !self.held.is_empty() || self.begun > 0 {
            return Err(cut("its last block has no end"));
        }
        match self.collections.iter().find(|(_, it)| !it.ended) {
            Some((name, _)) => Err(cut(&format!("the end of the collection {name} is missing"))),
            None => Ok(()),
        }
    }
}

fn broken(why: &str) -> Error {
    Error::new(Kind::Tool, format!("the archive is broken: {why}"))
}

impl Inspector for Archive {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.pass(bytes)
    }

    fn finish(&mut self) -> Result<Findings> {
        self.end()?;
        Ok(Findings {
            end_mark: match self.collections.len() {
                1 => "the end of its collection, CRC-64".to_owned(),
                all => format!("the end of each of {all} collections, CRC-64"),
            },
            tool_version: self.tool_version.clone(),
            server_version: self.server_version.clone(),
            counts: self.counts(),
        })
    }
}
