//! Databases in containers: tools that run by `exec` where their server runs, and containers found by their names. The
//! containers are real ones, of Podman's (Docker's engine does not run in the sandboxes of CI): `tests/run` starts
//! PostgreSQL, MySQL, MariaDB, Redis, Valkey and FerretDB in them, with no network and with a password that holds all that hurts. Besides, each
//! engine goes through `env -i … chroot` into another root. What Docker itself answers is in the unit tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]
#![allow(clippy::print_stdout, reason = "a part of a test says how far it is")]

#[path = "../common/mod.rs"]
mod common;

mod canary;
mod elsewhere;
mod engines;
mod stops;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use common::{Outcome, Sandbox, from_runner, run};
use voxeltron_backup::engine::{Counts, Cx, Destination, Engine, Inspected, Request, Restored, Settings, kind};
use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::process::{self, DumpReader, Invocation, RestoreWriter};
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::World;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

fn number() -> usize {
    std::process::id() as usize * 1000 + NUMBER.fetch_add(1, Ordering::SeqCst)
}

fn podman() -> String {
    from_runner("VOXELTRON_TEST_PODMAN")
}

fn in_container(name: &str) -> Vec<String> {
    BEFORE.get_or_init(crashes);
    [&podman(), "exec", "-i", &format!("voxeltron-db-{name}")].map(str::to_owned).to_vec()
}

fn in_root(variable: &str) -> Vec<String> {
    let root = from_runner(variable);
    ["env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "chroot", &root].map(str::to_owned).to_vec()
}

fn cx() -> Cx {
    let report = Report::capturing(Style::default());
    Cx { world: World::system(), report, data_dir: std::env::temp_dir(), deadline: None }
}

/// Where tools run, and the server that they reach there.
struct Place {
    engine: &'static str,
    exec: Vec<String>,
    /// `scheme://user@host:port`
    base: String,
    password: String,
}

impl Place {
    fn container(engine: &'static str, name: &str, base: &str) -> Self {
        let password = from_runner("VOXELTRON_TEST_CONTAINER_PASSWORD");
        Self { engine, exec: in_container(name), base: base.to_owned(), password }
    }

    /// A server of `tests/run`, and the tools of another root.
    fn chroot(engine: &'static str, url: &str, root: &str) -> Self {
        let url = from_runner(url);
        let (scheme, rest) = url.rsplit_once('/').unwrap().0.split_once("://").unwrap();
        let (credentials, host) = rest.rsplit_once('@').unwrap();
        let (user, password) = credentials.split_once(':').unwrap();
        let base = format!("{scheme}://{user}@{host}");
        Self { engine, exec: in_root(root), base, password: password.to_owned() }
    }

    fn all() -> [Self; 6] {
        [
            Self::postgres(),
            Self::chroot("postgres", "VOXELTRON_TEST_POSTGRES_URL", "VOXELTRON_TEST_ROOT"),
            Self::container("mysql", "orders", "mysql://root@127.0.0.1:3306"),
            Self::chroot("mysql", "VOXELTRON_TEST_MYSQL_URL", "VOXELTRON_TEST_MYSQL_ROOT"),
            Self::container("mysql", "orders2", "mysql://root@127.0.0.1:3306"),
            Self::chroot("mysql", "VOXELTRON_TEST_MARIADB_URL", "VOXELTRON_TEST_ROOT"),
        ]
    }

    fn postgres() -> Self {
        Self::container("postgres", "mydb", "postgres://owner@127.0.0.1:5455")
    }

    /// What the server's own client prints, called by nothing of the program's.
    fn sql(&self, database: &str, sql: &str) -> String {
        let (host, port) = self.base.rsplit_once('@').unwrap().1.split_once(':').unwrap();
        let user = self.base.split_once("://").unwrap().1.split_once('@').unwrap().0;
        let script = match self.engine {
            "postgres" => {
                "IFS= read -r PGPASSWORD; export PGPASSWORD; exec psql -XAtq -v ON_ERROR_STOP=1 -h \"$1\" -p \"$2\" -U \"$3\" -d \"$4\""
            }
            _ => {
                "IFS= read -r MYSQL_PWD; export MYSQL_PWD; m=$(command -v mariadb || command -v mysql); \
                 exec \"$m\" --no-defaults -N -h \"$1\" -P \"$2\" -u \"$3\" --comments \"$4\""
            }
        };
        let mut command = Command::new(&self.exec[0]);
        command.args(&self.exec[1..]).args(["sh", "-c", script, "sh", host, port, user, database]);
        let outcome = run(&mut command, format!("{}\n{sql}", self.password).as_bytes());
        assert!(outcome.status.success(), "{sql}: {outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    fn desk(&self) -> &'static str {
        if self.engine == "postgres" { "postgres" } else { "mysql" }
    }

    fn ident(&self, name: &str) -> String {
        if self.engine == "postgres" { format!("\"{name}\"") } else { format!("`{name}`") }
    }

    fn open(&self, database: &str) -> Box<dyn Engine> {
        let url = format!("{}/{}", self.base, database.replace(' ', "%20"));
        let settings = Settings {
            exec: self.exec.clone(),
            password: Some(Secret::new(&self.password)),
            ..Settings::new("shop", Secret::new(url))
        };
        (kind(self.engine).unwrap().open)(settings).unwrap()
    }

    fn dump(&self, engine: &dyn Engine) -> (Vec<u8>, Counts) {
        let stream = engine.dump(&cx()).unwrap().stream;
        let mut stream = Inspected::new(stream, (kind(self.engine).unwrap().inspector)());
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        (bytes, stream.findings().take().unwrap().counts)
    }

    fn restore(&self, engine: &dyn Engine, dump: impl Read, to: Destination, counts: &Counts) -> Result<Restored> {
        let request = Request::new(to, counts.clone());
        let mut stream = Inspected::new(dump, (kind(self.engine).unwrap().inspector)());
        engine.restore(&mut stream, &request, &cx())
    }
}

/// A database there, gone after the test.
struct Database<'p> {
    place: &'p Place,
    name: String,
}

impl<'p> Database<'p> {
    fn new(place: &'p Place) -> Self {
        let name = format!("vx {}", number());
        place.sql(place.desk(), &format!("CREATE DATABASE {};", place.ident(&name)));
        let this = Self { place, name };
        let double = "INSERT INTO big SELECT concat(x, 'y') FROM big;".repeat(14);
        this.sql(&format!(
            "CREATE TABLE t (i int PRIMARY KEY, x varchar(200)); INSERT INTO t VALUES (1, 'a\\tÄ😀'), (2, NULL), (3, 'q');
             CREATE VIEW v AS SELECT i FROM t; CREATE TABLE big (x varchar(2000)); INSERT INTO big VALUES ('x'); {double}"
        ));
        this
    }

    fn sql(&self, sql: &str) -> String {
        self.place.sql(&self.name, sql)
    }

    fn all(&self, name: &str) -> String {
        self.place.sql(name, "SELECT i, x, length(x) FROM t ORDER BY i; SELECT count(*), max(length(x)) FROM big; SELECT count(*) FROM v;")
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.place.sql(self.place.desk(), &format!("DROP DATABASE {};", self.place.ident(&self.name)));
        }
    }
}

