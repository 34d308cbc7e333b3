//! S3 seen by an operator: what `check` and a run say of a key that may not do everything, of objects that are locked, of
//! uploads that can't be put in order, and of what the store echoes. The whole program against a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use common::proxy::{Proxy, Refuser};
use common::s3::{Bucket, access_key, address, keys, secret_key};
use common::sample::noise;
use common::{Sandbox, sqlite3};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::s3::{Keys, Settings};
use voxeltron_backup::target::{Cause, Target};
use voxeltron_backup::world::{Clock, World};

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
fn check_tells_whether_the_bucket_takes_locks_and_what_the_key_may_not_see() {
    let more = "object_lock = \"GOVERNANCE\"\nobject_lock_days = 1\n";
    // Without a lock of its own the probe would go in and out of a bucket that takes none.
    let (proxy, plain) = (Proxy::new(address(), false), Bucket::new());
    let at_plain = sandbox(&proxy.endpoint(), &plain, 100, more, "");
    let check = at_plain.command(&["check"]).exits(14).stdout_any();
    let check = check.stderr_has(&format!("bucket {} has no object lock, and `object_lock` is set", plain.name));
    check.stderr_has("hint: no backup can be stored so: take a bucket that was created with object lock").run();
    assert_eq!(plain.keys(), [""; 0], "the probe is gone");
    // That is no idle warning; and what the store makes before it refuses does not stay.
    at_plain.command(&["run-job", "shop"]).exits(14).stdout_any().stderr_any().run();
    assert_eq!((plain.keys(), plain.unfinished()), (vec![], vec![]));

    let bucket = Bucket::lockable();
    let sandbox = sandbox(&proxy.endpoint(), &bucket, 100, more, "");
    let said = "listed and deleted";
    sandbox.command(&["check"]).stdout_has(said).run();
    let lock: Refuser = |head| head.contains("?object-lock").then_some("403 AccessDenied:");
    let unknown: Refuser = |head| head.contains("?object-lock").then_some("501 NotImplemented:");
    let retention: Refuser = |head| head.contains("?retention").then_some("403 AccessDenied:");
    let heads: Refuser = |head| head.starts_with("HEAD").then_some("403 Forbidden");
    let (can_not, hidden) =
        ("can't tell whether the bucket has object lock: ", "can't tell whether an object is locked: ");
    for (refuser, parts) in [
        (lock, [can_not, "403 AccessDenied", "let the key do s3:GetBucketObjectLockConfiguration on the bucket"]),
        (unknown, [can_not, "501 NotImplemented", "let the key do s3:GetBucketObjectLockConfiguration on the bucket"]),
        (
            retention,
            [hidden, "403 AccessDenied", "let the key do s3:GetObjectRetention and s3:GetObject on the bucket"],
        ),
        (heads, [hidden, "the store answered 403", "until then `prune` takes what is locked for removed"]),
    ] {
        proxy.refuse(refuser);
        let check = sandbox.command(&["check"]).stdout_has(said).stderr_has("warning: target s3: can't tell");
        let outcome = parts.iter().fold(check, |check, part| check.stderr_has(part)).run();
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert_eq!(bucket.keys(), [""; 0], "{parts:?}: the probe is gone");
        // As `--json` has it, too: well, and in doubt.
        let json = sandbox.command(&["--json", "check"]).stdout_any().stderr_any().run();
        let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        let findings = document["findings"].as_array().unwrap();
        let found = findings.iter().find(|found| found["what"] == "target s3").unwrap();
        assert_eq!((found["ok"].as_bool(), found["warnings"].as_array().map(Vec::len)), (Some(true), Some(1)));
    }
    // A stranger's page, and a store that is away, are no yes.
    proxy.answer_some(Box::new(|head| {
        let page = "<html>sign in</html>";
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len());
        head.contains("?object-lock").then_some(answer)
    }));
    proxy.refuse(|_| None);
    sandbox.command(&["check"]).stdout_has(said).stderr_has(can_not).stderr_has("does not answer as S3 does").run();
    proxy.answer_some(Box::new(|_| None));
    proxy.refuse(|head| head.contains("?object-lock").then_some("503 SlowDown:"));
    sandbox.command(&["check"]).exits(14).stdout_any().stderr_has("can't read the bucket's object lock").run();
    assert_eq!(bucket.keys(), [""; 0]);
    // Where nothing is to be locked, nobody asks.
    proxy.refuse(|_| None);
    proxy.set(None);
    self::sandbox(&proxy.endpoint(), &plain, 100, "", "").command(&["check"]).stdout_has(said).run();
    assert!(!proxy.heads().iter().any(|head| head.contains("?object-lock") || head.contains("?retention")));
}

