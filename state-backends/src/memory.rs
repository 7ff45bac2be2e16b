//! The memory backend: the typed tables hold everything, the checkpoint store holds blocks.
//!
//! A log of blocks. What is written during an epoch becomes one object; an index says for each block key
//! in which object it lies, so that blocks that have not changed are referred to and not written again.
//!
//! ```text
//! object     "TGB1" | block | block | ... | index
//! index      JSON: [[key (hex), object, offset, length, crc32], ...]      of all live blocks
//! handle     { object, index offset, index length, index crc32 }          in the manifest
//! ```
//!
//! The hard case is garbage: an old object may be kept alive by a few blocks. When less than
//! `LIVE_MIN` of an object is live, its blocks are copied into the new one while sealing, in the
//! background.
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Epoch,
    manifest::{ObjectRef, StateHandle},
    paths,
};
use tidegate_core::state::backend::{OpenContext, Residency, StateBackend, StateBackendFactory, Write, WriteBatch};

/// Below this part of live bytes an object is compacted, in percent.
const LIVE_MIN: u64 = 40;
const MAGIC: &[u8; 4] = b"TGB1";
const NAME: &str = "memory";

/// `state.backend = "memory"`.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

impl StateBackendFactory for Memory {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        Box::pin(async move {
            let restored = restore(&context).await?;
            Ok(Box::new(MemoryBackend {
                context: Arc::new(context),
                restored,
                chunks: vec![Bytes::from_static(MAGIC)],
                length: MAGIC.len() as u64,
                fresh: Fresh::new(),
                live: Arc::default(),
            }) as Box<dyn StateBackend>)
        })
    }
}

/// Where a block lies.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    object: Arc<ObjectRef>,
    offset: u64,
    length: u32,
    crc: u32,
}

struct MemoryBackend {
    context: Arc<OpenContext>,
    /// What the checkpoint had, read once.
    restored: BTreeMap<Bytes, Bytes>,
    /// The object of the running epoch, and what it has for each key; its name is not known yet.
    chunks: Vec<Bytes>,
    length: u64,
    fresh: Fresh,
    /// The blocks of the last snapshot. Only sealing changes it, one snapshot after the other.
    live: Arc<Mutex<Live>>,
}

/// Offset, length and crc of a block; `None`: it was deleted.
type Fresh = BTreeMap<Vec<u8>, Option<(u64, u32, u32)>>;
type Live = BTreeMap<Vec<u8>, Place>;

impl StateBackend for MemoryBackend {
    fn residency(&self) -> Residency {
        Residency::Resident
    }

