//! Through the program itself: every command with JSON, and the password seen nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support::{Server, Which};

/// What must show nowhere.
const CANARY: &str = "canary-7d1e-password";

/// One at a time: a test's own commands hold the canary, and another's watcher would see it.
static ALONE: Mutex<()> = Mutex::new(());

struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    fn new(server: &Server) -> Self {
        let folder = tempfile::Builder::new().prefix("voxeltron-redis-cli-").tempdir().unwrap();
        let path = folder.path().display();
        let text = format!(
            "[backup]\ndata_dir = \"{path}/data\"\ninstance = \"h\"\n\
             encryption_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n[backup.targets.local]\npath = \"{path}/store\"\n\
             [databases.cache]\nengine = \"redis\"\nurl = \"redis://canary:{CANARY}@127.0.0.1:{}\"\ntools_dir = \"{}\"\n\
             [[backup.jobs]]\ndatabase = \"cache\"\nschedule = \"@daily\"\nencrypt = true\n",
            server.port,
            server.which.tools().display()
        );
        fs::write(folder.path().join("config.toml"), text).unwrap();
        fs::set_permissions(folder.path().join("config.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { folder }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxeltron-backup"));
        command.arg("-c").arg(self.folder.path().join("config.toml")).args(words).stdin(Stdio::null());
        let output = command.output().unwrap();
        for said in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(said).contains(CANARY), "{words:?}");
        }
        output
    }

    #[track_caller]
    fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Ends a watcher even when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Looks at all processes until `done`: the canary in arguments, and in the environment of anything but the client.
fn watch(done: &AtomicBool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let has = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
    while !done.load(Ordering::SeqCst) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
            let text = String::from_utf8_lossy(&words).replace('\0', " ");
            if has(&words) {
                seen.insert(format!("arguments: {text}"));
            }
            // One that begins or ends in between has no words yet, or no more.
            let with = fs::read(entry.path().join("environ")).is_ok_and(|bytes| has(&bytes));
            let still = fs::read(entry.path().join("cmdline")).is_ok_and(|again| again == words && !words.is_empty());
            if with && still && !text.contains("-cli") {
                seen.insert(format!("environment: {text}"));
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    seen
}

fn every_command(which: Which) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::new(which);
    server.small();
    server.cli(&["ACL", "SETUSER", "canary", "on", &format!(">{CANARY}"), "~*", "&*", "+@all"]);
    let sandbox = Sandbox::new(&server);
    let before = server.digest();
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&done));
        let end = Ending(&done);
        sandbox.good(&["-v", "check"]);
        sandbox.good(&["-v", "run-job", "cache"]);
        let listed = sandbox.good(&["--json", "list", "cache"]);
        assert!(listed.contains("\"engine\": \"redis\"") || listed.contains("\"engine\":\"redis\""), "{listed}");
        let plan = sandbox.good(&["--json", "restore", "cache", "--latest", "--dry-run"]);
        assert!(plan.contains("REPLICAOF") && plan.contains("SWAPDB"), "{plan}");
        assert_eq!(server.digest(), before);
        assert!(sandbox.good(&["--json", "verify", "cache"]).contains("CRC64 agrees"));
        let drilled = sandbox.good(&["--json", "verify", "cache", "--restore"]);
        assert!(drilled.contains("\"db0\"") && drilled.contains("200"), "{drilled}");
        server.cli(&["FLUSHALL"]);
        sandbox.good(&["-v", "restore", "cache", "--latest", "--yes"]);
        assert_eq!(server.digest(), before);
        // Two databases hold keys: they don't go into one.
        assert_eq!(
            sandbox.run(&["-v", "restore", "cache", "--latest", "--into", "9", "--yes"]).status.code(),
            Some(13)
        );
        let file = sandbox.folder.path().join("dump.rdb");
        sandbox.good(&["restore", "cache", "--latest", "--output", &file.display().to_string()]);
        assert!(crate::support::checked(which, &fs::read(&file).unwrap()).contains("looks OK"));
        server.cli(&["ACL", "SETUSER", "canary", "-sync", "-psync"]);
        assert_eq!(sandbox.run(&["-v", "run-job", "cache"]).status.code(), Some(13));
        assert_eq!(sandbox.run(&["-v", "check"]).status.code(), Some(13));
        drop(end);
        watcher.join().unwrap()
    });
    assert_eq!(seen, BTreeSet::new());
    assert_eq!(server.digest(), before);
    let left: Vec<_> =
        fs::read_dir(sandbox.folder.path().join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().contains("redis") && !name.to_string_lossy().contains("drill")),
        "{left:?}"
    );
}

#[test]
fn every_command_on_redis() {
    every_command(Which::Redis7);
}

#[test]
fn every_command_on_valkey() {
    every_command(Which::Valkey8);
}

