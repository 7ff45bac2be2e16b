//! The steady part of a run: time, CPU and memory of this process.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use tidegate::{Job, JobMetrics, JobState};

use crate::events::Answer;

/// When the steady part began. The last source to get there counts.
static STEADY: Mutex<Option<(Instant, f64)>> = Mutex::new(None);

/// A source has emitted a fifth of its events.
#[cold]
pub fn fifth() {
    *STEADY.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), cpu_seconds()));
}

pub fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

pub fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Runs a job to its end; returns its last figures.
pub fn finish(job: Job) -> Result<JobMetrics, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    let metrics = runtime.block_on(async {
        let handle = job.start()?;
        let mut status = handle.watch();
        // The state is `Finished` before the handle's task has ended.
        while !matches!(status.borrow_and_update().state, JobState::Finished | JobState::Failed) {
            if status.changed().await.is_err() {
                break;
            }
        }
        let metrics = handle.metrics();
        handle.wait().await.map(|()| metrics)
    });
    metrics.map_err(|e: tidegate::Error| e.to_string())
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub answer: Answer,
    pub checkpoints: u64,
    /// Longest pause for a snapshot, in ms.
    pub pause_ms: f64,
    seconds: f64,
    cpu_seconds: f64,
    rss_mb: f64,
}

impl Outcome {
    pub fn now(answer: Answer, checkpoints: u64, pause_ms: f64) -> Self {
        let steady = STEADY.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, cpu) = (*steady).unwrap_or((Instant::now(), cpu_seconds()));
        Self {
            answer,
            checkpoints,
            pause_ms,
            seconds: since.elapsed().as_secs_f64().max(1e-9),
            cpu_seconds: (cpu_seconds() - cpu).max(1e-9),
            rss_mb: peak_mb(),
        }
    }

    pub fn line(&self, workload: &str, events: u64, parallelism: u32) -> String {
        let steady = 0.8 * events as f64;
        serde_json::json!({
            "workload": workload,
            "events": events,
            "parallelism": parallelism,
            "checkpoints": self.checkpoints,
            "seconds": (self.seconds * 1e4).round() / 1e4,
            "events_per_second": (steady / self.seconds).round(),
            "cpu_seconds": (self.cpu_seconds * 1e4).round() / 1e4,
            "events_per_cpu_second": (steady / self.cpu_seconds).round(),
            "rss_mb": (self.rss_mb * 10.0).round() / 10.0,
            "snapshot_pause_ms": (self.pause_ms * 1e3).round() / 1e3,
            "rows": self.answer.rows,
            "a": self.answer.a,
            "b": self.answer.b,
        })
        .to_string()
    }
}
