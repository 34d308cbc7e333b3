//! What a run makes of targets that do not do as they should: a manifest stands only where every byte of its object was
//! confirmed, an object stays only where a manifest may stand, and retention removes nothing where it may not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use common::faults::Gate;
use common::{Sandbox, sqlite3};
use voxeltron_backup::app::{self, App};
use voxeltron_backup::backup::{self, JobReport, Order};
use voxeltron_backup::config::Config;
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::target::memory::Memory;
use voxeltron_backup::target::{Cause, Stored, Target, TargetError};
use voxeltron_backup::world::{Clock, SystemClock, Watch, World};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What a target does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Keeps all but the last byte of an object, and calls it a success.
    ShortObject,
    /// Takes no object.
    NoObject,
    /// Takes no manifest.
    NoManifest,
    /// Keeps a manifest, and says that it failed.
    LostAnswer,
    /// Shows no manifest before one is put, as if another run wrote it in that instant.
    HidesManifests,
    /// Deletes no manifest.
    KeepsManifests,
    /// Takes one byte of an object and then nothing, until it is let go; an hour passes by the clock meanwhile.
    Stalls,
    /// Takes all of an object, and stores it when it is let go.
    StallsAtTheEnd,
    /// Lists what is put only later; it can be read at once.
    ListsLate,
    /// The same of objects alone: their manifests are listed before them.
    ListsObjectsLate,
}

/// A target in memory that does something wrong, and remembers what was asked of it.
#[derive(Clone)]
struct Faulty(Arc<Inside>, Stall);

/// What it holds, what it does wrong, what it was asked, and what it does not list yet.
type Inside = (Memory, Mutex<Fault>, Mutex<Vec<String>>, Mutex<Vec<ObjectKey>>);

/// What a target that stalls waits for, and the clock that runs meanwhile.
#[derive(Clone, Debug, Default)]
struct Stall {
    gate: Gate,
    hurries: Arc<AtomicBool>,
    skipped: Arc<AtomicU64>,
}

impl Clock for Stall {
    fn now(&self) -> DateTime<Utc> {
        SystemClock::default().now()
    }