/// As docs/operating.md describes it, for where no other way is open.
fn by_file(which: Which) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for more in ["", "appendonly yes", "cluster-enabled yes"] {
        let mut server = Server::with(which, more);
        match more.contains("cluster") {
            true => {
                server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
                until(&server, "CLUSTER", "cluster_state:ok");
                let keys = (0..200).map(|n| crate::support::words(&["SET", &format!("key:{n}"), &"x".repeat(n)]));
                server.pipe(&keys.collect::<Vec<_>>());
            }
            false => drop(server.small()),
        }
        server.cli(&["FUNCTION", "LOAD", "#!lua name=f\nredis.register_function('f', function() return 'new' end)"]);
        server.cli(&["ACL", "SETUSER", "canary", "on", &format!(">{CANARY}"), "~*", "&*", "+@all"]);
        let state = |server: &Server| (server.digest(), server.cli(&["FUNCTION", "LIST", "WITHCODE"]));
        let before = state(&server);
        let sandbox = Sandbox::new(&server);
        sandbox.good(&["run-job", "cache"]);
        server.cli(&["DEL", "key:1"]);
        server.cli(&["SET", "later", "1"]);
        server.cli(&["FUNCTION", "FLUSH"]);
        let file = sandbox.folder.path().join("dump.rdb");
        sandbox.good(&["restore", "cache", "--latest", "--output", &file.display().to_string()]);
        server.stop();
        fs::copy(&file, server.folder.path().join("dump.rdb")).unwrap();
        if more.contains("appendonly") {
            assert!(server.start_with(&["--appendonly", "no"]));
            assert_eq!(state(&server), before);
            server.cli(&["CONFIG", "SET", "appendonly", "yes"]);
            until(&server, "INFO", "aof_rewrite_in_progress:0");
            until(&server, "INFO", "aof_rewrite_scheduled:0");
            server.stop();
        }
        assert!(server.start(), "{}", fs::read_to_string(server.folder.path().join("log")).unwrap());
        assert_eq!(state(&server), before, "{more}");
        // Once more, for what it has written itself.
        server.stop();
        assert!(server.start());
        assert_eq!(state(&server), before, "{more}");
        if more.contains("cluster") {
            until(&server, "CLUSTER", "cluster_state:ok");
            assert_eq!(server.cli(&["GET", "key:7"]), "xxxxxxx");
        }
    }
}

/// Waits until the server says so.
#[track_caller]
fn until(server: &Server, command: &str, line: &str) {
    let words = if command == "CLUSTER" { vec![command, "INFO"] } else { vec![command] };
    for _ in 0..6000 {
        if server.cli(&words).contains(line) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no {line}");
}

#[test]
fn by_file_on_redis() {
    by_file(Which::Redis7);
}

#[test]
fn by_file_on_valkey() {
    by_file(Which::Valkey8);
}

#[test]
fn into_a_database_of_another_server() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, other) = (Server::new(Which::Redis7), Server::new(Which::Valkey8));
    server.small().cli(&["-n", "3", "FLUSHDB"]);
    for server in [&server, &other] {
        server.cli(&["ACL", "SETUSER", "canary", "on", &format!(">{CANARY}"), "~*", "&*", "+@all"]);
    }
    let sandbox = Sandbox::new(&server);
    sandbox.good(&["run-job", "cache"]);
    let file = sandbox.folder.path().join("password");
    fs::write(&file, CANARY).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (before, settings) = (server.digest(), other.settings());
    let url = format!("redis://canary@127.0.0.1:{}", other.port);
    let file = file.display().to_string();
    let words = ["restore", "cache", "--latest", "--into", "5", "--url", &url, "--password-file", &file];
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&done));
        let end = Ending(&done);
        sandbox.good(&words);
        drop(end);
        watcher.join().unwrap()
    });
    assert_eq!(seen, BTreeSet::new());
    assert_eq!((other.cli(&["-n", "5", "DBSIZE"]), other.cli(&["-n", "0", "DBSIZE"])), ("200".into(), "0".into()));
    assert_eq!(other.cli(&["-n", "5", "GET", "key:7"]), "value 7 xxxxxxx");
    assert_eq!((server.digest(), other.settings()), (before, settings));
    assert_eq!(sandbox.run(&words).status.code(), Some(13), "it is not empty any more");
}

/// Our end by SIGKILL ends the server of a drill too, and removes its folder.
#[test]
fn a_drill_that_is_killed_leaves_no_server() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::new(Which::Redis7);
    let values = (0..60_000).map(|n| crate::support::words(&["SET", &format!("k:{n}"), "value"])).collect::<Vec<_>>();
    server.pipe(&values);
    server.cli(&["ACL", "SETUSER", "canary", "on", &format!(">{CANARY}"), "~*", "&*", "+@all"]);
    let sandbox = Sandbox::new(&server);
    sandbox.good(&["run-job", "cache"]);
    let data = sandbox.folder.path().join("data");
    let drills = || {
        let entries = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.starts_with("drill-")).count()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_voxeltron-backup"));
    command.args(["-q", "-c"]).arg(sandbox.folder.path().join("config.toml")).args(["verify", "cache", "--restore"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = (0..60_000).any(|_| {
        std::thread::sleep(Duration::from_millis(2));
        drills() == 1 || child.try_wait().unwrap().is_some()
    });
    assert!(began && child.try_wait().unwrap().is_none(), "no drill is seen");
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..6000 {
        if drills() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the folder of the drill is still there");
}
