//! Databases found as containers. Flows in: a database's name. Flows out: its engine and how it is reached, from what
//! Docker or Podman says of the container `voxeltron-db-NAME`. Touches `docker inspect`, and a password's file in the
//! container.
//!
//! [`image`] tells the engine, [`settings`] user, password and database, by what each engine says of its images. Both are pure.

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use self::settings::Password;
use crate::app::toml_key;
use crate::engine::image::Inside;
use crate::engine::{Cx, EngineKind, Settings};
use crate::error::{Error, Kind, Result};
use crate::process::{self, Invocation};
use crate::secret::{MAX_SECRET_BYTES, Secret};

pub mod image;
pub mod settings;

/// How long the look at a container may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// What is asked, in this order.
const RUNTIMES: [&str; 2] = ["docker", "podman"];

/// The container of a database of Voxeltron's.
pub fn name_of(database: &str) -> String {
    format!("voxeltron-db-{database}")
}

/// What Docker and Podman say of a container, as far as it matters. Its environment holds passwords.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    state: State,
    config: Config,
    #[serde(default)]
    args: Option<Vec<String>>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Container({})", self.config.image)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    restarting: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: String,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
}

impl Container {
    /// Reads what `inspect` prints.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it is not that; the text is never shown.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let parsed: Result<Vec<Self>, _> = serde_json::from_slice(json);
        parsed.ok().and_then(|mut found| found.pop()).ok_or_else(|| {
            Error::new(Kind::Tool, "what inspect says of it can't be read").hint("look at what docker inspect prints")
        })
    }

    fn inside(&self) -> Inside<'_> {
        Inside::new(self.config.env.as_deref().unwrap_or_default(), self.words())
    }

    /// The words of the server's command line; those of a shell's script one by one.
    fn words(&self) -> Vec<&str> {
        let given = self.args.as_ref().filter(|args| !args.is_empty()).or(self.config.cmd.as_ref());
        let mut script = false;
        let mut words = Vec::new();
        for word in given.into_iter().flatten() {
            match script {
                true => words.extend(word.split_whitespace()),
                false => words.push(word.as_str()),
            }
            script = word == "-c";
        }
        words
    }

    fn check_state(&self, name: &str, runtime: &str) -> Result<()> {
        let fail = |why: &str, verb: &str| {
            Err(Error::new(Kind::Tool, format!("container {name} {why}")).hint(format!("{runtime} {verb} {name}")))
        };
        match &self.state {
            State { paused: true, .. } => fail("is paused", "unpause"),
            State { restarting: true, .. } => fail("starts again and again", "logs"),
            State { running: false, .. } => fail("is not running", "start"),
            _ => Ok(()),
        }
    }
}

/// Finds a database's container, and how it is reached. A `password` from the configuration wins.
///
/// # Errors
/// [`Kind::Config`] when there is no such container, or its image is unknown;
/// [`Kind::Tool`] when it is not running or can't be asked.
pub fn find(database: &str, password: Option<Secret>, cx: &Cx) -> Result<(&'static EngineKind, Settings)> {
    let soon = cx.world.clock.monotonic().saturating_add(TIMEOUT);
    let cx = Cx { deadline: Some(cx.deadline.map_or(soon, |deadline| deadline.min(soon))), ..cx.clone() };
    let name = name_of(database);
    let (runtime, container) = inspect(&name, &cx)?;
    container.check_state(&name, runtime)?;
    let table = format!("add [databases.{}] with engine, url and, to run its tools inside, exec", toml_key(database));
    let found = settings::of(&container, database).map_err(|error| error.while_doing(&name).hint(&table))?;
    let exec = [runtime, "exec", "-i", &name].map(str::to_owned).to_vec();
    let password = match (password, found.password) {
        (Some(given), _) => Some(given),
        (None, Some(Password::Text(text))) => Some(text),
        (None, Some(Password::File(path))) => Some(read_file(&path, &exec, &cx)?),
        (None, None) => None,
    };
    Ok((found.engine, Settings { password, exec, ..Settings::new(database, found.url) }))
}

/// What the first of the two that knows it says of the container.
fn inspect(name: &str, cx: &Cx) -> Result<(&'static str, Container)> {
    let path = cx.world.vars.get("PATH").unwrap_or_default();
    let there = |program: &str| std::env::split_paths(path).any(|folder| folder.join(program).is_file());
    let mut failures = Vec::new();
    for runtime in RUNTIMES.into_iter().filter(|program| there(program)) {
        let call = Invocation::new(runtime).args(["inspect", "--type", "container", name]);
        cx.report.detail(&call.display());
        match process::run(&call, b"", cx.deadline, &cx.world).map(Zeroizing::new) {
            Ok(json) => return Ok((runtime, Container::parse(&json).map_err(|error| error.while_doing(name))?)),
            Err(error) if error.is_stopped() => return Err(error),
            Err(error) => failures.push((runtime, error)),
        }
    }
    if failures.is_empty() {
        return Err(Error::new(Kind::Config, format!("there is no docker and no podman to find container {name} by"))
            .hint("add the table with engine and url, or put docker on the path"));
    }
    let unknown = |(_, error): &(&str, Error)| {
        let said = error.tail.join("\n").to_lowercase();
        said.contains("no such container") || said.contains("no such object")
    };
    let hint = "add the table with engine and url, or start the container";
    if failures.iter().all(unknown) {
        let asked: Vec<&str> = failures.iter().map(|(runtime, _)| *runtime).collect();
        let why = format!("there is no container {name}, says {}", asked.join(", says "));
        return Err(Error::new(Kind::Config, why).hint(hint));
    }
    let why = |(runtime, error): &(&str, Error)| {
        format!("{runtime}: {}", error.tail.last().map_or(error.message.as_str(), String::as_str))
    };
    let said: Vec<String> = failures.iter().map(why).collect();
    Err(Error::new(Kind::Tool, format!("can't look for container {name}: {}", said.join("; ")))
        .hint("start docker, run this as root, or add the table with engine and url"))
}

/// A secret's file in the container.
fn read_file(path: &str, exec: &[String], cx: &Cx) -> Result<Secret> {
    let call = Invocation::new("cat").args(["--", path]).through(exec);
    let bytes = process::run(&call, b"", cx.deadline, &cx.world).map(Zeroizing::new)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= MAX_SECRET_BYTES);
    // As the images' own scripts take it.
    let text = text.map(|text| text.trim_end_matches('\n')).filter(|text| !text.is_empty());
    text.map(Secret::new).ok_or_else(|| Error::new(Kind::Config, format!("{path} in the container holds no password")))
}
