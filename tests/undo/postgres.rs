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
