//! What a killed process leaves at work: its tools end by themselves, sooner or later. Flows in: a command. Flows out: the same
//! as the leader of a session, and the moment when the last of it is gone. Touches /proc.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::process::Command;
use std::time::{Duration, Instant};

/// The same command, whose process leads a session of its own, in which all that it starts is too. `inherits`: it has this
/// process's environment, too.
pub fn leader(command: &Command, inherits: bool) -> Command {
    let mut leader = Command::new("setsid");
    if !inherits {
        leader.env_clear();
    }
    leader.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        leader.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => leader.env(name, value),
            None => leader.env_remove(name),
        };
    }
    leader
}

/// Waits until nothing of the session lives.
#[track_caller]
pub fn wait_for_the_rest(leader: u32) {
    let started = Instant::now();
    while let Some(left) = rest(leader) {
        assert!(started.elapsed() < Duration::from_secs(120), "still at work: {left}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The command line of one of them.
fn rest(leader: u32) -> Option<String> {
    let leader = leader.to_string();
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name: state, parent, group, session.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let is_left = fields.get(3) == Some(&leader.as_str()) && !["Z", "X"].contains(fields.first()?);
        // What Wine starts for itself stays, whoever came first.
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        let is_wines = name.starts_with("wine") || (name.trim().ends_with(".exe") && !name.starts_with("mongo"));
        (is_left && !is_wines)
            .then(|| std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " "))
    })
}
