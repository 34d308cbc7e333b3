//! Reads an RDB as it passes: magic, version, every opcode and every value by its structure, the end and the checksum.
//! Flows in: bytes in pieces of any size. Flows out: [`Event`]s, [`Findings`], and the first thing that can't stand where
//! it stands. Keeps a few hundred bytes, whatever a value's size. Pure.

use std::ops::Range;

use crc::{CRC_64_REDIS, Crc, Digest, Table};

use self::shapes::Shape;
use super::marks::MARKER;
use crate::error::{Error, Kind, Result};

pub mod inspector;
mod shapes;
#[cfg(test)]
mod tests;
mod walk;

/// The checksum behind an RDB and behind a dumped value.
pub static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);
/// How much of a string of [`Shape::Keep`] is kept, in bytes.
const KEEP_BYTES: usize = 256;
/// The newest versions of the format that are read here.
pub const NEWEST_REDIS: u32 = 12;
/// The same for those that begin with `VALKEY`.
pub const NEWEST_VALKEY: u32 = 80;
/// The record of a library of functions.
pub const FUNCTION: u8 = shapes::FUNCTION;

/// Whether a value of this type is a hash whose fields expire.
pub fn is_fading(kind: u8) -> bool {
    shapes::FADING.contains(&kind)
}

/// Whose format it is; from version 80 on Valkey has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `REDIS0011` and its like, of Redis and of Valkey up to 8.
    Redis,
    /// `VALKEY080`, of Valkey from 9.0 on.
    Valkey,
}

/// A key as it stands in the dump. Places are in bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The number of its database.
    pub database: u64,
    /// The type byte.
    pub kind: u8,
    /// When it expires, in milliseconds since 1970.
    pub expires: Option<u64>,
    /// Where its name is, as an encoded string.
    pub name: Range<u64>,
    /// Where its value is.
    pub value: Range<u64>,
    /// Whether it is the mark of a restore.
    pub is_mark: bool,
}

