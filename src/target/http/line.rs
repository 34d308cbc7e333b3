//! One request on its way, on a thread of its own. Flows in: a request and its body, block by block. Flows out: its answer,
//! block by block. The client blocks, and a socket that stands still hears no signal; whoever waits here does, and leaves the
//! thread behind: it finds nobody there and ends, at the latest with its own time limit. A body that is left behind is never
//! sent to its end, so nothing comes of it. Touches the network.
//!
//! A server that takes no more of a body may have said why before it closed the line: a quota, a right, a key. So a write that
//! fails is followed by a read, and a refusal that has come is the answer. Nothing else is: no success is believed of a body
//! that was not sent whole.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// The least status that is a refusal.
const REFUSAL: u16 = 400;

/// Why a body was not sent whole.
type Unsent = Arc<Mutex<Option<io::Error>>>;

/// A body as the client sends it.
pub struct Fed {
    length: u64,
    blocks: Receiver<Vec<u8>>,
    unsent: Unsent,
}

/// Where the body comes from.
pub struct Feed {
    blocks: Sender<Vec<u8>>,
    unsent: Unsent,
}

/// The two ends of a body of that length.
pub fn body(length: u64) -> (Fed, Feed) {
    let ((feed, blocks), unsent) = (bounded(BLOCKS), Unsent::default());
    (Fed { length, blocks, unsent: Arc::clone(&unsent) }, Feed { blocks: feed, unsent })
}

impl attohttpc::body::Body for Fed {
    fn kind(&mut self) -> io::Result<BodyKind> {
        Ok(BodyKind::KnownLength(self.length))
    }

    fn write<W: Write>(&mut self, mut writer: W) -> io::Result<()> {
        let mut left = self.length;
        while left > 0 {
            let block = self.blocks.recv().map_err(|_| io::Error::other("nobody waits for it any more"))?;
            if let Err(error) = writer.write_all(&block) {
                let is_closed = matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
                );
                if !is_closed {
                    return Err(error);
                }
                // The client reads what has come before.
                *self.unsent.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Ok(());
            }
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
                match self.blocks.send_timeout(block, TICK) {
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

/// Sends it, with the body that comes from there.
///
/// # Errors
/// When there is no thread for it.
pub fn start(builder: RequestBuilder<Fed>, feed: &Feed) -> Result<Waiting, Trouble> {
    let unsent = Arc::clone(&feed.unsent);
    let (to_head, head) = bounded(1);
    let (to_blocks, blocks) = bounded(BLOCKS);
    let work = move || run(builder, &unsent, &to_head, &to_blocks);
    match std::thread::Builder::new().name("request".to_owned()).spawn(work) {
        Ok(_) => Ok(Waiting { head, blocks }),
        Err(error) => Err(Trouble::Line(Line::Request, format!("no thread for a request: {error}"))),
    }
}

/// Whoever waited may be gone: then there is nothing left to do.
fn run(builder: RequestBuilder<Fed>, unsent: &Unsent, head: &Sender<Head>, blocks: &Sender<io::Result<Vec<u8>>>) {
    let sent = builder.send();
    let unsent = unsent.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut body = match (sent, unsent) {
        (Ok(answer), Some(error)) if answer.status().as_u16() < REFUSAL => {
            return drop(head.send(Err(Trouble::from_io(&error))));
        }
        (Err(_), Some(error)) => return drop(head.send(Err(Trouble::from_io(&error)))),
        (Err(error), None) => return drop(head.send(Err(Trouble::from_client(error)))),
        (Ok(answer), _) => {
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use attohttpc::Method;

    use super::*;
    use crate::world::World;

    /// What comes of 32 MiB to a server that reads the head, says this, and closes.
    fn answered(said: &'static str) -> Result<Answer, Trouble> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::with_capacity(1, stream.try_clone().unwrap()).lines();
            lines.map(Result::unwrap).find(String::is_empty).unwrap();
            stream.write_all(said.as_bytes()).unwrap();
        });
        let bytes = vec![1; 32 << 20];
        let (body, feed) = body(bytes.len() as u64);
        let waiting = start(RequestBuilder::new(Method::PUT, url).body(body), &feed)?;
        let cancel = World::system().cancel;
        feed.send(&bytes, &cancel, &Arc::default())?;
        let answer = waiting.answer(&cancel);
        server.join().unwrap();
        answer
    }

    #[test]
    fn a_refusal_is_heard_though_the_body_was_not_taken() {
        let answer = answered("HTTP/1.1 507 x\r\nContent-Length: 4\r\n\r\nfull").unwrap();
        let mut text = String::new();
        let (status, mut body) = (answer.status, answer.body);
        body.read_to_string(&mut text).unwrap();
        assert_eq!((status, text.as_str()), (507, "full"));
    }

    #[test]
    fn no_success_is_believed_of_a_body_that_was_not_taken() {
        for said in ["HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 308 x\r\nContent-Length: 0\r\n\r\n", ""] {
            let outcome = answered(said);
            assert!(
                matches!(outcome, Err(Trouble::Line(Line::Broken, _))),
                "{said:?}: {:?}",
                outcome.map(|it| it.status)
            );
        }
    }
}
