//! The way of a batch of records to their entries in one table.
//!
//! In a table larger than the caches a look-up is two misses, of the tags and of the slot that they point at. They
//! are not waited for one by one: records are taken in chunks, and while the entries of one chunk are changed, the
//! slots of the next are on their way, and the tags of the one after it.
//!
//! ```text
//! chunk 0  tags    slots   change
//! chunk 1          tags    slots   change
//! chunk 2                  tags    slots   change
//! ```
//! What is asked for ahead is what will be changed: the run of records that fit. Where windows take turns, runs are
//! short, and to ask beyond them would be most of the work.
//!
//! The hard case is what the place that was asked for turns out to be. Its sub-shard may still have to be captured, or
//! have been filled up by a record in front, and the tag may be another key's. So a place is a guess only. It counts
//! if the key in the slot is the record's, which is seen for a whole chunk at once, and the sub-shard there is open;
//! otherwise the entry is looked up as it is without a guess.
use std::{
    ops::ControlFlow::{self, Break, Continue},
    vec::Drain,
};

use super::{
    hash::Key,
    shard::{STALE, Shard},
    table::{NONE, Value, slot_of},
};
use crate::record::Keyed;

/// Records whose misses are waited for together. A core can have about a dozen lines under way.
const CHUNK: usize = 16;
/// A table of up to so many bytes is held by a cache.
const NEAR_BYTES: usize = 1 << 20;

/// It holds by value what a loop over a batch asks for again and again: the compiler cannot know that a value
/// which is changed is not a part of the table.
pub(super) struct Cursor<'a, K, V> {
    pub directory: &'a [u32],
    pub shards: &'a mut [Shard<K, V>],
    pub len: &'a mut usize,
    pub depth: u8,
    pub generation: u32,
}

/// Where an entry most likely is: the sub-shard's index and the slot in it.
#[derive(Clone, Copy)]
struct Place(u32, u32);

const NOWHERE: Place = Place(NONE, NONE);

