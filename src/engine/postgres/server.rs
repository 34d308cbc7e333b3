//! What a restore asks of the server and leaves on it. Flows in: the tools. Flows out: facts about the server and its
//! databases; a guard that drops the scratch. Touches the server.

use std::time::Duration;

use serde::Deserialize;

use super::reasons::{is_cut, is_full};
use super::sql::{ident, literal};
use super::swap::{self, LIVE, Live};
use super::tools::{Tools, for_cleanup};
use crate::engine::Cx;
use crate::engine::tools::patiently;
use crate::error::{Error, Kind, Result};

/// How long a server may take to make a database that nobody waits for.
const MAKES_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// What the server says before anything is done.
#[derive(Debug, Deserialize)]
pub struct Facts {
    /// Who we are.
    pub me: String,
    /// Whether we may do anything.
    pub superuser: bool,
    /// Whether we may create databases.
    pub createdb: bool,
    /// How many connections we may have, all in all; below zero: as many as we like.
    pub connections: i32,
    /// `server_version_num`.
    pub version: u32,
    /// Whether it is a replica.
    pub recovery: bool,
    /// The live database, if there is one.
    pub live: Option<Live>,
    /// Its prepared transactions.
    pub prepared: u64,
    /// Its logical replication slots.
    pub slots: Vec<String>,
    /// Its subscriptions.
    pub subscriptions: Vec<String>,
    /// All databases.
    pub databases: Vec<Other>,
}

/// A database of the server.
#[derive(Debug, Deserialize)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Its comment, or nothing.
    pub comment: String,
    /// How many sessions are in it.
    pub sessions: u64,
}

/// The scratch database: gone when this is dropped, unless it has taken its place.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// How the server is reached.
    pub tools: &'a Tools,
    /// For warnings and the clock.
    pub cx: &'a Cx,
    /// The database to drop it from.
    pub desk: &'static str,
    /// Its name.
    pub name: String,
    /// The server's `server_version_num`.
    pub server: u32,
    /// Whether it is no longer to be dropped.
    pub gone: bool,
    /// Whether the server has no room left.
    pub full: bool,
}

impl Scratch<'_> {
    /// Remembers a failure that tells how it is to be dropped.
    pub fn heed(&mut self, error: Error) -> Error {
        self.full |= is_full(&error);
        error
    }

    /// Waits until no session of the server makes it any more. One whose client is gone does not notice before the database
    /// is made; dropped earlier, it would be there afterwards.
    pub fn outlast(&self) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active' AND strpos(query, {}) > 0;\n",
            literal(&self.name)
        );
        let cx = for_cleanup(self.cx);
        let until = cx.world.clock.monotonic() + MAKES_WITHIN;
        while cx.world.clock.monotonic() < until {
            match patiently(&cx, is_cut, || self.tools.rows::<u64>(self.desk, &sql, &cx)) {
                Ok(busy) if busy.first() != Some(&0) => cx.world.clock.sleep(LOOKS_EVERY),
                _ => return,
            }
        }
    }

    /// Drops it now, whatever signal has come; a server that is away gets a moment.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be dropped.
    pub fn remove(&mut self) -> Result<()> {
        self.gone = true;
        if self.full {
            self.empty();
        }
        let sql = swap::drop_database(&self.name, self.server);
        let cx = for_cleanup(self.cx);
        patiently(&cx, is_cut, || drop_subscribed(self.tools, self.desk, &self.name, &sql, &cx))
    }

    /// Gives the room of what was loaded back to the server, table by table. To drop a database takes a checkpoint, and one
    /// that finds no room at all ends the whole server, which then can't come up again; to drop a table takes none.
    fn empty(&self) {
        let sql = format!("\\set ON_ERROR_STOP 0\n{EMPTY}");
        if let Err(error) = self.tools.run_sql(&self.name, &sql, &for_cleanup(self.cx)) {
            self.cx.report.detail(&format!("can't empty {}: {error}", self.name));
        }
    }
}

