//! Tools that run elsewhere, by words such as `docker exec -i NAME`. Flows in: a call. Flows out: the words that start it,
//! what goes before its input, and what its end means. Touches the place where it runs, to stop a tool there.
//!
//! Neither our environment nor our files are there, and a signal to what leads there stays here. So a small shell goes
//! before the tool: it takes the variables from its standard input, says the tool's process number on standard error, and
//! ends a dump when its input ends. What reads its input is stopped by a second call.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use zeroize::Zeroizing;

use super::call::{Invocation, Mode, quote};
use super::running::describe;
use super::tail::{Mark, Tail};
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// The shell's script.
const INSIDE: &str = include_str!("inside.sh");
/// What stops a tool: it alone, for what it leaves behind would fall to the container's first process.
const KILL: &str = "kill -s \"$1\" \"$2\"";
/// How much goes before the input, in bytes: an empty pipe takes it at once.
const OPENING_BYTES: usize = 48 * 1024;
/// How long a second call may take, and how long is waited for the first one's mark.
const PATIENCE: Duration = Duration::from_secs(3);
/// The shell's status when nothing comes on its standard input.
const NO_INPUT: i32 = 121;

/// The words that start a call.
pub(super) fn words(call: &Invocation, mode: Mode) -> Vec<String> {
    let mut words = call.exec.clone();
    if !words.is_empty() {
        let mode = if mode == Mode::Dump { "dump" } else { "input" };
        words.extend(["sh", "-c", INSIDE, "sh", mode].map(str::to_owned));
    }
    words.push(call.program.clone());
    words.extend(call.args.iter().cloned());
    words
}

/// What its standard input begins with.
pub(super) fn opening(call: &Invocation, mode: Mode, token: Option<&str>) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(OPENING_BYTES));
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        bytes.push(b'\n');
    };
    let first = call.first_line.as_ref().map(|secret| secret.expose());
    let Some(token) = token else {
        first.iter().for_each(|first| line(&[first]));
        return Ok(bytes);
    };
    let plain = call.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let secret = call.env.iter().map(|(name, value)| (name.as_str(), value.expose()));
    line(&[token]);
    for (name, value) in plain.chain(secret) {
        can_cross(name, value, call)?;
        line(&[name, "=", value]);
    }
    if let Some(first) = first {
        can_cross("its password", first, call)?;
    }
    match (mode, first) {
        (Mode::Dump, Some(first)) => {
            line(&["=", first]);
            line(&["."]);
        }
        (Mode::Input, Some(first)) => {
            line(&["."]);
            line(&[first]);
        }
        (_, None) => line(&["."]),
    }
    if bytes.len() > OPENING_BYTES {
        let why = format!("{}: its variables are too long to cross to where exec leads", call.name());
        return Err(Error::new(Kind::Config, why).hint("shorten the password"));
    }
    Ok(bytes)
}

fn can_cross(name: &str, value: &str, call: &Invocation) -> Result<()> {
    if value.contains(['\n', '\0']) {
        let why =
            format!("{name} of {} holds a line break or a NUL, which can't cross to where exec leads", call.name());
        return Err(Error::new(Kind::Config, why).hint("set another password"));
    }
    Ok(())
}

/// Where a tool runs, if not here.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    words: Vec<String>,
    program: String,
}

/// Signs in what comes back before the tool has begun; why that is; the mend. `{last}` is the last word of `exec`.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "nothing comes on standard input",
        "it passes no standard input on",
        "put -i into exec: [\"docker\", \"exec\", \"-i\", \"NAME\"]",
    ),
    ("o such container", "", "mend the container's name in exec, or start it: {last}"),
    ("o container with name", "", "mend the container's name in exec, or start it: {last}"),
    ("is not running", "", "start the container: {first} start {last}"),
    ("container state improper", "the container is not running", "start the container: {first} start {last}"),
    ("is paused", "", "go on with the container: {first} unpause {last}"),
    ("permission denied while trying to connect", "", "run this as root, or as a member of the group docker"),
    ("annot connect to the Docker daemon", "", "start Docker: systemctl start docker"),
    ("executable file not found", "there is no shell `sh`", NO_SHELL),
    ("No such file or directory", "there is no shell `sh`", NO_SHELL),
    ("no such file or directory", "there is no shell `sh`", NO_SHELL),
];
const NO_SHELL: &str =
    "use an image with a shell and the database's tools, or leave exec out and reach the server from here by url";

