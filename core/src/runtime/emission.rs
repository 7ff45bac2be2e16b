//! Between a split's reader and the chain: stamps each record, counts it, and makes the watermark at the
//! very record where it is due. This is the hot path of every source.
use std::sync::atomic::Ordering::Relaxed;

use tidegate_checkpoint::error::{Error, Result};

use super::{source_task::Ports, split_time::SplitTime};
use crate::{
    api::Stamp,
    connect::{Emit, Undecodable},
    metrics::stats::OperatorStats,
    record::{Control, Output},
    time::{FarFuture, Timestamp},
};

/// What a reader fills.
pub(super) struct Emission<'a, T, O, A> {
    pub out: &'a mut O,
    pub stamp: &'a mut A,
    pub time: &'a mut SplitTime,
    pub ports: &'a mut Ports<T>,
    /// The minimum of the subtask's other splits.
    pub others: Timestamp,
    pub emitted: &'a mut Option<Timestamp>,
    pub idle: &'a mut bool,
    /// The latest timestamp that is believed, and what becomes of later ones.
    pub limit: (Timestamp, FarFuture),
    pub stats: &'a OperatorStats,
    pub records: u64,
    /// Of these, those that have gone to the far-future side stream only.
    pub aside: u64,
    pub fault: Option<Error>,
}

impl<T, O, A> Emit<T> for Emission<'_, T, O, A>
where
    T: Clone + Send + 'static,
    O: Output<T>,
    A: Stamp<T>,
{
    #[inline(always)]
    fn record(&mut self, record: T) {
        self.records += 1;
        self.emit(record);
    }

    /// Counts in a register: a counter in memory makes each record wait for the one before.
    #[inline(always)]
    fn extend(&mut self, records: impl Iterator<Item = T>) {
        let mut count = 0;
        for record in records {
            count += 1;
            self.emit(record);
        }
        self.records += count;
    }

    fn watermark(&mut self, at: Timestamp) {
        if A::TIMED {
            self.time.raise(at);
            self.make_watermark();
        }
    }

    fn bytes(&mut self, bytes: u64) {
        OperatorStats::add(&self.stats.bytes_in, bytes);
    }

    fn undecodable(&mut self, bad: Undecodable) -> Result<()> {
        OperatorStats::add(&self.stats.records_in, 1);
        if let Some(port) = &mut self.ports.dead_letters {
            OperatorStats::add(&self.stats.dead_letters, 1);
            port.record(bad, crate::time::MIN);
            return Ok(());
        }
        if self.ports.skip {
            OperatorStats::add(&self.stats.skipped, 1);
            return Ok(());
        }
        Err(Error::data(format!("{} of {}: {}: {}", bad.place, bad.split, bad.reason, shortened(&bad.raw)))
            .hint("mend the input, or call .skip_undecodable() or .dead_letters() on the source"))
    }
}

impl<T, O, A> Emission<'_, T, O, A>
where
    T: Clone + Send + 'static,
    O: Output<T>,
    A: Stamp<T>,
{
    #[inline(always)]
    fn emit(&mut self, record: T) {
        let at = self.stamp.at(&record);
        if !A::TIMED {
            return self.out.record(record, at);
        }
        let due = if at > self.time.newest() && at > self.limit.0 {
            match self.far_future(at) {
                Believed::No { due } => due,
                Believed::Aside { due } => {
                    self.aside += 1;
                    if let Some(port) = &mut self.ports.far_future {
                        port.record(record, at);
                    }
                    if due {
                        self.make_watermark();
                    }
                    return;
                }
                Believed::Failed => return,
            }
        } else {
            self.time.observe(at)
        };
        self.out.record(record, at);
        if due {
            self.make_watermark();
        }
    }

    #[cold]
    fn make_watermark(&mut self) {
        // A split that was idle may come back behind what has been passed on without it.
        let watermark = self.time.advance().min(self.others);
        let watermark = self.emitted.map_or(watermark, |e| e.max(watermark));
        if *self.idle || self.emitted.is_none_or(|e| e < watermark) {
            (*self.emitted, *self.idle) = (Some(watermark), false);
            self.stats.watermark.store(watermark, Relaxed);
            self.out.control(Control::Watermark(watermark));
            if let Some(port) = &mut self.ports.far_future {
                port.control(Control::Watermark(watermark));
            }
            if let Some(port) = &mut self.ports.dead_letters {
                port.control(Control::Watermark(watermark));
            }
        }
    }

    /// A timestamp beyond the limit never advances the watermark. (The record is not handed in: a call would
    /// keep it in memory, and each one before it.)
    #[cold]
    fn far_future(&mut self, at: Timestamp) -> Believed {
        OperatorStats::add(&self.stats.far_future, 1);
        let due = self.time.count();
        match self.limit.1 {
            FarFuture::Count => Believed::No { due },
            FarFuture::SideStream => Believed::Aside { due },
            FarFuture::Fail => {
                let ahead = at.saturating_sub(self.limit.0);
                let e = Error::data(format!(
                    "a record's timestamp {at} is {ahead} ms beyond the guard against far futures"
                ));
                self.fault
                    .get_or_insert(e.hint("mend the clock that made it, or choose another policy in guard_future"));
                Believed::Failed
            }
        }
    }
}

/// What becomes of a record from the far future; `due`: the watermark has to be made now.
enum Believed {
    /// It goes on.
    No { due: bool },
    /// It goes to the side stream.
    Aside { due: bool },
    /// The attempt fails, and nobody sees it.
    Failed,
}

fn shortened(raw: &str) -> String {
    let mut short: String = raw.chars().take(200).collect();
    if short.len() < raw.len() {
        short.push('…');
    }
    format!("{short:?}")
}
