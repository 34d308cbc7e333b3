//! A restore by replication: the server follows us for as long as it takes to load the backup. Flows in: a checked backup.
//! Flows out: a server that holds it and follows nobody, or one that is as it was. Touches the server, through the tools
//! and through [`super::feed`].
//!
//! The server loads beside its data and takes it over in one step (`repl-diskless-load swapdb`); what is cut or refused
//! leaves it with what it had.

use std::net::IpAddr;
use std::time::Duration;

use super::feed::{Feed, Ticket};
use super::reasons::is_cut;
use super::server::{self, Facts};
use super::settings::Changed;
use super::spool::Spool;
use super::tools::{Tool, Tools};
use crate::engine::Cx;
use crate::engine::tools::patiently;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// How long the server may take to come to us.
const ARRIVAL: Duration = Duration::from_secs(12);
/// How long it may take to load what it has got, without a sign of it.
const LOADING: Duration = Duration::from_secs(3600);
/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(25);
/// How often what may take long is looked at.
const SELDOM: Duration = Duration::from_millis(100);
/// In how many looks one after the other nothing is done, until what is planned counts as given up: the server begins what it
/// has planned within a tenth of a second.
const IDLE_LOOKS: u32 = 10;

/// Why it did not come to a restore.
#[derive(Debug)]
pub enum Failure {
    /// This way is not open; the server is as it was, and another way may be.
    NoWay(Error),
    /// It failed.
    Failed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Lets the server follow us until it has loaded the backup; gives what it said of itself then, before it followed nobody
/// again.
///
/// # Errors
/// See [`Failure`].
pub fn replicate(
    tools: &Tools,
    client: &Tool,
    spool: &Spool,
    ip: IpAddr,
    changed: &mut Changed<'_>,
    cx: &Cx,
) -> Result<Facts, Failure> {
    let (ticket, is_new) = ticket(tools, client, cx).map_err(Failure::NoWay)?;
    let feed = Feed::start(spool, ip, ticket.clone(), cx.world.random_hex(20)?).map_err(Failure::NoWay)?;
    let (host, port) = (ip.to_string(), feed.address().port().to_string());
    let mut wanted =
        vec![("repl-diskless-load", "swapdb"), ("replica-serve-stale-data", "yes"), ("replica-read-only", "yes")];
    if is_new {
        wanted.extend([("masteruser", ticket.user.as_str()), ("masterauth", ticket.token.expose())]);
    }
    let outcome = begin(tools, client, changed, &wanted, (&host, &port), cx)
        .map_err(|error| if is_cut(&error) { Failure::Failed(error) } else { Failure::NoWay(error) })
        .and_then(|()| follow(tools, client, &feed, cx));
    // Closed before anything else: a server that is loading says no to everything until its data stops coming.
    drop(feed);
    let restored = settle(changed, cx);
    let facts = outcome?;
    restored?;
    Ok(facts)
}

/// What the server shows us, and whether it must be told so first. A password that it has for its primaries stays what it is,
/// for what is changed has to be written down, to be put back.
fn ticket(tools: &Tools, client: &Tool, cx: &Cx) -> Result<(Ticket, bool)> {
    let ask = |name| Ok::<_, Error>(server::setting(tools, client, name, cx)?.unwrap_or_default());
    match ask("masterauth")? {
        own if own.is_empty() => {
            let user = format!("voxeltron-restore-{}", cx.world.random_hex(8)?);
            Ok((Ticket { user, token: Secret::new(cx.world.random_hex(32)?) }, true))
        }
        own => Ok((Ticket { user: ask("masteruser")?, token: Secret::new(own) }, false)),
    }
}

fn begin(
    tools: &Tools,
    client: &Tool,
    changed: &mut Changed<'_>,
    wanted: &[(&str, &str)],
    (host, port): (&str, &str),
    cx: &Cx,
) -> Result<()> {
    if server::setting(tools, client, "repl-diskless-load", cx)?.is_none() {
        return Err(Error::new(Kind::Tool, "the server is too old to load beside its data"));
    }
    changed.change(&format!("{host}:{port}"), wanted, cx)?;
    cx.report.detail(&format!("REPLICAOF {host} {port}"));
    tools.ask(client, ["REPLICAOF", host, port], cx).map(drop)
}

/// Waits until the server has loaded what it was sent.
fn follow(tools: &Tools, client: &Tool, feed: &Feed, cx: &Cx) -> Result<Facts, Failure> {
    let clock = &cx.world.clock;
    let started = clock.monotonic();
    let mut since = started;
    let deaf = crate::engine::tools::for_cleanup(cx, LOADING);
    let ours = format!("{}:{}", feed.address().ip(), feed.address().port());
    loop {
        let (_, whole) = feed.sent();
        let now = clock.monotonic();
        if !whole {
            // Once the server has it all, it takes it over whether we go on or not: then its word is waited for.
            cx.world.cancel.check()?;
            since = now;
            if cx.deadline.is_some_and(|deadline| now >= deadline) {
                return Err(Error::new(Kind::Tool, "the restore did not finish within its time").into());
            }
        }
        if feed.asked() == 0 && now.saturating_sub(started) > ARRIVAL {
            let why = match feed.trouble() {
                Some(trouble) if feed.is_known() => trouble,
                _ => "it did not come".to_owned(),
            };
            let message = format!("the server can't reach this host at {}: {why}", feed.address());
            return Err(Failure::NoWay(Error::new(Kind::Tool, message)));
        }
        if feed.asked() > 0 {
            if let Some(trouble) = feed.trouble() {
                return Err(Error::new(Kind::Tool, format!("the server did not take the backup: {trouble}"))
                    .hint("look at the server's log; it keeps the data that it had")
                    .into());
            }
            // What the server is fed does not depend on the connection by which it is asked.
            let cx = if whole { &deaf } else { cx };
            let facts = patiently(cx, is_cut, || Facts::ask(tools, client, cx))?;
            if !facts.is_replica() {
                return Err(Error::new(Kind::Tool, "somebody else told the server to follow nobody").into());
            }
            let master = facts.master();
            if master != ours {
                let message = format!("somebody else told the server to follow {master}");
                return Err(Error::new(Kind::Tool, message).into());
            }
            let loading =
                facts.number("loading") + facts.number("async_loading") + facts.number("master_sync_in_progress");
            if whole && facts.text("master_link_status") == "up" && loading == 0 {
                return Ok(facts);
            }
        }
        if now.saturating_sub(since) > LOADING {
            return Err(Error::new(Kind::Tool, "the server has all of the backup and does not load it").into());
        }
        clock.sleep(EVERY);
    }
}

/// Lets the server follow nobody and puts its settings back. It may say no for as long as it is loading, or be away.
fn settle(changed: &mut Changed<'_>, cx: &Cx) -> Result<()> {
    let clock = &cx.world.clock;
    let until = clock.monotonic() + super::CLEANUP;
    loop {
        match patiently(cx, is_cut, || changed.put_back()) {
            Err(error) if error.message.contains("LOADING") && clock.monotonic() < until => clock.sleep(EVERY),
            other => return other.map_err(|error| error.while_doing("can't put the server's settings back")),
        }
    }
}

/// Sees that what was loaded is on the server's disk, where it keeps anything there; gives what the operator should know.
pub fn persist(tools: &Tools, client: &Tool, facts: &Facts, cx: &Cx) -> Vec<String> {
    let outcome = if facts.text("aof_enabled") == "1" {
        wait(tools, client, cx, &["aof_rewrite_in_progress", "aof_rewrite_scheduled"], "aof_last_bgrewrite_status")
    } else {
        save(tools, client, cx)
    };
    match outcome {
        Ok(note) => note.into_iter().collect(),
        Err(error) => vec![format!(
            "it is restored, but not known to be on the server's disk: {error}; until it is, a crash of the server brings \
             the old data back: BGSAVE, or BGREWRITEAOF where there is an append-only file"
        )],
    }
}

fn save(tools: &Tools, client: &Tool, cx: &Cx) -> Result<Option<String>> {
    // One that does not show its settings is asked to save.
    let points = server::setting(tools, client, "save", cx).unwrap_or_default();
    if points.is_some_and(|points| points.trim().is_empty()) {
        return Ok(Some(
            "the server keeps its data in memory alone: a restart of it loses what was restored".to_owned(),
        ));
    }
    loop {
        wait(tools, client, cx, &["rdb_bgsave_in_progress", "aof_rewrite_in_progress"], "")?;
        match tools.ask(client, ["BGSAVE"], cx) {
            Ok(_) => break,
            // Another one has begun in between, for a replica or a backup.
            Err(error) if error.message.contains("in progress") || error.message.contains("child process") => {
                cx.world.cancel.check()?;
                cx.world.clock.sleep(SELDOM);
            }
            Err(error) => return Err(error),
        }
    }
    wait(tools, client, cx, &["rdb_bgsave_in_progress"], "rdb_last_bgsave_status")
}

/// Waits until all of these are 0, and looks at the outcome. What has failed and is only planned again counts as failed: on a
/// full disk the server tries for ever.
fn wait(tools: &Tools, client: &Tool, cx: &Cx, busy: &[&str], status: &str) -> Result<Option<String>> {
    let mut idle = 0;
    loop {
        let facts = patiently(cx, is_cut, || Facts::ask(tools, client, cx))?;
        let works = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress"].iter().any(|name| facts.number(name) != 0);
        idle = if works || facts.text(status) != "err" { 0 } else { idle + 1 };
        if busy.iter().all(|name| facts.number(name) == 0) || idle >= IDLE_LOOKS {
            return match facts.text(status) {
                "ok" | "" => Ok(None),
                other => Err(Error::new(Kind::Tool, format!("{status} is {other}"))),
            };
        }
        cx.world.cancel.check()?;
        cx.world.clock.sleep(SELDOM);
    }
}
