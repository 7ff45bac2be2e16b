//! The commit point: the one step before which a checkpoint does not count and after which it does.
//!
//! State, positions and output of epoch N are durable under manifest N *before* it. A job whose sinks are
//! files commits here with a record in the checkpoint store, written with put-if-absent: one record an
//! epoch, so of two attempts that race for it one loses. A job with a transactional sink puts the same record
//! into the transaction that holds its output; both are a [`CommitPoint`].
//!
//! The hard case is the unknown outcome: the reply to the write is lost. It is never assumed, always read
//! back: our own record means committed, another attempt's means that we are fenced.
//!
//! The other one is the commit that is on its way: an attempt has looked, nobody was newer, and its record
//! arrives when its successor has already read what is committed. So the successor takes every epoch that
//! can still be committed before it goes on ([`CommitPoint::seal`]): where the record is then written
//! by somebody, it is too late for anybody else. An attempt prepares a manifest *before* it looks for a newer
//! one, so the manifests that its successor finds are all that can be.
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{any::Any, sync::Arc, time::Duration};

use crate::{
    envelope,
    error::{Error, Result},
    figure::Figure,
    ids::{Attempt, Epoch, JobId},
    kill,
    manifest::Manifest,
    paths,
    store::{CheckpointStore, Created},
};

const WHAT: &str = "commit";
const VERSION: u32 = 1;

/// That a checkpoint counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRecord {
    /// The checkpoint.
    pub epoch: Epoch,
    /// Its manifest's path.
    pub manifest: String,
    /// The manifest's lineage.
    pub lineage: String,
    /// Who committed it.
    pub attempt: Attempt,
    /// Transactional ids in use, to be fenced by whoever recovers; empty where the store is the commit point.
    pub transactional_ids: Vec<String>,
}

impl CommitRecord {
    fn new(epoch: Epoch, attempt: Attempt, manifest: String, lineage: String) -> Self {
        Self { epoch, manifest, lineage, attempt, transactional_ids: Vec::new() }
    }

    /// The record of a checkpoint that is still being made: whoever keeps it with the checkpoint's output, before
    /// the two are committed together, needs it then.
    pub fn of(job: &JobId, epoch: Epoch, attempt: Attempt, lineage: &str, transactional_ids: Vec<String>) -> Self {
        let manifest = paths::manifest(job, epoch, attempt);
        Self { epoch, manifest, lineage: lineage.to_owned(), attempt, transactional_ids }
    }

    /// The bytes that are kept, wherever that is.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind) when it does not serialise.
    pub fn encode(&self) -> Result<Vec<u8>> {
        envelope::encode(WHAT, VERSION, self)
    }

    /// Reads a record back; `place` is where it was found, for the error.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind), with what is wrong with the bytes.
    pub fn decode(place: &str, bytes: &[u8]) -> Result<Self> {
        envelope::decode(WHAT, VERSION, bytes).map_err(|e| e.of(place))
    }
}

/// The right to commit, and to publish, one epoch. Only the coordinator makes one, when the manifest is
/// written: nobody else can commit. Recovery needs none, since what it seals holds nothing new.
#[derive(Debug, PartialEq, Eq)]
pub struct CommitPermit {
    record: CommitRecord,
}

impl CommitPermit {
    pub(crate) fn prepared(epoch: Epoch, attempt: Attempt, manifest: String, lineage: String) -> Self {
        Self { record: CommitRecord::new(epoch, attempt, manifest, lineage) }
    }
    /// One that no coordinator has made, for tests.
    #[cfg(feature = "testkit")]
    pub fn forged(record: CommitRecord) -> Self {
        Self { record }
    }
    /// The epoch it is for.
    pub fn epoch(&self) -> Epoch {
        self.record.epoch
    }
    /// The record to be written.
    pub fn record(&self) -> &CommitRecord {
        &self.record
    }
}

/// Where checkpoints are committed. One serves one attempt, and is opened after the attempt's claim.
pub trait CommitPoint: Send + Sync {
    /// Recovery has decided: the checkpoints of this attempt are of this lineage. Called once, before sinks recover.
    fn begins(&self, _lineage: &str) {}

    /// Commits. Returns only when the outcome is known.
    ///
    /// # Errors
    /// [`Kind::Fenced`](crate::error::Kind): another attempt owns the job. Anything else: the outcome is
    /// unknown, and the attempt must end so that its successor reads it back.
    fn commit<'a>(&'a self, permit: &'a CommitPermit) -> BoxFuture<'a, Result<()>>;

    /// The newest commit record.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged: it is never skipped.
    fn latest(&self) -> BoxFuture<'_, Result<Option<CommitRecord>>>;

    /// Takes the epoch of `manifest`, which an older attempt has prepared and could still commit. The content of
    /// `manifest` must be that of the checkpoint that is gone on from.
    ///
    /// # Errors
    /// [`Kind::Fenced`](crate::error::Kind): a newer attempt has taken it. Else as the store.
    fn seal<'a>(&'a self, manifest: &'a Manifest) -> BoxFuture<'a, Result<Sealed>>;

