//! What users see is one thing: help, manual pages, completions, the exit table, the JSON schema, the examples and the
//! README agree with the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Sandbox, python, repository, sqlite3};
use serde_json::Value;
use voxeltron_backup::cli;
use voxeltron_backup::command::pages;
use voxeltron_backup::error::Kind;
use voxeltron_backup::exit::Exit;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Shells whose completions the repository holds, with the names that their package folders use.
const SHELLS: [(clap_complete::Shell, &str); 3] = [
    (clap_complete::Shell::Bash, "voxeltron-backup.bash"),
    (clap_complete::Shell::Fish, "voxeltron-backup.fish"),
    (clap_complete::Shell::Zsh, "_voxeltron-backup"),
];

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A roff page without its markup.
fn plain(roff: &str) -> String {
    roff.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
}

/// A text without its line breaks.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Compares a committed file with what the program makes; `VOXELTRON_TEST_WRITE=1` writes it instead.
fn same(path: &str, made: &str) {
    if std::env::var_os("VOXELTRON_TEST_WRITE").is_some() {
        fs::create_dir_all(repository(path).parent().unwrap()).unwrap();
        fs::write(repository(path), made).unwrap();
    }
    assert!(read(path) == made, "{path} is not what the program makes; run the tests with VOXELTRON_TEST_WRITE=1");
}

#[test]
fn manual_pages_and_completions_are_the_programs_own() {
    for (name, text) in pages::manual().unwrap() {
        same(&format!("man/{name}"), &text);
    }
    for (shell, name) in SHELLS {
        same(&format!("completions/{name}"), &String::from_utf8(pages::completion_script(shell)).unwrap());
    }
    let made: BTreeSet<String> = pages::manual().unwrap().into_iter().map(|(name, _)| name).collect();
    let committed =
        fs::read_dir(repository("man")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(committed.collect::<BTreeSet<_>>(), made, "no page of a command that is gone");
}

#[test]
fn every_flag_is_in_help_manual_and_completions() {
    let mut command = cli::command();
    command.build();
    let sandbox = Sandbox::new();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = sub.get_name();
        let help = sandbox.command(&[name, "--help"]).stdout_any().run().stdout;
        let page = plain(&read(&format!("man/voxeltron-backup-{name}.1")));
        for flag in sub.get_arguments().filter_map(clap::Arg::get_long).filter(|flag| *flag != "version") {
            for (place, text) in [("help", &help), ("manual", &page)] {
                assert!(text.contains(&format!("--{flag}")), "--{flag} of {name} is not in its {place}");
            }
            for (_, file) in SHELLS {
                assert!(read(&format!("completions/{file}")).contains(flag), "--{flag} of {name} is not in {file}");
            }
        }
        assert!(plain(&read("man/voxeltron-backup.1")).contains(name), "{name} is not in the manual");
    }
}

#[test]
fn the_exit_table_is_whole_and_the_same_everywhere() {
    let sandbox = Sandbox::new();
    let help = sandbox.command(&["--help"]).stdout_any().run().stdout;
    let page = plain(&read("man/voxeltron-backup.1"));
    let kinds = [
        Kind::Other,
        Kind::Usage,
        Kind::Partial,
        Kind::Config,
        Kind::Locked,
        Kind::Authentication,
        Kind::Tool,
        Kind::Target,
        Kind::NoBackup,
        Kind::Hook,
        Kind::Stopped(1),
        Kind::Stopped(2),
        Kind::Stopped(15),
    ];
    for (exit, meaning) in Exit::ALL {
        let line = format!("{} {meaning}", exit.code());
        assert!(joined(&help).contains(&line), "{line:?} is not in the help");
        assert!(joined(&page).contains(&line), "{line:?} is not in the manual");
        assert!(exit == Exit::Done || kinds.iter().any(|kind| Exit::from(*kind) == exit), "{meaning} never happens");
    }
    let codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
    assert_eq!(codes, [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 129, 130, 143]);
}