fn there_and_back(place: &Place) {
    let db = Database::new(place);
    let engine = place.open(&db.name);
    let probe = engine.probe(&cx()).unwrap();
    assert!(probe.tool_version.is_some() && probe.server_version.is_some() && probe.warnings.is_empty(), "{probe:?}");
    let (bytes, counts) = place.dump(engine.as_ref());
    let before = db.all(&db.name);
    assert!(before.contains("16384"), "{before}");
    let drilled = place.restore(engine.as_ref(), Cursor::new(&bytes), Destination::Drill, &counts).unwrap();
    assert_eq!(drilled.counts, counts);

    let beside = format!("{} beside", db.name);
    let into = Destination::Into(beside.clone());
    place.restore(engine.as_ref(), Cursor::new(&bytes), into, &counts).unwrap();
    assert_eq!(db.all(&beside), before);
    place.sql(place.desk(), &format!("DROP DATABASE {};", place.ident(&beside)));

    db.sql("DELETE FROM t; CREATE TABLE later (i int);");
    let restored = place.restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &counts).unwrap();
    assert_eq!((restored.notes, restored.counts), (Vec::new(), counts.clone()));
    assert_eq!(db.all(&db.name), before);

    // A stream that breaks leaves the live data alone.
    let half = Broken(Cursor::new(bytes[..bytes.len() / 2].to_vec()));
    let error = place.restore(engine.as_ref(), half, Destination::InPlace, &counts).unwrap_err();
    assert!(error.message.contains("broken on purpose"), "{error:?}");
    assert_eq!(db.all(&db.name), before);
    let list = if place.engine == "postgres" { "SELECT datname FROM pg_database;" } else { "SHOW DATABASES;" };
    let left = place.sql(place.desk(), list);
    let of_ours = |name: &&str| name.starts_with(&db.name) && *name != db.name;
    assert_eq!(left.lines().find(of_ours), None);
}

/// Ends with an error.
struct Broken(Cursor<Vec<u8>>);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(Error::new(Kind::Authentication, "broken on purpose").into_io()),
            count => Ok(count),
        }
    }
}

#[test]
fn postgres_goes_there_and_back_in_a_container() {
    there_and_back(&Place::all()[0]);
}

#[test]
fn postgres_goes_there_and_back_in_another_root() {
    there_and_back(&Place::all()[1]);
}

