//! What is told, or refused with its mend, before anything begins: a part of a schema, rights that roles give, an empty
//! schema, a replica, a dump of a newer server; and what does not count: a grant that is not in force, a limit on time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;

/// Held by whoever sets what all sessions of MySQL's server follow, and by whoever would be misled by it.
fn settings_of_all(server: &Server) -> Option<MutexGuard<'static, ()>> {
    static SETTINGS: Mutex<()> = Mutex::new(());
    (!server.maria).then(|| SETTINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Undoes something however a test ends.
struct Undo<'a>(&'a Server, String);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for sql in self.1.split(';') {
            let _ = self.0.try_sql("mysql", sql);
        }
    }
}

pub fn a_part_of_a_database_never_takes_the_place_of_the_whole(server: Server) {
    let db = Database::small(server, "part", false);
    let with = |arg: String| open(Settings { dump_args: vec![arg], ..settings(&db.server, &db.name) });
    let engine = with(format!("--ignore-table={}.b", db.name));
    // What the manifest says of it, and a restore in place refuses.
    assert_eq!(engine.partial().as_deref(), Some("--ignore-table"));
    assert_eq!(engine.leaves_out().as_deref(), Some("--ignore-table"));
    let (bytes, findings) = dump(engine.as_ref()).unwrap();
    assert_eq!(findings.counts.keys().collect::<Vec<_>>(), ["a"]);
    // Beside it, it comes back.
    let restored = restore(engine.as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    assert_eq!(restored.counts, findings.counts);
    // Who names rows says that they are not needed, but for what is kept of a schema that is replaced.
    let engine = with(format!("--ignore-table-data={}.b", db.name));
    assert_eq!((engine.partial(), engine.leaves_out().as_deref()), (None, Some("--ignore-table-data")));
    assert_eq!((db.engine().partial(), db.engine().leaves_out()), (None, None));
}

/// A user who has next to nothing yet.
struct Poor {
    user: String,
    url: String,
}

impl Poor {
    fn new(db: &Database, label: &str) -> Self {
        let user = format!("vx_{label}_{}_{}", std::process::id(), db.server.maria);
        db.server.admin(&format!("CREATE USER {user}@'%' IDENTIFIED BY 'poor'"));
        let url = db.server.url(&db.name);
        let url = format!("mysql://{user}:poor@{}", url.rsplit_once('@').unwrap().1);
        // What shows routines, each family by its own.
        let routines = if db.server.maria { "SELECT ON mysql.proc" } else { "SHOW_ROUTINE ON *.*" };
        let this = Self { user, url };
        this.gets(db, routines);
        this
    }

    /// `RIGHTS ON PLACE`.
    fn gets(&self, db: &Database, what: &str) {
        db.server.admin(&format!("GRANT {what} TO {}@'%'", self.user));
    }

    fn engine(&self, db: &Database) -> Box<dyn Engine> {
        open(Settings { url: Secret::new(&self.url), ..settings(&db.server, &db.name) })
    }

    /// What it is told to lack; with the statement that it is told, a dump is whole.
    #[track_caller]
    fn lacks(&self, db: &Database, what: &str) -> String {
        let error = self.engine(db).probe(&cx()).expect_err(what);
        assert!(error.message.contains(&format!(" lacks {what}")), "{error:?}");
        let hint = error.hint.unwrap();
        db.server.admin(&hint);
        self.engine(db).probe(&cx()).unwrap();
        let dumped = |engine: &dyn Engine| plain(&dump(engine).unwrap().0);
        similar(&dumped(db.engine().as_ref()), &dumped(self.engine(db).as_ref()));
        hint.split_once(" TO ").unwrap().0.to_owned()
    }

    /// Whether the tool would leave the trigger out, and end well.
    fn dumps_no_trigger(&self, db: &Database) -> bool {
        let poor = Server { user: self.user.clone(), password: "poor".to_owned(), ..db.server.clone() };
        !poor.all_of(&db.name).contains(" TRIGGER ")
    }
}

/// A dump without what differs from one to the next.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    text.lines().filter(|line| !line.starts_with("-- ")).collect::<Vec<_>>().join("\n")
}

