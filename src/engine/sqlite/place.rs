//! Where an image can stand as a database of its own. Flows in: a path and a checked image. Flows out: a new file
//! there, never over another one, or a broken one moved aside. Touches the destination's folder.
//!
//! SQLite finds a `-wal` or `-journal` by the database's name and applies it to whatever bears that name: beside a file
//! it does not belong to, it overlays the data and the integrity check still says ok. So no file is ever put where such
//! a remnant lies, and none is ever renamed over a database.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::connect::Guard;
use super::restore::{Image, cannot_write};
use super::scratch::Scratch;
use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result, io_reason};
use crate::format::time;
use crate::pipeline::read_full;

/// What SQLite keeps beside a database.
const COMPANIONS: [&str; 3] = ["-wal", "-journal", "-shm"];
/// How much is copied at a time, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// What a restore in place finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// Nothing stands there.
    Free(PathBuf),
    /// A file stands there: its real path.
    Taken(PathBuf),
}

/// Looks at the place of the live database.
pub(super) fn look(live: &Path) -> Result<Site> {
    let shown = live.display();
    match fs::metadata(live) {
        Ok(meta) if meta.is_file() => {
            // A link's target is what SQLite opens, and where its journals lie.
            let real = fs::canonicalize(live).doing(Kind::Tool, format!("can't find the real path of {shown}"))?;
            Ok(Site::Taken(real))
        }
        Ok(_) => Err(Error::new(Kind::Tool, format!("{shown} is not a file")).hint("correct the url of the database")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(live) {
            Ok(_) => Err(Error::new(Kind::Tool, format!("{shown} is a symbolic link to a file that is not there"))
                .hint("remove the link, or make the folder it leads to and let the url name the file itself")),
            Err(_) => free(live).map(Site::Free),
        },
        Err(error) => Err(Error::from_io(error, Kind::Tool, format!("can't look at {shown}"))),
    }
}

/// Checks a path that a new database is to have.
pub(super) fn free_path(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Error::new(Kind::Usage, format!("--into {shown}: is not an absolute path"))
            .hint("for an sqlite database, --into takes the path of a new file, beginning with /"));
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::new(Kind::Tool, format!("{shown} exists already")).hint("give --into a path that is free"));
    }
    free(path)
}

/// The folder must be there, and no remnant of another database may bear the name.
fn free(path: &Path) -> Result<PathBuf> {
    let folder = path.parent().unwrap_or(path);
    if !folder.is_dir() {
        return Err(Error::new(
            Kind::Tool,
            format!("can't create {}: there is no folder {}", path.display(), folder.display()),
        )
        .hint("make the folder, owned by the user of the application"));
    }
    match companions(path).first() {
        None => Ok(path.to_owned()),
        Some(left) => {
            let message = format!(
                "{} is missing, but {} is there: SQLite would apply it to the restored database and spoil it",
                path.display(),
                left.display()
            );
            Err(Error::new(Kind::Tool, message).hint(
                "stop what uses the database; move the file away (it may hold the last transactions) and restore again",
            ))
        }
    }
}

