//! Whether a job is due. Flows in: the job, what is remembered of its past, the clock. Flows out: a decision with its
//! reason. Pure.
//!
//! One slot matters at a time: the newest that has come. It is due if it is newer than the job's *base*: the newest slot
//! that is settled (done or given up), or the moment the job was first seen. Whatever lies between is made up for by it.
//!
//! **A clock that goes backwards.** A settled slot is never run again, so after a small step back nothing runs until
//! the clock has passed it. A settled slot more than [`CLOCK_SLACK`] ahead is another matter: the clock was wrong when
//! it was written (a machine that woke in 2099), and waiting for it would be no backups for years. It then counts as
//! unknown and the newest slot that has come is run. Should that one have been done before, nothing is published
//! twice: its manifest is there already, and only one can be.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::cron::Cron;
use super::state::JobState;
use crate::format::time;

/// How late a slot of a job without `catch_up` may begin: some ticks, and a boot.
pub const ON_TIME: TimeDelta = TimeDelta::minutes(5);
/// How far ahead of the clock a settled slot may lie and still be believed.
pub const CLOCK_SLACK: TimeDelta = TimeDelta::days(1);
/// What the clocks of two hosts may differ by without a word.
const HOSTS_DIFFER: TimeDelta = TimeDelta::minutes(5);
/// The longest pause before a failed slot is tried again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3_600);
/// How far missed slots are counted; more of them are as many.
pub const MOST_MISSED: u32 = 1_000;

/// What the decision needs of a job's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it runs.
    pub cron: &'a Cron,
    /// Whether a slot is run later than [`ON_TIME`].
    pub catch_up: bool,
    /// How often a failed slot is tried again; `None`: until the next one comes.
    pub retries: Option<u32>,
    /// The first pause before that; each later one is twice as long.
    pub retry_after: Duration,
    /// How long after its slot it runs.
    pub delay: TimeDelta,
}

impl Job<'_> {
    /// The latest time whose slot may run by `now`.
    fn reached(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now.checked_sub_signed(self.delay).unwrap_or(now)
    }

    /// When a slot runs.
    fn comes(&self, slot: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        slot.and_then(|slot| slot.checked_add_signed(self.delay))
    }

    /// The newest slot that should have run by `now`.
    pub fn previous_or_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.previous_or_at(self.reached(now))
    }

    /// When the next slot runs.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.comes(self.cron.next_after(self.reached(now)))
    }

    /// The pause after the `n`th failure or interruption of a slot, counted from 1.
    pub fn pause(&self, n: u32) -> TimeDelta {
        // Enough to reach the longest pause from any first one worth the name.
        let doublings = n.saturating_sub(1).min(20);
        let doubled = self.retry_after.saturating_mul(1 << doublings);
        // What is configured is kept to, even if it is longer than the longest pause.
        TimeDelta::from_std(doubled.min(LONGEST_PAUSE.max(self.retry_after))).unwrap_or(TimeDelta::MAX)
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run the job.
    Run {
        /// As this slot.
        slot: DateTime<Utc>,
        /// How many older slots it makes up for, [`MOST_MISSED`] at most.
        missed: u32,
        /// Which attempt at this slot it is, from 1.
        attempt: u32,
    },
    /// Leave it.
    Wait {
        /// When to look again: nothing changes before, unless the state does.
        until: Option<DateTime<Utc>>,
        /// The reason, for people.
        why: String,
    },
}

/// The slot of a drill that is due: the newest that has come since the last drill, or since the job was first seen. A
/// drill that failed waits for its next slot, since it says enough. Without a backup there is nothing to prove.
pub fn drill_due(drill: &Cron, past: Option<&JobState>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let past = past.filter(|past| past.last_success.is_some())?;
    let slot = drill.previous_or_at(now)?;
    // One that lies ahead was written by a wrong clock.
    let last = past.last_drill.as_ref().map(|last| last.slot).filter(|last| *last <= now + CLOCK_SLACK);
    (slot > last.unwrap_or(past.first_seen)).then_some(slot)
}

/// What is odd about the clock, seen from a job's past: a settled slot lies ahead of it by more than hosts differ.
pub fn clock_doubt(past: &JobState, now: DateTime<Utc>) -> Option<String> {
    let settled = past.settled?;
    let ahead = settled.signed_duration_since(now);
    let slot = time::rfc3339(settled);
    (ahead > HOSTS_DIFFER).then(|| match ahead <= CLOCK_SLACK {
        true => format!(
            "the clock is behind the slot {slot}, which is settled: nothing runs until it has come by; look at the clock \
             of this machine"
        ),
        false => format!(
            "the slot {slot} is settled, and comes only in {}: the clock was ahead then, or is behind now; look at the \
             clock of this machine",
            time::span(ahead)
        ),
    })
}

