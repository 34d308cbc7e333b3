//! Where the state is kept: in a file of this host, or in records that several hosts share, with the file as what is known
//! here. Flows in: changes. Flows out: what is remembered, and the right to run a job. Touches the file, the records and the
//! locks.
//!
//! With records the file is a hint: another host may have settled a slot since, never unsettled one. So a job that is not
//! due by the file is not due, and one that is, is looked at in its record.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use super::lease::Document;
use super::lock::JobLock;
use super::shared::{Held, Shared};
use super::state::{JobState, State, StateFile};
use crate::error::{Error, Result};
use crate::report::Report;

/// How many records are read at once.
const LANES: usize = 8;

/// The state, as one run sees it.
#[derive(Clone, Debug)]
pub struct Store {
    file: StateFile,
    shared: Option<Arc<Shared>>,
    /// The leases that the run holds.
    held: Vec<Arc<Held>>,
}

impl Store {
    /// In this data folder, and in these records if there are such.
    pub fn new(data_dir: &Path, shared: Option<Arc<Shared>>, held: Vec<Arc<Held>>) -> Self {
        Self { file: StateFile::new(data_dir), shared, held }
    }

    /// The file of this host. With records: what this host knew last.
    pub fn file(&self) -> &StateFile {
        &self.file
    }

    /// Whether other hosts may change it.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// What is remembered of these jobs, without changing a file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read<'n>(&self, jobs: impl Iterator<Item = &'n str>, report: &Report) -> Result<State> {
        let Some(shared) = &self.shared else { return self.file.read() };
        let mut state = State::default();
        for (job, found) in fetch(shared, jobs.collect(), report) {
            state.jobs.extend(found?.past.map(|past| (job.to_owned(), past)));
        }
        Ok(state)
    }

    /// Brings what this host knows of these jobs up to date, and gives those whose records can't be read, and why.
    ///
    /// # Errors
    /// A signal; when the file can't be read or written.
    pub fn refresh<'n>(&self, jobs: impl Iterator<Item = &'n str>, report: &Report) -> Result<Vec<(String, Error)>> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        let (mut known, mut failed) = (Vec::new(), Vec::new());
        for (job, found) in fetch(shared, jobs.collect(), report) {
            match found {
                Ok(document) => known.push((job, document)),
                Err(error) if error.is_stopped() => return Err(error),
                Err(error) => failed.push((job.to_owned(), error)),
            }
        }
        if !known.is_empty() {
            self.file.update(report, |state| {
                known.into_iter().for_each(|(job, document)| know(state, job, document.past));
            })?;
        }
        Ok(failed)
    }

    /// The first look of a host at this shared state: what the host remembers of jobs that have no record goes there, so
    /// that a host that begins to share loses nothing; of the others it takes what the records say.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn join<'n, N: Iterator<Item = &'n str>>(&self, jobs: impl Fn() -> N, report: &Report) -> Result<()> {
        let known = self.file.load(report)?;
        for (job, past) in jobs().filter_map(|job| Some((job, known.jobs.get(job)?))) {
            self.update(job, report, &mut |state| {
                state.jobs.entry(job.to_owned()).or_insert_with(|| past.clone());
            })?;
        }
        // A record that can't be read is told by whoever needs it.
        self.refresh(jobs(), report).map(drop)
    }

    /// Changes what is remembered of one job. `change` may be called several times; the last call counts.
    ///
    /// # Errors
    /// When it can't be read or written; [`crate::error::Kind::Locked`] when the run has lost the job's lease.
    pub fn update<T>(&self, job: &str, report: &Report, change: &mut dyn FnMut(&mut State) -> T) -> Result<T> {
        self.changed(job, false, report, change)
    }

    /// The same as the last word of a run: its lease is given up by the same write.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn settle<T>(&self, job: &str, report: &Report, change: &mut dyn FnMut(&mut State) -> T) -> Result<T> {
        self.changed(job, true, report, change)
    }

    fn changed<T>(
        &self,
        job: &str,
        release: bool,
        report: &Report,
        change: &mut dyn FnMut(&mut State) -> T,
    ) -> Result<T> {
        let Some(shared) = &self.shared else { return self.file.update(report, |state| change(state)) };
        let held = self.held.iter().find(|held| held.job() == job).map(AsRef::as_ref);
        let mut now = None;
        let value = shared.update(job, held, release, report, &mut |document| {
            let mut state = State::default();
            state.jobs.extend(document.past.take().map(|past| (job.to_owned(), past)));
            let value = change(&mut state);
            document.past = state.jobs.remove(job);
            now.clone_from(&document.past);
            value
        })?;
        self.file.update(report, |state| know(state, job, now))?;
        Ok(value)
    }
}

