//! Event time through the public API: watermarks, windows, lateness, idle and aligned splits, bad clocks.
//!
//! What is expected comes from a plain loop over the events ([`Expected::of`]) or is written out by hand. The
//! semantics are Flink's: the watermark is the newest event time less the bound less a millisecond; a window
//! `[s, e)` fires when the watermark reaches `e - 1`; a record is late when its window has fired.
mod clocks;
mod conserved;
mod lateness;
mod splits;

use crate::{
    kit::assert_same,
    script::{Event, Script},
};
use std::{collections::BTreeMap, time::Duration};
use tidegate::{Collect, Job, JobHandle, Settings, Stream, Tumbling, Watermarks};

pub const MS: Duration = Duration::from_millis(1);

/// A job that counts events by key and window.
pub struct Counting {
    pub job: Job,
    pub script: Script,
    /// Key, start of the window, count.
    pub counts: Collect<(u8, i64, u64)>,
    /// Ids.
    pub late: Collect<u64>,
}

pub fn counting(
    settings: Settings,
    script: &Script,
    watermarks: Watermarks,
    length: Duration,
    lateness: Duration,
) -> Counting {
    let (counts, late) = (Collect::new(), Collect::new());
    let job = Job::new("counting", settings);
    let mut windows = job
        .source("events", script.clone())
        .event_time(|e: &Event| e.at, watermarks)
        .key_by(|e| e.key)
        .window("windows", Tumbling::of(length))
        .allowed_lateness(lateness);
    windows.late().map(|e| e.id).sink("late", late.clone());
    windows.count().map(|w| (w.key, w.window.start, w.value)).sink("counts", counts.clone());
    Counting { job, script: script.clone(), counts, late }
}

/// How many events are late so far, by the metrics.
pub fn late_so_far(handle: &JobHandle) -> u64 {
    handle.metrics().operator("windows").map_or(0, |o| o.late)
}

/// What must come out, by a loop over the events of one split. Times are wide, so that nothing overflows here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    pub counts: Vec<(u8, i64, u64)>,
    pub late: Vec<u64>,
}

impl Expected {
    /// `watermark` says after each event what it is now, if it is made there.
    pub fn of(events: &[Event], length: i64, lateness: i64, mut watermark: impl FnMut(&Event) -> Option<i128>) -> Self {
        let mut expected = Self::default();
        let mut open = BTreeMap::<(i128, u8), u64>::new();
        let (length, lateness, mut now) = (i128::from(length), i128::from(lateness), i128::MIN);
        for event in events {
            let start = i128::from(event.at).div_euclid(length) * length;
            if start + length - 1 + lateness <= now {
                expected.late.push(event.id);
            } else {
                let count = open.entry((start, event.key)).or_default();
                *count += 1;
                if start + length - 1 <= now {
                    expected.counts.push((event.key, start as i64, *count));
                }
            }
            if let Some(made) = watermark(event) {
                expected.fire(&open, length, now, made);
                now = now.max(made);
                open.retain(|(start, _), _| start + length - 1 + lateness > now);
            }
        }
        expected.fire(&open, length, now, i128::MAX);
        expected
    }

    fn fire(&mut self, open: &BTreeMap<(i128, u8), u64>, length: i128, before: i128, now: i128) {
        for ((start, key), count) in open {
            let end = start + length - 1;
            if end > before && end <= now {
                self.counts.push((*key, *start as i64, *count));
            }
        }
    }

    /// With a bound, and a watermark every so many events.
    pub fn bounded(events: &[Event], length: i64, lateness: i64, bound: i64, every: usize) -> Self {
        let (mut newest, mut seen) = (i128::MIN, 0);
        Self::of(events, length, lateness, |event| {
            (newest, seen) = (newest.max(event.at.into()), seen + 1);
            (seen % every == 0).then(|| newest - i128::from(bound) - 1)
        })
    }

    #[track_caller]
    pub fn assert(&self, job: &Counting) {
        assert_same(job.counts.take(), self.counts.clone());
        assert_same(job.late.take(), self.late.clone());
    }
}
