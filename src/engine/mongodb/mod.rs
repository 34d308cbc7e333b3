//! MongoDB, by its own tools: one database's archive out, and back under other names that take the places of the live
//! ones. Flows in: a database's settings. Flows out: a dump, findings, a restored database. Touches the server through the
//! tools alone.
//!
//! [`url`] takes the URL apart, [`args`] looks at added arguments, [`tools`] knows every argument list, [`reasons`] what
//! their last words mean, [`bson`] and [`archive`] read a dump, [`server`] is what is asked, [`restore`] is the way back,
//! [`fit`] what that refuses, [`compare`] looks at what was loaded, [`exchange`] puts it into its places, [`alive`] tells the living restores from the dead; what the
//! shell does for them stands in `ask.js`; [`image`] is what its containers look like.

use std::collections::BTreeSet;
use std::io::{self, Read};

use self::archive::Archive;
use self::server::{Facts, number};
use self::tools::{OURS, Tools};
use self::url::Place;
use crate::engine::tools::Explained;
use crate::engine::{Counts, Cx, Destination, Dump, Engine, EngineKind, Probe, Request, Restored, Settings};
use crate::error::{Error, Kind, Result};
use crate::format::count;
use crate::process;

pub mod alive;
pub mod archive;
pub mod args;
pub mod bson;
pub mod compare;
pub mod exchange;
pub mod fit;
pub mod image;
pub mod reasons;
pub mod restore;
pub mod server;
pub mod tools;
pub mod url;

/// What a dump needs to be allowed.
const ACTIONS: [&str; 3] = ["find", "listCollections", "listIndexes"];

/// MongoDB, and servers that speak its protocol.
pub const KIND: EngineKind = EngineKind {
    name: "mongodb",
    ending: "archive",
    schemes: &["mongodb", "mongodb+srv"],
    image: Some(image::IMAGE),
    summary,
    inspector: || Box::<Archive>::default(),
    open,
};

fn summary(counts: &Counts) -> String {
    let documents = count(counts.values().flatten().sum(), "document", "documents");
    format!("{}, {documents}", count(counts.len() as u64, "collection", "collections"))
}

fn open(settings: Settings) -> Result<Box<dyn Engine>> {
    let checked = || {
        args::check_dump(&settings.dump_args)?;
        args::check_restore(&settings.restore_args)?;
        Tools::new(&settings, Place::parse(&settings.url)?)
    };
    let tools = checked().map_err(|error| error.while_doing(format!("[databases.{}]", settings.database)))?;
    Ok(Box::new(MongoDb { tools }))
}

/// One database of a MongoDB server.
#[derive(Debug)]
struct MongoDb {
    tools: Tools,
}

impl MongoDb {
    fn named(&self, error: Error) -> Error {
        if error.is_stopped() { error } else { error.while_doing(self.describe()) }
    }

    /// Asks the server, and refuses what can't become a whole backup.
    fn look(&self, cx: &Cx) -> Result<Facts> {
        let (place, configured) = (&self.tools.place, &self.tools.toolbox.configured);
        let facts = server::ask(&self.tools, &place.database, cx)?;
        if !facts.exists(&place.database) {
            let why = format!("there is no database {} at {}", place.database, place.server());
            let hint = format!("mend [databases.{configured}] url, or restore it from a backup");
            return Err(Error::new(Kind::Tool, why).hint(hint));
        }
        if let Some(claim) = facts.claims.iter().find(|claim| claim.swapping) {
            if claim.alive {
                let why = "a restore is exchanging the collections at this moment";
                return Err(Error::new(Kind::Tool, why).hint("wait for its end, and run it again"));
            }
            let why = "a restore was interrupted while its collections took their places: some are new, some old";
            return Err(Error::new(Kind::Tool, why).hint(format!("restore {configured} again: it finishes that first")));
        }
        if let Some((missing, grant)) = facts.missing(&ACTIONS, &place.database, "read") {
            return Err(Error::new(Kind::Tool, missing).hint(grant));
        }
        // mongodump passes over them without a word.
        if let Some(it) = facts.collections.iter().find(|it| it.name.contains('$')) {
            let why = format!("mongodump leaves out the collection {}: its name holds a $", it.name);
            return Err(Error::new(Kind::Tool, why).hint("rename the collection"));
        }
        Ok(facts)
    }

