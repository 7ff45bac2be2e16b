//! `split`: each record goes to one of several streams.
//!
//! The chain ends in as many ports as there are streams (`side`), all in the one task; every control goes to all of them.
//! As any stream does, each of them must end in a sink: what is not wanted is to be filtered, where it is counted.
use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use serde_json::Value;
use tidegate_checkpoint::{
    error::{Error, Result},
    ids::OperatorId,
};

use super::{shared::BoxedStream, side::SidePort};
use crate::{
    api::stream::Stream,
    connect::SinkContext,
    plan::{NodeId, NodeKind},
    record::{Control, Output},
    runtime::{
        build::{Build, Counter},
        terminal::{Opened, Terminal},
    },
    time::Timestamp,
};

/// See [`Stream::split`].
pub(crate) fn split<S, F, const N: usize>(upstream: S, f: F) -> [BoxedStream<S::Item>; N]
where
    S: Stream,
    S::Item: Clone,
    F: FnMut(&S::Item) -> usize + Clone + Send + Sync + 'static,
{
    let graph = upstream.graph().clone();
    let node = graph.add(NodeKind::Stateless, "split", None, &[upstream.node()]);
    let streams = std::array::from_fn(|n| BoxedStream::branch(&graph, node, &format!("split {n}")));
    let branches = streams.iter().map(BoxedStream::node).collect();
    graph.terminal(Arc::new(SplitTerminal { upstream, f, node, branches }));
    streams
}

struct SplitTerminal<S, F> {
    upstream: S,
    f: F,
    node: NodeId,
    branches: Vec<NodeId>,
}

impl<S, F> Terminal for SplitTerminal<S, F>
where
    S: Stream,
    S::Item: Clone,
    F: FnMut(&S::Item) -> usize + Clone + Send + Sync + 'static,
{
    fn sink(&self) -> Option<&OperatorId> {
        None
    }
    fn recover(&self, _: SinkContext, _: Vec<Value>) -> BoxFuture<'_, Result<Option<Arc<dyn Opened>>>> {
        Box::pin(futures::future::ready(Ok(None)))
    }
    fn instantiate(&self, build: &mut Build<'_>, _: Option<&dyn Opened>) -> Result<()> {
        let taken = build.counter(self.node, |s| &s.records_in);
        let made = build.counter(self.node, |s| &s.records_out);
        let branch = |node: &NodeId| (build.port(*node), build.counter(*node, |s| &s.records_in));
        let branches = self.branches.iter().map(branch).collect();
        let output = SplitOutput { f: self.f.clone(), branches, taken, made, fault: None };
        self.upstream.attach(build, output)
    }
}

struct SplitOutput<T, F> {
    f: F,
    branches: Vec<(SidePort<T>, Counter)>,
    taken: Counter,
    made: Counter,
    fault: Option<Error>,
}

impl<T, F> Output<T> for SplitOutput<T, F>
where
    T: Clone + Send + 'static,
    F: FnMut(&T) -> usize + Send + 'static,
{
    #[inline]
    fn record(&mut self, record: T, at: Timestamp) {
        self.taken.n += 1;
        let n = (self.f)(&record);
        let count = self.branches.len();
        if let Some((branch, counter)) = self.branches.get_mut(n) {
            self.made.n += 1;
            counter.n += 1;
            branch.record(record, at);
        } else {
            let e = || Error::user(format!("split: the function says {n}, and there are {count} streams"));
            self.fault.get_or_insert_with(|| e().hint("the streams are counted from 0"));
        }
    }
    fn control(&mut self, control: Control) {
        for (branch, _) in &mut self.branches {
            branch.control(control);
        }
    }
    /// All are polled, even when one is not ready: two of them may wait for each other behind a later union.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        self.taken.publish();
        self.made.publish();
        let mut ready = Poll::Ready(Ok(()));
        for (branch, counter) in &mut self.branches {
            counter.publish();
            if branch.poll_ready(cx)?.is_pending() {
                ready = Poll::Pending;
            }
        }
        ready
    }
    fn sweep(&mut self) -> bool {
        self.branches.iter_mut().fold(false, |more, (branch, _)| branch.sweep() | more)
    }
}
