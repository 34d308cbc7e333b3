//! `list`: the backups at the targets. Flows in: a database, or none for all. Flows out: a table, newest last.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Done, table};
use crate::app::App;
use crate::catalog::{Entry, Orphan};
use crate::cli::ListArgs;
use crate::error::Result;
use crate::format::time::{self, rfc3339, span};
use crate::previous::Listed;
use crate::previous::record::Record;

/// One copy of a backup, for people and programs.
#[derive(Debug, Serialize)]
struct Row {
    database: String,
    job: Option<String>,
    id: String,
    instance: String,
    target: String,
    #[serde(with = "time::serde_rfc3339_option")]
    created: Option<DateTime<Utc>>,
    #[serde(with = "time::serde_rfc3339_option")]
    scheduled_for: Option<DateTime<Utc>>,
    engine: Option<String>,
    stored_bytes: Option<u64>,
    dump_bytes: Option<u64>,
    compression: Option<String>,
    encryption: Option<String>,
    key_id: Option<String>,
    authenticated: bool,
    pinned: bool,
    problem: Option<String>,
}

/// Something that belongs to no backup.
#[derive(Debug, Serialize)]
struct Leftover {
    target: String,
    object: String,
    bytes: u64,
}

/// Lists.
///
/// # Errors
/// [`crate::error::Kind::Target`] when one of the targets can't be listed.
pub fn run(app: &App, args: &ListArgs) -> Result<Done> {
    let instance = args.instance.as_deref().unwrap_or(&app.config.instance);
    let database = args.database.as_deref();
    let (mut rows, mut leftovers) = (Vec::new(), Vec::new());
    for open in app.targets_for(database, args.target.as_deref())? {
        let catalog = app.catalog(&open, instance, database)?;
        rows.extend(catalog.entries.iter().map(|entry| row(app, entry)));
        leftovers.extend(catalog.orphans.iter().map(|orphan| leftover(&open.name, orphan)));
    }
    rows.sort_by(|a, b| (&a.database, a.created, &a.id, &a.target).cmp(&(&b.database, b.created, &b.id, &b.target)));
    // What another instance keeps stands on another host.
    let own = args.instance.is_none() && args.target.is_none();
    let kept = if own { kept(app, database) } else { Vec::new() };
    show(app, &rows, &leftovers)?;
    show_kept(app, &kept)?;
    Done::well().with("backups", &rows)?.with("leftovers", &leftovers)?.with("previous", &kept)
}

/// What this host remembers: no server is asked.
fn kept(app: &App, database: Option<&str>) -> Vec<Listed> {
    let all = Record::of(app).read().unwrap_or_else(|error| {
        app.cx.report.warn(&error.to_string());
        Default::default()
    });
    let meant = all.into_iter().filter(|(name, _)| database.is_none_or(|database| database == name));
    let kept = meant.flat_map(|(database, past)| {
        let all = past.kept.into_iter().chain(past.others.into_iter().rev());
        all.map(|kept| Listed::new(app, &database, kept)).collect::<Vec<_>>()
    });
    kept.collect()
}

fn show_kept(app: &App, kept: &[Listed]) -> Result<()> {
    if kept.is_empty() {
        return Ok(());
    }
    let cells = kept.iter().map(|kept| {
        let place = if kept.on_server { format!("{} at its server", kept.name) } else { "data_dir".to_owned() };
        let size = kept.bytes.map_or_else(|| "?".to_owned(), time::bytes);
        vec![kept.database.clone(), rfc3339(kept.since), rfc3339(kept.until), place, size]
    });
    let cells: Vec<Vec<String>> = cells.collect();
    // A table of its own: these are no backups, and --undo alone puts them back.
    let head = ["REPLACED DATABASE", "AS IT WAS AT", "KEPT UNTIL", "WHERE", "SIZE"];
    app.cx.report.out(&format!("\n{}", table(&head, &cells)))
}

fn row(app: &App, entry: &Entry) -> Row {
    let now = app.cx.world.clock.now();
    let distrust = app.rules(&entry.owner.database, false).distrust(entry);
    let future = || entry.is_from_future(now).then(|| "it is dated in the future".to_owned());
    let signed = entry.signed();
    Row {
        database: entry.owner.database.clone(),
        job: entry.id.job(),
        id: entry.id.to_string(),
        instance: entry.owner.instance.clone(),
        target: entry.target.clone(),
        created: signed.map(|signed| signed.created),
        scheduled_for: signed.and_then(|signed| signed.scheduled_for),
        engine: signed.map(|signed| signed.engine.clone()),
        stored_bytes: signed.map(|signed| signed.stored_bytes),
        dump_bytes: signed.map(|signed| signed.dump_bytes),
        compression: signed.map(|signed| signed.compression.clone()),
        encryption: signed.map(|signed| signed.encryption.clone()),
        key_id: signed.and_then(|signed| signed.key_id.clone()),
        authenticated: entry.is_authentic(),
        pinned: entry.pinned,
        problem: distrust.or_else(|| entry.damage()).or_else(future),
    }
}

fn leftover(target: &str, orphan: &Orphan) -> Leftover {
    Leftover { target: target.to_owned(), object: orphan.object.key.to_string(), bytes: orphan.object.size }
}

fn show(app: &App, rows: &[Row], leftovers: &[Leftover]) -> Result<()> {
    let (out, now) = (&app.cx.report, app.cx.world.clock.now());
    if rows.is_empty() {
        out.note("no backups");
    }
    let cells = rows.iter().map(|row| {
        let created = row.created.map_or_else(|| "?".to_owned(), rfc3339);
        let age = row.created.map_or_else(String::new, |at| span(now - at));
        let size = row.stored_bytes.map_or_else(|| "?".to_owned(), time::bytes);
        let state = match (&row.problem, row.encryption.as_deref()) {
            (Some(problem), _) => format!("! {problem}"),
            (None, Some("none") | None) => "not encrypted".to_owned(),
            (None, Some(_)) => "encrypted".to_owned(),
        };
        let state = if row.pinned { format!("{state}, pinned") } else { state };
        vec![row.database.clone(), created, age, row.job.clone().unwrap_or_default(), row.target.clone(), size, state]
    });
    let cells: Vec<Vec<String>> = cells.collect();
    if !cells.is_empty() {
        out.out(&table(&["DATABASE", "CREATED", "AGE", "JOB", "TARGET", "SIZE", "STATE"], &cells))?;
    }
    for leftover in leftovers {
        out.note(&format!("no backup, left behind at {}: {}", leftover.target, leftover.object));
    }
    Ok(())
}
