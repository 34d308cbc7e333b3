//! The files of the data folder: what a cut at any byte, two writers at once and a killed process leave behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use voxeltron_backup::error::Kind;
use voxeltron_backup::report::{Report, Style};
use voxeltron_backup::schedule::cron::Cron;
use voxeltron_backup::schedule::due::Job;
use voxeltron_backup::schedule::lock::JobLock;
use voxeltron_backup::schedule::state::{JobState, MAX_ERROR_BYTES, State, StateFile};
use voxeltron_backup::schedule::tick;
use voxeltron_backup::world::Vars;

const JOB: &str = "mydb@s3";

fn now() -> DateTime<Utc> {
    "2026-02-25T03:00:10Z".parse().unwrap()
}

fn cron() -> Cron {
    Cron::parse("0 3 * * *", "Europe/Berlin").unwrap()
}

fn report() -> Report {
    Report::capturing(Style::default())
}

fn warnings(report: &Report) -> String {
    report.captured().1
}

/// A job with something in every field.
fn full() -> JobState {
    let cron = cron();
    let job = Job {
        name: JOB,
        cron: &cron,
        catch_up: true,
        retries: Some(9),
        retry_after: Duration::from_secs(60),
        delay: TimeDelta::zero(),
    };
    let mut state = JobState::new(now(), &cron);
    let slot = Some(now());
    state.succeeded(slot, "20260225T030000Z-mydb@s3", now(), 5, now());
    state.failed(Some(now() + TimeDelta::days(1)), &job, "refused", now() + TimeDelta::days(1));
    state.began(Some(now() + TimeDelta::days(1)), now() + TimeDelta::days(1));
    state.proved("20260225T030000Z-mydb@s3", now());
    state
}

/// Two generations: the older one has one job, the newer one two.
fn two_generations(folder: &Path) -> (State, State) {
    let file = StateFile::new(folder);
    let older = file.update(&report(), |state| {
        state.jobs.insert(JOB.into(), full());
        state.clone()
    });
    let newer = file.update(&report(), |state| {
        state.jobs.insert("other".into(), full());
        state.clone()
    });
    (older.unwrap(), newer.unwrap())
}

#[test]
fn nothing_yet_is_empty_and_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("a/b");
    assert_eq!(StateFile::new(&below).read().unwrap(), State::default());
    assert!(!below.exists(), "looking creates nothing");
    let report = report();
    StateFile::new(&below).update(&report, |_| ()).unwrap();
    let first =
        fs::read(below.join("state.json")).expect("the first change leaves a state, so that its loss is noticed");
    let written = fs::metadata(below.join("state.json")).unwrap().modified().unwrap();
    StateFile::new(&below).update(&report, |_| ()).unwrap();
    assert_eq!(fs::read(below.join("state.json")).unwrap(), first);
    let again = fs::metadata(below.join("state.json")).unwrap().modified().unwrap();
    assert_eq!(again, written, "what is unchanged is not written");
    assert_eq!(warnings(&report), "");
}

#[test]
fn every_field_survives_and_all_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (_, newer) = two_generations(&data);
    assert_eq!(StateFile::new(&data).read().unwrap(), newer);
    assert_eq!(StateFile::new(&data).read_strict().unwrap(), newer);
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    let mut names: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["state.json", "state.json.bak", "state.lock"]);
}

#[test]
fn what_is_unchanged_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    two_generations(folder.path());
    let inode = || fs::metadata(folder.path().join("state.json")).unwrap().ino();
    let (before, file) = (inode(), StateFile::new(folder.path()));
    file.update(&report(), |state| state.seen(JOB, now() + TimeDelta::days(9), &cron()).failures_in_row).unwrap();
    assert_eq!(inode(), before, "a job that is seen again is no change");
    file.update(&report(), |state| state.jobs.clear()).unwrap();
    assert_ne!(inode(), before);
}

