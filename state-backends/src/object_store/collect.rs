//! What no snapshot that is kept needs, and what dead attempts have left.
//!
//! A tree is needed if its attempt is not over, if a snapshot that is kept is one of it, or if one of these refers to
//! it: a clone names in its manifest every tree that has files it shows. Of the trees of older attempts, those that are
//! not needed go altogether. Of the others those snapshots go that are not kept, then those manifests and files
//! that nothing names any more. In the trees of this attempt only snapshots go: what else is old there is deleted
//! by the tree itself.
//!
//! The hard case is what comes about meanwhile. A snapshot in flight, or a newer attempt, refers to no file of an
//! older tree that the trees of this attempt, or the snapshots that are kept, do not refer to now: references are
//! inherited, and get only fewer. And a tree that a zombie writes to after it was deleted is found again: it
//! has files, and nothing that says that it is a tree.
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore as _, ObjectStoreExt as _, path::Path};
use slatedb::VersionedManifest;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{MutexGuard, PoisonError},
};

use tidegate_checkpoint::{
    error::Result,
    ids::{Attempt, Epoch},
    store,
};
use tidegate_core::state::backend::Kept;

use super::{
    NAME, Snapshot,
    database::{admin, owner},
    failed::failed,
    options,
    place::Place,
};

/// What the snapshot of an epoch is called.
pub(super) fn checkpoint_name(epoch: Epoch) -> String {
    epoch.0.to_string()
}

pub(super) async fn collect(place: &Place, kept: &Kept) -> Result<()> {
    let mut snapshots: BTreeMap<Path, BTreeSet<String>> = BTreeMap::new();
    for handle in kept.states.iter().flat_map(|(_, states)| states.values().flatten()).filter(|h| h.backend == NAME) {
        let snapshot = Snapshot::of(handle)?;
        snapshots.entry(snapshot.path.into()).or_default().insert(snapshot.checkpoint);
    }
    // A place in which none of this job's is says nothing of what it has: another job of the same name may own it.
    let lineages: BTreeSet<Path> = snapshots.keys().filter_map(owner).map(|(_, lineage)| lineage).collect();
    let newest = kept.states.iter().map(|(epoch, _)| *epoch).max().unwrap_or(Epoch(0));
    for lineage in lineages.iter().filter(|lineage| lineage.prefix_matches(&place.prefix)) {
        let collection = Collection { place, attempt: kept.attempt, newest, snapshots: &snapshots };
        collection.run(lineage).await?;
    }
    Ok(())
}

struct Collection<'a> {
    place: &'a Place,
    attempt: Attempt,
    /// The last epoch that is kept.
    newest: Epoch,
    /// The snapshots that are kept, by tree.
    snapshots: &'a BTreeMap<Path, BTreeSet<String>>,
}

