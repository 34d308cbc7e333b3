//! One table of the configuration file. Flows in: parsed TOML with its places, and the environment's overrides. Flows
//! out: values of the right type; everything that is wrong is collected, with its line and its mend, and reported
//! together. Every key that is asked for is known; [`Table::finish`] reports the others. Touches nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Kind};
use crate::secret::{Secret, Source};
use crate::world::Vars;

/// How alike a misspelt key must be to the one that is suggested, from 0 to 1.
const LIKENESS: f64 = 0.7;

/// What is wrong with a file, in the order of its lines.
#[derive(Debug)]
pub struct Problems {
    file: String,
    text: String,
    list: RefCell<Vec<(usize, String, Option<String>)>>,
    secret_vars: RefCell<BTreeSet<String>>,
}

impl Problems {
    /// None yet.
    pub fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), list: RefCell::default(), secret_vars: RefCell::default() }
    }

    /// Adds one at a byte of the text.
    pub fn add(&self, at: usize, message: impl Into<String>, hint: Option<String>) {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        self.list.borrow_mut().push((line, message.into(), hint));
    }

    /// Environment variables that secrets come from, so that they can be kept from children.
    pub fn secret_vars(&self) -> Vec<String> {
        self.secret_vars.borrow().iter().cloned().collect()
    }

    fn remember(&self, source: &Source) {
        if let Source::Env(name) = source {
            self.secret_vars.borrow_mut().insert(name.clone());
        }
    }

    /// All of them as one error; nothing if there are none.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn into_result(self) -> Result<(), Error> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|(line, ..)| *line);
        let Some((_, _, last_hint)) = list.last().cloned() else { return Ok(()) };
        let count = list.len();
        let mut text = String::new();
        for (number, (line, message, hint)) in list.iter().enumerate() {
            text.push_str(&format!("{}:{line}: {message}", self.file));
            if number + 1 < count {
                if let Some(hint) = hint {
                    text.push_str(&format!("\nhint: {hint}"));
                }
                text.push('\n');
            }
        }
        let error = Error::new(Kind::Config, text);
        Err(match last_hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

/// The key of `known` that is most like `word`, if one is.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |key: &str| strsim::jaro_winkler(&word.to_lowercase(), key);
    known
        .into_iter()
        .map(|key| (likeness(key), key))
        .filter(|(like, _)| *like >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// A table that is being read.
#[derive(Debug)]
pub struct Table<'a> {
    shown: String,
    name: String,
    at: usize,
    table: &'a DeTable<'a>,
    asked: BTreeSet<&'static str>,
    problems: &'a Problems,
    env: Option<(String, &'a Vars)>,
}

impl<'a> Table<'a> {
    /// A table that messages call `shown`; `env` is what the names of overriding variables begin with.
    pub fn new(
        shown: impl Into<String>,
        name: &str,
        table: &'a Spanned<DeTable<'a>>,
        problems: &'a Problems,
        env: Option<(String, &'a Vars)>,
    ) -> Self {
        let (shown, name, at) = (shown.into(), name.to_owned(), table.span().start);
        Self { shown, name, at, table: table.get_ref(), asked: BTreeSet::new(), problems, env }
    }

    /// The last part of its name: for `[backup.targets.s3]`, `s3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How messages call it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// How messages call a key of it, without brackets.
    fn below(&self, key: &str) -> String {
        // Of a list's member, `[[jobs]] 2`, the number does not count.
        match self.shown.trim_start_matches('[').split(']').next().unwrap_or_default() {
            "" => key.to_owned(),
            outer => format!("{outer}.{key}"),
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.insert(key);
        self.table.get(key)
    }

    fn place(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.at, |(key, _)| key.span().start)
    }

    /// Reports what is wrong with a key.
    pub fn problem(&self, key: &str, message: &str, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.problems.add(self.place(key), format!("`{key}` in {} {message}", self.shown), hint);
    }

    /// Reports what is wrong with the table.
    pub fn wrong(&self, message: &str, hint: &str) {
        self.problems.add(self.at, format!("{} {message}", self.shown), Some(hint.to_owned()));
    }

    /// Reports an error that something else found in a key's value.
    pub fn failed(&self, key: &str, error: &Error) {
        self.problem(key, &error.message, error.hint.as_deref().unwrap_or_default());
    }

    fn overridden(&self, key: &str) -> Option<(String, &'a str)> {
        let (prefix, vars) = self.env.as_ref()?;
        let name = format!("{prefix}{}", key.to_uppercase());
        vars.get(&name).map(|value| (name, value))
    }

    /// A text.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        let found = self.find(key);
        if let Some((_, value)) = self.overridden(key) {
            return Some(value.to_owned());
        }
        match found?.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => {
                self.problem(key, "must be a string", "put it in quotes");
                None
            }
        }
    }

    /// A text that was asked for already, without a word if it is none.
    pub fn peek(&self, key: &str) -> Option<String> {
        match (self.overridden(key), self.table.get(key).map(Spanned::get_ref)) {
            (Some((_, value)), _) => Some(value.to_owned()),
            (None, Some(DeValue::String(text))) => Some(text.clone().into_owned()),
            _ => None,
        }
    }

    /// A text that must be there.
    pub fn required_string(&mut self, key: &'static str) -> Option<String> {
        let missing = self.table.get(key).is_none() && self.overridden(key).is_none();
        let value = self.string(key);
        if missing {
            self.wrong(&format!("has no `{key}`"), &format!("add: {key} = \"…\""));
        }
        value
    }

    /// A path, absolute.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.string(key)?);
        if path.is_relative() {
            self.problem(key, "is not an absolute path", "begin it with /");
            return None;
        }
        Some(path)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let found = self.find(key);
        if let Some((name, value)) = self.overridden(key) {
            let value = value.parse().ok();
            if value.is_none() {
                self.problem(key, &format!("is overridden by {name}, which is neither true nor false"), "");
            }
            return value;
        }
        match found?.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.problem(key, "must be true or false", "write it without quotes");
                None
            }
        }
    }

    /// A whole number.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let found = self.find(key);
        let (text, radix) = match (self.overridden(key), found.map(Spanned::get_ref)) {
            (Some((_, value)), _) => (value.to_owned(), 10),
            (None, Some(DeValue::Integer(number))) => (number.as_str().to_owned(), number.radix()),
            (None, None) => return None,
            (None, Some(_)) => {
                self.problem(key, "must be a whole number", "write it without quotes");
                return None;
            }
        };
        let value = u32::from_str_radix(&text, radix).ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.problem(key, &format!("must be between {} and {}", range.start(), range.end()), "");
        }
        value
    }

    /// A length of time such as `90s`, `10m`, `2h`, `1d` or `1h30m`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.string(key)?;
        let value = parse_duration(&text);
        if value.is_none() {
            self.problem(key, &format!("is not a length of time: {text:?}"), "write it like 90s, 10m, 2h or 1d");
        }
        value
    }

    /// A list of texts; one text alone is a list of one.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let texts = match self.find(key)?.get_ref() {
            DeValue::String(text) => Some(vec![text.clone().into_owned()]),
            DeValue::Array(items) => texts(items.iter().map(Spanned::get_ref)),
            _ => None,
        };
        if texts.is_none() {
            self.problem(key, "must be a string or a list of strings", "");
        }
        texts
    }

    /// A command: a text for `sh -c`, or a list of words.
    pub fn command(&mut self, key: &'static str) -> Option<Vec<String>> {
        let one = matches!(self.find(key)?.get_ref(), DeValue::String(_));
        let words = self.strings(key)?;
        if words.first().is_none_or(String::is_empty) {
            self.problem(key, "is an empty command", "");
            return None;
        }
        Some(if one { ["sh".to_owned(), "-c".to_owned()].into_iter().chain(words).collect() } else { words })
    }

    /// A secret in one of its forms.
    pub fn secret(&mut self, key: &'static str) -> Option<Source> {
        let found = self.find(key);
        if let Some((_, value)) = self.overridden(key) {
            return Some(Source::Text(Secret::new(value)));
        }
        let source = source(found?.get_ref()).inspect(|source| self.problems.remember(source));
        if source.is_none() {
            let forms = "{ env = \"NAME\" }, { file = \"/path\" }, { credential = \"name\" } or { command = [\"…\"] }";
            self.problem(key, "must be a string, or a table with exactly one source", &format!("write one of {forms}"));
        }
        source
    }

    /// Keeps variables that a secret may come from unasked from children.
    pub fn hide(&self, names: &[&str]) {
        self.problems.secret_vars.borrow_mut().extend(names.iter().map(|name| (*name).to_owned()));
    }

    /// A list of secrets.
    pub fn secrets(&mut self, key: &'static str) -> Vec<Source> {
        let sources: Option<Vec<Source>> = match self.find(key).map(Spanned::get_ref) {
            None => return Vec::new(),
            Some(DeValue::Array(items)) => items.iter().map(|item| source(item.get_ref())).collect(),
            Some(_) => None,
        };
        if sources.is_none() {
            self.problem(key, "must be a list of secrets", "");
        }
        sources.unwrap_or_default().into_iter().inspect(|source| self.problems.remember(source)).collect()
    }

    /// A table in this one.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let value = self.find(key)?;
        let shown = format!("[{}]", self.below(key));
        let table = self.child(key, shown, value);
        if table.is_none() {
            self.problem(key, "must be a table", "");
        }
        table
    }

    fn child(&self, name: &str, shown: String, value: &'a Spanned<DeValue<'a>>) -> Option<Table<'a>> {
        let DeValue::Table(table) = value.get_ref() else { return None };
        let env = self.env.as_ref().map(|(prefix, vars)| {
            let part: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
            (format!("{prefix}{part}_"), *vars)
        });
        let (name, at) = (name.to_owned(), value.span().start);
        Some(Table { shown, name, at, table, asked: BTreeSet::new(), problems: self.problems, env })
    }

    /// The tables in this one, each under a name of the operator's own.
    pub fn named_tables(&mut self) -> Vec<Table<'a>> {
        let mut tables = Vec::new();
        for (key, value) in self.table {
            match self.child(key.get_ref(), format!("[{}]", self.below(key.get_ref())), value) {
                Some(table) => tables.push(table),
                None => self.problem(key.get_ref(), "must be a table", ""),
            }
        }
        tables
    }

    /// A list of tables, `[[…]]`.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        let below = self.below(key);
        let items = match self.find(key).map(Spanned::get_ref) {
            None => return Vec::new(),
            Some(DeValue::Array(items)) => items,
            Some(_) => {
                self.problem(key, "must be a list of tables", &format!("write [[{below}]]"));
                return Vec::new();
            }
        };
        let child = |(number, value)| {
            self.child(key, format!("[[{below}]] {}", number + 1), value).map(|mut table| {
                // A list's members have no names, so no variable can mean one of them.
                table.env = None;
                table
            })
        };
        items.iter().enumerate().filter_map(child).collect()
    }

    /// Whether a variable overrides one of these keys.
    pub fn is_overridden(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.overridden(key).is_some())
    }

    /// Counts a key as asked for.
    pub fn knows(&mut self, key: &'static str) {
        self.asked.insert(key);
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        for (key, _) in self.table.iter().filter(|(key, _)| !self.asked.contains(key.get_ref().as_ref())) {
            let word = key.get_ref();
            let hint = match nearest(word, self.asked.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", self.asked.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            self.problems.add(key.span().start, format!("unknown key `{word}` in {}", self.shown), Some(hint));
        }
    }
}

