//! Timers: which keys have to be looked at when time comes to a point.
//!
//! A key's timers are kept with its state ([`Deadlines`]). Beside them is an *index*: namespaces of the same state, one
//! for each second or so of time (a bucket), in which a key has an entry if it is to be looked at then. When time enters a
//! bucket its keys are looked at, and those whose timer is not due yet wait in a heap. When time has left it, it is
//! discarded.
//!
//! What makes timers cheap is that the index may be early. A key is under its first timer when that was set; if the timer
//! is put off, as by every record of a session, the index says nothing of it. Time finds the key where it was, sees that
//! nothing is due, and puts it where its first timer is now. So a timer costs one entry for as long as it lies ahead,
//! however often it is put off; only one that is set *before* the key's place in the index has to be put in by itself.
//!
//! The hard case is a restore: the heap is gone. Nothing is lost by it, since what was in it is in the bucket that time
//! had entered, which is entered again.
//!
//! At the end of the input all time is over, and all timers are due. Those that are set then are for a later start of the
//! job, with more input: their keys are in the index with the mark [`AFTER_THE_END`], and no bucket is discarded.
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    cmp::Ordering,
    collections::{BTreeSet, BinaryHeap},
};

use tidegate_checkpoint::error;

use super::super::keyed::Visit;
use crate::{
    record::Keyed,
    state::{hash::Key, keyed::KeyedState, table::Value},
    time::{MAX, MIN, Timestamp},
};

/// A bucket is 2^10 ms long.
const BUCKET_BITS: u32 = 10;

/// Under which a key is in the index whose timers were set when all time was over.
pub(super) const AFTER_THE_END: Timestamp = MIN;

/// The timers of one key, of event or of processing time.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Deadlines {
    timers: Timers,
    /// Under which time the key is in the index; `MAX`: it is not.
    pub(super) indexed: Timestamp,
}

/// Times, in their order. One alone, as most keys have it, is not a step further away in memory.
#[derive(Debug, Default)]
enum Timers {
    #[default]
    None,
    One(Timestamp),
    Many(Vec<Timestamp>),
}

impl Timers {
    #[inline]
    fn as_slice(&self) -> &[Timestamp] {
        match self {
            Self::None => &[],
            Self::One(at) => std::slice::from_ref(at),
            Self::Many(all) => all,
        }
    }
    fn remove(&mut self, place: usize) {
        match self {
            Self::Many(all) => drop(all.remove(place)),
            Self::None | Self::One(_) => *self = Self::None,
        }
    }
}

/// As a list.
impl Serialize for Timers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}
impl<'de> Deserialize<'de> for Timers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Vec::deserialize(deserializer)?;
        Ok(match all[..] {
            [] => Self::None,
            [at] => Self::One(at),
            _ => Self::Many(all),
        })
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { timers: Timers::None, indexed: MAX }
    }
}

impl Deadlines {
    #[inline]
    pub(super) fn set(&mut self, at: Timestamp) {
        match &mut self.timers {
            Timers::None => self.timers = Timers::One(at),
            Timers::One(one) if *one == at => {}
            Timers::One(one) => self.timers = Timers::Many(vec![at.min(*one), at.max(*one)]),
            Timers::Many(all) => {
                if let Err(place) = all.binary_search(&at) {
                    all.insert(place, at);
                }
            }
        }
    }
    #[inline]
    pub(super) fn delete(&mut self, at: Timestamp) {
        if let Ok(place) = self.timers.as_slice().binary_search(&at) {
            self.timers.remove(place);
        }
    }
    #[inline]
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.timers.as_slice().first().copied()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.timers.as_slice().is_empty()
    }
    /// Takes off the first one behind `last` and up to `now`.
    pub(super) fn next_due(&mut self, last: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let all = self.timers.as_slice();
        let place = last.map_or(0, |last| all.partition_point(|at| *at <= last));
        let at = *all.get(place).filter(|at| **at <= now)?;
        self.timers.remove(place);
        Some(at)
    }
    /// Takes off all of them.
    pub(super) fn take(&mut self) -> Vec<Timestamp> {
        match std::mem::take(&mut self.timers) {
            Timers::Many(all) => all,
            few => few.as_slice().to_vec(),
        }
    }
}

