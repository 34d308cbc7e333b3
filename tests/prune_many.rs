//! `prune` where there are many backups, at a real S3 server: how many requests of which kind it makes, how long it takes,
//! and that what goes is what the rules say: no more than half at once, nothing that is pinned, forged or another's.
//! `VOXELTRON_TEST_LONG=1` makes it 10,000 backups.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]
#![allow(clippy::print_stdout, reason = "the counts")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use common::Sandbox;
use common::proxy::Proxy;
use common::s3::{Bucket, access_key, address, secret_key};
use common::sample::{Backup, Recipe, key};
use voxeltron_backup::format::key::Key;
use voxeltron_backup::format::manifest;
use voxeltron_backup::format::name::{self, BackupId};

/// The sample's key: 32 times 0x2a.
const KEY: &str = "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";
/// How many are written at once.
const WRITERS: usize = 8;

/// A backup of `job` that was made at `at`; one signed under another key than ours is a forgery.
fn made(sample: &Backup, job: &str, at: DateTime<Utc>, key: &Key) -> Vec<(String, Vec<u8>)> {
    let id = BackupId::new(at, job);
    let object = name::object_key(&sample.owner, &id, "0a1b2c3d", "pgdump", true, true).unwrap();
    let signed = manifest::Signed {
        id: id.to_string(),
        job: job.to_owned(),
        created: at,
        scheduled_for: Some(at),
        object: object.to_string(),
        ..sample.signed.clone()
    };
    let manifest = manifest::write(&signed, Some(key)).unwrap();
    let manifest_key = name::manifest_key(&sample.owner, &id).unwrap();
    vec![(object.to_string(), sample.object.clone()), (manifest_key.to_string(), manifest)]
}

fn put_all(bucket: &Bucket, files: &[(String, Vec<u8>)]) {
    std::thread::scope(|scope| {
        for part in files.chunks(files.len().div_ceil(WRITERS)) {
            scope.spawn(move || part.iter().for_each(|(key, bytes)| bucket.put(key, bytes)));
        }
    });
}

fn configure(sandbox: &Sandbox, endpoint: &str, bucket: &Bucket, keep: usize) {
    sandbox.configure(&format!(
        "[backup]\ndata_dir = \"{{dir}}/data\"\ninstance = \"host\"\nencryption_key = \"{KEY}\"\n\
         [backup.targets.s3]\nendpoint = \"{endpoint}\"\nbucket = \"{}\"\npath_style = true\n\
         access_key = \"{}\"\nsecret_key = \"{}\"\n\
         [databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n\
         [[backup.jobs]]\nname = \"j\"\ndatabase = \"shop\"\nencrypt = true\nschedule = \"@hourly\"\ntarget = \"s3\"\n\
         keep_last = {keep}\n\
         [[backup.jobs]]\nname = \"other\"\ndatabase = \"shop\"\nencrypt = true\nschedule = \"@hourly\"\ntarget = \"s3\"\n",
        bucket.name,
        access_key(),
        secret_key()
    ));
}

/// Runs it and prints what it took; gives the requests by their kind.
fn prune(sandbox: &Sandbox, proxy: &Proxy, args: &[&str]) -> BTreeMap<String, usize> {
    proxy.set(None);
    let started = Instant::now();
    sandbox.command(&[&["prune", "j"], args].concat()).stdout_any().run();
    let seconds = started.elapsed().as_secs_f64();
    let mut counts = BTreeMap::new();
    for line in proxy.lines() {
        // Of reads, what is read does not matter here.
        let kind = if line.starts_with("GET bytes") { "GET an object" } else { &line };
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    println!("prune {args:?}: {seconds:.1} s, {counts:?}");
    counts
}

#[test]
fn prune_of_many_backups_makes_few_requests_and_removes_what_the_rules_say() {
    let long = std::env::var("VOXELTRON_TEST_LONG").is_ok_and(|value| value == "1");
    let (count, keep) = if long { (10_000, 3_000) } else { (300, 90) };
    let (bucket, sandbox) = (Bucket::new(), Sandbox::new());
    let sample = Recipe::default().build(b"three rows");
    let newest = Utc::now().trunc_subsecs(0) - TimeDelta::hours(1);
    // The newest first.
    let at = |place: usize| newest - TimeDelta::hours(i64::try_from(place).unwrap());
    let ours: Vec<Vec<(String, Vec<u8>)>> = (0..count).map(|place| made(&sample, "j", at(place), &key())).collect();
    // What no rule may touch, older than all of them, and a mark that keeps the oldest but one.
    let mut others = made(&sample, "other", at(count + 1), &key());
    others.extend(made(&sample, "j", at(count + 2), &Key::new([7; 32])));
    let pinned = name::pin_key(&sample.owner, &BackupId::new(at(count - 2), "j")).unwrap();
    others.push((pinned.to_string(), b"{}".to_vec()));
    let all: Vec<(String, Vec<u8>)> = ours.concat().into_iter().chain(others.clone()).collect();
    let started = Instant::now();
    put_all(&bucket, &all);
    println!("{count} backups written in {:.0} s", started.elapsed().as_secs_f64());

    let proxy = Proxy::new(address(), false);
    configure(&sandbox, &proxy.endpoint(), &bucket, keep);
    let standing = || -> BTreeSet<String> { bucket.keys().into_iter().collect() };
    let expected = |left: &dyn Fn(usize) -> bool| -> BTreeSet<String> {
        let ours = ours.iter().enumerate().filter(|(place, _)| left(*place)).flat_map(|(_, files)| files);
        ours.chain(&others).map(|(key, _)| key.clone()).collect()
    };
    // A listing has up to 1,000 keys a page, and every manifest is read once.
    let pages = |objects: usize| objects.div_ceil(1_000);
    let reading = |objects: usize| [("GET all", pages(objects)), ("GET an object", objects / 2)];
    let requests = |args: &[&str], objects: usize, gone: usize| {
        let counts = prune(&sandbox, &proxy, args);
        let mut expected: BTreeMap<String, usize> =
            reading(objects).into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        if !args.contains(&"--dry-run") {
            // Manifests, then objects, up to 1,000 a request; and unfinished uploads are looked for.
            expected.insert("POST delete".to_owned(), 2 * pages(gone));
            expected.insert("GET uploads".to_owned(), 1);
        }
        expected.retain(|_, count| *count > 0);
        assert_eq!(counts, expected, "{args:?}");
    };
    requests(&["--dry-run"], all.len(), 0);
    assert_eq!(standing(), expected(&|_| true));
    // Half of the good ones go, the oldest, but for the pinned one.
    requests(&[], all.len(), count / 2);
    let half = |place: usize| place == count - 2 || place < count / 2 - 1;
    assert_eq!(standing(), expected(&half));
    // By force all that no rule keeps; the pinned one is none of the last ones.
    requests(&["--force"], standing().len(), count / 2 - 1 - keep);
    assert_eq!(standing(), expected(&|place| place == count - 2 || place < keep));
    requests(&[], standing().len(), 0);
    assert_eq!(standing(), expected(&|place| place == count - 2 || place < keep));
}
