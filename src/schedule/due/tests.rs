//! Decisions, one situation each.

use super::*;
use crate::schedule::state::State;

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-02-{text}Z").parse().unwrap()
}

fn daily() -> Cron {
    Cron::parse("0 3 * * *", "UTC").unwrap()
}

fn job(cron: &Cron) -> Job<'_> {
    Job {
        name: "mydb@s3",
        cron,
        catch_up: true,
        retries: Some(3),
        retry_after: Duration::from_secs(60),
        delay: TimeDelta::zero(),
    }
}

/// A job that was first seen at noon of the 10th and has done the slots up to `settled`.
fn past(cron: &Cron, settled: &str) -> JobState {
    let mut past = JobState::new(at("10T12:00:00"), cron);
    past.began(Some(at(settled)), at(settled));
    past.succeeded(Some(at(settled)), "id", at(settled), 1, at(settled));
    past
}

fn run(slot: &str, missed: u32, attempt: u32) -> Decision {
    Decision::Run { slot: at(slot), missed, attempt }
}

fn waits(decision: Decision, until: &str, reason: &str) {
    match decision {
        Decision::Wait { until: found, why } => assert_eq!((found, why.as_str()), (Some(at(until)), reason)),
        Decision::Run { .. } => panic!("{decision:?}"),
    }
}

#[test]
fn a_new_job_waits_for_its_first_slot() {
    let cron = daily();
    let new = "new: waits for its first slot";
    waits(decide(&job(&cron), None, at("10T12:00:00"), false), "11T03:00:00", new);
    let past = JobState::new(at("10T12:00:00"), &cron);
    waits(decide(&job(&cron), Some(&past), at("11T02:59:59"), false), "11T03:00:00", new);
    assert_eq!(decide(&job(&cron), Some(&past), at("11T03:00:00"), false), run("11T03:00:00", 0, 1));
    // A slot on the very instant is the first one only if it comes later.
    let past = JobState::new(at("11T03:00:00"), &cron);
    waits(decide(&job(&cron), Some(&past), at("11T03:00:00"), false), "12T03:00:00", new);
}

#[test]
fn run_new_runs_it_at_once_and_goes_on_as_ever() {
    let cron = daily();
    assert_eq!(decide(&job(&cron), None, at("10T12:00:00"), true), run("10T03:00:00", 0, 1));
    let mut past = JobState::new(at("10T12:00:00"), &cron);
    assert_eq!(decide(&job(&cron), Some(&past), at("10T12:00:00"), true), run("10T03:00:00", 0, 1));
    past.failed(Some(at("10T03:00:00")), &job(&cron), "refused", at("10T12:01:00"));
    let tried = decide(&job(&cron), Some(&past), at("10T12:02:00"), false);
    assert_eq!(tried, run("10T03:00:00", 0, 2), "a slot that was begun is finished");
    past.succeeded(Some(at("10T03:00:00")), "id", at("10T12:02:00"), 1, at("10T12:03:00"));
    waits(decide(&job(&cron), Some(&past), at("10T12:04:00"), true), "11T03:00:00", "nothing is due");
    assert_eq!(decide(&job(&cron), Some(&past), at("11T03:00:00"), false), run("11T03:00:00", 0, 1));
}

#[test]
fn one_run_makes_up_for_all_that_was_missed() {
    let cron = daily();
    let past = past(&cron, "11T03:00:00");
    assert_eq!(decide(&job(&cron), Some(&past), at("12T03:00:30"), false), run("12T03:00:00", 0, 1));
    assert_eq!(decide(&job(&cron), Some(&past), at("20T08:00:00"), false), run("20T03:00:00", 8, 1));
    let minutely = Cron::parse("* * * * *", "UTC").unwrap();
    let past = JobState { schedule: "* * * * *".into(), ..past };
    let decision = decide(&job(&minutely), Some(&past), at("20T08:00:00"), false);
    assert_eq!(decision, run("20T08:00:00", MOST_MISSED, 1));
}

