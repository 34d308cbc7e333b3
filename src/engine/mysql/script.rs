//! A dump as it passes. Flows in: its bytes. Flows out: the part that makes tables and fills them, as it comes; views,
//! routines, triggers and events as values, each with the settings it was made under; rows by table; whether it is
//! whole. Touches nothing; memory grows with the code in a schema, not with its data.
//!
//! The end mark is the line `-- Dump completed`, which the tool writes last: a dump cut at a line's end would load
//! without an error.

use std::collections::BTreeMap;

use super::code::{Code, Item};
use super::kind;
use super::lexer::{Lexer, Piece};
use super::sql::{Word, words};
use super::tools::Family;
use crate::engine::{Counts, Findings, Inspector};
use crate::error::{Error, Kind, Result};

/// What the last line begins with.
const END_MARK: &str = "-- Dump completed";
/// How much of the stream's end is kept to find the mark, in bytes.
const TAIL_BYTES: usize = 128;
/// Within how many bytes a dump says what wrote it.
const HEAD_BYTES: usize = 1024;
/// How many bytes of views, routines, triggers and events are kept.
const CODE_BYTES: usize = 512 * 1024 * 1024;
/// Settings under which code is made, and which belong to it.
const SETTINGS: [&str; 4] = ["sql_mode", "character_set_client", "collation_connection", "time_zone"];

/// A dump on its way past.
#[derive(Debug, Default)]
pub struct Script {
    head: Vec<u8>,
    head_done: bool,
    tail: Vec<u8>,
    seen: u64,
    lexer: Lexer,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    settings: BTreeMap<String, String>,
    charset: Option<String>,
    table: Option<String>,
    tool: Option<(Family, String)>,
    server: Option<String>,
    schema: Option<String>,
    counts: Counts,
    items: Vec<Item>,
    code_bytes: usize,
    /// Whether items are kept: an inspector only looks.
    keeps: bool,
    data: Vec<u8>,
}

impl Script {
    /// One that keeps what it is to be asked for.
    pub fn keeping() -> Self {
        Self { state: State { keeps: true, ..State::default() }, ..Self::default() }
    }

    /// The next bytes. Gives what of them belongs to tables and their rows.
    ///
    /// # Errors
    /// [`Kind::Tool`] when they can't stand there.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.seen += bytes.len() as u64;
        let from = bytes.len().saturating_sub(TAIL_BYTES);
        self.tail.extend_from_slice(bytes.get(from..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        if !self.head_done {
            let room = HEAD_BYTES.saturating_sub(self.head.len());
            self.head.extend(bytes.iter().take(room));
            if self.head.len() >= HEAD_BYTES {
                self.read_head()?;
            }
        }
        let state = &mut self.state;
        self.lexer.feed(bytes, &mut |piece| state.take(piece))?;
        Ok(std::mem::take(&mut self.state.data))
    }

    /// The end of the stream. Gives the last bytes that belong to tables.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the dump is empty or not whole.
    pub fn end(&mut self) -> Result<Vec<u8>> {
        if self.seen == 0 {
            return Err(Error::new(Kind::Tool, "the dump is empty"));
        }
        self.read_head()?;
        let state = &mut self.state;
        self.lexer.finish(&mut |piece| state.take(piece))?;
        self.mark()?;
        Ok(std::mem::take(&mut self.state.data))
    }

    /// Which family's server it was taken from, and that server's version, once it has said so.
    pub fn origin(&self) -> Option<(Family, &str)> {
        let server = self.state.server.as_deref()?;
        Some((Family::of_server(server), server))
    }

    /// The schema it was taken of, once it has said so.
    pub fn schema(&self) -> Option<&str> {
        self.state.schema.as_deref()
    }

    /// Rows by table; `None` for a table whose rows are not in the dump.
    pub fn counts(&self) -> &Counts {
        &self.state.counts
    }

    /// Views, routines, triggers and events in the order of the dump.
    pub fn take_items(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.state.items)
    }

