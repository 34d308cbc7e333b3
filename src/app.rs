//! What every command works with. Flows in: the configuration. Flows out: opened targets, keys, engines, catalogs, all
//! of them made when they are asked for, so that a command fetches no secret that it does not need.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::catalog::{self, Catalog, Entry, OpenTarget};
use crate::cli::Global;
use crate::config::jobs::JobConfig;
use crate::config::{Config, DatabaseConfig, Defaults, suggest};
use crate::container;
use crate::engine::{Cx, Engine, EngineKind, Settings};
use crate::error::{Error, Kind, Result};
use crate::format::key::{Key, Keyring};
use crate::format::name::{Owner, encode};
use crate::report::Report;
use crate::schedule::files::{self, Durable};
use crate::schedule::shared::{Held, Shared};
use crate::schedule::store::{Hold, Store};
use crate::secret::Source;
use crate::select::Rules;
use crate::world::World;

/// Names the shared state that was seen to keep its word, in the data folder.
const PROVED: &str = "state-proved";
/// More than any place's name.
const MAX_PROVED: u64 = 8_192;

/// The configuration, and the world it is used in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// What is passed down to everything that does work.
    pub cx: Cx,
    /// The settings.
    pub config: Arc<Config>,
    /// The state of several hosts, once it is opened.
    shared: Arc<OnceLock<Arc<Shared>>>,
    /// The leases that are held.
    held: Vec<Arc<Held>>,
}

/// An engine, ready to work on a database.
#[derive(Clone)]
pub struct Opened {
    /// Its kind.
    pub kind: &'static EngineKind,
    /// The engine itself.
    pub engine: Arc<dyn Engine>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({})", self.engine.describe())
    }
}

