//! An object store in memory that fails as it is told: by operation, by part of the path, so many times.
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, Result, memory::InMemory, path::Path};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};
use tidegate::extend::checkpoint::{ids::JobId, store::CheckpointStore};
pub use tidegate_core::testkit::store::Op;
use tidegate_core::testkit::store::{Faults, FaultyStore, Reply, injected};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and it says so.
    Fails,
    /// As `Fails`, and says that the disk is full.
    DiskFull,
    /// It happens, and the reply is lost.
    LosesReply,
    /// Nothing happens until the stall is released; then it does.
    Stalls,
    /// It can never happen: this kind of store has no such operation.
    Unsupported,
}

#[derive(Debug)]
struct Rule {
    op: Op,
    path: String,
    fault: Fault,
    left: u32,
}

/// See the module. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store(FaultyStore<Rules>);

#[derive(Debug)]
struct Rules {
    rules: Mutex<Vec<Rule>>,
    hits: watch::Sender<u32>,
    released: watch::Sender<Released>,
}

/// Which stalls are over: all of them, or those of rules with these paths.
#[derive(Debug, Default)]
struct Released {
    all: bool,
    paths: Vec<String>,
}

impl Store {
    pub fn new() -> Self {
        let (hits, released) = (watch::Sender::new(0), watch::Sender::new(Released::default()));
        Self(FaultyStore::with(Arc::new(InMemory::new()), Rules { rules: Mutex::default(), hits, released }))
    }

    /// The next `times` operations of this kind whose path has `path` in it go wrong.
    pub fn on(&self, op: Op, path: &str, fault: Fault, times: u32) {
        let faults = self.0.faults();
        faults.hits.send_replace(0);
        faults.released.send_modify(|r| r.all = false);
        faults.rules.lock().unwrap().push(Rule { op, path: path.to_owned(), fault, left: times });
    }

    /// No more faults; what is stalled goes on.
    pub fn heal(&self) {
        self.0.faults().rules.lock().unwrap().clear();
        self.0.faults().released.send_modify(|r| r.all = true);
    }

    /// What the rule with this path has stalled goes on; other stalls stay.
    pub fn release(&self, path: &str) {
        self.0.faults().released.send_modify(|r| r.paths.push(path.to_owned()));
    }

    /// Faults since the last `on`.
    pub fn hits(&self) -> u32 {
        *self.0.faults().hits.borrow()
    }

    /// Waits for so many faults since the last `on`.
    pub async fn hit(&self, times: u32) {
        self.0.faults().hits.subscribe().wait_for(|n| *n >= times).await.unwrap();
    }

    /// It, as connectors take one.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.0.clone())
    }

    /// The checkpoints of a job in it.
    pub fn checkpoints(&self, job: &str) -> CheckpointStore {
        CheckpointStore::new(self.objects(), "", JobId::new(job).unwrap())
    }

    /// Every object.
    pub async fn contents(&self) -> BTreeMap<String, Bytes> {
        let objects = self.0.inner();
        let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
        let mut contents = BTreeMap::new();
        for object in listed {
            let bytes = objects.get(&object.location).await.unwrap().bytes().await.unwrap();
            contents.insert(object.location.to_string(), bytes);
        }
        contents
    }

    /// A store with these objects.
    pub async fn with(contents: &BTreeMap<String, Bytes>) -> Self {
        let store = Self::new();
        for (path, bytes) in contents {
            store.0.inner().put(&Path::from(path.as_str()), bytes.clone().into()).await.unwrap();
        }
        store
    }
}

impl Rules {
    /// The fault, and the path of its rule.
    fn fault(&self, op: Op, path: &str) -> Option<(Fault, String)> {
        let mut rules = self.rules.lock().unwrap();
        let is_hit = |r: &&mut Rule| {
            let same = r.op == op || (r.op == Op::Copy && op == Op::CopyIfAbsent);
            same && r.left > 0 && path.contains(&r.path)
        };
        let rule = rules.iter_mut().find(is_hit)?;
        rule.left -= 1;
        self.hits.send_modify(|n| *n += 1);
        Some((rule.fault, rule.path.clone()))
    }
}

#[async_trait]
impl Faults for Rules {
    async fn before(&self, op: Op, path: &str) -> Result<Reply> {
        match self.fault(op, path) {
            None => Ok(Reply::Comes),
            Some((Fault::Fails, _)) => Err(injected("the store fails")),
            Some((Fault::DiskFull, _)) => Err(injected(io::Error::from(io::ErrorKind::StorageFull))),
            Some((Fault::Unsupported, _)) => {
                Err(object_store::Error::NotSupported { source: "this store cannot do it".into() })
            }
            Some((Fault::LosesReply, _)) => Ok(Reply::IsLost),
            Some((Fault::Stalls, rule)) => {
                self.released.subscribe().wait_for(|r| r.all || r.paths.contains(&rule)).await.unwrap();
                Ok(Reply::Comes)
            }
        }
    }
}
