//! The program day by day, on SQLite and a local target: due jobs, ticks at which nothing is due, catching up, failed
//! slots, locks, signals, hooks, retention, and what `status` says of it all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Outcome, Sandbox, sqlite3};
use serde_json::Value;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A sandbox with one small database and one job with these lines.
fn with_job(lines: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(
        &sandbox.path("shop.db"),
        "create table t (id integer primary key, x); insert into t (x) values (1), (2), (3)",
    );
    configure(&sandbox, lines);
    sandbox
}

fn configure(sandbox: &Sandbox, lines: &str) {
    sandbox.configure_local(
        Some(KEY),
        &format!(
            "[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nencrypt = true\n{lines}\n"
        ),
    );
}

fn json(sandbox: &Sandbox, args: &[&str], code: i32) -> Value {
    let outcome = sandbox.command(&[&["--json"], args].concat()).exits(code).stdout_any().stderr_any().run();
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

fn backups(sandbox: &Sandbox) -> Vec<String> {
    let listed = json(sandbox, &["list"], 0);
    let ids = listed["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Changes the job's state as if time had passed.
fn rewrite_state(sandbox: &Sandbox, change: impl FnOnce(&mut Value)) {
    let path = sandbox.data_dir().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut state["jobs"]["j"]);
    fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path().display().to_string()),
            }
        }
    }
    found
}

#[test]
fn a_new_job_waits_for_its_first_slot_and_a_tick_says_nothing() {
    let sandbox = with_job("schedule = \"0 3 1 1 *\"");
    sandbox.run(&["schedule-check"]);
    sandbox.run(&["schedule-check"]);
    assert!(sandbox.data_dir().join("tick.json").exists(), "the cheap tick is prepared");
    let idle = json(&sandbox, &["schedule-check"], 0);
    assert_eq!((&idle["idle"], idle["command"].as_str()), (&Value::Bool(true), Some("schedule-check")));
    assert!(backups(&sandbox).is_empty());
    sandbox.command(&["schedule-check", "--run-new"]).stderr_has("j: stored ").run();
    assert_eq!(backups(&sandbox).len(), 1);
    sandbox.run(&["schedule-check", "--run-new"]);
    assert_eq!(backups(&sandbox).len(), 1);
}

#[test]
fn missed_slots_are_made_up_for_by_one_run() {
    let sandbox = with_job("schedule = \"0 * * * *\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2026-01-01T00:00:00Z".into());
    let dry = json(&sandbox, &["schedule-check", "--dry-run", "--at", "2026-01-01T05:30Z"], 0);
    assert_eq!(dry["decisions"][0]["slot"], "2026-01-01T05:00:00Z");
    assert_eq!(dry["decisions"][0]["missed"], 4);
    assert!(backups(&sandbox).is_empty(), "a dry run runs nothing");
    sandbox.command(&["schedule-check"]).stderr_has("older slots that were missed").stderr_has("j: stored ").run();
    assert_eq!(backups(&sandbox).len(), 1);
    sandbox.run(&["schedule-check"]);
    let listed = json(&sandbox, &["list"], 0);
    assert!(listed["backups"][0]["scheduled_for"].as_str().unwrap().ends_with(":00:00Z"));
    assert_eq!(json(&sandbox, &["status"], 0)["jobs"][0]["state"], "good");
}

#[test]
fn a_slot_that_was_published_before_the_state_was_written_is_not_published_again() {
    let sandbox = with_job("schedule = \"0 * * * *\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2026-01-01T00:00:00Z".into());
    let state = fs::read(sandbox.data_dir().join("state.json")).unwrap();
    sandbox.command(&["schedule-check"]).stderr_any().run();
    let (before, files) = (backups(&sandbox), files_below(&sandbox.store()));
    // The machine loses power before the state is on the disk.
    fs::write(sandbox.data_dir().join("state.json"), state).unwrap();
    sandbox.command(&["schedule-check"]).stderr_has("is at local already").run();
    // Unless an hour has ended in between, nothing has changed.
    if backups(&sandbox).len() == before.len() {
        assert_eq!((backups(&sandbox), files_below(&sandbox.store())), (before, files));
    }
}

