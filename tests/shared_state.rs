//! State and leases that several hosts share: by two hosts on a store in memory, interleaved by hand; on a real S3 server
//! behind every fault, and on Google's kind; by the whole program; and by processes that are killed and paused at random,
//! which publish each slot once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]
#![allow(clippy::print_stdout, reason = "the counts")]

mod common;
#[path = "shared_state/kills.rs"]
mod kills;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use common::proxy::{Fault, Plan, Proxy};
use common::s3::{Bucket, access_key, address, keys, secret_key};
use common::{Sandbox, again, part, sqlite3};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use voxeltron_backup::cli::Cli;
use voxeltron_backup::error::{Kind, Result};
use voxeltron_backup::format::name::{self, ObjectKey};
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::schedule::cron::Cron;
use voxeltron_backup::schedule::lease::{CLOCK_SLACK, Document};
use voxeltron_backup::schedule::shared::{Held, Shared};
use voxeltron_backup::schedule::state::JobState;
use voxeltron_backup::target::memory::Memory;
use voxeltron_backup::target::records::{self, Expected, Record, Records, Version};
use voxeltron_backup::target::{AfterSignal, Stored, Target, TargetError};
use voxeltron_backup::world::{Clock, SystemClock, Vars, World};

const JOB: &str = "a/b ü";
const TIME: Duration = Duration::from_secs(120);

fn report() -> Report {
    Report::capturing(Style::default())
}

fn start() -> DateTime<Utc> {
    "2026-02-25T03:00:10Z".parse().unwrap()
}

/// A clock that is set by hand; its two times go together.
#[derive(Clone, Debug, Default)]
struct Hand(Arc<Mutex<Duration>>);

impl Hand {
    fn forward(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        start() + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, _: Duration) {}
}

fn world(clock: &Hand) -> World {
    World { clock: Arc::new(clock.clone()), ..World::system() }
}

