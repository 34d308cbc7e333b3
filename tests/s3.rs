//! S3 beyond the contract that every target keeps: edges of multipart uploads, what is left when one fails, every fault at
//! every request between the program and a real server, messages, and the whole program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use common::faults::FailingBody;
use common::proxy::{Fault, Plan, Proxy, patience, table};
use common::s3::{Bucket, address, keys};
use common::sample::noise;
use common::{Sandbox, sqlite3};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::s3::{Keys, Lock, Protection, S3, Settings};
use voxeltron_backup::target::{Cause, Target};
use voxeltron_backup::world::World;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The part size of the tests, in bytes.
const PART: usize = 5 * 1024 * 1024;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn read(target: &S3, key: &ObjectKey) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut reader = target.get(key).map_err(|failure| failure.error)?;
    reader.read_to_end(&mut bytes).map_err(|error| Error::from_io(error, Kind::Other, "read"))?;
    Ok(bytes)
}

#[test]
fn objects_at_every_edge_of_a_part_come_back() {
    let bucket = Bucket::new();
    let target = bucket.target("");
    for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1, 4 * PART + 12_345] {
        let (key, bytes) = (key(&format!("edge/{length}")), noise(length));
        let stored = target.put(&key, &mut &bytes[..]).unwrap();
        assert_eq!(stored.size, length as u64);
        assert!(stored.modified.is_some());
        assert!(read(&target, &key).unwrap() == bytes, "{length} bytes");
        assert!(bucket.get(key.as_str()) == bytes, "{length} bytes, read by the plain client");
        assert_eq!(target.put(&key, &mut &bytes[..]).unwrap_err().cause, Cause::Exists);
    }
    assert_eq!(bucket.unfinished(), [""; 0]);
}

#[test]
fn a_body_that_fails_anywhere_leaves_no_upload() {
    let bucket = Bucket::new();
    let target = bucket.target("p/");
    for good in [0, 1, PART - 1, PART, PART + 1, PART + 700, 2 * PART, 2 * PART + 1, 3 * PART + 5] {
        let own = Error::new(Kind::Tool, "pg_dump died").hint("look");
        let mut body = FailingBody { bytes: &noise(good), error: own.clone() };
        let failure = target.put(&key("host/shop/x"), &mut body).unwrap_err();
        assert_eq!((failure.cause, failure.error), (Cause::Body, own), "{good}");
        assert_eq!((bucket.keys(), bucket.unfinished()), (vec![], vec![]), "{good}");
    }
}

#[test]
fn a_signal_in_the_middle_aborts_the_upload() {
    let bucket = Bucket::new();
    let world = World::system();
    let target = bucket.settings("").open(&keys(), &world).unwrap();
    struct Stops<'w>(&'w World, usize);
    impl Read for Stops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 += buffer.len();
            if self.1 > 2 * PART {
                self.0.cancel.stop(15);
            }
            Ok(buffer.len())
        }
    }
    let failure = target.put(&key("host/x"), &mut Stops(&world, 0)).unwrap_err();
    assert_eq!(failure.error.kind, Kind::Stopped(15));
    assert_eq!((bucket.keys(), bucket.unfinished()), (vec![], vec![]));
}

#[test]
fn another_writers_object_stays_when_it_came_during_the_upload() {
    struct Meanwhile<'b>(&'b Bucket, &'b str, usize);
    impl Read for Meanwhile<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.2 == 0 {
                self.0.put(self.1, b"first");
                return Ok(0);
            }
            let count = buffer.len().min(self.2);
            self.2 -= count;
            Ok(count)
        }
    }
    let bucket = Bucket::new();
    for length in [10, 2 * PART + 3] {
        let name = format!("host/{length}");
        let failure = bucket.target("").put(&key(&name), &mut Meanwhile(&bucket, &name, length)).unwrap_err();
        assert_eq!(failure.cause, Cause::Exists, "{failure:?}");
        assert_eq!(bucket.get(&name), b"first");
    }
    assert_eq!(bucket.unfinished(), [""; 0]);
}

