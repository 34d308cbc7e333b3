//! What is there comes back, wherever it goes, and by the command line too.

use std::io::Cursor;

use voxeltron_backup::engine::checks::Check;
use voxeltron_backup::engine::{Counts, Destination, Request};
use voxeltron_backup::error::Kind;

use crate::common::Sandbox;
use crate::support::{Database, inspect, inspected, js, restore, tools};

#[test]
fn data_that_hurts_comes_back_the_same() {
    let db = Database::with("ünï😀per%cent*'q", include_str!("hurts.js"));
    let before = db.all();
    let (bytes, findings) = db.backup();
    assert!(findings.tool_version.is_some() && findings.server_version.is_some(), "{findings:?}");
    for (name, count) in [("types", 13), ("indexed", 500), ("empty", 0), ("capped", 20), ("a*b", 1), ("many_59", 1)] {
        assert_eq!(findings.counts.get(name), Some(&Some(count)), "{name}");
    }
    db.js("d.types.deleteMany({}); d.indexed.dropIndexes(); d.wild.drop(); d.extra.insertOne({a: 1}); d.big.updateOne({}, {$set: {t: 1}})");
    assert_ne!(db.all(), before);
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.counts, findings.counts);
    assert_eq!(db.all(), before, "and what the backup lacks is gone");
    db.assert_nothing_left();
    // Again, from a backup of what was restored.
    let (again, found) = db.backup();
    assert_eq!(found.counts, findings.counts);
    js(&format!("db.getSiblingDB({:?}).dropDatabase()", db.name));
    restore(db.engine().as_ref(), Cursor::new(&again), Destination::InPlace, &found.counts).unwrap();
    assert_eq!(db.all(), before, "without a live database");
}

#[test]
fn into_another_name_and_dots_with_it() {
    let db = Database::with("into", "d.getCollection('a.b.c').insertOne({_id: 1}); d.x.insertOne({_id: 2})");
    let (bytes, findings) = db.backup();
    let other = Database::named("into_ü");
    let into = || Destination::Into(other.name.clone());
    restore(db.engine().as_ref(), Cursor::new(&bytes), into(), &findings.counts).unwrap();
    assert_eq!(other.all(), db.all());
    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), into(), &findings.counts).unwrap_err();
    assert!(error.message.contains("there is a database") && error.hint.is_some(), "{error:?}");
    // One that was interrupted is no database of anybody's.
    other.js(&format!(
        "d.getCollection('__restoring_marker_01234567').insertOne({{_id: 'claim', of: {:?}}}); d.x.drop()",
        db.name
    ));
    restore(db.engine().as_ref(), Cursor::new(&bytes), into(), &findings.counts).unwrap();
    assert_eq!(other.all(), db.all());
    for name in ["", "a.b", "a b", &"x".repeat(64)] {
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Into(name.to_owned()), &Counts::new())
            .expect_err(name);
    }
}

#[test]
fn a_drill_counts_and_leaves_nothing() {
    let db = Database::small("drill");
    let (bytes, findings) = db.backup();
    db.js("d.a.deleteMany({})");
    let before = db.all();
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    assert_eq!(restored.counts.get("a"), Some(&Some(2000)));
    let mut expected = findings.counts.clone();
    expected.insert("b".to_owned(), Some(3));
    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &expected).unwrap_err();
    assert!(error.message.contains("the collection b has 2 documents instead of 3"), "{error}");
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
    // What a dead one has left is told, and goes with the next restore.
    js(&format!(
        "db.getSiblingDB('{0}__drill_01234567').getCollection('__restoring_marker_01234567').insertOne({{_id: 'claim', of: '{0}'}})",
        db.name
    ));
    let probe = db.engine().probe(&crate::support::cx()).unwrap();
    assert!(probe.warnings.iter().any(|warning| warning.contains("__drill_01234567")), "{probe:?}");
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    db.assert_nothing_left();
}

fn check(query: &str, expect: &str) -> Check {
    Check { name: None, query: vec![query.to_owned()], expect: expect.to_owned() }
}

