//! One operator's state in a directory, attempt after attempt.
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tidegate_core::{
    Result,
    state::backend::{Kept, OpenContext, RunId, StateBackend, StateBackendFactory, WriteBatch},
};
use tidegate_state::ObjectStoreState;

use tidegate_checkpoint::{
    ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
    manifest::StateHandle,
    store::CheckpointStore,
};

pub const KEY_GROUPS: u16 = 8;

pub type State = BTreeMap<Bytes, Bytes>;

pub struct Job {
    pub dir: tempfile::TempDir,
    pub factory: ObjectStoreState,
    pub store: Arc<CheckpointStore>,
    pub epoch: u64,
    pub kept: Vec<(Epoch, Vec<StateHandle>)>,
}

pub fn operator() -> OperatorId {
    OperatorId::new("operator").unwrap()
}

pub fn key(key_group: u16, n: u32) -> Bytes {
    [&key_group.to_be_bytes()[..], &[0], &n.to_be_bytes()].concat().into()
}

impl Job {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let factory = ObjectStoreState::at(&format!("file://{}", dir.path().display()));
        Self::over(factory, dir)
    }

    /// Somewhere else than in its directory.
    pub fn over(factory: ObjectStoreState, dir: tempfile::TempDir) -> Self {
        let store = Arc::new(CheckpointStore::open("memory:", JobId::new("job").unwrap()).unwrap());
        Self { dir, factory, store, epoch: 0, kept: Vec::new() }
    }

    pub fn context(&self, attempt: u64, subtask: u32, parallelism: u32, from: &[StateHandle]) -> OpenContext {
        let key_groups = KeyGroupRange::of(Subtask(subtask), parallelism, KEY_GROUPS);
        OpenContext {
            store: self.store.clone(),
            operator: operator(),
            subtask: Subtask(subtask),
            attempt: Attempt(attempt),
            run: RunId::default(),
            key_groups,
            restored: None,
            restore: from.iter().filter(|h| h.key_groups.overlaps(&key_groups)).cloned().collect(),
            lineage: "lineage".into(),
            settings: Arc::default(),
        }
    }

    /// Opens the subtasks of an attempt from a snapshot.
    pub async fn open(&self, attempt: u64, parallelism: u32, from: &[StateHandle]) -> Vec<Part> {
        let mut parts = Vec::new();
        for subtask in 0..parallelism {
            let context = self.context(attempt, subtask, parallelism, from);
            let range = context.key_groups;
            parts.push(Part { backend: self.factory.open(context).await.unwrap(), range });
        }
        parts
    }

    /// A committed snapshot, of which the last two are kept.
    pub async fn checkpoint(&mut self, parts: &mut [Part]) -> Vec<StateHandle> {
        self.epoch += 1;
        let mut handles = Vec::new();
        for part in parts {
            handles.push(part.backend.seal(Epoch(self.epoch)).await.unwrap());
        }
        self.kept.push((Epoch(self.epoch), handles.clone()));
        self.kept.drain(..self.kept.len().saturating_sub(2));
        handles
    }

    pub async fn collect(&self, attempt: u64) {
        let states = self.kept.iter().map(|(epoch, handles)| (*epoch, [(operator(), handles.clone())].into()));
        let kept = Kept { store: self.store.clone(), attempt: Attempt(attempt), states: states.collect() };
        self.factory.collect(kept).await.unwrap();
    }

    /// Bytes of all files.
    pub fn stored(&self) -> u64 {
        self.files().iter().map(|file| fs::metadata(file).map_or(0, |m| m.len())).sum()
    }

    pub fn files(&self) -> Vec<PathBuf> {
        files(self.dir.path())
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

pub struct Part {
    pub backend: Box<dyn StateBackend>,
    pub range: KeyGroupRange,
}

impl Part {
    pub async fn put(&mut self, keys: impl Iterator<Item = (Bytes, Bytes)>) {
        let mut batch = WriteBatch::default();
        for (key, value) in keys.filter(|(key, _)| self.range.contains(u16::from_be_bytes([key[0], key[1]]))) {
            batch
                .put_with(&key, |bytes| {
                    bytes.extend_from_slice(&value);
                    Ok(())
                })
                .unwrap();
        }
        self.backend.write(batch).unwrap();
        self.backend.flushed().await.unwrap();
    }

    pub async fn scan(&mut self) -> Result<State> {
        let (start, end) = (self.range.start.to_be_bytes(), self.range.end.to_be_bytes());
        let (start, end) = (Bytes::copy_from_slice(&start), Bytes::copy_from_slice(&end));
        Ok(self.backend.scan(start, Some(end), 1_000_000).await?.into_iter().collect())
    }
}

pub async fn all(parts: &mut [Part]) -> State {
    let mut state = State::new();
    for part in parts {
        state.extend(part.scan().await.unwrap());
    }
    state
}