fn texts<'v>(values: impl Iterator<Item = &'v DeValue<'v>>) -> Option<Vec<String>> {
    values
        .map(|value| match value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => None,
        })
        .collect()
}

fn source(value: &DeValue<'_>) -> Option<Source> {
    match value {
        DeValue::String(text) => Some(Source::Text(Secret::new(text.clone().into_owned()))),
        DeValue::Table(table) if table.len() == 1 => {
            let (key, value) = table.iter().next()?;
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("env", DeValue::String(name)) => Some(Source::Env(name.clone().into_owned())),
                ("file", DeValue::String(path)) if path.starts_with('/') => {
                    Some(Source::File(PathBuf::from(path.clone().into_owned())))
                }
                ("credential", DeValue::String(name)) if !name.contains('/') && !name.starts_with('.') => {
                    Some(Source::Credential(name.clone().into_owned()))
                }
                ("command", DeValue::Array(words)) if !words.is_empty() => {
                    texts(words.iter().map(Spanned::get_ref)).map(Source::Command)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Reads `90s`, `10m`, `2h`, `1d`, `1h30m`; nothing else, and not zero.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (mut total, mut digits) = (0u64, String::new());
    for c in text.trim().chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        let count: u64 = std::mem::take(&mut digits).parse().ok()?;
        total = total.checked_add(count.checked_mul(unit)?)?;
    }
    (digits.is_empty() && total > 0 && total < u64::from(u32::MAX)).then(|| Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400), ("1h30m", 5_400)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "10", "m", "-1m", "1.5h", "0s", "1w", "99999999999999999999d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_nearest_key() {
        assert_eq!(nearest("retension_days", ["retention_days", "retries"]), Some("retention_days"));
        assert_eq!(nearest("Encrypt", ["encrypt", "schedule"]), Some("encrypt"));
        assert_eq!(nearest("zzz", ["encrypt"]), None);
    }
}
