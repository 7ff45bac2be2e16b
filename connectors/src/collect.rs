//! A sink that collects records in memory, exactly once: for tests.
//!
//! Records are staged under the attempt, the epoch and the subtask that wrote them and become visible when
//! the epoch commits, as the parts of the file sink do; a restart inside the process drops what the dead
//! attempt had staged.
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tidegate_checkpoint::{commit::CommitPermit, ids::Epoch};
use tidegate_core::{
    Error, Result, Timestamp,
    connect::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext},
};

/// Collects what it is given; clones share what they collect.
///
/// ```
/// use tidegate_connectors::Collect;
/// let numbers = Collect::<u64>::new();
/// // ... stream.sink("numbers", numbers.clone()); job.run().await?;
/// assert!(numbers.take().is_empty());
/// ```
#[derive(Debug)]
pub struct Collect<T>(Arc<Mutex<Collected<T>>>);

#[derive(Debug)]
struct Collected<T> {
    visible: Vec<T>,
    staged: BTreeMap<String, Vec<T>>,
    published: u64,
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
impl<T> Default for Collect<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Collected { visible: Vec::new(), staged: BTreeMap::new(), published: 0 })))
    }
}

impl<T> Collect<T> {
    /// Nothing collected yet.
    pub fn new() -> Self {
        Self::default()
    }
    fn lock(&self) -> MutexGuard<'_, Collected<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Takes what has been committed so far.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.lock().visible)
    }
    /// How many records have been committed and not taken.
    pub fn len(&self) -> usize {
        self.lock().visible.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Send + 'static> Sink<T> for Collect<T> {
    type Open = OpenCollect<T>;
    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<OpenCollect<T>>> {
        let open = OpenCollect { collect: self.clone(), attempt: context.attempt.0 };
        // What is staged and restored was committed by the last attempt, which may not have published it. A
        // collection of another process is gone with it: there is nothing to publish then.
        open.publish(restored, false).ok();
        self.lock().staged.clear();
        Box::pin(ready(Ok(open)))
    }
}

/// See [`Collect`].
pub struct OpenCollect<T> {
    collect: Collect<T>,
    attempt: u64,
}

impl<T> OpenCollect<T> {
    fn publish(&self, committables: Vec<Value>, must_be_there: bool) -> Result<()> {
        let mut collected = self.collect.lock();
        for committable in committables {
            let name = committable.as_str().unwrap_or_default();
            match collected.staged.remove(name) {
                Some(records) => {
                    collected.visible.extend(records);
                    collected.published += 1;
                }
                None if must_be_there && collected.published == 0 => {
                    return Err(Error::corrupt(format!("{name} was committed and is not staged")));
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl<T: Send + 'static> OpenSink<T> for OpenCollect<T> {
    type Writer = CollectWriter<T>;
    fn writer(&self, context: WriterContext) -> Result<CollectWriter<T>> {
        let prefix = format!("{}-{}", self.attempt, context.subtask);
        Ok(CollectWriter { collect: self.collect.clone(), prefix, records: Vec::new() })
    }
    fn commit<'a>(&'a self, _: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(self.publish(committables, true)))
    }
}

/// Stages the records of one subtask.
pub struct CollectWriter<T> {
    collect: Collect<T>,
    prefix: String,
    records: Vec<T>,
}

impl<T: Send + 'static> SinkWriter<T> for CollectWriter<T> {
    fn write(&mut self, record: T, _: Timestamp) -> Result<()> {
        self.records.push(record);
        Ok(())
    }
    fn barrier(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        if self.records.is_empty() {
            return Box::pin(ready(Ok(Vec::new())));
        }
        let name = format!("{}-{epoch}", self.prefix);
        self.collect.lock().staged.insert(name.clone(), std::mem::take(&mut self.records));
        Box::pin(ready(Ok(vec![json!(name)])))
    }
}
