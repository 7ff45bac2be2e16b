//! Makes a savepoint of a checkpoint that has been committed.
use std::{collections::BTreeMap, sync::Arc};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Epoch, OperatorId, Subtask},
    manifest::{Manifest, StateHandle},
    store::CheckpointStore,
};

use super::{BACKEND, draft::Draft, entries::Source, files::Writer};
use crate::{
    settings::StateSettings,
    state::{
        backend::{Backends, OpenContext},
        operator,
    },
};

/// Writes what `store` has of an epoch to a free place; `goes_on`: the job does meanwhile. Whoever calls it sees to it
/// that nothing of that is deleted.
///
/// # Errors
/// [`Kind::Config`](tidegate_checkpoint::error::Kind): somebody else has made one there meanwhile. What the stores and
/// the backend return.
pub(crate) async fn write(
    store: &Arc<CheckpointStore>,
    epoch: Epoch,
    backends: &Backends,
    settings: &Arc<StateSettings>,
    to: &Arc<CheckpointStore>,
    goes_on: bool,
) -> Result<()> {
    let mut draft = Draft::at(to.clone());
    let filled = fill(store, epoch, backends, settings, &mut draft, goes_on).await;
    draft.end(filled).await
}

async fn fill(
    store: &Arc<CheckpointStore>,
    epoch: Epoch,
    backends: &Backends,
    settings: &Arc<StateSettings>,
    draft: &mut Draft,
    goes_on: bool,
) -> Result<Manifest> {
    let mut manifest = store.read_manifest(&store.read_commit(epoch).await?.manifest).await?;
    let mut lists = BTreeMap::new();
    for (operator, handles) in std::mem::take(&mut manifest.states) {
        let at = |e: Error| e.at(format!("state of operator {operator}"));
        if handles.iter().any(|handle| handle.backend == operator::BACKEND) {
            let copies = operator::copy(store, handles, &operator, draft).await.map_err(at)?;
            lists.insert(operator, copies);
            continue;
        }
        files(store, &manifest, (&operator, handles), backends, settings, draft, goes_on).await.map_err(at)?;
    }
    manifest.states = lists;
    // What was to be published has been, or is by the job itself.
    manifest.sinks.clear();
    Ok(manifest)
}

async fn files(
    store: &Arc<CheckpointStore>,
    manifest: &Manifest,
    (operator, mut handles): (&OperatorId, Vec<StateHandle>),
    backends: &Backends,
    settings: &Arc<StateSettings>,
    draft: &mut Draft,
    goes_on: bool,
) -> Result<()> {
    // In the order of key groups: each subtask has a run of them.
    handles.sort_by_key(|handle| handle.key_groups.start);
    let mut writer = Writer::new(draft, operator.clone());
    for (n, handle) in handles.into_iter().enumerate() {
        if handle.backend == BACKEND {
            return Err(Error::unavailable("its state is still in the savepoint that the job was started from")
                .hint("make the savepoint when the job has made a checkpoint of its own"));
        }
        let (backend, key_groups) = (backends.named(&handle.backend)?, handle.key_groups);
        let context = OpenContext {
            store: store.clone(),
            operator: operator.clone(),
            // Nobody's: whatever it makes for itself is beside what the job has.
            subtask: Subtask(READERS + n as u32),
            attempt: manifest.attempt,
            run: backends.run,
            key_groups,
            restored: Some(manifest.epoch),
            restore: vec![handle],
            lineage: manifest.lineage.clone(),
            settings: settings.clone(),
        };
        let opened = if goes_on { backend.open_to_read(context) } else { backend.open(context) };
        let mut source = Source::of(opened.await?, key_groups);
        while let Some(entries) = source.next_entries().await? {
            writer.add(entries).await?;
        }
    }
    writer.end().await
}

/// Subtasks from here on only read.
const READERS: u32 = 1 << 20;
