//! What becomes of work at a target when a signal has come. Flows in: the signal, and the time since it came and since the
//! work began. Flows out: whether the work ends now. Touches nothing.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crate::error::Result;
use crate::world::{Cancel, Watch, World};

/// After a signal, all that is put in order may take so long from the signal on: whoever sent it may send SIGKILL next.
pub const GRACE: Duration = Duration::from_secs(1);
/// How often a wait looks for a signal.
const TICK: Duration = Duration::from_millis(20);
/// What is put in order late has at least so long, each by itself.
const LATE: Duration = Duration::from_millis(500);

/// Takes a lock that another may hold for as long as a server does not answer it.
///
/// # Errors
/// A signal.
pub fn lock<'m, T>(mutex: &'m Mutex<T>, world: &World) -> Result<MutexGuard<'m, T>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => world.cancel.check()?,
        }
        world.clock.sleep(TICK);
    }
}

/// What becomes of requests when a signal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSignal {
    /// They end.
    End,
    /// They have a moment yet, from the signal on or from where this was asked for: something is put in order.
    AMoment,
    /// They go on: nobody waits for them.
    GoOn,
}

/// The moment that work has yet which began when this was made.
#[derive(Debug)]
pub struct Grace {
    signal: Cancel,
    since: Duration,
    world: World,
}

impl Grace {
    /// For what begins now.
    pub fn new(world: &World) -> Self {
        Self { signal: world.cancel.clone(), since: world.clock.monotonic(), world: world.clone() }
    }
}

impl Watch for Grace {
    fn check(&self) -> Result<()> {
        let here = self.world.clock.monotonic().saturating_sub(self.since);
        match self.signal.stopped_for() {
            Some(time) if time >= GRACE && here >= LATE => self.signal.check(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_heard_while_another_holds_a_lock() {
        let (mutex, world) = (Mutex::new(1), World::system());
        world.cancel.stop(15);
        let (held, wait) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let guard = mutex.lock().unwrap();
                held.send(()).unwrap();
                std::thread::sleep(Duration::from_secs(2));
                drop(guard);
            });
            wait.recv().unwrap();
            assert!(lock(&mutex, &world).unwrap_err().is_stopped());
        });
        assert_eq!(*lock(&mutex, &world).unwrap(), 1, "who need not wait is not disturbed");
    }
}
