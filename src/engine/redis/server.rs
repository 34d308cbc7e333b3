//! What the server says of itself. Flows in: its answers. Flows out: [`Facts`], and which dumps it can load. Touches the
//! server, through the tools.

use std::collections::{BTreeMap, BTreeSet};

use super::rdb::Family;
use super::rdb::inspector::Keys;
use super::tools::{Tool, Tools, strings};
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};

/// What the server says of itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    info: BTreeMap<String, String>,
    /// Keys by the number of their database.
    pub keys: BTreeMap<u64, Keys>,
}

impl Facts {
    /// Asks the server.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be asked.
    pub fn ask(tools: &Tools, client: &Tool, cx: &Cx) -> Result<Self> {
        let text = tools.ask(client, ["INFO"], cx)?;
        let facts = Self::parse(&text);
        if !facts.text("redis_version").is_empty() {
            return Ok(facts);
        }
        // The client prints this answer as it is, an error too.
        let said = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        Err(tools.explain(Error::new(Kind::Tool, format!("INFO: the server says {said}"))))
    }

    fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            let number = name.strip_prefix("db").and_then(|number| number.parse().ok());
            if let (Some(number), true) = (number, value.starts_with("keys=")) {
                let part = |wanted: &str| {
                    let parts = value.split(',').filter_map(|part| part.split_once('='));
                    parts
                        .filter(|(name, _)| *name == wanted)
                        .find_map(|(_, value)| value.parse::<u64>().ok())
                        .unwrap_or(0)
                };
                let (all, expiring) = (part("keys"), part("expires"));
                facts.keys.insert(number, Keys { lasting: all.saturating_sub(expiring), expiring, fading: 0 });
            }
            facts.info.insert(name.to_owned(), value.to_owned());
        }
        facts
    }

    /// One line of INFO, or nothing.
    pub fn text(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    /// One line of INFO, as a number.
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// Whose server it is.
    pub fn is_valkey(&self) -> bool {
        self.text("server_name") == "valkey" || self.info.contains_key("valkey_version")
    }

    /// Its own version.
    pub fn version(&self) -> &str {
        if self.is_valkey() { self.text("valkey_version") } else { self.text("redis_version") }
    }

    /// Its kind and version, for messages.
    pub fn name(&self) -> String {
        format!("{} {}", if self.is_valkey() { "Valkey" } else { "Redis" }, self.version())
    }

    /// Whether it follows another server.
    pub fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }

    /// The server that it follows.
    pub fn master(&self) -> String {
        format!("{}:{}", self.text("master_host"), self.text("master_port"))
    }

    /// Its major and minor version.
    pub fn release(&self) -> (u32, u32) {
        release(self.version())
    }

    /// Refuses what is no whole database: a Sentinel, one node of several of a cluster.
    ///
    /// # Errors
    /// [`Kind::Tool`] with the reason.
    pub fn refuse_parts(&self, tools: &Tools, client: &Tool, cx: &Cx) -> Result<()> {
        if self.text("redis_mode") == "sentinel" {
            return Err(Error::new(Kind::Tool, "this is a Sentinel, which holds no data")
                .hint(format!("mend [databases.{}] url: name the server itself", tools.toolbox.configured)));
        }
        if self.text("cluster_enabled") != "1" {
            return Ok(());
        }
        let size = tools.ask(client, ["CLUSTER", "INFO"], cx)?;
        let size = size.lines().find_map(|line| line.trim().strip_prefix("cluster_size:")).unwrap_or("?").to_owned();
        match size.as_str() {
            "0" | "1" => Ok(()),
            size => Err(Error::new(
                Kind::Tool,
                format!("this is one node of a cluster of {size}: its dump would hold only a part of the data"),
            )
            .hint("clusters are not backed up by this version; dump each node by redis-cli --cluster backup")),
        }
    }
}

/// Major and minor number of a version.
pub fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The newest format that a server loads, of `REDIS` and of `VALKEY`.
pub fn loads(valkey: bool, release: (u32, u32)) -> (u32, u32) {
    match (valkey, release) {
        (true, (major, _)) if major >= 9 => (11, 80),
        (true, _) => (11, 0),
        (false, (7, 0 | 1)) => (10, 0),
        (false, (7, 2 | 3)) => (11, 0),
        (false, (5 | 6, _)) => (9, 0),
        (false, (4, _)) => (8, 0),
        (false, (major, _)) if major < 4 => (7, 0),
        (false, _) => (12, 0),
    }
}

