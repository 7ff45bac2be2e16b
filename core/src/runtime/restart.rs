//! Whether a failed attempt is followed by another, and when: pure.
use std::{collections::VecDeque, time::Duration};

use tidegate_checkpoint::error::Error;

use crate::{
    env::{Instant, random},
    settings::{RestartSettings, RestartStrategy},
};

/// Counts failures and grants restarts by the job's strategy.
#[derive(Debug)]
pub struct Restarts {
    settings: RestartSettings,
    /// Failures since the last completed checkpoint (exponential), or in all (fixed delay).
    failures: u32,
    recent: VecDeque<Instant>,
    seed: u64,
}

impl Restarts {
    /// No failure yet; `seed` is for the jitter.
    pub fn new(settings: RestartSettings, seed: u64) -> Self {
        Self { settings, failures: 0, recent: VecDeque::new(), seed }
    }

    /// A checkpoint has completed: the job is healthy.
    pub fn healthy(&mut self) {
        if self.settings.strategy == RestartStrategy::Exponential {
            self.failures = 0;
        }
    }

    /// The delay before the next attempt; `None` when there is to be none.
    pub fn after(&mut self, error: &Error, at: Instant) -> Option<Duration> {
        // A fenced attempt in particular has lost its job to a newer one: going on would fence that in turn.
        if !error.kind().is_retriable() {
            return None;
        }
        self.failures += 1;
        let RestartSettings { strategy, delay, max_delay, max_restarts, window } = self.settings;
        match strategy {
            RestartStrategy::None => None,
            RestartStrategy::FixedDelay => (self.failures <= max_restarts).then_some(delay),
            RestartStrategy::Exponential => {
                let doubled = delay.saturating_mul(1 << (self.failures - 1).min(20)).min(max_delay);
                let jitter = 0.8 + 0.4 * (random(&mut self.seed) >> 11) as f64 / (1u64 << 53) as f64;
                (self.failures <= max_restarts).then(|| doubled.mul_f64(jitter))
            }
            RestartStrategy::FailureRate => {
                self.recent.push_back(at);
                while self.recent.front().is_some_and(|f| at.duration_since(*f) > window) {
                    self.recent.pop_front();
                }
                (self.recent.len() <= max_restarts as usize).then_some(delay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::now;

    fn settings(strategy: RestartStrategy) -> RestartSettings {
        RestartSettings { strategy, max_restarts: 3, delay: Duration::from_millis(100), ..RestartSettings::default() }
    }

    #[tokio::test]
    async fn exponential_doubles_with_jitter_and_starts_again_once_healthy() {
        let mut r = Restarts::new(settings(RestartStrategy::Exponential), 1);
        let e = Error::unavailable("x");
        let near = |d: Option<Duration>, ms: u128| {
            d.is_some_and(|d| d.as_millis() * 10 >= ms * 7 && d.as_millis() * 10 <= ms * 13)
        };
        assert!(near(r.after(&e, now()), 100) && near(r.after(&e, now()), 200) && near(r.after(&e, now()), 400));
        assert_eq!(r.after(&e, now()), None);
        r.healthy();
        assert!(near(r.after(&e, now()), 100));
    }

    #[tokio::test]
    async fn fenced_and_misconfigured_attempts_are_never_restarted() {
        for error in [Error::fenced("x"), Error::config("x"), Error::corrupt("x")] {
            assert_eq!(Restarts::new(settings(RestartStrategy::FixedDelay), 1).after(&error, now()), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_rate_forgets_old_failures() {
        let mut r = Restarts::new(
            RestartSettings { window: Duration::from_secs(10), ..settings(RestartStrategy::FailureRate) },
            1,
        );
        let e = Error::user("x");
        for _ in 0..3 {
            assert!(r.after(&e, now()).is_some());
        }
        assert!(r.after(&e, now()).is_none());
        crate::env::sleep(Duration::from_secs(11)).await;
        assert!(r.after(&e, now()).is_some());
    }
}
