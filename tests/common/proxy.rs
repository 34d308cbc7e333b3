//! A proxy between the program and a real server that lets everything through but one request, by its number, which
//! meets a fault. It speaks as much HTTP as it takes to see where a request and its answer end: one of each on a
//! connection, as the program's client does it.

mod http;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use http::{ask, error, head_end, header, length_of, line, longer, read_head, read_some};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use voxeltron_backup::target::http::Patience;
use voxeltron_backup::world::{Clock, World};

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens at the port: the system itself refuses the connection. Once, until the client has paused (it must
    /// have [`Proxy::world`]'s clock); more than once, until the next [`Proxy::set`].
    Refuse,
    /// The connection is closed before a byte is read.
    Close,
    /// A reset in the middle of the request.
    ResetRequest,
    /// The server does what it was asked, and the connection is reset instead of an answer.
    ResetAnswer,
    /// 500, the server not asked.
    Error500,
    /// 503 with Retry-After, the server not asked.
    Error503,
    /// 500 after the server has done it.
    Error500After,
    /// Nothing comes, and the server is not asked.
    Stall,
    /// Half of the request is taken, and no more.
    StallRequest,
    /// The server does it, and the answer does not come.
    StallAnswer,
    /// The answer ends in the middle of its body, or of its head if it has none.
    Cut,
    /// The answer says that its body is longer than it is.
    TooLong,
    /// The answer says that its body is shorter than it is.
    TooShort,
    /// 200 with an error document in it, the server not asked.
    ErrorIn200,
}

impl Fault {
    pub const ALL: [Self; 14] = [
        Self::Refuse,
        Self::Close,
        Self::ResetRequest,
        Self::ResetAnswer,
        Self::Error500,
        Self::Error503,
        Self::Error500After,
        Self::Stall,
        Self::StallRequest,
        Self::StallAnswer,
        Self::Cut,
        Self::TooLong,
        Self::TooShort,
        Self::ErrorIn200,
    ];
}

/// A fault once, at every request of something: `run` gives `ok` or `clean failure`, and panics at anything else. Every
/// fault must be got over but those of `fatal`, `METHOD Fault` in order, each of which ends it at one request at least. Prints
/// the table.
#[allow(clippy::print_stdout, reason = "the tables of faults")]
pub fn table(title: &str, lines: &[String], fatal: &[&str], run: &mut dyn FnMut(Plan) -> &'static str) {
    let mut table = format!("{title}\n{:<4}{:<32}", "", "request");
    Fault::ALL.iter().for_each(|fault| table.push_str(&format!("{:<15}", format!("{fault:?}"))));
    let mut failed = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        table.push_str(&format!("\n{at:<4}{line:<32}"));
        for fault in Fault::ALL {
            let outcome = run(Plan { at, count: 1, fault });
            if outcome != "ok" {
                failed.insert(format!("{} {fault:?}", line.split(' ').next().unwrap_or_default()));
            }
            table.push_str(&format!("{outcome:<15}"));
        }
    }
    println!("{table}");
    assert_eq!(failed.iter().map(String::as_str).collect::<Vec<_>>(), fatal, "{title}: what it did not get over");
}

/// The patience of a client behind a proxy with this fault. With one that stands still it is to end within the test: these
/// milliseconds for an answer and for a completion, but never while a busy machine is at work, which takes `whole` for all of
/// it without a fault. With any other it has no part in the test.
pub fn patience(fault: Option<Fault>, [answer, completion]: [u64; 2], slowest: u64, whole: Duration) -> Patience {
    let stands = matches!(fault, Some(Fault::Stall | Fault::StallRequest | Fault::StallAnswer));
    let time = |short| if stands { Duration::from_millis(short).max(whole) } else { Duration::from_secs(60) };
    Patience { connect: Duration::from_secs(10), answer: time(answer), completion: time(completion), slowest }
}

/// What is to go wrong: from which request on (counted from 0), for how many, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub at: usize,
    pub count: usize,
    pub fault: Fault,
}

/// From a request's head to the status that it gets instead of the server's.
pub type Refuser = fn(&str) -> Option<&'static str>;

