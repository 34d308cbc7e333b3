//! What a tool's last words mean. Flows in: a failure with the end of the tool's standard error. Flows out: the same with
//! the reason in its message and the mend as its hint. Touches nothing.

use super::url::Place;
use crate::error::Error;

/// Adds the reason and the mend to a tool's failure, as far as its last words give them away.
pub fn explain(mut error: Error, place: &Place, configured: &str) -> Error {
    if error.is_stopped() || error.tail.is_empty() {
        return error;
    }
    error.tail = error.tail.iter().filter_map(|line| said(line)).collect();
    let said = error.tail.join("\n");
    let Some((_, why, hint)) = REASONS.iter().find(|(sign, _, _)| said.contains(sign)) else { return error };
    let fill = |text: &str| {
        text.replace("{server}", place.server())
            .replace("{database}", &place.database)
            .replace("{name}", configured)
            .replace("{user}", place.user.as_deref().unwrap_or("a client without a user"))
    };
    let message = format!("{}: {}", error.message, fill(why));
    Error { message, ..error }.hint(fill(hint))
}

/// A line without what the tools say of the password that they are given. The prompt has no line of its own: what failed
/// may stand behind it.
fn said(line: &str) -> Option<String> {
    let line = line.strip_prefix("Enter password:").unwrap_or(line).trim();
    let is_news = !line.is_empty() && line.rsplit('\t').next() != Some("reading password from standard input");
    is_news.then(|| line.to_owned())
}

/// Whether the connection was cut or could not be made, so that it is worth while to try again.
pub fn is_cut(error: &Error) -> bool {
    let said = error.tail.join("\n");
    REASONS.iter().any(|(sign, why, _)| [NO_ANSWER.0, CUT.0].contains(why) && said.contains(sign))
}

const CUT: (&str, &str) = (
    "the connection to {server} was cut",
    "look into the server's log and at the network in between, then run it again",
);
const NO_ANSWER: (&str, &str) =
    ("no server answers at {server}", "start the server, or mend the host and port in [databases.{name}] url");
const LOGIN: (&str, &str) = (
    "the server refuses {user} or the password",
    "set [databases.{name}] password, and authSource in the url to the database that knows the user (often admin)",
);
const RIGHTS: (&str, &str) = (
    "{user} lacks a right",
    "db.getSiblingDB(\"admin\").grantRolesToUser(\"{user}\", [{ role: \"readWrite\", db: \"{database}\" }]) gives what \
     backup and restore in place need",
);
const WRITES: (&str, &str) =
    ("the server takes no writes", "restore on the primary: name all members and replicaSet in [databases.{name}] url");
const FULL: (&str, &str) = ("the server's disk is full", "free space there: a restore needs room for a second copy");

/// Signs in a tool's last words, what they mean, and the mend. The first that fits counts.
const REASONS: &[(&str, &str, &str)] = &[
    ("AuthenticationFailed", LOGIN.0, LOGIN.1),
    ("Authentication failed", LOGIN.0, LOGIN.1),
    ("auth error", LOGIN.0, LOGIN.1),
    ("requires authentication", LOGIN.0, LOGIN.1),
    ("ECONNREFUSED", NO_ANSWER.0, NO_ANSWER.1),
    ("connection refused", NO_ANSWER.0, NO_ANSWER.1),
    ("ENOTFOUND", "{server} can't be found", "mend the host in [databases.{name}] url"),
    ("no such host", "{server} can't be found", "mend the host in [databases.{name}] url"),
    ("not authorized", RIGHTS.0, RIGHTS.1),
    ("Unauthorized", RIGHTS.0, RIGHTS.1),
    ("permission denied", RIGHTS.0, RIGHTS.1),
    ("NotWritablePrimary", WRITES.0, WRITES.1),
    ("not primary", WRITES.0, WRITES.1),
    (
        "Duplicate key violation",
        "the backup holds documents that break a unique index of its own",
        "see the last lines for which index",
    ),
    ("E11000", "the backup holds documents that break a unique index of its own", "see the last lines for which index"),
    (
        "Document failed validation",
        "a document breaks the rules of its own collection",
        "restore with restore_args = [\"--bypassDocumentValidation\"] if the old documents are to stay as they are",
    ),
    ("CRC mismatch", "the archive is broken", "take another backup of this database: list shows them"),
    ("corruption found in archive", "the archive is broken", "take another backup of this database: list shows them"),
    ("No space left", FULL.0, FULL.1),
    ("OutOfDiskSpace", FULL.0, FULL.1),
    ("Server selection timed out", NO_ANSWER.0, NO_ANSWER.1),
    ("server selection error", NO_ANSWER.0, NO_ANSWER.1),
    ("MongoNetworkError", CUT.0, CUT.1),
    ("connection() error", CUT.0, CUT.1),
    ("incomplete read of", CUT.0, CUT.1),
    ("connection reset by peer", CUT.0, CUT.1),
    ("broken pipe", CUT.0, CUT.1),
    ("socket was unexpectedly closed", CUT.0, CUT.1),
    (
        "unknown option",
        "the tool does not know an option",
        "mend dump_args and restore_args, or install a newer mongodump",
    ),
    (
        "unknown flag",
        "the tool does not know an option",
        "mend dump_args and restore_args, or install a newer mongodump",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_stands_behind_the_prompt_is_told_and_the_prompt_is_not() {
        let place = Place::parse(&crate::secret::Secret::new("mongodb://u@h/d")).unwrap();
        let tail = [
            "2026-02-25T03:00:00.000+0000\treading password from standard input",
            "Enter password:",
            "Enter password:2026-02-25T03:00:00.000+0000\tFailed: it is broken",
            "2026-02-25T03:00:00.000+0000\terror reading password from standard input",
        ];
        let error = Error::new(Kind::Tool, "mongodump failed").tail(tail.map(str::to_owned).to_vec());
        let told = explain(error, &place, "d").tail;
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].ends_with("Failed: it is broken") && told[1].contains("error reading"), "{told:?}");
    }

    #[test]
    fn a_cut_is_told_from_other_failures() {
        let error = |line: &str| Error::new(Kind::Tool, "mongorestore failed").tail(vec![line.into()]);
        for line in [
            "Failed: d.c: error restoring: connection(h:1[-4]) incomplete read of full message: unexpected EOF",
            "connection(h:1[-4]) incomplete read of message header: EOF",
            "MongoNetworkError: connect ECONNREFUSED 127.0.0.1:1",
        ] {
            assert!(is_cut(&error(line)), "{line}");
        }
        assert!(!is_cut(&error("AuthenticationFailed: no")) && !is_cut(&error("E11000 duplicate key")));
    }
}
