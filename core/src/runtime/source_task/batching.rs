//! What a source task may read now, by the job's trigger.
//!
//! Continuous: whatever there is. In batches: from the driver's word on, what there was then, then nothing until the
//! next; a batch also ends at its maximum of records. Bounded: one batch, which is the whole run; the barriers in
//! it cut where they fall.
//!
//! The hard case is idleness. Between two batches nothing is read, which says nothing of a split: so it is looked
//! at only where its part of a batch has been read, and is idle if that was nothing and the time-out is over. Else
//! time would go on with the first split of a batch that is read, and the records of the others would be late.
use std::time::Duration;

use tidegate_checkpoint::ids::Subtask;

use super::SourceTask;
use crate::{
    api::Stamp,
    connect::{Progress, Source, SplitReader},
    env::{Instant, now},
    record::Output,
    settings::JobTrigger,
    time::MAX,
};

pub(super) struct Batching {
    mode: Mode,
    /// A batch is being read.
    open: bool,
    /// Records that this subtask may add to a batch, and how many of them are left.
    max: Option<u64>,
    left: u64,
    /// When a split that does not know what there is has had its time.
    until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Continuous,
    Batches(Duration),
    Bounded,
}

impl Batching {
    pub(super) fn new(trigger: JobTrigger, max: Option<u64>, parallelism: u32, subtask: Subtask) -> Self {
        let mode = match trigger {
            JobTrigger::Continuous => Mode::Continuous,
            JobTrigger::Every(pause) => Mode::Batches(pause),
            JobTrigger::AvailableNow | JobTrigger::Once => Mode::Bounded,
        };
        let (all, me) = (u64::from(parallelism), u64::from(subtask.0));
        let max = max.filter(|_| matches!(mode, Mode::Batches(_)));
        let max = max.map(|max| (max / all + u64::from(me < max % all)).max(1));
        Self { mode, open: mode == Mode::Continuous, max, left: 0, until: None }
    }

    /// Whether the job ends behind what is there at its start.
    pub(super) fn is_bounded(&self) -> bool {
        self.mode == Mode::Bounded
    }

    pub(super) fn begin(&mut self, at: Instant) {
        self.open = true;
        self.left = self.max.unwrap_or(u64::MAX);
        if let Mode::Batches(pause) = self.mode {
            self.until = at.checked_add(pause);
        }
    }

    /// A barrier: the batch ends with it, whether it has been read or not.
    pub(super) fn end(&mut self) {
        self.open &= !matches!(self.mode, Mode::Batches(_));
    }

    /// Whether anything may be read.
    pub(super) fn reads(&self) -> bool {
        self.open && (self.mode == Mode::Continuous || self.left > 0)
    }

    pub(super) fn budget(&self, budget: usize) -> usize {
        match self.mode {
            Mode::Batches(_) => budget.min(usize::try_from(self.left).unwrap_or(usize::MAX)),
            _ => budget,
        }
    }

    pub(super) fn took(&mut self, records: u64) {
        if let Mode::Batches(_) = self.mode {
            self.left = self.left.saturating_sub(records);
        }
    }

    /// Whether a split's part of the batch has been read, after a fill.
    pub(super) fn is_done(&self, progress: Progress, bounded: bool, is_at_bound: impl Fn() -> bool) -> bool {
        match (self.mode, progress) {
            (Mode::Continuous, _) | (_, Progress::Held | Progress::End) => false,
            (_, Progress::Wait) if bounded => is_at_bound(),
            (Mode::Batches(_), Progress::Wait) => true,
            (Mode::Batches(_), Progress::More) => !bounded && self.until.is_some_and(|until| now() >= until),
            (Mode::Bounded, _) => false,
        }
    }

    /// Whether the batch has been read, which is said once.
    pub(super) fn is_read(&mut self, all_done: bool) -> bool {
        let read = matches!(self.mode, Mode::Batches(_)) && self.open && (all_done || self.left == 0);
        self.open &= !read;
        read
    }

    /// Whether a split that has nothing now may be found idle.
    pub(super) fn finds_idle(&self, done: bool) -> bool {
        self.mode == Mode::Continuous || done
    }
}

impl<S, A, O> SourceTask<S, A, O>
where
    S: Source,
    S::Item: Clone,
    A: Stamp<S::Item>,
    O: Output<S::Item>,
{
    /// Those that are not read on for the moment hold nobody up.
    pub(super) fn publish_alignment(&self) {
        if let Some(alignment) = &self.alignment {
            let reads = self.batching.reads();
            let read = self.splits.iter().filter(|s| reads && !s.idle && !s.ended && !s.done);
            let slowest = read.map(|s| s.time.watermark()).min().unwrap_or(MAX);
            alignment.publish(self.reporter.participant().subtask.0, slowest);
        }
    }

    pub(super) fn announce_end(&mut self) {
        let all_there_was = self.batching.is_bounded() && self.all_done();
        if !self.exhausted && (all_there_was || (self.all_ended() && !self.discovers)) {
            self.exhausted = true;
            self.reporter.exhausted();
        }
    }

    /// One that is exhausted has said more.
    pub(super) fn announce_read(&mut self) {
        if self.batching.is_read(self.all_done()) && !self.exhausted {
            self.reporter.read();
        }
    }

    fn all_done(&self) -> bool {
        self.splits.iter().all(|s| s.ended || s.done)
    }

    pub(super) fn begin_batch(&mut self) {
        self.batching.begin(now());
        for split in self.splits.iter_mut().filter(|s| !s.ended) {
            (split.bounded, split.done, split.waiting) = (split.reader.bound(), false, false);
        }
        self.publish_alignment();
    }

    /// Looks for splits that have become idle. Those that wait have just been asked.
    pub(super) fn find_idle(&mut self) {
        if let Some(idle_after) = self.watermarks.as_ref().and_then(|w| w.idle_after)
            && self.batching.finds_idle(false)
        {
            let at = now();
            for split in self.splits.iter_mut().filter(|s| s.waiting && !self.stopped) {
                split.find_idle(idle_after, at);
            }
            self.advance();
        }
    }
}
