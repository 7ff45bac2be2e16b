//! Requests in flight: what `async_map` and `lookup_join` have in common.
//!
//! Records stand in a line until their answers may leave (`line`); the futures that fetch those run inside of
//! `poll_ready`, as many at once as there is capacity, in the operator's own task. So the operator does no I/O of its own,
//! and reads no clock but through the timers of its futures.
//!
//! The hard case is the barrier. It does not wait for answers: it overtakes the line, and what stands there is the
//! operator's state at the cut. After a restore those records come first, each behind the watermark that it came behind,
//! and are asked for again; what had left before the barrier is not among them. Only the last barrier of a job waits for
//! all of them: its output is to be complete.
//!
//! The other hard case is an upstream that waits for room here and so cannot answer the coordinator. It is told that it
//! is held up by nothing else (`Build::held`), and lets a barrier through all the same.
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tidegate_checkpoint::{
    coordinator::Ack,
    error::{Error, Result},
    ids::OperatorId,
};

use super::{
    line::{Entry, Leaving, Line},
    side::SidePort,
};
use crate::{
    env::now,
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{BATCH, Barrier, Control, Output},
    runtime::{
        build::{Build, Counter},
        reporter::Reporter,
    },
    state::operator::{OperatorState, Redistribution},
    time::{MIN, Timestamp},
};

/// A record whose request has failed, for good.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failed<T> {
    /// The record.
    pub record: T,
    /// What the last attempt failed with.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub error: String,
    pub attempts: u32,
}

pub(super) type Answer<R> = Result<R, Failure>;

/// What is asked for, and what is made of it.
pub(super) trait Ask<T>: Send + 'static {
    type Reply: Send + 'static;
    type Out: Send + 'static;

    /// A turn begins.
    fn turn(&mut self) {}
    /// The reply, where it is known without a request.
    fn known(&mut self, record: &T) -> Option<Self::Reply> {
        let _ = record;
        None
    }
    /// The request.
    fn ask(&mut self, record: &T) -> BoxFuture<'static, Answer<Self::Reply>>;
    /// It has been answered.
    fn answered(&mut self, record: &T, answer: &Answer<Self::Reply>) {
        let _ = (record, answer);
    }
    /// What goes on.
    fn emit(&mut self, record: T, reply: Self::Reply) -> Option<Self::Out>;
}

/// What becomes of a record whose request has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// The attempt fails.
    #[default]
    Fail,
    /// It is counted.
    Skip,
    /// It goes to a side stream.
    Aside(NodeId),
}

/// How many, in which order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub is_ordered: bool,
    pub capacity: usize,
}

#[derive(Serialize, Deserialize)]
struct Saved<T> {
    record: T,
    at: Timestamp,
    watermark: Timestamp,
}

type Lists<T> = Vec<Vec<Saved<T>>>;

/// The operator in one subtask.
pub(super) struct Requests<T, A: Ask<T>, O> {
    ask: A,
    bounds: Bounds,
    on_failure: OnFailure,
    failed: Option<SidePort<Failed<T>>>,
    out: O,
    opening: Option<BoxFuture<'static, Result<(OperatorState, Lists<T>)>>>,
    state: Option<OperatorState>,
    line: Line<T, Answer<A::Reply>>,
    running: FuturesUnordered<BoxFuture<'static, (u64, Answer<A::Reply>)>>,
    /// The newest that has come.
    watermark: Timestamp,
    /// Something has come from upstream.
    has_begun: bool,
    /// Upstream has nothing more for the moment.
    is_quiet: bool,
    /// Something has gone on that may still be buffered behind.
    is_buffered: bool,
    /// A barrier has gone on from the line: nobody upstream knows that there is something to sweep behind it.
    sweeps: bool,
    held: Arc<AtomicBool>,
    reporter: Reporter,
    stats: Arc<OperatorStats>,
    records_in: Counter,
    records_out: Counter,
    fault: Option<Error>,
}

