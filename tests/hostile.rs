//! What others may have put where the program looks: at a store that somebody else writes to, in a data folder in a shared
//! place, in names that reach a terminal, in words on the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Sandbox, sqlite3};
use serde_json::Value;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A sandbox with one small database and one job with these lines.
fn with_job(lines: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1), (2), (3)");
    sandbox.configure_local(
        Some(KEY),
        &format!(
            "[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nencrypt = true\nschedule = \"0 0 1 1 *\"\n{lines}\n"
        ),
    );
    sandbox
}

fn json(sandbox: &Sandbox, args: &[&str], code: i32) -> Value {
    let outcome = sandbox.command(&[&["--json"], args].concat()).exits(code).stdout_any().stderr_any().run();
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// Makes the newest slot of the job due, and gives the path that its manifest will have.
fn make_due(sandbox: &Sandbox) -> PathBuf {
    sandbox.run(&["schedule-check"]);
    let path = sandbox.data_dir().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["jobs"]["j"]["first_seen"] = "2020-06-01T00:00:00Z".into();
    fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
    let dry = json(sandbox, &["schedule-check", "--dry-run"], 0);
    let slot = dry["decisions"][0]["slot"].as_str().unwrap().replace(['-', ':'], "");
    fs::create_dir_all(sandbox.store().join("host/shop")).unwrap();
    sandbox.store().join(format!("host/shop/{slot}-j.manifest.json"))
}

#[test]
fn what_stands_in_a_slots_place_and_is_no_backup_does_not_settle_the_slot() {
    type Plant = fn(&Sandbox, &PathBuf);
    let plants: [(Plant, i32); 6] = [
        (|_, path| fs::write(path, "").unwrap(), 12),
        (|_, path| fs::write(path, "{}").unwrap(), 12),
        (|_, path| symlink("/nowhere", path).unwrap(), 12),
        (|_, path| fs::create_dir(path).unwrap(), 14),
        (|_, path| drop(common::tool(Command::new("mkfifo").arg(path), b"")), 14),
        // A good one that has lost its object.
        (
            |sandbox, path| {
                let state = sandbox.data_dir().join("state.json");
                let before = fs::read(&state).unwrap();
                sandbox.command(&["-q", "schedule-check"]).run();
                let files = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
                files.filter(|file| file != path).for_each(|object| fs::remove_file(object).unwrap());
                fs::write(state, before).unwrap();
            },
            12,
        ),
    ];
    for (number, (plant, code)) in plants.into_iter().enumerate() {
        let sandbox = with_job("");
        let manifest = make_due(&sandbox);
        plant(&sandbox, &manifest);
        let outcome = sandbox.command(&["schedule-check"]).exits(code).stderr_has("error: target local: ").run();
        assert!(!outcome.stderr.contains("is at local already"), "{number}: {outcome:?}");
        let status = json(&sandbox, &["status"], 3);
        assert_eq!(status["jobs"][0]["state"], "failing", "{number}");
        let left = fs::read_dir(manifest.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "{number}: nothing is left of the attempt");
    }
}

#[test]
fn a_manifest_in_another_databases_folder_spoils_none_of_this_one() {
    let sandbox = with_job("");
    sandbox.command(&["-q", "run-job", "j"]).run();
    let manifest = fs::read_dir(sandbox.store().join("host/shop")).unwrap().map(|entry| entry.unwrap().path());
    let manifest = manifest.into_iter().find(|path| path.to_str().unwrap().ends_with(".json")).unwrap();
    // It is read first.
    fs::create_dir(sandbox.store().join("host/a")).unwrap();
    fs::copy(&manifest, sandbox.store().join("host/a").join(manifest.file_name().unwrap())).unwrap();
    let listed = json(&sandbox, &["list"], 0);
    let problem = |database: &str| {
        let all = listed["backups"].as_array().unwrap();
        all.iter().find(|backup| backup["database"] == database).unwrap()["problem"].clone()
    };
    assert!(problem("a").as_str().unwrap().contains("is that of another backup"), "{listed}");
    assert_eq!(problem("shop"), Value::Null);
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = sandbox.command(args).into_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal, and gives the code that the process ends with: soon, where it would wait for ever otherwise.
fn ends_by(child: &mut Child, signal: &str) -> Option<i32> {
    common::tool(Command::new("kill").args([format!("-{signal}"), child.id().to_string()]), b"");
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it does not heed SIG{signal}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the process has a handler for this signal.
fn heeds(child: &Child, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() >> (signal - 1) & 1 == 1
}

fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_ends_a_restore_into_a_file() {
    let sandbox = with_job("");
    sandbox.command(&["-q", "run-job", "j"]).run();
    let pipe = sandbox.path("pipe");
    common::tool(Command::new("mkfifo").arg(&pipe), b"");
    // Nobody reads, so it waits for a reader, once it listens to signals: before, any program ends by one.
    let mut child = start(&sandbox, &["restore", "shop", "--latest", "--output", pipe.to_str().unwrap()]);
    let started = Instant::now();
    while !heeds(&child, 15) {
        assert!(started.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ends_by(&mut child, "TERM"), Some(143));
    // And with a reader it comes whole.
    let mut child = start(&sandbox, &["restore", "shop", "--latest", "--output", pipe.to_str().unwrap()]);
    let size = fs::metadata(sandbox.path("shop.db")).unwrap().len();
    assert_eq!(fs::read(&pipe).unwrap().len() as u64, size);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_signal_between_two_jobs_is_no_good_end() {
    let second = "[[backup.jobs]]\nname = \"k\"\ndatabase = \"shop\"\nschedule = \"0 0 1 1 *\"";
    let after = "after = \"touch {dir}/began; while [ ! -e {dir}/go ]; do sleep 0.05; done\"";
    for signal in [("TERM", 143), ("HUP", 129)] {
        let sandbox = with_job(&format!("{after}\n{second}"));
        let mut child = start(&sandbox, &["run-job", "--all"]);
        wait_for(&sandbox.path("began"));
        // The hook after a job runs to its end in any case, and the first backup is good.
        common::tool(Command::new("kill").args([format!("-{}", signal.0), child.id().to_string()]), b"");
        std::thread::sleep(Duration::from_millis(100));
        fs::write(sandbox.path("go"), "").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(signal.1));
        assert_eq!(json(&sandbox, &["list"], 0)["backups"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn nohup_is_heeded() {
    let sandbox = with_job("before = \"touch {dir}/began; while [ ! -e {dir}/go ]; do sleep 0.05; done\"");
    let program = sandbox.command(&["run-job", "j"]).into_command();
    let mut command = Command::new("nohup");
    command.arg(program.get_program()).args(program.get_args()).env("VOXELTRON_CONFIG", sandbox.config());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&sandbox.path("began"));
    common::tool(Command::new("kill").args(["-HUP", &child.id().to_string()]), b"");
    std::thread::sleep(Duration::from_millis(300));
    fs::write(sandbox.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_link_in_the_place_of_a_lock_is_not_followed() {
    let sandbox = with_job("");
    let precious = sandbox.write("precious", "keep me");
    fs::create_dir(sandbox.data_dir().join("locks")).unwrap();
    for link in ["locks/j.lock", "state.lock"] {
        symlink(&precious, sandbox.data_dir().join(link)).unwrap();
        sandbox.command(&["run-job", "j"]).exits(1).stderr_has("too many levels of symbolic links").run();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "keep me");
        fs::remove_file(sandbox.data_dir().join(link)).unwrap();
    }
}

#[test]
fn a_name_commands_no_terminal_and_makes_no_row_of_its_own() {
    let sandbox = with_job("");
    let folder = sandbox.store().join("host/%1B%5D0%3Bowned%07%0Ashop");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("20260101T000000Z-%1B%5B2Jj.manifest.json"), "{}").unwrap();
    let listed = sandbox.command(&["list"]).stdout_has("owned").run();
    assert!(!listed.stdout.contains(['\u{1b}', '\u{7}']), "{listed:?}");
    assert_eq!(listed.stdout.lines().count(), 2);
    let outcome = sandbox.command(&["list", "--target", "\u{1b}[2J"]).exits(2).stderr_any().run();
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome:?}");
}

#[test]
fn a_wrong_command_line_has_its_json_document_too() {
    let sandbox = with_job("");
    for (args, command) in [
        (&["restore", "shop"][..], Value::from("restore")),
        (&["nonsense"], Value::Null),
        (&["schedule-check", "--max-parallel", "0"], "schedule-check".into()),
        (&["restore", "shop", "--latest", "--output", "-"], "restore".into()),
    ] {
        let document = json(&sandbox, args, 2);
        assert_eq!((&document["command"], &document["error"]["kind"]), (&command, &"usage".into()), "{document}");
        assert!(document["error"]["message"].as_str().is_some_and(|text| !text.starts_with("error")), "{document}");
    }
    sandbox.command(&["nonsense"]).exits(2).stderr_any().run();
    sandbox.command(&["--json", "list", "--help"]).stdout_has("Usage").run();
}

#[test]
fn nothing_to_verify_is_no_good_end() {
    let sandbox = with_job("");
    sandbox.command(&["verify", "--all"]).exits(15).stderr_has("no backup").run();
    sandbox.command(&["-q", "run-job", "j"]).run();
    sandbox.command(&["verify", "--all"]).stdout_has("good").run();
    sandbox.command(&["verify", "shop", "--all", "--job", "typo"]).exits(15).stderr_has("no backup").run();
}

#[test]
fn an_idle_tick_is_silent_but_never_deaf_to_a_file_that_others_can_write() {
    let sandbox = with_job("");
    let mode = |mode| fs::set_permissions(sandbox.config(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    sandbox.run(&["schedule-check"]);
    sandbox.run(&["schedule-check"]);
    mode(0o666);
    sandbox.command(&["schedule-check"]).exits(10).stderr_has("others can write to").run();
    mode(0o644);
    make_due(&sandbox);
    let outcome = sandbox.command(&["schedule-check"]).stderr_has("j: stored").run();
    assert_eq!(outcome.stderr.matches("others can read").count(), 1, "{outcome:?}");
}

#[test]
fn a_keys_command_runs_once_for_a_database_and_not_offline() {
    let sandbox = with_job("");
    let text = fs::read_to_string(sandbox.config()).unwrap();
    let ran = sandbox.path("ran");
    let command = format!("{{ command = [\"sh\", \"-c\", \"echo x >> {}; echo {KEY}\"] }}", ran.display());
    sandbox.configure(&text.replace(&format!("\"{KEY}\""), &command));
    for _ in 0..4 {
        sandbox.command(&["-q", "run-job", "j"]).run();
    }
    let runs = || fs::read_to_string(&ran).unwrap_or_default().lines().count();
    let before = runs();
    sandbox.command(&["list"]).stdout_any().run();
    assert!(runs() - before <= 2, "{} runs for 4 backups", runs() - before);
    let before = runs();
    sandbox.command(&["check", "--offline"]).stdout_has("a command, not run").run();
    assert_eq!(runs(), before);
}

#[test]
fn check_looks_at_the_data_folder() {
    let sandbox = with_job("");
    sandbox.command(&["check"]).stdout_has("ok  data_dir: ").run();
    fs::remove_dir_all(sandbox.data_dir()).unwrap();
    sandbox.write("data", "a file where a folder should be");
    sandbox.command(&["check"]).exits(1).stdout_any().stderr_has("data_dir: can't ").run();
}