    fn monotonic(&self) -> Duration {
        let skipped = match self.hurries.load(Ordering::SeqCst) {
            true => self.skipped.fetch_add(1, Ordering::SeqCst),
            false => self.skipped.load(Ordering::SeqCst),
        };
        SystemClock::default().monotonic() + Duration::from_secs(20 * skipped.min(180))
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl Faulty {
    fn new() -> Self {
        Self(
            Arc::new((Memory::default(), Mutex::new(Fault::None), Mutex::default(), Mutex::default())),
            Stall::default(),
        )
    }

    fn set(&self, fault: Fault) {
        *self.0.1.lock().unwrap() = fault;
        self.0.2.lock().unwrap().clear();
        self.0.3.lock().unwrap().clear();
    }

    fn has(&self, fault: Fault, key: &ObjectKey, of_manifests: bool) -> bool {
        *self.0.1.lock().unwrap() == fault && is_manifest(key) == of_manifests
    }

    fn note(&self, what: &str, key: &ObjectKey) {
        let kind = if is_manifest(key) { "manifest" } else { "object" };
        self.0.2.lock().unwrap().push(format!("{what} {kind}"));
    }

    /// What was asked since the fault was set, `put` and `delete` only.
    fn asked(&self) -> Vec<String> {
        self.0.2.lock().unwrap().clone()
    }

    /// How many manifests and how many objects it has.
    fn holds(&self) -> (usize, usize) {
        let listed = self.0.0.list("").unwrap();
        let manifests = listed.iter().filter(|stored| is_manifest(&stored.key)).count();
        (manifests, listed.len() - manifests)
    }
}

fn is_manifest(key: &ObjectKey) -> bool {
    key.as_str().ends_with(".manifest.json")
}

fn failed() -> TargetError {
    TargetError::new(Cause::Failed, "fault: no")
}

impl Target for Faulty {
    fn describe(&self) -> String {
        "faulty".to_owned()
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<Stored, TargetError> {
        self.note("put", key);
        let mut bytes = Vec::new();
        let (stalls, at_end) = (self.has(Fault::Stalls, key, false), self.has(Fault::StallsAtTheEnd, key, false));
        if stalls || at_end {
            body.take(if at_end { u64::MAX } else { 1 }).read_to_end(&mut bytes).map_err(TargetError::body)?;
            self.1.hurries.store(true, Ordering::SeqCst);
            self.1.gate.wait();
        }
        body.read_to_end(&mut bytes).map_err(TargetError::body)?;
        if self.has(Fault::NoObject, key, false) || self.has(Fault::NoManifest, key, true) {
            return Err(failed());
        }
        if self.has(Fault::ShortObject, key, false) {
            bytes.pop();
        }
        let stored = self.0.0.put(key, &mut &bytes[..])?;
        if self.has(Fault::ListsLate, key, is_manifest(key)) || self.has(Fault::ListsObjectsLate, key, false) {
            self.0.3.lock().unwrap().push(key.clone());
        }
        if self.has(Fault::LostAnswer, key, true) { Err(failed()) } else { Ok(stored) }
    }

    fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
        let put = self.0.2.lock().unwrap().iter().any(|asked| asked == "put manifest");
        if self.has(Fault::HidesManifests, key, true) && !put {
            return Err(TargetError::new(Cause::NotFound, "fault: not there"));
        }
        self.0.0.get(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        let late = self.0.3.lock().unwrap();
        let mut listed = self.0.0.list(prefix)?;
        listed.retain(|stored| !late.contains(&stored.key));
        Ok(listed)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.note("delete", key);
        if self.has(Fault::KeepsManifests, key, true) {
            return Err(failed());
        }
        self.0.0.delete(key)
    }
}

/// A job on SQLite that sends to two targets, `bad` and `good`, and keeps its newest backup only.
struct Bench {
    sandbox: Sandbox,
    app: App,
    bad: Faulty,
    good: Faulty,
}

fn slot(hour: i64) -> DateTime<Utc> {
    "2026-02-25T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(hour)
}

impl Bench {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1)");
        sandbox.configure(&format!(
            "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
             [backup.targets.bad]\ntype = \"local\"\npath = \"{{dir}}/store\"\n\
             [backup.targets.good]\ntype = \"local\"\npath = \"{{dir}}/store\"\n\
             [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@hourly\"\nencrypt = true\n\
             target = [\"bad\", \"good\"]\nkeep_last = 1\n"
        ));
        let world = World::system();
        let mut config = Config::load(&sandbox.config(), &world.vars, &app::defaults()).unwrap();
        let (bad, good) = (Faulty::new(), Faulty::new());
        for (name, target) in BTreeMap::from([("bad", &bad), ("good", &good)]) {
            let target = target.clone();
            config.targets.get_mut(name).unwrap().open = Arc::new(move |_| Ok(Box::new(target.clone())));
        }
        let app = App::new(config, &world, &Report::capturing(Style::default()));
        Self { sandbox, app, bad, good }
    }

    fn run(&self, hour: i64) -> JobReport {
        let job = &self.app.config.jobs[0];
        backup::run(&self.app, &Order { job, slot: Some(slot(hour)), targets: job.targets.clone() })
    }

    /// One good backup at both, then one while `bad` has this fault; gives the report.
    fn with(&self, fault: Fault) -> JobReport {
        assert_eq!(self.run(1).outcome(), Ok(()));
        assert_eq!((self.bad.holds(), self.good.holds()), ((1, 1), (1, 1)));
        self.bad.set(fault);
        self.run(2)
    }

    /// The bad target failed and has nothing new and nothing less; the good one has its backup.
    fn bad_is_as_it_was(&self, report: &JobReport) {
        assert_eq!(report.outcome(), Err(Kind::Partial));
        let (bad, good) = (&report.targets[0], &report.targets[1]);
        assert_eq!((bad.stored, bad.error.as_ref().unwrap().kind), (false, Kind::Target), "{bad:?}");
        assert!(good.stored && good.error.is_none(), "{good:?}");
        assert_eq!(bad.removed, Vec::<String>::new());
        assert_eq!(self.bad.holds(), (1, 1));
    }
}

#[test]
fn what_the_target_did_not_confirm_to_the_last_byte_gets_no_manifest() {
    let bench = Bench::new();
    let report = bench.with(Fault::ShortObject);
    bench.bad_is_as_it_was(&report);
    let said = &report.targets[0].error.as_ref().unwrap().message;
    assert!(said.contains(" bytes after ") && said.ends_with(" were sent"), "{said}");
    assert_eq!(bench.bad.asked(), ["put object", "delete object"]);
}

#[test]
fn an_object_that_was_not_stored_gets_no_manifest() {
    let bench = Bench::new();
    let report = bench.with(Fault::NoObject);
    bench.bad_is_as_it_was(&report);
    assert_eq!(bench.bad.asked(), ["put object"]);
}

/// Waits until it is so; longer than two minutes is a test that hangs.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A run in which `bad` takes nothing more, whatever comes: the other one has its backup, and the run ends, while `bad`
/// still stands there. Then `bad` is let go.
fn stalled(bench: &mut Bench, fault: Fault, what: &str) {
    let stall = bench.bad.1.clone();
    bench.app.cx.world.clock = Arc::new(stall.clone());
    bench.bad.set(fault);
    let bench = &*bench;
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| bench.run(2));
        let started = Instant::now();
        while !run.is_finished() && started.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (ended, held) = (run.is_finished(), bench.good.holds());
        stall.gate.open();
        assert!(ended, "the run waits for a target that takes nothing; the good one has {held:?}");
        run.join().unwrap()
    });
    assert_eq!(report.outcome(), Err(Kind::Partial), "{report:?}");
    let (bad, good) = (&report.targets[0], &report.targets[1]);
    let error = bad.error.as_ref().unwrap();
    assert_eq!((bad.stored, error.kind), (false, Kind::Target), "{bad:?}");
    assert!(error.message.starts_with(&format!("target faulty: {what} for ")), "{error}");
    assert!(good.stored && good.error.is_none(), "{good:?}");
}

