//! Dump tools that die in every way: no manifest, nothing left at the target, exit code 13 with the tool's last words, and
//! the backup before is still the latest. The tools are shell scripts round the real `pg_dump`, since it can't be made to die
//! on request; the server is real. The other engines' are in [`others`], and connections that are cut for all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;
#[path = "common/cutter.rs"]
mod cutter;
#[path = "dead_dump/others.rs"]
mod others;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Database, Sandbox, psql};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

struct Dying {
    sandbox: Sandbox,
    database: Database,
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("host/shop")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Dying {
    /// A database with one good backup. `script` then stands for `pg_dump`, with the real one in `$real`.
    fn new(script: &str) -> Self {
        Self::within("60s", script)
    }

    /// The same, where a job may take so long.
    fn within(timeout: &str, script: &str) -> Self {
        let (sandbox, database) = (Sandbox::new(), Database::new());
        database.sql(
            "create table t (x text); insert into t select repeat(md5(i::text), 30) from generate_series(1, 20000) i",
        );
        let real = std::env::var("VOXELTRON_TEST_POSTGRES_BIN").unwrap();
        let dying = Self { sandbox, database };
        dying.configure("60s", &real);
        dying.sandbox.command(&["-q", "run-job", "shop"]).run();
        let tools = dying.sandbox.fake_tool(
            "pg_dump",
            &format!("real={real}/pg_dump\ncase \"$*\" in *--version*) exec $real --version;; esac\n{script}"),
        );
        for name in ["psql", "pg_restore"] {
            std::os::unix::fs::symlink(Path::new(&real).join(name), tools.join(name)).unwrap();
        }
        dying.configure(timeout, &tools.display().to_string());
        dying
    }

    fn configure(&self, timeout: &str, tools: &str) {
        let job = format!(
            "[[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\ntimeout = \"{timeout}\"\nkeep_last = 1\n"
        );
        let url = &self.database.url;
        self.sandbox.configure_local(
            Some(KEY),
            &format!("[databases.shop]\nengine = \"postgres\"\nurl = \"{url}\"\ntools_dir = \"{tools}\"\n{job}"),
        );
    }

    /// The run fails as it should; gives what it said.
    fn fails(&self) -> String {
        let before = files(&self.sandbox.store());
        assert_eq!(before.len(), 2, "one good backup: {before:?}");
        let said =
            self.sandbox.command(&["run-job", "shop"]).exits(13).stderr_has("error: job shop@local: ").run().stderr;
        assert_eq!(files(&self.sandbox.store()), before, "nothing new, nothing gone");
        self.sandbox.command(&["verify", "shop"]).stdout_has(": good").run();
        self.database.sql("delete from t");
        self.sandbox.command(&["-q", "restore", "shop", "--latest"]).run();
        assert_eq!(
            self.database.sql("select count(*) from t").trim(),
            "20000",
            "the backup before is still the latest"
        );
        said
    }
}

#[test]
fn dies_after_some_bytes() {
    let said = Dying::new("$real \"$@\" | head -c 100000; echo 'the last words' >&2; kill -9 $$").fails();
    assert!(said.contains("pg_dump was killed by signal 9") && said.contains("  | the last words"), "{said}");
}

#[test]
fn exits_1_after_complete_output() {
    let said = Dying::new("$real \"$@\"; echo 'the last words' >&2; exit 1").fails();
    assert!(said.contains("pg_dump failed with exit status 1") && said.contains("  | the last words"), "{said}");
}

#[test]
fn prints_nothing_and_exits_0() {
    let said = Dying::new("exit 0").fails();
    assert!(said.contains("empty"), "{said}");
}

#[test]
fn is_cut_with_exit_0() {
    for length in ["1", "5", "100", "4000", "100000", "-1", "-2", "-40"] {
        let said = Dying::new(&format!("$real \"$@\" | head -c {length}; exit 0")).fails();
        assert!(said.contains("cut") || said.contains("end"), "{length}: {said}");
    }
}

#[test]
fn has_bytes_after_its_end() {
    Dying::new("$real \"$@\"; printf x").fails();
}

#[test]
fn prints_something_else() {
    let said = Dying::new("echo 'Usage: pg_dump [OPTION]...'").fails();
    assert!(said.contains("is no dump"), "{said}");
}

#[test]
fn is_killed() {
    let said = Dying::new("exec 3>&1; $real \"$@\" >&3 & sleep 0.02; kill -9 $!; wait $!").fails();
    assert!(said.contains("pg_dump failed with exit status 137"), "{said}");
}

#[test]
fn hangs_past_its_timeout() {
    let said = Dying::within("3s", "echo 'the last words' >&2; $real \"$@\" | head -c 100000; sleep 600").fails();
    assert!(said.contains("did not finish within its time") && said.contains("  | the last words"), "{said}");
}

#[test]
fn ignores_sigterm_past_its_timeout() {
    let said = Dying::within("3s", "trap '' TERM; while :; do sleep 1; done").fails();
    assert!(said.contains("did not finish within its time"), "{said}");
}

struct Done(AtomicBool);

/// Ends the thread even when the test fails.
struct Ending<'a>(&'a Done);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn loses_its_server_in_the_middle() {
    let dying = Dying::new("PGAPPNAME=victim exec $real \"$@\"");
    // Enough that the dump is under way for a while.
    dying.database.sql("insert into t select x from t; insert into t select x from t; insert into t select x from t");
    let server = dying.database.server_url().to_owned();
    let name = dying.database.name.clone();
    let done = Done(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let all = &done;
        scope.spawn(move || {
            let sql = format!(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = '{name}' and application_name = 'victim' and query ilike 'copy%'"
            );
            while !all.0.load(Ordering::Relaxed) {
                psql(&server, &sql);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let _end = Ending(all);
        let before = files(&dying.sandbox.store());
        let outcome = dying.sandbox.command(&["run-job", "shop"]).exits(13).stderr_any().run();
        assert_eq!(files(&dying.sandbox.store()), before);
        assert!(outcome.stderr.contains("pg_dump failed with exit status 1"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("terminat"), "{}", outcome.stderr);
    });
    dying.sandbox.command(&["verify", "shop"]).stdout_has(": good").run();
}

#[test]
fn echoes_a_row_of_data_and_it_is_cut() {
    let said = Dying::new("head -c 100000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo end >&2; exit 3").fails();
    assert!(said.len() < 4000, "{} bytes", said.len());
    assert!(said.contains("  | end"), "{said}");
}

#[test]
fn is_not_there() {
    let dying = Dying::new("exit 0");
    fs::remove_file(dying.sandbox.path("tools").join("pg_dump")).unwrap();
    let said = dying.fails();
    assert!(said.contains("pg_dump") && said.contains("hint: "), "{said}");
}
