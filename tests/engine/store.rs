//! An object store in memory that fails as it is told: by operation, by part of the path, so many times.
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex},
};
use tidegate::extend::checkpoint::{ids::JobId, store::CheckpointStore};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Put,
    Get,
    List,
    Delete,
    Copy,
    /// A copy that must not overwrite.
    CopyIfAbsent,
}

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

struct Rule {
    op: Op,
    path: String,
    fault: Fault,
    left: u32,
}

/// See the module. Clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    objects: InMemory,
    rules: Mutex<Vec<Rule>>,
    hits: watch::Sender<u32>,
    released: watch::Sender<Released>,
}

/// Which stalls are over: all of them, or those of rules with these paths.
#[derive(Default)]
struct Released {
    all: bool,
    paths: Vec<String>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    pub fn new() -> Self {
        let (hits, released) = (watch::Sender::new(0), watch::Sender::new(Released::default()));
        Self(Arc::new(Inner { objects: InMemory::new(), rules: Mutex::default(), hits, released }))
    }

    /// The next `times` operations of this kind whose path has `path` in it go wrong.
    pub fn on(&self, op: Op, path: &str, fault: Fault, times: u32) {
        self.0.hits.send_replace(0);
        self.0.released.send_modify(|r| r.all = false);
        self.0.rules.lock().unwrap().push(Rule { op, path: path.to_owned(), fault, left: times });
    }

    /// No more faults; what is stalled goes on.
    pub fn heal(&self) {
        self.0.rules.lock().unwrap().clear();
        self.0.released.send_modify(|r| r.all = true);
    }

    /// What the rule with this path has stalled goes on; other stalls stay.
    pub fn release(&self, path: &str) {
        self.0.released.send_modify(|r| r.paths.push(path.to_owned()));
    }

    /// Faults since the last `on`.
    pub fn hits(&self) -> u32 {
        *self.0.hits.borrow()
    }

    /// Waits for so many faults since the last `on`.
    pub async fn hit(&self, times: u32) {
        self.0.hits.subscribe().wait_for(|n| *n >= times).await.unwrap();
    }

    /// The checkpoints of a job in it.
    pub fn checkpoints(&self, job: &str) -> CheckpointStore {
        CheckpointStore::new(Arc::new(self.clone()), "", JobId::new(job).unwrap())
    }

    /// Every object.
    pub async fn contents(&self) -> BTreeMap<String, Bytes> {
        let listed: Vec<_> = self.0.objects.list(None).try_collect().await.unwrap();
        let mut contents = BTreeMap::new();
        for object in listed {
            let bytes = self.0.objects.get(&object.location).await.unwrap().bytes().await.unwrap();
            contents.insert(object.location.to_string(), bytes);
        }
        contents
    }

    /// A store with these objects.
    pub async fn with(contents: &BTreeMap<String, Bytes>) -> Self {
        let store = Self::new();
        for (path, bytes) in contents {
            store.0.objects.put(&Path::from(path.as_str()), bytes.clone().into()).await.unwrap();
        }
        store
    }

    /// The fault, and the path of its rule.
    fn fault(&self, op: Op, path: &str) -> Option<(Fault, String)> {
        let mut rules = self.0.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|r| r.op == op && r.left > 0 && path.contains(&r.path))?;
        rule.left -= 1;
        self.0.hits.send_modify(|n| *n += 1);
        Some((rule.fault, rule.path.clone()))
    }

    /// Before the operation: an error, a wait, or nothing; `true` when its reply is to be lost.
    async fn before(&self, op: Op, path: &str) -> Result<bool> {
        match self.fault(op, path) {
            None => Ok(false),
            Some((Fault::Fails, _)) => Err(failure("the store fails")),
            Some((Fault::DiskFull, _)) => Err(failure(io::Error::from(io::ErrorKind::StorageFull))),
            Some((Fault::Unsupported, _)) => {
                Err(object_store::Error::NotSupported { source: "this store cannot do it".into() })
            }
            Some((Fault::LosesReply, _)) => Ok(true),
            Some((Fault::Stalls, rule)) => {
                self.0.released.subscribe().wait_for(|r| r.all || r.paths.contains(&rule)).await.unwrap();
                Ok(false)
            }
        }
    }
}

fn failure(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "Store", source: why.into() }
}

fn reply<T>(result: Result<T>, lost: bool) -> Result<T> {
    if lost { Err(failure("the reply is lost")) } else { result }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let lost = self.before(Op::Put, path.as_ref()).await?;
        reply(self.0.objects.put_opts(path, payload, options).await, lost)
    }
    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.before(Op::Put, path.as_ref()).await?;
        self.0.objects.put_multipart_opts(path, options).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.before(Op::Get, path.as_ref()).await?;
        self.0.objects.get_opts(path, options).await
    }
    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.before(Op::Get, path.as_ref()).await?;
        self.0.objects.get_ranges(path, ranges).await
    }
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .and_then(move |path| {
                let store = store.clone();
                async move {
                    let lost = store.before(Op::Delete, path.as_ref()).await?;
                    reply(store.0.objects.delete(&path).await.map(|()| path), lost)
                }
            })
            .boxed()
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            store.before(Op::List, prefix.as_ref().map_or("", AsRef::as_ref)).await?;
            Ok::<_, object_store::Error>(store.0.objects.list(prefix.as_ref()))
        };
        futures::stream::once(listed).try_flatten().boxed()
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.before(Op::List, prefix.map_or("", AsRef::as_ref)).await?;
        self.0.objects.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mut lost = self.before(Op::Copy, to.as_ref()).await?;
        if options.mode == CopyMode::Create {
            lost |= self.before(Op::CopyIfAbsent, to.as_ref()).await?;
        }
        reply(self.0.objects.copy_opts(from, to, options).await, lost)
    }
}
