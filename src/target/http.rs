//! The one HTTP client, for every target on a network. Flows in: a request. Flows out: an answer whose body is read with
//! care, or what went wrong. It follows no redirect, tries nothing again out of sight, gives up what stands still, and hears
//! a signal whatever stands still. Touches the network, by threads of its own ([`line`]); the client looks at `https_proxy`
//! and `no_proxy` for the way, and http:// goes directly.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use attohttpc::header::{HeaderMap, HeaderName, HeaderValue};
use attohttpc::{Method, ProxySettings, RequestBuilder, Session};
use base64::Engine;

pub use self::line::Body;
use super::records::http_date;
use super::retry::{Policy, Tries};
use super::signal::{AfterSignal, Grace};
use super::trouble::{Line, Trouble};
use crate::error::{Context, Error, Kind, Result};
use crate::world::World;

mod line;

/// The largest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;
/// How much of a refusal is read, in bytes.
const MAX_REFUSAL: u64 = 64 * 1024;
/// How the program names itself to a server.
const USER_AGENT: &str = concat!("voxeltron-backup/", env!("CARGO_PKG_VERSION"));

/// How long to wait for a store.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For each next piece of an answer.
    pub answer: Duration,
    /// For the end of an upload's completion, for which a store may join thousands of parts.
    pub completion: Duration,
    /// A request that sends fewer bytes in a second than this is given up.
    pub slowest: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            completion: Duration::from_secs(600),
            slowest: 32 * 1024,
        }
    }
}

/// How a request's time is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Haste {
    /// The whole of it, by what it sends.
    #[default]
    Usual,
    /// The whole of it, and the store may take its time to answer.
    Completing,
    /// A body that is read as slowly as its reader likes: only the silence between two pieces counts.
    Reading,
}

/// A request as it goes out.
pub struct Outgoing<'o> {
    /// What is asked.
    pub method: Method,
    /// Where.
    pub url: &'o str,
    /// Every header but the length's and our name.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: &'o [u8],
    /// How long it may take.
    pub haste: Haste,
}

/// Its address, headers and body may be secrets.
impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("method", &self.method).finish_non_exhaustive()
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body. It may end too early without an error: compare.
    pub body: Body,
}

impl Answer {
    /// Whether the status says yes.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the answer says that its body is.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// How long the server asks us to wait: so many seconds, or until a time, which is the server's as that of its answer is.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        let until = || http_date(Some(text))?.signed_duration_since(http_date(self.header("date"))?).to_std().ok();
        text.parse().ok().map(Duration::from_secs).or_else(until)
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it is cut short or too large.
    pub fn document(self) -> Result<String, Trouble> {
        let length = self.length();
        let mut bytes = Vec::new();
        let outcome = self.body.take(MAX_DOCUMENT).read_to_end(&mut bytes);
        outcome.map_err(|error| Trouble::from_io(&error))?;
        let got = bytes.len() as u64;
        match length {
            Some(length) if length != got => return Err(Trouble::cut(got, length)),
            _ if got == MAX_DOCUMENT => return Err(Trouble::Strange("an answer without end".to_owned())),
            _ => {}
        }
        String::from_utf8(bytes).map_err(|_| Trouble::Strange("an answer that is not UTF-8".to_owned()))
    }

    /// What comes of a refusal's body; its status stands already.
    pub fn refusal(self) -> Vec<u8> {
        let mut body = Vec::new();
        let _ = self.body.take(MAX_REFUSAL).read_to_end(&mut body);
        body
    }
}

/// Sends requests, and tries again.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
    /// Time, randomness, signals.
    pub world: World,
    /// How often a request is tried.
    pub policy: Policy,
    patience: Patience,
    /// Counts what went over the line.
    moved: Arc<AtomicU64>,
    is_for_cleanup: bool,
}

impl Client {
    /// `roots` are certificates (DER) to trust besides the system's. Builds no TLS: that waits for the first request.
    pub fn new(roots: Vec<Vec<u8>>, world: World, policy: Policy, patience: Patience) -> Self {
        let mut session = Session::new();
        session.follow_redirects(false);
        session.connect_timeout(patience.connect);
        roots.into_iter().for_each(|root| session.add_root_certificate(root.into()));
        Self { session, world, policy, patience, moved: Arc::default(), is_for_cleanup: false }
    }

