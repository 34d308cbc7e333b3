//! One request on its way, on a thread of its own. Flows in: a request and its body, block by block. Flows out: its answer,
//! block by block. The client blocks, and a socket that stands still hears no signal; whoever waits here does, and leaves the
//! thread behind: it finds nobody there and ends, at the latest with its own time limit. A body that is left behind is never
//! sent to its end, so nothing comes of it. Touches the network.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use attohttpc::RequestBuilder;
use attohttpc::body::BodyKind;
use attohttpc::header::HeaderMap;
use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::Answer;
use crate::error::Error;
use crate::target::trouble::{Line, Trouble};
use crate::world::Cancel;

/// Bytes in a block.
const BLOCK_BYTES: usize = 64 * 1024;
/// Blocks that may be on their way.
const BLOCKS: usize = 4;
/// How often a wait looks for a signal.
const TICK: Duration = Duration::from_millis(50);

/// A body as the client sends it.
pub struct Fed {
    length: u64,
    blocks: Receiver<Vec<u8>>,
}

/// Where the body comes from.
pub struct Feed(Sender<Vec<u8>>);

/// The two ends of a body of that length.
pub fn body(length: u64) -> (Fed, Feed) {
    let (feed, blocks) = bounded(BLOCKS);
    (Fed { length, blocks }, Feed(feed))
}

impl attohttpc::body::Body for Fed {
    fn kind(&mut self) -> io::Result<BodyKind> {
        Ok(BodyKind::KnownLength(self.length))
    }

    fn write<W: Write>(&mut self, mut writer: W) -> io::Result<()> {
        let mut left = self.length;
        while left > 0 {
            let block = self.blocks.recv().map_err(|_| io::Error::other("nobody waits for it any more"))?;
            writer.write_all(&block)?;
            left = left.saturating_sub(block.len() as u64);
        }
        Ok(())
    }
}

impl Feed {
    /// Hands the body over; counts what is taken.
    ///
    /// # Errors
    /// A signal. When the line fails, the answer says so.
    pub fn send(self, body: &[u8], cancel: &Cancel, moved: &Arc<AtomicU64>) -> Result<(), Trouble> {
        for block in body.chunks(BLOCK_BYTES) {
            let mut block = block.to_vec();
            loop {
                match self.0.send_timeout(block, TICK) {
                    Ok(()) => break,
                    Err(SendTimeoutError::Disconnected(_)) => return Ok(()),
                    Err(SendTimeoutError::Timeout(back)) => block = back,
                }
                cancel.check().map_err(Trouble::Told)?;
            }
            moved.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

type Head = Result<(u16, HeaderMap), Trouble>;

/// A request that has been sent, or will be.
pub struct Waiting {
    head: Receiver<Head>,
    blocks: Receiver<io::Result<Vec<u8>>>,
}

/// Sends it.
///
/// # Errors
/// When there is no thread for it.
pub fn start(builder: RequestBuilder<Fed>) -> Result<Waiting, Trouble> {
    let (to_head, head) = bounded(1);
    let (to_blocks, blocks) = bounded(BLOCKS);
    let work = move || run(builder, &to_head, &to_blocks);
    match std::thread::Builder::new().name("request".to_owned()).spawn(work) {
        Ok(_) => Ok(Waiting { head, blocks }),
        Err(error) => Err(Trouble::Line(Line::Request, format!("no thread for a request: {error}"))),
    }
}

/// Whoever waited may be gone: then there is nothing left to do.
fn run(builder: RequestBuilder<Fed>, head: &Sender<Head>, blocks: &Sender<io::Result<Vec<u8>>>) {
    let mut body = match builder.send() {
        Err(error) => return drop(head.send(Err(Trouble::from_client(error)))),
        Ok(answer) => {
            let (status, headers, body) = answer.split();
            if head.send(Ok((status.as_u16(), headers))).is_err() {
                return;
            }
            body
        }
    };
    loop {
        let mut block = vec![0; BLOCK_BYTES];
        let piece = match body.read(&mut block) {
            Ok(0) => return,
            Ok(count) => {
                block.truncate(count);
                Ok(block)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = piece.is_err();
        if blocks.send(piece).is_err() || is_last {
            return;
        }
    }
}

impl Waiting {
    /// Its answer.
    ///
    /// # Errors
    /// None came, or a signal did.
    pub fn answer(self, cancel: &Cancel) -> Result<Answer, Trouble> {
        loop {
            match self.head.recv_timeout(TICK) {
                Ok(head) => {
                    let (status, headers) = head?;
                    let body = Body {
                        blocks: self.blocks,
                        block: Vec::new(),
                        taken: 0,
                        cancel: cancel.clone(),
                        failed: false,
                    };
                    return Ok(Answer { status, headers, body });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Trouble::Line(Line::Broken, "the request got lost".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => cancel.check().map_err(Trouble::Told)?,
            }
        }
    }
}

/// An answer's body. It may end too early without an error: compare.
#[derive(Debug)]
pub struct Body {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    taken: usize,
    cancel: Cancel,
    failed: bool,
}

impl Body {
    /// The next block; none at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.blocks.recv_timeout(TICK) {
                Ok(block) => {
                    self.failed |= block.is_err();
                    return block.map(Some);
                }
                Err(RecvTimeoutError::Disconnected) if self.failed => {
                    return Err(io::Error::other("the answer broke off"));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.cancel.check().map_err(Error::into_io)?,
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.block.len() {
            match self.next()? {
                Some(block) => (self.block, self.taken) = (block, 0),
                None => return Ok(0),
            }
        }
        let count = self.block.get(self.taken..).unwrap_or_default().read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}