impl Elsewhere {
    /// Where a call runs.
    pub(super) fn of(call: &Invocation) -> Option<Self> {
        (!call.exec.is_empty()).then(|| Self { words: call.exec.clone(), program: call.program.clone() })
    }

    fn by(&self) -> String {
        self.words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
    }

    /// What the end of the words means for the tool.
    pub(super) fn verdict(&self, name: &str, status: ExitStatus, mark: Option<Mark>, tail: Vec<String>) -> Result<()> {
        match (mark, status.code()) {
            (Some(Mark::Started(_)), Some(0)) => Ok(()),
            // As shells tell it.
            (Some(Mark::Started(_)), Some(code @ 129..=192)) => {
                let how = format!("{name} was killed by signal {}", code.saturating_sub(128));
                Err(Error::new(Kind::Tool, how).tail(tail))
            }
            (Some(Mark::Started(_)), _) => {
                Err(Error::new(Kind::Tool, format!("{name} {}", describe(status))).tail(tail))
            }
            (Some(Mark::Missing), _) => {
                Err(Error::new(Kind::Tool, format!("there is no {} where `{}` leads", self.program, self.by()))
                    .hint("install it there, or set tools_dir to its folder there"))
            }
            (None, _) => Err(self.never_began(name, status, &tail)),
        }
    }

    /// The last words are put into the message: they are not the tool's, and nobody shall take them for its.
    fn never_began(&self, name: &str, status: ExitStatus, tail: &[String]) -> Error {
        let said = tail.join("\n");
        let reason = REASONS.iter().find(|(sign, _, _)| said.contains(sign));
        let last = tail.last().map(String::as_str).unwrap_or_default();
        let why = match reason {
            Some((_, why, _)) if !why.is_empty() => (*why).to_owned(),
            _ if last.is_empty() && status.success() => "it ended without starting anything".to_owned(),
            _ if last.is_empty() || status.code() == Some(NO_INPUT) => describe(status),
            _ => last.to_owned(),
        };
        let fill = |text: &str| {
            let word = |word: Option<&String>| word.cloned().unwrap_or_default();
            text.replace("{first}", &word(self.words.first())).replace("{last}", &word(self.words.last()))
        };
        let hint =
            reason.map_or_else(|| format!("try it by hand: {} sh -c true", self.by()), |(_, _, hint)| fill(hint));
        Error::new(Kind::Tool, format!("`{}` can't run {name}: {why}", self.by())).hint(hint)
    }

    /// Waits for the mark as long as it may still come.
    pub(super) fn await_mark(&self, tail: &Tail, child: &mut Child, world: &World) -> Option<Mark> {
        let started = world.clock.monotonic();
        while tail.mark().is_none()
            && matches!(child.try_wait(), Ok(None))
            && world.clock.monotonic().saturating_sub(started) < PATIENCE
        {
            world.clock.sleep(Duration::from_millis(5));
        }
        tail.mark()
    }

    /// Sends a signal to the tool by a second call; if that fails, what leads there is ended next, and it alone.
    pub(super) fn kill(&self, signal: &str, mark: Option<Mark>, world: &World) {
        let (Some(Mark::Started(pid)), Some((program, args))) = (mark, self.words.split_first()) else { return };
        let mut command = Command::new(program);
        command.args(args).args(["sh", "-c", KILL, "sh", signal, &pid.to_string()]);
        command.env_clear().envs(world.vars.for_children()).process_group(0);
        let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            return;
        };
        let started = world.clock.monotonic();
        while matches!(child.try_wait(), Ok(None)) {
            if world.clock.monotonic().saturating_sub(started) >= PATIENCE {
                // Nothing more can be done with a failure.
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            world.clock.sleep(Duration::from_millis(5));
        }
    }
}
