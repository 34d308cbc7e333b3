//! A way to a server whose connections can be reset at a chosen point, and at which none is taken for a while. Flows in: a
//! server's address, where to cut. Flows out: a port for the client. Touches the network of this host alone.
//!
//! A Redis server that is told to follow us comes by a connection of its own: the port that it is told is exchanged, as it
//! passes, for one of ours, and exchanged back where the server tells it, so that this connection is cut with the others.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(2);
/// How long the server has at least for what it was told last, once its answers don't pass any more; and at most, where a busy
/// one has not answered yet.
const ACTS: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(10)];
/// More than the half second after which a client of Redis tells how long an answer took.
const SLOW: Duration = Duration::from_millis(800);
const FOLLOW: &[u8] = b"\r\nREPLICAOF\r\n$9\r\n127.0.0.1\r\n$5\r\n";

/// So many points where a restore is killed or cut; with `VOXELTRON_TEST_LONG` set, as many as `long`.
pub fn points(short: u32, long: u32) -> u32 {
    if std::env::var_os("VOXELTRON_TEST_LONG").is_some() { long } else { short }
}

/// Where all connections are reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    Never,
    /// Behind so many bytes, both directions together.
    Bytes(u64),
    /// The server hears this from a client, at the time that is counted, and its answer is lost.
    Heard(&'static str, u64),
    /// The server does not hear this from a client, at the time that is counted and at the next one, when it is said again; the
    /// connection is cut after so long that the client tells how long it took.
    Lost(&'static str, u64),
}

#[derive(Debug)]
struct Shared {
    cut: Mutex<Cut>,
    refuses: Mutex<Duration>,
    passed: AtomicU64,
    heard: AtomicU64,
    mute: AtomicBool,
    /// Connections of an older age are reset.
    age: AtomicU64,
    closed_until: Mutex<Option<Instant>>,
    feed: Mutex<(String, u16)>,
    over: AtomicBool,
}

impl Shared {
    /// For how many times these words have been heard, if they are in this piece.
    fn hears(&self, piece: &[u8], words: &str) -> Option<u64> {
        let heard = piece.windows(words.len()).any(|part| part == words.as_bytes());
        heard.then(|| self.heard.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

#[derive(Debug)]
pub struct Cutter {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Cutter {
    /// To `server`, `host:port`.
    pub fn new(server: &str) -> Self {
        let shared = Arc::new(Shared {
            cut: Mutex::new(Cut::Never),
            refuses: Mutex::new(Duration::ZERO),
            passed: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            age: AtomicU64::new(0),
            closed_until: Mutex::new(None),
            feed: Mutex::new((String::new(), 0)),
            over: AtomicBool::new(false),
        });
        let feed = listen(Arc::clone(&shared), None);
        shared.feed.lock().unwrap().1 = feed;
        let port = listen(Arc::clone(&shared), Some(server.to_owned()));
        Self { port, shared }
    }

    /// How many bytes have passed since the last call of `arm`.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// Whether it has cut.
    pub fn happened(&self) -> bool {
        *self.shared.cut.lock().unwrap() == Cut::Never
    }

    /// Counts anew and cuts there, once; for so long after it no connection is taken.
    pub fn arm(&self, cut: Cut, refuses: Duration) {
        *self.shared.closed_until.lock().unwrap() = None;
        *self.shared.refuses.lock().unwrap() = refuses;
        self.shared.passed.store(0, Ordering::SeqCst);
        self.shared.heard.store(0, Ordering::SeqCst);
        *self.shared.cut.lock().unwrap() = cut;
    }

    /// Takes connections again and cuts nothing.
    pub fn open(&self) {
        self.arm(Cut::Never, Duration::ZERO);
        // What it listens with may have to be made again.
        std::thread::sleep(4 * TICK);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

/// A listener of its own, closed while nothing is taken; `server`: none is the one that asked last to be fed.
fn listen(shared: Arc<Shared>, server: Option<String>) -> u16 {
    let bind = |port: u16| {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let first = bind(0);
    let port = first.local_addr().unwrap().port();
    let mut listener = Some(first);
    std::thread::spawn(move || {
        while !shared.over.load(Ordering::SeqCst) {
            if shared.closed_until.lock().unwrap().is_some_and(|until| Instant::now() < until) {
                listener = None;
            } else {
                let taken = listener.get_or_insert_with(|| bind(port)).accept();
                if let Ok((client, _)) = taken {
                    let to = server.clone().unwrap_or_else(|| shared.feed.lock().unwrap().0.clone());
                    pass(&shared, client, &to, server.is_some());
                    continue;
                }
            }
            std::thread::sleep(TICK);
        }
    });
    port
}

fn pass(shared: &Arc<Shared>, client: TcpStream, to: &str, is_main: bool) {
    let Ok(server) = TcpStream::connect(to) else { return };
    let age = shared.age.load(Ordering::SeqCst);
    for stream in [&client, &server] {
        // Without a farewell: closed, it is reset.
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TICK)).unwrap();
    }
    let answers = Arc::new(AtomicU64::new(0));
    let both = [(client.try_clone().unwrap(), server.try_clone().unwrap(), true), (server, client, false)];
    for (from, to, is_client) in both {
        let (shared, answers) = (Arc::clone(shared), Arc::clone(&answers));
        std::thread::spawn(move || one_way(&shared, (from, to), age, is_main, is_client, &answers));
    }
}

/// `answers`: how many pieces have come from the server on this connection.
fn one_way(
    shared: &Shared,
    (mut from, mut to): (TcpStream, TcpStream),
    age: u64,
    is_main: bool,
    is_client: bool,
    answers: &AtomicU64,
) {
    let mut piece = [0; 16 * 1024];
    while shared.age.load(Ordering::SeqCst) == age && !shared.over.load(Ordering::SeqCst) {
        let count = match from.read(&mut piece) {
            Ok(0) => {
                let _ = to.shutdown(std::net::Shutdown::Write);
                return;
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        };
        let bytes = if is_main { exchanged(shared, &piece[..count], is_client) } else { piece[..count].to_vec() };
        let passed = shared.passed.fetch_add(count as u64, Ordering::SeqCst);
        let armed = shared.cut.lock().unwrap().clone();
        match armed {
            Cut::Bytes(limit) if passed + count as u64 >= limit => {
                let room = usize::try_from(limit.saturating_sub(passed)).unwrap();
                let _ = to.write_all(&bytes[..room.min(bytes.len())]);
                return cut(shared);
            }
            Cut::Heard(words, time) if is_client && shared.hears(&bytes, words) == Some(time) => {
                shared.mute.store(true, Ordering::SeqCst);
                let before = answers.load(Ordering::SeqCst);
                let _ = to.write_all(&bytes);
                let told = Instant::now();
                let acted = || answers.load(Ordering::SeqCst) > before && told.elapsed() >= ACTS[0];
                while !acted() && told.elapsed() < ACTS[1] {
                    std::thread::sleep(TICK);
                }
                return cut(shared);
            }
            Cut::Lost(words, time) if is_client => match shared.hears(&bytes, words) {
                Some(heard) if heard == time || heard == time + 1 => {
                    std::thread::sleep(SLOW);
                    if heard == time {
                        shared.age.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    return cut(shared);
                }
                _ => {}
            },
            _ => {}
        }
        if !is_client {
            answers.fetch_add(1, Ordering::SeqCst);
        }
        if shared.mute.load(Ordering::SeqCst) && !is_client {
            continue;
        }
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn cut(shared: &Shared) {
    let mut armed = shared.cut.lock().unwrap();
    if *armed == Cut::Never {
        return;
    }
    *armed = Cut::Never;
    let refuses = *shared.refuses.lock().unwrap();
    *shared.closed_until.lock().unwrap() = (!refuses.is_zero()).then(|| Instant::now() + refuses);
    shared.age.fetch_add(1, Ordering::SeqCst);
    shared.mute.store(false, Ordering::SeqCst);
}

/// The piece with the port of whom a Redis server follows exchanged for ours, or back.
fn exchanged(shared: &Shared, piece: &[u8], is_client: bool) -> Vec<u8> {
    let mut bytes = piece.to_vec();
    let mut feed = shared.feed.lock().unwrap();
    let ours = feed.1.to_string();
    let find = |bytes: &[u8], words: &[u8]| {
        bytes.windows(words.len()).position(|part| part == words).map(|at| at + words.len())
    };
    if is_client {
        if let Some(at) = find(&bytes, FOLLOW) {
            feed.0 = format!("127.0.0.1:{}", String::from_utf8_lossy(&bytes[at..at + 5]));
            bytes[at..at + 5].copy_from_slice(ours.as_bytes());
        }
    } else if let Some((_, theirs)) = feed.0.split_once(':') {
        let told = format!("master_port:{ours}\r");
        if let Some(end) = find(&bytes, told.as_bytes()) {
            bytes[end - 6..end - 1].copy_from_slice(theirs.as_bytes());
        }
    }
    bytes
}
