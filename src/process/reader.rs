//! A dump tool's end of the pipe. Flows in: a call. Flows out: its standard output, with its exit status behind. Touches
//! the tool.

use std::io::{self, Read};
use std::time::Duration;

use rustix::event::PollFlags;

use super::call::{Invocation, Mode};
use super::running::{Running, wait_ready};
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// The pipe between a tool and us, in bytes.
pub(super) const PIPE_BYTES: usize = 1024 * 1024;

/// A tool's standard output. At its end the tool is waited for: a bad status, a passed deadline or a signal is a read
/// error, and stays one, so that a cut dump never looks like a whole one.
#[derive(Debug)]
pub struct DumpReader {
    running: Running,
    deadline: Option<Duration>,
    end: Option<Result<()>>,
}

impl DumpReader {
    /// Starts the tool; `deadline` is on the monotonic clock.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be started.
    pub fn spawn(call: &Invocation, deadline: Option<Duration>, world: &World) -> Result<Self> {
        let running = call.spawn(world, Mode::Dump)?;
        if let Some(stdout) = &running.stdout {
            // A larger pipe saves switches between tool and reader; where the system says no, the small one works.
            let _ = rustix::pipe::fcntl_setpipe_size(stdout, PIPE_BYTES);
        }
        Ok(Self { running, deadline, end: None })
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(stdout) = &self.running.stdout {
            wait_ready(stdout, PollFlags::IN, &self.running, self.deadline)?;
        }
        match &mut self.running.stdout {
            Some(stdout) => stdout.read(buffer),
            None => Err(io::Error::other("it has no standard output")),
        }
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
        let end = match self.next(buffer) {
            Ok(0) => self.running.finish(self.deadline),
            Ok(count) => return Ok(count),
            Err(error) => Err(Error::from_io(error, Kind::Tool, format!("can't read from {}", self.running.name))),
        };
        self.end = Some(end.clone());
        end.map(|()| 0).map_err(Error::into_io)
    }
}
