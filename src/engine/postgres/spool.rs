//! A whole backup in a file of this host, for what a stream can't do. Flows in: the dump's stream. Flows out: a file without a
//! name, which a tool can open as long as we hold it. Touches `data_dir`; nothing is ever left there, even after a kill.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use super::archive::Archive;
use super::tools::Tools;
use crate::engine::tools::{nameless, unwritten};
use crate::engine::{Cx, Inspector};
use crate::error::{Context, Error, Kind, Result};
use crate::format::time;
use crate::process;

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// What is kept.
#[derive(Debug)]
pub struct Spool {
    file: File,
}

impl Spool {
    /// Keeps what was read already and all that follows, to a good end. `bytes`: how much it will be, where that is known.
    ///
    /// # Errors
    /// The stream's own; [`Kind::Tool`] when the archive is not whole, or there is no room for it.
    pub fn read(begun: &[u8], dump: &mut dyn Read, archive: &mut Archive, bytes: Option<u64>, cx: &Cx) -> Result<Self> {
        let folder = cx.data_dir.display();
        let failed = || format!("can't keep the backup in {folder}");
        let mut file = nameless(&cx.data_dir)?;
        let room = rustix::fs::fstatvfs(&file).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        if let Some(bytes) = bytes.filter(|bytes| *bytes > room) {
            let (bytes, room) = (time::bytes(bytes), time::bytes(room));
            return Err(Error::new(Kind::Tool, format!("{}: it takes {bytes}, and {room} are free there", failed()))
                .hint("make room there, or set [backup] data_dir to a folder on another disk"));
        }
        file.write_all(begun).map_err(|error| unwritten(&error, &failed()))?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            cx.world.cancel.check()?;
            let count = match dump.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).doing(Kind::Tool, "can't read the dump"),
            };
            let read = piece.get(..count).unwrap_or_default();
            archive.feed(read)?;
            file.write_all(read).map_err(|error| unwritten(&error, &failed()))?;
        }
        archive.finish()?;
        Ok(Self { file })
    }

    /// Keeps a text of ours.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be written.
    pub fn of(text: &str, cx: &Cx) -> Result<Self> {
        let mut file = nameless(&cx.data_dir)?;
        let failed = || format!("can't write to {}", cx.data_dir.display());
        file.write_all(text.as_bytes()).map_err(|error| unwritten(&error, &failed()))?;
        Ok(Self { file })
    }

    /// Loads it into `database`, so many parts at once.
    ///
    /// # Errors
    /// [`Kind::Tool`], explained.
    pub fn load(&self, tools: &Tools, database: &str, jobs: u16, cx: &Cx) -> Result<()> {
        let call = tools.load_file(database, &self.path(), jobs);
        cx.report.detail(&call.display());
        let outcome = process::run(&call, b"", cx.deadline, &cx.world);
        outcome.map(drop).map_err(|error| tools.explain(error, database))
    }

    /// Under which a process of ours finds it, from its beginning.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}
