//! Counts what is in an RDB as it passes. Flows in: the dump. Flows out: findings, once it has ended well. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Parser};
use crate::engine::{Counts, Findings, Inspector};
use crate::error::{Error, Kind, Result};
use crate::format::count;

/// How many keys a database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Those that stay.
    pub lasting: u64,
    /// Those that expire some time.
    pub expiring: u64,
    /// Of those that stay: hashes whose fields expire, which are gone with the last of them. A server does not count these.
    pub fading: u64,
}

/// What is in a dump.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Keys by the number of their database.
    pub keys: BTreeMap<u64, Keys>,
    /// Databases that hold the mark of a restore: what one had left that was killed, and no live data.
    pub marked: BTreeSet<u64>,
    /// Libraries of functions.
    pub functions: u64,
    /// Whether a module has put data outside of keys.
    pub module_aux: bool,
    /// Version of the server that wrote it.
    pub version: Option<String>,
    /// Memory that server used, in bytes.
    pub used_memory: Option<u64>,
    /// Whether there was a checksum.
    pub checksum: bool,
}

impl Contents {
    /// Takes note of what has been read.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Begin => {}
            Event::Aux(name, value) => match name.as_str() {
                "valkey-ver" => self.version = Some(value.clone()),
                // Valkey may write both.
                "redis-ver" => drop(self.version.get_or_insert_with(|| value.clone())),
                "used-mem" => self.used_memory = value.parse().ok(),
                _ => {}
            },
            Event::Database(number) => {
                self.keys.entry(*number).or_default();
            }
            Event::Function(_) => self.functions += 1,
            Event::ModuleAux => self.module_aux = true,
            Event::Key(key) => {
                if key.is_mark {
                    self.marked.insert(key.database);
                }
                let keys = self.keys.entry(key.database).or_default();
                match key.expires {
                    None => {
                        keys.lasting += 1;
                        keys.fading += u64::from(super::is_fading(key.kind));
                    }
                    Some(_) => keys.expiring += 1,
                }
            }
            Event::End(checksum) => self.checksum = *checksum,
        }
    }

    /// As a manifest has them: `db0` for the keys of a database that stay, `db0 expiring` for the others, of which fewer
    /// are there at any later time; `functions` for libraries.
    pub fn counts(&self) -> Counts {
        counts(&self.keys, self.functions)
    }

    /// Of these databases, which are ours or a server's, those that are live data in ours.
    pub fn live(&self, keys: &BTreeMap<u64, Keys>) -> BTreeMap<u64, Keys> {
        keys.iter().filter(|(number, _)| !self.marked.contains(number)).map(|(number, keys)| (*number, *keys)).collect()
    }

    /// [`Contents::counts`] of what is live data.
    pub fn live_counts(&self) -> Counts {
        counts(&self.live(&self.keys), self.functions)
    }

    /// Compares what is live data with what a server holds of it, whose hashes may have lost their last field meanwhile.
    ///
    /// # Errors
    /// [`Kind::Tool`] with the first difference.
    pub fn compare(&self, found: &Counts) -> Result<()> {
        let fading = self.keys.iter().map(|(number, keys)| (format!("db{number}"), keys.fading)).collect();
        within(&self.live_counts(), found, &fading)
    }
}

/// See [`Contents::counts`].
pub fn counts(keys: &BTreeMap<u64, Keys>, functions: u64) -> Counts {
    let mut counts = Counts::new();
    for (number, keys) in keys {
        counts.insert(format!("db{number}"), Some(keys.lasting));
        if keys.expiring > 0 {
            counts.insert(format!("db{number}{EXPIRING}"), Some(keys.expiring));
        }
    }
    if functions > 0 {
        counts.insert(FUNCTIONS.to_owned(), Some(functions));
    }
    counts
}

/// What [`counts`] holds, in words.
pub fn summary(all: &Counts) -> String {
    let functions = all.get(FUNCTIONS).copied().flatten();
    let keys = all.values().flatten().sum::<u64>().saturating_sub(functions.unwrap_or(0));
    let databases = all.keys().filter(|name| *name != FUNCTIONS && !name.ends_with(EXPIRING)).count() as u64;
    let libraries =
        functions.map(|number| format!(", {}", count(number, "library of functions", "libraries of functions")));
    let (databases, keys) = (count(databases, "database", "databases"), count(keys, "key", "keys"));
    format!("{databases}, {keys}{}", libraries.unwrap_or_default())
}

/// How the name of a count ends whose keys expire.
const EXPIRING: &str = " expiring";
/// The name of the count of libraries.
const FUNCTIONS: &str = "functions";

/// Compares what is there with what should be: keys that stay exactly, of those that expire no more than there were.
///
/// # Errors
/// [`Kind::Tool`] with the first difference.
pub fn compare(expected: &Counts, found: &Counts) -> Result<()> {
    within(expected, found, &BTreeMap::new())
}

/// [`compare`], where so many of a count may be missing.
fn within(expected: &Counts, found: &Counts, missing: &BTreeMap<String, u64>) -> Result<()> {
    let of = |counts: &Counts, name: &str| counts.get(name).copied().flatten().unwrap_or(0);
    for name in expected.keys().chain(found.keys()) {
        let (wanted, there) = (of(expected, name), of(found, name));
        let least = match name.ends_with(EXPIRING) {
            true => 0,
            false => wanted.saturating_sub(missing.get(name).copied().unwrap_or(0)),
        };
        let good = (least..=wanted).contains(&there);
        if !good {
            return Err(Error::new(
                Kind::Tool,
                format!("{name} has {there}, where the backup's manifest says {wanted}"),
            )
            .hint("restore another backup, and look what has been done to this one"));
        }
    }
    Ok(())
}

/// Looks at a dump as it passes.
#[derive(Debug)]
pub struct Look {
    parser: Parser,
    contents: Contents,
}

impl Default for Look {
    fn default() -> Self {
        Self { parser: Parser::new(true), contents: Contents::default() }
    }
}

impl Look {
    /// The contents, and whose format and which version of it.
    pub fn into_parts(self) -> (Contents, (super::Family, u32)) {
        let format = self.parser.format();
        (self.contents, format)
    }
}

impl Inspector for Look {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let contents = &mut self.contents;
        let used = self.parser.feed(bytes, &mut |event| {
            contents.add(&event);
            Ok(())
        })?;
        match used == bytes.len() {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Tool,
                format!("the dump is damaged: bytes follow its end, which is at byte {}", self.parser.position()),
            )),
        }
    }

    fn finish(&mut self) -> Result<Findings> {
        self.parser.finish()?;
        let end_mark = if self.contents.checksum { "EOF opcode, CRC64 agrees" } else { "EOF opcode, no CRC64" };
        Ok(Findings {
            end_mark: end_mark.to_owned(),
            tool_version: None,
            server_version: self.contents.version.clone(),
            counts: self.contents.counts(),
        })
    }
}
