//! What the engines' calls of their tools have in common. Flows in: a database's settings. Flows out: invocations that
//! know where they run, failures that come with their mend. Touches the path, to see which tools are there.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cx, Settings};
use crate::error::{Context, Error, Kind, Result, io_reason};
use crate::process::{self, Invocation};

/// Where one database's tools are, and what is added to their arguments.
#[derive(Clone, Debug)]
pub struct Toolbox {
    /// The database's name in the configuration.
    pub configured: String,
    /// More arguments for the dump tool.
    pub dump_args: Vec<String>,
    /// More arguments for the restore tool.
    pub restore_args: Vec<String>,
    folder: Option<PathBuf>,
    exec: Vec<String>,
}

impl Toolbox {
    /// From a database's settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            configured: settings.database.clone(),
            dump_args: settings.dump_args.clone(),
            restore_args: settings.restore_args.clone(),
            folder: settings.tools_dir.clone(),
            exec: settings.exec.clone(),
        }
    }

    /// Whether the tools run elsewhere, where neither our environment nor our files are.
    pub fn runs_elsewhere(&self) -> bool {
        !self.exec.is_empty()
    }

    /// A call of `tool`, a name or a path.
    pub fn call(&self, tool: &str) -> Invocation {
        let program = match &self.folder {
            Some(folder) if !tool.contains('/') => folder.join(tool).display().to_string(),
            _ => tool.to_owned(),
        };
        Invocation::new(program).through(&self.exec)
    }

    /// The first of these tools that is there, or the first of them, whose start will then say that it isn't.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the place where they run can't be asked.
    pub fn find(&self, names: &[&str], cx: &Cx) -> Result<String> {
        let first = names.first().copied().unwrap_or_default();
        let candidates: Vec<String> = match &self.folder {
            Some(folder) => names.iter().map(|name| folder.join(name).display().to_string()).collect(),
            None => names.iter().map(|name| (*name).to_owned()).collect(),
        };
        if self.runs_elsewhere() {
            let script = "for tool; do if command -v \"$tool\" >/dev/null 2>&1; then echo \"$tool\"; exit 0; fi; done";
            let ask = Invocation::new("sh").args(["-c", script, "sh"]).args(&candidates).through(&self.exec);
            let answer = process::run(&ask, b"", cx.deadline, &cx.world)?;
            let found = String::from_utf8_lossy(&answer).trim().to_owned();
            return Ok(candidates.into_iter().find(|name| *name == found).unwrap_or_else(|| first.to_owned()));
        }
        let path = cx.world.vars.get("PATH").unwrap_or_default();
        let there = |name: &&String| match name.contains('/') {
            true => Path::new(name.as_str()).exists(),
            false => std::env::split_paths(path).any(|folder| folder.join(name.as_str()).is_file()),
        };
        Ok(candidates.iter().find(there).or(candidates.first()).cloned().unwrap_or_default())
    }
}

/// A file in `folder` that has no name: from the start where the file system can, else unlinked at once. So nothing is left
/// to sweep, even after a kill.
///
/// # Errors
/// [`Kind::Tool`] when it can't be made.
pub fn nameless(folder: &Path) -> Result<File> {
    let failed = || format!("can't make a temporary file in {}", folder.display());
    std::fs::create_dir_all(folder).doing(Kind::Tool, failed())?;
    tempfile::tempfile_in(folder).map_err(|error| unwritten(&error, &failed()))
}

/// The failure to write what is kept in `data_dir` for as long as a restore takes.
pub fn unwritten(error: &io::Error, what: &str) -> Error {
    let failure = Error::new(Kind::Tool, format!("{what}: {}", io_reason(error)));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            failure.hint("make room there, or set [backup] data_dir to a folder on another disk")
        }
        _ => failure,
    }
}

/// The same context, deaf to signals, with a little time of its own: what must be finished or cleaned up is, though a
/// signal has come or the job's time is over.
pub fn for_cleanup(cx: &Cx, allowance: Duration) -> Cx {
    let world = cx.world.for_cleanup();
    let deadline = Some(world.clock.monotonic() + allowance);
    Cx { world, deadline, ..cx.clone() }
}

/// How long what must be finished or cleaned up waits for a server to which the connection was cut.
const RETURN: Duration = Duration::from_secs(10);
/// How often it is tried in that time.
const RETURN_EVERY: Duration = Duration::from_millis(250);

/// Does what can be done again, as long as it fails for a connection that `is_cut`: networks and servers come back.
///
/// # Errors
/// The last failure.
pub fn patiently<T>(cx: &Cx, is_cut: impl Fn(&Error) -> bool, mut action: impl FnMut() -> Result<T>) -> Result<T> {
    let until = cx.world.clock.monotonic() + RETURN;
    loop {
        match action() {
            Err(error) if is_cut(&error) && !error.is_stopped() && cx.world.clock.monotonic() < until => {
                cx.world.cancel.check()?;
                cx.world.clock.sleep(RETURN_EVERY);
            }
            other => return other,
        }
    }
}

/// A tool's stream whose failure passes through `explain`, which adds the place and the mend.
pub struct Explained<R, F> {
    reader: R,
    explain: F,
}

impl<R, F: Fn(Error) -> Error> Explained<R, F> {
    /// Explains what `reader` fails with.
    pub fn new(reader: R, explain: F) -> Self {
        Self { reader, explain }
    }
}

impl<R, F> fmt::Debug for Explained<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explained").finish_non_exhaustive()
    }
}

impl<R: Read, F: Fn(Error) -> Error> Read for Explained<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let error = Error::from_io(error, Kind::Tool, "can't read the dump");
            if error.is_stopped() { error.into_io() } else { (self.explain)(error).into_io() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Report, Style};
    use crate::world::World;

    #[test]
    fn what_was_cut_is_done_again_and_nothing_else_is() {
        let cx = Cx {
            world: World::system(),
            report: Report::capturing(Style::default()),
            data_dir: std::env::temp_dir(),
            deadline: None,
        };
        let mut tries = 0;
        let mut failing = |message: &'static str, times: u32| {
            tries = 0;
            let outcome = patiently(
                &cx,
                |error| error.message == "cut",
                || {
                    tries += 1;
                    if tries > times { Ok(()) } else { Err(Error::new(Kind::Tool, message)) }
                },
            );
            (outcome.map_err(|error| error.message), tries)
        };
        assert_eq!(failing("cut", 2), (Ok(()), 3));
        assert_eq!(failing("refused", 2), (Err("refused".to_owned()), 1));
        cx.world.cancel.stop(15);
        assert_eq!(failing("cut", 2).1, 1);
    }
}
