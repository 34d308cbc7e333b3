//! What a tool's last words mean. Flows in: a failure with the end of the tool's standard error. Flows out: the same with
//! the reason in its message and the mend as its hint. Touches nothing.

use super::sql::literal;
use super::url::Place;
use crate::error::Error;

/// How much of a line of the tools is shown, in characters: they echo the statement that failed, data included.
const LINE_CHARS: usize = 160;

/// Adds the reason and the mend to a tool's failure, as far as its last words give them away.
pub fn explain(mut error: Error, place: &Place, configured: &str) -> Error {
    if error.is_stopped() || error.tail.is_empty() {
        return error;
    }
    // Between two lines of dashes the client repeats the statement.
    if let Some(last) = error.tail.iter().rposition(|line| line.starts_with("--------------")) {
        error.tail.drain(..=last);
    }
    for line in &mut error.tail {
        if line.chars().count() > LINE_CHARS {
            *line = line.chars().take(LINE_CHARS).chain("…".chars()).collect();
        }
    }
    let said = error.tail.join("\n");
    let Some((_, why, hint)) = REASONS.iter().find(|(sign, _, _)| said.contains(sign)) else { return error };
    let fill = |text: &str| {
        text.replace("{server}", &place.server())
            .replace("{database}", &place.database)
            .replace("{name}", configured)
            .replace("{user}", place.user.as_deref().unwrap_or("the user"))
    };
    let message = format!("{}: {}", error.message, fill(why));
    Error { message, ..error }.hint(fill(hint))
}

/// Whether the server says that there is no such database.
pub fn misses_database(error: &Error) -> bool {
    error.tail.iter().any(|line| line.contains("1049"))
}

/// The server's number for a table or view that is not there.
pub const NO_SUCH_TABLE: u32 = 1146;

/// The server's number for a view or a routine whose definer is not there.
pub const NO_SUCH_DEFINER: u32 = 1449;

/// The user of whom the server says so, as a statement names it; all that it says where it does not say it as always.
pub fn missing_definer(error: &Error) -> Option<String> {
    if number(error) != Some(NO_SUCH_DEFINER) {
        return None;
    }
    let said = said(error);
    let user = said.split_once("('").and_then(|(_, rest)| rest.rsplit_once("')"));
    let user = user.and_then(|(user, _)| user.rsplit_once("'@'"));
    Some(user.map_or_else(|| said.to_owned(), |(name, host)| format!("{}@{}", literal(name), literal(host))))
}

/// What the server said last.
pub fn said(error: &Error) -> &str {
    error.tail.iter().rev().find(|line| line.contains("ERROR ")).map_or(&error.message, |line| line)
}

/// The number of the server's error, if that is what ended the tool.
pub fn number(error: &Error) -> Option<u32> {
    error.tail.iter().rev().find_map(|line| {
        let (_, rest) = line.split_once("ERROR ")?;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    })
}

/// A unique key, or a check.
const BROKEN: (&str, &str) = (
    "the backup holds rows that break a constraint of its own",
    "see the last lines for which; another backup may hold better ones: list shows them",
);

/// A collation, or a character set, that is not known.
const NEWER: (&str, &str) = (
    "the backup is of a newer server, whose collations or character sets this one does not know",
    "restore it into a server as new as the backup's: mend [databases.{name}] url",
);

/// Whether the connection was cut or could not be made, so that it is worth while to try again.
pub fn is_cut(error: &Error) -> bool {
    number(error).is_some_and(|number| [1053, 2002, 2003, 2006, 2013, 2026, 2055].contains(&number))
}

