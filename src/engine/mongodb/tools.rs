//! MongoDB's own tools. Flows in: a database's settings. Flows out: the argument list of every tool as a value, the answers
//! of the shell, and errors that name the mend. Touches the tools, through [`crate::process`].
//!
//! mongodump and mongorestore read the password as the first line of their standard input, as they do for a person. The
//! shell gets it in its environment, and what it is to do on its standard input. So all of it also works where the tools
//! run elsewhere, with neither our environment nor our files.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::reasons;
use super::url::Place;
use crate::engine::tools::{self, Toolbox};
use crate::engine::{Cx, Settings};
use crate::error::{Error, Kind, Result};
use crate::process::{self, Invocation};
use crate::secret::Secret;

/// How long cleaning up and exchanging may take after a failure, a signal or a passed deadline.
const CLEANUP: Duration = Duration::from_secs(120);
/// What begins the names of everything that a restore makes; never part of a dump.
pub const OURS: &str = "__restoring_";
/// What the shell can do for us.
const SCRIPT: &str = include_str!("ask.js");
/// What begins the line that is the script's answer.
const ANSWER: &str = "voxeltron-answer:";
/// How the script gets to the shell.
const READ_SCRIPT: &str = "load(\"/dev/stdin\")";

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
    ///
    /// # Errors
    /// [`Kind::Config`] when the tools can't be given the password.
    pub fn new(settings: &Settings, place: Place) -> Result<Self> {
        let password = settings.password.clone().or_else(|| place.password.clone());
        place.check_password(password.as_ref())?;
        Ok(Self { toolbox: Toolbox::new(settings), password, place })
    }

    /// The same tools for a restore, which decides by what it reads: where a dump may be taken from a secondary, that could
    /// show what is older than what was just written.
    pub fn for_restore(&self) -> Self {
        Self { place: self.place.at_primary(), ..self.clone() }
    }

    fn tool(&self, name: &str) -> Invocation {
        let mut call = self.toolbox.call(name).args([format!("--uri={}", self.place.uri(true))]);
        if let Some(seconds) = self.place.selection_seconds() {
            call = call.args([format!("--serverSelectionTimeout={seconds}")]);
        }
        match self.place.wants_password() {
            true => call.first_line(self.password.clone().unwrap_or_default()),
            false => call,
        }
    }

    /// Dumps the database to its standard output.
    pub fn dump(&self) -> Invocation {
        self.tool("mongodump")
            .args([format!("--db={}", self.place.database), "--archive".to_owned()])
            .args([format!("--excludeCollectionsWithPrefix={OURS}")])
            .args(&self.toolbox.dump_args)
    }

    /// Loads an archive of the database `from` into `to`, whose collections get `prefix` before their names; `without`
    /// those that can't be made so. To older tools a pattern's `*` stands for one line alone, and what no pattern fits is
    /// left out: the names of `lines` are given as they are, and the last pattern that fits wins. A database in the URL's
    /// path would leave all others out, also `from`, unless that is named.
    pub fn load(&self, from: &str, to: &str, prefix: &str, without: &[&str], lines: &[&str]) -> Invocation {
        let named = |name: &&str| {
            let (from, to, name) = (pattern(from), pattern(to), pattern(name));
            [
                format!("--nsInclude={from}.{name}"),
                format!("--nsFrom={from}.{name}"),
                format!("--nsTo={to}.{prefix}{name}"),
            ]
        };
        let others = Some(format!("--nsInclude={}.*", pattern(from)))
            .filter(|_| !lines.is_empty() || self.place.names_database());
        let excluded = without.iter().map(|name| format!("--nsExclude={}.{}", pattern(from), pattern(name)));
        self.tool("mongorestore")
            .args(["--archive", "--stopOnError"])
            .args([format!("--nsFrom={}.*", pattern(from)), format!("--nsTo={}.{prefix}*", pattern(to))])
            .args(others)
            .args(lines.iter().flat_map(named))
            .args(excluded)
            .args(&self.toolbox.restore_args)
    }

    /// The shell, which reads what it is to do.
    pub fn shell(&self) -> Invocation {
        let call = self.toolbox.call("mongosh").args(["--quiet", "--norc", "--nodb", "--eval", READ_SCRIPT]);
        match (&self.password, self.place.wants_password()) {
            (Some(password), true) => call.env("VOXELTRON_MONGODB_PASSWORD", password.clone()),
            _ => call,
        }
    }

    /// Has the shell do what `request` says, and gives its answer.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't, with the mend.
    pub fn ask<T: DeserializeOwned>(&self, request: Value, cx: &Cx) -> Result<T> {
        self.ask_with(request, "", cx)
    }

    /// What an expression of the user's gives, in which `db` is that database, as text.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn answer(&self, database: &str, expression: &str, cx: &Cx) -> Result<String> {
        // Part of the script, since only there the shell waits for what its own methods promise.
        let expression = expression.trim_end().trim_end_matches(';');
        let check = format!("const check = (db) => (\n{expression}\n);\n");
        self.ask_with(json!({ "action": "check", "database": database }), &check, cx)
    }

    fn ask_with<T: DeserializeOwned>(&self, request: Value, more: &str, cx: &Cx) -> Result<T> {
        let uri = Value::from(self.place.uri(false));
        let script = format!("const uri = {uri};\nconst request = {request};\n{more}{SCRIPT}");
        let call = self.shell();
        let answer =
            process::run(&call, script.as_bytes(), cx.deadline, &cx.world).map_err(|error| self.explain(error))?;
        let text = String::from_utf8_lossy(&answer);
        let answer = text.lines().rev().find_map(|line| line.strip_prefix(ANSWER));
        let Some(answer) = answer else {
            // The shell may end with status 0 after an error, which then stands where the answer would.
            let said = text.lines().rev().take(5).map(str::to_owned).collect::<Vec<_>>().into_iter().rev().collect();
            return Err(self.explain(Error::new(Kind::Tool, "mongosh gave no answer").tail(said)));
        };
        serde_json::from_str(answer)
            .map_err(|error| Error::new(Kind::Tool, format!("mongosh gave an answer that can't be read: {error}")))
    }

    /// The version of a tool.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it isn't there or does not say.
    pub fn version(&self, tool: &str, cx: &Cx) -> Result<String> {
        let printed = process::run(&self.toolbox.call(tool).args(["--version"]), b"", cx.deadline, &cx.world)?;
        let text = String::from_utf8_lossy(&printed);
        let version = text.lines().next().and_then(|line| line.rsplit_once("version: "));
        match version {
            Some((_, version)) => Ok(version.trim().to_owned()),
            None => Err(Error::new(Kind::Tool, format!("{tool} does not say its version"))),
        }
    }

    /// Adds the reason and the mend to a tool's failure.
    pub fn explain(&self, error: Error) -> Error {
        reasons::explain(error, &self.place, &self.toolbox.configured)
    }
}