#[test]
fn only_uploads_below_the_prefix_are_swept() {
    let bucket = Bucket::new();
    for name in ["a/host/x", "a/host/a note", "b/host/x", "host/x"] {
        bucket.age(&bucket.begin(name));
    }
    let then = Utc::now() - TimeDelta::minutes(30);
    assert_eq!(bucket.target("a/").sweep("", then).unwrap(), 1, "what is not of ours is let be");
    assert_eq!(bucket.unfinished().len(), 3);
    assert_eq!(bucket.target("").sweep("host/", then).unwrap(), 1);
    assert_eq!(bucket.target("").sweep("none/", then).unwrap(), 0);
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_noticed() {
    let bucket = Bucket::new();
    let target = bucket.target("");
    bucket.put("x", &noise(40 << 20));
    let mut reader = target.get(&key("x")).unwrap();
    reader.read_exact(&mut [0; 1000]).unwrap();
    bucket.put("x", &noise((40 << 20) - 1));
    let failure = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(failure.to_string().contains("was replaced while it was read"), "{failure}");
}

/// A target behind a proxy, with all patience.
fn behind(proxy: &Proxy, bucket: &Bucket) -> S3 {
    with_patience(proxy, bucket, None, Duration::ZERO)
}

/// The same with the patience of a test for this fault.
fn with_patience(proxy: &Proxy, bucket: &Bucket, fault: Option<Fault>, whole: Duration) -> S3 {
    let patience = patience(fault, [1_200, 1_500], 4 << 20, whole);
    let settings = Settings { endpoint: proxy.endpoint(), patience, ..bucket.settings("p/") };
    settings.open(&keys(), &proxy.world()).unwrap()
}

/// A fault once, at every request of an upload of these bytes.
fn uploads_with_a_fault(name: &str, bytes: &[u8], requests: usize) {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    proxy.set(None);
    let started = Instant::now();
    target.put(&key("host/x"), &mut &*bytes).unwrap();
    let whole = started.elapsed();
    let lines = proxy.lines();
    assert_eq!(lines.len(), requests, "{lines:?}");
    bucket.delete("p/host/x");
    let mut run = |plan: Plan| {
        let target = with_patience(&proxy, &bucket, Some(plan.fault), whole);
        proxy.set(Some(plan));
        let outcome = target.put(&key("host/x"), &mut &*bytes);
        proxy.set(None);
        assert_eq!(bucket.unfinished(), [""; 0], "{plan:?}: {outcome:?}");
        match outcome {
            Ok(stored) => {
                assert_eq!(stored.size, bytes.len() as u64);
                assert!(bucket.get("p/host/x") == bytes, "{plan:?}");
                bucket.delete("p/host/x");
                "ok"
            }
            Err(failure) => {
                assert_eq!(bucket.keys(), [""; 0], "{plan:?}: {failure:?}");
                "clean failure"
            }
        }
    };
    // An answer to the beginning that is no document names no upload.
    let fatal: &[&str] = if requests > 3 { &["POST TooShort"] } else { &[] };
    table(&format!("upload of {name}, a fault once"), &lines, fatal, &mut run);
}

#[test]
fn every_fault_at_every_request_of_a_small_upload_ends_whole_or_leaves_nothing() {
    uploads_with_a_fault("one part", &noise(100_000), 3);
}

#[test]
fn every_fault_at_every_request_of_a_large_upload_ends_whole_or_leaves_nothing() {
    // 100 MB in the long form.
    match std::env::var_os("VOXELTRON_TEST_LONG") {
        Some(_) => uploads_with_a_fault("100 MB in twenty parts", &noise(100_000_000), 24),
        None => uploads_with_a_fault("five parts", &noise(4 * PART + 4_321), 9),
    }
}

#[test]
fn a_store_that_goes_away_for_good_shows_nothing_and_is_swept_later() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    for (bytes, requests) in [(noise(1_000), 3), (noise(PART + 9), 6)] {
        for at in 0..requests {
            for fault in [Fault::Refuse, Fault::ResetRequest] {
                proxy.set(Some(Plan { at, count: usize::MAX / 2, fault }));
                let outcome = target.put(&key("host/x"), &mut &bytes[..]);
                proxy.set(None);
                assert!(outcome.is_err(), "{at}, {fault:?}");
                if at + 1 < requests {
                    assert_eq!(bucket.keys(), [""; 0], "{at}, {fault:?}");
                } else {
                    // All of it is there, and only the last look was not possible.
                    assert!(bucket.get("p/host/x") == bytes);
                    bucket.delete("p/host/x");
                }
                target.sweep("", Utc::now() + TimeDelta::days(1)).unwrap();
                assert_eq!(bucket.unfinished(), [""; 0], "{at}, {fault:?}");
            }
        }
    }
}

#[test]
fn every_fault_at_every_request_of_a_download_ends_whole_or_is_an_error() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    // 100 MB in the long form.
    let (size, requests) =
        if std::env::var_os("VOXELTRON_TEST_LONG").is_some() { (100_000_000, 6) } else { (40 << 20, 3) };
    let (target, bytes) = (behind(&proxy, &bucket), noise(size));
    bucket.put("p/host/x", &bytes);
    proxy.set(None);
    let started = Instant::now();
    assert!(read(&target, &key("host/x")).unwrap() == bytes);
    let whole = started.elapsed();
    let lines = proxy.lines();
    assert_eq!(lines.len(), requests, "{lines:?}");
    let mut run = |plan: Plan| {
        let target = with_patience(&proxy, &bucket, Some(plan.fault), whole);
        proxy.set(Some(plan));
        match read(&target, &key("host/x")) {
            Ok(got) => {
                assert!(got == bytes, "{plan:?}");
                "ok"
            }
            Err(_) => "clean failure",
        }
    };
    table(&format!("download of {size} bytes, a fault once"), &lines, &[], &mut run);
    for at in 0..lines.len() {
        for fault in [Fault::Refuse, Fault::Error503, Fault::Error500After, Fault::ResetAnswer] {
            let plan = Plan { at, count: 100, fault };
            assert_eq!(run(plan), "clean failure", "{plan:?}");
        }
    }
    // A cut answer brings some of it each time: that is progress, and in the end all of it comes.
    assert_eq!(run(Plan { at: 0, count: 8, fault: Fault::Cut }), "ok");
}

