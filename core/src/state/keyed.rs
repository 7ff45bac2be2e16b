//! The keyed state of one operator in one subtask: its tables, its backend, and its snapshots.
//!
//! ```text
//! Idle -freeze-> Sweeping -all captured-> Sealing (in the background) -durable-> Idle
//! ```
//! `freeze` is the barrier and costs nothing that grows with the state. While sweeping, the operator goes
//! on: whoever changes a sub-shard captures it first. A barrier that comes before the last snapshot is
//! durable is declined, so that at most one snapshot is ever held in memory; the checkpoint is abandoned
//! and the next one works.
//!
//! The hard case is a snapshot that cannot be made durable. What it wrote cannot be referred to by the
//! next, so every table forgets what it has stored and the next snapshot is a full one.
//!
//! Over a backend that caches ([`Residency::Cached`]) the tables hold what has been used lately. What they may have to
//! ask the backend for, and how they stay within their bound, is in `cached`.
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    vec::Drain,
};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Epoch, KeyGroupRange},
    kill,
    manifest::StateHandle,
};

use crate::record::Keyed;

use super::{
    backend::{Residency, StateBackend},
    cached::{Cache, read_entry},
    codec::Codec,
    cursor::Cursor,
    hash::{Key, hash_key, key_group},
    savepoint::entries::{Page, Source},
    shard::Holds,
    table::{Capture, IsVacant, Layout, Table, Value, is_watermark_key, namespace_of, watermark_key},
};

/// Bytes captured before they are handed to the backend.
const HAND_OVER: usize = 1 << 18;
/// Pairs a page of a restore.
const PAGE: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Sweeping(Epoch),
    Sealing,
}

/// What a slice of sweeping has come to.
pub enum Swept {
    /// No snapshot is being swept.
    Idle,
    /// There is more to do.
    More,
    /// All is captured: this makes it durable. To be run in the background.
    Sealed(Epoch, BoxFuture<'static, Result<StateHandle>>),
}

const PENDING: u8 = 0;
const DURABLE: u8 = 1;
const FAILED: u8 = 2;

/// See the module.
pub struct KeyedState<K, V> {
    pub(super) tables: Vec<Table<K, V>>,
    /// Discarded while a snapshot still has to capture them.
    retired: Vec<Table<K, V>>,
    /// The memory of the last one that was discarded, for the next.
    spare: Option<Table<K, V>>,
    pub(super) backend: Box<dyn StateBackend>,
    pub(super) capture: Capture,
    pub(super) phase: Phase,
    outcome: Arc<AtomicU8>,
    depth_min: u8,
    pub(super) key_groups: u16,
    pub(super) range: KeyGroupRange,
    generation: u32,
    pub(super) operator: String,
    watermark: Option<i64>,
    /// What was restored, by key group: subtasks that one follows need not have seen the same.
    pub(super) restored: BTreeMap<u16, i64>,
    /// `None`: the tables hold everything.
    pub(super) cache: Option<Cache>,
    is_vacant: IsVacant<V>,
}

impl<K: Key, V: Value> KeyedState<K, V> {
    /// Over an open backend; `restore` reads what is in it. `cache_bytes` bounds the tables where the backend caches.
    pub fn new(
        operator: &str,
        backend: Box<dyn StateBackend>,
        codec: Codec,
        key_groups: u16,
        range: KeyGroupRange,
        cache_bytes: usize,
    ) -> Self {
        let cached = backend.residency() == Residency::Cached;
        Self {
            tables: Vec::new(),
            retired: Vec::new(),
            spare: None,
            backend,
            capture: Capture::new(codec),
            phase: Phase::Idle,
            outcome: Arc::default(),
            depth_min: key_groups.trailing_zeros() as u8,
            key_groups,
            range,
            generation: 1,
            operator: operator.to_owned(),
            watermark: None,
            restored: BTreeMap::new(),
            cache: cached.then(|| Cache::new(cache_bytes)),
            is_vacant: None,
        }
    }

