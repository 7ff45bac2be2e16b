//! The checkpoint store: named objects on any `object_store`.
//!
//! It needs two things of the store: that an object appears whole or not at all, and that of two writers
//! who create the same name one is told so (put-if-absent). Local directories have both (a temporary file,
//! linked into place, with fsync), as have S3, GCS, Azure and HDFS.
//!
//! The hard case is the lost reply: a create that failed may have succeeded. So a create that fails or
//! finds the name taken reads the object back, and bytes equal to ours mean that it was ours.
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, memory::InMemory, path::Path,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ffi::OsString, fmt, io, ops::Range, sync::Arc};

use crate::{
    commit::CommitRecord,
    envelope,
    error::{Error, Result},
    ids::{Attempt, Epoch, JobId},
    kill,
    manifest::{Manifest, ObjectRef},
    paths,
    unfinished::{local_directory, sweep_unfinished, sweep_unfinished_remote},
};

pub use object_store::PutPayload as Payload;

const CLAIM: &str = "attempt";
const CLAIM_VERSION: u32 = 1;
#[cfg(feature = "hdfs")]
const HADOOP: &str = "name the NameNode (hdfs://host:port/path), or a name service that HADOOP_CONF_DIR knows";
const RESTORE: &str = "restore it from a copy, or start from another checkpoint with checkpoint.from";

/// The folders with writes that may be unfinished.
const SWEPT: [&str; 4] = ["attempts", "manifests", "commits", "state"];

/// Whether nobody will finish a write any more.
fn is_swept(folder: &str, name: &str, attempt: Attempt) -> bool {
    folder != "attempts" || paths::parse_attempt(name) < Some(attempt)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    attempt: Attempt,
    owner: String,
}

/// The objects of one job.
#[derive(Clone)]
pub struct CheckpointStore {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    job: JobId,
    url: String,
}

impl fmt::Debug for CheckpointStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may carry credentials.
        write!(f, "CheckpointStore({}, {})", self.objects, self.job)
    }
}

/// The lineage of a job that a claimant has started from nothing.
pub fn lineage(owner: &str) -> String {
    format!("{:08x}", crc32fast::hash(owner.as_bytes()))
}

/// What became of a create.
#[derive(Debug)]
pub enum Created {
    /// The object is there with our bytes, written now or by an earlier try.
    Ours,
    /// It is there with somebody else's.
    Theirs(Bytes),
}

