//! `process_with_state`: a function with a list of its own in each subtask, of no key. Flink's `CheckpointedFunction`.
//!
//! The list is operator state ([`crate::state::operator`]): it is written whole at each barrier, so it is for little.
//! What it comes back as at another parallelism is the user's choice: dealt out (`Split`), or all of it to everybody
//! (`Union`). A function that wants one total of a split list, say, adds up what it is given.
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    marker::PhantomData,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use tidegate_checkpoint::{
    coordinator::Ack,
    error::{Error, Result},
    ids::OperatorId,
};

use super::{pass, placed};
use crate::{
    api::stream::Stream,
    metrics::stats::OperatorStats,
    plan::{NodeId, NodeKind},
    record::{Barrier, Control, Output},
    runtime::{
        build::{Build, Counter},
        reporter::Reporter,
    },
    state::operator::{OperatorState, Redistribution},
    time::Timestamp,
};

/// See [`Stream::process_with_state`].
pub struct ProcessWithState<S, F, E, U> {
    upstream: S,
    f: F,
    redistribution: Redistribution,
    name: String,
    node: NodeId,
    types: PhantomData<fn() -> (E, U)>,
}

impl<S: Stream, F, E, U> ProcessWithState<S, F, E, U> {
    pub(crate) fn new(upstream: S, label: &str, name: &str, redistribution: Redistribution, f: F) -> Self {
        let node = upstream.graph().add(NodeKind::Stateful, label, Some(name), &[upstream.node()]);
        Self { upstream, f, redistribution, name: name.to_owned(), node, types: PhantomData }
    }
}

impl<S, F, E, U> Stream for ProcessWithState<S, F, E, U>
where
    S: Stream,
    E: Serialize + DeserializeOwned + Send + 'static,
    U: Send + 'static,
    F: FnMut(&mut Vec<E>, S::Item, &mut Vec<U>) + Clone + Send + Sync + 'static,
{
    type Item = U;
    placed!();
    fn attach<O: Output<U>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let id = OperatorId::new(&*self.name)?;
        let mut state = OperatorState::new(build, id.clone(), self.redistribution);
        let opening = async move {
            let lists = state.restore().await?;
            Ok((state, lists.into_iter().flatten().collect()))
        };
        let output = ProcessOutput {
            f: self.f.clone(),
            opening: Some(Box::pin(opening)),
            state: None,
            list: Vec::new(),
            made: Vec::new(),
            fault: None,
            reporter: build.reporter(id),
            records_in: build.counter(self.node, |s| &s.records_in),
            records_out: build.counter(self.node, |s| &s.records_out),
            stats: build.stats(self.node),
            out,
        };
        self.upstream.attach(build, output)
    }
}

struct ProcessOutput<F, E, U, O> {
    f: F,
    opening: Option<BoxFuture<'static, Result<(OperatorState, Vec<E>)>>>,
    state: Option<OperatorState>,
    list: Vec<E>,
    /// What a call has made; empty between two.
    made: Vec<U>,
    fault: Option<Error>,
    reporter: Reporter,
    records_in: Counter,
    records_out: Counter,
    stats: Arc<OperatorStats>,
    out: O,
}

impl<F, E: Serialize, U, O> ProcessOutput<F, E, U, O> {
    fn barrier(&mut self, barrier: Barrier) {
        let Some(state) = &self.state else { return };
        match state.snapshot(barrier.epoch, &self.list) {
            Ok(durable) => {
                let counters = [("records".to_owned(), self.records_in.n)];
                let ack = async move {
                    let states = durable.await?;
                    Ok(Ack { states, counters: counters.into(), ..Ack::default() })
                };
                self.reporter.ack(barrier.epoch, false, Box::pin(ack));
            }
            Err(e) => {
                self.fault.get_or_insert(e.at(format!("operator {}", self.reporter.participant().operator)));
            }
        }
    }
}

impl<T, F, E, U, O> Output<T> for ProcessOutput<F, E, U, O>
where
    E: Serialize + DeserializeOwned + Send + 'static,
    U: Send + 'static,
    F: FnMut(&mut Vec<E>, T, &mut Vec<U>) + Send + 'static,
    O: Output<U>,
{
    #[inline]
    fn record(&mut self, record: T, at: Timestamp) {
        self.records_in.n += 1;
        (self.f)(&mut self.list, record, &mut self.made);
        self.records_out.n += self.made.len() as u64;
        for made in self.made.drain(..) {
            self.out.record(made, at);
        }
    }
    fn control(&mut self, control: Control) {
        if let Control::Barrier(barrier) = control {
            self.barrier(barrier);
        }
        self.out.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(opening) = &mut self.opening {
            let (state, list) = ready!(opening.as_mut().poll(cx))?;
            (self.opening, self.state, self.list) = (None, Some(state), list);
        }
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        self.records_in.publish();
        self.records_out.publish();
        self.stats.state_entries.store(self.list.len() as u64, Relaxed);
        self.out.poll_ready(cx)
    }
    pass!(sweep);
}
