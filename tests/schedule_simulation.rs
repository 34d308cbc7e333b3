//! Days of ticks, one a minute, over changes of the clocks, with failures, kills at every stage, hosts that are down,
//! power cuts that cost the newest generation of the state, and clocks that jump. Time is a number here, and the store
//! a set of slots; the decisions and the state are the real ones.
//!
//! What must hold is watched from outside: a slot that could be run is run at the first tick that finds it; nothing is
//! tried more often than it may be; nothing that is settled runs again; and at the end all is done.
//!
//! [`ten_years`] drives jobs drawn at random from slot to slot and restart to restart, and takes the slots from an
//! independent reference, so that neither the search nor the decisions are judged by themselves.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reference::{Dice, ZONES, ask, expression};
use serde_json::json;
use voxeltron_backup::schedule::cron::Cron;
use voxeltron_backup::schedule::due::{CLOCK_SLACK, Decision, Job, MOST_MISSED, ON_TIME, decide};
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
    /// Runs that take hours.
    lasts: u64,
    jumps: u64,
    /// How far the clock jumps at most, in seconds.
    jump_reach: i64,
}

/// A run that is under way.
struct Run {
    slot: DateTime<Utc>,
    /// How many older slots it makes up for.
    missed: u32,
    ends: i64,
}

/// Who says when slots come.
#[derive(Clone, Copy)]
enum Slots<'c> {
    /// Our own search, which `tests/schedule_reference.rs` holds against the reference.
    Ours(&'c Cron),
    /// The reference, in seconds, in order.
    Listed(&'c [i64]),
}

impl Slots<'_> {
    fn at(list: &[i64], place: Option<usize>) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(*list.get(place?)?, 0)
    }

    fn previous_or_at(self, t: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Ours(cron) => cron.previous_or_at(t),
            Self::Listed(list) => Self::at(list, list.partition_point(|slot| *slot <= t.timestamp()).checked_sub(1)),
        }
    }

    fn next_after(self, t: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Ours(cron) => cron.next_after(t),
            Self::Listed(list) => Self::at(list, Some(list.partition_point(|slot| *slot <= t.timestamp()))),
        }
    }

    /// How many come later than `after` and no later than `until`.
    fn count(self, after: DateTime<Utc>, until: DateTime<Utc>) -> u32 {
        match self {
            Self::Ours(cron) => cron.count_between(after, until, MOST_MISSED + 1),
            Self::Listed(list) => {
                let place = |t: DateTime<Utc>| list.partition_point(|slot| *slot <= t.timestamp());
                u32::try_from(place(until).saturating_sub(place(after))).unwrap()
            }
        }
    }
}

/// What a job is configured to.
#[derive(Clone, Copy)]
struct Rules {
    retries: Option<u32>,
    catch_up: bool,
    delay: TimeDelta,
}

struct World<'c> {
    dice: Dice,
    cron: &'c Cron,
    slots: Slots<'c>,
    faults: Faults,
    rules: Rules,
    /// Seconds that really passed, and what the clock shows beside that.
    time: i64,
    clock_error: i64,
    down_until: i64,
    /// The state's file, and the generation before it.
    file: Generation,
    file_before: Option<Generation>,
    state: State,
    saved: State,
    run: Option<Run>,
    /// When the last tick wants to look again.
    until: Option<DateTime<Utc>>,
    seen: Watched,
}

/// The state's file, and what had become of the slots when it was written.
#[derive(Clone, Default)]
struct Generation {
    text: String,
    fates: Fates,
}

/// What has become of slots. Each has one fate: done, given up, or made up for by a later one.
#[derive(Clone, Copy, Default)]
struct Fates {
    /// The newest that is done or given up.
    settled: Option<DateTime<Utc>>,
    done: u32,
    given_up: u32,
    made_up_for: u32,
}

/// What is known from outside.
#[derive(Default)]
struct Watched {
    first: Option<DateTime<Utc>>,
    published: BTreeSet<DateTime<Utc>>,
    begun: BTreeSet<DateTime<Utc>>,
    failures: BTreeMap<DateTime<Utc>, u32>,
    fates: Fates,
    newest_run: Option<DateTime<Utc>>,
    again: u32,
    runs: u32,
    ticks: u32,
    restarts: u32,
    clocks: u32,
}

