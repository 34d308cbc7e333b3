//! A clock that is wrong: far ahead, far behind, for a while. The whole program runs in this process, on a clock that is
//! set by hand, with SQLite and a local target.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use common::{Sandbox, sqlite3};
use serde_json::Value;
use voxeltron_backup::cli::Cli;
use voxeltron_backup::exit::Exit;
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::world::{Clock, SystemClock, Vars, World};

/// A wall clock that is set by hand; all other time is the system's.
#[derive(Clone, Debug)]
struct Wall(Arc<Mutex<DateTime<Utc>>>, Arc<SystemClock>);

impl Clock for Wall {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn sleep(&self, time: Duration) {
        self.1.sleep(time);
    }
}

/// A host whose clock can be set, with one job.
struct Host {
    sandbox: Sandbox,
    wall: Wall,
}

/// What a call of the program came to.
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

impl Host {
    fn new(job: &str) -> Self {
        let sandbox = Sandbox::new();
        sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1), (2)");
        sandbox.configure_local(
            None,
            &format!(
                "[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
                 [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\n{job}\n"
            ),
        );
        let wall = Wall(Arc::new(Mutex::new(at("2026-02-01T00:00:10Z"))), Arc::default());
        Self { sandbox, wall }
    }

    fn set(&self, now: DateTime<Utc>) {
        *self.wall.0.lock().unwrap() = now;
    }

    fn run(&self, args: &[&str]) -> Said {
        let path = ("PATH".to_owned(), std::env::var("PATH").unwrap());
        let world = World { clock: Arc::new(self.wall.clone()), vars: Arc::new(Vars::new([path])), ..World::system() };
        let config = self.sandbox.config().display().to_string();
        let cli = Cli::try_parse_from([&["x", "-c", &config], args].concat()).unwrap();
        let report = Report::capturing(Style { json: args.contains(&"--json"), ..Style::default() });
        let exit = voxeltron_backup::command::run(&cli, &world, &report);
        let (out, err) = report.captured();
        Said { exit, out, err }
    }

    /// A tick at this time, at which the job runs.
    fn tick(&self, now: DateTime<Utc>) -> Said {
        self.set(now);
        let said = self.run(&["schedule-check"]);
        assert_eq!(said.exit, Exit::Done, "{}", said.err);
        assert!(said.err.contains("j: stored"), "{now}: {}", said.err);
        said
    }

    /// Ticks at each of these.
    fn ticks(&self, from: DateTime<Utc>, step: TimeDelta, count: i32) {
        (0..count).for_each(|number| drop(self.tick(from + step * number)));
    }

