//! PostgreSQL: a cluster of the test's own with its data on one small disk and its WAL on another.

use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::common::{postgres_tool, psql, run, tool};
use crate::disk::{Disks, free_port, is_root, starts};
use crate::{Bench, MEND, Way, has, lines};

const PASSWORD: &str = "full";
const MIB: u64 = 1 << 20;

pub struct Server {
    disks: Disks,
    port: u16,
}

/// The one of this file, alone for as long as it is held.
pub fn server() -> MutexGuard<'static, Server> {
    static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Mutex::new(Server::new())).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    fn new() -> Self {
        let this = Self { disks: Disks::new(&[("data", "160m"), ("wal", "200m")]), port: free_port() };
        let password = this.disks.folder.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let mut initdb = this.as_postgres("initdb");
        initdb.arg("-D").arg(this.disks.path("data/d")).arg("--waldir").arg(this.disks.path("wal/w"));
        initdb.arg(format!("--pwfile={}", password.display()));
        initdb.args([
            "--wal-segsize=1",
            "-U",
            "postgres",
            "--auth=scram-sha-256",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]);
        tool(&mut initdb, b"");
        this.start();
        psql(&this.url("postgres"), "CREATE DATABASE shop");
        psql(
            &this.url("shop"),
            "CREATE TABLE a (i int PRIMARY KEY, t text); CREATE TABLE b (i int REFERENCES a);
             INSERT INTO a SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, 60000) n; INSERT INTO b VALUES (1), (2);
             CREATE INDEX ON a (t);",
        );
        this
    }

    /// As the user that the server runs as, where the disks are.
    fn as_postgres(&self, name: &str) -> Command {
        let mut command = self.disks.inside();
        if is_root() {
            command.args(["runuser", "-u", "postgres", "--"]);
        }
        command.arg(postgres_tool(name).get_program()).current_dir("/");
        command
    }

    /// Starts it, again too, and waits for it.
    fn start(&self) {
        let log = std::fs::File::create(self.disks.folder.join("log")).unwrap();
        let mut server = self.as_postgres("postgres");
        server.arg("-D").arg(self.disks.path("data/d")).args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "autovacuum=off",
            "max_wal_size=1GB",
            "wal_recycle=off",
            "min_wal_size=2MB",
            "shared_buffers=16MB",
        ] {
            server.args(["-c", setting]);
        }
        starts(server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log));
        assert!(self.answers_within(Duration::from_secs(120)), "{}", self.log());
    }

    fn answers_within(&self, time: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < time {
            let mut ask = postgres_tool("psql");
            if run(ask.args(["-X", "-q", "-c", "", "-d", &self.url("postgres")]), b"").status.success() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.disks.folder.join("log")).unwrap()
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// Writes out all that waits, so that what is free stays free.
    fn settle(&self) {
        psql(&self.url("postgres"), "CHECKPOINT");
    }

    /// Changes what the database holds, and gives what tells it from before.
    pub fn change(&self) {
        psql(&self.url("shop"), "INSERT INTO b VALUES (3); CREATE TABLE IF NOT EXISTS later (i int)");
        self.settle();
    }

    fn rows(&self) -> String {
        psql(&self.url("shop"), "SELECT count(*), max(i) FROM b").trim().to_owned()
    }
}

impl Bench for Server {
    fn table(&self) -> String {
        let tools = postgres_tool("x").get_program().to_string_lossy().into_owned();
        let url = self.url("shop");
        lines(&[("engine", "postgres"), ("url", &url), ("tools_dir", tools.strip_suffix("/x").unwrap())])
    }

    fn all(&self) -> String {
        let mut dump = postgres_tool("pg_dump");
        let text = tool(dump.args(["-d", &self.url("shop")]), b"");
        let random = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
        let text = text.lines().filter(random).collect::<Vec<_>>().join("\n");
        text + &psql(&self.url("postgres"), "SELECT datname, datallowconn FROM pg_database ORDER BY 1")
    }
}

#[test]
fn a_disk_that_is_full_while_the_scratch_is_made_and_loaded() {
    let server = server();
    let way = Way::new(&*server);
    server.change();
    // When the database is made; in the middle of its rows; in the middle of its indexes.
    for (left, more) in [(3, &[][..]), (13, &[]), (21, &[]), (13, &["--jobs", "2"])] {
        server.disks.leave("data", left * MIB);
        let said = way.fails(more, 13, &["the server's disk is full", "No space left on device", MEND]);
        // The scratch has given its room back.
        let free = server.disks.free("data");
        assert!(free + MIB > left * MIB, "of {left} MiB {free} bytes are free: {said}");
        server.disks.make_room("data");
    }
    way.restores();
    assert_eq!(server.rows(), "2|2");
}

#[test]
fn a_disk_that_is_full_in_the_single_transaction() {
    let server = server();
    psql(
        &server.url("shop"),
        "CREATE ROLE poor LOGIN PASSWORD 'poor'; ALTER DATABASE shop OWNER TO poor; DROP TABLE IF EXISTS later;
         ALTER TABLE a OWNER TO poor; ALTER TABLE b OWNER TO poor;",
    );
    struct Poor<'a>(&'a Server);
    impl Bench for Poor<'_> {
        fn table(&self) -> String {
            self.0.table().replace(&format!("postgres:{PASSWORD}@"), "poor:poor@")
        }

        fn all(&self) -> String {
            self.0.all()
        }
    }
    let poor = Poor(&server);
    let way = Way::new(&poor);
    psql(&server.url("shop"), "INSERT INTO b VALUES (3)");
    server.settle();
    server.disks.leave("data", 8 * MIB);
    way.fails(&[], 13, &["the server's disk is full", "No space left on device", "nothing was changed", MEND]);
    server.disks.make_room("data");
    way.restores();
    assert_eq!(server.rows(), "2|2");
    psql(
        &server.url("shop"),
        "ALTER DATABASE shop OWNER TO postgres; REASSIGN OWNED BY poor TO postgres; DROP ROLE poor",
    );
}

#[test]
fn a_disk_that_has_no_room_for_the_servers_log() {
    let server = server();
    let way = Way::new(&*server);
    server.change();
    let before = server.all();
    server.disks.leave("wal", 3 * MIB);
    let said = way.tries(&[], 13);
    assert!(server.log().contains("PANIC"), "{}", server.log());
    // Its last words may not have come through.
    match said.contains("No space left on device") {
        true => has(&said, &["the server's disk is full", MEND]),
        false => has(&said, &["was cut", "hint: look into the server's log", "want of room"]),
    }
    // It can't come up again before there is room.
    assert!(!server.answers_within(Duration::from_millis(500)), "{}", server.log());
    server.disks.make_room("wal");
    server.start();
    let left = |all: &str| all.lines().filter(|line| !line.contains("__restoring_")).collect::<Vec<_>>().join("\n");
    crate::same(&left(&server.all()), &left(&before));
    way.restores();
    assert_eq!(server.rows(), "2|2");
}