impl World<'_> {
    fn now(&self) -> DateTime<Utc> {
        // A tick comes some seconds late.
        DateTime::from_timestamp(self.time + self.clock_error + 3, 0).unwrap()
    }

    fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.dice.roll(one_in) == 0
    }

    fn save(&mut self) {
        if self.state != self.saved {
            let new = Generation { text: serde_json::to_string(&self.state).unwrap(), fates: self.seen.fates };
            self.file_before = Some(std::mem::replace(&mut self.file, new)).filter(|file| !file.text.is_empty());
            self.saved = self.state.clone();
        }
    }

    /// The process is gone; what it had written is there, or with a power cut the generation before.
    fn die(&mut self) {
        self.run = None;
        self.until = None;
        self.seen.restarts += 1;
        if self.chance(self.faults.power_cuts)
            && let Some(before) = &self.file_before
        {
            self.file = before.clone();
        }
        self.state = serde_json::from_str(&self.file.text).unwrap();
        self.seen.fates = self.file.fates;
        self.saved = self.state.clone();
    }

    fn settle(&mut self, slot: DateTime<Utc>, missed: u32) {
        let limit = self.now() + CLOCK_SLACK;
        let believed = self.seen.fates.settled.filter(|settled| *settled <= limit);
        self.seen.fates.settled = Some(believed.map_or(slot, |settled| settled.max(slot)));
        self.seen.fates.made_up_for += missed;
    }

    /// The run that is under way comes to its end, one way or another.
    fn finish(&mut self, slot: DateTime<Utc>, missed: u32) {
        self.run = None;
        let now = self.now();
        if self.chance(self.faults.kills) {
            return self.die();
        }
        if self.chance(self.faults.fails) {
            let job = job(self.cron, self.rules);
            self.state.jobs.get_mut(NAME).unwrap().failed(Some(slot), &job, "refused", now);
            let failures = self.seen.failures.entry(slot).or_default();
            *failures += 1;
            // Of which some may be forgotten.
            if self.state.jobs[NAME].failing.is_none() {
                let retries = self.rules.retries;
                assert!(retries.is_some_and(|retries| *failures > retries), "{slot} was given up too early");
                self.settle(slot, missed);
                self.seen.fates.given_up += 1;
            }
            return self.save();
        }
        if !self.seen.published.insert(slot) {
            // The manifest was there: nothing is published twice, and the slot counts as done.
            self.seen.again += 1;
        }
        if self.chance(self.faults.kills_after_publishing) {
            return self.die();
        }
        self.state.jobs.get_mut(NAME).unwrap().succeeded(Some(slot), "id", now, 1, now);
        self.settle(slot, missed);
        self.seen.fates.done += 1;
        self.save();
    }

    fn tick(&mut self) {
        let now = self.now();
        self.state.seen(NAME, now, self.cron);
        self.save();
        let first = self.seen.first.map_or(now, |first| first.min(now));
        self.seen.first = Some(first);
        let decision = decide(&job(self.cron, self.rules), self.state.jobs.get(NAME), now, false);
        self.judge(&decision, now, first);
        self.seen.ticks += 1;
        match decision {
            Decision::Run { slot, .. } => {
                let base = self.seen.fates.settled.map_or(first, |settled| settled.max(first));
                let missed = self.slots.count(base, slot).saturating_sub(1);
                self.state.jobs.get_mut(NAME).unwrap().began(Some(slot), now);
                self.save();
                self.seen.begun.insert(slot);
                self.seen.runs += 1;
                // Now and then one takes so long that slots pass by.
                let most = if self.chance(self.faults.lasts) { 300 } else { 4 };
                let minutes = i64::try_from(self.dice.roll(most)).unwrap();
                self.run = Some(Run { slot, missed, ends: self.time + minutes * MINUTE + 30 });
                self.until = None;
            }
            Decision::Wait { until, .. } => self.until = until,
        }
    }

    /// Whether the decision is right, by what is known from outside.
    fn judge(&mut self, decision: &Decision, now: DateTime<Utc>, first: DateTime<Utc>) {
        let (reached, delay) = (now - self.rules.delay, self.rules.delay);
        let newest = self.slots.previous_or_at(reached);
        let limit = now + CLOCK_SLACK;
        let settled = self.seen.fates.settled.filter(|settled| *settled <= limit);
        let open = newest.filter(|newest| *newest > first && settled.is_none_or(|settled| *newest > settled));
        // With a generation of the state goes the memory of what was tried.
        let (lossy, jumps) = (self.faults.power_cuts > 0, self.faults.jumps > 0);
        match decision {
            Decision::Run { slot, attempt, missed } => {
                assert_eq!(Some(*slot), newest, "it runs as the newest slot, at {now}");
                assert_eq!(Some(*slot), open, "it is settled and runs again at {now}");
                let is_late = reached.signed_duration_since(*slot) > ON_TIME;
                let has_begun = self.seen.begun.contains(slot);
                assert!(self.rules.catch_up || !is_late || has_begun, "{slot} is too late at {now}");
                assert!(*attempt > 1 || !has_begun || lossy || jumps, "{slot} was begun before {now}");
                let failures = self.seen.failures.get(slot).copied().unwrap_or_default();
                let most = self.rules.retries.unwrap_or(u32::MAX);
                assert!(lossy || jumps || failures <= most, "{slot} is tried too often");
                if !jumps {
                    let newest_run = self.seen.newest_run;
                    assert!(lossy || newest_run.is_none_or(|newest| newest <= *slot), "slots come in order");
                    let base = settled.map_or(first, |settled| settled.max(first));
                    assert_eq!(
                        *missed,
                        (self.slots.count(base, *slot) - 1).min(MOST_MISSED),
                        "made up for at {now}, since {base}"
                    );
                }
                self.seen.newest_run = Some(*slot);
            }
            Decision::Wait { until, why } => {
                let begun = newest.is_some_and(|newest| self.seen.begun.contains(&newest));
                let late = |slot: DateTime<Utc>| !self.rules.catch_up && reached - slot > ON_TIME;
                assert!(open.is_none_or(late) || begun, "{newest:?} is due at {now} and waits: {why}");
                let next = self.slots.next_after(reached.max(settled.unwrap_or(reached))).map(|next| next + delay);
                let Some(next) = next else { return };
                let until = until.unwrap();
                assert!(until > now, "{why}");
                assert!(until <= next, "it looks again at {until}, after {next}: {why}");
                assert!(until == next || begun, "it looks again at {until}, before {next}: {why}");
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
            Some(run) => self.finish(run.slot, run.missed),
            None => self.tick(),
        }
    }
}

