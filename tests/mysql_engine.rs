//! The MySQL engine against real servers, MariaDB and MySQL: data that hurts comes back the same, and whatever fails leaves
//! the live schema as it was. Wants `VOXELTRON_TEST_MARIADB_URL` and `VOXELTRON_TEST_MYSQL_URL` (a superuser's URL with a
//! password) and `VOXELTRON_TEST_MYSQL_TOOLS` (the folder of MySQL's tools); without them every test fails, none is
//! skipped.

// What fails in a test may panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use voxeltron_backup::engine::checks::Check;
use voxeltron_backup::engine::{
    Counts, Cx, Destination, Engine, Findings, Inspected, Request, Restored, Settings, kind,
};
use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::{Clock, World};

#[path = "mysql/alike.rs"]
mod alike;
#[path = "mysql/cuts.rs"]
mod cuts;
#[path = "common/cutter.rs"]
mod cutter;
#[path = "mysql/definers.rs"]
mod definers;
#[path = "mysql/libraries.rs"]
mod libraries;
#[path = "common/session.rs"]
mod session;
#[path = "mysql/strangers.rs"]
mod strangers;
#[path = "mysql/told.rs"]
mod told;
#[path = "mysql/unfinished.rs"]
mod unfinished;

use alike::names_that_schema_and_table_share_are_told_apart;
use cuts::a_connection_that_is_cut_leaves_old_or_new;
use definers::{
    a_definer_that_is_not_there_is_told_before_anything_changes, a_view_that_is_refused_in_its_place_alone_is_missing,
};
use strangers::{
    what_others_make_after_a_restore_died_stands_in_nobodys_way, what_others_make_in_an_exchange_stands_in_nobodys_way,
};
use told::{
    a_dump_of_a_newer_server_is_refused, a_grant_that_a_nearer_one_puts_out_of_force_does_not_count,
    a_limit_on_time_does_not_count, a_look_at_what_was_left_can_be_ended,
    a_part_of_a_database_never_takes_the_place_of_the_whole, a_role_gives_what_it_gives_while_it_is_active,
    a_schema_that_is_whole_is_dumped_whatever_was_not_said, an_empty_database_and_a_replica_are_told,
    what_is_only_to_be_dropped_stops_no_backup,
};
use unfinished::{
    what_could_not_be_finished_is_never_put_to_the_next, what_could_not_be_finished_is_told_until_another_stands,
};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A server, as the environment names it.
#[derive(Clone)]
struct Server {
    maria: bool,
    base: String,
    user: String,
    password: String,
    host: String,
    port: String,
    tools: Option<PathBuf>,
}

fn var(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: these tests want real servers and are never skipped"))
}

impl Server {
    fn maria() -> Self {
        Self::new(true, &var("VOXELTRON_TEST_MARIADB_URL"), None)
    }

    fn mysql() -> Self {
        Self::new(false, &var("VOXELTRON_TEST_MYSQL_URL"), Some(var("VOXELTRON_TEST_MYSQL_TOOLS").into()))
    }

    fn new(maria: bool, url: &str, tools: Option<PathBuf>) -> Self {
        let base = url.rsplit_once('/').expect("the URL ends in /database").0.to_owned();
        let rest = base.split_once("://").expect("a URL").1;
        let (credentials, place) = rest.rsplit_once('@').expect("user:password@");
        let (user, password) = credentials.split_once(':').expect("the URL holds a password");
        let (host, port) = place.split_once(':').expect("host:port");
        let [user, password, host, port] = [user, password, host, port].map(str::to_owned);
        Self { maria, base, user, password, host, port, tools }
    }

    fn url(&self, database: &str) -> String {
        format!("{}/{}", self.base, percent(database))
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = match &self.tools {
            Some(folder) => Command::new(folder.join(name)),
            None => Command::new(name),
        };
        tool.args([
            "--no-defaults",
            "-h",
            &self.host,
            "-P",
            &self.port,
            "-u",
            &self.user,
            "--default-character-set=utf8mb4",
        ]);
        tool.env("MYSQL_PWD", &self.password);
        tool
    }

