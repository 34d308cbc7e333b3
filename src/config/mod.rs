//! The configuration. Flows in: the file's text and the environment's overrides. Flows out: checked settings, or every
//! problem of the file in one error. Reading a file is the only thing that touches the disk; secrets are not fetched.

pub mod jobs;
pub mod table;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use self::jobs::JobConfig;
use self::table::{Problems, Table, nearest, parse_duration};
use crate::engine::{self, EngineKind, REGISTRY as ENGINES};
use crate::error::{Context, Error, Kind, Result};
use crate::format::key::Key;
use crate::format::name::{MAX_NAME_BYTES, encode};
use crate::schedule::lease;
use crate::secret::{Source, check_private};
use crate::target::{Opener, REGISTRY as TARGETS, TargetKind, cloud};
use crate::world::Vars;

/// Where the configuration is, if nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/voxeltron/config.toml";
/// Where state and locks are, if nothing else is said.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/voxeltron/backup";
/// How long a lease may be, in seconds.
const LEASES: RangeInclusive<u64> = 5..=3_600;
/// How long the database that a restore replaces is kept, if nothing else is said.
pub const KEEP_PREVIOUS: Duration = Duration::from_secs(24 * 3_600);
/// What every overriding variable begins with.
pub const ENV_PREFIX: &str = "VOXELTRON_BACKUP_";

/// All settings, checked.
#[derive(Debug)]
pub struct Config {
    /// The file they come from.
    pub path: PathBuf,
    /// Whose backups these are.
    pub instance: String,
    /// State, locks, temporary files.
    pub data_dir: PathBuf,
    /// The target that keeps the state of several hosts; none: it is in `data_dir`.
    pub state: Option<String>,
    /// How long a host that died keeps others from running its job.
    pub lease: Duration,
    /// The key that writes.
    pub encryption_key: Option<Source>,
    /// Keys that only read.
    pub previous_keys: Vec<Source>,
    /// Targets by name.
    pub targets: BTreeMap<String, TargetConfig>,
    /// Databases by name.
    pub databases: BTreeMap<String, DatabaseConfig>,
    /// Jobs in the order of the file.
    pub jobs: Vec<JobConfig>,
    /// What is not right but stops nothing.
    pub warnings: Vec<String>,
    /// Environment variables that secrets come from.
    pub secret_vars: Vec<String>,
    /// Who is told what came of the jobs.
    pub notify: NotifyConfig,
}

/// Who is told what came of the jobs. The addresses hold what lets one speak in our name: they are secrets.
#[derive(Debug, Default)]
pub struct NotifyConfig {
    /// Is told of start, success and failure, as healthchecks.io and its like want it.
    pub healthcheck_url: Option<Source>,
    /// Gets a JSON document for each run.
    pub webhook_url: Option<Source>,
    /// Prometheus's textfile.
    pub metrics_file: Option<PathBuf>,
}

/// One target.
pub struct TargetConfig {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static TargetKind,
    /// Opens it.
    pub open: Opener,
    /// Where a cloud is, for the command that links to it.
    pub endpoint: Option<String>,
    /// Its certificates, for the same.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for TargetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TargetConfig({} {:?})", self.name, self.kind)
    }
}

