//! There and back, by every way.

use voxeltron_backup::engine::{Counts, Destination};

use crate::on;
use crate::support::{Place, Server, Which, checked, cursor, dump, fill, inspected, open, restore, restore_in};

on!(
    redis7 Redis7: hurts, key_by_key, beside, by_socket, on_disk, on_disk_with_aof;
    valkey8 Valkey8: hurts, key_by_key, beside, by_socket, on_disk, on_disk_with_aof;
    redis8 Redis8: hurts, key_by_key;
    valkey9 Valkey9: hurts, key_by_key;
);

fn ruin(server: &Server) {
    for words in [
        &["FUNCTION", "DELETE", "one"][..],
        &["FUNCTION", "LOAD", "#!lua name=later\nredis.register_function('l', function() return 1 end)"],
        &["-n", "0", "DEL", "noise"],
        &["-n", "5", "FLUSHDB"],
        &["-n", "20", "SET", "later", "1"],
        &["-n", "0", "SET", "later", "2"],
        &["-n", "0", "SET", "in", "changed"],
    ] {
        server.cli(words);
    }
}

fn hurts(which: Which) {
    let server = Server::new(which);
    fill(&server);
    let (before, settings) = (server.all(), server.settings());
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    assert_eq!(findings.end_mark, "EOF opcode, CRC64 agrees");
    assert_eq!(findings.counts.get("db15").copied().flatten(), Some(7), "{findings:?}");
    assert_eq!(findings.counts.get("db15 expiring").copied().flatten(), Some(1));
    assert_eq!(findings.counts.get("functions").copied().flatten(), Some(2));
    let version = server.cli(&["INFO", "server"]);
    assert!(version.contains(findings.server_version.as_deref().unwrap()), "{findings:?}");
    let said = checked(which, &bytes);
    assert!(said.contains("Checksum OK") && said.contains("looks OK"), "{said}");

    let drilled = restore(server.engine().as_ref(), cursor(&bytes), Destination::Drill, &findings.counts).unwrap();
    assert_eq!((drilled.counts, drilled.notes), (findings.counts.clone(), Vec::new()));
    assert_eq!(server.all(), before, "a drill is elsewhere");
    ruin(&server);
    assert_ne!(server.all(), before);
    let restored = restore(server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new(), "by replication");
    assert_eq!(restored.counts, findings.counts);
    assert_eq!(server.all(), before);
    assert_eq!(server.settings(), settings);
    assert!(server.cli(&["ROLE"]).starts_with("master"));
}

fn key_by_key(which: Which) {
    let server = Server::new(which);
    fill(&server);
    let before = server.all();
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    ruin(&server);
    let engine = server.unfollowing();
    let settings = server.settings();
    let restored = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert!(
        restored.notes[0].starts_with("restored key by key") && restored.notes[0].contains("replicaof"),
        "{restored:?}"
    );
    assert_eq!(restored.counts, findings.counts);
    assert_eq!(server.all(), before);
    assert_eq!(server.settings(), settings);
}

fn beside(which: Which) {
    let server = Server::new(which);
    server.small().cli(&["-n", "3", "FLUSHDB"]);
    let before = server.digest();
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    let into = |number: &str| {
        restore(server.engine().as_ref(), cursor(&bytes), Destination::Into(number.into()), &findings.counts)
    };
    assert_eq!(into("40").unwrap().counts, findings.counts);
    assert_eq!(server.cli(&["-n", "40", "DBSIZE"]), "200");
    assert_eq!(server.cli(&["-n", "40", "GET", "key:7"]), "value 7 xxxxxxx");
    let error = into("40").unwrap_err();
    assert!(error.message.contains("database 40 is not empty"), "{error}");
    assert!(into("64").unwrap_err().message.contains("no database 64"));
    assert!(into("x").unwrap_err().message.contains("no number"));
    server.cli(&["-n", "40", "FLUSHDB"]);
    assert_eq!(server.digest(), before);
    // Two databases don't go into one.
    server.small();
    let (bytes, _) = dump(server.engine().as_ref()).unwrap();
    let error =
        restore(server.engine().as_ref(), cursor(&bytes), Destination::Into("9".into()), &Counts::new()).unwrap_err();
    assert!(error.message.contains("2 databases"), "{error}");
}

