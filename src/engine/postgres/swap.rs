//! The SQL of a restore, as text: the scratch database, the swap, what is carried over, what is dropped. Flows in: names
//! and facts. Flows out: scripts for `psql`. Touches nothing.
//!
//! Whatever an archive says is run by `\gexec` on a literal: so it reaches the server as SQL and can't hold commands for
//! `psql`, which has some that start programs.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;

use super::archive::contents::DatabaseEntries;
use super::keep::Leave;
use super::sql::{ident, literal};
use crate::error::{Error, Kind, Result};

/// The longest name the server keeps, in bytes; it cuts longer ones without an error.
pub const NAME_BYTES: usize = 63;
/// Between a database's name and the random end of its scratch's.
const RESTORING: &str = "__restoring_";
/// Between a database's name and the random end of what it was called after it had been replaced.
const OLD: &str = "__old_";
/// How many hex digits the random end has.
const RANDOM_DIGITS: usize = 8;
/// The oldest server that can drop a database together with its sessions.
const DROP_WITH_FORCE: u32 = 130_000;

/// The scratch's name, the name of what it replaces, and what their comments say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What is being loaded.
    pub scratch: String,
    /// What the replaced database is called until it is dropped.
    pub old: String,
    /// What it will be called.
    pub target: String,
}

impl Names {
    /// For a restore to `target`.
    pub fn new(target: &str, random: &str) -> Self {
        let name = |middle: &str| format!("{}{middle}{random}", shorten(target, middle));
        Self { scratch: name(RESTORING), old: name(OLD), target: target.to_owned() }
    }
}

fn shorten<'a>(target: &'a str, middle: &str) -> &'a str {
    cut(target, NAME_BYTES - RANDOM_DIGITS - middle.len())
}

/// As much of a name as fits into so many bytes.
pub fn cut(target: &str, bytes: usize) -> &str {
    let mut end = target.len().min(bytes);
    while !target.is_char_boundary(end) {
        end -= 1;
    }
    target.get(..end).unwrap_or_default()
}

/// What a scratch's mark ends with if a session of its restore's holds its lock: see [`super::alive`].
const ANSWERED_FOR: &str = ", unless its session is still there";

/// The comment that marks a database of ours that must not stay.
pub fn mark(target: &str, now: DateTime<Utc>) -> String {
    format!("{}{}", mark_start(target), now.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The comment of a scratch while a session holds its lock.
pub fn mark_answered_for(target: &str, now: DateTime<Utc>) -> String {
    mark(target, now) + ANSWERED_FOR
}

fn mark_start(target: &str) -> String {
    format!("voxeltron-backup: left by a restore of {target} since ")
}

/// Whether a database is called like a scratch of `target`.
pub fn is_scratch(target: &str, name: &str) -> bool {
    let cut_at = name.len().saturating_sub(RANDOM_DIGITS);
    let random = name.get(cut_at..).unwrap_or_default();
    random.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && Names::new(target, random).scratch == name
}

/// What a restore has left or is at work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Whether it was replaced, and is no scratch that never came into use.
    pub replaced: bool,
    /// Whether a session holds its lock as long as its restore lives.
    pub answered_for: bool,
    /// When that restore began.
    pub since: DateTime<Utc>,
}

/// Whether a database is a restore's of `target`: its name and our mark in its comment both say so.
pub fn left_behind(target: &str, name: &str, comment: &str) -> Option<Left> {
    let ours = |middle: &str| {
        let random = name.strip_prefix(shorten(target, middle)).and_then(|rest| rest.strip_prefix(middle));
        random.is_some_and(|random| {
            random.len() == RANDOM_DIGITS && random.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    };
    let replaced = if ours(RESTORING) {
        false
    } else if ours(OLD) {
        true
    } else {
        return None;
    };
    let since = comment.strip_prefix(&mark_start(target))?;
    let (since, answered_for) = match since.strip_suffix(ANSWERED_FOR) {
        Some(since) => (since, true),
        None => (since, false),
    };
    Some(Left { replaced, answered_for, since: DateTime::parse_from_rfc3339(since).ok()?.with_timezone(&Utc) })
}

/// What can't be changed once a database is made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Live {
    /// Its owner.
    pub owner: String,
    /// Whether we may act for the owner.
    pub ours: bool,
    encoding: String,
    /// Only if it isn't the template's: to name one takes a right to it.
    tablespace: Option<String>,
    collate: String,
    ctype: String,
    /// `c` (libc), `i` (ICU) or `b` (builtin); absent before PostgreSQL 15.
    provider: Option<String>,
    locale: Option<String>,
    rules: Option<String>,
}

/// A SELECT expression that gives a [`Live`] as JSON, from `d`, a row of `pg_database`. Columns that only some versions
/// have are taken from the whole row as JSON.
pub const LIVE: &str = "json_build_object(
    'owner', pg_get_userbyid(d.datdba), 'ours', pg_has_role(d.datdba, 'USAGE'),
    'encoding', pg_encoding_to_char(d.encoding),
    'tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace
      AND t.oid <> (SELECT dattablespace FROM pg_database WHERE datname = 'template0')),
    'collate', d.datcollate, 'ctype', d.datctype, 'provider', to_json(d) ->> 'datlocprovider',
    'locale', coalesce(to_json(d) ->> 'datlocale', to_json(d) ->> 'daticulocale'),
    'rules', to_json(d) ->> 'daticurules')";

