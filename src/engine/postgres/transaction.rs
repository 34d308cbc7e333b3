//! A restore by a role that may not create databases: everything in one transaction of the live database. Flows in: a whole
//! backup that has authenticated, kept on this host. Flows out: the database as the backup has it, or as it was. Touches the
//! server, through the tools.
//!
//! `pg_restore` writes the archive as SQL, which goes to one session of `psql` between our own: before it everything that the
//! role owns is dropped, after it the rows are counted. COMMIT is written only when both tools have ended well with all of it;
//! a session that ends without, however it ends, has changed nothing.

use std::io::{Read, Write};
use std::time::Duration;

use serde::Deserialize;

use super::archive::{Archive, LARGE_OBJECTS};
use super::reasons::is_cut;
use super::server::Facts;
use super::spool::Spool;
use super::sql::{ident, literal, split_key};
use super::swap;
use super::tools::{PREAMBLE, Tools};
use crate::engine::{Counts, Cx, Destination, Keep, Request, Restored, Step};
use crate::error::{Context, Error, Kind, Result};
use crate::process::{self, DumpReader, Invocation, RestoreWriter};

/// How much of the SQL is handled at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// How psql's message ends when a statement was refused: the connection was good to the end.
const SCRIPT_FAILED: &str = "failed with exit status 3";
/// How long a lock of somebody else's is waited for.
pub const LOCK_WAIT: Duration = Duration::from_secs(60);
/// Within how many bytes of its script `pg_restore` says how it is to be run.
const HEAD_BYTES: usize = 2048;
/// How many things of others a message names.
const SHOWN: usize = 5;

/// Whether this is the way: in place of a database that is there, by a role that can't make another one.
pub fn is_the_way(facts: &Facts, destination: &Destination) -> bool {
    *destination == Destination::InPlace && facts.live.is_some() && !facts.superuser && !facts.createdb
}

/// Its steps, or why it will be refused.
pub fn plan(tools: &Tools, me: &str, cx: &Cx) -> Vec<String> {
    let live = &tools.place.database;
    if let Err(error) = look(tools, me, cx) {
        let mend = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        return vec![format!("nothing: it will be refused: {}{mend}", error.message)];
    }
    let psql = tools.sql(live, true).display();
    vec![
        format!("{me} may not create databases, so there is no scratch: everything happens in one transaction of {live}"),
        "read, authenticate and check the whole backup, kept in a file without a name in data_dir".to_owned(),
        format!("end other sessions of {live}, as far as {me} may: {psql}"),
        format!("BEGIN; drop everything in {live} that {me} owns"),
        format!("load the backup: {} | {psql}", script(tools, "BACKUP", None).display()),
        "compare the rows of every table with the backup; COMMIT. Until then other sessions wait for these tables; whatever \
         fails is rolled back"
            .to_owned(),
    ]
}

/// What is in the live database.
#[derive(Debug, Deserialize)]
struct Found {
    /// What others own.
    others: Vec<String>,
    /// Extensions of others, which stay.
    extensions: Vec<String>,
}

/// Refuses what can't end well, before anything is read.
fn look(tools: &Tools, me: &str, cx: &Cx) -> Result<Found> {
    let live = &tools.place.database;
    if tools.toolbox.runs_elsewhere() {
        let why = format!(
            "{me} may not create databases, and a transaction wants the backup in a file, which is not there where exec leads"
        );
        return Err(Error::new(Kind::Tool, why).hint(format!("as a superuser: ALTER ROLE {} CREATEDB", ident(me))));
    }
    let found: Vec<Found> = tools.rows(live, LOOK, cx)?;
    let found =
        found.into_iter().next().ok_or_else(|| Error::new(Kind::Tool, "the server does not say what is there"))?;
    if found.others.is_empty() {
        return Ok(found);
    }
    let some = found.others.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let why = format!(
        "{me} may not create databases, and in a transaction of {live} it can't replace what it does not own: {some}"
    );
    Err(Error::new(Kind::Tool, why)
        .hint(format!("as a superuser: ALTER ROLE {0} CREATEDB; or give these things to {0}", ident(me))))
}

