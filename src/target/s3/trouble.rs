//! What can go wrong with a store, told apart. Flows in: an HTTP client's error, or an answer with its status and XML.
//! Flows out: whether to try again, and a message with its mend. Touches nothing.

use std::io;
use std::time::Duration;

use attohttpc::ErrorKind;
use serde::Deserialize;

use crate::error::{Error, io_reason};
use crate::target::{Cause, TargetError};

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
    fn verb(self) -> &'static str {
        match self {
            Self::Put => "store",
            Self::Get => "read",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Sweep => "sweep unfinished uploads below",
        }
    }

    fn permission(self) -> &'static str {
        match self {
            Self::Put => "s3:PutObject",
            Self::Get => "s3:GetObject",
            Self::List => "s3:ListBucket",
            Self::Delete => "s3:DeleteObject",
            Self::Sweep => "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload",
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
}

/// What went wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, or not all of it.
    Line(Line, String),
    /// The store said no.
    Refused(Refusal),
    /// What it said is not what S3 says.
    Strange(String),
    /// A signal has come.
    Stopped(Error),
}

/// The error document of S3.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Document {
    code: String,
    message: String,
    region: Option<String>,
}

impl Refusal {
    /// Reads the error document of an answer.
    pub fn read(status: u16, body: &[u8]) -> Self {
        let document: Document = match std::str::from_utf8(body) {
            Ok(text) if text.contains("<Error") => quick_xml::de::from_str(text).unwrap_or_default(),
            _ => Document::default(),
        };
        Self { status, code: document.code, message: document.message, region: document.region, retry_after: None }
    }
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

    /// Whether the same request may well succeed in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Line(Line::Name, reason) => reason.contains("emporary"),
            Self::Line(Line::Tls | Line::Request, _) | Self::Strange(_) | Self::Stopped(_) => false,
            Self::Line(..) => true,
            Self::Refused(refusal) => {
                matches!(refusal.status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
                    || matches!(
                        refusal.code.as_str(),
                        // Damaged or cut on the way, or in another's way.
                        "BadDigest"
                            | "XAmzContentSHA256Mismatch"
                            | "IncompleteBody"
                            | "RequestTimeout"
                            | "SlowDown"
                            | "InternalError"
                            | "OperationAborted"
                            | "ConditionalRequestConflict"
                    )
            }
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

    /// Whether there is an object of that name already.
    pub fn is_precondition(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 412 || refusal.status == 409)
    }

