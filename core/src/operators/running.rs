//! Running aggregation: one update an event, one entry a key for ever.
use super::{
    aggregate::Aggregate,
    keyed::{KeyedOperator, KeyedSpec},
};
use crate::{
    plan::NodeId,
    record::{Keyed, Output},
    runtime::build::Build,
    state::{hash::Key, keyed::KeyedState, table::Place},
    time::Timestamp,
};
use tidegate_checkpoint::error::Result;

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
        place: Place,
        out: &mut O,
    ) -> Result<()> {
        let aggregate = &self.aggregate;
        let result = state.update(
            0,
            place,
            hash,
            &key,
            || aggregate.init(),
            |value| {
                aggregate.add(value, record);
                aggregate.finish(value)
            },
        )?;
        out.record((self.emit)(key, result), at);
        Ok(())
    }

    fn namespace(&self, _: Timestamp) -> i64 {
        0
    }
}