fn job(cron: &Cron, rules: Rules) -> Job<'_> {
    let Rules { retries, catch_up, delay } = rules;
    Job { name: NAME, cron, catch_up, retries, retry_after: Duration::from_secs(60), delay }
}

fn world<'c>(seed: u64, cron: &'c Cron, slots: Slots<'c>, start: i64, rules: Rules, faults: Faults) -> World<'c> {
    World {
        dice: Dice(seed),
        cron,
        slots,
        faults,
        rules,
        time: start,
        clock_error: 0,
        down_until: 0,
        file: Generation::default(),
        file_before: None,
        state: State::default(),
        saved: State::default(),
        run: None,
        until: None,
        seen: Watched::default(),
    }
}

fn simulate(seed: u64, expression: &str, zone: &str, start: &str, retries: u32, faults: Faults) -> (u32, u32) {
    let cron = Cron::parse(expression, zone).unwrap();
    let start = format!("{start}T00:00:00Z").parse::<DateTime<Utc>>().unwrap().timestamp();
    let rules = Rules { retries: Some(retries), catch_up: true, delay: TimeDelta::zero() };
    let mut world = world(seed, &cron, Slots::Ours(&cron), start, rules, faults);
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
    is_at_rest(&world, newest, now);
    if faults.jumps == 0 && faults.power_cuts == 0 && faults.kills_after_publishing == 0 {
        assert_eq!(world.seen.again, 0, "a slot was dumped twice");
    }
    (world.seen.runs, world.seen.again)
}

