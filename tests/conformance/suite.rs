//! The cases. Each takes a place of its own, empty at the start.

use std::io::Read;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{TimeDelta, Utc};
use sha2::{Digest, Sha256};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::target::{Cause, Target};

use super::Place;
use super::common::faults::{FailingBody, StallingBody, Stuttering};
use super::common::proxy::{Fault, Plan};
use super::common::sample::noise;

/// Makes a test of every case for one target.
macro_rules! holds_for {
    ($module:ident, $place:expr) => { $crate::suite::holds_for!(@ $module, $place,
        what_is_put_comes_back
        objects_at_every_edge_of_a_part_come_back
        a_large_object_comes_back_by_its_digest
        a_read_goes_on_where_its_line_broke
        a_read_that_somebody_disturbs_is_whole_or_an_error
        sizes_and_keys_are_right
        bytes_come_through_in_any_portion
        what_exists_is_not_overwritten
        a_race_has_one_winner
        a_body_that_fails_at_its_start_leaves_nothing
        a_body_that_fails_in_its_middle_leaves_nothing
        a_body_that_fails_before_its_end_leaves_nothing
        a_body_that_fails_after_whole_parts_leaves_nothing
        a_failed_put_can_be_repeated
        a_listing_is_in_order
        a_listing_keeps_to_its_prefix
        a_listing_is_complete
        an_empty_target_lists_nothing
        what_is_missing_is_not_found
        deleting_twice_is_success
        what_is_deleted_is_gone_and_can_come_back
        several_are_stored_at_once
        every_allowed_name_works
        a_prefix_of_any_signs_is_a_place_of_its_own
        nothing_climbs_out_of_its_place
        what_is_foreign_is_left_out
        a_visible_object_is_never_partial
        sweeping_takes_only_what_is_old_and_unfinished
        nothing_secret_is_said
    ); };
    (@ $module:ident, $place:expr, $($case:ident)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the place is named as it is where the macro is used")]
            use super::*;
            $(#[test] fn $case() { $crate::suite::$case(&$place); })*
        }
    };
}
pub(crate) use holds_for;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn get(target: &dyn Target, key: &ObjectKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    target.get(key).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn names(target: &dyn Target, prefix: &str) -> Vec<String> {
    target.list(prefix).unwrap().into_iter().map(|stored| stored.key.to_string()).collect()
}

pub fn what_is_put_comes_back(place: &dyn Place) {
    let target = place.target();
    for length in [0, 1, 5 * 1024 * 1024 + 7] {
        let (key, bytes) = (key(&format!("host/shop/{length}")), noise(length));
        target.put(&key, &mut &bytes[..]).unwrap();
        assert!(get(target, &key) == bytes, "{length} bytes");
        assert!(get(target, &key) == bytes, "{length} bytes, again");
    }
    assert_eq!(place.leftovers(), [""; 0]);
}

pub fn objects_at_every_edge_of_a_part_come_back(place: &dyn Place) {
    let (target, part) = (place.target(), place.part());
    for length in [part - 1, part, part + 1, 2 * part, 2 * part + 1] {
        let (key, bytes) = (key(&format!("host/shop/{length}")), noise(length));
        assert_eq!(target.put(&key, &mut &bytes[..]).unwrap().size, length as u64);
        assert!(get(target, &key) == bytes, "{length} bytes");
        assert_eq!(target.list(key.as_str()).unwrap()[0].size, length as u64);
    }
    assert_eq!(place.leftovers(), [""; 0]);
}

/// Bytes without a pattern, made as they are read, and their digest.
struct Generated {
    left: usize,
    state: u64,
    digest: Sha256,
}

impl Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.left);
        for piece in buffer[..count].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            piece.copy_from_slice(&self.state.to_le_bytes()[..piece.len()]);
        }
        self.digest.update(&buffer[..count]);
        self.left -= count;
        Ok(count)
    }
}

