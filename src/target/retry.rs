//! Trying again: the one policy of every target on a network. Flows in: how often it has failed, what the server asked
//! for, a random number. Flows out: how long to wait, or that it is enough. [`Policy::pause`] is pure; [`Tries`] waits.

use std::time::Duration;

use crate::error::Result;
use crate::world::World;

/// How long a wait goes on before a signal is looked for.
const SLICE: Duration = Duration::from_millis(50);

/// How often, and after which pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often it is tried in all.
    pub attempts: u32,
    /// The first pause; each later one is twice as long.
    pub first: Duration,
    /// No pause is longer, but one that the server asks for.
    pub longest: Duration,
    /// No pause is longer, whatever the server asks for.
    pub longest_asked: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(20),
            longest_asked: Duration::from_secs(120),
        }
    }
}

impl Policy {
    /// How long to wait after the `failed`-th failure, or nothing if it was the last attempt. `random` spreads it between
    /// half of the pause and all of it, so that many clients of a store that was down do not come back in step.
    pub fn pause(&self, failed: u32, random: u8, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doubled = self.first.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1)));
        let whole = doubled.min(self.longest);
        let spread = whole / 2 + whole.mul_f64(f64::from(random) / 510.0);
        Some(spread.max(asked.unwrap_or_default().min(self.longest_asked)))
    }
}

/// One thing that is being tried.
#[derive(Debug)]
pub struct Tries<'w> {
    policy: Policy,
    world: &'w World,
    failed: u32,
}

impl<'w> Tries<'w> {
    /// Nothing has failed yet.
    pub fn new(policy: Policy, world: &'w World) -> Self {
        Self { policy, world, failed: 0 }
    }

    /// After a failure: waits and says whether there is another attempt.
    ///
    /// # Errors
    /// A signal has come.
    pub fn again(&mut self, asked: Option<Duration>) -> Result<bool> {
        self.failed += 1;
        let mut random = [0u8];
        self.world.random.fill(&mut random)?;
        let Some(pause) = self.policy.pause(self.failed, random[0], asked) else {
            self.world.cancel.check()?;
            return Ok(false);
        };
        let until = self.world.clock.monotonic() + pause;
        loop {
            self.world.cancel.check()?;
            let left = until.saturating_sub(self.world.clock.monotonic());
            if left.is_zero() {
                return Ok(true);
            }
            self.world.clock.sleep(left.min(SLICE));
        }
    }

    /// After progress: the count begins anew.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(random: u8) -> Vec<Option<u128>> {
        let policy = Policy { longest: Duration::from_secs(5), ..Policy::default() };
        (1..=6).map(|failed| policy.pause(failed, random, None).map(|pause| pause.as_millis())).collect()
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        assert_eq!(schedule(255), [Some(500), Some(1000), Some(2000), Some(4000), Some(5000), None]);
        assert_eq!(schedule(0), [Some(250), Some(500), Some(1000), Some(2000), Some(2500), None]);
    }

    #[test]
    fn what_the_server_asks_for_is_the_least_within_reason() {
        let policy = Policy::default();
        let asked = |seconds| policy.pause(1, 0, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(0), Some(Duration::from_millis(250)));
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!(asked(86_400), Some(policy.longest_asked));
    }

    #[test]
    fn no_count_of_failures_overflows() {
        let policy = Policy { attempts: u32::MAX, ..Policy::default() };
        assert_eq!(policy.pause(u32::MAX - 1, 255, None), Some(policy.longest));
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let world = World::system();
        world.cancel.stop(15);
        let mut tries = Tries::new(Policy { first: Duration::from_secs(60), ..Policy::default() }, &world);
        assert!(tries.again(None).unwrap_err().is_stopped());
    }
}
