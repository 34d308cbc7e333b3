//! `cloud link` while a person takes their time (RFC 8628): when the server wants to be asked less often, when it is denied,
//! when nobody answers, and that a link which was there before stays. The server is a stub of ours, which says what a test
//! tells it to; the reference server's own link is in `cloud.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use common::Sandbox;
use common::gcs::wire::{Reply, Request, document, read};
use serde_json::{Value, json};
use voxeltron_backup::error::Kind;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::cloud::link::{Link, LinkFile, Tokens};
use voxeltron_backup::target::cloud::oauth;
use voxeltron_backup::target::http::{Client, Patience};
use voxeltron_backup::target::retry::Policy;
use voxeltron_backup::target::trouble::Trouble;
use voxeltron_backup::world::{Clock, World};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A clock on which a pause takes no time.
#[derive(Debug)]
struct Leaping(AtomicU64);

impl Clock for Leaping {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(self.0.load(Ordering::SeqCst).cast_signed())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Script {
    /// What the device authorization says.
    device: Value,
    /// What the token endpoint says, one after the other; the last one again and again.
    tokens: VecDeque<(u16, Value)>,
    /// Method and path of each request, and when it came, by the test's clock.
    log: Vec<(String, Duration)>,
}

/// An authorization server that follows a script.
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    clock: Arc<Leaping>,
}

/// A refusal of the token endpoint, with what was sent in its sentence.
fn no(word: &str) -> (u16, Value) {
    (400, json!({"error": word, "error_description": "canary-device-code {sent}"}))
}

fn granted() -> (u16, Value) {
    let tokens = json!({"access_token": "canary-access", "refresh_token": "canary-refresh", "token_type": "Bearer"});
    (200, tokens)
}

impl Server {
    fn new(interval: Option<u64>, expires_in: u64, tokens: &[(u16, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut device = json!({"device_code": "canary-device-code", "user_code": "WXYZ-1234",
            "verification_uri": format!("http://{address}/device"), "expires_in": expires_in});
        interval.into_iter().for_each(|interval| device["interval"] = json!(interval));
        let script = Script { device, tokens: tokens.iter().cloned().collect(), log: Vec::new() };
        let (script, clock) = (Arc::new(Mutex::new(script)), Arc::new(Leaping(AtomicU64::new(1_000))));
        let (shared, time) = (Arc::clone(&script), Arc::clone(&clock));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (shared, time) = (Arc::clone(&shared), Arc::clone(&time));
                std::thread::spawn(move || drop(serve(client.unwrap(), address, &shared, &time)));
            }
        });
        Self { address, script, clock }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn client(&self) -> Client {
        let world = World { clock: Arc::clone(&self.clock) as Arc<dyn Clock>, ..World::system() };
        Client::new(Vec::new(), world, Policy::default(), Patience::default())
    }

    /// Links; whatever comes of it.
    fn link(&self) -> Result<Tokens, Trouble> {
        let client = self.client();
        let places = oauth::discover(&client, &self.endpoint()).unwrap();
        let device = oauth::begin(&client, &places).unwrap();
        oauth::wait(&client, &places, &device)
    }

    /// When the token endpoint was asked, in seconds since the request before, or since the code was given.
    fn pauses(&self) -> Vec<u64> {
        let log = self.script.lock().unwrap();
        let times: Vec<_> = log.log.iter().filter(|(line, _)| line.starts_with("POST /")).map(|(_, at)| *at).collect();
        times.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.script.lock().unwrap().log.iter().map(|(line, _)| line.clone()).collect()
    }
}