/// A clock that counts the milliseconds of all pauses, and makes none; nothing else takes time by it.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl Clock for Counting {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.load(Ordering::SeqCst)).unwrap())
    }

    fn sleep(&self, time: Duration) {
        self.0.fetch_add(usize::try_from(time.as_millis()).unwrap() + 1, Ordering::SeqCst);
    }
}

#[test]
fn a_store_that_asks_for_a_pause_by_a_date_gets_it() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let clock = Counting::default();
    let world = World { clock: Arc::new(clock.clone()), ..World::system() };
    let target = behind(&proxy, &bucket).open(&keys(), &world).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    for (date, least) in [
        // The server's clock is its own matter: the two are compared with each other.
        ("Date: Fri, 01 Jan 2021 00:00:00 GMT\r\nRetry-After: Fri, 01 Jan 2021 00:01:00 GMT\r\n", 300),
        ("Date: Fri, 01 Jan 2021 00:00:00 GMT\r\nRetry-After: 60\r\n", 300),
        ("Date: Fri, 01 Jan 2021 00:00:00 GMT\r\nRetry-After: Thu, 31 Dec 2020 00:00:00 GMT\r\n", 0),
        ("Retry-After: soon\r\n", 0),
        ("Retry-After: -5\r\n", 0),
    ] {
        for status in [408, 425, 429, 503] {
            count.store(0, Ordering::SeqCst);
            let asked = Arc::clone(&count);
            proxy.answer_some(Box::new(move |_| {
                let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
                first.then(|| format!("HTTP/1.1 {status} x\r\n{date}Content-Length: 0\r\n\r\n"))
            }));
            clock.0.store(0, Ordering::SeqCst);
            target.list("").unwrap();
            let took = clock.0.load(Ordering::SeqCst);
            // The test's policy has pauses of 20 ms, and of 300 where more is asked for.
            assert!(took >= least && (least > 0 || took < 280), "{status} {date}: {took} ms");
            assert_eq!(count.load(Ordering::SeqCst), 2, "{status} {date}");
        }
    }
}

#[test]
fn a_store_that_sends_elsewhere_is_not_followed_and_not_believed() {
    let (proxy, other, bucket) = (Proxy::new(address(), false), Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket).open(&keys(), &World::system()).unwrap();
    bucket.put("host/old", b"x");
    for (status, code) in [(301, "PermanentRedirect"), (302, ""), (303, ""), (307, "TemporaryRedirect"), (308, "")] {
        let (place, body) = (
            other.endpoint(),
            match code {
                "" => String::new(),
                _ => format!("<Error><Code>{code}</Code><Message>elsewhere</Message></Error>"),
            },
        );
        proxy.answer_some(Box::new(move |head| {
            let shown = if head.starts_with("HEAD") { "" } else { &body };
            let key = head.split(' ').nth(1).unwrap_or_default();
            Some(format!(
                "HTTP/1.1 {status} x\r\nLocation: {place}{key}\r\nx-amz-bucket-region: eu-west-7\r\nContent-Length: {}\r\n\r\n{shown}",
                body.len()
            ))
        }));
        for length in [100, PART + 1] {
            let failure = target.put(&key("host/x"), &mut &noise(length)[..]).unwrap_err();
            assert_eq!(failure.cause, Cause::Failed, "{status}: {failure:?}");
            let hint = failure.error.hint.unwrap_or_default();
            assert!(hint.contains("set region = \"eu-west-7\""), "{status}: {} {hint}", failure.error.message);
        }
        let gone = key("host/old");
        for failure in [
            target.list("").map(drop).unwrap_err(),
            target.get(&gone).map(drop).unwrap_err(),
            target.delete(&gone).unwrap_err(),
            target.delete_all(std::slice::from_ref(&gone)).remove(0).unwrap_err(),
            target.sweep("", Utc::now()).unwrap_err(),
        ] {
            assert_eq!(failure.cause, Cause::Failed, "{status}: {failure:?}");
            assert!(failure.error.message.contains(&status.to_string()), "{status}: {failure:?}");
        }
    }
    assert_eq!(bucket.keys(), ["host/old"]);
    assert_eq!(other.lines(), [""; 0], "no key went there");
}

