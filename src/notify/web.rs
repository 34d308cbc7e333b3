//! Words to services on the web. Flows in: an address, which is a secret, and what to say. Flows out: whether it was
//! taken. Touches the network, for some seconds at most.

use std::time::Duration;

use attohttpc::Method;
use attohttpc::header::HeaderMap;

use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::target::http::{self, Client, Haste, Outgoing, Patience};
use crate::target::retry::Policy;
use crate::target::trouble::Trouble;

/// A service that is not there must not hold a backup up.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(10),
    completion: Duration::from_secs(10),
    slowest: 32 * 1024,
};
/// Twice: a service is restarted now and then.
const POLICY: Policy = Policy {
    attempts: 2,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(2),
    longest_asked: Duration::from_secs(2),
};
/// The most that is said to a healthcheck, in bytes: what healthchecks.io takes.
const MAX_WORDS: usize = 10_000;

/// Posts `body` to the address, with `path` added to it before its query.
///
/// # Errors
/// [`Kind::Other`] when it is not taken; the address is not in the message, but for its host.
pub fn post(address: &Secret, path: &str, kind: &'static str, body: &str, cx: &Cx) -> Result<()> {
    let url = with_path(address.expose(), path);
    let host = http::host(address.expose()).to_owned();
    let client = Client::new(Vec::new(), cx.world.clone(), POLICY, PATIENCE);
    let once = || {
        let mut headers = HeaderMap::new();
        http::set(&mut headers, "content-type", kind)?;
        let answer = client.send(Outgoing {
            method: Method::POST,
            url: &url,
            headers,
            body: body.as_bytes(),
            haste: Haste::Usual,
        })?;
        match answer.is_success() {
            true => Ok(()),
            false if answer.status >= 500 => Err(Trouble::Strange(format!("it answered {}", answer.status))),
            false => Err(Trouble::Told(Error::other(format!("it answered {}", answer.status)))),
        }
    };
    let mut last = once();
    if matches!(&last, Err(trouble) if !matches!(trouble, Trouble::Told(_))) {
        cx.world.clock.sleep(POLICY.first);
        last = once();
    }
    last.map_err(|trouble| {
        // A client's own words may hold the whole address.
        let scrub = |text: &str| text.replace(&url, "…").replace(address.expose(), "…");
        Error::new(Kind::Other, trouble.reason(&host, "a web service", &scrub))
    })
}

/// `https://host/x?y` and `/fail` make `https://host/x/fail?y`.
fn with_path(address: &str, path: &str) -> String {
    let (place, query) = address.split_once('?').map_or((address, None), |(place, query)| (place, Some(query)));
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    match path.is_empty() {
        true => format!("{place}{query}"),
        false => format!("{}{path}{query}", place.trim_end_matches('/')),
    }
}

/// The end of a text, as much of it as a healthcheck takes.
pub fn last_words(text: &str) -> &str {
    let from = text.len().saturating_sub(MAX_WORDS);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_before_the_query() {
        assert_eq!(with_path("https://h/u", "/fail"), "https://h/u/fail");
        assert_eq!(with_path("https://h/u/", "/start"), "https://h/u/start");
        assert_eq!(with_path("https://h/u?create=1", "/fail"), "https://h/u/fail?create=1");
        assert_eq!(with_path("https://h/u?create=1", ""), "https://h/u?create=1");
    }

    #[test]
    fn words_are_cut_between_characters() {
        let text = "ä".repeat(MAX_WORDS);
        assert!(last_words(&text).len() <= MAX_WORDS && last_words(&text).chars().all(|c| c == 'ä'));
        assert_eq!(last_words("short"), "short");
    }
}