impl Live {
    /// The statement that makes a database just like it, empty. Where we may not act for its owner it is ours.
    pub fn create(&self, scratch: &str, server: u32) -> String {
        let owner = if self.ours { format!(" OWNER {}", ident(&self.owner)) } else { String::new() };
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0{owner} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            ident(scratch),
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype)
        );
        let locale = self.locale.as_deref().map(literal);
        match (self.provider.as_deref(), locale) {
            (Some("i"), Some(locale)) => sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}"),
            (Some("b"), Some(locale)) => sql += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
            (Some("c"), _) => sql += " LOCALE_PROVIDER libc",
            _ => {}
        }
        if let Some(rules) = &self.rules {
            sql += &format!(" ICU_RULES {}", literal(rules));
        }
        if let Some(tablespace) = &self.tablespace {
            sql += &format!(" TABLESPACE {}", ident(tablespace));
        }
        sql + strategy(server) + ";\n"
    }
}

/// As a copy of files: the other way leaves holes in them that are filled later, and on a full disk can't be. A checkpoint
/// comes with it, as it does when the scratch or what it replaces is dropped.
fn strategy(server: u32) -> &'static str {
    if server >= 150_000 { " STRATEGY file_copy" } else { "" }
}

/// The statements that make an empty database as the archive describes its own; the owner only if `with_owner`.
///
/// # Errors
/// [`Kind::Tool`] when the archive holds no such description.
pub fn create_as_archived(entries: &DatabaseEntries, scratch: &str, with_owner: bool, server: u32) -> Result<String> {
    let rest = entries.create.strip_prefix("CREATE DATABASE ").and_then(after_ident).ok_or_else(|| {
        Error::new(Kind::Tool, "the dump does not say how its database was made")
            .hint("create an empty database of that name first, then restore in its place")
    })?;
    let rest = rest.trim().trim_end_matches(';');
    let mut sql = run_as_is(&format!("CREATE DATABASE {} {rest}{};", ident(scratch), strategy(server)));
    if with_owner && !entries.owner.is_empty() {
        sql += &format!("ALTER DATABASE {} OWNER TO {};\n", ident(scratch), ident(&entries.owner));
    }
    Ok(sql)
}

fn after_ident(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else { return text.split_once(' ').map(|(_, rest)| rest) };
    let mut rest = quoted;
    loop {
        rest = rest.split_once('"')?.1;
        match rest.strip_prefix('"') {
            Some(more) => rest = more,
            None => return Some(rest),
        }
    }
}

fn run_as_is(statement: &str) -> String {
    format!("SELECT {}\\gexec\n", literal(statement))
}

