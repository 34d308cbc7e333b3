//! A restore key by key, for servers that can't or may not follow us. Flows in: a checked backup. Flows out: databases that
//! have taken the place of the live ones in one step, or everything as it was. Touches the server, through the tools alone.
//!
//! Whatever depends on the session goes over one connection that is not made again ([`Tools::transact`]).
//!
//! Keys are loaded by RESTORE into databases whose numbers are free; one transaction exchanges all of them for the live ones
//! (SWAPDB) and the functions with them. A key of ours marks a database that is not live, so that the next restore clears
//! what a killed one has left. Each restore's mark is its own, and the transaction is one only while all marks stand: what
//! another has cleared is never exchanged.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::time::Duration;

use super::marks::{MARKER, Marks, can_look, clear, is_gone, left, let_be, take};
use super::rdb::inspector::Keys;
use super::rdb::{CRC64, Event, Key};
use super::reasons::{by_file, is_cut};
use super::server::{self, Facts};
use super::spool::{PIECE_BYTES, Spool};
use super::tools::{Command, Tool, Tools, command, strings};
use crate::engine::Cx;
use crate::engine::tools::{for_cleanup, patiently};
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;

/// How long a server has for a transaction that came in before its connection was cut.
const SETTLES: Duration = Duration::from_millis(500);
/// How many databases a server has unless it is told otherwise.
const DATABASES: u64 = 16;
/// More than any server has.
const MOST_DATABASES: u64 = 1 << 31;
/// What the mark of a database says that waits to become live.
const NEW: &str = "new";
/// What the mark of one says that was live.
const OLD: &str = "old";

/// One load on its way.
#[derive(Debug)]
pub struct Load<'a> {
    /// How the server is asked.
    pub tools: &'a Tools,
    /// The client.
    pub client: &'a Tool,
    /// What is to be loaded.
    pub spool: &'a Spool,
    /// The context.
    pub cx: &'a Cx,
    /// What tells this restore from others in its marks.
    pub token: &'a str,
    /// Whether the live data may have changed.
    pub touched: Cell<bool>,
}

/// How many databases the server has. One that does not show its settings tells it by what it selects.
fn databases(load: &Load<'_>) -> Result<u64> {
    match server::setting(load.tools, load.client, "databases", load.cx) {
        Ok(found) => return Ok(found.and_then(|text| text.parse().ok()).unwrap_or(DATABASES)),
        Err(error) if error.is_stopped() || is_cut(&error) => return Err(error),
        Err(_) => {}
    }
    let has = |number: u64| match load.tools.ask(load.client, ["SELECT", &number.to_string()], load.cx) {
        Ok(_) => Ok(true),
        Err(error) if error.message.contains("DB index") => Ok(false),
        Err(error) => Err(error),
    };
    // The first number is one that it has, the second one that it has not.
    let (mut low, mut high) = (0, DATABASES);
    while high < MOST_DATABASES && has(high)? {
        (low, high) = (high, high * 2);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if has(middle)? { low = middle } else { high = middle }
    }
    Ok(high)
}

