//! PostgreSQL, by its own tools: `pg_dump`'s custom format out, `pg_restore` into a scratch database and one transaction
//! of renames back. Flows in: a database's settings. Flows out: a dump, findings, a restored database. Touches the
//! server through the tools alone.
//!
//! [`url`] takes the URL apart, [`args`] looks at added arguments, [`tools`] knows every argument list, [`reasons`] what
//! their last words mean, [`archive`] reads a dump as it passes, [`restore`] is the way back, [`server`] what it finds and
//! leaves there, [`alive`] how others see that it lives, [`leftovers`] what killed ones have left and
//! [`unmarked`] what a cut connection has left without a mark, [`compare`] whether all
//! of it is there, [`exchange`] how it takes its place, [`swap`] its SQL, [`keep`] what becomes of the database that was
//! there before; [`rights`] is what a dump takes, [`transaction`] is the way without a scratch, [`spool`] a backup in a file,
//! [`image`] what its containers look like.

use std::io::Read;

use serde::Deserialize;

use self::reasons::misses_database;
use self::tools::Tools;
use self::url::Place;
use crate::engine::tools::Explained;
use crate::engine::{Cx, Destination, Dump, Engine, EngineKind, Keep, Previous, Probe, Request, Restored, Settings};
use crate::error::{Error, Kind, Result};

pub mod alive;
pub mod archive;
pub mod args;
pub mod compare;
pub mod exchange;
pub mod image;
pub mod keep;
pub mod leftovers;
pub mod reasons;
pub mod restore;
pub mod rights;
pub mod server;
pub mod spool;
pub mod sql;
pub mod swap;
pub mod tools;
pub mod transaction;
pub mod unmarked;
pub mod url;

/// PostgreSQL.
pub const KIND: EngineKind = EngineKind {
    name: "postgres",
    ending: "pgdump",
    schemes: &["postgres", "postgresql"],
    image: Some(image::IMAGE),
    summary: crate::engine::summary_of_tables,
    inspector: || Box::<archive::Archive>::default(),
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
    Ok(Box::new(Postgres { tools: Tools::new(settings, place) }))
}

/// One PostgreSQL database.
#[derive(Debug)]
struct Postgres {
    tools: Tools,
}

/// What the server answers to a look.
#[derive(Debug, Deserialize)]
struct Answer {
    version: String,
    number: u32,
    recovery: bool,
    /// Whether it holds neither tables nor large objects.
    empty: bool,
    /// Names and comments of databases that look like leftovers.
    left: Vec<(String, String)>,
}

const LOOK: &str = r"SELECT json_build_object('version', current_setting('server_version'),
  'number', current_setting('server_version_num')::int, 'recovery', pg_is_in_recovery(),
  'empty', NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
    AND NOT EXISTS (SELECT FROM pg_largeobject_metadata),
  'left', (SELECT coalesce(json_agg(json_build_array(datname, shobj_description(oid, 'pg_database'))), '[]')
    FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE 'voxeltron-backup: %'))::jsonb::text;";

impl Postgres {
    fn named(&self, error: Error) -> Error {
        error.while_doing(self.describe())
    }

    fn look(&self, cx: &Cx) -> Result<Answer> {
        let place = &self.tools.place;
        let answers = self.tools.rows::<Answer>(&place.database, LOOK, cx).map_err(|error| {
            let missing = misses_database(&error);
            let error = if missing {
                Error { message: format!("there is no database {} at {}", place.database, place.server()), ..error }
                    .hint(format!(
                        "mend [databases.{}] url, or restore it from a backup",
                        self.tools.toolbox.configured
                    ))
            } else {
                error
            };
            self.named(error)
        })?;
        answers.into_iter().next().ok_or_else(|| self.named(Error::new(Kind::Tool, "psql gave no answer")))
    }
}

impl Engine for Postgres {
    fn describe(&self) -> String {
        format!("postgres {} at {}", self.tools.place.database, self.tools.place.server())
    }

    fn partial(&self) -> Option<String> {
        self.tools.dumps_a_part().map(|option| format!("--{option}"))
    }

    fn leaves_out(&self) -> Option<String> {
        args::leaves_out(&self.tools.toolbox.dump_args).map(|option| format!("--{option}"))
    }

