//! How a dump comes back. Flows in: the dump's stream and where it is to go. Flows out: a schema that took its place, or an
//! error and everything as it was. Touches the server, through the tools.
//!
//! The order is the promise: the dump's origin is looked at before anything is made; tables and rows are loaded into a
//! scratch schema, views, routines and triggers are tried there; and only when the stream has ended well, the dump is
//! whole and every row counted is there, the scratch takes its place.

use std::io::{Read, Write};

use super::code::{self, Made};
use super::grants::Grants;
use super::leftovers::{self, Scratch};
use super::names::Names;
use super::reasons::{self, is_cut};
use super::script::Script;
use super::server::{self, Facts, Holder};
use super::sql::{ident, literal, table};
use super::stall::Watch;
use super::swap::{self, Record, Swap};
use super::tools::{Tool, Tools, major};
use super::url::NAME_CHARS;
use super::views::{self, Refused};
use crate::engine::tools::patiently;
use crate::engine::{Counts, Cx, Destination, Keep, Request, Restored, Step, checks};
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;

/// How much of the stream is handled at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// Engines whose tables show the rows of others.
const BORROWED_ROWS: [&str; 4] = ["MRG_MYISAM", "FEDERATED", "CONNECT", "SPIDER"];

/// One restore on its way.
struct Restore<'a> {
    tools: &'a Tools,
    client: Tool,
    cx: &'a Cx,
    facts: Facts,
    names: Names,
    script: Script,
    notes: Vec<String>,
    missing: Vec<String>,
    /// What the sweep could not finish: it stands until this one takes its place.
    unfinished: Vec<Names>,
}

/// Restores `dump` as `request` says.
///
/// # Errors
/// The stream's own error, or [`Kind::Tool`]; the live schema is then as it was and the scratch is gone.
pub fn restore(tools: &Tools, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
    let mut script = Script::keeping();
    let begun = read_origin(dump, &mut script)?;
    let in_place = request.destination == Destination::InPlace;
    let target = match &request.destination {
        Destination::Into(name) => name.as_str(),
        Destination::InPlace | Destination::Drill => tools.place.database.as_str(),
    };
    let mut client = tools.client(cx)?;
    let facts = server::ask(tools, &client, target, cx)?;
    if client.family != facts.family() {
        client = tools.tool(&["mysql", "mariadb"], cx)?;
    }
    let names = Names::new(target, &cx.world.random_hex(4)?);
    let (notes, missing, unfinished) = Default::default();
    let mut this = Restore { tools, client, cx, facts, names, script, notes, missing, unfinished };
    this.check(&request.destination)?;
    request.keep.as_ref().map_or(Ok(()), Keep::room)?;
    let held = this.names.clone();
    let _alive = Holder::take(
        tools,
        &this.client,
        &held.hex,
        (!matches!(request.destination, Destination::Drill)).then_some(target),
        cx,
    )?;
    let swept = leftovers::sweep(tools, &this.client, &this.names, &this.facts.schemas, in_place, cx)?;
    (this.notes, this.unfinished) = (swept.notes, swept.unfinished);
    this.facts = server::ask(tools, &this.client, target, cx)?;
    let mut scratch = this.create()?;
    request.begins(Step::Load, &format!("loading into the schema {}", this.names.scratch), cx);
    this.load(begun, dump)?;
    request.begins(Step::Check, "comparing the rows of every table with the backup, and trying views and code", cx);
    let counts = this.compare(request)?;
    let record = this.try_code(&request.destination)?;
    if request.destination == Destination::Drill {
        checks::run(&request.checks, &mut |check| tools.answer(&this.client, &this.names.scratch, check.text()?, cx))?;
        if let Err(error) = scratch.remove() {
            this.notes.push(format!("can't drop the scratch schema {}: {error}", this.names.scratch));
        }
    } else {
        if let Some(keep) = request.keep.as_ref().filter(|_| in_place && this.facts.live.is_some()) {
            keep.take()?;
            if !this.unfinished.is_empty() {
                this.notes.push(format!("{target} is kept as it is: without what that restore had yet to make"));
            }
        }
        cx.world.cancel.check().inspect_err(|_| request.untouched())?;
        request.begins(
            Step::Swap,
            &format!("exchanging the tables of {target} for those of {}", this.names.scratch),
            cx,
        );
        this.place(record, request, &mut scratch)?;
    }
    drop(scratch);
    Ok(Restored { counts, notes: this.notes, missing: this.missing })
}

