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

/// Starts the real tool in the background, hands on the first bytes of what it writes, and takes no more: it waits then.
const HELD: &str = "mkfifo $0.fifo; $real \"$@\" >$0.fifo & exec 3<$0.fifo; head -c 100000 <&3;";

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
        let (sandbox, database) = (Sandbox::new(), Database::new());
        database.sql(
            "create table t (x text); insert into t select repeat(md5(i::text), 30) from generate_series(1, 20000) i",
        );
        let real = std::env::var("VOXELTRON_TEST_POSTGRES_BIN").unwrap();
        let dying = Self { sandbox, database };
        dying.configure("10m", &real);
        dying.sandbox.command(&["-q", "run-job", "shop"]).run();
        let tools = dying.sandbox.fake_tool(
            "pg_dump",
            &format!("real={real}/pg_dump\ncase \"$*\" in *--version*) exec $real --version;; esac\n{script}"),
        );
        for name in ["psql", "pg_restore"] {
            std::os::unix::fs::symlink(Path::new(&real).join(name), tools.join(name)).unwrap();
        }
        dying.configure("10m", &tools.display().to_string());
        dying
    }

    /// A script that says its last words and then never ends, where a job may take no longer than a few seconds. On a slow
    /// machine they may be over before the script has begun, which proves nothing: then it gets more.
    fn hangs(script: &str) {
        let dying = Self::new(script);
        let began = ["3s", "12s", "1m"].into_iter().any(|timeout| {
            dying.configure(timeout, &dying.sandbox.path("tools").display().to_string());
            let said = dying.fails();
            assert!(said.contains("did not finish within its time"), "{said}");
            said.contains("  | the last words")
        });
        assert!(began, "it never says a word");
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
    // In the middle: what it writes is not taken.
    let said = Dying::new(&format!("{HELD} kill -9 $!; wait $!")).fails();
    assert!(said.contains("pg_dump failed with exit status 137"), "{said}");
}

#[test]
fn hangs_past_its_timeout() {
    Dying::hangs("echo 'the last words' >&2; $real \"$@\" | head -c 100000; sleep 600");
}

#[test]
fn ignores_sigterm_past_its_timeout() {
    Dying::hangs("trap '' TERM; echo 'the last words' >&2; while :; do sleep 1; done");
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
    // It is held in its middle until its session has been ended.
    let dying = Dying::new(&format!(
        "export PGAPPNAME=victim; {HELD} while [ ! -e $0.go ]; do sleep 0.05; done; cat <&3; wait $!"
    ));
    // Enough that the dump is under way for a while.
    dying.database.sql("insert into t select x from t; insert into t select x from t; insert into t select x from t");
    let server = dying.database.server_url().to_owned();
    let name = dying.database.name.clone();
    let go = dying.sandbox.path("tools").join("pg_dump.go");
    let done = Done(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let all = &done;
        scope.spawn(move || {
            let sql = format!(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = '{name}' and application_name = 'victim' and query ilike 'copy%'"
            );
            while !all.0.load(Ordering::Relaxed) {
                if psql(&server, &sql).trim() != "0" {
                    fs::write(&go, "").unwrap();
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
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