/// Signs in a tool's last words, what they mean, and the mend. The first that fits counts.
const REASONS: &[(&str, &str, &str)] = &[
    ("1049", "there is no such database", "mend [databases.{name}] url, or restore it from a backup"),
    ("1045", "the server refuses {user} or the password", "set [databases.{name}] password"),
    ("1698", "the server refuses {user} or the password", "set [databases.{name}] password"),
    (
        "cannot be loaded",
        "the tool does not know how this server authenticates",
        "install the client tools of the server's own family, MySQL or MariaDB, and set [databases.{name}] tools_dir",
    ),
    (
        "1370",
        "{user} may not run a routine that a view or a trigger uses",
        "GRANT EXECUTE ON `{database}`.* TO the user that the last lines name",
    ),
    (
        "Authentication requires secure connection",
        "the server takes this password over TLS alone",
        "add ssl-mode=required to [databases.{name}] url",
    ),
    (
        "(2002)",
        "no server answers at {server}",
        "start the server, or mend host, port and socket in [databases.{name}] url",
    ),
    (
        "(2003)",
        "no server answers at {server}",
        "start the server, or mend host, port and socket in [databases.{name}] url",
    ),
    (
        "2002",
        "no server answers at {server}",
        "start the server, or mend host, port and socket in [databases.{name}] url",
    ),
    (
        "2003",
        "no server answers at {server}",
        "start the server, or mend host, port and socket in [databases.{name}] url",
    ),
    ("2005", "{server} can't be found", "mend the host in [databases.{name}] url"),
    (
        "2013",
        "the server closed the connection",
        "look into the server's log: it may have ended for want of room; at net_write_timeout, and at the network in between",
    ),
    (
        "2006",
        "the server closed the connection",
        "look into the server's log: it may have ended for want of room; at max_allowed_packet, and at the network in between",
    ),
    (
        "2026",
        "the connection to {server} could not be secured, or was cut while it was",
        "look at ssl-mode and the certificates in [databases.{name}] url, and at the network in between",
    ),
    ("2055", "the connection to {server} was cut", "look into the server's log and at the network in between"),
    ("1044", "{user} lacks a right on a database", "see the last lines for which"),
    ("1142", "{user} lacks a right on a table", "see the last lines for which"),
    ("1227", "{user} lacks a right of the whole server", "see the last lines for which"),
    (
        "1419",
        "the server wants more rights for code while it writes a binary log",
        "SET GLOBAL log_bin_trust_function_creators = 1, or restore as a superuser",
    ),
    ("1290", "the server takes no writes", "restore on the primary: mend the host in [databases.{name}] url"),
    ("ERROR 1062", BROKEN.0, BROKEN.1),
    ("ERROR 3819", BROKEN.0, BROKEN.1),
    ("ERROR 4025", BROKEN.0, BROKEN.1),
    ("ERROR 1273", NEWER.0, NEWER.1),
    ("ERROR 1115", NEWER.0, NEWER.1),
    ("1205", "a table stayed locked by others", "run it when no long transaction is open"),
    ("1021", "the server's disk is full", "free space there: a restore needs room for a second copy"),
    ("1114", "the server's disk is full", "free space there: a restore needs room for a second copy"),
    // MariaDB writes what is loaded into an empty table at its end alone, and gives no reason then.
    (
        "ERROR 1180",
        "the server could not write what it had taken: its disk is full, or two rows of the backup have one key",
        "free space there: a restore needs room for a second copy; or take another backup: the server's log says which",
    ),
    ("No space left", "the server's disk is full", "free space there: a restore needs room for a second copy"),
    (
        "unknown variable",
        "the tool does not know an option",
        "mend dump_args, restore_args and the url, or set [databases.{name}] tools_dir",
    ),
    (
        "unknown option",
        "the tool does not know an option",
        "mend dump_args, restore_args and the url, or set [databases.{name}] tools_dir",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_definer_that_is_not_there_is_named() {
        let said = |line: &str| missing_definer(&Error::new(Kind::Tool, "x").tail(vec![line.to_owned()]));
        let line = |user: &str| {
            format!("ERROR 1449 (HY000) at line 9: The user specified as a definer ({user}) does not exist")
        };
        assert_eq!(said(&line("'alice'@'%'")).as_deref(), Some("'alice'@'%'"));
        assert_eq!(said(&line("'no ``b'ody'@'no-where'")).as_deref(), Some("'no ``b''ody'@'no-where'"));
        assert_eq!(said("ERROR 1449 (HY000): wer?").as_deref(), Some("ERROR 1449 (HY000): wer?"));
        assert_eq!(said("ERROR 1356 (HY000): ('a'@'b')"), None);
    }
}
