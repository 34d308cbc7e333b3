//! How a dump comes back. Flows in: the dump's stream and where it is to go. Flows out: a database that took its place in
//! one transaction, or an error and everything as it was. Touches the server, through the tools.
//!
//! The order is the promise: the scratch is made after the stream's first bytes, and swapped in only when the stream has
//! ended well, `pg_restore` has ended well, the archive is whole, and the rows that it holds are there.

use std::io::{Read, Write};

use super::alive::Holder;
use super::archive::Archive;
use super::compare::compare;
use super::keep;
use super::leftovers::Sweeper;
use super::reasons::{is_cut, is_full, misses_role};
use super::server::{Facts, Scratch, ask};
use super::spool::Spool;
use super::sql::{ident, literal};
use super::swap::{self, NAME_BYTES, Names};
use super::tools::{Tools, for_cleanup};
use super::transaction;
use super::unmarked;
use crate::engine::{Counts, Cx, Destination, Inspector, Keep, Previous, Request, Restored, Step, checks};
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;
use chrono::{DateTime, Utc};

/// How much of the stream is handled at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// How far into an archive the description of its database may stand, in bytes: it is one of the first entries.
const DESCRIPTION_WITHIN: usize = 64 * 1024 * 1024;
/// So many connections a restore has at once: the swap's, the one that sends others away, and the one that holds the lock.
const CONNECTIONS: i32 = 3;
/// From this major version on, `pg_restore` sets a parameter that older servers don't know, and fails there.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

/// One restore on its way.
pub(super) struct Restore<'a> {
    pub(super) tools: &'a Tools,
    pub(super) cx: &'a Cx,
    /// The database from which ours can be renamed.
    pub(super) desk: &'static str,
    pub(super) facts: Facts,
    pub(super) names: Names,
    /// When the database that stood is to be kept as of; none: it is dropped.
    pub(super) keep: Option<DateTime<Utc>>,
    pub(super) archive: Archive,
    pub(super) notes: Vec<String>,
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
        let wait = transaction::LOCK_WAIT;
        let outcome = transaction::restore(place, &mut this.archive, &begun, dump, request, wait, cx);
        return outcome.map_err(|error| this.older_server(this.roles(error)));
    }
    let mut sweeper = Sweeper::new(tools, desk, target, request.destination == Destination::InPlace);
    this.notes.extend(sweeper.sweep(&this.facts, cx));
    this.notes.extend(unmarked::sweep(tools, desk, &this.facts, target, cx));
    let spool = match request.jobs {
        Some(jobs) => Some((Spool::read(&begun, dump, &mut this.archive, request.dump_bytes, cx)?, jobs)),
        None => None,
    };
    // Before there is a scratch: one that nobody answers for is dropped by the next who comes.
    let holder = this.hold()?;
    let mut scratch = this.create(holder.is_some())?;
    let source = match &spool {
        Some((spool, jobs)) => Source::File(spool, *jobs),
        None => Source::Stream(&begun, dump),
    };
    let counts = this.fill(source, request).map_err(|error| scratch.heed(this.taken_for_dead(error)))?;
    this.place(request, &mut scratch)?;
    drop(scratch);
    // A tool of the dead may have been about to make a scratch when they were looked for.
    if let Ok((_, facts)) = ask(tools, cx) {
        this.notes.extend(sweeper.sweep(&facts, cx));
    }
    drop(holder);
    Ok(Restored { counts, notes: this.notes, missing: Vec::new() })
}

