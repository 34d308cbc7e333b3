//! Hooks: the operator's own commands round a job or a restore. Flows in: words and what they should know. Flows out:
//! whether they went well. Touches the process that is started.

use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::process::{self, Invocation};

/// What a hook is told, in its environment.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// `VOXELTRON_JOB`.
    pub job: &'a str,
    /// `VOXELTRON_DATABASE`.
    pub database: &'a str,
    /// `VOXELTRON_OUTCOME`, for hooks that run after: `success` or `failure`.
    pub outcome: Option<&'a str>,
}

/// Runs a hook, if there is one; `which` names it for messages: `before of job x`.
///
/// # Errors
/// [`Kind::Hook`] with the command's last words; [`Kind::Stopped`] after a signal.
pub fn run(words: Option<&Vec<String>>, which: &str, facts: &Facts<'_>, cx: &Cx) -> Result<()> {
    let Some((program, args)) = words.and_then(|words| words.split_first()) else { return Ok(()) };
    let mut call = Invocation::new(program).args(args).var("VOXELTRON_JOB", facts.job);
    call = call.var("VOXELTRON_DATABASE", facts.database);
    if let Some(outcome) = facts.outcome {
        call = call.var("VOXELTRON_OUTCOME", outcome);
    }
    cx.report.detail(&format!("{which}: {}", call.display()));
    match process::run(&call, b"", cx.deadline, &cx.world) {
        Ok(output) => {
            for line in String::from_utf8_lossy(&output).lines() {
                cx.report.detail(&format!("{which}: {line}"));
            }
            Ok(())
        }
        Err(error) if error.is_stopped() => Err(error),
        Err(error) => Err(Error { kind: Kind::Hook, ..error }.while_doing(format!("hook {which}"))),
    }
}