/// Of several grants that fit a schema the server takes the nearest alone, and `SHOW GRANTS` lists all.
pub fn a_grant_that_a_nearer_one_puts_out_of_force_does_not_count(server: Server) {
    let _settings = settings_of_all(&server);
    let db = Database::small(server, "near", true);
    let all = ident(&db.name).replace('_', "\\_");
    for (label, nearer, farther, told) in [
        ("name", all.as_str(), "`vx%`", "TRIGGER"),
        ("longer", "`vx%`", "`v%`", "SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, EXECUTE"),
    ] {
        let poor = Poor::new(&db, label);
        let _undo = Undo(&db.server, format!("DROP USER {}@'%'", poor.user));
        poor.gets(&db, &format!("SELECT, SHOW VIEW, EVENT, EXECUTE, LOCK TABLES ON {nearer}.*"));
        poor.gets(&db, &format!("TRIGGER ON {farther}.*"));
        assert!(poor.dumps_no_trigger(&db), "{label}");
        assert_eq!(poor.lacks(&db, "TRIGGER"), format!("GRANT {told} ON {all}.*"), "{label}");
    }
    // What the nearer one gives is enough.
    let poor = Poor::new(&db, "enough");
    let _undo = Undo(&db.server, format!("DROP USER {}@'%'", poor.user));
    poor.gets(&db, "SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON `vx%`.*");
    poor.gets(&db, "SELECT ON `v%`.*");
    poor.engine(&db).probe(&cx()).unwrap();
    assert!(!poor.dumps_no_trigger(&db));
}

#[test]
fn what_was_revoked_in_part_is_missing() {
    let server = Server::mysql();
    let _settings = settings_of_all(&server);
    let db = Database::small(server, "revoked", true);
    let poor = Poor::new(&db, "part");
    // As long as anybody has a restriction, it can't be put back.
    let _undo = Undo(&db.server, format!("DROP USER {}@'%';SET GLOBAL partial_revokes = OFF", poor.user));
    db.server.admin("SET GLOBAL partial_revokes = ON");
    poor.gets(&db, "SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON *.*");
    let revoke = |rights: &str, on: &str| db.server.admin(&format!("REVOKE {rights} ON {on}.* FROM {}@'%'", poor.user));
    // What is taken elsewhere takes nothing here.
    revoke("SELECT, TRIGGER", "mysql");
    poor.engine(&db).probe(&cx()).unwrap();
    let name = ident(&db.name);
    for rights in ["TRIGGER", "EVENT", "SELECT", "SELECT, SHOW VIEW, TRIGGER, EVENT"] {
        revoke(rights, &name);
        if rights == "TRIGGER" {
            assert!(poor.dumps_no_trigger(&db));
        }
        assert_eq!(poor.lacks(&db, rights), format!("GRANT {rights} ON {name}.*"));
    }
    // A name is no pattern any more, and what is escaped in it is another's.
    revoke("TRIGGER", &name.replace('_', "\\_"));
    poor.engine(&db).probe(&cx()).unwrap();
    for (label, place) in [("pattern", "`vx%`".to_owned()), ("escaped", name.replace('_', "\\_"))] {
        let poor = Poor::new(&db, label);
        let _undo = Undo(&db.server, format!("DROP USER {}@'%'", poor.user));
        poor.gets(&db, &format!("SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON {place}.*"));
        let told = poor.lacks(&db, "SELECT, SHOW VIEW, TRIGGER, EVENT");
        assert_eq!(told, format!("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON {name}.*"));
    }
}

