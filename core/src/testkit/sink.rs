//! A sink's context, as the engine makes it for a job that commits in its checkpoint store.
use std::sync::Arc;
use tidegate_checkpoint::{
    commit::StoreCommitPoint,
    ids::{Attempt, Epoch, JobId, OperatorId},
    store::CheckpointStore,
};

use crate::connect::SinkContext;

/// The context of the sink `sink` of the job `job`, in an attempt that goes on from `restored`.
pub fn context(sink: &str, attempt: u64, restored: Option<Epoch>) -> SinkContext {
    let job = JobId::new("job").unwrap();
    let store = Arc::new(CheckpointStore::open("memory:", job.clone()).unwrap());
    let (sink, attempt) = (OperatorId::new(sink).unwrap(), Attempt(attempt));
    SinkContext { job, sink, attempt, restored, commits: Arc::new(StoreCommitPoint::new(store.clone())), store }
}
