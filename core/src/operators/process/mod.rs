//! Keyed process functions: a user's own operator, with state and timers for each key.
//!
//! A function is given one record at a time with the state of its key, and again when a timer of that key is due. Its
//! state is one value, and what Flink calls several named states are that value's fields:
//!
//! | Flink | here |
//! |---|---|
//! | `ValueState<T>` | a field `Option<T>`, or any type with a default |
//! | `ListState<T>` | `Vec<T>`, `VecDeque<T>` |
//! | `MapState<K, V>` | `BTreeMap<K, V>`, `HashMap<K, V>` |
//! | `ReducingState`, `AggregatingState` | the accumulator: [`Aggregate::State`](crate::Aggregate) |
//!
//! It is read and written as a whole once a snapshot. What grows without end under one key is better kept under several:
//! make what tells them apart a part of the key.
//!
//! How timers are found is in `timers`, and the way of a record and of a timer in `operator`.
mod operator;
mod sides;
mod timers;

use std::time::Duration;

use tidegate_checkpoint::error::Error;

pub use operator::{ProcessOperator, ProcessSpec};
pub use sides::OutputTag;
pub(crate) use sides::{SideSpecs, Sides};
use timers::Deadlines;

use crate::{
    state::{hash::Key, table::Value},
    time::{Timestamp, millis},
};

/// A user's own keyed operator. It is cloned for each subtask; what it keeps in its own fields is lost with an attempt,
/// and is nobody's key's.
///
/// As Flink's `KeyedProcessFunction`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidegate_core::{Context, ProcessFunction, Timer};
///
/// /// Tells when a machine has said nothing for a minute.
/// #[derive(Clone)]
/// struct Silence;
/// #[derive(Default, Serialize, Deserialize)]
/// struct Heard { last_ms: Option<i64>, records: u64 }
///
/// impl ProcessFunction<String, f64> for Silence {
///     type State = Heard;
///     type Output = String;
///     fn process(&mut self, _: f64, state: &mut Heard, ctx: &mut Context<'_, String, String>) {
///         if let Some(last) = state.last_ms.replace(ctx.timestamp()) {
///             ctx.delete_timer(last + 60_000);
///         }
///         state.records += 1;
///         ctx.set_timer(ctx.timestamp() + 60_000);
///     }
///     fn on_timer(&mut self, _: Timer, state: &mut Heard, ctx: &mut Context<'_, String, String>) {
///         ctx.emit(format!("{} is silent after {} records", ctx.key(), state.records));
///         ctx.clear();
///     }
/// }
/// ```
pub trait ProcessFunction<K: Key, T>: Clone + Send + Sync + 'static {
    /// What is kept for each key; made by default for a key's first record.
    type State: Value + Default;
    /// What comes out.
    type Output: Send + 'static;

    /// Takes a record of the context's key.
    fn process(&mut self, record: T, state: &mut Self::State, ctx: &mut Context<'_, K, Self::Output>);

    /// A timer of the context's key is due. Timers of one key are due in their order; between keys there is none.
    fn on_timer(&mut self, timer: Timer, state: &mut Self::State, ctx: &mut Context<'_, K, Self::Output>) {
        let _ = (timer, state, ctx);
    }

    /// An epoch ends, and a call for the context's key has asked for this in it ([`Context::at_epoch_end`]). What is
    /// emitted belongs to the epoch that ends, and the state is saved behind it. The context's timestamp is the first moment behind
    /// the watermark.
    fn epoch_ends(&mut self, state: &mut Self::State, ctx: &mut Context<'_, K, Self::Output>) {
        let _ = (state, ctx);
    }
}

/// A timer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Of event time: the watermark has reached this. At the end of the input it has reached everything; timers that are
    /// set then are kept, and do not fire.
    Event(Timestamp),
    /// Of processing time: the machine's clock has. At the end of the input it may not have yet: such timers are kept.
    Processing(Timestamp),
}

/// How long state is kept that nobody uses: a key's state goes when no record of it has come for so long. Its timers
/// stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// Since the newest event time of its records, as the watermark tells: the same in every run.
    EventTime(Duration),
    /// Since the last of its records by the machine's clock.
    ProcessingTime(Duration),
}

