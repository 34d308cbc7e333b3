//! Voxeltron Cloud beyond the contract that every target keeps, against the reference server: linking, tokens that end, every
//! fault at every request, quota and retention, foreign clients, and the whole program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::cloud::{Account, account, address, approve, endpoint, settings};
use common::faults::FailingBody;
use common::proxy::{Fault, Plan, Proxy, patience, table};
use common::sample::noise;
use common::{Sandbox, sqlite3};
use serde_json::{Value, json};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::target::cloud::link::{Link, LinkFile};
use voxeltron_backup::target::cloud::{Cloud, Settings};
use voxeltron_backup::target::{Cause, Target};
use voxeltron_backup::world::World;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// A token's answer that is no document is a stranger's, and ends it.
const NO_TOKEN: [&str; 2] = ["token ErrorIn200", "token TooShort"];
/// The chunk size of the tests, in bytes.
const CHUNK: usize = 1024 * 1024;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn read(target: &Cloud, key: &ObjectKey) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut reader = target.get(key).map_err(|failure| failure.error)?;
    reader.read_to_end(&mut bytes).map_err(|error| Error::from_io(error, Kind::Other, "read"))?;
    Ok(bytes)
}

/// That nothing is visible, and nothing left.
fn nothing(account: &Account, what: &str) {
    assert_eq!((account.keys(), account.unfinished()), (vec![], vec![]), "{what}");
}

#[test]
fn objects_at_every_edge_of_a_chunk_come_back() {
    let account = account();
    let target = account.target("p/");
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 4 * CHUNK + 12_345] {
        let (key, bytes) = (key(&format!("edge/{length}")), noise(length));
        let stored = target.put(&key, &mut &bytes[..]).unwrap();
        assert_eq!(stored.size, length as u64);
        assert!(stored.modified.is_some());
        assert!(read(&target, &key).unwrap() == bytes, "{length} bytes");
        assert!(account.get(&format!("p/{key}")).bytes().unwrap() == bytes, "{length} bytes, by a plain request");
        assert_eq!(target.put(&key, &mut &bytes[..]).unwrap_err().cause, Cause::Exists);
    }
    assert_eq!(account.unfinished(), [""; 0]);
}

#[test]
fn a_body_that_fails_anywhere_leaves_no_upload() {
    let account = account();
    let target = account.target("p/");
    for good in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 700, 2 * CHUNK + 1] {
        let own = Error::new(Kind::Tool, "pg_dump died").hint("look");
        let mut body = FailingBody { bytes: &noise(good), error: own.clone() };
        let failure = target.put(&key("host/shop/x"), &mut body).unwrap_err();
        assert_eq!((failure.cause, failure.error), (Cause::Body, own), "{good}");
        nothing(&account, &good.to_string());
    }
}

/// Does something before the byte at `at` from the end is read.
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
fn a_signal_in_the_middle_terminates_the_upload() {
    let (account, world) = (account(), World::system());
    let target = account.open(&endpoint(), &settings(""), &world);
    let act = Box::new(|| {
        assert_eq!(account.unfinished(), ["host/x"]);
        world.cancel.stop(15);
    });
    let failure = target.put(&key("host/x"), &mut Meanwhile { left: 5 * CHUNK, at: 2 * CHUNK, act }).unwrap_err();
    assert_eq!(failure.error.kind, Kind::Stopped(15));
    nothing(&account, "stopped");
}

#[test]
fn another_writers_object_stays_when_it_came_during_the_upload() {
    let account = account();
    let target = account.target("");
    for length in [10 + CHUNK, 2 * CHUNK + 3] {
        let name = format!("host/{length}");
        let act = Box::new(|| account.put(&name, b"first"));
        let failure = target.put(&key(&name), &mut Meanwhile { left: length, at: 5, act }).unwrap_err();
        assert_eq!(failure.cause, Cause::Exists, "{failure:?}");
        assert_eq!(account.get(&name).bytes().unwrap(), b"first");
    }
    assert_eq!(account.unfinished(), [""; 0]);
}

