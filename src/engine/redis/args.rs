//! Arguments that a user adds for the tools. Flows in: the words. Flows out: nothing, or an error that names the word that
//! is not known to leave a backup whole. Touches nothing.

use crate::error::{Error, Kind, Result};

/// Options of the client that only say how to connect; those with a value take the next word.
const KNOWN: [(&str, bool); 12] = [
    ("--tls", false),
    ("--insecure", false),
    ("--verbose", false),
    ("-4", false),
    ("-6", false),
    ("-t", true),
    ("--sni", true),
    ("--cacert", true),
    ("--cacertdir", true),
    ("--cert", true),
    ("--key", true),
    ("--tls-ciphers", true),
];

/// Looks at `dump_args` or `restore_args`, whichever `key` says.
///
/// # Errors
/// [`Kind::Config`] with the word and the reason.
pub fn check(key: &str, args: &[String]) -> Result<()> {
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match KNOWN.iter().find(|(known, _)| known == word) {
            Some((_, false)) => {}
            Some((_, true)) if words.next().is_some() => {}
            Some(_) => return Err(Error::new(Kind::Config, format!("{key}: {word} lacks its value"))),
            None => {
                let known: Vec<_> = KNOWN.iter().map(|(known, _)| *known).collect();
                return Err(Error::new(Kind::Config, format!("{key}: {word} is not known to leave a backup whole"))
                    .hint(format!(
                        "known are {}; host, user and password come from url and password",
                        known.join(", ")
                    )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_harmless() {
        let check = |words: &[&str]| check("dump_args", &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(check(&["--tls", "--cacert", "/ca", "-t", "5"]), Ok(()));
        for words in [&["-a"][..], &["--cacert"], &["--rdb", "x"], &["SET"], &["-n", "3"], &["-u", "redis://x"]] {
            assert_eq!(check(words).unwrap_err().kind, Kind::Config, "{words:?}");
        }
    }
}
