//! A typed hash table that can be snapshot without stopping: serialise on touch.
//!
//! Extendible hashing: a directory, indexed by the top bits of the hash, of sub-shards, each split alone
//! when it is full. The smallest depth is that of the key groups, so a sub-shard lies in exactly one key
//! group. Doubling the directory copies indices only: no change is longer than one sub-shard. (To discard a table
//! takes as long as it is large, as it did to fire its window.)
//!
//! **Snapshot.** `freeze` begins a new generation and does nothing else. A sub-shard of an older generation
//! is *captured* (serialised) before its first change; `sweep` captures the rest piece by piece. So each is
//! serialised once a snapshot as it was at the freeze, with no copy and no `Clone`; and one whose block is
//! already stored and unchanged is not serialised at all.
//!
//! Over a backend that caches, what is captured of a sub-shard is not a block but each of its dirty entries, under
//! a key of its own.
//!
//! **Removal.** An entry is removed by making its value *vacant*, which is for the operator to say: to the table it is as
//! none. It is not written into blocks, is deleted from a backend that caches, and goes with its like when its sub-shard
//! is captured or has no more room. So to remove costs nothing by itself, and moves no entry while a batch is under way.
use tidegate_checkpoint::error::Result;

use super::{
    backend::{WriteBatch, key_group_prefix},
    codec::{Codec, encode_key},
    cursor::Cursor,
    hash::Key,
    keyed::damaged,
    shard::{ENTRIES_MAX, Holds, STALE, Shard},
};

use serde::{Serialize, de::DeserializeOwned};

/// No sub-shard's index.
pub(super) const NONE: u32 = u32::MAX;
/// The state id of tables' blocks, and of the operator's own watermark.
const STATE: u8 = 0;
const META: u8 = 1;
/// Bound on the directory: 2^22 sub-shards hold more than a billion entries; beyond it they grow.
const DEPTH_MAX: u8 = 22;

/// What may be a value.
pub trait Value: Serialize + DeserializeOwned + Send + 'static {}
impl<V: Serialize + DeserializeOwned + Send + 'static> Value for V {}

/// Says of a value that its entry is as none; `None`: the operator never removes any.
pub(super) type IsVacant<V> = Option<fn(&V) -> bool>;

/// Where captured sub-shards go.
#[derive(Debug)]
pub(super) struct Capture {
    pub codec: Codec,
    /// What belongs to the snapshot in progress.
    pub batch: WriteBatch,
    /// Keys of blocks that no longer exist; they belong to the next snapshot.
    pub obsolete: Vec<Vec<u8>>,
    /// Whether a snapshot is in progress.
    pub active: bool,
    /// Entries captured so far.
    pub entries: u64,
    /// The key of the entry that is being captured.
    pub key: Vec<u8>,
}

impl Capture {
    pub(super) fn new(codec: Codec) -> Self {
        let (batch, obsolete, key) = Default::default();
        Self { codec, batch, obsolete, active: false, entries: 0, key }
    }

    /// One entry, under a key of its own; or that there is none.
    fn entry<K: Key, V: Value>(&mut self, prefix: &[u8], key: &K, value: Option<&V>) -> Result<()> {
        self.key.clear();
        self.key.extend_from_slice(prefix);
        encode_key(key, &mut self.key)?;
        let Some(value) = value else {
            self.batch.delete(&self.key);
            return Ok(());
        };
        let codec = self.codec;
        self.batch.put_with(&self.key, |bytes| {
            bytes.push(codec.id());
            codec.encode(value, bytes)
        })
    }
}

/// How the entries of a block lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Key and value in `MessagePack`, with names in the value; in blocks of older versions also in the key.
    Named = 1,
    /// Key and value in postcard: where they end only their types know. No longer written.
    OldCompact = 2,
    /// The key in `MessagePack`, the value in postcard, with its length in front (u32).
    Compact = 3,
}

impl Layout {
    /// What is written now.
    fn of(codec: Codec) -> Self {
        match codec {
            Codec::Named => Self::Named,
            Codec::Compact => Self::Compact,
        }
    }

