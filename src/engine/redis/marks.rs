//! The marks of databases that are not live: which restore has loaded there, or has put there what was live. Flows in: our own
//! marks. Flows out: those that were left, and what makes a transaction one only while marks stand. Touches the server, through
//! the tools.

use std::collections::BTreeMap;

use super::reasons::{by_file, is_cut};
use super::server::Facts;
use super::tools::{Command, Tool, Tools, command, strings};
use crate::engine::Cx;
use crate::error::{Error, Result};

/// The key that marks a database that is not live.
pub const MARKER: &str = "voxeltron-backup:restoring";
/// How the server says that a mark is not what it was.
pub const GONE: &str = "GONE the mark";
/// A key that nobody has: to write it makes a transaction that watches it none.
const VOID: &str = "voxeltron-backup:void";
/// Looks at a mark. A script's error alone would not stop the transaction behind it.
const LOOK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end \
                    redis.call('SET', KEYS[2], 1) redis.call('DEL', KEYS[2]) \
                    return redis.error_reply(ARGV[2] .. ' of this restore is not there any more')";

/// Sets a mark, in one step with the look whether the database is empty.
const TAKE: &str = "if redis.call('DBSIZE') == 0 then return redis.call('SET', KEYS[1], ARGV[1]) end \
                    return redis.error_reply(ARGV[2])";
/// Does something while a mark stands, in one step with the look. A server that has no memory left lets nobody put a command
/// into a transaction, not even one that would give some back; a script it does. But of what the user may not, a script does
/// not say the name, so it is the second way.
const WHILE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then \
                     return redis.error_reply(ARGV[2] .. ' of this restore is not there any more') end \
                     return redis.call(unpack(ARGV, 3))";
/// How a server says that it has no memory left.
const FULL: &str = "OOM command not allowed";
/// How the server says that a database is not empty.
const TAKEN: &str = "TAKEN database";

/// Databases, and what the mark in each of them says.
pub type Marks = BTreeMap<u64, Vec<u8>>;

/// What is said before a transaction, over the same connection, so that it is none unless these marks stand until its end.
pub fn looks(marks: &Marks) -> Vec<Command> {
    let look = |(number, mark): (&u64, &Vec<u8>)| {
        let script = [&b"EVAL"[..], LOOK.as_bytes(), b"2", MARKER.as_bytes(), VOID.as_bytes(), mark, GONE.as_bytes()];
        [command(["SELECT", &number.to_string()]), command(["WATCH", MARKER, VOID]), command(script)]
    };
    marks.iter().flat_map(look).collect()
}

/// Looks whether a look can be had. Where scripts are closed it fails before the transaction begins, and so stops none.
///
/// # Errors
/// [`crate::error::Kind::Tool`] with the mend when it can't, or when the server can't be asked.
pub fn can_look(tools: &Tools, client: &Tool, cx: &Cx) -> Result<()> {
    let needed = [command(["EVAL", "return 1", "0"]), command(["WATCH", MARKER, VOID])];
    let Err(error) = tools.ask_all(client, &needed, cx) else { return Ok(()) };
    if error.is_stopped() || is_cut(&error) {
        return Err(error);
    }
    let hint = match &error.hint {
        Some(grant) => grant.clone(),
        None => format!(
            "open EVAL and WATCH (a line `rename-command` of its configuration closes them?); or {}",
            by_file(tools)
        ),
    };
    let why = "a restore key by key looks by a script (EVAL), and by WATCH, that nobody clears what it loads, and here it may not";
    Err(error.while_doing(why).hint(hint))
}

/// Databases that a restore has left: those with our mark, and what it says.
///
/// # Errors
/// [`crate::error::Kind::Tool`] when the server can't be asked.
pub fn left(tools: &Tools, client: &Tool, facts: &Facts, cx: &Cx) -> Result<Marks> {
    let mut left = Marks::new();
    for number in facts.keys.keys() {
        let answer = tools.ask_in(client, *number, command(["GET", MARKER]), cx)?;
        if let Some(mark) = strings(&answer).into_iter().next() {
            left.insert(*number, mark);
        }
    }
    Ok(left)
}

/// Sets these marks, each in a database that is empty.
///
/// # Errors
/// [`crate::error::Kind::Tool`] when one is not, or the server can't be asked or says no.
pub fn take(tools: &Tools, client: &Tool, marks: &Marks, cx: &Cx) -> Result<()> {
    let set = |(number, mark): (&u64, &Vec<u8>)| {
        let why = format!("{TAKEN} {number} is not empty any more");
        let script = [&b"EVAL"[..], TAKE.as_bytes(), b"1", MARKER.as_bytes(), mark, why.as_bytes()];
        [command(["SELECT", &number.to_string()]), command(script)]
    };
    let commands: Vec<Command> = marks.iter().flat_map(set).collect();
    // What the server said first counts: with no memory left it may say both.
    tools.at_once(client, &commands, cx).map_err(|error| match error.message.contains(TAKEN) {
        true => Error { hint: None, ..error }
            .hint("somebody has begun to write there: run it again (--into: with another number)"),
        false => error,
    })
}

/// Empties databases that are not live, while their marks stand.
///
/// # Errors
/// [`crate::error::Kind::Tool`] when the server can't be asked or says no.
pub fn clear(tools: &Tools, client: &Tool, marks: &Marks, cx: &Cx) -> Result<()> {
    for (number, mark) in marks {
        while_it_stands(tools, client, *number, mark, &["FLUSHDB", "ASYNC"], cx)?;
    }
    Ok(())
}

/// Takes this mark away, so that what is there is live; says whether it stood.
///
/// # Errors
/// [`crate::error::Kind::Tool`] when the server can't be asked or says no.
pub fn let_be(tools: &Tools, client: &Tool, number: u64, mark: &[u8], cx: &Cx) -> Result<bool> {
    while_it_stands(tools, client, number, mark, &["DEL", MARKER], cx)
}

/// Does that in a database while its mark stands: otherwise it is empty already, or another's.
fn while_it_stands(tools: &Tools, client: &Tool, number: u64, mark: &[u8], what: &[&str], cx: &Cx) -> Result<bool> {
    let (select, one) = (command(["SELECT", &number.to_string()]), Marks::from([(number, mark.to_vec())]));
    let mut done = tools.transact(client, &one, &[select.clone(), command(what.iter().copied())], cx);
    if done.as_ref().is_err_and(|error| error.message.contains(FULL) && !is_gone(error)) {
        let mut script = vec![&b"EVAL"[..], WHILE.as_bytes(), b"1", MARKER.as_bytes(), mark, GONE.as_bytes()];
        script.extend(what.iter().map(|word| word.as_bytes()));
        done = tools.at_once(client, &[select, command(script)], cx);
    }
    match done {
        Err(error) if is_gone(&error) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Whether a transaction was none because a mark had gone.
pub fn is_gone(error: &Error) -> bool {
    error.tail.iter().chain([&error.message]).any(|line| line.contains(GONE))
}
