//! How a loaded schema takes the place of the live one. Flows in: a scratch schema and what the dump holds besides tables.
//! Flows out: the live schema exchanged. Touches the server.
//!
//! A schema can't be renamed, and a table with triggers can't leave its schema. Where there is neither trigger nor another
//! view or routine on either side, one RENAME TABLE exchanges all tables at once. Otherwise clients find no tables for
//! some milliseconds, and never some of both: (1) the live tables get names of ours, views that differ go; (2) their
//! triggers go; (3) they leave, and the new ones come under names of ours; (4) these get their triggers and the routines;
//! (5) they get their names; (6) views and events are made. A view that is the same on both sides stays all the while: it
//! names its tables, and they come back to their names with all of their rows at one stroke. What others make under the names
//! of tables that are out of the way goes out of the way itself ([`strangers`]).
//!
//! What is to be done stands in a table of the scratch schema before the first step. Each step is one statement or can be
//! done again, and the names tell which was the last: so whoever finds a swap half-way finishes it. One whose code can't be
//! made stays half-way until the next begins: by the statement with which that one does, this one's table goes. So there are
//! never two that have begun, and nobody puts the code of one to the tables of another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::code::{self, Made};
use super::names::Names;
use super::reasons;
use super::server::{self, Facts};
use super::sql::{ident, literal, table};
use super::strangers;
use super::tools::{Tool, Tools, for_cleanup};
use super::views;
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};

/// How long it may take in all: to drop a large schema is slow on some disks.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How often the swap is tried before it is given up.
const TRIES: u32 = 6;
/// How much longer each pause between two tries is than the one before: the server may be starting again.
const PAUSE: Duration = Duration::from_millis(300);

/// What the record's comment says when all is done but the dropping.
const FINISHED: &str = "finished";

/// All that a swap needs, as it is kept in the scratch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The live tables before the swap.
    pub live: Vec<String>,
    /// The loaded tables.
    pub tables: Vec<String>,
    /// The schema's character set and collation.
    pub charset: String,
    /// The loaded views as the server describes them in the schema they are for.
    #[serde(default)]
    pub views: BTreeMap<String, String>,
    /// Views, routines, triggers and events; in rows of their own.
    #[serde(skip)]
    pub made: Vec<Made>,
}

impl Record {
    /// Those of one sort.
    pub fn of<'a>(&'a self, what: &'a str) -> impl Iterator<Item = &'a Made> {
        self.made.iter().filter(move |made| made.what == what)
    }
}

/// How far a swap has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The live tables are untouched.
    Untouched,
    /// They have names of ours.
    Out,
    /// The new ones have names of ours.
    In,
    /// The new ones have their names.
    Named,
}

/// A swap, at whatever stage.
#[derive(Debug)]
pub struct Swap<'a> {
    /// How the server is reached.
    pub tools: &'a Tools,
    /// The client.
    pub client: &'a Tool,
    /// For the clock; deaf to signals.
    pub cx: Cx,
    /// Its names.
    pub names: Names,
    /// What is to be done.
    pub record: Record,
    /// Those before it that could not be finished: it takes their place.
    pub unfinished: Vec<Names>,
    /// What whoever restores should know of it.
    pub notes: BTreeSet<String>,
    /// What could not be made, as one of the notes says.
    pub missing: Vec<String>,
    /// Live views that are as the loaded ones, when last looked at.
    same: BTreeSet<String>,
    /// Live views that were invalid before the first step, if it was seen.
    broken: Option<Vec<String>>,
}

impl<'a> Swap<'a> {
    /// Prepares one. From here on it listens to no signal: half-way there is nothing to be stopped.
    pub fn new(tools: &'a Tools, client: &'a Tool, cx: &Cx, names: Names, record: Record) -> Self {
        let mut cx = for_cleanup(cx);
        cx.deadline = Some(cx.world.clock.monotonic() + PATIENCE);
        let (unfinished, notes, missing, same) = Default::default();
        Self { tools, client, cx, names, record, unfinished, notes, missing, same, broken: None }
    }

