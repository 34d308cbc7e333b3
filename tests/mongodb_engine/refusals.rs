//! What can't end well fails with its reason, before or after it was tried, and leaves everything as it was.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use voxeltron_backup::engine::{Aside, Counts, Destination, Engine, Keep, Request, Settings};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::secret::Secret;

use crate::support::{
    Database, Failing, archive, base, bson, cx, dump, fails_and_changes_nothing, fake_tools, inspected, int, js, open,
    password, percent, restore, tools, try_js,
};

#[test]
fn a_stream_that_fails_or_is_broken_changes_nothing() {
    let db = Database::small("stream");
    let (bytes, findings) = db.backup();
    db.js("d.b.insertOne({_id: 9}); d.new.insertOne({_id: 1})");
    let engine = db.engine();
    for left in [0, 100, 5000, bytes.len() - 1] {
        let dump = Failing { inner: Cursor::new(&bytes), left };
        let error = fails_and_changes_nothing(&db, engine.as_ref(), dump, &findings.counts);
        assert_eq!(error.kind, Kind::Authentication, "after {left} bytes");
    }
    for end in [3, 200, bytes.len() / 2, bytes.len() - 4] {
        let error = fails_and_changes_nothing(&db, engine.as_ref(), Cursor::new(&bytes[..end]), &findings.counts);
        assert!(error.message.contains("cut") || error.message.contains("mongorestore"), "{error}");
    }
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fails_and_changes_nothing(&db, engine.as_ref(), Cursor::new(&flipped), &findings.counts);
    let error = fails_and_changes_nothing(&db, engine.as_ref(), Cursor::new(b"PGDMP\x01\x0f"), &Counts::new());
    assert!(error.message.contains("this is no archive of mongodump"), "{error}");
    let mut expected = findings.counts.clone();
    expected.insert("b".to_owned(), Some(7));
    let error = fails_and_changes_nothing(&db, engine.as_ref(), Cursor::new(&bytes), &expected);
    assert!(error.message.contains("has 2 documents instead of 7"), "{error}");
}

#[test]
fn documents_and_indexes_that_fail_change_nothing() {
    let db = Database::with("documents", "d.a.insertOne({_id: 'live'})");
    let engine = db.engine();
    let doc = |id: i32, a: i32| bson(&[int("_id", id), int("a", a)].concat());
    let index = r#"{"indexes":[{"v":{"$numberInt":"2"},"key":{"a":{"$numberInt":"1"}},"name":"a_1","unique":true}]}"#;
    let same_id = archive(&db.name, "7.0.0", "{}", &[doc(1, 1), doc(1, 2), doc(3, 3)]);
    let error = fails_and_changes_nothing(&db, engine.as_ref(), Cursor::new(&same_id), &Counts::new());
    assert!(error.message.contains("mongorestore failed with exit status 1"), "{error:?}");
    assert!(error.message.contains("break a unique index"), "{error:?}");
    // Without --stopOnError mongorestore ends well, and says how many it has left out.
    let lenient = fake_tools(&[(
        "mongorestore",
        "for word; do shift; [ \"$word\" = --stopOnError ] || set -- \"$@\" \"$word\"; done; exec $real/mongorestore \"$@\"",
    )]);
    let error =
        fails_and_changes_nothing(&db, db.through(lenient.path()).as_ref(), Cursor::new(&same_id), &Counts::new());
    assert!(error.message.contains("mongorestore left documents out"), "{error:?}");
    // One that says nothing of it, and one that leaves the indexes out.
    let silent = fake_tools(&[(
        "mongorestore",
        "for word; do shift; [ \"$word\" = --stopOnError ] || set -- \"$@\" \"$word\"; done; exec $real/mongorestore \"$@\" 2>/dev/null",
    )]);
    let error =
        fails_and_changes_nothing(&db, db.through(silent.path()).as_ref(), Cursor::new(&same_id), &Counts::new());
    assert!(error.message.contains("the collection a has 2 documents instead of 3"), "{error:?}");
    let broken = archive(&db.name, "7.0.0", index, &[doc(1, 1), doc(2, 1)]);
    let error = fails_and_changes_nothing(&db, engine.as_ref(), Cursor::new(&broken), &Counts::new());
    assert!(error.message.contains("mongorestore failed"), "{error:?}");
    let good = archive(&db.name, "7.0.0", index, &[doc(1, 1), doc(2, 2)]);
    let dropping = fake_tools(&[("mongorestore", "sed 's/a_1/b_1/' | $real/mongorestore \"$@\"")]);
    let error =
        fails_and_changes_nothing(&db, db.through(dropping.path()).as_ref(), Cursor::new(&good), &Counts::new());
    assert!(error.message.contains("the index a_1 of the collection a is missing"), "{error:?}");
    restore(engine.as_ref(), Cursor::new(&good), Destination::InPlace, &Counts::new()).unwrap();
}

