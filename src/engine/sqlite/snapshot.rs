//! A dump: one consistent image of the database while others write. Flows in: the path. Flows out: the image's bytes and
//! the counts of the very same snapshot. Touches the database through SQLite, and `data_dir` where there is no other way.
//!
//! In WAL mode readers hold up nobody, so a read transaction stays open while its pages stream straight from SQLite's
//! own view of them. In rollback mode a reader holds every writer up, for as long as the slowest target takes: there the
//! database is copied first, as fast as the disk is, and the copy is streamed. So it is in a build without `sqlite_dbpage`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::connect::{self, Guard};
use super::scratch::Scratch;
use super::{contents, image};
use crate::engine::{Counts, Cx, Dump};
use crate::error::{Context, Error, Kind, Result};

/// Bytes that travel together.
const BLOCK_BYTES: usize = 64 * 1024;
/// Blocks that may wait for the reader.
const QUEUE_BLOCKS: usize = 4;
/// How often a wait looks for a signal and at the deadline.
const TICK: Duration = Duration::from_millis(100);
/// Pages copied between two looks for a signal.
pub(super) const STEP_PAGES: i32 = 1_000;

/// Whether this build of SQLite can stream pages.
pub(super) fn can_stream(db: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM pragma_compile_options WHERE compile_options = 'ENABLE_DBPAGE_VTAB'";
    db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

/// Takes the snapshot and starts the stream.
pub(super) fn take(path: &Path, cx: &Cx) -> Result<Dump> {
    take_with(path, cx, true)
}

/// The same; without `may_stream` as a build does that can't.
fn take_with(path: &Path, cx: &Cx, may_stream: bool) -> Result<Dump> {
    let guard = Guard::new(cx);
    let what = format!("can't dump sqlite database {}", path.display());
    let fail = |error: rusqlite::Error| connect::explain(&error, &what, &guard);
    let db = connect::live(path, &guard).map_err(fail)?;
    db.execute_batch("BEGIN").map_err(fail)?;
    // The first read is what takes the snapshot; from here on the journal's mode can't change either.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(fail)?;
    let is_wal = connect::pragma_text(&db, "journal_mode").map_err(fail)? == "wal";
    if is_wal && may_stream && can_stream(&db).map_err(fail)? {
        let counts = contents::count(&db).map_err(fail)?;
        let stream = Pages::start(db, what, guard)?;
        return Ok(Dump { stream: Box::new(stream), counts });
    }
    let counts = if is_wal { Some(contents::count(&db).map_err(fail)?) } else { None };
    let (file, counts) = copied(db, counts, &what, cx)?;
    Ok(Dump { stream: Box::new(Copied { file, guard, what, failed: None }), counts })
}

/// Copies the snapshot into a temporary file, which has no name any more when this returns.
fn copied(db: Connection, counts: Option<Counts>, what: &str, cx: &Cx) -> Result<(File, Counts)> {
    let guard = Guard::new(cx);
    let scratch = Scratch::new(&cx.data_dir, cx)?;
    let (path, _) = scratch.file("image")?;
    let what = format!("{what} into the temporary copy {}", path.display());
    let fail = |error: rusqlite::Error| connect::explain(&error, &what, &guard);
    let mut copy = connect::live(&path, &guard).map_err(fail)?;
    // If the machine stops, the copy is of no use anyway.
    copy.execute_batch("PRAGMA synchronous=OFF").map_err(fail)?;
    copy_pages(&db, &mut copy, &what, &guard)?;
    drop(copy);
    // From here on writers go on.
    drop(db);
    let counts = match counts {
        Some(counts) => counts,
        None => connect::copy(&path, &guard).and_then(|copy| contents::count(&copy)).map_err(fail)?,
    };
    let file = File::open(&path).doing(Kind::Tool, format!("can't read the temporary copy {}", path.display()))?;
    Ok((file, counts))
}

/// Copies every page of `from` into `to` in one transaction; on any error, and when stopped, `to` is as it was.
pub(super) fn copy_pages(from: &Connection, to: &mut Connection, what: &str, guard: &Guard) -> Result<()> {
    let fail = |error: rusqlite::Error| connect::explain(&error, what, guard);
    // Both ends stay locked between the steps: they only give signals a chance.
    let backup = Backup::new(from, to).map_err(fail)?;
    loop {
        guard.check()?;
        match backup.step(STEP_PAGES).map_err(fail)? {
            StepResult::More => {}
            StepResult::Done => return Ok(()),
            _ => return Err(fail(rusqlite::Error::SqliteFailure(locked(), None))),
        }
    }
}

fn locked() -> rusqlite::ffi::Error {
    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY)
}

/// What comes from the thread that reads pages. A channel that closes without an end is a failure, never an end.
enum Message {
    Block(Vec<u8>),
    End,
    Failed(Error),
}

/// The pages of a snapshot, read by a thread of its own. The thread ends when this is dropped.
struct Pages {
    queue: Option<Receiver<Message>>,
    thread: Option<JoinHandle<()>>,
    block: io::Cursor<Vec<u8>>,
    end: Option<Result<()>>,
    guard: Guard,
}

