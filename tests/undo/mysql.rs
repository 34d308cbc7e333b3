//! MySQL and MariaDB.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{from_runner, tool};
use crate::{Bench, Way, lines, shown};

static NUMBER: AtomicU32 = AtomicU32::new(0);

struct Shop {
    name: String,
    url: String,
    tools: Option<PathBuf>,
    changes: AtomicU32,
}

impl Shop {
    fn new(maria: bool) -> Self {
        let (server, tools) = match maria {
            true => (from_runner("VOXELTRON_TEST_MARIADB_URL"), None),
            false => (from_runner("VOXELTRON_TEST_MYSQL_URL"), Some(from_runner("VOXELTRON_TEST_MYSQL_TOOLS").into())),
        };
        let name = format!("undo_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        let this = Self { name: name.clone(), url, tools, changes: AtomicU32::new(0) };
        this.sql("mysql", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        this.sql(
            &name,
            "CREATE TABLE a (i INT PRIMARY KEY AUTO_INCREMENT, t TEXT); CREATE TABLE b (i INT, a INT, FOREIGN KEY (a) REFERENCES a (i));
             INSERT INTO a (t) VALUES (REPEAT('x', 100)), ('ü'), ('z'); INSERT INTO a (t) SELECT p.t FROM a p, a q, a r, a s, a t, a u;
             INSERT INTO b VALUES (1, 1), (2, 2); CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x;
             CREATE TRIGGER tr BEFORE INSERT ON `b` FOR EACH ROW SET NEW.i = f(NEW.i); CREATE VIEW v AS SELECT f(i) AS i FROM b;
             CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO DELETE FROM b WHERE i > 100;",
        );
        this.library(0);
        this
    }

    /// Libraries, which MySQL alone has: one that differs each time, and one that comes to it.
    fn library(&self, number: u32) {
        if self.tools.is_some() {
            self.sql(
                &self.name,
                &format!(
                    "DROP LIBRARY IF EXISTS f; CREATE LIBRARY f LANGUAGE JAVASCRIPT AS 'export function f(){{return {number}}}';
                     CREATE LIBRARY l{number} LANGUAGE JAVASCRIPT AS 'export const view = {number}';
                     CREATE PROCEDURE pl{number}() LANGUAGE JAVASCRIPT USING (f, l{number} AS l) AS 'f.f()';"
                ),
            );
        }
    }

    fn client(&self, name: &str) -> Command {
        let rest = self.url.split_once("://").unwrap().1;
        let (credentials, place) = rest.split_once('/').unwrap().0.rsplit_once('@').unwrap();
        let (user, password) = credentials.split_once(':').unwrap();
        let (host, port) = place.split_once(':').unwrap();
        let mut command = match &self.tools {
            Some(folder) => Command::new(folder.join(name)),
            None => Command::new(name),
        };
        command.args(["--no-defaults", "-h", host, "-P", port, "-u", user, "--default-character-set=utf8mb4"]);
        command.env("MYSQL_PWD", password);
        command
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        tool(self.client("mysql").args(["--batch", "--raw", "--skip-column-names", database]), sql.as_bytes())
    }
}

impl Bench for Shop {
    fn table(&self) -> String {
        let tools = self.tools.iter().map(|folder| ("tools_dir", shown(folder)));
        lines(&[("engine", "mysql"), ("url", self.url.as_str())].into_iter().chain(tools).collect::<Vec<_>>())
    }

    fn change(&self) {
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        self.sql(
            &self.name,
            &format!(
                "CREATE TABLE later{number} (i INT); INSERT INTO later{number} VALUES (1); DELETE FROM a WHERE i > {};
                 CREATE TRIGGER lt{number} BEFORE INSERT ON `later{number}` FOR EACH ROW SET NEW.i = {number};
                 CREATE VIEW lv{number} AS SELECT i FROM later{number}; CREATE PROCEDURE lp{number}() SELECT {number};
                 CREATE EVENT le{number} ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO SELECT 1;
                 DROP EVENT IF EXISTS e; DROP FUNCTION IF EXISTS f; CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + {number};",
                600 - number
            ),
        );
        self.library(number);
    }

    fn exchanges_at_once(&self) -> bool {
        false
    }

    fn all(&self) -> String {
        let mut dump = self.client("mysqldump");
        dump.args(["--routines", "--events", "--triggers", "--hex-blob", "--skip-dump-date", "--skip-extended-insert"]);
        if self.tools.is_some() {
            dump.arg("--set-gtid-purged=OFF");
        }
        dump.args(["--no-tablespaces", "--single-transaction", "--skip-comments", "--", &self.name]);
        tool(&mut dump, b"")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let names = self.sql(
                "mysql",
                &format!("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '{}%'", self.name),
            );
            for name in names.lines() {
                self.sql("mysql", &format!("DROP DATABASE `{name}`"));
            }
        }
    }
}

#[test]
fn mariadb_there_and_back() {
    crate::there_and_back(&Shop::new(true));
}

#[test]
fn mysql_there_and_back() {
    crate::there_and_back(&Shop::new(false));
}

#[test]
fn mariadb_parts() {
    let shop = Shop::new(true);
    let arg = |option: &str| format!("{option}={}.a", shop.name);
    crate::parts(&shop, Some(&arg("--ignore-table")), Some(&arg("--ignore-table-data")));
}

#[test]
fn mysql_parts() {
    let shop = Shop::new(false);
    crate::parts(&shop, Some(&format!("--ignore-table={}.a", shop.name)), None);
}

#[test]
fn mariadb_killed() {
    crate::killed(&Shop::new(true), 5);
}

#[test]
fn mysql_killed() {
    crate::killed(&Shop::new(false), 5);
}

#[test]
fn a_restore_that_waits_for_others_in_vain_leaves_what_is_kept() {
    let shop = Shop::new(true);
    let way = Way::new(&shop, "");
    shop.change();
    let changed = shop.all();
    way.restore();
    let (restored, kept) = (shop.all(), way.kept());
    // Who reads in a transaction lets nobody exchange the tables.
    let mut reader = shop.client("mysql");
    reader.args([&shop.name, "-e", "BEGIN; SELECT 1 FROM a LIMIT 1; SELECT SLEEP(600)"]);
    let mut reader = reader.stdout(std::process::Stdio::null()).spawn().unwrap();
    let started = std::time::Instant::now();
    while shop
        .sql("mysql", "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP(600)%'")
        .trim()
        != "1"
    {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "nobody reads");
    }
    let said = way.sandbox.command(&["restore", "shop", "--latest"]).exits(13).stderr_any().run().stderr;
    assert!(said.contains("keeping shop as it is") && said.contains("can't exchange the tables"), "{said}");
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert_eq!((shop.all(), way.kept()), (restored, kept));
    way.undo();
    assert_eq!(shop.all(), changed);
}