#[test]
fn without_catch_up_only_what_is_on_time_runs() {
    let cron = daily();
    let (past, strict) = (past(&cron, "11T03:00:00"), Job { catch_up: false, ..job(&cron) });
    assert_eq!(decide(&strict, Some(&past), at("12T03:05:00"), false), run("12T03:00:00", 0, 1));
    let why = "the slot 2026-02-12T03:00:00Z was missed, and catch_up is off";
    waits(decide(&strict, Some(&past), at("12T03:05:01"), false), "13T03:00:00", why);
    assert_eq!(decide(&strict, Some(&past), at("13T03:00:00"), false), run("13T03:00:00", 1, 1));
    // What was begun in time is finished.
    let mut failed = past.clone();
    failed.failed(Some(at("12T03:00:00")), &strict, "refused", at("12T03:30:00"));
    assert_eq!(decide(&strict, Some(&failed), at("12T03:31:00"), false), run("12T03:00:00", 0, 2));
    let mut killed = past;
    killed.began(Some(at("12T03:00:00")), at("12T03:00:05"));
    assert_eq!(decide(&strict, Some(&killed), at("12T04:00:00"), false), run("12T03:00:00", 0, 2));
}

#[test]
fn a_failed_slot_is_tried_again_until_the_next_which_starts_afresh() {
    let cron = daily();
    let (mut past, slot) = (past(&cron, "11T03:00:00"), Some(at("12T03:00:00")));
    past.failed(slot, &job(&cron), "refused", at("12T03:00:10"));
    let why = "failed once: is tried again at 2026-02-12T03:01:10Z";
    waits(decide(&job(&cron), Some(&past), at("12T03:01:09"), false), "12T03:01:10", why);
    assert_eq!(decide(&job(&cron), Some(&past), at("12T03:01:10"), false), run("12T03:00:00", 0, 2));
    past.failed(slot, &job(&cron), "refused", at("12T03:02:00"));
    let why = "failed twice: is tried again at 2026-02-12T03:04:00Z";
    waits(decide(&job(&cron), Some(&past), at("12T03:02:01"), false), "12T03:04:00", why);
    past.failed(slot, &job(&cron), "refused", at("12T03:05:00"));
    assert_eq!(past.failing.as_ref().map(|failing| failing.next_try), Some(at("12T03:09:00")));
    assert_eq!(decide(&job(&cron), Some(&past), at("13T03:00:00"), false), run("13T03:00:00", 1, 1));
    past.failed(slot, &job(&cron), "refused", at("12T03:10:00"));
    assert_eq!((past.settled, &past.failing, past.failures_in_row), (slot, &None, 4));
    let why = "the last slot was given up: waits for the next";
    waits(decide(&job(&cron), Some(&past), at("12T03:11:00"), false), "13T03:00:00", why);
    assert_eq!(decide(&job(&cron), Some(&past), at("13T03:00:00"), false), run("13T03:00:00", 0, 1));
}

#[test]
fn pauses_grow_to_a_bound_but_never_below_what_is_configured() {
    let cron = daily();
    let minutes = |job: Job<'_>| [1, 2, 5, 9, 10, 33, u32::MAX].map(|n| job.pause(n).num_minutes());
    assert_eq!(minutes(job(&cron)), [1, 2, 16, 256, 360, 360, 360]);
    let slow = Job { retry_after: Duration::from_secs(8 * 3_600), ..job(&cron) };
    assert_eq!(minutes(slow), [480; 7]);
    let none = Job { retry_after: Duration::ZERO, ..job(&cron) };
    assert_eq!(minutes(none), [0; 7]);
}

#[test]
fn a_pause_that_outlasts_the_slot_ends_with_it() {
    let cron = Cron::parse("* * * * *", "UTC").unwrap();
    let mut past = JobState::new(at("12T02:59:00"), &cron);
    past.failed(Some(at("12T03:00:00")), &job(&cron), "refused", at("12T03:00:10"));
    let why = "failed once: waits for the next slot";
    waits(decide(&job(&cron), Some(&past), at("12T03:00:20"), false), "12T03:01:00", why);
}