/// Restores in one transaction, which waits `lock_wait` for each lock of somebody else's.
///
/// # Errors
/// The stream's own, or [`Kind::Tool`]; nothing has changed then.
pub fn restore(
    (tools, facts): (&Tools, &Facts),
    archive: &mut Archive,
    begun: &[u8],
    dump: &mut dyn Read,
    request: &Request,
    lock_wait: Duration,
    cx: &Cx,
) -> Result<Restored> {
    let live = &tools.place.database;
    let found = look(tools, &facts.me, cx)?;
    // The database itself can't stand aside: to rename it takes CREATEDB.
    request.keep.as_ref().map_or(Ok(()), Keep::room)?;
    cx.begins(Step::Load, &format!("reading the backup into {}", cx.data_dir.display()));
    let spool = Spool::read(begun, dump, archive, request.dump_bytes, cx)?;
    let list = without_extensions(tools, &spool, &found.extensions, cx)?;
    let script = script(tools, &spool.path(), list.as_ref().map(Spool::path).as_deref());
    cx.report.detail(&script.display());
    let mut counts = archive.counts().clone();
    counts.extend(request.expected.iter().map(|(key, count)| (key.clone(), *count)));
    request.keep.as_ref().map_or(Ok(()), Keep::take)?;
    cx.world.cancel.check().inspect_err(|_| request.untouched())?;
    cx.begins(
        Step::Swap,
        &format!("replacing all that is in {live}, and comparing its rows with the backup, in one transaction"),
    );
    let call = tools.sql(live, true);
    cx.report.detail(&call.display());
    let spawned = RestoreWriter::spawn(&call, cx.deadline, &cx.world);
    let mut psql = spawned.inspect_err(|_| request.untouched())?;
    let begin = begin(live, lock_wait);
    let outcome = feed(&mut psql, &begin, &script, [archive.counts(), &request.expected], cx);
    let commits = outcome.is_ok();
    let outcome = match outcome {
        Ok(()) => psql.finish().map(drop).map_err(|error| match is_cut(&error) {
            true => error.hint(format!(
                "the answer to COMMIT may be lost: {live} is all new or all old. Look which, or restore it again"
            )),
            false => error,
        }),
        Err(error) => {
            drop(psql);
            Err(error)
        }
    };
    let outcome = outcome.inspect_err(|error| {
        // Without its COMMIT the transaction is none; and psql says so when that was refused, or something before it.
        if !commits || error.message.ends_with(SCRIPT_FAILED) {
            request.untouched();
        }
    });
    outcome.map_err(|error| explain(tools.explain(error, live), live, lock_wait))?;
    let serial = if request.jobs.is_some() { ", and not in parallel" } else { "" };
    let mut notes =
        vec![format!("restored in a single transaction{serial}, since {} may not create databases", facts.me)];
    // It stands; that statistics are missing makes it no worse.
    if let Err(error) = tools.run_sql(live, "RESET search_path;\nANALYZE;\n", cx) {
        notes.push(format!("can't gather statistics: {error}; run ANALYZE yourself"));
    }
    Ok(Restored { counts, notes, missing: Vec::new() })
}

/// What comes before the backup.
fn begin(live: &str, lock_wait: Duration) -> String {
    format!(
        "{PREAMBLE}{}SET lock_timeout = {};\nBEGIN ISOLATION LEVEL READ COMMITTED;\nDO {};\n",
        swap::terminate(&[live]),
        lock_wait.as_millis(),
        literal(DROP_OWNED)
    )
}

/// Everything up to COMMIT, which follows only when all that comes before it has gone well.
fn feed(psql: &mut RestoreWriter, begin: &str, script: &Invocation, counts: [&Counts; 2], cx: &Cx) -> Result<()> {
    const WRITING: &str = "can't write to psql";
    let mut write = |text: &[u8]| psql.write_all(text).doing(Kind::Tool, WRITING);
    write(begin.as_bytes())?;
    let mut sql = DumpReader::spawn(script, cx.deadline, &cx.world)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at_head = true;
    loop {
        match sql.read(&mut piece).doing(Kind::Tool, "can't read the backup as SQL")? {
            0 => break,
            count => {
                let text = piece.get_mut(..count).unwrap_or_default();
                if std::mem::take(&mut at_head) {
                    keep_lock_timeout(text);
                }
                write(text)?;
            }
        }
    }
    let end = format!("RESET ROLE;\nSET client_encoding = 'UTF8';\n{PREAMBLE}DO {};\n", literal(&compare(counts)?));
    write(end.as_bytes())?;
    cx.world.cancel.check()?;
    write(b"COMMIT;\n")
}

/// Makes a comment of the line at the head of `pg_restore`'s script that would lift our limit: others may be about to make
/// what the backup holds, and ours would wait for their end with everything locked.
fn keep_lock_timeout(head: &mut [u8]) {
    const LIFTS: &[u8] = b"\nSET lock_timeout = 0;\n";
    let head = head.get_mut(..HEAD_BYTES.min(head.len())).unwrap_or_default();
    let at = head.windows(LIFTS.len()).position(|part| part == LIFTS);
    if let Some(line) = at.and_then(|at| head.get_mut(at.saturating_add(1)..at.saturating_add(3))) {
        line.copy_from_slice(b"--");
    }
}

/// The archive as SQL, to standard output.
fn script(tools: &Tools, file: &str, list: Option<&str>) -> Invocation {
    let list = list.map(|list| format!("--use-list={list}"));
    let call = tools.toolbox.call("pg_restore").var("LC_ALL", "C").args(["--file=-"]).args(list);
    call.args(&tools.toolbox.restore_args).args([file])
}

