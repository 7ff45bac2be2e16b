//! Running aggregation: one update an event, one entry a key for ever.
use super::{
    aggregate::Aggregate,
    keyed::{KeyedOperator, KeyedSpec},
};
use crate::{
    plan::NodeId,
    record::{Keyed, Output},
    runtime::build::Build,
    state::{hash::Key, keyed::KeyedState},
};

/// See [`KeyedStream::aggregate`](crate::api::keyed::KeyedStream::aggregate).
#[derive(Clone, Copy, Debug)]
pub struct Running<A, M> {
    pub(crate) aggregate: A,
    /// Makes an output of the key and the result.
    pub(crate) emit: M,
}

impl<K, T, A, M, U> KeyedSpec<K, T> for Running<A, M>
where
    K: Key,
    T: Send + 'static,
    A: Aggregate<T>,
    U: Send + 'static,
    M: Fn(K, A::Output) -> U + Clone + Send + Sync + 'static,
{
    type Operator = Self;
    fn operator(&self, _: &mut Build<'_>, _: NodeId) -> Self {
        self.clone()
    }
}

impl<K, T, A, M, U> KeyedOperator<K, T> for Running<A, M>
where
    K: Key,
    T: Send + 'static,
    A: Aggregate<T>,
    U: Send + 'static,
    M: Fn(K, A::Output) -> U + Clone + Send + Sync + 'static,
{
    type Value = A::State;
    type Out = U;

    #[inline(always)]
    fn process<O: Output<U>>(
        &mut self,
        state: &mut KeyedState<K, A::State>,
        records: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) {
        let aggregate = &self.aggregate;
        let mut records = records.drain(..);
        while !records.as_slice().is_empty() {
            let mut entries = state.cursor(0);
            while let Some(next) = records.as_slice().first() {
                // A record is taken off when its entry is there.
                let Some(value) = entries.entry(next.hash, &next.key, || aggregate.init()) else {
                    if !state.open(0, next.hash) {
                        return;
                    }
                    break;
                };
                let Some(Keyed { key, record, at, .. }) = records.next() else { break };
                aggregate.add(value, record);
                let result = aggregate.finish(value);
                out.record((self.emit)(key, result), at);
            }
        }
    }
}