/// Marks the scratch as ours and keeps everybody else out of it: the live database may be closed to others, and its
/// data must not stand open while they load.
pub fn claim(names: &Names, mark: &str) -> String {
    let scratch = ident(&names.scratch);
    format!("COMMENT ON DATABASE {scratch} IS {};\nREVOKE ALL ON DATABASE {scratch} FROM PUBLIC;\n", literal(mark))
}

/// Where the properties of the new database come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Properties<'a> {
    /// From a database of this server, by name.
    Live(&'a str),
    /// From the archive.
    Archive(&'a DatabaseEntries),
}

/// How an exchange begins.
pub const BEGIN: &str = "SET lock_timeout = '10s';\nBEGIN ISOLATION LEVEL READ COMMITTED;\n";

/// One transaction that puts the scratch in its place, with its properties. Before its COMMIT nothing has changed, and a
/// crash leaves nothing changed. `replaces`: whether there is a database in that place.
pub fn swap(names: &Names, replaces: bool, properties: Properties<'_>, leave: &Leave) -> String {
    let (scratch, target, old) = (ident(&names.scratch), ident(&names.target), ident(&names.old));
    let mut sql = BEGIN.to_owned();
    if replaces {
        sql += &format!("ALTER DATABASE {target} RENAME TO {old};\n");
    }
    sql += &format!("ALTER DATABASE {scratch} RENAME TO {target};\n");
    match properties {
        Properties::Live(source) => {
            let source = if replaces && source == names.target { &names.old } else { source };
            sql += &carry(source, &names.target);
        }
        Properties::Archive(entries) => {
            sql += &format!(
                "COMMENT ON DATABASE {target} IS NULL;\nGRANT CONNECT, TEMPORARY ON DATABASE {target} TO PUBLIC;\n"
            );
            // They name the database by the name it had, so they fit only if that is the name it gets.
            if entries.name == names.target {
                let conforming = if entries.backslashes_doubled { "off" } else { "on" };
                sql += &format!("SET LOCAL standard_conforming_strings = {conforming};\n");
                sql.extend(entries.properties.iter().map(|statement| run_as_is(statement)));
            }
        }
    }
    if replaces {
        sql += &leave.sql(&names.old);
    }
    sql + "COMMIT;\n"
}

/// Gives `target` every property of `source` that a new database lacks. The statements are made by the server from its
/// own catalog, inside the transaction of the swap. Grants are taken from the access list itself: one that equals the
/// default stands in no dump, but a revoked one must not come back.
fn carry(source: &str, target: &str) -> String {
    CARRY.replace("{source}", &literal(source)).replace("{target}", &literal(target))
}

const CARRY: &str = r#"WITH d AS (SELECT *, {target}::text AS target FROM pg_database WHERE datname = {source}),
acl AS (SELECT d.*, a.*, pg_get_userbyid(a.grantor) AS by_whom,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS to_whom
  FROM d, aclexplode(coalesce(datacl, acldefault('d', datdba)))
    WITH ORDINALITY AS a (grantor, grantee, privilege_type, is_grantable, place)),
setting AS (SELECT d.target, s.setrole, split_part(c.c, '=', 1) AS name, substr(c.c, strpos(c.c, '=') + 1) AS value, c.place
  FROM d JOIN pg_db_role_setting s ON s.setdatabase = d.oid, unnest(s.setconfig) WITH ORDINALITY AS c (c, place))
SELECT statement FROM (
  SELECT 1 AS step, 0 AS place, format('REVOKE ALL ON DATABASE %I FROM PUBLIC; REVOKE ALL ON DATABASE %I FROM %I',
    target, target, pg_get_userbyid(datdba)) AS statement FROM d
  UNION ALL
  SELECT CASE WHEN grantor = datdba THEN 2 ELSE 3 END, place,
    CASE WHEN grantor = datdba THEN '' ELSE format('SET LOCAL ROLE %I; ', by_whom) END
    || format('GRANT %s ON DATABASE %I TO %s', privilege_type, target, to_whom)
    || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    || CASE WHEN grantor = datdba THEN '' ELSE '; RESET ROLE' END FROM acl
  UNION ALL
  SELECT 4, 0, format('COMMENT ON DATABASE %I IS %L', target, shobj_description(oid, 'pg_database')) FROM d
  UNION ALL
  SELECT 4, 1, format('SECURITY LABEL FOR %I ON DATABASE %I IS %L', l.provider, target, l.label)
    FROM d JOIN pg_shseclabel l ON l.objoid = d.oid AND l.classoid = 'pg_database'::regclass
  UNION ALL
  SELECT 5, s.place, 'ALTER ' || CASE s.setrole WHEN 0 THEN format('DATABASE %I', target)
      ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(s.setrole), target) END
    || format(' SET %I TO ', s.name)
    || CASE WHEN lower(s.name) IN ('local_preload_libraries', 'search_path', 'session_preload_libraries',
        'shared_preload_libraries', 'temp_tablespaces', 'unix_socket_directories')
      THEN coalesce((SELECT string_agg(quote_literal(coalesce(replace(m[1], '""', '"'), m[2])), ', ')
        FROM regexp_matches(s.value, '"((?:[^"]|"")*)"|([^",[:space:]]+)', 'g') AS m), '''''')
      ELSE quote_literal(s.value) END FROM setting s
  UNION ALL
  SELECT 6, 0, format('ALTER DATABASE %I CONNECTION LIMIT %s', target, datconnlimit) FROM d
  UNION ALL
  SELECT 6, 1, format('ALTER DATABASE %I IS_TEMPLATE true', target) FROM d WHERE datistemplate
  UNION ALL
  SELECT 6, 2, format('ALTER DATABASE %I ALLOW_CONNECTIONS false', target) FROM d WHERE NOT datallowconn
) AS statements ORDER BY step, place
\gexec
"#;

