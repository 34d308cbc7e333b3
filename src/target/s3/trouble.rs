//! What goes wrong with S3, in its own words. Flows in: an answer with its status and XML. Flows out: whether to try again,
//! and a message with its mend. Touches nothing.

use serde::Deserialize;

use super::pages::Kept;
use crate::target::http::Answer;
use crate::target::trouble::{Doing, Refusal, Shown, Trouble, short};
use crate::target::{Cause, TargetError};

fn permission(doing: Doing) -> &'static str {
    match doing {
        Doing::Put => "s3:PutObject",
        // Without the second one, what is not there is hidden.
        Doing::Get => "s3:GetObject and s3:ListBucket",
        Doing::List => "s3:ListBucket",
        Doing::Delete => "s3:DeleteObject",
        Doing::Sweep => "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload",
    }
}

/// The error document of S3.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Document {
    code: String,
    message: String,
    region: Option<String>,
}

/// The refusal that an answer is.
pub fn refusal(answer: Answer) -> Trouble {
    let region = answer.header("x-amz-bucket-region").map(ToOwned::to_owned);
    let (status, retry_after) = (answer.status, answer.retry_after());
    let read = read(status, &answer.refusal());
    Trouble::Refused(Refusal { region: read.region.clone().or(region), retry_after, ..read })
}

/// The refusal of one object among many.
pub fn kept(kept: &Kept) -> Trouble {
    let (code, message) = (kept.code.clone(), kept.message.clone());
    Trouble::Refused(Refusal { status: 403, code, message, ..Refusal::default() })
}

/// Reads the error document of an answer.
pub fn read(status: u16, body: &[u8]) -> Refusal {
    let document: Document = match std::str::from_utf8(body) {
        Ok(text) if text.contains("<Error") => quick_xml::de::from_str(text).unwrap_or_default(),
        _ => Document::default(),
    };
    let is_passing = matches!(
        document.code.as_str(),
        // Damaged or cut on the way, or in another's way.
        "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "IncompleteBody"
            | "RequestTimeout"
            | "SlowDown"
            | "InternalError"
            | "OperationAborted"
            | "ConditionalRequestConflict"
    );
    let Document { code, message, region } = document;
    Refusal { status, code, message, region, retry_after: None, is_passing }
}

