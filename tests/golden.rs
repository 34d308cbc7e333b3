//! Backups of every past format, kept in `tests/golden`, open for ever: by this version, by `examples/recover.py`, by
//! Google's Tink and by the tools that make such files. They are only read here.
//!
//! They were made once by the last test below, with `VOXELTRON_TEST_WRITE_GOLDEN=tests/golden/format-N`. Those of a
//! format that has been released are never made again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::sample::{self, Recipe, key};
use common::{Database, Sandbox, postgres_tool, python_ok, repository, run};
use voxeltron_backup::catalog::{self, Entry, OpenTarget};
use voxeltron_backup::format::key::{Key, Keyring};
use voxeltron_backup::format::manifest::Trust;
use voxeltron_backup::target::Target;
use voxeltron_backup::target::local::Local;

/// Compressed or not, encrypted or not, by the job's name.
const KINDS: [(&str, bool, bool); 4] =
    [("encrypted+gzip", true, true), ("encrypted", false, true), ("gzip", true, false), ("plain", false, false)];

/// A folder of golden backups: `key`, `dump`, and `store` as a target has it.
struct Golden {
    store: Local,
    folder: std::path::PathBuf,
    key_text: String,
    dump: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

impl Golden {
    fn read(folder: &Path) -> Self {
        let key_text = std::fs::read_to_string(folder.join("key")).unwrap().trim_end().to_owned();
        let keys = Keyring::new([Key::parse(&key_text).unwrap()]);
        let store = || Local::new("golden", &folder.join("store"));
        let open = OpenTarget { name: "golden".into(), is_local: true, target: std::sync::Arc::new(store()) };
        let catalog = catalog::read(&open, "", &mut |_| Ok(keys.clone())).unwrap();
        assert!(catalog.orphans.is_empty(), "{:?}", catalog.orphans);
        let entries: BTreeMap<String, Entry> =
            catalog.entries.into_iter().map(|entry| (entry.id.job().unwrap(), entry)).collect();
        let mut names: Vec<&str> = KINDS.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        assert_eq!(entries.keys().map(String::as_str).collect::<Vec<_>>(), names);
        let dump = std::fs::read(folder.join("dump")).unwrap();
        Self { store: store(), folder: folder.to_owned(), key_text, dump, entries }
    }

    fn path(&self, key: &str) -> std::path::PathBuf {
        self.folder.join("store").join(key)
    }

    fn object(&self, name: &str) -> std::path::PathBuf {
        self.path(&self.entries[name].signed().unwrap().object)
    }

    /// This version opens them, and believes their manifests.
    fn opens_here(&self) {
        let keys = Keyring::new([Key::parse(&self.key_text).unwrap()]);
        for (name, compress, encrypt) in KINDS {
            let entry = &self.entries[name];
            let manifest = entry.manifest.as_ref().unwrap();
            assert_eq!((&manifest.trust, entry.damage()), (&Trust::Authentic, None), "{name}");
            let signed = &manifest.signed;
            assert_eq!((signed.compression == "gzip", signed.is_encrypted()), (compress, encrypt), "{name}");
            let object = self.store.get(&entry.object.as_ref().unwrap().key).unwrap();
            let manifest = std::fs::read(self.path(entry.manifest_key.as_str())).unwrap();
            let dump = sample::open(object, &manifest, &entry.owner, &entry.id, &keys).unwrap();
            assert!(dump == self.dump, "{name}");
        }
    }

    /// The script that has none of our code recovers them.
    fn opens_with_recover_py(&self) {
        let sandbox = Sandbox::new();
        for (name, _, encrypt) in KINDS {
            let (output, manifest) = (sandbox.path(name), self.path(self.entries[name].manifest_key.as_str()));
            let mut args = vec![self.folder.join("key"), self.object(name), output.clone()];
            python_ok("examples/recover.py", &[&args[..], &["--manifest".into(), manifest]].concat(), b"");
            assert!(std::fs::read(&output).unwrap() == self.dump, "{name}");
            if encrypt {
                args[2] = sandbox.path("without-manifest");
                python_ok("examples/recover.py", &args, b"");
                assert!(std::fs::read(&args[2]).unwrap() == self.dump, "{name}");
            }
        }
    }

