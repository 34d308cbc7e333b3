//! Where a restored database may stand: in the place of a missing or broken one, beside the live one; and what is never
//! overlaid or overwritten.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use voxeltron_backup::engine::{Destination, sqlite};
use voxeltron_backup::error::Kind;

use crate::support::{Bench, contents, fill, mode, names, sqlite3};

fn bench(journal: &str) -> (Bench, Vec<u8>, String) {
    let bench = Bench::new(&format!("PRAGMA journal_mode={journal}; {}", fill("t", 100)));
    let (image, ..) = bench.dump().unwrap();
    let before = contents(&bench.live);
    (bench, image, before)
}

fn folder(bench: &Bench) -> &Path {
    bench.live.parent().unwrap()
}

#[test]
fn a_missing_live_database_is_made_again() {
    for journal in ["WAL", "DELETE"] {
        let (bench, image, before) = bench(journal);
        std::fs::remove_file(&bench.live).unwrap();
        let restored = bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
        assert!(restored.notes.iter().any(|note| note.contains("is new: mode 0600")), "{:?}", restored.notes);
        assert_eq!(names(folder(&bench)), ["live.db"]);
        assert!(std::fs::read(&bench.live).unwrap() == image);
        assert_eq!((mode(&bench.live), contents(&bench.live)), (0o600, before));
    }
}

#[test]
fn the_same_on_another_disk_than_data_dir() {
    let (mut bench, image, before) = bench("WAL");
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    bench.cx.data_dir = shm.path().join("data");
    std::fs::remove_file(&bench.live).unwrap();
    bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
    assert_eq!((mode(&bench.live), contents(&bench.live)), (0o600, before));
}

