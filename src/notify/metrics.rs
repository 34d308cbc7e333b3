//! The Prometheus textfile. Flows in: the jobs, what is remembered of them, the clock. Flows out: the text, and the file
//! that the node exporter's textfile collector reads. Touches that file.
//!
//! Times stand in it as instants, not as ages, so that it says the truth for as long as nobody writes it anew:
//! `time() - voxeltron_backup_last_success_timestamp_seconds` is the age of the last good backup.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::config::jobs::JobConfig;
use crate::error::{Context, Error, Kind, Result};
use crate::schedule::state::{JobState, State};

/// One metric: its name without what all begin with, what it says, and its value for a job, where there is one.
type Metric = (&'static str, &'static str, fn(&JobConfig, &JobState, DateTime<Utc>) -> Option<f64>);

const PREFIX: &str = "voxeltron_backup_";

const METRICS: &[Metric] = &[
    ("last_success_timestamp_seconds", "The instant that the newest good backup shows", |_, past, _| {
        past.last_success.as_ref().map(|success| seconds(success.created))
    }),
    ("last_success_stored_bytes", "What the newest good backup takes up at a target", |_, past, _| {
        past.last_success.as_ref().map(|success| count(success.stored_bytes))
    }),
    ("last_success_duration_seconds", "From the beginning of its dump until it stood at its targets", |_, past, _| {
        past.last_success.as_ref().map(|success| seconds(success.finished) - seconds(success.created))
    }),
    ("last_attempt_timestamp_seconds", "When a run last began", |_, past, _| past.last_attempt.map(seconds)),
    ("last_proof_timestamp_seconds", "When a backup was last restored as a proof", |_, past, _| {
        past.last_proved.map(seconds)
    }),
    ("failures_in_row", "Runs that failed since the last good backup", |_, past, _| {
        Some(count(past.failures_in_row.into()))
    }),
    ("next_run_timestamp_seconds", "When the job runs next", |job, past, now| {
        let retry = past.failing.as_ref().map(|failing| failing.next_try);
        retry.or_else(|| job.due().next_after(now)).map(seconds)
    }),
];

/// In whole milliseconds, as seconds: exact for centuries.
#[allow(clippy::cast_precision_loss, reason = "2^53 ms are 285,000 years")]
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1_000.0
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn count(number: u64) -> f64 {
    number as f64
}

/// The text, for all jobs of the configuration that have been seen.
pub fn text(jobs: &[JobConfig], state: &State, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    for (name, help, value) in METRICS {
        text.push_str(&format!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} gauge\n"));
        for job in jobs {
            let value = state.jobs.get(&job.name).and_then(|past| value(job, past, now));
            if let Some(value) = value {
                let (job, database) = (escaped(&job.name), escaped(&job.database));
                text.push_str(&format!("{PREFIX}{name}{{backup_job=\"{job}\",database=\"{database}\"}} {value}\n"));
            }
        }
    }
    text
}

fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Replaces the file, whole or not at all; the exporter, another user, may read it.
///
/// # Errors
/// [`Kind::Other`] when it can't be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("can't write metrics_file {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The collector reads only names that end in .prom.
    let mut file = tempfile::Builder::new()
        .prefix(".voxeltron-")
        .suffix(".tmp")
        .tempfile_in(folder)
        .doing(Kind::Other, doing())?;
    file.write_all(text.as_bytes()).doing(Kind::Other, doing())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).doing(Kind::Other, doing())?;
    file.persist(path).map(drop).map_err(|error| Error::from_io(error.error, Kind::Other, doing()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Defaults};
    use crate::world::Vars;

    #[test]
    fn every_metric_of_a_job_and_nothing_that_is_not_known() {
        let file = "[backup.targets.local]\npath = \"/x\"\n\
                    [[backup.jobs]]\ndatabase = 'sh\"op\\'\nschedule = \"0 3 * * *\"\nname = \"a\"\n\
                    [[backup.jobs]]\ndatabase = \"new\"\nschedule = \"0 3 * * *\"\nname = \"b\"\n";
        let config = Config::parse(Path::new("x"), file, &Vars::default(), &Defaults { hostname: "h".into() }).unwrap();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let now = at("2026-02-25T04:00:00Z");
        let mut state = State::default();
        let past = state.seen("a", now, &config.jobs[0].cron);
        past.succeeded(None, "id", at("2026-02-25T03:00:00.250Z"), 4_096, at("2026-02-25T03:00:01.750Z"));
        let text = text(&config.jobs, &state, now);
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = r#"{backup_job="a",database="sh\"op\\"}"#;
        assert_eq!(
            values,
            [
                format!("voxeltron_backup_last_success_timestamp_seconds{labels} 1771988400.25"),
                format!("voxeltron_backup_last_success_stored_bytes{labels} 4096"),
                format!("voxeltron_backup_last_success_duration_seconds{labels} 1.5"),
                format!("voxeltron_backup_failures_in_row{labels} 0"),
                format!("voxeltron_backup_next_run_timestamp_seconds{labels} 1772074800"),
            ]
        );
        assert_eq!(text.matches("# TYPE ").count(), METRICS.len());
    }
}
