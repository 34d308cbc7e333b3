//! A server that tells all it was told: whatever it answers, and to whatever request, no command says or keeps a key, a token
//! or what a request was signed with. S3, Google Cloud Storage and Voxeltron Cloud, every command at `-v`; the servers stand
//! behind a proxy that answers in their place, in XML, JSON, HTML and plain text, and in headers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::proxy::{Canner, Proxy};
use common::s3::Bucket;
use common::{Sandbox, cloud, gcs, sqlite3};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use voxeltron_backup::target::cloud::link::LinkFile;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Every command that talks to a target.
const COMMANDS: [&[&str]; 7] = [
    &["check"],
    &["run-job", "shop"],
    &["list", "shop"],
    &["verify", "shop"],
    &["restore", "shop", "--latest", "--dry-run"],
    &["prune", "--dry-run"],
    &["status"],
];

/// Which requests meet the echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    /// Objects are read, and their listing comes through.
    Reads,
    /// What changes something.
    Changes,
    /// Where tokens come from.
    Tokens,
}

impl Which {
    fn meets(self, head: &str) -> bool {
        let mut words = head.split(' ');
        let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let lists = url.contains("list-type") || url.contains("prefix=");
        match self {
            Self::All => true,
            Self::Reads => method == "GET" && !lists,
            Self::Changes => ["PUT", "POST", "PATCH", "DELETE"].contains(&method) && !url.ends_with("/token"),
            Self::Tokens => url.ends_with("/token"),
        }
    }
}

/// How it answers.
#[derive(Clone, Debug)]
struct Echo {
    which: Which,
    status: u16,
    kind: &'static str,
}

/// How it answers now, and with which secrets.
type Told = (Echo, Vec<String>);

/// An answer that holds all that a request had in its head, and these secrets.
fn echo(head: &str, echo: &Echo, secrets: &[String]) -> String {
    let told = ["authorization", "x-amz-security-token"];
    let value = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        told.contains(&name.to_ascii_lowercase().as_str()).then(|| value.to_owned())
    };
    let encoded = secrets.iter().map(|secret| utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string());
    let all: Vec<String> = head.lines().filter_map(value).chain(secrets.iter().cloned()).chain(encoded).collect();
    let said = all.join(" ");
    let plain = said.replace('&', "&amp;").replace('<', "&lt;");
    let body = match echo.kind {
        "xml" => format!(
            "<?xml version=\"1.0\"?><Error><Code>{plain}</Code><Message>{plain}</Message><Region>{plain}</Region></Error>"
        ),
        "denied" => format!("<Error><Code>AccessDenied</Code><Message>no {plain} (x={plain})</Message></Error>"),
        "json" => serde_json::json!({
            "error": {"code": echo.status, "message": said, "errors": [{"reason": said, "message": said}]},
            "type": format!("x/{said}"), "title": said, "detail": said, "error_description": said,
        })
        .to_string(),
        "html" => format!("<html><head><title>{said}</title></head><body>{said}</body></html>"),
        _ => said.clone(),
    };
    // All of it would be too long for a header.
    let header = all.iter().take(4).cloned().collect::<Vec<_>>().join(",");
    let names = ["X-Echo", "ETag", "x-amz-bucket-region", "WWW-Authenticate", "Content-Range", "Range", "Repr-Digest"];
    let headers: String = names.iter().map(|name| format!("{name}: {header}\r\n")).collect();
    format!(
        "HTTP/1.1 {} {header}\r\n{headers}Location: http://127.0.0.1:1/{header}\r\nUpload-Offset: {header}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{}",
        echo.status,
        body.len(),
        if head.starts_with("HEAD") { "" } else { &body },
    )
}

/// No piece of a secret, as long as twelve signs, stands in a text.
fn holds_none(text: &str, secrets: &[String], what: &str) {
    for secret in secrets {
        let length = secret.len().min(12);
        for piece in secret.as_bytes().windows(length) {
            let piece = std::str::from_utf8(piece).unwrap();
            assert!(!text.contains(piece), "{what}: {piece:?} in {text}");
        }
    }
}

fn look_into(folder: &Path, but: &str, secrets: &[String], what: &str) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            look_into(&entry.path(), but, secrets, what);
        } else if entry.file_name() != *but {
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            holds_none(&text, secrets, &format!("{what}: {}", entry.path().display()));
        }
    }
}

/// A configuration with a database, and this target, which has the name of its kind.
fn sandbox(target: &str, table: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (randomblob(30000)), (2)");
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n{table}\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\nname = \"shop\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\n\
         target = \"{target}\"\nkeep_last = 1\n"
    ));
    sandbox
}

