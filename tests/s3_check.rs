//! S3 seen by an operator: what `check` and a run say of a key that may not do everything, of objects that are locked, of
//! uploads that can't be put in order, and of what the store echoes. The whole program against a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::proxy::{Proxy, Refuser};
use common::s3::{Bucket, access_key, address, keys, secret_key};
use common::sample::noise;
use common::{Sandbox, sqlite3};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::s3::{Keys, Settings};
use voxeltron_backup::target::{Cause, Target};
use voxeltron_backup::world::World;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The part size of the tests, in bytes.
const PART: usize = 5 * 1024 * 1024;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// A configuration with a database of so many bytes and a bucket alone; `more` are lines of its table, and `jobs` more jobs.
fn sandbox(endpoint: &str, bucket: &Bucket, bytes: usize, more: &str, jobs: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(
        &sandbox.path("shop.db"),
        &format!("pragma journal_mode = wal; create table t (x); insert into t values (randomblob({bytes}))"),
    );
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
         [backup.targets.s3]\nendpoint = \"{endpoint}\"\nbucket = \"{}\"\npart_size = 5\n\
         access_key = \"{}\"\nsecret_key = \"{}\"\n{more}\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\nname = \"shop\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
         target = \"s3\"\nkeep_last = 1\ntimeout = \"1h\"\n{jobs}",
        bucket.name,
        access_key(),
        secret_key()
    ));
    sandbox
}

fn behind(proxy: &Proxy, bucket: &Bucket) -> Settings {
    Settings { endpoint: proxy.endpoint(), ..bucket.settings("") }
}

#[test]
fn check_names_each_permission_that_is_missing() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let sandbox = sandbox(&proxy.endpoint(), &bucket, 100, "", "");
    sandbox.command(&["check"]).stdout_has("written, read, listed and deleted").run();
    let lists = |head: &str| head.contains("list-type=2").then_some("403 AccessDenied:");
    let reads = |head: &str| {
        let line = head.lines().next().unwrap_or_default();
        (line.starts_with("GET") && !line.contains('?')).then_some("403 AccessDenied:")
    };
    let refusers: [(Refuser, &str); 3] = [
        (lists, "hint: let the key do s3:ListBucket on the bucket"),
        (reads, "hint: let the key do s3:GetObject and s3:ListBucket on the bucket"),
        (
            |head| head.starts_with("PUT").then_some("403 AccessDenied:"),
            "hint: let the key do s3:PutObject on the bucket",
        ),
    ];
    for (refuser, said) in refusers {
        proxy.refuse(refuser);
        sandbox.command(&["check"]).exits(14).stdout_any().stderr_has(said).run();
        assert_eq!(bucket.keys(), [""; 0], "{said}: the probe is gone");
    }
    // What hides missing objects makes every run fail, and `check` with it: by the right name.
    proxy.refuse(reads);
    let run = sandbox.command(&["run-job", "shop"]).exits(14).stdout_any();
    run.stderr_has("hint: let the key do s3:GetObject and s3:ListBucket").run();
    // Without this one backups are made, and what a killed run leaves stays.
    proxy.refuse(|head| head.contains("?uploads").then_some("403 AccessDenied:"));
    let said = "can't sweep unfinished uploads below";
    let mend = "let the key do s3:ListBucketMultipartUploads and s3:AbortMultipartUpload";
    let check = sandbox.command(&["check"]).stdout_has("listed and deleted");
    check.stderr_has("warning: ").stderr_has(said).stderr_has(mend).run();
    sandbox.command(&["run-job", "shop"]).stderr_has("warning: job shop: ").stderr_has(said).stderr_has(mend).run();
    assert_eq!(bucket.keys().len(), 2);
}

#[test]
fn a_lock_is_told_as_a_lock_and_the_probe_of_check_has_none() {
    let bucket = Bucket::lockable();
    let more = "object_lock = \"COMPLIANCE\"\nobject_lock_days = 3\n";
    let sandbox = sandbox(&common::s3::endpoint(), &bucket, 100, more, "");
    sandbox.command(&["check"]).stdout_has("written, read, listed and deleted").run();
    assert_eq!(bucket.keys(), [""; 0], "it is gone");
    sandbox.command(&["run-job", "shop"]).stderr_any().run();
    let target = bucket.target("");
    for stored in target.list("").unwrap() {
        let failure = target.delete(&stored.key).unwrap_err();
        assert_eq!(failure.cause, Cause::Retained, "{failure:?}");
        assert!(failure.error.hint.unwrap().starts_with("a lock of the object"));
    }
    // A bucket whose own rule locks the probe, too, is no worse for backups.
    let proxy = Proxy::new(address(), false);
    let sandbox = self::sandbox(&proxy.endpoint(), &bucket, 100, "", "");
    proxy.refuse(|head| head.starts_with("DELETE").then_some("403 ObjectLocked:"));
    let check = sandbox.command(&["check"]).stdout_has("listed and deleted");
    check.stderr_has("warning: target s3: ").stderr_has("a lock of the object, or a rule of the bucket").run();
}

