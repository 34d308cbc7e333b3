//! Being told what runs came to: healthchecks, webhooks, the metrics file, the journal. The services are stubs, since
//! what they are sent is what matters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::gcs::wire;
use common::{Sandbox, sqlite3};
use serde_json::Value;

/// What came in: path, with its query's values, and body.
type Heard = Arc<Mutex<Vec<(String, String)>>>;

/// A service that listens, and answers with this status.
fn service(status: &'static str) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let to = Arc::clone(&heard);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let Ok(request) = wire::read(&mut client) else { continue };
            let query = request.query.iter().map(|(name, value)| format!("?{name}={value}")).collect::<String>();
            let body = String::from_utf8_lossy(&request.body).into_owned();
            to.lock().unwrap().push((format!("{} {}{query}", request.method, request.path), body));
            write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    (address, heard)
}

fn paths(heard: &Heard) -> Vec<String> {
    heard.lock().unwrap().drain(..).map(|(path, _)| path).collect()
}

fn sandbox(notify: &str, job: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1), (2)");
    sandbox.configure_local(
        None,
        &format!(
            "[backup.notify]\n{notify}\n\
             [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
             [databases.gone]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/gone.db\"\n\
             [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@daily\"\n{job}\n\
             [[backup.jobs]]\nname = \"bad\"\ndatabase = \"gone\"\nschedule = \"@daily\"\n"
        ),
    );
    sandbox
}

#[test]
fn a_jobs_own_healthcheck_hears_start_success_and_failure() {
    let (address, heard) = service("200 OK");
    let sandbox = sandbox("", &format!("healthcheck_url = \"{address}/canary-uuid?create=1\""));
    sandbox.command(&["-q", "run-job", "j"]).run();
    assert_eq!(paths(&heard), ["POST /canary-uuid/start?create=1", "POST /canary-uuid?create=1"]);
    fs::remove_file(sandbox.path("shop.db")).unwrap();
    sandbox.command(&["run-job", "j"]).exits(13).stderr_any().run();
    let last = heard.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.0, "POST /canary-uuid/fail?create=1");
    assert!(last.1.starts_with("j: no backup\nj: job j: ") && last.1.contains("shop.db"), "{last:?}");
}

#[test]
fn the_common_healthcheck_is_well_only_when_no_job_is_failing() {
    let (address, heard) = service("200 OK");
    let sandbox = sandbox(&format!("healthcheck_url = \"{address}/all\""), "");
    sandbox.command(&["-q", "run-job", "j"]).run();
    assert_eq!(paths(&heard), ["POST /all/start", "POST /all"]);
    sandbox.command(&["run-job", "--all"]).exits(3).stderr_any().run();
    assert_eq!(paths(&heard), ["POST /all/start", "POST /all/fail"]);
    // The job that is well must not hide the one that is not.
    sandbox.command(&["-q", "run-job", "j"]).run();
    let last = heard.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.0, "POST /all/fail");
    assert!(last.1.contains("bad: failing, or unproved, since before this run"), "{last:?}");
    sandbox.run(&["schedule-check"]);
    assert_eq!(heard.lock().unwrap().len(), 2, "where nothing is due nobody is told");
}

/// Makes this job's last slot one that is due.
fn make_due(sandbox: &Sandbox, job: &str) {
    let path = sandbox.data_dir().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let past = &mut state["jobs"][job];
    past["first_seen"] = "2020-01-01T00:00:00Z".into();
    past["running"] = Value::Null;
    fs::write(&path, state.to_string()).unwrap();
}

#[test]
fn a_run_that_passes_another_one_by_tells_nobody_that_all_is_well() {
    let (address, heard) = service("200 OK");
    let waits = "before = \"touch {dir}/began; while [ -e {dir} ] && [ ! -e {dir}/go ]; do sleep 0.05; done\"";
    let sandbox = sandbox(&format!("healthcheck_url = \"{address}/all\""), waits);
    sandbox.run(&["schedule-check"]);
    make_due(&sandbox, "j");
    let mut command = sandbox.command(&["-q", "schedule-check"]).into_command();
    let mut hangs = command.spawn().unwrap();
    while !sandbox.path("began").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(paths(&heard), ["POST /all/start"]);
    // To the state it was interrupted, so it is due again.
    make_due(&sandbox, "j");
    sandbox.run(&["schedule-check"]);
    sandbox.command(&["run-job", "j"]).exits(11).stderr_has("another run holds its lock").run();
    assert_eq!(paths(&heard), [""; 0], "the one that hangs must be missed");
    fs::write(sandbox.path("go"), "").unwrap();
    assert!(hangs.wait().unwrap().success());
    assert_eq!(paths(&heard), ["POST /all"]);
}