#[test]
fn a_state_cut_at_any_byte_gives_way_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let (older, _) = two_generations(folder.path());
    let path = folder.path().join("state.json");
    let whole = fs::read(&path).unwrap();
    let backup = fs::read(folder.path().join("state.json.bak")).unwrap();
    let file = StateFile::new(folder.path());
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(file.read().unwrap(), older, "{length}");
        assert!(file.read_strict().is_err(), "{length}");
        let report = report();
        assert_eq!(file.load(&report).unwrap(), older, "{length}");
        let said = warnings(&report);
        assert!(said.contains("can't be understood") && said.contains("the one before it is used"), "{said}");
        assert!(said.contains("state.json.corrupt-"), "{said}");
        let again = Report::capturing(Style::default());
        assert_eq!(file.load(&again).unwrap(), older);
        assert_eq!(warnings(&again), "", "it is said once");
        assert_eq!(fs::read(folder.path().join("state.json.bak")).unwrap(), backup, "the good one is not overwritten");
    }
}

#[test]
fn a_cut_while_writing_leaves_one_generation_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (older, newer) = two_generations(folder.path());
    let path = |name: &str| folder.path().join(name);
    let (old, new) = (fs::read(path("state.json.bak")).unwrap(), fs::read(path("state.json")).unwrap());
    let file = StateFile::new(folder.path());
    for length in 0..=new.len() {
        // Stage 1: the backup is being written. Stage 2: it stands, and the new state is being written.
        for (stage, temporary, bytes, state, expected) in [
            (1, "state.json.bak.new", &old, &old, &older),
            (2, "state.json.new", &new, &old, &older),
            (3, "state.json.new", &new, &new, &newer),
        ] {
            fs::write(path("state.json"), state).unwrap();
            fs::write(path(temporary), bytes.get(..length).unwrap_or(bytes)).unwrap();
            let report = report();
            assert_eq!(&file.load(&report).unwrap(), expected, "stage {stage}, {length} bytes");
            assert_eq!(warnings(&report), "");
        }
    }
    file.update(&report(), |state| state.jobs.clear()).unwrap();
    assert!(!path("state.json.new").exists(), "what was left is gone");
}

#[test]
fn a_state_that_vanished_gives_way_too() {
    let folder = tempfile::tempdir().unwrap();
    let (older, _) = two_generations(folder.path());
    fs::remove_file(folder.path().join("state.json")).unwrap();
    assert!(StateFile::new(folder.path()).read_strict().is_err());
    let report = report();
    assert_eq!(StateFile::new(folder.path()).load(&report).unwrap(), older);
    assert!(warnings(&report).contains("state.json is missing; the one before it is used"));
}

#[test]
fn without_any_generation_it_says_that_jobs_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    for rubbish in
        ["", "{", "[]", "{\"version\": 0, \"jobs\": {}}", "{\"version\": 1}", "\u{0}\u{0}\u{0}", "{\"version\": -1}"]
    {
        fs::write(&path, rubbish).unwrap();
        let error = StateFile::new(folder.path()).read().unwrap_err();
        assert!(error.message.contains("can't be understood") && error.hint.is_some(), "{error:?}");
        let report = report();
        assert_eq!(StateFile::new(folder.path()).load(&report).unwrap(), State::default());
        let said = warnings(&report);
        assert!(said.contains("what the jobs have done is read off their targets"), "{said}");
    }
    // All gone, but jobs have run here.
    fs::remove_file(&path).unwrap();
    let report = report();
    StateFile::new(folder.path()).load(&report).unwrap();
    assert!(warnings(&report).contains("state.json is missing, and there is none before it"));
}

