//! What a whole dump takes at a server. Flows in: the tools. Flows out: the first right that is missing, with the statement
//! that gives it, and what such a dump leaves out all the same. Touches the server, reading.
//!
//! `pg_dump` fails loudly where it may not read rows; here it is said by day, before the first dump. What only a superuser
//! may see it leaves out without a word, or with one that nobody hears from a dump that ends well.

use serde::Deserialize;

use super::args;
use super::sql::{ident, literal};
use super::tools::Tools;
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};

/// From this major version on there is a role that reads everything.
const READ_ALL_DATA: u32 = 14;
/// From this major version on a function tells what a role may do with a large object.
const TELLS_OF_OBJECTS: u32 = 18;

/// One sort of thing that can't be read.
#[derive(Debug, Deserialize)]
struct Missing {
    /// Who can't.
    role: String,
    /// `schema`, `table`, `sequence`, `rows` or `object`.
    what: String,
    /// The first of them, as SQL writes it.
    first: String,
    /// The schema that it is in.
    schema: String,
    /// How many there are.
    count: u64,
}

/// Looks whether the role that dumps may read everything that a dump of the whole database holds.
///
/// # Errors
/// [`Kind::Tool`] with what is missing and the statement that gives it, or when the server can't be asked.
pub fn check(tools: &Tools, version: u32, cx: &Cx) -> Result<()> {
    // What is left out needs no right, and only pg_dump knows what that is.
    if tools.dumps_a_part().is_some() {
        return Ok(());
    }
    let role = args::role(&tools.toolbox.dump_args).map_or_else(|| "current_user".to_owned(), literal);
    let object = if version >= TELLS_OF_OBJECTS { TOLD } else { WORKED_OUT };
    let sql = LOOK.replace("{role}", &role).replace("{object}", object);
    let mut missing: Vec<Missing> = tools.rows(&tools.place.database, &sql, cx)?;
    // Whoever leaves rows out may leave out just those that are hidden; pg_dump says so where they are others.
    if args::leaves_out(&tools.toolbox.dump_args).is_some() {
        missing.retain(|missing| missing.what != "rows");
    }
    let Some(first) = missing.first() else { return Ok(()) };
    let all: Vec<String> = missing.iter().map(Missing::described).collect();
    let why = format!("{} may not dump all of it: it lacks {}", first.role, all.join("; "));
    Err(Error::new(Kind::Tool, why).hint(first.mend(version)))
}

/// What only a superuser dumps.
#[derive(Debug, Deserialize)]
struct Hidden {
    role: String,
    subscriptions: Vec<String>,
    /// User mappings whose options are hidden, if they have any.
    mappings: Vec<String>,
}

/// What the dumps of a role lack because it is no superuser, for people.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn left_out(tools: &Tools, cx: &Cx) -> Result<Vec<String>> {
    if tools.dumps_a_part().is_some() {
        return Ok(Vec::new());
    }
    let dump_args = &tools.toolbox.dump_args;
    let role = args::role(dump_args).map_or_else(|| "current_user".to_owned(), literal);
    let found: Vec<Hidden> = tools.rows(&tools.place.database, &HIDDEN.replace("{role}", &role), cx)?;
    let mut warnings = Vec::new();
    for Hidden { role, subscriptions, mappings } in found {
        if !subscriptions.is_empty() && !dump_args.iter().any(|arg| arg == "--no-subscriptions") {
            warnings.push(format!(
                "{role} is no superuser, so the backups lack the subscriptions {}: dump as one, or put --no-subscriptions into \
                 dump_args if they are not wanted",
                subscriptions.join(", ")
            ));
        }
        if !mappings.is_empty() {
            warnings.push(format!(
                "{role} is no superuser, so the backups lack the options, passwords with them, of the user mappings {}: dump as one",
                mappings.join(", ")
            ));
        }
    }
    Ok(warnings)
}

