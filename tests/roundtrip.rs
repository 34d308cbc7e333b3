//! Whole round trips by the program itself, judged by the engines' own tools: {PostgreSQL, SQLite} × {compressed, not} ×
//! {encrypted, not}. What is stored without encryption opens with the engine's tools alone. The engines' own tests hold the
//! data that hurts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::{Database, Sandbox, postgres_tool, sqlite3, tool};
use serde_json::Value;

/// A key of 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Rows with every byte, wide characters, extremes, nothing at all.
const POSTGRES: &str = "
    create table \"T able\" (id bigint primary key, \"Ünï 💾\" text, raw bytea, n numeric, at timestamptz, list int[]);
    insert into \"T able\" select i, repeat('x💾', i % 7) || chr(i % 50 + 200), decode(lpad(to_hex(i % 256), 2, '0'), 'hex'),
        i / 7.0, to_timestamp(i * 1000), array[i, -i] from generate_series(1, 3000) i;
    insert into \"T able\" values (-9223372036854775808, null, '\\x00ff', 'NaN', 'infinity', '{}');
    create table empty (x int);
    create view v as select count(*) from \"T able\";
    create sequence s start 17; select nextval('s');
    create function f(int) returns int language sql as 'select $1 + 1';
    select lo_from_bytea(4711, decode(repeat('00ff10', 5000), 'hex'));";
const SQLITE: &str = "
    create table \"T able\" (id integer primary key, \"Ünï 💾\" text, raw blob, n real);
    with recursive c(i) as (select 1 union all select i + 1 from c where i < 3000)
        insert into \"T able\" select i, 'x💾' || char(i % 50 + 200), randomblob(i % 300), i / 7.0 from c;
    insert into \"T able\" values (-9223372036854775808, null, x'00ff', 9e999);
    create table empty (x int primary key) strict, without rowid;";

fn dump_postgres(url: &str) -> String {
    let text = tool(postgres_tool("pg_dump").args(["--no-password", "-d", url]), b"");
    // Newer tools put a random token there.
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn sandbox(engine: &str, url: &str, compress: bool, encrypt: bool) -> Sandbox {
    let sandbox = Sandbox::new();
    let tools = std::env::var("VOXELTRON_TEST_POSTGRES_BIN").unwrap();
    let tools = if engine == "postgres" { format!("tools_dir = \"{tools}\"\n") } else { String::new() };
    sandbox.configure_local(
        Some(KEY),
        &format!(
            "[databases.shop]\nengine = \"{engine}\"\nurl = \"{url}\"\n{tools}\
             [[backup.jobs]]\ndatabase = \"shop\"\nschedule = \"@daily\"\ncompress = {compress}\nencrypt = {encrypt}\n"
        ),
    );
    sandbox
}

fn stored(sandbox: &Sandbox, compress: bool, encrypt: bool, ending: &str) -> PathBuf {
    let name = format!(".{ending}{}{}", if compress { ".gz" } else { "" }, if encrypt { ".enc" } else { "" });
    let files = fs::read_dir(sandbox.store().join("host/shop")).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.to_str().unwrap().ends_with(&name)).unwrap_or_else(|| panic!("no {name}"))
}

/// What `gunzip` makes of a compressed backup, or the backup itself.
fn unpacked(path: PathBuf, compress: bool) -> PathBuf {
    if !compress {
        return path;
    }
    let plain = path.with_extension("");
    let sh = ["-c", "gunzip --stdout \"$1\" > \"$2\"", "sh"];
    tool(Command::new("sh").args(sh).arg(&path).arg(&plain), b"");
    plain
}