fn host(target: &(impl Target + Clone + 'static), name: &str, clock: &Hand) -> Arc<Shared> {
    Arc::new(Shared::new(Box::new(target.clone()), "in", name, TIME, &world(clock)).unwrap())
}

fn cron() -> Cron {
    Cron::parse("0 3 * * *", "UTC").unwrap()
}

/// Counts one failure more.
fn count(document: &mut Document) {
    document.past.get_or_insert_with(|| JobState::new(start(), &cron())).failures_in_row += 1;
}

fn counted(shared: &Shared) -> u32 {
    shared.read(JOB, &report()).unwrap().past.map_or(0, |past| past.failures_in_row)
}

fn take(shared: &Arc<Shared>) -> Held {
    shared.take(JOB, &report()).unwrap().unwrap_or_else(|lease| panic!("{lease:?} holds it")).0
}

#[test]
fn one_host_at_a_time_holds_a_lease() {
    let (memory, clock) = (Memory::default(), Hand::default());
    let (a, b) = (host(&memory, "alpha", &clock), host(&memory, "beta", &clock));
    let held = take(&a);
    let lease = b.take(JOB, &report()).unwrap().unwrap_err();
    assert_eq!(lease.holder, "alpha");
    let error = lease.held(JOB);
    assert_eq!(error.kind, Kind::Locked);
    assert_eq!(error.message, "job a/b ü: a run on host alpha holds its lease (since 2026-02-25T03:00:10Z)");
    assert!(b.take("another", &report()).unwrap().is_ok());
    // The last word and the release are one write.
    a.update(JOB, Some(&held), true, &report(), &mut count).unwrap();
    let (second, document) = b.take(JOB, &report()).unwrap().unwrap();
    assert_eq!(document.past.unwrap().failures_in_row, 1, "it sees what the one before did");
    drop(held);
    assert!(a.take(JOB, &report()).unwrap().is_err(), "who gave it up gives up no other's");
    drop(second);
    assert!(a.take(JOB, &report()).unwrap().is_ok());
}

#[test]
fn a_lease_that_is_not_renewed_is_lost_to_its_holder_first() {
    let (memory, clock) = (Memory::default(), Hand::default());
    let (a, b) = (host(&memory, "alpha", &clock), host(&memory, "beta", &clock));
    let held = take(&a);
    let cancel = World::system().cancel.watching(held.watch());
    clock.forward(TIME - Duration::from_secs(1));
    cancel.check().unwrap();
    a.update(JOB, Some(&held), false, &report(), &mut count).unwrap();
    clock.forward(Duration::from_secs(1));
    for error in [cancel.check().unwrap_err(), cancel.check_leases().unwrap_err()] {
        assert_eq!((error.kind, error.is_stopped()), (Kind::Locked, true));
        assert_eq!(error.message, "job a/b ü: this run has lost its lease: it was not renewed in time");
    }
    let late = a.update(JOB, Some(&held), true, &report(), &mut count).unwrap_err();
    assert_eq!(late.kind, Kind::Locked);
    assert_eq!(counted(&a), 1, "who has lost it writes nothing");
    // By two clocks nobody else is so sure yet.
    clock.forward(CLOCK_SLACK.to_std().unwrap());
    assert!(b.take(JOB, &report()).unwrap().is_err());
    clock.forward(Duration::from_millis(1));
    let second = take(&b);
    drop(held);
    assert_eq!(a.take(JOB, &report()).unwrap().unwrap_err().holder, "beta", "the late one gives up nothing");
    drop(second);
}

#[test]
fn a_lease_that_another_has_taken_is_noticed_at_the_next_write() {
    let (memory, clock) = (Memory::default(), Hand::default());
    let (a, late) = (host(&memory, "alpha", &clock), Hand::default());
    // This one's clock runs ahead: to it the lease is over.
    late.forward(TIME * 10);
    let b = host(&memory, "beta", &late);
    let (first, second) = (take(&a), take(&b));
    let error = a.update(JOB, Some(&first), true, &report(), &mut count).unwrap_err();
    assert_eq!(error.message, "job a/b ü: this run has lost its lease: beta holds it now");
    assert!(World::system().cancel.watching(first.watch()).check().is_err(), "from now on the run stops");
    b.update(JOB, Some(&second), true, &report(), &mut count).unwrap();
    assert_eq!(counted(&a), 1);
}

#[test]
fn a_lease_is_renewed_while_it_is_held_and_its_end_is_noticed() {
    let memory = Memory::default();
    // Renewed at a third of it: a busy machine has two seconds for that.
    let time = Duration::from_secs(3);
    let shared = Shared::new(Box::new(memory.clone()), "in", "alpha", time, &World::system()).unwrap();
    let shared = Arc::new(shared);
    let held = take(&shared);
    let cancel = World::system().cancel.watching(held.watch());
    let since = Instant::now();
    while since.elapsed() < time * 3 / 2 {
        cancel.check().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    // Another host takes it by force.
    let key = ObjectKey::new("in/.voxeltron/state/a%2Fb%20%C3%BC.json").unwrap();
    let record = Records::read(&memory, &key).unwrap().unwrap();
    let mut document: Value = serde_json::from_slice(&record.bytes).unwrap();
    document["lease"]["token"] = "x".into();
    let bytes = serde_json::to_vec(&document).unwrap();
    assert!(memory.write(&key, &bytes, Expected::Is(&record.version)).unwrap().is_some());
    let since = Instant::now();
    while cancel.check().is_ok() {
        assert!(since.elapsed() < time * 20, "nobody notices");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        cancel.check().unwrap_err().message,
        "job a/b ü: this run has lost its lease: another host has taken it"
    );
}

#[test]
fn changes_that_meet_are_both_made() {
    let (memory, clock) = (Memory::default(), Hand::default());
    let (a, b) = (host(&memory, "alpha", &clock), host(&memory, "beta", &clock));
    for others in 0..5 {
        let (mut left, before) = (others, counted(&a));
        let mut calls = 0;
        a.update(JOB, None, false, &report(), &mut |document| {
            calls += 1;
            // Between this one's reading and its writing the other host writes.
            if left > 0 {
                left -= 1;
                b.update(JOB, None, false, &report(), &mut count).unwrap();
            }
            count(document);
        })
        .unwrap();
        assert_eq!((counted(&a), calls), (before + others + 1, others + 1));
    }
    let writes = || Records::read(&memory, &ObjectKey::new("in/.voxeltron/state/x.json").unwrap()).unwrap();
    a.update("x", None, false, &report(), &mut |_| ()).unwrap();
    assert_eq!(writes(), None, "what changes nothing is not written");
}

/// A store that loses some of its answers, or does not look at conditions.
#[derive(Clone, Default)]
struct Odd {
    memory: Memory,
    /// Which writes, counted from 0, are done and then reported as a conflict, as when the answer got lost and the request
    /// was sent again.
    lost: Arc<Mutex<Vec<usize>>>,
    writes: Arc<AtomicUsize>,
    /// Whether it ignores that something exists, or that it is another version.
    careless: (bool, bool),
}

impl Target for Odd {
    fn describe(&self) -> String {
        "odd".to_owned()
    }
    fn put(&self, key: &ObjectKey, body: &mut dyn std::io::Read) -> Result<Stored, TargetError> {
        self.memory.put(key, body)
    }
    fn get(&self, key: &ObjectKey) -> Result<Box<dyn std::io::Read + Send>, TargetError> {
        self.memory.get(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Stored>, TargetError> {
        self.memory.list(prefix)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
        self.memory.delete(key)
    }
    fn records(&self, _: AfterSignal) -> Option<Box<dyn Records>> {
        Some(Box::new(self.clone()))
    }
}

impl Records for Odd {
    fn read(&self, key: &ObjectKey) -> Result<Option<Record>, TargetError> {
        Records::read(&self.memory, key)
    }
    fn write(&self, key: &ObjectKey, bytes: &[u8], expected: Expected<'_>) -> Result<Option<Version>, TargetError> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        let stands = Records::read(&self.memory, key)?.map(|record| record.version);
        let ignored = match expected {
            Expected::Absent => self.careless.0,
            Expected::Is(_) => self.careless.1,
        };
        let expected = match (&stands, ignored) {
            (Some(version), true) => Expected::Is(version),
            (None, true) => Expected::Absent,
            _ => expected,
        };
        let written = self.memory.write(key, bytes, expected)?;
        Ok(written.filter(|_| !self.lost.lock().unwrap().contains(&number)))
    }
}

#[test]
fn a_change_whose_answer_got_lost_is_not_made_twice() {
    let clock = Hand::default();
    for lost in 0..4 {
        let odd = Odd::default();
        odd.lost.lock().unwrap().push(lost);
        let shared = host(&odd, "alpha", &clock);
        let held = take(&shared);
        shared.update(JOB, Some(&held), false, &report(), &mut count).unwrap();
        shared.update(JOB, None, false, &report(), &mut count).unwrap();
        shared.update(JOB, Some(&held), true, &report(), &mut count).unwrap();
        drop(held);
        let document = shared.read(JOB, &report()).unwrap();
        assert_eq!((document.past.unwrap().failures_in_row, document.lease), (3, None), "write {lost}");
        assert_eq!(odd.writes.load(Ordering::SeqCst), 4, "write {lost}");
    }
}

#[test]
fn a_store_that_ignores_conditions_is_refused() {
    for (careless, word) in [((true, false), "If-None-Match"), ((false, true), "If-Match"), ((true, true), "If-None")] {
        let odd = Odd { careless, ..Odd::default() };
        let error = records::prove(&odd, &odd, "in", &World::system()).unwrap_err();
        assert_eq!(error.kind, Kind::Config);
        assert!(error.message.contains("does not check conditional writes") && error.message.contains(word), "{error}");
        assert!(error.hint.unwrap().contains("leave out `state`"));
        assert!(odd.list("").unwrap().is_empty(), "the probe goes");
    }
    let odd = Odd::default();
    records::prove(&odd, &odd, "in", &World::system()).unwrap();
    assert!(odd.list("").unwrap().is_empty());
    // A server that takes the conditions and does not look at them.
    let emulator = common::gcs::Bucket::new("VOXELTRON_TEST_GCS_EMULATOR").target("");
    let error = records::prove(&emulator, emulator.records(AfterSignal::End).unwrap().as_ref(), "in", &World::system())
        .unwrap_err();
    assert_eq!(error.kind, Kind::Config, "{error}");
    assert!(error.message.contains("does not check conditional writes"), "{error}");
}

/// Every store that has records keeps to their contract.
fn keeps_records(target: &dyn Target) {
    let records = target.records(AfterSignal::End).unwrap();
    let key = ObjectKey::new("in/.voxeltron/state/j.json").unwrap();
    assert_eq!(name::parse(&key), None, "no listing takes it for a backup");
    assert_eq!(records.read(&key).unwrap(), None);
    let first = records.write(&key, b"1", Expected::Absent).unwrap().unwrap();
    assert_eq!(records.write(&key, b"2", Expected::Absent).unwrap(), None);
    let read = records.read(&key).unwrap().unwrap();
    assert_eq!((&read.bytes[..], &read.version), (&b"1"[..], &first));
    let second = records.write(&key, b"3", Expected::Is(&first)).unwrap().unwrap();
    assert_eq!(records.write(&key, b"4", Expected::Is(&first)).unwrap(), None);
    let read = records.read(&key).unwrap().unwrap();
    assert_eq!((&read.bytes[..], &read.version), (&b"3"[..], &second));
    let gone = ObjectKey::new("in/.voxeltron/state/gone.json").unwrap();
    assert_eq!(records.write(&gone, b"5", Expected::Is(&first)).unwrap(), None, "what is gone is not replaced");
    records::prove(target, records.as_ref(), "in", &World::system()).unwrap();
    assert_eq!(target.list("in/").unwrap().len(), 1, "the probe goes");
}

#[test]
fn s3_keeps_records_and_tells_their_age() {
    let bucket = Bucket::new();
    let target = bucket.target("deep/er/");
    keeps_records(&target);
    let key = ObjectKey::new("in/.voxeltron/state/j.json").unwrap();
    std::thread::sleep(Duration::from_millis(2_100));
    let age = target.records(AfterSignal::End).unwrap().read(&key).unwrap().unwrap().age.unwrap();
    assert!(age >= TimeDelta::seconds(1) && age <= TimeDelta::seconds(120), "{age}");
    assert!(bucket.keys().contains(&"deep/er/in/.voxeltron/state/j.json".to_owned()));
}

/// Eight that write one record at once, with nothing between them and the server: how many of them have.
fn winners(records: &dyn Records, key: &ObjectKey, known: Option<&Version>) -> usize {
    let (start, won) = (std::sync::Barrier::new(8), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (start, won) = (&start, &won);
            scope.spawn(move || {
                let bytes = format!("{key}, by {writer}, {known:?}");
                start.wait();
                let written = records.write(key, bytes.as_bytes(), known.map_or(Expected::Absent, Expected::Is));
                won.fetch_add(usize::from(written.unwrap().is_some()), Ordering::SeqCst);
            });
        }
    });
    won.into_inner()
}

fn one_writer_wins(target: &dyn Target, rounds: usize) {
    let records = target.records(AfterSignal::End).unwrap();
    for round in 0..rounds {
        let key = ObjectKey::new(format!("in/.voxeltron/state/{round}.json")).unwrap();
        assert_eq!(winners(records.as_ref(), &key, None), 1, "round {round}: who creates it");
        let version = records.read(&key).unwrap().unwrap().version;
        assert_eq!(winners(records.as_ref(), &key, Some(&version)), 1, "round {round}: who changes it");
    }
}

#[test]
fn of_writers_that_meet_at_a_bare_server_one_wins() {
    one_writer_wins(&Bucket::seaweed().target(""), 5);
    one_writer_wins(&common::gcs::Bucket::fake().target(""), 40);
    one_writer_wins(&Memory::default(), 40);
}

#[test]
fn google_keeps_records() {
    let bucket = common::gcs::Bucket::fake();
    keeps_records(&bucket.target("p/"));
}

#[test]
fn memory_keeps_records() {
    keeps_records(&Memory::default());
}

#[test]
fn no_fault_on_the_way_makes_the_state_wrong() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let settings = voxeltron_backup::target::s3::Settings { endpoint: proxy.endpoint(), ..bucket.settings("") };
    let calm = Arc::new(Shared::new(Box::new(bucket.target("")), "in", "calm", TIME, &World::system()).unwrap());
    let quick = Fault::ALL
        .into_iter()
        .filter(|fault| !matches!(fault, Fault::Stall | Fault::StallRequest | Fault::StallAnswer));
    let (mut met, mut expected) = (0, 0);
    for fault in quick.chain([Fault::StallAnswer]) {
        // A lease takes a read and a write; so do an update, and the last word.
        for (at, count_of) in (0..6).map(|at| (at, 1)).chain([(1, 5), (3, 5)]) {
            if fault == Fault::StallAnswer && (at % 2 == 0 || count_of > 1) {
                continue;
            }
            let target = settings.open(&keys(), &proxy.world()).unwrap();
            let shared = Arc::new(Shared::new(Box::new(target), "in", "alpha", TIME, &World::system()).unwrap());
            proxy.set(Some(Plan { at, count: count_of, fault }));
            let held = shared.take(JOB, &report()).map(|taken| taken.unwrap().0);
            let change = |release| {
                let held = held.as_ref().ok()?;
                Some(shared.update(JOB, Some(held), release, &report(), &mut count))
            };
            let (begun, ended) = (change(false), change(true));
            proxy.set(None);
            drop(held.ok());
            let made = [&begun, &ended].iter().filter(|done| matches!(done, Some(Ok(())))).count();
            let (what, now) = (format!("{fault:?} at {at}, {count_of} times"), counted(&calm));
            if count_of == 1 {
                assert_eq!(made, 2, "{what}: one fault is got over: {begun:?} {ended:?}");
            }
            let most = expected + 2;
            let least = expected + u32::try_from(made).unwrap();
            assert!((least..=most).contains(&now), "{what}: {now} of {least} to {most}");
            expected = now;
            met += 1;
            // A lease that nobody knows of is left behind at most: the next case must not wait for its end.
            let mut clear = |document: &mut Document| document.lease = None;
            calm.update(JOB, None, false, &report(), &mut clear).unwrap();
        }
    }
    println!("{met} faults, {expected} changes counted");
}

// ---------------------------------------------------------------------------------------------- the whole program

/// A configuration of `jobs`, each with a database of its own, whose state is in the bucket; `{dir}/A` is a host's data.
fn configure(sandbox: &Sandbox, bucket: &Bucket, endpoint: &str, jobs: usize, more: &str) {
    let mut text = format!(
        "[backup]\ninstance = \"in\"\nstate = \"s3\"\nlease = \"5s\"\ndata_dir = \"{{dir}}/data\"\n[backup.targets.s3]\n\
         bucket = \"{}\"\nendpoint = \"{endpoint}\"\naccess_key = \"{}\"\nsecret_key = \"{}\"\npath_style = true\n",
        bucket.name,
        access_key(),
        secret_key()
    );
    for job in 0..jobs {
        text.push_str(&format!(
            "[databases.d{job}]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"j{job}\"\ndatabase = \"d{job}\"\ntarget = \"s3\"\n{more}\n"
        ));
    }
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1), (2)");
    sandbox.configure(&text);
}

