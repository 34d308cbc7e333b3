//! The cheap way through a tick on which nothing is due. Flows in: a digest of the configuration and the clock. Flows
//! out: whether an earlier tick found that nothing is due until later. Touches `tick.json` in the data folder.
//!
//! It is a cache: whatever can't be read, or does not fit, means *look properly*, and nothing here fails. It holds as
//! long as the configuration, the program and the state are those it was computed from, so take the [`stamp`] before
//! the state is read, and write only what was decided from that state, with nothing due and no job left out.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{self, Durable};
use super::state_file;
use crate::format::hex;
use crate::format::time::serde_rfc3339;
use crate::world::Vars;

const NAME: &str = "tick.json";
const VERSION: u32 = 1;
const MAX_BYTES: u64 = 4_096;
/// How long it holds at most, whatever is due when: what it can't know of is noticed by then.
const HOLDS: TimeDelta = TimeDelta::hours(1);
/// What every variable that says something to this program begins with.
const VARIABLES: &str = "VOXELTRON_";

#[derive(Serialize, Deserialize)]
struct Tick {
    version: u32,
    program_version: String,
    config_digest: String,
    state_stamp: String,
    #[serde(with = "serde_rfc3339")]
    computed_at: DateTime<Utc>,
    #[serde(with = "serde_rfc3339")]
    next_due: DateTime<Utc>,
}

/// A digest of all that the configuration is made of: the file's text and every `VOXELTRON_` variable.
pub fn digest(text: &str, vars: &Vars) -> String {
    let mut hasher = Sha256::new();
    let mut add = |part: &str| {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    };
    add(text);
    for name in vars.names().filter(|name| name.starts_with(VARIABLES)) {
        add(name);
        add(vars.get(name).unwrap_or_default());
    }
    hex(&hasher.finalize())
}

/// What tells this state from any other that was or will be written.
pub fn stamp(data_dir: &Path) -> String {
    let Ok(meta) = std::fs::metadata(data_dir.join(state_file::NAME)) else { return String::new() };
    format!("{}-{}-{}.{:09}", meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
}

/// Whether nothing is due, as far as an earlier tick can tell.
pub fn is_idle(data_dir: &Path, digest: &str, now: DateTime<Utc>) -> bool {
    let Ok(Some(bytes)) = files::read(&data_dir.join(NAME), MAX_BYTES) else { return false };
    serde_json::from_slice::<Tick>(&bytes).is_ok_and(|tick| {
        tick.version == VERSION
            && tick.program_version == env!("CARGO_PKG_VERSION")
            && tick.config_digest == digest
            && tick.computed_at <= now
            && now < tick.next_due
            && tick.state_stamp == stamp(data_dir)
    })
}

/// Notes that nothing is due before `next_due` (`None`: ever), as decided from the state with this stamp.
pub fn write(data_dir: &Path, digest: &str, stamp: &str, now: DateTime<Utc>, next_due: Option<DateTime<Utc>>) {
    let most = now + HOLDS;
    let tick = Tick {
        version: VERSION,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        config_digest: digest.to_owned(),
        state_stamp: stamp.to_owned(),
        computed_at: now,
        next_due: next_due.map_or(most, |next_due| next_due.min(most)),
    };
    if let Ok(text) = serde_json::to_vec(&tick) {
        // Without it the next tick looks properly.
        let _ = files::replace(data_dir, NAME, &text, Durable::No);
    }
}

/// Makes the next tick look properly.
pub fn forget(data_dir: &Path) {
    let _ = std::fs::remove_file(data_dir.join(NAME));
}
