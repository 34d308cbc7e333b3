//! A restore that can't or need not be one stream into a scratch database: by a role that may not create one, in a single
//! transaction; and in parallel, from a file.

use voxeltron_backup::engine::postgres::archive::Archive;
use voxeltron_backup::engine::postgres::tools::Tools;
use voxeltron_backup::engine::postgres::url::Place;
use voxeltron_backup::engine::postgres::{server, transaction};
use voxeltron_backup::engine::{Aside, Keep};

use super::*;

/// A database of a role that may not create databases, gone after the test with the role.
struct Poor {
    db: Database,
    role: String,
}

impl Poor {
    fn new(label: &str, sql: &str) -> Self {
        let db = Database::empty(label);
        let role = format!("vx_{}_{}", label.replace(' ', "_"), std::process::id());
        db.server.admin(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'poor'; ALTER DATABASE {} OWNER TO {role};",
            ident(&db.name)
        ));
        let this = Self { db, role };
        this.sql(sql);
        this
    }

    fn settings(&self) -> Settings {
        let url = self.db.server.url(&self.db.name);
        let host = url.rsplit_once('@').unwrap().1;
        let url = format!("postgres://{}:poor@{host}", self.role);
        Settings { url: Secret::new(url), ..settings(&self.db.server, &self.db.name) }
    }

    fn engine(&self) -> Box<dyn Engine> {
        open(self.settings())
    }

    /// As the role.
    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        self.db.sql(&format!("SET SESSION AUTHORIZATION {};\n{sql}", self.role))
    }

    fn backup(&self) -> (Vec<u8>, Findings) {
        dump(self.engine().as_ref()).unwrap()
    }

    fn restore(&self, dump: impl Read, counts: &Counts) -> Result<Restored> {
        restore(self.engine().as_ref(), dump, Destination::InPlace, counts)
    }

    #[track_caller]
    fn fails_and_changes_nothing(&self, dump: impl Read, counts: &Counts) -> Error {
        fails_and_changes_nothing(&self.db, self.engine().as_ref(), dump, counts)
    }
}

impl Drop for Poor {
    fn drop(&mut self) {
        let name = ident(&self.db.name);
        let _ = self.db.server.try_sql("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE);"));
        let _ = self.db.server.try_sql("postgres", &format!("DROP ROLE IF EXISTS {};", self.role));
    }
}

/// All that a role without rights of its own can make, under names and with values that hurt.
const HURTS: &str = r#"
CREATE SCHEMA "s.1 ""q"" \ 😀"; SET search_path = "s.1 ""q"" \ 😀", public;
CREATE TYPE mood AS ENUM ('sad', 'it''s', '\ü');
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = int);
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE "t ""1"".x \" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, s small, p pair, r span,
  t text COLLATE nocase, b bytea, j jsonb, a text[], twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO "t ""1"".x \" (m, s, p, r, t, b, j, a) VALUES
  ('it''s', 5, '(1,"a,b")', '[1,5)', E'tab\tnew\nline\\.\r', '\x00ff', '{"a": "\u00e9"}', ARRAY['a,b', NULL, '"']),
  (NULL, NULL, NULL, NULL, E'\\.', '', 'null', '{}'), ('\ü', 99, '(,)', 'empty', '\N', NULL, NULL, NULL);
