//! Arguments that a user adds for `pg_dump` and `pg_restore`. Flows in: the words. Flows out: nothing, or an error that
//! names the word that would make a backup no backup, or a restore a loss. Touches nothing.

use crate::error::{Error, Kind, Result};

/// An option that is refused: its long name, its letter, and why.
type Refused = (&'static str, Option<char>, &'static str);

const FORMAT: &str = "the format and the output are ours to choose";
const PART: &str = "it would leave out what a restore then can't bring back";
const PLACE: &str = "where the server is belongs into url";
const ASKS: &str = "nobody is there to answer";
const LOSES: &str = "what it leaves out would be lost when the restored database takes the place of the live one";

const REFUSED_IN_DUMP: &[Refused] = &[
    ("format", Some('F'), FORMAT),
    ("file", Some('f'), FORMAT),
    ("compress", Some('Z'), FORMAT),
    ("jobs", Some('j'), FORMAT),
    ("schema-only", Some('s'), PART),
    ("data-only", Some('a'), PART),
    ("statistics-only", None, PART),
    ("no-data", None, PART),
    ("no-schema", None, PART),
    ("section", None, PART),
    ("dbname", Some('d'), PLACE),
    ("host", Some('h'), PLACE),
    ("port", Some('p'), PLACE),
    ("username", Some('U'), PLACE),
    ("password", Some('W'), ASKS),
    ("version", Some('V'), FORMAT),
    ("help", Some('?'), FORMAT),
];

const REFUSED_IN_RESTORE: &[Refused] = &[
    ("format", Some('F'), FORMAT),
    ("file", Some('f'), FORMAT),
    ("list", Some('l'), FORMAT),
    ("jobs", Some('j'), "the dump comes through a pipe, which has one reader"),
    ("create", Some('C'), "the database is made before the load"),
    ("clean", Some('c'), "the database is empty before the load"),
    ("schema-only", Some('s'), LOSES),
    ("data-only", Some('a'), LOSES),
    ("statistics-only", None, LOSES),
    ("no-data", None, LOSES),
    ("no-schema", None, LOSES),
    ("section", None, LOSES),
    ("schema", Some('n'), LOSES),
    ("exclude-schema", Some('N'), LOSES),
    ("table", Some('t'), LOSES),
    ("trigger", Some('T'), LOSES),
    ("index", Some('I'), LOSES),
    ("function", Some('P'), LOSES),
    ("use-list", Some('L'), LOSES),
    ("filter", None, LOSES),
    ("dbname", Some('d'), PLACE),
    ("host", Some('h'), PLACE),
    ("port", Some('p'), PLACE),
    ("username", Some('U'), PLACE),
    ("password", Some('W'), ASKS),
    ("version", Some('V'), FORMAT),
    ("help", Some('?'), FORMAT),
];

/// Options of a dump that make it a part of its database.
const SELECTS: &[Refused] = &[
    ("schema", Some('n'), LOSES),
    ("exclude-schema", Some('N'), LOSES),
    ("table", Some('t'), LOSES),
    ("table-and-children", None, LOSES),
    ("exclude-table", Some('T'), LOSES),
    ("exclude-table-and-children", None, LOSES),
    ("extension", Some('e'), LOSES),
    ("exclude-extension", None, LOSES),
    ("no-large-objects", Some('B'), LOSES),
    ("no-blobs", None, LOSES),
    ("enable-row-security", None, LOSES),
    ("filter", None, LOSES),
];

/// Options of a dump that leave rows out of it.
const THINS: &[Refused] = &[
    ("exclude-table-data", None, LOSES),
    ("exclude-table-data-and-children", None, LOSES),
    ("no-unlogged-table-data", None, LOSES),
];

/// Letters of `pg_dump` and `pg_restore` that take a value, which may stand right behind them or in the next word.
const LETTERS_WITH_VALUE: &str = "deEfFhjnNptTUSLIPZ";
/// Long options that are complete, though a refused one begins like them.
const COMPLETE: &[&str] = &["schema", "table", "role"];

/// Looks at `dump_args`.
///
/// # Errors
/// [`Kind::Config`] with the word and the reason.
pub fn check_dump(args: &[String]) -> Result<()> {
    check("dump_args", args, REFUSED_IN_DUMP)
}

/// Looks at `restore_args`.
///
/// # Errors
/// [`Kind::Config`] with the word and the reason.
pub fn check_restore(args: &[String]) -> Result<()> {
    check("restore_args", args, REFUSED_IN_RESTORE)
}

/// The option in `dump_args` that leaves a part of the database out of its dumps. One that leaves out only rows is none:
/// who names it says that those are not needed.
pub fn selects(args: &[String]) -> Option<&'static str> {
    first(args, SELECTS).map(|(_, (name, ..))| *name)
}

/// The option in `dump_args` that leaves a part of the database or rows out, so that a dump does not hold all that it was
/// taken of.
pub fn leaves_out(args: &[String]) -> Option<&'static str> {
    selects(args).or_else(|| first(args, THINS).map(|(_, (name, ..))| *name))
}

