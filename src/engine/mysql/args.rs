//! Arguments that a user adds for the tools. Flows in: the words. Flows out: nothing, or an error that names the word that
//! is not known to leave a backup whole. Touches nothing.

use crate::error::{Error, Kind, Result};

/// What both tools may be given: how to connect, and how much at once.
const CONNECTION: &[&str] = &[
    "compress",
    "compression-algorithms",
    "connect-timeout",
    "default-auth",
    "enable-cleartext-plugin",
    "get-server-public-key",
    "max-allowed-packet",
    "net-buffer-length",
    "plugin-dir",
    "server-public-key-path",
    "skip-ssl",
    "ssl",
    "ssl-ca",
    "ssl-capath",
    "ssl-cert",
    "ssl-cipher",
    "ssl-crl",
    "ssl-fips-mode",
    "ssl-key",
    "ssl-mode",
    "ssl-verify-server-cert",
    "tls-ciphersuites",
    "tls-version",
    "verbose",
    "zstd-compression-level",
];

/// What the dump may be given: what is left out by name, and how rows are written.
const DUMP: &[&str] = &[
    PART,
    ROWS,
    "column-statistics",
    "complete-insert",
    "no-autocommit",
    "order-by-primary",
    "skip-dump-date",
    "skip-extended-insert",
];

/// What leaves whole tables out of a dump.
const PART: &str = "ignore-table";
/// What leaves only rows out: who names it says that those are not needed.
const ROWS: &str = "ignore-table-data";

/// Looks at `dump_args`.
///
/// # Errors
/// [`Kind::Config`] with the word and the reason.
pub fn check_dump(args: &[String]) -> Result<()> {
    check("dump_args", args, DUMP)
}

/// Looks at `restore_args`.
///
/// # Errors
/// [`Kind::Config`] with the word and the reason.
pub fn check_restore(args: &[String]) -> Result<()> {
    check("restore_args", args, &[])
}

/// The option that leaves tables out of a dump: in the place of the whole it would be a loss.
pub fn partial(args: &[String]) -> Option<String> {
    given(args, &[PART])
}

/// The option that leaves tables or rows out of a dump, so that it does not hold all that it was taken of.
pub fn leaves_out(args: &[String]) -> Option<String> {
    given(args, &[PART, ROWS])
}

fn given(args: &[String], wanted: &[&str]) -> Option<String> {
    let mut names = args.iter().filter_map(|arg| name(arg.split('=').next().unwrap_or_default()));
    names.find(|name| wanted.contains(&name.as_str())).map(|name| format!("--{name}"))
}

/// The tools take both signs.
fn name(word: &str) -> Option<String> {
    word.strip_prefix("--").map(|name| name.replace('_', "-"))
}

fn check(key: &str, args: &[String], more: &[&str]) -> Result<()> {
    for arg in args {
        let word = arg.split('=').next().unwrap_or_default();
        let name = name(word);
        let known = name.is_some_and(|name| CONNECTION.iter().chain(more).any(|known| *known == name));
        if !known {
            return Err(Error::new(
                Kind::Config,
                format!("{key}: {word} is not allowed: it is not known to leave a backup whole"),
            )
            .hint(format!(
                "write --name=value as one word; known are --{}",
                [more, CONNECTION].concat().join(", --")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_cut_a_dump_is_refused() {
        for arg in
            ["--force", "-f", "--compact", "--skip-comments", "--no-data", "--databases", "x", "--where=1", "-pX"]
        {
            let error = check_dump(&[arg.to_owned()]).expect_err(arg);
            assert_eq!(error.kind, Kind::Config);
            check_restore(&[arg.to_owned()]).expect_err(arg);
        }
        check_dump(&["--ignore-table=a.b".into(), "--ssl_ca=x".into(), "--skip-dump-date".into()]).unwrap();
        check_restore(&["--ignore-table=a.b".into()]).expect_err("it means nothing there");
    }

    #[test]
    fn what_makes_a_dump_a_part_is_known() {
        let found = |arg: &str| [partial(&[arg.to_owned()]), leaves_out(&[arg.to_owned()])];
        let table = Some("--ignore-table".to_owned());
        assert_eq!(found("--ignore-table=a.b"), [table.clone(), table.clone()]);
        assert_eq!(found("--ignore_table=a.b"), [table.clone(), table]);
        assert_eq!(found("--ignore-table-data=a.b"), [None, Some("--ignore-table-data".to_owned())]);
        assert_eq!(found("--ssl-ca=--ignore-table"), [None, None]);
    }
}
