//! What is there comes back, wherever it goes, and by the command line too.

use std::io::Cursor;

use voxeltron_backup::engine::checks::Check;
use voxeltron_backup::engine::{Counts, Destination, Request, Settings};
use voxeltron_backup::error::Kind;
use voxeltron_backup::secret::Secret;

use crate::common::Sandbox;
use crate::support::{
    Database, archive, base, bson, dump, fake_tools, inspect, inspected, int, js, open, password, percent, restore,
    tools,
};

#[test]
fn data_that_hurts_comes_back_the_same() {
    let db = Database::with("ünï😀per%cent*'q", include_str!("hurts.js"));
    let before = db.all();
    let (bytes, findings) = db.backup();
    assert!(findings.tool_version.is_some() && findings.server_version.is_some(), "{findings:?}");
    for (name, count) in [("types", 14), ("indexed", 500), ("empty", 0), ("capped", 20), ("a*b", 1), ("many_59", 1)] {
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

/// There the URL names the database, for DNS may name the one that knows the user. No tool can look the name up here: what
/// they are given is the server that it stands for.
#[test]
fn by_a_name_that_dns_resolves() {
    let db = Database::small("srv");
    let other = Database::with("srv_other", "d.z.insertOne({_id: 1})");
    let place = base().split_once('@').unwrap().1.to_owned();
    let resolved = format!("s#mongodb+srv://\\([^@]*\\)@srv.test/#mongodb://\\1@{place}/#");
    let tool = |name: &str| {
        format!(
            "printf '%s\\n' \"$@\" >>$here/told; for word; do shift; set -- \"$@\" \"$(printf %s \"$word\" | sed '{resolved}')\"; done\n\
             exec $real/{name} \"$@\""
        )
    };
    let (out, back, shell) =
        (tool("mongodump"), tool("mongorestore"), format!("sed '{resolved}' | $real/mongosh \"$@\""));
    let folder = fake_tools(&[("mongodump", &out), ("mongorestore", &back), ("mongosh", &shell)]);
    let at = |db: &Database| {
        let url = format!("mongodb+srv://tests:{}@srv.test/{}?tls=false", password(), db.name);
        open(Settings { tools_dir: Some(folder.path().to_owned()), ..Settings::new("mydb", Secret::new(url)) })
    };
    let (bytes, findings) = dump(at(&db).as_ref()).unwrap();
    let before = db.all();
    db.js("d.a.deleteMany({})");
    restore(at(&db).as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(db.all(), before);
    // A backup of a database with another name.
    restore(at(&other).as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(other.all(), before);
    let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
    assert!(
        told.contains(&format!("@srv.test/{}?tls=false", percent(&other.name))) && !told.contains("authSource"),
        "{told}"
    );
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

/// Types that are deprecated, of which the shell makes others: a tool alone writes them.
#[test]
fn types_that_the_shell_does_not_write_come_back_byte_for_byte() {
    let text = |value: &str| [&u32::try_from(value.len() + 1).unwrap().to_le_bytes(), value.as_bytes(), b"\0"].concat();
    let scope = bson(&int("a", 1));
    let scoped = [text("return a"), scope].concat();
    let scoped = [&u32::try_from(scoped.len() + 4).unwrap().to_le_bytes(), &scoped[..]].concat();
    let rare =
        [(0x06, Vec::new()), (0x0c, [text("shop.a"), vec![7; 12]].concat()), (0x0e, text("a symbol")), (0x0f, scoped)];
    let documents: Vec<Vec<u8>> = rare
        .iter()
        .zip(1..)
        .map(|((kind, value), id)| bson(&[&int("_id", id)[..], &[*kind], b"v\0", value].concat()))
        .collect();
    let db = Database::with("rare", "d.a.insertOne({_id: 'live'})");
    let given = archive(&db.name, "7.0.0", "{}", &documents);
    restore(db.engine().as_ref(), Cursor::new(&given), Destination::InPlace, &Counts::new()).unwrap();
    let (taken, findings) = db.backup();
    assert_eq!(findings.counts.get("a"), Some(&Some(4)));
    let whole = |document: &Vec<u8>| taken.windows(document.len()).any(|part| part == document);
    assert_eq!(
        documents.iter().map(whole).collect::<Vec<_>>(),
        [true; 4],
        "undefined, DBPointer, symbol, code with scope"
    );
}

/// What a MongoDB takes and this server does not; once it does, it belongs to the data that hurts.
#[test]
fn indexes_that_this_server_refuses() {
    let db = Database::with("refusing", "d.a.insertOne({_id: 1})");
    for (options, why) in [
        ("{collation: {locale: 'de', strength: 2}}", "collation is not implemented yet"),
        ("{hidden: true}", "hidden indexes are not supported yet"),
    ] {
        let script = format!("db.getSiblingDB('{}').a.createIndex({{a: 1}}, {options})", db.name);
        let said = crate::support::try_js(&script).expect_err(options);
        assert!(said.contains(why), "{said}");
    }
    // A view is said to be made, and none is.
    db.js("d.createCollection('v', {viewOn: 'a', pipeline: []})");
    assert_eq!(db.js("print(d.getCollectionInfos({name: 'v'}).filter((it) => it.type === 'view').length)"), "0");
}

/// FerretDB is slow to remove them, so they are removed as a server does it: from what was loaded, at any time.
#[test]
fn documents_that_expire_while_they_are_loaded_are_no_difference() {
    let db = Database::with(
        "expires",
        "d.sessions.insertMany([...Array(9).keys()].map((i) => ({_id: i, when: new Date(i < 4 ? Date.now() - 3000000 : Date.now())})));
         d.sessions.createIndex({when: 1}, {expireAfterSeconds: 3600}); d.lasting.insertMany([{_id: 1}, {_id: 2}])",
    );
    let (bytes, findings) = db.backup();
    assert_eq!(findings.counts.get("sessions"), Some(&Some(9)));
    let expiring = |collection: &str| {
        let script = format!(
            "for (const it of db.adminCommand({{listDatabases: 1, nameOnly: true}}).databases.filter((it) => it.name.startsWith('{}')))
                 for (const n of db.getSiblingDB(it.name).getCollectionNames())
                     if (n.startsWith('__restoring_') ? n.endsWith('_{collection}') : it.name.includes('__drill_') && n === '{collection}') {{
                         const c = db.getSiblingDB(it.name).getCollection(n); c.deleteOne({{_id: c.findOne({{}})._id}}); }}",
            db.name
        );
        fake_tools(&[(
            "mongosh",
            &format!(
                "cat >$here/in.$$\nif grep -q '\"action\":\"\\(loaded\\|swap\\)\"' $here/in.$$; then echo x >>$here/times; cat <<'END' | \
                 $real/mongosh --quiet --norc --nodb --eval 'load(\"/dev/stdin\")' >/dev/null\nconst db = connect('{}/admin'); {script}\nEND\nfi\n\
                 exec $real/mongosh \"$@\" <$here/in.$$",
                base()
            ),
        )])
    };
    for (destination, left) in [(Destination::Drill, 8), (Destination::InPlace, 8)] {
        let tools = expiring("sessions");
        let restored =
            restore(db.through(tools.path()).as_ref(), Cursor::new(&bytes), destination, &findings.counts).unwrap();
        assert_eq!(restored.counts.get("sessions"), Some(&Some(left)));
    }
    assert_eq!(
        db.js("print(d.sessions.countDocuments({}), d.lasting.countDocuments({}))"),
        "7 2",
        "one more in between"
    );
    // What does not expire has all of its documents, and an archive holds what its manifest says.
    let tools = expiring("lasting");
    let error = restore(db.through(tools.path()).as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts)
        .unwrap_err();
    assert!(error.message.contains("the collection lasting has 1 document instead of 2"), "{error}");
    let mut expected = findings.counts.clone();
    expected.insert("sessions".to_owned(), Some(10));
    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &expected).unwrap_err();
    assert!(error.message.contains("the collection sessions has 9 documents instead of 10"), "{error}");
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
