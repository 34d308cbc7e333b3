//! Google Cloud Storage beyond the contract that every target keeps: edges of chunks, chunks that are taken in part, tokens
//! that end, checksums, every fault at every request, messages, and the whole program. Where the emulators don't check what
//! Google does, the server is our strict stub.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fmt::Write as _;
use std::io::Read;
use std::time::{Duration, Instant};

use common::faults::FailingBody;
use common::gcs::stub::{Knobs, Stub};
use common::gcs::{self, Bucket, account, stub, target};
use common::proxy::{Fault, Plan, Proxy, patience, table};
use common::sample::noise;
use common::{Sandbox, sqlite3};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::gcs::{Gcs, Identity, Settings};
use voxeltron_backup::target::{Cause, Target};
use voxeltron_backup::world::World;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The chunk size of the tests, in bytes.
const CHUNK: usize = 1024 * 1024;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn read(target: &Gcs, key: &ObjectKey) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut reader = target.get(key).map_err(|failure| failure.error)?;
    reader.read_to_end(&mut bytes).map_err(|error| Error::from_io(error, Kind::Other, "read"))?;
    Ok(bytes)
}

/// That nothing is visible, and nothing left.
fn nothing(stub: &Stub, what: &str) {
    assert_eq!((stub.keys(), stub.unfinished()), (vec![], vec![]), "{what}");
}

#[test]
fn objects_at_every_edge_of_a_chunk_come_back() {
    let (stub, fake) = (stub(), Bucket::fake());
    let (strict, loose) = (target(&stub, "p/"), fake.target("p/"));
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 4 * CHUNK + 12_345] {
        let (key, bytes) = (key(&format!("edge/{length}")), noise(length));
        for target in [&strict, &loose] {
            let stored = target.put(&key, &mut &bytes[..]).unwrap();
            assert_eq!(stored.size, length as u64);
            assert!(stored.modified.is_some());
            assert!(read(target, &key).unwrap() == bytes, "{length} bytes");
            assert_eq!(target.put(&key, &mut &bytes[..]).unwrap_err().cause, Cause::Exists);
        }
        assert!(stub.object(&format!("p/{key}")).unwrap().bytes == bytes, "{length} bytes at the server");
        assert!(fake.get(&format!("p/{key}")) == bytes, "{length} bytes, read by plain requests");
    }
    assert_eq!(stub.unfinished(), [""; 0]);
    assert_eq!(stub.tokens().len(), 1, "one token is enough");
}

#[test]
fn a_body_that_fails_anywhere_leaves_no_upload() {
    let stub = stub();
    let target = target(&stub, "p/");
    for good in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 700, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK + 5] {
        let own = Error::new(Kind::Tool, "pg_dump died").hint("look");
        let mut body = FailingBody { bytes: &noise(good), error: own.clone() };
        let failure = target.put(&key("host/shop/x"), &mut body).unwrap_err();
        assert_eq!((failure.cause, failure.error), (Cause::Body, own), "{good}");
        nothing(&stub, &good.to_string());
    }
}

/// Does something before the byte at `at` is read.
struct Meanwhile<'m> {
    left: usize,
    at: usize,
    act: Box<dyn FnMut() + 'm>,
}

impl Read for Meanwhile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let before = self.left.saturating_sub(self.at);
        if before == 0 && self.at != usize::MAX {
            self.at = usize::MAX;
            (self.act)();
        }
        let most = if before == 0 { self.left } else { before };
        let count = buffer.len().min(most);
        self.left -= count;
        Ok(count)
    }
}

#[test]
fn a_signal_in_the_middle_cancels_the_upload() {
    let (stub, world) = (stub(), World::system());
    let target = gcs::settings(&stub.endpoint(), "bucket", "").open(account(&stub), &world).unwrap();
    let act = Box::new(|| world.cancel.stop(15));
    let failure = target.put(&key("host/x"), &mut Meanwhile { left: 5 * CHUNK, at: 2 * CHUNK, act }).unwrap_err();
    assert_eq!(failure.error.kind, Kind::Stopped(15));
    nothing(&stub, "stopped");
    assert!(stub.log().iter().any(|line| line.starts_with("DELETE /upload/")), "{:?}", stub.log());
}

#[test]
fn another_writers_object_stays_when_it_came_during_the_upload() {
    let stub = stub();
    for length in [10, 2 * CHUNK + 3] {
        let name = format!("host/{length}");
        let act = Box::new(|| stub.put(&name, b"first"));
        let mut body = Meanwhile { left: length, at: 5, act };
        let failure = target(&stub, "").put(&key(&name), &mut body).unwrap_err();
        assert_eq!(failure.cause, Cause::Exists, "{failure:?}");
        assert_eq!(stub.object(&name).unwrap().bytes, b"first");
    }
    assert_eq!(stub.unfinished(), [""; 0]);
}

