//! What the layers above make of each fault: it is noticed, by name, and never taken for a success.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use voxeltron_backup::catalog::{self, OpenTarget};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::format::key::Keyring;
use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::pipeline::fanout::fan_out;
use voxeltron_backup::pipeline::meter::{Expected, Meter};
use voxeltron_backup::target::memory::Memory;
use voxeltron_backup::target::{Cause, Target, TargetError};
use voxeltron_backup::world::World;

use super::common::faults::{
    CancelAfter, DeniedDelete, ErrorOnce, FailingBody, Gate, HastyClock, LastByteFlipped, ListFails, ShortWrite,
    SlowTarget, StallingTarget, Truncating,
};
use super::common::sample::{self, Backup, Recipe, key, noise, rows};

fn keys() -> Keyring {
    Keyring::new([key()])
}

fn stored<T: Target>(target: &T) -> Backup {
    let backup = Recipe::default().build(&rows(200_000));
    target.put(&backup.object_key, &mut &backup.object[..]).unwrap();
    target.put(&backup.manifest_key, &mut &backup.manifest[..]).unwrap();
    backup
}

fn in_memory() -> (Memory, Backup) {
    let memory = Memory::default();
    let backup = stored(&memory);
    (memory, backup)
}

fn read_back(target: &dyn Target, backup: &Backup) -> Error {
    let object = target.get(&backup.object_key).unwrap();
    sample::open(object, &backup.manifest, &backup.owner, &backup.id, &keys()).unwrap_err()
}

fn read_catalog(target: impl Target + 'static) -> Result<catalog::Catalog, Error> {
    read_catalog_of(Arc::new(target))
}

fn read_catalog_of(target: Arc<dyn Target>) -> Result<catalog::Catalog, Error> {
    let open = OpenTarget { name: "far".into(), is_local: false, target };
    catalog::read(&open, "", &mut |_| Ok(keys()))
}

#[test]
fn without_a_fault_all_is_well() {
    let (memory, backup) = in_memory();
    let object = memory.get(&backup.object_key).unwrap();
    let dump = sample::open(object, &backup.manifest, &backup.owner, &backup.id, &keys()).unwrap();
    assert!(dump == rows(200_000));
    let catalog = read_catalog(memory).unwrap();
    assert_eq!((catalog.entries.len(), catalog.orphans.len()), (1, 0));
    assert_eq!((catalog.entries[0].distrust(), catalog.entries[0].damage()), (None, None));
}

#[test]
fn truncating_is_noticed_by_the_size() {
    let (inner, backup) = in_memory();
    for at in [0, 11, 300, backup.object.len() as u64 - 1] {
        let target = Truncating { inner: Memory::default(), at };
        target.put(&backup.object_key, &mut &backup.object[..]).unwrap();
        let error = read_back(&target, &backup);
        assert_eq!(error.kind, Kind::Authentication);
        assert!(error.message.contains(&format!("is cut: {at} of the manifest's")), "{error}");
    }
    // A manifest that is cut decides nothing, and its object does not pass for an orphan.
    let catalog = read_catalog(Truncating { inner, at: 100 }).unwrap();
    assert!(catalog.entries[0].distrust().unwrap().contains("damaged"));
    assert!(catalog.orphans.is_empty());
}

#[test]
fn a_flipped_last_byte_is_noticed_by_the_digest_and_by_the_tag() {
    let (inner, backup) = in_memory();
    let target = LastByteFlipped { inner };
    assert_eq!(read_back(&target, &backup).message, "the backup was changed: its SHA-256 is not the manifest's");
    let object = target.get(&backup.object_key).unwrap();
    let error = sample::open_without_manifest(object, &keys()).unwrap_err();
    assert_eq!(error.kind, Kind::Authentication);
    assert!(error.message.contains("does not authenticate"), "{error}");
}

#[test]
fn an_error_once_is_an_error_and_then_none() {
    let (inner, backup) = in_memory();
    let target = ErrorOnce::new(inner);
    assert_eq!(target.list("").unwrap_err().cause, Cause::Failed);
    assert_eq!(target.list("").unwrap().len(), 2);
    let again = Arc::new(ErrorOnce::new(Memory::default()));
    let mut results = fan_out(
        &mut &backup.object[..],
        &[Arc::clone(&again) as Arc<dyn Target>],
        &backup.object_key,
        &World::system(),
    );
    assert_eq!(results.remove(0).unwrap_err().cause, Cause::Failed);
    assert!(again.list("").unwrap().is_empty(), "a dump can't be rewound, so nothing was tried again");
    let error = read_catalog(ErrorOnce::new(Memory::default())).unwrap_err();
    assert_eq!(error.kind, Kind::Target);
}

