//! A sub-shard: a small open-addressing table that is serialised, split and grown as a whole.
//!
//! It is small, so that whatever is done to it as a whole is short: the longest pause of the state is one
//! sub-shard's. Slots lie in groups of eight, whose tags are one word and are searched at once. A key's group is
//! its home, or if that was full the first one that was not of `home ^ 1`, `home ^ 2`, ...
//!
//! In a table over a backend that caches, each entry has two marks besides: that it differs from what the backend has,
//! and that it has been used since somebody last looked for one that could go. An entry leaves only with others, when
//! the whole sub-shard is built anew without them: a slot that became free would cut off those behind it. So does one
//! that its operator has made *vacant* ([`prune`](Shard::prune)): until then it is in the way of nobody.
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
    /// A word a group, in a table that caches: the low byte says which entries are dirty, the high one which are used.
    marks: Box<[u16]>,
    pub len: u32,
    /// The generation of the table in which it was last captured or found not to need it.
    pub generation: u32,
    /// The table's generation while it may be changed just so: captured, known to be changed, and not full.
    pub open: u32,
    /// Bits of the hash that all its entries share.
    pub depth: u8,
    /// The backend has a block under its key.
    pub stored: bool,
    /// And that block is what is in here; in a table that caches, no entry is dirty.
    pub saved: bool,
    /// How much of what there is is in here.
    pub holds: Holds,
}

/// Which of the entries of its hashes a sub-shard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// All, and for ever.
    Resident,
    /// All, as long as none has to go: who looks for another need not ask the backend.
    All,
    /// Some; others may be in the backend.
    Some,
}

/// Of an entry that has just been changed.
const CHANGED: u16 = 0x0101;
/// Of one that has come from the backend.
const LOADED: u16 = 0x0100;
const DIRTY: u16 = 0x00ff;

/// Groups that have room for so many entries.
fn groups_for(entries: usize) -> usize {
    (entries * 8 / (LANES * 5) + 1).next_power_of_two()
}

impl<K: Key, V> Shard<K, V> {
    pub(super) fn new(depth: u8, generation: u32, holds: Holds) -> Self {
        let (tags, groups, marks) = Default::default();
        let (len, open, stored, saved) = (0, STALE, false, false);
        Self { tags, groups, marks, len, generation, open, depth, stored, saved, holds }
    }

    /// As new, but with the memory that it has.
    pub(super) fn clear(&mut self, generation: u32) {
        let (mut tags, mut groups) = (std::mem::take(&mut self.tags), std::mem::take(&mut self.groups));
        let mut marks = std::mem::take(&mut self.marks);
        tags.fill(0);
        marks.fill(0);
        groups.iter_mut().flat_map(|g| &mut g.0).for_each(|slot| *slot = None);
        *self = Self { tags, groups, marks, ..Self::new(self.depth, generation, self.holds) };
    }

