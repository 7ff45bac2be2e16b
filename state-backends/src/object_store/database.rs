//! Opens a tree of an attempt: a new one, or a clone of what is restored.
//!
//! Of each handle the clone shows what lies in the key groups of both. The hard case is that it only shows less, and
//! holds all: what is written outside of the range, and the files of its parents, are still there. So readers
//! keep to their key groups themselves; and a clone of a clone takes its range from what it is, not from its parents.
use bytes::Bytes;
use slatedb::{
    Db,
    admin::{Admin, CloneSourceSpec},
};
use std::ops::Bound;

use object_store::path::Path;
use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Attempt, JobId, OperatorId},
    manifest::StateHandle,
};
use tidegate_core::{
    env::unique,
    state::backend::{OpenContext, key_group_prefix},
};

use super::{
    Snapshot,
    failed::{failed, not_restored},
    options,
    place::Place,
};

/// The folder of all trees of one lineage of a job.
pub(super) fn lineage_folder(prefix: &Path, job: &JobId, lineage: &str) -> Path {
    prefix.clone().join(job.to_string()).join(lineage)
}

fn path(place: &Place, context: &OpenContext) -> Path {
    let OpenContext { store, operator, attempt, subtask, lineage, .. } = context;
    let operator = lineage_folder(&place.prefix, store.job(), lineage).join(operator_folder(operator));
    operator.join(attempt_folder(*attempt)).join(format!("{:04}-{:016x}", subtask.0, unique()))
}

fn operator_folder(operator: &OperatorId) -> String {
    operator.to_string()
}

fn attempt_folder(attempt: Attempt) -> String {
    format!("{:06}", attempt.0)
}

/// The attempt, and the lineage's folder, of a tree.
pub(super) fn owner(path: &Path) -> Option<(Attempt, Path)> {
    let parts: Vec<_> = path.parts().collect();
    let [lineage @ .., _, attempt, _] = &parts[..] else { return None };
    Some((Attempt(attempt.as_ref().parse().ok()?), lineage.iter().cloned().collect()))
}

/// The tree, and its path.
pub(super) async fn open(place: &Place, context: &OpenContext) -> Result<(Db, String)> {
    let path = path(place, context);
    let sources = context.restore.iter().map(|handle| source(handle, context)).collect::<Result<Vec<_>>>()?;
    let mut sources = sources.into_iter().flatten();
    if let Some(first) = sources.next() {
        let parents = context.restore.iter().map(|handle| Snapshot::of(handle).map(|of| of.path));
        let parents = parents.collect::<Result<Vec<_>>>()?.join(", ");
        let clone = admin(place, &path).create_clone_builder_from_source(first);
        let clone = sources.fold(clone, slatedb::admin::CloneBuilder::with_source);
        clone.build().await.map_err(|e| not_restored(&parents, e))?;
    }
    let (cache, number) = place.cache();
    let builder = Db::builder(path.clone(), place.objects.clone());
    let db = builder.with_settings(options::settings(place)).with_db_cache(cache, number).build().await;
    let path = path.to_string();
    db.map_err(|e| failed("open", &path, e)).map(|db| (db, path))
}

pub(super) fn admin(place: &Place, path: &Path) -> Admin {
    Admin::builder(path.clone(), place.objects.clone()).build()
}

/// What a clone takes of a handle; none where the two have no key group in common.
fn source(handle: &StateHandle, context: &OpenContext) -> Result<Option<CloneSourceSpec>> {
    let snapshot = Snapshot::of(handle)?;
    let (start, end) =
        (handle.key_groups.start.max(context.key_groups.start), handle.key_groups.end.min(context.key_groups.end));
    if start >= end {
        return Ok(None);
    }
    let checkpoint = snapshot.checkpoint.parse().map_err(|e| {
        Error::corrupt(format!("{:?} is no checkpoint of the state in {}", snapshot.checkpoint, snapshot.path))
            .caused_by(e)
    })?;
    let bound = |key_group| Bytes::copy_from_slice(&key_group_prefix(key_group));
    let range = (Bound::Included(bound(start)), Bound::Excluded(bound(end)));
    Ok(Some(CloneSourceSpec::with_checkpoint(snapshot.path.as_str(), checkpoint).with_projection_range(range)))
}
