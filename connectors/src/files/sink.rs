//! Exactly-once files on any object store: parts become visible when their epoch has committed.
//!
//! ```text
//! <dir>/.staging/<job>.<sink>/<attempt>/part-...     written during the epoch, complete at the barrier
//! <dir>/part-<epoch>-<subtask>-<n>.csv               moved here when the epoch has committed
//! ```
//! A part's name is a function of its epoch, so publishing it twice is publishing it once; its committable
//! has size and checksum, so that a file of that name which is not ours is noticed. The hard case is a crash
//! while publishing: some parts are moved, some are not. Recovery moves the rest, and only then sweeps what
//! older attempts have staged.
use futures::{
    StreamExt, TryStreamExt,
    future::{BoxFuture, ready},
};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::VecDeque,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{self, Context, Poll},
};
use tidegate_checkpoint::{
    commit::CommitPermit,
    ids::{Attempt, Epoch, OperatorId, Subtask},
    kill,
    store::{failed, open_url, place},
    unfinished::{sweep_unfinished, sweep_unfinished_remote},
};
use tidegate_core::{
    Error, Result, Timestamp,
    connect::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext},
    env::{AbortOnDrop, spawn_blocking, spawn_owned},
};

use super::{
    encode::{CsvEncoder, Encoder, JsonEncoder},
    part::{PIECE, Part, uploaded},
};

/// Writes parts into a directory of any store: see the module.
///
/// ```
/// use tidegate_connectors::FileSink;
/// let delays = FileSink::csv("out/delays").roll_bytes(256 << 20);
/// # let _ = delays;
/// ```
#[derive(Clone, Debug)]
pub struct FileSink<E> {
    place: Place,
    roll_bytes: u64,
    encoder: PhantomData<fn() -> E>,
}

#[derive(Clone, Debug)]
enum Place {
    Url(String),
    Store(Arc<dyn ObjectStore>, Path),
}

impl FileSink<CsvEncoder> {
    /// CSV, with a header in every part. `url` is a directory or the URL of a store.
    pub fn csv(url: impl Into<String>) -> Self {
        Self::new(Place::Url(url.into()))
    }
    /// CSV in a store of your own.
    pub fn csv_in(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self::new(Place::Store(store, Path::from(prefix)))
    }
}
impl FileSink<JsonEncoder> {
    /// JSON, a value a line.
    pub fn json_lines(url: impl Into<String>) -> Self {
        Self::new(Place::Url(url.into()))
    }
    /// JSON lines in a store of your own.
    pub fn json_lines_in(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self::new(Place::Store(store, Path::from(prefix)))
    }
}

impl<E> FileSink<E> {
    fn new(place: Place) -> Self {
        Self { place, roll_bytes: 128 << 20, encoder: PhantomData }
    }
    /// Begins a new part when one has so many bytes; every epoch begins one in any case.
    pub fn roll_bytes(mut self, bytes: u64) -> Self {
        self.roll_bytes = bytes.max(1);
        self
    }
}

impl<T: Serialize + Send + 'static, E: Encoder<T>> Sink<T> for FileSink<E> {
    type Open = OpenFiles<E>;

    fn destination(&self) -> Option<String> {
        match &self.place {
            Place::Url(url) => place(url),
            Place::Store(store, prefix) => Some(format!("{store} ({:p}), {prefix}", Arc::as_ptr(store))),
        }
    }

    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<OpenFiles<E>>> {
        Box::pin(async move {
            let (objects, directory) = match &self.place {
                Place::Url(url) => open_url(url)?,
                Place::Store(objects, prefix) => (objects.clone(), prefix.clone()),
            };
            let owner = format!("{}.{}", context.job, context.sink);
            let staging = directory.clone().join(".staging").join(owner);
            let open = OpenFiles {
                objects,
                directory,
                attempt: staging.clone().join(format!("{:06}", context.attempt.0)),
                sink: context.sink.clone(),
                roll_bytes: self.roll_bytes,
                encoder: PhantomData,
            };
            open.publish(restored).await?;
            open.check_writable().await?;
            open.check_nothing_later(context.restored).await?;
            open.sweep(&staging, context.attempt).await?;
            if let Place::Url(url) = &self.place {
                let url = url.clone();
                let is_swept = move |directory: &str| !is_newer(directory, context.attempt);
                let swept = sweep_unfinished_remote(&url, &staging, is_swept).await;
                swept.map_err(|e| failed("sweep", staging.as_ref(), e))?;
                let swept = spawn_blocking(move || sweep_unfinished(&url, &staging, is_swept)).await;
                swept
                    .map_err(|e| Error::internal("the sweep of the staging area has panicked").caused_by(e))?
                    .map_err(|e| {
                        Error::unavailable("the staging area cannot be swept of unfinished files").caused_by(e)
                    })?;
            }
            Ok(open)
        })
    }
}