/// The same context for what must be finished or cleaned up.
pub fn for_cleanup(cx: &Cx) -> Cx {
    tools::for_cleanup(cx, CLEANUP)
}

/// A name as a pattern of namespaces that means it alone.
fn pattern(name: &str) -> String {
    name.replace('\\', r"\\").replace('*', r"\*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_an_argument() {
        let url = Secret::new("mongodb://u:canary@h/d?authSource=admin&serverSelectionTimeoutMS=2000");
        let place = Place::parse(&url).unwrap();
        let tools = Tools::new(&Settings::new("x", url), place).unwrap();
        let load = tools.load("a*b", "d", "__restoring_0_", &["v*"], &["x\n*"]);
        assert_eq!(
            load.args.join(" "),
            "--uri=mongodb://u@h/?authSource=admin --serverSelectionTimeout=2 --archive --stopOnError --nsFrom=a\\*b.* \
             --nsTo=d.__restoring_0_* --nsInclude=a\\*b.* --nsInclude=a\\*b.x\n\\* \
             --nsFrom=a\\*b.x\n\\* --nsTo=d.__restoring_0_x\n\\* --nsExclude=a\\*b.v\\*"
        );
        assert_eq!(load.first_line.as_ref().map(Secret::expose), Some("canary"));
        assert_eq!(
            tools.dump().args.get(2..).unwrap(),
            ["--db=d", "--archive", "--excludeCollectionsWithPrefix=__restoring_"]
        );
        for call in [load, tools.dump(), tools.shell()] {
            assert!(!format!("{} {:?}", call.display(), call.args).contains("canary"));
        }
    }
}
