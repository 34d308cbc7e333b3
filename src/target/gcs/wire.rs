//! Requests to the store. Flows in: what is asked, and where. Flows out: an answer that says yes, or what went wrong. Every
//! request has a token; a 401 gets a fresh one, once. Touches the network by the client of all targets.

use attohttpc::Method;
use attohttpc::header::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::auth::Auth;
use super::documents;
use crate::target::AfterSignal;
use crate::target::http::{self, Answer, Client, Haste, Outgoing};
use crate::target::trouble::{Refusal, Trouble};

/// What stands as it is in a URL; every slash of a key is percent-encoded.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Percent-encodes a part of a URL.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

/// A store that can be talked to.
#[derive(Clone)]
pub struct Wire {
    /// Scheme, host, port, perhaps a path; no slash at its end.
    pub endpoint: String,
    bucket: String,
    /// Sends.
    pub client: Client,
    /// Knows who we are.
    pub auth: Auth,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub enum Place<'c> {
    /// An object, or all of them when its name is empty.
    Object(&'c str),
    /// Where uploads begin.
    Uploads,
    /// The rest of a URL after the endpoint.
    Session(&'c str),
}

/// A request.
pub struct Call<'c> {
    /// Where it goes.
    pub place: Place<'c>,
    /// What is asked.
    pub method: Method,
    /// What stands after the question mark.
    pub query: Vec<(&'static str, String)>,
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub body: &'c [u8],
    /// How long it may take.
    pub haste: Haste,
}

impl<'c> Call<'c> {
    fn at(place: Place<'c>, method: Method) -> Self {
        Self { place, method, query: Vec::new(), headers: Vec::new(), body: &[], haste: Haste::Usual }
    }

    /// A GET of an object's description; of the listing when `path` is empty.
    pub fn object(path: &'c str) -> Self {
        Self::at(Place::Object(path), Method::GET)
    }

    /// Begins an upload.
    pub fn begin() -> Self {
        Self::at(Place::Uploads, Method::POST)
    }

    /// A PUT into an upload.
    pub fn session(session: &'c str) -> Self {
        Self::at(Place::Session(session), Method::PUT)
    }
}

impl Wire {
    /// Talks to a bucket.
    pub fn new(endpoint: &str, bucket: &str, client: Client, auth: Auth) -> Self {
        Self { endpoint: endpoint.to_owned(), bucket: bucket.to_owned(), client, auth }
    }

    /// The same, after a signal, for what must be put in order.
    #[must_use]
    pub fn for_cleanup(&self) -> Self {
        Self { client: self.client.for_cleanup(), ..self.clone() }
    }

    /// The same, for what does this after a signal.
    pub fn after(&self, signal: AfterSignal) -> Self {
        Self { client: self.client.after(signal), ..self.clone() }
    }

    /// An upload's address without scheme and host: whatever host the store names, we stay with the one that we were told,
    /// which a private endpoint needs, and so that no token goes elsewhere.
    pub fn session(&self, location: &str) -> Option<String> {
        let rest =
            location.split_once("://").map_or(Some(location), |(_, rest)| rest.find('/').map(|at| &rest[at..]))?;
        let path = self.endpoint.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        let rest = path.and_then(|path| rest.strip_prefix(path)).unwrap_or(rest);
        let fine = rest.starts_with('/') && rest.chars().all(|c| c.is_ascii_graphic());
        fine.then(|| rest.to_owned())
    }

    fn url(&self, call: &Call<'_>) -> String {
        let bucket = encode(&self.bucket);
        let mut url = match call.place {
            Place::Object("") => format!("{}/storage/v1/b/{bucket}/o", self.endpoint),
            Place::Object(path) => format!("{}/storage/v1/b/{bucket}/o/{}", self.endpoint, encode(path)),
            Place::Uploads => format!("{}/upload/storage/v1/b/{bucket}/o", self.endpoint),
            Place::Session(rest) => return format!("{}{rest}", self.endpoint),
        };
        for (number, (name, value)) in call.query.iter().enumerate() {
            url.push(if number == 0 { '?' } else { '&' });
            url.push_str(&format!("{name}={}", encode(value)));
        }
        url
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
        self.client.again(&mut || self.once(&call()).and_then(read))
    }

    /// Asks once; an answer that is not a success is a trouble.
    ///
    /// # Errors
    /// No answer, or one that is not a success.
    pub fn once(&self, call: &Call<'_>) -> Result<Answer, Trouble> {
        let answer = self.raw(call)?;
        if answer.is_success() { Ok(answer) } else { Err(refusal(answer)) }
    }

    /// Asks once, but twice when the token has lost its force before its time.
    ///
    /// # Errors
    /// No answer; every status is one.
    pub fn raw(&self, call: &Call<'_>) -> Result<Answer, Trouble> {
        let url = self.url(call);
        let mut renewed = false;
        loop {
            let token = self.auth.token(&self.client)?;
            let mut headers = HeaderMap::new();
            if let Some(token) = &token {
                http::set(&mut headers, "authorization", &format!("Bearer {}", token.expose()))?;
            }
            for (name, value) in &call.headers {
                http::set(&mut headers, name, value)?;
            }
            let (method, body, haste) = (call.method.clone(), call.body, call.haste);
            let answer = self.client.send(Outgoing { method, url: &url, headers, body, haste })?;
            match token {
                Some(token) if answer.status == 401 && !renewed => {
                    self.auth.forget(&token);
                    renewed = true;
                }
                _ => return Ok(answer),
            }
        }
    }
}

/// The refusal that an answer is.
pub fn refusal(answer: Answer) -> Trouble {
    let (status, retry_after) = (answer.status, answer.retry_after());
    Trouble::Refused(Refusal { retry_after, ..documents::refusal(status, &answer.refusal()) })
}