#[test]
fn a_newer_programs_state_is_set_aside_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (path, newer) = (folder.path().join("state.json"), "{\"version\": 2, \"jobs\": [], \"more\": true}");
    fs::write(&path, newer).unwrap();
    let error = StateFile::new(folder.path()).read().unwrap_err();
    let why = "a newer voxeltron-backup has written it: it has version 2, not 1";
    assert!(error.message.ends_with(why) && error.hint.unwrap().contains("sets it aside"), "{}", error.message);
    assert_eq!(fs::read_to_string(&path).unwrap(), newer, "who only reads changes nothing");
    let report = report();
    assert_eq!(StateFile::new(folder.path()).load(&report).unwrap(), State::default());
    let said = report.captured().1;
    assert!(said.contains(why) && said.contains("is read off their targets"), "{said}");
    let aside = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.filter(|path| path.to_string_lossy().contains("state.json.corrupt-")).collect::<Vec<_>>();
    assert_eq!(fs::read_to_string(&aside[0]).unwrap(), newer);
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_an_empty_state() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("state.json")).unwrap();
    let error = StateFile::new(folder.path()).load(&report()).unwrap_err();
    assert!(error.message.starts_with("can't read ") && error.message.ends_with(": is a directory"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = StateFile::new(&file.join("below")).load(&report()).unwrap_err();
    assert!(error.message.starts_with("can't create the folder "), "{error}");
}

#[test]
fn errors_are_remembered_within_bounds() {
    let cron = cron();
    let job = Job {
        name: JOB,
        cron: &cron,
        catch_up: true,
        retries: Some(9),
        retry_after: Duration::from_secs(60),
        delay: TimeDelta::zero(),
    };
    let mut state = JobState::new(now(), &cron);
    for error in ["ü".repeat(9_999), "x".to_owned() + &"💾".repeat(9_999)] {
        state.failed(None, &job, &error, now());
        let kept = state.last_error.clone().unwrap();
        assert!(kept.len() <= MAX_ERROR_BYTES + 4 && kept.len() > 990 && kept.ends_with(" …"), "{}", kept.len());
    }
    state.failed(None, &job, " short\n", now());
    assert_eq!((state.last_error.as_deref(), state.failures_in_row), (Some("short"), 3));
    state.succeeded(None, "id", now(), 1, now());
    assert_eq!((state.last_error, state.failures_in_row), (None, 0));
}

#[test]
fn a_pause_without_end_is_kept() {
    let (cron, folder) = (cron(), tempfile::tempdir().unwrap());
    let job = Job {
        name: JOB,
        cron: &cron,
        catch_up: true,
        retries: Some(9),
        retry_after: Duration::MAX,
        delay: TimeDelta::zero(),
    };
    let file = StateFile::new(folder.path());
    file.update(&report(), |state| state.seen(JOB, now(), &cron).failed(Some(now()), &job, "refused", now())).unwrap();
    let state = file.read_strict().unwrap();
    let next_try = state.jobs.get(JOB).unwrap().failing.as_ref().unwrap().next_try;
    assert!(next_try > now() + TimeDelta::days(1_000_000), "{next_try}");
}

/// The same test, run by a process of its own that acts as the other side.
fn another_process(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("VOXELTRON_TEST_FOLDER", folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_other_process() -> Option<std::path::PathBuf> {
    std::env::var_os("VOXELTRON_TEST_FOLDER").map(Into::into)
}

#[test]
fn concurrent_updates_lose_nothing() {
    const EACH: u32 = 25;
    let count = |folder: &Path| {
        for _ in 0..EACH {
            let counted = StateFile::new(folder).update(&report(), |state| {
                state.seen(JOB, now(), &cron()).failures_in_row += 1;
            });
            counted.unwrap();
        }
    };
    if let Some(folder) = is_other_process() {
        return count(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut others: Vec<Child> =
        (0..4).map(|_| another_process("concurrent_updates_lose_nothing", folder.path())).collect();
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| count(folder.path())))));
    assert!(others.iter_mut().all(|other| other.wait().unwrap().success()));
    let state = StateFile::new(folder.path()).read().unwrap();
    assert_eq!(state.jobs.get(JOB).unwrap().failures_in_row, EACH * 12);
}

#[test]
fn a_lock_keeps_others_out_and_says_who_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let lock = JobLock::acquire(folder.path(), "a/b ü", now()).unwrap();
    let error = JobLock::acquire(folder.path(), "a/b ü", now()).unwrap_err();
    assert_eq!(error.kind, Kind::Locked);
    let me = std::process::id();
    let expected = format!("job a/b ü: another run holds its lock (process {me}, since 2026-02-25T03:00:10Z)");
    assert_eq!(error.message, expected);
    assert_eq!(error.hint, Some(format!("wait for it to end, or look at it with: ps -p {me}")));
    assert!(JobLock::try_acquire(folder.path(), "a/b ü", now()).unwrap().is_none());
    assert!(JobLock::try_acquire(folder.path(), "a/b", now()).unwrap().is_some(), "another job's is another");
    let path = folder.path().join("locks/a%2Fb%20%C3%BC.lock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // A child that outlives the run must not hold it on.
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    drop(lock);
    assert!(JobLock::try_acquire(folder.path(), "a/b ü", now()).unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_lock_ends_with_a_killed_process() {
    if let Some(folder) = is_other_process() {
        let _lock = JobLock::acquire(&folder, JOB, now()).unwrap();
        fs::write(folder.join("held"), "").unwrap();
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut other = another_process("a_lock_ends_with_a_killed_process", folder.path());
    while !folder.path().join("held").exists() {
        assert!(other.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = JobLock::acquire(folder.path(), JOB, now()).unwrap_err();
    assert!(error.message.contains(&format!("process {}", other.id())), "{error}");
    other.kill().unwrap();
    other.wait().unwrap();
    // What it wrote still stands in the file, and says nothing any more.
    JobLock::acquire(folder.path(), JOB, now()).unwrap();
}

#[test]
fn an_idle_tick_holds_only_for_what_it_was_computed_from() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let vars = |value: &str| Vars::new([("VOXELTRON_X".to_owned(), value.to_owned()), ("HOME".into(), "/".into())]);
    let digest = tick::digest("text", &vars("1"));
    assert_ne!(digest, tick::digest("text2", &vars("1")));
    assert_ne!(digest, tick::digest("text", &vars("2")));
    assert_ne!(digest, tick::digest("text", &Vars::default()));
    let other = Vars::new([("VOXELTRON_X".to_owned(), "1".to_owned()), ("HOME".into(), "/root".into())]);
    assert_eq!(digest, tick::digest("text", &other), "what is not ours says nothing");

    let idle = |now| tick::is_idle(data, &digest, now);
    let write = |next| tick::write(data, &digest, &tick::stamp(data), now(), next);
    let minutes = |count| now() + TimeDelta::minutes(count);
    assert!(!idle(now()), "there is none yet");
    write(Some(minutes(10)));
    assert!(idle(now()) && idle(minutes(9)));
    assert!(!idle(minutes(10)), "something is due");
    assert!(!idle(minutes(-1)), "the clock has gone back");
    assert!(!tick::is_idle(data, &tick::digest("text", &vars("2")), now()));
    assert_eq!(fs::metadata(data.join("tick.json")).unwrap().permissions().mode() & 0o777, 0o600);

    write(None);
    assert!(idle(minutes(59)) && !idle(minutes(60)), "it looks properly once an hour");
    let stamp = tick::stamp(data);
    two_generations(data);
    assert!(!idle(now()), "the state is another one");
    tick::write(data, &digest, &stamp, now(), None);
    assert!(!idle(now()), "decided from a state that has changed since");
    write(None);
    assert!(idle(now()));
    StateFile::new(data).update(&report(), |state| state.jobs.clear()).unwrap();
    assert!(!idle(now()));

    write(None);
    let whole = fs::read(data.join("tick.json")).unwrap();
    for length in 0..whole.len() {
        fs::write(data.join("tick.json"), &whole[..length]).unwrap();
        assert!(!idle(now()), "{length}");
    }
    fs::write(data.join("tick.json"), &whole).unwrap();
    assert!(idle(now()));
    tick::forget(data);
    assert!(!idle(now()));
    tick::forget(data);
    tick::write(&data.join("missing"), &digest, "", now(), None);
}