#[test]
fn a_first_piece_that_is_not_the_one_that_was_asked_for_is_an_error() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    bucket.put("p/host/x", b"0123456789");
    assert_eq!(read(&target, &key("host/x")).unwrap(), b"0123456789");
    let editors: [fn(String) -> String; 4] = [
        |head| head.replace("bytes 0-9/10", "bytes 1-9/10"),
        |head| head.replace("bytes 0-9/10", "bytes 0-8/10"),
        |head| head.replace("bytes 0-9/10", "bytes 0-9/*"),
        |head| head.replace("ETag:", "X-Tag:").replace("Etag:", "X-Tag:"),
    ];
    for (number, editor) in editors.into_iter().enumerate() {
        proxy.edit(editor);
        assert!(read(&target, &key("host/x")).is_err(), "{number}");
    }
    // All of it, by a store that knows no ranges.
    proxy.edit(|head| head.replace("206 Partial Content", "200 OK").replace("Content-Range:", "X-Range:"));
    assert_eq!(read(&target, &key("host/x")).unwrap(), b"0123456789");
}

#[test]
fn a_listing_that_breaks_is_an_error_and_never_a_part_of_it() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    for number in 0..1_200 {
        bucket.put(&format!("p/host/{number:04}"), b"x");
    }
    let whole = target.list("host/").unwrap();
    assert_eq!(whole.len(), 1_200);
    let mut outcomes = BTreeMap::new();
    for at in 0..2 {
        for fault in Fault::ALL {
            let target = with_patience(&proxy, &bucket, Some(fault), Duration::ZERO);
            for count in [1, 100] {
                proxy.set(Some(Plan { at, count, fault }));
                match target.list("host/") {
                    Ok(listed) => assert!(listed == whole, "{at} {fault:?} {count}"),
                    Err(failure) => assert_eq!(failure.error.kind, Kind::Target),
                }
                *outcomes.entry((at, count)).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(outcomes.len(), 4);
}

#[test]
fn a_key_that_may_only_write_writes_and_overwrites_nothing() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    proxy.refuse(|head| (head.starts_with("HEAD") || head.starts_with("GET")).then_some("403 Forbidden"));
    for length in [1_000, PART + 1] {
        let (key, bytes) = (key(&format!("host/{length}")), noise(length));
        assert_eq!(target.put(&key, &mut &bytes[..]).unwrap().size, length as u64);
        assert!(bucket.get(&format!("p/{key}")) == bytes);
        assert_eq!(target.put(&key, &mut &bytes[..]).unwrap_err().cause, Cause::Exists);
        let failure = target.get(&key).err().unwrap();
        assert_eq!(failure.cause, Cause::Denied, "{failure:?}");
        assert!(failure.error.hint.unwrap().contains("s3:GetObject"));
    }
    assert_eq!(target.list("").unwrap_err().cause, Cause::Denied, "never an empty listing");
    assert_eq!(bucket.unfinished(), [""; 0]);
}

#[test]
fn a_store_without_conditions_is_asked_before() {
    for status in ["501 Not Implemented", "405 Method Not Allowed"] {
        let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
        let target = behind(&proxy, &bucket);
        match status {
            "501 Not Implemented" => proxy.refuse(|head| head.contains("if-none-match").then_some("501 x")),
            _ => proxy.refuse(|head| head.contains("if-none-match").then_some("405 x")),
        }
        for length in [1_000, PART + 1] {
            let (key, bytes) = (key(&format!("host/{length}")), noise(length));
            target.put(&key, &mut &bytes[..]).unwrap();
            assert_eq!(target.put(&key, &mut &b"new"[..]).unwrap_err().cause, Cause::Exists);
            assert!(read(&target, &key).unwrap() == bytes);
        }
        assert_eq!(bucket.unfinished(), [""; 0]);
    }
}

#[test]
fn a_store_that_lists_no_uploads_has_nothing_to_sweep() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    proxy.refuse(|head| head.contains("uploads").then_some("501 Not Implemented"));
    assert_eq!(target.sweep("", Utc::now()).unwrap(), 0);
}