impl CheckpointStore {
    /// A job's objects below `prefix` of a store.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str, job: JobId) -> Self {
        Self { objects, prefix: Path::from(prefix), job, url: "custom:".into() }
    }

    /// Opens `file:///path`, a plain path, `memory:`, or a URL of a compiled-in object store.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind): a URL that cannot be understood, a directory that cannot be
    /// made, a store whose feature is not compiled in.
    pub fn open(url: &str, job: JobId) -> Result<Self> {
        let (objects, prefix) = open_url(url)?;
        Ok(Self { objects, prefix, job, url: url.to_owned() })
    }

    /// As `open`, for who only reads: makes no directory. `None`: there is none.
    ///
    /// # Errors
    /// As `open`.
    pub fn find(url: &str, job: JobId) -> Result<Option<Self>> {
        if let Some(directory) = local_directory(url).filter(|directory| !directory.is_empty()) {
            match std::fs::metadata(directory) {
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                Err(e) => return Err(unusable(directory, &e)),
                Ok(found) if !found.is_dir() => return Ok(None),
                Ok(_) => {}
            }
        }
        Self::open(url, job).map(Some)
    }

    /// The job.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// Where it is: see [`place`].
    pub fn place(&self) -> Option<String> {
        place(&self.url)
    }

    /// Whether it ends with this process.
    pub fn is_volatile(&self) -> bool {
        self.url.starts_with("memory:")
    }

    /// Whether it is a local directory: only there can something be swept, and only there do calls block.
    pub fn is_local(&self) -> bool {
        local_directory(&self.url).is_some()
    }

    /// Whether there is nothing at all below its prefix, of whatever job.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind), with the store's error.
    pub async fn is_empty(&self) -> Result<bool> {
        let first = self.objects.list(Some(&self.prefix)).try_next().await;
        first.map(|first| first.is_none()).map_err(|e| failed("list", "", e))
    }

    /// Deletes what killed processes have left of writes to a local directory: see [`crate::unfinished`].
    /// Done as the owner of an attempt: claims before its own are decided, while a later one may be on its way. Blocks.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind), with the operating system's error.
    pub fn sweep_unfinished(&self, attempt: Attempt) -> Result<()> {
        for folder in SWEPT {
            let path = self.path(&paths::folder(&self.job, folder));
            sweep_unfinished(&self.url, &path, |name| is_swept(folder, name, attempt))
                .map_err(|e| Error::unavailable(format!("cannot sweep {path}")).caused_by(e))?;
        }
        Ok(())
    }

    /// The same on HDFS.
    ///
    /// # Errors
    /// As `put`.
    pub async fn sweep_unfinished_remote(&self, attempt: Attempt) -> Result<()> {
        for folder in SWEPT {
            let path = self.path(&paths::folder(&self.job, folder));
            let swept = sweep_unfinished_remote(&self.url, &path, |name| is_swept(folder, name, attempt)).await;
            swept.map_err(|e| failed("sweep", folder, e))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }

    /// Creates an object if there is none of this name.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind) when even reading it back fails.
    pub async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<Created> {
        let bytes = Bytes::from(bytes);
        let path = self.path(name);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let Err(error) = self.objects.put_opts(&path, bytes.clone().into(), options).await else {
            return Ok(Created::Ours);
        };
        match self.objects.get(&path).await {
            Ok(found) => {
                let found = found.bytes().await.map_err(|e| failed("read", name, e))?;
                Ok(if found == bytes { Created::Ours } else { Created::Theirs(found) })
            }
            Err(_) => Err(failed("write", name, error)),
        }
    }

    /// Writes an object that only this attempt writes.
    ///
    /// # Errors
    /// See [`failed`] for the kinds.
    pub async fn put(&self, name: &str, bytes: impl Into<object_store::PutPayload>) -> Result<()> {
        self.objects.put(&self.path(name), bytes.into()).await.map(drop).map_err(|e| failed("write", name, e))
    }

    /// Writes an object in parts.
    ///
    /// # Errors
    /// As `put`.
    pub async fn put_multipart(&self, name: &str) -> Result<Box<dyn object_store::MultipartUpload>> {
        self.objects.put_multipart(&self.path(name)).await.map_err(|e| failed("write", name, e))
    }

    /// Reads an object that must be there.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind) when it is missing.
    pub async fn get(&self, name: &str) -> Result<Bytes> {
        let found = self.objects.get(&self.path(name)).await.map_err(|e| failed("read", name, e))?;
        found.bytes().await.map_err(|e| failed("read", name, e))
    }

    /// Reads parts of an object.
    ///
    /// # Errors
    /// As `get`; also when it is shorter than the ranges say.
    pub async fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = self.path(name);
        // Stores differ in what they do with a range past the end; one of them panics.
        let size = self.objects.head(&path).await.map_err(|e| failed("read", name, e))?.size;
        let needed = ranges.iter().map(|r| r.end).max().unwrap_or_default();
        if needed > size {
            let short = format!("{name} is damaged: it has {size} bytes, and {needed} are needed");
            return Err(Error::corrupt(short).hint(RESTORE));
        }
        self.objects.get_ranges(&path, ranges).await.map_err(|e| failed("read", name, e))
    }

    /// Deletes an object; one that is gone already is fine.
    ///
    /// # Errors
    /// As `put`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self.objects.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed("delete", name, e)),
        }
    }

    /// The objects in one of the job's folders, in order.
    ///
    /// # Errors
    /// As `put`.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectRef>> {
        let folder = paths::folder(&self.job, folder);
        let found: Vec<_> =
            self.objects.list(Some(&self.path(&folder))).try_collect().await.map_err(|e| failed("list", &folder, e))?;
        let above = self.prefix.parts().count();
        let mut found: Vec<_> = found
            .into_iter()
            .map(|m| ObjectRef { path: m.location.parts().skip(above).collect::<Path>().to_string(), bytes: m.size })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Claims the job: the attempt after the highest there is. `who` must be unlike any other claimant's:
    /// equal bytes are taken for our own retry. A claim that fails may have been made.
    ///
    /// # Errors
    /// When the store cannot be listed or written.
    pub async fn claim(&self, who: &str) -> Result<Attempt> {
        loop {
            let next = Attempt(self.attempts().await?.last().map_or(1, |a| a.0 + 1));
            let claim = Claim { attempt: next, owner: who.to_owned() };
            let claim = envelope::encode(CLAIM, CLAIM_VERSION, &claim)?;
            // Somebody else may have claimed this number in between; then it is theirs, and ours the next. Its
            // claim may even be gone again, deleted by one that came later: then ours is not the highest.
            if let Created::Ours = self.create(&paths::attempt(&self.job, next), claim).await?
                && self.attempts().await?.last() <= Some(&next)
            {
                kill::point("attempt.claimed");
                return Ok(next);
            }
        }
    }

    /// Who has claimed an attempt.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind) when the claim is missing or damaged; else as the store.
    pub async fn claimant(&self, attempt: Attempt) -> Result<String> {
        let path = paths::attempt(&self.job, attempt);
        let claim: Claim = envelope::decode(CLAIM, CLAIM_VERSION, &self.get(&path).await?).map_err(|e| e.of(&path))?;
        Ok(claim.owner)
    }

    /// All attempts, in order.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn attempts(&self) -> Result<Vec<Attempt>> {
        Ok(self.list("attempts").await?.iter().filter_map(|o| paths::parse_attempt(&o.path)).collect())
    }

    /// The committed epochs, in order.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn commits(&self) -> Result<BTreeSet<Epoch>> {
        Ok(self.list("commits").await?.iter().filter_map(|o| paths::parse_commit(&o.path)).collect())
    }

    /// The prepared manifests: epoch, attempt, path.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn manifests(&self) -> Result<Vec<(Epoch, Attempt, String)>> {
        let found = self.list("manifests").await?;
        Ok(found.into_iter().filter_map(|o| paths::parse_manifest(&o.path).map(|(e, a)| (e, a, o.path))).collect())
    }

    /// Writes a manifest under its epoch and owner.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind) when a different one of this attempt is there.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<String> {
        kill::point("manifest.before");
        let path = paths::manifest(&self.job, manifest.epoch, manifest.attempt);
        match self.create(&path, manifest.encode()?).await? {
            Created::Ours => {}
            Created::Theirs(_) => return Err(Error::internal(format!("{path} exists with another content"))),
        }
        kill::point("manifest.after");
        Ok(path)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind), saying which file and why.
    pub async fn read_manifest(&self, path: &str) -> Result<Manifest> {
        Manifest::decode(&self.get(path).await?).map_err(|e| e.of(path))
    }

    /// Reads a commit record.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind), saying which file and why.
    pub async fn read_commit(&self, epoch: Epoch) -> Result<CommitRecord> {
        let path = paths::commit(&self.job, epoch);
        let record = CommitRecord::decode(&path, &self.get(&path).await?)?;
        if record.epoch != epoch {
            let other = format!("{path} cannot be used: it is the record of checkpoint {}", record.epoch);
            return Err(Error::corrupt(other).hint("records have been exchanged or renamed: restore them from a copy"));
        }
        Ok(record)
    }
}

