//! PostgreSQL's own tools. Flows in: a database's settings. Flows out: the argument list of every tool as a value, the
//! answers of `psql`, and errors that name the mend. Touches the tools, through [`crate::process`], and looks into the
//! folders where other versions of them may be.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::args;
use super::reasons;
use super::sql::literal;
use super::url::Place;
use crate::engine::tools::{self, Toolbox};
use crate::engine::{Cx, Settings};
use crate::error::{Error, Kind, Result};
use crate::process::{self, Invocation};
use crate::secret::Secret;

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
    /// How they are called.
    pub toolbox: Toolbox,
    /// Whether the server is another one than the live database's.
    pub elsewhere: bool,
    password: Option<Secret>,
}

impl Tools {
    /// From a database's settings.
    pub fn new(settings: Settings, place: Place) -> Self {
        let toolbox = Toolbox::new(&settings);
        let elsewhere = settings.elsewhere;
        Self { password: settings.password.or_else(|| place.password.clone()), place, toolbox, elsewhere }
    }

    /// A call that reaches the server. The password goes into this child's environment and nowhere else; messages come
    /// in English, for hints are found by them.
    fn reaching(&self, tool: &str) -> Invocation {
        let call = self.toolbox.call(tool).args(["--no-password"]).env("LC_ALL", Secret::new("C"));
        match &self.password {
            Some(password) => call.env("PGPASSWORD", password.clone()),
            None => call,
        }
    }

    /// The dump. No compression: the pipeline has its own.
    pub fn dump(&self) -> Invocation {
        self.reaching("pg_dump")
            .args(["--format=custom", "--compress=0", LOCK_WAIT])
            .args(&self.toolbox.dump_args)
            .args([format!("--dbname={}", self.place.conninfo(&self.place.database, &[]))])
    }

    /// The load of a dump from standard input into `database`.
    pub fn load(&self, database: &str) -> Invocation {
        self.reaching("pg_restore")
            .args(["--exit-on-error"])
            .args(&self.toolbox.restore_args)
            .args([format!("--dbname={}", self.place.conninfo(database, self.place.for_writing()))])
    }

    /// The load of a dump that is in a file, so many parts of it at once.
    pub fn load_file(&self, database: &str, file: &str, jobs: u16) -> Invocation {
        self.load(database).args([format!("--jobs={jobs}"), file.to_owned()])
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
        !self.toolbox.restore_args.iter().any(|arg| arg == "--no-owner" || arg == "-O")
    }

    /// The option in `dump_args` that makes this database's dumps a part of it.
    pub fn dumps_a_part(&self) -> Option<&'static str> {
        args::selects(&self.toolbox.dump_args)
    }

    /// The version of a tool.
    pub fn version_of(&self, tool: &str) -> Invocation {
        self.toolbox.call(tool).args(["--version"])
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

    /// The rows that a query of the user's gives, as `psql` prints them; its transaction can't write. It goes to the server
    /// as it is, so that no command of `psql`'s can hide in it, and names mean what they do in a new session.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn answer(&self, database: &str, query: &str, cx: &Cx) -> Result<String> {
        let query = literal(query);
        let sql = format!("RESET search_path;\nSET default_transaction_read_only = on;\nSELECT {query}\\gexec\n");
        self.run_sql(database, &sql, cx)
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

    /// Adds the mend to a tool's failure in `database`, as far as its last words give it away.
    pub fn explain(&self, error: Error, database: &str) -> Error {
        reasons::explain(error, &self.place, &self.toolbox.configured, database)
    }

    /// What to do about tools of the wrong version: names a folder with better ones, if there is one.
    pub fn version_hint(&self, fits: impl Fn(u32) -> bool, wanted: u32) -> String {
        let name = &self.toolbox.configured;
        if self.toolbox.runs_elsewhere() {
            return format!(
                "set [databases.{name}] tools_dir to a folder with the tools of PostgreSQL {wanted} where its exec leads, or \
                 leave exec out and use tools of this host"
            );
        }
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
pub const PREAMBLE: &str = "SET search_path = pg_catalog;
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET default_transaction_read_only = off;
SET row_security = off;
SET client_min_messages = warning;
SET synchronous_commit = on;
";

/// The version that `--version` prints, and its major part.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let (_, version) = text.lines().next()?.split_once(") ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.trim().to_owned(), digits.parse().ok()?))
}

/// A context for cleaning up.
pub fn for_cleanup(cx: &Cx) -> Cx {
    tools::for_cleanup(cx, CLEANUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(url: &str) -> Tools {
        let settings = Settings {
            tools_dir: Some("/opt/pg/bin".into()),
            dump_args: vec!["--exclude-table-data=logs".into()],
            restore_args: vec!["--no-owner".into()],
            ..Settings::new("mydb", Secret::new(url))
        };
        let place = Place::parse(&settings.url).unwrap();
        Tools::new(settings, place)
    }

    const URL: &str = "postgres://u:canary@h:5433/My%20%27db%27?sslmode=require";
    const REST: &str = "connect_timeout='30' host='h' port='5433' sslmode='require' user='u'";

    #[test]
    fn argument_lists() {
        let tools = tools(URL);
        let dump = tools.dump();
        assert_eq!(dump.program, "/opt/pg/bin/pg_dump");
        assert_eq!(
            dump.args,
            [
                "--no-password",
                "--format=custom",
                "--compress=0",
                "--lock-wait-timeout=60s",
                "--exclude-table-data=logs",
                &format!(r"--dbname=dbname='My \'db\'' {REST}"),
            ]
        );
        let load = tools.load("s");
        assert_eq!(load.program, "/opt/pg/bin/pg_restore");
        assert_eq!(
            load.args,
            ["--no-password", "--exit-on-error", "--no-owner", &format!("--dbname=dbname='s' {REST}")]
        );
        let sql = tools.sql("postgres", true);
        assert_eq!(sql.program, "/opt/pg/bin/psql");
        assert_eq!(
            sql.args,
            [
                "--no-password",
                "--no-psqlrc",
                "--quiet",
                "--no-align",
                "--tuples-only",
                "--set=ON_ERROR_STOP=1",
                &format!("--dbname=dbname='postgres' client_encoding='UTF8' {REST}"),
            ]
        );
        assert_eq!(tools.version_of("pg_dump").args, ["--version"]);
    }

    #[test]
    fn the_password_is_in_the_environment_alone() {
        let given = tools(URL);
        for call in [given.dump(), given.load("s"), given.sql("s", false)] {
            assert!(!format!("{call:?} {}", call.display()).contains("canary"), "{call:?}");
            assert!(call.env.iter().any(|(name, value)| name == "PGPASSWORD" && value.expose() == "canary"));
        }
        assert!(given.version_of("psql").env.is_empty());
        let bare = tools("postgres://u@h/d");
        assert!(!bare.dump().env.iter().any(|(name, _)| name == "PGPASSWORD"), "libpq looks for one itself");
    }

    #[test]
    fn several_servers() {
        let tools = tools("postgres://u@a,b/d");
        let asks = |call: Invocation| call.display().contains("target_session_attrs=");
        assert!(!asks(tools.dump()) && !asks(tools.sql("s", false)), "a replica can be read");
        assert!(asks(tools.load("s")) && asks(tools.sql("s", true)));
    }

    #[test]
    fn versions() {
        let parse = |text| parse_version(text).map(|(_, major)| major);
        assert_eq!(parse("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse("pg_dump (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse("pg_dump (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(parse("pg_dump"), None);
        assert_eq!(parse(""), None);
    }
}