impl TimeToLive {
    fn millis(self) -> i64 {
        let (Self::EventTime(of) | Self::ProcessingTime(of)) = self;
        millis(of)
    }
}

/// What a process function may do besides changing its state.
pub struct Context<'a, K, U> {
    key: &'a K,
    at: Timestamp,
    watermark: Timestamp,
    now: Timestamp,
    event: &'a mut Deadlines,
    processing: &'a mut Option<Box<Deadlines>>,
    out: &'a mut Vec<(U, Timestamp)>,
    sides: &'a mut Sides,
    late: &'a mut u64,
    skipped: &'a mut u64,
    asks: &'a mut bool,
    fault: &'a mut Option<Error>,
    cleared: bool,
}

impl<K: std::fmt::Debug, U> std::fmt::Debug for Context<'_, K, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("key", self.key).field("timestamp", &self.at).finish_non_exhaustive()
    }
}

impl<K, U> Context<'_, K, U> {
    /// The key whose state this is.
    pub fn key(&self) -> &K {
        self.key
    }
    /// The event time of the record, or of the timer; of a timer of processing time, the watermark.
    pub fn timestamp(&self) -> Timestamp {
        self.at
    }
    /// No record at or before this time is still to come, but for late ones.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }
    /// The machine's clock when the batch of the record came, in milliseconds since 1970-01-01 UTC. Not the same in
    /// another run.
    pub fn processing_time(&self) -> Timestamp {
        self.now
    }

    /// Emits a record with the context's timestamp.
    #[inline]
    pub fn emit(&mut self, record: U) {
        self.emit_at(record, self.at);
    }
    /// Emits a record with an event time of its own. One at or before the watermark is late downstream.
    #[inline]
    pub fn emit_at(&mut self, record: U, at: Timestamp) {
        self.out.push((record, at));
    }
    /// Emits a record into a side output: nothing becomes of it unless that is taken
    /// ([`side_output`](crate::operators::keyed::KeyedStreamOp::side_output)).
    pub fn side<S: Clone + Send + 'static>(&mut self, tag: &OutputTag<S>, record: S) {
        let at = self.at;
        self.sides.record(tag, record, at);
    }

    /// Sets a timer of event time: `on_timer` is called once the watermark reaches it. To set it twice is to set it once.
    /// One in the past is due with the next watermark.
    #[inline]
    pub fn set_timer(&mut self, at: Timestamp) {
        self.event.set(at);
    }
    /// Takes a timer of event time back, if it is set.
    #[inline]
    pub fn delete_timer(&mut self, at: Timestamp) {
        self.event.delete(at);
    }
    /// Sets a timer of processing time: `on_timer` is called once the machine's clock reaches it. As `set_timer`
    /// otherwise.
    pub fn set_processing_timer(&mut self, at: Timestamp) {
        self.processing.get_or_insert_default().set(at);
    }
    /// Takes a timer of processing time back, if it is set.
    pub fn delete_processing_timer(&mut self, at: Timestamp) {
        if let Some(processing) = self.processing {
            processing.delete(at);
        }
    }

    /// Asks for [`ProcessFunction::epoch_ends`] to be called for this key when the epoch ends, once however often it is asked
    /// for. At the end of the input it is called before the watermark ends all time. To ask from within it is to no
    /// effect.
    #[inline]
    pub fn at_epoch_end(&mut self) {
        *self.asks = true;
    }

    /// Gives the key's state up: nothing of it is kept. Its timers stay.
    pub fn clear(&mut self) {
        self.cleared = true;
    }

    /// Fails the attempt with an error of the user's; it starts again from the last checkpoint.
    pub fn fail(&mut self, error: impl std::fmt::Display) {
        self.fault.get_or_insert_with(|| Error::user(error.to_string()));
    }

    /// Counts a record as late.
    pub(crate) fn is_late(&mut self) {
        *self.late += 1;
    }

    /// Counts a record as skipped.
    pub(crate) fn is_skipped(&mut self) {
        *self.skipped += 1;
    }
}
