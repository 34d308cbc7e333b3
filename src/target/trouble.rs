//! What can go wrong with a store on a network, told apart. Flows in: an HTTP client's error, or an answer. Flows out:
//! whether to try again, and why it failed. What each word of a store's own means stands with that store. Touches nothing.

use std::io;
use std::time::Duration;

use attohttpc::ErrorKind;
use percent_encoding::percent_decode_str;

use crate::error::{Error, io_reason};
use crate::secret::Secret;

/// A stranger's word that shares so many bytes in a row with a secret is not shown.
const ECHO: usize = 8;
/// How much of a stranger's text is looked at, in characters; more is never shown.
const MAX_TEXT: usize = 1_000;
/// How much of a store's own message is shown, in characters.
const MAX_MESSAGE: usize = 300;

/// What was being done, for messages and for the permission that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Storing an object.
    Put,
    /// Reading an object, or asking for its size.
    Get,
    /// Listing.
    List,
    /// Removing an object.
    Delete,
    /// Looking for unfinished uploads, and aborting them.
    Sweep,
}

impl Doing {
    /// As it stands in `can't … X`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Put => "store",
            Self::Get => "read",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Sweep => "sweep unfinished uploads below",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The name is unknown.
    Name,
    /// Nobody listens.
    Refused,
    /// The certificate, or what comes before it.
    Tls,
    /// Nothing came for too long.
    Silent,
    /// The connection broke, or the answer is not whole.
    Broken,
    /// The request could not even be made.
    Request,
}

/// A refusal, as the store gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The store's word for it; empty when it gave none.
    pub code: String,
    /// The store's sentence.
    pub message: String,
    /// Where the bucket is, if the store says so.
    pub region: Option<String>,
    /// How long it asks us to wait.
    pub retry_after: Option<Duration>,
    /// Whether its word means that the same request may well succeed in a moment, whatever the status.
    pub is_passing: bool,
}

/// What went wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, or not all of it.
    Line(Line, String),
    /// The store said no.
    Refused(Refusal),
    /// What it said is not what such a store says.
    Strange(String),
    /// A signal has come, or something else that has its message already.
    Told(Error),
}

impl Trouble {
    /// From the HTTP client.
    pub fn from_client(error: attohttpc::Error) -> Self {
        match error.into_kind() {
            ErrorKind::Io(error) => Self::from_io(&error),
            ErrorKind::Tls(error) => Self::Line(Line::Tls, error.to_string()),
            ErrorKind::InvalidDNSName(name) => Self::Line(Line::Tls, format!("{name} can't be in a certificate")),
            ErrorKind::InvalidResponse(kind) => Self::Line(Line::Broken, kind.to_string()),
            ErrorKind::ConnectError { status_code, .. } => {
                Self::Line(Line::Refused, format!("the proxy answered {status_code}"))
            }
            other => Self::Line(Line::Request, format!("{other:?}")),
        }
    }

    /// From a socket.
    pub fn from_io(error: &io::Error) -> Self {
        let text = error.to_string();
        let line = match error.kind() {
            // rustls wraps its own errors so.
            io::ErrorKind::InvalidData => Line::Tls,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Line::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Line::Silent,
            _ if text.contains("lookup address") => Line::Name,
            _ => Line::Broken,
        };
        match line {
            Line::Silent => Self::Line(line, "no answer in time".to_owned()),
            _ => Self::Line(line, io_reason(error)),
        }
    }

    /// An answer that is not whole.
    pub fn cut(got: u64, of: u64) -> Self {
        Self::Line(Line::Broken, format!("the answer ended after {got} of {of} bytes"))
    }

    /// How long the store asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// Whether the request may have been carried out all the same.
    pub fn is_unsure(&self) -> bool {
        match self {
            Self::Line(Line::Silent | Line::Broken, _) | Self::Strange(_) => true,
            Self::Refused(refusal) => refusal.status >= 500 && refusal.status != 501,
            _ => false,
        }
    }

