//! Dump tools of MySQL, MariaDB, Redis, Valkey and MongoDB that die in every way, and connections that are cut while a dump is
//! under way, PostgreSQL's too.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{Database, Sandbox, from_runner, tool};
use crate::cutter::{Cut, Cutter};
use crate::{KEY, files};

#[path = "../mongodb_engine/support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod mongo;
#[path = "../redis_engine/support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod redis;

/// A database with enough in it that a dump has a middle.
trait Live {
    /// The engine's name in the configuration, and its URL.
    fn place(&self) -> (&str, String);
    /// Its password, where the URL has none.
    fn password(&self) -> Option<&str> {
        None
    }
    /// Where it is, as `host:port` in the URL.
    fn server(&self) -> String;
    /// The folder of its real tools, the one that dumps, the others, and how a call of it that does not dump is told, as a
    /// pattern of the shell's.
    fn tools(&self) -> (PathBuf, &str, &[&str], &str) {
        let (folder, dumps, others) = self.plain_tools();
        (folder, dumps, others, "*--version*")
    }
    fn plain_tools(&self) -> (PathBuf, &str, &[&str]);
    /// Takes a part of it away.
    fn spoil(&self);
    /// What a spoilt one has not, and a restored one has again.
    fn all(&self) -> String;
}

/// Where a dump is cut: behind so many bytes, or so many before its end.
const CUTS: [&str; 8] = ["1", "5", "100", "4000", "20000", "-1", "-2", "-100"];

struct Dying<'a> {
    live: &'a dyn Live,
    sandbox: Sandbox,
}

impl<'a> Dying<'a> {
    /// With one good backup.
    fn new(live: &'a dyn Live) -> Self {
        let this = Self { live, sandbox: Sandbox::new() };
        this.configure("10m", &live.tools().0, None);
        this.sandbox.command(&["-q", "run-job", "shop"]).run();
        assert_eq!(files(&this.sandbox.store()).len(), 2, "one good backup");
        this
    }

    fn configure(&self, timeout: &str, tools: &Path, port: Option<u16>) {
        let (engine, url) = self.live.place();
        let url = port.map_or(url.clone(), |port| url.replace(&self.live.server(), &format!("127.0.0.1:{port}")));
        let password = self.live.password().map_or_else(String::new, |it| format!("password = {it:?}\n"));
        self.sandbox.configure_local(
            Some(KEY),
            &format!(
                "[databases.shop]\nengine = \"{engine}\"\nurl = {url:?}\n{password}tools_dir = \"{}\"\n[[backup.jobs]]\n\
                 database = \"shop\"\nschedule = \"@daily\"\nencrypt = true\ntimeout = \"{timeout}\"\nkeep_last = 1\n",
                tools.display()
            ),
        );
    }

    /// `script` stands for the tool that dumps, with the real one in `$real`.
    fn with(&self, timeout: &str, script: &str) {
        let (folder, dumps, others, asks) = self.live.tools();
        let real = folder.join(dumps).display().to_string();
        let tools = self
            .sandbox
            .fake_tool(dumps, &format!("real={real}\ncase \"$*\" in {asks}) exec $real \"$@\";; esac\n{script}"));
        for name in others {
            let link = tools.join(name);
            if !link.exists() {
                std::os::unix::fs::symlink(folder.join(name), link).unwrap();
            }
        }
        self.configure(timeout, &tools, None);
    }

    /// The run fails since this script says its last words and then never ends, and a job may take no longer than a few
    /// seconds. On a slow machine they may be over before the script has begun, which proves nothing: then it gets more.
    #[track_caller]
    fn hangs(&self, what: &str, script: &str) {
        let began = ["4s", "16s", "1m", "4m"].into_iter().any(|timeout| {
            self.with(timeout, script);
            let said = self.fails(what);
            assert!(said.contains("did not finish within its time"), "{what}: {said}");
            said.contains("  | the last words")
        });
        assert!(began, "{what}: it never says a word");
    }

