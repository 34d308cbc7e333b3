//! A job's own checks of a backup that a drill has loaded. Flows in: questions with the answers that they must get, and an
//! engine's way to ask. Flows out: nothing, or an error that names the check, what was expected and what was found. Touches
//! nothing itself.

use crate::error::{Error, Kind, Result};

/// How much of a query or an answer a message shows, in characters: rows of data belong in no log.
const SHOWN_CHARS: usize = 80;
/// How many failed checks a message names.
const SHOWN_CHECKS: usize = 5;

/// A question, and the answer that it must get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// What messages call it; without one they show the query.
    pub name: Option<String>,
    /// What is asked, in the engine's own language: one text, or, for an engine that takes commands, words.
    pub query: Vec<String>,
    /// What must be answered.
    pub expect: String,
}

impl Check {
    /// How messages call it.
    fn shown(&self) -> String {
        cut(self.name.as_ref().unwrap_or(&self.query.join(" ")))
    }

    /// The query, for an engine that takes a text.
    ///
    /// # Errors
    /// [`Kind::Config`] when it is a list of words.
    pub fn text(&self) -> Result<&str> {
        match self.query.as_slice() {
            [text] => Ok(text),
            _ => Err(Error::new(Kind::Config, "query is a list of words, which only redis takes")
                .hint("write query as one text in [[backup.jobs.checks]]")),
        }
    }
}

/// Asks every check and compares the answers; space round them does not count.
///
/// # Errors
/// [`Kind::Tool`] that names those which got another answer, or none; a signal at once.
pub fn run(checks: &[Check], ask: &mut dyn FnMut(&Check) -> Result<String>) -> Result<()> {
    let mut failed: Vec<Error> = Vec::new();
    for check in checks {
        let why = match ask(check) {
            Ok(found) if found.trim() == check.expect.trim() => continue,
            Ok(found) => {
                Error::new(Kind::Tool, format!("expected {}, found {}", cut(check.expect.trim()), cut(found.trim())))
                    .hint("does the backup hold the wrong rows? if not, mend this one of [[backup.jobs.checks]]")
            }
            Err(error) if error.is_stopped() => return Err(error),
            Err(error) => error,
        };
        failed.push(why.while_doing(format!("check {}", check.shown())));
    }
    let more = failed.len().saturating_sub(SHOWN_CHECKS);
    let others: Vec<String> = failed.iter().skip(1).take(SHOWN_CHECKS - 1).map(|error| error.message.clone()).collect();
    let Some(mut first) = failed.into_iter().next() else { return Ok(()) };
    for message in others {
        first.message = format!("{}; {message}", first.message);
    }
    if more > 0 {
        first.message = format!("{}; {more} more failed", first.message);
    }
    Err(first)
}

/// A text as messages show it: quoted, on one line, not too long.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expect: &str) -> Check {
        Check { query: vec![query.to_owned()], expect: expect.to_owned(), ..Check::default() }
    }

    #[test]
    fn what_failed_is_named_and_kept_short() {
        let mut echo = |check: &Check| Ok(format!("{}\n", check.text()?));
        assert_eq!(run(&[check("t", "t"), check(" 3", "3 ")], &mut echo), Ok(()));
        let named = Check { name: Some("rows".into()), ..check("f", "t") };
        let error = run(&[check("t", "t"), named, check("a\nb", "")], &mut echo).unwrap_err();
        assert_eq!(error.kind, Kind::Tool);
        assert_eq!(error.message, r#"check "rows": expected "t", found "f"; check "a\nb": expected "", found "a\nb""#);
        let long = "x".repeat(10_000);
        let error = run(&vec![check(&long, "t"); 9], &mut echo).unwrap_err();
        assert!(error.message.len() < 5 * 3 * SHOWN_CHARS && error.message.ends_with("; 4 more failed"), "{error}");
    }

    #[test]
    fn a_signal_is_no_answer() {
        let mut stopped = |_: &Check| Err(Error::new(Kind::Stopped(15), "stopped"));
        assert_eq!(run(&[check("t", "t")], &mut stopped).unwrap_err().kind, Kind::Stopped(15));
        let words = Check { query: vec!["GET".into(), "a".into()], ..Check::default() };
        assert_eq!(words.text().unwrap_err().kind, Kind::Config);
        // What can't be asked is as bad as a wrong answer, and comes with what kept it.
        let mut broken = |_: &Check| Err(Error::new(Kind::Tool, "no such table").hint("mend it"));
        let error = run(&[check("q", "t")], &mut broken).unwrap_err();
        assert_eq!((error.message.as_str(), error.hint.as_deref()), (r#"check "q": no such table"#, Some("mend it")));
    }
}
