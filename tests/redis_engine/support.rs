//! Servers of a test's own, data that hurts, and what the tests of the engine share. Wants `VOXELTRON_TEST_REDIS_7`,
//! `…_REDIS_8`, `…_VALKEY_8` and `…_VALKEY_9`, the folders of their tools; without them every test fails, none is skipped.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use voxeltron_backup::engine::{
    Counts, Cx, Destination, Engine, Findings, Inspected, Request, Restored, Settings, kind,
};
use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::world::{Clock, SystemClock, World};

/// What a password may have.
pub const PASSWORD: &str = "p w\"'\\%$`:@/#?€";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Redis7,
    Redis8,
    Valkey8,
    Valkey9,
}

impl Which {
    pub fn tools(self) -> PathBuf {
        let name = match self {
            Self::Redis7 => "VOXELTRON_TEST_REDIS_7",
            Self::Redis8 => "VOXELTRON_TEST_REDIS_8",
            Self::Valkey8 => "VOXELTRON_TEST_VALKEY_8",
            Self::Valkey9 => "VOXELTRON_TEST_VALKEY_9",
        };
        let folder = std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} is not set: these tests want real servers and are never skipped"));
        PathBuf::from(folder)
    }

    pub fn tool(self, name: &str) -> PathBuf {
        let family = if matches!(self, Self::Redis7 | Self::Redis8) { "redis" } else { "valkey" };
        self.tools().join(format!("{family}-{name}"))
    }
}

/// A server in a folder of its own, gone with the test.
pub struct Server {
    pub which: Which,
    pub port: u16,
    pub folder: tempfile::TempDir,
    child: Option<Child>,
    apart: bool,
}

impl Server {
    pub fn new(which: Which) -> Self {
        Self::with(which, "")
    }

