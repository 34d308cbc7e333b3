//! Days of ticks, one a minute, over changes of the clocks, with failures, kills at every stage, hosts that are down,
//! power cuts that cost the newest generation of the state, and clocks that jump. Time is a number here, and the store
//! a set of slots; the decisions and the state are the real ones.
//!
//! What must hold is watched from outside: a slot that could be run is run at the first tick that finds it; nothing is
//! tried more often than it may be; nothing that is settled runs again; and at the end all is done.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reference::Dice;
use voxeltron_backup::schedule::cron::Cron;
use voxeltron_backup::schedule::due::{CLOCK_SLACK, Decision, Job, decide};
use voxeltron_backup::schedule::state::State;

const NAME: &str = "mydb@s3";
const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// What goes wrong, one in so many times; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    fails: u64,
    kills: u64,
    kills_after_publishing: u64,
    power_cuts: u64,
    goes_down: u64,
    jumps: u64,
    /// How far the clock jumps at most, in seconds.
    jump_reach: i64,
}

/// A run that is under way.
struct Run {
    slot: DateTime<Utc>,
    ends: i64,
}

struct World<'c> {
    dice: Dice,
    cron: &'c Cron,
    faults: Faults,
    retries: u32,
    /// Seconds that really passed, and what the clock shows beside that.
    time: i64,
    clock_error: i64,
    down_until: i64,
    /// The state's file, and the generation before it.
    file: String,
    file_before: Option<String>,
    state: State,
    saved: State,
    run: Option<Run>,
    seen: Watched,
}

/// What is known from outside.
#[derive(Default)]
struct Watched {
    first: Option<DateTime<Utc>>,
    published: BTreeSet<DateTime<Utc>>,
    begun: BTreeSet<DateTime<Utc>>,
    failures: BTreeMap<DateTime<Utc>, u32>,
    settled: Option<DateTime<Utc>>,
    newest_run: Option<DateTime<Utc>>,
    again: u32,
    runs: u32,
}

