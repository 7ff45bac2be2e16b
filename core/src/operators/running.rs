//! Running aggregation: one update an event, one entry a key for ever.
use tidegate_checkpoint::error::Result;

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

/// The one namespace of an aggregation that has no windows.
const NAMESPACE: i64 = 0;

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

    fn needs(&self, _: &Keyed<K, T>, need: &mut dyn FnMut(i64)) {
        need(NAMESPACE);
    }

    #[inline(always)]
    fn process<O: Output<U>>(
        &mut self,
        state: &mut KeyedState<K, A::State>,
        records: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) -> Result<()> {
        let aggregate = &self.aggregate;
        state.update_while(
            NAMESPACE,
            &mut records.drain(..),
            |_| true,
            || aggregate.init(),
            |value, next| {
                aggregate.add(value, next.record);
                let result = aggregate.finish(value);
                out.record((self.emit)(next.key, result), next.at);
            },
        )
    }
}
