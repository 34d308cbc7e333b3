//! Keys of a role at S3: who is asked for them, that they are exchanged before they end or when the store says that they have
//! ended, in the middle of an upload, too, and what is said where there are none. The metadata server is a stub of ours, since
//! no host but AWS's has one; the store is a real server, behind a proxy that knows which tokens have ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use common::gcs::wire::{Request, document, read};
use common::proxy::Proxy;
use common::s3::{Bucket, access_key, address, secret_key};
use common::sample::noise;
use common::{Invoked, Sandbox, sqlite3};
use serde_json::json;
use voxeltron_backup::error::Kind;
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::s3::{Identity, Pass, Role, S3, Settings};
use voxeltron_backup::target::{Cause, Target};
use voxeltron_backup::world::{Clock, World};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The part size of the tests, in bytes.
const PART: usize = 5 * 1024 * 1024;
/// What the container's agent wants to see, and what the token service does.
const PASS: &str = "canary-pass-of-the-container";

#[derive(Debug, Default)]
struct Given {
    tokens: Mutex<Vec<String>>,
    /// When the last of them ends.
    ends: Mutex<String>,
    log: Mutex<Vec<String>>,
    /// How many seconds the tests' clock is ahead.
    ahead: Arc<AtomicI64>,
    /// How often the keys before are given once more.
    again: AtomicUsize,
    /// It answers 500, with the last token in it.
    down: AtomicBool,
    /// It has no role.
    without: AtomicBool,
}

/// Gives keys as the metadata server of an instance does, as the agent of a container, and as the Security Token Service.
/// All of them are the store's own pair with a token that is new each time.
struct Giver {
    address: SocketAddr,
    given: Arc<Given>,
}

impl Giver {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let giver = Self { address: listener.local_addr().unwrap(), given: Arc::default() };
        let given = Arc::clone(&giver.given);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let given = Arc::clone(&given);
                std::thread::spawn(move || drop(answer(client.unwrap(), &given)));
            }
        });
        giver
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.address)
    }

    /// Every token that came with keys.
    fn tokens(&self) -> Vec<String> {
        self.given.tokens.lock().unwrap().clone()
    }

    /// What was asked.
    fn log(&self) -> Vec<String> {
        self.given.log.lock().unwrap().clone()
    }
}

impl Given {
    /// Access key, secret key, token, and when they end.
    fn next(&self) -> (String, String, String, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut tokens = self.tokens.lock().unwrap();
        let again = self.again.load(Ordering::SeqCst);
        if again > 0 && !tokens.is_empty() {
            self.again.store(again - 1, Ordering::SeqCst);
        } else {
            let number = COUNT.fetch_add(1, Ordering::SeqCst);
            tokens.push(format!("canary-token-{}-{number}-of-a-role", std::process::id()));
            let ends = Utc::now() + TimeDelta::seconds(self.ahead.load(Ordering::SeqCst) + 3_600);
            *self.ends.lock().unwrap() = ends.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        }
        let ends = self.ends.lock().unwrap().clone();
        (access_key(), secret_key(), tokens.last().unwrap().clone(), ends)
    }

