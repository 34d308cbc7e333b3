//! What is remembered of each job. Flows in: what happened to it, and when. Flows out: its past, for [`super::due`] and
//! for `status`. Pure; [`super::state_file`] keeps it.
//!
//! A scheduled run goes `seen` → `began` → `succeeded` or `failed`. A run that is killed leaves `began` behind, and that
//! is enough: an interruption uses up none of the job's retries, since a power cut must not cost a slot.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::due::{CLOCK_SLACK, Job};
pub use super::state_file::StateFile;
use crate::format::time::{serde_rfc3339, serde_rfc3339_option};

/// The version that is written. One with another is set aside: what it means is not known here.
pub const VERSION: u32 = 1;
/// How much of an error is remembered, in bytes.
pub const MAX_ERROR_BYTES: usize = 1_000;

/// Everything that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// By name. A job that is taken out of the configuration stays, in case it comes back.
    pub jobs: BTreeMap<String, JobState>,
}

impl Default for State {
    fn default() -> Self {
        Self { version: VERSION, jobs: BTreeMap::new() }
    }
}

/// One job's past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// Whether its targets are yet to be asked what was there before: see [`crate::relearn`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unasked: bool,
    /// Slots before this are none of the job's.
    #[serde(with = "serde_rfc3339")]
    pub first_seen: DateTime<Utc>,
    /// The expression it was seen with. With another one it begins anew.
    pub schedule: String,
    /// The zone, likewise.
    pub timezone: String,
    /// The newest slot that is done or given up.
    #[serde(default, with = "serde_rfc3339_option")]
    pub settled: Option<DateTime<Utc>>,
    /// The slot that failed and will be tried again.
    #[serde(default)]
    pub failing: Option<Failing>,
    /// A run that has begun; if nobody holds the job's lock, it was killed.
    #[serde(default)]
    pub running: Option<Running>,
    /// Runs that failed since the last success.
    #[serde(default)]
    pub failures_in_row: u32,
    /// The newest backup.
    #[serde(default)]
    pub last_success: Option<Success>,
    /// When it last began.
    #[serde(default, with = "serde_rfc3339_option")]
    pub last_attempt: Option<DateTime<Utc>>,
    /// What the last failure was, if no success came since.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When a backup of it was last restored as a proof.
    #[serde(default, with = "serde_rfc3339_option")]
    pub last_proved: Option<DateTime<Utc>>,
    /// Which backup that was.
    #[serde(default)]
    pub last_proved_id: Option<String>,
    /// The last drill that its schedule asked for.
    #[serde(default)]
    pub last_drill: Option<Drilled>,
    /// The targets that have got behind the others.
    #[serde(default)]
    pub behind: Option<Behind>,
    /// The schedule before this one.
    #[serde(default)]
    pub former: Option<Former>,
}

/// A schedule that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The expression.
    pub schedule: String,
    /// The zone.
    pub timezone: String,
    /// When it was changed.
    #[serde(with = "serde_rfc3339")]
    pub until: DateTime<Utc>,
}

impl Former {
    /// Whether it is this one.
    pub fn is(&self, cron: &Cron) -> bool {
        self.schedule == cron.expression() && self.timezone == cron.timezone()
    }
}

/// Targets at which a backup is missing that others have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The newest backup that others have.
    pub id: String,
    /// Their names.
    pub targets: Vec<String>,
    /// Whether a later run came to nothing at all.
    #[serde(default)]
    pub failed_since: bool,
}

/// A drill that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// Its slot.
    #[serde(with = "serde_rfc3339")]
    pub slot: DateTime<Utc>,
    /// When it ended.
    #[serde(with = "serde_rfc3339")]
    pub finished: DateTime<Utc>,
    /// What went wrong, if anything did.
    #[serde(default)]
    pub error: Option<String>,
}

/// A slot that failed and will be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Which.
    #[serde(with = "serde_rfc3339")]
    pub slot: DateTime<Utc>,
    /// How often it failed.
    pub attempts: u32,
    /// When it failed last.
    #[serde(with = "serde_rfc3339")]
    pub failed: DateTime<Utc>,
    /// When it is tried again.
    #[serde(with = "serde_rfc3339")]
    pub next_try: DateTime<Utc>,
    /// When it failed first.
    #[serde(with = "serde_rfc3339")]
    pub since: DateTime<Utc>,
}

