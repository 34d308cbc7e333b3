//! What is refused, with the reason and the mend; tools that die; and the program's own commands.

use std::fs;
use std::path::PathBuf;

use voxeltron_backup::engine::checks::Check;
use voxeltron_backup::engine::{Counts, Destination, Engine, Request, Settings};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::secret::Secret;

use crate::on;
use crate::support::{
    PASSWORD, Place, Server, Which, cursor, dump, fails_and_changes_nothing, inspected, open, program, restore,
};

on!(
    redis7 Redis7: errors_name_what_is_wrong, missing_rights_are_named_with_the_statement, a_replica_is_told_and_not_restored,
        clusters_are_refused, too_few_databases_or_too_little_memory, a_dump_tool_that_dies_is_an_error_of_the_stream,
        what_a_dead_restore_left_is_told_and_cleared, scripts_that_are_closed_are_told_before_anything_is_loaded,
        what_is_only_to_be_cleared_away_is_no_failure, over_tls, a_backup_with_the_wrong_keys_is_caught;
    valkey8 Valkey8: errors_name_what_is_wrong, missing_rights_are_named_with_the_statement, a_replica_is_told_and_not_restored,
        clusters_are_refused, too_few_databases_or_too_little_memory, a_dump_tool_that_dies_is_an_error_of_the_stream,
        what_a_dead_restore_left_is_told_and_cleared, scripts_that_are_closed_are_told_before_anything_is_loaded,
        what_is_only_to_be_cleared_away_is_no_failure, over_tls, a_backup_with_the_wrong_keys_is_caught;
);

fn probe(engine: &dyn Engine) -> Result<voxeltron_backup::engine::Probe, Error> {
    engine.probe(&Place::new().cx)
}

fn hint(error: &Error) -> &str {
    error.hint.as_deref().unwrap_or_default()
}

fn errors_name_what_is_wrong(which: Which) {
    let server = Server::new(which);
    server.small();
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = server.settings_of();
        change(&mut settings);
        let engine = open(settings);
        (probe(engine.as_ref()).unwrap_err(), dump(engine.as_ref()).unwrap_err())
    };
    let (probed, dumped) = with(&|settings| settings.password = None);
    assert!(
        hint(&probed).contains("wants a password") && hint(&dumped).contains("wants a password"),
        "{probed:?} {dumped:?}"
    );
    for (probed, said) in [
        (with(&|settings| settings.password = Some(Secret::new("canary"))).0, "NOAUTH"),
        (with(&|settings| settings.url = Secret::new("redis://127.0.0.1:1")).0, "redis-cli failed"),
        (with(&|settings| settings.url = Secret::new("redis+unix:///nowhere")).1, "failed with exit status 1"),
        (with(&|settings| settings.tools_dir = Some(PathBuf::from("/nowhere"))).1, "can't start /nowhere/redis-cli"),
    ] {
        let text = format!("{probed:?}").replace("valkey-cli", "redis-cli");
        assert!(text.contains(said) && probed.hint.is_some() && !text.contains("canary"), "{text}");
        assert_eq!(probed.kind, Kind::Tool);
    }
}

fn missing_rights_are_named_with_the_statement(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    let password = PASSWORD.replace('€', ">");
    server.cli(&[
        "ACL",
        "SETUSER",
        "backup",
        "on",
        &format!(">{password}"),
        "resetkeys",
        "+ping",
        "+info",
        "+acl|dryrun",
    ]);
    let engine = server.engine_as("backup", &password);
    let statement = "ACL SETUSER backup +sync +psync +replconf +ping +info";
    let error = probe(engine.as_ref()).unwrap_err();
    assert!(error.message.contains("may not run sync") && hint(&error) == statement, "{error:?}");
    let error = dump(engine.as_ref()).unwrap_err();
    assert!(error.kind == Kind::Tool && hint(&error) == statement, "{error:?}");
    server.cli(&statement.split(' ').collect::<Vec<_>>());
    probe(engine.as_ref()).unwrap();
    assert_eq!(dump(engine.as_ref()).unwrap().1.counts, findings.counts);
    // It is enough for a dump, and not for a restore.
    let error = fails_and_changes_nothing(&server, engine.as_ref(), cursor(&bytes), &findings.counts);
    assert!(hint(&error).starts_with("ACL SETUSER backup +"), "{error:?}");
    // Not even INFO: the dump works, and the check says what it can't see.
    server.cli(&["ACL", "SETUSER", "backup", "-info", "-acl"]);
    let probed = probe(engine.as_ref()).unwrap();
    assert!(probed.warnings[0].contains("ACL SETUSER backup +info"), "{probed:?}");
    assert_eq!(dump(engine.as_ref()).unwrap().1.counts, findings.counts);
}

