//! How a dump comes back. Flows in: the dump's stream and where it is to go. Flows out: a database that took its place in
//! one transaction, or an error and everything as it was. Touches the server, through the tools.
//!
//! The order is the promise: the scratch is made after the stream's first bytes, and swapped in only when the stream has
//! ended well, `pg_restore` has ended well, the archive is whole, and the rows that it holds are there.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::archive::Archive;
use super::compare::compare;
use super::keep::{self, Leave};
use super::reasons::{is_cut, misses_role};
use super::server::{Facts, Scratch, ask};
use super::spool::Spool;
use super::sql::{ident, literal};
use super::swap::{self, NAME_BYTES, Names, Properties};
use super::tools::{Tools, for_cleanup};
use super::transaction;
use super::unmarked;
use crate::engine::tools::patiently;
use crate::engine::{Counts, Cx, Destination, Inspector, Keep, Previous, Request, Restored, checks};
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;
use chrono::{DateTime, TimeDelta, Utc};

/// How much of the stream is handled at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// How far into an archive the description of its database may stand, in bytes: it is one of the first entries.
const DESCRIPTION_WITHIN: usize = 64 * 1024 * 1024;
/// How often sessions that stand in the way of the swap are ended.
const TERMINATE_EVERY: Duration = Duration::from_millis(20);
/// How often the swap is tried before it is given up.
const SWAP_TRIES: u32 = 5;
/// A scratch without sessions that is younger may belong to a restore that is between two steps.
const LEFT_BEHIND_AFTER: TimeDelta = TimeDelta::minutes(10);
/// From this major version on, `pg_restore` sets a parameter that older servers don't know, and fails there.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

/// One restore on its way.
struct Restore<'a> {
    tools: &'a Tools,
    cx: &'a Cx,
    /// The database from which ours can be renamed.
    desk: &'static str,
    facts: Facts,
    names: Names,
    /// When the database that stood is to be kept as of; none: it is dropped.
    keep: Option<DateTime<Utc>>,
    archive: Archive,
    notes: Vec<String>,
}

/// Restores `dump` as `request` says.
///
/// # Errors
/// The stream's own error, or [`Kind::Tool`]; the live database is then as it was and the scratch is gone.
pub fn restore(tools: &Tools, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
    let mut archive = Archive::default();
    let begun = read_description(dump, &mut archive)?;
    let target = match &request.destination {
        Destination::Into(name) => name.as_str(),
        Destination::InPlace | Destination::Drill => tools.place.database.as_str(),
    };
    let (desk, facts) = ask(tools, cx)?;
    let keep = request.keep.as_ref().map(|keep| keep.at);
    let names = keep::names(Names::new(target, &cx.world.random_hex(4)?), keep);
    let mut this = Restore { tools, cx, desk, facts, names, keep, archive, notes: Vec::new() };
    this.check(&request.destination)?;
    if transaction::is_the_way(&this.facts, &request.destination) {
        let place = (tools, &this.facts);
        let outcome = transaction::restore(place, &mut this.archive, &begun, dump, request, cx);
        return outcome.map_err(|error| this.older_server(this.roles(error)));
    }
    this.sweep(request.destination == Destination::InPlace);
    this.notes.extend(unmarked::sweep(tools, desk, &this.facts, target, cx));
    let spool = match request.jobs {
        Some(jobs) => Some((Spool::read(&begun, dump, &mut this.archive, request.dump_bytes, cx)?, jobs)),
        None => None,
    };
    let mut scratch = this.create()?;
    match spool {
        Some((spool, jobs)) => {
            spool.load(tools, &this.names.scratch, jobs, cx).map_err(|error| this.older_server(this.roles(error)))?
        }
        None => this.load(&begun, dump)?,
    }
    let counts = compare(tools, &this.names.scratch, &this.archive, request, cx)?;
    if request.destination == Destination::Drill {
        checks::run(&request.checks, &mut |check| tools.answer(&this.names.scratch, check.text()?, cx))?;
        scratch.remove().unwrap_or_else(|error| {
            this.notes.push(format!("can't drop the scratch database {}: {error}", this.names.scratch));
        });
    } else {
        this.analyze()?;
        cx.world.cancel.check()?;
        this.swap(&request.destination)?;
        scratch.gone = true;
    }
    drop(scratch);
    Ok(Restored { counts, notes: this.notes })
}

