//! Small disks of a test's own, and what runs on them. They are file systems in memory that nobody else sees, mounted in a
//! namespace of their own: as root, or as a user where the system lets users have namespaces. However the test ends, the
//! end of a pipe ends the namespace, and with it every server in it and the folder.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mounts what its arguments name, says which process it is, and waits for its input to end. The process that it is for
/// everybody else stands in the `/proc` that it has not mounted anew.
const HOLD: &str = r#"cd "$1" || exit; shift
while [ $# -gt 0 ]; do mount -t tmpfs -o "size=$2,mode=1777" none "$1" || exit; shift 2; done
read -r pid rest </proc/self/stat; echo "$pid"; exec cat >/dev/null"#;

/// Small disks.
pub struct Disks {
    pub folder: PathBuf,
    holder: Child,
    pid: u32,
}

impl Disks {
    /// Each with its name, which is its folder's, and its size as `mount` takes it.
    pub fn new(disks: &[(&str, &str)]) -> Self {
        Self::within(&std::env::temp_dir(), disks)
    }

    /// The same in a folder within this one.
    pub fn within(parent: &Path, disks: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("voxeltron-disk-").tempdir_in(parent).unwrap().keep();
        // A server's own user has to come through.
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        for (name, _) in disks {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        let mut holder = Command::new("sh");
        holder.args(["-c", "hold=$1 folder=$2; shift 2; unshare \"$@\"; rm -rf \"$folder\"", "sh", HOLD]).arg(&folder);
        if !is_root() {
            holder.args(["--user", "--map-root-user"]);
        }
        holder.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", HOLD, "sh"]).arg(&folder);
        holder.args(disks.iter().flat_map(|(name, size)| [name, size]));
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let pid =
            said.trim().parse().expect("no small disk can be mounted: these tests are never skipped; run them as root");
        Self { folder, holder, pid }
    }

    /// A command that runs where the disks are; its words follow as arguments.
    pub fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--mount", "--pid"]);
        if is_root() {
            return command;
        }
        let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        command.args(["--user", "--preserve-credentials", "unshare", "--user"]);
        command.args([format!("--map-user={user}"), format!("--map-group={group}")]);
        command
    }

    /// The same command, where the disks are.
    pub fn inside_of(&self, inner: &Command) -> Command {
        let mut command = self.inside();
        command
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(inner.get_current_dir().unwrap())
            .env_clear();
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The way to a disk's folder from outside.
    pub fn seen(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(self.path(name).strip_prefix("/").unwrap())
    }

    /// How many bytes are free.
    pub fn free(&self, name: &str) -> u64 {
        let disk = rustix::fs::statvfs(self.seen(name)).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Fills a disk until so many bytes are free.
    pub fn leave(&self, name: &str, bytes: u64) {
        let count = self.free(name).checked_sub(bytes).expect("less is free than is to be left");
        let mut ballast = File::create(self.seen(name).join("ballast")).unwrap();
        let piece = vec![1; 1 << 20];
        let mut left = usize::try_from(count).unwrap();
        while left > 0 {
            let some = left.min(piece.len());
            ballast.write_all(&piece[..some]).unwrap();
            left -= some;
        }
    }

    /// Makes room again.
    pub fn make_room(&self, name: &str) {
        drop(std::fs::remove_file(self.seen(name).join("ballast")));
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}

/// Starts a server, which the end of its disks ends.
pub fn starts(server: &mut Command) {
    let mut child = server.spawn().unwrap();
    std::thread::spawn(move || child.wait());
}

pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
