//! Our verdicts against those of an independent reference, against readable tables, and against what must always hold.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod reference;

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use reference::{Dice, ask};
use serde_json::{Value, json};
use voxeltron_backup::retention::{Candidate, Policy, Terms, Verdict, plan};

fn now() -> DateTime<Utc> {
    "2026-02-25T03:00:10Z".parse().unwrap()
}

/// As of [`now`], by a daily schedule.
fn terms(force: bool) -> Terms {
    Terms { now: now(), pace: TimeDelta::days(1), force }
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict.reason.as_str() {
        "no rule keeps it" => "none",
        "is from the future: decides nothing" => "future",
        "is not authenticated: decides nothing" => "stranger",
        spared if spared.contains("at most half") => "half",
        _ if verdict.by_gap => "gap",
        _ => "rule",
    }
}

/// Random backups: some made at once, some by strangers, some in the future; clustered or spread over years.
fn random_case(dice: &mut Dice) -> (Policy, Vec<Candidate>, bool) {
    let mut rule = |most: u64| (dice.roll(3) == 0).then(|| 1 + u32::try_from(dice.roll(most)).unwrap());
    let policy = Policy {
        retention_days: rule(400),
        keep_last: rule(10),
        keep_daily: rule(10),
        keep_weekly: rule(8),
        keep_monthly: rule(14),
        keep_yearly: rule(4),
    };
    let step = [60, 3_600, 86_400, 6 * 86_400, 40 * 86_400][usize::try_from(dice.roll(5)).unwrap()];
    let mut created = now().timestamp() + [0, 300, 301, 5_000, -9_000_000][usize::try_from(dice.roll(5)).unwrap()];
    let mut backups = Vec::new();
    for number in 0..dice.roll(40) {
        backups.push(Candidate {
            id: format!("{:02}", (number * 7) % 40),
            created: DateTime::from_timestamp(created, 0).unwrap(),
            trusted: dice.roll(8) > 0,
            pinned: dice.roll(15) == 0,
            proved: dice.roll(30) == 0,
        });
        created -= i64::try_from(dice.roll(4)).unwrap() * step / 2;
    }
    let turn = usize::try_from(dice.roll(40)).unwrap().min(backups.len());
    backups.rotate_left(turn);
    (policy, backups, dice.roll(2) == 0)
}

#[test]
fn verdicts_agree_with_the_reference() {
    let mut dice = Dice(90_210);
    let random: Vec<_> = (0..3_000).map(|_| random_case(&mut dice)).collect();
    let cases: Vec<Value> = random
        .iter()
        .map(|(policy, backups, force)| {
            let backups: Vec<Value> = backups
                .iter()
                .map(|b| {
                    json!({ "id": b.id, "created": b.created.timestamp(), "trusted": b.trusted,
                    "pinned": b.pinned, "proved": b.proved })
                })
                .collect();
            let rules = json!({ "retention_days": policy.retention_days, "keep_last": policy.keep_last,
                "keep_daily": policy.keep_daily, "keep_weekly": policy.keep_weekly,
                "keep_monthly": policy.keep_monthly, "keep_yearly": policy.keep_yearly });
            json!({ "policy": rules, "backups": backups, "now": now().timestamp(), "force": force, "pace": 86_400 })
        })
        .collect();
    let (mut removed, mut by_gap) = (0, 0);
    for ((policy, backups, force), answer) in random.iter().zip(ask("retention.py", &cases)) {
        let verdicts = plan(policy, backups, &terms(*force));
        let ours: Vec<Value> = verdicts.iter().map(|v| json!([v.id, v.keep, kind(v)])).collect();
        assert_eq!(Value::from(ours), answer, "{policy:?} {backups:?} force: {force}");
        removed += verdicts.iter().filter(|verdict| !verdict.keep).count();
        by_gap += verdicts.iter().filter(|verdict| verdict.by_gap).count();
    }
    assert!(removed > 5_000 && by_gap > 300, "{removed} {by_gap}");
}

