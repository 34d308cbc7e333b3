//! An application that makes its tables where it finds none, in the middle of an exchange: they stand in nobody's way, and the
//! restored ones get their names.

use super::*;

/// A client in `folder` that does what stands in the file `before.N` there, if there is one, when all before the RENAME of that
/// number is done: all those of the exchange are counted, from 1 on.
fn client(db: &Database, folder: &Path) -> Box<dyn Engine> {
    let real = db.server.tools.as_ref().map_or("mysql".to_owned(), |folder| folder.join("mysql").display().to_string());
    script(
        &folder.join(if db.server.maria { "mariadb" } else { "mysql" }),
        &format!(
            "[ \"$1\" = --version ] && exec {real} --version\n\
             read -r a\n\
             case \"$a\" in 'SET SESSION sql_mode'*) ;; *) {{ printf '%s\\n' \"$a\"; cat; }} | {real} \"$@\"; exit $?;; esac\n\
             read -r b; read -r c; read -r d\n\
             case \"$d\" in *\"GET_LOCK('voxeltron-swap\"*) ;; *)\n\
             {{ printf '%s\\n' \"$a\" \"$b\" \"$c\" \"$d\"; cat; }} | {real} \"$@\"; exit $?;; esac\n\
             cd {dir}; begin() {{ printf '%s\\n' \"$a\" \"$b\" \"$c\" > part; }}; begin\n\
             while IFS= read -r line; do\n\
             case \"$line\" in *'RENAME TABLE '*)\n\
             echo >> renames; number=$(($(wc -l < renames)))\n\
             if [ -e before.$number ]; then\n\
             {real} \"$@\" < part || exit 1\n\
             {real} \"$@\" < before.$number || exit 1\n\
             begin; fi;; esac\n\
             printf '%s\\n' \"$line\" >> part\n\
             done\n\
             exec {real} \"$@\" < part",
            dir = folder.display()
        ),
    );
    open(Settings { tools_dir: Some(folder.into()), ..settings(&db.server, &db.name) })
}

fn is_told(notes: &[String], table: &str) -> bool {
    notes.iter().any(|note| note.starts_with(&format!("others made a table {table} while the exchange had none")))
}

fn changed(server: Server, label: &str) -> (Database, Vec<u8>, Findings, String) {
    let db = Database::small(server, label, true);
    db.sql("CREATE TABLE c (i INT, CONSTRAINT its FOREIGN KEY (i) REFERENCES a (i)); INSERT INTO c VALUES (1)");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    db.sql(
        "INSERT INTO b VALUES (4); ALTER TABLE c DROP FOREIGN KEY its;
         ALTER TABLE c ADD CONSTRAINT other FOREIGN KEY (i) REFERENCES a (i)",
    );
    (db, bytes, findings, restored)
}

pub fn what_others_make_in_an_exchange_stands_in_nobodys_way(server: Server) {
    let (db, bytes, findings, restored) = changed(server, "strangers");
    let folder = tempfile::tempdir().unwrap();
    let engine = client(&db, folder.path());
    let both = |key: &str| {
        format!(
            "CREATE TABLE a (i INT PRIMARY KEY); CREATE TABLE c (i INT, CONSTRAINT {key} FOREIGN KEY (i) REFERENCES a (i));
             INSERT INTO a VALUES (7); INSERT INTO c VALUES (7);\n"
        )
    };
    let before =
        |number: u32, what: &str| std::fs::write(folder.path().join(format!("before.{number}")), what).unwrap();
    // When the live tables are away: the new ones can't come, for one has a key of that name. Then when the new ones are to
    // get their names, with a key that one of the replaced has.
    before(2, &both("its"));
    before(5, &both("other"));
    let told = restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap().notes;
    assert!(told.len() == 2 && is_told(&told, "a") && is_told(&told, "c"), "{told:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("renames")).unwrap().len(), 6);
    similar(&restored, &db.all());
    db.assert_nothing_left();
    // And views.
    db.sql("INSERT INTO b VALUES (4)");
    let folder = tempfile::tempdir().unwrap();
    let engine = client(&db, folder.path());
    std::fs::write(folder.path().join("before.3"), "CREATE VIEW b AS SELECT 1 AS i;\n").unwrap();
    restore(engine.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    similar(&restored, &db.all());
    db.assert_nothing_left();
    dump(db.engine().as_ref()).unwrap();
}

pub fn what_others_make_after_a_restore_died_stands_in_nobodys_way(server: Server) {
    let (db, bytes, findings, restored) = changed(server, "strangers after");
    let mut met = 0;
    for keep in 2..14 {
        db.sql("INSERT INTO b VALUES (4)");
        unfinished::dies(&db, &bytes, keep, "none");
        // As an application does.
        let missing = db.server.try_sql(&db.name, "INSERT INTO b VALUES (5)").is_err();
        db.sql("CREATE TABLE IF NOT EXISTS b (i INT); INSERT INTO b VALUES (5)");
        let told =
            restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap().notes;
        assert_eq!(is_told(&told, "b"), missing, "kept {keep}: {told:?}");
        met += usize::from(missing);
        similar(&restored, &db.all());
        db.assert_nothing_left();
    }
    assert!(met > 3, "{met}");
}
