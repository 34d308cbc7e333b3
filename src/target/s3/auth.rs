//! What requests are signed with. Flows in: keys that were given, or a role: that of a container, of a web identity, of the
//! instance. Flows out: keys for each request, those of a role fetched anew before they end, or when the store says that they
//! have ended: an upload of hours outlives them. Touches the token's file and the network; its secrets are never formatted,
//! and of an answer nothing is shown but its status or a known word.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attohttpc::Method;
use attohttpc::header::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::settings::Keys;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::target::http::{self, Client, Haste, Outgoing};
use crate::target::signal::lock;
use crate::target::trouble::{Given, Line, Refusal, Trouble};

/// How long before their end keys are fetched anew, in seconds; of such as last shorter, half of their time. AWS has the next
/// ones five minutes before the end at the latest.
const MARGIN: i64 = 300;
/// Keys that are near their end are asked for so many times until then at most, since the next ones may not be there yet.
const LOOKS: i64 = 30;
/// After a refusal without a word, which may have other reasons, keys are not asked for more often.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// What an instance's token for its metadata is good for, in seconds.
const METADATA_SECONDS: &str = "21600";
/// The words of the Security Token Service that may be shown.
const WORDS: [&str; 7] = [
    "AccessDenied",
    "ExpiredTokenException",
    "IDPCommunicationError",
    "IDPRejectedClaim",
    "InvalidIdentityToken",
    "RegionDisabledException",
    "ValidationError",
];

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum Identity {
    /// The configuration or the environment.
    Given(Keys),
    /// A role, which gives keys that end.
    Role(Role),
}

/// Who gives keys for a role.
#[derive(Clone, Debug)]
pub enum Role {
    /// The metadata server of the instance, at this address.
    Instance(String),
    /// The container's agent at this address, who may want a token.
    Container(String, Option<Pass>),
    /// The Security Token Service, for the token of a web identity.
    Web {
        /// Its address.
        place: String,
        /// Which role.
        arn: String,
        /// The name of the session.
        session: String,
        /// Where the token is; it is exchanged from time to time.
        file: PathBuf,
    },
}

/// What a container's agent wants to see.
#[derive(Clone, Debug)]
pub enum Pass {
    /// It stands in the environment.
    Text(Secret),
    /// It stands in a file, and is exchanged from time to time.
    File(PathBuf),
}

/// Keys that were fetched.
struct Held {
    keys: Keys,
    /// When to fetch others.
    renew: Option<DateTime<Utc>>,
    /// When they were last asked for, on the monotonic clock.
    asked: Duration,
    /// How long not to ask again then.
    pause: Duration,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    given: Given,
}

/// Gives keys. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct Auth {
    target: String,
    identity: Identity,
    state: Arc<Mutex<State>>,
}

impl Auth {
    /// For the target of that name.
    pub fn new(target: &str, identity: Identity) -> Self {
        let auth = Self { target: target.to_owned(), identity, state: Arc::default() };
        if let Identity::Given(keys) = &auth.identity {
            let mut state = auth.state();
            keys.all().for_each(|secret| state.given.remember(secret));
        }
        auth
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether keys come from a role.
    pub fn is_role(&self) -> bool {
        matches!(self.identity, Identity::Role(_))
    }

    /// The secrets that no message may have in it.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = self.state().given.all();
        secrets.retain(|secret| secret.expose().len() > 3);
        secrets
    }

    /// Keys that are good for a while.
    ///
    /// # Errors
    /// A signal, or why there are none, told already.
    pub fn keys(&self, client: &Client) -> Result<Keys, Trouble> {
        let role = match &self.identity {
            Identity::Given(keys) => return Ok(keys.clone()),
            Identity::Role(role) => role,
        };
        // Held while they are fetched: the others want the same.
        let mut state = lock(&self.state, &client.world).map_err(Trouble::Told)?;
        let (now, here) = (client.world.clock.now(), client.world.clock.monotonic());
        let Some(held) = &mut state.held else { return self.fetch(role, client, &mut state) };
        let good = held.renew.is_none_or(|renew| now < renew);
        if good || here < held.asked + held.pause {
            return Ok(held.keys.clone());
        }
        let before = held.keys.clone();
        match self.fetch(role, client, &mut state) {
            Err(trouble) if client.world.cancel.check().is_err() => Err(trouble),
            // Those that are there are good for a while yet; when they are not, the store says so. The pause begins now, for
            // it may be that somebody has to wait for an answer each time.
            Err(_) => {
                if let Some(held) = &mut state.held {
                    held.asked = client.world.clock.monotonic();
                }
                Ok(before)
            }
            fetched => fetched,
        }
    }

