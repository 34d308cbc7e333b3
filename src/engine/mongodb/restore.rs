//! How a dump comes back. Flows in: the dump's stream and where it is to go. Flows out: collections that took their places,
//! or an error and everything as it was. Touches the server, through the tools.
//!
//! In place, everything is loaded into the same database under other names, for renaming is all that a server does at
//! once, and within one database alone. Only when the archive was whole and every document and index is there, the names
//! are exchanged one by one, by a plan that stands in the database until all is done: whoever is stopped in between is
//! finished by the next restore.

use std::io::{Read, Write};

use serde::Deserialize;
use serde_json::{Value, json};

use super::alive::{self, Lock, Signs};
use super::archive::{Archive, Sort};
use super::compare::{Loaded, compare};
use super::exchange::{Settled, taken_away};
use super::reasons::is_cut;
use super::server::{self, Claim, Facts, drill_stem};
use super::tools::{OURS, Tools, for_cleanup};
use super::url::check_name;
use crate::engine::tools::patiently;
use crate::engine::{Cx, Destination, Keep, Request, Restored, Step, checks};
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;

/// How much of the stream is handled at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct Begun {
    notes: Vec<String>,
    /// The dead ones of which nothing is left.
    cleared: Vec<String>,
    /// Another restore in the same place, which is at work.
    living: Option<Claim>,
}

/// One restore on its way.
pub(super) struct Restore<'a> {
    pub(super) tools: &'a Tools,
    pub(super) cx: &'a Cx,
    pub(super) destination: &'a Destination,
    pub(super) facts: Facts,
    pub(super) archive: Archive,
    pub(super) hex: String,
    /// The database that is loaded into.
    pub(super) into: String,
    /// What comes before the names of what is loaded.
    pub(super) prefix: String,
    notes: Vec<String>,
}

/// Restores `dump` as `request` says.
///
/// # Errors
/// The stream's own error, or [`Kind::Tool`]; the live database is then as it was and the scratch is gone, or, once the
/// exchange has begun, the message says so.
pub fn restore(tools: &Tools, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
    let mut archive = Archive::default();
    let begun = read_origin(dump, &mut archive)?;
    let hex = cx.world.random_hex(4)?;
    let live = &tools.place.database;
    let (into, prefix) = match &request.destination {
        Destination::InPlace => (live.clone(), format!("{OURS}{hex}_")),
        Destination::Into(name) => (name.clone(), String::new()),
        Destination::Drill => (format!("{}{hex}", drill_stem(live)), String::new()),
    };
    if let Destination::Into(name) = &request.destination {
        check_name(name)?;
    }
    let facts = server::ask(tools, &into, cx)?;
    let destination = &request.destination;
    let mut this = Restore { tools, cx, destination, facts, archive, hex, into, prefix, notes: Vec::new() };
    this.check(request.keep.is_some())?;
    request.keep.as_ref().map_or(Ok(()), Keep::room)?;
    let mut scratch = this.begin()?;
    let signs = Signs::give(tools, &this.into, &this.hex, cx);
    request.begins(Step::Load, &format!("loading into {} under other names: {}*", this.into, this.prefix), cx);
    this.load(begun, dump)?;
    request.begins(Step::Check, "comparing the documents of every collection with the backup", cx);
    let mut loaded = this.loaded()?;
    let mut counts = compare(&this.archive, &loaded, &request.expected)?;
    match destination {
        Destination::InPlace => {
            if let Some(keep) = request.keep.as_ref().filter(|_| this.facts.exists(live)) {
                keep.take()?;
                // That may have taken long.
                let again = this.loaded().and_then(|loaded| {
                    compare(&this.archive, &loaded, &request.expected).map(|counts| (loaded, counts))
                });
                (loaded, counts) = again.inspect_err(|_| keep.untouched())?;
            }
            cx.world.cancel.check().inspect_err(|_| request.untouched())?;
            scratch.gone = true;
            request.begins(Step::Swap, &format!("renaming each collection into its place in {}", this.into), cx);
            this.swap(&loaded, &scratch.lock, request)?;
            scratch.lock.remove();
        }
        Destination::Into(_) => {
            scratch.gone = true;
            let settle = json!({ "action": "settle", "database": this.into, "hex": this.hex });
            if let Some(why) = tools.ask::<Settled>(settle, &for_cleanup(cx))?.refused {
                return Err(taken_away(&why));
            }
            scratch.lock.remove();
        }
        Destination::Drill => {
            checks::run(&request.checks, &mut |check| tools.answer(&this.into, check.text()?, cx))?;
            if let Err(error) = scratch.remove() {
                this.notes.push(format!("can't drop the database {}: {error}", this.into));
            }
        }
    }
    drop((scratch, signs));
    Ok(Restored { counts, notes: this.notes, missing: Vec::new() })
}