/// One name for the place that [`open_url`] opens, however its URL is written: whether two are the same. `None` for
/// `memory:`, which is a new one each time.
pub fn place(url: &str) -> Option<String> {
    if url.starts_with("memory:") {
        return None;
    }
    let directory = local_directory(url).and_then(|d| std::path::absolute(d).ok());
    let place = directory.map_or_else(|| url.to_owned(), |d| d.to_string_lossy().into_owned());
    Some(place.trim_end_matches('/').to_owned())
}

/// Opens the store behind a URL: checkpoints and files alike.
///
/// # Errors
/// As [`CheckpointStore::open`].
pub fn open_url(url: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    match (local_directory(url), url.split_once(':')) {
        (Some(directory), _) => local(directory),
        (None, Some(("memory", _))) => Ok((Arc::new(InMemory::new()), Path::default())),
        (None, scheme) => remote(url, scheme.map_or("", |(scheme, _)| scheme)),
    }
}

fn local(directory: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    if directory.is_empty() {
        return Err(unusable(directory, &"the path is empty"));
    }
    std::fs::create_dir_all(directory).map_err(|e| unusable(directory, &e))?;
    let objects = LocalFileSystem::new_with_prefix(directory).map_err(|e| unusable(directory, &e))?;
    Ok((Arc::new(objects.with_fsync(true)), Path::default()))
}