#[test]
fn a_manifest_that_cannot_be_fetched_is_an_error_not_a_gap() {
    struct GetFails(Memory);
    impl Target for GetFails {
        fn describe(&self) -> String {
            self.0.describe()
        }
        fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<voxeltron_backup::target::Stored, TargetError> {
            self.0.put(key, body)
        }
        fn get(&self, _: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
            let error = Error::new(Kind::Target, "fault: the line went dead");
            Ok(Box::new(Cursor::new(b"{".to_vec()).chain(FailingBody { bytes: b"", error })))
        }
        fn list(&self, prefix: &str) -> Result<Vec<voxeltron_backup::target::Stored>, TargetError> {
            self.0.list(prefix)
        }
        fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
            self.0.delete(key)
        }
    }
    let (memory, _) = in_memory();
    let error = read_catalog(GetFails(memory)).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Target, "fault: the line went dead"));
}

#[test]
fn a_listing_that_fails_is_never_an_empty_catalog() {
    let (inner, _) = in_memory();
    let error = read_catalog(ListFails { inner }).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Target, "fault: no listing"));
}

#[test]
fn a_denied_delete_is_told_apart() {
    let (inner, backup) = in_memory();
    let target = DeniedDelete { inner };
    assert_eq!(target.delete(&backup.object_key).unwrap_err().cause, Cause::Denied);
    assert_eq!(target.list("").unwrap().len(), 2);
}

#[test]
fn a_short_write_shows_in_the_size_and_in_the_catalog() {
    let backup = Recipe::default().build(&rows(200_000));
    let target = Arc::new(ShortWrite { inner: Memory::default(), missing: 1 });
    let mut results = fan_out(
        &mut &backup.object[..],
        &[Arc::clone(&target) as Arc<dyn Target>],
        &backup.object_key,
        &World::system(),
    );
    let size = results.remove(0).unwrap().size;
    assert_eq!(size, backup.signed.stored_bytes - 1, "what the target confirmed is not what was sent");
    target.inner.put(&backup.manifest_key, &mut &backup.manifest[..]).unwrap();
    assert!(read_back(&*target, &backup).message.contains("is cut"));
    let catalog = read_catalog_of(target).unwrap();
    assert!(catalog.entries[0].damage().unwrap().starts_with("it is cut: "));
}

#[test]
fn a_slow_target_gets_everything_and_holds_no_other_up_for_ever() {
    let data = noise(6_000_000);
    let slow = Arc::new(SlowTarget { inner: Memory::default(), pause: Duration::from_millis(2) });
    let fast = Arc::new(Memory::default());
    let key = ObjectKey::new("a/b/c").unwrap();
    let results = fan_out(&mut &data[..], &[slow, fast], &key, &World::system());
    assert!(results.iter().all(|result| result.as_ref().is_ok_and(|stored| stored.size == data.len() as u64)));
}

#[test]
fn a_target_that_stalls_is_dropped_and_the_others_finish() {
    let data = noise(8_000_000);
    let gate = Gate::default();
    let stalling = Arc::new(StallingTarget { inner: Memory::default(), gate: gate.clone() });
    let fast = Arc::new(Memory::default());
    let key = ObjectKey::new("a/b/c").unwrap();
    // Five minutes without a byte pass at once on this clock; then the other target goes on to its end, and nobody waits
    // for the one that was dropped.
    let world = World { clock: Arc::new(HastyClock::default()), ..World::system() };
    let results = fan_out(&mut &data[..], &[stalling.clone(), fast], &key, &world);
    let failure = results[0].clone().unwrap_err();
    assert_eq!(failure.cause, Cause::Failed);
    assert!(failure.error.message.starts_with("target memory: took no data for "), "{failure:?}");
    gate.open();
    // What it had not taken it never gets, and no end.
    while Arc::strong_count(&stalling) > 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(stalling.list("").unwrap().is_empty());
    assert_eq!(results[1].as_ref().unwrap().size, data.len() as u64);
}

