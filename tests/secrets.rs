//! No secret shows anywhere: a canary stands in every place where a secret can stand, and is looked for in all output at
//! `-v`, in every file that is left, in every process's arguments while the program runs, and in the environment of every
//! process that does not need it. Good runs and failing ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Database, Sandbox, psql};

/// The password. Its parts would show through a cut.
const PASSWORD: &str = "canary-4c2b-password";
/// The key; base64 of 32 bytes.
const KEY: &str = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5MDA=";

/// What a watcher of /proc has seen.
#[derive(Default)]
struct Seen {
    arguments: BTreeSet<String>,
    environments: BTreeSet<String>,
    processes: usize,
}

/// Looks at all processes until `done`.
fn watch(done: &AtomicBool, seen: &mut Seen) {
    let has = |bytes: &[u8]| {
        [PASSWORD, KEY].iter().any(|secret| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()))
    };
    while !done.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let path = entry.path();
            let Ok(command) = fs::read(path.join("cmdline")) else { continue };
            seen.processes += 1;
            if has(&command) {
                seen.arguments.insert(String::from_utf8_lossy(&command).into_owned());
            }
            // The name first: a process that ends in between has shown its environment and has no name any more.
            let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
            if fs::read(path.join("environ")).is_ok_and(|bytes| has(&bytes)) {
                seen.environments.insert(name.trim().to_owned());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends a watcher even when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Place {
    sandbox: Sandbox,
    database: Database,
    user: String,
}

impl Place {
    fn new(name: &str) -> Self {
        let (sandbox, database) = (Sandbox::new(), Database::new());
        let user = format!("canary_{name}_{}", std::process::id());
        psql(database.server_url(), &format!("create role {user} superuser login password '{PASSWORD}'"));
        database.sql("create table t (x int); insert into t select generate_series(1, 1000)");
        for (file, secret) in [("password", PASSWORD), ("key", KEY)] {
            let path = sandbox.write(file, format!("{secret}\n"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { sandbox, database, user }
    }

    /// `postgres://…` of the database as the canary's user, with this before the `@`.
    fn url(&self, password: &str) -> String {
        let (_, host) = self.database.url.rsplit_once('@').unwrap();
        format!("postgres://{}{password}@{host}", self.user)
    }

    fn configure(&self, url: &str, password: &str, key: &str, tools: &Path) {
        let hook = |when: &str| {
            format!(
                "{when} = [\"sh\", \"-c\", \"env > {{dir}}/hook-{when}; tr '\\\\0' '\\\\n' < /proc/$$/environ >> {{dir}}/hook-{when}\"]\n"
            )
        };
        self.sandbox.configure(&format!(
            "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = {key}\n\
             previous_encryption_keys = [{key}]\n\
             [backup.targets.local]\npath = \"{{dir}}/store\"\n\
             [databases.shop]\nengine = \"postgres\"\nurl = {url}\n{password}tools_dir = \"{}\"\n\
             [databases.shop.restore]\n{}{}\
             [[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n{}{}",
            tools.display(),
            hook("before"),
            hook("after"),
            hook("before"),
            hook("after"),
        ));
    }

    /// Runs it at `-v` and looks into all it says; whatever the exit code is.
    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = self.sandbox.command(&[&["-v"], args].concat()).into_command();
        command.env("CREDENTIALS_DIRECTORY", self.sandbox.path(""));
        // A variable that the configuration does not name is none of the program's secrets.
        let text = fs::read_to_string(self.sandbox.config()).unwrap();
        for (name, secret) in [("CANARY_PASSWORD", PASSWORD), ("CANARY_KEY", KEY)] {
            if text.contains(name) {
                command.env(name, secret);
            }
        }
        let outcome = common::run(&mut command, b"");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains(PASSWORD) && !said.contains(KEY), "{args:?}: {said}");
        (outcome.code, said)
    }

    /// Every file but those that the user has put the secrets into.
    fn look_into_files(&self) {
        let own = ["config.toml", "password", "key"].map(|name| self.sandbox.path(name));
        let mut folders = vec![self.sandbox.path("")];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path);
                } else if !own.contains(&path) && !entry.file_type().unwrap().is_symlink() {
                    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                    assert!(!text.contains(PASSWORD) && !text.contains(KEY), "{}", path.display());
                    count += 1;
                }
            }
        }
        assert!(count >= 6, "state, locks, backups and hooks' files: {count}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let sql = format!("drop role if exists {}", self.user);
        let (server, bin) =
            (self.database.server_url(), std::env::var("VOXELTRON_TEST_POSTGRES_BIN").unwrap_or_default());
        let mut command = std::process::Command::new(Path::new(&bin).join("psql"));
        // What can't be dropped goes with the server.
        drop(command.args(["-X", "-q", "-d", server, "-c", &sql]).output());
    }
}

/// The real tools, slowed down so that a watcher sees them.
fn slow_tools(sandbox: &Sandbox) -> std::path::PathBuf {
    let real = std::env::var("VOXELTRON_TEST_POSTGRES_BIN").unwrap();
    for name in ["pg_dump", "pg_restore", "psql"] {
        sandbox.fake_tool(name, &format!("sleep 0.05\nexec {real}/{name} \"$@\""));
    }
    sandbox.path("tools")
}

