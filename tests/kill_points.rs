//! `kill -9` at every system call of a tick that writes, renames, removes or syncs: a due job backs a small database up,
//! encrypted, and retention removes one backup. After each kill the next tick is let run, and state and backups agree:
//! the slot has exactly one backup, good, the state knows it, nothing is due, and what is left behind is swept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]
#![allow(clippy::print_stdout, reason = "the table")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{Sandbox, repository, run, sqlite3, tool};
use serde_json::Value;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// What the tracer ends with then.
const WHEN_KILLED: i32 = 128 + 9;

/// A backup: its target and its id.
type Backup = (String, String);

/// A sandbox as it is before the tick: two backups made by hand, a slot that is due, and room for two.
struct Scene {
    sandbox: Sandbox,
    slot: String,
    targets: usize,
    earlier: BTreeSet<Backup>,
}

impl Scene {
    /// With a database in this journal mode, and one target or two.
    fn new(journal: &str, targets: usize) -> Self {
        let sandbox = Sandbox::new();
        let sql = format!("pragma journal_mode = {journal}; create table t (x); insert into t values (1), (2), (3)");
        sqlite3(&sandbox.path("shop.db"), &sql);
        sandbox.configure_local(
            Some(KEY),
            &format!(
                "[backup.targets.second]\ntype = \"local\"\npath = \"{{dir}}/store/second\"\n\
                 [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
                 [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nencrypt = true\nkeep_last = 2\n\
                 target = {}\nschedule = \"0 0 1 1 *\"\n",
                if targets == 1 { "\"local\"" } else { "[\"local\", \"second\"]" }
            ),
        );
        sandbox.run(&["schedule-check"]);
        for _ in 0..2 {
            sandbox.command(&["-q", "run-job", "j"]).run();
        }
        let mut scene = Self { sandbox, slot: String::new(), targets, earlier: BTreeSet::new() };
        let source = repository("tests/kill_points/kill_at.c");
        tool(Command::new("cc").args(["-O1", "-Wall", "-Werror", "-o"]).args([&scene.tracer(), &source]), b"");
        scene.change(|job| job["first_seen"] = "2020-01-01T00:00:00Z".into());
        let decision = scene.json(&["schedule-check", "--dry-run"])["decisions"][0].clone();
        assert_eq!(decision["due"], true, "{decision}");
        scene.slot = decision["slot"].as_str().unwrap().to_owned();
        scene.earlier = scene.backups().0;
        assert_eq!(scene.earlier.len(), 2 * targets);
        for folder in ["data", "store"] {
            copy(&scene.sandbox.path(folder), &scene.sandbox.path(&format!("{folder}.before")));
        }
        scene
    }

    fn tracer(&self) -> PathBuf {
        self.sandbox.path("kill_at")
    }

    fn again(&self) {
        for folder in ["data", "store"] {
            fs::remove_dir_all(self.sandbox.path(folder)).unwrap();
            copy(&self.sandbox.path(&format!("{folder}.before")), &self.sandbox.path(folder));
        }
    }

    fn json(&self, args: &[&str]) -> Value {
        let outcome = self.sandbox.command(&[&["--json"], args].concat()).stdout_any().stderr_any().run();
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
    }

    /// Those made by hand, and those of the slot; there must be none of another.
    fn backups(&self) -> (BTreeSet<Backup>, BTreeSet<Backup>) {
        let listed = self.json(&["list"]);
        let text = |backup: &Value, name: &str| backup[name].as_str().unwrap().to_owned();
        let (mut by_hand, mut of_slot) = (BTreeSet::new(), BTreeSet::new());
        for backup in listed["backups"].as_array().unwrap() {
            let is_new = match backup["scheduled_for"].as_str() {
                None => by_hand.insert((text(backup, "target"), text(backup, "id"))),
                Some(slot) => {
                    assert_eq!(slot, self.slot, "{listed}");
                    of_slot.insert((text(backup, "target"), text(backup, "id")))
                }
            };
            assert!(is_new, "{listed}");
        }
        (by_hand, of_slot)
    }

    /// How many copies are good; a bad one fails.
    fn verified(&self) -> usize {
        let verified = self.json(&["verify", "--all"]);
        let backups = verified["backups"].as_array().unwrap();
        assert!(backups.iter().all(|backup| backup["ok"] == true), "{verified}");
        backups.len()
    }

    fn state(&self) -> Value {
        let bytes = fs::read(self.sandbox.data_dir().join("state.json")).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["jobs"]["j"].clone()
    }

    /// Changes the job's state as if time had passed.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.sandbox.data_dir().join("state.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut state["jobs"]["j"]);
        fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
    }