/// Decides about one job. `run_new` makes a job that has never settled a slot run as the newest one at once, where it
/// would else wait for its first.
pub fn decide(job: &Job<'_>, past: Option<&JobState>, now: DateTime<Utc>, run_new: bool) -> Decision {
    let wait = |why: &str| Decision::Wait { until: job.next_after(now), why: why.to_owned() };
    let Some(slot) = job.previous_or_at(now) else { return wait("no slot has come yet") };
    let past = past.filter(|past| past.is_of(job.cron) && !past.unasked);
    if run_new && past.is_none_or(|past| past.settled.is_none()) {
        // However long ago that slot was.
        return try_slot(&Job { catch_up: true, ..*job }, past, slot, 0, now);
    }
    let Some(past) = past else { return wait("new: waits for its first slot") };
    let believed = past.settled.filter(|settled| settled.signed_duration_since(now) <= CLOCK_SLACK);
    if let Some(settled) = believed.filter(|settled| *settled > now) {
        let why = format!("the clock is behind the slot {}, which is settled", time::rfc3339(settled));
        return Decision::Wait { until: job.comes(job.cron.next_after(settled)), why };
    }
    let base = believed.map_or(past.first_seen, |settled| settled.max(past.first_seen));
    if slot <= base && !past.has_begun(slot) {
        return wait(match past.settled {
            None => "new: waits for its first slot",
            Some(_) if past.has_given_up() => "the last slot was given up: waits for the next",
            Some(_) => "nothing is due",
        });
    }
    let missed = match past.settled.is_some() && believed.is_none() {
        true => 0,
        false => job.cron.count_between(base, slot, MOST_MISSED.saturating_add(1)).saturating_sub(1),
    };
    try_slot(job, Some(past), slot, missed, now)
}

/// Runs a slot that is due, unless it has failed or was interrupted a short while ago, or it is too late for it.
fn try_slot(job: &Job<'_>, past: Option<&JobState>, slot: DateTime<Utc>, missed: u32, now: DateTime<Utc>) -> Decision {
    let failing = past.and_then(|past| past.failing.as_ref()).filter(|failing| failing.slot == slot);
    let running = past.and_then(|past| past.running.as_ref()).filter(|running| running.slot == Some(slot));
    let failures = failing.map_or(0, |failing| failing.attempts);
    let interruptions = running.map_or(0, |running| running.interrupted.saturating_add(1));
    let attempt = failures.saturating_add(interruptions).saturating_add(1);

    let not_before = |since: DateTime<Utc>, pause: TimeDelta| {
        let until = since.checked_add_signed(pause).unwrap_or(DateTime::<Utc>::MAX_UTC);
        // A pause that is yet to begin was begun by a clock that has gone back since.
        (since <= now && now < until).then_some(until)
    };
    let after_failure = failing.and_then(|failing| {
        let pause = failing.next_try.signed_duration_since(failing.failed);
        Some((not_before(failing.failed, pause)?, format!("failed {}", times(failing.attempts))))
    });
    let after_interruption = running.and_then(|running| {
        let until = not_before(running.started, job.pause(interruptions))?;
        Some((until, format!("was interrupted {}, or still runs", times(interruptions))))
    });
    // An interruption of a slot that had failed came after the failure.
    if let Some((until, why)) = after_interruption.or(after_failure) {
        let next = job.next_after(now);
        return match next.filter(|next| *next <= until) {
            Some(next) => Decision::Wait { until: Some(next), why: format!("{why}: waits for the next slot") },
            None => {
                Decision::Wait { until: Some(until), why: format!("{why}: is tried again at {}", time::rfc3339(until)) }
            }
        };
    }
    // A slot that was begun in time may be finished: its retries are part of it.
    if attempt == 1 && !job.catch_up && job.reached(now).signed_duration_since(slot) > ON_TIME {
        let why = format!("the slot {} was missed, and catch_up is off", time::rfc3339(slot));
        return Decision::Wait { until: job.next_after(now), why };
    }
    Decision::Run { slot, missed, attempt }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests;