/// Ends every session of these databases that we may end.
pub fn terminate(databases: &[&str]) -> String {
    let names: Vec<String> = databases.iter().map(|name| literal(name)).collect();
    format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity a, pg_roles me
WHERE a.datname IN ({}) AND a.pid <> pg_backend_pid() AND me.rolname = current_user
AND (me.rolsuper OR (NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid AND r.rolsuper)
  AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))));\n",
        names.join(", ")
    )
}

/// Drops a database together with its sessions.
pub fn drop_database(name: &str, server: u32) -> String {
    if server >= DROP_WITH_FORCE {
        format!("DROP DATABASE IF EXISTS {} WITH (FORCE);\n", ident(name))
    } else {
        format!("{}DROP DATABASE IF EXISTS {};\n", terminate(&[name]), ident(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-02-25T12:00:00Z").unwrap().with_timezone(&Utc)
    }

    #[test]
    fn names_fit_and_are_known_again() {
        for target in ["db", &"ü".repeat(31), &"x".repeat(63), "a b\"c", "€€€€€€€€€€€€€€€€€€€€€"]
        {
            let names = Names::new(target, "0123abcd");
            assert!(names.scratch.len() <= NAME_BYTES && names.old.len() <= NAME_BYTES, "{names:?}");
            let mark = mark(target, noon());
            let left = |replaced, answered_for| Some(Left { replaced, answered_for, since: noon() });
            assert_eq!(left_behind(target, &names.scratch, &mark), left(false, false));
            assert_eq!(left_behind(target, &names.old, &mark), left(true, false));
            assert_eq!(left_behind(target, &names.scratch, &mark_answered_for(target, noon())), left(false, true));
        }
    }

    #[test]
    fn what_is_not_marked_or_not_named_so_is_not_ours() {
        let mark = mark("db", noon());
        for (name, comment) in [
            ("db__old_0123abcd", "precious"),
            ("db__old_0123abcd", ""),
            ("db__old_0123ABCD", &mark),
            ("db__old_0123abc", &mark),
            ("db2__old_0123abcd", &mark),
            ("db", &mark),
            ("other__old_0123abcd", &mark),
            ("db__old_0123abcd", "voxeltron-backup: left by a restore of db2 since 2026-02-25T12:00:00Z"),
        ] {
            assert_eq!(left_behind("db", name, comment), None, "{name} {comment}");
        }
    }

    #[test]
    fn a_scratch_is_known_by_its_name() {
        for name in ["db__restoring_0123abcd", "db__restoring_00000000"] {
            assert!(is_scratch("db", name), "{name}");
        }
        for name in
            ["db", "db__restoring_0123ABCD", "db__restoring_123abcd", "db__old_0123abcd", "dc__restoring_0123abcd", ""]
        {
            assert!(!is_scratch("db", name), "{name}");
        }
        let long = "ü".repeat(31);
        assert!(is_scratch(&long, &Names::new(&long, "0123abcd").scratch));
    }

    #[test]
    fn a_database_is_made_as_its_archive_says() {
        let create = |statement: &str| {
            let entries =
                DatabaseEntries { create: statement.into(), owner: "o\"x".into(), ..DatabaseEntries::default() };
            create_as_archived(&entries, "s", true, 140_000)
        };
        let plain = create("CREATE DATABASE t1 WITH TEMPLATE = template0 ENCODING = 'UTF8';\n").unwrap();
        assert_eq!(
            plain,
            "SELECT 'CREATE DATABASE \"s\" WITH TEMPLATE = template0 ENCODING = ''UTF8'';'\\gexec\n\
             ALTER DATABASE \"s\" OWNER TO \"o\"\"x\";\n"
        );
        let quoted = create("CREATE DATABASE \"a \"\" WITH b\" WITH TEMPLATE = template0;").unwrap();
        assert!(quoted.starts_with("SELECT 'CREATE DATABASE \"s\" WITH TEMPLATE = template0;'\\gexec\n"), "{quoted}");
        assert!(create("").is_err() && create("DROP DATABASE x;").is_err() && create("CREATE DATABASE \"x").is_err());
    }

    #[test]
    fn an_archive_has_no_way_to_give_commands_to_psql() {
        let evil = "COMMENT ON DATABASE t IS 'x';\n\\! touch /tmp/owned\n".to_owned();
        let entries = DatabaseEntries { name: "t".into(), properties: vec![evil], ..DatabaseEntries::default() };
        let sql = swap(&Names::new("t", "0123abcd"), false, Properties::Archive(&entries), &Leave::Gone("m".into()));
        let line = sql.lines().find(|line| line.contains("touch")).unwrap();
        assert!(line.starts_with("\\\\! touch"), "the backslash is doubled within the literal: {line}");
        assert!(sql.contains("SELECT E'COMMENT ON DATABASE t IS ''x'';\n"), "{sql}");
    }

    #[test]
    fn the_swap_is_one_transaction() {
        let names = Names::new("db", "0123abcd");
        let sql = swap(&names, true, Properties::Live("db"), &Leave::Gone("m".into()));
        let order = [
            "BEGIN",
            "ALTER DATABASE \"db\" RENAME TO \"db__old_0123abcd\"",
            "ALTER DATABASE \"db__restoring_0123abcd\" RENAME TO \"db\"",
            "WHERE datname = 'db__old_0123abcd'",
            "COMMENT ON DATABASE \"db__old_0123abcd\" IS 'm'",
            "COMMIT;\n",
        ];
        let places: Vec<usize> = order.iter().map(|part| sql.find(part).expect(part)).collect();
        assert!(places.is_sorted(), "{sql}");
        assert_eq!(sql.matches("COMMIT;").count(), 1);
    }

    #[test]
    fn every_provider_is_made_again() {
        let row = |provider: &str, locale: &str| -> Live {
            serde_json::from_str(&format!(
                r#"{{"owner":"o","ours":true,"encoding":"UTF8","tablespace":"fast","collate":"C","ctype":"C",
                "provider":{provider},"locale":{locale},"rules":null}}"#
            ))
            .unwrap()
        };
        assert_eq!(
            row("null", "null").create("s", 140_000),
            "CREATE DATABASE \"s\" TEMPLATE template0 OWNER \"o\" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' \
             TABLESPACE \"fast\";\n"
        );
        assert!(row("\"c\"", "null").create("s", 150_000).contains(" LOCALE_PROVIDER libc "));
        assert!(row("\"i\"", "\"de-DE\"").create("s", 150_000).contains(" LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' "));
        assert!(
            row("\"b\"", "\"C.UTF-8\"")
                .create("s", 150_000)
                .contains(" LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' ")
        );
    }
}