/// While a role is active MySQL takes the grant whose pattern comes first by its bytes.
#[test]
fn with_a_role_a_grant_by_name_may_be_out_of_force() {
    let server = Server::mysql();
    let _settings = settings_of_all(&server);
    let db = Database::small(server, "spelled", true);
    let (poor, role) = (Poor::new(&db, "spelled"), format!("vx_spelled_role_{}", std::process::id()));
    let _undo = Undo(&db.server, format!("DROP USER {}@'%';DROP ROLE {role}", poor.user));
    let all = ident(&db.name).replace('_', "\\_");
    poor.gets(&db, "SELECT, SHOW VIEW, EVENT ON `vx%`.*");
    db.server.admin(&format!("CREATE ROLE {role}; GRANT SELECT, SHOW VIEW, EVENT, TRIGGER ON {all}.* TO {role}"));
    poor.gets(&db, &role);
    db.server.admin(&format!("SET DEFAULT ROLE {role} TO {}@'%'", poor.user));
    assert!(poor.dumps_no_trigger(&db));
    assert_eq!(poor.lacks(&db, "TRIGGER"), "GRANT TRIGGER ON *.*");
    assert!(!poor.dumps_no_trigger(&db));
}

/// MySQL keeps routines where nobody can look: a right to look into its own schema shows none.
#[test]
fn a_right_to_look_into_the_servers_own_schema_shows_no_routine() {
    let db = Database::small(Server::mysql(), "kept", true);
    let poor = Poor::new(&db, "kept");
    let _undo = Undo(&db.server, format!("DROP USER {}@'%'", poor.user));
    db.server.admin(&format!("REVOKE ALL ON *.* FROM {}@'%'", poor.user));
    poor.gets(&db, &format!("SELECT, SHOW VIEW, TRIGGER, EVENT ON {}.*", ident(&db.name).replace('_', "\\_")));
    poor.gets(&db, "SELECT ON mysql.*");
    assert_eq!(poor.lacks(&db, "the right to see routines"), "GRANT SHOW_ROUTINE ON *.*");
}

#[test]
fn a_role_that_every_login_makes_active_counts() {
    let server = Server::mysql();
    let _settings = settings_of_all(&server);
    let db = Database::small(server, "login", true);
    let (poor, role) = (Poor::new(&db, "login"), format!("vx_login_role_{}", std::process::id()));
    let _undo = Undo(
        &db.server,
        format!("SET GLOBAL activate_all_roles_on_login = OFF;DROP USER {}@'%';DROP ROLE {role}", poor.user),
    );
    let all = ident(&db.name).replace('_', "\\_");
    db.server.admin(&format!("CREATE ROLE {role}; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON {all}.* TO {role}"));
    poor.gets(&db, &role);
    let probe = || poor.engine(&db).probe(&cx());
    let error = probe().expect_err("it is not active");
    assert!(
        error.message.contains(" lacks SELECT, SHOW VIEW, TRIGGER, EVENT (what a role gives counts while"),
        "{error:?}"
    );
    db.server.admin("SET GLOBAL activate_all_roles_on_login = ON");
    probe().unwrap();
    similar(&plain(&db.backup().0), &plain(&dump(poor.engine(&db).as_ref()).unwrap().0));
    db.server.admin("SET GLOBAL activate_all_roles_on_login = OFF");
    probe().expect_err("it is not active any more");
}