/// A key that time may have come for.
#[derive(Clone, Debug)]
pub(super) struct Due<K> {
    pub at: Timestamp,
    pub hash: u64,
    pub key: K,
}

impl<K> PartialEq for Due<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<K> Eq for Due<K> {}
impl<K> PartialOrd for Due<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Due<K> {
    /// The first to be due is the greatest: that is what a heap gives first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.hash).cmp(&(self.at, self.hash))
    }
}

/// The index of one kind of time, in one subtask.
pub(super) struct Index<K> {
    /// The namespace of bucket 0; that of others is so much higher or lower.
    origin: i64,
    buckets: BTreeSet<i64>,
    /// Buckets up to this one have been entered.
    entered: i64,
    /// Keys of the bucket that has been entered last, or that would be due before.
    near: BinaryHeap<Due<K>>,
    /// How far time has come.
    pub(super) now: Timestamp,
}

/// Buckets lie this far from their origin at most.
const REACH: i64 = 1 << (63 - BUCKET_BITS);

fn bucket(at: Timestamp) -> i64 {
    at >> BUCKET_BITS
}

impl<K: Key> Index<K> {
    pub(super) fn new(origin: i64) -> Self {
        let (buckets, near) = Default::default();
        Self { origin, buckets, entered: MIN, near, now: MIN }
    }

    /// Takes up what was restored.
    pub(super) fn opened<V: Value>(&mut self, state: &KeyedState<K, V>) {
        let own = self.origin - REACH..=self.origin + REACH;
        self.buckets = state.namespaces().into_iter().filter(|n| own.contains(n)).map(|n| n - self.origin).collect();
    }

    /// Sees to it that keys are looked at when time comes to them. `none` makes their entries.
    pub(super) fn insert<V: Value>(
        &mut self,
        state: &mut KeyedState<K, V>,
        all: &mut Vec<Keyed<K, ()>>,
        none: impl Fn() -> V,
    ) -> error::Result<()> {
        // In the past there is no bucket any more, unless time has run out.
        let soonest = if self.now == MAX { MIN } else { self.now.saturating_add(1) };
        for due in all.iter_mut() {
            due.at = due.at.max(soonest);
        }
        all.sort_unstable_by_key(|due| bucket(due.at));
        let mut all = all.drain(..);
        while let Some(first) = all.as_slice().first() {
            let run = bucket(first.at);
            self.buckets.insert(run);
            let (near, is_near) = (&mut self.near, run <= self.entered && self.now < MAX);
            let put = |_: &mut V, Keyed { hash, key, at, .. }: Keyed<K, ()>| {
                if is_near {
                    near.push(Due { at, hash, key });
                }
            };
            state.update_touched(
                (self.origin + run, true),
                &mut all,
                |due| bucket(due.at) == run,
                &none,
                |_| (),
                put,
            )?;
        }
        Ok(())
    }

    /// A key that is in the index has to be kept in mind, if its bucket has been entered.
    pub(super) fn is_near(&mut self, due: Due<K>) {
        if bucket(due.at) <= self.entered && self.now < MAX {
            self.near.push(due);
        }
    }

    /// Time has come to `now`: which buckets are to be gone through, and which go. Their entries fire under `name`.
    pub(super) fn advance(&mut self, now: Timestamp, name: i64) -> Vec<Visit> {
        self.now = now.max(self.now);
        let current = bucket(self.now);
        let due: Vec<_> = self.buckets.range(..=current).copied().collect();
        let mut visits = Vec::new();
        for at in due {
            if at > self.entered {
                visits.push(Visit::Fire(name, vec![self.origin + at]));
            }
            if at < current && now < MAX {
                visits.push(Visit::Discard(self.origin + at));
                self.buckets.remove(&at);
            }
        }
        self.entered = current.max(self.entered);
        visits
    }

    /// The next key in mind that is due.
    pub(super) fn pop(&mut self) -> Option<Due<K>> {
        self.near.peek().filter(|due| due.at <= self.now)?;
        self.near.pop()
    }

    /// When something is to be looked at.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let bucket = self.buckets.iter().find(|bucket| **bucket > self.entered).map(|bucket| bucket << BUCKET_BITS);
        self.near.peek().map(|due| due.at).into_iter().chain(bucket).min()
    }
}
