//! `examples/recover.py`, written from the description of the format and without our code, recovers every kind of
//! backup, and refuses, leaving nothing, whatever was tampered with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use common::sample::{Backup, FIRST, LATER, Recipe, SEGMENT, key, noise, rows};
use common::{Outcome, Sandbox, python, repository};
use voxeltron_backup::format::key::Key;

struct Recovering {
    sandbox: Sandbox,
}

impl Recovering {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.write("key", format!("{}\n", *key().to_base64()));
        Self { sandbox }
    }

    fn run(&self, object: &[u8], manifest: Option<&[u8]>) -> (Outcome, Option<Vec<u8>>) {
        let backup = self.sandbox.write("backup", object);
        let output = self.sandbox.path("store/dump");
        drop(std::fs::remove_file(&output));
        let mut args = vec![self.sandbox.path("key"), backup, output.clone()];
        if let Some(manifest) = manifest {
            args.extend(["--manifest".into(), self.sandbox.write("manifest", manifest)]);
        }
        let outcome = python("examples/recover.py", &args, b"");
        let dump = std::fs::read(&output).ok();
        let others = std::fs::read_dir(self.sandbox.store())
            .unwrap()
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path() != output));
        assert_eq!(others.count(), 0, "no temporary file stays");
        (outcome, dump)
    }

    fn refuses(&self, object: &[u8], manifest: Option<&[u8]>, why: &str) {
        let (outcome, dump) = self.run(object, manifest);
        assert!(outcome.code.is_some_and(|code| code != 0), "{why}: {outcome:?}");
        assert!(outcome.stderr.contains(why), "{why}: {outcome:?}");
        assert!(dump.is_none(), "{why}: nothing is left");
    }

    fn gives(&self, backup: &Backup, with_manifest: bool, dump: &[u8]) {
        let (outcome, recovered) = self.run(&backup.object, with_manifest.then_some(&backup.manifest[..]));
        assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
        assert!(recovered.is_some_and(|bytes| bytes == dump), "{} bytes", dump.len());
    }
}

#[test]
fn every_kind_of_backup_is_recovered() {
    let recovering = Recovering::new();
    for (compress, encrypt) in [(true, true), (false, true), (true, false), (false, false)] {
        let recipe = Recipe { compress, encrypt, ..Recipe::default() };
        for dump in [Vec::new(), b"x".to_vec(), rows(3_000_000), noise(2_500_000)] {
            let backup = recipe.build(&dump);
            recovering.gives(&backup, true, &dump);
            if encrypt {
                recovering.gives(&backup, false, &dump);
            }
        }
    }
}

#[test]
fn every_length_round_the_edges_is_recovered() {
    let recovering = Recovering::new();
    let recipe = Recipe { compress: false, ..Recipe::default() };
    for edge in [FIRST, FIRST + LATER] {
        for length in edge - 1..=edge + 1 {
            recovering.gives(&recipe.build(&noise(length)), false, &noise(length));
        }
    }
}

#[test]
fn whatever_was_tampered_with_is_refused_and_nothing_is_left() {
    let recovering = Recovering::new();
    let backup = Recipe::default().build(&noise(2_500_000));
    let object = &backup.object;
    for at in [0, 9, 40, backup.header_bytes, backup.header_bytes + 1, backup.header_bytes + 33] {
        let mut bad = object.clone();
        bad[at] ^= 1;
        recovering.refuses(&bad, None, "");
    }
    for number in 0..backup.segments() {
        let segment = backup.segment(number);
        let mut bad = object.clone();
        bad[segment.start + 5] ^= 0x80;
        recovering.refuses(&bad, None, &format!("segment {} does not authenticate", number + 1));
        recovering.refuses(&object[..segment.end - 1], None, "does not authenticate");
        if segment.end < object.len() {
            recovering.refuses(&object[..segment.end], None, "does not authenticate");
        }
    }
    recovering.refuses(&[object, &b"x"[..]].concat(), None, "does not authenticate");
    recovering.refuses(&object[..backup.header_bytes + 20], None, "cut or damaged behind its header");
    recovering.refuses(b"", None, "not an encrypted backup");
    recovering.refuses(&object[..SEGMENT], Some(&backup.manifest), "does not authenticate");
    let other = Recipe { job: "other".into(), ..Recipe::default() }.build(&noise(2_500_000));
    recovering.refuses(object, Some(&other.manifest), "the manifest is another backup's");
    let unsigned = Recipe { key: None, encrypt: false, ..Recipe::default() }.build(b"x");
    recovering.refuses(&unsigned.object, Some(&unsigned.manifest), "not signed under this key");
    recovering.refuses(&unsigned.object, None, "not an encrypted backup");
    // An unencrypted file in the place of an encrypted one, whose signed manifest says that it is encrypted.
    recovering.refuses(&unsigned.object, Some(&backup.manifest), "not an encrypted backup");
    let plain = Recipe { encrypt: false, ..Recipe::default() }.build(&rows(100_000));
    let mut longer = plain.object.clone();
    longer.extend_from_slice(&plain.object);
    recovering.refuses(&longer, Some(&plain.manifest), "not the one that the manifest describes");
    recovering.refuses(&plain.object[..plain.object.len() - 9], Some(&plain.manifest), "cut");
}

#[test]
fn another_key_is_refused() {
    let recovering = Recovering::new();
    let backup = Recipe { key: Some(Key::new([9; 32])), ..Recipe::default() }.build(b"x");
    recovering.refuses(&backup.object, None, "segment 1 does not authenticate");
    recovering.refuses(&backup.object, Some(&backup.manifest), "not signed under this key");
}

#[test]
fn it_stays_short_and_has_nothing_of_ours() {
    let text = std::fs::read_to_string(repository("examples/recover.py")).unwrap();
    assert!(text.lines().count() < 80, "{} lines", text.lines().count());
    let known = ["argparse", "base64", "hashlib", "hmac", "itertools", "json", "os", "tempfile", "zlib"];
    for line in text.lines() {
        if let Some(names) = line.strip_prefix("import ") {
            assert!(names.split(", ").all(|name| known.contains(&name)), "{line}");
        } else if line.starts_with("from ") {
            assert!(line.starts_with("from cryptography.") || line.starts_with("from sys "), "{line}");
        }
    }
}