/// The archive's table of contents without extensions that stay, since they are others': not even their comments can be set.
fn without_extensions(tools: &Tools, spool: &Spool, staying: &[String], cx: &Cx) -> Result<Option<Spool>> {
    let call = tools.toolbox.call("pg_restore").args(["--list".to_owned(), spool.path()]);
    let text = process::run(&call, b"", cx.deadline, &cx.world)?;
    let text = String::from_utf8_lossy(&text);
    let stays = |line: &&str| {
        let entry = line.splitn(4, ' ').nth(3).unwrap_or_default();
        let name = ["EXTENSION - ", "COMMENT - EXTENSION "].iter().find_map(|sort| entry.strip_prefix(sort));
        name.is_some_and(|name| staying.iter().any(|other| name.trim_end() == other))
    };
    if !text.lines().any(|line| stays(&line)) {
        return Ok(None);
    }
    let kept = text.lines().filter(|line| !stays(line)).map(|line| format!("{line}\n")).collect::<String>();
    Spool::of(&kept, cx).map(Some)
}

/// A block that fails when a table has other rows than it must.
fn compare(counts: [&Counts; 2]) -> Result<String> {
    let mut sql = "DECLARE found bigint; BEGIN\n".to_owned();
    for (key, count) in counts.into_iter().flatten().filter_map(|(key, count)| Some((key, (*count)?))) {
        let (what, from, filled) = if key == LARGE_OBJECTS {
            (key.clone(), "pg_largeobject_metadata".to_owned(), "false".to_owned())
        } else {
            let (schema, table) = split_key(key)
                .ok_or_else(|| Error::new(Kind::Tool, format!("{key:?} is no name of a table with its schema")))?;
            let table = format!("{}.{}", ident(&schema), ident(&table));
            // An extension fills its tables itself, and the dump holds only what was added.
            let filled = format!(
                "EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.deptype = 'e' AND e.objid = {}::regclass)",
                literal(&table)
            );
            (format!("rows in table {key}"), format!("ONLY {table}"), filled)
        };
        sql += &format!(
            "SELECT count(*) INTO found FROM {from};\nIF found <> {count} AND NOT {filled} THEN\n  RAISE EXCEPTION USING \
             MESSAGE = 'after the load there are ' || found || {};\nEND IF;\n",
            literal(&format!(" {what}, the backup holds {count}"))
        );
    }
    Ok(sql + "END")
}

fn explain(error: Error, live: &str, lock_wait: Duration) -> Error {
    let said = error.tail.join("\n");
    if said.contains("lock timeout") {
        // The hint that is there is for who dumps.
        let error = Error { hint: None, ..error };
        let waited = format!("a lock of somebody else's in {live} was waited for {} s", lock_wait.as_secs_f64());
        return error.while_doing(waited).hint(format!(
            "others use {live} and can't be sent away by this role: stop them, restore.before can; nothing was changed"
        ));
    }
    if error.hint.is_some() && !error.tail.is_empty() {
        // That hint stands, and what became of the data is no less worth to know.
        return error.while_doing("nothing was changed");
    }
    match error.tail.is_empty() {
        true => error,
        false => error.hint(
            "the transaction was rolled back, and nothing was changed; a superuser's ALTER ROLE … CREATEDB \
                             opens the way through a scratch database",
        ),
    }
}

/// What in the database is not ours: neither can it be dropped, nor could the backup's take its place. What an extension or
/// another thing has made for itself comes and goes with that. A partitioned table has made its key's columns, not itself:
/// these have an `objsubid`.
const LOOK: &str = "WITH ours AS (SELECT oid FROM pg_roles WHERE pg_has_role(oid, 'USAGE')),
made AS (SELECT classid, objid FROM pg_depend WHERE deptype IN ('e', 'i') AND objsubid = 0),
things AS (
  SELECT 'pg_class'::regclass AS class, c.oid, relowner AS owner, c.oid::regclass::text AS name, relnamespace AS schema
  FROM pg_class c WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, oid::regprocedure::text, pronamespace FROM pg_proc
  UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner, 'schema ' || nspname, oid FROM pg_namespace WHERE nspname <> 'public'
  UNION ALL SELECT 'pg_type'::regclass, oid, typowner, oid::regtype::text, typnamespace FROM pg_type WHERE typtype IN ('d', 'e', 'r')
  UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner, 'large object ' || oid, 0 FROM pg_largeobject_metadata)