impl World<'_> {
    fn now(&self) -> DateTime<Utc> {
        // A tick comes some seconds late.
        DateTime::from_timestamp(self.time + self.clock_error + 3, 0).unwrap()
    }

    fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.dice.roll(one_in) == 0
    }

    fn job(&self) -> Job<'_> {
        Job {
            name: NAME,
            cron: self.cron,
            catch_up: true,
            retries: self.retries,
            retry_after: Duration::from_secs(60),
            delay: TimeDelta::zero(),
        }
    }

    fn save(&mut self) {
        if self.state != self.saved {
            let text = serde_json::to_string(&self.state).unwrap();
            self.file_before = Some(std::mem::replace(&mut self.file, text)).filter(|text| !text.is_empty());
            self.saved = self.state.clone();
        }
    }

    /// The process is gone; what it had written is there, or with a power cut the generation before.
    fn die(&mut self) {
        self.run = None;
        if self.chance(self.faults.power_cuts)
            && let Some(before) = &self.file_before
        {
            self.file = before.clone();
        }
        self.state = serde_json::from_str(&self.file).unwrap();
        self.saved = self.state.clone();
    }

    fn settle(&mut self, slot: DateTime<Utc>) {
        let limit = self.now() + CLOCK_SLACK;
        let believed = self.seen.settled.filter(|settled| *settled <= limit);
        self.seen.settled = Some(believed.map_or(slot, |settled| settled.max(slot)));
    }

    /// The run that is under way comes to its end, one way or another.
    fn finish(&mut self, slot: DateTime<Utc>) {
        self.run = None;
        let now = self.now();
        if self.chance(self.faults.kills) {
            return self.die();
        }
        if self.chance(self.faults.fails) {
            let (cron, retries) = (self.cron, self.retries);
            let job = Job {
                name: NAME,
                cron,
                catch_up: true,
                retries,
                retry_after: Duration::from_secs(60),
                delay: TimeDelta::zero(),
            };
            self.state.jobs.get_mut(NAME).unwrap().failed(Some(slot), &job, "refused", now);
            self.save();
            let failures = self.seen.failures.entry(slot).or_default();
            *failures += 1;
            if *failures > self.retries {
                self.settle(slot);
            }
            return;
        }
        if !self.seen.published.insert(slot) {
            // The manifest was there: nothing is published twice, and the slot counts as done.
            self.seen.again += 1;
        }
        if self.chance(self.faults.kills_after_publishing) {
            return self.die();
        }
        self.state.jobs.get_mut(NAME).unwrap().succeeded(Some(slot), "id", now, 1, now);
        self.save();
        self.settle(slot);
    }

    fn tick(&mut self) {
        let now = self.now();
        self.state.seen(NAME, now, self.cron);
        self.save();
        let first = self.seen.first.map_or(now, |first| first.min(now));
        self.seen.first = Some(first);
        let decision = decide(&self.job(), self.state.jobs.get(NAME), now, false);
        self.judge(&decision, now, first);
        if let Decision::Run { slot, .. } = decision {
            self.state.jobs.get_mut(NAME).unwrap().began(Some(slot), now);
            self.save();
            self.seen.begun.insert(slot);
            self.seen.runs += 1;
            let minutes = i64::try_from(self.dice.roll(4)).unwrap();
            self.run = Some(Run { slot, ends: self.time + minutes * MINUTE + 30 });
        }
    }

    /// Whether the decision is right, by what is known from outside.
    fn judge(&mut self, decision: &Decision, now: DateTime<Utc>, first: DateTime<Utc>) {
        let newest = self.cron.previous_or_at(now).unwrap();
        let limit = now + CLOCK_SLACK;
        let settled = self.seen.settled.filter(|settled| *settled <= limit);
        let is_open = newest > first && settled.is_none_or(|settled| newest > settled);
        match decision {
            Decision::Run { slot, attempt, .. } => {
                assert_eq!(*slot, newest, "it runs as the newest slot, at {now}");
                let lossy = self.faults.power_cuts > 0 || self.faults.kills_after_publishing > 0;
                assert!(lossy || is_open, "{slot} is settled and runs again at {now}");
                assert!(*attempt > 1 || !self.seen.begun.contains(slot) || lossy || self.faults.jumps > 0);
                let failures = self.seen.failures.get(slot).copied().unwrap_or_default();
                assert!(lossy || self.faults.jumps > 0 || failures <= self.retries, "{slot} is tried too often");
                if self.faults.jumps == 0 && !lossy {
                    assert!(self.seen.newest_run.is_none_or(|newest| newest <= *slot), "slots come in order");
                }
                self.seen.newest_run = Some(*slot);
            }
            Decision::Wait { until, why } => {
                let begun = self.seen.begun.contains(&newest);
                assert!(!is_open || begun, "{newest} is due at {now} and waits: {why}");
                let until = until.unwrap();
                assert!(until > now, "{why}");
                let next = self.cron.next_after(now.max(settled.unwrap_or(now))).unwrap();
                assert!(until <= next, "it looks again at {until}, after {next}: {why}");
            }
        }
    }

    fn minute(&mut self) {
        self.time += MINUTE;
        if self.chance(self.faults.jumps) {
            let reach = u64::try_from(2 * self.faults.jump_reach).unwrap();
            self.clock_error = i64::try_from(self.dice.roll(reach)).unwrap() - self.faults.jump_reach;
        }
        if self.chance(self.faults.goes_down) {
            self.down_until = self.time + i64::try_from(self.dice.roll(900)).unwrap() * MINUTE;
            self.die();
        }
        if self.time < self.down_until {
            return;
        }
        match &self.run {
            Some(run) if self.time < run.ends => {}
            Some(run) => self.finish(run.slot),
            None => self.tick(),
        }
    }
}

