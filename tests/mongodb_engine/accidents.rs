//! A restore that is stopped anywhere: the live data are the old or the new ones, collection by collection once their names
//! are exchanged, and the next restore finishes.

use std::io::Cursor;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use voxeltron_backup::engine::{Counts, Destination, Settings};
use voxeltron_backup::secret::Secret;

use crate::cutter::{Cut, Cutter, points};
use crate::support::{Database, base, cx, dump, fake_tools, open, restore, tools};

const CHILD: &str = "VOXELTRON_TEST_MONGODB_CHILD";

/// Every collection is as it was before or as it is in the backup, and none is missing.
const STATE: &str = "print(['a', 'b', 'c'].map((n) => { const all = d.getCollection(n).find().toArray();
    const of = (v) => all.filter((one) => one.v === v).length;
    return n + (of('old') === all.length - (n === 'b' ? 1 : 0) && all.length > 0 ? 'old' : of('new') === all.length && all.length > 0 ? 'new' : '?' + all.length); }).join(' '))";

const AGE: &str = "for (const n of ['a', 'b', 'c']) { d.getCollection(n).deleteMany({}); d.getCollection(n).insertMany([{_id: 1, v: 'new'}, {_id: 7, v: 'new'}]); } d.extra.insertOne({v: 'new'})";

fn age(db: &Database) {
    db.js(AGE);
}

#[test]
fn killed_at_any_instant() {
    if let Ok(child) = std::env::var(CHILD) {
        let (file, name) = child.split_once('\n').unwrap();
        let db = std::mem::ManuallyDrop::new(Database { name: name.to_owned() });
        restore(db.engine().as_ref(), std::fs::File::open(file).unwrap(), Destination::InPlace, &Counts::new())
            .unwrap();
        return;
    }
    let db = Database::small("killed");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "accidents::killed_at_any_instant", "--nocapture"])
            .env(CHILD, format!("{}\n{}", file.path().display(), db.name))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let began = Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = began.elapsed();
    let steps = points(6, 50);
    let mut seen = Vec::new();
    age(&db);
    // So far, and on until one has been behind the exchange, for this machine may be slower now.
    for step in 0..steps * 10 {
        if step >= steps && seen.iter().any(|state: &String| state.starts_with("anew")) {
            break;
        }
        let mut child = start();
        std::thread::sleep(whole * step / steps);
        child.kill().unwrap();
        child.wait().unwrap();
        let state = db.js(STATE);
        assert!(!state.contains('?'), "after step {step}: {state}");
        seen.push(state);
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts)
            .unwrap_or_else(|error| panic!("step {step}: {error:?}"));
        // All that there is, leftovers too; in one call, and the data are aged again for the next.
        let now = db.js(&format!("print(all(d.getName())); {AGE}"));
        assert_eq!(restored, now, "step {step}");
    }
    db.assert_nothing_left();
    assert!(seen.iter().any(|state| state.starts_with("anew")), "{seen:?}");
}

#[test]
fn an_exchange_left_half_way_is_finished_by_the_next() {
    let db = Database::small("half");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    // A shell that does so many steps of the exchange and then is as dead as the server's connection.
    for (steps, state) in [(0, "anew bnew cnew"), (1, "aold bnew cnew"), (3, "aold bold cold")] {
        age(&db);
        let dying = fake_tools(&[(
            "mongosh",
            &format!(
                "[ -e $here/dead ] && exit 1\ncat >$here/in.$$\ngrep -q '\"action\":\"swap\"' $here/in.$$ && touch $here/dead\n\
                 [ -e $here/dead ] && {{ echo 'let done_ = 0;'; cat $here/in.$$; }} | sed 's/if (planned() === null) return;/if (done_++ >= {steps}) process.exit(9);/' >$here/changed.$$ && \
                 exec $real/mongosh \"$@\" <$here/changed.$$\nexec $real/mongosh \"$@\" <$here/in.$$"
            ),
        )]);
        let error =
            restore(db.through(dying.path()).as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts)
                .unwrap_err();
        assert!(error.message.contains("some are the new ones, some the old"), "{error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains("again"), "{error:?}");
        assert_eq!(db.js(STATE), state);
        // Meanwhile it is neither dumped nor taken for good.
        for error in [dump(db.engine().as_ref()).unwrap_err(), db.engine().probe(&cx()).unwrap_err()] {
            assert!(error.message.contains("interrupted while its collections took their places"), "{error:?}");
        }
        let other = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        assert!(other.notes.iter().any(|note| note.contains("finished a restore")), "{:?}", other.notes);
        assert_eq!(db.all(), restored);
        db.assert_nothing_left();
    }
}

#[test]
fn readers_see_the_old_or_the_new_of_each_collection() {
    let db = Database::small("readers");
    let (bytes, findings) = db.backup();
    age(&db);
    let restored = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            db.js("const seen = {}; const end = db.getSiblingDB(d.getName() + '_end').getCollection('end');
                 db.getSiblingDB(d.getName() + '_end').getCollection('begun').insertOne({});
                 for (let reads = 0; reads < 200000 && (reads % 50 > 0 || end.findOne() === null); reads++)
                     for (const n of ['a', 'c']) {
                         const one = d.getCollection(n).findOne({_id: 1}); seen[n + (one ? one.v : 'nothing')] = 1; }
                 print(Object.keys(seen).sort().join(' '))")
        });
        let begun = "print(db.getSiblingDB(d.getName() + '_end').getCollection('begun').findOne() !== null)";
        while db.js(begun) != "true" {
            assert!(!reader.is_finished());
        }
        let outcome = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
        db.js("db.getSiblingDB(d.getName() + '_end').getCollection('end').insertOne({})");
        outcome.unwrap();
        reader.join().unwrap()
    });
    assert!(restored == "anew aold cnew cold", "{restored}");
}

#[test]
fn a_connection_that_is_cut_leaves_old_or_new() {
    let db = Database::small("cutting");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    let (credentials, place) = base().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let cutter = Cutter::new(&place);
    let port = cutter.port;
    let url = format!("{credentials}@127.0.0.1:{port}/{}?authSource=admin&serverSelectionTimeoutMS=4000", db.name);
    let engine = open(Settings { tools_dir: Some(tools()), ..Settings::new("mydb", Secret::new(url)) });
    // How much one whole restore sends.
    age(&db);
    cutter.arm(Cut::Never, Duration::ZERO);
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    let whole = cutter.passed();
    let steps = u64::from(points(4, 20));
    for step in 0..steps {
        age(&db);
        let refuses = Duration::from_millis([0, 5000][usize::try_from(step % 2).unwrap()]);
        cutter.arm(Cut::Bytes(whole * (2 * step + 1) / (2 * steps)), refuses);
        let outcome = restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
        cutter.open();
        let state = db.js(STATE);
        assert!(!state.contains('?'), "after step {step}: {state}");
        assert!(outcome.is_err() || state == "aold bold cold", "after step {step}: {state}");
        assert!(
            outcome.is_ok() || outcome.as_ref().is_err_and(|error| error.hint.is_some()),
            "step {step}: {outcome:?}"
        );
        restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        assert_eq!(restored, db.all(), "step {step}");
        db.assert_nothing_left();
    }
}
