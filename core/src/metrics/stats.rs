//! The counters themselves: one set of atomics an operator and subtask, written by its task alone.
use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::splits::Splits;
use crate::{plan::NodeId, time};

/// One operator's counters in one subtask. All counts are of this attempt alone.
#[derive(Debug)]
pub struct OperatorStats {
    /// Records that came in.
    pub records_in: AtomicU64,
    /// Records that went out.
    pub records_out: AtomicU64,
    /// Bytes read from outside, or received from an exchange.
    pub bytes_in: AtomicU64,
    /// Bytes written outside.
    pub bytes_out: AtomicU64,
    /// Records behind their window's firing.
    pub late: AtomicU64,
    /// Undecodable records skipped by policy; of windows, records that are in none; of `dedup`, duplicates.
    pub skipped: AtomicU64,
    /// Undecodable records handed to the dead-letter stream.
    pub dead_letters: AtomicU64,
    /// Records with a timestamp too far in the future.
    pub far_future: AtomicU64,
    /// Entries of keyed state, as of the last batch.
    pub state_entries: AtomicU64,
    /// The watermark that the operator has seen.
    pub watermark: AtomicI64,
    /// Of a source: each of its splits.
    pub splits: Splits,
    /// Nanoseconds of the task at work, waiting for input, and waiting for its output; at its head only.
    pub busy_ns: AtomicU64,
    /// See `busy_ns`.
    pub idle_ns: AtomicU64,
    /// See `busy_ns`.
    pub backpressured_ns: AtomicU64,
    /// Longest time that one batch spent on serialising state for a snapshot.
    pub snapshot_pause_ns: AtomicU64,
    /// Units of input read and known, for the progress bar.
    pub progress: AtomicU64,
    /// See `progress`; 0 when not known.
    pub progress_total: AtomicU64,
    latency_us: Mutex<Option<Histogram<u64>>>,
}

impl Default for OperatorStats {
    fn default() -> Self {
        Self {
            records_in: AtomicU64::default(),
            records_out: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            late: AtomicU64::default(),
            skipped: AtomicU64::default(),
            dead_letters: AtomicU64::default(),
            far_future: AtomicU64::default(),
            state_entries: AtomicU64::default(),
            watermark: AtomicI64::new(time::MIN),
            splits: Splits::default(),
            busy_ns: AtomicU64::default(),
            idle_ns: AtomicU64::default(),
            backpressured_ns: AtomicU64::default(),
            snapshot_pause_ns: AtomicU64::default(),
            progress: AtomicU64::default(),
            progress_total: AtomicU64::default(),
            latency_us: Mutex::new(latency_histogram()),
        }
    }
}

/// Microseconds, to two digits, up to an hour.
pub(crate) fn latency_histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, 3_600_000_000, 2).ok()
}

impl OperatorStats {
    /// A latency marker has arrived after `micros`.
    pub fn latency(&self, micros: u64) {
        if let Some(histogram) = &mut *self.latency_us.lock().unwrap_or_else(PoisonError::into_inner) {
            histogram.saturating_record(micros.max(1));
        }
    }
    /// Serialising state for a snapshot has held the subtask up for so long.
    pub fn paused(&self, pause: Duration) {
        self.snapshot_pause_ns.fetch_max(pause.as_nanos() as u64, Relaxed);
    }
    pub(crate) fn add_latency_to(&self, sum: &mut Histogram<u64>) {
        if let Some(histogram) = &*self.latency_us.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails only where a value does not fit the sum's bounds, and they are the same.
            let _ = sum.add(histogram);
        }
    }
    /// Records and bytes that have come in.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.records_in.load(Relaxed), self.bytes_in.load(Relaxed))
    }
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        if n > 0 {
            counter.store(counter.load(Relaxed) + n, Relaxed);
        }
    }
}

/// All counters of an attempt.
#[derive(Clone, Debug, Default)]
pub struct StatsRegistry(Arc<Mutex<BTreeMap<(NodeId, u32), Arc<OperatorStats>>>>);

impl StatsRegistry {
    /// The counters of one operator in one subtask.
    pub fn of(&self, node: NodeId, subtask: u32) -> Arc<OperatorStats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((node, subtask)).or_default().clone()
    }
    /// All of them, by operator and subtask.
    pub fn all(&self) -> Vec<((NodeId, u32), Arc<OperatorStats>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(k, v)| (*k, v.clone())).collect()
    }
}
