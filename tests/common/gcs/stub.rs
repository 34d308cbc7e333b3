//! A strict Google Cloud Storage of ours, for what the emulators don't check: it keeps objects and unfinished uploads in
//! memory, takes no request without a token that it gave and that has not ended, gives tokens for assertions whose RS256
//! signature holds, keeps to `ifGenerationMatch`, pages listings, takes a part of a chunk when told, and answers as the
//! JSON API documents it. One request on a connection.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use attohttpc::Method;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::wire::{Reply, Request, document, rand, read, refusal};

/// What chunks are made of.
const GRAIN: usize = 256 * 1024;

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub about: Value,
    pub generation: u64,
    pub created: DateTime<Utc>,
}

#[derive(Debug, Default)]
struct Session {
    name: String,
    about: Value,
    bytes: Vec<u8>,
    done: bool,
}

/// What a test can ask of the server.
#[derive(Clone, Debug, Default)]
pub struct Knobs {
    /// How long a token is good, in seconds; 0 stands for an hour.
    pub token_seconds: u64,
    /// How many objects a page has; 0 for as many as are asked for.
    pub page: usize,
    /// Of each chunk no more than this is taken; 0 for all.
    pub take: usize,
    /// The checksum of every object is wrong.
    pub wrong_sum: bool,
    /// Every size is one more than it is.
    pub wrong_size: bool,
    /// A listing's next page is always the second.
    pub circle: bool,
    /// Uploads are forgotten after this many requests into them.
    pub forget_after: Option<usize>,
    /// The server's clock is ahead of ours by that, in seconds.
    pub ahead: i64,
    /// Answers to what begins so, in place of the server's own: `METHOD /path`, status line, body.
    pub canned: Vec<(String, String, String)>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    sessions: HashMap<String, Session>,
    tokens: HashMap<String, Instant>,
    given: Vec<String>,
    knobs: Knobs,
    generation: u64,
    into_sessions: usize,
    log: Vec<String>,
}

/// The server; it ends with it. It has one bucket, `bucket`.
#[derive(Debug)]
pub struct Stub {
    address: SocketAddr,
    public_key: Arc<Vec<u8>>,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

impl Stub {
    /// Listens on a free port; takes assertions that this public key (DER) belongs to.
    pub fn new(public_key: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self {
            address: listener.local_addr().unwrap(),
            public_key: Arc::new(public_key),
            state: Arc::default(),
            over: Arc::default(),
        };
        let (address, key) = (stub.address, Arc::clone(&stub.public_key));
        let (state, over) = (Arc::clone(&stub.state), Arc::clone(&stub.over));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), state, key) = (client, Arc::clone(&state), Arc::clone(&key)) else { continue };
                std::thread::spawn(move || drop(serve(client, &state, &key, address)));
            }
        });
        stub
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn token_uri(&self) -> String {
        format!("{}/token", self.endpoint())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn turn(&self, knobs: Knobs) {
        self.state().knobs = knobs;
    }

    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    pub fn object(&self, name: &str) -> Option<Object> {
        self.state().objects.get(name).cloned()
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.state().put(name, bytes.to_vec(), json!({}));
    }

    pub fn remove(&self, name: &str) {
        self.state().objects.remove(name);
    }

    /// The names of uploads that are not finished.
    pub fn unfinished(&self) -> Vec<String> {
        self.state().sessions.values().filter(|it| !it.done).map(|it| it.name.clone()).collect()
    }

    /// Every token that was given.
    pub fn tokens(&self) -> Vec<String> {
        self.state().given.clone()
    }

    /// No token that was given is good any longer.
    pub fn end_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Method and path of every request so far.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut client: TcpStream, state: &Mutex<State>, key: &[u8], address: SocketAddr) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let request = read(&mut client)?;
    let (status, headers, body) = {
        let mut state = state.lock().unwrap();
        state.log.push(format!("{} {}", request.method, request.path));
        state.answer(&request, key, address)
    };
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    client.write_all(format!("{head}\r\n").as_bytes())?;
    client.write_all(&body)
}

impl State {
    fn put(&mut self, name: &str, bytes: Vec<u8>, about: Value) {
        self.generation += 1;
        let generation = self.generation;
        self.objects.insert(name.to_owned(), Object { bytes, about, generation, created: Utc::now() });
    }

    fn describe(&self, name: &str) -> Value {
        let object = &self.objects[name];
        let sum = crc32c::crc32c(&object.bytes) ^ u32::from(self.knobs.wrong_sum);
        json!({
            "kind": "storage#object", "name": name, "bucket": "bucket",
            "size": (object.bytes.len() + usize::from(self.knobs.wrong_size)).to_string(),
            "generation": object.generation.to_string(), "crc32c": STANDARD.encode(sum.to_be_bytes()),
            "timeCreated": object.created.to_rfc3339(), "metadata": object.about["metadata"],
            "storageClass": object.about["storageClass"].as_str().unwrap_or("STANDARD"),
        })
    }