    /// Finds the swap that a dead restore has left, if it had come to one. As long as it looks it heeds signals and the deadline.
    ///
    /// # Errors
    /// [`Kind::Tool`] when its record can't be read.
    pub fn find(tools: &'a Tools, client: &'a Tool, cx: &Cx, names: Names) -> Result<Option<Self>> {
        // A script of the dead one may still run.
        let wait = format!("SELECT GET_LOCK({}, 60);\n", literal(&server::run_lock(&names.hex)));
        tools.run(client, None, wait.as_bytes(), cx)?;
        let scratch = server::ask(tools, client, &names.scratch, cx)?;
        if !scratch.table_names().contains(&names.record()) {
            return Ok(None);
        }
        let sql = format!("SELECT j FROM {} ORDER BY n;\n", table(&names.scratch, &names.record()));
        let text = tools.run(client, None, sql.as_bytes(), cx)?;
        let wrong =
            |error: serde_json::Error| Error::new(Kind::Tool, format!("the record of a swap can't be read: {error}"));
        let mut lines = text.lines();
        let mut record: Record = serde_json::from_str(lines.next().unwrap_or_default()).map_err(wrong)?;
        for line in lines {
            record.made.push(serde_json::from_str(line).map_err(wrong)?);
        }
        Ok(Some(Self::new(tools, client, cx, names, record)))
    }

    /// Writes down what is to be done. It is there whole or not at all.
    fn write_record(&self) -> Result<()> {
        let json = |error: serde_json::Error| Error::other(format!("can't write the record of a swap: {error}"));
        let (tmp, record) = (self.names.draft(), self.names.record());
        let (tmp, record) = (table(&self.names.scratch, &tmp), table(&self.names.scratch, &record));
        let mut sql = format!(
            "CREATE DATABASE IF NOT EXISTS {old};\nDROP TABLE IF EXISTS {record}, {tmp};\n\
             CREATE TABLE {tmp} (n INT PRIMARY KEY, j LONGTEXT) DEFAULT CHARACTER SET utf8mb4;\n\
             INSERT INTO {tmp} VALUES (0, {});\n",
            literal(&serde_json::to_string(&self.record).map_err(json)?),
            old = ident(&self.names.old),
        );
        for (at, made) in self.record.made.iter().enumerate() {
            let text = literal(&serde_json::to_string(made).map_err(json)?);
            sql += &format!("INSERT INTO {tmp} VALUES ({}, {text});\n", at + 1);
        }
        sql += &format!("RENAME TABLE {tmp} TO {record};\n");
        self.tools.run(self.client, None, sql.as_bytes(), &self.cx).map(drop)
    }

    /// Looks how far it has come.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked.
    pub fn stage(&self) -> Result<(Stage, Facts, Facts)> {
        let live = server::ask(self.tools, self.client, &self.names.target, &self.cx)?;
        let scratch = server::ask(self.tools, self.client, &self.names.scratch, &self.cx)?;
        let has =
            |start: &str| live.tables.iter().any(|(name, _)| name.starts_with(&format!("{start}_{}_", self.names.hex)));
        let waiting = scratch.tables.iter().any(|(name, _)| !self.names.is_ours(name));
        let stage = match (has("__vxo"), has("__vxn")) {
            (true, _) => Stage::Out,
            (_, true) => Stage::In,
            _ if waiting => Stage::Untouched,
            // Without a single new table it is the old ones that tell.
            _ if self.record.tables.is_empty()
                && live.table_names() == self.record.live
                && !self.record.live.is_empty() =>
            {
                Stage::Untouched
            }
            _ => Stage::Named,
        };
        Ok((stage, live, scratch))
    }