/// From an answer's head to the one that the client gets.
pub type Editor = fn(String) -> String;

/// From a request's head to all that its client gets instead of the server's answer, if it does.
pub type Canner = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

#[derive(Default)]
struct Canned(Mutex<Option<Canner>>);

impl std::fmt::Debug for Canned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Canned(…)")
    }
}

impl Plan {
    fn fault(&self, number: usize) -> Option<Fault> {
        (number >= self.at && number - self.at < self.count).then_some(self.fault)
    }
}

/// Whether anybody listens at the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Door {
    #[default]
    Open,
    Closing,
    Closed,
    Opening,
}

#[derive(Debug, Default)]
struct State {
    door: Mutex<Door>,
    moved: Condvar,
    /// How many bytes of bodies it still takes before it dies.
    left: Mutex<Option<usize>>,
    dead: AtomicBool,
    seen: AtomicUsize,
    plan: Mutex<Option<Plan>>,
    lines: Mutex<Vec<String>>,
    heads: Mutex<Vec<String>>,
    over: AtomicBool,
    canned: Mutex<Option<String>>,
    some_canned: Canned,
    refused: Mutex<Option<Refuser>>,
    edited: Mutex<Option<Editor>>,
    one_at_a_time: bool,
    gate: Mutex<()>,
}

