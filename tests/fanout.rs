//! One of three targets that ends in the middle of a run: the two others have the whole backup, and at the third nothing
//! shows. The whole program against a disk, a real S3 server and the strict Google stub, each by a proxy that can be killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::gcs::stub::Stub;
use common::proxy::Proxy;
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
