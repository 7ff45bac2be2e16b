//! An object store that fails at a chosen call.
//!
//! Calls that change something are counted: puts, the steps of a multipart upload, copies, deletes. A
//! rename is a copy and a delete, as on most object stores, so that it can fail in between. A call fails
//! either before anything is done or after all is done, which is the hard case: only the reply is lost.
use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done.
    Refused,
    /// All is done, and an error is returned.
    ReplyLost,
}

/// See the module. Clones share their faults.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
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
        Self { inner, faults: Arc::default() }
    }

    /// The store without its faults.
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// Changing calls so far.
    pub fn calls(&self) -> u64 {
        self.with(|f| f.calls)
    }

    /// Makes the call after `spared` more fail, once.
    pub fn fail_after(&self, spared: u64, fault: Fault) {
        self.with(|f| f.next = Some((f.calls + spared, fault)));
    }

    /// Makes the call after `spared` more fail, and every later one: as if the process had died there.
    pub fn die_after(&self, spared: u64, fault: Fault) {
        self.with(|f| (f.next, f.lasting) = (Some((f.calls + spared, fault)), true));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.with(|f| *f = Faults { calls: f.calls, ..Faults::default() });
    }

    fn with<R>(&self, act: impl FnOnce(&mut Faults) -> R) -> R {
        act(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a call, and says how it fails.
    fn fault(&self) -> Option<Fault> {
        self.with(|f| {
            f.calls += 1;
            if f.down {
                return Some(Fault::Refused);
            }
            let (call, fault) = f.next.filter(|(call, _)| *call < f.calls)?;
            debug_assert!(call + 1 == f.calls);
            (f.next, f.down) = (None, f.lasting);
            Some(fault)
        })
    }

    async fn call<R>(&self, act: impl Future<Output = Result<R>> + Send) -> Result<R> {
        match self.fault() {
            Some(Fault::Refused) => Err(injected()),
            Some(Fault::ReplyLost) => act.await.and(Err(injected())),
            None => act.await,
        }
    }
}

fn injected() -> Error {
    Error::Generic { store: "FaultyStore", source: "this call was made to fail".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.call(self.inner.put_opts(location, payload, opts)).await
    }
    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.call(self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(FaultyUpload { upload, store: self.clone() }))
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    store.call(store.inner.delete(&location)).await.map(|()| location)
                }
            })
            .boxed()
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    store: FaultyStore,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, store) = (self.upload.put_part(data), self.store.clone());
        Box::pin(async move { store.call(part).await })
    }
    async fn complete(&mut self) -> Result<PutResult> {
        self.store.call(self.upload.complete()).await
    }
    async fn abort(&mut self) -> Result<()> {
        self.store.call(self.upload.abort()).await
    }
}
