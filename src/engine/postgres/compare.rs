//! Is everything there that the backup holds? Flows in: a loaded scratch database and what is expected of it. Flows out:
//! its counts, or the table that differs. Touches the server, reading.

use super::archive::{Archive, LARGE_OBJECTS};
use super::sql::{ident, literal, table_key};
use super::tools::Tools;
use crate::engine::{Counts, Cx, Request};
use crate::error::{Error, Kind, Result};

/// Counts what has been loaded and compares it with what the archive held, and with what was counted when the dump
/// was made.
///
/// # Errors
/// [`Kind::Tool`] when a table or its rows are missing.
pub fn compare(tools: &Tools, scratch: &str, archive: &Archive, request: &Request, cx: &Cx) -> Result<Counts> {
    let held = |key: &String| archive.counts().contains_key(key) || request.expected.contains_key(key);
    let mut tables: Vec<(String, String, bool, bool)> = tools.rows(scratch, TABLES, cx)?;
    // A foreign table's rows are another server's, unless the dump was told to hold them.
    tables.retain(|(schema, table, _, foreign)| !foreign || held(&table_key(schema, table)));
    let mut sql = format!(
        "SELECT json_build_array({}, (SELECT count(*) FROM pg_largeobject_metadata));\n",
        literal(LARGE_OBJECTS)
    );
    for (schema, table, ..) in &tables {
        sql += &format!(
            "SELECT json_build_array({}, (SELECT count(*) FROM ONLY {}.{}));\n",
            literal(&table_key(schema, table)),
            ident(schema),
            ident(table)
        );
    }
    let rows: Vec<(String, u64)> = tools.rows(scratch, &sql, cx)?;
    let mut counts: Counts = rows.into_iter().map(|(key, count)| (key, Some(count))).collect();
    if counts.get(LARGE_OBJECTS) == Some(&Some(0)) && !archive.counts().contains_key(LARGE_OBJECTS) {
        counts.remove(LARGE_OBJECTS);
    }
    // An extension fills its tables itself, and the dump holds only what was added.
    let filled: Vec<String> =
        tables.iter().filter(|(_, _, extension, _)| *extension).map(|(s, t, ..)| table_key(s, t)).collect();
    let expected = archive.counts().iter().chain(&request.expected);
    for (key, count) in expected.filter_map(|(key, count)| Some((key, (*count)?))) {
        match counts.get(key).copied().flatten() {
            Some(loaded) if loaded == count => {}
            Some(_) if filled.contains(key) => {}
            Some(loaded) => return Err(differs(key, &loaded.to_string(), count)),
            None => return Err(differs(key, "no", count)),
        }
    }
    Ok(counts)
}

fn differs(key: &str, loaded: &str, expected: u64) -> Error {
    let what = if key == LARGE_OBJECTS { key.to_owned() } else { format!("rows in table {key}") };
    Error::new(Kind::Tool, format!("after the load there are {loaded} {what}, the backup holds {expected}"))
        .hint("the live database is unchanged; verify this backup, or restore another")
}

/// All tables, whether an extension made them, and whether they are foreign. Names in a database without an encoding are
/// left alone when they are not ASCII: they may be in any.
const TABLES: &str = "SELECT json_build_array(n.nspname, c.relname,
  EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'),
  c.relkind = 'f')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (getdatabaseencoding() <> 'SQL_ASCII' OR n.nspname || c.relname ~ '^[ -~]*$')
AND c.relkind IN ('r', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1::text;";
