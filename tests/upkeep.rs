//! What keeps backups in order by itself: a copy that is missing at a target comes from another one, pinned and proved
//! backups stay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Database, Sandbox, psql, sqlite3};
use serde_json::Value;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn sandbox(job: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1), (2)");
    configure(&sandbox, job);
    sandbox
}

fn configure(sandbox: &Sandbox, job: &str) {
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
         [backup.targets.local]\npath = \"{{dir}}/store\"\n\
         [backup.targets.second]\ntype = \"local\"\npath = \"{{dir}}/second/x\"\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nencrypt = true\n{job}\n"
    ));
}

fn json(sandbox: &Sandbox, args: &[&str], code: i32) -> Value {
    let outcome = sandbox.command(&[&["--json"], args].concat()).exits(code).stdout_any().stderr_any().run();
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

fn ids(sandbox: &Sandbox) -> Vec<String> {
    let listed = json(sandbox, &["list", "--target", "local"], 0);
    listed["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

/// Changes the job's state as if time had passed.
fn rewrite_state(sandbox: &Sandbox, change: impl FnOnce(&mut Value)) {
    let path = sandbox.data_dir().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut state["jobs"]["j"]);
    fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
}

/// Every file below a folder, by its path within, with its content.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder.join("host/shop"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

/// A yearly slot that is due, with the second of two targets out of reach.
fn half_done() -> Sandbox {
    let sandbox = sandbox("schedule = \"0 0 1 1 *\"\ntarget = [\"local\", \"second\"]");
    sandbox.write("second", "a file where a folder should be");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2020-01-01T00:00:00Z".into());
    sandbox.command(&["schedule-check"]).exits(3).stderr_has("stored").stderr_has("target second").run();
    let status = json(&sandbox, &["status"], 3);
    assert_eq!(status["jobs"][0]["state"], "partial", "until both have it");
    assert_eq!(status["jobs"][0]["missing_at"], serde_json::json!(["second"]));
    sandbox
        .command(&["status"])
        .exits(3)
        .stdout_has("partial")
        .stderr_has("-j is missing at second: target second")
        .run();
    rewrite_state(&sandbox, |job| {
        job["failing"]["failed"] = "2020-01-01T00:00:00Z".into();
        job["failing"]["next_try"] = "2020-01-01T00:00:01Z".into();
    });
    sandbox
}

#[test]
fn a_target_that_was_away_gets_a_copy_without_a_new_dump() {
    let sandbox = half_done();
    fs::remove_file(sandbox.path("second")).unwrap();
    // Nothing can be dumped any more: what comes to the second target is what the first one has.
    fs::remove_file(sandbox.path("shop.db")).unwrap();
    sandbox.command(&["schedule-check"]).stderr_has("copied").stderr_has("from local to second").run();
    assert_eq!(content(&sandbox.path("second/x")), content(&sandbox.store()), "object and manifest, to the byte");
    let status = json(&sandbox, &["status"], 0);
    assert_eq!(
        (&status["jobs"][0]["state"], &status["jobs"][0]["missing_at"]),
        (&"good".into(), &Value::Array(vec![]))
    );
    sandbox.command(&["verify", "--target", "second"]).stdout_has("good").run();
}

#[test]
fn a_target_that_is_behind_is_told_until_it_has_the_newest_backup() {
    let sandbox = half_done();
    // The slot is given up; a run to the one target alone succeeds, and the other is as far behind as before.
    configure(&sandbox, "schedule = \"0 0 1 1 *\"\ntarget = [\"local\", \"second\"]\nretries = 0");
    sandbox.command(&["schedule-check"]).exits(3).stderr_has("target second").run();
    sandbox.command(&["-q", "run-job", "j", "--target", "local"]).run();
    let status = json(&sandbox, &["status"], 3);
    assert_eq!((&status["jobs"][0]["state"], &status["jobs"][0]["failures_in_row"]), (&"partial".into(), &0.into()));
    fs::remove_file(sandbox.path("second")).unwrap();
    sandbox.command(&["-q", "run-job", "j"]).run();
    assert_eq!(json(&sandbox, &["status"], 0)["jobs"][0]["state"], "good");
}

#[test]
fn a_slot_that_one_of_two_targets_lacks_is_open_though_the_state_is_lost() {
    let sandbox = half_done();
    fs::remove_file(sandbox.path("second")).unwrap();
    fs::create_dir_all(sandbox.path("second/x")).unwrap();
    fs::remove_dir_all(sandbox.data_dir()).unwrap();
    sandbox.command(&["schedule-check"]).stderr_has("from local to second").run();
    assert_eq!(content(&sandbox.path("second/x")), content(&sandbox.store()));
    sandbox.run(&["schedule-check"]);
}

#[test]
fn a_slot_is_tried_again_for_longer_than_half_an_hour() {
    let sandbox = half_done();
    rewrite_state(&sandbox, |job| job["failing"]["attempts"] = 100.into());
    sandbox.command(&["schedule-check"]).exits(3).stderr_has("attempt 101").run();
    let status = json(&sandbox, &["status"], 3);
    assert!(status["jobs"][0]["next_run"].as_str().unwrap() < "2027", "in six hours: {status}");
}

#[test]
fn a_damaged_copy_is_not_copied_and_the_database_is_dumped_again() {
    let sandbox = half_done();
    fs::remove_file(sandbox.path("second")).unwrap();
    let (name, mut bytes) = content(&sandbox.store()).into_iter().find(|(name, _)| name.ends_with(".enc")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(sandbox.store().join("host/shop").join(name), bytes).unwrap();
    sandbox.command(&["schedule-check"]).stderr_has("can't copy").stderr_has("SHA-256").stderr_has("stored").run();
    assert_eq!(content(&sandbox.path("second/x")).len(), 2);
    sandbox.command(&["verify", "--target", "second"]).stdout_has("good").run();
}

#[test]
fn a_copy_that_is_none_to_count_on_is_told_though_another_is_taken() {
    let sandbox = sandbox("schedule = \"@yearly\"\ntarget = [\"local\", \"second\"]\ndrill = \"0 * * * *\"");
    sandbox.run(&["schedule-check"]);
    sandbox.command(&["-q", "run-job", "j"]).run();
    let write = |end: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let (name, mut bytes) = content(&sandbox.store()).into_iter().find(|(name, _)| name.ends_with(end)).unwrap();
        let path = sandbox.store().join("host/shop").join(name);
        let whole = bytes.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        move || fs::write(&path, &whole).unwrap()
    };
    let good = write(".enc", &|bytes| *bytes.last_mut().unwrap() ^= 1);
    let output = sandbox.path("dump");
    let to_file = ["restore", "shop", "--latest", "--output", output.to_str().unwrap()];
    sandbox.command(&to_file).stderr_has("at local: ").stderr_has("; another copy was taken").run();
    sandbox.command(&["-q", "restore", "shop", "--latest"]).stderr_has("; another copy was taken").run();
    // What has gone into a pipe can't be taken back.
    let pipe = sandbox.path("pipe");
    common::tool(std::process::Command::new("mkfifo").arg(&pipe), b"");
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    let to_pipe = ["restore", "shop", "--latest", "--output", pipe.to_str().unwrap()];
    let said = sandbox.command(&to_pipe).exits(1).stderr_has("a part of a damaged copy has gone to ").run().stderr;
    assert!(said.contains("write to a file that is not there yet"), "{said}");
    assert!(reader.join().unwrap().len() < fs::metadata(&output).unwrap().len() as usize);
    // A drill proves the backup by the other copy, and tells of this one.
    let year = chrono::Utc::now().format("%Y-01-01T00:00:00Z").to_string();
    rewrite_state(&sandbox, |job| job["first_seen"] = year.clone().into());
    rewrite_state(&sandbox, |job| job["settled"] = year.clone().into());
    sandbox.command(&["schedule-check"]).stderr_has("error: ").stderr_has("proved").run();
    // A copy whose manifest can't be believed is not chosen; whoever asks for the newest hears of it.
    good();
    let good = write(".manifest.json", &|bytes| bytes.truncate(bytes.len() / 2));
    sandbox.command(&["-q", "restore", "shop", "--latest"]).stderr_has("at local is passed over: ").run();
    let verify = sandbox.command(&["verify", "shop"]).exits(3).stdout_has("at second: good");
    verify.stderr_has("at local is passed over: ").run();
    good();
    sandbox.command(&["verify", "shop"]).stdout_has("good").run();
}

#[test]
fn what_a_dead_run_sent_without_its_manifest_is_replaced() {
    let sandbox = half_done();
    fs::remove_file(sandbox.path("second")).unwrap();
    let (name, _) = content(&sandbox.store()).into_iter().find(|(name, _)| name.ends_with(".enc")).unwrap();
    fs::create_dir_all(sandbox.path("second/x/host/shop")).unwrap();
    sandbox.write(&format!("second/x/host/shop/{name}"), "half of it");
    sandbox.command(&["schedule-check"]).stderr_has("copied").run();
    assert_eq!(content(&sandbox.path("second/x")), content(&sandbox.store()));
}

#[test]
fn a_pinned_backup_stays_whatever_the_rules_say() {
    let sandbox = sandbox("schedule = \"@daily\"\ntarget = \"local\"");
    for _ in 0..3 {
        sandbox.command(&["-q", "run-job", "j"]).run();
    }
    let all = ids(&sandbox);
    sandbox.command(&["pin", "shop", "--timestamp", &all[0][..16]]).stderr_has("pinned").run();
    sandbox.command(&["-q", "pin", "shop", "--timestamp", &all[0][..16]]).run();
    sandbox.command(&["list"]).stdout_has("encrypted, pinned").run();
    configure(&sandbox, "schedule = \"@daily\"\ntarget = \"local\"\nkeep_last = 1");
    sandbox.command(&["prune", "--force"]).stdout_has("pinned").run();
    assert_eq!(ids(&sandbox), [all[0].clone(), all[2].clone()]);
    sandbox.command(&["unpin", "shop", "--timestamp", &all[0][..16]]).stderr_has("unpinned").run();
    sandbox.command(&["prune", "--force"]).stdout_has("removed").run();
    assert_eq!(ids(&sandbox), [all[2].clone()]);
    assert_eq!(content(&sandbox.store()).len(), 2, "the mark is gone, too");
    sandbox.command(&["pin", "shop", "--timestamp", "2020-01-01"]).exits(15).stderr_has("no backup of").run();
}

#[test]
fn the_last_that_was_proved_by_a_restore_stays() {
    let sandbox = sandbox("schedule = \"@daily\"\ntarget = \"local\"");
    for _ in 0..3 {
        sandbox.command(&["-q", "run-job", "j"]).run();
    }
    let all = ids(&sandbox);
    sandbox.command(&["verify", "shop", "--timestamp", &all[1][..16], "--restore"]).stdout_has("scratch").run();
    configure(&sandbox, "schedule = \"@daily\"\ntarget = \"local\"\nkeep_last = 1");
    sandbox.command(&["prune", "--force"]).stdout_has("the last that was proved by a restore").run();
    assert_eq!(ids(&sandbox), all[1..]);
    sandbox.command(&["-q", "verify", "shop", "--latest", "--restore"]).stdout_any().run();
    sandbox.command(&["prune", "--force"]).stdout_has("removed").run();
    assert_eq!(ids(&sandbox), all[2..]);
}

#[test]
fn a_lost_state_is_made_again_from_the_targets() {
    let sandbox = sandbox("schedule = \"0 * * * *\"\ntarget = \"local\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2026-01-01T00:00:00Z".into());
    sandbox.command(&["schedule-check"]).stderr_has("stored").run();
    let before = ids(&sandbox);
    // Lost altogether, corrupt in both generations, and lost with a host.
    for damage in 0..3 {
        for name in ["state.json", "state.json.bak"] {
            match damage {
                1 => drop(sandbox.write(&format!("data/{name}"), "{")),
                _ => drop(fs::remove_file(sandbox.data_dir().join(name))),
            }
        }
        if damage == 2 {
            fs::remove_dir_all(sandbox.data_dir()).unwrap();
        }
        sandbox.command(&["schedule-check"]).stderr_has("its newest backup is of").run();
        // Unless an hour has ended in between, nothing is due.
        assert!(ids(&sandbox).len() <= before.len() + 1);
        let state: Value = serde_json::from_slice(&fs::read(sandbox.data_dir().join("state.json")).unwrap()).unwrap();
        assert!(state["jobs"]["j"]["settled"].is_string(), "{state}");
    }
}

#[test]
fn slots_that_came_after_the_newest_backup_are_run_though_the_state_is_lost() {
    let sandbox = sandbox("schedule = \"0 * * * *\"\ntarget = \"local\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2026-01-01T00:00:00Z".into());
    sandbox.command(&["schedule-check"]).stderr_has("stored").run();
    fs::remove_dir_all(sandbox.data_dir()).unwrap();
    // The same jobs, every minute: the slots since are others, and one run makes up for them.
    configure(&sandbox, "schedule = \"* * * * *\"\ntarget = \"local\"");
    sandbox.command(&["schedule-check"]).stderr_any().run();
    assert_eq!(ids(&sandbox).len(), 2);
}

#[test]
fn a_job_of_unknown_past_is_not_decided_on_while_its_targets_are_away() {
    let sandbox = sandbox("schedule = \"0 * * * *\"\ntarget = \"second\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2026-01-01T00:00:00Z".into());
    sandbox.command(&["schedule-check"]).stderr_has("stored").run();
    fs::remove_dir_all(sandbox.data_dir()).unwrap();
    fs::rename(sandbox.path("second"), sandbox.path("away")).unwrap();
    sandbox.write("second", "a file where a folder should be");
    sandbox.command(&["schedule-check"]).exits(14).stderr_has("can't see whether it has run before").run();
    fs::remove_file(sandbox.path("second")).unwrap();
    fs::rename(sandbox.path("away"), sandbox.path("second")).unwrap();
    sandbox.command(&["schedule-check"]).stderr_has("its newest backup is of").run();
}

#[test]
fn a_drill_on_schedule_proves_the_newest_backup() {
    let sandbox = sandbox("schedule = \"0 0 1 1 *\"\ntarget = \"local\"\ndrill = \"0 * * * *\"");
    sandbox.run(&["schedule-check"]);
    rewrite_state(&sandbox, |job| job["first_seen"] = "2020-01-01T00:00:00Z".into());
    let said = sandbox.command(&["schedule-check"]).stderr_has("stored").stderr_has("proved").run();
    assert!(said.stderr.find("stored") < said.stderr.find("proved"), "the backup first: {}", said.stderr);
    let status = json(&sandbox, &["status"], 0);
    assert!(status["jobs"][0]["last_proved"].is_string() && status["jobs"][0]["next_drill"].is_string(), "{status}");
    // Once a slot; unless an hour has ended in between.
    let again = json(&sandbox, &["schedule-check"], 0);
    assert!(again["idle"] == true || again["drills"].as_array().is_some_and(|drills| drills.len() == 1), "{again}");
    assert!(sandbox.data_dir().join("tick.json").exists(), "the cheap tick is prepared");
}

#[test]
fn a_drill_that_fails_is_told_until_one_succeeds() {
    let sandbox = sandbox("schedule = \"0 0 1 1 *\"\ntarget = \"local\"");
    sandbox.run(&["schedule-check"]);
    sandbox.command(&["-q", "run-job", "j"]).run();
    configure(&sandbox, "schedule = \"0 0 1 1 *\"\ntarget = \"local\"\ndrill = \"0 * * * *\"");
    rewrite_state(&sandbox, |job| job["first_seen"] = "2026-01-01T00:00:00Z".into());
    rewrite_state(&sandbox, |job| job["settled"] = "2026-01-01T00:00:00Z".into());
    let (name, good) = content(&sandbox.store()).into_iter().find(|(name, _)| name.ends_with(".enc")).unwrap();
    let path = sandbox.store().join("host/shop").join(name);
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let drilled = json(&sandbox, &["schedule-check"], 12);
    assert_eq!(drilled["drills"][0]["error"]["kind"], "authentication", "{drilled}");
    rewrite_state(&sandbox, |job| job["last_drill"]["slot"] = "2026-01-01T00:00:00Z".into());
    let told = sandbox.command(&["schedule-check"]).exits(12).stderr_any().run().stderr;
    assert_eq!(told.matches("error: ").count(), 1, "{told}");
    let status = json(&sandbox, &["status"], 3);
    assert_eq!(status["jobs"][0]["state"], "unproved");
    sandbox
        .command(&["status"])
        .exits(3)
        .stdout_has("unproved")
        .stderr_has("the last drill failed: drill of job j")
        .run();
    fs::write(&path, good).unwrap();
    sandbox.command(&["verify", "shop", "--restore"]).stdout_has("scratch").run();
    assert_eq!(json(&sandbox, &["status"], 0)["jobs"][0]["state"], "good");
}

#[test]
fn what_a_drills_restore_has_to_say_is_told() {
    let (sandbox, database) = (Sandbox::new(), Database::new());
    database.sql("create table t (x int); insert into t values (1), (2)");
    let tools = std::env::var("VOXELTRON_TEST_POSTGRES_BIN").unwrap();
    let with_check = |query: &str| {
        sandbox.configure_local(
            Some(KEY),
            &format!(
                "[databases.shop]\nengine = \"postgres\"\nurl = \"{}\"\ntools_dir = \"{tools}\"\n\
                 [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@yearly\"\nencrypt = true\n\
                 [[backup.jobs.checks]]\nquery = \"{query}\"\nexpect = \"2\"\n",
                database.url
            ),
        );
    };
    with_check("SELECT 2 FROM pg_sleep(600)");
    sandbox.command(&["-q", "run-job", "j"]).run();
    let mut drill = sandbox.command(&["verify", "shop", "--restore"]).into_command();
    let mut drill = drill.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let asks = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT 2 FROM pg_sleep%' AND datname LIKE '{}%'",
        database.name
    );
    let began = Instant::now();
    while psql(&database.url, &asks).trim() == "0" {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", drill.try_wait());
        std::thread::sleep(Duration::from_millis(50));
    }
    drill.kill().unwrap();
    drill.wait().unwrap();
    with_check("SELECT count(*) FROM t");
    let said = sandbox.command(&["--json", "verify", "shop", "--restore"]).stdout_any().stderr_any().run();
    let left = format!("dropped {}", database.name);
    assert!(said.stderr.contains(" at local: ") && said.stderr.contains(&left), "{said:?}");
    let verified: Value = serde_json::from_str(&said.stdout).unwrap();
    let notes = &verified["backups"][0]["notes"];
    assert!(notes[0].as_str().is_some_and(|note| note.starts_with(&left)) && notes[1].is_null(), "{verified}");
    let verified = json(&sandbox, &["verify", "shop", "--restore"], 0);
    assert_eq!(verified["backups"][0]["notes"], serde_json::json!([]), "once");
}

#[test]
fn a_jobs_own_checks_decide_on_its_drill() {
    let job = "schedule = \"0 0 1 1 *\"\ntarget = \"local\"\ndrill = \"0 * * * *\"\n";
    let checks = |expect: &str| {
        format!(
            "{job}[[backup.jobs.checks]]\nname = \"sum\"\nquery = \"SELECT sum(x) FROM t\"\nexpect = \"{expect}\"\n\
             [[backup.jobs.checks]]\nquery = \"SELECT 1\"\nexpect = \"1\""
        )
    };
    let sandbox = sandbox(&checks("3"));
    sandbox.command(&["-q", "run-job", "j"]).run();
    let verified = json(&sandbox, &["verify", "shop", "--restore"], 0);
    assert_eq!((&verified["backups"][0]["checks"], &verified["backups"][0]["ok"]), (&2.into(), &true.into()));
    sandbox.command(&["verify", "shop", "--restore"]).stdout_has("; 2 checks hold").run();
    sandbox.command(&["verify", "shop"]).stdout_has(": good").run();
    // A drill that finds the wrong rows ends as one that finds too few.
    configure(&sandbox, &checks("4"));
    let wrong = "check \"sum\": expected \"4\", found \"3\"";
    sandbox.command(&["verify", "shop", "--restore"]).exits(13).stderr_has(wrong).run();
    rewrite_state(&sandbox, |job| job["first_seen"] = "2026-01-01T00:00:00Z".into());
    rewrite_state(&sandbox, |job| job["settled"] = "2026-01-01T00:00:00Z".into());
    let drilled = json(&sandbox, &["schedule-check"], 13);
    assert!(drilled["drills"][0]["error"]["message"].as_str().unwrap().contains(wrong), "{drilled}");
    assert_eq!(json(&sandbox, &["status"], 3)["jobs"][0]["state"], "unproved");
    // What is asked of another job's backups, or of one that is only read, is nothing.
    sandbox.command(&["verify", "shop"]).stdout_has(": good").run();
    configure(&sandbox, &checks("3"));
    sandbox.command(&["verify", "shop", "--restore"]).stdout_has("; 2 checks hold").run();
    assert_eq!(json(&sandbox, &["status"], 0)["jobs"][0]["state"], "good");
}

#[test]
fn a_check_that_asks_nothing_is_a_problem_of_the_configuration() {
    let job = "schedule = \"@daily\"\ntarget = \"local\"\n";
    for (check, why) in [
        ("expect = \"1\"", "[[backup.jobs.checks]] 1 has no `query`"),
        ("query = \"SELECT 1\"", "[[backup.jobs.checks]] 1 has no `expect`"),
        ("query = \" \"\nexpect = \"1\"", "`query` in [[backup.jobs.checks]] 1 is empty"),
        ("query = []\nexpect = \"1\"", "is empty"),
        ("query = \"SELECT 1\"\nexpect = 1", "`expect` in [[backup.jobs.checks]] 1 must be a string"),
        ("query = \"SELECT 1\"\nexpected = \"1\"\nexpect = \"1\"", "unknown key `expected`"),
    ] {
        let sandbox = sandbox(&format!("{job}[[backup.jobs.checks]]\n{check}"));
        sandbox.command(&["check", "--offline"]).exits(10).stdout_any().stderr_has(why).run();
    }
}
