//! What is asked of a server. Flows in: the tools. Flows out: what a schema holds, what its user may do, which sessions
//! are at work. Touches the server, reading, but for the locks that tell a running restore from a dead one.

use std::io::Write;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::reasons::number;
use super::sql::{ident, literal, pattern};
use super::tools::{Family, Tool, Tools};
use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;

/// How often is looked for a lock, and how many times.
const LOCK_EVERY: Duration = Duration::from_millis(20);
const LOCK_TRIES: u32 = 250;

/// What the server says of itself and of one schema.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The server's version.
    pub version: String,
    /// Who we are, as `user@host`.
    pub me: String,
    /// Whether it takes no writes.
    pub read_only: bool,
    /// The schema's character set and collation, if there is such a schema.
    pub live: Option<String>,
    /// All schemas.
    pub schemas: Vec<String>,
    /// Tables and sequences, with their engines.
    pub tables: Vec<(String, String)>,
    /// Tables with a history of their rows.
    pub versioned: Vec<String>,
    /// Views.
    pub views: Vec<String>,
    /// Those of them that the server calls invalid.
    pub broken: Vec<String>,
    /// Triggers.
    pub triggers: Vec<String>,
    /// Events.
    pub events: Vec<String>,
    /// Routines: kind, name, and all that they are.
    pub routines: Vec<(String, String, String)>,
    /// Routines whose text is hidden from us.
    pub hidden: Vec<String>,
    /// Tables of other schemas with foreign keys into this one.
    pub foreign: Vec<String>,
}

impl Facts {
    /// Whose server it is.
    pub fn family(&self) -> Family {
        Family::of_server(&self.version)
    }

    /// The names of tables and sequences.
    pub fn table_names(&self) -> Vec<String> {
        self.tables.iter().map(|(name, _)| name.clone()).collect()
    }

    fn add(&mut self, row: &[Option<String>]) {
        let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        match text(0).as_str() {
            "server" => (self.version, self.me, self.read_only) = (text(1), text(2), text(3) == "1"),
            "live" => self.live = Some(format!("CHARACTER SET {} COLLATE {}", text(1), text(2))),
            "schema" => self.schemas.push(text(1)),
            "table" => match text(3).as_str() {
                "VIEW" | "SYSTEM VIEW" => {
                    if !text(4).eq_ignore_ascii_case("VIEW") {
                        self.broken.push(text(1));
                    }
                    self.views.push(text(1));
                }
                "TEMPORARY" => {}
                kind => {
                    if kind == "SYSTEM VERSIONED" {
                        self.versioned.push(text(1));
                    }
                    self.tables.push((text(1), text(2)));
                }
            },
            "trigger" => self.triggers.push(text(1)),
            "event" => self.events.push(text(1)),
            "routine" => {
                if text(3).is_empty() {
                    self.hidden.push(text(2));
                }
                self.routines.push((text(1), text(2), text(4)));
            }
            "foreign" => self.foreign.push(format!("{}.{}", text(1), text(2))),
            _ => {}
        }
    }
}

/// Asks for everything about `schema`.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn ask(tools: &Tools, client: &Tool, schema: &str, cx: &Cx) -> Result<Facts> {
    let is = |column: &str| {
        // Names are compared byte by byte; the first comparison lets the server find them by name.
        let name = literal(schema);
        format!("{column} = {name} AND CAST({column} AS BINARY) = CAST({name} AS BINARY)")
    };
    let sql = format!(
        "SELECT JSON_ARRAY('server', VERSION(), CURRENT_USER(), IF(@@read_only, '1', '0'));
SELECT JSON_ARRAY('live', DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME) FROM information_schema.SCHEMATA WHERE {};
SELECT JSON_ARRAY('schema', SCHEMA_NAME) FROM information_schema.SCHEMATA;
SELECT JSON_ARRAY('table', TABLE_NAME, ENGINE, TABLE_TYPE, TABLE_COMMENT) FROM information_schema.TABLES WHERE {} ORDER BY TABLE_NAME;
SELECT JSON_ARRAY('trigger', TRIGGER_NAME) FROM information_schema.TRIGGERS WHERE {};
SELECT JSON_ARRAY('event', EVENT_NAME) FROM information_schema.EVENTS WHERE {};
SELECT JSON_ARRAY('routine', ROUTINE_TYPE, ROUTINE_NAME, ROUTINE_DEFINITION, CONCAT_WS('\\n', ROUTINE_TYPE, ROUTINE_NAME,
  ROUTINE_DEFINITION, DTD_IDENTIFIER, IS_DETERMINISTIC, SQL_DATA_ACCESS, SECURITY_TYPE, SQL_MODE, ROUTINE_COMMENT, DEFINER,
  CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION, (SELECT GROUP_CONCAT(CONCAT_WS(' ', ORDINAL_POSITION,
  PARAMETER_MODE, PARAMETER_NAME, DTD_IDENTIFIER, CHARACTER_SET_NAME, COLLATION_NAME) ORDER BY ORDINAL_POSITION)
  FROM information_schema.PARAMETERS p WHERE p.SPECIFIC_SCHEMA = r.ROUTINE_SCHEMA AND p.SPECIFIC_NAME = r.SPECIFIC_NAME
  AND p.ROUTINE_TYPE = r.ROUTINE_TYPE))) FROM information_schema.ROUTINES r WHERE {};
SELECT DISTINCT JSON_ARRAY('foreign', TABLE_SCHEMA, TABLE_NAME) FROM information_schema.KEY_COLUMN_USAGE
  WHERE {} AND TABLE_SCHEMA <> {};
",
        is("SCHEMA_NAME"),
        is("TABLE_SCHEMA"),
        is("TRIGGER_SCHEMA"),
        is("EVENT_SCHEMA"),
        is("ROUTINE_SCHEMA"),
        is("REFERENCED_TABLE_SCHEMA"),
        literal(schema),
    );
    let rows: Vec<Vec<Option<String>>> = tools.rows(client, &sql, cx)?;
    let mut facts = Facts::default();
    for row in &rows {
        facts.add(row);
    }
    if facts.version.is_empty() {
        return Err(Error::new(Kind::Tool, "the server does not say its version"));
    }
    Ok(facts)
}