    fn try_sql(&self, database: &str, sql: &str) -> std::result::Result<String, String> {
        let mut client = self.tool("mysql");
        client.args(["--batch", "--raw", "--skip-column-names", "--comments", "--binary-mode", database]);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = client.spawn().expect("mysql starts");
        let mut stdin = child.stdin.take().unwrap();
        let sql = sql.to_owned();
        let writer = std::thread::spawn(move || drop(stdin.write_all(sql.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{database}: {error}"))
    }

    fn admin(&self, sql: &str) -> String {
        self.sql("mysql", sql)
    }

    /// All that a schema is, by the server's own dump.
    fn all_of(&self, database: &str) -> String {
        self.dumped(database, &["--events"])
    }

    fn dumped(&self, database: &str, more: &[&str]) -> String {
        let mut dump = self.tool("mysqldump");
        dump.args(["--routines", "--triggers", "--hex-blob", "--skip-dump-date", "--skip-extended-insert"]).args(more);
        if !self.maria {
            dump.arg("--set-gtid-purged=OFF");
        }
        dump.args(["--no-tablespaces", "--single-transaction", "--", database]);
        let output = dump.output().expect("mysqldump starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| !line.starts_with("-- Host: ")).collect::<Vec<_>>().join("\n")
    }

    /// Schemas whose names say that a restore of `database` has left them, and tables of ours in it.
    fn leftovers(&self, database: &str) -> Vec<String> {
        let text = self.admin(&format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME REGEXP '__(restoring|old)_[0-9a-f]{{8}}$';
             SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME LIKE '\\_\\_vx%';",
            literal(database)
        ));
        text.lines().filter(|name| name.starts_with(database) || name.starts_with("__vx")).map(str::to_owned).collect()
    }
}

/// A schema's views as the server keeps them, with the schema before all that is one's.
fn definitions(server: &Server, database: &str) -> String {
    server.admin(&format!(
        "SELECT TABLE_NAME, CHECK_OPTION, DEFINER, SECURITY_TYPE, VIEW_DEFINITION FROM information_schema.VIEWS
         WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME",
        literal(database)
    ))
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn cx() -> Cx {
    Cx {
        world: World::system(),
        report: Report::capturing(Style::default()),
        data_dir: std::env::temp_dir(),
        deadline: None,
    }
}

/// A clock whose long sleeps are short: a swap that can't be done is tried again and again, for four seconds and a half.
#[derive(Debug)]
struct Hasty(Arc<dyn Clock>);

impl Clock for Hasty {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time.min(Duration::from_millis(50)));
    }
}

fn hasty_cx() -> Cx {
    let mut cx = cx();
    cx.world.clock = Arc::new(Hasty(cx.world.clock));
    cx
}

fn settings(server: &Server, database: &str) -> Settings {
    Settings { tools_dir: server.tools.clone(), ..Settings::new("mydb", Secret::new(server.url(database))) }
}

fn open(settings: Settings) -> Box<dyn Engine> {
    (kind("mysql").unwrap().open)(settings).unwrap()
}

/// A schema that is gone after the test.
struct Database {
    server: Server,
    name: String,
}

impl Database {
    fn empty(server: Server, label: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("vx{}_{number} {label}", std::process::id());
        server.admin(&format!("CREATE DATABASE {} CHARACTER SET utf8mb4", ident(&name)));
        Self { server, name }
    }

    /// Two tables and, with `code`, a trigger, a view, a routine and an event.
    fn small(server: Server, label: &str, code: bool) -> Self {
        let this = Self::empty(server, label);
        this.sql(
            "CREATE TABLE a (i int PRIMARY KEY AUTO_INCREMENT, t text);
             INSERT INTO a (t) VALUES (REPEAT('x', 100)), (REPEAT('y', 100)), ('z');
             INSERT INTO a (t) SELECT p.t FROM a p, a q, a r, a s, a t, a u, a v;
             CREATE TABLE b (i int); INSERT INTO b VALUES (1), (2), (3);",
        );
        if code {
            this.sql(
                "CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x;
                 CREATE TRIGGER tr BEFORE INSERT ON `b` FOR EACH ROW SET NEW.i = f(NEW.i);
                 CREATE VIEW v AS SELECT f(i) AS i FROM b;
                 CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO DELETE FROM b WHERE i > 100;",
            );
        }
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
        for name in self.server.leftovers(&self.name).iter().chain([&self.name]) {
            let _ = self.server.try_sql("mysql", &format!("DROP DATABASE IF EXISTS {}", ident(name)));
        }
    }
}

fn inspected<R: Read>(stream: R) -> Inspected<R> {
    Inspected::new(stream, (kind("mysql").unwrap().inspector)())
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
        let room = self.left.min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count;
        if count == 0 {
            return Err(Error::new(Kind::Authentication, "segment 1 does not authenticate").into_io());
        }
        Ok(count)
    }
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
    similar(&before, &db.all());
    db.assert_nothing_left();
    error
}

/// Makes a test of each server out of a function that takes one.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod mariadb { $(#[test] fn $name() { super::$name(super::Server::maria()); })+ }
        mod mysql { $(#[test] fn $name() { super::$name(super::Server::mysql()); })+ }
    };
}

on_both!(
    data_that_hurts_comes_back_the_same,
    a_stream_that_fails_anywhere_changes_nothing,
    a_cut_dump_changes_nothing,
    a_count_that_differs_changes_nothing,
    clients_that_hammer_see_the_old_or_the_new_schema,
    views_that_differ_in_anything_come_back,
    into_another_name,
    a_drill_counts_and_leaves_nothing,
    a_backup_with_the_wrong_rows_is_caught,
    a_dump_of_the_other_family_is_refused,
    foreign_keys_from_elsewhere_are_refused,
    a_dump_tool_that_dies_is_an_error_of_the_stream,
    errors_name_what_is_wrong,
    missing_rights_are_named_with_the_grant,
    the_password_stands_in_no_process_list,
    without_a_live_schema,
    killed_at_any_instant,
    a_connection_that_is_cut_leaves_old_or_new,
    a_swap_left_half_way_is_finished,
    code_that_can_t_be_made_changes_nothing,
    tables_without_transactions_are_told,
    a_signal_in_the_middle_leaves_nothing,
    a_part_of_a_database_never_takes_the_place_of_the_whole,
    a_role_gives_what_it_gives_while_it_is_active,
    a_grant_that_a_nearer_one_puts_out_of_force_does_not_count,
    an_empty_database_and_a_replica_are_told,
    a_dump_of_a_newer_server_is_refused,
    a_limit_on_time_does_not_count,
    what_is_only_to_be_dropped_stops_no_backup,
    a_schema_that_is_whole_is_dumped_whatever_was_not_said,
    a_look_at_what_was_left_can_be_ended,
    names_that_schema_and_table_share_are_told_apart,
    what_could_not_be_finished_is_told_until_another_stands,
    what_could_not_be_finished_is_never_put_to_the_next,
    what_others_make_in_an_exchange_stands_in_nobodys_way,
    what_others_make_after_a_restore_died_stands_in_nobodys_way,
    a_definer_that_is_not_there_is_told_before_anything_changes,
    a_view_that_is_refused_in_its_place_alone_is_missing,
);

fn data_that_hurts_comes_back_the_same(server: Server) {
    // With --events, mariadb-dump can't find a schema whose name has a quote or a backslash, and says so.
    let label = if server.maria { "Ünï `b` $= €" } else { "Ünï \"q\" 'a' `b` \\ $= €" };
    let db = Database::empty(server, label);
    db.sql(include_str!("mysql/hurts.sql"));
    db.sql(if db.server.maria {
        include_str!("mysql/hurts-mariadb.sql")
    } else {
        include_str!("mysql/hurts-mysql.sql")
    });
    let user = format!("vx_{}_{}", std::process::id(), db.server.maria);
    db.server.admin(&format!(
        "CREATE USER {user}; GRANT SELECT ON {0}.hen TO {user}; GRANT EXECUTE ON FUNCTION {0}.twice TO {user};",
        ident(&db.name)
    ));
    // Of one that may do little, and of one that is not there.
    for (definer, n) in [(format!("{user}@'%'"), 1), ("`no ``b'ody`@`no-where`".to_owned(), 2)] {
        db.sql(&format!(
            "CREATE DEFINER={definer} VIEW its_view{n} AS SELECT id FROM hen;
             CREATE DEFINER={definer} SQL SECURITY INVOKER VIEW its_invoker{n} AS SELECT id, twice(id) AS d FROM hen;
             CREATE DEFINER={definer} FUNCTION its_function{n}() RETURNS INT DETERMINISTIC RETURN {n};
             CREATE DEFINER={definer} PROCEDURE its_procedure{n}() SQL SECURITY INVOKER SELECT its_function{n}();
             CREATE DEFINER={definer} TRIGGER its_trigger{n} BEFORE INSERT ON `listed` FOR EACH ROW SET NEW.id = {n};
             CREATE DEFINER={definer} EVENT its_event{n} ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO SELECT {n};"
        ));
    }
    let grants = || db.server.admin(&format!("SHOW GRANTS FOR {user}"));
    let (before, granted) = (db.all(), grants());
    let (bytes, findings) = db.backup();
    assert!(findings.tool_version.is_some() && findings.server_version.is_some(), "{findings:?}");
    let rows = |key: &str| findings.counts.get(key).copied().flatten();
    assert_eq!(rows("types"), Some(6), "{findings:?}");
    assert_eq!(rows("empty_one"), Some(0));
    assert_eq!(rows("generated_ones"), Some(2));
    assert_eq!(rows("we `ird\" 'n' \\\\ ; Ünï (x"), Some(2), "{findings:?}");

    db.sql(
        "DROP VIEW a_last; SET foreign_key_checks = 0; DROP TABLE egg, parted; DELETE FROM types; DROP TRIGGER hen_in2; DROP FUNCTION ansi;
         CREATE TABLE later (i int); CREATE VIEW lv AS SELECT * FROM later; CREATE PROCEDURE lp() SELECT 1;
         CREATE TRIGGER lt BEFORE INSERT ON later FOR EACH ROW SET NEW.i = 1; DROP EVENT ev; ALTER TABLE log ADD COLUMN x INT;
         CREATE EVENT le ON SCHEDULE EVERY 1 DAY DO SELECT 1;",
    );
    assert_ne!(db.all(), before);
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(restored.counts, findings.counts);
    similar(&before, &db.all());
    db.assert_nothing_left();
    assert_eq!(grants(), granted);

    // Beside it, and in a drill.
    let copy = Database::empty(db.server.clone(), "copy that hurts");
    db.server.admin(&format!("DROP DATABASE {}", ident(&copy.name)));
    let into = Destination::Into(copy.name.clone());
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), into, &findings.counts).unwrap();
    assert!(restored.notes.iter().all(|note| note.starts_with("events were left out of the copy")), "{restored:?}");
    // A dump shows a view with its schema's name where its definer has no right in that, and without one elsewhere.
    let text = |name: &str| {
        let dump = db.server.dumped(name, &[]);
        let rest: String = dump.lines().filter(|line| !line.contains(" VIEW `")).collect::<Vec<_>>().join("\n");
        rest + &definitions(&db.server, name)
    };
    let copied = text(&copy.name).replace(&ident(&copy.name), &ident(&db.name)).replace(&copy.name, &db.name);
    similar(&text(&db.name), &copied);
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    similar(&before, &db.all());
    db.assert_nothing_left();
    db.server.admin(&format!("DROP USER {user}"));
}

