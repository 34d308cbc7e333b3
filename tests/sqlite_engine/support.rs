//! What every test needs: a folder, a database in it, the engine, and the `sqlite3` tool as a judge.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use voxeltron_backup::engine::{
    Counts, Cx, Destination, Engine, Findings, Inspected, Request, Restored, Settings, kind,
};
use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::report::Report;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::World;

/// A folder with the live database and a `data_dir`.
pub struct Bench {
    folder: tempfile::TempDir,
    pub live: PathBuf,
    pub cx: Cx,
}

impl Bench {
    /// With a database of this name, made by these statements.
    pub fn named(name: &str, sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("app")).unwrap();
        let live = folder.path().join("app").join(name);
        let cx = Cx {
            world: World::system(),
            report: Report::default(),
            data_dir: folder.path().join("data"),
            deadline: None,
        };
        let bench = Self { folder, live, cx };
        bench.execute(sql);
        bench
    }

    pub fn new(sql: &str) -> Self {
        Self::named("live.db", sql)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn execute(&self, sql: &str) {
        Connection::open(&self.live).unwrap().execute_batch(sql).unwrap();
    }

    pub fn engine(&self) -> Box<dyn Engine> {
        engine(&url(&self.live)).unwrap()
    }

    /// A whole dump, seen by the inspector.
    pub fn dump(&self) -> Result<(Vec<u8>, Counts, Findings)> {
        let dump = self.engine().dump(&self.cx)?;
        let mut stream = Inspected::new(dump.stream, (kind("sqlite").unwrap().inspector)());
        let mut image = Vec::new();
        stream.read_to_end(&mut image).map_err(|error| Error::from_io(error, Kind::Other, "test"))?;
        Ok((image, dump.counts, stream.findings().take().unwrap()))
    }

    pub fn restore(&self, image: &[u8], destination: Destination, expected: &Counts) -> Result<Restored> {
        self.restore_from(&mut &*image, destination, expected)
    }

    pub fn restore_from(&self, stream: &mut dyn Read, destination: Destination, expected: &Counts) -> Result<Restored> {
        let mut inspected = Inspected::new(stream, (kind("sqlite").unwrap().inspector)());
        self.restore_unseen(&mut inspected, destination, expected)
    }

    /// Without an inspector before the engine, which has to look for itself.
    pub fn restore_unseen(&self, stream: &mut dyn Read, destination: Destination, counts: &Counts) -> Result<Restored> {
        let request = Request::new(destination, counts.clone());
        let outcome = self.engine().restore(stream, &request, &self.cx);
        self.assert_no_leftovers();
        outcome
    }

    /// No temporary file, wherever one may have been.
    pub fn assert_no_leftovers(&self) {
        for folder in [self.cx.data_dir.as_path(), self.live.parent().unwrap(), self.folder.path()] {
            for name in names(folder) {
                assert!(!name.contains("voxeltron"), "left in {}: {name}", folder.display());
            }
        }
        assert_eq!(names(&self.cx.data_dir), Vec::<String>::new());
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn engine(url: &str) -> Result<Box<dyn Engine>> {
    (kind("sqlite").unwrap().open)(Settings::new("shop", Secret::new(url)))
}

/// The path as a URL, everything encoded that may be.
pub fn url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let encoded: String = path
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'/' | b'.' | b'a'..=b'z' | b'0'..=b'9' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("sqlite://{encoded}")
}

/// Runs the tool on a database. It must be there: a test that can't be judged has failed.
pub fn sqlite3(path: &Path, commands: &str) -> String {
    let mut tool = Command::new("sqlite3")
        .arg("-bail")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the sqlite3 command line tool must be on the PATH");
    tool.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "sqlite3 {}: {commands}: {errors}", path.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything the tool can see of a database but the way it is kept on the disk.
pub fn contents(path: &Path) -> String {
    sqlite3(
        path,
        ".timeout 20000\nPRAGMA integrity_check;\nPRAGMA encoding;\nPRAGMA application_id;\nPRAGMA user_version;\n\
         PRAGMA auto_vacuum;\n.sha3sum --schema\n.dump\n",
    )
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Rows enough for `megabytes`, of bytes that don't compress.
pub fn fill(table: &str, kilobytes: u32) -> String {
    format!(
        "CREATE TABLE {table}(id INTEGER PRIMARY KEY, b BLOB);
         INSERT INTO {table}(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{kilobytes})
         SELECT randomblob(1000) FROM n;"
    )
}

/// A stream that gives some bytes, then fails or ends.
pub struct Broken<'a> {
    pub bytes: &'a [u8],
    pub error: Option<Error>,
}

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match (self.bytes.read(buffer)?, &self.error) {
            (0, Some(error)) => Err(error.clone().into_io()),
            (count, _) => Ok(count),
        }
    }
}

/// A file system of its own, that ends with this.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Only root may mount one.
    pub fn new(path: &Path, kilobytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "none"]).arg(path).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
