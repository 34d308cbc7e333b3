//! The other side of a replication: a server that is told to follow us gets the backup. Flows in: a checked backup and the
//! name and password that the server will give. Flows out: how far it has come. Touches one listening socket on the address
//! by which the server reaches us, and a thread for each connection to it.
//!
//! Whoever else connects gets nothing: a stranger does not know the token, which lives for one restore, or is the password that
//! the server has for its primaries.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::spool::{PIECE_BYTES, Spool};
use crate::error::{Context, Error, Kind, Result, io_reason};
use crate::secret::Secret;

/// How long a connection may say nothing before it has asked for the data, and may take none of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the listener looks whether it is to end.
const TICK: Duration = Duration::from_millis(10);
/// The longest command of a replica, in bytes.
const COMMAND_BYTES: usize = 16 * 1024;
/// How many connections are talked to at once.
const CONNECTIONS: usize = 16;
/// How far our offset lies behind the server's own, so that none of its own replicas takes its old data for ours.
const AHEAD: u64 = 1 << 40;

/// Who may have the data.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// What the server gives as its user.
    pub user: String,
    /// What it gives as its password.
    pub token: Secret,
}

/// What has happened.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The server has shown the token.
    known: AtomicBool,
    /// Somebody asked for the data.
    asked: AtomicUsize,
    sent: AtomicU64,
    whole: AtomicBool,
    talking: AtomicUsize,
    trouble: Mutex<Option<String>>,
}

/// A listener that feeds one server. Dropped, it ends with all its connections.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// What is to be sent, and to whom.
#[derive(Debug)]
struct Offer {
    file: std::fs::File,
    bytes: u64,
    ticket: Ticket,
    /// A replication id, for a server that names none.
    id: String,
}

/// The address of ours by which `host` reaches us.
///
/// # Errors
/// [`Kind::Tool`] when there is no way to it.
pub fn our_address(host: &str, port: u16) -> Result<IpAddr> {
    let failed = || format!("can't find out by which address {host} would reach this host");
    let any = |host: &str| std::net::ToSocketAddrs::to_socket_addrs(&(host, port)).map(Iterator::collect::<Vec<_>>);
    let found = any(host).doing(Kind::Tool, failed())?;
    let there = found.first().ok_or_else(|| Error::new(Kind::Tool, failed()))?;
    // Nothing is sent: only the system's choice of a way is asked for.
    let probe = UdpSocket::bind(if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).doing(Kind::Tool, failed())?;
    probe.connect(there).doing(Kind::Tool, failed())?;
    Ok(probe.local_addr().doing(Kind::Tool, failed())?.ip())
}

impl Feed {
    /// Begins to listen on `ip`.
    ///
    /// # Errors
    /// [`Kind::Tool`] when no socket can be had.
    pub fn start(spool: &Spool, ip: IpAddr, ticket: Ticket, id: String) -> Result<Self> {
        let failed = || format!("can't listen on {ip} for the server");
        let listener = TcpListener::bind((ip, 0)).doing(Kind::Tool, failed())?;
        let address = listener.local_addr().doing(Kind::Tool, failed())?;
        listener.set_nonblocking(true).doing(Kind::Tool, failed())?;
        let file = spool.file.try_clone().doing(Kind::Tool, "can't read the backup again")?;
        let offer = Arc::new(Offer { file, bytes: spool.bytes, ticket, id });
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = std::thread::spawn(move || listen(&listener, &offer, &its));
        Ok(Self { shared, address, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the server has shown its token.
    pub fn is_known(&self) -> bool {
        self.shared.known.load(Ordering::SeqCst)
    }

    /// How many times the data was asked for.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// How many bytes are sent, and whether that is all.
    pub fn sent(&self) -> (u64, bool) {
        (self.shared.sent.load(Ordering::SeqCst), self.shared.whole.load(Ordering::SeqCst))
    }

    /// What went wrong with the last connection.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn listen(listener: &TcpListener, offer: &Arc<Offer>, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) if shared.talking.load(Ordering::SeqCst) < CONNECTIONS => {
                let (offer, shared) = (Arc::clone(offer), Arc::clone(shared));
                shared.talking.fetch_add(1, Ordering::SeqCst);
                threads.push(std::thread::spawn(move || {
                    if let Err(error) = talk(stream, &offer, &shared)
                        && !shared.stop.load(Ordering::SeqCst)
                    {
                        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(io_reason(&error));
                    }
                    shared.talking.fetch_sub(1, Ordering::SeqCst);
                }));
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(TICK),
        }
        threads.retain(|thread| !thread.is_finished());
    }
    for thread in threads {
        drop(thread.join());
    }
}

/// Reads in short turns, so that the end of the restore is noticed.
struct Line<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    buffer: Vec<u8>,
}

