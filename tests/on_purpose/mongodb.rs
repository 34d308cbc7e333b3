//! MongoDB's protocol: FerretDB on a PostgreSQL with DocumentDB of the test's own, with its data on a small disk. It lives in the
//! root that `tests/run` has unpacked, so this takes root, as `tests/run` itself does for it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{from_runner, psql, run, tool};
use crate::disk::{Disks, free_port, starts};
use crate::{Bench, MEND, Way, has, lines, same};

const MIB: u64 = 1 << 20;

struct Server {
    disks: Disks,
    root: PathBuf,
    port: u16,
}

impl Server {
    fn new() -> Self {
        let root = PathBuf::from(from_runner("VOXELTRON_TEST_DOCUMENTDB_ROOT"));
        let disks = Disks::within(&root.join("tests"), &[("data", "260m"), ("wal", "200m")]);
        let this = Self { disks, root, port: free_port() };
        let inner = this.inner();
        let copy = format!(
            "cp -a {0}/tests/data {1}/data/d && mv {1}/data/d/pg_wal {1}/wal/w && ln -s {inner}/wal/w {1}/data/d/pg_wal && \
             chown nobody:nogroup {1} && printf '%s\n' \"documentdb.localhost_connection_string = 'host={inner}'\" \
             'autovacuum = off' 'shared_buffers = 16MB' 'max_wal_size = 1GB' >>{1}/data/d/postgresql.conf",
            this.root.display(),
            this.disks.folder.display(),
        );
        tool(this.disks.inside().args(["sh", "-c", &copy]), b"");
        let mut server = this.disks.inside();
        server.arg("chroot").arg("--userspec=nobody:nogroup").arg(&this.root);
        server.args(["env", "HOME=/", "LC_ALL=C.UTF-8", "/usr/lib/postgresql/18/bin/postgres", "-k", &inner]);
        this.spawns(server.args(["-D", &format!("{inner}/data/d")]), "log");
        let url = format!("postgres://postgres@localhost/postgres?host={}", this.disks.folder.display());
        this.waits("log", &|| {
            let mut ask = Command::new("psql");
            run(ask.args(["-X", "-q", "-d", &url, "-c", "ALTER ROLE tests PASSWORD 'full'"]), b"").status.success()
        });
        // Everybody else is on a socket that asks for nothing.
        let mut ferretdb = this.disks.inside();
        ferretdb.arg(from_runner("VOXELTRON_TEST_FERRETDB"));
        ferretdb.arg(format!("--postgresql-url={}", url.replace("postgres@", "tests:full@")));
        ferretdb.args(["--debug-addr=-", "--telemetry=disable", "--log-level=WARN"]);
        ferretdb.arg(format!("--listen-addr=127.0.0.1:{}", this.port));
        this.spawns(ferretdb.arg(format!("--state-dir={}", this.disks.path("wal").display())), "log2");
        this.waits("log2", &|| this.try_js("print(1)").is_ok());
        psql(&url, "CHECKPOINT");
        this
    }

    fn inner(&self) -> String {
        format!("/tests/{}", self.disks.folder.file_name().unwrap().to_str().unwrap())
    }

    fn spawns(&self, command: &mut Command, log: &str) {
        let log = std::fs::File::create(self.disks.folder.join(log)).unwrap();
        starts(command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log));
    }

    fn waits(&self, log: &str, ready: &dyn Fn() -> bool) {
        let began = Instant::now();
        while !ready() {
            assert!(began.elapsed() < Duration::from_secs(120), "{}", self.log(log));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.disks.folder.join(name)).unwrap()
    }

    fn url(&self, database: &str) -> String {
        format!("mongodb://tests:full@127.0.0.1:{}/{database}", self.port)
    }

    fn try_js(&self, script: &str) -> Result<String, String> {
        let mut shell = Command::new(PathBuf::from(from_runner("VOXELTRON_TEST_MONGO_TOOLS")).join("mongosh"));
        shell.args(["--quiet", "--norc", "--nodb", "--eval", "load('/dev/stdin'); void 0"]);
        let script =
            format!("const db = connect('{}');\nconst d = db.getSiblingDB('shop');\n{script}", self.url("admin"));
        let outcome = run(&mut shell, script.as_bytes());
        match outcome.status.success() {
            true => Ok(outcome.stdout.trim().to_owned()),
            false => Err(format!("{}{}", outcome.stdout, outcome.stderr)),
        }
    }

    #[track_caller]
    fn js(&self, script: &str) -> String {
        self.try_js(script).unwrap_or_else(|error| panic!("{error}\n{}", self.log("log")))
    }
}

impl Bench for Server {
    fn table(&self) -> String {
        let url = format!("{}?authSource=admin", self.url("shop"));
        lines(&[("engine", "mongodb"), ("url", &url), ("tools_dir", &from_runner("VOXELTRON_TEST_MONGO_TOOLS"))])
    }

    fn all(&self) -> String {
        self.js(
            "const digest = (c) => require('crypto').createHash('sha256').update(EJSON.stringify(c.find().sort({_id: 1}).toArray(),
               {relaxed: false})).digest('hex');
             for (const name of d.getCollectionNames().sort()) print(name, digest(d.getCollection(name)),
               JSON.stringify(d.getCollection(name).getIndexes().map((i) => i.name).sort()));
             print(db.adminCommand({listDatabases: 1, nameOnly: true}).databases.map((i) => i.name).sort().join(' '))",
        )
    }
}

#[test]
fn a_disk_that_is_full_while_collections_are_loaded() {
    let server = Server::new();
    server.js(
        "for (let n = 0; n < 2; n++) d.a.insertMany([...Array(2500).keys()].map((i) => ({_id: n * 2500 + i, t: require('crypto').randomBytes(400).toString('hex')})));
         d.a.createIndex({t: 1}); d.b.insertMany([{_id: 1}, {_id: 2}]);",
    );
    let way = Way::new(&server);
    let new = server.all();
    server.js("d.b.insertOne({_id: 3}); d.later.insertOne({_id: 1})");
    let before = server.all();
    server.disks.leave("data", 3 * MIB);
    let said = way.tries(&[], 13);
    has(&said, &["the server's disk is full", MEND]);
    // What it takes to look needs room, too.
    let free = server.disks.free("data");
    server.disks.make_room("data");
    same(&server.all(), &before);
    assert!(free + MIB > 3 * MIB, "{free} bytes are free: {said}");
    way.restores();
    same(&server.all(), &new);
}
