//! The watermark of one split, and the alignment of splits over subtasks.
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};
use tokio::sync::Notify;

use crate::time::{MAX, MIN, Timestamp, WatermarkGenerator, Watermarks};

/// What of a split's time goes into the checkpoint: with it, a restored split makes the same watermarks at
/// the same records as one that was never interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedTime {
    newest: Timestamp,
    left: u32,
    watermark: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custom: Option<serde_json::Value>,
}

/// Sees the timestamps of one split and says its watermark.
pub(super) struct SplitTime {
    newest: Timestamp,
    /// Records until the watermark advances; 0 when it advances at the end of a batch.
    left: u32,
    every: u32,
    bound_ms: i64,
    watermark: Timestamp,
    custom: Option<Box<dyn WatermarkGenerator>>,
}

impl SplitTime {
    pub(super) fn new(strategy: Option<&Watermarks>, saved: Option<&SavedTime>) -> Self {
        let every = strategy.and_then(|s| s.every).unwrap_or(0);
        let mut custom = strategy.and_then(|s| s.custom.as_ref()).map(|c| (c.0)());
        let bound_ms = strategy.map_or(0, |s| s.bound_ms);
        let mut time = Self { newest: MIN, left: every, every, bound_ms, watermark: MIN, custom: None };
        if let Some(saved) = saved {
            (time.newest, time.watermark) = (saved.newest, saved.watermark);
            time.left = if every == 0 { 0 } else { saved.left.clamp(1, every) };
            if let (Some(generator), Some(saved)) = (&mut custom, &saved.custom) {
                generator.restore(saved);
            }
        }
        time.custom = custom;
        time
    }

    pub(super) fn save(&self) -> SavedTime {
        let custom = self.custom.as_ref().map(|g| g.save());
        SavedTime { newest: self.newest, left: self.left, watermark: self.watermark, custom }
    }

    /// Sees one timestamp; true when the watermark has to be made now.
    #[inline]
    pub(super) fn observe(&mut self, at: Timestamp) -> bool {
        if at > self.newest {
            self.newest = at;
        }
        if let Some(generator) = &mut self.custom {
            generator.observe(at);
        }
        self.count()
    }

    /// Counts a record whose timestamp is not to be trusted.
    #[inline]
    pub(super) fn count(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.left = self.every;
        true
    }

    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Whether the watermark is made at the end of a batch.
    pub(super) fn at_batch_end(&self) -> bool {
        self.every == 0
    }

    pub(super) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The reader knows better than the records: no record at or before `at` is still to come.
    pub(super) fn raise(&mut self, at: Timestamp) {
        self.watermark = self.watermark.max(at);
    }

    /// Makes the watermark from what has been seen.
    pub(super) fn advance(&mut self) -> Timestamp {
        let made = match &self.custom {
            Some(generator) => generator.watermark(),
            None if self.newest == MIN => MIN,
            None => self.newest.saturating_sub(self.bound_ms).saturating_sub(1),
        };
        self.watermark = self.watermark.max(made);
        self.watermark
    }
}

/// The splits of one source over all subtasks, aligned in event time: none runs further ahead of the
/// slowest than the lead. The slowest one is never paused, so somebody always moves.
#[derive(Debug)]
pub struct Alignment {
    lead_ms: i64,
    slowest: Vec<AtomicI64>,
    moved: Notify,
}

impl Alignment {
    pub(super) fn new(lead_ms: i64, parallelism: u32) -> Arc<Self> {
        let slowest = (0..parallelism).map(|_| AtomicI64::new(MIN)).collect();
        Arc::new(Self { lead_ms, slowest, moved: Notify::new() })
    }

    /// A subtask says the watermark of its slowest split (`MAX`: it has none that counts).
    pub(super) fn publish(&self, subtask: u32, slowest: Timestamp) {
        if self.slowest[subtask as usize].swap(slowest, SeqCst) != slowest {
            self.moved.notify_waiters();
        }
    }

    /// Whether a split with this watermark has to wait.
    pub(super) fn holds(&self, watermark: Timestamp) -> bool {
        let floor = self.slowest.iter().map(|s| s.load(SeqCst)).min().unwrap_or(MAX);
        watermark > floor.saturating_add(self.lead_ms)
    }

    pub(super) fn moved(&self) -> tokio::sync::futures::Notified<'_> {
        self.moved.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_watermark_is_newest_minus_bound_minus_one_and_never_goes_back() {
        let mut t = SplitTime::new(Some(&Watermarks::bounded(Duration::from_millis(10))), None);
        assert_eq!(t.advance(), MIN);
        assert!(!t.observe(100));
        assert_eq!(t.advance(), 89);
        t.observe(50);
        assert_eq!(t.advance(), 89);
    }

    #[test]
    fn what_the_reader_says_counts_beside_what_the_records_say() {
        let mut t = SplitTime::new(Some(&Watermarks::monotonous()), None);
        t.raise(50);
        assert_eq!(t.advance(), 50);
        t.observe(41);
        t.raise(20);
        assert_eq!(t.advance(), 50);
        t.observe(61);
        assert_eq!(t.advance(), 60);
    }

    #[test]
    fn every_n_records_survives_a_restore_in_the_middle_of_n() {
        let strategy = Watermarks::monotonous().every(3);
        let mut whole = SplitTime::new(Some(&strategy), None);
        let mut due = Vec::new();
        let mut cut = SplitTime::new(Some(&strategy), None);
        for at in 0..10 {
            due.push(whole.observe(at));
            cut = SplitTime::new(Some(&strategy), Some(&cut.save()));
            assert_eq!(cut.observe(at), due[at as usize], "record {at}");
        }
        assert_eq!(due.iter().filter(|d| **d).count(), 3);
    }

    #[test]
    fn the_slowest_split_is_never_held() {
        let a = Alignment::new(10, 2);
        assert!(a.holds(11), "before the other subtask has spoken nobody runs ahead of nothing");
        a.publish(0, 100);
        a.publish(1, 150);
        assert!(!a.holds(100) && !a.holds(110) && a.holds(111));
    }
}