    /// Room for so many groups of slots, with nothing in them.
    fn make_room(&mut self, groups: usize) -> Box<[Group<K, V>]> {
        let marks = if self.holds == Holds::Resident { 0 } else { groups };
        (self.tags, self.marks, self.len) = (vec![0; groups].into(), vec![0; marks].into(), 0);
        std::mem::replace(&mut self.groups, (0..groups).map(|_| Group([const { None }; LANES])).collect())
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
    pub(super) fn get(&self, at: usize) -> Option<&V> {
        self.groups.get(at / LANES).and_then(|g| g.0[at % LANES].as_ref()).map(|entry| &entry.1)
    }

    /// The value in a slot, to be changed.
    #[inline(always)]
    pub(super) fn value(&mut self, at: usize) -> Option<&mut V> {
        if let Some(marks) = self.marks.get_mut(at / LANES) {
            *marks |= CHANGED << (at % LANES);
        }
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
        self.rebuild((self.groups.len() * 2).max(1), |_, _| true);
    }

    /// Builds it anew without the vacant entries, if those are a quarter or more; how many have gone. One that the
    /// backend has not been told of stays until it has, and so does one for which it would be asked again.
    pub(super) fn prune(&mut self, is_vacant: fn(&V) -> bool) -> usize {
        let holds = self.holds;
        let goes = |marks: u16, value: &V| match holds {
            Holds::Resident => is_vacant(value),
            Holds::All => marks & DIRTY == 0 && is_vacant(value),
            Holds::Some => false,
        };
        let marks = |at: usize| self.marks.get(at / LANES).map_or(0, |marks| (marks >> (at % LANES)) & CHANGED);
        let slots = self.groups.iter().flat_map(|group| &group.0).enumerate();
        let gone = slots.filter(|(at, slot)| slot.as_ref().is_some_and(|entry| goes(marks(*at), &entry.1))).count();
        if gone == 0 || gone * 4 < self.len as usize {
            return 0;
        }
        self.rebuild(groups_for(self.len as usize - gone), |marks, value| !goes(marks, value));
        self.open = STALE;
        gone
    }

    /// Builds it anew with so many groups, or more if they are needed, out of the entries that `keep` says. Nobody has
    /// used them since.
    fn rebuild(&mut self, groups: usize, keep: impl Fn(u16, &V) -> bool) {
        let marks = std::mem::take(&mut self.marks);
        let old = self.make_room(groups);
        for (group, entries) in old.into_iter().enumerate() {
            let marks = marks.get(group).copied().unwrap_or(0);
            for (lane, entry) in entries.0.into_iter().enumerate() {
                let marks = (marks >> lane) & CHANGED;
                if let Some(entry) = entry.filter(|entry| keep(marks, &entry.1)) {
                    self.put(hash_key(&entry.0), entry, marks);
                }
            }
        }
    }

    /// Lets go of the entries that nobody has used since the last time and that the backend has as they are; how many
    /// those were.
    pub(super) fn evict(&mut self) -> usize {
        let stays = |marks: u16, _: &V| marks != 0;
        let lanes = |marks: u16| ((marks | marks >> 8) & DIRTY).count_ones() as usize;
        let left: usize = self.marks.iter().map(|marks| lanes(*marks)).sum();
        let gone = (self.len as usize).saturating_sub(left);
        if gone > 0 {
            self.rebuild(groups_for(left), stays);
            self.holds = Holds::Some;
            self.open = STALE;
        }
        self.marks.iter_mut().for_each(|marks| *marks &= DIRTY);
        gone
    }

    /// Puts in an entry that the backend has, unless its key is in here.
    pub(super) fn load(&mut self, hash: u64, entry: (K, V)) -> bool {
        let is_new = self.find(hash, &entry.0).is_err();
        if is_new {
            self.put(hash, entry, LOADED);
        }
        is_new
    }

    /// Puts in an entry whose key is not in here.
    fn put(&mut self, hash: u64, entry: (K, V), mark: u16) {
        if self.is_full() {
            self.grow();
        }
        let (home, mut far) = (self.home(hash), 0);
        while self.tags[home ^ far] & HIGH == HIGH {
            far += 1;
        }
        let lane = lane(!self.tags[home ^ far] & HIGH);
        self.fill((home ^ far) * LANES + lane, hash, entry);
        if let Some(marks) = self.marks.get_mut(home ^ far) {
            *marks |= mark << lane;
        }
    }

    /// Hands on the entries that the backend does not have as they are, or those of them that nobody has used; from then
    /// on it does. How many those were.
    ///
    /// # Errors
    /// That of the first of which `store` fails.
    pub(super) fn clean<E>(&mut self, unused: bool, mut store: impl FnMut(&K, &V) -> Result<(), E>) -> Result<u64, E> {
        let mut count = 0;
        for (group, marks) in self.groups.iter().zip(&mut self.marks) {
            let dirty = *marks & DIRTY & if unused { !(*marks >> 8) } else { DIRTY };
            let mut left = dirty;
            while left != 0 {
                if let Some((key, value)) = &group.0[left.trailing_zeros() as usize] {
                    store(key, value)?;
                    count += 1;
                }
                left &= left - 1;
            }
            *marks &= !dirty;
        }
        Ok(count)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.groups.iter().flat_map(|g| g.0.iter().flatten())
    }

    /// Moves the entries whose next bit of the hash is set into a shard of their own. Each has half the slots, and
    /// more if its half of the entries is the larger.
    pub(super) fn split(&mut self) -> Self {
        let bit = 1u64 << (63 - self.depth);
        let half = || {
            let mut half = Self::new(self.depth + 1, self.generation, self.holds);
            half.make_room(self.groups.len() / 2);
            half
        };
        let (mut low, mut high) = (half(), half());
        let marks = std::mem::take(&mut self.marks);
        for (group, entries) in std::mem::take(&mut self.groups).into_iter().enumerate() {
            let marks = marks.get(group).copied().unwrap_or(0);
            for (lane, entry) in entries.0.into_iter().enumerate() {
                let Some(entry) = entry else { continue };
                let hash = hash_key(&entry.0);
                let to = if hash & bit == 0 { &mut low } else { &mut high };
                to.put(hash, entry, (marks >> lane) & CHANGED);
            }
        }
        *self = low;
        high
    }
}