fn postgres(compress: bool, encrypt: bool) {
    let database = Database::new();
    database.sql(POSTGRES);
    let before = dump_postgres(&database.url);
    let sandbox = sandbox("postgres", &database.url, compress, encrypt);
    sandbox.command(&["run-job", "shop"]).stderr_has("stored").run();
    let verified = sandbox.command(&["--json", "verify", "shop", "--restore"]).stdout_any().stderr_any().run();
    let verified: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(verified["backups"][0]["counts"]["public.T able"], 3001, "{verified:#}");

    database.sql("drop table \"T able\" cascade; create table later (x int); select lo_unlink(4711)");
    assert_ne!(dump_postgres(&database.url), before);
    sandbox.command(&["restore", "shop", "--latest"]).stderr_has("restored").run();
    assert_eq!(dump_postgres(&database.url), before);

    if !encrypt {
        let dump = unpacked(stored(&sandbox, compress, false, "pgdump"), compress);
        let other = Database::new();
        tool(postgres_tool("pg_restore").args(["--exit-on-error", "--no-password", "-d", &other.url]).arg(dump), b"");
        assert_eq!(dump_postgres(&other.url), before);
    }
}

fn sqlite(compress: bool, encrypt: bool) {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("shop.db");
    sqlite3(&live, SQLITE);
    let before = sqlite3(&live, ".dump");
    let sandbox = sandbox("sqlite", &format!("sqlite://{}", live.display()), compress, encrypt);
    sandbox.command(&["run-job", "shop"]).stderr_has("stored").run();
    sandbox
        .command(&["verify", "shop", "--restore"])
        .stdout_has("restored into a scratch database: 2 tables, 3001 rows")
        .run();

    sqlite3(&live, "drop table \"T able\"; create table later (x)");
    sandbox.command(&["restore", "shop", "--latest"]).stderr_has("restored").run();
    assert_eq!(sqlite3(&live, ".dump"), before);

    if !encrypt {
        let image = unpacked(stored(&sandbox, compress, false, "sqlite"), compress);
        assert_eq!(sqlite3(&image, ".dump"), before);
    }
}

#[test]
fn postgres_compressed_and_encrypted() {
    postgres(true, true);
}

#[test]
fn postgres_compressed() {
    postgres(true, false);
}

#[test]
fn postgres_encrypted() {
    postgres(false, true);
}

#[test]
fn postgres_plain() {
    postgres(false, false);
}

#[test]
fn sqlite_compressed_and_encrypted() {
    sqlite(true, true);
}

#[test]
fn sqlite_compressed() {
    sqlite(true, false);
}

#[test]
fn sqlite_encrypted() {
    sqlite(false, true);
}

#[test]
fn sqlite_plain() {
    sqlite(false, false);
}

#[test]
fn a_restored_dump_file_is_what_pg_dump_wrote() {
    let database = Database::new();
    database.sql(POSTGRES);
    let sandbox = sandbox("postgres", &database.url, true, true);
    sandbox.command(&["-q", "run-job", "shop"]).run();
    sandbox.command(&["-q", "restore", "shop", "--latest", "--output", "shop.pgdump"]).run();
    let before = dump_postgres(&database.url);
    let other = Database::new();
    let load = ["--exit-on-error", "--no-password", "-d", &other.url];
    tool(postgres_tool("pg_restore").args(load).arg(sandbox.path("shop.pgdump")), b"");
    assert_eq!(dump_postgres(&other.url), before);
}

#[test]
fn a_backup_of_a_part_is_known_for_one_and_never_takes_the_place_of_the_whole() {
    let database = Database::new();
    database.sql("create table kept (x int); insert into kept values (1); create table other (x int)");
    let before = dump_postgres(&database.url);
    let sandbox = sandbox("postgres", &database.url, true, true);
    let whole = fs::read_to_string(sandbox.config()).unwrap();
    let part = whole.replace("tools_dir", "dump_args = [\"--table=kept\"]\ntools_dir");
    sandbox.configure(&part);
    sandbox.command(&["-q", "run-job", "shop"]).run();
    // The configuration of today says nothing of it any more.
    sandbox.configure(&whole);
    let refused =
        sandbox.command(&["restore", "shop", "--latest"]).exits(10).stderr_has("holds a part of shop (--table)");
    refused.stderr_has("hint: restore it beside with --into NAME").run();
    assert_eq!(dump_postgres(&database.url), before);
    let beside = format!("{}_beside", database.name);
    sandbox.command(&["-q", "restore", "shop", "--latest", "--into", &beside]).run();
    common::psql(database.server_url(), &format!("drop database {beside}"));
}