    fn keys(&self) -> common::gcs::wire::Reply {
        let (access, secret, token, ends) = self.next();
        let keys = json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": access, "SecretAccessKey": secret,
            "Token": token, "Expiration": ends});
        document("200 OK", &keys)
    }

    fn reply(&self, request: &Request) -> common::gcs::wire::Reply {
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let text = |status: &str, text: &str| (status.to_owned(), Vec::new(), text.as_bytes().to_vec());
        let metadata = "/latest/meta-data/iam/security-credentials/";
        let told = header("x-aws-ec2-metadata-token") == Some("canary-metadata-token");
        if self.down.load(Ordering::SeqCst) {
            let last = self.tokens.lock().unwrap().last().cloned().unwrap_or_default();
            return text("500 x", &format!("{last} {PASS}"));
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("PUT", "/latest/api/token") if header("x-aws-ec2-metadata-token-ttl-seconds").is_some() => {
                text("200 OK", "canary-metadata-token")
            }
            ("GET", path) if path == metadata && told && self.without.load(Ordering::SeqCst) => text("404 x", "no"),
            ("GET", path) if path == metadata && told => text("200 OK", "backup+role\n"),
            ("GET", path) if path.strip_prefix(metadata) == Some("backup%2Brole") && told => self.keys(),
            ("GET", "/agent") if header("authorization") == Some(PASS) => self.keys(),
            ("POST", "/") => {
                let body = String::from_utf8_lossy(&request.body).into_owned();
                let right =
                    ["Action=AssumeRoleWithWebIdentity", "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx", PASS_ENCODED];
                if !right.iter().all(|part| body.contains(part)) {
                    let error =
                        format!("<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>{body}</Message>");
                    return text("400 x", &error);
                }
                let (access, secret, token, ends) = self.next();
                text(
                    "200 OK",
                    &format!(
                        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                     <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>x</SubjectFromWebIdentityToken>\
                     <Credentials><SessionToken>{token}</SessionToken><SecretAccessKey>{secret}</SecretAccessKey>\
                     <Expiration>{ends}</Expiration><AccessKeyId>{access}</AccessKeyId></Credentials>\
                     </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
                    ),
                )
            }
            _ => text("401 x", "not so"),
        }
    }
}

/// As it stands in a form.
const PASS_ENCODED: &str = "WebIdentityToken=canary%2Dpass%2Dof%2Dthe%2Dcontainer";

fn answer(mut client: TcpStream, given: &Given) -> std::io::Result<()> {
    let request = read(&mut client)?;
    given.log.lock().unwrap().push(format!("{} {}", request.method, request.path));
    let (status, _, body) = given.reply(&request);
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    client.write_all(head.as_bytes())?;
    client.write_all(&body)
}

/// Tokens that have ended.
static ENDED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn token_of(head: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix("x-amz-security-token: "));
    line.unwrap_or_default().to_owned()
}

/// Answers as AWS does: a HEAD has no word.
fn has_ended(head: &str) -> Option<&'static str> {
    let ended = ENDED.lock().unwrap().contains(&token_of(head));
    ended.then_some(if head.starts_with("HEAD") { "400 Bad Request" } else { "400 ExpiredToken:" })
}

/// The same, and the token with which the first part of an upload comes ends with its second.
fn ends_with_the_second_part(head: &str) -> Option<&'static str> {
    let token = token_of(head);
    if head.contains("partNumber=2&") && FIRST.lock().unwrap().remove(&token) {
        ENDED.lock().unwrap().insert(token);
    } else if head.starts_with("POST") && head.contains("?uploads") && !token.is_empty() {
        FIRST.lock().unwrap().insert(token);
    }
    has_ended(head)
}

/// Tokens with which an upload has begun.
static FIRST: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn sandbox(endpoint: &str, bucket: &Bucket) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (randomblob(17000000))");
    sandbox.write("pass", format!("{PASS}\n"));
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
         [backup.targets.s3]\nendpoint = \"{endpoint}\"\nbucket = \"{}\"\npart_size = 5\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\nname = \"shop\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
         target = \"s3\"\nafter = \"env > {{dir}}/hook\"\n",
        bucket.name,
    ));
    sandbox
}

/// The variables that name each kind of role.
fn roles(giver: &Giver, sandbox: &Sandbox) -> [(&'static str, Vec<(&'static str, String)>); 4] {
    let pass = sandbox.path("pass").display().to_string();
    [
        ("instance", vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", giver.url("/"))]),
        (
            "container by file",
            vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", giver.url("/agent")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", pass.clone()),
            ],
        ),
        (
            "container by variable",
            vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", giver.url("/agent")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN", PASS.to_owned()),
            ],
        ),
        (
            "web identity",
            vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", pass),
                ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x".to_owned()),
                ("AWS_ENDPOINT_URL_STS", giver.url("")),
            ],
        ),
    ]
}

