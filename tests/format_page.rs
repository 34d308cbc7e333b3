//! `voxeltron-backup-format(5)` is written by hand; here it is compared with what the code does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::sample::{FIRST, HEAD, LATER, Recipe, SEGMENT, TAG, key, rows};
use common::{repository, run, tool};
use voxeltron_backup::format::header::{Header, MAX_HEADER_BYTES};
use voxeltron_backup::format::manifest::{ENCRYPTION, MAX_MANIFEST_BYTES};

const PAGE: &str = "man/voxeltron-backup-format.5";

/// The page as people read it, on lines that don't break.
fn page() -> String {
    let text =
        tool(Command::new("mandoc").args(["-W", "error", "-T", "utf8", "-O", "width=900"]).arg(repository(PAGE)), b"");
    // Bold is a letter over itself.
    let mut out = String::new();
    for c in text.chars() {
        if c != '\u{8}' {
            out.push(c);
        } else if let Some((at, _)) = out.char_indices().next_back() {
            out.truncate(at);
        }
    }
    out
}

/// What one section says.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let start = page.find(&format!("\n{name}\n")).unwrap_or_else(|| panic!("there is no section {name}"));
    let rest = &page[start + name.len() + 2..];
    let end = rest
        .match_indices("\n\n")
        .map(|(at, _)| at)
        .find(|at| rest[at + 2..].starts_with(|c: char| c.is_ascii_uppercase()));
    &rest[..end.unwrap_or(rest.len())]
}

/// The words that begin the lines of lists.
fn listed(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn names(value: &serde_json::Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_page_is_well_formed() {
    let outcome = run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(repository(PAGE)), b"");
    assert!(outcome.status.success() && outcome.stdout.is_empty(), "{outcome:?}");
}

#[test]
fn every_field_is_described() {
    let (page, backup) = (page(), Recipe::default().build(&rows(100)));
    let (header, _) = Header::read(&mut &backup.object[..]).unwrap();
    let described = listed(section(&page, "ENCRYPTED BACKUPS"));
    for name in names(&serde_json::to_value(&header).unwrap()) {
        assert!(described.contains(&name), "the header's {name} is not described");
    }
    let described = listed(section(&page, "THE MANIFEST"));
    let envelope: serde_json::Value = serde_json::from_slice(&backup.manifest).unwrap();
    for name in names(&envelope).into_iter().chain(names(&serde_json::to_value(&backup.signed).unwrap())) {
        assert!(described.contains(&name), "the manifest's {name} is not described");
    }
    assert!(page.contains(ENCRYPTION));
}

#[test]
fn every_number_is_right() {
    let page = page();
    let sealed = |length: usize| {
        let backup = Recipe { compress: false, ..Recipe::default() }.build(&vec![0; length]);
        backup.object.len() - backup.header_bytes
    };
    assert_eq!(sealed(0), HEAD + TAG);
    assert_eq!((sealed(FIRST), sealed(FIRST + 1)), (SEGMENT, SEGMENT + 1 + TAG));
    for said in [
        format!("at most {MAX_HEADER_BYTES}"),
        format!("at most {} MiB", MAX_MANIFEST_BYTES >> 20),
        format!("ciphertext segments of {SEGMENT} bytes"),
        format!("Segment 0 is at most {} bytes long with its tag", SEGMENT - HEAD),
        format!("{FIRST} bytes of plaintext"),
        format!("{LATER} bytes of plaintext"),
        format!("{} bytes in all", sealed(0)),
        format!("Its head is {HEAD} bytes"),
        format!("with a tag of {TAG} bytes"),
    ] {
        assert!(page.contains(&said), "the page does not say {said:?}");
    }
    assert_eq!(key().to_base64().len(), 44);
}