/// Exchanges the live database for one that an earlier restore has kept.
///
/// # Errors
/// [`Kind::Tool`]; both are then as they were.
pub fn undo(tools: &Tools, previous: &Previous, keep: Option<&Keep>, cx: &Cx) -> Result<Restored> {
    let (desk, facts) = ask(tools, cx)?;
    if !facts.databases.iter().any(|other| other.name == previous.name) {
        return Err(Error::new(Kind::Tool, format!("the database {} is gone", previous.name)));
    }
    let keep = keep.map(|keep| keep.at);
    let names = Names { scratch: previous.name.clone(), ..Names::new(&tools.place.database, &cx.world.random_hex(4)?) };
    let names = keep::names(names, keep);
    let mut this = Restore { tools, cx, desk, facts, names, keep, archive: Archive::default(), notes: Vec::new() };
    this.check_replaceable(true, false)?;
    cx.world.cancel.check()?;
    let replaces = this.facts.live.is_some();
    let mark = keep::mark(&this.names.target, previous.since);
    let sql = keep::exchange(&this.names, &mark, replaces, &this.leave());
    this.put(&sql, replaces)?;
    this.dismiss(replaces);
    Ok(Restored { counts: Counts::new(), notes: this.notes })
}

/// Reads until the archive has described its database, and gives back what was read. Nothing has been touched yet.
fn read_description(dump: &mut dyn Read, archive: &mut Archive) -> Result<Vec<u8>> {
    let mut begun = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    while !archive.knows_database() {
        let count = read(dump, &mut piece)?;
        if count == 0 {
            archive.finish()?;
            break;
        }
        let bytes = piece.get(..count).unwrap_or_default();
        archive.feed(bytes)?;
        begun.extend_from_slice(bytes);
        if begun.len() > DESCRIPTION_WITHIN {
            return Err(Error::new(Kind::Tool, "the dump does not describe its database where it should"));
        }
    }
    Ok(begun)
}

fn read(dump: &mut dyn Read, piece: &mut [u8]) -> Result<usize> {
    loop {
        match dump.read(piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.doing(Kind::Tool, "can't read the dump"),
        }
    }
}

impl<'a> Restore<'a> {
    /// Refuses what can't end well, before anything is made.
    fn check(&self, destination: &Destination) -> Result<()> {
        let Facts { version, databases, .. } = &self.facts;
        let name = &self.names.target;
        let fail = |message: String| Err(Error::new(Kind::Tool, message));
        self.check_replaceable(
            *destination == Destination::InPlace,
            transaction::is_the_way(&self.facts, destination),
        )?;
        if let Destination::Into(_) = destination {
            if name.is_empty() || name.len() > NAME_BYTES {
                return fail(format!("a database's name has 1 to {NAME_BYTES} bytes, {name} has {}", name.len()));
            }
            if databases.iter().any(|other| other.name == *name) {
                return fail(format!("there is a database {name} already"))
                    .map_err(|error| error.hint("give another name, or drop that one first"));
            }
        }
        if let (Destination::InPlace, Some(_)) = (destination, &self.facts.live) {
            // What the manifest says of this has been heeded before; this one shows in the archive itself.
            if self.archive.database().makes_public {
                let why = format!("the backup holds a part of {name} (--schema), and the rest would be lost");
                return fail(why).map_err(|error| {
                    error.hint(format!(
                        "restore it beside with --into NAME and take from there what is needed; or drop {name} first"
                    ))
                });
            }
        }
        let (shown, tool) = self.tools.version("pg_restore", self.cx)?;
        let major = version / 10_000;
        if tool >= SETS_TRANSACTION_TIMEOUT && major < SETS_TRANSACTION_TIMEOUT {
            let hint = self.tools.version_hint(|it| it >= major && it < SETS_TRANSACTION_TIMEOUT, major);
            return fail(format!("pg_restore {shown} can't load into a server of version {major}"))
                .map_err(|error| error.hint(hint));
        }
        Ok(())
    }