/// A failure as the program shows it, with what differs from run to run taken out.
fn shown(failure: &Error, bucket: &str) -> String {
    let text = format!("{}\nhint: {}", failure.message, failure.hint.as_deref().unwrap_or("-"));
    for secret in [common::s3::access_key(), common::s3::secret_key(), "canary-".to_owned()] {
        assert!(!text.contains(&secret), "{text}");
    }
    text.replace(&common::s3::endpoint(), "ENDPOINT").replace(bucket, "BUCKET")
}

fn complaint(settings: &Settings, keys: &Keys) -> String {
    let target = settings.open(keys, &World::system()).unwrap();
    let mut all = String::new();
    let put = target.put(&key("host/x"), &mut &b"x"[..]).unwrap_err();
    let get = target.get(&key("host/x")).err().expect("an error");
    for failure in [Some(put), Some(get), target.list("host/").err(), target.delete(&key("host/x")).err()] {
        match failure {
            Some(failure) => writeln!(all, "{:?}: {}", failure.cause, shown(&failure.error, &settings.bucket)).unwrap(),
            None => all.push_str("fine\n"),
        }
    }
    all
}

#[test]
fn each_mistake_has_its_own_message() {
    let bucket = Bucket::new();
    let good = || Settings { name: "offsite".to_owned(), ..bucket.settings("") };
    let wrong =
        |access: &str, secret: &str| Keys { access: Secret::new(access), secret: Secret::new(secret), token: None };
    let missing = Settings { bucket: "no-such-bucket".to_owned(), ..good() };
    let unknown = Settings { endpoint: "http://no-such-host.invalid".to_owned(), ..good() };
    let refused = Settings { endpoint: "http://127.0.0.1:1".to_owned(), ..good() };
    let plain = Settings { endpoint: common::s3::endpoint().replace("http:", "https:"), ..good() };
    let access = complaint(&good(), &wrong("canary-access", &common::s3::secret_key()));
    let secret = complaint(&good(), &wrong(&common::s3::access_key(), "canary-secret"));
    let text = [
        ("an access key that is not known", access),
        ("a wrong secret key", secret),
        ("no such bucket", complaint(&missing, &keys())),
        ("no such host", complaint(&unknown, &keys())),
        ("nobody listens", complaint(&refused, &keys())),
        ("TLS where there is none", complaint(&plain, &keys()).replace(&plain.endpoint, "ENDPOINT")),
    ];
    insta::assert_snapshot!(text.map(|(title, text)| format!("## {title}\n{text}")).join("\n"));
}

#[test]
fn what_a_store_answers_is_told_with_its_mend_and_without_secrets() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = Settings { name: "offsite".to_owned(), endpoint: proxy.endpoint(), ..bucket.settings("") };
    let keys =
        Keys { access: Secret::new("canary-a"), secret: Secret::new("canary-s"), token: Some(Secret::new("canary-t")) };
    let target = target.open(&keys, &World::system()).unwrap();
    let long = "x".repeat(5_000);
    let mut all = String::new();
    for (status, code, message, more) in [
        (403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", ""),
        (403, "AccessDenied", "Access Denied. canary-a canary-s canary-t", ""),
        (403, "ExpiredToken", "The provided token has expired.", ""),
        (400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong", "<Region>eu-central-1</Region>"),
        (301, "PermanentRedirect", "The bucket you are attempting to access must be addressed elsewhere.", ""),
        (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold.", ""),
        (418, "", "", ""),
        (400, "Strange", &long, ""),
    ] {
        let body = match code {
            "" => "<html>sign in</html>".to_owned(),
            _ => format!("<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"),
        };
        proxy.answer(&format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let failure = target.list("host/").unwrap_err();
        writeln!(all, "{:?}: {}\n", failure.cause, shown(&failure.error, &bucket.name).replace(&long[..290], "…"))
            .unwrap();
    }
    proxy.answer("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>sign in</html>");
    writeln!(
        all,
        "{}",
        shown(&target.list("host/").unwrap_err().error, &bucket.name).replace(&proxy.endpoint(), "ENDPOINT")
    )
    .unwrap();
    insta::assert_snapshot!(all);
}

#[test]
fn a_pause_that_is_asked_for_is_kept_within_reason() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    proxy.set(Some(Plan { at: 0, count: 1, fault: Fault::Error503 }));
    let started = Instant::now();
    target.list("").unwrap();
    // It asks for a second; the test's policy gives it three tenths.
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
}

#[test]
fn a_certificate_of_the_stores_own_authority_is_trusted_by_ca_file_alone() {
    let endpoint = common::from_runner("VOXELTRON_TEST_S3_TLS_ENDPOINT");
    let settings =
        Settings { policy: Bucket::new().settings("").policy, ..Settings::new("tls", &endpoint, "private", "") };
    let bare = settings.open(&keys(), &World::system()).unwrap();
    let failure = bare.put(&key("host/x"), &mut &b"x"[..]).unwrap_err().error;
    assert!(failure.message.contains("no TLS connection to https://localhost"), "{failure:?}");
    assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("`ca_file`")), "{failure:?}");

    let ca_file = Some(common::from_runner("VOXELTRON_TEST_S3_CA").into());
    let target = Settings { ca_file, part_mib: 5, ..settings.clone() }.open(&keys(), &World::system()).unwrap();
    let bytes = noise(2 * PART + 17);
    target.put(&key("host/x"), &mut &bytes[..]).unwrap();
    assert!(read(&target, &key("host/x")).unwrap() == bytes);
    assert_eq!(target.list("host/").unwrap().len(), 1);
    target.delete(&key("host/x")).unwrap();

    let sandbox = Sandbox::new();
    let none = Some(sandbox.write("none.pem", "no certificate\n"));
    let failure = Settings { ca_file: none, ..settings }.open(&keys(), &World::system()).unwrap_err();
    assert_eq!(failure.kind, Kind::Config);
    assert!(failure.message.contains("none.pem holds no certificate"), "{failure:?}");
}