    /// Whether output is in the transaction that commits. Then a checkpoint that is abandoned takes its output
    /// with it, and the attempt cannot go on; and records in the store are copies, for retention.
    fn is_transactional(&self) -> bool {
        false
    }

    /// What it has to say to those who watch the job. Asked for a few times a second; it must not wait.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    /// For the sinks whose output it commits.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// A commit point that a sink brings along, and that has to be opened for every attempt.
pub trait OpenCommitPoint: Send + Sync {
    /// What it commits to, for people and to tell two from each other: a job has one.
    fn place(&self) -> String;

    /// Fences every older attempt. From then on nothing of theirs commits, and `latest` is what they have committed.
    ///
    /// # Errors
    /// When that cannot be made sure of.
    fn open(&self, context: CommitContext) -> BoxFuture<'_, Result<Arc<dyn CommitPoint>>>;
}

/// Who opens a commit point.
#[derive(Clone, Debug)]
pub struct CommitContext {
    /// Where the manifests are.
    pub store: Arc<CheckpointStore>,
    /// The attempt: it has claimed the job.
    pub attempt: Attempt,
    /// Between two checkpoints, at least; `None`: they are made on request.
    pub interval: Option<Duration>,
}

/// Commits with a record in the checkpoint store.
#[derive(Clone, Debug)]
pub struct StoreCommitPoint {
    store: Arc<CheckpointStore>,
}

impl StoreCommitPoint {
    /// Commits into `store`.
    pub fn new(store: Arc<CheckpointStore>) -> Self {
        Self { store }
    }
}

/// What became of an epoch that a dead attempt had prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// It is ours; nobody else's commit of it can count.
    Ours,
    /// Its commit has arrived: it is the newest checkpoint, and has to be gone on from.
    Committed,
}

impl StoreCommitPoint {
    /// Writes a commit record, or its copy; who has written another one of this epoch before.
    ///
    /// # Errors
    /// As the store.
    pub async fn create(&self, record: &CommitRecord) -> Result<Option<Attempt>> {
        let path = paths::commit(self.store.job(), record.epoch);
        match self.store.create(&path, record.encode()?).await? {
            Created::Ours => Ok(None),
            Created::Theirs(bytes) => Ok(Some(CommitRecord::decode(&path, &bytes)?.attempt)),
        }
    }
}

impl CommitPoint for StoreCommitPoint {
    fn commit<'a>(&'a self, permit: &'a CommitPermit) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let record = permit.record();
            still_newest(&self.store, record.attempt).await?;
            kill::point("commit.before");
            if let Some(theirs) = self.create(record).await? {
                return Err(fenced(record.attempt, theirs));
            }
            kill::point("commit.after");
            Ok(())
        })
    }

    fn latest(&self) -> BoxFuture<'_, Result<Option<CommitRecord>>> {
        Box::pin(async move {
            match self.store.commits().await?.last() {
                Some(epoch) => self.store.read_commit(*epoch).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn seal<'a>(&'a self, manifest: &'a Manifest) -> BoxFuture<'a, Result<Sealed>> {
        Box::pin(async move {
            let path = self.store.put_manifest(manifest).await?;
            let record = CommitRecord::new(manifest.epoch, manifest.attempt, path, manifest.lineage.clone());
            match self.create(&record).await? {
                None => Ok(Sealed::Ours),
                Some(theirs) if theirs < manifest.attempt => Ok(Sealed::Committed),
                Some(theirs) => Err(fenced(manifest.attempt, theirs)),
            }
        })
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Whether `attempt` is the last that has claimed the job, as far as the store knows.
///
/// # Errors
/// [`Kind::Fenced`](crate::error::Kind) when it is not; else as the store.
pub async fn still_newest(store: &CheckpointStore, attempt: Attempt) -> Result<()> {
    match store.attempts().await?.last().filter(|newest| **newest > attempt) {
        Some(newest) => Err(fenced(attempt, *newest)),
        None => Ok(()),
    }
}

/// The error of an attempt that has lost its job to another.
pub fn fenced(mine: Attempt, theirs: Attempt) -> Error {
    Error::fenced(format!("attempt {mine} has been fenced: attempt {theirs} of the same job has taken over"))
        .hint("two processes run this job; let one of them go on, or give the other job another name or store")
}

/// The manifest of a committed record, checked against it.
///
/// # Errors
/// [`Kind::Corrupt`](crate::error::Kind) when it is missing, damaged or another's.
pub async fn committed_manifest(store: &CheckpointStore, record: &CommitRecord) -> Result<Manifest> {
    let manifest = store.read_manifest(&record.manifest).await?;
    if manifest.epoch != record.epoch || manifest.lineage != record.lineage || &manifest.job != store.job() {
        return Err(Error::corrupt(format!(
            "{} is checkpoint {} of job {}, lineage {}; the commit record speaks of checkpoint {} of job {}, lineage {}",
            record.manifest, manifest.epoch, manifest.job, manifest.lineage, record.epoch, store.job(), record.lineage
        ))
        .hint("files of two jobs have been mixed: give each job a store or a name of its own"));
    }
    Ok(manifest)
}