    pub(super) fn by_id(id: u8) -> Option<Self> {
        [Self::Named, Self::OldCompact, Self::Compact].into_iter().find(|layout| *layout as u8 == id)
    }

    /// Adds an entry to a block of [`Layout::of`] the codec.
    #[inline]
    fn write<K: Key, V: Value>(codec: Codec, key: &K, value: &V, bytes: &mut Vec<u8>) -> Result<()> {
        encode_key(key, bytes)?;
        if codec == Codec::Named {
            return codec.encode(value, bytes);
        }
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        codec.encode(value, bytes)?;
        let length = (bytes.len() - start - 4) as u32;
        bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// The next entry of a block.
    pub(super) fn read<K: Key, V: Value>(self, bytes: &mut &[u8]) -> Result<(K, V)> {
        match self {
            Self::Named => Ok((Codec::Named.decode(bytes)?, Codec::Named.decode(bytes)?)),
            Self::OldCompact => Ok((Codec::Compact.decode(bytes)?, Codec::Compact.decode(bytes)?)),
            Self::Compact => {
                let key = Codec::Named.decode(bytes)?;
                let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
                let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
                *bytes = rest;
                Ok((key, Codec::Compact.decode_whole(value)?))
            }
        }
    }
}

/// One namespace of an operator's state.
pub struct Table<K, V> {
    namespace: i64,
    directory: Vec<u32>,
    shards: Vec<Shard<K, V>>,
    depth: u8,
    depth_min: u8,
    generation: u32,
    /// Sub-shards before this one have been swept in this generation.
    swept: usize,
    len: usize,
    /// What a new sub-shard holds.
    holds: Holds,
    /// Entries have left.
    partial: bool,
    is_vacant: IsVacant<V>,
}

impl<K: Key, V: Value> Table<K, V> {
    pub(super) fn new(namespace: i64, depth_min: u8, generation: u32, holds: Holds, is_vacant: IsVacant<V>) -> Self {
        let directory = vec![NONE; 1 << depth_min];
        Self {
            namespace,
            directory,
            shards: Vec::new(),
            depth: depth_min,
            depth_min,
            generation,
            swept: usize::MAX,
            len: 0,
            holds,
            partial: false,
            is_vacant,
        }
    }

    /// As new, for another namespace, but with the memory that it has: windows follow windows of about the
    /// same keys. `None` when most of it was not needed.
    pub(super) fn recycle(mut self) -> Option<Self> {
        if self.len < self.shards.len() * 8 {
            return None;
        }
        for shard in &mut self.shards {
            shard.clear(self.generation);
        }
        self.len = 0;
        Some(self)
    }

    /// Begins the life of a recycled table.
    pub(super) fn begin(mut self, namespace: i64, generation: u32, holds: Holds) -> Self {
        (self.namespace, self.generation, self.swept) = (namespace, generation, usize::MAX);
        (self.holds, self.partial) = (holds, false);
        for shard in &mut self.shards {
            shard.holds = holds;
        }
        self
    }

    /// Its namespace: the start of the window.
    pub fn namespace(&self) -> i64 {
        self.namespace
    }

    /// Entries, with those that are vacant.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A way to its entries.
    #[inline(always)]
    pub(super) fn cursor(&mut self) -> Cursor<'_, K, V> {
        Cursor {
            directory: &self.directory,
            shards: &mut self.shards,
            len: &mut self.len,
            depth: self.depth,
            generation: self.generation,
        }
    }

    /// Opens the sub-shard of a hash: it is there, captured if a snapshot needs it as it is, marked as changed,
    /// and not full.
    pub(super) fn open(&mut self, hash: u64, capture: &mut Capture) -> Result<()> {
        self.open_as(hash, capture, true)
    }

