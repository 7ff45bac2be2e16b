//! The task through which all writes of a tree go, in their order: so the cut of a snapshot is a place in a queue, and
//! nobody waits for it. It ends, and closes the tree, when its backend is dropped.
//!
//! The tree has no delete of a range: here the range is read, behind everything that was written before, and its keys
//! are deleted piece by piece. Nobody else writes, so nothing can come between. The hard case is an error: the tree may
//! have half of a batch then, so nothing more is done, and every later order is answered with it.
use bytes::Bytes;
use futures::{
    StreamExt,
    channel::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
        oneshot,
    },
};
use slatedb::{
    CheckpointHandle, Db, WriteBatch as Batch,
    config::{CheckpointOptions, CheckpointScope, CloseOptions},
};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Epoch,
};
use tidegate_core::state::backend::{Write, WriteBatch};

use super::{collect::checkpoint_name, failed::failed};

/// Entries of one write of the tree.
const ENTRIES: usize = 1000;

pub(super) enum Order {
    Write(WriteBatch),
    Tell(oneshot::Sender<Result<()>>),
    Seal(Epoch, oneshot::Sender<Result<CheckpointHandle>>),
}

/// Where orders go. Not bounded: the engine waits for what it has written before it writes much more.
pub(super) struct Orders(UnboundedSender<Order>);

impl Orders {
    pub fn send(&self, order: Order, path: &str) -> Result<()> {
        self.0.unbounded_send(order).map_err(|_| gone(path))
    }
}

/// The error of a writer that is gone: the runtime ends.
pub(super) fn gone(path: &str) -> Error {
    Error::unavailable(format!("the writer of the state in {path} has ended"))
}

#[derive(Default)]
pub(super) struct Writer {
    failed: Option<Error>,
}

impl Writer {
    pub fn new() -> (Self, (Orders, UnboundedReceiver<Order>)) {
        let (to, from) = unbounded();
        (Self::default(), (Orders(to), from))
    }

    pub async fn run(mut self, db: Db, mut orders: UnboundedReceiver<Order>, path: String) {
        while let Some(order) = orders.next().await {
            let failed = |e| failed("write", &path, e);
            match order {
                // Who asked has gone: then nobody has to be told.
                Order::Tell(tell) => drop(tell.send(self.failed.clone().map_or(Ok(()), Err))),
                Order::Write(batch) if self.failed.is_none() => {
                    self.failed = write(&db, &batch).await.map_err(failed).err();
                }
                Order::Write(_) => {}
                Order::Seal(epoch, tell) => {
                    let name = Some(checkpoint_name(epoch));
                    let options = CheckpointOptions { name, ..CheckpointOptions::default() };
                    let begun = match self.failed.clone() {
                        Some(e) => Err(e),
                        None => db.begin_checkpoint(CheckpointScope::All, &options).await.map_err(failed),
                    };
                    drop(tell.send(begun));
                }
            }
        }
        // What is not in a snapshot is nobody's, so nothing is flushed; and nobody is left who could be told of an error.
        drop(db.close_with_options(CloseOptions::default().with_flush_type(None)).await);
    }
}

async fn write(db: &Db, batch: &WriteBatch) -> Result<(), slatedb::Error> {
    let mut piece = Piece { db, batch: Batch::new(), entries: 0 };
    for write in batch.iter() {
        match write {
            Write::Put(key, value) => {
                piece.batch.put_bytes(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                piece.added().await?;
            }
            Write::Delete(key) => {
                piece.batch.delete(key);
                piece.added().await?;
            }
            Write::DeleteRange(start, end) if start < end => {
                piece.write().await?;
                let mut found = db.scan(start.to_vec()..end.to_vec()).await?;
                while let Some(pair) = found.next().await? {
                    piece.batch.delete(&pair.key);
                    piece.added().await?;
                }
            }
            Write::DeleteRange(..) => {}
        }
    }
    piece.write().await
}

/// What is written next.
struct Piece<'a> {
    db: &'a Db,
    batch: Batch,
    entries: usize,
}

impl Piece<'_> {
    async fn added(&mut self) -> Result<(), slatedb::Error> {
        self.entries += 1;
        if self.entries < ENTRIES { Ok(()) } else { self.write().await }
    }

    async fn write(&mut self) -> Result<(), slatedb::Error> {
        if std::mem::take(&mut self.entries) == 0 {
            return Ok(());
        }
        self.db.write(std::mem::take(&mut self.batch)).await.map(drop)
    }
}