#[test]
fn every_json_document_fits_its_schema() {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1)");
    let database = "[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{dir}/shop.db\"\n";
    let job = "[[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\nkeep_last = 1\n";
    sandbox.configure_local(Some(KEY), &format!("{database}{job}"));
    let mut documents = Vec::new();
    let mut json = |args: &[&str], code: i32| {
        let outcome = sandbox.command(&[&["--json"], args].concat()).exits(code).stdout_any().stderr_any().run();
        let document: Value =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {outcome:?}"));
        assert_eq!(
            document.get("error").is_some(),
            ![0, 3].contains(&code) && document.as_object().unwrap().len() == 3,
            "{args:?}: {document}"
        );
        documents.push(document.to_string());
    };
    json(&["restore", "shop", "--latest"], 15);
    json(&["status"], 0);
    json(&["schedule-check"], 0);
    json(&["schedule-check"], 0);
    json(&["schedule-check", "--dry-run"], 0);
    json(&["schedule-check", "--run-new"], 0);
    json(&["run-job", "--all"], 0);
    json(&["pin", "shop", "--latest"], 0);
    json(&["list"], 0);
    json(&["unpin", "shop", "--latest"], 0);
    json(&["verify"], 0);
    json(&["verify", "--restore", "--all"], 0);
    json(&["restore", "shop", "--latest", "--dry-run"], 0);
    json(&["restore", "shop", "--undo"], 15);
    json(&["restore", "shop", "--latest"], 0);
    json(&["list"], 0);
    json(&["restore", "shop", "--undo", "--dry-run"], 0);
    json(&["restore", "shop", "--undo"], 0);
    json(&["restore", "shop", "--latest", "--output", "out"], 0);
    json(&["restore", "shop", "--timestamp", "2020-01-01"], 15);
    json(&["restore", "nothing", "--latest"], 2);
    json(&["restore", "shop", "--latest", "--output", "-"], 2);
    json(&["prune", "--dry-run"], 0);
    json(&["prune"], 0);
    json(&["check"], 0);
    json(&["check", "--offline"], 0);
    json(&["keygen"], 0);
    json(&["man", "pages"], 0);
    json(&["demo"], 0);
    json(&["demo", "demo"], 0);
    json(&["demo", "demo"], 2);
    // And when it goes wrong.
    fs::write(sandbox.store().join("host/shop/20260101T000000Z-shop@local.manifest.json"), "{").unwrap();
    json(&["list"], 0);
    json(&["verify", "--all"], 3);
    fs::rename(sandbox.path("shop.db"), sandbox.path("away.db")).unwrap();
    json(&["run-job", "shop"], 13);
    json(&["check"], 13);
    json(&["status"], 3);
    fs::rename(sandbox.store(), sandbox.path("away")).unwrap();
    json(&["list"], 14);
    json(&["prune"], 14);
    json(&["verify"], 14);
    fs::write(sandbox.config(), "[backup]\nx = 1\n").unwrap();
    json(&["list"], 10);
    json(&["schedule-check"], 10);

    let schema = repository("docs/json-output.schema.json");
    let outcome = python("tests/reference/validate.py", &[schema], documents.join("\n").as_bytes());
    assert!(outcome.status.success(), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn the_examples_load() {
    let sandbox = Sandbox::new();
    for name in ["backup-key", "shop-password"] {
        let path = sandbox.write(name, KEY);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let readme = read("README.md");
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 1, "the README's configuration");
    for text in [read("examples/config.toml"), blocks[0].to_owned()] {
        sandbox.configure(&text);
        let outcome = sandbox
            .command(&["schedule-check", "--dry-run"])
            .env("VOXELTRON_BACKUP_DATA_DIR", sandbox.data_dir())
            .stdout_has("wait")
            .run();
        assert_eq!(outcome.stdout.lines().count(), 3, "two jobs and a heading: {}", outcome.stdout);
    }
}

#[test]
fn the_examples_of_clusters_are_what_they_say() {
    // The configuration in their heads loads, with a target and a job.
    for name in ["examples/kubernetes/cronjob.yaml", "examples/nomad/voxeltron-backup.nomad.hcl"] {
        let text = read(name);
        let lines = text.lines().skip_while(|line| *line != "# In config.toml:").skip(1);
        let head: Vec<&str> = lines.map_while(|line| line.strip_prefix("#   ")).collect();
        assert!(head.len() > 5, "{name}: {head:?}");
        let bucket = "bucket = \"b\"\naccess_key = \"k\"\n";
        let config = head.join("\n").replace("[backup.targets.s3]\n", &format!("[backup.targets.s3]\n{bucket}"));
        let sandbox = Sandbox::new();
        sandbox.configure(&format!("{config}\n[[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@daily\"\n"));
        let run = sandbox.command(&["schedule-check", "--dry-run"]);
        let run = run.env("VOXELTRON_BACKUP_DATA_DIR", sandbox.data_dir()).stdout_has("shop@s3");
        run.stderr_has("what this host knew last of the state at s3").run();
    }
    let cronjob = read("examples/kubernetes/cronjob.yaml");
    let yaml = common::python_ok::<&str>("tests/reference/yaml_to_json.py", &[], cronjob.as_bytes());
    let documents: Value = serde_json::from_slice(&yaml).unwrap();
    let spec = &documents[0]["spec"];
    assert_eq!((&documents[0]["kind"], &spec["schedule"]), (&"CronJob".into(), &"* * * * *".into()));
    assert_eq!(spec["concurrencyPolicy"], "Allow", "a tick must not wait for a long job");
    let pod = &spec["jobTemplate"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!((&container["args"], &pod["restartPolicy"]), (&serde_json::json!(["schedule-check"]), &"Never".into()));
    // Every mount has its volume, and the folders of the configuration are among them.
    let names = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
    let paths: Vec<&str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    assert!(["/data", "/etc/voxeltron"].iter().all(|path| paths.contains(path)), "{paths:?}");
    // Nomad's own language has no reader here: its brackets are counted.
    let nomad = read("examples/nomad/voxeltron-backup.nomad.hcl");
    for (open, close) in [('{', '}'), ('[', ']')] {
        assert_eq!(nomad.matches(open).count(), nomad.matches(close).count());
    }
    assert!(nomad.contains("prohibit_overlap = false") && nomad.contains("\"schedule-check\"]"));
}

#[test]
fn every_key_of_the_configuration_is_in_the_example() {
    let example = read("examples/config.toml");
    let readers =
        ["string", "path", "boolean", "integer", "duration", "strings", "command", "secret", "secrets", "table", "key"];
    let mut keys = BTreeSet::new();
    for file in ["src/config/mod.rs", "src/config/jobs.rs", "src/target/local.rs", "src/target/s3/settings.rs"] {
        let text = read(file);
        for (at, _) in text.match_indices("(\"") {
            let word = text[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            if readers.contains(&word.trim_start_matches("required_")) || word == "count" {
                keys.insert(text[at + 2..].split('"').next().unwrap().to_owned());
            }
        }
    }
    assert!(keys.contains("retention_days") && keys.contains("data_dir") && keys.len() > 25, "{keys:?}");
    for key in keys {
        let here = |line: &str| {
            line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} =")) || line.contains(&format!(".{key} ="))
        };
        let table = example.contains(&format!("[{key}."))
            || example.contains(&format!("[backup.{key}"))
            || example.contains(&format!("[{key}]"));
        assert!(
            table || example.lines().any(here) || example.contains(&format!("{key}.")),
            "{key} is not in examples/config.toml"
        );
    }
}

#[test]
fn every_command_of_the_readme_is_one() {
    let readme = read("README.md");
    let lines = readme.lines().filter_map(|line| line.trim_start_matches("$ ").strip_prefix("voxeltron-backup "));
    let lines: Vec<&str> = lines.map(|line| line.split('#').next().unwrap_or(line).trim()).collect();
    assert!(lines.len() >= 8, "{lines:?}");
    for line in lines {
        let words = std::iter::once("voxeltron-backup").chain(line.split_whitespace());
        let parsed = <cli::Cli as clap::Parser>::try_parse_from(words);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn usage_goes_to_the_right_stream() {
    let sandbox = Sandbox::new();
    sandbox.command(&["--version"]).stdout_is(&format!("voxeltron-backup {}\n", env!("CARGO_PKG_VERSION"))).run();
    sandbox.command(&["--help"]).stdout_has("Exit status:").run();
    sandbox.command(&[]).exits(2).stderr_has("Usage:").run();
    sandbox.command(&["restore", "x"]).exits(2).stderr_has("--latest").run();
    sandbox.command(&["keygen"]).stdout_any().run();
}

#[test]
fn the_demo_does_what_it_says_and_leaves_a_working_folder() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.command(&["demo", "my demo"]).stdout_any().stderr_has("every row is as it was").run();
    for part in ["back up", "its SHA-256 is not the manifest's", "restored"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    let config = sandbox.path("my demo/config.toml");
    sandbox.command(&["-c", config.to_str().unwrap(), "list"]).stdout_has("shop").run();
    sandbox.command(&["-c", config.to_str().unwrap(), "verify", "--restore"]).stdout_has("good").run();
    sandbox.command(&["demo", "my demo"]).exits(2).stderr_has("is not empty").run();
}

#[test]
fn every_guard_still_fits_the_source_and_names_a_test_that_must_run() {
    // It fails for a guard whose text is not in its file exactly once.
    let listed = common::tool(std::process::Command::new("python3").arg(repository("tests/guards")).arg("--list"), b"");
    let must_run = read("tests/must-run.txt");
    assert!(listed.lines().count() > 90, "{listed}");
    for line in listed.lines() {
        let test = line.rsplit(" | ").next().unwrap();
        assert!(must_run.lines().any(|name| name == test), "{test} is not in tests/must-run.txt");
    }
}

/// The code of a source, without the tests in it.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// So that a new engine is its folder and its place in the registry, and nothing else.
#[test]
fn an_engine_is_named_nowhere_but_in_its_folder_and_in_the_registry() {
    let (root, mut files) = (repository("src"), Vec::new());
    sources(&root, &mut files);
    // It has an engine's database, as its users have.
    files.retain(|path| !path.ends_with("command/demo.rs"));
    assert!(files.len() > 150, "{}", files.len());
    let mut found = BTreeSet::new();
    for path in &files {
        let (name, text) = (path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), code(path));
        for engine in voxeltron_backup::engine::REGISTRY.iter().map(|kind| kind.name) {
            let names_it =
                |line: &&str| line.contains(&format!("\"{engine}\"")) || line.contains(&format!("{engine}::"));
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//")).filter(names_it);
            if !name.starts_with(&format!("engine/{engine}/")) && lines.count() > 0 {
                found.insert(format!("{engine} in {name}"));
            }
        }
    }
    let registry =
        ["mongodb", "mysql", "postgres", "redis", "sqlite"].map(|engine| format!("{engine} in engine/mod.rs"));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), registry);
}