pub fn a_role_gives_what_it_gives_while_it_is_active(server: Server) {
    let _settings = settings_of_all(&server);
    let db = Database::small(server, "role", true);
    let (bytes, _) = db.backup();
    let end = format!("{}_{}", std::process::id(), db.server.maria);
    let (user, role) = (format!("vx_role_user_{end}"), format!("vx_role_{end}"));
    let _undo = Undo(&db.server, format!("DROP USER {user}@'%';DROP ROLE {role}"));
    let active = if db.server.maria {
        format!("SET DEFAULT ROLE {role} FOR {user}@'%'")
    } else {
        format!("SET DEFAULT ROLE {role} TO {user}@'%'")
    };
    db.server
        .admin(&format!("CREATE ROLE {role}; CREATE USER {user}@'%' IDENTIFIED BY 'poor'; GRANT {role} TO {user}@'%'"));
    db.server.admin(&active);
    let url = db.server.url(&db.name);
    let host = url.rsplit_once('@').unwrap().1;
    let poor =
        || open(Settings { url: Secret::new(format!("mysql://{user}:poor@{host}")), ..settings(&db.server, &db.name) });
    let lacks = |what: &str| {
        let error = poor().probe(&cx()).expect_err(what);
        let roles = "(what a role gives counts while it is active alone: SET DEFAULT ROLE)";
        assert!(error.message.contains(&format!(" lacks {what} {roles}")), "{error:?}");
        let hint = error.hint.unwrap();
        assert!(hint.starts_with(&format!("GRANT {what} ON ")), "{hint}");
        hint
    };
    // One of two tables is all that it sees.
    db.server.admin(&format!("GRANT SELECT, SHOW VIEW ON {}.a TO {role}", ident(&db.name)));
    lacks("SELECT, SHOW VIEW, TRIGGER, EVENT");
    // All but the triggers, of which mysqldump would say nothing.
    let all = ident(&db.name).replace('_', "\\_");
    db.server.admin(&format!("GRANT SELECT, SHOW VIEW, EVENT, EXECUTE ON {all}.* TO {role}"));
    let routines = if db.server.maria { "SELECT ON mysql.proc" } else { "SHOW_ROUTINE ON *.*" };
    db.server.admin(&format!("GRANT {routines} TO {role}"));
    let grant = lacks("TRIGGER");
    db.server.admin(&format!("{} TO {role}", grant.rsplit_once(" TO ").unwrap().0));
    poor().probe(&cx()).unwrap();
    similar(&plain(&bytes), &plain(&dump(poor().as_ref()).unwrap().0));
    // One that is not active gives nothing.
    db.server.admin(&active.replace(&role, "NONE"));
    lacks("SELECT, SHOW VIEW, TRIGGER, EVENT");
}

pub fn an_empty_database_and_a_replica_are_told(server: Server) {
    let db = Database::empty(server, "told");
    let told = |words: &str| {
        let warnings = db.engine().probe(&cx()).unwrap().warnings;
        warnings.iter().filter(|warning| warning.contains(words)).count()
    };
    let (empty, replica) = ("the database is empty, and so its backups are", "this server is a replica: ");
    assert_eq!((told(empty), told(replica)), (1, 0));
    db.sql("CREATE TABLE t (i INT)");
    assert_eq!((told(empty), told(replica)), (0, 0));
    let name = format!("vx{}", std::process::id());
    let (follow, leave) = if db.server.maria {
        (
            format!("CHANGE MASTER '{name}' TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1"),
            format!("RESET SLAVE '{name}' ALL"),
        )
    } else {
        (
            format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1 FOR CHANNEL '{name}'"),
            format!("RESET REPLICA ALL FOR CHANNEL '{name}'"),
        )
    };
    db.server.admin(&follow);
    let _undo = Undo(&db.server, leave);
    assert_eq!((told(empty), told(replica)), (0, 1));
    // One that may not be asked is no failure.
    let user = format!("vx_asks_{}_{}", std::process::id(), db.server.maria);
    let _user = Undo(&db.server, format!("DROP USER {user}@'%'"));
    let all = ident(&db.name).replace('_', "\\_");
    db.server.admin(&format!("CREATE USER {user}@'%' IDENTIFIED BY 'poor'; GRANT ALL ON {all}.* TO {user}@'%'"));
    let host = db.server.url(&db.name).rsplit_once('@').unwrap().1.to_owned();
    let poor = Settings { url: Secret::new(format!("mysql://{user}:poor@{host}")), ..settings(&db.server, &db.name) };
    assert_eq!(open(poor).probe(&cx()).unwrap().warnings, Vec::<String>::new());
}