fn with(command: Invoked, vars: &[(&str, String)]) -> Invoked {
    vars.iter().fold(command, |command, (name, value)| command.env(name, value))
}

#[test]
fn keys_of_every_kind_of_role_that_end_in_an_upload_are_exchanged() {
    let (giver, proxy, bucket) = (Giver::new(), Proxy::new(address(), false), Bucket::new());
    let sandbox = sandbox(&proxy.endpoint(), &bucket);
    proxy.refuse(ends_with_the_second_part);
    for (number, (kind, vars)) in roles(&giver, &sandbox).into_iter().enumerate() {
        let before = giver.tokens().len();
        proxy.set(None);
        with(sandbox.command(&["-v", "run-job", "shop"]).stderr_any(), &vars).run();
        assert_eq!(giver.tokens().len(), before + 2, "{kind}: {:?}", giver.log());
        let heads = proxy.heads();
        let parts = heads.iter().filter(|head| head.contains("partNumber=")).count();
        assert!((5..=8).contains(&parts), "{kind}: four parts, and what was refused of them: {parts}");
        assert_eq!(bucket.unfinished(), [""; 0], "{kind}");
        assert_eq!(bucket.keys().len(), 2 * (number + 1), "{kind}");
        with(sandbox.command(&["verify", "shop"]).stdout_any().stderr_any(), &vars).run();
        let hook = std::fs::read_to_string(sandbox.path("hook")).unwrap();
        assert!(!hook.contains(PASS), "{kind}: {hook}");
        std::thread::sleep(Duration::from_millis(1_100));
    }
}

/// A clock that can be put forward, and pauses that take no time.
#[derive(Debug)]
struct Ahead(Arc<AtomicI64>, Arc<dyn Clock>);

impl Clock for Ahead {
    fn now(&self) -> DateTime<Utc> {
        self.1.now() + TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic() + Duration::from_secs(self.0.load(Ordering::SeqCst).unsigned_abs())
    }

    fn sleep(&self, time: Duration) {
        self.1.sleep(time);
    }
}

/// The target with the role of an instance, and what puts its clock forward.
fn target(giver: &Giver, proxy: &Proxy, bucket: &Bucket) -> (S3, Arc<AtomicI64>) {
    let ahead = Arc::clone(&giver.given.ahead);
    let world = World { clock: Arc::new(Ahead(Arc::clone(&ahead), World::system().clock)), ..World::system() };
    let settings = Settings { endpoint: proxy.endpoint(), ..bucket.settings("") };
    (settings.open_as(Identity::Role(Role::Instance(giver.url(""))), &world).unwrap(), ahead)
}

/// Zeros; puts the clock forward by so much before each part.
struct Slow {
    left: usize,
    ahead: Arc<AtomicI64>,
    by: i64,
}

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let before = self.left.div_ceil(PART);
        let count = buffer.len().min(self.left).min(100_000);
        self.left -= count;
        if self.left.div_ceil(PART) != before {
            self.ahead.fetch_add(self.by, Ordering::SeqCst);
        }
        buffer[..count].fill(0);
        Ok(count)
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

