//! Views, routines, triggers and events. Flows in: what a dump holds of them. Flows out: scripts that make them, each under
//! its own settings, and triggers turned to a table under another name. Touches nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dollars;
use super::kind;
use super::own;
use super::sql::{Word, ident, words};
use crate::error::{Error, Kind, Result};

/// How far into a statement its name may stand, in words.
const NAME_WITHIN: usize = 60;

/// A kind of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A function, a procedure, a package or a library.
    Routine,
    /// A trigger.
    Trigger,
    /// A view.
    View,
    /// An event.
    Event,
}

/// One view, routine, trigger or event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub code: Code,
    /// The statement that makes it, in the character set that its settings name.
    pub text: Vec<u8>,
    /// The settings it is made under.
    pub settings: BTreeMap<String, String>,
    /// The schema's character set and collation while it is made, if the dump changes them for it.
    pub charset: Option<String>,
}

/// A trigger, view, routine or event that can be made again and again, kept with the swap so that a killed one can be
/// finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// `trigger`, `view`, `routine` or `event`.
    pub what: String,
    /// `FUNCTION`, `LIBRARY`, `PACKAGE BODY` and so on.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// A trigger's table.
    pub table: String,
    /// The settings to make it under, as one SET's assignments.
    pub settings: Vec<String>,
    /// The schema's character set and collation while it is made.
    pub charset: Option<String>,
    /// The statement's bytes in hex, for they may be in any character set.
    text: String,
    /// Where a trigger's table stands in it.
    span: (usize, usize),
    /// Where its own schema is to stand in a view or a routine: it does not, so that it can be made in any.
    #[serde(default)]
    own: Vec<usize>,
}

impl Made {
    /// From a dump's item.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it doesn't say its name as such statements do.
    pub fn new(item: &Item) -> Result<Self> {
        let latin = item.settings.get("character_set_client").is_some_and(|set| set.contains("latin1"));
        let words = words(&item.text, NAME_WITHIN);
        let wrong = || {
            let start: String = String::from_utf8_lossy(&item.text).chars().take(60).collect();
            Error::new(Kind::Tool, format!("a statement of the dump does not name what it makes: {start} …"))
        };
        let (at, mut kind) = kind::find(&words).ok_or_else(wrong)?;
        let mut next = at + 1;
        if kind == "PACKAGE" && words.get(next).is_some_and(|word| word.is("BODY")) {
            kind = "PACKAGE BODY";
            next += 1;
        }
        if words.get(next).is_some_and(|word| word.is("IF")) {
            next += 3;
        }
        let decode = |word: &Word| match String::from_utf8(word.text.clone()) {
            Ok(name) => Ok(name),
            Err(bytes) if latin => Ok(bytes.as_bytes().iter().map(|&byte| char::from(byte)).collect()),
            Err(_) => Err(wrong()),
        };
        let (name, end, _) = qualified(&words, next).ok_or_else(wrong)?;
        let backslash = !item.settings.get("sql_mode").is_some_and(|mode| mode.contains("NO_BACKSLASH_ESCAPES"));
        let text = match item.code {
            Code::Routine => dollars::mended(&item.text, backslash),
            _ => item.text.as_slice().into(),
        };
        let mut made = Self {
            what: what(item.code).to_owned(),
            kind: kind.to_owned(),
            name: decode(name)?,
            table: String::new(),
            settings: item.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect(),
            charset: item.charset.clone(),
            text: crate::format::hex(&text),
            span: (0, 0),
            own: Vec::new(),
        };
        if item.code == Code::Trigger {
            let on = words.iter().skip(end).position(|word| word.is("ON")).ok_or_else(wrong)?;
            let (table, _, span) = qualified(&words, end + on + 1).ok_or_else(wrong)?;
            made.table = decode(table)?;
            made.span = span;
        }
        Ok(made)
    }

