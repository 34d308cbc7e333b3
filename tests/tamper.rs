//! Whatever is done to a stored backup, a restore refuses it with its own message and exit code 12, leaves no output
//! file, and does not touch the database. By the program itself, on SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Sandbox, sqlite3};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Another.
const OTHER_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
/// A segment of ciphertext, in bytes.
const SEGMENT: usize = 1024 * 1024;

struct Store {
    sandbox: Sandbox,
}

fn config(key: &str, encrypt: bool) -> String {
    let job = |name: &str| {
        format!(
            "[databases.{name}]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/{name}.db\"\n\
             [[backup.jobs]]\ndatabase = \"{name}\"\nschedule = \"@daily\"\nencrypt = {encrypt}\ncompress = false\n"
        )
    };
    format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{key}\"\n\
         [backup.targets.local]\npath = \"{{dir}}/store\"\n{}{}",
        job("one"),
        job("two")
    )
}

impl Store {
    /// Two databases of some segments each, backed up.
    fn new(encrypt: bool) -> Self {
        let sandbox = Sandbox::new();
        sandbox.configure(&config(KEY, encrypt));
        for name in ["one", "two"] {
            let fill = "create table t (id integer primary key, noise blob);
                        with recursive n(i) as (select 1 union all select i + 1 from n where i < 2600)
                        insert into t select i, randomblob(1000) from n;";
            sqlite3(&sandbox.path(&format!("{name}.db")), fill);
        }
        sandbox.command(&["-q", "run-job", "--all"]).run();
        Self { sandbox }
    }

    fn file(&self, database: &str, ending: &str) -> PathBuf {
        let folder = self.sandbox.store().join("host").join(database);
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files = files.filter(|path| path.to_str().unwrap().ends_with(ending));
        let file = files.next().expect("a stored file");
        assert!(files.next().is_none(), "one backup only");
        file
    }

    fn object(&self, database: &str) -> PathBuf {
        self.file(database, if self.sandbox.config().exists() && self.encrypted() { ".enc" } else { ".sqlite" })
    }

    fn encrypted(&self) -> bool {
        fs::read_to_string(self.sandbox.config()).unwrap().contains("encrypt = true")
    }

    fn manifest(&self, database: &str) -> PathBuf {
        self.file(database, ".manifest.json")
    }

    fn digest(&self) -> String {
        sqlite3(&self.sandbox.path("one.db"), "select count(*), sum(length(noise)), hex(max(noise)) from t")
    }

    /// Every way to use the damaged backup fails with code 12; gives what the restore said.
    fn refused(&self) -> String {
        let before = self.digest();
        let restore = |more: &[&str]| {
            let args = [&["restore", "one", "--latest"], more].concat();
            self.sandbox.command(&args).exits(12).stderr_any().run().stderr
        };
        let said = restore(&[]);
        assert_eq!(self.digest(), before, "the database was touched");
        let said_of_file = restore(&["--output", "out.sqlite"]);
        restore(&["--into", self.sandbox.path("beside.db").to_str().unwrap()]);
        self.sandbox.command(&["verify", "one"]).exits(12).stderr_any().run();
        let left: Vec<_> =
            fs::read_dir(self.sandbox.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let ours = |name: &&std::ffi::OsString| {
            let name = name.to_str().unwrap();
            name.starts_with("out") || name.starts_with("beside") || name.starts_with('.')
        };
        assert_eq!(left.iter().find(ours), None, "something was left behind");
        let data = fs::read_dir(self.sandbox.data_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!data.into_iter().any(|name| name.contains("partial")), "a temporary file was left behind");
        assert!(said_of_file.contains("error: "), "{said_of_file}");
        self.reason(&said)
    }

    /// The error's text without what differs between runs.
    fn reason(&self, said: &str) -> String {
        let lines = said.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned);
        let text = lines.collect::<Vec<_>>().join("\n").replace(self.sandbox.path("").to_str().unwrap(), "/dir/");
        // Ids, sizes and digests differ.
        let mut out = String::new();
        let mut digits = 0;
        for c in text.chars() {
            digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
            match digits {
                0 => out.push(c),
                1 => out.push('N'),
                _ => {}
            }
        }
        out
    }

    /// What is said after `change` was made to a file; the file is put back.
    fn after(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let good = fs::read(path).unwrap();
        let mut bad = good.clone();
        change(&mut bad);
        assert_ne!(good, bad, "nothing was changed");
        fs::write(path, bad).unwrap();
        let said = self.refused();
        fs::write(path, good).unwrap();
        said
    }
}

fn header_length(bytes: &[u8]) -> usize {
    12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize
}