/// What lies beside `path` under SQLite's names.
fn companions(path: &Path) -> Vec<PathBuf> {
    let all = COMPANIONS.iter().map(|ending| with_ending(path, ending));
    all.filter(|path| fs::symlink_metadata(path).is_ok()).collect()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the image the database at `path`, which is free.
pub(super) fn put_new(path: &Path, image: &Image, cx: &Cx) -> Result<Vec<String>> {
    let mut notes = Staged::new(path, image, cx)?.publish(path)?;
    notes.push(format!(
        "{} is new: mode 0600, owned by the user of this run; chown and chmod it if the application is another user",
        path.display()
    ));
    Ok(notes)
}

/// A complete, synced file in the folder where it is to stand: only on the same disk can it get its name at one stroke.
struct Staged {
    file: PathBuf,
    // Holds the file until it has its name.
    _scratch: Scratch,
}

impl Staged {
    fn new(path: &Path, image: &Image, cx: &Cx) -> Result<Self> {
        image.finish()?;
        let scratch = Scratch::new(path.parent().unwrap_or(path), cx)?;
        let file = stage(image, &scratch, &Guard::new(cx))?;
        Ok(Self { file, _scratch: scratch })
    }

    /// Gives it its name, never over another file.
    fn publish(self, path: &Path) -> Result<Vec<String>> {
        free(path)?;
        let fail = |error: &io::Error| {
            let failure = Error::new(Kind::Tool, format!("can't create {}: {}", path.display(), io_reason(error)));
            match error.kind() {
                io::ErrorKind::AlreadyExists => failure.hint(
                    "something made it while the backup was being loaded; stop the application and restore again",
                ),
                _ => failure,
            }
        };
        let file = tempfile::TempPath::try_from_path(&self.file).map_err(|error| fail(&error))?;
        file.persist_noclobber(path).map_err(|failure| fail(&failure.error))?;
        // It stands, so a failure from here on must not be taken for one.
        let synced = File::open(path.parent().unwrap_or(path)).and_then(|folder| folder.sync_all());
        Ok(synced
            .err()
            .map(|error| format!("the folder could not be synced: {}", io_reason(&error)))
            .into_iter()
            .collect())
    }
}

/// The image as a file in `scratch`, moved there or copied.
fn stage(image: &Image, scratch: &Scratch, guard: &Guard) -> Result<PathBuf> {
    let (path, mut to) = scratch.file("database")?;
    // Over an empty file of our own.
    if fs::rename(&image.path, &path).is_ok() {
        return Ok(path);
    }
    let mut from = File::open(&image.path).doing(Kind::Tool, format!("can't read {}", image.path.display()))?;
    let mut buffer = vec![0u8; COPY_BYTES];
    loop {
        guard.check()?;
        let count =
            read_full(&mut from, &mut buffer).doing(Kind::Tool, format!("can't read {}", image.path.display()))?;
        if count == 0 {
            break;
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(|error| cannot_write(&path, error))?;
    }
    to.sync_all().map_err(|error| cannot_write(&path, error))?;
    Ok(path)
}

/// Gives `path` another file's owner and mode, as far as this user may.
fn resemble(path: &Path, like: &Metadata) -> Option<String> {
    let owned = std::os::unix::fs::chown(path, Some(like.uid()), Some(like.gid()));
    // A file that stays ours must not become readable by those who could read the other one's.
    let moded = owned.and_then(|()| fs::set_permissions(path, Permissions::from_mode(like.mode() & 0o777)));
    let error = moded.err()?;
    Some(format!(
        "the restored file could not be given the owner {}:{} and the mode {:04o} of the old one ({}); chown and chmod it",
        like.uid(),
        like.gid(),
        like.mode() & 0o777,
        io_reason(&error)
    ))
}

/// Puts the image in the place of a file that SQLite can't open as a database. The broken one and its journals are kept
/// beside it under another name: something may still be saved from them, and only they hold what the backup lacks.
pub(super) fn replace_broken(path: &Path, image: &Image, why: &str, cx: &Cx) -> Result<Vec<String>> {
    let shown = path.display();
    let like = fs::metadata(path).doing(Kind::Tool, format!("can't look at {shown}"))?;
    let aside = with_ending(path, &format!(".broken-{}", time::compact(cx.world.clock.now())));
    // The database last: as long as it has its name, a run that is killed in between finds it broken and begins again.
    let mut moves: Vec<(PathBuf, PathBuf)> = Vec::new();
    for ending in COMPANIONS {
        let from = with_ending(path, ending);
        if fs::symlink_metadata(&from).is_ok() {
            moves.push((from, with_ending(&aside, ending)));
        }
    }
    moves.push((path.to_owned(), aside.clone()));
    let staged = Staged::new(path, image, cx)?;
    let mut notes = vec![format!(
        "{shown} could not be opened ({why}); it was kept as {} and a new file took its place",
        aside.display()
    )];
    notes.extend(resemble(&staged.file, &like));
    let mut moved = Moved::default();
    for (from, to) in moves {
        moved.rename(from, to)?;
    }
    notes.extend(staged.publish(path)?);
    moved.0.clear();
    notes.push("what still has the broken file open must be restarted".to_owned());
    Ok(notes)
}

/// Files that have been moved aside; they go back when this is dropped with them.
#[derive(Debug, Default)]
struct Moved(Vec<(PathBuf, PathBuf)>);

impl Moved {
    fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<()> {
        let failed = |why: &str| {
            Error::new(Kind::Tool, format!("can't move {} aside to {}: {why}", from.display(), to.display()))
        };
        if fs::symlink_metadata(&to).is_ok() {
            return Err(failed("that name is taken"));
        }
        fs::rename(&from, &to).map_err(|error| failed(&io_reason(&error)))?;
        self.0.push((from, to));
        Ok(())
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (from, to) in self.0.drain(..).rev() {
            // If something has taken the name meanwhile, or the move fails, it is better left under its other name.
            if fs::symlink_metadata(&from).is_err() {
                drop(fs::rename(to, from));
            }
        }
    }
}