    /// The same for what must be put in order: a signal leaves it a moment.
    #[must_use]
    pub fn for_cleanup(&self) -> Self {
        if self.is_for_cleanup {
            return self.clone();
        }
        let mut world = self.world.for_cleanup();
        world.cancel = world.cancel.watching(Arc::new(Grace::new(&self.world)));
        Self { world, is_for_cleanup: true, ..self.clone() }
    }

    /// The same, for what does this after a signal.
    #[must_use]
    pub fn after(&self, signal: AfterSignal) -> Self {
        match signal {
            AfterSignal::End => self.clone(),
            AfterSignal::AMoment => self.for_cleanup(),
            AfterSignal::GoOn => Self { world: self.world.for_cleanup(), is_for_cleanup: true, ..self.clone() },
        }
    }

    /// Counts up while anything moves on the line: bytes sent, answers got.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// The same for a server that is near or not there at all: three attempts, three seconds for a connection, ten for an
    /// answer, which an instance's metadata server does not give to a container that is too far away from it.
    #[must_use]
    pub fn nearby(&self) -> Self {
        let connect = self.patience.connect.min(Duration::from_secs(3));
        let answer = self.patience.answer.min(Duration::from_secs(10));
        let policy = Policy { attempts: self.policy.attempts.min(3), ..self.policy };
        let mut near = Self { policy, patience: Patience { connect, answer, ..self.patience }, ..self.clone() };
        near.session.connect_timeout(connect);
        near
    }

    /// A fresh count of attempts.
    pub fn tries(&self) -> Tries<'_> {
        Tries::new(self.policy, &self.world)
    }

    /// Does it until it succeeds, or is no passing trouble, or it is enough.
    ///
    /// # Errors
    /// The last trouble, or a signal.
    pub fn again<T>(&self, once: &mut dyn FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut tries = self.tries();
        loop {
            let trouble = match once() {
                Ok(value) => return Ok(value),
                Err(trouble) => trouble,
            };
            if !trouble.is_passing() || !tries.again(trouble.retry_after()).map_err(Trouble::Told)? {
                return Err(trouble);
            }
        }
    }

    fn builder(&self, method: &Method, url: &str) -> Result<RequestBuilder, Trouble> {
        let builder = match *method {
            Method::GET => self.session.get(url),
            Method::PUT => self.session.put(url),
            Method::POST => self.session.post(url),
            Method::PATCH => self.session.patch(url),
            Method::HEAD => self.session.head(url),
            Method::DELETE => self.session.delete(url),
            _ => return Err(Trouble::Line(Line::Request, format!("no request is made by {method}"))),
        };
        // A plain request through a proxy is sent with the proxy's name as its host, which is not what may be signed.
        let plain = url.starts_with("http://");
        Ok(if plain { builder.proxy_settings(ProxySettings::builder().build()) } else { builder })
    }

    /// Asks once.
    ///
    /// # Errors
    /// A signal, or no answer; every status is an answer.
    pub fn send(&self, request: Outgoing<'_>) -> Result<Answer, Trouble> {
        self.world.cancel.check().map_err(Trouble::Told)?;
        // The client itself takes a text that is no URL for a mistake of its caller.
        url_of(request.url)?;
        let answer = if request.haste == Haste::Completing { self.patience.completion } else { self.patience.answer };
        let (body, feed) = line::body(request.body.len() as u64);
        let mut builder = self.builder(&request.method, request.url)?.body(body).read_timeout(answer);
        if request.haste != Haste::Reading {
            // The one way to end a write that the other side does not take.
            let sending = (request.body.len() as u64) / self.patience.slowest.max(1);
            builder = builder.timeout(answer + Duration::from_secs(sending));
        }
        for (name, value) in &request.headers {
            builder = builder.try_header(name, value.clone()).map_err(Trouble::from_client)?;
        }
        builder = builder.try_header("user-agent", USER_AGENT).map_err(Trouble::from_client)?;
        let waiting = line::start(builder, &feed)?;
        feed.send(request.body, &self.world.cancel, &self.moved)?;
        let answer = waiting.answer(&self.world.cancel)?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

fn url_of(url: &str) -> Result<(), Trouble> {
    let built = RequestBuilder::try_new(Method::GET, url);
    built.map(drop).map_err(Trouble::from_client)
}

/// A header of a request.
///
/// # Errors
/// When the text can't stand in a header; it is not quoted, since it may be a secret.
pub fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Trouble> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| Trouble::Line(Line::Request, format!("the header {name} can't hold its text")))?;
    value.set_sensitive(name == "authorization");
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// The host of an address, without anything that is nobody's business.
pub fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Before the host a password may stand.
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// An endpoint in the form that is signed and sent alike: no slash at its end, no port that the scheme implies.
pub fn endpoint(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let usual = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let authority = authority.strip_suffix(usual).unwrap_or(authority).to_ascii_lowercase();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let fine_path = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    let climbs = path.is_some_and(|path| !path.chars().all(fine_path) || path.split('/').any(|part| part == ".."));
    if authority.is_empty() || !authority.chars().all(fine) || climbs {
        return None;
    }
    Some(format!("{scheme}://{authority}{}", path.map(|path| format!("/{path}")).unwrap_or_default()))
}

