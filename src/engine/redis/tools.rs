//! The client of Redis and Valkey. Flows in: a database's settings. Flows out: its argument lists as values, and the
//! server's answers. Touches the tools, through [`crate::process`], and looks for them on the path.
//!
//! Commands go in on standard input, one a line, so that nothing that is asked stands in an argument. The password goes
//! into the environment of a child alone (`REDISCLI_AUTH`).

use std::time::Duration;

use super::marks::{self, Marks};
use super::reasons;
use super::url::Place;
use crate::engine::tools::Toolbox;
use crate::engine::{Cx, Settings};
use crate::error::{Error, Kind, Result};
use crate::process::{self, Invocation};
use crate::secret::Secret;

/// How long a question may take, if the work has no deadline that is nearer.
const ANSWER: Duration = Duration::from_secs(60);

/// The client that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its path or name.
    pub program: String,
    /// Its version, as it says.
    pub version: String,
}

/// How the tools of one server are called.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where the server is.
    pub place: Place,
    /// How they are called.
    pub toolbox: Toolbox,
    password: Option<Secret>,
}

/// A command: its words, of any bytes.
pub type Command = Vec<Vec<u8>>;

/// A command of these words.
pub fn command<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Command {
    words.into_iter().map(|word| word.as_ref().to_vec()).collect()
}

impl Tools {
    /// From a database's settings.
    pub fn new(settings: &Settings, place: Place) -> Self {
        let password = settings.password.clone().or_else(|| place.password.clone());
        Self { toolbox: Toolbox::new(settings), place, password }
    }

    /// The same tools for another server.
    #[must_use]
    pub fn at(&self, place: Place) -> Self {
        let mut toolbox = self.toolbox.clone();
        toolbox.restore_args.clear();
        Self { password: place.password.clone(), toolbox, place }
    }

