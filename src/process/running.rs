//! A child at work. Flows in: what was started. Flows out: its end, as an error if it was not a good one. Touches the
//! child, which does not outlive this, wherever it runs.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::exec::Elsewhere;
use super::tail::Tail;
use crate::error::{Error, Kind, Result, io_reason};
use crate::secret::Secret;
use crate::world::World;

/// How often a waiting loop looks for a signal and at its deadline.
const TICK: Duration = Duration::from_millis(100);
/// How long a child may take to end after SIGTERM before SIGKILL.
const TERM_GRACE: Duration = Duration::from_millis(700);
/// The same where it runs elsewhere, in steps: what is asked there has a way to go.
const ELSEWHERE_GRACE: Duration = Duration::from_millis(2500);

/// A child that does not outlive this value.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) child: Child,
    /// Its standard input, until it ends or is given away.
    pub(super) stdin: Option<ChildStdin>,
    /// Its standard output, until it is given away.
    pub(super) stdout: Option<ChildStdout>,
    pub(super) tail: Tail,
    pub(super) secrets: Vec<Secret>,
    pub(super) reaped: bool,
    /// Whether the end of its input stops it.
    pub(super) holds: bool,
    /// Where it runs, if not here.
    pub(super) elsewhere: Option<Elsewhere>,
    pub(super) world: World,
}

impl Running {
    /// Writes what comes before the input itself: short enough for an empty pipe to take it at once.
    pub(super) fn open(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(stdin) = self.stdin.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(()) };
        match stdin.write_all(bytes) {
            // It has ended: its status and last words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => {
                outcome.map_err(|error| Error::from_io(error, Kind::Tool, format!("can't write to {}", self.name)))
            }
        }
    }

    /// Fails when a signal has come or the deadline has passed.
    pub(super) fn check(&self, deadline: Option<Duration>) -> Result<()> {
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
    pub(super) fn finish(&mut self, deadline: Option<Duration>) -> Result<()> {
        let status = loop {
            if let Some(status) = self.try_wait()? {
                break status;
            }
            self.check(deadline)?;
            self.world.clock.sleep(Duration::from_millis(2));
        };
        if status.success() && (self.elsewhere.is_none() || self.tail.mark().is_some()) {
            return Ok(());
        }
        let tail = self.tail.lines(&self.secrets, &self.world);
        match &self.elsewhere {
            Some(elsewhere) => elsewhere.verdict(&self.name, status, self.tail.mark(), tail),
            None => Err(Error::new(Kind::Tool, format!("{} {}", self.name, describe(status))).tail(tail)),
        }
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self
            .child
            .try_wait()
            .map_err(|error| Error::new(Kind::Tool, format!("can't wait for {}: {}", self.name, io_reason(&error))))?;
        self.reaped |= status.is_some();
        Ok(status)
    }

    /// Whether it has ended within `time`. What it still writes is thrown away, so that a full pipe holds nobody up.
    fn ends_within(&mut self, time: Duration) -> bool {
        let started = self.world.clock.monotonic();
        let mut waste = [0u8; 64 * 1024];
        loop {
            if !matches!(self.try_wait(), Ok(None)) {
                return true;
            }
            if self.world.clock.monotonic().saturating_sub(started) >= time {
                return false;
            }
            let readable = self.stdout.as_ref().is_some_and(|stdout| {
                let pause = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                matches!(poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&pause)), Ok(1..))
            });
            let read = self.stdout.as_mut().filter(|_| readable).map(|stdout| stdout.read(&mut waste));
            match read {
                Some(Ok(1..)) => {}
                Some(_) => self.stdout = None,
                None => self.world.clock.sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Stops it where it runs: a signal to what leads there would not reach it.
    fn stop_elsewhere(&mut self) -> bool {
        let Some(elsewhere) = self.elsewhere.clone() else { return false };
        if self.holds {
            self.stdin = None;
            if self.ends_within(ELSEWHERE_GRACE) {
                return true;
            }
        } else {
            // It may be about to start; its input ends only after it has been stopped.
            let mark = elsewhere.await_mark(&self.tail, &mut self.child, &self.world);
            elsewhere.kill("TERM", mark, &self.world);
            if self.ends_within(TERM_GRACE) {
                return true;
            }
        }
        elsewhere.kill("KILL", self.tail.mark(), &self.world);
        self.ends_within(ELSEWHERE_GRACE)
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(pid) = self.group() {
            // It may have ended meanwhile; then there is nobody to tell.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Whether it and all that it started have ended within `time`: a child of it may outlive it.
    fn group_ends_within(&mut self, time: Duration) -> bool {
        let started = self.world.clock.monotonic();
        if !self.ends_within(time) {
            return false;
        }
        // No other process gets the number while the group has one left.
        while self.group().is_some_and(|pid| test_kill_process_group(pid).is_ok()) {
            if self.world.clock.monotonic().saturating_sub(started) >= time {
                return false;
            }
            self.world.clock.sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped || self.stop_elsewhere() {
            return;
        }
        self.signal_group(Signal::TERM);
        if self.group_ends_within(TERM_GRACE) {
            return;
        }
        self.signal_group(Signal::KILL);
        // After SIGKILL there is nothing left to do with a failure.
        let _ = self.child.wait();
    }
}

/// How a child ended.
pub(super) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Waits until `fd` is ready for `flags`, in steps, so that a signal and the deadline are noticed.
pub(super) fn wait_ready(
    fd: &impl AsFd,
    flags: PollFlags,
    running: &Running,
    deadline: Option<Duration>,
) -> io::Result<()> {
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