pub fn a_dump_of_a_newer_server_is_refused(server: Server) {
    let db = Database::small(server, "newer", true);
    let (bytes, findings) = db.backup();
    let text = String::from_utf8(bytes).unwrap();
    let version = db.server.admin("SELECT VERSION()");
    let (major, rest) = version.split_once('.').unwrap();
    let newer = format!("{}.{rest}", major.parse::<u32>().unwrap() + 1);
    let said = format!("-- Server version\t{version}");
    assert!(text.contains(&said), "{}", &text[..500]);
    let newer_text = text.replace(&said, &format!("-- Server version\t{newer}"));
    for destination in [Destination::InPlace, Destination::Into("beside".to_owned()), Destination::Drill] {
        let before = db.all();
        // The rest of it is not even read.
        let stream = Cursor::new(newer_text.as_bytes()).chain(Failing { inner: Cursor::new(b""), left: 0 });
        let error = restore(db.engine().as_ref(), stream, destination, &findings.counts).expect_err("it is newer");
        assert!(
            error.message.contains(&format!("{newer}, this server is {version}: an older one does not take")),
            "{error:?}"
        );
        assert_eq!(
            error.hint.unwrap(),
            format!(
                "restore it into a server of version {} or newer: mend [databases.mydb] url",
                newer.split_once('.').unwrap().0
            )
        );
        similar(&before, &db.all());
        db.assert_nothing_left();
    }
    // An older one's is taken.
    let older = text.replace(&said, &format!("-- Server version\t{}.{rest}", major.parse::<u32>().unwrap() - 1));
    restore(db.engine().as_ref(), Cursor::new(&older), Destination::Drill, &findings.counts).unwrap();
    // What is only newer within its version is told by what it has and this one has not.
    let unknown = text.replacen("CHARSET=utf8mb4", "CHARSET=utf8mb4 COLLATE=utf8mb4_of_tomorrow", 1);
    let unknown =
        unknown.replacen("COLLATE=utf8mb4_of_tomorrow COLLATE=utf8mb4_0900_ai_ci", "COLLATE=utf8mb4_of_tomorrow", 1);
    let unknown =
        unknown.replacen("COLLATE=utf8mb4_of_tomorrow COLLATE=utf8mb4_general_ci", "COLLATE=utf8mb4_of_tomorrow", 1);
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&unknown), &findings.counts);
    assert!(error.message.contains("the backup is of a newer server, whose collations"), "{error:?}");
    assert!(error.hint.unwrap().starts_with("restore it into a server as new as the backup's: "));
}

/// A server may end statements that take long; ours are no such.
pub fn a_limit_on_time_does_not_count(server: Server) {
    let db = Database::small(server, "limit", false);
    let (bytes, findings) = db.backup();
    let folder = tempfile::tempdir().unwrap();
    let name = if db.server.maria { "mariadb" } else { "mysql" };
    let real = db.server.tools.as_ref().map_or("mysql".to_owned(), |folder| folder.join("mysql").display().to_string());
    let limit =
        if db.server.maria { "SET SESSION max_statement_time = 0.1" } else { "SET SESSION max_execution_time = 100" };
    script(
        &folder.path().join(name),
        &format!(
            "[ \"$1\" = --version ] && exec {real} --version\nshift\nexec {real} --no-defaults --init-command='{limit}' \"$@\""
        ),
    );
    let engine = open(Settings { tools_dir: Some(folder.path().into()), ..settings(&db.server, &db.name) });
    // It gives 1 when it is ended.
    let long = Check { name: None, query: vec!["SELECT SLEEP(0.4)".to_owned()], expect: "0".to_owned() };
    let request = Request { checks: vec![long], ..Request::new(Destination::Drill, findings.counts) };
    engine.restore(&mut inspected(Cursor::new(&bytes)), &request, &cx()).unwrap();
}

/// A client that drops nothing of what a restore has replaced.
fn that_drops_nothing(db: &Database) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let name = if db.server.maria { "mariadb" } else { "mysql" };
    let real = db.server.tools.as_ref().map_or("mysql".to_owned(), |folder| folder.join("mysql").display().to_string());
    script(
        &folder.path().join(name),
        &format!(
            "[ \"$1\" = --version ] && exec {real} --version\nread -r a\n\
             case \"$a\" in 'SET SESSION sql_mode'*) ;; *) {{ printf '%s\\n' \"$a\"; cat; }} | {real} \"$@\"; exit $?;; esac\n\
             read -r b; read -r c; read -r d\n\
             case \"$d\" in 'DROP DATABASE IF EXISTS'*__old_*) exit 1;; esac\n\
             {{ printf '%s\\n' \"$a\" \"$b\" \"$c\" \"$d\"; cat; }} | {real} \"$@\""
        ),
    );
    folder
}

