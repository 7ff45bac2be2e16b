//! State that is larger than its tables: what has been used lately is in them, the rest in the backend.
//!
//! A write-back cache. A batch of records is looked at before it is processed ([`KeyedState::missing`]), and what the
//! tables do not have is read at once ([`KeyedState::load`]); after that the operator finds in the tables all that there
//! is, as it does over a resident backend. What it changes is written once an epoch, by the snapshot; earlier only if
//! its place is needed.
//!
//! What costs nothing is not to ask. A sub-shard *holds all* there is of its hashes until an entry of it has to go, and
//! nothing is looked for beyond it; a namespace that the backend has never had anything of is made of such. So a state
//! that fits is as fast as a resident one, but for the first look at what was restored.
//!
//! The hard case is the cut. While a snapshot is swept, the backend is still in the epoch that has ended, and what has
//! changed since must not get into it. Then entries that are clean may go, and if that is not enough the sweep is
//! finished first. What goes has been flushed: a backend is never asked for what it has not taken in yet.
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};

use tidegate_checkpoint::{error::Result, ids::Epoch, manifest::StateHandle};

use crate::record::Keyed;

use super::{
    backend::{Write, WriteBatch},
    codec::{Codec, decode_key, encode_key},
    hash::{Key, hash_key, key_group},
    keyed::{KeyedState, Phase, Swept, damaged},
    shard::Holds,
    table::{Table, Value, behind, entry_prefix, split_entry_key, watermark_key},
};

/// Keys that are read at once.
const READ: usize = 4096;
/// Entries of a page of a namespace that is gone through.
const PAGE: usize = 1024;
/// Bytes that a backend may not have taken in yet.
const UNFLUSHED_MAX: usize = 8 << 20;
/// Sub-shards whose entries are written back, and let go, together.
const SLOTS: usize = 16;

/// Entries whose length is remembered.
const ENCODED_MAX: usize = 1 << 14;

/// A snapshot that has been captured, and what makes it durable.
pub type Sealed = (Epoch, BoxFuture<'static, Result<StateHandle>>);

/// What is known of the backend's side.
pub(super) struct Cache {
    bytes_max: usize,
    /// The key groups in which the backend may have entries of a namespace.
    stored: BTreeMap<i64, BTreeSet<u16>>,
    /// Namespaces that have been discarded; the backend has not been told.
    dropped: BTreeSet<i64>,
    unflushed: usize,
    /// Bytes of entries that were lately encoded or read, and how many those were.
    encoded: (usize, usize),
    /// Where the search for entries that can go is to go on: a table and a slot.
    hand: (usize, usize),
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (stored, dropped) = Default::default();
        Self { bytes_max, stored, dropped, unflushed: 0, encoded: (0, 0), hand: (0, 0) }
    }

    fn has(&self, namespace: i64) -> bool {
        self.stored.contains_key(&namespace) && !self.dropped.contains(&namespace)
    }

    /// What a new sub-shard of a namespace holds.
    pub(super) fn holds(&self, namespace: i64) -> Holds {
        if self.has(namespace) { Holds::Some } else { Holds::All }
    }

    pub(super) fn drop_namespace(&mut self, namespace: i64) {
        self.dropped.insert(namespace);
    }

    /// So many entries have so many bytes. What has been seen longer ago counts less.
    pub(super) fn encoded(&mut self, bytes: usize, entries: usize) {
        self.encoded = (self.encoded.0 + bytes, self.encoded.1 + entries);
        if self.encoded.1 > ENCODED_MAX {
            self.encoded = (self.encoded.0 / 2, self.encoded.1 / 2);
        }
    }

    /// The backend is given these.
    pub(super) fn handed_over(&mut self, batch: &WriteBatch) {
        self.unflushed += batch.bytes();
        self.encoded(batch.bytes(), batch.len());
        let mut last = None;
        for write in batch.iter() {
            let Write::Put(key, _) = write else { continue };
            // Those of a sub-shard come together.
            let Some(prefix) = key.first_chunk::<11>().filter(|prefix| Some(**prefix) != last) else { continue };
            if let Some((namespace, _)) = split_entry_key(key) {
                last = Some(*prefix);
                self.stored.entry(namespace).or_default().insert(u16::from_be_bytes([key[0], key[1]]));
            }
        }
    }
}