fn a_stream_that_fails_anywhere_changes_nothing(server: Server) {
    let db = Database::small(server, "fails", true);
    let (bytes, findings) = db.backup();
    db.sql("INSERT INTO b VALUES (4)");
    for left in [0, 1, 100, 5_000, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        let stream = Failing { inner: Cursor::new(&bytes), left };
        let error = fails_and_changes_nothing(&db, db.engine().as_ref(), stream, &findings.counts);
        let seen = (error.kind, error.message.as_str());
        assert_eq!(seen, (Kind::Authentication, "segment 1 does not authenticate"), "{left}");
    }
}

fn a_cut_dump_changes_nothing(server: Server) {
    let db = Database::small(server, "cut", true);
    let (bytes, findings) = db.backup();
    let before = db.all();
    // At every line's end from the middle on, where a plain load would say nothing.
    let ends: Vec<_> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let last = ends.len() - 1;
    for left in [0, ends[8], ends[last / 2], ends[last - 12], ends[last - 1], bytes.len() - 1] {
        // Without the inspector: the engine looks for itself.
        let request = Request::new(Destination::InPlace, findings.counts.clone());
        let error = db.engine().restore(&mut Cursor::new(&bytes[..left]), &request, &cx()).expect_err("it is cut");
        assert_eq!(error.kind, Kind::Tool);
        assert!(
            error.message.contains("not whole")
                || error.message.contains("empty")
                || error.message.contains("does not begin"),
            "{left}: {error}"
        );
        db.assert_nothing_left();
    }
    assert_eq!(db.all(), before);
    let mut longer = bytes;
    longer.extend(b"DROP TABLE a;\n");
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&longer), &findings.counts);
    assert!(error.message.contains("not whole"), "{error}");
}

