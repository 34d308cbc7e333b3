//! What is asked of the server. Flows in: the shell's answers. Flows out: what it is, what it holds, and which right is
//! missing. Touches the server, reading, through the shell.

use serde::Deserialize;
use serde_json::json;

use super::alive;
use super::tools::{OURS, Tools};
use crate::engine::Cx;
use crate::error::Result;

/// A collection of the live database.
#[derive(Clone, Debug, Deserialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// `collection`, `view` or `timeseries`.
    #[serde(rename = "type")]
    pub sort: String,
}

/// A restore that is at work, or what it has left.
#[derive(Clone, Debug, Deserialize)]
pub struct Claim {
    /// What tells it from others.
    pub hex: String,
    /// Whether its exchange has begun.
    pub swapping: bool,
    /// Whether it is at work.
    pub alive: bool,
    /// When it began, by its own clock.
    pub since: Option<String>,
}

/// Who is logged in.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Name.
    pub user: String,
    /// The database that knows it.
    #[serde(default)]
    pub db: Option<String>,
}

/// What a user may do, and where.
#[derive(Clone, Debug, Deserialize)]
pub struct Privilege {
    any: bool,
    database: Option<String>,
    collection: Option<String>,
    actions: Vec<String>,
}

/// The server and the database at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    /// The server's version.
    pub version: String,
    /// Whether it is FerretDB.
    pub ferretdb: bool,
    /// Its feature compatibility version, if it says.
    pub level: Option<String>,
    /// Whether it takes writes.
    pub primary: bool,
    /// Whether it is a router of a sharded cluster.
    pub router: bool,
    /// Who is logged in.
    pub users: Vec<User>,
    /// What they may do; empty when the server does not say.
    pub privileges: Vec<Privilege>,
    /// All databases, if it says.
    pub databases: Option<Vec<String>>,
    /// What the database holds.
    pub collections: Vec<Found>,
    /// The restores that have a mark in it.
    pub claims: Vec<Claim>,
    /// Databases that dead drills of it have left.
    pub drills: Vec<String>,
}

/// What the names of a database's drills begin with.
pub fn drill_stem(database: &str) -> String {
    let mut stem = database.to_owned();
    while stem.len() > 40 {
        stem.pop();
    }
    format!("{stem}__drill_")
}

/// Asks the server about itself and `database`.
///
/// # Errors
/// [`crate::error::Kind::Tool`] when it can't be asked.
pub fn ask(tools: &Tools, database: &str, cx: &Cx) -> Result<Facts> {
    let request = json!({
        "action": "look",
        "database": database,
        "drills": drill_stem(database),
        "lapse": alive::LAPSE.as_millis(),
        "ended": alive::ended(&cx.data_dir).into_iter().map(|(hex, _)| hex).collect::<Vec<_>>(),
    });
    tools.ask(request, cx)
}

impl Facts {
    /// Whether the database is there.
    pub fn exists(&self, database: &str) -> bool {
        !self.collections.is_empty() || self.databases.as_ref().is_some_and(|all| all.iter().any(|one| one == database))
    }

    /// Whether a dump of the database would hold nothing: what a server keeps for itself, such as its profiler's notes, is
    /// not dumped, but for code, and what `admin` is made for.
    pub fn is_empty(&self, database: &str) -> bool {
        let is_own = |name: &str| name.starts_with("system.") && name != "system.js" && database != "admin";
        self.collections.iter().all(|it| it.name.starts_with(OURS) || is_own(&it.name))
    }

    /// How many bytes the name of a collection may have, the database's included.
    pub fn namespace_bytes(&self) -> usize {
        match (self.ferretdb, number(&self.version).0) {
            (true, _) => 235,
            (false, ..4) => 120,
            (false, _) => 255,
        }
    }

    /// The first of these actions that is missing on all collections of `database`, and the statement that gives it.
    pub fn missing(&self, actions: &[&str], database: &str, role: &str) -> Option<(String, String)> {
        let user = self.users.first()?;
        if self.privileges.is_empty() {
            return None;
        }
        let may = |action: &str| {
            self.privileges.iter().any(|it| {
                let here = it.any
                    || (it.collection.as_deref() == Some("")
                        && it.database.as_deref().is_some_and(|name| name.is_empty() || name == database));
                here && it.actions.iter().any(|given| given == action || given == "anyAction")
            })
        };
        let missing = actions.iter().find(|action| !may(action))?;
        let home = user.db.as_deref().unwrap_or("admin");
        let grant = format!(
            "db.getSiblingDB({home:?}).grantRolesToUser({:?}, [{{ role: {role:?}, db: {database:?} }}])",
            user.user
        );
        Some((format!("{} lacks the right {missing} on {database}", user.user), grant))
    }
}

/// A version's first two numbers.
pub fn number(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_right_is_named_with_its_grant() {
        let answer = r#"{"version":"7.0.1","ferretdb":false,"level":null,"primary":true,"router":false,
            "users":[{"user":"u\"","db":"shop"}],"databases":null,"collections":[],"claims":[],"drills":[],
            "privileges":[{"any":false,"database":"shop","collection":"","actions":["find","listCollections"]},
                          {"any":false,"database":"shop","collection":"one","actions":["insert"]}]}"#;
        let facts: Facts = serde_json::from_str(answer).unwrap();
        assert_eq!(facts.missing(&["find", "listCollections"], "shop", "read"), None);
        let (missing, grant) = facts.missing(&["find", "insert"], "shop", "readWrite").unwrap();
        assert_eq!(missing, "u\" lacks the right insert on shop");
        assert_eq!(grant, r#"db.getSiblingDB("shop").grantRolesToUser("u\"", [{ role: "readWrite", db: "shop" }])"#);
        assert!(facts.missing(&["find"], "other", "read").is_some());
        assert_eq!(number("7.0.77"), (7, 0));
    }
}
