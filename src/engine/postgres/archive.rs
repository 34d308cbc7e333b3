//! `pg_dump`'s custom format, read as it streams. Flows in: the archive's bytes, cut anywhere. Flows out: whether it is
//! whole, what it holds, rows by table, and the statements that made the database itself. Touches nothing; memory grows
//! with the number of tables, not with their data.
//!
//! An archive is a header, a table of contents, and a block for every entry that has data. A block is a list of chunks,
//! each with its length, ended by a length of zero; a block of large objects is a list of those, ended by a zero in
//! place of an object's number. There is no mark at the end, so the end is this: every entry that promised data has had
//! its block, down to the zero, and nothing follows.
//!
//! Integers are a sign byte and then as many bytes as the header says, the lowest first. Texts are a length (-1: none)
//! and bytes. Versions: 1.12 and 1.13 (to PostgreSQL 11), 1.14 (12 to 15), 1.15 (16), 1.16 (17 and 18); a newer one is
//! refused by name, because nothing could be said about its end. Into a file (`pg_dump -Fc > FILE`) tools since 16 may
//! append their table of contents again; into a pipe, as here, they don't.

use std::collections::BTreeMap;

use self::block::{Block, Counted};
use self::contents::{DatabaseEntries, Entry, Field, NAME_BYTES, Promise, STATEMENT_BYTES, contains, fields};
use crate::engine::{Counts, Findings, Inspector};
use crate::error::{Error, Kind, Result};
use crate::format::count;

mod block;
pub mod contents;
#[cfg(test)]
mod tests;

/// The key under which large objects are counted; no table's key is like it, for those have a dot.
pub const LARGE_OBJECTS: &str = "large objects";
/// The oldest and newest minor versions of the format, all 1.x, that are understood.
const KNOWN_MINORS: std::ops::RangeInclusive<u8> = 12..=16;

/// What is read next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Magic,
    Compression,
    Date(u8),
    HeadText(u8),
    EntryCount,
    Field(usize),
    Dependency,
    Offset,
    BlockKind,
    BlockId,
    ObjectId,
    ChunkLength,
    Chunk,
}

/// A custom-format archive on its way past.
#[derive(Debug, Default)]
pub struct Archive {
    place: Place,
    /// Bytes of a number, a magic or an offset that are here already.
    small: Vec<u8>,
    /// How many bytes of a text or a chunk are still to come; a text's length has been read when it is there.
    left: Option<u64>,
    text: Vec<u8>,
    seen: u64,
    minor: u8,
    int_bytes: usize,
    offset_bytes: usize,
    compressed: bool,
    /// Whether names are not in UTF-8, or (in a database without an encoding) may not be.
    other_encoding: bool,
    fields: Vec<Field>,
    entries: i64,
    entries_left: i64,
    entry: Entry,
    promises: BTreeMap<i64, Promise>,
    block: Option<Block>,
    blocks_done: u64,
    findings: Findings,
    database: DatabaseEntries,
}

impl Archive {
    /// What it says of the database itself, as far as it has been read.
    pub fn database(&self) -> &DatabaseEntries {
        &self.database
    }

    /// Whether the statement that makes the database has been read, or can't come any more.
    pub fn knows_database(&self) -> bool {
        let contents_read = matches!(
            self.place,
            Place::BlockKind | Place::BlockId | Place::ObjectId | Place::ChunkLength | Place::Chunk
        );
        contents_read || !self.database.owner.is_empty()
    }

    /// The oldest major version of `pg_restore` that reads it, once the header has been read.
    pub fn read_from(&self) -> u32 {
        match self.minor {
            ..=13 => 10,
            14 => 12,
            15 => 16,
            16.. => 17,
        }
    }

    /// The tool that wrote it, once the header has been read.
    pub fn tool_version(&self) -> Option<&str> {
        self.findings.tool_version.as_deref()
    }

