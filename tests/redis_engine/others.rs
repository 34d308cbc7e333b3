//! What others do to the server meanwhile, or have left there: clients that write where a restore loads, restores that were
//! killed, a Sentinel.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use voxeltron_backup::engine::{Aside, Destination, Keep, Request};
use voxeltron_backup::error::Error;

use crate::accidents::{Much, fake};
use crate::on;
use crate::support::{PASSWORD, Place, Server, Which, cursor, dump, inspected, open, restore, restore_in};

on!(
    redis7 Redis7: a_database_that_a_killed_restore_left_is_no_part_of_a_backup, an_undo_of_what_was_left_works,
        what_is_live_is_looked_at_right_before, what_others_write_into_a_free_database_stays, a_sentinel_is_not_deceived, whom_the_server_follows_is_looked_at;
    valkey8 Valkey8: a_database_that_a_killed_restore_left_is_no_part_of_a_backup, an_undo_of_what_was_left_works,
        what_is_live_is_looked_at_right_before, what_others_write_into_a_free_database_stays, a_sentinel_is_not_deceived, whom_the_server_follows_is_looked_at;
);

/// What marks a database that is not live.
const MARKER: &str = "voxeltron-backup:restoring";

fn a_database_that_a_killed_restore_left_is_no_part_of_a_backup(which: Which) {
    let server = Server::new(which);
    let before = server.small().digest();
    server.cli(&["-n", "60", "SET", MARKER, "new 0badcafe"]);
    server.cli(&["-n", "60", "SET", "half", "1"]);
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    server.cli(&["-n", "60", "FLUSHDB"]);
    let told = |notes: &[String]| notes.iter().any(|note| note.contains("database 60"));
    for (engine, keys) in [(server.unfollowing(), true), (server.engine(), false)] {
        server.cli(&["DEL", "key:1"]);
        // Somebody uses the number by now.
        server.cli(&["-n", "60", "SET", "later", "1"]);
        let restored = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
        assert_eq!((server.digest(), server.cli(&["-n", "60", "DBSIZE"])), (before.clone(), "0".into()), "{keys}");
        assert!(told(&restored.notes) && !restored.counts.contains_key("db60"), "{keys}: {restored:?}");
        assert_eq!(restored.notes.iter().any(|note| note.starts_with("restored key by key")), keys, "{restored:?}");
    }
    let drilled = restore(server.engine().as_ref(), cursor(&bytes), Destination::Drill, &findings.counts).unwrap();
    assert!(told(&drilled.notes) && !drilled.counts.contains_key("db60"), "{drilled:?}");
    // Beside it, one database is one.
    server.cli(&["-n", "3", "FLUSHDB"]);
    server.cli(&["-n", "60", "SET", MARKER, "new 0badcafe"]);
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    server.cli(&["-n", "60", "FLUSHDB"]);
    restore(server.engine().as_ref(), cursor(&bytes), Destination::Into("9".into()), &findings.counts).unwrap();
    assert_eq!(
        (server.cli(&["-n", "9", "DBSIZE"]), server.cli(&["-n", "9", "EXISTS", MARKER])),
        ("200".into(), "0".into())
    );
}

