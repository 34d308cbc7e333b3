//! What goes wrong with Voxeltron Cloud, in its own words. Flows in: a refusal. Flows out: what sort it is, and a message
//! with its mend. Touches nothing.

use crate::target::trouble::{Doing, Refusal, Shown, Trouble};
use crate::target::{Cause, TargetError};

fn refused(trouble: &Trouble) -> Option<&Refusal> {
    match trouble {
        Trouble::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

fn has(trouble: &Trouble, word: &str) -> bool {
    refused(trouble).is_some_and(|refusal| refusal.code == word)
}

/// Whether there is no such object, in the server's own words: a wrong address makes a 404, too.
pub fn is_missing(trouble: &Trouble) -> bool {
    has(trouble, "not-found")
}

/// Whether there is an object of that key already.
pub fn is_existing(trouble: &Trouble) -> bool {
    has(trouble, "key-exists")
}

/// Whether it is another object than the one that was asked for.
pub fn is_changed(trouble: &Trouble) -> bool {
    refused(trouble).is_some_and(|refusal| refusal.status == 412)
}

fn cause(trouble: &Trouble, doing: Doing) -> Cause {
    match refused(trouble) {
        Some(_) if is_missing(trouble) && doing == Doing::Get => Cause::NotFound,
        Some(refusal) if refusal.code == "retention-locked" => Cause::Retained,
        Some(refusal) if matches!(refusal.status, 401 | 403) => Cause::Denied,
        _ => Cause::Failed,
    }
}

/// What to show; `on` is the object or the prefix.
pub fn tell(trouble: &Trouble, about: &Shown<'_>, doing: Doing, on: &str) -> TargetError {
    if let Trouble::Told(error) = trouble {
        return TargetError { cause: Cause::Failed, error: error.clone() };
    }
    let reason = trouble.reason(about.endpoint, "Voxeltron Cloud", about.scrub);
    let message = format!("target {}: can't {} {on}: {reason}", about.name, doing.verb());
    let failure = TargetError::new(cause(trouble, doing), message);
    match hint(trouble, about) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The mend.
pub fn hint(trouble: &Trouble, about: &Shown<'_>) -> Option<String> {
    let Some(refusal) = refused(trouble) else {
        return match trouble {
            Trouble::Line(..) => trouble.line_hint(&format!("[backup.targets.{}]", about.name)),
            _ => Some(format!("look whether {} is a Voxeltron Cloud: `voxeltron-backup cloud status`", about.endpoint)),
        };
    };
    Some(match (refusal.status, refusal.code.as_str()) {
        (_, "quota-exceeded") => {
            "the account is full: keep fewer backups (`voxeltron-backup prune` removes what retention does \
                                  not keep), or get more room; `voxeltron-backup cloud status` shows how full it is"
                .to_owned()
        }
        (_, "retention-locked") => {
            "the account keeps it for a time: keep backups longer than that, and it goes by itself later".to_owned()
        }
        (_, "too-large") => "the account takes no object so large; ask who runs it for more".to_owned(),
        (401, _) => "link anew: voxeltron-backup cloud link --force".to_owned(),
        (403, _) => "the account may not do that; ask who runs it".to_owned(),
        (404, "" | "no-such-address") | (301 | 302 | 303 | 307 | 308, _) => {
            format!("no Voxeltron Cloud answers at {}; link anew with the right --endpoint", about.endpoint)
        }
        _ => return None,
    })
}
