//! The start of an attempt: claim, observe, plan, open. The one place where a job begins or goes on.
//!
//! The order matters. The claim comes first: from then on an older attempt cannot commit. Then the store is
//! observed, so everything it had committed is seen. Then the sinks publish what the restored checkpoint
//! has committed, before any new output. Only then are sources opened and tasks built.
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidegate_checkpoint::{
    commit::{CommitPoint, CommitRecord, StoreCommitPoint, committed_manifest},
    error::{Error, Result},
    ids::{Attempt, Epoch, OperatorId},
    kill,
    manifest::Manifest,
    recover::{self, Observed, Plan, Program, Wanted},
    store::CheckpointStore,
};

use super::{
    build::SourceAssignment,
    source_task::has_ended,
    terminal::{Opened, SourceNode},
};
use crate::{
    connect::{SinkContext, Split},
    env::{now, spawn_blocking, wall_ms},
    plan::{Graph, NodeKind},
    settings::Settings,
};

/// Where an attempt stands when it begins.
pub(super) struct Start {
    pub attempt: Attempt,
    pub lineage: String,
    pub restored: Option<Arc<Manifest>>,
    pub next: Epoch,
}

/// Claims the job and decides where to begin.
pub(super) async fn begin(
    store: &Arc<CheckpointStore>,
    commits: &StoreCommitPoint,
    graph: &Graph,
    settings: &Settings,
    first_of_run: bool,
) -> Result<Start> {
    let nonce = format!("{}-{}-{:?}", std::process::id(), wall_ms(), now());
    let attempt = store.claim(&nonce).await?;
    let sweeper = store.clone();
    spawn_blocking(move || sweeper.sweep_unfinished())
        .await
        .map_err(|e| Error::internal("the sweep of the checkpoint store has panicked").caused_by(e))??;
    let manifests = store.manifests().await?;
    let observed = Observed {
        commits: store.commits().await?,
        latest: commits.latest().await?,
        manifests: manifests.iter().map(|(e, a, _)| (*e, *a)).collect(),
    };
    // A restart inside the process goes on from its own last checkpoint, not from the one first asked for.
    let from = Some(Epoch(settings.checkpoint.from)).filter(|e| e.0 > 0 && first_of_run);
    let plan = recover::plan(&observed, &Wanted { from, allow_fresh: settings.checkpoint.allow_fresh_start })?;
    kill::point("recover.observed");
    match plan {
        Plan::Fresh { next } => {
            let lineage = format!("{:08x}", crc32fast::hash(nonce.as_bytes()));
            Ok(Start { attempt, lineage, restored: None, next })
        }
        Plan::Resume { epoch, next } => {
            let record = match observed.latest {
                Some(record) if record.epoch == epoch => record,
                _ => store.read_commit(epoch).await?,
            };
            let manifest = restored(store, &record, graph, settings).await?;
            Ok(Start { attempt, lineage: manifest.lineage.clone(), restored: Some(Arc::new(manifest)), next })
        }
    }
}

async fn restored(
    store: &Arc<CheckpointStore>,
    record: &CommitRecord,
    graph: &Graph,
    settings: &Settings,
) -> Result<Manifest> {
    let manifest = committed_manifest(store, record).await?;
    let program = Program {
        job: store.job(),
        key_groups: settings.key_groups,
        sources: &graph.names(NodeKind::Source),
        keyed: &graph.names(NodeKind::Keyed),
        sinks: &graph.names(NodeKind::Sink),
    };
    recover::check(&manifest, &program)?;
    Ok(manifest)
}

/// Opens every sink through its recovery.
pub(super) async fn open_sinks(
    graph: &Graph,
    store: &CheckpointStore,
    start: &Start,
) -> Result<BTreeMap<OperatorId, Arc<dyn Opened>>> {
    kill::point("recover.sinks");
    let mut opened = BTreeMap::new();
    for terminal in graph.terminals() {
        let Some(sink) = terminal.sink().cloned() else { continue };
        let committed = start.restored.as_ref().and_then(|m| m.sinks.get(&sink)).cloned().unwrap_or_default();
        let restored = start.restored.as_ref().map(|m| m.epoch);
        let context = SinkContext { job: store.job().clone(), sink: sink.clone(), attempt: start.attempt, restored };
        if let Some(open) = terminal.recover(context, committed).await? {
            opened.insert(sink, open);
        }
    }
    Ok(opened)
}

/// Spreads every source's splits over the subtasks: those there are, and those of the checkpoint.
pub(super) async fn assign(
    sources: &[SourceNode],
    start: &Start,
    parallelism: u32,
) -> Result<BTreeMap<OperatorId, SourceAssignment>> {
    let mut assigned = BTreeMap::new();
    for source in sources {
        let listed = source.discover().await?;
        let mut ids = BTreeSet::new();
        if let Some(twice) = listed.iter().find(|s| !ids.insert(&s.id)) {
            return Err(Error::config(format!("source {} lists split {:?} twice", source.name, twice.id)));
        }
        let mut saved = start.restored.as_ref().and_then(|m| m.sources.get(&source.name)).cloned().unwrap_or_default();
        let mut splits: Vec<(Split, Option<Value>)> = Vec::new();
        for split in listed {
            let position = saved.remove(&split.id);
            splits.push((split, position));
        }
        let mut finished = BTreeMap::new();
        for (id, position) in saved {
            if has_ended(&position) {
                finished.insert(id, position);
            } else {
                // No longer listed: its `open` says what that means.
                splits.push((Split::new(id), Some(position)));
            }
        }
        splits.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        let mut assignment =
            SourceAssignment { finished, discovers: source.interval().is_some(), ..Default::default() };
        assignment.splits.resize_with(parallelism as usize, Vec::new);
        for (index, split) in splits.into_iter().enumerate() {
            assignment.splits[index % parallelism as usize].push(split);
        }
        assigned.insert(source.name.clone(), assignment);
    }
    Ok(assigned)
}
