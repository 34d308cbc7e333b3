//! What the tests share: a sandbox to run the program in, the servers and tools that `tests/run` provides, backups made
//! of the library's own parts, and faults. Nothing here skips: what is missing fails with the way to get it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

pub mod cloud;
pub mod faults;
pub mod gcs;
pub mod proxy;
pub mod s3;
pub mod sample;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything that a test starts may take, on a machine that is slow and busy, too.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The complete example of Voxeltron's documentation, as it stands there.
pub const SEED: &str = r#"
[backup]
encryption_key = "base64-encoded-256-bit-key"
[backup.targets.local]
path = "/var/lib/voxeltron/backups"
[backup.targets.s3]
endpoint   = "https://s3.amazonaws.com"
bucket     = "my-voxeltron-backups"
region     = "us-east-1"
access_key = "AKIA..."
secret_key = "wJal..."
[backup.targets.gcs]
bucket           = "my-voxeltron-backups"
credentials_file = "/etc/voxeltron/gcs-service-account.json"
[[backup.jobs]]
database       = "mydb"
schedule       = "0 3 * * *"
target         = "s3"
compress       = true
encrypt        = true
retention_days = 30
[[backup.jobs]]
database       = "analytics"
schedule       = "0 0 * * 0"
target         = "gcs"
compress       = true
encrypt        = true
retention_days = 90
[[backup.jobs]]
database       = "mycache"
schedule       = "0 */6 * * *"
target         = "local"
compress       = true
encrypt        = false
retention_days = 7
"#;

/// A folder with a configuration, a `data` and a `store` folder, and the program run in a clean environment.
pub struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("voxeltron-test-").tempdir().expect("a temporary folder");
        let sandbox = Self { folder };
        for name in ["data", "store", "home"] {
            fs::create_dir(sandbox.path(name)).expect("a folder in the sandbox");
        }
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Writes the configuration, 0600. `{dir}` in it stands for the sandbox's folder.
    pub fn configure(&self, text: &str) {
        self.write("config.toml", text.replace("{dir}", &self.folder.path().display().to_string()));
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600)).expect("the configuration's mode");
    }

    /// The first lines that nearly every configuration has: data folder, instance, a local target.
    pub fn configure_local(&self, key: Option<&str>, more: &str) {
        let key = key.map_or_else(String::new, |key| format!("encryption_key = \"{key}\"\n"));
        self.configure(&format!(
            "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\n{key}\
             [backup.targets.local]\npath = \"{{dir}}/store\"\n{more}"
        ));
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("can't write {}: {error}", path.display()));
        path
    }

    /// A shell script that stands for a tool, in a folder that `tools_dir` can name; gives the folder.
    pub fn fake_tool(&self, name: &str, script: &str) -> PathBuf {
        let folder = self.path("tools");
        fs::create_dir_all(&folder).expect("the tools' folder");
        // A child writes it: were it open for writing here, a test that forks in this instant would inherit it and
        // starting the tool would fail with `text file busy`.
        let mut command = Command::new("sh");
        command.args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(folder.join(name));
        let outcome = run(&mut command, format!("#!/bin/sh\n{script}\n").as_bytes());
        assert!(outcome.status.success(), "can't write the tool {name}: {}", outcome.stderr);
        folder
    }

    /// Runs the program, which must succeed and say nothing.
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.command(args).run()
    }

    /// The program with these arguments; what it says and how it ends can be stated before [`Invoked::run`].
    pub fn command(&self, args: &[&str]) -> Invoked {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxeltron-backup"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("VOXELTRON_CONFIG", self.config());
        Invoked { command, stdin: Vec::new(), code: 0, stdout: Text::Empty, stderr: Text::Empty }
    }
}

/// What a stream must hold.
enum Text {
    Empty,
    Anything,
    Is(String),
    Has(Vec<String>),
}

impl Text {
    fn and(&mut self, part: &str) {
        match self {
            Self::Has(parts) => parts.push(part.to_owned()),
            _ => *self = Self::Has(vec![part.to_owned()]),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Empty => text.is_empty(),
            Self::Anything => true,
            Self::Is(all) => text == all,
            Self::Has(parts) => parts.iter().all(|part| text.contains(part)),
        }
    }
}

/// A run that is about to happen. Unless said otherwise it must exit 0 with nothing on stdout and nothing on stderr.
#[must_use = "nothing runs before run()"]
pub struct Invoked {
    command: Command,
    stdin: Vec<u8>,
    code: i32,
    stdout: Text,
    stderr: Text,
}

