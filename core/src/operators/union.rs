//! `union`: two streams into one. Its inputs run in tasks of their own, so it is the head of a task that
//! aligns barriers and takes the minimum of watermarks as an exchange does; each subtask merges its own.
use crate::{
    api::stream::Stream,
    plan::{Graph, NodeId, NodeKind},
    record::Output,
    runtime::{
        build::Build,
        channel::{self, Forward},
        gate,
    },
};
use tidegate_checkpoint::error::{Error, Result};

/// See [`Stream::union`].
#[derive(Debug)]
pub struct Union<A, B> {
    a: A,
    b: B,
    node: NodeId,
}

impl<A: Stream, B: Stream> Union<A, B> {
    pub(crate) fn new(a: A, b: B) -> Self {
        // The other graph's numbers mean nothing in this one.
        let inputs = if a.graph().is(b.graph()) { vec![a.node(), b.node()] } else { vec![a.node()] };
        if inputs.len() == 1 {
            let mixed =
                || Error::config("a union of streams of two different jobs").hint("take both from the same job");
            a.graph().mistake(mixed());
            b.graph().mistake(mixed());
        }
        let node = a.graph().add(NodeKind::Union, "union", None, &inputs);
        Self { a, b, node }
    }
}

impl<A: Stream, B: Stream<Item = A::Item>> Stream for Union<A, B> {
    type Item = A::Item;
    fn graph(&self) -> &Graph {
        self.a.graph()
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn attach<O: Output<A::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let (a_lane, a_inlet) = channel::bounded();
        let (b_lane, b_inlet) = channel::bounded();
        gate::task(build, self.node, vec![a_inlet, b_inlet], out);
        self.a.attach(build, Forward::new(a_lane))?;
        self.b.attach(build, Forward::new(b_lane))
    }
}