pub fn a_large_object_comes_back_by_its_digest(place: &dyn Place) {
    // Nobody holds all of it here; 200 MB in the long form.
    let size = if std::env::var_os("VOXELTRON_TEST_LONG").is_some() { 200_000_000 } else { 48_000_001 };
    let (target, key) = (place.target(), key("host/shop/large"));
    let mut body = Generated { left: size, state: 0x9e37_79b9_7f4a_7c15, digest: Sha256::new() };
    assert_eq!(target.put(&key, &mut body).unwrap().size, size as u64);
    let (mut reader, mut digest, mut buffer) = (target.get(&key).unwrap(), Sha256::new(), vec![0; 1 << 16]);
    let mut length = 0;
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            count => {
                digest.update(&buffer[..count]);
                length += count;
            }
        }
    }
    assert_eq!(length, size);
    assert_eq!(digest.finalize(), body.digest.finalize());
    target.delete(&key).unwrap();
}

/// Of an object that takes several requests, whatever the place asks for at once.
fn in_pieces() -> Vec<u8> {
    noise(2 * (16 << 20) + 5)
}

pub fn a_read_goes_on_where_its_line_broke(place: &dyn Place) {
    // What is read without a line can't break so; what stands for it there is the next case.
    let Some((target, proxy)) = place.by_a_line() else { return };
    let (key, bytes) = (key("host/shop/large"), in_pieces());
    target.put(&key, &mut &bytes[..]).unwrap();
    let read = || {
        let mut got = Vec::new();
        let ended = target.get(&key).map_err(|failure| failure.error.into_io());
        ended.and_then(|mut reader| reader.read_to_end(&mut got)).map(|_| got)
    };
    proxy.set(None);
    assert!(read().unwrap() == bytes);
    let undisturbed = proxy.lines();
    let pieces = undisturbed.len();
    assert!(pieces > 2, "{undisturbed:?}");
    let breaks = [Fault::Cut, Fault::ResetAnswer, Fault::Close, Fault::Error500, Fault::Error503];
    let once = breaks.into_iter().flat_map(|fault| (0..pieces).map(move |at| Plan { at, count: 1, fault }));
    // One that stands still takes its time; and what is asked for again can break, too.
    let more = [(Fault::StallAnswer, 1), (Fault::Cut, 2), (Fault::Error500, 2)];
    for plan in once.chain(more.map(|(fault, count)| Plan { at: 1, count, fault })) {
        proxy.set(Some(plan));
        assert!(read().is_ok_and(|got| got == bytes), "{plan:?}");
        assert_ne!(proxy.lines(), undisturbed, "{plan:?}: it met the fault");
    }
    // A line that stays broken is an error, however much of it has come.
    for fault in [Fault::ResetAnswer, Fault::Close, Fault::Error500] {
        proxy.set(Some(Plan { at: 1, count: usize::MAX / 2, fault }));
        assert!(read().is_err(), "{fault:?} for good");
    }
}

pub fn a_read_that_somebody_disturbs_is_whole_or_an_error(place: &dyn Place) {
    let target = place.target();
    let (key, bytes) = (key("host/shop/large"), in_pieces());
    let disturbances: [&dyn Fn() -> bool; 2] = [
        &|| {
            target.delete(&key).unwrap();
            true
        },
        &|| place.cut(&key, 1_000_000),
    ];
    for (number, disturb) in disturbances.into_iter().enumerate() {
        target.put(&key, &mut &bytes[..]).unwrap();
        let (mut reader, mut got) = (target.get(&key).unwrap(), vec![0; 500_000]);
        reader.read_exact(&mut got).unwrap();
        let happened = disturb();
        // Some of what was there before may have come already.
        let ended = reader.read_to_end(&mut got);
        assert!(bytes.starts_with(&got), "{number}: what came is its beginning");
        match ended {
            Ok(_) => assert!(got == bytes, "{number}: {} of {} bytes, and no error", got.len(), bytes.len()),
            Err(error) => {
                assert!(happened && got.len() < bytes.len(), "{number}: {error}");
                let error = Error::from_io(error, Kind::Other, "read");
                assert_eq!(error.kind, Kind::Target, "{number}: {error:?}");
                assert!(error.message.contains("host/shop/large"), "{number}: {error:?}");
            }
        }
        target.delete(&key).unwrap();
    }
}

