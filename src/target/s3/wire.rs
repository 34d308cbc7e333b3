//! Requests to a store. Flows in: a command of `s3`'s and its bytes. Flows out: an answer whose body is read with care,
//! or what went wrong. Signing, URLs and headers are `s3`'s; sending is ours, on the HTTP client below it, because its
//! own takes a body that was cut short for a whole one, has one timeout for everything, retries out of sight, follows
//! redirects to hosts that were never named, drops the headers of a refusal and knows no certificates but the system's.
//! Touches the network; the crates themselves look at the system's clock for a signature, and at `https_proxy` and
//! `no_proxy` for the way.

use std::io::Read;
use std::time::Duration;

use attohttpc::header::{HeaderMap, HeaderName, HeaderValue};
use attohttpc::{ProxySettings, ResponseReader, Session};
use s3::Bucket;
use s3::command::{Command, HttpMethod};
use s3::error::S3Error;
use s3::request::Request;
use s3::request::blocking::AttoRequest;

use super::trouble::{Line, Refusal, Trouble};
use crate::target::retry::{Policy, Tries};
use crate::world::World;

/// The largest XML document that is read, in bytes.
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;
/// How much of a refusal is read, in bytes.
const MAX_REFUSAL: u64 = 64 * 1024;

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

/// A bucket that can be talked to.
#[derive(Clone)]
pub struct Wire {
    bucket: Box<Bucket>,
    session: Session,
    /// Time, randomness, signals.
    pub world: World,
    /// How often a request is tried.
    pub policy: Policy,
    patience: Patience,
}

/// A request.
pub struct Call<'c> {
    /// The key with the target's prefix; empty for the bucket itself.
    pub path: &'c str,
    /// What is asked.
    pub command: Command<'c>,
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub body: &'c [u8],
}

impl<'c> Call<'c> {
    /// Without headers and body.
    pub fn new(path: &'c str, command: Command<'c>) -> Self {
        Self { path, command, headers: Vec::new(), body: &[] }
    }
}

/// An answer that says yes.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body. It may end too early without an error: compare.
    pub body: ResponseReader,
    /// The MD5 of what was sent, in hex, as the request's Content-MD5 had it.
    pub sent_md5: Option<String>,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The ETag as it stands.
    pub fn etag(&self) -> Option<String> {
        self.header("etag").map(ToOwned::to_owned)
    }

    /// How long the answer says that its body is.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
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
}

/// The HTTP client's error from one of `s3`'s.
fn not_made(error: S3Error) -> Trouble {
    match error {
        S3Error::Atto(error) => Trouble::from_client(error),
        // Nothing of it is formatted that could hold a header's value.
        S3Error::Credentials(_) => Trouble::Line(Line::Request, "the credentials can't be renewed".to_owned()),
        S3Error::UrlParse(error) => Trouble::Line(Line::Request, format!("not a URL: {error}")),
        _ => Trouble::Line(Line::Request, "the request can't be signed".to_owned()),
    }
}

impl Wire {
    /// Talks to `bucket`; `roots` are certificates to trust besides the system's.
    pub fn new(bucket: Box<Bucket>, roots: Vec<Vec<u8>>, world: World, policy: Policy, patience: Patience) -> Self {
        let mut session = Session::new();
        session.follow_redirects(false);
        session.connect_timeout(patience.connect);
        if bucket.scheme() == "http" {
            // A plain request through a proxy is sent with the proxy's name as its host, which is not what was signed.
            session.proxy_settings(ProxySettings::builder().build());
        }
        roots.into_iter().for_each(|root| session.add_root_certificate(root.into()));
        Self { bucket, session, world, policy, patience }
    }

    /// The same, after a signal, for what must be put in order.
    pub fn for_cleanup(&self) -> Self {
        Self { world: self.world.for_cleanup(), ..self.clone() }
    }

    /// The secrets that no message may have in it.
    pub fn secrets(&self) -> Vec<String> {
        let all = [self.bucket.access_key(), self.bucket.secret_key(), self.bucket.session_token()];
        let token = self.bucket.security_token();
        all.into_iter().chain([token]).filter_map(|found| found.ok().flatten()).filter(|text| text.len() > 3).collect()
    }

    /// A fresh count of attempts.
    pub fn tries(&self) -> Tries<'_> {
        Tries::new(self.policy, &self.world)
    }

    /// Asks until there is an answer, or it is enough.
    ///
    /// # Errors
    /// The last trouble, or a signal.
    pub fn ask<'c, T>(
        &self,
        call: &dyn Fn() -> Call<'c>,
        read: &dyn Fn(Answer) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut tries = self.tries();
        loop {
            let trouble = match self.once(call()).and_then(read) {
                Ok(value) => return Ok(value),
                Err(trouble) => trouble,
            };
            if !trouble.is_passing() || !tries.again(trouble.retry_after()).map_err(Trouble::Stopped)? {
                return Err(trouble);
            }
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// No answer, or one that is not a success.
    pub fn once(&self, call: Call<'_>) -> Result<Answer, Trouble> {
        self.world.cancel.check().map_err(Trouble::Stopped)?;
        let completing = matches!(call.command, Command::CompleteMultipartUpload { .. });
        let reading = matches!(call.command, Command::GetObjectRange { .. });
        let mut bucket = self.bucket.clone();
        for (name, value) in call.headers {
            let value = HeaderValue::try_from(value).map_err(|_| not_made(S3Error::HttpFail))?;
            bucket.extra_headers_mut().insert(HeaderName::from_static(name), value);
        }
        let request = AttoRequest::new(&bucket, call.path, call.command).map_err(not_made)?;
        let (url, headers) = (request.url().map_err(not_made)?, request.headers().map_err(not_made)?);
        let builder = match request.command.http_verb() {
            HttpMethod::Get => self.session.get(url),
            HttpMethod::Put => self.session.put(url),
            HttpMethod::Post => self.session.post(url),
            HttpMethod::Head => self.session.head(url),
            HttpMethod::Delete => self.session.delete(url),
        };
        let answer = if completing { self.patience.completion } else { self.patience.answer };
        let mut builder = builder.bytes(call.body).read_timeout(answer);
        if !reading {
            // The one way to end a write that the other side does not take. A backup is read as slowly as its reader
            // likes, so there only the silence between two pieces counts.
            let sending = (call.body.len() as u64) / self.patience.slowest.max(1);
            builder = builder.timeout(answer + Duration::from_secs(sending));
        }
        for (name, value) in &headers {
            builder = builder.try_header(name, value.clone()).map_err(Trouble::from_client)?;
        }
        let sent_md5 = headers.get("content-md5").and_then(|value| md5_hex(value.to_str().ok()?));
        let (status, headers, body) = builder.send().map_err(Trouble::from_client)?.split();
        let answer = Answer { status: status.as_u16(), headers, body, sent_md5 };
        if status.is_success() { Ok(answer) } else { Err(refusal(answer)) }
    }
}

fn refusal(answer: Answer) -> Trouble {
    let region = answer.header("x-amz-bucket-region").map(ToOwned::to_owned);
    let retry_after = answer.header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let status = answer.status;
    let mut body = Vec::new();
    // What comes of it is enough: the status stands already.
    let _ = answer.body.take(MAX_REFUSAL).read_to_end(&mut body);
    let read = Refusal::read(status, &body);
    Trouble::Refused(Refusal { region: read.region.clone().or(region), retry_after, ..read })
}

fn md5_hex(base64: &str) -> Option<String> {
    use base64::Engine;
    Some(crate::format::hex(&base64::engine::general_purpose::STANDARD.decode(base64).ok()?))
}
