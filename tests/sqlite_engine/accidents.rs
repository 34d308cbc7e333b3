//! What a crash leaves, and what a crash of ours leaves: hot journals, a WAL without its writer, a restore that is
//! killed, a file system that can't be written.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use voxeltron_backup::engine::{Counts, Destination, Request};

use crate::support::{Bench, SmallDisk, contents, engine, fill, names, sqlite3, url};

/// Names the database for the process that restores until it is killed.
const RESTORES_TO: &str = "SQLITE_ENGINE_TEST_RESTORES_TO";

/// The files of a database as a crash would leave them, while a transaction is open that has spilled to the disk.
fn crashed(journal: &str, ending: &str) -> Bench {
    let mut bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {}", fill("t", 500)));
    let db = Connection::open(&bench.live).unwrap();
    db.execute_batch(
        "PRAGMA cache_size=5; INSERT INTO t(b) VALUES('committed'); BEGIN; UPDATE t SET b = zeroblob(1000);",
    )
    .unwrap();
    let copy = bench.live.with_file_name("crashed.db");
    for ending in ["", ending] {
        let name = |path: &Path| format!("{}{ending}", path.display());
        std::fs::copy(name(&bench.live), name(&copy)).unwrap();
    }
    drop(db);
    bench.live = copy;
    bench
}

#[test]
fn a_crashed_writers_journal_is_heeded() {
    for (journal, ending) in [("DELETE", "-journal"), ("WAL", "-wal")] {
        let bench = crashed(journal, ending);
        let (image, counts, _) = bench.dump().unwrap();
        assert_eq!(counts.get("t"), Some(&Some(501)));
        let beside = bench.path("beside.db");
        bench.restore(&image, Destination::Into(beside.to_str().unwrap().to_owned()), &counts).unwrap();
        let sql = "SELECT count(*), sum(b = 'committed'), sum(b = zeroblob(1000)) FROM t; PRAGMA integrity_check;";
        assert_eq!(sqlite3(&beside, sql), "501|1|0\nok\n", "{journal}");
    }
}

#[test]
fn a_restore_into_what_a_crash_left() {
    for (journal, ending) in [("DELETE", "-journal"), ("WAL", "-wal")] {
        let source = Bench::new(&fill("t", 50));
        let (image, counts, _) = source.dump().unwrap();
        let bench = crashed(journal, ending);
        bench.restore(&image, Destination::InPlace, &counts).unwrap();
        assert_eq!(contents(&bench.live), contents(&source.live), "{journal}");
    }
}

/// No test by itself: what [`a_restore_that_is_killed`] starts.
#[test]
fn restoring_process() {
    let Some(path) = std::env::var_os(RESTORES_TO) else { return };
    let path = Path::new(&path);
    let image = std::fs::read(path.with_extension("image")).unwrap();
    let cx = voxeltron_backup::engine::Cx {
        world: voxeltron_backup::world::World::system(),
        report: Default::default(),
        data_dir: path.with_extension("data"),
        deadline: None,
    };
    let request = Request::new(Destination::InPlace, Counts::new());
    println!("ready");
    loop {
        engine(&url(path)).unwrap().restore(&mut &*image, &request, &cx).unwrap();
    }
}

#[test]
fn a_restore_that_is_killed() {
    for journal in ["WAL", "DELETE"] {
        let bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {}", fill("t", 2_000)));
        let (image, counts, _) = bench.dump().unwrap();
        std::fs::write(bench.live.with_extension("image"), &image).unwrap();
        let new = contents(&bench.live);
        for milliseconds in (0..24).map(|step| 5 + step * 9) {
            bench.execute("DELETE FROM t WHERE id > 700; UPDATE t SET b = 'old';");
            let old = contents(&bench.live);
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "accidents::restoring_process", "--nocapture"])
                .env(RESTORES_TO, &bench.live)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"ready\n") {
                let mut byte = [0];
                child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
                said.push(byte[0]);
            }
            std::thread::sleep(Duration::from_millis(milliseconds));
            child.kill().unwrap();
            child.wait().unwrap();
            let after = contents(&bench.live);
            assert!(after == old || after == new, "{journal}: neither the old nor the new after {milliseconds} ms");
            bench.restore(&image, Destination::InPlace, &counts).unwrap();
            assert!(contents(&bench.live) == new);
        }
        // What the killed ones left is private, and swept when it is old enough.
        let left = names(&bench.live.with_extension("data"));
        assert!(left.iter().all(|name| name.starts_with(".voxeltron-partial-sqlite-")), "{left:?}");
    }
}