    /// Exchanges the tables, from whatever stage.
    ///
    /// # Errors
    /// [`Kind::Tool`]; the message says whether the live schema is untouched.
    pub fn exchange(&mut self) -> Result<()> {
        let mut failure = None;
        for attempt in 0..TRIES {
            self.cx.world.clock.sleep(PAUSE * attempt);
            let (stage, live, scratch) = match self.stage() {
                Ok(found) => found,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            if stage == Stage::Untouched {
                self.record.live = live.table_names();
                self.broken = Some(live.broken.clone());
                self.same = self.same_views(&live);
                if let Err(error) = self.write_record() {
                    failure = Some(error);
                    continue;
                }
            }
            if stage == Stage::Named {
                return self.has_record(&scratch);
            }
            let script = self.steps(stage, &live, &scratch);
            self.notes.extend(strangers::told(stage, &self.record.tables, &live));
            match self.run(&script) {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            }
        }
        let error = failure.unwrap_or_else(|| Error::new(Kind::Tool, "can't exchange the tables"));
        match self.stage() {
            Ok((Stage::Untouched, ..)) => Err(error.while_doing("can't exchange the tables")),
            Ok((Stage::Named, _, scratch)) => self.has_record(&scratch),
            _ => Err(error
                .while_doing(format!("{} may be between old and new, and then shows no tables", self.names.target))
                .hint("mend the reason and run the restore again: it finishes this one first")),
        }
    }

    /// A swap that is done has left its record; without one and without tables the scratch itself is gone.
    fn has_record(&self, scratch: &Facts) -> Result<()> {
        if self.record.tables.is_empty() || scratch.table_names().contains(&self.names.record()) {
            return Ok(());
        }
        let why = format!("{} is gone: another restore of {} has dropped it", self.names.scratch, self.names.target);
        Err(Error::new(Kind::Tool, why).hint(format!(
            "it took this one for dead after its connection was cut: look who else restores {}, and restore again",
            self.names.target
        )))
    }

    fn run(&self, script: &[u8]) -> Result<()> {
        let lock = format!("SELECT GET_LOCK({}, 60);\n", literal(&server::run_lock(&self.names.hex)));
        let script = [lock.as_bytes(), script].concat();
        self.tools.run(self.client, Some(&self.names.target), &script, &self.cx).map(drop)
    }

    /// Whether all can be done by one statement.
    fn is_plain(&self, live: &Facts, scratch: &Facts) -> bool {
        let trigger = self.record.of("trigger").next().is_some() || !live.triggers.is_empty();
        let views = live.views.iter().chain(self.record.of("view").map(|made| &made.name));
        !trigger && views.into_iter().all(|view| self.same.contains(view)) && live.routines == scratch.routines
    }

    /// The live views that are as the loaded ones.
    fn same_views(&self, live: &Facts) -> BTreeSet<String> {
        // What can't be described is made anew.
        let now =
            views::describe(self.tools, self.client, (&self.names.target, &self.names.target), &live.views, &self.cx)
                .unwrap_or_default();
        now.into_iter().filter(|(name, text)| self.record.views.get(name) == Some(text)).map(|(name, _)| name).collect()
    }

    /// The statements from `stage` to the new tables under their names.
    fn steps(&self, stage: Stage, live: &Facts, scratch: &Facts) -> Vec<u8> {
        let Names { target, scratch: from, old, .. } = &self.names;
        let mut sql = b"SET SESSION lock_wait_timeout = 5, SESSION foreign_key_checks = 0;\n".to_vec();
        let mut pairs = if stage == Stage::Untouched { self.spent(live) } else { Vec::new() };
        if stage == Stage::Untouched && self.is_plain(live, scratch) {
            pairs.extend(self.record.live.iter().map(|name| (table(target, name), table(old, name))));
            pairs.extend(self.record.tables.iter().map(|name| (table(from, name), table(target, name))));
            sql.extend(rename(&pairs));
            return sql;
        }
        let live_out = |at: usize| table(target, &self.names.out(at));
        let new = |at: usize| table(target, &self.names.new_name(at));
        // Without a table to go it begins when the first one comes.
        if stage == Stage::Untouched && !self.record.live.is_empty() {
            let out = self.record.live.iter().enumerate().map(|(at, name)| (table(target, name), live_out(at)));
            sql.extend(rename(&out.chain(std::mem::take(&mut pairs)).collect::<Vec<_>>()));
        }
        let mut strangers = strangers::aside(stage, &self.names, &self.record.tables, live);
        sql.extend(self.drop_views(live));
        for trigger in &live.triggers {
            sql.extend(format!("DROP TRIGGER IF EXISTS {};\n", table(target, trigger)).into_bytes());
        }
        if stage != Stage::In {
            pairs.append(&mut strangers);
            pairs.extend(self.record.live.iter().enumerate().map(|(at, name)| (live_out(at), table(old, name))));
            let new = self.record.tables.iter().enumerate().map(|(at, name)| (table(from, name), new(at)));
            sql.extend(rename(&pairs.into_iter().chain(new).collect::<Vec<_>>()));
        }
        sql.extend(self.routines(live, scratch));
        let position = |made: &Made| self.record.tables.iter().position(|name| *name == made.table);
        let on = |made: &Made| position(made).map(|at| self.names.new_name(at));
        sql.extend(code::script(self.record.of("trigger"), target, &self.record.charset, &on));
        let named = self.record.tables.iter().enumerate().map(|(at, name)| (new(at), table(target, name)));
        sql.extend(rename(&strangers.into_iter().chain(named).collect::<Vec<_>>()));
        sql
    }

    /// The records that say no more once this one has begun. Whoever was told to drop one has dropped its schema.
    fn spent(&self, live: &Facts) -> Vec<(String, String)> {
        let there = self.unfinished.iter().filter(|names| live.schemas.contains(&names.scratch));
        there.map(|it| (table(&it.scratch, &it.record()), table(&it.scratch, &it.draft()))).collect()
    }

    fn drop_views(&self, live: &Facts) -> Vec<u8> {
        let drop = |view: &String| format!("DROP VIEW IF EXISTS {};\n", table(&self.names.target, view)).into_bytes();
        live.views.iter().filter(|view| !self.same.contains(*view)).flat_map(drop).collect()
    }

    /// Routines that differ are made anew; the others stay, and with them what is granted on them.
    fn routines(&self, live: &Facts, scratch: &Facts) -> Vec<u8> {
        let target = &self.names.target;
        let mut sql = Vec::new();
        for (kind, name, _) in live.routines.iter().filter(|routine| !scratch.routines.contains(routine)) {
            sql.extend(format!("DROP {kind} IF EXISTS {};\n", table(target, name)).into_bytes());
        }
        let stays = |made: &&Made| {
            let same = |(kind, name, _): &&(String, String, String)| *kind == made.kind && *name == made.name;
            scratch.routines.iter().find(same).is_some_and(|routine| live.routines.contains(routine))
        };
        let new: Vec<&Made> = self.record.of("routine").filter(|made| !stays(made)).collect();
        for made in &new {
            sql.extend(format!("DROP {} IF EXISTS {};\n", made.kind, table(target, &made.name)).into_bytes());
        }
        sql.extend(code::script(new, target, &self.record.charset, &|_| None));
        sql
    }

    /// Makes what comes after the tables. Can be done again.
    ///
    /// # Errors
    /// [`Kind::Tool`] when something could not be made; the tables stand.
    pub fn finish(&mut self) -> Result<()> {
        let (_, live, scratch) = self.stage()?;
        self.same = self.same_views(&live);
        // MySQL does not take a view for valid again, once its tables have been away, if its definer is not there.
        if let Some(before) = &self.broken {
            self.same.retain(|view| before.contains(view) || !live.broken.contains(view));
        }
        let mut sql = self.routines(&live, &scratch);
        for event in &live.events {
            sql.extend(format!("DROP EVENT IF EXISTS {};\n", table(&self.names.target, event)).into_bytes());
        }
        sql.extend(self.drop_views(&live));
        self.run(&sql)?;
        let views = self.record.of("view").filter(|view| !self.same.contains(&view.name)).cloned().collect();
        let place = (self.names.target.as_str(), self.record.charset.as_str());
        // What was excused beside it may be refused here, too, and will be the next time: then it alone is missing.
        let refused = views::make(self.tools, self.client, place, views, &self.cx, &views::lacks_rights)?;
        self.missing = refused.iter().map(|(view, _)| format!("view {}", view.name)).collect();
        self.notes.extend(refused.iter().map(|(view, error)| {
            let (name, said) = (&view.name, reasons::said(error));
            format!(
                "the view {name} is missing, for its definer, or that of what it stands on, lacks a right here: {said}"
            )
        }));
        let events = code::script(self.record.of("event"), &self.names.target, &self.record.charset, &|_| None);
        self.run(&events)?;
        // Without this word a backup would be refused for as long as the record stands.
        let record = table(&self.names.scratch, &self.names.record());
        let sql = format!("ALTER TABLE {record} COMMENT = {};\n", literal(FINISHED));
        match self.tools.run(self.client, None, sql.as_bytes(), &self.cx) {
            Err(error) if reasons::is_cut(&error) => Err(error),
            // Whoever has dropped the record needs no word on it.
            _ => Ok(()),
        }
    }

    /// Whether all of the new schema stands, and only what it replaced is still to be dropped: by the word for that, or, if
    /// whoever was to write it came to nothing, by what is there. What differed is made after it was dropped, but for events:
    /// until they are made the old ones are there, under the same names perhaps.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked.
    pub fn is_finished(&self) -> Result<bool> {
        let (stage, live, _) = self.stage()?;
        let events = !live.events.is_empty() || self.record.of("event").next().is_some();
        let routine =
            |made: &Made| live.routines.iter().any(|(kind, name, _)| *kind == made.kind && *name == made.name);
        if stage == Stage::Named
            && !events
            && self.record.of("routine").all(routine)
            && self.record.of("trigger").all(|made| live.triggers.contains(&made.name))
            && self.record.of("view").all(|made| live.views.contains(&made.name))
        {
            return Ok(true);
        }
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND TABLE_COMMENT = {};\n",
            literal(&self.names.scratch),
            literal(&self.names.record()),
            literal(FINISHED)
        );
        Ok(self.tools.rows::<u64>(self.client, &sql, &self.cx)?.first().is_some_and(|count| *count > 0))
    }

