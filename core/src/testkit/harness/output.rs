//! Where the records of a job under test are collected.
//!
//! They are collected exactly once, as by any sink: staged at a barrier, visible when its epoch has committed. What was
//! staged in another harness, whose snapshot this one goes on from, is that one's.
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tidegate_checkpoint::{commit::CommitPermit, error::Result, ids::Epoch};

use crate::{
    Stream,
    connect::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext},
    plan::{Graph, NodeId},
    record::{Control, Output},
    runtime::build::Build,
    time::Timestamp,
};

type Records<T> = Vec<(T, Timestamp)>;

struct Shelf<T> {
    visible: Records<T>,
    staged: BTreeMap<String, Records<T>>,
    /// Written and not staged, by writer.
    open: BTreeMap<String, Records<T>>,
}

/// An output of a job under test: what has come out of it so far.
pub struct TestOutput<T>(Arc<Mutex<Shelf<T>>>);

impl<T> Clone for TestOutput<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for TestOutput<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Shelf { visible: Vec::new(), staged: BTreeMap::new(), open: BTreeMap::new() })))
    }
}

impl<T> fmt::Debug for TestOutput<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestOutput({} records)", self.len())
    }
}

impl<T> TestOutput<T> {
    fn lock(&self) -> MutexGuard<'_, Shelf<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has come out since the last time, up to the last `settle`. Records of one subtask are in their order.
    pub fn take(&self) -> Vec<T> {
        self.take_timed().into_iter().map(|(record, _)| record).collect()
    }

    /// As [`take`](Self::take), sorted: the order over keys and subtasks is not the job's to promise.
    pub fn take_sorted(&self) -> Vec<T>
    where
        T: Ord,
    {
        let mut records = self.take();
        records.sort();
        records
    }

    /// As [`take`](Self::take), with each record's event time.
    pub fn take_timed(&self) -> Vec<(T, Timestamp)> {
        std::mem::take(&mut self.lock().visible)
    }

    /// How many records have come out and not been taken.
    pub fn len(&self) -> usize {
        self.lock().visible.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An output without its type.
pub(super) trait AnyOutput: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    /// Everything that has been written and not been taken, also what no checkpoint has committed.
    fn written(&self) -> Vec<(String, Timestamp)>;
}

impl<T: fmt::Debug + Send + 'static> AnyOutput for TestOutput<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn written(&self) -> Vec<(String, Timestamp)> {
        let shelf = self.lock();
        let uncommitted = shelf.staged.values().chain(shelf.open.values()).flatten();
        shelf.visible.iter().chain(uncommitted).map(|(record, at)| (format!("{record:?}"), *at)).collect()
    }
}

impl<T: Send + 'static> Sink<T> for TestOutput<T> {
    type Open = OpenOutput<T>;
    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<OpenOutput<T>>> {
        let open = OpenOutput { output: self.clone(), attempt: context.attempt.0 };
        open.publish(restored);
        let mut shelf = self.lock();
        shelf.staged.clear();
        shelf.open.clear();
        Box::pin(ready(Ok(open)))
    }
}

/// See [`TestOutput`].
pub struct OpenOutput<T> {
    output: TestOutput<T>,
    attempt: u64,
}

impl<T> OpenOutput<T> {
    fn publish(&self, committables: Vec<Value>) {
        let mut shelf = self.output.lock();
        for committable in committables {
            // What is not here has been published already, perhaps in another harness.
            let staged = shelf.staged.remove(committable.as_str().unwrap_or_default());
            shelf.visible.extend(staged.unwrap_or_default());
        }
    }
}

impl<T: Send + 'static> OpenSink<T> for OpenOutput<T> {
    type Writer = OutputWriter<T>;
    fn writer(&self, context: WriterContext) -> Result<OutputWriter<T>> {
        Ok(OutputWriter { output: self.output.clone(), name: format!("{}-{}", self.attempt, context.subtask) })
    }
    fn commit<'a>(&'a self, _: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        self.publish(committables);
        Box::pin(ready(Ok(())))
    }
}

/// Stages the records of one subtask.
pub struct OutputWriter<T> {
    output: TestOutput<T>,
    name: String,
}

impl<T: Send + 'static> SinkWriter<T> for OutputWriter<T> {
    fn write(&mut self, record: T, at: Timestamp) -> Result<()> {
        let mut shelf = self.output.lock();
        match shelf.open.get_mut(&self.name) {
            Some(open) => open.push((record, at)),
            None => drop(shelf.open.insert(self.name.clone(), vec![(record, at)])),
        }
        Ok(())
    }
    fn barrier(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        let mut shelf = self.output.lock();
        let Some(records) = shelf.open.remove(&self.name) else { return Box::pin(ready(Ok(Vec::new()))) };
        let name = format!("{}-{epoch}", self.name);
        shelf.staged.insert(name.clone(), records);
        Box::pin(ready(Ok(vec![json!(name)])))
    }
}

/// A stream whose output is not ready the first time it is asked after anything has come.
///
/// It is how a slow channel or sink behaves at its worst, and every operator has to bear it: with what comes meanwhile,
/// and with being asked again.
pub(super) struct Reluctant<S> {
    pub(super) stream: S,
    pub(super) is_reluctant: bool,
}

impl<S: Stream> Stream for Reluctant<S> {
    type Item = S::Item;
    fn graph(&self) -> &Graph {
        self.stream.graph()
    }
    fn node(&self) -> NodeId {
        self.stream.node()
    }
    fn attach<O: Output<S::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        self.stream.attach(build, Refusing { out, refuses: self.is_reluctant, is_reluctant: self.is_reluctant })
    }
}

struct Refusing<O> {
    out: O,
    /// The next time.
    refuses: bool,
    is_reluctant: bool,
}

impl<T, O: Output<T>> Output<T> for Refusing<O> {
    fn record(&mut self, record: T, at: Timestamp) {
        self.refuses = self.is_reluctant;
        self.out.record(record, at);
    }
    fn control(&mut self, control: Control) {
        self.refuses = self.is_reluctant;
        self.out.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if std::mem::take(&mut self.refuses) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.out.poll_ready(cx)
    }
    fn sweep(&mut self) -> bool {
        self.out.sweep()
    }
}