pub fn sizes_and_keys_are_right(place: &dyn Place) {
    let target = place.target();
    let before = Utc::now() - TimeDelta::seconds(5);
    for length in [0usize, 1, 300_001] {
        let key = key(&format!("host/shop/{length}"));
        let stored = target.put(&key, &mut &noise(length)[..]).unwrap();
        assert_eq!((&stored.key, stored.size), (&key, length as u64));
        let listed = target.list(key.as_str()).unwrap();
        assert_eq!((&listed[0].key, listed[0].size), (&key, length as u64));
        for modified in [stored.modified, listed[0].modified].into_iter().flatten() {
            assert!(modified >= before && modified <= Utc::now() + TimeDelta::seconds(5), "{modified}");
        }
    }
}

pub fn bytes_come_through_in_any_portion(place: &dyn Place) {
    let target = place.target();
    for at_once in [1, 7, 4096, 1 << 20] {
        let (key, bytes) = (key(&format!("host/shop/{at_once}")), noise(40_001));
        target.put(&key, &mut Stuttering { inner: &bytes[..], at_once, turn: 0 }).unwrap();
        assert!(get(target, &key) == bytes, "{at_once} at once");
    }
}

pub fn what_exists_is_not_overwritten(place: &dyn Place) {
    let (target, key) = (place.target(), key("host/shop/x"));
    target.put(&key, &mut &b"old"[..]).unwrap();
    for new in [&b"new"[..], b"", &noise(3_000_000)] {
        let failure = target.put(&key, &mut &new[..]).unwrap_err();
        assert_eq!(failure.cause, Cause::Exists, "{failure:?}");
        assert_eq!(failure.error.kind, Kind::Target);
        assert_eq!(get(target, &key), b"old");
    }
    assert_eq!(target.list("").unwrap().len(), 1);
    assert_eq!(place.leftovers(), [""; 0]);
}

