//! The PostgreSQL engine against a real server: data that hurts comes back the same, and whatever fails leaves the live
//! database as it was. Wants `VOXELTRON_TEST_POSTGRES_URL` (a superuser's URL with a password) and
//! `VOXELTRON_TEST_POSTGRES_BIN` (the folder of the tools); without them every test fails, none is skipped.

// What fails in a test may panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use voxeltron_backup::engine::checks::Check;
use voxeltron_backup::engine::{
    Aside, Counts, Cx, Destination, Engine, Findings, Inspected, Keep, Request, Restored, Settings, kind,
};
use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::World;

#[path = "postgres/alive.rs"]
mod alive;
#[path = "postgres/alone.rs"]
mod alone;
#[path = "postgres/cuts.rs"]
mod cuts;
#[path = "common/cutter.rs"]
mod cutter;
#[path = "postgres/told.rs"]
mod told;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// The server, as the environment names it.
struct Server {
    base: String,
    password: String,
    bin: PathBuf,
}

impl Server {
    fn get() -> Self {
        let var = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: these tests want a real PostgreSQL server and are never skipped")
            })
        };
        let url = var("VOXELTRON_TEST_POSTGRES_URL");
        let (base, _) = url.rsplit_once('/').expect("the URL ends in /database");
        let credentials = base.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).expect("user:password@").0;
        let password = credentials.split_once(':').expect("the URL holds a password").1.to_owned();
        Self { base: base.to_owned(), password, bin: var("VOXELTRON_TEST_POSTGRES_BIN").into() }
    }

    fn url(&self, database: &str) -> String {
        format!("{}/{}", self.base, percent(database))
    }

    fn tool(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    fn try_sql(&self, database: &str, sql: &str) -> std::result::Result<String, String> {
        self.try_sql_bytes(database, sql.as_bytes())
    }

    fn try_sql_bytes(&self, database: &str, sql: &[u8]) -> std::result::Result<String, String> {
        let mut psql = self.tool("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-f", "-"]);
        psql.stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = psql.spawn().expect("psql starts");
        let mut stdin = child.stdin.take().unwrap();
        let sql = sql.to_owned();
        let writer = std::thread::spawn(move || drop(io::Write::write_all(&mut stdin, &sql)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{database}: {sql}: {error}"))
    }

    fn admin(&self, sql: &str) -> String {
        self.sql("postgres", sql)
    }

    /// All that a database is: its content by `pg_dump`'s plain text, and its own properties by the catalog.
    fn all_of(&self, database: &str) -> String {
        let mut dump = self.tool("pg_dump");
        dump.args(["--format=plain", "-d", &self.url(database)]);
        let output = dump.output().expect("pg_dump starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let random = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
        let content = text.lines().filter(random).collect::<Vec<_>>().join("\n");
        format!("{content}\n{}", self.properties(database))
    }

    fn properties(&self, database: &str) -> String {
        let name = literal(database);
        self.admin(&format!(
            "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider,
               datistemplate, datallowconn, datconnlimit, dattablespace, shobj_description(oid, 'pg_database'),
               (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(coalesce(datacl, acldefault('d', datdba))) a)
             FROM pg_database WHERE datname = {name};
             SELECT coalesce(pg_get_userbyid(NULLIF(setrole, 0)), '-'), setconfig FROM pg_db_role_setting s
             JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = {name} ORDER BY 1;"
        ))
    }

    /// Databases whose names say that a restore of `database` has left them.
    fn leftovers(&self, database: &str) -> Vec<String> {
        self.admin("SELECT datname FROM pg_database WHERE datname ~ '__(restoring|old)_[0-9a-f]{8}$';")
            .lines()
            .filter(|name| {
                let start = name.rsplit_once("__restoring_").or_else(|| name.rsplit_once("__old_")).unwrap().0;
                database.starts_with(start) && start.len() >= 8
            })
            .map(str::to_owned)
            .collect()
    }
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn cx() -> Cx {
    Cx {
        world: World::system(),
        report: Report::capturing(Style::default()),
        data_dir: std::env::temp_dir(),
        deadline: None,
    }
}

fn settings(server: &Server, database: &str) -> Settings {
    Settings { tools_dir: Some(server.bin.clone()), ..Settings::new("mydb", Secret::new(server.url(database))) }
}

fn open(settings: Settings) -> Box<dyn Engine> {
    (kind("postgres").unwrap().open)(settings).unwrap()
}

/// A database that is gone after the test.
struct Database {
    server: Server,
    name: String,
}

impl Database {
    fn empty(label: &str) -> Self {
        let server = Server::get();
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("vx{}_{number} {label}", std::process::id());
        server.admin(&format!("CREATE DATABASE {} TEMPLATE template0;", ident(&name)));
        Self { server, name }
    }

    fn small(label: &str) -> Self {
        let this = Self::empty(label);
        this.sql(
            "CREATE TABLE a (i int PRIMARY KEY, t text); INSERT INTO a SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n;
             CREATE TABLE b (i int); INSERT INTO b VALUES (1), (2), (3);",
        );
        this
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    fn sql_bytes(&self, sql: &[u8]) {
        self.server.try_sql_bytes(&self.name, sql).unwrap();
    }

    fn engine(&self) -> Box<dyn Engine> {
        open(settings(&self.server, &self.name))
    }

    fn all(&self) -> String {
        self.server.all_of(&self.name)
    }

    fn backup(&self) -> (Vec<u8>, Findings) {
        dump(self.engine().as_ref()).unwrap()
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert_eq!(self.server.leftovers(&self.name), Vec::<String>::new());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = ident(&self.name);
        let _ = self.server.try_sql(
            "postgres",
            &format!("ALTER DATABASE {name} IS_TEMPLATE false; DROP DATABASE IF EXISTS {name} WITH (FORCE);"),
        );
    }
}

fn inspected<R: Read>(stream: R) -> Inspected<R> {
    Inspected::new(stream, (kind("postgres").unwrap().inspector)())
}

fn dump(engine: &dyn Engine) -> Result<(Vec<u8>, Findings)> {
    let mut stream = inspected(engine.dump(&cx())?.stream);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| Error::from_io(error, Kind::Other, "test"))?;
    let findings = stream.findings().take().expect("findings after a good end");
    Ok((bytes, findings))
}

fn restore(engine: &dyn Engine, dump: impl Read, destination: Destination, expected: &Counts) -> Result<Restored> {
    let request = Request::new(destination, expected.clone());
    engine.restore(&mut inspected(dump), &request, &cx())
}

/// Gives `left` bytes and then an error, as a backup does whose last segment has a bad tag.
struct Failing<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(Error::new(Kind::Authentication, "segment 1 does not authenticate").into_io());
        }
        let room = self.left.min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count;
        if count == 0 {
            Err(Error::new(Kind::Authentication, "segment 1 does not authenticate").into_io())
        } else {
            Ok(count)
        }
    }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

fn roles(server: &Server) {
    // Two tests may come at once.
    for role in ["vx_owner", "vx_reader"] {
        let _ = server.try_sql("postgres", &format!("CREATE ROLE {role};"));
    }
}

#[test]
fn data_that_hurts_comes_back_the_same() {
    let db = Database::empty(r#"Ünï "q" 'a' \b = €😀 DB"#);
    let (server, name) = (&db.server, ident(&db.name));
    roles(server);
    db.sql(include_str!("postgres/hurts.sql"));
    server.admin(&format!(
        r#"ALTER DATABASE {name} OWNER TO vx_owner;
        REVOKE ALL ON DATABASE {name} FROM PUBLIC;
        GRANT CONNECT, TEMPORARY ON DATABASE {name} TO vx_reader WITH GRANT OPTION;
        SET ROLE vx_reader; GRANT CONNECT ON DATABASE {name} TO pg_monitor; RESET ROLE;
        COMMENT ON DATABASE {name} IS 'it''s \ mine';
        ALTER DATABASE {name} CONNECTION LIMIT 33;
        ALTER DATABASE {name} SET search_path TO '', "$user", "A, ""b"" \", public;
        ALTER DATABASE {name} SET standard_conforming_strings TO off;
        ALTER DATABASE {name} SET "my.setting" TO 'a=b ''c'' \ d';
        ALTER DATABASE {name} SET work_mem TO '7MB';
        ALTER ROLE vx_reader IN DATABASE {name} SET search_path TO '';
        ALTER ROLE vx_reader IN DATABASE {name} SET statement_timeout TO '1h';"#
    ));
    let before = db.all();
    let (bytes, findings) = db.backup();
    assert!(findings.tool_version.is_some() && findings.server_version.is_some(), "{findings:?}");
    let rows = |key: &str| findings.counts.get(key).copied().flatten();
    assert_eq!(rows("public.types"), Some(22), "{findings:?}");
    assert_eq!(rows("public.empty_table"), Some(0));
    assert_eq!(rows("public.no_columns"), Some(2));
    assert_eq!(rows("public.child"), Some(2));
    assert_eq!(rows("public.parent"), Some(1));
    assert_eq!(rows("large objects"), Some(3));
    assert_eq!(rows(r#""Sch.ema ""q"" \ ü="."Täble.x ""y"" 'z' \n""#), Some(1000));

    db.sql(
        "SET standard_conforming_strings = on; DROP TABLE public.egg, public.hen CASCADE; DELETE FROM public.types;
         CREATE TABLE public.later (i int); SELECT lo_unlink(4711); ALTER TYPE public.mood ADD VALUE 'new';",
    );
    assert_ne!(db.all(), before);
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(restored.counts, findings.counts);
    similar(&before, &db.all());
    db.assert_nothing_left();

    // In parallel, and beside it.
    db.sql("DELETE FROM public.types; CREATE TABLE public.later (i int)");
    let size = Some(bytes.len() as u64);
    let request =
        |destination| Request { dump_bytes: size, jobs: Some(2), ..Request::new(destination, findings.counts.clone()) };
    db.engine().restore(&mut inspected(Cursor::new(&bytes)), &request(Destination::InPlace), &cx()).unwrap();
    similar(&before, &db.all());
    let copy = Database::empty("copy that hurts");
    server.admin(&format!("DROP DATABASE {}", ident(&copy.name)));
    let restored =
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Into(copy.name.clone()), &findings.counts)
            .unwrap();
    assert_eq!(restored.counts, findings.counts);
    let content = |all: &str| all.rsplit_once("PostgreSQL database dump complete").unwrap().0.to_owned();
    similar(&content(&before), &content(&copy.all()));
    drop(copy);
    db.assert_nothing_left();

    // The live database is gone: the archive's own properties serve.
    server.admin(&format!("DROP DATABASE {name} WITH (FORCE);"));
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    similar(&before, &db.all());
    db.assert_nothing_left();
}

struct NoDump;

impl Aside for NoDump {
    fn untouched(&self, _: chrono::DateTime<chrono::Utc>) {}

    fn room(&self) -> Result<()> {
        panic!("the database itself is kept")
    }

    fn take(&self, _: chrono::DateTime<chrono::Utc>) -> Result<()> {
        panic!("the database itself is kept")
    }
}

fn keep(at: &str) -> Keep {
    Keep { at: at.parse().unwrap(), aside: std::sync::Arc::new(NoDump) }
}

#[test]
fn what_was_replaced_is_put_back_with_all_that_it_had() {
    let db = Database::empty(r#"Ünï "q" 'a' \b = €😀 undo, and a name that is cut"#);
    let (server, name) = (&db.server, ident(&db.name));
    roles(server);
    db.sql(include_str!("postgres/hurts.sql"));
    let (bytes, findings) = db.backup();
    db.sql("CREATE TABLE public.later (i int); DELETE FROM public.types;");
    server.admin(&format!(
        r#"ALTER DATABASE {name} OWNER TO vx_owner; REVOKE ALL ON DATABASE {name} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {name} TO vx_reader WITH GRANT OPTION; ALTER DATABASE {name} CONNECTION LIMIT 33;
        COMMENT ON DATABASE {name} IS E'it''s \\ mine\n{{"open" : false}}'; ALTER DATABASE {name} SET work_mem TO '7MB';
        ALTER DATABASE {name} IS_TEMPLATE true; ALTER ROLE vx_reader IN DATABASE {name} SET statement_timeout TO '1h';"#
    ));
    let stood = db.all();
    let request = |at| Request { keep: Some(keep(at)), ..Request::new(Destination::InPlace, findings.counts.clone()) };
    let engine = db.engine();
    let load = |at| engine.restore(&mut inspected(Cursor::new(&bytes)), &request(at), &cx()).unwrap();
    assert_eq!(load("2026-02-25T12:00:00Z").notes, Vec::<String>::new());
    let restored = db.all();
    assert!(restored != stood);
    let kept = engine.previous(&cx()).unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].name.ends_with("__previous_20260225T120000Z"), "{kept:?}");
    // Nobody gets in, and nobody takes it for a leftover.
    assert!(server.try_sql(&kept[0].name, "SELECT 1").unwrap_err().contains("not currently accepting connections"));
    assert_eq!(engine.probe(&cx()).unwrap().warnings, Vec::<String>::new());
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    assert_eq!(engine.previous(&cx()).unwrap(), kept);

    // What the database has got since, its successor alone has; and who is in it is sent away.
    server.admin(&format!("ALTER DATABASE {name} SET work_mem TO '9MB'; COMMENT ON DATABASE {name} IS NULL;"));
    let restored = db.all();
    engine.undo(&kept[0], Some(&keep("2026-02-25T13:00:00Z")), &cx()).unwrap();
    similar(&stood, &db.all());
    let other = engine.previous(&cx()).unwrap();
    assert_eq!(other.len(), 1);
    assert_ne!(other, kept);
    engine.undo(&other[0], Some(&keep("2026-02-25T14:00:00Z")), &cx()).unwrap();
    similar(&restored, &db.all());
    // The live one is dropped by accident.
    server.admin(&format!("ALTER DATABASE {name} IS_TEMPLATE false; DROP DATABASE {name} WITH (FORCE);"));
    let kept = engine.previous(&cx()).unwrap();
    engine.undo(&kept[0], Some(&keep("2026-02-25T15:00:00Z")), &cx()).unwrap();
    similar(&stood, &db.all());
    assert_eq!(engine.previous(&cx()).unwrap(), []);
    // Kept and forgotten, though it is a template.
    load("2026-02-25T16:00:00Z");
    let kept = engine.previous(&cx()).unwrap();
    engine.forget(&kept[0], &cx()).unwrap();
    engine.forget(&kept[0], &cx()).unwrap();
    assert_eq!(engine.previous(&cx()).unwrap(), []);
    db.assert_nothing_left();
}

#[track_caller]
fn similar(left: &str, right: &str) {
    if left != right {
        let (a, b): (Vec<_>, Vec<_>) = (left.lines().collect(), right.lines().collect());
        let differing: Vec<_> = a.iter().zip(&b).filter(|(a, b)| a != b).take(5).collect();
        panic!("{} and {} lines; they differ in {differing:#?}", a.len(), b.len());
    }
}

/// Runs a restore that must fail, and looks that nothing has changed and nothing is left.
#[track_caller]
fn fails_and_changes_nothing(db: &Database, engine: &dyn Engine, dump: impl Read, expected: &Counts) -> Error {
    let before = db.all();
    let error = restore(engine, dump, Destination::InPlace, expected).expect_err("it must fail");
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
    error
}

#[test]
fn a_stream_that_fails_anywhere_changes_nothing() {
    let db = Database::small("fails");
    let (bytes, findings) = db.backup();
    db.sql("INSERT INTO b VALUES (4)");
    for left in [0, 1, 100, 5_000, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        let stream = Failing { inner: Cursor::new(&bytes), left };
        let error = fails_and_changes_nothing(&db, db.engine().as_ref(), stream, &findings.counts);
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::Authentication, "segment 1 does not authenticate"),
            "{left}"
        );
    }
}

