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
        let at = self.stamp.at(&record);
        if A::TIMED {
            let due = if at > self.time.newest() && at > self.limit.0 {
                let Some(due) = self.far_future(&record, at) else { return };
                due
            } else {
                self.time.observe(at)
            };
            self.out.record(record, at);
            if due {
                self.watermark();
            }
        } else {
            self.out.record(record, at);
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
{
    #[cold]
    fn watermark(&mut self) {
        // A split that comes back from being idle may be behind what has been passed on without it.
        let watermark = self.time.advance().min(self.others);
        let watermark = (*self.emitted).map_or(watermark, |e| e.max(watermark));
        if *self.idle || *self.emitted != Some(watermark) {
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

    /// A timestamp beyond the limit never advances the watermark; `None` when the record goes no further.
    #[cold]
    fn far_future(&mut self, record: &T, at: Timestamp) -> Option<bool> {
        OperatorStats::add(&self.stats.far_future, 1);
        match self.limit.1 {
            FarFuture::Count => {}
            FarFuture::SideStream => {
                self.aside += 1;
                if let Some(port) = &mut self.ports.far_future {
                    port.record(record.clone(), at);
                }
                if self.time.count() {
                    self.watermark();
                }
                return None;
            }
            FarFuture::Fail => {
                let ahead = at.saturating_sub(self.limit.0);
                let e = Error::data(format!(
                    "a record's timestamp {at} is {ahead} ms beyond the guard against far futures"
                ));
                self.fault
                    .get_or_insert(e.hint("mend the clock that made it, or choose another policy in guard_future"));
                return None;
            }
        }
        Some(self.time.count())
    }
}

fn shortened(raw: &str) -> String {
    let mut short: String = raw.chars().take(200).collect();
    if short.len() < raw.len() {
        short.push('…');
    }
    format!("{short:?}")
}
