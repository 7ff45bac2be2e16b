//! `foreach_batch`: hands each epoch's records, those of all subtasks, to a function of the user's.
//!
//! Writers stage the records in the checkpoint store; the committables say where they are, and what of them was cut at
//! which barrier. When the epoch has committed, the function gets all of them, in the same order each time: by subtask,
//! then as they were written. It has to be done with them before the epoch is complete, so batches come one at a time
//! and in order. Nothing records that it was: after a crash the batch of the restored checkpoint is handed over
//! again, and it stays in the store as long as its checkpoint is kept.
//!
//! The hard case is the number. A function that writes under the epoch's number is exactly once only if a number means
//! the same records for ever. The number of the *checkpoint* does not: recovery may commit the restored content once
//! more under a later number, to keep a dead attempt from committing it (see [`commit`](tidegate_checkpoint::commit)).
//! So the number is in the committables: it is that of the latest barrier that has cut any of them. What is carried
//! over from an abandoned checkpoint and comes alone has that one's number, under which nothing was ever handed over.
mod batch;
mod writer;

pub use batch::Batch;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{fmt::Display, sync::Arc};

use tidegate_checkpoint::{
    commit::CommitPermit,
    error::{Error, Result},
    ids::Epoch,
    kill,
    manifest::ObjectRef,
};

use crate::connect::{OpenSink, Sink, SinkContext, WriterContext};
use writer::BatchWriter;

type Function<T> = Arc<dyn Fn(Batch<T>, u64) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The sink behind [`Stream::foreach_batch`](crate::Stream::foreach_batch).
pub struct ForeachBatch<T>(Function<T>);

impl<T: 'static> ForeachBatch<T> {
    /// Calls `f` with each epoch's records and its number.
    pub fn new<F, Fut, E>(f: F) -> Self
    where
        F: Fn(Batch<T>, u64) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        Self(Arc::new(move |batch, epoch| {
            let done = f(batch, epoch);
            Box::pin(async move { done.await.map_err(|e| Error::user(e.to_string())) })
        }))
    }
}

/// One subtask's records of one epoch, as they are in a manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Staged {
    /// Of the barrier that has cut them.
    epoch: Epoch,
    records: u64,
    objects: Vec<ObjectRef>,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Sink<T> for ForeachBatch<T> {
    type Open = OpenForeachBatch<T>;

    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<OpenForeachBatch<T>>> {
        Box::pin(async move {
            let open = OpenForeachBatch { function: self.0.clone(), context };
            open.hand_over(restored).await?;
            Ok(open)
        })
    }
}

/// It has handed over what the restored checkpoint has.
pub struct OpenForeachBatch<T> {
    function: Function<T>,
    context: SinkContext,
}

impl<T: DeserializeOwned> OpenForeachBatch<T> {
    async fn hand_over(&self, committables: Vec<Value>) -> Result<()> {
        let staged = committables.into_iter().map(|committable| {
            serde_json::from_value(committable)
                .map_err(|e| Error::corrupt("the checkpoint has no batch for foreach_batch").caused_by(e))
        });
        let staged: Vec<Staged> = staged.collect::<Result<_>>()?;
        let Some(epoch) = staged.iter().map(|s| s.epoch).max() else { return Ok(()) };
        kill::point("finalise.before");
        let records = staged.iter().map(|s| s.records).sum();
        let objects = staged.into_iter().flat_map(|s| s.objects).collect();
        let batch = Batch::new(self.context.store.clone(), objects, records);
        let fault = batch.fault();
        let done = (self.function)(batch, epoch.0).await;
        // A batch that cannot be read is no fault of the function's, whatever it makes of it.
        if let Some(fault) = fault.get() {
            return Err(fault.clone());
        }
        done.map_err(|e| e.at(format!("the function has failed for the batch of epoch {epoch}")))?;
        kill::point("finalise.after");
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> OpenSink<T> for OpenForeachBatch<T> {
    type Writer = BatchWriter;

    fn writer(&self, context: WriterContext) -> Result<BatchWriter> {
        Ok(BatchWriter::new(&self.context, context.subtask))
    }

    fn commit<'a>(&'a self, _: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.hand_over(committables))
    }
}
