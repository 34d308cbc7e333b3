//! One of several targets that ends in the middle of a run, or can't even be opened: the others have the whole backup, and at
//! that one nothing shows; and a signal while one stands still. The whole program against a disk, a real S3 server, the strict
//! Google stub, each by a proxy that can be killed, and the cloud's reference server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::gcs::stub::Stub;
use common::proxy::{Fault, Plan, Proxy};
use common::s3::Bucket;
use common::{Sandbox, sqlite3};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// After how many bytes a server dies; the backup has twice as many, and nothing of it compresses.
const HALF: usize = 12_000_000;

/// A job on SQLite that sends to three targets.
struct Three {
    sandbox: Sandbox,
    bucket: Bucket,
    stub: Stub,
    s3: Proxy,
    gcs: Proxy,
}

impl Three {
    fn new() -> Self {
        let (sandbox, bucket, stub) = (Sandbox::new(), Bucket::new(), common::gcs::stub());
        let (s3, gcs) = (Proxy::new(common::s3::address(), false), Proxy::new(stub.address(), false));
        // In this mode it is read as it stands, without a temporary file.
        let rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 24) \
                    insert into t select randomblob(1000000) from n";
        sqlite3(&sandbox.path("shop.db"), &format!("pragma journal_mode = wal; create table t (x); {rows}"));
        let account = common::gcs::credentials(&common::gcs::service_key().0, &stub.token_uri());
        let file = sandbox.write("account.json", account);
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
        sandbox.configure_local(
            Some(KEY),
            &format!(
                "[backup.targets.s3]\nendpoint = \"{}\"\nbucket = \"{}\"\npart_size = 5\naccess_key = \"{}\"\n\
                 secret_key = \"{}\"\n\
                 [backup.targets.gcs]\nendpoint = \"{}\"\nbucket = \"bucket\"\npart_size = 4\n\
                 credentials_file = \"{{dir}}/account.json\"\n\
                 [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
                 [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
                 timeout = \"1h\"\ntarget = [\"local\", \"s3\", \"gcs\"]\nkeep_last = 5\n",
                s3.endpoint(),
                bucket.name,
                common::s3::access_key(),
                common::s3::secret_key(),
                gcs.endpoint(),
            ),
        );
        Self { sandbox, bucket, stub, s3, gcs }
    }

    /// Every object and manifest at the three; at the disk everything that is there.
    fn holds(&self) -> [usize; 3] {
        [files(&self.sandbox.store()), self.bucket.keys().len(), self.stub.keys().len()]
    }

    /// Runs the job, which ends partial and names the victim.
    fn runs_partial(&self, victim: &str) {
        let run = self.sandbox.command(&["run-job", "j"]).exits(3).stdout_any();
        let outcome = run.stderr_has(&format!("target {victim}: ")).run();
        self.is_told_of_one(&outcome.stderr, victim);
    }

    fn is_told_of_one(&self, stderr: &str, victim: &str) {
        for other in ["local", "s3", "gcs"].into_iter().filter(|name| *name != victim) {
            assert!(!stderr.contains(&format!("target {other}: ")), "{stderr}");
        }
    }

