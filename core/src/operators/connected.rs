//! Two streams with keys of one type, read by one operator that keeps state for both.
//!
//! Each record goes to the subtask of its key, whichever stream it is of, and so meets there what the other one has
//! brought. The operator is the head of a task behind both exchanges: it aligns their barriers, and takes the lesser of
//! their watermarks.
use crate::{
    api::{keyed::KeyedStream, stream::Stream},
    plan::{Graph, NodeId},
    record::{BatchOutput, Keyed},
    runtime::{build::Build, exchange::Exchange, gate},
    state::hash::Key,
};
use serde::{Deserialize, Serialize};
use tidegate_checkpoint::error::{Error, Result};

use super::keyed::KeyedInput;

/// One or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Either<L, R> {
    /// Of the first stream.
    Left(L),
    /// Of the second.
    Right(R),
}

/// See [`KeyedStream::connect`].
#[derive(Debug)]
pub struct Connected<A, KA, B, KB> {
    left: KeyedStream<A, KA>,
    right: KeyedStream<B, KB>,
}

impl<A: Stream, KA, B: Stream, KB> Connected<A, KA, B, KB> {
    pub(crate) fn new(left: KeyedStream<A, KA>, right: KeyedStream<B, KB>) -> Self {
        let (a, b) = (left.upstream.graph(), right.upstream.graph());
        if !a.is(b) {
            let mixed = || Error::config("two streams of two different jobs").hint("take both from the same job");
            a.mistake(mixed());
            b.mistake(mixed());
        }
        Self { left, right }
    }
}

impl<A, KA, B, KB, K> KeyedInput<K> for Connected<A, KA, B, KB>
where
    A: Stream,
    B: Stream,
    K: Key,
    KA: Fn(&A::Item) -> K + Clone + Send + Sync + 'static,
    KB: Fn(&B::Item) -> K + Clone + Send + Sync + 'static,
{
    type Record = Either<A::Item, B::Item>;
    fn graph(&self) -> &Graph {
        self.left.upstream.graph()
    }
    fn nodes(&self) -> Vec<NodeId> {
        // The other graph's numbers mean nothing in this one.
        let (a, b) = (&self.left.upstream, &self.right.upstream);
        if a.graph().is(b.graph()) { vec![a.node(), b.node()] } else { vec![a.node()] }
    }
    fn attach<P: BatchOutput<Keyed<K, Self::Record>>>(
        &self,
        build: &mut Build<'_>,
        node: NodeId,
        target: P,
    ) -> Result<()> {
        let (to_left, mut inlets) = build.exchange::<K, Self::Record>(node, 0)?;
        let (to_right, from_right) = build.exchange::<K, Self::Record>(node, 1)?;
        inlets.extend(from_right);
        gate::task(build, node, inlets, target);
        let key_groups = build.context().key_groups;
        self.left.upstream.attach(build, Exchange::new(self.left.key.clone(), Either::Left, to_left, key_groups))?;
        self.right.upstream.attach(build, Exchange::new(self.right.key.clone(), Either::Right, to_right, key_groups))
    }
}
