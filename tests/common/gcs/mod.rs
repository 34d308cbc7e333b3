//! Google Cloud Storage for tests: a strict server of ours (`stub`), and a bucket on fake-gcs-server, which `tests/run`
//! starts, seen by plain requests and not by our target.

pub mod stub;
pub mod wire;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use stub::Stub;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::gcs::{Gcs, Identity, Settings};
use voxeltron_backup::target::http::Patience;
use voxeltron_backup::target::retry::Policy;
use voxeltron_backup::world::World;

use super::from_runner;

/// A service account's key, made once: PEM, and its public half as the server has it.
pub fn service_key() -> &'static (String, Vec<u8>) {
    static KEY: OnceLock<(String, Vec<u8>)> = OnceLock::new();
    KEY.get_or_init(new_key)
}

/// Another key, that no server knows.
pub fn new_key() -> (String, Vec<u8>) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let body: Vec<String> = STANDARD
        .encode(private.as_ref())
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", body.join("\n"));
    (pem, public.as_ref().to_vec())
}

/// A credentials file with that key.
pub fn credentials(pem: &str, token_uri: &str) -> String {
    json!({
        "type": "service_account", "project_id": "tests", "private_key_id": "0123456789abcdef", "private_key": pem,
        "client_email": "backup@tests.iam.gserviceaccount.com", "client_id": "1", "token_uri": token_uri,
    })
    .to_string()
}

pub fn stub() -> Stub {
    Stub::new(service_key().1.clone())
}

/// The account that the stub knows.
pub fn account(stub: &Stub) -> Identity {
    let text = Secret::new(credentials(&service_key().0, &stub.token_uri()));
    Identity::account(&text, "the test's credentials").unwrap()
}

/// Settings with short pauses, and chunks of 1 MiB.
pub fn settings(endpoint: &str, bucket: &str, prefix: &str) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        part_mib: 1,
        policy: Policy { attempts: 5, first: ms(20), longest: ms(200), longest_asked: ms(300) },
        patience: Patience { connect: ms(2_000), answer: ms(4_000), completion: ms(8_000), ..Patience::default() },
        ..Settings::new("gcs", endpoint, bucket, prefix)
    }
}

pub fn target(stub: &Stub, prefix: &str) -> Gcs {
    settings(&stub.endpoint(), "bucket", prefix).open(account(stub), &World::system()).unwrap()
}

/// Every piece of a secret that no message may have: the key's lines and the tokens.
pub fn secrets(stub: &Stub) -> Vec<String> {
    let lines = service_key().0.lines().filter(|line| !line.starts_with('-')).map(ToOwned::to_owned);
    lines.chain(stub.tokens()).chain(["canary-".to_owned()]).collect()
}

/// A bucket of the test's own on fake-gcs-server or gcp-storage-emulator.
#[derive(Debug)]
pub struct Bucket {
    pub name: String,
    pub endpoint: String,
}

impl Bucket {
    /// On the server that the variable names.
    pub fn new(variable: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let endpoint = from_runner(variable);
        let url = format!("{endpoint}/storage/v1/b?project=tests");
        let answer = attohttpc::post(url).json(&json!({"name": name})).unwrap().send().unwrap();
        assert!(answer.is_success(), "{answer:?}");
        Self { name, endpoint }
    }

    /// One on fake-gcs-server.
    pub fn fake() -> Self {
        Self::new("VOXELTRON_TEST_GCS_ENDPOINT")
    }

    /// `HOST:PORT` of its server.
    pub fn address(&self) -> String {
        self.endpoint.split_once("://").map_or_else(String::new, |(_, address)| address.to_owned())
    }

    pub fn settings(&self, prefix: &str) -> Settings {
        settings(&self.endpoint, &self.name, prefix)
    }

    pub fn target(&self, prefix: &str) -> Gcs {
        self.settings(prefix).open(Identity::Anonymous, &World::system()).unwrap()
    }

    fn url(&self, key: &str) -> String {
        let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
        format!("{}/storage/v1/b/{}/o/{key}", self.endpoint, self.name)
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        let name = utf8_percent_encode(key, NON_ALPHANUMERIC);
        let url = format!("{}/upload/storage/v1/b/{}/o?uploadType=media&name={name}", self.endpoint, self.name);
        let answer = attohttpc::post(url).header("content-type", "text/plain").bytes(bytes).send().unwrap();
        assert!(answer.is_success(), "{answer:?}");
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        let answer = attohttpc::get(format!("{}?alt=media", self.url(key))).send().unwrap();
        assert!(answer.is_success(), "{answer:?}");
        answer.bytes().unwrap()
    }

    pub fn delete(&self, key: &str) {
        assert!(attohttpc::delete(self.url(key)).send().unwrap().is_success());
    }

    /// Every key, as it stands in the bucket.
    pub fn keys(&self) -> Vec<String> {
        let answer = attohttpc::get(format!("{}/storage/v1/b/{}/o", self.endpoint, self.name)).send().unwrap();
        let page: Value = answer.json().unwrap();
        let items = page["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }
}
