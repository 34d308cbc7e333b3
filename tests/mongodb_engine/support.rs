//! What the tests of MongoDB have in common: databases of their own at the real server, asked through its shell.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use voxeltron_backup::engine::{
    Counts, Cx, Destination, Engine, Findings, Inspected, Request, Restored, Settings, kind,
};
use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::World;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Prints all that a database is: every document in canonical form, every index, what is said of every collection. What
/// FerretDB itself chooses for an index (`storageEngine`) is left out: it depends on the indexes made together with it.
const ALL: &str = "const all = (name) => {
    const d = db.getSiblingDB(name), hash = require('crypto').createHash('sha256'), lines = [];
    for (const it of d.getCollectionInfos().sort((a, b) => a.name < b.name ? -1 : 1)) {
        const c = d.getCollection(it.name);
        const digest = require('crypto').createHash('sha256');
        let count = 0;
        for (const one of c.find().sort({_id: 1}).toArray()) { digest.update(EJSON.stringify(one, {relaxed: false})); count++; }
        const indexes = c.getIndexes().map(({storageEngine, ...one}) => EJSON.stringify(one, {relaxed: false})).sort();
        lines.push([it.name, it.type, EJSON.stringify(it.options), count, digest.digest('hex')].concat(indexes).join('\\n    '));
    }
    return lines.join('\\n');
};";

pub fn var(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: these tests want real servers and are never skipped"))
}

/// The folder of mongosh, mongodump and mongorestore.
pub fn tools() -> PathBuf {
    var("VOXELTRON_TEST_MONGO_TOOLS").into()
}

/// `mongodb://user:password@host:port`.
pub fn base() -> String {
    var("VOXELTRON_TEST_MONGODB_URL").trim_end_matches('/').to_owned()
}

pub fn password() -> String {
    base().split_once("//tests:").unwrap().1.split_once('@').unwrap().0.to_owned()
}

pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// What the shell prints after `script` has run, with `db` the server's own database.
pub fn try_js(script: &str) -> std::result::Result<String, String> {
    let mut shell = Command::new(tools().join("mongosh"));
    shell.args(["--quiet", "--norc", "--nodb", "--eval", "load('/dev/stdin'); void 0"]);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let script = format!("const db = connect('{}/admin');\n{ALL}\n{script}", base());
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(stdin.write_all(script.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{said}\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[track_caller]
pub fn js(script: &str) -> String {
    try_js(script).unwrap_or_else(|error| panic!("{error}"))
}

pub fn cx() -> Cx {
    Cx {
        world: World::system(),
        report: Report::capturing(Style::default()),
        data_dir: std::env::temp_dir(),
        deadline: None,
    }
}

pub fn open(settings: Settings) -> Box<dyn Engine> {
    (kind("mongodb").unwrap().open)(settings).unwrap()
}

/// A database that is gone after the test, with those that are called like it.
pub struct Database {
    pub name: String,
}

impl Database {
    pub fn named(label: &str) -> Self {
        Self { name: format!("vx{}_{}{label}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst)) }
    }

    /// With these collections: `d` is the database.
    pub fn with(label: &str, script: &str) -> Self {
        let this = Self::named(label);
        this.js(script);
        this
    }

    /// Three collections with some documents and an index.
    pub fn small(label: &str) -> Self {
        Self::with(
            label,
            "d.a.insertMany([...Array(2000).keys()].map((i) => ({_id: i, v: 'old', t: 'x'.repeat(200)})));
             d.b.insertMany([{_id: 1, v: 'old'}, {_id: 2}]); d.a.createIndex({v: 1, _id: -1}); d.c.insertOne({_id: 1, v: 'old'});",
        )
    }

    #[track_caller]
    pub fn js(&self, script: &str) -> String {
        js(&format!("const d = db.getSiblingDB({:?});\n{script}", self.name))
    }

    #[track_caller]
    pub fn all(&self) -> String {
        js(&format!("print(all({:?}))", self.name))
    }

    pub fn url(&self) -> String {
        format!("{}/{}?authSource=admin", base(), percent(&self.name))
    }

    pub fn settings(&self) -> Settings {
        Settings { tools_dir: Some(tools()), ..Settings::new("mydb", Secret::new(self.url())) }
    }

    /// With the tools of that folder.
    pub fn through(&self, folder: &Path) -> Box<dyn Engine> {
        open(Settings { tools_dir: Some(folder.to_owned()), ..self.settings() })
    }

    pub fn engine(&self) -> Box<dyn Engine> {
        open(self.settings())
    }

    pub fn backup(&self) -> (Vec<u8>, Findings) {
        dump(self.engine().as_ref()).unwrap()
    }

    /// Nothing of a restore is left: no collection, no database.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = self.js(
            "print(d.getCollectionNames().filter((n) => n.startsWith('__restoring_')).concat(db.adminCommand({listDatabases: 1, \
             nameOnly: true}).databases.map((i) => i.name).filter((n) => n.startsWith(d.getName() + '__'))).join(' '))",
        );
        assert_eq!(left, "");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = try_js(&format!(
            "for (const it of db.adminCommand({{listDatabases: 1, nameOnly: true}}).databases)
                 if (it.name.startsWith({:?})) db.getSiblingDB(it.name).dropDatabase();",
            self.name
        ));
    }
}

pub fn inspected<R: Read>(stream: R) -> Inspected<R> {
    Inspected::new(stream, (kind("mongodb").unwrap().inspector)())
}

pub fn inspect(bytes: &[u8]) -> Result<Findings> {
    let mut stream = inspected(bytes);
    io::copy(&mut stream, &mut io::sink()).map_err(|error| Error::from_io(error, Kind::Other, "test"))?;
    Ok(stream.findings().take().expect("findings after a good end"))
}

pub fn dump(engine: &dyn Engine) -> Result<(Vec<u8>, Findings)> {
    let mut stream = inspected(engine.dump(&cx())?.stream);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| Error::from_io(error, Kind::Other, "test"))?;
    let findings = stream.findings().take().expect("findings after a good end");
    Ok((bytes, findings))
}

pub fn restore(engine: &dyn Engine, dump: impl Read, destination: Destination, expected: &Counts) -> Result<Restored> {
    let request = Request::new(destination, expected.clone());
    engine.restore(&mut inspected(dump), &request, &cx())
}

/// Gives `left` bytes and then an error, as a backup does whose last segment has a bad tag.
pub struct Failing<R> {
    pub inner: R,
    pub left: usize,
}

impl<R: Read> Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.left.min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count;
        if count == 0 {
            return Err(Error::new(Kind::Authentication, "segment 1 does not authenticate").into_io());
        }
        Ok(count)
    }
}