impl Line<'_> {
    fn more(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        let mut waited = Duration::ZERO;
        loop {
            if self.shared.stop.load(Ordering::SeqCst) {
                return Err(io::Error::other("the restore has ended"));
            }
            match (&mut &*self.stream).read(&mut piece) {
                Ok(0) => return Err(io::Error::other("the server closed the connection")),
                Ok(count) => {
                    self.buffer.extend(piece.iter().take(count));
                    return Ok(());
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    waited += TICK;
                    if waited > PATIENCE {
                        return Err(io::Error::other("the server says nothing"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next command's words.
    fn command(&mut self) -> io::Result<Vec<Vec<u8>>> {
        loop {
            if let Some((words, used)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(words);
            }
            if self.buffer.len() > COMMAND_BYTES {
                return Err(io::Error::other("a command is too long"));
            }
            self.more()?;
        }
    }
}

/// One command, as an array of strings or as a line of words; `None` when it is not there whole yet.
fn parse(bytes: &[u8]) -> io::Result<Option<(Vec<Vec<u8>>, usize)>> {
    let wrong = || io::Error::other("what the server sends is no command");
    let line = |from: usize| -> Option<(&[u8], usize)> {
        let rest = bytes.get(from..)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        Some((rest.get(..end)?, from + end + 2))
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok());
    let Some((first, mut at)) = line(0) else { return Ok(None) };
    let Some(count) = first.strip_prefix(b"*") else {
        let words = first.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        return Ok(Some((words.map(<[u8]>::to_vec).collect(), at)));
    };
    let count = number(count).filter(|count| *count <= 64).ok_or_else(wrong)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let Some((size, next)) = line(at) else { return Ok(None) };
        let size = size.strip_prefix(b"$").and_then(number).filter(|size| *size <= COMMAND_BYTES).ok_or_else(wrong)?;
        let Some(word) = bytes.get(next..next + size) else { return Ok(None) };
        if bytes.len() < next + size + 2 {
            return Ok(None);
        }
        words.push(word.to_vec());
        at = next + size + 2;
    }
    Ok(Some((words, at)))
}

/// Whether two texts are the same, in a time that tells nothing of where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    let differing = left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b));
    left.len() == right.len() && differing == 0
}

fn talk(stream: TcpStream, offer: &Offer, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Line { stream: &stream, shared, buffer: Vec::new() };
    let mut known = false;
    loop {
        let words = line.command()?;
        let text = |at: usize| words.get(at).map_or(&b""[..], Vec::as_slice);
        let name = String::from_utf8_lossy(text(0)).to_ascii_uppercase();
        let say = |answer: &str| (&stream).write_all(answer.as_bytes());
        match (name.as_str(), known) {
            ("", _) => {}
            ("AUTH", _) => {
                let (user, password) = if words.len() > 2 { (text(1), text(2)) } else { (&b""[..], text(1)) };
                let good = same(password, offer.ticket.token.expose().as_bytes())
                    & (words.len() == 2 || same(user, offer.ticket.user.as_bytes()));
                if !good {
                    say("-WRONGPASS this is not your restore\r\n")?;
                    return Ok(());
                }
                known = true;
                shared.known.store(true, Ordering::SeqCst);
                say("+OK\r\n")?;
            }
            (_, false) => say("-NOAUTH Authentication required.\r\n")?,
            ("PING", true) => say("+PONG\r\n")?,
            ("REPLCONF", true) if text(1).eq_ignore_ascii_case(b"ack") => {}
            ("REPLCONF", true) => say("+OK\r\n")?,
            ("PSYNC" | "SYNC", true) => {
                if shared.asked.fetch_add(1, Ordering::SeqCst) > 0 {
                    return Err(io::Error::other("the server asked for the data a second time"));
                }
                if name == "PSYNC" {
                    say(&accept(text(1), text(2), &offer.id))?;
                }
                send(&stream, offer, shared)?;
            }
            (_, true) => say("-ERR unknown command\r\n")?,
        }
    }
}

/// The answer to PSYNC. The server's own id is given back to it: then it loads beside its data and goes on answering.
fn accept(id: &[u8], offset: &[u8], spare: &str) -> String {
    let own = id.len() == 40 && id.iter().all(u8::is_ascii_hexdigit);
    let id = if own { String::from_utf8_lossy(id).into_owned() } else { spare.to_owned() };
    let offset: u64 = std::str::from_utf8(offset).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    format!("+FULLRESYNC {id} {}\r\n", offset.saturating_add(AHEAD))
}

fn send(mut stream: &TcpStream, offer: &Offer, shared: &Shared) -> io::Result<()> {
    stream.write_all(format!("${}\r\n", offer.bytes).as_bytes())?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < offer.bytes {
        if shared.stop.load(Ordering::SeqCst) {
            return Err(io::Error::other("the restore has ended"));
        }
        let count = offer.file.read_at(&mut piece, at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.write_all(piece.get(..count).unwrap_or_default())?;
        at += count as u64;
        shared.sent.store(at, Ordering::SeqCst);
    }
    shared.whole.store(true, Ordering::SeqCst);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_in_pieces() {
        let whole = b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\nPING\r\n";
        for cut in 0..30 {
            assert_eq!(parse(&whole[..cut]).unwrap(), None, "{cut}");
        }
        let (words, used) = parse(whole).unwrap().unwrap();
        assert_eq!(words, [b"PSYNC".to_vec(), b"?".to_vec(), b"-1".to_vec()]);
        assert_eq!(parse(&whole[used..]).unwrap().unwrap().0, [b"PING".to_vec()]);
        assert!(parse(b"*99999\r\n").is_err() && parse(b"*1\r\n$999999\r\n").is_err());
    }

    #[test]
    fn the_servers_own_id_comes_back_with_an_offset_of_no_replica() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(accept(id.as_bytes(), b"15", "x"), format!("+FULLRESYNC {id} {}\r\n", AHEAD + 15));
        assert_eq!(accept(b"?", b"-1", "spare"), format!("+FULLRESYNC spare {AHEAD}\r\n"));
    }

    #[test]
    fn only_the_token_opens() {
        assert!(same(b"token", b"token"));
        for other in [&b"tokem"[..], b"toke", b"tokenx", b""] {
            assert!(!same(other, b"token"));
        }
    }
}
