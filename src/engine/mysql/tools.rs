//! MySQL's and MariaDB's own tools. Flows in: a database's settings. Flows out: the argument list of every tool as a
//! value, the answers of the client, and errors that name the mend. Touches the tools, through [`crate::process`], and
//! looks for them on the path.
//!
//! The password goes into the environment of a child alone (`MYSQL_PWD`): no file, no argument.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::reasons;
use super::url::Place;
use crate::engine::tools::{self, Toolbox};
use crate::engine::{Cx, Settings};
use crate::error::{Error, Kind, Result};
use crate::process::{self, Invocation};
use crate::secret::Secret;

/// How long cleaning up may take after a failure, a signal or a passed deadline.
const CLEANUP: Duration = Duration::from_secs(60);
/// The largest row that is taken.
const PACKET: &str = "--max-allowed-packet=1G";

/// Whose server or tool it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Family {
    /// By what a server says its version is.
    pub fn of_server(version: &str) -> Self {
        if version.to_ascii_lowercase().contains("mariadb") { Self::MariaDb } else { Self::MySql }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }

    /// What its dump tool may be called; its own name first.
    pub fn dump_tools(self) -> &'static [&'static str] {
        match self {
            Self::MySql => &["mysqldump"],
            Self::MariaDb => &["mariadb-dump", "mysqldump"],
        }
    }
}

/// A tool that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its path or name.
    pub program: String,
    /// Whose it is.
    pub family: Family,
    /// Its version, as it says.
    pub version: String,
}

/// How the tools of one database are called.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where the database is.
    pub place: Place,
    /// How they are called.
    pub toolbox: Toolbox,
    password: Option<Secret>,
}

impl Tools {
    /// From a database's settings.
    pub fn new(settings: Settings, place: Place) -> Self {
        let toolbox = Toolbox::new(&settings);
        Self { password: settings.password.or_else(|| place.password.clone()), place, toolbox }
    }

    /// Asks the first of these tools that is there for its version.
    ///
    /// # Errors
    /// [`Kind::Tool`] when none is there or it doesn't say.
    pub fn tool(&self, names: &[&str], cx: &Cx) -> Result<Tool> {
        let program = self.toolbox.find(names, cx)?;
        let call = self.toolbox.call(&program).args(["--version"]);
        let output = process::run(&call, b"", cx.deadline, &cx.world)?;
        let text = String::from_utf8_lossy(&output).into_owned();
        let version = parse_version(&text).ok_or_else(|| {
            Error::new(Kind::Tool, format!("{program} --version does not name its version"))
                .hint(format!("look at what {} prints", call.display()))
        })?;
        Ok(Tool { program, family: Family::of_server(&text), version })
    }

    /// The client.
    ///
    /// # Errors
    /// [`Kind::Tool`] when none is there.
    pub fn client(&self, cx: &Cx) -> Result<Tool> {
        self.tool(&["mariadb", "mysql"], cx)
    }

    /// The dump tool for a server of this family.
    ///
    /// # Errors
    /// [`Kind::Tool`] when none is there.
    pub fn dump_tool(&self, family: Family, cx: &Cx) -> Result<Tool> {
        self.tool(family.dump_tools(), cx)
    }

    /// A call that reaches the server. Nobody's option file has a say in what a backup is; messages come in English,
    /// for hints are found by them.
    fn reaching(&self, tool: &Tool) -> Invocation {
        let call = self
            .toolbox
            .call(&tool.program)
            .args(["--no-defaults"])
            .args(self.place.options(tool.family))
            .var("LC_ALL", "C");
        match &self.password {
            Some(password) => call.env("MYSQL_PWD", password.clone()),
            None => call,
        }
    }

    /// The dump: one snapshot of one schema, without a statement that names it.
    pub fn dump(&self, tool: &Tool) -> Invocation {
        let mysql: &[&str] = match tool.family {
            Family::MySql if major(&tool.version) >= 8 => &["--set-gtid-purged=OFF", "--column-statistics=0"],
            Family::MySql => &["--set-gtid-purged=OFF"],
            Family::MariaDb => &[],
        };
        self.reaching(tool)
            .args(["--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob"])
            .args(["--no-tablespaces", "--default-character-set=utf8mb4", PACKET])
            .args(mysql)
            .args(&self.toolbox.dump_args)
            .args(["--", &self.place.database])
    }

    /// SQL from standard input: a dump, or ours. Only statements are taken, no commands of the client; comments stay in
    /// the bodies of routines.
    pub fn sql(&self, tool: &Tool, schema: Option<&str>) -> Invocation {
        let call = self
            .reaching(tool)
            .args(["--batch", "--raw", "--skip-column-names", "--binary-mode", "--comments"])
            .args(["--default-character-set=utf8mb4", PACKET])
            .args(&self.toolbox.restore_args);
        match schema {
            Some(schema) => call.args([format!("--database={schema}")]),
            None => call,
        }
    }

