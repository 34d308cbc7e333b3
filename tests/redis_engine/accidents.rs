//! Whatever fails in the middle leaves the server whole, old or new, and every setting as it was.

use std::io::{self, Cursor, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use voxeltron_backup::engine::{Counts, Destination};
use voxeltron_backup::error::{Error, Kind};

use crate::cutter::points;
use crate::on;
use crate::support::{
    Place, Server, Which, cursor, dump, fails_and_changes_nothing, files, program, restore, restore_in, words,
};

on!(
    redis7 Redis7: a_stream_that_fails_anywhere_changes_nothing, a_damaged_dump_changes_nothing,
        a_count_that_differs_changes_nothing, killed_at_any_instant, killed_at_any_instant_key_by_key, killed_behind_its_first_change,
        a_server_killed_in_the_middle_has_the_old_or_the_new, clients_read_and_write_all_the_while,
        odd_settings_come_back, a_signal_in_the_middle_leaves_nothing, what_another_has_cleared_is_not_exchanged,
        a_server_that_holds_something_else_in_the_end_is_an_error;
    valkey8 Valkey8: a_stream_that_fails_anywhere_changes_nothing, a_damaged_dump_changes_nothing,
        a_count_that_differs_changes_nothing, killed_at_any_instant, killed_at_any_instant_key_by_key, killed_behind_its_first_change,
        a_server_killed_in_the_middle_has_the_old_or_the_new, clients_read_and_write_all_the_while,
        odd_settings_come_back, a_signal_in_the_middle_leaves_nothing, what_another_has_cleared_is_not_exchanged,
        a_server_that_holds_something_else_in_the_end_is_an_error;
);

/// Gives `left` bytes and then an error, as a backup does whose last segment has a bad tag.
struct Failing<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.left.min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count;
        if count == 0 {
            return Err(Error::new(Kind::Authentication, "segment 1 does not authenticate").into_io());
        }
        Ok(count)
    }
}

fn a_stream_that_fails_anywhere_changes_nothing(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    server.cli(&["SET", "later", "1"]);
    for left in [0, 1, 100, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        let stream = Failing { inner: cursor(&bytes), left };
        let error = fails_and_changes_nothing(&server, server.engine().as_ref(), stream, &findings.counts);
        assert_eq!((error.kind, error.message.as_str()), (Kind::Authentication, "segment 1 does not authenticate"));
    }
}

fn a_damaged_dump_changes_nothing(which: Which) {
    let server = Server::new(which);
    let (bytes, _) = dump(server.small().engine().as_ref()).unwrap();
    server.cli(&["SET", "later", "1"]);
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        bytes
    };
    let damaged = [
        bytes[..bytes.len() - 1].to_vec(),
        bytes[..bytes.len() / 2].to_vec(),
        flipped(bytes.len() / 2),
        flipped(bytes.len() - 3),
        [&bytes[..], &[b'0'; 40]].concat(),
        b"PGDMP\x01\x0e\x00".to_vec(),
        [b"REDIS0099", &bytes[9..]].concat(),
        Vec::new(),
    ];
    for dump in damaged {
        let request = voxeltron_backup::engine::Request::new(Destination::InPlace, Counts::new());
        let before = (server.digest(), server.settings());
        let place = Place::new();
        server.cli(&["CONFIG", "RESETSTAT"]);
        // Without the inspector: the engine looks for itself.
        let error = server.engine().restore(&mut Cursor::new(dump), &request, &place.cx).unwrap_err();
        let heard = server.cli(&["INFO", "commandstats"]);
        assert!(
            heard.contains("config|resetstat") && !heard.contains("replicaof") && !heard.contains("config|set"),
            "{heard}"
        );
        assert_eq!(error.kind, Kind::Tool, "{error}");
        assert_eq!(before, (server.digest(), server.settings()));
        place.assert_empty();
    }
}