/// The role that a dump is to be taken as, if `dump_args` names one.
pub fn role(args: &[String]) -> Option<&str> {
    let mut words = args.iter();
    let mut role = None;
    while let Some(word) = words.next() {
        match word.strip_prefix("--role") {
            Some("") => role = words.next().map(String::as_str),
            Some(value) => role = value.strip_prefix('=').or(role),
            None => {}
        }
    }
    role
}

fn check(key: &str, args: &[String], refused: &'static [Refused]) -> Result<()> {
    match first(args, refused) {
        None => Ok(()),
        Some((word, (name, _, why))) => Err(Error::new(Kind::Config, format!("{key}: {word} is not allowed: {why}"))
            .hint(format!("take --{name} out of {key}"))),
    }
}

/// The first word that is one of these options.
fn first<'a>(args: &'a [String], wanted: &'static [Refused]) -> Option<(&'a str, &'static Refused)> {
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let found = if let Some(long) = word.strip_prefix("--") {
            find_long(long, wanted)
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let (found, value_follows) = find_letter(letters, wanted);
            if value_follows {
                words.next();
            }
            found
        } else {
            None
        };
        if let Some(found) = found {
            return Some((word, found));
        }
    }
    None
}

/// The tools take any beginning of a long name that is not ambiguous, so a beginning of a refused name is refused.
fn find_long<'a>(word: &str, refused: &'a [Refused]) -> Option<&'a Refused> {
    let name = word.split('=').next().unwrap_or_default();
    let exact = refused.iter().find(|(long, _, _)| *long == name);
    if exact.is_some() || name.is_empty() || COMPLETE.contains(&name) {
        return exact;
    }
    refused.iter().find(|(long, _, _)| long.starts_with(name))
}

/// Letters can stand together behind one dash, until one that takes a value.
fn find_letter<'a>(letters: &str, refused: &'a [Refused]) -> (Option<&'a Refused>, bool) {
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        if let Some(found) = refused.iter().find(|(_, short, _)| *short == Some(letter)) {
            return (Some(found), false);
        }
        if LETTERS_WITH_VALUE.contains(letter) {
            return (None, rest.as_str().is_empty());
        }
    }
    (None, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_would_change_the_dump_is_refused() {
        for text in [
            "-Fp",
            "-F p",
            "--format=plain",
            "--form plain",
            "-f x",
            "--file=x",
            "-Z9",
            "--compress=9",
            "-j4",
            "-vFp",
            "-s",
            "-vs",
            "--schema-only",
            "--schema-o",
            "-a",
            "--data-only",
            "--section=data",
            "--dbname=x",
            "-hx",
            "-W",
            "-n s -s",
            "--no-data",
        ] {
            let error = check_dump(&words(text)).expect_err(text);
            assert_eq!(error.kind, Kind::Config, "{text}");
            assert!(error.message.starts_with("dump_args: -") && error.hint.is_some(), "{error:?}");
        }
    }

    #[test]
    fn what_narrows_or_describes_it_is_let_be() {
        for text in [
            "",
            "-n s",
            "-n sales",
            "-ns",
            "--schema=x",
            "-T x -T y",
            "--exclude-table=x",
            "-v",
            "--no-owner",
            "-xO",
            "--inserts",
            "--exclude-table-data logs",
            "-S schema",
            "--no-sync",
            "--role=x",
            "-E UTF8",
            "--table=x",
        ] {
            check_dump(&words(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn what_makes_a_dump_a_part_is_known() {
        for text in
            ["-n s", "-vTx", "--schema=x", "--exclude-table x", "-B", "--filter=f", "-x -t y", "--exclude-table"]
        {
            assert!(selects(&words(text)).is_some(), "{text}");
        }
        for text in ["", "--exclude-table-data=x", "--exclude-table-data -t", "--no-owner", "-S schema", "-E UTF8 -v"] {
            assert_eq!(selects(&words(text)), (text.ends_with("-t")).then_some("table"), "{text}");
        }
    }

    #[test]
    fn what_leaves_rows_out_is_known_and_so_is_the_role() {
        assert_eq!(selects(&words("--exclude-table-data=x")), None);
        for (text, name) in [
            ("--exclude-table-data=x", Some("exclude-table-data")),
            ("--no-unlogged-table-data", Some("no-unlogged-table-data")),
            ("-x --enable-row-security", Some("enable-row-security")),
            ("-T x", Some("exclude-table")),
            ("--no-owner -v --role=x", None),
        ] {
            assert_eq!(leaves_out(&words(text)), name, "{text}");
        }
        for (text, name) in [("", None), ("--role=a b", Some("a")), ("-v --role b", Some("b")), ("--rolex=c", None)] {
            assert_eq!(role(&words(text)), name, "{text}");
        }
    }

    #[test]
    fn a_restore_of_a_part_is_refused() {
        for text in ["-n s", "-t x", "-s", "--section=data", "-j 4", "-C", "--clean", "-L list", "--sch=x", "-Otx"] {
            check_restore(&words(text)).expect_err(text);
        }
        for text in ["", "--no-owner", "-O -x", "--role=app", "--disable-triggers", "--no-publications"] {
            if let Err(error) = check_restore(&words(text)) {
                panic!("{text}: {error}");
            }
        }
    }
}
