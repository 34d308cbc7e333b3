//! Views of a schema whose name one of its tables has, or an alias, or a table of another schema: the same bytes then stand for
//! either, and only their place tells which.

use super::*;

/// Two schemas that are called like tables of each other. Without a space in their names: MariaDB shows that of a WITH without
/// quotes.
fn alike(server: Server) -> (Database, Database) {
    let make = |label: &str| {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("vx{}_{number}_{label}", std::process::id());
        server.admin(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        Database { server: server.clone(), name }
    };
    let (shop, other) = (make("shop"), make("other"));
    let (s, o) = (&shop.name, &other.name);
    other.sql(&format!(
        "CREATE TABLE {s} (id INT, x INT); INSERT INTO {s} VALUES (1, 100), (3, 300);
         CREATE TABLE t (id INT, shop_id INT); INSERT INTO t VALUES (1, 1), (2, 3);"
    ));
    shop.sql(&format!(
        "CREATE TABLE {s} (id INT, x INT, d DATE); INSERT INTO {s} VALUES (1, 10, '2020-01-11'), (2, 20, '2020-01-12'), (3, 30, '2020-01-13');
         CREATE TABLE orders (id INT, shop_id INT); INSERT INTO orders VALUES (7, 1), (8, 3);
         CREATE TABLE {o} (id INT, x INT); INSERT INTO {o} VALUES (5, 50);
         CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + 1000;
         CREATE FUNCTION {s}(x INT) RETURNS INT DETERMINISTIC RETURN x + 2000;
         CREATE FUNCTION abs(x INT) RETURNS INT DETERMINISTIC RETURN 4711;"
    ));
    (shop, other)
}

/// Views by what is hard about them.
fn views(shop: &Database, other: &Database) -> Vec<(&'static str, String)> {
    let (s, o) = (&shop.name, &other.name);
    let mut views = vec![
        ("joined", format!("SELECT orders.id, {s}.x FROM {s} JOIN orders ON orders.shop_id = {s}.id")),
        ("below", format!("SELECT id FROM {s} WHERE EXISTS (SELECT 1 FROM orders WHERE orders.shop_id = {s}.id)")),
        ("alias", format!("SELECT {s}.id FROM orders {s} WHERE {s}.shop_id = 3")),
        ("elsewhere", format!("SELECT {s}.x FROM {o}.{s}")),
        (
            "alias_elsewhere",
            format!("SELECT {s}.shop_id, orders.id FROM {o}.t {s} JOIN orders ON orders.shop_id = {s}.shop_id"),
        ),
        ("two_schemas", format!("SELECT a.x, b.x AS y FROM {o}.{s} a JOIN {s} b ON a.id = b.id")),
        ("called_like_other", format!("SELECT {o}.x, {s}.d FROM {o} JOIN {s} ON {s}.id < {o}.id")),
        ("derived", format!("SELECT {s}.q, t.id FROM (SELECT id AS q FROM orders) {s} JOIN {o}.t ON t.id < {s}.q")),
        (
            "cte",
            format!("WITH {s} AS (SELECT id AS q FROM orders) SELECT {s}.q, t.id FROM {s} JOIN {o}.t ON t.id < {s}.q"),
        ),
        ("functions", format!("SELECT f({s}.id) AS a, {s}.f({s}.x) AS b, {s}.{s}(1) AS c, {s}.abs(-1) AS d FROM {s}")),
        ("functions_elsewhere", format!("SELECT {s}.f(t.id) AS a, {s}.{s}(t.id) AS b FROM {o}.t")),
        ("from_no_table", format!("SELECT EXTRACT(DAY FROM {s}.d) AS a, TRIM(LEADING '1' FROM {s}.x) AS b FROM {s}")),
        (
            "hinted",
            format!("SELECT STRAIGHT_JOIN {s}.id, t.id AS i FROM {s} STRAIGHT_JOIN {o}.t ON t.shop_id = {s}.id"),
        ),
        (
            "nested",
            format!(
                "SELECT {s}.id FROM orders LEFT JOIN ({s} LEFT JOIN {o}.t ON t.id = {s}.id) ON {s}.id = orders.shop_id"
            ),
        ),
        ("quoted", format!("SELECT '`{s}`.\\'`{s}`.`x`' AS `{s}`, \"`{s}`.`f`(\" AS b, {s}.id FROM {s}")),
        ("ored", format!("SELECT {s}.id FROM {s} UNION SELECT {s}.x FROM {o}.{s}")),
        ("sorted", format!("SELECT id, x FROM {s} GROUP BY {s}.id, {s}.x ORDER BY {s}.x DESC, {s}.id")),
    ];
    if shop.server.maria {
        // MySQL shows both tables without a schema here, and can't take its own text back.
        views.push((
            "two_of_a_name",
            format!("SELECT {o}.{s}.x, {s}.{s}.id FROM {o}.{s} JOIN {s}.{s} ON {o}.{s}.id = {s}.{s}.id"),
        ));
        views.push(("sequence", format!("SELECT NEXT VALUE FOR sq AS n, LASTVAL({s}.sq) AS l, {s}.id FROM {s}")));
    }
    views
}

pub fn names_that_schema_and_table_share_are_told_apart(server: Server) {
    let (shop, other) = alike(server);
    if shop.server.maria {
        shop.sql("CREATE SEQUENCE sq");
    }
    let views = views(&shop, &other);
    for (name, query) in &views {
        shop.sql(&format!("CREATE VIEW {name} AS {query}"));
    }
    // MariaDB names the schema in columns then, and not in FROM. Nobody may read it.
    shop.sql(&format!(
        "CREATE DEFINER=`nobody`@`nowhere` VIEW orphan AS
         SELECT {0}.id, (SELECT MAX({0}.id) FROM orders {0}) AS m, {0}.f(o.id) AS f FROM {0} JOIN orders o ON o.shop_id = {0}.id",
        shop.name
    ));
    let names: Vec<&str> = views.iter().map(|(name, _)| *name).filter(|name| *name != "sequence").collect();
    let shown = |db: &Database| {
        let script: String = names.iter().map(|name| format!("SELECT '{name}', v.* FROM {name} v;\n")).collect();
        let text = db.sql(&script);
        let mut rows: Vec<&str> = text.lines().collect();
        rows.sort_unstable();
        rows.join("\n")
    };
    let (before, rows) = (shop.all(), shown(&shop));
    let (bytes, findings) = shop.backup();
    // Views that are there, views that differ, views that are not there.
    for change in ["DELETE FROM orders", "CREATE OR REPLACE VIEW below AS SELECT 1 AS id", "all"] {
        let drop = |name: &&str| format!("DROP VIEW {name};");
        shop.sql(&if change == "all" { names.iter().map(drop).collect() } else { change.to_owned() });
        let restored = restore(shop.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
        assert_eq!(restored.unwrap().notes, Vec::<String>::new(), "{change}");
        similar(&before, &shop.all());
        similar(&rows, &shown(&shop));
        shop.assert_nothing_left();
    }

    let copy = Database::empty(shop.server.clone(), "copy");
    shop.server.admin(&format!("DROP DATABASE {}", ident(&copy.name)));
    let into = Destination::Into(copy.name.clone());
    restore(shop.engine().as_ref(), Cursor::new(&bytes), into, &findings.counts).unwrap();
    similar(&rows, &shown(&copy));
    let copied = definitions(&copy.server, &copy.name).replace(&ident(&copy.name), &ident(&shop.name));
    similar(&definitions(&shop.server, &shop.name), &copied);

    // With nothing there that a view could have found by mistake.
    shop.server.admin(&format!("DROP DATABASE {0}; CREATE DATABASE {0}", shop.name));
    let checks = [check("SELECT * FROM below ORDER BY id", "1\n3"), check("SELECT SUM(x) FROM elsewhere", "400")];
    drill(&shop, &bytes, &findings.counts, &checks).unwrap();
    restore(shop.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    similar(&rows, &shown(&shop));
}
