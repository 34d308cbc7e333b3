//! A MongoDB connection string. Flows in: the text that the configuration gives. Flows out: where the server is, as the
//! tools take it, with the password apart. Touches nothing.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::engine::url::{decode, secret, wrong};
use crate::error::Result;
use crate::secret::Secret;

/// What begins the URL of servers that DNS names.
const SRV: &str = "mongodb+srv://";
/// The longest name of a database, in bytes.
pub const NAME_BYTES: usize = 63;
/// What a database's name can't hold.
const FORBIDDEN: [char; 7] = ['/', '\\', '.', ' ', '"', '$', '\0'];
/// What the names of parameters hold that are secrets themselves, for which the tools have no way but an argument: passwords
/// of a key, of a proxy, of whatever comes next; and properties, of which some are tokens.
const SECRET_PARAMETERS: [&str; 2] = ["password", "authmechanismproperties"];
/// How to log in without a password.
const WITHOUT_PASSWORD: [&str; 4] = ["MONGODB-X509", "GSSAPI", "MONGODB-AWS", "MONGODB-OIDC"];
/// Parameters by which reading may go to another member of a replica set, or give what is older.
const READING: [&str; 4] = ["readpreference", "readpreferencetags", "maxstalenessseconds", "readconcernlevel"];
/// Bytes that end or edit a password where the tools read it: their input is taken for a terminal's.
const EDITING: [char; 7] = ['\0', '\x03', '\x04', '\x08', '\n', '\r', '\x7f'];

/// Where a database is and how to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The database's name.
    pub database: String,
    /// The password, if the URL holds one.
    pub password: Option<Secret>,
    /// The user, if the URL names one.
    pub user: Option<String>,
    scheme: &'static str,
    hosts: String,
    parameters: Vec<(String, String)>,
}