    /// Whether databases can be made, and with `in_place` the live one be replaced; in a transaction it stays the same one.
    fn check_replaceable(&self, in_place: bool, in_a_transaction: bool) -> Result<()> {
        let Facts { me, superuser, createdb, recovery, prepared, .. } = &self.facts;
        let (name, server) = (&self.names.target, self.tools.place.server());
        let fail = |message: String, hint: String| Err(Error::new(Kind::Tool, message).hint(hint));
        if *recovery {
            let hint = "restore on the primary: mend the host in url, or add target_session_attrs";
            return fail(format!("{server} is a replica, which takes no writes"), hint.to_owned());
        }
        if !superuser && !createdb && !in_a_transaction {
            let hint = format!("as a superuser: ALTER ROLE {} CREATEDB", ident(me));
            return fail(format!("{me} may not create databases"), hint);
        }
        let Some(live) = self.facts.live.as_ref().filter(|_| in_place) else { return Ok(()) };
        if !live.ours && !in_a_transaction {
            let hint = format!("connect as {} or as a superuser", live.owner);
            return fail(format!("{me} may not replace {name}, which {} owns", live.owner), hint);
        }
        if *prepared > 0 {
            let hint = "end them: COMMIT PREPARED or ROLLBACK PREPARED, see pg_prepared_xacts";
            return fail(
                format!("{name} has {prepared} prepared transactions, so it can't be replaced"),
                hint.to_owned(),
            );
        }
        Ok(())
    }

    /// Drops what killed restores of this database have left: a scratch that nobody uses, and a database that was
    /// replaced while the new one stands. Both the name and our mark in the comment must say so; whatever else is called
    /// like that is somebody's own. A drill or a copy leaves replaced databases to the next restore in place. That one
    /// can't be dropped is no reason not to restore.
    fn sweep(&mut self, in_place: bool) {
        let target = &self.names.target;
        let stands = self.facts.databases.iter().any(|other| other.name == *target);
        let now = self.cx.world.clock.now();
        for other in &self.facts.databases {
            let Some((replaced, since)) = swap::left_behind(target, &other.name, &other.comment) else { continue };
            let safe =
                if replaced { in_place && stands } else { other.sessions == 0 && now - since > LEFT_BEHIND_AFTER };
            if !safe {
                continue;
            }
            let said =
                match self.tools.run_sql(self.desk, &swap::drop_database(&other.name, self.facts.version), self.cx) {
                    Ok(_) => format!("dropped {}, which an interrupted restore had left", other.name),
                    Err(error) => {
                        format!("an interrupted restore has left {}, which can't be dropped: {error}", other.name)
                    }
                };
            self.notes.push(said);
        }
    }

    fn mark(&self) -> String {
        swap::mark(&self.names.target, self.cx.world.clock.now())
    }