    /// Drops the replaced tables and the scratch, the record last; before that what is left of those whose place it took.
    ///
    /// # Errors
    /// [`Kind::Tool`] when they can't be dropped.
    pub fn clear(&self) -> Result<()> {
        let mut all: Vec<&str> = self.unfinished.iter().map(|names| names.scratch.as_str()).collect();
        all.extend([self.names.old.as_str(), self.names.scratch.as_str()]);
        self.drop_schemas(&all)
    }

    /// Drops the replaced tables alone.
    ///
    /// # Errors
    /// [`Kind::Tool`] when they can't be dropped.
    pub fn clear_replaced(&self) -> Result<()> {
        self.drop_schemas(&[&self.names.old])
    }

    fn drop_schemas(&self, names: &[&str]) -> Result<()> {
        let sql: String = names.iter().map(|name| format!("DROP DATABASE IF EXISTS {};\n", ident(name))).collect();
        self.tools.run(self.client, None, sql.as_bytes(), &self.cx).map(drop)
    }
}

/// One RENAME TABLE: all of it happens or nothing. In the form of a version comment, half of it is no statement, should
/// this process die while it hands it over.
fn rename(pairs: &[(String, String)]) -> Vec<u8> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let pairs: Vec<_> = pairs.iter().map(|(from, to)| format!("{from} TO {to}")).collect();
    format!("/*!50000 RENAME TABLE {} */;\n", pairs.join(", ")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_is_one_statement() {
        let sql = rename(&[("`a`.`x`".into(), "`b`.`x`".into()), ("`c`.`x`".into(), "`a`.`x`".into())]);
        assert_eq!(String::from_utf8_lossy(&sql), "/*!50000 RENAME TABLE `a`.`x` TO `b`.`x`, `c`.`x` TO `a`.`x` */;\n");
        assert!(rename(&[]).is_empty());
    }
}