#[test]
fn a_target_that_stalls_is_dropped_and_the_others_get_their_backup() {
    let mut bench = Bench::new();
    // More than waits for one target.
    let rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 8) \
                insert into t select randomblob(1000000) from n";
    sqlite3(&bench.sandbox.path("shop.db"), rows);
    assert_eq!(bench.run(1).outcome(), Ok(()));
    stalled(&mut bench, Fault::Stalls, "took no data");
    until("what was dropped is over", || Arc::strong_count(&bench.bad.0) == 2);
    assert_eq!(bench.bad.holds(), (1, 1), "nothing came of it");
    let again = bench.run(2);
    assert_eq!(again.outcome(), Ok(()));
    assert!(again.targets.iter().any(|target| target.copied_from.as_deref() == Some("good")), "{again:?}");
}

#[test]
fn what_a_dropped_target_finishes_after_all_is_removed() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(1).outcome(), Ok(()));
    // It has been given all of it, and does not say that it is stored.
    stalled(&mut bench, Fault::StallsAtTheEnd, "did not say that it has stored everything");
    until("it is removed", || bench.bad.asked() == ["put object", "delete object"]);
    until("it is gone", || bench.bad.holds() == (1, 1));
}

#[test]
fn an_object_whose_manifest_can_not_be_written_goes_again() {
    let bench = Bench::new();
    let report = bench.with(Fault::NoManifest);
    bench.bad_is_as_it_was(&report);
    assert_eq!(bench.bad.asked(), ["put object", "put manifest", "delete object"]);
}

#[test]
fn an_object_whose_manifest_may_stand_stays() {
    let bench = Bench::new();
    let report = bench.with(Fault::LostAnswer);
    assert_eq!(report.outcome(), Err(Kind::Partial));
    assert_eq!(bench.bad.holds(), (2, 2));
}

/// A lease that is lost as soon as both targets have the whole object.
#[derive(Clone)]
struct LostLate(Faulty, Faulty, Arc<AtomicBool>);

impl std::fmt::Debug for LostLate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LostLate")
    }
}

impl Watch for LostLate {
    fn check(&self) -> Result<(), Error> {
        // What is lost stays lost, also when the objects are gone again.
        if self.0.holds().1 > 0 && self.1.holds().1 > 0 {
            self.2.store(true, Ordering::Relaxed);
        }
        match self.2.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::new(Kind::Locked, "the lease is lost")),
        }
    }
}

#[test]
fn a_lease_that_is_lost_before_the_manifest_publishes_nothing() {
    let mut bench = Bench::new();
    let watch = LostLate(bench.bad.clone(), bench.good.clone(), Arc::default());
    bench.app.cx.world.cancel = bench.app.cx.world.cancel.watching(Arc::new(watch));
    let report = bench.run(1);
    assert_eq!(report.outcome(), Err(Kind::Locked));
    for target in [&bench.bad, &bench.good] {
        assert!(target.asked().contains(&"delete object".to_owned()), "{:?}", target.asked());
        assert!(!target.asked().contains(&"put manifest".to_owned()), "{:?}", target.asked());
    }
}

