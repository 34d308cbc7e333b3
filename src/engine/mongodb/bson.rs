//! The little of BSON that an archive's own documents use. Flows in: one document's bytes. Flows out: its fields. Pure.

use crate::error::{Error, Kind, Result};

/// A value of an archive's header.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number of either size.
    Number(i64),
    /// A truth.
    Truth(bool),
}

/// The fields of a document that holds texts, whole numbers and truths alone.
///
/// # Errors
/// [`Kind::Tool`] when it is broken or holds anything else.
pub fn fields(document: &[u8]) -> Result<Vec<(String, Value)>> {
    let broken = || Error::new(Kind::Tool, "a header in the archive is broken");
    let length = number(document, 0).ok_or_else(broken)?;
    if usize::try_from(length).ok() != Some(document.len()) || document.last() != Some(&0) {
        return Err(broken());
    }
    let mut fields = Vec::new();
    let mut at = 4;
    while at + 1 < document.len() {
        let (field, next) = field(document, at).ok_or_else(broken)?;
        fields.push(field);
        at = next;
    }
    if at + 1 == document.len() { Ok(fields) } else { Err(broken()) }
}

fn field(document: &[u8], at: usize) -> Option<((String, Value), usize)> {
    let kind = *document.get(at)?;
    let rest = document.get(at + 1..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(rest.get(..end)?).ok()?.to_owned();
    let at = at + 1 + end + 1;
    let (value, size) = match kind {
        0x02 => {
            let length = usize::try_from(number(document, at)?).ok().filter(|length| *length > 0)?;
            let text = document.get(at + 4..at.checked_add(4 + length)?)?;
            let (last, text) = text.split_last()?;
            let text = String::from_utf8(text.to_vec()).ok().filter(|_| *last == 0)?;
            (Value::Text(text), 4 + length)
        }
        0x08 => (Value::Truth(*document.get(at)? != 0), 1),
        0x10 => (Value::Number(i64::from(number(document, at)?)), 4),
        0x12 => (Value::Number(i64::from_le_bytes(document.get(at..at + 8)?.try_into().ok()?)), 8),
        _ => return None,
    };
    Some(((name, value), at + size))
}

fn number(document: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(document.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_what_is_none() {
        let document =
            b"\x29\0\0\0\x02db\0\x02\0\0\0d\0\x08EOF\0\x01\x12CRC\0\xff\xff\xff\xff\xff\xff\xff\xff\x10i\0\x07\0\0\0\0";
        let expected = [
            ("db".to_owned(), Value::Text("d".to_owned())),
            ("EOF".to_owned(), Value::Truth(true)),
            ("CRC".to_owned(), Value::Number(-1)),
            ("i".to_owned(), Value::Number(7)),
        ];
        assert_eq!(fields(document).unwrap(), expected);
        for end in 0..document.len() {
            assert!(fields(&document[..end]).is_err(), "{end}");
        }
        for other in [&b"\x08\0\0\0\x0aa\0\0"[..], b"\x05\0\0\0\x01", b"\x06\0\0\0\0\0"] {
            assert!(fields(other).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = fields(&bytes);
        }
    }
}