#[test]
fn a_killed_run_is_tried_again_and_costs_no_retry() {
    let cron = daily();
    let none = Job { retries: Some(0), ..job(&cron) };
    let (mut past, slot) = (past(&cron, "11T03:00:00"), Some(at("12T03:00:00")));
    for (begin, wait, until, why) in [
        (
            "12T03:00:00",
            "12T03:00:59",
            "12T03:01:00",
            "was interrupted once, or still runs: is tried again at 2026-02-12T03:01:00Z",
        ),
        (
            "12T03:01:00",
            "12T03:02:59",
            "12T03:03:00",
            "was interrupted twice, or still runs: is tried again at 2026-02-12T03:03:00Z",
        ),
        (
            "12T03:03:00",
            "12T03:06:59",
            "12T03:07:00",
            "was interrupted 3 times, or still runs: is tried again at 2026-02-12T03:07:00Z",
        ),
    ] {
        past.began(slot, at(begin));
        waits(decide(&none, Some(&past), at(wait), false), until, why);
    }
    assert_eq!(decide(&none, Some(&past), at("12T03:07:00"), false), run("12T03:00:00", 0, 4));
    // A run by hand, even a killed one, doesn't make it forget.
    past.began(None, at("12T03:06:00"));
    assert_eq!(decide(&none, Some(&past), at("12T03:07:00"), false), run("12T03:00:00", 0, 4));
    past.failed(slot, &none, "refused", at("12T03:08:00"));
    assert_eq!((past.settled, &past.running), (slot, &None));
}

#[test]
fn a_manual_run_fills_no_slot() {
    let cron = daily();
    let mut past = past(&cron, "11T03:00:00");
    past.began(None, at("12T02:00:00"));
    past.succeeded(None, "manual", at("12T02:00:00"), 1, at("12T02:01:00"));
    assert_eq!(past.last_success.as_ref().map(|success| success.id.as_str()), Some("manual"));
    assert_eq!(decide(&job(&cron), Some(&past), at("12T03:00:00"), false), run("12T03:00:00", 0, 1));
}

#[test]
fn a_clock_that_goes_back_runs_nothing_twice() {
    let cron = daily();
    let past = past(&cron, "12T03:00:00");
    let why = "the clock is behind the slot 2026-02-12T03:00:00Z, which is settled";
    for now in ["12T02:59:00", "11T03:00:00"] {
        waits(decide(&job(&cron), Some(&past), at(now), false), "13T03:00:00", why);
    }
    waits(decide(&job(&cron), Some(&past), at("12T03:00:00"), false), "13T03:00:00", "nothing is due");
}

#[test]
fn a_slot_settled_by_a_wrong_clock_does_not_block_for_years() {
    let cron = daily();
    let mut past = past(&cron, "10T03:00:00");
    let wrong: DateTime<Utc> = "2099-01-01T03:00:00Z".parse().unwrap();
    past.began(Some(wrong), wrong);
    past.succeeded(Some(wrong), "id", wrong, 1, wrong);
    let now = at("12T09:00:00");
    assert_eq!(decide(&job(&cron), Some(&past), now, false), run("12T03:00:00", 0, 1));
    past.failed(Some(at("12T03:00:00")), &job(&cron), "refused", now);
    waits(
        decide(&job(&cron), Some(&past), at("12T09:00:30"), false),
        "12T09:01:00",
        "failed once: is tried again at 2026-02-12T09:01:00Z",
    );
    past.succeeded(Some(at("12T03:00:00")), "id", now, 1, at("12T09:02:00"));
    assert_eq!(past.settled, Some(at("12T03:00:00")));
    waits(decide(&job(&cron), Some(&past), at("12T09:03:00"), false), "13T03:00:00", "nothing is due");
}