    /// Other keys, after these were refused; none where there are no others. `surely`: because they have ended.
    ///
    /// # Errors
    /// A signal, or why there are none, told already.
    pub fn others(&self, client: &Client, refused: &Keys, surely: bool) -> Result<Option<Keys>, Trouble> {
        let Identity::Role(role) = &self.identity else { return Ok(None) };
        let mut state = lock(&self.state, &client.world).map_err(Trouble::Told)?;
        if let Some(held) = &mut state.held {
            let here = client.world.clock.monotonic();
            if held.keys != *refused {
                return Ok(Some(held.keys.clone()));
            }
            if !surely && here < held.asked + LONG_PAUSE {
                return Ok(None);
            }
            held.asked = here;
        }
        match self.fetch(role, client, &mut state) {
            // There may be nothing wrong with them.
            Err(_) if !surely => Ok(None),
            fetched => Ok(Some(fetched?).filter(|keys| keys != refused)),
        }
    }

    fn fetch(&self, role: &Role, client: &Client, state: &mut State) -> Result<Keys, Trouble> {
        let mut sent = Vec::new();
        let fetched = match role {
            Role::Instance(place) => {
                let near = client.nearby();
                near.again(&mut || by_instance(place, &near, &mut sent))
            }
            Role::Container(url, pass) => {
                let near = client.nearby();
                near.again(&mut || by_container(url, pass.as_ref(), &near, &mut sent))
            }
            Role::Web { place, .. } => client.again(&mut || by_web(role, place, client, &mut sent)),
        };
        sent.iter().for_each(|secret| state.given.remember(secret));
        let (keys, ends) = fetched.map_err(|trouble| self.tell(&trouble, role, state.held.is_some()))?;
        keys.all().for_each(|secret| state.given.remember(secret));
        let now = client.world.clock.now();
        let left = ends.map_or(MARGIN * 2_000, |ends| (ends - now).num_milliseconds().max(0));
        let margin = left.min(MARGIN * 2_000) / 2;
        let renew = ends.map(|ends| ends - TimeDelta::milliseconds(margin));
        let pause = Duration::from_millis(u64::try_from(margin / LOOKS).unwrap_or_default());
        state.held = Some(Held { keys: keys.clone(), renew, asked: client.world.clock.monotonic(), pause });
        Ok(keys)
    }

    /// Why there are no keys. At first that is a fault of the configuration, later one of the host's.
    fn tell(&self, trouble: &Trouble, role: &Role, had: bool) -> Trouble {
        let (place, protocol) = match role {
            Role::Instance(place) => (place, "an instance's metadata server"),
            Role::Container(place, _) => (place, "a container's agent"),
            Role::Web { place, .. } => (place, "a Security Token Service"),
        };
        let reason = match trouble {
            Trouble::Told(error) if error.is_stopped() || matches!(error.kind, Kind::Locked) => {
                return trouble.clone();
            }
            Trouble::Told(error) => error.message.clone(),
            Trouble::Refused(refusal) if refusal.status == 404 && matches!(role, Role::Instance(_)) => {
                "the instance has no role".to_owned()
            }
            Trouble::Refused(refusal) => {
                let word = if refusal.code.is_empty() { String::new() } else { format!(" {}", refusal.code) };
                format!("{} answered {}{word}", http::host(place), refusal.status)
            }
            // What a stranger's answer made of the parser may quote it.
            Trouble::Strange(_) => format!("{} does not answer as {protocol} does", http::host(place)),
            other => other.reason(http::host(place), protocol, &|text| text.to_owned()),
        };
        let (kind, what) = if had {
            (Kind::Target, "its keys have ended, and this host's own role gives no others")
        } else {
            (Kind::Config, "there are no keys for it, and this host's own role gives none")
        };
        let error = Error::new(kind, format!("target {}: {what}: {reason}", self.target));
        Trouble::Told(error.hint(super::settings::mend(&self.target)))
    }
}

/// Keys, and when they end.
type Fetched = (Keys, Option<DateTime<Utc>>);

fn strange() -> Trouble {
    Trouble::Strange("no keys".to_owned())
}