    /// Whether there is no such object or upload, in the store's own words: a wrong address or a wrong key may make a 404,
    /// too.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 404
            && matches!(refusal.code.as_str(), "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" | "NotFound"))
    }

    /// A 404 without words, which is all that a HEAD gets.
    pub fn is_bare_404(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 404 && refusal.code.is_empty())
    }

    /// Whether the store has not got what was asked of it.
    pub fn is_not_implemented(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 501 || refusal.status == 405
            || refusal.code == "NotImplemented"
            || (refusal.status == 400 && refusal.message.to_ascii_lowercase().contains("if-none-match")))
    }

    /// How long the store asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    fn cause(&self, doing: Doing) -> Cause {
        match self {
            Self::Refused(_) if self.is_missing() && doing == Doing::Get => Cause::NotFound,
            Self::Refused(refusal) => match (refusal.status, refusal.code.as_str()) {
                (_, "AccessDenied" | "AllAccessDisabled" | "ObjectLocked" | "InvalidObjectState") => Cause::Denied,
                (401 | 403, "") => Cause::Denied,
                _ => Cause::Failed,
            },
            _ => Cause::Failed,
        }
    }

    fn reason(&self, endpoint: &str, scrub: &dyn Fn(&str) -> String) -> String {
        match self {
            Self::Line(Line::Name, reason) => format!("{endpoint} is not known: {reason}"),
            Self::Line(Line::Refused, reason) => format!("{endpoint} can't be reached: {reason}"),
            Self::Line(Line::Tls, reason) => format!("no TLS connection to {endpoint}: {}", short(&scrub(reason))),
            Self::Line(Line::Silent | Line::Broken | Line::Request, reason) => {
                format!("{endpoint}: {}", short(&scrub(reason)))
            }
            Self::Strange(reason) => format!("{endpoint} does not answer as S3 does: {}", short(&scrub(reason))),
            Self::Stopped(error) => error.message.clone(),
            Self::Refused(refusal) => {
                let mut text = format!("the store answered {}", refusal.status);
                for part in [&refusal.code, &refusal.message].into_iter().filter(|part| !part.is_empty()) {
                    text.push_str(&format!("{} {}", if part == &refusal.code { "" } else { ":" }, short(&scrub(part))));
                }
                text
            }
        }
    }

    /// What to show. `target` names the target, `on` the object or the prefix.
    pub fn tell(&self, target: &Shown<'_>, doing: Doing, on: &str) -> TargetError {
        if let Self::Stopped(error) = self {
            return TargetError { cause: Cause::Failed, error: error.clone() };
        }
        let reason = self.reason(target.endpoint, target.scrub);
        let message = format!("target {}: can't {} {on}: {reason}", target.name, doing.verb());
        let failure = TargetError::new(self.cause(doing), message);
        match self.hint(target, doing) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    fn hint(&self, target: &Shown<'_>, doing: Doing) -> Option<String> {
        let keys = format!("[backup.targets.{}]", target.name);
        let refusal = match self {
            Self::Line(Line::Name | Line::Refused, _) | Self::Strange(_) => {
                return Some(format!("look at `endpoint` in {keys}, and whether the store is up"));
            }
            Self::Line(Line::Tls, _) => {
                return Some(format!(
                    "name the store's own certificate authority by `ca_file` in {keys}, if it has one; \
                    an endpoint without TLS begins with http://"
                ));
            }
            Self::Line(..) | Self::Stopped(_) => return None,
            Self::Refused(refusal) => refusal,
        };
        Some(match (refusal.status, refusal.code.as_str()) {
            (_, "InvalidAccessKeyId" | "InvalidAccessKey" | "XAdminUserNotFound") => {
                format!("look at `access_key` in {keys}")
            }
            (_, "SignatureDoesNotMatch") => {
                format!("look at `secret_key` and `region` in {keys}, and at no proxy changing the request")
            }
            (_, "ExpiredToken" | "InvalidToken") => format!("renew `session_token` in {keys}, with its keys"),
            (_, "RequestTimeTooSkewed" | "RequestExpired") => {
                "set this host's clock: `timedatectl set-ntp true`".to_owned()
            }
            (_, "NoSuchBucket") => {
                format!("create the bucket {}, or look at `bucket` and `endpoint` in {keys}", target.bucket)
            }
            (301 | 302 | 307 | 308, _) | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") => {
                match &refusal.region {
                    Some(region) => format!("set region = \"{}\" in {keys}", short(&(target.scrub)(region))),
                    None => format!("the bucket is in another region: look at `region` and `endpoint` in {keys}"),
                }
            }
            (_, "ObjectLocked" | "InvalidObjectState") => "look at the object's lock and storage class".to_owned(),
            (401 | 403, _) => format!("let the key do {} on the bucket {}", doing.permission(), target.bucket),
            (_, "InvalidStorageClass") => format!("look at `storage_class` in {keys}"),
            (404, "") => format!("look at `endpoint` in {keys}: no S3 store answers there"),
            (507, _) | (_, "QuotaExceeded" | "StorageFull" | "XMinioStorageFull") => {
                "make room, or keep fewer backups".to_owned()
            }
            _ => return None,
        })
    }
}

/// What messages need to know of a target.
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
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    if line.chars().count() > MAX_MESSAGE {
        cut.push('…');
    }
    cut.trim_end_matches('.').to_owned()
}
