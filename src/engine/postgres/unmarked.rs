//! Scratch databases that got no mark. Flows in: what the server has. Flows out: those gone that a cut connection has left
//! between CREATE DATABASE and the comment that marks it, for no transaction can hold both. Touches the server.

use std::time::Duration;

use super::alive;
use super::server::{self, Facts, Other};
use super::swap;
use super::tools::Tools;
use crate::engine::Cx;

/// How long a living restore is given to set its mark.
const MARKS_WITHIN: Duration = Duration::from_secs(2);
/// From this number on, objects are no part of an empty database.
const FIRST_OWN_OBJECT: u32 = 16_384;

/// Drops what is called like a scratch of `target`, has no comment, holds nothing and is used by nobody, now and a moment
/// later, and nobody answers for; gives what there is to say. That one can't be dropped is no reason not to restore.
pub fn sweep(tools: &Tools, desk: &'static str, facts: &Facts, target: &str, cx: &Cx) -> Vec<String> {
    let bare =
        |other: &&Other| other.comment.is_empty() && other.sessions == 0 && swap::is_scratch(target, &other.name);
    let seen: Vec<&str> = facts.databases.iter().filter(bare).map(|other| other.name.as_str()).collect();
    let seen: Vec<&str> = seen.into_iter().filter(|name| is_empty(tools, name, cx)).collect();
    if seen.is_empty() {
        return Vec::new();
    }
    cx.world.clock.sleep(MARKS_WITHIN);
    let Ok((_, now)) = server::ask(tools, cx) else { return Vec::new() };
    let dead = |other: &&Other| alive::is_dead(tools, desk, &other.name, 1, cx).unwrap_or(false);
    let still = now.databases.iter().filter(bare).filter(|other| seen.contains(&other.name.as_str())).filter(dead);
    still
        .filter_map(|other| {
            let sql = swap::drop_database(&other.name, now.version);
            let dropped = server::drop_subscribed(tools, desk, &other.name, &sql, cx).is_ok();
            dropped.then(|| format!("dropped {}, which an interrupted restore had left", other.name))
        })
        .collect()
}

fn is_empty(tools: &Tools, name: &str, cx: &Cx) -> bool {
    let sql = format!("SELECT count(*) FROM pg_class WHERE oid >= {FIRST_OWN_OBJECT};\n");
    tools.rows::<u64>(name, &sql, cx).is_ok_and(|rows| rows.first() == Some(&0))
}
