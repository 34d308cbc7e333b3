//! `restore --into NAME --url URL`: from a database in a container, where its tools run too, to a server of this host that
//! the configuration does not know.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::common::{Sandbox, from_runner};
use super::engines::Server;
use super::{Database, Place, job, number};

const ALL: &str =
    "SELECT i, x, length(x) FROM t ORDER BY i; SELECT count(*), max(length(x)) FROM big; SELECT count(*) FROM v;";

/// With `shop` in the configuration, its secrets in files, and a first backup.
fn sandbox(from: &Place, database: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    password(&sandbox, "from", from);
    // Roles are the first server's own.
    let more = match from.engine {
        "postgres" => "restore_args = [\"--no-owner\", \"--no-privileges\"]\n",
        _ => "",
    };
    sandbox.configure_local(
        None,
        &format!(
            "[databases.shop]\nengine = \"{}\"\nurl = \"{}/{}\"\npassword = {{ file = \"{{dir}}/from\" }}\nexec = {:?}\n{more}{}",
            from.engine,
            from.base,
            database.replace(' ', "%20"),
            from.exec,
            job("shop"),
        ),
    );
    sandbox.command(&["-q", "run-job", "shop"]).run();
    sandbox
}

/// A file that holds the password of that place.
fn password(sandbox: &Sandbox, name: &str, of: &Place) -> String {
    let path = sandbox.write(name, &of.password);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// `tools`: what comes first on the path.
fn to_another_server(from: &Place, to: &Place, tools: &str) {
    let db = Database::new(from);
    let before = db.sql(ALL);
    let sandbox = sandbox(from, &db.name);
    let file = password(&sandbox, "to", to);
    let name = format!("{} elsewhere", db.name);
    let url = format!("{}/{}", to.base, to.desk());
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap());
    let restore = |more: &[&str]| {
        let words = [&["-q", "restore", "shop", "--latest", "--into", &name][..], more].concat();
        sandbox.command(&words).env("PATH", &path)
    };
    let plan = restore(&["--url", &url, "--dry-run"]).stdout_any().run().stdout;
    assert!(plan.contains(&name) && !plan.contains("podman"), "{plan}");
    restore(&["--url", &url, "--password-file", &file]).stderr_any().run();
    assert_eq!(to.sql(&name, ALL), before);
    if to.engine == "postgres" {
        // What the URL names is no likeness: its comment is not carried over.
        let comment = format!(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '-') FROM pg_database WHERE datname = '{name}'"
        );
        assert_eq!(to.sql(to.desk(), &comment), "-");
    }
    let drop = format!("DROP DATABASE {};", to.ident(&name));
    // What is there is not touched, whoever made it.
    restore(&["--url", &url, "--password-file", &file]).exits(13).stderr_has("already").run();
    to.sql(to.desk(), &drop);
    // By a variable; and PostgreSQL in parallel, which it can't where its tools run in the container.
    let more = if to.engine == "postgres" { &["--jobs", "2"][..] } else { &[] };
    if to.engine == "postgres" {
        let words = ["restore", "shop", "--latest", "--jobs", "2"];
        sandbox.command(&words).exits(2).stderr_has("which is not there where exec leads").run();
    }
    let words = [&["--url", &url][..], more].concat();
    restore(&words).env("VOXELTRON_RESTORE_PASSWORD", &to.password).stderr_any().run();
    assert_eq!(to.sql(&name, ALL), before);
    to.sql(to.desk(), &drop);
    let wrong = restore(&["--url", &url]).env("VOXELTRON_RESTORE_PASSWORD", "wrong").exits(13).stderr_any().run();
    assert!(wrong.stderr.contains("--password-file") && !wrong.stderr.contains("[databases.shop]"), "{wrong:?}");
    assert_eq!(db.sql(ALL), before);
}

#[test]
fn postgres_to_another_server() {
    to_another_server(&Place::all()[0], &Place::all()[1], "/usr/bin");
}