#[test]
fn a_cut_dump_changes_nothing() {
    let db = Database::small("cut");
    let (bytes, findings) = db.backup();
    for left in [0, 4, 1000, bytes.len() / 2, bytes.len() - 1] {
        // Without the inspector: the engine looks for itself.
        let request = Request::new(Destination::InPlace, findings.counts.clone());
        let error = db.engine().restore(&mut Cursor::new(&bytes[..left]), &request, &cx()).expect_err("it is cut");
        assert_eq!(error.kind, Kind::Tool);
        assert!(error.message.contains("not whole") || error.message.contains("empty"), "{error}");
        db.assert_nothing_left();
    }
    let mut longer = bytes;
    longer.push(0);
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&longer), &findings.counts);
    assert!(error.message.contains("something follows its end"), "{error}");
}

#[test]
fn damaged_data_changes_nothing() {
    let db = Database::small("damage");
    let (bytes, findings) = db.backup();
    let row = bytes.windows(6).position(|window| window == b"4999\tx").unwrap();
    // A newline that becomes something else joins two rows; a digit that becomes a letter is no number.
    for (at, byte) in [(row - 1, b'?'), (row, b'?')] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &findings.counts);
    }
    // A row that vanishes without a trace in the structure is found by its count.
    let mut fewer = findings.counts.clone();
    fewer.insert("public.b".into(), Some(4));
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &fewer);
    assert!(
        error.message.ends_with("after the load there are 3 rows in table public.b, the backup holds 4"),
        "{error}"
    );
    fewer.insert("public.b".into(), Some(3));
    fewer.insert("public.gone".into(), Some(1));
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &fewer);
    assert!(error.message.contains("there are no rows in table public.gone, the backup holds 1"), "{error}");
}

