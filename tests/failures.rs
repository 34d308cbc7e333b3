//! Every order of failures: sequences of good runs, failed dumps, damage, forgeries, failed listings and removals, deaths
//! half-way and a clock that is changed, through the program's own runs and its retention, on a target in memory. What is
//! known here of each backup, from its run's report and from what was done to it, says what must still stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use common::{Sandbox, sqlite3};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use voxeltron_backup::app::{self, App};
use voxeltron_backup::backup::{self, Order};
use voxeltron_backup::catalog::OpenTarget;
use voxeltron_backup::cleanup::{self, Mode};
use voxeltron_backup::config::Config;
use voxeltron_backup::error::Kind;
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::target::memory::Memory;
use voxeltron_backup::target::{Cause, Stored, Target, TargetError};
use voxeltron_backup::world::{Clock, SystemClock, World};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What a target does wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// No listing ends.
    List,
    /// Removes nothing, and says that it failed.
    Delete,
    /// Lets go of nothing, as an object lock does.
    Denied,
    /// Is out of reach after it has removed one thing.
    DiesAfterOne,
    /// Takes no manifest, and is then out of reach.
    DiesBeforeManifest,
    /// Has lost this when it is asked for, as if another run removed it in that instant.
    Vanishes(ObjectKey),
    /// Says that it has not what it lists.
    Denies(ObjectKey),
}

#[derive(Clone, Default)]
struct Faulty(Memory, Arc<Mutex<(Fault, bool)>>);

fn failed() -> TargetError {
    TargetError::new(Cause::Failed, "fault: no")
}

fn is_manifest(key: &ObjectKey) -> bool {
    key.as_str().ends_with(".manifest.json")
}

impl Faulty {
    fn set(&self, fault: Fault) {
        *self.1.lock().unwrap() = (fault, false);
    }

    /// The fault, while the target can be reached.
    fn fault(&self) -> Result<Fault, TargetError> {
        match &*self.1.lock().unwrap() {
            (_, true) => Err(failed()),
            (fault, false) => Ok(fault.clone()),
        }
    }

    fn die(&self) {
        self.1.lock().unwrap().1 = true;
    }

    fn keys(&self) -> BTreeSet<String> {
        self.0.list("").unwrap().into_iter().map(|stored| stored.key.to_string()).collect()
    }

    fn bytes(&self, key: &ObjectKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.get(key).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }
}

impl Target for Faulty {
    fn describe(&self) -> String {
        "faulty".to_owned()
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        if self.fault()? == Fault::DiesBeforeManifest && is_manifest(key) {
            self.die();
            return Err(failed());
        }
        self.0.put(key, body)
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        match self.fault()? {
            Fault::Vanishes(lost) if lost == *key => self.0.delete(key)?,
            Fault::Denies(denied) if denied == *key => return Err(TargetError::new(Cause::NotFound, "fault: no such")),
            _ => {}
        }
        self.0.get(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        if self.fault()? == Fault::List { Err(failed()) } else { self.0.list(prefix) }
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        match self.fault()? {
            Fault::Delete => Err(failed()),
            Fault::Denied => Err(TargetError::new(Cause::Denied, "fault: locked")),
            Fault::DiesAfterOne => {
                self.0.delete(key)?;
                self.die();
                Ok(())
            }
            _ => self.0.delete(key),
        }
    }
}

/// A wall clock that is set by hand.
#[derive(Clone, Debug)]
struct Wall(Arc<Mutex<DateTime<Utc>>>, Arc<SystemClock>);

impl Clock for Wall {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn sleep(&self, _: Duration) {
        *self.0.lock().unwrap() += TimeDelta::seconds(1);
    }
}

/// What is known of a backup.
#[derive(Clone, Debug)]
struct Known {
    created: DateTime<Utc>,
    object: String,
    is_good: bool,
    stays: bool,
}

struct Bench {
    sandbox: Sandbox,
    app: App,
    wall: Wall,
    target: Faulty,
    known: BTreeMap<String, Known>,
    foreign: BTreeSet<String>,
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

impl Bench {
    fn new(rules: &str) -> Self {
        let sandbox = Sandbox::new();
        sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1)");
        sandbox.configure(&format!(
            "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
             [backup.targets.local]\npath = \"{{dir}}/store\"\n\
             [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@hourly\"\nencrypt = true\n{rules}\n"
        ));
        let wall = Wall(Arc::new(Mutex::new("2026-02-01T00:00:00Z".parse().unwrap())), Arc::default());
        let world = World { clock: Arc::new(wall.clone()), ..World::system() };
        let mut config = Config::load(&sandbox.config(), &world.vars, &app::defaults()).unwrap();
        let target = Faulty::default();
        let opened = target.clone();
        config.targets.get_mut("local").unwrap().open = Arc::new(move |_| Ok(Box::new(opened.clone())));
        let app = App::new(config, &world, &Report::capturing(Style::default()));
        let foreign = ["host/shop/notes.txt", "host/shop/20200101T000000Z-other.01234567.sqlite", "other/shop/x"];
        let mut bench = Self { sandbox, app, wall, target, known: BTreeMap::new(), foreign: BTreeSet::new() };
        foreign.iter().for_each(|name| bench.put_foreign(name, b"mine"));
        bench
    }