#[test]
fn mysql_to_another_server() {
    to_another_server(&Place::all()[2], &Place::all()[3], &from_runner("VOXELTRON_TEST_MYSQL_TOOLS"));
}

#[test]
fn mariadb_to_another_server() {
    to_another_server(&Place::all()[4], &Place::all()[5], "/usr/bin");
}

/// Both of FerretDB's keep their documents in one PostgreSQL, but each is a server of its own.
#[test]
fn mongodb_to_another_server() {
    let (from, to) = (Server::mongodb(), Server::mongodb_of_a_clean_environment());
    let name = format!("vx{}", number());
    from.js(&name, "d.a.insertMany([{_id: 1, v: 'old'}, {_id: 2}]); d.a.createIndex({v: 1})");
    let sandbox = sandbox(&from.place, &format!("{name}?authSource=admin"));
    let file = password(&sandbox, "to", &to.place);
    let into = format!("{name}_elsewhere");
    let url = format!("{}/admin", to.place.base);
    let path = format!("{}:{}", from_runner("VOXELTRON_TEST_MONGO_TOOLS"), std::env::var("PATH").unwrap());
    let words = ["-q", "restore", "shop", "--latest", "--into", &into, "--url", &url, "--password-file", &file];
    sandbox.command(&words).env("PATH", &path).stderr_any().run();
    let all = "print(EJSON.stringify([d.getCollectionNames(), d.a.find().toArray(), d.a.getIndexes().length]))";
    assert_eq!(to.js(&into, all), r#"[["a"],[{"_id":1,"v":"old"},{"_id":2}],2]"#);
    sandbox.command(&words).env("PATH", &path).exits(13).stderr_has("already").run();
    for database in [&into, &name] {
        to.js(database, "d.dropDatabase()");
    }
}

#[test]
fn a_url_that_can_t_be_used_is_told_before_anything_is_read() {
    let sandbox = Sandbox::new();
    super::common::sqlite3(&sandbox.path("shop.db"), "create table t (x); insert into t values (1), (2)");
    sandbox.configure_local(
        None,
        &format!("[databases.shop]\nengine = \"sqlite\"\nurl = \"sqlite://{{dir}}/shop.db\"\n{}", job("shop")),
    );
    sandbox.command(&["-q", "run-job", "shop"]).run();
    for (words, why) in [
        (&["--into", "x", "--url", "postgres://u:canary@h/d"][..], "--url: it holds a password"),
        (&["--into", "x", "--url", "redis://h?password=canary"], "--password-file FILE"),
        (&["--into", "x", "--url", "http://h/canary"], "begins with no scheme that is known"),
        (&["--into", "x", "--url", "canary"], "begins with no scheme that is known"),
        (&["--into", "x", "--url", "mysql://h/"], "--url: it names no database"),
        (&["--into", "x", "--url", "postgres://u@h/d"], "--url names postgres"),
        (&["--into", "x", "--password-file", "/canary"], "--url"),
        (&["--url", "postgres://u@h/d"], "--into"),
        (&["--jobs", "2"], "--jobs: only PostgreSQL loads a backup in parallel"),
        (&["--jobs", "0"], "0 is not in 1..=256"),
        (&["--jobs", "2", "--output", "x"], "--output"),
    ] {
        let words = [&["restore", "shop", "--latest"][..], words].concat();
        let outcome = sandbox.command(&words).exits(2).stderr_has(why).run();
        assert!(!outcome.stderr.contains("canary"), "{words:?}: {outcome:?}");
    }
    // A file is where it is: the path says all, and the URL's scheme fits.
    let (url, into) = (format!("sqlite://{}", sandbox.path("shop.db").display()), sandbox.path("new.db"));
    let into = into.display().to_string();
    sandbox.command(&["-q", "restore", "shop", "--latest", "--into", &into, "--url", &url]).stderr_any().run();
    assert_eq!(super::common::sqlite3(&sandbox.path("new.db"), "select sum(x) from t").trim(), "3");
}