impl Load<'_> {
    fn transact(&self, marks: &Marks, commands: &[Command], cx: &Cx) -> Result<()> {
        self.tools.transact(self.client, marks, commands, cx)
    }

    /// What our mark says.
    fn mark(&self, word: &str) -> String {
        format!("{word} {}", self.token)
    }

    /// Our marks in these databases.
    fn marks(&self, numbers: &[u64], word: &str) -> Marks {
        numbers.iter().map(|number| (*number, self.mark(word).into_bytes())).collect()
    }

    /// Empties the databases into which was loaded again, whatever has come in between, and gives the error that led to it. One
    /// that holds more than was loaded is another's too by now: what is in there stays.
    fn undo(&self, pairs: &BTreeMap<u64, u64>, error: Error) -> Error {
        let cx = for_cleanup(self.cx, super::CLEANUP);
        let undone = patiently(&cx, is_cut, || {
            let there = Facts::ask(self.tools, self.client, &cx)?;
            for (number, scratch) in pairs {
                let (wanted, mark) = (self.wanted(*number), self.mark(NEW));
                let found = there.keys.get(scratch).copied().unwrap_or_default();
                if found.lasting <= wanted.lasting + 1 && found.expiring <= wanted.expiring {
                    clear(self.tools, self.client, &self.marks(&[*scratch], NEW), &cx)?;
                } else if let_be(self.tools, self.client, *scratch, mark.as_bytes(), &cx)? {
                    self.cx.report.warn(&format!(
                        "somebody else writes into database {scratch}, which was empty before: what they wrote and what was \
                         loaded is left there; empty it if nobody needs it"
                    ));
                }
            }
            Ok(())
        });
        if let Err(failure) = undone {
            let numbers: Vec<&u64> = pairs.values().collect();
            self.cx.report.warn(&format!(
                "databases {numbers:?} could not be emptied again: {failure}; the next restore does it"
            ));
        }
        error
    }

    /// Lets these databases be, and gives the error that led to it: a transaction whose connection was cut may still arrive,
    /// and would exchange the live data for nothing if what was loaded were gone.
    fn leave(&self, pairs: &BTreeMap<u64, u64>, error: Error) -> Error {
        let numbers: Vec<u64> = pairs.values().copied().collect();
        self.cx.report.warn(&format!(
            "databases {numbers:?} hold what was loaded, or what was there before; the next restore empties them"
        ));
        error
    }

    /// In the place of the live data. Says what was left to the next restore, if something was.
    ///
    /// # Errors
    /// [`Kind::Tool`]; the live data is then as it was.
    pub fn in_place(&self) -> Result<Option<String>> {
        can_look(self.tools, self.client, self.cx)?;
        // Asked right here: what was empty when the restore began may be another's by now.
        let facts = &Facts::ask(self.tools, self.client, self.cx)?;
        let left = left(self.tools, self.client, facts, self.cx)?;
        clear(self.tools, self.client, &left, self.cx)?;
        let live: BTreeSet<u64> = facts.keys.keys().filter(|number| !left.contains_key(number)).copied().collect();
        let wanted: BTreeSet<u64> = self.filled().into_iter().chain(live.iter().copied()).collect();
        let all = databases(self)?;
        let free: Vec<u64> = (0..all).rev().filter(|number| !wanted.contains(number)).take(wanted.len()).collect();
        if free.len() < wanted.len() || wanted.iter().any(|number| *number >= all) {
            let message = format!(
                "the server has {all} databases; {} of them are in use or in the backup, and as many must be free beside them \
                 to load it without touching what is there",
                wanted.len()
            );
            return Err(Error::new(Kind::Tool, message)
                .hint(format!("raise `databases` in the server's configuration; or {}", by_file(self.tools))));
        }
        let pairs: BTreeMap<u64, u64> = wanted.into_iter().zip(free.iter().copied()).collect();
        self.load(&pairs, true).map_err(|error| self.undo(&pairs, error))?;
        self.cx.world.cancel.check().map_err(|error| self.undo(&pairs, error))?;
        let cx = for_cleanup(self.cx, super::CLEANUP);
        self.touched.set(true);
        self.swap(&pairs, facts, &cx)?;
        let marks = self.marks(&free, OLD);
        let cleared = patiently(&cx, is_cut, || clear(self.tools, self.client, &marks, &cx));
        // All of the new data is live by now: that is no failure.
        Ok(cleared.err().map(|error| {
            format!("databases {free:?} still hold what was live before: {error}; the next restore empties them")
        }))
    }

    /// Into one database that is empty.
    ///
    /// # Errors
    /// [`Kind::Tool`]; the database is then empty again.
    pub fn into_one(&self, number: u64) -> Result<()> {
        can_look(self.tools, self.client, self.cx)?;
        let facts = &Facts::ask(self.tools, self.client, self.cx)?;
        let left = left(self.tools, self.client, facts, self.cx)?;
        clear(self.tools, self.client, &left, self.cx)?;
        let fail = |message: String, hint: &str| Err(Error::new(Kind::Tool, message).hint(hint));
        if number >= databases(self)? {
            return fail(format!("the server has no database {number}"), "give a smaller number, or raise `databases`");
        }
        if facts.keys.contains_key(&number) && !left.contains_key(&number) {
            return fail(
                format!("database {number} is not empty"),
                "give the number of one that is: INFO keyspace names the others",
            );
        }
        let filled = self.filled();
        let Some(from) = filled.first().copied().filter(|_| filled.len() == 1) else {
            return fail(
                format!("the backup holds {} databases with keys ({filled:?}), --into takes one", filled.len()),
                "restore it in place on another server: mend the url, or give a configuration for that one",
            );
        };
        let pairs = BTreeMap::from([(from, number)]);
        self.load(&pairs, true).map_err(|error| self.undo(&pairs, error))?;
        let unmark = [command(["SELECT", &number.to_string()]), command(["DEL", MARKER])];
        self.transact(&self.marks(&[number], NEW), &unmark, self.cx)
            .map_err(|error| self.undo(&pairs, self.taken_away(error)))
    }

    /// Into a server of our own that is empty.
    ///
    /// # Errors
    /// [`Kind::Tool`].
    pub fn into_own(&self) -> Result<()> {
        let pairs = self.filled().into_iter().map(|number| (number, number)).collect();
        self.load(&pairs, false)?;
        match self.functions()? {
            Some(payload) => self.tools.ask(self.client, restore_functions(payload), self.cx).map(drop),
            None => Ok(()),
        }
    }

    /// The databases of the backup that hold keys.
    fn filled(&self) -> Vec<u64> {
        let keys = self.spool.contents.live(&self.spool.contents.keys).into_iter();
        keys.filter(|(_, keys)| keys.lasting + keys.expiring > 0).map(|(number, _)| number).collect()
    }

    /// What is to be loaded of this database.
    fn wanted(&self, number: u64) -> Keys {
        self.spool.contents.live(&self.spool.contents.keys).get(&number).copied().unwrap_or_default()
    }

    /// Loads each database into the one that it is paired with, and counts what is there then.
    fn load(&self, pairs: &BTreeMap<u64, u64>, mark: bool) -> Result<()> {
        if mark {
            let scratches: Vec<u64> = pairs.values().copied().collect();
            take(self.tools, self.client, &self.marks(&scratches, NEW), self.cx)?;
        }
        let call = self.tools.pipe(self.client);
        self.cx.report.detail(&call.display());
        let tool = RestoreWriter::spawn(&call, self.cx.deadline, &self.cx.world)?;
        let mut writer = BufWriter::with_capacity(PIECE_BYTES, tool);
        let fed =
            self.feed(pairs, &mut writer).and_then(|()| writer.flush().doing(Kind::Tool, "can't write to the client"));
        let (tool, _) = writer.into_parts();
        let outcome = match fed {
            Ok(()) => tool.finish().map(drop),
            Err(error) => {
                drop(tool);
                Err(error)
            }
        };
        outcome.map_err(|error| self.tools.piped(error))?;
        let there = Facts::ask(self.tools, self.client, self.cx)?;
        for (number, scratch) in pairs {
            let wanted = self.wanted(*number);
            let found = there.keys.get(scratch).copied().unwrap_or_default();
            let lasting = found.lasting.saturating_sub(u64::from(mark));
            let least = wanted.lasting.saturating_sub(wanted.fading);
            if !(least..=wanted.lasting).contains(&lasting) || found.expiring > wanted.expiring {
                let message = format!(
                    "database {scratch} holds {lasting} keys and {} that expire, where the backup has {} and {} in database {number}",
                    found.expiring, wanted.lasting, wanted.expiring
                );
                return Err(
                    Error::new(Kind::Tool, message).hint("does the server evict keys, or does somebody write there?")
                );
            }
        }
        Ok(())
    }

    fn feed(&self, pairs: &BTreeMap<u64, u64>, writer: &mut impl Write) -> Result<()> {
        let now = u64::try_from(self.cx.world.clock.now().timestamp_millis()).unwrap_or_default();
        let mut selected = None;
        self.spool.each(&mut |event| {
            let Event::Key(key) = event else { return Ok(()) };
            if key.expires.is_some_and(|at| at <= now) {
                return Ok(());
            }
            let database = Some(key.database).filter(|number| !self.spool.contents.marked.contains(number));
            let Some(scratch) = database.and_then(|number| pairs.get(&number)) else { return Ok(()) };
            let mut send = || -> Result<()> {
                if selected != Some(*scratch) {
                    let number = scratch.to_string();
                    write!(writer, "*2\r\n$6\r\nSELECT\r\n${}\r\n{number}\r\n", number.len())
                        .doing(Kind::Tool, "can't write to the client")?;
                    selected = Some(*scratch);
                }
                self.send(&key, writer)
            };
            send()
        })
    }

    /// One RESTORE. Its payload is the type, the value as it stands, the format's version and the checksum of all three.
    fn send(&self, key: &Key, writer: &mut impl Write) -> Result<()> {
        let what = "can't write to the client";
        let name = self.spool.name(key)?;
        let expires = key.expires.unwrap_or(0).to_string();
        let size = key.value.end - key.value.start;
        write!(writer, "*5\r\n$7\r\nRESTORE\r\n${}\r\n", name.len()).doing(Kind::Tool, what)?;
        writer.write_all(&name).doing(Kind::Tool, what)?;
        write!(writer, "\r\n${}\r\n{expires}\r\n${}\r\n", expires.len(), size + 11).doing(Kind::Tool, what)?;
        let mut digest = CRC64.digest();
        let mut put = |bytes: &[u8]| {
            digest.update(bytes);
            writer.write_all(bytes).doing(Kind::Tool, what)
        };
        put(&[key.kind])?;
        let mut at = key.value.start;
        while at < key.value.end {
            let to = key.value.end.min(at + PIECE_BYTES as u64);
            put(&self.spool.part(at, to)?)?;
            at = to;
        }
        put(&self.version())?;
        let digest = digest.finalize().to_le_bytes();
        writer.write_all(&digest).doing(Kind::Tool, what)?;
        writer.write_all(b"\r\n$6\r\nABSTTL\r\n").doing(Kind::Tool, what)
    }

    fn version(&self) -> [u8; 2] {
        u16::try_from(self.spool.format.1).unwrap_or(u16::MAX).to_le_bytes()
    }

    /// All libraries of the backup, as FUNCTION RESTORE takes them.
    fn functions(&self) -> Result<Option<Vec<u8>>> {
        if self.spool.contents.functions == 0 {
            return Ok(None);
        }
        let mut payload = Vec::new();
        self.spool.each(&mut |event| {
            if let Event::Function(range) = event {
                payload.extend(self.spool.part(range.start, range.end)?);
            }
            Ok(())
        })?;
        payload.extend(self.version());
        payload.extend(CRC64.checksum(&payload).to_le_bytes());
        Ok(Some(payload))
    }

    /// Exchanges all pairs, and the functions, in one transaction; the old data carries our mark then.
    ///
    /// # Errors
    /// [`Kind::Tool`]; the live data is then what it was, or all of the new where the server can't be asked any more. What
    /// is to be cleared away is.
    fn swap(&self, pairs: &BTreeMap<u64, u64>, facts: &Facts, cx: &Cx) -> Result<()> {
        let scratches: Vec<u64> = pairs.values().copied().collect();
        let with_functions = facts.is_valkey() || facts.release() >= (7, 0);
        let mut commands = Vec::new();
        let mut old_functions = None;
        if with_functions {
            let dumped = self.tools.ask(self.client, ["FUNCTION", "DUMP"], cx);
            let dumped = strings(&dumped.map_err(|error| self.undo(pairs, error))?);
            old_functions = dumped.into_iter().next();
            // Emptied first: if the new ones are refused then, that they are missing tells.
            commands.push(command(["FUNCTION", "FLUSH"]));
            let new = self.functions().map_err(|error| self.undo(pairs, error))?;
            commands.extend(new.map(restore_functions));
        }
        commands.extend(exchange(pairs, &self.mark(OLD)));
        self.cx.report.detail("MULTI; SWAPDB …; EXEC");
        let outcome = self.transact(&self.marks(&scratches, NEW), &commands, cx);
        if outcome.is_err() {
            // What the server had got already, it may be doing now.
            cx.world.clock.sleep(SETTLES);
        }
        let exchanged = match pairs.values().next() {
            Some(scratch) => patiently(cx, is_cut, || self.is_old(*scratch, cx)).map_err(|error| {
                let error = error.while_doing("whether the server has exchanged its databases is not known");
                self.leave(pairs, error)
            })?,
            None => outcome.is_ok(),
        };
        if !exchanged {
            let silent = || Error::new(Kind::Tool, "the server has not exchanged its databases");
            let error = outcome.err().unwrap_or_else(silent);
            let refused = !error.tail.is_empty() && !is_cut(&error);
            self.touched.set(!refused);
            let error = self.taken_away(error);
            return Err(if refused { self.undo(pairs, error) } else { self.leave(pairs, error) });
        }
        let there =
            patiently(cx, is_cut, || server::functions(self.tools, self.client, facts, cx)).map_err(|error| {
                self.leave(pairs, error.while_doing("the backup is restored, but not known to be whole"))
            })?;
        if with_functions && there != self.spool.contents.functions {
            self.swap_back(pairs, old_functions, cx)?;
            self.touched.set(false);
            let error = Error::new(Kind::Tool, "the server does not take the backup's functions").hint(
                "FUNCTION RESTORE fails for them: are they for another version or engine? look at the server's log",
            );
            return Err(self.undo(pairs, error));
        }
        Ok(())
    }

    /// Whether what that database holds was live before.
    fn is_old(&self, scratch: u64, cx: &Cx) -> Result<bool> {
        let mark = self.tools.ask_in(self.client, scratch, command(["GET", MARKER]), cx)?;
        Ok(strings(&mark).contains(&self.mark(OLD).into_bytes()))
    }

    /// Says what it means that a mark had gone.
    fn taken_away(&self, error: Error) -> Error {
        if !is_gone(&error) {
            return error;
        }
        Error { hint: None, ..error }
            .while_doing("somebody else has cleared what was loaded, so nothing was exchanged")
            .hint("is another restore at work at this server? wait for its end, and run it again")
    }

    /// Exchanges all back.
    fn swap_back(&self, pairs: &BTreeMap<u64, u64>, functions: Option<Vec<u8>>, cx: &Cx) -> Result<()> {
        let commands: Vec<Command> =
            functions.map(restore_functions).into_iter().chain(exchange(pairs, &self.mark(NEW))).collect();
        let scratches: Vec<u64> = pairs.values().copied().collect();
        self.transact(&self.marks(&scratches, OLD), &commands, cx)
    }
}

fn restore_functions(payload: Vec<u8>) -> Command {
    vec![b"FUNCTION".to_vec(), b"RESTORE".to_vec(), payload, b"FLUSH".to_vec()]
}

/// Exchanges pairs of databases, and leaves this mark in what is not live.
fn exchange(pairs: &BTreeMap<u64, u64>, mark: &str) -> Vec<Command> {
    let one = |(live, scratch): (&u64, &u64)| {
        let (live, scratch) = (live.to_string(), scratch.to_string());
        [
            command(["SELECT", &scratch]),
            command(["DEL", MARKER]),
            command(["SWAPDB", &live, &scratch]),
            command(["SET", MARKER, mark]),
        ]
    };
    pairs.iter().flat_map(one).collect()
}

/// How many keys each of the server's databases holds, as a manifest has them.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn counted(tools: &Tools, client: &Tool, cx: &Cx) -> Result<(BTreeMap<u64, Keys>, u64)> {
    let facts = Facts::ask(tools, client, cx)?;
    let functions = server::functions(tools, client, &facts, cx)?;
    Ok((facts.keys, functions))
}