#[test]
fn a_chunk_that_is_taken_in_part_is_sent_on_from_there() {
    let stub = stub();
    let bytes = noise(3 * CHUNK + 99);
    for take in [1, 3, 4] {
        stub.turn(Knobs { take: take * 256 * 1024, ..Knobs::default() });
        let name = format!("host/{take}");
        target(&stub, "").put(&key(&name), &mut &bytes[..]).unwrap();
        assert!(stub.object(&name).unwrap().bytes == bytes, "{take} grains at once");
    }
}

#[test]
fn an_object_with_another_checksum_or_size_is_not_stored() {
    let stub = stub();
    for (knobs, said) in [
        (Knobs { wrong_sum: true, ..Knobs::default() }, "the checksum"),
        (Knobs { wrong_size: true, ..Knobs::default() }, "bytes after"),
    ] {
        stub.turn(knobs);
        let failure = target(&stub, "").put(&key("host/x"), &mut &noise(CHUNK + 5)[..]).unwrap_err();
        assert!(failure.error.message.contains(said), "{failure:?}");
        assert!(failure.error.message.ends_with("it was removed"), "{failure:?}");
        nothing(&stub, said);
    }
}

#[test]
fn what_is_read_is_compared_with_the_objects_checksum() {
    let stub = stub();
    stub.put("x", &noise(100_000));
    stub.turn(Knobs { wrong_sum: true, ..Knobs::default() });
    let mut reader = target(&stub, "").get(&key("x")).unwrap();
    let mut bytes = Vec::new();
    let failure = reader.read_to_end(&mut bytes).unwrap_err();
    assert!(failure.to_string().contains("other bytes than its checksum"), "{failure}");
    assert!(reader.read(&mut [0; 9]).is_err(), "who reads on gets no end");
}

#[test]
fn an_object_that_is_replaced_or_deleted_while_it_is_read_is_noticed() {
    let stub = stub();
    for replaced in [true, false] {
        stub.put("x", &noise(40 << 20));
        let mut reader = target(&stub, "").get(&key("x")).unwrap();
        reader.read_exact(&mut [0; 1000]).unwrap();
        if replaced {
            stub.put("x", &noise(40 << 20));
        } else {
            stub.remove("x");
        }
        let failure = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(failure.to_string().contains("was replaced or deleted while it was read"), "{failure}");
    }
}

#[test]
fn a_token_that_ends_in_the_middle_of_an_upload_is_renewed() {
    // One that the server ends before its time: a 401, and once more.
    let stub = stub();
    let act = Box::new(|| stub.end_tokens());
    target(&stub, "").put(&key("host/x"), &mut Meanwhile { left: 5 * CHUNK, at: 2 * CHUNK, act }).unwrap();
    assert_eq!((stub.tokens().len(), stub.object("host/x").unwrap().bytes.len()), (2, 5 * CHUNK));
    // One that has only three seconds: renewed at its half, so that no request is refused.
    stub.turn(Knobs { token_seconds: 3, ..Knobs::default() });
    let act = Box::new(|| std::thread::sleep(Duration::from_millis(1_800)));
    target(&stub, "").put(&key("host/y"), &mut Meanwhile { left: 5 * CHUNK, at: 2 * CHUNK, act }).unwrap();
    assert!(stub.tokens().len() >= 4, "{:?}", stub.tokens().len());
    // A server that takes no token gets one more, and no third.
    let before = stub.tokens().len();
    stub.turn(Knobs {
        canned: vec![canned("GET /storage/", 401, "authError", "Invalid Credentials")],
        ..Knobs::default()
    });
    assert_eq!(target(&stub, "").list("").unwrap_err().cause, Cause::Denied);
    assert_eq!(stub.tokens().len(), before + 2);
}

#[test]
fn a_listing_is_whole_or_an_error() {
    let stub = stub();
    for number in 0..25 {
        stub.put(&format!("p/host/{number:02}"), b"x");
    }
    stub.turn(Knobs { page: 1, ..Knobs::default() });
    assert_eq!(target(&stub, "p/").list("host/").unwrap().len(), 25);
    stub.turn(Knobs { page: 7, circle: true, ..Knobs::default() });
    let failure = target(&stub, "p/").list("host/").unwrap_err();
    assert!(failure.error.message.contains("goes in a circle"), "{failure:?}");
    for body in ["{}", "<html>sign in</html>", "{\"kind\": \"storage#buckets\"}", ""] {
        let canned = vec![("GET /storage/".to_owned(), "200 OK".to_owned(), body.to_owned())];
        stub.turn(Knobs { canned, ..Knobs::default() });
        let failure = target(&stub, "p/").list("host/").unwrap_err();
        assert!(failure.error.message.contains("does not answer as Google Cloud Storage"), "{body}: {failure:?}");
    }
}

