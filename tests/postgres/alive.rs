//! The living and the dead: another restore drops the scratch of a restore that was killed a moment ago, and never one that
//! a living restore is at work on.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Stops as soon as there is a scratch, until it is let go. By then `pg_restore` has read no more than the archive's head: in
/// the middle of a COPY that waits for its client, a server lets nobody drop any database (PostgreSQL 15 and later).
struct Gate<'a> {
    db: (&'a Server, &'a str),
    bytes: &'a [u8],
    reached: Option<Sender<()>>,
    go: Receiver<()>,
}

impl Read for Gate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reached.is_some() && !self.db.0.leftovers(self.db.1).is_empty() {
            let _ = self.reached.take().unwrap().send(());
            let _ = self.go.recv();
        }
        let room = if self.reached.is_some() { 256 } else { buffer.len() };
        self.bytes.read(&mut buffer[..room])
    }
}

/// Runs a restore until it has a scratch, then `meanwhile` with its scratch's name, then its end.
fn restore_and_meanwhile(
    db: &Database,
    bytes: &[u8],
    counts: &Counts,
    meanwhile: impl FnOnce(&str),
) -> Result<Restored> {
    std::thread::scope(|scope| {
        // In here, so that a panic lets the restore go.
        let ((reached, at_gate), (go, going)) = (channel(), channel());
        let gate = Gate { db: (&db.server, &db.name), bytes, reached: Some(reached), go: going };
        let restoring = scope.spawn(|| restore(db.engine().as_ref(), gate, Destination::InPlace, counts));
        at_gate.recv_timeout(Duration::from_secs(120)).unwrap();
        let left = db.server.leftovers(&db.name);
        assert_eq!(left.len(), 1, "{left:?}");
        meanwhile(&left[0]);
        go.send(()).unwrap();
        restoring.join().unwrap()
    })
}

/// The session that holds the lock of a scratch, looked for without this program's help.
fn holder(db: &Database, scratch: &str) -> String {
    db.server.admin(&format!(
        "SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted
         AND a.state = 'idle in transaction' AND a.backend_xmin IS NULL AND a.application_name = 'voxeltron-backup restore'
         AND lpad(to_hex(classid::bigint), 8, '0') || lpad(to_hex(objid::bigint), 8, '0')
           = substr(encode(sha256(convert_to({}, 'UTF8')), 'hex'), 1, 16)",
        literal(scratch)
    ))
}

fn end_holder(db: &Database, scratch: &str) {
    let pid = holder(db, scratch);
    assert_eq!(db.server.admin(&format!("SELECT pg_terminate_backend({pid})")), "t");
    while holder(db, scratch) == pid {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_living_restores_scratch_is_never_dropped() {
    let db = Database::small("living");
    let (bytes, findings) = db.backup();
    let before = db.all();
    db.sql("INSERT INTO b VALUES (4)");
    let restored = restore_and_meanwhile(&db, &bytes, &findings.counts, |scratch| {
        // However old it is.
        let mark = format!("voxeltron-backup: left by a restore of {} since 2020-01-01T00:00:00Z", db.name);
        let comment = literal(&format!("{mark}, unless its session is still there"));
        db.server.admin(&format!("COMMENT ON DATABASE {} IS {comment}", ident(scratch)));
        let probe = db.engine().probe(&cx()).unwrap();
        assert_eq!(probe.warnings, Vec::<String>::new(), "it is no leftover");
        for destination in [Destination::Drill, Destination::InPlace] {
            let other = restore(db.engine().as_ref(), &*bytes, destination, &findings.counts).unwrap();
            assert_eq!(other.notes, Vec::<String>::new());
            assert_eq!(db.server.leftovers(&db.name), [scratch]);
        }
        assert_eq!(db.all(), before);
        db.sql("INSERT INTO b VALUES (5)");
    });
    assert_eq!(restored.unwrap().notes, Vec::<String>::new());
    assert_eq!(db.all(), before);
    db.assert_nothing_left();
}

#[test]
fn a_restore_whose_session_is_lost_ends_well_or_says_why() {
    let db = Database::small("lost");
    let (bytes, findings) = db.backup();
    let before = db.all();
    db.sql("INSERT INTO b VALUES (4)");
    // Nobody else comes.
    restore_and_meanwhile(&db, &bytes, &findings.counts, |scratch| end_holder(&db, scratch)).unwrap();
    assert_eq!(db.all(), before);
    // Somebody takes it for dead.
    let error = restore_and_meanwhile(&db, &bytes, &findings.counts, |scratch| {
        end_holder(&db, scratch);
        let other = restore(db.engine().as_ref(), &*bytes, Destination::InPlace, &findings.counts).unwrap();
        assert_eq!(other.notes, [format!("dropped {scratch}, which an interrupted restore had left")]);
        db.sql("INSERT INTO b VALUES (5)");
    });
    let error = error.unwrap_err();
    let said = (error.message.contains("somebody has dropped"), error.message.contains("under this restore"));
    assert_eq!((error.kind, said), (Kind::Tool, (true, true)), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("is unchanged by this restore")));
    assert_eq!(db.sql("SELECT string_agg(i::text, ' ') FROM b"), "1 2 3 5");
    db.assert_nothing_left();
}

/// Names the database and the dump for the child of [`a_dead_restores_scratch_is_dropped_at_once`].
const CHILD: &str = "VOXELTRON_TEST_POSTGRES_DEAD";

#[test]
fn a_dead_restores_scratch_is_dropped_at_once() {
    if let Ok(child) = std::env::var(CHILD) {
        let (file, name) = child.split_once('\n').unwrap();
        let (server, bytes) = (Server::get(), std::fs::read(file).unwrap());
        let ((reached, _), (_going, go)) = (channel(), channel());
        let gate = Gate { db: (&server, name), bytes: &bytes, reached: Some(reached), go };
        let _ = restore(open(settings(&server, name)).as_ref(), gate, Destination::InPlace, &Counts::new());
        return;
    }
    let db = Database::small("dead");
    let (bytes, findings) = db.backup();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    std::fs::write(&file, &bytes).unwrap();
    for destination in [Destination::InPlace, Destination::Drill] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "alive::a_dead_restores_scratch_is_dropped_at_once", "--nocapture"])
            .env(CHILD, format!("{}\n{}", file.display(), db.name))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let started = std::time::Instant::now();
        while db.server.leftovers(&db.name).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = db.server.leftovers(&db.name);
        child.kill().unwrap();
        child.wait().unwrap();
        let other = restore(db.engine().as_ref(), &*bytes, destination, &findings.counts).unwrap();
        assert_eq!(other.notes, [format!("dropped {}, which an interrupted restore had left", left[0])]);
        db.assert_nothing_left();
    }
}
