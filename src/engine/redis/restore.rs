//! How a backup comes back. Flows in: the dump's stream and where it is to go. Flows out: a server that holds it, or an error
//! and everything as it was. Touches the server, through the tools, and `data_dir`.
//!
//! The order is the promise: the whole stream is read, authenticated and checked before the server hears of it; what the
//! server can't load or hold is refused; and the new data takes the place of the old in one step of the server's.

use std::cell::Cell;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};

use super::drill;
use super::feed;
use super::keys::{self, Load};
use super::marks::{can_look, clear, left};
use super::rdb::inspector::{compare, counts};
use super::reasons::{by_file, is_cut};
use super::replicate::{self, Failure};
use super::server::{self, Facts};
use super::settings::Changed;
use super::spool::Spool;
use super::tools::{Tool, Tools};
use crate::engine::tools::patiently;
use crate::engine::{Cx, Destination, Keep, Request, Restored, Step, checks};
use crate::error::{Error, Kind, Result};

/// Restores `dump` as `request` says.
///
/// # Errors
/// The stream's own error, or [`Kind::Tool`]; the live data is then as it was, settings too.
pub fn restore(tools: &Tools, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
    request.begins(Step::Load, &format!("reading the backup into {}", cx.data_dir.display()), cx);
    let spool = Spool::read(dump, cx)?;
    request.begins(Step::Check, "comparing its keys with what it should hold, and its needs with the server", cx);
    if !request.expected.is_empty() {
        compare_all(&spool, request)?;
    }
    let client = tools.client(cx)?;
    if request.destination == Destination::Drill {
        return practise(tools, &client, &spool, request, cx);
    }
    let facts = Facts::ask(tools, &client, cx)?;
    let (mut changed, was_left) = Changed::open(tools, &client, cx)?;
    let facts = if was_left { Facts::ask(tools, &client, cx)? } else { facts };
    let mut notes = left_out(&spool);
    if was_left {
        notes.push(
            "a restore that was interrupted had left settings of the server changed; they are put back".to_owned(),
        );
    }
    check(tools, &client, &spool, &facts, cx)?;
    request.keep.as_ref().map_or(Ok(()), Keep::room)?;
    if spool.contents.module_aux {
        notes.push(
            "the backup has data that a module keeps outside of keys; it is restored by replication alone".to_owned(),
        );
    }
    let token = cx.world.random_hex(8)?;
    let load = Load { tools, client: &client, spool: &spool, cx, token: &token, touched: Cell::default() };
    if let Destination::Into(number) = &request.destination {
        request.begins(Step::Swap, &format!("loading key by key into the database {number}"), cx);
        let number: u64 = number.parse().map_err(|_| {
            Error::new(Kind::Tool, format!("{number:?} is no number of a database"))
                .hint("give the number of an empty database of this server: --into 5")
        })?;
        memory(tools, &spool, &facts, false)?;
        load.into_one(number)?;
        if spool.contents.functions > 0 {
            notes.push("functions belong to the whole server and are not restored beside it".to_owned());
        }
        return Ok(Restored { counts: spool.contents.live_counts(), notes, missing: Vec::new() });
    }
    if let Some(keep) = &request.keep {
        sweep(tools, &client, &facts, cx)?;
        keep.take()?;
    }
    let placed = in_place(&load, &facts, &mut changed, request.keep.is_some());
    if placed.is_err() && !load.touched.get() {
        request.untouched();
    }
    notes.extend(placed?);
    let (found, functions) = patiently(cx, is_cut, || keys::counted(tools, &client, cx))?;
    // What was live before, and could not be cleared away, is no part of it.
    let mut found = spool.contents.live(&found);
    found.retain(|number, _| spool.contents.keys.contains_key(number));
    Ok(Restored { counts: counts(&found, functions), notes, missing: Vec::new() })
}

/// Tells of databases that a killed restore had left at the backup's server.
fn left_out(spool: &Spool) -> Vec<String> {
    let tell = |number: &u64| {
        format!(
            "the backup holds what an interrupted restore had left in database {number}; that is no live data, and left out"
        )
    };
    spool.contents.marked.iter().map(tell).collect()
}

/// Clears what killed restores have left, before what is live is kept: it is no part of that. One who may not, or has no such
/// thing to look for, is not held up by it.
fn sweep(tools: &Tools, client: &Tool, facts: &Facts, cx: &Cx) -> Result<()> {
    let swept = left(tools, client, facts, cx).and_then(|left| match left.is_empty() {
        true => Ok(()),
        false => can_look(tools, client, cx).and_then(|()| clear(tools, client, &left, cx)),
    });
    match swept {
        Err(error) if error.is_stopped() || is_cut(&error) => Err(error),
        _ => Ok(()),
    }
}

