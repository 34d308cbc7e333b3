//! A call of a tool, and its start. Flows in: words, variables, secrets. Flows out: the same as a value that can be shown,
//! and a child. Touches the child that it starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::exec::{self, Elsewhere};
use super::running::Running;
use super::tail::Tail;
use crate::error::{Error, Kind, Result, io_reason};
use crate::secret::Secret;
use crate::world::World;

/// What to start: words, and environment variables whose values nobody prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The program's name or path.
    pub program: String,
    /// Its arguments. They show in the process list, so no secret may stand here.
    pub args: Vec<String>,
    /// Variables set for this child alone; their values are shown nowhere.
    pub env: Vec<(String, Secret)>,
    /// Variables set for this child alone that are no secrets.
    pub vars: Vec<(String, String)>,
    /// Words put before it, so that it runs elsewhere; none: it runs here.
    pub exec: Vec<String>,
    /// What it reads from its standard input before everything else: a line with a secret.
    pub first_line: Option<Secret>,
}

impl Invocation {
    /// A call of `program` without arguments.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            vars: Vec::new(),
            exec: Vec::new(),
            first_line: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable that is no secret in the child's environment.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a secret variable in the child's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: Secret) -> Self {
        self.env.push((name.to_owned(), value));
        self
    }

    /// Runs it by these words, where neither our environment nor our files are.
    #[must_use]
    pub fn through(mut self, exec: &[String]) -> Self {
        self.exec = exec.to_vec();
        self
    }

    /// Gives it a secret as the first line of its standard input, for a tool that asks for its password there.
    #[must_use]
    pub fn first_line(mut self, secret: Secret) -> Self {
        self.first_line = Some(secret);
        self
    }

    /// The command line as a shell would take it; values of secret variables are left out.
    pub fn display(&self) -> String {
        let mut words: Vec<String> = self.exec.iter().map(|word| quote(word)).collect();
        words.extend(self.vars.iter().map(|(name, value)| format!("{name}={}", quote(value))));
        words.extend(self.env.iter().map(|(name, _)| format!("{name}=…")));
        words.extend(std::iter::once(&self.program).chain(&self.args).map(|word| quote(word)));
        words.join(" ")
    }

    /// The program's name without its folder, for messages.
    pub fn name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or(&self.program)
    }

    fn command(&self, world: &World, mode: Mode) -> Command {
        let words = exec::words(self, mode);
        let mut words = words.iter();
        let mut command = Command::new(words.next().unwrap_or(&self.program));
        command.args(words).env_clear().process_group(0).stderr(Stdio::piped());
        command.envs(world.vars.for_children());
        // Elsewhere nothing of this environment exists; and here the words that lead there need none of it.
        if self.exec.is_empty() {
            command.envs(self.vars.iter().map(|(name, value)| (name, value)));
            command.envs(self.env.iter().map(|(name, value)| (name, value.expose())));
        }
        command
    }

    /// Starts it, for what it will do with its standard input, and gives it what comes before everything else.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be started; [`Kind::Config`] when a secret can't cross to where it runs.
    pub(super) fn spawn(&self, world: &World, mode: Mode) -> Result<Running> {
        let token = if self.exec.is_empty() { None } else { Some(world.random_hex(16)?) };
        let opening = exec::opening(self, mode, token.as_deref())?;
        let stdin = if mode == Mode::Dump && opening.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut child = self
            .command(world, mode)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let tail = Tail::of(child.stderr.take(), token);
        let secrets = self.env.iter().map(|(_, value)| value).chain(&self.first_line).cloned().collect();
        let mut running = Running {
            name: self.name().to_owned(),
            child,
            stdin,
            stdout,
            tail,
            secrets,
            reaped: false,
            holds: mode == Mode::Dump && !self.exec.is_empty(),
            elsewhere: Elsewhere::of(self),
            world: world.clone(),
        };
        running.open(&opening)?;
        if mode == Mode::Dump && !running.holds {
            running.stdin = None;
        }
        Ok(running)
    }

    fn not_started(&self, error: &io::Error) -> Error {
        let program = self.exec.first().unwrap_or(&self.program);
        let failure = Error::new(Kind::Tool, format!("can't start {program}: {}", io_reason(error)));
        match (error.kind(), self.exec.is_empty()) {
            (io::ErrorKind::NotFound, true) => {
                failure.hint(format!("install {}, or say where it is (tools_dir, for a database's tools)", self.name()))
            }
            (io::ErrorKind::NotFound, false) => {
                failure.hint(format!("install {program}, or mend exec, which begins with it"))
            }
            _ => failure,
        }
    }
}

/// What a child does with its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing, or one line with a secret.
    Dump,
    /// It takes all that we have for it.
    Input,
}

pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