#[test]
fn mysql_goes_there_and_back_in_a_container() {
    there_and_back(&Place::all()[2]);
}

#[test]
fn mysql_goes_there_and_back_in_another_root() {
    there_and_back(&Place::all()[3]);
}

#[test]
fn mariadb_goes_there_and_back_in_a_container() {
    there_and_back(&Place::all()[4]);
}

#[test]
fn mariadb_goes_there_and_back_in_another_root() {
    there_and_back(&Place::all()[5]);
}

/// Three ways into other places, and three shells: Debian's, the one of small images, and the large one.
fn ways() -> Vec<Vec<String>> {
    let folder = shells();
    let with = |shell: &str| {
        let path = format!("PATH={}:/usr/bin:/bin", folder.join(shell).display());
        vec!["env".to_owned(), "-i".to_owned(), path]
    };
    vec![in_container("mydb"), in_root("VOXELTRON_TEST_ROOT"), with("dash"), with("bash"), with("busybox")]
}

/// Folders whose `sh` is another shell each.
fn shells() -> PathBuf {
    static ONCE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = ONCE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for shell in ["dash", "bash", "busybox"] {
            let place = folder.path().join(shell);
            fs::create_dir(&place).unwrap();
            std::os::unix::fs::symlink(format!("/bin/{shell}"), place.join("sh")).unwrap();
        }
        folder
    });
    folder.path().to_owned()
}

#[test]
fn every_character_of_a_secret_and_every_byte_of_a_dump_cross_any_shell() {
    let every: String = (1..0x250).filter(|c| *c != 10).chain([0x20ac, 0x1f600]).filter_map(char::from_u32).collect();
    let secret = format!(" \t\\\\'\"$HOME `id` $(id) % {every} \\ ");
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    for exec in ways() {
        let call = |script: &str| Invocation::new("sh").args(["-c", script]).through(&exec);
        let script = "printf '%s|%s' \"$PW\" \"$PLAIN\"";
        let call_with = || call(script).env("PW", Secret::new(&secret)).var("PLAIN", " p\\l\"ain ");
        let expected = format!("{secret}| p\\l\"ain ");
        let world = World::system();
        let printed = process::run(&call_with(), b"", None, &world).unwrap();
        assert_eq!(String::from_utf8(printed).unwrap(), expected, "{exec:?}");
        let mut dumped = String::new();
        DumpReader::spawn(&call_with(), None, &world).unwrap().read_to_string(&mut dumped).unwrap();
        assert_eq!(dumped, expected, "{exec:?}");
        // What is read after a first line, as from a tool that asks for its password.
        let call = call("IFS= read -r first; printf '%s|' \"$first\"; exec cat").first_line(Secret::new(&secret));
        let back = process::run(&call, &bytes, None, &world).unwrap();
        assert!(back == [secret.as_bytes(), b"|", &bytes].concat(), "{exec:?}: {} bytes", back.len());
        let mut dumped = String::new();
        DumpReader::spawn(&call, None, &world).unwrap().read_to_string(&mut dumped).unwrap();
        assert_eq!(dumped, format!("{secret}|"), "{exec:?}");
        for lines in ["a\nb", "a\0b"] {
            let call = Invocation::new("env").env("PW", Secret::new(lines)).through(&exec);
            let error = process::run(&call, b"", None, &world).unwrap_err();
            assert_eq!(error.kind, Kind::Config, "{error:?}");
            assert!(error.message.starts_with("PW of env holds a line break or a NUL"), "{error:?}");
        }
    }
}

