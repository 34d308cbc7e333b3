//! Out and back: what comes back is what went out, down to the byte where that can be asked for.

use voxeltron_backup::engine::Destination;

use crate::support::{Bench, contents, fill, mode, names, sqlite3};

/// Data that hurts: every storage class, every byte, extremes, and every kind of thing a schema may hold.
const HURTS: &str = r#"
PRAGMA foreign_keys=OFF;
PRAGMA application_id=1234567; PRAGMA user_version=42;
CREATE TABLE classes(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO classes(v) VALUES (NULL),(''),(x''),(0),(-1),(9223372036854775807),(-9223372036854775808),
  (1.7976931348623157e308),(5e-324),(-0.0),(9e999),(-9e999),(9e999-9e999),('NULL'),('it''s'),('a"b'),
  (char(128512,0x1F1E9,0x10FFFF)),('tab	new
line'),(char(65,0,66)),(CAST(x'fffe80' AS TEXT)),(zeroblob(70000));
CREATE TABLE bytes(n INTEGER PRIMARY KEY, raw BLOB, txt TEXT);
INSERT INTO bytes WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<255)
  SELECT i, CAST(char(i) AS BLOB) || unhex(printf('%02x', i)), char(i, i, 0x1F600, i) FROM n;
CREATE TABLE empty(a, b);
CREATE TABLE strict_one(i INTEGER, r REAL, t TEXT, b BLOB, a ANY) STRICT;
INSERT INTO strict_one VALUES(1, 1.5, 'x', x'00ff', 'any'), (NULL, NULL, NULL, NULL, 7);
CREATE TABLE keyed(k TEXT, l INTEGER, v, PRIMARY KEY(k, l)) WITHOUT ROWID;
INSERT INTO keyed VALUES('b', 2, 'x'), ('a', 1, x'00');
CREATE TABLE generated(a INTEGER, stored AS (a * 2) STORED, virtual AS (a || '!') VIRTUAL);
INSERT INTO generated(a) VALUES (1), (21);
CREATE TABLE "sp ace ""quo'te"" ünï 漢字 😀"("co l" TEXT, "sel""ect" INTEGER DEFAULT (abs(-3)));
INSERT INTO "sp ace ""quo'te"" ünï 漢字 😀"("co l") VALUES('x');
CREATE TABLE "select"("from" TEXT); INSERT INTO "select" VALUES('where');
CREATE TABLE chicken(id INTEGER PRIMARY KEY, egg REFERENCES egg(id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE egg(id INTEGER PRIMARY KEY, chicken REFERENCES chicken(id) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO chicken VALUES(1, 1); INSERT INTO egg VALUES(1, 1);
CREATE TABLE self(id INTEGER PRIMARY KEY, parent REFERENCES self(id)); INSERT INTO self VALUES(1, 1);
CREATE INDEX partly ON classes(v) WHERE v IS NOT NULL;
CREATE UNIQUE INDEX computed ON generated(a + 1, lower(virtual) COLLATE NOCASE DESC);
CREATE VIEW seen AS SELECT k, count(*) AS n FROM keyed GROUP BY k;
CREATE VIEW broken_view AS SELECT * FROM no_such_table;
CREATE TABLE log(what);
CREATE TRIGGER told AFTER INSERT ON keyed BEGIN INSERT INTO log VALUES('k:' || new.k); END;
CREATE TRIGGER instead INSTEAD OF INSERT ON seen BEGIN INSERT INTO keyed VALUES(new.k, new.n, 0); END;
CREATE VIRTUAL TABLE words USING fts5(title, body, tokenize='unicode61 remove_diacritics 2');
INSERT INTO words VALUES('Größe', 'the quick brown fox'), ('漢字', 'über die Brücke');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES(1, 0.5, 2.5);
CREATE TABLE rowids(v); INSERT INTO rowids(rowid, v) VALUES(5, 'a'), (-7, 'b'), (9223372036854775807, 'c');
DELETE FROM classes WHERE id = 3;
ANALYZE;
"#;

/// Out, then changed, then back in place; and out, then back beside.
fn goes_round(bench: &Bench) {
    let before = contents(&bench.live);
    let (image, counts, findings) = bench.dump().unwrap();
    assert!(findings.end_mark.contains("-byte pages: "), "{}", findings.end_mark);
    bench.assert_no_leftovers();

    let beside = bench.path("be side?#%.db");
    let into = Destination::Into(beside.to_str().unwrap().to_owned());
    let restored = bench.restore(&image, into, &counts).unwrap();
    assert_eq!(restored.counts, counts);
    assert!(image == std::fs::read(&beside).unwrap(), "the file beside is the image to the byte");
    assert_eq!((contents(&beside), mode(&beside)), (before.clone(), 0o600));

    let drilled = bench.restore(&image, Destination::Drill, &counts).unwrap();
    assert_eq!(drilled.counts, counts);
    assert_eq!(contents(&bench.live), before);

    let journal = sqlite3(&bench.live, "PRAGMA journal_mode;");
    let tables =
        sqlite3(&bench.live, "SELECT name FROM sqlite_schema WHERE type='table' AND sql LIKE 'CREATE TABLE %';");
    assert!(!tables.is_empty());
    bench.execute("CREATE TABLE later(x); INSERT INTO later VALUES(1); PRAGMA user_version=99;");
    assert_ne!(contents(&bench.live), before);
    let restored = bench.restore(&image, Destination::InPlace, &counts).unwrap();
    assert_eq!(restored.counts, counts);
    assert_eq!(contents(&bench.live), before);
    assert_eq!(sqlite3(&bench.live, "PRAGMA journal_mode;"), journal);
}

#[test]
fn data_that_hurts_in_both_journal_modes() {
    for journal in ["WAL", "DELETE"] {
        let bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {HURTS}"));
        goes_round(&bench);
        let (_, counts, _) = bench.dump().unwrap();
        let count = |table: &str| counts.get(table).copied();
        assert_eq!((count("classes"), count("empty"), count("words")), (Some(Some(20)), Some(Some(0)), Some(None)));
        assert_eq!(count("sp ace \"quo'te\" ünï 漢字 😀"), Some(Some(1)));
        assert!(!counts.keys().any(|name| name.starts_with("sqlite_") || name.starts_with("words_")), "{counts:?}");
        assert!(!counts.contains_key("seen"));
    }
}

#[test]
fn every_page_size_encoding_and_kind_of_vacuum() {
    for journal in ["WAL", "DELETE"] {
        for (at, page) in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536].into_iter().enumerate() {
            let encoding = ["UTF-8", "UTF-16le", "UTF-16be"][at % 3];
            let bench = Bench::new(&format!(
                "PRAGMA page_size={page}; PRAGMA encoding='{encoding}'; PRAGMA auto_vacuum={}; \
                 PRAGMA journal_mode={journal}; {} INSERT INTO filler(b) VALUES('größe 😀'); DELETE FROM filler WHERE id % 3 = 0;",
                at % 3,
                fill("filler", 60)
            ));
            goes_round(&bench);
            assert!(bench.dump().unwrap().2.end_mark.starts_with(&format!("{page}-byte pages: ")));
        }
    }
}

#[test]
fn paths_that_hurt() {
    for name in [
        "sp ace.db",
        "100%25.db",
        "what?.db",
        "#1.db",
        "größe 漢字 😀.db",
        "it's \"quoted\".db",
        "new\nline.db",
        "-x.db",
    ] {
        for journal in ["WAL", "DELETE"] {
            let bench = Bench::named(
                name,
                &format!("PRAGMA journal_mode={journal}; CREATE TABLE t(a); INSERT INTO t VALUES(1);"),
            );
            goes_round(&bench);
        }
    }
}

#[test]
fn a_path_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let mut bench = Bench::new("CREATE TABLE t(a); INSERT INTO t VALUES(1);");
    let strange = bench.live.with_file_name(std::ffi::OsStr::from_bytes(b"\xff\xfe.db"));
    std::fs::rename(&bench.live, &strange).unwrap();
    bench.live = strange;
    goes_round(&bench);
}

/// SQLite puts virtual tables last when it writes a database anew.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn pages_of_another_size_in_the_live_database() {
    for journal in ["WAL", "DELETE"] {
        for (old, new) in [(4096, 1024), (512, 65_536), (65_536, 512)] {
            let bench = Bench::new(&format!(
                "PRAGMA page_size={old}; PRAGMA journal_mode={journal}; {HURTS} {}",
                fill("f", 300)
            ));
            let before = sorted(&contents(&bench.live));
            let (image, counts, _) = bench.dump().unwrap();
            std::fs::remove_file(&bench.live).unwrap();
            bench.execute(&format!("PRAGMA page_size={new}; PRAGMA journal_mode={journal}; CREATE TABLE other(x);"));
            let restored = bench.restore(&image, Destination::InPlace, &counts).unwrap();
            assert!(sorted(&contents(&bench.live)) == before, "{journal} {old} {new}");
            assert_eq!(restored.notes.iter().any(|note| note.contains("pages were changed")), journal == "WAL");
            assert_eq!(sqlite3(&bench.live, "PRAGMA journal_mode;").trim(), journal.to_lowercase());
        }
    }
}

#[test]
fn owner_mode_and_journal_mode_of_the_live_database_stay() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    for (from, to) in [("WAL", "DELETE"), ("DELETE", "WAL")] {
        let bench = Bench::new(&format!("PRAGMA journal_mode={from}; CREATE TABLE t(a); INSERT INTO t VALUES('old');"));
        let (image, counts, _) = bench.dump().unwrap();
        bench.execute(&format!("PRAGMA journal_mode={to}; UPDATE t SET a='new';"));
        std::fs::set_permissions(&bench.live, std::fs::Permissions::from_mode(0o640)).unwrap();
        let inode = std::fs::metadata(&bench.live).unwrap().ino();
        bench.restore(&image, Destination::InPlace, &counts).unwrap();
        assert_eq!(
            sqlite3(&bench.live, "SELECT a FROM t; PRAGMA journal_mode;"),
            format!("old\n{}\n", to.to_lowercase())
        );
        assert_eq!((mode(&bench.live), std::fs::metadata(&bench.live).unwrap().ino()), (0o640, inode));
    }
}

