//! The sending side of a keyed exchange: each record goes to the subtask that owns its key group,
//! controls go to all.
use std::{
    marker::PhantomData,
    task::{Context, Poll},
};

use tidegate_checkpoint::{error::Result, ids::KeyGroupRange};

use super::channel::Lane;
use crate::{
    record::{Control, Keyed, Output},
    state::hash::{Key, hash_key, key_group},
    time::Timestamp,
};

/// The end of a chain in front of a keyed operator.
pub struct Exchange<T, E, K, F, W> {
    key: F,
    /// What becomes of a record on its way.
    wrap: W,
    lanes: Vec<Lane<Keyed<K, E>>>,
    /// The owner of each key group.
    owners: Vec<u32>,
    records: PhantomData<fn(T)>,
}

impl<T, E, K, F, W> Exchange<T, E, K, F, W> {
    /// One lane to each subtask.
    pub fn new(key: F, wrap: W, lanes: Vec<Lane<Keyed<K, E>>>, key_groups: u16) -> Self {
        let parallelism = lanes.len() as u32;
        let owners = (0..key_groups).map(|g| KeyGroupRange::owner(g, parallelism, key_groups).0).collect();
        Self { key, wrap, lanes, owners, records: PhantomData }
    }
}

impl<T, E, K, F, W> Output<T> for Exchange<T, E, K, F, W>
where
    T: Send + 'static,
    E: Send + 'static,
    K: Key,
    F: Fn(&T) -> K + Send + 'static,
    W: Fn(T) -> E + Send + 'static,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        let key = (self.key)(&record);
        let hash = hash_key(&key);
        let owner = self.owners[usize::from(key_group(hash, self.owners.len() as u16))];
        self.lanes[owner as usize].push(Keyed { hash, key, record: (self.wrap)(record), at });
    }
    fn control(&mut self, control: Control) {
        for lane in &mut self.lanes {
            lane.control(control);
        }
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut ready = Poll::Ready(Ok(()));
        for lane in &mut self.lanes {
            if lane.poll_ready(cx).is_pending() {
                ready = Poll::Pending;
            }
        }
        ready
    }
    fn sweep(&mut self) -> bool {
        false
    }
}