/// A configuration with a database, a local target and a bucket; `keys` are the lines that give the bucket's keys.
fn sandbox(bucket: &Bucket, keys: &str) -> Sandbox {
    sandbox_at(&bucket.endpoint, bucket, keys)
}

/// The same by another way.
fn sandbox_at(endpoint: &str, bucket: &Bucket, keys: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (randomblob(3000000)), (2)");
    sandbox.configure_local(
        Some(KEY),
        &format!(
            "[backup.targets.s3]\nendpoint = \"{}\"\nbucket = \"{}\"\nprefix = \"all/ours\"\n{keys}\
             [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"shop\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
             target = [\"local\", \"s3\"]\nkeep_last = 1\nafter = \"env > {{dir}}/hook\"\n",
            endpoint, bucket.name
        ),
    );
    sandbox
}

#[test]
fn the_whole_program_backs_up_to_a_disk_and_a_bucket_and_restores_from_it() {
    let bucket = Bucket::new();
    let keys =
        format!("access_key = \"{}\"\nsecret_key = \"{}\"\n", common::s3::access_key(), common::s3::secret_key());
    let sandbox = sandbox(&bucket, &keys);
    let mut said = String::new();
    let mut run = |args: &[&str]| {
        let outcome = sandbox.command(args).stdout_any().stderr_any().run();
        write!(said, "{}{}", outcome.stdout, outcome.stderr).unwrap();
        outcome.stdout
    };
    let before = sqlite3(&sandbox.path("shop.db"), ".dump");
    run(&["-v", "check"]);
    assert_eq!(bucket.keys(), [""; 0], "the probe is gone");
    run(&["-v", "run-job", "shop"]);
    let keys = bucket.keys();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("all/ours/host/shop/")), "{keys:?}");
    assert!(run(&["-v", "list", "shop"]).contains("s3"));
    run(&["-v", "verify", "shop", "--target", "s3", "--restore"]);
    sqlite3(&sandbox.path("shop.db"), "drop table t");
    run(&["-v", "restore", "shop", "--latest", "--target", "s3"]);
    assert_eq!(sqlite3(&sandbox.path("shop.db"), ".dump"), before);

    // A second one, and the first is too many, once it is not the last that was proved.
    std::thread::sleep(Duration::from_millis(1_100));
    run(&["-v", "run-job", "shop"]);
    assert_eq!(bucket.keys().len(), 4);
    run(&["-v", "verify", "shop", "--target", "s3", "--restore"]);
    run(&["-v", "prune", "shop"]);
    let left = bucket.keys();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|key| !keys.contains(key)), "{left:?}");
    assert_eq!(bucket.unfinished(), [""; 0]);
    for secret in [common::s3::access_key(), common::s3::secret_key()] {
        assert!(!said.contains(&secret), "{said}");
    }
}

#[test]
fn keys_come_from_the_environment_and_do_not_reach_children() {
    let bucket = Bucket::new();
    let sandbox = sandbox(&bucket, "");
    let none = sandbox.command(&["run-job", "shop", "--target", "s3"]).exits(10);
    none.stderr_has("there are no keys for it").stderr_has("AWS_ACCESS_KEY_ID").run();
    let with = |args: &[&str]| {
        let command = sandbox.command(args).env("AWS_ACCESS_KEY_ID", common::s3::access_key());
        command.env("AWS_SECRET_ACCESS_KEY", common::s3::secret_key()).stdout_any().stderr_any()
    };
    with(&["run-job", "shop"]).run();
    assert_eq!(bucket.keys().len(), 2);
    let seen = std::fs::read_to_string(sandbox.path("hook")).unwrap();
    assert!(seen.contains("VOXELTRON_JOB=") && !seen.contains("AWS_"), "{seen}");
    let wrong =
        with(&["-v", "list", "shop", "--target", "s3"]).env("AWS_SECRET_ACCESS_KEY", "canary-wrong").exits(14).run();
    assert!(wrong.stderr.contains("SignatureDoesNotMatch") && !wrong.stderr.contains("canary"), "{}", wrong.stderr);
}