    fn read_head(&mut self) -> Result<()> {
        if self.head_done {
            return Ok(());
        }
        self.head_done = true;
        let text = String::from_utf8_lossy(&self.head).into_owned();
        for line in text.lines() {
            let dump = [("-- MariaDB dump ", Family::MariaDb), ("-- MySQL dump ", Family::MySql)];
            for (start, family) in dump {
                if let Some(rest) = line.strip_prefix(start) {
                    self.state.tool = Some((family, tool_version(rest)));
                }
            }
            if let Some(version) = line.strip_prefix("-- Server version\t") {
                self.state.server = Some(version.trim().to_owned());
            }
            if let Some((_, schema)) = line.strip_prefix("-- Host: ").and_then(|rest| rest.split_once(" Database: ")) {
                self.state.schema = Some(schema.to_owned());
            }
        }
        if self.state.tool.is_none() || self.state.server.is_none() {
            return Err(Error::new(Kind::Tool, "the dump does not begin as those of mysqldump and mariadb-dump do"));
        }
        Ok(())
    }

    fn mark(&self) -> Result<()> {
        let fail = |why: &str| Err(Error::new(Kind::Tool, format!("the dump is not whole: {why}")));
        let tail = String::from_utf8_lossy(&self.tail);
        let Some(text) = tail.strip_suffix('\n') else { return fail("its last line is cut") };
        let last = text.rsplit('\n').next().unwrap_or_default();
        let Some(date) = last.strip_prefix(END_MARK) else {
            return fail("its last line is not `-- Dump completed`");
        };
        let date = date.strip_prefix(" on ").unwrap_or(date);
        if date.chars().all(|c| c.is_ascii_digit() || "-: ".contains(c)) {
            Ok(())
        } else {
            fail("something follows its end mark")
        }
    }
}

impl Inspector for Script {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.pass(bytes).map(drop)
    }

    fn finish(&mut self) -> Result<Findings> {
        self.end()?;
        Ok(Findings {
            end_mark: END_MARK.to_owned(),
            tool_version: self.state.tool.as_ref().map(|(_, version)| version.clone()),
            server_version: self.state.server.clone(),
            counts: self.state.counts.clone(),
        })
    }
}

/// `10.19  Distrib 10.11.19-MariaDB, for …`, `10.19-11.8.3-MariaDB, for …`, `10.13  Distrib 9.7.0, for …`.
fn tool_version(rest: &str) -> String {
    let rest = rest.split(", for ").next().unwrap_or_default();
    let version = rest.split_once("Distrib ").or_else(|| rest.split_once('-')).map_or(rest, |(_, version)| version);
    version.trim().to_owned()
}

impl State {
    /// Puts a piece where it belongs. Says whether a backslash escapes from here on.
    fn take(&mut self, piece: Piece<'_>) -> Result<bool> {
        match piece {
            Piece::Insert(start) => {
                let start = words(start, 4);
                let into = start.iter().position(|word| word.is("INTO"));
                let table = into.and_then(|at| start.get(at + 1)).map(name_of).transpose()?;
                self.table = Some(table.ok_or_else(|| Error::new(Kind::Tool, "an INSERT of the dump has no table"))?);
            }
            Piece::Bytes(bytes) => self.data_bytes(bytes),
            Piece::Rows(rows) => {
                if let Some(table) = self.table.take() {
                    let count = self.counts.entry(table).or_default();
                    *count = Some(count.unwrap_or_default() + rows);
                }
            }
            Piece::Statement(text) => self.statement(text)?,
        }
        Ok(!self.settings.get("sql_mode").is_some_and(|mode| mode.contains("NO_BACKSLASH_ESCAPES")))
    }

    fn data_bytes(&mut self, bytes: &[u8]) {
        if self.keeps {
            self.data.extend_from_slice(bytes);
        }
    }

    fn data_statement(&mut self, text: &[u8]) {
        self.data_bytes(text);
        self.data_bytes(b";\n");
    }