/// A directory that has recovered.
pub struct OpenFiles<E> {
    objects: Arc<dyn ObjectStore>,
    directory: Path,
    attempt: Path,
    sink: OperatorId,
    roll_bytes: u64,
    encoder: PhantomData<fn() -> E>,
}

impl<E> OpenFiles<E> {
    async fn publish(&self, committables: Vec<Value>) -> Result<()> {
        if committables.is_empty() {
            return Ok(());
        }
        kill::point("finalise.before");
        for (index, committable) in committables.iter().enumerate() {
            let parts = (|| {
                Some((committable["staged"].as_str()?, committable["part"].as_str()?, committable["crc32"].as_u64()?))
            })();
            let (staged, part, crc) =
                parts.ok_or_else(|| Error::corrupt(format!("{committable} is no committable of a file sink")))?;
            self.publish_part(&Path::from(staged), part, crc).await?;
            if index == 0 {
                kill::point("finalise.mid");
            }
        }
        kill::point("finalise.after");
        Ok(())
    }

    async fn publish_part(&self, staged: &Path, part: &str, crc: u64) -> Result<()> {
        use object_store::Error as E;
        let target = self.directory.clone().join(part);
        match self.move_if_absent(staged, &target).await {
            Ok(()) => Ok(()),
            // An earlier try, or an earlier attempt, has been here. Whether it got through is in the file.
            Err(E::NotFound { .. } | E::AlreadyExists { .. }) => {
                let there = match self.objects.get(&target).await {
                    Ok(there) => there.bytes().await.map_err(|e| failed("read", part, e))?,
                    Err(E::NotFound { .. }) => {
                        return Err(Error::corrupt(format!(
                            "{part} was committed, and is neither staged nor published"
                        ))
                        .hint("somebody has removed it from the output directory, or from .staging in it"));
                    }
                    Err(e) => return Err(failed("read", part, e)),
                };
                if u64::from(crc32fast::hash(&there)) != crc {
                    return Err(Error::config(format!("{target} exists already with another content"))
                        .hint("give each sink a directory of its own"));
                }
                match self.objects.delete(staged).await {
                    Ok(()) | Err(E::NotFound { .. }) => Ok(()),
                    Err(e) => Err(failed("delete", part, e)),
                }
            }
            Err(e) => Err(failed("publish", part, e)),
        }
    }

    /// Not every store can copy only if there is nothing; S3 has to be told how. Then whether there is nothing
    /// is asked first: what two attempts may publish under this name is the same.
    async fn move_if_absent(&self, staged: &Path, target: &Path) -> object_store::Result<()> {
        use object_store::Error as E;
        match self.objects.rename_if_not_exists(staged, target).await {
            Err(E::NotSupported { .. } | E::NotImplemented { .. }) => match self.objects.head(target).await {
                Ok(there) => Err(E::AlreadyExists { path: there.location.to_string(), source: "it is there".into() }),
                Err(E::NotFound { .. }) => self.objects.rename(staged, target).await,
                Err(e) => Err(e),
            },
            moved => moved,
        }
    }

    async fn check_writable(&self) -> Result<()> {
        let probe = self.attempt.clone().join("probe");
        let written = self.objects.put(&probe, "tidegate".into()).await;
        // What may pass (a full disk, a store that is busy) is tried again by the next attempt.
        written.map_err(|e| {
            failed("write", probe.as_ref(), e)
                .at(format!("the output directory of sink {} cannot be written", self.sink))
                .hint("check that it exists or can be made, its permissions, and the space left")
        })?;
        self.objects.delete(&probe).await.map_err(|e| failed("delete", "probe", e))
    }

    /// A job must not do once more what is visible already: what it restores is the newest of its output, and
    /// one that begins with nothing finds nothing.
    async fn check_nothing_later(&self, restored: Option<Epoch>) -> Result<()> {
        // Names are in the order of their epochs: all later ones are behind this.
        let first = format!("part-{:08}-", restored.map_or(0, |epoch| epoch.0 + 1));
        let later = self.objects.list_with_offset(Some(&self.directory), &self.directory.clone().join(first));
        let is_part = |o: &ObjectMeta| {
            let below: Vec<_> = o.location.prefix_match(&self.directory).into_iter().flatten().collect();
            matches!(below.as_slice(), [name] if name.as_ref().starts_with("part-"))
        };
        let found = later.try_filter(|o| ready(is_part(o))).boxed().try_next().await;
        let Some(part) = found.map_err(|e| failed("list", self.directory.as_ref(), e))? else { return Ok(()) };
        let (sink, part) = (&self.sink, part.location);
        Err(match restored {
            None => Error::config(format!("the job begins with nothing, but the output directory of sink {sink} has {part}"))
                .hint("the checkpoints of the run that wrote it are not in checkpoint.store: point there, or use an empty output directory"),
            Some(epoch) => Error::corrupt(format!("the job goes on from checkpoint {epoch}, but the output directory of sink {sink} has {part} of a later one"))
                .hint("if that checkpoint has been lost, restore its commit record; to go back to an earlier one with checkpoint.from, move the later parts away first"),
        })
    }

