//! Running aggregation: one update an event, one entry a key for ever.
//!
//! What comes out is a row for each record; or, in an [`OutputMode`], what has changed or all there is, when an epoch
//! ends. Which keys have changed is kept as state: in a namespace of its own, which goes before the state is frozen. So it
//! is in no checkpoint, is within the bound of the tables like all else, and is told key group by key group.
//!
//! The hard case is where a row belongs. It is emitted before the barrier and so is of the epoch whose records it sums up;
//! an epoch whose checkpoint is abandoned passes its rows on to the next one, behind which they are still true. At the end
//! of the input what has changed is told before the watermark ends all time, and not when that epoch ends: behind the
//! last watermark it would be late for whatever goes by event time.
use std::collections::VecDeque;
use tidegate_checkpoint::error::{Error, Result};

use super::{
    aggregate::Aggregate,
    keyed::{KeyedOperator, KeyedSpec, KeyedStreamOp, Visit},
};
use crate::{
    api::stream::Stream,
    plan::NodeId,
    record::{Keyed, Output},
    runtime::build::Build,
    state::{
        hash::{Key, hash_key},
        keyed::KeyedState,
    },
    time::{MAX, MIN, Timestamp},
};

/// A running aggregation as a stream, of which may be said when it emits what.
pub type AggregateStream<I, A, K> = KeyedStreamOp<I, Running<A>, K>;

/// What an aggregation emits at each trigger, as Spark names it. A trigger is the end of an epoch: see the settings
/// `trigger` and `checkpoint.interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputMode {
    /// Only what will never change again. A running aggregation has no such rows, and is refused in this mode; windows emit
    /// theirs by themselves, once they are complete.
    Append,
    /// The rows that have changed since the last trigger, each once, as they are now.
    Update,
    /// All rows, as they are now.
    Complete,
}

impl<I, A, K> AggregateStream<I, A, K>
where
    Self: Stream,
{
    /// Emits rows when an epoch ends, instead of one for each record.
    ///
    /// A row has the newest event time that the subtask has seen of its records, or the first moment behind the watermark
    /// where that has passed it. Rows of one trigger come in no order.
    ///
    /// ```
    /// use tidegate_core::{Count, OutputMode, Stream};
    /// fn totals(words: impl Stream<Item = String>) -> impl Stream<Item = (String, u64)> {
    ///     words.key_by(String::clone).aggregate("totals", Count).output_mode(OutputMode::Update)
    /// }
    /// ```
    #[must_use]
    pub fn output_mode(mut self, mode: OutputMode) -> Self {
        if mode == OutputMode::Append {
            let error = Error::config(format!("the aggregation {:?} can never append a row", self.name()));
            self.graph().mistake(error.hint(
                "any of its rows may change as long as records come: use OutputMode::Update or Complete, or a window",
            ));
        }
        self.spec.mode = Some(mode);
        self
    }
}

/// See [`KeyedStream::aggregate`](crate::api::keyed::KeyedStream::aggregate).
#[derive(Clone, Copy, Debug)]
pub struct Running<A> {
    aggregate: A,
    /// `None`: a row for each record.
    mode: Option<OutputMode>,
}

impl<A> Running<A> {
    pub(crate) fn new(aggregate: A) -> Self {
        Self { aggregate, mode: None }
    }
}

/// The namespace of the results.
const RESULTS: i64 = 0;
/// That of the keys whose results have changed in this epoch; their values mean nothing.
const CHANGED: i64 = 1;
/// Keys whose results are read at once.
const AT_ONCE: usize = 256;

impl<K: Key, T: Send + 'static, A: Aggregate<T>> KeyedSpec<K, T> for Running<A> {
    type Operator = RunningOperator<K, A>;
    fn operator(&self, _: &mut Build<'_>, _: NodeId) -> RunningOperator<K, A> {
        RunningOperator {
            aggregate: self.aggregate.clone(),
            mode: self.mode,
            line: VecDeque::new(),
            has_changed: false,
            newest: MIN,
            watermark: MIN,
        }
    }
}