    fn probe(&self, cx: &Cx) -> Result<Probe> {
        let (tool_version, tool) = self.tools.version("pg_dump", cx).map_err(|error| self.named(error))?;
        self.tools.version("pg_restore", cx).map_err(|error| self.named(error))?;
        let answer = self.look(cx)?;
        let server = answer.number / 10_000;
        if tool < server {
            let why = format!("pg_dump {tool_version} is older than the server, which is {}", answer.version);
            let hint = self.tools.version_hint(|major| major >= server, server);
            return Err(self.named(Error::new(Kind::Tool, why).hint(hint)));
        }
        rights::check(&self.tools, server, cx).map_err(|error| self.named(error))?;
        let hidden = rights::left_out(&self.tools, cx).map_err(|error| self.named(error))?;
        let mut warnings: Vec<String> = hidden.iter().map(|what| format!("{}: {what}", self.describe())).collect();
        if answer.empty {
            warnings.push(format!("{}: the database is empty, and so its backups are", self.describe()));
        }
        if answer.recovery {
            warnings.push(format!(
                "{}: this server is a replica: a dump may be cancelled by what it replays, and a restore needs the primary",
                self.describe()
            ));
        }
        if tool >= 17 && server < 17 {
            let hint = self.tools.version_hint(|major| major >= server && major < 17, server);
            warnings.push(format!(
                "{}: what pg_dump {tool_version} writes can't be loaded into this server, which is {}; {hint}",
                self.describe(),
                answer.version
            ));
        }
        for (name, comment) in &answer.left {
            let database = &self.tools.place.database;
            let Some(left) = swap::left_behind(database, name, comment) else { continue };
            if left.answered_for && alive::is_held(&self.tools, database, name, cx)? {
                continue;
            }
            warnings.push(format!(
                "{}: a restore that began at {} was interrupted and has left the database {name}; the next restore in its \
                 place drops it",
                self.describe(),
                left.since
            ));
        }
        Ok(Probe { tool_version: Some(tool_version), server_version: Some(answer.version), warnings })
    }

    fn dump(&self, cx: &Cx) -> Result<Dump> {
        let reader = self.tools.start_dump(cx).map_err(|error| self.named(error))?;
        let (tools, place) = (self.tools.clone(), self.describe());
        let explain = move |error| tools.explain(error, &tools.place.database).while_doing(&place);
        Ok(Dump { stream: Box::new(Explained::new(reader, explain)), counts: Default::default() })
    }

    fn plan(&self, destination: &Destination) -> Vec<String> {
        let target = into(destination, &self.tools);
        let names = swap::Names::new(target, "XXXXXXXX");
        let scratch = &names.scratch;
        let mut steps = vec![
            format!("psql: CREATE DATABASE {} TEMPLATE template0, closed to others", sql::ident(scratch)),
            format!("load the backup: {}", self.tools.load(scratch).display()),
            "psql: compare the rows of every table with the backup".to_owned(),
        ];
        let old = sql::ident(&names.old);
        let renamed = format!("ALTER DATABASE {} RENAME TO {}", sql::ident(scratch), sql::ident(target));
        let kept = "owner, grants, settings, limit and comment";
        match destination {
            Destination::InPlace => steps.extend([
                format!(
                    "psql: end all sessions of {target}; BEGIN; ALTER DATABASE {} RENAME TO {old}; {renamed}; \
                     carry over {kept}; COMMIT",
                    sql::ident(target)
                ),
                format!(
                    "psql: DROP DATABASE {old}; or keep it, closed, as {}",
                    sql::ident(&keep::name(target, "XXXXXXXX"))
                ),
            ]),
            Destination::Into(_) => steps.push(format!("psql: BEGIN; {renamed}; carry over {kept}; COMMIT")),
            Destination::Drill => steps.push(format!("psql: DROP DATABASE {}", sql::ident(scratch))),
        }
        steps
    }

    fn plan_for(&self, request: &Request, cx: &Cx) -> Vec<String> {
        let (destination, asked) = (&request.destination, server::ask(&self.tools, cx));
        if let Ok((_, facts)) = &asked
            && transaction::is_the_way(facts, destination)
        {
            return transaction::plan(&self.tools, &facts.me, cx);
        }
        let mut steps = self.plan(destination);
        if let (Some(jobs), Some(load)) =
            (request.jobs, steps.iter_mut().find(|step| step.starts_with("load the backup")))
        {
            let scratch = swap::Names::new(into(destination, &self.tools), "XXXXXXXX").scratch;
            *load = format!("load the backup: {}", self.tools.load_file(&scratch, "BACKUP", jobs).display());
            steps.insert(
                0,
                "read, authenticate and check the whole backup, kept in a file without a name in data_dir".to_owned(),
            );
        }
        if let (Destination::InPlace, Err(error)) = (destination, asked) {
            steps.insert(
                0,
                format!(
                    "(the server can't be asked now: {error}; if the role may not create databases, a \
                                     restore in place is one transaction of the live database)"
                ),
            );
        }
        steps
    }