CREATE TABLE hen (id serial PRIMARY KEY, egg int); CREATE TABLE egg (id int PRIMARY KEY, hen int REFERENCES hen);
INSERT INTO hen (egg) VALUES (1), (NULL); INSERT INTO egg VALUES (1, 1);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE parted (i int, t text) PARTITION BY RANGE (i);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10); CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT n, 'x' FROM generate_series(1, 100) n; CREATE INDEX ON parted (t, i DESC);
CREATE TABLE parent (i int); CREATE TABLE child (j int) INHERITS (parent); INSERT INTO child VALUES (1, 2);
CREATE UNLOGGED TABLE fast (i int); INSERT INTO fast VALUES (1);
CREATE FUNCTION f(int, VARIADIC text[]) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN $1; /* ; \ ' */ END $$;
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO parent VALUES (NEW.id); RETURN NEW; END $$;
CREATE PROCEDURE pr(x INOUT int) LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
CREATE OPERATOR @+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE TRIGGER tr AFTER INSERT ON hen FOR EACH ROW EXECUTE FUNCTION told();
CREATE VIEW v AS SELECT id, f(id, 'x') FROM hen; CREATE VIEW public.vv AS SELECT * FROM v;
CREATE RULE ru AS ON INSERT TO v DO INSTEAD INSERT INTO hen (egg) VALUES (NULL);
CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM parted; CREATE UNIQUE INDEX ON mv (count);
CREATE STATISTICS st ON i, t FROM parted;
CREATE TEXT SEARCH CONFIGURATION ts (COPY = simple);
ALTER TABLE hen ENABLE ROW LEVEL SECURITY; CREATE POLICY po ON hen USING (id > 0);
CREATE SEQUENCE public.counter START 7 INCREMENT -2 MINVALUE -100 MAXVALUE 100; SELECT nextval('counter'), nextval('counter');
CREATE PUBLICATION pub FOR TABLE egg;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT UPDATE ON SEQUENCES TO PUBLIC;
GRANT SELECT (id) ON hen TO PUBLIC; COMMENT ON TABLE hen IS E'it''s \\ \n a hen';
SELECT lo_from_bytea(70001, '\xdeadbeef'), lo_from_bytea(70002, ''); GRANT SELECT ON LARGE OBJECT 70001 TO PUBLIC;
CREATE EXTENSION hstore SCHEMA public; CREATE TABLE public.with_ext (h hstore, c citext);
INSERT INTO public.with_ext VALUES ('a=>"b\"c"', 'Ä');
CREATE TABLE public.ev (i int, d date) PARTITION BY RANGE (d);
CREATE TABLE public.ev_1 PARTITION OF public.ev FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO public.ev VALUES (1, '2026-05-05');
"#;

/// What the backup doesn't hold, or holds otherwise.
const RUIN: &str = r#"
SET search_path = "s.1 ""q"" \ 😀", public;
DROP TABLE egg CASCADE; DROP FUNCTION f CASCADE; ALTER TYPE mood ADD VALUE 'later'; DELETE FROM "t ""1"".x \"; DROP AGGREGATE total(int);
CREATE SCHEMA later; CREATE TABLE later.t (i hstore); CREATE TABLE public.later (i int PRIMARY KEY REFERENCES hen);
CREATE VIEW public.later_v AS SELECT * FROM parted; CREATE TYPE public.later_e AS ENUM ('x'); CREATE DOMAIN public.later_d AS int;
CREATE FUNCTION public.later_f(later.t) RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT lo_create(70003), lo_unlink(70002);
ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA later GRANT SELECT ON TABLES TO PUBLIC; CREATE PUBLICATION later FOR TABLE later.t;
CREATE TABLE public.later_ev (i int) PARTITION BY LIST (i); CREATE TABLE public.later_ev_1 PARTITION OF public.later_ev DEFAULT;
"#;

#[test]
fn without_createdb_it_is_one_transaction() {
    let this = Poor::new("one transaction", "");
    // An extension of the administrator's, whose comment the role can't set, stays.
    this.db.sql("CREATE EXTENSION citext SCHEMA public; GRANT CREATE ON SCHEMA public TO PUBLIC;");
    this.sql(HURTS);
    let before = this.db.all();
    let (bytes, findings) = this.backup();
    this.sql(RUIN);
    assert_ne!(this.db.all(), before);
    // Dry run: the way is told before anything starts.
    let request = Request::new(Destination::InPlace, findings.counts.clone());
    let plan = this.engine().plan_for(&request, &cx()).join("\n");
    assert!(plan.contains("may not create databases") && plan.contains("one transaction of"), "{plan}");
    assert!(!plan.contains("CREATE DATABASE") && !plan.contains("poor@"), "{plan}");
    let other = this.db.engine().plan_for(&request, &cx()).join("\n");
    assert!(other.contains("CREATE DATABASE") && !other.contains("drop everything"), "{other}");
    let folder = tempfile::tempdir().unwrap();
    let place = Cx { data_dir: folder.path().to_owned(), ..cx() };
    let restored = this.engine().restore(&mut inspected(&*bytes), &request, &place).unwrap();
    assert_eq!(restored.counts, findings.counts);
    assert!(restored.notes[0].contains("in a single transaction"), "{restored:?}");
    similar(&before, &this.db.all());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // And once more, over itself.
    this.restore(&*bytes, &findings.counts).unwrap();
    similar(&before, &this.db.all());
}