fn a_count_that_differs_changes_nothing(server: Server) {
    let db = Database::small(server, "counts", false);
    let (bytes, findings) = db.backup();
    let mut fewer = findings.counts.clone();
    fewer.insert("b".into(), Some(4));
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &fewer);
    assert!(error.message.ends_with("after the load there are 3 rows in table b, the backup holds 4"), "{error}");
    fewer.insert("b".into(), Some(3));
    fewer.insert("gone".into(), Some(1));
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &fewer);
    assert!(error.message.contains("there are no rows in table gone, the backup holds 1"), "{error}");
}

fn clients_that_hammer_see_the_old_or_the_new_schema(server: Server) {
    for (code, view) in [(false, false), (false, true), (true, false)] {
        let db = Database::small(server.clone(), "hammer", code);
        if view {
            db.sql(
                "CREATE FUNCTION g(x INT) RETURNS INT DETERMINISTIC RETURN x; CREATE VIEW w AS SELECT t FROM a WHERE i = 1;
                 CREATE VIEW joined AS SELECT w.t, g(b.i) AS i FROM w, b",
            );
        }
        let join =
            if view { "SELECT t, i FROM joined LIMIT 1;" } else { "SELECT a.t, b.i FROM a, b WHERE a.i = 1 LIMIT 1;" };
        db.sql("UPDATE a SET t = 'new'; UPDATE b SET i = 7");
        let (bytes, findings) = db.backup();
        let after = db.all();
        for round in 0..3 {
            db.sql("UPDATE a SET t = 'old'; UPDATE b SET i = 6");
            let (done, seen, broken) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    let (db, done, seen, broken) = (&db, &done, &seen, &broken);
                    scope.spawn(move || {
                        while !done.load(Ordering::SeqCst) {
                            match db.server.try_sql(&db.name, &join.repeat(200)) {
                                Ok(text) => {
                                    seen.fetch_add(1, Ordering::SeqCst);
                                    let mixed = text.lines().find(|line| *line != "old\t6" && *line != "new\t7");
                                    assert_eq!(mixed, None, "a mixture was seen");
                                }
                                Err(error) => {
                                    broken.fetch_add(1, Ordering::SeqCst);
                                    assert!(
                                        ["1146", "1412", "1356"].iter().any(|sign| error.contains(sign)),
                                        "{error}"
                                    );
                                }
                            }
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(100));
                let outcome =
                    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
                done.store(true, Ordering::SeqCst);
                assert_eq!(outcome.unwrap().notes, Vec::<String>::new(), "{round}");
            });
            assert!(seen.load(Ordering::SeqCst) > 0);
            assert!(code || broken.load(Ordering::SeqCst) == 0, "one RENAME breaks nobody");
            similar(&after, &db.all());
        }
        db.assert_nothing_left();
    }
}

