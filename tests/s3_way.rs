//! The way to an S3 store, seen on the wire: through a proxy that is asked by CONNECT, to a bucket that stands in the host's
//! name, never through a proxy without TLS; and every header that an object must have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::proxy::Proxy;
use common::s3::{Bucket, access_key, address, secret_key};
use common::sample::noise;
use common::{Sandbox, from_runner, sqlite3};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::Target;
use voxeltron_backup::target::s3::{Keys, Protection, Settings};
use voxeltron_backup::world::World;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The part size of the tests, in bytes.
const PART: usize = 5 * 1024 * 1024;

/// A proxy that leads every name to one server, and remembers what it was asked for.
struct Tunnel {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    fn new(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let names = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (upstream, names) = (upstream.clone(), Arc::clone(&names));
                std::thread::spawn(move || lead(client.unwrap(), &upstream, &names));
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines of requests since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn lead(mut client: TcpStream, upstream: &str, names: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    names.lock().unwrap().push(line.clone());
    if !line.starts_with("CONNECT ") {
        return drop(client.write_all(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"));
    }
    let mut server = TcpStream::connect(upstream).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Write);
}

fn sandbox(endpoint: &str, bucket: &str, more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (randomblob(12000000))");
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
         [backup.targets.s3]\nendpoint = \"{endpoint}\"\nbucket = \"{bucket}\"\nprefix = \"all/a@b+c\"\npart_size = 5\n\
         access_key = \"{}\"\nsecret_key = \"{}\"\n{more}\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nschedule = \"@daily\"\nencrypt = true\ntarget = \"s3\"\n",
        access_key(),
        secret_key()
    ));
    sandbox
}

#[test]
fn a_bucket_in_the_hosts_name_is_reached_by_the_proxy_for_https() {
    let server = from_runner("VOXELTRON_TEST_S3_TLS_ENDPOINT");
    let port = server.rsplit_once(':').unwrap().1.to_owned();
    let tunnel = Tunnel::new(format!("127.0.0.1:{port}"));
    let more = format!("path_style = false\nca_file = \"{}\"\n", from_runner("VOXELTRON_TEST_S3_CA"));
    let sandbox = sandbox(&format!("https://s3.test:{port}"), "private", &more);
    // Requests of every kind: an upload in parts, a listing, ranges, a deletion.
    for args in [&["check"][..], &["run-job", "j"], &["list", "shop"], &["verify", "shop"], &["prune", "j"]] {
        let run = sandbox.command(args).env("https_proxy", tunnel.url());
        run.stdout_any().stderr_any().run();
        let asked = tunnel.asked();
        let expected = format!("CONNECT private.s3.test:{port} HTTP/1.1");
        assert!(!asked.is_empty() && asked.iter().all(|line| *line == expected), "{args:?}: {asked:?}");
    }
    // Nobody but the proxy knows that name.
    let alone = [("https_proxy", String::new()), ("no_proxy", "s3.test".to_owned()), ("no_proxy", "*".to_owned())];
    for (name, value) in alone {
        let run = sandbox.command(&["list", "shop"]).env("https_proxy", tunnel.url()).env(name, value);
        run.exits(14).stderr_has("is not known").run();
        assert_eq!(tunnel.asked(), [""; 0]);
    }
}

#[test]
fn an_endpoint_without_tls_is_never_asked_for_at_a_proxy() {
    let (bucket, tunnel) = (Bucket::new(), Tunnel::new(address()));
    let sandbox = sandbox(&common::s3::endpoint(), &bucket.name, "");
    let run = sandbox.command(&["run-job", "j"]).env("http_proxy", tunnel.url()).env("https_proxy", tunnel.url());
    run.env("all_proxy", tunnel.url()).stderr_any().run();
    assert_eq!((bucket.keys().len(), tunnel.asked()), (2, vec![]));
}

#[test]
fn every_object_is_sent_with_its_token_its_class_and_its_encryption() {
    let (proxy, bucket) = (Proxy::new(address(), false), Bucket::new());
    // What the store says does not matter: the requests are looked at.
    proxy.refuse(|head| head.starts_with("PUT").then_some("403 AccessDenied:"));
    let protection = |encryption: &str, key: Option<&str>| Protection {
        encryption: Some(encryption.to_owned()),
        kms_key: key.map(ToOwned::to_owned),
        lock: None,
    };
    let token = "a-session/token+with=signs";
    for (protection, expected) in [
        (protection("AES256", None), &["x-amz-server-side-encryption: AES256"][..]),
        (
            protection("aws:kms", Some("arn:aws:kms:eu:1:key/x")),
            &[
                "x-amz-server-side-encryption: aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu:1:key/x",
            ],
        ),
    ] {
        let settings = Settings {
            endpoint: proxy.endpoint(),
            storage_class: Some("STANDARD_IA".to_owned()),
            protection,
            ..bucket.settings("")
        };
        let keys = Keys {
            access: Secret::new(access_key()),
            secret: Secret::new(secret_key()),
            token: Some(Secret::new(token)),
        };
        let target = settings.open(&keys, &World::system()).unwrap();
        for length in [100, PART + 1] {
            proxy.set(None);
            let _ = target.put(&ObjectKey::new("host/x").unwrap(), &mut &noise(length)[..]);
            let heads = proxy.heads();
            let all = |head: &String| head.contains(&format!("x-amz-security-token: {token}"));
            assert!(heads.len() > 1 && heads.iter().all(all), "{heads:#?}");
            // An object's own are those of its one PUT, or of the beginning of its upload.
            let creates = |head: &&String| match length {
                100 => head.starts_with("PUT"),
                _ => head.starts_with("POST") && head.contains("?uploads"),
            };
            let created: Vec<&String> = heads.iter().filter(creates).collect();
            assert!(!created.is_empty(), "{heads:#?}");
            let signed = |head: &String, name: &str| {
                let line = head.lines().find(|line| line.starts_with("authorization: "));
                line.is_some_and(|line| line.contains(name))
            };
            for header in expected.iter().chain(&["x-amz-storage-class: STANDARD_IA"]) {
                let has = |head: &&String| head.contains(header) && signed(head, header.split(':').next().unwrap());
                assert!(created.iter().all(has), "{header} in {created:#?}");
            }
            assert!(created.iter().all(|head| signed(head, "x-amz-security-token")), "{created:#?}");
        }
    }
}