/// Refuses a dump that the server can't load. A Redis 7.0 takes such a dump for an empty one.
///
/// # Errors
/// [`Kind::Tool`] with the reason.
pub fn refuse_newer(
    format: (Family, u32),
    from: Option<&str>,
    server: &str,
    valkey: bool,
    version: (u32, u32),
) -> Result<()> {
    let (redis, own) = loads(valkey, version);
    let (name, newest) = match format.0 {
        Family::Redis => ("REDIS", redis),
        Family::Valkey => ("VALKEY", own),
    };
    if format.1 <= newest {
        return Ok(());
    }
    let from = from.map_or_else(String::new, |version| format!(", written by version {version}"));
    let loads = match (format.0, newest) {
        (Family::Valkey, 0) => "none of Valkey's own formats".to_owned(),
        _ => format!("{name} formats up to {newest}"),
    };
    Err(Error::new(
        Kind::Tool,
        format!("the backup is of format {name} {}{from}; this server, {server}, loads {loads}", format.1),
    )
    .hint("restore it into a server of the kind and version that it is from, or newer"))
}

/// The value of a setting, if the server has it.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn setting(tools: &Tools, client: &Tool, name: &str, cx: &Cx) -> Result<Option<String>> {
    let answer = strings(&tools.ask(client, ["CONFIG", "GET", name], cx)?);
    Ok(answer.get(1).map(|value| String::from_utf8_lossy(value).into_owned()))
}

/// How many libraries of functions the server has; none where it knows no functions.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn functions(tools: &Tools, client: &Tool, facts: &Facts, cx: &Cx) -> Result<u64> {
    if !facts.is_valkey() && facts.release() < (7, 0) {
        return Ok(0);
    }
    let text = tools.ask(client, ["FUNCTION", "LIST"], cx)?;
    let names = strings(&text).iter().filter(|name| name.as_slice() == b"library_name").count();
    Ok(names as u64)
}

/// Names of the modules that are loaded beside those that come with the server.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn modules(tools: &Tools, client: &Tool, cx: &Cx) -> Result<BTreeSet<String>> {
    let words = strings(&tools.ask(client, ["MODULE", "LIST"], cx)?);
    let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let names =
        words.iter().zip(words.iter().skip(1)).filter(|(name, _)| *name == "name").map(|(_, value)| value.clone());
    Ok(names.filter(|name| !["vectorset", "lua"].contains(&name.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info() {
        let facts = Facts::parse(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nrole:slave\r\nmaster_host:h\r\n\
             master_port:1\r\ndb0:keys=5,expires=2,avg_ttl=0\r\ndb12:keys=1,expires=0,avg_ttl=0,keys_with_volatile_items=0\r\n",
        );
        assert_eq!(facts.name(), "Valkey 8.1.1");
        assert_eq!(facts.release(), (8, 1));
        assert_eq!((facts.is_replica(), facts.master().as_str()), (true, "h:1"));
        assert_eq!(facts.keys.get(&0), Some(&Keys { lasting: 3, expiring: 2, fading: 0 }));
        assert_eq!(facts.keys.get(&12), Some(&Keys { lasting: 1, expiring: 0, fading: 0 }));
    }

    #[test]
    fn newer_formats_are_refused() {
        let refuse = |format, valkey, version| {
            refuse_newer(format, Some("9.9"), "the server", valkey, version).err().map(|error| error.message)
        };
        for (format, valkey, version) in [
            ((Family::Redis, 10), false, (7, 0)),
            ((Family::Redis, 12), false, (8, 0)),
            ((Family::Redis, 11), true, (8, 1)),
            ((Family::Redis, 11), true, (9, 1)),
            ((Family::Valkey, 80), true, (9, 1)),
            ((Family::Redis, 9), false, (6, 2)),
        ] {
            assert_eq!(refuse(format, valkey, version), None);
        }
        let said = refuse((Family::Redis, 12), true, (9, 1)).unwrap();
        assert_eq!(
            said,
            "the backup is of format REDIS 12, written by version 9.9; this server, the server, loads REDIS formats up to 11"
        );
        assert!(refuse((Family::Redis, 11), false, (7, 0)).is_some());
        assert!(refuse((Family::Valkey, 80), false, (8, 0)).unwrap().contains("none of Valkey's own formats"));
        assert!(refuse((Family::Redis, 10), false, (6, 2)).is_some());
    }
}