impl<T, A, O> Requests<T, A, O>
where
    T: Clone + Serialize + DeserializeOwned + Send + 'static,
    A: Ask<T>,
    O: Output<A::Out>,
{
    pub(super) fn new(
        build: &mut Build<'_>,
        (name, node): (&str, NodeId),
        (ask, bounds, on_failure): (A, Bounds, OnFailure),
        out: O,
    ) -> Result<Self> {
        let id = OperatorId::new(name)?;
        let mut state = OperatorState::new(build, id.clone(), Redistribution::Whole);
        let opening = async move {
            let lists = state.restore().await?;
            Ok((state, lists))
        };
        let failed = match on_failure {
            OnFailure::Aside(node) => Some(build.port(node)),
            OnFailure::Fail | OnFailure::Skip => None,
        };
        Ok(Self {
            ask,
            bounds,
            on_failure,
            failed,
            out,
            opening: Some(Box::pin(opening)),
            state: None,
            line: Line::new(bounds.is_ordered),
            running: FuturesUnordered::new(),
            watermark: MIN,
            has_begun: false,
            is_quiet: false,
            is_buffered: false,
            sweeps: false,
            held: build.held(),
            reporter: build.reporter(id),
            stats: build.stats(node),
            records_in: build.counter(node, |s| &s.records_in),
            records_out: build.counter(node, |s| &s.records_out),
            fault: None,
        })
    }

    /// What was in flight comes first. The first watermark says nothing, or what stood before the first record: so that
    /// those behind know of this edge before its first record.
    fn restored(&mut self, lists: Lists<T>) {
        // Of several lists each has its own time, and together they have that of none.
        let is_one = lists.len() == 1;
        let mut declared = None;
        for Saved { record, at, watermark } in lists.into_iter().flatten() {
            let watermark = if is_one { watermark.max(self.watermark) } else { MIN };
            if declared != Some(watermark) {
                (declared, self.watermark) = (Some(watermark), watermark);
                self.line.control(Control::Watermark(watermark));
            }
            self.line.push(Entry { record, at, watermark }, None);
        }
    }

    fn fail(&mut self, error: Error) {
        let name = &self.reporter.participant().operator;
        self.fault.get_or_insert(error.at(format!("operator {name}")));
    }

    /// The state at the cut is what stands in line, or nothing.
    fn barrier(&mut self, barrier: Barrier, overtakes: bool) {
        let Some(state) = &self.state else { return };
        let began = now();
        let mut list = state.list();
        let filled = self.line.entries().filter(|_| overtakes).try_for_each(|Entry { record, at, watermark }| {
            list.push(&Saved { record, at: *at, watermark: *watermark })
        });
        self.stats.paused(now().duration_since(began));
        if let Err(e) = filled {
            self.fail(e);
        } else {
            let durable = state.store(barrier.epoch, list);
            let counters = [
                ("records".to_owned(), self.records_in.n),
                ("skipped".to_owned(), self.stats.skipped.load(Relaxed)),
                ("dead-letters".to_owned(), self.stats.dead_letters.load(Relaxed)),
            ];
            let ack = async move {
                let states = durable.await?;
                Ok(Ack { states, counters: counters.into(), ..Ack::default() })
            };
            self.reporter.ack(barrier.epoch, false, Box::pin(ack));
        }
        self.pass_on(Control::Barrier(barrier));
    }

    fn pass_on(&mut self, control: Control) {
        self.is_buffered = false;
        self.out.control(control);
        if let Some(failed) = &mut self.failed {
            failed.control(control);
        }
    }

    fn emit(&mut self, record: T, at: Timestamp, reply: A::Reply) {
        if let Some(record) = self.ask.emit(record, reply) {
            self.records_out.n += 1;
            self.out.record(record, at);
            self.is_buffered = true;
        }
    }

    /// Lets go what may leave, up to a batch; whether there was anything.
    fn let_go(&mut self) -> bool {
        let mut left = 0;
        while left < BATCH
            && let Some(leaving) = self.line.leave()
        {
            left += 1;
            match leaving {
                Leaving::Control(Control::Barrier(barrier)) => {
                    self.barrier(barrier, false);
                    self.sweeps = true;
                }
                Leaving::Control(control) => self.pass_on(control),
                Leaving::Answered(record, at, Ok(reply)) => self.emit(record, at, reply),
                Leaving::Answered(record, at, Err(Failure { error, attempts })) => match &mut self.failed {
                    None => OperatorStats::add(&self.stats.skipped, 1),
                    Some(failed) => {
                        OperatorStats::add(&self.stats.dead_letters, 1);
                        failed.record(Failed { record, error, attempts }, at);
                        self.is_buffered = true;
                    }
                },
            }
        }
        left > 0
    }

    fn start(&mut self) {
        while self.running.len() < self.bounds.capacity
            && let Some((number, record)) = self.line.ask()
        {
            let request = self.ask.ask(record);
            self.running.push(Box::pin(async move { (number, request.await) }));
        }
    }

    /// Takes what has been answered; whether there was anything.
    fn take(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some((number, answer))) = self.running.poll_next_unpin(cx) {
            any = true;
            match &answer {
                Err(Failure { error, attempts }) if self.on_failure == OnFailure::Fail => {
                    let times = if *attempts == 1 { String::new() } else { format!(" {attempts} times") };
                    self.fail(Error::user(format!("a request has failed{times}: {error}")).hint(
                        "give it more retries, or say with skip_failed() or failed() what becomes of such records",
                    ));
                    return true;
                }
                _ => {}
            }
            if let Some(record) = self.line.record(number) {
                self.ask.answered(record, &answer);
            }
            self.line.answer(number, answer);
        }
        any
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let failed = self.failed.as_mut().map_or(Poll::Ready(Ok(())), |failed| failed.poll_ready(cx));
        let (failed, out) = (failed?, self.out.poll_ready(cx)?);
        if failed.is_ready() && out.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn publish(&mut self) {
        self.records_in.publish();
        self.records_out.publish();
        self.stats.state_entries.store(self.line.records() as u64, Relaxed);
    }
}