    /// Deletes what older attempts have staged; everything that they committed has been published before. A
    /// newer one's stays: this attempt has been overtaken, and does not know it yet.
    async fn sweep(&self, staging: &Path, attempt: Attempt) -> Result<()> {
        let staged: Vec<_> =
            self.objects.list(Some(staging)).try_collect().await.map_err(|e| failed("list", staging.as_ref(), e))?;
        let owner = |o: &ObjectMeta| Some(o.location.prefix_match(staging)?.next()?.as_ref().to_owned());
        for object in staged.iter().filter(|o| owner(o).is_none_or(|owner| !is_newer(&owner, attempt))) {
            match self.objects.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(failed("delete", object.location.as_ref(), e)),
            }
        }
        Ok(())
    }
}

/// Whether the directory in the staging area belongs to an attempt newer than this one.
fn is_newer(directory: &str, than: Attempt) -> bool {
    directory.parse().is_ok_and(|owner| Attempt(owner) > than)
}

impl<T: Serialize + Send + 'static, E: Encoder<T>> OpenSink<T> for OpenFiles<E> {
    type Writer = FileWriter<E>;

    fn writer(&self, context: WriterContext) -> Result<FileWriter<E>> {
        Ok(FileWriter {
            objects: self.objects.clone(),
            attempt: self.attempt.clone(),
            subtask: context.subtask,
            roll_bytes: self.roll_bytes,
            extension: E::EXTENSION,
            encoder: None,
            part: None,
            closing: VecDeque::new(),
            staged: Vec::new(),
            parts: 0,
            bytes: 0,
        })
    }

    fn commit<'a>(&'a self, _: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.publish(committables))
    }
}

/// Parts that are being completed while the next one is written.
const CLOSING_MAX: usize = 2;

/// Writes one subtask's parts.
pub struct FileWriter<E> {
    objects: Arc<dyn ObjectStore>,
    attempt: Path,
    subtask: Subtask,
    roll_bytes: u64,
    extension: &'static str,
    encoder: Option<E>,
    part: Option<Part>,
    /// Rolled in this epoch.
    closing: VecDeque<AbortOnDrop<Result<Value>>>,
    /// And complete: their committables, in order.
    staged: Vec<Value>,
    parts: u64,
    bytes: u64,
}

impl<E> FileWriter<E> {
    fn close<T>(&mut self) -> Result<()>
    where
        E: Encoder<T>,
    {
        if let (Some(mut encoder), Some(mut part)) = (self.encoder.take(), self.part.take()) {
            let bytes = encoder.take()?;
            self.bytes += bytes.len() as u64;
            part.add(bytes);
            self.closing.push_back(spawn_owned(part.finish()));
        }
        Ok(())
    }
}

impl<T: Serialize + Send + 'static, E: Encoder<T>> SinkWriter<T> for FileWriter<E> {
    fn write(&mut self, record: T, _: Timestamp) -> Result<()> {
        let encoder = self.encoder.get_or_insert_with(E::new);
        encoder.write(&record)?;
        let part = self.part.get_or_insert_with(|| {
            self.parts += 1;
            // The epoch of the part is known at the barrier: staged names only have to be unlike.
            let name = format!("{:04}-{:08}.{}", self.subtask.0, self.parts, self.extension);
            Part::new(self.objects.clone(), self.attempt.clone().join(name.as_str()), name)
        });
        let waiting = encoder.waiting();
        if waiting >= PIECE || part.bytes + waiting as u64 >= self.roll_bytes {
            let bytes = encoder.take()?;
            self.bytes += bytes.len() as u64;
            part.add(bytes);
            if part.bytes >= self.roll_bytes {
                self.close()?;
            }
        }
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(part) = &mut self.part {
            task::ready!(part.poll_ready(cx))?;
        }
        while self.closing.len() > CLOSING_MAX
            && let Some(first) = self.closing.front_mut()
        {
            let staged = uploaded(task::ready!(Pin::new(first).poll(cx)))?;
            self.staged.push(staged);
            self.closing.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    fn barrier(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        if let Err(e) = self.close::<T>() {
            return Box::pin(ready(Err(e)));
        }
        let (closing, subtask, extension) = (std::mem::take(&mut self.closing), self.subtask, self.extension);
        let mut committables = std::mem::take(&mut self.staged);
        Box::pin(async move {
            for part in closing {
                committables.push(uploaded(part.await)?);
            }
            for (n, staged) in committables.iter_mut().enumerate() {
                staged["part"] = format!("part-{:08}-{:04}-{n:04}.{extension}", epoch.0, subtask.0).into();
            }
            Ok(committables)
        })
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
