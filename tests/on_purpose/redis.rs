//! Redis and Valkey: a server whose folder is on a small disk, and one whose memory is full.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::disk::{Disks, free_port};
use crate::{Bench, Way, has, lines, same};

#[path = "../redis_engine/support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
pub mod support;

use support::{PASSWORD, Server, Which, program};

/// A server with its files on a small disk.
struct Cache {
    disks: Disks,
    which: Which,
    port: u16,
    child: Option<Child>,
}

impl Cache {
    fn new(which: Which, more: &[&str]) -> Self {
        let mut this = Self { disks: Disks::new(&[("data", "40m")]), which, port: free_port(), child: None };
        let folder = this.disks.path("data").display().to_string();
        let conf = format!(
            "port {}\nbind 127.0.0.1\ndir {folder}\nenable-debug-command local\nsave 3600 1\nrdbcompression no\n\
             repl-diskless-sync-delay 0\nrequirepass full\n{}\n",
            this.port,
            more.join("\n")
        );
        std::fs::write(this.disks.folder.join("conf"), conf).unwrap();
        this.start();
        this
    }

    /// Starts it, again too.
    fn start(&mut self) {
        let log = std::fs::File::create(self.disks.folder.join("log")).unwrap();
        let mut server = self.disks.inside();
        server.arg(self.which.tool("server")).arg(self.disks.folder.join("conf")).stdin(Stdio::null());
        self.child = Some(server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let began = Instant::now();
        while self.try_cli(&["PING"]).as_deref() != Ok("PONG") {
            assert!(began.elapsed() < Duration::from_secs(120), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As a power cut does it.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(self.try_cli(&["DEBUG", "SEGFAULT"]));
            child.wait().unwrap();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.disks.folder.join("log")).unwrap()
    }

    fn try_cli(&self, words: &[&str]) -> Result<String, String> {
        let mut client = Command::new(self.which.tool("cli"));
        client.args(["-p", &self.port.to_string(), "--no-auth-warning", "-e"]).env("REDISCLI_AUTH", "full");
        let output = client.args(words).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    #[track_caller]
    fn cli(&self, words: &[&str]) -> String {
        self.try_cli(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Other data than before, on the disk.
    fn change(&self) {
        self.cli(&["FLUSHALL"]);
        self.cli(&["SET", "old", "1"]);
        self.saves();
    }

    /// Saves by itself, and tells whether it could.
    fn saves(&self) -> bool {
        for _ in 0..3000 {
            match self.try_cli(&["SAVE"]) {
                Err(error) if error.contains("in progress") => std::thread::sleep(Duration::from_millis(20)),
                outcome => return outcome.is_ok(),
            }
        }
        panic!("it does not save");
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Bench for Cache {
    fn table(&self) -> String {
        let (url, tools) = (format!("redis://127.0.0.1:{}", self.port), self.which.tools());
        lines(&[("engine", "redis"), ("url", &url), ("password", "full"), ("tools_dir", tools.to_str().unwrap())])
    }

    fn all(&self) -> String {
        let settings = self.cli(&["--no-raw", "CONFIG", "GET", "*"]);
        let lines: Vec<&str> = settings.lines().map(|line| line.split_once(") ").unwrap().1).collect();
        // In no order that stays.
        let settings: std::collections::BTreeSet<&[&str]> = lines.chunks(2).collect();
        let role = self.cli(&["ROLE"]);
        format!("{}\n{}\n{settings:#?}", self.cli(&["DEBUG", "DIGEST"]), role.lines().next().unwrap())
    }
}

/// 8 MB, with all that they bring; every one another.
fn fill(cache: &Cache) {
    cache.cli(&["FLUSHALL"]);
    cache.cli(&["DEBUG", "POPULATE", "8000", "key", "1000"]);
}

/// The server can't save what it has loaded: the restore says so, and until it can, a crash brings back all of the old.
fn a_server_that_cant_save(which: Which) {
    let mut cache = Cache::new(which, &[]);
    fill(&cache);
    let new = cache.all();
    let way = Way::new(&cache);
    cache.change();
    let old = cache.all();
    cache.disks.leave("data", 1_000_000);
    let said = way.restores();
    has(&said, &["it is restored, but not known to be on the server's disk: rdb_last_bgsave_status is err", "BGSAVE"]);
    same(&cache.all(), &new);
    // One key after the other it would not even begin: the server takes no writes now.
    drop(way);
    cache.kill();
    cache.start();
    same(&cache.all(), &old);
    cache.disks.make_room("data");
    assert!(cache.saves());
}

#[test]
fn redis_that_cant_save() {
    a_server_that_cant_save(Which::Redis7);
}

#[test]
fn valkey_that_cant_save() {
    a_server_that_cant_save(Which::Valkey8);
}

#[test]
fn redis_that_cant_write_its_append_only_file() {
    let mut cache = Cache::new(Which::Redis7, &["appendonly yes"]);
    fill(&cache);
    let new = cache.all();
    let way = Way::new(&cache);
    cache.change();
    let old = cache.all();
    // What it has been told stands in the file, and no child writes another.
    let began = Instant::now();
    let waits =
        ["aof_buffer_length:0", "aof_pending_bio_fsync:0", "aof_rewrite_in_progress:0", "rdb_bgsave_in_progress:0"];
    while !waits.iter().all(|line| cache.cli(&["INFO", "persistence"]).contains(line)) {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", cache.cli(&["INFO", "persistence"]));
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    cache.disks.leave("data", 0);
    let said = way.restores();
    has(
        &said,
        &["it is restored, but not known to be on the server's disk: aof_last_bgrewrite_status is err", "BGREWRITEAOF"],
    );
    same(&cache.all(), &new);
    drop(way);
    cache.kill();
    cache.disks.make_room("data");
    cache.start();
    same(&cache.all(), &old);
}

/// Memory that fills while the keys are loaded beside the live ones, after the look before has found enough of it.
#[test]
fn a_server_that_reaches_its_maxmemory_key_by_key() {
    let server = Server::new(Which::Redis7);
    server.small();
    let new = server.digest();
    drop(server.unfollowing());
    let folder = tempfile::tempdir().unwrap();
    let real = server.which.tool("cli");
    // A client that lets another one write as it begins to mark what it loads into, and in a second run as it loads.
    program(
        &folder.path().join("redis-cli"),
        &format!(
            "#!/bin/sh\ncase \"$*\" in *--pipe*) [ -e {0}/calm ] || rm {0}/later 2>/dev/null || REDISCLI_AUTH=$(cat {0}/password) {real} -p {1} -n 63 SETRANGE other 40000000 x >/dev/null;; esac\n\
             exec {real} \"$@\"\n",
            folder.path().display(),
            server.port,
            real = real.display(),
        ),
    );
    std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
    struct Keys<'a>(&'a Server, &'a std::path::Path);
    impl Bench for Keys<'_> {
        fn table(&self) -> String {
            let url = format!("redis://keys@127.0.0.1:{}", self.0.port);
            let password = "q w\"'\\%$é";
            let tools = self.1.to_str().unwrap();
            lines(&[("engine", "redis"), ("url", &url), ("password", password), ("tools_dir", tools)])
        }

        fn all(&self) -> String {
            // What the other client has written is not ours to judge.
            drop(self.0.cli(&["-n", "63", "FLUSHDB"]));
            format!("{}\n{:?}", self.0.digest(), self.0.settings())
        }
    }
    server.cli(&["CONFIG", "SET", "maxmemory", "30000000"]);
    let keys = Keys(&server, folder.path());
    let way = Way::new(&keys);
    server.cli(&["SET", "later", "1"]);
    way.fails(&[], 13, &["OOM command not allowed", "hint: the server's maxmemory is too small for this: raise it"]);
    let keyspace = server.cli(&["INFO", "keyspace"]);
    assert_eq!(keyspace.lines().filter(|line| line.starts_with("db")).count(), 2, "{keyspace}");
    std::fs::write(folder.path().join("later"), "").unwrap();
    way.fails(&[], 13, &["OOM command not allowed", "hint: the server's maxmemory is too small for this: raise it"]);
    std::fs::write(folder.path().join("calm"), "").unwrap();
    way.restores();
    assert_eq!(server.digest(), new);
}