    /// The run fails as it should; gives what it said.
    #[track_caller]
    fn fails(&self, what: &str) -> String {
        let before = files(&self.sandbox.store());
        let said =
            self.sandbox.command(&["run-job", "shop"]).exits(13).stderr_has("error: job shop@local: ").run().stderr;
        assert_eq!(files(&self.sandbox.store()), before, "{what}: nothing new, nothing gone: {said}");
        let data: Vec<_> =
            std::fs::read_dir(self.sandbox.data_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let left = data.iter().filter(|name| name.to_string_lossy().starts_with('.')).count();
        assert_eq!(left, 0, "{what}: {data:?}");
        said
    }

    /// The backup from before is good, and still the latest.
    #[track_caller]
    fn comes_back(&self) {
        self.configure("10m", &self.live.tools().0, None);
        self.sandbox.command(&["verify", "shop"]).stdout_has(": good").run();
        let whole = self.live.all();
        self.live.spoil();
        assert!(self.live.all() != whole);
        self.sandbox.command(&["-q", "restore", "shop", "--latest"]).run();
        assert_eq!(self.live.all(), whole, "the backup before is still the latest");
    }
}

fn dies_in_every_way(live: &dyn Live, cuts: &[&str]) {
    let dying = Dying::new(live);
    let dumps = live.tools().1;
    let last = |said: &str| assert!(said.contains("  | the last words"), "{said}");
    dying.with("10m", "$real \"$@\" | head -c 20000; echo 'the last words' >&2; kill -9 $$");
    let said = dying.fails("dies after some bytes");
    assert!(said.contains(&format!("{dumps} was killed by signal 9")), "{said}");
    last(&said);
    dying.with("10m", "$real \"$@\"; echo 'the last words' >&2; exit 1");
    let said = dying.fails("exits 1 after complete output");
    assert!(said.contains(&format!("{dumps} failed with exit status 1")), "{said}");
    last(&said);
    dying.with("10m", "exit 0");
    dying.fails("prints nothing and exits 0");
    for length in cuts {
        dying.with("10m", &format!("$real \"$@\" | head -c {length}; exit 0"));
        dying.fails(&format!("is cut with exit 0 at {length}"));
    }
    dying.with("10m", "$real \"$@\"; printf x");
    dying.fails("has bytes after its end");
    dying.with("10m", "echo 'Usage: dump [OPTION]...'");
    dying.fails("prints something else");
    // Said first, since how far the real tool comes in this time is the machine's affair.
    dying.hangs("hangs past its timeout", "echo 'the last words' >&2; $real \"$@\" | head -c 20000; sleep 600");
    let heedless = "trap '' TERM; echo 'the last words' >&2; while :; do sleep 1; done";
    dying.hangs("ignores SIGTERM past its timeout", heedless);
    dying.comes_back();
}

/// With each cut the tool is the real one.
fn loses_its_connection(live: &dyn Live) {
    let dying = Dying::new(live);
    let cutter = Cutter::new(&live.server());
    let tools = live.tools().0;
    dying.configure("10m", &tools, Some(cutter.port));
    cutter.arm(Cut::Never, Duration::ZERO);
    dying.sandbox.command(&["-q", "run-job", "shop"]).run();
    let whole = cutter.passed();
    assert!(whole > 500_000, "{whole} bytes are too few for a middle");
    for part in [40, 60, 80, 95] {
        cutter.arm(Cut::Bytes(whole * part / 100), Duration::ZERO);
        let said = dying.fails(&format!("cut at {part} of 100"));
        assert!(cutter.happened(), "{part}: {said}");
    }
    drop(cutter);
    dying.comes_back();
}

struct Sql {
    name: String,
    server: String,
    maria: bool,
}

impl Sql {
    fn new(maria: bool) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let server = from_runner(if maria { "VOXELTRON_TEST_MARIADB_URL" } else { "VOXELTRON_TEST_MYSQL_URL" });
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let this = Self { name: format!("dead_{}_{number}", std::process::id()), server, maria };
        this.sql("mysql", &format!("CREATE DATABASE {} CHARACTER SET utf8mb4", this.name));
        let double = "INSERT INTO t (x) SELECT CONCAT(SHA2(RAND(), 512), REPEAT(SHA2(i, 512), 3)) FROM t;".repeat(12);
        this.sql(
            &this.name,
            &format!(
                "CREATE TABLE t (i INT PRIMARY KEY AUTO_INCREMENT, x VARCHAR(1000)); INSERT INTO t (x) VALUES ('a'); {double}
                 CREATE VIEW v AS SELECT i FROM t; CREATE TRIGGER tr BEFORE INSERT ON `t` FOR EACH ROW SET NEW.i = NEW.i;"
            ),
        );
        this
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let rest = self.server.split_once("://").unwrap().1;
        let (credentials, place) = rest.split_once('/').unwrap().0.rsplit_once('@').unwrap();
        let (user, password) = credentials.split_once(':').unwrap();
        let (host, port) = place.split_once(':').unwrap();
        let mut client = Command::new(self.plain_tools().0.join("mysql"));
        client.args([
            "--no-defaults",
            "-h",
            host,
            "-P",
            port,
            "-u",
            user,
            "--batch",
            "--raw",
            "--skip-column-names",
            database,
        ]);
        tool(client.env("MYSQL_PWD", password), sql.as_bytes())
    }
}

impl Live for Sql {
    fn place(&self) -> (&str, String) {
        ("mysql", format!("{}/{}", self.server.rsplit_once('/').unwrap().0, self.name))
    }

    fn server(&self) -> String {
        self.server.rsplit_once('@').unwrap().1.split_once('/').unwrap().0.to_owned()
    }

    fn plain_tools(&self) -> (PathBuf, &str, &[&str]) {
        match self.maria {
            true => ("/usr/bin".into(), "mariadb-dump", &["mariadb", "mysql"]),
            false => (from_runner("VOXELTRON_TEST_MYSQL_TOOLS").into(), "mysqldump", &["mysql"]),
        }
    }

