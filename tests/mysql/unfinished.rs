//! A restore that died when its tables stood, and whose code can't be made: until another stands in its place the schema is
//! no backup, and its code is never put to the tables of another.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use voxeltron_backup::engine::{Aside, Keep};

use super::*;

/// A client in `folder` that begins with `first` where a script is ours; `$d` is what comes after the three lines that all of
/// those begin with, and `real` the client itself. Once there is a file `dead` it does nothing more.
fn client(db: &Database, folder: &Path, first: &str) {
    let real = db.server.tools.as_ref().map_or("mysql".to_owned(), |folder| folder.join("mysql").display().to_string());
    script(
        &folder.join(if db.server.maria { "mariadb" } else { "mysql" }),
        &format!(
            "[ \"$1\" = --version ] && exec {real} --version\n\
             [ -e {dir}/dead ] && exit 1\n\
             read -r a\n\
             case \"$a\" in 'SET SESSION sql_mode'*) ;; *) {{ printf '%s\\n' \"$a\"; cat; }} | {real} \"$@\"; exit $?;; esac\n\
             read -r b; read -r c; read -r d\n\
             {first}\n\
             {{ printf '%s\\n' \"$a\" \"$b\" \"$c\" \"$d\"; cat; }} | {real} \"$@\"",
            dir = folder.display()
        ),
    );
}

fn with_tools_in(db: &Database, folder: &Path) -> Box<dyn Engine> {
    open(Settings { tools_dir: Some(folder.into()), ..settings(&db.server, &db.name) })
}

/// A restore that dies when its client has passed so many statements of the exchange on; what is done for the swap that is
/// `spared` does not count.
pub fn dies(db: &Database, bytes: &[u8], keep: u32, spared: &str) {
    let folder = tempfile::tempdir().unwrap();
    let real = db.server.tools.as_ref().map_or("mysql".to_owned(), |folder| folder.join("mysql").display().to_string());
    let first = format!(
        "case \"$d\" in *\"'voxeltron-swap-{spared}'\"*) ;; *\"GET_LOCK('voxeltron-swap\"*)\n\
         touch {dir}/dead\n\
         {{ printf '%s\\n' \"$a\" \"$b\" \"$c\" \"$d\"; head -n {keep}; }} | {real} \"$@\"; exit 1;; esac",
        dir = folder.path().display()
    );
    client(db, folder.path(), &first);
    let request = Request::new(Destination::InPlace, Counts::new());
    let engine = with_tools_in(db, folder.path());
    let error = engine.restore(&mut inspected(Cursor::new(bytes)), &request, &hasty_cx()).expect_err("it dies");
    assert_eq!(error.kind, Kind::Tool, "{error:?}");
    assert!(folder.path().join("dead").exists(), "{error:?}");
}

/// A restore whose tables stand, and whose view can't be made, since another has taken its name; gives its number.
fn left_without_its_view(db: &Database, bytes: &[u8]) -> String {
    dies(db, bytes, 200, "none");
    db.sql("CREATE TABLE v (taken INT)");
    let left = db.server.leftovers(&db.name);
    let scratch = left.iter().find(|name| name.contains("__restoring_")).unwrap();
    scratch.rsplit_once('_').unwrap().1.to_owned()
}

fn is_refused(error: &Error) -> bool {
    error.message.contains("a restore was interrupted") && error.message.contains("not all of it is there")
}

fn fails(db: &Database, bytes: &[u8]) {
    let stream = Failing { inner: Cursor::new(bytes), left: bytes.len() };
    restore(db.engine().as_ref(), stream, Destination::InPlace, &Counts::new()).expect_err("its stream fails");
}

/// Keeps what is replaced as the program does.
struct Keeps {
    engine: Box<dyn Engine>,
    kept: Mutex<Vec<u8>>,
}

impl Aside for Keeps {
    fn room(&self) -> Result<()> {
        Ok(())
    }

    fn take(&self, _: DateTime<Utc>) -> Result<()> {
        assert!(is_refused(&self.engine.probe(&cx()).expect_err("for all others it is no backup")));
        let engine = self.engine.for_keeping().expect("one that takes what is no backup");
        engine.probe(&cx())?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = dump(engine.as_ref())?.0;
        Ok(())
    }

    fn untouched(&self, _: DateTime<Utc>) {
        panic!("it has changed");
    }
}

