//! One tick with much to do: what runs beside what, and that nothing which goes wrong takes the rest with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::s3::{Bucket, access_key, secret_key};
use common::{Sandbox, sqlite3};
use serde_json::Value;

const YEARLY: &str = "schedule = \"0 0 1 1 *\"";

/// A sandbox with a database, and these jobs of it.
fn with_jobs(jobs: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1), (2)");
    let jobs: String = jobs
        .iter()
        .map(|(name, lines)| {
            format!("[[backup.jobs]]\nname = \"{name}\"\ndatabase = \"shop\"\ntarget = \"local\"\n{YEARLY}\n{lines}\n")
        })
        .collect();
    sandbox.configure_local(
        None,
        &format!("[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n{jobs}"),
    );
    sandbox
}

fn state(sandbox: &Sandbox) -> Value {
    serde_json::from_slice(&fs::read(sandbox.data_dir().join("state.json")).unwrap()).unwrap()
}

/// Changes a job's state as if time had passed, also while the program is at work.
fn rewrite(sandbox: &Sandbox, job: &str, change: impl FnOnce(&mut Value)) {
    let lock = fs::File::open(sandbox.data_dir().join("state.lock")).unwrap();
    lock.lock().unwrap();
    let mut state = state(sandbox);
    change(&mut state["jobs"][job]);
    fs::write(sandbox.data_dir().join("state.json"), serde_json::to_vec(&state).unwrap()).unwrap();
}

/// Makes a job's last slot one that is due.
fn make_due(sandbox: &Sandbox, job: &str) {
    rewrite(sandbox, job, |past| past["first_seen"] = "2020-01-01T00:00:00Z".into());
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = sandbox.command(args).into_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn manifests(sandbox: &Sandbox, job: &str) -> usize {
    let Ok(found) = fs::read_dir(sandbox.store().join("host/shop")) else { return 0 };
    let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(&format!("-{job}.manifest.json"))).count()
}

fn waits_for(path: &Path) -> String {
    format!(
        "before = \"touch {{dir}}/began; while [ -e {{dir}} ] && [ ! -e {} ]; do sleep 0.05; done\"",
        path.display()
    )
}

#[test]
fn what_falls_due_during_a_long_run_is_done_beside_it() {
    let held = tempfile::tempdir().unwrap();
    let go = held.path().join("go");
    let sandbox = with_jobs(&[
        ("long", &waits_for(&go)),
        ("other", "before = \"[ -e {dir}/well ]\"\nretry_after = \"1s\"\ndrill = \"30 0 1 1 *\""),
    ]);
    sandbox.run(&["schedule-check"]);
    make_due(&sandbox, "long");
    let mut child = start(&sandbox, &["schedule-check"]);
    wait_for("the long one does not begin", || sandbox.path("began").exists());
    // It falls due, fails, is tried again, and is proved, while the long one goes on: by one process.
    make_due(&sandbox, "other");
    wait_for("a job that falls due is not begun", || state(&sandbox)["jobs"]["other"]["failures_in_row"] == 1);
    sandbox.write("well", "");
    wait_for("a failed slot is not tried again", || manifests(&sandbox, "other") == 1);
    wait_for("a drill that is due is not begun", || !state(&sandbox)["jobs"]["other"]["last_drill"].is_null());
    assert!(state(&sandbox)["jobs"]["other"]["last_drill"]["error"].is_null());
    assert_eq!((manifests(&sandbox, "long"), child.try_wait().unwrap()), (0, None));
    fs::write(&go, "").unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(3), "one attempt of it failed");
    assert_eq!((manifests(&sandbox, "long"), manifests(&sandbox, "other")), (1, 1));
}

