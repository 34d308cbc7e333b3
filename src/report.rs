//! The only writer of stdout and stderr. Flows in: messages, reports, progress. Flows out: text for people, or one JSON
//! document. Touches the two streams and asks whether they are terminals.
//!
//! Rules for output:
//! - stdout carries only what was asked for: a list, a report, a restored stream. With `--json` it is one document.
//! - Everything else goes to stderr: steps, warnings, errors, progress. `-q` leaves warnings and errors; `-v` adds
//!   every command that is run, secrets left out.
//! - Progress is drawn only on a terminal (or with `--progress always`), and only for what lasts over a second.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::command::JSON_FORMAT;
use crate::engine::Step;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::format::time::serde_rfc3339;

/// How much of a stream is copied at a time, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// When to do something that depends on the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// When stderr is a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Warnings and errors.
    Quiet,
    /// Steps and results too.
    #[default]
    Normal,
    /// Every command too.
    Verbose,
}

/// What the command line says about output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// How much.
    pub level: Level,
    /// One JSON document on stdout.
    pub json: bool,
    /// Progress bars.
    pub progress: When,
    /// Colour.
    pub color: When,
    /// Whether stderr is the journal's, which wants each line's priority before it.
    pub journal: bool,
}

/// Syslog's priorities, as far as they are used.
#[derive(Clone, Copy, Debug)]
enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

/// Whether stderr is the stream that systemd calls the journal's: `JOURNAL_STREAM` holds its device and inode.
pub fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
}

/// Two streams that a test can read back.
type Captured = Arc<Mutex<(Vec<u8>, Vec<u8>)>>;

/// Where output goes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Report {
    style: Style,
    captured: Option<Captured>,
    steps: Arc<Mutex<Vec<Begun>>>,
}

/// A step of a restore that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// Which.
    pub step: Step,
    /// When.
    #[serde(with = "serde_rfc3339")]
    pub at: DateTime<Utc>,
    /// What is done, and to what.
    pub what: String,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("style", &self.style).finish_non_exhaustive()
    }
}

impl Report {
    /// To the process's own streams.
    pub fn new(style: Style) -> Self {
        Self { style, ..Self::default() }
    }

    /// Into memory; [`Report::captured`] gives it back.
    pub fn capturing(style: Style) -> Self {
        Self { style, captured: Some(Captured::default()), ..Self::default() }
    }

    /// What a capturing report has got: stdout and stderr.
    pub fn captured(&self) -> (String, String) {
        let Some(both) = &self.captured else { return Default::default() };
        let both = both.lock().unwrap_or_else(PoisonError::into_inner);
        (String::from_utf8_lossy(&both.0).into_owned(), String::from_utf8_lossy(&both.1).into_owned())
    }

    /// Whether one JSON document is wanted.
    pub fn is_json(&self) -> bool {
        self.style.json
    }

    /// The same report without steps and progress, for jobs that run side by side.
    pub fn style(&self) -> Style {
        self.style
    }

    fn write_err(&self, text: &str) {
        match &self.captured {
            Some(both) => both.lock().unwrap_or_else(PoisonError::into_inner).1.extend_from_slice(text.as_bytes()),
            // If stderr is gone there is nobody to tell.
            None => drop(io::stderr().lock().write_all(text.as_bytes())),
        }
    }

    /// Writes a message, of one or more lines.
    fn say(&self, priority: Priority, text: &str) {
        if !self.style.journal {
            return self.write_err(&format!("{text}\n"));
        }
        let lines: String = text.lines().map(|line| format!("<{}>{line}\n", priority as u8)).collect();
        self.write_err(&lines);
    }