SELECT json_build_object(
  'others', (SELECT coalesce(json_agg(t.name || ' of ' || pg_get_userbyid(t.owner)), '[]') FROM things t
    LEFT JOIN pg_namespace n ON n.oid = t.schema
    WHERE t.owner NOT IN (SELECT oid FROM ours) AND (n.nspname IS NULL OR n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
    AND NOT EXISTS (SELECT FROM made WHERE made.classid = t.class AND made.objid = t.oid)),
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension
    WHERE extowner NOT IN (SELECT oid FROM ours)))::jsonb::text;";

/// Drops everything that the role, or one it is a member of, owns in this database. DROP OWNED would also take away what it
/// was granted, in other databases too. The list is made whole before the first drop; what goes with another is gone by then.
/// The schema public stays, as no dump makes it.
const DROP_OWNED: &str = "DECLARE statements text[]; statement text; BEGIN
SELECT array_agg(s.statement ORDER BY s.step, s.statement) INTO statements FROM (
  SELECT CASE i.type WHEN 'schema' THEN 3 WHEN 'extension' THEN 4 ELSE 5 END AS step,
    CASE i.type WHEN 'large object' THEN format('SELECT lo_unlink(%s)', d.objid)
      WHEN 'composite type' THEN format('DROP TYPE IF EXISTS %s CASCADE', i.identity)
      WHEN 'statistics object' THEN format('DROP STATISTICS IF EXISTS %s CASCADE', i.identity)
      WHEN 'foreign-data wrapper' THEN format('DROP FOREIGN DATA WRAPPER IF EXISTS %s CASCADE', i.identity)
      ELSE format('DROP %s IF EXISTS %s CASCADE', i.type, i.identity) END AS statement
  FROM pg_shdepend d, LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
  WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND d.deptype = 'o'
    AND d.refclassid = 'pg_authid'::regclass AND pg_has_role(d.refobjid, 'USAGE')
    AND i.type NOT IN ('default acl', 'user mapping') AND NOT (i.type = 'schema' AND i.identity = 'public')
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.objsubid = 0
      AND e.deptype IN ('e', 'i'))
  UNION ALL
  SELECT 1, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE ALL ON %s FROM %s', pg_get_userbyid(a.defaclrole),
    CASE a.defaclnamespace WHEN 0 THEN '' ELSE ' IN SCHEMA ' || a.defaclnamespace::regnamespace END, k.name,
    CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END)
  FROM pg_default_acl a, aclexplode(a.defaclacl) e, (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'),
    ('T', 'TYPES'), ('n', 'SCHEMAS'), ('L', 'LARGE OBJECTS')) AS k (kind, name)
  WHERE k.kind = a.defaclobjtype::text AND pg_has_role(a.defaclrole, 'USAGE')
  UNION ALL
  SELECT 2, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT %s ON %s TO %s', pg_get_userbyid(a.defaclrole), k.privilege,
    k.name, coalesce(k.grantee, quote_ident(pg_get_userbyid(a.defaclrole))))
  FROM pg_default_acl a, (VALUES ('r', 'TABLES', 'ALL', NULL), ('S', 'SEQUENCES', 'ALL', NULL),
    ('f', 'FUNCTIONS', 'ALL', NULL), ('f', 'FUNCTIONS', 'EXECUTE', 'PUBLIC'), ('T', 'TYPES', 'ALL', NULL),
    ('T', 'TYPES', 'USAGE', 'PUBLIC'), ('n', 'SCHEMAS', 'ALL', NULL), ('L', 'LARGE OBJECTS', 'ALL', NULL))
    AS k (kind, name, privilege, grantee)
  WHERE k.kind = a.defaclobjtype::text AND a.defaclnamespace = 0 AND pg_has_role(a.defaclrole, 'USAGE')) s;
FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP
  -- One may have gone with the schema or the type that it stood in.
  EXECUTE statement;
END LOOP;
END";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_who_may_not_create_databases_goes_this_way() {
        let facts = |superuser: bool, createdb: bool, live: bool| -> Facts {
            let live =
                if live { r#"{"owner":"o","ours":true,"encoding":"UTF8","collate":"C","ctype":"C"}"# } else { "null" };
            serde_json::from_str(&format!(
                r#"{{"me":"m","superuser":{superuser},"createdb":{createdb},"connections":-1,"version":150000,"recovery":false,"live":{live},
                    "prepared":0,"slots":[],"subscriptions":[],"databases":[]}}"#
            ))
            .unwrap()
        };
        assert!(is_the_way(&facts(false, false, true), &Destination::InPlace));
        for (facts, destination) in [
            (facts(true, false, true), Destination::InPlace),
            (facts(false, true, true), Destination::InPlace),
            (facts(false, false, false), Destination::InPlace),
            (facts(false, false, true), Destination::Drill),
            (facts(false, false, true), Destination::Into("x".into())),
        ] {
            assert!(!is_the_way(&facts, &destination), "{facts:?} {destination:?}");
        }
    }
}