/// What was counted when the backup was made, against what is in it now.
fn compare_all(spool: &Spool, request: &Request) -> Result<()> {
    compare(&request.expected, &spool.contents.counts())?;
    compare(&spool.contents.counts(), &request.expected)
}

/// Refuses what can't end well, before anything is changed.
fn check(tools: &Tools, client: &Tool, spool: &Spool, facts: &Facts, cx: &Cx) -> Result<()> {
    let from = spool.contents.version.as_deref();
    server::refuse_newer(spool.format, from, &facts.name(), facts.is_valkey(), facts.release())?;
    facts.refuse_parts(tools, client, cx)?;
    if facts.text("cluster_enabled") == "1" {
        return Err(Error::new(
            Kind::Tool,
            "the server is in cluster mode: there it follows no server from outside (REPLICAOF), and has one database \
             without an exchange (SWAPDB), so nothing could be loaded beside its data and take their place at once",
        )
        .hint(by_file(tools)));
    }
    if facts.is_replica() {
        return Err(Error::new(Kind::Tool, format!("the server is a replica of {}", facts.master()))
            .hint("restore at its primary, which passes it on: mend the url"));
    }
    Ok(())
}

/// Whether there is room: for the old and the new data at once where they stand side by side under `maxmemory`.
fn memory(tools: &Tools, spool: &Spool, facts: &Facts, replicated: bool) -> Result<()> {
    let (new, old) = (spool.contents.used_memory.unwrap_or(0), facts.number("used_memory"));
    let (limit, system) = (facts.number("maxmemory"), facts.number("total_system_memory"));
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    // A server that follows another heeds its own limit only after that.
    let under_limit = if replicated { new } else { old.saturating_add(new) };
    if limit > 0 && under_limit > limit {
        let message = format!(
            "the backup's server used {} MiB, this one uses {} MiB, and its maxmemory is {} MiB",
            mib(new),
            mib(old),
            mib(limit)
        );
        return Err(Error::new(Kind::Tool, message).hint("raise maxmemory: the old data stays until the new is there"));
    }
    if system > 0 && old.saturating_add(new) > system {
        let message = format!(
            "the backup's server used {} MiB and this one uses {} MiB, where the host has {} MiB: both would not fit at once",
            mib(new),
            mib(old),
            mib(system)
        );
        return Err(Error::new(Kind::Tool, message).hint(format!("free memory; or {}", by_file(tools))));
    }
    Ok(())
}

/// The address by which the server reaches us, or why it can't be fed.
fn way(tools: &Tools, client: &Tool, facts: &Facts, cx: &Cx) -> Result<IpAddr> {
    let no = |why: &str| Err(Error::new(Kind::Tool, why));
    if tools.toolbox.runs_elsewhere() {
        return no("the tools run elsewhere, so the server may not reach this host");
    }
    if tools.place.tls || server::setting(tools, client, "tls-replication", cx)?.as_deref() == Some("yes") {
        return no("the server speaks TLS to those it follows");
    }
    let modules = server::modules(tools, client, cx)?;
    if !modules.is_empty() {
        let list = modules.into_iter().collect::<Vec<_>>().join(", ");
        return no(&format!("with modules ({list}) it may not be able to keep its old data while it loads"));
    }
    if is_watched(tools, client, cx)? {
        return no("a Sentinel watches it, and would take the restore for a failure");
    }
    memory_of_replication(facts, tools, client, cx)?;
    match tools.place.socket {
        Some(_) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        None => feed::our_address(&tools.place.host, tools.place.port),
    }
}

/// Whether a Sentinel watches the server: each of them listens there for the others. It would put another server in its place
/// while it follows us, and have it write down (CONFIG REWRITE) what is changed for that time.
fn is_watched(tools: &Tools, client: &Tool, cx: &Cx) -> Result<bool> {
    match tools.ask(client, ["PUBSUB", "NUMSUB", "__sentinel__:hello"], cx) {
        Ok(answer) => Ok(answer.trim_end().rsplit_once("(integer) ").is_some_and(|(_, number)| number != "0")),
        Err(error) if error.is_stopped() || is_cut(&error) => Err(error),
        // One who may not ask that is not held up by it.
        Err(_) => Ok(false),
    }
}

