//! A dump's text cut into statements, as the `mysql` client cuts it. Flows in: the dump's bytes, cut anywhere. Flows out:
//! whole statements, and INSERTs piece by piece with the number of their rows. Touches nothing; holds one statement that
//! is no INSERT at most.

use crate::error::{Error, Kind, Result};

/// The longest statement other than an INSERT, in bytes; a server takes no longer one.
const STATEMENT_BYTES: usize = 1024 * 1024 * 1024;
/// How much must be there before a place outside quotes is looked at, unless it is the end.
const LOOKAHEAD: usize = 16;
/// Says that what follows AS is no SQL.
const LANGUAGE: &[u8] = b" LANGUAGE ";

/// What was cut off.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole statement without its delimiter.
    Statement(&'a [u8]),
    /// The start of an INSERT: all before its VALUES. Its bytes follow as [`Piece::Bytes`], these included.
    Insert(&'a [u8]),
    /// Bytes of the INSERT, its delimiter included.
    Bytes(&'a [u8]),
    /// The INSERT has ended, with so many rows.
    Rows(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Text,
    Quoted(u8),
    /// Between two marks like `$$` or `$JAVASCRIPT$`: nothing means anything there but the second.
    Dollars,
    Line,
    Block,
}

#[derive(Debug)]
struct Insert {
    depth: u32,
    rows: u64,
    out: Vec<u8>,
}

/// The cutter.
#[derive(Debug)]
pub struct Lexer {
    carry: Vec<u8>,
    place: Place,
    delimiter: Vec<u8>,
    statement: Vec<u8>,
    insert: Option<Insert>,
    line_start: bool,
    /// The mark that ends a text between dollars.
    mark: Vec<u8>,
    /// Whether a backslash escapes: not under NO_BACKSLASH_ESCAPES, which the dump sets for routines that want it.
    pub backslash: bool,
}

impl Default for Lexer {
    fn default() -> Self {
        Self {
            carry: Vec::new(),
            place: Place::Text,
            delimiter: b";".to_vec(),
            statement: Vec::new(),
            insert: None,
            line_start: true,
            mark: Vec::new(),
            backslash: true,
        }
    }
}

/// What is called with each piece; its answer says whether a backslash escapes from here on.
pub type Sink<'a> = dyn FnMut(Piece<'_>) -> Result<bool> + 'a;

impl Lexer {
    /// The next bytes.
    ///
    /// # Errors
    /// What `sink` says, or [`Kind::Tool`] when a statement has no end.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let mut data = std::mem::take(&mut self.carry);
        data.extend_from_slice(bytes);
        let used = self.scan(&data, false, sink)?;
        self.carry = data.get(used..).unwrap_or_default().to_vec();
        self.flush(sink)
    }

    /// The end: nothing may be open.
    ///
    /// # Errors
    /// As for [`Lexer::feed`], and when the dump ends inside a statement.
    pub fn finish(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let data = std::mem::take(&mut self.carry);
        self.scan(&data, true, sink)?;
        let open = matches!(self.place, Place::Quoted(_) | Place::Dollars | Place::Block);
        if open || self.insert.is_some() || !self.statement.is_empty() {
            return Err(Error::new(Kind::Tool, "the dump is not whole: it ends inside a statement"));
        }
        Ok(())
    }

    fn flush(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if let Some(insert) = &mut self.insert
            && !insert.out.is_empty()
        {
            sink(Piece::Bytes(&insert.out))?;
            insert.out.clear();
        }
        Ok(())
    }

    /// Reads as far as it can and gives how far that was.
    fn scan(&mut self, data: &[u8], last: bool, sink: &mut Sink<'_>) -> Result<usize> {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            let step = match self.place {
                Place::Quoted(quote) => self.quoted(rest, quote, last),
                Place::Dollars => self.dollars(rest, last),
                Place::Line => self.line(rest),
                Place::Block => self.block(rest, last),
                Place::Text if rest.len() < LOOKAHEAD && !last => 0,
                Place::Text => self.text(rest, last, sink)?,
            };
            if step == 0 {
                break;
            }
            at += step;
        }
        Ok(at)
    }

    fn push(&mut self, bytes: &[u8]) {
        match &mut self.insert {
            Some(insert) => insert.out.extend_from_slice(bytes),
            None => self.statement.extend_from_slice(bytes),
        }
    }

    /// Comments belong to the body of a routine; between statements they are let go.
    fn push_comment(&mut self, bytes: &[u8]) {
        if self.insert.is_some() || !self.statement.is_empty() {
            self.push(bytes);
        }
    }

    fn quoted(&mut self, rest: &[u8], quote: u8, last: bool) -> usize {
        let escapes = self.backslash && quote != b'`';
        let end = rest.iter().position(|&byte| byte == quote || (escapes && byte == b'\\'));
        let Some(end) = end else {
            self.push(rest);
            return rest.len();
        };
        let escape = rest.get(end) != Some(&quote);
        let wanted = if escape { end + 2 } else { end + 1 };
        match rest.get(..wanted) {
            Some(bytes) => {
                self.push(bytes);
                if !escape {
                    self.place = Place::Text;
                }
                wanted
            }
            None if last => {
                self.push(rest);
                rest.len()
            }
            None => {
                self.push(rest.get(..end).unwrap_or_default());
                end
            }
        }
    }

    fn dollars(&mut self, rest: &[u8], last: bool) -> usize {
        let end = rest.windows(self.mark.len().max(1)).position(|bytes| bytes == self.mark);
        if end.is_some() {
            self.place = Place::Text;
        }
        // Without an end here, one may have begun.
        let begun = if last { 0 } else { self.mark.len().saturating_sub(1) };
        let end = end.map_or_else(|| rest.len().saturating_sub(begun), |end| end + self.mark.len());
        self.push(rest.get(..end).unwrap_or_default());
        end
    }

    fn line(&mut self, rest: &[u8]) -> usize {
        let end = rest.iter().position(|&byte| byte == b'\n');
        if end.is_some() {
            self.place = Place::Text;
        }
        let end = end.unwrap_or(rest.len());
        self.push_comment(rest.get(..end).unwrap_or_default());
        if end == 0 { self.newline(rest) } else { end }
    }

    /// Takes the newline that ends a comment.
    fn newline(&mut self, rest: &[u8]) -> usize {
        self.push_comment(rest.get(..1).unwrap_or_default());
        self.line_start = true;
        1
    }

    fn block(&mut self, rest: &[u8], last: bool) -> usize {
        let end = rest.windows(2).position(|pair| pair == b"*/");
        if end.is_some() {
            self.place = Place::Text;
        }
        let end = end.map_or_else(|| if last { rest.len() } else { rest.len().saturating_sub(1) }, |end| end + 2);
        self.push_comment(rest.get(..end).unwrap_or_default());
        end
    }

    fn text(&mut self, rest: &[u8], last: bool, sink: &mut Sink<'_>) -> Result<usize> {
        let begins = self.statement.is_empty() && self.insert.is_none();
        let first = rest.first().copied().unwrap_or_default();
        if begins && self.line_start && starts(rest, b"delimiter ") {
            return Ok(self.new_delimiter(rest, last));
        }
        if rest.starts_with(&self.delimiter) {
            self.end(sink)?;
            self.line_start = false;
            return Ok(self.delimiter.len());
        }
        let third = rest.get(2).copied().unwrap_or(b' ');
        let dashes = rest.starts_with(b"--") && (third.is_ascii_whitespace() || third.is_ascii_control());
        if dashes || first == b'#' {
            self.place = Place::Line;
            self.push_comment(rest.get(..1).unwrap_or_default());
            return Ok(1);
        }
        // Older clients don't know the line that newer MariaDB tools begin with, and there is nothing in it that we need:
        // our client takes no commands from a dump in any case.
        let sandbox = begins && (rest.starts_with(br"/*M!999999\-") || rest.starts_with(br"/*!999999\-"));
        if sandbox || (rest.starts_with(b"/*") && !matches!(third, b'!' | b'+') && !rest.starts_with(b"/*M!")) {
            self.place = Place::Block;
            self.push_comment(b"/*");
            return Ok(2);
        }
        if begins && first.is_ascii_whitespace() {
            self.line_start |= first == b'\n';
            return Ok(1);
        }
        if first == b'$' && self.takes_dollars() {
            return Ok(self.begin_dollars(rest, last));
        }
        self.line_start = first == b'\n';
        self.plain(rest, first, sink)
    }

    /// Whether a mark of dollars may begin here: after the AS of what is written in a language of its own. Elsewhere a dollar
    /// is a letter, in MariaDB and older servers at the beginning of a name, too.
    fn takes_dollars(&self) -> bool {
        let text = self.statement.trim_ascii_end();
        let before = text.len().checked_sub(3).and_then(|at| text.get(at));
        text.len() < self.statement.len()
            && text.last_chunk::<2>().is_some_and(|word| word.eq_ignore_ascii_case(b"AS"))
            && before.is_some_and(u8::is_ascii_whitespace)
            && starts(text, b"create ")
            && text.windows(LANGUAGE.len()).any(|word| word.eq_ignore_ascii_case(LANGUAGE))
    }

    fn begin_dollars(&mut self, rest: &[u8], last: bool) -> usize {
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
        let count = 1 + rest.iter().skip(1).take_while(|byte| named(byte)).count();
        match rest.get(count) {
            None if !last => return 0,
            Some(b'$') => {
                self.mark = rest.get(..=count).unwrap_or_default().to_vec();
                self.place = Place::Dollars;
            }
            _ => {}
        }
        let count = if self.place == Place::Dollars { count + 1 } else { count };
        self.push(rest.get(..count).unwrap_or_default());
        count
    }

    /// What is neither a comment nor a delimiter.
    fn plain(&mut self, rest: &[u8], first: u8, sink: &mut Sink<'_>) -> Result<usize> {
        match first {
            b'\'' | b'"' | b'`' => self.place = Place::Quoted(first),
            b'v' | b'V' if self.insert.is_none() && self.begins_values(rest) => {
                sink(Piece::Insert(&self.statement))?;
                let out = std::mem::take(&mut self.statement);
                self.insert = Some(Insert { depth: 0, rows: 0, out });
                self.push(b"VALUES");
                return Ok(6);
            }
            b'(' | b')' => {
                if let Some(insert) = &mut self.insert {
                    insert.rows += u64::from(first == b'(' && insert.depth == 0);
                    insert.depth = if first == b'(' { insert.depth + 1 } else { insert.depth.saturating_sub(1) };
                }
            }
            _ => {
                // Everything up to the next byte that may mean something goes in one step.
                let mark = self.delimiter.first().copied().unwrap_or(b';');
                let plain = |&byte: &u8| !(b"'\"`-#/\n()vV \t\r$".contains(&byte) || byte == mark);
                let count = 1 + rest.iter().skip(1).take_while(|byte| plain(byte)).count();
                self.push(rest.get(..count).unwrap_or_default());
                return self.bounded(count);
            }
        }
        self.push(rest.get(..1).unwrap_or_default());
        self.bounded(1)
    }

    fn bounded(&self, count: usize) -> Result<usize> {
        if self.statement.len() > STATEMENT_BYTES {
            return Err(Error::new(Kind::Tool, "a statement of the dump is longer than any server takes"));
        }
        Ok(count)
    }

    fn begins_values(&self, rest: &[u8]) -> bool {
        starts(&self.statement, b"insert ")
            && starts(rest, b"values")
            && self.statement.last().is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b')')
            && rest.get(6).is_none_or(|byte| byte.is_ascii_whitespace() || *byte == b'(')
    }

    fn new_delimiter(&mut self, rest: &[u8], last: bool) -> usize {
        let end = match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => end,
            None if last => rest.len(),
            None => return 0,
        };
        let word = rest.get(10..end).unwrap_or_default().trim_ascii();
        if !word.is_empty() {
            self.delimiter = word.to_vec();
        }
        end
    }

    fn end(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if let Some(mut insert) = self.insert.take() {
            insert.out.extend_from_slice(b";\n");
            sink(Piece::Bytes(&insert.out))?;
            self.backslash = sink(Piece::Rows(insert.rows))?;
        } else {
            let statement = std::mem::take(&mut self.statement);
            let text = statement.trim_ascii();
            if !text.is_empty() {
                self.backslash = sink(Piece::Statement(text))?;
            }
        }
        Ok(())
    }
}

