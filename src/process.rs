//! The only spawner of processes. Flows in: an [`Invocation`] (a value, so that every argument list is tested without
//! its tool). Flows out: a dump's bytes with the tool's exit status behind them, or a restore tool's verdict. Touches
//! child processes, each in a process group of its own that ends with us.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Context, Error, Kind, Result, io_reason};
use crate::secret::Secret;
use crate::world::World;

/// How often a waiting loop looks for a signal and at its deadline.
const TICK: Duration = Duration::from_millis(100);
/// How long a child may take to end after SIGTERM before SIGKILL.
const TERM_GRACE: Duration = Duration::from_millis(700);
/// How much of a tool's standard error is kept, in bytes: the end of it.
const TAIL_BYTES: usize = 8 * 1024;
/// How many of its last lines are shown.
const TAIL_LINES: usize = 12;
/// How long a shown line may be, in characters: a tool may echo rows of data.
const TAIL_LINE_CHARS: usize = 240;
/// The largest output of a tool that answers a question, in bytes.
const OUTPUT_BYTES: usize = 64 * 1024 * 1024;
/// The pipe between a tool and us, in bytes.
const PIPE_BYTES: usize = 1024 * 1024;

/// What to start: words, and environment variables whose values nobody prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The program's name or path.
    pub program: String,
    /// Its arguments. They show in the process list, so no secret may stand here.
    pub args: Vec<String>,
    /// Variables set for this child alone; their values are shown nowhere.
    pub env: Vec<(String, Secret)>,
    /// Variables set for this child alone that are no secrets.
    pub vars: Vec<(String, String)>,
    /// Words put before it, so that it runs elsewhere; none: it runs here.
    pub exec: Vec<String>,
    /// What it reads from its standard input before everything else: a line with a secret.
    pub first_line: Option<Secret>,
}