fn views_that_differ_in_anything_come_back(server: Server) {
    let db = Database::small(server, "views", false);
    db.sql(
        "CREATE FUNCTION g(x INT) RETURNS INT DETERMINISTIC RETURN x; CREATE VIEW v AS SELECT i, 'a\nb' AS t FROM a;
         CREATE VIEW w AS SELECT g(v.i) AS i FROM v; CREATE VIEW gone AS SELECT 1 AS i",
    );
    let other = format!("{} o", db.name);
    let qualified = format!("CREATE VIEW q AS SELECT a.i FROM a, {}.x", ident(&other));
    db.server.admin(&format!("CREATE DATABASE {0}; CREATE TABLE {0}.x (i INT)", ident(&other)));
    db.sql(&format!("{qualified}; CREATE VIEW above_q AS SELECT i FROM q"));
    let before = db.all();
    let (bytes, findings) = db.backup();
    let quoted = format!("CREATE OR REPLACE VIEW v AS SELECT i, '{}.' AS t FROM a", ident(&db.name));
    for change in [
        "SELECT 1",
        "CREATE OR REPLACE ALGORITHM=TEMPTABLE VIEW v AS SELECT i, 'a\nb' AS t FROM a",
        "CREATE OR REPLACE ALGORITHM=MERGE VIEW v AS SELECT i, 'a\nb' AS t FROM a",
        "CREATE OR REPLACE SQL SECURITY INVOKER VIEW v AS SELECT i, 'a\nb' AS t FROM a",
        "CREATE OR REPLACE DEFINER = nobody@nowhere VIEW v AS SELECT i, 'a\nb' AS t FROM a",
        "CREATE OR REPLACE VIEW v AS SELECT i, 'a\nB' AS t FROM a",
        "CREATE OR REPLACE VIEW v AS SELECT i, 'a\nb' AS t FROM a WITH CHECK OPTION",
        "SET NAMES latin1; CREATE OR REPLACE VIEW v AS SELECT i, 'a\nb' AS t FROM a; SET NAMES utf8mb4",
        "DROP VIEW v; CREATE TABLE v (i INT)",
        "DROP VIEW gone; CREATE VIEW more AS SELECT * FROM w",
        "ALTER TABLE a MODIFY i BIGINT AUTO_INCREMENT",
        "DROP TABLE a",
        &quoted,
        &qualified.replace("VIEW q", "OR REPLACE VIEW q").replace("a.i", "a.t AS i"),
    ] {
        db.sql(&format!("DELETE FROM b; {change}"));
        let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
        assert_eq!(restored.unwrap().notes, Vec::<String>::new(), "{change}");
        similar(&before, &db.all());
        assert_eq!(db.sql("SELECT COUNT(*) FROM w; SELECT COUNT(*) FROM above_q"), "2190\n0", "{change}");
        db.assert_nothing_left();
    }
    db.server.admin(&format!("DROP DATABASE {}", ident(&other)));
}

fn into_another_name(server: Server) {
    let db = Database::small(server, "into", true);
    let (bytes, findings) = db.backup();
    let before = db.all();
    let copy = Database::empty(db.server.clone(), "copy `of` it");
    copy.server.admin(&format!("DROP DATABASE {}", ident(&copy.name)));
    let into = || Destination::Into(copy.name.clone());
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), into(), &findings.counts).unwrap();
    assert_eq!(restored.counts, findings.counts);
    assert_eq!(restored.notes, ["events were left out of the copy, where they would act at once: e"]);
    assert_eq!(copy.sql("SELECT COUNT(*) FROM v; SELECT COUNT(*) FROM a"), "3\n2190");
    similar(&before, &db.all());
    copy.assert_nothing_left();
    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), into(), &findings.counts).expect_err("it is taken");
    assert!(error.message.ends_with(&format!("there is a database {} already", copy.name)), "{error}");
    let long = Destination::Into("x".repeat(65));
    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), long, &findings.counts).expect_err("too long");
    assert!(error.message.contains("can't be a schema's name"), "{error}");
}

fn a_drill_counts_and_leaves_nothing(server: Server) {
    let db = Database::small(server, "drill", true);
    let (bytes, findings) = db.backup();
    let before = db.all();
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &Counts::new()).unwrap();
    assert_eq!(restored.counts, findings.counts);
    assert_eq!(restored.counts.get("a"), Some(&Some(2190)));
    similar(&before, &db.all());
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

