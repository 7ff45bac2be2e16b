//! The checkpoint store, and the file sinks' directory, as one process sees it: every call may fail, stall, be
//! slow or lose its reply, and is in the trace.
use async_trait::async_trait;
use object_store::{Error, ObjectStore, Result, memory::InMemory};
use std::sync::Arc;
use tidegate::extend::checkpoint::{ids::JobId, paths, store::CheckpointStore};
use tidegate_core::testkit::store::{Faults, FaultyStore, Op, Reply, injected};

use crate::chaos::{Chaos, Client, Verdict};

pub const JOB: &str = "simulated";

#[derive(Debug)]
pub struct Seeded {
    chaos: Chaos,
    client: Client,
}

/// The store of one process.
pub fn store(objects: &Arc<InMemory>, chaos: &Chaos, client: Client) -> Arc<dyn ObjectStore> {
    Arc::new(FaultyStore::with(objects.clone(), Seeded { chaos: chaos.clone(), client }))
}

pub fn checkpoints(objects: Arc<dyn ObjectStore>) -> CheckpointStore {
    CheckpointStore::new(objects, "", JobId::new(JOB).unwrap())
}

/// What a call means to the protocol: the names of the phases in which a process can be killed.
fn kind(op: Op, path: &str) -> &'static str {
    let folder = ["/attempts", "/manifests", "/commits", "/state", ".staging"].into_iter().find(|f| path.contains(f));
    match (op, folder) {
        (Op::Put, Some("/attempts")) => "claim",
        (Op::Put, Some("/manifests")) => "manifest",
        (Op::Put, Some("/commits")) => "commit",
        (Op::Put, Some("/state")) => "snapshot",
        (Op::Get, Some("/state")) => "restore",
        (Op::Delete, Some("/attempts" | "/manifests" | "/commits" | "/state")) => "collection",
        (Op::Put, _) => "staging",
        (Op::Copy | Op::CopyIfAbsent, _) => "publishing",
        (Op::Delete, _) => "sweep",
        (Op::List, _) => "listing",
        (Op::Get, _) => "reading",
    }
}

#[async_trait]
impl Faults for Seeded {
    async fn before(&self, op: Op, path: &str) -> Result<Reply> {
        match self.chaos.before(self.client, kind(op, path)).await {
            Verdict::Done => Ok(Reply::Comes),
            Verdict::ReplyLost => {
                self.chaos.note(format_args!("client {}: {op:?} {path}: the reply will be lost", self.client));
                Ok(Reply::IsLost)
            }
            Verdict::Refused => {
                self.chaos.note(format_args!("client {}: {op:?} {path}: refused", self.client));
                Err(injected("injected: refused"))
            }
        }
    }

    async fn after(&self, op: Op, path: &str, outcome: std::result::Result<(), &Error>) {
        let outcome = match outcome {
            Ok(()) => "done",
            Err(Error::NotFound { .. }) => "not found",
            Err(Error::AlreadyExists { .. }) => "exists already",
            Err(e) => {
                self.chaos.must(false, || format!("the store itself fails: {e}"));
                "failed"
            }
        };
        self.chaos.note(format_args!("client {}: {op:?} {path}: {outcome}", self.client));
        if let (Op::Put, "done", Some(epoch)) = (op, outcome, paths::parse_commit(path)) {
            self.chaos.committed(epoch.0, self.client);
        }
        if let (Op::Put, "done", Some(attempt)) = (op, outcome, paths::parse_attempt(path)) {
            self.chaos.claimed(attempt.0, self.client);
        }
        if let (Op::Copy | Op::CopyIfAbsent, "done", Some(part)) = (op, outcome, path.rsplit_once("/part-")) {
            let epoch: u64 = part.1[..8].parse().unwrap();
            let newest = self.chaos.newest_committed();
            self.chaos.must(epoch <= newest, || format!("{path} is published, the newest commit is that of {newest}"));
        }
        self.chaos.after(self.client, kind(op, path)).await;
    }
}