#[test]
fn a_failed_slot_is_tried_again_after_a_pause_and_status_says_so() {
    let sandbox = with_job("schedule = \"0 0 1 1 *\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2025-06-01T00:00:00Z".into());
    fs::rename(sandbox.path("shop.db"), sandbox.path("away.db")).unwrap();
    sandbox.command(&["schedule-check"]).exits(13).stderr_has("does not exist").run();
    sandbox.run(&["schedule-check"]);
    let status = json(&sandbox, &["status"], 3);
    assert_eq!((&status["jobs"][0]["state"], &status["jobs"][0]["failures_in_row"]), (&"failing".into(), &1.into()));
    sandbox.command(&["schedule-check", "--dry-run"]).stdout_has("failed once: is tried again at").run();
    fs::rename(sandbox.path("away.db"), sandbox.path("shop.db")).unwrap();
    rewrite_state(&sandbox, |job| {
        job["failing"]["failed"] = "2026-01-01T00:00:00Z".into();
        job["failing"]["next_try"] = "2026-01-01T00:01:00Z".into();
    });
    sandbox.command(&["schedule-check"]).stderr_has("attempt 2 at 2026-01-01T00:00:00Z").run();
    assert_eq!(backups(&sandbox), ["20260101T000000Z-j"]);
    assert_eq!(json(&sandbox, &["status"], 0)["jobs"][0]["failures_in_row"], 0);
}

#[test]
fn a_missing_disk_is_no_empty_one() {
    let sandbox = with_job("schedule = \"@daily\"");
    sandbox.command(&["-q", "run-job", "j"]).run();
    fs::rename(sandbox.store(), sandbox.path("unmounted")).unwrap();
    for args in [&["list"][..], &["prune"], &["verify"], &["restore", "shop", "--latest"]] {
        sandbox.command(args).exits(14).stderr_has("hint: is the disk mounted?").run();
    }
}

/// A job whose hook waits until a file is there.
fn slow() -> Sandbox {
    with_job(
        "schedule = \"@daily\"\nbefore = [\"sh\", \"-c\", \"touch {dir}/began; while [ -e {dir} ] && [ ! -e {dir}/go ]; do sleep 0.05; done\"]\n\
         after = [\"sh\", \"-c\", \"echo $VOXELTRON_OUTCOME > {dir}/after\"]",
    )
}

fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(sandbox: &Sandbox, args: &[&str]) -> std::process::Child {
    let mut command = sandbox.command(args).into_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_locked_job_is_an_error_by_hand_and_passed_by_on_schedule() {
    let sandbox = slow();
    let mut child = start(&sandbox, &["run-job", "j"]);
    wait_for(&sandbox.path("began"));
    sandbox.command(&["run-job", "j"]).exits(11).stderr_has("job j: another run holds its lock (process ").run();
    sandbox.command(&["prune"]).exits(11).stderr_has("another run holds its lock").run();
    sandbox.command(&["restore", "shop", "--latest", "--yes"]).exits(15).stderr_has("no backup").run();
    rewrite_state(&sandbox, |job| {
        job["first_seen"] = "2025-06-01T00:00:00Z".into();
        job["running"] = Value::Null;
    });
    sandbox.run(&["schedule-check"]);
    fs::write(sandbox.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(backups(&sandbox).len(), 1);
}

#[test]
fn a_restore_in_place_does_not_begin_while_a_job_runs() {
    let sandbox = slow();
    fs::write(sandbox.path("go"), "").unwrap();
    sandbox.command(&["-q", "run-job", "j"]).run();
    for name in ["go", "began"] {
        fs::remove_file(sandbox.path(name)).unwrap();
    }
    let mut child = start(&sandbox, &["run-job", "j"]);
    wait_for(&sandbox.path("began"));
    sandbox.command(&["-q", "restore", "shop", "--latest", "--yes"]).exits(11).stderr_has("holds its lock").run();
    let beside = sandbox.path("beside.db");
    sandbox.command(&["-q", "restore", "shop", "--latest", "--into", beside.to_str().unwrap()]).stderr_any().run();
    fs::write(sandbox.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    sandbox.command(&["-q", "restore", "shop", "--latest", "--yes"]).run();
}

#[test]
fn a_slot_that_another_run_did_meanwhile_is_not_run_again() {
    let sandbox = with_job(
        "schedule = \"0 0 1 1 *\"\nbefore = [\"sh\", \"-c\", \"touch {dir}/began; while [ -e {dir} ] && [ ! -e {dir}/go ]; do sleep 0.05; done\"]\n\
         [[backup.jobs]]\nname = \"second\"\ndatabase = \"shop\"\nschedule = \"0 0 1 1 *\"\nencrypt = true\n\
         before = \"echo ran >> {dir}/second\"",
    );
    sandbox.run(&["schedule-check"]);
    let path = sandbox.data_dir().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for job in ["j", "second"] {
        state["jobs"][job]["first_seen"] = "2025-06-01T00:00:00Z".into();
    }
    fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
    // Decides about both, and is held up by the first.
    let mut child = start(&sandbox, &["schedule-check", "--max-parallel", "1"]);
    wait_for(&sandbox.path("began"));
    sandbox.command(&["schedule-check"]).stderr_has("second: stored ").run();
    fs::write(sandbox.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(sandbox.path("second")).unwrap(), "ran\n", "once");
    assert_eq!(backups(&sandbox).len(), 2);
}

#[test]
fn a_hook_sees_no_secret() {
    let sandbox = with_job("schedule = \"@daily\"\nbefore = \"env > {dir}/env\"");
    let text = fs::read_to_string(sandbox.config()).unwrap();
    sandbox.configure(&text.replace(&format!("\"{KEY}\""), "{ env = \"MY_KEY\" }"));
    let run = sandbox.command(&["-q", "run-job", "j"]).env("MY_KEY", KEY).env("HARMLESS", "1");
    run.env("VOXELTRON_BACKUP_INSTANCE", "host").run();
    let seen = fs::read_to_string(sandbox.path("env")).unwrap();
    assert!(seen.contains("HARMLESS=1\n") && seen.contains("VOXELTRON_JOB=j\n"), "{seen}");
    assert!(!seen.contains("MY_KEY") && !seen.contains(KEY) && !seen.contains("VOXELTRON_BACKUP_"), "{seen}");
}

#[test]
fn a_signal_ends_it_at_once_with_its_own_code_and_leaves_nothing() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let sandbox = slow();
        let mut child = start(&sandbox, &["run-job", "j"]);
        wait_for(&sandbox.path("began"));
        let started = Instant::now();
        common::tool(std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]), b"");
        let status = child.wait().unwrap();
        // On a busy machine; the hook itself would wait for ever.
        assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
        assert_eq!(status.code(), Some(code));
        assert_eq!(fs::read_to_string(sandbox.path("after")).unwrap(), "failure\n");
        assert_eq!(files_below(&sandbox.store()), Vec::<String>::new());
        assert_eq!(json(&sandbox, &["status"], 0)["jobs"][0]["failures_in_row"], 0, "a stop is no failure");
    }
}

#[test]
fn a_killed_run_leaves_no_backup_and_its_slot_stays_due() {
    let sandbox = slow();
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2025-06-01T00:00:00Z".into());
    let mut child = start(&sandbox, &["schedule-check"]);
    wait_for(&sandbox.path("began"));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(sandbox.path("go"), "").unwrap();
    assert_eq!(files_below(&sandbox.store()), Vec::<String>::new());
    sandbox.command(&["schedule-check", "--dry-run"]).stdout_has("was interrupted once").run();
    rewrite_state(&sandbox, |job| job["running"]["started"] = "2026-01-01T00:00:00Z".into());
    sandbox.command(&["schedule-check"]).stderr_has("j: stored ").run();
    assert_eq!(backups(&sandbox).len(), 1);
}

