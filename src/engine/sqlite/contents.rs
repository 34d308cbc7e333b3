//! What is in a database: rows by table, and whether it is sound. Flows in: a connection. Flows out: counts, findings
//! that stop a restore, notes that don't. Only reads.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::connect::{self, Guard};
use crate::engine::Counts;
use crate::error::{Error, Kind, Result};

/// How many findings of a check are read; the rest is more of the same.
const FINDINGS: usize = 1_000;
/// From where on no more of an answer is read, in bytes: no check expects so much.
const ANSWER_BYTES: usize = 64 * 1024;
/// How many findings a message shows.
const SHOWN: usize = 5;

/// Rows by table. Virtual tables are named without a number, their shadow tables and SQLite's own are left out. So is
/// the number of a table that needs a collation of the application's.
pub(super) fn count(db: &Connection) -> rusqlite::Result<Counts> {
    tables(db)?
        .into_iter()
        .map(|(name, is_virtual)| {
            let rows = if is_virtual { None } else { count_table(db, &name)? };
            Ok((name, rows))
        })
        .collect()
}

/// Tables that are not SQLite's own, and whether they are virtual. A name that is not UTF-8 can't be a key.
fn tables(db: &Connection) -> rusqlite::Result<Vec<(String, bool)>> {
    let mut query = db.prepare(
        "SELECT name, type = 'virtual' FROM pragma_table_list
         WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let rows = query.query_map([], |row| {
        let name = row.get_ref(0)?.as_str().map(str::to_owned).ok();
        Ok((name, row.get(1)?))
    })?;
    rows.filter_map(|row| row.map(|(name, is_virtual)| Some((name?, is_virtual))).transpose()).collect()
}

fn count_table(db: &Connection, name: &str) -> rusqlite::Result<Option<u64>> {
    let table = quoted(name);
    // SQLite counts the smallest index; one with a collation of the application's can't be opened here.
    for way in ["", " NOT INDEXED"] {
        match db.query_row(&format!("SELECT count(*) FROM {table}{way}"), [], |row| row.get(0).map(i64::unsigned_abs)) {
            Err(error) if connect::is_foreign(&error) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The rows that a query of the user's gives: columns with `|` between them, a row a line, as SQLite's own shell prints them.
/// The connection can't write.
///
/// # Errors
/// [`Kind::Tool`] when the query is wrong or gives no rows by its nature.
pub(super) fn answer(db: &Connection, query: &str, guard: &Guard) -> Result<String> {
    let fail = |error: rusqlite::Error| connect::explain(&error, "the query fails", guard);
    let mut query = db.prepare(query).map_err(fail)?;
    let columns = query.column_count();
    if columns == 0 || !query.readonly() {
        return Err(Error::new(Kind::Tool, "the query reads nothing").hint("ask by a SELECT"));
    }
    let (mut rows, mut text) = (query.query([]).map_err(fail)?, String::new());
    while let Some(row) = rows.next().map_err(fail)?
        && text.len() < ANSWER_BYTES
    {
        for column in 0..columns {
            text.push_str(if column > 0 { "|" } else { "" });
            text.push_str(&shown(row.get_ref(column).map_err(fail)?));
        }
        text.push('\n');
    }
    Ok(text)
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Compares what was counted at dump time with what has been loaded.
///
/// # Errors
/// [`Kind::Tool`] that names the first table that differs.
pub(super) fn compare(expected: &Counts, loaded: &Counts) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (table, wanted) in expected {
        let differs = match (wanted, loaded.get(table)) {
            (Some(wanted), Some(Some(got))) if wanted != got => {
                format!("table {table} has {got} rows, the backup was taken with {wanted}")
            }
            (_, None) => format!("table {table} is missing"),
            (Some(_), Some(None)) => {
                notes.push(format!("the rows of table {table} can't be counted by this build"));
                continue;
            }
            _ => continue,
        };
        return Err(Error::new(Kind::Tool, format!("the loaded data is not what was backed up: {differs}"))
            .hint("restore another backup, and run verify on this one"));
    }
    Ok(notes)
}

/// Checks the whole structure, and the foreign keys. The notes are about data that the database had already let in
/// when it was backed up: that must not keep it from coming back.
///
/// # Errors
/// [`Kind::Tool`] when pages or indexes are damaged.
pub(super) fn check(db: &Connection, what: &str, guard: &Guard) -> Result<Vec<String>> {
    let (findings, mut notes) = match run_check(db, "integrity_check", None) {
        Err(error) if connect::is_foreign(&error) => check_each(db, what, guard)?,
        other => (other.map_err(|error| unreadable(&error, what, guard))?, Vec::new()),
    };
    let (about_data, damage): (Vec<String>, Vec<String>) = findings.into_iter().partition(|text| is_about_data(text));
    if !damage.is_empty() {
        return Err(damaged(what, &some_of(&damage)));
    }
    if !about_data.is_empty() {
        notes.push(format!("data that breaks its own schema was backed up and restored: {}", some_of(&about_data)));
    }
    notes.extend(foreign_keys(db, guard)?);
    Ok(notes)
}

/// An error of a backup's database: damage is said as such, whatever finds it.
pub(super) fn unreadable(error: &rusqlite::Error, what: &str, guard: &Guard) -> Error {
    match guard.check() {
        Ok(()) if connect::is_broken(error) => damaged(what, &connect::reason(error)),
        _ => connect::explain(error, format!("can't read {what}"), guard),
    }
}

fn damaged(what: &str, why: &str) -> Error {
    Error::new(Kind::Tool, format!("{what} is damaged: {why}"))
        .hint("restore an older backup, or write this one with --output and try `sqlite3 FILE .recover`")
}

/// Checks table by table, for where one needs a function, a collation or a module that only the application has.
fn check_each(db: &Connection, what: &str, guard: &Guard) -> Result<(Vec<String>, Vec<String>)> {
    let fail = |error: rusqlite::Error| unreadable(&error, what, guard);
    let (mut findings, mut notes) = (Vec::new(), Vec::new());
    for (table, _) in tables(db).map_err(fail)? {
        match run_check(db, "integrity_check", Some(&table)) {
            Ok(found) => findings.extend(found),
            Err(error) if connect::is_foreign(&error) => {
                notes.push(format!("table {table} can't be checked here: {}", connect::reason(&error)))
            }
            Err(error) => return Err(fail(error)),
        }
    }
    Ok((findings, notes))
}

/// The findings of a check, none when all is well.
pub(super) fn run_check(db: &Connection, pragma: &str, table: Option<&str>) -> rusqlite::Result<Vec<String>> {
    let argument = table.map_or_else(|| FINDINGS.to_string(), quoted);
    let mut query = db.prepare(&format!("PRAGMA {pragma}({argument})"))?;
    let rows = query.query_map([], |row| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned()))?;
    rows.filter(|row| !matches!(row, Ok(text) if text == "ok")).collect()
}

/// Whether a finding is about what applications wrote, not about pages: a constraint that was added later, a value of
/// another type, a full-text index that can be rebuilt.
pub(super) fn is_about_data(finding: &str) -> bool {
    let value = finding.split_once(" value in ").is_some_and(|(kind, _)| {
        matches!(
            kind.strip_prefix("non-").unwrap_or(kind),
            "NULL" | "NUMERIC" | "TEXT" | "INT" | "INTEGER" | "REAL" | "BLOB" | "ANY"
        )
    });
    value
        || finding.starts_with("CHECK constraint failed in ")
        || finding.starts_with("malformed inverted index for FTS")
        || finding.starts_with("unable to validate the inverted index for FTS")
}

fn some_of(findings: &[String]) -> String {
    let mut shown: Vec<String> = findings.iter().take(SHOWN).map(|text| text.replace('\n', " ")).collect();
    if findings.len() > SHOWN {
        shown.push(format!("and {} more", findings.len() - SHOWN));
    }
    shown.join("; ")
}

/// Rows that break a foreign key. Only a note: SQLite does not enforce keys unless the application asks for it.
fn foreign_keys(db: &Connection, guard: &Guard) -> Result<Option<String>> {
    let broken = db.query_row(
        &format!(
            "SELECT count(*), min(\"table\") FROM (SELECT \"table\" FROM pragma_foreign_key_check LIMIT {FINDINGS})"
        ),
        [],
        |row| Ok((row.get::<_, i64>(0)?.unsigned_abs() as usize, row.get::<_, Option<String>>(1)?)),
    );
    // A parent without a unique key, or a collation of the application's, makes it fail: that is no damage.
    guard.check()?;
    Ok(match broken {
        Ok((0, _)) => None,
        Ok((count, table)) => {
            let least = if count >= FINDINGS { "at least " } else { "" };
            let rows = if count == 1 { "1 row breaks" } else { &format!("{count} rows break") };
            let table = table.unwrap_or_default();
            Some(format!("{least}{rows} a foreign key, as when the backup was taken ({table} first)"))
        }
        Err(error) => Some(format!("the foreign keys could not be checked: {}", connect::reason(&error))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(sql).unwrap();
        db
    }

    fn guard() -> Guard {
        Guard::new(&crate::engine::Cx {
            world: crate::world::World::system(),
            report: crate::report::Report::default(),
            data_dir: std::path::PathBuf::from("/nowhere"),
            deadline: None,
        })
    }

    #[test]
    fn counts_tables_but_not_what_is_sqlites_own() {
        let db = database(
            "CREATE TABLE \"a\"\"b c\"(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO \"a\"\"b c\" VALUES(1),(2);
             CREATE TABLE sqlitely(x); CREATE VIEW v AS SELECT 1; CREATE INDEX i ON sqlitely(x); ANALYZE;
             CREATE TABLE w(k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO w VALUES('x');
             CREATE VIRTUAL TABLE f USING fts5(text);",
        );
        let expected = [("a\"b c", Some(2)), ("f", None), ("sqlitely", Some(0)), ("w", Some(1))];
        assert_eq!(count(&db).unwrap(), expected.map(|(name, rows)| (name.to_owned(), rows)).into());
    }

    #[test]
    fn a_difference_names_the_table_and_both_numbers() {
        let counts = |rows: &[(&str, Option<u64>)]| -> Counts {
            rows.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect()
        };
        let loaded = counts(&[("a", Some(1)), ("b", Some(2)), ("v", None)]);
        assert_eq!(compare(&counts(&[("a", Some(1)), ("v", None)]), &loaded).unwrap(), Vec::<String>::new());
        assert_eq!(
            compare(&counts(&[("b", Some(7))]), &loaded).unwrap_err().message,
            "the loaded data is not what was backed up: table b has 2 rows, the backup was taken with 7"
        );
        assert_eq!(
            compare(&counts(&[("c", Some(0))]), &loaded).unwrap_err().message,
            "the loaded data is not what was backed up: table c is missing"
        );
        assert_eq!(compare(&counts(&[("v", Some(3))]), &loaded).unwrap().len(), 1);
    }

    #[test]
    fn data_that_breaks_its_schema_is_a_note() {
        let db = database(
            "PRAGMA foreign_keys=OFF; CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);
             INSERT INTO c VALUES(7); CREATE TABLE t(a CHECK(a > 0)); PRAGMA ignore_check_constraints=ON;
             INSERT INTO t VALUES(-1); PRAGMA ignore_check_constraints=OFF;",
        );
        let notes = check(&db, "the copy", &guard()).unwrap();
        assert_eq!(
            notes,
            [
                "data that breaks its own schema was backed up and restored: CHECK constraint failed in t",
                "1 row breaks a foreign key, as when the backup was taken (c first)",
            ]
        );
    }

    #[test]
    fn findings_about_data_are_told_from_damage() {
        for text in
            ["NULL value in t.a", "non-INTEGER value in t.a", "NUMERIC value in t.b", "CHECK constraint failed in t"]
        {
            assert!(is_about_data(text), "{text}");
        }
        for text in
            ["row 1 missing from index i", "*** in database main ***\nPage 3: btreeInitPage() returns error code 11"]
        {
            assert!(!is_about_data(text), "{text}");
        }
    }
}
