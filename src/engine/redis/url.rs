//! A Redis or Valkey URL. Flows in: the text that the configuration gives. Flows out: where the server is, with the
//! password apart. Touches nothing.

use crate::engine::url::{decode, secret, wrong};
use crate::error::Result;
use crate::secret::Secret;

/// The schemes, those of TCP, of TLS, and of sockets.
pub const SCHEMES: &[&str] =
    &["redis", "valkey", "rediss", "valkeys", "redis+unix", "valkey+unix", "redis-socket", "valkey-socket", "unix"];
/// Query parameters that name a value for an option of the client.
const OPTIONS: [&str; 5] = ["cacert", "cacertdir", "cert", "key", "sni"];

/// Where a server is and how to get in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The password, if the URL holds one.
    pub password: Option<Secret>,
    /// The ACL user, if the URL names one.
    pub user: Option<String>,
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// Its socket, where it has one.
    pub socket: Option<String>,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    options: Vec<String>,
}

impl Place {
    /// Takes a URL apart. Messages never quote it: it may hold a password.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] when it isn't such a URL, or names one database of the server.
    pub fn parse(url: &Secret) -> Result<Self> {
        let (scheme, rest) = url.expose().split_once("://").unwrap_or(("", ""));
        if !SCHEMES.contains(&scheme) {
            return Err(wrong("it must start with redis://, rediss://, redis+unix:// or the same of valkey"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        // A name or address can't hold an @, so the last one ends the credentials, however the password is written.
        let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let mut place = Self {
            password: Some(secret(password)?).filter(|secret| !secret.expose().is_empty()),
            user: Some(decode(user)?).filter(|user| !user.is_empty()),
            tls: matches!(scheme, "rediss" | "valkeys"),
            ..Self::default()
        };
        if matches!(scheme, "unix" | "redis-socket" | "valkey-socket") || scheme.ends_with("+unix") {
            if path.len() < 2 || !host.is_empty() {
                return Err(wrong("it names no socket").hint("write redis+unix:///path/of/the/socket"));
            }
            place.socket = Some(decode(path)?);
        } else {
            (place.host, place.port) = host_and_port(host)?;
            only_database(path.trim_start_matches('/'))?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong("a query parameter has no =").hint("write it as ?name=value&name=value"))?;
            place.parameter(&decode(name)?.replace('_', "-"), value)?;
        }
        Ok(place)
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "password" => self.password = Some(secret(value)?),
            "db" => only_database(&decode(value)?)?,
            "insecure" => self.options.extend((value == "true").then(|| "--insecure".to_owned())),
            name if OPTIONS.contains(&name) => self.options.extend([format!("--{name}"), decode(value)?]),
            _ => {
                return Err(wrong("a query parameter is unknown")
                    .hint(format!("known are {}, insecure, password", OPTIONS.join(", "))));
            }
        }
        Ok(())
    }

    /// Of a server of ours, by its socket.
    pub fn of_socket(path: String, password: Secret) -> Self {
        Self { socket: Some(path), password: Some(password), ..Self::default() }
    }

    /// The client's options that say where the server is and who we are.
    pub fn options(&self) -> Vec<String> {
        let mut words: Vec<String> = match &self.socket {
            Some(socket) => vec!["-s".to_owned(), socket.clone()],
            None => vec!["-h".to_owned(), self.host.clone(), "-p".to_owned(), self.port.to_string()],
        };
        if self.tls {
            words.push("--tls".to_owned());
            words.extend(self.options.iter().cloned());
        }
        if let Some(user) = &self.user {
            words.extend(["--user".to_owned(), user.clone()]);
        }
        words.push("--no-auth-warning".to_owned());
        words
    }

    /// The server, for messages.
    pub fn server(&self) -> String {
        match &self.socket {
            Some(socket) => socket.clone(),
            None if self.host.contains(':') => format!("[{}]:{}", self.host, self.port),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

fn only_database(text: &str) -> Result<()> {
    if text.is_empty() || text == "0" {
        return Ok(());
    }
    Err(wrong("it names one database of the server, but a backup is always of all of them")
        .hint("leave out what stands behind the host and port"))
}

fn host_and_port(text: &str) -> Result<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) =
                bracketed.split_once(']').ok_or_else(|| wrong("the ] after an IPv6 address is missing"))?;
            if !(port.is_empty() || port.starts_with(':')) {
                return Err(wrong("after the ] of an IPv6 address stands neither a port nor a /"));
            }
            (host, port.strip_prefix(':').unwrap_or(""))
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    if port.contains(':') {
        return Err(wrong("the host has more than one colon").hint("put an IPv6 address in brackets: [::1]"));
    }
    let number = match port {
        "" => 6379,
        port => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
            wrong("the port is not a number from 1 to 65535").hint("write a / or # or ? in a password as %2F, %23, %3F")
        })?,
    };
    let host = Some(decode(host)?).filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned());
    Ok((host, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        Place::parse(&Secret::new(url)).unwrap()
    }

    #[test]
    fn urls() {
        let plain = place("redis://");
        assert_eq!((plain.server().as_str(), plain.tls), ("127.0.0.1:6379", false));
        let full = place("rediss://u%40x:p%2F%25%3A@[::1]:7000/0?cacert=/ca.pem&sni=h");
        assert_eq!(full.password, Some(Secret::new("p/%:")));
        let words = full.options().join(" ");
        assert_eq!(words, "-h ::1 -p 7000 --tls --cacert /ca.pem --sni h --user u@x --no-auth-warning");
        assert_eq!(full.server(), "[::1]:7000");
        let socket = place("redis+unix://:p@/run/redis%20x.sock?db=0");
        assert_eq!(socket.options(), ["-s", "/run/redis x.sock", "--no-auth-warning"]);
        assert_eq!(place("unix:///s").server(), "/s");
        assert_eq!(place("redis://:a@b@h").password, Some(Secret::new("a@b")));
    }

    #[test]
    fn mistakes_are_told_without_the_url() {
        for (url, said) in [
            ("mysql://h", "redis://"),
            ("redis://canary:canary@h:x", "port"),
            ("redis://h/3", "all of them"),
            ("redis://h?db=3", "all of them"),
            ("redis+unix://h", "socket"),
            ("redis://h?x=canary", "unknown"),
            ("redis://::1", "brackets"),
            ("redis://:%zz@h", "%"),
        ] {
            let error = Place::parse(&Secret::new(url)).unwrap_err();
            let text = format!("{error} {}", error.hint.clone().unwrap_or_default());
            assert!(text.contains(said) && !text.contains("canary"), "{url}: {text}");
        }
    }
}
