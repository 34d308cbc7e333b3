//! What stands already under the name of a run's backup. Flows in: the id, the targets. Flows out: where it stands, what was
//! brought there by copying, the next free id of a manual run. Touches the targets, reading but for such copies.

use std::time::Duration;

use super::{JobReport, Order, TargetReport};
use crate::app::App;
use crate::catalog::{self, Entry, OpenTarget};
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::format::name::{self, BackupId, ObjectKey, Owner};
use crate::recopy;
use crate::target::Cause;

/// How often a manual run looks for a second that no backup has taken yet.
const ID_ATTEMPTS: usize = 10;

/// Where a slot's backup stands at some of its targets, brings it to the others by copying, and says whether that is all
/// there is to do: the database is not dumped again for a target that was away, nor asked for anything where nothing is
/// missing. `false`: nothing was done.
pub(super) fn complete(
    app: &App,
    cx: &Cx,
    owner: &Owner,
    id: &BackupId,
    opened: &[OpenTarget],
    report: &mut JobReport,
) -> Result<bool> {
    let key = name::manifest_key(owner, id)?;
    // A target that does not answer is tried, and told, by the run itself.
    let standing: Vec<bool> = opened.iter().map(|open| has_manifest(open, &key).unwrap_or(false)).collect();
    if !standing.contains(&true) {
        return Ok(false);
    }
    let with = |wanted: bool| opened.iter().zip(&standing).filter(move |(_, is)| **is == wanted).map(|(open, _)| open);
    let good = |from: &'_ OpenTarget| is_backup(app, from, owner, id).ok();
    let Some((from, entry)) = with(true).find_map(|from| good(from).map(|entry| (from, entry))) else {
        return Ok(false);
    };
    let mut copied = Vec::new();
    for to in with(false) {
        cx.world.cancel.check()?;
        match recopy::copy(&entry, from, to, cx) {
            Ok(None) => copied.push(standing_report(app, to, owner, id)),
            Ok(Some(signed)) => copied.push(TargetReport {
                stored: true,
                copied_from: Some(from.name.clone()),
                object: Some(signed.object),
                stored_bytes: Some(signed.stored_bytes),
                ..TargetReport::new(&to.name)
            }),
            Err(recopy::Failure::Destination(error)) => copied.push(TargetReport::failed(to, error)),
            // Then a new dump is what is left; what was copied already stays.
            Err(recopy::Failure::Source(error)) if error.is_stopped() => return Err(error),
            Err(recopy::Failure::Source(error)) => {
                cx.report.warn(&format!("can't copy {id} from {} to {}: {error}", from.name, to.name));
                return Ok(false);
            }
        }
    }
    report.created = entry.signed().map(|signed| signed.created);
    report.dump_bytes = entry.signed().map(|signed| signed.dump_bytes);
    report.targets.extend(with(true).map(|open| standing_report(app, open, owner, id)).chain(copied));
    Ok(true)
}

/// What there is to say of a target at which a manifest of the slot stands.
fn standing_report(app: &App, open: &OpenTarget, owner: &Owner, id: &BackupId) -> TargetReport {
    match is_backup(app, open, owner, id) {
        Ok(entry) => {
            let stored_bytes = entry.signed().map(|signed| signed.stored_bytes);
            TargetReport { stored_bytes, ..TargetReport::was_there(open) }
        }
        Err(error) => TargetReport::failed(open, error),
    }
}

/// Whether a manifest stands at a target.
pub(super) fn has_manifest(open: &OpenTarget, key: &ObjectKey) -> Result<bool> {
    match open.target.get(key) {
        Ok(_) => Ok(true),
        Err(failure) if failure.cause == Cause::NotFound => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// The backup that stands under a slot's name. Fails unless retention and `restore` would take it for one, too: else a
/// forged, emptied or cut one would pass for the slot's own, and the slot for done.
pub(super) fn is_backup(app: &App, open: &OpenTarget, owner: &Owner, id: &BackupId) -> Result<Entry> {
    let found = catalog::read(open, &format!("{}{id}.", owner.prefix()), &mut |owner| app.keyring(&owner.database))?;
    let why = match found.entries.into_iter().next() {
        None => "it is no manifest".to_owned(),
        Some(entry) => match entry.distrust().or_else(|| entry.damage()) {
            None => return Ok(entry),
            Some(why) => why,
        },
    };
    let key = name::manifest_key(owner, id)?;
    let message = format!("target {}: {key} is there already, but is no good backup: {why}", open.name);
    Err(Error::new(Kind::Authentication, message)
        .hint("find out who put it there, move it away, and try again: voxeltron-backup run-job"))
}

/// The id, and the targets that have no backup of that id yet. A slot's id is given; a manual run takes the next second
/// that is free at all of them.
pub(super) fn find_id(
    app: &App,
    order: &Order<'_>,
    owner: &Owner,
    mut open: Vec<OpenTarget>,
    report: &mut JobReport,
) -> Result<(BackupId, Vec<OpenTarget>)> {
    let cx = &app.cx;
    for _ in 0..ID_ATTEMPTS {
        let now = cx.world.clock.now();
        let id = BackupId::new(order.slot.unwrap_or(now), &order.job.name);
        let key = name::manifest_key(owner, &id)?;
        let (mut free, mut taken) = (Vec::new(), Vec::new());
        for target in std::mem::take(&mut open) {
            match has_manifest(&target, &key) {
                Ok(false) => free.push(target),
                Ok(true) => taken.push(target),
                Err(error) => report.targets.push(TargetReport::failed(&target, error)),
            }
        }
        if order.slot.is_some() || taken.is_empty() {
            report.targets.extend(taken.iter().map(|target| standing_report(app, target, owner, &id)));
            return Ok((id, free));
        }
        open = free.into_iter().chain(taken).collect();
        cx.world.cancel.check()?;
        let rest = 1_000_u32.saturating_sub(now.timestamp_subsec_millis());
        cx.world.clock.sleep(Duration::from_millis(u64::from(rest)));
    }
    let why = format!("{ID_ATTEMPTS} seconds in a row have a backup of this job already");
    Err(Error::other(why).hint("look at the clock of this machine"))
}
