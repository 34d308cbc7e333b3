//! Connections that are reset anywhere in a restore: the database is the old or the new one, never a mixture, nothing is
//! left, and the next restore succeeds. `VOXELTRON_TEST_LONG=1` makes it 20 points, and more of the test that kills.

use crate::cutter::{Cut, Cutter, points};

use super::*;

#[test]
fn a_connection_that_is_cut_leaves_old_or_new() {
    let db = Database::small("cutting");
    let (bytes, findings) = db.backup();
    let restored = db.all();
    let (start, server) = db.server.base.rsplit_once('@').unwrap();
    let cutter = Cutter::new(server);
    let url = format!("{start}@127.0.0.1:{}/{}", cutter.port, percent(&db.name));
    let through = open(Settings { url: Secret::new(url), ..settings(&db.server, &db.name) });
    // The less of two: whoever has to look twice on a busy machine sends more.
    let whole = || {
        cutter.arm(Cut::Never, Duration::ZERO);
        restore(through.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        cutter.passed()
    };
    let (whole, count) = (whole().min(whole()), u64::from(points(4, 20)));
    let mut cuts: Vec<_> = (0..count).map(|point| Cut::Bytes(whole * (2 * point + 1) / (2 * count))).collect();
    // Where an answer that is lost matters: whether the scratch was made, whether it has taken its place, what is kept.
    cuts.extend(["CREATE DATABASE", "COMMIT;", "RENAME TO", "DROP DATABASE"].map(|words| Cut::Heard(words, 1)));
    let mut outcomes = Vec::new();
    for (number, cut) in cuts.into_iter().enumerate() {
        db.sql("INSERT INTO b VALUES (4)");
        let changed = db.all();
        cutter.arm(cut.clone(), Duration::from_millis([0, 1000][number % 2]));
        let outcome = restore(through.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
        assert!(cutter.happened(), "{cut:?}");
        cutter.open();
        let now = db.all();
        assert!(now == changed || now == restored, "{cut:?}: {outcome:?}");
        match &outcome {
            Ok(_) => assert_eq!(now, restored, "{cut:?}"),
            Err(error) => assert!(error.hint.is_some(), "{cut:?}: {error:?}"),
        }
        // The server is there again within the patience of whoever cleans up.
        assert_eq!(db.server.leftovers(&db.name), Vec::<String>::new(), "{cut:?}: {outcome:?}");
        outcomes.push((cut, now == restored, outcome.is_ok()));
        restore(through.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        assert_eq!(db.all(), restored);
        db.assert_nothing_left();
    }
    let of = |words| outcomes.iter().find(|(cut, ..)| *cut == Cut::Heard(words, 1)).map(|(_, new, ok)| (*new, *ok));
    assert_eq!(
        of("COMMIT;"),
        Some((true, true)),
        "what is committed is seen, though the answer was lost: {outcomes:?}"
    );
    assert_eq!(of("RENAME TO"), Some((true, true)), "what was not is done again: {outcomes:?}");
    assert!(outcomes.iter().any(|(_, new, _)| !new), "{outcomes:?}");
}

#[test]
fn a_scratch_without_a_mark_goes_if_it_is_empty() {
    let db = Database::small("unmarked");
    let (bytes, findings) = db.backup();
    let [empty, full] = ["0123abcd", "ffffffff"].map(|end| format!("{}__restoring_{end}", db.name));
    for name in [&empty, &full] {
        db.server.admin(&format!("CREATE DATABASE {} TEMPLATE template0", ident(name)));
    }
    db.server.sql(&full, "CREATE TABLE mine (i int)");
    let restored = restore(db.engine().as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
    let left = db.server.leftovers(&db.name);
    for name in [&empty, &full] {
        db.server.admin(&format!("DROP DATABASE IF EXISTS {}", ident(name)));
    }
    assert_eq!(left, [full]);
    assert_eq!(restored.unwrap().notes, [format!("dropped {empty}, which an interrupted restore had left")]);
}