#[test]
fn a_token_that_ends_in_the_middle_of_an_upload_is_renewed_and_kept() {
    // One that the server ends before its time: a 401, and once more.
    let ended = account();
    let target = ended.target("");
    let first = ended.file().read().unwrap().unwrap().0.tokens;
    let act = Box::new(|| ended.expire());
    target.put(&key("host/x"), &mut Meanwhile { left: 5 * CHUNK, at: 2 * CHUNK, act }).unwrap();
    let second = ended.file().read().unwrap().unwrap().0.tokens;
    assert!(first.access != second.access && first.refresh != second.refresh, "the renewed pair is in the file");
    assert_eq!(ended.file().path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // One that has only two seconds: renewed at its half, by itself.
    let short = Account::new(&json!({"token_seconds": 2}));
    let target = short.target("");
    let act = Box::new(|| std::thread::sleep(Duration::from_millis(2_300)));
    target.put(&key("host/y"), &mut Meanwhile { left: 5 * CHUNK, at: 2 * CHUNK, act }).unwrap();
    assert_eq!(short.get("host/y").bytes().unwrap().len(), 5 * CHUNK);
}

#[test]
fn several_runs_renew_one_link_without_losing_it() {
    let account = account();
    account.file().write(&account.link(&endpoint())).unwrap();
    let open = || {
        let (link, _) = account.file().read().unwrap().unwrap();
        settings("").open(account.file(), link, &World::system()).unwrap()
    };
    for _ in 0..3 {
        let targets: Vec<Cloud> = (0..6).map(|_| open()).collect();
        account.expire();
        std::thread::scope(|scope| {
            for target in &targets {
                scope.spawn(|| target.list("").unwrap());
            }
        });
    }
    assert_eq!(open().list("").unwrap(), []);
}

#[test]
fn a_link_that_was_ended_there_is_told_with_its_mend() {
    let account = account();
    let target = account.target("");
    let refresh = account.file().read().unwrap().unwrap().0.tokens.refresh;
    let form = attohttpc::post(format!("{}/oauth/revoke", endpoint())).text(format!("token={}", refresh.expose()));
    assert!(form.send().unwrap().is_success());
    let failure = target.list("").unwrap_err().error;
    assert!(failure.message.contains(&format!("no token: the link to {} has ended", endpoint())), "{failure:?}");
    assert!(failure.hint.unwrap().contains("cloud link --force"));
}

#[test]
fn what_the_account_may_not_is_told_so_that_a_person_understands_it() {
    let full = Account::new(&json!({"quota_bytes": 2 * CHUNK}));
    let failure = full.target("").put(&key("host/x"), &mut &noise(3 * CHUNK)[..]).unwrap_err();
    let said = format!("{} hint: {}", failure.error.message, failure.error.hint.unwrap_or_default());
    for part in ["507 quota-exceeded: the account has 2097152 bytes", "hint: the account is full", "cloud status"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    nothing(&full, "quota");

    let kept = Account::new(&json!({"retain_seconds": 3600}));
    let target = kept.target("");
    target.put(&key("host/x"), &mut &b"x"[..]).unwrap();
    let failure = target.delete(&key("host/x")).unwrap_err();
    let said = format!("{} hint: {}", failure.error.message, failure.error.hint.unwrap_or_default());
    assert_eq!(failure.cause, Cause::Retained);
    assert!(
        said.contains("403 retention-locked: it is kept until 2") && said.contains("keeps it for a time"),
        "{said}"
    );
    assert_eq!(kept.keys(), ["host/x"]);

    let small = Account::new(&json!({"max_object_bytes": CHUNK}));
    let failure = small.target("").put(&key("host/x"), &mut &noise(2 * CHUNK)[..]).unwrap_err();
    assert!(failure.error.message.contains("413 too-large"), "{failure:?}");
    nothing(&small, "too large");
}

#[test]
fn an_object_that_is_replaced_or_deleted_while_it_is_read_is_noticed() {
    let account = account();
    let target = account.target("");
    for replaced in [true, false] {
        account.put("x", &noise(40 << 20));
        let mut reader = target.get(&key("x")).unwrap();
        reader.read_exact(&mut [0; 1000]).unwrap();
        account.delete("x");
        if replaced {
            account.put("x", &noise(40 << 20));
        }
        let failure = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(failure.to_string().contains("was replaced or deleted while it was read"), "{failure}");
        assert!(reader.read(&mut [0; 9]).is_err(), "who reads on gets no end");
        account.delete("x");
    }
}

#[test]
fn an_object_with_another_digest_is_not_stored() {
    let account = account();
    let proxy = Proxy::new(address(), false);
    let target = behind(&account, &proxy, 1);
    proxy.edit(wrong_digest);
    let failure = target.put(&key("host/x"), &mut &noise(CHUNK + 5)[..]).unwrap_err();
    assert!(failure.error.message.ends_with("has another SHA-256 than what was sent; it was removed"), "{failure:?}");
    nothing(&account, "another digest");
}

/// An answer's head that says the digest of no bytes.
fn wrong_digest(head: String) -> String {
    let lines = head.split("\r\n").map(|line| match line.starts_with("Repr-Digest:") {
        true => "Repr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
        false => line,
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

#[test]
fn what_is_read_is_compared_with_the_objects_digest() {
    let account = account();
    let proxy = Proxy::new(address(), false);
    let target = behind(&account, &proxy, 1);
    account.put("p/x", &noise(100_000));
    proxy.edit(wrong_digest);
    let mut reader = target.get(&key("x")).unwrap();
    let failure = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(failure.to_string().contains("other bytes than its SHA-256"), "{failure}");
    assert!(reader.read(&mut [0; 9]).is_err(), "who reads on gets no end");
}

#[test]
fn metadata_of_another_issuer_is_refused() {
    let (sandbox, proxy) = (sandbox(), Proxy::new(address(), false));
    let places =
        "\"device_authorization_endpoint\": \"https://x.example/d\", \"token_endpoint\": \"https://x.example/t\"";
    for (issuer, said) in
        [("https://x.example", "its metadata is another issuer's"), ("", "its metadata is another issuer's")]
    {
        let body = format!("{{\"issuer\": \"{issuer}\", {places}}}");
        proxy.answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let linking = sandbox.command(&["cloud", "link", "--endpoint", &proxy.endpoint()]).exits(14);
        linking.stderr_has(said).run();
    }
}

/// A target behind a proxy, with all patience; its tokens come through the proxy, too.
fn behind(account: &Account, proxy: &Proxy, part_mib: u32) -> Cloud {
    with_patience(account, proxy, part_mib, None, Duration::ZERO)
}

/// The same with the patience of a test for this fault.
fn with_patience(account: &Account, proxy: &Proxy, part_mib: u32, fault: Option<Fault>, whole: Duration) -> Cloud {
    let patience = patience(fault, [900, 1_500], 32 << 20, whole);
    let settings = Settings { patience, part_mib, ..settings("p/") };
    account.open(&proxy.endpoint(), &settings, &proxy.world())
}

/// How many bytes the tables' uploads have, in how large chunks (MiB).
fn upload_size() -> (usize, u32) {
    match std::env::var("VOXELTRON_TEST_LONG").as_deref() {
        Ok("1") => (100_000_000, 8),
        _ => (2_500_000, 1),
    }
}

#[test]
fn every_fault_at_every_request_of_an_upload_ends_whole_or_leaves_nothing_visible() {
    let account = account();
    let proxy = Proxy::new(address(), false);
    let (size, part_mib) = upload_size();
    let bytes = noise(size);
    let target = behind(&account, &proxy, part_mib);
    proxy.set(None);
    // Its token has ended: the first request is refused, a new one is fetched, and the request is made again.
    account.expire();
    let started = Instant::now();
    target.put(&key("host/x"), &mut &bytes[..]).unwrap();
    let whole = started.elapsed();
    let lines = proxy.lines();
    assert_eq!(lines.len(), 3 + size.div_ceil((part_mib as usize) << 20), "{lines:?}");
    account.delete("p/host/x");
    let mut run = |plan: Plan| {
        let before = account.unfinished().len();
        let target = with_patience(&account, &proxy, part_mib, Some(plan.fault), whole);
        account.expire();
        proxy.set(Some(plan));
        let outcome = target.put(&key("host/x"), &mut &bytes[..]);
        proxy.set(None);
        // One whose beginning was answered into the void can't be terminated; the server forgets it.
        let left = account.unfinished().len();
        assert!(left <= before + usize::from(plan.at <= 2), "{plan:?}: {before}, then {left} unfinished");
        match outcome {
            Ok(stored) => {
                assert_eq!(stored.size, bytes.len() as u64);
                assert!(account.get("p/host/x").bytes().unwrap() == bytes, "{plan:?}");
                account.delete("p/host/x");
                "ok"
            }
            Err(failure) => {
                assert_eq!(account.keys(), [""; 0], "{plan:?}: {failure:?}");
                "clean failure"
            }
        }
    };
    table(&format!("upload of {size} bytes to the cloud, a fault once"), &lines, &NO_TOKEN, &mut run);
}

#[test]
fn every_fault_at_every_request_of_a_download_ends_whole_or_in_an_error() {
    let account = account();
    let proxy = Proxy::new(address(), false);
    let size = if std::env::var_os("VOXELTRON_TEST_LONG").is_some() { 100_000_000 } else { 34_000_000 };
    let bytes = noise(size);
    account.put("p/host/x", &bytes);
    let target = behind(&account, &proxy, 8);
    proxy.set(None);
    account.expire();
    let started = Instant::now();
    assert!(read(&target, &key("host/x")).unwrap() == bytes);
    let whole = started.elapsed();
    let lines = proxy.lines();
    assert_eq!(lines.len(), 2 + size.div_ceil(16 << 20), "{lines:?}");
    let mut run = |plan: Plan| {
        let target = with_patience(&account, &proxy, 8, Some(plan.fault), whole);
        account.expire();
        proxy.set(Some(plan));
        match read(&target, &key("host/x")) {
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
    table(&format!("download of {size} bytes from the cloud, a fault once"), &lines, &NO_TOKEN, &mut run);
}

#[test]
fn a_server_that_goes_away_for_good_shows_nothing() {
    let account = account();
    let proxy = Proxy::new(address(), false);
    let target = behind(&account, &proxy, 1);
    for at in 0..4 {
        for fault in [Fault::Refuse, Fault::ResetRequest, Fault::Error503] {
            proxy.set(Some(Plan { at, count: usize::MAX / 2, fault }));
            let failure = target.put(&key("host/x"), &mut &noise(2 * CHUNK + 9)[..]).unwrap_err();
            assert_eq!((failure.cause, failure.error.kind), (Cause::Failed, Kind::Target));
            assert_eq!(account.keys(), [""; 0]);
        }
    }
}

#[test]
fn what_a_foreign_tus_client_stores_is_read_and_the_other_way_round() {
    let account = account();
    let target = account.target("p/");
    let bytes = noise(CHUNK + 77);
    let mut client = Command::new("node");
    client.arg(common::repository("tests/interop/tus_upload.mjs"));
    client.args([&common::from_runner("VOXELTRON_TEST_NODE_MODULES"), &endpoint(), "p/host/theirs"]);
    let outcome = common::run(client.env("TOKEN", account.tokens().0), &bytes);
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(read(&target, &key("host/theirs")).unwrap() == bytes);
    assert_eq!(target.list("host/").unwrap()[0].size, bytes.len() as u64);

    target.put(&key("host/a b".replace(' ', "+").as_str()), &mut &bytes[..]).unwrap();
    let url = format!("{}/v1/objects/p/host/a%2Bb", endpoint());
    let got = common::python_ok("tests/interop/cloud_read.py", &[url], account.tokens().0.as_bytes());
    assert!(got == bytes);
}

/// A configuration with a database and a job that names `cloud`, which has no table.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (randomblob(3000000)), (2)");
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\nname = \"shop\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
         target = \"cloud\"\nkeep_last = 1\n"
    ));
    sandbox
}

/// Runs `cloud link`, and lets a person answer.
fn link(sandbox: &Sandbox, args: &[&str], account: &str, answer: &str) -> (i32, String) {
    let endpoint = endpoint();
    let words = [&["-v", "cloud", "link", "--endpoint", endpoint.as_str()], args].concat();
    let mut command = sandbox.command(&words).into_command();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Under --json stdout is the document's.
    let json = args.contains(&"--json");
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let shown: &mut dyn Read = if json { &mut err } else { &mut out };
    let mut lines = BufReader::new(shown);
    let mut said = String::new();
    while !said.contains("Type") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "no code: {said}");
    }
    let code = said.lines().find_map(|line| line.strip_prefix("Type")).unwrap().trim().to_owned();
    assert_eq!(approve(&code, account, answer), 200);
    lines.read_to_string(&mut said).unwrap();
    out.read_to_string(&mut said).unwrap();
    err.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code().unwrap(), said)
}

#[test]
fn the_whole_program_from_link_to_unlink_without_a_line_of_configuration() {
    let (sandbox, account) = (sandbox(), account());
    // Not linked: the mend is named, and nothing else needs it.
    let hint = "hint: link it: voxeltron-backup cloud link --endpoint URL";
    sandbox
        .command(&["run-job", "shop"])
        .exits(10)
        .stderr_has("is not linked to Voxeltron Cloud")
        .stderr_has(hint)
        .run();
    sandbox.command(&["cloud", "status"]).exits(10).stderr_has(hint).run();
    sandbox.command(&["schedule-check", "--dry-run"]).stdout_has("wait").run();
    sandbox.command(&["cloud", "link"]).exits(2).stderr_has("no endpoint is given, and no domain is built in").run();

    let (code, mut said) = link(&sandbox, &[], &account.name, "approve");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("linked to {}, account {}", endpoint(), account.name)), "{said}");
    assert!(said.contains("/device?user_code="), "{said}");
    let file = LinkFile::new(&sandbox.data_dir());
    assert_eq!(file.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let mut run = |args: &[&str]| {
        let outcome = sandbox.command(args).stdout_any().stderr_any().run();
        write!(said, "{}{}", outcome.stdout, outcome.stderr).unwrap();
        outcome.stdout
    };
    let before = sqlite3(&sandbox.path("shop.db"), ".dump");
    run(&["-v", "check"]);
    run(&["-v", "run-job", "shop"]);
    let keys = account.keys();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("host/shop/")), "{keys:?}");
    assert!(run(&["-v", "list", "shop"]).contains("cloud"));
    run(&["-v", "verify", "shop", "--restore"]);
    sqlite3(&sandbox.path("shop.db"), "drop table t");
    run(&["-v", "restore", "shop", "--latest"]);
    assert_eq!(sqlite3(&sandbox.path("shop.db"), ".dump"), before);
    // A second one, and the first is too many.
    std::thread::sleep(Duration::from_millis(1_100));
    run(&["-v", "run-job", "shop"]);
    // What was proved last stays, so let that be the newest.
    run(&["-v", "verify", "shop", "--restore"]);
    run(&["-v", "prune", "shop"]);
    let left = account.keys();
    assert!(left.len() == 2 && left.iter().all(|key| !keys.contains(key)), "{left:?}");
    assert_eq!(account.unfinished(), [""; 0]);
    let status = run(&["-v", "cloud", "status"]);
    assert!(status.contains(&format!("account   {}", account.name)) && status.contains("used "), "{status}");

    let again = sandbox.command(&["cloud", "link", "--endpoint", &endpoint()]).exits(2);
    again.stderr_has("this instance is linked to http://").stderr_has("cloud unlink").run();
    let tokens = file.read().unwrap().unwrap().0.tokens;
    assert_eq!(account.links(), 1);
    run(&["-v", "cloud", "unlink"]);
    assert!(!file.path().exists());
    assert_eq!(account.links(), 0, "it was revoked");
    run(&["-v", "cloud", "unlink"]);
    for secret in [tokens.access, tokens.refresh] {
        assert!(!said.contains(secret.expose()), "{said}");
    }
}