/// Where the archive is.
enum Source<'a> {
    /// Its beginning has been read, the rest follows.
    Stream(&'a [u8], &'a mut dyn Read),
    /// In a file, to be loaded in so many parts at once.
    File(&'a Spool, u16),
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
    Ok(Restored { counts: Counts::new(), notes: this.notes, missing: Vec::new() })
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
        let needed = self.archive.read_from();
        let written = self.archive.tool_version().unwrap_or("a newer version");
        if needed >= SETS_TRANSACTION_TIMEOUT && major < SETS_TRANSACTION_TIMEOUT {
            return fail(format!("what pg_dump {written} wrote can't be loaded into a server of version {major}"))
                .map_err(|error| {
                    error.hint(format!(
                        "restore it into a server of version {needed} or newer: mend [databases.{}] url",
                        self.tools.toolbox.configured
                    ))
                });
        }
        if tool < needed {
            let hint = self.tools.version_hint(
                |it| it >= needed && (major >= SETS_TRANSACTION_TIMEOUT || it < SETS_TRANSACTION_TIMEOUT),
                needed,
            );
            return fail(format!("pg_restore {shown} is too old for the backup, which pg_dump {written} wrote"))
                .map_err(|error| error.hint(hint));
        }
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

    pub(super) fn mark(&self) -> String {
        swap::mark(&self.names.target, self.cx.world.clock.now())
    }

    /// A session that says for others that we live. Where there can be none, age tells the dead.
    fn hold(&self) -> Result<Option<Holder>> {
        if (0..CONNECTIONS).contains(&self.facts.connections) {
            return Ok(None);
        }
        // While a session sits in template1, nobody can make a database.
        let database = &self.tools.place.database;
        let another = || self.facts.databases.iter().any(|other| other.name == *database);
        let seat = if self.desk == "template1" && another() { database } else { self.desk };
        match Holder::take(self.tools, seat, &self.names.scratch, self.cx) {
            Err(error) if error.is_stopped() => Err(error),
            Err(error) => {
                self.cx.report.detail(&format!("others can't see that this restore lives: {error}"));
                Ok(None)
            }
            Ok(holder) => Ok(Some(holder)),
        }
    }

    /// Loads and compares.
    fn fill(&mut self, source: Source<'_>, request: &Request) -> Result<Counts> {
        request.begins(Step::Load, &format!("loading into the database {}", self.names.scratch), self.cx);
        match source {
            Source::File(spool, jobs) => spool
                .load(self.tools, &self.names.scratch, jobs, self.cx)
                .map_err(|error| self.older_server(self.roles(error)))?,
            Source::Stream(begun, dump) => self.load(begun, dump)?,
        }
        request.begins(Step::Check, "comparing the rows of every table with the backup", self.cx);
        compare(self.tools, &self.names.scratch, &self.archive, request, self.cx)
    }

    /// Puts the scratch where it belongs; a drill's is asked and dropped.
    fn place(&mut self, request: &Request, scratch: &mut Scratch<'_>) -> Result<()> {
        if request.destination == Destination::Drill {
            let mut ask = |check: &checks::Check| self.tools.answer(&self.names.scratch, check.text()?, self.cx);
            checks::run(&request.checks, &mut ask)?;
            scratch.remove().unwrap_or_else(|error| {
                self.notes.push(format!("can't drop the scratch database {}: {error}", self.names.scratch));
            });
            return Ok(());
        }
        self.analyze().map_err(|error| scratch.heed(error))?;
        self.cx.world.cancel.check()?;
        self.cx.begins(Step::Swap, &format!("putting it in the place of {}", self.names.target));
        self.swap(&request.destination).map_err(|error| {
            // A transaction that did not find it has changed nothing.
            let missed = error.tail.iter().any(|line| line.contains("does not exist"));
            if missed { self.taken_for_dead(error) } else { error }
        })?;
        scratch.gone = true;
        Ok(())
    }

    /// Says so if the reason of a failure before the swap is that somebody has dropped the scratch.
    fn taken_for_dead(&self, error: Error) -> Error {
        let Names { scratch, target, .. } = &self.names;
        let sql = format!("SELECT count(*) FROM pg_database WHERE datname = {};\n", literal(scratch));
        let asked = || self.tools.rows::<u64>(self.desk, &sql, &for_cleanup(self.cx));
        if error.kind != Kind::Tool || !asked().is_ok_and(|rows| rows.first() == Some(&0)) {
            return error;
        }
        let error = Error { hint: None, ..error };
        error.while_doing(format!("somebody has dropped {scratch} under this restore")).hint(format!(
            "{target} is unchanged by this restore. Another restore does so after the session was lost by which it sees that \
             this one lives: look who restores {target}, and restore again"
        ))
    }

    /// Makes the scratch database: like the live one where there is one, else as the archive says.
    fn create(&self, answered_for: bool) -> Result<Scratch<'a>> {
        let scratch = &self.names.scratch;
        let create = match &self.facts.live {
            Some(live) => live.create(scratch, self.facts.version),
            None => {
                let owners = self.tools.restores_owners();
                swap::create_as_archived(self.archive.database(), scratch, owners, self.facts.version)?
            }
        };
        // From here on it may exist, even if what follows fails.
        let mut guard = Scratch {
            tools: self.tools,
            cx: self.cx,
            desk: self.desk,
            name: scratch.clone(),
            server: self.facts.version,
            gone: false,
            full: false,
        };
        let mark = if answered_for { swap::mark_answered_for } else { swap::mark };
        let sql = create + &swap::claim(&self.names, &mark(&self.names.target, self.cx.world.clock.now()));
        self.run(&sql).map_err(|error| {
            if is_cut(&error) {
                guard.outlast();
            }
            guard.heed(self.roles(error).while_doing(format!("can't create the database {scratch}")))
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

    pub(super) fn roles(&self, error: Error) -> Error {
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
            // With a full disk it would stand where nothing can be written.
            Err(error) if error.is_stopped() || is_full(&error) => Err(error),
            Err(error) => {
                self.notes.push(format!("can't gather statistics: {error}; run ANALYZE yourself"));
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}