fn unusable(directory: &str, e: &dyn fmt::Display) -> Error {
    Error::config(format!("the directory {directory:?} cannot be used: {e}"))
        .hint("name a directory that this user may create and write")
}

fn remote(url: &str, scheme: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let (feature, compiled) = match scheme {
        "s3" | "s3a" => ("s3", cfg!(feature = "s3")),
        "gs" => ("gcs", cfg!(feature = "gcs")),
        "az" | "azure" | "abfs" | "abfss" | "adl" => ("azure", cfg!(feature = "azure")),
        "hdfs" => ("hdfs", cfg!(feature = "hdfs")),
        _ => {
            return Err(Error::config(format!("the store {scheme}:… is of no known kind"))
                .hint("use a directory, file:///…, s3://…, gs://…, az://…, hdfs://… or memory:"));
        }
    };
    if !compiled {
        return Err(Error::config(format!(
            "{scheme}:// needs tidegate's feature {feature:?}, which is not compiled in"
        ))
        .hint(format!("add it in Cargo.toml: tidegate = {{ ..., features = [\"{feature}\"] }}")));
    }
    // The URL itself is not shown: it may carry credentials.
    let wrong = |e: &dyn fmt::Display| Error::config(format!("the {scheme}:// store cannot be opened: {e}"));
    let parsed = url::Url::parse(url).map_err(|e| wrong(&e))?;
    #[cfg(feature = "hdfs")]
    if scheme == "hdfs" {
        let (hdfs, prefix) = crate::hdfs::Hdfs::open(&parsed).map_err(|e| wrong(&e).hint(HADOOP))?;
        return Ok((Arc::new(hdfs), prefix));
    }
    let (objects, prefix) =
        object_store::parse_url_opts(&parsed, variables().map(|(k, v)| (k.to_ascii_lowercase(), v)))
            .map_err(|e| wrong(&e))?;
    Ok((Arc::from(objects), prefix))
}

/// The environment's variables. One that is not UTF-8 is none of ours.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    readable(std::env::vars_os())
}

fn readable(variables: impl Iterator<Item = (OsString, OsString)>) -> impl Iterator<Item = (String, String)> {
    variables.filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
}

/// What an error of the store means: a missing object that is referred to is damage, a forbidden one is
/// the user's to mend, all else may pass.
pub fn failed(what: &str, name: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let message = format!("cannot {what} {name}");
    match error {
        E::NotFound { .. } => Error::corrupt(format!("{name} is missing")).hint(RESTORE),
        e if is_forbidden(&e) => {
            Error::config(message).caused_by(e).hint("check the credentials and permissions of the store")
        }
        e => Error::unavailable(message).caused_by(e),
    }
}

/// A local directory is forbidden in the operating system's words.
fn is_forbidden(error: &object_store::Error) -> bool {
    use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    use object_store::Error as E;
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        if let Some(e) = e.downcast_ref::<io::Error>() {
            return matches!(e.kind(), NotADirectory | PermissionDenied | ReadOnlyFilesystem);
        }
        cause = e.source();
    }
    matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    /// `std::env::vars` panics at such a one, whoever it belongs to.
    #[test]
    fn a_variable_that_is_not_utf_8_is_passed_over() {
        let odd = || OsString::from_vec(vec![0xff]);
        let given = [("A".into(), "1".into()), ("B".into(), odd()), (odd(), "3".into()), ("D".into(), "4".into())];
        let read: Vec<_> = readable(given.into_iter()).map(|(name, text)| name + &text).collect();
        assert_eq!(read, ["A1", "D4"]);
    }
}
