//! `process`: one function, any number of records out of each, and side outputs of other types. Flink's `OutputTag`s,
//! with a type each and no tags.
//!
//! What the function is given to write into says what side outputs there are: one [`SideOutput`], or a tuple of them.
//! Every side stream carries the record's event time and all controls, as the main stream does; one that nobody takes is
//! counted, and dropped.
use std::{
    marker::PhantomData,
    task::{Context, Poll},
};

use tidegate_checkpoint::error::Result;

use super::{
    placed,
    shared::BoxedStream,
    side::{SidePort, all_ready},
};
use crate::{
    api::stream::Stream,
    plan::{Graph, NodeId, NodeKind},
    record::{Control, Output},
    runtime::build::{Build, Counter},
    time::{MIN, Timestamp},
};

/// Where a function puts records that go another way than the rest.
pub struct SideOutput<T> {
    port: SidePort<T>,
    at: Timestamp,
    count: Counter,
}

impl<T: Clone + Send + 'static> SideOutput<T> {
    /// Sends a record to the side stream, with the event time of the one that is being processed.
    pub fn emit(&mut self, record: T) {
        self.count.n += 1;
        self.port.record(record, self.at);
    }
}

/// One side output, or a tuple of up to four.
pub trait SideOutputs: Sized + Send + 'static {
    /// Their streams.
    type Streams;
    /// Their nodes in the graph, and the streams.
    #[doc(hidden)]
    fn declare(graph: &Graph, of: NodeId, nodes: &mut Vec<NodeId>) -> Self::Streams;
    /// Those of a subtask.
    #[doc(hidden)]
    fn open(build: &mut Build<'_>, nodes: &mut std::slice::Iter<'_, NodeId>) -> Result<Self>;
    /// The next records have this time.
    #[doc(hidden)]
    fn at(&mut self, at: Timestamp);
    /// See [`Output`].
    #[doc(hidden)]
    fn control(&mut self, control: Control);
    /// See [`Output`].
    #[doc(hidden)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;
    /// See [`Output`].
    #[doc(hidden)]
    fn sweep(&mut self) -> bool;
}

impl<T: Clone + Send + 'static> SideOutputs for SideOutput<T> {
    type Streams = BoxedStream<T>;
    fn declare(graph: &Graph, of: NodeId, nodes: &mut Vec<NodeId>) -> BoxedStream<T> {
        let side = BoxedStream::side(graph, of, "side output");
        nodes.push(side.node());
        side
    }
    fn open(build: &mut Build<'_>, nodes: &mut std::slice::Iter<'_, NodeId>) -> Result<Self> {
        let missing = || tidegate_checkpoint::error::Error::internal("a side output has no node");
        let node = *nodes.next().ok_or_else(missing)?;
        Ok(Self { port: build.port(node), at: MIN, count: build.counter(node, |s| &s.records_out) })
    }
    #[inline(always)]
    fn at(&mut self, at: Timestamp) {
        self.at = at;
    }
    fn control(&mut self, control: Control) {
        self.port.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.count.publish();
        self.port.poll_ready(cx)
    }
    fn sweep(&mut self) -> bool {
        self.port.sweep()
    }
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<$($name: SideOutputs),+> SideOutputs for ($($name,)+) {
            type Streams = ($($name::Streams,)+);
            fn declare(graph: &Graph, of: NodeId, nodes: &mut Vec<NodeId>) -> Self::Streams {
                ($($name::declare(graph, of, nodes),)+)
            }
            fn open(build: &mut Build<'_>, nodes: &mut std::slice::Iter<'_, NodeId>) -> Result<Self> {
                Ok(($($name::open(build, nodes)?,)+))
            }
            #[allow(non_snake_case)]
            #[inline(always)]
            fn at(&mut self, at: Timestamp) {
                let ($($name,)+) = self;
                $($name.at(at);)+
            }
            #[allow(non_snake_case)]
            fn control(&mut self, control: Control) {
                let ($($name,)+) = self;
                $($name.control(control);)+
            }
            #[allow(non_snake_case)]
            fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
                let ($($name,)+) = self;
                all_ready([$($name.poll_ready(cx)),+].into_iter())
            }
            #[allow(non_snake_case)]
            fn sweep(&mut self) -> bool {
                let ($($name,)+) = self;
                [$($name.sweep()),+].contains(&true)
            }
        }
    };
}
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);

/// See [`Stream::process`].
pub struct Processed<S, F, U, W> {
    upstream: S,
    f: F,
    node: NodeId,
    sides: Vec<NodeId>,
    types: PhantomData<fn() -> (U, W)>,
}

impl<S: Stream, F, U, W: SideOutputs> Processed<S, F, U, W> {
    pub(crate) fn new(upstream: S, f: F) -> (Self, W::Streams) {
        let graph = upstream.graph();
        let node = graph.add(NodeKind::Stateless, "process", None, &[upstream.node()]);
        let mut sides = Vec::new();
        let streams = W::declare(graph, node, &mut sides);
        (Self { upstream, f, node, sides, types: PhantomData }, streams)
    }
}

impl<S, F, U, W> Stream for Processed<S, F, U, W>
where
    S: Stream,
    U: Send + 'static,
    W: SideOutputs,
    F: FnMut(S::Item, &mut Vec<U>, &mut W) + Clone + Send + Sync + 'static,
{
    type Item = U;
    placed!();
    fn attach<O: Output<U>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let sides = W::open(build, &mut self.sides.iter())?;
        let taken = build.counter(self.node, |s| &s.records_in);
        let made = build.counter(self.node, |s| &s.records_out);
        let output = ProcessOutput { f: self.f.clone(), buffer: Vec::new(), sides, taken, made, out };
        self.upstream.attach(build, output)
    }
}

struct ProcessOutput<F, U, W, O> {
    f: F,
    /// What a call has made; empty between two.
    buffer: Vec<U>,
    sides: W,
    taken: Counter,
    made: Counter,
    out: O,
}

impl<T, F, U, W, O> Output<T> for ProcessOutput<F, U, W, O>
where
    U: Send + 'static,
    W: SideOutputs,
    F: FnMut(T, &mut Vec<U>, &mut W) + Send + 'static,
    O: Output<U>,
{
    #[inline]
    fn record(&mut self, record: T, at: Timestamp) {
        self.taken.n += 1;
        self.sides.at(at);
        (self.f)(record, &mut self.buffer, &mut self.sides);
        self.made.n += self.buffer.len() as u64;
        for made in self.buffer.drain(..) {
            self.out.record(made, at);
        }
    }
    fn control(&mut self, control: Control) {
        self.out.control(control);
        self.sides.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.taken.publish();
        self.made.publish();
        let (sides, out) = (self.sides.poll_ready(cx)?, self.out.poll_ready(cx)?);
        if sides.is_ready() && out.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
    fn sweep(&mut self) -> bool {
        let sides = self.sides.sweep();
        self.out.sweep() | sides
    }
}
