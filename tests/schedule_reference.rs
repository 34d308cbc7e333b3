//! Our slots against those of an independent reference: thousands of expressions in zones whose clocks change, looked at
//! round the changes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod reference;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use reference::{Dice, ZONES, ask, expression, field, item};
use serde_json::{Value, json};
use voxeltron_backup::schedule::cron::Cron;

const HOUR: i64 = 3_600;
/// Rules for the past are the same in every edition of the zone data.
const FIRST_YEAR_SECONDS: i64 = 946_684_800; // 2000
const LAST_YEAR_SECONDS: i64 = 1_735_689_600; // 2025

/// Instants at which the zone's offset changes.
fn changes(zone: Tz) -> Vec<i64> {
    let offset = |seconds: i64| {
        zone.offset_from_utc_datetime(&DateTime::from_timestamp(seconds, 0).unwrap().naive_utc())
            .fix()
            .local_minus_utc()
    };
    let mut found = Vec::new();
    let mut at = FIRST_YEAR_SECONDS;
    while at < LAST_YEAR_SECONDS {
        if offset(at) != offset(at + 12 * HOUR) {
            found.push((at..=at + 12 * HOUR).step_by(60).find(|minute| offset(*minute) != offset(at)).unwrap());
        }
        at += 12 * HOUR;
    }
    found
}

/// Compares with the reference; gives how many expressions and instants there were.
fn compare(cases: &[Value]) -> (usize, usize) {
    let (mut expressions, mut instants) = (0, 0);
    for (case, answer) in cases.iter().zip(ask("cron.py", cases)) {
        let parsed = Cron::parse(case["expression"].as_str().unwrap(), case["zone"].as_str().unwrap());
        let Some(answers) = answer.as_array() else {
            assert!(parsed.is_err(), "only the reference finds it wrong: {case}");
            continue;
        };
        let cron = match parsed {
            Ok(cron) => cron,
            // The reference doesn't look for dates that never come; it must find none.
            Err(error) => {
                assert!(error.message.contains("never comes"), "{case}: {error}");
                assert!(answers.iter().all(|pair| *pair == json!([null, null])), "{case}: {error}");
                continue;
            }
        };
        expressions += 1;
        let (start, end) = (case["start"].as_i64().unwrap(), case["end"].as_i64().unwrap());
        let within =
            |slot: Option<DateTime<Utc>>| slot.map(|slot| slot.timestamp()).filter(|s| (start..=end).contains(s));
        for (probe, answer) in case["probes"].as_array().unwrap().iter().zip(answers) {
            let t = DateTime::from_timestamp(probe.as_i64().unwrap(), 0).unwrap();
            let ours = json!([within(cron.previous_or_at(t)), within(cron.next_after(t))]);
            assert_eq!(ours, *answer, "at {t}: {case}");
            instants += 1;
        }
    }
    (expressions, instants)
}

fn case(dice: &mut Dice, zone: &str, expression: String, middle: i64, reach: i64, probes: u64) -> Value {
    let span = u64::try_from(2 * reach).unwrap();
    let mut at: Vec<i64> = (0..probes).map(|_| middle - reach + i64::try_from(dice.roll(span)).unwrap()).collect();
    // The change itself, the second before, and the hours round it.
    at.extend([0, -1, HOUR, HOUR - 1, -HOUR, 2 * HOUR, 1_800, 60].map(|offset| middle + offset));
    json!({ "zone": zone, "expression": expression, "start": middle - reach, "end": middle + reach, "probes": at })
}

#[test]
fn slots_round_every_change_of_the_clocks_agree() {
    let mut dice = Dice(20_260_225);
    let mut cases = Vec::new();
    for zone in ZONES {
        let mut changes = changes(zone.parse().unwrap());
        changes.push(1_500_000_000);
        for round in 0..100 {
            let middle = changes[round % changes.len()];
            let text = expression(&mut dice);
            cases.push(case(&mut dice, zone, text, middle, 36 * HOUR, 12));
        }
    }
    let (expressions, instants) = compare(&cases);
    assert!(expressions > 2_000 && instants > 40_000, "{expressions} expressions, {instants} instants");
    println!("{expressions} expressions, {instants} instants");
}

#[test]
fn rare_slots_agree() {
    let mut dice = Dice(31_337);
    let mut cases = Vec::new();
    for round in 0..400 {
        let zone = dice.pick(&ZONES);
        let text = [
            field(&mut dice, 0, 59, 0, &[]).split(',').next().unwrap().to_owned(),
            dice.roll(24).to_string(),
            field(&mut dice, 1, 31, 3, &["L"]),
            field(&mut dice, 1, 12, 3, &["feb"]),
            field(&mut dice, 0, 7, 3, &["sun", "mon#2", "0L", "6#5"]),
        ];
        let middle = FIRST_YEAR_SECONDS + 86_400 * i64::try_from(500 + dice.roll(8_000)).unwrap();
        let reach = if round % 4 == 0 { 1_500 } else { 100 } * 24 * HOUR;
        let text = if round % 4 == 0 { format!("5 3 29 2 {}", text[4]) } else { text.join(" ") };
        cases.push(case(&mut dice, zone, text, middle, reach, 6));
    }
    let (expressions, _) = compare(&cases);
    assert!(expressions > 300, "{expressions}");
}

#[test]
fn the_same_expressions_are_wrong() {
    let mut dice = Dice(4_711);
    let letters: Vec<&str> =
        ["*", "/", "-", ",", "0", "1", "7", "9", "31", "60", "sun", "jan", "L", "#", "?", "W", "x", "+"].to_vec();
    let mut cases: Vec<Value> = Vec::new();
    for _ in 0..4_000 {
        let fields: Vec<String> = (0..5)
            .map(|place| match dice.roll(3) {
                0 => (0..=dice.roll(4)).map(|_| dice.pick(&letters).to_owned()).collect(),
                1 => "*".to_owned(),
                _ => [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
                    .get(place)
                    .map(|(low, high)| item(&mut dice, *low, *high, &[]))
                    .unwrap(),
            })
            .collect();
        let middle = 1_600_000_000;
        cases.push(json!({ "zone": "UTC", "expression": fields.join(" "), "start": middle, "end": middle + 86_400,
            "probes": [middle + 7 * HOUR] }));
    }
    compare(&cases);
}

#[test]
fn a_search_is_fast_also_for_jobs_of_every_minute() {
    // Bounds that a slow machine keeps too: it is some microseconds, and must not be a walk over every minute.
    for expression in ["* * * * *", "0 * * * *", "30 2 * * *", "0 0 29 2 *", "0 0 1 1 *"] {
        let cron = Cron::parse(expression, "Europe/Berlin").unwrap();
        let start = std::time::Instant::now();
        let mut found = 0u32;
        for at in 0..2_000 {
            let t = DateTime::from_timestamp(1_792_800_000 + at * 100, 0).unwrap();
            found += u32::from(cron.previous_or_at(t).is_some()) + u32::from(cron.next_after(t).is_some());
        }
        let micros = start.elapsed().as_micros() / u128::from(found);
        println!("{expression}: {micros} µs");
        assert!(micros < 1_000, "{expression}: {micros} µs");
    }
}