    /// Whether the same request may well succeed in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Line(Line::Name, reason) => reason.contains("emporary"),
            Self::Line(Line::Tls | Line::Request, _) | Self::Strange(_) | Self::Told(_) => false,
            Self::Line(..) => true,
            Self::Refused(refusal) => {
                refusal.is_passing || matches!(refusal.status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
            }
        }
    }

    /// The mend of what every target on a network can meet; `keys` is the target's table.
    pub fn line_hint(&self, keys: &str) -> Option<String> {
        match self {
            Self::Line(Line::Name | Line::Refused, _) | Self::Strange(_) => {
                Some(format!("look at `endpoint` in {keys}, and whether the store is up"))
            }
            Self::Line(Line::Tls, _) => Some(format!(
                "name the store's own certificate authority by `ca_file` in {keys}, if it has one; \
                an endpoint without TLS begins with http://"
            )),
            _ => None,
        }
    }

    /// The sentence for it. `protocol` is what a server at `endpoint` should speak; `scrub` takes our secrets out of a text
    /// that a stranger wrote.
    pub fn reason(&self, endpoint: &str, protocol: &str, scrub: &dyn Fn(&str) -> String) -> String {
        match self {
            Self::Line(Line::Name, reason) => format!("{endpoint} is not known: {reason}"),
            Self::Line(Line::Refused, reason) => format!("{endpoint} can't be reached: {reason}"),
            Self::Line(Line::Tls, reason) => format!("no TLS connection to {endpoint}: {}", short(&scrub(reason))),
            Self::Line(Line::Silent | Line::Broken | Line::Request, reason) => {
                format!("{endpoint}: {}", short(&scrub(reason)))
            }
            Self::Strange(reason) => {
                format!("{endpoint} does not answer as {protocol} does: {}", short(&scrub(reason)))
            }
            Self::Told(error) => error.message.clone(),
            Self::Refused(refusal) => {
                let mut text = format!("the store answered {}", refusal.status);
                for part in [&refusal.code, &refusal.message].into_iter().filter(|part| !part.is_empty()) {
                    text.push_str(&format!("{} {}", if part == &refusal.code { "" } else { ":" }, short(&scrub(part))));
                }
                text
            }
        }
    }
}

/// What messages need to know of a target.
#[allow(missing_debug_implementations, reason = "it borrows what takes secrets out")]
pub struct Shown<'s> {
    /// Its name in the configuration.
    pub name: &'s str,
    /// Its endpoint.
    pub endpoint: &'s str,
    /// Its bucket.
    pub bucket: &'s str,
    /// Takes our secrets out of a text that a stranger wrote.
    pub scrub: &'s dyn Fn(&str) -> String,
}

/// A stranger's text on one line, cut to a bound.
pub fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    if line.chars().count() > MAX_MESSAGE {
        cut.push('…');
    }
    cut.trim_end_matches('.').to_owned()
}

/// How many secrets are remembered.
const GIVEN: usize = 24;

/// Secrets that were handed out or sent lately, so that no message can have one.
#[derive(Clone, Debug, Default)]
pub struct Given(Vec<Secret>);

impl Given {
    /// The oldest is forgotten where there are too many.
    pub fn remember(&mut self, secret: &Secret) {
        self.0.retain(|known| known != secret);
        if self.0.len() >= GIVEN {
            self.0.remove(0);
        }
        self.0.push(secret.clone());
    }

    /// All of them.
    pub fn all(&self) -> Vec<Secret> {
        self.0.clone()
    }
}

/// A stranger's text, but every word that has a piece of a secret in it.
pub fn without(text: &str, secrets: &[Secret]) -> String {
    let echoes = |word: &str| {
        let pieces = || word.as_bytes().windows(ECHO);
        secrets.iter().map(|secret| secret.expose().as_bytes()).any(|secret| {
            let short = secret.len() < ECHO && word.as_bytes().windows(secret.len().max(1)).any(|it| it == secret);
            short || pieces().any(|piece| secret.windows(ECHO).any(|window| window == piece))
        })
    };
    let text: String = text.chars().take(MAX_TEXT).collect();
    // As it would stand in a URL, too.
    let echoes = |word: &str| echoes(word) || echoes(&percent_decode_str(word).decode_utf8_lossy());
    text.split_whitespace().map(|word| if echoes(word) { "(removed)" } else { word }).collect::<Vec<_>>().join(" ")
}