fn table(policy: &Policy, backups: &[Candidate], force: bool) -> String {
    let given = [
        ("retention_days", policy.retention_days),
        ("keep_last", policy.keep_last),
        ("keep_daily", policy.keep_daily),
        ("keep_weekly", policy.keep_weekly),
        ("keep_monthly", policy.keep_monthly),
        ("keep_yearly", policy.keep_yearly),
    ];
    let given: Vec<String> = given.iter().filter_map(|(rule, count)| Some(format!("{rule} = {}", (*count)?))).collect();
    let mut text = format!("{}{}\n\n", given.join(", "), if force { " --force" } else { "" });
    for verdict in plan(policy, backups, &terms(force)) {
        let what = if verdict.keep { "keep  " } else { "remove" };
        text.push_str(&format!("{what}  {}  {}\n", verdict.id, verdict.reason));
    }
    text
}

fn daily(count: i64, step: TimeDelta) -> Vec<Candidate> {
    let from: DateTime<Utc> = "2026-02-25T03:00:00Z".parse().unwrap();
    let made = |number: i32| from - step * number;
    (0..i32::try_from(count).unwrap())
        .map(|number| Candidate {
            id: made(number).format("%Y%m%dT%H%M%SZ-mydb@s3").to_string(),
            created: made(number),
            trusted: true,
            pinned: false,
            proved: false,
        })
        .collect()
}