/// A checked table whose check the next session doesn't pass, and enough rows that a load takes a while.
const CHECKED: &str = "CREATE FUNCTION ok(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN RETURN $1 < 1000000 OR current_setting('vx.ok', true) IS NOT DISTINCT FROM 'yes'; END $$;
  CREATE TABLE a (i int CHECK (ok(i)), t text); INSERT INTO a SELECT n, repeat('x', 100) FROM generate_series(1, 50000) n;
  CREATE TABLE b (i int PRIMARY KEY); INSERT INTO b VALUES (1), (2);";

#[test]
fn a_transaction_that_fails_changes_nothing() {
    let this = Poor::new("transaction fails", CHECKED);
    let (bytes, findings) = this.backup();
    this.sql("INSERT INTO b VALUES (3); CREATE TABLE later (i int)");
    for left in [0, 5, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        let error = this.fails_and_changes_nothing(Failing { inner: &*bytes, left }, &findings.counts);
        assert_eq!((error.kind, &*error.message), (Kind::Authentication, "segment 1 does not authenticate"));
    }
    for cut in [10, bytes.len() / 2, bytes.len() - 1] {
        this.fails_and_changes_nothing(&bytes[..cut], &findings.counts);
    }
    // The wrong rows.
    let mut counted = findings.counts.clone();
    counted.insert("public.b".to_owned(), Some(3));
    let error = this.fails_and_changes_nothing(&*bytes, &counted);
    let said = error.tail.join("\n");
    assert!(said.contains("there are 2 rows in table public.b, the backup holds 3"), "{error:?}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("nothing was changed")), "{error:?}");
    // A constraint that can't hold.
    this.sql("SET vx.ok = 'yes'; INSERT INTO a VALUES (1000000)");
    let (bad, counts) = this.backup();
    this.sql("DELETE FROM a WHERE i = 1000000");
    let error = this.fails_and_changes_nothing(&*bad, &counts.counts);
    assert!(error.tail.join("\n").contains("violates check constraint"), "{error:?}");
    // pg_restore that dies half-way, and one that says that all is well.
    let folder = tempfile::tempdir().unwrap();
    let bin = this.db.server.bin.display().to_string();
    for name in ["psql", "pg_dump"] {
        std::os::unix::fs::symlink(this.db.server.bin.join(name), folder.path().join(name)).unwrap();
    }
    for (end, what) in [
        ("; exit 1", "pg_restore failed with exit status 1"),
        ("| head -c 1000000; exit 1", "pg_restore failed with exit status 1"),
        ("| head -c 1000000; exit 0", "psql failed with exit status 3"),
    ] {
        let body =
            format!("case \"$*\" in *--file=-*) {bin}/pg_restore \"$@\" {end};; esac; exec {bin}/pg_restore \"$@\"");
        script(&folder.path().join("pg_restore"), &body);
        let engine = open(Settings { tools_dir: Some(folder.path().into()), ..this.settings() });
        let error = fails_and_changes_nothing(&this.db, engine.as_ref(), &*bytes, &findings.counts);
        assert!(error.message.contains(what), "{error:?}");
    }
    // What others own can't be replaced, and is said before anything is read.
    this.db.sql("CREATE TABLE theirs (i int); CREATE SCHEMA others; CREATE TABLE parts (i int) PARTITION BY LIST (i);");
    let error = this.fails_and_changes_nothing(Failing { inner: &*bytes, left: bytes.len() }, &findings.counts);
    let why = "can't replace what it does not own: ";
    assert!(error.message.contains(why) && error.message.contains("theirs of postgres"), "{error:?}");
    assert!(error.message.contains("parts of postgres"), "{error:?}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("CREATEDB")), "{error:?}");
    let request = Request::new(Destination::InPlace, findings.counts.clone());
    let plan = this.engine().plan_for(&request, &cx());
    assert!(plan.len() == 1 && plan[0].contains("it will be refused") && plan[0].contains("theirs"), "{plan:?}");
    this.db.sql("DROP TABLE theirs, parts; DROP SCHEMA others;");
    // The file is not there where tools run elsewhere.
    let engine = open(Settings { exec: vec!["env".into()], tools_dir: None, ..this.settings() });
    let error = fails_and_changes_nothing(&this.db, engine.as_ref(), &*bytes, &findings.counts);
    assert!(error.message.contains("not there where exec leads"), "{error:?}");
    this.restore(&*bytes, &findings.counts).unwrap();
    assert_eq!(this.sql("SELECT count(*) FROM b"), "2");
    assert_eq!(this.sql("SELECT to_regclass('later') IS NULL"), "t");
}

/// Remembers what was asked of it, and may fail at it.
struct Shelf {
    asked: std::sync::Mutex<Vec<&'static str>>,
    fails: &'static str,
}

impl Shelf {
    fn ask(&self, what: &'static str) -> Result<()> {
        self.asked.lock().unwrap().push(what);
        if self.fails == what { Err(Error::other(format!("no {what}"))) } else { Ok(()) }
    }
}

impl Aside for Shelf {
    fn untouched(&self, _: chrono::DateTime<chrono::Utc>) {}

    fn room(&self) -> Result<()> {
        self.ask("room")
    }

    fn take(&self, _: chrono::DateTime<chrono::Utc>) -> Result<()> {
        self.ask("take")
    }
}

#[test]
fn what_was_there_is_kept_as_a_dump_before_the_transaction() {
    let this = Poor::new("transaction keeps", CHECKED);
    let (bytes, findings) = this.backup();
    this.sql("INSERT INTO b VALUES (3)");
    let before = this.db.all();
    for (fails, asked) in [("room", &["room"][..]), ("take", &["room", "take"]), ("", &["room", "take"])] {
        let shelf = std::sync::Arc::new(Shelf { asked: std::sync::Mutex::default(), fails });
        let keep = Keep { at: cx().world.clock.now(), aside: std::sync::Arc::<Shelf>::clone(&shelf) };
        let request = Request { keep: Some(keep), ..Request::new(Destination::InPlace, findings.counts.clone()) };
        let outcome = this.engine().restore(&mut inspected(&*bytes), &request, &cx());
        assert_eq!(*shelf.asked.lock().unwrap(), asked);
        assert_eq!(outcome.is_ok(), fails.is_empty(), "{outcome:?}");
        assert_eq!(this.db.all() == before, !fails.is_empty());
    }
}

#[test]
fn sessions_of_the_role_are_ended_for_the_transaction() {
    let this = Poor::new("transaction sessions", CHECKED);
    let (bytes, findings) = this.backup();
    let url = this.settings().url;
    let mut psql = this.db.server.tool("psql");
    psql.args(["-XAtq", "-d", url.expose(), "-c", "BEGIN; SELECT * FROM b; SELECT pg_sleep(600)"]);
    let mut held = psql.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    for _ in 0..3000 {
        if this
            .db
            .sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND wait_event = 'PgSleep'")
            != "0"
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    this.restore(&*bytes, &findings.counts).unwrap();
    assert!(!held.wait().unwrap().success());
}

/// A superuser's session, which the role can't send away; it has done what it is told, which ends with a 3, and rolls that
/// back when its input ends.
fn in_a_transaction(db: &Database, sql: &str) -> (std::process::Child, std::process::ChildStdin) {
    let mut psql = db.server.tool("psql");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &db.server.url(&db.name)]);
    let mut held = psql.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = held.stdin.take().unwrap();
    io::Write::write_all(&mut input, format!("BEGIN; {sql}\n").as_bytes()).unwrap();
    let mut said = [0; 2];
    held.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"3\n");
    (held, input)
}