fn a_replica_is_told_and_not_restored(which: Which) {
    let primary = Server::new(which);
    let before = primary.small().digest();
    let replica = Server::new(which);
    replica.cli(&["CONFIG", "SET", "masterauth", PASSWORD]);
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    for _ in 0..2400 {
        if replica.cli(&["INFO", "replication"]).contains("master_link_status:up") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let warnings = probe(replica.engine().as_ref()).unwrap().warnings;
    assert!(warnings[0].contains(&format!("a replica of 127.0.0.1:{}", primary.port)), "{warnings:?}");
    let (bytes, findings) = dump(replica.engine().as_ref()).unwrap();
    let error = fails_and_changes_nothing(&replica, replica.engine().as_ref(), cursor(&bytes), &findings.counts);
    assert!(hint(&error).contains("primary"), "{error:?}");
    // Restored at the primary, its replica follows, whatever it had.
    primary.cli(&["SET", "later", "1"]);
    let restored = restore(primary.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert!(restored.notes[0].contains("own replicas"), "{restored:?}");
    for _ in 0..2400 {
        if replica.digest() == before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!((primary.digest(), replica.digest()), (before.clone(), before));
}

fn clusters_are_refused(which: Which) {
    let plain = Server::new(which);
    let (bytes, findings) = dump(plain.small().engine().as_ref()).unwrap();
    let server = Server::with(which, "cluster-enabled yes");
    let heard = || server.cli(&["INFO", "commandstats"]);
    server.cli(&["CONFIG", "RESETSTAT"]);
    for destination in [Destination::InPlace, Destination::Into("0".into())] {
        let before = (server.digest(), server.settings());
        let error = restore(server.engine().as_ref(), cursor(&bytes), destination, &findings.counts).unwrap_err();
        assert!(error.message.contains("cluster mode: there it follows no server from outside"), "{error:?}");
        assert!(hint(&error).contains("by file: restore cache --output dump.rdb, stop the server"), "{error:?}");
        assert_eq!(before, (server.digest(), server.settings()));
    }
    for command in ["config|set", "replicaof", "restore", "set:", "swapdb", "flush"] {
        assert!(!heard().contains(&format!("cmdstat_{command}")), "{}", heard());
    }
    // Two nodes with half of the slots each.
    let other = Server::with(which, "cluster-enabled yes");
    server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    other.cli(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    server.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
    for _ in 0..2400 {
        if server.cli(&["CLUSTER", "INFO"]).contains("cluster_size:2") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for error in [probe(server.engine().as_ref()).unwrap_err(), dump(server.engine().as_ref()).unwrap_err()] {
        assert!(error.message.contains("one node of a cluster of 2"), "{error:?}");
    }
}

fn too_few_databases_or_too_little_memory(which: Which) {
    let server = Server::with(which, "databases 4");
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    server.cli(&["-n", "1", "SET", "a", "b"]);
    let error = fails_and_changes_nothing(&server, server.unfollowing().as_ref(), cursor(&bytes), &findings.counts);
    assert!(
        error.message.contains("has 4 databases; 3 of them") && hint(&error).contains("raise `databases`"),
        "{error:?}"
    );
    server.cli(&["CONFIG", "SET", "maxmemory", "1000000"]);
    let error = fails_and_changes_nothing(&server, server.engine().as_ref(), cursor(&bytes), &findings.counts);
    assert!(hint(&error).contains("maxmemory"), "{error:?}");
}

/// Scripts that stand for the client; each gives the real one's place in `$real` and passes on what is no dump.
fn a_dump_tool_that_dies_is_an_error_of_the_stream(which: Which) {
    let server = Server::new(which);
    server.small();
    let folder = tempfile::tempdir().unwrap();
    let real = which.tool("cli");
    let whole = dump(server.engine().as_ref()).unwrap().0.len();
    let with = |script: &str| -> Error {
        let text = format!(
            "#!/bin/sh\nreal={}\ncase \"$*\" in *--rdb*) ;; *) exec $real \"$@\";; esac\n{script}\n",
            real.display()
        );
        program(&folder.path().join("redis-cli"), &text);
        let engine = open(Settings { tools_dir: Some(folder.path().to_owned()), ..server.settings_of() });
        let error = dump(engine.as_ref()).map(|(bytes, _)| bytes.len()).expect_err(script);
        assert_eq!(error.kind, Kind::Tool, "{script}: {error:?}");
        error
    };
    // What the real one prints, mark and all.
    let mut recorded = server.client();
    let printed = folder.path().join("printed");
    let output = recorded.args(["--rdb", "-"]).output().unwrap();
    assert_eq!(output.stdout.len(), whole + 40);
    fs::write(&printed, output.stdout).unwrap();
    let with = |script: &str| with(&script.replace("$printed", &printed.display().to_string()));
    let error = with("$real \"$@\"; echo 'the last words' >&2; exit 1");
    assert!(
        error.message.contains("redis-cli failed with exit status 1") && error.tail.contains(&"the last words".into())
    );
    assert!(with("$real \"$@\" | head -c 500; kill -9 $$").message.contains("killed by signal 9"));
    assert!(with("exit 0").message.contains("empty"));
    for length in [1, 5, 9, 100, whole - 8, whole - 1] {
        let error = with(&format!("cat $printed | head -c {length}"));
        assert!(error.message.contains("is cut"), "{length}: {error:?}");
    }
    for length in [1, 39] {
        let error = with(&format!("cat $printed | head -c {}", whole + length));
        assert!(error.message.contains("behind its end"), "{length}: {error:?}");
    }
    let error = with("cat $printed; printf x");
    assert!(error.message.contains("behind its end"), "{error:?}");
    let error = with(&format!("cat $printed | head -c {whole}; head -c 40 /dev/zero"));
    assert!(error.message.contains("behind its end"), "{error:?}");
    assert!(with("echo 'Usage: redis-cli'").message.contains("no dump"));
    let error = with("cat $printed | sed 's/value 7 x/value 7 y/'");
    assert!(error.message.contains("checksum"), "{error:?}");
    assert!(with("printf REDIS0099; cat /dev/zero").message.contains("format REDIS0099"));
    assert!(with("printf 'REDIS0010\\310'; cat /dev/zero").message.contains("unknown here, 200"));
}

fn what_a_dead_restore_left_is_told_and_cleared(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    server.cli(&["-n", "60", "SET", "voxeltron-backup:restoring", "new"]);
    server.cli(&["-n", "60", "SET", "half", "1"]);
    let warnings = probe(server.engine().as_ref()).unwrap().warnings;
    assert!(warnings[0].contains("has left data in database 60"), "{warnings:?}");
    restore(server.unfollowing().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(server.cli(&["-n", "60", "DBSIZE"]), "0");
    assert_eq!(probe(server.engine().as_ref()).unwrap().warnings, Vec::<String>::new());
}

/// Without a script a transaction would not be stopped when a mark has gone.
fn scripts_that_are_closed_are_told_before_anything_is_loaded(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    server.cli(&["SET", "later", "1"]);
    let refused = |server: &Server, engine: &dyn Engine, expected: &Counts| {
        let error = fails_and_changes_nothing(server, engine, cursor(&bytes), expected);
        assert!(error.message.contains("looks by a script (EVAL)"), "{error:?}");
        hint(&error).to_owned()
    };
    let nothing_loaded = || {
        let heard = server.cli(&["INFO", "commandstats"]);
        for command in ["restore", "set:", "swapdb", "flush"] {
            assert!(!heard.contains(&format!("cmdstat_{command}")), "{heard}");
        }
    };
    for (closed, mend) in [("-eval", "+eval"), ("-@scripting", "+eval"), ("-watch", "+watch")] {
        let engine = server.unfollowing();
        server.cli(&["ACL", "SETUSER", "keys", closed]);
        server.cli(&["CONFIG", "RESETSTAT"]);
        assert_eq!(refused(&server, engine.as_ref(), &findings.counts), format!("ACL SETUSER keys {mend}"));
        nothing_loaded();
    }
    // Beside it, too.
    server.cli(&["-n", "3", "FLUSHDB"]);
    server.cli(&["DEL", "later"]);
    let (one, counts) = dump(server.engine().as_ref()).unwrap();
    let engine = server.unfollowing();
    server.cli(&["ACL", "SETUSER", "keys", "-eval"]);
    let before = server.digest();
    server.cli(&["CONFIG", "RESETSTAT"]);
    let error = restore(engine.as_ref(), cursor(&one), Destination::Into("9".into()), &counts.counts).unwrap_err();
    assert_eq!((hint(&error), server.digest()), ("ACL SETUSER keys +eval", before));
    nothing_loaded();

    let server = Server::with(which, "rename-command EVAL \"\"");
    server.small();
    let said = refused(&server, server.unfollowing().as_ref(), &findings.counts);
    assert!(said.contains("rename-command") && said.contains("restore by file"), "{said}");
}

/// The new data is live, whatever becomes of the old.
fn what_is_only_to_be_cleared_away_is_no_failure(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    let before = server.digest();
    server.cli(&["SET", "later", "1"]);
    let engine = server.unfollowing();
    server.cli(&["ACL", "SETUSER", "keys", "-flushdb"]);
    let restored = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    let told =
        restored.notes.iter().any(|note| note.contains("still hold what was live before") && note.contains("flushdb"));
    assert!(told, "{restored:?}");
    assert_eq!((restored.counts, server.cli(&["EXISTS", "later"]).as_str()), (findings.counts.clone(), "0"));
    // The next one clears it.
    let engine = server.unfollowing();
    let restored = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!((restored.notes.len(), server.digest()), (1, before));
}

fn over_tls(which: Which) {
    let folder = tempfile::tempdir().unwrap();
    let script = "cd \"$1\" && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out ca.pem \
                  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null";
    let made = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(folder.path()).status().unwrap();
    assert!(made.success());
    let path = folder.path().display();
    let mut server = Server::new(which);
    server.small();
    server.save();
    server.kill();
    fs::copy(folder.path().join("ca.pem"), server.folder.path().join("ca.pem")).unwrap();
    let conf = server.folder.path().join("conf");
    let text = fs::read_to_string(&conf).unwrap().replacen("port ", "port 0\ntls-port ", 1);
    let tls = format!(
        "tls-cert-file {path}/ca.pem\ntls-key-file {path}/key.pem\ntls-ca-cert-file {path}/ca.pem\ntls-auth-clients no\n"
    );
    fs::write(&conf, format!("{text}{tls}")).unwrap();
    assert!(server.start());
    let before = server.digest();
    let url = format!("rediss://127.0.0.1:{}?cacert={path}/ca.pem", server.port);
    let engine = open(Settings { url: Secret::new(url), ..server.settings_of() });
    let (bytes, findings) = dump(engine.as_ref()).unwrap();
    server.cli(&["FLUSHALL"]);
    let restored = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert!(restored.notes[0].contains("TLS"), "{restored:?}");
    assert_eq!(server.digest(), before);
    let without =
        open(Settings { url: Secret::new(format!("rediss://127.0.0.1:{}", server.port)), ..server.settings_of() });
    let error = dump(without.as_ref()).unwrap_err();
    assert!(hint(&error).contains("cacert"), "{error:?}");
    assert_eq!(
        restore(engine.as_ref(), cursor(&bytes), Destination::Drill, &Counts::new()).unwrap().counts,
        findings.counts
    );
}

fn a_backup_with_the_wrong_keys_is_caught(which: Which) {
    let server = Server::new(which);
    server.small().cli(&["SET", "key:1", "wrong\n"]);
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    let before = server.digest();
    let drill = |expected: &Counts, checks: &[Check]| {
        let place = Place::new();
        let request = Request { checks: checks.to_vec(), ..Request::new(Destination::Drill, expected.clone()) };
        let outcome = server.engine().restore(&mut inspected(cursor(&bytes)), &request, &place.cx);
        place.assert_empty();
        outcome
    };
    let check = |query: &[&str], expect: &str| Check {
        name: None,
        query: query.iter().map(|word| (*word).to_owned()).collect(),
        expect: expect.to_owned(),
    };
    let good = [
        check(&["DBSIZE"], "200"),
        check(&["GET", "key:7"], "value 7 xxxxxxx"),
        check(&["SELECT 3\nSMISMEMBER set a \"b\" c"], "OK\n1\n1\n0"),
        check(&["EXISTS", "no such key"], "0"),
        check(&["GET nokey"], ""),
        // The client tells how long what is slow has taken.
        check(&["WAIT", "1", "700"], "0"),
        check(&["WAIT 1 700\nDBSIZE"], "0\n200"),
    ];
    drill(&findings.counts, &good).unwrap();
    // By what was counted when it was made.
    let mut counted = findings.counts.clone();
    counted.insert("db0".to_owned(), Some(201));
    drill(&counted, &good).unwrap_err();
    // The number is right and the keys are not.
    let named = Check { name: Some("first".to_owned()), ..check(&["GET", "key:1"], "value 1 x") };
    let error = drill(&findings.counts, &[named]).unwrap_err();
    assert_eq!(error.kind, Kind::Tool);
    assert!(error.message.ends_with(r#"check "first": expected "value 1 x", found "wrong""#), "{error}");
    let error = drill(&findings.counts, &[check(&["HGET key:1 f"], "")]).unwrap_err();
    assert!(error.message.contains(r#"check "HGET key:1 f": HGET: the server says WRONGTYPE"#), "{error}");
    assert_eq!(server.digest(), before, "the live server was not asked");
}