    fn warnings(&self, facts: &Facts) -> Vec<String> {
        let (place, database) = (self.describe(), &self.tools.place.database);
        let mut warnings = Vec::new();
        if facts.is_empty(database) {
            warnings.push(format!("{place}: the database is empty, and so its backups are"));
        }
        if facts.router {
            warnings.push(format!(
                "{place}: it is a router of a sharded cluster, whose shards are not dumped as of one moment; stop its balancer \
                 and its writers, or back up the shards"
            ));
        }
        if !facts.primary {
            warnings.push(format!("{place}: it is not the primary: what it lacks yet, its backups lack"));
        }
        if let Some(claim) = facts.claims.iter().find(|claim| claim.alive) {
            warnings.push(format!("{place}: a restore is running, and has loaded {OURS}{}_…", claim.hex));
        }
        let dead = facts.claims.iter().filter(|claim| !claim.alive).map(|claim| format!("{OURS}{}_…", claim.hex));
        for name in dead.chain(facts.drills.iter().cloned()) {
            warnings.push(format!(
                "{place}: a restore was interrupted and has left {name} beside {database}; the next restore puts that in order"
            ));
        }
        warnings
    }

    /// The tool's version; one of a server's own version must not be older than the server.
    fn tool(&self, facts: &Facts, cx: &Cx) -> Result<String> {
        let version = self.tools.version("mongodump", cx)?;
        let (tool, server) = (number(version.trim_start_matches('r')).0, number(&facts.version).0);
        if tool < server {
            let why = format!("mongodump {version} is older than the server, which is {}", facts.version);
            let name = &self.tools.toolbox.configured;
            return Err(Error::new(Kind::Tool, why).hint(format!(
                "install the MongoDB Database Tools 100, and set [databases.{name}] tools_dir to their folder"
            )));
        }
        Ok(version)
    }
}

impl Engine for MongoDb {
    fn describe(&self) -> String {
        format!("mongodb {} at {}", self.tools.place.database, self.tools.place.server())
    }

    fn probe(&self, cx: &Cx) -> Result<Probe> {
        let look = || {
            let facts = self.look(cx)?;
            let tool = self.tool(&facts, cx)?;
            self.tools.version("mongorestore", cx)?;
            let warnings = self.warnings(&facts);
            Ok(Probe { tool_version: Some(tool), server_version: Some(facts.version), warnings })
        };
        look().map_err(|error| self.named(error))
    }

    fn dump(&self, cx: &Cx) -> Result<Dump> {
        let start = || {
            let facts = self.look(cx)?;
            let call = self.tools.dump();
            cx.report.detail(&call.display());
            Ok((process::DumpReader::spawn(&call, cx.deadline, &cx.world)?, facts))
        };
        let (reader, facts) = start().map_err(|error| self.named(error))?;
        let (tools, place) = (self.tools.clone(), self.describe());
        let explain = move |error| tools.explain(error).while_doing(&place);
        let mut missing: BTreeSet<String> = facts.collections.into_iter().map(|it| it.name).collect();
        missing.retain(|name| !name.starts_with(OURS) && !name.starts_with("system."));
        let left_out = self.tools.toolbox.dump_args.clone();
        missing.retain(|_| args::partial(&left_out).is_none());
        let whole = Whole {
            reader,
            archive: Archive::default(),
            missing,
            tools: self.tools.clone(),
            cx: cx.clone(),
            ended: false,
        };
        Ok(Dump { stream: Box::new(Explained::new(whole, explain)), counts: Default::default() })
    }

    fn partial(&self) -> Option<String> {
        args::partial(&self.tools.toolbox.dump_args)
    }