fn a_backup_with_the_wrong_rows_is_caught(server: Server) {
    let db = Database::small(server, "wrong rows", true);
    db.sql("UPDATE b SET i = 7 WHERE i = 3");
    let (bytes, findings) = db.backup();
    let good = [
        check("SELECT COUNT(*) > 2000, 'x;y' FROM a -- that's all", "1\tx;y"),
        check("SELECT i FROM v ORDER BY i;", "1\n2\n7"),
        check("SELECT f(3)", "3"),
    ];
    drill(&db, &bytes, &findings.counts, &good).unwrap();
    // By what was counted when it was made.
    let mut counted = findings.counts.clone();
    counted.insert("b".to_owned(), Some(4));
    let error = drill(&db, &bytes, &counted, &good).unwrap_err();
    assert!(error.message.contains("there are 3 rows in table b, the backup holds 4"), "{error}");
    // The number is right and the rows are not.
    let named = Check { name: Some("no seven".to_owned()), ..check("SELECT COUNT(*) FROM b WHERE i = 7", "0") };
    let error = drill(&db, &bytes, &findings.counts, &[named]).unwrap_err();
    assert_eq!(error.kind, Kind::Tool);
    assert!(error.message.ends_with(r#"check "no seven": expected "0", found "1""#), "{error}");
    let before = db.all();
    for (query, why) in [("DELETE FROM b", "READ ONLY transaction"), ("SELECT 1 FROM nowhere", "nowhere")] {
        let error = drill(&db, &bytes, &findings.counts, &[check(query, "1")]).unwrap_err();
        assert!(error.message.contains("check ") && format!("{error:?}").contains(why), "{query}: {error:?}");
    }
    similar(&before, &db.all());
}

fn a_dump_of_the_other_family_is_refused(server: Server) {
    let other = if server.maria { Server::mysql() } else { Server::maria() };
    let db = Database::small(server, "family", true);
    let foreign = Database::small(other, "foreign", false);
    let (bytes, findings) = foreign.backup();
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &findings.counts);
    assert!(error.message.contains("their dumps don't load into each other"), "{error}");
    assert!(error.hint.is_some());
    // And the tools of the other family are named before a dump.
    let engine = open(Settings { tools_dir: foreign.server.tools.clone(), ..settings(&db.server, &db.name) });
    let error = engine.probe(&cx()).expect_err("they are the other family's");
    assert_eq!(error.kind, Kind::Tool);
    assert!(error.hint.as_deref().unwrap_or_default().contains("tools_dir"), "{error:?}");
}

fn foreign_keys_from_elsewhere_are_refused(server: Server) {
    let db = Database::small(server, "parent", false);
    let (bytes, findings) = db.backup();
    let other = Database::empty(db.server.clone(), "child");
    other.sql(&format!("CREATE TABLE c (i INT, FOREIGN KEY (i) REFERENCES {}.a (i))", ident(&db.name)));
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &findings.counts);
    assert!(error.message.contains(&format!("{}.c", other.name)), "{error}");
}