/// All of it stands, and only what it replaced is still there.
pub fn what_is_only_to_be_dropped_stops_no_backup(server: Server) {
    let db = Database::small(server, "dropped", true);
    let (bytes, findings) = db.backup();
    let folder = that_drops_nothing(&db);
    db.sql("INSERT INTO b VALUES (4)");
    let engine = open(Settings { tools_dir: Some(folder.path().into()), ..settings(&db.server, &db.name) });
    let restored = restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert!(restored.notes[0].starts_with("the replaced tables could not be dropped"), "{restored:?}");
    assert_eq!(db.server.leftovers(&db.name).len(), 2);
    assert_eq!(dump(db.engine().as_ref()).unwrap().1.counts, findings.counts);
    assert_eq!(db.engine().probe(&cx()).unwrap().warnings.len(), 1);
    restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    db.assert_nothing_left();
}

/// A restore that has left what it replaced, and came to nothing before its last word; gives its number.
fn left_without_a_word(db: &Database) -> String {
    let (bytes, findings) = db.backup();
    let folder = that_drops_nothing(db);
    let engine = open(Settings { tools_dir: Some(folder.path().into()), ..settings(&db.server, &db.name) });
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    let left = db.server.leftovers(&db.name);
    let scratch = left.iter().find(|name| name.contains("__restoring_")).unwrap();
    let hex = scratch.rsplit_once('_').unwrap().1.to_owned();
    db.server.admin(&format!("ALTER TABLE {}.__vx_swap_{hex} COMMENT = ''", ident(scratch)));
    hex
}

pub fn a_schema_that_is_whole_is_dumped_whatever_was_not_said(server: Server) {
    let code = [
        ("DROP VIEW v", "CREATE VIEW v AS SELECT f(i) AS i FROM b"),
        ("DROP TRIGGER tr", "CREATE TRIGGER tr BEFORE INSERT ON b FOR EACH ROW SET NEW.i = 1"),
        ("DROP FUNCTION f", "CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x"),
    ];
    let db = Database::small(server, "unsaid", false);
    db.sql(&code.iter().rev().map(|(_, make)| format!("{make};")).collect::<String>());
    left_without_a_word(&db);
    let dumped = || dump(db.engine().as_ref()).map_err(|error| error.message);
    dumped().unwrap();
    for (drop, make) in code {
        db.sql(drop);
        assert!(dumped().unwrap_err().contains("not all of it is there"), "{drop}");
        db.sql(make);
        dumped().unwrap();
    }
    // Whether an event is the old one can't be seen. Who sees it is told what to do.
    db.sql("CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO DELETE FROM b WHERE i > 100");
    let error = dump(db.engine().as_ref()).expect_err("there is an event");
    let mend = error.hint.unwrap();
    db.server.admin(mend.rsplit_once("if so, ").unwrap().1);
    db.assert_nothing_left();
    dumped().unwrap();
}

pub fn a_look_at_what_was_left_can_be_ended(server: Server) {
    let db = Database::small(server, "looks", true);
    let hex = left_without_a_word(&db);
    // As a script does that still runs.
    let mut holder = db.server.tool("mysql");
    holder.args(["--unbuffered", "--skip-column-names", "mysql"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut stdin = holder.stdin.take().unwrap();
    writeln!(stdin, "SELECT GET_LOCK('voxeltron-swap-{hex}', 0);").unwrap();
    let mut held = [0];
    holder.stdout.take().unwrap().read_exact(&mut held).unwrap();
    assert_eq!(held, *b"1");
    let looks = |cx: Cx| {
        let started = std::time::Instant::now();
        let error = db.engine().probe(&cx).expect_err("it was ended");
        // On a busy machine; by itself it looks for the lock 50 times each, and for a minute and more when that is slow.
        assert!(started.elapsed() < Duration::from_secs(60), "{error:?}");
        error
    };
    let late = cx();
    let deadline = late.world.clock.monotonic() + Duration::from_secs(2);
    looks(Cx { deadline: Some(deadline), ..late });
    let stopped = cx();
    let cancel = stopped.world.cancel.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            cancel.stop(15);
        });
        assert_eq!(looks(stopped).kind, Kind::Stopped(15));
    });
    drop(stdin);
    holder.wait().unwrap();
}
