//! HDFS as an object store: `hdfs://namenode:9000/path`, `hdfs://nameservice/path`, `hdfs:///path` for `fs.defaultFS`.
//!
//! The client is a library; here is what it leaves open. It writes a file as `.name.tmp.1` beside its place and renames
//! it when it is whole: such files are no objects, so they are in no listing, and [`sweep`] deletes what killed processes
//! have left of them. It copies straight into the place: here a copy is renamed as well. And it waits for a
//! `NameNode` for minutes, which is right for one that restarts, and wrong for one whose name was misspelt: so the
//! first call has to be answered soon.
//!
//! The hard case is one that has been there and answers no more (it hangs, or a switch eats its packets): every call has
//! a limit, and after it is over the next one has to be answered soon again.
use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use hdfs_native_object_store::HdfsObjectStore;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, path::Path,
};
use std::{
    fmt,
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::timeout;
use url::Url;

/// For the first answer.
const REACHED_WITHIN: Duration = Duration::from_secs(8);
/// For every other, but for data: a `NameNode` may restart, or another take its place, meanwhile.
const ANSWERED_WITHIN: Duration = Duration::from_secs(180);
/// Bytes a second that can be written at least.
const SLOWEST: u64 = 100_000;

/// See the module.
#[derive(Clone)]
pub(crate) struct Hdfs {
    client: Client,
    inner: HdfsObjectStore,
    /// As it is in the URL: who, and where.
    place: String,
    prefix: Path,
    is_reached: Arc<AtomicBool>,
}

impl Hdfs {
    /// Reads what is in `HADOOP_CONF_DIR`, and asks nobody. `hdfs://user@namenode` is for a cluster without Kerberos;
    /// it goes before `HADOOP_USER_NAME`.
    pub fn open(url: &Url) -> Result<(Self, Path), HdfsError> {
        let host = url.host_str().unwrap_or_default();
        let place = url.port().map_or_else(|| format!("hdfs://{host}"), |port| format!("hdfs://{host}:{port}"));
        let mut client = ClientBuilder::new().with_url(if host.is_empty() { "hdfs:///" } else { &place });
        if !url.username().is_empty() {
            client = client.with_user(url.username());
        }
        let client = client.build()?;
        let prefix = Path::from_url_path(url.path()).map_err(|e| HdfsError::InvalidPath(e.to_string()))?;
        let inner = HdfsObjectStore::new(client.clone());
        let hdfs = Self { client, inner, place, prefix: prefix.clone(), is_reached: Arc::default() };
        Ok((hdfs, prefix))
    }

    fn unreachable(&self, why: impl fmt::Display) -> Error {
        let why = format!("the NameNode of {} does not answer: {why}; {CHECK}", self.place);
        Error::Generic { store: "HDFS", source: io::Error::new(io::ErrorKind::TimedOut, why).into() }
    }

    async fn reach(&self) -> Result<()> {
        if self.is_reached.load(SeqCst) {
            return Ok(());
        }
        match timeout(REACHED_WITHIN, self.client.get_file_info("/")).await {
            Err(_) => Err(self.unreachable(format!("nothing within {} s", REACHED_WITHIN.as_secs()))),
            Ok(Err(HdfsError::IOError(e))) => Err(self.unreachable(e)),
            // Whatever else it says, it is there.
            Ok(_) => {
                self.is_reached.store(true, SeqCst);
                Ok(())
            }
        }
    }

    async fn call<R>(&self, bytes: usize, act: impl Future<Output = Result<R>>) -> Result<R> {
        self.reach().await?;
        let limit = ANSWERED_WITHIN + Duration::from_secs(bytes as u64 / SLOWEST);
        if let Ok(result) = timeout(limit, act).await {
            return result.map_err(plain);
        }
        self.is_reached.store(false, SeqCst);
        Err(self.unreachable(format!("nothing within {} s", limit.as_secs())))
    }

    /// All that is below, unfinished writes too.
    fn everything(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, listed) = (self.clone(), self.inner.list(prefix));
        let next = move |mut listed: BoxStream<'static, Result<ObjectMeta>>| {
            let this = this.clone();
            async move {
                let next = this.call(0, async { listed.next().await.transpose() }).await.transpose();
                next.map(|next| next.map(|next| (next, listed))).transpose()
            }
        };
        stream::try_unfold(listed, next).boxed()
    }

    /// Deletes a file, and folders below the URL's that are empty then: an object store has no folders.
    async fn delete(&self, path: &Path) -> Result<bool, HdfsError> {
        let deleted = self.client.delete(&format!("/{path}"), false).await?;
        let mut parts: Vec<_> = path.parts().collect();
        while parts.pop().is_some() && parts.len() > self.prefix.parts().count() {
            let folder: Path = parts.iter().cloned().collect();
            // One that is not empty says so.
            if !matches!(self.client.delete(&format!("/{folder}"), false).await, Ok(true)) {
                break;
            }
        }
        Ok(deleted)
    }

    async fn copy(&self, from: &Path, to: &Path, overwrite: bool) -> Result<(), HdfsError> {
        let (from, place) = (format!("/{from}"), format!("/{to}"));
        if !overwrite && self.client.get_file_info(&place).await.is_ok() {
            return Err(HdfsError::AlreadyExists(place));
        }
        let (folder, name) = place.rsplit_once('/').unwrap_or(("", &place));
        let mut number = 1;
        let (unfinished, mut writer) = loop {
            let unfinished = format!("{folder}/.{name}{UNFINISHED}{number}");
            match self.client.create(&unfinished, WriteOptions::default()).await {
                Ok(writer) => break (unfinished, writer),
                Err(HdfsError::AlreadyExists(_)) => number += 1,
                Err(e) => return Err(e),
            }
        };
        let reader = self.client.read(&from).await?;
        let mut data = reader.read_range_stream(0, reader.file_length()).boxed();
        while let Some(bytes) = data.try_next().await? {
            Box::pin(writer.write_bytes(bytes)).await?;
        }
        Box::pin(writer.close()).await?;
        self.client.rename(&unfinished, &place, overwrite).await
    }
}