#[test]
fn a_link_can_be_denied_replaced_and_left_where_the_server_is_gone() {
    let (sandbox, first, second) = (sandbox(), account(), account());
    let (code, said) = link(&sandbox, &[], &first.name, "deny");
    assert!(code == 1 && said.contains("can't link: it was denied"), "{code} {said}");
    let file = LinkFile::new(&sandbox.data_dir());
    assert!(!file.path().exists());
    assert_eq!(link(&sandbox, &[], &first.name, "approve").0, 0);
    let (code, said) = link(&sandbox, &["--force", "--json"], &second.name, "approve");
    assert_eq!(code, 0, "{said}");
    let document: Value = serde_json::from_str(&said[said.find('{').unwrap()..=said.rfind('}').unwrap()]).unwrap();
    assert_eq!(
        (document["command"].as_str(), document["account"].as_str()),
        (Some("cloud link"), Some(second.name.as_str()))
    );
    assert_eq!((first.links(), second.links()), (0, 1), "the link before was revoked");
    let mut documents = vec![document.to_string()];
    documents.push(sandbox.command(&["--json", "cloud", "status"]).stdout_any().run().stdout.replace('\n', " "));

    // The server is gone.
    let (link, _) = file.read().unwrap().unwrap();
    let nowhere = |text: &str| text.replace(&endpoint(), "http://127.0.0.1:1");
    let gone = Link {
        endpoint: nowhere(&link.endpoint),
        token_endpoint: nowhere(&link.token_endpoint),
        revocation_endpoint: link.revocation_endpoint.as_deref().map(nowhere),
        ..link
    };
    file.write(&gone).unwrap();
    let status = sandbox.command(&["cloud", "status"]).exits(14).stderr_has("can't be reached").run();
    assert!(!status.stderr.contains(gone.tokens.access.expose()));
    sandbox.command(&["cloud", "unlink"]).exits(14).stderr_has("--force").run();
    let unlinked = sandbox.command(&["--json", "cloud", "unlink", "--force"]).stdout_any().stderr_any().run();
    documents.push(unlinked.stdout.replace('\n', " "));
    assert!(!file.path().exists());
    let schema = common::repository("docs/json-output.schema.json");
    let outcome = common::python("tests/reference/validate.py", &[schema], documents.join("\n").as_bytes());
    assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn a_table_can_say_the_endpoint_and_a_prefix_and_is_held_to_the_link() {
    let (sandbox, account) = (sandbox(), account());
    account.link_sandbox(&sandbox, &endpoint());
    let plain = std::fs::read_to_string(sandbox.config()).unwrap();
    let with = |table: &str| sandbox.configure(&format!("{plain}[backup.targets.cloud]\n{table}"));
    with(&format!("endpoint = \"{}/\"\nprefix = \"all/ours\"\n", endpoint()));
    sandbox.command(&["run-job", "shop"]).stdout_any().stderr_any().run();
    assert!(account.keys().iter().all(|key| key.starts_with("all/ours/host/shop/")), "{:?}", account.keys());
    with("endpoint = \"https://other.example.com\"\n");
    sandbox.command(&["list", "shop"]).exits(10).stderr_has("and `endpoint` is https://other.example.com").run();
    for (table, said) in
        [("endpont = \"x\"\n", "did you mean `endpoint`?"), ("endpoint = \"x\"\n", "is not an address")]
    {
        with(table);
        sandbox.command(&["check", "--offline"]).exits(10).stdout_any().stderr_has(said).run();
    }
    // A file that others can write to, or that is none, is not used, and not quoted.
    sandbox.configure(&plain);
    let path = LinkFile::new(&sandbox.data_dir()).path();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    sandbox.command(&["list", "shop"]).exits(10).stderr_has("others can write to").run();
    std::fs::write(&path, "{\"access_token\": \"canary-token\", ").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let outcome = sandbox.command(&["-v", "list", "shop"]).exits(10).stderr_has("can't be understood").run();
    assert!(!outcome.stderr.contains("canary"), "{}", outcome.stderr);
}

/// The cloud's server behind TLS, with a certificate of an authority that nobody knows; it ends with it.
struct Front(std::process::Child, String);

impl Front {
    fn new() -> Self {
        let authority = std::path::PathBuf::from(common::from_runner("VOXELTRON_TEST_S3_CA"));
        let script = "const tls = require('tls'), net = require('net'), fs = require('fs');\
            const [folder, to] = process.argv.slice(1);\
            const file = (name) => fs.readFileSync(`${folder}/${name}`);\
            tls.createServer({ cert: file('tls.pem'), key: file('tls.key') }, (client) => {\
              const server = net.connect(Number(to.split(':')[1]), to.split(':')[0]);\
              for (const it of [client, server]) it.on('error', () => { client.destroy(); server.destroy(); });\
              client.pipe(server).pipe(client);\
            }).on('tlsClientError', () => {}).listen(0, 'localhost', function () { console.log(this.address().port); });";
        let mut command = Command::new("node");
        command.args(["-e", script]).arg(authority.parent().unwrap()).arg(address());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self(child, format!("https://localhost:{}", port.trim()))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_of_the_servers_own_authority_is_trusted_by_ca_file_alone() {
    let (front, account) = (Front::new(), account());
    let authority = common::from_runner("VOXELTRON_TEST_S3_CA");
    let bare = account.open(&front.1, &settings("p/"), &World::system());
    let failure = bare.put(&key("host/x"), &mut &b"x"[..]).unwrap_err().error;
    assert!(failure.message.contains("no TLS connection to https://localhost"), "{failure:?}");
    assert!(
        failure.hint.as_ref().is_some_and(|hint| hint.contains("`ca_file` in [backup.targets.cloud]")),
        "{failure:?}"
    );

    // By the target's table, or as the link keeps it.
    let trusting = Settings { ca_file: Some(authority.clone().into()), ..settings("p/") };
    let linked = Link { ca_file: Some(authority.clone().into()), ..account.link(&front.1) };
    let by_table = account.open(&front.1, &trusting, &World::system());
    let by_link = settings("p/").open(account.file(), linked, &World::system()).unwrap();
    let bytes = noise(2 * CHUNK + 17);
    for (name, target) in [("host/table", by_table), ("host/link", by_link)] {
        target.put(&key(name), &mut &bytes[..]).unwrap();
        assert!(read(&target, &key(name)).unwrap() == bytes, "{name}");
        assert!(account.get(&format!("p/{name}")).bytes().unwrap() == bytes, "{name}");
        target.delete(&key(name)).unwrap();
    }

    // The whole program: linked by the file, it needs no table; with another authority's it trusts no more.
    let sandbox = sandbox();
    let refused = sandbox.command(&["cloud", "link", "--endpoint", &front.1]).exits(14);
    refused.stderr_has("no TLS connection to https://localhost").stderr_has("ca").run();
    let plain = std::fs::read_to_string(sandbox.config()).unwrap();
    let kept = Link { ca_file: Some(authority.clone().into()), ..account.link(&front.1) };
    LinkFile::new(&sandbox.data_dir()).write(&kept).unwrap();
    sandbox.command(&["run-job", "shop"]).stdout_any().stderr_any().run();
    assert_eq!(account.keys().len(), 2);
    sandbox.configure(&format!("{plain}[backup.targets.cloud]\nca_file = \"{authority}\"\n"));
    LinkFile::new(&sandbox.data_dir()).write(&account.link(&front.1)).unwrap();
    sandbox.command(&["verify", "shop", "--restore"]).stdout_any().stderr_any().run();
    let none = sandbox.write("none.pem", "no certificate\n");
    sandbox.configure(&format!("{plain}[backup.targets.cloud]\nca_file = \"{}\"\n", none.display()));
    sandbox.command(&["list", "shop"]).exits(10).stderr_has("none.pem holds no certificate").run();
}

#[test]
fn tokens_stay_out_of_every_message_whatever_the_server_answers() {
    let (sandbox, account) = (sandbox(), account());
    let proxy = Proxy::new(address(), false);
    account.link_sandbox(&sandbox, &proxy.endpoint());
    let tokens = LinkFile::new(&sandbox.data_dir()).read().unwrap().unwrap().0.tokens;
    let (access, refresh) = (tokens.access.expose(), tokens.refresh.expose());
    let echo =
        format!("{{\"type\": \"x/{access}\", \"title\": \"{access}\", \"detail\": \"x {access}, {refresh} y\"}}");
    let oauth =
        format!("{{\"error\": \"{refresh}\", \"error_description\": \"{refresh}\", \"objects\": \"{access}\"}}");
    for status in ["403 x", "401 x", "400 x", "200 OK", "409 x", "507 x"] {
        for body in [&echo, &oauth] {
            let length = body.len();
            proxy.answer(&format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"));
            for args in [&["-v", "list", "shop"][..], &["-v", "--json", "cloud", "status"], &["-v", "cloud", "unlink"]]
            {
                if args.contains(&"unlink") && status == "200 OK" {
                    continue;
                }
                let outcome = common::run(&mut sandbox.command(args).into_command(), b"");
                let said = format!("{}{}", outcome.stdout, outcome.stderr);
                assert!(!said.contains(access) && !said.contains(refresh), "{status} {args:?}: {said}");
            }
        }
    }
}