/// A folder of tools in which these scripts stand for some of them; `$real` is the folder of the real ones.
pub fn fake_tools(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let real = tools();
    for name in ["mongosh", "mongodump", "mongorestore"] {
        let path = folder.path().join(name);
        match scripts.iter().find(|(script, _)| *script == name) {
            None => std::os::unix::fs::symlink(real.join(name), path).unwrap(),
            Some((_, script)) => {
                let text = format!(
                    "#!/bin/sh\nreal={}\nhere={}\ncase \"$*\" in --version) exec $real/{name} --version;; esac\n{script}\n",
                    real.display(),
                    folder.path().display()
                );
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
    }
    folder
}

/// Runs a restore that must fail, and looks that nothing has changed and nothing is left.
#[track_caller]
pub fn fails_and_changes_nothing(db: &Database, engine: &dyn Engine, dump: impl Read, expected: &Counts) -> Error {
    let before = db.all();
    let error = restore(engine, dump, Destination::InPlace, expected).expect_err("it must fail");
    assert_eq!(before, db.all());
    db.assert_nothing_left();
    error
}

/// An archive of one collection, made by hand: its metadata and its documents as they are.
pub fn archive(database: &str, server: &str, metadata: &str, documents: &[Vec<u8>]) -> Vec<u8> {
    let crc = crc::Crc::<u64>::new(&crc::CRC_64_XZ);
    let sum = crc.checksum(&documents.concat());
    let block = |eof: bool, sum: u64| {
        let end = [&b"\x08EOF\0"[..], &[u8::from(eof)], b"\x12CRC\0", &sum.to_le_bytes()].concat();
        bson(&[text("db", database), text("collection", "a"), end].concat())
    };
    [
        0x8199_e26d_u32.to_le_bytes().to_vec(),
        bson(&[text("version", "0.1"), text("server_version", server), text("tool_version", "100.18.0")].concat()),
        bson(
            &[text("db", database), text("collection", "a"), text("metadata", metadata), text("type", "collection")]
                .concat(),
        ),
        vec![0xff; 4],
        block(false, 0),
        documents.concat(),
        vec![0xff; 4],
        block(true, sum),
        vec![0xff; 4],
    ]
    .concat()
}

pub fn text(name: &str, value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len() + 1).unwrap().to_le_bytes();
    [b"\x02", name.as_bytes(), b"\0", &length, value.as_bytes(), b"\0"].concat()
}

pub fn int(name: &str, value: i32) -> Vec<u8> {
    [b"\x10", name.as_bytes(), b"\0", &value.to_le_bytes()].concat()
}

pub fn bson(fields: &[u8]) -> Vec<u8> {
    let length = u32::try_from(fields.len() + 5).unwrap().to_le_bytes();
    [&length, fields, b"\0"].concat()
}