const CHECK: &str = "check the URL (checkpoint.store, state.object-store.url, or that of files) and HADOOP_CONF_DIR";
const UNFINISHED: &str = ".tmp.";

/// The name that a write which is unfinished was to have.
fn unfinished(name: Option<&str>) -> Option<&str> {
    let (name, number) = name?.strip_prefix('.')?.rsplit_once(UNFINISHED)?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

fn is_object(found: &ObjectMeta) -> bool {
    unfinished(found.location.filename()).is_none()
}

fn failed(error: HdfsError) -> Error {
    Error::Generic { store: "HDFS", source: error.into() }
}

/// What object stores call what HDFS says, without the stack of the `NameNode`.
fn plain(error: Error) -> Error {
    let Error::Generic { source, .. } = &error else { return error };
    let (class, text) = match source.downcast_ref() {
        Some(HdfsError::RPCError(class, text) | HdfsError::FatalRPCError(class, text)) => (class.as_str(), text),
        Some(HdfsError::AlreadyExists(path)) => {
            return Error::AlreadyExists { path: path.clone(), source: path.as_str().into() };
        }
        _ => return error,
    };
    let said = text.lines().next().unwrap_or_default();
    let said = format!("{}: {said}", class.rsplit('.').next().unwrap_or(class));
    if class.ends_with("AccessControlException") {
        return Error::PermissionDenied { path: String::new(), source: said.into() };
    }
    Error::Generic { store: "HDFS", source: said.into() }
}

/// See [`crate::unfinished::sweep_unfinished_remote`].
pub(crate) async fn sweep(url: &str, prefix: &Path, is_swept: impl Fn(&str) -> bool) -> Result<usize> {
    let hdfs = Url::parse(url).map_err(HdfsError::from).and_then(|url| Hdfs::open(&url));
    let (hdfs, _) = hdfs.map_err(failed)?;
    let mut all = hdfs.everything(Some(prefix));
    let mut swept = 0;
    while let Some(found) = all.try_next().await? {
        let path = &found.location;
        let Some(name) = unfinished(path.filename()) else { continue };
        let mut below = path.prefix_match(prefix).into_iter().flatten();
        let folder = below.next().filter(|_| below.next().is_some());
        if is_swept(folder.as_ref().map_or(name, AsRef::as_ref)) {
            let deleted = async { hdfs.delete(path).await.map_err(failed) };
            swept += usize::from(hdfs.call(0, deleted).await?);
        }
    }
    Ok(swept)
}

impl fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hdfs({})", self.place)
    }
}

#[async_trait]
impl ObjectStore for Hdfs {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.call(payload.content_length(), self.inner.put_opts(location, payload, opts)).await
    }
    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.call(0, self.inner.put_multipart_opts(location, opts)).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(0, self.inner.get_opts(location, options)).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Result<Path>| {
            let this = this.clone();
            async move {
                let location = location?;
                this.call(0, async { this.delete(&location).await.map_err(failed) }).await?;
                Ok(location)
            }
        };
        locations.map(delete).buffered(10).boxed()
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.everything(prefix).try_filter(|found| ready(is_object(found))).boxed()
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.call(0, self.inner.list_with_delimiter(prefix)).await?;
        listed.objects.retain(is_object);
        Ok(listed)
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let size = self.call(0, self.inner.get_opts(from, GetOptions::default().with_head(true))).await?.meta.size;
        let copied = async {
            let copied = Box::pin(self.copy(from, to, options.mode == CopyMode::Overwrite)).await;
            copied.map_err(failed)
        };
        self.call(size as usize, copied).await
    }
    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.call(0, self.inner.rename_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_client_leaves_is_unfinished() {
        for (name, of) in [
            (".part.tmp.1", Some("part")),
            (".000001-000000000001-0000.blocks.tmp.17", Some("000001-000000000001-0000.blocks")),
            ("part.tmp.1", None),
            (".part.tmp.", None),
            (".part.tmp.x", None),
            (".tmp", None),
        ] {
            assert_eq!(unfinished(Some(name)), of, "{name}");
        }
    }

    #[test]
    fn what_is_forbidden_is_told_apart_and_no_stack_is_shown() {
        let said = |class: &str| {
            let source = HdfsError::RPCError(class.into(), "Permission denied: user=me\n\tat org.apache".into());
            plain(Error::Generic { store: "HdfsObjectStore", source: source.into() })
        };
        let forbidden = said("org.apache.hadoop.security.AccessControlException");
        assert!(matches!(forbidden, Error::PermissionDenied { .. }), "{forbidden}");
        let safe = said("org.apache.hadoop.hdfs.server.namenode.SafeModeException").to_string();
        assert!(
            safe.contains("SafeModeException: Permission denied: user=me") && !safe.contains("org.apache"),
            "{safe}"
        );
    }
}