impl Place {
    /// Takes a URL apart. Messages never quote it: it may hold a password.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] when it isn't such a URL, or names no database.
    pub fn parse(url: &Secret) -> Result<Self> {
        let schemes = ["mongodb://", SRV];
        let (scheme, rest) = schemes
            .iter()
            .find_map(|scheme| Some((*scheme, url.expose().strip_prefix(scheme)?)))
            .ok_or_else(|| wrong("it must start with mongodb:// or mongodb+srv://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let mut place = Self {
            database: decode(database)?,
            password: Some(secret(password)?).filter(|secret| !secret.expose().is_empty()),
            user: Some(decode(user)?).filter(|user| !user.is_empty()),
            scheme,
            hosts: hosts.to_owned(),
            parameters: Vec::new(),
        };
        let named = |c: char| c.is_ascii_alphanumeric() || "-_.:,[]%".contains(c);
        if place.hosts.is_empty() || !place.hosts.chars().all(named) {
            return Err(wrong("it names no host").hint("write it as mongodb://user@host:27017/database"));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            place.parameter(pair)?;
        }
        check_name(&place.database)
            .map_err(|error| error.hint("add it at the end: mongodb://user@host:27017/database"))?;
        place.check_password(place.password.as_ref())?;
        Ok(place)
    }

    fn parameter(&mut self, pair: &str) -> Result<()> {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong("a query parameter has no =").hint("write it as ?name=value&name=value"))?;
        let (name, value) = (decode(name)?, decode(value)?);
        if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(wrong("a query parameter's name is none"));
        }
        let lower = name.to_ascii_lowercase();
        if SECRET_PARAMETERS.iter().any(|secret| lower.contains(secret)) {
            let hint = match lower.starts_with("proxy") {
                true => "go through a proxy that asks for no password, or through a tunnel",
                false => "use a key file without a password that only this user can read",
            };
            return Err(
                wrong(format!("{name} can't be given: the tools would show it in the list of processes")).hint(hint)
            );
        }
        self.parameters.push((name, value));
        Ok(())
    }

    /// Looks whether the tools can be given a password.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] when they would read another.
    pub fn check_password(&self, password: Option<&Secret>) -> Result<()> {
        match password {
            Some(password) if password.expose().contains(EDITING) => {
                Err(wrong("the password holds a control character that mongodump takes for the end of its input")
                    .hint("give the user another password"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the tools ask for a password.
    pub fn wants_password(&self) -> bool {
        let mechanism = self.value("authMechanism").unwrap_or_default();
        self.user.is_some() && !WITHOUT_PASSWORD.iter().any(|other| mechanism.eq_ignore_ascii_case(other))
    }

    /// How long to look for a server, in seconds, where the URL says so: the tools take the URL's own milliseconds for
    /// seconds.
    pub fn selection_seconds(&self) -> Option<u64> {
        let milliseconds: u64 = self.value("serverSelectionTimeoutMS")?.parse().ok()?;
        Some(milliseconds.div_ceil(1000).max(1))
    }

    /// The same place, where all is read from the member that takes the writes, as it is there now.
    pub fn at_primary(&self) -> Self {
        let mut place = self.clone();
        place.parameters.retain(|(name, _)| !READING.contains(&name.to_ascii_lowercase().as_str()));
        place
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether DNS may name the database that knows the user: then it must not be given apart, for that would overrule what
    /// DNS says. Without its word all tools take the database of the path, as mongodump takes that of `--db`.
    pub fn names_database(&self) -> bool {
        self.scheme == SRV && self.needs_source()
    }

    fn needs_source(&self) -> bool {
        self.user.is_some() && self.value("authSource").is_none() && self.wants_password()
    }

    /// The connection string without the password and, where it can be, without the database, which is given apart: what
    /// the user is checked against stays what it was.
    pub fn uri(&self, for_tools: bool) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let user = self.user.as_ref().map(|user| format!("{}@", encode(user))).unwrap_or_default();
        let mut parameters: Vec<_> = self
            .parameters
            .iter()
            .filter(|(name, _)| !(for_tools && name.eq_ignore_ascii_case("serverSelectionTimeoutMS")))
            .cloned()
            .collect();
        let path = if self.names_database() { encode(&self.database) } else { String::new() };
        if self.needs_source() && path.is_empty() {
            parameters.push(("authSource".to_owned(), self.database.clone()));
        }
        let query: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        format!("{}{user}{}/{path}?{}", self.scheme, self.hosts, query.join("&")).trim_end_matches('?').to_owned()
    }

    /// The server, for messages.
    pub fn server(&self) -> &str {
        &self.hosts
    }
}

/// Whether a database can have this name.
///
/// # Errors
/// [`crate::error::Kind::Config`] with the reason.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(wrong("it names no database"));
    }
    if name.len() > NAME_BYTES || name.contains(FORBIDDEN) {
        return Err(wrong(format!(
            "a database's name has at most {NAME_BYTES} bytes and none of / \\ . \" $ and the space"
        )));
    }
    Ok(())
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
            ("mongodb://h/d", "mongodb://h/", "d", ""),
            ("mongodb://u:p%40s%2Fs@h:1,i:2/d", "mongodb://u@h:1,i:2/?authSource=d", "d", "p@s/s"),
            (
                "mongodb://u@[::1]:27017/d?authSource=admin&tls=true",
                "mongodb://u@[::1]:27017/?authSource=admin&tls=true",
                "d",
                "",
            ),
            (
                "mongodb+srv://u%3A:p@ss:w@h/ü%25?replicaSet=r%20s",
                "mongodb+srv://u%3A@h/%C3%BC%25?replicaSet=r%20s",
                "ü%",
                "p@ss:w",
            ),
            ("mongodb+srv://u@h/d?authSource=admin", "mongodb+srv://u@h/?authSource=admin", "d", ""),
            ("mongodb+srv://h/d", "mongodb+srv://h/", "d", ""),
            ("mongodb://u@h/d?authMechanism=MONGODB-X509", "mongodb://u@h/?authMechanism=MONGODB%2DX509", "d", ""),
        ];
        for (url, uri, database, password) in table {
            let place = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((place.uri(true).as_str(), place.database.as_str()), (uri, database), "{url}");
            assert_eq!(place.password.as_ref().map_or("", Secret::expose), password, "{url}");
        }
        let place = parse("mongodb://h/d?serverSelectionTimeoutMS=1500").unwrap();
        assert_eq!((place.uri(true).as_str(), place.selection_seconds()), ("mongodb://h/", Some(2)));
        assert!(place.uri(false).ends_with("?serverSelectionTimeoutMS=1500"));
        let url = "mongodb://h/d?readPreference=nearest&readPreferenceTags=dc%3Any&readPreferenceTags=&tls=true\
                   &maxStalenessSeconds=120&READCONCERNLEVEL=available";
        let place = parse(url).unwrap();
        assert!(place.uri(true).contains("?readPreference=nearest&readPreferenceTags=dc%3Any&readPreferenceTags=&tls"));
        assert_eq!(place.at_primary().uri(true), "mongodb://h/?tls=true");
    }

    #[test]
    fn wrong_urls_are_named_without_their_secrets() {
        for url in [
            "postgres://u:canary@h/d",
            "mongodb://u:canary@h",
            "mongodb://u:canary@h/",
            "mongodb://u:canary@/d",
            "mongodb://u:canary@h o/d",
            "mongodb://u:canary%@h/d",
            "mongodb://u:canary%0a@h/d",
            "mongodb://u:canary@h/a.b",
            "mongodb://u:canary@h/a%20b",
            "mongodb://u@h/d?canary",
            "mongodb://u@h/d?tlsCertificateKeyFilePassword=canary",
            "mongodb://u@h/d?sslClientCertificateKeyPassword=canary",
            "mongodb://u@h/d?authMechanismProperties=AWS_SESSION_TOKEN:canary",
            "mongodb://u@h/d?proxyHost=p&proxyUsername=u&proxyPassword=canary",
            "mongodb://u@h/d?PROXYPASSWORD=canary",
            "mongodb://u@h/d?proxy%50assword=canary",
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
            let _ = parse(&format!("mongodb://{text}"));
        }
    }
}
