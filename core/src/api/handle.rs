//! A running job, from outside.
use std::{convert::Infallible, sync::Arc};
use tokio::sync::{mpsc, oneshot, watch};

use tidegate_checkpoint::{
    error::{Error, Kind, Result},
    ids::Epoch,
    store::CheckpointStore,
};

use crate::{
    env::JoinHandle,
    metrics::JobMetrics,
    runtime::supervise::{Request, Shared},
    state::savepoint::{free, write::write},
};

/// A job that has been started. Dropping it cancels the job.
pub struct JobHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) checkpoints: Arc<CheckpointStore>,
    pub(crate) requests: mpsc::Sender<Request>,
    /// The job goes on as long as it is held.
    pub(crate) running: Option<oneshot::Sender<Infallible>>,
    pub(crate) task: Option<JoinHandle<Result<()>>>,
}

impl std::fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// Its first attempt is recovering.
    #[default]
    Starting,
    /// An attempt is running.
    Running,
    /// An attempt has failed, and the next one waits for its turn.
    Restarting,
    /// It ended with its last checkpoint committed.
    Finished,
    /// It was cancelled.
    Cancelled,
    /// It failed, and no restart was granted.
    Failed,
}

impl JobState {
    /// Whether the job has ended, in one way or another.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Finished | Self::Cancelled | Self::Failed)
    }
}

/// A job at a glance.
#[derive(Clone, Debug, Default)]
pub struct JobStatus {
    /// Where it is in its life.
    pub state: JobState,
    /// The current attempt, or the last one; counted over all processes.
    pub attempt: u64,
    /// The checkpoint that the attempt started from.
    pub restored: Option<u64>,
    /// Attempts of this run that have failed.
    pub restarts: u64,
    /// The last of them, and why.
    pub failures: Vec<AttemptReport>,
    /// The newest completed checkpoint of this run.
    pub last_checkpoint: Option<CheckpointReport>,
    /// The newest abandoned one, and why.
    pub last_abandoned: Option<String>,
    /// Subtasks that have not returned from user code for long.
    pub stuck: Vec<String>,
    /// Why the job failed.
    pub failure: Option<String>,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// Its number.
    pub attempt: u64,
    /// Why, and where.
    pub cause: String,
    /// What kind of error it was.
    pub kind: Kind,
}

/// A completed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Its number.
    pub epoch: u64,
    /// From its trigger to the publication of its output, in ms.
    pub duration_ms: u64,
    /// Size of all state objects that it refers to.
    pub bytes: u64,
}

impl JobHandle {
    /// Waits until the job ends: at the end of its input, by `stop` or `cancel`, or by failing.
    ///
    /// # Errors
    /// What it failed with.
    pub async fn wait(mut self) -> Result<()> {
        match self.task.take() {
            Some(task) => ended(task).await,
            None => Ok(()),
        }
    }

    /// Drains: makes a last checkpoint, with which all output so far is committed, and ends the job. Windows
    /// that are still open do not fire: a later start goes on with them.
    ///
    /// # Errors
    /// What the job failed with instead.
    pub async fn stop(self) -> Result<()> {
        // A job that has ended already needs no stopping.
        let _ = self.requests.send(Request::Stop).await;
        self.wait().await
    }

    /// Ends the job at once. What has not been committed is not published; a later start goes on from the
    /// last checkpoint.
    ///
    /// # Errors
    /// What the job failed with before.
    pub async fn cancel(mut self) -> Result<()> {
        drop(self.running.take());
        self.wait().await
    }

    /// Makes a checkpoint now and waits for it; returns its number.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: it was abandoned, or the job has ended.
    pub async fn checkpoint_now(&self) -> Result<u64> {
        let ended = || Error::unavailable("the job has ended");
        let (token, outcome) = self.shared.wait_for_checkpoint();
        self.requests.send(Request::Checkpoint(token)).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?.map(|epoch| epoch.0)
    }

    /// Makes a checkpoint now, and a savepoint of it: state in one format for every backend, from which a job starts with
    /// `checkpoint.savepoint`, at another parallelism or over another backend too. The job goes on. Returns the
    /// checkpoint's number. One that fails leaves nothing at `url`, as far as the store lets it be deleted;
    /// where it is not known whether it failed, it stays, and the error says so.
    ///
    /// # Errors
    /// [`Kind::Config`]: there is something at `url`, it cannot be used, or a backend cannot be read beside the job.
    /// [`Kind::Unavailable`]: the checkpoint was abandoned, or the job has ended.
    pub async fn savepoint(&self, url: &str) -> Result<u64> {
        let place = self.free(url).await?;
        let reading = self.shared.read();
        let written = async {
            let epoch = self.checkpoint_now().await?;
            self.write_savepoint(Epoch(epoch), &place, true).await?;
            Ok(epoch)
        };
        let written = written.await;
        reading.end().await;
        written
    }

    /// As `stop`, and makes a savepoint of the last checkpoint. Returns its number.
    ///
    /// # Errors
    /// As `stop` and `savepoint`.
    pub async fn stop_with_savepoint(mut self, url: &str) -> Result<u64> {
        let place = self.free(url).await?;
        // Of the run before, should this one have ended without a checkpoint. And what the run has on this machine is
        // not fetched.
        let reading = self.shared.read();
        let _ = self.requests.send(Request::Stop).await;
        let task = self.task.take();
        let written = async {
            if let Some(task) = task {
                ended(task).await?;
            }
            let newest = self.checkpoints.commits().await?.last().copied();
            let newest = newest.ok_or_else(|| Error::unavailable("the job has ended without a checkpoint"))?;
            self.write_savepoint(newest, &place, false).await?;
            Ok(newest.0)
        };
        let written = written.await;
        reading.end().await;
        written
    }

    async fn free(&self, url: &str) -> Result<Arc<CheckpointStore>> {
        free(url, self.checkpoints.job()).await.map_err(|e| e.at("savepoint"))
    }

    async fn write_savepoint(&self, epoch: Epoch, place: &Arc<CheckpointStore>, goes_on: bool) -> Result<()> {
        let settings = Arc::new(self.shared.settings.state.clone());
        let written = write(&self.checkpoints, epoch, &self.shared.backends, &settings, place, goes_on).await;
        written.map_err(|e| e.at("savepoint"))
    }

    /// The job's metrics now.
    pub fn metrics(&self) -> JobMetrics {
        JobMetrics::of(&self.shared)
    }

    /// The job at a glance.
    pub fn status(&self) -> JobStatus {
        self.shared.status.borrow().clone()
    }

    /// Status as it changes.
    pub fn watch(&self) -> watch::Receiver<JobStatus> {
        self.shared.status.subscribe()
    }
}

async fn ended(task: JoinHandle<Result<()>>) -> Result<()> {
    task.await.unwrap_or_else(|e| Err(Error::internal("the driver of the job has panicked").caused_by(e)))
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            self.shared.cut_off();
        }
    }
}