#[test]
fn a_restore_again_and_again_is_the_same() {
    let bench = Bench::new(&format!("PRAGMA journal_mode=WAL; {}", fill("t", 200)));
    let before = contents(&bench.live);
    let (image, counts, _) = bench.dump().unwrap();
    for _ in 0..3 {
        bench.restore(&image, Destination::InPlace, &counts).unwrap();
        assert_eq!(contents(&bench.live), before);
    }
    assert_eq!(names(bench.live.parent().unwrap()), ["live.db"]);
}

#[test]
fn what_only_the_application_can_read_comes_back_too() {
    // A collation and a function that no other program has: their tables can't be checked here, and must not be lost.
    let bench = Bench::new("CREATE TABLE plain(a); INSERT INTO plain VALUES(1),(2);");
    sqlite3(
        &bench.live,
        "CREATE TABLE t(a TEXT, b); CREATE INDEX i ON t(b); INSERT INTO t VALUES('x', 1);\n\
         PRAGMA writable_schema=ON;\n\
         UPDATE sqlite_schema SET sql='CREATE INDEX i ON t(b COLLATE secret_order)' WHERE name='i';\n\
         UPDATE sqlite_schema SET sql='CREATE TABLE t(a TEXT, b CHECK(secret_check(b)))' WHERE name='t';\n",
    );
    let (image, counts, _) = bench.dump().unwrap();
    assert_eq!((counts.get("plain"), counts.get("t")), (Some(&Some(2)), Some(&Some(1))));
    bench.execute("DELETE FROM plain");
    let restored = bench.restore(&image, Destination::InPlace, &counts).unwrap();
    assert_eq!(sqlite3(&bench.live, "SELECT count(*) FROM plain;"), "2\n");
    assert!(
        restored.notes.iter().any(|note| note.starts_with("table t can't be checked here")),
        "{:?}",
        restored.notes
    );
}
