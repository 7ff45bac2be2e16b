//! What has been read of each split, and how much is left: counted once a fill, by the one task that reads it.
//!
//! The hard case is a source that never runs out of splits, such as a directory that is watched: those that have
//! ended are kept, so that at the end of a job each shows what it was, but only so many of them.
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use super::stats::OperatorStats;
use tidegate_checkpoint::figure::Figure;

/// One split's counters, in this attempt alone.
#[derive(Debug)]
pub struct SplitStats {
    id: String,
    /// Records read, with those that cannot be decoded.
    records: AtomicU64,
    /// Bytes read.
    bytes: AtomicU64,
    /// Records behind the position; -1 when not known.
    lag: AtomicI64,
}

impl SplitStats {
    /// A fill has read so much.
    pub fn read(&self, records: u64, bytes: u64) {
        OperatorStats::add(&self.records, records);
        OperatorStats::add(&self.bytes, bytes);
    }
    /// So many records are left, as far as is known.
    pub fn left(&self, lag: Option<u64>) {
        self.lag.store(lag.map_or(-1, |l| i64::try_from(l).unwrap_or(i64::MAX)), Relaxed);
    }
    /// See [`SplitStats::left`].
    pub fn lag(&self) -> Option<u64> {
        u64::try_from(self.lag.load(Relaxed)).ok()
    }
}

/// Splits that have ended and are still shown, in one subtask.
const ENDED_MAX: usize = 1_000;

/// The splits of a source that one subtask reads.
#[derive(Debug, Default)]
pub struct Splits(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    open: Vec<Arc<SplitStats>>,
    ended: VecDeque<Arc<SplitStats>>,
}

impl Splits {
    /// One more is read.
    pub fn open(&self, id: &str) -> Arc<SplitStats> {
        let opened = Arc::new(SplitStats {
            id: id.to_owned(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lag: AtomicI64::new(-1),
        });
        self.all().open.push(opened.clone());
        opened
    }

    /// One has ended. The first that has is forgotten, where they are too many.
    pub fn end(&self, split: &Arc<SplitStats>) {
        let mut all = self.all();
        all.open.retain(|open| !Arc::ptr_eq(open, split));
        all.ended.push_back(split.clone());
        if all.ended.len() > ENDED_MAX {
            all.ended.pop_front();
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left in all of them together, where that is known of any.
    pub(super) fn lag(&self) -> Option<u64> {
        self.all().each().filter_map(SplitStats::lag).reduce(u64::saturating_add)
    }

    /// Of each split that has been read, or of which is known how much is left.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for split in self.all().each() {
            let (records, bytes, lag) = (split.records.load(Relaxed), split.bytes.load(Relaxed), split.lag());
            if records > 0 || lag.is_some() {
                let counts = [("tidegate_split_records_total", records), ("tidegate_split_bytes_total", bytes)];
                figures.extend(counts.map(|(name, n)| Figure::count(name, n).with("split", &*split.id)));
            }
            figures
                .extend(lag.map(|l| Figure::gauge("tidegate_split_lag_records", l as f64).with("split", &*split.id)));
        }
        figures
    }
}

impl All {
    fn each(&self) -> impl Iterator<Item = &SplitStats> {
        self.ended.iter().chain(&self.open).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(figures: &[Figure], name: &str, split: &str) -> Option<f64> {
        let found = figures.iter().find(|f| f.name == name && f.label("split") == Some(split));
        found.map(|f| f.value.as_f64())
    }

    #[test]
    fn each_split_has_its_counts_and_lags_add_up() {
        let splits = Splits::default();
        let [a, b, _] = ["a", "b", "not read"].map(|id| splits.open(id));
        assert_eq!((splits.lag(), splits.figures()), (None, Vec::new()), "nothing is known yet");
        a.read(3, 30);
        a.read(4, 40);
        b.read(1, 10);
        a.left(Some(5));
        assert_eq!(splits.lag(), Some(5));
        b.left(Some(2));
        assert_eq!(splits.lag(), Some(7));
        let figures = splits.figures();
        let all = ["tidegate_split_records_total", "tidegate_split_bytes_total", "tidegate_split_lag_records"];
        assert_eq!(all.map(|name| value(&figures, name, "a")), [Some(7.0), Some(70.0), Some(5.0)]);
        assert_eq!(all.map(|name| value(&figures, name, "b")), [Some(1.0), Some(10.0), Some(2.0)]);
        assert_eq!(figures.len(), 6);
    }

    #[test]
    fn of_those_that_have_ended_only_so_many_are_kept() {
        let splits = Splits::default();
        let lives = splits.open("lives");
        lives.read(1, 1);
        for n in 0..2 * ENDED_MAX {
            let split = splits.open(&n.to_string());
            split.read(1, 1);
            splits.end(&split);
        }
        let figures = splits.figures();
        assert_eq!(figures.len(), 2 * (ENDED_MAX + 1));
        let records = |split: &str| value(&figures, "tidegate_split_records_total", split);
        assert_eq!((records("lives"), records("0"), records(&ENDED_MAX.to_string())), (Some(1.0), None, Some(1.0)));
    }
}
