//! The command line. Flows in: words. Flows out: checked arguments. Pure: help, the manual pages and the shell
//! completions are all made from these types, so that they can't disagree.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::DEFAULT_PATH;
use crate::exit::Exit;
use crate::report::{Level, Style, When};
use crate::select::{Moment, Selector};

/// How many jobs `schedule-check` runs at once, if nothing else is said.
pub const DEFAULT_MAX_PARALLEL: u16 = 2;

/// Backs databases up, encrypted, to where you say, and brings them back.
#[derive(Debug, Parser)]
#[command(name = "voxeltron-backup", version, propagate_version = true, max_term_width = 100)]
#[command(after_long_help = exit_codes())]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The configuration file
    #[arg(short, long, global = true, value_name = "PATH", env = "VOXELTRON_CONFIG", default_value = DEFAULT_PATH)]
    #[arg(hide_env_values = true)]
    pub config: PathBuf,
    /// Print one JSON document on stdout, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// Say only what is wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say every command that is run, secrets left out
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// When to draw progress on stderr
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub progress: When,
    /// When to colour stderr
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub color: When,
}

impl Global {
    /// What it says about output.
    pub fn style(&self) -> Style {
        let level = match (self.quiet, self.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        };
        Style { level, json: self.json, progress: self.progress, color: self.color, journal: false }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run jobs now, whatever their schedule says
    RunJob(RunJobArgs),
    /// Run every job that is due; a timer calls this once a minute
    ScheduleCheck(ScheduleCheckArgs),
    /// Bring a database back, in its place or beside it
    Restore(RestoreArgs),
    /// Remove what retention does not keep
    Prune(PruneArgs),
    /// List the backups at the targets
    List(ListArgs),
    /// Keep a backup for ever, whatever retention says
    Pin(PinArgs),
    /// Let retention decide about a pinned backup again
    Unpin(PinArgs),
    /// Read backups back, and prove that they can be restored
    Verify(VerifyArgs),
    /// Look whether everything that a backup needs is there
    Check(CheckArgs),
    /// Show how each job is doing; exit status 3 when one is overdue or failing
    Status,
    /// Link this instance to Voxeltron Cloud, where a job then sends its backups by target = "cloud"
    #[command(subcommand)]
    Cloud(CloudCommand),
    /// Print a fresh encryption key
    Keygen,
    /// Show the whole work on a small SQLite database: back up, list, verify, damage, restore, compare
    Demo(DemoArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page, or write all of them into a folder
    Man {
        /// Where to write the pages
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Voxeltron's own spelling of restore
    #[command(hide = true, subcommand)]
    Db(DbCommand),
}

/// `db restore …`, as the Voxeltron documentation writes it.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Bring a database back, in its place or beside it
    Restore(RestoreArgs),
}

/// `cloud …`.
#[derive(Debug, Subcommand)]
pub enum CloudCommand {
    /// Show a code, wait until somebody approves it at the endpoint, and keep the link
    Link(LinkArgs),
    /// End the link, there and here; the backups there stay
    Unlink(UnlinkArgs),
    /// Show where it is linked to, how full the account is, and whether it answers
    Status,
}

/// Arguments of `cloud link`.
#[derive(Clone, Debug, Default, Args)]
pub struct LinkArgs {
    /// Who keeps the backups; default: `endpoint` of the target in the configuration
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Trust the certificates of this PEM file, too
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Replace the link that there is
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `cloud unlink`.
#[derive(Clone, Debug, Default, Args)]
pub struct UnlinkArgs {
    /// Remove the link here even if it can't be ended there
    #[arg(long)]
    pub force: bool,
}

impl Command {
    /// Its name, as it stands in JSON documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunJob(_) => "run-job",
            Self::ScheduleCheck(_) => "schedule-check",
            Self::Restore(_) | Self::Db(_) => "restore",
            Self::Prune(_) => "prune",
            Self::List(_) => "list",
            Self::Pin(_) => "pin",
            Self::Unpin(_) => "unpin",
            Self::Verify(_) => "verify",
            Self::Check(_) => "check",
            Self::Status => "status",
            Self::Cloud(CloudCommand::Link(_)) => "cloud link",
            Self::Cloud(CloudCommand::Unlink(_)) => "cloud unlink",
            Self::Cloud(CloudCommand::Status) => "cloud status",
            Self::Keygen => "keygen",
            Self::Demo(_) => "demo",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
        }
    }
}

/// Arguments of `run-job`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunJobArgs {
    /// A job's name, or a database's: then all jobs of it
    #[arg(value_name = "JOB", required_unless_present = "all", conflicts_with = "all")]
    pub jobs: Vec<String>,
    /// Every job of the configuration
    #[arg(long)]
    pub all: bool,
    /// Send it only to this target of the job; may be given several times
    #[arg(long = "target", value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// Arguments of `schedule-check`.
#[derive(Clone, Debug, Args)]
pub struct ScheduleCheckArgs {
    /// Print the decision and its reason for each job; run and contact nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How many jobs may run at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_PARALLEL, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub max_parallel: u16,
    /// Decide as of this instant
    #[arg(long, value_name = "TIME", requires = "dry_run", value_parser = instant)]
    pub at: Option<DateTime<Utc>>,
    /// Run new jobs at once, without waiting for their first slot
    #[arg(long)]
    pub run_new: bool,
}

/// Which backup of a database.
#[derive(Clone, Debug, Default, Args)]
pub struct Which {
    /// The newest
    #[arg(long)]
    pub latest: bool,
    /// The one whose slot or creation is then, at the precision it is given in: 2026-02-25, 2026-02-25T03:00, …
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub timestamp: Option<Moment>,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, Default, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["latest", "timestamp", "before", "undo"]))]
pub struct RestoreArgs {
    /// The database's name in the configuration
    pub database: String,
    /// Which backup
    #[command(flatten)]
    pub which: Which,
    /// The newest that was created then or before
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub before: Option<Moment>,
    /// Put the database back as it was before the last restore in its place; with a time, before the one that began then
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        value_parser = Moment::parse,
        conflicts_with_all = ["job", "target", "instance", "into", "output", "allow_unauthenticated"]
    )]
    pub undo: Option<Option<Moment>>,
    /// Only backups of this job
    #[arg(long)]
    pub job: Option<String>,
    /// Only backups at this target
    #[arg(long)]
    pub target: Option<String>,
    /// Backups of another instance
    #[arg(long)]
    pub instance: Option<String>,
    /// Restore beside the database under this name, which must be free (SQLite: a path)
    #[arg(long, value_name = "NAME", conflicts_with = "output")]
    pub into: Option<String>,
    /// Restore at the server that this URL names, not at the configured one; without a password in it
    #[arg(long, value_name = "URL", requires = "into")]
    pub url: Option<String>,
    /// The file that holds the password for --url; without it, VOXELTRON_RESTORE_PASSWORD is taken from the environment
    #[arg(long, value_name = "FILE", requires = "url")]
    pub password_file: Option<PathBuf>,
    /// Load so many parts of it at once (PostgreSQL only); the backup is first kept in a file in data_dir
    #[arg(long, value_name = "N", conflicts_with = "output", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Write the decoded dump to this file (- for stdout) and touch no database
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
    /// Take a backup although it does not authenticate
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