    /// Makes entries removable: one whose value is `vacant` is as none, and is not kept. Before anything is in it.
    #[must_use]
    pub fn removing(mut self, is_vacant: fn(&V) -> bool) -> Self {
        self.is_vacant = Some(is_vacant);
        self
    }

    /// Reads what was restored: all of it into the tables, unless the backend caches.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) when it cannot be read.
    pub async fn restore(&mut self) -> Result<()> {
        if self.cache.is_some() { self.restore_index().await } else { self.restore_blocks().await }
    }

    /// Reads the blocks into the tables, keeping the entries of the subtask's key groups.
    async fn restore_blocks(&mut self) -> Result<()> {
        let mut start = Bytes::copy_from_slice(&self.range.start.to_be_bytes());
        let end = Some(Bytes::copy_from_slice(&self.range.end.to_be_bytes()));
        loop {
            let page = self.backend.scan(start.clone(), end.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            start = [last.as_ref(), &[0]].concat().into();
            for (key, block) in &page {
                self.restore_block(key, block)?;
            }
        }
    }

    /// Takes over what another backend, or a savepoint, has.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) when it cannot be read; what the backend returns.
    pub async fn take_over(&mut self, mut source: Source) -> Result<()> {
        loop {
            match source.next().await? {
                Page::End => return Ok(()),
                Page::Blocks(blocks) => blocks.iter().try_for_each(|(key, block)| self.restore_block(key, block))?,
                Page::Entries(entries) => {
                    for (key, value) in &entries {
                        if is_watermark_key(key) {
                            self.restore_watermark(key, value)?;
                            continue;
                        }
                        self.was_encoded(key.len() + value.len());
                        let (namespace, key, value) = read_entry(key, value)?;
                        self.update(namespace, hash_key(&key), &key, || value, |_| ())?;
                    }
                }
            }
            if self.needs_tending() {
                // No snapshot is under way that could come of it.
                self.tend().await?;
            }
        }
    }

    fn restore_block(&mut self, key: &[u8], block: &[u8]) -> Result<()> {
        if is_watermark_key(key) {
            return self.restore_watermark(key, block);
        }
        let namespace = namespace_of(key).ok_or_else(damaged)?;
        let (layout, rest) = block.split_first().ok_or_else(damaged)?;
        let layout = Layout::by_id(*layout).ok_or_else(damaged)?;
        let (count, mut rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        for _ in 0..u32::from_le_bytes(*count) {
            let (key, value): (K, V) = layout.read(&mut rest)?;
            let hash = hash_key(&key);
            if self.range.contains(key_group(hash, self.key_groups)) {
                self.update(namespace, hash, &key, || value, |_| ())?;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(damaged()) }
    }

    pub(super) fn restore_watermark(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let saved = i64::from_le_bytes(value.try_into().map_err(|_| damaged())?);
        let (key_group, _) = key.split_first_chunk().ok_or_else(damaged)?;
        self.restored.insert(u16::from_be_bytes(*key_group), saved);
        self.watermark = Some(self.watermark.map_or(saved, |w| w.min(saved)));
        Ok(())
    }

    /// The table of a namespace, made if there is none.
    pub(super) fn table(&mut self, namespace: i64) -> usize {
        self.tables.iter().position(|t| t.namespace() == namespace).unwrap_or_else(|| {
            let holds = self.cache.as_ref().map_or(Holds::Resident, |cache| cache.holds(namespace));
            let table = match self.spare.take() {
                Some(spare) => spare.begin(namespace, self.generation, holds),
                None => Table::new(namespace, self.depth_min, self.generation, holds, self.is_vacant),
            };
            self.tables.push(table);
            self.tables.len() - 1
        })
    }

    #[inline(always)]
    fn cursor(&mut self, namespace: i64) -> Cursor<'_, K, V> {
        let index = self.table(namespace);
        self.tables[index].cursor()
    }

    #[cold]
    #[inline(never)]
    fn open(&mut self, namespace: i64, hash: u64) -> Result<()> {
        let index = self.table(namespace);
        self.tables[index].open(hash, &mut self.capture)?;
        self.hand_over()
    }

    /// Takes records off as long as they fit, and changes with each the value of its key in a namespace; it is made
    /// by `init` if there is none.
    ///
    /// # Errors
    /// [`Kind::User`](tidegate_checkpoint::error::Kind): a value that a snapshot needs does not serialise. And
    /// what the backend returns.
    #[inline(always)]
    pub fn update_while<T>(
        &mut self,
        namespace: i64,
        records: &mut Drain<'_, Keyed<K, T>>,
        fits: impl Fn(&Keyed<K, T>) -> bool,
        init: impl Fn() -> V,
        mut change: impl FnMut(&mut V, Keyed<K, T>),
    ) -> Result<()> {
        while let Some(hash) = self.cursor(namespace).update_while(false, records, &fits, &init, |_| (), &mut change) {
            self.open(namespace, hash)?;
        }
        Ok(())
    }

    /// As [`KeyedState::update_while`], with what its caller knows of the caches. `is_far`: none holds the entries, however
    /// few they are, because they are in one of many namespaces. `touch` asks ahead for what a value has elsewhere in memory,
    /// with [`prefetch`](super::prefetch::prefetch).
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub(crate) fn update_touched<T>(
        &mut self,
        (namespace, is_far): (i64, bool),
        records: &mut Drain<'_, Keyed<K, T>>,
        fits: impl Fn(&Keyed<K, T>) -> bool,
        init: impl Fn() -> V,
        touch: impl Fn(&V),
        mut change: impl FnMut(&mut V, Keyed<K, T>),
    ) -> Result<()> {
        while let Some(hash) = self.cursor(namespace).update_while(is_far, records, &fits, &init, &touch, &mut change) {
            self.open(namespace, hash)?;
        }
        Ok(())
    }

    /// Changes the value of one key in a namespace; it is made by `init` if there is none.
    ///
    /// # Errors
    /// As [`KeyedState::update_while`].
    pub fn update(
        &mut self,
        namespace: i64,
        hash: u64,
        key: &K,
        init: impl FnOnce() -> V,
        change: impl FnOnce(&mut V),
    ) -> Result<()> {
        if !self.cursor(namespace).may_change(hash) {
            self.open(namespace, hash)?;
        }
        let changed = self.cursor(namespace).entry(hash, key, init).map(change);
        changed.ok_or_else(|| Error::internal("a sub-shard that has been opened is not open"))
    }

    /// Pieces of one size, so that the allocator has them ready for the next snapshot.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        if self.capture.batch.bytes() < HAND_OVER {
            return Ok(());
        }
        self.hand_over_all()
    }

