//! A sub-shard: a small open-addressing table that is serialised, split and grown as a whole.
//!
//! It is small, so that whatever is done to it as a whole is short: the longest pause of the state is one
//! sub-shard's. Slots lie in groups of eight. An entry has a home, a lane of a group, and lies in the first lane
//! from there on, round the group, that was free; when the group was full, in the next one. There are two ways to
//! find it, because two things limit a look-up:
//! - **near**, in a state that the caches hold, a branch guessed wrong. So the tags of a group are one word, and
//!   are searched at once.
//! - **far**, the lines that come from memory, one of which costs as much as all the rest. So slots are asked one
//!   by one, from home on: mostly that is one line, where tags would be another.
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

/// Slots of a group.
const LANES: usize = 8;
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

type Slot<K, V> = Option<(K, V)>;

/// It begins where a cache line does, so that few slots lie in two.
#[repr(align(64))]
struct Group<K, V>([Slot<K, V>; LANES]);

/// The tag of a hash in each lane. Its bits find neither the sub-shard nor the home; its top bit says that the
/// slot is taken.
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

/// See the module. What every look-up needs of it is in one cache line.
#[repr(align(64))]
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
        let (mut tags, mut groups) = (std::mem::take(&mut self.tags), std::mem::take(&mut self.groups));
        for (tags, group) in tags.iter_mut().zip(&mut groups).filter(|(tags, _)| **tags != 0) {
            *tags = 0;
            group.0 = [const { None }; LANES];
        }
        *self = Self { tags, groups, ..Self::new(self.depth, generation) };
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (hash as usize / LANES) & self.groups.len().wrapping_sub(1)
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
        let mut at = self.home(hash);
        while let (Some(word), Some(group)) = (self.tags.get(at), self.groups.get(at)) {
            let mut same = same(*word, tags(hash));
            while same != 0 {
                let lane = lane(same);
                if group.0[lane].as_ref().is_some_and(|e| e.0 == *key) {
                    return Some(at * LANES + lane);
                }
                same &= same - 1;
            }
            if *word & HIGH != HIGH {
                break;
            }
            at = (at + 1) & (self.groups.len() - 1);
        }
        None
    }

    #[inline(always)]
    fn find_far(&self, hash: u64, key: &K) -> Option<usize> {
        let mut at = self.home(hash);
        while let Some(group) = self.groups.get(at) {
            for lane in 0..LANES {
                let lane = (hash as usize + lane) % LANES;
                match &group.0[lane] {
                    Some(entry) if entry.0 == *key => return Some(at * LANES + lane),
                    Some(_) => {}
                    None => return None,
                }
            }
            at = (at + 1) & (self.groups.len() - 1);
        }
        None
    }

    /// The value in a slot.
    #[inline(always)]
    pub(super) fn value(&mut self, at: usize) -> Option<&mut V> {
        self.groups.get_mut(at / LANES).and_then(|g| g.0[at % LANES].as_mut()).map(|e| &mut e.1)
    }

    /// Brings the home of a hash near; whether it is taken.
    #[inline(always)]
    pub(super) fn touch(&self, hash: u64) -> bool {
        self.groups.get(self.home(hash)).is_some_and(|g| g.0[hash as usize % LANES].is_some())
    }

    /// Puts in a key that is not in here, and says where.
    pub(super) fn insert(&mut self, hash: u64, key: K, value: V) -> usize {
        if (self.len as usize + 1) * 8 > self.groups.len() * LANES * 5 {
            self.grow();
        }
        self.len += 1;
        self.place(hash, (key, value))
    }

    #[cold]
    fn grow(&mut self) {
        let groups = (self.groups.len() * 2).max(1);
        self.tags = vec![0; groups].into();
        let bigger = (0..groups).map(|_| Group([const { None }; LANES])).collect();
        let old = std::mem::replace(&mut self.groups, bigger);
        for entry in old.into_iter().flat_map(|g| g.0).flatten() {
            self.place(hash_key(&entry.0), entry);
        }
    }

    fn place(&mut self, hash: u64, entry: (K, V)) -> usize {
        let mut at = self.home(hash);
        while self.tags[at] & HIGH == HIGH {
            at = (at + 1) & (self.groups.len() - 1);
        }
        let first = hash as u32 % LANES as u32;
        let free = (!self.tags[at] & HIGH).rotate_right(8 * first);
        let lane = (lane(free) + first as usize) % LANES;
        self.tags[at] |= tags(hash) & 0xff << (8 * lane);
        self.groups[at].0[lane] = Some(entry);
        at * LANES + lane
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