#[test]
fn a_containers_role_gives_keys() {
    let (bucket, role) = (Bucket::new(), Proxy::new(address(), false));
    let body = serde_json::json!({
        "AccessKeyId": common::s3::access_key(), "SecretAccessKey": common::s3::secret_key(),
        "Token": "", "Expiration": "2099-01-01T00:00:00Z", "RoleArn": "x",
    });
    let body = body.to_string();
    role.answer(&format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let sandbox = sandbox(&bucket, "");
    let with = |endpoint: &str| {
        let command = sandbox.command(&["list", "shop", "--target", "s3"]);
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{endpoint}/role")).stderr_any()
    };
    with(&role.endpoint()).run();
    with("http://127.0.0.1:1").exits(10).stderr_has("this host's own role gives none").run();
}

#[test]
fn amazons_own_client_reads_what_is_stored() {
    let bucket = Bucket::new();
    let bytes = noise(2 * PART + 5);
    bucket.target("p/").put(&key("host/x@y+z%20"), &mut &bytes[..]).unwrap();
    let mut command = std::process::Command::new(common::from_runner("VOXELTRON_TEST_PYTHON"));
    command.args(["-m", "awscli", "--endpoint-url", &common::s3::endpoint(), "--region", "us-east-1", "s3", "cp"]);
    command.args([&format!("s3://{}/p/host/x@y+z%20", bucket.name), "-"]).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("AWS_ACCESS_KEY_ID", common::s3::access_key()).env("AWS_SECRET_ACCESS_KEY", common::s3::secret_key());
    let outcome = common::run(&mut command, b"");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert!(outcome.stdout_bytes.0 == bytes);
}

#[test]
fn many_objects_are_removed_by_one_request_and_each_failure_is_told() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let target = behind(&proxy, &bucket);
    let keys: Vec<ObjectKey> = (0..40).map(|number| key(&format!("host/{number}"))).collect();
    for key in &keys[1..] {
        bucket.put(&format!("p/{key}"), b"x");
    }
    bucket.put("p/host/other", b"x");
    proxy.set(None);
    assert!(target.delete_all(&keys).iter().all(Result::is_ok), "one that is not there is removed");
    assert_eq!(proxy.lines().len(), 1, "{:?}", proxy.lines());
    assert_eq!(bucket.keys(), ["p/host/other"]);
    // A store that does not know it.
    for key in &keys {
        bucket.put(&format!("p/{key}"), b"x");
    }
    proxy.refuse(|head| head.starts_with("POST").then_some("501 Not Implemented"));
    assert!(target.delete_all(&keys).iter().all(Result::is_ok));
    assert_eq!(bucket.keys(), ["p/host/other"]);
    // One that has no time: each object would be asked for as often again.
    proxy.refuse(|head| head.starts_with("POST").then_some("503 Slow Down"));
    proxy.set(None);
    let outcomes = target.delete_all(&keys[..3]);
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|failure| failure.cause == Cause::Failed)));
    assert!(proxy.lines().iter().all(|line| line.starts_with("POST")), "{:?}", proxy.lines());
    // One that is not there for us.
    proxy.refuse(|_| Some("403 Forbidden"));
    let outcomes = target.delete_all(&keys[..3]);
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|failure| failure.cause == Cause::Denied)));
    // One request, and an answer for each.
    let kept = |number: u32, code: &str| format!("<Error><Key>p/host/{number}</Key><Code>{code}</Code></Error>");
    let body = format!(
        "<DeleteResult><Deleted><Key>p/host/0</Key></Deleted>{}{}</DeleteResult>",
        kept(1, "AccessDenied"),
        kept(2, "InternalError")
    );
    proxy.refuse(|_| None);
    proxy.answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let outcomes = target.delete_all(&keys[..3]);
    let causes: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(|failure| failure.cause)).collect();
    assert_eq!(causes, [None, Some(Cause::Denied), Some(Cause::Failed)]);
}