#[test]
fn what_can_t_be_restored_here_is_refused_before_anything_is_made() {
    let db = Database::with("refused", "d.a.insertOne({_id: 'live'})");
    let engine = db.engine();
    // A shell that would make something says so.
    let watched = fake_tools(&[(
        "mongosh",
        "cat >$here/in; if grep -q '\"action\":\"\\(begin\\|swap\\)\"' $here/in; then touch $here/touched; fi; $real/mongosh \"$@\" <$here/in",
    )]);
    let cases = [
        (archive(&db.name, "99.0.1", "{}", &[]), "is of a server of version 99.0.1, this one is 7.0", "newer"),
        (
            archive(&db.name, "7.0.0", r#"{"options":{"timeseries":{"timeField":"t"}}}"#, &[]),
            "the time series a",
            "--into",
        ),
    ];
    for (bytes, why, hint) in cases {
        let error =
            restore(db.through(watched.path()).as_ref(), Cursor::new(&bytes), Destination::InPlace, &Counts::new())
                .unwrap_err();
        assert!(error.message.contains(why), "{error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
    }
    let dotted = Database::with("dotted", "d.getCollection('a.b').insertOne({_id: 1})");
    let long = Database::with("long", "d.getCollection('x'.repeat(215)).insertOne({_id: 1})");
    for (other, why) in [(&dotted, "whose name holds a dot, as a.b does"), (&long, "would be longer than 235 bytes")] {
        let (bytes, _) = other.backup();
        let error =
            restore(db.through(watched.path()).as_ref(), Cursor::new(&bytes), Destination::InPlace, &Counts::new())
                .unwrap_err();
        assert!(error.message.contains(why), "{error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains("--into"), "{error:?}");
    }
    assert!(watched.path().join("in").exists() && !watched.path().join("touched").exists());
    drop(engine);
    db.assert_nothing_left();
}

/// Nothing is ever kept.
#[derive(Debug)]
struct Promised(AtomicBool);

impl Aside for Promised {
    fn untouched(&self, _: chrono::DateTime<chrono::Utc>) {}

    fn room(&self) -> Result<(), Error> {
        Ok(())
    }

    fn take(&self, _: chrono::DateTime<chrono::Utc>) -> Result<(), Error> {
        self.0.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn what_an_undo_could_not_put_back_is_not_replaced_by_one_that_promises_it() {
    let db = Database::small("promise");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    let in_place = |engine: &dyn Engine, aside: &Arc<Promised>| {
        let mut request = Request::new(Destination::InPlace, findings.counts.clone());
        request.keep = Some(Keep { at: chrono::Utc::now(), aside: Arc::clone(aside) as Arc<dyn Aside> });
        engine.restore(&mut inspected(Cursor::new(&bytes)), &request, &cx())
    };
    let kept = || Arc::new(Promised(AtomicBool::new(false)));
    // FerretDB makes no time series: the shell's answer of a server that does is put in.
    let series = fake_tools(&[(
        "mongosh",
        "$real/mongosh \"$@\" | sed 's/\"name\":\"late\",\"type\":\"collection\"/\"name\":\"late\",\"type\":\"timeseries\"/'",
    )]);
    for (name, folder, why) in [
        ("late.dotted", None, "renames no collection whose name holds a dot, as late.dotted does"),
        (&*"x".repeat(200), None, "would be longer than 235 bytes"),
        ("late", Some(series.path()), "the time series late can't be renamed"),
    ] {
        db.js(&format!("d.getCollection('{name}').insertOne({{_id: 1}})"));
        let (before, aside) = (db.all(), kept());
        let engine = folder.map_or_else(|| db.engine(), |folder| db.through(folder));
        let error = in_place(engine.as_ref(), &aside).unwrap_err();
        assert!(error.message.contains("--undo") && error.message.contains(why), "{error:?}");
        let hint = error.hint.as_deref().unwrap_or_default();
        assert!(hint.contains("--into") && hint.contains("[databases.mydb] keep_previous = \"0\""), "{error:?}");
        assert!(!aside.0.load(Ordering::SeqCst));
        assert_eq!(db.all(), before);
        db.assert_nothing_left();
        db.js(&format!("d.getCollection('{name}').drop()"));
    }
    // As with keep_previous = "0".
    db.js("d.getCollection('late.dotted').insertOne({_id: 1})");
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(db.all(), restored);
    // What a dead restore has left, of whatever length, is no part of what is kept.
    db.js("d.getCollection('__restoring_0badcafe_a.b').insertOne({_id: 1})");
    let aside = kept();
    in_place(db.engine().as_ref(), &aside).unwrap();
    assert!(aside.0.load(Ordering::SeqCst));
    assert_eq!(db.all(), restored);
}

#[test]
fn a_database_that_is_missing_or_empty_is_noticed() {
    let missing = Database::named("missing");
    for error in [dump(missing.engine().as_ref()).unwrap_err(), missing.engine().probe(&cx()).unwrap_err()] {
        assert!(error.message.contains(&format!("there is no database {}", missing.name)), "{error:?}");
        assert_eq!(error.kind, Kind::Tool);
    }
    // What a profiler has left is no content; code is.
    let db = Database::with("own", "d.own.insertOne({_id: 1})");
    for (name, is_empty) in [("system.profile", true), ("system.js", false), ("systems", false)] {
        let named = fake_tools(&[(
            "mongosh",
            &format!("$real/mongosh \"$@\" | sed 's/\"name\":\"own\"/\"name\":\"{name}\"/'"),
        )]);
        let warnings = db.through(named.path()).probe(&cx()).unwrap().warnings;
        let told = warnings.iter().any(|warning| warning.contains("the database is empty, and so its backups are"));
        assert_eq!(told, is_empty, "{name}: {warnings:?}");
    }
    // Dropped after it was looked at: mongodump itself ends well.
    let db = Database::small("dropped");
    let script = format!(
        "printf '%s\\n' \"const db = connect('{}/admin'); db.getSiblingDB('{}').dropDatabase()\" | $real/mongosh --quiet --norc --nodb \
         --eval 'load(\"/dev/stdin\")' >/dev/null; exec $real/mongodump \"$@\"",
        base(),
        db.name
    );
    let dropping = fake_tools(&[("mongodump", &script)]);
    let error = dump(db.through(dropping.path()).as_ref()).unwrap_err();
    assert!(error.message.contains("dropped while it was dumped"), "{error:?}");
    let db = Database::small("left_out");
    let leaving = fake_tools(&[("mongodump", "exec $real/mongodump \"$@\" --excludeCollection=b")]);
    let error = dump(db.through(leaving.path()).as_ref()).unwrap_err();
    assert!(error.message.contains("mongodump has left out the collection b"), "{error:?}");
}

#[test]
fn a_dump_tool_that_dies_is_an_error_of_the_stream() {
    let db = Database::small("dying");
    let cases = [
        ("exit 0", "the dump is empty"),
        ("$real/mongodump \"$@\" | head -c 300; echo 'the last words' >&2; exit 1", "failed with exit status 1"),
        ("$real/mongodump \"$@\" | head -c 30000; kill -9 $$", "was killed by signal 9"),
        ("$real/mongodump \"$@\" | head -c 131; exit 0", "cut"),
        ("$real/mongodump \"$@\" | head -c -4; exit 0", "cut"),
        ("$real/mongodump \"$@\" | head -c 300000; exit 0", "cut"),
        ("$real/mongodump \"$@\"; printf '\\377\\377\\377\\377'", "broken"),
        ("$real/mongodump \"$@\"; printf x", "cut"),
        ("echo 'Usage: mongodump'", "this is no archive"),
    ];
    for (script, why) in cases {
        let folder = fake_tools(&[("mongodump", script)]);
        let error = dump(db.through(folder.path()).as_ref()).expect_err(script);
        assert!(error.kind == Kind::Tool && error.message.contains(why), "{script}: {error:?}");
        assert!(!script.contains("last words") || error.tail.iter().any(|line| line == "the last words"), "{error:?}");
    }
}

#[test]
fn errors_name_what_is_wrong_and_no_secret() {
    let db = Database::small("errors");
    let place = base().split_once('@').unwrap().1.to_owned();
    let at = |url: String| open(Settings { tools_dir: Some(tools()), ..Settings::new("mydb", Secret::new(url)) });
    let name = &db.name;
    let cases = [
        (format!("mongodb://tests:canary@{place}/{name}?authSource=admin"), "refuses tests or the password"),
        (format!("mongodb://{place}/{name}"), "refuses a client without a user"),
        (format!("mongodb://tests:canary@127.0.0.1:1/{name}?serverSelectionTimeoutMS=500"), "no server answers"),
    ];
    for (url, why) in cases {
        let engine = at(url.clone());
        for error in [engine.probe(&cx()).unwrap_err(), dump(engine.as_ref()).unwrap_err()] {
            assert!(error.message.contains(why) && error.hint.is_some(), "{url}: {error:?}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}

#[test]
fn the_password_stands_in_no_process_list() {
    let user = format!("vx{}", std::process::id());
    let awkward = "a ü%:/?#[]@!$&'()*+,;=\"\\`x";
    // Made by the server's own tool: the password is what it takes.
    let created = try_js(&format!(
        "db.runCommand({{createUser: '{user}', pwd: {awkward:?}, roles: [{{role: 'readWriteAnyDatabase', db: 'admin'}}, {{role: 'clusterAdmin', db: 'admin'}}]}})"
    ));
    created.unwrap();
    let db = Database::small("secret");
    let recorded = |tool: &str| {
        format!("printf '%s\\n' \"$@\" >>$here/arguments; env >>$here/{tool}.environment; exec $real/{tool} \"$@\"",)
    };
    let (shell, out, back) = (recorded("mongosh"), recorded("mongodump"), recorded("mongorestore"));
    let folder = fake_tools(&[("mongosh", &shell), ("mongodump", &out), ("mongorestore", &back)]);
    let place = base().split_once('@').unwrap().1.to_owned();
    let url = format!("mongodb://{user}:{}@{place}/{}?authSource=admin", percent(awkward), db.name);
    let engine =
        open(Settings { tools_dir: Some(folder.path().to_owned()), ..Settings::new("mydb", Secret::new(url)) });
    let (bytes, findings) = dump(engine.as_ref()).unwrap();
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    js(&format!("db.runCommand({{dropUser: '{user}'}})"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for (name, holds) in [
        ("arguments", false),
        ("mongodump.environment", false),
        ("mongorestore.environment", false),
        ("mongosh.environment", true),
    ] {
        assert_eq!(read(name).contains(awkward), holds, "{name}");
        assert!(!read(name).contains(&percent(awkward)) && !read(name).contains(&password()), "{name}");
    }
}

#[test]
fn a_user_who_may_only_read_is_told_before_anything_is_made() {
    let db = Database::small("reader");
    let (bytes, findings) = db.backup();
    // FerretDB does not say what a user may do, so the answer of one that does is put in.
    let reading = fake_tools(&[(
        "mongosh",
        "$real/mongosh \"$@\" | sed 's/\"privileges\":\\[\\]/\"privileges\":[{\"any\":false,\"database\":\"\",\"collection\":\"\",\"actions\":[\"find\",\"listCollections\",\"listIndexes\"]}]/'",
    )]);
    let engine = db.through(reading.path());
    dump(engine.as_ref()).unwrap();
    let error = fails_and_changes_nothing(&db, engine.as_ref(), Cursor::new(&bytes), &findings.counts);
    assert!(error.message.contains("tests lacks the right insert on"), "{error:?}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("grantRolesToUser(\"tests\""), "{error:?}");
}