pub fn a_race_has_one_winner(place: &dyn Place) {
    let target = place.racing();
    for round in 0..10 {
        let key = key(&format!("host/shop/{round}"));
        let start = Barrier::new(8);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u8)
                .map(|number| {
                    let (key, start) = (&key, &start);
                    scope.spawn(move || {
                        start.wait();
                        (number, target.put(key, &mut &[number; 100_000][..]))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<u8> =
            outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(number, _)| *number).collect();
        let losers = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err());
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        losers.for_each(|failure| assert_eq!(failure.cause, Cause::Exists, "{failure:?}"));
        assert!(get(target, &key) == [winners[0]; 100_000], "the winner's bytes are there");
    }
    assert_eq!(place.leftovers(), [""; 0]);
}

fn fails_after(place: &dyn Place, good: usize) {
    let (target, key) = (place.target(), key("host/shop/x"));
    let own = Error::new(Kind::Tool, "pg_dump died").hint("look").tail(vec!["last words".into()]);
    let failure = target.put(&key, &mut FailingBody { bytes: &noise(good), error: own.clone() }).unwrap_err();
    assert_eq!(failure.cause, Cause::Body);
    assert_eq!(failure.error, own, "the error is the body's own, hint and tail too");
    assert_eq!(names(target, ""), [""; 0]);
    assert_eq!(target.get(&key).err().map(|failure| failure.cause), Some(Cause::NotFound));
    assert_eq!(place.leftovers(), [""; 0]);
}

pub fn a_body_that_fails_at_its_start_leaves_nothing(place: &dyn Place) {
    fails_after(place, 0);
}

pub fn a_body_that_fails_in_its_middle_leaves_nothing(place: &dyn Place) {
    fails_after(place, 700_001);
}

pub fn a_body_that_fails_before_its_end_leaves_nothing(place: &dyn Place) {
    // The whole of it comes, but instead of the end an error.
    fails_after(place, 5 * 1024 * 1024);
}

pub fn a_body_that_fails_after_whole_parts_leaves_nothing(place: &dyn Place) {
    for good in [place.part() + 1, 2 * place.part() + 700] {
        fails_after(place, good);
    }
}

pub fn a_failed_put_can_be_repeated(place: &dyn Place) {
    let (target, key) = (place.target(), key("host/shop/x"));
    let error = Error::new(Kind::Tool, "died");
    target.put(&key, &mut FailingBody { bytes: b"half", error }).unwrap_err();
    target.put(&key, &mut &b"whole"[..]).unwrap();
    assert_eq!(get(target, &key), b"whole");
}

pub fn a_listing_is_in_order(place: &dyn Place) {
    let target = place.target();
    let mut all = ["b/a", "a/b/c", "a/bb", "a/b-c", "a/b.c", "B", "a/c", "a+", "a@", "a/0", "a/10", "a/9"];
    for name in all {
        target.put(&key(name), &mut &b"x"[..]).unwrap();
    }
    all.sort_unstable();
    assert_eq!(names(target, ""), all);
}

pub fn a_listing_keeps_to_its_prefix(place: &dyn Place) {
    let target = place.target();
    for name in ["a/b/1", "a/bc/1", "a/b.1", "a/c/1", "ab/1", "b/a/b/1"] {
        target.put(&key(name), &mut &b"x"[..]).unwrap();
    }
    for (prefix, expected) in [
        ("a/b/", &["a/b/1"][..]),
        ("a/b", &["a/b.1", "a/b/1", "a/bc/1"]),
        ("a/", &["a/b.1", "a/b/1", "a/bc/1", "a/c/1"]),
        ("a", &["a/b.1", "a/b/1", "a/bc/1", "a/c/1", "ab/1"]),
        ("a/b/1", &["a/b/1"]),
        ("none/", &[]),
        ("A/", &[]),
    ] {
        assert_eq!(names(target, prefix), expected, "below {prefix:?}");
    }
}

pub fn a_listing_is_complete(place: &dyn Place) {
    const THREADS: usize = 4;
    const EACH: usize = 625;
    let target = place.target();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in 0..EACH {
                    let key = key(&format!("host/shop/{:05}", thread * EACH + number));
                    target.put(&key, &mut &b"x"[..]).unwrap();
                }
            });
        }
    });
    let expected: Vec<String> = (0..THREADS * EACH).map(|number| format!("host/shop/{number:05}")).collect();
    assert!(names(target, "host/shop/") == expected, "2,500 objects, each once and in order");
    assert_eq!(names(target, "host/shop/0249"), expected[2490..2500]);
}

pub fn an_empty_target_lists_nothing(place: &dyn Place) {
    assert_eq!(names(place.target(), ""), [""; 0]);
    assert_eq!(names(place.target(), "host/shop/"), [""; 0]);
}

pub fn what_is_missing_is_not_found(place: &dyn Place) {
    let target = place.target();
    target.put(&key("host/shop/there"), &mut &b"x"[..]).unwrap();
    for name in ["host/shop/x", "host/shop/ther", "host/shop/there2", "x", "host/x/there", "Host/shop/there"] {
        let failure = target.get(&key(name)).err().unwrap_or_else(|| panic!("{name} can be read"));
        assert_eq!(failure.cause, Cause::NotFound, "{name}: {failure:?}");
        assert_eq!(failure.error.kind, Kind::Target);
        assert!(failure.error.message.contains(name), "{failure:?}");
    }
}

pub fn deleting_twice_is_success(place: &dyn Place) {
    let target = place.target();
    target.delete(&key("host/never/was")).unwrap();
    target.put(&key("host/shop/x"), &mut &b"x"[..]).unwrap();
    target.delete(&key("host/shop/x")).unwrap();
    target.delete(&key("host/shop/x")).unwrap();
}