    /// Finds the client, and asks for its version.
    ///
    /// # Errors
    /// [`Kind::Tool`] when none is there or it doesn't say.
    pub fn client(&self, cx: &Cx) -> Result<Tool> {
        self.tool(&["redis-cli", "valkey-cli"], cx)
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
        let version = text.split_whitespace().find_map(|word| {
            let word = word.strip_prefix("v=").unwrap_or(word);
            (word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit())).then(|| word.to_owned())
        });
        let version = version.ok_or_else(|| {
            Error::new(Kind::Tool, format!("{program} --version does not name its version"))
                .hint(format!("look at what {} prints", call.display()))
        })?;
        Ok(Tool { program, version })
    }

    /// A call that reaches the server. Nobody's file of preferences has a say.
    fn reaching(&self, tool: &Tool) -> Invocation {
        let call = self
            .toolbox
            .call(&tool.program)
            .args(self.place.options())
            .var("LC_ALL", "C")
            .var("REDISCLI_RCFILE", "/dev/null");
        match &self.password {
            Some(password) => call.env("REDISCLI_AUTH", password.clone()),
            None => call,
        }
    }

    /// The dump, to standard output.
    pub fn dump(&self, tool: &Tool) -> Invocation {
        self.reaching(tool).args(&self.toolbox.dump_args).args(["--rdb", "-"])
    }

    /// Commands as the protocol has them, from standard input.
    pub fn pipe(&self, tool: &Tool) -> Invocation {
        self.reaching(tool).args(&self.toolbox.restore_args).args(["--pipe", "--pipe-timeout", "0"])
    }

    fn lines(&self, tool: &Tool) -> Invocation {
        self.reaching(tool).args(&self.toolbox.restore_args).args(["--no-raw"])
    }

    /// What a call of the client for commands looks like.
    pub fn shown(&self, tool: &Tool) -> String {
        self.lines(tool).display()
    }

    /// The answer to one command, as the client shows it. An error of the server's is one of ours.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked or says no.
    pub fn ask<W: AsRef<[u8]>>(&self, tool: &Tool, words: impl IntoIterator<Item = W>, cx: &Cx) -> Result<String> {
        self.ask_all(tool, &[command(words)], cx)
    }

    /// The answers to several commands of one session, one behind the other.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked or says no to one of them.
    pub fn ask_all(&self, tool: &Tool, commands: &[Command], cx: &Cx) -> Result<String> {
        let now = cx.world.clock.monotonic();
        let deadline = cx.deadline.map_or(now + ANSWER, |deadline| deadline.min(now + ANSWER));
        let name = commands.first().and_then(|words| words.first()).map(|word| String::from_utf8_lossy(word));
        self.ask_lines(
            tool,
            &lines(commands),
            &name.unwrap_or_default(),
            &Cx { deadline: Some(deadline), ..cx.clone() },
        )
    }

    /// The answer to one command in that database, as the client shows it.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked or says no, and when the session was not the same to the end: after a
    /// cut the client connects again and goes on in the first database.
    pub fn ask_in(&self, tool: &Tool, number: u64, question: Command, cx: &Cx) -> Result<String> {
        let select = command(["SELECT", &number.to_string()]);
        let text = self.ask_all(tool, &[command(["MULTI"]), select, question, command(["EXEC"])], cx)?;
        match text.rsplit_once("QUEUED\n") {
            Some((_, answers)) if answers.contains("2) ") => Ok(answers.to_owned()),
            _ => Err(self.explain(Error::new(Kind::Tool, reasons::WAS_CUT))),
        }
    }

    /// All of these in one transaction, over a connection that is not made again: otherwise the client would connect anew
    /// after a cut, say the last command once more, and go on outside of the transaction, in the first database. It is none
    /// unless all `marks` stand until then.
    ///
    /// # Errors
    /// [`Kind::Tool`], with [`marks::GONE`] when a mark does not stand; it may have been done all the same, for the answer can be
    /// lost. What EXEC says of each is not read.
    pub fn transact(&self, tool: &Tool, marks: &Marks, commands: &[Command], cx: &Cx) -> Result<()> {
        let all = [marks::looks(marks), vec![command(["MULTI"])], commands.to_vec(), vec![command(["EXEC"])]];
        self.at_once(tool, &all.concat(), cx)
    }

    /// All of these, one behind the other, over a connection that is not made again.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server says no to one of them, and the others are done all the same, or can't be asked.
    pub fn at_once(&self, tool: &Tool, commands: &[Command], cx: &Cx) -> Result<()> {
        let mut input = Vec::new();
        for words in commands {
            input.extend(format!("*{}\r\n", words.len()).bytes());
            for word in words {
                input.extend(format!("${}\r\n", word.len()).bytes());
                input.extend(word);
                input.extend(b"\r\n");
            }
        }
        let now = cx.world.clock.monotonic();
        let deadline = cx.deadline.map_or(now + ANSWER, |deadline| deadline.min(now + ANSWER));
        let outcome = process::run(&self.pipe(tool), &input, Some(deadline), &cx.world);
        outcome.map(drop).map_err(|error| self.piped(error))
    }

    /// Why a pipe has failed: the client says what the server says, and nothing when its connection is cut.
    pub fn piped(&self, error: Error) -> Error {
        let silent = error.kind == Kind::Tool && error.tail.is_empty() && error.hint.is_none();
        let code =
            |line: &&String| line.split(' ').next().is_some_and(|word| word.len() > 2 && word == word.to_uppercase());
        let said = error.tail.iter().find(code).map(|line| format!("the server says {line}"));
        self.explain(match said {
            Some(said) => error.while_doing(said),
            None if silent => error.while_doing(reasons::WAS_CUT),
            None => error,
        })
    }

    /// What the server answers to a command of the user's, which is words, or one text as the client reads it: each line of
    /// it a command.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server can't be asked or says no.
    pub fn answer(&self, tool: &Tool, query: &[String], cx: &Cx) -> Result<String> {
        let input = match query {
            [text] => format!("{text}\n").into_bytes(),
            words => lines(&[command(words)]),
        };
        let name = query.first().and_then(|text| text.split_whitespace().next()).unwrap_or_default();
        Ok(plain(&self.ask_lines(tool, &input, name, cx)?))
    }

    fn ask_lines(&self, tool: &Tool, input: &[u8], name: &str, cx: &Cx) -> Result<String> {
        let output = process::run(&self.lines(tool), input, cx.deadline, &cx.world)?;
        let text = without_times(&String::from_utf8_lossy(&output).replace('\r', ""));
        if let Some(error) = first_error(&text) {
            return Err(self.explain(Error::new(Kind::Tool, format!("{name}: the server says {error}"))));
        }
        if text.trim().is_empty() {
            return Err(self.unreachable(tool, cx));
        }
        Ok(text)
    }

    /// Why nothing was answered: the client says that only on a command line.
    fn unreachable(&self, tool: &Tool, cx: &Cx) -> Error {
        let call = self.reaching(tool).args(&self.toolbox.restore_args).args(["PING"]);
        let error = match process::run(&call, b"", cx.deadline, &cx.world) {
            Err(error) => error,
            Ok(said) if said.starts_with(b"PONG") => Error::new(Kind::Tool, reasons::WAS_CUT),
            Ok(said) => {
                let said = String::from_utf8_lossy(&said).trim().to_owned();
                Error::new(Kind::Tool, format!("the server gives no answer: {said}"))
            }
        };
        self.explain(error)
    }

    /// Adds the mend to an error, if its words are known.
    pub fn explain(&self, error: Error) -> Error {
        reasons::explain(error, self.place.user.as_deref().unwrap_or("default"), &self.toolbox.configured)
    }
}

/// Answers without what the client adds behind each that took half a second, also where none came: a line `(0.70s)`. No value
/// looks so there: strings are quoted, and numbers have their type before them.
fn without_times(text: &str) -> String {
    let is_time = |line: &str| {
        let number = line.strip_prefix('(').and_then(|rest| rest.strip_suffix("s)"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        number
            .and_then(|number| number.split_once('.'))
            .is_some_and(|(whole, part)| digits(whole) && digits(part) && part.len() == 2)
    };
    text.split_inclusive('\n').filter(|line| !is_time(line.trim_end_matches('\n'))).collect()
}

/// The first error among answers. They are printed at the start of a line, or as a part of an answer to EXEC.
fn first_error(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let line = line.trim_start();
        let line =
            line.split_once(") ").filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(line, |(_, rest)| rest);
        line.strip_prefix("(error) ")
    })
}

