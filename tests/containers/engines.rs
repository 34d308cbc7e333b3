//! Redis, Valkey and MongoDB (FerretDB) where their servers run: there and back by `exec`, and found by their containers.

use std::fs;
use std::io::{Cursor, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use voxeltron_backup::engine::{Destination, Engine};

use super::common::{self, Sandbox, from_runner, run};
use super::{Broken, Place, job, number, path_with, podman, program, wait_until};

/// A server of Redis or Valkey, or of MongoDB; a restore of the former replaces all that it holds.
pub struct Server {
    pub place: Place,
    /// The container's name, if it is in one.
    pub name: &'static str,
    pub client: &'static str,
    _alone: Option<MutexGuard<'static, ()>>,
    child: Option<Child>,
}

fn alone(mutex: &'static Mutex<()>) -> Option<MutexGuard<'static, ()>> {
    Some(mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

fn with_password(place: Place, variable: &str) -> Place {
    Place { password: from_runner(variable), ..place }
}

impl Server {
    pub fn redis() -> Self {
        static REDIS: Mutex<()> = Mutex::new(());
        let alone = alone(&REDIS);
        let place = Place::container("redis", "mycache", "redis://127.0.0.1:6379");
        Self { place, name: "mycache", client: "redis-cli", _alone: alone, child: None }
    }

    pub fn valkey() -> Self {
        static VALKEY: Mutex<()> = Mutex::new(());
        let alone = alone(&VALKEY);
        let place = Place::container("redis", "mycache2", "redis://127.0.0.1:6399");
        let place = with_password(place, "VOXELTRON_TEST_CONTAINER_VALKEY_PASSWORD");
        Self { place, name: "mycache2", client: "valkey-cli", _alone: alone, child: None }
    }

    pub fn mongodb() -> Self {
        let place = Place::container("mongodb", "mydocs", "mongodb://owner@127.0.0.1:27017");
        let place = with_password(place, "VOXELTRON_TEST_CONTAINER_MONGODB_PASSWORD");
        Self { place, name: "mydocs", client: "mongosh", _alone: None, child: None }
    }

    fn redis_of_another_root() -> Self {
        let place = Place::container("redis", "mycache", "");
        Self::of_another_root(place, "VOXELTRON_TEST_ROOT", "VOXELTRON_TEST_REDIS_7", "redis-cli")
    }

    fn valkey_of_another_root() -> Self {
        let place = Place::container("redis", "mycache2", "");
        let place = with_password(place, "VOXELTRON_TEST_CONTAINER_VALKEY_PASSWORD");
        Self::of_another_root(place, "VOXELTRON_TEST_VALKEY_ROOT", "VOXELTRON_TEST_VALKEY_8", "valkey-cli")
    }

    /// A server of this test's own on this machine, with the password of `place`, and the tools of another root.
    fn of_another_root(place: Place, root: &str, tools: &str, client: &'static str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = Place { exec: super::in_root(root), base: format!("redis://127.0.0.1:{port}"), ..place };
        let tool = format!("{}/{}", from_runner(tools), client.replace("-cli", "-server"));
        let child = Command::new(tool)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"])
            .args(["--enable-debug-command", "local", "--requirepass", &place.password])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { place, name: "", client, _alone: None, child: Some(child) };
        wait_until("the server answers", || server.ask(&["PING"]).is_ok_and(|said| said.starts_with("PONG")));
        server
    }

    pub fn mongodb_of_a_clean_environment() -> Self {
        let path = format!("PATH={}:/usr/bin:/bin", from_runner("VOXELTRON_TEST_MONGO_TOOLS"));
        Self::mongodb_by(["env", "-i", &path].map(str::to_owned).to_vec())
    }

    /// The shell is given what it is to do by `/dev/stdin`, so this root needs a `/proc`, as each container has one. It is
    /// mounted for the tool alone, so that nothing has to take it away.
    fn mongodb_of_another_root() -> Self {
        let mut exec = super::in_root("VOXELTRON_TEST_MONGO_ROOT");
        let script = "mount -t proc proc \"$2/proc\" && exec \"$@\"";
        let at = exec.iter().position(|word| word == "chroot").unwrap();
        exec.splice(at..at, ["unshare", "--mount", "sh", "-c", script, "sh"].map(str::to_owned));
        Self::mongodb_by(exec)
    }

    fn mongodb_by(exec: Vec<String>) -> Self {
        let url = from_runner("VOXELTRON_TEST_MONGODB_URL");
        let (credentials, host) = url.trim_end_matches('/').rsplit_once('@').unwrap();
        let (user, password) = credentials.strip_prefix("mongodb://").unwrap().split_once(':').unwrap();
        let base = format!("mongodb://{user}@{host}");
        let place = Place { engine: "mongodb", exec, base, password: password.to_owned() };
        Self { place, name: "", client: "mongosh", _alone: None, child: None }
    }

    /// What Redis answers.
    pub fn ask(&self, words: &[&str]) -> Result<String, String> {
        self.call("", words)
    }

    /// The same, and to these lines where there are no words.
    fn call(&self, lines: &str, words: &[&str]) -> Result<String, String> {
        let port = self.place.base.rsplit_once(':').unwrap().1;
        let script = "IFS= read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec \"$@\"";
        let call = ["sh", "-c", script, "sh", self.client, "-p", port, "--no-auth-warning", "-e"];
        let mut command = Command::new(&self.place.exec[0]);
        command.args(&self.place.exec[1..]).args(call).args(words);
        let outcome = run(&mut command, format!("{}\n{lines}", self.place.password).as_bytes());
        if outcome.status.success() { Ok(outcome.stdout) } else { Err(outcome.stderr) }
    }

    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> String {
        self.ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}")).trim_end().to_owned()
    }

    /// What MongoDB's shell prints; `d` is the database.
    pub fn js(&self, database: &str, script: &str) -> String {
        let (scheme, rest) = self.place.base.split_once("://").unwrap();
        let (user, host) = rest.split_once('@').unwrap();
        let connect = format!(
            "const c = connect('{scheme}://{user}:' + encodeURIComponent(process.env.PW) + '@{host}/admin'); \
             const d = c.getSiblingDB('{database}');"
        );
        let shell =
            "IFS= read -r PW; export PW; exec mongosh --quiet --norc --nodb --eval 'load(\"/dev/stdin\"); void 0'";
        let mut command = Command::new(&self.place.exec[0]);
        command.args(&self.place.exec[1..]).args(["sh", "-c", shell]);
        let outcome = run(&mut command, format!("{}\n{connect}\n{script}", self.place.password).as_bytes());
        assert!(outcome.status.success(), "{script}: {outcome:?}");
        outcome.stdout.trim().to_owned()
    }

    /// What hurts of Redis, by the server's own means.
    pub fn fill(&self) {
        let script = "redis.call('FLUSHALL')
            local all = {} for i = 0, 255 do all[#all + 1] = string.char(i) end
            local bytes = table.concat(all)
            for _, number in ipairs({0, 3, 11}) do redis.call('SELECT', number)
                for i = 1, 300 do redis.call('SET', 'key ' .. i, bytes .. i) end
                redis.call('SET', bytes, bytes, 'PX', '9000000000') redis.call('HSET', 'h', 'a', bytes, bytes, '1')
                redis.call('ZADD', 'z', '1.5', 'a', '-inf', bytes) redis.call('XADD', 's', '1-1', 'f', bytes)
                redis.call('XGROUP', 'CREATE', 's', 'g', '0') redis.call('RPUSH', 'l', bytes, '2') end
            redis.call('SET', 'long', string.rep(bytes, 8000))";
        self.cli(&["EVAL", script, "0"]);
        self.cli(&[
            "FUNCTION",
            "LOAD",
            "REPLACE",
            "#!lua name=one\nredis.register_function('f', function() return 1 end)",
        ]);
    }

    pub fn digest(&self) -> String {
        self.call("DEBUG DIGEST\nFUNCTION LIST WITHCODE\n", &[]).unwrap()
    }

    pub fn documents(&self, database: &str) {
        self.js(
            database,
            "d.a.insertMany([...Array(2000).keys()].map((i) => ({_id: i, v: 'Ä😀', t: 'x'.repeat(i)})));
             d.a.createIndex({v: 1, _id: -1}, {unique: true}); d.b.insertOne({_id: 1, n: NumberLong('5'), b: new UUID()})",
        );
    }

    pub fn all(&self, database: &str) -> String {
        let script = "for (const it of d.getCollectionInfos().sort((a, b) => a.name < b.name ? -1 : 1)) {
                const rows = d.getCollection(it.name).find().sort({_id: 1}).toArray().map((one) => EJSON.stringify(one, {relaxed: false}));
                print(it.name, it.type, rows.length, require('crypto').createHash('sha256').update(rows.join()).digest('hex'),
                    d.getCollection(it.name).getIndexes().map((one) => one.name).sort().join()); }";
        self.js(database, script)
    }

    /// No folder and no server of a drill is there.
    pub fn no_drill_is_left(&self) -> bool {
        let mut command = Command::new(&self.place.exec[0]);
        let outcome = run(command.args(&self.place.exec[1..]).args(["sh", "-c", "echo /tmp/voxeltron-drill-*"]), b"");
        outcome.stdout.trim() == "/tmp/voxeltron-drill-*" && !super::stops::anything(&["/tmp/voxeltron-drill-"])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn redis_there_and_back(server: &Server) {
    let place = &server.place;
    server.fill();
    let before = server.digest();
    let user = format!("acl-{}", number());
    let password = format!(">{}", place.password);
    server.cli(&["ACL", "SETUSER", &user, "on", &password, "~*", "&*", "+@all"]);
    let as_user = Place {
        base: place.base.replace("://", &format!("://{user}@")),
        exec: place.exec.clone(),
        password: place.password.clone(),
        ..*place
    };
    for place in [place, &as_user] {
        let engine = place.open("0");
        let probe = engine.probe(&super::cx()).unwrap();
        assert!(probe.tool_version.is_some() && probe.server_version.is_some(), "{probe:?}");
        assert_eq!(probe.warnings, Vec::<String>::new());
        let (bytes, counts) = place.dump(engine.as_ref());
        assert_eq!(counts.get("db3"), Some(&Some(304)));
        if place.base.contains('@') {
            let drilled = place.restore(engine.as_ref(), Cursor::new(&bytes), Destination::Drill, &counts).unwrap();
            assert_eq!(drilled.counts, counts);
        }
        server.cli(&["EVAL", "redis.call('FLUSHALL') redis.call('SET', 'later', '1')", "0"]);
        let changed = server.digest();
        // A stream that breaks leaves the live data alone.
        let half = Broken(Cursor::new(bytes[..bytes.len() / 2].to_vec()));
        let error = place.restore(engine.as_ref(), half, Destination::InPlace, &counts).unwrap_err();
        assert!(error.message.contains("broken on purpose"), "{error:?}");
        assert_eq!(server.digest(), changed);
        let restored = place.restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &counts).unwrap();
        assert_eq!(restored.counts, counts);
        let why = "restored key by key, not by replication: the tools run elsewhere";
        assert!(restored.notes.iter().any(|note| note.starts_with(why)), "{restored:?}");
        assert_eq!(server.digest(), before);
    }
    server.cli(&["ACL", "DELUSER", &user]);
    wait_until("the drills are gone", || server.no_drill_is_left());
}

#[test]
fn redis_goes_there_and_back_in_a_container() {
    redis_there_and_back(&Server::redis());
}

#[test]
fn valkey_goes_there_and_back_in_a_container() {
    redis_there_and_back(&Server::valkey());
}

#[test]
fn redis_goes_there_and_back_in_another_root() {
    redis_there_and_back(&Server::redis_of_another_root());
}

#[test]
fn valkey_goes_there_and_back_in_another_root() {
    redis_there_and_back(&Server::valkey_of_another_root());
}

fn mongodb_there_and_back(server: &Server) {
    let place = &server.place;
    let (name, beside) = (format!("vx_ü_{}", number()), format!("vx_beside_{}", number()));
    server.documents(&name);
    let before = server.all(&name);
    assert!(before.contains("a collection 2000") && before.contains("v_1__id_-1"), "{before}");
    let engine: Box<dyn Engine> = place.open(&format!("{name}?authSource=admin"));
    let probe = engine.probe(&super::cx()).unwrap();
    assert!(probe.tool_version.is_some() && probe.server_version.is_some() && probe.warnings.is_empty(), "{probe:?}");
    let (bytes, counts) = place.dump(engine.as_ref());
    let drilled = place.restore(engine.as_ref(), Cursor::new(&bytes), Destination::Drill, &counts).unwrap();
    assert_eq!(drilled.counts.get("a"), Some(&Some(2000)));
    place.restore(engine.as_ref(), Cursor::new(&bytes), Destination::Into(beside.clone()), &counts).unwrap();
    assert_eq!(server.all(&beside), before);
    server.js(&name, "d.a.deleteMany({}); d.b.drop(); d.later.insertOne({_id: 1})");
    let changed = server.all(&name);
    let half = Broken(Cursor::new(bytes[..bytes.len() / 2].to_vec()));
    let error = place.restore(engine.as_ref(), half, Destination::InPlace, &counts).unwrap_err();
    assert!(error.message.contains("broken on purpose"), "{error:?}");
    assert_eq!(server.all(&name), changed);
    let restored = place.restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &counts).unwrap();
    assert_eq!((restored.notes, server.all(&name)), (Vec::new(), before));
    let left = server.js(
        &name,
        &format!(
            "c.getSiblingDB('{beside}').dropDatabase(); const n = d.getName(); d.dropDatabase();
             print(c.adminCommand({{listDatabases: 1, nameOnly: true}}).databases.map((i) => i.name).filter((i) => i.startsWith(n)).join())"
        ),
    );
    assert_eq!(left, "");
}

#[test]
fn mongodb_goes_there_and_back_in_a_container() {
    mongodb_there_and_back(&Server::mongodb());
}

#[test]
fn mongodb_goes_there_and_back_in_a_clean_environment() {
    mongodb_there_and_back(&Server::mongodb_of_a_clean_environment());
}

#[test]
fn mongodb_goes_there_and_back_in_another_root() {
    mongodb_there_and_back(&Server::mongodb_of_another_root());
}

/// Runs a database's commands without a table, and gives what they say.
fn found(name: &str, password: &str, change: impl Fn()) -> String {
    let sandbox = Sandbox::new();
    sandbox.configure_local(None, &job(name));
    let path = path_with(&["docker"], &sandbox);
    let mut all = String::new();
    let mut good = |args: &[&str]| {
        let outcome = program(&sandbox, &path, args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        all += &format!("{}{}", outcome.stdout, outcome.stderr);
    };
    good(&["-v", "check"]);
    good(&["-v", "run-job", name]);
    good(&["-v", "verify", "--restore"]);
    change();
    good(&["-v", "restore", name, "--latest", "--yes"]);
    assert!(!all.contains(password.trim()), "{all}");
    all
}

#[test]
fn redis_valkey_and_mongodb_are_found_by_their_containers() {
    for server in [Server::redis(), Server::valkey()] {
        server.fill();
        let before = server.digest();
        let said = found(server.name, &server.place.password, || drop(server.cli(&["FLUSHALL"])));
        assert_eq!(server.digest(), before);
        assert!(
            said.contains("restored into a scratch database: 3 databases, 916 keys, 1 library of functions"),
            "{said}"
        );
        assert!(said.contains(": 3 databases, 916 keys, 1 library of functions\n"), "{said}");
    }
    let server = Server::mongodb();
    server.js("mydocs", "d.dropDatabase()");
    server.documents("mydocs");
    let before = server.all("mydocs");
    let said = found("mydocs", &server.place.password, || drop(server.js("mydocs", "d.a.drop()")));
    assert_eq!(server.all("mydocs"), before);
    assert!(said.contains("restored into a scratch database: 2 collections, 2001 documents"), "{said}");
}

#[test]
fn the_documentations_cache_runs_where_its_container_is() {
    let server = Server::redis();
    server.fill();
    let sandbox = Sandbox::new();
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    sandbox.configure(&common::SEED.replace("base64-encoded-256-bit-key", key));
    let path = path_with(&["docker"], &sandbox);
    for args in [&["run-job", "mycache@local"][..], &["verify", "mycache", "--target", "local", "--restore"]] {
        let mut command = sandbox.command(args).into_command();
        command.env("PATH", &path).env("VOXELTRON_BACKUP_DATA_DIR", sandbox.data_dir());
        let outcome = run(command.env("VOXELTRON_BACKUP_TARGETS_LOCAL_PATH", sandbox.store()), b"");
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
    }
    let mut stored = String::new();
    for entry in fs::read_dir(sandbox.store()).unwrap().flatten() {
        for file in fs::read_dir(entry.path().join("mycache")).into_iter().flatten().flatten() {
            stored += &format!("{} ", file.file_name().to_string_lossy());
        }
    }
    assert!(stored.contains(".rdb.gz "), "{stored}");
    let mut log = String::new();
    let mut command = Command::new(podman());
    let mut child = command.args(["logs", "voxeltron-db-mycache"]).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    child.wait().unwrap();
    // What Redis says when a child that is not its own has fallen to it.
    assert!(!log.contains("unmatched pid"), "{log}");
}