fn reply(request: &Request, address: SocketAddr, script: &mut Script) -> Reply {
    let at = |path: &str| format!("http://{address}{path}");
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/.well-known/oauth-authorization-server") => document(
            "200 OK",
            &json!({"issuer": at(""), "device_authorization_endpoint": at("/authorize"),
                "token_endpoint": at("/token"), "revocation_endpoint": at("/revoke")}),
        ),
        ("POST", "/authorize") => document("200 OK", &script.device),
        ("POST", "/token") => {
            let last = script.tokens.len() == 1;
            let next = if last { script.tokens.front().cloned() } else { script.tokens.pop_front() };
            let (status, said) = next.unwrap();
            let sent = String::from_utf8_lossy(&request.body).into_owned();
            let (status, headers, body) = document(&format!("{status} x"), &said);
            (status, headers, String::from_utf8(body).unwrap().replace("{sent}", &sent).into_bytes())
        }
        _ => document("404 Not Found", &json!({})),
    }
}

fn serve(mut client: TcpStream, address: SocketAddr, script: &Mutex<Script>, clock: &Leaping) -> std::io::Result<()> {
    let request = read(&mut client)?;
    let (status, headers, body) = {
        let mut script = script.lock().unwrap();
        script.log.push((format!("{} {}", request.method, request.path), clock.monotonic()));
        reply(&request, address, &mut script)
    };
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    client.write_all(format!("{head}\r\n").as_bytes())?;
    client.write_all(&body)
}

#[test]
fn a_server_that_wants_to_be_asked_less_often_is_asked_less_often() {
    let (pending, slower) = (no("authorization_pending"), no("slow_down"));
    let all = [pending.clone(), slower.clone(), pending.clone(), slower.clone(), slower.clone(), pending, granted()];
    let server = Server::new(Some(7), 600, &all);
    assert_eq!(server.link().unwrap().refresh.expose(), "canary-refresh");
    // Five seconds more each time, and for all that come after.
    assert_eq!(server.pauses(), [7, 7, 12, 12, 17, 22, 22]);
    // Where the server names none it is five; one of no time at all would be a flood.
    let server = Server::new(None, 600, &[no("slow_down"), granted()]);
    server.link().unwrap();
    assert_eq!(server.pauses(), [5, 10]);
    let server = Server::new(Some(0), 600, &[no("authorization_pending"), granted()]);
    server.link().unwrap();
    assert_eq!(server.pauses(), [1, 1]);
    // What passes by itself doubles the pause, and ends nothing.
    let busy = (503, json!({}));
    let server = Server::new(Some(4), 600, &[busy.clone(), busy, no("authorization_pending"), granted()]);
    server.link().unwrap();
    assert_eq!(server.pauses(), [4, 8, 16, 16]);
    // It makes no pause shorter, though.
    let server = Server::new(Some(90), 600, &[(503, json!({})), no("authorization_pending"), granted()]);
    server.link().unwrap();
    assert_eq!(server.pauses(), [90, 90, 90]);
}

#[test]
fn a_code_that_nobody_approves_is_asked_for_until_it_ends_and_no_longer() {
    let server = Server::new(Some(10), 95, &[no("authorization_pending")]);
    let Err(Trouble::Told(error)) = server.link() else { panic!("linked, or strange") };
    assert_eq!((error.kind, error.message.as_str()), (Kind::Other, "can't link: nobody approved it in time"));
    assert_eq!(error.hint.as_deref(), Some("begin anew: voxeltron-backup cloud link"));
    assert_eq!(server.pauses().len(), 10, "{:?}", server.pauses());
    for (word, said) in [("access_denied", "it was denied"), ("expired_token", "nobody approved it in time")] {
        let server = Server::new(Some(10), 600, &[no("authorization_pending"), no(word)]);
        let Err(Trouble::Told(error)) = server.link() else { panic!("{word}: linked, or strange") };
        assert_eq!((error.kind, error.message), (Kind::Other, format!("can't link: {said}")));
        assert_eq!(server.pauses(), [10, 10], "{word}: it was the last question");
    }
    // A code that is good for ever is waited for a day.
    let server = Server::new(Some(3_600), u64::MAX, &[no("authorization_pending")]);
    assert!(matches!(server.link(), Err(Trouble::Told(_))));
    assert_eq!(server.pauses().len(), 24);
    // What would do something to the terminal is shown nobody.
    let server = Server::new(Some(1), 600, &[granted()]);
    server.script.lock().unwrap().device["user_code"] = json!("\u{1b}[2JWXYZ");
    let client = server.client();
    let places = oauth::discover(&client, &server.endpoint()).unwrap();
    assert!(matches!(oauth::begin(&client, &places), Err(Trouble::Strange(_))));
    // Tokens that are none link nothing.
    for tokens in [
        json!({}),
        json!({"access_token": "a", "token_type": "Bearer"}),
        json!({"access_token": "a",
        "refresh_token": "b", "token_type": "mac"}),
        json!({"access_token": "a b", "refresh_token": "b",
        "token_type": "Bearer"}),
    ] {
        let server = Server::new(Some(10), 600, &[(200, tokens.clone())]);
        assert!(matches!(server.link(), Err(Trouble::Strange(_))), "{tokens}");
    }
}

