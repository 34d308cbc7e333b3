//! `restore --undo` through the program itself, for every engine against a real server: a restore in place of changed data,
//! then the exact database that stood before, by the server's own means; and back again; in time, dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod mongodb;
mod mysql;
mod postgres;
mod redis;
#[path = "../common/session.rs"]
mod session;
mod sqlite;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use common::Sandbox;
use serde_json::Value;
use voxeltron_backup::world::{Clock, SystemClock, World};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A database of a server.
trait Bench {
    /// The lines of its table in the configuration.
    fn table(&self) -> String;
    /// Makes it another one, every time.
    fn change(&self);
    /// All that it is, by the server's own means.
    fn all(&self) -> String;
    /// Whether all of it changes at one stroke.
    fn exchanges_at_once(&self) -> bool {
        true
    }
    /// Whether there can be a scratch for a drill.
    fn drills(&self) -> bool {
        true
    }
    /// What is kept of it at the server; none for engines of which a dump is kept.
    fn at_server(&self) -> Option<usize> {
        None
    }
}

struct Way<'a> {
    bench: &'a dyn Bench,
    sandbox: Sandbox,
}

impl<'a> Way<'a> {
    /// With one backup of what the bench holds.
    fn new(bench: &'a dyn Bench, more: &str) -> Self {
        let this = Self { bench, sandbox: Sandbox::new() };
        this.configure(more);
        this.quietly(&["run-job", "shop"]);
        this
    }

    fn configure(&self, more: &str) {
        let table = self.bench.table();
        self.sandbox.configure_local(
            Some(KEY),
            &format!(
                "[databases.shop]\n{table}\n{more}\n[[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@yearly\"\nencrypt = true\n"
            ),
        );
    }

    #[track_caller]
    fn quietly(&self, args: &[&str]) -> common::Outcome {
        self.sandbox.command(args).stdout_any().stderr_any().run()
    }

    #[track_caller]
    fn restore(&self) -> String {
        self.quietly(&["restore", "shop", "--latest", "--yes"]).stderr
    }

    #[track_caller]
    fn undo(&self) -> String {
        self.quietly(&["restore", "shop", "--undo", "--yes"]).stderr
    }

    /// What `list` shows as kept.
    #[track_caller]
    fn kept(&self) -> Vec<Value> {
        let listed: Value = serde_json::from_str(&self.quietly(&["list", "--json"]).stdout).unwrap();
        let kept = listed["previous"].as_array().unwrap().clone();
        let dumps = self.dumps();
        match self.bench.at_server() {
            Some(count) => assert_eq!((count, dumps), (kept.len(), 0)),
            None => assert_eq!(dumps, kept.len()),
        }
        kept
    }