    fn put_foreign(&mut self, name: &str, bytes: &[u8]) {
        if self.target.0.put(&key(name), &mut &*bytes).is_ok() {
            self.foreign.insert(name.to_owned());
        }
    }

    fn forward(&self, hours: i64) {
        *self.wall.0.lock().unwrap() += TimeDelta::hours(hours);
    }

    fn open(&self) -> OpenTarget {
        self.app.open_target("local").unwrap()
    }

    /// A run by hand, as a slot's or not; what it has stored is known from then on.
    fn run(&mut self) {
        let job = &self.app.config.jobs[0];
        let report = backup::run(&self.app, &Order { job, slot: None, targets: job.targets.clone() });
        if report.targets.first().is_some_and(|target| target.stored) {
            let object = report.targets[0].object.clone().unwrap();
            let known = Known { created: report.created.unwrap(), object, is_good: true, stays: false };
            self.known.insert(report.id.unwrap(), known);
        }
    }

    fn prune(&self, force: bool) -> Option<usize> {
        let pruned = cleanup::prune(&self.app, &self.app.config.jobs[0], &self.open(), Mode { force, dry_run: false });
        pruned.ok().map(|pruned| pruned.backups.iter().filter(|kept| !kept.keep).count())
    }

    fn manifest(id: &str) -> String {
        format!("host/shop/{id}.manifest.json")
    }

    /// Of those that stand, and are good by what is known, and are not from the future.
    fn good(&self) -> Vec<(DateTime<Utc>, String)> {
        let (keys, now) = (self.target.keys(), self.wall.now());
        let stands = |id: &str, known: &Known| keys.contains(&Self::manifest(id)) && keys.contains(&known.object);
        let good = self.known.iter().filter(|(id, known)| known.is_good && stands(id, known));
        let good = good.filter(|(_, known)| known.created <= now + TimeDelta::minutes(5));
        let mut good: Vec<_> = good.map(|(id, known)| (known.created, id.clone())).collect();
        good.sort();
        good
    }