    fn spoil(&self) {
        self.sql(&self.name, "DELETE FROM t WHERE i > 10; DROP VIEW v");
    }

    fn all(&self) -> String {
        let checksum = "SELECT COUNT(*), SUM(CRC32(x)) FROM t; SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1";
        self.sql(&self.name, checksum) + &self.sql("mysql", &format!("SHOW DATABASES LIKE '{}%'", self.name))
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sql("mysql", &format!("DROP DATABASE {}", self.name));
        }
    }
}

struct Cache(redis::Server, PathBuf);

impl Cache {
    fn new(which: redis::Which) -> Self {
        let this = Self(redis::Server::new(which), which.tools());
        let value =
            |i: u32| (0..60).map(|n| format!("{:08x}", (i * 61 + n).wrapping_mul(2_654_435_761))).collect::<String>();
        let set = |i: u32| vec![b"SET".to_vec(), format!("k{i}").into_bytes(), value(i).into_bytes()];
        this.0.pipe(&(0..4000).map(set).collect::<Vec<_>>());
        this
    }
}

impl Live for Cache {
    fn place(&self) -> (&str, String) {
        ("redis", self.0.url())
    }

    fn password(&self) -> Option<&str> {
        Some(redis::PASSWORD)
    }

    fn server(&self) -> String {
        format!("127.0.0.1:{}", self.0.port)
    }

    fn plain_tools(&self) -> (PathBuf, &str, &[&str]) {
        let cli = if matches!(self.0.which, redis::Which::Redis7 | redis::Which::Redis8) {
            "redis-cli"
        } else {
            "valkey-cli"
        };
        (self.1.clone(), cli, &[])
    }

    fn tools(&self) -> (PathBuf, &str, &[&str], &str) {
        let (folder, cli, others) = self.plain_tools();
        // All but a dump is asked of the same tool.
        (folder, cli, others, "*--rdb*) ;; *")
    }

    fn spoil(&self) {
        self.0.cli(&["DEL", "k1", "k2"]);
    }

    fn all(&self) -> String {
        self.0.digest()
    }
}

struct Documents(mongo::Database);

impl Live for Documents {
    fn place(&self) -> (&str, String) {
        ("mongodb", self.0.url())
    }

    fn server(&self) -> String {
        mongo::base().rsplit_once('@').unwrap().1.to_owned()
    }

    fn plain_tools(&self) -> (PathBuf, &str, &[&str]) {
        (mongo::tools(), "mongodump", &["mongosh", "mongorestore"])
    }

    fn spoil(&self) {
        self.0.js("d.a.deleteMany({_id: {$gt: 10}})");
    }

    fn all(&self) -> String {
        self.0.all()
    }
}

impl Live for Database {
    fn place(&self) -> (&str, String) {
        ("postgres", self.url.clone())
    }

    fn server(&self) -> String {
        self.url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0.to_owned()
    }

    fn plain_tools(&self) -> (PathBuf, &str, &[&str]) {
        (from_runner("VOXELTRON_TEST_POSTGRES_BIN").into(), "pg_dump", &["psql", "pg_restore"])
    }

    fn spoil(&self) {
        self.sql("delete from t where i > 10");
    }

    fn all(&self) -> String {
        self.sql("select count(*), md5(string_agg(x, '' order by i)) from t")
    }
}

#[test]
fn mariadb_dies_in_every_way() {
    dies_in_every_way(&Sql::new(true), &CUTS);
}

#[test]
fn mysql_dies_in_every_way() {
    dies_in_every_way(&Sql::new(false), &CUTS);
}

#[test]
fn redis_dies_in_every_way() {
    dies_in_every_way(&Cache::new(redis::Which::Redis8), &CUTS);
}

#[test]
fn valkey_dies_in_every_way() {
    dies_in_every_way(&Cache::new(redis::Which::Valkey8), &CUTS);
}

#[test]
fn mongodb_dies_in_every_way() {
    // Its tools are slow to start under Wine, and the engine's own tests cut everywhere.
    dies_in_every_way(&Documents(mongo::Database::small("dead")), &["100", "-1"]);
}

#[test]
fn postgres_loses_its_connection() {
    let database = Database::new();
    database.sql("create table t (i int, x text); insert into t select i, repeat(md5(i::text), 10) from generate_series(1, 10000) i");
    loses_its_connection(&database);
}

#[test]
fn mariadb_loses_its_connection() {
    loses_its_connection(&Sql::new(true));
}

#[test]
fn mysql_loses_its_connection() {
    loses_its_connection(&Sql::new(false));
}

#[test]
fn redis_loses_its_connection() {
    loses_its_connection(&Cache::new(redis::Which::Redis8));
}

#[test]
fn valkey_loses_its_connection() {
    loses_its_connection(&Cache::new(redis::Which::Valkey8));
}

#[test]
fn mongodb_loses_its_connection() {
    let script = "d.a.insertMany([...Array(4000).keys()].map((i) => ({_id: i, t: 'x'.repeat(200) + i})));";
    loses_its_connection(&Documents(mongo::Database::with("dead", script)));
}
