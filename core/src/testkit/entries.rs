//! A backend that caches, as plain as can be: an ordered map, which a snapshot writes whole.
//!
//! It is for tests of what is above it, and an example for those who write one. It is as awkward as the contract lets a
//! backend be: nothing that was written can be read before it was `flushed`, and whoever reads it all the same is told
//! so by a panic.
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex},
};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Epoch,
    manifest::{ObjectRef, StateHandle},
    paths,
};

use crate::state::backend::{OpenContext, Residency, StateBackend, StateBackendFactory, Write, WriteBatch};

const NAME: &str = "entries";

type Map = BTreeMap<Bytes, Bytes>;

/// `state.backend = "entries"`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entries;

struct Backend {
    context: Arc<OpenContext>,
    map: Map,
    /// What has been written and not flushed.
    unflushed: Arc<Mutex<Unflushed>>,
}

#[derive(Default)]
struct Unflushed {
    keys: BTreeSet<Bytes>,
    ranges: Vec<(Bytes, Bytes)>,
}

impl StateBackendFactory for Entries {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        Box::pin(async move {
            let mut map = Map::new();
            for object in context.restore.iter().flat_map(|handle| &handle.objects) {
                let damaged = || Error::corrupt(format!("{} is no map of entries", object.path));
                let bytes = context.store.get(&object.path).await?;
                let (sum, bytes) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
                if crc32fast::hash(bytes) != u32::from_le_bytes(*sum) {
                    return Err(damaged());
                }
                let entries: Vec<(Vec<u8>, Vec<u8>)> = postcard::from_bytes(bytes).map_err(|_| damaged())?;
                let mine = |key: &[u8]| context.key_groups.contains(u16::from_be_bytes([key[0], key[1]]));
                let entries = entries.into_iter().filter(|(key, _)| mine(key));
                map.extend(entries.map(|(key, value)| (key.into(), value.into())));
            }
            Ok(Box::new(Backend { context: Arc::new(context), map, unflushed: Arc::default() }) as Box<_>)
        })
    }
}

impl Backend {
    fn check_flushed(&self, what: &str, reads: impl Fn(&Bytes) -> bool) {
        let unflushed = self.unflushed.lock().unwrap();
        assert!(!unflushed.keys.iter().any(&reads), "{what} reads what has not been flushed");
        assert!(!unflushed.ranges.iter().any(|(start, _)| reads(start)), "{what} reads what has not been flushed");
    }
}

impl StateBackend for Backend {
    fn residency(&self) -> Residency {
        Residency::Cached
    }

    fn get_many(&mut self, keys: Vec<Bytes>) -> BoxFuture<'static, Result<Vec<Option<Bytes>>>> {
        assert!(keys.is_sorted_by(|a, b| a < b), "keys that are asked for are sorted and differ");
        self.check_flushed("get_many", |key| keys.binary_search(key).is_ok());
        let values = keys.iter().map(|key| self.map.get(key).cloned()).collect();
        // Later: the caller has to wait.
        Box::pin(tokio::task::yield_now().map(|()| Ok(values)))
    }

    fn scan(
        &mut self,
        start: Bytes,
        end: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>>> {
        self.check_flushed("scan", |key| *key >= start && end.as_ref().is_none_or(|end| key < end));
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.map.range((Bound::Included(start), end)).take(limit);
        let page = page.map(|(key, value)| (key.clone(), value.clone())).collect();
        Box::pin(tokio::task::yield_now().map(|()| Ok(page)))
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        let mut unflushed = self.unflushed.lock().unwrap();
        for write in batch.iter() {
            match write {
                Write::Put(key, value) => {
                    let key = Bytes::copy_from_slice(key);
                    unflushed.keys.insert(key.clone());
                    self.map.insert(key, Bytes::copy_from_slice(value));
                }
                Write::Delete(key) => {
                    unflushed.keys.insert(Bytes::copy_from_slice(key));
                    self.map.remove(key);
                }
                Write::DeleteRange(start, end) => {
                    unflushed.ranges.push((Bytes::copy_from_slice(start), Bytes::copy_from_slice(end)));
                    self.map.retain(|key, _| &key[..] < start || &key[..] >= end);
                }
            }
        }
        Ok(())
    }

    fn flushed(&mut self) -> BoxFuture<'static, Result<()>> {
        let unflushed = self.unflushed.clone();
        Box::pin(tokio::task::yield_now().map(move |()| {
            *unflushed.lock().unwrap() = Unflushed::default();
            Ok(())
        }))
    }

    fn seal(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<StateHandle>> {
        let (context, entries) = (self.context.clone(), self.map.clone());
        Box::pin(async move {
            let OpenContext { store, operator, attempt, subtask, key_groups, .. } = &*context;
            let entries: Vec<_> = entries.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            let bytes =
                postcard::to_stdvec(&entries).map_err(|e| Error::internal("entries do not serialise").caused_by(e))?;
            let bytes = [&crc32fast::hash(&bytes).to_le_bytes()[..], &bytes].concat();
            let path = paths::state(store.job(), operator, *attempt, epoch, *subtask, "entries");
            let objects = vec![ObjectRef { path: path.clone(), bytes: bytes.len() as u64 }];
            store.put(&path, bytes).await?;
            let (subtask, key_groups, data) = (*subtask, *key_groups, serde_json::Value::Null);
            Ok(StateHandle { subtask, key_groups, backend: NAME.into(), data, objects })
        })
    }
}
