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

    fn process<O: Output<U>>(
        &mut self,
        state: &mut KeyedState<K, A::State>,
        batch: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) -> Result<()> {
        let table = state.table(0);
        state.touch(table, batch.iter().map(|r| r.hash));
        for Keyed { hash, key, record, at } in batch.drain(..) {
            let value = state.entry(table, hash, key.clone(), || self.aggregate.init())?;
            self.aggregate.add(value, record);
            let result = self.aggregate.finish(value);
            out.record((self.emit)(key, result), at);
        }
        Ok(())
    }
}