impl Collection<'_> {
    async fn run(&self, lineage: &Path) -> Result<()> {
        let (mut dead, mut needed, mut files) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for tree in self.trees(lineage).await? {
            let is_dead = owner(&tree).is_some_and(|(attempt, _)| attempt < self.attempt);
            let is_kept = self.snapshots.contains_key(&tree);
            if is_dead {
                dead.push(tree.clone());
            }
            if is_kept || !is_dead {
                needed.insert(tree.clone());
                self.refer(&tree, is_dead, &mut needed, &mut files).await?;
            }
        }
        // A tree comes before its parents, which it has pinned.
        dead.sort_by_key(|tree| std::cmp::Reverse(owner(tree).map(|(attempt, _)| attempt)));
        for tree in dead {
            if needed.contains(&tree) { self.tidy(&tree, &files).await? } else { self.delete(&tree).await? }
        }
        Ok(())
    }

    /// Every tree of the lineage.
    async fn trees(&self, lineage: &Path) -> Result<Vec<Path>> {
        let mut folders = vec![lineage.clone()];
        for _ in ["operators", "attempts", "trees"] {
            let mut below = Vec::new();
            for folder in &folders {
                let found = self.place.objects.list_with_delimiter(Some(folder)).await;
                below.extend(found.map_err(|e| store::failed("list", folder.as_ref(), e))?.common_prefixes);
            }
            folders = below;
        }
        Ok(folders)
    }

    async fn manifest(&self, tree: &Path, id: Option<u64>) -> Result<Option<VersionedManifest>> {
        admin(self.place, tree).read_manifest(id).await.map_err(|e| failed("collect", tree.as_ref(), e))
    }

    fn is_kept(&self, tree: &Path, checkpoint: &slatedb::Checkpoint) -> bool {
        self.snapshots.get(tree).is_some_and(|kept| kept.contains(&checkpoint.id.to_string()))
    }

    /// Lets go the tree's old snapshots, and notes what the others refer to.
    async fn refer(
        &self,
        tree: &Path,
        is_dead: bool,
        needed: &mut BTreeSet<Path>,
        files: &mut BTreeSet<String>,
    ) -> Result<()> {
        self.let_go(tree, is_dead).await?;
        let Some(latest) = self.manifest(tree, None).await? else { return Ok(()) };
        let mut manifests = Vec::new();
        for checkpoint in latest.checkpoints() {
            if !is_dead || self.is_kept(tree, checkpoint) {
                manifests.extend(self.manifest(tree, Some(checkpoint.manifest_id)).await?);
            }
        }
        if !is_dead {
            manifests.push(latest);
        }
        for manifest in manifests {
            needed.extend(manifest.external_dbs().iter().map(|parent| Path::from(parent.path.as_str())));
            files.extend(manifest.all_sst_views().map(|view| file(view.sst.id)));
        }
        Ok(())
    }

    /// Of a tree that is written to, only snapshots that are older than what is kept: others are in flight.
    async fn let_go(&self, tree: &Path, is_dead: bool) -> Result<()> {
        let Some(latest) = self.manifest(tree, None).await? else { return Ok(()) };
        for checkpoint in latest.checkpoints() {
            // Those without a name pin what clones show.
            let Some(epoch) = checkpoint.name.as_ref().and_then(|name| name.parse().ok()).map(Epoch) else { continue };
            if (is_dead || epoch <= self.newest) && !self.is_kept(tree, checkpoint) {
                let deleted = admin(self.place, tree).delete_checkpoint(checkpoint.id).await;
                deleted.map_err(|e| failed("collect", tree.as_ref(), e))?;
            }
        }
        Ok(())
    }

    /// What a tree has pinned in its parents, when it is only a parent itself: whoever needs them has pins of its own.
    async fn unpin(&self, tree: &Path) -> Result<()> {
        let Some(latest) = self.manifest(tree, None).await? else { return Ok(()) };
        for parent in latest.external_dbs() {
            let path = Path::from(parent.path.as_str());
            let Some(manifest) = self.manifest(&path, None).await? else { continue };
            let pins = manifest.checkpoints().iter().filter(|pin| Some(pin.id) == parent.final_checkpoint_id);
            for pin in pins {
                let deleted = admin(self.place, &path).delete_checkpoint(pin.id).await;
                deleted.map_err(|e| failed("collect", path.as_ref(), e))?;
                self.tidied().remove(path.as_ref());
            }
        }
        Ok(())
    }

    fn tidied(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.place.tidied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes files and manifests that nothing needs, of a dead tree of which something is needed.
    async fn tidy(&self, tree: &Path, files: &BTreeSet<String>) -> Result<()> {
        let folder = tree.clone().join("compacted");
        let listed = self.place.objects.list(Some(&folder)).map_ok(|found| found.location);
        let listed: Vec<Path> = listed.try_collect().await.map_err(|e| store::failed("list", folder.as_ref(), e))?;
        let is_needed = |path: &&Path| path.filename().is_some_and(|name| files.contains(name));
        let (needed, garbage): (Vec<&Path>, Vec<&Path>) = listed.iter().partition(is_needed);
        let mut state: BTreeSet<String> = needed.into_iter().map(ToString::to_string).collect();
        state.extend(self.snapshots.get(tree).into_iter().flatten().cloned());
        // To be cloned leaves manifests as well, and that is what each attempt begins with.
        state.insert(self.attempt.to_string());
        if garbage.is_empty() && self.tidied().get(tree.as_ref()) == Some(&state) {
            return Ok(());
        }
        self.let_go(tree, true).await?;
        if !self.snapshots.contains_key(tree) {
            self.unpin(tree).await?;
        }
        let collected = admin(self.place, tree).run_gc_once(options::of_the_dead(self.place)).await;
        collected.map_err(|e| failed("collect", tree.as_ref(), e))?;
        self.delete_all(garbage.into_iter().cloned().collect()).await?;
        self.tidied().insert(tree.to_string(), state);
        Ok(())
    }

    /// Deletes a tree, and what pins the files that it has shown.
    async fn delete(&self, tree: &Path) -> Result<()> {
        if self.manifest(tree, None).await?.is_some() {
            let deleted = admin(self.place, tree).delete_db(true).await;
            deleted.map_err(|e| failed("delete", tree.as_ref(), e))?;
        }
        let left = self.place.objects.list(Some(tree)).map_ok(|found| found.location);
        let left = left.try_collect().await.map_err(|e| store::failed("list", tree.as_ref(), e))?;
        self.tidied().remove(tree.as_ref());
        self.delete_all(left).await
    }

    async fn delete_all(&self, paths: Vec<Path>) -> Result<()> {
        let deletes = futures::stream::iter(paths).map(|path| async move {
            match self.place.objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(store::failed("delete", path.as_ref(), e)),
            }
        });
        deletes.buffer_unordered(16).try_collect().await
    }
}

/// What a file of a tree is called: of all trees, no two are called the same.
fn file(id: slatedb::manifest::SsTableId) -> String {
    format!("{}.sst", id.value())
}