#[test]
fn keys_are_exchanged_before_they_end_in_an_upload_of_hours() {
    let (giver, proxy, bucket) = (Giver::new(), Proxy::new(address(), false), Bucket::new());
    let (target, ahead) = target(&giver, &proxy, &bucket);
    // Ten parts in five hours, with keys of an hour each; their last five minutes nobody sees.
    let body = &mut Slow { left: 10 * PART, ahead: Arc::clone(&ahead), by: 1_800 };
    target.put(&key("host/x"), body).unwrap();
    let tokens = giver.tokens();
    assert!((4..=6).contains(&tokens.len()), "{tokens:?}");
    for token in &tokens {
        assert!(proxy.heads().iter().any(|head| token_of(head) == *token), "{token} was used");
    }
    assert_eq!(bucket.get("host/x").len(), 10 * PART);
    // Keys that stay the same until their end are not asked for at each request, and are used until it.
    ahead.fetch_add(4_000, Ordering::SeqCst);
    target.list("").unwrap();
    let before = giver.log().len();
    giver.given.again.store(usize::MAX, Ordering::SeqCst);
    ahead.fetch_add(3_400, Ordering::SeqCst);
    for _ in 0..20 {
        target.list("").unwrap();
    }
    assert_eq!(giver.log().len(), before + 3, "one look is three requests: {:?}", giver.log());
    // A metadata server that is away for a moment costs nothing while they are good.
    giver.given.down.store(true, Ordering::SeqCst);
    ahead.fetch_add(120, Ordering::SeqCst);
    target.list("").unwrap();
    assert!(giver.log().len() > before + 3, "it was asked");
}

#[test]
fn keys_that_the_store_takes_no_more_are_exchanged_and_not_for_ever() {
    let (giver, proxy, bucket) = (Giver::new(), Proxy::new(address(), false), Bucket::new());
    let (target, ahead) = target(&giver, &proxy, &bucket);
    proxy.refuse(has_ended);
    let end = |giver: &Giver| ENDED.lock().unwrap().extend(giver.tokens());
    for length in [100, 2 * PART + 9] {
        let (name, bytes) = (format!("host/{length}"), noise(length));
        end(&giver);
        // The next keys are not there at once.
        giver.given.again.store(if giver.tokens().is_empty() { 0 } else { 2 }, Ordering::SeqCst);
        target.put(&key(&name), &mut &bytes[..]).unwrap();
        assert!(bucket.get(&name) == bytes);
        end(&giver);
        let mut got = Vec::new();
        target.get(&key(&name)).unwrap().read_to_end(&mut got).unwrap();
        assert!(got == bytes);
        end(&giver);
        assert_eq!(target.list("host/").unwrap().len(), if length == 100 { 1 } else { 2 });
    }
    // A HEAD has no word: keys are fetched for it, but not again and again.
    end(&giver);
    ahead.fetch_add(61, Ordering::SeqCst);
    let before = giver.tokens().len();
    assert_eq!(target.put(&key("host/100"), &mut &b"x"[..]).unwrap_err().cause, Cause::Exists);
    assert_eq!(giver.tokens().len(), before + 1);
    // Others than these are not to be had: an end, and with whom to look.
    giver.given.again.store(usize::MAX, Ordering::SeqCst);
    end(&giver);
    let before = giver.log().len();
    let failure = target.list("").unwrap_err();
    assert!(failure.error.message.contains("the store answered 400 ExpiredToken"), "{failure:?}");
    assert!(failure.error.hint.as_ref().unwrap().contains("this host's role"), "{failure:?}");
    assert_eq!(failure.error.kind, Kind::Target);
    assert!(giver.log().len() <= before + 3 * 5, "{:?}", giver.log());
    // And none at all.
    giver.given.down.store(true, Ordering::SeqCst);
    let failure = target.list("").unwrap_err();
    assert!(failure.error.message.contains("its keys have ended"), "{failure:?}");
    let said = format!("{failure:?}");
    assert!(!said.contains("canary") && !said.contains(&secret_key()), "{said}");
}

#[test]
fn a_role_that_may_not_read_is_asked_for_no_keys_at_each_refusal() {
    let (giver, proxy, bucket) = (Giver::new(), Proxy::new(address(), false), Bucket::new());
    let (target, _) = target(&giver, &proxy, &bucket);
    proxy.refuse(|head| (head.starts_with("HEAD") || head.starts_with("GET")).then_some("403 Forbidden"));
    for number in 0..5 {
        target.put(&key(&format!("host/{number}")), &mut &b"x"[..]).unwrap();
    }
    assert!(giver.tokens().len() <= 2, "{:?}", giver.log());
    assert_eq!(bucket.keys().len(), 5);
}