/// Every file of a folder with its bytes; locks are no news.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let names = entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path));
    names
        .filter(|(name, _)| !name.ends_with(".lock"))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.configure_local(Some(KEY), "");
    sandbox
}

/// A link to another server, which was there before.
fn linked_before(sandbox: &Sandbox) {
    let tokens = Tokens {
        access: Secret::new("canary-before-access"),
        refresh: Secret::new("canary-before-refresh"),
        expires: Utc::now() + TimeDelta::hours(1),
        renew: Utc::now() + TimeDelta::minutes(50),
    };
    let before = "http://127.0.0.1:1";
    let mut link = Link::new(before, "http://127.0.0.1:1/token", Utc::now(), tokens);
    link.revocation_endpoint = Some("http://127.0.0.1:1/revoke".to_owned());
    let file = LinkFile::new(&sandbox.data_dir());
    let _lock = file.lock().unwrap();
    file.write(&link).unwrap();
}

#[test]
fn a_link_that_does_not_come_about_is_told_and_leaves_the_one_before() {
    let pending = no("authorization_pending");
    let cases = [
        (600, no("access_denied"), 1, "error: can't link: it was denied"),
        (600, no("expired_token"), 1, "error: can't link: nobody approved it in time"),
        (1, pending.clone(), 1, "error: can't link: nobody approved it in time"),
        (600, no("invalid_client"), 14, "the store answered 400 invalid_client"),
        (600, no("canary-word"), 14, "the store answered 400"),
        (600, (200, json!({"access_token": "canary"})), 14, "does not answer as Voxeltron Cloud does: no token"),
    ];
    for (expires_in, answer, code, said) in cases {
        for before in [false, true] {
            let (sandbox, server) = (sandbox(), Server::new(Some(1), expires_in, std::slice::from_ref(&answer)));
            if before {
                linked_before(&sandbox);
            }
            let files_before = files(&sandbox.data_dir());
            let linking = sandbox.command(&["-v", "cloud", "link", "--force", "--endpoint", &server.endpoint()]);
            let outcome = linking.exits(code).stdout_has("WXYZ-1234").stderr_has(said).run();
            if code == 1 {
                assert!(outcome.stderr.contains("hint: begin anew: voxeltron-backup cloud link"), "{}", outcome.stderr);
            }
            let all = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!all.contains("canary"), "{all}");
            assert_eq!(files(&sandbox.data_dir()), files_before, "{said}");
            let lines = server.lines();
            assert!(!lines.iter().any(|line| line.contains("revoke")), "{lines:?}");
        }
    }
}

#[test]
fn a_link_that_is_stopped_while_it_waits_leaves_the_one_before() {
    let (sandbox, server) = (sandbox(), Server::new(Some(1), 600, &[no("authorization_pending")]));
    linked_before(&sandbox);
    let before = files(&sandbox.data_dir());
    let mut command = sandbox.command(&["cloud", "link", "--force", "--endpoint", &server.endpoint()]).into_command();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut lines, mut said) = (BufReader::new(child.stdout.take().unwrap()), String::new());
    while !said.contains("Waiting") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "no code: {said}");
    }
    let started = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    // On a busy machine; the code would be good for ten minutes.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(files(&sandbox.data_dir()), before);
}