/// Commands as lines for the client.
fn lines(commands: &[Command]) -> Vec<u8> {
    let mut input = Vec::new();
    for words in commands {
        for word in words {
            quote(word, &mut input);
            input.push(b' ');
        }
        input.push(b'\n');
    }
    input
}

/// An answer as the client gives it to a script: without quotes, types and numbers, an element a line.
fn plain(text: &str) -> String {
    let line = |line: &str| {
        let mut rest = line.trim();
        while let Some((number, after)) = rest.split_once(") ")
            && number.parse::<u32>().is_ok()
        {
            rest = after.trim_start();
        }
        let number = ["(integer) ", "(double) "].iter().find_map(|sort| rest.strip_prefix(sort));
        match (number, rest) {
            (Some(number), _) => number.to_owned(),
            (None, "(nil)" | "(empty array)" | "(empty list or set)") => String::new(),
            (None, rest) if rest.starts_with('"') => {
                strings(rest).first().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
            }
            (None, rest) => rest.to_owned(),
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Writes a word as the client's lines have it.
fn quote(word: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in word {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b'/' | b'=' => out.push(*byte),
            other => out.extend(format!("\\x{other:02x}").bytes()),
        }
    }
    out.push(b'"');
}

/// The strings of an answer, as bytes: each stands quoted at the end of a line.
pub fn strings(text: &str) -> Vec<Vec<u8>> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim_end();
            let inner = line.get(line.find('"')? + 1..)?.strip_suffix('"')?;
            let mut bytes = Vec::new();
            let mut rest = inner.as_bytes();
            while let Some((first, tail)) = rest.split_first() {
                rest = tail;
                if *first != b'\\' {
                    bytes.push(*first);
                    continue;
                }
                let (code, tail) = rest.split_first()?;
                rest = tail;
                bytes.push(match code {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let (digits, tail) = rest.split_at_checked(2)?;
                        rest = tail;
                        u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
                    }
                    other => *other,
                });
            }
            Some(bytes)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(url: &str) -> Tools {
        let settings = Settings::new("cache", Secret::new(url));
        let place = Place::parse(&settings.url).unwrap();
        Tools::new(&settings, place)
    }

    fn tool() -> Tool {
        Tool { program: "redis-cli".into(), version: "7.0.15".into() }
    }

    #[test]
    fn argument_lists_without_a_secret() {
        let tools = tools("rediss://u:canary@h:7000?cacert=/ca");
        let start = "LC_ALL=C REDISCLI_RCFILE=/dev/null REDISCLI_AUTH=… redis-cli -h h -p 7000 --tls --cacert /ca --user u \
                     --no-auth-warning";
        assert_eq!(tools.dump(&tool()).display(), format!("{start} --rdb -"));
        assert_eq!(tools.pipe(&tool()).display(), format!("{start} --pipe --pipe-timeout 0"));
        assert_eq!(tools.shown(&tool()), format!("{start} --no-raw"));
    }

    #[test]
    fn words_of_any_bytes_go_in_and_come_out() {
        let mut line = Vec::new();
        let word: Vec<u8> = (0..=255).collect();
        quote(&word, &mut line);
        assert!(line.iter().all(|byte| (32..127).contains(byte)));
        assert_eq!(strings(&String::from_utf8(line).unwrap()), [word]);
        assert_eq!(strings("1) \"a\\\"b\\\\\"\n2) \"\"\n(nil)\n"), [b"a\"b\\".to_vec(), Vec::new()]);
    }

    #[test]
    fn answers_without_what_is_for_people() {
        let said = "(integer) 5\n1) \"a b\\n\"\n2) 1) (nil)\n   2) (integer) 7\nOK\n\"\"\n(empty array)\n";
        assert_eq!(plain(said), "5\na b\n\n\n7\nOK\n\n");
    }

    #[test]
    fn what_the_client_says_of_the_time_is_no_answer() {
        assert_eq!(without_times("(0.70s)\n"), "");
        assert_eq!(
            without_times("(integer) 0\n(12.05s)\n\"(0.70s)\"\n1) (nil)\n"),
            "(integer) 0\n\"(0.70s)\"\n1) (nil)\n"
        );
        for answer in ["(nil)\n", "(s)\n", "(.70s)\n", "(0.7s)\n", "OK"] {
            assert_eq!(without_times(answer), answer);
        }
    }

    #[test]
    fn an_error_is_seen_wherever_it_stands() {
        assert_eq!(first_error("OK\n1) OK\n2) (error) ERR x\n"), Some("ERR x"));
        assert_eq!(first_error("(error) NOAUTH y"), Some("NOAUTH y"));
        assert_eq!(first_error("1) \"(error) z\"\nredis_version:7\n"), None);
    }
}
