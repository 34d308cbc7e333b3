//! PostgreSQL's own tools. Flows in: a database's settings. Flows out: the argument list of every tool as a value, the
//! answers of `psql`, and errors that name the mend. Touches the tools, through [`crate::process`], and looks into the
//! folders where other versions of them may be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::url::Place;
use crate::engine::{Cx, Settings};
use crate::error::{Error, Kind, Result};
use crate::process::{self, Invocation};
use crate::secret::Secret;
use crate::world::{Cancel, World};

/// How long the dump waits for a lock on a table before it gives up.
const LOCK_WAIT: &str = "--lock-wait-timeout=60s";
/// How long cleaning up may take after a failure, a signal or a passed deadline.
const CLEANUP: Duration = Duration::from_secs(20);
/// Where packages put the tools of each major version: before and after the version.
const VERSION_FOLDERS: [(&str, &str); 3] =
    [("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin"), ("/usr/libexec/postgresql", "")];
/// The range of major versions that is looked for.
const MAJORS: std::ops::RangeInclusive<u32> = 10..=30;

/// How the tools of one database are called.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where the database is.
    pub place: Place,
    /// Its name in the configuration.
    pub configured: String,
    password: Option<Secret>,
    folder: Option<PathBuf>,
    dump_args: Vec<String>,
    restore_args: Vec<String>,
}

impl Tools {
    /// From a database's settings.
    pub fn new(settings: Settings, place: Place) -> Self {
        Self {
            password: settings.password.or_else(|| place.password.clone()),
            place,
            configured: settings.database,
            folder: settings.tools_dir,
            dump_args: settings.dump_args,
            restore_args: settings.restore_args,
        }
    }

    fn call(&self, tool: &str) -> Invocation {
        let program = self.folder.as_ref().map_or_else(|| tool.to_owned(), |dir| dir.join(tool).display().to_string());
        Invocation::new(program)
    }

    /// A call that reaches the server. The password goes into this child's environment and nowhere else; messages come
    /// in English, for hints are found by them.
    fn reaching(&self, tool: &str) -> Invocation {
        let call = self.call(tool).args(["--no-password"]).env("LC_ALL", Secret::new("C"));
        match &self.password {
            Some(password) => call.env("PGPASSWORD", password.clone()),
            None => call,
        }
    }

    /// The dump. No compression: the pipeline has its own.
    pub fn dump(&self) -> Invocation {
        self.reaching("pg_dump")
            .args(["--format=custom", "--compress=0", LOCK_WAIT])
            .args(&self.dump_args)
            .args([format!("--dbname={}", self.place.conninfo(&self.place.database, &[]))])
    }

    /// The load of a dump from standard input into `database`.
    pub fn load(&self, database: &str) -> Invocation {
        self.reaching("pg_restore")
            .args(["--exit-on-error"])
            .args(&self.restore_args)
            .args([format!("--dbname={}", self.place.conninfo(database, self.place.for_writing()))])
    }

    /// SQL from standard input, run in `database`, for `read`ing or for writing.
    pub fn sql(&self, database: &str, writing: bool) -> Invocation {
        let mut more = vec![("client_encoding", "UTF8")];
        more.extend(self.place.for_writing().iter().filter(|_| writing));
        self.reaching("psql")
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"])
            .args([format!("--dbname={}", self.place.conninfo(database, &more))])
    }

    /// Whether a restore is to give things to the owners that the dump names.
    pub fn restores_owners(&self) -> bool {
        !self.restore_args.iter().any(|arg| arg == "--no-owner" || arg == "-O")
    }

    /// The version of a tool.
    pub fn version_of(&self, tool: &str) -> Invocation {
        self.call(tool).args(["--version"])
    }

    /// Starts the dump.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be started.
    pub fn start_dump(&self, cx: &Cx) -> Result<process::DumpReader> {
        let call = self.dump();
        cx.report.detail(&call.display());
        process::DumpReader::spawn(&call, cx.deadline, &cx.world)
    }