    fn answer(&mut self, request: &Request, key: &[u8], address: SocketAddr) -> Reply {
        let line = format!("{} {}", request.method, request.path);
        let canned = self.knobs.canned.iter().find(|(begin, ..)| line.starts_with(begin)).cloned();
        if let Some((_, status, body)) = canned {
            let sent = String::from_utf8_lossy(&request.body).into_owned();
            let token = request.headers.get("authorization").cloned().unwrap_or_default();
            // A server that tells what it was told.
            return (status, Vec::new(), body.replace("{sent}", &sent).replace("{authorization}", &token).into());
        }
        if request.path == "/token" {
            return self.token(request, key);
        }
        if request.path == "/computeMetadata/v1/instance/service-accounts/default/token" {
            if request.headers.get("metadata-flavor").map(String::as_str) != Some("Google") {
                return refusal(403, "forbidden", "Missing Metadata-Flavor:Google header.");
            }
            let (status, mut headers, body) = self.grant();
            headers.push(("Metadata-Flavor", "Google".to_owned()));
            return (status, headers, body);
        }
        let token = request.headers.get("authorization").and_then(|text| text.strip_prefix("Bearer "));
        if token.is_none_or(|token| self.tokens.get(token).is_none_or(|end| Instant::now() >= *end)) {
            return refusal(401, "authError", "Invalid Credentials");
        }
        let upload = request.path.strip_prefix("/upload");
        let Some(rest) = upload.unwrap_or(&request.path).strip_prefix("/storage/v1/b/") else {
            return ("404 Not Found".to_owned(), Vec::new(), b"Not Found".to_vec());
        };
        let (bucket, rest) = rest.split_once("/o").unwrap_or((rest, ""));
        if bucket != "bucket" {
            return refusal(404, "notFound", "The specified bucket does not exist.");
        }
        let name = percent_decode_str(rest.trim_start_matches('/')).decode_utf8_lossy().into_owned();
        match (upload.is_some(), &request.method, name.as_str()) {
            (true, &Method::POST, _) => self.begin(request, address),
            (true, &Method::PUT, _) => self.take(request),
            (true, &Method::DELETE, _) => {
                let id = &request.query["upload_id"];
                match self.sessions.get(id) {
                    Some(session) if !session.done => {
                        self.sessions.remove(id);
                        ("499 Client Closed Request".to_owned(), Vec::new(), Vec::new())
                    }
                    _ => refusal(404, "notFound", "No such upload"),
                }
            }
            (false, &Method::GET, "") => self.list(request),
            (false, &Method::GET, name) => self.get(request, name),
            (false, &Method::DELETE, name) => self.delete(request, name),
            _ => refusal(405, "methodNotAllowed", "Method not allowed"),
        }
    }

    fn grant(&mut self) -> Reply {
        let seconds = match self.knobs.token_seconds {
            0 => 3600,
            seconds => seconds,
        };
        let token = format!("ya29.canary-{}-{}", std::process::id(), URL_SAFE_NO_PAD.encode(rand()));
        self.tokens.insert(token.clone(), Instant::now() + Duration::from_secs(seconds));
        self.given.push(token.clone());
        document("200 OK", &json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"}))
    }

    fn token(&mut self, request: &Request, key: &[u8]) -> Reply {
        let now = Utc::now() + chrono::TimeDelta::seconds(self.knobs.ahead);
        let no = |why: &str| {
            let (status, mut headers, body) =
                document("400 Bad Request", &json!({"error": "invalid_grant", "error_description": why}));
            headers.push(("Date", now.to_rfc2822()));
            (status, headers, body)
        };
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let assertion = body.split('&').find_map(|pair| pair.strip_prefix("assertion=")).unwrap_or_default();
        let Some((signed, signature)) = assertion.rsplit_once('.') else { return no("Malformed assertion") };
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        let verifies = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(signed.as_bytes(), &signature);
        if verifies.is_err() {
            return no(&format!("Invalid JWT Signature. {assertion}"));
        }
        let claims =
            signed.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok()).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
        let (iat, exp) = (claims["iat"].as_i64().unwrap_or(0), claims["exp"].as_i64().unwrap_or(0));
        if claims["aud"].as_str().is_none_or(|to| !to.starts_with("http://127.0.0.1:") || !to.ends_with("/token"))
            || !claims["scope"].is_string()
        {
            return no("Invalid JWT: aud or scope");
        }
        if (iat - now.timestamp()).abs() > 300 || exp - iat > 3600 || exp <= now.timestamp() {
            let why = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. \
                       Check your iat and exp values in the JWT claim.";
            return no(why);
        }
        self.grant()
    }

