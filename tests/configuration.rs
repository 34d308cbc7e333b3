//! The configuration, by the program itself: the example of Voxeltron's documentation loads; everything that is wrong is
//! told at once, with its line and its mend, before anything runs; secrets come from where they are said to be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{SEED, Sandbox};

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What the program says of a configuration, with the sandbox's folder taken out.
fn complaint(text: &str) -> String {
    let sandbox = Sandbox::new();
    sandbox.configure(text);
    let outcome = sandbox.command(&["schedule-check"]).exits(10).stderr_any().run();
    assert!(fs::read_dir(sandbox.data_dir()).unwrap().next().is_none(), "something ran");
    outcome.stderr.replace(&sandbox.config().display().to_string(), "config.toml")
}

fn with_jobs(jobs: &str) -> String {
    format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\nencryption_key = \"{KEY}\"\n[backup.targets.local]\npath = \"{{dir}}/store\"\n{jobs}"
    )
}

#[test]
fn the_documentations_example_loads_with_a_real_key() {
    let sandbox = Sandbox::new();
    sandbox.configure(&SEED.replace("base64-encoded-256-bit-key", KEY));
    let data = sandbox.data_dir();
    let outcome = sandbox
        .command(&["schedule-check", "--dry-run", "--at", "2026-02-25T03:00Z"])
        .env("VOXELTRON_BACKUP_DATA_DIR", &data)
        .stdout_has("mydb@s3")
        .stdout_has("analytics@gcs")
        .stdout_has("mycache@local")
        .run();
    assert_eq!(outcome.stdout.lines().count(), 4, "{}", outcome.stdout);
}

#[test]
fn running_a_seed_job_says_what_is_not_in_this_version() {
    let sandbox = Sandbox::new();
    sandbox.configure(&SEED.replace("base64-encoded-256-bit-key", KEY));
    let run = |job: &str, part: &str| {
        let data = sandbox.data_dir();
        let command = sandbox.command(&["run-job", job]).env("VOXELTRON_BACKUP_DATA_DIR", data);
        // Where there is neither Docker nor Podman.
        command.env("PATH", "/nowhere").exits(10).stderr_has(part).stderr_has("hint:").run();
    };
    run("mydb", "has no [databases.mydb] table in");
    run("mydb", "there is no docker and no podman to find container voxeltron-db-mydb by");
    run("analytics", "can't read /etc/voxeltron/gcs-service-account.json");
    run("mycache", "has no [databases.mycache] table");
}

#[test]
fn the_placeholder_is_refused() {
    insta::assert_snapshot!(complaint(SEED));
}