    /// Google's Tink opens those that are encrypted, and gzip those that are compressed.
    fn opens_with_tink_and_gzip(&self) {
        let sandbox = Sandbox::new();
        for (name, compress, encrypt) in KINDS {
            let mut path = self.object(name);
            if encrypt {
                let output = sandbox.path(name);
                python_ok("tests/interop/tink_open.py", &[Path::new(&self.key_text), &path, &output], b"");
                path = output;
            }
            let mut bytes = std::fs::read(path).unwrap();
            if compress {
                let outcome = run(Command::new("gzip").args(["-d", "-c"]), &bytes);
                assert!(outcome.status.success() && outcome.stderr.is_empty(), "{name}: {outcome:?}");
                bytes = outcome.stdout_bytes.0;
            }
            assert!(bytes == self.dump, "{name}");
        }
        let listed = run(postgres_tool("pg_restore").args(["-f", "-"]), &self.dump);
        assert!(listed.status.success() && listed.stdout.contains("COPY public.customer"), "{listed:?}");
    }

    /// The program itself writes their dumps out, and verifies them.
    fn opens_with_the_program(&self) {
        for (name, compress, encrypt) in KINDS {
            let sandbox = Sandbox::new();
            let entry = &self.entries[name];
            for key in [entry.manifest_key.as_str(), &entry.signed().unwrap().object] {
                let to = sandbox.store().join(key);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(self.path(key), to).unwrap();
            }
            let job = format!(
                "[databases.shop]\nengine = \"postgres\"\nurl = \"postgres://127.0.0.1:1/shop\"\n[[backup.jobs]]\n\
                 name = \"{name}\"\ndatabase = \"shop\"\nschedule = \"@daily\"\ncompress = {compress}\nencrypt = {encrypt}\n"
            );
            sandbox.configure_local(Some(&self.key_text), &job);
            let output = sandbox.path("dump");
            let path = output.to_str().unwrap();
            sandbox.command(&["-q", "restore", "shop", "--timestamp", "2026-02-25T03:00:00Z", "--output", path]).run();
            assert!(std::fs::read(&output).unwrap() == self.dump, "{name}");
            sandbox.command(&["verify", "shop", "--all"]).stdout_any().stderr_any().run();
        }
    }

    /// A program without our code believes their manifests.
    fn verifies_with_python(&self) {
        for entry in self.entries.values() {
            let manifest = std::fs::read(self.path(entry.manifest_key.as_str())).unwrap();
            let out = python_ok("tests/interop/manifest.py", &[&self.key_text], &manifest);
            let said: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(said["signed"], serde_json::to_value(entry.signed().unwrap()).unwrap());
        }
    }
}

fn format_1() -> Golden {
    Golden::read(&repository("tests/golden/format-1"))
}

#[test]
fn format_1_opens_here() {
    format_1().opens_here();
}

#[test]
fn format_1_opens_with_recover_py() {
    format_1().opens_with_recover_py();
}

#[test]
fn format_1_opens_with_tink_and_gzip() {
    format_1().opens_with_tink_and_gzip();
}

#[test]
fn format_1_opens_with_the_program() {
    format_1().opens_with_the_program();
}

#[test]
fn format_1_verifies_with_python() {
    format_1().verifies_with_python();
}

#[test]
fn what_is_written_now_passes_the_same() {
    let sandbox = Sandbox::new();
    let folder = std::env::var_os("VOXELTRON_TEST_WRITE_GOLDEN").map_or_else(|| sandbox.path("golden"), Into::into);
    let folder = repository("").join(folder);
    assert!(!folder.join("store").exists(), "{} has golden backups already", folder.display());
    let database = Database::new();
    database.sql(
        "create table customer (id int primary key, name text);
         insert into customer values (1, 'Ada'), (2, 'Grace'), (3, 'Ünï');
         create view view as select name from customer",
    );
    let dump = run(postgres_tool("pg_dump").args(["-Fc", "-Z0", "-d"]).arg(&database.url), b"");
    assert!(dump.status.success(), "{dump:?}");
    let dump = dump.stdout_bytes.0;
    let store = Local::new("golden", &folder.join("store"));
    for (seed, (name, compress, encrypt)) in (1u8..).zip(KINDS) {
        let recipe = Recipe { job: name.into(), compress, encrypt, ..Recipe::default() }.fixed(seed * 16);
        let backup = recipe.build(&dump);
        store.put(&backup.object_key, &mut &backup.object[..]).unwrap();
        store.put(&backup.manifest_key, &mut &backup.manifest[..]).unwrap();
    }
    std::fs::write(folder.join("key"), format!("{}\n", *key().to_base64())).unwrap();
    std::fs::write(folder.join("dump"), dump).unwrap();
    let golden = Golden::read(&folder);
    golden.opens_here();
    golden.opens_with_recover_py();
    golden.opens_with_tink_and_gzip();
    golden.verifies_with_python();
    golden.opens_with_the_program();
}