#[test]
fn a_missing_role_changes_nothing() {
    let db = Database::small("role");
    let role = format!("vx_gone_{}", std::process::id());
    db.sql(&format!("CREATE ROLE {role}; ALTER TABLE b OWNER TO {role};"));
    let (bytes, findings) = db.backup();
    db.sql(&format!("ALTER TABLE b OWNER TO postgres; DROP ROLE {role};"));
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &findings.counts);
    assert!(error.message.contains("pg_restore failed with exit status 1"), "{error}");
    assert!(error.tail.iter().any(|line| line.contains(&role)), "{error:?}");
    assert!(error.hint.as_deref().unwrap_or_default().contains(&format!("CREATE ROLE \"{role}\"")), "{error:?}");

    let engine = open(Settings { restore_args: vec!["--no-owner".into()], ..settings(&db.server, &db.name) });
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
}

#[test]
fn clients_that_hammer_see_the_old_or_the_new_database() {
    let db = Database::small("hammer");
    let (bytes, findings) = db.backup();
    let before = db.all();
    db.sql("CREATE TABLE hammered (i serial, t text)");
    let done = AtomicBool::new(false);
    let connected = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (db, done, connected) = (&db, &done, &connected);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let sql = if client % 2 == 0 {
                        "SELECT count(*) FROM a;".to_owned()
                    } else {
                        "INSERT INTO hammered (t) SELECT 'x' FROM generate_series(1, 100); SELECT pg_sleep(0.5);"
                            .to_owned()
                    };
                    match db.server.try_sql(&db.name, &sql) {
                        Ok(count) => {
                            connected.fetch_add(1, Ordering::SeqCst);
                            assert!(client % 2 == 1 || count == "5000", "{count}");
                        }
                        Err(error) => assert!(
                            ["terminat", "does not exist", "closed", "connection"]
                                .iter()
                                .any(|sign| error.contains(sign)),
                            "{error}"
                        ),
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..3 {
            let outcome = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
            if outcome.is_err() {
                done.store(true, Ordering::SeqCst);
            }
            assert_eq!(outcome.unwrap().notes, Vec::<String>::new());
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(connected.load(Ordering::SeqCst) > 0);
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
}

#[test]
fn into_another_name() {
    let db = Database::small("into");
    let (bytes, findings) = db.backup();
    let before = db.all();
    db.server
        .admin(&format!("REVOKE ALL ON DATABASE {0} FROM PUBLIC; COMMENT ON DATABASE {0} IS 'mine'", ident(&db.name)));
    let copy = Database::empty("in");
    copy.server.admin(&format!("DROP DATABASE {}", ident(&copy.name)));
    let into = || Destination::Into(copy.name.clone());
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), into(), &findings.counts).unwrap();
    assert_eq!(restored.counts, findings.counts);
    let content = |all: &str| all.rsplit_once("PostgreSQL database dump complete").unwrap().0.to_owned();
    assert_eq!(content(&copy.all()), content(&before));
    assert_eq!(copy.server.properties(&copy.name).replace(&copy.name, &db.name), db.server.properties(&db.name));
    assert_eq!(content(&db.all()), content(&before));
    copy.assert_nothing_left();

    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), into(), &findings.counts).expect_err("it is taken");
    assert!(error.message.ends_with(&format!("there is a database {} already", copy.name)), "{error}");
    let long = Destination::Into("x".repeat(64));
    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), long, &findings.counts).expect_err("too long");
    assert!(error.message.contains("1 to 63 bytes"), "{error}");
}

