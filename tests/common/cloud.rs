//! The reference server of the Voxeltron Cloud protocol, which `tests/run` starts: an account of a test's own, and what it
//! holds, seen by plain requests and not by our target.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use attohttpc::{Method, RequestBuilder, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{TimeDelta, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::cloud::link::{Link, LinkFile, Tokens};
use voxeltron_backup::target::cloud::{Cloud, Settings};
use voxeltron_backup::target::http::Patience;
use voxeltron_backup::target::retry::Policy;
use voxeltron_backup::world::World;

use super::from_runner;

pub fn endpoint() -> String {
    from_runner("VOXELTRON_TEST_CLOUD_ENDPOINT")
}

/// `HOST:PORT` of the server.
pub fn address() -> String {
    endpoint().split_once("://").map_or_else(String::new, |(_, address)| address.to_owned())
}

/// Approves a code on the server's page, as a person would; gives the page's status.
pub fn approve(code: &str, account: &str, answer: &str) -> u16 {
    let passphrase = from_runner("VOXELTRON_TEST_CLOUD_PASSPHRASE");
    let fields = [("user_code", code), ("account", account), ("passphrase", passphrase.as_str()), ("answer", answer)];
    let pairs = fields.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    let page = attohttpc::post(format!("{}/device", endpoint()));
    let page = page.header("content-type", "application/x-www-form-urlencoded").text(pairs.join("&"));
    page.send().unwrap().status().as_u16()
}

fn admin(method: Method, path: &str, body: &Value) -> Value {
    let builder = RequestBuilder::new(method, format!("{}/admin/accounts/{path}", endpoint()));
    let answer = builder.bearer_auth(from_runner("VOXELTRON_TEST_CLOUD_ADMIN")).text(body.to_string()).send().unwrap();
    assert!(answer.is_success(), "{path}: {answer:?}");
    answer.json().unwrap()
}

/// An account of the test's own, linked.
#[derive(Debug)]
pub struct Account {
    pub name: String,
    pub folder: tempfile::TempDir,
    given: Mutex<Vec<String>>,
}

impl Account {
    /// `limits`: as the server's README has them.
    pub fn new(limits: &Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let account = Self { name, folder: tempfile::tempdir().unwrap(), given: Mutex::default() };
        account.limit(limits);
        account
    }

    pub fn limit(&self, limits: &Value) {
        admin(Method::PUT, &self.name, limits);
    }

    /// Tokens of a new link, and how many seconds the access token is good.
    pub fn tokens(&self) -> (String, String, i64) {
        let given = admin(Method::POST, &format!("{}/link", self.name), &Value::Null);
        let text = |name: &str| given[name].as_str().unwrap().to_owned();
        let (access, refresh) = (text("access_token"), text("refresh_token"));
        self.given.lock().unwrap().extend([access.clone(), refresh.clone()]);
        (access, refresh, given["expires_in"].as_i64().unwrap())
    }

    /// A link to that address, as `cloud link` would have kept it.
    pub fn link(&self, endpoint: &str) -> Link {
        let (access, refresh, seconds) = self.tokens();
        let expires = Utc::now() + TimeDelta::seconds(seconds);
        let renew = Utc::now() + TimeDelta::milliseconds(seconds * 500);
        let tokens = Tokens { access: Secret::new(access), refresh: Secret::new(refresh), expires, renew };
        Link::new(endpoint, &format!("{endpoint}/oauth/token"), Utc::now(), tokens)
    }

    pub fn file(&self) -> LinkFile {
        LinkFile::new(self.folder.path())
    }

    pub fn open(&self, endpoint: &str, settings: &Settings, world: &World) -> Cloud {
        let link = self.link(endpoint);
        self.file().write(&link).unwrap();
        settings.open(self.file(), link, world).unwrap()
    }

    pub fn target(&self, prefix: &str) -> Cloud {
        self.open(&endpoint(), &settings(prefix), &World::system())
    }

    /// Ends the access tokens before their time.
    pub fn expire(&self) {
        admin(Method::POST, &format!("{}/expire", self.name), &Value::Null);
    }

    fn state(&self) -> Value {
        admin(Method::GET, &self.name, &Value::Null)
    }

    /// How many links it has.
    pub fn links(&self) -> u64 {
        self.state()["links"].as_u64().unwrap()
    }

    /// Every key, as it stands there.
    pub fn keys(&self) -> Vec<String> {
        let objects = self.state()["objects"].as_array().unwrap().clone();
        objects.iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect()
    }

    /// The keys of uploads that are not finished.
    pub fn unfinished(&self) -> Vec<String> {
        let uploads = self.state()["unfinished"].as_array().unwrap().clone();
        uploads.iter().map(|upload| upload["key"].as_str().unwrap().to_owned()).collect()
    }

    /// A plain request with a token of its own.
    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let token = self.tokens().0;
        RequestBuilder::new(method, format!("{}{path}", endpoint())).bearer_auth(token)
    }

    fn object(key: &str) -> String {
        let parts: Vec<String> =
            key.split('/').map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()).collect();
        format!("/v1/objects/{}", parts.join("/"))
    }

    pub fn get(&self, key: &str) -> Response {
        self.ask(Method::GET, &Self::object(key)).send().unwrap()
    }

    pub fn delete(&self, key: &str) {
        assert!(self.ask(Method::DELETE, &Self::object(key)).send().unwrap().is_success());
    }

    /// Stores an object by as little of tus as will do.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let begin = self.ask(Method::POST, "/v1/uploads").header("tus-resumable", "1.0.0");
        let begin = begin.header("upload-length", bytes.len().to_string());
        let begun = begin.header("upload-metadata", format!("key {}", STANDARD.encode(key))).send().unwrap();
        assert_eq!(begun.status().as_u16(), 201, "{begun:?}");
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        let patch = self.ask(Method::PATCH, &place).header("tus-resumable", "1.0.0").header("upload-offset", "0");
        let answer = patch.header("content-type", "application/offset+octet-stream").bytes(bytes).send().unwrap();
        assert_eq!(answer.status().as_u16(), 204, "{answer:?}");
    }

    /// Every token that the account has got, also by renewal.
    pub fn secrets(&self) -> Vec<String> {
        let mut all = self.given.lock().unwrap().clone();
        if let Some((link, _)) = self.file().read().unwrap() {
            all.extend([link.tokens.access.expose().to_owned(), link.tokens.refresh.expose().to_owned()]);
        }
        all
    }

    /// Makes the link that of a sandbox's data folder.
    pub fn link_sandbox(&self, sandbox: &super::Sandbox, endpoint: &str) {
        LinkFile::new(&sandbox.data_dir()).write(&self.link(endpoint)).unwrap();
    }
}

/// Without limits.
pub fn account() -> Account {
    Account::new(&json!({}))
}

/// Settings with short pauses, and chunks of 1 MiB.
pub fn settings(prefix: &str) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        part_mib: 1,
        policy: Policy { attempts: 5, first: ms(20), longest: ms(200), longest_asked: ms(300) },
        patience: Patience { connect: ms(2_000), answer: ms(8_000), completion: ms(16_000), ..Patience::default() },
        ..Settings::new("cloud", prefix)
    }
}
