//! The swap into a live database. Flows in: a checked image. Flows out: the same file with other contents. Touches the
//! live database, only through SQLite and in one transaction under its own locks: handles that are open see the old data
//! or the new, and a crash half-way is rolled back by whoever opens it next.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::connect::{self, Guard};
use super::restore::Image;
use super::scratch::Scratch;
use super::{contents, place, snapshot};
use crate::engine::tools::for_cleanup;
use crate::engine::{Cx, Keep, Step};
use crate::error::{Error, Kind, Result};

/// How long it may take to roll a failed copy back.
const CLEANUP: Duration = Duration::from_secs(60);

/// What the live database is like.
struct Live {
    db: Connection,
    page_bytes: u64,
    is_wal: bool,
    is_empty: bool,
    encoding: String,
}

impl Live {
    fn open(path: &Path, guard: &Guard) -> rusqlite::Result<Self> {
        let db = connect::live(path, guard)?;
        connect::begin_reading(&db)?;
        let is_wal = connect::pragma_text(&db, "journal_mode")? == "wal";
        let page_bytes = connect::pragma_number(&db, "page_size")?;
        let is_empty = connect::pragma_number(&db, "page_count")? == 0;
        let encoding = connect::pragma_text(&db, "encoding")?;
        Ok(Self { db, page_bytes, is_wal, is_empty, encoding })
    }
}

/// Gives the database at `path` the image's contents; its owner, mode and journal mode stay.
pub(super) fn into_live(
    path: &Path,
    image: &Image,
    scratch: &Scratch,
    keep: Option<&Keep>,
    cx: &Cx,
) -> Result<Vec<String>> {
    let guard = Guard::new(cx);
    let what = format!("can't restore into {}", path.display());
    let fail = |error: rusqlite::Error| connect::explain(&error, &what, &guard);
    let live = match Live::open(path, &guard) {
        Ok(live) => live,
        Err(error) if connect::is_broken(&error) => {
            guard.check()?;
            return place::replace_broken(path, image, &connect::reason(&error), cx);
        }
        Err(error) => return Err(fail(error)),
    };
    let mut notes = Vec::new();
    // In WAL mode a page can't change its size.
    let source = if live.is_wal && live.page_bytes != image.header.page_bytes {
        notes.push(format!(
            "pages were changed from {} to {} bytes, which the live database has",
            image.header.page_bytes, live.page_bytes
        ));
        resized(image, live.page_bytes, scratch, &guard)?
    } else {
        image.path.clone()
    };
    let copy = connect::copy(&source, &guard).map_err(fail)?;
    let encoding = connect::pragma_text(&copy, "encoding").map_err(fail)?;
    if !live.is_empty && encoding != live.encoding {
        notes.push(format!("the text encoding changed to {encoding}; restart what has the database open"));
    }
    if let Some(keep) = keep.filter(|_| !live.is_empty) {
        keep.take()?;
    }
    cx.begins(Step::Swap, &format!("writing it into {}, in one transaction", path.display()));
    let becomes_wal = live.is_empty && image.header.is_wal;
    let mut db = live.db;
    let copied = snapshot::copy_pages(&copy, &mut db, &what, &guard);
    drop(db);
    copied.inspect_err(|_| {
        if roll_back(path, cx) {
            keep.iter().for_each(|keep| keep.untouched());
        }
    })?;
    notes.extend(afterwards(path, becomes_wal, &guard)?);
    Ok(notes)
}

/// After a copy that failed: on a full disk SQLite leaves the journal as it is, and what stood comes back when the next one
/// opens the database to write. That is done here, for others may only read, and the journal takes room. Whether what stood
/// stands again.
fn roll_back(path: &Path, cx: &Cx) -> bool {
    let guard = Guard::new(&for_cleanup(cx, CLEANUP));
    connect::live(path, &guard).and_then(|db| connect::begin_reading(&db)).is_ok()
}

/// A copy of the image with pages of another size. `VACUUM INTO` keeps rowids, and writes where it is told to, where a
/// plain `VACUUM` would use the system's folder for temporary files.
fn resized(image: &Image, page_bytes: u64, scratch: &Scratch, guard: &Guard) -> Result<PathBuf> {
    let what = format!("can't change the pages of the temporary copy to {page_bytes} bytes");
    let (path, _) = scratch.file("resized")?;
    let Some(name) = path.to_str() else {
        return Err(Error::new(Kind::Tool, format!("{what}: {} is not UTF-8", path.display()))
            .hint("give [backup] data_dir a path in UTF-8"));
    };
    let resize = || {
        let copy = connect::copy(&image.path, guard)?;
        copy.execute_batch(&format!("PRAGMA page_size={page_bytes}"))?;
        copy.execute("VACUUM INTO ?1", [name])?;
        connect::pragma_number(&connect::copy(&path, guard)?, "page_size")
    };
    match resize() {
        Ok(size) if size == page_bytes => Ok(path),
        Ok(size) => Err(Error::new(Kind::Tool, format!("{what}: they have {size}"))),
        Err(error) => Err(connect::explain(&error, &what, guard)
            .hint("stop the application, move the live database and its -wal away, and restore again")),
    }
}

/// Looks at what stands now through a fresh connection, as the application will see it. The restore is done, so nothing
/// but damage is an error any more: not a lock, a signal or the deadline.
fn afterwards(path: &Path, becomes_wal: bool, guard: &Guard) -> Result<Vec<String>> {
    let shown = path.display();
    let mut notes = Vec::new();
    let look = || {
        let db = connect::live(path, guard)?;
        connect::begin_reading(&db)?;
        let stays = becomes_wal && connect::pragma_text(&db, "journal_mode=WAL")? != "wal";
        let findings = match contents::run_check(&db, "quick_check", None) {
            Err(error) if connect::is_foreign(&error) => Vec::new(),
            other => other?,
        };
        checkpoint(&db);
        Ok((stays, findings))
    };
    match look() {
        Ok((stays, findings)) => {
            if let Some(damage) = findings.iter().find(|text| !contents::is_about_data(text)) {
                return Err(broke(path, damage));
            }
            if stays {
                notes.push(format!("{shown} was in WAL mode when it was backed up, and is not now"));
            }
        }
        Err(error) if connect::is_broken(&error) => return Err(broke(path, &connect::reason(&error))),
        Err(error) => {
            let error = connect::explain(&error, "the check of what stands now could not be finished", guard);
            notes.push(format!("{shown} was restored; {}", error.message));
        }
    }
    Ok(notes)
}

fn broke(path: &Path, damage: &str) -> Error {
    Error::new(Kind::Tool, format!("{} was restored, but is damaged: {damage}", path.display()))
        .hint("the backup itself is sound: look at the disk and the file system, then restore again")
}

/// Moves the WAL, which now holds the whole database, into the file, if nobody is in the way. Waits for nobody: a
/// truncating checkpoint that waits holds every writer up.
fn checkpoint(db: &Connection) {
    for kind in ["PASSIVE", "TRUNCATE"] {
        drop(db.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(())));
        if db.busy_timeout(Duration::ZERO).is_err() {
            return;
        }
    }
}
