//! A restore tool's end of the pipe. Flows in: a call, and what it is to read. Flows out: what it printed, with its exit
//! status behind. Touches the tool.

use std::io::{self, Write};
use std::process::ChildStdin;
use std::time::Duration;

use rustix::event::PollFlags;

use super::answer::Answer;
use super::call::{Invocation, Mode};
use super::reader::PIPE_BYTES;
use super::running::{Running, wait_ready};
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// A tool that takes its input from us. Dropped before [`RestoreWriter::finish`], it is stopped, so that it never takes
/// the end of a failed stream for the end of its input.
#[derive(Debug)]
pub struct RestoreWriter {
    running: Running,
    stdin: Option<ChildStdin>,
    answer: Option<Answer>,
    deadline: Option<Duration>,
}

impl RestoreWriter {
    /// Starts the tool; `deadline` is on the monotonic clock.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be started.
    pub fn spawn(call: &Invocation, deadline: Option<Duration>, world: &World) -> Result<Self> {
        let mut running = call.spawn(world, Mode::Input)?;
        let (stdin, stdout) = (running.stdin.take(), running.stdout.take());
        if let Some(stdin) = &stdin {
            // Non-blocking, so that a tool that stops reading can't hold us past a signal.
            rustix::io::ioctl_fionbio(stdin, true)
                .map_err(|error| Error::new(Kind::Tool, format!("can't write to {}: {error}", call.name())))?;
            let _ = rustix::pipe::fcntl_setpipe_size(stdin, PIPE_BYTES);
        }
        let answer = stdout.map(Answer::of);
        Ok(Self { running, stdin, answer, deadline })
    }

    /// Ends the input, waits for the tool, and gives what it printed.
    ///
    /// # Errors
    /// [`Kind::Tool`] with the tool's last words when its status is bad; [`Kind::Stopped`] after a signal.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.ends_well()
    }

    /// The same, with the last lines of its standard error, for a tool that says there what its status hides.
    ///
    /// # Errors
    /// As [`RestoreWriter::finish`].
    pub fn finish_telling(mut self) -> Result<(Vec<u8>, Vec<String>)> {
        let bytes = self.ends_well()?;
        Ok((bytes, self.running.tail.lines(&self.running.secrets, &self.running.world)))
    }

    fn ends_well(&mut self) -> Result<Vec<u8>> {
        self.stdin = None;
        self.running.finish(self.deadline)?;
        self.answer.take().map_or_else(|| Ok(Vec::new()), |answer| answer.after_the_end(&self.running.name))
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