#[test]
fn a_pause_begun_by_a_wrong_clock_is_over() {
    let cron = daily();
    let (mut past, slot) = (past(&cron, "11T03:00:00"), Some(at("12T03:00:00")));
    past.failed(slot, &job(&cron), "refused", at("20T03:00:00"));
    assert_eq!(decide(&job(&cron), Some(&past), at("12T03:05:00"), false), run("12T03:00:00", 0, 2));
    past.began(slot, at("20T03:00:00"));
    assert_eq!(decide(&job(&cron), Some(&past), at("12T03:05:00"), false), run("12T03:00:00", 0, 3));
}

#[test]
fn a_job_first_seen_by_a_wrong_clock_is_new() {
    let cron = daily();
    let mut state = State::default();
    state.seen("j", "2099-01-01T12:00:00Z".parse().unwrap(), &cron);
    let past = state.seen("j", at("12T12:00:00"), &cron).clone();
    assert_eq!(past.first_seen, at("12T12:00:00"));
    assert_eq!(decide(&job(&cron), Some(&past), at("13T03:00:00"), false), run("13T03:00:00", 0, 1));
}

#[test]
fn a_changed_schedule_invents_no_slots_and_forgets_no_success() {
    let (old, new) = (daily(), Cron::parse("0 */6 * * *", "UTC").unwrap());
    let mut past = past(&old, "11T03:00:00");
    waits(decide(&job(&new), Some(&past), at("12T13:00:00"), false), "12T18:00:00", "new: waits for its first slot");
    past.began(Some(at("12T03:00:00")), at("12T12:30:00"));
    past.seen(at("12T13:00:00"), &new);
    assert!(past.last_success.is_some() && past.settled.is_none() && past.running.is_none());
    // A run that was under way by the old one ends meanwhile.
    past.succeeded(Some(at("12T03:00:00")), "id", at("12T12:30:00"), 1, at("12T14:00:00"));
    waits(decide(&job(&new), Some(&past), at("12T15:00:00"), false), "12T18:00:00", "nothing is due");
    assert_eq!(decide(&job(&new), Some(&past), at("12T18:00:00"), false), run("12T18:00:00", 0, 1));
    let berlin = Cron::parse("0 3 * * *", "Europe/Berlin").unwrap();
    assert!(!past.is_of(&berlin), "another zone is another schedule");
}

#[test]
fn what_is_settled_stays_settled() {
    let cron = daily();
    let mut past = past(&cron, "12T03:00:00");
    past.succeeded(Some(at("11T03:00:00")), "late", at("12T04:00:00"), 1, at("12T04:00:00"));
    assert_eq!(past.settled, Some(at("12T03:00:00")));
    past.failed(Some(at("11T03:00:00")), &Job { retries: Some(0), ..job(&cron) }, "refused", at("12T04:00:00"));
    assert_eq!(past.settled, Some(at("12T03:00:00")));
}

#[test]
fn a_spread_job_runs_its_slot_later_and_every_slot_once() {
    let cron = daily();
    let late = Job { delay: TimeDelta::minutes(7), ..job(&cron) };
    let past = past(&cron, "11T03:00:00");
    waits(decide(&late, Some(&past), at("12T03:06:59"), false), "12T03:07:00", "nothing is due");
    assert_eq!(decide(&late, Some(&past), at("12T03:07:00"), false), run("12T03:00:00", 0, 1));
    let strict = Job { catch_up: false, ..late };
    assert_eq!(decide(&strict, Some(&past), at("12T03:12:00"), false), run("12T03:00:00", 0, 1), "that is on time");
    assert!(matches!(decide(&strict, Some(&past), at("12T03:12:01"), false), Decision::Wait { .. }));
    let fresh = JobState::new(at("12T03:01:00"), &cron);
    waits(decide(&late, Some(&fresh), at("12T03:30:00"), false), "13T03:07:00", "new: waits for its first slot");
}