fn starts(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8], size: usize) -> Result<Vec<String>> {
        let mut lexer = Lexer::default();
        let mut out: Vec<String> = Vec::new();
        let mut insert = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            match piece {
                Piece::Statement(text) => out.push(String::from_utf8_lossy(text).into_owned()),
                Piece::Insert(_) => insert.clear(),
                Piece::Bytes(bytes) => insert.extend_from_slice(bytes),
                Piece::Rows(rows) => out.push(format!("{rows}: {}", String::from_utf8_lossy(&insert))),
            }
            Ok(true)
        };
        for part in text.chunks(size) {
            lexer.feed(part, &mut sink)?;
        }
        lexer.finish(&mut sink)?;
        Ok(out)
    }

    const TEXT: &[u8] = br"-- a; comment
# another;
/* and ; a third */
SET a='x;\'y''z\\';
INSERT INTO `a;``\` (`VALUES`) VALUES (1,'(;\'',-2),
('--',(3)),
(NULL);
DELIMITER ;;
CREATE PROCEDURE p()
begin -- it's; kept
select 1; /* don't; */ end ;;
DELIMITER ;
/*!50001 VIEW `v` AS select ';' */;
";

    #[test]
    fn statements_are_cut_as_the_client_cuts_them() {
        let expected = [
            r"SET a='x;\'y''z\\'",
            "3: INSERT INTO `a;``\\` (`VALUES`) VALUES (1,'(;\\'',-2),\n('--',(3)),\n(NULL);\n",
            "CREATE PROCEDURE p()\nbegin -- it's; kept\nselect 1; /* don't; */ end",
            "/*!50001 VIEW `v` AS select ';' */",
        ];
        for size in 1..TEXT.len() {
            assert_eq!(cut(TEXT, size).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn what_stands_between_dollars_means_nothing() {
        let library = "CREATE LIBRARY `l`\n    COMMENT 'it''s $$'\n    LANGUAGE JAVASCRIPT\nAS ";
        let text = |mark: &str| format!("{library}{mark} // it's; `\n$$ ;;\nDELIMITER ;\n/* $JAVA $\n{mark}");
        // In SQL a dollar is a letter.
        let sql = "CREATE FUNCTION `f`() RETURNS int\nbegin return (select 1 as $a, 2 AS $$, 3 as $a$); end";
        let mark = "$JAVASCRIPT$";
        let all = format!("DELIMITER ;;\n{} ;;\n{sql} ;;\n{library}$ ;;\nDELIMITER ;\nSELECT 1;\n", text(mark));
        let all = all.replace(&text(mark), &format!("{} ;;\n{library}$$$$", text(mark)));
        for size in 1..all.len() {
            let expected = [text(mark), format!("{library}$$$$"), sql.into(), format!("{library}$"), "SELECT 1".into()];
            assert_eq!(cut(all.as_bytes(), size).unwrap(), expected, "{size}");
        }
        for open in ["$$", "$$ $;", "$a$ $$ $a;", "$a"] {
            cut(format!("{library}{open}").as_bytes(), 5).expect_err(open);
        }
    }

    #[test]
    fn an_open_end_is_noticed() {
        for text in ["SELECT 1", "SELECT 'x;", "INSERT INTO a VALUES (1", "DELIMITER ;;\nx;\n", "/* x"] {
            cut(text.as_bytes(), 5).expect_err(text);
        }
        assert!(cut(b"-- Dump completed", 3).unwrap().is_empty());
    }
}
