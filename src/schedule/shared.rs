//! The state that several hosts share: one record for each job, in a bucket. Flows in: changes. Flows out: what is
//! remembered, and leases. Touches the records at `<instance>/.voxeltron/state/`.
//!
//! Every change reads a record, changes it, and replaces it only if it is still what was read. A change that meets another
//! is made again, from what stands there then. After an answer that got lost the record's marks tell whether the change was
//! made: it is never made twice.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;

use super::lease::{self, Document, Lease};
use crate::error::{Error, Kind, Result};
use crate::format::name::{ObjectKey, encode};
use crate::report::Report;
use crate::target::records::{Expected, Records, Version};
use crate::target::{AfterSignal, Target};
use crate::world::{Clock, Watch, World};

/// How often a change is made again because others came in between.
const ATTEMPTS: u32 = 50;
/// How often a record that can't be understood is read.
const DAMAGED: u32 = 5;
/// The longest pause before that, in milliseconds.
const PAUSE_MS: u64 = 400;

/// The shared state.
pub struct Shared {
    target: Box<dyn Target>,
    records: Box<dyn Records>,
    /// The same, for leases in the hand of a run that a signal does not stop at once.
    renewing: Box<dyn Records>,
    instance: String,
    holder: String,
    time: Duration,
    world: World,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.target.describe())
    }
}

/// What a change is: to write, or to leave it as it is.
enum Change<T> {
    /// What was changed is written, and this is the outcome.
    Write(T),
    /// Nothing is written, and this is the outcome.
    Leave(T),
}

/// Changes a record, of which it gets the age by the store's clock.
type Step<'c, T> = dyn FnMut(&mut Document, Option<TimeDelta>) -> Result<Change<T>> + 'c;

/// A record as it was read.
struct Found {
    document: Document,
    version: Option<Version>,
    age: Option<TimeDelta>,
}

impl Shared {
    /// At this target, which keeps records; `holder` names this host, `time` is that of its leases.
    ///
    /// # Errors
    /// [`Kind::Config`] when the target has no records.
    pub fn new(target: Box<dyn Target>, instance: &str, holder: &str, time: Duration, world: &World) -> Result<Self> {
        let (records, renewing) = (target.records(AfterSignal::End), target.records(AfterSignal::GoOn));
        let (Some(records), Some(renewing)) = (records, renewing) else {
            return Err(Error::new(
                Kind::Config,
                format!("{} can't keep the state of several hosts", target.describe()),
            )
            .hint("name a target of type \"s3\" or \"gcs\" by `state` in [backup]"));
        };
        let (instance, holder) = (instance.to_owned(), holder.to_owned());
        Ok(Self { target, records, renewing, instance, holder, time, world: world.clone() })
    }

    /// Names the place.
    pub fn describe(&self) -> String {
        self.target.describe()
    }

    /// Sees whether the store checks conditions.
    ///
    /// # Errors
    /// [`Kind::Config`] when it does not; [`Kind::Target`].
    pub fn prove(&self) -> Result<()> {
        crate::target::records::prove(self.target.as_ref(), self.records.as_ref(), &self.instance, &self.world)
    }

    /// Where a job's record is. No key of a backup's looks like it.
    fn key(&self, job: &str) -> Result<ObjectKey> {
        ObjectKey::new(format!("{}/.voxeltron/state/{}.json", encode(&self.instance), encode(job)))
    }

    /// A job's record.
    ///
    /// # Errors
    /// [`Kind::Target`]; [`Kind::Config`] when a newer program has written it.
    pub fn read(&self, job: &str, report: &Report) -> Result<Document> {
        Ok(self.find(self.records.as_ref(), job, report)?.document)
    }

    fn find(&self, records: &dyn Records, job: &str, report: &Report) -> Result<Found> {
        let key = self.key(job)?;
        let doing = |error: Error| error.while_doing(format!("the shared state of job {job}"));
        // What was cut on the way looks like damage: only what comes twice is taken for it, since it is written over.
        let mut seen = None;
        for _ in 0..DAMAGED {
            let Some(record) = records.read(&key).map_err(|failure| doing(failure.into()))? else {
                return Ok(Found { document: Document::new(job), version: None, age: None });
            };
            let why = match Document::read(&record.bytes) {
                Ok(document) if document.version > lease::VERSION => {
                    let (has, knows) = (document.version, lease::VERSION);
                    let place = self.describe();
                    let message = format!("{key} at {place} has version {has}, and this program knows {knows}");
                    return Err(Error::new(Kind::Config, message)
                        .hint("a newer voxeltron-backup has written it: use that one on every host"));
                }
                Ok(document) if document.job == job => {
                    return Ok(Found { document, version: Some(record.version), age: record.age });
                }
                Ok(_) => "it is of another job".to_owned(),
                Err(why) => why,
            };
            let now = (record.version, record.bytes);
            if seen.as_ref() == Some(&now) {
                let what = format!("{key} at {} can't be understood ({why})", self.describe());
                report.warn(&format!("{what}: what the job has done is read off its targets"));
                return Ok(Found { document: Document::new(job), version: Some(now.0), age: record.age });
            }
            seen = Some(now);
            self.world.cancel.check()?;
        }
        let message = format!("{key} at {} comes damaged, and otherwise each time", self.describe());
        Err(doing(Error::new(Kind::Target, message)))
    }

