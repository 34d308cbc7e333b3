//! The last words of a tool. Flows in: its standard error. Flows out: the end of it, cut and without secrets, and the mark
//! that says how a tool elsewhere began. Touches a thread of its own.

use std::collections::VecDeque;
use std::io::Read;
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::secret::Secret;
use crate::world::World;

/// How much of a tool's standard error is kept, in bytes: the end of it, and what a tool repeats of a long statement.
const TAIL_BYTES: usize = 64 * 1024;
/// How many of its last lines are shown.
pub(super) const TAIL_LINES: usize = 12;
/// How long a shown line may be, in characters: a tool may echo rows of data.
pub(super) const TAIL_LINE_CHARS: usize = 240;

/// What `pg_restore` puts before the statement that failed. It repeats all of that: a password of a foreign server or of a
/// subscription with it, or so many lines of a function that the reason is no longer among the last ones.
const ECHO: &str = "Command was: ";
/// What its next word begins with.
const ECHO_ENDS: &str = "pg_restore: ";

/// The end of a child's standard error, collected by a thread so that the child never blocks on it.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    mark: Arc<Mutex<Option<Mark>>>,
    reader: Option<JoinHandle<()>>,
}

impl Tail {
    /// Collects from `stderr`; a line that begins with `token` is a mark from where the tool runs, and none of its words.
    pub(super) fn of(stderr: Option<ChildStderr>, token: Option<String>) -> Self {
        let bytes = Arc::new(Mutex::new(VecDeque::new()));
        let mark = Arc::new(Mutex::new(None));
        let mut sieve = Sieve { token, pending: Vec::new(), mark: Arc::clone(&mark) };
        let reader = stderr.map(|mut stderr| {
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || {
                let mut buffer = [0u8; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                    keep(&bytes, &sieve.pass(buffer.get(..count).unwrap_or_default()));
                }
                keep(&bytes, &sieve.pending);
            })
        });
        Self { bytes, mark, reader }
    }

    /// What has come from where the tool runs.
    pub(super) fn mark(&self) -> Option<Mark> {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last lines. A grandchild may hold the pipe open, so the reader gets a moment and no more; a longer one for the
    /// first word, since on a busy host the reader may not have run yet.
    pub(super) fn lines(&mut self, secrets: &[Secret], world: &World) -> Vec<String> {
        let started = world.clock.monotonic();
        let silent = || self.bytes.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let moment = || Duration::from_millis(if silent() { 2000 } else { 300 });
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
            && world.clock.monotonic().saturating_sub(started) < moment()
        {
            world.clock.sleep(Duration::from_millis(2));
        }
        self.so_far(secrets)
    }

    /// The last lines that have come until now.
    pub(super) fn so_far(&self, secrets: &[Secret]) -> Vec<String> {
        let bytes: Vec<u8> = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for secret in secrets.iter().map(Secret::expose).filter(|secret| secret.len() > 2) {
            text = text.replace(secret, "…");
        }
        let lines: Vec<String> = without_echoes(&text).filter(|line| !line.trim().is_empty()).collect();
        let first = lines.len().saturating_sub(TAIL_LINES);
        lines.iter().skip(first).map(|line| shorten(line)).collect()
    }
}

/// The lines, and of each statement that is repeated only what sort of thing it makes.
fn without_echoes(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut inside = false;
    text.lines().filter_map(move |line| {
        inside &= !line.starts_with(ECHO_ENDS);
        if inside {
            return None;
        }
        inside = line.starts_with(ECHO);
        match line.find(['\'', '(', '$']).filter(|_| inside) {
            Some(at) => Some(format!("{}…", line.get(..at).unwrap_or_default())),
            None => Some(line.to_owned()),
        }
    })
}

fn keep(bytes: &Mutex<VecDeque<u8>>, more: &[u8]) {
    let mut kept = bytes.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(more);
    let surplus = kept.len().saturating_sub(TAIL_BYTES);
    kept.drain(..surplus);
}

/// What a shell where the tool runs tells us before it starts the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The tool has this process number there.
    Started(u32),
    /// There is no such tool there.
    Missing,
}

/// Takes the one line with a token out of a stream.
#[derive(Debug)]
struct Sieve {
    token: Option<String>,
    pending: Vec<u8>,
    mark: Arc<Mutex<Option<Mark>>>,
}

impl Sieve {
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(token) = &self.token else { return bytes.to_vec() };
        self.pending.extend(bytes);
        let wanted = token.as_bytes();
        if let Some(start) = self.pending.windows(wanted.len()).position(|part| part == wanted) {
            let mut rest = self.pending.split_off(start);
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                let before = std::mem::take(&mut self.pending);
                self.pending = rest;
                return before;
            };
            let after = rest.split_off(end.saturating_add(1));
            let said = String::from_utf8_lossy(rest.get(wanted.len()..).unwrap_or_default()).trim().to_owned();
            let mark = said.parse().map_or(Mark::Missing, Mark::Started);
            *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark);
            self.token = None;
            return [std::mem::take(&mut self.pending), after].concat();
        }
        // The end of it may be the token's beginning.
        let whole = self.pending.len().saturating_sub(wanted.len());
        let rest = self.pending.split_off(whole);
        std::mem::replace(&mut self.pending, rest)
    }
}

fn shorten(line: &str) -> String {
    let clean: String = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    if clean.chars().count() <= TAIL_LINE_CHARS {
        return clean;
    }
    clean.chars().take(TAIL_LINE_CHARS).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_is_repeated_gives_nothing_away() {
        let said = "pg_restore: error: could not execute query: ERROR:  role \"fx\" does not exist\n\
                    Command was: CREATE USER MAPPING FOR fx SERVER far OPTIONS (\n    password 'geheim'\n);\n\n\
                    pg_restore: warning: errors ignored on restore: 1\n\
                    Command was: CREATE SUBSCRIPTION s CONNECTION 'password=geheim'\nmore\n";
        let lines: Vec<String> = without_echoes(said).collect();
        assert_eq!(
            lines,
            [
                "pg_restore: error: could not execute query: ERROR:  role \"fx\" does not exist",
                "Command was: CREATE USER MAPPING FOR fx SERVER far OPTIONS …",
                "pg_restore: warning: errors ignored on restore: 1",
                "Command was: CREATE SUBSCRIPTION s CONNECTION …"
            ]
        );
    }

    #[test]
    fn the_mark_is_found_however_the_stream_is_cut_and_is_none_of_the_words() {
        let stream = b"warning: old\nthe token: 417\nlast words".as_slice();
        for piece in 1..=stream.len() {
            let mark = Arc::default();
            let mut sieve = Sieve { token: Some("the token:".into()), pending: Vec::new(), mark: Arc::clone(&mark) };
            let mut words: Vec<u8> = stream.chunks(piece).flat_map(|bytes| sieve.pass(bytes)).collect();
            words.extend(&sieve.pending);
            assert_eq!(String::from_utf8(words).unwrap(), "warning: old\nlast words");
            assert_eq!(*mark.lock().unwrap(), Some(Mark::Started(417)));
        }
    }
}
