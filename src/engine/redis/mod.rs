//! Redis and Valkey, by their own client: all databases of a server out as one RDB, and back in one step. Flows in: a
//! database's settings. Flows out: a dump, findings, a restored server. Touches the server through the client, and for a
//! restore one socket of ours, which the server comes to.
//!
//! [`url`] takes the URL apart, [`args`] looks at added arguments, [`tools`] knows every argument list, [`reasons`] what the
//! last words mean, [`rdb`] reads a dump as it passes, [`stream`] cuts off what is not part of it, [`server`] is what is
//! asked. [`restore`] is the way back: [`spool`] checks the whole backup first, [`replicate`] lets the server follow [`feed`]
//! with [`settings`] changed for that time, [`keys`] does it key by key where that is not possible ([`marks`] tell what is not live),
//! [`drill`] starts a server to practise on, [`image`] is what its containers look like.

use std::io::Read;
use std::time::Duration;

use self::server::Facts;
use self::tools::{Tool, Tools};
use self::url::Place;
use crate::engine::tools::Explained;
use crate::engine::{Cx, Destination, Dump, Engine, EngineKind, Probe, Request, Restored, Settings};
use crate::error::{Error, Kind, Result};
use crate::process;

pub mod args;
pub mod drill;
pub mod feed;
pub mod image;
pub mod keys;
pub mod marks;
pub mod rdb;
pub mod reasons;
pub mod replicate;
pub mod restore;
pub mod server;
pub mod settings;
pub mod spool;
pub mod stream;
pub mod tools;
pub mod url;

/// How long cleaning up may take after a failure, a signal or a passed deadline.
const CLEANUP: Duration = Duration::from_secs(60);

/// Redis and Valkey.
pub const KIND: EngineKind = EngineKind {
    name: "redis",
    ending: "rdb",
    schemes: url::SCHEMES,
    image: Some(image::IMAGE),
    summary: rdb::inspector::summary,
    inspector: || Box::<rdb::inspector::Look>::default(),
    open,
};

fn open(settings: Settings) -> Result<Box<dyn Engine>> {
    let checked = || {
        args::check("dump_args", &settings.dump_args)?;
        args::check("restore_args", &settings.restore_args)?;
        Place::parse(&settings.url)
    };
    let place = checked().map_err(|error| error.while_doing(format!("[databases.{}]", settings.database)))?;
    Ok(Box::new(Redis { tools: Tools::new(&settings, place) }))
}

/// All databases of one server.
#[derive(Debug)]
struct Redis {
    tools: Tools,
}

impl Redis {
    fn named(&self, error: Error) -> Error {
        if error.is_stopped() { error } else { error.while_doing(self.describe()) }
    }

    fn warnings(&self, client: &Tool, facts: &Facts, cx: &Cx) -> Vec<String> {
        let place = self.describe();
        let mut warnings = Vec::new();
        if settings::is_left(&self.tools, &cx.data_dir) {
            warnings.push(format!(
                "{place}: a restore is running, or was interrupted and has left settings of the server changed; the next \
                 restore puts them back"
            ));
        }
        if facts.is_replica() {
            warnings.push(format!(
                "{place}: it is a replica of {}, so a dump is as old as its replication",
                facts.master()
            ));
            if facts.text("master_link_status") != "up" {
                warnings.push(format!("{place}: its link to the primary is down; what it holds may be old"));
            }
        }
        if facts.keys.values().all(|keys| keys.lasting + keys.expiring == 0) {
            warnings.push(format!("{place}: it holds no key at all"));
        }
        // One who may not look there is not to be told of it.
        for number in marks::left(&self.tools, client, facts, cx).unwrap_or_default().into_keys() {
            warnings.push(format!(
                "{place}: a restore is running, or was interrupted and has left data in database {number}; the next restore \
                 in its place clears it"
            ));
        }
        warnings
    }

    /// Whether the user may do what a dump takes. Those who may not ask that either find out by the dump.
    fn rights(&self, client: &Tool, facts: &Facts, cx: &Cx) -> Result<()> {
        let user = self.tools.place.user.as_deref().unwrap_or("default");
        if !facts.is_valkey() && facts.release() < (7, 0) {
            return Ok(());
        }
        for words in [&["SYNC"][..], &["REPLCONF", "capa", "eof"], &["PING"]] {
            let asked: Vec<&str> = ["ACL", "DRYRUN", user].into_iter().chain(words.iter().copied()).collect();
            let Ok(answer) = self.tools.ask(client, asked, cx) else { return Ok(()) };
            if !answer.trim().trim_matches('"').eq_ignore_ascii_case("ok") {
                let command = words.first().copied().unwrap_or_default().to_ascii_lowercase();
                return Err(Error::new(
                    Kind::Tool,
                    format!("the user {user} may not run {command}, which a dump takes"),
                )
                .hint(reasons::grant(user, reasons::FOR_DUMP)));
            }
        }
        Ok(())
    }

