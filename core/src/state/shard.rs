//! A sub-shard: a small open-addressing table that is serialised, split and grown as a whole.
//!
//! It is small, so that whatever is done to it as a whole is short: the longest pause of the state is one
//! sub-shard's. An entry lies in the first slot from its home on that was free, and there are two ways to find
//! it, because two things limit a look-up:
//! - **near**, in a state that the caches hold, a branch guessed wrong. So the tags of eight slots are one word,
//!   and are searched at once.
//! - **far**, the lines that come from memory, one of which costs as much as all the rest. So slots are asked
//!   one by one: mostly one line, where tags would be another.
use super::hash::{Key, hash_key};

/// Entries at which a sub-shard is split: five eighths of its slots, as many as it ever has taken.
pub(super) const ENTRIES_MAX: usize = 640;
/// Never a table's generation: this sub-shard cannot be changed as it is.
pub(super) const STALE: u32 = 0;

/// Where a state is taken to be: each look-up is right in either, and quick in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In the processor's own caches.
    Near,
    /// In memory.
    Far,
}

/// Tags that are searched at once.
const LANES: usize = 8;
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

type Slot<K, V> = Option<(K, V)>;

/// Slots that begin where a cache line does, so that few of them lie in two.
#[repr(align(64))]
struct Lines<K, V>([Slot<K, V>; LANES]);

/// The tag of a hash. Its bits find neither the sub-shard nor the slot; its top bit says that the slot is taken.
#[inline(always)]
fn tag(hash: u64) -> u8 {
    (hash >> 24) as u8 | 0x80
}

/// The lanes of `word` that have the tag, as their top bits. The lowest one is right, those above it may be
/// wrong: whoever asks compares keys anyway.
#[inline(always)]
fn same(word: u64, tag: u8) -> u64 {
    let zero_where_same = word ^ (u64::from(tag) * LOW);
    zero_where_same.wrapping_sub(LOW) & !zero_where_same & HIGH
}

#[inline(always)]
fn lane(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8
}

/// See the module. What every look-up needs of it is in one cache line.
#[repr(align(64))]
pub(super) struct Shard<K, V> {
    /// One a slot, and the first ones again at the end, so that eight can be read from any slot on.
    tags: Box<[u8]>,
    slots: Box<[Lines<K, V>]>,
    pub len: u32,
    /// The generation of the table in which it was last captured or found not to need it.
    pub generation: u32,
    /// The table's generation while it may be changed just so: captured, known to be changed, and not full.
    pub open: u32,
    /// Bits of the hash that all its entries share.
    pub depth: u8,
    /// The backend has a block under its key.
    pub stored: bool,
    /// And that block is what is in here.
    pub saved: bool,
}

impl<K: Key, V> Shard<K, V> {
    pub(super) fn new(depth: u8, generation: u32) -> Self {
        let (tags, slots) = Default::default();
        Self { tags, slots, len: 0, generation, open: STALE, depth, stored: false, saved: false }
    }

    /// As new, but with the memory that it has.
    pub(super) fn clear(&mut self, generation: u32) {
        let (mut tags, mut slots) = (std::mem::take(&mut self.tags), std::mem::take(&mut self.slots));
        tags.fill(0);
        for slot in slots.iter_mut().flat_map(|l| &mut l.0) {
            *slot = None;
        }
        *self = Self { tags, slots, ..Self::new(self.depth, generation) };
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        (self.slots.len() * LANES).wrapping_sub(1)
    }

    #[inline(always)]
    fn has(&self, at: usize, key: &K) -> bool {
        self.slots.get(at / LANES).is_some_and(|l| l.0[at % LANES].as_ref().is_some_and(|e| e.0 == *key))
    }

    /// The slot of a key, if it is in here.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, key: &K, reach: Reach) -> Option<usize> {
        match reach {
            Reach::Near => self.find_near(hash, key),
            Reach::Far => self.find_far(hash, key),
        }
    }

    #[inline(always)]
    fn find_near(&self, hash: u64, key: &K) -> Option<usize> {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        while let Some(tags) = self.tags.get(at..).and_then(|t| t.first_chunk()) {
            let word = u64::from_le_bytes(*tags);
            let mut same = same(word, tag(hash));
            while same != 0 {
                let slot = (at + lane(same)) & mask;
                if self.has(slot, key) {
                    return Some(slot);
                }
                same &= same - 1;
            }
            if word & HIGH != HIGH {
                break;
            }
            at = (at + LANES) & mask;
        }
        None
    }

    #[inline(always)]
    fn find_far(&self, hash: u64, key: &K) -> Option<usize> {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        while let Some(Some(entry)) = self.slots.get(at / LANES).map(|l| &l.0[at % LANES]) {
            if entry.0 == *key {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// The value in a slot.
    #[inline(always)]
    pub(super) fn value(&mut self, at: usize) -> Option<&mut V> {
        self.slots.get_mut(at / LANES).and_then(|l| l.0[at % LANES].as_mut()).map(|e| &mut e.1)
    }

    /// Brings the home of a hash near; whether it is taken.
    #[inline(always)]
    pub(super) fn touch(&self, hash: u64) -> bool {
        let home = hash as usize & self.mask();
        self.slots.get(home / LANES).is_some_and(|l| l.0[home % LANES].is_some())
    }

    /// Puts in a key that is not in here, and says where.
    pub(super) fn insert(&mut self, hash: u64, key: K, value: V) -> usize {
        if (self.len as usize + 1) * 8 > self.slots.len() * LANES * 5 {
            self.grow();
        }
        self.len += 1;
        self.place(hash, (key, value))
    }

    #[cold]
    fn grow(&mut self) {
        let lines = (self.slots.len() * 2).max(1);
        self.tags = vec![0; (lines + 1) * LANES].into();
        let bigger = (0..lines).map(|_| Lines([const { None }; LANES])).collect();
        let old = std::mem::replace(&mut self.slots, bigger);
        for entry in old.into_iter().flat_map(|l| l.0).flatten() {
            self.place(hash_key(&entry.0), entry);
        }
    }

    fn place(&mut self, hash: u64, entry: (K, V)) -> usize {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        while self.tags[at] != 0 {
            at = (at + 1) & mask;
        }
        self.tags[at] = tag(hash);
        if at < LANES {
            self.tags[mask + 1 + at] = tag(hash);
        }
        self.slots[at / LANES].0[at % LANES] = Some(entry);
        at
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.slots.iter().flat_map(|l| l.0.iter().flatten())
    }

    /// Moves the entries whose next bit of the hash is set into a shard of their own.
    pub(super) fn split(&mut self) -> Self {
        let bit = 1u64 << (63 - self.depth);
        let new = || Self::new(self.depth + 1, self.generation);
        let (mut low, mut high) = (new(), new());
        for (key, value) in std::mem::take(&mut self.slots).into_iter().flat_map(|l| l.0).flatten() {
            let hash = hash_key(&key);
            let half = if hash & bit == 0 { &mut low } else { &mut high };
            half.insert(hash, key, value);
        }
        *self = low;
        high
    }
}
