//! Duplicates go: of what has the same key within a time, one record passes.
//!
//! The time is counted from the record that has passed, not from the last one that was dropped: a key that never rests
//! passes once in that time. So do Spark's `dropDuplicatesWithinWatermark` and Flink's deduplication with a time-to-live;
//! but there it is the watermark that ends the time, and a record between the end of the time and the next watermark is
//! dropped or not as it happens. Here the records' own times decide, and the watermark does no more than let go of what
//! nobody can ask for again. Therefore a record at or behind the watermark has to be dropped, whether or not its key has
//! been seen: it is late, and what would say so may be gone.
use std::{marker::PhantomData, time::Duration};
use tidegate_checkpoint::error::Error;

use super::process::{Context, ProcessFunction, TimeToLive, Timer};
use crate::{
    api::{keyed::KeyedStream, process::ProcessStream, stream::Stream},
    plan::StateBound,
    state::hash::Key,
    time::{MAX, Timestamp, millis},
};

impl<S, K, F> KeyedStream<S, F>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    /// Passes the first record of each key, and drops those that come after it within a time.
    ///
    /// A record that passes at `t` begins a stretch that ends at `t + within`. What comes later and is before that end, or
    /// even before `t`, is dropped; the first at the end or behind it passes, and begins the next stretch. Dropped records do not
    /// prolong it. They are counted as skipped.
    ///
    /// * [`TimeToLive::EventTime`]: the records' own times decide. Which records pass depends on the order of each key's
    ///   records alone: not on batches, parallelism or the moment at which a watermark comes. (Where one key's
    ///   records come from several splits their order is that of arrival.) Late ones, at or behind the watermark, are dropped
    ///   and counted as late.
    /// * [`TimeToLive::ProcessingTime`]: the machine's clock decides.
    ///
    /// State is one number a key, for as long as its stretch.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::{Stream, TimeToLive};
    /// /// Payments, of which a client that had no answer may have sent some again.
    /// fn once(payments: impl Stream<Item = (u64, i64)>) -> impl Stream<Item = (u64, i64)> {
    ///     payments.key_by(|p| p.0).dedup("once", TimeToLive::EventTime(Duration::from_secs(3600)))
    /// }
    /// ```
    pub fn dedup(self, name: &str, within: TimeToLive) -> ProcessStream<Self, Dedup<S::Item>, K> {
        let (of, is_event) = match within {
            TimeToLive::EventTime(of) => (of, true),
            TimeToLive::ProcessingTime(of) => (of, false),
        };
        let graph = self.upstream.graph().clone();
        if is_event && !graph.node(self.upstream.node()).event_time {
            graph.mistake(Error::config(format!("dedup {name:?} needs event time, and its records have none")).hint(
                "call .event_time(|record| ..., Watermarks::bounded(...)) on the source, or use processing time",
            ));
        }
        if of < Duration::from_millis(1) {
            let error = Error::config(format!("dedup {name:?} lets every record pass: its time is zero"));
            graph.mistake(error.hint("use at least a millisecond"));
        }
        let dedup = self.process_as("dedup", name, Dedup { within_ms: millis(of), is_event, records: PhantomData });
        graph.bound_state(dedup.node(), StateBound::TimeToLive(of));
        dedup
    }
}

/// See [`KeyedStream::dedup`].
pub struct Dedup<T> {
    within_ms: i64,
    is_event: bool,
    records: PhantomData<fn(T)>,
}

impl<T> Clone for Dedup<T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<K: Key, T: Send + 'static> ProcessFunction<K, T> for Dedup<T> {
    /// Until when the key's records are dropped.
    type State = Option<Timestamp>;
    type Output = T;

    fn process(&mut self, record: T, until: &mut Option<Timestamp>, ctx: &mut Context<'_, K, T>) {
        let at = if self.is_event { ctx.timestamp() } else { ctx.processing_time() };
        let is_late = self.is_event && at <= ctx.watermark();
        if is_late || until.is_some_and(|until| at < until) {
            if is_late {
                ctx.is_late();
            } else {
                ctx.is_skipped();
            }
            if until.is_none() {
                ctx.clear();
            }
            return;
        }
        let end = at.saturating_add(self.within_ms).min(MAX - 1);
        match (until.replace(end), self.is_event) {
            (Some(before), true) => ctx.delete_timer(before),
            (Some(before), false) => ctx.delete_processing_timer(before),
            (None, _) => {}
        }
        if self.is_event {
            ctx.set_timer(end);
        } else {
            ctx.set_processing_timer(end);
        }
        ctx.emit(record);
    }

    fn on_timer(&mut self, timer: Timer, _: &mut Option<Timestamp>, ctx: &mut Context<'_, K, T>) {
        match timer {
            // The end of the input is not the end of time: the job may be started again with more of it.
            Timer::Event(at) if ctx.watermark() == MAX => ctx.set_timer(at),
            _ => ctx.clear(),
        }
    }
}