/// What a restore left without its code is no backup; but the next one keeps it, and takes its place.
#[test]
fn a_schema_that_was_left_without_its_code_is_kept() {
    let shop = Shop::new(true);
    let first = shop.all();
    let way = Way::new(&shop, "");
    shop.change();
    shop.sql(&shop.name, "DROP VIEW v");
    // A client that does all of the exchange and nothing after it; one that loads nothing.
    let client = |first: &str| {
        let begins = "[ \"$1\" = --version ] && exec mariadb --version\n[ -e \"$0.dead\" ] && exit 1\nread -r a";
        let ends = "{ printf '%s\\n' \"$a\" \"$b\" \"$c\" \"$d\"; cat; } | mariadb \"$@\"";
        way.sandbox.fake_tool("mariadb-dump", "exec mariadb-dump \"$@\"");
        let folder = way.sandbox.fake_tool("mariadb", &format!("{begins}\n{first}\n{ends}"));
        way.configure(&format!("tools_dir = {}", serde_json::Value::from(shown(&folder))));
        way.sandbox.command(&["restore", "shop", "--latest"]).exits(13).stderr_any().run();
    };
    client(
        "case \"$a\" in 'SET SESSION sql_mode'*) read -r b; read -r c; read -r d;; *) { printf '%s\\n' \"$a\"; cat; } | mariadb \"$@\"; exit;; esac\n\
         case \"$d\" in *\"GET_LOCK('voxeltron-swap\"*) if read -r e; then touch \"$0.dead\"; { printf '%s\\n' \"$a\" \"$b\" \"$c\" \"$d\" \"$e\"; cat; } | mariadb \"$@\"; exit 1; fi;; esac",
    );
    // Another takes the name of the view that is yet to be made.
    shop.sql(&shop.name, "CREATE TABLE v (taken INT)");
    std::fs::remove_file(way.sandbox.path("tools/mariadb.dead")).unwrap();
    client("case \"$a\" in 'SET SESSION'*) ;; *) exit 1;; esac");
    way.configure("");
    for args in [&["run-job", "shop"][..], &["check"]] {
        let told = way.sandbox.command(args).exits(13).stdout_any().stderr_any().run();
        assert!((told.stdout + &told.stderr).contains("not all of it is there"), "{args:?}: {}", told.stderr);
    }
    let (stood, kept) = (shop.all(), way.kept().len());
    let said = way.restore();
    assert!(said.contains("could not be finished") && said.contains("is kept as it is: without what"), "{said}");
    crate::same(&shop.all(), &first);
    assert_eq!(way.kept().len(), kept + 1, "what was there before the one that did not end stays, too");
    way.quietly(&["run-job", "shop"]);
    way.undo();
    crate::same(&shop.all(), &stood);
}

/// A view whose definer has lost a right can't be made: all else stands, and no script takes that for the whole.
fn lacks_a_view(maria: bool) {
    let shop = Shop::new(maria);
    let user = format!("poor_{}", shop.name);
    shop.sql(
        &shop.name,
        &format!(
            "CREATE USER {user}; GRANT ALL ON {0}.* TO {user}; CREATE DEFINER={user} VIEW its AS SELECT i FROM b;
             CREATE VIEW on_its AS SELECT i FROM its;",
            shop.name
        ),
    );
    let way = Way::new(&shop, "");
    shop.sql(
        &shop.name,
        &format!("REVOKE ALL ON {}.* FROM {user}; DROP VIEW on_its; INSERT INTO b VALUES (3, 3)", shop.name),
    );
    let args = ["--json", "restore", "shop", "--latest", "--yes"];
    let said = way
        .sandbox
        .command(&args)
        .exits(3)
        .stdout_any()
        .stderr_has("the view on_its is missing, for its definer")
        .run();
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(said["restored"]["missing"], serde_json::json!(["view on_its"]), "{said}");
    assert_eq!(shop.sql(&shop.name, "SELECT count(*) FROM b").trim(), "2");
    // Given back, the next restore has all of it.
    shop.sql(&shop.name, &format!("GRANT ALL ON {}.* TO {user}", shop.name));
    way.restore();
    assert_eq!(shop.sql(&shop.name, "SELECT count(*) FROM on_its").trim(), "2");
    shop.sql("mysql", &format!("DROP USER {user}"));
}

#[test]
fn mysql_lacks_a_view() {
    lacks_a_view(false);
}

#[test]
fn mariadb_lacks_a_view() {
    lacks_a_view(true);
}
