//! Linking and renewing, by OAuth 2.0: where a server's endpoints are (RFC 8414), device authorization (RFC 8628), renewal
//! (RFC 6749 section 6), revocation (RFC 7009). Flows in: forms. Flows out: codes and tokens. Touches the network; of what
//! such an endpoint answers nothing is shown but a known word, since its sentence could quote what was sent.

use std::time::Duration;

use attohttpc::Method;
use attohttpc::header::HeaderMap;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::link::{Tokens, secret};
use super::wire::encode;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::target::http::{self, Answer, Client, Haste, Outgoing};
use crate::target::trouble::{Refusal, Trouble};
use crate::world::World;

/// How the program names itself to the server: it is a public client, without a secret of its own.
const CLIENT: &str = "voxeltron-backup";
/// How long before its end a token is renewed, in seconds; of one that lasts shorter, half of its time.
const MARGIN: i64 = 120;
/// How often to ask where the server does not say, and how much slower when it says so, in seconds.
const SLOWER: u64 = 5;
/// No pause between two questions is longer, in seconds.
const LONGEST: u64 = 3_600;
/// No code is waited for longer, whatever the server says, in seconds.
const LONGEST_CODE: u64 = 86_400;
/// The words of RFC 6749 and RFC 8628 that may be shown.
const WORDS: [&str; 10] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "authorization_pending",
    "slow_down",
    "access_denied",
    "expired_token",
];

/// Where a server's endpoints are.
#[derive(Clone, Debug, Deserialize)]
pub struct Places {
    issuer: String,
    /// Where a link begins.
    pub device_authorization_endpoint: String,
    /// Where tokens come from.
    pub token_endpoint: String,
    /// Where they are revoked.
    #[serde(default)]
    pub revocation_endpoint: Option<String>,
}

/// A link that a person has to approve.
#[derive(Debug, Deserialize)]
pub struct Device {
    #[serde(deserialize_with = "secret")]
    device_code: Secret,
    /// What to type.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    #[serde(default)]
    pub verification_uri_complete: Option<String>,
    /// How long the code is good, in seconds.
    pub expires_in: u64,
    #[serde(default = "slower")]
    interval: u64,
}

fn slower() -> u64 {
    SLOWER
}

/// The refusal's word, if it is a known one.
fn word(answer: Answer) -> Trouble {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Document {
        error: String,
    }
    let (status, retry_after) = (answer.status, answer.retry_after());
    let document: Document = serde_json::from_slice(&answer.refusal()).unwrap_or_default();
    let word = WORDS.into_iter().find(|word| *word == document.error).unwrap_or_default();
    Trouble::Refused(Refusal { status, code: word.to_owned(), retry_after, ..Refusal::default() })
}

fn is(trouble: &Trouble, word: &str) -> bool {
    matches!(trouble, Trouble::Refused(refusal) if refusal.code == word)
}

fn get(client: &Client, url: &str) -> Result<Answer, Trouble> {
    let headers = HeaderMap::new();
    let answer = client.send(Outgoing { method: Method::GET, url, headers, body: &[], haste: Haste::Usual })?;
    if answer.is_success() { Ok(answer) } else { Err(word(answer)) }
}

fn post(client: &Client, url: &str, fields: &[(&str, &str)]) -> Result<Answer, Trouble> {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let body = Secret::new(pairs.join("&"));
    let mut headers = HeaderMap::new();
    http::set(&mut headers, "content-type", "application/x-www-form-urlencoded")?;
    http::set(&mut headers, "accept", "application/json")?;
    let (body, haste) = (body.expose().as_bytes(), Haste::Usual);
    let answer = client.send(Outgoing { method: Method::POST, url, headers, body, haste })?;
    if answer.is_success() { Ok(answer) } else { Err(word(answer)) }
}

/// Finds the server's endpoints.
///
/// # Errors
/// Why they can't be found.
pub fn discover(client: &Client, endpoint: &str) -> Result<Places, Trouble> {
    let host_at = endpoint.find("://").map_or(0, |at| at + 3);
    let path_at = endpoint.get(host_at..).and_then(|rest| rest.find('/')).map_or(endpoint.len(), |at| host_at + at);
    let (host, path) = endpoint.split_at(path_at);
    let url = format!("{host}/.well-known/oauth-authorization-server{path}");
    let text = client.again(&mut || get(client, &url)?.document())?;
    let strange = |why: &str| Trouble::Strange(why.to_owned());
    let places: Places = serde_json::from_str(&text).map_err(|_| strange("no authorization server's metadata"))?;
    // RFC 8414, section 3.3: who speaks for another is not believed.
    if places.issuer.trim_end_matches('/') != endpoint {
        return Err(strange("its metadata is another issuer's"));
    }
    let all = [&places.device_authorization_endpoint, &places.token_endpoint];
    let clear = |url: &&String| !url.starts_with("https://") && !endpoint.starts_with("http://");
    if all.into_iter().chain(&places.revocation_endpoint).any(|url| clear(&url) || http::endpoint(url).is_none()) {
        return Err(strange("its metadata names an address that can't be used"));
    }
    Ok(places)
}

