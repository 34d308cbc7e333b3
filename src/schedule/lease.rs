//! A job's record in the state that several hosts share: its past, and who may run it now. Flows in: a record as it was
//! read, the clock. Flows out: whether its lease is over, and the record as it should be. Pure; [`super::shared`] keeps it.
//!
//! A lease is over when its holder has not written its record for the lease's time, and [`SLACK`]. Both ends of that time come
//! from the store's own clock, so the hosts' clocks do not matter; its holder counts from before it asked, by a clock that
//! nobody sets, and so is the first to know. Only where the store tells no times, the holder's word and this host's clock
//! decide, which may differ by [`CLOCK_SLACK`].

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::state::JobState;
use crate::error::{Error, Kind};
use crate::format::time::{rfc3339, serde_rfc3339};

/// The version that is written. A higher one is not read: what it means is not known here.
pub const VERSION: u32 = 1;
/// How long a lease holds that is not renewed, if nothing else is said.
pub const TIME: Duration = Duration::from_secs(120);
/// What the times of a store may be off: they have whole seconds.
pub const SLACK: TimeDelta = TimeDelta::seconds(2);
/// What the clocks of two hosts may differ by, where nothing but they tells the time.
pub const CLOCK_SLACK: TimeDelta = TimeDelta::minutes(2);
/// How many writers are remembered, so that one whose answer got lost finds itself.
const MARKS: usize = 16;

/// A job's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// The job's name.
    pub job: String,
    /// What the last writes were called, the newest last. It also makes every content another.
    #[serde(default)]
    pub marks: Vec<String>,
    /// Who may run it.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// What is remembered of it.
    #[serde(default)]
    pub past: Option<JobState>,
}

/// Who may run a job, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The host, for people.
    pub holder: String,
    /// The very run.
    pub token: String,
    /// Since when, by the holder's clock.
    #[serde(with = "serde_rfc3339")]
    pub since: DateTime<Utc>,
    /// Until when, by the holder's clock.
    #[serde(with = "serde_rfc3339")]
    pub until: DateTime<Utc>,
    /// How long it holds after each renewal, in milliseconds.
    pub holds_ms: u64,
    /// How long it had not been renewed when others wrote the record, in milliseconds: their writes must not keep the
    /// lease of a dead one alive.
    #[serde(default)]
    pub unrenewed_ms: u64,
}

impl Lease {
    /// Another than its holder writes its record, which is of this age.
    pub fn outlives(&mut self, age: Option<TimeDelta>) {
        // In whole seconds either time may be off by one: rather too little, since its holder must be the first to know.
        let age = age.and_then(|age| age.checked_sub(&TimeDelta::seconds(1))).unwrap_or_default().num_milliseconds();
        self.unrenewed_ms = self.unrenewed_ms.saturating_add(u64::try_from(age).unwrap_or_default());
    }

    /// Whether its holder has lost it. `age`: how long ago its record was written, by the store's clock.
    pub fn is_over(&self, age: Option<TimeDelta>, now: DateTime<Utc>) -> bool {
        let holds = i64::try_from(self.holds_ms.saturating_sub(self.unrenewed_ms))
            .ok()
            .and_then(TimeDelta::try_milliseconds)
            .unwrap_or(TimeDelta::MAX);
        match age {
            Some(age) => age.checked_sub(&SLACK).is_some_and(|age| age > holds),
            None => now.signed_duration_since(self.until) > CLOCK_SLACK,
        }
    }

    /// The error of one who wanted it.
    pub fn held(&self, job: &str) -> Error {
        let (holder, since, until) = (&self.holder, rfc3339(self.since), rfc3339(self.until));
        Error::new(Kind::Locked, format!("job {job}: a run on host {holder} holds its lease (since {since})"))
            .hint(format!("wait for it to end; if {holder} is gone, its lease is over soon after {until}"))
    }
}

impl Document {
    /// Of a job that there is no record of.
    pub fn new(job: &str) -> Self {
        Self { version: VERSION, job: job.to_owned(), marks: Vec::new(), lease: None, past: None }
    }

    /// From its JSON. Of one that a newer program has written only the version.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        // The version first: a newer program may have changed everything else.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if head.version > VERSION {
            return Ok(Self { version: head.version, ..Self::new("") });
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// Whether this run holds the lease.
    pub fn is_held_by(&self, token: &str) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.token == token)
    }

    /// Signs a write.
    pub fn mark(&mut self, mark: String) {
        self.marks.push(mark);
        let old = self.marks.len().saturating_sub(MARKS);
        self.marks.drain(..old);
    }
}

/// The error of a run that has lost its lease.
pub fn lost(job: &str, why: &str) -> Error {
    Error::new(Kind::Locked, format!("job {job}: this run has lost its lease: {why}"))
        .hint("another host may run it now; what was not published stays unpublished")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        let since = "2026-02-25T03:00:00Z".parse().unwrap();
        let until = "2026-02-25T03:02:00Z".parse().unwrap();
        Lease { holder: "h".into(), token: "t".into(), since, until, holds_ms: 120_000, unrenewed_ms: 0 }
    }

    #[test]
    fn the_stores_clock_decides_whatever_the_hosts_clock_says() {
        let (lease, wrong) = (lease(), "2099-01-01T00:00:00Z".parse().unwrap());
        let over = |seconds| lease.is_over(Some(TimeDelta::seconds(seconds)), wrong);
        assert!(!over(-5) && !over(0) && !over(120) && !over(122));
        assert!(over(123));
    }

    #[test]
    fn writes_of_others_do_not_keep_it_alive() {
        let (mut lease, now) = (lease(), "2026-02-25T03:00:00Z".parse().unwrap());
        lease.outlives(Some(TimeDelta::seconds(61)));
        lease.outlives(Some(TimeDelta::zero()));
        lease.outlives(None);
        let over = |seconds| lease.is_over(Some(TimeDelta::seconds(seconds)), now);
        assert!(!over(62) && over(63));
    }

    #[test]
    fn without_it_two_clocks_may_differ() {
        let over = |text: &str| lease().is_over(None, text.parse().unwrap());
        assert!(!over("2026-02-25T03:02:01Z") && !over("2026-02-25T03:04:00Z"));
        assert!(over("2026-02-25T03:04:01Z"));
    }

    #[test]
    fn only_the_last_marks_are_kept() {
        let mut document = Document::new("j");
        (0..40).for_each(|number| document.mark(number.to_string()));
        assert_eq!((document.marks.len(), document.marks.last().unwrap().as_str()), (MARKS, "39"));
    }
}