#[test]
fn what_a_bulk_delete_kept_under_another_name_is_not_taken_for_removed() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket).open(&keys(), &World::system()).unwrap();
    let keys: Vec<ObjectKey> = (0..3).map(|number| key(&format!("host/a+{number}"))).collect();
    for (body, causes) in [
        // Encoded, though nobody asked for it; then refused one by one.
        ("<Error><Key>host%2Fa%2B1</Key><Code>AccessDenied</Code></Error>", [Cause::Denied; 3]),
        ("<Error><Key></Key><Code>InternalError</Code></Error>", [Cause::Denied; 3]),
        ("<Error><Code>AccessDenied</Code></Error>", [Cause::Failed; 3]),
    ] {
        let text = format!("<DeleteResult>{body}</DeleteResult>");
        let all = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        proxy.answer_some(Box::new(move |head| head.contains("?delete").then(|| all.clone())));
        proxy.refuse(|head| head.starts_with("DELETE").then_some("403 AccessDenied:"));
        let outcomes = target.delete_all(&keys);
        let told = outcomes.into_iter().map(|outcome| outcome.unwrap_err().cause).collect::<Vec<_>>();
        assert_eq!(told, causes, "{body}");
    }
    // Where they do go one by one, they are gone.
    keys.iter().for_each(|key| bucket.put(key.as_str(), b"x"));
    let text = "<DeleteResult><Error><Key>x</Key><Code>InternalError</Code></Error></DeleteResult>";
    let all = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    proxy.answer_some(Box::new(move |head| head.contains("?delete").then(|| all.clone())));
    proxy.refuse(|_| None);
    assert!(target.delete_all(&keys).iter().all(Result::is_ok));
    assert_eq!(bucket.keys(), [""; 0]);
}

#[test]
fn what_is_told_in_an_answer_of_200_is_heard() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket).open(&keys(), &World::system()).unwrap();
    let bytes = noise(2 * PART + 1);
    let answers = |of: fn(&str) -> bool, text: &'static str| {
        proxy.answer_some(Box::new(move |head| {
            let all = || format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            of(head).then(all)
        }));
    };
    let completes = |head: &str| head.starts_with("POST") && head.contains("uploadId=");
    for (text, said) in [
        // Joining a thousand parts takes a store its time: it says yes before it knows.
        ("   \n<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>", "AccessDenied"),
        ("<Error><Code>InternalError</Code><Message>again</Message></Error>", "InternalError"),
        ("<CompleteMultipartUploadResult><Key>host/x</Key>", "does not answer as S3 does"),
        ("<html>sign in</html>", "does not answer as S3 does"),
        ("", "does not answer as S3 does"),
    ] {
        answers(completes, text);
        let failure = target.put(&key("host/x"), &mut &bytes[..]).unwrap_err();
        assert!(failure.error.message.contains(said), "{text}: {failure:?}");
        proxy.answer_some(Box::new(|_| None));
        assert_eq!((bucket.keys(), bucket.unfinished()), (vec![], vec![]), "{text}");
    }
    for number in 0..3 {
        bucket.put(&format!("host/{number}"), b"x");
    }
    let lists = |head: &str| head.contains("list-type=2");
    for text in [
        "<Error><Code>InternalError</Code></Error>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>host/0</NextMarker></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken></ListBucketResult>",
        "<ListBucketResult><Contents><Key>host/0</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>host/0</Key><Size>many</Size></Contents></ListBucketResult>",
    ] {
        answers(lists, text);
        let failure = target.list("host/").unwrap_err();
        assert_eq!(failure.error.kind, voxeltron_backup::error::Kind::Target, "{text}: {failure:?}");
    }
    // A bulk delete that failed as a whole has removed nothing.
    answers(|head| head.contains("?delete"), "<Error><Code>AccessDenied</Code></Error>");
    proxy.refuse(|head| head.starts_with("DELETE").then_some("403 AccessDenied:"));
    let outcomes = target.delete_all(&[key("host/0"), key("host/1")]);
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|failure| failure.cause == Cause::Denied)));
    assert_eq!(bucket.keys().len(), 3);
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