    /// The server it was taken from, once the header has been read.
    pub fn server_version(&self) -> Option<&str> {
        self.findings.server_version.as_deref()
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Tool, format!("the dump is damaged: {why} (at byte {})", self.seen))
    }

    /// How many bytes the next thing of fixed size has.
    fn small_bytes(&self) -> usize {
        match self.place {
            Place::Magic => 11,
            Place::Compression if self.minor >= 15 => 1,
            Place::BlockKind => 1,
            Place::Offset => 1 + self.offset_bytes,
            _ => 1 + self.int_bytes,
        }
    }

    fn is_text(&self) -> bool {
        match self.place {
            Place::HeadText(_) | Place::Dependency => true,
            Place::Field(at) => self.fields.get(at).is_some_and(|field| field.is_text()),
            _ => false,
        }
    }

    /// How much of the text at this place is kept.
    fn text_limit(&self) -> usize {
        match self.place {
            Place::Field(at) => self.fields.get(at).map_or(0, |field| field.kept_bytes(&self.entry)),
            Place::Dependency => 0,
            _ => NAME_BYTES,
        }
    }

    fn number(&self) -> Result<i64> {
        let (sign, digits) = self.small.split_first().ok_or_else(|| self.damaged("a number is missing"))?;
        let mut value: u64 = 0;
        for digit in digits.iter().rev() {
            value = value << 8 | u64::from(*digit);
        }
        let value = i64::try_from(value).map_err(|_| self.damaged("a number is out of range"))?;
        match sign {
            0 => Ok(value),
            1 => Ok(-value),
            _ => Err(self.damaged("a number has no sign")),
        }
    }

    /// Takes what of `bytes` belongs to the thing that is being read, and gives the rest back.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some(left) = self.left else {
            let missing = self.small_bytes().saturating_sub(self.small.len());
            let (mine, rest) = bytes.split_at(missing.min(bytes.len()));
            self.small.extend_from_slice(mine);
            self.seen += mine.len() as u64;
            if mine.len() == missing {
                self.small_done()?;
                self.small.clear();
            }
            return Ok(rest);
        };
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (mine, rest) = bytes.split_at(count);
        self.seen += count as u64;
        let left = left - count as u64;
        self.left = Some(left);
        if self.place == Place::Chunk {
            if let Some(block) = &mut self.block {
                block.pass(mine);
            }
            if left == 0 {
                self.left = None;
                self.place = Place::ChunkLength;
            }
        } else {
            let room = self.text_limit().saturating_sub(self.text.len());
            if mine.len() > room && self.text_limit() == STATEMENT_BYTES {
                return Err(self.damaged("a statement about the database itself has no end"));
            }
            self.text.extend(mine.iter().take(room));
            if left == 0 {
                self.left = None;
                self.text_done(true)?;
            }
        }
        Ok(rest)
    }

    fn small_done(&mut self) -> Result<()> {
        match self.place {
            Place::Magic => self.magic(),
            Place::Compression if self.minor >= 15 => {
                self.compressed = self.small.first() != Some(&0);
                self.place = Place::Date(0);
                Ok(())
            }
            Place::Offset => self.entry_done(),
            Place::BlockKind => self.block_kind(),
            _ if self.is_text() => match self.number()? {
                -1 => self.text_done(false),
                0 => self.text_done(true),
                length => {
                    self.left = Some(u64::try_from(length).map_err(|_| self.damaged("a text has a negative length"))?);
                    Ok(())
                }
            },
            _ => self.number().and_then(|number| self.number_done(number)),
        }
    }

    fn magic(&mut self) -> Result<()> {
        let &[b'P', b'G', b'D', b'M', b'P', major, minor, _, int_bytes, offset_bytes, format] = self.small.as_slice()
        else {
            return Err(Error::new(Kind::Tool, "this is no dump in pg_dump's custom format"));
        };
        if major != 1 || !KNOWN_MINORS.contains(&minor) {
            return Err(Error::new(Kind::Tool, format!("pg_dump's archive version {major}.{minor} is not known here"))
                .hint("update voxeltron-backup, or set tools_dir to the tools of PostgreSQL 10 to 18"));
        }
        if format != 1 {
            return Err(Error::new(Kind::Tool, "this archive of pg_dump is not in the custom format"));
        }
        if !(4..=8).contains(&int_bytes) || !(4..=8).contains(&offset_bytes) {
            return Err(self.damaged("its numbers have an unknown size"));
        }
        (self.minor, self.int_bytes, self.offset_bytes) = (minor, int_bytes.into(), offset_bytes.into());
        self.fields = fields(minor);
        self.place = Place::Compression;
        Ok(())
    }

    fn number_done(&mut self, number: i64) -> Result<()> {
        self.place = match self.place {
            Place::Compression => {
                self.compressed = number != 0;
                Place::Date(0)
            }
            Place::Date(6) => Place::HeadText(0),
            Place::Date(at) => Place::Date(at + 1),
            Place::EntryCount if number > 0 => {
                (self.entries, self.entries_left) = (number, number);
                Place::Field(0)
            }
            Place::EntryCount => return Err(self.damaged("its table of contents is empty")),
            Place::Field(at) => {
                match self.fields.get(at) {
                    Some(Field::Id) if number <= 0 => return Err(self.damaged("an entry has no number")),
                    Some(Field::Id) => self.entry.id = number,
                    Some(Field::HasData) => self.entry.has_data = number != 0,
                    _ => {}
                }
                self.next_field(at)
            }
            Place::BlockId => self.block_id(number)?,
            Place::ObjectId if number == 0 => self.block_done()?,
            Place::ObjectId => {
                if let Some(block) = &mut self.block {
                    block.pass_object();
                }
                Place::ChunkLength
            }
            Place::ChunkLength if number < 0 => return Err(self.damaged("a chunk has a negative length")),
            Place::ChunkLength if number == 0 => match &self.block {
                Some(block) if block.objects => Place::ObjectId,
                _ => self.block_done()?,
            },
            Place::ChunkLength => {
                self.left = u64::try_from(number).ok();
                Place::Chunk
            }
            other => other,
        };
        Ok(())
    }

    fn next_field(&self, at: usize) -> Place {
        if at + 1 < self.fields.len() { Place::Field(at + 1) } else { Place::Dependency }
    }

    fn text_done(&mut self, present: bool) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        self.place = match self.place {
            Place::HeadText(at) => {
                let version = Some(String::from_utf8_lossy(&text).into_owned()).filter(|text| !text.is_empty());
                match at {
                    0 => {}
                    1 => self.findings.server_version = version,
                    _ => self.findings.tool_version = version,
                }
                if at < 2 { Place::HeadText(at + 1) } else { Place::EntryCount }
            }
            Place::Dependency if present => Place::Dependency,
            Place::Dependency => Place::Offset,
            Place::Field(at) => {
                match self.fields.get(at) {
                    Some(Field::Tag) => self.entry.tag = text,
                    Some(Field::Description) => self.entry.description = text,
                    Some(Field::Definition) => self.entry.definition = text,
                    Some(Field::Copy) => self.entry.copy = text,
                    Some(Field::Schema) => self.entry.schema = text,
                    Some(Field::Owner) => self.entry.owner = text,
                    _ => {}
                }
                self.next_field(at)
            }
            other => other,
        };
        Ok(())
    }

    fn entry_done(&mut self) -> Result<()> {
        let entry = std::mem::take(&mut self.entry);
        if entry.description == b"ENCODING" {
            self.other_encoding = !contains(&entry.definition, b"'UTF8'");
        }
        self.database.learn(&entry, !self.other_encoding);
        if entry.has_data {
            let promise = entry.promise(self.compressed, !self.other_encoding);
            if self.promises.insert(entry.id, promise).is_some() {
                return Err(self.damaged("two entries have one number"));
            }
        }
        self.entries_left -= 1;
        self.place = if self.entries_left == 0 { Place::BlockKind } else { Place::Field(0) };
        Ok(())
    }

    fn block_kind(&mut self) -> Result<()> {
        if self.promises.is_empty() {
            return Err(self.damaged("something follows its end"));
        }
        let objects = match self.small.first() {
            Some(1) => false,
            Some(3) => true,
            _ => return Err(self.damaged("a block of data is of an unknown kind")),
        };
        self.block = Some(Block::new(objects));
        self.place = Place::BlockId;
        Ok(())
    }

    fn block_id(&mut self, id: i64) -> Result<Place> {
        let promise =
            self.promises.remove(&id).ok_or_else(|| self.damaged("a block belongs to no entry, or comes twice"))?;
        let Some(block) = &mut self.block else { return Err(self.damaged("a block has no kind")) };
        block.promise = promise;
        Ok(if block.objects { Place::ObjectId } else { Place::ChunkLength })
    }

    fn block_done(&mut self) -> Result<Place> {
        let Some(block) = self.block.take() else { return Err(self.damaged("a block ends that has not begun")) };
        self.blocks_done += 1;
        match block.counted() {
            Counted::Objects(more) => {
                let count = self.findings.counts.entry(LARGE_OBJECTS.to_owned()).or_insert(Some(0));
                *count = count.map(|count| count + more);
            }
            Counted::Rows(key, rows) => drop(self.findings.counts.insert(key, rows)),
            Counted::Nothing => {}
        }
        Ok(Place::BlockKind)
    }

    /// What stands at the place where the stream has ended too early.
    fn cut_at(&self) -> String {
        match (&self.block, self.place, self.promises.values().next()) {
            (Some(block), _, _) => format!("in {}", block.promise.what),
            (None, Place::BlockKind, Some(promise)) => format!("before {}", promise.what),
            (None, Place::Magic, _) => "in its first bytes".to_owned(),
            _ => "in its table of contents".to_owned(),
        }
    }

    /// Rows by table and large objects so far.
    pub fn counts(&self) -> &Counts {
        &self.findings.counts
    }
}

impl Inspector for Archive {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.take(rest)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Findings> {
        if self.seen == 0 {
            return Err(Error::new(Kind::Tool, "the dump is empty"));
        }
        if self.place != Place::BlockKind || !self.promises.is_empty() {
            let hint = "the dump tool, or what lies between it and us, lost the end; make another dump";
            let cut = format!("the dump is not whole: it ends {} (after {} bytes)", self.cut_at(), self.seen);
            return Err(Error::new(Kind::Tool, cut).hint(hint));
        }
        let mut findings = self.findings.clone();
        let entries = count(self.entries.unsigned_abs(), "entry", "entries");
        let blocks = count(self.blocks_done, "block of data", "blocks of data");
        findings.end_mark = format!("{entries}, {blocks}, each whole");
        Ok(findings)
    }
}