    /// One of those that are known and stand, by number.
    fn pick(&self, number: usize) -> Option<String> {
        let good = self.good();
        good.get(number.checked_rem(good.len())?).map(|(_, id)| id.clone())
    }
}

/// What happens.
#[derive(Clone, Debug)]
enum Action {
    Run,
    RunWith(Fault),
    FailedDump,
    Prune(bool),
    PruneWith(Fault),
    /// An object loses its last byte.
    Cut(usize),
    /// An object is gone.
    Lose(usize),
    /// A copy of a manifest under a later date.
    Forge(usize),
    Junk,
    Pin(usize),
    Prove(usize),
    /// The clock is changed by so many hours.
    Clock(i64),
}

fn action() -> impl Strategy<Value = Action> {
    let fault = || {
        let faults = [Fault::List, Fault::Delete, Fault::Denied, Fault::DiesAfterOne, Fault::DiesBeforeManifest];
        prop::sample::select(faults.to_vec())
    };
    let clock = prop::sample::select(vec![-90 * 24, -26, 3, 26, 10 * 24, 400 * 24, 73 * 365 * 24]);
    prop_oneof![
        8 => Just(Action::Run),
        3 => fault().prop_map(Action::RunWith),
        1 => Just(Action::FailedDump),
        2 => prop::bool::weighted(0.3).prop_map(Action::Prune),
        3 => fault().prop_map(Action::PruneWith),
        1 => (0usize..20).prop_map(Action::Cut),
        1 => (0usize..20).prop_map(Action::Lose),
        1 => (0usize..20).prop_map(Action::Forge),
        1 => Just(Action::Junk),
        1 => (0usize..20).prop_map(Action::Pin),
        1 => (0usize..20).prop_map(Action::Prove),
        2 => clock.prop_map(Action::Clock),
    ]
}

/// Does it, and says how many backups may go by it at most; `None`: any number that retention says.
fn act(bench: &mut Bench, action: &Action) -> Option<usize> {
    // A run adds one to those of which half may go.
    let runs = usize::from(matches!(action, Action::Run | Action::RunWith(_)));
    let half = (bench.good().len() + runs) / 2;
    match action {
        Action::Run => bench.run(),
        Action::RunWith(fault) => {
            bench.target.set(fault.clone());
            bench.run();
            bench.target.set(Fault::None);
            let removes = !matches!(fault, Fault::List | Fault::Delete | Fault::Denied | Fault::DiesBeforeManifest);
            return Some(if removes { half.max(1) } else { 0 });
        }
        Action::FailedDump => {
            let (from, to) = (bench.sandbox.path("shop.db"), bench.sandbox.path("away.db"));
            std::fs::rename(&from, &to).unwrap();
            bench.run();
            std::fs::rename(&to, &from).unwrap();
            return Some(0);
        }
        Action::Prune(true) => {
            bench.prune(true);
            return None;
        }
        Action::Prune(false) => drop(bench.prune(false)),
        Action::PruneWith(fault) => {
            bench.target.set(fault.clone());
            let pruned = bench.prune(true);
            bench.target.set(Fault::None);
            assert!(*fault != Fault::List || pruned.is_none(), "a listing that fails is told");
            let removes = !matches!(fault, Fault::List | Fault::Delete | Fault::Denied);
            return if removes { None } else { Some(0) };
        }
        Action::Cut(number) | Action::Lose(number) => {
            let Some(id) = bench.pick(*number) else { return Some(0) };
            let known = bench.known.get_mut(&id).unwrap();
            known.is_good = false;
            let object = key(&known.object);
            let mut bytes = bench.target.bytes(&object);
            bench.target.0.delete(&object).unwrap();
            if matches!(action, Action::Cut(_)) {
                bytes.pop();
                bench.target.0.put(&object, &mut &*bytes).unwrap();
                bench.foreign.insert(object.to_string());
            }
            bench.foreign.insert(Bench::manifest(&id));
            return Some(1);
        }
        Action::Forge(number) => {
            let Some(id) = bench.pick(*number) else { return Some(0) };
            let mut document: Value = serde_json::from_slice(&bench.target.bytes(&key(&Bench::manifest(&id)))).unwrap();
            let forged = format!("{}Z-j", bench.wall.now().format("%Y%m%dT%H%M59"));
            document["signed"] = document["signed"].as_str().unwrap().replace(&id, &forged).into();
            bench.put_foreign(&Bench::manifest(&forged), document.to_string().as_bytes());
            return Some(0);
        }
        Action::Junk => {
            let id = format!("{}Z-j", bench.wall.now().format("%Y%m%dT%H%M58"));
            bench.put_foreign(&Bench::manifest(&id), b"{}");
            return Some(0);
        }
        Action::Pin(number) | Action::Prove(number) => {
            let Some(id) = bench.pick(*number) else { return Some(0) };
            let is_pin = matches!(action, Action::Pin(_));
            if is_pin {
                bench.put_foreign(&format!("host/shop/{id}.pin"), b"");
            } else {
                // Only the last one that was proved stays.
                let pinned: Vec<String> = bench.foreign.iter().filter(|name| name.ends_with(".pin")).cloned().collect();
                for (other, known) in &mut bench.known {
                    known.stays = pinned.contains(&format!("host/shop/{other}.pin"));
                }
                let now = bench.wall.now();
                let prove = &mut |state: &mut voxeltron_backup::schedule::state::State| {
                    state.jobs.get_mut("j").unwrap().proved(&id, now);
                };
                bench.app.store().unwrap().update("j", &bench.app.cx.report, prove).unwrap();
            }
            bench.known.get_mut(&id).unwrap().stays = true;
            return Some(0);
        }
        Action::Clock(hours) => {
            bench.forward(*hours);
            return Some(0);
        }
    }
    Some(half.max(1))
}

fn holds(rules: &str, actions: &[Action]) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(rules);
    for (number, action) in actions.iter().enumerate() {
        bench.forward(1);
        let (before, keys) = (bench.good(), bench.target.keys());
        let stays: Vec<String> =
            bench.known.iter().filter(|(_, known)| known.stays && known.is_good).map(|(id, _)| id.clone()).collect();
        let most = act(&mut bench, action);
        let (after, left) = (bench.good(), bench.target.keys());
        let told = format!("after {number}: {action:?} of {actions:?} with {rules}");
        let is_damage = matches!(action, Action::Cut(_) | Action::Lose(_));
        if !is_damage && !matches!(action, Action::Clock(_)) {
            prop_assert!(after.last() >= before.last(), "the newest good one is gone, {}", told);
        }
        let gone = before.iter().filter(|one| !after.contains(one)).count();
        if let Some(most) = most.filter(|_| !matches!(action, Action::Clock(_))) {
            prop_assert!(gone <= most, "{} are gone and {} may be, {}", gone, most, told);
        }
        for id in stays.iter().filter(|id| bench.known[*id].is_good) {
            prop_assert!(
                left.contains(&Bench::manifest(id)) && left.contains(&bench.known[id].object),
                "{} is gone, {}",
                id,
                told
            );
        }
        for name in &bench.foreign {
            prop_assert!(left.contains(name), "{} is gone, {}", name, told);
        }
        // What is removed loses its manifest first: none is left without its object.
        for (id, known) in bench.known.iter().filter(|(_, known)| known.is_good) {
            prop_assert!(
                !left.contains(&Bench::manifest(id)) || left.contains(&known.object),
                "{} is half, {}",
                id,
                told
            );
        }
        if matches!(action, Action::Clock(_) | Action::FailedDump | Action::Forge(_) | Action::Junk) {
            prop_assert!(keys.is_subset(&left), "{}", told);
        }
    }
    Ok(())
}