fn script(path: &Path, body: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mut child =
        Command::new("sh").args(["-c", "cat > \"$1\"", "sh"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{body}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder with this server's client, and a dump tool that says its version and then does `body`.
fn fake_dump(server: &Server, body: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let real = |name: &str| match &server.tools {
        Some(folder) => folder.join(name).display().to_string(),
        None => name.to_owned(),
    };
    script(&folder.path().join("mysql"), &format!("exec {} \"$@\"", real("mysql")));
    script(
        &folder.path().join("mysqldump"),
        &format!("[ \"$1\" = --version ] && exec {} --version\n{body}", real("mysqldump")),
    );
    folder
}

fn a_dump_tool_that_dies_is_an_error_of_the_stream(server: Server) {
    let db = Database::small(server, "dies", true);
    let (bytes, _) = db.backup();
    let half = tempfile::NamedTempFile::new().unwrap();
    let line = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').nth(10).unwrap().0 + 1;
    for (count, end) in [
        (bytes.len() / 2, "exit 0"),
        (bytes.len() / 2, "exit 2"),
        (bytes.len() / 2, "kill -9 $$"),
        (line, "exit 0"),
        (line, "echo 'mysqldump: Error 2013: Lost connection to server' >&2; exit 0"),
        (bytes.len(), "exit 3"),
        (0, "exit 0"),
    ] {
        std::fs::write(half.path(), &bytes[..count]).unwrap();
        let folder = fake_dump(&db.server, &format!("cat {}; {end}", half.path().display()));
        let engine = open(Settings { tools_dir: Some(folder.path().into()), ..settings(&db.server, &db.name) });
        let error = dump(engine.as_ref()).expect_err("it died");
        assert_eq!(error.kind, Kind::Tool, "{count} {end}");
    }
}

fn errors_name_what_is_wrong(server: Server) {
    let db = Database::empty(server, "errors");
    let probe = |settings: Settings| open(settings).probe(&cx()).expect_err("it must fail");
    let good = || settings(&db.server, &db.name);

    let error = probe(Settings { password: Some(Secret::new("wrong-canary")), ..good() });
    assert!(error.message.contains("the server refuses"), "{error:?}");
    assert_eq!(error.hint.as_deref(), Some("set [databases.mydb] password"));
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");

    let error = probe(Settings { url: Secret::new(db.server.url("not there")), ..good() });
    assert!(error.message.contains("there is no database not there at "), "{error:?}");

    let error = probe(Settings { url: Secret::new("mysql://u:canary@127.0.0.1:1/d"), ..good() });
    assert!(error.message.contains("no server answers at 127.0.0.1:1"), "{error:?}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");

    let error = probe(Settings { tools_dir: Some("/nowhere".into()), ..good() });
    assert!(error.message.contains("can't start /nowhere/"), "{error:?}");

    let old = tempfile::tempdir().unwrap();
    let name = if db.server.maria { "Distrib 5.5.1-MariaDB" } else { "Ver 5.7.1" };
    let real = db.server.tools.as_ref().map_or("mysql".to_owned(), |folder| folder.join("mysql").display().to_string());
    script(&old.path().join("mysql"), &format!("exec {real} \"$@\""));
    script(&old.path().join("mysqldump"), &format!("echo 'mysqldump {name}, for x'"));
    let error = probe(Settings { tools_dir: Some(old.path().into()), ..good() });
    assert!(error.message.contains("is older than the server, which is "), "{error:?}");

    let error = dump(open(Settings { url: Secret::new(db.server.url("not there")), ..good() }).as_ref());
    assert_eq!(error.expect_err("there is nothing to dump").kind, Kind::Tool);
    let probe = db.engine().probe(&cx()).unwrap();
    assert!(probe.tool_version.is_some() && probe.server_version.is_some(), "{probe:?}");
}

fn missing_rights_are_named_with_the_grant(server: Server) {
    let db = Database::small(server, "poor", true);
    let (bytes, findings) = db.backup();
    let before = db.all();
    let user = format!("vx_poor_{}_{}", std::process::id(), db.server.maria);
    db.server.admin(&format!("CREATE USER {user}@'%' IDENTIFIED BY 'poor'"));
    db.server.admin(&format!("GRANT SELECT, EXECUTE ON {}.* TO {user}@'%'", ident(&db.name).replace('_', "\\_")));
    let url = db.server.url(&db.name);
    let host = url.rsplit_once('@').unwrap().1;
    let poor =
        || open(Settings { url: Secret::new(format!("mysql://{user}:poor@{host}")), ..settings(&db.server, &db.name) });
    // Each error's hint is the statement that mends it; with it, the next right is asked for.
    let mut hints = Vec::new();
    while let Err(error) = poor().probe(&cx()) {
        let hint = error.hint.clone().expect("a hint");
        assert!(hint.starts_with("GRANT ") && hints.len() < 4, "{error:?}");
        db.server.admin(&hint);
        hints.push(hint);
    }
    let (dumped, _) = dump(poor().as_ref()).unwrap();
    let strip = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().filter(|line| !line.starts_with("-- ")).collect::<Vec<_>>().join("\n")
    };
    let whole = strip(&dumped) == strip(&bytes);
    let error =
        restore(poor().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).expect_err("it may not");
    let after = db.all();
    db.server.admin(&format!("DROP USER {user}@'%'"));
    assert!(!hints.is_empty() && whole, "{hints:?}");
    assert!(
        error.message.contains(" lacks ") && error.hint.unwrap_or_default().starts_with("GRANT "),
        "{}",
        error.message
    );
    similar(&before, &after);
    db.assert_nothing_left();
}

fn the_password_stands_in_no_process_list(server: Server) {
    let db = Database::small(server, "password", true);
    let engine = db.engine();
    let (done, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut shown = Vec::new();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // A small dump is over in some milliseconds, and a look at all processes may take longer.
            for round in 0..60 {
                if round >= 3 && seen.load(Ordering::SeqCst) {
                    break;
                }
                let (bytes, findings) = dump(engine.as_ref()).unwrap();
                restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) && !worker.is_finished() {
            for line in command_lines() {
                if line.contains("--single-transaction") && line.contains(&db.name) {
                    seen.store(true, Ordering::SeqCst);
                }
                if line.contains(&db.server.password) {
                    shown.push(line);
                }
            }
        }
    });
    assert!(seen.load(Ordering::SeqCst), "the dump tool was never seen in the list");
    assert_eq!(shown, Vec::<String>::new());
}

fn command_lines() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

fn without_a_live_schema(server: Server) {
    let db = Database::small(server, "absent", true);
    let (bytes, findings) = db.backup();
    let before = db.all();
    db.server.admin(&format!("DROP DATABASE {}", ident(&db.name)));
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    let stream = Failing { inner: Cursor::new(&bytes), left: bytes.len() };
    restore(db.engine().as_ref(), stream, Destination::InPlace, &findings.counts).expect_err("it fails");
    let there = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", literal(&db.name));
    assert_eq!(db.server.admin(&there), "0");
    db.assert_nothing_left();
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.notes.len(), 1, "{:?}", restored.notes);
    similar(&before, &db.all());
    db.assert_nothing_left();
}

/// Names the schema that [`killed_at_any_instant`] lets its child restore, and the dump's file.
const CHILD: &str = "VOXELTRON_TEST_MYSQL_CHILD";

fn killed_at_any_instant(server: Server) {
    if let Ok(child) = std::env::var(CHILD) {
        let (file, name) = child.split_once('\n').unwrap();
        let engine = open(settings(&server, name));
        restore(engine.as_ref(), std::fs::File::open(file).unwrap(), Destination::InPlace, &Counts::new()).unwrap();
        return;
    }
    let test = if server.maria { "mariadb::killed_at_any_instant" } else { "mysql::killed_at_any_instant" };
    let db = Database::small(server, "killed", true);
    let (bytes, findings) = db.backup();
    let restored = db.all();
    db.sql("INSERT INTO b VALUES (4)");
    let changed = db.all();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]);
        session::leader(command.env(CHILD, format!("{}\n{}", file.path().display(), db.name)), true)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let began = std::time::Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = began.elapsed();
    similar(&restored, &db.all());
    let steps = cutter::points(14, 50);
    for step in 0..steps {
        db.sql("INSERT INTO b VALUES (4)");
        similar(&changed, &db.all());
        let mut child = start();
        // Half of them in the last third, where the exchange is.
        let part = step * 14 / steps;
        std::thread::sleep(if part < 5 { whole * step / steps } else { whole * (part + 4) / 17 });
        child.kill().unwrap();
        child.wait().unwrap();
        session::wait_for_the_rest(child.id());
        std::thread::sleep(Duration::from_millis(200));
        let tables = db.sql("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('a', 'b')");
        // Old, new, or no table at all.
        match tables.as_str() {
            "0" => {}
            "2" => {
                // The view, too, which is the same in both.
                let rows =
                    db.sql("SELECT (SELECT COUNT(*) FROM a), (SELECT COUNT(*) FROM b), (SELECT COUNT(*) FROM v)");
                assert!(rows == "2190\t3\t3" || rows == "2190\t4\t4", "after step {step}: {rows}");
            }
            other => panic!("{other} tables after step {step}"),
        }
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts)
            .unwrap_or_else(|error| panic!("step {step}: {error:?}"));
        similar(&restored, &db.all());
        db.assert_nothing_left();
    }
}

