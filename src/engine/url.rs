//! What the URLs of all engines have in common. Flows in: parts of a URL. Flows out: what they mean. Pure.

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// A part without its percent-encoding.
///
/// # Errors
/// [`Kind::Config`] when that is broken, hides a NUL, or is not UTF-8.
pub fn decode(part: &str) -> Result<String> {
    let broken = part.split('%').skip(1).any(|after| {
        let digits = after.as_bytes().get(..2).unwrap_or_default();
        digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit) || digits == b"00"
    });
    if broken {
        return Err(wrong("a % in it is not followed by two hex digits other than 00").hint("write a % itself as %25"));
    }
    let text = percent_decode_str(part).decode_utf8().map_err(|_| wrong("a decoded part is not UTF-8"))?;
    Ok(text.into_owned())
}

/// The same for a secret, never in memory that stays.
///
/// # Errors
/// As [`decode`].
pub fn secret(part: &str) -> Result<Secret> {
    let mut text = Zeroizing::new(decode(part)?);
    Ok(Secret::new(std::mem::take(&mut *text)))
}

/// What is wrong with a URL; never the URL itself, which may hold a password.
pub fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Config, format!("url: {why}"))
}