#[test]
fn a_drill_counts_and_leaves_nothing() {
    let db = Database::small("drill");
    let (bytes, findings) = db.backup();
    let before = db.all();
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &Counts::new()).unwrap();
    assert_eq!(restored.counts, findings.counts);
    assert_eq!(restored.counts.get("public.a"), Some(&Some(5000)));
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
}

fn check(query: &str, expect: &str) -> Check {
    Check { name: None, query: vec![query.to_owned()], expect: expect.to_owned() }
}

fn drill(db: &Database, dump: &[u8], expected: &Counts, checks: &[Check]) -> Result<Restored> {
    let request = Request { checks: checks.to_vec(), ..Request::new(Destination::Drill, expected.clone()) };
    let outcome = db.engine().restore(&mut inspected(dump), &request, &cx());
    db.assert_nothing_left();
    outcome
}

#[test]
fn a_backup_with_the_wrong_rows_is_caught() {
    let db = Database::small("wrong rows");
    db.sql(
        "CREATE SCHEMA \"s t\"; CREATE VIEW \"s t\".v AS SELECT count(*) AS n FROM b; UPDATE b SET i = 7 WHERE i = 3;",
    );
    let (bytes, findings) = db.backup();
    let good = [
        check("SELECT count(*) > 4000 FROM a", "t"),
        check("SELECT n, E'x:y\\n\\\\!' FROM \"s t\".v; -- that's all", "3|x:y\n\\!\n"),
        check("SELECT i FROM b ORDER BY i", "1\n2\n7"),
    ];
    drill(&db, &bytes, &findings.counts, &good).unwrap();
    // By what was counted when it was made.
    let mut counted = findings.counts.clone();
    counted.insert("public.b".to_owned(), Some(4));
    let error = drill(&db, &bytes, &counted, &good).unwrap_err();
    assert!(error.message.contains("there are 3 rows in table public.b, the backup holds 4"), "{error}");
    // The number is right and the rows are not.
    let named = Check { name: Some("no seven".to_owned()), ..check("SELECT 7 IN (SELECT i FROM b)", "f") };
    let error = drill(&db, &bytes, &findings.counts, &[named]).unwrap_err();
    assert_eq!(error.kind, Kind::Tool);
    assert!(error.message.ends_with(r#"check "no seven": expected "f", found "t""#), "{error}");
    assert!(error.hint.is_some());
    let before = db.all();
    for (query, why) in [
        ("DELETE FROM b RETURNING 1", "read-only transaction"),
        ("SELECT 1 FROM nowhere", "nowhere"),
        ("\\! touch /tmp/voxeltron-check-ran", "syntax error"),
    ] {
        let error = drill(&db, &bytes, &findings.counts, &[check(query, "1")]).unwrap_err();
        assert!(error.message.contains("check ") && error.tail.join(" ").contains(why), "{query}: {error:?}");
    }
    assert!(!Path::new("/tmp/voxeltron-check-ran").exists());
    assert_eq!(db.all(), before);
    // Time is up for a check as for all else.
    let request = Request {
        checks: vec![check("SELECT pg_sleep(600)", "")],
        ..Request::new(Destination::Drill, findings.counts.clone())
    };
    let late = cx();
    let late = Cx { deadline: Some(late.world.clock.monotonic() + Duration::from_secs(10)), ..late };
    let error = db.engine().restore(&mut inspected(&*bytes), &request, &late).unwrap_err();
    assert!(error.message.contains("did not finish within its time"), "{error}");
    db.assert_nothing_left();
}

#[test]
fn dumps_of_other_shapes_come_back() {
    let db = Database::small("shapes");
    db.sql(
        "CREATE TABLE p (k int) PARTITION BY HASH (k); CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO p SELECT generate_series(1, 99);",
    );
    let before = db.all();
    for (args, counted) in [
        (vec!["--inserts"], false),
        (vec!["--rows-per-insert=100", "--column-inserts"], false),
        (vec!["--load-via-partition-root"], true),
        (vec!["--no-tablespaces", "-v", "--no-sync"], true),
    ] {
        let dump_args = args.iter().map(|&arg| arg.to_owned()).collect();
        let engine = open(Settings { dump_args, ..settings(&db.server, &db.name) });
        let (bytes, findings) = dump(engine.as_ref()).unwrap();
        assert_eq!(findings.counts.get("public.a"), Some(&counted.then_some(5000)), "{args:?}");
        db.sql("DROP TABLE a");
        let restored = restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        assert_eq!(restored.counts.get("public.a"), Some(&Some(5000)));
        assert_eq!(db.all(), before, "{args:?}");
    }
}

#[test]
fn a_part_of_a_database_never_takes_the_place_of_the_whole() {
    let db = Database::small("part");
    db.sql("CREATE SCHEMA keep; CREATE TABLE keep.k (i int); INSERT INTO keep.k VALUES (1)");
    let before = db.all();
    for args in [&["-t", "public.a"][..], &["-n", "public"], &["--schema=keep"]] {
        let dump_args = args.iter().map(|&arg| arg.to_owned()).collect();
        let engine = open(Settings { dump_args, ..settings(&db.server, &db.name) });
        // What the manifest says of it, and a restore in place refuses.
        assert!(engine.partial().is_some(), "{args:?}");
        let (bytes, findings) = dump(engine.as_ref()).unwrap();
        if args == ["-n", "public"] {
            // This one shows in the archive, too.
            let error = restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts)
                .expect_err("the rest would be lost");
            assert!(error.message.contains("holds a part of") && error.hint.unwrap().contains("--into"), "{args:?}");
        }
        assert_eq!(db.all(), before, "{args:?}");
        db.assert_nothing_left();
        // Beside it, it comes back.
        let restored = restore(engine.as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
        assert_eq!(restored.counts, findings.counts, "{args:?}");
    }
}

#[test]
fn through_a_socket() {
    let db = Database::small("socket");
    let folders = db.server.admin("SHOW unix_socket_directories");
    let (folder, port) = (folders.split(',').next().unwrap().trim(), db.server.admin("SHOW port"));
    let user = db.server.admin("SELECT current_user");
    let password = Some(Secret::new(db.server.password.clone()));
    let name = percent(&db.name);
    for url in [
        format!("postgres://{user}@/{name}?host={folder}&port={port}"),
        format!("postgresql://{user}:not-this-one@{}:{port}/{name}", percent(folder)),
    ] {
        let settings = Settings { url: Secret::new(url), password: password.clone(), ..settings(&db.server, &db.name) };
        let engine = open(settings);
        engine.probe(&cx()).unwrap();
        let (bytes, findings) = dump(engine.as_ref()).unwrap();
        restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    }
}

#[test]
fn what_a_killed_restore_left_is_swept_and_nothing_else() {
    let db = Database::small("sweep");
    let (bytes, findings) = db.backup();
    let mark = format!("voxeltron-backup: left by a restore of {} since 2020-01-01T00:00:00Z", db.name);
    let named = |end: &str| format!("{}{end}", db.name);
    // Somebody may be at work on a young one that no session answers for, as one of an older version of this program.
    let now = cx().world.clock.now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let young = mark.replace("2020-01-01T00:00:00Z", &now);
    let answered_for = format!("{young}, unless its session is still there");
    let all = [
        "__restoring_0123abcd",
        "__old_0123abcd",
        "__old_ffffffff",
        "__old_precious",
        "__restoring_aaaaaaaa",
        "__restoring_bbbbbbbb",
    ]
    .map(named);
    for (name, comment) in all.iter().zip([&mark, &mark, "mine", &mark, &answered_for, &young]) {
        db.server.admin(&format!(
            "CREATE DATABASE {0} TEMPLATE template0; COMMENT ON DATABASE {0} IS {1};",
            ident(name),
            literal(comment)
        ));
    }
    let probe = db.engine().probe(&cx()).unwrap();
    let drilled = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
    let left = db.server.leftovers(&db.name);
    let precious = db.server.admin(&format!("SELECT count(*) FROM pg_database WHERE datname = {}", literal(&all[3])));
    for name in &all {
        db.server.admin(&format!("DROP DATABASE IF EXISTS {};", ident(name)));
    }
    assert_eq!(sorted(left), [all[2].clone(), all[5].clone()]);
    assert_eq!(precious, "1");
    assert_eq!(probe.warnings.len(), 4, "{:?}", probe.warnings);
    let dropped = |name: &String| format!("dropped {name}, which an interrupted restore had left");
    assert_eq!(sorted(drilled.notes), [dropped(&all[0]), dropped(&all[4])]);
    assert_eq!(restored.unwrap().notes, [dropped(&all[1])]);
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let db = Database::small("signal");
    let (bytes, findings) = db.backup();
    let before = db.all();
    let cx = cx();
    struct Stopping<R>(R, Cx, usize);
    impl<R: Read> Read for Stopping<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let room = buffer.len().min(16 * 1024);
            self.2 += 1;
            if self.2 == 10 {
                self.1.world.cancel.stop(15);
            }
            self.0.read(&mut buffer[..room])
        }
    }
    let request = Request::new(Destination::InPlace, findings.counts);
    let mut stream = Stopping(Cursor::new(&bytes), cx.clone(), 0);
    let error = db.engine().restore(&mut stream, &request, &cx).expect_err("it was stopped");
    assert_eq!(error.kind, Kind::Stopped(15));
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
}

