//! The jobs of the configuration. Flows in: their tables. Flows out: checked jobs with unique names. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use sha2::{Digest, Sha256};

use super::table::Table;
use super::{check_name, suggest};
use crate::engine::checks::Check;
use crate::pipeline::gzip::DEFAULT_LEVEL;
use crate::retention::Policy;
use crate::schedule::cron::Cron;
use crate::schedule::due;
use crate::secret::Source;
use crate::target::cloud;

/// How long a job may take, if nothing else is said: a run that hangs for ever would hold the job's lock for ever.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
/// The first pause before a failed slot is tried again, if nothing else is said; each later one is twice as long.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);

/// One job.
#[derive(Debug)]
pub struct JobConfig {
    /// Its name, unique.
    pub name: String,
    /// The database it dumps.
    pub database: String,
    /// When.
    pub cron: Cron,
    /// Names of the targets it sends the dump to.
    pub targets: Vec<String>,
    /// Whether it compresses.
    pub compress: bool,
    /// 1 to 9.
    pub compression_level: u8,
    /// Whether it encrypts.
    pub encrypt: bool,
    /// Its own key, in the place of the common one.
    pub encryption_key: Option<Source>,
    /// What stays.
    pub retention: Policy,
    /// Whether missed slots are made up for.
    pub catch_up: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// How often a failed slot is tried again; `None`: until the next one comes.
    pub retries: Option<u32>,
    /// The first pause before that.
    pub retry_after: Duration,
    /// How long after its slot it runs, so that not all do at once.
    pub delay: TimeDelta,
    /// When its newest backup is restored into a scratch database, as a proof.
    pub drill: Option<Cron>,
    /// What is asked of it then.
    pub checks: Vec<Check>,
    /// Is told of this job's start, success and failure.
    pub healthcheck_url: Option<Source>,
    /// Run before.
    pub before: Option<Vec<String>>,
    /// Run after, also when the job failed.
    pub after: Option<Vec<String>>,
}

impl JobConfig {
    /// What deciding whether it is due needs of it.
    pub fn due(&self) -> due::Job<'_> {
        due::Job {
            name: &self.name,
            cron: &self.cron,
            catch_up: self.catch_up,
            retries: self.retries,
            retry_after: self.retry_after,
            delay: self.delay,
        }
    }
}

/// Reads all jobs. `target_names` are those of all targets, also of such as have problems of their own.
pub(super) fn read(tables: Vec<Table<'_>>, instance: &str, target_names: &[String], has_key: bool) -> Vec<JobConfig> {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut jobs = Vec::new();
    for mut table in tables {
        let (name, job) = one(&mut table, instance, target_names, has_key);
        if let Some(first) = name.as_ref().and_then(|name| seen.get(name)) {
            let name = name.as_deref().unwrap_or_default();
            let hint = "give one of them a name of its own: name = \"…\"";
            table.wrong(&format!("has the name {name:?}, which {first} has already"), hint);
        } else if let Some(name) = name {
            seen.insert(name, table.shown().to_owned());
        }
        table.finish();
        jobs.extend(job);
    }
    jobs
}

fn one(
    table: &mut Table<'_>,
    instance: &str,
    target_names: &[String],
    has_key: bool,
) -> (Option<String>, Option<JobConfig>) {
    let database = table.required_string("database");
    let given = table.string("name");
    let targets = targets(table, target_names);
    let timezone = table.string("timezone").unwrap_or_else(|| "UTC".to_owned());
    let expression = table.required_string("schedule");
    let cron = expression.and_then(|expression| schedule(table, "schedule", &expression, &timezone));
    let drill = table.string("drill").and_then(|expression| schedule(table, "drill", &expression, &timezone));
    let compress = table.boolean("compress").unwrap_or(true);
    let level = table.integer("compression_level", 1..=9).and_then(|level| u8::try_from(level).ok());
    let encrypt = table.boolean("encrypt").unwrap_or(false);
    let encryption_key = super::key(table, "encryption_key");
    if encrypt && !has_key && encryption_key.is_none() {
        let hint = "add encryption_key to [backup]; make one with: voxeltron-backup keygen";
        table.problem("encrypt", "is true, but there is no encryption_key", hint);
    }
    let mut count = |key| table.integer(key, 1..=100_000);
    let retention = Policy {
        retention_days: count("retention_days"),
        keep_last: count("keep_last"),
        keep_daily: count("keep_daily"),
        keep_weekly: count("keep_weekly"),
        keep_monthly: count("keep_monthly"),
        keep_yearly: count("keep_yearly"),
    };
    let catch_up = table.boolean("catch_up").unwrap_or(true);
    let timeout = table.duration("timeout").unwrap_or(DEFAULT_TIMEOUT);
    let retries = table.integer("retries", 0..=1_000);
    let retry_after = table.duration("retry_after").unwrap_or(DEFAULT_RETRY_AFTER);
    let healthcheck_url = super::web_address(table, "healthcheck_url");
    let (before, after) = (table.command("before"), table.command("after"));
    let spread = table.duration("spread").unwrap_or_default();
    let checks = table.tables("checks").into_iter().filter_map(check).collect();
    let name = given.or_else(|| Some(format!("{}@{}", database.as_deref()?, targets.join("+"))));
    if let Some(name) = &name {
        check_name(table, "name", name);
    }
    let job = || {
        Some(JobConfig {
            name: name.clone()?,
            database: database?,
            cron: cron?,
            targets,
            compress,
            compression_level: level.unwrap_or(DEFAULT_LEVEL),
            encrypt,
            encryption_key,
            retention,
            catch_up,
            timeout,
            retries,
            retry_after,
            delay: delay(spread, instance, name.as_deref()?),
            drill,
            checks,
            healthcheck_url,
            before,
            after,
        })
    };
    let job = job();
    (name, job)
}