#[test]
fn verdict_tables() {
    let none = Policy::default();
    let days = |count| Policy { retention_days: Some(count), ..none };
    let generations = Policy {
        keep_last: Some(2),
        keep_daily: Some(4),
        keep_weekly: Some(3),
        keep_monthly: Some(3),
        keep_yearly: Some(2),
        ..none
    };
    let mut mixed = daily(8, TimeDelta::days(1));
    mixed[0].trusted = false;
    mixed[6].trusted = false;
    mixed.push(Candidate {
        id: "20990101T000000Z-mydb@s3".into(),
        created: now() + TimeDelta::days(26_000),
        trusted: true,
        pinned: false,
        proved: false,
    });
    let mut marked = daily(9, TimeDelta::days(1));
    marked[5].pinned = true;
    marked[7].proved = true;
    let old: Vec<Candidate> = daily(6, TimeDelta::days(1))
        .into_iter()
        .map(|backup| Candidate { created: backup.created - TimeDelta::days(400), ..backup })
        .map(|backup| Candidate { id: backup.created.format("%Y%m%dT%H%M%SZ-mydb@s3").to_string(), ..backup })
        .collect();
    // The clock has jumped by 73 years to `now`; once, and for some days.
    let jumped = |made: i64| {
        let mut backups = daily(12, TimeDelta::days(1));
        for backup in backups.iter_mut().skip(usize::try_from(made).unwrap()) {
            backup.created -= TimeDelta::days(26_000);
            backup.id = backup.created.format("%Y%m%dT%H%M%SZ-mydb@s3").to_string();
        }
        backups
    };
    for (name, policy, backups, force) in [
        ("the-clock-jumped", days(7), jumped(1), false),
        ("the-clock-jumped-days-ago", days(7), jumped(4), false),
        ("the-clock-jumped-forced", days(7), jumped(1), true),
        ("no-rule", none, daily(3, TimeDelta::days(1)), false),
        ("seven-days", days(7), daily(12, TimeDelta::days(1)), false),
        ("generations-forced", generations, daily(70, TimeDelta::hours(171)), true),
        ("at-most-half", days(3), daily(12, TimeDelta::days(1)), false),
        ("at-most-half-forced", days(3), daily(12, TimeDelta::days(1)), true),
        ("strangers-and-the-future", Policy { keep_last: Some(2), ..none }, mixed, true),
        ("backups-have-stopped", days(30), old, true),
        ("single-old-one", days(1), daily(6, TimeDelta::days(1)).split_off(5), true),
        ("pinned-and-proved", days(2), marked, true),
        ("none-at-all", days(1), Vec::new(), false),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/retention").join(format!("{name}.txt"));
        let text = table(&policy, &backups, force);
        if std::env::var_os("VOXELTRON_TEST_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, golden, "{name}: if it is meant, write it anew with VOXELTRON_TEST_WRITE_GOLDEN=1");
    }
}

fn rule(most: u32) -> impl Strategy<Value = Option<u32>> {
    prop_oneof![2 => Just(None), 1 => (1..=most).prop_map(Some)]
}

fn policy() -> impl Strategy<Value = Policy> {
    (rule(500), rule(12), rule(12), rule(12), rule(12), rule(5)).prop_map(|rules| Policy {
        retention_days: rules.0,
        keep_last: rules.1,
        keep_daily: rules.2,
        keep_weekly: rules.3,
        keep_monthly: rules.4,
        keep_yearly: rules.5,
    })
}

fn backups() -> impl Strategy<Value = Vec<Candidate>> {
    // One in ten is of the future, by hours at least.
    let age = prop_oneof![9 => 0i64..60_000_000, 1 => -9_000_000i64..-7_200];
    let one = (age, prop::bool::weighted(0.9), prop::bool::weighted(0.1));
    prop::collection::vec(one, 0..60).prop_map(|list| {
        let numbered = list.into_iter().enumerate();
        numbered
            .map(|(number, (age, trusted, pinned))| Candidate {
                id: format!("{number:02}"),
                created: now() - TimeDelta::seconds(age / 7_200 * 7_200),
                trusted,
                pinned,
                proved: pinned && number % 3 == 0,
            })
            .collect()
    })
}

fn kept(policy: &Policy, backups: &[Candidate], force: bool) -> BTreeSet<String> {
    plan(policy, backups, &terms(force)).into_iter().filter(|v| v.keep).map(|v| v.id).collect()
}

fn only(backups: &[Candidate], ids: &BTreeSet<String>) -> Vec<Candidate> {
    backups.iter().filter(|backup| ids.contains(&backup.id)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn what_always_holds(policy in policy(), backups in backups(), seed in any::<u64>()) {
        let (gentle, forced) = (kept(&policy, &backups, false), kept(&policy, &backups, true));
        let good = |b: &&Candidate| b.trusted && b.created <= now() + TimeDelta::minutes(5);
        let newest = backups.iter().filter(good).max_by_key(|b| (b.created, &b.id));
        prop_assert!(newest.is_none_or(|newest| forced.contains(&newest.id)), "the newest good one stays");
        let stays = |b: &&Candidate| b.pinned || b.proved;
        prop_assert!(backups.iter().filter(stays).all(|b| forced.contains(&b.id)), "the pinned and the proved stay");
        prop_assert!(backups.iter().filter(|b| !good(b)).all(|b| forced.contains(&b.id)), "others are not touched");
        prop_assert!(backups.len() - gentle.len() <= backups.iter().filter(good).count() / 2, "at most half");
        prop_assert!(forced.is_subset(&gentle), "force only removes more");
        prop_assert!(!policy.is_empty() || forced.len() == backups.len(), "no rule, no removal");
        let verdicts = plan(&policy, &backups, &terms(false));
        prop_assert_eq!(verdicts.len(), backups.len());
        prop_assert!(verdicts.windows(2).all(|two| (two[0].created, &two[0].id) > (two[1].created, &two[1].id)));
        prop_assert!(verdicts.iter().all(|verdict| !verdict.reason.is_empty()));

        // The order they come in says nothing.
        let mut shuffled = backups.clone();
        let mut dice = Dice(seed | 1);
        shuffled.sort_by_cached_key(|_| dice.roll(1_000));
        prop_assert_eq!(&plan(&policy, &shuffled, &terms(false)), &verdicts);

        // Strangers and the future change nothing for the others.
        let plain: Vec<Candidate> = backups.iter().filter(good).cloned().collect();
        prop_assert!(kept(&policy, &plain, false).iter().all(|id| gentle.contains(id)));
        prop_assert_eq!(kept(&policy, &plain, false).len() + backups.len() - plain.len(), gentle.len());

        // Run after run it comes to rest at what force leaves at once, but for what stays by a gap; and stays there.
        let mut left = backups.clone();
        for _ in 0..7 {
            left = only(&left, &kept(&policy, &left, false));
        }
        let by_gap: BTreeSet<_> = verdicts.iter().filter(|v| v.by_gap).map(|v| v.id.clone()).collect();
        prop_assert_eq!(&left.iter().map(|b| b.id.clone()).collect::<BTreeSet<_>>(), &(&forced | &by_gap));
        prop_assert_eq!(&kept(&policy, &only(&backups, &forced), true), &forced);
    }

    #[test]
    fn a_further_rule_keeps_no_less(policy in policy(), backups in backups(), last in 1u32..9) {
        let policy = Policy { keep_last: None, keep_daily: policy.keep_daily.or(Some(last)), ..policy };
        let more = Policy { keep_last: Some(last), ..policy };
        prop_assert!(kept(&policy, &backups, true).is_subset(&kept(&more, &backups, true)));
    }
}