#[test]
fn a_drill_is_due_once_a_slot_and_only_where_there_is_something_to_prove() {
    let (cron, weekly) = (daily(), Cron::parse("0 5 * * 0", "UTC").unwrap());
    // The 15th is a Sunday.
    let mut past = past(&cron, "11T03:00:00");
    assert_eq!(drill_due(&weekly, Some(&past), at("15T04:59:59")), None);
    assert_eq!(
        drill_due(&weekly, Some(&past), at("17T08:00:00")),
        Some(at("15T05:00:00")),
        "a missed one is made up for"
    );
    past.drilled(at("15T05:00:00"), Some("it holds the wrong rows"), at("17T08:10:00"));
    assert_eq!(drill_due(&weekly, Some(&past), at("21T23:59:59")), None, "a failed one is not tried again at once");
    assert_eq!(drill_due(&weekly, Some(&past), at("22T05:00:00")), Some(at("22T05:00:00")));
    past.drilled(at("28T05:00:00"), None, at("28T05:00:00"));
    assert_eq!(drill_due(&weekly, Some(&past), at("22T05:00:00")), Some(at("22T05:00:00")), "the clock was wrong then");
    assert_eq!(drill_due(&weekly, None, at("22T05:00:00")), None);
    past.last_success = None;
    assert_eq!(drill_due(&weekly, Some(&past), at("22T05:00:00")), None);
}

#[test]
fn without_a_limit_a_slot_is_tried_until_the_next_comes() {
    let cron = Cron::parse("0 3 * * 0", "UTC").unwrap();
    let job = Job { retries: None, ..job(&cron) };
    let (slot, next) = (at("15T03:00:00"), at("22T03:00:00"));
    let mut past = JobState::new(at("14T00:00:00"), &cron);
    let (mut now, mut tries) = (slot, Vec::new());
    while now < next {
        match decide(&job, Some(&past), now, false) {
            Decision::Run { slot: runs, .. } => {
                assert_eq!(runs, slot);
                tries.push(now);
                past.began(Some(slot), now);
                past.failed(Some(slot), &job, "away", now);
            }
            Decision::Wait { until, .. } => now = until.unwrap(),
        }
    }
    // After a night as after a minute: growing pauses, and six hours at most.
    let pauses: Vec<i64> = tries.windows(2).map(|two| (two[1] - two[0]).num_minutes()).collect();
    assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 360]);
    assert!(pauses[9..].iter().all(|pause| *pause == 360) && tries.len() > 35, "{pauses:?}");
    assert!(matches!(decide(&job, Some(&past), next, false), Decision::Run { slot, missed: 1, .. } if slot == next));
}

#[test]
fn run_new_runs_a_job_without_catch_up_too() {
    let cron = Cron::parse("0 3 * * *", "UTC").unwrap();
    let job = Job { catch_up: false, ..job(&cron) };
    let past = JobState::new(at("25T12:00:00"), &cron);
    let decided = decide(&job, Some(&past), at("25T13:00:00"), true);
    assert!(matches!(decided, Decision::Run { slot, .. } if slot == at("25T03:00:00")), "{decided:?}");
}

#[test]
fn a_clock_that_is_behind_a_settled_slot_is_told() {
    let cron = Cron::parse("0 * * * *", "UTC").unwrap();
    let mut past = JobState::new(at("25T00:00:00"), &cron);
    past.succeeded(Some(at("25T12:00:00")), "id", at("25T12:00:00"), 1, at("25T12:00:10"));
    assert_eq!(clock_doubt(&past, at("25T11:56:00")), None, "hosts differ");
    let behind = clock_doubt(&past, at("25T10:00:00")).unwrap();
    assert!(behind.contains("the clock is behind the slot 2026-02-25T12:00:00Z"), "{behind}");
    let far = clock_doubt(&past, at("23T10:00:00")).unwrap();
    assert!(far.contains("comes only in 2 d 2 h"), "{far}");
}