/// What the words of S3 mean.
pub trait Words {
    /// Whether there is an object of that name already.
    fn is_precondition(&self) -> bool;
    /// Whether there is no such object or upload, in the store's own words: a wrong address or a wrong key may make a 404,
    /// too.
    fn is_missing(&self) -> bool;
    /// A 404 without words, which is all that a HEAD gets.
    fn is_bare_404(&self) -> bool;
    /// Whether the keys have ended, in the store's own words.
    fn is_ended(&self) -> bool;
    /// Whether we may not.
    fn is_denied(&self) -> bool;
    /// Whether a bucket has no object lock, in the store's own words.
    fn is_without_lock(&self) -> bool;
    /// Whether the store has not got what was asked of it.
    fn is_not_implemented(&self) -> bool;
    /// What to show. `target` names the target, `on` the object or the prefix.
    fn tell(&self, target: &Shown<'_>, doing: Doing, on: &str) -> TargetError;
}

impl Words for Trouble {
    fn is_precondition(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 412 || refusal.status == 409)
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 404
            && matches!(refusal.code.as_str(), "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" | "NotFound"))
    }

    fn is_bare_404(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 404 && refusal.code.is_empty())
    }

    fn is_ended(&self) -> bool {
        matches!(self, Self::Refused(refusal) if matches!(refusal.code.as_str(), "ExpiredToken" | "InvalidToken"
            | "InvalidTokenId" | "ExpiredTokenException" | "TokenRefreshRequired"))
    }

    fn is_denied(&self) -> bool {
        matches!(self, Self::Refused(refusal) if matches!(refusal.status, 401 | 403))
    }

    fn is_without_lock(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == "ObjectLockConfigurationNotFoundError")
    }

    fn is_not_implemented(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 501 || refusal.status == 405
            || refusal.code == "NotImplemented"
            || (refusal.status == 400 && refusal.message.to_ascii_lowercase().contains("if-none-match")))
    }

    fn tell(&self, target: &Shown<'_>, doing: Doing, on: &str) -> TargetError {
        if let Self::Told(error) = self {
            return TargetError { cause: Cause::Failed, error: error.clone() };
        }
        let reason = self.reason(target.endpoint, "S3", target.scrub);
        let message = format!("target {}: can't {} {on}: {reason}", target.name, doing.verb());
        let failure = TargetError::new(cause(self, doing), message);
        match hint(self, target, doing) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Whether an object lock is in the way; most stores have no word of its own for it.
fn is_locked(refusal: &Refusal) -> bool {
    let message = refusal.message.to_ascii_lowercase();
    let signs = ["object lock", "worm protected", "retention period", "legal hold"];
    refusal.code == "ObjectLocked"
        || (matches!(refusal.status, 400 | 403) && signs.iter().any(|sign| message.contains(sign)))
}

fn cause(trouble: &Trouble, doing: Doing) -> Cause {
    match trouble {
        Trouble::Refused(_) if trouble.is_missing() && doing == Doing::Get => Cause::NotFound,
        Trouble::Refused(refusal) => match (refusal.status, refusal.code.as_str()) {
            _ if is_locked(refusal) => Cause::Retained,
            (_, "AccessDenied" | "AllAccessDisabled" | "ObjectLocked" | "InvalidObjectState") => Cause::Denied,
            (401 | 403, "") => Cause::Denied,
            _ => Cause::Failed,
        },
        _ => Cause::Failed,
    }
}

fn hint(trouble: &Trouble, target: &Shown<'_>, doing: Doing) -> Option<String> {
    let keys = format!("[backup.targets.{}]", target.name);
    let Trouble::Refused(refusal) = trouble else { return trouble.line_hint(&keys) };
    Some(match (refusal.status, refusal.code.as_str()) {
        (_, "InvalidAccessKeyId" | "InvalidAccessKey" | "XAdminUserNotFound") => {
            format!("look at `access_key` in {keys}")
        }
        (_, "SignatureDoesNotMatch") => {
            format!("look at `secret_key` and `region` in {keys}, and at no proxy changing the request")
        }
        _ if trouble.is_ended() => {
            format!("renew `session_token` in {keys}, or AWS_SESSION_TOKEN in the environment, with its keys")
        }
        (_, "RequestTimeTooSkewed" | "RequestExpired") => {
            "set this host's clock: `timedatectl set-ntp true`".to_owned()
        }
        (_, "NoSuchBucket") => {
            format!("create the bucket {}, or look at `bucket` and `endpoint` in {keys}", target.bucket)
        }
        (301 | 302 | 303 | 307 | 308, _) | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") => {
            match &refusal.region {
                Some(region) => format!("set region = \"{}\" in {keys}", short(&(target.scrub)(region))),
                None => format!("the bucket is in another region: look at `region` and `endpoint` in {keys}"),
            }
        }
        _ if is_locked(refusal) => {
            "a lock of the object, or a rule of the bucket, keeps it for its time: that is no fault".to_owned()
        }
        (_, "InvalidObjectState") => "look at the object's storage class".to_owned(),
        (401 | 403, _) => format!("let the key do {} on the bucket {}", permission(doing), target.bucket),
        (_, "InvalidStorageClass") => format!("look at `storage_class` in {keys}"),
        (404, "") => format!("look at `endpoint` in {keys}: no S3 store answers there"),
        (507, _) | (_, "QuotaExceeded" | "StorageFull" | "XMinioStorageFull") => {
            "make room, or keep fewer backups".to_owned()
        }
        // A HEAD's answer has no word.
        (429 | 503, _) | (_, "SlowDown" | "TooManyRequests" | "RequestLimitExceeded") => {
            "the store is busy, or slows its caller down: try again later, or let fewer jobs begin at once".to_owned()
        }
        _ => return None,
    })
}