fn on(sandbox: &Sandbox, host: &str, args: &[&str]) -> common::Invoked {
    sandbox.command(args).env("VOXELTRON_BACKUP_DATA_DIR", sandbox.path(host))
}

fn record(bucket: &Bucket, job: &str) -> Value {
    serde_json::from_slice(&bucket.get(&format!("in/.voxeltron/state/{job}.json"))).unwrap()
}

fn rewrite(bucket: &Bucket, job: &str, change: impl FnOnce(&mut Value)) {
    let mut document = record(bucket, job);
    change(&mut document);
    bucket.put(&format!("in/.voxeltron/state/{job}.json"), document.to_string().as_bytes());
}

const YEARLY: &str = "schedule = \"0 0 1 1 *\"";

fn manifests(bucket: &Bucket) -> Vec<String> {
    bucket.keys().into_iter().filter(|key| key.ends_with(".manifest.json")).collect()
}

#[test]
fn two_hosts_share_one_state() {
    let (proxy, sandbox, bucket) = (Proxy::new(address(), false), Sandbox::new(), Bucket::new());
    configure(&sandbox, &bucket, &proxy.endpoint(), 1, YEARLY);
    on(&sandbox, "A", &["check"]).stdout_has("ok  state:").stdout_has("checks conditional writes").run();
    on(&sandbox, "A", &["schedule-check"]).run();
    on(&sandbox, "B", &["schedule-check"]).run();
    // By the record the slot of this year is due; what the hosts remember is older than that.
    rewrite(&bucket, "j0", |document| document["past"]["first_seen"] = "2020-01-01T00:00:00Z".into());
    on(&sandbox, "A", &["schedule-check"]).run();
    for host in ["A", "B"] {
        fs::remove_dir_all(sandbox.path(host)).unwrap();
    }
    on(&sandbox, "A", &["schedule-check"]).stderr_has("stored").run();
    on(&sandbox, "B", &["schedule-check"]).run();
    assert_eq!(manifests(&bucket).len(), 1);
    let shown = on(&sandbox, "B", &["--json", "status"]).stdout_any().run().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["jobs"][0]["state"], "good", "{shown}");
    assert_eq!(record(&bucket, "j0")["lease"], Value::Null);
    on(&sandbox, "B", &["schedule-check", "--dry-run"]).stdout_has("wait").stderr_has("knew last").run();
    on(&sandbox, "B", &["-q", "verify", "d0", "--latest", "--restore"]).stdout_any().run();
    assert!(record(&bucket, "j0")["past"]["last_proved"].is_string());
    // A tick at which nothing is due asks nobody.
    on(&sandbox, "B", &["schedule-check"]).run();
    proxy.set(None);
    on(&sandbox, "B", &["schedule-check"]).run();
    assert_eq!(proxy.lines(), [""; 0]);
    proxy.refuse(|_| Some("403 Forbidden"));
    on(&sandbox, "B", &["status"]).exits(14).stderr_has("the shared state of job j0").run();
    fs::remove_dir_all(sandbox.path("A")).unwrap();
    on(&sandbox, "A", &["schedule-check"]).exits(14).stderr_has("target s3: can't").run();
}

