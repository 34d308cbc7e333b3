//! What a tick has under way: jobs, drills, questions to targets, on some threads. Flows in: what a look has found due.
//! Flows out: what became of each. One thing of a job at a time, and of drills one at all.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::Scope;
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Looked;
use crate::app::App;
use crate::backup::{self, JobReport, Order};
use crate::command::run_job;
use crate::config::jobs::JobConfig;
use crate::drill::{self, Drill};
use crate::error::{Error, Result};
use crate::format::time::rfc3339;
use crate::notify::Runs;
use crate::previous::expiry;
use crate::relearn;
use crate::schedule::due::{Decision, decide};
use crate::schedule::state::StateFile;

/// How long something that another run has in hand is let be. It is no reason to stay.
const PASSED_BY: Duration = Duration::from_secs(10);
/// The same for what could not be begun, which is tried at each tick otherwise.
const FAILED: Duration = Duration::from_secs(30);
/// The same for targets that were asked by a configuration that is gone round again.
const ASKED: Duration = Duration::from_secs(300);

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item<'a> {
    /// A job's slot, and which attempt at it.
    Job(&'a str, DateTime<Utc>, u32),
    /// A drill's slot.
    Drill(&'a str, DateTime<Utc>),
    /// To ask what is at the targets of jobs that nothing is known of.
    Ask,
    /// To drop what is kept from before restores.
    Expire,
}

impl Item<'_> {
    /// The job whose lock it takes.
    pub(super) fn job(&self) -> Option<&str> {
        match self {
            Self::Job(job, ..) | Self::Drill(job, _) => Some(job),
            Self::Ask | Self::Expire => None,
        }
    }
}

/// What became of it.
pub(super) enum Ended {
    Ran(Box<JobReport>),
    Drilled(Box<Drill>),
    /// Why some targets could not be asked.
    Asked(Vec<Error>),
    Done,
    /// Another run has it in hand, or has done it in the meantime.
    PassedBy,
    /// A signal came first.
    NotBegun,
    /// The configuration that chose it holds no more.
    Stale,
    Failed(Error),
}

pub(super) struct Finished<'a> {
    pub(super) item: Item<'a>,
    pub(super) ended: Ended,
}

/// What a tick's work has to know.
#[derive(Clone, Copy)]
pub(super) struct Terms<'s> {
    pub(super) runs: &'s Runs<'s>,
    /// How much may be under way at once.
    pub(super) most: usize,
    pub(super) run_new: bool,
    /// Whether a drill is under way that is none of this work.
    pub(super) drilling: bool,
    /// Whether the configuration that it goes by holds no more.
    pub(super) is_stale: &'s (dyn Fn() -> bool + Sync),
}

/// What is under way, and what was.
pub(super) struct Work<'s, 'a> {
    app: &'a App,
    terms: Terms<'s>,
    give: Sender<Item<'a>>,
    take: Receiver<Item<'a>>,
    tell: Sender<Finished<'a>>,
    told: Receiver<Finished<'a>>,
    workers: usize,
    /// Given to the workers, and not ended.
    pending: BTreeSet<Item<'a>>,
    /// Begun at some time: nothing is done twice, but for what was passed by or could not be begun.
    begun: BTreeSet<Item<'a>>,
    /// Until when that is let be, on the monotonic clock.
    passed: BTreeMap<Item<'a>, Duration>,
    has_begun: bool,
}