pub fn what_could_not_be_finished_is_told_until_another_stands(server: Server) {
    let db = Database::small(server, "unfinished", true);
    db.sql("CREATE TABLE c (i INT, FOREIGN KEY (i) REFERENCES a (i)); INSERT INTO c VALUES (1), (2)");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    db.sql("DROP VIEW v; DROP EVENT e; INSERT INTO b VALUES (4)");
    let hex = left_without_its_view(&db, &bytes);
    let refused = || {
        assert!(is_refused(&db.engine().probe(&cx()).expect_err("it lacks a view")));
        assert!(is_refused(&dump(db.engine().as_ref()).expect_err("it lacks a view")));
    };
    refused();
    // Whatever fails before it takes its place: the stream, the load, the rows that are counted.
    fails(&db, &bytes);
    refused();
    let nonsense = String::from_utf8(bytes.clone()).unwrap().replace("CREATE TABLE `b`", "CREATE NONSENSE `b`");
    let mut more = findings.counts.clone();
    more.insert("b".into(), Some(5));
    for (dump, counts) in [(nonsense.as_bytes(), &findings.counts), (&bytes[..], &more)] {
        restore(db.engine().as_ref(), Cursor::new(dump), Destination::InPlace, counts).expect_err("it is wrong");
        refused();
    }
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    refused();
    // Its word alone is left: what it replaced wants room.
    let left = db.server.leftovers(&db.name);
    assert!(left.len() == 1 && left[0].ends_with(&format!("__restoring_{hex}")), "{left:?}");
    // The next one that is good keeps what stands, and takes its place.
    let keeps = Arc::new(Keeps { engine: db.engine(), kept: Mutex::default() });
    let keep = Keep { at: Utc::now(), aside: Arc::clone(&keeps) as Arc<dyn Aside> };
    let request = Request { keep: Some(keep), ..Request::new(Destination::InPlace, findings.counts) };
    let told = db.engine().restore(&mut inspected(Cursor::new(&bytes)), &request, &cx()).unwrap().notes;
    assert!(told[0].starts_with("an interrupted restore could not be finished: can't make the view v: "), "{told:?}");
    assert!(told[1].contains(" is kept as it is: without what that restore had yet to make"), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    let kept = keeps.kept.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(String::from_utf8_lossy(&kept).contains("CREATE TABLE `v`"));
    similar(&restored, &db.all());
    db.assert_nothing_left();
    dump(db.engine().as_ref()).unwrap();
}

pub fn what_could_not_be_finished_is_never_put_to_the_next(server: Server) {
    let db = Database::small(server, "next", true);
    let (first, _) = db.backup();
    db.sql(
        "DROP VIEW v; CREATE VIEW v AS SELECT i + 1 AS i FROM b; INSERT INTO b VALUES (4);
         DROP FUNCTION f; CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + 1;
         DROP EVENT e; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO DELETE FROM b WHERE i > 200;",
    );
    let (second, findings) = db.backup();
    let restored = db.all();
    // Either it is no backup, or all of the second stands.
    let is_told = |place: &str| match dump(db.engine().as_ref()) {
        Ok(_) => {
            similar(&restored, &db.all());
            false
        }
        Err(error) => {
            assert!(is_refused(&error), "{place}: {error:?}");
            true
        }
    };
    // Before the first statement, between any two of its steps, and when only its code is yet to be made.
    let mut told = Vec::new();
    for keep in [1, 2, 3, 5, 9, 200] {
        let hex = left_without_its_view(&db, &first);
        dies(&db, &second, keep, &hex);
        assert!(is_told(&format!("kept {keep}")), "kept {keep}");
        // The next one fails, but first it finishes what it can.
        fails(&db, &first);
        told.push(is_told(&format!("kept {keep}, and then")));
        restore(db.engine().as_ref(), Cursor::new(&second), Destination::InPlace, &findings.counts).unwrap();
        similar(&restored, &db.all());
        db.assert_nothing_left();
    }
    // Once it had begun it was finished; the one before it never was.
    assert_eq!(told, [true, false, false, false, false, false]);
    // It stands, and drops nothing of what there was before.
    left_without_its_view(&db, &first);
    let folder = tempfile::tempdir().unwrap();
    client(&db, folder.path(), "case \"$d\" in 'DROP DATABASE IF EXISTS'*__restoring_*) exit 1;; esac");
    let engine = with_tools_in(&db, folder.path());
    let notes = restore(engine.as_ref(), Cursor::new(&second), Destination::InPlace, &findings.counts).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("could not be dropped")), "{notes:?}");
    assert_eq!(db.server.leftovers(&db.name).len(), 3);
    assert!(!is_told("it stands"));
    fails(&db, &first);
    assert!(!is_told("it still stands"));
    db.assert_nothing_left();
}