#[test]
fn another_hosts_lease_is_named_by_hand_and_passed_by_on_schedule() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    configure(&sandbox, &bucket, &common::s3::endpoint(), 1, YEARLY);
    on(&sandbox, "A", &["schedule-check"]).run();
    let lease = |holds_ms: u64| {
        json!({
            "holder": "gamma", "token": "t", "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:05Z",
            "holds_ms": holds_ms
        })
    };
    // Longer than all this takes on any machine.
    rewrite(&bucket, "j0", |document| {
        document["past"]["first_seen"] = "2020-01-01T00:00:00Z".into();
        document["lease"] = lease(600_000);
    });
    on(&sandbox, "B", &["schedule-check"]).run();
    for args in [&["run-job", "j0"][..], &["prune", "j0"]] {
        on(&sandbox, "B", args).exits(11).stderr_has("host gamma holds its lease").stderr_has("hint: wait").run();
    }
    on(&sandbox, "B", &["prune", "--dry-run"]).stderr_any().run();
    assert!(manifests(&bucket).is_empty());
    // It is never renewed: after its time, by the store's clock, it is anybody's, and not before.
    let since = Instant::now();
    rewrite(&bucket, "j0", |document| document["lease"] = lease(6_000));
    loop {
        let said = on(&sandbox, "B", &["schedule-check"]).stderr_any().run().stderr;
        if said.contains("stored") {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(120) && said.is_empty(), "it is never over: {said}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(since.elapsed() > Duration::from_secs(6), "{:?}", since.elapsed());
    on(&sandbox, "B", &["-q", "run-job", "j0"]).run();
    rewrite(&bucket, "j0", |document| document["lease"] = lease(600_000));
    on(&sandbox, "B", &["restore", "d0", "--latest", "--yes"]).exits(11).stderr_has("host gamma holds its lease").run();
}

#[test]
fn a_record_that_is_lost_or_damaged_is_made_again_from_the_manifests() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    configure(&sandbox, &bucket, &common::s3::endpoint(), 1, YEARLY);
    on(&sandbox, "A", &["schedule-check"]).run();
    rewrite(&bucket, "j0", |document| document["past"]["first_seen"] = "2020-01-01T00:00:00Z".into());
    fs::remove_dir_all(sandbox.path("A")).unwrap();
    on(&sandbox, "A", &["schedule-check"]).stderr_has("stored").run();
    let (key, settled) = ("in/.voxeltron/state/j0.json", record(&bucket, "j0")["past"]["settled"].clone());
    assert!(settled.is_string());
    bucket.delete(key);
    on(&sandbox, "B", &["schedule-check"]).stderr_has("the state knows nothing of it").run();
    assert_eq!(record(&bucket, "j0")["past"]["settled"], settled);
    bucket.put(key, b"{\"version\": 1, \"job\"");
    on(&sandbox, "C", &["schedule-check"]).stderr_has("can't be understood").stderr_has("knows nothing").run();
    assert_eq!(record(&bucket, "j0")["past"]["settled"], settled);
    bucket.put(key, b"{\"version\": 2}");
    on(&sandbox, "D", &["schedule-check"]).exits(10).stderr_has("has version 2").stderr_has("hint: a newer").run();
    assert_eq!(bucket.get(key), b"{\"version\": 2}");
    assert_eq!(manifests(&bucket).len(), 1);
}

