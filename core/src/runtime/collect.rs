//! Deletes what [`retain`](tidegate_checkpoint::retain) says is garbage. Interrupted at any point, it
//! leaves nothing that is needed and nothing that the next collection does not find.
use std::collections::BTreeSet;

use tidegate_checkpoint::{
    error::Result,
    ids::Attempt,
    kill, paths,
    retain::{Inventory, garbage, kept},
    store::CheckpointStore,
};

/// Collects once.
pub(super) async fn collect(store: &CheckpointStore, attempt: Attempt, retained: usize) -> Result<()> {
    let inventory = Inventory {
        commits: store.commits().await?,
        manifests: store.manifests().await?,
        objects: store.list("state").await?.into_iter().map(|o| o.path).collect(),
        attempts: store.attempts().await?.into_iter().collect(),
    };
    let mut referenced = BTreeSet::new();
    for epoch in kept(&inventory.commits, retained) {
        let manifest = store.read_manifest(&store.read_commit(epoch).await?.manifest).await?;
        referenced.extend(manifest.objects().map(|o| o.path.clone()));
    }
    let job = store.job();
    let doomed =
        garbage(&inventory, retained, &referenced, attempt, |e| paths::commit(job, e), |a| paths::attempt(job, a));
    kill::point("collect.before");
    for (index, path) in doomed.iter().enumerate() {
        store.delete(path).await?;
        if index == 0 {
            kill::point("collect.mid");
        }
    }
    kill::point("collect.after");
    Ok(())
}
