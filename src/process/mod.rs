//! The only spawner of processes. Flows in: an [`Invocation`] (a value, so that every argument list is tested without
//! its tool). Flows out: a dump's bytes with the tool's exit status behind them, or a restore tool's verdict. Touches
//! child processes, each in a process group of its own that ends with us.
//!
//! [`call`] is what to start and starts it, [`exec`] how a tool runs elsewhere, [`running`] waits for it and stops it,
//! [`tail`] keeps its last words, [`answer`] what it prints, [`reader`] and [`writer`] are its two ends.

use std::io::Write;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::world::World;

pub mod answer;
pub mod call;
pub mod exec;
pub mod reader;
pub mod running;
pub mod tail;
pub mod writer;

pub use self::call::Invocation;
pub use self::reader::DumpReader;
pub use self::writer::RestoreWriter;

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
    use std::io::Read;
    use std::sync::Arc;

    use super::tail::{TAIL_LINE_CHARS, TAIL_LINES};
    use super::*;
    use crate::secret::Secret;
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
        for script in ["exec sleep 60", "exec >&-; exec sleep 60"] {
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
    fn what_a_tool_leaves_behind_with_its_output_holds_nobody_up() {
        let world = World::system();
        let started = world.clock.monotonic();
        let all = "x\n".repeat(50_000);
        let printed = run(&sh("sleep 300 & yes x | head -50000"), b"", None, &world).unwrap();
        assert!(printed == all.as_bytes(), "all that it wrote: {} bytes", printed.len());
        run(&sh("(while head -c 20000 /dev/zero; do :; done) & sleep 0.1"), b"", None, &world).unwrap();
        assert!(world.clock.monotonic() - started < Duration::from_secs(120));
    }

    #[test]
    fn what_ignores_a_signal_is_killed_though_its_parent_ended() {
        let world = World::system();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid").display().to_string();
        let script =
            format!("(trap '' TERM; while :; do sleep 0.1; done) & echo $! > {path}.new; mv {path}.new {path}; wait");
        let tool = RestoreWriter::spawn(&sh(&script), None, &world).unwrap();
        let pid = (0..6000).find_map(|_| {
            world.clock.sleep(Duration::from_millis(10));
            std::fs::read_to_string(&path).ok()
        });
        let pid = pid.unwrap().trim().to_owned();
        drop(tool);
        // It has been killed; whoever adopts it may leave it as a zombie.
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        assert!((0..6000).any(|_| {
            world.clock.sleep(Duration::from_millis(10));
            !lives()
        }));
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