/// Reads until the archive has said what it holds. Nothing has been touched yet.
fn read_origin(dump: &mut dyn Read, archive: &mut Archive) -> Result<Vec<u8>> {
    let mut begun = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    while !archive.knows_all() {
        match read(dump, &mut piece)? {
            0 => archive.end()?,
            count => {
                let bytes = piece.get(..count).unwrap_or_default();
                archive.pass(bytes)?;
                begun.extend_from_slice(bytes);
            }
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
    /// Puts in order what dead restores have left, and marks what follows as ours.
    fn begin(&mut self) -> Result<Scratch<'a>> {
        let live = &self.tools.place.database;
        let mut dead = match self.destination {
            // The facts are of the target.
            Destination::InPlace => self.facts.drills.clone(),
            _ => server::ask(self.tools, live, self.cx)?.drills,
        };
        if let Destination::Into(name) = self.destination
            && self.is_abandoned()
        {
            dead.push(name.clone());
        }
        let ended = alive::ended(&self.cx.data_dir);
        let whole = *self.destination != Destination::InPlace;
        let scratch = Scratch {
            tools: self.tools,
            cx: self.cx,
            database: self.into.clone(),
            hex: self.hex.clone(),
            whole,
            gone: false,
            lock: Lock::take(&self.cx.data_dir, &self.hex)?,
        };
        let request = json!({
            "action": "begin",
            "of": live,
            "into": self.into,
            "in_place": !whole,
            "hex": self.hex,
            "dead": dead,
            "since": self.cx.world.clock.now().to_rfc3339(),
            "lapse": alive::LAPSE.as_millis(),
            "ended": ended.iter().map(|(hex, _)| hex).collect::<Vec<_>>(),
        });
        let begun: Begun = self.tools.ask(request, self.cx)?;
        if let Some(living) = begun.living {
            return Err(self.busy(&living));
        }
        alive::sweep(&ended, &begun.cleared, self.cx.world.clock.now());
        self.notes.extend(begun.notes);
        Ok(scratch)
    }

    /// The error of two restores in one place.
    fn busy(&self, living: &Claim) -> Error {
        let since = living.since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
        let minutes = alive::LAPSE.as_secs() / 60;
        Error::new(Kind::Locked, format!("mongodb {} is being restored by another run{since}", self.into)).hint(format!(
            "wait for its end; if it was killed on another host, the next restore clears what it has left {minutes} minutes \
             after its last sign of life"
        ))
    }

    /// Passes the stream to mongorestore. Its input ends only after the stream has ended well and was whole; otherwise it is
    /// stopped before anything else happens.
    fn load(&mut self, begun: Vec<u8>, dump: &mut dyn Read) -> Result<()> {
        let from = self.archive.database.clone().unwrap_or_else(|| self.into.clone());
        let views = self.views();
        let without: &[&str] = if self.prefix.is_empty() { &[] } else { &views };
        let names = self.archive.collections.keys().map(String::as_str);
        let lines: Vec<&str> = names.filter(|name| name.contains('\n') && !without.contains(name)).collect();
        let call = self.tools.load(&from, &self.into, &self.prefix, without, &lines);
        self.cx.report.detail(&call.display());
        let mut tool = RestoreWriter::spawn(&call, self.cx.deadline, &self.cx.world)?;
        let said = match self.feed(begun, dump, &mut tool) {
            Ok(()) => tool.finish_telling().map_err(|error| self.tools.explain(error))?.1,
            Err(error) => {
                drop(tool);
                return Err(self.tools.explain(error));
            }
        };
        let failed = said.iter().any(|line| {
            let number = line.split_once(" document(s) failed to restore").map(|(before, _)| before);
            number.and_then(|before| before.rsplit(' ').next()).is_some_and(|number| number != "0")
        });
        match failed {
            false => Ok(()),
            true => Err(self.tools.explain(Error::new(Kind::Tool, "mongorestore left documents out").tail(said))),
        }
    }

    fn views(&self) -> Vec<&str> {
        let views = self.archive.collections.iter().filter(|(_, it)| it.sort == Sort::View);
        views.map(|(name, _)| name.as_str()).collect()
    }

    fn feed(&mut self, begun: Vec<u8>, dump: &mut dyn Read, tool: &mut RestoreWriter) -> Result<()> {
        let writing = "can't write to mongorestore";
        tool.write_all(&begun).doing(Kind::Tool, writing)?;
        drop(begun);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = read(dump, &mut piece)?;
            if count == 0 {
                return self.archive.end();
            }
            let bytes = piece.get(..count).unwrap_or_default();
            self.archive.pass(bytes)?;
            tool.write_all(bytes).doing(Kind::Tool, writing)?;
        }
    }

    /// Counts what has been loaded.
    fn loaded(&self) -> Result<Loaded> {
        let asked = json!({
            "action": "loaded",
            "database": self.into,
            "prefix": self.prefix,
            "views": self.view_definitions(),
        });
        self.tools.ask(asked, self.cx)
    }

    /// Its views, as the archive gives them.
    pub(super) fn view_definitions(&self) -> Vec<Value> {
        let views = self.archive.collections.iter().filter(|(_, it)| it.sort == Sort::View);
        views.map(|(name, it)| json!({ "name": name, "metadata": it.metadata })).collect()
    }
}

/// What is loaded beside: gone when this is dropped, unless it has taken its place.
struct Scratch<'a> {
    tools: &'a Tools,
    cx: &'a Cx,
    database: String,
    hex: String,
    /// Whether the database is all ours.
    whole: bool,
    gone: bool,
    lock: Lock,
}

impl Scratch<'_> {
    /// Removes it now, whatever signal has come; a server that is away gets a moment.
    fn remove(&mut self) -> Result<()> {
        self.gone = true;
        let action = if self.whole { "drop" } else { "clear" };
        let request = json!({ "action": action, "database": self.database, "hex": self.hex });
        let cx = for_cleanup(self.cx);
        patiently(&cx, is_cut, || self.tools.ask::<Value>(request.clone(), &cx).map(drop))?;
        self.lock.remove();
        Ok(())
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if !self.gone
            && let Err(error) = self.remove()
        {
            self.cx.report.warn(&format!(
                "can't remove what was loaded beside {}: {error}; the next restore does",
                self.database
            ));
        }
    }
}
