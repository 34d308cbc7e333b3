//! As much HTTP as the stub speaks: one request on a connection, read whole; answers as Google's JSON API has them.

use std::collections::HashMap;
use std::io::Read;
use std::net::TcpStream;

use attohttpc::Method;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// A request, read.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// Status line, headers, body.
pub type Reply = (String, Vec<(&'static str, String)>, Vec<u8>);

pub fn document(status: &str, value: &Value) -> Reply {
    (status.to_owned(), vec![("Content-Type", "application/json; charset=UTF-8".to_owned())], value.to_string().into())
}

pub fn refusal(status: u16, reason: &str, message: &str) -> Reply {
    let errors = json!([{"message": message, "domain": "global", "reason": reason}]);
    document(&format!("{status} x"), &json!({"error": {"code": status, "message": message, "errors": errors}}))
}

pub fn read(client: &mut TcpStream) -> std::io::Result<Request> {
    let (mut all, mut buffer) = (Vec::new(), [0; 64 * 1024]);
    let end = loop {
        if let Some(at) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => all.extend_from_slice(&buffer[..count]),
        }
        if all[0] == 0x16 {
            // TLS: told so, as real servers do it.
            std::io::Write::write_all(client, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    };
    let mut body = all.split_off(end);
    let head = String::from_utf8_lossy(&all).into_owned();
    let mut words = head.split_whitespace();
    let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let pairs = |text: &str| -> HashMap<String, String> {
        let plain = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        text.split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (plain(name), plain(value)))
            .collect()
    };
    let headers: HashMap<String, String> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0usize);
    let had = body.len();
    body.resize(length.max(had), 0);
    client.read_exact(&mut body[had..])?;
    Ok(Request { method: method.parse().unwrap(), path: path.to_owned(), query: pairs(query), headers, body })
}

pub fn rand() -> [u8; 18] {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