#[test]
fn a_reader_in_the_middle_keeps_what_it_saw() {
    let bench = Bench::new(&format!("PRAGMA journal_mode=WAL; {}", fill("t", 300)));
    let (image, counts, _) = bench.dump().unwrap();
    bench.execute("DELETE FROM t WHERE id > 10");
    let reader = Connection::open(&bench.live).unwrap();
    let rows = || reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(), 10);
    let start = std::time::Instant::now();
    bench.restore(&image, Destination::InPlace, &counts).unwrap();
    // Who waits for a lock does so for a minute.
    assert!(start.elapsed() < Duration::from_secs(45), "the restore waited for a reader");
    assert_eq!(rows(), 10);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(), 300);
}

#[test]
fn a_live_database_of_another_encoding_or_vacuum() {
    for journal in ["WAL", "DELETE"] {
        for (theirs, ours) in [("UTF-8", "UTF-16le"), ("UTF-16be", "UTF-8")] {
            let source =
                Bench::new(&format!("PRAGMA encoding='{theirs}'; PRAGMA auto_vacuum=1; {}", fill("größe", 90)));
            let (image, counts, _) = source.dump().unwrap();
            let bench = Bench::new(&format!(
                "PRAGMA encoding='{ours}'; PRAGMA auto_vacuum=0; PRAGMA journal_mode={journal}; {}",
                fill("t", 200)
            ));
            let restored = bench.restore(&image, Destination::InPlace, &counts).unwrap();
            assert!(restored.notes.iter().any(|note| note.contains("text encoding changed")), "{:?}", restored.notes);
            assert_eq!(contents(&bench.live), contents(&source.live));
        }
    }
}

#[test]
fn a_file_system_that_can_not_be_written() {
    let mut bench = Bench::new("CREATE TABLE t(a);");
    let (image, ..) = bench.dump().unwrap();
    let folder = bench.path("small");
    // Only root can mount one; as anybody else there is nothing to look at.
    let Some(_disk) = SmallDisk::new(&folder, 4_000) else { return };
    for journal in ["WAL", "DELETE"] {
        bench.live = folder.join(format!("{journal}.db"));
        bench.execute(&format!("PRAGMA journal_mode={journal}; {}", fill("t", 100)));
    }
    let hot = crashed("DELETE", "-journal");
    for ending in ["", "-journal"] {
        let from = format!("{}{ending}", hot.live.display());
        std::fs::copy(from, folder.join(format!("hot.db{ending}"))).unwrap();
    }
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&folder).status().unwrap();
    assert!(remounted.success());

    bench.live = folder.join("DELETE.db");
    assert_eq!(bench.dump().unwrap().1.get("t"), Some(&Some(100)));
    let warnings = bench.engine().probe(&bench.cx).unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("is not writable")), "{warnings:?}");
    for name in ["WAL.db", "hot.db"] {
        bench.live = folder.join(name);
        let error = bench.dump().unwrap_err();
        assert!(error.message.contains(name) && error.hint.is_some(), "{error:?}");
        bench.engine().probe(&bench.cx).unwrap_err();
    }
    bench.live = folder.join("DELETE.db");
    let error = bench.restore(&image, Destination::InPlace, &Counts::new()).unwrap_err();
    assert!(error.message.contains("readonly") && error.hint.is_some(), "{error:?}");
}

#[test]
fn a_database_larger_than_a_gibibyte() {
    // Beyond 1 GiB SQLite leaves out one page, the one that its locks are on.
    for journal in ["WAL", "DELETE"] {
        let bench = Bench::new(&format!(
            "PRAGMA journal_mode={journal}; CREATE TABLE t(b); \
             INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1150) \
             SELECT randomblob(1000000) FROM n;"
        ));
        let before = sqlite3(&bench.live, ".sha3sum");
        let dump = bench.engine().dump(&bench.cx).unwrap();
        let into = bench.path("beside.db");
        let destination = Destination::Into(into.to_str().unwrap().to_owned());
        let mut stream = dump.stream;
        bench.restore_from(&mut stream, destination, &dump.counts).unwrap();
        assert_eq!(sqlite3(&into, ".sha3sum"), before);
        bench.execute("DELETE FROM t WHERE rowid > 3");
        let mut file = std::fs::File::open(&into).unwrap();
        bench.restore_from(&mut file, Destination::InPlace, &dump.counts).unwrap();
        assert_eq!(sqlite3(&bench.live, ".sha3sum"), before);
    }
}