/// One database.
#[derive(Debug)]
pub struct DatabaseConfig {
    /// Its name.
    pub name: String,
    /// Its engine and where it is (which may hold a password); none: its container says so.
    pub place: Option<(&'static EngineKind, Source)>,
    /// Its password, if not in the URL.
    pub password: Option<Source>,
    /// Words put before every tool, so that it runs elsewhere.
    pub exec: Vec<String>,
    /// Where the tools are.
    pub tools_dir: Option<PathBuf>,
    /// More arguments for the dump tool.
    pub dump_args: Vec<String>,
    /// More arguments for the restore tool.
    pub restore_args: Vec<String>,
    /// Run before an in-place restore.
    pub restore_before: Option<Vec<String>>,
    /// Run after an in-place restore, also a failed one.
    pub restore_after: Option<Vec<String>>,
    /// How long the database that a restore replaces is kept; zero: not at all.
    pub keep_previous: Duration,
}

/// What the world says where the file says nothing.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// The host's name.
    pub hostname: String,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Kind::Config`] with every problem of the file.
    pub fn load(path: &Path, vars: &Vars, defaults: &Defaults) -> Result<Self> {
        let text = read_text(path)?;
        let warning = check_private(path, "configuration")?;
        let mut config = Self::parse(path, &text, vars, defaults)?;
        config.warnings.extend(warning);
        Ok(config)
    }

    /// Checks a file's text.
    ///
    /// # Errors
    /// [`Kind::Config`] with every problem of the file.
    pub fn parse(path: &Path, text: &str, vars: &Vars, defaults: &Defaults) -> Result<Self> {
        let file = path.display().to_string();
        let problems = Problems::new(&file, text);
        let document = DeTable::parse(text).map_err(|error| {
            // Not the parser's own picture of the line: a secret may stand there.
            let problems = Problems::new(&file, text);
            let hint = "see toml.io, or compare with examples/config.toml".to_owned();
            problems.add(
                error.span().map_or(0, |span| span.start),
                format!("not TOML: {}", error.message()),
                Some(hint),
            );
            problems.into_result().err().unwrap_or_else(|| Error::new(Kind::Config, format!("{file}: not TOML")))
        })?;
        let mut root = Table::new("[]", "", &document, &problems, Some(("VOXELTRON_".to_owned(), vars)));
        let databases = databases(&mut root);
        let mut config = Self::backup(&mut root, defaults, path);
        config.databases = databases;
        config.warnings.extend(unused_overrides(vars));
        config.secret_vars = problems.secret_vars();
        problems.into_result()?;
        Ok(config)
    }

    fn backup(root: &mut Table<'_>, defaults: &Defaults, path: &Path) -> Self {
        let mut config = Self {
            path: path.to_owned(),
            instance: defaults.hostname.clone(),
            data_dir: DEFAULT_DATA_DIR.into(),
            state: None,
            lease: lease::TIME,
            encryption_key: None,
            previous_keys: Vec::new(),
            targets: BTreeMap::new(),
            databases: BTreeMap::new(),
            jobs: Vec::new(),
            warnings: Vec::new(),
            secret_vars: Vec::new(),
            notify: NotifyConfig::default(),
        };
        let Some(mut table) = root.table("backup") else { return config };
        if let Some(instance) = table.string("instance") {
            config.instance = instance;
        }
        check_name(&table, "instance", &config.instance);
        if let Some(data_dir) = table.path("data_dir") {
            config.data_dir = data_dir;
        }
        config.encryption_key = key(&mut table, "encryption_key");
        config.previous_keys = table.secrets("previous_encryption_keys");
        for source in &config.previous_keys {
            check_key(&table, "previous_encryption_keys", source);
        }
        config.state = table.string("state");
        if let Some(time) = table.duration("lease") {
            if !LEASES.contains(&time.as_secs()) {
                table.problem("lease", "must be between 5s and 1h", "");
            }
            config.lease = time;
        }
        if let Some(mut notify) = table.table("notify") {
            config.notify.healthcheck_url = web_address(&mut notify, "healthcheck_url");
            config.notify.webhook_url = web_address(&mut notify, "webhook_url");
            config.notify.metrics_file = notify.path("metrics_file");
            notify.finish();
        }
        let mut names = Vec::new();
        if let Some(mut targets) = table.table("targets") {
            for target in targets.named_tables() {
                names.push(target.name().to_owned());
                if let Some(target) = self::target(target) {
                    config.targets.insert(target.name.clone(), target);
                }
            }
        }
        config.check_state(&table, &names);
        let tables = table.tables("jobs");
        config.jobs = jobs::read(tables, &config.instance, &names, config.encryption_key.is_some());
        // A job can name it where no table does: `cloud link` has said all there is to say.
        if !names.iter().any(|name| name == cloud::NAME)
            && config.jobs.iter().any(|job| job.targets.iter().any(|name| name == cloud::NAME))
        {
            let (name, open) = (cloud::NAME.to_owned(), cloud::without_table());
            let target = TargetConfig { name: name.clone(), kind: &cloud::KIND, open, endpoint: None, ca_file: None };
            config.targets.insert(name, target);
        }
        table.finish();
        config
    }

    /// The state must be where several hosts can keep it. `names`: all targets, those with problems too.
    fn check_state(&self, table: &Table<'_>, names: &[String]) {
        let Some(name) = &self.state else { return };
        let hint = "name a target of type \"s3\" or \"gcs\", or leave it out: then the state is kept in data_dir";
        if !names.contains(name) {
            table.problem("state", &format!("is {name:?}, which is no target"), hint);
        }
        if let Some(target) = self.targets.get(name).filter(|target| !target.kind.has_records) {
            let kind = target.kind.name;
            table.problem("state", &format!("is {name:?}, a target of type {kind:?}, which can't keep it"), hint);
        }
    }

    /// The target of that name.
    ///
    /// # Errors
    /// [`Kind::Usage`] naming the nearest one.
    pub fn target(&self, name: &str) -> Result<&TargetConfig> {
        self.targets.get(name).ok_or_else(|| {
            let error = Error::new(Kind::Usage, format!("there is no target {name:?} in {}", self.path.display()));
            error.hint(suggest(name, self.targets.keys().map(String::as_str)))
        })
    }
}

/// "did you mean", or all there is.
pub fn suggest<'n>(word: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("there are: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// A configuration file's text.
///
/// # Errors
/// [`Kind::Config`] when it can't be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .doing(Kind::Config, format!("can't read the configuration {}", path.display()))
        .map_err(|error| error.hint("say where it is with --config, or write one: examples/config.toml is a start"))
}

/// Refuses names that could not be stored.
fn check_name(table: &Table<'_>, key: &str, name: &str) {
    if name.is_empty() || encode(name).len() > MAX_NAME_BYTES {
        table.problem(key, &format!("must have between 1 and {MAX_NAME_BYTES} bytes, percent-encoded"), "");
    }
}

/// An encryption key's source; a key that stands in the file is checked at once.
fn key(table: &mut Table<'_>, name: &'static str) -> Option<Source> {
    let source = table.secret(name)?;
    check_key(table, name, &source);
    Some(source)
}

/// An address of a service on the web; one that stands in the file is checked at once.
pub(super) fn web_address(table: &mut Table<'_>, name: &'static str) -> Option<Source> {
    let source = table.secret(name)?;
    if let Source::Text(text) = &source
        && !["https://", "http://"].iter().any(|scheme| text.expose().starts_with(scheme))
    {
        table.problem(name, "must start with https:// or http://", "");
    }
    Some(source)
}

fn check_key(table: &Table<'_>, name: &str, source: &Source) {
    if let Source::Text(text) = source
        && let Err(error) = Key::parse(text.expose())
    {
        table.failed(name, &error);
    }
}

fn target(mut table: Table<'_>) -> Option<TargetConfig> {
    let name = table.name().to_owned();
    let kind = table.string("type").unwrap_or_else(|| name.clone());
    let prefix = table.string("prefix").unwrap_or_default();
    let prefix = prefix.trim_matches('/').to_owned();
    if !prefix.is_empty() && crate::format::name::ObjectKey::new(&prefix).is_err() {
        table.problem(
            "prefix",
            "has a character or a part that can't stand in an object's name",
            "use letters, digits, - _ . @ + and /",
        );
    }
    let prefix = if prefix.is_empty() { prefix } else { format!("{prefix}/") };
    let Some(found) = TARGETS.iter().find(|known| known.name == kind) else {
        let names = TARGETS.iter().map(|known| known.name);
        let hint = format!("set type to one of: {}", names.collect::<Vec<_>>().join(", "));
        match table.has("type") {
            true => table.problem("type", &format!("is {kind:?}, which is no kind of target"), &hint),
            false => table.wrong("has no type, and its name is none", &hint),
        }
        return None;
    };
    let open = (found.read)(&mut table, &prefix);
    let is_cloud = found.name == cloud::NAME;
    let endpoint = table.peek("endpoint").filter(|_| is_cloud);
    let ca_file = table.peek("ca_file").filter(|_| is_cloud).map(PathBuf::from);
    table.finish();
    Some(TargetConfig { name, kind: found, open, endpoint, ca_file })
}

fn databases(root: &mut Table<'_>) -> BTreeMap<String, DatabaseConfig> {
    let Some(mut tables) = root.table("databases") else { return BTreeMap::new() };
    let read = |table: Table<'_>| database(table).map(|database| (database.name.clone(), database));
    tables.named_tables().into_iter().filter_map(read).collect()
}

fn database(mut table: Table<'_>) -> Option<DatabaseConfig> {
    let name = table.name().to_owned();
    check_name(&table, &name, &name);
    // With neither it is found as the container of its name, and the rest of the table is added to that.
    let found = ["engine", "url", "exec"].iter().all(|key| !table.has(key)) && !table.is_overridden(&["engine", "url"]);
    let engine = if found { None } else { table.required_string("engine") };
    let url = if found { None } else { table.secret("url") };
    let password = table.secret("password");
    let exec = exec(&mut table);
    let tools_dir = table.path("tools_dir");
    let dump_args = table.strings("dump_args").unwrap_or_default();
    let restore_args = table.strings("restore_args").unwrap_or_default();
    let (mut restore_before, mut restore_after) = (None, None);
    if let Some(mut hooks) = table.table("restore") {
        restore_before = hooks.command("before");
        restore_after = hooks.command("after");
        hooks.finish();
    }
    let keep_previous = keep_previous(&mut table);
    if !found && url.is_none() && !table.has("url") {
        table.wrong("has no `url`", "add: url = \"postgres://user@host:5432/database\"");
    }
    let engine = engine.and_then(|engine| known_engine(&table, &engine));
    for key in ["engine", "url"] {
        // Where neither is given they are keys all the same.
        table.knows(key);
    }
    table.finish();
    let place = if found { None } else { Some((engine?, url?)) };
    Some(DatabaseConfig {
        name,
        place,
        password,
        exec,
        tools_dir,
        dump_args,
        restore_args,
        restore_before,
        restore_after,
        keep_previous,
    })
}

fn keep_previous(table: &mut Table<'_>) -> Duration {
    let Some(text) = table.string("keep_previous") else { return KEEP_PREVIOUS };
    if text.trim() == "0" {
        return Duration::ZERO;
    }
    parse_duration(&text).unwrap_or_else(|| {
        let hint = "write it like 30m, 24h or 7d, or \"0\" to keep none";
        table.problem("keep_previous", &format!("is not a length of time: {text:?}"), hint);
        KEEP_PREVIOUS
    })
}

/// The words that a tool is run by elsewhere.
fn exec(table: &mut Table<'_>) -> Vec<String> {
    let Some(words) = table.strings("exec") else { return Vec::new() };
    let program = words.first().map(|word| word.rsplit('/').next().unwrap_or(word)).unwrap_or_default();
    let example = "write it as exec = [\"docker\", \"exec\", \"-i\", \"NAME\"]";
    if words.is_empty() || words.iter().any(|word| word.is_empty() || word.contains('\0')) {
        table.problem("exec", "must be a list of words, none of them empty", example);
    } else if words.len() == 1 && program.contains(' ') {
        table.problem("exec", "must be a list of words, not one text", example);
    } else if program == "ssh" {
        table.problem("exec", "begins with ssh, which joins words that belong apart", "reach the server by url");
    } else if words.iter().any(|word| ["-t", "--tty", "-it", "-ti"].contains(&word.as_str())) {
        table.problem("exec", "asks for a terminal, which alters a dump and shows a password", "write -i alone");
    }
    words
}

fn known_engine(table: &Table<'_>, name: &str) -> Option<&'static EngineKind> {
    let found = engine::kind(name);
    if found.is_none() {
        let names: Vec<_> = ENGINES.iter().map(|kind| kind.name).collect();
        let hint = format!("use one of: {}", names.join(", "));
        table.problem("engine", &format!("is {name:?}, which is no engine"), &hint);
    }
    found
}

/// A misspelt override must not pass unseen.
fn unused_overrides(vars: &Vars) -> Vec<String> {
    const KNOWN: [&str; 5] = ["ENCRYPTION_KEY", "DATA_DIR", "INSTANCE", "STATE", "LEASE"];
    vars.names()
        .filter_map(|name| name.strip_prefix(ENV_PREFIX).map(|rest| (name, rest)))
        .filter(|(_, rest)| !KNOWN.contains(rest) && !rest.starts_with("TARGETS_") && !rest.starts_with("NOTIFY_"))
        .map(|(name, _)| format!("environment variable {name} overrides nothing"))
        .collect()
}