#[test]
fn what_begins_during_a_long_run_goes_by_the_configuration_of_that_time() {
    let held = tempfile::tempdir().unwrap();
    let go = held.path().join("go");
    let sandbox = with_jobs(&[("long", &waits_for(&go)), ("other", ""), ("gone", "")]);
    fs::set_permissions(sandbox.config(), fs::Permissions::from_mode(0o644)).unwrap();
    sandbox.run(&["schedule-check"]);
    make_due(&sandbox, "long");
    let child = start(&sandbox, &["schedule-check"]);
    wait_for("the long one does not begin", || sandbox.path("began").exists());
    let old = fs::read_to_string(sandbox.config()).unwrap();
    // Half written, and then whole: without one of the jobs, and another has a hook.
    fs::write(sandbox.config(), &old[..old.len() / 2]).unwrap();
    let (kept, _) = old.split_once("[[backup.jobs]]\nname = \"gone\"").unwrap();
    let new = format!("{kept}before = \"touch {}\"\n", sandbox.path("new").display());
    ["other", "gone"].iter().for_each(|job| make_due(&sandbox, job));
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(manifests(&sandbox, "other"), 0, "a configuration that can't be read begins nothing");
    fs::write(sandbox.config(), new).unwrap();
    wait_for("a job that falls due is not begun", || manifests(&sandbox, "other") == 1);
    assert!(sandbox.path("new").exists(), "it was run as it had been");
    assert_eq!(manifests(&sandbox, "long"), 0);
    fs::write(&go, "").unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "what could not be read for a moment is over: {said}");
    assert_eq!((manifests(&sandbox, "long"), manifests(&sandbox, "gone")), (1, 0));
    assert!(said.contains("long: stored") && said.contains("other: stored"), "{said}");
    assert_eq!(said.matches("others can read").count(), 1, "a warning is said once: {said}");
}

#[test]
fn what_waits_for_its_turn_goes_by_the_configuration_of_that_time() {
    let held = tempfile::tempdir().unwrap();
    let go = held.path().join("go");
    let sandbox = with_jobs(&[("long", &waits_for(&go)), ("other", ""), ("gone", "")]);
    sandbox.run(&["schedule-check"]);
    ["long", "other", "gone"].iter().for_each(|job| make_due(&sandbox, job));
    // All are due, and one at a time is run.
    let child = start(&sandbox, &["schedule-check", "--max-parallel", "1"]);
    wait_for("the long one does not begin", || sandbox.path("began").exists());
    let old = fs::read_to_string(sandbox.config()).unwrap();
    let (kept, _) = old.split_once("[[backup.jobs]]\nname = \"gone\"").unwrap();
    fs::write(sandbox.config(), format!("{kept}before = \"touch {}\"\n", sandbox.path("new").display())).unwrap();
    fs::write(&go, "").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(manifests(&sandbox, "long"), 1);
    // By the next tick at the latest.
    sandbox.command(&["schedule-check"]).stderr_any().run();
    assert!(sandbox.path("new").exists(), "it was run as it had been");
    assert_eq!((manifests(&sandbox, "other"), manifests(&sandbox, "gone")), (1, 0));
}

#[test]
fn what_can_t_be_begun_for_a_moment_is_begun_later() {
    let held = tempfile::tempdir().unwrap();
    let go = held.path().join("go");
    let sandbox = with_jobs(&[("long", &waits_for(&go)), ("other", "")]);
    sandbox.run(&["schedule-check"]);
    ["long", "other"].iter().for_each(|job| make_due(&sandbox, job));
    let lock = sandbox.data_dir().join("locks/other.lock");
    let _ = fs::remove_file(&lock);
    fs::create_dir_all(&lock).unwrap();
    let mut child = start(&sandbox, &["schedule-check"]);
    wait_for("the long one does not begin", || sandbox.path("began").exists());
    // Long enough for it to fail: when it does, it is told.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains("other.lock")).expect("it is told");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(manifests(&sandbox, "other"), 0);
    fs::remove_dir(&lock).unwrap();
    wait_for("it is not begun again", || manifests(&sandbox, "other") == 1);
    fs::write(&go, "").unwrap();
    let said: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{told}: {said:?}");
}

