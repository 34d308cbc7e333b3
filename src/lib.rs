//! Backs databases up and brings them back.
//!
//! The map. Data flows one way, **engine → pipeline → target** on the way out and **target → pipeline → engine** on the
//! way back; decisions are pure and stand beside it; commands only arrange.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`cli`] | the command line: help, manual pages and completions come from it |
//! | [`command`] | one file for each command |
//! | [`app`] | configuration → opened targets, keys, engines |
//! | [`backup`] | one run of one job, whole |
//! | [`decode`] | from a stored object back to the dump, every byte checked |
//! | [`recopy`], [`relearn`] | a copy for a target that was away; a lost state, made again from manifests |
//! | [`previous`] | databases as they were before a restore: kept, put back, dropped in time |
//! | [`drill`] | restores into scratch databases, on schedule |
//! | [`cleanup`] | carries retention out, and sweeps what dead runs left |
//! | [`config`] | the file, checked, with every problem and its line |
//! | [`container`] | databases without a table, found as containers |
//! | [`elsewhere`] | a server that a command line names |
//! | [`engine`] | how each kind of database is dumped, looked at and restored |
//! | [`pipeline`] | meter, gzip, encryption, fan-out: bytes only |
//! | [`mod@format`] | names, header, manifest, keys: what is stored, pure |
//! | [`target`] | where backups are kept, and the contract for such places |
//! | [`catalog`], [`select`] | a listing → backups → the one that is meant |
//! | [`schedule`] | cron, what is due, the state file, locks, the cheap tick |
//! | [`retention`] | what stays, and why; pure |
//! | [`process`] | the only spawner |
//! | [`hook`], [`notify`] | the operator's own commands; healthchecks, webhook, metrics |
//! | [`secret`] | the one type that can't be printed, and its sources |
//! | [`report`] | the only writer of stdout and stderr |
//! | [`error`], [`exit`] | failures as values, and the one map to exit codes |
//! | [`world`] | the only home of clock, randomness and environment |

pub mod app;
pub mod backup;
pub mod catalog;
pub mod cleanup;
pub mod cli;
pub mod command;
pub mod config;
pub mod container;
pub mod decode;
pub mod drill;
pub mod elsewhere;
pub mod engine;
pub mod error;
pub mod exit;
pub mod format;
pub mod hook;
pub mod notify;
pub mod pipeline;
pub mod previous;
pub mod process;
pub mod recopy;
pub mod relearn;
pub mod report;
pub mod retention;
pub mod schedule;
pub mod secret;
pub mod select;
pub mod target;
pub mod world;

use clap::Parser;

/// Runs the program with these arguments and gives the way it ends.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>, world: &world::World) -> exit::Exit {
    let args: Vec<_> = args.into_iter().collect();
    match cli::Cli::try_parse_from(&args) {
        Ok(cli) => {
            let journal = report::is_journal(world.vars.get("JOURNAL_STREAM"));
            let style = report::Style { journal, ..cli.global.style() };
            command::run(&cli, world, &report::Report::new(style))
        }
        Err(error) => {
            let words = || args.iter().skip(1).filter_map(|word| word.to_str()).take_while(|word| *word != "--");
            let commands = cli::command();
            let command = words().find(|word| commands.find_subcommand(word).is_some());
            report::usage(&error, command, words().any(|word| word == "--json"))
        }
    }
}
