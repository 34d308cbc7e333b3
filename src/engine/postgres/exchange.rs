//! The exchange: a loaded scratch, or a database that was kept, takes the place of the live one. Flows in: a restore that has
//! loaded and compared. Flows out: the database in its place, or everything as it was. Touches the server, through the tools.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::keep::{self, Leave};
use super::reasons::is_cut;
use super::restore::Restore;
use super::server::drop_subscribed;
use super::sql::literal;
use super::swap::{self, Properties};
use super::tools::for_cleanup;
use crate::engine::tools::patiently;
use crate::engine::{Cx, Destination, Step};
use crate::error::{Context, Kind, Result};
use crate::process::RestoreWriter;

/// How often sessions that stand in the way of the swap are ended.
const TERMINATE_EVERY: Duration = Duration::from_millis(20);
/// How often the swap is tried before it is given up.
const SWAP_TRIES: u32 = 5;

impl Restore<'_> {
    /// Puts the scratch in its place. It is short and deaf to signals: half-way there is nothing to be stopped.
    pub(super) fn swap(&mut self, destination: &Destination) -> Result<()> {
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
    pub(super) fn leave(&self) -> Leave {
        match self.keep {
            Some(at) => Leave::Kept(keep::mark(&self.names.target, at)),
            None => Leave::Gone(self.mark()),
        }
    }

    /// Runs the transaction that puts `names.scratch` in its place, against whoever is in the way, and again if the
    /// connection was cut before it was committed.
    pub(super) fn put(&self, sql: &str, replaces: bool) -> Result<()> {
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
    pub(super) fn dismiss(&mut self, replaces: bool) {
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
        if !self.facts.subscriptions.is_empty() {
            self.notes.push(format!(
                "the replaced database had subscriptions ({}); those in the backup are restored disabled: ALTER SUBSCRIPTION … \
                 ENABLE, then REFRESH PUBLICATION",
                self.facts.subscriptions.join(", ")
            ));
        }
        if self.keep.is_some() {
            return;
        }
        self.cx.begins(Step::Tidy, "dropping the replaced database");
        let sql = keep::drop_sql(&self.names.old, self.facts.version);
        if let Err(error) =
            patiently(self.cx, is_cut, || drop_subscribed(self.tools, self.desk, &self.names.old, &sql, self.cx))
        {
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