impl Invocation {
    /// A call of `program` without arguments.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            vars: Vec::new(),
            exec: Vec::new(),
            first_line: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable that is no secret in the child's environment.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a secret variable in the child's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: Secret) -> Self {
        self.env.push((name.to_owned(), value));
        self
    }

    /// Runs it by these words, where neither our environment nor our files are.
    #[must_use]
    pub fn through(mut self, exec: &[String]) -> Self {
        self.exec = exec.to_vec();
        self
    }

    /// Gives it a secret as the first line of its standard input, for a tool that asks for its password there.
    #[must_use]
    pub fn first_line(mut self, secret: Secret) -> Self {
        self.first_line = Some(secret);
        self
    }

    /// The command line as a shell would take it; values of variables are left out.
    pub fn display(&self) -> String {
        let mut words: Vec<String> = self.vars.iter().map(|(name, value)| format!("{name}={}", quote(value))).collect();
        words.extend(self.env.iter().map(|(name, _)| format!("{name}=…")));
        words.extend(std::iter::once(&self.program).chain(&self.args).map(|word| quote(word)));
        words.join(" ")
    }

    /// The program's name without its folder, for messages.
    pub fn name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or(&self.program)
    }

    fn command(&self, world: &World) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().process_group(0).stderr(Stdio::piped());
        command.envs(world.vars.for_children());
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command.envs(self.env.iter().map(|(name, value)| (name, value.expose())));
        command
    }

    /// Writes what comes before the input itself: short enough for an empty pipe to take it at once.
    fn open_input(&self, stdin: &mut ChildStdin) -> Result<()> {
        let Some(line) = &self.first_line else { return Ok(()) };
        match stdin.write_all(format!("{}\n", line.expose()).as_bytes()) {
            // It has ended: its status and last words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome.doing(Kind::Tool, format!("can't write to {}", self.name())),
        }
    }

    fn spawn(
        &self,
        world: &World,
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<(Running, Option<ChildStdin>, Option<ChildStdout>)> {
        let mut child = self.command(world).stdin(stdin).stdout(stdout).spawn().map_err(|error| {
            let failure = Error::new(Kind::Tool, format!("can't start {}: {}", self.program, io_reason(&error)));
            match error.kind() {
                io::ErrorKind::NotFound => failure
                    .hint(format!("install {}, or say where it is (tools_dir, for a database's tools)", self.name())),
                _ => failure,
            }
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let tail = Tail::of(child.stderr.take());
        let secrets = self.env.iter().map(|(_, value)| value).chain(&self.first_line).cloned().collect();
        Ok((
            Running { name: self.name().to_owned(), child, tail, secrets, reaped: false, world: world.clone() },
            stdin,
            stdout,
        ))
    }
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The end of a child's standard error, collected by a thread so that the child never blocks on it.
#[derive(Debug)]
struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Tail {
    fn of(stderr: Option<ChildStderr>) -> Self {
        let bytes = Arc::new(Mutex::new(VecDeque::new()));
        let reader = stderr.map(|mut stderr| {
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || {
                let mut buffer = [0u8; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                    let mut kept = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend(buffer.iter().take(count));
                    let surplus = kept.len().saturating_sub(TAIL_BYTES);
                    kept.drain(..surplus);
                }
            })
        });
        Self { bytes, reader }
    }

    /// The last lines. A grandchild may hold the pipe open, so the reader gets a moment and no more.
    fn lines(&mut self, secrets: &[Secret], world: &World) -> Vec<String> {
        let started = world.clock.monotonic();
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
            && world.clock.monotonic().saturating_sub(started) < Duration::from_millis(300)
        {
            world.clock.sleep(Duration::from_millis(2));
        }
        self.so_far(secrets)
    }

    /// The last lines that have come until now.
    fn so_far(&self, secrets: &[Secret]) -> Vec<String> {
        let bytes: Vec<u8> = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for secret in secrets.iter().map(Secret::expose).filter(|secret| secret.len() > 2) {
            text = text.replace(secret, "…");
        }
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let first = lines.len().saturating_sub(TAIL_LINES);
        lines.iter().skip(first).map(|line| shorten(line)).collect()
    }
}

fn shorten(line: &str) -> String {
    let clean: String = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    if clean.chars().count() <= TAIL_LINE_CHARS {
        return clean;
    }
    clean.chars().take(TAIL_LINE_CHARS).chain("…".chars()).collect()
}

/// A child that does not outlive this value.
#[derive(Debug)]
struct Running {
    name: String,
    child: Child,
    tail: Tail,
    secrets: Vec<Secret>,
    reaped: bool,
    world: World,
}

impl Running {
    /// Fails when a signal has come or the deadline has passed.
    fn check(&self, deadline: Option<Duration>) -> Result<()> {
        self.world.cancel.check()?;
        match deadline {
            Some(deadline) if self.world.clock.monotonic() >= deadline => {
                Err(Error::new(Kind::Tool, format!("{} did not finish within its time and was stopped", self.name))
                    .tail(self.tail.so_far(&self.secrets))
                    .hint("raise the timeout, or look at what the database is waiting for"))
            }
            _ => Ok(()),
        }
    }

    /// Waits for the end and turns a bad status into an error with the child's last words.
    fn finish(&mut self, deadline: Option<Duration>) -> Result<()> {
        let status = loop {
            if let Some(status) = self.try_wait()? {
                break status;
            }
            self.check(deadline)?;
            self.world.clock.sleep(Duration::from_millis(2));
        };
        if status.success() {
            return Ok(());
        }
        let tail = self.tail.lines(&self.secrets, &self.world);
        Err(Error::new(Kind::Tool, format!("{} {}", self.name, describe(status))).tail(tail))
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self
            .child
            .try_wait()
            .map_err(|error| Error::new(Kind::Tool, format!("can't wait for {}: {}", self.name, io_reason(&error))))?;
        self.reaped |= status.is_some();
        Ok(status)
    }

    fn signal_group(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended meanwhile; then there is nobody to tell.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal_group(rustix::process::Signal::TERM);
        let started = self.world.clock.monotonic();
        while self.world.clock.monotonic().saturating_sub(started) < TERM_GRACE {
            if !matches!(self.try_wait(), Ok(None)) {
                return;
            }
            self.world.clock.sleep(Duration::from_millis(5));
        }
        self.signal_group(rustix::process::Signal::KILL);
        // After SIGKILL there is nothing left to do with a failure.
        let _ = self.child.wait();
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Waits until `fd` is ready for `flags`, in steps, so that a signal and the deadline are noticed.
fn wait_ready(fd: &impl AsFd, flags: PollFlags, running: &Running, deadline: Option<Duration>) -> io::Result<()> {
    let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
    loop {
        running.check(deadline).map_err(Error::into_io)?;
        match poll(&mut [PollFd::new(fd, flags)], Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A tool's standard output. At its end the tool is waited for: a bad status, a passed deadline or a signal is a read
/// error, and stays one, so that a cut dump never looks like a whole one.
#[derive(Debug)]
pub struct DumpReader {
    running: Running,
    stdout: ChildStdout,
    deadline: Option<Duration>,
    end: Option<Result<()>>,
}

impl DumpReader {
    /// Starts the tool; `deadline` is on the monotonic clock.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be started.
    pub fn spawn(call: &Invocation, deadline: Option<Duration>, world: &World) -> Result<Self> {
        let stdin = if call.first_line.is_some() { Stdio::piped() } else { Stdio::null() };
        let (running, stdin, stdout) = call.spawn(world, stdin, Stdio::piped())?;
        if let Some(mut stdin) = stdin {
            call.open_input(&mut stdin)?;
        }
        let stdout = stdout.ok_or_else(|| Error::new(Kind::Tool, format!("{} has no standard output", call.name())))?;
        // A larger pipe saves switches between tool and reader; where the system says no, the small one works.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
        Ok(Self { running, stdout, deadline, end: None })
    }
}

impl Read for DumpReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| 0).map_err(Error::into_io);
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let outcome = wait_ready(&self.stdout, PollFlags::IN, &self.running, self.deadline)
            .and_then(|()| self.stdout.read(buffer));
        let end = match outcome {
            Ok(0) => self.running.finish(self.deadline),
            Ok(count) => return Ok(count),
            Err(error) => Err(Error::from_io(error, Kind::Tool, format!("can't read from {}", self.running.name))),
        };
        self.end = Some(end.clone());
        end.map(|()| 0).map_err(Error::into_io)
    }
}

/// A tool that takes its input from us. Dropped before [`RestoreWriter::finish`], it is stopped, so that it never takes
/// the end of a failed stream for the end of its input.
#[derive(Debug)]
pub struct RestoreWriter {
    running: Running,
    stdin: Option<ChildStdin>,
    stdout: Option<JoinHandle<io::Result<Vec<u8>>>>,
    deadline: Option<Duration>,
}

impl RestoreWriter {
    /// Starts the tool; `deadline` is on the monotonic clock.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be started.
    pub fn spawn(call: &Invocation, deadline: Option<Duration>, world: &World) -> Result<Self> {
        let (running, stdin, stdout) = call.spawn(world, Stdio::piped(), Stdio::piped())?;
        let mut stdin = stdin;
        if let Some(stdin) = &mut stdin {
            call.open_input(stdin)?;
            // Non-blocking, so that a tool that stops reading can't hold us past a signal.
            rustix::io::ioctl_fionbio(&*stdin, true)
                .map_err(|error| Error::new(Kind::Tool, format!("can't write to {}: {error}", call.name())))?;
            let _ = rustix::pipe::fcntl_setpipe_size(&*stdin, PIPE_BYTES);
        }
        let stdout = stdout.map(|stdout| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stdout.take(OUTPUT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
                Ok(bytes)
            })
        });
        Ok(Self { running, stdin, stdout, deadline })
    }

    /// Ends the input, waits for the tool, and gives what it printed.
    ///
    /// # Errors
    /// [`Kind::Tool`] with the tool's last words when its status is bad; [`Kind::Stopped`] after a signal.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.finish_telling()?.0)
    }

    /// The same, with the last lines of its standard error, for a tool that says there what its status hides.
    ///
    /// # Errors
    /// As [`RestoreWriter::finish`].
    pub fn finish_telling(mut self) -> Result<(Vec<u8>, Vec<String>)> {
        self.stdin = None;
        self.running.finish(self.deadline)?;
        let name = &self.running.name;
        let bytes = match self.stdout.take().map(JoinHandle::join) {
            None => Vec::new(),
            Some(Ok(Ok(bytes))) => bytes,
            Some(_) => return Err(Error::new(Kind::Tool, format!("can't read the output of {name}"))),
        };
        if bytes.len() > OUTPUT_BYTES {
            return Err(Error::new(Kind::Tool, format!("{name} printed more than {OUTPUT_BYTES} bytes")));
        }
        Ok((bytes, self.running.tail.lines(&self.running.secrets, &self.running.world)))
    }
}

impl Write for RestoreWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &mut self.stdin else {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        };
        loop {
            wait_ready(stdin, PollFlags::OUT, &self.running, self.deadline)?;
            match stdin.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The tool has closed its input: its status and last words say why, not the broken pipe.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.stdin = None;
                    self.running.finish(self.deadline).map_err(Error::into_io)?;
                    let early = format!("{} ended before it had read the whole dump", self.running.name);
                    return Err(Error::new(Kind::Tool, early).into_io());
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a tool to its end with `input`, and gives what it printed.
///
/// # Errors
/// [`Kind::Tool`] when it can't be started or its status is bad; [`Kind::Stopped`] after a signal.
pub fn run(call: &Invocation, input: &[u8], deadline: Option<Duration>, world: &World) -> Result<Vec<u8>> {
    let mut tool = RestoreWriter::spawn(call, deadline, world)?;
    tool.write_all(input)
        .map_err(|error| Error::from_io(error, Kind::Tool, format!("can't write to {}", call.name())))?;
    tool.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Vars;

    fn sh(script: &str) -> Invocation {
        Invocation::new("sh").args(["-c", script])
    }

    fn read(call: &Invocation, deadline: Option<Duration>, world: &World) -> (Vec<u8>, Result<(), Error>) {
        let mut out = Vec::new();
        let mut reader = DumpReader::spawn(call, deadline, world).unwrap();
        let outcome = reader.read_to_end(&mut out).map(drop);
        let outcome = outcome.map_err(|error| Error::from_io(error, Kind::Other, "x"));
        let again = reader.read(&mut [0; 8]).map_err(|error| Error::from_io(error, Kind::Other, "x"));
        assert_eq!(again.map(drop), outcome, "the end stays what it was");
        (out, outcome)
    }

    #[test]
    fn a_bad_status_behind_all_the_bytes_is_an_error() {
        let (out, outcome) = read(&sh("echo whole; exit 3"), None, &World::system());
        assert_eq!(out, b"whole\n");
        assert_eq!(outcome.unwrap_err().message, "sh failed with exit status 3");
        let (_, outcome) = read(&sh("echo whole; kill -9 $$"), None, &World::system());
        assert_eq!(outcome.unwrap_err().message, "sh was killed by signal 9");
        assert_eq!(read(&sh("echo whole"), None, &World::system()), (b"whole\n".to_vec(), Ok(())));
        assert_eq!(run(&sh("exit 4"), b"", None, &World::system()).unwrap_err().kind, Kind::Tool);
    }

    #[test]
    fn a_deadline_ends_what_writes_and_what_waits() {
        let world = World::system();
        let soon = || Some(world.clock.monotonic() + Duration::from_millis(200));
        for script in ["exec sleep 3", "exec >&-; exec sleep 3"] {
            let error = read(&sh(script), soon(), &world).1.unwrap_err();
            assert_eq!(
                (error.kind, error.message.as_str()),
                (Kind::Tool, "sh did not finish within its time and was stopped")
            );
            let error = run(&sh(script), b"", soon(), &world).unwrap_err();
            assert!(error.message.contains("within its time"), "{error}");
        }
    }

    #[test]
    fn a_tail_shows_no_secret_and_not_much() {
        let noisy = "echo \"FATAL: password $PW is wrong\" >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; \
                     for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo >&2; echo \"$n $PW\" >&2; done; exit 1";
        for script in ["echo \"FATAL: password $PW is wrong\" >&2; exit 1", noisy] {
            let error = read(&sh(script).env("PW", Secret::new("canary")), None, &World::system()).1.unwrap_err();
            assert!(error.tail.iter().all(|line| !line.contains("canary")), "{:?}", error.tail);
            assert!(error.tail.iter().any(|line| line.contains('…')), "{:?}", error.tail);
            assert!(error.tail.len() <= TAIL_LINES, "{:?}", error.tail);
            assert!(error.tail.iter().all(|line| line.chars().count() <= TAIL_LINE_CHARS + 1), "{:?}", error.tail);
        }
    }

    #[test]
    fn children_get_the_environment_without_what_is_ours() {
        let vars = ["PATH", "HOME", "VOXELTRON_BACKUP_ENCRYPTION_KEY", "CREDENTIALS_DIRECTORY", "MY_KEY"];
        let vars = vars.map(|name| (name.to_owned(), std::env::var(name).unwrap_or_else(|_| "x".to_owned())));
        let vars = Arc::new(Vars::new(vars).hiding(["MY_KEY".to_owned()]));
        let printed = run(&Invocation::new("env"), b"", None, &World { vars, ..World::system() }).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        let names: Vec<&str> = printed.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert_eq!(names, ["HOME", "PATH"]);
    }
}