/// Whether a process with this argument is there, here or in a container: all of them show in this machine's /proc.
fn runs(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let is_dead = state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        !is_dead && words.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn gone(argument: &str) {
    wait_until(&format!("{argument} is gone"), || !runs(argument));
}

#[test]
fn what_is_dropped_is_stopped_where_it_runs() {
    let world = World::system();
    for exec in ways() {
        // One that ends by itself: then it is the watch over it that is left, and is ended.
        for _ in 0..3 {
            let call = Invocation::new("true").through(&exec);
            DumpReader::spawn(&call, None, &world).unwrap().read_to_end(&mut Vec::new()).unwrap();
        }
        // One that listens, and one that does not.
        for script in ["exec sleep \"$0\"", "trap '' TERM; exec sleep \"$0\""] {
            let argument = format!("7{}", number());
            let call = Invocation::new("sh").args(["-c", script, &argument]).through(&exec);
            let dump = DumpReader::spawn(&call, None, &world).unwrap();
            wait_until("the dump runs", || runs(&argument));
            drop(dump);
            gone(&argument);

            let mut load = RestoreWriter::spawn(&call, None, &world).unwrap();
            load.write_all(b"half of it").unwrap();
            wait_until("the load runs", || runs(&argument));
            drop(load);
            gone(&argument);
        }
    }
    unharmed();
}

/// PostgreSQL is the first process of its container, so what is left behind there falls to it; and it takes a child that
/// a signal has ended for a crash of a session, and ends them all.
#[track_caller]
fn unharmed() {
    let all = crashes();
    // What the log held before is another program's work.
    let before = BEFORE.get().map_or(0, Vec::len);
    assert_eq!(all[before..], [] as [String; 0]);
}

static BEFORE: OnceLock<Vec<String>> = OnceLock::new();

fn crashes() -> Vec<String> {
    let outcome = run(Command::new(podman()).args(["logs", "voxeltron-db-mydb"]), b"");
    let log = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(log.contains("ready to accept connections"), "{log}");
    let is_crash = |line: &&str| line.contains("was terminated by") || line.contains("exited with exit code");
    log.lines().filter(is_crash).map(str::to_owned).collect()
}

#[test]
fn a_load_that_is_dropped_never_sees_the_end_of_its_input() {
    for exec in ways() {
        let (world, marker) = (World::system(), format!("/tmp/vx-ended-{}", number()));
        let script = "cat >/dev/null; echo > \"$0\"";
        let call = Invocation::new("sh").args(["-c", script, &marker]).through(&exec);
        let mut load = RestoreWriter::spawn(&call, None, &world).unwrap();
        load.write_all(&vec![b'x'; 300_000]).unwrap();
        drop(load);
        gone(&marker);
        let look = Invocation::new("sh").args(["-c", "test ! -e \"$0\"", &marker]).through(&exec);
        process::run(&look, b"", None, &world).unwrap_or_else(|error| panic!("{exec:?}: {error}"));
        // But one that is finished does.
        let mut load = RestoreWriter::spawn(&call, None, &world).unwrap();
        load.write_all(b"all").unwrap();
        load.finish().unwrap();
        let look = Invocation::new("sh").args(["-c", "test -e \"$0\"", &marker]).through(&exec);
        process::run(&look, b"", None, &world).unwrap();
        let _ = fs::remove_file(&marker);
    }
}

#[test]
fn a_deadline_stops_it_there_and_a_bad_end_is_told_with_its_status() {
    let world = World::system();
    let read = |call: &Invocation, deadline| {
        let mut out = String::new();
        let mut reader = DumpReader::spawn(call, deadline, &world).unwrap();
        let outcome = reader.read_to_string(&mut out);
        (out, outcome.map_err(|error| Error::from_io(error, Kind::Other, "x")))
    };
    for exec in ways() {
        let sh = |script: &str, word: &str| Invocation::new("sh").args(["-c", script, word]).through(&exec);
        let argument = format!("7{}", number());
        let soon = || Some(world.clock.monotonic() + Duration::from_millis(1500));
        let error = read(&sh("echo begun; exec sleep \"$0\"", &argument), soon()).1.unwrap_err();
        assert_eq!(error.message, "sh did not finish within its time and was stopped", "{exec:?}");
        gone(&argument);
        let error = process::run(&sh("exec sleep \"$0\"", &argument), b"", soon(), &world).unwrap_err();
        assert_eq!(error.message, "sh did not finish within its time and was stopped", "{exec:?}");
        gone(&argument);

        for (script, said) in [
            ("echo all; echo 'last words' >&2; exit 7", "sh failed with exit status 7"),
            ("echo all; echo 'last words' >&2; kill -9 $$", "sh was killed by signal 9"),
        ] {
            let (out, outcome) = read(&sh(script, "x"), None);
            let error = outcome.unwrap_err();
            assert_eq!((out.as_str(), error.message.as_str()), ("all\n", said), "{exec:?}");
            assert!(error.tail.contains(&"last words".to_owned()), "{:?}", error.tail);
            assert!(error.tail.iter().all(|line| !line.contains("voxeltron")), "no mark of ours: {:?}", error.tail);
            let error = process::run(&sh(script, "x"), b"", None, &world).unwrap_err();
            assert_eq!(error.message, said, "{exec:?}");
        }
    }
}

#[test]
fn a_place_that_can_t_be_reached_is_told_with_the_mend() {
    let podman = podman();
    let stopped = format!("voxeltron-stopped-{}", number());
    let bare = format!("voxeltron-bare-{}", number());
    let limits = [
        "--network=none",
        "--ulimit",
        "nofile=64:64",
        "--ulimit",
        "nproc=64:64",
        "--security-opt",
        "seccomp=unconfined",
    ];
    let image = "docker.io/library/postgres:15";
    let made = |args: &[&str]| assert!(run(Command::new(&podman).args(args), b"").status.success(), "{args:?}");
    made(&[&["create", "--name", &stopped][..], &limits, &[image, "sh"]].concat());
    let busybox = "/usr/bin/busybox:/run/sleep:ro";
    made(&[&["run", "-d", "--name", &bare, "-v", busybox][..], &limits, &[image, "/run/sleep", "600"]].concat());
    let empty = tempfile::tempdir().unwrap();
    let missing = ["no-such-docker", "exec", "-i", "x"].map(str::to_owned).to_vec();
    let chroot = ["chroot", empty.path().to_str().unwrap()].map(str::to_owned).to_vec();
    let podman_exec =
        |args: &[&str]| [&[podman.as_str(), "exec"], args].concat().into_iter().map(str::to_owned).collect();
    let table: Vec<(Vec<String>, &str, &str)> = vec![
        (missing, "can't start no-such-docker: no such file", "install no-such-docker, or mend exec"),
        (
            podman_exec(&["-i", "no-such"]),
            "no container with name or ID \"no-such\"",
            "mend the container's name in exec",
        ),
        (podman_exec(&["-i", &stopped]), "the container is not running", &stopped),
        (podman_exec(&["-i", &bare]), "there is no shell `sh`", "an image with a shell"),
        (chroot, "there is no shell `sh`", "an image with a shell"),
        (podman_exec(&["voxeltron-db-mydb"]), "it passes no standard input on", "put -i into exec"),
        (vec!["true".into()], "can't run pg_dump: it ended without starting anything", "try it by hand"),
        (vec!["false".into()], "can't run pg_dump: failed with exit status 1", "try it by hand: false sh -c true"),
    ];
    let world = World::system();
    for (exec, message, hint) in table {
        let call = Invocation::new("pg_dump").args(["--version"]).env("PW", Secret::new("canary")).through(&exec);
        let dumped = DumpReader::spawn(&call, None, &world).and_then(|mut reader| {
            reader.read_to_end(&mut Vec::new()).map_err(|error| Error::from_io(error, Kind::Other, "x"))
        });
        for error in [dumped.map(drop), process::run(&call, b"", None, &world).map(drop)].map(Result::unwrap_err) {
            assert_eq!(error.kind, Kind::Tool, "{exec:?}: {error:?}");
            assert!(error.message.contains(message), "{exec:?}: {error:?}");
            assert!(error.hint.as_ref().is_some_and(|said| said.contains(hint)), "{exec:?}: {error:?}");
        }
    }
    for exec in ways() {
        let call = Invocation::new("no-such-tool").through(&exec);
        let error = process::run(&call, b"", None, &world).unwrap_err();
        assert!(error.message.starts_with("there is no no-such-tool where `"), "{error:?}");
        assert!(error.hint.unwrap().contains("tools_dir"));
    }
    made(&["rm", "-f", "-t", "0", &stopped, &bare]);
}

/// Held by whoever works on the container's own database.
static MYDB: Mutex<()> = Mutex::new(());

/// The program `podman` of the tests under these names, first on the path.
fn path_with(names: &[&str], sandbox: &Sandbox) -> String {
    for name in names {
        sandbox.fake_tool(name, &format!("exec {} \"$@\"", podman()));
    }
    format!("{}:/usr/bin:/bin", sandbox.path("tools").display())
}

fn program(sandbox: &Sandbox, path: &str, args: &[&str]) -> Outcome {
    let mut command = sandbox.command(args).into_command();
    run(command.env("PATH", path), b"")
}

fn job(database: &str) -> String {
    format!("[[backup.jobs]]\ndatabase = \"{database}\"\nschedule = \"@daily\"\n")
}

#[test]
fn databases_without_a_table_are_found_and_every_command_takes_them() {
    let _alone = MYDB.lock().unwrap_or_else(PoisonError::into_inner);
    let sandbox = Sandbox::new();
    sandbox.configure_local(None, &["mydb", "orders2"].map(job).concat());
    let podman_alone = path_with(&["podman"], &sandbox);
    let (postgres, maria) = (Place::postgres(), &Place::all()[4]);
    postgres.sql("mydb", "DROP TABLE IF EXISTS found; CREATE TABLE found AS SELECT generate_series(1, 1000) AS i;");
    maria.sql("orders", "DROP TABLE IF EXISTS found; CREATE TABLE found (i int); INSERT INTO found VALUES (1), (2);");
    let good = |path: &str, args: &[&str]| {
        let outcome = program(&sandbox, path, args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains(postgres.password.trim()), "{said}");
        said
    };
    let said = good(&podman_alone, &["check", "--offline"]);
    assert!(said.contains("database mydb: container voxeltron-db-mydb, not looked for"), "{said}");
    let said = good(&podman_alone, &["check"]);
    assert!(said.contains("postgres mydb at 127.0.0.1:5455 answers") && said.contains("mysql orders at"), "{said}");
    // What Docker's own program says where no engine of its runs: then Podman is asked.
    let no_engine = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
    sandbox.fake_tool("docker", &format!("echo '{no_engine}' >&2; exit 1"));
    good(&podman_alone, &["run-job", "mydb", "orders2"]);
    assert!(good(&podman_alone, &["list"]).contains("mydb"));
    let endings: Vec<String> = ["mydb", "orders2"]
        .iter()
        .flat_map(|name| fs::read_dir(sandbox.store().join("host").join(name)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(["pgdump.gz", "sql.gz"].iter().all(|end| endings.iter().any(|name| name.ends_with(end))), "{endings:?}");
    let both = path_with(&["docker"], &sandbox);
    let load = "docker exec -i voxeltron-db-mydb LC_ALL=… PGPASSWORD=… pg_restore";
    let said = good(&both, &["-v", "verify", "--restore"]);
    assert!(said.contains(load), "{said}");
    postgres.sql("mydb", "DELETE FROM found WHERE i > 7;");
    let said = good(&both, &["restore", "mydb", "--latest", "--dry-run"]);
    assert!(said.contains(load), "{said}");
    good(&both, &["restore", "mydb", "--latest", "--yes"]);
    assert_eq!(postgres.sql("mydb", "SELECT count(*) FROM found;"), "1000");
    good(&both, &["restore", "mydb", "--latest", "--into", "mydb beside"]);
    assert_eq!(postgres.sql("mydb beside", "SELECT count(*) FROM found;"), "1000");
    postgres.sql("postgres", "DROP DATABASE \"mydb beside\";");
    good(&both, &["prune"]);
    good(&both, &["status"]);
}

#[test]
fn a_password_in_a_file_of_the_container_is_fetched_from_there() {
    let sandbox = Sandbox::new();
    // The container of MySQL names its password's file alone, and no database: so it has the job's name.
    sandbox.configure_local(None, &job("orders"));
    let path = path_with(&["docker"], &sandbox);
    let place = &Place::all()[2];
    place.sql("orders", "DROP TABLE IF EXISTS found; CREATE TABLE found (i int); INSERT INTO found VALUES (1), (2);");
    for args in [&["run-job", "orders"][..], &["verify", "--restore"]] {
        let outcome = program(&sandbox, &path, args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
    }
}

#[test]
fn an_idle_tick_and_a_look_at_backups_ask_no_container() {
    let sandbox = Sandbox::new();
    sandbox.configure_local(None, &job("mydb"));
    let asked = sandbox.path("asked");
    for name in ["docker", "podman"] {
        sandbox.fake_tool(name, &format!("echo \"$*\" >> {}; exit 1", asked.display()));
    }
    let path = format!("{}:/usr/bin:/bin", sandbox.path("tools").display());
    for args in
        [&["schedule-check"][..], &["schedule-check"], &["list"], &["prune"], &["status"], &["check", "--offline"]]
    {
        let outcome = program(&sandbox, &path, args);
        assert!(outcome.code.is_some() && !asked.exists(), "{args:?} asked: {outcome:?}");
    }
    let outcome = program(&sandbox, &path, &["run-job", "mydb"]);
    assert_eq!(outcome.code, Some(13), "{outcome:?}");
    assert!(asked.exists());
}

#[test]
fn a_container_that_can_t_be_used_is_told_with_the_mend() {
    let sandbox = Sandbox::new();
    sandbox.configure_local(None, &["mydb", "no-such", "odd"].map(job).concat());
    let made = |args: &[&str]| run(Command::new(podman()).args(args), b"");
    // One that is not running.
    let limits = ["--network=none", "--ulimit", "nofile=64:64", "--ulimit", "nproc=64:64"];
    let image = "docker.io/library/postgres:15";
    let outcome = made(&[&["create", "--name", "voxeltron-db-odd"][..], &limits, &[image, "sh"]].concat());
    assert!(outcome.status.success(), "{outcome:?}");
    let fails = |path: &str, name: &str, code: i32, parts: &[&str]| {
        let outcome = program(&sandbox, path, &["run-job", name]);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        for part in parts {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
        }
    };
    let path = path_with(&["docker", "podman"], &sandbox);
    fails(&path, "odd", 13, &["container voxeltron-db-odd is not running", "hint: docker start voxeltron-db-odd"]);
    made(&["rm", "-f", "voxeltron-db-odd"]);
    let missing =
        ["has no [databases.no-such] table", "there is no container voxeltron-db-no-such", "hint: add the table"];
    fails(&path, "no-such", 10, &missing);
    let empty = sandbox.path("store").display().to_string();
    fails(&empty, "mydb", 10, &["there is no docker and no podman", "hint:"]);
    // One that never answers is not waited for.
    sandbox.fake_tool("docker", "exec sleep 300");
    sandbox.fake_tool("podman", "exit 1");
    fails(&path, "mydb", 13, &["can't look for container voxeltron-db-mydb", "did not finish within its time"]);
}

/// Our own program while `pg_dump` waits in the container for a table that is locked.
struct Stuck<'p> {
    db: Database<'p>,
    sandbox: Sandbox,
    child: Child,
    lock: Child,
}

impl<'p> Stuck<'p> {
    fn new(place: &'p Place) -> Self {
        let db = Database::new(place);
        let script =
            "IFS= read -r PGPASSWORD; export PGPASSWORD; exec psql -XAtq -h 127.0.0.1 -p 5455 -U owner -d \"$1\"";
        let mut command = Command::new(&place.exec[0]);
        command.args(&place.exec[1..]).args(["sh", "-c", script, "sh", &db.name]);
        let mut lock = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = format!("{}\nBEGIN; LOCK TABLE t; SELECT 'locked';\n", place.password);
        lock.stdin.as_mut().unwrap().write_all(said.as_bytes()).unwrap();
        lock.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();

        let sandbox = Sandbox::new();
        let file = sandbox.write("password", &place.password);
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        sandbox.configure_local(
            None,
            &format!(
                "[databases.shop]\nengine = \"postgres\"\nurl = \"{}/{}\"\npassword = {{ file = \"{{dir}}/password\" }}\n\
                 exec = {:?}\n{}",
                place.base,
                db.name.replace(' ', "%20"),
                place.exec,
                job("shop"),
            ),
        );
        let mut command = sandbox.command(&["-v", "run-job", "shop"]).into_command();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let stuck = Self { db, sandbox, child, lock };
        wait_until("pg_dump waits", || stuck.waits());
        stuck
    }

    fn waits(&self) -> bool {
        let who = "application_name = 'pg_dump' AND wait_event_type = 'Lock'";
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE {who} AND datname = '{}';", self.db.name);
        self.db.place.sql("postgres", &count) != "0"
    }

    fn ended(mut self) {
        wait_until("pg_dump is gone from the container", || !at_work(&["pg_dump"], &self.db.name) && !self.waits());
        drop(self.lock.stdin.take());
        self.lock.wait().unwrap();
        let stored = fs::read_dir(self.sandbox.store().join("host/shop")).into_iter().flatten().flatten();
        assert_eq!(stored.filter(|entry| entry.file_name().to_string_lossy().contains("manifest")).count(), 0);
    }
}

/// Whether one of these tools is at work on a database of this name, here or in a container.
fn at_work(tools: &[&str], name: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let program = words.split(|byte| *byte == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(program).into_owned();
        let is = |tool: &&&str| program.rsplit('/').next() == Some(**tool);
        // A connection string doubles what it quotes; a name of ours has nothing to quote.
        tools.iter().find(is).is_some() && String::from_utf8_lossy(&words).contains(name)
    })
}

#[test]
fn a_signal_to_us_in_the_middle_of_a_dump_ends_it_in_the_container() {
    let place = Place::postgres();
    let mut stuck = Stuck::new(&place);
    let pid = stuck.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(stuck.child.wait().unwrap().code(), Some(143));
    stuck.ended();
    unharmed();
}

#[test]
fn our_own_death_in_the_middle_of_a_dump_ends_it_in_the_container() {
    let place = Place::postgres();
    let mut stuck = Stuck::new(&place);
    stuck.child.kill().unwrap();
    stuck.child.wait().unwrap();
    stuck.ended();
    unharmed();
}

/// Gives most of a dump, and then nothing for a long time.
struct Endless(Cursor<Vec<u8>>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        if count == 0 {
            println!("\nwaiting");
            std::thread::sleep(Duration::from_secs(600));
        }
        Ok(count)
    }
}

#[test]
fn our_own_death_in_the_middle_of_a_load_ends_it_in_the_container() {
    let places = Place::all();
    if let Some(part) = common::part() {
        let (at, name) = part.split_once('|').unwrap();
        let place = &places[at.parse::<usize>().unwrap()];
        let engine = place.open(name);
        let (bytes, counts) = place.dump(engine.as_ref());
        let most = Endless(Cursor::new(bytes[..bytes.len() - 2000].to_vec()));
        let _ = place.restore(engine.as_ref(), most, Destination::Drill, &counts);
        std::process::exit(1);
    }
    let tools = ["pg_restore", "mariadb", "mysql"];
    for at in [0, 2] {
        let (place, db) = (&places[at], Database::new(&places[at]));
        let test = "our_own_death_in_the_middle_of_a_load_ends_it_in_the_container";
        let mut command = common::again(test, &format!("{at}|{}", db.name));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(lines.map_while(std::io::Result::ok).any(|line| line == "waiting"), "it never came so far");
        let scratch = format!("{}__restoring_", db.name);
        wait_until("the load is at work", || at_work(&tools, &scratch));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the load is gone", || !at_work(&tools, &scratch));
        // The session that says that it lives has ended there, too: the next restore drops what it has left.
        let list = if at == 0 { "SELECT datname FROM pg_database;" } else { "SHOW DATABASES;" };
        let left = || place.sql(place.desk(), list).lines().filter(|name| name.starts_with(&scratch)).count();
        assert_eq!(left(), 1);
        let engine = place.open(&db.name);
        let (bytes, counts) = place.dump(engine.as_ref());
        place.restore(engine.as_ref(), Cursor::new(bytes), Destination::Drill, &counts).unwrap();
        assert_eq!(left(), 0);
    }
}

const CANARY: &str = "canary-77aa-password";

/// What a watcher of /proc has seen of it: arguments, and the names of those that have it in their environment.
fn watch(done: &AtomicBool, canary: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut arguments, mut environments) = (BTreeSet::new(), BTreeSet::new());
    let has = |bytes: &[u8]| bytes.windows(canary.len()).any(|part| part == canary.as_bytes());
    while !done.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if has(&command) {
                arguments.insert(String::from_utf8_lossy(&command).into_owned());
            }
            let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
            if fs::read(entry.path().join("environ")).is_ok_and(|bytes| has(&bytes)) {
                environments.insert(name.trim().to_owned());
            }
        }
        // Several tests watch at once; what they look for lives longer than this.
        std::thread::sleep(Duration::from_millis(8));
    }
    (arguments, environments)
}