#[test]
fn a_lock_of_somebody_else_is_waited_for_and_no_longer() {
    let this = Poor::new("transaction lock", CHECKED);
    let (bytes, findings) = this.backup();
    this.sql("INSERT INTO b VALUES (3)");
    let (mut held, input) = in_a_transaction(&this.db, "SELECT count(*) FROM b;");

    let settings = this.settings();
    let place = Place::parse(&settings.url).unwrap();
    let tools = Tools::new(settings, place);
    let (_, facts) = server::ask(&tools, &cx()).unwrap();
    let request = Request::new(Destination::InPlace, findings.counts.clone());
    let restore = |wait: u64| {
        let (mut archive, wait) = (Archive::default(), Duration::from_millis(wait));
        let cx = Cx { deadline: Some(cx().world.clock.monotonic() + Duration::from_secs(300)), ..cx() };
        transaction::restore((&tools, &facts), &mut archive, &[], &mut inspected(&*bytes), &request, wait, &cx)
    };
    let before = this.db.all();
    let error = restore(700).unwrap_err();
    assert_eq!(error.kind, Kind::Tool);
    let start = format!("a lock of somebody else's in {} was waited for 0.7 s: ", this.db.name);
    assert!(error.message.starts_with(&start), "{error:?}");
    assert!(error.tail.join("\n").contains("canceling statement due to lock timeout"), "{error:?}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("restore.before can") && hint.contains("nothing was changed"), "{hint}");
    assert_eq!(this.db.all(), before);

    // The same for one who is about to make what the backup holds, when it comes to that: pg_restore would lift the limit.
    drop(input);
    held.wait().unwrap();
    this.sql("DROP TABLE b");
    let before = this.db.all();
    let (mut held, input) = in_a_transaction(&this.db, "CREATE TABLE b (i int); SELECT 3;");
    let error = restore(700).unwrap_err();
    assert!(error.message.starts_with(&start) && error.tail.join("\n").contains("pg_type_typname"), "{error:?}");
    drop(input);
    held.wait().unwrap();
    assert_eq!(this.db.all(), before);

    // Whoever lets go in time is waited for.
    this.sql("CREATE TABLE b (i int)");
    let (mut held, input) = in_a_transaction(&this.db, "LOCK b; SELECT 3;");
    std::thread::scope(|scope| {
        let restoring = scope.spawn(|| restore(60_000));
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while this.db.sql(waits) == "0" {
            assert!(!restoring.is_finished());
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(input);
        restoring.join().unwrap().unwrap();
    });
    held.wait().unwrap();
    assert_eq!(this.sql("SELECT count(*) FROM b"), "2");
}

/// Names the database, the role and the dump's file for the child of [`killed_in_the_transaction`].
const CHILD: &str = "VOXELTRON_TEST_POSTGRES_TRANSACTION";

#[test]
fn killed_in_the_transaction() {
    if let Ok(child) = std::env::var(CHILD) {
        let (file, url) = child.split_once('\n').unwrap();
        let engine = open(Settings { url: Secret::new(url), ..settings(&Server::get(), "x") });
        restore(engine.as_ref(), std::fs::File::open(file).unwrap(), Destination::InPlace, &Counts::new()).unwrap();
        return;
    }
    let this = Poor::new("transaction killed", CHECKED);
    let (bytes, findings) = this.backup();
    let restored = this.db.all();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    std::fs::write(&file, &bytes).unwrap();
    let ruin = "INSERT INTO b VALUES (4); CREATE TABLE later (i int)";
    this.sql(ruin);
    let changed = this.db.all();
    let (mut old, mut new) = (0, 0);
    for step in 0.. {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "alone::killed_in_the_transaction", "--nocapture"])
            .env(CHILD, format!("{}\n{}", file.display(), this.settings().url.expose()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100 * step));
        let done = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        let inside = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = {}", literal(&this.role));
        for _ in 0..1200 {
            if this.db.server.admin(&inside) == "0" {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let now = this.db.all();
        assert!(now == changed || now == restored, "after {} ms", 100 * step);
        *(if now == changed { &mut old } else { &mut new }) += 1;
        if now == restored {
            this.sql(ruin);
        }
        if done {
            break;
        }
    }
    assert!(old > 1 && new > 0, "{old} times the old one, {new} times the new one");
    this.restore(&*bytes, &findings.counts).unwrap();
    assert_eq!(this.db.all(), restored);
}

#[test]
fn in_parallel_from_a_file() {
    let db = Database::small("parallel");
    db.sql("CREATE TABLE c AS SELECT * FROM a; CREATE INDEX ON c (t); ALTER TABLE c ADD FOREIGN KEY (i) REFERENCES a; SELECT lo_from_bytea(0, 'x')");
    let (bytes, findings) = db.backup();
    let before = db.all();
    let folder = tempfile::tempdir().unwrap();
    let place = Cx { data_dir: folder.path().to_owned(), ..cx() };
    let request = |destination: Destination, dump_bytes: u64| Request {
        jobs: Some(3),
        dump_bytes: Some(dump_bytes),
        ..Request::new(destination, findings.counts.clone())
    };
    let size = bytes.len() as u64;
    let plan = db.engine().plan_for(&request(Destination::InPlace, size), &place).join("\n");
    assert!(plan.contains("--jobs=3") && plan.contains("without a name in data_dir"), "{plan}");
    // Wrapped, so that it is seen that several workers load it.
    let tools = tempfile::tempdir().unwrap();
    for name in ["psql", "pg_dump"] {
        std::os::unix::fs::symlink(db.server.bin.join(name), tools.path().join(name)).unwrap();
    }
    let log = tools.path().join("log");
    let real = db.server.bin.join("pg_restore");
    let (log, real) = (log.display().to_string(), real.display());
    let body = format!(
        "case \"$*\" in *--jobs*) echo \"$*\" >>{log}; exec {real} --verbose \"$@\" 2>>{log};; esac; exec {real} \"$@\""
    );
    script(&tools.path().join("pg_restore"), &body);
    let engine = open(Settings { tools_dir: Some(tools.path().into()), ..settings(&db.server, &db.name) });
    db.sql("DELETE FROM c; CREATE TABLE later (i int)");
    for destination in [Destination::Drill, Destination::InPlace] {
        let restored = engine.restore(&mut inspected(&*bytes), &request(destination, size), &place).unwrap();
        assert_eq!(restored.counts, findings.counts);
    }
    similar(&before, &db.all());
    db.assert_nothing_left();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("--jobs=3") && said.contains("entering main parallel loop"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // Whatever is wrong with the stream or the room is found before a scratch is made.
    let failing = Failing { inner: &*bytes, left: bytes.len() };
    let error = engine.restore(&mut inspected(failing), &request(Destination::InPlace, size), &place).unwrap_err();
    assert_eq!(error.kind, Kind::Authentication);
    let error = engine.restore(&mut inspected(&*bytes), &request(Destination::InPlace, 1 << 60), &place).unwrap_err();
    assert!(error.message.contains("it takes 1.0 EiB, and ") || error.message.contains("it takes "), "{error:?}");
    assert!(error.message.contains("are free there") && error.hint.is_some(), "{error:?}");
    similar(&before, &db.all());
    db.assert_nothing_left();
    // Where the tools run elsewhere the file is not.
    assert!(db.engine().loads_in_parallel().is_ok());
    let elsewhere = open(Settings { exec: vec!["env".into()], ..settings(&db.server, &db.name) });
    let error = elsewhere.loads_in_parallel().unwrap_err();
    assert!(error.kind == Kind::Usage && error.message.contains("where exec leads"), "{error:?}");
}
