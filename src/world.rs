//! The only home of the clock, of randomness and of the environment: they flow in here, once, and go from here to
//! whatever decides as arguments. Touches the system's clock and random source; nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Where time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock.
    fn now(&self) -> DateTime<Utc>;
    /// Time that never goes backwards, from an arbitrary start; where the system has such a clock, it goes on while the
    /// machine sleeps.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// Where randomness comes from.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes` from a source fit for keys.
    ///
    /// # Errors
    /// When the system has no such source.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The system's clock.
#[derive(Debug)]
#[cfg_attr(target_os = "linux", derive(Default))]
pub struct SystemClock {
    #[cfg(not(target_os = "linux"))]
    start: std::time::Instant,
}

#[cfg(not(target_os = "linux"))]
impl Default for SystemClock {
    fn default() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    #[cfg(target_os = "linux")]
    fn monotonic(&self) -> Duration {
        // The one that goes on while the machine sleeps: a lease does not sleep with it.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
        Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), nanoseconds)
    }

    #[cfg(not(target_os = "linux"))]
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The system's random source.
#[derive(Debug)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| Error::other(format!("can't get random bytes from the system: {error}")))
    }
}

/// What a run must stop for beside a signal: a lease that it has lost.
pub trait Watch: Send + Sync + fmt::Debug {
    /// Whether it may go on.
    ///
    /// # Errors
    /// [`Kind::Locked`] when it may not.
    fn check(&self) -> Result<()>;
}

/// Set by a signal, looked at by every loop that can last.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    signal: Arc<AtomicUsize>,
    /// When somebody first saw it.
    seen: Arc<OnceLock<Instant>>,
    watches: Vec<Arc<dyn Watch>>,
}

impl Cancel {
    /// From now on SIGINT and SIGTERM set it, and SIGHUP, unless `nohup` has switched that off: a terminal that goes away
    /// must not leave behind what a restore has begun. A second signal changes nothing: `timeout` and systemd may send two.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen(&self) -> std::io::Result<()> {
        let hangup = Some(1i32).filter(|signal| !is_ignored(*signal));
        for signal in hangup.into_iter().chain([2, 15]) {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&self.signal), number)?;
        }
        Ok(())
    }

    /// Asks everything to stop, as `signal` would.
    pub fn stop(&self, signal: i32) {
        self.signal.store(usize::try_from(signal).unwrap_or(15), Ordering::SeqCst);
    }

    /// The same signal, and this to look at, too.
    #[must_use]
    pub fn watching(&self, watch: Arc<dyn Watch>) -> Self {
        let watches = self.watches.iter().cloned().chain([watch]).collect();
        Self { watches, ..self.clone() }
    }

    /// How long ago a signal was first seen; none, if there was none.
    pub fn stopped_for(&self) -> Option<Duration> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            _ => Some(self.seen.get_or_init(Instant::now).elapsed()),
        }
    }

    /// Fails once a lease is lost.
    ///
    /// # Errors
    /// [`Kind::Locked`].
    pub fn check_leases(&self) -> Result<()> {
        self.watches.iter().try_for_each(|watch| watch.check())
    }

    /// Fails once a signal has come, or a lease is lost.
    ///
    /// # Errors
    /// [`Kind::Stopped`] with the signal's number; [`Kind::Locked`].
    pub fn check(&self) -> Result<()> {
        match self.signal.load(Ordering::SeqCst) {
            0 => self.check_leases(),
            number => {
                self.seen.get_or_init(Instant::now);
                let number = i32::try_from(number).unwrap_or(15);
                let name = match number {
                    1 => "SIGHUP".to_owned(),
                    2 => "SIGINT".to_owned(),
                    15 => "SIGTERM".to_owned(),
                    other => format!("signal {other}"),
                };
                Err(Error::new(Kind::Stopped(number), format!("stopped by {name}")))
            }
        }
    }
}

/// Whether this process was started with a signal switched off.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

/// Environment variables, in Unicode; others are let be.
#[derive(Clone, Default)]
pub struct Vars {
    all: BTreeMap<String, Secret>,
    hidden: BTreeSet<String>,
}

impl fmt::Debug for Vars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all.keys()).finish()
    }
}

impl Vars {
    /// From pairs of name and value.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let all = pairs.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        Self { all, hidden: BTreeSet::new() }
    }

    /// The process's own.
    pub fn from_process() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The value of `name`; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(Secret::expose).filter(|value| !value.is_empty())
    }

    /// The same variables, where children get none of those named (a secret's source among them).
    #[must_use]
    pub fn hiding(&self, names: impl IntoIterator<Item = String>) -> Self {
        Self { all: self.all.clone(), hidden: self.hidden.iter().cloned().chain(names).collect() }
    }

    /// What a child process gets: everything but our own settings, our credentials and what is hidden.
    pub fn for_children(&self) -> impl Iterator<Item = (&str, &str)> {
        let ours = |name: &str| name.starts_with("VOXELTRON_") || name == "CREDENTIALS_DIRECTORY";
        self.all
            .iter()
            .filter(move |(name, _)| !ours(name) && !self.hidden.contains(*name))
            .map(|(name, value)| (name.as_str(), value.expose()))
    }

    /// Every name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }
}

/// All that comes from outside, passed down as one argument. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The environment.
    pub vars: Arc<Vars>,
    /// Whether a signal has come.
    pub cancel: Cancel,
}

impl World {
    /// The real one.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::default()),
            random: Arc::new(SystemRandom),
            vars: Arc::new(Vars::from_process()),
            cancel: Cancel::default(),
        }
    }

    /// The same world, in which no signal has come: for what must be put in order after one.
    #[must_use]
    pub fn for_cleanup(&self) -> Self {
        Self { cancel: Cancel::default(), ..self.clone() }
    }

    /// `bytes` random bytes in lower-case hex.
    ///
    /// # Errors
    /// When the system has no random source.
    pub fn random_hex(&self, bytes: usize) -> Result<String> {
        let mut buffer = vec![0u8; bytes];
        self.random.fill(&mut buffer)?;
        Ok(crate::format::hex(&buffer))
    }
}
