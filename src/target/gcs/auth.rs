//! Who we are to Google. Flows in: a service account's key, or the host's own account. Flows out: a token for each request,
//! renewed before it ends. Touches the network (the token endpoint, the metadata server); its secrets are never formatted,
//! and of a token endpoint's answer nothing is shown but a known word.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attohttpc::Method;
use attohttpc::header::HeaderMap;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::target::http::{self, Answer, Client, Haste, Outgoing};
use crate::target::signal::lock;
use crate::target::trouble::{Given, Refusal, Trouble, without};

/// What a token is for: objects, and nothing beside them.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// How long before its end a token is renewed.
const MARGIN: Duration = Duration::from_secs(300);
/// How far our clock may be from Google's, in seconds.
const SKEW: i64 = 300;

/// Where tokens come from.
#[derive(Clone)]
pub enum Identity {
    /// A service account by its key.
    Account(Arc<Account>),
    /// The account of the host, from the metadata server at `HOST` or `HOST:PORT`.
    Host(String),
    /// Nobody: an emulator or a public bucket.
    Anonymous,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account(_) => "Account(…)",
            Self::Host(_) => "Host",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// A service account.
pub struct Account {
    email: String,
    key_id: String,
    token_uri: String,
    /// As the file has it, so that no message can have it.
    text: Secret,
    key: RsaKeyPair,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(…)")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    r#type: String,
    client_email: String,
    #[serde(deserialize_with = "secret")]
    private_key: Secret,
    private_key_id: String,
    token_uri: String,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

impl Account {
    /// Reads a service account's file; `what` names it in errors.
    ///
    /// # Errors
    /// [`Kind::Config`] when it is no such file, or its key is none.
    pub fn read(text: &Secret, what: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(Kind::Config, format!("{what} {why}"))
                .hint("take the JSON key of a service account, as the Google Cloud console gives it")
        };
        // The parser's own error could quote what it met.
        let file: File = serde_json::from_str(text.expose()).map_err(|_| wrong("is not a credentials file"))?;
        if file.r#type != "service_account" {
            return Err(wrong("is not of type \"service_account\", the only one that this version takes"));
        }
        if file.client_email.is_empty() || http::endpoint(&file.token_uri).is_none() {
            return Err(wrong("has no `client_email` or no `token_uri`"));
        }
        let der = http::pem(file.private_key.expose(), "PRIVATE KEY");
        let key = der.first().and_then(|der| RsaKeyPair::from_pkcs8(der).ok());
        let key = key.ok_or_else(|| wrong("has no `private_key` that can sign"))?;
        let (email, key_id, token_uri) = (file.client_email, file.private_key_id, file.token_uri);
        Ok(Self { email, key_id, token_uri, text: file.private_key, key })
    }

    /// A signed statement of who we are, good for an hour from `now` (seconds since 1970).
    fn assertion(&self, now: i64) -> Result<Secret, Trouble> {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(&json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id}));
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": now, "exp": now + 3600,
        });
        let mut text = format!("{header}.{}", part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signed = self.key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature);
        signed.map_err(|_| Trouble::Told(Error::other("the service account's key can't sign")))?;
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(Secret::new(text))
    }
}

/// A token, and when to renew it, on the world's monotonic clock.
struct Token {
    secret: Secret,
    renew: Duration,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    given: Given,
}

/// Gives tokens. Cheap to clone; all clones share one.
#[derive(Clone)]
pub struct Auth {
    target: String,
    identity: Identity,
    state: Arc<Mutex<State>>,
}

impl Auth {
    /// For the target of that name.
    pub fn new(target: &str, identity: Identity) -> Self {
        Self { target: target.to_owned(), identity, state: Arc::default() }
    }