#[test]
fn an_upload_that_can_not_be_aborted_is_warned_of() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let sandbox = sandbox(&proxy.endpoint(), &bucket, 3 * PART, "", "");
    proxy.refuse(|head| {
        let part = head.contains("partNumber=3&");
        (part || head.starts_with("DELETE")).then_some("403 AccessDenied:")
    });
    let run = sandbox.command(&["run-job", "shop"]).exits(14).stdout_any();
    let run = run.stderr_has("what was sent stays there until it is swept; let the key do ");
    run.stderr_has("s3:AbortMultipartUpload on the bucket").run();
    assert_eq!((bucket.keys(), bucket.unfinished().len()), (vec![], 1));
}

#[test]
fn an_upload_is_swept_only_when_no_job_of_its_database_can_be_at_it() {
    let bucket = Bucket::new();
    let longer = "[[backup.jobs]]\nname = \"long\"\ndatabase = \"shop\"\nschedule = \"@weekly\"\nencrypt = true\n\
                  target = \"s3\"\ntimeout = \"72h\"\n";
    let sandbox = sandbox(&common::s3::endpoint(), &bucket, 100, "", longer);
    bucket.begin("host/shop/20260101T000000Z-long.00000000.sqlite.gz.enc");
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    // Job `shop` may take an hour, and a day more; the other one three days.
    for (age, left) in [(30, 1), (95, 1), (97, 0)] {
        bucket.age_unfinished(hours(age));
        sandbox.command(&["prune", "shop"]).stdout_any().stderr_any().run();
        assert_eq!(bucket.unfinished().len(), left, "after {age} hours");
    }
}

/// The first answer with an ETag gets another one, or every one.
static WRONG: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_part_that_comes_with_another_digest_is_sent_again_and_never_stored() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket).open(&keys(), &World::system()).unwrap();
    proxy.edit(|head| {
        let left = WRONG.load(Ordering::SeqCst);
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("etag: "));
        match line {
            Some(line) if left > 0 => {
                WRONG.store(left - 1, Ordering::SeqCst);
                head.replace(line, "ETag: \"00000000000000000000000000000000\"")
            }
            _ => head,
        }
    });
    for length in [100, 2 * PART + 1] {
        let bytes = noise(length);
        WRONG.store(1, Ordering::SeqCst);
        let once = key(&format!("once/{length}"));
        assert_eq!(target.put(&once, &mut &bytes[..]).unwrap().size, length as u64);
        assert_eq!(WRONG.load(Ordering::SeqCst), 0);
        assert!(bucket.get(once.as_str()) == bytes);
    }
    WRONG.store(usize::MAX, Ordering::SeqCst);
    let failure = target.put(&key("always"), &mut &noise(2 * PART + 1)[..]).unwrap_err();
    assert!(failure.error.message.contains("the store has other bytes (0000000000"), "{failure:?}");
    WRONG.store(0, Ordering::SeqCst);
    assert_eq!(bucket.keys().len(), 2);
    assert_eq!(bucket.unfinished(), [""; 0]);
}

#[test]
fn a_stranger_that_echoes_a_token_shows_nothing_of_it() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let token = "FwoGZXIvYXdzEJr%2F+canary/".repeat(20);
    let all = Keys {
        access: Secret::new("canary-access-key"),
        secret: Secret::new("canary/secret+key/of+many/signs"),
        token: Some(Secret::new(token.clone())),
    };
    let target = behind(&proxy, &bucket).open(&all, &World::system()).unwrap();
    let encoded = percent_encoding::utf8_percent_encode(&token, percent_encoding::NON_ALPHANUMERIC).to_string();
    let secret = "canary%2Fsecret%2Bkey%2Fof%2Bmany%2Fsigns";
    for body in [
        format!("{token} is signed in"),
        format!("<html>{encoded}</html>"),
        format!("<ListBucketResult><Name>{encoded}</Name>"),
        format!("<html>{secret}</html>"),
    ] {
        proxy.answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let said = format!("{:?}", target.list("").unwrap_err());
        let hidden = [token.as_str(), encoded.as_str(), secret, all.secret.expose()];
        for piece in hidden.iter().flat_map(|text| text.as_bytes().windows(12)) {
            let piece = std::str::from_utf8(piece).unwrap();
            assert!(!said.contains(piece), "{piece} in {said}");
        }
    }
}
