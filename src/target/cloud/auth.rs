//! The token of each request. Flows in: the link. Flows out: an access token, renewed before it ends or when the server
//! takes it no more; the new one is written before it is used, so that no run loses the link. Touches the link's file and the
//! token endpoint; no token is ever formatted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link::{self, Link, LinkFile};
use super::oauth;
use crate::error::{Error, Kind};
use crate::secret::Secret;
use crate::target::http::Client;
use crate::target::signal::lock;
use crate::target::trouble::{Given, Trouble, without};

struct State {
    link: Link,
    given: Given,
}

impl State {
    fn new(link: Link, mut given: Given) -> Self {
        [&link.tokens.access, &link.tokens.refresh].into_iter().for_each(|secret| given.remember(secret));
        Self { link, given }
    }

    fn take(&mut self, link: Link) {
        *self = Self::new(link, std::mem::take(&mut self.given));
    }
}

/// Gives tokens. Cheap to clone; all clones share one.
#[derive(Clone)]
pub struct Auth {
    what: String,
    file: LinkFile,
    state: Arc<Mutex<State>>,
}

impl Auth {
    /// For a link that was read from `file`; `what` names its user in errors.
    pub fn new(what: &str, file: LinkFile, link: Link) -> Self {
        let state = State::new(link, Given::default());
        Self { what: what.to_owned(), file, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every word out of a stranger's text that has a piece of a token in it.
    pub fn scrub(&self, text: &str) -> String {
        let given = self.state().given.all();
        without(text, &given)
    }

    /// A token that is good for a while. `refused`: the one that the server has just not taken.
    ///
    /// # Errors
    /// A signal, or why there is no token, told already.
    pub fn token(&self, client: &Client, refused: Option<&Secret>) -> Result<Secret, Trouble> {
        // Held while one is fetched: the others want the same.
        let mut state = lock(&self.state, &client.world).map_err(Trouble::Told)?;
        let now = client.world.clock.now();
        let fits = |link: &Link| now < link.tokens.renew && refused != Some(&link.tokens.access);
        if !fits(&state.link) {
            let _lock = self.file.lock().map_err(Trouble::Told)?;
            // Another run may have renewed it, or the instance was linked anew.
            let (found, _) =
                self.file.read().map_err(Trouble::Told)?.ok_or_else(|| Trouble::Told(link::none(&self.what)))?;
            if found.endpoint != state.link.endpoint {
                let error =
                    Error::new(Kind::Target, format!("{}: it was linked to {} meanwhile", self.what, found.endpoint));
                return Err(Trouble::Told(error));
            }
            state.take(found);
            if !fits(&state.link) {
                let renewed = oauth::renew(client, &state.link.token_endpoint, &state.link.tokens);
                let tokens = renewed.map_err(|trouble| self.tell(&trouble, &state.link))?;
                let link = Link { tokens, ..state.link.clone() };
                self.file.write(&link).map_err(Trouble::Told)?;
                state.take(link);
            }
        }
        Ok(state.link.tokens.access.clone())
    }

    fn tell(&self, trouble: &Trouble, link: &Link) -> Trouble {
        let failure = |reason: &str| Error::new(Kind::Target, format!("{}: no token: {reason}", self.what));
        Trouble::Told(match trouble {
            Trouble::Told(error) => return Trouble::Told(error.clone()),
            trouble if oauth::is_over(trouble) => failure(&format!("the link to {} has ended", link.endpoint))
                .hint("link anew: voxeltron-backup cloud link --force"),
            Trouble::Strange(_) => {
                failure(&format!("{} does not answer as a token endpoint does", link.token_endpoint))
            }
            other => {
                let reason = other.reason(&link.token_endpoint, "a token endpoint", &|text| without(text, &[]));
                failure(&reason).hint(format!("look whether this host comes through to {}", link.token_endpoint))
            }
        })
    }
}