/// What a user has been granted.
#[derive(Clone, Debug)]
pub struct Grants {
    lines: Vec<(Vec<String>, String)>,
    /// What rights on everything do not reach, schema by schema.
    revoked: Vec<(Vec<String>, String)>,
    /// Whether it has been granted roles. What they give is listed, as long as they are active.
    pub roles: bool,
}

impl Grants {
    /// Asks the server. Of its own session it lists what active roles give, too.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be asked.
    pub fn ask(tools: &Tools, client: &Tool, cx: &Cx) -> Result<Self> {
        Ok(Self::parse(&tools.run(client, None, b"SHOW GRANTS;\n", cx)?))
    }

    fn parse(text: &str) -> Self {
        let mut this = Self { lines: Vec::new(), revoked: Vec::new(), roles: false };
        for line in text.lines() {
            let (rest, to, into) = match (line.strip_prefix("GRANT "), line.strip_prefix("REVOKE ")) {
                (Some(rest), _) => (rest, " TO ", &mut this.lines),
                (_, Some(rest)) => (rest, " FROM ", &mut this.revoked),
                _ => continue,
            };
            let Some((rights, rest)) = rest.split_once(" ON ") else {
                this.roles = true;
                continue;
            };
            let on = rest.rsplit_once(to).map_or(rest, |(on, _)| on);
            let rights = rights.split(',').map(|right| right.trim().to_ascii_uppercase()).collect();
            into.push((rights, on.to_owned()));
        }
        this
    }

    /// Whether a right is there on everything (`None`), or on all of a schema.
    pub fn may(&self, right: &str, schema: Option<&str>) -> bool {
        let holds = |rights: &[String]| rights.iter().any(|it| it == right || it == "ALL PRIVILEGES" || it == "ALL");
        let is_revoked = || {
            let here = |on: &str| schema.is_some_and(|schema| schema_of(on).as_deref() == Some(schema));
            self.revoked.iter().any(|(rights, on)| here(on) && holds(rights))
        };
        let on = |on: &str| match (on, schema) {
            ("*.*", _) => !is_revoked(),
            (on, Some(schema)) => schema_of(on).is_some_and(|name| name == schema || like(&name, schema)),
            _ => false,
        };
        self.lines.iter().any(|(rights, place)| holds(rights) && on(place))
    }

    /// Whether a right on one table is there.
    pub fn may_on(&self, right: &str, place: &str) -> bool {
        self.lines.iter().any(|(rights, on)| on == place && rights.iter().any(|given| given == right))
    }