    fn plan(&self, destination: &Destination) -> Vec<String> {
        let live = &self.tools.place.database;
        let prefix = format!("{OURS}XXXXXXXX_");
        let drill = format!("{}XXXXXXXX", server::drill_stem(live));
        let (into, prefix) = match destination {
            Destination::InPlace => (live, prefix.as_str()),
            Destination::Into(name) => (name, ""),
            Destination::Drill => (&drill, ""),
        };
        let tools = self.tools.for_restore();
        let shell = tools.shell().display();
        let beside = format!("{into}.{prefix}…");
        let mut steps = vec![
            format!("look at the server, clear what dead restores have left: {shell}"),
            format!("load as {beside}: {}", tools.load(live, into, prefix, &[], &[]).display()),
            "mongosh: compare documents and indexes of every collection with the backup".to_owned(),
        ];
        match destination {
            Destination::InPlace => steps.extend([
                format!(
                    "mongosh: write down the plan; renameCollection {beside} to {live}.… with dropTarget, one by one: each \
                     collection is exchanged at once, not all of them together; a restore that is stopped here is finished by \
                     the next one"
                ),
                format!("mongosh: drop the collections of {live} that the backup does not hold; make its views again"),
            ]),
            Destination::Into(_) => {}
            Destination::Drill => steps.push(format!("mongosh: drop the database {into}")),
        }
        steps
    }

    fn restore(&self, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
        restore::restore(&self.tools.for_restore(), dump, request, cx).map_err(|error| match error.kind {
            Kind::Tool => self.named(error),
            _ => error,
        })
    }
}

/// A dump, and at its end the question whether it holds all that was there when it began: mongodump ends well when the
/// database is gone, and leaves out what it does not like.
struct Whole<R> {
    reader: R,
    archive: Archive,
    missing: BTreeSet<String>,
    tools: Tools,
    cx: Cx,
    ended: bool,
}

impl<R> Whole<R> {
    fn check(&mut self) -> Result<()> {
        self.missing.retain(|name| !self.archive.collections.contains_key(name));
        // Of an archive that is cut before it has said what it holds, the inspector speaks.
        if self.missing.is_empty() || !self.archive.knows_all() {
            return Ok(());
        }
        // What was dropped in between is missing rightly, unless it is everything.
        let now = server::ask(&self.tools, &self.tools.place.database, &self.cx)?;
        let there = |name: &&String| now.collections.iter().any(|it| it.name == **name);
        if let Some(name) = self.missing.iter().find(there) {
            return Err(Error::new(Kind::Tool, format!("mongodump has left out the collection {name}")));
        }
        match self.archive.collections.is_empty() {
            true => Err(Error::new(Kind::Tool, "the database was dropped while it was dumped")),
            false => Ok(()),
        }
    }
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0 && !buffer.is_empty() && !self.ended {
            self.ended = true;
            self.check().map_err(Error::into_io)?;
        } else if !self.archive.knows_all() {
            // What is wrong with the archive itself is the inspector's to say.
            let _ = self.archive.pass(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn what_is_counted_has_its_own_words() {
        assert_eq!(summary(&Counts::from([("a".into(), Some(1))])), "1 collection, 1 document");
        let more = Counts::from([("a".into(), Some(1)), ("t".into(), None), ("c".into(), Some(2))]);
        assert_eq!(crate::engine::summary("mongodb", &more), "3 collections, 3 documents");
    }

    #[test]
    fn the_plan_names_every_step_and_no_secret() {
        let settings = Settings::new("mydb", Secret::new("mongodb://u:canary@h/d"));
        let engine = (KIND.open)(settings).unwrap();
        assert_eq!(engine.describe(), "mongodb d at h");
        let plan = engine.plan(&Destination::InPlace).join("\n");
        assert!(
            plan.contains("--nsTo=d.__restoring_XXXXXXXX_*") && plan.contains("not all of them together"),
            "{plan}"
        );
        assert!(!plan.contains("canary"), "{plan}");
        assert!(!engine.plan(&Destination::Drill).join("\n").contains("rename"));
        assert!(engine.plan(&Destination::Into("e".into())).join("\n").contains("--nsTo=e.*"));
    }
}