#[test]
fn a_target_that_moves_on_its_line_is_not_dropped() {
    /// Sends what it has, as slowly as its line is.
    struct Sends<T>(T, AtomicU64);
    impl<T: Target> Target for Sends<T> {
        fn describe(&self) -> String {
            self.0.describe()
        }
        fn put(&self, key: &ObjectKey, body: &mut dyn Read) -> Result<voxeltron_backup::target::Stored, TargetError> {
            self.0.put(key, body)
        }
        fn get(&self, key: &ObjectKey) -> Result<Box<dyn Read + Send>, TargetError> {
            self.0.get(key)
        }
        fn list(&self, prefix: &str) -> Result<Vec<voxeltron_backup::target::Stored>, TargetError> {
            self.0.list(prefix)
        }
        fn delete(&self, key: &ObjectKey) -> Result<(), TargetError> {
            self.0.delete(key)
        }
        fn moved(&self) -> u64 {
            self.1.fetch_add(1, Ordering::SeqCst)
        }
    }
    let (data, gate) = (noise(8_000_000), Gate::default());
    let stalling = StallingTarget { inner: Memory::default(), gate: gate.clone() };
    let slow = Arc::new(Sends(stalling, AtomicU64::new(0)));
    let key = ObjectKey::new("a/b/c").unwrap();
    let world = World { clock: Arc::new(HastyClock::default()), ..World::system() };
    let results = std::thread::scope(|scope| {
        let fan = scope.spawn(|| fan_out(&mut &data[..], &[Arc::clone(&slow) as Arc<dyn Target>], &key, &world));
        // On this clock hours pass.
        std::thread::sleep(Duration::from_millis(1_500));
        gate.open();
        fan.join().unwrap()
    });
    assert_eq!(results[0].as_ref().unwrap().size, data.len() as u64);
}

#[test]
fn a_target_that_takes_nothing_holds_the_source_up_and_not_the_memory() {
    struct Counted<R>(R, Arc<AtomicU64>);
    impl<R: Read> Read for Counted<R> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.fetch_add(count as u64, Ordering::SeqCst);
            Ok(count)
        }
    }
    let (gate, taken) = (Gate::default(), Arc::new(AtomicU64::new(0)));
    let stalling = Arc::new(StallingTarget { inner: Memory::default(), gate: gate.clone() });
    let fast = Arc::new(Memory::default());
    let key = ObjectKey::new("a/b/c").unwrap();
    std::thread::scope(|scope| {
        let mut source = Counted(std::io::repeat(7).take(40_000_000), Arc::clone(&taken));
        let key = &key;
        let fan = scope.spawn(move || fan_out(&mut source, &[stalling, fast], key, &World::system()));
        // Until it has begun, and stood still for a while.
        let mut before = 0;
        while before == 0 || taken.load(Ordering::SeqCst) != before {
            before = taken.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
        }
        gate.open();
        assert!((1..4_000_000).contains(&before), "{before} bytes were taken from the source");
        assert!(fan.join().unwrap().iter().all(|result| result.as_ref().unwrap().size == 40_000_000));
    });
}

#[test]
fn a_dump_that_dies_reaches_every_target_as_its_own_error() {
    let error = Error::new(Kind::Tool, "pg_dump died").tail(vec!["last words".into()]);
    let (one, two) = (Arc::new(Memory::default()), super::LocalPlace::default());
    let key = ObjectKey::new("a/b/c").unwrap();
    for good in [0, 1, 256 * 1024, 3_000_000] {
        let mut body = FailingBody { bytes: &noise(good), error: error.clone() };
        let results = fan_out(&mut body, &[one.clone(), Arc::new(two.local())], &key, &World::system());
        for result in results {
            assert_eq!(result.unwrap_err(), TargetError { cause: Cause::Body, error: error.clone() });
        }
        assert!(one.list("").unwrap().is_empty() && two.files().is_empty(), "{good} bytes were good");
    }
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let key = ObjectKey::new("a/b/c").unwrap();
    for signal in [2, 15] {
        let (one, two, world) = (Arc::new(Memory::default()), super::LocalPlace::default(), World::system());
        let mut body = CancelAfter { inner: &noise(4_000_000)[..], bytes: 2_000_000, world: world.clone(), signal };
        for result in fan_out(&mut body, &[one.clone(), Arc::new(two.local())], &key, &world) {
            assert_eq!(result.unwrap_err().error.kind, Kind::Stopped(signal));
        }
        assert!(one.list("").unwrap().is_empty() && two.files().is_empty());
    }
}

#[test]
fn a_stream_that_failed_once_is_not_finished_by_reading_on() {
    let error = Error::new(Kind::Tool, "died");
    let body = FailingBody { bytes: b"abc", error };
    let mut meter = Meter::expecting(body, Expected { what: "the backup", bytes: 3, sha256: None });
    let mut out = Vec::new();
    assert!(meter.read_to_end(&mut out).is_err());
    assert!(meter.read(&mut [0; 8]).is_err());
    assert!(meter.result().get().is_none());
}
