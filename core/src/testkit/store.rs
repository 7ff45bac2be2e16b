//! An object store whose calls fail, stall or lose their reply.
//!
//! What happens to a call is decided by its [`Faults`]: by the n-th call ([`Nth`]), by rules, or by a seed. A call
//! fails either before anything is done or after all is done, which is the hard case: only the reply is
//! lost. A rename is a copy and a delete, as on most object stores, so that it can fail in between.
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// What kind of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A put, or a step of a multipart upload.
    Put,
    /// A read, also of ranges or of the size alone.
    Get,
    /// A listing.
    List,
    /// A delete.
    Delete,
    /// A copy; its path is where it goes to.
    Copy,
    /// A copy that must not overwrite.
    CopyIfAbsent,
}

/// What becomes of a call that is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It comes back.
    Comes,
    /// It is lost: the caller gets an error though all is done.
    IsLost,
}

/// Decides over each call. A stall is a `before` or an `after` that takes its time.
#[async_trait]
pub trait Faults: fmt::Debug + Send + Sync + 'static {
    /// Before a call is carried out. With an error it is not.
    async fn before(&self, op: Op, path: &str) -> Result<Reply>;

    /// It has been carried out, with this outcome; the caller does not know it yet.
    async fn after(&self, op: Op, path: &str, outcome: std::result::Result<(), &Error>) {
        let _ = (op, path, outcome);
    }
}

/// An object store whose calls go as its faults say. Clones share them.
#[derive(Debug)]
pub struct FaultyStore<F = Nth> {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<F>,
}

impl<F> Clone for FaultyStore<F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), faults: self.faults.clone() }
    }
}

impl<F: Faults> FaultyStore<F> {
    /// A store with these faults.
    pub fn with(inner: Arc<dyn ObjectStore>, faults: F) -> Self {
        Self { inner, faults: Arc::new(faults) }
    }

    /// The store without its faults.
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// The faults.
    pub fn faults(&self) -> &F {
        &self.faults
    }

    async fn call<R>(&self, op: Op, path: &str, act: impl Future<Output = Result<R>> + Send) -> Result<R> {
        let reply = self.faults.before(op, path).await?;
        let result = act.await;
        self.faults.after(op, path, result.as_ref().map(drop)).await;
        match reply {
            Reply::Comes => result,
            Reply::IsLost => result.and(Err(injected("the reply is lost"))),
        }
    }
}

/// The error of a call that was made to fail.
pub fn injected(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "FaultyStore", source: why.into() }
}

/// How one chosen call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done.
    Refused,
    /// All is done, and an error is returned.
    ReplyLost,
}

/// The faults of a test that stops at the n-th call, for every n: of the calls that change something.
#[derive(Debug, Default)]
pub struct Nth(Mutex<Chosen>);

#[derive(Debug, Default)]
struct Chosen {
    calls: u64,
    /// The call that fails, and how.
    next: Option<(u64, Fault)>,
    /// Whether every call after it is refused.
    lasting: bool,
    down: bool,
}

impl FaultyStore {
    /// A store that does not fail yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self::with(inner, Nth::default())
    }

    /// Changing calls so far.
    pub fn calls(&self) -> u64 {
        self.chosen(|f| f.calls)
    }

    /// Makes the call after `spared` more fail, once.
    pub fn fail_after(&self, spared: u64, fault: Fault) {
        self.chosen(|f| f.next = Some((f.calls + spared, fault)));
    }

    /// Makes the call after `spared` more fail, and every later one: as if the process had died there.
    pub fn die_after(&self, spared: u64, fault: Fault) {
        self.chosen(|f| (f.next, f.lasting) = (Some((f.calls + spared, fault)), true));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.chosen(|f| *f = Chosen { calls: f.calls, ..Chosen::default() });
    }

    fn chosen<R>(&self, act: impl FnOnce(&mut Chosen) -> R) -> R {
        act(&mut self.faults.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Faults for Nth {
    /// Counts a changing call, and says how it fails.
    async fn before(&self, op: Op, _: &str) -> Result<Reply> {
        if matches!(op, Op::Get | Op::List) {
            return Ok(Reply::Comes);
        }
        let mut chosen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.calls += 1;
        if chosen.down {
            return Err(injected("this call was made to fail"));
        }
        let Some((call, fault)) = chosen.next.filter(|(call, _)| *call < chosen.calls) else { return Ok(Reply::Comes) };
        debug_assert!(call + 1 == chosen.calls);
        (chosen.next, chosen.down) = (None, chosen.lasting);
        match fault {
            Fault::Refused => Err(injected("this call was made to fail")),
            Fault::ReplyLost => Ok(Reply::IsLost),
        }
    }
}

impl<F> fmt::Display for FaultyStore<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl<F: Faults> ObjectStore for FaultyStore<F> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.call(Op::Put, location.as_ref(), self.inner.put_opts(location, payload, opts)).await
    }
    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.call(Op::Put, location.as_ref(), self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(FaultyUpload { upload, path: location.to_string(), store: self.clone() }))
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(Op::Get, location.as_ref(), self.inner.get_opts(location, options)).await
    }
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(Op::Get, location.as_ref(), self.inner.get_ranges(location, ranges)).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let deleted = store.call(Op::Delete, location.as_ref(), store.inner.delete(&location)).await;
                    deleted.map(|()| location)
                }
            })
            .boxed()
    }
    /// One call, however long: what it finds is what was there at one moment.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let path = prefix.as_ref().map_or("", AsRef::as_ref);
            let found = store.call(Op::List, path, store.inner.list(prefix.as_ref()).try_collect::<Vec<_>>()).await?;
            Ok::<_, Error>(futures::stream::iter(found.into_iter().map(Ok)))
        };
        futures::stream::once(listed).try_flatten().boxed()
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(Op::List, prefix.map_or("", AsRef::as_ref), self.inner.list_with_delimiter(prefix)).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let op = if options.mode == CopyMode::Create { Op::CopyIfAbsent } else { Op::Copy };
        self.call(op, to.as_ref(), self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload<F> {
    upload: Box<dyn MultipartUpload>,
    path: String,
    store: FaultyStore<F>,
}

#[async_trait]
impl<F: Faults> MultipartUpload for FaultyUpload<F> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, path, store) = (self.upload.put_part(data), self.path.clone(), self.store.clone());
        Box::pin(async move { store.call(Op::Put, &path, part).await })
    }
    async fn complete(&mut self) -> Result<PutResult> {
        self.store.call(Op::Put, &self.path, self.upload.complete()).await
    }
    async fn abort(&mut self) -> Result<()> {
        self.store.call(Op::Put, &self.path, self.upload.abort()).await
    }
}