#[test]
fn cuts_at_and_round_every_segments_edge() {
    let store = Store::new(true);
    let object = store.object("one");
    let bytes = fs::read(&object).unwrap();
    let start = header_length(&bytes);
    assert!(bytes.len() > start + 2 * SEGMENT, "more than two segments");
    let edges = [0, 8, 12, start, start + 40, start + SEGMENT, start + 2 * SEGMENT, bytes.len()];
    let mut said = BTreeSet::new();
    for edge in edges {
        for length in [edge.saturating_sub(1), edge, edge + 1] {
            if length < bytes.len() {
                said.insert(store.after(&object, |bytes| bytes.truncate(length)));
            }
        }
    }
    insta::assert_snapshot!(said.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_flipped_bit_in_every_region() {
    let store = Store::new(true);
    let object = store.object("one");
    let bytes = fs::read(&object).unwrap();
    let start = header_length(&bytes);
    let regions = [
        ("magic", 0),
        ("header's length", 10),
        ("header", 20),
        ("header's end", start - 1),
        ("length of the head", start),
        ("salt", start + 5),
        ("nonce", start + 35),
        ("first segment", start + 40),
        ("first tag", start + SEGMENT - 1),
        ("second segment", start + SEGMENT),
        ("last segment", start + 2 * SEGMENT + 5),
        ("last tag", bytes.len() - 1),
    ];
    let said = regions.map(|(region, at)| format!("{region}: {}", store.after(&object, |bytes| bytes[at] ^= 1)));
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn segments_swapped_repeated_dropped_and_bytes_added() {
    let store = Store::new(true);
    let object = store.object("one");
    let start = header_length(&fs::read(&object).unwrap());
    let (second, third) = (start + SEGMENT, start + 2 * SEGMENT);
    let said = [
        store.after(&object, |bytes| {
            let first: Vec<u8> = bytes[start..second].to_vec();
            bytes.copy_within(second..third, start);
            bytes[second..third].copy_from_slice(&first);
        }),
        store.after(&object, |bytes| {
            let again = bytes[second..third].to_vec();
            bytes.splice(third..third, again);
        }),
        store.after(&object, |bytes| drop(bytes.drain(second..third))),
        store.after(&object, |bytes| bytes.push(0)),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn files_swapped_between_two_databases() {
    let store = Store::new(true);
    let (one, two) = (store.object("one"), store.object("two"));
    let aside = store.sandbox.path("aside");
    let swap = |a: &Path, b: &Path| {
        fs::rename(a, &aside).unwrap();
        fs::rename(b, a).unwrap();
        fs::rename(&aside, b).unwrap();
    };
    swap(&one, &two);
    let objects = store.refused();
    // The manifests, too: then each backup is whole, but another database's.
    let (manifest_one, manifest_two) = (store.manifest("one"), store.manifest("two"));
    swap(&manifest_one, &manifest_two);
    let both = store.refused();
    insta::assert_snapshot!(format!("{objects}\n{both}"));
}

#[test]
fn the_wrong_key() {
    let store = Store::new(true);
    store.sandbox.configure(&config(OTHER_KEY, true));
    insta::assert_snapshot!(store.refused().replace(|c: char| c.is_ascii_hexdigit() && c.is_ascii_digit(), "N"));
}

#[test]
fn an_edited_a_forged_and_an_unsigned_manifest() {
    let store = Store::new(true);
    let manifest = store.manifest("one");
    let edit = |from: &str, to: &str| {
        store.after(&manifest, |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{from} is not in {text}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        })
    };
    let said = [
        edit("\\\"dump_bytes\\\":", "\\\"dump_bytes\\\":1"),
        edit("\"hmac\": \"", "\"hmac\": \"00"),
        edit("\"format\": 1", "\"format\": 2"),
        edit("\\\"database\\\":\\\"one\\\"", "\\\"database\\\":\\\"two\\\""),
        store.after(&manifest, |bytes| {
            let mut document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            document["hmac"] = serde_json::Value::Null;
            document["key_id"] = serde_json::Value::Null;
            *bytes = serde_json::to_vec(&document).unwrap();
        }),
        store.after(&manifest, |bytes| bytes.truncate(bytes.len() / 2)),
        store.after(&manifest, |bytes| bytes.clear()),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_backup_without_encryption_is_held_by_its_manifest() {
    let store = Store::new(false);
    let object = store.object("one");
    let said = [
        store.after(&object, |bytes| bytes[200_000] ^= 1),
        store.after(&object, |bytes| bytes.truncate(4096)),
        store.after(&object, |bytes| bytes.extend([0; 4096])),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn what_does_not_authenticate_is_taken_only_when_that_is_said() {
    let store = Store::new(true);
    let manifest = store.manifest("one");
    let mut document: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    document["hmac"] = serde_json::Value::Null;
    fs::write(&manifest, serde_json::to_vec(&document).unwrap()).unwrap();
    let listed = store.sandbox.command(&["list", "one"]).stdout_has("! its manifest is not signed").run();
    assert!(!listed.stdout.contains("encrypted"), "{}", listed.stdout);
    store.refused();
    let before = store.digest();
    sqlite3(&store.sandbox.path("one.db"), "delete from t");
    store
        .sandbox
        .command(&["restore", "one", "--latest", "--allow-unauthenticated"])
        .stderr_has("warning: ")
        .stderr_has("does not authenticate")
        .run();
    assert_eq!(store.digest(), before);
}

#[test]
fn a_manifest_whose_object_is_gone_says_so() {
    let store = Store::new(true);
    fs::remove_file(store.object("one")).unwrap();
    store.sandbox.command(&["list", "one"]).stdout_has("! its object is missing").run();
    store
        .sandbox
        .command(&["restore", "one", "--latest"])
        .exits(14)
        .stderr_has("no such file")
        .stderr_has("hint:")
        .run();
}