    /// Changes a job's record: all of it or nothing. `change` may be called several times, each time with what stands
    /// there then; the last call is the one that counts.
    fn change<T>(&self, records: &dyn Records, job: &str, report: &Report, change: &mut Step<'_, T>) -> Result<T> {
        let key = self.key(job)?;
        let mut made: Option<(String, T)> = None;
        for attempt in 0..ATTEMPTS {
            let found = self.find(records, job, report)?;
            if let Some((mark, value)) = made.take()
                && found.document.marks.contains(&mark)
            {
                return Ok(value);
            }
            let mut document = found.document.clone();
            let value = match change(&mut document, found.age)? {
                Change::Leave(value) => return Ok(value),
                Change::Write(value) => value,
            };
            let mark = self.world.random_hex(8)?;
            document.mark(mark.clone());
            let bytes = serde_json::to_vec_pretty(&document)
                .map_err(|error| Error::other(format!("can't write the state of job {job}: {error}")))?;
            let expected = found.version.as_ref().map_or(Expected::Absent, Expected::Is);
            let written = records.write(&key, &bytes, expected).map_err(Error::from);
            if written.map_err(|error| error.while_doing(format!("the shared state of job {job}")))?.is_some() {
                return Ok(value);
            }
            made = Some((mark, value));
            self.pause(attempt)?;
        }
        Err(Error::new(Kind::Target, format!("the shared state of job {job} changes faster than it can be written")))
    }

    /// A random time, longer the more often others came in between.
    fn pause(&self, attempt: u32) -> Result<()> {
        let mut random = [0_u8; 2];
        self.world.random.fill(&mut random)?;
        let most = PAUSE_MS.min(5_u64 << attempt.min(10));
        self.world.clock.sleep(Duration::from_millis(u64::from(u16::from_be_bytes(random)) * most / 65_536));
        Ok(())
    }

    /// Changes what is remembered of a job. `held`: by the run that holds this lease, and only as long as it does; with
    /// `release` it gives it up by the same write.
    ///
    /// # Errors
    /// [`Kind::Target`]; [`Kind::Locked`] when the lease is lost.
    pub fn update<T>(
        &self,
        job: &str,
        held: Option<&Held>,
        release: bool,
        report: &Report,
        update: &mut dyn FnMut(&mut Document) -> T,
    ) -> Result<T> {
        let value = self.change(self.records.as_ref(), job, report, &mut |document, age| {
            if let Some(held) = held {
                held.still_holds(document)?;
            }
            let before = document.clone();
            let value = update(document);
            if release && held.is_some() {
                document.lease = None;
            }
            if *document == before {
                return Ok(Change::Leave(value));
            }
            match (&mut document.lease, held) {
                (Some(lease), Some(_)) => lease.unrenewed_ms = 0,
                (Some(lease), None) => lease.outlives(age),
                (None, _) => {}
            }
            Ok(Change::Write(value))
        })?;
        if let Some(held) = held.filter(|_| release) {
            held.end();
        }
        Ok(value)
    }

    /// Takes a job's lease, and gives its record as it is then; or says who holds it.
    ///
    /// # Errors
    /// [`Kind::Target`].
    pub fn take(self: &Arc<Self>, job: &str, report: &Report) -> Result<Result<(Held, Document), Lease>> {
        let token = self.world.random_hex(16)?;
        let holds_ms = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        let taken = self.change(self.records.as_ref(), job, report, &mut |document, age| {
            let now = self.world.clock.now();
            if let Some(lease) = &document.lease
                && lease.token != token
                && !lease.is_over(age, now)
            {
                return Ok(Change::Leave(Err(lease.clone())));
            }
            let (holder, token) = (self.holder.clone(), token.clone());
            let since = self.world.clock.monotonic();
            document.lease =
                Some(Lease { holder, token, since: now, until: now + self.time, holds_ms, unrenewed_ms: 0 });
            Ok(Change::Write(Ok((since, document.clone()))))
        })?;
        Ok(taken.map(|(since, document)| {
            let standing = Standing::Until(since + self.time);
            let clock = Arc::clone(&self.world.clock);
            let (job, standing) = (job.to_owned(), Mutex::new(standing));
            let line = Arc::new(Line { job, token, clock, standing, bell: Condvar::new() });
            let held = Held { shared: Arc::clone(self), line, report: report.clone() };
            held.keep();
            (held, document)
        }))
    }