const HIDDEN: &str = "SELECT json_build_object('role', me.rolname,
  'subscriptions', (SELECT coalesce(json_agg(subname ORDER BY subname), '[]') FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())),
  'mappings', (SELECT coalesce(json_agg(format('for %s at %s', m.usename, m.srvname) ORDER BY m.srvname, m.usename), '[]')
    FROM pg_user_mappings m JOIN pg_foreign_server s ON s.oid = m.srvid
    WHERE NOT CASE m.umuser WHEN 0 THEN pg_has_role(me.oid, s.srvowner, 'USAGE') ELSE m.usename = me.rolname
      AND (pg_has_role(me.oid, s.srvowner, 'USAGE') OR has_server_privilege(me.oid, s.oid, 'USAGE')) END))::jsonb::text
FROM pg_roles me WHERE rolname = {role} AND NOT rolsuper;
";

impl Missing {
    fn described(&self) -> String {
        let first = &self.first;
        let what = match self.what.as_str() {
            "schema" => format!("USAGE on the schema {first}"),
            "table" => format!("SELECT on the table {first}"),
            "sequence" => format!("SELECT on the sequence {first}"),
            "rows" => format!("the rows that the row-level security of {first} hides"),
            _ => format!("SELECT on the large object {first}"),
        };
        if self.count > 1 { format!("{what} and {} more", self.count - 1) } else { what }
    }

    fn mend(&self, version: u32) -> String {
        let (role, first) = (ident(&self.role), &self.first);
        match self.what.as_str() {
            "rows" => format!("ALTER ROLE {role} BYPASSRLS"),
            "object" if self.count == 1 => format!("GRANT SELECT ON LARGE OBJECT {first} TO {role}"),
            "object" => format!(
                "SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I', oid, {}) FROM pg_largeobject_metadata \\gexec",
                literal(&self.role)
            ),
            _ if version >= READ_ALL_DATA => format!("GRANT pg_read_all_data TO {role}"),
            "schema" => format!("GRANT USAGE ON SCHEMA {first} TO {role}"),
            what => format!("GRANT SELECT ON ALL {}S IN SCHEMA {} TO {role}", what.to_uppercase(), self.schema),
        }
    }
}

const TOLD: &str = "has_largeobject_privilege(me.oid, l.oid, 'SELECT')";
const WORKED_OUT: &str = "EXISTS (SELECT FROM aclexplode(l.lomacl) a WHERE a.privilege_type = 'SELECT'
      AND (a.grantee = 0 OR pg_has_role(me.oid, a.grantee, 'USAGE')))";

/// What pg_dump locks and reads: tables but those of extensions, unless these ask for their rows; sequences; large objects.
const LOOK: &str = "WITH me AS (SELECT oid, rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = {role}),
relation AS (SELECT c.*, format('%I', n.nspname) AS schema, format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
      OR EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY (e.extconfig)))),
missing AS (
  SELECT DISTINCT 1 AS place, 'schema' AS what, schema AS name, schema FROM relation, me
    WHERE NOT has_schema_privilege(me.oid, relnamespace, 'USAGE')
  UNION ALL SELECT 2, 'table', name, schema FROM relation, me
    WHERE relkind IN ('r', 'p') AND NOT has_table_privilege(me.oid, relation.oid, 'SELECT')
  UNION ALL SELECT 3, 'sequence', name, schema FROM relation, me
    WHERE CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(me.oid, relation.oid, 'SELECT') END
  UNION ALL SELECT 4, 'rows', name, schema FROM relation, me
    WHERE relkind = 'r' AND relrowsecurity AND NOT rolsuper AND NOT rolbypassrls
      AND (relforcerowsecurity OR NOT pg_has_role(me.oid, relowner, 'USAGE'))
  UNION ALL SELECT 5, 'object', l.oid::text, '' FROM pg_largeobject_metadata l, me
    WHERE NOT rolsuper AND NOT pg_has_role(me.oid, l.lomowner, 'USAGE')
      AND current_setting('lo_compat_privileges') = 'off' AND NOT {object})
SELECT json_build_object('role', min(rolname), 'what', what, 'first', (array_agg(name ORDER BY name))[1],
    'schema', (array_agg(schema ORDER BY name))[1], 'count', count(*))::jsonb::text
  FROM missing, me GROUP BY place, what ORDER BY place;
";
