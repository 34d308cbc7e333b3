//! Others at work: a process and a thread move amounts between two tables all the while. The sum never changes, in any
//! snapshot; open handles go on through a restore, and see the old data or the new.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use voxeltron_backup::engine::Destination;
use voxeltron_backup::error::Kind;
use voxeltron_backup::world::{Clock, SystemClock};

use crate::support::{Bench, contents, fill, sqlite3};

/// Names the database for the process that the tests start from their own program.
const WRITES_TO: &str = "SQLITE_ENGINE_TEST_WRITES_TO";
const TOTAL: i64 = 40_000;
const ACCOUNTS: &str = "
CREATE TABLE a(id INTEGER PRIMARY KEY, v INTEGER NOT NULL); CREATE TABLE b(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);
INSERT INTO a WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) SELECT i, 100 FROM n;
INSERT INTO b SELECT id, 100 FROM a; CREATE TABLE moves(id INTEGER PRIMARY KEY, what TEXT);";
const SUM: &str = "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)";

/// Moves amounts until told to stop, with one handle all the while. Returns how many.
fn write_until(path: &Path, stop: impl Fn() -> bool) -> u32 {
    let mut db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    let mut moves = 0;
    while !stop() {
        let id = i64::from(moves % 200) + 1;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        transaction.prepare_cached("UPDATE a SET v = v - 7 WHERE id = ?1").unwrap().execute([id]).unwrap();
        transaction
            .prepare_cached("INSERT INTO moves(what) VALUES(hex(randomblob(100)))")
            .unwrap()
            .execute([])
            .unwrap();
        transaction.prepare_cached("UPDATE b SET v = v + 7 WHERE id = ?1").unwrap().execute([201 - id]).unwrap();
        transaction.commit().unwrap();
        assert_eq!(db.query_row(SUM, [], |row| row.get::<_, i64>(0)).unwrap(), TOTAL);
        moves += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    moves
}

/// No test by itself: what [`Writers`] starts in a process of its own.
#[test]
fn writer_process() {
    if let Some(path) = std::env::var_os(WRITES_TO) {
        let path = Path::new(&path);
        let stop = path.with_extension("stop");
        assert!(write_until(path, || stop.exists()) > 0);
    }
}

/// A process and a thread that write.
struct Writers {
    child: Child,
    thread: Option<std::thread::JoinHandle<u32>>,
    stop: Arc<AtomicBool>,
    stop_file: std::path::PathBuf,
}

impl Writers {
    fn start(path: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writers::writer_process"])
            .env(WRITES_TO, path)
            .spawn()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (watch, file) = (Arc::clone(&stop), path.to_owned());
        let thread = std::thread::spawn(move || write_until(&file, || watch.load(Ordering::SeqCst)));
        let writers = Self { child, thread: Some(thread), stop, stop_file: path.with_extension("stop") };
        writers.wait_for_moves(path, 20);
        writers
    }

    /// Until so many moves have been made by both, since the last restore.
    fn wait_for_moves(&self, path: &Path, count: i64) {
        let db = Connection::open(path).unwrap();
        db.busy_timeout(Duration::from_secs(60)).unwrap();
        let made = || db.query_row("SELECT count(*) FROM moves", [], |row| row.get::<_, i64>(0)).unwrap();
        let (from, start) = (made(), Instant::now());
        while made() < from + count {
            assert!(start.elapsed() < Duration::from_secs(120), "nobody writes");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Both must have gone through without one error.
    fn finish(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        std::fs::write(&self.stop_file, "").unwrap();
        assert!(self.thread.take().unwrap().join().unwrap() > 0);
        assert!(self.child.wait().unwrap().success(), "the writing process failed");
        std::fs::remove_file(&self.stop_file).unwrap();
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn snapshots_are_consistent_and_handles_live_on() {
    for journal in ["WAL", "DELETE"] {
        let bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {ACCOUNTS} {}", fill("ballast", 3_000)));
        let writers = Writers::start(&bench.live);
        let mut last = None;
        for _ in 0..4 {
            let (image, counts, _) = bench.dump().unwrap();
            let beside = bench.path("beside.db");
            bench.restore(&image, Destination::Into(beside.to_str().unwrap().to_owned()), &counts).unwrap();
            assert_eq!(sqlite3(&beside, &format!("{SUM}; PRAGMA integrity_check;")), format!("{TOTAL}\nok\n"));
            std::fs::remove_file(&beside).unwrap();
            writers.wait_for_moves(&bench.live, 5);
            last = Some((image, counts));
        }
        let (image, counts) = last.unwrap();
        for _ in 0..4 {
            bench.restore(&image, Destination::InPlace, &counts).unwrap();
            writers.wait_for_moves(&bench.live, 10);
        }
        writers.finish();
        assert_eq!(sqlite3(&bench.live, &format!("{SUM}; PRAGMA integrity_check;")), format!("{TOTAL}\nok\n"));
    }
}

#[test]
fn a_slow_reader_holds_no_writer_up() {
    use std::io::Read;
    for journal in ["WAL", "DELETE"] {
        let bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {ACCOUNTS} {}", fill("ballast", 3_000)));
        let before = contents(&bench.live);
        let mut dump = bench.engine().dump(&bench.cx).unwrap();
        let mut image = vec![0u8; 1_000];
        dump.stream.read_exact(&mut image).unwrap();
        // Who had to wait would be refused after ten seconds.
        sqlite3(
            &bench.live,
            ".timeout 10000\nUPDATE a SET v = v + 1; VACUUM; CREATE TABLE later(x); DROP TABLE ballast;",
        );
        dump.stream.read_to_end(&mut image).unwrap();
        bench.assert_no_leftovers();
        let beside = bench.path("beside.db");
        bench.restore(&image, Destination::Into(beside.to_str().unwrap().to_owned()), &dump.counts).unwrap();
        assert_eq!(contents(&beside), before);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_dump() {
    use std::io::Read;
    let bench = Bench::new(&format!("PRAGMA journal_mode=WAL; {}", fill("t", 3_000)));
    let mut dump = bench.engine().dump(&bench.cx).unwrap();
    dump.stream.read_exact(&mut [0u8; 10]).unwrap();
    drop(dump);
    // No reader is left that would keep the WAL from being emptied.
    assert!(sqlite3(&bench.live, "INSERT INTO t(b) VALUES(1); PRAGMA wal_checkpoint(TRUNCATE);").starts_with("0|0|0"));
}

/// A clock that is put forward by so many seconds, so that a time is over when the test says so.
#[derive(Clone, Debug, Default)]
struct Ahead(Arc<AtomicU64>);

impl Clock for Ahead {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        chrono::Utc::now()
    }

    fn monotonic(&self) -> Duration {
        SystemClock::default().monotonic() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

#[test]
fn a_signal_and_the_deadline_end_a_dump_for_good() {
    use std::io::Read;
    for journal in ["WAL", "DELETE"] {
        for by_signal in [true, false] {
            let mut bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {}", fill("t", 3_000)));
            let ahead = Ahead::default();
            bench.cx.world.clock = Arc::new(ahead.clone());
            if !by_signal {
                bench.cx.deadline = Some(bench.cx.world.clock.monotonic() + Duration::from_secs(3600));
            }
            let mut dump = bench.engine().dump(&bench.cx).unwrap();
            dump.stream.read_exact(&mut [0u8; 10]).unwrap();
            if by_signal {
                bench.cx.world.cancel.stop(15);
            } else {
                ahead.0.store(3600, Ordering::SeqCst);
            }
            let wanted = if by_signal { Kind::Stopped(15) } else { Kind::Tool };
            for _ in 0..2 {
                let error = dump.stream.read_to_end(&mut Vec::new()).unwrap_err();
                let error = voxeltron_backup::error::Error::from_io(error, Kind::Other, "test");
                assert_eq!(error.kind, wanted, "{error}");
            }
            let error = bench.restore(b"", Destination::InPlace, &Default::default()).unwrap_err();
            assert_eq!(error.kind, wanted, "{error}");
        }
    }
}

#[test]
fn a_lock_that_is_not_given_up_is_an_error_that_the_deadline_cuts_short() {
    for (journal, lock) in [("DELETE", "EXCLUSIVE"), ("WAL", "IMMEDIATE")] {
        let mut bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {}", fill("t", 10)));
        let (image, counts, _) = bench.dump().unwrap();
        let before = contents(&bench.live);
        let holder = Connection::open(&bench.live).unwrap();
        holder.execute_batch(&format!("BEGIN {lock}")).unwrap();
        for restores in [false, true] {
            bench.cx.deadline = Some(bench.cx.world.clock.monotonic() + Duration::from_millis(400));
            let start = Instant::now();
            let error = match restores {
                true => bench.restore(&image, Destination::InPlace, &counts).unwrap_err(),
                // In WAL mode a reader does not mind a writer.
                false if journal == "WAL" => continue,
                false => bench.dump().unwrap_err(),
            };
            // Without it, it would be waited for a minute.
            assert!(start.elapsed() < Duration::from_secs(45));
            assert!(error.message.contains("within its time") && error.hint.is_some(), "{error:?}");
        }
        holder.execute_batch("ROLLBACK").unwrap();
        drop(holder);
        assert_eq!(contents(&bench.live), before);
    }
}

#[test]
fn files_that_a_dump_makes_belong_to_the_owner_of_the_database() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new(&format!("PRAGMA journal_mode=WAL; {}", fill("t", 1_000)));
    // Only root can give files away; as anybody else they are ours all along.
    drop(std::os::unix::fs::chown(&bench.live, Some(1234), Some(4321)));
    let owner =
        |name: &str| std::fs::metadata(bench.live.with_file_name(name)).map(|meta| (meta.uid(), meta.gid())).unwrap();
    let dump = bench.engine().dump(&bench.cx).unwrap();
    for name in ["live.db-wal", "live.db-shm"] {
        assert_eq!(owner(name), owner("live.db"), "{name}");
    }
    drop(dump);
    assert_eq!(crate::support::names(bench.live.parent().unwrap()), ["live.db"]);
}