/// The operator in one subtask.
pub struct RunningOperator<K, A> {
    aggregate: A,
    mode: Option<OutputMode>,
    /// Changed keys whose results are to be told.
    line: VecDeque<(u64, K)>,
    has_changed: bool,
    newest: Timestamp,
    /// Never the last one.
    watermark: Timestamp,
}

impl<K, A> RunningOperator<K, A> {
    /// The time of rows that are emitted now.
    fn time(&self) -> Timestamp {
        if self.watermark == MIN { self.newest } else { self.newest.max(self.watermark + 1) }
    }

    fn tell_changed(&mut self) -> Vec<Visit> {
        if self.mode == Some(OutputMode::Update) && std::mem::take(&mut self.has_changed) {
            vec![Visit::Fire(CHANGED, vec![CHANGED]), Visit::Discard(CHANGED)]
        } else {
            Vec::new()
        }
    }
}

impl<K: Key, T: Send + 'static, A: Aggregate<T>> KeyedOperator<K, T> for RunningOperator<K, A> {
    type Value = A::State;
    type Out = (K, A::Output);

    fn needs(&self, _: &Keyed<K, T>, need: &mut dyn FnMut(i64)) {
        need(RESULTS);
    }

    #[inline(always)]
    fn process<O: Output<Self::Out>>(
        &mut self,
        state: &mut KeyedState<K, A::State>,
        records: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) -> Result<()> {
        let aggregate = &self.aggregate;
        if self.mode.is_none() {
            return state.update_while(
                RESULTS,
                &mut records.drain(..),
                |_| true,
                || aggregate.init(),
                |value, next| {
                    aggregate.add(value, next.record);
                    let result = aggregate.finish(value);
                    out.record((next.key, result), next.at);
                },
            );
        }
        if self.mode == Some(OutputMode::Update) {
            for next in records.iter() {
                state.update(CHANGED, next.hash, &next.key, || aggregate.init(), |_| ())?;
            }
            self.has_changed = true;
        }
        let newest = &mut self.newest;
        state.update_while(
            RESULTS,
            &mut records.drain(..),
            |_| true,
            || aggregate.init(),
            |value, next| {
                *newest = next.at.max(*newest);
                aggregate.add(value, next.record);
            },
        )
    }

    fn advance(&mut self, _: &mut KeyedState<K, A::State>, watermark: Timestamp) -> Vec<Visit> {
        if watermark == MAX {
            return self.tell_changed();
        }
        self.watermark = watermark.max(self.watermark);
        Vec::new()
    }

    fn epoch_ends(&mut self, _: &mut KeyedState<K, A::State>) -> Vec<Visit> {
        match self.mode {
            Some(OutputMode::Complete) => vec![Visit::Fire(RESULTS, vec![RESULTS])],
            _ => self.tell_changed(),
        }
    }

    fn fire<O: Output<Self::Out>>(
        &mut self,
        _: &KeyedState<K, A::State>,
        name: i64,
        (key, value): (&K, &A::State),
        out: &mut O,
    ) {
        if name == RESULTS {
            out.record((key.clone(), self.aggregate.finish(value)), self.time());
        } else {
            self.line.push_back((hash_key(key), key.clone()));
        }
    }

    fn wants(&self, want: &mut dyn FnMut(i64, u64, &K)) {
        self.line.iter().take(AT_ONCE).for_each(|(hash, key)| want(RESULTS, *hash, key));
    }

    fn due<O: Output<Self::Out>>(&mut self, state: &mut KeyedState<K, A::State>, out: &mut O) -> Result<bool> {
        let at = self.time();
        for (hash, key) in self.line.drain(..self.line.len().min(AT_ONCE)) {
            let value = state.get(RESULTS, hash, &key);
            let value = value.ok_or_else(|| Error::internal("what has changed is not there"))?;
            out.record((key, self.aggregate.finish(value)), at);
        }
        Ok(!self.line.is_empty())
    }
}