/// A run that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its slot; a manual run has none.
    #[serde(default, with = "serde_rfc3339_option")]
    pub slot: Option<DateTime<Utc>>,
    /// Since when.
    #[serde(with = "serde_rfc3339")]
    pub started: DateTime<Utc>,
    /// How many runs of the same slot were killed before.
    #[serde(default)]
    pub interrupted: u32,
}

/// The newest backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// The backup's id.
    pub id: String,
    /// The instant that the backup shows.
    #[serde(with = "serde_rfc3339")]
    pub created: DateTime<Utc>,
    /// When it stood at its targets.
    #[serde(with = "serde_rfc3339")]
    pub finished: DateTime<Utc>,
    /// Its slot; a manual run has none.
    #[serde(default, with = "serde_rfc3339_option")]
    pub slot: Option<DateTime<Utc>>,
    /// What it takes up at a target.
    pub stored_bytes: u64,
}

impl State {
    /// Notes that the configuration has this job; see [`JobState::seen`].
    pub fn seen(&mut self, job: &str, now: DateTime<Utc>, cron: &Cron) -> &mut JobState {
        let past = self.jobs.entry(job.to_owned()).or_insert_with(|| JobState::new(now, cron));
        past.seen(now, cron);
        past
    }
}

impl JobState {
    /// A job that is seen for the first time.
    pub fn new(now: DateTime<Utc>, cron: &Cron) -> Self {
        Self {
            unasked: false,
            first_seen: now,
            schedule: cron.expression().to_owned(),
            timezone: cron.timezone().to_owned(),
            settled: None,
            failing: None,
            running: None,
            failures_in_row: 0,
            last_success: None,
            last_attempt: None,
            last_error: None,
            last_proved: None,
            last_proved_id: None,
            last_drill: None,
            behind: None,
            former: None,
        }
    }

    /// Whether this past belongs to this schedule.
    pub fn is_of(&self, cron: &Cron) -> bool {
        self.schedule == cron.expression() && self.timezone == cron.timezone()
    }

    /// Whether a run of this slot failed, or was killed, and is yet to be tried again.
    pub fn has_begun(&self, slot: DateTime<Utc>) -> bool {
        let failing = self.failing.as_ref().is_some_and(|failing| failing.slot == slot);
        failing || self.running.as_ref().is_some_and(|running| running.slot == Some(slot))
    }

    /// Whether the newest settled slot has no backup.
    pub fn has_given_up(&self) -> bool {
        let done = self.last_success.as_ref().and_then(|success| success.slot);
        self.failures_in_row > 0 && done != self.settled
    }

    /// Every tick sees every job. A changed schedule begins anew, so that no slot is invented before the change; what
    /// was achieved and what went wrong stays.
    pub fn seen(&mut self, now: DateTime<Utc>, cron: &Cron) {
        if !self.is_of(cron) {
            let fresh = Self::new(now, cron);
            let old = std::mem::replace(self, fresh);
            self.unasked = old.unasked;
            self.failures_in_row = old.failures_in_row;
            self.last_success = old.last_success;
            self.last_attempt = old.last_attempt;
            self.last_error = old.last_error;
            self.last_proved = old.last_proved;
            self.last_proved_id = old.last_proved_id;
            self.last_drill = old.last_drill;
            self.behind = old.behind;
            self.former = Some(Former { schedule: old.schedule, timezone: old.timezone, until: now });
        }
        // The clock has gone back: a slot between now and then has not been run by anyone.
        self.first_seen = self.first_seen.min(now);
    }

    /// Whether the last drill failed, and nothing was proved since.
    pub fn is_unproved(&self) -> bool {
        self.last_drill.as_ref().is_some_and(|last| last.error.is_some() && self.last_proved <= Some(last.finished))
    }

    /// A run begins, for a slot or by hand. Written down before the dump, so that a kill is noticed.
    pub fn began(&mut self, slot: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        self.last_attempt = Some(now);
        let left = self.running.as_ref().filter(|running| running.slot.is_some());
        let interrupted = match left {
            Some(left) if left.slot == slot => left.interrupted.saturating_add(1),
            // By hand, while an interrupted slot still waits to be tried again: that one must not be forgotten.
            Some(_) if slot.is_none() => return,
            _ => 0,
        };
        self.running = Some(Running { slot, started: now, interrupted });
    }