    /// The others have a backup that can be restored, and the victim none. Then everybody is well again, and all get one.
    fn others_are_whole(&self, victim: &str) {
        for other in ["local", "s3", "gcs"].into_iter().filter(|name| *name != victim) {
            let verify = self.sandbox.command(&["verify", "shop", "--target", other, "--restore"]);
            verify.stdout_any().stderr_any().run();
        }
        let listed = self
            .sandbox
            .command(&["--json", "list", "shop", "--target", victim])
            .stdout_any()
            .stderr_has("no backups")
            .run();
        assert_eq!(listed.stdout.matches("\"id\"").count(), 0, "{}", listed.stdout);
        std::thread::sleep(Duration::from_millis(1_100));
        let again = self.sandbox.command(&["run-job", "j"]).stderr_has(" at local: ");
        again.stderr_has(" at s3: ").stderr_has(" at gcs: ").run();
        let expected = ["local", "s3", "gcs"].map(|name| if name == victim { 2 } else { 4 });
        assert_eq!(self.holds(), expected);
    }
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[test]
fn an_s3_store_that_is_killed_in_the_middle_leaves_two_whole_backups_and_no_trace() {
    let three = Three::new();
    three.s3.die_after(HALF);
    three.runs_partial("s3");
    assert!(three.s3.is_dead());
    assert_eq!(three.holds(), [2, 0, 2]);
    // Nobody could abort it there. What is left of it is no object, and goes with the first cleanup that finds it old.
    three.s3.set(None);
    assert_eq!(three.bucket.unfinished().len(), 1);
    three.bucket.age_unfinished(Duration::from_secs(3 * 86_400));
    three.sandbox.command(&["prune", "j", "--target", "s3"]).stderr_has("no backups at s3").run();
    assert_eq!(three.bucket.unfinished(), [""; 0]);
    three.others_are_whole("s3");
}

#[test]
fn an_s3_store_that_takes_no_more_in_the_middle_is_left_without_a_trace() {
    let three = Three::new();
    three.s3.refuse(|head| head.contains("partNumber=3&").then_some("403 AccessDenied:"));
    three.runs_partial("s3");
    assert_eq!((three.holds(), three.bucket.unfinished()), ([2, 0, 2], vec![]));
    three.s3.refuse(|_| None);
    three.others_are_whole("s3");
}

#[test]
fn a_google_store_that_is_killed_in_the_middle_leaves_two_whole_backups_and_no_trace() {
    let three = Three::new();
    three.gcs.die_after(HALF);
    three.runs_partial("gcs");
    assert!(three.gcs.is_dead());
    assert_eq!(three.holds(), [2, 2, 0]);
    // An upload that is not finished is no object; the store forgets it.
    assert_eq!(three.stub.unfinished().len(), 1);
    three.gcs.set(None);
    three.others_are_whole("gcs");
}

#[test]
fn a_google_store_that_takes_no_more_in_the_middle_is_left_without_a_trace() {
    let three = Three::new();
    three
        .gcs
        .refuse(|head| head.to_ascii_lowercase().contains("content-range: bytes 8388608-").then_some("403 Forbidden"));
    three.runs_partial("gcs");
    assert_eq!((three.holds(), three.stub.unfinished()), ([2, 2, 0], vec![]));
    three.gcs.refuse(|_| None);
    three.others_are_whole("gcs");
}

#[test]
fn a_disk_that_takes_no_more_in_the_middle_leaves_two_whole_backups_and_no_trace() {
    let three = Three::new();
    let inner = three.sandbox.command(&["run-job", "j"]).into_command();
    // No file may grow beyond 12 MB (24,000 blocks of 512 bytes).
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 24000; exec \"$0\" \"$@\""]).arg(inner.get_program());
    command.args(inner.get_args()).current_dir(inner.get_current_dir().unwrap()).env_clear();
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let outcome = common::run(&mut command, b"");
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stderr.contains("target local: can't write"), "{}", outcome.stderr);
    three.is_told_of_one(&outcome.stderr, "local");
    assert_eq!(three.holds(), [0, 2, 2]);
    three.others_are_whole("local");
}

/// A job that sends to a disk and to these targets, all of which are at `table`s of the configuration.
fn sandbox(tables: &str, targets: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1)");
    sandbox.configure_local(
        Some(KEY),
        &format!(
            "{tables}[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
             target = [{targets}]\n"
        ),
    );
    sandbox
}

#[test]
fn a_target_that_can_not_be_opened_fails_alone() {
    let tables = "[backup.targets.s3]\nendpoint = \"http://127.0.0.1:1\"\nbucket = \"b\"\naccess_key = \"a\"\n\
                  secret_key = { command = [\"false\"] }\n\
                  [backup.targets.gcs]\nbucket = \"bucket\"\ncredentials_file = \"/nowhere/account.json\"\n";
    let one = sandbox(tables, "\"local\", \"s3\", \"gcs\", \"cloud\"");
    let run = one.command(&["run-job", "j"]).exits(3).stdout_any();
    let outcome = run.stderr_has("secret_key of [backup.targets.s3]").stderr_has("/nowhere/account.json").run();
    assert!(outcome.stderr.contains("not linked"), "{}", outcome.stderr);
    assert_eq!(files(&one.store()), 2, "the disk has its backup");
    let verify = one.command(&["verify", "shop", "--target", "local"]);
    verify.stdout_any().stderr_any().run();
    // Where there is none that can be opened, the database is not dumped at all.
    let none = sandbox(tables, "\"s3\", \"gcs\"");
    std::fs::remove_file(none.path("shop.db")).unwrap();
    let run = none.command(&["--json", "run-job", "j"]).exits(10).stderr_any().stdout_any().run();
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let targets = report["jobs"][0]["targets"].as_array().unwrap();
    assert_eq!(targets.iter().filter(|target| target["error"]["kind"] == "config").count(), 2, "{report}");
}

