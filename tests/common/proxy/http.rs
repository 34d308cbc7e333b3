//! As much HTTP as the proxy speaks: where a request and its answer end, what stands in their heads, and what a fault
//! makes of them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Reads a request's head and so much of it as `most` says of the head's length and the body's, and waits for one byte
/// more: what is unread when a socket is closed makes a reset of it. Gives the head, and all of it that was seen.
pub fn read_some(client: &mut TcpStream, most: fn(usize, usize) -> usize) -> io::Result<(String, Vec<u8>)> {
    let (mut seen, started) = (vec![0; 64 * 1024], Instant::now());
    let end = loop {
        let count = client.peek(&mut seen)?;
        match head_end(&seen[..count]) {
            Some(end) => break end,
            None if count == 0 || started.elapsed() > Duration::from_secs(30) => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
    let taken = most(end, length_of(&head));
    let mut all = vec![0; taken + 1];
    client.read_exact(&mut all[..taken])?;
    if client.peek(&mut all[taken..])? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((head, all))
}

pub fn length_of(head: &str) -> usize {
    header(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Sends it to the server and reads the answer.
pub fn ask(upstream: &str, head: &[u8], body: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(head)?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

pub fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>")
}

pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

pub fn read_head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(end) = head_end(&all) {
            let rest = all.split_off(end);
            return Ok((String::from_utf8_lossy(&all).into_owned(), rest));
        }
        match client.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

/// `PUT part 2`, `POST begin`, `HEAD`.
pub fn line(head: &str) -> String {
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

pub fn longer(answer: &[u8], by: i64) -> Vec<u8> {
    let end = head_end(answer).unwrap_or(0);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let length = i64::try_from(length_of(&head)).unwrap();
    let lines = head.lines().map(|line| match line.split_once(':') {
        Some((key, _)) if key.eq_ignore_ascii_case("content-length") => format!("{key}: {}\r\n", (length + by).max(0)),
        _ => format!("{line}\r\n"),
    });
    let mut all: Vec<u8> = lines.collect::<String>().into_bytes();
    all.extend_from_slice(&answer[end..]);
    all
}