#[test]
fn in_every_order_of_failures_the_newest_good_backup_stays() {
    let config = Runs { cases: 48, failure_persistence: None, ..Runs::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let rules = prop::sample::select(vec!["keep_last = 1", "keep_last = 3", "retention_days = 1", "keep_daily = 2"]);
    let all = (rules, prop::collection::vec(action(), 4..20));
    runner.run(&all, |(rules, actions)| holds(rules, &actions)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_manifest_that_goes_during_a_listing_is_no_failure_and_one_that_stays_is() {
    let mut bench = Bench::new("keep_last = 9");
    for _ in 0..3 {
        bench.forward(1);
        bench.run();
    }
    let (first, second) = (bench.good()[0].1.clone(), bench.good()[1].1.clone());
    bench.target.set(Fault::Denies(key(&Bench::manifest(&first))));
    let error = bench.app.catalog(&bench.open(), "host", Some("shop")).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Target, "fault: no such"));
    assert!(bench.prune(true).is_none());
    bench.target.set(Fault::Vanishes(key(&Bench::manifest(&first))));
    let catalog = bench.app.catalog(&bench.open(), "host", Some("shop")).unwrap();
    assert_eq!(catalog.entries.len(), 2);
    let object = &bench.known[&first].object;
    assert!(
        catalog.orphans.iter().all(|orphan| orphan.object.key.as_str() != object),
        "who removes it removes that, too"
    );
    bench.target.set(Fault::Vanishes(key(&Bench::manifest(&second))));
    assert_eq!(bench.prune(false), Some(0), "and retention goes on");
}