/// Reads until the dump has said where it is from, and gives the part of what was read that is to be loaded. Nothing has
/// been touched yet.
fn read_origin(dump: &mut dyn Read, script: &mut Script) -> Result<Vec<u8>> {
    let mut begun = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    while script.origin().is_none() {
        match read(dump, &mut piece)? {
            0 => {
                begun.extend(script.end()?);
                break;
            }
            count => begun.extend(script.pass(piece.get(..count).unwrap_or_default())?),
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
        let fail = |message: String, hint: String| Err(Error::new(Kind::Tool, message).hint(hint));
        let (name, family) = (&self.names.target, self.facts.family());
        if let Some((from, version)) = self.script.origin()
            && from != family
        {
            return fail(
                format!(
                    "the backup is of {} ({version}), this server is {} ({}): their dumps don't load into each other",
                    from.name(),
                    family.name(),
                    self.facts.version
                ),
                format!(
                    "restore it into a {} server: mend [databases.{}] url",
                    from.name(),
                    self.tools.toolbox.configured
                ),
            );
        }
        if let Some((_, version)) = self.script.origin()
            && major(version) > major(&self.facts.version)
        {
            return fail(
                format!(
                    "the backup is of {} {version}, this server is {}: an older one does not take the dumps of a newer",
                    family.name(),
                    self.facts.version
                ),
                format!(
                    "restore it into a server of version {} or newer: mend [databases.{}] url",
                    major(version),
                    self.tools.toolbox.configured
                ),
            );
        }
        if self.facts.read_only {
            return fail(
                format!("{} takes no writes (read_only)", self.tools.place.server()),
                "restore on the primary: mend the host in the url".to_owned(),
            );
        }
        if self.client.family != family {
            let message = format!(
                "{} is {}'s client, the server is {}",
                self.client.program,
                self.client.family.name(),
                family.name()
            );
            let hint = format!(
                "install {}'s client, or set [databases.{}] tools_dir to its folder",
                family.name(),
                self.tools.toolbox.configured
            );
            return fail(message, hint);
        }
        if let Destination::Into(_) = destination {
            if name.is_empty() || name.chars().count() > NAME_CHARS || name.ends_with(' ') {
                return fail(
                    format!("{name:?} can't be a schema's name"),
                    format!("give one of 1 to {NAME_CHARS} characters"),
                );
            }
            if self.facts.live.is_some() {
                return fail(
                    format!("there is a database {name} already"),
                    "give another name, or drop that one first".to_owned(),
                );
            }
        }
        if *destination == Destination::InPlace && !self.facts.foreign.is_empty() {
            let tables: Vec<_> = self.facts.foreign.iter().take(5).cloned().collect();
            return fail(
                format!(
                    "foreign keys of other schemas point into {name}, and would follow its old tables away: {}",
                    tables.join(", ")
                ),
                "drop these foreign keys, restore, and add them again".to_owned(),
            );
        }
        let grants = Grants::ask(self.tools, &self.client, self.cx)?;
        let schemas: &[&str] = match destination {
            Destination::Drill => &[&self.names.scratch],
            _ => &[&self.names.target, &self.names.scratch, &self.names.old],
        };
        match grants.missing_for_restore(schemas, &self.facts.me) {
            Some((missing, mend)) => fail(format!("{} lacks {missing}", self.facts.me), mend),
            None => Ok(()),
        }
    }

    /// Makes the scratch schema, like the live one where there is one.
    fn create(&self) -> Result<Scratch<'a>> {
        let scratch = &self.names.scratch;
        let now = self.cx.world.clock.now().format("%Y-%m-%dT%H:%M:%SZ");
        let mark = format!("{}{now}", self.names.claim());
        let sql = format!(
            "CREATE DATABASE {} {};\nCREATE TABLE {} (i INT) COMMENT = {};\n",
            ident(scratch),
            self.facts.live.as_deref().unwrap_or_default(),
            table(scratch, &self.names.mark()),
            literal(&mark)
        );
        // From here on it may exist, even if what follows fails.
        let guard =
            Scratch { tools: self.tools, client: self.client.clone(), cx: self.cx, name: scratch.clone(), gone: false };
        self.tools
            .run(&self.client, None, sql.as_bytes(), self.cx)
            .map_err(|error| error.while_doing(format!("can't create the schema {scratch}")))?;
        Ok(guard)
    }

    /// Passes the tables and rows of the stream to the client. Its input ends only after the stream has ended well and was
    /// whole; otherwise it is stopped before anything else happens.
    fn load(&mut self, begun: Vec<u8>, dump: &mut dyn Read) -> Result<()> {
        let call = self.tools.sql(&self.client, Some(&self.names.scratch));
        self.cx.report.detail(&call.display());
        let mut tool = RestoreWriter::spawn(&call, self.cx.deadline, &self.cx.world)?;
        let (tools, client, cx, scratch) = (self.tools, self.client.clone(), self.cx, self.names.scratch.clone());
        let watch = Watch::default();
        let outcome = watch.over((tools, &client), &scratch, cx, || match self.feed(begun, dump, &mut tool, &watch) {
            Ok(()) => tool.finish().map(drop),
            Err(error) => {
                drop(tool);
                Err(error)
            }
        });
        let gone = self.facts.live.is_none();
        outcome.map_err(|error| match reasons::number(&error) {
            // MariaDB writes a sequence that gives defaults with its schema, and looks for it there.
            Some(reasons::NO_SUCH_TABLE) if gone => error.hint(format!(
                "a column takes its default from a sequence of the schema that is gone: CREATE DATABASE it, CREATE SEQUENCE \
                 in it what the last lines name, and restore again ([databases.{}])",
                self.tools.toolbox.configured
            )),
            _ => self.tools.explain(error),
        })
    }

    fn feed(&mut self, begun: Vec<u8>, dump: &mut dyn Read, tool: &mut RestoreWriter, watch: &Watch) -> Result<()> {
        let writing = format!("can't write to {}", self.client.program);
        tool.write_all(&begun).doing(Kind::Tool, &writing)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = read(dump, &mut piece)?;
            let data = match count {
                0 => self.script.end()?,
                count => self.script.pass(piece.get(..count).unwrap_or_default())?,
            };
            tool.write_all(&data).doing(Kind::Tool, &writing)?;
            watch.took(data.len());
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Counts what has been loaded and compares it with what the dump held, and with what was counted when it was made.
    fn compare(&self, request: &Request) -> Result<Counts> {
        let loaded = server::ask(self.tools, &self.client, &self.names.scratch, self.cx)?;
        let own = |name: &str| !self.names.is_ours(name) && self.script.counts().contains_key(name);
        let tables: Vec<_> = loaded.tables.iter().filter(|(name, _)| own(name)).collect();
        let mut counts = Counts::new();
        let mut sql = String::new();
        for (name, engine) in tables {
            counts.insert(name.clone(), None);
            if !BORROWED_ROWS.contains(&engine.to_ascii_uppercase().as_str()) {
                let from = table(&self.names.scratch, name);
                sql += &format!("SELECT JSON_ARRAY({}, COUNT(*)) FROM {from};\n", literal(name));
            }
        }
        let rows: Vec<(String, u64)> = self.tools.rows(&self.client, &sql, self.cx)?;
        counts.extend(rows.into_iter().map(|(name, count)| (name, Some(count))));
        for (name, expected) in self.script.counts().iter().chain(&request.expected) {
            match (counts.get(name), expected) {
                (None, _) => return Err(differs(name, "no", expected.unwrap_or_default())),
                (Some(Some(loaded)), Some(expected)) if loaded != expected => {
                    return Err(differs(name, &loaded.to_string(), *expected));
                }
                _ => {}
            }
        }
        Ok(counts)
    }

    /// Makes routines, triggers and views in the scratch once, so that whatever is wrong with them is found before the live
    /// schema is touched; then takes triggers and views away again, for tables could not leave with them. A drill keeps them
    /// for its checks.
    fn try_code(&mut self, destination: &Destination) -> Result<Record> {
        let items = self.script.take_items();
        let from = self.script.schema().unwrap_or(&self.tools.place.database);
        let made = items.iter().map(|item| Ok(Made::new(item)?.out_of(from))).collect::<Result<Vec<_>>>()?;
        let scratch = self.names.scratch.clone();
        let loaded = server::ask(self.tools, &self.client, &scratch, self.cx)?;
        let tables: Vec<String> = loaded.table_names().into_iter().filter(|name| !self.names.is_ours(name)).collect();
        let charset = loaded.live.clone().unwrap_or_default();
        let mut record = Record { live: self.facts.table_names(), tables, charset, made, ..Record::default() };
        if let Some(trigger) = record.of("trigger").find(|trigger| !record.tables.contains(&trigger.table)) {
            let message =
                format!("the dump's trigger {} is on a table that it does not hold: {}", trigger.name, trigger.table);
            return Err(Error::new(Kind::Tool, message));
        }
        let run = |sql: Vec<u8>| self.tools.run(&self.client, Some(&scratch), &sql, self.cx);
        for (what, of) in [("routine", "routines"), ("trigger", "triggers")] {
            // Under its own table's name written anew, a trigger stays in the scratch whatever schema its text names.
            let on = |made: &Made| Some(made.table.clone()).filter(|table| !table.is_empty());
            run(code::script(record.of(what), &scratch, &record.charset, &on))
                .map_err(|error| error.while_doing(format!("can't make the dump's {of}")))?;
        }
        let excused = |number: u32| views::lacks_rights(number) || number == reasons::NO_SUCH_DEFINER;
        let views = record.of("view").cloned().collect();
        let refused = views::make(self.tools, &self.client, (&scratch, &record.charset), views, self.cx, &excused)?;
        self.definers(&refused, destination)?;
        let loaded = server::ask(self.tools, &self.client, &scratch, self.cx)?;
        if loaded.triggers.len() != record.of("trigger").count() {
            return Err(Error::new(Kind::Tool, "not all of the dump's triggers could be made"));
        }
        if *destination == Destination::Drill {
            return Ok(record);
        }
        // What can't be described is made anew.
        let described =
            views::describe(self.tools, &self.client, (&scratch, &self.names.target), &loaded.views, self.cx);
        record.views = described.unwrap_or_default();
        let drop =
            |what: &str, name: &String| format!("DROP {what} IF EXISTS {};\n", table(&scratch, name)).into_bytes();
        let triggers = loaded.triggers.iter().flat_map(|name| drop("TRIGGER", name));
        let views = loaded.views.iter().flat_map(|name| drop("VIEW", name));
        run(triggers.chain(views).collect())?;
        Ok(record)
    }

    /// Rights may be lacking in the scratch alone, but a definer that is not there is missing in every schema: after the
    /// exchange its views could not be made either. A drill on a server where the database itself is not says so.
    fn definers(&self, refused: &[Refused], destination: &Destination) -> Result<()> {
        let (views, users) = views::without_definer(refused);
        if users.is_empty() {
            return Ok(());
        }
        let users: Vec<_> = users.into_iter().collect();
        let why = format!(
            "the server can't make the views {}: what they stand on is of users that it does not have: {}",
            views.join(", "),
            users.join(", ")
        );
        if *destination == Destination::Drill && self.facts.tables.is_empty() {
            self.cx
                .report
                .warn(&format!("{why}; a restore here wants these users, which are in no backup of a database"));
            return Ok(());
        }
        // Under a name that was not read, none is made.
        let named = users.iter().filter(|user| user.starts_with('\''));
        let make: Vec<_> = named.map(|user| format!("CREATE USER {user} ACCOUNT LOCK")).collect();
        let make = if make.is_empty() { "make these users".to_owned() } else { make.join("; ") };
        let hint = format!("{make}; grant them their rights on {}, and do it again", self.names.target);
        Err(Error::new(Kind::Tool, why).hint(hint))
    }

    /// Puts the scratch where it belongs.
    fn place(&mut self, record: Record, request: &Request, scratch: &mut Scratch<'_>) -> Result<()> {
        let made = self.facts.live.is_none();
        let copy = matches!(request.destination, Destination::Into(_));
        let mut swap = Swap::new(self.tools, &self.client, self.cx, self.names.clone(), record);
        swap.unfinished.clone_from(&self.unfinished);
        if made {
            let charset = swap.record.charset.clone();
            let sql = format!("CREATE DATABASE {} {charset};\n", ident(&self.names.target));
            self.tools.run(&self.client, None, sql.as_bytes(), &swap.cx)?;
            if !copy {
                self.notes.push(format!(
                    "there was no schema {}: it was made with the server's own character set, {charset}",
                    self.names.target
                ));
            }
        }
        if copy {
            let events: Vec<Made> = swap.record.of("event").cloned().collect();
            swap.record.made.retain(|made| made.what != "event");
            if !events.is_empty() {
                let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
                self.notes.push(format!(
                    "events were left out of the copy, where they would act at once: {}",
                    names.join(", ")
                ));
            }
        }
        // Once the tables have begun to move the scratch holds what is needed to finish; nobody may drop it any more.
        if let Err(error) = swap.exchange() {
            let stage = patiently(&swap.cx, is_cut, || swap.stage());
            let untouched = stage.is_ok_and(|(stage, ..)| stage == swap::Stage::Untouched);
            scratch.gone = !untouched;
            if untouched {
                request.untouched();
                let mine = if made {
                    format!("DROP DATABASE IF EXISTS {};\n", ident(&self.names.target))
                } else {
                    String::new()
                };
                let sql = format!("{mine}DROP DATABASE IF EXISTS {};\n", ident(&self.names.old));
                let run = || self.tools.run(&self.client, None, sql.as_bytes(), &swap.cx);
                if let Err(error) = patiently(&swap.cx, is_cut, run) {
                    // By the scratch the next restore finds it.
                    scratch.gone = true;
                    self.cx.report.warn(&format!("can't drop {}: {error}; the next restore does", self.names.old));
                }
            }
            return Err(error);
        }
        scratch.gone = true;
        let patient = swap.cx.clone();
        patiently(&patient, is_cut, || swap.finish()).map_err(|error| {
            error
                .while_doing(format!("the tables of {} are restored, but not all of its code", self.names.target))
                .hint("mend the reason and run the restore again: it finishes this one first")
        })?;
        self.notes.extend(std::mem::take(&mut swap.notes));
        self.missing = std::mem::take(&mut swap.missing);
        self.cx.begins(Step::Tidy, "dropping the replaced tables");
        if let Err(error) = patiently(&patient, is_cut, || swap.clear()) {
            self.notes.push(format!(
                "the replaced tables could not be dropped and are still there in {}: {error}; the next restore drops them",
                self.names.old
            ));
        }
        Ok(())
    }
}

fn differs(name: &str, loaded: &str, expected: u64) -> Error {
    Error::new(
        Kind::Tool,
        format!("after the load there are {loaded} rows in table {name}, the backup holds {expected}"),
    )
    .hint("the live database is unchanged; verify this backup, or restore another")
}
