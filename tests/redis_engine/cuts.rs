//! Connections that are reset anywhere in a restore: the server holds the old or the new data, never a mixture, and the next
//! restore leaves everything in order.
//!
//! `VOXELTRON_TEST_LONG=1` makes it 20 points, and 50 of the tests that kill.

use std::time::Duration;

use crate::accidents::Much;
use crate::cutter::{Cut, Cutter, points};
use crate::on;
use crate::support::Which;

on!(
    redis7 Redis7: cut_at_any_point, cut_at_any_point_key_by_key, cut_at_what_depends_on_the_session,
        a_slow_answer_that_is_cut_is_none;
    valkey8 Valkey8: cut_at_any_point, cut_at_any_point_key_by_key, cut_at_what_depends_on_the_session,
        a_slow_answer_that_is_cut_is_none;
);

/// Has the program reach the server through a cutter.
fn cutter(much: &Much) -> Cutter {
    let cutter = Cutter::new(&format!("127.0.0.1:{}", much.server.port));
    let path = much.folder.path().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let through = config.replace(&format!("127.0.0.1:{}\"", much.server.port), &format!("127.0.0.1:{}\"", cutter.port));
    assert_ne!(through, config);
    std::fs::write(&path, through).unwrap();
    cutter
}

/// One restore that is cut there, and a second one; gives what the server held in between.
fn cut(much: &Much, cutter: &Cutter, cut: &Cut, refuses: Duration) -> &'static str {
    much.make_old();
    cutter.arm(cut.clone(), refuses);
    let output = much.restore().output().unwrap();
    let was_cut = cutter.happened();
    cutter.open();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for _ in 0..3000 {
        if !much.server.cli(&["INFO", "persistence"]).contains("loading:1") {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seen = much.digest();
    assert!(seen == much.old || seen == much.new, "{cut:?}, {refuses:?}: {seen}\n{said}");
    assert!(!output.status.success() || seen == much.new, "{cut:?}, {refuses:?}: {said}");
    assert!(output.status.success() || said.contains("hint: "), "{cut:?}, {refuses:?}: {said}");
    much.again();
    match (was_cut, seen == much.new) {
        (false, _) => "not cut",
        (true, true) => "new",
        (true, false) => "old",
    }
}

fn at_points(much: &Much) {
    let cutter = cutter(much);
    cutter.arm(Cut::Never, Duration::ZERO);
    much.make_old();
    much.again();
    let whole = cutter.passed();
    let count = u64::from(points(4, 20));
    let outcomes: Vec<_> = (0..count)
        .map(|point| {
            // Now and then up to the end of the run.
            let refuses = [0, 300, 0, 60_000][usize::try_from(point).unwrap() % 4];
            let at = Cut::Bytes(whole * (2 * point + 1) / (2 * count));
            cut(much, &cutter, &at, Duration::from_millis(refuses))
        })
        .collect();
    println!("{count} cuts over {whole} bytes: {outcomes:?}");
    assert!(outcomes.contains(&"old"), "{outcomes:?}");
}

fn cut_at_any_point(which: Which) {
    at_points(&Much::new(which, false, "masterauth secret\nrepl-diskless-load on-empty-db"));
}

fn cut_at_any_point_key_by_key(which: Which) {
    at_points(&Much::new(which, true, ""));
}

/// The client of the server connects again by itself, says again what had no answer, and goes on with the next: what then
/// would act without the transaction or in another database.
fn cut_at_what_depends_on_the_session(which: Which) {
    let much = Much::new(which, true, "");
    let cutter = cutter(&much);
    let mut outcomes = Vec::new();
    // The marks, the exchange, and what empties a database; each with the answer lost, and each once more at the next time.
    let [most, some] = [points(2, 6), points(1, 6)].map(u64::from);
    for (words, times) in [("MULTI", most), ("EXEC", most), ("SWAPDB", 1), ("FLUSHDB", 1), ("\r\nnew ", some)] {
        for time in 1..=times {
            outcomes.push(format!("{words} {}", cut(&much, &cutter, &Cut::Heard(words, time), Duration::ZERO)));
        }
    }
    println!("{outcomes:?}");
    for sure in ["SWAPDB new", "FLUSHDB new"] {
        assert!(outcomes.iter().any(|outcome| outcome == sure), "{outcomes:?}");
    }
}

/// The client tells how long an answer took that was slow, also when there was none; twice, for some ask again by themselves.
fn a_slow_answer_that_is_cut_is_none(which: Which) {
    let much = Much::of(1000, which, false, "");
    let cutter = cutter(&much);
    for (words, time) in
        [("GET\r\n$10\r\nmasterauth\r\n", 3), ("SET\r\n$10\r\nmasterauth\r\n", 2), ("REPLICAOF\r\n$2\r\nNO\r\n", 1)]
    {
        much.make_old();
        cutter.arm(Cut::Lost(words, time), Duration::ZERO);
        let output = much.restore().output().unwrap();
        let was_cut = cutter.happened();
        cutter.open();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        assert_eq!(much.server.settings(), much.settings, "{words:?}: {said}");
        assert!(much.server.cli(&["ROLE"]).starts_with("master"), "{words:?}: {said}");
        assert_eq!((much.digest(), was_cut), (much.new.clone(), true), "{words:?}: {said}");
        much.again();
    }
}