    /// The statements that make it in `schema`, which they run in; a trigger on `table`, if that is another one.
    pub fn script(&self, schema: &str, table: Option<&str>) -> Vec<u8> {
        let mut text = unhex(&self.text);
        if let Some(table) = table.filter(|_| self.what == "trigger") {
            text.splice(self.span.0..self.span.1.min(text.len()), format!("{} ", ident(table)).into_bytes());
        }
        let own = format!("{}.", ident(schema)).into_bytes();
        for at in self.own.iter().rev() {
            let at = (*at).min(text.len());
            text.splice(at..at, own.iter().copied());
        }
        let mut script = b"SET NAMES utf8mb4;\nSET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';\n".to_vec();
        for setting in &self.settings {
            script.extend_from_slice(format!("SET {setting};\n").as_bytes());
        }
        script.extend_from_slice(b"DELIMITER ;;\n");
        script.extend_from_slice(&text);
        script.extend_from_slice(b"\n;;\nDELIMITER ;\n");
        script
    }

    /// A view or routine that can be made in any schema, out of one that was dumped from `schema`.
    #[must_use]
    pub fn out_of(self, schema: &str) -> Self {
        let text = unhex(&self.text);
        let places = match self.what.as_str() {
            "view" => own::places(&text, schema),
            "routine" => own::libraries(&text, schema),
            _ => return self,
        };
        let (mut kept, mut own, mut at) = (Vec::with_capacity(text.len()), Vec::new(), 0);
        for (from, to) in places {
            kept.extend_from_slice(text.get(at..from).unwrap_or_default());
            own.push(kept.len());
            at = to;
        }
        kept.extend_from_slice(text.get(at..).unwrap_or_default());
        Self { text: crate::format::hex(&kept), own, ..self }
    }

    /// Whether its text speaks of `name` in backticks.
    pub fn speaks_of(&self, name: &str) -> bool {
        let name = ident(name).into_bytes();
        unhex(&self.text).windows(name.len()).any(|window| window == name)
    }
}

/// A name that may have its schema before it: the name, the place after it, and the bytes of both.
fn qualified(words: &[Word], at: usize) -> Option<(&Word, usize, (usize, usize))> {
    let first = words.get(at)?;
    if words.get(at + 1).is_some_and(|word| word.text == b"." && !word.quoted) {
        let second = words.get(at + 2)?;
        return Some((second, at + 3, (first.start, second.end)));
    }
    Some((first, at + 1, (first.start, first.end)))
}

fn what(code: Code) -> &'static str {
    match code {
        Code::Routine => "routine",
        Code::Trigger => "trigger",
        Code::View => "view",
        Code::Event => "event",
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or_default();
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| pair.iter().fold(0, |byte: u8, &half| (byte << 4) | digit(half))).collect()
}

/// Puts views after those that they speak of. Where that has no end, the order of the dump stays.
pub fn in_order(mut views: Vec<Made>) -> Vec<Made> {
    let mut ordered = Vec::new();
    while !views.is_empty() {
        let free = |view: &Made| !views.iter().any(|other| other.name != view.name && view.speaks_of(&other.name));
        let next = views.iter().position(free).unwrap_or_default();
        ordered.push(views.remove(next));
    }
    ordered
}

