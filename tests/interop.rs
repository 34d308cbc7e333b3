//! Others read what we write, and we what they write: Google's Tink, gzip, pigz, Python. None of them has our code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use common::sample::{FIRST, LATER, Recipe, key, noise, read_out, rows};
use common::{Sandbox, python, python_ok, run};
use voxeltron_backup::format::header::Header;
use voxeltron_backup::format::key::{Key, Keyring};
use voxeltron_backup::format::manifest::{self, Trust};
use voxeltron_backup::format::name::Owner;
use voxeltron_backup::pipeline::encrypt::Opener;
use voxeltron_backup::pipeline::gzip::{Compressor, Decompressor};

/// Nothing, a byte, round the first and the second edge of a segment, and some segments.
const LENGTHS: [usize; 9] =
    [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + LATER - 1, FIRST + LATER, FIRST + LATER + 1, 5_000_000];

fn key_text() -> String {
    key().to_base64().to_string()
}

/// A recipe whose names need care in JSON and in keys.
fn awkward() -> Recipe {
    let owner = Owner { instance: "Hôst \"1\"".into(), database: "a/b\\c \u{1f4be}".into() };
    Recipe { owner, job: "näme@x+y".into(), compress: false, ..Recipe::default() }
}

fn pairs(files: &[(PathBuf, PathBuf)]) -> impl Iterator<Item = OsString> + '_ {
    files.iter().flat_map(|(from, to)| [from.clone().into_os_string(), to.clone().into_os_string()])
}

#[test]
fn tink_opens_what_we_seal() {
    let sandbox = Sandbox::new();
    let recipe = awkward();
    let files: Vec<_> = LENGTHS
        .iter()
        .map(|length| {
            let sealed = sandbox.write(&format!("{length}.enc"), recipe.build(&noise(*length)).object);
            (sealed, sandbox.path(&format!("{length}.plain")))
        })
        .collect();
    let args: Vec<OsString> = [key_text().into()].into_iter().chain(pairs(&files)).collect();
    python_ok("tests/interop/tink_open.py", &args, b"");
    for (length, (_, plain)) in LENGTHS.iter().zip(&files) {
        assert!(std::fs::read(plain).unwrap() == noise(*length), "{length} bytes");
    }
}

#[test]
fn tink_refuses_what_was_changed() {
    let sandbox = Sandbox::new();
    let backup = awkward().build(&noise(2_000_000));
    let last = backup.object.len() - 1;
    let mut flipped = backup.object.clone();
    flipped[last] ^= 1;
    let mut header = backup.object.clone();
    header[40] ^= 1;
    for (name, bytes) in [("flipped", &flipped[..]), ("cut", &backup.object[..last]), ("header", &header)] {
        let from = sandbox.write(name, bytes);
        let args = [key_text().into(), from.into_os_string(), sandbox.path("out").into_os_string()];
        assert!(!python("tests/interop/tink_open.py", &args, b"").status.success(), "{name}");
    }
    let from = sandbox.write("good", &backup.object);
    let other = Key::new([9; 32]).to_base64().to_string();
    let args = [other.into(), from.into_os_string(), sandbox.path("out").into_os_string()];
    assert!(!python("tests/interop/tink_open.py", &args, b"").status.success(), "another key");
}

#[test]
fn we_open_what_tink_seals() {
    let sandbox = Sandbox::new();
    let sample = awkward().build(b"");
    let (header, before) = Header::read(&mut &sample.object[..]).unwrap();
    let files: Vec<_> = LENGTHS
        .iter()
        .map(|length| {
            let plain = sandbox.write(&format!("{length}.plain"), noise(*length));
            (plain, sandbox.path(&format!("{length}.enc")))
        })
        .collect();
    let header_file = sandbox.write("header", &before);
    let first: [OsString; 2] = [key_text().into(), header_file.into_os_string()];
    let args: Vec<OsString> = first.into_iter().chain(pairs(&files)).collect();
    python_ok("tests/interop/tink_seal.py", &args, b"");
    for (length, (_, sealed)) in LENGTHS.iter().zip(&files) {
        let sealed = std::fs::read(sealed).unwrap();
        let mut input = &sealed[..];
        assert_eq!(Header::read(&mut input).unwrap(), (header.clone(), before.clone()));
        let plain = read_out(Opener::new(input, &key(), &before).unwrap()).unwrap();
        assert!(plain == noise(*length), "{length} bytes");
    }
}

