//! A host with shared state that is killed at each of its requests, before the store hears of it or after it has done what
//! it was asked: another host finishes the slot, and it has one backup.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::common::proxy::{Fault, Plan, Proxy};
use super::common::s3::{Bucket, address, endpoint};
use super::common::{Invoked, Sandbox};
use super::{YEARLY, configure, manifests, on, record, rewrite};

/// Two hosts, of which one gets to the store through the proxy, and one slot that is due.
struct Due {
    sandbox: Sandbox,
    bucket: Bucket,
    proxy: Proxy,
}

impl Due {
    fn new() -> Self {
        let due = Self { sandbox: Sandbox::new(), bucket: Bucket::new(), proxy: Proxy::new(address(), false) };
        let more = format!("{YEARLY}\nretry_after = \"1s\"");
        configure(&due.sandbox, &due.bucket, &endpoint(), 1, &more);
        let text = fs::read_to_string(due.sandbox.config()).unwrap();
        let through = due.sandbox.write("through.toml", text.replace(&endpoint(), &due.proxy.endpoint()));
        fs::set_permissions(through, fs::Permissions::from_mode(0o600)).unwrap();
        due.a(&["schedule-check"]).run();
        rewrite(&due.bucket, "j0", |document| document["past"]["first_seen"] = "2020-01-01T00:00:00Z".into());
        fs::remove_dir_all(due.sandbox.path("A")).unwrap();
        due
    }

    fn a(&self, args: &[&str]) -> Invoked {
        on(&self.sandbox, "A", args).env("VOXELTRON_CONFIG", self.sandbox.path("through.toml"))
    }

    fn tick(&self) -> Child {
        let mut command = self.a(&["schedule-check"]).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The end of a slot that somebody has begun and left at request `at`.
    fn finished_by_another(&self, case: &str) {
        let left = self.bucket.keys();
        let since = Instant::now();
        loop {
            on(&self.sandbox, "B", &["schedule-check"]).stderr_any().run();
            let document = record(&self.bucket, "j0");
            if document["lease"].is_null() && document["past"]["settled"].is_string() {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(180), "{case}: it is never done: {document} {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let published = manifests(&self.bucket);
        assert_eq!(published.len(), 1, "{case}: {published:?}, after the death {left:?}");
        on(&self.sandbox, "B", &["-q", "verify", "d0", "--latest", "--restore"]).stdout_any().run();
        // Who was killed comes back, and has nothing to do.
        let (document, objects) = (record(&self.bucket, "j0"), self.bucket.keys());
        self.proxy.set(None);
        self.a(&["schedule-check"]).stderr_any().run();
        assert_eq!((record(&self.bucket, "j0"), self.bucket.keys()), (document, objects), "{case}");
        // An object whose manifest never came is all that may be left of the dead, and it is named as that.
        let objects = self.bucket.keys().iter().filter(|key| key.starts_with("in/d0/")).count();
        assert!(objects <= 3, "{case}: {:?}", self.bucket.keys());
        assert_eq!(self.bucket.unfinished(), [""; 0], "{case}");
    }
}

fn killed(at: usize, fault: Fault) {
    let due = Due::new();
    due.proxy.set(Some(Plan { at, count: usize::MAX / 2, fault }));
    let mut child = due.tick();
    let since = Instant::now();
    while due.proxy.lines().len() <= at {
        assert!(child.try_wait().unwrap().is_none(), "request {at} does not come");
        assert!(since.elapsed() < Duration::from_secs(120), "request {at} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    if fault == Fault::StallAnswer {
        // The store does it meanwhile; if it takes longer, it does so after the death.
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    due.finished_by_another(&format!("{fault:?} at {at}, {:?}", due.proxy.lines().last()));
}

#[test]
fn a_host_that_is_killed_at_any_request_leaves_the_slot_to_another_once() {
    let whole = Due::new();
    whole.proxy.set(None);
    // A lease so long that it is not renewed meanwhile: each of the killed makes at least as many requests, however slow this
    // one is.
    whole.a(&["schedule-check"]).env("VOXELTRON_BACKUP_LEASE", "10m").stderr_any().run();
    let lines = whole.proxy.lines();
    assert_eq!(manifests(&whole.bucket).len(), 1);
    assert!(lines.len() > 10, "{lines:?}");
    let points: Vec<(usize, Fault)> =
        (0..lines.len()).flat_map(|at| [(at, Fault::Stall), (at, Fault::StallAnswer)]).collect();
    println!("{} requests, killed at {} points: {lines:?}", lines.len(), points.len());
    // Most of the time each waits for a dead host's lease to end.
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((at, fault)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    killed(*at, *fault);
                }
            });
        }
    });
}
