//! Requests to a store. Flows in: a command of `s3`'s and its bytes. Flows out: an answer whose body is read with care,
//! or what went wrong. Keys that have ended are exchanged, once. Signing, URLs and headers are `s3`'s; sending is that of every target, because the crate's own
//! takes a body that was cut short for a whole one, has one timeout for everything, retries out of sight, follows
//! redirects to hosts that were never named, drops the headers of a refusal and knows no certificates but the system's.
//! Touches the network; the crate itself looks at the system's clock for a signature.

use attohttpc::Method;
use attohttpc::header::{HeaderName, HeaderValue};
use s3::Bucket;
use s3::command::{Command, HttpMethod};
use s3::creds::Credentials;
use s3::error::S3Error;
use s3::request::Request;
use s3::request::blocking::AttoRequest;

use super::auth::Auth;
use super::settings::Keys;
use super::trouble::{self, Words};
use crate::secret::Secret;
use crate::target::AfterSignal;
use crate::target::http::{self, Client, Haste, Outgoing};
use crate::target::retry::Tries;
use crate::target::trouble::{Line, Refusal, Trouble};

/// A bucket that can be talked to.
#[derive(Clone)]
pub struct Wire {
    bucket: Box<Bucket>,
    /// Sends what is signed.
    pub client: Client,
    /// Has the keys.
    pub auth: Auth,
}

/// A request.
pub struct Call<'c> {
    /// The key with the target's prefix; empty for the bucket itself.
    pub path: &'c str,
    /// What is asked.
    pub command: Command<'c>,
    /// What stands after the question mark beside what belongs to the command; may be empty.
    pub query: &'static str,
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub body: &'c [u8],
}

impl<'c> Call<'c> {
    /// Without headers and body.
    pub fn new(path: &'c str, command: Command<'c>) -> Self {
        Self { path, command, query: "", headers: Vec::new(), body: &[] }
    }
}

/// An answer that says yes.
pub struct Answer {
    inner: http::Answer,
    /// The MD5 of what was sent, in hex, as the request's Content-MD5 had it.
    pub sent_md5: Option<String>,
}

impl Answer {
    /// The ETag as it stands.
    pub fn etag(&self) -> Option<String> {
        self.header("etag").map(ToOwned::to_owned)
    }

    /// The answer itself.
    pub fn into_inner(self) -> http::Answer {
        self.inner
    }
}

impl std::ops::Deref for Answer {
    type Target = http::Answer;

    fn deref(&self) -> &http::Answer {
        &self.inner
    }
}

/// The HTTP client's error from one of `s3`'s.
fn not_made(error: S3Error) -> Trouble {
    match error {
        S3Error::Atto(error) => Trouble::from_client(error),
        // Nothing of it is formatted that could hold a header's value.
        S3Error::Credentials(_) => Trouble::Line(Line::Request, "the keys can't be used".to_owned()),
        S3Error::UrlParse(error) => Trouble::Line(Line::Request, format!("not a URL: {error}")),
        _ => Trouble::Line(Line::Request, "the request can't be signed".to_owned()),
    }
}

impl Wire {
    /// Talks to `bucket`.
    pub fn new(bucket: Box<Bucket>, client: Client, auth: Auth) -> Self {
        Self { bucket, client, auth }
    }

    /// The same, after a signal, for what must be put in order.
    pub fn for_cleanup(&self) -> Self {
        Self { client: self.client.for_cleanup(), ..self.clone() }
    }

    /// The same, for what does this after a signal.
    pub fn after(&self, signal: AfterSignal) -> Self {
        Self { client: self.client.after(signal), ..self.clone() }
    }

    /// A fresh count of attempts.
    pub fn tries(&self) -> Tries<'_> {
        self.client.tries()
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
        self.client.again(&mut || self.once(call()).and_then(read))
    }

    /// Asks once, but twice when the keys of a role have ended before their time.
    ///
    /// # Errors
    /// No answer, or one that is not a success.
    pub fn once(&self, call: Call<'_>) -> Result<Answer, Trouble> {
        let keys = self.auth.keys(&self.client)?;
        let trouble = match self.signed(&call, &keys) {
            Err(trouble) if self.auth.is_role() => trouble,
            outcome => return outcome,
        };
        // A HEAD's answer has no word; some stores know keys no more that have ended.
        let unsaid = matches!(&trouble, Trouble::Refused(refusal) if matches!(refusal.status, 400 | 401 | 403)
            && matches!(refusal.code.as_str(), "" | "InvalidAccessKeyId"));
        if !trouble.is_ended() && !unsaid {
            return Err(trouble);
        }
        match (self.auth.others(&self.client, &keys, trouble.is_ended())?, trouble) {
            (Some(others), _) => self.signed(&call, &others),
            // The next ones may come in a moment.
            (None, Trouble::Refused(refusal)) if !unsaid => {
                Err(Trouble::Refused(Refusal { is_passing: true, ..refusal }))
            }
            (None, trouble) => Err(trouble),
        }
    }

    /// Asks once, signed with these keys.
    fn signed(&self, call: &Call<'_>, keys: &Keys) -> Result<Answer, Trouble> {
        let haste = match call.command {
            Command::CompleteMultipartUpload { .. } => Haste::Completing,
            Command::GetObjectRange { .. } => Haste::Reading,
            _ => Haste::Usual,
        };
        let mut bucket = self.bucket.clone();
        let (access, secret) = (Some(keys.access.expose()), Some(keys.secret.expose()));
        let token = keys.token.as_ref().map(Secret::expose);
        let made = Credentials::new(access, secret, token, None, None).map_err(|error| not_made(error.into()))?;
        bucket.set_credentials(made);
        if !call.query.is_empty() {
            bucket.add_query(call.query, "");
        }
        for (name, value) in &call.headers {
            let value = HeaderValue::try_from(value).map_err(|_| not_made(S3Error::HttpFail))?;
            bucket.extra_headers_mut().insert(HeaderName::from_static(name), value);
        }
        let request = AttoRequest::new(&bucket, call.path, call.command.clone()).map_err(not_made)?;
        let (url, headers) = (request.url().map_err(not_made)?, request.headers().map_err(not_made)?);
        let method = match request.command.http_verb() {
            HttpMethod::Get => Method::GET,
            HttpMethod::Put => Method::PUT,
            HttpMethod::Post => Method::POST,
            HttpMethod::Head => Method::HEAD,
            HttpMethod::Delete => Method::DELETE,
        };
        let sent_md5 = headers.get("content-md5").and_then(|value| md5_hex(value.to_str().ok()?));
        let answer = self.client.send(Outgoing { method, url: url.as_str(), headers, body: call.body, haste })?;
        if answer.is_success() { Ok(Answer { inner: answer, sent_md5 }) } else { Err(trouble::refusal(answer)) }
    }
}

fn md5_hex(base64: &str) -> Option<String> {
    use base64::Engine;
    Some(crate::format::hex(&base64::engine::general_purpose::STANDARD.decode(base64).ok()?))
}