    pub(super) fn hand_over_all(&mut self) -> Result<()> {
        if self.capture.batch.is_empty() {
            return Ok(());
        }
        if let Some(cache) = &mut self.cache {
            cache.handed_over(&self.capture.batch);
        }
        self.backend.write(std::mem::take(&mut self.capture.batch))
    }

    /// The value of a key in a namespace, if it is in the tables.
    pub fn get(&self, namespace: i64, hash: u64, key: &K) -> Option<&V> {
        self.tables.iter().find(|table| table.namespace() == namespace)?.get(hash, key)
    }

    /// The open tables, in no order.
    pub fn tables(&self) -> &[Table<K, V>] {
        &self.tables
    }

    /// The key groups that it is of.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.range
    }

    /// Entries in all tables.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops a table and all in it. If a snapshot still needs what was in it, it is kept aside until then.
    pub fn discard(&mut self, namespace: i64) {
        if let Some(cache) = &mut self.cache {
            cache.drop_namespace(namespace);
        }
        let Some(index) = self.tables.iter().position(|t| t.namespace() == namespace) else { return };
        let table = self.tables.swap_remove(index);
        if matches!(self.phase, Phase::Sweeping(_)) && !table.is_swept() {
            self.retired.push(table);
        } else {
            table.discard(&mut self.capture);
            self.spare = table.recycle();
        }
    }

