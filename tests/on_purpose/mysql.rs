//! MariaDB and MySQL: servers of the test's own with all of their data on one small disk, and MySQL's binary log on another.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use voxeltron_backup::world::{Clock, SystemClock, World};

use crate::common::{again, from_runner, part, run, tool};
use crate::disk::{Disks, free_port, starts};
use crate::{Bench, MEND, Way, has, lines, same};

const MIB: u64 = 1 << 20;

pub struct Server {
    pub disks: Disks,
    port: u16,
    maria: bool,
}

fn at(once: &'static OnceLock<Mutex<Server>>, maria: bool) -> MutexGuard<'static, Server> {
    once.get_or_init(|| Mutex::new(Server::new(maria))).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The two of this file, each alone for as long as it is held.
pub fn mariadb() -> MutexGuard<'static, Server> {
    static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
    at(&SERVER, true)
}

pub fn mysql() -> MutexGuard<'static, Server> {
    static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
    at(&SERVER, false)
}

impl Server {
    fn new(maria: bool) -> Self {
        let this = Self { disks: Disks::new(&[("data", "200m"), ("log", "40m")]), port: free_port(), maria };
        let mut install = this.server(if maria { "mariadb-install-db" } else { "mysqld" });
        match maria {
            true => install.args(["--skip-test-db", "--auth-root-authentication-method=normal"]),
            false => install.arg("--initialize-insecure"),
        };
        let made = run(&mut install, b"");
        assert!(made.status.success(), "{made:?}");
        this.start();
        this.sql(
            "mysql",
            "CREATE USER full@127.0.0.1 IDENTIFIED BY 'full'; GRANT ALL ON *.* TO full@127.0.0.1 WITH GRANT OPTION",
        );
        this.sql("mysql", "CREATE DATABASE shop CHARACTER SET utf8mb4");
        let double = "INSERT INTO a (t) SELECT CONCAT(SHA2(RAND(), 256), REPEAT(SHA2(i, 256), 15)) FROM a;".repeat(12);
        this.sql(
            "shop",
            &format!(
                "CREATE TABLE a (i INT PRIMARY KEY AUTO_INCREMENT, t VARCHAR(2000)); CREATE TABLE b (i INT, a INT, FOREIGN KEY (a) REFERENCES a (i));
                 INSERT INTO a (t) VALUES (REPEAT('x', 1000)); {double} INSERT INTO b VALUES (1, 1), (2, 2);
                 CREATE VIEW v AS SELECT i FROM b; CREATE TRIGGER tr BEFORE INSERT ON `b` FOR EACH ROW SET NEW.i = NEW.i + 0;"
            ),
        );
        this
    }

    /// The server, or what makes its first data, with all that they have in common.
    fn server(&self, name: &str) -> Command {
        let user = tool(Command::new("id").arg("-un"), b"").trim().to_owned();
        let mut command = self.disks.inside();
        match self.maria {
            true => command.arg("env").arg("PATH=/usr/bin:/bin:/usr/sbin:/sbin").arg(name),
            false => command.arg(PathBuf::from(from_runner("VOXELTRON_TEST_MYSQL_TOOLS")).join(name)),
        };
        command.args(["--no-defaults", &format!("--user={user}"), "--innodb-buffer-pool-size=32M"]);
        command.arg(format!("--datadir={}", self.disks.path("data/d").display()));
        if self.maria {
            command.args(["--innodb-log-file-size=8M", "--innodb-data-file-path=ibdata1:4M:autoextend"]);
        } else {
            let root = PathBuf::from(from_runner("VOXELTRON_TEST_MYSQL_ROOT")).join("usr");
            command
                .arg(format!("--basedir={}", root.display()))
                .args(["--innodb-redo-log-capacity=8M", "--mysqlx=OFF"]);
            command.arg(format!("--lc-messages-dir={}", root.join("share/mysql").display()));
            command.arg(format!("--plugin-dir={}", root.join("lib/mysql/plugin").display())).arg("--secure-file-priv=");
            command.arg(format!("--log-bin={}", self.disks.path("log/binlog").display()));
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn start(&self) {
        let log = std::fs::File::create(self.disks.folder.join("log.txt")).unwrap();
        let mut server = self.server(if self.maria { "mariadbd" } else { "mysqld" });
        server.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]);
        server
            .arg(format!("--port={}", self.port))
            .arg(format!("--socket={}", self.disks.folder.join("socket").display()));
        server.arg(format!("--pid-file={}", self.disks.folder.join("pid").display()));
        starts(server.stdout(log.try_clone().unwrap()).stderr(log));
        let began = Instant::now();
        while !self.answers() {
            assert!(began.elapsed() < Duration::from_secs(120), "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        run(self.client("mysql").args(["mysql", "-e", ""]), b"").status.success()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.disks.folder.join("log.txt")).unwrap()
    }

    fn client(&self, name: &str) -> Command {
        let mut command = match self.maria {
            true => Command::new(name),
            false => Command::new(PathBuf::from(from_runner("VOXELTRON_TEST_MYSQL_TOOLS")).join(name)),
        };
        command.args(["--no-defaults", "--user=root", "--default-character-set=utf8mb4"]);
        command.arg(format!("--socket={}", self.disks.folder.join("socket").display()));
        command
    }

    pub fn sql(&self, database: &str, sql: &str) -> String {
        tool(self.client("mysql").args(["--batch", "--raw", "--skip-column-names", database]), sql.as_bytes())
    }

    pub fn change(&self) {
        self.sql("shop", "INSERT INTO b VALUES (3, 3); CREATE TABLE IF NOT EXISTS later (i INT); CREATE OR REPLACE VIEW lv AS SELECT 1 AS i");
        if !self.maria {
            self.sql("mysql", "FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY");
        }
    }

    fn rows(&self) -> String {
        self.sql("shop", "SELECT COUNT(*), MAX(i) FROM b").trim().to_owned()
    }
}

impl Bench for Server {
    fn table(&self) -> String {
        let url = format!("mysql://full:full@127.0.0.1:{}/shop", self.port);
        let tools = from_runner("VOXELTRON_TEST_MYSQL_TOOLS");
        let its = [("tools_dir", tools.as_str())];
        lines(&[&[("engine", "mysql"), ("url", url.as_str())][..], if self.maria { &[] } else { &its }].concat())
    }

    fn all(&self) -> String {
        let mut dump = self.client("mysqldump");
        dump.args(["--routines", "--events", "--triggers", "--hex-blob", "--skip-dump-date", "--skip-extended-insert"]);
        dump.args(if self.maria { &[][..] } else { &["--set-gtid-purged=OFF"] });
        let text = tool(dump.args(["--no-tablespaces", "--single-transaction", "--skip-comments", "--", "shop"]), b"");
        text + &self.sql("mysql", "SHOW DATABASES")
    }
}

fn while_the_scratch_is_made_and_loaded(server: &Server) {
    let way = Way::new(server);
    server.change();
    // From nearly nothing to nearly enough: what is loaded, written down or exchanged may be the first without room.
    for left in [MIB / 4, 3 * MIB, 8 * MIB] {
        let before = server.all();
        server.disks.leave("data", left);
        let said = way.tries(&[], 13);
        if server.answers() {
            has(&said, &["disk is full", MEND]);
            let free = server.disks.free("data");
            assert!(free + MIB > left, "of {left} bytes {free} are free: {said}");
            server.disks.make_room("data");
            let after = server.all();
            assert!(!after.contains("__restoring_"), "{said}");
            same(&without_scratch(&after), &without_scratch(&before));
            continue;
        }
        // MariaDB can't always undo a statement that has filled its disk, and ends. What it left is swept by the next.
        assert!(server.maria, "{}", server.log());
        has(
            &said,
            &[
                "the server closed the connection",
                "hint: look into the server's log: it may have ended for want of room",
            ],
        );
        server.disks.make_room("data");
        server.start();
        same(&without_scratch(&server.all()), &without_scratch(&before));
    }
    way.restores();
    assert_eq!(server.rows(), "2\t2");
}

/// A clock that is six times as fast. Not more: every patience gets shorter by it, also that with a tool that starts slowly.
#[derive(Debug)]
struct Fast(SystemClock);

impl Clock for Fast {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * 6
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time);
    }
}

