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

/// Whether a URL holds a password, or looks as if it did: what stands before the last @ and has a colon, or a parameter that
/// is called like one. A path without a host has none.
pub fn holds_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let secret = |name: &str| {
        let name = decode(name).unwrap_or_default().to_ascii_lowercase();
        ["password", "passwd", "secret", "token"].iter().any(|word| name.contains(word)) || name == "pwd"
    };
    let before = place.rsplit_once('@').map_or("", |(before, _)| before);
    // A password that holds a ? ends where the query seems to begin.
    let hidden = query.contains('@') && place.contains(':');
    hidden || before.contains(':') || query.split('&').any(|pair| secret(pair.split('=').next().unwrap_or_default()))
}

/// What is wrong with a URL; never the URL itself, which may hold a password.
pub fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Config, format!("url: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_seen_wherever_it_stands() {
        for url in [
            "postgres://u:p@h/d",
            "postgres://u:@h/d",
            "mysql://u:a/b@h/d",
            "redis://:p@h",
            "mongodb://u:p%40@h,i/d",
            "postgres://u:a?b@h/d",
            "mysql://u@h/d?Password=x",
            "redis://h?%70assword=x",
            "postgres://h/d?sslpassword=x&a=b",
        ] {
            assert!(holds_password(url), "{url}");
        }
        for url in [
            "postgres://u@h:5432/d?passfile=/x&sslmode=require",
            "mongodb://u@h:1,i:2/d?authSource=admin",
            "mysql:///d?socket=/run/x",
            "redis://h:6379",
            "sqlite:///a:b",
            "",
        ] {
            assert!(!holds_password(url), "{url}");
        }
    }
}
