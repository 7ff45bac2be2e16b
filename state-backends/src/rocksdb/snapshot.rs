//! A snapshot in the checkpoint store: those files of a cut that are not there yet, and a handle that names them all.
//!
//! ```text
//! object   <attempt>-<epoch>-<subtask>.<file>-<piece>        as 000002-000000000007-0001.000012.sst-0
//! handle   { version, files: { "000012.sst": [{ object, bytes, crc32 }, ...], "MANIFEST-000004": [...] } }
//! ```
//! RocksDB never changes a file of data, nor gives its number to another, not over a restore either: the numbers go on
//! from those in its manifest. So a file of the last completed snapshot is what it was, and is referred to by the
//! object that has it, of whatever epoch and attempt. The manifest, which says what all the others are, is stored each
//! time.
//!
//! The hard case is a snapshot that fails half-way. Which of its objects are there is not known, so none counts: what
//! is referred to are objects of the last one that was completed, and the next stores under names of its own.
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Epoch,
    manifest::{ObjectRef, StateHandle},
    paths,
};
use tidegate_core::state::backend::OpenContext;

use super::{
    Local, NAME, blocking, disk,
    pieces::{self, Files},
    queue::Cut,
};

const VERSION: u32 = 1;

/// What a handle says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    version: u32,
    files: Files,
}

/// Makes a cut durable.
pub(super) async fn store(
    context: &OpenContext,
    local: &Arc<Local>,
    stored: &Mutex<Files>,
    epoch: Epoch,
    cut: Cut,
) -> Result<StateHandle> {
    let path = cut.0.clone();
    let found = blocking(move || list(&path).map_err(|e| disk(&format!("list {}", path.display()), e))).await?;
    let mut files = Files::new();
    let new = {
        let stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |(name, _): &(String, u64)| match stored.get(name).filter(|_| is_data(name)) {
            Some(pieces) => {
                files.insert(name.clone(), pieces.clone());
                false
            }
            None => true,
        };
        found.into_iter().filter(is_new).collect()
    };
    let OpenContext { store, operator, attempt, subtask, key_groups, .. } = context;
    let object =
        |file: &str, piece| paths::state(store.job(), operator, *attempt, epoch, *subtask, &format!("{file}-{piece}"));
    files.extend(pieces::store(store, &local.budget, &cut.0, new, object).await?);
    let kept = local.clone();
    blocking(move || {
        cut.keep(&kept);
        kept.place.settle();
        Ok(())
    })
    .await?;
    let all = files.values().flatten();
    let objects = all.map(|p| ObjectRef { path: p.object.clone(), bytes: p.bytes }).collect();
    let data = serde_json::to_value(Data { version: VERSION, files: files.clone() })
        .map_err(|e| Error::internal("a handle of RocksDB does not serialise").caused_by(e))?;
    *stored.lock().unwrap_or_else(PoisonError::into_inner) = files;
    Ok(StateHandle { subtask: *subtask, key_groups: *key_groups, backend: NAME.into(), data, objects })
}

/// The files that a handle names.
pub(super) fn files(handle: &StateHandle) -> Result<Files> {
    let unreadable = || Error::corrupt("a handle of the backend rocksdb cannot be read");
    let data: Data = serde_json::from_value(handle.data.clone()).map_err(|e| unreadable().caused_by(e))?;
    // They become names on the local disk.
    let plain = |name: &String| Path::new(name).file_name().is_some_and(|last| *last == **name);
    if data.version == VERSION && data.files.keys().all(plain) { Ok(data.files) } else { Err(unreadable()) }
}

pub(super) fn is_data(name: &str) -> bool {
    name.ends_with(".sst")
}

/// The name of the file that says what all the others are.
pub(super) fn manifest(files: &Files) -> Option<&String> {
    files.keys().find(|name| is_manifest(name))
}

fn is_manifest(name: &str) -> bool {
    name.starts_with("MANIFEST-")
}

/// What a database is made of, with sizes. Its options are in the code, and `CURRENT` only names the manifest.
fn list(cut: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(cut)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_data(&name) || is_manifest(&name) {
            files.push((name, entry.metadata()?.len()));
        }
    }
    Ok(files)
}
