//! What killed restores leave, and who clears it away. Flows in: the databases of a server. Flows out: nothing left of dead
//! restores, and what there is to say of it. Touches the server.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;

use super::alive;
use super::server::{Facts, Other, drop_subscribed};
use super::swap::{self, Left};
use super::tools::Tools;
use crate::engine::Cx;

/// What nobody's session answers for is left alone for so long, if nobody is in it: it may belong to a restore that is
/// between two steps.
const LEFT_BEHIND_AFTER: TimeDelta = TimeDelta::minutes(10);
/// How long one may take to drop: a server waits with it for every COPY that waits for its client, whoever's (PostgreSQL 15
/// and later), and the restore must not.
const DROP_TIME: Duration = Duration::from_secs(60);

/// Clears away what restores of one database have left.
#[derive(Debug)]
pub struct Sweeper<'a> {
    /// How the server is reached.
    pub tools: &'a Tools,
    /// The database to work from.
    pub desk: &'static str,
    /// The database that is restored.
    pub target: String,
    /// Whether databases that were replaced go, too: a drill or a copy leaves them to the next restore in place.
    pub replaced: bool,
    /// What there was an attempt to drop.
    tried: BTreeSet<String>,
    /// How often a living restore is looked for before it is believed.
    looks: u32,
}

impl<'a> Sweeper<'a> {
    /// For restores of `target`, in place or not.
    pub fn new(tools: &'a Tools, desk: &'static str, target: &str, in_place: bool) -> Self {
        Self {
            tools,
            desk,
            target: target.to_owned(),
            replaced: in_place,
            tried: BTreeSet::new(),
            looks: alive::DEATH_LOOKS,
        }
    }

    /// Drops what killed restores have left, each thing at most once: a scratch whose restore is dead, and a database that
    /// was replaced while the new one stands. Both the name and our mark in the comment must say so; whatever else is
    /// called like that is somebody's own. That one can't be dropped is no reason not to restore.
    pub fn sweep(&mut self, facts: &Facts, cx: &Cx) -> Vec<String> {
        let stands = facts.databases.iter().any(|other| other.name == self.target);
        let mut notes = Vec::new();
        for other in &facts.databases {
            let Some(left) = swap::left_behind(&self.target, &other.name, &other.comment) else { continue };
            let safe = if left.replaced { self.replaced && stands } else { self.is_dead(other, &left, cx) };
            if !safe || !self.tried.insert(other.name.clone()) {
                continue;
            }
            let soon = cx.world.clock.monotonic() + DROP_TIME;
            let cx = Cx { deadline: Some(cx.deadline.map_or(soon, |deadline| deadline.min(soon))), ..cx.clone() };
            let sql = swap::drop_database(&other.name, facts.version);
            notes.push(match drop_subscribed(self.tools, self.desk, &other.name, &sql, &cx) {
                Ok(()) => format!("dropped {}, which an interrupted restore had left", other.name),
                Err(error) => {
                    format!("an interrupted restore has left {}, which can't be dropped: {error}", other.name)
                }
            });
        }
        self.looks = 1;
        notes
    }

    /// Whether the restore that made a scratch is dead. Its tools may be at work behind it: they are sent away.
    fn is_dead(&self, other: &Other, left: &Left, cx: &Cx) -> bool {
        if left.answered_for {
            return alive::is_dead(self.tools, self.desk, &other.name, self.looks, cx).unwrap_or(false);
        }
        other.sessions == 0 && cx.world.clock.now() - left.since > LEFT_BEHIND_AFTER
    }
}
