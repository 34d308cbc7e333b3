//! SQLite, built in: no tool is run. Flows in: a URL that is a path. Flows out: the database's own image as a dump, and
//! a restored database. Touches the database's file through SQLite, and `data_dir` for temporary copies.
//!
//! - [`snapshot`]: a consistent image while others write.
//! - [`image`]: whether an image is whole.
//! - [`restore`]: into a private copy, checked; then [`swap`] into the live file or [`place`] as a new one.
//! - [`contents`]: counts and checks; [`connect`]: connections and errors; [`scratch`]: temporary folders.

mod connect;
mod contents;
mod image;
mod place;
mod restore;
mod scratch;
mod snapshot;
mod swap;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use self::connect::Guard;
pub use self::scratch::sweep;
use super::{Cx, Destination, Dump, Engine, EngineKind, Probe, Request, Restored, Settings};
use crate::error::{Error, Kind, Result};

/// SQLite.
pub const KIND: EngineKind = EngineKind {
    name: "sqlite",
    ending: "sqlite",
    schemes: &["sqlite"],
    image: None,
    summary: crate::engine::summary_of_tables,
    inspector: image::inspector,
    open: |settings| Ok(Box::new(Sqlite::new(&settings)?)),
};

/// One database file.
#[derive(Debug)]
struct Sqlite {
    path: PathBuf,
}

impl Sqlite {
    fn new(settings: &Settings) -> Result<Self> {
        let wrong = |key: &str, why: &str, hint: &str| {
            Error::new(Kind::Config, format!("databases.{}: {key}: {why}", settings.database)).hint(hint)
        };
        let built_in = "sqlite is built in and runs no tool";
        for (key, given) in [
            ("dump_args", !settings.dump_args.is_empty()),
            ("restore_args", !settings.restore_args.is_empty()),
            ("tools_dir", settings.tools_dir.is_some()),
            ("exec", !settings.exec.is_empty()),
        ] {
            if given {
                return Err(wrong(key, built_in, &format!("remove {key}")));
            }
        }
        if settings.password.is_some() {
            return Err(wrong("password", "sqlite is built in and a file has no password", "remove password"));
        }
        let path = path_of(settings.url.expose()).map_err(|(why, hint)| wrong("url", why, hint))?;
        Ok(Self { path })
    }

    /// What can be said about the file without opening it.
    fn look(&self) -> Result<()> {
        let shown = self.path.display();
        let fail = |why: &str| Error::new(Kind::Tool, format!("sqlite database {shown} {why}"));
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(fail("does not exist")
                    .hint("correct the url of the database, or let the application create it first"))
            }
            Err(error) => Err(Error::from_io(error, Kind::Tool, format!("can't look at sqlite database {shown}"))),
            Ok(meta) if meta.is_dir() => Err(fail("is a folder").hint("let the url name the database file in it")),
            Ok(meta) if !meta.is_file() => Err(fail("is not a file").hint("correct the url of the database")),
            // SQLite takes it for a database without tables; a backup of that hides that the data is gone.
            Ok(meta) if meta.len() == 0 => Err(fail("is empty, not a database")
                .hint("is the path right? let the application create its tables, or restore a backup")),
            Ok(_) => Ok(()),
        }
    }
}

/// Takes the path out of `sqlite:///absolute/path` or `sqlite:/absolute/path`.
fn path_of(url: &str) -> Result<PathBuf, (&'static str, &'static str)> {
    const FORM: &str = "write it as sqlite:///absolute/path/to/file.db";
    let rest = url.split_once(':').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("sqlite")).map(|(_, rest)| rest);
    let rest = rest.ok_or(("is not a sqlite URL", FORM))?;
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some("") => return Err(("names no file", FORM)),
        Some(_) => return Err(("names a host or a relative path where an absolute path must stand", FORM)),
        None => rest,
    };
    if path.contains(['?', '#']) {
        return Err(("has parameters, which sqlite does not take", "in a path, write ? as %3F and # as %23"));
    }
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    if bytes.contains(&0) {
        return Err(("has a NUL byte (%00) in its path", FORM));
    }
    let path = PathBuf::from(OsStr::from_bytes(&bytes));
    match path.is_absolute() {
        true if path.file_name().is_some() => Ok(path),
        true => Err(("names no file", FORM)),
        false => Err(("is not an absolute path", FORM)),
    }
}

impl Engine for Sqlite {
    fn describe(&self) -> String {
        format!("sqlite {}", self.path.display())
    }