    fn open_as(&mut self, hash: u64, capture: &mut Capture, changes: bool) -> Result<()> {
        let slot = slot_of(hash, self.depth);
        if self.directory[slot] == NONE {
            self.directory[slot] = self.shards.len() as u32;
            self.shards.push(Shard::new(self.depth, self.generation, self.holds));
        }
        let mut index = self.directory[slot] as usize;
        self.capture(index, slot, capture)?;
        if self.shards[index].is_full() || self.shards[index].len as usize >= ENTRIES_MAX {
            self.prune(index);
        }
        if self.shards[index].len as usize >= ENTRIES_MAX && self.shards[index].depth < DEPTH_MAX {
            self.split(index, slot, capture);
            index = self.directory[slot_of(hash, self.depth)] as usize;
        }
        let shard = &mut self.shards[index];
        if shard.is_full() {
            shard.grow();
        }
        if changes {
            (shard.saved, shard.open) = (false, self.generation);
        }
        Ok(())
    }

    fn prune(&mut self, index: usize) {
        if let Some(is_vacant) = self.is_vacant {
            self.len -= self.shards[index].prune(is_vacant);
        }
    }

    fn split(&mut self, index: usize, slot: usize, capture: &mut Capture) {
        if self.shards[index].stored {
            capture.obsolete.push(self.block_key(index, slot));
        }
        let mut slot = slot;
        if self.shards[index].depth == self.depth {
            self.directory = self.directory.iter().flat_map(|i| [*i, *i]).collect();
            self.depth += 1;
            self.swept = self.swept.saturating_mul(2);
            slot *= 2;
        }
        let new = self.shards.len() as u32;
        let high = self.shards[index].split();
        // All slots of the old sub-shard are one aligned run; its upper half now belongs to the new one.
        let span = 1usize << (self.depth + 1 - high.depth);
        let first = slot / span * span;
        self.directory[first + span / 2..first + span].fill(new);
        self.shards.push(high);
    }

    /// Serialises a sub-shard of an older generation if the snapshot in progress needs it.
    fn capture(&mut self, index: usize, slot: usize, capture: &mut Capture) -> Result<()> {
        let generation = self.generation;
        if self.shards[index].generation == generation {
            return Ok(());
        }
        // An empty one of which nothing is stored is new, or the memory of another window's.
        let shard = &self.shards[index];
        if capture.active && !shard.saved && (shard.len > 0 || shard.stored) {
            if self.holds != Holds::Resident {
                self.clean(index, slot, capture, false)?;
                let shard = &mut self.shards[index];
                (shard.saved, shard.open, shard.generation) = (true, STALE, generation);
                return Ok(());
            }
            self.capture_block(index, slot, capture)?;
        }
        self.shards[index].generation = generation;
        Ok(())
    }

    /// Captures a sub-shard as a block; where all its entries are vacant, that there is none.
    fn capture_block(&mut self, index: usize, slot: usize, capture: &mut Capture) -> Result<()> {
        let (key, codec, is_vacant) = (self.block_key(index, slot), capture.codec, self.is_vacant);
        let shard = &mut self.shards[index];
        let is_there = |entry: &&(K, V)| is_vacant.is_none_or(|is_vacant| !is_vacant(&entry.1));
        let count = if is_vacant.is_some() { shard.iter().filter(is_there).count() as u32 } else { shard.len };
        if count > 0 {
            capture.batch.put_with(&key, |bytes| {
                bytes.push(Layout::of(codec) as u8);
                bytes.extend_from_slice(&count.to_le_bytes());
                shard.iter().filter(is_there).try_for_each(|(key, value)| Layout::write(codec, key, value, bytes))
            })?;
        } else if shard.stored {
            capture.batch.delete(&key);
        }
        // What was looked at counts for the sweep's pace.
        capture.entries += u64::from(shard.len);
        (shard.stored, shard.saved, shard.open) = (count > 0, true, STALE);
        self.prune(index);
        Ok(())
    }

    /// Captures the dirty entries of a sub-shard, or those that nobody has used.
    fn clean(&mut self, index: usize, slot: usize, capture: &mut Capture, unused: bool) -> Result<()> {
        let prefix = entry_prefix(self.key_group(slot), self.namespace);
        let is_vacant = self.is_vacant;
        let captured = self.shards[index].clean(unused, |key, value| {
            let value = Some(value).filter(|value| is_vacant.is_none_or(|is_vacant| !is_vacant(value)));
            capture.entry(&prefix, key, value)
        })?;
        capture.entries += captured;
        Ok(())
    }