#[test]
fn from_every_source_in_every_command() {
    let place = Place::new("sources");
    let tools = slow_tools(&place.sandbox);
    let plain = format!("\"{}\"", place.url(""));
    let sources = [
        (format!("\"{}\"", place.url(&format!(":{PASSWORD}"))), String::new(), format!("\"{KEY}\"")),
        (plain.clone(), format!("password = \"{PASSWORD}\"\n"), "{ env = \"CANARY_KEY\" }".to_owned()),
        (plain.clone(), "password = { env = \"CANARY_PASSWORD\" }\n".to_owned(), "{ file = \"{dir}/key\" }".to_owned()),
        (plain.clone(), "password = { file = \"{dir}/password\" }\n".to_owned(), "{ credential = \"key\" }".to_owned()),
        (
            plain.clone(),
            "password = { credential = \"password\" }\n".to_owned(),
            "{ command = [\"cat\", \"{dir}/key\"] }".to_owned(),
        ),
        (plain, "password = { command = [\"cat\", \"{dir}/password\"] }\n".to_owned(), format!("\"{KEY}\"")),
    ];
    let (done, mut seen) = (AtomicBool::new(false), Seen::default());
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&done, &mut seen));
        let _end = Ending(&done);
        for (url, password, key) in sources {
            place.configure(&url, &password, &key, &tools);
            for args in [
                &["run-job", "shop"][..],
                &["check"],
                &["list"],
                &["--json", "list"],
                &["verify", "--restore"],
                &["--json", "status"],
                &["restore", "shop", "--latest", "--dry-run"],
                &["restore", "shop", "--latest"],
                &["prune"],
                &["schedule-check", "--run-new"],
            ] {
                let (code, said) = place.run(args);
                assert_eq!(code, Some(0), "{args:?} with {url} {password} {key}: {said}");
            }
        }
    });
    place.look_into_files();
    assert!(seen.processes > 1000, "the watcher looked at {} processes", seen.processes);
    assert_eq!(seen.arguments, BTreeSet::new());
    // The tools need the password; `sh` is the script that slows them down; the program has what its own environment has.
    let needs = |name: &String| {
        ["pg_dump", "pg_restore", "psql", "sh", "sleep"].contains(&name.as_str()) || name.starts_with("voxeltron-backu")
    };
    let others: Vec<_> = seen.environments.iter().filter(|name| !needs(name)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(seen.environments.contains("pg_dump"), "the watcher has seen the one that has it: {:?}", seen.environments);
}

#[test]
fn when_it_fails() {
    let place = Place::new("failures");
    let real = std::path::PathBuf::from(std::env::var("VOXELTRON_TEST_POSTGRES_BIN").unwrap());
    let key = format!("\"{KEY}\"");
    let with = |password: &str| format!("\"{}\"", place.url(&format!(":{password}")));
    let fails = |url: &str, password: &str, key: &str, tools: &Path| {
        place.configure(url, password, key, tools);
        for args in
            [&["run-job", "shop"][..], &["--json", "run-job", "shop"], &["check"], &["restore", "shop", "--latest"]]
        {
            let (code, said) = place.run(args);
            assert_ne!(code, Some(0), "{args:?} with {url}: {said}");
        }
    };
    // A backup first, so that restores come as far as the server.
    place.configure(&with(PASSWORD), "", &key, &real);
    assert_eq!(place.run(&["run-job", "shop"]).0, Some(0));

    fails(&with(&format!("{PASSWORD}-wrong")), "", &key, &real);
    fails(&with(PASSWORD).replace("127.0.0.1:", "127.0.0.1:1"), "", &key, &real);
    fails(&with(PASSWORD).replace("127.0.0.1", "no-such-host.invalid"), "", &key, &real);
    place.configure(&with(PASSWORD).replace("/t_", "/no_such_t_"), "", &key, &real);
    for args in [&["run-job", "shop"][..], &["check"]] {
        assert_eq!(place.run(args).0, Some(13), "{args:?}");
    }
    // A tool that tells all it knows.
    let tools = place.sandbox.fake_tool(
        "pg_dump",
        &format!("case \"$*\" in *--version*) exec {}/pg_dump --version;; esac\nenv >&2; exit 1", real.display()),
    );
    place.sandbox.fake_tool("pg_restore", "env >&2; exit 1");
    place.sandbox.fake_tool("psql", "env >&2; exit 1");
    fails(&with(PASSWORD), "", &key, &tools);
    // Texts that can't be read as what they should be.
    fails(&format!("\"postgres://u:{PASSWORD}@[::1/x\""), "", &key, &real);
    fails(&format!("\"postgres://u:{PASSWORD}@host:port/x\""), "", &key, &real);
    fails(&format!("\"postgres://u:{PASSWORD}%zz@host/x\""), "", &key, &real);
    fails(&format!("\"{PASSWORD}\""), "", &key, &real);
    fails(&format!("\"postgres://u@h/x?password={PASSWORD}&sslmode=nonsense\""), "", &key, &real);
    fails(&with(PASSWORD), "", &format!("\"{KEY}=\""), &real);
    fails(&with(PASSWORD), "", &format!("\"{}\"", KEY.trim_end_matches('=')), &real);
    fails(&with(PASSWORD), "password = { command = [\"sh\", \"-c\", \"cat {dir}/password; exit 3\"] }\n", &key, &real);
    fails(&with(PASSWORD), &format!("pasword = \"{PASSWORD}\"\n"), &key, &real);
    fails(&with(PASSWORD), &format!("password = [\"{PASSWORD}\"]\n"), &key, &real);
    fails(&with(PASSWORD), &format!("password = {{ text = \"{PASSWORD}\" }}\n"), &key, &real);
    fails(&with(PASSWORD), &format!("password = \"{PASSWORD}\npassword = 3\n"), &key, &real);
    place.look_into_files();
}