impl Invoked {
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// It must end with this code.
    pub fn exits(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    pub fn stdout_is(mut self, text: &str) -> Self {
        self.stdout = Text::Is(text.to_owned());
        self
    }

    pub fn stdout_has(mut self, part: &str) -> Self {
        self.stdout.and(part);
        self
    }

    pub fn stdout_any(mut self) -> Self {
        self.stdout = Text::Anything;
        self
    }

    pub fn stderr_is(mut self, text: &str) -> Self {
        self.stderr = Text::Is(text.to_owned());
        self
    }

    pub fn stderr_has(mut self, part: &str) -> Self {
        self.stderr.and(part);
        self
    }

    pub fn stderr_any(mut self) -> Self {
        self.stderr = Text::Anything;
        self
    }

    pub fn run(mut self) -> Outcome {
        let outcome = run(&mut self.command, &self.stdin);
        let shown = format!("{:?}: {outcome:#?}", self.command.get_args().collect::<Vec<_>>());
        assert_eq!(outcome.code, Some(self.code), "{shown}");
        assert!(self.stdout.holds(&outcome.stdout), "stdout is not as expected, {shown}");
        assert!(self.stderr.holds(&outcome.stderr), "stderr is not as expected, {shown}");
        outcome
    }

    /// The command itself, for a test that kills it or talks to it.
    pub fn into_command(self) -> Command {
        self.command
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stdout_bytes: Bytes,
    pub stderr: String,
}

/// Bytes that a failing assertion does not print.
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Runs a command with `stdin` to its end. One that takes longer than [`TIMEOUT`] is killed, and the test fails.
pub fn run(command: &mut Command, stdin: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
    let mut pipe = child.stdin.take().expect("a pipe");
    let mut out = child.stdout.take().expect("a pipe");
    let mut err = child.stderr.take().expect("a pipe");
    std::thread::scope(|scope| {
        // A child may leave without reading all of it.
        scope.spawn(move || drop(pipe.write_all(stdin)));
        let stdout = scope.spawn(move || read_all(&mut out));
        let stderr = scope.spawn(move || read_all(&mut err));
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child to wait for") {
                break status;
            }
            if started.elapsed() > TIMEOUT {
                child.kill().expect("a child to kill");
                child.wait().expect("a child to wait for");
                panic!("{command:?} took longer than {TIMEOUT:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let stdout_bytes = stdout.join().expect("stdout");
        let stderr = String::from_utf8_lossy(&stderr.join().expect("stderr")).into_owned();
        let stdout = String::from_utf8_lossy(&stdout_bytes).into_owned();
        Outcome { status, code: status.code(), stdout, stdout_bytes: Bytes(stdout_bytes), stderr }
    })
}

fn read_all(input: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    input.read_to_end(&mut all).expect("a child's output");
    all
}

/// Starts this very test again in a process of its own, with `part` in the environment; [`part`] gives it there. For
/// what belongs to a whole process: its umask, its limits, its death.
pub fn again(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test's own path"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    command
}

/// The part that this process was started for by [`again`].
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

const PART: &str = "VOXELTRON_TEST_PART";

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn from_runner(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run the tests by tests/run, which provides it"))
}

/// Runs a Python script of the repository with the packages of `tests/requirements.txt`.
pub fn python<S: AsRef<OsStr>>(script: &str, args: &[S], stdin: &[u8]) -> Outcome {
    let mut command = Command::new(from_runner("VOXELTRON_TEST_PYTHON"));
    // No byte code beside the scripts.
    command.arg("-B").arg(repository(script)).args(args).env_clear().env("PATH", "/usr/bin:/bin");
    run(&mut command, stdin)
}

/// The same where it must succeed; gives its stdout.
pub fn python_ok<S: AsRef<OsStr>>(script: &str, args: &[S], stdin: &[u8]) -> Vec<u8> {
    let outcome = python(script, args, stdin);
    assert!(outcome.status.success(), "{script} failed: {outcome:?}");
    outcome.stdout_bytes.0
}

/// What SQLite's own shell prints for `sql`.
pub fn sqlite3(path: &Path, sql: &str) -> String {
    tool(Command::new("sqlite3").args(["-batch", "-bail"]).arg(path).arg(sql), b"")
}

/// Runs a tool that must succeed; gives its stdout as text.
pub fn tool(command: &mut Command, stdin: &[u8]) -> String {
    let outcome = run(command, stdin);
    assert!(outcome.status.success(), "{command:?} failed: {outcome:?}");
    outcome.stdout
}

/// One of PostgreSQL's tools, of the server's own version.
pub fn postgres_tool(name: &str) -> Command {
    Command::new(Path::new(&from_runner("VOXELTRON_TEST_POSTGRES_BIN")).join(name))
}

/// What psql prints for `sql`, unaligned and without headings.
pub fn psql(url: &str, sql: &str) -> String {
    let options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"];
    tool(postgres_tool("psql").args(options).arg(url), sql.as_bytes())
}

/// A PostgreSQL database of the test's own, gone with it.
pub struct Database {
    pub name: String,
    pub url: String,
    server: String,
}

impl Database {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = from_runner("VOXELTRON_TEST_POSTGRES_URL");
        let name = format!("t_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (start, _) = server.rsplit_once('/').expect("VOXELTRON_TEST_POSTGRES_URL ends with /DATABASE");
        let url = format!("{start}/{name}");
        psql(&server, &format!("create database {name} template template0"));
        Self { name, url, server }
    }

    pub fn sql(&self, sql: &str) -> String {
        psql(&self.url, sql)
    }

    /// The URL of another database of the same server.
    pub fn url_of(&self, name: &str) -> String {
        format!("{}/{name}", self.server.rsplit_once('/').map_or("", |(start, _)| start))
    }

    pub fn server_url(&self) -> &str {
        &self.server
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // What a restore has replaced is kept beside.
        let like = format!("{}\\_\\_previous\\_%", self.name.replace('_', "\\_"));
        let kept = format!(
            "select format('drop database %I with (force)', datname) from pg_database where datname like '{like}' \\gexec\n"
        );
        run(postgres_tool("psql").args(["-X", "-q", "-d"]).arg(&self.server).args(["-f", "-"]), kept.as_bytes());
        let sql = format!("drop database if exists {} with (force)", self.name);
        let outcome = run(postgres_tool("psql").args(["-X", "-q", "-d"]).arg(&self.server).args(["-c", &sql]), b"");
        // A second panic would hide the first.
        if !std::thread::panicking() {
            assert!(outcome.status.success(), "can't drop {}: {}", self.name, outcome.stderr);
        }
    }
}
