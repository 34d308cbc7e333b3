//! Two restores at once: the living one is left alone, whoever comes; and what was loaded is there when it takes its places, or
//! nothing is changed.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use voxeltron_backup::engine::{Aside, Counts, Cx, Destination, Engine, Keep, Request, Restored, Settings};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::{Clock, SystemClock};

use crate::support::{Database, cx, dump, fails_and_changes_nothing, fake_tools, inspected, open, restore};

/// The same host, or another one.
fn restore_at(
    data_dir: &Path,
    engine: &dyn Engine,
    bytes: &[u8],
    to: Destination,
    expected: &Counts,
) -> Result<Restored, Error> {
    let cx = Cx { data_dir: data_dir.to_owned(), ..cx() };
    engine.restore(&mut inspected(Cursor::new(bytes)), &Request::new(to, expected.clone()), &cx)
}

/// Waits until it is so.
#[track_caller]
fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !what() {
        assert!(Instant::now() < end, "it did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_living_restore_is_left_alone_and_the_second_refused() {
    let db = Database::small("two");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    db.js("d.a.deleteMany({}); d.extra.insertOne({_id: 1})");
    // One that has loaded everything, and waits.
    let waiting = fake_tools(&[(
        "mongorestore",
        "$real/mongorestore \"$@\" || exit 1; touch $here/loaded; while [ ! -e $here/go ]; do sleep 0.1; done",
    )]);
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = db.through(waiting.path());
    std::thread::scope(|scope| {
        let first =
            scope.spawn(|| restore_at(here.path(), engine.as_ref(), &bytes, Destination::InPlace, &findings.counts));
        until(|| waiting.path().join("loaded").exists() || first.is_finished());
        let outcome = std::panic::catch_unwind(|| {
            for host in [here.path(), there.path()] {
                let error = restore_at(host, db.engine().as_ref(), &bytes, Destination::InPlace, &findings.counts)
                    .expect_err("there is one already");
                assert_eq!(error.kind, Kind::Locked, "{error:?}");
                assert!(error.message.contains("is being restored by another run since 20"), "{error:?}");
                assert!(error.hint.as_deref().unwrap_or_default().contains("5 minutes"), "{error:?}");
                restore_at(host, db.engine().as_ref(), &bytes, Destination::Drill, &findings.counts).unwrap();
                let other = Database::named("two_into");
                let into = Destination::Into(other.name.clone());
                restore_at(host, db.engine().as_ref(), &bytes, into, &findings.counts).unwrap();
                assert_eq!(other.all(), restored);
            }
            let warnings = db.engine().probe(&cx()).unwrap().warnings;
            assert!(warnings.iter().any(|warning| warning.contains("a restore is running")), "{warnings:?}");
            dump(db.engine().as_ref()).unwrap();
        });
        std::fs::write(waiting.path().join("go"), "").unwrap();
        let first = first.join().unwrap();
        outcome.unwrap();
        first.unwrap();
    });
    assert_eq!(db.all(), restored);
    db.assert_nothing_left();
    for folder in [here, there] {
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// The mark of a restore of another host, with its last sign of life so many seconds ago.
fn mark(db: &Database, of: &str, seconds: u32) {
    db.js(&format!(
        "d.getCollection('__restoring_0badcafe_a').replaceOne({{_id: 1}}, {{}}, {{upsert: true}});
         d.getCollection('__restoring_marker_0badcafe').updateOne({{_id: 'claim'}}, {{$set: {{of: '{of}', since: '2026-01-02',
             beat: new Date(db.runCommand({{hello: 1}}).localTime - {seconds} * 1000)}}}}, {{upsert: true}})"
    ));
}

#[test]
fn one_of_another_host_is_dead_when_its_signs_end() {
    let db = Database::small("signs");
    let (bytes, findings) = db.backup();
    let in_place = || restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
    mark(&db, &db.name, 200);
    let before = db.all();
    assert_eq!(in_place().unwrap_err().kind, Kind::Locked);
    assert_eq!(db.all(), before, "its collection, its mark and nothing of ours");
    // A drill, and what it loads into, are let be in the same way.
    let drill = Database { name: format!("{}__drill_0badcafe", db.name) };
    mark(&drill, &db.name, 200);
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    let into = Destination::Into(drill.name.clone());
    let error = restore(db.engine().as_ref(), Cursor::new(&bytes), into, &findings.counts).unwrap_err();
    assert!(error.message.contains("there is a database"), "{error}");
    assert!(drill.js("print(d.getCollectionNames().length)") == "2" && db.all() == before);
    mark(&db, &db.name, 400);
    mark(&drill, &db.name, 400);
    let warnings = db.engine().probe(&cx()).unwrap().warnings;
    assert!(warnings.iter().filter(|warning| warning.contains("was interrupted")).count() == 2, "{warnings:?}");
    assert!(in_place().unwrap().notes.len() == 2);
    db.assert_nothing_left();
}

/// A clock four times as fast. Not more: every patience gets shorter by it, also that with a shell that starts slowly.
#[derive(Debug)]
struct Fast(SystemClock);

impl Clock for Fast {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * 4
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time / 4);
    }
}

#[test]
fn a_restore_gives_signs_of_life_while_it_loads() {
    let db = Database::small("beats");
    let (bytes, findings) = db.backup();
    let waiting = fake_tools(&[(
        "mongorestore",
        "touch $here/began; while [ ! -e $here/go ]; do sleep 0.1; done; exec $real/mongorestore \"$@\"",
    )]);
    let engine = db.through(waiting.path());
    let mut fast = cx();
    fast.world.clock = Arc::new(Fast(SystemClock::default()));
    std::thread::scope(|scope| {
        let request = Request::new(Destination::InPlace, findings.counts.clone());
        let (engine, fast, bytes) = (engine.as_ref(), &fast, &bytes);
        let one = scope.spawn(move || engine.restore(&mut inspected(Cursor::new(bytes)), &request, fast));
        until(|| waiting.path().join("began").exists() || one.is_finished());
        let beat = || {
            db.js("for (const n of d.getCollectionNames()) if (n.startsWith('__restoring_marker_'))
                print(d.getCollection(n).findOne({_id: 'claim'}).beat.getTime())")
        };
        let first = beat();
        let outcome = std::panic::catch_unwind(|| until(|| beat() != first));
        std::fs::write(waiting.path().join("go"), "").unwrap();
        one.join().unwrap().unwrap();
        outcome.unwrap();
    });
    db.assert_nothing_left();
}

#[test]
fn what_is_taken_away_before_the_exchange_changes_nothing() {
    let db = Database::small("taken");
    let (bytes, findings) = db.backup();
    db.js("d.a.deleteMany({_id: 7}); d.extra.insertOne({_id: 1})");
    // What comes in between, as another shell does it, when everything has been compared.
    for (what, why) in [
        ("for (const n of loaded('')) d.getCollection(n).drop();", "its mark is gone"),
        ("for (const n of loaded('marker_')) d.getCollection(n).drop();", "its mark is gone"),
        ("for (const n of loaded('[0-9a-f]{8}_b$')) d.getCollection(n).drop();", "the collection b is gone"),
        (
            "for (const n of loaded('[0-9a-f]{8}_c$')) { d.getCollection(n).drop(); d.getCollection(n).insertOne({_id: 1, v: 'old'}); }",
            "the collection c is another one",
        ),
    ] {
        let script = format!(
            "const d = connect('{}/admin').getSiblingDB('{}'); const loaded = (part) => d.getCollectionNames().filter((n) => new RegExp('^__restoring_' + part).test(n)); {what}",
            crate::support::base(),
            db.name
        );
        let taking = fake_tools(&[(
            "mongosh",
            &format!(
                "cat >$here/in.$$\nif grep -q '\"action\":\"swap\"' $here/in.$$ && [ ! -e $here/once ]; then touch $here/once; cat <<'END' | \
                 $real/mongosh --quiet --norc --nodb --eval 'load(\"/dev/stdin\")' >/dev/null\n{script}\nEND\nfi\nexec $real/mongosh \"$@\" <$here/in.$$"
            ),
        )]);
        let error =
            fails_and_changes_nothing(&db, db.through(taking.path()).as_ref(), Cursor::new(&bytes), &findings.counts);
        assert!(taking.path().join("once").exists() && error.message.contains(why), "{what}: {error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains("another restore"), "{error:?}");
    }
}

/// What happens while the live database is kept, which may take long.
struct Meanwhile(&'static Database);

impl Aside for Meanwhile {
    fn untouched(&self, _: chrono::DateTime<chrono::Utc>) {}

    fn room(&self) -> Result<(), Error> {
        Ok(())
    }

    fn take(&self, _: chrono::DateTime<chrono::Utc>) -> Result<(), Error> {
        self.0.js("for (const n of d.getCollectionNames()) if (/^__restoring_[0-9a-f]{8}_b$/.test(n)) d.getCollection(n).deleteOne({_id: 1});");
        Ok(())
    }
}

#[test]
fn what_is_loaded_is_counted_again_behind_the_dump_that_is_kept() {
    let db: &'static Database = Box::leak(Box::new(Database::small("meanwhile")));
    let (bytes, findings) = db.backup();
    db.js("d.a.deleteMany({_id: 7})");
    let before = db.all();
    let mut request = Request::new(Destination::InPlace, findings.counts);
    request.keep = Some(Keep { at: chrono::Utc::now(), aside: Arc::new(Meanwhile(db)) });
    let error = db.engine().restore(&mut inspected(Cursor::new(&bytes)), &request, &cx()).unwrap_err();
    assert!(error.message.contains("the collection b has 1 document instead of 2"), "{error:?}");
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
    db.js("d.dropDatabase()");
}

#[test]
fn an_exchange_whose_answer_is_lost_was_done() {
    let db = Database::small("lost");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    db.js("d.a.deleteMany({}); d.extra.insertOne({_id: 1})");
    let losing = fake_tools(&[(
        "mongosh",
        "cat >$here/in.$$\nif grep -q '\"action\":\"swap\"' $here/in.$$ && [ ! -e $here/once ]; then touch $here/once; \
         $real/mongosh \"$@\" <$here/in.$$ >/dev/null; echo 'MongoNetworkError: connection reset' >&2; exit 1; fi\n\
         exec $real/mongosh \"$@\" <$here/in.$$",
    )]);
    restore(db.through(losing.path()).as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert!(losing.path().join("once").exists());
    assert_eq!(db.all(), restored);
    db.assert_nothing_left();
}

#[test]
fn a_restore_reads_from_the_primary_whatever_the_url_prefers() {
    let db = Database::small("prefers");
    let before = db.all();
    let folder = fake_tools(&[
        (
            "mongosh",
            "cat >$here/in.$$; if grep -qi 'readPreference' $here/in.$$; then grep -o '\"action\":\"[a-z]*\"' $here/in.$$ >>$here/asked; fi
             exec $real/mongosh \"$@\" <$here/in.$$",
        ),
        ("mongodump", "printf '%s\\n' \"$@\" >>$here/dump; exec $real/mongodump \"$@\""),
        ("mongorestore", "printf '%s\\n' \"$@\" >>$here/load; exec $real/mongorestore \"$@\""),
    ]);
    let url = format!("{}&readPreference=secondaryPreferred", db.url());
    let engine =
        open(Settings { tools_dir: Some(folder.path().to_owned()), ..Settings::new("mydb", Secret::new(url)) });
    let told = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let (bytes, findings) = dump(engine.as_ref()).unwrap();
    assert!(told("dump").contains("readPreference=secondaryPreferred"), "{}", told("dump"));
    let asked = told("asked");
    assert_eq!(asked, "\"action\":\"look\"\n", "what a dump is compared with is asked where it is taken");
    db.js("d.a.deleteMany({})");
    for destination in [Destination::Drill, Destination::InPlace] {
        restore(engine.as_ref(), Cursor::new(&bytes), destination, &findings.counts).unwrap();
    }
    assert_eq!(told("asked"), asked);
    assert!(told("load").contains("--archive") && !told("load").contains("readPreference"), "{}", told("load"));
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
}