#[test]
fn every_wrong_key_is_told_apart() {
    let keys = [
        " MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "3031323334353637383961626364656630313233343536373839616263646566",
        "-_-_MzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "MDEyMzQ1Njc4OWFiY2RlZg==",
        "not base64 at all",
        "%%%",
    ];
    let said = keys.map(|key| {
        let said = complaint(&format!("[backup]\nencryption_key = \"{key}\"\n"));
        assert!(!said.contains(key.trim()), "the key itself is in the message: {said}");
        said
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn all_problems_of_a_file_are_told_together() {
    let text = r#"[backup]
encryption_kee = "x"
data_dir = "relative"

[backup.targets.local]
path = "/x"
pth = "/y"

[backup.targets.tape]

[databases.shop]
engine = "postgress"
url = 5

[databases.cache]
engine = "mongodb"
url = "mongodb://localhost"
keep_previous = "1w"

[[backup.jobs]]
database = "shop"
schedule = "0 3 * *"
target = "locl"

[[backup.jobs]]
database = "shop"
schedule = "0 0 31 2 *"
timezone = "Europe/Berlim"
encrypt = true
retention_day = 3

[[backup.jobs]]
name = "a"
database = "shop"
schedule = "0 0 31 2 *"
timeout = "soon"
compression_level = 10

[[backup.jobs]]
name = "a"
database = "shop"
schedule = "0 0 * * *"
keep_last = "seven"
"#;
    insta::assert_snapshot!(complaint(text));
}

#[test]
fn an_s3_targets_problems_are_told_together() {
    let said = complaint(
        r#"[backup.targets.s3]
endpoint = "s3.example.com"
bucket = "a/../b"
region = "eu west"
secret_key = "canary"
storage_class = "COLD STORE"
part_size = 4
ca_file = "ca.pem"
path_stile = true

[backup.targets.other]
type = "s3"
endpoint = "https://key:canary@s3.example.com"
session_token = "canary"
path_style = "yes"
"#,
    );
    assert!(!said.contains("canary"), "{said}");
    insta::assert_snapshot!(said);
}

#[test]
fn a_state_that_no_hosts_can_share_is_told() {
    let local = "[backup.targets.local]\npath = \"/x\"\n";
    for (state, problem) in [
        ("local", "is \"local\", a target of type \"local\", which can't keep it"),
        ("s4", "is \"s4\", which is no target"),
    ] {
        let said = complaint(&format!("[backup]\nstate = \"{state}\"\nlease = \"2s\"\n{local}"));
        assert!(said.contains(problem), "{said}");
        assert!(said.contains("hint: name a target of type \"s3\" or \"gcs\""), "{said}");
        assert!(said.contains("must be between 5s and 1h"), "{said}");
    }
}

#[test]
fn what_is_not_toml_is_told_without_its_content() {
    let said = complaint("[backup]\nencryption_key = \"canary\nx = 1\n");
    assert!(!said.contains("canary"), "{said}");
    insta::assert_snapshot!(said);
}

#[test]
fn keys_of_other_programs_are_let_be() {
    let sandbox = Sandbox::new();
    sandbox.configure(&format!("[panel]\nport = 1\n{}[panel.x]\ny = 2\n", with_jobs("")));
    sandbox.run(&["schedule-check"]);
}

#[test]
fn the_environment_overrides_every_scalar() {
    let sandbox = Sandbox::new();
    sandbox.configure(
        "[backup]\ndata_dir = \"/nowhere\"\nencryption_key = \"wrong\"\n[backup.targets.local]\npath = \"/x\"\n",
    );
    let data = sandbox.data_dir();
    let run = |args: &[&str]| {
        sandbox
            .command(args)
            .env("VOXELTRON_BACKUP_DATA_DIR", &data)
            .env("VOXELTRON_BACKUP_ENCRYPTION_KEY", KEY)
            .env("VOXELTRON_BACKUP_INSTANCE", "other")
            .env("VOXELTRON_BACKUP_TARGETS_LOCAL_PATH", sandbox.store())
    };
    run(&["list", "--target", "local"]).stderr_is("no backups\n").run();
    let misspelt = run(&["list", "--target", "local"]).env("VOXELTRON_BACKUP_DATADIR", "/y");
    misspelt.stderr_has("warning: environment variable VOXELTRON_BACKUP_DATADIR overrides nothing").run();
}

#[test]
fn secrets_come_from_where_they_are_said_to_be() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("key", format!("{KEY}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let sources = [
        format!("\"{KEY}\""),
        "{ env = \"MY_KEY\" }".to_owned(),
        "{ file = \"{dir}/key\" }".to_owned(),
        "{ credential = \"key\" }".to_owned(),
        "{ command = [\"cat\", \"{dir}/key\"] }".to_owned(),
    ];
    for source in sources {
        sandbox.configure(&format!("[backup]\ndata_dir = \"{{dir}}/data\"\nencryption_key = {source}\n"));
        sandbox
            .command(&["check"])
            .env("MY_KEY", KEY)
            .env("CREDENTIALS_DIRECTORY", sandbox.path(""))
            .stdout_has("ok  encryption_key: key id ")
            .run();
    }
}

#[test]
fn a_secret_that_can_t_be_fetched_is_told_with_its_mend() {
    let said = |source: &str| {
        let sandbox = Sandbox::new();
        sandbox.configure(&format!("[backup]\ndata_dir = \"{{dir}}/data\"\nencryption_key = {source}\n"));
        let outcome = sandbox.command(&["check"]).exits(10).stdout_any().stderr_any().run();
        outcome.stderr.replace(&sandbox.path("").display().to_string(), "/dir/")
    };
    let sources = [
        "{ env = \"NOT_SET\" }",
        "{ file = \"{dir}/none\" }",
        "{ credential = \"key\" }",
        "{ command = [\"sh\", \"-c\", \"echo no such entry >&2; exit 3\"] }",
        "{ command = [\"no-such-program\"] }",
        "{ command = [\"true\"] }",
    ];
    insta::assert_snapshot!(sources.map(said).join("\n"));
}

#[test]
fn a_file_that_others_can_write_is_refused_and_one_they_can_read_is_warned_of() {
    let sandbox = Sandbox::new();
    sandbox.configure(&with_jobs(""));
    let mode = |mode| fs::set_permissions(sandbox.config(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o666);
    sandbox.command(&["status"]).exits(10).stderr_has("others can write to").stderr_has("hint: chmod 600").run();
    mode(0o644);
    sandbox.command(&["status"]).stderr_has("warning: configuration: others can read").run();
    mode(0o640);
    sandbox.command(&["status"]).stderr_is("no jobs\n").run();
}

#[test]
fn a_missing_file_and_an_unknown_command_are_told_apart() {
    let sandbox = Sandbox::new();
    sandbox.command(&["list"]).exits(10).stderr_has("can't read the configuration").stderr_has("hint:").run();
    sandbox.command(&["lst"]).exits(2).stderr_has("list").run();
}

#[test]
fn names_that_are_not_there_name_the_nearest() {
    let sandbox = Sandbox::new();
    sandbox.configure(&with_jobs("[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite:///x\"\n[[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@daily\"\n"));
    sandbox.command(&["run-job", "shp"]).exits(2).stderr_has("did you mean \"shop\"?").run();
    sandbox.command(&["restore", "shopp", "--latest"]).exits(2).stderr_has("did you mean \"shop\"?").run();
    sandbox.command(&["list", "--target", "locl"]).exits(2).stderr_has("did you mean \"local\"?").run();
    sandbox.command(&["run-job", "shop", "--target", "s3"]).exits(2).stderr_has("there is no target \"s3\"").run();
}

#[test]
fn the_words_of_exec_are_checked() {
    let with = |exec: &str, engine: &str| {
        format!("[databases.d]\nengine = \"{engine}\"\nurl = \"{engine}://u@h/d\"\nexec = {exec}\n")
    };
    for (exec, part) in [
        ("[]", "must be a list of words"),
        ("[\"docker\", \"\"]", "none of them empty"),
        ("\"docker exec -i x\"", "not one text"),
        ("[\"ssh\", \"host\"]", "joins words"),
        ("[\"docker\", \"exec\", \"-it\", \"x\"]", "asks for a terminal"),
        ("[1]", "must be a string or a list of strings"),
    ] {
        assert!(complaint(&with(exec, "postgres")).contains(part), "{exec}");
    }
    let sandbox = Sandbox::new();
    sandbox.configure_local(None, "[databases.d]\nengine = \"sqlite\"\nurl = \"sqlite:///x\"\nexec = [\"docker\"]\n");
    sandbox.command(&["check", "--offline"]).exits(10).stdout_any().stderr_has("exec: sqlite is built in").run();
    // A table that says neither engine nor url adds to what the container says.
    sandbox.configure_local(None, "[databases.d]\ndump_args = [\"--no-owner\"]\n");
    let line = "database d: container voxeltron-db-d, not looked for";
    sandbox.command(&["check", "--offline"]).stdout_has(line).run();
    assert!(complaint("[databases.d]\nurl = \"postgres://h/d\"\n").contains("has no `engine`"));
    assert!(complaint("[databases.d]\nengine = \"postgres\"\n").contains("has no `url`"));
}