    /// Who we are, for messages.
    pub fn who(&self) -> &str {
        match &self.identity {
            Identity::Account(account) => &account.email,
            Identity::Host(_) => "this host's service account",
            Identity::Anonymous => "everybody",
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No message may have it, though it is no token.
    pub fn hide(&self, text: &str) {
        self.state().given.remember(&Secret::new(text));
    }

    /// Takes every word out of a stranger's text that has a piece of a secret in it.
    pub fn scrub(&self, text: &str) -> String {
        let mut secrets = {
            let state = self.state();
            let mut secrets = state.given.all();
            secrets.extend(state.token.as_ref().map(|token| token.secret.clone()));
            secrets
        };
        if let Identity::Account(account) = &self.identity {
            secrets.push(account.text.clone());
        }
        without(text, &secrets)
    }

    /// The token is good no longer.
    pub fn forget(&self, token: &Secret) {
        let mut state = self.state();
        if state.token.as_ref().is_some_and(|known| known.secret == *token) {
            state.token = None;
        }
    }

    /// A token that is good for a while; nothing where none is needed.
    ///
    /// # Errors
    /// A signal, or why there is no token, told already.
    pub fn token(&self, client: &Client) -> Result<Option<Secret>, Trouble> {
        if matches!(self.identity, Identity::Anonymous) {
            return Ok(None);
        }
        // Held while one is fetched: the others want the same.
        let mut state = lock(&self.state, &client.world).map_err(Trouble::Told)?;
        let now = client.world.clock.monotonic();
        if let Some(token) = state.token.as_ref().filter(|token| now < token.renew) {
            return Ok(Some(token.secret.clone()));
        }
        let mut sent = None;
        let fetched = match &self.identity {
            Identity::Account(account) => client.again(&mut || self.by_key(account, client, &mut sent)),
            Identity::Host(host) => {
                let near = client.nearby();
                near.again(&mut || self.by_host(host, &near))
            }
            Identity::Anonymous => return Ok(None),
        };
        sent.iter().for_each(|assertion| state.given.remember(assertion));
        let (secret, lasts) = fetched.map_err(|trouble| self.tell(&trouble))?;
        state.given.remember(&secret);
        let renew = now + lasts.saturating_sub(MARGIN.min(lasts / 2));
        state.token = Some(Token { secret: secret.clone(), renew });
        Ok(Some(secret))
    }

    fn by_key(&self, account: &Account, client: &Client, sent: &mut Option<Secret>) -> Result<Fetched, Trouble> {
        let now = client.world.clock.now().timestamp();
        let assertion = account.assertion(now)?;
        let body = Secret::new(format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={}",
            assertion.expose()
        ));
        *sent = Some(assertion);
        let mut headers = HeaderMap::new();
        http::set(&mut headers, "content-type", "application/x-www-form-urlencoded")?;
        let request = Outgoing {
            method: Method::POST,
            url: &account.token_uri,
            headers,
            body: body.expose().as_bytes(),
            haste: Haste::Usual,
        };
        let answer = client.send(request)?;
        let skew = skew(&answer, now);
        if answer.is_success() { granted(answer) } else { Err(self.refused(answer, skew)) }
    }

    fn by_host(&self, host: &str, client: &Client) -> Result<Fetched, Trouble> {
        let mut headers = HeaderMap::new();
        http::set(&mut headers, "metadata-flavor", "Google")?;
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let request = Outgoing { method: Method::GET, url: &url, headers, body: &[], haste: Haste::Usual };
        let answer = client.send(request)?;
        // A stranger at that address is not believed.
        let is_google = answer.header("metadata-flavor") == Some("Google");
        match answer.status {
            200 if is_google => granted(answer),
            200 => Err(Trouble::Strange("an answer without Metadata-Flavor".to_owned())),
            status => {
                let retry_after = answer.retry_after();
                Err(Trouble::Refused(Refusal { status, retry_after, ..Refusal::default() }))
            }
        }
    }

    /// Why the token endpoint said no, in its one word; its sentence could quote what was sent.
    fn refused(&self, answer: Answer, skew: i64) -> Trouble {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Document {
            error: String,
            error_description: String,
        }
        let (status, retry_after) = (answer.status, answer.retry_after());
        let document: Document = serde_json::from_slice(&answer.refusal()).unwrap_or_default();
        let passing = Trouble::Refused(Refusal { status, retry_after, ..Refusal::default() });
        if passing.is_passing() {
            return passing;
        }
        let known = ["invalid_grant", "invalid_client", "invalid_scope", "unauthorized_client", "invalid_request"];
        let word = known.into_iter().find(|word| *word == document.error);
        let why = document.error_description.to_ascii_lowercase();
        let is_time = ["iat", "exp ", "timeframe", "short-lived"].iter().any(|sign| why.contains(sign));
        let (reason, hint) = if skew.abs() > SKEW || (word == Some("invalid_grant") && is_time) {
            let by = if skew.abs() > SKEW { format!(", {} s from Google's", skew.abs()) } else { String::new() };
            (format!("this host's clock is wrong{by}"), "set this host's clock: `timedatectl set-ntp true`".to_owned())
        } else if why.contains("account not found") {
            ("there is no such service account".to_owned(), self.new_key())
        } else if word == Some("invalid_grant") && why.contains("signature") {
            ("the service account's key is not known (any more)".to_owned(), self.new_key())
        } else {
            (
                format!("the token endpoint answered {status}{}", word.map(|w| format!(" {w}")).unwrap_or_default()),
                self.new_key(),
            )
        };
        Trouble::Told(self.failure(&reason).hint(hint))
    }

    fn new_key(&self) -> String {
        format!("give [backup.targets.{}] a new key: `credentials_file`", self.target)
    }

    fn failure(&self, reason: &str) -> Error {
        Error::new(Kind::Target, format!("target {}: no token for {}: {reason}", self.target, self.who()))
    }

    fn tell(&self, trouble: &Trouble) -> Trouble {
        let (place, protocol) = match &self.identity {
            Identity::Account(account) => (account.token_uri.clone(), "a token endpoint"),
            Identity::Host(host) => (format!("http://{host}"), "Google's metadata server"),
            Identity::Anonymous => Default::default(),
        };
        let told = match trouble {
            Trouble::Told(error) => return Trouble::Told(error.clone()),
            Trouble::Refused(refusal) if refusal.status == 404 && matches!(self.identity, Identity::Host(_)) => {
                self.failure("this host has no service account")
            }
            Trouble::Refused(refusal) => self.failure(&format!("{place} answered {}", refusal.status)),
            // What a stranger's answer made of the parser may quote it.
            Trouble::Strange(_) => self.failure(&format!("{place} does not answer as {protocol} does")),
            other => self.failure(&other.reason(&place, protocol, &|text| text.to_owned())),
        };
        Trouble::Told(match &self.identity {
            Identity::Host(_) => told.hint(format!(
                "set `credentials_file` in [backup.targets.{}], or GOOGLE_APPLICATION_CREDENTIALS, or give the host a \
                service account",
                self.target
            )),
            _ => told.hint("look at `token_uri` in the credentials file, and whether this host comes through to it"),
        })
    }
}

/// A token, and how long it is good.
type Fetched = (Secret, Duration);

fn granted(answer: Answer) -> Result<Fetched, Trouble> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(deserialize_with = "secret")]
        access_token: Secret,
        #[serde(default)]
        expires_in: u64,
    }
    let text = Secret::new(answer.document()?);
    let strange = || Trouble::Strange("no token".to_owned());
    let document: Document = serde_json::from_str(text.expose()).map_err(|_| strange())?;
    // The metadata server pads some tokens with dots, which belong to them.
    let token = document.access_token.expose();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(strange());
    }
    Ok((document.access_token, Duration::from_secs(document.expires_in)))
}

/// How many seconds our clock is ahead of the answer's.
fn skew(answer: &Answer, now: i64) -> i64 {
    let theirs = answer.header("date").and_then(|text| DateTime::parse_from_rfc2822(text).ok());
    theirs.map_or(0, |theirs| now - theirs.timestamp())
}