#[test]
fn two_run_at_once_and_no_more_than_is_said() {
    let meets = |own: &str, other: &str| {
        format!(
            "before = \"touch {{dir}}/{own}; for i in $(seq 2400); do [ -e {{dir}}/{other} ] && exit 0; sleep 0.05; done; exit 1\""
        )
    };
    let sandbox = with_jobs(&[("a", &meets("a", "b")), ("b", &meets("b", "a"))]);
    sandbox.run(&["schedule-check"]);
    make_due(&sandbox, "a");
    make_due(&sandbox, "b");
    sandbox.command(&["schedule-check"]).stderr_has("a: stored").stderr_has("b: stored").run();
    // One at a time each is alone.
    let alone = "before = \"mkdir {dir}/alone && sleep 0.3\"\nafter = \"rmdir {dir}/alone\"";
    let sandbox = with_jobs(&[("a", alone), ("b", alone), ("c", alone)]);
    sandbox.run(&["schedule-check"]);
    ["a", "b", "c"].iter().for_each(|job| make_due(&sandbox, job));
    sandbox.command(&["schedule-check", "--max-parallel", "1"]).stderr_has("c: stored").run();
}

#[test]
fn a_job_whose_past_can_t_be_asked_for_keeps_no_other_waiting() {
    let sandbox = with_jobs(&[("good", ""), ("new", "")]);
    let text = fs::read_to_string(sandbox.config()).unwrap();
    let text = text.replace(
        "name = \"new\"\ndatabase = \"shop\"\ntarget = \"local\"",
        "name = \"new\"\ndatabase = \"shop\"\ntarget = \"away\"",
    );
    let with_new = format!("[backup.targets.away]\ntype = \"local\"\npath = \"{{dir}}/file/x\"\n{text}");
    // Known first; the other one comes with the next tick.
    sandbox.configure(text.split("[[backup.jobs]]\nname = \"new\"").next().unwrap());
    sandbox.run(&["schedule-check"]);
    make_due(&sandbox, "good");
    sandbox.write("file", "a file where a folder should be");
    sandbox.configure(&with_new);
    let said =
        sandbox.command(&["--json", "schedule-check", "--max-parallel", "1"]).exits(3).stdout_any().stderr_any().run();
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["jobs"][0]["targets"][0]["stored"], true, "{document}");
    assert!(document["errors"][0]["message"].as_str().unwrap().contains("can't see whether it has run before"));
    let (stored, asked) = (said.stderr.find("good: stored"), said.stderr.find("can't see whether"));
    assert!(stored.is_some() && stored < asked, "what is known to be due comes first: {}", said.stderr);
}

#[test]
fn a_job_that_fails_keeps_no_other_from_running() {
    let sandbox = with_jobs(&[("bad", "before = \"exit 1\""), ("good", "")]);
    sandbox.run(&["schedule-check"]);
    make_due(&sandbox, "bad");
    make_due(&sandbox, "good");
    let said =
        sandbox.command(&["--json", "schedule-check", "--max-parallel", "1"]).exits(3).stdout_any().stderr_any().run();
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["jobs"].as_array().unwrap().len(), 2);
    assert_eq!((manifests(&sandbox, "bad"), manifests(&sandbox, "good")), (0, 1));
}

fn share(sandbox: &Sandbox, bucket: &Bucket, notify: &str) {
    let mut text = format!(
        "[backup]\ninstance = \"in\"\nstate = \"s3\"\nlease = \"5s\"\ndata_dir = \"{{dir}}/data\"\n{notify}[backup.targets.s3]\n\
         bucket = \"{}\"\nendpoint = \"{}\"\naccess_key = \"{}\"\nsecret_key = \"{}\"\npath_style = true\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n",
        bucket.name,
        common::s3::endpoint(),
        access_key(),
        secret_key()
    );
    for job in ["bad", "good"] {
        text.push_str(&format!("[[backup.jobs]]\nname = \"{job}\"\ndatabase = \"shop\"\n{YEARLY}\n"));
    }
    sqlite3(&sandbox.path("shop.db"), "create table if not exists t (x)");
    sandbox.configure(&text);
}

