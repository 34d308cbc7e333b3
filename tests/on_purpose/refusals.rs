//! A backup that was cut, one of another engine, and one whose rows break a constraint of its own, through the program: what
//! stood stands, the message says why, the exit code tells which, and with the right one the same command succeeds.

use std::path::{Path, PathBuf};

use crate::common::{from_runner, psql};
use crate::redis::support::{PASSWORD, Server, Which};
use crate::sqlite::File;
use crate::{Bench, Way, has, lines, mysql, postgres};

#[path = "../mongodb_engine/support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod mongo;

/// The one object at the local target that is no manifest.
fn object(folder: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(folder.join("host/shop")).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.extension().is_some_and(|end| end == "enc")).unwrap()
}

/// With a bench that holds other data after `change`.
#[track_caller]
fn cut_and_of_another_engine(bench: &dyn Bench, change: &dyn Fn()) {
    let new = bench.all();
    let way = Way::new(bench);
    change();
    assert!(bench.all() != new);
    let path = object(&way.sandbox.store());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    way.fails(&[], 12, &["the backup is cut: ", " bytes are there"]);
    // As long as before, and the end is another.
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    way.fails(&[], 12, &["can't restore shop"]);
    std::fs::write(&path, &whole).unwrap();
    // The database is of another engine now, says the configuration.
    let table = bench.table();
    let (other, name) = match table.contains("\"sqlite\"") {
        true => (lines(&[("engine", "redis"), ("url", "redis://127.0.0.1:1")]), "redis"),
        false => (lines(&[("engine", "sqlite"), ("url", "sqlite:///nowhere/shop.db")]), "sqlite"),
    };
    way.configure_as(&other, "");
    let before = bench.all();
    let said = way.runs(&["restore", "shop", "--latest", "--yes"], 10).stderr;
    assert!(said.contains(&format!("but [databases.shop] is {name}")) && said.contains("hint: "), "{said}");
    crate::same(&bench.all(), &before);
    way.configure("");
    way.restores();
    crate::same(&without_kept(&bench.all()), &without_kept(&new));
}

/// PostgreSQL keeps what was replaced beside it.
fn without_kept(all: &str) -> String {
    all.lines().filter(|line| !line.contains("__previous_")).collect::<Vec<_>>().join("\n")
}

#[test]
fn postgres_cut_and_of_another_engine() {
    let server = postgres::server();
    cut_and_of_another_engine(&*server, &|| server.change());
}

#[test]
fn mariadb_cut_and_of_another_engine() {
    let server = mysql::mariadb();
    cut_and_of_another_engine(&*server, &|| server.change());
}

#[test]
fn mysql_cut_and_of_another_engine() {
    let server = mysql::mysql();
    cut_and_of_another_engine(&*server, &|| server.change());
}

struct Cache(Server);

impl Bench for Cache {
    fn table(&self) -> String {
        let (tools, url) = (self.0.which.tools(), self.0.url());
        lines(&[("engine", "redis"), ("url", &url), ("password", PASSWORD), ("tools_dir", tools.to_str().unwrap())])
    }

    fn all(&self) -> String {
        format!("{}\n{:#?}", self.0.digest(), self.0.settings())
    }
}

#[test]
fn redis_cut_and_of_another_engine() {
    let cache = Cache(Server::new(Which::Redis8));
    cache.0.small();
    cut_and_of_another_engine(&cache, &|| drop(cache.0.cli(&["SET", "later", "1"])));
}

#[test]
fn valkey_cut_and_of_another_engine() {
    let cache = Cache(Server::new(Which::Valkey9));
    cache.0.small();
    cut_and_of_another_engine(&cache, &|| drop(cache.0.cli(&["SET", "later", "1"])));
}

struct Documents(mongo::Database);

impl Bench for Documents {
    fn table(&self) -> String {
        let tools = mongo::tools();
        lines(&[("engine", "mongodb"), ("url", &self.0.url()), ("tools_dir", tools.to_str().unwrap())])
    }

    fn all(&self) -> String {
        self.0.all()
    }
}

#[test]
fn mongodb_cut_and_of_another_engine() {
    let documents = Documents(mongo::Database::small("on_purpose"));
    cut_and_of_another_engine(&documents, &|| drop(documents.0.js("d.later.insertOne({_id: 1})")));
}

#[test]
fn sqlite_cut_and_of_another_engine() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::with(folder.path().join("shop.db"), None, 100);
    cut_and_of_another_engine(&file, &|| drop(file.sql("CREATE TABLE later (i)")));
}

#[test]
fn rows_that_break_a_check_of_postgres() {
    let server = postgres::server();
    let sql = |sql: &str| psql(&server.url("shop"), sql);
    sql("CREATE FUNCTION ok(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN RETURN $1 < 10 OR current_setting('vx.ok', true) IS NOT DISTINCT FROM 'yes'; END $$;
         CREATE TABLE checked (i int CHECK (public.ok(i))); SET vx.ok = 'yes'; INSERT INTO checked VALUES (1), (11)");
    let way = Way::new(&*server);
    sql("DELETE FROM checked WHERE i > 10; INSERT INTO b VALUES (7)");
    let words = ["violates check constraint", "the backup holds rows that break a constraint of its own", "hint: "];
    way.fails(&[], 13, &words);
    way.fails(&["--jobs", "2"], 13, &words);
    sql("DROP TABLE checked; DROP FUNCTION ok; DELETE FROM b WHERE i = 7");
}

/// A backup whose dump holds a row twice.
fn rows_that_break_a_key(server: &mysql::Server) {
    server.sql("shop", "CREATE TABLE once (i INT PRIMARY KEY); INSERT INTO once VALUES (1)");
    let way = Way::new(server);
    let real = match server.table().contains("tools_dir") {
        true => from_runner("VOXELTRON_TEST_MYSQL_TOOLS") + "/",
        false => String::new(),
    };
    way.sandbox.fake_tool("mysql", &format!("exec {real}mysql \"$@\""));
    let twice = "/^INSERT INTO `once`/,/;$/s/(1)/(1),(1)/";
    let tools = way.sandbox.fake_tool("mysqldump", &format!("{real}mysqldump \"$@\" | sed '{twice}'"));
    let table: String =
        server.table().lines().filter(|line| !line.starts_with("tools_dir")).map(|line| format!("{line}\n")).collect();
    way.configure_as(&(table + &lines(&[("tools_dir", tools.to_str().unwrap())])), "");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    way.does(&["run-job", "shop"]);
    way.configure("");
    server.sql("shop", "INSERT INTO once VALUES (2)");
    let said = way.fails(&[], 13, &["hint: "]);
    // MariaDB, when it loads into an empty table, does not say what it is.
    match said.contains("ERROR 1180") {
        true => has(&said, &["its disk is full, or two rows of the backup have one key"]),
        false => has(&said, &["Duplicate entry '1'", "the backup holds rows that break a constraint of its own"]),
    }
    server.sql("shop", "DROP TABLE once");
}

#[test]
fn rows_that_break_a_key_of_mariadb() {
    rows_that_break_a_key(&mysql::mariadb());
}

#[test]
fn rows_that_break_a_key_of_mysql() {
    rows_that_break_a_key(&mysql::mysql());
}
