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
use std::{ops::Range, sync::Arc};

use tidegate_checkpoint::{
    error::Result,
    ids::{Attempt, Epoch, KeyGroupRange, OperatorId, Subtask},
    manifest::StateHandle,
    store::CheckpointStore,
};

/// How much of the state the typed tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// All of it; values are blocks. What was restored is read once, by `scan`, and is in later snapshots
    /// only if it is written again.
    Resident,
    /// Up to so many bytes; values are entries, and restored ones stay where they are.
    Cached {
        /// The bound on the typed tables.
        bytes_max: usize,
    },
}

/// Puts and deletes, in order, with their bytes in one buffer.
#[derive(Debug, Default)]
pub struct WriteBatch {
    /// The values' bytes, one behind the other.
    pub bytes: Vec<u8>,
    /// What is written: the key, and the value's place in `bytes`, or `None` for a delete.
    pub writes: Vec<(Vec<u8>, Option<Range<usize>>)>,
}

impl WriteBatch {
    /// Adds a value that `fill` appends to the buffer.
    ///
    /// # Errors
    /// What `fill` returns; nothing is added then.
    pub fn put_with(&mut self, key: Vec<u8>, fill: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let start = self.bytes.len();
        if let Err(e) = fill(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(e);
        }
        self.writes.push((key, Some(start..self.bytes.len())));
        Ok(())
    }
    /// Adds a delete.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.writes.push((key, None));
    }
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// One operator's keyed state in one subtask, as bytes. Owned by its task; never called concurrently.
///
/// A backend that has returned an error is not called again: the attempt fails, and its successor opens a
/// new one from the last checkpoint.
pub trait StateBackend: Send {
    /// See [`Residency`]. Asked once.
    fn residency(&self) -> Residency;

    /// The values of `keys`, in their order. One call a batch of records; only of cached backends.
    ///
    /// # Errors
    /// Fails the attempt.
    fn get_many(&mut self, keys: Vec<Bytes>) -> BoxFuture<'_, Result<Vec<Option<Bytes>>>>;

    /// Up to `limit` pairs in key order with `start <= key < end` (`None`: no end); the next page begins
    /// behind the last key.
    ///
    /// # Errors
    /// Fails the attempt; [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) names the damaged object.
    fn scan(&mut self, start: Bytes, end: Option<Bytes>, limit: usize) -> BoxFuture<'_, Result<Vec<(Bytes, Bytes)>>>;

    /// Writes into the epoch that is being built. Quick: buffers.
    ///
    /// # Errors
    /// Fails the attempt.
    fn write(&mut self, batch: WriteBatch) -> Result<()>;

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
}

/// Whose state is opened, and from what.
#[derive(Clone, Debug)]
pub struct OpenContext {
    /// The checkpoint store, for backends that keep their snapshots there.
    pub store: Arc<CheckpointStore>,
    /// The operator.
    pub operator: OperatorId,
    /// Its subtask.
    pub subtask: Subtask,
    /// The attempt.
    pub attempt: Attempt,
    /// The key groups it owns.
    pub key_groups: KeyGroupRange,
    /// What the checkpoint has of these key groups; several handles, or parts of them, after rescaling.
    pub restore: Vec<StateHandle>,
}

/// The first bytes of every key of a key group.
pub fn key_group_prefix(key_group: u16) -> [u8; 2] {
    key_group.to_be_bytes()
}