    /// Runs SQL and gives its output.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn run(&self, tool: &Tool, schema: Option<&str>, sql: &[u8], cx: &Cx) -> Result<String> {
        let call = self.sql(tool, schema);
        cx.report.detail(&call.display());
        let script = [PREAMBLE.as_bytes(), sql].concat();
        let output = process::run(&call, &script, cx.deadline, &cx.world).map_err(|error| self.explain(error))?;
        String::from_utf8(output)
            .map_err(|_| Error::new(Kind::Tool, format!("{} did not answer in UTF-8", call.name())))
    }

    /// The rows that a query of the user's gives, as the client prints them; its transaction can't write.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn answer(&self, tool: &Tool, schema: &str, query: &str, cx: &Cx) -> Result<String> {
        // What the line ends with may be a comment or the end of the statement, or not.
        let sql = format!("SET SESSION sql_mode = DEFAULT;\nSTART TRANSACTION READ ONLY;\n{query}\n;\nROLLBACK;\n");
        self.run(tool, Some(schema), sql.as_bytes(), cx)
    }

    /// Runs SQL whose rows are JSON values, one a line.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn rows<T: DeserializeOwned>(&self, tool: &Tool, sql: &str, cx: &Cx) -> Result<Vec<T>> {
        let output = self.run(tool, None, sql.as_bytes(), cx)?;
        output
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|error| Error::new(Kind::Tool, format!("the server's answer can't be read: {error}")))
            })
            .collect()
    }

    /// Adds the mend to a tool's failure, as far as its last words give it away.
    pub fn explain(&self, error: Error) -> Error {
        reasons::explain(error, &self.place, &self.toolbox.configured)
    }
}

/// What every script of ours starts with: quotes mean what they say, and nothing is cut short. Each family passes over
/// what is the other's.
const PREAMBLE: &str = "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', SESSION autocommit = 1;
SET SESSION lock_wait_timeout = 60, SESSION foreign_key_checks = 0, SESSION group_concat_max_len = 1073741824;
/*M!100100 SET SESSION max_statement_time = 0 */; /*!50708 SET SESSION max_execution_time = 0 */;
";

/// The version that `--version` prints.
fn parse_version(text: &str) -> Option<String> {
    let line = text.lines().next()?;
    let (_, rest) = [" Distrib ", " from ", " Ver "].iter().find_map(|mark| line.split_once(mark))?;
    let version: String = rest.trim().chars().take_while(|c| !c.is_whitespace() && *c != ',').collect();
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(version)
}

/// The first number of a version.
pub fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

/// Whether a version is before `major.minor`.
pub fn is_before(version: &str, (wanted, minor): (u32, u32)) -> bool {
    let second = version.split_once('.').map_or(0, |(_, rest)| major(rest));
    (major(version), second) < (wanted, minor)
}

/// A context for finishing or cleaning up.
pub fn for_cleanup(cx: &Cx) -> Cx {
    tools::for_cleanup(cx, CLEANUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        let settings = Settings {
            dump_args: vec!["--ignore-table=a.b".into()],
            restore_args: vec!["--compress".into()],
            ..Settings::new("mydb", Secret::new("mysql://u:canary@h:3307/my%20db"))
        };
        let place = Place::parse(&settings.url).unwrap();
        Tools::new(settings, place)
    }

    fn tool(family: Family, version: &str) -> Tool {
        Tool { program: "t".into(), family, version: version.into() }
    }

    #[test]
    fn argument_lists() {
        let common = "LC_ALL=C MYSQL_PWD=… t --no-defaults --protocol=tcp --host=h --port=3307 --user=u ";
        let dump = "--single-transaction --quick --routines --events --triggers --hex-blob --no-tablespaces \
                    --default-character-set=utf8mb4 --max-allowed-packet=1G";
        let tools = tools();
        assert_eq!(
            tools.dump(&tool(Family::MariaDb, "10.11")).display(),
            format!("{common}{dump} --ignore-table=a.b -- 'my db'")
        );
        assert_eq!(
            tools.dump(&tool(Family::MySql, "9.7.0")).display(),
            format!("{common}{dump} --set-gtid-purged=OFF --column-statistics=0 --ignore-table=a.b -- 'my db'")
        );
        assert_eq!(
            tools.sql(&tool(Family::MySql, "9.7.0"), Some("s")).display(),
            format!(
                "{common}--batch --raw --skip-column-names --binary-mode --comments --default-character-set=utf8mb4 \
                 --max-allowed-packet=1G --compress --database=s"
            )
        );
    }

    #[test]
    fn the_password_is_in_the_environment_alone() {
        let tool = tool(Family::MySql, "9");
        for call in [tools().dump(&tool), tools().sql(&tool, None)] {
            assert!(!format!("{call:?} {}", call.display()).contains("canary"), "{call:?}");
            assert!(call.env.iter().any(|(name, value)| name == "MYSQL_PWD" && value.expose() == "canary"));
        }
    }

    #[test]
    fn versions() {
        let table = [
            ("mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)", "10.11.19-MariaDB"),
            ("mariadb from 11.8.3-MariaDB, client 15.2 for debian-linux-gnu (x86_64)", "11.8.3-MariaDB"),
            ("mysqldump  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", "9.7.4-2"),
            ("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", "5.7.44"),
        ];
        for (text, version) in table {
            assert_eq!(parse_version(text).as_deref(), Some(version));
        }
        assert_eq!(parse_version("nonsense"), None);
        assert_eq!(major("10.11.19-MariaDB"), 10);
        for (version, before) in [("9.1.0", true), ("8.4.6", true), ("9.2.0", false), ("9.10.1", false), ("10", false)]
        {
            assert_eq!(is_before(version, (9, 2)), before, "{version}");
        }
    }
}
