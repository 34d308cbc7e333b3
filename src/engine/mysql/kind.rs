//! What a CREATE makes. Flows in: its first words. Flows out: the kind, and where it stands. Touches nothing.
//!
//! The kind is taken at its place in the grammar alone: what a library or a short routine is made of begins within the first
//! words, too, and may speak of functions and views.

use super::sql::Word;

/// What may be made.
const KINDS: [&str; 9] =
    ["TABLE", "SEQUENCE", "VIEW", "TRIGGER", "FUNCTION", "PROCEDURE", "PACKAGE", "EVENT", "LIBRARY"];
/// What may stand before it, one word each.
const BEFORE: [&str; 9] = [
    "OR",
    "REPLACE",
    "TEMPORARY",
    "EXTERNAL",
    "AGGREGATE",
    // Of views that MySQL shows as documents.
    "JSON",
    "RELATIONAL",
    "DUALITY",
    "MATERIALIZED",
];

/// The kind that a CREATE names, and its place among the words.
pub fn find(words: &[Word]) -> Option<(usize, &'static str)> {
    let is = |at: usize, wanted: &str| words.get(at).is_some_and(|word| word.is(wanted));
    let mut at = usize::from(is(0, "CREATE"));
    while at > 0 && at < words.len() {
        if let Some(kind) = KINDS.into_iter().find(|kind| is(at, kind)) {
            return Some((at, kind));
        }
        at = if BEFORE.iter().any(|word| is(at, word)) {
            at + 1
        } else if (is(at, "ALGORITHM") && is(at + 1, "=")) || (is(at, "SQL") && is(at + 1, "SECURITY")) {
            at + 3
        } else if is(at, "DEFINER") && is(at + 1, "=") {
            after_account(words, at + 2)
        } else {
            return None;
        };
    }
    None
}

/// The place after an account: its parts follow each other without a space. `` `u`@`h` ``, `u@h.example`,
/// `CURRENT_USER()`, or a role.
fn after_account(words: &[Word], from: usize) -> usize {
    let joins = |word: &Word| !word.quoted && (word.text.starts_with(b"@") || b".-%()".contains(&first(word)));
    let mut at = from + 1;
    while let (Some(before), Some(word)) = (words.get(at - 1), words.get(at)) {
        let open = !before.quoted && (before.text.ends_with(b"@") || b".-%".contains(&first(before)));
        if before.end != word.start || !(open || joins(word)) {
            break;
        }
        at += 1;
    }
    at
}

fn first(word: &Word) -> u8 {
    word.text.first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::sql::words;
    use super::*;

    #[test]
    fn the_kind_is_taken_at_its_place() {
        for (text, kind) in [
            ("CREATE LIBRARY `gcd`\n    LANGUAGE JAVASCRIPT\nAS $$ export function f(){} $$", "LIBRARY"),
            ("create library if not exists l comment 'a view' language javascript as $$ const f = 1 $$", "LIBRARY"),
            ("CREATE DEFINER=`view`@`event` FUNCTION `table`() RETURNS int return 1", "FUNCTION"),
            ("CREATE DEFINER=`a`@`b`FUNCTION f() RETURNS int return 1", "FUNCTION"),
            ("CREATE DEFINER=view@my-table.event PROCEDURE `f`() begin end", "PROCEDURE"),
            ("CREATE DEFINER='u'@10.0.0.% PROCEDURE `f`() begin end", "PROCEDURE"),
            ("CREATE DEFINER=CURRENT_USER() EVENT e ON SCHEDULE EVERY 1 DAY DO select 1", "EVENT"),
            ("CREATE DEFINER=`role` TRIGGER t BEFORE INSERT ON `a` FOR EACH ROW set @a = 1", "TRIGGER"),
            ("/*!50003 CREATE*/ /*!50017 DEFINER=`r`@`%`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `a` */", "TRIGGER"),
            ("CREATE DEFINER=`u`@`h` AGGREGATE FUNCTION f(x int) RETURNS int return 1", "FUNCTION"),
            ("CREATE OR REPLACE DEFINER=`u`@`h` PACKAGE BODY p AS FUNCTION f RETURN int AS BEGIN END; END", "PACKAGE"),
            (
                "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a`@`b` SQL SECURITY DEFINER */\n/*!50001 VIEW `v` AS",
                "VIEW",
            ),
            (
                "CREATE ALGORITHM=UNDEFINED DEFINER=`a`@`b` SQL SECURITY DEFINER JSON RELATIONAL DUALITY VIEW `v` AS",
                "VIEW",
            ),
            ("CREATE TABLE `view` (`function` int)", "TABLE"),
            ("CREATE SEQUENCE `s` start with 1", "SEQUENCE"),
        ] {
            let words = words(text.as_bytes(), 40);
            let (at, found) = find(&words).expect(text);
            assert!(found == kind && words[at].is(kind), "{text}: {found}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for text in [
            "CREATE THING `x` AS $$ export function f(){} $$",
            "CREATE `FUNCTION` f()",
            "CREATE DEFINER=`a`@`b` SECRET s AS VIEW",
            "CREATE DEFINER FUNCTION f()",
            "DROP FUNCTION f",
            "CREATE",
            "",
        ] {
            assert_eq!(find(&words(text.as_bytes(), 40)), None, "{text}");
        }
    }
}
