//! The backend `rocksdb`: a database on local disk for each operator and subtask, copied to the checkpoint store.
//!
//! ```text
//! write ---.                                            .-> cut-7/ (hard links) -- what is new --> handle
//! seal ----+-> queue, worked off on a blocking thread --+
//! flushed -'                                            '-> database <- get_many, scan
//! ```
//! What is on the disk is disposable: an attempt begins in an empty directory (`directory`) with what the checkpoint
//! store has (`restore`), and no log is written. Files that an earlier attempt has left, and that are what the store
//! has, are linked and not fetched (`place`, `local`). A snapshot is the database's files (`snapshot`): most of them are
//! those of the last one, and are referred to and not stored again.
//!
//! The hard case is the cut. The snapshot has to be what was written before `seal`, all of which has to be in files,
//! and to write those takes the time that the disk takes; while the engine must go on. So `seal` only takes its place
//! in a queue (`queue`) in front of the database: what is written behind it waits until the cut has been made.
//!
//! A zombie spoils nothing: its directory is its own, of which others take what it does not change any more, and its
//! objects have its attempt in their names.
mod budget;
mod directory;
mod local;
mod pieces;
mod place;
mod queue;
mod restore;
mod snapshot;

use bytes::Bytes;
use futures::{channel::oneshot, future::BoxFuture};
use rust_rocksdb::{DB, ReadOptions};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Epoch, Subtask},
    manifest::StateHandle,
};
use tidegate_core::{
    env::spawn_blocking,
    state::backend::{OpenContext, Residency, RunId, StateBackend, StateBackendFactory, WriteBatch},
};

use budget::Budget;
use pieces::Files;
use place::{Place, Shelves};
use queue::{Queue, Step};

const NAME: &str = "rocksdb";
/// Keys that are looked up together: the blocks in which they are found are held in memory meanwhile.
const LOOK_UP: usize = 256;

/// `state.backend = "rocksdb"`. What attempts leave for one another on the disk lasts no longer than this, and its clones.
#[derive(Clone, Debug, Default)]
pub struct RocksDb {
    shelves: Arc<Shelves>,
}

/// A database and where it lives; deleted with its last user. The database goes first.
struct Local {
    db: DB,
    place: Place,
    budget: Arc<Budget>,
}

struct Backend {
    context: Arc<OpenContext>,
    local: Arc<Local>,
    queue: Arc<Queue>,
    /// The files of the last snapshot that was completed, and where they are stored.
    stored: Arc<Mutex<Files>>,
}

impl StateBackendFactory for RocksDb {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        let shelf = self.shelves.of(context.run);
        Box::pin(async move {
            let budget = Budget::shared(context.settings.rocksdb.memory.as_u64())?;
            let base = match context.settings.rocksdb.directory.as_str() {
                "" => std::env::temp_dir(),
                directory => PathBuf::from(directory),
            };
            let label = |subtask: Subtask| label(&context, subtask);
            let own = label(context.subtask);
            let restored: BTreeSet<_> = context.restore.iter().map(|handle| label(handle.subtask)).collect();
            let place = blocking(move || Place::new(shelf, &base, own, restored)).await?;
            let (local, stored) = restore::open(&context, place, budget).await?;
            let (context, local, stored) = (Arc::new(context), Arc::new(local), Arc::new(Mutex::new(stored)));
            let queue = Arc::new(Queue::new(local.clone()));
            Ok(Box::new(Backend { context, local, queue, stored }) as Box<dyn StateBackend>)
        })
    }

    fn ended(&self, run: RunId) -> Option<Box<dyn Send>> {
        self.shelves.take(run).map(|shelf| Box::new(shelf) as Box<_>)
    }
}

/// What a database is of, for people and, in a number, whatever the names have in them: of which job, in which checkpoint
/// store, too.
fn label(context: &OpenContext, subtask: Subtask) -> String {
    let OpenContext { store, operator, .. } = context;
    let mut of = crc32fast::Hasher::new();
    for part in
        [store.place().unwrap_or_default().as_bytes(), store.job().as_str().as_bytes(), operator.as_str().as_bytes()]
    {
        of.update(&(part.len() as u64).to_le_bytes());
        of.update(part);
    }
    format!("{}-{operator}-{subtask}-{:08x}", store.job(), of.finalize())
}

impl StateBackend for Backend {
    fn residency(&self) -> Residency {
        Residency::Cached
    }

    // Reads are on a blocking thread: the hop costs some microseconds a batch, and a batch that has to go to the disk
    // would hold up for milliseconds whatever else runs on the engine's thread.
    fn get_many(&mut self, keys: Vec<Bytes>) -> BoxFuture<'static, Result<Vec<Option<Bytes>>>> {
        let local = self.local.clone();
        Box::pin(blocking(move || {
            let mut values = Vec::with_capacity(keys.len());
            for keys in keys.chunks(LOOK_UP) {
                for value in local.db.batched_multi_get_pinned(keys, true) {
                    let value = value.map_err(|e| failed("read", e))?;
                    values.push(value.map(|value| Bytes::copy_from_slice(&value)));
                }
            }
            Ok(values)
        }))
    }

    fn scan(
        &mut self,
        start: Bytes,
        end: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>>> {
        let local = self.local.clone();
        Box::pin(blocking(move || {
            let mut options = ReadOptions::default();
            if let Some(end) = end {
                options.set_iterate_upper_bound(end);
            }
            let mut cursor = local.db.raw_iterator_opt(options);
            cursor.seek(&start);
            let mut page = Vec::new();
            while page.len() < limit
                && let Some((key, value)) = cursor.item()
            {
                page.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                cursor.next();
            }
            cursor.status().map_err(|e| failed("read", e))?;
            Ok(page)
        }))
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        self.queue.push(Step::Write(batch))
    }

    fn flushed(&mut self) -> BoxFuture<'static, Result<()>> {
        let (done, reached) = oneshot::channel();
        let pushed = self.queue.push(Step::Flushed(done));
        Box::pin(async move {
            pushed?;
            reached.await.map_err(|_| abandoned())?
        })
    }

    fn seal(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<StateHandle>> {
        let (done, cut) = oneshot::channel();
        let pushed = self.queue.push(Step::Cut(epoch, done));
        let (context, local, stored) = (self.context.clone(), self.local.clone(), self.stored.clone());
        Box::pin(async move {
            pushed?;
            let cut = cut.await.map_err(|_| abandoned())??;
            snapshot::store(&context, &local, &stored, epoch, cut).await
        })
    }
}

/// Runs what waits for the disk where waiting harms nobody.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    spawn_blocking(work).await.map_err(|e| Error::internal("a call of RocksDB has not come back").caused_by(e))?
}

/// An error of RocksDB. Even damage to its files passes: the next attempt has others.
fn failed(what: &str, error: rust_rocksdb::Error) -> Error {
    Error::unavailable(format!("RocksDB cannot {what}"))
        .caused_by(error)
        .hint("see whether the disk of state.rocksdb.directory is full or failing")
}

/// An error of the local disk.
fn disk(what: &str, error: std::io::Error) -> Error {
    Error::unavailable(format!("cannot {what}"))
        .caused_by(error)
        .hint("see whether the disk of state.rocksdb.directory is full or failing")
}

fn abandoned() -> Error {
    Error::internal("the queue of RocksDB has been given up")
}
