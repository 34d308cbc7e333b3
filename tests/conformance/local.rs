//! What only the local disk can do wrong: modes, a full disk, a disk that is not mounted, a crash in the middle.

use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use voxeltron_backup::format::name::ObjectKey;
use voxeltron_backup::target::local::Local;
use voxeltron_backup::target::{Cause, Target, TargetError};

use super::common::faults::Gate;
use super::common::sample::noise;
use super::common::{again, part, run};
use super::{LocalPlace, Place, files};

fn key() -> ObjectKey {
    ObjectKey::new("host/shop/x").unwrap()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// Below `folder` all files are 0600 and all folders 0700.
fn is_private(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{} is {:o}", path.display(), mode(&path));
        if path.is_dir() {
            is_private(&path);
        }
    }
}

#[test]
fn modes_are_private_under_every_umask() {
    const TEST: &str = "local::modes_are_private_under_every_umask";
    match part() {
        // The umask belongs to the process, so it is set in one where no other test runs.
        Some(umask) => {
            let umask = u32::from_str_radix(&umask, 8).unwrap();
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
            let place = LocalPlace::default();
            let target = Local::new("local", &place.root().join("made/by/us"));
            target.put(&key(), &mut &b"x"[..]).unwrap();
            is_private(place.root());
            // Also while it is being written.
            struct Looks<'a>(&'a Path, usize);
            impl Read for Looks<'_> {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    is_private(self.0);
                    self.1 = files(self.0).len();
                    Ok(0)
                }
            }
            let mut body = Looks(place.root(), 0);
            target.put(&ObjectKey::new("host/shop/y").unwrap(), &mut body).unwrap();
            assert_eq!(body.1, 2, "the unfinished file was there");
        }
        None => {
            for umask in ["000", "022", "077"] {
                let outcome = run(&mut again(TEST, umask), b"");
                assert!(outcome.status.success(), "umask {umask}: {outcome:?}");
            }
        }
    }
}

/// What a put of 3 MB says where there is no room for it.
fn fails_for_want_of_room(root: &Path) {
    let target = Local::new("local", root);
    let small = ObjectKey::new("host/shop/small").unwrap();
    target.put(&small, &mut &b"fits"[..]).unwrap();
    let failure = target.put(&key(), &mut Cursor::new(noise(3_000_000))).unwrap_err();
    says_how_much(&failure);
    // What it says is free is what is free once the unfinished file is gone.
    let stat = rustix::fs::statvfs(root).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    if free < 16 << 20 {
        let said = format!(", {} are free now;", voxeltron_backup::format::time::bytes(free));
        assert!(failure.error.hint.as_ref().unwrap().contains(&said), "{said} {failure:?}");
    }
    let left: Vec<_> = files(root).iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect();
    assert_eq!(left, [Path::new("host/shop/small")], "only what was whole is left");
    assert_eq!(target.list("").unwrap().len(), 1);
    target.delete(&small).unwrap();
}

fn says_how_much(failure: &TargetError) {
    assert_eq!(failure.cause, Cause::Failed, "{failure:?}");
    assert!(failure.error.message.starts_with("target local: can't write "), "{failure:?}");
    let hint = failure.error.hint.clone().unwrap();
    assert!(hint.contains("of this backup had been written and were removed again"), "{hint}");
    assert!(hint.contains(" are free now; make room, or keep fewer backups"), "{hint}");
}