    /// In a network of its own: connections come in through us, and none goes out.
    pub fn apart(which: Which) -> Self {
        let folder = tempfile::Builder::new().prefix("voxeltron-redis-").tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = Self { which, port, folder, child: None, apart: true };
        server.configure("port 0");
        let socket = server.folder.path().join("s");
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(std::net::Shutdown::Write));
                });
                let (mut from, mut to) = (server, client);
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(std::net::Shutdown::Both));
                });
            }
        });
        assert!(server.start(), "{}", std::fs::read_to_string(server.folder.path().join("log")).unwrap());
        server
    }

    fn configure(&self, more: &str) {
        let quoted: String = PASSWORD.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        let folder = self.folder.path().display();
        let conf = format!(
            "dir {folder}\nunixsocket {folder}/s\nenable-debug-command local\nsave 3600 1\n\
             repl-diskless-sync-delay 0\nrequirepass \"{quoted}\"\ndatabases 64\n{more}\n"
        );
        std::fs::write(self.folder.path().join("conf"), conf).unwrap();
    }

    /// With more lines of configuration.
    pub fn with(which: Which, more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("voxeltron-redis-").tempdir().unwrap();
        let mut server = Self { which, port: 0, folder, child: None, apart: false };
        for _ in 0..5 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            server.configure(&format!("port {}\nbind 127.0.0.1\n{more}", server.port));
            if server.start() {
                return server;
            }
        }
        panic!("the server does not start: {}", std::fs::read_to_string(server.folder.path().join("log")).unwrap());
    }

    /// Starts it, again too.
    pub fn start(&mut self) -> bool {
        self.start_with(&[])
    }

    /// With more arguments.
    pub fn start_with(&mut self, args: &[&str]) -> bool {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(if self.apart { "unshare".into() } else { self.which.tool("server") });
        if self.apart {
            command.arg("--net").arg(self.which.tool("server"));
        }
        command.arg(self.folder.path().join("conf")).args(args);
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        self.child = Some(command.spawn().expect("the server starts"));
        let until = Instant::now() + Duration::from_secs(120);
        while Instant::now() < until {
            if self.try_cli(&["PING"]).is_ok_and(|said| said == "PONG") {
                return true;
            }
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// As an operator does it.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        child.wait().unwrap();
    }

    /// As a power cut does it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn client(&self) -> Command {
        let mut command = Command::new(self.which.tool("cli"));
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]).env("REDISCLI_AUTH", PASSWORD);
        command.env_remove("VALKEYCLI_AUTH");
        if let Ok(conf) = std::fs::read_to_string(self.folder.path().join("conf"))
            && conf.contains("tls-port")
        {
            command.args(["--tls", "--cacert"]).arg(self.folder.path().join("ca.pem"));
        }
        command
    }

    pub fn try_cli(&self, words: &[&str]) -> std::result::Result<String, String> {
        let output = self.client().args(["-e"]).args(words).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> String {
        self.try_cli(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// On the disk now; a dump's child may still be ending.
    pub fn save(&self) {
        for _ in 0..3000 {
            match self.try_cli(&["SAVE"]) {
                Ok(_) => return,
                Err(error) => assert!(error.contains("in progress") || error.contains("child"), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not save");
    }

    /// Commands of any bytes, all at once; every one must succeed.
    pub fn pipe(&self, commands: &[Vec<Vec<u8>>]) {
        let mut child = self
            .client()
            .arg("--pipe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut bytes = Vec::new();
        for words in commands {
            write!(bytes, "*{}\r\n", words.len()).unwrap();
            for word in words {
                write!(bytes, "${}\r\n", word.len()).unwrap();
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
        }
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// All that the server holds, by its own means: a digest of all databases, the fields' instants, the functions, and who
    /// waits for what in streams.
    pub fn all(&self) -> Vec<String> {
        let mut all = vec![self.cli(&["DEBUG", "DIGEST"]), self.cli(&["INFO", "keyspace"])];
        // How long on the average is not the same at two instants.
        all[1] =
            all[1].lines().map(|line| line.split(",avg_ttl").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        all.push(self.cli(&["FUNCTION", "STATS"]));
        // One at a time: the order among several is nobody's promise.
        for name in ["one", "two", "later"] {
            all.push(self.cli(&["FUNCTION", "LIST", "LIBRARYNAME", name, "WITHCODE"]));
        }
        for words in [
            &["XINFO", "STREAM", "stream", "FULL", "COUNT", "0"][..],
            &["PEXPIRETIME", "expiring"],
            &["OBJECT", "ENCODING", "hash-lp"],
        ] {
            all.push(self.cli(words));
        }
        if self.which == Which::Redis8 || self.which == Which::Valkey9 {
            all.push(self.cli(&["HPEXPIRETIME", "hash-fields", "FIELDS", "2", "a", "b"]));
        }
        // Long ones would only fill the screen.
        all.into_iter().map(|part| if part.len() < 400 { part } else { format!("{:x}", digest_of(&part)) }).collect()
    }

    /// Every setting.
    pub fn settings(&self) -> BTreeMap<String, String> {
        // Quoted, for a value may hold the end of a line.
        let text = self.cli(&["--no-raw", "CONFIG", "GET", "*"]);
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(") ").unwrap().1).collect();
        lines.chunks(2).map(|pair| (pair[0].to_owned(), (*pair.get(1).unwrap_or(&"")).to_owned())).collect()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn settings_of(&self) -> Settings {
        Settings {
            password: Some(Secret::new(PASSWORD)),
            tools_dir: Some(self.which.tools()),
            ..Settings::new("cache", Secret::new(self.url()))
        }
    }

    pub fn engine(&self) -> Box<dyn Engine> {
        open(self.settings_of())
    }

    /// As another user of the server.
    pub fn engine_as(&self, user: &str, password: &str) -> Box<dyn Engine> {
        let url = format!("redis://{user}@127.0.0.1:{}", self.port);
        let password = Some(Secret::new(password));
        open(Settings { password, url: Secret::new(url), ..self.settings_of() })
    }

    /// A user who may do everything but follow another server.
    pub fn unfollowing(&self) -> Box<dyn Engine> {
        let password = "q w\"'\\%$é";
        self.cli(&[
            "ACL",
            "SETUSER",
            "keys",
            "on",
            &format!(">{password}"),
            "~*",
            "&*",
            "+@all",
            "-replicaof",
            "-slaveof",
        ]);
        self.engine_as("keys", password)
    }

    pub fn small(&self) -> &Self {
        self.cli(&["FLUSHALL"]);
        let mut commands = vec![words(&["SELECT", "0"])];
        commands
            .extend((0..200).map(|n| words(&["SET", &format!("key:{n}"), &format!("value {n} {}", "x".repeat(n))])));
        commands.extend([
            words(&["SELECT", "3"]),
            words(&["SADD", "set", "a", "b"]),
            words(&["SET", "gone", "x", "PX", "90000000"]),
        ]);
        self.pipe(&commands);
        self
    }

    pub fn digest(&self) -> String {
        self.cli(&["DEBUG", "DIGEST"])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Writes a script that can be run. By another process: one that a test starts at the same time must not inherit it open.
pub fn program(path: &Path, text: &str) {
    let mut child = Command::new("sh")
        .args(["-c", "cat > \"$1.new\" && chmod 755 \"$1.new\" && mv \"$1.new\" \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

pub fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

pub fn open(settings: Settings) -> Box<dyn Engine> {
    (kind("redis").unwrap().open)(settings).unwrap()
}

/// A context with a `data_dir` of its own.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub cx: Cx,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("voxeltron-data-").tempdir().unwrap();
        let cx = Cx {
            world: World::system(),
            report: Report::capturing(Style::default()),
            data_dir: folder.path().to_owned(),
            deadline: None,
        };
        Self { folder, cx }
    }

    #[track_caller]
    pub fn assert_empty(&self) {
        let left: Vec<_> = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

/// A clock ten times as fast, where what is waited for never comes.
#[derive(Debug)]
pub struct Fast(pub SystemClock);

impl Clock for Fast {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * 10
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time / 10);
    }
}

pub fn inspected<R: Read>(stream: R) -> Inspected<R> {
    Inspected::new(stream, (kind("redis").unwrap().inspector)())
}

pub fn dump(engine: &dyn Engine) -> Result<(Vec<u8>, Findings)> {
    let place = Place::new();
    let mut stream = inspected(engine.dump(&place.cx)?.stream);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| Error::from_io(error, Kind::Other, "test"))?;
    let findings = stream.findings().take().expect("findings after a good end");
    Ok((bytes, findings))
}

pub fn restore(engine: &dyn Engine, dump: impl Read, to: Destination, expected: &Counts) -> Result<Restored> {
    let place = Place::new();
    let outcome = restore_in(&place, engine, dump, to, expected);
    place.assert_empty();
    outcome
}

pub fn restore_in(
    place: &Place,
    engine: &dyn Engine,
    dump: impl Read,
    to: Destination,
    expected: &Counts,
) -> Result<Restored> {
    let request = Request::new(to, expected.clone());
    engine.restore(&mut inspected(dump), &request, &place.cx)
}

/// What the server's own checker says of a dump.
pub fn checked(which: Which, bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new(which.tool("check-rdb")).arg(file.path()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a restore that must fail, and looks that data, functions, role and every setting are as they were.
#[track_caller]
pub fn fails_and_changes_nothing(server: &Server, engine: &dyn Engine, dump: impl Read, expected: &Counts) -> Error {
    let before = (server.digest(), server.settings(), server.cli(&["ROLE"]).lines().next().map(str::to_owned));
    let error = restore(engine, dump, Destination::InPlace, expected).expect_err("it must fail");
    let after = (server.digest(), server.settings(), server.cli(&["ROLE"]).lines().next().map(str::to_owned));
    assert_eq!(before, after);
    error
}

/// Every type and encoding, every byte, 16 databases, instants in milliseconds, functions, streams with groups.
pub fn fill(server: &Server) {
    let all: Vec<u8> = (0..=255).collect();
    let at = (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 86_400_123)
        .to_string();
    let noise = |count: usize, seed: u64| -> Vec<u8> {
        let mut state = seed | 1;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..count).map(step).collect()
    };
    let mut commands: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut add = |parts: Vec<&[u8]>| commands.push(parts.iter().map(|part| part.to_vec()).collect());
    for number in 0..16 {
        let number = number.to_string();
        add(vec![b"SELECT", number.as_bytes()]);
        add(vec![b"SET", b"in", number.as_bytes()]);
        add(vec![b"SET", &[b"bin\0\r\n\"'\\", &all[..]].concat(), &all.repeat(3)]);
        for (name, value) in [("12", "-7"), ("-129", "70000"), ("3000000000", "1"), ("", "no name")] {
            add(vec![b"SET", name.as_bytes(), value.as_bytes()]);
        }
        add(vec![b"SET", "packed ".repeat(40).as_bytes(), "v".repeat(10_000).as_bytes()]);
        add(vec![b"SET", b"expiring", b"x", b"PXAT", at.as_bytes()]);
    }
    add(vec![b"SELECT", b"0"]);
    add(vec![b"SET", b"noise", &noise(300_000, 7)]);
    add(vec![b"RPUSH", b"list", b"1", &all, b"-5000000000", &noise(20_000, 3), &b"z".repeat(20_000)]);
    for number in 0..60_u64 {
        add([&b"RPUSH"[..], b"long"].into_iter().chain((0..50).map(|_| &all[..80])).collect());
        add(vec![b"RPUSH", b"long", &noise(200, number + 1)]);
    }
    let text: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let strings: Vec<String> = (0..1000).map(|number| format!("member {number}")).collect();
    let many = |name: &'static [u8], key: &'static [u8], members: &'_ [String]| -> Vec<Vec<u8>> {
        [name.to_vec(), key.to_vec()].into_iter().chain(members.iter().map(|text| text.as_bytes().to_vec())).collect()
    };
    let pairs: Vec<String> = text.iter().zip(&strings).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    let mut more = vec![
        many(b"SADD", b"ints", &text[..100]),
        many(b"SADD", b"set", &strings),
        many(b"SADD", b"set-lp", &strings[..5]),
        many(b"HSET", b"hash", &pairs),
        many(b"HSET", b"hash-lp", &pairs[..10]),
        many(b"ZADD", b"zset", &pairs),
        many(b"ZADD", b"zset-lp", &pairs[..10]),
        many(b"PFADD", b"hll", &strings),
    ];
    for number in 1..=300 {
        more.push(
            [&b"XADD"[..], b"stream", format!("{number}-{}", number % 3).as_bytes(), b"f", &all]
                .map(<[u8]>::to_vec)
                .to_vec(),
        );
    }
    for line in [
        "ZADD zset -inf low +inf high 3.0000000001 third",
        "SETBIT bits 100000 1",
        "GEOADD geo 13.36 38.11 P",
        "XGROUP CREATE stream g1 0",
        "XGROUP CREATE stream g2 $",
        "XGROUP CREATECONSUMER stream g1 idle",
        "XREADGROUP GROUP g1 alice COUNT 20 STREAMS stream >",
        "XACK stream g1 3-0",
        "XDEL stream 5-2 100-1",
        "XTRIM stream MAXLEN 250",
        "XADD empty-stream 1-1 a b",
        "XDEL empty-stream 1-1",
    ] {
        more.push(line.split(' ').map(|word| word.as_bytes().to_vec()).collect());
    }
    for (name, code) in [("one", "return 'a'"), ("two", "return redis.call('GET', keys[1])")] {
        let library =
            format!("#!lua name={name}\nredis.register_function('f_{name}', function(keys, args) {code} end)");
        more.push(words(&["FUNCTION", "LOAD", "REPLACE", &library]));
    }
    if server.which == Which::Redis8 {
        more.push(many(b"HSET", b"hash-fields", &pairs[..10]));
        more.push(words(&["HSET", "hash-fields", "a", "1", "b", "2"]));
        more.push(words(&["HPEXPIREAT", "hash-fields", &at, "FIELDS", "1", "a"]));
        more.push(many(b"HSET", b"hash-fields2", &pairs));
        more.push(words(&["HPEXPIREAT", "hash-fields2", &at, "FIELDS", "2", "1", "5"]));
    }
    commands.extend(more);
    server.pipe(&commands);
}

/// A digest that is good enough to tell two texts apart.
fn digest_of(text: &str) -> u128 {
    text.bytes().fold(1, |sum: u128, byte| {
        sum.wrapping_mul(0x0100_0000_01b3_0000_0000_0000_0001_0067).wrapping_add(u128::from(byte) + 1)
    })
}

pub fn cursor(bytes: &[u8]) -> Cursor<Vec<u8>> {
    Cursor::new(bytes.to_vec())
}

/// Whether a file with this name part is anywhere below.
pub fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
