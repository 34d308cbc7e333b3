//! Object lock. Flows in: a target whose objects are locked. Flows out: whether one may be removed, and whether the bucket and
//! the key are fit for it, as `check` wants to know. Touches the network.

use s3::command::Command;

use super::trouble::Words;
use super::wire::Call;
use super::{Store, instant};
use crate::target::trouble::{Doing, Trouble};
use crate::target::{Cause, TargetError};

/// Refuses to remove what is locked. A store with versions, as AWS, would say yes and hide it behind a mark, where nobody
/// finds it, and keep it all the same. Asked only where we lock; who may not know it leaves it to the store, but not who could
/// not be answered.
pub fn unless_locked(store: &Store, path: &str) -> Result<(), TargetError> {
    if store.protection.lock.is_none() {
        return Ok(());
    }
    let until = store.wire.ask(&|| Call::new(path, Command::HeadObject), &|answer| {
        Ok(answer.header("x-amz-object-lock-retain-until-date").and_then(instant))
    });
    match until {
        Ok(Some(until)) if until > store.wire.client.world.clock.now() => {
            let until = crate::format::time::rfc3339(until);
            let message = format!("target {}: can't remove {path}: it is locked until {until}", store.name);
            Err(TargetError::new(Cause::Retained, message))
        }
        Err(trouble) if !matches!(trouble, Trouble::Refused(_)) || trouble.is_passing() => {
            Err(store.tell(&trouble, Doing::Delete, path))
        }
        _ => Ok(()),
    }
}

/// Whether the bucket takes locks, which a probe without one does not show, and whether the key may know of them. What can't
/// be told is no failure, and not passed over either.
pub fn look_closer(store: &Store, probe: &str) -> Result<Vec<String>, TargetError> {
    if store.protection.lock.is_none() {
        return Ok(Vec::new());
    }
    let mut doubts = Vec::new();
    let doubt = |what: &str, trouble: &Trouble, permission: &str| {
        let reason = store.reason(trouble);
        format!("can't tell {what}: {reason}; let the key do {permission} on the bucket {}", store.bucket)
    };
    let ask = |path: &str, query: &'static str| {
        let call = || Call { query, ..Call::new(path, Command::GetObject) };
        store.wire.ask(&call, &|answer| answer.into_inner().document())
    };
    match ask("", "object-lock") {
        Ok(text) if text.contains("<ObjectLockEnabled>Enabled</ObjectLockEnabled>") => {}
        Ok(text) if !text.contains("<ObjectLockConfiguration") => {
            let trouble = Trouble::Strange("no ObjectLockConfiguration".to_owned());
            doubts.push(doubt("whether the bucket has object lock", &trouble, GET_LOCK));
        }
        Ok(_) => return Err(without(store)),
        Err(trouble) if trouble.is_without_lock() => return Err(without(store)),
        Err(trouble @ Trouble::Refused(_)) if !trouble.is_passing() => {
            doubts.push(doubt("whether the bucket has object lock", &trouble, GET_LOCK));
        }
        Err(trouble) => return Err(store.tell(&trouble, Doing::Get, "the bucket's object lock")),
    }
    // The probe has no lock, and a store may say so as it likes; but who is denied will not see others' either.
    let head = store.wire.ask(&|| Call::new(probe, Command::HeadObject), &|_| Ok(()));
    let asked = head.and_then(|()| ask(probe, "retention").map(drop));
    if let Err(trouble @ Trouble::Refused(_)) = asked
        && trouble.is_denied()
    {
        doubts.push(format!(
            "{}: until then `prune` takes what is locked for removed, where the bucket has versions",
            doubt("whether an object is locked", &trouble, "s3:GetObjectRetention and s3:GetObject")
        ));
    }
    Ok(doubts)
}

/// What it takes to see whether a bucket has locks.
const GET_LOCK: &str = "s3:GetBucketObjectLockConfiguration";

fn without(store: &Store) -> TargetError {
    let what = format!("target {}: bucket {} has no object lock, and `object_lock` is set", store.name, store.bucket);
    let mend = format!(
        "no backup can be stored so: take a bucket that was created with object lock, or take `object_lock` out of \
        [backup.targets.{}]",
        store.name
    );
    TargetError::new(Cause::Failed, what).hint(mend)
}