/// A question for the drill, and the answer that it must get.
fn check(mut table: Table<'_>) -> Option<Check> {
    let name = table.string("name");
    let query = table.strings("query");
    if !table.has("query") {
        table.wrong("has no `query`", "add: query = \"SELECT count(*) > 0 FROM …\"");
    } else if query.as_ref().is_some_and(|words| words.iter().all(|word| word.trim().is_empty())) {
        table.problem("query", "is empty", "write what is to be asked");
    }
    let expect = table.required_string("expect");
    table.finish();
    Some(Check { name, query: query?, expect: expect? })
}

/// A delay below `spread`, in whole seconds, that is always the same for a job of an instance.
fn delay(spread: Duration, instance: &str, job: &str) -> TimeDelta {
    let digest = Sha256::digest(format!("{instance}\0{job}"));
    let number = digest.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let seconds = number.checked_rem(spread.as_secs()).unwrap_or_default();
    i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds).unwrap_or_default()
}

fn schedule(table: &Table<'_>, key: &str, expression: &str, timezone: &str) -> Option<Cron> {
    match Cron::parse(expression, timezone) {
        Ok(cron) => Some(cron),
        Err(error) => {
            let key = if timezone.parse::<chrono_tz::Tz>().is_err() { "timezone" } else { key };
            table.failed(key, &error);
            None
        }
    }
}

/// The targets that are named; else the one called `local`; else the only one.
fn targets(table: &mut Table<'_>, known_names: &[String]) -> Vec<String> {
    let known = || known_names.iter().map(String::as_str);
    let Some(names) = table.strings("target") else {
        if table.has("target") {
            return Vec::new();
        }
        let only = known().next().filter(|_| known_names.len() == 1);
        return match known().find(|name| *name == "local").or(only) {
            Some(name) => vec![name.to_owned()],
            None => {
                table.wrong(
                    "has no `target`, and there is neither one called local nor a single one",
                    "add: target = \"NAME\"",
                );
                Vec::new()
            }
        };
    };
    if names.is_empty() {
        table.problem("target", "is empty", "name at least one target");
    }
    for (at, name) in names.iter().enumerate() {
        if !known_names.contains(name) && name != cloud::NAME {
            let hint = match known_names.is_empty() {
                true => format!("add a table [backup.targets.{name}]"),
                false => suggest(name, known()),
            };
            table.problem("target", &format!("names {name:?}, which is no target"), &hint);
        } else if names.iter().take(at).any(|before| before == name) {
            table.problem("target", &format!("names {name:?} twice"), "");
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_the_same_each_time_and_another_for_each_job_and_instance() {
        let spread = Duration::from_secs(600);
        let of = |instance: &str, job: &str| delay(spread, instance, job);
        assert_eq!(of("h", "j"), of("h", "j"));
        assert!(of("h", "j") != of("h", "k") && of("h", "j") != of("i", "j"));
        let all: Vec<i64> = (0..1_000).map(|job| of("h", &job.to_string()).num_seconds()).collect();
        assert!(all.iter().all(|delay| (0..600).contains(delay)));
        // Over all of it, and about evenly: each tenth has its share.
        let tenths = (0..10).map(|tenth| all.iter().filter(|delay| **delay / 60 == tenth).count());
        assert!(tenths.clone().all(|count| (60..140).contains(&count)), "{:?}", tenths.collect::<Vec<_>>());
        assert_eq!(delay(Duration::ZERO, "h", "j"), TimeDelta::zero());
    }
}
