//! A sub-shard: a small open-addressing table that is serialised, split and grown as a whole.
//!
//! It is small, so that whatever is done to it as a whole is short: the longest pause of the state is one
//! sub-shard's. And it is flat: slots lie in buckets of four, a bucket of small slots is one aligned pair of
//! cache lines, which the processor fetches together, and its four tags are compared without a branch, so
//! that a look-up costs one miss and hardly ever a wrong guess. Full buckets overflow into the next.
use std::num::NonZeroU32;

/// Entries at which a sub-shard is split.
pub(super) const ENTRIES_MAX: u32 = 400;
/// Slots of a bucket.
const LANES: usize = 4;

pub(super) struct Slot<K, V> {
    tag: NonZeroU32,
    pub key: K,
    pub value: V,
}

#[repr(align(128))]
struct Bucket<K, V>([Option<Slot<K, V>>; LANES]);

impl<K, V> Bucket<K, V> {
    /// Which lanes have this tag, and which are free, as bits.
    #[inline]
    fn lanes(&self, tag: u32) -> (u32, u32) {
        let (mut same, mut free) = (0, 0);
        for (lane, slot) in self.0.iter().enumerate() {
            let found = slot.as_ref().map_or(0, |s| s.tag.get());
            same |= u32::from(found == tag) << lane;
            free |= u32::from(found == 0) << lane;
        }
        (same, free)
    }
}

/// The low half of the hash with its top bit set: finds the bucket, tells most keys apart, and never is 0.
#[inline]
pub(super) fn tag(hash: u64) -> NonZeroU32 {
    NonZeroU32::MIN | (hash as u32 | 1 << 31)
}

pub(super) struct Shard<K, V> {
    buckets: Box<[Bucket<K, V>]>,
    pub len: u32,
    /// The generation of the table in which it was last looked at by a snapshot or changed.
    pub generation: u32,
    /// Bits of the hash that all its entries share.
    pub depth: u8,
    /// The backend has a block under its key.
    pub stored: bool,
    /// And that block is what is in here.
    pub saved: bool,
}

impl<K: Eq, V> Shard<K, V> {
    pub(super) fn new(depth: u8, generation: u32) -> Self {
        Self { buckets: Box::default(), len: 0, generation, depth, stored: false, saved: false }
    }

    /// Words of the cache lines where the key is, if it is in here: see `Table::touch`.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u32 {
        let mask = self.buckets.len().wrapping_sub(1);
        self.buckets.get(tag(hash).get() as usize & mask).map_or(0, |bucket| {
            let word = |lane: usize| bucket.0[lane].as_ref().map_or(0, |s| s.tag.get());
            word(0).wrapping_add(word(LANES - 1))
        })
    }

    /// Bucket and lane of the key, or of the free slot where it belongs. There is always a free one.
    #[inline]
    fn find(&self, tag: NonZeroU32, key: &K) -> (usize, usize, bool) {
        let mask = self.buckets.len() - 1;
        let mut index = tag.get() as usize & mask;
        loop {
            let bucket = &self.buckets[index];
            let (mut same, free) = bucket.lanes(tag.get());
            while same != 0 {
                let lane = same.trailing_zeros() as usize % LANES;
                if bucket.0[lane].as_ref().is_some_and(|s| s.key == *key) {
                    return (index, lane, true);
                }
                same &= same - 1;
            }
            if free != 0 {
                return (index, free.trailing_zeros() as usize % LANES, false);
            }
            index = (index + 1) & mask;
        }
    }

    #[inline]
    pub(super) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        if self.buckets.is_empty() {
            return None;
        }
        let (index, lane, found) = self.find(tag(hash), key);
        if found { self.buckets[index].0[lane].as_ref().map(|s| &s.value) } else { None }
    }

    /// The key's value, made by `init` if there is none; false when it was.
    #[inline]
    pub(super) fn entry(&mut self, hash: u64, key: K, init: impl FnOnce() -> V) -> (&mut V, bool) {
        if self.is_full() {
            self.grow();
        }
        let tag = tag(hash);
        let (index, lane, found) = self.find(tag, &key);
        self.len += u32::from(!found);
        let slot = self.buckets[index].0[lane].get_or_insert_with(|| Slot { tag, key, value: init() });
        (&mut slot.value, found)
    }

    /// At four fifths.
    #[inline]
    fn is_full(&self) -> bool {
        (self.len as usize + 1) * 5 > self.buckets.len() * LANES * 4
    }

    #[cold]
    fn grow(&mut self) {
        let bigger = (0..(self.buckets.len() * 2).max(2)).map(|_| Bucket([const { None }; LANES])).collect();
        let old = std::mem::replace(&mut self.buckets, bigger);
        for slot in old.into_iter().flat_map(|b| b.0).flatten() {
            self.place(slot);
        }
    }

    /// Puts a slot into the first free place; its key is not in here.
    fn place(&mut self, slot: Slot<K, V>) {
        let mask = self.buckets.len() - 1;
        let mut index = slot.tag.get() as usize & mask;
        loop {
            if let Some(free) = self.buckets[index].0.iter_mut().find(|s| s.is_none()) {
                *free = Some(slot);
                return;
            }
            index = (index + 1) & mask;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<K, V>> {
        self.buckets.iter().flat_map(|b| b.0.iter().flatten())
    }

    /// Moves the entries whose next bit of the hash is set into a shard of their own.
    pub(super) fn split(&mut self, hash: impl Fn(&K) -> u64) -> Self {
        let bit = 1u64 << (63 - self.depth);
        let (mut low, mut high) = (Self::new(self.depth + 1, self.generation), Self::new(self.depth + 1, self.generation));
        for slot in std::mem::take(&mut self.buckets).into_iter().flat_map(|b| b.0).flatten() {
            let half = if hash(&slot.key) & bit == 0 { &mut low } else { &mut high };
            if half.is_full() {
                half.grow();
            }
            half.len += 1;
            half.place(slot);
        }
        *self = low;
        high
    }
}