fn a_count_that_differs_changes_nothing(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    for (name, count) in [("db0", 199), ("db0", 201), ("db7", 1), ("db3 expiring", 0), ("functions", 1)] {
        let mut expected = findings.counts.clone();
        expected.insert(name.to_owned(), Some(count));
        for destination in [Destination::InPlace, Destination::Drill, Destination::Into("30".into())] {
            let error = restore(server.engine().as_ref(), cursor(&bytes), destination, &expected).unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
        fails_and_changes_nothing(&server, server.engine().as_ref(), cursor(&bytes), &expected);
    }
}

/// Ends threads even when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A server with much to load, and a sandbox with one backup of it; then the server holds something else.
pub struct Much {
    pub server: Server,
    pub folder: tempfile::TempDir,
    pub new: String,
    pub old: String,
    pub settings: std::collections::BTreeMap<String, String>,
}

impl Much {
    pub fn new(which: Which, keys: bool, more: &str) -> Self {
        Self::of(60_000, which, keys, more)
    }

    /// With so many keys.
    pub fn of(size: u32, which: Which, keys: bool, more: &str) -> Self {
        let server = Server::with(which, more);
        let values = |prefix: &str| -> Vec<Vec<Vec<u8>>> {
            (0..size)
                .map(|n| words(&["SET", &format!("{prefix}:{n}"), &format!("{n} {}", "value ".repeat(20))]))
                .collect()
        };
        server.pipe(&values("new"));
        server.pipe(&[words(&["SELECT", "2"]), words(&["SET", "which", "new"])]);
        server.cli(&["FUNCTION", "LOAD", "#!lua name=f\nredis.register_function('f', function() return 'new' end)"]);
        let folder = tempfile::Builder::new().prefix("voxeltron-much-").tempdir().unwrap();
        let path = folder.path().display();
        if keys {
            server.unfollowing();
        }
        let (user, password) = if keys { ("keys@", "q w\"'\\%$é") } else { ("", crate::support::PASSWORD) };
        std::fs::write(folder.path().join("password"), password).unwrap();
        let config = format!(
            "[backup]\ndata_dir = \"{path}/data\"\ninstance = \"h\"\n[backup.targets.local]\npath = \"{path}/store\"\n\
             [databases.cache]\nengine = \"redis\"\nurl = \"redis://{user}127.0.0.1:{}\"\npassword = {{ file = \"{path}/password\" }}\n\
             tools_dir = \"{}\"\n[[backup.jobs]]\ndatabase = \"cache\"\nschedule = \"@daily\"\n",
            server.port,
            which.tools().display()
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        for name in ["config.toml", "password"] {
            std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::clone(&private)).unwrap();
        }
        let mut this = Self { server, folder, new: String::new(), old: String::new(), settings: Default::default() };
        let output = this.command(&["run-job", "cache"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        this.new = this.digest();
        this.make_old();
        this.old = this.digest();
        this.settings = this.server.settings();
        this
    }

    pub fn make_old(&self) {
        self.server.cli(&["FLUSHALL"]);
        self.server.cli(&["SET", "old", "1"]);
        self.server.cli(&["-n", "2", "SET", "which", "old"]);
        self.server.cli(&["-n", "7", "SET", "seven", "old"]);
        self.server.cli(&[
            "FUNCTION",
            "LOAD",
            "REPLACE",
            "#!lua name=f\nredis.register_function('f', function() return 'old' end)",
        ]);
        self.server.save();
    }

    /// What the databases that are in use by the data hold, and the function; scratch ones lie above.
    pub fn digest(&self) -> String {
        let all = self.server.cli(&["INFO", "keyspace"]);
        let low: Vec<&str> =
            all.lines().filter(|line| ["db0:", "db2:", "db7:"].iter().any(|db| line.starts_with(db))).collect();
        let low: Vec<&str> = low.iter().map(|line| line.split(",exp").next().unwrap_or_default()).collect();
        let which = self.server.cli(&["-n", "2", "GET", "which"]);
        let code = self.server.cli(&["FUNCTION", "LIST", "WITHCODE"]);
        format!("{low:?} {which} {:?}", code.lines().find(|line| line.contains("return")))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxeltron-backup"));
        command.args(["-q", "-c"]).arg(self.folder.path().join("config.toml")).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn restore(&self) -> Command {
        self.command(&["restore", "cache", "--latest", "--yes"])
    }

    /// A second run, which must leave everything in order.
    #[track_caller]
    pub fn again(&self) {
        let output = self.restore().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(self.digest(), self.new);
        assert_eq!(self.server.settings(), self.settings);
        assert!(self.server.cli(&["ROLE"]).starts_with("master"));
        let keyspace = self.server.cli(&["INFO", "keyspace"]);
        assert_eq!(keyspace.lines().filter(|line| line.starts_with("db")).count(), 2, "{keyspace}");
        let left = std::fs::read_dir(self.folder.path().join("data")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!left.iter().any(|name| name.contains("redis")), "{left:?}");
    }
}

/// Kills the program at instants that lie evenly over a restore, and looks each time.
fn kill_points(much: &Much, points: u32) {
    let started = Instant::now();
    much.again();
    let whole = started.elapsed();
    let mut outcomes = Vec::new();
    for point in 0..points {
        much.make_old();
        let mut child = crate::session::leader(&much.restore(), true);
        let mut child = child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * point / points);
        let _ = child.kill();
        child.wait().unwrap();
        crate::session::wait_for_the_rest(child.id());
        // A server that is taking over what it has got does so in a moment.
        std::thread::sleep(Duration::from_millis(30));
        let mut seen = much.digest();
        for _ in 0..3000 {
            if !much.server.cli(&["INFO", "persistence"]).contains("loading:1") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            seen = much.digest();
        }
        assert!(seen == much.old || seen == much.new, "at {point}/{points}: {seen}");
        outcomes.push(if seen == much.old { "old" } else { "new" });
        much.again();
    }
    println!("{points} kill points over {whole:?}: {outcomes:?}");
    assert!(outcomes.contains(&"old"), "{outcomes:?}");
}

/// Each costs two runs of the program.
fn kills(which: Which) -> u32 {
    points(if which == Which::Redis7 { 20 } else { 12 }, 50)
}

fn killed_at_any_instant(which: Which) {
    kill_points(&Much::of(15_000, which, false, "masterauth secret\nrepl-diskless-load on-empty-db"), kills(which));
}

fn killed_at_any_instant_key_by_key(which: Which) {
    kill_points(&Much::of(15_000, which, true, ""), kills(which));
}

fn killed_behind_its_first_change(which: Which) {
    let much = Much::new(which, false, "masterauth canary\nrepl-diskless-load on-empty-db");
    much.make_old();
    // A client that kills who calls it as soon as it has changed a setting.
    let tools = much.folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let real = which.tool("cli");
    program(
        &tools.join(real.file_name().unwrap()),
        &format!(
            "#!/bin/sh\ncase \"$*\" in *--no-raw*) ;; *) exec {real} \"$@\";; esac\ninput=$(cat)\n\
             printf '%s\\n' \"$input\" | {real} \"$@\"\ncase \"$input\" in '\"CONFIG\" \"SET\" '*) kill -KILL \"$PPID\";; esac\n",
            real = real.display()
        ),
    );
    let config = much.folder.path().join("config.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace(which.tools().to_str().unwrap(), tools.to_str().unwrap())).unwrap();
    let output = much.restore().output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(much.server.settings(), much.settings, "it had changed one");
    // What it has written down holds no password of the server's.
    let written = std::fs::read_dir(much.folder.path().join("data")).unwrap().map(|entry| entry.unwrap().path());
    let written: Vec<_> = written.filter(|path| path.display().to_string().ends_with(".restoring")).collect();
    let text = std::fs::read_to_string(written.first().unwrap()).unwrap();
    assert!(text.contains("repl-diskless-load") && !text.contains("canary"), "{text}");
    assert_eq!(much.digest(), much.old);
    std::fs::write(&config, good).unwrap();
    much.again();
}

fn a_server_killed_in_the_middle_has_the_old_or_the_new(which: Which) {
    let mut much = Much::new(which, false, "");
    let started = Instant::now();
    much.again();
    let whole = started.elapsed();
    for part in [2, 4, 6, 8, 9] {
        much.make_old();
        let child = much.restore().spawn().unwrap();
        std::thread::sleep(whole * part / 10);
        much.server.kill();
        let output = child.wait_with_output().unwrap();
        assert!(much.server.start());
        let seen = much.digest();
        assert!(seen == much.old || seen == much.new, "{part}: {seen}");
        if output.status.success() {
            assert_eq!(seen, much.new, "what is said to be restored is on the disk");
        }
        much.again();
    }
}

fn clients_read_and_write_all_the_while(which: Which) {
    let much = Much::new(which, false, "");
    let done = AtomicBool::new(false);
    let (reads, worst) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = || {
            let mut seen = std::collections::BTreeSet::new();
            while !done.load(Ordering::SeqCst) {
                let started = Instant::now();
                let value = much.server.try_cli(&["-n", "2", "GET", "which"]);
                worst.fetch_max(u64::try_from(started.elapsed().as_millis()).unwrap(), Ordering::SeqCst);
                reads.fetch_add(1, Ordering::SeqCst);
                seen.insert(value.map_err(|error| error.lines().next().unwrap_or_default().to_owned()));
            }
            seen
        };
        let writer = || {
            let mut refused = std::collections::BTreeSet::new();
            while !done.load(Ordering::SeqCst) {
                if let Err(error) = much.server.try_cli(&["-n", "50", "SET", "written", "1"]) {
                    refused.insert(error.split_whitespace().next().unwrap_or_default().to_owned());
                }
            }
            refused
        };
        let (reader, writer) = (scope.spawn(reader), scope.spawn(writer));
        let end = Ending(&done);
        // It has read before, and again behind it.
        let two_more = || {
            let before = reads.load(Ordering::SeqCst);
            while reads.load(Ordering::SeqCst) < before + 2 && !reader.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        two_more();
        let output = much.restore().output().unwrap();
        two_more();
        drop(end);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let seen = reader.join().unwrap();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [Ok("new".to_owned()), Ok("old".to_owned())], "never neither");
        for refusal in writer.join().unwrap() {
            assert!(["READONLY", "(error)", "LOADING"].iter().any(|known| refusal.contains(known)), "{refusal}");
        }
    });
    much.server.cli(&["-n", "50", "FLUSHDB"]);
    assert_eq!(much.digest(), much.new);
    println!("{} reads, the worst {} ms", reads.into_inner(), worst.into_inner());
}

fn odd_settings_come_back(which: Which) {
    let odd = "masteruser someone\nmasterauth \"a \\x22b'\\x0a\"\nrepl-diskless-load on-empty-db\nreplica-serve-stale-data no\n\
               replica-read-only no";
    let server = Server::with(which, odd);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    let settings = server.settings();
    assert_eq!(settings.get("\"replica-serve-stale-data\"").map(String::as_str), Some("\"no\""));
    server.cli(&["FLUSHALL"]);
    let restored = restore(server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(server.settings(), settings);
    // A server that says no to the very last step before.
    let password = "half";
    server.cli(&["ACL", "SETUSER", "half", "on", ">half", "~*", "&*", "+@all", "-replicaof", "-slaveof", "-swapdb"]);
    let engine = server.engine_as("half", password);
    let error = fails_and_changes_nothing(&server, engine.as_ref(), cursor(&bytes), &findings.counts);
    assert!(error.message.contains("swapdb") && error.hint.as_deref() == Some("ACL SETUSER half +swapdb"), "{error:?}");
    assert_eq!(server.cli(&["DBSIZE"]), "200");
}

fn a_signal_in_the_middle_leaves_nothing(which: Which) {
    let much = Much::new(which, false, "");
    much.again();
    much.make_old();
    for signal in ["-TERM", "-INT"] {
        for pause in [20, 60, 120, 200] {
            let child = much.restore().spawn().unwrap();
            std::thread::sleep(Duration::from_millis(pause));
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            let output = child.wait_with_output().unwrap();
            let seen = much.digest();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.success() {
                true => assert_eq!(seen, much.new),
                false => assert!(seen == much.old || seen == much.new, "{said} {seen}"),
            }
            assert_eq!(much.server.settings(), much.settings, "{said}");
            assert!(much.server.cli(&["ROLE"]).starts_with("master"));
            if seen == much.new {
                much.make_old();
            }
        }
    }
    assert!(files(much.folder.path()) > 0);
}

/// A folder of tools in which this script stands for the client; `$real` is the real one.
pub fn fake(which: Which, script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(which.tools()).unwrap().flatten() {
        std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let real = which.tool("cli");
    let path = folder.path().join(real.file_name().unwrap());
    std::fs::remove_file(&path).unwrap();
    program(&path, &format!("#!/bin/sh\nreal={}\nhere={}\n{script}\n", real.display(), folder.path().display()));
    folder
}

fn what_another_has_cleared_is_not_exchanged(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    server.cli(&["SET", "later", "1"]);
    server.cli(&["FUNCTION", "LOAD", "#!lua name=f\nredis.register_function('f', function() return 'live' end)"]);
    server.unfollowing();
    let code = server.cli(&["FUNCTION", "LIST", "WITHCODE"]);
    let mut live = server.digest();
    let flush = "$real \"$@\" -n $n FLUSHDB";
    for (what, others) in [
        (flush.to_owned(), 0),
        // One that has begun to load there in its turn.
        (
            format!(
                "{flush}; $real \"$@\" -n $n SET voxeltron-backup:restoring 'new 0badcafe'; $real \"$@\" -n $n SET other 1"
            ),
            2,
        ),
        // And one that had its place before, and has done with it.
        (format!("{flush}; $real \"$@\" -n $n SET mine 1"), 1),
    ] {
        // The database of the two into which more is loaded.
        let tools = fake(
            which,
            &format!(
                "case \"$*\" in *--pipe*) ;; *) exec $real \"$@\";; esac\ncat >$here/in\n\
                 if grep -aq SWAPDB $here/in; then touch $here/once\n\
                 (while [ \"$1\" != --pipe ]; do set -- \"$@\" \"$1\"; shift; done; shift 3; n=63; {what}) >/dev/null; fi\n\
                 exec $real \"$@\" <$here/in"
            ),
        );
        let settings = voxeltron_backup::engine::Settings {
            tools_dir: Some(tools.path().to_owned()),
            url: voxeltron_backup::secret::Secret::new(format!("redis://keys@127.0.0.1:{}", server.port)),
            password: Some(voxeltron_backup::secret::Secret::new("q w\"'\\%$é")),
            ..server.settings_of()
        };
        let error =
            restore(crate::support::open(settings).as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts)
                .expect_err("what was loaded is gone");
        assert!(tools.path().join("once").exists(), "{error:?}");
        assert!(error.message.contains("somebody else has cleared what was loaded"), "{error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains("another restore"), "{error:?}");
        assert_eq!(server.cli(&["-n", "63", "DBSIZE"]), others.to_string(), "what is another's is let be");
        assert_eq!(server.cli(&["-n", "62", "DBSIZE"]), "0", "and what is ours is not left");
        assert_eq!(server.cli(&["FUNCTION", "LIST", "WITHCODE"]), code);
        server.cli(&["-n", "63", "FLUSHDB"]);
        assert_eq!(std::mem::replace(&mut live, server.digest()), server.digest());
    }
}

/// By replication there is no way back but the dump that was kept.
fn a_server_that_holds_something_else_in_the_end_is_an_error(which: Which) {
    let server = Server::new(which);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    server.cli(&["DEL", "key:1"]);
    let settings = server.settings();
    let tools = fake(
        which,
        "case \"$*\" in *--no-raw*) $real \"$@\" | sed 's/^db0:keys=200,/db0:keys=198,/';; *) exec $real \"$@\";; esac",
    );
    let engine = crate::support::open(voxeltron_backup::engine::Settings {
        tools_dir: Some(tools.path().to_owned()),
        ..server.settings_of()
    });
    let error = restore(engine.as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap_err();
    assert!(error.message.contains("does not hold what that holds: db0 has 198"), "{error:?}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("another backup"), "{error:?}");
    assert_eq!((server.cli(&["DBSIZE"]), server.settings()), ("200".to_owned(), settings));
    // With what was kept, it can be put back.
    let place = Place::new();
    let mut request = voxeltron_backup::engine::Request::new(Destination::InPlace, findings.counts.clone());
    request.keep = Some(voxeltron_backup::engine::Keep { at: chrono::Utc::now(), aside: std::sync::Arc::new(Nowhere) });
    let error = engine.restore(&mut crate::support::inspected(cursor(&bytes)), &request, &place.cx).unwrap_err();
    assert!(error.hint.as_deref().unwrap_or_default().contains("restore cache --undo"), "{error:?}");
    place.assert_empty();
}

/// Keeps nothing.
struct Nowhere;

impl voxeltron_backup::engine::Aside for Nowhere {
    fn room(&self) -> Result<(), Error> {
        Ok(())
    }

    fn take(&self, _: chrono::DateTime<chrono::Utc>) -> Result<(), Error> {
        Ok(())
    }

    fn untouched(&self, _: chrono::DateTime<chrono::Utc>) {}
}

#[test]
fn a_restore_under_way_is_not_disturbed_by_another() {
    let server = Server::new(Which::Redis7);
    let (bytes, findings) = dump(server.small().engine().as_ref()).unwrap();
    let place = Place::new();
    let settings = server.settings_of();
    let tools = voxeltron_backup::engine::redis::tools::Tools::new(
        &settings,
        voxeltron_backup::engine::redis::url::Place::parse(&settings.url).unwrap(),
    );
    let client = tools.client(&place.cx).unwrap();
    let (held, left) = voxeltron_backup::engine::redis::settings::Changed::open(&tools, &client, &place.cx).unwrap();
    assert!(!left);
    let error = restore_in(&place, server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts)
        .unwrap_err();
    assert!(error.message.contains("another restore"), "{error}");
    drop(held);
    restore_in(&place, server.engine().as_ref(), cursor(&bytes), Destination::InPlace, &findings.counts).unwrap();
    place.assert_empty();
}