    /// Makes the scratch database: like the live one where there is one, else as the archive says.
    fn create(&self) -> Result<Scratch<'a>> {
        let scratch = &self.names.scratch;
        let create = match &self.facts.live {
            Some(live) => live.create(scratch),
            None => swap::create_as_archived(self.archive.database(), scratch, self.tools.restores_owners())?,
        };
        // From here on it may exist, even if what follows fails.
        let guard = Scratch {
            tools: self.tools,
            cx: self.cx,
            desk: self.desk,
            name: scratch.clone(),
            server: self.facts.version,
            gone: false,
        };
        let sql = create + &swap::claim(&self.names, &self.mark());
        self.run(&sql).map_err(|error| {
            if is_cut(&error) {
                guard.outlast();
            }
            self.roles(error).while_doing(format!("can't create the database {scratch}"))
        })?;
        if self.archive.database().makes_public {
            self.tools.run_sql(scratch, "DROP SCHEMA IF EXISTS public;\n", self.cx)?;
        }
        Ok(guard)
    }

    /// Passes the stream to `pg_restore`. Its input ends only after the stream has ended well and was whole; otherwise it
    /// is stopped before anything else happens.
    fn load(&mut self, begun: &[u8], dump: &mut dyn Read) -> Result<()> {
        let call = self.tools.load(&self.names.scratch);
        self.cx.report.detail(&call.display());
        let mut tool = RestoreWriter::spawn(&call, self.cx.deadline, &self.cx.world)?;
        let fed = self.feed(begun, dump, &mut tool);
        let outcome = match fed {
            Ok(()) => tool.finish().map(drop),
            Err(error) => {
                drop(tool);
                Err(error)
            }
        };
        outcome.map_err(|error| self.older_server(self.roles(self.tools.explain(error, &self.names.scratch))))
    }

    fn feed(&mut self, begun: &[u8], dump: &mut dyn Read, tool: &mut RestoreWriter) -> Result<()> {
        const WRITING: &str = "can't write to pg_restore";
        tool.write_all(begun).doing(Kind::Tool, WRITING)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = read(dump, &mut piece)?;
            if count == 0 {
                return self.archive.finish().map(drop);
            }
            let bytes = piece.get(..count).unwrap_or_default();
            self.archive.feed(bytes)?;
            tool.write_all(bytes).doing(Kind::Tool, WRITING)?;
        }
    }

    fn roles(&self, error: Error) -> Error {
        match misses_role(&error).map(str::to_owned) {
            Some(role) => error.hint(format!(
                "roles belong to the server and are not in a dump: CREATE ROLE {}, or set [databases.{}] restore_args = \
                 [\"--no-owner\", \"--no-privileges\"]",
                ident(&role),
                self.tools.toolbox.configured
            )),
            None => error,
        }
    }

    /// A dump of a newer server may hold what this one doesn't know.
    fn older_server(&self, error: Error) -> Error {
        let major = |version: &str| version.split(['.', ' ']).next().and_then(|major| major.parse::<u32>().ok());
        let here = self.facts.version / 10_000;
        match self.archive.server_version().and_then(major) {
            Some(there) if there > here && !error.tail.is_empty() => error.hint(format!(
                "the backup is of PostgreSQL {there}, this server is {here}: restore it into one that is as new"
            )),
            _ => error,
        }
    }

    fn run(&self, sql: &str) -> Result<String> {
        self.tools.run_sql(self.desk, sql, self.cx)
    }

    /// Without statistics the first queries on the new database would be planned blindly.
    fn analyze(&mut self) -> Result<()> {
        match self.tools.run_sql(&self.names.scratch, "RESET search_path;\nANALYZE;\n", self.cx) {
            Err(error) if error.is_stopped() => Err(error),
            Err(error) => {
                self.notes.push(format!("can't gather statistics: {error}; run ANALYZE yourself"));
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Puts the scratch in its place. It is short and deaf to signals: half-way there is nothing to be stopped.
    fn swap(&mut self, destination: &Destination) -> Result<()> {
        let replaces = *destination == Destination::InPlace && self.facts.live.is_some();
        let properties = match &self.facts.live {
            Some(_) => Properties::Live(&self.tools.place.database),
            None => Properties::Archive(self.archive.database()),
        };
        let sql = swap::swap(&self.names, replaces, properties, &self.leave());
        self.put(&sql, replaces)?;
        let archived = self.archive.database();
        if self.facts.live.is_none() && archived.illegible {
            self.notes
                .push("settings or comment of the database itself were not carried over: not in UTF-8".to_owned());
        }
        if self.facts.live.is_none() && archived.name != self.names.target && !archived.properties.is_empty() {
            self.notes.push(format!(
                "settings and grants of the database itself were not carried over: the backup is of {}",
                archived.name
            ));
        }
        self.dismiss(replaces);
        Ok(())
    }

    /// What is to become of the live database.
    fn leave(&self) -> Leave {
        match self.keep {
            Some(at) => Leave::Kept(keep::mark(&self.names.target, at)),
            None => Leave::Gone(self.mark()),
        }
    }

    /// Runs the transaction that puts `names.scratch` in its place, against whoever is in the way, and again if the
    /// connection was cut before it was committed.
    fn put(&self, sql: &str, replaces: bool) -> Result<()> {
        let place = || format!("can't put {} in its place", self.names.scratch);
        let mut tries = 1;
        while let Err(error) = self.swap_once(sql) {
            let cx = for_cleanup(self.cx);
            let swapped = patiently(&cx, is_cut, || self.has_swapped(replaces, &cx));
            let swapped = swapped
                .map_err(|unknown| unknown.while_doing(format!("{}, or see whether it has taken it", place())))?;
            if swapped {
                break;
            }
            let in_use = error.tail.iter().any(|line| line.contains("being accessed by other users"));
            if !(in_use || is_cut(&error)) || tries == SWAP_TRIES {
                return Err(self.roles(error).while_doing(place()));
            }
            tries += 1;
        }
        Ok(())
    }

    /// Drops the replaced database, unless it is kept.
    fn dismiss(&mut self, replaces: bool) {
        if !replaces {
            return;
        }
        if !self.facts.slots.is_empty() {
            let held = if self.keep.is_some() { " (until it is dropped they hold WAL at the server)" } else { "" };
            self.notes.push(format!(
                "these logical replication slots went with the replaced database, their readers must start anew{held}: {}",
                self.facts.slots.join(", ")
            ));
        }
        if self.keep.is_some() {
            return;
        }
        let sql = keep::drop_sql(&self.names.old, self.facts.version);
        if let Err(error) = patiently(self.cx, is_cut, || self.tools.run_sql(self.desk, &sql, self.cx)) {
            self.notes.push(format!(
                "the replaced database could not be dropped and is still there as {}: {error}; the next restore drops it",
                self.names.old
            ));
        }
    }

    /// One try. A second session ends whoever is in the way, and whoever comes in his place, until the first is through.
    fn swap_once(&self, sql: &str) -> Result<()> {
        let cx = for_cleanup(self.cx);
        let done = AtomicBool::new(false);
        let terminate = swap::terminate(&[&self.names.target, &self.names.scratch]);
        std::thread::scope(|scope| {
            let bouncer = scope.spawn(|| -> Result<()> {
                let call = self.tools.sql(self.desk, true);
                let mut psql = RestoreWriter::spawn(&call, cx.deadline, &cx.world)?;
                while !done.load(Ordering::SeqCst) {
                    psql.write_all(terminate.as_bytes()).doing(Kind::Tool, "can't end sessions")?;
                    cx.world.clock.sleep(TERMINATE_EVERY);
                }
                psql.finish().map(drop)
            });
            let outcome = self.tools.run_sql(self.desk, sql, &cx).map(drop);
            done.store(true, Ordering::SeqCst);
            // If nobody could be sent away, the swap's own error says so.
            let _ = bouncer.join();
            outcome
        })
    }

    /// After a lost connection: has the transaction been committed? Only it can have made this name.
    fn has_swapped(&self, replaces: bool, cx: &Cx) -> Result<bool> {
        let made = if replaces { &self.names.old } else { &self.names.target };
        let sql = format!(
            "SELECT count(*) FROM pg_database WHERE datname = {} AND NOT EXISTS (SELECT FROM pg_database WHERE datname = {});",
            literal(made),
            literal(&self.names.scratch)
        );
        let found: Vec<u64> = self.tools.rows(self.desk, &sql, cx)?;
        Ok(found.first() == Some(&1))
    }
}
