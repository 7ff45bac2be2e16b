//! What is written, on its way to Redis: one task for each backend.
//!
//! `write` only hands batches over. The task takes what there is, up to the end of an epoch, sorts it by key group, and
//! then has all key groups go forward at once, each of them step by step; the requests share one connection, so that
//! they go out as a pipeline. What is handed over meanwhile waits: its bound is the engine's, which waits for `flushed`
//! before it writes much more. A write that another one replaces before its turn has come is not made.
//!
//! The hard case is the end of an epoch: a snapshot is cut where `seal` was called, while the engine goes on. Batches of
//! the next epoch are behind it in the same channel, and are not looked at before the last key group is sealed.
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};
use tokio::sync::{mpsc, oneshot};

use tidegate_checkpoint::error::{Error, Result};
use tidegate_core::state::backend::{Write, WriteBatch};

use super::{
    group::{FIELDS, Group},
    link::at_once,
};

/// Bytes of values that a script is given.
const BYTES: usize = 1 << 18;

pub(super) enum Order {
    Write(WriteBatch),
    Flush(oneshot::Sender<()>),
    /// With the snapshot's mark.
    Seal(String, oneshot::Sender<()>),
}

/// Fields of the base: keys without their key group.
type Changes = BTreeMap<Bytes, Option<Bytes>>;

enum Step {
    Write(Changes),
    Clear(Vec<u8>, Vec<u8>),
}

#[derive(Default)]
struct Queue {
    steps: Vec<Step>,
    /// What comes behind them.
    changes: Changes,
}

/// Runs until the backend is gone, or Redis is. Why that is so is in `failed` then.
pub(super) async fn run(
    mut groups: BTreeMap<u16, Group>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    failed: Arc<OnceLock<Error>>,
) {
    while let Some(order) = orders.recv().await {
        let mut turn = Turn::default();
        if let Err(e) = turn.make(&mut groups, &mut orders, order).await {
            // Before the senders are dropped: whoever waits looks here then.
            let _ = failed.set(e);
            return;
        }
    }
}

/// Orders that are carried out together, and who waits for it.
#[derive(Default)]
struct Turn {
    queues: BTreeMap<u16, Queue>,
    flushes: Vec<oneshot::Sender<()>>,
    seal: Option<(String, oneshot::Sender<()>)>,
}

impl Turn {
    async fn make(
        &mut self,
        groups: &mut BTreeMap<u16, Group>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        first: Order,
    ) -> Result<()> {
        let mut next = Some(first);
        while let Some(order) = next.take() {
            match order {
                Order::Write(batch) => sort(&batch, &mut self.queues)?,
                Order::Flush(done) => self.flushes.push(done),
                Order::Seal(mark, done) => self.seal = Some((mark, done)),
            }
            next = if self.seal.is_none() { orders.try_recv().ok() } else { None };
        }
        let mut work: Vec<BoxFuture<'_, Result<()>>> = Vec::new();
        for (key_group, group) in groups.iter_mut() {
            if let Some(queue) = self.queues.remove(key_group) {
                work.push(Box::pin(queue.write_to(group)));
            }
        }
        at_once(work).await?;
        if !self.queues.is_empty() {
            return Err(Error::internal("a key of another subtask's key group is written"));
        }
        for done in self.flushes.drain(..) {
            let _ = done.send(());
        }
        let Some((mark, _)) = &self.seal else { return Ok(()) };
        let mut work: Vec<BoxFuture<'_, Result<()>>> = Vec::new();
        for group in groups.values_mut() {
            work.push(Box::pin(group.seal(mark)));
        }
        at_once(work).await?;
        if let Some((_, done)) = self.seal.take() {
            let _ = done.send(());
        }
        Ok(())
    }
}

fn sort(batch: &WriteBatch, queues: &mut BTreeMap<u16, Queue>) -> Result<()> {
    for write in batch.iter() {
        let (Write::Put(key, _) | Write::Delete(key) | Write::DeleteRange(key, _)) = write;
        let (key_group, field) = split(key)?;
        let queue = queues.entry(key_group).or_default();
        let field = Bytes::copy_from_slice(field);
        match write {
            Write::Put(_, value) => drop(queue.changes.insert(field, Some(Bytes::copy_from_slice(value)))),
            Write::Delete(_) => drop(queue.changes.insert(field, None)),
            Write::DeleteRange(_, end) => {
                // It does not go beyond its key group.
                let (end_group, end) = split(end)?;
                queue.clear(&field, Some(end).filter(|_| end_group == key_group));
            }
        }
    }
    Ok(())
}

/// A key's group, and what it is called there.
pub(super) fn split(key: &[u8]) -> Result<(u16, &[u8])> {
    let (key_group, field) = key.split_first_chunk().ok_or_else(|| Error::internal("a key has no key group"))?;
    Ok((u16::from_be_bytes(*key_group), field))
}

/// The ends of a range, as ZRANGEBYLEX has them.
pub(super) fn lex(start: &[u8], end: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let end = end.map_or_else(|| b"+".to_vec(), |end| [b"(", end].concat());
    ([b"[", start].concat(), end)
}

impl Queue {
    fn clear(&mut self, start: &[u8], end: Option<&[u8]>) {
        let (start, end) = lex(start, end);
        self.steps.push(Step::Write(std::mem::take(&mut self.changes)));
        self.steps.push(Step::Clear(start, end));
    }

    async fn write_to(self, group: &mut Group) -> Result<()> {
        for step in self.steps.into_iter().chain([Step::Write(self.changes)]) {
            match step {
                Step::Clear(start, end) => group.clear(&start, &end).await?,
                Step::Write(changes) => {
                    let (mut some, mut bytes) = (Changes::new(), 0);
                    for (field, value) in changes {
                        bytes += field.len() + value.as_ref().map_or(0, Bytes::len);
                        some.insert(field, value);
                        if some.len() == FIELDS || bytes >= BYTES {
                            group.write(&std::mem::take(&mut some)).await?;
                            bytes = 0;
                        }
                    }
                    if !some.is_empty() {
                        group.write(&some).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
