//! Hands a job's metrics to whatever exporter the program has installed through the `metrics` facade.
//!
//! They are handed over as they are, twice a second: counts are absolute. The hard case is what is gone, since an
//! exporter remembers the last value of all that it was ever told. A count begins anew with each attempt, and
//! what has a label of its own for a split or a partition is handed over for as long as there is one; an exporter that
//! forgets what it has not been told for a while (most can be asked to) forgets the rest.
use tidegate_checkpoint::figure::{Figure, FigureValue};

use super::snapshot::JobMetrics;
use crate::runtime::supervise::Shared;

/// What `report_progress` calls, and the end of the job.
pub(crate) fn export(shared: &Shared) {
    let job = shared.job.to_string();
    let snapshot = JobMetrics::of(shared);
    for o in &snapshot.operators {
        let labels = [("job", job.clone()), ("operator", o.name.clone())];
        figures(&o.figures, &labels);
        for (name, value) in [
            ("tidegate_records_in_total", o.records_in),
            ("tidegate_records_out_total", o.records_out),
            ("tidegate_bytes_in_total", o.bytes_in),
            ("tidegate_bytes_out_total", o.bytes_out),
            ("tidegate_filtered_total", o.filtered),
            ("tidegate_late_total", o.late),
            ("tidegate_skipped_total", o.skipped),
            ("tidegate_dead_letters_total", o.dead_letters),
            ("tidegate_far_future_total", o.far_future),
        ] {
            metrics::counter!(name, &labels).absolute(value);
        }
        let latency = o.latency.unwrap_or_default();
        for (name, value) in [
            ("tidegate_records_per_second", Some(o.records_per_second)),
            ("tidegate_bytes_per_second", Some(o.bytes_per_second)),
            ("tidegate_capacity_records_per_second", o.capacity_per_second),
            ("tidegate_busy_ratio", o.busy),
            ("tidegate_idle_ratio", o.idle),
            ("tidegate_backpressured_ratio", o.backpressured),
            ("tidegate_watermark_lag_seconds", o.watermark_lag.map(|l| l.as_secs_f64())),
            ("tidegate_lag_records", o.lag.map(|l| l as f64)),
            ("tidegate_state_entries", Some(o.state_entries as f64)),
            ("tidegate_latency_p50_seconds", o.latency.map(|_| latency.p50.as_secs_f64())),
            ("tidegate_latency_p99_seconds", o.latency.map(|_| latency.p99.as_secs_f64())),
            ("tidegate_latency_max_seconds", o.latency.map(|_| latency.max.as_secs_f64())),
        ] {
            if let Some(value) = value {
                metrics::gauge!(name, &labels).set(value);
            }
        }
    }
    let c = &snapshot.checkpoints;
    let labels = [("job", job)];
    figures(&snapshot.figures, &labels);
    metrics::counter!("tidegate_checkpoints_completed_total", &labels).absolute(c.completed);
    metrics::counter!("tidegate_checkpoints_abandoned_total", &labels).absolute(c.abandoned);
    metrics::gauge!("tidegate_checkpoint_duration_seconds", &labels).set(c.last_duration_ms as f64 / 1000.0);
    metrics::gauge!("tidegate_checkpoint_bytes", &labels).set(c.last_bytes as f64);
    if let Some(commit) = c.commit {
        for (name, took) in [
            ("tidegate_commit_last_seconds", c.last_commit),
            ("tidegate_commit_p50_seconds", commit.p50),
            ("tidegate_commit_p99_seconds", commit.p99),
            ("tidegate_commit_max_seconds", commit.max),
        ] {
            metrics::gauge!(name, &labels).set(took.as_secs_f64());
        }
    }
    let restarts = shared.status.borrow().restarts;
    metrics::counter!("tidegate_restarts_total", &labels).absolute(restarts);
}

/// What parts of the job say of themselves, with the labels that they do not know.
fn figures(figures: &[Figure], of: &[(&'static str, String)]) {
    for figure in figures {
        let labels: Vec<_> = of.iter().chain(&figure.labels).cloned().collect();
        match figure.value {
            FigureValue::Count(n) => metrics::counter!(figure.name, &labels).absolute(n),
            FigureValue::Gauge(x) => metrics::gauge!(figure.name, &labels).set(x),
        }
    }
}