#[test]
fn stale_journals_beside_a_missing_database_are_never_overlaid() {
    let (bench, image, _) = bench("WAL");
    std::fs::remove_file(&bench.live).unwrap();
    for left in ["live.db-wal", "live.db-journal", "live.db-shm"] {
        std::fs::write(folder(&bench).join(left), "transactions").unwrap();
        let error = bench.restore(&image, Destination::InPlace, &Default::default()).unwrap_err();
        assert!(error.kind == Kind::Tool && error.message.contains(&format!("{left} is there")), "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("move the file away")), "{error:?}");
        assert_eq!(names(folder(&bench)), [left]);
        std::fs::remove_file(folder(&bench).join(left)).unwrap();
    }
    let beside = bench.path("beside.db");
    std::fs::write(bench.path("beside.db-wal"), "x").unwrap();
    let into = Destination::Into(beside.to_str().unwrap().to_owned());
    assert!(bench.restore(&image, into, &Default::default()).unwrap_err().message.contains("beside.db-wal is there"));
}

#[test]
fn a_broken_live_database_is_kept_and_replaced() {
    for journal in ["WAL", "DELETE"] {
        for (what, from, to) in [("garbage", 0, usize::MAX), ("header", 0, 100), ("schema", 100, 2_000)] {
            let (bench, image, before) = bench(journal);
            let mut broken = std::fs::read(&bench.live).unwrap();
            let to = to.min(broken.len());
            broken[from..to].fill(0xa5);
            std::fs::write(&bench.live, &broken).unwrap();
            std::fs::write(folder(&bench).join("live.db-wal"), "no wal at all").unwrap();
            std::fs::set_permissions(&bench.live, std::fs::Permissions::from_mode(0o640)).unwrap();
            drop(std::os::unix::fs::chown(&bench.live, Some(1234), Some(4321)));
            let owner = std::fs::metadata(&bench.live).unwrap();
            let restored = bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
            assert!(restored.notes.iter().any(|note| note.contains("it was kept as ")), "{what}: {:?}", restored.notes);
            let kept: Vec<_> = names(folder(&bench)).into_iter().filter(|name| name.contains(".broken-")).collect();
            let kept = folder(&bench).join(kept.first().unwrap());
            assert!(std::fs::read(kept).unwrap() == broken, "{what}: the broken file is kept to the byte");
            assert!(!folder(&bench).join("live.db-wal").exists());
            let new = std::fs::metadata(&bench.live).unwrap();
            assert_eq!((new.uid(), new.gid(), mode(&bench.live)), (owner.uid(), owner.gid(), 0o640));
            assert_eq!(contents(&bench.live), before);
        }
    }
}

#[test]
fn the_wal_of_a_broken_database_is_kept_as_it_is() {
    let (mut bench, image, before) = bench("WAL");
    let db = rusqlite::Connection::open(&bench.live).unwrap();
    // The header's page is not among what the WAL holds, so that SQLite can't mend the file from it.
    db.execute_batch("UPDATE t SET b = zeroblob(1000) WHERE id = 7").unwrap();
    let wal = std::fs::read(folder(&bench).join("live.db-wal")).unwrap();
    let mut broken = std::fs::read(&bench.live).unwrap();
    drop(db);
    broken[..4_096].fill(0xa5);
    bench.live = bench.live.with_file_name("broken.db");
    std::fs::write(&bench.live, &broken).unwrap();
    std::fs::write(folder(&bench).join("broken.db-wal"), &wal).unwrap();
    // Neither a backup that is tried every minute nor the restore may spoil it.
    bench.dump().unwrap_err();
    bench.engine().probe(&bench.cx).unwrap_err();
    bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
    assert_eq!(contents(&bench.live), before);
    let kept: Vec<_> = names(folder(&bench)).into_iter().filter(|name| name.contains(".broken-")).collect();
    let read = |ending: &str| {
        let name = kept.iter().find(|name| name.ends_with(ending)).unwrap();
        std::fs::read(folder(&bench).join(name)).unwrap()
    };
    assert!(read("Z") == broken && read("-wal") == wal, "{kept:?}");
}

#[test]
fn a_truncated_live_database_and_one_that_is_damaged_inside() {
    for journal in ["WAL", "DELETE"] {
        let (bench, image, before) = bench(journal);
        let whole = std::fs::read(&bench.live).unwrap();
        std::fs::write(&bench.live, &whole[..whole.len() / 2]).unwrap();
        bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
        assert_eq!(contents(&bench.live), before);
        // Damage that SQLite can open goes the usual way: the file stays the same one, for handles that are open.
        let mut damaged = whole;
        let to = damaged.len() - 5_000;
        damaged[9_000..to].fill(0x5a);
        std::fs::write(&bench.live, &damaged).unwrap();
        let inode = std::fs::metadata(&bench.live).unwrap().ino();
        bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
        assert_eq!(contents(&bench.live), before);
        assert_eq!(std::fs::metadata(&bench.live).unwrap().ino(), inode);
    }
}

#[test]
fn an_emptied_live_database_takes_the_images_journal_mode() {
    for journal in ["wal", "delete"] {
        let (bench, image, before) = bench(journal);
        std::fs::write(&bench.live, "").unwrap();
        bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
        assert_eq!(contents(&bench.live), before);
        assert_eq!(sqlite3(&bench.live, "PRAGMA journal_mode;").trim(), journal);
    }
}

#[test]
fn an_emptied_live_database_with_the_journal_of_the_old_one() {
    for (journal, ending) in [("WAL", "-wal"), ("DELETE", "-journal")] {
        let (bench, image, before) = bench(journal);
        let db = rusqlite::Connection::open(&bench.live).unwrap();
        db.execute_batch("PRAGMA cache_size=2; BEGIN; UPDATE t SET b = zeroblob(1000); DELETE FROM t WHERE id > 7;")
            .unwrap();
        let left = format!("{}{ending}", bench.live.display());
        let bytes = std::fs::read(&left).unwrap();
        drop(db);
        std::fs::write(&bench.live, "").unwrap();
        std::fs::write(&left, bytes).unwrap();
        bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
        assert_eq!(contents(&bench.live), before);
    }
}

#[test]
fn a_symbolic_link_is_followed_and_stays() {
    let (mut bench, image, before) = bench("WAL");
    let real = bench.path("real.db");
    std::fs::rename(&bench.live, &real).unwrap();
    std::os::unix::fs::symlink(&real, &bench.live).unwrap();
    bench.execute("DELETE FROM t");
    bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
    assert_eq!(contents(&real), before);
    // Broken: the file is kept and replaced where it is, not the link.
    std::fs::write(&real, "garbage ".repeat(1_000)).unwrap();
    bench.restore(&image, Destination::InPlace, &Default::default()).unwrap();
    assert!(std::fs::symlink_metadata(&bench.live).unwrap().is_symlink());
    assert_eq!(contents(&bench.live), before);
    // Its target gone: nothing is guessed.
    std::fs::remove_file(&real).unwrap();
    let error = bench.restore(&image, Destination::InPlace, &Default::default()).unwrap_err();
    assert!(error.message.contains("a symbolic link to a file that is not there"), "{error}");
    bench.live = bench.path("no/such/folder.db");
    let error = bench.engine().restore(
        &mut &*image,
        &voxeltron_backup::engine::Request::new(Destination::InPlace, Default::default()),
        &bench.cx,
    );
    assert!(error.unwrap_err().message.contains("there is no folder"));
}

#[test]
fn into_never_overwrites() {
    let (bench, image, before) = bench("WAL");
    for (path, kind, message) in [
        (bench.live.to_str().unwrap(), Kind::Tool, "exists already"),
        (folder(&bench).to_str().unwrap(), Kind::Tool, "exists already"),
        ("relative.db", Kind::Usage, "is not an absolute path"),
        ("", Kind::Usage, "is not an absolute path"),
        ("/no/such/folder/x.db", Kind::Tool, "there is no folder /no/such/folder"),
    ] {
        let error = bench.restore(&image, Destination::Into(path.to_owned()), &Default::default()).unwrap_err();
        assert_eq!(error.kind, kind, "{path}");
        assert!(error.message.contains(message) && error.hint.is_some(), "{error:?}");
    }
    assert_eq!(contents(&bench.live), before);
}

#[test]
fn what_killed_runs_left_is_swept_but_not_what_is_in_use() {
    for mode in ["DELETE", "WAL"] {
        swept(mode);
    }
}

fn swept(mode: &str) {
    let (bench, ..) = bench(mode);
    std::fs::create_dir_all(&bench.cx.data_dir).unwrap();
    let old = SystemTime::now() - Duration::from_secs(15 * 60);
    let make = |name: &str, age: bool| {
        let folder = bench.cx.data_dir.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("image"), "rows").unwrap();
        let lock = std::fs::File::create(folder.join("lock")).unwrap();
        if age {
            std::fs::File::open(&folder).unwrap().set_modified(old).unwrap();
        }
        lock
    };
    drop(make(".voxeltron-partial-sqlite-killed", true));
    drop(make(".voxeltron-partial-sqlite-young", false));
    let in_use = make(".voxeltron-partial-sqlite-in-use", true);
    in_use.lock().unwrap();
    drop(make("jobs", true));
    bench.dump().unwrap();
    assert_eq!(
        names(&bench.cx.data_dir),
        [".voxeltron-partial-sqlite-in-use", ".voxeltron-partial-sqlite-young", "jobs"]
    );
    drop(in_use);
    sqlite::sweep(&bench.cx.data_dir, &bench.cx);
    assert_eq!(names(&bench.cx.data_dir), [".voxeltron-partial-sqlite-young", "jobs"]);
}

#[test]
fn temporary_copies_are_private() {
    use std::io::Read;
    // Seen from inside the stream: that is when the copy is there.
    struct Looking<'a>(&'a [u8], &'a Path, bool);
    impl Read for Looking<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let scratch = self.1.join(names(self.1).first().unwrap());
            assert_eq!((mode(self.1), mode(&scratch), mode(&scratch.join("image"))), (0o700, 0o700, 0o600));
            self.2 = true;
            self.0.read(buffer)
        }
    }
    let (bench, image, _) = bench("WAL");
    let data_dir = bench.cx.data_dir.clone();
    let mut looking = Looking(&image, &data_dir, false);
    bench.restore_from(&mut looking, Destination::Drill, &Default::default()).unwrap();
    assert!(looking.2);
}