impl<T, A, O> Output<T> for Requests<T, A, O>
where
    T: Clone + Serialize + DeserializeOwned + Send + 'static,
    A: Ask<T>,
    O: Output<A::Out>,
{
    #[inline]
    fn record(&mut self, record: T, at: Timestamp) {
        self.records_in.n += 1;
        (self.has_begun, self.is_quiet) = (true, false);
        let known = self.ask.known(&record);
        match known {
            Some(reply) if self.line.is_empty() => self.emit(record, at, reply),
            known => self.line.push(Entry { record, at, watermark: self.watermark }, known.map(Ok)),
        }
    }

    fn control(&mut self, control: Control) {
        self.has_begun = true;
        let control = match control {
            // Splits that were idle are behind what was restored.
            Control::Watermark(watermark) => {
                self.watermark = watermark.max(self.watermark);
                Control::Watermark(self.watermark)
            }
            Control::Flush => {
                self.is_quiet = true;
                if self.is_buffered || self.line.is_empty() {
                    self.pass_on(control);
                }
                return;
            }
            Control::Barrier(barrier) if self.line.is_empty() || !(barrier.last || self.line.has_barrier()) => {
                return self.barrier(barrier, true);
            }
            other => other,
        };
        if self.line.is_empty() { self.pass_on(control) } else { self.line.control(control) }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(opening) = &mut self.opening {
            let (state, lists) = ready!(opening.as_mut().poll(cx))?;
            (self.opening, self.state) = (None, Some(state));
            self.restored(lists);
        }
        self.ask.turn();
        loop {
            self.start();
            let answered = self.take(cx);
            if let Some(fault) = self.fault.take() {
                return Poll::Ready(Err(fault));
            }
            self.publish();
            ready!(self.poll_out(cx))?;
            if !(self.let_go() || answered) {
                break;
            }
        }
        if self.sweeps {
            self.sweeps = Output::<T>::sweep(self);
            if self.sweeps {
                cx.waker().wake_by_ref();
            }
        }
        let is_full = self.has_begun && self.line.records() >= self.bounds.capacity;
        if self.is_buffered && (is_full || self.is_quiet) {
            // Upstream will not do it.
            self.pass_on(Control::Flush);
            ready!(self.poll_out(cx))?;
        }
        if is_full {
            self.held.store(true, Relaxed);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn sweep(&mut self) -> bool {
        let failed = self.failed.as_mut().is_some_and(Output::sweep);
        self.out.sweep() | failed
    }
}

#[cfg(test)]
mod tests;
