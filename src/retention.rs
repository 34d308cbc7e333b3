//! Retention. Flows in: a policy, the backups of one job at one target, the clock. Flows out: a verdict with its reason
//! for each. Pure.
//!
//! What no rule can do, whatever it says: remove the newest good backup; remove anything because of a backup that is
//! not authenticated, or that comes from the future; remove such a one; remove one that is pinned, or the last that was
//! proved by a restore; remove more than half in one run, unless it is forced. The half is that of the *good* ones, so that strangers' manifests can't make room for more removals.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, TimeDelta, Utc};

/// How far ahead of the clock a backup may have been made: hosts that share a store are seldom in step.
pub const CLOCK_SLACK: TimeDelta = TimeDelta::minutes(5);

/// What stays; a rule that is absent keeps nothing, and with no rule at all everything stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Days before the newest good backup.
    pub retention_days: Option<u32>,
    /// The newest so many.
    pub keep_last: Option<u32>,
    /// The newest of each of the last so many days that have one.
    pub keep_daily: Option<u32>,
    /// The same by ISO weeks.
    pub keep_weekly: Option<u32>,
    /// The same by months.
    pub keep_monthly: Option<u32>,
    /// The same by years.
    pub keep_yearly: Option<u32>,
}

impl Policy {
    /// Whether no rule is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A backup to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// The instant that it shows.
    pub created: DateTime<Utc>,
    /// Whether its manifest authenticates, where it has to.
    pub trusted: bool,
    /// Whether a person said that it stays for ever.
    pub pinned: bool,
    /// Whether it is the last one that was restored as a proof.
    pub proved: bool,
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Its id.
    pub id: String,
    /// The instant that it shows.
    #[serde(with = "crate::format::time::serde_rfc3339")]
    pub created: DateTime<Utc>,
    /// Whether it stays.
    pub keep: bool,
    /// Why, for people.
    pub reason: String,
}

/// Judges all backups of one job at one target; the newest comes first, and of two made at once the one with the
/// greater id. `force` lifts the bound of half.
///
/// Days count back from the newest good backup and not from `now`: of a database whose backups have stopped, nothing
/// grows too old. `now` tells what is from the future.
pub fn plan(policy: &Policy, backups: &[Candidate], now: DateTime<Utc>, force: bool) -> Vec<Verdict> {
    let mut sorted: Vec<&Candidate> = backups.iter().collect();
    sorted.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    let is_good = |backup: &Candidate| backup.trusted && !is_from_future(backup, now);
    let good: Vec<&Candidate> = sorted.iter().copied().filter(|backup| is_good(backup)).collect();
    let mut reasons = reasons(policy, &good).into_iter();
    let mut verdicts: Vec<Verdict> = sorted
        .iter()
        .map(|backup| {
            let (keep, reason) = if is_from_future(backup, now) {
                (true, "is from the future: decides nothing".to_owned())
            } else if !backup.trusted {
                (true, "is not authenticated: decides nothing".to_owned())
            } else {
                match reasons.next().unwrap_or_default() {
                    given if given.is_empty() => (false, "no rule keeps it".to_owned()),
                    given => (true, given.join(", ")),
                }
            };
            Verdict { id: backup.id.clone(), created: backup.created, keep, reason }
        })
        .collect();
    if !force {
        spare(&mut verdicts, good.len() / 2);
    }
    verdicts
}

fn is_from_future(backup: &Candidate, now: DateTime<Utc>) -> bool {
    backup.created.signed_duration_since(now) > CLOCK_SLACK
}

/// Why each of these stays; they are good ones, the newest first. One without a reason goes.
fn reasons(policy: &Policy, good: &[&Candidate]) -> Vec<Vec<String>> {
    let mut reasons: Vec<Vec<String>> = vec![Vec::new(); good.len()];
    let mut give = |place: usize, reason: String| {
        if let Some(given) = reasons.get_mut(place) {
            given.push(reason);
        }
    };
    if policy.is_empty() {
        (0..good.len()).for_each(|place| give(place, "no rule is given".to_owned()));
        return reasons;
    }
    give(0, "the newest good one".to_owned());
    for (place, backup) in good.iter().enumerate() {
        if backup.pinned {
            give(place, "pinned".to_owned());
        }
        if backup.proved {
            give(place, "the last that was proved by a restore".to_owned());
        }
        if let (Some(days), Some(newest)) = (policy.retention_days, good.first())
            && newest.created.signed_duration_since(backup.created) <= TimeDelta::days(days.into())
        {
            let days = format!("{days} {}", if days == 1 { "day" } else { "days" });
            give(place, format!("not older than {days} before the newest"));
        }
        if let Some(last) = policy.keep_last
            && place < usize::try_from(last).unwrap_or(usize::MAX)
        {
            give(place, if last == 1 { "the last".to_owned() } else { format!("one of the last {last}") });
        }
    }
    type Period = fn(DateTime<Utc>) -> String;
    let rules: [(Option<u32>, Period); 4] = [
        (policy.keep_daily, |at| format!("day {}", at.format("%Y-%m-%d"))),
        (policy.keep_weekly, |at| format!("week {}-W{:02}", at.iso_week().year(), at.iso_week().week())),
        (policy.keep_monthly, |at| format!("month {}", at.format("%Y-%m"))),
        (policy.keep_yearly, |at| format!("year {}", at.format("%Y"))),
    ];
    for (count, period) in rules {
        let mut newest: BTreeMap<String, usize> = BTreeMap::new();
        for (place, backup) in good.iter().enumerate() {
            newest.entry(period(backup.created)).or_insert(place);
        }
        let mut periods: Vec<(usize, String)> = newest.into_iter().map(|(period, place)| (place, period)).collect();
        // The place of a period's newest orders the periods, the latest first.
        periods.sort_unstable();
        for (place, period) in periods.into_iter().take(usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX)) {
            give(place, format!("the newest of {period}"));
        }
    }
    reasons
}

/// Leaves only the oldest `most` to be removed.
fn spare(verdicts: &mut [Verdict], most: usize) {
    let removed = verdicts.iter_mut().rev().filter(|verdict| !verdict.keep);
    for verdict in removed.skip(most) {
        verdict.keep = true;
        verdict.reason =
            "no rule keeps it, but one run removes at most half: goes next time, or with --force".to_owned();
    }
}