#[test]
fn a_role_that_gives_no_keys_is_told_with_its_reason_and_nobody_is_asked_offline() {
    let (giver, bucket) = (Giver::new(), Bucket::new());
    let sandbox = sandbox(&common::s3::endpoint(), &bucket);
    for (kind, vars) in roles(&giver, &sandbox) {
        with(sandbox.command(&["check", "--offline"]).stdout_has("ok  target s3"), &vars).run();
        assert_eq!(giver.log(), [""; 0], "{kind}");
    }
    let list = |vars: &[(&str, String)], said: &str| {
        let command = sandbox.command(&["-v", "list", "shop"]).exits(10).stderr_has(said);
        let outcome = with(command.stderr_has("hint: set access_key and secret_key"), vars).run();
        assert!(!outcome.stderr.contains("canary"), "{}", outcome.stderr);
    };
    let kinds = roles(&giver, &sandbox);
    let changed = |kind: usize, name: &'static str, value: &str| {
        let mut vars = kinds[kind].1.clone();
        vars.retain(|(had, _)| *had != name);
        vars.push((name, value.to_owned()));
        vars
    };
    let instance = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    list(&changed(0, instance, "http://127.0.0.1:1"), "own role gives none: 127.0.0.1 can't be reached");
    list(&changed(0, instance, "metadata"), "AWS_EC2_METADATA_SERVICE_ENDPOINT in the environment is not an address");
    list(&changed(0, "AWS_EC2_METADATA_DISABLED", "true"), "target s3: there are no keys for it\n");
    list(&changed(1, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/at/all"), "can't read /nowhere/at/all");
    list(&changed(2, "AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-wrong"), "127.0.0.1 answered 401");
    list(&changed(2, "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x"), "is no address that may be asked");
    list(&changed(3, "AWS_ROLE_ARN", "arn:other"), "127.0.0.1 answered 400 InvalidIdentityToken");
    list(&changed(3, "AWS_ROLE_ARN", ""), "without AWS_ROLE_ARN");
    giver.given.without.store(true, Ordering::SeqCst);
    list(&kinds[0].1, "own role gives none: the instance has no role");
    giver.given.down.store(true, Ordering::SeqCst);
    for (_, vars) in &kinds {
        list(vars, "127.0.0.1 answered 500");
    }
    // A page of a portal is none.
    let portal = Proxy::new(address(), false);
    portal.answer("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ncanary-token");
    let vars = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", portal.endpoint())];
    list(&vars, "127.0.0.1 does not answer as a container's agent does");
}

#[test]
fn keys_of_a_role_are_in_no_message() {
    let (giver, proxy, bucket) = (Giver::new(), Proxy::new(address(), false), Bucket::new());
    let (target, ahead) = target(&giver, &proxy, &bucket);
    // A store that tells what it was told, before and after the keys were exchanged.
    for _ in 0..3 {
        target.list("").unwrap();
        let tokens = giver.tokens();
        proxy.answer_some(Box::new(move |head| {
            let said = format!("{} {} {tokens:?}", token_of(head), access_key());
            let body = format!("<Error><Code>AccessDenied</Code><Message>no {said}</Message></Error>");
            Some(format!("HTTP/1.1 403 x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        }));
        let said = format!("{:?}", target.list("").unwrap_err());
        assert!(said.contains("AccessDenied: no (removed)"), "{said}");
        for secret in giver.tokens().iter().chain([&access_key(), &secret_key()]) {
            assert!(!said.contains(secret), "{said}");
        }
        proxy.answer_some(Box::new(|_| None));
        ahead.fetch_add(4_000, Ordering::SeqCst);
    }
    assert_eq!(giver.tokens().len(), 3);
}

#[test]
fn debug_shows_nothing_of_a_role() {
    let role = Role::Container("http://127.0.0.1/x".to_owned(), Some(Pass::Text(Secret::new("canary"))));
    assert!(!format!("{:?}", Identity::Role(role)).contains("canary"));
}