#[test]
fn a_tool_that_is_too_old_is_named_with_the_mend() {
    let db = Database::empty("old");
    let folder = tempfile::tempdir().unwrap();
    for tool in ["psql", "pg_restore"] {
        std::os::unix::fs::symlink(db.server.bin.join(tool), folder.path().join(tool)).unwrap();
    }
    script(&folder.path().join("pg_dump"), "echo 'pg_dump (PostgreSQL) 12.3 (fake)'");
    let engine = open(Settings { tools_dir: Some(folder.path().into()), ..settings(&db.server, &db.name) });
    let error = engine.probe(&cx()).expect_err("12 is older");
    assert_eq!(error.kind, Kind::Tool);
    assert!(error.message.contains("pg_dump 12.3 (fake) is older than the server, which is "), "{error}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("tools_dir"), "{error:?}");

    let probe = db.engine().probe(&cx()).unwrap();
    assert!(probe.tool_version.is_some() && probe.server_version.is_some(), "{probe:?}");
    assert_eq!(probe.warnings.len(), 1, "that it is empty: {probe:?}");
}

fn script(path: &Path, body: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_dump_tool_that_dies_is_an_error_of_the_stream() {
    let db = Database::small("dies");
    let (bytes, _) = db.backup();
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("half");
    for (count, status) in [(bytes.len() / 2, 0), (bytes.len() / 2, 1), (bytes.len(), 1), (0, 0)] {
        std::fs::write(&half, &bytes[..count]).unwrap();
        script(
            &folder.path().join("pg_dump"),
            &format!("cat {}; echo 'last words' >&2; exit {status}", half.display()),
        );
        let engine = open(Settings { tools_dir: Some(folder.path().into()), ..settings(&db.server, &db.name) });
        let error = dump(engine.as_ref()).expect_err("it died");
        assert_eq!(error.kind, Kind::Tool, "{count} {status}");
        assert_eq!(error.tail, if status == 1 { vec!["last words".to_owned()] } else { vec![] });
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let db = Database::empty("errors");
    let probe = |settings: Settings| open(settings).probe(&cx()).expect_err("it must fail");
    let good = || settings(&db.server, &db.name);

    let error = probe(Settings { password: Some(Secret::new("wrong-canary")), ..good() });
    assert!(error.message.contains("the server refuses the password of postgres"), "{error:?}");
    assert_eq!(error.hint.as_deref(), Some("set [databases.mydb] password"));
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");

    let error = probe(Settings { url: Secret::new(db.server.url("not there")), ..good() });
    assert!(error.message.contains("there is no database not there at "), "{error:?}");
    assert!(error.hint.is_some());

    let error = probe(Settings { url: Secret::new("postgres://u:canary@127.0.0.1:1/d"), ..good() });
    assert!(error.message.contains("no server answers at 127.0.0.1:1"), "{error:?}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");

    let error = probe(Settings { url: Secret::new("postgres://u@%2Fnowhere/d"), ..good() });
    assert!(error.message.contains("no server answers at /nowhere"), "{error:?}");

    let error = probe(Settings { tools_dir: Some("/nowhere".into()), ..good() });
    assert!(error.message.contains("can't start /nowhere/pg_dump"), "{error:?}");

    let error = probe(Settings { url: Secret::new(format!("{}?nonsense=1", db.server.url(&db.name))), ..good() });
    assert!(error.message.contains("the url has a parameter that these tools don't know"), "{error:?}");

    let engine = open(Settings { url: Secret::new(db.server.url("not there")), ..good() });
    let error = dump(engine.as_ref()).expect_err("there is nothing to dump");
    assert!(error.tail.iter().any(|line| line.contains("\"not there\" does not exist")), "{error:?}");
}

#[test]
fn a_user_who_may_not_create_databases_is_told_so() {
    let db = Database::small("createdb");
    let (bytes, findings) = db.backup();
    let role = format!("vx_poor_{}", std::process::id());
    db.server.admin(&format!("CREATE ROLE {role} LOGIN PASSWORD 'poor'"));
    let url = db.server.url(&db.name);
    let host = url.rsplit_once('@').unwrap().1;
    let poor =
        || Settings { url: Secret::new(format!("postgres://{role}:poor@{host}")), ..settings(&db.server, &db.name) };
    let error = fails_and_changes_nothing(&db, open(poor()).as_ref(), Cursor::new(&bytes), &findings.counts);
    db.server.admin(&format!("ALTER ROLE {role} CREATEDB"));
    let other = fails_and_changes_nothing(&db, open(poor()).as_ref(), Cursor::new(&bytes), &findings.counts);
    // To look whether the backup is good, being its reader and CREATEDB is enough.
    db.sql(&format!(
        "GRANT pg_read_all_data TO {role}; SELECT lo_create(77); GRANT SELECT ON LARGE OBJECT 77 TO {role}"
    ));
    let drill = Settings { restore_args: vec!["--no-owner".into(), "--no-privileges".into()], ..poor() };
    let drilled = restore(open(drill).as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts);
    // As the owner, without being a superuser, it works.
    db.server.admin(&format!("ALTER DATABASE {} OWNER TO {role}", ident(&db.name)));
    db.sql(&format!("ALTER TABLE a OWNER TO {role}; ALTER TABLE b OWNER TO {role}"));
    let findings_before = findings.counts;
    db.sql(&format!("ALTER LARGE OBJECT 77 OWNER TO {role}"));
    let (bytes, findings) = dump(open(poor()).as_ref()).unwrap();
    let before = db.all();
    let restored = restore(open(poor()).as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
    let after = db.all();
    db.server.admin(&format!("DROP DATABASE {} WITH (FORCE); DROP ROLE {role};", ident(&db.name)));
    assert!(error.message.contains("may not create databases, and in a transaction of"), "{error:?}");
    assert!(error.hint.unwrap().starts_with(&format!("as a superuser: ALTER ROLE \"{role}\" CREATEDB")));
    assert_eq!(drilled.unwrap().counts, findings_before);
    assert!(other.message.contains("which postgres owns"), "{other:?}");
    assert_eq!(restored.unwrap().notes, Vec::<String>::new());
    similar(&before, &after);
}

#[test]
fn the_password_stands_in_no_process_list() {
    let db = Database::small("password");
    db.sql("INSERT INTO a SELECT n, repeat('y', 1000) FROM generate_series(10000, 60000) n");
    let url = db.server.url(&db.name).replace('@', ":@").replace(&format!(":{}:@", db.server.password), "@");
    let url = format!("{url}?password={}", db.server.password);
    let engine = open(Settings { url: Secret::new(url), ..settings(&db.server, &db.name) });
    let done = AtomicBool::new(false);
    let (mut seen, mut shown) = (false, Vec::new());
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let (bytes, findings) = dump(engine.as_ref()).unwrap();
            restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) && !worker.is_finished() {
            for line in command_lines() {
                // The test's own psql takes a URL; what counts are the engine's children, which take name='value'.
                let ours = line.contains("--no-password") && line.contains(&db.name);
                seen |= ours && line.contains("pg_dump");
                if ours && line.contains(&db.server.password) {
                    shown.push(line);
                }
            }
        }
    });
    assert!(seen, "pg_dump was never seen in the list");
    assert_eq!(shown, Vec::<String>::new());
}

fn command_lines() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

#[test]
fn names_in_other_encodings_come_back() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let db = Database::empty(encoding);
        db.server.admin(&format!(
            "DROP DATABASE {0}; CREATE DATABASE {0} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C';",
            ident(&db.name)
        ));
        db.sql("SET client_encoding = LATIN1; CREATE TABLE plain (i int); INSERT INTO plain VALUES (1)");
        // In SQL_ASCII the name is whatever bytes the client sends: here those of LATIN1, which are no UTF-8.
        db.sql_bytes(b"SET client_encoding = LATIN1; CREATE TABLE \"\xe9\" (i int); INSERT INTO \"\xe9\" VALUES (2);");
        let before = db.all();
        let (bytes, findings) = db.backup();
        assert_eq!(findings.counts.get("public.plain"), Some(&Some(1)));
        db.sql("DROP TABLE plain");
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        assert_eq!(db.all(), before);
    }
}

