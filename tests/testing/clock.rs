//! Virtual time.
use crate::counts;
use std::time::Duration;
use tidegate::{extend::env, testing::Harness};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn processing_time_begins_at_0_and_goes_on_only_when_it_is_told_to() {
    let mut harness = Harness::new(counts).parallelism(2).start().await.unwrap();
    assert_eq!(harness.processing_time(), 0);
    for n in 0..100 {
        harness.push("tide", n);
        harness.settle().await.unwrap();
    }
    assert_eq!(harness.processing_time(), 0);
    harness.advance(Duration::from_millis(1_500)).await.unwrap();
    assert_eq!(harness.processing_time(), 1_500);
    harness.advance(365 * DAY).await.unwrap();
    assert_eq!(harness.processing_time(), 1_500 + 365 * 86_400_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_meanwhile_happens_at_its_own_moment() {
    let mut harness = Harness::new(counts).start().await.unwrap();
    let ticks = env::spawn(async {
        let mut ticks = Vec::new();
        for _ in 0..3 {
            env::sleep(Duration::from_secs(60)).await;
            ticks.push(env::wall_ms());
        }
        ticks
    });
    harness.advance(DAY).await.unwrap();
    assert!(ticks.is_finished());
    assert_eq!(ticks.await.unwrap(), [60_000, 120_000, 180_000]);
}

#[tokio::test(start_paused = true)]
async fn a_restored_job_goes_on_in_the_same_time() {
    let mut harness = Harness::new(counts).start().await.unwrap();
    harness.advance(DAY).await.unwrap();
    let snapshot = harness.snapshot().await.unwrap();
    let mut again = harness.restore(&snapshot, 2).await.unwrap();
    drop(harness);
    again.advance(DAY).await.unwrap();
    assert_eq!(again.processing_time(), 2 * 86_400_000);
    drop(again);
    assert!(env::wall_ms() > 1_700_000_000_000, "the machine's clock is its own again");
}
