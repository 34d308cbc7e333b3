//! A password of each engine shows nowhere but in its tools' own environment: no argument, no message, no other process.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::common::{self, Sandbox};
use super::engines::Server;
use super::{Database, Place, job, number, path_with, program, watch};

/// Runs all commands under a watcher's eyes; `tools` may have the password in their environment, and one of them does.
fn shows_nowhere(engine: &str, container: &str, canary: &str, url: &str, tools: &[&str]) {
    let sandbox = Sandbox::new();
    let path = path_with(&["docker"], &sandbox);
    sandbox.configure_local(
        None,
        &format!(
            "[databases.shop]\nengine = \"{engine}\"\nurl = \"{url}\"\n\
             exec = [\"docker\", \"exec\", \"-i\", \"voxeltron-db-{container}\"]\n{}",
            job("shop"),
        ),
    );
    let done = AtomicBool::new(false);
    let commands = [
        &["-v", "run-job", "shop"][..],
        &["-v", "check"],
        &["-v", "restore", "shop", "--latest", "--dry-run"],
        &["-v", "restore", "shop", "--latest", "--yes"],
        &["-v", "verify", "--restore"],
    ];
    let (outcomes, (arguments, environments)) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&done, canary));
        let outcomes = commands.map(|args| std::panic::catch_unwind(|| program(&sandbox, &path, args)));
        done.store(true, Ordering::Relaxed);
        (outcomes, watcher.join().unwrap())
    });
    let mut said = String::new();
    for outcome in outcomes.map(|outcome| outcome.expect("it ends in time")) {
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        said += &format!("{}{}", outcome.stdout, outcome.stderr);
    }
    assert!(said.contains(&format!("docker exec -i voxeltron-db-{container} ")), "{said}");
    assert!(!said.contains(canary), "{said}");
    assert_eq!(arguments, BTreeSet::new());
    // A child has its shell's name until it becomes the tool; Redis, Valkey and MySQL run by a loader here.
    let is = |name: &str| tools.contains(&name) || name == "sh" || name.starts_with("ld-linux");
    assert!(environments.iter().all(|name| is(name)), "{environments:?}");
    assert!(environments.iter().any(|name| name != "sh"), "it is seen where it is: {environments:?}");
}

/// A user of MySQL or MariaDB, whose tools have these names there.
fn of_sql(place: &Place, container: &str, canary: &str, tools: &[&str]) {
    let db = Database::new(place);
    let user = format!("canary{}", number());
    place.sql(
        "mysql",
        &format!("CREATE USER {user}@'127.0.0.1' IDENTIFIED BY '{canary}'; GRANT ALL ON *.* TO {user}@'127.0.0.1';"),
    );
    let url = format!("mysql://{user}:{canary}@127.0.0.1:3306/{}", db.name.replace(' ', "%20"));
    shows_nowhere("mysql", container, canary, &url, tools);
    place.sql("mysql", &format!("DROP USER {user}@'127.0.0.1';"));
}

#[test]
fn a_password_of_mysql_shows_nowhere_else() {
    of_sql(&Place::all()[2], "orders", "canary-of-mysql-31c7", &["mysql", "mysqldump"]);
}

#[test]
fn a_password_of_mariadb_shows_nowhere_else() {
    of_sql(&Place::all()[4], "orders2", "canary-of-mariadb-b06f", &["mariadb", "mariadb-dump"]);
}

/// A user of Redis or Valkey.
fn of_keys(server: &Server, canary: &str) {
    server.fill();
    let user = format!("canary-{}", number());
    // As the hash of the password, so that the watcher of another test sees no argument with it.
    let hash = common::tool(Command::new("sha256sum").stdin(Stdio::piped()), canary.as_bytes());
    let hash = format!("#{}", hash.split_whitespace().next().unwrap());
    server.cli(&["ACL", "SETUSER", &user, "on", &hash, "~*", "&*", "+@all"]);
    let url = server.place.base.replace("://", &format!("://{user}:{canary}@"));
    shows_nowhere("redis", server.name, canary, &url, &[server.client]);
    server.cli(&["ACL", "DELUSER", &user]);
}

#[test]
fn a_password_of_redis_shows_nowhere_else() {
    of_keys(&Server::redis(), "canary-of-redis-58e0");
}

#[test]
fn a_password_of_valkey_shows_nowhere_else() {
    of_keys(&Server::valkey(), "canary-of-valkey-c25d");
}

#[test]
fn a_password_of_mongodb_shows_nowhere_else() {
    const CANARY: &str = "canary-of-mongodb-94fd";
    let server = Server::mongodb();
    let (name, user) = (format!("vx_canary_{}", number()), format!("canary{}", std::process::id()));
    server.documents(&name);
    let roles = "[{role: 'readWriteAnyDatabase', db: 'admin'}, {role: 'clusterAdmin', db: 'admin'}]";
    server.js("admin", &format!("d.createUser({{user: '{user}', pwd: '{CANARY}', roles: {roles}}})"));
    let url = format!("mongodb://{user}:{CANARY}@127.0.0.1:27017/{name}?authSource=admin");
    shows_nowhere("mongodb", server.name, CANARY, &url, &["mongosh", "node", "env", "MainThread"]);
    server.js(&name, &format!("d.dropDatabase(); c.getSiblingDB('admin').dropUser('{user}')"));
}
