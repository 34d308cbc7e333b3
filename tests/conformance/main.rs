//! The suite that every target has to pass: one suite, one line a target, at the end of this file. What only the local
//! disk can do wrong stands in `local.rs`, and what the layers above make of faulty targets in `faults.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod local;
mod suite;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::proxy::Proxy;
use tempfile::TempDir;
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::target::Target;
use voxeltron_backup::target::cloud::{Cloud, Settings as CloudSettings};
use voxeltron_backup::target::gcs::{Gcs, Identity, Settings as GcsSettings};
use voxeltron_backup::target::http::Patience;
use voxeltron_backup::target::local::Local;
use voxeltron_backup::target::memory::Memory;
use voxeltron_backup::target::patient::{Patient, STALL};
use voxeltron_backup::target::s3::{S3, Settings};
use voxeltron_backup::world::World;

/// A target to test, with what the suite can't see through the trait.
pub trait Place: Sync {
    fn target(&self) -> &dyn Target;

    /// The same place for writers that meet, where its server alone would not keep them apart.
    fn racing(&self) -> &dyn Target {
        self.target()
    }

    /// The same place behind a proxy that can break the line to it; none where there is no line.
    fn by_a_line(&self) -> Option<(Box<dyn Target>, Proxy)> {
        None
    }

    /// Cuts an object to so many bytes where it lies, as somebody else could; false where nobody can.
    fn cut(&self, _key: &ObjectKey, _bytes: u64) -> bool {
        false
    }

    /// Puts things beside our objects that are none of ours, as far as the place can hold such.
    fn add_foreign(&self) {}

    /// What lies there of uploads that did not finish.
    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Leaves an unfinished upload of an hour ago and one of now; how many of them should be swept.
    fn add_unfinished(&self) -> usize {
        0
    }

    /// What must never stand in a name or an error.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// How much it sends at once, in bytes.
    fn part(&self) -> usize {
        1 << 20
    }

    /// Another target at the same place, below that prefix.
    fn below(&self, prefix: &str) -> Option<Box<dyn Target>>;
}

/// A folder on the local disk.
#[derive(Debug)]
pub struct LocalPlace {
    folder: TempDir,
    target: Patient<Local>,
}

impl Default for LocalPlace {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = Patient::new(Local::new("local", folder.path()), STALL, World::system());
        Self { folder, target }
    }
}

impl LocalPlace {
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The same folder, as a target of its own.
    pub fn local(&self) -> Local {
        Local::new("local", self.root())
    }