impl Pages {
    fn start(db: Connection, what: String, guard: Guard) -> Result<Self> {
        let (sink, queue) = bounded(QUEUE_BLOCKS);
        let watch = guard.clone();
        let thread = std::thread::Builder::new()
            .name("sqlite-pages".to_owned())
            .spawn(move || {
                let outcome = send_pages(&db, &sink, &what, &guard);
                // The end is told only when the database is let go.
                drop(db);
                let last = match outcome {
                    Ok(()) => Message::End,
                    Err(error) => Message::Failed(error),
                };
                drop(sink.send(last));
            })
            .doing(Kind::Other, "can't start a thread")?;
        let block = io::Cursor::new(Vec::new());
        Ok(Self { queue: Some(queue), thread: Some(thread), block, end: None, guard: watch })
    }

    /// The next message, or the reason why none is waited for.
    fn next(&self) -> Message {
        let Some(queue) = &self.queue else { return Message::Failed(lost()) };
        loop {
            if let Err(error) = self.guard.check() {
                return Message::Failed(error);
            }
            match queue.recv_timeout(TICK) {
                Ok(message) => return message,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Message::Failed(lost()),
            }
        }
    }

    fn stop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn lost() -> Error {
    Error::new(Kind::Tool, "the thread that reads the sqlite database ended unexpectedly")
}

impl Read for Pages {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(end) = &self.end {
                return end.clone().map(|()| 0).map_err(Error::into_io);
            }
            match self.block.read(buffer)? {
                0 if buffer.is_empty() => return Ok(0),
                0 => {}
                count => return Ok(count),
            }
            match self.next() {
                Message::Block(block) => self.block = io::Cursor::new(block),
                Message::End => self.end = Some(Ok(())),
                Message::Failed(error) => self.end = Some(Err(error)),
            }
            if self.end.is_some() {
                self.stop();
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends every page in order. Ends quietly when nobody listens any more.
fn send_pages(db: &Connection, sink: &Sender<Message>, what: &str, guard: &Guard) -> Result<()> {
    let fail = |error: rusqlite::Error| connect::explain(&error, what, guard);
    let pages = connect::pragma_number(db, "page_count").map_err(fail)?;
    let page_bytes = connect::pragma_number(db, "page_size").map_err(fail)?;
    let mut query = db.prepare("SELECT data FROM sqlite_dbpage('main') ORDER BY pgno").map_err(fail)?;
    let mut rows = query.query([]).map_err(fail)?;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut sent = 0u64;
    while let Some(row) = rows.next().map_err(fail)? {
        let start = block.len();
        let page = row.get_ref(0).and_then(|page| Ok(page.as_blob()?)).map_err(fail)?;
        block.extend_from_slice(page);
        if page.len() as u64 != page_bytes {
            return Err(Error::new(Kind::Tool, format!("{what}: page {} has {} bytes", sent + 1, page.len())));
        }
        if sent == 0 {
            image::vouch_for_pages(block.get_mut(start..).unwrap_or_default(), pages);
        }
        sent += 1;
        if block.len() >= BLOCK_BYTES {
            guard.check()?;
            if sink.send(Message::Block(std::mem::replace(&mut block, Vec::with_capacity(BLOCK_BYTES)))).is_err() {
                return Ok(());
            }
        }
    }
    if sent != pages {
        return Err(Error::new(Kind::Tool, format!("{what}: {sent} of {pages} pages could be read")));
    }
    // Whether somebody listens shows at the next message.
    drop(sink.send(Message::Block(block)));
    Ok(())
}

/// A temporary copy on its way.
struct Copied {
    file: File,
    guard: Guard,
    what: String,
    failed: Option<Error>,
}

impl Read for Copied {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = match &self.failed {
            Some(error) => Err(error.clone()),
            None => match self.guard.check() {
                Ok(()) => match self.file.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                    other => other.doing(Kind::Tool, format!("{}: can't read the temporary copy", self.what)),
                },
                Err(stopped) => Err(stopped),
            },
        };
        outcome.map_err(|error| self.failed.insert(error).clone().into_io())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Inspected;

    #[test]
    fn a_build_without_page_streaming_takes_a_copy_of_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE t(a);
             INSERT INTO t SELECT randomblob(500) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n
             WHERE i<2000) SELECT i FROM n);",
        )
        .unwrap();
        let cx = Cx {
            world: crate::world::World::system(),
            report: crate::report::Report::default(),
            data_dir: folder.path().join("data"),
            deadline: None,
        };
        let mut images = Vec::new();
        for may_stream in [true, false] {
            let dump = take_with(&path, &cx, may_stream).unwrap();
            assert_eq!(dump.counts.get("t"), Some(&Some(2_000)));
            let mut image = Vec::new();
            Inspected::new(dump.stream, image::inspector()).read_to_end(&mut image).unwrap();
            images.push(image);
        }
        let [streamed, copied] = [0, 1].map(|at: usize| images.get(at).unwrap());
        // The header's counters differ, since the copy was committed once more; WAL mode stays.
        assert_eq!(streamed.get(100..), copied.get(100..));
        assert_eq!(image::Header::read(copied).unwrap(), image::Header::read(streamed).unwrap());
        assert!(image::Header::read(copied).unwrap().is_wal);
        assert_eq!(std::fs::read_dir(&cx.data_dir).unwrap().count(), 0);
    }
}
