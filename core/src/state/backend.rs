//! What a state backend has to do: small, batched, bytes only.
//!
//! The typed tables above it are a write-back cache. With [`Residency::Resident`] they hold everything and
//! the backend's values are *blocks*, whole sub-shards of a table, written when a snapshot reaches them.
//! With [`Residency::Cached`] its values are single entries, written once an epoch when they are dirty.
//!
//! Keys are ordered bytes: `key group (u16) | state (u8) | namespace (i64, order-preserving) | rest`, big
//! endian, so that rescaling, and the firing of a window, are ranges.
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{collections::BTreeMap, ops::Range, sync::Arc};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Attempt, Epoch, KeyGroupRange, OperatorId, Subtask},
    manifest::StateHandle,
    store::CheckpointStore,
};

use crate::settings::StateSettings;

/// How much of the state the typed tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// All of it; values are blocks. What was restored is read once, by `scan`, and is in later snapshots
    /// only if it is written again.
    Resident,
    /// As much as `state.cache` has room for; values are entries, and restored ones stay where they are.
    Cached,
}

/// Puts and deletes, in order, with their bytes in two buffers.
#[derive(Debug, Default)]
pub struct WriteBatch {
    keys: Vec<u8>,
    values: Vec<u8>,
    writes: Vec<Place>,
}

/// Where a write's bytes are.
#[derive(Debug)]
enum Place {
    Put { key: Range<usize>, value: Range<usize> },
    Delete { key: Range<usize> },
    DeleteRange { start: Range<usize>, end: Range<usize> },
}

/// One write of a [`WriteBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<'a> {
    /// A key has this value.
    Put(&'a [u8], &'a [u8]),
    /// A key has none.
    Delete(&'a [u8]),
    /// No key from the first on, up to and without the second, has one. Only to cached backends.
    DeleteRange(&'a [u8], &'a [u8]),
}

impl WriteBatch {
    fn add_key(&mut self, key: &[u8]) -> Range<usize> {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        start..self.keys.len()
    }
    /// Adds a value that `fill` appends to the buffer.
    ///
    /// # Errors
    /// What `fill` returns; nothing is added then.
    pub fn put_with(&mut self, key: &[u8], fill: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let start = self.values.len();
        if let Err(e) = fill(&mut self.values) {
            self.values.truncate(start);
            return Err(e);
        }
        let (key, value) = (self.add_key(key), start..self.values.len());
        self.writes.push(Place::Put { key, value });
        Ok(())
    }
    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) {
        let key = self.add_key(key);
        self.writes.push(Place::Delete { key });
    }
    /// Adds a delete of all keys from `start` on, up to and without `end`.
    pub fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        let (start, end) = (self.add_key(start), self.add_key(end));
        self.writes.push(Place::DeleteRange { start, end });
    }
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
    /// Writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }
    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.keys.len() + self.values.len()
    }
    /// The writes, in order.
    pub fn iter(&self) -> impl Iterator<Item = Write<'_>> {
        self.writes.iter().map(|write| match write {
            Place::Put { key, value } => Write::Put(&self.keys[key.clone()], &self.values[value.clone()]),
            Place::Delete { key } => Write::Delete(&self.keys[key.clone()]),
            Place::DeleteRange { start, end } => Write::DeleteRange(&self.keys[start.clone()], &self.keys[end.clone()]),
        })
    }
    /// The values' bytes, which lie one behind the other in the order of the puts: for backends that keep them together.
    pub fn into_values(self) -> Vec<u8> {
        self.values
    }
}

/// One operator's keyed state in one subtask, as bytes. Owned by its task; never called concurrently.
///
/// A backend that has returned an error is not called again: the attempt fails, and its successor opens a
/// new one from the last checkpoint.
pub trait StateBackend: Send {
    /// See [`Residency`]. Asked once.
    fn residency(&self) -> Residency;

    /// The values of `keys`, in their order; the keys are sorted and differ. Only of cached backends, and not of a key
    /// whose last write has not been `flushed`.
    ///
    /// # Errors
    /// Fails the attempt.
    fn get_many(&mut self, keys: Vec<Bytes>) -> BoxFuture<'static, Result<Vec<Option<Bytes>>>>;

    /// Up to `limit` pairs in key order with `start <= key < end` (`None`: no end); the next page begins
    /// behind the last key. As `get_many`, not where writes have not been `flushed`.
    ///
    /// # Errors
    /// Fails the attempt; [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) names the damaged object.
    fn scan(
        &mut self,
        start: Bytes,
        end: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>>>;

    /// Writes into the epoch that is being built. Quick: buffers, or begins.
    ///
    /// # Errors
    /// Fails the attempt.
    fn write(&mut self, batch: WriteBatch) -> Result<()>;

    /// Ready when everything that was written before the call can be read; it need not be durable. The engine waits for
    /// it before it writes much more, so that what is buffered has a bound.
    ///
    /// # Errors
    /// Fails the attempt.
    fn flushed(&mut self) -> BoxFuture<'static, Result<()>> {
        Box::pin(futures::future::ready(Ok(())))
    }

