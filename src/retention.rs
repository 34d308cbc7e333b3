//! Retention. Flows in: a policy, the backups of one job at one target, the clock. Flows out: a verdict with its reason
//! for each. Pure.
//!
//! What no rule can do, whatever it says: remove the newest good backup; remove anything because of a backup that is
//! not authenticated, or that comes from the future; remove such a one; remove one that is pinned, or the last that was
//! proved by a restore; remove more than half in one run, unless it is forced. The half is that of the *good* ones, so
//! that strangers' manifests can't make room for more removals.
//!
//! **A clock that jumped** makes every backup old at once, if days are counted by the dates alone. So a gap in which no
//! backup was made counts as no more days than the schedule explains (see [`Terms::gap`]): what stands before such a gap
//! grows old with the backups that are made after it, in their own time, and that is true whatever the clock says. A
//! host that was off for months has the same gap, and loses nothing by it but some room for some days. `force` counts
//! all days.

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

/// What a plan is made by, beside the policy.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Tells what is from the future.
    pub now: DateTime<Utc>,
    /// The longest time between two slots of the job's schedule.
    pub pace: TimeDelta,
    /// Whether the bound of half is lifted, and gaps count as long as they are.
    pub force: bool,
}

impl Terms {
    /// What a gap between two backups counts for at most: two of the schedule's slots, or a tenth of `retention_days`,
    /// whichever is more. A longer one is an interruption, or a clock that jumped.
    pub fn gap(&self, policy: &Policy) -> TimeDelta {
        let tenth = TimeDelta::days(policy.retention_days.unwrap_or(0).into()) / 10;
        self.pace.checked_mul(2).unwrap_or(TimeDelta::MAX).max(tenth)
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
    /// Whether it stays only because a gap does not count.
    #[serde(skip)]
    pub by_gap: bool,
}

/// Judges all backups of one job at one target; the newest comes first, and of two made at once the one with the
/// greater id.
///
/// Days count back from the newest good backup and not from `now`: of a database whose backups have stopped, nothing
/// grows too old.
pub fn plan(policy: &Policy, backups: &[Candidate], terms: &Terms) -> Vec<Verdict> {
    let now = terms.now;
    let mut sorted: Vec<&Candidate> = backups.iter().collect();
    sorted.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    let is_good = |backup: &Candidate| backup.trusted && !is_from_future(backup, now);
    let good: Vec<&Candidate> = sorted.iter().copied().filter(|backup| is_good(backup)).collect();
    let mut reasons = reasons(policy, &good, terms).into_iter();
    let mut verdicts: Vec<Verdict> = sorted
        .iter()
        .map(|backup| {
            let (keep, reason, by_gap) = if is_from_future(backup, now) {
                (true, "is from the future: decides nothing".to_owned(), false)
            } else if !backup.trusted {
                (true, "is not authenticated: decides nothing".to_owned(), false)
            } else {
                match reasons.next().unwrap_or_default() {
                    Given { rules, gap: None } if rules.is_empty() => (false, "no rule keeps it".to_owned(), false),
                    Given { rules, gap: Some(gap) } if rules.is_empty() => (true, gap, true),
                    Given { rules, .. } => (true, rules.join(", "), false),
                }
            };
            Verdict { id: backup.id.clone(), created: backup.created, keep, reason, by_gap }
        })
        .collect();
    if !terms.force {
        spare(&mut verdicts, good.len() / 2);
    }
    verdicts
}

fn is_from_future(backup: &Candidate, now: DateTime<Utc>) -> bool {
    backup.created.signed_duration_since(now) > CLOCK_SLACK
}

/// How much longer the gap before the newest good backup is than it counts for, if it is: then the clock may have jumped.
pub fn leap(policy: &Policy, backups: &[Candidate], terms: &Terms) -> Option<TimeDelta> {
    let good = backups.iter().filter(|backup| backup.trusted && !is_from_future(backup, terms.now));
    let mut made: Vec<DateTime<Utc>> = good.map(|backup| backup.created).collect();
    made.sort_unstable_by(|a, b| b.cmp(a));
    let gap = made.first()?.signed_duration_since(*made.get(1)?);
    (gap > terms.gap(policy)).then_some(gap)
}

/// How old each of these is against the newest, in time that counts; and the longest gap in it that does not count whole.
fn ages(good: &[&Candidate], most: TimeDelta) -> Vec<(TimeDelta, TimeDelta)> {
    let mut newer = None;
    let (mut age, mut longest) = (TimeDelta::zero(), TimeDelta::zero());
    let one = |backup: &&Candidate| {
        let gap = newer.map_or(TimeDelta::zero(), |newer: DateTime<Utc>| newer.signed_duration_since(backup.created));
        newer = Some(backup.created);
        age = age.checked_add(&gap.min(most)).unwrap_or(TimeDelta::MAX);
        if gap > most {
            longest = longest.max(gap);
        }
        (age, longest)
    };
    good.iter().map(one).collect()
}

/// Why a backup stays.
#[derive(Clone, Debug, Default)]
struct Given {
    /// The rules that keep it.
    rules: Vec<String>,
    /// What keeps it where none of them does.
    gap: Option<String>,
}

/// Why each of these stays; they are good ones, the newest first. One without a reason goes.
fn reasons(policy: &Policy, good: &[&Candidate], terms: &Terms) -> Vec<Given> {
    let mut reasons: Vec<Given> = vec![Given::default(); good.len()];
    if let Some(days) = policy.retention_days.filter(|_| !terms.force) {
        for (given, (age, gap)) in reasons.iter_mut().zip(ages(good, terms.gap(policy))) {
            if age <= TimeDelta::days(days.into()) {
                given.gap = Some(format!(
                    "not older than {} but for a gap of {} in which no backup was made, as after a jump of the clock: \
                     goes in time, or with --force",
                    in_days(days.into()),
                    in_days(gap.num_days())
                ));
            }
        }
    }
    let mut give = |place: usize, reason: String| {
        if let Some(given) = reasons.get_mut(place) {
            given.rules.push(reason);
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
            give(place, format!("not older than {} before the newest", in_days(days.into())));
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

fn in_days(days: i64) -> String {
    format!("{days} {}", if days == 1 { "day" } else { "days" })
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
