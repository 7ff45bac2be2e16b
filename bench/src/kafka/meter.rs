//! What a run has cost, as one line of JSON. It counts from when the clients are there: as long as a process takes to
//! start is another question (`recovery`).
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]
use std::time::Instant;
use tidegate::Latency;

use super::Run;
use crate::measure::{cpu_seconds, peak_mb};

pub struct Meter {
    began: Instant,
    cpu: f64,
}

impl Meter {
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu_seconds() }
    }

    /// `checkpoints`: how long each took, in ms, from its trigger to when it counted; `commit`: of that the last step.
    pub fn line(&self, run: &Run, checkpoints: &[f64], commit: Latency) -> String {
        let (seconds, cpu) = (self.began.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let at = |q| quantile(checkpoints, q);
        let commit = [commit.p50, commit.p99, commit.max].map(|time| time.as_secs_f64() * 1e3);
        serde_json::json!({
            "workload": run.workload,
            "by_hand": run.by_hand,
            "events": run.events,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "events_per_second": run.events as f64 / seconds,
            "events_per_cpu_second": run.events as f64 / cpu,
            "rss_mb": peak_mb(),
            "checkpoints": checkpoints.len(),
            "checkpoint_ms": [at(0.5), at(0.99), at(1.0)],
            "commit_ms": commit,
        })
        .to_string()
    }
}

/// Of values in whatever order; 0 where there are none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values.get((last * q).round() as usize).copied().unwrap_or_default()
}