    fn key_group(&self, slot: usize) -> u16 {
        (slot >> (self.depth - self.depth_min)) as u16
    }

    /// See [`block_key`].
    fn block_key(&self, index: usize, slot: usize) -> Vec<u8> {
        let depth = self.shards[index].depth;
        let prefix = ((slot >> (self.depth - depth)) as u64).checked_shl(64 - u32::from(depth)).unwrap_or(0);
        block_key(self.depth_min, self.namespace, depth, prefix)
    }

    pub(super) fn freeze(&mut self) {
        self.generation += 1;
        self.swept = 0;
    }

    /// Captures up to about `entries` more; true when there is nothing left.
    pub(super) fn sweep(&mut self, entries: u64, capture: &mut Capture) -> Result<bool> {
        let until = capture.entries.saturating_add(entries);
        while self.swept < self.directory.len() {
            if capture.entries >= until {
                return Ok(false);
            }
            let slot = self.swept;
            if self.directory[slot] != NONE {
                let index = self.directory[slot] as usize;
                self.capture(index, slot, capture)?;
            }
            self.swept += 1;
        }
        Ok(true)
    }

    /// Whether every sub-shard has been captured in this generation.
    pub(super) fn is_swept(&self) -> bool {
        self.swept >= self.directory.len()
    }

    /// What was stored cannot be relied on: everything is written again.
    pub(super) fn unsave(&mut self) {
        for shard in &mut self.shards {
            shard.saved = false;
        }
    }

    /// The table goes away: its blocks are obsolete.
    pub(super) fn discard(&self, capture: &mut Capture) {
        let mut last = NONE;
        for (slot, index) in self.directory.iter().enumerate() {
            if *index != last && *index != NONE && self.shards[*index as usize].stored {
                capture.obsolete.push(self.block_key(*index as usize, slot));
            }
            last = *index;
        }
    }

    /// Whether the backend may have any entry that is not in here.
    pub(super) fn is_partial(&self) -> bool {
        self.partial || self.holds == Holds::Some
    }

    /// Whether the backend may have an entry of this key that is not in here.
    #[inline]
    pub(super) fn misses(&self, hash: u64, key: &K) -> bool {
        match self.directory[slot_of(hash, self.depth)] {
            NONE => self.holds == Holds::Some,
            index => {
                let shard = &self.shards[index as usize];
                shard.holds == Holds::Some && shard.find(hash, key).is_err()
            }
        }
    }

    /// Puts in an entry that the backend has, unless a newer one is in here.
    pub(super) fn load(&mut self, hash: u64, entry: (K, V), capture: &mut Capture) -> Result<()> {
        self.open_as(hash, capture, false)?;
        let shard = &mut self.shards[self.directory[slot_of(hash, self.depth)] as usize];
        self.len += usize::from(shard.load(hash, entry));
        // As it was: what has come is no change.
        shard.open = STALE;
        Ok(())
    }

    /// Captures what is dirty in the sub-shard at a slot and has not been used; the slot behind it. Not while a snapshot
    /// is swept.
    pub(super) fn write_back(&mut self, slot: usize, capture: &mut Capture) -> Result<usize> {
        match self.directory[slot] {
            NONE => Ok(slot + 1),
            index => {
                self.clean(index as usize, slot, capture, true)?;
                Ok(self.behind(index as usize, slot))
            }
        }
    }

    /// Lets go of what is neither dirty nor used in the sub-shard at a slot; the slot behind it.
    pub(super) fn evict(&mut self, slot: usize) -> usize {
        match self.directory[slot] {
            NONE => slot + 1,
            index => {
                let gone = self.shards[index as usize].evict();
                (self.len, self.partial) = (self.len - gone, self.partial || gone > 0);
                self.behind(index as usize, slot)
            }
        }
    }

    /// The slot behind those of a sub-shard.
    fn behind(&self, index: usize, slot: usize) -> usize {
        let span = 1 << (self.depth - self.shards[index].depth);
        slot / span * span + span
    }

