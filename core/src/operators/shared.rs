//! `boxed`: a stream whose type is forgotten, and which may have several consumers.
//!
//! The upstream's chain ends in a port (`side`), which hands each batch to the chains of the consumers: all in
//! one task, no channel, one dynamic call a batch and consumer. The consumers' chains and the upstream's
//! are instantiated in no particular order, so they meet in a port of the subtask's build.
use crate::{
    api::stream::Stream,
    plan::{Graph, NodeId, NodeKind},
    record::Output,
    runtime::{build::Build, terminal::ShareTerminal},
};
use std::{marker::PhantomData, sync::Arc};
use tidegate_checkpoint::error::Result;

/// A stream with a nameable type. Each clone is another consumer of the same records.
///
/// ```
/// use tidegate_core::{BoxedStream, Stream};
/// struct Parts { even: BoxedStream<u64>, odd: BoxedStream<u64> }
/// fn split(numbers: impl Stream<Item = u64>) -> Parts {
///     let numbers = numbers.boxed();
///     Parts { even: numbers.clone().filter(|n| n % 2 == 0).boxed(), odd: numbers.filter(|n| n % 2 == 1).boxed() }
/// }
/// ```
#[derive(Debug)]
pub struct BoxedStream<T> {
    graph: Graph,
    node: NodeId,
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for BoxedStream<T> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), node: self.node, records: PhantomData }
    }
}

impl<T: Clone + Send + 'static> BoxedStream<T> {
    pub(crate) fn new(upstream: impl Stream<Item = T>) -> Self {
        let graph = upstream.graph().clone();
        let node = graph.add(NodeKind::Shared, "boxed", None, &[upstream.node()]);
        graph.terminal(Arc::new(ShareTerminal::new(upstream, node)));
        Self { graph, node, records: PhantomData }
    }

    /// One of the streams that `of` splits its records into.
    pub(crate) fn branch(graph: &Graph, of: NodeId, what: &str) -> Self {
        let node = graph.add(NodeKind::Shared, what, None, &[of]);
        Self { graph: graph.clone(), node, records: PhantomData }
    }

    /// A side stream of `of`: what the operator there puts into the port of the new node.
    pub(crate) fn side(graph: &Graph, of: NodeId, what: &str) -> Self {
        let node = graph.add(NodeKind::Side, what, None, &[of]);
        Self { graph: graph.clone(), node, records: PhantomData }
    }
}

impl<T: Clone + Send + 'static> Stream for BoxedStream<T> {
    type Item = T;
    fn graph(&self) -> &Graph {
        &self.graph
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn attach<O: Output<T>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        build.port(self.node).connect(Box::new(out));
        Ok(())
    }
}
