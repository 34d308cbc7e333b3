//! Databases in containers: tools that run by `exec` where their server runs, and containers found by their names. The
//! containers are real ones, of Podman's (Docker's engine does not run in the sandboxes of CI): `tests/run` starts
//! PostgreSQL, MySQL and MariaDB in them, with no network and with a password that holds all that hurts. Besides, each
//! engine goes through `env -i … chroot` into another root. What Docker itself answers is in the unit tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
        let request = Request { destination: to, expected: counts.clone(), server_version: None };
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
        this.sql("CREATE TABLE t (i int PRIMARY KEY, x varchar(200)); INSERT INTO t VALUES (1, 'a\\tÄ😀'), (2, NULL), (3, '''');");
        this.sql("CREATE VIEW v AS SELECT i FROM t; CREATE TABLE big (x varchar(2000)); INSERT INTO big VALUES ('x');");
        (0..14).for_each(|_| drop(this.sql("INSERT INTO big SELECT concat(x, 'y') FROM big;")));
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
    static ONCE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
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
        assert!(started.elapsed() < Duration::from_secs(20), "{what}: not within 20 seconds");
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
        // One that has a child of its own, and one that does not listen.
        for script in ["sleep \"$0\"; true", "trap '' TERM; sleep \"$0\"; sleep \"$0\""] {
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
        let look = Invocation::new("rm").args([&marker]);
        if exec[0] == "env" && !exec.contains(&"chroot".to_owned()) {
            process::run(&look, b"", None, &world).unwrap();
        }
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
    let limits = ["--network=none", "--ulimit", "nofile=64:64", "--ulimit", "nproc=64:64", "--security-opt", "seccomp=unconfined"];
    let image = "docker.io/library/postgres:15";
    let made = |args: &[&str]| assert!(run(Command::new(&podman).args(args), b"").status.success(), "{args:?}");
    made(&[&["create", "--name", &stopped][..], &limits, &[image, "sh"]].concat());
    let busybox = "/usr/bin/busybox:/run/sleep:ro";
    made(&[&["run", "-d", "--name", &bare, "-v", busybox][..], &limits, &[image, "/run/sleep", "600"]].concat());
    let empty = tempfile::tempdir().unwrap();
    let missing = ["no-such-docker", "exec", "-i", "x"].map(str::to_owned).to_vec();
    let chroot = ["chroot", empty.path().to_str().unwrap()].map(str::to_owned).to_vec();
    let podman_exec = |args: &[&str]| [&[podman.as_str(), "exec"], args].concat().into_iter().map(str::to_owned).collect();
    let table: Vec<(Vec<String>, &str, &str)> = vec![
        (missing, "can't start no-such-docker: no such file", "install no-such-docker, or mend exec"),
        (podman_exec(&["-i", "no-such"]), "no container with name or ID \"no-such\"", "mend the container's name in exec"),
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
