//! What is told, or refused with its mend, before anything begins: rights that a dump lacks, an empty database, archives and
//! tools that this server can't load.

use super::*;

/// A role that is gone after the test, with all that it was granted in a database.
struct Role<'a>(&'a Database, String);

impl<'a> Role<'a> {
    fn new(db: &'a Database, label: &str) -> Self {
        let name = format!("vx_{label} \"Ü\" {}", std::process::id());
        db.server.admin(&format!("CREATE ROLE {} LOGIN PASSWORD 'poor'", ident(&name)));
        Self(db, name)
    }

    fn settings(&self) -> Settings {
        let url = self.0.server.url(&self.0.name);
        let host = url.rsplit_once('@').unwrap().1;
        let url = Secret::new(format!("postgres://{}:poor@{host}", percent(&self.1)));
        Settings { url, ..settings(&self.0.server, &self.0.name) }
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let role = ident(&self.1);
        let _ = self.0.server.try_sql(&self.0.name, &format!("DROP OWNED BY {role}; DROP ROLE {role};"));
    }
}

#[test]
fn missing_rights_are_named_with_the_grant() {
    let db = Database::small("rights");
    db.sql(
        "CREATE SCHEMA \"its own\"; CREATE TABLE \"its own\".\"T t\" (i int GENERATED ALWAYS AS IDENTITY, x text);
         INSERT INTO \"its own\".\"T t\" (x) VALUES ('a'), ('b'); ALTER TABLE \"its own\".\"T t\" ENABLE ROW LEVEL SECURITY;
         CREATE TABLE parted (i int) PARTITION BY RANGE (i); CREATE TABLE part PARTITION OF parted DEFAULT; INSERT INTO parted VALUES (1);
         SELECT lo_from_bytea(4711, 'abc'), lo_from_bytea(4712, 'def'); CREATE MATERIALIZED VIEW mv AS SELECT 1 AS i;",
    );
    let (_, whole) = db.backup();
    let poor = Role::new(&db, "poor");
    let mut steps = Vec::new();
    // Each error's hint is the statement that mends it; with it, the next right is asked for. Until then a dump fails.
    while let Err(error) = open(poor.settings()).probe(&cx()) {
        assert_eq!(error.kind, Kind::Tool);
        assert!(error.message.contains(&format!("{} may not dump all of it: it lacks ", poor.1)), "{error:?}");
        dump(open(poor.settings()).as_ref()).expect_err("pg_dump does not think so");
        let hint = error.hint.clone().expect("a hint");
        assert!(steps.len() < 9, "{error:?}");
        db.sql(&hint);
        steps.push((error.message.rsplit_once("it lacks ").unwrap().1.to_owned(), hint));
    }
    let (_, findings) = dump(open(poor.settings()).as_ref()).unwrap();
    assert_eq!(findings.counts, whole.counts);
    let said: Vec<&str> = steps.iter().map(|(what, _)| what.as_str()).collect();
    assert!(
        said[0].starts_with("USAGE on the schema \"its own\"; SELECT on the table \"its own\".\"T t\" and 4 more; "),
        "{said:#?}"
    );
    assert!(
        said[0].contains("SELECT on the sequence \"its own\".\"T t_i_seq\"; the rows that the row-level security of "),
        "{said:#?}"
    );
    assert!(said[0].ends_with("; SELECT on the large object 4711 and 1 more"), "{said:#?}");
    let role = ident(&poor.1);
    let hints: Vec<&str> = steps.iter().map(|(_, hint)| hint.as_str()).collect();
    assert_eq!(hints[..2], [format!("GRANT pg_read_all_data TO {role}"), format!("ALTER ROLE {role} BYPASSRLS")]);
    assert!(hints.len() == 3 && hints[2].ends_with("\\gexec"), "{hints:#?}");
}

#[test]
fn rights_are_those_of_the_role_that_dumps_and_what_is_left_out_needs_none() {
    let db = Database::small("rights of");
    let poor = Role::new(&db, "reads");
    db.sql(&format!("GRANT SELECT ON a TO {}", ident(&poor.1)));
    let error = open(poor.settings()).probe(&cx()).expect_err("it may not read b");
    assert!(error.message.ends_with("it lacks SELECT on the table public.b"), "{error:?}");
    let with = |settings: Settings, arg: String| Settings { dump_args: vec![arg], ..settings };
    open(with(poor.settings(), "--exclude-table=public.b".into())).probe(&cx()).unwrap();
    open(with(poor.settings(), "--exclude-table-data=public.b".into()))
        .probe(&cx())
        .expect_err("it is locked all the same");
    let as_poor = || with(settings(&db.server, &db.name), format!("--role={}", poor.1));
    let error = open(as_poor()).probe(&cx()).expect_err("the superuser dumps as another");
    assert!(error.message.contains(&format!("{} may not", poor.1)), "{error:?}");
    dump(open(as_poor()).as_ref()).expect_err("pg_dump says so, too");
    // An owner needs no grant.
    db.sql(&format!(
        "ALTER TABLE a OWNER TO {0}; ALTER TABLE b OWNER TO {0}; ALTER TABLE b ENABLE ROW LEVEL SECURITY",
        ident(&poor.1)
    ));
    open(poor.settings()).probe(&cx()).unwrap();
    dump(open(poor.settings()).as_ref()).unwrap();
    // Unless the rows are hidden from it, too.
    db.sql("ALTER TABLE b FORCE ROW LEVEL SECURITY");
    let error = open(poor.settings()).probe(&cx()).expect_err("no policy lets it see them");
    assert!(error.message.contains("the rows that the row-level security of public.b hides"), "{error:?}");
    dump(open(poor.settings()).as_ref()).expect_err("pg_dump says so, too");
    // A dump of what it sees is a part.
    let filtered = open(with(poor.settings(), "--enable-row-security".into()));
    assert_eq!(filtered.partial().as_deref(), Some("--enable-row-security"));
    filtered.probe(&cx()).unwrap();
    db.sql("ALTER TABLE a OWNER TO postgres; ALTER TABLE b OWNER TO postgres");
}

