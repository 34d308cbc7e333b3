//! The last step of a restore in place: the names are exchanged, whatever comes in between. Flows in: what was loaded and counted.
//! Flows out: collections in their places, or an error that says whether anything has changed. Touches the server, through the
//! shell.

use serde::Deserialize;
use serde_json::{Value, json};

use super::alive::Lock;
use super::archive::Sort;
use super::compare::Loaded;
use super::reasons::is_cut;
use super::restore::Restore;
use super::server;
use super::tools::for_cleanup;
use crate::engine::tools::patiently;
use crate::engine::{Cx, Request};
use crate::error::{Error, Kind, Result};

/// How often an exchange is tried.
const SWAP_TRIES: u32 = 3;
/// How long to wait in between.
const SWAP_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// What came of the last step.
#[derive(Debug, Deserialize)]
pub struct Settled {
    /// Why it was not done, and nothing was changed.
    pub refused: Option<String>,
}

impl Restore<'_> {
    /// Exchanges the names, whatever signal comes: half an exchange helps nobody.
    ///
    /// # Errors
    /// [`Kind::Tool`]; the message says whether some names were exchanged.
    pub fn swap(&self, loaded: &Loaded, lock: &Lock, asked: &Request) -> Result<()> {
        let cx = for_cleanup(self.cx);
        let mut request = json!({
            "action": "swap",
            "database": self.into,
            "hex": self.hex,
            "again": false,
            "collections": self.wanted(loaded),
            "views": self.view_definitions(),
        });
        let mut outcome = self.tools.ask::<Settled>(request.clone(), &cx);
        for _ in 1..SWAP_TRIES {
            if outcome.is_ok() {
                break;
            }
            cx.world.clock.sleep(SWAP_PAUSE);
            // Whether the plan was written is not known, nor whether all of it was done.
            if let Some(again) = request.get_mut("again") {
                *again = Value::Bool(true);
            }
            let standing = patiently(&cx, is_cut, || server::ask(self.tools, &self.into, &cx))
                .map(|facts| facts.claims.iter().find(|claim| claim.hex == self.hex).map(|claim| claim.swapping));
            match standing {
                Ok(Some(true) | None) => outcome = self.tools.ask::<Settled>(request.clone(), &cx),
                Ok(Some(false)) => {
                    asked.untouched();
                    self.clear(lock, &cx)?;
                    return outcome.map(drop);
                }
                Err(_) => {}
            }
        }
        let settled = outcome.map_err(|error| {
            let name = &self.tools.toolbox.configured;
            error
                .while_doing("the collections could not all take their places; some are the new ones, some the old")
                .hint(format!("restore {name} again: it finishes this first"))
        })?;
        match settled.refused {
            None => Ok(()),
            Some(why) => {
                asked.untouched();
                self.clear(lock, &cx)?;
                Err(taken_away(&why))
            }
        }
    }

    /// What must be there when the plan is written, for it to be written.
    fn wanted(&self, loaded: &Loaded) -> Vec<Value> {
        let stored = self.archive.collections.iter().filter(|(_, it)| it.sort != Sort::View);
        let one = |name: &String| {
            let identity = loaded.find(name).and_then(|it| it.identity.as_ref());
            json!({ "name": name, "identity": identity })
        };
        stored.map(|(name, _)| one(name)).collect()
    }

    /// Takes away what was loaded.
    fn clear(&self, lock: &Lock, cx: &Cx) -> Result<()> {
        let clear = json!({ "action": "clear", "database": self.into, "hex": self.hex });
        patiently(cx, is_cut, || self.tools.ask::<Value>(clear.clone(), cx))?;
        lock.remove();
        Ok(())
    }
}

/// What was loaded is there no more, or not as it was counted.
pub fn taken_away(why: &str) -> Error {
    let message = format!("somebody else has changed what was loaded before it could take its place: {why}");
    Error::new(Kind::Tool, message)
        .hint("is another restore at work at this server? wait for its end, and run it again")
}