#[test]
fn without_a_live_database() {
    let db = Database::small("absent");
    db.server.admin(&format!(
        "COMMENT ON DATABASE {0} IS 'mine'; ALTER DATABASE {0} SET work_mem TO '7MB'",
        ident(&db.name)
    ));
    let (bytes, findings) = db.backup();
    let before = db.all();
    db.server.admin(&format!("DROP DATABASE {}", ident(&db.name)));
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    // A stream that fails makes no database.
    let stream = Failing { inner: Cursor::new(&bytes), left: bytes.len() };
    restore(db.engine().as_ref(), stream, Destination::InPlace, &findings.counts).expect_err("it fails");
    let there =
        |name: &str| db.server.admin(&format!("SELECT count(*) FROM pg_database WHERE datname = {}", literal(name)));
    assert_eq!(there(&db.name), "0");
    db.assert_nothing_left();
    // Under another name its statements do not fit, and that is said.
    let copy = Database::empty("elsewhere");
    db.server.admin(&format!("DROP DATABASE {}", ident(&copy.name)));
    let into = Destination::Into(copy.name.clone());
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), into, &findings.counts).unwrap();
    assert!(restored.notes.iter().any(|note| note.contains("were not carried over")), "{:?}", restored.notes);
    assert_eq!(there(&db.name), "0");
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(db.all(), before);
}