impl<K: Key, V: Value> KeyedState<K, V> {
    /// Finds out what the backend has: watermarks, and in which key groups which namespaces.
    pub(super) async fn restore_index(&mut self) -> Result<()> {
        let key_groups: Vec<u16> = self.range.iter().collect();
        let watermarks: Vec<Bytes> = key_groups.iter().map(|k| watermark_key(*k).into()).collect();
        let found = self.backend.get_many(watermarks.clone()).await?;
        for (key, value) in watermarks.iter().zip(found) {
            if let Some(value) = value {
                self.restore_watermark(key, &value)?;
            }
        }
        for key_group in key_groups {
            let mut start = Bytes::copy_from_slice(&entry_prefix(key_group, i64::MIN));
            let end = Bytes::from(behind(&start[..3]));
            while let Some((key, value)) = self.backend.scan(start, Some(end.clone()), 1).await?.pop() {
                // A type that cannot read it is to be refused now, and not when the entry is needed.
                let (namespace, _, _) = read_entry::<K, V>(&key, &value)?;
                if let Some(cache) = &mut self.cache {
                    cache.stored.entry(namespace).or_default().insert(key_group);
                }
                start = behind(&entry_prefix(key_group, namespace)).into();
            }
        }
        Ok(())
    }

    /// Adds the backend's keys of those entries that these records may need and that are not in the tables. `needs` names
    /// the namespaces in which a record's entries are.
    ///
    /// # Errors
    /// [`Kind::User`](tidegate_checkpoint::error::Kind): a key does not serialise.
    pub fn missing<T>(
        &self,
        records: &[Keyed<K, T>],
        needs: impl Fn(&Keyed<K, T>, &mut dyn FnMut(i64)),
        keys: &mut Vec<Bytes>,
    ) -> Result<()> {
        if self.cache.is_none() {
            return Ok(());
        }
        self.missing_of(keys, |want| {
            for record in records {
                needs(record, &mut |namespace| want(namespace, record.hash, &record.key));
            }
        })
    }

