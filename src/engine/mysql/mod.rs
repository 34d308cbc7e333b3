//! MySQL and MariaDB, by their own tools: one schema's SQL out, and back through a scratch schema whose tables take the
//! place of the live ones. Flows in: a database's settings. Flows out: a dump, findings, a restored schema. Touches the
//! server through the tools alone.
//!
//! [`url`] takes the URL apart, [`args`] looks at added arguments, [`tools`] knows every argument list, [`reasons`] what
//! their last words mean, [`lexer`] cuts a dump into statements, [`script`] knows what each is and [`kind`] what it makes,
//! [`code`] makes views, routines, triggers and events, [`own`] finds their own schema in a text, [`dollars`] mends one,
//! [`server`] is what is asked, [`grants`] what its user may do, [`restore`] is the way back, [`swap`] its last part, with
//! [`views`] and [`strangers`], [`stall`] tells when a load does not go on, [`names`] and [`leftovers`] what it leaves and clears
//! away, [`image`] what its containers look like.

use std::io::Read;
use std::sync::Arc;

use self::grants::Grants;
use self::names::Names;
use self::server::Facts;
use self::tools::{Tool, Tools, is_before, major};
use self::url::Place;
use crate::engine::tools::Explained;
use crate::engine::{Cx, Destination, Dump, Engine, EngineKind, Probe, Request, Restored, Settings};
use crate::error::{Error, Kind, Result};
use crate::process;

pub mod args;
pub mod code;
pub mod dollars;
pub mod grants;
pub mod image;
pub mod kind;
pub mod leftovers;
pub mod lexer;
pub mod names;
pub mod own;
pub mod reasons;
pub mod restore;
pub mod script;
pub mod server;
pub mod sql;
pub mod stall;
pub mod strangers;
pub mod swap;
pub mod tools;
pub mod url;
pub mod views;

/// Engines whose tables take part in the snapshot of a dump.
const TRANSACTIONAL: [&str; 4] = ["InnoDB", "ROCKSDB", "TokuDB", "SEQUENCE"];

/// The first mysqldump that writes libraries, as old as they are.
const KNOWS_LIBRARIES: (u32, u32) = (9, 2);

/// MySQL and MariaDB.
pub const KIND: EngineKind = EngineKind {
    name: "mysql",
    ending: "sql",
    schemes: &["mysql", "mariadb"],
    image: Some(image::IMAGE),
    summary: crate::engine::summary_of_tables,
    inspector: || Box::<script::Script>::default(),
    open,
};

fn open(settings: Settings) -> Result<Box<dyn Engine>> {
    let name = settings.database.clone();
    let checked = || {
        args::check_dump(&settings.dump_args)?;
        args::check_restore(&settings.restore_args)?;
        Place::parse(&settings.url)
    };
    let place = checked().map_err(|error| error.while_doing(format!("[databases.{name}]")))?;
    Ok(Box::new(MySql { tools: Tools::new(settings, place), replaced: false }))
}

/// One schema of a MySQL or MariaDB server.
#[derive(Debug)]
struct MySql {
    tools: Tools,
    /// Whether a restore that is loaded replaces it at once: what one before left without its code is kept as it is.
    replaced: bool,
}

impl MySql {
    fn named(&self, error: Error) -> Error {
        if error.is_stopped() { error } else { error.while_doing(self.describe()) }
    }

    /// Asks the server, and finds the dump tool that fits it.
    fn look(&self, cx: &Cx) -> Result<(Tool, Facts, Tool)> {
        let client = self.tools.client(cx)?;
        let facts = server::ask(&self.tools, &client, &self.tools.place.database, cx)?;
        let family = facts.family();
        let tool = self.tools.dump_tool(family, cx)?;
        if tool.family != family {
            let why = format!(
                "{} is {}'s, the server is {} ({})",
                tool.program,
                tool.family.name(),
                family.name(),
                facts.version
            );
            return Err(Error::new(Kind::Tool, why).hint(self.tools_hint(family.name())));
        }
        if major(&tool.version) < major(&facts.version) {
            let why = format!("{} {} is older than the server, which is {}", tool.program, tool.version, facts.version);
            return Err(Error::new(Kind::Tool, why).hint(self.tools_hint(&facts.version)));
        }
        if let Some(why) = leaves_libraries_out(&tool, &facts) {
            return Err(Error::new(Kind::Tool, why).hint(self.tools_hint(&facts.version)));
        }
        if facts.live.is_none() {
            let why = format!("there is no database {} at {}", self.tools.place.database, self.tools.place.server());
            if let Some((missing, mend)) = self.missing(&client, &facts, cx)? {
                let why = format!("{why}, or {} may not see it: it lacks {missing}", facts.me);
                return Err(Error::new(Kind::Tool, why).hint(mend));
            }
            let hint = format!("mend [databases.{}] url, or restore it from a backup", self.tools.toolbox.configured);
            return Err(Error::new(Kind::Tool, why).hint(hint));
        }
        let database = &self.tools.place.database;
        if let Some(mend) = leftovers::half_way(&self.tools, &client, database, &facts, self.replaced, cx)? {
            let why = "a restore was interrupted, or is at work, while tables and code took their places: not all of it is there";
            return Err(Error::new(Kind::Tool, why).hint(mend));
        }
        Ok((client, facts, tool))
    }