fn simulate(seed: u64, expression: &str, zone: &str, start: &str, retries: u32, faults: Faults) -> (u32, u32) {
    let cron = Cron::parse(expression, zone).unwrap();
    let mut world = World {
        dice: Dice(seed),
        cron: &cron,
        faults,
        retries,
        time: format!("{start}T00:00:00Z").parse::<DateTime<Utc>>().unwrap().timestamp(),
        clock_error: 0,
        down_until: 0,
        file: String::new(),
        file_before: None,
        state: State::default(),
        saved: State::default(),
        run: None,
        seen: Watched::default(),
    };
    for _ in 0..5 * DAY / MINUTE {
        world.minute();
    }
    // From here on nothing goes wrong, and the clock is right again: all must come to rest by itself.
    world.faults = Faults { power_cuts: faults.power_cuts, jumps: faults.jumps.min(1) * u64::MAX, ..Faults::default() };
    (world.clock_error, world.down_until) = (0, 0);
    for _ in 0..2 * DAY / MINUTE {
        world.minute();
    }
    let now = world.now();
    // A slot whose minute passes while another is dumped is superseded; a quarter of an hour is more than that takes.
    let newest = cron.previous_or_at(now - TimeDelta::minutes(15)).unwrap();
    let past = world.state.jobs.get(NAME).unwrap();
    let settled = past.settled.unwrap();
    assert!(settled >= newest && settled <= now, "{newest} is not settled: {past:?}");
    assert!(world.seen.published.contains(&settled), "{settled} is not there");
    assert!(past.failing.is_none() && past.failures_in_row == 0, "{past:?}");
    if faults.jumps == 0 && faults.power_cuts == 0 && faults.kills_after_publishing == 0 {
        assert_eq!(world.seen.again, 0, "a slot was dumped twice");
    }
    (world.seen.runs, world.seen.again)
}

/// Each over a change of the clocks: forwards, backwards, by half an hour, a whole day that is missing, none.
const PLACES: [(&str, &str); 6] = [
    ("Europe/Berlin", "2026-03-27"),
    ("Europe/Berlin", "2026-10-23"),
    ("Australia/Lord_Howe", "2024-04-05"),
    ("America/Havana", "2024-03-08"),
    ("Pacific/Apia", "2011-12-27"),
    ("UTC", "2026-02-20"),
];
const EXPRESSIONS: [&str; 5] = ["30 2 * * *", "0 * * * *", "*/7 0-4 * * *", "0 0,3 * * *", "* * * * *"];

fn everywhere(faults: Faults) -> (u32, u32) {
    let mut sum = (0, 0);
    for (place, (zone, start)) in PLACES.iter().enumerate() {
        for (kind, expression) in EXPRESSIONS.iter().enumerate() {
            let seed = 1 + (place * 10 + kind) as u64;
            let (runs, again) = simulate(seed, expression, zone, start, u32::try_from(seed % 4).unwrap(), faults);
            sum = (sum.0 + runs, sum.1 + again);
        }
    }
    println!("{} runs, {} of them found their manifest there", sum.0, sum.1);
    sum
}

#[test]
fn without_faults_every_slot_runs_once() {
    let (runs, again) = everywhere(Faults::default());
    assert!(runs > 5_000 && again == 0);
}

#[test]
fn failures_and_kills_skip_nothing() {
    everywhere(Faults { fails: 2, kills: 4, goes_down: 700, ..Faults::default() });
}

#[test]
fn kills_after_publishing_publish_nothing_twice() {
    let (_, again) =
        everywhere(Faults { fails: 6, kills: 8, kills_after_publishing: 3, goes_down: 900, ..Faults::default() });
    assert!(again > 100, "the case did not come up");
}

#[test]
fn power_cuts_that_cost_a_generation_skip_nothing() {
    everywhere(Faults {
        fails: 6,
        kills: 4,
        kills_after_publishing: 5,
        power_cuts: 3,
        goes_down: 500,
        ..Faults::default()
    });
}

#[test]
fn small_jumps_of_the_clock_run_nothing_that_is_settled() {
    everywhere(Faults { fails: 8, kills: 8, goes_down: 900, jumps: 300, jump_reach: 10 * 3_600, ..Faults::default() });
}

#[test]
fn large_jumps_of_the_clock_neither_skip_nor_block() {
    everywhere(Faults { fails: 8, kills: 8, goes_down: 900, jumps: 400, jump_reach: 40 * DAY, ..Faults::default() });
    everywhere(Faults { jumps: 2_000, jump_reach: 30_000 * DAY, ..Faults::default() });
}