    fn get_many(&mut self, keys: Vec<Bytes>) -> BoxFuture<'static, Result<Vec<Option<Bytes>>>> {
        let found = keys.iter().map(|k| self.restored.get(k).cloned()).collect();
        Box::pin(futures::future::ready(Ok(found)))
    }

    fn scan(
        &mut self,
        start: Bytes,
        end: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>>> {
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.restored.range((Bound::Included(start), end)).take(limit);
        let page: Vec<_> = page.map(|(k, v)| (k.clone(), v.clone())).collect();
        // Read once: what has been handed out need not be kept twice.
        for (key, _) in page.iter().rev().skip(1) {
            self.restored.remove(key);
        }
        Box::pin(futures::future::ready(Ok(page)))
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        let mut offset = self.length;
        for write in batch.iter() {
            let (key, place) = match write {
                Write::Put(key, value) => (key, Some((offset, value.len() as u32, crc32fast::hash(value)))),
                Write::Delete(key) => (key, None),
                Write::DeleteRange(..) => return Err(Error::internal("a range of blocks is deleted")),
            };
            offset += place.map_or(0, |(_, length, _)| u64::from(length));
            self.fresh.insert(key.to_vec(), place);
        }
        self.length = offset;
        let values = Bytes::from(batch.into_values());
        if !values.is_empty() {
            self.chunks.push(values);
        }
        Ok(())
    }

    fn seal(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<StateHandle>> {
        let chunks = std::mem::replace(&mut self.chunks, vec![Bytes::from_static(MAGIC)]);
        let length = std::mem::replace(&mut self.length, MAGIC.len() as u64);
        let fresh = std::mem::take(&mut self.fresh);
        Box::pin(seal(self.context.clone(), self.live.clone(), epoch, fresh, chunks, length))
    }
}

async fn seal(
    context: Arc<OpenContext>,
    shared: Arc<Mutex<Live>>,
    epoch: Epoch,
    fresh: Fresh,
    mut chunks: Vec<Bytes>,
    mut length: u64,
) -> Result<StateHandle> {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut live = {
        let mut live = lock();
        // At once: what is replaced or deleted here is gone even if this snapshot fails.
        for key in fresh.keys() {
            live.remove(key);
        }
        live.clone()
    };
    let mut new: Vec<_> = fresh.into_iter().filter_map(|(key, place)| Some((key, place?))).collect();
    for (key, place) in sparse(&live) {
        let block = read(&context, &place).await?;
        new.push((key.clone(), (length, place.length, place.crc)));
        length += block.len() as u64;
        chunks.push(block);
        live.remove(&key);
    }
    let path = paths::state(context.store.job(), &context.operator, context.attempt, epoch, context.subtask, "blocks");
    let rows: Vec<Value> = live
        .iter()
        .map(|(key, p)| json!([hex(key), p.object.path, p.offset, p.length, p.crc]))
        .chain(new.iter().map(|(key, (offset, length, crc))| json!([hex(key), path, offset, length, crc])))
        .collect();
    let rows = Bytes::from(Value::Array(rows).to_string());
    let data = json!({ "object": path, "offset": length, "length": rows.len(), "crc32": crc32fast::hash(&rows) });
    let object = Arc::new(ObjectRef { path: path.clone(), bytes: length + rows.len() as u64 });
    chunks.push(rows);
    context.store.put(&path, chunks.into_iter().collect::<tidegate_checkpoint::store::Payload>()).await?;
    live.extend(
        new.into_iter()
            .map(|(key, (offset, length, crc))| (key, Place { object: object.clone(), offset, length, crc })),
    );
    let mut objects: Vec<ObjectRef> = live.values().map(|p| (*p.object).clone()).chain([(*object).clone()]).collect();
    objects.sort();
    objects.dedup();
    *lock() = live;
    Ok(StateHandle { subtask: context.subtask, key_groups: context.key_groups, backend: NAME.into(), data, objects })
}

/// The live blocks of objects that are mostly garbage.
fn sparse(live: &Live) -> Vec<(Vec<u8>, Place)> {
    let mut bytes = HashMap::<&str, (u64, u64)>::new();
    for place in live.values() {
        bytes.entry(&place.object.path).or_insert((0, place.object.bytes)).0 += u64::from(place.length);
    }
    let is_sparse = |p: &Place| bytes.get(&*p.object.path).is_some_and(|(live, all)| live * 100 < all * LIVE_MIN);
    live.iter().filter(|(_, p)| is_sparse(p)).map(|(k, p)| (k.clone(), p.clone())).collect()
}

async fn read(context: &OpenContext, place: &Place) -> Result<Bytes> {
    // Stores refuse to read nothing.
    if place.length == 0 {
        return Ok(Bytes::new());
    }
    let range = place.offset..place.offset + u64::from(place.length);
    let mut found = context.store.get_ranges(&place.object.path, &[range]).await?;
    found
        .pop()
        .filter(|b| crc32fast::hash(b) == place.crc)
        .ok_or_else(|| damaged(&place.object.path, "a block's checksum does not match"))
}

/// Reads every block of the handles that lies in the context's key groups.
async fn restore(context: &OpenContext) -> Result<BTreeMap<Bytes, Bytes>> {
    let mut blocks = BTreeMap::new();
    for handle in &context.restore {
        let rows = read_index(context, &handle.data).await?;
        let mut by_object = BTreeMap::<String, Vec<(Bytes, std::ops::Range<u64>, u32)>>::new();
        for row in rows {
            let (key, object, range, crc) = row_of(&row)
                .ok_or_else(|| damaged(&handle.data["object"].to_string(), "a row of its index is wrong"))?;
            let key_group = key.first_chunk::<2>().map(|k| u16::from_be_bytes(*k));
            if key_group.is_some_and(|k| context.key_groups.contains(k)) {
                by_object.entry(object).or_default().push((key, range, crc));
            }
        }
        for (object, wanted) in by_object {
            let front = 0..MAGIC.len() as u64;
            let blocks_at = wanted.iter().map(|(_, range, _)| range.clone()).filter(|range| !range.is_empty());
            let ranges: Vec<_> = [front].into_iter().chain(blocks_at).collect();
            let found = context.store.get_ranges(&object, &ranges).await?;
            let mut found = found.into_iter();
            if found.next().is_none_or(|front| front != MAGIC[..]) {
                return Err(damaged(&object, "it is not a block log of format 1"));
            }
            for (key, range, crc) in wanted {
                let block = if range.is_empty() { Bytes::new() } else { found.next().unwrap_or_default() };
                if block.len() as u64 != range.end - range.start || crc32fast::hash(&block) != crc {
                    return Err(damaged(&object, "a block's checksum does not match"));
                }
                blocks.insert(key, block);
            }
        }
    }
    Ok(blocks)
}

async fn read_index(context: &OpenContext, data: &Value) -> Result<Vec<Value>> {
    let place = (|| {
        Some((data["object"].as_str()?, data["offset"].as_u64()?, data["length"].as_u64()?, data["crc32"].as_u64()?))
    })();
    let (object, offset, length, crc) =
        place.ok_or_else(|| Error::corrupt("a handle of the memory backend cannot be read"))?;
    let found = context.store.get_ranges(object, &[offset..offset.saturating_add(length)]).await?;
    let index = found.first().filter(|b| b.len() as u64 == length && u64::from(crc32fast::hash(b)) == crc);
    let index = index.ok_or_else(|| damaged(object, "its index does not match its checksum"))?;
    match serde_json::from_slice(index) {
        Ok(Value::Array(rows)) => Ok(rows),
        _ => Err(damaged(object, "its index cannot be read")),
    }
}

fn row_of(row: &Value) -> Option<(Bytes, String, std::ops::Range<u64>, u32)> {
    let (offset, length) = (row.get(2)?.as_u64()?, row.get(3)?.as_u64()?);
    let crc = u32::try_from(row.get(4)?.as_u64()?).ok()?;
    Some((unhex(row.get(0)?.as_str()?)?, row.get(1)?.as_str()?.to_owned(), offset..offset.checked_add(length)?, crc))
}

fn damaged(object: &str, why: &str) -> Error {
    Error::corrupt(format!("{object} cannot be used: {why}"))
        .hint("restore the file from a copy, or start from another checkpoint with checkpoint.from")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Bytes> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = BytesMut::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        let pair = std::str::from_utf8(pair).ok()?;
        bytes.extend_from_slice(&[u8::from_str_radix(pair, 16).ok()?]);
    }
    Some(bytes.freeze())
}
