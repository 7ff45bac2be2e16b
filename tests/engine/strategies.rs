//! How often a failing job is started again, and that it ends with the cause when no more is granted.
use crate::{
    kit::{Blast, end, run, settings},
    pipeline::{COUNT, pipeline},
};
use std::time::Duration;
use tidegate::{JobState, JobStatus, Kind, RestartStrategy, Settings};

/// Fails at every record until no restart is granted.
fn exhausted(strategy: RestartStrategy, max_restarts: u32) -> JobStatus {
    let mut settings = settings(1);
    settings.restart.strategy = strategy;
    settings.restart.max_restarts = max_restarts;
    settings.restart.max_delay = Duration::from_millis(4);
    failing(settings)
}

fn failing(settings: Settings) -> JobStatus {
    run(async {
        let p = pipeline("failing", settings);
        p.bomb.arm("filter", Blast::Panic, u32::MAX);
        p.gate.open();
        let (result, status) = end(p.job.start().unwrap()).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::User);
        assert!(error.to_string().contains("the bomb at filter"), "{error}");
        assert_eq!(status.state, JobState::Failed);
        assert!(status.failure.as_ref().unwrap().contains("the bomb at filter"), "{status:?}");
        assert_eq!(status.failures.len() as u64, status.restarts);
        assert!(p.totals.is_empty() && p.windows.is_empty(), "output without a checkpoint");
        status
    })
}

#[test]
fn without_restarts_the_first_failure_ends_the_job() {
    assert_eq!(exhausted(RestartStrategy::None, 5).attempt, 1);
}

#[test]
fn fixed_delay_exponential_and_failure_rate_grant_as_many_as_they_say() {
    for strategy in [RestartStrategy::FixedDelay, RestartStrategy::Exponential, RestartStrategy::FailureRate] {
        for max in [0, 1, 4] {
            assert_eq!(exhausted(strategy, max).attempt, u64::from(max) + 1, "{strategy:?}");
        }
    }
}

/// Exponential counts failures since the last completed checkpoint, the others do not.
#[test]
fn a_completed_checkpoint_makes_an_exponential_strategy_forget() {
    for (strategy, survives) in [(RestartStrategy::Exponential, true), (RestartStrategy::FixedDelay, false)] {
        run(async {
            let mut settings = settings(1);
            settings.restart.strategy = strategy;
            settings.restart.max_restarts = 2;
            let p = pipeline("healthy", settings);
            let handle = p.job.start().unwrap();
            let status = handle.watch();
            for round in 1..=3 {
                p.bomb.arm("filter", Blast::Panic, 1);
                p.gate.open_to(COUNT / 4 * round);
                let ended = || status.borrow().state == JobState::Failed;
                crate::kit::until(|| p.bomb.is_spent() && status.borrow().restarts == round || ended()).await;
                // Refused while the job is between two attempts.
                while handle.checkpoint_now().await.is_err() && !ended() {
                    tidegate::extend::env::sleep(Duration::from_millis(1)).await;
                }
            }
            p.gate.open();
            let (result, status) = end(handle).await;
            assert_eq!(result.is_ok(), survives, "{strategy:?}: {result:?}");
            assert_eq!(status.restarts, 3);
            if survives {
                p.assert_exact();
            }
        });
    }
}

#[test]
fn a_job_can_be_cancelled_while_it_waits_to_restart() {
    run(async {
        let mut settings = settings(1);
        settings.restart.delay = Duration::from_secs(3_600);
        let p = pipeline("waiting", settings);
        p.bomb.arm("filter", Blast::Panic, 1);
        p.gate.open();
        let handle = p.job.start().unwrap();
        let status = handle.watch();
        crate::kit::until(|| status.borrow().state == JobState::Restarting).await;
        let refused = handle.checkpoint_now().await.unwrap_err();
        assert!(refused.to_string().contains("restarting"), "{refused}");
        handle.cancel().await.unwrap();
        assert_eq!(status.borrow().state, JobState::Cancelled);
    });
}