    fn tools_hint(&self, whose: &str) -> String {
        format!(
            "install the client tools of {whose} and set [databases.{}] tools_dir to their folder",
            self.tools.toolbox.configured
        )
    }

    fn warnings(&self, facts: &Facts, is_replica: bool) -> Vec<String> {
        let place = self.describe();
        let mut warnings = Vec::new();
        if facts.tables.is_empty() {
            warnings.push(format!("{place}: the database is empty, and so its backups are"));
        }
        let lags = "what it has not taken over yet its backups lack, and a restore needs the primary";
        if is_replica {
            warnings.push(format!("{place}: this server is a replica: {lags}"));
        } else if facts.read_only {
            warnings.push(format!("{place}: this server takes no writes (read_only); if it is a replica, {lags}"));
        }
        let plain = facts.tables.iter().filter(|(_, engine)| {
            !engine.is_empty() && !TRANSACTIONAL.iter().any(|known| known.eq_ignore_ascii_case(engine))
        });
        let plain: Vec<_> = plain.map(|(name, engine)| format!("{name} ({engine})")).collect();
        if !plain.is_empty() {
            let some = plain.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            warnings.push(format!(
                "{place}: {} of its tables know no transactions, so what is written to them during a dump may be in it in part: \
                 {some}; ALTER TABLE … ENGINE=InnoDB",
                plain.len()
            ));
        }
        if !facts.versioned.is_empty() {
            let names = facts.versioned.join(", ");
            warnings.push(format!(
                "{place}: of system-versioned tables the rows of today are dumped, not their history: {names}"
            ));
        }
        for schema in &facts.schemas {
            if Names::of_scratch(&self.tools.place.database, schema).is_some() {
                warnings.push(format!(
                    "{place}: a restore is running, or was interrupted and has left the schema {schema}; the next restore in \
                     its place puts that in order"
                ));
            }
        }
        warnings
    }

    fn grants(&self, client: &Tool, facts: &Facts, cx: &Cx) -> Result<()> {
        let Some((missing, mend)) = self.missing(client, facts, cx)? else { return Ok(()) };
        let why = format!("{} lacks {missing}: a dump would silently leave things out", facts.me);
        Err(Error::new(Kind::Tool, why).hint(mend))
    }

    /// What a dump lacks, and the statement that gives it.
    fn missing(&self, client: &Tool, facts: &Facts, cx: &Cx) -> Result<Option<(String, String)>> {
        let grants = Grants::ask(&self.tools, client, cx)?;
        let roles =
            if grants.roles { " (what a role gives counts while it is active alone: SET DEFAULT ROLE)" } else { "" };
        let missing = grants.missing_for_dump(&self.tools.place.database, facts);
        Ok(missing.map(|(missing, mend)| (missing + roles, mend)))
    }
}

/// Says why this tool's dump would lack the schema's libraries, which older ones know nothing of.
fn leaves_libraries_out(tool: &Tool, facts: &Facts) -> Option<String> {
    let name = |(kind, name, _): &(String, String, String)| (kind == server::LIBRARY).then(|| name.clone());
    let some: Vec<_> = facts.routines.iter().filter_map(name).take(5).collect();
    (is_before(&tool.version, KNOWS_LIBRARIES) && !some.is_empty()).then(|| {
        let names = some.join(", ");
        format!("{} {} leaves out libraries, and the database has some: {names}", tool.program, tool.version)
    })
}

impl Engine for MySql {
    fn describe(&self) -> String {
        format!("mysql {} at {}", self.tools.place.database, self.tools.place.server())
    }