#[test]
fn an_upload_that_the_store_forgets_fails_and_shows_nothing() {
    let stub = stub();
    for after in 0..4 {
        stub.turn(Knobs { forget_after: Some(after), ..Knobs::default() });
        let fresh = gcs::stub();
        fresh.turn(Knobs { forget_after: Some(after), ..Knobs::default() });
        let failure = target(&fresh, "").put(&key("host/x"), &mut &noise(3 * CHUNK + 1)[..]).unwrap_err();
        assert!(failure.error.message.ends_with("the upload of host/x is gone at the store"), "{failure:?}");
        nothing(&fresh, &after.to_string());
    }
}

/// A target behind a proxy, with all patience; its tokens come through the proxy, too.
fn behind(proxy: &Proxy, bucket: &str, identity: Option<Identity>, part_mib: u32) -> Gcs {
    with_patience(proxy, bucket, identity, part_mib, None)
}

/// The same with the patience of a test for this fault, where all of it takes so long without one.
fn with_patience(
    proxy: &Proxy,
    bucket: &str,
    identity: Option<Identity>,
    part_mib: u32,
    fault: Option<(Fault, Duration)>,
) -> Gcs {
    let (fault, whole) = fault.unzip();
    let patience = patience(fault, [700, 900], 32 << 20, whole.unwrap_or_default());
    let settings = Settings { patience, part_mib, ..gcs::settings(&proxy.endpoint(), bucket, "p/") };
    let text = gcs::credentials(&gcs::service_key().0, &format!("{}/token", proxy.endpoint()));
    let identity = identity.unwrap_or_else(|| Identity::account(&Secret::new(text), "the test's").unwrap());
    settings.open(identity, &proxy.world()).unwrap()
}

/// How many bytes the tables' uploads have, in how large chunks (MiB).
fn upload_size() -> (usize, u32) {
    match std::env::var("VOXELTRON_TEST_LONG").as_deref() {
        Ok("1") => (100_000_000, 8),
        _ => (20_500_000, 8),
    }
}

#[test]
fn every_fault_at_every_request_of_an_upload_ends_whole_or_leaves_nothing() {
    let stub = stub();
    let proxy = Proxy::new(stub.address(), false);
    let (size, part_mib) = upload_size();
    let bytes = noise(size);
    proxy.set(None);
    let started = Instant::now();
    behind(&proxy, "bucket", None, part_mib).put(&key("host/x"), &mut &bytes[..]).unwrap();
    let whole = started.elapsed();
    let lines = proxy.lines();
    assert_eq!(lines.len(), 2 + size.div_ceil((part_mib as usize) << 20), "{lines:?}");
    stub.remove("p/host/x");
    let mut run = |plan: Plan| {
        let before = stub.unfinished().len();
        proxy.set(Some(plan));
        let target = with_patience(&proxy, "bucket", None, part_mib, Some((plan.fault, whole)));
        let outcome = target.put(&key("host/x"), &mut &bytes[..]);
        proxy.set(None);
        // One whose beginning was answered into the void can't be cancelled; the store forgets it.
        let left = stub.unfinished().len();
        assert!(left <= before + usize::from(plan.at == 1), "{plan:?}: {before}, then {left} unfinished");
        match outcome {
            Ok(stored) => {
                assert_eq!(stored.size, bytes.len() as u64);
                assert!(stub.object("p/host/x").unwrap().bytes == bytes, "{plan:?}");
                stub.remove("p/host/x");
                "ok"
            }
            Err(failure) => {
                assert_eq!(stub.keys(), [""; 0], "{plan:?}: {failure:?}");
                "clean failure"
            }
        }
    };
    // A token's answer that is no document is a stranger's, and ends it.
    let fatal = ["token ErrorIn200", "token TooShort"];
    table(&format!("upload of {size} bytes to the stub, a fault once"), &lines, &fatal, &mut run);
}

