//! The one error type. Flows in: what failed, on what, why. Flows out: a kind (which decides the exit code), a message
//! and, on a line of its own, the mend. Touches nothing.
//!
//! Rules for errors:
//! - Lower case, no final full stop: *what failed*, on *what*, *why*: `target local: can't write /srv/b: no space left`.
//! - The mend goes into the hint; it starts with a verb and names the key, the command or the file.
//! - A failed tool's last lines go into `tail`, cut to a bound before they get here.
//! - No secret, ever: what can hold one is a [`crate::secret::Secret`], which can't be formatted.
//! - An error that has to travel through `std::io` (a dump that dies inside `Read`) is wrapped by [`Error::into_io`] and
//!   comes out whole again through [`Error::from_io`].

use std::fmt;
use std::io;

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. [`crate::exit::Exit`] maps each to an exit code, and nothing else decides one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Whatever has no kind of its own.
    Other,
    /// The command line is wrong.
    Usage,
    /// Some of it was done and some was not.
    Partial,
    /// The configuration, a key file or a secret's source is wrong.
    Config,
    /// Another run holds the lock.
    Locked,
    /// A backup does not authenticate: wrong key, tampered with, cut, renamed.
    Authentication,
    /// A dump or restore tool, or the engine, failed.
    Tool,
    /// A target could not be listed, read or written.
    Target,
    /// There is no such backup.
    NoBackup,
    /// A hook failed.
    Hook,
    /// A signal asked us to stop; its number.
    Stopped(i32),
}

impl Kind {
    /// Its name in JSON documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::Partial => "partial",
            Self::Config => "config",
            Self::Locked => "locked",
            Self::Authentication => "authentication",
            Self::Tool => "tool",
            Self::Target => "target",
            Self::NoBackup => "no-backup",
            Self::Hook => "hook",
            Self::Stopped(_) => "stopped",
        }
    }
}

/// A failure, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed, on what, why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The last lines of a failed tool's standard error.
    pub tail: Vec<String>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, tail: Vec::new() }
    }

    /// An error of kind [`Kind::Other`].
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }

    /// Adds the mend; the first one given stays, since it was given nearest to the cause.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Adds a tool's last words.
    #[must_use]
    pub fn tail(mut self, lines: Vec<String>) -> Self {
        self.tail = lines;
        self
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Wraps it for a journey through `std::io`. Never `ErrorKind::Interrupted`, which readers retry.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Takes an error of ours out of an I/O error, or makes one of `kind` from an error of the system's.
    pub fn from_io(error: io::Error, kind: Kind, what: impl fmt::Display) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(system) => Self::new(kind, format!("{what}: {}", io_reason(&system))),
        }
    }

    /// Whether a signal is behind it, so that nothing is tried again.
    pub fn is_stopped(&self) -> bool {
        matches!(self.kind, Kind::Stopped(_) | Kind::Locked)
    }
}

/// The system's reason in lower case and without its error number: `no space left on device`.
pub fn io_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "unknown reason".to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// As JSON documents have it.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Error", 4)?;
        document.serialize_field("kind", self.kind.name())?;
        document.serialize_field("message", &self.message)?;
        document.serialize_field("hint", &self.hint)?;
        document.serialize_field("tail", &self.tail)?;
        document.end()
    }
}

/// Adds what was being done to a result's error.
pub trait Context<T> {
    /// Makes an error of `kind` that says what was being done, to what, and why it failed.
    fn doing(self, kind: Kind, what: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn doing(self, kind: Kind, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::from_io(error, kind, what))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn doing(self, kind: Kind, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::from_io(error.into(), kind, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_journey_through_io() {
        let error = Error::new(Kind::Tool, "pg_dump died").hint("look").tail(vec!["last".into()]);
        assert_eq!(Error::from_io(error.clone().into_io(), Kind::Target, "writing"), error);
    }

    #[test]
    fn system_errors_read_like_ours() {
        let error = io::Error::from_raw_os_error(28);
        assert_eq!(
            Error::from_io(error, Kind::Target, "can't write x").message,
            "can't write x: no space left on device"
        );
    }

    #[test]
    fn the_first_hint_stays() {
        assert_eq!(Error::other("x").hint("near").hint("far").hint.as_deref(), Some("near"));
    }
}