#[test]
fn hooks_run_round_a_job_and_a_failing_one_has_its_own_code() {
    let sandbox = with_job(
        "schedule = \"@daily\"\nbefore = \"echo locked door >&2; exit 4\"\nafter = \"echo $VOXELTRON_JOB $VOXELTRON_DATABASE $VOXELTRON_OUTCOME > {dir}/after\"",
    );
    let failed = sandbox
        .command(&["run-job", "j"])
        .exits(16)
        .stderr_has("hook before of job j")
        .stderr_has("  | locked door")
        .run();
    assert!(failed.stderr.contains("sh failed with exit status 4"), "{}", failed.stderr);
    assert_eq!(fs::read_to_string(sandbox.path("after")).unwrap(), "j shop failure\n");
    assert!(backups(&sandbox).is_empty());
    configure(&sandbox, "schedule = \"@daily\"\nafter = \"exit 1\"");
    sandbox.command(&["run-job", "j"]).exits(16).stderr_has("hook after of job j").run();
    assert_eq!(backups(&sandbox).len(), 1, "the backup itself stands");
}

#[test]
fn retention_runs_after_a_good_backup_and_prune_says_why() {
    let sandbox = with_job("schedule = \"@daily\"\nkeep_last = 2");
    for _ in 0..4 {
        sandbox.command(&["run-job", "j"]).stderr_any().run();
    }
    let kept = backups(&sandbox);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let files = files_below(&sandbox.store());
    assert_eq!(files.len(), 4, "each with its object: {files:?}");
    let dry = json(&sandbox, &["prune", "--dry-run"], 0);
    assert!(dry["jobs"][0]["backups"].as_array().unwrap().iter().all(|backup| backup["keep"] == true));
    configure(&sandbox, "schedule = \"@daily\"\nkeep_last = 1");
    sandbox.command(&["prune", "--dry-run"]).stdout_has("would remove").stdout_has("keep").run();
    assert_eq!(backups(&sandbox).len(), 2);
    sandbox.command(&["prune"]).stdout_has("removed").run();
    assert_eq!(backups(&sandbox), kept[1..]);
    sandbox.command(&["prune", "--force"]).stdout_has("keep").run();
    assert_eq!(backups(&sandbox), kept[1..], "the newest good one stays");
}

#[test]
fn retention_does_not_run_after_a_failed_backup_nor_touch_what_is_not_ours() {
    let sandbox = with_job("schedule = \"@daily\"\nkeep_last = 9");
    for _ in 0..3 {
        sandbox.command(&["run-job", "j"]).stderr_any().run();
    }
    let folder = sandbox.store().join("host/shop");
    fs::write(folder.join("20200101T000000Z-j.notes.txt"), "mine").unwrap();
    fs::write(folder.join("20200101T000000Z-other.01234567.sqlite"), "mine").unwrap();
    configure(&sandbox, "schedule = \"@daily\"\nkeep_last = 1");
    fs::rename(sandbox.path("shop.db"), sandbox.path("away.db")).unwrap();
    sandbox.command(&["run-job", "j"]).exits(13).stderr_any().run();
    assert_eq!(backups(&sandbox).len(), 3, "nothing was removed after a failure");
    sandbox.command(&["prune", "--force"]).stdout_any().run();
    assert_eq!(backups(&sandbox).len(), 1);
    assert!(folder.join("20200101T000000Z-j.notes.txt").exists());
    assert!(folder.join("20200101T000000Z-other.01234567.sqlite").exists(), "another job's");
}

#[test]
fn what_dead_runs_left_is_swept_when_it_is_old() {
    let sandbox = with_job("schedule = \"@daily\"");
    sandbox.command(&["-q", "run-job", "j"]).run();
    let folder = sandbox.store().join("host/shop");
    let (old, new) = (
        folder.join("20200101T000000Z-j.01234567.sqlite.gz.enc"),
        folder.join("20200102T000000Z-j.01234567.sqlite.gz.enc"),
    );
    for file in [&old, &new] {
        fs::write(file, "left").unwrap();
    }
    common::tool(std::process::Command::new("touch").args(["-d", "2020-01-01"]).arg(&old), b"");
    sandbox.command(&["list"]).stdout_any().stderr_has("left behind at local").run();
    sandbox.command(&["prune"]).stdout_has("left behind by a run that did not finish").run();
    assert!(!old.exists() && new.exists());
}

