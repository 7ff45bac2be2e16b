//! A job's store and a directory for its databases.
use bytes::Bytes;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;
use tidegate_checkpoint::{
    error::Result,
    ids::{Attempt, JobId, KeyGroupRange, OperatorId, Subtask},
    manifest::StateHandle,
    store::CheckpointStore,
};
use tidegate_core::{
    settings::StateSettings,
    state::backend::{OpenContext, RunId, StateBackend, StateBackendFactory, WriteBatch, key_group_prefix},
    testkit::store::FaultyStore,
};
use tidegate_state::RocksDb;

pub const KEY_GROUPS: u16 = 128;

pub struct Kit {
    pub faults: FaultyStore,
    pub store: Arc<CheckpointStore>,
    pub settings: StateSettings,
    pub factory: RocksDb,
    pub run: RunId,
    directory: TempDir,
}

impl Kit {
    pub fn new() -> Self {
        let faults = FaultyStore::new(Arc::new(object_store::memory::InMemory::new()));
        let store = CheckpointStore::new(Arc::new(faults.clone()), "checkpoints", JobId::new("job").unwrap());
        let directory = tempfile::tempdir().unwrap();
        let mut settings = StateSettings::default();
        settings.rocksdb.directory = directory.path().display().to_string();
        Self { faults, store: Arc::new(store), settings, factory: RocksDb::default(), run: RunId(1), directory }
    }

    pub fn context(&self, attempt: u64, (subtask, parallelism): (u32, u32), restore: &[StateHandle]) -> OpenContext {
        let key_groups = KeyGroupRange::of(Subtask(subtask), parallelism, KEY_GROUPS);
        OpenContext {
            store: self.store.clone(),
            operator: OperatorId::new("operator").unwrap(),
            subtask: Subtask(subtask),
            attempt: Attempt(attempt),
            run: self.run,
            key_groups,
            restored: None,
            restore: restore.iter().filter(|handle| handle.key_groups.overlaps(&key_groups)).cloned().collect(),
            lineage: "lineage".into(),
            settings: Arc::new(self.settings.clone()),
        }
    }

    pub async fn open(&self, attempt: u64, part: (u32, u32), restore: &[StateHandle]) -> Result<Box<dyn StateBackend>> {
        self.factory.open(self.context(attempt, part, restore)).await
    }

    /// The run has ended: what is opened next has nothing of this process's.
    pub fn ended(&self) {
        drop(self.factory.ended(self.run));
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until so much is left: a database is closed when the thread that has worked for it has noticed.
    #[allow(dead_code, reason = "not of the test of memory")]
    pub async fn leaves(&self, count: usize) {
        self.until(|left| left.len() == count).await;
    }

    /// Waits until what lies there is so: what is to be deleted is, beside everything else.
    #[allow(dead_code, reason = "not of the test of memory")]
    pub async fn until(&self, is_so: impl Fn(&[PathBuf]) -> bool) {
        for _ in 0..10_000 {
            if is_so(&self.left()) {
                return;
            }
            tidegate_core::env::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("{:?}", self.left());
    }

    /// What lies where databases are kept.
    pub fn left(&self) -> Vec<PathBuf> {
        let mut left: Vec<_> = std::fs::read_dir(self.path()).unwrap().map(|e| e.unwrap().path()).collect();
        left.sort();
        left
    }
}

/// A key, spread over the key groups.
pub fn key(n: u64) -> Vec<u8> {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = key_group_prefix((mixed >> 57) as u16).to_vec();
    key.extend_from_slice(&[1, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    key.extend_from_slice(&mixed.to_be_bytes());
    key
}

/// A value that does not compress.
pub fn value(n: u64, round: u64) -> Vec<u8> {
    let mut x = n ^ round.rotate_left(32) | 1;
    (0..12)
        .flat_map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_be_bytes()
        })
        .collect()
}

/// Writes values, in batches as the engine's, and waits for them.
pub async fn write(backend: &mut dyn StateBackend, keys: impl Iterator<Item = u64>, round: u64) {
    let mut batch = WriteBatch::default();
    for n in keys {
        let put = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(&value(n, round));
            Ok(())
        };
        batch.put_with(&key(n), put).unwrap();
        if batch.bytes() > 1 << 18 {
            backend.write(std::mem::take(&mut batch)).unwrap();
            backend.flushed().await.unwrap();
        }
    }
    backend.write(batch).unwrap();
    backend.flushed().await.unwrap();
}

pub async fn get(backend: &mut dyn StateBackend, keys: impl Iterator<Item = u64>) -> Vec<Option<Bytes>> {
    let mut keys: Vec<_> = keys.map(|n| Bytes::from(key(n))).collect();
    keys.sort();
    backend.get_many(keys).await.unwrap()
}

/// How many of the keys have another value than that of a round.
pub async fn wrong(backend: &mut dyn StateBackend, keys: std::ops::Range<u64>, round: u64) -> usize {
    let mut wrong = 0;
    for chunk in keys.collect::<Vec<_>>().chunks(4096) {
        let mut wanted: Vec<_> = chunk.iter().map(|n| (Bytes::from(key(*n)), value(*n, round))).collect();
        wanted.sort();
        let found = backend.get_many(wanted.iter().map(|(key, _)| key.clone()).collect()).await.unwrap();
        wrong += found.iter().zip(&wanted).filter(|(found, (_, value))| found.as_deref() != Some(&value[..])).count();
    }
    wrong
}