    fn statement(&mut self, text: &[u8]) -> Result<()> {
        let first = words(text, 3);
        let word = |at: usize, is: &str| first.get(at).is_some_and(|word: &Word| word.is(is));
        // A view is announced by a stand-in, which older tools make a table; we make views in an order of our own.
        let stand_in = text.starts_with(b"/*!50001");
        if first.is_empty() || word(0, "UNLOCK") {
            return Ok(());
        }
        if word(0, "SET") && !first.get(1).is_some_and(|name| name.text.starts_with(b"@@")) {
            self.set(text, &first);
            self.data_statement(text);
        } else if word(0, "CREATE") {
            self.create(text, stand_in)?;
        } else if word(0, "DROP") {
            let table = word(1, "TABLE") || word(1, "SEQUENCE");
            if table && !stand_in {
                self.data_statement(text);
            }
        } else if word(0, "ALTER") && word(1, "DATABASE") {
            self.alter_database(text);
        } else if word(0, "LOCK") || (word(0, "ALTER") && word(1, "TABLE")) {
            // Only a table whose rows are dumped is announced so.
            let table = first.get(2).map(name_of).transpose()?.unwrap_or_default();
            let count = self.counts.entry(table).or_default();
            count.get_or_insert(0);
            // Nobody else is in a scratch, and a lock would shut out the sequence that a column takes its default from.
            if word(0, "ALTER") {
                self.data_statement(text);
            }
        } else if word(0, "DO") || word(0, "COMMIT") || (word(0, "SELECT") && word(1, "SETVAL")) {
            self.data_statement(text);
        } else {
            return Err(unplaced(&first));
        }
        Ok(())
    }

    fn create(&mut self, text: &[u8], stand_in: bool) -> Result<()> {
        let words = words(text, 40);
        let Some((at, kind)) = kind::find(&words) else { return Err(unplaced(&words)) };
        let code = match kind {
            "TABLE" | "VIEW" if stand_in && at == 1 => return Ok(()),
            "TABLE" => {
                let name = words.get(at + 1).map(name_of).transpose()?.unwrap_or_default();
                self.counts.entry(name).or_default();
                self.data_statement(text);
                return Ok(());
            }
            "SEQUENCE" => {
                self.data_statement(text);
                return Ok(());
            }
            "VIEW" => Code::View,
            "TRIGGER" => Code::Trigger,
            "EVENT" => Code::Event,
            _ => Code::Routine,
        };
        if self.keeps {
            self.code_bytes += text.len();
            if self.code_bytes > CODE_BYTES {
                return Err(Error::new(Kind::Tool, "the dump holds more code than data can explain"));
            }
            let (settings, charset) = (self.settings.clone(), self.charset.clone());
            self.items.push(Item { code, text: text.to_vec(), settings, charset });
        }
        Ok(())
    }

    /// Remembers a setting that code is made under; one that is put back is forgotten.
    fn set(&mut self, text: &[u8], first: &[Word]) {
        let name =
            first.get(1).map(|word| String::from_utf8_lossy(&word.text).to_ascii_lowercase()).unwrap_or_default();
        if !SETTINGS.contains(&name.as_str()) || first.get(2).is_none_or(|word| word.text != b"=") {
            return;
        }
        let value = text.get(first.get(2).map_or(0, |word| word.end)..).unwrap_or_default();
        let value = String::from_utf8_lossy(value);
        let value = value.trim().trim_end_matches("*/").trim();
        if value.starts_with('@') {
            self.settings.remove(&name);
        } else {
            self.settings.insert(name, value.to_owned());
        }
    }

    /// `ALTER DATABASE name CHARACTER SET x COLLATE y`: what comes after the name is kept.
    fn alter_database(&mut self, text: &[u8]) {
        let rest = words(text, 4).get(2).and_then(|name| text.get(name.end..)).unwrap_or_default();
        let rest = String::from_utf8_lossy(rest);
        self.charset = Some(rest.trim().trim_end_matches("*/").trim().to_owned());
    }
}

fn name_of(word: &Word) -> Result<String> {
    String::from_utf8(word.text.clone())
        .map_err(|_| Error::new(Kind::Tool, "a table's name in the dump is not in UTF-8"))
}

