//! What a tool's last words mean. Flows in: a failure with the end of the tool's standard error. Flows out: the same with
//! the reason in its message and the mend as its hint. Touches nothing.

use super::url::Place;
use crate::error::Error;

/// Adds the reason and the mend to a tool's failure in `database`, as far as its last words give them away.
pub fn explain(error: Error, place: &Place, configured: &str, database: &str) -> Error {
    if error.is_stopped() || error.tail.is_empty() {
        return error;
    }
    let said = error.tail.join("\n");
    let server = place.server();
    let reason = REASONS.iter().find(|(sign, _, _)| said.contains(sign));
    let Some((_, why, hint)) = reason else { return error };
    let fill = |text: &str| {
        text.replace("{server}", &server)
            .replace("{database}", database)
            .replace("{name}", configured)
            .replace("{user}", place.user().unwrap_or("the user"))
    };
    let message = if why.is_empty() { error.message.clone() } else { format!("{}: {}", error.message, fill(why)) };
    Error { message, ..error }.hint(fill(hint))
}

/// How the system says that a disk is full.
const FULL: &str = "No space left on device";

const BROKEN: (&str, &str) = (
    "the backup holds rows that break a constraint of its own",
    "see the last lines for which; another backup may hold better ones: list shows them",
);

/// Signs in a tool's last words, what they mean, and the mend. The first that fits counts.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "server version mismatch",
        "it is older than the server",
        "set [databases.{name}] tools_dir to the tools of the server's version or a newer one",
    ),
    (
        "unsupported version",
        "it is older than the tool that wrote the dump",
        "set [databases.{name}] tools_dir to tools at least as new as those that dumped",
    ),
    (
        "Connection refused",
        "no server answers at {server}",
        "start the server, or mend host and port in [databases.{name}] url",
    ),
    (
        "failed: No such file or directory",
        "no server answers at {server}",
        "start the server, or mend host and port in [databases.{name}] url",
    ),
    ("could not translate host name", "{server} can't be found", "mend the host in [databases.{name}] url"),
    ("timeout expired", "{server} does not answer", "look at the network and the firewall between here and {server}"),
    ("password authentication failed", "the server refuses the password of {user}", "set [databases.{name}] password"),
    ("no password supplied", "the server wants a password", "set [databases.{name}] password"),
    (
        "no pg_hba.conf entry",
        "the server does not let {user} in from here",
        "add a line for it to the server's pg_hba.conf",
    ),
    (
        "Peer authentication failed",
        "the server does not let {user} in from here",
        "run it as that system user, or connect over TCP with a password",
    ),
    (
        "permission denied to create database",
        "{user} may not create databases",
        "as a superuser: ALTER ROLE {user} CREATEDB",
    ),
    ("lock timeout", "a table stayed locked by others", "run it when nobody alters tables"),
    (
        "must be able to SET ROLE",
        "{user} may not act for the owner",
        "restore as a superuser, or grant {user} the roles that own things",
    ),
    (
        "must be member of role",
        "{user} may not act for the owner",
        "restore as a superuser, or grant {user} the roles that own things",
    ),
    ("must be owner of", "{user} lacks rights", "restore as the owner or a superuser"),
    (
        "extension control file",
        "the server lacks an extension that the dump uses",
        "install the extension's package where the server runs, then restore again",
    ),
    (
        "is not available",
        "the server lacks something that the dump uses",
        "install what the last lines name where the server runs, then restore again",
    ),
    ("permission denied to create extension", "{user} may not create an extension", "restore as a superuser"),
    (
        "invalid connection option",
        "the url has a parameter that these tools don't know",
        "take it out of [databases.{name}] url, or set tools_dir to newer tools",
    ),
    ("FATAL:  role \"", "the server has no role {user}", "create it, or mend the user in [databases.{name}] url"),
    (FULL, "the server's disk is full", "free space there: a restore needs room for a second copy"),
    ("violates check constraint", BROKEN.0, BROKEN.1),
    ("violates foreign key constraint", BROKEN.0, BROKEN.1),
    ("violates not-null constraint", BROKEN.0, BROKEN.1),
    ("violates unique constraint", BROKEN.0, BROKEN.1),
    ("violates exclusion constraint", BROKEN.0, BROKEN.1),
    ("could not create unique index", BROKEN.0, BROKEN.1),
    (
        "unrecognized configuration parameter",
        "the tools are newer than the server",
        "set [databases.{name}] tools_dir to the tools of the server's version",
    ),
    (
        "permission denied",
        "{user} lacks a right",
        "use the owner or a superuser in [databases.{name}] url; to dump, pg_read_all_data is enough",
    ),
    (
        "the database system is",
        "{server} takes no connections now",
        "wait until the server has started, then run it again",
    ),
    (CUT[0], CUT_WHY, CUT_HINT),
    (CUT[1], CUT_WHY, CUT_HINT),
    (CUT[2], CUT_WHY, CUT_HINT),
    (CUT[3], CUT_WHY, CUT_HINT),
];

