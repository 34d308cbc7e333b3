//! Small private files of the data folder. Flows in: bytes. Flows out: files that are either the old ones or the new
//! ones, 0600, in folders, 0700. Touches the data folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Whether a file must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// Yes.
    Yes,
    /// No: whoever reads it can do without.
    No,
}

/// Makes a folder and what is missing above it.
///
/// # Errors
/// When it can't be made.
pub fn make_folder(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed("create the folder", folder, error))
}

/// Opens a file to lock it; its content is left as it is.
///
/// # Errors
/// When it can't be opened or created.
pub fn open_lock(path: &Path) -> Result<File> {
    // In a folder that others can write to, a link of theirs would make us empty a file of ours.
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let opened = options.open(path);
    opened.map_err(|error| failed("open", path, error))
}

/// The content of a file; `None` if there is none. At most `most` bytes and one more, which tells that it is longer.
///
/// # Errors
/// When it is there and can't be read.
pub fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, error)),
    }
}

/// Puts a file in the place of another. Two writers of one name must not meet: the callers hold a lock, or don't mind.
///
/// # Errors
/// When it can't be written; then the old one stands.
pub fn replace(folder: &Path, name: &str, bytes: &[u8], durable: Durable) -> Result<()> {
    let (path, fresh) = (folder.join(name), folder.join(format!("{name}.new")));
    let write = || {
        // What a killed run left may have any mode.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        if durable == Durable::Yes {
            file.sync_all()?;
        }
        fs::rename(&fresh, &path)?;
        if durable == Durable::Yes {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|error| failed("write", &path, error))
}

/// An error that names the file and, where it is a matter of rights or room, the mend.
pub fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let kind = error.kind();
    let failure = Error::from_io(error, Kind::Other, format!("can't {what} {}", path.display()));
    match kind {
        io::ErrorKind::PermissionDenied => {
            failure.hint("run it as the user whom data_dir belongs to, or set data_dir in [backup]")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            failure.hint("mount it for writing, or allow the path in the unit's ReadWritePaths")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure.hint("make room there"),
        _ => failure,
    }
}