fn unplaced(words: &[Word]) -> Error {
    let start: Vec<_> = words.iter().take(2).map(|word| String::from_utf8_lossy(&word.text).into_owned()).collect();
    let start: String = start.join(" ").chars().take(40).collect();
    // No argument makes the tools write a CREATE: the server has something that is not known here.
    let hint = match words.first() {
        Some(word) if word.is("CREATE") => "look for a newer version of this program, which knows what that makes",
        _ => "take out of dump_args what makes the tool write it",
    };
    Error::new(Kind::Tool, format!("the dump holds a statement that no restore could place: {start} …")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB, for x\n--\n\
        -- Server version\t10.11.19-MariaDB-0\n/*!40101 SET NAMES utf8mb4 */;\n";
    const BODY: &str = "DROP TABLE IF EXISTS `a`;\nCREATE TABLE `a` (\n  `i` int\n);\nLOCK TABLES `a` WRITE;\n\
        INSERT INTO `a` VALUES (1),(2);\nINSERT INTO `a` VALUES (3);\nUNLOCK TABLES;\nCREATE TABLE `b` (i int);\n\
        /*!50001 CREATE VIEW `v` AS SELECT\n 1 AS `i` */;\n\
        /*!50003 SET sql_mode              = 'ANSI' */ ;\nDELIMITER ;;\n\
        /*!50003 CREATE*/ /*!50017 DEFINER=`r`@`%`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `a` FOR EACH ROW begin end */;;\n\
        DELIMITER ;\n/*!50003 SET sql_mode              = @saved_sql_mode */ ;\n\
        /*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50001 VIEW `v` AS select 1 AS `i` */;\n";
    const END: &str = "\n-- Dump completed on 2026-11-23 16:43:22\n";

    fn look(text: &str) -> Result<Findings> {
        let mut script = Script::default();
        for part in text.as_bytes().chunks(7) {
            script.feed(part)?;
        }
        script.finish()
    }

    #[test]
    fn a_whole_dump() {
        let found = look(&format!("{HEAD}{BODY}{END}")).unwrap();
        assert_eq!(found.tool_version.as_deref(), Some("10.11.19-MariaDB"));
        assert_eq!(found.server_version.as_deref(), Some("10.11.19-MariaDB-0"));
        assert_eq!(found.counts, Counts::from([("a".into(), Some(3)), ("b".into(), None)]));
        look(&format!("{HEAD}{BODY}-- Dump completed\n")).unwrap();
    }

    #[test]
    fn data_and_code_are_kept_apart() {
        let mut script = Script::keeping();
        let mut data = script.pass(format!("{HEAD}{BODY}{END}").as_bytes()).unwrap();
        data.extend(script.end().unwrap());
        let data = String::from_utf8(data).unwrap();
        assert!(data.starts_with("/*!40101 SET NAMES utf8mb4 */;\nDROP TABLE"), "{data}");
        assert!(!data.contains("VIEW") && !data.contains("TRIGGER") && data.contains("VALUES (3);\n"), "{data}");
        let items = script.take_items();
        assert_eq!(items.iter().map(|item| item.code).collect::<Vec<_>>(), [Code::Trigger, Code::View]);
        assert_eq!(items[0].settings, BTreeMap::from([("sql_mode".to_owned(), "'ANSI'".to_owned())]));
        assert!(items[1].settings.is_empty());
        assert_eq!(script.origin().map(|(family, _)| family), Some(Family::MariaDb));
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let whole = format!("{HEAD}{BODY}{END}");
        for cut in 0..whole.len() {
            look(&whole[..cut]).expect_err("it is cut");
        }
        for more in ["\n", "x", "-- x\n", "\0", "INSERT INTO `a` VALUES (4);\n"] {
            look(&format!("{whole}{more}")).expect_err(more);
        }
        for text in ["", "SELECT 1;\n-- Dump completed\n"] {
            look(text).expect_err(text);
        }
        let error = look(&format!("{HEAD}USE `x`;\n{END}")).expect_err("USE");
        assert!(error.message.ends_with("could place: USE x …"), "{error}");
        let error = look(&format!("{HEAD}CREATE THING x AS FUNCTION;\n{END}")).expect_err("THING");
        assert!(error.hint.is_some_and(|hint| hint.contains("newer version")), "{}", error.message);
    }

    #[test]
    fn versions() {
        assert_eq!(tool_version("10.13  Distrib 9.7.0, for Linux (x86_64)"), "9.7.0");
        assert_eq!(tool_version("10.19-11.8.3-MariaDB, for debian"), "11.8.3-MariaDB");
    }
}