#[test]
fn every_locale_provider_comes_back() {
    let server = Server::get();
    let mut providers = vec![("LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'", "i|de-u-co-phonebk")];
    if server.admin("SHOW server_version_num").parse::<u32>().unwrap() >= 170_000 {
        providers.push(("LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'", "b|C.UTF-8"));
    }
    for (create, expected) in providers {
        let db = Database::empty("provider");
        let name = ident(&db.name);
        db.server.admin(&format!("DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0 {create};"));
        db.sql("CREATE TABLE a (t text PRIMARY KEY); INSERT INTO a VALUES ('ä'), ('ad'), ('af')");
        let provider = || {
            let name = literal(&db.name);
            db.server.admin(&format!(
                "SELECT datlocprovider, coalesce(to_json(d) ->> 'datlocale', to_json(d) ->> 'daticulocale') FROM pg_database d
                 WHERE datname = {name}"
            ))
        };
        let (bytes, findings) = db.backup();
        let before = db.all();
        assert_eq!(provider(), expected);
        db.sql("DELETE FROM a");
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        assert_eq!((db.all(), provider()), (before, expected.to_owned()));
    }
}

/// Names the database that [`killed_at_any_instant`] lets its child restore, and the dump's file.
const CHILD: &str = "VOXELTRON_TEST_POSTGRES_CHILD";

