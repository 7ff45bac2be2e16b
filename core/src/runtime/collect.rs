//! Deletes what [`retain`](tidegate_checkpoint::retain) says is garbage. Interrupted at any point, it
//! leaves nothing that is needed and nothing that the next collection does not find.
//!
//! An attempt that has been overtaken collects nothing: its successor may be about to read a checkpoint that
//! this one no longer keeps. One that comes later finds the newest commit, which is kept.
use std::{collections::BTreeSet, sync::Arc};

use tidegate_checkpoint::{
    error::Result,
    ids::Attempt,
    kill, paths,
    retain::{Inventory, garbage, kept},
    store::CheckpointStore,
};

use crate::state::backend::{Backends, Kept};

/// Collects once.
pub(super) async fn collect(
    store: &Arc<CheckpointStore>,
    attempt: Attempt,
    retained: usize,
    backends: &Backends,
    is_read: impl Fn() -> bool,
) -> Result<()> {
    let attempts: BTreeSet<_> = store.attempts().await?.into_iter().collect();
    if attempts.last() > Some(&attempt) {
        return Ok(());
    }
    let inventory = Inventory {
        commits: store.commits().await?,
        manifests: store.manifests().await?,
        objects: store.list("state").await?.into_iter().map(|o| o.path).collect(),
        attempts,
    };
    let (mut referenced, mut states) = (BTreeSet::new(), Vec::new());
    for epoch in kept(&inventory.commits, retained) {
        let manifest = store.read_manifest(&store.read_commit(epoch).await?.manifest).await?;
        referenced.extend(manifest.objects().map(|o| o.path.clone()));
        referenced.extend(manifest.staged().map(|o| o.path));
        states.push((epoch, manifest.states));
    }
    let job = store.job();
    let doomed =
        garbage(&inventory, retained, &referenced, attempt, |e| paths::commit(job, e), |a| paths::attempt(job, a));
    kill::point("collect.before");
    for (index, path) in doomed.iter().enumerate() {
        // Whoever reads a checkpoint has said so before it was made. What is listed here without it was so too.
        if is_read() {
            return Ok(());
        }
        store.delete(path).await?;
        if index == 0 {
            kill::point("collect.mid");
        }
    }
    kill::point("collect.after");
    let mut told = BTreeSet::new();
    for backend in backends.chosen.values().filter(|backend| told.insert(backend.name())) {
        backend.collect(Kept { store: store.clone(), attempt, states: states.clone() }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_checkpoint::{
        commit::{CommitPermit, CommitPoint, CommitRecord, StoreCommitPoint},
        ids::{Epoch, JobId},
        manifest::Manifest,
    };

    /// The newer one may be about to go on from a checkpoint that the older one would no longer keep.
    #[tokio::test]
    async fn an_attempt_that_has_been_overtaken_deletes_nothing() {
        let store = Arc::new(CheckpointStore::open("memory:", JobId::new("j").unwrap()).unwrap());
        let attempt = store.claim("older").await.unwrap();
        let commits = StoreCommitPoint::new(store.clone());
        for epoch in [1, 2].map(Epoch) {
            let manifest = Manifest { epoch, attempt, ..Manifest::empty(store.job(), "l", 128, 1) };
            let path = store.put_manifest(&manifest).await.unwrap();
            let record =
                CommitRecord { epoch, manifest: path, lineage: "l".into(), attempt, transactional_ids: Vec::new() };
            commits.commit(&CommitPermit::forged(record)).await.unwrap();
        }
        store.claim("newer").await.unwrap();
        collect(&store, attempt, 1, &Backends::default(), || false).await.unwrap();
        assert_eq!(store.commits().await.unwrap(), [1, 2].map(Epoch).into());
        assert_eq!(store.manifests().await.unwrap().len(), 2);
    }
}