#[test]
fn every_fault_at_every_request_of_an_upload_to_an_emulator_ends_whole_or_leaves_nothing() {
    let bucket = Bucket::new("VOXELTRON_TEST_GCS_EMULATOR");
    let proxy = Proxy::new(bucket.address(), false);
    let (size, part_mib) = (20_500_000, 8);
    let bytes = noise(size);
    let target = behind(&proxy, &bucket.name, Some(Identity::Anonymous), part_mib);
    proxy.set(None);
    let started = Instant::now();
    target.put(&key("host/x"), &mut &bytes[..]).unwrap();
    let whole = started.elapsed();
    let lines = proxy.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    bucket.delete("p/host/x");
    let mut run = |plan: Plan| {
        let fault = Some((plan.fault, whole));
        let target = with_patience(&proxy, &bucket.name, Some(Identity::Anonymous), part_mib, fault);
        proxy.set(Some(plan));
        let outcome = target.put(&key("host/x"), &mut &bytes[..]);
        proxy.set(None);
        match outcome {
            Ok(_) => {
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
    // Asked for an upload of which it has not got a byte, it does not answer as Google does.
    let faults = ["Close", "Error500", "Error503", "ErrorIn200", "Refuse", "ResetRequest", "Stall", "StallRequest"];
    let fatal = faults.map(|fault| format!("PUT {fault}"));
    let fatal: Vec<&str> = fatal.iter().map(String::as_str).collect();
    table(&format!("upload of {size} bytes to gcp-storage-emulator, a fault once"), &lines, &fatal, &mut run);
}

#[test]
fn an_upload_of_which_the_store_has_not_a_byte_is_sent_from_its_start() {
    // Google's answer to a question about it is a 308 without a Range; a chunk comes whole then, as often as it takes.
    let stub = stub();
    let proxy = Proxy::new(stub.address(), false);
    let bytes = noise(2 * CHUNK + 9);
    for (fault, count) in [(Fault::Close, 1), (Fault::ResetRequest, 1), (Fault::Error503, 1), (Fault::Error500, 3)] {
        let target = behind(&proxy, "bucket", None, 1);
        proxy.set(Some(Plan { at: 2, count, fault }));
        target.put(&key("host/x"), &mut &bytes[..]).unwrap();
        let lines = proxy.lines();
        assert!(stub.object("p/host/x").unwrap().bytes == bytes, "{fault:?}: {lines:?}");
        let chunk = |from: usize, to: usize, of: &str| format!("PUT bytes {from}-{}/{of}", to - 1);
        let end = 2 * CHUNK + 9;
        let expected = [
            "PUT bytes */*".to_owned(),
            chunk(0, CHUNK, "*"),
            chunk(CHUNK, 2 * CHUNK, "*"),
            chunk(2 * CHUNK, end, &end.to_string()),
        ];
        assert_eq!(lines[lines.len() - 4..], expected, "{fault:?}");
        stub.remove("p/host/x");
    }
    // One whose only chunk is the last, and one without a byte.
    for length in [9, 0] {
        let target = behind(&proxy, "bucket", None, 1);
        proxy.set(Some(Plan { at: 2, count: 1, fault: Fault::Close }));
        target.put(&key("host/x"), &mut &bytes[..length]).unwrap();
        assert_eq!(stub.object("p/host/x").unwrap().bytes, &bytes[..length], "{:?}", proxy.lines());
        stub.remove("p/host/x");
    }
    assert_eq!(stub.unfinished(), [""; 0]);
}

#[test]
fn every_fault_at_every_request_of_a_download_ends_whole_or_in_an_error() {
    let stub = stub();
    let proxy = Proxy::new(stub.address(), false);
    let size = if std::env::var_os("VOXELTRON_TEST_LONG").is_some() { 100_000_000 } else { 40_000_000 };
    let bytes = noise(size);
    stub.put("p/host/x", &bytes);
    proxy.set(None);
    let started = Instant::now();
    assert!(read(&behind(&proxy, "bucket", None, 8), &key("host/x")).unwrap() == bytes);
    let whole = started.elapsed();
    let lines = proxy.lines();
    assert_eq!(lines.len(), 2 + size.div_ceil(16 << 20), "{lines:?}");
    let mut run = |plan: Plan| {
        proxy.set(Some(plan));
        match read(&with_patience(&proxy, "bucket", None, 8, Some((plan.fault, whole))), &key("host/x")) {
            Ok(got) => {
                assert!(got == bytes, "{plan:?}");
                "ok"
            }
            Err(failure) => {
                assert_eq!(failure.kind, Kind::Target, "{plan:?}");
                "clean failure"
            }
        }
    };
    // An answer that is no document is a stranger's.
    let fatal = ["GET ErrorIn200", "GET TooShort", "token ErrorIn200", "token TooShort"];
    table(&format!("download of {size} bytes from the stub, a fault once"), &lines, &fatal, &mut run);
}

#[test]
fn a_store_that_ends_an_upload_when_it_is_asked_about_it_shows_nothing() {
    // fake-gcs-server does: what it has by then becomes the object.
    let bucket = Bucket::fake();
    let proxy = Proxy::new(bucket.address(), false);
    let target = behind(&proxy, &bucket.name, Some(Identity::Anonymous), 1);
    for at in [1, 2, 3] {
        proxy.set(Some(Plan { at, count: 1, fault: Fault::Error500 }));
        let failure = target.put(&key("host/x"), &mut &noise(2 * CHUNK + 9)[..]).unwrap_err();
        assert!(failure.error.message.ends_with("it was removed"), "{failure:?}");
        assert_eq!(bucket.keys(), [""; 0], "{at}");
    }
}

#[test]
fn a_store_that_goes_away_for_good_shows_nothing() {
    let stub = stub();
    let proxy = Proxy::new(stub.address(), false);
    let bytes = noise(2 * CHUNK + 9);
    for at in 0..5 {
        for fault in [Fault::Refuse, Fault::ResetRequest, Fault::Error503] {
            proxy.set(Some(Plan { at, count: usize::MAX / 2, fault }));
            let failure = behind(&proxy, "bucket", None, 1).put(&key("host/x"), &mut &bytes[..]).unwrap_err();
            assert_eq!((failure.cause, failure.error.kind), (Cause::Failed, Kind::Target));
            assert_eq!(stub.keys(), [""; 0]);
        }
    }
}

fn canned(begin: &str, status: u16, reason: &str, message: &str) -> (String, String, String) {
    let error = serde_json::json!({"code": status, "message": message, "errors": [{"reason": reason}]});
    (begin.to_owned(), format!("{status} x"), serde_json::json!({ "error": error }).to_string())
}

/// A failure as the program shows it, with what differs from run to run taken out.
fn shown(failure: &Error, stub: &Stub) -> String {
    let text = format!("{}\nhint: {}\n", failure.message, failure.hint.as_deref().unwrap_or("-"));
    for secret in gcs::secrets(stub) {
        assert!(!text.contains(&secret), "{text}");
    }
    text.replace(&stub.endpoint(), "ENDPOINT")
}

#[test]
fn each_mistake_has_its_own_message() {
    let stub = stub();
    let fast = || Settings { name: "offsite".to_owned(), ..gcs::settings(&stub.endpoint(), "bucket", "") };
    let mut all = String::new();
    let mut tell = |title: &str, settings: &Settings, identity: Identity| {
        let target = settings.open(identity, &World::system()).unwrap();
        let put = target.put(&key("host/x"), &mut &b"x"[..]).err();
        let get = target.get(&key("host/x")).err();
        writeln!(all, "## {title}").unwrap();
        for failure in [put, get, target.list("host/").err(), target.delete(&key("host/x")).err()] {
            match failure {
                Some(failure) => write!(all, "{:?}: {}", failure.cause, shown(&failure.error, &stub)).unwrap(),
                None => all.push_str("fine\n"),
            }
        }
        all.push('\n');
    };
    let other = Secret::new(gcs::credentials(&gcs::new_key().0, &stub.token_uri()));
    tell("a key that Google does not know", &fast(), Identity::account(&other, "x").unwrap());
    tell("no credentials where a token is wanted", &fast(), Identity::Anonymous);
    tell("no such bucket", &Settings { bucket: "no-such-bucket".to_owned(), ..fast() }, account(&stub));
    let unknown = Settings { endpoint: "http://no-such-host.invalid".to_owned(), ..fast() };
    tell("no such host", &unknown, account(&stub));
    tell("nobody listens", &Settings { endpoint: "http://127.0.0.1:1".to_owned(), ..fast() }, account(&stub));
    tell("no such path", &Settings { endpoint: format!("{}/x", stub.endpoint()), ..fast() }, account(&stub));
    tell(
        "a storage class that is none",
        &Settings { storage_class: Some("NONSENSE".to_owned()), ..fast() },
        account(&stub),
    );
    let lost = Secret::new(gcs::credentials(&gcs::service_key().0, "http://127.0.0.1:1/token"));
    tell("no token endpoint", &fast(), Identity::account(&lost, "x").unwrap());
    tell("no metadata server", &fast(), Identity::Host("127.0.0.1:1".to_owned()));
    stub.turn(Knobs { ahead: -4_000, ..Knobs::default() });
    tell("a clock that is wrong", &fast(), account(&stub));
    let https = Settings { endpoint: stub.endpoint().replace("http:", "https:"), ..fast() };
    stub.turn(Knobs::default());
    tell("TLS where there is none", &https, account(&stub));
    insta::assert_snapshot!(all.replace(&https.endpoint, "ENDPOINT"));
}

#[test]
fn what_the_store_answers_is_told_with_its_mend_and_without_secrets() {
    let stub = stub();
    let settings = Settings { name: "offsite".to_owned(), ..gcs::settings(&stub.endpoint(), "bucket", "") };
    let mut all = String::new();
    let who = "backup@tests.iam.gserviceaccount.com";
    let no = |what: &str| {
        format!(
            "{who} does not have {what} access to the Google Cloud Storage object. Permission '{what}' denied on resource."
        )
    };
    let kept = "Object 'bucket/host/x' is subject to bucket's retention policy or object retention and cannot be deleted or \
                overwritten until 2026-12-01T00:00:00.0-08:00";
    let held = "Object 'bucket/host/x' is under active Temporary hold and cannot be deleted, overwritten or archived until hold \
                is removed.";
    for (status, reason, message) in [
        (403, "forbidden", no("storage.objects.delete").as_str()),
        (403, "forbidden", "Access denied."),
        (403, "retentionPolicyNotMet", kept),
        (403, "objectUnderActiveHold", held),
        (403, "accountDisabled", "The project to be billed is associated with a closed billing account."),
        (401, "authError", "Invalid Credentials: {authorization} {sent}"),
        (403, "forbidden", "{authorization}"),
        (429, "rateLimitExceeded", "The object exceeded the rate limit."),
        (503, "backendError", "We encountered an internal error. Please try again."),
        (418, "{authorization}", ""),
    ] {
        let begin = "DELETE /storage/";
        stub.turn(Knobs { canned: vec![canned(begin, status, reason, message)], ..Knobs::default() });
        let failure = settings.open(account(&stub), &World::system()).unwrap().delete(&key("host/x")).unwrap_err();
        writeln!(all, "{:?}: {}", failure.cause, shown(&failure.error, &stub)).unwrap();
    }
    // What a token endpoint answers may hold anything.
    for (status, body) in [
        ("400 x", "{\"error\": \"{sent}\", \"error_description\": \"{sent}\"}"),
        ("400 x", "{\"error\": \"unauthorized_client\", \"error_description\": \"{sent}\"}"),
        ("200 OK", "{\"access_token\": \"\", \"x\": \"{sent}\"}"),
        ("200 OK", "{\"access_token\": \"a\\nb\"}"),
        ("403 x", "{sent}"),
    ] {
        let canned = vec![("POST /token".to_owned(), status.to_owned(), body.to_owned())];
        stub.turn(Knobs { canned, ..Knobs::default() });
        let failure = settings.open(account(&stub), &World::system()).unwrap().list("").unwrap_err();
        writeln!(all, "{:?}: {}", failure.cause, shown(&failure.error, &stub)).unwrap();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_certificate_of_the_stores_own_authority_is_trusted_by_ca_file_alone() {
    let endpoint = common::from_runner("VOXELTRON_TEST_S3_TLS_ENDPOINT");
    let bare = gcs::settings(&endpoint, "private", "");
    let open = |settings: &Settings| settings.open(Identity::Anonymous, &World::system()).unwrap();
    let failure = open(&bare).list("").unwrap_err().error;
    assert!(failure.message.contains("no TLS connection to https://localhost"), "{failure:?}");
    assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("`ca_file`")), "{failure:?}");
    // It is no Google Cloud Storage that listens there, but TLS is well.
    let ca_file = Some(common::from_runner("VOXELTRON_TEST_S3_CA").into());
    let failure = open(&Settings { ca_file, ..bare }).list("").unwrap_err().error;
    assert!(failure.message.contains("the store answered"), "{failure:?}");
}

#[test]
fn googles_own_client_reads_what_is_stored() {
    let bytes = noise(2 * CHUNK + 5);
    for bucket in [Bucket::fake(), Bucket::new("VOXELTRON_TEST_GCS_EMULATOR")] {
        let names = ["host/shop/x@y+z%20", "host/shop/empty"];
        bucket.target("p/").put(&key(names[0]), &mut &bytes[..]).unwrap();
        bucket.target("p/").put(&key(names[1]), &mut &b""[..]).unwrap();
        let mut command = std::process::Command::new(common::from_runner("VOXELTRON_TEST_PYTHON"));
        command.args(["tests/interop/gcs_read.py", &bucket.endpoint, &bucket.name, &format!("p/{}", names[0])]);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        let outcome = common::run(&mut command, b"");
        assert!(outcome.status.success(), "{}", outcome.stderr);
        assert!(outcome.stdout_bytes.0 == bytes, "{}", bucket.endpoint);
        assert!(outcome.stderr.contains("p/host/shop/empty 0 application/octet-stream None"), "{}", outcome.stderr);
    }
}

/// A configuration with a database, a local target and the stub's bucket; `{more}` are the lines that say who we are.
fn sandbox(stub: &Stub, more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (randomblob(3000000)), (2)");
    let file = sandbox.write("account.json", gcs::credentials(&gcs::service_key().0, &stub.token_uri()));
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    sandbox.configure_local(
        Some(KEY),
        &format!(
            "[backup.targets.gcs]\nendpoint = \"{}\"\nbucket = \"bucket\"\nprefix = \"all/ours\"\npart_size = 1\n\
             storage_class = \"NEARLINE\"\n{more}\
             [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [[backup.jobs]]\nname = \"shop\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
             target = [\"local\", \"gcs\"]\nkeep_last = 1\nafter = \"env > {{dir}}/hook\"\n",
            stub.endpoint(),
        ),
    );
    sandbox
}

#[test]
fn the_whole_program_backs_up_to_a_disk_and_a_bucket_and_restores_from_it() {
    let stub = stub();
    let sandbox = sandbox(&stub, "credentials_file = \"{dir}/account.json\"\n");
    let mut said = String::new();
    let mut run = |args: &[&str]| {
        let outcome = sandbox.command(args).stdout_any().stderr_any().run();
        write!(said, "{}{}", outcome.stdout, outcome.stderr).unwrap();
        outcome.stdout
    };
    let before = sqlite3(&sandbox.path("shop.db"), ".dump");
    run(&["-v", "check", "--offline"]);
    assert_eq!(stub.log(), [""; 0], "nobody was asked");
    run(&["-v", "check"]);
    nothing(&stub, "the probe is gone");
    run(&["-v", "run-job", "shop"]);
    let keys = stub.keys();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in &keys {
        assert!(key.starts_with("all/ours/host/shop/"), "{key}");
        assert_eq!(stub.object(key).unwrap().about["storageClass"], "NEARLINE");
    }
    assert!(run(&["-v", "list", "shop"]).contains("gcs"));
    run(&["-v", "verify", "shop", "--target", "gcs", "--restore"]);
    sqlite3(&sandbox.path("shop.db"), "drop table t");
    run(&["-v", "restore", "shop", "--latest", "--target", "gcs"]);
    assert_eq!(sqlite3(&sandbox.path("shop.db"), ".dump"), before);

    // A second one, and the first is too many, once it is not the last that was proved.
    std::thread::sleep(Duration::from_millis(1_100));
    run(&["-v", "run-job", "shop"]);
    run(&["-v", "verify", "shop", "--target", "gcs", "--restore"]);
    run(&["-v", "prune", "shop"]);
    let left = stub.keys();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|key| !keys.contains(key)), "{left:?}");
    assert_eq!(stub.unfinished(), [""; 0]);
    for secret in gcs::secrets(&stub) {
        assert!(!said.contains(&secret), "{said}");
    }
}

#[test]
fn credentials_come_from_the_environment_or_the_host() {
    let stub = stub();
    let sandbox = sandbox(&stub, "");
    let none = sandbox.command(&["run-job", "shop", "--target", "gcs"]).exits(10);
    none.stderr_has("there are no credentials for http://").stderr_has("GOOGLE_APPLICATION_CREDENTIALS").run();
    let path = sandbox.path("account.json").display().to_string();
    let named = sandbox.command(&["run-job", "shop"]).env("GOOGLE_APPLICATION_CREDENTIALS", &path);
    named.stdout_any().stderr_any().run();
    assert_eq!((stub.keys().len(), stub.tokens().len()), (2, 1));
    let seen = std::fs::read_to_string(sandbox.path("hook")).unwrap();
    assert!(seen.contains("VOXELTRON_JOB=") && !seen.contains("GOOGLE_"), "{seen}");

    let host = |address: &str| {
        let command = sandbox.command(&["list", "shop", "--target", "gcs"]).env("GCE_METADATA_HOST", address);
        command.stdout_any().stderr_any()
    };
    host(&stub.address()).run();
    assert!(stub.log().iter().any(|line| line.ends_with("/service-accounts/default/token")), "{:?}", stub.log());
    host("127.0.0.1:1").exits(14).stderr_has("no token for this host's service account").run();
    // A stranger at the metadata server's address is not believed.
    let body = "{\"access_token\": \"x\", \"expires_in\": 9}";
    let canned = vec![("GET /computeMetadata".to_owned(), "200 OK".to_owned(), body.to_owned())];
    stub.turn(Knobs { canned, ..Knobs::default() });
    host(&stub.address()).exits(14).stderr_has("does not answer as Google's metadata server does").run();
}

#[test]
fn a_credentials_file_that_can_not_be_used_is_a_configuration_error_that_quotes_nothing() {
    let stub = stub();
    let sandbox = sandbox(&stub, "credentials_file = \"{dir}/account.json\"\n");
    let good = gcs::credentials(&gcs::service_key().0, &stub.token_uri());
    let run = || sandbox.command(&["-v", "run-job", "shop", "--target", "gcs"]).exits(10).stderr_any().run().stderr;
    for (text, said) in [
        ("canary-".to_owned(), "is not a credentials file"),
        (format!("{good}canary-"), "is not a credentials file"),
        (good.replace("service_account", "authorized_user"), "is not of type \"service_account\""),
        (good.replace("BEGIN PRIVATE", "BEGIN CANARY"), "has no `private_key` that can sign"),
        (good.replace("\\nMII", "\\ncanary-"), "has no `private_key` that can sign"),
        (good.replace("http://", "gopher://"), "has no `client_email` or no `token_uri`"),
        (String::new(), "the secret is empty"),
    ] {
        std::fs::write(sandbox.path("account.json"), text).unwrap();
        let stderr = run();
        assert!(stderr.contains(said), "{said}: {stderr}");
        for secret in gcs::secrets(&stub) {
            assert!(!stderr.contains(&secret), "{stderr}");
        }
    }
    std::fs::set_permissions(sandbox.path("account.json"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .unwrap();
    assert!(run().contains("others can write to"));
    assert_eq!(stub.log(), [""; 0]);
}

#[test]
fn secrets_stay_out_of_every_message_whatever_the_server_answers() {
    let stub = stub();
    let sandbox = sandbox(&stub, "credentials_file = \"{dir}/account.json\"\n");
    let echo =
        "{\"error\": {\"message\": \"{authorization} {sent}\", \"errors\": [{\"reason\": \"{authorization}\"}]}}";
    for (begin, status, body) in [
        ("POST /upload", "403 x", echo),
        ("POST /upload", "400 x", "{authorization}"),
        ("PUT /upload", "400 x", echo),
        ("PUT /upload", "200 OK", "{\"name\": \"{authorization}\"}"),
        ("GET /storage", "200 OK", "{\"kind\": \"{authorization}\", \"items\": \"{authorization}\"}"),
        ("GET /storage", "401 x", echo),
        ("POST /token", "400 x", "{\"error\": \"invalid_grant\", \"error_description\": \"{sent}\"}"),
        ("POST /token", "500 x", "{sent}"),
    ] {
        let canned = vec![(begin.to_owned(), status.to_owned(), body.to_owned())];
        stub.turn(Knobs { canned, ..Knobs::default() });
        for args in
            [&["-v", "run-job", "shop", "--target", "gcs"][..], &["-v", "--json", "list", "shop", "--target", "gcs"]]
        {
            if begin.starts_with("POST /token") && args[1] == "--json" || status == "500 x" && args[1] != "--json" {
                continue;
            }
            let mut command = sandbox.command(args).into_command();
            let outcome = common::run(&mut command, b"");
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            for secret in gcs::secrets(&stub) {
                assert!(!said.contains(&secret), "{begin}: {said}");
            }
        }
    }
}

#[test]
fn what_the_configuration_says_wrong_is_told_with_its_mend() {
    let stub = stub();
    for (more, said) in [
        ("credential_file = \"/x\"\n", "did you mean `credentials_file`?"),
        ("anonymous = true\ncredentials_file = \"/x\"\n", "stands beside `credentials_file`"),
        ("credentials_file = \"x\"\n", "is not an absolute path"),
        ("anonymous = \"yes\"\n", "must be true or false"),
    ] {
        sandbox(&stub, more).command(&["check", "--offline"]).exits(10).stdout_any().stderr_has(said).run();
    }
}

#[test]
fn a_store_that_takes_the_same_again_and_again_is_given_up() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let place = endpoint.clone();
    // It takes some from the start, and then has nothing of it: two servers that do not know of each other.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length, mut first, mut starts) = (String::new(), 0, String::new(), false);
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                if first.is_empty() {
                    first.clone_from(&line);
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                starts |= line.to_ascii_lowercase().starts_with("content-range: bytes 0-");
                line.clear();
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let answer = match starts {
                _ if first.starts_with("POST") => format!("200 OK\r\nLocation: {place}/up?upload_id=abcdefgh"),
                _ if first.starts_with("DELETE") => "499 x".to_owned(),
                true => "308 x\r\nRange: bytes=0-262143".to_owned(),
                false => "308 x".to_owned(),
            };
            stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        }
    });
    let target = gcs::settings(&endpoint, "bucket", "").open(Identity::Anonymous, &World::system()).unwrap();
    let failure = target.put(&key("host/x"), &mut &noise(3_000_000)[..]).unwrap_err();
    assert_eq!(failure.cause, Cause::Failed, "{failure:?}");
    let asked = asked.load(std::sync::atomic::Ordering::SeqCst);
    assert!((5..40).contains(&asked), "{asked} requests");
}