    /// A tick that is killed at its call number `at`; gives whether it was, and the calls until then.
    fn tick(&self, at: usize) -> (bool, Vec<String>) {
        let log = self.sandbox.path("calls");
        let plain = self.sandbox.command(&["schedule-check"]).into_command();
        let mut command = Command::new(self.tracer());
        command.arg(at.to_string()).arg(&log).arg(plain.get_program()).args(plain.get_args());
        command.current_dir(plain.get_current_dir().unwrap()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outcome = run(&mut command, b"");
        assert!([0, WHEN_KILLED].map(Some).contains(&outcome.code), "call {at}: {outcome:?}");
        let calls = fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
        (outcome.code == Some(WHEN_KILLED), calls)
    }

    fn files(&self, folder: &str) -> BTreeSet<PathBuf> {
        let (root, mut found) = (self.sandbox.path(folder), BTreeSet::new());
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => drop(found.insert(entry.path().strip_prefix(&root).unwrap().to_owned())),
                }
            }
        }
        found
    }

    /// Makes everything older, as if weeks had passed, so that it may be swept.
    fn age(&self) {
        for folder in ["data", "store"] {
            let mut all = vec![self.sandbox.path(folder)];
            while let Some(path) = all.pop() {
                if path.is_dir() {
                    all.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                }
                let weeks = SystemTime::now() - Duration::from_secs(30 * 86_400);
                File::open(path).unwrap().set_modified(weeks).unwrap();
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    tool(Command::new("cp").args(["-a", "--no-target-directory"]).args([from, to]), b"");
}

/// What stood when it was killed, in words.
fn outcome(scene: &Scene) -> &'static str {
    let (state, (_, published)) = (scene.state(), scene.backups());
    match (published.len(), state["running"].is_null(), state["settled"].is_null()) {
        (0, true, true) => "not begun",
        (0, false, true) => "begun",
        (some, false, true) if some < scene.targets => "half published",
        (_, false, true) => "published",
        (some, true, false) if some == scene.targets => "recorded",
        _ => panic!("{published:?} are published, and {state}"),
    }
}

/// The next ticks, and all that must hold after them; `data`: what may stand in the data folder.
fn recovers(scene: &Scene, data: &BTreeSet<PathBuf>) {
    let (state, (_, published)) = (scene.state(), scene.backups());
    if !state["running"].is_null() {
        assert_eq!(state["running"]["slot"].as_str(), Some(&*scene.slot));
        // A slot that was interrupted is tried again after a pause.
        scene.sandbox.run(&["schedule-check"]);
        scene.change(|job| job["running"]["started"] = "2026-01-01T00:00:00Z".into());
    }
    let tick = scene.json(&["schedule-check"]);
    assert_eq!(tick["idle"] == true, !state["settled"].is_null(), "{tick}");
    // The slot has one backup at each target, and one that stood before still does.
    let (by_hand, slots) = scene.backups();
    assert_eq!(slots.len(), scene.targets, "{slots:?}");
    assert!(slots.is_superset(&published), "{published:?} {slots:?}");
    // Of those before it only the oldest may have gone, and all that stand are good.
    let newest = scene.earlier.iter().map(|(_, id)| id).max().unwrap();
    let newest: BTreeSet<_> = scene.earlier.iter().filter(|(_, id)| id == newest).cloned().collect();
    assert!(by_hand.is_superset(&newest) && by_hand.is_subset(&scene.earlier), "{by_hand:?}");
    assert_eq!(scene.verified(), slots.len() + by_hand.len());
    // The state says so, and nothing is due.
    let past = scene.state();
    assert_eq!(past["settled"].as_str(), Some(&*scene.slot), "{past}");
    assert!(past["running"].is_null() && past["failing"].is_null() && past["failures_in_row"] == 0, "{past}");
    assert!(slots.iter().all(|(_, id)| past["last_success"]["id"] == **id), "{past}");
    assert_eq!(scene.json(&["schedule-check", "--dry-run"])["counts"]["due"], 0);
    assert_eq!(scene.json(&["status"])["jobs"][0]["state"], "good");
    // What is left behind goes in time, and nothing with it.
    scene.age();
    scene.json(&["prune"]);
    assert_eq!(scene.backups(), (newest, slots));
    let files = scene.files("store");
    assert_eq!(files.len(), 2 * 2 * scene.targets, "a manifest and an object each: {files:?}");
    assert_eq!(scene.verified(), 2 * scene.targets);
    // A run sweeps the data folder.
    scene.json(&["run-job", "j"]);
    let left: Vec<PathBuf> = scene.files("data").difference(data).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Kills at every `step`th call, or by `VOXELTRON_TEST_LONG=1` at each.
fn sweep(journal: &str, targets: usize, step: usize) {
    let step = if std::env::var("VOXELTRON_TEST_LONG").is_ok_and(|value| value == "1") { 1 } else { step };
    let scene = Scene::new(journal, targets);
    let (killed, calls) = scene.tick(0);
    assert!(!killed && calls.len() > 30, "{calls:?}");
    let (by_hand, slots) = scene.backups();
    assert_eq!((by_hand.len(), slots.len()), (targets, targets), "retention has removed one");
    scene.json(&["run-job", "j"]);
    let data = scene.files("data");
    let mut table: BTreeMap<String, BTreeMap<&str, u32>> = BTreeMap::new();
    for at in (1..=calls.len()).step_by(step) {
        scene.again();
        let (killed, calls) = scene.tick(at);
        let call = calls.last().unwrap().clone();
        // Threads share the calls out anew each time, so that the last may be missing.
        let what = if killed { outcome(&scene) } else { "(ended before)" };
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| recovers(&scene, &data))) {
            println!("killed at call {at}, {call} ({what})");
            std::panic::resume_unwind(panic);
        }
        let name = call.split(' ').next().unwrap().to_owned();
        *table.entry(name).or_default().entry(what).or_default() += 1;
    }
    println!("{journal}, {targets} target(s): {} calls", calls.len());
    for (call, outcomes) in &table {
        println!("  {call:<10} {:>3} {outcomes:?}", outcomes.values().sum::<u32>());
    }
    let came = |what: &str| table.values().any(|outcomes| outcomes.contains_key(what));
    assert!(came("begun") && came("published") && came("recorded"), "cases that did not come up");
}

#[test]
fn a_tick_that_is_killed_at_any_call_is_made_good_by_the_next() {
    sweep("delete", 1, 3);
}

#[test]
fn a_tick_with_two_targets_that_is_killed_at_any_call_is_made_good_by_the_next() {
    sweep("wal", 2, 5);
}