    /// Runs SQL in `database` and gives its output.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn run_sql(&self, database: &str, sql: &str, cx: &Cx) -> Result<String> {
        let call = self.sql(database, true);
        cx.report.detail(&call.display());
        let script = format!("{PREAMBLE}{sql}");
        let output = process::run(&call, script.as_bytes(), cx.deadline, &cx.world)
            .map_err(|error| self.explain(error, database))?;
        String::from_utf8(output).map_err(|_| Error::new(Kind::Tool, "psql did not answer in UTF-8"))
    }

    /// Runs SQL whose rows are JSON values, one a line.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn rows<T: DeserializeOwned>(&self, database: &str, sql: &str, cx: &Cx) -> Result<Vec<T>> {
        let output = self.run_sql(database, sql, cx)?;
        output
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|error| Error::new(Kind::Tool, format!("psql gave an answer that can't be read: {error}")))
            })
            .collect()
    }

    /// The version of a tool, and its major part.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it isn't there or doesn't say.
    pub fn version(&self, tool: &str, cx: &Cx) -> Result<(String, u32)> {
        let call = self.version_of(tool);
        let output = process::run(&call, b"", cx.deadline, &cx.world).map_err(|error| {
            if error.is_stopped() { error } else { error.hint(format!("look at what {} prints", call.display())) }
        })?;
        let text = String::from_utf8_lossy(&output).into_owned();
        parse_version(&text).ok_or_else(|| {
            let first = text.lines().next().unwrap_or_default();
            Error::new(Kind::Tool, format!("{tool} --version does not name its version: {first}"))
        })
    }

    /// Adds the mend to a tool's failure, as far as its last words give it away.
    pub fn explain(&self, error: Error, database: &str) -> Error {
        if error.is_stopped() || error.tail.is_empty() {
            return error;
        }
        let said = error.tail.join("\n");
        let name = &self.configured;
        let server = self.place.server();
        let reason = REASONS.iter().find(|(sign, _, _)| said.contains(sign));
        let Some((_, why, hint)) = reason else { return error };
        let fill = |text: &str| {
            text.replace("{server}", &server)
                .replace("{database}", database)
                .replace("{name}", name)
                .replace("{user}", self.place.user().unwrap_or("the user"))
        };
        let message = if why.is_empty() { error.message.clone() } else { format!("{}: {}", error.message, fill(why)) };
        Error { message, ..error }.hint(fill(hint))
    }

    /// What to do about tools of the wrong version: names a folder with better ones, if there is one.
    pub fn version_hint(&self, fits: impl Fn(u32) -> bool, wanted: u32) -> String {
        let name = &self.configured;
        let folder = MAJORS.filter(|major| fits(*major)).find_map(|major| {
            VERSION_FOLDERS
                .iter()
                .map(|(before, after)| format!("{before}{major}{after}"))
                .find(|folder| Path::new(folder).join("pg_dump").exists())
        });
        match folder {
            Some(folder) => format!("set [databases.{name}] tools_dir = \"{folder}\""),
            None => format!(
                "install the client tools of PostgreSQL {wanted} and set [databases.{name}] tools_dir to their folder"
            ),
        }
    }
}

/// What every script of ours starts with: names mean what they say, nothing is cut short or filtered by settings of the
/// role, and the server's messages are in English where we may ask for it.
const PREAMBLE: &str = "SET search_path = pg_catalog;
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET default_transaction_read_only = off;
SET row_security = off;
SET client_min_messages = warning;
SET synchronous_commit = on;
";

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
        "No such file or directory",
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
        "No space left on device",
        "the server's disk is full",
        "free space there: a restore needs room for a second copy",
    ),
    (
        "unrecognized configuration parameter",
        "the tools are newer than the server",
        "set [databases.{name}] tools_dir to the tools of the server's version",
    ),
];

/// Whether a tool says that a role is missing. Roles belong to the server, so they are not in the dump of a database.
pub fn misses_role(error: &Error) -> Option<&str> {
    error.tail.iter().find_map(|line| {
        let (_, after) = line.split_once("role \"")?;
        after.split_once("\" does not exist").map(|(role, _)| role)
    })
}

/// Whether the tool says that `database` is not there.
pub fn misses_database(error: &Error) -> bool {
    error.tail.iter().any(|line| line.contains("database \"") && line.ends_with("does not exist"))
}

/// The version that `--version` prints, and its major part.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let (_, version) = text.lines().next()?.split_once(") ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.trim().to_owned(), digits.parse().ok()?))
}

/// The same world, deaf to signals, with a little time of its own: what must be cleaned up is cleaned up, though a
/// signal has come or the job's time is over.
pub fn for_cleanup(cx: &Cx) -> Cx {
    let world = World { cancel: Cancel::default(), ..cx.world.clone() };
    let deadline = Some(world.clock.monotonic() + CLEANUP);
    Cx { world, deadline, report: cx.report.clone(), data_dir: cx.data_dir.clone() }
}