pub fn what_is_deleted_is_gone_and_can_come_back(place: &dyn Place) {
    let (target, one, two) = (place.target(), key("host/shop/1"), key("host/shop/2"));
    target.put(&one, &mut &b"one"[..]).unwrap();
    target.put(&two, &mut &b"two"[..]).unwrap();
    target.delete(&one).unwrap();
    assert_eq!(names(target, ""), ["host/shop/2"]);
    assert_eq!(target.get(&one).err().map(|failure| failure.cause), Some(Cause::NotFound));
    assert_eq!(get(target, &two), b"two");
    target.put(&one, &mut &b"again"[..]).unwrap();
    assert_eq!(get(target, &one), b"again");
}

pub fn several_are_stored_at_once(place: &dyn Place) {
    let target = place.target();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for number in 0..8u8 {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                // Several make the same folder, too.
                for round in 0..5 {
                    let key = key(&format!("host/{round}/{number}"));
                    target.put(&key, &mut &[number; 300_000][..]).unwrap();
                    assert!(get(target, &key) == [number; 300_000], "{key}");
                }
            });
        }
    });
    assert_eq!(target.list("host/").unwrap().len(), 40);
}

pub fn every_allowed_name_works(place: &dyn Place) {
    let target = place.target();
    let every: String = (' '..='~').filter(|c| c.is_ascii_alphanumeric() || "-_.@+%".contains(*c)).collect();
    let longest = "x".repeat(255);
    let all = [
        every.clone(),
        format!("{every}/{every}/{every}"),
        longest.clone(),
        format!("{longest}/{longest}/{longest}"),
        format!("h/d/{}.gz", "%F0".repeat(80)),
        "h/d/-".to_owned(),
        "h/d/...".to_owned(),
        "h/d/.hidden".to_owned(),
        "h/d/%2E".to_owned(),
        "h/d/%2E%2E".to_owned(),
        "h/d/a+b".to_owned(),
        "h/d/a%2Bb".to_owned(),
        "h/d/a%20b".to_owned(),
        "h/d/Case".to_owned(),
        "h/d/case".to_owned(),
    ];
    // A file and a folder of one name exclude each other on a disk, so the names that begin others are tried alone.
    for group in [&all[..1], &all[1..2], &all[2..3], &all[3..]] {
        for name in group {
            let stored = target.put(&key(name), &mut name.as_bytes());
            stored.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        }
        for name in group {
            assert!(get(target, &key(name)) == name.as_bytes(), "{name} is its own");
            assert_eq!(names(target, name).first(), Some(name));
        }
        let mut expected = group.to_vec();
        expected.sort_unstable();
        assert_eq!(names(target, ""), expected);
        group.iter().for_each(|name| target.delete(&key(name)).unwrap());
        assert_eq!(names(target, ""), [""; 0]);
    }
}

pub fn a_prefix_of_any_signs_is_a_place_of_its_own(place: &dyn Place) {
    let prefixes = ["a@b+c%25/x/", "a@b+c%/x/", "a@b+c/x/", "a@b%20c%25/x/"];
    let places: Vec<Box<dyn Target>> = prefixes.iter().filter_map(|prefix| place.below(prefix)).collect();
    let all = ["host/shop/a+b", "host/shop/a%2Bb", "host/shop/x"];
    for (number, target) in places.iter().enumerate() {
        for name in all {
            target.put(&key(name), &mut format!("{number} {name}").as_bytes()).unwrap();
        }
    }
    let mut sorted = all;
    sorted.sort_unstable();
    for (number, target) in places.iter().enumerate() {
        let target = target.as_ref();
        assert_eq!(names(target, ""), sorted, "{}", prefixes[number]);
        assert_eq!(names(target, "host/shop/a+"), ["host/shop/a+b"]);
        for name in all {
            assert!(get(target, &key(name)) == format!("{number} {name}").as_bytes(), "{name}");
            target.delete(&key(name)).unwrap();
        }
        assert_eq!(names(target, ""), [""; 0]);
        assert!(places.iter().skip(number + 1).all(|other| names(other.as_ref(), "").len() == all.len()));
    }
}

