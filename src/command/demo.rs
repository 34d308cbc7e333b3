//! `demo`: the whole work on a small SQLite database, by the very commands that do it in earnest. Flows in: a folder, or
//! none for one that goes again. Flows out: what each step said, and whether the data came back. Touches that folder.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Done, list, restore, run_job, verify};
use crate::app::App;
use crate::cli::{DemoArgs, ListArgs, RestoreArgs, RunJobArgs, VerifyArgs, Which};
use crate::config::Config;
use crate::error::{Context, Error, Kind, Result};
use crate::format::hex;
use crate::format::key::{KEY_BYTES, Key};
use crate::report::Report;
use crate::world::{Vars, World};

/// How many rows the database gets.
const ROWS: u32 = 10_000;
/// Its name in the configuration.
const DATABASE: &str = "shop";

/// One step, for programs.
#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    ok: bool,
}

/// Goes through all steps, and fails if one of them does not do what it should.
///
/// # Errors
/// The first step's that fails.
pub fn run(args: &DemoArgs, world: &World, report: &Report) -> Result<Done> {
    // It goes again when it is dropped, unless a folder was named.
    let temporary = match args.dir {
        Some(_) => None,
        None => Some(tempfile::tempdir().doing(Kind::Other, "can't create a temporary folder")?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => named(dir)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Error::other("there is no folder for the demo")),
    };
    let demo = Demo::set_up(&dir, world, report)?;
    let steps = demo.play()?;
    if args.dir.is_some() {
        let config = demo.path("config.toml");
        report.note(&format!("configuration, key and backups stay in {}; go on with:", dir.display()));
        report.note(&format!("  voxeltron-backup --config {} list", config.display()));
    }
    Done::well().with("dir", &args.dir)?.with("steps", &steps)
}

/// A folder that is new or empty, by its absolute path.
fn named(dir: &Path) -> Result<PathBuf> {
    let what = format!("can't use {}", dir.display());
    fs::create_dir_all(dir).doing(Kind::Other, &what)?;
    if fs::read_dir(dir).doing(Kind::Other, &what)?.next().is_some() {
        return Err(Error::new(Kind::Usage, format!("{} is not empty", dir.display())).hint("name a new folder"));
    }
    dir.canonicalize().doing(Kind::Other, what)
}

struct Demo {
    dir: PathBuf,
    app: App,
}

fn sqlite(error: rusqlite::Error) -> Error {
    Error::other(format!("the demo's database: {error}"))
}

impl Demo {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes key, configuration and database.
    fn set_up(dir: &Path, world: &World, report: &Report) -> Result<Self> {
        let mut bytes = [0u8; KEY_BYTES];
        world.random.fill(&mut bytes)?;
        write_private(&dir.join("key"), Key::new(bytes).to_base64().as_bytes())?;
        let path = dir.join("config.toml");
        let text = configuration(dir);
        write_private(&path, text.as_bytes())?;
        // The environment is the operator's own, and nothing of it is meant for the demo.
        let config = Config::parse(&path, &text, &Vars::default(), &crate::app::defaults())?;
        let demo = Self { dir: dir.to_owned(), app: App::new(config, world, report) };
        demo.fill().map_err(sqlite)?;
        Ok(demo)
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        Connection::open(self.path("shop.db"))
    }

    fn fill(&self) -> rusqlite::Result<()> {
        let mut connection = self.open()?;
        connection.execute_batch(
            "pragma journal_mode = wal;
             create table customer (id integer primary key, name text not null, photo blob);
             create table bill (id integer primary key, customer integer references customer, cents integer);",
        )?;
        let all = connection.transaction()?;
        for id in 1..=ROWS {
            all.execute("insert into customer values (?1, 'Customer ' || ?1 || ' Ünï 💾', randomblob(32))", [id])?;
            all.execute("insert into bill values (?1, ?1, ?1 * 7 % 10007)", [id])?;
        }
        all.commit()
    }

    /// A digest of every row of every table, made by the database itself.
    fn digest(&self) -> Result<String> {
        let connection = self.open().map_err(sqlite)?;
        let mut digest = Sha256::new();
        for table in ["customer", "bill"] {
            let mut rows = connection
                .prepare(&format!(
                    "select quote(t.id) || quote(t.{}) from {table} t order by id",
                    if table == "bill" { "cents" } else { "photo" }
                ))
                .map_err(sqlite)?;
            let mut rows = rows.query([]).map_err(sqlite)?;
            while let Some(row) = rows.next().map_err(sqlite)? {
                digest.update(row.get::<_, String>(0).map_err(sqlite)?);
            }
        }
        Ok(hex(&digest.finalize()))
    }