fn a_swap_left_half_way_is_finished(server: Server) {
    let db = Database::small(server, "half", true);
    let (bytes, findings) = db.backup();
    let restored = db.all();
    let mut refused = [0, 0];
    // The last one passes all of the exchange on, and nothing of what comes after the tables.
    for keep in (2..14).chain([200]) {
        db.sql("INSERT INTO b VALUES (4); CREATE VIEW more AS SELECT i FROM a; CREATE TABLE more_t (i INT)");
        let changed = db.all();
        unfinished::dies(&db, &bytes, keep, "none");
        let shown = db.sql("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('a', 'b')");
        assert!(shown == "0" || shown == "2", "{shown} tables, kept {keep}");
        // What is neither old nor new is no backup.
        match (dump(db.engine().as_ref()), shown.as_str()) {
            (Ok(_), "2") => {
                let now = db.all();
                assert!(now == changed || now == restored, "kept {keep}: half of it was dumped");
            }
            (Ok(_), _) => panic!("kept {keep}: no table was dumped"),
            (Err(error), shown) => {
                assert!(error.message.contains("not all of it is there"), "{error:?}");
                let mend = error.hint.unwrap();
                assert!(mend.starts_with("restore mydb again: it finishes that one first"), "{mend}");
                assert_eq!(mend.contains("; DROP DATABASE `"), shown == "2", "kept {keep}: {mend}");
                assert!(shown == "0" || db.all() != changed, "kept {keep}: nothing has changed yet");
                refused[usize::from(shown == "2")] += 1;
            }
        }
        // A drill, and a restore of a dump that turns out bad, don't make it worse; the next good one ends it.
        let stream = Failing { inner: Cursor::new(&bytes), left: bytes.len() };
        restore(db.engine().as_ref(), stream, Destination::InPlace, &findings.counts).expect_err("it fails");
        let now = db.all();
        if now != changed {
            similar(&restored, &now);
        }
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        similar(&restored, &db.all());
        db.assert_nothing_left();
        dump(db.engine().as_ref()).unwrap();
    }
    assert!(refused[0] > 0 && refused[1] > 0, "{refused:?}");
}

fn code_that_can_t_be_made_changes_nothing(server: Server) {
    let db = Database::small(server, "code", true);
    let (bytes, findings) = db.backup();
    let text = String::from_utf8(bytes).unwrap();
    db.sql("INSERT INTO b VALUES (4)");
    for (from, to) in [
        ("SET NEW.i = f(NEW.i)", "SET NEW.nothing = 1"),
        ("RETURN x", "RETURN SELECT"),
        ("VIEW `v` AS select `f`", "VIEW `v` AS select `nowhere`.`x`, `f`"),
        ("CREATE TABLE `b`", "CREATE NONSENSE `b`"),
    ] {
        assert!(text.contains(from), "{from}");
        let broken = text.replace(from, to);
        fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(broken.as_bytes()), &findings.counts);
    }
}

fn tables_without_transactions_are_told(server: Server) {
    let db = Database::empty(server, "myisam");
    db.sql("CREATE TABLE m (i INT) ENGINE=MyISAM; INSERT INTO m VALUES (1)");
    let warnings = db.engine().probe(&cx()).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("m (MyISAM)")), "{warnings:?}");
    let before = db.all();
    let (bytes, findings) = db.backup();
    db.sql("DELETE FROM m");
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    similar(&before, &db.all());
}

fn a_signal_in_the_middle_leaves_nothing(server: Server) {
    struct Stopping<R>(R, Cx, usize);
    impl<R: Read> Read for Stopping<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let room = buffer.len().min(16 * 1024);
            self.2 += 1;
            if self.2 == 5 {
                self.1.world.cancel.stop(15);
            }
            self.0.read(&mut buffer[..room])
        }
    }
    let db = Database::small(server, "signal", true);
    let (bytes, findings) = db.backup();
    let before = db.all();
    let cx = cx();
    let request = Request::new(Destination::InPlace, findings.counts);
    let mut stream = Stopping(Cursor::new(&bytes), cx.clone(), 0);
    let error = db.engine().restore(&mut stream, &request, &cx).expect_err("it was stopped");
    assert_eq!(error.kind, Kind::Stopped(15));
    similar(&before, &db.all());
    db.assert_nothing_left();
}