#[test]
fn a_password_shows_nowhere_but_in_the_tools_own_environment() {
    let place = Place::postgres();
    let db = Database::new(&place);
    let user = format!("canary_{}", std::process::id());
    place.sql("postgres", &format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{CANARY}';"));
    let sandbox = Sandbox::new();
    let path = path_with(&["docker"], &sandbox);
    sandbox.configure_local(
        None,
        &format!(
            "[databases.shop]\nengine = \"postgres\"\nurl = \"postgres://{user}:{CANARY}@127.0.0.1:5455/{}\"\n\
             exec = [\"docker\", \"exec\", \"-i\", \"voxeltron-db-mydb\"]\n{}",
            db.name.replace(' ', "%20"),
            job("shop"),
        ),
    );
    let done = AtomicBool::new(false);
    let commands = [
        &["-v", "run-job", "shop"][..],
        &["-v", "check"],
        &["-v", "restore", "shop", "--latest", "--dry-run"],
        &["-v", "restore", "shop", "--latest", "--yes"],
        &["-v", "verify", "--restore"],
    ];
    let (outcomes, (arguments, environments)) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&done, CANARY));
        let outcomes = commands.map(|args| std::panic::catch_unwind(|| program(&sandbox, &path, args)));
        done.store(true, Ordering::Relaxed);
        (outcomes, watcher.join().unwrap())
    });
    let mut said = String::new();
    for outcome in outcomes.map(|outcome| outcome.expect("it ends in time")) {
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        said += &format!("{}{}", outcome.stdout, outcome.stderr);
    }
    assert!(said.contains("docker exec -i voxeltron-db-mydb LC_ALL=… PGPASSWORD=… pg_dump"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
    assert_eq!(arguments, BTreeSet::new());
    // A child has its shell's name until it becomes the tool.
    let tools = ["pg_dump", "pg_restore", "psql", "sh"];
    assert!(environments.iter().all(|name| tools.contains(&name.as_str())), "{environments:?}");
    assert!(
        environments.contains("pg_dump") || environments.contains("psql"),
        "it is seen where it is: {environments:?}"
    );
    drop(db);
    place.sql("postgres", &format!("DROP ROLE {user};"));
}

#[test]
fn the_documentations_job_runs_where_its_container_is() {
    // As it stands in Voxeltron's documentation, with a real key; where the store is, the environment says.
    let bucket = common::s3::Bucket::new();
    let sandbox = Sandbox::new();
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    sandbox.configure(&common::SEED.replace("base64-encoded-256-bit-key", key));
    let path = path_with(&["docker"], &sandbox);
    let _alone = MYDB.lock().unwrap_or_else(PoisonError::into_inner);
    for args in [&["run-job", "mydb@s3"][..], &["verify", "mydb", "--restore"]] {
        let mut command = sandbox.command(args).into_command();
        command.env("PATH", &path).env("VOXELTRON_BACKUP_DATA_DIR", sandbox.data_dir());
        for (name, value) in [
            ("ENDPOINT", common::s3::endpoint()),
            ("BUCKET", bucket.name.clone()),
            ("ACCESS_KEY", common::s3::access_key()),
            ("SECRET_KEY", common::s3::secret_key()),
        ] {
            command.env(format!("VOXELTRON_BACKUP_TARGETS_S3_{name}"), value);
        }
        let outcome = run(&mut command, b"");
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
    }
    let keys = bucket.keys();
    assert!(keys.len() == 2 && keys.iter().any(|key| key.ends_with(".pgdump.gz.enc")), "{keys:?}");
}
