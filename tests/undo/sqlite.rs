//! SQLite: a dump is kept, encrypted.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Sandbox, sqlite3};
use crate::{Bench, Way, lines, shown};

struct Shop {
    _folder: tempfile::TempDir,
    path: PathBuf,
    changes: AtomicU32,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        sqlite3(
            &path,
            "PRAGMA journal_mode = wal; CREATE TABLE a (i INTEGER PRIMARY KEY, t TEXT, b BLOB);
             WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO a SELECT i, 'Ünï ' || i, randomblob(200) FROM n;
             CREATE VIEW v AS SELECT count(*) FROM a; CREATE TRIGGER tr AFTER DELETE ON a BEGIN SELECT 1; END;",
        );
        Self { _folder: folder, path, changes: AtomicU32::new(0) }
    }
}

impl Bench for Shop {
    fn table(&self) -> String {
        lines(&[("engine", "sqlite"), ("url", &format!("sqlite://{}", shown(&self.path)))])
    }

    fn change(&self) {
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        sqlite3(
            &self.path,
            &format!(
                "CREATE TABLE later{number} (i); INSERT INTO later{number} VALUES (randomblob(9)); DELETE FROM a WHERE i % 7 = {number};
                 PRAGMA user_version = {number};"
            ),
        );
    }

    fn all(&self) -> String {
        sqlite3(&self.path, ".dump") + &sqlite3(&self.path, "PRAGMA user_version; PRAGMA journal_mode;")
    }
}

#[test]
fn sqlite_there_and_back() {
    crate::there_and_back(&Shop::new());
}

#[test]
fn sqlite_dropped_in_time() {
    crate::dropped_in_time(&Shop::new());
}

#[test]
fn sqlite_killed() {
    crate::killed(&Shop::new(), 6);
}

#[test]
fn too_little_room_is_told_before_anything_changes() {
    let shop = Shop::new();
    let way = Way::new(&shop, "");
    shop.change();
    // As large as no disk is, and takes no room.
    let journal = shop.path.with_file_name("shop.db-wal");
    sqlite3(&shop.path, "PRAGMA journal_mode = delete");
    assert!(!journal.exists());
    let size = shop.path.metadata().unwrap().len();
    let before = shop.all();
    std::fs::OpenOptions::new().write(true).open(&shop.path).unwrap().set_len(8 << 40).unwrap();
    let said = way.sandbox.command(&["restore", "shop", "--latest"]).exits(1).stderr_any().run().stderr;
    assert!(said.contains("can't keep shop as it is") && said.contains("8.00 TiB"), "{said}");
    assert!(
        said.contains("hint: make room there; or restore without") && said.contains("keep_previous = \"0\""),
        "{said}"
    );
    std::fs::OpenOptions::new().write(true).open(&shop.path).unwrap().set_len(size).unwrap();
    assert_eq!((shop.all(), way.kept().len()), (before, 0));
    way.restore();
    assert_eq!(way.kept().len(), 1);
}

#[test]
fn what_can_t_be_kept_is_not_replaced() {
    let shop = Shop::new();
    let way = Way::new(&shop, "");
    shop.change();
    let before = shop.all();
    // A file where the folder should be: no dump can be written.
    let blocked = way.sandbox.data_dir().join("previous");
    std::fs::write(&blocked, "").unwrap();
    let said = way.sandbox.command(&["--json", "restore", "shop", "--latest"]).exits(1).stdout_any().stderr_any().run();
    let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let said = said.stderr;
    assert!(said.contains("can't keep shop as it is") && said.contains("keep_previous = \"0\""), "{said}");
    // How far it had come.
    let steps = document["steps_done"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap());
    assert_eq!(steps.collect::<Vec<_>>(), ["load", "check", "keep"]);
    assert_eq!(shop.all(), before);
    std::fs::remove_file(blocked).unwrap();
    way.restore();
    // A kept dump that was touched is not put back.
    let folder = way.sandbox.data_dir().join("previous/host/shop");
    let mut objects = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let object = objects.find(|path| path.extension().is_some_and(|end| end == "enc")).unwrap();
    let mut bytes = std::fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let restored = shop.all();
    way.sandbox.command(&["restore", "shop", "--undo"]).exits(12).stderr_any().run();
    assert_eq!(shop.all(), restored);
}

