//! Connections that are reset anywhere in a restore: the schema is the old or the new one, never a mixture, nothing is left,
//! and the next restore succeeds. `VOXELTRON_TEST_LONG=1` makes it 20 points, and 50 of the test that kills.

use crate::cutter::{Cut, Cutter, points};

use super::*;

pub fn a_connection_that_is_cut_leaves_old_or_new(server: Server) {
    let db = Database::small(server, "cutting", true);
    let (bytes, findings) = db.backup();
    let restored = db.all();
    let cutter = Cutter::new(&format!("{}:{}", db.server.host, db.server.port));
    let url = db.server.url(&db.name).replace(&format!(":{}/", db.server.port), &format!(":{}/", cutter.port));
    let through = open(Settings { url: Secret::new(url), ..settings(&db.server, &db.name) });
    cutter.arm(Cut::Never, Duration::ZERO);
    restore(through.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
    let (whole, count) = (cutter.passed(), u64::from(points(6, 20)));
    let mut outcomes = Vec::new();
    for point in 0..count {
        db.sql("INSERT INTO b VALUES (4)");
        let changed = db.all();
        let refuses = Duration::from_millis([0, 1000][usize::try_from(point % 2).unwrap()]);
        cutter.arm(Cut::Bytes(whole * (2 * point + 1) / (2 * count)), refuses);
        let outcome = restore(through.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts);
        cutter.open();
        let now = db.all();
        if now != changed {
            similar(&restored, &now);
        }
        match &outcome {
            Ok(_) => similar(&restored, &now),
            Err(error) => assert!(error.hint.is_some(), "{point}: {error:?}"),
        }
        // The server is there again within the patience of whoever cleans up.
        db.assert_nothing_left();
        outcomes.push((now != changed, outcome.is_ok()));
        restore(through.as_ref(), Cursor::new(&bytes), Destination::InPlace, &findings.counts).unwrap();
        similar(&restored, &db.all());
        db.assert_nothing_left();
    }
    assert!(outcomes.contains(&(false, false)), "{outcomes:?}");
}
