//! What the server's and the client's last words mean. Flows in: an error. Flows out: the same with its mend. Pure.

use super::tools::Tools;
use crate::error::Error;

/// What a dump needs.
pub const FOR_DUMP: &str = "+sync +psync +replconf +ping +info";
/// What a restore needs beside that.
pub const FOR_RESTORE: &str = "+@all ~* &*";

/// What to do where no other way is open.
pub fn by_file(tools: &Tools) -> String {
    format!(
        "restore by file: restore {} --output dump.rdb, stop the server, put that in the place of its dump.rdb, start it (with an \
         append-only file: first with --appendonly no)",
        tools.toolbox.configured
    )
}

/// The statement that gives `user` these rights.
pub fn grant(user: &str, rights: &str) -> String {
    format!("ACL SETUSER {user} {rights}")
}

/// Adds the mend, if the words are known.
pub fn explain(error: Error, user: &str, configured: &str) -> Error {
    let said =
        error.tail.iter().chain([&error.message]).map(|line| line.to_ascii_lowercase()).collect::<Vec<_>>().join("\n");
    let has = |part: &str| said.contains(part);
    if has("noperm") || has("no permissions") {
        let command = said.split("run the '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        let rights = match command {
            "" | "sync" | "psync" | "replconf" | "ping" => FOR_DUMP.to_owned(),
            command => format!("+{command}"),
        };
        return error.hint(grant(user, &rights));
    }
    if has("wrongpass") || has("invalid password") || has("invalid username-password") {
        return error.hint(format!("mend the user or the password of [databases.{configured}]"));
    }
    if has("noauth") || has("authentication required") {
        return error.hint(format!("the server wants a password: set [databases.{configured}] password"));
    }
    if has("ssl_connect failed") || has("certificate") {
        return error.hint("give the authority's certificate: rediss://host?cacert=/path");
    }
    if has("could not connect") || has("connection refused") || has("server closed the connection") {
        return error.hint(format!("is the server running? look at [databases.{configured}] url"));
    }
    if has("error reading bulk length while syncing") {
        return error.hint(
            "the server broke it off: look at its log; a Valkey 9 gives its client no hash with fields that expire (HEXPIRE)",
        );
    }
    if is_cut(&error) {
        return error.hint("look into the server's log and at the network in between, then run it again");
    }
    if has("unrecognized option") || has("unknown option") {
        return error.hint("this client knows no TLS, or is too old: install a newer one, or set tools_dir");
    }
    if has("misconf") || has("no space left") {
        return error.hint("the server can't write to its disk: look at its log and make room");
    }
    if has("oom command not allowed") {
        return error.hint("the server's maxmemory is too small for this: raise it");
    }
    error
}

/// What the client and we say of a connection that was cut, or could not be made.
const CUT: [&str; 8] = [
    "could not connect",
    "connection refused",
    "connection reset",
    "server closed the connection",
    "broken pipe",
    "i/o error",
    "exec without multi",
    WAS_CUT,
];

/// How we say it.
pub const WAS_CUT: &str = "the connection was cut";

/// Whether the connection was cut, so that it is worth while to try again.
pub fn is_cut(error: &Error) -> bool {
    error.tail.iter().chain([&error.message]).any(|line| {
        let line = line.to_ascii_lowercase();
        CUT.iter().any(|words| line.contains(words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn last_words_have_their_mends() {
        let hint = |words: &str| {
            let error = Error::new(Kind::Tool, "redis-cli failed with exit status 1").tail(vec![words.to_owned()]);
            explain(error, "backup", "cache").hint.unwrap_or_default()
        };
        let sync = "SYNC with master failed: -NOPERM User backup has no permissions to run the 'sync' command";
        assert_eq!(hint(sync), "ACL SETUSER backup +sync +psync +replconf +ping +info");
        assert_eq!(
            hint("NOPERM this user has no permissions to run the 'config|set' command"),
            "ACL SETUSER backup +config|set"
        );
        assert!(hint("AUTH failed: WRONGPASS invalid username-password pair").contains("[databases.cache]"));
        assert!(hint("(error) NOAUTH Authentication required.").contains("password"));
        assert!(hint("Could not connect to Redis at 127.0.0.1:1: Connection refused").contains("running"));
        assert!(hint("Error: Connection reset by peer").contains("the network in between"));
        assert_eq!(hint("something else"), "");
    }
}
