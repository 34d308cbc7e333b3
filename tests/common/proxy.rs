//! A proxy between the program and a real server that lets everything through but one request, by its number, which
//! meets a fault. It speaks as much HTTP as it takes to see where a request and its answer end: one of each on a
//! connection, as the program's client does it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before a byte is read.
    Refuse,
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
    WrongLength,
    /// 200 with an error document in it, the server not asked.
    ErrorIn200,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Refuse,
        Self::ResetRequest,
        Self::ResetAnswer,
        Self::Error500,
        Self::Error503,
        Self::Error500After,
        Self::Stall,
        Self::StallRequest,
        Self::StallAnswer,
        Self::Cut,
        Self::WrongLength,
        Self::ErrorIn200,
    ];
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

#[derive(Debug, Default)]
struct State {
    seen: AtomicUsize,
    plan: Mutex<Option<Plan>>,
    lines: Mutex<Vec<String>>,
    over: AtomicBool,
    canned: Mutex<Option<String>>,
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
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), shared, upstream) = (client, Arc::clone(&shared), upstream.clone()) else { continue };
                std::thread::spawn(move || drop(serve(client, &upstream, &shared)));
            }
        });
        Self { address, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on requests are counted from 0, and meet this.
    pub fn set(&self, plan: Option<Plan>) {
        *self.state.plan.lock().unwrap() = plan;
        self.state.lines.lock().unwrap().clear();
        self.state.seen.store(0, Ordering::SeqCst);
    }

    /// Answers every request with these bytes.
    pub fn answer(&self, bytes: &str) {
        *self.state.canned.lock().unwrap() = Some(bytes.to_owned());
    }

    /// Answers some requests by a bare status.
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn reset(client: &TcpStream) {
    // What is unread when a socket is closed makes a reset of it.
    let _ = client.shutdown(Shutdown::Both);
}

fn serve(mut client: TcpStream, upstream: &str, state: &State) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let number = state.seen.fetch_add(1, Ordering::SeqCst);
    let plan = *state.plan.lock().unwrap();
    let fault = plan.filter(|plan| (plan.at..plan.at + plan.count).contains(&number)).map(|plan| plan.fault);
    if fault == Some(Fault::Refuse) {
        state.lines.lock().unwrap().push("(refused)".to_owned());
        return Ok(());
    }
    let (head, mut body) = read_head(&mut client)?;
    state.lines.lock().unwrap().push(line(&head));
    let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0usize);
    if let Some(fault @ (Fault::ResetRequest | Fault::StallRequest)) = fault {
        let mut half = vec![0; length.saturating_sub(body.len()) / 2];
        client.read_exact(&mut half)?;
        match fault {
            Fault::ResetRequest => reset(&client),
            // Long enough for any patience of the tests.
            _ => std::thread::sleep(Duration::from_secs(8)),
        }
        return Ok(());
    }
    let had = body.len();
    body.resize(length.max(had), 0);
    client.read_exact(&mut body[had..])?;
    let canned = state.canned.lock().unwrap().clone();
    if let Some(canned) = canned {
        return client.write_all(canned.as_bytes());
    }
    let status = state.refused.lock().unwrap().and_then(|refuser| refuser(&head));
    if let Some(status) = status {
        return client.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }
    let is_head = head.starts_with("HEAD");
    let error = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
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
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(head.as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let editor = *state.edited.lock().unwrap();
    if let (Some(editor), Some(end)) = (editor, head_end(&answer)) {
        let body = answer.split_off(end);
        answer = editor(String::from_utf8_lossy(&answer).into_owned()).into_bytes();
        answer.extend(body);
    }
    match fault {
        Some(Fault::ResetAnswer) => {
            reset(&client);
            Ok(())
        }
        Some(Fault::Error500After) => client.write_all(make("500 x", "", &error("InternalError")).as_bytes()),
        Some(Fault::StallAnswer) => wait(&mut client),
        Some(Fault::Cut) => {
            let end = head_end(&answer).unwrap_or(0);
            let rest = answer.len() - end;
            let kept = if rest > 0 { end + rest / 2 } else { end / 2 };
            client.write_all(&answer[..kept])
        }
        Some(Fault::WrongLength) => client.write_all(&longer(&answer)),
        _ => client.write_all(&answer),
    }
}

/// Until the other side gives up.
fn wait(client: &mut TcpStream) -> std::io::Result<()> {
    let _ = client.read(&mut [0]);
    Ok(())
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn read_head(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(end) = head_end(&all) {
            let rest = all.split_off(end);
            return Ok((String::from_utf8_lossy(&all).into_owned(), rest));
        }
        match client.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

/// `PUT part 2`, `POST begin`, `HEAD`.
fn line(head: &str) -> String {
    let mut words = head.split_whitespace();
    let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let part = query.split('&').find_map(|pair| pair.strip_prefix("partNumber="));
    // Google's kind.
    if let Some(range) = header(head, "content-range") {
        return format!("{method} {range}");
    }
    // tus.
    if let Some(offset) = header(head, "upload-offset") {
        return format!("{method} from {offset}");
    }
    if url.ends_with("/token") {
        return "token".to_owned();
    }
    let what = match (method, query, part) {
        ("POST", query, _) if query.starts_with("uploadType=resumable") => "begin".to_owned(),
        ("DELETE", query, _) if query.contains("upload_id") => "cancel".to_owned(),
        (_, _, Some(part)) => format!("part {part}"),
        ("POST", ..) if url.ends_with("/v1/uploads") => "begin".to_owned(),
        ("POST", "uploads", _) | ("POST", "uploads=", _) => "begin".to_owned(),
        ("POST", query, _) if query.starts_with("delete") => "delete".to_owned(),
        ("POST", ..) => "complete".to_owned(),
        ("DELETE", query, _) if query.contains("uploadId") => "abort".to_owned(),
        ("GET", query, _) if query.starts_with("uploads") => "uploads".to_owned(),
        ("GET", ..) => header(head, "range").unwrap_or("all").to_owned(),
        _ => String::new(),
    };
    format!("{method} {what}").trim().to_owned()
}

fn longer(answer: &[u8]) -> Vec<u8> {
    let end = head_end(answer).unwrap_or(0);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let length: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let lines = head.lines().map(|line| match line.split_once(':') {
        Some((key, _)) if key.eq_ignore_ascii_case("content-length") => format!("{key}: {}\r\n", length + 7),
        _ => format!("{line}\r\n"),
    });
    let mut all: Vec<u8> = lines.collect::<String>().into_bytes();
    all.extend_from_slice(&answer[end..]);
    all
}