impl<K: Key, V: Value> Cursor<'_, K, V> {
    /// Takes records off as long as they fit, and changes with each the value of its key. The hash of the record
    /// whose sub-shard has to be opened first, if it came to one. `is_far`: they have to be asked for ahead, however few
    /// entries there are.
    #[inline(always)]
    pub(super) fn update_while<T>(
        &mut self,
        is_far: bool,
        records: &mut Drain<'_, Keyed<K, T>>,
        fits: impl Fn(&Keyed<K, T>) -> bool,
        init: impl Fn() -> V,
        touch: impl Fn(&V),
        mut change: impl FnMut(&mut V, Keyed<K, T>),
    ) -> Option<u64> {
        if !is_far && !self.is_far() {
            loop {
                if let Break(hash) = self.update_first(None, records, &fits, &init, &mut change) {
                    return hash;
                }
            }
        }
        let mut run = records.as_slice().iter().take_while(|r| fits(r)).count();
        self.touch_tags(&records.as_slice()[..run.min(2 * CHUNK)]);
        let mut places = self.touch_slots(&records.as_slice()[..run]);
        loop {
            let ahead = |chunks: usize| records.as_slice().get(chunks * CHUNK..run).unwrap_or_default();
            self.touch_tags(&ahead(2)[..ahead(2).len().min(CHUNK)]);
            let next = self.touch_slots(ahead(1));
            run = run.saturating_sub(CHUNK);
            let places = self.confirm(std::mem::replace(&mut places, next), records.as_slice(), &touch);
            for place in places {
                if let Break(hash) = self.update_first(Some(place), records, &fits, &init, &mut change) {
                    return hash;
                }
            }
        }
    }

    #[inline(always)]
    fn update_first<T>(
        &mut self,
        place: Option<Place>,
        records: &mut Drain<'_, Keyed<K, T>>,
        fits: &impl Fn(&Keyed<K, T>) -> bool,
        init: &impl Fn() -> V,
        change: &mut impl FnMut(&mut V, Keyed<K, T>),
    ) -> ControlFlow<Option<u64>> {
        let Some(next) = records.as_slice().first().filter(|r| fits(r)) else { return Break(None) };
        let value = match place.filter(|place| self.is_open(*place)) {
            Some(Place(index, at)) => self.shards[index as usize].value(at as usize),
            None => self.entry(next.hash, &next.key, init),
        };
        // A record is taken off when its entry is there.
        let Some(value) = value else { return Break(Some(next.hash)) };
        if let Some(record) = records.next() {
            change(value, record);
        }
        Continue(())
    }

    /// Whether its entries have to be asked for ahead. Nothing is gained by it where the caches hold all of them.
    #[inline(always)]
    fn is_far(&self) -> bool {
        *self.len >= NEAR_BYTES / size_of::<Option<(K, V)>>()
    }

    #[inline(always)]
    fn index(&self, hash: u64) -> Option<u32> {
        self.directory.get(slot_of(hash, self.depth)).copied()
    }

    /// The sub-shard of a hash, and its index; a sub-shard that is not made yet has none.
    #[inline(always)]
    fn shard(&self, hash: u64) -> Option<(u32, &Shard<K, V>)> {
        self.index(hash).and_then(|index| Some((index, self.shards.get(index as usize)?)))
    }

    /// Asks for the tags of these records' keys.
    #[inline(always)]
    fn touch_tags<T>(&self, records: &[Keyed<K, T>]) {
        for record in records {
            if let Some((_, shard)) = self.shard(record.hash) {
                shard.touch_tags(record.hash);
            }
        }
    }

    /// Asks for the slots of a chunk's keys. Their tags had better be there.
    #[inline(always)]
    fn touch_slots<T>(&self, records: &[Keyed<K, T>]) -> [Place; CHUNK] {
        let mut places = [NOWHERE; CHUNK];
        for (place, record) in places.iter_mut().zip(records) {
            if let Some((index, shard)) = self.shard(record.hash) {
                *place = Place(index, shard.touch_slot(record.hash));
            }
        }
        places
    }

    /// Gives up those places that are not their key's. The others stay theirs as long as their sub-shard is open:
    /// until it is opened again no entry moves.
    ///
    /// A string's bytes are not in the slot but a third miss away. Comparing is all that happens here, so that a core
    /// comes to many of them before the first is there. So it is with what a value has elsewhere: `touch` asks for it.
    #[inline(always)]
    fn confirm<T>(&self, mut places: [Place; CHUNK], records: &[Keyed<K, T>], touch: &impl Fn(&V)) -> [Place; CHUNK] {
        for (place, record) in places.iter_mut().zip(records) {
            let Place(index, at) = *place;
            match self.shards.get(index as usize).filter(|s| s.has(at as usize, &record.key)) {
                Some(shard) => shard.get(at as usize).into_iter().for_each(touch),
                None => *place = NOWHERE,
            }
        }
        places
    }

    /// Whether a place is in a sub-shard that may be changed.
    #[inline(always)]
    fn is_open(&self, Place(index, _): Place) -> bool {
        self.shards.get(index as usize).is_some_and(|s| s.open == self.generation)
    }

    /// Whether the sub-shard of a hash may be changed as it is.
    #[inline(always)]
    pub(super) fn may_change(&self, hash: u64) -> bool {
        self.shard(hash).is_some_and(|(_, shard)| shard.open == self.generation)
    }

    /// The value of a key, to be changed; it is made by `init` if there is none. `None`: its sub-shard has to be
    /// opened first.
    ///
    /// The one way out is through the slot, whichever way it was found: a value that took different ways
    /// through memory would be stored in pieces and loaded whole, and wait for itself.
    #[inline(always)]
    pub(super) fn entry(&mut self, hash: u64, key: &K, init: impl FnOnce() -> V) -> Option<&mut V> {
        let index = self.index(hash)?;
        let shard = self.shards.get_mut(index as usize).filter(|s| s.open == self.generation)?;
        let at = match shard.find(hash, key) {
            Ok(at) => at,
            Err(free) => {
                *self.len += usize::from(shard.fill(free, hash, (key.clone(), init())));
                if shard.is_full() {
                    shard.open = STALE;
                }
                free
            }
        };
        shard.value(at)
    }
}
