//! The contract of a source.
//!
//! A source is cut into **splits** (a file, a Kafka partition, a range of a generator): the unit that is
//! assigned to a subtask, has a watermark of its own, and whose position goes into the checkpoint. The
//! engine owns the choice which split is read when (it pauses one that runs ahead in event time); a
//! [`SplitReader`] only ever fills.
//!
//! The hard case is exactness: `position()` must stand right behind the last record that `fill` has
//! emitted, and a reader opened at that position must go on with the very next record.
use futures::future::BoxFuture;
use serde_json::Value;
use std::{
    task::{Context, Poll},
    time::Duration,
};

use tidegate_checkpoint::{
    error::{Error, Result},
    figure::Figure,
};

use crate::time::Timestamp;

/// Where records come from. One value serves every subtask and every attempt.
pub trait Source: Send + Sync + 'static {
    /// What a record is.
    type Item: Send + 'static;
    /// Reads one split.
    type Reader: SplitReader<Item = Self::Item>;

    /// Lists the splits that exist now, with stable ids. Called at the start of every attempt, and again
    /// at the interval of [`Source::discovery_interval`]. A split that was in the checkpoint and is no
    /// longer listed is opened all the same: to say what it means that it is gone is up to `open`.
    ///
    /// # Errors
    /// When the outside world cannot be read; fails the attempt.
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>>;

    /// How often to look for new splits; `None`: never, and the source ends when its splits have.
    fn discovery_interval(&self) -> Option<Duration> {
        None
    }

    /// Whether a job that reads what is there and ends (the triggers `available-now` and `once`) can do so with this
    /// source: its splits end by themselves, or their readers know what there is ([`SplitReader::bound`]).
    ///
    /// # Errors
    /// Why not. The job is refused before it starts.
    fn can_end(&self) -> Result<()> {
        Err(Error::config("the source does not say where it would end")
            .hint("implement Source::can_end, and SplitReader::bound if its splits do not end by themselves"))
    }

    /// Opens a split at a position that a reader of it once returned, or at its beginning.
    ///
    /// # Errors
    /// When it is missing or no longer what the position speaks of; fails the attempt.
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<Self::Reader>>;

    /// Opens a split that was not there yet when the job began, at its beginning. It differs from `open` where a job
    /// does not begin at the beginning.
    ///
    /// # Errors
    /// As `open`.
    fn open_new(&self, split: Split) -> BoxFuture<'_, Result<Self::Reader>> {
        self.open(split, None)
    }

    /// Opens a split that had ended when the job did, which is now run once more: for what there is by now. It
    /// differs from `open` where a split ends at a place that was chosen when the job began.
    ///
    /// # Errors
    /// As `open`.
    fn open_again(&self, split: Split, position: Value) -> BoxFuture<'_, Result<Self::Reader>> {
        self.open(split, Some(position))
    }

    /// A checkpoint has completed, and these are its positions in this source: for those who watch how far the job
    /// is by other means. Called beside everything else and one at a time; a checkpoint that completes meanwhile may
    /// be left out, but not the last one. The job goes on and ends whether this succeeds or not.
    ///
    /// # Errors
    /// Are logged; the next checkpoint tries again. What will never succeed (no right to the group) is for the readers
    /// to fail with, or nobody would see it.
    fn committed(&self, _positions: Vec<(String, Value)>) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What it has to say in this attempt to those who watch the job, beyond what the engine counts of each split.
    /// Asked for a few times a second; it must not wait.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}

/// A part of a source that is read in order by one subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its identity in checkpoints; unique within the source and stable over restarts.
    pub id: String,
    /// Its length in the unit of [`SplitReader::progress`], where known: for the progress bar.
    pub length: Option<u64>,
}

impl Split {
    /// A split of unknown length.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), length: None }
    }
}

/// Reads one split. Lives on the subtask's thread: `fill` must not block on I/O (read ahead on a thread
/// or task of your own, and say [`Progress::Wait`]).
pub trait SplitReader: Send + 'static {
    /// What a record is.
    type Item;

    /// Emits up to `budget` records, those that are there now.
    ///
    /// # Errors
    /// Fails the attempt, which goes back to the last checkpoint.
    fn fill<E: Emit<Self::Item>>(&mut self, budget: usize, out: &mut E) -> Result<Progress>;

    /// Called after [`Progress::Wait`] and [`Progress::Held`]: ready when `fill` can go on.
    ///
    /// # Errors
    /// As `fill`.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The position behind the last emitted record. Called between fills, at every barrier.
    fn position(&self) -> Value;

    /// What is there now is all that is to be read, until this is called again: at the start of a job that reads what
    /// is there and ends, and of each batch where it reads in batches. Where that ends is for the reader to know; it may
    /// find it out later, but must find it. Beyond it `fill` emits nothing and says [`Progress::Wait`].
    ///
    /// False: it does not know. Then its part of a batch ends where `fill` says [`Progress::Wait`], or when the time to the
    /// next batch is over; and a job that is to end waits for [`Progress::End`].
    fn bound(&mut self) -> bool {
        false
    }

    /// Whether everything has been read that there was at the last call of `bound`. Asked after [`Progress::Wait`].
    fn is_at_bound(&self) -> bool {
        false
    }

    /// How much of the split has been read, in the unit of [`Split::length`].
    fn progress(&self) -> Option<u64> {
        None
    }

    /// How many records there are in the split behind the position, as far as is known without asking anybody.
    /// Called a few times a second, and whenever a fill has come to the end of what is there.
    fn lag(&self) -> Option<u64> {
        None
    }
}

/// What `fill` leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more: call again.
    More,
    /// Nothing more now: wait for [`SplitReader::poll_ready`].
    Wait,
    /// There is a record, which cannot be emitted yet: as `Wait`, but the split does not become idle, as time would
    /// pass the record by.
    Held,
    /// The split has ended for good.
    End,
}

/// Where a reader puts what it reads: the chain of operators behind the source.
pub trait Emit<T> {
    /// One record.
    fn record(&mut self, record: T);

    /// Many records, as by [`Emit::record`]: worth it where a record takes nanoseconds.
    #[inline(always)]
    fn extend(&mut self, records: impl Iterator<Item = T>)
    where
        Self: Sized,
    {
        records.for_each(|record| self.record(record));
    }

    /// No record at or before `at` is still to come in this split: for a reader that is told so by what it reads. It
    /// counts beside what the source's `Watermarks` make of the records, and one that goes back does nothing. Without
    /// event time there is no watermark to advance.
    fn watermark(&mut self, at: Timestamp) {
        let _ = at;
    }

    /// Bytes read from outside, for the metrics; once a fill is enough.
    fn bytes(&mut self, bytes: u64);

    /// A record that cannot be decoded: the job's policy decides what becomes of it.
    ///
    /// # Errors
    /// Under the policy `Fail` (the default); return it from `fill`.
    fn undecodable(&mut self, bad: Undecodable) -> Result<()>;
}

/// A record that could not be decoded, for the dead-letter stream.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Undecodable {
    /// The split it came from.
    pub split: String,
    /// Where in the split, for people: `line 17`, `offset 42`.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
    /// The raw record; bytes that are not UTF-8 are replaced.
    pub raw: String,
}