impl App {
    /// Loads the configuration and warns of what is not right in it.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn load(global: &Global, world: &World, report: &Report) -> Result<Self> {
        let config = Config::load(&global.config, &world.vars, &defaults())?;
        Ok(Self::new(config, world, report))
    }

    /// Takes a configuration that has been loaded, and warns of what is not right in it.
    pub fn new(config: Config, world: &World, report: &Report) -> Self {
        let app = Self::silent(config, world, report);
        app.warn();
        app
    }

    /// Says what is not right in the configuration but stops nothing.
    pub fn warn(&self) {
        self.config.warnings.iter().for_each(|warning| self.cx.report.warn(warning));
    }

    /// Takes a configuration without a word, for a run that may have nothing to do.
    pub fn silent(config: Config, world: &World, report: &Report) -> Self {
        let mut world = world.clone();
        world.vars = Arc::new(world.vars.hiding(config.secret_vars.iter().cloned()));
        let cx = Cx { world, report: report.clone(), data_dir: config.data_dir.clone(), deadline: None };
        Self { cx, config: Arc::new(config), shared: Arc::default(), held: Vec::new() }
    }

    /// The same context, where everything must be done within `timeout`.
    pub fn within(&self, timeout: Duration) -> Cx {
        Cx { deadline: Some(self.cx.world.clock.monotonic() + timeout), ..self.cx.clone() }
    }

    /// The state of all jobs.
    ///
    /// # Errors
    /// [`Kind::Config`] when it is shared and its target can't be used; [`Kind::Target`] when that can't be asked.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::new(&self.cx.data_dir, self.shared()?, self.held.clone()))
    }

    fn shared(&self) -> Result<Option<Arc<Shared>>> {
        let Some(name) = &self.config.state else { return Ok(None) };
        if let Some(shared) = self.shared.get() {
            return Ok(Some(Arc::clone(shared)));
        }
        let shared = Arc::new(self.open_shared(name)?);
        // Whether it keeps its word is seen once on each host; `check` looks again.
        let (folder, place) = (&self.cx.data_dir, shared.describe());
        let proved = files::read(&folder.join(PROVED), MAX_PROVED)?;
        if proved.as_deref() != Some(place.as_bytes()) {
            shared.prove()?;
            let jobs = || self.config.jobs.iter().map(|job| job.name.as_str());
            Store::new(folder, Some(Arc::clone(&shared)), Vec::new()).join(jobs, &self.cx.report)?;
            files::replace(folder, PROVED, place.as_bytes(), Durable::No)?;
        }
        Ok(Some(Arc::clone(self.shared.get_or_init(|| shared))))
    }

    /// The shared state at the target of that name, whose store may not keep its word.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn open_shared(&self, name: &str) -> Result<Shared> {
        let target = (self.config.target(name)?.open)(&self.cx)?;
        let (instance, time) = (&self.config.instance, self.config.lease);
        Shared::new(target, instance, &defaults().hostname, time, &self.cx.world)
    }

    /// Takes the right to run a job.
    ///
    /// # Errors
    /// [`Kind::Locked`] when another run has it, here or on another host.
    pub fn hold(&self, job: &str) -> Result<Hold> {
        let now = self.cx.world.clock.now();
        Hold::acquire(&self.cx.data_dir, &self.store()?, job, now, &self.cx.report)
    }

    /// Takes the right to run a job; `None` when another run has it.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn try_hold(&self, job: &str) -> Result<Option<Hold>> {
        let now = self.cx.world.clock.now();
        Hold::attempt(&self.cx.data_dir, &self.store()?, job, now, &self.cx.report)
    }

    /// The same for one who holds this: it stops when the lease is lost, and only it may write what became of the job.
    #[must_use]
    pub fn holding(&self, hold: &Hold) -> Self {
        let mut cx = self.cx.clone();
        let mut held = self.held.clone();
        if let Some(lease) = hold.lease() {
            cx.world.cancel = cx.world.cancel.watching(lease.watch());
            held.push(Arc::clone(lease));
        }
        Self { cx, config: Arc::clone(&self.config), shared: Arc::clone(&self.shared), held }
    }

    /// Our own backups of a database.
    pub fn owner(&self, database: &str) -> Owner {
        Owner { instance: self.config.instance.clone(), database: database.to_owned() }
    }

    /// The jobs of a database, in the order of the file.
    pub fn jobs_of<'a>(&'a self, database: &'a str) -> impl Iterator<Item = &'a JobConfig> {
        self.config.jobs.iter().filter(move |job| job.database == database)
    }

    /// The jobs that are meant by their own names or their databases'; all, if nothing is named.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a name that is neither, with the nearest one.
    pub fn jobs(&self, names: &[String]) -> Result<Vec<&JobConfig>> {
        if names.is_empty() {
            return Ok(self.config.jobs.iter().collect());
        }
        let mut meant = BTreeSet::new();
        for name in names {
            let fits = |job: &&JobConfig| job.name == *name || job.database == *name;
            if !self.config.jobs.iter().any(|job| fits(&job)) {
                let known = self.config.jobs.iter().flat_map(|job| [job.name.as_str(), job.database.as_str()]);
                let path = self.config.path.display();
                return Err(Error::new(
                    Kind::Usage,
                    format!("there is no job and no database with a job {name:?} in {path}"),
                )
                .hint(suggest(name, known)));
            }
            meant.extend(self.config.jobs.iter().filter(fits).map(|job| job.name.as_str()));
        }
        Ok(self.config.jobs.iter().filter(|job| meant.contains(job.name.as_str())).collect())
    }

    /// Names of the targets to use for `job`: all of its own, or those of them that are wanted.
    ///
    /// # Errors
    /// [`Kind::Usage`] when a wanted one is not among them.
    pub fn targets_of(&self, job: &JobConfig, wanted: &[String]) -> Result<Vec<String>> {
        for name in wanted {
            self.config.target(name)?;
            if !job.targets.contains(name) {
                return Err(Error::new(Kind::Usage, format!("job {} does not send to target {name:?}", job.name))
                    .hint(format!("it sends to: {}", job.targets.join(", "))));
            }
        }
        Ok(if wanted.is_empty() { job.targets.clone() } else { wanted.to_vec() })
    }

    /// Opens a target.
    ///
    /// # Errors
    /// [`Kind::Usage`] for one that is not there; [`Kind::Config`] when it can't be used.
    pub fn open_target(&self, name: &str) -> Result<OpenTarget> {
        let config = self.config.target(name)?;
        Ok(OpenTarget {
            name: name.to_owned(),
            is_local: config.kind.is_local,
            target: (config.open)(&self.cx)?.into(),
        })
    }

    /// Opens the one target that is named, or all that a database's backups may be at.
    ///
    /// # Errors
    /// As [`App::open_target`].
    pub fn targets_for(&self, database: Option<&str>, named: Option<&str>) -> Result<Vec<OpenTarget>> {
        if let Some(name) = named {
            return Ok(vec![self.open_target(name)?]);
        }
        let used: BTreeSet<&String> = self
            .config
            .jobs
            .iter()
            .filter(|job| database.is_none_or(|database| job.database == database))
            .flat_map(|job| &job.targets)
            .collect();
        // A database without a job of its own may have backups anywhere: those of another host, or of former days.
        let all = used.is_empty();
        let names = self.config.targets.keys().filter(|name| all || used.contains(name));
        names.map(|name| self.open_target(name)).collect()
    }

    fn key(&self, source: &Source, what: &str) -> Result<Key> {
        let text = source.fetch(what, &self.cx)?;
        Key::parse(text.expose()).map_err(|error| Error { message: format!("{what} {}", error.message), ..error })
    }

    /// The key that a job writes with: its own, or the common one; none, if there is none.
    ///
    /// # Errors
    /// [`Kind::Config`] when it can't be fetched or is no key.
    pub fn writing_key(&self, job: &JobConfig) -> Result<Option<Key>> {
        let own = job.encryption_key.as_ref().map(|source| (source, format!("encryption_key of job {}", job.name)));
        let common = || self.config.encryption_key.as_ref().map(|source| (source, "encryption_key".to_owned()));
        own.or_else(common).map(|(source, what)| self.key(source, &what)).transpose()
    }

    /// Every key that may open a database's backups.
    ///
    /// # Errors
    /// [`Kind::Config`] when one can't be fetched or is no key.
    pub fn keyring(&self, database: &str) -> Result<Keyring> {
        let mut keys = Vec::new();
        for job in self.jobs_of(database) {
            keys.extend(self.writing_key(job)?);
        }
        if let Some(source) = &self.config.encryption_key {
            keys.push(self.key(source, "encryption_key")?);
        }
        for source in &self.config.previous_keys {
            keys.push(self.key(source, "previous_encryption_keys")?);
        }
        Ok(Keyring::new(keys))
    }

    /// A database's table, if it has one.
    pub fn table(&self, name: &str) -> Option<&DatabaseConfig> {
        self.config.databases.get(name)
    }

    /// How messages call the place where a database is said to be: its table, or its container.
    pub fn place(&self, name: &str) -> String {
        match self.table(name).and_then(|table| table.place.as_ref()) {
            Some(_) => format!("[databases.{}]", toml_key(name)),
            None => format!("container {}", container::name_of(name)),
        }
    }

    /// A database's engine, its secrets fetched; one whose table does not say where it is, is found as a container.
    ///
    /// # Errors
    /// [`Kind::Config`]; [`Kind::Tool`] when its container can't be used.
    pub fn engine(&self, name: &str) -> Result<Opened> {
        let table = self.table(name);
        let what = |key: &str| format!("{key} of [databases.{}]", toml_key(name));
        let password = table.and_then(|table| table.password.as_ref());
        let password = password.map(|source| source.fetch(&what("password"), &self.cx)).transpose()?;
        let (kind, mut settings) = match table.and_then(|table| table.place.as_ref()) {
            Some((kind, url)) => {
                let url = url.fetch(&what("url"), &self.cx)?;
                let exec = table.map(|table| table.exec.clone()).unwrap_or_default();
                (*kind, Settings { password, exec, ..Settings::new(name, url) })
            }
            None => {
                let path = self.config.path.display();
                let here = match table {
                    Some(_) => format!("[databases.{}] in {path} has neither engine nor url", toml_key(name)),
                    None => format!("database {name:?} has no [databases.{}] table in {path}", toml_key(name)),
                };
                container::find(name, password, &self.cx).map_err(|error| match error.is_stopped() {
                    true => error,
                    false => error.while_doing(here),
                })?
            }
        };
        if let Some(table) = table {
            settings.tools_dir.clone_from(&table.tools_dir);
            settings.dump_args.clone_from(&table.dump_args);
            settings.restore_args.clone_from(&table.restore_args);
        }
        Ok(Opened { kind, engine: (kind.open)(settings)?.into() })
    }

    /// What decides which backups of a database may be chosen.
    pub fn rules(&self, database: &str, allow_unauthenticated: bool) -> Rules {
        let encrypts = self.jobs_of(database).any(|job| job.encrypt);
        Rules { now: self.cx.world.clock.now(), encrypts, allow_unauthenticated }
    }

    /// What a target holds of one database, or of all of an instance.
    ///
    /// # Errors
    /// As [`catalog::read`].
    pub fn catalog(&self, open: &OpenTarget, instance: &str, database: Option<&str>) -> Result<Catalog> {
        let prefix = match database {
            Some(database) => Owner { instance: instance.to_owned(), database: database.to_owned() }.prefix(),
            None => format!("{}/", encode(instance)),
        };
        catalog::read(open, &prefix, &mut |owner| self.keyring(&owner.database))
    }

    /// Every copy of every backup of a database at these targets, and of one job if it is named.
    ///
    /// # Errors
    /// As [`catalog::read`]: a target that can't be listed is never left out.
    pub fn entries(
        &self,
        open: &[OpenTarget],
        instance: &str,
        database: &str,
        job: Option<&str>,
    ) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for target in open {
            let catalog = self.catalog(target, instance, Some(database))?;
            let meant = |entry: &Entry| job.is_none_or(|job| entry.id.job().as_deref() == Some(job));
            entries.extend(catalog.entries.into_iter().filter(meant));
        }
        Ok(entries)
    }
}