/// A server that waits for room: it would go on within a minute of it, and starts again at once when this is dropped.
struct Waiting<'a>(&'a Server);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.disks.make_room("log");
        let kill = "kill -9 \"$(cat \"$1\")\"";
        let pid = self.0.disks.folder.join("pid");
        drop(run(self.0.disks.inside().args(["sh", "-c", kill, "sh"]).arg(pid), b""));
        self.0.start();
    }
}

/// MySQL waits for room under its binary log, and a restore with it; that is told, and a signal ends it.
#[test]
fn a_disk_that_has_no_room_for_mysqls_binary_log() {
    if let Some(config) = part() {
        let world = World { clock: Arc::new(Fast(SystemClock::default())), ..World::system() };
        world.cancel.listen().unwrap();
        let words = ["voxeltron-backup", "-c", &config, "restore", "shop", "--latest", "--yes"];
        let exit = voxeltron_backup::run(words.into_iter().map(Into::into), &world);
        std::process::exit(exit.code().into());
    }
    let server = mysql();
    let way = Way::new(&*server);
    server.change();
    let before = server.all();
    let waiting = Waiting(&server);
    server.disks.leave("log", 2 * MIB);
    let mut child =
        again("mysql::a_disk_that_has_no_room_for_mysqls_binary_log", way.sandbox.config().to_str().unwrap());
    let mut child = child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains("busy for a minute")).expect("it is told");
    has(&told, &["waiting for room on a disk", "goes on when there is some"]);
    // A server that is slow to answer is not waited for.
    assert!(!told.contains('(') || told.contains("(waiting for handler commit)"), "{told}");
    // Whoever reads goes on.
    assert_eq!(server.rows(), "3\t3");
    let term = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(term, rustix::process::Signal::TERM).unwrap();
    let said: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{said:?}");
    drop(waiting);
    same(&without_scratch(&server.all()), &without_scratch(&before));
    way.restores();
    assert_eq!(server.rows(), "2\t2");
    assert!(!server.all().contains("__restoring_"));
}

/// Without the scratch, and without the next number of a table, which a server that has crashed counts again.
fn without_scratch(all: &str) -> String {
    let stays = |line: &&str| !line.contains("__restoring_") && !line.contains(" AUTO_INCREMENT=");
    all.split_inclusive('\n').filter(stays).collect()
}

#[test]
fn a_disk_that_is_full_while_mariadbs_scratch_is_made_and_loaded() {
    while_the_scratch_is_made_and_loaded(&mariadb());
}

#[test]
fn a_disk_that_is_full_while_mysqls_scratch_is_made_and_loaded() {
    while_the_scratch_is_made_and_loaded(&mysql());
}