#[test]
fn rows_that_are_hidden_and_left_out_need_no_right() {
    let db = Database::small("hidden");
    db.sql(
        "CREATE TABLE audit (i int); INSERT INTO audit VALUES (1); ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
         CREATE UNLOGGED TABLE fast (i int); ALTER TABLE fast ENABLE ROW LEVEL SECURITY",
    );
    let poor = Role::new(&db, "hidden");
    db.sql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}", ident(&poor.1)));
    let with = |args: &[&str]| {
        let dump_args = args.iter().map(|arg| (*arg).to_owned()).collect();
        open(Settings { dump_args, ..poor.settings() })
    };
    let error = with(&[]).probe(&cx()).expect_err("they are hidden");
    assert!(
        error.message.ends_with("the rows that the row-level security of public.audit hides and 1 more"),
        "{error:?}"
    );
    // What pg_dump can make is not refused.
    let engine = with(&["--exclude-table-data=audit", "--no-unlogged-table-data"]);
    engine.probe(&cx()).unwrap();
    let (_, findings) = dump(engine.as_ref()).unwrap();
    let has = |table: &str| findings.counts.contains_key(table);
    assert_eq!((has("public.audit"), has("public.fast"), has("public.a")), (false, false, true), "{findings:?}");
    // What it can't make, it says itself.
    dump(with(&["--exclude-table-data=audit"]).as_ref()).expect_err("the rows of another are hidden");
}

#[test]
fn an_empty_database_is_told() {
    let db = Database::empty("empty");
    let told = || db.engine().probe(&cx()).unwrap().warnings;
    assert!(
        told().len() == 1 && told()[0].ends_with(": the database is empty, and so its backups are"),
        "{:?}",
        told()
    );
    for (make, drop) in [
        ("CREATE TABLE t ()", "DROP TABLE t"),
        ("SELECT lo_create(1)", "SELECT lo_unlink(1)"),
        ("CREATE MATERIALIZED VIEW m AS SELECT 1", "DROP MATERIALIZED VIEW m"),
    ] {
        db.sql(make);
        assert_eq!(told(), Vec::<String>::new(), "{make}");
        db.sql(drop);
        assert_eq!(told().len(), 1, "{drop}");
    }
}

/// A folder with the server's tools, but for one that says that it is of another version.
fn of_another_version(server: &Server, name: &str, version: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for tool in ["psql", "pg_dump", "pg_restore"].into_iter().filter(|tool| *tool != name) {
        std::os::unix::fs::symlink(server.bin.join(tool), folder.path().join(tool)).unwrap();
    }
    script(&folder.path().join(name), &format!("echo '{name} (PostgreSQL) {version}'"));
    folder
}