    /// The lowest watermark that was saved with the state, if the operator saves one.
    pub fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// The watermark that was restored for the key group of a hash.
    pub fn restored_watermark(&self, hash: u64) -> Option<i64> {
        self.restored.get(&key_group(hash, self.key_groups)).copied()
    }

    /// The highest that was restored for any key group.
    pub fn newest_restored_watermark(&self) -> Option<i64> {
        self.restored.values().max().copied()
    }

    /// Saves the operator's watermark with the state, in every key group.
    pub fn save_watermark(&mut self, watermark: i64) {
        self.watermark = Some(watermark);
    }

    pub(super) fn forget_spare(&mut self) {
        self.spare = None;
    }

    /// Entries serialised for snapshots so far.
    pub fn captured(&self) -> u64 {
        self.capture.entries
    }

    /// The barrier. False: the last snapshot is not durable yet, this checkpoint has to be declined.
    ///
    /// # Errors
    /// What the backend returns.
    pub fn freeze(&mut self, epoch: Epoch) -> Result<bool> {
        if self.phase == Phase::Sealing {
            match self.outcome.load(SeqCst) {
                PENDING => return Ok(false),
                FAILED => self.forget_stored(),
                _ => {}
            }
            self.phase = Phase::Idle;
        }
        if self.phase != Phase::Idle {
            return Ok(false);
        }
        kill::point("snapshot.begin");
        self.generation += 1;
        for table in &mut self.tables {
            table.freeze();
        }
        for key in std::mem::take(&mut self.capture.obsolete) {
            self.capture.batch.delete(&key);
        }
        self.write_drops();
        if let Some(watermark) = self.watermark {
            for key_group in self.range.iter() {
                let watermark = self.restored.get(&key_group).map_or(watermark, |restored| watermark.max(*restored));
                self.capture.batch.put_with(&watermark_key(key_group), |bytes| {
                    bytes.extend_from_slice(&watermark.to_le_bytes());
                    Ok(())
                })?;
            }
        }
        self.capture.active = true;
        self.phase = Phase::Sweeping(epoch);
        Ok(true)
    }

    fn forget_stored(&mut self) {
        // A backend that caches still has what it was given.
        if self.cache.is_none() {
            self.tables.iter_mut().for_each(Table::unsave);
        }
    }

    /// Captures about `entries` more.
    ///
    /// # Errors
    /// As [`KeyedState::update_while`].
    pub fn sweep(&mut self, entries: u64) -> Result<Swept> {
        let Phase::Sweeping(epoch) = self.phase else { return Ok(Swept::Idle) };
        let until = self.capture.entries.saturating_add(entries);
        let mut done = true;
        for table in self.tables.iter_mut().chain(&mut self.retired) {
            let left = until.saturating_sub(self.capture.entries);
            done &= left > 0 && table.sweep(left, &mut self.capture)?;
        }
        if !done {
            return self.hand_over().map(|()| Swept::More);
        }
        self.hand_over_all()?;
        self.capture.active = false;
        for table in std::mem::take(&mut self.retired) {
            table.discard(&mut self.capture);
        }
        self.phase = Phase::Sealing;
        self.outcome = Arc::new(AtomicU8::new(PENDING));
        let outcome = self.outcome.clone();
        let sealing = self.backend.seal(epoch);
        let durable = async move {
            kill::point("snapshot.upload.before");
            // A future that is dropped half-way leaves the snapshot undecided: the attempt is over then.
            let result = sealing.await;
            outcome.store(if result.is_ok() { DURABLE } else { FAILED }, SeqCst);
            kill::point("snapshot.upload.after");
            result
        };
        Ok(Swept::Sealed(epoch, Box::pin(durable)))
    }
}

pub(super) fn damaged() -> Error {
    Error::corrupt("a block of state is not one of ours")
}
