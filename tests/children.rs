//! What an operator's own commands leave behind: children that live on with the command's output open, and ones that
//! heed no signal. Through the program, on SQLite and a local target.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Sandbox, sqlite3};

/// Longer than any of these may take on a busy machine, and shorter than what is left behind lives.
const SOON: Duration = Duration::from_secs(120);

/// A sandbox with one small database and a job; `key` is the line with the key.
fn sandbox(key: &str, database: &str, job: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1)");
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\n{key}\n[backup.targets.local]\npath = \"{{dir}}/store\"\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n{database}\n\
         [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@daily\"\n{job}\n"
    ));
    sandbox
}

/// A command that leaves a child behind which holds its output open, and that writes the child's number into a file.
fn leaves(file: &str) -> String {
    format!(
        "[\"sh\", \"-c\", \"sleep 900 & echo $! > {{dir}}/{file}; echo MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"]"
    )
}

/// The state of the process whose number the file holds: none when there is no such process, or only its remains.
fn lives(file: &Path) -> bool {
    let pid = fs::read_to_string(file).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Ends what a command left behind.
fn end(file: &Path) {
    assert!(lives(file), "what a command starts on purpose is let live");
    common::tool(std::process::Command::new("kill").arg(fs::read_to_string(file).unwrap().trim()), b"");
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = sandbox.command(args).into_command();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < SOON, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn hooks_and_commands_for_secrets_may_leave_a_child_with_their_output_open() {
    let sandbox = sandbox(
        &format!("encryption_key = {{ command = {} }}", leaves("key")),
        &format!("restore.after = {}", leaves("restored")),
        &format!("encrypt = true\nbefore = {}", leaves("before")),
    );
    let started = Instant::now();
    sandbox.command(&["-q", "run-job", "j"]).run();
    assert!(started.elapsed() < SOON, "run-job took {:?}", started.elapsed());
    end(&sandbox.path("key"));
    end(&sandbox.path("before"));
    let started = Instant::now();
    sandbox.command(&["-q", "restore", "shop", "--latest", "--yes"]).run();
    assert!(started.elapsed() < SOON, "restore took {:?}", started.elapsed());
    end(&sandbox.path("key"));
    end(&sandbox.path("restored"));
    // The lock is free again.
    sandbox.command(&["-q", "run-job", "j"]).run();
    end(&sandbox.path("key"));
    end(&sandbox.path("before"));
}

#[test]
fn a_signal_ends_a_hook_with_all_that_it_started_though_that_heeds_none() {
    for before in [
        // The shell ends by the signal, its child does not.
        "(trap '' TERM; while :; do sleep 0.1; done) & echo $! > {dir}/pid; touch {dir}/began; wait",
        // The shell heeds it neither.
        "trap '' TERM; (while :; do sleep 0.1; done) & echo $! > {dir}/pid; touch {dir}/began; while :; do sleep 0.1; done",
    ] {
        let sandbox = sandbox("", "", &format!("before = [\"sh\", \"-c\", \"{before}\"]"));
        let mut child = start(&sandbox, &["run-job", "j"]);
        wait_for(&sandbox.path("began"));
        let started = Instant::now();
        common::tool(std::process::Command::new("kill").arg(child.id().to_string()), b"");
        assert_eq!(child.wait().unwrap().code(), Some(143));
        assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
        // A busy machine may take a moment to end what was killed.
        while lives(&sandbox.path("pid")) {
            assert!(started.elapsed() < SOON, "it lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
