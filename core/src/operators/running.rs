//! Running aggregation: one update an event, one entry a key for ever.
use super::{
    aggregate::Aggregate,
    keyed::{KeyedOperator, KeyedSpec},
};
use crate::{
    plan::NodeId,
    record::{Keyed, Output},
    runtime::build::Build,
    state::{hash::Key, keyed::KeyedState, table::Reach},
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
        Keyed { hash, key, record, at }: Keyed<K, T>,
        reach: Reach,
        out: &mut O,
    ) {
        let aggregate = &self.aggregate;
        let Some(value) = state.entry(0, hash, &key, reach, || aggregate.init()) else { return };
        aggregate.add(value, record);
        let result = aggregate.finish(value);
        out.record((self.emit)(key, result), at);
    }
}
