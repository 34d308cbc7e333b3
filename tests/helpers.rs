//! The helpers themselves: each does what the other tests take for granted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Database, Sandbox, again, part, postgres_tool, python, run, sqlite3, tool};

#[test]
fn a_sandbox_has_what_the_program_needs() {
    let sandbox = Sandbox::new();
    sandbox.configure_local(Some("KEY"), "[[backup.jobs]]\ndatabase = \"shop\"\n");
    let text = std::fs::read_to_string(sandbox.config()).unwrap();
    assert!(text.contains(&format!("path = \"{}\"", sandbox.store().display())) && text.contains("KEY"), "{text}");
    assert_eq!(sandbox.config().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(sandbox.data_dir().is_dir() && sandbox.store().is_dir());
}

#[test]
fn expectations_are_checked() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.command(&["--no-such-flag"]).stdout_any().stderr_any();
    let command = outcome.into_command();
    let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["HOME", "PATH", "VOXELTRON_CONFIG"], "the environment is clean but for these");
    let missed = std::panic::catch_unwind(|| Sandbox::new().command(&[]).exits(99).stdout_any().stderr_any().run());
    assert!(missed.is_err(), "another exit code is noticed");
    let missed =
        std::panic::catch_unwind(|| Sandbox::new().command(&[]).stdout_has("what it never says").stderr_any().run());
    assert!(missed.is_err(), "missing output is noticed");
}

#[test]
fn fake_tools_run() {
    let sandbox = Sandbox::new();
    let tools = sandbox.fake_tool("pg_dump", "echo \"called with $*\"; cat; exit 3");
    let outcome = run(Command::new(tools.join("pg_dump")).args(["-Fc", "x"]), b"stdin");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(3), "called with -Fc x\nstdin"));
}

#[test]
fn a_part_runs_in_a_process_of_its_own() {
    if let Some(part) = part() {
        assert_eq!(part, "other");
        std::process::exit(7);
    }
    assert_eq!(run(&mut again("a_part_runs_in_a_process_of_its_own", "other"), b"").code, Some(7));
}

#[test]
fn sqlite_answers() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("x.db");
    sqlite3(&path, "create table t (a); insert into t values (41)");
    assert_eq!(sqlite3(&path, "select a + 1 from t"), "42\n");
}

#[test]
fn postgres_answers_and_databases_go_away() {
    let (name, server) = {
        let database = Database::new();
        database.sql("create table t (a int); insert into t values (41)");
        assert_eq!(database.sql("select a + 1 from t"), "42\n");
        tool(postgres_tool("pg_dump").args(["-Fc", "-Z0", "-d"]).arg(&database.url), b"");
        (database.name.clone(), database.server_url().to_owned())
    };
    assert_eq!(common::psql(&server, &format!("select count(*) from pg_database where datname = '{name}'")), "0\n");
}

#[test]
fn python_has_its_packages() {
    let outcome = python("tests/interop/packages.py", &["tink", "cryptography", "jsonschema", "tzdata"], b"");
    assert!(outcome.status.success() && outcome.stdout == "all there\n", "{outcome:?}");
}