/// What the tools say of a connection that was cut.
const CUT: [&str; 4] = [
    "server closed the connection unexpectedly",
    "connection to server was lost",
    "Connection reset by peer",
    "terminating connection due to",
];
const CUT_WHY: &str = "the connection to {server} was cut";
const CUT_HINT: &str = "look into the server's log, for it may have ended for want of room, and at the network in between; then \
     run it again";

/// Whether the connection was cut or could not be made, so that it is worth while to try again.
pub fn is_cut(error: &Error) -> bool {
    let away = ["Connection refused", "timeout expired", "the database system is"];
    error.tail.iter().any(|line| CUT.iter().chain(&away).any(|words| line.contains(words)))
}

/// Whether a tool says that a role is missing. Roles belong to the server, so they are not in the dump of a database.
pub fn misses_role(error: &Error) -> Option<&str> {
    error.tail.iter().find_map(|line| {
        let (_, after) = line.split_once("role \"")?;
        after.split_once("\" does not exist").map(|(role, _)| role)
    })
}

/// Whether the server says that its disk is full.
pub fn is_full(error: &Error) -> bool {
    error.tail.iter().any(|line| line.contains(FULL))
}

/// Whether the tool says that `database` is not there.
pub fn misses_database(error: &Error) -> bool {
    error.tail.iter().any(|line| line.contains("database \"") && line.ends_with("does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::secret::Secret;

    #[test]
    fn what_a_tool_says_gets_a_mend() {
        let url = Secret::new("postgres://u:canary@h:5433/d");
        let place = Place::parse(&url).unwrap();
        let shown = |line: &str| {
            let error = Error::new(Kind::Tool, "psql failed with exit status 2").tail(vec![line.into()]);
            let error = explain(error, &place, "mydb", "d");
            format!("{}; {}", error.message, error.hint.unwrap_or_default())
        };
        for (line, expected) in [
            (
                "psql: error: connection to server at \"h\", port 5433 failed: Connection refused",
                "no server answers at h:5433; start the server, or mend host and port in [databases.mydb] url",
            ),
            (
                "FATAL:  password authentication failed for user \"u\"",
                "the server refuses the password of u; set [databases.mydb] password",
            ),
            ("fe_sendauth: no password supplied", "the server wants a password; set [databases.mydb] password"),
            (
                "ERROR:  permission denied to create database",
                "u may not create databases; as a superuser: ALTER ROLE u CREATEDB",
            ),
            (
                "pg_restore: error: COPY failed for table \"t\": server closed the connection unexpectedly",
                "the connection to h:5433 was cut; look into the server's log, for it may have ended for want of room, and at \
                 the network in between; then run it again",
            ),
        ] {
            assert_eq!(shown(line), format!("psql failed with exit status 2: {expected}"));
        }
        assert_eq!(shown("something else"), "psql failed with exit status 2; ");
    }

    #[test]
    fn what_is_missing() {
        let error = |line: &str| Error::new(Kind::Tool, "x").tail(vec!["a".into(), line.into()]);
        assert_eq!(misses_role(&error("ERROR:  role \"it's\" does not exist")), Some("it's"));
        assert_eq!(misses_role(&error("ERROR:  relation \"x\" does not exist")), None);
        assert!(misses_database(&error("FATAL:  database \"d\" does not exist")));
    }
}