    /// Ends the epoch: the snapshot is everything written so far. The call is the cut and is quick; the
    /// future makes it durable. It is not called again before that future has ended. When the future fails,
    /// the checkpoint is abandoned and the attempt goes on: a resident table then writes all it has for the
    /// next one, a cached backend must still have what it was given.
    fn seal(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<StateHandle>>;
}

/// Makes backends: one an operator and subtask, at the start of each attempt.
pub trait StateBackendFactory: Send + Sync + 'static {
    /// The name in `state.backend`.
    fn name(&self) -> &'static str;

    /// Opens the state of one operator in one subtask.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) when what is to be restored is damaged or missing.
    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>>;

    /// Opens the state of a committed checkpoint to be read, beside a job that goes on: nothing is written, and nothing is
    /// sealed. The context's subtask is nobody's.
    ///
    /// # Errors
    /// As `open`; and [`Kind::Config`](tidegate_checkpoint::error::Kind) where that cannot be done while the job runs.
    fn open_to_read(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        self.open(context)
    }

    /// A checkpoint has been committed, and old ones been let go: gives up what no handle in `kept` needs, and what
    /// dead attempts have left. Objects in the checkpoint store are not its business: who lists them in its handles has
    /// them deleted.
    ///
    /// # Errors
    /// It is told, and tried again behind the next checkpoint.
    fn collect(&self, kept: Kept) -> BoxFuture<'static, Result<()>> {
        let _ = kept;
        Box::pin(futures::future::ready(Ok(())))
    }

    /// A run of a job has ended, in whatever way: hands over what it has kept on this machine for the run's next attempt.
    /// That is dropped where it may block, and is in nobody's way. The job may have been started again by then, which is
    /// another run. One whose state has been read since is told of again.
    fn ended(&self, run: RunId) -> Option<Box<dyn Send>> {
        let _ = run;
        None
    }
}

/// A run of a job: from one start to its end, in one process, over all its attempts. No two have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// The backends of a run.
#[derive(Clone, Default)]
pub struct Backends {
    /// All that there are to choose from.
    pub all: Vec<Arc<dyn StateBackendFactory>>,
    /// That of each operator that keeps state.
    pub chosen: Arc<BTreeMap<OperatorId, Arc<dyn StateBackendFactory>>>,
    /// The run.
    pub run: RunId,
}

impl Backends {
    /// That of an operator.
    ///
    /// # Errors
    /// [`Kind::Internal`](tidegate_checkpoint::error::Kind): an operator without state.
    pub fn of(&self, operator: &OperatorId) -> Result<&Arc<dyn StateBackendFactory>> {
        self.chosen.get(operator).ok_or_else(|| Error::internal(format!("operator {operator} has no state backend")))
    }

    /// That of a name.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): there is none, or it is not compiled in.
    pub fn named(&self, name: &str) -> Result<&Arc<dyn StateBackendFactory>> {
        self.all.iter().find(|backend| backend.name() == name).ok_or_else(|| {
            if FEATURES.contains(&name) {
                return Error::config(format!("the state backend {name:?} is not compiled in"))
                    .hint(format!("add the feature {name:?} to the dependency on tidegate"));
            }
            let known: Vec<_> = self.all.iter().map(|backend| backend.name()).collect();
            Error::config(format!("there is no state backend {name:?}"))
                .hint(format!("compiled in: {}; others are features of tidegate", known.join(", ")))
        })
    }
}

/// Features of tidegate that bring a backend of that name.
const FEATURES: &[&str] = &["rocksdb", "redis", "object-store"];

/// What may still be restored.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The checkpoint store.
    pub store: Arc<CheckpointStore>,
    /// Who collects. Nothing of a newer attempt's may be touched.
    pub attempt: Attempt,
    /// The state of the checkpoints that are kept, from the oldest, by epoch and operator.
    pub states: Vec<(Epoch, BTreeMap<OperatorId, Vec<StateHandle>>)>,
}

/// Whose state is opened, and from what.
#[derive(Clone, Debug)]
pub struct OpenContext {
    /// The checkpoint store, for backends that keep their snapshots there.
    pub store: Arc<CheckpointStore>,
    /// The operator, as it is called now: what is restored may have been written under another name, which another
    /// operator may have by now. Where it is has to be in its handles.
    pub operator: OperatorId,
    /// Its subtask.
    pub subtask: Subtask,
    /// The attempt.
    pub attempt: Attempt,
    /// The run that it is of.
    pub run: RunId,
    /// The key groups it owns.
    pub key_groups: KeyGroupRange,
    /// The epoch of the checkpoint that is gone on from.
    pub restored: Option<Epoch>,
    /// What that checkpoint has of these key groups; several handles, or parts of them, after rescaling.
    pub restore: Vec<StateHandle>,
    /// The job's lineage: a job of the same name that has been started from nothing has another.
    pub lineage: String,
    /// What the job file says of state.
    pub settings: Arc<StateSettings>,
}

/// The first bytes of every key of a key group.
pub fn key_group_prefix(key_group: u16) -> [u8; 2] {
    key_group.to_be_bytes()
}