    fn begin(&mut self, request: &Request, address: SocketAddr) -> Reply {
        let name = request.query["name"].clone();
        assert_eq!(request.query["uploadType"], "resumable");
        assert_eq!(request.query["ifGenerationMatch"], "0", "an upload that could overwrite");
        assert!(!request.headers.contains_key("content-encoding"));
        if self.objects.contains_key(&name) {
            return refusal(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.");
        }
        let about: Value = serde_json::from_slice(&request.body).unwrap();
        if about["storageClass"] == "NONSENSE" {
            return refusal(400, "invalid", "The storage class you specified is not valid.");
        }
        let id = URL_SAFE_NO_PAD.encode(rand());
        self.sessions.insert(id.clone(), Session { name, about, ..Session::default() });
        let location = format!("http://{address}/upload/storage/v1/b/bucket/o?uploadType=resumable&upload_id={id}");
        ("200 OK".to_owned(), vec![("Location", location)], Vec::new())
    }

    fn take(&mut self, request: &Request) -> Reply {
        let id = request.query["upload_id"].clone();
        self.into_sessions += 1;
        if self.knobs.forget_after.is_some_and(|after| self.into_sessions > after) {
            self.sessions.remove(&id);
        }
        let take = self.knobs.take;
        let Some(session) = self.sessions.get_mut(&id) else { return refusal(404, "notFound", "No such upload") };
        let name = session.name.clone();
        if session.done {
            return document("200 OK", &self.describe(&name));
        }
        let range = request.headers["content-range"].strip_prefix("bytes ").unwrap().to_owned();
        let (piece, total) = range.split_once('/').unwrap();
        let total: Option<usize> = total.parse().ok();
        if let Some((from, to)) = piece.split_once('-') {
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(to + 1 - from, request.body.len());
            if from > session.bytes.len() {
                return refusal(400, "invalid", "Invalid request.  There were gaps in the ranges.");
            }
            if total.is_none() && !request.body.len().is_multiple_of(GRAIN) {
                return refusal(400, "invalid", "Chunks must be multiples of 256 KiB.");
            }
            let new = request.body.get(session.bytes.len() - from..).unwrap_or_default();
            let most = if take == 0 { new.len() } else { take.min(new.len()) };
            session.bytes.extend_from_slice(&new[..most]);
        }
        let has = session.bytes.len();
        if total != Some(has) {
            let range = (has > 0).then(|| ("Range", format!("bytes=0-{}", has - 1)));
            return ("308 Resume Incomplete".to_owned(), range.into_iter().collect(), Vec::new());
        }
        if self.objects.contains_key(&name) {
            self.sessions.remove(&id);
            return refusal(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.");
        }
        session.done = true;
        let (bytes, about) = (std::mem::take(&mut session.bytes), session.about.clone());
        self.put(&name, bytes, about);
        document("200 OK", &self.describe(&name))
    }

    fn list(&self, request: &Request) -> Reply {
        let most: usize = request.query.get("maxResults").and_then(|text| text.parse().ok()).unwrap_or(1000);
        let most = if self.knobs.page == 0 { most } else { self.knobs.page.min(most) };
        let prefix = request.query.get("prefix").map_or("", String::as_str);
        let from = request.query.get("pageToken").map_or("", String::as_str);
        let mut names = self.objects.keys().filter(|name| name.starts_with(prefix) && name.as_str() >= from);
        let items: Vec<Value> = names.by_ref().take(most).map(|name| self.describe(name)).collect();
        let mut page = json!({"kind": "storage#objects"});
        if !items.is_empty() {
            page["items"] = json!(items);
        }
        let next = if self.knobs.circle { self.objects.keys().nth(1) } else { names.next() };
        if let Some(next) = next {
            page["nextPageToken"] = json!(next);
        }
        document("200 OK", &page)
    }

    fn get(&self, request: &Request, name: &str) -> Reply {
        let object = self.objects.get(name);
        let wanted = request.query.get("generation");
        let fits = |object: &&Object| wanted.is_none_or(|wanted| *wanted == object.generation.to_string());
        let Some(object) = object.filter(fits) else {
            return refusal(404, "notFound", &format!("No such object: bucket/{name}"));
        };
        if request.query.get("alt").map(String::as_str) != Some("media") {
            return document("200 OK", &self.describe(name));
        }
        let range = request.headers["range"].strip_prefix("bytes=").unwrap().to_owned();
        let (from, to) = range.split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        let to = to.min(object.bytes.len() - 1);
        let shown = ("Content-Range", format!("bytes {from}-{to}/{}", object.bytes.len()));
        ("206 Partial Content".to_owned(), vec![shown], object.bytes[from..=to].to_vec())
    }

    fn delete(&mut self, request: &Request, name: &str) -> Reply {
        let Some(object) = self.objects.get(name) else {
            return refusal(404, "notFound", &format!("No such object: bucket/{name}"));
        };
        if request.query.get("ifGenerationMatch").is_some_and(|it| *it != object.generation.to_string()) {
            return refusal(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.");
        }
        self.objects.remove(name);
        ("204 No Content".to_owned(), Vec::new(), Vec::new())
    }
}
