//! Secrets: the one type that can't be printed, and the four ways to give one. Flows in: a source from the
//! configuration. Flows out: the secret, fetched when it is needed and wiped when it is dropped. Touches the file, the
//! credential or the command that the source names.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result};
use crate::process::{self, Invocation};

/// How long a secret's command may take.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest file, credential or output that is taken for a secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A secret text. No `Display`, a redacted `Debug`, zeroed on drop.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It stands in the configuration.
    Text(Secret),
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
    /// One of systemd's credentials.
    Credential(String),
    /// What a command prints.
    Command(Vec<String>),
}

impl Source {
    /// Fetches the secret. One final newline is dropped.
    ///
    /// # Errors
    /// [`Kind::Config`] when the source is not there, is empty, is not UTF-8, or others can write to it.
    pub fn fetch(&self, what: &str, cx: &Cx) -> Result<Secret> {
        let secret = match self {
            Self::Text(secret) => secret.clone(),
            Self::Env(name) => match cx.world.vars.get(name) {
                Some(value) => Secret::new(value),
                None => {
                    return Err(Error::new(Kind::Config, format!("{what}: environment variable {name} is not set")));
                }
            },
            Self::File(path) => from_file(path, what, cx)?,
            Self::Credential(name) => {
                let folder = cx.world.vars.get("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    Error::new(Kind::Config, format!("{what}: credential {name}: CREDENTIALS_DIRECTORY is not set"))
                        .hint(format!("start it by systemd with LoadCredential={name}:PATH"))
                })?;
                from_file(&Path::new(folder).join(name), what, cx)?
            }
            Self::Command(words) => from_command(words, what, cx)?,
        };
        if secret.expose().is_empty() {
            return Err(Error::new(Kind::Config, format!("{what}: the secret is empty")));
        }
        Ok(secret)
    }
}

fn from_file(path: &Path, what: &str, cx: &Cx) -> Result<Secret> {
    if let Some(warning) = check_private(path, what)? {
        cx.report.warn(&warning);
    }
    let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
    if size > MAX_SECRET_BYTES as u64 {
        return Err(Error::new(Kind::Config, format!("{what}: {} is too large for a secret", path.display())));
    }
    let bytes =
        Zeroizing::new(std::fs::read(path).doing(Kind::Config, format!("{what}: can't read {}", path.display()))?);
    from_bytes(&bytes, &path.display().to_string(), what)
}

fn from_command(words: &[String], what: &str, cx: &Cx) -> Result<Secret> {
    let Some((program, args)) = words.split_first() else {
        return Err(Error::new(Kind::Config, format!("{what}: the command is empty")));
    };
    let call = Invocation::new(program).args(args);
    let deadline = cx.world.clock.monotonic() + COMMAND_TIMEOUT;
    let output = process::run(&call, b"", Some(deadline), &cx.world)
        .map_err(|error| Error { kind: if error.is_stopped() { error.kind } else { Kind::Config }, ..error })
        .map_err(|error| error.while_doing(what))?;
    from_bytes(&output, &format!("the output of {program}"), what)
}

fn from_bytes(bytes: &[u8], origin: &str, what: &str) -> Result<Secret> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Config, format!("{what}: {origin} is not UTF-8 text")))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(Secret::new(text))
}

/// Looks at who else can use a file that holds secrets or code: others that can read it make a warning.
///
/// # Errors
/// [`Kind::Config`] when the file can't be looked at, or others can write to it.
pub fn check_private(path: &Path, what: &str) -> Result<Option<String>> {
    let shown = path.display();
    let meta = std::fs::metadata(path).doing(Kind::Config, format!("{what}: can't read {shown}"))?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o002 != 0 || (mode & 0o020 != 0 && std::os::unix::fs::MetadataExt::gid(&meta) != 0) {
        return Err(Error::new(Kind::Config, format!("{what}: others can write to {shown} (mode {mode:04o})"))
            .hint(format!("chmod 600 {shown}")));
    }
    Ok((mode & 0o004 != 0).then(|| format!("{what}: others can read {shown} (mode {mode:04o}); chmod 600 {shown}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Source::Text(Secret::new("canary"))), "Text(Secret(…))");
    }

    #[test]
    fn one_final_newline_is_dropped() {
        for (given, kept) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            assert_eq!(from_bytes(given.as_bytes(), "x", "y").unwrap().expose(), kept);
        }
    }
}