#[test]
fn two_jobs_of_one_database_never_touch_each_others_backups() {
    let sandbox = with_job(
        "schedule = \"@daily\"\nkeep_last = 9\n\
         [[backup.jobs]]\nname = \"other\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true",
    );
    for _ in 0..2 {
        sandbox.command(&["-q", "run-job", "j", "other"]).run();
    }
    let folder = sandbox.store().join("host/shop");
    let left = ["20200101T000000Z-j.01234567.sqlite", "20200101T000000Z-other.01234567.sqlite"];
    for name in left {
        fs::write(folder.join(name), "left").unwrap();
        common::tool(std::process::Command::new("touch").args(["-d", "2020-01-01"]).arg(folder.join(name)), b"");
    }
    let text = fs::read_to_string(sandbox.config()).unwrap();
    sandbox.configure(&text.replace("keep_last = 9", "keep_last = 1"));
    let of_other = |ids: &[String]| ids.iter().filter(|id| id.ends_with("-other")).count();
    sandbox.command(&["-q", "prune", "--force", "j"]).stdout_any().run();
    let kept = backups(&sandbox);
    assert_eq!((kept.len(), of_other(&kept)), (3, 2), "{kept:?}");
    assert_eq!(left.map(|name| folder.join(name).exists()), [false, true]);
}

#[test]
fn a_damaged_backup_makes_no_other_go() {
    let sandbox = with_job("schedule = \"@daily\"\nkeep_last = 9");
    for _ in 0..3 {
        sandbox.command(&["-q", "run-job", "j"]).run();
    }
    let ids = backups(&sandbox);
    let objects = files_below(&sandbox.store());
    let newest = objects.iter().find(|path| path.contains(&ids[2]) && path.ends_with(".enc")).unwrap();
    let bytes = fs::read(newest).unwrap();
    fs::write(newest, &bytes[..bytes.len() - 1]).unwrap();
    configure(&sandbox, "schedule = \"@daily\"\nkeep_last = 1");
    sandbox.command(&["prune", "--force"]).stdout_has("it is cut").run();
    assert_eq!(backups(&sandbox), ids[1..], "the newest good one stays, and so does what is damaged");
}

#[test]
fn everything_it_makes_is_private() {
    let sandbox = with_job("schedule = \"@daily\"");
    fs::remove_dir(sandbox.store()).unwrap();
    fs::remove_dir(sandbox.data_dir()).unwrap();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_voxeltron-backup"), "-q", "-c"]);
    command.arg(sandbox.config()).args(["run-job", "j"]);
    assert!(command.status().unwrap().success());
    let mut folders = vec![sandbox.store(), sandbox.data_dir()];
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => assert_eq!(mode, 0o600, "{}", entry.path().display()),
            }
        }
    }
}

#[test]
fn one_of_two_targets_fails_and_the_other_has_its_backup() {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x)");
    sandbox.write("blocked", "a file where a folder should be");
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
         [backup.targets.local]\npath = \"{{dir}}/store\"\n\
         [backup.targets.second]\ntype = \"local\"\npath = \"{{dir}}/blocked/x\"\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@daily\"\ntarget = [\"local\", \"second\"]\n"
    ));
    let said: Outcome =
        sandbox.command(&["run-job", "shop"]).exits(3).stderr_has("stored").stderr_has("target second").run();
    assert!(said.stderr.contains("not a directory"), "{}", said.stderr);
    sandbox.command(&["list", "--target", "local"]).stdout_has("shop@local+second").run();
    sandbox.command(&["list"]).exits(14).stderr_has("target second").run();
    // Mended: the next run sends to both.
    fs::remove_file(sandbox.path("blocked")).unwrap();
    sandbox.command(&["-q", "run-job", "shop"]).run();
    assert_eq!(backups(&sandbox).len(), 3);
}

#[test]
fn check_looks_at_everything_and_leaves_nothing() {
    let sandbox = with_job("schedule = \"@daily\"");
    sandbox
        .command(&["check"])
        .stdout_has("ok  database shop")
        .stdout_has("written, read, listed and deleted")
        .stdout_has("ok  job j")
        .run();
    assert_eq!(files_below(&sandbox.store()), Vec::<String>::new());
    sandbox.command(&["check", "--offline"]).stdout_has("ok  target local").run();
    fs::remove_file(sandbox.path("shop.db")).unwrap();
    sandbox.command(&["check", "--offline"]).stdout_any().run();
    sandbox.command(&["check"]).exits(13).stdout_any().stderr_has("error: database shop").run();
}