/// Drops all that is not the system's and takes room, the largest first, each by itself; what goes with another is gone by
/// then. Then, whether or not that could be done, all large objects.
const EMPTY: &str =
    "SELECT format('DROP %s IF EXISTS %s CASCADE', CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
  c.oid::regclass) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE relkind IN ('r', 'm', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY pg_total_relation_size(c.oid) DESC \\gexec
SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata;
VACUUM pg_largeobject;
";

/// Drops a database by these statements. One that has subscriptions can't be dropped before they are, and only a session
/// within it can do that. Their slots at the publisher stay: the database that takes its place may go on with them.
///
/// # Errors
/// [`Kind::Tool`] when it can't be dropped.
pub fn drop_subscribed(tools: &Tools, desk: &str, name: &str, sql: &str, cx: &Cx) -> Result<()> {
    let subscribes = |error: &Error| error.tail.iter().any(|line| line.contains("logical replication subscription"));
    match tools.run_sql(desk, sql, cx) {
        Err(error) if subscribes(&error) => {
            let open = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true;\n", ident(name));
            tools.run_sql(desk, &open, cx)?;
            tools.run_sql(name, UNSUBSCRIBE, cx)?;
            tools.run_sql(desk, sql, cx).map(drop)
        }
        dropped => dropped.map(drop),
    }
}

const UNSUBSCRIBE: &str =
    "SELECT format(statement, subname) FROM pg_subscription, (VALUES (1, 'ALTER SUBSCRIPTION %I DISABLE'),
  (2, 'ALTER SUBSCRIPTION %I SET (slot_name = NONE)'), (3, 'DROP SUBSCRIPTION %I')) AS steps (step, statement)
WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY subname, step \\gexec
";

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if !self.gone
            && let Err(error) = self.remove()
        {
            self.cx.report.warn(&format!(
                "can't drop the scratch database {}: {error}; a later restore does, or drop it by hand",
                self.name
            ));
        }
    }
}

/// Finds a database to work from, since nobody may be in the one that is renamed, and asks the server what there is.
///
/// # Errors
/// [`Kind::Tool`] when no such database lets us in.
pub fn ask(tools: &Tools, cx: &Cx) -> Result<(&'static str, Facts)> {
    let sql = format!(
        "SELECT json_build_object('me', current_user, 'superuser', r.rolsuper, 'createdb', r.rolcreatedb,
  'connections', CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END,
  'version', current_setting('server_version_num')::int, 'recovery', pg_is_in_recovery(),
  'live', (SELECT {LIVE} FROM pg_database d WHERE d.datname = {0}),
  'prepared', (SELECT count(*) FROM pg_prepared_xacts p WHERE p.database = {0}),
  'slots', (SELECT coalesce(json_agg(s.slot_name), '[]') FROM pg_replication_slots s WHERE s.database = {0}),
  'subscriptions', (SELECT coalesce(json_agg(s.subname), '[]') FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
    WHERE d.datname = {0}),
  'databases', (SELECT json_agg(json_build_object('name', d.datname,
    'comment', coalesce(shobj_description(d.oid, 'pg_database'), ''),
    'sessions', (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid))) FROM pg_database d))::jsonb::text
FROM pg_roles r WHERE r.rolname = current_user;",
        literal(&tools.place.database)
    );
    let mut first = None;
    for desk in ["postgres", "template1"].into_iter().filter(|desk| tools.elsewhere || *desk != tools.place.database) {
        match tools.rows::<Facts>(desk, &sql, cx) {
            Ok(rows) => {
                let facts = rows.into_iter().next();
                return facts
                    // What the URL of another server names serves to get in, and is no likeness of the backup's.
                    .map(|facts| (desk, Facts { live: facts.live.filter(|_| !tools.elsewhere), ..facts }))
                    .ok_or_else(|| Error::new(Kind::Tool, "the server does not say what databases it has"));
            }
            Err(error) if error.is_stopped() => return Err(error),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| Error::new(Kind::Tool, "no database to work from"))).map_err(|error| {
        error.while_doing("can't connect to the database postgres or template1, from which a restore is done")
    })
}