#[test]
fn a_backup_with_the_wrong_rows_is_caught() {
    let db = Database::small("wrong");
    db.js("d.b.updateOne({_id: 2}, {$set: {v: 'wrong'}})");
    let (bytes, findings) = db.backup();
    let drill = |expected: &Counts, checks: &[Check]| {
        let request = Request { checks: checks.to_vec(), ..Request::new(Destination::Drill, expected.clone()) };
        db.engine().restore(&mut inspected(Cursor::new(&bytes)), &request, &crate::support::cx())
    };
    let good = [
        check("db.a.countDocuments({v: 'old'}) // all of them", "2000"),
        check("db.b.find({}, {v: 1}).sort({_id: 1});", r#"[{"_id":1,"v":"old"},{"_id":2,"v":"wrong"}]"#),
        check("[db.b.findOne({_id: 3}), db.getName().includes('__drill_')]", "[null,true]"),
    ];
    drill(&findings.counts, &good).unwrap();
    // By what was counted when it was made.
    let mut counted = findings.counts.clone();
    counted.insert("b".to_owned(), Some(3));
    let error = drill(&counted, &good).unwrap_err();
    assert!(error.message.contains("the collection b has 2 documents instead of 3"), "{error}");
    // The number is right and the documents are not.
    let named = Check { name: Some("all old".to_owned()), ..check("db.b.distinct('v').length", "1") };
    let error = drill(&findings.counts, &[named, check("db.b.nothing().at(0)", "1"), check("db.b.", "1")]).unwrap_err();
    assert_eq!(error.kind, Kind::Tool);
    assert!(error.message.contains(r#"check "all old": expected "1", found "2"; check "#), "{error}");
    assert!(error.message.matches("check ").count() == 3, "{error:?}");
    db.assert_nothing_left();
}

#[test]
fn an_archive_is_whole_only_to_its_last_byte() {
    let db = Database::with(
        "cut",
        "d.a.insertMany([{_id: 1, t: 'xyz'}, {_id: 2}]); d.createCollection('b'); d.c.insertOne({_id: 3})",
    );
    let (bytes, findings) = db.backup();
    assert_eq!(inspect(&bytes).unwrap(), findings);
    for end in 0..bytes.len() {
        inspect(&bytes[..end]).expect_err(&format!("cut after {end} of {} bytes", bytes.len()));
    }
    for junk in [&b"\0"[..], b"x", b"\xff\xff\xff\xff", b"\n", &[0; 100], &bytes] {
        inspect(&[&bytes, junk].concat()).expect_err("something follows");
    }
    // A bit of a document or of its checksum.
    let body = bytes.windows(3).rposition(|three| three == b"xyz").unwrap();
    for bit in 0..24 {
        let mut flipped = bytes.clone();
        flipped[body + bit / 8] ^= 1 << (bit % 8);
        let error = inspect(&flipped).unwrap_err();
        assert!(error.message.contains("don't fit their checksum"), "{error}");
    }
}

#[test]
fn by_the_command_line() {
    let db = Database::small("cli");
    let sandbox = Sandbox::new();
    sandbox.configure_local(
        Some("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
        &format!(
            "[databases.shop]\nengine = \"mongodb\"\nurl = \"{}\"\ntools_dir = \"{}\"\n[[backup.jobs]]\ndatabase = \"shop\"\n\
             schedule = \"@daily\"\nencrypt = true\n",
            db.url(),
            tools().display()
        ),
    );
    let before = db.all();
    sandbox.command(&["check"]).stdout_any().stderr_any().run();
    sandbox.command(&["-q", "run-job", "shop"]).run();
    db.js("d.a.deleteMany({}); d.b.drop(); d.extra.insertOne({})");
    sandbox.command(&["list", "shop", "--json"]).stdout_has("shop").run();
    sandbox.command(&["verify", "shop"]).stdout_has(": good").run();
    sandbox.command(&["verify", "shop", "--restore"]).stdout_any().stderr_any().run();
    let plan = sandbox.command(&["restore", "shop", "--latest", "--dry-run"]).stdout_any().stderr_any().run();
    assert!(format!("{}{}", plan.stdout, plan.stderr).contains("--nsTo="), "{plan:?}");
    let other = Database::named("cli_into");
    sandbox.command(&["-q", "restore", "shop", "--latest", "--into", &other.name]).run();
    assert_eq!(other.all(), before);
    sandbox.command(&["-q", "restore", "shop", "--latest"]).run();
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
    // What fails has its code and leaves the backup that is there.
    js(&format!("db.getSiblingDB({:?}).dropDatabase()", db.name));
    sandbox.command(&["run-job", "shop"]).exits(13).stderr_has("there is no database").run();
    sandbox.command(&["verify", "shop"]).stdout_has(": good").run();
}