#[test]
fn an_undo_that_failed_is_done_again() {
    let shop = Shop::new();
    let way = Way::new(&shop, "");
    shop.change();
    let changed = shop.all();
    way.restore();
    let restored = shop.all();
    // What stands can be read and kept, but not be replaced.
    let writer = rusqlite::Connection::open(&shop.path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut child = begins_and_waits(&way, "--undo", 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(way.dumps(), 2, "the newer one is of what stands");
    drop(writer);
    assert!(shop.all() == restored);
    way.undo();
    assert!(shop.all() == changed);
    assert_eq!(way.kept().len(), 1);
}

/// Begins a restore that can keep what stands, but not replace it, and waits until that is kept.
fn begins_and_waits(way: &Way<'_>, which: &str, kept: usize) -> std::process::Child {
    let mut command = way.sandbox.command(&["-q", "restore", "shop", which]).into_command();
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let folder = way.sandbox.data_dir().join("previous/host/shop");
    let names = || std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    while names().filter(|name| name.to_string_lossy().ends_with(".manifest.json")).count() < kept {
        assert!(began.elapsed() < Duration::from_secs(120), "nothing is kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn a_restore_that_fails_and_changes_nothing_leaves_what_is_kept() {
    let shop = Shop::new();
    let way = Way::new(&shop, "");
    shop.change();
    let changed = shop.all();
    way.restore();
    let (restored, kept) = (shop.all(), way.kept());
    let writer = rusqlite::Connection::open(&shop.path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut child = begins_and_waits(&way, "--latest", 2);
    // By a signal, while it waits for the lock.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    drop(writer);
    assert!(shop.all() == restored);
    assert_eq!(way.kept(), kept);
    way.undo();
    assert!(shop.all() == changed);
}

#[test]
fn what_was_kept_before_a_restore_that_did_not_end_can_be_put_back_by_its_time() {
    let shop = Shop::new();
    let way = Way::new(&shop, "");
    shop.change();
    let first = shop.all();
    way.restore();
    shop.change();
    let second = shop.all();
    let writer = rusqlite::Connection::open(&shop.path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut child = begins_and_waits(&way, "--latest", 2);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(writer);
    // Nobody knows whether it has changed anything: the one that ends well drops nothing.
    let said = way.restore();
    let kept = way.kept();
    assert_eq!(kept.len(), 3, "{kept:?}");
    let times: Vec<&str> = kept.iter().map(|kept| kept["since"].as_str().unwrap()).collect();
    assert!(times[1..].iter().all(|at| said.contains(&format!("restore shop --undo={at}"))), "{said}");
    way.undo();
    assert!(shop.all() == second);
    // The oldest is that of the restore that ended well before.
    let none = way.sandbox.command(&["restore", "shop", "--undo=2020"]).exits(2).stderr_any().run().stderr;
    assert!(none.contains("is no date or time"), "{none}");
    let none = way.sandbox.command(&["restore", "shop", "--undo=2020-01-01"]).exits(15).stderr_any().run().stderr;
    assert!(none.contains("nothing is kept of shop from a restore at that time") && none.contains(times[2]), "{none}");
    way.quietly(&["restore", "shop", &format!("--undo={}", times[2])]);
    assert!(shop.all() == first);
    // They go in their time.
    way.tick(Duration::from_secs(25 * 3_600));
    assert_eq!(way.kept().len(), 0);
    way.restore();
    way.restore();
    assert_eq!(way.kept().len(), 1);
}

#[test]
fn a_damaged_record_stops_no_tick() {
    let shop = Shop::new();
    let way = Way::new(&shop, "");
    way.restore();
    std::fs::write(way.sandbox.data_dir().join("previous.json"), "{").unwrap();
    let said = way.sandbox.command(&["schedule-check"]).stderr_any().run().stderr;
    assert!(said.contains("previous.json can't be understood"), "{said}");
    way.sandbox.command(&["list"]).stdout_has("shop").stderr_has("previous.json can't be understood").run();
    way.restore();
    assert_eq!(way.kept().len(), 1);
}

#[test]
fn what_a_killed_run_left_goes_even_if_it_bears_the_same_second() {
    let shop = Shop::new();
    let way = Way::new(&shop, "");
    way.restore();
    let folder = way.sandbox.data_dir().join("previous/host/shop");
    // Whenever within a minute the next one is kept, one of these has its name.
    let now = chrono::Utc::now();
    for second in 0..60 {
        let at = (now + chrono::TimeDelta::seconds(second)).format("%Y%m%dT%H%M%SZ");
        let left = folder.join(format!("{at}-previous.0badcafe.sqlite.gz.enc"));
        std::fs::write(&left, "half of a dump").unwrap();
        std::fs::set_permissions(left, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    shop.change();
    let changed = shop.all();
    way.restore();
    assert_eq!((way.dumps(), way.kept().len()), (1, 1));
    way.undo();
    assert_eq!(shop.all(), changed);
}

#[test]
fn undo_goes_with_no_choice_of_a_backup() {
    let sandbox = Sandbox::new();
    for other in [["--latest", ""], ["--into", "x"], ["--output", "x"], ["--target", "x"], ["--job", "x"]] {
        let words: Vec<&str> =
            ["restore", "shop", "--undo"].into_iter().chain(other).filter(|w| !w.is_empty()).collect();
        sandbox.command(&words).exits(2).stderr_any().run();
    }
}
