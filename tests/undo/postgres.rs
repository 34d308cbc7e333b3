//! PostgreSQL: the replaced database itself stays, closed.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{Database, from_runner, postgres_tool, psql, tool};
use crate::{Bench, lines};

struct Shop {
    database: Database,
    changes: AtomicU32,
}

impl Shop {
    fn new() -> Self {
        let database = Database::new();
        database.sql(
            "CREATE TABLE a (i int PRIMARY KEY, t text); INSERT INTO a SELECT n, repeat('x', 100) FROM generate_series(1, 3000) n;
             CREATE VIEW v AS SELECT count(*) FROM a; CREATE TABLE b (i int);",
        );
        Self { database, changes: AtomicU32::new(0) }
    }

    fn admin(&self, sql: &str) -> String {
        psql(self.database.server_url(), sql)
    }

    fn kept(&self) -> Vec<String> {
        let names = self.admin(&format!(
            "SELECT datname FROM pg_database WHERE datname LIKE '{}\\_\\_previous\\_%'",
            self.database.name.replace('_', "\\_")
        ));
        names.lines().map(str::to_owned).collect()
    }
}

impl Bench for Shop {
    fn table(&self) -> String {
        let tools = from_runner("VOXELTRON_TEST_POSTGRES_BIN");
        lines(&[("engine", "postgres"), ("url", &self.database.url), ("tools_dir", &tools)])
    }

    fn change(&self) {
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        let name = &self.database.name;
        self.database.sql(&format!(
            "CREATE TABLE later{number} (i int); DELETE FROM a WHERE i > {}; ALTER TABLE b ADD COLUMN x{number} text DEFAULT 'é';
             ALTER DATABASE {name} SET work_mem TO '{number}MB'; ALTER DATABASE {name} CONNECTION LIMIT {};
             COMMENT ON DATABASE {name} IS E'it''s\\n{{\"number\": {number}}}'; GRANT CREATE ON DATABASE {name} TO pg_monitor;",
            2000 - number,
            50 + number,
        ));
    }

    fn all(&self) -> String {
        let dump = tool(postgres_tool("pg_dump").args(["--format=plain", "-d", &self.database.url]), b"");
        let random = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
        let content: Vec<&str> = dump.lines().filter(random).collect();
        let name = &self.database.name;
        // The properties of the database are carried over by a restore, so they tell an undo alone.
        let own = self
            .admin(&format!("SELECT datallowconn, pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{name}'"));
        format!("{}\n{own}", content.join("\n"))
    }

    fn at_server(&self) -> Option<usize> {
        Some(self.kept().len())
    }
}

/// The same by a role that may not create databases: restored in one transaction, kept as a dump.
struct Alone {
    shop: Shop,
    role: String,
}

impl Alone {
    fn new() -> Self {
        let shop = Shop::new();
        let role = format!("alone_{}", shop.database.name);
        shop.admin(&format!("CREATE ROLE {role} LOGIN PASSWORD 'alone'"));
        shop.admin(&format!("ALTER DATABASE {} OWNER TO {role}", shop.database.name));
        for thing in ["TABLE a", "TABLE b", "VIEW v"] {
            shop.database.sql(&format!("ALTER {thing} OWNER TO {role}"));
        }
        Self { shop, role }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // The role goes last, and its database goes with `shop`: so that one becomes somebody else's.
        for kept in self.shop.kept() {
            self.shop.admin(&format!("DROP DATABASE \"{kept}\" WITH (FORCE)"));
        }
        self.shop.admin(&format!("ALTER DATABASE {} OWNER TO CURRENT_USER", self.shop.database.name));
        self.shop.database.sql(&format!("DROP OWNED BY {} CASCADE", self.role));
        self.shop.admin(&format!("DROP ROLE {}", self.role));
    }
}

impl Bench for Alone {
    fn table(&self) -> String {
        let tools = from_runner("VOXELTRON_TEST_POSTGRES_BIN");
        let (_, place) = self.shop.database.url.rsplit_once('@').unwrap();
        let url = format!("postgres://{}:alone@{place}", self.role);
        lines(&[("engine", "postgres"), ("url", &url), ("tools_dir", &tools)])
    }

    fn change(&self) {
        let number = self.shop.changes.fetch_add(1, Ordering::SeqCst) + 1;
        self.shop.database.sql(&format!(
            "SET SESSION AUTHORIZATION {}; CREATE SCHEMA later{number}; CREATE TABLE later{number}.t (i int);
             INSERT INTO later{number}.t VALUES ({number}); DELETE FROM a WHERE i > {}; DROP VIEW IF EXISTS v;
             ALTER TABLE b ADD COLUMN x{number} text DEFAULT 'é'; COMMENT ON TABLE b IS '{number}'",
            self.role,
            2000 - number,
        ));
    }

    fn all(&self) -> String {
        self.shop.all()
    }

    fn drills(&self) -> bool {
        false
    }

    fn at_server(&self) -> Option<usize> {
        assert_eq!(self.shop.kept(), Vec::<String>::new());
        None
    }
}

/// One transaction is the way there and back, which a dry run tells; and whatever becomes of the role meanwhile, what is kept
/// comes back or stays.
#[test]
fn postgres_without_createdb_tells_the_way_and_heeds_what_the_role_may() {
    let alone = Alone::new();
    let may = |word: &str| alone.shop.admin(&format!("ALTER ROLE {} {word}", alone.role));
    let first = alone.all();
    let way = crate::Way::new(&alone, "");
    alone.change();
    let changed = alone.all();
    way.restore();
    let plan = way.quietly(&["restore", "shop", "--undo", "--dry-run"]).stdout;
    assert!(plan.contains("one transaction of") && !plan.contains("CREATE DATABASE"), "{plan}");

    // A dump that was kept comes back through a scratch, once the role may make one; then the database itself is kept.
    may("CREATEDB");
    crate::same(&alone.all(), &first);
    way.undo();
    crate::same(&alone.all(), &changed);
    let kept = alone.shop.kept();
    assert_eq!((kept.len(), way.dumps()), (1, 0));
    // And that one stays where it is as long as the role may not rename it.
    may("NOCREATEDB");
    let refused =
        way.sandbox.command(&["restore", "shop", "--undo", "--yes"]).exits(13).stdout_any().stderr_any().run().stderr;
    assert!(refused.contains("may not create databases") && refused.contains("CREATEDB"), "{refused}");
    crate::same(&alone.all(), &changed);
    assert_eq!(alone.shop.kept(), kept);
    may("CREATEDB");
    way.undo();
    crate::same(&alone.all(), &first);
}

#[test]
fn postgres_without_createdb_there_and_back() {
    crate::there_and_back(&Alone::new());
}

#[test]
fn postgres_without_createdb_parts() {
    crate::parts(&Alone::new(), None, Some("--exclude-table-data=a"));
}

#[test]
fn postgres_without_createdb_killed() {
    crate::killed(&Alone::new(), 6);
}

#[test]
fn postgres_there_and_back() {
    crate::there_and_back(&Shop::new());
}

#[test]
fn postgres_dropped_in_time() {
    crate::dropped_in_time(&Shop::new());
}

#[test]
fn postgres_killed() {
    crate::killed(&Shop::new(), 6);
}
