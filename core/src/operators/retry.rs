//! One request, tried as often as it may be: each attempt with a time-out, a pause between them that doubles.
//!
//! The pauses have jitter, so that those who failed together do not come back together: each lasts between a half of its
//! length and the whole. The time-out has no way to be left out: an asynchronous function that never answers would hold
//! back the end of the job, and in order everything behind it.
use std::{fmt::Display, pin::pin, time::Duration};

use futures::future::{Either, select};

use super::requests::{Answer, Failure};
use crate::env::{random, sleep};

/// How a request is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    /// Of one attempt.
    pub timeout: Duration,
    /// Attempts behind the first.
    pub retries: u32,
    /// The first pause, and the longest.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

impl Tries {
    /// Calls until there is an answer, or no attempt is left.
    pub(super) async fn of<R, E, F>(self, mut seed: u64, mut call: impl FnMut() -> F) -> Answer<R>
    where
        E: Display,
        F: Future<Output = Result<R, E>>,
    {
        let mut pause = self.backoff;
        for attempts in 1.. {
            // The answer first: one that is there at once needs no timer.
            let error = match select(pin!(call()), pin!(sleep(self.timeout))).await {
                Either::Left((Ok(reply), _)) => return Ok(reply),
                Either::Left((Err(error), _)) => error.to_string(),
                Either::Right(_) => format!("no answer within {}", humantime::format_duration(self.timeout)),
            };
            if attempts > self.retries {
                return Err(Failure { error, attempts });
            }
            let half = pause.min(self.backoff_max) / 2;
            sleep(half + half.mul_f64(random(&mut seed) as f64 / u64::MAX as f64)).await;
            pause = pause.saturating_mul(2);
        }
        Err(Failure { error: "there was no attempt".into(), attempts: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::now;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_again_with_longer_pauses_and_given_up_with_the_last_error() {
        let tries = Tries { timeout: SECOND, retries: 4, backoff: SECOND, backoff_max: 3 * SECOND };
        let (began, mut at) = (now(), Vec::new());
        let answer = tries.of(7, || {
            at.push(now().duration_since(began).as_secs_f64());
            let n = at.len();
            async move { Err::<(), _>(format!("error {n}")) }
        });
        let failure = answer.await.unwrap_err();
        assert_eq!((failure.error.as_str(), failure.attempts), ("error 5", 5));
        for (n, longest) in [1.0, 2.0, 3.0, 3.0].into_iter().enumerate() {
            let pause = at[n + 1] - at[n];
            assert!((longest / 2.0 - 0.01..=longest + 0.01).contains(&pause), "pause {n}: {pause}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_answers_is_timed_out_and_tried_again() {
        let tries = Tries { timeout: SECOND, retries: 1, backoff: Duration::ZERO, backoff_max: SECOND };
        let mut calls = 0;
        let answer = tries.of(7, || {
            calls += 1;
            let never = calls == 1;
            async move {
                if never {
                    std::future::pending::<()>().await;
                }
                Ok::<_, String>(5)
            }
        });
        assert_eq!(answer.await.unwrap(), 5);
        let never = Tries { retries: 0, ..tries }.of(7, std::future::pending::<Result<(), String>>);
        let failure = never.await.unwrap_err();
        assert_eq!((failure.error.as_str(), failure.attempts), ("no answer within 1s", 1));
    }
}
