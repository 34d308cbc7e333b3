//! A restore: the image goes into a private temporary copy, is checked and counted there, and only then takes its
//! place. Flows in: the dump. Flows out: what was counted, what the operator should know. Touches `data_dir`, and the
//! destination once everything holds.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::connect::{self, Guard};
use super::image::{self, HEADER_BYTES, Header};
use super::place::{self, Site};
use super::scratch::Scratch;
use super::{contents, swap};
use crate::engine::{Cx, Destination, Request, Restored, Step, checks};
use crate::error::{Error, Kind, Result, io_reason};

/// How much is copied at a time, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// A checked image in a temporary file that nobody else has. Its header says rollback journal, so that SQLite makes no
/// other files beside it and whatever it is copied into keeps its own mode.
#[derive(Debug)]
pub(super) struct Image {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What its header said.
    pub(super) header: Header,
}

impl Image {
    /// Puts the journal's mode back and brings it to the disk, before it becomes a database of its own.
    pub(super) fn finish(&self) -> Result<()> {
        let fail = |error| Error::from_io(error, Kind::Tool, format!("can't write {}", self.path.display()));
        let file = File::options().write(true).open(&self.path).map_err(fail)?;
        let (at, bytes) = image::versions(self.header.is_wal);
        file.write_all_at(&bytes, at).and_then(|()| file.sync_all()).map_err(fail)
    }
}

/// Restores `dump` into what `request` says; `live` is the database of the configuration.
pub(super) fn restore(live: &Path, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
    let guard = Guard::new(cx);
    // What can't work is said before gigabytes are fetched.
    let site = match &request.destination {
        Destination::InPlace => Some(place::look(live)?),
        Destination::Into(path) => Some(Site::Free(place::free_path(Path::new(path))?)),
        Destination::Drill => None,
    };
    if let (Some(Site::Taken(_)), Some(keep)) = (&site, &request.keep) {
        keep.room()?;
    }
    let scratch = Scratch::new(&cx.data_dir, cx)?;
    request.begins(Step::Load, &format!("reading the database into {}", cx.data_dir.display()), cx);
    let image = receive(dump, &scratch, &guard)?;
    request.begins(Step::Check, "checking its structure, and comparing its rows with the backup", cx);
    let mut restored = checked(&image, request, &guard)?;
    let notes = match site {
        None => Vec::new(),
        Some(Site::Free(path)) => {
            cx.begins(Step::Swap, &format!("writing it to {}", path.display()));
            place::put_new(&path, &image, cx)?
        }
        Some(Site::Taken(path)) => swap::into_live(&path, &image, &scratch, request.keep.as_ref(), cx)?,
    };
    restored.notes.extend(notes);
    Ok(restored)
}

/// Writes the stream into the temporary file. It must end well and be whole.
fn receive(dump: &mut dyn Read, scratch: &Scratch, guard: &Guard) -> Result<Image> {
    let (path, mut file) = scratch.file("image")?;
    let mut inspector = image::inspector();
    let mut start = Vec::with_capacity(HEADER_BYTES);
    let mut buffer = vec![0u8; COPY_BYTES];
    loop {
        guard.check()?;
        let bytes = match dump.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::from_io(error, Kind::Tool, "can't read the backup")),
        };
        inspector.feed(bytes)?;
        start.extend(bytes.iter().take(HEADER_BYTES.saturating_sub(start.len())));
        file.write_all(bytes).map_err(|error| cannot_write(&path, error))?;
    }
    inspector.finish()?;
    let header = Header::read(&start)?;
    let (at, bytes) = image::versions(false);
    file.write_all_at(&bytes, at).map_err(|error| cannot_write(&path, error))?;
    Ok(Image { path, header })
}

/// A write that failed, with the mend for a full disk.
pub(super) fn cannot_write(path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    let failure = Error::new(Kind::Tool, format!("can't write {}: {}", path.display(), io_reason(&error)));
    if !full {
        return failure;
    }
    let folder = path.parent().unwrap_or(path).parent().unwrap_or(path);
    failure
        .hint(format!("make room on the disk of {}: a restore needs the space of the whole database", folder.display()))
}

/// Checks the image's structure and compares its counts.
fn checked(image: &Image, request: &Request, guard: &Guard) -> Result<Restored> {
    let what = "the backup's database";
    let fail = |error: rusqlite::Error| contents::unreadable(&error, what, guard);
    let copy = connect::copy(&image.path, guard).map_err(fail)?;
    let mut notes = contents::check(&copy, what, guard)?;
    let counts = contents::count(&copy).map_err(fail)?;
    notes.extend(contents::compare(&request.expected, &counts)?);
    if request.destination == Destination::Drill {
        checks::run(&request.checks, &mut |check| contents::answer(&copy, check.text()?, guard))?;
    }
    Ok(Restored { counts, notes, missing: Vec::new() })
}