/// A server that heeds its limit while it follows might evict what it loads.
fn memory_of_replication(facts: &Facts, tools: &Tools, client: &Tool, cx: &Cx) -> Result<()> {
    let heeds = server::setting(tools, client, "replica-ignore-maxmemory", cx)?.as_deref() == Some("no");
    match heeds && facts.number("maxmemory") > 0 {
        true => Err(Error::new(Kind::Tool, "with replica-ignore-maxmemory no it might evict what it loads")),
        false => Ok(()),
    }
}

fn in_place(load: &Load<'_>, facts: &Facts, changed: &mut Changed<'_>, kept: bool) -> Result<Vec<String>> {
    let (tools, client, spool, cx) = (load.tools, load.client, load.spool, load.cx);
    let (mut notes, mut differs) = (Vec::new(), None);
    let outcome = way(tools, client, facts, cx).map_err(Failure::NoWay).and_then(|ip| {
        memory(tools, spool, facts, true)?;
        cx.begins(
            Step::Swap,
            "letting the server follow us: it loads the backup beside its data, and exchanges them at once",
        );
        load.touched.set(true);
        replicate::replicate(tools, client, spool, ip, changed, cx)
    });
    if matches!(outcome, Err(Failure::NoWay(_))) {
        load.touched.set(false);
    }
    match outcome {
        Ok(loaded) => {
            let functions = server::functions(tools, client, &loaded, cx).unwrap_or(spool.contents.functions);
            differs = spool.contents.compare(&counts(&spool.contents.live(&loaded.keys), functions)).err();
            notes.extend(clear_marked(load, &loaded));
            if facts.number("connected_slaves") > 0 {
                notes.push("the server's own replicas take all of the new data from it now".to_owned());
            }
        }
        Err(Failure::NoWay(error)) if error.is_stopped() => return Err(error),
        Err(Failure::NoWay(error)) => {
            cx.report.detail(&format!("not by replication: {error}; key by key"));
            memory(tools, spool, facts, false)?;
            cx.begins(Step::Swap, "loading key by key into free databases, and exchanging all of them at once");
            notes.extend(load.in_place()?);
            notes.push(format!("restored key by key, not by replication: {error}"));
        }
        Err(Failure::Failed(error)) => return Err(tools.explain(error)),
    }
    cx.begins(Step::Tidy, "letting the server write its new data to its disk");
    notes.extend(replicate::persist(tools, client, facts, cx));
    match differs {
        None => Ok(notes),
        Some(error) => Err(Error { hint: None, ..error }
            .while_doing("the server has taken over the backup, and does not hold what that holds")
            .hint(match kept {
                true => format!("restore {} --undo puts back what it held before", tools.toolbox.configured),
                false => "look at the server's log, and restore again, or another backup: list shows them".to_owned(),
            })),
    }
}

/// Clears what became live with the rest and is no live data.
fn clear_marked(load: &Load<'_>, loaded: &Facts) -> Option<String> {
    let (tools, client, cx, marked) = (load.tools, load.client, load.cx, &load.spool.contents.marked);
    if marked.is_empty() {
        return None;
    }
    let cleared = patiently(cx, is_cut, || clear(tools, client, &left(tools, client, loaded, cx)?, cx));
    let tell = |error| format!("databases {marked:?} hold it all the same: {error}; the next restore empties them");
    cleared.err().map(tell)
}

/// Loads the backup into a server of our own and counts what it has then.
fn practise(tools: &Tools, client: &Tool, spool: &Spool, request: &Request, cx: &Cx) -> Result<Restored> {
    let private = drill::start(tools, client, spool, cx)?;
    let load = Load { tools: &private.tools, client, spool, cx, token: "drill", touched: Cell::default() };
    if tools.toolbox.runs_elsewhere() {
        load.into_own()?;
    } else {
        let (mut changed, _) = Changed::open(&private.tools, client, cx)?;
        match replicate::replicate(&private.tools, client, spool, IpAddr::V4(Ipv4Addr::LOCALHOST), &mut changed, cx) {
            Ok(_) => {}
            Err(Failure::NoWay(error) | Failure::Failed(error)) => return Err(error),
        }
    }
    let (found, functions) = keys::counted(&private.tools, client, cx)?;
    let counts = counts(&spool.contents.live(&found), functions);
    spool.contents.compare(&counts)?;
    checks::run(&request.checks, &mut |check| private.tools.answer(client, &check.query, cx))?;
    Ok(Restored { counts, notes: left_out(spool), missing: Vec::new() })
}
