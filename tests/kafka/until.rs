//! Waiting for what a job comes to. Nothing is timed: who waits in vain is told for what.
use std::time::Duration;
use tidegate::{JobHandle, JobMetrics};

/// Waits until it holds of a job's metrics, which are returned. The job must not end before.
pub async fn until(handle: &JobHandle, what: &str, holds: impl Fn(&JobMetrics) -> bool) -> JobMetrics {
    for _ in 0..6_000 {
        let metrics = handle.metrics();
        if holds(&metrics) {
            return metrics;
        }
        assert!(!handle.status().state.is_end(), "{what}: {:?}", handle.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}; {:?}\n{:#}", handle.status(), handle.metrics());
}