    fn say(&self, text: &str) {
        self.app.cx.report.note(&format!("\n# {text}"));
    }

    fn play(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        let mut done = |step| steps.push(Step { step, ok: true });
        // The steps' own documents would make more than one; the demo's is the one that counts.
        let before = self.digest()?;
        self.say("back up: dump, gzip, AES-256-GCM, to a folder");
        ended(run_job::run(&self.app, &RunJobArgs { jobs: vec![DATABASE.to_owned()], ..Default::default() })?)?;
        done("back up");

        self.say("list");
        ended(list::run(&self.app, &ListArgs::default())?)?;
        done("list");

        self.say("verify: read it back, every tag and the digest, and load it into a scratch database");
        ended(verify::run(&self.app, &VerifyArgs { restore: true, ..Default::default() })?)?;
        done("verify");

        self.say("a bit of the stored backup flips, and verify must notice");
        let object = self.object()?;
        flip(&object)?;
        match ended(verify::run(&self.app, &VerifyArgs::default())?) {
            Err(Kind::Authentication) => {}
            other => return Err(Error::other(format!("verify took a damaged backup for {other:?}"))),
        }
        flip(&object)?;
        done("notice damage");

        self.say("damage the database: every bill is deleted and every customer renamed");
        let harm = "delete from bill; update customer set name = 'gone', photo = null;";
        self.open().and_then(|connection| connection.execute_batch(harm)).map_err(sqlite)?;
        if self.digest()? == before {
            return Err(Error::other("the damage did not show"));
        }
        done("damage");

        self.say("restore: loaded beside and checked, then put in its place");
        let which = Which { latest: true, timestamp: None };
        let args = RestoreArgs { database: DATABASE.to_owned(), which, yes: true, ..Default::default() };
        ended(restore::run(&self.app, &args)?)?;
        done("restore");

        self.say("compare");
        if self.digest()? != before {
            return Err(Error::other("the restored database differs from the one that was backed up"));
        }
        self.app.cx.report.note("every row is as it was");
        done("compare");
        Ok(steps)
    }

    /// The one stored object.
    fn object(&self) -> Result<PathBuf> {
        let open = self.app.open_target("local")?;
        let prefix = self.app.owner(DATABASE).prefix();
        let all = open.target.list(&prefix)?;
        let object = all.iter().find(|stored| stored.key.as_str().ends_with(".enc"));
        let object = object.ok_or_else(|| Error::other("the demo's backup is not where it should be"))?;
        Ok(self.path("store").join(object.key.as_str()))
    }
}

fn ended(done: Done) -> Result<(), Kind> {
    done.outcome
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self::new(kind, "a step of the demo failed; it has said why")
    }
}

fn configuration(dir: &Path) -> String {
    let quoted = |name: &str| toml::Value::from(dir.join(name).display().to_string()).to_string();
    let encoded = crate::format::name::encode(&dir.display().to_string()).replace("%2F", "/");
    let (data, key, store) = (quoted("data"), quoted("key"), quoted("store"));
    format!(
        r#"[backup]
instance = "demo"
data_dir = {data}
encryption_key = {{ file = {key} }}

[backup.targets.local]
path = {store}

[databases.{DATABASE}]
engine = "sqlite"
url = "sqlite://{encoded}/shop.db"

[[backup.jobs]]
database = "{DATABASE}"
schedule = "0 3 * * *"
encrypt = true
retention_days = 30
"#
    )
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = format!("can't write {}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).doing(Kind::Other, &what)?;
    file.write_all(bytes).doing(Kind::Other, what)
}

/// Flips a bit in the middle of a file; twice is nothing.
fn flip(path: &Path) -> Result<()> {
    let flip = || {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let middle = SeekFrom::Start(file.metadata()?.len() / 2);
        let mut byte = [0u8; 1];
        file.seek(middle)?;
        file.read_exact(&mut byte)?;
        file.seek(middle)?;
        file.write_all(&[byte[0] ^ 1])
    };
    flip().doing(Kind::Other, format!("can't change {}", path.display()))
}