/// What a record says goes before what is known here; but a proof that it has lost, with all that was in it, is kept.
fn know(state: &mut State, job: &str, past: Option<JobState>) {
    match (past, state.jobs.get_mut(job)) {
        (Some(mut past), known) => {
            if let Some(known) = known.filter(|_| past.last_proved_id.is_none()) {
                past.last_proved = known.last_proved;
                past.last_proved_id = known.last_proved_id.take();
            }
            state.jobs.insert(job.to_owned(), past);
        }
        (None, Some(known)) => known.unasked = true,
        (None, None) => {}
    }
}

/// Reads records, some at once.
fn fetch<'n>(shared: &Shared, jobs: Vec<&'n str>, report: &Report) -> Vec<(&'n str, Result<Document>)> {
    let queue = Mutex::new(jobs.iter());
    let work = || {
        let mut found = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(job) = next.copied() else { return found };
            found.push((job, shared.read(job, report)));
            // Each would be tried as long as the first one.
            if found.last().is_some_and(|(_, read)| read.as_ref().is_err_and(Error::is_stopped)) {
                return found;
            }
        }
    };
    if jobs.len() <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..LANES.min(jobs.len())).map(|_| scope.spawn(work)).collect();
        let parts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect();
        let mut found: Vec<_> = parts.into_iter().flatten().collect();
        // What no thread tells of could not be read.
        let lost = || Err(Error::other("a thread that read the state ended unexpectedly"));
        let told: BTreeSet<&str> = found.iter().map(|(job, _)| *job).collect();
        found.extend(jobs.iter().filter(|job| !told.contains(*job)).map(|job| (*job, lost())));
        found
    })
}

/// The right to run a job: this host's lock and, with a shared state, the lease of all hosts.
#[derive(Debug)]
pub struct Hold {
    // Given up in this order: who gets the lock can get the lease.
    lease: Option<Arc<Held>>,
    _lock: JobLock,
}

impl Hold {
    /// Takes it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Locked`] when another run has it; others when it can't be asked.
    pub fn acquire(data_dir: &Path, store: &Store, job: &str, now: DateTime<Utc>, report: &Report) -> Result<Self> {
        let lock = JobLock::acquire(data_dir, job, now)?;
        Ok(Self { lease: lease(store, job, report)?.map_err(|lease| lease.held(job))?, _lock: lock })
    }

    /// Takes it; `None` when another run has it.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn attempt(
        data_dir: &Path,
        store: &Store,
        job: &str,
        now: DateTime<Utc>,
        report: &Report,
    ) -> Result<Option<Self>> {
        let Some(lock) = JobLock::try_acquire(data_dir, job, now)? else { return Ok(None) };
        Ok(lease(store, job, report)?.ok().map(|lease| Self { lease, _lock: lock }))
    }

    /// The lease, where the state is shared.
    pub fn lease(&self) -> Option<&Arc<Held>> {
        self.lease.as_ref()
    }
}

type Leased = Result<Option<Arc<Held>>, super::lease::Lease>;

/// Takes the lease, and notes what its record says.
fn lease(store: &Store, job: &str, report: &Report) -> Result<Leased> {
    let Some(shared) = &store.shared else { return Ok(Ok(None)) };
    let (held, document) = match shared.take(job, report)? {
        Ok(taken) => taken,
        Err(lease) => return Ok(Err(lease)),
    };
    store.file.update(report, |state| know(state, job, document.past))?;
    Ok(Ok(Some(Arc::new(held))))
}
