//! State in an object store: a directory, S3, GCS, Azure or HDFS. `state.backend = "object-store"`.
//!
//! ```text
//! <state.object-store.url>/<job>/<lineage>/<operator>/<attempt>/<subtask>-<unique>/   one LSM tree (slatedb)
//! ```
//! A snapshot is a checkpoint of the tree, which names what is there and copies nothing; a restore is a clone of it,
//! which refers to the files of its parents: both take as long for much state as for little. To rescale is to clone
//! parts of several (`database`). Writes go through one task (`writer`), so that what comes first is in the snapshot and
//! what comes later is not. What a dead attempt has left is deleted by a later one (`collect`).
//!
//! The hard case is a zombie. It writes to its own tree, whose path no other attempt and no other opening of this one
//! has: it spoils nothing, and there is nothing to be fenced. What it goes on to write is found and deleted by the
//! collections that follow.
mod collect;
mod database;
mod failed;
mod options;
mod place;
mod writer;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, channel::oneshot, future::BoxFuture, stream};
use object_store::{ObjectStore, path::Path};
use serde::{Deserialize, Serialize};
use slatedb::{Db, config::ScanOptions};
use std::sync::Arc;

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Epoch,
    manifest::StateHandle,
};
use tidegate_core::{
    env::spawn,
    state::backend::{Kept, OpenContext, Residency, StateBackend, StateBackendFactory, WriteBatch, key_group_prefix},
};

use self::{
    failed::failed,
    place::Places,
    writer::{Order, Writer},
};

const NAME: &str = "object-store";
/// Keys that are looked up at once: each may be a request.
const LOOK_UPS: usize = 64;
const READ_AHEAD: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct ObjectStoreState {
    places: Arc<Places>,
}

impl ObjectStoreState {
    /// Where no URL is set, that is here: `memory:` lasts as long as this value, for tests.
    pub fn at(url: &str) -> Self {
        Self { places: Arc::new(Places::at(url)) }
    }

    /// In a store of one's own, below a prefix; `state.object-store.url` is not asked for then. `has_updates`: whether
    /// an object can be replaced on condition that it is still the same (`PutMode::Update`).
    pub fn over(objects: Arc<dyn ObjectStore>, prefix: &str, has_updates: bool) -> Self {
        Self { places: Arc::new(Places::over(objects, Path::from(prefix), has_updates)) }
    }
}

/// What a handle says of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    /// The tree's, from the bucket or root on.
    path: String,
    checkpoint: String,
}

impl Snapshot {
    fn of(handle: &StateHandle) -> Result<Self> {
        if handle.backend != NAME {
            let other =
                format!("the state was written by the backend {:?}, and {NAME:?} is to read it", handle.backend);
            return Err(Error::config(other).hint("set state.backend back, or start from a savepoint"));
        }
        serde_json::from_value(handle.data.clone())
            .map_err(|e| Error::corrupt("a handle of state in an object store cannot be read").caused_by(e))
    }
}

impl StateBackendFactory for ObjectStoreState {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        let places = self.places.clone();
        Box::pin(async move {
            let place = places.open(&context.settings.object_store)?;
            place.answers().await?;
            let (db, path) = database::open(&place, &context).await?;
            let (writer, orders) = Writer::new();
            drop(spawn(writer.run(db.clone(), orders.1, path.clone())));
            let backend = Backend { context, db, path: path.into(), orders: orders.0 };
            Ok(Box::new(backend) as Box<_>)
        })
    }

    fn collect(&self, kept: Kept) -> BoxFuture<'static, Result<()>> {
        let places = self.places.clone();
        Box::pin(async move {
            for place in places.opened() {
                collect::collect(&place, &kept).await?;
            }
            Ok(())
        })
    }
}

struct Backend {
    context: OpenContext,
    db: Db,
    path: Arc<str>,
    orders: writer::Orders,
}

impl Backend {
    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order, &self.path)
    }
}

impl StateBackend for Backend {
    fn residency(&self) -> Residency {
        Residency::Cached
    }

    fn get_many(&mut self, keys: Vec<Bytes>) -> BoxFuture<'static, Result<Vec<Option<Bytes>>>> {
        let (db, path) = (self.db.clone(), self.path.clone());
        Box::pin(async move {
            let values = stream::iter(keys).map(|key| {
                let db = db.clone();
                async move { db.get(key).await }
            });
            values.buffered(LOOK_UPS).try_collect().await.map_err(|e| failed("read", &path, e))
        })
    }

    fn scan(
        &mut self,
        start: Bytes,
        end: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>>> {
        let (db, path) = (self.db.clone(), self.path.clone());
        // A tree that was cloned may hold more than it shows: see `database`.
        let range = self.context.key_groups;
        let (first, last) = (key_group_prefix(range.start), key_group_prefix(range.end));
        let start = start.max(Bytes::copy_from_slice(&first));
        let end = end.map_or_else(|| Bytes::copy_from_slice(&last), |end| end.min(Bytes::copy_from_slice(&last)));
        Box::pin(async move {
            let mut page = Vec::with_capacity(limit.min(1 << 12));
            if start >= end {
                return Ok(page);
            }
            let options = ScanOptions { read_ahead_bytes: READ_AHEAD, cache_blocks: true, ..ScanOptions::default() };
            let failed = |e| failed("read", &path, e);
            let mut found = db.scan_with_options(start..end, &options).await.map_err(failed)?;
            while page.len() < limit {
                let Some(pair) = found.next().await.map_err(failed)? else { break };
                page.push((pair.key, pair.value));
            }
            Ok(page)
        })
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        self.order(Order::Write(batch))
    }

    fn flushed(&mut self) -> BoxFuture<'static, Result<()>> {
        let (tell, told) = oneshot::channel();
        let (ordered, path) = (self.order(Order::Tell(tell)), self.path.clone());
        Box::pin(async move {
            ordered?;
            told.await.map_err(|_| writer::gone(&path))?
        })
    }

    fn seal(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<StateHandle>> {
        let (tell, told) = oneshot::channel();
        let (ordered, path) = (self.order(Order::Seal(epoch, tell)), self.path.clone());
        let (subtask, key_groups) = (self.context.subtask, self.context.key_groups);
        Box::pin(async move {
            ordered?;
            let begun = told.await.map_err(|_| writer::gone(&path))??;
            let checkpoint = begun.wait().await.map_err(|e| failed("write", &path, e))?.id.to_string();
            let snapshot = Snapshot { path: path.to_string(), checkpoint };
            let data = serde_json::to_value(snapshot)
                .map_err(|e| Error::internal("a handle does not serialise").caused_by(e))?;
            Ok(StateHandle { subtask, key_groups, backend: NAME.into(), data, objects: Vec::new() })
        })
    }
}
