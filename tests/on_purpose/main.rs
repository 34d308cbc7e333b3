//! Restores that fail on purpose. First of all disks that take no more in the middle: the server's, while the scratch is loaded, while its log is written,
//! while it saves; ours, while a backup or what is to be kept for an undo is written. Every time through the program: what
//! stood stands, by the server's own means; the message says why; the exit code is right; nothing that fills the disk is
//! left; and with room again the same command succeeds. Servers of the tests' own, on small disks (see [`disk`]). Then backups
//! that can't be what is asked for ([`refusals`]).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod mongodb;
mod mysql;
mod postgres;
mod previous;
mod redis;
mod refusals;
mod sqlite;

use common::{Outcome, Sandbox};
use disk::Disks;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// What the mend of a full disk begins with.
const MEND: &str = "hint: free space there: a restore needs room for a second copy";

/// A database whose server, or file, is on a small disk.
trait Bench {
    /// The lines of its table in the configuration.
    fn table(&self) -> String;
    /// All that it is, by the server's own means, and the names of all that stands beside it.
    fn all(&self) -> String;
}

/// A bench, and a sandbox with a job for it.
struct Way<'a> {
    bench: &'a dyn Bench,
    sandbox: Sandbox,
    /// Where `data_dir` is on a small disk of this name.
    ours: Option<(&'a Disks, &'a str)>,
}

impl<'a> Way<'a> {
    /// With one backup of what the bench holds.
    #[track_caller]
    fn new(bench: &'a dyn Bench) -> Self {
        Self::on(bench, None)
    }

    /// The same with a `data_dir` on a small disk.
    #[track_caller]
    fn on(bench: &'a dyn Bench, ours: Option<(&'a Disks, &'a str)>) -> Self {
        let this = Self { bench, sandbox: Sandbox::new(), ours };
        this.configure("");
        this.does(&["run-job", "shop"]);
        this
    }

    /// Writes the configuration, with `more` in the database's table.
    fn configure(&self, more: &str) {
        self.configure_as(&self.bench.table(), more);
    }

    /// The same with another table.
    fn configure_as(&self, table: &str, more: &str) {
        self.sandbox.configure_local(
            Some(KEY),
            &format!(
                "[databases.shop]\n{table}\n{more}\n[[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@yearly\"\nencrypt = true\n"
            ),
        );
    }

    /// Runs the program, where the disks are.
    #[track_caller]
    fn runs(&self, args: &[&str], code: i32) -> Outcome {
        let invoked = self.sandbox.command(args);
        let mut command = match self.ours {
            None => invoked.into_command(),
            Some((disks, name)) => {
                let invoked = invoked.env("VOXELTRON_BACKUP_DATA_DIR", disks.path(name));
                disks.inside_of(&invoked.into_command())
            }
        };
        let outcome = common::run(&mut command, b"");
        assert_eq!(outcome.code, Some(code), "{args:?}: {}", outcome.stderr);
        outcome
    }

    #[track_caller]
    fn does(&self, args: &[&str]) -> Outcome {
        self.runs(args, 0)
    }

    #[track_caller]
    fn restores(&self) -> String {
        self.does(&["restore", "shop", "--latest", "--yes"]).stderr
    }

    /// A restore that must end with this code and say all of this, and change nothing.
    #[track_caller]
    fn fails(&self, more: &[&str], code: i32, words: &[&str]) -> String {
        let before = self.bench.all();
        let said = self.tries(more, code);
        has(&said, words);
        same(&self.bench.all(), &before);
        said
    }

    /// A restore that must end with this code; gives what it says.
    #[track_caller]
    fn tries(&self, more: &[&str], code: i32) -> String {
        let said = self.runs(&[&["restore", "shop", "--latest", "--yes"], more].concat(), code).stderr;
        assert!(said.contains("error: can't restore shop: "), "{said}");
        said
    }
}

#[track_caller]
fn has(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "not {word:?}, but: {said}");
    }
}

/// Compares without filling the screen.
#[track_caller]
fn same(left: &str, right: &str) {
    if left != right {
        let (mut left, mut right) = (left.lines(), right.lines());
        let first = std::iter::from_fn(|| Some((left.next(), right.next()))).find(|(left, right)| left != right);
        panic!("they differ first in {:?}; {} and {} lines follow", first.unwrap(), left.count(), right.count());
    }
}

fn lines(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key} = {}\n", serde_json::Value::from(*value))).collect()
}