impl RestoreArgs {
    /// Which backup is wanted.
    pub fn selector(&self) -> Selector {
        match (self.which.timestamp, self.before) {
            (Some(moment), _) => Selector::At(moment),
            (None, Some(moment)) => Selector::Before(moment),
            (None, None) => Selector::Latest,
        }
    }
}

/// Arguments of `prune`.
#[derive(Clone, Debug, Default, Args)]
pub struct PruneArgs {
    /// A job's name, or a database's: then all jobs of it; none: every job
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Only at this target; may be given several times
    #[arg(long = "target", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove more than half of a job's backups, if retention says so
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `list`.
#[derive(Clone, Debug, Default, Args)]
pub struct ListArgs {
    /// Only backups of this database
    pub database: Option<String>,
    /// Only at this target
    #[arg(long)]
    pub target: Option<String>,
    /// Backups of another instance
    #[arg(long)]
    pub instance: Option<String>,
}

/// Arguments of `pin` and `unpin`.
#[derive(Clone, Debug, Default, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["latest", "timestamp"]))]
pub struct PinArgs {
    /// The database's name in the configuration
    pub database: String,
    /// Which backup
    #[command(flatten)]
    pub which: Which,
    /// Only backups of this job
    #[arg(long)]
    pub job: Option<String>,
    /// Only the copy at this target
    #[arg(long)]
    pub target: Option<String>,
}

/// Arguments of `verify`.
#[derive(Clone, Debug, Default, Args)]
#[command(group = ArgGroup::new("which").args(["latest", "timestamp", "all"]))]
pub struct VerifyArgs {
    /// Only backups of this database
    pub database: Option<String>,
    /// Which backup; the newest, if nothing is said
    #[command(flatten)]
    pub which: Which,
    /// Every backup
    #[arg(long)]
    pub all: bool,
    /// Only backups of this job
    #[arg(long)]
    pub job: Option<String>,
    /// Only at this target
    #[arg(long)]
    pub target: Option<String>,
    /// Also load it into a scratch database, and say what is in it
    #[arg(long)]
    pub restore: bool,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// Contact no database and no target
    #[arg(long)]
    pub offline: bool,
}

/// Arguments of `demo`.
#[derive(Clone, Debug, Default, Args)]
pub struct DemoArgs {
    /// A folder, new or empty, that keeps configuration, key and backups
    pub dir: Option<PathBuf>,
}

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    Moment::parse(text).map(|moment| moment.from)
}

/// The exit codes, as help and the manual have them.
pub fn exit_codes() -> String {
    let lines = Exit::ALL.iter().map(|(exit, meaning)| format!("  {:>3}  {meaning}\n", exit.code()));
    format!("Exit status:\n{}", lines.collect::<String>())
}

/// The whole command line, for help, manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn voxeltrons_spelling_of_restore_is_taken() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' '));
        assert!(matches!(parse("x db restore mydb --latest").unwrap().command, Command::Db(DbCommand::Restore(_))));
        assert!(parse("x restore mydb").is_err(), "without a selector");
        assert!(parse("x restore mydb --latest --before 2026-01-01").is_err(), "with two");
        assert!(parse("x schedule-check --at 2026-01-01").is_err(), "--at is for dry runs");
        assert!(parse("x run-job").is_err());
    }
}