/// What the host says where the file says nothing.
pub fn defaults() -> Defaults {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Defaults { hostname: if name.is_empty() { "localhost".to_owned() } else { name } }
}

/// A name as TOML takes it in a table's head.
pub fn toml_key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { name.to_owned() } else { format!("{name:?}") }
}

/// Where the state is for a configuration that may not even parse, for the cheapest look at whether anything is due.
pub fn data_dir_of(text: &str, world: &World) -> Option<PathBuf> {
    if let Some(path) = world.vars.get("VOXELTRON_BACKUP_DATA_DIR") {
        return Some(path.into());
    }
    // A table that has it in another way than on a line of its own is rare; then the answer is no, and the file is parsed.
    // So it is where it stands in another program's table, whose folder may be anybody's.
    let mut table = "";
    let mut found = text.lines().filter_map(|line| {
        if line.starts_with('[') {
            table = line.trim_end();
        }
        line.contains("data_dir").then_some((line, table))
    });
    let Some((line, table)) = found.next() else { return Some(crate::config::DEFAULT_DATA_DIR.into()) };
    if table != "[backup]" {
        return None;
    }
    let value = line.trim().strip_prefix("data_dir")?.trim_start().strip_prefix('=')?.trim();
    let path = value.strip_prefix('"')?.strip_suffix('"')?;
    (found.next().is_none() && path.starts_with('/') && !path.contains(['\\', '"'])).then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_is_read_off_a_line_of_its_own_table_only() {
        let world = World { vars: Arc::default(), ..World::system() };
        let found = |text: &str| data_dir_of(text, &world).map(|path| path.display().to_string());
        assert_eq!(found("[backup]\ndata_dir = \"/d\"\n").as_deref(), Some("/d"));
        assert_eq!(found("[backup]\r\n  data_dir=\"/d\"\r\n[x]\n").as_deref(), Some("/d"));
        assert_eq!(found("[backup]\n").as_deref(), Some(crate::config::DEFAULT_DATA_DIR));
        for text in [
            "[server]\ndata_dir = \"/theirs\"\n[backup]\n",
            "data_dir = \"/theirs\"\n[backup]\n",
            "[backup]\ndata_dir = \"/d\"\n[server]\ndata_dir = \"/theirs\"\n",
            "backup = { data_dir = \"/d\" }\n",
            "backup.data_dir = \"/d\"\n",
            "[backup]\ndata_dir = 'd'\n",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
