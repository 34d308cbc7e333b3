//! Being told: what a run came to, for services and monitors. Flows in: the beginning and the end of runs. Flows out: a
//! ping to a healthcheck, a JSON document to a webhook, Prometheus's textfile. Touches the network and that file.
//!
//! Whoever can't be told is a warning: a backup is not worse for it.

pub mod metrics;

use crate::app::App;
use crate::error::Result;
use crate::schedule::state::StateFile;

/// Writes the textfile anew, if there is one.
pub fn write_metrics(app: &App) {
    let Some(path) = &app.config.notify.metrics_file else { return };
    let outcome: Result<()> = StateFile::new(&app.cx.data_dir)
        .read()
        .and_then(|state| metrics::write(path, &metrics::text(&app.config.jobs, &state, app.cx.world.clock.now())));
    if let Err(error) = outcome {
        app.cx.report.warn(&error.to_string());
    }
}
