//! A sub-shard: a small open-addressing table that is serialised, split and grown as a whole.
//!
//! It is small, so that whatever is done to it as a whole is short: the longest pause of the state is one
//! sub-shard's. Slots lie in groups of eight, whose tags are one word and are searched at once. A key's group is
//! its home, or if that was full the first one that was not of `home ^ 1`, `home ^ 2`, ...
//!
//! Which tags a look-up needs is known from the hash, and which slot from the tags, before any key is compared.
//! In a state larger than the caches that is what counts: what will be looked up is asked for ahead, first its tags
//! and then its slot (`touch_tags`, `touch_slot`; see `cursor`).
use super::{
    hash::{Key, hash_key},
    prefetch::prefetch,
};

/// Entries at which a sub-shard is split: five eighths of 2,048 slots, as many as it ever has taken.
pub(super) const ENTRIES_MAX: usize = 1280;
/// Never a table's generation: this sub-shard cannot be changed as it is.
pub(super) const STALE: u32 = 0;

/// Slots of a group.
const LANES: usize = 8;
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

type Slot<K, V> = Option<(K, V)>;

/// It begins where a cache line does, so that few slots lie in two.
#[repr(align(64))]
struct Group<K, V>([Slot<K, V>; LANES]);

/// The tag of a hash. Its bits find neither the sub-shard nor the group; its top bit says that the slot is taken.
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
    /// A word a group: a byte a slot, 0 where it is free.
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
        let (mut tags, mut groups) = (std::mem::take(&mut self.tags), std::mem::take(&mut self.groups));
        tags.fill(0);
        groups.iter_mut().flat_map(|g| &mut g.0).for_each(|slot| *slot = None);
        *self = Self { tags, groups, ..Self::new(self.depth, generation) };
    }

    /// The group of a hash.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.groups.len().wrapping_sub(1)
    }

    /// Whether this key is in a slot.
    #[inline(always)]
    pub(super) fn has(&self, at: usize, key: &K) -> bool {
        self.groups.get(at / LANES).is_some_and(|g| g.0[at % LANES].as_ref().is_some_and(|e| e.0 == *key))
    }

    /// The slot of a key; if it is not in here, the one that it would have.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, key: &K) -> Result<usize, usize> {
        let home = self.home(hash);
        let mut far = 0;
        while let Some(word) = self.tags.get(home ^ far) {
            let mut same = same(*word, tag(hash));
            while same != 0 {
                let at = (home ^ far) * LANES + lane(same);
                if self.has(at, key) {
                    return Ok(at);
                }
                same &= same - 1;
            }
            let free = !word & HIGH;
            if free != 0 {
                return Err((home ^ far) * LANES + lane(free));
            }
            far += 1;
        }
        Err(usize::MAX)
    }

    /// The value in a slot.
    #[inline(always)]
    pub(super) fn value(&mut self, at: usize) -> Option<&mut V> {
        self.groups.get_mut(at / LANES).and_then(|g| g.0[at % LANES].as_mut()).map(|e| &mut e.1)
    }

    /// Asks for the tags among which that of a hash is.
    #[inline(always)]
    pub(super) fn touch_tags(&self, hash: u64) {
        if let Some(word) = self.tags.get(self.home(hash)) {
            prefetch(word);
        }
    }

    /// Asks for the slot in which the key of a hash most likely is, and tells which it is. Without a branch on which
    /// it is: nobody could guess it. If no tag is the key's, asks for the slot that it will have, and tells none.
    #[inline(always)]
    pub(super) fn touch_slot(&self, hash: u64) -> u32 {
        let home = self.home(hash);
        let (Some(word), Some(group)) = (self.tags.get(home), self.groups.get(home)) else { return u32::MAX };
        let same = same(*word, tag(hash));
        let lanes = if same == 0 { !word & HIGH } else { same };
        let lane = lane(lanes | 1 << 63);
        prefetch(&group.0[lane]);
        if same == 0 { u32::MAX } else { (home * LANES + lane) as u32 }
    }

    /// Whether one more entry would be too many for its slots.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.len as usize * 8 >= self.groups.len() * LANES * 5
    }

    /// Puts an entry where `find` says that its key would be; false where there is no such slot.
    #[inline(always)]
    pub(super) fn fill(&mut self, at: usize, hash: u64, entry: (K, V)) -> bool {
        let place = self.tags.get_mut(at / LANES).zip(self.groups.get_mut(at / LANES));
        let is_there = place.is_some();
        if let Some((word, group)) = place {
            *word |= u64::from(tag(hash)) << (at % LANES * 8);
            group.0[at % LANES] = Some(entry);
            self.len += 1;
        }
        is_there
    }

    /// Doubles its slots.
    #[cold]
    pub(super) fn grow(&mut self) {
        let bigger = Self::slots((self.groups.len() * 2).max(1));
        self.tags = bigger.0;
        let old = std::mem::replace(&mut self.groups, bigger.1);
        self.len = 0;
        old.into_iter().flat_map(|g| g.0).flatten().for_each(|entry| self.put(hash_key(&entry.0), entry));
    }

    fn slots(groups: usize) -> (Box<[u64]>, Box<[Group<K, V>]>) {
        (vec![0; groups].into(), (0..groups).map(|_| Group([const { None }; LANES])).collect())
    }

    /// Puts in an entry whose key is not in here.
    fn put(&mut self, hash: u64, entry: (K, V)) {
        if self.is_full() {
            self.grow();
        }
        let (home, mut far) = (self.home(hash), 0);
        while self.tags[home ^ far] & HIGH == HIGH {
            far += 1;
        }
        let free = lane(!self.tags[home ^ far] & HIGH);
        self.fill((home ^ far) * LANES + free, hash, entry);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.groups.iter().flat_map(|g| g.0.iter().flatten())
    }

    /// Moves the entries whose next bit of the hash is set into a shard of their own. Each has half the slots, and
    /// more if its half of the entries is the larger.
    pub(super) fn split(&mut self) -> Self {
        let bit = 1u64 << (63 - self.depth);
        let half = || {
            let (tags, groups) = Self::slots(self.groups.len() / 2);
            Self { tags, groups, ..Self::new(self.depth + 1, self.generation) }
        };
        let (mut low, mut high) = (half(), half());
        for entry in std::mem::take(&mut self.groups).into_iter().flat_map(|g| g.0).flatten() {
            let hash = hash_key(&entry.0);
            if hash & bit == 0 { low.put(hash, entry) } else { high.put(hash, entry) }
        }
        *self = low;
        high
    }
}