    /// A run has published a backup.
    pub fn succeeded(
        &mut self,
        slot: Option<DateTime<Utc>>,
        id: &str,
        created: DateTime<Utc>,
        stored_bytes: u64,
        now: DateTime<Utc>,
    ) {
        self.last_success = Some(Success { id: id.to_owned(), created, finished: now, slot, stored_bytes });
        self.failures_in_row = 0;
        self.last_error = None;
        self.ended(slot);
        if let Some(slot) = slot {
            self.settle(slot, now);
        }
    }

    /// A run has failed. Not for a run that a signal stopped: that one counts as interrupted and needs no word.
    pub fn failed(&mut self, slot: Option<DateTime<Utc>>, job: &Job<'_>, error: &str, now: DateTime<Utc>) {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        self.last_error = Some(shortened(error));
        self.ended(slot);
        let Some(slot) = slot else { return };
        let before = self.failing.take().filter(|failing| failing.slot == slot);
        let attempts = before.as_ref().map_or(0, |failing| failing.attempts).saturating_add(1);
        if job.retries.is_some_and(|retries| attempts > retries) {
            self.settle(slot, now);
            return;
        }
        let next_try = now.checked_add_signed(job.pause(attempts)).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let since = before.map_or(now, |failing| failing.since);
        self.failing = Some(Failing { slot, attempts, failed: now, next_try, since });
    }

    /// A run has brought its backup to the targets `at`, and not to those `missing`. Who gets this one, or a later one, is
    /// behind no more.
    pub fn placed(&mut self, id: &str, at: &[&str], missing: &[&str]) {
        let before = self.behind.take();
        if at.is_empty() {
            self.behind = before.map(|behind| Behind { failed_since: true, ..behind });
            return;
        }
        let mut targets = before.map(|behind| behind.targets).unwrap_or_default();
        targets.retain(|target| !at.contains(&target.as_str()) && !missing.contains(&target.as_str()));
        targets.extend(missing.iter().map(|target| (*target).to_owned()));
        if !targets.is_empty() {
            self.behind = Some(Behind { id: id.to_owned(), targets, failed_since: false });
        }
    }

    /// A backup of it was restored as a proof.
    pub fn proved(&mut self, id: &str, now: DateTime<Utc>) {
        self.last_proved = Some(now);
        self.last_proved_id = Some(id.to_owned());
    }

    /// A drill has ended.
    pub fn drilled(&mut self, slot: DateTime<Utc>, error: Option<&str>, now: DateTime<Utc>) {
        self.last_drill = Some(Drilled { slot, finished: now, error: error.map(shortened) });
    }

    fn ended(&mut self, slot: Option<DateTime<Utc>>) {
        if self.running.as_ref().is_some_and(|running| running.slot == slot || running.slot.is_none()) {
            self.running = None;
        }
    }

    /// A slot is done or given up, and with it all before it. One that lies too far ahead was settled by a wrong clock
    /// and is forgotten here.
    fn settle(&mut self, slot: DateTime<Utc>, now: DateTime<Utc>) {
        let is_believed = |other: DateTime<Utc>| other.signed_duration_since(now) <= CLOCK_SLACK;
        let believed = self.settled.filter(|settled| is_believed(*settled));
        self.settled = Some(believed.map_or(slot, |settled| settled.max(slot)));
        let open = |other: DateTime<Utc>| other > slot && is_believed(other);
        self.failing = self.failing.take().filter(|failing| open(failing.slot));
        self.running = self.running.take().filter(|running| running.slot.is_none_or(open));
    }
}

/// An error's text within [`MAX_ERROR_BYTES`], cut between characters.
fn shortened(error: &str) -> String {
    let error = error.trim();
    if error.len() <= MAX_ERROR_BYTES {
        return error.to_owned();
    }
    let end = (0..=MAX_ERROR_BYTES).rev().find(|end| error.is_char_boundary(*end)).unwrap_or_default();
    format!("{} …", error.get(..end).unwrap_or_default())
}
