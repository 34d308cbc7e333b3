//! What must not come in, and what can't go out: after every refusal the live database is as it was, and no temporary
//! file is left.

use std::io::Read;
use std::process::Command;

use rusqlite::Connection;
use voxeltron_backup::engine::checks::Check;
use voxeltron_backup::engine::{Counts, Destination, Inspected, Request, kind};
use voxeltron_backup::error::{Error, Kind};

use crate::support::{Bench, Broken, SmallDisk, contents, engine, fill, names, sqlite3, url};

/// Names the image for the process that is started under a limit.
const LIMITED: &str = "SQLITE_ENGINE_TEST_LIMITED_IMAGE";

/// A live database that differs from the image that is offered to it.
fn bench(journal: &str) -> (Bench, Vec<u8>, Counts) {
    let bench = Bench::new(&format!("PRAGMA page_size=1024; PRAGMA journal_mode={journal}; {}", fill("t", 300)));
    let (image, counts, _) = bench.dump().unwrap();
    bench.execute("DELETE FROM t WHERE id > 50; CREATE TABLE precious(x); INSERT INTO precious VALUES('live');");
    (bench, image, counts)
}

/// Everything of the live database: file, journals, what the tool sees.
fn state(bench: &Bench) -> (Vec<(String, Vec<u8>)>, String) {
    let seen = contents(&bench.live);
    let folder = bench.live.parent().unwrap();
    let read = |name: String| (name.clone(), std::fs::read(folder.join(name)).unwrap());
    (names(folder).into_iter().map(read).collect(), seen)
}

#[test]
fn a_stream_that_fails_or_ends_early() {
    for journal in ["WAL", "DELETE"] {
        let (bench, image, counts) = bench(journal);
        let before = state(&bench);
        for length in [0, 1, 99, 100, 1_023, 1_024, image.len() / 2, image.len() - 1_024, image.len() - 1, image.len()]
        {
            let failure = Error::new(Kind::Authentication, "the backup was cut").hint("verify it");
            for error in [Some(failure.clone()), None] {
                let wanted = if error.is_some() { Kind::Authentication } else { Kind::Tool };
                if error.is_none() && length == image.len() {
                    continue;
                }
                let mut stream = Broken { bytes: &image[..length], error };
                let error = bench.restore_from(&mut stream, Destination::InPlace, &counts).unwrap_err();
                assert_eq!(error.kind, wanted, "{length}: {error}");
                if wanted == Kind::Authentication && (length == 0 || length == image.len()) {
                    assert_eq!(error, failure, "the stream's own error is left as it is");
                }
                let beside = bench.path("beside.db");
                let into = Destination::Into(beside.to_str().unwrap().to_owned());
                let mut stream = Broken { bytes: &image[..length], error: Some(failure.clone()) };
                bench.restore_from(&mut stream, into, &counts).unwrap_err();
                assert!(!beside.exists());
            }
        }
        assert!(state(&bench) == before);
    }
}

#[test]
fn the_engine_itself_sees_that_an_image_is_cut() {
    let (bench, image, counts) = bench("WAL");
    let before = state(&bench);
    for length in [0, 1, 99, 100, 1_023, 1_024, image.len() - 1_024, image.len() - 1] {
        for destination in [Destination::InPlace, Destination::Drill] {
            let error = bench.restore_unseen(&mut &image[..length], destination, &counts).unwrap_err();
            // Said of the stream, before SQLite has to make sense of what came.
            assert!(error.kind == Kind::Tool && error.message.contains("the dump is "), "{length}: {error}");
        }
    }
    assert!(state(&bench) == before);
}

#[test]
fn an_image_that_is_damaged_or_of_something_else() {
    let (bench, image, counts) = bench("WAL");
    let before = state(&bench);
    // SQLite has no checksums: what lies within a value shows to our digest alone, what holds pages together to SQLite.
    let damaged = |from: usize, byte: u8| {
        let mut image = image.clone();
        let to = if from < 1_024 { from + 600 } else { image.len() };
        image[from..to].fill(byte);
        image
    };
    let mut long = image.clone();
    long.extend_from_slice(&[0; 1_024]);
    let offers = [
        (damaged(1_024 * 2, 0xff), "the backup's database is damaged: "),
        (damaged(1_024 * 20, 0x00), "the backup's database is damaged: "),
        (damaged(100, 0xa5), "the backup's database"),
        (damaged(0, 0), "does not begin with \"SQLite format 3\""),
        (b"-- PostgreSQL database dump".repeat(100), "does not begin with \"SQLite format 3\""),
        (long, "the dump is longer than its "),
        (Vec::new(), "the dump is empty"),
    ];
    for (offer, message) in offers {
        for destination in [Destination::InPlace, Destination::Drill] {
            let error = bench.restore(&offer, destination, &counts).unwrap_err();
            assert_eq!(error.kind, Kind::Tool);
            assert!(error.message.contains(message), "{error}, not {message}");
        }
    }
    assert!(state(&bench) == before);
}

