//! Views that stand on code of others: of users that are not there, and of such as lack a right.

use super::*;

/// Three views whose text is the server's, and what all of them stand on is `user`'s.
fn with_code_of(user: &str, server: Server, label: &str) -> Database {
    let db = Database::small(server, label, true);
    db.server.admin(&format!("CREATE USER {user}; GRANT ALL ON {}.* TO {user}", ident(&db.name)));
    db.sql(&format!(
        "CREATE DEFINER={user} VIEW its AS SELECT i FROM b; CREATE VIEW on_its AS SELECT i FROM its;
         CREATE DEFINER={user} FUNCTION its_f(x INT) RETURNS INT DETERMINISTIC RETURN x;
         CREATE VIEW on_its_f AS SELECT its_f(i) AS i FROM b; CREATE VIEW upon AS SELECT i FROM on_its_f;
         CREATE VIEW z AS SELECT f(i) AS i FROM a;"
    ));
    db
}

fn user(server: &Server, label: &str) -> String {
    format!("vx_{label}_{}_{}", std::process::id(), server.maria)
}

/// A drill, and what it warns of.
fn drilled(db: &Database, bytes: &[u8], counts: &Counts) -> (Result<Restored>, String) {
    let (cx, request) = (cx(), Request::new(Destination::Drill, counts.clone()));
    let outcome = db.engine().restore(&mut inspected(bytes), &request, &cx);
    db.assert_nothing_left();
    (outcome, cx.report.captured().1)
}

pub fn a_definer_that_is_not_there_is_told_before_anything_changes(server: Server) {
    let user = user(&server, "gone");
    let db = with_code_of(&user, server, "definers");
    let before = db.all();
    let (bytes, findings) = db.backup();
    assert_eq!(drilled(&db, &bytes, &findings.counts).1, "");
    db.server.admin(&format!("DROP USER {user}"));
    db.sql("DROP VIEW its, on_its, on_its_f, upon; DROP FUNCTION its_f; INSERT INTO b VALUES (4)");
    let copy = format!("{} copy", db.name);
    let is_told = |error: Error| {
        let why = format!(
            "the server can't make the views on_its, on_its_f: what they stand on is of users that it does not have: '{user}'@'%'"
        );
        assert!(error.message.ends_with(&why), "{error:?}");
        let hint = error.hint.unwrap();
        assert!(hint.starts_with(&format!("CREATE USER '{user}'@'%' ACCOUNT LOCK; grant ")), "{hint}");
        hint
    };
    let hint = is_told(fails_and_changes_nothing(&db, db.engine().as_ref(), Cursor::new(&bytes), &findings.counts));
    let into = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::Into(copy), &findings.counts);
    is_told(into.expect_err("there is no such user"));
    db.assert_nothing_left();
    // A drill where the database is lives by what a restore lives by; elsewhere nobody is missed.
    is_told(drilled(&db, &bytes, &findings.counts).0.expect_err("there is no such user"));
    db.server.admin(&format!("DROP DATABASE {0}; CREATE DATABASE {0} CHARACTER SET utf8mb4", ident(&db.name)));
    let (outcome, told) = drilled(&db, &bytes, &findings.counts);
    outcome.unwrap();
    assert!(told.contains(&format!("users that it does not have: '{user}'@'%'; a restore here wants")), "{told}");
    // The mend is one.
    db.server.admin(hint.split(';').next().unwrap());
    db.server.admin(&format!("GRANT ALL ON {}.* TO {user}", ident(&db.name)));
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    assert_eq!((restored.notes, restored.missing), Default::default());
    similar(&before, &db.all());
    db.server.admin(&format!("DROP USER {user}"));
}

pub fn a_view_that_is_refused_in_its_place_alone_is_missing(server: Server) {
    let user = user(&server, "poor");
    let db = with_code_of(&user, server, "refused");
    let (bytes, findings) = db.backup();
    db.server.admin(&format!("REVOKE ALL ON {}.* FROM {user}", ident(&db.name)));
    let shown = |what: &str| {
        let text = db.server.admin(&format!(
            "SELECT {what}_NAME FROM information_schema.{what}S WHERE {what}_SCHEMA = {} ORDER BY 1",
            literal(&db.name)
        ));
        text.lines().collect::<Vec<_>>().join(" ")
    };
    // As it is, and where one has died before it made its code.
    for dies in [false, true] {
        db.sql("DROP VIEW IF EXISTS its, on_its, on_its_f, upon, z; DROP EVENT e; INSERT INTO b VALUES (4)");
        if dies {
            unfinished::dies(&db, &bytes, 200, "none");
        }
        let told = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
        let told = told.unwrap();
        assert_eq!(told.missing, ["view on_its", "view on_its_f", "view upon"]);
        let told = told.notes;
        for view in ["on_its", "on_its_f", "upon"] {
            let missing = |note: &&String| note.starts_with(&format!("the view {view} is missing, for its definer"));
            assert_eq!(told.iter().filter(missing).count(), 1 + usize::from(dies), "{told:?}");
        }
        let tables = db.server.admin(&format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} ORDER BY 1",
            literal(&db.name)
        ));
        assert_eq!(tables.lines().collect::<Vec<_>>(), ["a", "b", "its", "v", "z"]);
        assert_eq!((shown("EVENT"), shown("TRIGGER"), shown("ROUTINE")), ("e".into(), "tr".into(), "f its_f".into()));
        db.assert_nothing_left();
        dump(db.engine().as_ref()).unwrap();
    }
    db.server.admin(&format!("DROP USER {user}"));
}