/// Runs a command in its sandbox, whose target is behind the proxy, against every echo.
fn run_against_echoes(command: &[&str], sandbox: &Sandbox, proxy: &Proxy, secrets: &dyn Fn() -> Vec<String>) {
    sandbox.command(&["run-job", "shop"]).stdout_any().stderr_any().run();
    let mut echoes = Vec::new();
    for which in [Which::All, Which::Reads, Which::Changes, Which::Tokens] {
        for (status, kind) in
            [(400, "xml"), (403, "json"), (403, "denied"), (401, "html"), (400, "plain"), (200, "xml")]
        {
            echoes.push(Echo { which, status, kind });
        }
    }
    // It is tried again and again, so once will do.
    echoes.push(Echo { which: Which::All, status: 500, kind: if command[0] == "check" { "json" } else { "xml" } });
    let now: Arc<Mutex<Option<Told>>> = Arc::default();
    let shared = Arc::clone(&now);
    let canner: Canner = Box::new(move |head| {
        let now = shared.lock().unwrap();
        let (it, secrets) = now.as_ref()?;
        it.which.meets(head).then(|| echo(head, it, secrets))
    });
    proxy.answer_some(canner);
    for (number, it) in echoes.into_iter().enumerate() {
        let known = secrets();
        *now.lock().unwrap() = Some((it.clone(), known.clone()));
        let json = if number % 2 == 0 { &["-v"][..] } else { &["-v", "--json"] };
        let mut program = sandbox.command(&[json, command].concat()).into_command();
        let outcome = common::run(&mut program, b"");
        let what = format!("{command:?} {it:?}");
        assert!(outcome.code.is_some_and(|code| code != 101), "{what}: {}", outcome.stderr);
        let all: Vec<String> = known.into_iter().chain(secrets()).collect();
        holds_none(&format!("{}{}", outcome.stdout, outcome.stderr), &all, &what);
        look_into(&sandbox.data_dir(), "cloud.json", &all, &what);
    }
}

#[test]
fn no_command_tells_what_an_s3_store_echoes() {
    std::thread::scope(|scope| {
        for command in COMMANDS {
            scope.spawn(move || {
                let (bucket, proxy) = (Bucket::new(), Proxy::new(common::s3::address(), false));
                let (access, secret) = (common::s3::access_key(), common::s3::secret_key());
                let sandbox = sandbox(
                    "s3",
                    &format!(
                        "[backup.targets.s3]\nendpoint = \"{}\"\nbucket = \"{}\"\naccess_key = \"{access}\"\n\
                         secret_key = \"{secret}\"\nsession_token = \"canary/of+a=session\"\n",
                        proxy.endpoint(),
                        bucket.name
                    ),
                );
                let secrets = || vec![access.clone(), secret.clone(), "canary/of+a=session".to_owned()];
                run_against_echoes(command, &sandbox, &proxy, &secrets);
            });
        }
    });
}

#[test]
fn no_command_tells_what_google_echoes() {
    std::thread::scope(|scope| {
        for command in COMMANDS {
            scope.spawn(move || {
                let stub = gcs::stub();
                let proxy = Proxy::new(stub.address(), false);
                let sandbox = sandbox(
                    "gcs",
                    &format!(
                        "[backup.targets.gcs]\nendpoint = \"{}\"\nbucket = \"bucket\"\n\
                         credentials_file = \"{{dir}}/account.json\"\n",
                        proxy.endpoint()
                    ),
                );
                let text = gcs::credentials(&gcs::service_key().0, &format!("{}/token", proxy.endpoint()));
                let file = sandbox.write("account.json", text);
                std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                run_against_echoes(command, &sandbox, &proxy, &|| gcs::secrets(&stub));
            });
        }
    });
}

#[test]
fn no_command_tells_what_the_cloud_echoes() {
    std::thread::scope(|scope| {
        for command in COMMANDS {
            scope.spawn(move || {
                let account = cloud::account();
                let proxy = Proxy::new(cloud::address(), false);
                let sandbox = sandbox("cloud", "");
                account.link_sandbox(&sandbox, &proxy.endpoint());
                let file = LinkFile::new(&sandbox.data_dir());
                let secrets = || {
                    let tokens = file.read().unwrap().unwrap().0.tokens;
                    vec![tokens.access.expose().to_owned(), tokens.refresh.expose().to_owned()]
                };
                run_against_echoes(command, &sandbox, &proxy, &secrets);
            });
        }
    });
}
