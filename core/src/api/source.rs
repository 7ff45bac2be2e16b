//! The head of every stream: a source with its event time and its policies.
use std::sync::Arc;

use tidegate_checkpoint::{error::Result, ids::OperatorId};

use super::stream::Stream;
use crate::{
    connect::{Source, Undecodable},
    operators::shared::BoxedStream,
    plan::{Graph, NodeId, NodeKind},
    record::Output,
    runtime::{
        build::Build,
        source_task::{self, Policies},
        terminal::SourceNode,
    },
    time::{MIN, Timestamp, Watermarks},
};

/// How a record gets its event time.
pub trait Stamp<T>: Clone + Send + Sync + 'static {
    /// Whether there is event time at all.
    const TIMED: bool;
    /// The record's event time.
    fn at(&mut self, record: &T) -> Timestamp;
}

/// A source without event time.
#[derive(Clone, Copy, Debug)]
pub struct Untimed;

impl<T> Stamp<T> for Untimed {
    const TIMED: bool = false;
    #[inline]
    fn at(&mut self, _: &T) -> Timestamp {
        MIN
    }
}

/// Event time out of the record.
#[derive(Clone, Copy, Debug)]
pub struct Timed<F>(F);

impl<T, F: FnMut(&T) -> Timestamp + Clone + Send + Sync + 'static> Stamp<T> for Timed<F> {
    const TIMED: bool = true;
    #[inline]
    fn at(&mut self, record: &T) -> Timestamp {
        (self.0)(record)
    }
}

/// What [`Job::source`](super::job::Job::source) returns.
pub struct SourceStream<S: Source, A = Untimed> {
    pub(crate) graph: Graph,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) source: Arc<S>,
    pub(crate) stamp: A,
    pub(crate) watermarks: Option<Watermarks>,
    pub(crate) policies: Policies,
}

impl<S: Source> SourceStream<S> {
    pub(crate) fn new(graph: &Graph, name: &str, source: S) -> Self {
        let node = graph.add(NodeKind::Source, "source", Some(name), &[]);
        let source = Arc::new(source);
        if let Ok(id) = OperatorId::new(name) {
            graph.source(SourceNode::new(id, source.clone()));
        }
        let graph = graph.clone();
        Self { graph, node, name: name.into(), source, stamp: Untimed, watermarks: None, policies: Policies::default() }
    }

    /// Takes each record's event time from the record (milliseconds since 1970-01-01 UTC), and makes a
    /// watermark for each split.
    pub fn event_time<F>(self, at: F, watermarks: Watermarks) -> SourceStream<S, Timed<F>>
    where
        F: FnMut(&S::Item) -> Timestamp + Clone + Send + Sync + 'static,
    {
        self.graph.set_event_time(self.node, true);
        if let Some(far_future) = self.policies.far_future {
            self.graph.set_event_time(far_future, true);
        }
        let Self { graph, node, name, source, policies, .. } = self;
        SourceStream { graph, node, name, source, stamp: Timed(at), watermarks: Some(watermarks), policies }
    }
}

impl<S: Source, A> SourceStream<S, A> {
    /// Skips and counts records that cannot be decoded. Without this (or `dead_letters`) the first one
    /// fails the attempt.
    pub fn skip_undecodable(mut self) -> Self {
        self.policies.skip_undecodable = true;
        self
    }

    /// With the trigger `every`, a batch has no more than so many records of this source: those of all subtasks together,
    /// to each the same share, but at least one. What is left is the next batch's.
    pub fn max_per_batch(mut self, records: u64) -> Self {
        self.policies.max_per_batch = Some(records);
        self
    }

    /// Records that cannot be decoded, as a stream: give it a sink and they are kept exactly once too.
    pub fn dead_letters(&mut self) -> BoxedStream<Undecodable> {
        let side = BoxedStream::side(&self.graph, self.node, "dead letters");
        // The time of what cannot be decoded is not known.
        self.graph.set_event_time(side.node(), false);
        self.policies.dead_letters = Some(side.node());
        side
    }

    /// Records whose timestamp is too far in the future, as a stream (see
    /// [`FarFuture::SideStream`](crate::FarFuture)).
    pub fn far_future(&mut self) -> BoxedStream<S::Item>
    where
        S::Item: Clone,
    {
        let side = BoxedStream::side(&self.graph, self.node, "far future");
        self.policies.far_future = Some(side.node());
        side
    }
}

impl<S: Source, A: Stamp<S::Item>> Stream for SourceStream<S, A>
where
    S::Item: Clone,
{
    type Item = S::Item;
    fn graph(&self) -> &Graph {
        &self.graph
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn attach<O: Output<S::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        source_task::task(self, build, out)
    }
}
