//! Text between dollars, as MySQL prints the body of what is in another language. Flows in: such a statement. Flows out: one
//! that the server takes. Touches nothing.
//!
//! It prints two sorts of text in a way that it does not take again: nothing at all, `$$$$`, and what ends with a dollar,
//! `$$a$$$`. Longer marks, which a text gets that holds two in a row, don't help it.

use std::borrow::Cow;

use super::sql::words;

/// The statement, with such a text in quotes; `backslash` says whether one escapes there.
pub fn mended(statement: &[u8], backslash: bool) -> Cow<'_, [u8]> {
    let Some((start, mark)) = begins(statement) else { return Cow::Borrowed(statement) };
    let from = start + mark;
    let text = statement.len().checked_sub(mark).and_then(|end| statement.get(from..end));
    let Some(text) = text.filter(|text| text.is_empty() || text.ends_with(b"$")) else {
        return Cow::Borrowed(statement);
    };
    let mut mended = statement.get(..start).unwrap_or_default().to_vec();
    mended.push(b'\'');
    for &byte in text {
        if byte == b'\'' || (byte == b'\\' && backslash) {
            mended.push(byte);
        }
        mended.push(byte);
    }
    mended.push(b'\'');
    Cow::Owned(mended)
}

/// Where the text between dollars begins that the statement ends with, and how long its marks are.
fn begins(statement: &[u8]) -> Option<(usize, usize)> {
    if !statement.ends_with(b"$") {
        return None;
    }
    let words = words(statement, usize::MAX);
    let language = words.iter().position(|word| word.is("LANGUAGE"))?;
    // Names and comments between the two are quoted.
    let mut pairs = words.windows(2).skip(language);
    let text = pairs.find_map(|pair| match pair {
        [word, text] if word.is("AS") => Some(text),
        _ => None,
    })?;
    let rest = statement.get(text.start..).filter(|rest| !text.quoted && rest.starts_with(b"$"))?;
    let mark = rest.iter().skip(1).position(|&byte| byte == b'$')? + 2;
    // What begins like a mark, and does not end with it, is none.
    rest.get(..mark).filter(|mark| statement.ends_with(mark)).map(|mark| (text.start, mark.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_prints_and_does_not_take_is_mended() {
        let head = "CREATE LIBRARY `as $$`\n    COMMENT 'AS $$'\n    LANGUAGE JAVASCRIPT\nAS ";
        for (text, expected) in [
            ("$$$$", "''"),
            ("$$a$$$", "'a$'"),
            ("$$$$$", "'$'"),
            (r"$$ it's \n AS $$$", r"' it''s \\n AS $'"),
            ("$JAVASCRIPT$$$ a$$JAVASCRIPT$", "'$$ a$'"),
            ("$$a$$", "$$a$$"),
            ("$JAVASCRIPT$$$ $$ $JAVASCRIPT$", "$JAVASCRIPT$$$ $$ $JAVASCRIPT$"),
            ("0x00", "0x00"),
            ("$", "$"),
            ("$$", "$$"),
            ("$$$", "$$$"),
        ] {
            let statement = format!("{head}{text}");
            let mended = mended(statement.as_bytes(), true).into_owned();
            assert_eq!(String::from_utf8_lossy(&mended), format!("{head}{expected}"));
        }
        let text = format!("{head}$$'\\$$$");
        assert_eq!(String::from_utf8_lossy(&mended(text.as_bytes(), false)), format!("{head}'''\\$'"));
        for sql in ["CREATE FUNCTION f() RETURNS int return (select 1 AS $$$)", "CREATE PROCEDURE p() select 1 AS $$$$"]
        {
            assert_eq!(*mended(sql.as_bytes(), true), *sql.as_bytes());
        }
    }
}
