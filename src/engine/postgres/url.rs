//! A PostgreSQL URL. Flows in: the text that the configuration gives. Flows out: connection parameters as libpq takes
//! them, with every secret apart from them, since they end up in a process's arguments. Touches nothing.

use std::collections::BTreeMap;

use crate::engine::url::{decode, secret, wrong};
use crate::error::Result;
use crate::secret::Secret;

/// How long a tool waits for one server's answer where the URL doesn't say, in seconds.
const CONNECT_TIMEOUT_SECONDS: &str = "30";
/// Parameters that are secrets and that libpq takes from nowhere but the connection string, where everybody sees them.
const SECRET_PARAMETERS: [&str; 4] = ["sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"];
/// Parts of what people call a password. libpq knows no such parameter, but it would refuse it only after it had shown.
const LIKE_SECRETS: [&str; 4] = ["pass", "pwd", "secret", "token"];

/// Where a database is and how to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The database's name.
    pub database: String,
    /// The password, if the URL holds one.
    pub password: Option<Secret>,
    parameters: BTreeMap<String, String>,
}

impl Place {
    /// Takes a URL apart as libpq would. Messages never quote it: it may hold a password.
    ///
    /// # Errors
    /// [`Kind::Config`] when it isn't a PostgreSQL URL, or names no database.
    pub fn parse(url: &Secret) -> Result<Self> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.expose().strip_prefix(scheme))
            .ok_or_else(|| wrong("it must start with postgres:// or postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // `user:/pass@host/db`: the rest of the password would pass for the database's name, and show everywhere.
        let cut_short = database.contains('@') || (!rest.contains('/') && query.contains('@'));
        if cut_short && authority.contains(':') && !authority.contains('@') {
            return Err(wrong("an @ stands where no user and password can stand")
                .hint("write a / or ? in a password as %2F, %3F, and an @ in a database's name as %40"));
        }
        // A name or address can't hold an @, so the last one ends the credentials, however the password is written.
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));

        let mut given = BTreeMap::new();
        let (host, port) = hosts_and_ports(hosts)?;
        let parts = [("user", decode(user)?), ("host", host), ("port", port), ("dbname", decode(database)?)];
        given.extend(parts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.to_owned(), v)));
        let mut password = Some(secret(password)?).filter(|secret| !secret.expose().is_empty());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong("a query parameter has no =").hint("write it as ?name=value&name=value"))?;
            match decode(name)?.as_str() {
                "password" => password = Some(secret(value)?),
                // As JDBC writes it; libpq reads it so too.
                "ssl" if value == "true" => drop(given.insert("sslmode".to_owned(), "require".to_owned())),
                name if SECRET_PARAMETERS.contains(&name) => {
                    return Err(wrong(format!("{name} would show in the list of processes"))
                        .hint("put it into a service file (~/.pg_service.conf, mode 0600) and add ?service=NAME"));
                }
                name if name != "passfile" && LIKE_SECRETS.iter().any(|part| name.to_lowercase().contains(part)) => {
                    return Err(wrong(format!(
                        "{name} is no parameter of PostgreSQL, and would show in the list of processes"
                    ))
                    .hint("set password = \"…\" beside the url, or write ?password=…"));
                }
                name => drop(given.insert(name.to_owned(), decode(value)?)),
            }
        }
        let database = given.remove("dbname").or_else(|| given.get("user").cloned()).ok_or_else(|| {
            wrong("it names no database").hint("add it at the end: postgres://user@host:5432/database")
        })?;
        given.entry("connect_timeout".to_owned()).or_insert_with(|| CONNECT_TIMEOUT_SECONDS.to_owned());
        Ok(Self { database, password, parameters: given })
    }

    /// The connection string for `database` on this server, without a password. Always in the form `name='value'`, for
    /// a bare database name that holds a `=` would be read as a connection string itself.
    pub fn conninfo(&self, database: &str, more: &[(&str, &str)]) -> String {
        let mut all: BTreeMap<&str, &str> = self.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        all.extend(more.iter().copied());
        std::iter::once(("dbname", database))
            .chain(all)
            .map(|(name, value)| format!("{name}='{}'", value.replace('\\', r"\\").replace('\'', r"\'")))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// What a restore has to add: of several servers it must find the one that takes writes, every time.
    pub fn for_writing(&self) -> &'static [(&'static str, &'static str)] {
        let several = self.parameters.get("host").is_some_and(|host| host.contains(','));
        let said = self.parameters.contains_key("target_session_attrs");
        if several && !said { &[("target_session_attrs", "read-write")] } else { &[] }
    }

    /// The role, if the URL names one.
    pub fn user(&self) -> Option<&str> {
        self.parameters.get("user").map(String::as_str)
    }

    /// The server, for messages.
    pub fn server(&self) -> String {
        let get = |name| self.parameters.get(name).map(String::as_str);
        match (get("host").or_else(|| get("hostaddr")), get("port")) {
            (None, None) => "the local server".to_owned(),
            (None, Some(port)) => format!("the local server at port {port}"),
            (Some(host), None) => host.to_owned(),
            (Some(host), Some(port)) if host.contains(',') => format!("{host} (ports {port})"),
            (Some(host), Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
            (Some(host), Some(port)) => format!("{host}:{port}"),
        }
    }
}