    /// Slots of the directory.
    pub(super) fn slots(&self) -> usize {
        self.directory.len()
    }

    /// All entries, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.there(self.shards.iter())
    }

    /// Those of a key group.
    pub fn of_key_group(&self, key_group: u16) -> impl Iterator<Item = (&K, &V)> {
        let (first, bits) = (usize::from(key_group), self.depth - self.depth_min);
        let slots = self.directory.get(first << bits..(first + 1) << bits).unwrap_or_default();
        // All slots of a sub-shard are one run.
        let mut last = NONE;
        let shards = slots.iter().filter(move |index| std::mem::replace(&mut last, **index) != **index);
        self.there(shards.filter_map(|index| self.shards.get(*index as usize)))
    }

    /// Entries of sub-shards that are not vacant.
    fn there<'a>(&self, shards: impl Iterator<Item = &'a Shard<K, V>>) -> impl Iterator<Item = (&'a K, &'a V)> {
        let is_vacant = self.is_vacant;
        let is_there = move |value: &V| is_vacant.is_none_or(|is_vacant| !is_vacant(value));
        shards.flat_map(Shard::iter).filter(move |entry| is_there(&entry.1)).map(|(key, value)| (key, value))
    }

    /// The value of a key, if the table has it.
    pub(super) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        let shard = self.shards.get(self.directory[slot_of(hash, self.depth)] as usize)?;
        let value = shard.get(shard.find(hash, key).ok()?)?;
        self.is_vacant.is_none_or(|is_vacant| !is_vacant(value)).then_some(value)
    }
}

/// Where in a directory of this depth a hash is.
#[inline(always)]
pub(super) fn slot_of(hash: u64, depth: u8) -> usize {
    // In two steps, because a depth of 0 would shift by 64: one key group, one sub-shard.
    (hash >> 1 >> (63 - depth)) as usize
}

/// `key group (u16) | state (u8) | namespace (i64) | depth (u8) | shared bits (u64)`, big-endian, ordered.
pub(super) fn block_key(depth_min: u8, namespace: i64, depth: u8, prefix: u64) -> Vec<u8> {
    let key_group = prefix.checked_shr(64 - u32::from(depth_min)).unwrap_or(0) as u16;
    [&entry_prefix(key_group, namespace)[..], &[depth], &prefix.to_be_bytes()].concat()
}

/// What the keys of all entries of a namespace in a key group begin with.
pub(super) fn entry_prefix(key_group: u16, namespace: i64) -> [u8; 11] {
    let mut prefix = [0; 11];
    prefix[..2].copy_from_slice(&key_group_prefix(key_group));
    prefix[2] = STATE;
    prefix[3..].copy_from_slice(&((namespace as u64) ^ (1 << 63)).to_be_bytes());
    prefix
}

/// The namespace of an entry's key, and what comes behind it.
pub(super) fn split_entry_key(key: &[u8]) -> Option<(i64, &[u8])> {
    let (prefix, rest) = key.split_first_chunk::<11>()?;
    let namespace = prefix.get(3..)?.try_into().ok()?;
    (prefix[2] == STATE).then_some(((u64::from_be_bytes(namespace) ^ (1 << 63)) as i64, rest))
}

/// The key group of whatever key.
pub(super) fn key_group_of(key: &[u8]) -> Option<u16> {
    key.first_chunk().map(|key_group| u16::from_be_bytes(*key_group))
}

/// The first key behind all that begin with `prefix`.
pub(super) fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            break;
        }
    }
    key
}

/// Where a key group keeps the operator's watermark.
pub(super) fn watermark_key(key_group: u16) -> Vec<u8> {
    [&key_group_prefix(key_group)[..], &[META]].concat()
}

/// Whether this is the key of an operator's watermark.
pub(super) fn is_watermark_key(key: &[u8]) -> bool {
    key.len() == 3 && key[2] == META
}

/// The namespace in a block's key; `None` when it is no block's key.
pub(super) fn namespace_of(key: &[u8]) -> Option<i64> {
    split_entry_key(key).filter(|(_, rest)| rest.len() == 9).map(|(namespace, _)| namespace)
}
