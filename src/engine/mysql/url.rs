//! A MySQL or MariaDB URL. Flows in: the text that the configuration gives. Flows out: where the server is, with the
//! password apart. Touches nothing.

use super::tools::Family;
use crate::engine::url::{decode, secret, wrong};
use crate::error::Result;
use crate::secret::Secret;

/// Query parameters that become options of the tools, by their names.
const FILES: [&str; 3] = ["ssl-ca", "ssl-cert", "ssl-key"];
const MODES: [&str; 5] = ["disabled", "preferred", "required", "verify_ca", "verify_identity"];
/// The longest name of a schema, in characters.
pub const NAME_CHARS: usize = 64;

/// Where a database is and how to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The schema's name.
    pub database: String,
    /// The password, if the URL holds one.
    pub password: Option<Secret>,
    /// The user, if the URL names one.
    pub user: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    socket: Option<String>,
    ssl_mode: Option<String>,
    files: Vec<(String, String)>,
}

impl Place {
    /// Takes a URL apart. Messages never quote it: it may hold a password.
    ///
    /// # Errors
    /// [`Kind::Config`] when it isn't such a URL, or names no database.
    pub fn parse(url: &Secret) -> Result<Self> {
        let rest = ["mysql://", "mariadb://"]
            .iter()
            .find_map(|scheme| url.expose().strip_prefix(scheme))
            .ok_or_else(|| wrong("it must start with mysql:// or mariadb://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // A name or address can't hold an @, so the last one ends the credentials, however the password is written.
        let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = host_and_port(host)?;
        let mut place = Self {
            database: decode(database)?,
            password: Some(secret(password)?).filter(|secret| !secret.expose().is_empty()),
            user: Some(decode(user)?).filter(|user| !user.is_empty()),
            host: Some(host).filter(|host| !host.is_empty()),
            port,
            socket: None,
            ssl_mode: None,
            files: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong("a query parameter has no =").hint("write it as ?name=value&name=value"))?;
            place.parameter(&decode(name)?.replace('_', "-"), value)?;
        }
        if place.database.is_empty() {
            return Err(wrong("it names no database").hint("add it at the end: mysql://user@host:3306/database"));
        }
        if place.database.chars().count() > NAME_CHARS {
            return Err(wrong(format!("a database's name has at most {NAME_CHARS} characters")));
        }
        Ok(place)
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "password" => self.password = Some(secret(value)?),
            "socket" => self.socket = Some(decode(value)?),
            "ssl-mode" | "sslmode" => {
                let mode = decode(value)?.to_ascii_lowercase().replace('-', "_");
                if !MODES.contains(&mode.as_str()) {
                    return Err(wrong(format!("ssl-mode is none of {}", MODES.join(", "))));
                }
                self.ssl_mode = Some(mode);
            }
            name if FILES.contains(&name) => self.files.push((name.to_owned(), decode(value)?)),
            _ => {
                return Err(wrong("a query parameter is unknown")
                    .hint(format!("known are socket, ssl-mode, {}, password", FILES.join(", "))));
            }
        }
        Ok(())
    }

    /// The options that say where the server is, as tools of this family and version know them.
    pub fn options(&self, tool: Family) -> Vec<String> {
        let mut options = Vec::new();
        let mut add = |name: &str, value: Option<&str>| options.extend(value.map(|value| format!("--{name}={value}")));
        if self.socket.is_some() {
            add("protocol", Some("socket"));
            add("socket", self.socket.as_deref());
        } else if self.host.is_some() {
            // `localhost` would mean the socket otherwise, and the port would be passed over.
            add("protocol", Some("tcp").filter(|_| self.port.is_some() || self.host.as_deref() != Some("localhost")));
            add("host", self.host.as_deref());
            add("port", self.port.map(|port| port.to_string()).as_deref());
        }
        add("user", self.user.as_deref());
        for (name, path) in &self.files {
            add(name, Some(path));
        }
        match (tool, self.ssl_mode.as_deref()) {
            (_, None) => {}
            (Family::MySql, Some(mode)) => options.push(format!("--ssl-mode={}", mode.to_ascii_uppercase())),
            (Family::MariaDb, Some("disabled")) => options.push("--skip-ssl".to_owned()),
            (Family::MariaDb, Some("verify_ca" | "verify_identity")) => {
                options.extend(["--ssl".to_owned(), "--ssl-verify-server-cert".to_owned()]);
            }
            (Family::MariaDb, Some(_)) => options.push("--ssl".to_owned()),
        }
        options
    }

    /// The server, for messages.
    pub fn server(&self) -> String {
        match (&self.socket, &self.host, self.port) {
            (Some(socket), ..) => socket.clone(),
            (None, None, _) => "the local server".to_owned(),
            (None, Some(host), None) => host.clone(),
            (None, Some(host), Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
            (None, Some(host), Some(port)) => format!("{host}:{port}"),
        }
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>)> {
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
        "" => None,
        port => Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
            wrong("the port is not a number from 1 to 65535").hint("write a / or # or ? in a password as %2F, %23, %3F")
        })?),
    };
    Ok((decode(host)?, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn parse(url: &str) -> Result<Place> {
        Place::parse(&Secret::new(url))
    }

    #[test]
    fn urls_and_what_the_tools_get() {
        let table = [
            ("mysql://u@h:3307/d", "--protocol=tcp --host=h --port=3307 --user=u", "d", ""),
            ("mariadb://u:p%40s%2Fs@h/d", "--protocol=tcp --host=h --user=u", "d", "p@s/s"),
            ("mysql://u:p@ss:w@localhost/d", "--host=localhost --user=u", "d", "p@ss:w"),
            ("mysql:///my%20%60db", "", "my `db", ""),
            ("mysql://u@[::1]:3307/d", "--protocol=tcp --host=::1 --port=3307 --user=u", "d", ""),
            (
                "mysql://u@h/d?socket=/run/m.sock&password=x",
                "--protocol=socket --socket=/run/m.sock --user=u",
                "d",
                "x",
            ),
            ("mysql://h/d?ssl-mode=required", "--protocol=tcp --host=h --ssl", "d", ""),
        ];
        for (url, options, database, password) in table {
            let place = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(place.options(Family::MariaDb).join(" "), options, "{url}");
            assert_eq!(place.database, database);
            assert_eq!(place.password.as_ref().map_or("", Secret::expose), password, "{url}");
        }
        let place = parse("mysql://h/d?ssl_mode=VERIFY_CA&ssl-ca=/ca.pem").unwrap();
        assert_eq!(place.options(Family::MySql).get(2..).unwrap(), ["--ssl-ca=/ca.pem", "--ssl-mode=VERIFY_CA"]);
    }

    #[test]
    fn wrong_urls_are_named_without_their_secrets() {
        for url in [
            "postgres://u:canary@h/d",
            "mysql://:canary@h",
            "mysql://u:canary@h:port/d",
            "mysql://u:canary@::1/d",
            "mysql://u:canary@[::1/d",
            "mysql://u:canary%@h/d",
            "mysql://u:canary%00@h/d",
            "mysql://u@h/d?canary=x",
            "mysql://u@h/d?ssl-mode=canary",
            "mysql://u@h/d?canary",
            "",
        ] {
            let error = parse(url).expect_err(url);
            assert_eq!(error.kind, Kind::Config);
            assert!(!format!("{error:?}").contains("canary"), "{url}: {error:?}");
            assert!(error.message.starts_with("url: "), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = parse(&text);
            let _ = parse(&format!("mysql://{text}"));
        }
    }
}