    fn look(&self, cx: &Cx) -> Result<Probe> {
        let client = self.tools.client(cx)?;
        let facts = match Facts::ask(&self.tools, &client, cx) {
            // A dump does not take the right to ask for INFO, but knows more with it.
            Err(error) if error.message.contains("NOPERM") => {
                let user = self.tools.place.user.as_deref().unwrap_or("default");
                let warning = format!(
                    "{}: {user} may not ask for INFO, so role, version and cluster mode are not looked at: {}",
                    self.describe(),
                    reasons::grant(user, "+info")
                );
                return Ok(Probe { tool_version: Some(client.version), server_version: None, warnings: vec![warning] });
            }
            other => other?,
        };
        facts.refuse_parts(&self.tools, &client, cx)?;
        self.rights(&client, &facts, cx)?;
        let warnings = self.warnings(&client, &facts, cx);
        let version = facts.version().to_owned();
        Ok(Probe { tool_version: Some(client.version), server_version: Some(version), warnings })
    }
}

impl Engine for Redis {
    fn describe(&self) -> String {
        format!("redis at {}", self.tools.place.server())
    }

    fn probe(&self, cx: &Cx) -> Result<Probe> {
        self.look(cx).map_err(|error| self.named(error))
    }

    fn dump(&self, cx: &Cx) -> Result<Dump> {
        let start = || {
            let client = self.tools.client(cx)?;
            match Facts::ask(&self.tools, &client, cx) {
                Ok(facts) => facts.refuse_parts(&self.tools, &client, cx)?,
                Err(error) if error.message.contains("NOPERM") => {}
                Err(error) => return Err(error),
            }
            let call = self.tools.dump(&client);
            cx.report.detail(&call.display());
            process::DumpReader::spawn(&call, cx.deadline, &cx.world)
        };
        let reader = start().map_err(|error| self.named(error))?;
        let (tools, place) = (self.tools.clone(), self.describe());
        let explain = move |error| tools.explain(error).while_doing(&place);
        let stream = Explained::new(stream::WithoutMark::new(reader), explain);
        Ok(Dump { stream: Box::new(stream), counts: Default::default() })
    }

    fn plan(&self, destination: &Destination) -> Vec<String> {
        let tool = Tool { program: "redis-cli".to_owned(), version: String::new() };
        let client = self.tools.shown(&tool);
        let pipe = self.tools.pipe(&tool).display();
        let mut steps =
            vec!["read, authenticate and check the whole backup, kept in a file without a name in data_dir".to_owned()];
        let by_keys = [
            format!("load key by key into databases that are free: {pipe}"),
            format!("{client}: MULTI; FUNCTION RESTORE … FLUSH; SWAPDB live free; EXEC"),
            format!("{client}: FLUSHDB ASYNC of what was live"),
        ];
        match destination {
            Destination::Drill => steps.extend([
                "start a private redis-server or valkey-server on a socket, without persistence".to_owned(),
                "load the backup into it, and compare its keys with the backup's".to_owned(),
                "stop it and remove its folder".to_owned(),
            ]),
            Destination::Into(number) => steps.extend([
                format!("look that database {number} is empty, and that the backup holds one database"),
                format!("load key by key into database {number}: {pipe}"),
                format!("{client}: INFO, compare the number of keys"),
            ]),
            Destination::InPlace if self.tools.toolbox.runs_elsewhere() || self.tools.place.tls => {
                steps.extend(by_keys)
            }
            Destination::InPlace => {
                steps.extend([
                    format!(
                        "{client}: CONFIG SET repl-diskless-load swapdb, masteruser …, masterauth … if there is none"
                    ),
                    format!("{client}: REPLICAOF this host, which sends the backup to that server alone"),
                    format!(
                        "{client}: INFO until it is loaded, compare the number of keys; REPLICAOF NO ONE; settings back"
                    ),
                    format!("{client}: BGSAVE, or wait for the append-only file"),
                    "or, where the server refuses that or can't reach this host:".to_owned(),
                ]);
                steps.extend(by_keys.map(|step| format!("  {step}")));
            }
        }
        steps
    }

    fn restore(&self, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
        restore::restore(&self.tools, dump, request, cx).map_err(|error| match error.kind {
            Kind::Tool => self.named(error),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn what_is_counted_has_its_own_words() {
        let told = |all: &[(&str, u64)]| {
            let counts = all.iter().map(|(name, number)| ((*name).to_owned(), Some(*number))).collect();
            crate::engine::summary("redis", &counts)
        };
        assert_eq!(told(&[("db0", 1)]), "1 database, 1 key");
        let all = [("db0", 2), ("db0 expiring", 3), ("db5", 0), ("functions", 1)];
        assert_eq!(told(&all), "2 databases, 5 keys, 1 library of functions");
        assert_eq!(crate::engine::summary("mysql", &[("t".to_owned(), Some(1))].into()), "1 table, 1 row");
    }

    #[test]
    fn the_plan_names_every_step_and_no_secret() {
        let engine = |url: &str| (KIND.open)(Settings::new("cache", Secret::new(url))).unwrap();
        let plain = engine("redis://u:canary@h");
        assert_eq!(plain.describe(), "redis at h:6379");
        let plan = plain.plan(&Destination::InPlace).join("\n");
        assert!(plan.contains("REPLICAOF") && plan.contains("SWAPDB") && !plan.contains("canary"), "{plan}");
        let plan = engine("rediss://u:canary@h").plan(&Destination::InPlace).join("\n");
        assert!(!plan.contains("REPLICAOF") && plan.contains("SWAPDB") && !plan.contains("canary"), "{plan}");
        assert!(!plain.plan(&Destination::Drill).join("\n").contains("REPLICAOF"));
        assert!(plain.plan(&Destination::Into("5".into())).join("\n").contains("into database 5"));
    }
}