    /// How many dumps are kept; each is one object and its manifest, 0600, and neither of them clear text.
    fn dumps(&self) -> usize {
        let folder = self.sandbox.data_dir().join("previous/host/shop");
        let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
        let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        for path in &paths {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        let ends = |end: &str| paths.iter().filter(|path| path.to_string_lossy().ends_with(end)).count();
        assert_eq!((ends(".manifest.json"), paths.len()), (ends(".gz.enc"), 2 * ends(".gz.enc")), "{paths:?}");
        ends(".gz.enc")
    }

    /// A tick of the timer, so long after now.
    fn tick(&self, later: Duration) {
        let world = World { clock: Arc::new(Later(later, SystemClock::default())), ..World::system() };
        let config = self.sandbox.config();
        let words = ["voxeltron-backup", "-q", "-c", config.to_str().unwrap(), "schedule-check"];
        let exit = voxeltron_backup::run(words.into_iter().map(Into::into), &world);
        assert_eq!(exit.code(), 0);
    }

    fn tick_file(&self) -> bool {
        self.sandbox.data_dir().join("tick.json").exists()
    }
}

#[derive(Debug)]
struct Later(Duration, SystemClock);

impl Clock for Later {
    fn now(&self) -> DateTime<Utc> {
        self.1.now() + self.0
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn sleep(&self, time: Duration) {
        self.1.sleep(time);
    }
}

/// There, back, and back again; and at every time one is kept, no more.
fn there_and_back(bench: &dyn Bench) {
    let first = bench.all();
    let way = Way::new(bench, "");
    assert!(way.kept().is_empty());
    let none = way.sandbox.command(&["restore", "shop", "--undo"]).exits(15).stderr_any().run().stderr;
    assert!(none.contains("nothing is kept of shop from before a restore") && none.contains("hint: "), "{none}");

    bench.change();
    let changed = bench.all();
    assert!(changed != first);
    let said = way.restore();
    assert!(said.contains("put it back with: voxeltron-backup restore shop --undo"), "{said}");
    same(&bench.all(), &first);
    let kept = way.kept();
    assert_eq!(kept.len(), 1);
    let (since, until) = (kept[0]["since"].as_str().unwrap(), kept[0]["until"].as_str().unwrap());
    let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap();
    assert_eq!((time(until) - time(since)).num_hours(), 24);
    assert!(said.contains(until), "{said}");

    // A dry run touches nothing.
    let plan = way.quietly(&["restore", "shop", "--undo", "--dry-run"]).stdout;
    assert!(plan.starts_with(&format!("1. take what was kept at {since}: ")) && plan.contains("\n2. "), "{plan}");
    same(&bench.all(), &first);
    assert_eq!(way.kept(), kept);

    let said = way.undo();
    assert!(said.contains(&format!("as it was before the restore at {since}")), "{said}");
    same(&bench.all(), &changed);
    assert_eq!(way.kept().len(), 1);
    // What was undone can be done again.
    way.undo();
    same(&bench.all(), &first);
    assert_eq!(way.kept().len(), 1);

    // The next restore keeps what stands now, and no more what stood before.
    bench.change();
    let third = bench.all();
    assert!(third != changed && third != first);
    let said = way.quietly(&["--json", "restore", "shop", "--latest", "--yes"]);
    let kept = way.kept();
    assert_eq!(kept.len(), 1);
    // Every step is told as it begins, and stands in the document.
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["previous"], kept[0]);
    let steps = document["steps_done"].as_array().unwrap();
    assert!(steps.iter().all(|step| said.stderr.contains(step["what"].as_str().unwrap())), "{said:?}");
    let names: Vec<&str> =
        steps.iter().map(|step| step["step"].as_str().unwrap()).filter(|step| *step != "tidy").collect();
    let keeps: &[&str] = if bench.at_server().is_none() { &["keep"] } else { &[] };
    // Without a scratch all is compared in the transaction that exchanges it.
    let checks: &[&str] = if bench.drills() { &["check"] } else { &[] };
    assert_eq!(names, [&["load"], checks, keeps, &["swap"]].concat(), "{said:?}");
    way.undo();
    same(&bench.all(), &third);
    let backups: Value = serde_json::from_str(&way.quietly(&["list", "--json"]).stdout).unwrap();
    assert_eq!(backups["backups"].as_array().unwrap().len(), 1, "what is kept is nobody's backup");
    // Nor a leftover.
    let checked = way.quietly(&["check"]);
    assert!(!checked.stderr.contains("interrupted"), "{}", checked.stderr);
    let code = if bench.drills() { 0 } else { 13 };
    way.sandbox.command(&["verify", "--restore"]).exits(code).stdout_any().stderr_any().run();
    same(&bench.all(), &third);
    assert_eq!(way.kept().len(), 1, "a drill keeps nothing and drops nothing");
}

/// A backup that `part` leaves a part out of never takes the place of the whole; and with `part` or `rows` in `dump_args`
/// nothing is kept of what a restore replaces, since it could not bring all of it back.
fn parts(bench: &dyn Bench, part: Option<&str>, rows: Option<&str>) {
    let with = |arg: &str| format!("dump_args = [\"{arg}\"]");
    let option = |arg: &str| arg.split('=').next().unwrap().to_owned();
    if let Some(part) = part {
        let way = Way::new(bench, &with(part));
        let before = bench.all();
        let refused =
            way.sandbox.command(&["restore", "shop", "--latest", "--yes"]).exits(10).stderr_any().run().stderr;
        assert!(refused.contains(&format!("holds a part of shop ({}): in its place", option(part))), "{refused}");
        assert!(refused.contains("hint: restore it beside with --into NAME"), "{refused}");
        same(&bench.all(), &before);
    }
    let way = Way::new(bench, "");
    let whole = bench.all();
    for arg in part.into_iter().chain(rows) {
        bench.change();
        way.configure(&with(arg));
        let said = way.restore();
        assert!(
            said.contains(&format!("shop is not kept as it is: a dump of it leaves a part out ({} in", option(arg))),
            "{said}"
        );
        assert!(!said.contains("--undo"), "{said}");
        assert_eq!(way.dumps(), 0);
        same(&bench.all(), &whole);
    }
}

/// At its time, and not before; ticks in between are idle.
fn dropped_in_time(bench: &dyn Bench) {
    let way = Way::new(bench, "");
    bench.change();
    way.restore();
    assert_eq!(way.kept().len(), 1);
    let hours = |hours: u64| Duration::from_secs(hours * 3_600 - 900);
    way.tick(Duration::ZERO);
    assert!(way.tick_file(), "the next tick is idle");
    way.tick(hours(24));
    assert_eq!(way.kept().len(), 1, "not before its time");
    way.tick(hours(25));
    assert_eq!(way.kept().len(), 0);
    assert!(!way.sandbox.data_dir().join("previous.json").exists() || way.tick_file());
    way.sandbox.command(&["restore", "shop", "--undo"]).exits(15).stderr_any().run();

    // None is kept where none is wanted, and what is kept goes.
    way.restore();
    assert_eq!(way.kept().len(), 1);
    way.configure("keep_previous = \"0\"");
    let said = way.restore();
    assert!(!said.contains("--undo"), "{said}");
    assert_eq!(way.kept().len(), 0);
    let none = way.sandbox.command(&["restore", "shop", "--undo"]).exits(15).stderr_any().run().stderr;
    assert!(none.contains("keep_previous of [databases.shop] is \"0\""), "{none}");
}

/// Killed at so many instants of a restore and, by turns, of an undo: the old or the new stands, whole; the next one tidies up.
fn killed(bench: &dyn Bench, instants: u32) {
    let first = bench.all();
    let way = Way::new(bench, "");
    bench.change();
    let began = Instant::now();
    way.restore();
    let whole = began.elapsed();
    let (mut old, mut new) = (0, 0);
    for step in 1..=instants {
        bench.change();
        let changed = bench.all();
        let undoes = step % 2 == 0;
        if undoes {
            way.restore();
        }
        let before = if undoes { &first } else { &changed };
        let command = way
            .sandbox
            .command(&["restore", "shop", if undoes { "--undo" } else { "--latest" }, "--yes"])
            .into_command();
        let mut child = session::leader(&command, false)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first at once, the last not at all.
        if step < instants {
            std::thread::sleep(whole * (step - 1) * 5 / (instants * 4));
            child.kill().unwrap();
        }
        child.wait().unwrap();
        // What it had started ends by itself, and the server has done what that had told it.
        session::wait_for_the_rest(child.id());
        std::thread::sleep(Duration::from_millis(700));
        let now = bench.all();
        let is_whole = now == first || now == changed;
        assert!(is_whole || !bench.exchanges_at_once(), "a mixture after step {step}");
        *(if now == *before { &mut old } else { &mut new }) += 1;
        way.restore();
        same(&bench.all(), &first);
        assert!(!way.kept().is_empty(), "after step {step}");
        if is_whole {
            way.undo();
            same(&bench.all(), &now);
        }
    }
    assert!(old > 0 && new > 0, "{old} times the old one, {new} times the new one");
}

/// Compares without filling the screen.
#[track_caller]
fn same(left: &str, right: &str) {
    let mut pairs = left.lines().zip(right.lines());
    if left != right {
        let first = pairs.find(|(left, right)| left != right);
        panic!("{} and {} lines, which differ first in {first:#?}", left.lines().count(), right.lines().count());
    }
}

fn lines(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key} = {}\n", Value::from(*value))).collect()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