/// Asks; the answer's document, whatever secret is in it.
fn ask(
    client: &Client,
    method: Method,
    url: &str,
    headers: &[(&'static str, &Secret)],
    body: &[u8],
) -> Result<Secret, Trouble> {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        let mut value = HeaderValue::try_from(value.expose())
            .map_err(|_| Trouble::Line(Line::Request, format!("the header {name} can't hold its text")))?;
        value.set_sensitive(true);
        all.insert(HeaderName::from_static(name), value);
    }
    let answer = client.send(Outgoing { method, url, headers: all, body, haste: Haste::Usual })?;
    if answer.is_success() {
        return answer.document().map(Secret::new);
    }
    let (status, retry_after) = (answer.status, answer.retry_after());
    let text = String::from_utf8_lossy(&answer.refusal()).into_owned();
    let said = |word: &&str| text.contains(&format!("<Code>{word}</Code>"));
    let code = WORDS.into_iter().find(said).unwrap_or_default().to_owned();
    Err(Trouble::Refused(Refusal { status, code, retry_after, ..Refusal::default() }))
}

fn by_instance(place: &str, client: &Client, sent: &mut Vec<Secret>) -> Result<Fetched, Trouble> {
    let seconds = Secret::new(METADATA_SECONDS);
    let lasts = [("x-aws-ec2-metadata-token-ttl-seconds", &seconds)];
    let token = ask(client, Method::PUT, &format!("{place}/latest/api/token"), &lasts, &[])?;
    let token = Secret::new(token.expose().trim());
    sent.push(token.clone());
    let pass = [("x-aws-ec2-metadata-token", &token)];
    let url = format!("{place}/latest/meta-data/iam/security-credentials/");
    let roles = ask(client, Method::GET, &url, &pass, &[])?;
    let role = roles.expose().lines().next().unwrap_or_default().trim();
    if role.is_empty() || !role.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c)) {
        return Err(Trouble::Strange("no role".to_owned()));
    }
    let role = utf8_percent_encode(role, NON_ALPHANUMERIC);
    granted(&ask(client, Method::GET, &format!("{url}{role}"), &pass, &[])?)
}

fn by_container(url: &str, pass: Option<&Pass>, client: &Client, sent: &mut Vec<Secret>) -> Result<Fetched, Trouble> {
    let pass = match pass {
        None => None,
        Some(Pass::Text(text)) => Some(text.clone()),
        Some(Pass::File(path)) => Some(from_file(path)?),
    };
    sent.extend(pass.clone());
    let headers: Vec<_> = pass.iter().map(|pass| ("authorization", pass)).collect();
    granted(&ask(client, Method::GET, url, &headers, &[])?)
}

fn from_file(path: &std::path::Path) -> Result<Secret, Trouble> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let why = format!("can't read {}: {}", path.display(), crate::error::io_reason(&error));
        Trouble::Told(Error::new(Kind::Config, why))
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

/// Keys in JSON, as a metadata server and a container's agent give them.
fn granted(text: &Secret) -> Result<Fetched, Trouble> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        #[serde(default)]
        code: Option<String>,
        #[serde(deserialize_with = "secret")]
        access_key_id: Secret,
        #[serde(deserialize_with = "secret")]
        secret_access_key: Secret,
        #[serde(default, deserialize_with = "secret")]
        token: Secret,
        #[serde(default)]
        expiration: Option<DateTime<Utc>>,
    }
    let found: Document = serde_json::from_str(text.expose()).map_err(|_| strange())?;
    if found.code.is_some_and(|code| code != "Success") {
        return Err(strange());
    }
    checked(found.access_key_id, found.secret_access_key, found.token, found.expiration)
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

fn checked(access: Secret, secret: Secret, token: Secret, ends: Option<DateTime<Utc>>) -> Result<Fetched, Trouble> {
    let fine = |secret: &Secret| secret.expose().chars().all(|c| c.is_ascii_graphic());
    let whole = !access.expose().is_empty() && !secret.expose().is_empty();
    if !whole || ![&access, &secret, &token].into_iter().all(fine) {
        return Err(strange());
    }
    let token = Some(token).filter(|token| !token.expose().is_empty());
    Ok((Keys { access, secret, token }, ends))
}

fn by_web(role: &Role, place: &str, client: &Client, sent: &mut Vec<Secret>) -> Result<Fetched, Trouble> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Response {
        assume_role_with_web_identity_result: Assumed,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Assumed {
        credentials: Document,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        #[serde(deserialize_with = "secret")]
        access_key_id: Secret,
        #[serde(deserialize_with = "secret")]
        secret_access_key: Secret,
        #[serde(deserialize_with = "secret")]
        session_token: Secret,
        expiration: DateTime<Utc>,
    }
    let Role::Web { arn, session, file, .. } = role else { return Err(strange()) };
    let token = from_file(file)?;
    sent.push(token.clone());
    let fields = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", arn),
        ("RoleSessionName", session),
        ("WebIdentityToken", token.expose()),
    ];
    let pairs = fields.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    let body = Secret::new(pairs.join("&"));
    let form = Secret::new("application/x-www-form-urlencoded");
    let url = format!("{place}/");
    let text = ask(client, Method::POST, &url, &[("content-type", &form)], body.expose().as_bytes())?;
    let found: Response = quick_xml::de::from_str(text.expose()).map_err(|_| strange())?;
    let found = found.assume_role_with_web_identity_result.credentials;
    checked(found.access_key_id, found.secret_access_key, found.session_token, Some(found.expiration))
}
