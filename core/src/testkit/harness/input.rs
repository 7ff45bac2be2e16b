//! A source whose records and watermarks a test pushes.
//!
//! Records and watermarks are one sequence, so what is late is the script's choice alone. A split is a list that is kept
//! whole, and its position is an index into it: an attempt that begins again reads it again. In a harness that was
//! restored the list begins at the snapshot's position, as what was before is never asked for.
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::sync::Notify;

use tidegate_checkpoint::error::{Error, Result};

use crate::{
    Job, Stream,
    api::{SourceStream, Timed},
    connect::{Emit, Progress, Source, Split, SplitReader},
    operators::pass,
    plan::{Graph, NodeId},
    record::Output,
    runtime::build::Build,
    time::{MIN, Timestamp, WatermarkGenerator, Watermarks},
};

#[derive(Clone)]
enum Step<T> {
    Record(T, Timestamp),
    Watermark(Timestamp),
    End,
}

struct Steps<T> {
    /// What was before has been processed in a harness that this one goes on from.
    base: u64,
    steps: Vec<Step<T>>,
    /// How far the reader of this attempt is.
    read: u64,
    waker: Option<Waker>,
}

impl<T> Steps<T> {
    fn push(&mut self, step: Step<T>) -> Option<Waker> {
        self.steps.push(step);
        self.waker.take()
    }
    fn pushed(&self) -> u64 {
        self.base + self.steps.len() as u64
    }
}

/// What has been pushed into one input, by split.
pub(super) struct Queue<T> {
    splits: Mutex<Vec<Steps<T>>>,
    /// Told whenever a reader has got on.
    moved: Arc<Notify>,
}