fn hosts_and_ports(hosts: &str) -> Result<(String, String)> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(bracketed) => {
                let (name, port) =
                    bracketed.split_once(']').ok_or_else(|| wrong("the ] after an IPv6 address is missing"))?;
                if !(port.is_empty() || port.starts_with(':')) {
                    return Err(wrong("after the ] of an IPv6 address stands neither a port nor a /"));
                }
                (name, port.strip_prefix(':').unwrap_or(""))
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        if port.contains(':') {
            return Err(wrong("a host has more than one colon").hint("put an IPv6 address in brackets: [::1]"));
        }
        let port = decode(port)?;
        if !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong("a port is not a number from 1 to 65535")
                .hint("write a / or # or ? in a password as %2F, %23, %3F"));
        }
        names.push(decode(name)?);
        ports.push(port);
    }
    // One port that is not given, or none of several, is libpq's default for all.
    let ports = if ports.iter().all(String::is_empty) { String::new() } else { ports.join(",") };
    Ok((names.join(","), ports))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn parse(url: &str) -> Result<Place> {
        Place::parse(&Secret::new(url))
    }

    #[test]
    fn urls_and_what_libpq_gets() {
        let table = [
            ("postgres://u@h:5433/d?sslmode=require", "dbname='d' host='h' port='5433' sslmode='require' user='u'", ""),
            ("postgresql://u:p%40s%2Fs@h/d", "dbname='d' host='h' user='u'", "p@s/s"),
            ("postgres://u:p@ss:w@h/d", "dbname='d' host='h' user='u'", "p@ss:w"),
            ("postgres://u@h", "dbname='u' host='h' user='u'", ""),
            ("postgres://u@h/", "dbname='u' host='h' user='u'", ""),
            ("postgres:///d", "dbname='d'", ""),
            ("postgres://u@[::1]:5433/d", "dbname='d' host='::1' port='5433' user='u'", ""),
            ("postgres://u@[::1]/d", "dbname='d' host='::1' user='u'", ""),
            ("postgres://u@%2Frun%2Fpostgresql/d", "dbname='d' host='/run/postgresql' user='u'", ""),
            ("postgres://u@/d?host=/run/postgresql&port=6", "dbname='d' host='/run/postgresql' port='6' user='u'", ""),
            ("postgres://u@a:1,b,[::2]:3/d", "dbname='d' host='a,b,::2' port='1,,3' user='u'", ""),
            ("postgres://u@a,b/d", "dbname='d' host='a,b' user='u'", ""),
            ("postgres://u@h/d?password=s%26t", "dbname='d' host='h' user='u'", "s&t"),
            ("postgres://u@h/d?ssl=true", "dbname='d' host='h' sslmode='require' user='u'", ""),
            ("postgres://h:5/d?user=v@w", "dbname='d' host='h' port='5' user='v@w'", ""),
            ("postgres://u@h:5/d@e?passfile=/p", "dbname='d@e' host='h' passfile='/p' port='5' user='u'", ""),
            ("postgres://h/d?user=v&dbname=e", "dbname='e' host='h' user='v'", ""),
            ("postgres://u@h/it%27s%5C%3D%20%C3%9C", r"dbname='it\'s\\= Ü' host='h' user='u'", ""),
            ("postgres://u@h/postgres%3A%2F%2Fx", "dbname='postgres://x' host='h' user='u'", ""),
            ("postgres://u@h/d?options=-c%20a%3Db", "dbname='d' host='h' options='-c a=b' user='u'", ""),
        ];
        for (url, conninfo, password) in table {
            let place = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let shown = place.conninfo(&place.database, &[]).replace(" connect_timeout='30'", "");
            assert_eq!(shown, conninfo, "{url}");
            assert_eq!(place.password.as_ref().map_or("", Secret::expose), password, "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_named_without_their_secrets() {
        let urls = [
            "mysql://u:canary@h/d",
            "postgres://:canary@h",
            "postgres://u:canary@h:port/d",
            "postgres://u:canary@h:99999/d",
            "postgres://u:canary@::1/d",
            "postgres://u:canary@[::1/d",
            "postgres://u:canary%@h/d",
            "postgres://u:canary%0g@h/d",
            "postgres://u:canary%00@h/d",
            "postgres://u:canary%ff@h/d",
            "postgres://u:canary@h/d?x",
            "postgres://u@h/d?sslpassword=canary",
            "postgres://u@h/d?PASSWORD=canary",
            "postgres://u@h/d?pass=canary",
            "postgres://u@h/d?pwd=canary",
            "postgres://u:/canary@h/d",
            "postgres://u:1/canary@h/d",
            "postgres://u:?x=canary@h/d",
            "postgres://",
            "",
        ];
        for url in urls {
            let error = parse(url).expect_err(url);
            assert_eq!(error.kind, Kind::Config);
            assert!(!format!("{error:?}").contains("canary"), "{url}: {error:?}");
            assert!(error.message.starts_with("url: "), "{error}");
        }
    }

    #[test]
    fn several_servers_are_written_to_where_that_is_possible() {
        assert!(parse("postgres://u@a,b/d").unwrap().for_writing().len() == 1);
        assert!(parse("postgres://u@a,b/d?target_session_attrs=any").unwrap().for_writing().is_empty());
        assert!(parse("postgres://u@a/d").unwrap().for_writing().is_empty());
    }

    #[test]
    fn the_given_timeout_stays() {
        let place = parse("postgres://u@h/d?connect_timeout=3").unwrap();
        assert_eq!(place.conninfo("d", &[]), "dbname='d' connect_timeout='3' host='h' user='u'");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = parse(&text);
            let _ = parse(&format!("postgres://{text}"));
        }
    }
}