    /// As [`KeyedState::missing`], of the entries that `wanted` names: namespace, hash and key.
    ///
    /// # Errors
    /// As there.
    pub fn missing_of(&self, keys: &mut Vec<Bytes>, wanted: impl FnOnce(&mut dyn FnMut(i64, u64, &K))) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let mut last: Option<(i64, Option<&Table<K, V>>, bool)> = None;
        let mut outcome = Ok(());
        wanted(&mut |namespace, hash, key| {
            let (_, table, stored) = *match &mut last {
                Some(last) if last.0 == namespace => last,
                last => {
                    let table = self.tables.iter().find(|t| t.namespace() == namespace);
                    let stored = cache.has(namespace) && table.is_none_or(Table::is_partial);
                    last.insert((namespace, table, stored))
                }
            };
            if stored && table.is_none_or(|table| table.misses(hash, key)) {
                let mut missing = entry_prefix(key_group(hash, self.key_groups), namespace).to_vec();
                match encode_key(key, &mut missing) {
                    Ok(()) => keys.push(missing.into()),
                    Err(e) => outcome = Err(e),
                }
            }
        });
        outcome
    }

    /// Reads entries into the tables, as far as there are such.
    ///
    /// # Errors
    /// What the backend returns; [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) when it cannot be read.
    pub async fn load(&mut self, mut keys: Vec<Bytes>) -> Result<()> {
        keys.sort_unstable();
        keys.dedup();
        for keys in keys.chunks(READ) {
            let values = self.backend.get_many(keys.to_vec()).await?;
            for (key, value) in keys.iter().zip(values) {
                if let Some(value) = value {
                    self.was_encoded(key.len() + value.len());
                    let (namespace, key, value) = self.entry(key, &value)?;
                    let table = self.table(namespace);
                    self.tables[table].load(hash_key(&key), (key, value), &mut self.capture)?;
                }
            }
            self.hand_over()?;
        }
        Ok(())
    }

    fn entry(&self, key: &[u8], value: &[u8]) -> Result<(i64, K, V)> {
        read_entry(key, value).map_err(|e| e.at(format!("state of operator {}", self.operator)))
    }

    /// Tells the backend what has been discarded. Not while a snapshot is swept.
    pub(super) fn write_drops(&mut self) {
        let Some(cache) = &mut self.cache else { return };
        for namespace in std::mem::take(&mut cache.dropped) {
            for key_group in cache.stored.remove(&namespace).unwrap_or_default() {
                let prefix = entry_prefix(key_group, namespace);
                self.capture.batch.delete_range(&prefix, &behind(&prefix));
            }
        }
    }

    pub(super) fn was_encoded(&mut self, bytes: usize) {
        if let Some(cache) = &mut self.cache {
            cache.encoded(bytes, 1);
        }
    }

    /// Whether something has to be waited for before much more is done: see [`KeyedState::tend`].
    pub fn needs_tending(&mut self) -> bool {
        if self.cache.as_ref().is_some_and(|cache| cache.encoded.1 == 0) {
            // Nothing has been written yet, and so nobody knows what an entry has outside of its slot.
            let (mut bytes, mut entries) = (Vec::new(), 0);
            for (key, value) in self.tables.iter().flat_map(Table::iter).take(64) {
                if encode_key(key, &mut bytes).is_ok() && self.capture.codec.encode(value, &mut bytes).is_ok() {
                    entries += 1;
                }
            }
            if let Some(cache) = &mut self.cache {
                cache.encoded(bytes.len(), entries);
            }
        }
        self.cache.as_ref().is_some_and(|cache| cache.unflushed >= UNFLUSHED_MAX) || self.excess(1, 1) > 0
    }

    /// Entries beyond a part of those that there is room for.
    fn excess(&self, part: usize, of: usize) -> usize {
        let Some(cache) = &self.cache else { return 0 };
        // A slot is taken five of eight times at the most, and half as often at the least. What an entry has outside of
        // its slot is about as long as it is encoded.
        let (slot, inline) = (size_of::<Option<(K, V)>>() + 3, size_of::<(K, V)>());
        let encoded = cache.encoded.0.checked_div(cache.encoded.1).unwrap_or(0);
        let room = cache.bytes_max / (slot * 2 + encoded.saturating_sub(inline));
        self.len().saturating_sub(room / of * part)
    }

    /// Lets the backend take in what it was given, and makes room in the tables. A snapshot that had to be finished for
    /// it is returned.
    ///
    /// # Errors
    /// What the backend returns, and that of a value that does not serialise.
    pub async fn tend(&mut self) -> Result<Option<Sealed>> {
        self.flush().await?;
        if self.excess(1, 1) == 0 {
            return Ok(None);
        }
        if matches!(self.phase, Phase::Sweeping(_)) {
            self.evict().await?;
            while self.excess(7, 8) > 0 {
                // The rest of the room is made the next time: what is sealed has to be driven first.
                if let Swept::Sealed(epoch, durable) = self.sweep(u64::MAX)? {
                    return Ok(Some((epoch, durable)));
                }
            }
            return Ok(None);
        }
        self.write_drops();
        self.evict().await?;
        Ok(None)
    }

    async fn flush(&mut self) -> Result<()> {
        if self.cache.as_ref().is_some_and(|cache| cache.unflushed > 0) {
            self.backend.flushed().await?;
        }
        if let Some(cache) = &mut self.cache {
            cache.unflushed = 0;
        }
        Ok(())
    }

    /// Lets go of entries that have not been used since it was here last, until there is some room or it has been
    /// everywhere twice. They are written back before, if they are dirty and that is allowed.
    async fn evict(&mut self) -> Result<()> {
        let writes = !matches!(self.phase, Phase::Sweeping(_));
        let mut turns = self.tables.iter().map(|t| t.slots() * 2).sum::<usize>();
        while self.excess(7, 8) > 0 && turns > 0 {
            let Some((table, slots)) = self.next_slots() else { break };
            turns = turns.saturating_sub(slots.len());
            if writes {
                let mut slot = slots.start;
                while slot < slots.end {
                    slot = self.tables[table].write_back(slot, &mut self.capture)?;
                }
            }
            self.hand_over_all()?;
            self.flush().await?;
            let mut slot = slots.start;
            while slot < slots.end {
                slot = self.tables[table].evict(slot);
            }
        }
        // Those that have nothing left have their sub-shards still. They come back when something is read into them.
        self.tables.retain(|table| !table.is_empty());
        self.forget_spare();
        Ok(())
    }

    /// The slots to be looked at next.
    fn next_slots(&mut self) -> Option<(usize, std::ops::Range<usize>)> {
        let cache = self.cache.as_mut()?;
        let (mut at, mut slot) = cache.hand;
        if self.tables.get(at).is_none_or(|table| slot >= table.slots()) {
            (at, slot) = (at + 1, 0);
            at = if at < self.tables.len() { at } else { 0 };
        }
        let end = (slot + SLOTS).min(self.tables.get(at)?.slots());
        cache.hand = (at, end);
        Some((at, slot..end))
    }

    /// Whether a namespace may have entries of a key group that are not in the tables.
    pub fn has_more(&self, namespace: i64, key_group: u16) -> bool {
        let Some(cache) = self.cache.as_ref().filter(|cache| cache.has(namespace)) else { return false };
        let table = self.tables.iter().find(|t| t.namespace() == namespace);
        table.is_none_or(Table::is_partial) && cache.stored.get(&namespace).is_some_and(|s| s.contains(&key_group))
    }

    /// All namespaces in which there is anything, in their order.
    pub fn namespaces(&self) -> Vec<i64> {
        let stored = self.cache.iter().flat_map(|c| c.stored.keys().filter(|n| !c.dropped.contains(n)));
        let mut all: Vec<_> = self.tables.iter().map(Table::namespace).chain(stored.copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Some of those entries of a namespace in a key group that are not in the tables, in no order that means anything;
    /// and from where on there may be more. Nothing of the key group may change meanwhile.
    ///
    /// # Errors
    /// As [`KeyedState::load`].
    pub async fn next_page(
        &mut self,
        namespace: i64,
        key_group: u16,
        from: Option<Bytes>,
    ) -> Result<(Vec<(K, V)>, Option<Bytes>)> {
        if from.is_none() {
            self.flush().await?;
        }
        let prefix = entry_prefix(key_group, namespace);
        let start = from.unwrap_or_else(|| Bytes::copy_from_slice(&prefix));
        let page = self.backend.scan(start, Some(behind(&prefix).into()), PAGE).await?;
        let more = page.last().filter(|_| page.len() == PAGE).map(|(last, _)| [&last[..], &[0]].concat().into());
        let table = self.tables.iter().find(|t| t.namespace() == namespace);
        let mut entries = Vec::with_capacity(page.len());
        for (key, value) in &page {
            let (_, key, value) = self.entry(key, value)?;
            // What is in the tables is newer, and has been gone through there.
            if table.is_none_or(|table| table.misses(hash_key(&key), &key)) {
                entries.push((key, value));
            }
        }
        Ok((entries, more))
    }
}

/// An entry as it is stored: its namespace, key and value.
pub(super) fn read_entry<K: Key, V: Value>(key: &[u8], value: &[u8]) -> Result<(i64, K, V)> {
    let (namespace, key) = split_entry_key(key).ok_or_else(damaged)?;
    let (codec, value) = value.split_first().ok_or_else(damaged)?;
    let codec = Codec::by_id(*codec).ok_or_else(damaged)?;
    Ok((namespace, decode_key(key)?, codec.decode_whole(value)?))
}
