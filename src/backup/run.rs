//! The dump on its way. Flows in: an engine's dump. Flows out: an object at every target that took all of it, and behind each a
//! manifest, which alone makes it a backup. Touches the targets.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

use super::standing::{has_manifest, is_backup};
use super::{JobReport, Order, TargetReport, millis};
use crate::app::App;
use crate::catalog::OpenTarget;
use crate::config::jobs::JobConfig;
use crate::engine::{Counts, Cx, Engine, EngineKind, FindingsCell, Inspected, Probe};
use crate::error::{Error, Kind, Result};
use crate::format::FORMAT;
use crate::format::header::Header;
use crate::format::key::Key;
use crate::format::manifest::{self, ENCRYPTION, Signed};
use crate::format::name::{self, BackupId, ObjectKey, Owner};
use crate::pipeline::encrypt::Sealer;
use crate::pipeline::fanout::{FanOut, Outcome};
use crate::pipeline::gzip::Compressor;
use crate::pipeline::meter::{Measured, MeasuredCell, Meter};
use crate::target::{Cause, Target};

/// A run whose every part is known.
pub(super) struct Run<'a> {
    pub(super) app: &'a App,
    pub(super) order: &'a Order<'a>,
    pub(super) cx: &'a Cx,
    pub(super) owner: Owner,
    pub(super) id: BackupId,
    pub(super) key: Option<Key>,
    pub(super) kind: &'static EngineKind,
    pub(super) probe: Probe,
}

/// What can be read off the stages once the stream has ended well.
struct Cells {
    dump: MeasuredCell,
    stored: MeasuredCell,
    findings: FindingsCell,
    counts: Counts,
    partial: Option<String>,
}

