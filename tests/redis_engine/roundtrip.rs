//! There and back, by every way.

use voxeltron_backup::engine::{Counts, Destination};

use crate::on;
use voxeltron_backup::world::SystemClock;

use crate::support::{Fast, Place, Server, Which, checked, cursor, dump, fill, inspected, open, restore, restore_in};

on!(
    redis7 Redis7: hurts, key_by_key, beside, by_socket, on_disk, on_disk_with_aof, without_config, without_a_way_back;
    valkey8 Valkey8: hurts, key_by_key, beside, by_socket, on_disk, on_disk_with_aof, without_config, without_a_way_back;
    redis8 Redis8: hurts, key_by_key, without_config;
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

/// As at a provider who shows no settings: by the user's rights, or under another name.
fn without_config(which: Which) {
    for more in ["databases 20", "databases 20\nrename-command CONFIG \"\""] {
        let server = Server::with(which, more);
        let before = server.small().digest();
        let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
        server.cli(&["DEL", "key:1"]);
        // More than the usual 16 databases: it is found out how many there are.
        server.cli(&["-n", "18", "SET", "later", "1"]);
        server.cli(&["ACL", "SETUSER", "some", "on", ">some", "~*", "&*", "+@all", "-config"]);
        let hidden = more.contains("rename");
        let settings = || if hidden { Default::default() } else { server.settings() };
        let unchanged = settings();
        let restored =
            restore(server.engine_as("some", "some").as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts)
                .unwrap();
        assert!(
            restored.notes.len() == 1
                && restored.notes[0].starts_with("restored key by key, not by replication: CONFIG: the server says"),
            "{restored:?}"
        );
        assert_eq!((restored.counts, server.digest()), (findings.counts.clone(), before.clone()));
        assert_eq!(settings(), unchanged);
        assert!(server.cli(&["ROLE"]).starts_with("master"));
        server.cli(&["-n", "3", "FLUSHDB"]);
        let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
        let into = |number: &str| {
            let engine = server.engine_as("some", "some");
            restore(engine.as_ref(), cursor(&bytes), Destination::Into(number.into()), &findings.counts)
        };
        into("19").unwrap();
        assert_eq!(server.cli(&["-n", "19", "DBSIZE"]), "200");
        assert!(into("20").unwrap_err().message.contains("no database 20"));
    }
}

/// The server can be reached, and can't reach us.
fn without_a_way_back(which: Which) {
    let server = Server::apart(which);
    let before = server.small().digest();
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    server.cli(&["FLUSHALL"]);
    server.cli(&["SET", "later", "1"]);
    let settings = server.settings();
    let mut place = Place::new();
    place.cx.world.clock = std::sync::Arc::new(Fast(SystemClock::default()));
    let restored =
        restore_in(&place, server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert!(
        restored.notes.len() == 1
            && restored.notes[0]
                .starts_with("restored key by key, not by replication: the server can't reach this host at"),
        "{restored:?}"
    );
    assert_eq!((server.digest(), server.settings()), (before, settings));
    assert!(server.cli(&["ROLE"]).starts_with("master"));
    place.assert_empty();
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
    server.small();
    // In so little time that it is soon over; in more, where the dump has not begun by then.
    let dumped = ["700", "4000", "30000"].into_iter().find_map(|time| {
        server.cli(&["SET", "soon", "x", "PX", time]);
        let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
        (findings.counts.get("db0 expiring").copied().flatten() == Some(1)).then_some((bytes, findings))
    });
    let (bytes, findings) = dumped.expect("a dump that holds it");
    while server.cli(&["EXISTS", "soon"]) != "0" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for destination in [Destination::Drill, Destination::InPlace] {
        let restored = restore(server.engine().as_ref(), cursor(&bytes), destination, &findings.counts).unwrap();
        assert_eq!(restored.notes, Vec::<String>::new());
    }
    restore(server.unfollowing().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(server.cli(&["EXISTS", "soon"]), "0");
    assert_eq!(server.cli(&["DBSIZE"]), "200");
}

/// Hashes all of whose fields have expired are gone, though their keys had no instant.
#[test]
fn hashes_whose_fields_have_expired_meanwhile_are_no_difference() {
    let server = Server::new(Which::Redis8);
    server.small();
    let exist = || (server.cli(&["EXISTS", "soon"]), server.cli(&["-n", "5", "EXISTS", "alone"]));
    let both = ("1".to_owned(), "1".to_owned());
    // In so little time that it is soon over; in more, where the dump has not begun by then.
    let dumped = ["1500", "8000", "60000"].into_iter().find_map(|time| {
        for (number, key) in [("0", "soon"), ("5", "alone")] {
            server.cli(&["-n", number, "HSET", key, "f", "1"]);
            server.cli(&["-n", number, "HPEXPIRE", key, time, "FIELDS", "1", "f"]);
        }
        let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
        (exist() == both).then_some((bytes, findings))
    });
    let (bytes, findings) = dumped.expect("a dump that holds them");
    let count = |name: &str| findings.counts.get(name).copied().flatten();
    assert_eq!((count("db0"), count("db5")), (Some(201), Some(1)), "they have no instant of their own");
    while exist() != ("0".to_owned(), "0".to_owned()) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for destination in [Destination::Drill, Destination::InPlace] {
        let restored = restore(server.engine().as_ref(), cursor(&bytes), destination, &findings.counts).unwrap();
        assert_eq!(restored.notes, Vec::<String>::new());
    }
    restore(server.unfollowing().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!((exist(), server.cli(&["DBSIZE"]).as_str()), (("0".to_owned(), "0".to_owned()), "200"));
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
                    let hint = error.hint.as_deref().unwrap_or_default();
                    assert!(hint.contains("of the kind and version that it is from, or newer"), "{error:?}");
                    assert_eq!(before, (server.digest(), server.settings()));
                }
                (_, other) => panic!("{from} into {into}: {other:?}"),
            }
        }
    }
    drop(digests);
}

/// Its client asks for a format that can't hold them.
#[test]
fn fields_that_expire_on_valkey_9_fail_the_dump() {
    let server = Server::new(Which::Valkey9);
    server.small().cli(&["HSET", "hash", "a", "1", "b", "2"]);
    dump(server.engine().as_ref()).unwrap();
    server.cli(&["HPEXPIRE", "hash", "90000000", "FIELDS", "1", "a"]);
    let error = dump(server.engine().as_ref()).unwrap_err();
    assert_eq!(error.kind, voxeltron_backup::error::Kind::Tool, "{error:?}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("fields that expire"), "{error:?}");
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