    /// Every file below the root.
    pub fn files(&self) -> Vec<PathBuf> {
        files(self.root())
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder to read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

impl Place for LocalPlace {
    fn target(&self) -> &dyn Target {
        &self.target
    }

    fn below(&self, prefix: &str) -> Option<Box<dyn Target>> {
        Some(Box::new(Local::new("local", &self.root().join(prefix))))
    }

    fn cut(&self, key: &ObjectKey, bytes: u64) -> bool {
        std::fs::File::options().write(true).open(self.root().join(key.as_str())).unwrap().set_len(bytes).unwrap();
        true
    }

    fn add_foreign(&self) {
        use std::os::unix::ffi::OsStrExt;
        let folder = self.root().join("host/shop");
        std::fs::create_dir_all(folder.join("lost and found")).unwrap();
        std::fs::write(folder.join("a note.txt"), "x").unwrap();
        std::fs::write(folder.join("lost and found/x"), "x").unwrap();
        std::fs::write(folder.join(".voxeltron-partial-AbCdEf"), "x").unwrap();
        std::fs::write(folder.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff")), "x").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("/", folder.join("folder-link")).unwrap();
    }

    fn leftovers(&self) -> Vec<String> {
        let names = self.files().into_iter().map(|path| path.display().to_string());
        names.filter(|name| name.contains(".voxeltron-partial-")).collect()
    }

    fn add_unfinished(&self) -> usize {
        let folder = self.root().join("host/shop");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(".voxeltron-partial-newnew"), "x").unwrap();
        let old = std::fs::File::create(folder.join(".voxeltron-partial-oldold")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        // As old, but not below the prefix that is swept.
        std::fs::create_dir_all(self.root().join("other/shop")).unwrap();
        let other = std::fs::File::create(self.root().join("other/shop/.voxeltron-partial-oldold")).unwrap();
        other.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        1
    }
}

/// A target in memory.
#[derive(Debug, Default)]
pub struct MemoryPlace(Memory);

impl Place for MemoryPlace {
    fn target(&self) -> &dyn Target {
        &self.0
    }

    fn below(&self, _: &str) -> Option<Box<dyn Target>> {
        None
    }
}

/// So short that a line which stands still is given up within a test.
fn short(patience: Patience) -> Patience {
    Patience { answer: Duration::from_millis(3_000), ..patience }
}

/// A bucket on a real S3 server, below a prefix.
#[derive(Debug)]
pub struct S3Place {
    bucket: common::s3::Bucket,
    target: S3,
    /// Behind a proxy, where the server alone does not keep writers apart.
    racing: Option<(S3, Proxy)>,
}

impl S3Place {
    pub fn new(bucket: common::s3::Bucket, prefix: &str) -> Self {
        Self { target: bucket.target(prefix), bucket, racing: None }
    }

    /// versitygw 1.7 and rclone look for the object and create it in two steps, which AWS and SeaweedFS do in one; the
    /// proxy lets one conditional request through at a time.
    pub fn in_two_steps(bucket: common::s3::Bucket, prefix: &str) -> Self {
        let proxy = Proxy::new(common::s3::address_of(&bucket.endpoint), true);
        let settings = Settings { endpoint: proxy.endpoint(), ..bucket.settings(prefix) };
        let racing = settings.open(&common::s3::keys(), &World::system()).unwrap();
        Self { racing: Some((racing, proxy)), ..Self::new(bucket, prefix) }
    }
}

impl Place for S3Place {
    fn target(&self) -> &dyn Target {
        &self.target
    }

    fn by_a_line(&self) -> Option<(Box<dyn Target>, Proxy)> {
        let proxy = Proxy::new(common::s3::address_of(&self.bucket.endpoint), false);
        let settings = self.bucket.settings("line/");
        let settings = Settings { endpoint: proxy.endpoint(), patience: short(settings.patience), ..settings };
        Some((Box::new(settings.open(&common::s3::keys(), &proxy.world()).unwrap()), proxy))
    }

    fn racing(&self) -> &dyn Target {
        self.racing.as_ref().map_or(&self.target, |(target, _)| target)
    }

    fn add_foreign(&self) {
        for key in ["notes.txt", "backup-of/host/shop/x", "backup/s3-not/x", "host/shop/x"] {
            self.bucket.put(key, b"x");
        }
        for key in ["a note.txt", "lost and found/x", "ä", "x&y", "x<y>", "a=b", "\"q\""] {
            self.bucket.put(&format!("backup/s3/host/shop/{key}"), b"x");
        }
    }

    fn leftovers(&self) -> Vec<String> {
        self.bucket.unfinished()
    }

    fn add_unfinished(&self) -> usize {
        // The other servers' can't be made older.
        if self.bucket.endpoint != common::s3::endpoint() {
            return 0;
        }
        self.bucket.begin("backup/s3/host/shop/new");
        let old = self.bucket.begin("backup/s3/host/shop/old");
        self.bucket.age(&old);
        // As old, but not below the prefix that is swept.
        let other = self.bucket.begin("backup/s3/other/shop/old");
        self.bucket.age(&other);
        1
    }

    fn secrets(&self) -> Vec<String> {
        vec![common::s3::access_key(), common::s3::secret_key()]
    }

    fn part(&self) -> usize {
        5 << 20
    }

    fn below(&self, prefix: &str) -> Option<Box<dyn Target>> {
        Some(Box::new(self.bucket.target(prefix)))
    }
}

/// A bucket on our strict server, which checks what the emulators don't: tokens, conditions, pages of a listing.
#[derive(Debug)]
pub struct GcsPlace {
    stub: common::gcs::stub::Stub,
    target: Gcs,
}

impl GcsPlace {
    pub fn new(prefix: &str) -> Self {
        let stub = common::gcs::stub();
        stub.turn(common::gcs::stub::Knobs { page: 700, ..Default::default() });
        let target = common::gcs::target(&stub, prefix);
        Self { stub, target }
    }
}

impl Place for GcsPlace {
    fn target(&self) -> &dyn Target {
        &self.target
    }

    fn by_a_line(&self) -> Option<(Box<dyn Target>, Proxy)> {
        let proxy = Proxy::new(self.stub.address(), false);
        let settings = common::gcs::settings(&proxy.endpoint(), "bucket", "line/");
        let settings = GcsSettings { patience: short(settings.patience), ..settings };
        Some((Box::new(settings.open(common::gcs::account(&self.stub), &proxy.world()).unwrap()), proxy))
    }

    fn add_foreign(&self) {
        FOREIGN.iter().for_each(|key| self.stub.put(key, b"x"));
    }

    fn leftovers(&self) -> Vec<String> {
        self.stub.unfinished()
    }

    fn secrets(&self) -> Vec<String> {
        common::gcs::secrets(&self.stub)
    }

    fn below(&self, prefix: &str) -> Option<Box<dyn Target>> {
        Some(Box::new(common::gcs::target(&self.stub, prefix)))
    }
}

/// Keys that are none of ours, for a target below `backup/gcs/`; the cloud is tested below the same prefix.
const FOREIGN: [&str; 11] = [
    "notes.txt",
    "backup-of/host/shop/x",
    "backup/gcs-not/x",
    "host/shop/x",
    "backup/gcs/host/shop/a note.txt",
    "backup/gcs/host/shop/lost and found/x",
    "backup/gcs/host/shop/ä",
    "backup/gcs/host/shop/x&y",
    "backup/gcs/host/shop/x<y>",
    "backup/gcs/host/shop/a=b",
    "backup/gcs/host/shop/\"q\"",
];

/// A bucket on fake-gcs-server, which asks for no token.
#[derive(Debug)]
pub struct FakeGcsPlace {
    bucket: common::gcs::Bucket,
    target: Gcs,
}

impl FakeGcsPlace {
    pub fn new(prefix: &str) -> Self {
        let bucket = common::gcs::Bucket::fake();
        let target = bucket.target(prefix);
        Self { bucket, target }
    }
}

impl Place for FakeGcsPlace {
    fn target(&self) -> &dyn Target {
        &self.target
    }

    fn by_a_line(&self) -> Option<(Box<dyn Target>, Proxy)> {
        let proxy = Proxy::new(self.bucket.address(), false);
        let settings = common::gcs::settings(&proxy.endpoint(), &self.bucket.name, "line/");
        let settings = GcsSettings { patience: short(settings.patience), ..settings };
        Some((Box::new(settings.open(Identity::Anonymous, &proxy.world()).unwrap()), proxy))
    }

    fn add_foreign(&self) {
        FOREIGN.iter().for_each(|key| self.bucket.put(key, b"x"));
    }

    fn below(&self, prefix: &str) -> Option<Box<dyn Target>> {
        Some(Box::new(self.bucket.target(prefix)))
    }
}

/// What an account holds below a prefix, on the reference server.
#[derive(Debug)]
pub struct CloudPlace {
    account: common::cloud::Account,
    target: Cloud,
}

impl CloudPlace {
    pub fn new(prefix: &str) -> Self {
        let account = common::cloud::Account::new(&serde_json::json!({"page": 700}));
        let target = account.target(prefix);
        Self { account, target }
    }
}

impl Place for CloudPlace {
    fn target(&self) -> &dyn Target {
        &self.target
    }

    fn by_a_line(&self) -> Option<(Box<dyn Target>, Proxy)> {
        let proxy = Proxy::new(common::cloud::address(), false);
        let settings = common::cloud::settings("line/");
        let settings = CloudSettings { patience: short(settings.patience), ..settings };
        Some((Box::new(self.account.open(&proxy.endpoint(), &settings, &proxy.world())), proxy))
    }

    fn add_foreign(&self) {
        FOREIGN.iter().for_each(|key| self.account.put(key, b"x"));
    }

    fn leftovers(&self) -> Vec<String> {
        self.account.unfinished()
    }

    fn secrets(&self) -> Vec<String> {
        self.account.secrets()
    }

    fn below(&self, prefix: &str) -> Option<Box<dyn Target>> {
        Some(Box::new(self.account.target(prefix)))
    }
}

suite::holds_for!(local_disk, LocalPlace::default());
suite::holds_for!(memory, MemoryPlace::default());
suite::holds_for!(s3, S3Place::in_two_steps(common::s3::Bucket::new(), "backup/s3/"));
suite::holds_for!(second_s3, S3Place::in_two_steps(common::s3::Bucket::second(), "backup/s3/"));
suite::holds_for!(seaweed, S3Place::new(common::s3::Bucket::seaweed(), "backup/s3/"));
suite::holds_for!(gcs, GcsPlace::new("backup/gcs/"));
suite::holds_for!(fake_gcs, FakeGcsPlace::new("backup/gcs/"));
suite::holds_for!(cloud, CloudPlace::new("backup/gcs/"));