/// Through the program: a backup with what a killed restore had left, what is kept of it, and back again.
fn an_undo_of_what_was_left_works(which: Which) {
    let much = Much::of(500, which, true, "");
    let leave = || {
        much.server.cli(&["-n", "60", "SET", MARKER, "new 0badcafe"]);
        much.server.cli(&["-n", "60", "SET", "half", "1"]);
    };
    let run = |words: &[&str]| {
        let output = much.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    leave();
    run(&["run-job", "cache"]);
    much.server.cli(&["-n", "2", "SET", "which", "changed"]);
    leave();
    run(&["restore", "cache", "--latest", "--yes"]);
    assert_eq!((much.digest(), much.server.cli(&["-n", "60", "DBSIZE"])), (much.old.clone(), "0".into()));
    run(&["restore", "cache", "--undo", "--yes"]);
    assert_eq!(much.server.cli(&["-n", "2", "GET", "which"]), "changed");
    assert_eq!(much.server.cli(&["-n", "60", "DBSIZE"]), "0");
}

/// Writes into a database that was empty while the live data is kept.
struct Writes(Arc<Server>);

impl Aside for Writes {
    fn room(&self) -> Result<(), Error> {
        Ok(())
    }

    fn take(&self, _: chrono::DateTime<chrono::Utc>) -> Result<(), Error> {
        self.0.cli(&["-n", "63", "SET", "other", "1"]);
        Ok(())
    }

    fn untouched(&self, _: chrono::DateTime<chrono::Utc>) {}
}

fn what_is_live_is_looked_at_right_before(which: Which) {
    let server = Arc::new(Server::new(which));
    let before = server.small().digest();
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    server.cli(&["SET", "later", "1"]);
    // It is live like all else that is replaced.
    let place = Place::new();
    let mut request = Request::new(Destination::InPlace, findings.counts.clone());
    request.keep = Some(Keep { at: chrono::Utc::now(), aside: Arc::new(Writes(Arc::clone(&server))) });
    let engine = server.unfollowing();
    engine.restore(&mut inspected(cursor(&bytes)), &request, &place.cx).unwrap();
    assert_eq!(server.digest(), before);
}

fn what_others_write_into_a_free_database_stays(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    server.unfollowing();
    server.cli(&["-n", "3", "FLUSHDB"]);
    let (one, counts) = dump(server.engine().as_ref()).unwrap();
    server.small().cli(&["SET", "later", "1"]);
    let live = server.digest();
    let set = "(while [ \"$1\" != --pipe ]; do set -- \"$@\" \"$1\"; shift; done; shift 3; $real \"$@\" -n 63 SET other 1) >/dev/null";
    for (when, script, said) in [
        // Right before the database is marked, and behind what was loaded.
        (
            "before",
            format!("[ -e $here/once ] || {{ touch $here/once; {set}; }}; exec $real \"$@\" <$here/in"),
            "database 63 is not empty any more",
        ),
        (
            "behind",
            format!(
                "$real \"$@\" <$here/in; status=$?; grep -aq ABSTTL $here/in && {{ touch $here/once; {set}; }}; exit $status"
            ),
            "where the backup has",
        ),
    ] {
        let tools =
            fake(which, &format!("case \"$*\" in *--pipe*) ;; *) exec $real \"$@\";; esac\ncat >$here/in\n{script}"));
        let settings = |user: &str, password: &str| voxeltron_backup::engine::Settings {
            tools_dir: Some(tools.path().to_owned()),
            url: voxeltron_backup::secret::Secret::new(format!("redis://{user}127.0.0.1:{}", server.port)),
            password: Some(voxeltron_backup::secret::Secret::new(password)),
            ..server.settings_of()
        };
        for (dump, expected, to) in
            [(&bytes, &findings.counts, Destination::InPlace), (&one, &counts.counts, Destination::Into("63".into()))]
        {
            let place = Place::new();
            let engine = open(settings("keys@", "q w\"'\\%$é"));
            let error = restore_in(&place, engine.as_ref(), cursor(dump), to.clone(), expected).unwrap_err();
            assert!(tools.path().join("once").exists(), "{when} {to:?}: {error:?}");
            assert!(error.message.contains(said), "{when} {to:?}: {error:?}");
            assert_eq!(server.cli(&["-n", "63", "GET", "other"]), "1", "{when} {to:?}: {error:?}");
            assert_eq!(server.cli(&["-n", "63", "EXISTS", MARKER]), "0", "{when} {to:?}: the next one lets it be, too");
            assert_eq!(server.cli(&["-n", "62", "DBSIZE"]), "0", "{when} {to:?}");
            server.cli(&["-n", "63", "FLUSHDB"]);
            assert_eq!(server.digest(), live, "{when} {to:?}");
            std::fs::remove_file(tools.path().join("once")).unwrap();
            if when == "behind" {
                let warned = place.cx.report.captured().1;
                assert!(warned.contains("database 63"), "{to:?}: {warned}");
            }
        }
    }
}

/// One that is ended with the test.
struct Sentinel(Child);

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// It would take the server for a replica while it follows us, make another one the primary, and have written down what the
/// restore has changed for its time.
fn a_sentinel_is_not_deceived(which: Which) {
    let server = Server::new(which);
    let before = server.small().digest();
    let (bytes, findings) = dump(server.engine().as_ref()).unwrap();
    server.cli(&["DEL", "key:1"]);
    let settings = server.settings();
    let folder = tempfile::tempdir().unwrap();
    let quoted: String = PASSWORD.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    let conf = format!(
        "port 0\nunixsocket {folder}/s\ndir {folder}\nsentinel monitor m 127.0.0.1 {} 1\nsentinel auth-pass m \"{quoted}\"\n",
        server.port,
        folder = folder.path().display()
    );
    std::fs::write(folder.path().join("conf"), conf).unwrap();
    let mut command = Command::new(which.tool("server"));
    command.arg(folder.path().join("conf")).arg("--sentinel").stdin(Stdio::null());
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let sentinel = Sentinel(command.spawn().unwrap());
    let watches = || server.cli(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]).ends_with('1');
    for _ in 0..6000 {
        if watches() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(watches(), "{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
    server.cli(&["CONFIG", "RESETSTAT"]);
    let restored = restore(server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert!(
        restored.notes[0].starts_with("restored key by key, not by replication: a Sentinel watches it"),
        "{restored:?}"
    );
    assert!(!server.cli(&["INFO", "commandstats"]).contains("cmdstat_replicaof"));
    assert_eq!(server.digest(), before);
    drop(sentinel);
    assert_eq!(server.settings(), settings);
}

/// One that has been told to follow another is not taken for one that follows us.
fn whom_the_server_follows_is_looked_at(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    let tools = fake(
        which,
        "case \"$*\" in *--no-raw*) $real \"$@\" | sed 's/^master_port:.*/master_port:1\\r/';; *) exec $real \"$@\";; esac",
    );
    let engine =
        open(voxeltron_backup::engine::Settings { tools_dir: Some(tools.path().to_owned()), ..server.settings_of() });
    let error = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap_err();
    assert!(error.message.contains("somebody else told the server to follow 127.0.0.1:1"), "{error:?}");
}