#[test]
fn what_another_version_wrote_or_would_load_is_refused_before_anything_changes() {
    let db = Database::small("versions");
    let (bytes, findings) = db.backup();
    let fails = |dump: &[u8], settings: Settings| {
        for destination in [Destination::Drill, Destination::Into(format!("{} beside", db.name))] {
            restore(open(settings.clone()).as_ref(), Cursor::new(dump), destination, &Counts::new())
                .expect_err("it can't");
        }
        fails_and_changes_nothing(&db, open(settings).as_ref(), Cursor::new(dump), &Counts::new())
    };
    let own = || settings(&db.server, &db.name);
    let of = |folder: &tempfile::TempDir| Settings { tools_dir: Some(folder.path().into()), ..own() };
    // Whatever pg_restore there is: those that read it set what this server doesn't know.
    let error = fails(include_bytes!("../../src/engine/postgres/testdata/pg18.pgdump"), own());
    assert!(
        error.message.ends_with("what pg_dump 18.6 wrote can't be loaded into a server of version 15"),
        "{error:?}"
    );
    assert_eq!(error.hint.unwrap(), "restore it into a server of version 17 or newer: mend [databases.mydb] url");
    // This one could be loaded, by newer tools.
    let error = fails(include_bytes!("../../src/engine/postgres/testdata/pg16.pgdump"), own());
    assert!(error.message.contains("is too old for the backup, which pg_dump 16.2 wrote"), "{error:?}");
    assert!(error.hint.unwrap().contains("[databases.mydb] tools_dir"));
    let newer = of_another_version(&db.server, "pg_restore", "17.2");
    let error = fails(&bytes, of(&newer));
    assert!(error.message.ends_with("pg_restore 17.2 can't load into a server of version 15"), "{error:?}");
    assert!(error.hint.unwrap().contains("[databases.mydb] tools_dir"));
    let newer = of_another_version(&db.server, "pg_dump", "17.2");
    let warnings = open(of(&newer)).probe(&cx()).unwrap().warnings;
    assert!(
        warnings[0].contains("what pg_dump 17.2 writes can't be loaded into this server, which is 15"),
        "{warnings:?}"
    );

    // A newer server's, in a form that these tools read, with what this server doesn't know.
    let version = db.server.admin("SHOW server_version");
    let newer = format!("{:<1$}", "18.6", version.len());
    let at = bytes.windows(version.len()).position(|part| part == version.as_bytes()).unwrap();
    let mut dump = bytes.clone();
    dump[at..at + version.len()].copy_from_slice(newer.as_bytes());
    restore(db.engine().as_ref(), Cursor::new(&dump), Destination::Drill, &findings.counts).unwrap();
    let at = dump.windows(14).position(|part| part == b"CREATE TABLE p").unwrap();
    dump[at..at + 12].copy_from_slice(b"CREATE LATER");
    let error = fails(&dump, own());
    assert_eq!(
        error.hint.unwrap(),
        "the backup is of PostgreSQL 18, this server is 15: restore it into one that is as new"
    );
}

/// A foreign server with a mapping that has a password, and a subscription to nobody.
const FAR: &str = "CREATE FOREIGN DATA WRAPPER vx_fdw; CREATE SERVER far FOREIGN DATA WRAPPER vx_fdw;
  CREATE SUBSCRIPTION vx_sub CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE);";

#[test]
fn what_only_a_superuser_dumps_is_told_and_no_password_is() {
    let db = Database::small("far");
    db.sql(FAR);
    let (poor, other) = (Role::new(&db, "far"), Role::new(&db, "mapped"));
    let mapping =
        format!("CREATE USER MAPPING FOR {} SERVER far OPTIONS (user 'u', password 'geheim')", ident(&other.1));
    db.sql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}; {mapping}", ident(&poor.1)));
    let probe = |args: &[&str]| {
        let dump_args = args.iter().map(|arg| (*arg).to_owned()).collect();
        open(Settings { dump_args, ..poor.settings() }).probe(&cx()).unwrap().warnings
    };
    let warnings = probe(&[]);
    assert!(
        warnings[0].contains("is no superuser, so the backups lack the subscriptions vx_sub: dump as one"),
        "{warnings:?}"
    );
    let mapped = format!("of the user mappings for {} at far: dump as one", other.1);
    assert!(warnings[1].contains(&mapped), "{warnings:?}");
    assert_eq!(probe(&["--no-subscriptions"]).len(), 1);
    assert_eq!(db.engine().probe(&cx()).unwrap().warnings, [""; 0]);

    // A statement that fails at a restore is not repeated with all that it holds.
    let (bytes, findings) = db.backup();
    db.sql(&format!("DROP USER MAPPING FOR {} SERVER far; DROP SUBSCRIPTION vx_sub", ident(&other.1)));
    drop(other);
    let error = fails_and_changes_nothing(&db, db.engine().as_ref(), &*bytes, &findings.counts);
    let said = format!("{error:?}");
    assert!(said.contains("Command was: CREATE USER MAPPING FOR ") && said.contains("does not exist"), "{said}");
    assert!(!said.contains("geheim"), "{said}");
}

#[test]
fn a_database_with_a_subscription_is_replaced_and_goes() {
    let db = Database::small("subscribed");
    db.sql(FAR);
    let (bytes, findings) = db.backup();
    fails_and_changes_nothing(&db, db.engine().as_ref(), &bytes[..bytes.len() - 1], &findings.counts);
    let restored = restore(db.engine().as_ref(), &*bytes, Destination::InPlace, &findings.counts).unwrap();
    let note = "the replaced database had subscriptions (vx_sub); those in the backup are restored disabled";
    assert!(restored.notes.len() == 1 && restored.notes[0].contains(note), "{:?}", restored.notes);
    assert_eq!(db.server.leftovers(&db.name), [""; 0]);
    assert_eq!(db.sql("SELECT subname, subenabled FROM pg_subscription WHERE subname = 'vx_sub'"), "vx_sub|f");
    db.sql("DROP SUBSCRIPTION vx_sub");
}
