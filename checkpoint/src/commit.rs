//! The commit point: the one step before which a checkpoint does not count and after which it does.
//!
//! State, positions and output of epoch N are durable under manifest N *before* it. A job whose sinks are
//! files commits here with a record in the checkpoint store, written with put-if-absent: one record an
//! epoch, so of two attempts that race for it one loses. A job with a Kafka sink will put the same record
//! into the Kafka transaction that holds its output; both are a [`CommitPoint`].
//!
//! The hard case is the unknown outcome: the reply to the write is lost. It is never assumed, always read
//! back: our own record means committed, another attempt's means that we are fenced.
//!
//! The other one is the commit that is on its way: an attempt has looked, nobody was newer, and its record
//! arrives when its successor has already read what is committed. So the successor takes every epoch that
//! can still be committed before it goes on ([`StoreCommitPoint::seal`]): where the record is then written
//! by somebody, it is too late for anybody else. An attempt prepares a manifest *before* it looks for a newer
//! one, so the manifests that its successor finds are all that can be.
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::{
    error::{Error, Result},
    ids::{Attempt, Epoch, JobId},
    kill,
    manifest::Manifest,
    paths,
    store::{CheckpointStore, Created},
};

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
    /// Transactional ids in use, to be fenced by whoever recovers; empty without Kafka.
    pub transactional_ids: Vec<String>,
}

impl CommitRecord {
    fn new(epoch: Epoch, attempt: Attempt, manifest: String, lineage: String) -> Self {
        Self { epoch, manifest, lineage, attempt, transactional_ids: Vec::new() }
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

/// Where checkpoints are committed.
pub trait CommitPoint: Send + Sync {
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

    /// Whose checkpoints are committed here.
    pub fn job(&self) -> &JobId {
        self.store.job()
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
    /// Takes the epoch of `manifest`, whose content must be that of the checkpoint that is gone on from.
    ///
    /// # Errors
    /// [`Kind::Fenced`](crate::error::Kind): a newer attempt has taken it. Else as the store.
    pub async fn seal(&self, manifest: &Manifest) -> Result<Sealed> {
        let path = self.store.put_manifest(manifest).await?;
        let record = CommitRecord::new(manifest.epoch, manifest.attempt, path, manifest.lineage.clone());
        match self.create(&record).await? {
            None => Ok(Sealed::Ours),
            Some(theirs) if theirs < manifest.attempt => Ok(Sealed::Committed),
            Some(theirs) => Err(fenced(manifest.attempt, theirs)),
        }
    }

    /// Writes a commit record; who has written another one of this epoch before.
    async fn create(&self, record: &CommitRecord) -> Result<Option<Attempt>> {
        let path = paths::commit(self.store.job(), record.epoch);
        match self.store.create(&path, crate::store::encode_commit(record)?).await? {
            Created::Ours => Ok(None),
            Created::Theirs(bytes) => Ok(Some(crate::store::decode_commit(&path, &bytes)?.attempt)),
        }
    }
}

impl CommitPoint for StoreCommitPoint {
    fn commit<'a>(&'a self, permit: &'a CommitPermit) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let record = permit.record();
            if let Some(newest) = self.store.attempts().await?.last().filter(|a| **a > record.attempt) {
                return Err(fenced(record.attempt, *newest));
            }
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