impl<T> Queue<T> {
    pub(super) fn new(bases: &[u64], moved: &Arc<Notify>) -> Self {
        let empty = |base: &u64| Steps { base: *base, steps: Vec::new(), read: *base, waker: None };
        Self { splits: Mutex::new(bases.iter().map(empty).collect()), moved: moved.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Steps<T>>> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An input without its type.
pub(super) trait AnyInput: Send + Sync {
    /// Pushes a watermark to all splits.
    fn watermark(&self, at: Timestamp);
    /// Ends all splits.
    fn end(&self);
    /// How much has been pushed, by split.
    fn pushed(&self) -> Vec<u64>;
    /// Whether so much has been read of each split.
    fn has_read(&self, pushed: &[u64]) -> bool;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Clone + Send + 'static> AnyInput for Queue<T> {
    fn watermark(&self, at: Timestamp) {
        self.push_all(&Step::Watermark(at));
    }
    fn end(&self) {
        self.push_all(&Step::End);
    }
    fn pushed(&self) -> Vec<u64> {
        self.lock().iter().map(Steps::pushed).collect()
    }
    fn has_read(&self, pushed: &[u64]) -> bool {
        self.lock().iter().zip(pushed).all(|(split, pushed)| split.read >= *pushed)
    }
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<T: Clone> Queue<T> {
    fn push_all(&self, step: &Step<T>) {
        let wakers: Vec<_> = self.lock().iter_mut().filter_map(|split| split.push(step.clone())).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Deals a record to the split that has the fewest.
    fn deal(&self, record: T, at: Timestamp) {
        let waker = self.lock().iter_mut().min_by_key(|s| s.pushed()).and_then(|s| s.push(Step::Record(record, at)));
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// An input of a job under test: where its records and watermarks are pushed.
pub struct TestInput<T>(pub(super) Arc<Queue<T>>);

impl<T> Clone for TestInput<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> std::fmt::Debug for TestInput<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestInput")
    }
}

impl<T: Clone + Send + 'static> TestInput<T> {
    /// Pushes a record with its event time, in ms since 1970.
    pub fn push(&self, record: T, at: Timestamp) {
        self.0.deal(record, at);
    }

    /// Pushes records with their event times.
    pub fn push_all(&self, records: impl IntoIterator<Item = (T, Timestamp)>) {
        records.into_iter().for_each(|(record, at)| self.push(record, at));
    }

    /// Says that no record at or before `at` is still to come in this input. Those that come all the same are late.
    pub fn watermark(&self, at: Timestamp) {
        self.0.watermark(at);
    }

    /// Ends this input: its watermark is the end of time.
    pub fn end(&self) {
        self.0.end();
    }
}

/// The source of an input.
pub(super) struct TestSource<T>(pub(super) Arc<Queue<T>>);

impl<T: Clone + Send + 'static> Source for TestSource<T> {
    type Item = (T, Timestamp);
    type Reader = TestReader<T>;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let count = self.0.lock().len();
        Box::pin(ready(Ok((0..count).map(|split| Split::new(split.to_string())).collect())))
    }

    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<TestReader<T>>> {
        Box::pin(ready(TestReader::open(&self.0, &split.id, position.as_ref())))
    }
}

pub(super) struct TestReader<T> {
    queue: Arc<Queue<T>>,
    split: usize,
    next: u64,
}

impl<T> TestReader<T> {
    fn open(queue: &Arc<Queue<T>>, split: &str, position: Option<&Value>) -> Result<Self> {
        let unknown = || {
            Error::config(format!("the snapshot has a split {split}, and the input has none"))
                .hint("restore it with as many splits as it was made with")
        };
        let split: usize = split.parse().map_err(|_| unknown())?;
        let mut splits = queue.lock();
        let steps = splits.get_mut(split).ok_or_else(unknown)?;
        let next = position.and_then(Value::as_u64).unwrap_or(steps.base);
        (steps.read, steps.waker) = (next, None);
        drop(splits);
        Ok(Self { queue: queue.clone(), split, next })
    }
}

impl<T: Clone + Send + 'static> SplitReader for TestReader<T> {
    type Item = (T, Timestamp);

    fn fill<E: Emit<Self::Item>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        // Copied first: what is behind runs the user's code, which may panic.
        let (some, more) = {
            let splits = self.queue.lock();
            let steps = &splits[self.split];
            let rest = steps.steps.get(self.next.saturating_sub(steps.base) as usize..).unwrap_or_default();
            (rest[..rest.len().min(budget)].to_vec(), rest.len() > budget)
        };
        self.next += some.len() as u64;
        let mut progress = if more { Progress::More } else { Progress::Wait };
        for step in some {
            match step {
                Step::Record(record, at) => out.record((record, at)),
                Step::Watermark(at) => out.watermark(at),
                Step::End => progress = Progress::End,
            }
        }
        self.queue.lock()[self.split].read = self.next;
        self.queue.moved.notify_waiters();
        Ok(progress)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let steps = &mut self.queue.lock()[self.split];
        if self.next < steps.pushed() {
            return Poll::Ready(Ok(()));
        }
        steps.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn position(&self) -> Value {
        json!(self.next)
    }
}

/// No watermark but what is pushed.
struct Told;

impl WatermarkGenerator for Told {
    fn observe(&mut self, _: Timestamp) {}
    fn watermark(&self) -> Timestamp {
        MIN
    }
    fn save(&self) -> Value {
        Value::Null
    }
    fn restore(&mut self, _: &Value) {}
}

/// The records of an input, as a stream for the job under test.
pub struct TestStream<T: Clone + Send + 'static>(SourceStream<TestSource<T>, Timed<fn(&(T, Timestamp)) -> Timestamp>>);

impl<T: Clone + Send + 'static> TestStream<T> {
    pub(super) fn new(job: &Job, name: &str, queue: Arc<Queue<T>>) -> Self {
        let stamp: fn(&(T, Timestamp)) -> Timestamp = |record| record.1;
        Self(job.source(name, TestSource(queue)).event_time(stamp, Watermarks::custom(|| Told)))
    }
}

impl<T: Clone + Send + 'static> std::fmt::Debug for TestStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestStream")
    }
}

impl<T: Clone + Send + 'static> Stream for TestStream<T> {
    type Item = T;
    fn graph(&self) -> &Graph {
        self.0.graph()
    }
    fn node(&self) -> NodeId {
        self.0.node()
    }
    fn attach<O: Output<T>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        self.0.attach(build, Bare { out })
    }
}

/// Takes the time off a record that has it beside it anyway.
struct Bare<O> {
    out: O,
}

impl<T, O: Output<T>> Output<(T, Timestamp)> for Bare<O> {
    #[inline(always)]
    fn record(&mut self, record: (T, Timestamp), at: Timestamp) {
        self.out.record(record.0, at);
    }
    pass!(control);
    pass!(ready);
    pass!(sweep);
}