#[test]
fn an_index_that_does_not_fit_its_table() {
    let bench = Bench::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT); CREATE INDEX words ON t(word);
         INSERT INTO t(word) VALUES('needle'), ('other');",
    );
    let (mut image, counts, _) = bench.dump().unwrap();
    let before = state(&bench);
    // Once in the table and once in the index; every row is still there and counted.
    let at = image.windows(6).rposition(|window| window == b"needle").unwrap();
    image[at] = b'N';
    for destination in [Destination::InPlace, Destination::Drill] {
        let error = bench.restore(&image, destination, &counts).unwrap_err();
        assert_eq!(error.kind, Kind::Tool);
        assert!(error.message.contains("the backup's database is damaged: "), "{error}");
    }
    assert!(state(&bench) == before);
}

#[test]
fn counts_that_differ() {
    let (bench, image, counts) = bench("WAL");
    let before = state(&bench);
    let mut other = counts.clone();
    other.insert("t".to_owned(), Some(299));
    let mut more = counts;
    more.insert("orders".to_owned(), Some(0));
    for (expected, message) in
        [(other, "table t has 300 rows, the backup was taken with 299"), (more, "table orders is missing")]
    {
        for destination in [Destination::InPlace, Destination::Drill] {
            let error = bench.restore(&image, destination, &expected).unwrap_err();
            assert!(error.kind == Kind::Tool && error.hint.is_some() && error.message.ends_with(message), "{error}");
        }
    }
    assert!(state(&bench) == before);
}

#[test]
fn what_is_no_database_is_not_backed_up() {
    let bench = Bench::new("CREATE TABLE t(a);");
    let folder = bench.live.parent().unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::write(folder.join("text"), "some text that is no database\n".repeat(50)).unwrap();
    let whole = std::fs::read(&bench.live).unwrap();
    std::fs::write(folder.join("cut"), &whole[..4_096]).unwrap();
    let cases = [
        ("missing", "does not exist"),
        ("empty", "is empty, not a database"),
        ("text", "file is not a database"),
        ("cut", "malformed"),
        ("", "is a folder"),
        ("live.db/x", "not a directory"),
    ];
    for (name, message) in cases {
        let path = folder.join(name);
        let before = names(folder);
        let engine = engine(&url(&path)).unwrap_or_else(|_| engine(&url(folder)).unwrap());
        for error in [engine.probe(&bench.cx).map(drop).unwrap_err(), engine.dump(&bench.cx).map(drop).unwrap_err()] {
            assert_eq!(error.kind, Kind::Tool);
            assert!(error.message.contains(message), "{error}, not {message}");
            assert!(error.message.contains(folder.to_str().unwrap()), "{error}");
        }
        assert_eq!(names(folder), before, "nothing was made");
    }
    let probe = bench.engine().probe(&bench.cx).unwrap();
    assert_eq!(
        (probe.tool_version.as_deref(), probe.server_version, probe.warnings),
        (Some(rusqlite::version()), None, vec![])
    );
}

