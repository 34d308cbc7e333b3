//! MySQL's libraries, code in JavaScript or WebAssembly that routines use: what stands in them is text, whatever it looks like.

use super::*;

/// A schema whose libraries hold what looks like other things: functions, ends of statements, open quotes.
fn with_libraries(label: &str) -> Database {
    let db = Database::small(Server::mysql(), label, true);
    db.sql(
        "DELIMITER //
         CREATE LIBRARY lib1 COMMENT 'a `view` it''s' LANGUAGE JAVASCRIPT AS $$ export function f(){return 1} $$//
         CREATE LIBRARY lib2 LANGUAGE JAVASCRIPT AS $x$ export const f = (a) => a $x$//
         CREATE LIBRARY `l``3` LANGUAGE JAVASCRIPT AS $x$ // it's \" `
             const a = '$$;;'; /* ; \\ $x
DELIMITER ;
             */ /*!50003 CREATE TABLE x (i int) $x$//
         CREATE LIBRARY gcd LANGUAGE JAVASCRIPT AS 'export function gcd(a, b) {return a}'//
         CREATE LIBRARY wasm LANGUAGE WASM AS x'0061736d01000000'//
         CREATE LIBRARY `empty` LANGUAGE JAVASCRIPT AS ''//
         CREATE LIBRARY dollar LANGUAGE JAVASCRIPT AS 'const a = 1 // $'//
         CREATE FUNCTION gcd(a INT, b INT) RETURNS INT DETERMINISTIC RETURN a + b//
         CREATE FUNCTION uses(a INT) RETURNS INT DETERMINISTIC LANGUAGE JAVASCRIPT USING (lib1 AS x, lib2 AS y, `l``3`) AS $$ return x.f(a) // it's
         $$//
         CREATE PROCEDURE uses(a INT) LANGUAGE JAVASCRIPT USING (gcd) COMMENT 'USING (`s`.`t`)' AS $$ let x = `t` $$//",
    );
    db
}

/// All libraries and routines, as the server shows them.
fn code(db: &Database) -> String {
    let kinds = |table: &str, kind: &str, name: &str, schema: &str| {
        format!(
            "SELECT CONCAT('SHOW CREATE ', {kind}, ' `', REPLACE({name}, '`', '``'), '`;') FROM information_schema.{table}
             WHERE {schema} = DATABASE() ORDER BY {kind}, {name};"
        )
    };
    let libraries = kinds("LIBRARIES", "'LIBRARY'", "LIBRARY_NAME", "LIBRARY_SCHEMA");
    let routines = kinds("ROUTINES", "ROUTINE_TYPE", "ROUTINE_NAME", "ROUTINE_SCHEMA");
    let [libraries, routines] = [libraries, routines].map(|sql| db.sql(&sql));
    db.sql(&format!("{libraries}\n{routines}"))
}

/// Restores in place, and looks that all is as it was.
#[track_caller]
fn restores(db: &Database, (bytes, findings): &(Vec<u8>, Findings), all: &str, shown: &str) {
    restore(db.engine().as_ref(), Cursor::new(bytes), Destination::InPlace, &findings.counts).unwrap();
    similar(all, &db.all());
    similar(shown, &code(db));
    db.assert_nothing_left();
}

#[test]
fn they_come_back_as_they_were() {
    let db = with_libraries("li`braries");
    let (all, shown) = (db.all(), code(&db));
    for part in [" export function f(){return 1} ", "0x0061736D01000000", ".`lib1` AS `x`, "] {
        assert!(shown.contains(part), "{shown}");
    }
    let backup = db.backup();
    // What differs is made anew, the tables being away or not.
    for (at, change) in [
        "DROP TRIGGER tr; CREATE TRIGGER tr BEFORE INSERT ON b FOR EACH ROW SET NEW.i = 1",
        "DROP LIBRARY lib1; CREATE LIBRARY lib1 LANGUAGE JAVASCRIPT AS 'export function f(){return 2}'; CREATE VIEW w AS SELECT i FROM b",
        "CREATE LIBRARY more LANGUAGE JAVASCRIPT AS 'const function = 1'; CREATE PROCEDURE more() LANGUAGE JAVASCRIPT USING (more) AS ''",
        "DROP FUNCTION uses; CREATE FUNCTION uses(a INT) RETURNS INT DETERMINISTIC LANGUAGE JAVASCRIPT USING (lib1 AS y, lib2 AS x, `l``3`)
         AS $$ return x.f(a) // it's
         $$; DROP TABLE a",
        "DROP LIBRARY wasm; CREATE LIBRARY wasm LANGUAGE WASM AS x'0061736d0100000000'; ALTER LIBRARY gcd COMMENT 'VIEW'",
        "DROP LIBRARY gcd; DROP PROCEDURE uses; DROP FUNCTION gcd; DELETE FROM b",
        "DROP LIBRARY `l``3`; DROP FUNCTION uses; DROP LIBRARY `empty`; DROP LIBRARY lib2",
    ]
    .into_iter()
    .enumerate()
    {
        db.sql(change);
        assert_ne!((at, &all), (at, &db.all()));
        restores(&db, &backup, &all, &shown);
    }
    restores(&db, &backup, &all, &shown);
    // What was dumped of what came back is the same.
    let again = db.backup();
    db.sql("DROP TRIGGER tr");
    restores(&db, &again, &all, &shown);
}

#[test]
fn what_is_the_same_stays_with_its_grants() {
    let db = with_libraries("li grants");
    let backup = db.backup();
    let (all, shown) = (db.all(), code(&db));
    let user = format!("vx_libraries_{}", std::process::id());
    db.server.admin(&format!("CREATE USER {user}@'%'"));
    for what in ["LIBRARY {}.gcd", "LIBRARY {}.wasm", "FUNCTION {}.uses", "PROCEDURE {}.uses", "LIBRARY {}.lib1"] {
        db.server.admin(&format!("GRANT EXECUTE ON {} TO {user}@'%'", what.replace("{}", &ident(&db.name))));
    }
    let grants = || db.server.admin(&format!("SHOW GRANTS FOR {user}@'%'"));
    let given = grants();
    db.sql("DELETE FROM b; DROP TRIGGER tr");
    restores(&db, &backup, &all, &shown);
    let same = grants();
    db.sql("DROP LIBRARY lib1; CREATE LIBRARY lib1 LANGUAGE JAVASCRIPT AS 'const a = 1'");
    restores(&db, &backup, &all, &shown);
    let other = grants();
    db.server.admin(&format!("DROP USER {user}@'%'"));
    similar(&given, &same);
    assert!(given.contains(".`lib1`") && given.lines().count() == 6, "{given}");
    assert!(!other.contains(".`lib1`") && other.lines().count() == 5, "{other}");
}

#[test]
fn a_copy_uses_its_own() {
    let db = with_libraries("li copy");
    let (bytes, findings) = db.backup();
    let shown = code(&db);
    let copy = Database { server: db.server.clone(), name: format!("{} 2", db.name) };
    let engine = db.engine();
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::Into(copy.name.clone()), &findings.counts).unwrap();
    let own = |name: &str| format!("({}.`lib1` AS `x`", ident(name));
    assert!(shown.contains(&own(&db.name)), "{shown}");
    similar(&shown.replace(&ident(&db.name), &ident(&copy.name)), &code(&copy));
    // Nothing of the original is there to be used.
    db.sql(&format!("DROP DATABASE {}", ident(&db.name)));
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::Drill, &findings.counts).unwrap();
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    similar(&shown, &code(&db));
    db.assert_nothing_left();
}

#[test]
fn who_may_not_see_them_is_told() {
    let db = Database::small(Server::mysql(), "li rights", false);
    db.sql("CREATE LIBRARY lib1 LANGUAGE JAVASCRIPT AS 'const a = 1'");
    let user = format!("vx_unseeing_{}", std::process::id());
    db.server.admin(&format!(
        "CREATE USER {user}@'%' IDENTIFIED BY 'poor'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON {}.* TO {user}@'%'",
        ident(&db.name)
    ));
    let url = db.server.url(&db.name);
    let url = Secret::new(format!("mysql://{user}:poor@{}", url.rsplit_once('@').unwrap().1));
    let engine = open(Settings { url, ..settings(&db.server, &db.name) });
    let told = engine.probe(&cx());
    let hint = told.as_ref().err().and_then(|error| error.hint.clone()).unwrap_or_default();
    let seen = db.server.try_sql("mysql", &hint).map(|_| dump(engine.as_ref()));
    db.server.admin(&format!("DROP USER {user}@'%'"));
    let told = told.expect_err("it can't see them");
    assert!(told.message.contains("lacks the right to see routines"), "{told:?}");
    let (bytes, _) = seen.unwrap_or_else(|error| panic!("{hint}: {error}")).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("CREATE LIBRARY `lib1`"));
}

#[test]
fn a_tool_that_is_older_than_they_are_makes_no_backup() {
    let db = Database::small(Server::mysql(), "li old", false);
    let folder = tempfile::tempdir().unwrap();
    let real = db.server.tools.clone().unwrap().display().to_string();
    script(&folder.path().join("mysql"), &format!("exec {real}/mysql \"$@\""));
    let version = "mysqldump  Ver 9.1.0 for Linux on x86_64 (MySQL Community Server - GPL)";
    script(
        &folder.path().join("mysqldump"),
        &format!("case \"$1\" in --version) echo '{version}';; *) exec {real}/mysqldump \"$@\";; esac"),
    );
    let engine = open(Settings { tools_dir: Some(folder.path().into()), ..settings(&db.server, &db.name) });
    dump(engine.as_ref()).unwrap();
    db.sql("CREATE LIBRARY lib1 LANGUAGE JAVASCRIPT AS 'const a = 1'");
    for error in [engine.probe(&cx()).expect_err("check"), dump(engine.as_ref()).expect_err("backup")] {
        assert!(error.message.contains("9.1.0 leaves out libraries, and the database has some: lib1"), "{error:?}");
        assert!(error.hint.is_some_and(|hint| hint.starts_with("install the client tools of ")), "{}", error.message);
    }
}