/// Begins a link.
///
/// # Errors
/// Why the server gives no code.
pub fn begin(client: &Client, places: &Places) -> Result<Device, Trouble> {
    let fields = [("client_id", CLIENT), ("scope", "objects")];
    let text = client.again(&mut || post(client, &places.device_authorization_endpoint, &fields)?.document())?;
    let text = Secret::new(text);
    let strange = || Trouble::Strange("no device code".to_owned());
    let device: Device = serde_json::from_str(text.expose()).map_err(|_| strange())?;
    // They are shown in a terminal, as they are.
    let shown = [&device.user_code, &device.verification_uri].into_iter().chain(&device.verification_uri_complete);
    if shown.into_iter().any(|text| text.is_empty() || text.chars().any(char::is_control)) {
        return Err(strange());
    }
    Ok(Device { expires_in: device.expires_in.min(LONGEST_CODE), ..device })
}

/// Waits for the person.
///
/// # Errors
/// [`Kind::Other`] when it was denied or the code has expired; a signal; why the server can't be asked.
pub fn wait(client: &Client, places: &Places, device: &Device) -> Result<Tokens, Trouble> {
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let fields = [("grant_type", grant), ("device_code", device.device_code.expose()), ("client_id", CLIENT)];
    let over = |why: &str| {
        let hint = "begin anew: voxeltron-backup cloud link";
        Err(Trouble::Told(Error::new(Kind::Other, format!("can't link: {why}")).hint(hint)))
    };
    let clock = &client.world.clock;
    let end = clock.monotonic() + Duration::from_secs(device.expires_in);
    let mut interval = device.interval.clamp(1, LONGEST);
    while clock.monotonic() < end {
        pause(&client.world, Duration::from_secs(interval))?;
        match post(client, &places.token_endpoint, &fields).and_then(|answer| granted(answer, client, None)) {
            Ok(tokens) => return Ok(tokens),
            Err(trouble) if is(&trouble, "authorization_pending") => {}
            Err(trouble) if is(&trouble, "slow_down") => interval += SLOWER,
            Err(trouble) if is(&trouble, "access_denied") => return over("it was denied"),
            Err(trouble) if is(&trouble, "expired_token") => return over("nobody approved it in time"),
            // A line that is down for a moment ends nothing; section 3.5 asks for longer pauses then, never for shorter ones.
            Err(trouble) if trouble.is_passing() => {
                let asked = trouble.retry_after().map_or(0, |time| time.as_secs().min(LONGEST));
                interval = interval.max((interval * 2).min(60)).max(asked);
            }
            Err(trouble) => return Err(trouble),
        }
    }
    over("nobody approved it in time")
}

fn pause(world: &World, time: Duration) -> Result<(), Trouble> {
    let until = world.clock.monotonic() + time;
    loop {
        world.cancel.check().map_err(Trouble::Told)?;
        let left = until.saturating_sub(world.clock.monotonic());
        if left.is_zero() {
            return Ok(());
        }
        world.clock.sleep(left.min(Duration::from_millis(50)));
    }
}

/// Renews tokens.
///
/// # Errors
/// Why there are no new ones.
pub fn renew(client: &Client, token_endpoint: &str, tokens: &Tokens) -> Result<Tokens, Trouble> {
    let refresh = tokens.refresh.expose();
    let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", CLIENT)];
    client.again(&mut || granted(post(client, token_endpoint, &fields)?, client, Some(&tokens.refresh)))
}

/// Whether a refresh token has lost its force.
pub fn is_over(trouble: &Trouble) -> bool {
    is(trouble, "invalid_grant")
}

/// Ends a link at the server.
///
/// # Errors
/// Why it could not be ended.
pub fn revoke(client: &Client, revocation_endpoint: &str, refresh: &Secret) -> Result<(), Trouble> {
    let fields = [("token", refresh.expose()), ("token_type_hint", "refresh_token"), ("client_id", CLIENT)];
    client.again(&mut || post(client, revocation_endpoint, &fields).map(drop))
}

fn granted(answer: Answer, client: &Client, before: Option<&Secret>) -> Result<Tokens, Trouble> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(deserialize_with = "secret")]
        access_token: Secret,
        token_type: String,
        #[serde(default)]
        expires_in: Option<u32>,
        #[serde(default, deserialize_with = "secret")]
        refresh_token: Secret,
    }
    let text = Secret::new(answer.document()?);
    let strange = || Trouble::Strange("no token".to_owned());
    let found: Document = serde_json::from_str(text.expose()).map_err(|_| strange())?;
    // One that does not come again stays good.
    let refresh = match (found.refresh_token.expose().is_empty(), before) {
        (false, _) => found.refresh_token,
        (true, Some(before)) => before.clone(),
        (true, None) => return Err(strange()),
    };
    let fine = |token: &Secret| !token.expose().is_empty() && token.expose().chars().all(|c| c.is_ascii_graphic());
    if !found.token_type.eq_ignore_ascii_case("bearer") || !fine(&found.access_token) || !fine(&refresh) {
        return Err(strange());
    }
    let lasts = i64::from(found.expires_in.unwrap_or(3_600));
    let now = client.world.clock.now();
    Ok(Tokens {
        access: found.access_token,
        refresh,
        expires: later(now, lasts),
        renew: later(now, lasts - MARGIN.min(lasts / 2)),
    })
}

fn later(now: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    TimeDelta::try_seconds(seconds).and_then(|delta| now.checked_add_signed(delta)).unwrap_or(now)
}