    /// Makes a lease hold from now on. `false`: it is another's.
    fn renew(&self, job: &str, token: &str, report: &Report) -> Result<bool> {
        self.change(self.renewing.as_ref(), job, report, &mut |document, _| {
            let now = self.world.clock.now();
            Ok(match document.lease.as_mut().filter(|lease| lease.token == token) {
                None => Change::Leave(false),
                Some(lease) => {
                    lease.until = now + self.time;
                    lease.unrenewed_ms = 0;
                    Change::Write(true)
                }
            })
        })
    }

    fn release(&self, job: &str, token: &str, report: &Report) -> Result<()> {
        // Asked for only now: what ends late after a signal has its moment yet.
        let records = self.target.records(AfterSignal::AMoment);
        let records = records.as_ref().unwrap_or(&self.records);
        self.change(records.as_ref(), job, report, &mut |document, _| {
            if !document.is_held_by(token) {
                return Ok(Change::Leave(()));
            }
            document.lease = None;
            Ok(Change::Write(()))
        })
    }
}

/// How a lease stands, as its holder knows.
#[derive(Clone, Debug)]
enum Standing {
    /// It holds until then, on the monotonic clock.
    Until(Duration),
    /// It was given up.
    Ended,
    /// It was lost.
    Lost(Error),
}

/// What the holder and the one that renews it share.
#[derive(Debug)]
struct Line {
    job: String,
    token: String,
    clock: Arc<dyn Clock>,
    standing: Mutex<Standing>,
    bell: Condvar,
}

impl Line {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, why: &str) {
        let mut standing = self.standing();
        if matches!(*standing, Standing::Until(_)) {
            *standing = Standing::Lost(lease::lost(&self.job, why));
        }
    }
}

impl Watch for Line {
    /// Looks at the clock, too: a process that was paused may come here before its lease is renewed.
    fn check(&self) -> Result<()> {
        let mut standing = self.standing();
        if let Standing::Until(until) = *standing
            && self.clock.monotonic() >= until
        {
            *standing = Standing::Lost(lease::lost(&self.job, "it was not renewed in time"));
        }
        match &*standing {
            Standing::Lost(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// A lease, held and renewed as long as this lives, or until it is lost.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    line: Arc<Line>,
    report: Report,
}

impl Held {
    /// The job.
    pub fn job(&self) -> &str {
        &self.line.job
    }

    /// What tells a run that it has lost its lease.
    pub fn watch(&self) -> Arc<dyn Watch> {
        Arc::clone(&self.line) as Arc<dyn Watch>
    }

    fn still_holds(&self, document: &Document) -> Result<()> {
        self.line.check()?;
        if document.is_held_by(&self.line.token) {
            return Ok(());
        }
        let by = document.lease.as_ref().map_or_else(|| "nobody".to_owned(), |lease| lease.holder.clone());
        self.line.lose(&format!("{by} holds it now"));
        self.line.check()
    }

    fn end(&self) {
        *self.line.standing() = Standing::Ended;
        self.line.bell.notify_all();
    }

    /// Renews it at a third of its time, and more often when that fails.
    fn keep(&self) {
        let (line, shared, report) = (Arc::clone(&self.line), Arc::clone(&self.shared), self.report.clone());
        std::thread::spawn(move || {
            let mut wait = shared.time / 3;
            loop {
                let over = |standing: &mut Standing| matches!(standing, Standing::Until(_));
                let waited = line.bell.wait_timeout_while(line.standing(), wait, over);
                let (standing, _) = waited.unwrap_or_else(PoisonError::into_inner);
                if !matches!(*standing, Standing::Until(_)) {
                    return;
                }
                drop(standing);
                let since = line.clock.monotonic();
                match shared.renew(&line.job, &line.token, &report) {
                    Ok(true) => {
                        let mut standing = line.standing();
                        if let Standing::Until(until) = &mut *standing {
                            *until = since + shared.time;
                        }
                        wait = shared.time / 3;
                    }
                    Ok(false) => return line.lose("another host has taken it"),
                    Err(_) if line.check().is_err() => return,
                    Err(_) => wait = shared.time / 12,
                }
            }
        });
    }
}

impl Drop for Held {
    /// What can't be given up now is over after its time.
    fn drop(&mut self) {
        let held = matches!(*self.line.standing(), Standing::Until(_));
        self.end();
        if held {
            let _ = self.shared.release(&self.line.job, &self.line.token, &self.report);
        }
    }
}