pub fn nothing_climbs_out_of_its_place(place: &dyn Place) {
    for name in ["..", "../x", "host/../x", "host/..", ".", "host/./x", "/x", "host//x", "x/", ""] {
        assert!(ObjectKey::new(name).is_err(), "{name:?} is no key");
    }
    let target = place.target();
    target.put(&key("host/shop/x"), &mut &b"x"[..]).unwrap();
    for prefix in ["../", "..", "host/../", "host/./", "/", "host//", "host/shop/../shop/"] {
        assert_eq!(names(target, prefix), [""; 0], "below {prefix:?}");
    }
}

pub fn what_is_foreign_is_left_out(place: &dyn Place) {
    let target = place.target();
    target.put(&key("host/shop/ours"), &mut &b"x"[..]).unwrap();
    place.add_foreign();
    for prefix in ["", "host/", "host/shop/"] {
        assert_eq!(names(target, prefix), ["host/shop/ours"], "below {prefix:?}");
    }
}

pub fn a_visible_object_is_never_partial(place: &dyn Place) {
    let (target, key) = (place.target(), key("host/shop/x"));
    let bytes = noise(2_000_003);
    let body = StallingBody::new(&bytes, 1_500_000);
    let (reached, gate) = (body.reached.clone(), body.gate.clone());
    let ended = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let (target, key, bytes, ended) = (&target, &key, &bytes, &ended);
        let watcher = scope.spawn(move || {
            let mut seen = 0;
            loop {
                // Looked at before, so that there is one whole round after the end.
                let last = ended.load(Ordering::SeqCst);
                match target.get(key) {
                    Ok(mut reader) => {
                        let mut got = Vec::new();
                        reader.read_to_end(&mut got).unwrap();
                        assert!(got == *bytes, "{} of {} bytes were visible", got.len(), bytes.len());
                        seen += 1;
                    }
                    Err(failure) => assert_eq!(failure.cause, Cause::NotFound),
                }
                for stored in target.list("host/").unwrap() {
                    assert_eq!((&stored.key, stored.size), (key, bytes.len() as u64));
                }
                if last {
                    return seen;
                }
            }
        });
        let mut body = body;
        let writer = scope.spawn(move || target.put(key, &mut body));
        reached.wait();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(names(*target, ""), [""; 0], "three quarters are there, and nothing is visible");
        gate.open();
        writer.join().unwrap().unwrap();
        assert_eq!(names(*target, ""), [key.as_str()], "visible as soon as put returns");
        ended.store(true, Ordering::SeqCst);
        watcher.join().unwrap()
    });
    assert!(seen > 0);
}

pub fn sweeping_takes_only_what_is_old_and_unfinished(place: &dyn Place) {
    let target = place.target();
    target.put(&key("host/shop/whole"), &mut &b"x"[..]).unwrap();
    let expected = place.add_unfinished();
    let before = place.leftovers().len();
    let then = Utc::now() - TimeDelta::minutes(30);
    assert_eq!(target.sweep("host/shop/", then).unwrap(), expected);
    assert_eq!(place.leftovers().len(), before - expected, "what is new, or another's, stays");
    assert_eq!(target.sweep("host/shop/", then).unwrap(), 0);
    assert_eq!(target.sweep("never/was/", then).unwrap(), 0);
    assert_eq!(get(target, &key("host/shop/whole")), b"x", "a whole object stays, however old");
    target.sweep("", Utc::now() + TimeDelta::days(1)).unwrap();
    assert_eq!(place.leftovers(), [""; 0]);
    assert_eq!(get(target, &key("host/shop/whole")), b"x");
}

pub fn nothing_secret_is_said(place: &dyn Place) {
    let target = place.target();
    target.put(&key("host/shop/x"), &mut &b"x"[..]).unwrap();
    let said = [
        target.describe(),
        format!("{:?}", target.put(&key("host/shop/x"), &mut &b"x"[..]).unwrap_err()),
        format!("{:?}", target.get(&key("host/shop/y")).err()),
    ];
    assert!(!said[0].is_empty());
    for secret in place.secrets() {
        said.iter().for_each(|text| assert!(!text.contains(&secret), "{text}"));
    }
}