#[test]
fn restore_chooses_as_it_is_told() {
    let sandbox = with_job("schedule = \"@daily\"");
    let write = |value: u32| {
        sqlite3(&sandbox.path("shop.db"), &format!("delete from t; insert into t (x) values ({value})"));
        sandbox.command(&["-q", "run-job", "j"]).run();
        backups(&sandbox).last().unwrap().split('-').next().unwrap().to_owned()
    };
    let (first, second, third) = (write(1), write(2), write(3));
    let value = |path: &str| sqlite3(&sandbox.path(path), "select x from t").trim().to_owned();
    let restore = |args: &[&str]| sandbox.command(&[&["restore", "shop"], args].concat()).stderr_any().run();
    restore(&["--timestamp", &first]);
    assert_eq!(value("shop.db"), "1");
    restore(&["--latest"]);
    assert_eq!(value("shop.db"), "3");
    // Created is within the second that the id begins with, so the second after it is the bound.
    let listed = json(&sandbox, &["list"], 0);
    let created = listed["backups"][1]["created"].as_str().unwrap();
    restore(&["--before", created]);
    assert_eq!(value("shop.db"), "2");
    let beside = sandbox.path("beside.db");
    restore(&["--timestamp", &third, "--into", beside.to_str().unwrap()]);
    assert_eq!((value("beside.db").as_str(), value("shop.db").as_str()), ("3", "2"));
    restore(&["--timestamp", &second, "--output", "out.sqlite"]);
    assert_eq!(value("out.sqlite"), "2");
    let mode = fs::metadata(sandbox.path("out.sqlite")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    sandbox
        .command(&["restore", "shop", "--latest", "--output", "out.sqlite"])
        .exits(1)
        .stderr_has("exists already")
        .run();
    let outcome = sandbox.command(&["-q", "restore", "shop", "--latest", "--output", "-"]).stdout_any().run();
    fs::write(sandbox.path("stdout.sqlite"), &outcome.stdout_bytes.0).unwrap();
    assert_eq!(value("stdout.sqlite"), "3");
    let dry = sandbox.command(&["restore", "shop", "--latest", "--dry-run"]).stdout_has("1. take backup").run();
    assert!(dry.stdout.contains("\n2. "), "{}", dry.stdout);
    assert_eq!(value("shop.db"), "2");
    sandbox
        .command(&["restore", "shop", "--timestamp", "2020-01-01"])
        .exits(15)
        .stderr_has("hint: the next one is")
        .run();
    sandbox.command(&["restore", "shop", "--before", "2020-01-01"]).exits(15).stderr_has("or before").run();
    sandbox.command(&["restore", "shop", "--latest", "--job", "other"]).exits(15).stderr_has("no backup").run();
    let minute = format!("{}T{}", &created[..10], &created[11..16]);
    let two =
        sandbox.command(&["restore", "shop", "--timestamp", &created[..10]]).exits(2).stderr_has("both match").run();
    assert!(two.stderr.contains("hint:"), "{minute}: {}", two.stderr);
    sandbox.command(&["db", "restore", "shop", "--latest"]).stderr_any().run();
    assert_eq!(value("shop.db"), "3");
}

#[test]
fn another_instances_backups_are_found_by_its_name() {
    let sandbox = with_job("schedule = \"@daily\"");
    sandbox.command(&["-q", "run-job", "j"]).run();
    let elsewhere = |args: &[&str]| sandbox.command(args).env("VOXELTRON_BACKUP_INSTANCE", "new-host");
    elsewhere(&["list"]).stderr_is("no backups\n").run();
    elsewhere(&["list", "--instance", "host"]).stdout_has("shop").run();
    sqlite3(&sandbox.path("shop.db"), "delete from t");
    elsewhere(&["restore", "shop", "--latest"]).exits(15).stderr_any().run();
    elsewhere(&["-q", "restore", "shop", "--latest", "--instance", "host"]).run();
    assert_eq!(sqlite3(&sandbox.path("shop.db"), "select count(*) from t").trim(), "3");
}

#[test]
fn a_rotated_key_still_opens_what_the_old_one_sealed() {
    let sandbox = with_job("schedule = \"@daily\"");
    sandbox.command(&["-q", "run-job", "j"]).run();
    let new = sandbox.command(&["keygen"]).stdout_any().run().stdout.trim().to_owned();
    let text = fs::read_to_string(sandbox.config()).unwrap();
    sandbox.configure(&text.replace(KEY, &new));
    sandbox.command(&["restore", "shop", "--latest"]).exits(12).stderr_has("is signed under key").run();
    let rotated = format!("encryption_key = \"{new}\"\nprevious_encryption_keys = [\"{KEY}\"]\n");
    sandbox.configure(&text.replace(&format!("encryption_key = \"{KEY}\"\n"), &rotated));
    sandbox.command(&["-q", "restore", "shop", "--latest"]).run();
    sandbox.command(&["-q", "run-job", "j"]).run();
    sandbox.command(&["verify", "--all"]).stdout_any().run();
}

#[test]
fn a_job_that_runs_for_long_is_running_and_not_overdue() {
    let sandbox = slow();
    configure(
        &sandbox,
        "schedule = \"0 0 1 1 *\"\nbefore = \"touch {dir}/began; while [ -e {dir} ] && [ ! -e {dir}/go ]; do sleep 0.05; done\"",
    );
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2025-06-01T00:00:00Z".into());
    sandbox.command(&["status"]).exits(3).stdout_has("overdue").stderr_has("is the timer running?").run();
    let mut child = start(&sandbox, &["schedule-check"]);
    wait_for(&sandbox.path("began"));
    let status = json(&sandbox, &["status"], 0);
    assert_eq!(status["jobs"][0]["state"], "running");
    assert!(status["jobs"][0]["running_since"].is_string(), "{status}");
    sandbox.command(&["status"]).stderr_has("j: a run is under way since 20").stdout_has("running").run();
    child.kill().unwrap();
    child.wait().unwrap();
    let status = json(&sandbox, &["status"], 3);
    assert_eq!((&status["jobs"][0]["state"], &status["jobs"][0]["running_since"]), (&"overdue".into(), &Value::Null));
    fs::write(sandbox.path("go"), "").unwrap();
}

#[test]
fn a_backup_that_stands_everywhere_needs_no_database() {
    let sandbox = with_job("schedule = \"0 0 1 1 *\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2025-06-01T00:00:00Z".into());
    sandbox.command(&["-q", "schedule-check"]).run();
    // Killed after it was published, with the database away when the slot is looked at again.
    rewrite_state(&sandbox, |job| {
        for key in ["settled", "last_success"] {
            job[key] = Value::Null;
        }
    });
    fs::remove_file(sandbox.path("shop.db")).unwrap();
    sandbox.command(&["schedule-check"]).stderr_has("is at local already").run();
    let status = json(&sandbox, &["status"], 0);
    assert_eq!(status["jobs"][0]["state"], "good");
    assert!(status["jobs"][0]["stored_bytes"].as_u64().unwrap() > 100, "{status}");
}

#[test]
fn a_pin_is_put_only_where_the_backup_stands() {
    let sandbox = slow();
    fs::write(sandbox.path("go"), "").unwrap();
    sandbox.command(&["-q", "run-job", "j"]).run();
    for name in ["go", "began"] {
        fs::remove_file(sandbox.path(name)).unwrap();
    }
    // While a run holds the job it is said that one has to look again.
    let mut child = start(&sandbox, &["run-job", "j"]);
    wait_for(&sandbox.path("began"));
    sandbox
        .command(&["pin", "shop", "--latest"])
        .stderr_has("a run of job j is under way")
        .stderr_has("pinned 20")
        .run();
    fs::write(sandbox.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    sandbox.command(&["pin", "shop", "--latest"]).stderr_has("pinned 20").run();
}