/// The newest slot is done, and nothing else is left to do.
fn is_at_rest(world: &World<'_>, newest: DateTime<Utc>, now: DateTime<Utc>) {
    let past = world.state.jobs.get(NAME).unwrap();
    let settled = past.settled.unwrap();
    assert!(settled >= newest && settled <= now, "{newest} is not settled: {past:?}");
    assert!(world.seen.published.contains(&settled), "{settled} is not there");
    assert!(past.failing.is_none() && past.failures_in_row == 0, "{past:?}");
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

/// A job drawn at random, with the slots that the reference finds.
struct Drawn {
    seed: u64,
    cron: Cron,
    start: i64,
    end: i64,
    slots: Vec<i64>,
}

const YEAR: i64 = 365 * DAY;
/// The short form looks at fewer years and slots; `VOXELTRON_TEST_LONG=1` at all of them.
fn extent() -> (u64, i64, u32) {
    match std::env::var("VOXELTRON_TEST_LONG").as_deref() {
        Ok("1") => (200, 10 * YEAR, 300),
        _ => (200, YEAR, 24),
    }
}

/// Jobs of these numbers. Their zones take turns; of the expressions none has more than `a_day` slots on most days.
fn draw(numbers: impl Iterator<Item = u64>, years: i64, a_day: u32) -> Vec<Drawn> {
    let mut drawn = Vec::new();
    let mut cases = Vec::new();
    for number in numbers {
        let seed = 20_260_225 + 7_919 * number;
        let mut dice = Dice(seed);
        let zone = ZONES[usize::try_from(number).unwrap() % ZONES.len()];
        // Rules for the past, from 2000 to 2024, are the same in every edition of the zone data.
        let start = (946_684_800 / DAY + i64::try_from(dice.roll(5_200)).unwrap()) * DAY;
        let at = |days: i64| DateTime::from_timestamp(start + days * DAY, 0).unwrap();
        let suits = |cron: &Cron| {
            let most = cron.count_between(at(0), at(28), 28 * a_day + 1);
            most <= 28 * a_day && cron.count_between(at(0), at(years / DAY - 30), 1) == 1
        };
        let cron = std::iter::repeat_with(|| Cron::parse(&expression(&mut dice), zone));
        let cron = cron.filter_map(Result::ok).find(suits).unwrap();
        let end = start + years;
        // The slot before the beginning matters, too.
        let (from, until) = (start - 60 * DAY, end + DAY);
        cases.push(json!({ "zone": zone, "expression": cron.expression(), "start": from, "end": until }));
        drawn.push(Drawn { seed: dice.roll(u64::MAX) | 1, cron, start, end, slots: Vec::new() });
    }
    for (drawn, answer) in drawn.iter_mut().zip(ask("cron.py", &cases)) {
        drawn.slots = serde_json::from_value(answer).unwrap();
    }
    drawn
}

/// When the host goes down, and for how long: at any time, or just when a slot is run; for a boot, some days or weeks.
fn next_restart(world: &mut World<'_>) -> (i64, i64) {
    let roll = |world: &mut World<'_>, below: i64| i64::try_from(world.dice.roll(below.unsigned_abs())).unwrap();
    let mut at = world.time + roll(world, 40 * DAY) / MINUTE * MINUTE;
    let slot = world.slots.next_after(DateTime::from_timestamp(at, 0).unwrap()).map(|slot| slot.timestamp());
    if let (Some(slot), 0..2) = (slot, roll(world, 3)) {
        at = (slot + world.rules.delay.num_seconds()) / MINUTE * MINUTE + MINUTE * roll(world, 5);
    }
    let longest = [2 * MINUTE, 2 * MINUTE, 90 * MINUTE, 2 * DAY, 40 * DAY][world.dice.roll(5) as usize];
    (at, roll(world, longest) / MINUTE * MINUTE)
}

/// Drives one job over its years, from one event to the next: slots, the ends of runs, second looks, restarts.
fn drive(job: &Drawn) -> Watched {
    let mut dice = Dice(job.seed);
    // Of one in four the clock is wrong after some restarts, by what is still believed.
    let jumps = dice.roll(4) == 0;
    let rules = Rules {
        // One in five tries until the next slot comes.
        retries: (dice.roll(5) > 0).then_some(u32::try_from(dice.roll(4)).unwrap()),
        catch_up: dice.roll(5) > 0,
        delay: TimeDelta::seconds(if !jumps && dice.roll(3) == 0 { i64::try_from(dice.roll(600)).unwrap() } else { 0 }),
    };
    let faults = Faults {
        fails: 12,
        kills: 25,
        kills_after_publishing: 25,
        power_cuts: if !jumps && dice.roll(3) == 0 { 5 } else { 0 },
        lasts: 100,
        // Never by itself.
        jumps: if jumps { u64::MAX } else { 0 },
        ..Faults::default()
    };
    let mut world = world(job.seed, &job.cron, Slots::Listed(&job.slots), job.start, rules, faults);
    world.minute();
    let mut restart = next_restart(&mut world);
    let calm = job.end - 30 * DAY;
    while world.time < job.end {
        // The last days go well, so that all can come to rest.
        if world.time >= calm {
            // What a power cut has cost stays forgotten.
            let (power_cuts, jumps) = (faults.power_cuts, faults.jumps);
            (world.faults, world.down_until) = (Faults { power_cuts, jumps, ..Faults::default() }, 0);
            world.clock_error = 0;
            restart.0 = i64::MAX;
        }
        let error = world.clock_error;
        let comes = |slot: DateTime<Utc>| slot.timestamp() + rules.delay.num_seconds() - error;
        let slot = world.slots.next_after(world.now() - rules.delay).map(comes);
        let event = match &world.run {
            Some(run) => Some(run.ends),
            None if world.time < world.down_until => Some(world.down_until),
            // A run has ended, or the host is up again: it looks again.
            None if world.until.is_none() => Some(world.time),
            None => slot.into_iter().chain(world.until.map(|until| until.timestamp() - error)).min(),
        };
        let event =
            event.unwrap_or(job.end).min(restart.0).min(if world.time < calm { calm + 2 * MINUTE } else { job.end });
        // Of the minutes before, the last is looked at.
        world.time = world.time.max(event / MINUTE * MINUTE - 2 * MINUTE);
        if world.time + MINUTE >= restart.0 {
            world.die();
            world.down_until = restart.0 + restart.1;
            world.time = world.time.max(restart.0 - MINUTE);
            restart = next_restart(&mut world);
            if faults.jumps > 0 {
                let hours = i64::try_from(world.dice.roll(41)).unwrap() - 20;
                world.clock_error = if world.dice.roll(2) == 0 { hours * 3_600 } else { 0 };
                world.seen.clocks += u32::from(world.clock_error != 0);
            }
        }
        world.minute();
    }
    while world.run.is_some() {
        world.minute();
    }
    let now = world.now();
    let Fates { settled, done, given_up, made_up_for } = world.seen.fates;
    // What came last may have been begun by no tick yet, or be retried; one that came in the weeks before has had its time.
    let newest =
        world.slots.previous_or_at(now - TimeDelta::hours(6)).filter(|slot| slot.timestamp() > job.end - 29 * DAY);
    assert!(
        newest.is_none_or(|newest| settled >= Some(newest)),
        "{newest:?} is not settled by {now}: {:?}",
        world.state.jobs.get(NAME)
    );
    // Every slot of the reference, from the first tick to the newest that is settled, has one fate.
    let place =
        |at: Option<DateTime<Utc>>| job.slots.partition_point(|slot| Some(*slot) <= at.map(|at| at.timestamp()));
    let came = place(settled.max(world.seen.first)) - place(world.seen.first);
    let fates = (done + given_up + made_up_for) as usize;
    // By a clock that goes back an older slot may be begun beside a later one that is open, and counted with both.
    assert!(fates == came || (faults.jumps > 0 && fates > came), "{fates} of {came}");
    world.seen
}

#[test]
fn ten_years() {
    let (jobs, years, a_day) = extent();
    let started = std::time::Instant::now();
    let half = |part: u64| {
        draw((0..jobs).filter(|number| number % 2 == part), years, a_day)
            .into_iter()
            .map(|job| {
                let seen = std::panic::catch_unwind(|| drive(&job)).unwrap_or_else(|_| {
                    panic!(
                        "job {} in {} from {}, seed {}",
                        job.cron.expression(),
                        job.cron.timezone(),
                        job.start,
                        job.seed
                    )
                });
                let slots = job.slots.iter().filter(|slot| (job.start..job.end).contains(*slot)).count() as u64;
                let Fates { done, given_up, made_up_for, .. } = seen.fates;
                let counts =
                    [done, given_up, made_up_for, seen.runs, seen.again, seen.restarts, seen.ticks, seen.clocks]
                        .map(u64::from);
                [[slots, seen.published.len() as u64].as_slice(), &counts].concat()
            })
            .reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect())
            .unwrap()
    };
    let both: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let halves = [0, 1].map(|part| scope.spawn(move || half(part)));
        halves.into_iter().map(|half| half.join().unwrap()).collect()
    });
    let sum: Vec<u64> = both[0].iter().zip(&both[1]).map(|(a, b)| a + b).collect();
    let [slots, published, done, given_up, made_up_for, runs, again, restarts, ticks, clocks] = sum[..] else {
        panic!("{sum:?}")
    };
    println!(
        "{jobs} jobs, {} years: {slots} slots: {done} done, {given_up} given up, {made_up_for} made up for by later ones; \
         {runs} runs, {published} published, {again} found their manifest there; {restarts} restarts, {clocks} of them with a wrong \
         clock, {ticks} ticks; {:.0} s",
        years / YEAR,
        started.elapsed().as_secs_f64()
    );
    let came_up =
        again > 0 && given_up > 0 && made_up_for > 0 && restarts > 10 * jobs && clocks > jobs && done > slots / 4;
    assert!(came_up, "not every case came up");
}
