//! A sub-shard: a small open-addressing table that is serialised, split and grown as a whole.
//!
//! It is flat, one slot an entry, so that looking a key up costs one cache line beyond the header, and
//! small, so that whatever is done to it as a whole is short: the longest pause of the state is one
//! sub-shard's.
use std::num::NonZeroU32;

/// Entries at which a sub-shard is split.
pub(super) const ENTRIES_MAX: u32 = 400;

pub(super) struct Slot<K, V> {
    tag: NonZeroU32,
    pub key: K,
    pub value: V,
}

/// The low half of the hash with its top bit set: finds the slot, tells most keys apart, and never is 0.
#[inline]
pub(super) fn tag(hash: u64) -> NonZeroU32 {
    NonZeroU32::MIN | (hash as u32 | 1 << 31)
}

pub(super) struct Shard<K, V> {
    slots: Box<[Option<Slot<K, V>>]>,
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
        Self { slots: Box::default(), len: 0, generation, depth, stored: false, saved: false }
    }

    /// A word of the cache line where the key is, if it is in here: see `Table::touch`.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u32 {
        let mask = self.slots.len().wrapping_sub(1);
        match self.slots.get(tag(hash).get() as usize & mask) {
            Some(Some(slot)) => slot.tag.get(),
            _ => 0,
        }
    }

    /// The index of the key's slot, or of the free slot where it belongs. There is always a free one.
    #[inline]
    fn find(&self, tag: NonZeroU32, key: &K) -> (usize, bool) {
        let mask = self.slots.len() - 1;
        let mut index = tag.get() as usize & mask;
        loop {
            match &self.slots[index] {
                None => return (index, false),
                Some(slot) if slot.tag == tag && slot.key == *key => return (index, true),
                Some(_) => index = (index + 1) & mask,
            }
        }
    }

    #[inline]
    pub(super) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        if self.slots.is_empty() {
            return None;
        }
        let (index, found) = self.find(tag(hash), key);
        if found { self.slots[index].as_ref().map(|s| &s.value) } else { None }
    }

    /// The key's value, made by `init` if there is none; false when it was.
    #[inline]
    pub(super) fn entry(&mut self, hash: u64, key: K, init: impl FnOnce() -> V) -> (&mut V, bool) {
        if (self.len as usize + 1) * 5 > self.slots.len() * 4 {
            self.grow();
        }
        let tag = tag(hash);
        let (index, found) = self.find(tag, &key);
        self.len += u32::from(!found);
        let slot = self.slots[index].get_or_insert_with(|| Slot { tag, key, value: init() });
        (&mut slot.value, found)
    }

    #[cold]
    fn grow(&mut self) {
        let bigger = (0..(self.slots.len() * 2).max(8)).map(|_| None).collect();
        let old = std::mem::replace(&mut self.slots, bigger);
        for slot in old.into_iter().flatten() {
            self.place(slot);
        }
    }

    /// Puts a slot into the first free place; its key is not in here.
    fn place(&mut self, slot: Slot<K, V>) {
        let mask = self.slots.len() - 1;
        let mut index = slot.tag.get() as usize & mask;
        while self.slots[index].is_some() {
            index = (index + 1) & mask;
        }
        self.slots[index] = Some(slot);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<K, V>> {
        self.slots.iter().flatten()
    }

    /// Moves the entries whose next bit of the hash is set into a shard of their own.
    pub(super) fn split(&mut self, hash: impl Fn(&K) -> u64) -> Self {
        let bit = 1u64 << (63 - self.depth);
        let (mut low, mut high) =
            (Self::new(self.depth + 1, self.generation), Self::new(self.depth + 1, self.generation));
        for slot in std::mem::take(&mut self.slots).into_iter().flatten() {
            let half = if hash(&slot.key) & bit == 0 { &mut low } else { &mut high };
            if (half.len as usize + 1) * 5 > half.slots.len() * 4 {
                half.grow();
            }
            half.len += 1;
            half.place(slot);
        }
        *self = low;
        high
    }
}