#[test]
fn a_host_that_begins_to_share_brings_what_it_remembers() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    configure(&sandbox, &bucket, &common::s3::endpoint(), 1, YEARLY);
    let text = fs::read_to_string(sandbox.config()).unwrap();
    sandbox.configure(&text.replace("state = \"s3\"\n", ""));
    on(&sandbox, "A", &["schedule-check"]).run();
    on(&sandbox, "A", &["-q", "run-job", "j0"]).run();
    on(&sandbox, "A", &["-q", "verify", "d0", "--latest", "--restore"]).stdout_any().run();
    sandbox.configure(&text);
    on(&sandbox, "A", &["-q", "run-job", "j0"]).run();
    assert!(record(&bucket, "j0")["past"]["last_proved_id"].is_string());
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).unwrap()
}

#[test]
fn a_host_that_comes_back_late_publishes_nothing() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    let wait = "before = \"if mkdir {dir}/first 2>/dev/null; then while [ ! -e {dir}/go ]; do sleep 0.05; done; fi\"";
    configure(&sandbox, &bucket, &common::s3::endpoint(), 1, &format!("{YEARLY}\nretry_after = \"1s\"\n{wait}"));
    on(&sandbox, "A", &["schedule-check"]).run();
    rewrite(&bucket, "j0", |document| document["past"]["first_seen"] = "2020-01-01T00:00:00Z".into());
    fs::remove_dir_all(sandbox.path("A")).unwrap();
    let mut command = on(&sandbox, "A", &["schedule-check"]).into_command();
    let late = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !sandbox.path("first").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(pid(&late), Signal::STOP).unwrap();
    // The other host waits until the lease is over, and does the slot.
    let since = Instant::now();
    let until: DateTime<Utc> = record(&bucket, "j0")["lease"]["until"].as_str().unwrap().parse().unwrap();
    while manifests(&bucket).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(120), "the lease of a host that stands still is never over");
        on(&sandbox, "B", &["schedule-check"]).stderr_any().run();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(Utc::now() > until, "not before {until}");
    let (published, document) = (manifests(&bucket), record(&bucket, "j0"));
    fs::write(sandbox.path("go"), "").unwrap();
    kill_process(pid(&late), Signal::CONT).unwrap();
    let outcome = late.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert_eq!(outcome.status.code(), Some(11), "{said}");
    assert!(said.contains("job j0: this run has lost its lease"), "{said}");
    assert!(!said.contains("is at s3 already"), "it stops before it dumps: {said}");
    assert_eq!(manifests(&bucket), published);
    assert_eq!(bucket.keys().iter().filter(|key| key.starts_with("in/d0/")).count(), 2, "no object is left, either");
    assert_eq!(record(&bucket, "j0"), document, "and it changed nothing of the state");
}

#[test]
fn a_run_that_a_signal_ends_gives_its_lease_up_however_long_that_takes() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    let hooks = "before = \"touch {dir}/began; sleep 60\"\nafter = \"sleep 2\"";
    configure(&sandbox, &bucket, &common::s3::endpoint(), 1, &format!("{YEARLY}\n{hooks}"));
    let mut command = on(&sandbox, "A", &["run-job", "j0"]).into_command();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !sandbox.path("began").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(record(&bucket, "j0")["lease"].is_object());
    // Long after the state was opened.
    std::thread::sleep(Duration::from_secs(1));
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(record(&bucket, "j0")["lease"], Value::Null);
}

/// Whether the store gives no records, and whether it has refused one.
static CLOSED: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicBool = AtomicBool::new(false);

fn closed(head: &str) -> Option<&'static str> {
    let record = head.starts_with("GET") && head.contains("/.voxeltron/state/");
    let refused = record && CLOSED.load(Ordering::SeqCst);
    REFUSED.fetch_or(refused, Ordering::SeqCst);
    refused.then_some("403 AccessDenied:")
}