#[test]
fn a_record_that_can_t_be_read_keeps_no_other_job_from_running() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    share(&sandbox, &bucket, "notify = { metrics_file = \"{dir}/x.prom\" }\n");
    sandbox.run(&["schedule-check"]);
    let key = |job: &str| format!("in/.voxeltron/state/{job}.json");
    let mut good: Value = serde_json::from_slice(&bucket.get(&key("good"))).unwrap();
    good["past"]["first_seen"] = "2020-01-01T00:00:00Z".into();
    bucket.put(&key("good"), good.to_string().as_bytes());
    bucket.put(&key("bad"), b"{\"version\": 2}");
    // On a host that knows nothing, and on one that knows both.
    fs::remove_dir_all(sandbox.data_dir()).unwrap();
    let said = sandbox.command(&["--json", "schedule-check"]).exits(3).stdout_any().stderr_has("good: stored").run();
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["jobs"][0]["job"], "good", "{document}");
    assert!(document["errors"][0]["message"].as_str().unwrap().contains("has version 2"), "{document}");
    assert!(fs::read_to_string(sandbox.path("x.prom")).is_ok(), "what ran is told of");
    assert_eq!(bucket.get(&key("bad")), b"{\"version\": 2}");
    sandbox.command(&["schedule-check"]).exits(10).stderr_has("has version 2").run();
}

#[test]
fn hosts_with_an_old_and_a_new_configuration_do_not_undo_each_other() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    let key = "in/.voxeltron/state/good.json";
    let tick = |host: &str, schedule: &str| {
        share(&sandbox, &bucket, "");
        let text = fs::read_to_string(sandbox.config()).unwrap();
        sandbox.configure(&text.replace(YEARLY, schedule));
        let run = sandbox.command(&["schedule-check"]).env("VOXELTRON_BACKUP_DATA_DIR", sandbox.path(host));
        run.stderr_any().run();
        serde_json::from_slice::<Value>(&bucket.get(key)).unwrap()["past"].clone()
    };
    let (old, new) = (YEARLY, "schedule = \"0 0 2 1 *\"");
    tick("old", old);
    let deployed = tick("new", new);
    assert_eq!((&deployed["schedule"], &deployed["former"]["schedule"]), (&"0 0 2 1 *".into(), &"0 0 1 1 *".into()));
    assert_eq!(tick("old", old), deployed, "it is being deployed");
    assert_eq!(tick("new", new), deployed);
    // What has the old schedule for longer has it on purpose, and misses no slot since.
    let mut document: Value = serde_json::from_slice(&bucket.get(key)).unwrap();
    document["past"]["former"]["until"] = "2026-01-02T03:04:05Z".into();
    bucket.put(key, document.to_string().as_bytes());
    fs::remove_dir_all(sandbox.path("old")).unwrap();
    let back = tick("old", old);
    assert_eq!((&back["schedule"], &back["first_seen"]), (&"0 0 1 1 *".into(), &"2026-01-02T03:04:05Z".into()));
}

#[test]
fn a_proof_outlives_the_record_that_it_stood_in() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    share(&sandbox, &bucket, "");
    let key = "in/.voxeltron/state/good.json";
    let proved = || serde_json::from_slice::<Value>(&bucket.get(key)).unwrap()["past"]["last_proved_id"].clone();
    sandbox.command(&["-q", "run-job", "good"]).run();
    sandbox.command(&["-q", "verify", "shop", "--latest", "--restore"]).stdout_any().run();
    let id = proved();
    assert!(id.is_string());
    for damage in ["", "{\"version\": 1, \"job\""] {
        bucket.delete(key);
        if !damage.is_empty() {
            bucket.put(key, damage.as_bytes());
        }
        // It is looked at when something is to be done.
        fs::remove_file(sandbox.data_dir().join("tick.json")).ok();
        rewrite(&sandbox, "good", |past| past["unasked"] = true.into());
        sandbox.command(&["schedule-check"]).stderr_any().run();
        assert_eq!(proved(), id, "{damage}");
    }
}