impl<'s, 'a: 's> Work<'s, 'a> {
    /// `asked`: when targets were asked by work of the same configuration that has ended.
    pub(super) fn new(app: &'a App, terms: Terms<'s>, asked: Option<Duration>) -> Self {
        let ((give, take), (tell, told)) = (unbounded(), unbounded());
        let terms = Terms { most: terms.most.max(1), ..terms };
        let passed = asked.map(|asked| (Item::Ask, asked.saturating_add(ASKED))).into_iter().collect();
        let (pending, begun) = Default::default();
        Self { app, terms, give, take, tell, told, workers: 0, pending, begun, passed, has_begun: false }
    }

    /// Whether anything was begun yet.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether a drill is under way.
    pub(super) fn is_drilling(&self) -> bool {
        self.terms.drilling || self.pending.iter().any(|item| matches!(item, Item::Drill(..)))
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many more may be under way.
    pub(super) fn room(&self) -> usize {
        self.terms.most.saturating_sub(self.pending.len())
    }

    /// What is to be begun now. Backups come first: drills, which may last as long, take only what is free beside them.
    pub(super) fn choose(&self, looked: &Looked<'a>) -> Vec<Item<'a>> {
        let asked = self.begun.contains(&Item::Ask) && !self.pending.contains(&Item::Ask);
        let due = looked.decisions.iter().filter_map(|(job, decision)| match decision {
            Decision::Run { slot, attempt, .. } if asked || !looked.is_unknown(job) => {
                Some(Item::Job(&job.name, *slot, *attempt))
            }
            _ => None,
        });
        let mut items: Vec<Item<'a>> = due.filter(|item| self.is_free(item)).collect();
        let unknown = self.app.config.jobs.iter().any(|job| looked.is_unknown(job));
        items.extend(Some(Item::Ask).filter(|ask| unknown && self.is_free(ask)));
        if !items.is_empty() || self.pending.len() >= self.terms.most {
            return items;
        }
        let drilling = self.is_drilling();
        let drills = looked.drills.iter().map(|(job, slot)| Item::Drill(&job.name, *slot));
        let drill = drills.filter(|_| !drilling).find(|item| self.is_free(item));
        let expires = || expiry::is_due(self.app, looked.now);
        items.extend(drill.or_else(|| Some(Item::Expire).filter(|item| self.is_free(item) && expires())));
        items
    }

    fn is_free(&self, item: &Item<'a>) -> bool {
        let in_hand = item.job().is_some_and(|job| self.pending.iter().any(|other| other.job() == Some(job)));
        let waits = self
            .passed
            .get(item)
            .is_some_and(|until| self.pending.is_empty() || self.app.cx.world.clock.monotonic() < *until);
        !in_hand && !waits && !self.begun.contains(item)
    }

    /// Gives these to the workers, of which there are no more than there is to do.
    pub(super) fn begin(&mut self, scope: &'s Scope<'s, '_>, items: Vec<Item<'a>>) {
        for item in items {
            self.has_begun = true;
            self.begun.insert(item);
            self.pending.insert(item);
            if self.workers < self.terms.most.min(self.pending.len()) {
                self.workers += 1;
                let (app, terms) = (self.app, self.terms);
                let (take, tell) = (self.take.clone(), self.tell.clone());
                scope.spawn(move || {
                    for item in take {
                        // A panic must not leave the others waiting for it.
                        let ended = std::panic::AssertUnwindSafe(|| one(app, &terms, item));
                        let lost = |_| Ended::Failed(Error::other("a thread that ran jobs ended unexpectedly"));
                        let ended = std::panic::catch_unwind(ended).unwrap_or_else(lost);
                        let _ = tell.send(Finished { item, ended });
                    }
                });
            }
            let _ = self.give.send(item);
        }
    }

    /// Waits until something has ended, but no longer than this; and gives all that has.
    pub(super) fn wait(&self, most: Duration) -> Vec<Finished<'a>> {
        let first = self.told.recv_timeout(most).ok();
        first.into_iter().chain(self.told.try_iter()).collect()
    }

    /// Something has ended.
    pub(super) fn over(&mut self, item: Item<'a>, ended: &Ended) {
        self.pending.remove(&item);
        let pause = match ended {
            Ended::PassedBy => PASSED_BY,
            Ended::Failed(_) if item.job().is_some() => FAILED,
            Ended::Stale => {
                self.begun.remove(&item);
                return;
            }
            _ => return,
        };
        self.begun.remove(&item);
        self.passed.insert(item, self.app.cx.world.clock.monotonic().saturating_add(pause));
    }
}

fn one(app: &App, terms: &Terms<'_>, item: Item<'_>) -> Ended {
    if app.cx.world.cancel.check().is_err() {
        return Ended::NotBegun;
    }
    // It may have waited for hours until there was room for it.
    if (terms.is_stale)() {
        return Ended::Stale;
    }
    let (runs, run_new) = (terms.runs, terms.run_new);
    let named = |name: &str| app.config.jobs.iter().find(|job| job.name == name);
    let outcome = match item {
        Item::Job(name, slot, _) => named(name).map(|job| locked(app, runs, job, slot, run_new)),
        Item::Drill(name, slot) => named(name).map(|job| {
            let drilled = drill::scheduled(app, job, slot, || runs.begin())?;
            Ok(drilled.map_or(Ended::PassedBy, |drill| Ended::Drilled(Box::new(drill))))
        }),
        Item::Ask => Some(ask(app)),
        Item::Expire => Some(expiry::expire(app).map(|()| Ended::Done)),
    };
    outcome.unwrap_or(Ok(Ended::Done)).unwrap_or_else(Ended::Failed)
}

/// Asks the targets of jobs that nothing is known of.
fn ask(app: &App) -> Result<Ended> {
    let learned = relearn::learn(app, app.config.jobs.iter())?;
    for (job, created) in &learned.found {
        let created = rfc3339(*created);
        app.cx.report.note(&format!("{job}: the state knows nothing of it; its newest backup is of {created}"));
    }
    Ok(Ended::Asked(learned.errors))
}

fn locked(app: &App, runs: &Runs<'_>, job: &JobConfig, slot: DateTime<Utc>, run_new: bool) -> Result<Ended> {
    let now = app.cx.world.clock.now();
    let Some(hold) = app.try_hold(&job.name)? else { return Ok(Ended::PassedBy) };
    let app = &app.holding(&hold);
    // It was decided before the lock was held: another run may have done the slot since.
    let state = StateFile::new(&app.cx.data_dir).load(&app.cx.report)?;
    match decide(&job.due(), state.jobs.get(&job.name), now, run_new) {
        Decision::Run { slot: still, missed, attempt } if still == slot => {
            if missed > 0 {
                app.cx.report.note(&format!("{}: makes up for {missed} older slots that were missed", job.name));
            }
            if attempt > 1 {
                app.cx.report.note(&format!("{}: attempt {attempt} at {}", job.name, rfc3339(slot)));
            }
            runs.begin();
            let report = backup::run(app, &Order { job, slot: Some(slot), targets: job.targets.clone() });
            run_job::show(&report, &app.cx.report);
            Ok(Ended::Ran(Box::new(report)))
        }
        _ => Ok(Ended::PassedBy),
    }
}
