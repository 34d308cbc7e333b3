//! What is asked of a server. Flows in: the tools. Flows out: what a schema holds, what its user may do, which sessions
//! are at work. Touches the server, reading, but for the locks that tell a running restore from a dead one.

use std::io::Write;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::own;
use super::reasons::{is_cut, number};
use super::sql::{literal, table};
use super::tools::{Family, Tool, Tools};
use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;

/// What MySQL calls code that routines in other languages use.
pub const LIBRARY: &str = "LIBRARY";
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
    /// Routines and libraries: kind, name, and all that they are.
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

    /// Takes a row. Gives where a routine has come to that tables of the server don't tell all of.
    fn add(&mut self, row: &[Option<String>]) -> Option<usize> {
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
                return (text(5) == "1").then_some(self.routines.len() - 1);
            }
            "foreign" => self.foreign.push(format!("{}.{}", text(1), text(2))),
            _ => {}
        }
        None
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
    // In hex it can't end a comment.
    let hex = crate::format::hex(schema.as_bytes());
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
  AND p.ROUTINE_TYPE = r.ROUTINE_TYPE)), IF(COALESCE(EXTERNAL_LANGUAGE, '') IN ('', 'SQL'), '0', '1'))
  FROM information_schema.ROUTINES r WHERE {};
/*!90200 SELECT JSON_ARRAY('routine', '{LIBRARY}', LIBRARY_NAME, IF(LIBRARY_DEFINITION IS NULL, '', 'seen'), '', '1')
  FROM information_schema.LIBRARIES WHERE CAST(LIBRARY_SCHEMA AS BINARY) = 0x{hex} ORDER BY LIBRARY_NAME */;
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
    let unclear: Vec<usize> = rows.iter().filter_map(|row| facts.add(row)).collect();
    if facts.version.is_empty() {
        return Err(Error::new(Kind::Tool, "the server does not say its version"));
    }
    describe(tools, client, schema, (&mut facts, &unclear), cx)?;
    Ok(facts)
}

/// Adds how the server describes libraries, and routines in other languages than SQL: nowhere else it tells all of what a
/// library is made of, and under which names a routine uses it.
fn describe(
    tools: &Tools,
    client: &Tool,
    schema: &str,
    (facts, unclear): (&mut Facts, &[usize]),
    cx: &Cx,
) -> Result<()> {
    if unclear.is_empty() || facts.family() == Family::MariaDb {
        return Ok(());
    }
    // No text of theirs holds this line.
    let end = format!("end of a routine {}\n", cx.world.random_hex(16)?);
    let routines = unclear.iter().filter_map(|at| facts.routines.get(*at));
    let ask = |(kind, name, _): &(String, String, String)| {
        format!("SHOW CREATE {kind} {};\nSELECT {};\n", table(schema, name), literal(end.trim_end()))
    };
    let sql: String = routines.map(ask).collect();
    let told = match tools.run(client, None, sql.as_bytes(), cx) {
        Err(error) if error.is_stopped() || is_cut(&error) => return Err(error),
        // Who may not see them is told so by who needs them. They are then taken for others than those of another schema.
        told => told.unwrap_or_default(),
    };
    let mut told = told.split(&end);
    for at in unclear {
        let Some((.., all)) = facts.routines.get_mut(*at) else { continue };
        *all += "\n";
        match told.next().and_then(|text| text.split_once("\tCREATE ")) {
            Some((_, text)) => *all += &without(text, schema),
            None => *all += schema,
        }
    }
    Ok(())
}

/// A routine's text without its own schema, so that it is the same in another one.
fn without(text: &str, schema: &str) -> String {
    let (mut kept, mut at) = (String::new(), 0);
    for (from, to) in own::libraries(text.as_bytes(), schema) {
        kept += text.get(at..from).unwrap_or_default();
        at = to;
    }
    kept + text.get(at..).unwrap_or_default()
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