    fn probe(&self, cx: &Cx) -> Result<Probe> {
        let look = || {
            let (client, facts, tool) = self.look(cx)?;
            self.grants(&client, &facts, cx)?;
            let warnings = self.warnings(&facts, server::is_replica(&self.tools, &client, &facts, cx));
            Ok(Probe { tool_version: Some(tool.version), server_version: Some(facts.version), warnings })
        };
        look().map_err(|error| self.named(error))
    }

    fn dump(&self, cx: &Cx) -> Result<Dump> {
        let start = || {
            let (_, _, tool) = self.look(cx)?;
            let call = self.tools.dump(&tool);
            cx.report.detail(&call.display());
            process::DumpReader::spawn(&call, cx.deadline, &cx.world)
        };
        let reader = start().map_err(|error| self.named(error))?;
        let (tools, place) = (self.tools.clone(), self.describe());
        let explain = move |error| tools.explain(error).while_doing(&place);
        Ok(Dump { stream: Box::new(Explained::new(reader, explain)), counts: Default::default() })
    }

    fn for_keeping(&self) -> Option<Arc<dyn Engine>> {
        Some(Arc::new(Self { tools: self.tools.clone(), replaced: true }))
    }

    fn partial(&self) -> Option<String> {
        args::partial(&self.tools.toolbox.dump_args)
    }

    fn leaves_out(&self) -> Option<String> {
        args::leaves_out(&self.tools.toolbox.dump_args)
    }

    fn plan(&self, destination: &Destination) -> Vec<String> {
        let target = match destination {
            Destination::Into(name) => name,
            Destination::InPlace | Destination::Drill => &self.tools.place.database,
        };
        let names = Names::new(target, "XXXXXXXX");
        let client = Tool { program: "mysql".to_owned(), family: tools::Family::MySql, version: String::new() };
        let (scratch, live, old) = (sql::ident(&names.scratch), sql::ident(target), sql::ident(&names.old));
        let mut steps = vec![
            format!("mysql: CREATE DATABASE {scratch}"),
            format!("load tables and rows: {}", self.tools.sql(&client, Some(&names.scratch)).display()),
            "mysql: compare the rows of every table with the backup".to_owned(),
            format!("mysql: make routines, triggers and views in {scratch}, to see that they can be made"),
        ];
        match destination {
            Destination::InPlace => steps.extend([
                format!("mysql: RENAME TABLE {live}.… TO {old}.…, {scratch}.… TO {live}.…; make triggers, routines, views, events"),
                format!("mysql: DROP DATABASE {old}; DROP DATABASE {scratch}"),
            ]),
            Destination::Into(_) => steps.extend([
                format!("mysql: CREATE DATABASE {live}; RENAME TABLE {scratch}.… TO {live}.…; make triggers, routines, views"),
                format!("mysql: DROP DATABASE {scratch}"),
            ]),
            Destination::Drill => steps.push(format!("mysql: DROP DATABASE {scratch}")),
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
    fn a_tool_that_leaves_libraries_out_is_told() {
        let tool = |version: &str| Tool {
            program: "mysqldump".to_owned(),
            family: tools::Family::MySql,
            version: version.to_owned(),
        };
        let facts =
            |kind: &str| Facts { routines: vec![(kind.into(), "gcd".into(), String::new())], ..Facts::default() };
        let why = leaves_libraries_out(&tool("9.1.0"), &facts("LIBRARY")).unwrap();
        assert_eq!(why, "mysqldump 9.1.0 leaves out libraries, and the database has some: gcd");
        assert_eq!(leaves_libraries_out(&tool("9.2.0"), &facts("LIBRARY")), None);
        assert_eq!(leaves_libraries_out(&tool("9.1.0"), &facts("FUNCTION")), None);
    }

    #[test]
    fn the_plan_names_every_step_and_no_secret() {
        let settings = Settings::new("mydb", Secret::new("mysql://u:canary@h/d"));
        let engine = (KIND.open)(settings).unwrap();
        assert_eq!(engine.describe(), "mysql d at h");
        let plan = engine.plan(&Destination::InPlace).join("\n");
        assert!(
            plan.contains("CREATE DATABASE `d__restoring_XXXXXXXX`")
                && plan.contains("DROP DATABASE `d__old_XXXXXXXX`")
        );
        assert!(!plan.contains("canary"), "{plan}");
        assert!(!engine.plan(&Destination::Drill).join("\n").contains("RENAME"));
        assert!(engine.plan(&Destination::Into("e".into())).join("\n").contains("CREATE DATABASE `e`"));
    }
}