#[test]
fn a_file_that_may_not_grow_leaves_nothing_and_says_so() {
    const TEST: &str = "local::a_file_that_may_not_grow_leaves_nothing_and_says_so";
    if part().is_some() {
        return fails_for_want_of_room(LocalPlace::default().root());
    }
    // A limit of the process's own, which nobody needs root for. The signal that comes with it would end the process.
    let inner = again(TEST, "limited");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"]).arg(inner.get_program());
    command.args(inner.get_args()).envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = run(&mut command, b"");
    assert!(outcome.status.success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
}

#[test]
fn a_full_disk_leaves_nothing_and_says_so() {
    const TEST: &str = "local::a_full_disk_leaves_nothing_and_says_so";
    if part().is_some() {
        let folder = std::env::var_os("VOXELTRON_TEST_DISK").unwrap();
        return fails_for_want_of_room(Path::new(&folder));
    }
    // A file system of 2 MiB in a mount namespace of its own, so that nothing has to be unmounted.
    let folder = tempfile::tempdir().unwrap();
    let inner = again(TEST, "mounted");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = "mount -t tmpfs -o size=2m,mode=0700 none \"$VOXELTRON_TEST_DISK\" || exit 77; exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = run(command.env("VOXELTRON_TEST_DISK", folder.path()), b"");
    if outcome.status.success() {
        assert!(outcome.stdout.contains("1 passed"), "{outcome:?}");
    } else {
        // Where not even a namespace may be had (some containers), the limit on files above is what can be shown.
        let refused = outcome.code == Some(77) || outcome.stderr.contains("unshare");
        assert!(refused, "{outcome:?}");
        a_file_that_may_not_grow_leaves_nothing_and_says_so();
    }
}

#[test]
fn a_disk_that_is_not_mounted_is_not_an_empty_one() {
    let place = LocalPlace::default();
    let target = Local::new("local", &place.root().join("not/mounted"));
    for prefix in ["", "host/shop/"] {
        let failure = target.list(prefix).unwrap_err();
        assert_eq!(
            failure.error.message,
            format!("target local: can't list {}/not/mounted: no such file or directory", place.root().display())
        );
        assert_eq!(failure.error.hint.as_deref(), Some("is the disk mounted? the first backup creates the folder"));
    }
    target.put(&key(), &mut &b"x"[..]).unwrap();
    assert_eq!(target.list("").unwrap().len(), 1);
}

#[test]
fn a_root_that_is_a_file_is_an_error() {
    let place = LocalPlace::default();
    std::fs::write(place.root().join("file"), "x").unwrap();
    let target = Local::new("local", &place.root().join("file"));
    assert_eq!(target.list("").unwrap_err().cause, Cause::Failed);
    assert!(target.list("host/shop/").is_err());
    assert!(target.put(&key(), &mut &b"x"[..]).is_err());
}

#[test]
fn a_root_behind_a_link_works() {
    let place = LocalPlace::default();
    std::fs::create_dir(place.root().join("real")).unwrap();
    std::os::unix::fs::symlink("real", place.root().join("link")).unwrap();
    let target = Local::new("local", &place.root().join("link"));
    target.put(&key(), &mut &b"x"[..]).unwrap();
    for prefix in ["", "host/", "host/shop/x"] {
        assert_eq!(target.list(prefix).unwrap().len(), 1);
    }
    assert!(place.root().join("real/host/shop/x").is_file());
    target.delete(&key()).unwrap();
    assert!(target.list("").unwrap().is_empty());
}

#[test]
fn a_folder_that_cannot_be_read_is_an_error_not_a_part_of_the_listing() {
    const TEST: &str = "local::a_folder_that_cannot_be_read_is_an_error_not_a_part_of_the_listing";
    if part().is_some() {
        let root = std::env::var_os("VOXELTRON_TEST_DISK").unwrap();
        let failure = Local::new("local", Path::new(&root)).list("").unwrap_err();
        assert_eq!(failure.cause, Cause::Failed);
        assert!(failure.error.message.contains("permission denied"), "{failure:?}");
        assert!(failure.error.hint.unwrap().contains("owner and the mode"));
        return;
    }
    let place = LocalPlace::default();
    place.target().put(&key(), &mut &b"x"[..]).unwrap();
    place.target().put(&ObjectKey::new("host/other/x").unwrap(), &mut &b"x"[..]).unwrap();
    for (folder, mode) in [("", 0o755), ("host", 0o755), ("host/shop", 0o000)] {
        std::fs::set_permissions(place.root().join(folder), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // Root reads everything, so it has to become somebody else. The test itself may lie where nobody else can look.
    let mut command = again(TEST, "unprivileged");
    let copy = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = copy.path().join("test");
        std::fs::copy(command.get_program(), &program).unwrap();
        let mut other = Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(command.get_args());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = other;
    }
    let outcome = run(command.current_dir("/").env("VOXELTRON_TEST_DISK", place.root()), b"");
    std::fs::set_permissions(place.root().join("host/shop"), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(outcome.status.success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
}

#[test]
fn a_kill_in_the_middle_leaves_nothing_visible() {
    const TEST: &str = "local::a_kill_in_the_middle_leaves_nothing_visible";
    if part().is_some() {
        let root = std::env::var_os("VOXELTRON_TEST_DISK").unwrap();
        let mut body = super::common::faults::StallingBody::new(&noise(2_000_000), 1_900_000);
        // Nobody opens the gate: this process ends in the middle.
        body.gate = Gate::default();
        drop(Local::new("local", Path::new(&root)).put(&key(), &mut body));
        panic!("it was not killed");
    }
    let place = LocalPlace::default();
    place.target().put(&ObjectKey::new("host/shop/before").unwrap(), &mut &b"x"[..]).unwrap();
    let mut command = again(TEST, "writer");
    command.env("VOXELTRON_TEST_DISK", place.root()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut writer = command.spawn().unwrap();
    let started = Instant::now();
    while !place.leftovers().iter().any(|path| Path::new(path).metadata().is_ok_and(|meta| meta.len() >= 1_500_000)) {
        assert!(started.elapsed() < Duration::from_secs(120), "the writer did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert_eq!(place.leftovers().len(), 1, "a kill can't clean up");
    let listed: Vec<String> = place.target().list("").unwrap().iter().map(|stored| stored.key.to_string()).collect();
    assert_eq!(listed, ["host/shop/before"]);
    assert_eq!(place.target().get(&key()).err().map(|failure| failure.cause), Some(Cause::NotFound));
    place.target().put(&key(), &mut &b"again"[..]).unwrap();
    let later = chrono::Utc::now() + chrono::TimeDelta::days(1);
    assert_eq!(place.target().sweep("host/shop/", later).unwrap(), 1, "a later run sweeps it");
    assert_eq!(place.target().list("").unwrap().len(), 2);
}

#[test]
fn a_database_whose_folder_is_a_link_is_listed_or_an_error() {
    let (place, other) = (LocalPlace::default(), tempfile::tempdir().unwrap());
    std::fs::create_dir(place.root().join("host")).unwrap();
    let link = place.root().join("host/shop");
    std::os::unix::fs::symlink(other.path(), &link).unwrap();
    place.target().put(&key(), &mut &b"x"[..]).unwrap();
    assert!(other.path().join("x").is_file());
    for prefix in ["", "host/", "host/shop/"] {
        let listed = place.target().list(prefix).unwrap();
        assert_eq!(listed.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["host/shop/x"], "below {prefix:?}");
    }
    // A disk that is not mounted is not an empty folder.
    let away = other.path().to_owned();
    drop(other);
    let failure = place.target().list("").unwrap_err();
    assert!(failure.error.message.contains("host/shop") && !away.exists(), "{failure:?}");
    // A link to a file, or of a name that is none of ours, is let be.
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    std::os::unix::fs::symlink("/nowhere", place.root().join("a note")).unwrap();
    assert!(place.target().list("").unwrap().is_empty());
}
