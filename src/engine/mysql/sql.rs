//! SQL text. Flows in: names and values. Flows out: identifiers and literals that mean exactly them under the modes that
//! our scripts set. Touches nothing.

/// A name as an identifier.
pub fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table of a schema.
pub fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A value as a literal.
pub fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', "''"))
}

/// A name as a pattern of `GRANT … ON`, where `_` and `%` stand for others.
pub fn pattern(name: &str) -> String {
    ident(&name.replace('\\', r"\\").replace('_', r"\_").replace('%', r"\%"))
}

/// The words of a statement, as far as they are asked for: names without their quotes, texts with them, anything else
/// in capitals. The marks of version comments are no words, so that `/*!50003 CREATE*/` is CREATE.
pub fn words(text: &[u8], count: usize) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = 0;
    while words.len() < count
        && let Some((word, end)) = next_word(text, at)
    {
        words.push(Word { end, ..word });
        at = end;
    }
    words
}

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word, or the name without its quotes, as bytes of the dump.
    pub text: Vec<u8>,
    /// Whether it stood in backticks or double quotes.
    pub quoted: bool,
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Word {
    /// Whether it is this keyword.
    pub fn is(&self, word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

fn next_word(text: &[u8], from: usize) -> Option<(Word, usize)> {
    let start = skip(text, from)?;
    let first = *text.get(start)?;
    let rest = text.get(start..)?;
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$@".contains(byte) || *byte >= 0x80;
    match first {
        b'`' | b'"' | b'\'' => {
            let (name, length) = unquote(rest, first);
            Some((Word { text: name, quoted: true, start, end: 0 }, start + length))
        }
        _ if named(&first) => {
            let length = rest.iter().take_while(|byte| named(byte)).count();
            Some((Word { text: rest.get(..length)?.to_vec(), quoted: false, start, end: 0 }, start + length))
        }
        _ => Some((Word { text: vec![first], quoted: false, start, end: 0 }, start + 1)),
    }
}

fn unquote(rest: &[u8], quote: u8) -> (Vec<u8>, usize) {
    let mut name = Vec::new();
    let mut bytes = rest.iter().enumerate().skip(1).peekable();
    while let Some((at, &byte)) = bytes.next() {
        if byte == b'\\' && quote == b'\'' {
            // In a text a quote may follow that does not end it.
            name.push(byte);
            name.extend(bytes.next().map(|(_, &next)| next));
        } else if byte != quote {
            name.push(byte);
        } else if bytes.next_if(|(_, next)| **next == quote).is_some() {
            name.push(quote);
        } else {
            return (name, at + 1);
        }
    }
    (name, rest.len())
}

/// The first place from `from` on that is neither space nor a comment nor the mark of a version comment.
fn skip(text: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let rest = text.get(from..)?;
        let first = rest.first()?;
        from += if first.is_ascii_whitespace() {
            1
        } else if rest.starts_with(b"*/") {
            2
        } else if rest.starts_with(b"/*!") || rest.starts_with(b"/*M!") {
            let mark = if rest.starts_with(b"/*!") { 3 } else { 4 };
            mark + rest.iter().skip(mark).take_while(|byte| byte.is_ascii_digit()).count()
        } else if rest.starts_with(b"/*") {
            rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |end| end + 2)
        } else if (rest.starts_with(b"--") && rest.get(2).is_none_or(u8::is_ascii_whitespace)) || *first == b'#' {
            rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1)
        } else {
            return Some(from);
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(ident("a `b` \\"), "`a ``b`` \\`");
        assert_eq!(literal(r"it's \"), r"'it''s \\'");
        assert_eq!(pattern("a_b%"), r"`a\_b\%`");
    }

    #[test]
    fn words_are_found_behind_marks_and_comments() {
        let text = b"/*!50003 CREATE*/ /*!50017 DEFINER=`ro``ot`@`%`*/ /*!50003 trigger /* x */ t-- y\n on";
        let words: Vec<_> = words(text, 20).iter().map(|w| String::from_utf8_lossy(&w.text).into_owned()).collect();
        assert_eq!(words, ["CREATE", "DEFINER", "=", "ro`ot", "@", "%", "trigger", "t", "on"]);
        let words = super::words(br"'it\'s \\', `a\`,'b' 'c''d'", 20);
        let words: Vec<_> = words.iter().map(|w| String::from_utf8_lossy(&w.text).into_owned()).collect();
        assert_eq!(words, [r"it\'s \\", ",", r"a\", ",", "b", "c'd"]);
    }
}