fn compress(data: &[u8], level: u8, cores: usize) -> Vec<u8> {
    read_out(Compressor::new(data, level, cores).unwrap()).unwrap()
}

#[test]
fn gzip_and_python_open_what_we_compress() {
    for length in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000] {
        for (level, cores) in [(1, 1), (6, 2), (9, 4)] {
            let data = rows(length);
            let packed = compress(&data, level, cores);
            let outcome = run(Command::new("gzip").args(["-d", "-c"]), &packed);
            assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
            assert!(outcome.stdout_bytes.0 == data, "gzip: {length} bytes at level {level}");
            if level == 6 {
                let none: [&str; 0] = [];
                let plain = python_ok("tests/interop/gunzip.py", &none, &packed);
                assert!(plain == data, "Python: {length} bytes");
            }
        }
    }
}

#[test]
fn we_open_what_gzip_and_pigz_compress() {
    let tools: [&[&str]; 6] = [
        &["gzip", "-c"],
        &["gzip", "-9", "-c"],
        &["gzip", "-1", "-n", "-c"],
        &["pigz", "-c", "-p", "2", "-b", "128"],
        &["pigz", "-c", "-i", "-p", "2", "-b", "128"],
        &["pigz", "-c", "-11", "-p", "2"],
    ];
    for length in [0, 1, 200_000, 3_000_000] {
        let data = rows(length);
        for tool in tools.iter().take(if length > 200_000 { 5 } else { 6 }) {
            let outcome = run(Command::new(tool[0]).args(&tool[1..]), &data);
            assert!(outcome.status.success(), "{outcome:?}");
            let plain = read_out(Decompressor::new(&outcome.stdout_bytes.0[..])).unwrap();
            assert!(plain == data, "{tool:?}: {length} bytes");
        }
    }
    // Files put one behind the other are one file, whoever made them.
    let first = run(Command::new("gzip").arg("-c"), b"one ").stdout_bytes.0;
    let second = compress(b"two ", 6, 1);
    let third = run(Command::new("pigz").arg("-c"), b"three").stdout_bytes.0;
    let plain = read_out(Decompressor::new(&[first, second, third].concat()[..])).unwrap();
    assert_eq!(plain, b"one two three");
}

#[test]
fn gzip_refuses_what_was_cut() {
    let packed = compress(&rows(3_000_000), 6, 2);
    let outcome = run(Command::new("gzip").args(["-t"]), &packed[..packed.len() - 1]);
    assert!(!outcome.status.success());
    let none: [&str; 0] = [];
    assert!(!python("tests/interop/gunzip.py", &none, &packed[..packed.len() - 1]).status.success());
}

#[test]
fn another_program_verifies_our_manifest() {
    for recipe in [Recipe::default(), awkward(), Recipe { encrypt: false, ..Recipe::default() }] {
        let backup = recipe.build(&rows(1000));
        let out = python_ok("tests/interop/manifest.py", &[key_text()], &backup.manifest);
        let said: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(said["key_id"], key().id());
        assert_eq!(said["signed"], serde_json::to_value(&backup.signed).unwrap());
        let changed = String::from_utf8(backup.manifest.clone()).unwrap().replace("end of archive", "end of archivE");
        let outcome = python("tests/interop/manifest.py", &[key_text()], changed.as_bytes());
        assert_eq!(outcome.stderr, "the signature does not hold\n");
        let other = [Key::new([9; 32]).to_base64().to_string()];
        let outcome = python("tests/interop/manifest.py", &other, &backup.manifest);
        assert_eq!(outcome.stderr, "signed under another key\n");
    }
}

#[test]
fn we_verify_what_another_program_signs() {
    for recipe in [Recipe::default(), awkward()] {
        let backup = recipe.build(&rows(1000));
        // Another order, white space, and a field that this version does not know.
        let mut value = serde_json::to_value(&backup.signed).unwrap();
        value["of_a_later_version"] = serde_json::json!([1, 2]);
        let text = serde_json::to_string_pretty(&value).unwrap();
        let args = [key_text(), "--sign".to_owned()];
        let made = python_ok("tests/interop/manifest.py", &args, text.as_bytes());
        let read = |keys: &[Key]| {
            manifest::read(&made, &backup.owner, &backup.id, &Keyring::new(keys.iter().cloned())).unwrap()
        };
        assert_eq!(read(&[key()]).trust, Trust::Authentic);
        assert_eq!(read(&[key()]).signed, backup.signed);
        assert!(matches!(read(&[Key::new([9; 32])]).trust, Trust::Unauthenticated(_)));
    }
}