/// The proxy; it ends with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Listens on a free port, and forwards to `upstream`, `HOST:PORT`. The host's name in requests stays the proxy's, as
    /// it was signed. `one_at_a_time`: conditional requests wait for each other.
    pub fn new(upstream: String, one_at_a_time: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { one_at_a_time, ..State::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || listen(listener, &upstream, &shared));
        Self { address, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The real world, but that a pause of this client opens a port that was closed for one request.
    pub fn world(&self) -> World {
        World { clock: Arc::new(Knocking(Arc::clone(&self.state), World::system().clock)), ..World::system() }
    }

    /// From now on requests are counted from 0, and meet this. One that had died is alive again.
    pub fn set(&self, plan: Option<Plan>) {
        self.state.open();
        self.state.dead.store(false, Ordering::SeqCst);
        *self.state.left.lock().unwrap() = None;
        *self.state.plan.lock().unwrap() = plan;
        self.state.lines.lock().unwrap().clear();
        self.state.heads.lock().unwrap().clear();
        self.state.seen.store(0, Ordering::SeqCst);
        if plan.and_then(|plan| plan.fault(0)) == Some(Fault::Refuse) {
            self.state.close(self.address);
        }
    }

    /// After so many bytes of bodies it is as if the server had been killed: what is under way is reset, and nobody
    /// listens any more.
    pub fn die_after(&self, bytes: usize) {
        *self.state.left.lock().unwrap() = Some(bytes);
    }

    /// Whether it has died.
    pub fn is_dead(&self) -> bool {
        self.state.dead.load(Ordering::SeqCst)
    }

    /// Answers every request with these bytes.
    pub fn answer(&self, bytes: &str) {
        *self.state.canned.lock().unwrap() = Some(bytes.to_owned());
    }

    /// Answers some requests by bytes that may depend on what was asked.
    pub fn answer_some(&self, canner: Canner) {
        *self.state.some_canned.0.lock().unwrap() = Some(canner);
    }

    /// Answers some requests by a status: bare, or `403 AccessDenied:`, with that word in S3's error document.
    pub fn refuse(&self, refuser: Refuser) {
        *self.state.refused.lock().unwrap() = Some(refuser);
    }

    /// Changes the head of every answer.
    pub fn edit(&self, editor: Editor) {
        *self.state.edited.lock().unwrap() = Some(editor);
    }

    /// The requests since [`Proxy::set`]: method and query, without the key.
    pub fn lines(&self) -> Vec<String> {
        self.state.lines.lock().unwrap().clone()
    }

    /// The heads of the requests since [`Proxy::set`] that met no fault.
    pub fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        self.state.moved.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

/// A clock on which nobody waits before a closed port is open again.
#[derive(Debug)]
struct Knocking(Arc<State>, Arc<dyn Clock>);

impl Clock for Knocking {
    fn now(&self) -> DateTime<Utc> {
        self.1.now()
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn sleep(&self, time: Duration) {
        let once = self.0.plan.lock().unwrap().is_some_and(|plan| plan.count == 1);
        if once && !self.0.dead.load(Ordering::SeqCst) {
            self.0.open();
        }
        self.1.sleep(time);
    }
}

impl State {
    fn fault(&self, number: usize) -> Option<Fault> {
        self.plan.lock().unwrap().and_then(|plan| plan.fault(number))
    }

    /// Waits until somebody listens.
    fn open(&self) {
        let mut door = self.door.lock().unwrap();
        while *door != Door::Open {
            if *door == Door::Closed {
                *door = Door::Opening;
                self.moved.notify_all();
            }
            door = self.moved.wait(door).unwrap();
        }
    }

    /// Waits until nobody listens.
    fn close(&self, address: SocketAddr) {
        let mut door = self.door.lock().unwrap();
        *door = Door::Closing;
        // It waits for a connection, and looks after each.
        let _ = TcpStream::connect(address);
        while *door == Door::Closing {
            door = self.moved.wait(door).unwrap();
        }
    }

    /// The listener is gone; waits until there must be one again, and says whether.
    fn wait_closed(&self) -> bool {
        let mut door = self.door.lock().unwrap();
        *door = Door::Closed;
        self.moved.notify_all();
        while *door == Door::Closed && !self.over.load(Ordering::SeqCst) {
            door = self.moved.wait(door).unwrap();
        }
        !self.over.load(Ordering::SeqCst)
    }

    fn opened(&self) {
        *self.door.lock().unwrap() = Door::Open;
        self.moved.notify_all();
    }
}

fn listen(mut listener: TcpListener, upstream: &str, state: &Arc<State>) {
    let address = listener.local_addr().unwrap();
    loop {
        for client in listener.incoming() {
            if state.over.load(Ordering::SeqCst) {
                return;
            }
            if *state.door.lock().unwrap() == Door::Closing {
                break;
            }
            let number = state.seen.fetch_add(1, Ordering::SeqCst);
            let (Ok(client), shared, upstream) = (client, Arc::clone(state), upstream.to_owned()) else { continue };
            std::thread::spawn(move || drop(serve(client, number, &upstream, &shared, address)));
            if state.fault(number + 1) == Some(Fault::Refuse) {
                *state.door.lock().unwrap() = Door::Closing;
                break;
            }
        }
        drop(listener);
        if !state.dead.load(Ordering::SeqCst) {
            state.lines.lock().unwrap().push("(refused)".to_owned());
            state.seen.fetch_add(1, Ordering::SeqCst);
        }
        if !state.wait_closed() {
            return;
        }
        // Somebody's connection may have got the number meanwhile.
        let started = Instant::now();
        listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{address} is not ours: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        state.opened();
    }
}

/// Reads a body as far as there is life left for it; whether there was.
fn take(client: &mut TcpStream, body: &mut [u8], state: &State, address: SocketAddr) -> std::io::Result<bool> {
    for piece in body.chunks_mut(64 * 1024) {
        if state.dead.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let mut left = state.left.lock().unwrap();
        let ends = left.is_some_and(|left| left < piece.len());
        if let Some(left) = &mut *left {
            *left = left.saturating_sub(piece.len());
        }
        drop(left);
        if ends && !state.dead.swap(true, Ordering::SeqCst) {
            state.close(address);
        }
        if ends {
            return Ok(false);
        }
        client.read_exact(piece)?;
    }
    Ok(true)
}

fn serve(
    mut client: TcpStream,
    number: usize,
    upstream: &str,
    state: &State,
    address: SocketAddr,
) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let fault = state.fault(number);
    if fault == Some(Fault::Close) {
        state.lines.lock().unwrap().push("(closed)".to_owned());
        return Ok(());
    }
    if fault == Some(Fault::ResetAnswer) {
        let (head, all) = read_some(&mut client, |head, body| head + body - 1)?;
        state.lines.lock().unwrap().push(line(&head));
        return ask(upstream, &all, b"").map(drop);
    }
    if fault == Some(Fault::ResetRequest) {
        let (head, _) = read_some(&mut client, |head, body| if body > 1 { head + body / 2 } else { head - 1 })?;
        state.lines.lock().unwrap().push(line(&head));
        return Ok(());
    }
    let (head, mut body) = read_head(&mut client)?;
    state.lines.lock().unwrap().push(line(&head));
    state.heads.lock().unwrap().push(head.clone());
    let length = length_of(&head);
    if fault == Some(Fault::StallRequest) {
        let mut half = vec![0; length.saturating_sub(body.len()) / 2];
        client.read_exact(&mut half)?;
        return leave(&client);
    }
    let had = body.len();
    body.resize(length.max(had), 0);
    if !take(&mut client, &mut body[had..], state, address)? {
        return Ok(());
    }
    let canned = state.canned.lock().unwrap().clone();
    if let Some(canned) = canned {
        return client.write_all(canned.as_bytes());
    }
    let canned = state.some_canned.0.lock().unwrap().as_ref().and_then(|canner| canner(&head));
    if let Some(canned) = canned {
        return client.write_all(canned.as_bytes());
    }
    let status = state.refused.lock().unwrap().and_then(|refuser| refuser(&head));
    if let Some(status) = status {
        let code = status.strip_suffix(':').and_then(|status| status.split_once(' '));
        let document = code.map_or_else(String::new, |(_, code)| error(code));
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", document.len());
        return client.write_all(format!("{head}{document}").as_bytes());
    }
    let is_head = head.starts_with("HEAD");
    let make = |status: &str, more: &str, text: &str| {
        let shown = if is_head { "" } else { text };
        format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{shown}", text.len())
    };
    match fault {
        Some(Fault::Error500) => return client.write_all(make("500 x", "", &error("InternalError")).as_bytes()),
        Some(Fault::Error503) => {
            return client.write_all(make("503 x", "Retry-After: 1\r\n", &error("SlowDown")).as_bytes());
        }
        Some(Fault::ErrorIn200) => return client.write_all(make("200 OK", "", &error("InternalError")).as_bytes()),
        Some(Fault::Stall) => return wait(&mut client),
        _ => {}
    }
    let is_conditional =
        header(&head, "if-none-match").is_some() || (head.starts_with("PUT") && header(&head, "if-match").is_some());
    let conditional = state.one_at_a_time && is_conditional;
    let _alone = conditional.then(|| state.gate.lock().unwrap());
    let mut answer = ask(upstream, head.as_bytes(), &body)?;
    if state.dead.load(Ordering::SeqCst) {
        return Ok(());
    }
    let editor = *state.edited.lock().unwrap();
    if let (Some(editor), Some(end)) = (editor, head_end(&answer)) {
        let body = answer.split_off(end);
        answer = editor(String::from_utf8_lossy(&answer).into_owned()).into_bytes();
        answer.extend(body);
    }
    match fault {
        Some(Fault::Error500After) => client.write_all(make("500 x", "", &error("InternalError")).as_bytes()),
        Some(Fault::StallAnswer) => wait(&mut client),
        Some(Fault::Cut) => {
            let end = head_end(&answer).unwrap_or(0);
            let rest = answer.len() - end;
            let kept = if rest > 0 { end + rest / 2 } else { end / 2 };
            client.write_all(&answer[..kept])
        }
        Some(Fault::TooLong) => client.write_all(&longer(&answer, 7)),
        Some(Fault::TooShort) => client.write_all(&longer(&answer, -7)),
        _ => client.write_all(&answer),
    }
}

/// Until the other side gives up, without taking more of what it sends; or long enough for any patience of the tests.
fn leave(client: &TcpStream) -> std::io::Result<()> {
    let enough = Timespec { tv_sec: 120, tv_nsec: 0 };
    poll(&mut [PollFd::new(client, PollFlags::RDHUP)], Some(&enough))?;
    Ok(())
}

/// Until the other side gives up.
fn wait(client: &mut TcpStream) -> std::io::Result<()> {
    let _ = client.read(&mut [0]);
    Ok(())
}