#[test]
fn killed_at_any_instant() {
    if let Ok(child) = std::env::var(CHILD) {
        let (file, name) = child.split_once('\n').unwrap();
        let engine = open(settings(&Server::get(), name));
        restore(engine.as_ref(), std::fs::File::open(file).unwrap(), Destination::InPlace, &Counts::new()).unwrap();
        return;
    }
    let db = Database::small("killed");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    db.sql("INSERT INTO b VALUES (4)");
    let changed = db.all();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    std::fs::write(&file, &bytes).unwrap();
    let (mut old, mut new) = (0, 0);
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_at_any_instant", "--nocapture"])
            .env(CHILD, format!("{}\n{}", file.display(), db.name))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    // Wider steps where a whole one takes long.
    let began = std::time::Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = u64::try_from(began.elapsed().as_millis()).unwrap();
    db.sql("INSERT INTO b VALUES (4)");
    let pause = u64::from(cutter::points(40, 10)).max(whole / u64::from(cutter::points(25, 100)));
    for step in 0.. {
        let mut child = start();
        std::thread::sleep(Duration::from_millis(pause * step));
        let done = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had started ends by itself: its input is at its end.
        for _ in 0..1200 {
            let left =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^(psql|pg_restore)$' AND query ~ ";
            let sessions = format!("{left}{} AND pid <> pg_backend_pid()", literal(&db.name));
            let inside = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE {}",
                literal(&format!("{}\\_\\_%", db.name))
            );
            if db.server.admin(&sessions) == "0" && db.server.admin(&inside) == "0" {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let now = db.all();
        assert!(now == changed || now == restored, "after {} ms", pause * step);
        *(if now == changed { &mut old } else { &mut new }) += 1;
        for name in db.server.leftovers(&db.name) {
            let comment = format!(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {}",
                literal(&name)
            );
            let comment = db.server.admin(&comment);
            assert!(comment.starts_with("voxeltron-backup: left by a restore of"), "{name}: {comment}");
            // It stays for the next restore, here the next child.
        }
        if now == restored {
            db.sql("INSERT INTO b VALUES (4)");
        }
        if done {
            break;
        }
    }
    assert!(old > 0 && new > 0, "{old} times the old one, {new} times the new one");
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(db.all(), restored);
    db.assert_nothing_left();
}