/// What has just been read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Magic and version.
    Begin,
    /// A fact about the server that wrote it; long ones are cut.
    Aux(String, String),
    /// A database begins.
    Database(u64),
    /// A library of functions: where its record is, opcode included.
    Function(Range<u64>),
    /// Data that a module keeps outside of keys.
    ModuleAux,
    /// A key.
    Key(Key),
    /// The end; whether there was a checksum (it agreed).
    End(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Todo {
    Shapes(&'static [Shape]),
    Loop(u64, &'static [Shape]),
    Skip(u64),
    /// The two lengths of a compressed string: as it stands here, and as it was.
    PackedLength,
    Packed(u64),
    NameEnds,
    ModuleValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Magic,
    Between,
    Record(u8),
    Checksum,
    End,
}

/// The parser. See [`Parser::feed`].
pub struct Parser {
    place: Place,
    at: u64,
    family: Family,
    version: u32,
    stack: Vec<Todo>,
    small: [u8; 9],
    have: usize,
    kept: Vec<String>,
    /// What is kept of a string, and whether it is a number.
    keeping: Option<(Vec<u8>, bool)>,
    number: u64,
    database: u64,
    expires: Option<u64>,
    record: u64,
    name: Range<u64>,
    digest: Option<Digest<'static, u64, Table<16>>>,
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parser").field("place", &self.place).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Parser {
    /// One that also checks the checksum, or leaves that to another.
    pub fn new(checks: bool) -> Self {
        Self {
            place: Place::Magic,
            at: 0,
            family: Family::Redis,
            version: 0,
            stack: Vec::new(),
            small: [0; 9],
            have: 0,
            kept: Vec::new(),
            keeping: None,
            number: 0,
            database: 0,
            expires: None,
            record: 0,
            name: 0..0,
            digest: checks.then(|| CRC64.digest()),
        }
    }

    /// Whose format, and its version.
    pub fn format(&self) -> (Family, u32) {
        (self.family, self.version)
    }

    /// Whether the end has been read.
    pub fn ended(&self) -> bool {
        self.place == Place::End
    }

    /// How many bytes have been read.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next bytes; gives how many of them belong to the RDB, which are all until it has ended.
    ///
    /// # Errors
    /// [`Kind::Tool`] for what can't stand there, or what `sink` says.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<usize> {
        let mut used = 0;
        let mut digested = 0;
        while (used < bytes.len() || (self.place == Place::Checksum && self.version < 5)) && !self.ended() {
            let sums = self.place != Place::Checksum;
            let rest = bytes.get(used..).unwrap_or_default();
            let count = self.step(rest, sink)?;
            used += count;
            // What comes next is the checksum itself, or has been: it is over all that was before.
            if sums && self.place == Place::Checksum {
                self.digest(bytes.get(digested..used));
                digested = bytes.len();
            }
        }
        if self.place != Place::Checksum && !self.ended() {
            self.digest(bytes.get(digested..used));
        }
        Ok(used)
    }

    fn digest(&mut self, bytes: Option<&[u8]>) {
        if let (Some(digest), Some(bytes)) = (&mut self.digest, bytes) {
            digest.update(bytes);
        }
    }

    /// The end of the stream.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the RDB has not ended.
    pub fn finish(&self) -> Result<()> {
        match (self.place, self.at) {
            (Place::End, _) => Ok(()),
            (_, 0) => Err(Error::new(Kind::Tool, "the dump is empty")),
            (_, at) => {
                Err(Error::new(Kind::Tool, format!("the dump is cut: it ends after {at} bytes, without an end")))
            }
        }
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Tool, format!("the dump is damaged at byte {}: {why}", self.at))
    }

    fn unknown(&self, what: &str, code: u64) -> Error {
        let (name, version) = (self.magic(), self.version);
        Error::new(
            Kind::Tool,
            format!(
                "the dump has a {what} that is unknown here, {code}, before byte {} ({name}, format {version})",
                self.at
            ),
        )
        .hint("upgrade voxeltron-backup to a version that knows the server's, or look whether the dump is damaged")
    }

    fn magic(&self) -> &'static str {
        match self.family {
            Family::Redis => "REDIS",
            Family::Valkey => "VALKEY",
        }
    }

    /// Does one thing; gives how many bytes it took, which may be none.
    fn step(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<usize> {
        match self.place {
            Place::Magic => self.magic_and_version(bytes, sink),
            Place::Between => self.begin(bytes),
            Place::Record(code) => match self.stack.pop() {
                Some(todo) => self.advance(todo, bytes),
                None => self.complete(code, sink).map(|()| 0),
            },
            Place::Checksum => self.checksum(bytes, sink),
            Place::End => Ok(0),
        }
    }

    /// Gathers so many bytes, nine at most; gives how many it took, and whether they are all there.
    fn gather(&mut self, bytes: &[u8], want: usize) -> (usize, bool) {
        let mut taken = 0;
        for byte in bytes.iter().take(want.saturating_sub(self.have)) {
            if let Some(slot) = self.small.get_mut(self.have) {
                *slot = *byte;
            }
            self.have += 1;
            taken += 1;
        }
        self.at += taken as u64;
        (taken, self.have >= want)
    }

    fn magic_and_version(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<usize> {
        let (taken, whole) = self.gather(bytes, 9);
        let begun = self.small.get(..self.have.min(5)).unwrap_or_default();
        if !b"REDIS".starts_with(begun) && !b"VALKE".starts_with(begun) {
            return Err(Error::new(Kind::Tool, "this is no dump of Redis or Valkey: it does not begin as an RDB"));
        }
        if !whole {
            return Ok(taken);
        }
        self.have = 0;
        let text = String::from_utf8_lossy(&self.small).into_owned();
        let (family, digits) = match text.strip_prefix("VALKEY") {
            Some(digits) => (Family::Valkey, digits),
            None => (Family::Redis, text.strip_prefix("REDIS").unwrap_or_default()),
        };
        self.family = family;
        self.version = digits.parse().map_err(|_| self.damaged("its version is no number"))?;
        let newest = if family == Family::Valkey { NEWEST_VALKEY } else { NEWEST_REDIS };
        if self.version == 0 || self.version > newest {
            let message = format!("the dump is of format {text}; the newest known here is {newest}");
            return Err(Error::new(Kind::Tool, message).hint("upgrade voxeltron-backup to a version that knows it"));
        }
        self.place = Place::Between;
        sink(Event::Begin)?;
        Ok(taken)
    }

    fn begin(&mut self, bytes: &[u8]) -> Result<usize> {
        let Some(&code) = bytes.first() else { return Ok(0) };
        self.record = self.at;
        self.at += 1;
        if code == shapes::END {
            self.place = Place::Checksum;
            return Ok(1);
        }
        self.kept.clear();
        if let Some(shapes) = shapes::of_opcode(code) {
            self.stack.push(Todo::Shapes(shapes));
        } else if let Some(shapes) = shapes::of_type(code, self.family) {
            self.stack.extend([Todo::Shapes(shapes), Todo::NameEnds, Todo::Shapes(&[Shape::Name])]);
            self.name = self.at..self.at;
        } else {
            let what = if code >= 200 { "opcode" } else { "type of value" };
            return Err(self.unknown(what, code.into()));
        }
        self.place = Place::Record(code);
        Ok(1)
    }

    fn complete(&mut self, code: u8, sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        self.place = Place::Between;
        match code {
            shapes::AUX => {
                let value = self.kept.pop().unwrap_or_default();
                sink(Event::Aux(self.kept.pop().unwrap_or_default(), value))
            }
            shapes::SELECT => {
                self.database = self.number;
                sink(Event::Database(self.database))
            }
            shapes::EXPIRE_MS => {
                self.expires = Some(self.number);
                Ok(())
            }
            shapes::EXPIRE_S => {
                self.expires = Some(self.number.saturating_mul(1000));
                Ok(())
            }
            shapes::FUNCTION => sink(Event::Function(self.record..self.at)),
            shapes::MODULE_AUX => sink(Event::ModuleAux),
            code if code >= shapes::SLOT_INFO => Ok(()),
            kind => sink(Event::Key(Key {
                database: self.database,
                kind,
                expires: self.expires.take(),
                name: self.name.clone(),
                value: self.name.end..self.at,
                is_mark: kind == shapes::STRING && self.kept.first().is_some_and(|name| name == MARKER),
            })),
        }
    }

    fn checksum(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<usize> {
        let (taken, whole) = if self.version >= 5 { self.gather(bytes, 8) } else { (0, true) };
        if !whole {
            return Ok(taken);
        }
        let written = if self.version >= 5 { self.little_endian(8) } else { 0 };
        if let Some(digest) = self.digest.take() {
            let found = digest.finalize();
            // 0: the server has `rdbchecksum no`.
            if written != 0 && written != found {
                return Err(self.damaged(format!("its checksum is {written:016x}, its content's {found:016x}")));
            }
        }
        self.place = Place::End;
        sink(Event::End(written != 0))?;
        Ok(taken)
    }

    fn little_endian(&self, count: usize) -> u64 {
        self.small.iter().take(count).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn big_endian(&self, from: usize, to: usize) -> u64 {
        self.small.get(from..to).unwrap_or_default().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// A number in two's complement, least byte first, of one, two or four bytes.
pub(super) fn signed(bytes: &[u8]) -> i64 {
    let number = bytes.iter().rev().fold(0i64, |number, byte| number << 8 | i64::from(*byte));
    let bits = 64 - 8 * u32::try_from(bytes.len().clamp(1, 8)).unwrap_or(8);
    number << bits >> bits
}