impl Run<'_> {
    pub(super) fn store(&self, engine: &dyn Engine, open: &[OpenTarget], report: &mut JobReport) -> Result<()> {
        let (job, world) = (self.order.job, &self.cx.world);
        let object = name::object_key(
            &self.owner,
            &self.id,
            &world.random_hex(4)?,
            self.kind.ending,
            job.compress,
            job.encrypt,
        )?;
        let created = world.clock.now().trunc_subsecs(3);
        report.created = Some(created);
        let started = world.clock.monotonic();
        let (mut stream, cells) = self.stream(engine, created)?;
        let targets: Vec<Arc<dyn Target>> = open.iter().map(|open| Arc::clone(&open.target)).collect();
        let mut fan = FanOut::new(&targets, &object, world);
        let sent = fan.pump(&mut stream);
        drop(stream);
        if let Err(error) = sent {
            // The dump itself failed, whatever each target says; they clean up.
            while let Some((at, outcome)) = fan.next() {
                if let (Ok(_), Some(target)) = (outcome, targets.get(at)) {
                    target.take_back(&object);
                }
            }
            return Err(error);
        }
        let duration = world.clock.monotonic().saturating_sub(started);
        let signed = self.signed(&cells, &object, created, duration);
        let published = match signed {
            Some(signed) => {
                report.dump_bytes = Some(signed.dump_bytes);
                Some((manifest::write(&signed, self.key.as_ref())?, signed.stored_bytes))
            }
            None => None,
        };
        // Each gets its manifest as soon as it has its object: one that takes long, or hangs, holds no other up.
        let mut reports: Vec<Option<TargetReport>> = open.iter().map(|_| None).collect();
        while let Some((at, outcome)) = fan.next() {
            if let (Some(open), Some(report)) = (open.get(at), reports.get_mut(at)) {
                *report = Some(self.settle(open, &object, outcome, published.as_ref()));
            }
        }
        report.targets.extend(reports.into_iter().flatten());
        Ok(())
    }

    /// What comes of a target that has ended; `published` is the manifest and the object's size, if the dump ended well.
    fn settle(
        &self,
        open: &OpenTarget,
        object: &ObjectKey,
        outcome: Outcome,
        published: Option<&(Vec<u8>, u64)>,
    ) -> TargetReport {
        let Some((manifest, bytes)) = published else {
            let unfinished = || Error::other("the dump did not end as it should");
            // A target that has failed has left nothing, or has been given up for not answering.
            if outcome.is_ok() {
                open.target.take_back(object);
            }
            return TargetReport::failed(open, outcome.map_or_else(Error::from, |_| unfinished()));
        };
        let outcome = outcome.map_err(Error::from).and_then(|stored| match stored.size == *bytes {
            true => self.publish(open, object, manifest),
            false => Err(self.size_differs(open, object, stored.size, *bytes)),
        });
        match outcome {
            Err(error) => TargetReport::failed(open, error),
            Ok(false) => TargetReport::was_there(open),
            Ok(true) => TargetReport {
                stored: true,
                object: Some(object.to_string()),
                stored_bytes: Some(*bytes),
                ..TargetReport::new(&open.name)
            },
        }
    }

    /// Chains the stages.
    fn stream(&self, engine: &dyn Engine, created: DateTime<Utc>) -> Result<(Box<dyn Read + Send>, Cells)> {
        let (job, cx) = (self.order.job, self.cx);
        cx.report.detail(&format!("job {}: dumping {}", job.name, engine.describe()));
        let dump = engine.dump(cx)?;
        let inspected = Inspected::new(dump.stream, (self.kind.inspector)());
        let findings = inspected.findings();
        let metered = Meter::counting(inspected).with_progress(cx.report.progress(&job.name, None));
        let dump_cell = metered.result();
        let mut stream: Box<dyn Read + Send> = Box::new(metered);
        if job.compress {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            stream = Box::new(Compressor::new(stream, job.compression_level, cores)?);
        }
        if let Some(key) = self.key.as_ref().filter(|_| job.encrypt) {
            let header = Header {
                format: FORMAT,
                instance: self.owner.instance.clone(),
                database: self.owner.database.clone(),
                job: job.name.clone(),
                id: self.id.to_string(),
                engine: self.kind.name.to_owned(),
                created,
                compression: compression(job).to_owned(),
                key_id: key.id(),
            };
            stream = Box::new(Sealer::new(stream, key, header.to_bytes()?, &cx.world)?);
        } else if job.encrypt {
            return Err(Error::new(Kind::Config, "encrypt is true, but there is no encryption_key"));
        }
        let stored = Meter::digesting(stream);
        let cells = Cells {
            dump: dump_cell,
            stored: stored.result(),
            findings,
            counts: dump.counts,
            partial: engine.partial(),
        };
        Ok((Box::new(stored), cells))
    }

    /// What the manifest will say; nothing, unless every stage has seen the end of its stream.
    fn signed(&self, cells: &Cells, object: &ObjectKey, created: DateTime<Utc>, took: Duration) -> Option<Signed> {
        let job = self.order.job;
        let findings = cells.findings.take()?;
        let Measured { bytes: stored_bytes, sha256 } = cells.stored.get()?;
        let mut counts = cells.counts.clone();
        counts.extend(findings.counts);
        Some(Signed {
            id: self.id.to_string(),
            instance: self.owner.instance.clone(),
            database: self.owner.database.clone(),
            job: job.name.clone(),
            engine: self.kind.name.to_owned(),
            tool_version: findings.tool_version.or_else(|| self.probe.tool_version.clone()),
            server_version: findings.server_version.or_else(|| self.probe.server_version.clone()),
            created,
            scheduled_for: self.order.slot,
            duration_ms: millis(took),
            object: object.to_string(),
            stored_bytes,
            stored_sha256: sha256?,
            dump_bytes: cells.dump.get()?.bytes,
            compression: compression(job).to_owned(),
            encryption: if job.encrypt { ENCRYPTION } else { "none" }.to_owned(),
            key_id: self.key.as_ref().map(Key::id),
            end_mark: findings.end_mark,
            counts,
            partial: cells.partial.clone(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Writes the manifest. Only one can win; without one the object is no backup and goes.
    fn publish(&self, open: &OpenTarget, object: &ObjectKey, bytes: &[u8]) -> Result<bool> {
        let key = name::manifest_key(&self.owner, &self.id)?;
        if let Err(lost) = self.cx.world.cancel.check() {
            open.target.take_back(object);
            return Err(lost);
        }
        let failure = match open.target.put(&key, &mut &*bytes) {
            Ok(_) => return Ok(true),
            Err(failure) => failure,
        };
        // When the answer was lost the manifest may stand all the same, and then its object must, too.
        let stands = failure.cause != Cause::Exists && has_manifest(open, &key).unwrap_or(true);
        if !stands {
            open.target.take_back(object);
        }
        if failure.cause == Cause::Exists && self.order.slot.is_some() {
            return is_backup(self.app, open, &self.owner, &self.id).map(|_| false);
        }
        Err(failure.into())
    }

    fn size_differs(&self, open: &OpenTarget, object: &ObjectKey, has: u64, sent: u64) -> Error {
        open.target.take_back(object);
        Error::new(Kind::Target, format!("target {}: {object} has {has} bytes after {sent} were sent", open.name))
    }
}

fn compression(job: &JobConfig) -> &'static str {
    if job.compress { "gzip" } else { "none" }
}
