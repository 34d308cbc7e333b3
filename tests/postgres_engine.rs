//! The PostgreSQL engine against a real server: data that hurts comes back the same, and whatever fails leaves the live
//! database as it was. Wants `VOXELTRON_TEST_POSTGRES_URL` (a superuser's URL with a password) and
//! `VOXELTRON_TEST_POSTGRES_BIN` (the folder of the tools); without them every test fails, none is skipped.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use voxeltron_backup::engine::{
    Counts, Cx, Destination, Engine, Findings, Inspected, Request, Restored, Settings, kind,
};
use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::World;

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
        let mut psql = self.tool("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-f", "-"]);
        psql.stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = psql.spawn().expect("psql starts");
        let mut stdin = child.stdin.take().unwrap();
        let sql = sql.to_owned();
        let writer = std::thread::spawn(move || drop(io::Write::write_all(&mut stdin, sql.as_bytes())));
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
        let start: String = database.chars().take(8).collect();
        self.admin("SELECT datname FROM pg_database WHERE datname ~ '__(restoring|old)_[0-9a-f]{8}$';")
            .lines()
            .filter(|name| name.starts_with(&start))
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
    Settings {
        database: "mydb".into(),
        url: Secret::new(server.url(database)),
        password: None,
        tools_dir: Some(server.bin.clone()),
        dump_args: vec![],
        restore_args: vec![],
    }
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
    let request = Request { destination, expected: expected.clone(), server_version: None };
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
    let (again, _) = db.backup();
    assert_eq!(again.len(), bytes.len());

    // The live database is gone: the archive's own properties serve.
    server.admin(&format!("DROP DATABASE {name} WITH (FORCE);"));
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    similar(&before, &db.all());
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