#[test]
fn what_could_not_be_seen_for_a_moment_during_a_run_is_no_failure() {
    let (proxy, sandbox, bucket) = (Proxy::new(address(), false), Sandbox::new(), Bucket::new());
    let wait = "before = \"touch {dir}/began; while [ -e {dir} ] && [ ! -e {dir}/go ]; do sleep 0.05; done\"";
    let more = format!("{YEARLY}\nretry_after = \"1s\"\n{wait}");
    configure(&sandbox, &bucket, &proxy.endpoint(), 1, &more);
    on(&sandbox, "A", &["schedule-check"]).run();
    rewrite(&bucket, "j0", |document| document["past"]["first_seen"] = "2020-01-01T00:00:00Z".into());
    fs::remove_dir_all(sandbox.path("A")).unwrap();
    // Renewed after twenty seconds, so it is a look that asks after ten.
    let mut command = on(&sandbox, "A", &["schedule-check"]).env("VOXELTRON_BACKUP_LEASE", "60s").into_command();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !is_so() {
            assert!(since.elapsed() < Duration::from_secs(120), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("the run does not begin", &|| sandbox.path("began").exists());
    proxy.refuse(closed);
    CLOSED.store(true, Ordering::SeqCst);
    until("it does not look again", &|| REFUSED.load(Ordering::SeqCst));
    std::thread::sleep(Duration::from_millis(300));
    CLOSED.store(false, Ordering::SeqCst);
    fs::write(sandbox.path("go"), "").unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("can't"), "it was told: {said}");
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert_eq!(manifests(&bucket).len(), 1);
}

/// Whether reads of the first job's backups wait, and whether one does.
static HELD: AtomicBool = AtomicBool::new(false);
static WAITS: AtomicBool = AtomicBool::new(false);

/// While it waits nothing else passes the proxy: no renewal of a lease, either.
fn holds_up(head: &str) -> Option<&'static str> {
    while HELD.load(Ordering::SeqCst) && head.starts_with("GET") && head.contains("/in/d0/") {
        WAITS.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

fn drilled(stdout: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    let drills = document["drills"].as_array().unwrap();
    let good = drills.iter().filter(|drill| drill["error"].is_null());
    good.map(|drill| drill["job"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_hosts_run_a_due_drill_once_and_one_that_has_lost_its_lease_changes_nothing() {
    let (proxy, sandbox, bucket) = (Proxy::new(address(), false), Sandbox::new(), Bucket::new());
    let drill = format!("{YEARLY}\ndrill = \"30 0 1 1 *\"");
    proxy.refuse(holds_up);
    // The hosts have one configuration, but one of them gets to the store through the proxy.
    configure(&sandbox, &bucket, &proxy.endpoint(), 2, &drill);
    let through = sandbox.write("through.toml", fs::read(sandbox.config()).unwrap());
    fs::set_permissions(&through, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(sandbox.path("shop.db")).unwrap();
    configure(&sandbox, &bucket, &common::s3::endpoint(), 2, &drill);
    let tick = |host: &str| on(&sandbox, host, &["--json", "schedule-check"]).stdout_any().stderr_any().run().stdout;
    let both = || ["j0", "j1"].map(|job| record(&bucket, job)["past"]["last_drill"].clone());
    tick("A");
    for job in ["j0", "j1"] {
        rewrite(&bucket, job, |document| document["past"]["first_seen"] = "2020-01-01T00:00:00Z".into());
    }
    fs::remove_dir_all(sandbox.path("A")).unwrap();
    let mut first = drilled(&tick("A"));
    first.sort_unstable();
    assert_eq!(first, ["j0", "j1"], "each backup is proved at once, whichever is made first");
    let begin = |lease: &str| {
        for job in ["j0", "j1"] {
            rewrite(&bucket, job, |document| document["past"]["last_drill"] = Value::Null);
        }
        for host in ["A", "B"].map(|host| sandbox.path(host)).into_iter().filter(|path| path.exists()) {
            fs::remove_dir_all(host).unwrap();
        }
        HELD.store(true, Ordering::SeqCst);
        WAITS.store(false, Ordering::SeqCst);
        let mut command = on(&sandbox, "B", &["--json", "schedule-check"]).env("VOXELTRON_CONFIG", &through);
        command = command.env("VOXELTRON_BACKUP_LEASE", lease);
        let mut command = command.into_command();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let since = Instant::now();
        while !WAITS.load(Ordering::SeqCst) {
            assert!(since.elapsed() < Duration::from_secs(120), "the drill does not begin");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    };
    let end = |child: Child| {
        HELD.store(false, Ordering::SeqCst);
        let outcome = child.wait_with_output().unwrap();
        let [out, said] = [&outcome.stdout, &outcome.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        (outcome.status.code(), drilled(&out), said)
    };

    // The second drill was due to this host, too, when it decided; by its turn the other host has done it.
    let slow = begin("10m");
    assert_eq!(drilled(&tick("A")), ["j1"], "what another host drills is passed by");
    let [none, done] = both();
    assert!(none.is_null() && done["error"].is_null() && done["slot"].is_string(), "{none} {done}");
    assert_eq!(end(slow).1, ["j0"]);
    let [first, second] = both();
    assert!(first["error"].is_null() && first["slot"] == done["slot"], "{first}");
    assert_eq!(second, done);
    for host in ["A", "B"] {
        assert_eq!(drilled(&tick(host)), [""; 0]);
    }

    // A host that stands still past its lease: the other one drills, and what the late one says changes nothing.
    let late = begin("5s");
    let since = Instant::now();
    while both()[0].is_null() {
        assert!(since.elapsed() < Duration::from_secs(120), "the lease of a host that stands still is never over");
        tick("A");
    }
    let done = both();
    let (code, drills, said) = end(late);
    assert_eq!((code, drills), (Some(11), vec![]), "{said}");
    assert!(said.contains("job j0: this run has lost its lease"), "{said}");
    assert_eq!(both(), done);
    assert!(["j0", "j1"].iter().all(|job| record(&bucket, job)["lease"].is_null()));
}

// ---------------------------------------------------------------------------------------------- many, killed and paused

/// A clock that the test sets by a file, `THEN REAL` in milliseconds: it shows THEN at the real time REAL, and goes on, but
/// wrong by so much.
#[derive(Debug)]
struct Stepping {
    file: PathBuf,
    wrong_by: TimeDelta,
    system: SystemClock,
}

fn real_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl Clock for Stepping {
    fn now(&self) -> DateTime<Utc> {
        let text = fs::read_to_string(&self.file).unwrap();
        let (then, real) = text.split_once(' ').unwrap();
        let (then, real): (i64, i64) = (then.parse().unwrap(), real.parse().unwrap());
        DateTime::from_timestamp_millis(then + real_ms() - real).unwrap() + self.wrong_by
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }

    fn sleep(&self, time: Duration) {
        self.system.sleep(time);
    }
}

fn set_clock(folder: &Path, then: DateTime<Utc>) {
    fs::write(folder.join("clock.new"), format!("{} {}", then.timestamp_millis(), real_ms())).unwrap();
    fs::rename(folder.join("clock.new"), folder.join("clock")).unwrap();
}

/// A host: ticks, and writes down what each has done, until `over` stands there. Every second one's clock is ahead, each by
/// another time, up to a minute and a half.
fn be_a_host(folder: &Path, name: &str) {
    let number: i64 = name.trim_start_matches("host").parse().unwrap();
    let wrong_by = TimeDelta::seconds(if number % 2 == 1 { 90 / number } else { 0 });
    let clock = Arc::new(Stepping { file: folder.join("clock"), wrong_by, system: SystemClock::default() });
    let data = folder.join(name).display().to_string();
    let path = std::env::var("PATH").unwrap();
    let vars = Vars::new([("VOXELTRON_BACKUP_DATA_DIR".to_owned(), data), ("PATH".to_owned(), path)]);
    let world = World { clock, vars: Arc::new(vars), ..World::system() };
    let config = folder.join("config.toml").display().to_string();
    let cli = Cli::try_parse_from(["x", "--json", "-c", &config, "schedule-check", "--max-parallel", "3"]).unwrap();
    let log = || fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap();
    while !folder.join("over").exists() {
        let report = Report::capturing(Style { json: true, ..Style::default() });
        voxeltron_backup::command::run(&cli, &world, &report);
        let (out, _) = report.captured();
        let document: Value = serde_json::from_str(&out).unwrap();
        if document["idle"] != true {
            log().write_all(format!("{document}\n").as_bytes()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What came of it all.
#[derive(Debug, Default)]
struct Counts {
    slots: usize,
    kills: usize,
    pauses: usize,
    dumps: usize,
    /// Runs that found another's backup when theirs was whole.
    dumped_for_nothing: usize,
    lost_leases: usize,
    /// Objects of runs that were killed or came late: the sweep takes them.
    leftovers: usize,
}

struct Storm {
    sandbox: Sandbox,
    bucket: Bucket,
    hosts: Vec<(Child, Option<Instant>)>,
    random: u64,
    counts: Counts,
    next: Instant,
    /// When the slot began that the hosts are at.
    since: Instant,
}

impl Storm {
    fn pick(&mut self, below: usize) -> usize {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below as u64).unwrap()
    }

    fn host(&self, test: &str, number: usize) -> Child {
        let part = format!("{}\n{number}", self.sandbox.path("").display());
        again(test, &part).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
    }

    /// Kills one, or lets it stand still for a while, which may be longer than its lease; wakes those whose time has come.
    fn strike(&mut self, test: &str) {
        for number in 0..self.hosts.len() {
            let (child, until) = &mut self.hosts[number];
            if until.is_some_and(|until| Instant::now() >= until) {
                *until = None;
                kill_process(pid(child), Signal::CONT).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("a host ended by itself: {status}");
            }
        }
        if Instant::now() < self.next {
            return;
        }
        let pause = Duration::from_millis(u64::try_from(300 + self.pick(900)).unwrap());
        // The rarer the longer it lasts: a host on a slow machine must come to something between two strikes.
        self.next = Instant::now() + pause.mul_f64(1.0 + self.since.elapsed().as_secs_f64() / 20.0);
        let number = self.pick(self.hosts.len());
        let still = self.hosts.iter().filter(|(_, until)| until.is_some()).count();
        let is_long = self.pick(3) == 0;
        // One that stands still is to come back, and late.
        if self.hosts[number].1.is_some() {
            return;
        }
        // The first one kills: few steps may end before there is another.
        if self.counts.kills == 0 || self.pick(2) == 0 {
            let child = &mut self.hosts[number].0;
            child.kill().unwrap();
            child.wait().unwrap();
            self.hosts[number] = (self.host(test, number), None);
            self.counts.kills += 1;
        } else if still + 1 < self.hosts.len() {
            let time = Duration::from_millis(if is_long { 8_500 } else { 700 });
            kill_process(pid(&self.hosts[number].0), Signal::STOP).unwrap();
            self.hosts[number].1 = Some(Instant::now() + time);
            self.counts.pauses += 1;
        }
    }

    /// Until every job has its backup of that slot.
    fn until_published(&mut self, test: &str, id: &str, jobs: usize, strikes: bool) {
        let since = Instant::now();
        self.since = since;
        loop {
            let there = manifests(&self.bucket).iter().filter(|key| key.contains(id)).count();
            assert!(there <= jobs, "{there} backups of {id}");
            if there == jobs {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(600), "{id}: {there} of {jobs} are published");
            if !strikes {
                // Only wakes.
                self.next = Instant::now() + Duration::from_secs(9);
            }
            self.strike(test);
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// Until all stand again, and every job's record says that this slot is done and nobody has it in hand. A host that was
    /// killed when it had found the slot done by another leaves its lease, which nobody needs: it is over.
    fn until_settled(&mut self, test: &str, jobs: usize, last: DateTime<Utc>) {
        let since = Instant::now();
        let mut seen = vec![(Value::Null, since); jobs];
        let settled = |bucket: &Bucket, job: usize, (before, when): &mut (Value, Instant)| {
            let document = record(bucket, &format!("j{job}"));
            if document != *before {
                (*before, *when) = (document.clone(), Instant::now());
            }
            let is_free = document["lease"].is_null() || when.elapsed() > Duration::from_secs(20);
            is_free && document["past"]["settled"].as_str().and_then(|text| text.parse().ok()) == Some(last)
        };
        loop {
            let open: Vec<usize> = (0..jobs).filter(|job| !settled(&self.bucket, *job, &mut seen[*job])).collect();
            if open.is_empty() && self.hosts.iter().all(|(_, until)| until.is_none()) {
                return;
            }
            let records: Vec<&Value> = open.iter().map(|job| &seen[*job].0).collect();
            assert!(since.elapsed() < Duration::from_secs(300), "the state never says that all is done: {records:#?}");
            // Only wakes.
            self.next = Instant::now() + Duration::from_secs(9);
            self.strike(test);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn end(&mut self) {
        fs::write(self.sandbox.path("over"), "").unwrap();
        for (child, until) in &mut self.hosts {
            if until.is_some() {
                kill_process(pid(child), Signal::CONT).unwrap();
            }
        }
        self.hosts.iter_mut().for_each(|(child, _)| assert!(child.wait().unwrap().success()));
    }
}

/// `jobs` × `steps` slots by so many hosts. Every step is an hour of theirs, and as long as it takes.
fn storm(test: &str, hosts: usize, jobs: usize, steps: usize) {
    if let Some(part) = part() {
        let (folder, number) = part.split_once('\n').unwrap();
        return be_a_host(Path::new(folder), &format!("host{number}"));
    }
    let (sandbox, bucket) = (Sandbox::new(), Bucket::seaweed());
    let more =
        "schedule = \"0 * * * *\"\nretries = 50\nretry_after = \"1s\"\nbefore = \"echo >> {dir}/dumps; sleep 0.3\"";
    configure(&sandbox, &bucket, &bucket.endpoint, jobs, more);
    let first: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    set_clock(&sandbox.path(""), first - TimeDelta::minutes(30));
    let now = Instant::now();
    let seed = u64::from(std::process::id()) * 0x9E37_79B9 + 1;
    println!("seed {seed}");
    let counts = Counts::default();
    let mut storm = Storm { sandbox, bucket, hosts: Vec::new(), random: seed, counts, next: now, since: now };
    storm.hosts = (0..hosts).map(|number| (storm.host(test, number), None)).collect();
    let records = |bucket: &Bucket| bucket.keys().iter().filter(|key| key.contains("/.voxeltron/state/")).count();
    while records(&storm.bucket) < jobs {
        assert!(now.elapsed() < Duration::from_secs(180), "the jobs are never seen");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut ids = Vec::new();
    // The last one comes in calm weather: what the strikes have left half done keeps nobody from it.
    for step in 0..=steps {
        let slot = first + TimeDelta::hours(i64::try_from(step).unwrap());
        let id = slot.format("/%Y%m%dT%H%M%SZ-").to_string();
        set_clock(&storm.sandbox.path(""), slot + TimeDelta::seconds(1));
        storm.until_published(test, &id, jobs, step < steps);
        ids.push(id);
    }
    storm.until_settled(test, jobs, first + TimeDelta::hours(i64::try_from(steps).unwrap()));
    storm.end();
    judge(&mut storm, hosts, jobs, &ids);
    println!("{hosts} hosts: {:?} in {:.0} s", storm.counts, now.elapsed().as_secs_f64());
    // Few steps may end before a host has stood still for as long as its lease.
    assert!(storm.counts.kills > 0 && (steps < 20 || storm.counts.lost_leases > 0), "{:?}", storm.counts);
}

fn judge(storm: &mut Storm, hosts: usize, jobs: usize, ids: &[String]) {
    let (all, published) = (storm.bucket.keys(), manifests(&storm.bucket));
    storm.counts.slots = published.len();
    assert_eq!(published.len(), jobs * ids.len(), "each slot has one backup, and there is no other");
    let (mut named, mut created) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, Value>::new());
    for key in &published {
        let manifest: Value = serde_json::from_slice(&storm.bucket.get(key)).unwrap();
        let signed: Value = serde_json::from_str(manifest["signed"].as_str().unwrap()).unwrap();
        let object = signed["object"].as_str().unwrap().to_owned();
        assert!(all.contains(&object), "{key} names {object}, which is not there");
        assert!(named.insert(object, 0).is_none());
        created.insert(signed["id"].as_str().unwrap().to_owned(), signed["created"].clone());
    }
    let objects = all.iter().filter(|key| name::parse(&ObjectKey::new(key.as_str()).unwrap()).is_some());
    storm.counts.leftovers = objects.count() - 2 * published.len();
    storm.counts.dumps = fs::read_to_string(storm.sandbox.path("dumps")).unwrap().lines().count();
    let mut stored = BTreeMap::<String, usize>::new();
    for number in 0..hosts {
        let log = fs::read_to_string(storm.sandbox.path(&format!("host{number}.log"))).unwrap_or_default();
        // The last line of one that was killed may be cut.
        for document in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            for job in document["jobs"].as_array().into_iter().flatten() {
                let target = &job["targets"][0];
                if target["stored"] == true {
                    *stored.entry(job["id"].as_str().unwrap().to_owned()).or_default() += 1;
                }
                // One that finds it before it dumps tells when that one was made.
                let made = job["id"].as_str().and_then(|id| created.get(id));
                let is_another = job["created"].is_string() && made.is_some_and(|made| *made != job["created"]);
                storm.counts.dumped_for_nothing += usize::from(target["was_there"] == true && is_another);
                storm.counts.lost_leases += usize::from(job["error"]["kind"] == "locked");
            }
        }
    }
    assert!(stored.values().all(|count| *count == 1), "published twice: {stored:?}");
}

/// How many steps: a short form, or by `VOXELTRON_TEST_LONG=1` all 500 slots.
fn steps(short: usize, long: usize) -> usize {
    if std::env::var("VOXELTRON_TEST_LONG").is_ok_and(|value| value == "1") { long } else { short }
}

#[test]
fn two_processes_killed_and_paused_publish_each_slot_once() {
    storm("two_processes_killed_and_paused_publish_each_slot_once", 2, 10, steps(2, 50));
}

#[test]
fn eight_processes_killed_and_paused_publish_each_slot_once() {
    storm("eight_processes_killed_and_paused_publish_each_slot_once", 8, 20, steps(2, 25));
}