#[test]
fn retention_runs_only_where_the_new_backup_stands() {
    // Three backups, where retention would keep one.
    let mut bench = Bench::new();
    Arc::get_mut(&mut bench.app.config).unwrap().jobs[0].retention.keep_last = Some(9);
    (1..4).for_each(|hour| assert_eq!(bench.run(hour).outcome(), Ok(())));
    Arc::get_mut(&mut bench.app.config).unwrap().jobs[0].retention.keep_last = Some(1);
    bench.bad.set(Fault::NoManifest);
    let report = bench.run(4);
    assert_eq!(report.outcome(), Err(Kind::Partial));
    assert_eq!(report.targets[1].removed.len(), 2, "half of four");
    assert_eq!((bench.bad.holds(), bench.good.holds()), ((3, 3), (2, 2)));
}

#[test]
fn a_slot_that_has_its_manifest_is_not_dumped_again() {
    let bench = Bench::new();
    assert_eq!(bench.run(1).outcome(), Ok(()));
    bench.bad.set(Fault::None);
    let report = bench.run(1);
    assert!(report.outcome().is_ok() && report.targets.iter().all(|target| target.was_there), "{report:?}");
    assert_eq!(bench.bad.asked(), Vec::<String>::new());
}

#[test]
fn of_two_writers_of_one_slot_one_wins_and_the_other_leaves_nothing() {
    let bench = Bench::new();
    assert_eq!(bench.run(1).outcome(), Ok(()));
    bench.bad.set(Fault::HidesManifests);
    bench.good.set(Fault::HidesManifests);
    let report = bench.run(1);
    assert!(report.outcome().is_ok() && report.targets.iter().all(|target| target.was_there), "{report:?}");
    assert_eq!(bench.bad.asked(), ["put object", "put manifest", "delete object"]);
    assert_eq!(bench.bad.holds(), (1, 1));
}

#[test]
fn of_two_that_copy_one_backup_neither_takes_the_others_object_away() {
    let bench = Bench::new();
    assert_eq!(bench.run(1).outcome(), Ok(()));
    // The slot has its manifest here, put by another host in the instant after this one looked.
    bench.bad.set(Fault::HidesManifests);
    let report = bench.run(1);
    // Both targets got theirs from one run, so that a copy would be the same object.
    assert!(report.outcome().is_ok() && report.targets.iter().all(|target| target.was_there), "{report:?}");
    assert_eq!(bench.bad.asked(), ["put object", "put manifest"], "and nothing is deleted");
    assert_eq!(bench.bad.holds(), (1, 1));
}

#[test]
fn a_backup_goes_manifest_first_and_not_at_all_if_that_stays() {
    let bench = Bench::new();
    assert_eq!(bench.run(1).outcome(), Ok(()));
    bench.bad.set(Fault::None);
    assert_eq!(bench.run(2).outcome(), Ok(()));
    assert_eq!(bench.bad.asked(), ["put object", "put manifest", "delete manifest", "delete object"]);
    bench.bad.set(Fault::KeepsManifests);
    assert_eq!(bench.run(3).outcome(), Err(Kind::Partial));
    assert_eq!(bench.bad.asked(), ["put object", "put manifest", "delete manifest"]);
    assert_eq!(bench.bad.holds(), (2, 2));
}

#[test]
fn a_listing_that_comes_late_does_no_harm() {
    for fault in [Fault::ListsLate, Fault::ListsObjectsLate] {
        let bench = Bench::new();
        assert_eq!(bench.run(1).outcome(), Ok(()));
        bench.bad.set(fault);
        // The new backup is not seen, or seems to have no object: the one before is the newest good one, and stays.
        let report = bench.run(2);
        assert!(report.targets.iter().all(|target| target.stored), "{fault:?}: {report:?}");
        assert_eq!(report.targets[0].removed, [""; 0], "{fault:?}");
        assert_eq!(bench.bad.holds(), (2, 2), "{fault:?}");
        // The slot once more, and what is swept: nothing is stored twice, copied over or taken away.
        bench.run(2);
        let job = &bench.app.config.jobs[0];
        let open = bench.app.open_target("bad").unwrap();
        let force = voxeltron_backup::cleanup::Mode { dry_run: false, force: true };
        let pruned = voxeltron_backup::cleanup::prune(&bench.app, job, &open, force).unwrap();
        assert_eq!(pruned.leftovers, [""; 0], "{fault:?}");
        assert_eq!(bench.bad.holds(), (2, 2), "{fault:?}");
        // Then everything is listed.
        bench.bad.set(Fault::None);
        assert_eq!(bench.run(3).outcome(), Ok(()));
        assert_eq!(bench.bad.holds(), (2, 2), "{fault:?}: half of three go");
        assert_eq!(bench.good.holds(), (1, 1));
    }
}