fn by_socket(which: Which) {
    let server = Server::new(which);
    let before = server.small().digest();
    let url = format!("redis+unix://{}/s", server.folder.path().display());
    let engine = open(voxeltron_backup::engine::Settings {
        url: voxeltron_backup::secret::Secret::new(url),
        ..server.settings_of()
    });
    let (bytes, findings) = dump(engine.as_ref()).unwrap();
    server.cli(&["FLUSHALL"]);
    let restored = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(server.digest(), before);
}

fn on_disk(which: Which) {
    survives(Server::new(which));
}

fn on_disk_with_aof(which: Which) {
    survives(Server::with(which, "appendonly yes\nappendfsync always"));
}

/// What was restored is there after a crash of the server, and so is what is written from then on.
fn survives(mut server: Server) {
    let before = server.small().digest();
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    server.cli(&["FLUSHALL"]);
    server.cli(&["SET", "old", "1"]);
    server.save();
    restore(server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    server.kill();
    assert!(server.start());
    assert_eq!(server.digest(), before);
}

#[test]
fn a_disk_based_transfer_has_no_mark_and_none_is_cut() {
    let server = Server::with(Which::Redis7, "repl-diskless-sync no");
    let before = server.small().digest();
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    assert!(checked(Which::Redis7, &bytes).contains("looks OK"));
    server.cli(&["FLUSHALL"]);
    restore(server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(server.digest(), before);
}

#[test]
fn without_checksum_and_empty() {
    let server = Server::with(Which::Redis7, "rdbchecksum no");
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    assert_eq!((findings.end_mark.as_str(), findings.counts.len()), ("EOF opcode, no CRC64", 0));
    let place = Place::new();
    assert!(server.engine().probe(&place.cx).unwrap().warnings[0].contains("no key"));
    server.small();
    restore(server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &Counts::new()).unwrap();
    assert_eq!(server.cli(&["INFO", "keyspace"]).trim(), "# Keyspace");
}

#[test]
fn keys_that_have_expired_meanwhile_are_no_difference() {
    let server = Server::new(Which::Valkey8);
    server.small().cli(&["SET", "soon", "x", "PX", "700"]);
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    assert_eq!(findings.counts.get("db0 expiring").copied().flatten(), Some(1));
    std::thread::sleep(std::time::Duration::from_millis(900));
    for destination in [Destination::Drill, Destination::InPlace] {
        let restored = restore(server.engine().as_ref(), cursor(&bytes), destination, &findings.counts).unwrap();
        assert_eq!(restored.notes, Vec::<String>::new());
    }
    restore(server.unfollowing().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(server.cli(&["EXISTS", "soon"]), "0");
    assert_eq!(server.cli(&["DBSIZE"]), "200");
}

#[test]
fn every_servers_dump_into_newer_ones_and_never_into_older() {
    let servers = [Which::Redis7, Which::Valkey8, Which::Redis8, Which::Valkey9].map(Server::new);
    let digests: Vec<String> = servers.iter().map(|server| server.small().digest()).collect();
    let dumps: Vec<Vec<u8>> = servers.iter().map(|server| dump(server.engine().as_ref()).unwrap().0).collect();
    // Rows: from; columns: into. In the order above.
    let loads = [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 0], [0, 1, 1, 1]];
    for (from, row) in loads.iter().enumerate() {
        for (into, loads) in row.iter().enumerate() {
            let server = &servers[into];
            server.cli(&["SET", "mark", "1"]);
            let before = (server.digest(), server.settings());
            let outcome = restore(server.engine().as_ref(), cursor(&dumps[from]), Destination::InPlace, &Counts::new());
            match (loads, outcome) {
                (1, Ok(_)) => assert_eq!(server.cli(&["DBSIZE"]), "200"),
                (0, Err(error)) => {
                    assert!(error.message.contains("loads"), "{error}");
                    assert_eq!(before, (server.digest(), server.settings()));
                }
                (_, other) => panic!("{from} into {into}: {other:?}"),
            }
        }
    }
    drop(digests);
}

#[test]
fn into_a_data_dir_with_a_long_path() {
    let server = Server::new(Which::Redis7);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    let mut place = Place::new();
    place.cx.data_dir = place.folder.path().join("long/".repeat(30));
    let restored =
        restore_in(&place, server.engine().as_ref(), cursor(&bytes), Destination::Drill, &findings.counts).unwrap();
    assert_eq!(restored.counts, findings.counts);
    drop(inspected(cursor(&bytes)));
}