#[test]
fn what_a_key_may_not_delete_is_retained_and_no_failure() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let keys =
        format!("access_key = \"{}\"\nsecret_key = \"{}\"\n", common::s3::access_key(), common::s3::secret_key());
    let sandbox = sandbox_at(&proxy.endpoint(), &bucket, &keys);
    proxy.refuse(|head| {
        let deletes = head.starts_with("DELETE") || head.lines().next().is_some_and(|line| line.contains("?delete"));
        deletes.then_some("403 AccessDenied:")
    });
    for _ in 0..3 {
        sandbox.command(&["run-job", "shop"]).stderr_any().run();
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert_eq!(bucket.keys().len(), 6, "three backups, each with its manifest");
    let pruned = sandbox.command(&["prune", "--force", "--target", "s3"]).stdout_has("but the target retains it").run();
    assert!(pruned.stdout.contains("AccessDenied"), "{}", pruned.stdout);
    assert_eq!(bucket.keys().len(), 6);
    let disk = sandbox.command(&["--json", "list", "--target", "local"]).stdout_any().run();
    assert_eq!(disk.stdout.matches("\"id\"").count(), 1, "where it may, one is left: {}", disk.stdout);
    // Where a probe can't be deleted, `check` says which permission is missing.
    let check = sandbox.command(&["check"]).exits(14).stdout_any().stderr_has("AccessDenied");
    check.stderr_has("let the key do s3:DeleteObject").run();
}

#[test]
fn a_busy_store_and_an_ended_session_are_told_apart_with_their_mends() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    let keys = "access_key = \"canary-access\"\nsecret_key = \"canary-secret\"\nsession_token = \"canary-token\"\n";
    let sandbox = sandbox_at(&proxy.endpoint(), &bucket, keys);
    // A busy one is asked again and again, and may not name its word where a HEAD was asked.
    for (status, code, said, hint) in [
        (400, "ExpiredToken", "400 ExpiredToken", "hint: renew `session_token` in [backup.targets.s3]"),
        (
            503,
            "SlowDown",
            "the store answered 503",
            "hint: the store is busy, or slows its caller down: try again later",
        ),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>canary-token</Message></Error>");
        proxy.answer(&format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        for (args, exit) in [(&["-v", "check"][..], 14), (&["-v", "run-job", "shop"], 3)] {
            proxy.set(None);
            let command = sandbox.command(args).exits(exit).stdout_any().stderr_has(said).stderr_has(hint);
            let outcome = command.run();
            assert!(!outcome.stderr.contains("canary"), "{}", outcome.stderr);
            assert_eq!(proxy.lines().len() > 5, code == "SlowDown", "{args:?}: {:?}", proxy.lines());
        }
    }
}

/// rclone, with nothing but the environment to know the store by.
fn rclone(args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(common::from_runner("VOXELTRON_TEST_RCLONE"));
    command.args(["--config", ""]).args(args).env_clear().env("PATH", "/usr/bin:/bin");
    for (name, value) in [
        ("TYPE", "s3".to_owned()),
        ("PROVIDER", "Other".to_owned()),
        ("ENDPOINT", common::s3::endpoint()),
        ("REGION", "us-east-1".to_owned()),
        ("ACCESS_KEY_ID", common::s3::access_key()),
        ("SECRET_ACCESS_KEY", common::s3::secret_key()),
    ] {
        command.env(format!("RCLONE_CONFIG_IT_{name}"), value);
    }
    command
}

#[test]
fn rclone_reads_what_the_program_stored_and_others_decode_it() {
    let bucket = Bucket::new();
    let sandbox = Sandbox::new();
    // More than two parts.
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (randomblob(12000000)), (2)");
    let job = |name: &str, more: &str| {
        format!(
            "[[backup.jobs]]\nname = \"{name}\"\ndatabase = \"shop\"\nschedule = \"@daily\"\ntarget = \"s3\"\n{more}\n"
        )
    };
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"hôst 1\"\nencryption_key = \"{KEY}\"\n\
         [backup.targets.s3]\nendpoint = \"{}\"\nbucket = \"{}\"\nprefix = \"all/ours\"\npart_size = 5\n\
         access_key = \"{}\"\nsecret_key = \"{}\"\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n{}{}",
        common::s3::endpoint(),
        bucket.name,
        common::s3::access_key(),
        common::s3::secret_key(),
        job("sealed", "encrypt = true"),
        job("open", "encrypt = false"),
    ));
    for name in ["sealed", "open"] {
        sandbox.command(&["run-job", name]).stdout_any().stderr_any().run();
    }
    let place = format!("it:{}/all/ours", bucket.name);
    let listed: serde_json::Value =
        serde_json::from_str(&common::tool(&mut rclone(&["lsjson", "-R", "--files-only", &place]), b"")).unwrap();
    let listed: BTreeMap<&str, u64> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["Path"].as_str().unwrap(), it["Size"].as_u64().unwrap()))
        .collect();
    assert_eq!(listed.len(), 4, "{listed:?}");
    let copy = sandbox.path("copy").display().to_string();
    common::tool(&mut rclone(&["copy", "--check-first", &place, &copy]), b"");
    for (path, size) in &listed {
        assert_eq!(std::fs::metadata(sandbox.path("copy").join(path)).unwrap().len(), *size, "{path}");
        let Some(stem) = path.strip_suffix(".manifest.json") else { continue };
        let manifest = common::run(&mut rclone(&["cat", &format!("{place}/{path}")]), b"").stdout_bytes.0;
        let signed = common::python_ok("tests/interop/manifest.py", &[KEY], &manifest);
        let signed: serde_json::Value = serde_json::from_slice(&signed).unwrap();
        let object = signed["signed"]["object"].as_str().unwrap().to_owned();
        assert!(object.starts_with(stem), "{object} of {path}");
        assert_eq!(signed["signed"]["stored_bytes"].as_u64(), listed.get(object.as_str()).copied());
        let file = sandbox.path("copy").join(&object).display().to_string();
        let sum = common::tool(std::process::Command::new("sha256sum").arg(&file), b"");
        assert!(sum.contains(signed["signed"]["stored_sha256"].as_str().unwrap()), "{sum}");

        let mut packed = common::run(&mut rclone(&["cat", &format!("{place}/{object}")]), b"").stdout_bytes.0;
        assert!(packed == std::fs::read(&file).unwrap(), "cat and copy");
        if object.contains(".enc") {
            let opened = sandbox.path("opened").display().to_string();
            common::python_ok("tests/interop/tink_open.py", &[KEY, &file, &opened], b"");
            packed = std::fs::read(opened).unwrap();
        }
        let none: [&str; 0] = [];
        sandbox.write("back.db", common::python_ok("tests/interop/gunzip.py", &none, &packed));
        assert_eq!(sqlite3(&sandbox.path("back.db"), ".dump"), sqlite3(&sandbox.path("shop.db"), ".dump"), "{object}");
    }
}

