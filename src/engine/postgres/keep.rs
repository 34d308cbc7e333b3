//! The database that a restore has replaced, kept under another name and closed to everybody. Flows in: the tools. Flows
//! out: what is kept, by name and mark; the SQL that keeps it and puts it back; one of them dropped. Touches the server.

use chrono::{DateTime, Utc};

use super::server::{ask, drop_subscribed};
use super::sql::{ident, literal};
use super::swap::{self, BEGIN, NAME_BYTES, Names};
use super::tools::Tools;
use crate::engine::{Cx, Previous};
use crate::error::Result;
use crate::format::time::{compact, parse_compact, rfc3339};

/// Between a database's name and the instant at which it was replaced.
const PREVIOUS: &str = "__previous_";
/// How long the instant is.
const INSTANT_BYTES: usize = 16;

/// What a replaced database of that name is called.
pub fn name(target: &str, instant: &str) -> String {
    format!("{}{PREVIOUS}{instant}", swap::cut(target, NAME_BYTES - PREVIOUS.len() - INSTANT_BYTES))
}

/// The names of a restore that keeps what it replaces, if it is to.
pub fn names(names: Names, keep: Option<DateTime<Utc>>) -> Names {
    match keep {
        Some(at) => Names { old: name(&names.target, &compact(at)), ..names },
        None => names,
    }
}

/// What the comment of a kept database says first: names of two databases may begin alike.
pub fn mark(target: &str, at: DateTime<Utc>) -> String {
    format!("voxeltron-backup: {target} as it was before a restore at {}", rfc3339(at))
}

/// When it was replaced, if it is a kept one of `target`: its name and the first line of its comment both say so.
fn since(target: &str, called: &str, comment: &str) -> Option<DateTime<Utc>> {
    let at = parse_compact(called.rsplit_once(PREVIOUS)?.1)?;
    let rest = comment.strip_prefix(&mark(target, at))?;
    (called == name(target, &compact(at)) && rest.starts_with("\n{")).then_some(at)
}

/// What becomes of the database that is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It is dropped at once, and marked so that it is swept if it can't be.
    Gone(String),
    /// It stays, closed, under this mark and with what it takes to open it again.
    Kept(String),
}

impl Leave {
    /// The statements for the database that is now called `old`.
    pub fn sql(&self, old: &str) -> String {
        match self {
            Self::Gone(mark) => format!("COMMENT ON DATABASE {} IS {};\n", ident(old), literal(mark)),
            Self::Kept(mark) => close(old, mark),
        }
    }
}

/// Its own comment goes with ours, for there is no other place that a rename takes along.
fn close(old: &str, mark: &str) -> String {
    let (old, mark) = (literal(old), literal(mark));
    format!(
        r"SELECT statement FROM (
  SELECT 1 AS step, format('COMMENT ON DATABASE %I IS %L', datname, {mark} || chr(10) || json_build_object('open', datallowconn,
    'comment', shobj_description(oid, 'pg_database'))::text) AS statement FROM pg_database WHERE datname = {old}
  UNION ALL SELECT 2, format('ALTER DATABASE %I ALLOW_CONNECTIONS false', datname) FROM pg_database WHERE datname = {old}
) AS statements ORDER BY step
\gexec
"
    )
}

const OPEN: &str = r"SELECT statement FROM (
  SELECT 1 AS step, format('COMMENT ON DATABASE %I IS %L', datname, was ->> 'comment') AS statement, was FROM kept
  UNION ALL SELECT 2, format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname), was FROM kept WHERE (was ->> 'open')::boolean
) AS statements ORDER BY step
\gexec
";

/// One transaction that puts a kept database, here `names.scratch` under that `mark`, back into the place that it was taken
/// from, with all that it had. What stands there, if anything does, becomes `names.old`.
pub fn exchange(names: &Names, mark: &str, replaces: bool, leave: &Leave) -> String {
    let (kept, target, old) = (ident(&names.scratch), ident(&names.target), ident(&names.old));
    let mut sql = BEGIN.to_owned();
    if replaces {
        sql += &format!("ALTER DATABASE {target} RENAME TO {old};\n");
    }
    sql += &format!(
        "ALTER DATABASE {kept} RENAME TO {target};\nWITH kept AS (SELECT datname, substr(comment, length({}) + 2)::json AS was \
         FROM (SELECT datname, shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = {}) \
         AS d)\n{OPEN}",
        literal(mark),
        literal(&names.target)
    );
    if replaces {
        sql += &leave.sql(&names.old);
    }
    sql + "COMMIT;\n"
}

/// All that is kept of the tools' database.
///
/// # Errors
/// [`crate::error::Kind::Tool`] when the server can't be asked.
pub fn all(tools: &Tools, cx: &Cx) -> Result<Vec<Previous>> {
    let (_, facts) = ask(tools, cx)?;
    let target = &tools.place.database;
    let kept = facts
        .databases
        .into_iter()
        .filter_map(|other| Some(Previous { since: since(target, &other.name, &other.comment)?, name: other.name }));
    Ok(kept.collect())
}

/// Drops one of them.
///
/// # Errors
/// [`crate::error::Kind::Tool`] when it can't be dropped.
pub fn forget(tools: &Tools, previous: &Previous, cx: &Cx) -> Result<()> {
    let (desk, facts) = ask(tools, cx)?;
    let target = &tools.place.database;
    let is_it = |name: &str, comment: &str| name == previous.name && since(target, name, comment).is_some();
    if !facts.databases.iter().any(|other| is_it(&other.name, &other.comment)) {
        return Ok(());
    }
    drop_subscribed(tools, desk, &previous.name, &drop_sql(&previous.name, facts.version), cx)
}

/// The statements that drop a database which may be a template.
pub fn drop_sql(name: &str, server: u32) -> String {
    format!("ALTER DATABASE {} IS_TEMPLATE false;\n{}", ident(name), swap::drop_database(name, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_database_is_known_by_name_and_mark() {
        let at = parse_compact("20260225T120000Z").unwrap();
        for target in ["db", &"ü".repeat(31), &"x".repeat(63), "a b\"c\nd", "x__previous_20260225T120000Z"] {
            let called = name(target, &compact(at));
            assert!(called.len() <= NAME_BYTES, "{called}");
            let comment = format!("{}\n{{}}", mark(target, at));
            assert_eq!(since(target, &called, &comment), Some(at));
            assert_eq!(since(target, &called, "precious\n{}"), None);
            assert_eq!(since(target, &called, &mark(target, at)), None, "without what it takes to open it");
            assert_eq!(since("other", &called, &comment), None);
            assert_eq!(since(target, &called.replace("12", "13"), &comment), None);
        }
        // Of two that are cut alike, the mark says which it is.
        let (one, two) = (format!("{}1", "x".repeat(62)), format!("{}2", "x".repeat(62)));
        assert_eq!(name(&one, &compact(at)), name(&two, &compact(at)));
        assert_eq!(since(&two, &name(&one, &compact(at)), &format!("{}\n{{}}", mark(&one, at))), None);
    }
}