    /// The rights that are missing for a whole dump of `schema`, as the statement that gives them.
    pub fn missing_for_dump(&self, schema: &str, facts: &Facts) -> Option<(String, String)> {
        let me = quoted_user(&facts.me);
        let needs = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];
        let missing: Vec<_> = needs.into_iter().filter(|right| !self.may(right, Some(schema))).collect();
        if !missing.is_empty() {
            let list = missing.join(", ");
            return Some((list.clone(), format!("GRANT {list} ON {}.* TO {me}", pattern(schema))));
        }
        let everything =
            self.may("SELECT", None) || self.may("SHOW_ROUTINE", None) || self.may("SHOW CREATE ROUTINE", Some(schema));
        let proc = self.may("SELECT", Some("mysql")) || self.may_on("SELECT", "`mysql`.`proc`");
        let sees = ["EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE"].iter().any(|right| self.may(right, Some(schema)));
        if everything || proc || (sees && facts.hidden.is_empty()) {
            return None;
        }
        let (right, place) = match facts.family() {
            Family::MySql => ("SHOW_ROUTINE", "*.*"),
            Family::MariaDb => ("SELECT", "`mysql`.`proc`"),
        };
        Some(("the right to see routines".to_owned(), format!("GRANT {right} ON {place} TO {me}")))
    }

    /// The rights that are missing for putting other tables in the place of those of `schema`.
    pub fn missing_for_restore(&self, schemas: &[&str], me: &str) -> Option<(String, String)> {
        let needs = [
            "SELECT",
            "INSERT",
            "CREATE",
            "DROP",
            "ALTER",
            "INDEX",
            "REFERENCES",
            "LOCK TABLES",
            "TRIGGER",
            "CREATE VIEW",
            "SHOW VIEW",
            "CREATE ROUTINE",
            "ALTER ROUTINE",
            "EVENT",
        ];
        schemas.iter().find_map(|schema| {
            let missing: Vec<_> = needs.into_iter().filter(|right| !self.may(right, Some(schema))).collect();
            let list = missing.join(", ");
            let end = "__restoring_";
            let place = match schema.find(end) {
                Some(at) => format!(
                    "`{}%`",
                    pattern(schema.get(..at).unwrap_or_default()).trim_matches('`').to_owned() + r"\_\_"
                ),
                None => pattern(schema),
            };
            (!missing.is_empty()).then(|| {
                (
                    format!("{list} on {}", ident(schema)),
                    format!("GRANT ALL PRIVILEGES ON {place}.* TO {}", quoted_user(me)),
                )
            })
        })
    }
}

/// The schema, or the pattern of schemas, that a grant is on as a whole.
fn schema_of(on: &str) -> Option<String> {
    let name = on.strip_suffix(".*").filter(|name| *name != "*")?;
    let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')).unwrap_or(name);
    Some(name.replace("``", "`"))
}

fn quoted_user(me: &str) -> String {
    let (user, host) = me.rsplit_once('@').unwrap_or((me, "%"));
    format!("{}@{}", literal(user), literal(host))
}

/// Whether `name` fits a pattern of `GRANT … ON`.
fn like(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('%') => name
            .char_indices()
            .map(|(at, _)| at)
            .chain([name.len()])
            .any(|at| name.get(at..).is_some_and(|name| like(rest.as_str(), name))),
        Some(first) => {
            let escaped = (first == '\\').then(|| rest.next()).flatten();
            let mut left = name.chars();
            let fits = match (escaped, left.next()) {
                (_, None) => false,
                (Some(wanted), Some(found)) => wanted == found,
                (None, Some(found)) => first == '_' || first == found,
            };
            fits && like(rest.as_str(), left.as_str())
        }
    }
}

/// Whether the server copies another one, as far as it tells us.
pub fn is_replica(tools: &Tools, client: &Tool, facts: &Facts, cx: &Cx) -> bool {
    let ask: &[&str] = match facts.family() {
        Family::MariaDb => &["SHOW ALL SLAVES STATUS;\n"],
        Family::MySql => &["SHOW REPLICA STATUS;\n", "SHOW SLAVE STATUS;\n"],
    };
    let mut answers = ask.iter().map(|sql| tools.run(client, None, sql.as_bytes(), cx));
    let syntax = |answer: &Result<String>| answer.as_ref().is_err_and(|error| number(error) == Some(1064));
    answers.find(|answer| !syntax(answer)).is_some_and(|answer| answer.is_ok_and(|rows| !rows.trim().is_empty()))
}

/// The lock that a restore holds while it lives.
pub fn alive_lock(hex: &str) -> String {
    format!("voxeltron-restore-{hex}")
}

/// The lock that a script of a swap holds while it runs.
pub fn run_lock(hex: &str) -> String {
    format!("voxeltron-swap-{hex}")
}

/// A session that holds locks until it is dropped; they go when this process dies, however it dies.
#[derive(Debug)]
pub struct Holder {
    _session: RestoreWriter,
}

