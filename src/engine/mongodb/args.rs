//! Arguments that a user adds for the tools. Flows in: the words. Flows out: nothing, or an error that names the word that
//! is not known to leave a backup whole. Touches nothing.

use crate::error::{Error, Kind, Result};

/// What both tools may be given: how to connect, and how much at once.
const BOTH: &[&str] = &[
    "compressors",
    "numParallelCollections",
    "ssl",
    "sslAllowInvalidCertificates",
    "sslAllowInvalidHostnames",
    "sslCAFile",
    "sslCRLFile",
    "sslFIPSMode",
    "sslPEMKeyFile",
    "tlsInsecure",
    "verbose",
];
/// What leaves collections out of a dump.
const PART: &[&str] = &["excludeCollection", "excludeCollectionsWithPrefix"];
/// What the dump alone may be given.
const DUMP: &[&str] = &["forceTableScan", "readPreference"];
/// What the load alone may be given.
const RESTORE: &[&str] =
    &["bypassDocumentValidation", "convertLegacyIndexes", "numInsertionWorkersPerCollection", "writeConcern"];

/// Looks at `dump_args`.
///
/// # Errors
/// [`Kind::Config`] with the word and the reason.
pub fn check_dump(args: &[String]) -> Result<()> {
    check("dump_args", args, &[DUMP, PART].concat())
}

/// Looks at `restore_args`.
///
/// # Errors
/// [`Kind::Config`] with the word and the reason.
pub fn check_restore(args: &[String]) -> Result<()> {
    check("restore_args", args, RESTORE)
}

/// The first word that leaves a part of the database out.
pub fn partial(args: &[String]) -> Option<String> {
    let word = args.iter().find(|arg| PART.contains(&name(arg)))?;
    Some(format!("--{}", name(word)))
}

fn name(arg: &str) -> &str {
    arg.strip_prefix("--").unwrap_or_default().split('=').next().unwrap_or_default()
}

fn check(key: &str, args: &[String], more: &[&str]) -> Result<()> {
    match args.iter().find(|arg| !BOTH.iter().chain(more).any(|known| *known == name(arg))) {
        None => Ok(()),
        Some(arg) => {
            let word = arg.split('=').next().unwrap_or_default();
            let why = format!("{key}: {word} is not allowed: it is not known to leave a backup whole");
            let known = [more, BOTH].concat().join(", --");
            Err(Error::new(Kind::Config, why).hint(format!("write --name=value as one word; known are --{known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_cut_a_dump_is_refused() {
        for arg in [
            "--gzip",
            "-c",
            "--collection=x",
            "--query={}",
            "--db=x",
            "--password=x",
            "--out=x",
            "--drop",
            "x",
            "--uri=x",
        ] {
            assert_eq!(check_dump(&[arg.to_owned()]).expect_err(arg).kind, Kind::Config);
            check_restore(&[arg.to_owned()]).expect_err(arg);
        }
        let left_out = ["--excludeCollection=log".to_owned()];
        check_dump(&left_out).unwrap();
        check_restore(&left_out).expect_err("it means nothing there");
        assert_eq!(partial(&left_out).as_deref(), Some("--excludeCollection"));
        assert_eq!(partial(&["--sslCAFile=/excludeCollection".to_owned()]), None);
    }
}