#[test]
fn when_every_target_fails_alike_the_code_is_theirs() {
    let bucket = Bucket::new();
    let proxy = Proxy::new(common::s3::address(), false);
    let table = |name: &str| {
        format!(
            "[backup.targets.{name}]\ntype = \"s3\"\nendpoint = \"{}\"\nbucket = \"{}\"\nprefix = \"{name}\"\n\
             access_key = \"{}\"\nsecret_key = \"{}\"\n",
            proxy.endpoint(),
            bucket.name,
            common::s3::access_key(),
            common::s3::secret_key()
        )
    };
    let sandbox = sandbox(&format!("{}{}", table("one"), table("two")), "\"one\", \"two\"");
    proxy.refuse(|head| head.starts_with("PUT").then_some("403 AccessDenied:"));
    let run = sandbox.command(&["run-job", "j"]).exits(14).stdout_any();
    run.stderr_has("target one: can't store").stderr_has("target two: can't store").run();
    assert!(bucket.keys().is_empty());
    // One alone is a part.
    proxy.refuse(|head| (head.starts_with("PUT") && head.contains("/two/")).then_some("403 AccessDenied:"));
    sandbox.command(&["run-job", "j"]).exits(3).stdout_any().stderr_has("target two: can't store").run();
    assert_eq!(bucket.keys().len(), 2);
}

#[test]
fn the_cloud_is_one_of_several() {
    let account = common::cloud::account();
    let proxy = Proxy::new(common::cloud::address(), false);
    let sandbox = sandbox("", "\"local\", \"cloud\"");
    account.link_sandbox(&sandbox, &proxy.endpoint());
    sandbox.command(&["run-job", "j"]).stderr_has(" at local: ").stderr_has(" at cloud: ").run();
    assert_eq!((files(&sandbox.store()), account.keys().len()), (2, 2));
    std::thread::sleep(Duration::from_millis(1_100));
    proxy.refuse(|head| head.starts_with("PATCH").then_some("403 Forbidden"));
    sandbox.command(&["run-job", "j"]).exits(3).stderr_has("target cloud: ").run();
    assert_eq!((files(&sandbox.store()), account.keys().len(), account.unfinished().len()), (4, 2, 0));
}

/// Starts the job, lets a store stand still at that request, and stops it: it must end at once, by its own code.
fn stopped_at(three: &Three, plan: Plan) {
    // In the second of the last one's backup, a run looks for a free one: requests more, before the upload.
    std::thread::sleep(Duration::from_millis(1_100));
    three.s3.set(Some(plan));
    let mut command = three.sandbox.command(&["run-job", "j"]).into_command();
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while three.s3.lines().len() <= plan.at {
        assert!(started.elapsed() < Duration::from_secs(120), "{:?}", three.s3.lines());
        std::thread::sleep(Duration::from_millis(10));
    }
    // The others come as far as they can.
    std::thread::sleep(Duration::from_millis(700));
    let started = Instant::now();
    common::tool(Command::new("kill").args(["-TERM", &child.id().to_string()]), b"");
    let status = child.wait().unwrap();
    let took = started.elapsed();
    assert_eq!(status.code(), Some(143), "{plan:?}");
    // On a busy machine; it would wait for a minute, and more.
    assert!(took < Duration::from_secs(20), "{plan:?}: it took {took:?}");
    // Those that had finished before have a whole backup, the others nothing.
    let [local, s3, gcs] = three.holds();
    let whole = s3 == 0 && local % 2 == 0 && gcs % 2 == 0 && three.stub.unfinished().is_empty();
    assert!(whole, "{plan:?}: {:?}, {:?}", three.stub.keys(), three.stub.unfinished());
}

#[test]
fn a_signal_ends_a_run_at_once_whatever_stands_still() {
    let three = Three::new();
    // The upload's second part: it is not taken, or not answered; and then the store is well again.
    for fault in [Fault::Stall, Fault::StallRequest, Fault::StallAnswer] {
        stopped_at(&three, Plan { at: 4, count: 1, fault });
        assert_eq!(three.bucket.unfinished(), [""; 0], "{fault:?}: it is aborted");
    }
    // The store says nothing more at all: what it has of the upload is swept later.
    stopped_at(&three, Plan { at: 3, count: usize::MAX, fault: Fault::Stall });
    assert_eq!(three.bucket.unfinished().len(), 1);
    three.s3.set(None);
    three.bucket.age_unfinished(Duration::from_secs(3 * 86_400));
    three.sandbox.command(&["prune", "j", "--target", "s3"]).stderr_has("no backups at s3").run();
    assert_eq!(three.bucket.unfinished(), [""; 0]);
}