    /// Writes bytes to stdout.
    ///
    /// # Errors
    /// [`Kind::Other`] when stdout can't be written; a reader that has gone away is success.
    pub fn stdout_bytes(&self, bytes: &[u8]) -> Result<()> {
        let outcome = match &self.captured {
            Some(both) => {
                both.lock().unwrap_or_else(PoisonError::into_inner).0.extend_from_slice(bytes);
                Ok(())
            }
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| Error::from_io(error, Kind::Other, "can't write to stdout")),
        }
    }

    /// Copies a restored stream to stdout.
    ///
    /// # Errors
    /// The stream's own, or [`Kind::Other`] when stdout can't take all of it: a reader that has gone away has not got
    /// the dump.
    pub fn stdout_copy(&self, stream: &mut dyn Read) -> Result<u64> {
        let mut stdout = io::stdout().lock();
        let mut buffer = vec![0u8; COPY_BYTES];
        let mut total = 0u64;
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::from_io(error, Kind::Other, "can't read the backup")),
            };
            let outcome = stdout.write_all(buffer.get(..count).unwrap_or_default());
            outcome.map_err(|error| Error::from_io(error, Kind::Other, "can't write the whole dump to stdout"))?;
            total += count as u64;
        }
        stdout.flush().map_err(|error| Error::from_io(error, Kind::Other, "can't write the whole dump to stdout"))?;
        Ok(total)
    }

    /// Writes what was asked for, as text that can't command a terminal, with a newline; nothing under `--json`.
    ///
    /// # Errors
    /// As [`Report::stdout_bytes`].
    pub fn out(&self, text: &str) -> Result<()> {
        if self.style.json || text.is_empty() {
            return Ok(());
        }
        self.stdout_bytes(format!("{}\n", harmless(text.trim_end_matches('\n'))).as_bytes())
    }

    /// Writes the one JSON document, if it is wanted.
    ///
    /// # Errors
    /// As [`Report::stdout_bytes`].
    pub fn json(&self, document: &impl Serialize) -> Result<()> {
        if !self.style.json {
            return Ok(());
        }
        let mut text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::other(format!("can't write the JSON document: {error}")))?;
        text.push('\n');
        self.stdout_bytes(text.as_bytes())
    }

    fn painted(&self, text: &str, code: &str) -> String {
        let on = match self.style.color {
            When::Always => true,
            When::Never => false,
            When::Auto => self.captured.is_none() && io::stderr().is_terminal(),
        };
        if on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A result or a step that a person wants to see.
    pub fn note(&self, text: &str) {
        if self.style.level >= Level::Normal {
            self.say(Priority::Info, &harmless(text));
        }
    }

    /// A step of a restore begins. Its document names them, too, with the time of each.
    pub fn step(&self, step: Step, at: DateTime<Utc>, what: &str) {
        self.note(what);
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(Begun { step, at, what: what.to_owned() });
    }

    /// The steps that have begun.
    pub fn steps(&self) -> Vec<Begun> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What only `-v` shows.
    pub fn detail(&self, text: &str) {
        if self.style.level >= Level::Verbose {
            self.say(Priority::Debug, &harmless(text));
        }
    }

    /// Something that is not right but stops nothing.
    pub fn warn(&self, text: &str) {
        self.say(Priority::Warning, &format!("{}: {}", self.painted("warning", "33"), harmless(text)));
    }

    /// A failure, with the tool's last words and the mend.
    pub fn error(&self, error: &Error) {
        let mut text = format!("{}\n", error.message);
        for line in &error.tail {
            text.push_str(&format!("  | {line}\n"));
        }
        if let Some(hint) = &error.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        self.say(Priority::Error, &format!("{}: {}", self.painted("error", "31"), harmless(text.trim_end())));
    }

    /// Whether there is somebody to ask: stdin and stderr are both terminals.
    pub fn can_ask(&self) -> bool {
        self.captured.is_none() && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks, and takes only "yes" for one.
    ///
    /// # Errors
    /// [`Kind::Other`] when stdin can't be read.
    pub fn ask(&self, question: &str) -> Result<bool> {
        self.write_err(&format!("{} [yes/no] ", harmless(question)));
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Error::from_io(error, Kind::Other, "can't read the answer"))?;
        Ok(matches!(answer.trim(), "yes" | "y"))
    }

    /// Whether progress is drawn.
    fn draws(&self) -> bool {
        let wanted = match self.style.progress {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stderr().is_terminal(),
        };
        wanted && self.captured.is_none() && self.style.level > Level::Quiet
    }

    /// A bar for `total` bytes (unknown: `None`), shown after a second, gone when dropped.
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        if !self.draws() {
            return Progress(None);
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => "{prefix}: {bytes} of {total_bytes} ({percent} %), {bytes_per_sec}, {elapsed}, {eta} to go",
            None => "{prefix}: {bytes}, {bytes_per_sec}, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(harmless(label).into_owned());
        Progress(Some(bar))
    }
}

/// A text without what would command a terminal: names come from stores and servers that others may write to.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let commands = |c: char| c.is_control() && c != '\n' && c != '\t';
    match text.contains(commands) {
        true => Cow::Owned(text.replace(commands, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// Says what the command line's reader has to say: help and version on stdout, everything else on stderr. `command` is
/// the one that was meant, if that is clear; it is for the JSON document, if one is wanted.
pub fn usage(error: &clap::Error, command: Option<&str>, json: bool) -> Exit {
    // If the stream is gone there is nobody to tell.
    drop(error.print());
    if !error.use_stderr() {
        return Exit::Done;
    }
    if json {
        let text = error.render().to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim();
        let error = Error::new(Kind::Usage, message.strip_prefix("error: ").unwrap_or(message));
        let document = serde_json::json!({"format": JSON_FORMAT, "command": command, "error": error});
        drop(Report::new(Style { json, ..Style::default() }).json(&document));
    }
    Exit::Usage
}

/// A progress bar, or nothing.
#[derive(Clone, Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// How long work lasts before a bar appears.
    const AFTER: Duration = Duration::from_secs(1);

    /// `count` more bytes have passed.
    pub fn add(&self, count: u64) {
        if let Some(bar) = &self.0 {
            if bar.is_hidden() && bar.elapsed() >= Self::AFTER {
                bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
            }
            bar.inc(count);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