#[test]
fn a_tick_with_nothing_but_a_drill_is_told() {
    let (address, heard) = service("200 OK");
    let drill = "drill = \"30 0 1 1 *\"";
    let notify = format!("healthcheck_url = \"{address}/all\"\nmetrics_file = \"{{dir}}/x.prom\"");
    let sandbox = sandbox(&notify, drill);
    sandbox.run(&["schedule-check"]);
    sandbox.command(&["-q", "run-job", "j"]).run();
    let text = fs::read_to_string(sandbox.config()).unwrap();
    sandbox.configure(&text.replace("\"@daily\"", "\"0 0 1 1 *\""));
    sandbox.command(&["-q", "schedule-check"]).stderr_any().run();
    heard.lock().unwrap().clear();
    fs::remove_file(sandbox.path("x.prom")).unwrap();
    let path = sandbox.data_dir().join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["jobs"]["j"]["last_drill"] = Value::Null;
    state["jobs"]["j"]["first_seen"] = "2020-01-01T00:00:00Z".into();
    state["jobs"]["j"]["settled"] = "2026-10-01T00:00:00Z".into();
    fs::write(&path, state.to_string()).unwrap();
    sandbox.command(&["-q", "schedule-check"]).run();
    let told = heard.lock().unwrap().clone();
    let paths: Vec<&str> = told.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["POST /all/start", "POST /all"]);
    assert!(told[1].1.starts_with("j: proved "), "{told:?}");
    assert!(fs::read_to_string(sandbox.path("x.prom")).unwrap().contains("last_proof_timestamp_seconds{"));
}

#[test]
fn a_webhook_gets_the_runs_own_document() {
    let (address, heard) = service("204 No Content");
    let sandbox = sandbox(&format!("webhook_url = \"{address}/hook\""), "");
    sandbox.command(&["run-job", "--all"]).exits(3).stderr_any().run();
    let documents: Vec<Value> =
        heard.lock().unwrap().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    let events: Vec<&str> = documents.iter().map(|document| document["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["job-succeeded", "job-failed"]);
    assert_eq!(documents[0]["instance"], "host");
    assert_eq!(documents[0]["job"]["targets"][0]["stored"], true);
    assert_eq!(documents[1]["job"]["error"]["kind"], "tool");
}

#[test]
fn a_service_that_says_no_or_is_not_there_is_a_warning_and_its_address_is_not_told() {
    let (address, heard) = service("500 Oops");
    let sandbox =
        sandbox(&format!("healthcheck_url = \"{address}/canary\"\nwebhook_url = \"http://127.0.0.1:1/canary\""), "");
    let said = sandbox.command(&["-v", "run-job", "j"]).stderr_has("can't tell").run();
    assert!(said.stderr.contains("it answered 500") && said.stderr.contains("refused"), "{}", said.stderr);
    assert!(!said.stderr.contains("canary"), "{}", said.stderr);
    assert_eq!(heard.lock().unwrap().len(), 4, "each is tried twice");
    sandbox.command(&["list"]).stdout_has("shop").run();
}

#[test]
fn the_metrics_file_is_written_on_success_and_on_failure() {
    let sandbox = sandbox("metrics_file = \"{dir}/backup.prom\"", "");
    sandbox.command(&["run-job", "--all"]).exits(3).stderr_any().run();
    let text = fs::read_to_string(sandbox.path("backup.prom")).unwrap();
    let value = |name: &str, job: &str| -> Option<f64> {
        let label = format!("voxeltron_backup_{name}{{backup_job=\"{job}\"");
        text.lines().find(|line| line.starts_with(&label))?.rsplit_once(' ')?.1.parse().ok()
    };
    assert!(value("last_success_timestamp_seconds", "j").unwrap() > 1.7e9, "{text}");
    assert!(value("last_success_stored_bytes", "j").unwrap() > 100.0, "{text}");
    assert_eq!((value("failures_in_row", "j"), value("failures_in_row", "bad")), (Some(0.0), Some(1.0)));
    assert_eq!(value("last_success_timestamp_seconds", "bad"), None, "what never was has no line");
    assert_eq!(value("last_proof_timestamp_seconds", "j"), None);
    sandbox.command(&["verify", "shop", "--restore"]).stdout_any().run();
    assert!(fs::read_to_string(sandbox.path("backup.prom")).unwrap().contains("last_proof_timestamp_seconds{"));
    let mode = fs::metadata(sandbox.path("backup.prom")).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o644, "the exporter is another user");
    fs::remove_dir_all(sandbox.data_dir()).unwrap();
}

#[test]
fn lines_for_the_journal_carry_their_priority() {
    let sandbox = sandbox("", "");
    let journal = fs::File::create(sandbox.path("journal")).unwrap();
    let meta = journal.metadata().unwrap();
    let stream = format!("{}:{}", meta.dev(), meta.ino());
    for (stream, prefixed) in [(stream, true), ("1:2".to_owned(), false)] {
        journal.set_len(0).unwrap();
        let mut command = sandbox.command(&["-v", "run-job", "--all"]).env("JOURNAL_STREAM", &stream).into_command();
        let stderr = journal.as_fd().try_clone_to_owned().unwrap();
        command.stderr(stderr).stdout(std::process::Stdio::null()).status().unwrap();
        let text = fs::read_to_string(sandbox.path("journal")).unwrap();
        let text = text.trim_start_matches('\0');
        assert_eq!(text.lines().all(|line| line.starts_with('<')), prefixed, "{text}");
        for (start, part) in [("<6>", "stored"), ("<7>", "dumping"), ("<3>", "error:"), ("<3>", "hint:")] {
            assert!(
                !prefixed || text.lines().any(|line| line.starts_with(start) && line.contains(part)),
                "{part}: {text}"
            );
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn addresses_are_checked() {
    let sandbox = sandbox("healthcheck_url = \"ftp://x\"\nmetric_file = \"/x\"", "");
    let said = sandbox.command(&["list"]).exits(10).stderr_has("must start with https://").run();
    assert!(said.stderr.contains("metrics_file"), "{}", said.stderr);
}