/// Whether a text can be the name of a bucket, a region, a storage class: letters, digits, and what `more` has.
pub fn named(text: &str, more: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    !text.is_empty() && text.len() <= 255 && text.chars().all(fine) && !text.starts_with('.')
}

/// The certificates of a PEM file, each in DER, for the target of that name.
///
/// # Errors
/// [`Kind::Config`] when it can't be read or holds none.
pub fn certificates(path: &Path, name: &str) -> Result<Vec<Vec<u8>>> {
    let what = format!("target {name}: can't read ca_file {}", path.display());
    let text = std::fs::read_to_string(path).doing(Kind::Config, what)?;
    let found = pem(&text, "CERTIFICATE");
    if found.is_empty() {
        return Err(Error::new(Kind::Config, format!("target {name}: {} holds no certificate", path.display()))
            .hint("ca_file is a PEM file: it begins with -----BEGIN CERTIFICATE-----"));
    }
    Ok(found)
}

/// The blocks of that label in a PEM text.
pub fn pem(text: &str, label: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for block in text.split(&format!("-----BEGIN {label}-----")).skip(1) {
        let body: String = block.split("-----END").next().unwrap_or_default().split_whitespace().collect();
        found.extend(base64::engine::general_purpose::STANDARD.decode(body));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_without_its_password() {
        for (address, expected) in [
            ("https://hc.example/ping/secret", "hc.example"),
            ("https://user:secret@hc.example:8443/ping", "hc.example"),
            ("https://user:sec@ret@hc.example?x=secret", "hc.example"),
            ("http://[::1]:9000/x", "[::1]"),
            ("http://[::1]/x", "[::1]"),
            ("hc.example:80", "hc.example"),
        ] {
            assert_eq!(host(address), expected, "{address}");
        }
    }

    #[test]
    fn endpoints_take_one_form() {
        for (given, kept) in [
            ("https://s3.example.com/", Some("https://s3.example.com")),
            ("https://S3.Example.com:443", Some("https://s3.example.com")),
            ("http://10.0.0.5:80/", Some("http://10.0.0.5")),
            ("http://[::1]:9000", Some("http://[::1]:9000")),
            ("https://x.example:8443/storage/v1/s3", Some("https://x.example:8443/storage/v1/s3")),
            ("s3.example.com", None),
            ("ftp://s3.example.com", None),
            ("https://", None),
            ("https://key:secret@s3.example.com", None),
            ("https://s3.example.com/a/../b", None),
            ("https://s3.example.com/?x=1", None),
        ] {
            assert_eq!(endpoint(given).as_deref(), kept, "{given}");
        }
    }
}
