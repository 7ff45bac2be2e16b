//! A job's state over a real Redis, opened and written as the engine would.
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate_checkpoint::{
    ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
    manifest::StateHandle,
    store::CheckpointStore,
};
use tidegate_core::{
    Result,
    settings::{RedisSettings, StateSettings},
    state::backend::{Kept, OpenContext, RunId, StateBackend, StateBackendFactory, WriteBatch},
};
use tidegate_state::Redis as Backend;
use tidegate_testbed::redis::{Options, Redis};

/// Entries by key.
pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// The backend over a server, whatever the settings of whoever opens it.
pub struct At {
    backend: Backend,
    settings: Arc<StateSettings>,
    lineage: String,
}

impl At {
    pub fn new(settings: RedisSettings, lineage: &str) -> Self {
        let settings = Arc::new(StateSettings { redis: settings, ..StateSettings::default() });
        Self { backend: Backend::default(), settings, lineage: lineage.to_owned() }
    }
}

impl StateBackendFactory for At {
    fn name(&self) -> &'static str {
        self.backend.name()
    }
    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        let (settings, lineage) = (self.settings.clone(), self.lineage.clone());
        self.backend.open(OpenContext { settings, lineage, ..context })
    }
    fn collect(&self, kept: Kept) -> BoxFuture<'static, Result<()>> {
        self.backend.collect(kept)
    }
}

pub fn settings(url: &str) -> RedisSettings {
    RedisSettings { url: url.into(), give_up_after: Duration::from_secs(20), ..RedisSettings::default() }
}

pub fn server() -> Redis {
    Redis::start(&Options::default()).unwrap()
}

/// A job of one operator.
pub struct Job {
    pub at: At,
    pub store: Arc<CheckpointStore>,
    pub operator: &'static str,
}

pub const KEY_GROUPS: u16 = 4;
pub const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: KEY_GROUPS };

impl Job {
    pub fn new(settings: RedisSettings) -> Self {
        let store = Arc::new(CheckpointStore::open("memory:", JobId::new("job").unwrap()).unwrap());
        Self { at: At::new(settings, "lineage"), store, operator: "operator" }
    }

    pub async fn open(&self, attempt: u64, restore: &[StateHandle]) -> Result<Box<dyn StateBackend>> {
        self.open_part(attempt, restore, Subtask(0), ALL).await
    }

    pub async fn open_part(
        &self,
        attempt: u64,
        restore: &[StateHandle],
        subtask: Subtask,
        key_groups: KeyGroupRange,
    ) -> Result<Box<dyn StateBackend>> {
        let context = OpenContext {
            store: self.store.clone(),
            operator: OperatorId::new(self.operator).unwrap(),
            subtask,
            attempt: Attempt(attempt),
            run: RunId::default(),
            key_groups,
            restored: None,
            lineage: String::new(),
            settings: Arc::default(),
            restore: restore.iter().filter(|h| h.key_groups.overlaps(&key_groups)).cloned().collect(),
        };
        self.at.open(context).await
    }

    pub async fn collect(&self, attempt: u64, kept: &[(u64, &StateHandle)]) -> Result<()> {
        let operator = OperatorId::new(self.operator).unwrap();
        let states = kept.iter().map(|(e, h)| (Epoch(*e), [(operator.clone(), vec![(*h).clone()])].into()));
        self.at.collect(Kept { store: self.store.clone(), attempt: Attempt(attempt), states: states.collect() }).await
    }
}

pub fn key(n: u32) -> Vec<u8> {
    [&((n % u32::from(KEY_GROUPS)) as u16).to_be_bytes()[..], &[0], &n.to_be_bytes()].concat()
}

/// Puts of so many keys from one on.
pub fn puts(first: u32, count: u32, value: &str) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for n in first..first + count {
        let fill = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(value.as_bytes());
            Ok(())
        };
        batch.put_with(&key(n), fill).unwrap();
    }
    batch
}

pub fn put(model: &mut Model, first: u32, count: u32, value: &str) {
    model.extend((first..first + count).map(|n| (key(n), value.as_bytes().to_vec())));
}

/// All there is.
pub async fn all(backend: &mut dyn StateBackend) -> Result<Model> {
    backend.flushed().await?;
    let (mut start, mut found) = (Bytes::from_static(&[0, 0]), Model::new());
    let end = Some(Bytes::copy_from_slice(&KEY_GROUPS.to_be_bytes()));
    loop {
        let page = backend.scan(start, end.clone(), 700).await?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        start = [&last[..], &[0]].concat().into();
        found.extend(page.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
    }
}

pub fn run<R>(future: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}
