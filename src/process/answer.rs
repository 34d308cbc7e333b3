//! What a tool answers. Flows in: its standard output. Flows out: all that it printed until its own end, whoever else holds
//! the pipe open. Touches a thread of its own.

use std::io::{self, Read};
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::reader::PIPE_BYTES;
use crate::error::{Error, Kind, Result};

/// The largest answer, in bytes.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How often the reader looks whether the tool has ended, in nanoseconds.
const TICK_NANOS: i64 = 20_000_000;
/// How long is listened to what a tool has left behind with its output, after its end.
const GRACE: Duration = Duration::from_millis(200);

/// A tool's standard output, collected by a thread so that the tool never blocks on it.
#[derive(Debug)]
pub(super) struct Answer {
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl Answer {
    pub(super) fn of(stdout: ChildStdout) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let reader = std::thread::spawn(move || collect(stdout, &seen));
        Self { ended, reader: Some(reader) }
    }

    /// What it has printed, once it has ended. A child of it that lives on may hold the pipe open for ever, so nobody waits
    /// for its end; what the tool itself wrote stands in the pipe by now, and is read whole.
    pub(super) fn after_the_end(mut self, name: &str) -> Result<Vec<u8>> {
        self.ended.store(true, Ordering::Release);
        let bytes = match self.reader.take().map(JoinHandle::join) {
            None => Vec::new(),
            Some(Ok(Ok(bytes))) => bytes,
            Some(_) => return Err(Error::new(Kind::Tool, format!("can't read the output of {name}"))),
        };
        if bytes.len() > ANSWER_BYTES {
            return Err(Error::new(Kind::Tool, format!("{name} printed more than {ANSWER_BYTES} bytes")));
        }
        Ok(bytes)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The thread of a tool that failed ends too.
        self.ended.store(true, Ordering::Release);
    }
}

fn collect(mut stdout: ChildStdout, ended: &AtomicBool) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0u8; 64 * 1024]);
    let mut end: Option<(Instant, usize)> = None;
    while bytes.len() <= ANSWER_BYTES {
        // Looked at before the pipe: what is not there then, the tool has not written.
        if end.is_none() && ended.load(Ordering::Acquire) {
            end = Some((Instant::now(), bytes.len()));
        }
        let is_over = end.is_some_and(|(since, _)| since.elapsed() >= GRACE);
        let pause = Timespec { tv_sec: 0, tv_nsec: if is_over { 0 } else { TICK_NANOS } };
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&pause)) {
            Ok(0) if is_over => break,
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match stdout.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // More than a pipe holds is another's, who may never cease.
        if end.is_some_and(|(_, before)| bytes.len().saturating_sub(before) > PIPE_BYTES) {
            break;
        }
    }
    Ok(bytes)
}