    fn loads_in_parallel(&self) -> Result<()> {
        match self.tools.toolbox.runs_elsewhere() {
            false => Ok(()),
            true => Err(Error::new(
                Kind::Usage,
                "--jobs: a parallel load wants the backup in a file, which is not there where exec leads",
            )
            .hint("leave --jobs out")),
        }
    }

    fn restore(&self, dump: &mut dyn Read, request: &Request, cx: &Cx) -> Result<Restored> {
        restore::restore(&self.tools, dump, request, cx).map_err(|error| match error.kind {
            Kind::Tool => self.named(error),
            _ => error,
        })
    }

    fn previous(&self, cx: &Cx) -> Result<Vec<Previous>> {
        keep::all(&self.tools, cx).map_err(|error| self.named(error))
    }

    fn undo(&self, previous: &Previous, keep: Option<&Keep>, cx: &Cx) -> Result<Restored> {
        restore::undo(&self.tools, previous, keep, cx).map_err(|error| self.named(error))
    }

    fn plan_undo(&self, previous: &Previous) -> Vec<String> {
        let target = &self.tools.place.database;
        let (live, kept) = (sql::ident(target), sql::ident(&previous.name));
        let aside = sql::ident(&keep::name(target, "XXXXXXXX"));
        vec![format!(
            "psql: end all sessions of {target}; BEGIN; ALTER DATABASE {live} RENAME TO {aside}; ALTER DATABASE {kept} \
             RENAME TO {live}; COMMIT"
        )]
    }

    fn forget(&self, previous: &Previous, cx: &Cx) -> Result<()> {
        keep::forget(&self.tools, previous, cx).map_err(|error| self.named(error))
    }
}

/// What the restored database will be called.
fn into<'a>(destination: &'a Destination, tools: &'a Tools) -> &'a str {
    match destination {
        Destination::Into(name) => name,
        Destination::InPlace | Destination::Drill => &tools.place.database,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn settings(url: &str) -> Settings {
        Settings::new("mydb", Secret::new(url))
    }

    #[test]
    fn what_is_wrong_is_found_before_anything_is_contacted() {
        let failure = |settings: Settings| {
            let error = (KIND.open)(settings).map(|engine| engine.describe()).expect_err("it is wrong");
            assert_eq!(error.kind, Kind::Config);
            error.message
        };
        assert_eq!(
            failure(settings("mysql://h/d")),
            "[databases.mydb]: url: it must start with postgres:// or postgresql://"
        );
        let args = Settings { dump_args: vec!["-Fp".into()], ..settings("postgres://u@h/d") };
        assert_eq!(
            failure(args),
            "[databases.mydb]: dump_args: -Fp is not allowed: the format and the output are ours to choose"
        );
    }

    #[test]
    fn the_plan_names_every_command() {
        let engine = (KIND.open)(settings("postgres://u:canary@h/d")).unwrap();
        assert_eq!(engine.describe(), "postgres d at h");
        let plan = engine.plan(&Destination::InPlace).join("\n").replace(r"'\''", "''");
        let expected = "\
psql: CREATE DATABASE \"d__restoring_XXXXXXXX\" TEMPLATE template0, closed to others
load the backup: LC_ALL=… PGPASSWORD=… pg_restore --no-password --exit-on-error \
'--dbname=dbname=''d__restoring_XXXXXXXX'' connect_timeout=''30'' host=''h'' user=''u'''
psql: compare the rows of every table with the backup
psql: end all sessions of d; BEGIN; ALTER DATABASE \"d\" RENAME TO \"d__old_XXXXXXXX\"; \
ALTER DATABASE \"d__restoring_XXXXXXXX\" RENAME TO \"d\"; carry over owner, grants, settings, limit and comment; COMMIT
psql: DROP DATABASE \"d__old_XXXXXXXX\"; or keep it, closed, as \"d__previous_XXXXXXXX\"";
        assert_eq!(plan, expected);
        let drill = engine.plan(&Destination::Drill);
        assert!(!drill.iter().any(|step| step.contains("RENAME")), "{drill:?}");
        let into = engine.plan(&Destination::Into("e".into()));
        assert!(into.iter().any(|step| step.contains("RENAME TO \"e\"")), "{into:?}");
        assert!(!into.iter().any(|step| step.contains("DROP") || step.contains("end all sessions")), "{into:?}");
    }
}