/// The script that makes all of these, with the schema's character set as each wants it and back.
pub fn script<'a>(
    made: impl IntoIterator<Item = &'a Made>,
    schema: &str,
    charset: &str,
    on: &dyn Fn(&Made) -> Option<String>,
) -> Vec<u8> {
    let mut script = Vec::new();
    let mut now: Option<&str> = None;
    let alter = |to: &str| format!("ALTER DATABASE {} {to};\n", ident(schema)).into_bytes();
    for one in made {
        if one.charset.as_deref() != now && (one.charset.as_deref().unwrap_or(charset) != now.unwrap_or(charset)) {
            script.extend(alter(one.charset.as_deref().unwrap_or(charset)));
        }
        now = one.charset.as_deref();
        script.extend(one.script(schema, on(one).as_deref()));
    }
    if now.is_some_and(|now| now != charset) {
        script.extend(alter(charset));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(code: Code, text: &str) -> Made {
        Made::new(&Item { code, text: text.into(), settings: BTreeMap::new(), charset: None }).unwrap()
    }

    #[test]
    fn a_view_names_the_schema_that_it_is_made_in() {
        let view = |schema: &str| {
            format!("CREATE VIEW `v` AS select `s`.`x` AS `x`,{schema}`s`.`y` AS `y` from {schema}`s` join `o`.`t` `s`")
        };
        let made = item(Code::View, &view("`s`."));
        let made = made.out_of("s");
        // Kept with the swap, and read again.
        let made: Made = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
        let script = String::from_utf8(made.script("n`1", None)).unwrap();
        assert!(script.contains(&view("`n``1`.")), "{script}");
    }

    #[test]
    fn a_routine_uses_the_libraries_of_the_schema_that_it_is_made_in() {
        let head =
            "CREATE DEFINER=`s`@`s` FUNCTION `f`(`s` int) RETURNS int\n    DETERMINISTIC\n    LANGUAGE JAVASCRIPT";
        let routine = |schema: &str| {
            format!(
                "{head}\n    USING ({schema}`l` AS `s`, `o`.`s`, {schema}`l``2`)\nAS $$ `s`.`l`; using (`s`.`l`) $$"
            )
        };
        let made = item(Code::Routine, &routine("`s`.")).out_of("s");
        let script = String::from_utf8(made.script("n`1", None)).unwrap();
        assert!(script.contains(&routine("`n``1`.")), "{script}");
    }

    #[test]
    fn triggers_are_turned_to_another_table() {
        for text in [
            "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `x y` FOR EACH ROW set @a = 1 */",
            "CREATE DEFINER=a@b trigger if not exists s.t after update on s.`x y` FOR EACH ROW set @a = 1",
            "CREATE TRIGGER t /* ON z */ after update on`x y`FOR EACH ROW set @a = 1",
        ] {
            let made = item(Code::Trigger, text);
            assert_eq!((made.name.as_str(), made.table.as_str()), ("t", "x y"), "{text}");
            let script = String::from_utf8(made.script("s", Some("n`1"))).unwrap();
            assert!(
                script.to_lowercase().replace("on`", "on `").contains("on `n``1`  for")
                    || script.contains("`n``1` FOR"),
                "{script}"
            );
            assert!(!script.contains("x y"));
        }
    }

    #[test]
    fn names_and_kinds() {
        let made = item(Code::Routine, "CREATE DEFINER=`view`@`%` FUNCTION `f``g`(x int) RETURNS int return 1");
        assert_eq!((made.kind.as_str(), made.name.as_str()), ("FUNCTION", "f`g"));
        let made = item(Code::Routine, "CREATE PACKAGE BODY p AS x");
        assert_eq!((made.kind.as_str(), made.name.as_str()), ("PACKAGE BODY", "p"));
        for text in ["FUNCTION `f` AS", "CREATE THING `x` AS FUNCTION f"] {
            let item = Item { code: Code::Routine, text: text.into(), settings: BTreeMap::new(), charset: None };
            Made::new(&item).expect_err(text);
        }
        for library in ["`gcd`", "if not exists s.gcd"] {
            let text = format!("CREATE LIBRARY {library} LANGUAGE JAVASCRIPT AS $$ export function f(){{}} $$");
            let made = item(Code::Routine, &text);
            assert_eq!((made.kind.as_str(), made.name.as_str()), ("LIBRARY", "gcd"));
        }
        let made = item(
            Code::View,
            "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a`@`b` SQL SECURITY DEFINER */\n/*!50001 VIEW `v` AS select 1 */",
        );
        assert_eq!((made.kind.as_str(), made.name.as_str()), ("VIEW", "v"));
    }

    #[test]
    fn views_come_after_what_they_speak_of() {
        let view = |name: &str, of: &str| {
            item(Code::View, &format!("CREATE ALGORITHM=X VIEW `{name}` AS select * from `{of}`"))
        };
        let views = in_order(vec![view("a", "b"), view("b", "c"), view("c", "t")]);
        assert_eq!(views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    }
}
