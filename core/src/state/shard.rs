//! A sub-shard: a small open-addressing table that is serialised, split and grown as a whole.
//!
//! It is small, so that whatever is done to it as a whole is short: the longest pause of the state is one
//! sub-shard's. And a look-up hardly ever branches on what it finds, because a branch guessed wrong costs more
//! than a cache miss: it forbids the processor to begin the misses of the records behind. So slots lie in
//! groups of eight, a group's tags are one word that is searched at once, and three eighths stay free, so
//! that few groups overflow into the next.
use super::hash::{Key, hash_key};

/// Entries at which a sub-shard is split.
pub(super) const ENTRIES_MAX: u32 = 320;
/// Never a table's generation: this sub-shard cannot be changed as it is.
pub(super) const STALE: u32 = 0;

/// Slots of a group.
const LANES: usize = 8;
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

#[repr(align(64))]
struct Group<K, V>([Option<(K, V)>; LANES]);

/// The tag of a hash in each lane. Its bits find neither the sub-shard nor the group; its top bit says that
/// the slot is taken.
#[inline(always)]
fn tags(hash: u64) -> u64 {
    (hash >> 24 & 0x7f | 0x80) * LOW
}

/// The lanes of `word` that have the tag, as their top bits. The lowest one is right, those above it may be
/// wrong: whoever asks compares keys anyway.
#[inline(always)]
fn same(word: u64, tags: u64) -> u64 {
    let zero_where_same = word ^ tags;
    zero_where_same.wrapping_sub(LOW) & !zero_where_same & HIGH
}

#[inline(always)]
fn lane(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8 % LANES
}

pub(super) struct Shard<K, V> {
    tags: Box<[u64]>,
    groups: Box<[Group<K, V>]>,
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
        let (tags, groups) = Default::default();
        Self { tags, groups, len: 0, generation, open: STALE, depth, stored: false, saved: false }
    }

    /// As new, but with the memory that it has.
    pub(super) fn clear(&mut self, generation: u32) {
        let (tags, mut groups) = (std::mem::take(&mut self.tags), std::mem::take(&mut self.groups));
        for slot in groups.iter_mut().flat_map(|g| &mut g.0) {
            *slot = None;
        }
        *self = Self { groups, ..Self::new(self.depth, generation) };
        self.tags = tags;
        self.tags.fill(0);
    }

    /// Changes the value of a key; gives `change` back when the key is not in here.
    #[inline(always)]
    pub(super) fn change<R, F: FnOnce(&mut V) -> R>(&mut self, hash: u64, key: &K, change: F) -> Result<R, F> {
        let mask = self.tags.len().wrapping_sub(1);
        let mut group = hash as usize & mask;
        while let (Some(word), Some(slots)) = (self.tags.get(group), self.groups.get_mut(group)) {
            let mut same = same(*word, tags(hash));
            while same != 0 {
                if let Some((_, value)) = slots.0[lane(same)].as_mut().filter(|e| e.0 == *key) {
                    return Ok(change(value));
                }
                same &= same - 1;
            }
            if *word & HIGH != HIGH {
                break;
            }
            group = (group + 1) & mask;
        }
        Err(change)
    }

    /// The same, where the key most likely is at `slot`.
    #[inline(always)]
    pub(super) fn change_at<R, F: FnOnce(&mut V) -> R>(&mut self, slot: usize, key: &K, change: F) -> Result<R, F> {
        let entry = self.groups.get_mut(slot / LANES).and_then(|g| g.0[slot % LANES].as_mut());
        match entry.filter(|e| e.0 == *key) {
            Some((_, value)) => Ok(change(value)),
            None => Err(change),
        }
    }

    /// The slot where the key of this hash most likely is, without a branch.
    #[inline(always)]
    pub(super) fn locate(&self, hash: u64) -> usize {
        let group = hash as usize & self.tags.len().wrapping_sub(1);
        let word = self.tags.get(group).copied().unwrap_or_default();
        group * LANES + lane(same(word, tags(hash)))
    }

    /// Brings a slot near; whether it is taken.
    #[inline(always)]
    pub(super) fn touch(&self, slot: usize) -> bool {
        self.groups.get(slot / LANES).is_some_and(|g| g.0[slot % LANES].is_some())
    }

    /// Puts in a key that is not in here.
    pub(super) fn insert(&mut self, hash: u64, key: K, value: V) {
        if (self.len as usize + 1) * 8 > self.tags.len() * LANES * 5 {
            self.grow();
        }
        self.len += 1;
        self.place(hash, (key, value));
    }

    #[cold]
    fn grow(&mut self) {
        let groups = (self.tags.len() * 2).max(1);
        self.tags = vec![0; groups].into();
        let bigger = (0..groups).map(|_| Group([const { None }; LANES])).collect();
        let old = std::mem::replace(&mut self.groups, bigger);
        for entry in old.into_iter().flat_map(|g| g.0).flatten() {
            self.place(hash_key(&entry.0), entry);
        }
    }

    fn place(&mut self, hash: u64, entry: (K, V)) {
        let mask = self.tags.len() - 1;
        let mut group = hash as usize & mask;
        while self.tags[group] & HIGH == HIGH {
            group = (group + 1) & mask;
        }
        let lane = lane(!self.tags[group] & HIGH);
        self.tags[group] |= tags(hash) & 0xff << (8 * lane);
        self.groups[group].0[lane] = Some(entry);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.groups.iter().flat_map(|g| g.0.iter().flatten())
    }

    /// Moves the entries whose next bit of the hash is set into a shard of their own.
    pub(super) fn split(&mut self) -> Self {
        let bit = 1u64 << (63 - self.depth);
        let new = || Self::new(self.depth + 1, self.generation);
        let (mut low, mut high) = (new(), new());
        for (key, value) in std::mem::take(&mut self.groups).into_iter().flat_map(|g| g.0).flatten() {
            let hash = hash_key(&key);
            let half = if hash & bit == 0 { &mut low } else { &mut high };
            half.insert(hash, key, value);
        }
        *self = low;
        high
    }
}