/// Prunes three backups, where the store keeps each for three days.
fn prunes_what_is_locked(bucket: &Bucket, more: &str) {
    let keys =
        format!("access_key = \"{}\"\nsecret_key = \"{}\"\n", common::s3::access_key(), common::s3::secret_key());
    let sandbox = sandbox(bucket, &format!("{keys}object_lock = \"COMPLIANCE\"\nobject_lock_days = 3\n{more}"));
    for _ in 0..3 {
        sandbox.command(&["run-job", "shop"]).stderr_any().run();
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert_eq!(bucket.keys().len(), 6, "three backups, each with its manifest");
    sandbox.command(&["prune", "--force", "--target", "s3"]).stdout_has("but the target retains it").run();
    assert_eq!(bucket.keys().len(), 6);
    let disk = sandbox.command(&["--json", "list", "--target", "local"]).stdout_any().run();
    assert_eq!(disk.stdout.matches("\"id\"").count(), 1, "where nothing is locked one is left: {}", disk.stdout);
    let until = bucket.head("x-amz-object-lock-retain-until-date");
    let days = |text: &str| (text.parse::<chrono::DateTime<Utc>>().unwrap() - Utc::now()).num_hours();
    assert!(!until.is_empty() && until.iter().all(|at| (71..=72).contains(&days(at))), "{until:?}");
}

#[test]
fn what_an_object_lock_keeps_is_retained_and_no_failure() {
    prunes_what_is_locked(&Bucket::lockable(), "sse = \"AES256\"\n");
}

#[test]
fn what_is_locked_at_a_store_with_versions_is_not_hidden_behind_a_mark() {
    let bucket = Bucket::lockable_with_versions();
    // It has no key of its own to encrypt with.
    prunes_what_is_locked(&bucket, "");
    // What was stored without a lock goes, by the same target.
    let lock = Lock { mode: "COMPLIANCE".to_owned(), days: 3 };
    let settings =
        Settings { protection: Protection { lock: Some(lock), ..Protection::default() }, ..bucket.settings("x/") };
    let target = settings.open(&keys(), &World::system()).unwrap();
    let (kept, other) = (key("host/kept"), key("host/other"));
    target.put(&kept, &mut &b"x"[..]).unwrap();
    bucket.put("x/host/other", b"x");
    let failure = target.delete(&kept).unwrap_err();
    assert_eq!(failure.cause, Cause::Retained, "{failure:?}");
    assert!(failure.error.message.contains("it is locked until "), "{failure:?}");
    // Nor is it where nobody can say for a moment whether it is locked: a mark would be set all the same.
    let address = bucket.endpoint.strip_prefix("http://").unwrap().to_owned();
    let proxy = Proxy::new(address, false);
    let far = Settings { endpoint: proxy.endpoint(), ..settings.clone() }.open(&keys(), &World::system()).unwrap();
    proxy.refuse(|head| head.starts_with("HEAD").then_some("503 SlowDown:"));
    let failure = far.delete(&kept).unwrap_err();
    assert_eq!(failure.cause, Cause::Failed, "{failure:?}");
    assert!(target.get(&kept).is_ok(), "it is hidden");
    let outcomes = target.delete_all(&[kept.clone(), other]);
    assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(target.list("").unwrap().into_iter().map(|stored| stored.key).collect::<Vec<_>>(), [kept]);
}