#[test]
fn a_full_disk_for_temporary_copies() {
    for journal in ["WAL", "DELETE"] {
        let (mut bench, image, counts) = bench(journal);
        let before = state(&bench);
        bench.cx.data_dir = bench.path("small");
        let Some(_disk) = SmallDisk::new(&bench.cx.data_dir, 64) else { return full_without_root() };
        let error = bench.restore(&image, Destination::InPlace, &counts).unwrap_err();
        assert!(error.message.contains("no space left"), "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("make room")), "{error:?}");
        if journal == "DELETE" {
            let error = bench.dump().unwrap_err();
            assert!(error.message.contains("no space left") && error.message.contains("small"), "{error}");
            bench.assert_no_leftovers();
        }
        assert!(state(&bench) == before);
    }
}

#[test]
fn a_full_disk_under_the_live_database() {
    for journal in ["WAL", "DELETE"] {
        let source = Bench::new(&fill("t", 3_000));
        let (image, counts, _) = source.dump().unwrap();
        let mut bench = Bench::new("CREATE TABLE t(a);");
        let Some(_disk) = SmallDisk::new(&bench.path("small"), 1_000) else { return full_without_root() };
        bench.live = bench.path("small").join("live.db");
        bench.execute(&format!("PRAGMA journal_mode={journal}; {}", fill("t", 200)));
        let before = state(&bench);
        let handle = Connection::open(&bench.live).unwrap();
        let rows = |db: &Connection| db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(rows(&handle), 200);
        let error = bench.restore(&image, Destination::InPlace, &counts).unwrap_err();
        assert!(error.message.contains("no space left"), "{error}");
        assert_eq!(rows(&handle), 200);
        drop(handle);
        assert_eq!(state(&bench).1, before.1);
        // And as a new file there.
        let into = bench.path("small").join("new.db");
        let error = bench.restore(&image, Destination::Into(into.to_str().unwrap().to_owned()), &counts).unwrap_err();
        assert!(error.message.contains("no space left"), "{error}");
        assert!(!into.exists());
    }
}

/// Where nothing can be mounted, a limit on the size of files stands in: this test again, in a process under it.
fn full_without_root() {
    let source = Bench::new(&fill("t", 1_000));
    let path = source.path("image");
    std::fs::write(&path, source.dump().unwrap().0).unwrap();
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact refusals::under_a_limit --nocapture";
    let mut limited = Command::new("sh");
    limited.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(LIMITED, path);
    assert!(limited.status().unwrap().success());
}

#[test]
fn a_file_that_can_not_grow() {
    full_without_root();
}

/// No test by itself: what [`full_without_root`] starts. Files can't grow beyond 64 KiB (128 blocks of a POSIX shell).
#[test]
fn under_a_limit() {
    let Some(path) = std::env::var_os(LIMITED) else { return };
    let image = std::fs::read(path).unwrap();
    let bench = Bench::new("CREATE TABLE t(a); INSERT INTO t VALUES('live');");
    let before = state(&bench);
    let error = bench.restore(&image, Destination::InPlace, &Counts::new()).unwrap_err();
    assert!(error.message.contains("file too large"), "{error}");
    assert!(state(&bench) == before);
}

#[test]
fn a_dump_of_a_damaged_page_is_an_error_or_is_caught_by_the_drill() {
    let bench = Bench::new(&fill("t", 300));
    let mut file = std::fs::read(&bench.live).unwrap();
    file[8_192..40_000].fill(0xee);
    std::fs::write(&bench.live, file).unwrap();
    let error = bench.dump().and_then(|(image, counts, _)| bench.restore(&image, Destination::Drill, &counts));
    assert_eq!(error.unwrap_err().kind, Kind::Tool);
    bench.assert_no_leftovers();
}

#[test]
fn the_inspector_is_the_registrys() {
    let (bench, image, _) = bench("WAL");
    let mut inspector = (kind("sqlite").unwrap().inspector)();
    inspector.feed(&image).unwrap();
    assert_eq!(inspector.finish().unwrap(), bench_findings(&image));
    assert!(!sqlite3(&bench.live, "SELECT count(*) FROM t;").is_empty());
}

fn bench_findings(image: &[u8]) -> voxeltron_backup::engine::Findings {
    let mut stream = Inspected::new(image, (kind("sqlite").unwrap().inspector)());
    std::io::copy(&mut stream.by_ref(), &mut std::io::sink()).unwrap();
    stream.findings().take().unwrap()
}

fn check(query: &str, expect: &str) -> Check {
    Check { name: None, query: vec![query.to_owned()], expect: expect.to_owned() }
}

#[test]
fn a_backup_with_the_wrong_rows_is_caught() {
    let bench = Bench::new(
        "CREATE TABLE t(i INTEGER, r REAL, s TEXT); INSERT INTO t VALUES (1, 1.0, 'x'), (7, NULL, 'wrong');
         CREATE VIEW v AS SELECT count(*) AS n FROM t;",
    );
    let (image, counts, _) = bench.dump().unwrap();
    let drill = |expected: &Counts, checks: &[Check]| {
        let request = Request { checks: checks.to_vec(), ..Request::new(Destination::Drill, expected.clone()) };
        let mut stream = Inspected::new(&*image, (kind("sqlite").unwrap().inspector)());
        let outcome = bench.engine().restore(&mut stream, &request, &bench.cx);
        bench.assert_no_leftovers();
        outcome
    };
    let good = [check("SELECT n > 1 FROM v; -- all", "1"), check("SELECT * FROM t ORDER BY i", "1|1.0|x\n7||wrong\n")];
    drill(&counts, &good).unwrap();
    // By what was counted when it was made.
    let error = drill(&Counts::from([("t".to_owned(), Some(3))]), &good).unwrap_err();
    assert!(error.message.contains("table t has 2 rows, the backup was taken with 3"), "{error}");
    // The number is right and the rows are not.
    let named = Check { name: Some("no seven".to_owned()), ..check("SELECT count(*) FROM t WHERE i = 7", "0") };
    let error = drill(&counts, &[named]).unwrap_err();
    assert_eq!(error.kind, Kind::Tool);
    assert!(error.message.ends_with(r#"check "no seven": expected "0", found "1""#), "{error}");
    let other = bench.path("other.db");
    for (query, why) in [
        ("DELETE FROM t RETURNING i", "reads nothing"),
        (&format!("ATTACH '{}' AS o", other.display()), "reads nothing"),
        ("SELECT 1 FROM nowhere", "no such table: nowhere"),
    ] {
        let error = drill(&counts, &[check(query, "1")]).unwrap_err();
        assert!(error.message.contains("check ") && error.message.contains(why), "{query}: {error:?}");
    }
    assert!(!other.exists());
    // A signal ends a check that does not.
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n";
    let cancel = bench.cx.world.cancel.clone();
    let signal = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        cancel.stop(15);
    });
    assert_eq!(drill(&counts, &[check(endless, "1")]).unwrap_err().kind, Kind::Stopped(15));
    signal.join().unwrap();
}
