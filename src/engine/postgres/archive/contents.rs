//! The table of contents of an archive: what an entry has, and what is taken from it. Flows in: the fields of an entry.
//! Flows out: the blocks of data that it promises, and what it says of the database itself. Touches nothing.

use crate::engine::postgres::sql::table_key;

/// How much of a name is kept, in bytes.
pub(super) const NAME_BYTES: usize = 64 * 1024;
/// How long a statement that makes the database itself can be, in bytes.
pub(super) const STATEMENT_BYTES: usize = 4 * 1024 * 1024;
/// How much is kept of other statements, whose beginning may be a remark to `pg_restore`, in bytes.
const REMARK_BYTES: usize = 256;

/// What the archive says of the database itself: `pg_restore` runs it only with `--create`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseEntries {
    /// The database's name when it was dumped.
    pub name: String,
    /// Its CREATE DATABASE statement.
    pub create: String,
    /// Its owner.
    pub owner: String,
    /// Settings, grants, comment and labels, which name it by its old name.
    pub properties: Vec<String>,
    /// Whether a backslash in a plain literal of these statements is doubled: so it is where the database has
    /// `standard_conforming_strings` off.
    pub backslashes_doubled: bool,
    /// Whether the archive makes the schema `public` itself: one of chosen schemas does, where every new database has it.
    pub makes_public: bool,
    /// Whether some of them are in an encoding other than UTF-8 and so are left out.
    pub illegible: bool,
}

impl DatabaseEntries {
    /// Takes what `entry` says of the database itself.
    pub(super) fn learn(&mut self, entry: &Entry, utf8: bool) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match entry.description.as_slice() {
            b"STDSTRINGS" => self.backslashes_doubled = contains(&entry.definition, b"'off'"),
            b"DATABASE" => {
                self.name = text(&entry.tag);
                self.create = text(&entry.definition);
                self.owner = text(&entry.owner);
            }
            b"SCHEMA" if entry.tag == b"public" => {
                self.makes_public = entry.definition.starts_with(b"CREATE SCHEMA");
            }
            _ if entry.of_database() => match std::str::from_utf8(&entry.definition) {
                Ok(statement) if utf8 || statement.is_ascii() => self.properties.push(statement.to_owned()),
                _ => self.illegible = true,
            },
            _ => {}
        }
    }
}

/// The fields of an entry of the table of contents, in their order; dependencies and the offset follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    HasData,
    Tag,
    Description,
    Definition,
    Copy,
    Schema,
    Owner,
    Number,
    Text,
}

const FIELDS_1_12: &[Field] = &[
    Field::Id,
    Field::HasData,
    Field::Text,
    Field::Text,
    Field::Tag,
    Field::Description,
    Field::Number,
    Field::Definition,
    Field::Text,
    Field::Copy,
    Field::Schema,
    Field::Text,
    Field::Owner,
    Field::Text,
];
/// Since 1.14 there is an access method before the owner.
const ACCESS_METHOD_AT: usize = 12;

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub id: i64,
    pub has_data: bool,
    pub tag: Vec<u8>,
    pub description: Vec<u8>,
    pub definition: Vec<u8>,
    pub copy: Vec<u8>,
    pub schema: Vec<u8>,
    pub owner: Vec<u8>,
}

/// A block that must still come.
#[derive(Debug, Default)]
pub(super) struct Promise {
    pub what: String,
    /// Under which name its rows are counted.
    pub key: Option<String>,
    /// Whether its rows can be counted.
    pub countable: bool,
}

/// The fields that an entry has in version 1.`minor`.
pub(super) fn fields(minor: u8) -> Vec<Field> {
    let mut fields = FIELDS_1_12.to_vec();
    if minor >= 14 {
        fields.insert(ACCESS_METHOD_AT, Field::Text);
    }
    if minor >= 16 {
        fields.insert(ACCESS_METHOD_AT + 1, Field::Number);
    }
    fields
}

impl Field {
    /// Whether it is a text; else it is a number.
    pub fn is_text(self) -> bool {
        !matches!(self, Self::Id | Self::HasData | Self::Number)
    }

    /// How much of it is kept, in `entry`, whose earlier fields are known.
    pub fn kept_bytes(self, entry: &Entry) -> usize {
        match self {
            Self::Definition if entry.of_database() => STATEMENT_BYTES,
            Self::Definition => REMARK_BYTES,
            Self::Tag | Self::Description | Self::Copy | Self::Schema | Self::Owner => NAME_BYTES,
            Self::Id | Self::HasData | Self::Number | Self::Text => 0,
        }
    }
}

impl Entry {
    /// Whether this entry is about the database itself and not about something in it.
    pub fn of_database(&self) -> bool {
        match self.description.as_slice() {
            b"DATABASE" | b"DATABASE PROPERTIES" => true,
            b"ACL" | b"COMMENT" | b"SECURITY LABEL" => self.tag.starts_with(b"DATABASE "),
            _ => false,
        }
    }

    /// The block that must come for it.
    pub fn promise(&self, compressed: bool, utf8: bool) -> Promise {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let what = format!("{} {}", text(&self.description), text(&self.tag));
        if self.description != b"TABLE DATA" {
            return Promise { what, key: None, countable: false };
        }
        // A name in another encoding can't be found again by what we would make of it; rows that go to the root of a
        // partitioned table may come to lie elsewhere.
        let legible = |name: &[u8]| std::str::from_utf8(name).is_ok() && (utf8 || name.is_ascii());
        let to_root = contains(&self.definition, b"load via partition root");
        let countable =
            !compressed && !to_root && self.copy.starts_with(b"COPY ") && legible(&self.schema) && legible(&self.tag);
        Promise { what, key: Some(table_key(&text(&self.schema), &text(&self.tag))), countable }
    }
}

/// Whether `part` stands in `text`.
pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
