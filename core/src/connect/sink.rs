//! The contract of a sink.
//!
//! Output becomes visible in two steps. At the barrier of an epoch a writer makes what it has written
//! durable but invisible (*staged*) and returns **committables** that say how to publish it; they go into
//! the epoch's manifest. Only when the epoch is committed does [`OpenSink::commit`] publish them, and a
//! crash in between is healed by [`Sink::recover`], which gets the committables of the restored manifest
//! and publishes them again: so both must be idempotent.
//!
//! The hard case is the dead attempt: what it staged but never committed must not become visible later,
//! and must be swept. That is why a sink can only be opened through `recover`.
//!
//! A sink whose system has transactions brings a commit point instead ([`Sink::commit_point`]): its output
//! becomes visible in the very step that commits, and there is nothing to stage or to publish.
use futures::future::BoxFuture;
use serde_json::Value;
use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tidegate_checkpoint::{
    commit::{CommitPermit, CommitPoint, OpenCommitPoint},
    error::Result,
    figure::Figure,
    ids::{Attempt, Epoch, JobId, OperatorId, Subtask},
    store::CheckpointStore,
};

use crate::time::Timestamp;

/// Where records go. One value serves every attempt.
pub trait Sink<T>: Send + Sync + 'static {
    /// The sink once it has recovered.
    type Open: OpenSink<T>;

    /// Where its output goes, if no other sink of the job may write there too: two sinks with one destination are
    /// refused before the job runs.
    fn destination(&self) -> Option<String> {
        None
    }

    /// Where the job commits, if this sink's output is in the transaction that commits it. All sinks of a job that
    /// have one must name the same place; the job then commits there, and nowhere else.
    fn commit_point(&self) -> Option<Arc<dyn OpenCommitPoint>> {
        None
    }

    /// The only way to open a sink: publishes `restored` (the committables of the checkpoint that the
    /// attempt starts from; perhaps published already), sweeps what dead attempts left, and checks that
    /// the destination can be written.
    ///
    /// # Errors
    /// When the destination cannot be written ([`Kind::Config`](tidegate_checkpoint::error::Kind)), or a
    /// committed part is neither staged nor published.
    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<Self::Open>>;
}

/// Who opens a sink.
#[derive(Clone)]
pub struct SinkContext {
    /// The job.
    pub job: JobId,
    /// The sink's name in the job.
    pub sink: OperatorId,
    /// The attempt that opens it. Staged parts carry it, so that no zombie writes into its successor's.
    pub attempt: Attempt,
    /// The epoch that the attempt starts from, if any: everything staged for later ones by earlier attempts is dead.
    /// It is the newest committed one, unless `checkpoint.from` names another.
    pub restored: Option<Epoch>,
    /// Where the job commits: what the job's [`Sink::commit_point`] has opened, if there is one.
    pub commits: Arc<dyn CommitPoint>,
    /// Where the job's checkpoints are. A sink may stage below its own name there ([`state`](tidegate_checkpoint::paths::state)): an object that a
    /// committable has in its member `objects` stays as long as a kept checkpoint has the committable, and what no
    /// checkpoint has got is swept.
    pub store: Arc<CheckpointStore>,
}

/// Which subtask a writer is for.
#[derive(Clone, Copy, Debug)]
pub struct WriterContext {
    /// The subtask.
    pub subtask: Subtask,
    /// How many there are.
    pub parallelism: u32,
}

/// A sink that has recovered: makes writers, publishes committed epochs.
pub trait OpenSink<T>: Send + Sync + 'static {
    /// Writes one subtask's records.
    type Writer: SinkWriter<T>;

    /// A writer for one subtask.
    ///
    /// # Errors
    /// Fails the attempt.
    fn writer(&self, context: WriterContext) -> Result<Self::Writer>;

    /// Publishes committed output. Idempotent: it is repeated after a crash and after an error.
    ///
    /// # Errors
    /// Fails the attempt; its successor publishes the rest in [`Sink::recover`].
    fn commit<'a>(&'a self, permit: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>>;

    /// What it has to say of all its writers to those who watch the job, beyond what the engine counts. Asked for a
    /// few times a second; it must not wait.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}

/// Writes one subtask's records. Dropping it must neither publish nor wait.
pub trait SinkWriter<T>: Send + 'static {
    /// Takes one record; buffers it.
    ///
    /// # Errors
    /// Fails the attempt, which goes back to the last checkpoint.
    fn write(&mut self, record: T, at: Timestamp) -> Result<()>;

    /// Nothing more will come for the moment: pass on what a reader may already see (standard output).
    ///
    /// # Errors
    /// As `write`.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ready when more records may be written: the bound on what is buffered. Called after every batch.
    ///
    /// # Errors
    /// As `write`.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The barrier of `epoch`: everything written so far belongs to it. The call is the cut and is quick;
    /// the future makes it durable and returns the committables, each exactly once (an epoch whose
    /// checkpoint is abandoned keeps its committables: the coordinator carries them into the next).
    fn barrier(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<Vec<Value>>>;

    /// Bytes written outside so far, for the metrics.
    fn bytes(&self) -> u64 {
        0
    }
}
