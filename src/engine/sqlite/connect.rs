//! Connections, and what their errors mean. Flows in: a path and the limits of the work. Flows out: a connection that
//! waits for locks but heeds signals and the deadline, and errors with their mend. Touches the database's file, but only
//! through SQLite: POSIX drops every lock that this process has on a file as soon as it closes *any* descriptor of it, so
//! a live database is never opened in another way while a job may have it open.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::ffi::{self, ErrorCode};
use rusqlite::{Connection, OpenFlags};

use crate::engine::Cx;
use crate::error::{Error, Kind, Result};

/// How long a lock of another process is waited for.
pub(super) const BUSY: Duration = Duration::from_secs(60);
/// The longest pause between two looks at a lock.
const BUSY_PAUSE_MS: u64 = 25;
/// How many steps of SQLite's machine pass between two looks for a signal.
const PROGRESS_STEPS: i32 = 100_000;

/// Signals and the deadline.
#[derive(Clone, Debug)]
pub(super) struct Guard(Cx);

impl Guard {
    pub(super) fn new(cx: &Cx) -> Self {
        Self(cx.clone())
    }

    /// Fails when a signal has come or the deadline has passed.
    pub(super) fn check(&self) -> Result<()> {
        self.0.world.cancel.check()?;
        match self.0.deadline {
            Some(deadline) if self.0.world.clock.monotonic() >= deadline => {
                Err(Error::new(Kind::Tool, "sqlite did not finish within its time and was stopped")
                    .hint("raise timeout, or look at what holds the database's lock"))
            }
            _ => Ok(()),
        }
    }

    /// What SQLite calls while a lock is not to be had; false gives up.
    fn busy_handler(&self) -> impl FnMut(i32) -> bool + Send + 'static {
        let guard = self.clone();
        let mut since = Duration::ZERO;
        move |tries| {
            let now = guard.0.world.clock.monotonic();
            if tries == 0 {
                since = now;
            }
            if guard.check().is_err() || now.saturating_sub(since) >= BUSY {
                return false;
            }
            let pause = BUSY_PAUSE_MS.min(1 + u64::from(tries.unsigned_abs()));
            guard.0.world.clock.sleep(Duration::from_millis(pause));
            true
        }
    }
}

/// What SQLite itself said.
fn failure(error: &rusqlite::Error) -> Option<(ffi::Error, String)> {
    match error {
        rusqlite::Error::SqliteFailure(failure, text) => {
            Some((*failure, text.clone().unwrap_or_else(|| failure.to_string())))
        }
        // What a statement that can't be compiled gives, but for the statement itself.
        rusqlite::Error::SqlInputError { error: failure, msg, .. } => Some((*failure, msg.clone())),
        _ => None,
    }
}

/// The sort of error.
fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    failure(error).map(|(failure, _)| failure.code)
}

/// The error in SQLite's own words.
pub(super) fn reason(error: &rusqlite::Error) -> String {
    first_lower(&failure(error).map_or_else(|| error.to_string(), |(_, text)| text))
}

/// Whether the file itself is what can't be used, so that waiting or another user would not help.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(code(error), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Whether SQLite could not even compile a statement: a function, collation or module of the application's is missing.
pub(super) fn is_foreign(error: &rusqlite::Error) -> bool {
    code(error) == Some(ErrorCode::Unknown)
}

/// Opens the database at `path` for reading and writing, for even a reader must be able to roll a hot journal back; a
/// file that is not there is never made.
pub(super) fn live(path: &Path, guard: &Guard) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, guard)
}

/// Opens a temporary copy that nobody else has and nothing will change.
pub(super) fn copy(path: &Path, guard: &Guard) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, guard)
}

fn open(path: &Path, flags: OpenFlags, guard: &Guard) -> rusqlite::Result<Connection> {
    let mut db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // An image may come from anywhere: nothing in its schema may run what has side effects.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.busy_handler(Some(guard.busy_handler()))?;
    let watch = guard.clone();
    db.progress_handler(PROGRESS_STEPS, Some(move || watch.check().is_err()))?;
    Ok(db)
}

/// Asks a pragma for its one text.
pub(super) fn pragma_text(db: &Connection, name: &str) -> rusqlite::Result<String> {
    db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// Asks a pragma for its one number.
pub(super) fn pragma_number(db: &Connection, name: &str) -> rusqlite::Result<u64> {
    db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0).map(i64::unsigned_abs))
}

/// Makes an error of ours: what was being done, why it failed, and the mend. A signal or the deadline comes first, for
/// SQLite then only says that it was interrupted or could not wait.
pub(super) fn explain(error: &rusqlite::Error, what: impl std::fmt::Display, guard: &Guard) -> Error {
    if let Err(stopped) = guard.check() {
        return stopped;
    }
    let text = reason(error);
    let extended = failure(error).map_or(0, |(failure, _)| failure.extended_code);
    let (reason, hint) = match code(error) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            format!("{text}: another process did not give its lock up within {} s", BUSY.as_secs()),
            "stop or pause what uses the database (for a restore, restore.before can), or try again later",
        ),
        Some(ErrorCode::DiskFull) => {
            (format!("no space left ({text})"), "make room on the disk of the file named above")
        }
        Some(ErrorCode::NotADatabase) => {
            (text, "is the path right? a database that its application encrypts can't be read")
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            (text, "restore a backup, or save what is left with `sqlite3 FILE .recover`")
        }
        Some(ErrorCode::ReadOnly)
            if matches!(extended, ffi::SQLITE_READONLY_ROLLBACK | ffi::SQLITE_READONLY_RECOVERY) =>
        {
            (
                format!(
                    "a crashed writer left a journal that must be rolled back first, and nothing may be written ({text})"
                ),
                "run it as the user who owns the database, and allow its folder in the unit's ReadWritePaths",
            )
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            text,
            "look at owner and mode of the file and its folder; in WAL mode the folder must be writable (ReadWritePaths)",
        ),
        _ => return Error::new(Kind::Tool, format!("{what}: {text}")),
    };
    Error::new(Kind::Tool, format!("{what}: {reason}")).hint(hint)
}

/// SQLite's own texts are lower case already, some of the binding's are not.
fn first_lower(text: &str) -> String {
    let mut chars = text.chars();
    let keeps = text.starts_with("SQL");
    match chars.next() {
        Some(first) if !keeps => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
