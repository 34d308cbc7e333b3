//! What goes wrong with Google Cloud Storage, in its own words. Flows in: a refusal. Flows out: what sort it is, and a
//! message with its mend. Touches nothing.

use crate::target::trouble::{Doing, Refusal, Shown, Trouble};
use crate::target::{Cause, TargetError};

fn permission(doing: Doing) -> &'static str {
    match doing {
        Doing::Put | Doing::Sweep => "storage.objects.create",
        Doing::Get => "storage.objects.get",
        Doing::List => "storage.objects.list",
        Doing::Delete => "storage.objects.delete",
    }
}

fn refused(trouble: &Trouble) -> Option<&Refusal> {
    match trouble {
        Trouble::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

fn is_about_the_bucket(refusal: &Refusal) -> bool {
    refusal.message.to_ascii_lowercase().contains("bucket does not exist")
}

/// Whether there is no such object, in the store's own words: a wrong address makes a 404, too.
pub fn is_missing(trouble: &Trouble) -> bool {
    refused(trouble).is_some_and(|it| it.status == 404 && it.code == "notFound" && !is_about_the_bucket(it))
}

/// Whether there is an object of that name already.
pub fn is_precondition(trouble: &Trouble) -> bool {
    refused(trouble).is_some_and(|it| it.status == 412 && !is_kept(it))
}

/// Whether a retention policy, a lock or a hold is in the way.
fn is_kept(refusal: &Refusal) -> bool {
    let message = refusal.message.to_ascii_lowercase();
    matches!(refusal.code.as_str(), "retentionPolicyNotMet" | "objectUnderActiveHold")
        || (matches!(refusal.status, 403 | 412)
            && ["retention policy", "object retention", "active temporary hold", "active event-based hold"]
                .iter()
                .any(|sign| message.contains(sign)))
}

fn cause(trouble: &Trouble, doing: Doing) -> Cause {
    match refused(trouble) {
        Some(_) if is_missing(trouble) && doing == Doing::Get => Cause::NotFound,
        Some(it) if is_kept(it) => Cause::Retained,
        Some(it) if matches!(it.status, 401 | 403) => Cause::Denied,
        _ => Cause::Failed,
    }
}

/// What to show. `who` is whose token is shown, `on` the object or the prefix.
pub fn tell(trouble: &Trouble, about: &Shown<'_>, who: &str, doing: Doing, on: &str) -> TargetError {
    if let Trouble::Told(error) = trouble {
        return TargetError { cause: Cause::Failed, error: error.clone() };
    }
    let reason = trouble.reason(about.endpoint, "Google Cloud Storage", about.scrub);
    let message = format!("target {}: can't {} {on}: {reason}", about.name, doing.verb());
    let failure = TargetError::new(cause(trouble, doing), message);
    match hint(trouble, about, who, doing) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The permission that a refusal names, as in `… does not have storage.objects.create access to …`.
fn named(message: &str) -> Option<&str> {
    let fine = |c: char| c.is_ascii_alphabetic() || c == '.';
    let mut words = message.split(|c: char| !fine(c)).map(|word| word.trim_matches('.'));
    words.find(|word| word.starts_with("storage.") && word.split('.').count() == 3)
}

fn hint(trouble: &Trouble, about: &Shown<'_>, who: &str, doing: Doing) -> Option<String> {
    let keys = format!("[backup.targets.{}]", about.name);
    let Some(refusal) = refused(trouble) else { return trouble.line_hint(&keys) };
    let message = refusal.message.to_ascii_lowercase();
    Some(match refusal.status {
        _ if is_kept(refusal) => {
            "a retention policy or a hold of the bucket keeps it: keep backups longer than the bucket does".to_owned()
        }
        401 if who == "everybody" => {
            format!("the store wants a token: set `credentials_file` in {keys} instead of `anonymous`")
        }
        401 => format!("look at the credentials of {keys}, and at this host's clock"),
        403 if refusal.code == "accountDisabled" || message.contains("billing") => {
            format!("look at the billing of the project that has the bucket {}", about.bucket)
        }
        403 => {
            let permission = named(&refusal.message).unwrap_or_else(|| permission(doing));
            format!("let {} do {permission} on the bucket {}: roles/storage.objectUser has it", who, about.bucket)
        }
        404 if is_about_the_bucket(refusal) => {
            format!("create the bucket {}, or look at `bucket` in {keys}", about.bucket)
        }
        404 if refusal.code.is_empty() => {
            format!("look at `endpoint` in {keys}: no Google Cloud Storage answers there")
        }
        301 | 302 | 303 | 307 => format!("look at `endpoint` in {keys}"),
        400 if message.contains("storage class") || message.contains("storageclass") => {
            format!("look at `storage_class` in {keys}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permission_that_is_missing_is_named() {
        let text = "a.b@c.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage \
                    object. Permission 'storage.objects.create' denied on resource (or it may not exist).";
        assert_eq!(named(text), Some("storage.objects.create"));
        assert_eq!(named("denied: storage.buckets.get."), Some("storage.buckets.get"));
        assert_eq!(named("storage. is full"), None);
    }
}
