//! What the function of `foreach_batch` gets: the records, read one staged object after the other.
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::{
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    sync::{Arc, OnceLock},
};

use tidegate_checkpoint::{
    envelope,
    error::{Error, Result},
    manifest::ObjectRef,
    store::CheckpointStore,
};

use super::writer::{VERSION, WHAT};
use crate::state::codec::Codec;

/// All records of one epoch. They are in the checkpoint store, and come from there some megabytes at a time; in the
/// same order each time that the batch is handed over.
///
/// ```
/// # async fn write(batch: tidegate_core::Batch<u64>) -> tidegate_core::Result<()> {
/// println!("{} numbers", batch.len());
/// let numbers: Vec<u64> = batch.collect().await?;     // or one by one, with next()
/// # Ok(())
/// # }
/// ```
pub struct Batch<T> {
    store: Arc<CheckpointStore>,
    objects: VecDeque<ObjectRef>,
    len: u64,
    left: u64,
    current: Option<Reading>,
    fault: Arc<OnceLock<Error>>,
    record: PhantomData<fn() -> T>,
}

/// An object that is being read.
struct Reading {
    path: String,
    codec: Codec,
    rest: Bytes,
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len).field("left", &self.left).finish_non_exhaustive()
    }
}

impl<T> Batch<T> {
    pub(super) fn new(store: Arc<CheckpointStore>, objects: VecDeque<ObjectRef>, len: u64) -> Self {
        Self { store, objects, len, left: len, current: None, fault: Arc::default(), record: PhantomData }
    }

    /// Set when a record could not be read.
    pub(super) fn fault(&self) -> Arc<OnceLock<Error>> {
        self.fault.clone()
    }

    /// How many records it has; never 0 when it is handed over.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: DeserializeOwned> Batch<T> {
    /// The next record; `None` behind the last one.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](tidegate_checkpoint::error::Kind): it is damaged, missing, or no `T`. Else as the store. The
    /// attempt then fails with it, whatever the function returns.
    pub async fn next(&mut self) -> Result<Option<T>> {
        let read = self.read().await;
        if let Err(error) = &read {
            let _ = self.fault.set(error.clone());
        }
        read
    }

    /// All records that are left.
    ///
    /// # Errors
    /// As [`Batch::next`].
    pub async fn collect(mut self) -> Result<Vec<T>> {
        let mut records = Vec::new();
        while let Some(record) = self.next().await? {
            records.push(record);
        }
        Ok(records)
    }

    async fn read(&mut self) -> Result<Option<T>> {
        while self.current.as_ref().is_none_or(|current| current.rest.is_empty()) {
            let Some(object) = self.objects.pop_front() else {
                return match self.left {
                    0 => Ok(None),
                    left => Err(Error::corrupt(format!("{left} of the {} records of a batch are missing", self.len))),
                };
            };
            self.current = Some(open(&self.store, object.path).await?);
        }
        let Some(Reading { path, codec, rest }) = &mut self.current else { return Ok(None) };
        let mut bytes = &rest[..];
        let record = codec.decode(&mut bytes).map_err(|e| e.at(&*path))?;
        *rest = rest.slice_ref(bytes);
        let more = || Error::corrupt(format!("{path} has more records than the checkpoint says"));
        self.left = self.left.checked_sub(1).ok_or_else(more)?;
        Ok(Some(record))
    }
}

async fn open(store: &CheckpointStore, path: String) -> Result<Reading> {
    let bytes = store.get(&path).await?;
    let body = envelope::unwrap(WHAT, VERSION, &bytes).map_err(|e| e.of(&path))?;
    let (codec, records) = body
        .split_first()
        .and_then(|(id, records)| Some((Codec::by_id(*id)?, records)))
        .ok_or_else(|| Error::corrupt(format!("{path} has an encoding that this tidegate does not know")))?;
    Ok(Reading { codec, rest: bytes.slice_ref(records), path })
}