    fn probe(&self, cx: &Cx) -> Result<Probe> {
        self.look()?;
        let guard = Guard::new(cx);
        let what = format!("can't read sqlite database {}", self.path.display());
        let fail = |error: rusqlite::Error| connect::explain(&error, &what, &guard);
        let db = connect::live(&self.path, &guard).map_err(fail)?;
        connect::begin_reading(&db).map_err(fail)?;
        let is_wal = connect::pragma_text(&db, "journal_mode").map_err(fail)? == "wal";
        let mut warnings = Vec::new();
        let real = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = real.parent().unwrap_or(&real);
        if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
            warnings.push(format!(
                "{} is not writable: WAL mode and the recovery of a crashed writer need it; look at its owner, or at ReadWritePaths",
                folder.display()
            ));
        }
        if is_wal && !snapshot::can_stream(&db).map_err(fail)? {
            warnings.push(format!(
                "this build can't stream pages (SQLITE_ENABLE_DBPAGE_VTAB): each dump makes a temporary copy in {}",
                cx.data_dir.display()
            ));
        }
        Ok(Probe { tool_version: Some(rusqlite::version().to_owned()), server_version: None, warnings })
    }

    fn dump(&self, cx: &Cx) -> Result<Dump> {
        self.look()?;
        // A dump in WAL mode makes no temporary copy, so it is here that a killed restore's are found again.
        sweep(&cx.data_dir, cx);
        if let Some(folder) = self.path.parent() {
            sweep(folder, cx);
        }
        snapshot::take(&self.path, cx)
    }

    fn live_bytes(&self) -> Option<u64> {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        let size = |path: &std::path::Path| fs::metadata(path).map_or(0, |meta| meta.len());
        Some(size(&self.path).saturating_add(size(std::path::Path::new(&wal))))
    }

    fn plan(&self, destination: &Destination) -> Vec<String> {
        let mut steps = vec![
            "write the image into a temporary file (0600, in data_dir)".to_owned(),
            "PRAGMA integrity_check, PRAGMA foreign_key_check; count the rows of every table and compare".to_owned(),
        ];
        let live = self.path.display();
        match destination {
            Destination::InPlace => steps.extend([
                format!("copy it into {live} by SQLite's backup API, in one transaction: open handles keep working"),
                format!(
                    "(if {live} is missing, create it; if it can't be opened, keep it as {live}.broken-TIME first)"
                ),
                format!("PRAGMA quick_check and PRAGMA wal_checkpoint on {live}"),
            ]),
            Destination::Into(path) => steps.push(format!("create {path} from it (0600), never over another file")),
            Destination::Drill => {}
        }
        steps.push("remove the temporary file".to_owned());
        steps
    }

    fn restore(&self, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
        let mut watched = Watched { inner: dump, failed: false };
        restore::restore(&self.path, &mut watched, request, cx).map_err(|error| {
            match error.is_stopped() || watched.failed {
                true => error,
                false => error.while_doing(self.describe()),
            }
        })
    }
}

/// Knows whether the stream itself has failed: its error is not this database's.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    failed: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.inner.read(buffer);
        self.failed |= outcome.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn settings(url: &str) -> Settings {
        Settings::new("shop", Secret::new(url))
    }

    #[test]
    fn urls_name_absolute_paths() {
        for (url, path) in [
            ("sqlite:///var/lib/a.db", "/var/lib/a.db"),
            ("sqlite:/var/lib/a.db", "/var/lib/a.db"),
            ("SQLite:////a.db", "//a.db"),
            ("sqlite:///a%20b%25%3F%23%C3%A9.db", "/a b%?#é.db"),
            ("sqlite:///ü ber.db", "/ü ber.db"),
        ] {
            assert_eq!(path_of(url).unwrap().to_str(), Some(path), "{url}");
        }
        let bytes = path_of("sqlite:///%FF.db").unwrap();
        assert_eq!(bytes.as_os_str().as_bytes(), b"/\xff.db");
    }

    #[test]
    fn other_urls_are_refused_with_a_hint() {
        for url in [
            "",
            "sqlite",
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "sqlite:a.db",
            "sqlite://a.db",
            "sqlite://host/a.db",
            "sqlite:///a.db?mode=ro",
            "sqlite:///a#b",
            "sqlite:///a%00b",
            "postgres:///a.db",
            "sqlite:./a.db",
            "/a.db",
        ] {
            let error = Sqlite::new(&settings(url)).unwrap_err();
            assert!(error.kind == Kind::Config && error.hint.is_some(), "{url}: {error}");
            assert!(error.message.starts_with("databases.shop: url: "), "{error}");
        }
    }

    #[test]
    fn what_is_for_tools_is_refused() {
        let plain = settings("sqlite:///a.db");
        for (settings, key) in [
            (Settings { dump_args: vec!["-x".into()], ..plain.clone() }, "dump_args"),
            (Settings { restore_args: vec!["-x".into()], ..plain.clone() }, "restore_args"),
            (Settings { tools_dir: Some("/opt".into()), ..plain.clone() }, "tools_dir"),
            (Settings { password: Some(Secret::new("canary")), ..plain.clone() }, "password"),
        ] {
            let error = Sqlite::new(&settings).unwrap_err();
            assert_eq!(error.kind, Kind::Config);
            assert!(error.message.contains(&format!("{key}: sqlite is built in")), "{error}");
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[test]
    fn the_plan_says_what_is_touched() {
        let engine = Sqlite::new(&settings("sqlite:///srv/a.db")).unwrap();
        assert!(
            engine
                .plan(&Destination::InPlace)
                .iter()
                .any(|step| step.contains("into /srv/a.db by SQLite's backup API"))
        );
        assert!(
            engine.plan(&Destination::Into("/srv/b.db".into())).iter().any(|step| step.contains("create /srv/b.db"))
        );
        assert!(!engine.plan(&Destination::Drill).iter().any(|step| step.contains("/srv/a.db")));
    }
}
