//! Stages one subtask's records: encoded one behind the other, in objects of some megabytes.
//!
//! ```text
//! tidegate batch v1 crc32=5f0c3a19 bytes=1234\n
//! codec (1 byte), records...
//! ```
//! An object is stored when it is full, so that a long epoch needs no more memory than a short one. Its name has an
//! epoch, by which the store knows that it is not garbage yet; the one it will be cut at is not known while it is
//! written, but it is never less than the one behind the last barrier.
use futures::future::{BoxFuture, ready};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{self, Context, Poll},
};

use tidegate_checkpoint::{
    envelope,
    error::{Error, Result},
    ids::{Attempt, Epoch, OperatorId, Subtask},
    kill,
    manifest::ObjectRef,
    paths,
    store::CheckpointStore,
};

use super::Staged;
use crate::{
    connect::{SinkContext, SinkWriter},
    env::{AbortOnDrop, spawn_owned},
    state::codec::Codec,
    time::Timestamp,
};

pub(super) const WHAT: &str = "batch";
pub(super) const VERSION: u32 = 1;
/// How records are encoded: a program whose record has got a field reads the batch of the one before.
const CODEC: Codec = Codec::Named;
/// Bytes of one object.
const OBJECT_BYTES: usize = 8 << 20;
/// Objects that are being stored while the next one is filled.
const STORING_MAX: usize = 2;

/// See the module.
pub struct BatchWriter {
    store: Arc<CheckpointStore>,
    sink: OperatorId,
    attempt: Attempt,
    subtask: Subtask,
    /// The next barrier is of this epoch or a later one.
    next: Epoch,
    /// Objects made by this writer.
    made: u64,
    bytes: u64,
    filling: Vec<u8>,
    /// Of this epoch: being stored, and stored.
    storing: VecDeque<AbortOnDrop<Result<ObjectRef>>>,
    stored: Vec<ObjectRef>,
    records: u64,
}

impl BatchWriter {
    pub(super) fn new(context: &SinkContext, subtask: Subtask) -> Self {
        Self {
            store: context.store.clone(),
            sink: context.sink.clone(),
            attempt: context.attempt,
            subtask,
            next: context.restored.map_or(Epoch(1), Epoch::next),
            made: 0,
            bytes: 0,
            filling: Vec::new(),
            storing: VecDeque::new(),
            stored: Vec::new(),
            records: 0,
        }
    }

    fn close(&mut self) {
        let body = std::mem::take(&mut self.filling);
        if body.is_empty() {
            return;
        }
        self.made += 1;
        self.bytes += body.len() as u64;
        let kind = format!("{:06}.{WHAT}", self.made);
        let path = paths::state(self.store.job(), &self.sink, self.attempt, self.next, self.subtask, &kind);
        let store = self.store.clone();
        self.storing.push_back(spawn_owned(async move {
            let object = envelope::wrap(WHAT, VERSION, &body);
            let bytes = object.len() as u64;
            store.put(&path, object).await?;
            Ok(ObjectRef { path, bytes })
        }));
    }
}

fn stored<E: std::error::Error + Send + Sync + 'static>(joined: Result<Result<ObjectRef>, E>) -> Result<ObjectRef> {
    joined.map_err(|e| Error::internal("the storing of a batch has panicked").caused_by(e))?
}

impl<T: Serialize + Send + 'static> SinkWriter<T> for BatchWriter {
    fn write(&mut self, record: T, _: Timestamp) -> Result<()> {
        if self.filling.is_empty() {
            self.filling.push(CODEC.id());
        }
        CODEC.encode(&record, &mut self.filling)?;
        self.records += 1;
        if self.filling.len() >= OBJECT_BYTES {
            self.close();
        }
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.storing.len() > STORING_MAX
            && let Some(first) = self.storing.front_mut()
        {
            let object = stored(task::ready!(Pin::new(first).poll(cx)))?;
            self.stored.push(object);
            self.storing.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    fn barrier(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        self.close();
        self.next = epoch.next();
        let records = std::mem::take(&mut self.records);
        if records == 0 {
            return Box::pin(ready(Ok(Vec::new())));
        }
        let (mut objects, storing) = (std::mem::take(&mut self.stored), std::mem::take(&mut self.storing));
        Box::pin(async move {
            for object in storing {
                objects.push(stored(object.await)?);
            }
            kill::point("sink.staged");
            let staged = serde_json::to_value(Staged { epoch, records, objects })
                .map_err(|e| Error::internal("a committable does not serialise").caused_by(e))?;
            Ok(vec![staged])
        })
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
