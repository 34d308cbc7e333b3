//! SQLite: the database itself, or our `data_dir`, is on a small disk.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::tool;
use crate::disk::Disks;
use crate::{Bench, Way, has, lines};

/// A database in a file that may be on a small disk, where only those see it who are there.
pub struct File<'a> {
    pub path: PathBuf,
    disks: Option<&'a Disks>,
}

impl<'a> File<'a> {
    /// Of so many rows of a thousand random bytes each.
    pub fn with(path: PathBuf, disks: Option<&'a Disks>, rows: u32) -> Self {
        let this = Self { path, disks };
        this.sql("PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)");
        this.grow(rows);
        this
    }

    pub fn sql(&self, sql: &str) -> String {
        let mut shell = self.disks.map_or_else(|| Command::new("env"), Disks::inside);
        tool(shell.args(["sqlite3", "-batch", "-bail"]).arg(&self.path).arg(sql), b"")
    }

    pub fn grow(&self, rows: u32) {
        self.sql(&format!(
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t (x) SELECT randomblob(1000) FROM n"
        ));
    }

    pub fn rows(&self) -> String {
        self.sql("SELECT count(*) FROM t").trim().to_owned()
    }
}

impl Bench for File<'_> {
    fn table(&self) -> String {
        lines(&[("engine", "sqlite"), ("url", &format!("sqlite://{}", self.path.display()))])
    }

    fn all(&self) -> String {
        let folder = self.path.parent().unwrap();
        let folder =
            self.disks.map_or(folder.to_owned(), |disks| disks.seen(folder.file_name().unwrap().to_str().unwrap()));
        let folder = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // Journals come and go with those who read; the ballast is the test's.
        names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm") && name != "ballast");
        names.sort();
        self.sql(".dump") + &names.join("\n")
    }
}

#[test]
fn a_disk_that_is_full_under_the_database_itself() {
    let disks = Disks::new(&[("data", "12m"), ("ours", "20m")]);
    let file = File::with(disks.path("data/shop.db"), Some(&disks), 3_000);
    // The program must be where the disk is.
    let way = Way::on(&file, Some((&disks, "ours")));
    file.sql("DELETE FROM t WHERE id > 10; VACUUM; PRAGMA wal_checkpoint(truncate); PRAGMA journal_mode = delete");
    for left in [100_000, 2_000_000] {
        disks.leave("data", left);
        way.fails(&[], 13, &["no space left", "hint: make room"]);
        assert!(disks.free("data") + 100_000 > left);
        disks.make_room("data");
    }
    way.restores();
    assert_eq!(file.rows(), "3000");
}

#[test]
fn a_disk_that_is_full_under_what_is_unpacked() {
    let disks = Disks::new(&[("ours", "20m")]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let file = File::with(path, None, 3_000);
    let way = Way::on(&file, Some((&disks, "ours")));
    file.sql("DELETE FROM t WHERE id > 10; VACUUM");
    disks.leave("ours", 2_000_000);
    way.fails(&[], 13, &["no space left", "hint: make room"]);
    assert!(disks.free("ours") + 100_000 > 2_000_000);
    // With nothing at all it does not even begin.
    disks.make_room("ours");
    disks.leave("ours", 0);
    let before = file.all();
    let said = way.runs(&["restore", "shop", "--latest", "--yes"], 1).stderr;
    // What is written down first may need a page, or fit into the one that it has.
    let why = said.contains(" has 0 B free") || said.contains("previous.json: no space left");
    assert!(why && said.contains("hint: make room there"), "{said}");
    crate::same(&file.all(), &before);
    disks.make_room("ours");
    way.restores();
    assert_eq!(file.rows(), "3000");
}

#[test]
fn a_full_disk_of_ours_keeps_no_backup_from_the_targets() {
    let disks = Disks::new(&[("ours", "1m")]);
    let folder = tempfile::tempdir().unwrap();
    let file = File::with(folder.path().join("shop.db"), None, 10);
    let way = Way::on(&file, Some((&disks, "ours")));
    way.does(&["schedule-check"]);
    let path = disks.seen("ours").join("state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state["jobs"]["shop@local"]["first_seen"] = "2020-01-01T00:00:00Z".into();
    std::fs::write(&path, state.to_string()).unwrap();
    disks.leave("ours", 0);

    let run = |code| -> Value {
        let outcome = way.runs(&["--json", "schedule-check"], code);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
    };
    let first = &run(1)["jobs"][0];
    assert_eq!(first["targets"][0]["stored"], true, "{first}");
    let warning = first["warnings"][0].as_str().unwrap();
    has(warning, &["can't note that it begins: can't write ", "state.json", ": no space left"]);
    let error = &first["error"];
    has(error["message"].as_str().unwrap(), &["state.json", ": no space left"]);
    has(error["hint"].as_str().unwrap(), &["make room there"]);
    // Nothing knows of it but the target, and that is enough: what is gone can't be dumped again.
    std::fs::remove_file(&file.path).unwrap();
    let second = &run(1)["jobs"][0];
    assert_eq!((&second["targets"][0]["was_there"], &second["id"]), (&true.into(), &first["id"]), "{second}");

    disks.make_room("ours");
    assert_eq!(run(0)["jobs"][0]["targets"][0]["was_there"], true);
    assert_eq!(run(0)["idle"], true);
    way.does(&["status"]);
}