    fn ids(&self) -> Vec<String> {
        let said = self.run(&["--json", "list"]);
        let listed: Value = serde_json::from_str(&said.out).unwrap();
        listed["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    fn status(&self) -> (Value, Said) {
        let document: Value = serde_json::from_str(&self.run(&["--json", "status"]).out).unwrap();
        (document["jobs"][0].clone(), self.run(&["status"]))
    }
}

/// A host with an hourly job and 12 backups, and its clock just before the next slot.
fn hourly(lines: &str) -> Host {
    let host = Host::new(&format!("schedule = \"0 * * * *\"\n{lines}"));
    assert_eq!(host.run(&["schedule-check"]).err, "");
    host.ticks(at("2026-02-01T01:00:10Z"), TimeDelta::hours(1), 12);
    host
}

#[test]
fn a_clock_that_jumps_ahead_lets_no_good_backup_go() {
    let host = hourly("retention_days = 30");
    let real = host.ids();
    assert_eq!(real.len(), 12);
    for wrong in ["2099-01-01T00:00:10Z", "2026-04-02T13:00:10Z"] {
        let said = host.tick(at(wrong));
        assert!(said.err.contains("warning: j at local: no backup was made in the "), "{}", said.err);
        assert!(said.err.contains(" before the newest one, or the clock has jumped; 12 backups stay"), "{}", said.err);
        assert!(said.err.contains("voxeltron-backup prune --force"), "{}", said.err);
        // Backups that come after it agree with each other, and not with the years before.
        host.ticks(at(wrong) + TimeDelta::hours(1), TimeDelta::hours(1), 3);
        assert!(real.iter().all(|id| host.ids().contains(id)), "{:?}", host.ids());
        host.set(at("2026-02-01T12:30:00Z"));
        assert!(real.iter().all(|id| host.ids().contains(id)));
    }
    // With the right time they go on as if nothing had been.
    host.ticks(at("2026-02-03T13:00:10Z"), TimeDelta::hours(1), 2);
    assert_eq!(host.ids().iter().filter(|id| id.starts_with("202602")).count(), 14);
    // A person who knows better has the last word.
    host.set(at("2099-02-02T13:00:10Z"));
    let said = host.run(&["prune", "--dry-run"]);
    assert!(said.out.contains("goes in time, or with --force"), "{}", said.out);
    host.run(&["prune", "--force"]);
    assert!(host.ids().iter().all(|id| id.starts_with("2099")), "{:?}", host.ids());
}

#[test]
fn a_clock_that_is_behind_is_told_by_ticks_and_by_status() {
    let host = hourly("");
    for (now, words) in [
        ("2026-02-01T04:30:00Z", "the clock is behind the slot 2026-02-01T12:00:00Z, which is settled"),
        ("2026-01-20T04:30:00Z", "the slot 2026-02-01T12:00:00Z is settled, and comes only in 12 d 7 h"),
    ] {
        host.set(at(now));
        let (row, said) = host.status();
        assert_eq!((row["state"].as_str(), said.exit), (Some("clock"), Exit::Partial), "{row}");
        assert!(row["reason"].as_str().unwrap().contains(words) && said.err.contains(words), "{row} {}", said.err);
        assert!(host.run(&["schedule-check", "--dry-run"]).err.contains(words));
        let tick = host.run(&["schedule-check"]);
        assert!(tick.err.contains(&format!("warning: j: {words}")), "{}", tick.err);
        assert_eq!(tick.err.matches(words).count(), 1, "{}", tick.err);
    }
}

#[test]
fn what_another_is_sending_is_not_swept_by_a_clock_that_jumped() {
    let host = hourly("");
    let sending = host.sandbox.store().join("host/shop/20260201T120000Z-j.01234567.sqlite.gz");
    std::fs::write(&sending, "half of it").unwrap();
    host.tick(at("2099-01-01T00:00:10Z"));
    assert!(sending.exists());
    host.run(&["prune", "--force"]);
    assert!(!sending.exists());
}

#[test]
fn a_job_that_runs_once_a_year_is_pruned_all_the_same() {
    let host = Host::new("schedule = \"0 0 1 1 *\"\nretention_days = 30");
    assert_eq!(host.run(&["schedule-check"]).err, "");
    for year in 2027..2031 {
        let said = host.tick(at(&format!("{year}-01-01T00:00:10Z")));
        assert!(!said.err.contains("the clock"), "{}", said.err);
    }
    assert_eq!(host.ids().len(), 1, "{:?}", host.ids());
}

#[test]
fn a_host_that_was_off_for_months_prunes_with_the_days_on_which_it_is_on() {
    let host = Host::new("schedule = \"0 3 * * *\"\nretention_days = 5");
    assert_eq!(host.run(&["schedule-check"]).err, "");
    host.ticks(at("2026-02-01T03:00:10Z"), TimeDelta::days(1), 6);
    let first = at("2026-06-01T03:00:10Z");
    let stays = |host: &Host| host.ids().iter().filter(|id| id.starts_with("202602")).count();
    host.tick(first);
    assert_eq!(stays(&host), 4, "the gap counts for two days");
    host.ticks(first + TimeDelta::days(1), TimeDelta::days(1), 3);
    assert_eq!(stays(&host), 1);
    host.tick(first + TimeDelta::days(4));
    assert_eq!(stays(&host), 0);
}

#[test]
fn a_timer_that_never_ran_and_one_that_stopped_are_told_by_status() {
    let host = Host::new("schedule = \"0 * * * *\"");
    let written = DateTime::<Utc>::from(std::fs::metadata(host.sandbox.config()).unwrap().modified().unwrap());
    host.set(written + TimeDelta::minutes(14));
    assert_eq!(host.status().0["state"], "new");
    host.set(written + TimeDelta::minutes(16));
    let (row, said) = host.status();
    assert_eq!((row["state"].as_str(), said.exit), (Some("overdue"), Exit::Partial), "{row}");
    assert!(said.err.contains("no schedule-check has seen it in the 16 min"), "{}", said.err);
    // One that is seen waits for its slot, does it, and is overdue a quarter of an hour after the next.
    host.set(written + TimeDelta::minutes(16));
    host.run(&["schedule-check"]);
    assert_eq!(host.status().0["state"], "new");
    let slot = written + TimeDelta::hours(2);
    let slot = slot - TimeDelta::nanoseconds(slot.timestamp_nanos_opt().unwrap().rem_euclid(3_600_000_000_000));
    host.tick(slot);
    for (minutes, state, exit) in [
        (1, "good", Exit::Done),
        (74, "good", Exit::Done),
        (76, "overdue", Exit::Partial),
        (900, "overdue", Exit::Partial),
    ] {
        host.set(slot + TimeDelta::minutes(minutes));
        let (row, said) = host.status();
        assert_eq!((row["state"].as_str(), said.exit), (Some(state), exit), "{minutes}: {row}");
        assert_eq!(said.err.contains("has not run: is the timer running?"), state == "overdue", "{}", said.err);
    }
    // Another schedule that no tick has seen yet.
    let text = std::fs::read_to_string(host.sandbox.config()).unwrap();
    host.sandbox.configure(&text.replace("0 * * * *", "30 * * * *"));
    assert_eq!(host.status().0["state"], "overdue");
}

#[test]
fn a_dry_run_tells_the_last_run_and_the_next_slot() {
    let host = hourly("");
    host.set(at("2026-02-01T12:20:00Z"));
    let said = host.run(&["--json", "schedule-check", "--dry-run"]);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    let decision = &document["decisions"][0];
    assert_eq!(decision["last_run"], "2026-02-01T12:00:10Z", "{document}");
    assert_eq!(decision["next_slot"], "2026-02-01T13:00:00Z");
    let said = host.run(&["schedule-check", "--dry-run"]);
    assert!(said.out.contains("LAST RUN") && said.out.contains("2026-02-01T12:00:10Z"), "{}", said.out);
}