impl Holder {
    /// Takes the lock of this restore, and with `target` the one that lets no other restore replace the same schema.
    ///
    /// # Errors
    /// [`Kind::Tool`] when another restore has it.
    pub fn take(tools: &Tools, client: &Tool, hex: &str, target: Option<&str>, cx: &Cx) -> Result<Self> {
        let call = tools.sql(client, None);
        let mut session = RestoreWriter::spawn(&call, None, &super::tools::for_cleanup(cx).world)?;
        let alive = literal(&alive_lock(hex));
        let digest = target.map(|target| crate::format::hex(&Sha256::digest(target.as_bytes())));
        let digest = digest.map(|digest| digest.chars().take(32).collect::<String>());
        let only = digest.map_or_else(|| alive.clone(), |digest| literal(&format!("voxeltron-{digest}")));
        let sql = format!("SET SESSION wait_timeout = 2147483;\nSELECT GET_LOCK({only}, 3), GET_LOCK({alive}, 0);\n");
        session.write_all(sql.as_bytes()).doing(Kind::Tool, "can't keep a session at the server")?;
        for _ in 0..LOCK_TRIES {
            let ask = format!("SELECT JSON_ARRAY(IS_USED_LOCK({alive}), IS_USED_LOCK({only}));\n");
            let rows: Vec<(Option<u64>, Option<u64>)> = tools.rows(client, &ask, cx)?;
            match rows.first() {
                Some((Some(alive), Some(only))) if alive == only => return Ok(Self { _session: session }),
                Some((Some(_), _)) => {
                    let name = target.unwrap_or_default();
                    return Err(Error::new(Kind::Tool, format!("another restore of {name} is running"))
                        .hint("wait for its end"));
                }
                _ => cx.world.clock.sleep(LOCK_EVERY),
            }
        }
        Err(Error::new(Kind::Tool, "the server gives no lock to a session of ours"))
    }
}

/// Whether nobody holds a restore's lock; a session that has just died gets a moment.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn is_dead(tools: &Tools, client: &Tool, hex: &str, cx: &Cx) -> Result<bool> {
    let ask = format!("SELECT IS_FREE_LOCK({});\n", literal(&alive_lock(hex)));
    for _ in 0..50 {
        if tools.rows::<u64>(client, &ask, cx)?.first() == Some(&1) {
            return Ok(true);
        }
        cx.world.clock.sleep(LOCK_EVERY);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants() {
        let grants = Grants::parse(
            "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*X'\nGRANT SELECT, SHOW VIEW ON `my\\_db`.* TO `u`@`%`\n\
             GRANT TRIGGER ON `my%`.* TO `u`@`%`\nGRANT SELECT ON `mysql`.`proc` TO `u`@`%`\n",
        );
        assert!(grants.may("SELECT", Some("my_db")) && !grants.may("SELECT", Some("myxdb")));
        assert!(grants.may("TRIGGER", Some("myxdb")) && !grants.may("EVENT", Some("my_db")));
        let facts = Facts { version: "10.11-MariaDB".into(), me: "u@%".into(), ..Facts::default() };
        assert_eq!(
            grants.missing_for_dump("my_db", &facts),
            Some(("EVENT".into(), "GRANT EVENT ON `my\\_db`.* TO 'u'@'%'".into()))
        );
        assert_eq!(Grants::parse("GRANT ALL PRIVILEGES ON *.* TO `r`@`%`").missing_for_dump("x", &facts), None);
        let (missing, mend) = grants.missing_for_restore(&["my_db__restoring_0123abcd"], "u@%").unwrap();
        assert!(missing.starts_with("SELECT, INSERT, "), "{missing}");
        assert_eq!(mend, "GRANT ALL PRIVILEGES ON `my\\_db\\_\\_%`.* TO 'u'@'%'");
    }

    #[test]
    fn a_role_gives_what_is_listed_and_a_revoke_takes_it() {
        let facts = Facts { version: "9.7.4".into(), me: "u@%".into(), ..Facts::default() };
        let inactive = Grants::parse("GRANT USAGE ON *.* TO `u`@`%`\nGRANT `r`@`%` TO `u`@`%`\n");
        assert!(inactive.roles);
        let (missing, mend) = inactive.missing_for_dump("d", &facts).unwrap();
        assert_eq!((missing.as_str(), mend.starts_with("GRANT SELECT, ")), ("SELECT, SHOW VIEW, TRIGGER, EVENT", true));
        let all = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO `u`@`%`\nGRANT SHOW_ROUTINE ON *.* TO `u`@`%`\n\
                   REVOKE SELECT, TRIGGER ON `d`.* FROM `u`@`%`\n";
        let grants = Grants::parse(all);
        assert_eq!(grants.missing_for_dump("d2", &facts), None);
        assert_eq!(grants.missing_for_dump("d", &facts).unwrap().0, "SELECT, TRIGGER");
        let grants = Grants::parse(&format!("{all}GRANT SELECT, TRIGGER ON `d`.* TO `u`@`%`\n"));
        assert_eq!(grants.missing_for_dump("d", &facts), None);
        // On some tables is not on all.
        let some = Grants::parse("GRANT SELECT, SHOW VIEW ON `d`.`t` TO `u`@`%`\n");
        assert!(!some.may("SELECT", Some("d")));
    }
}
