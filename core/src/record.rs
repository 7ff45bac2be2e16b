//! What flows: records one by one through monomorphised code, and control in order between them.
//!
//! [`Output`] is the one seam of the hot path. A chain of operators is a value that nests as
//! `MapOutput<F, FilterOutput<G, SinkOutput<..>>>`, so a record meets no dynamic call; everything that is
//! dynamic, asynchronous or shared happens once a batch, in `control`, `poll_ready` and `sweep`.
use std::task::{Context, Poll};

use tidegate_checkpoint::{error::Result, ids::Epoch};

use crate::{env::Instant, time::Timestamp};

/// A cut through the stream: everything before it belongs to `epoch`, everything after to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The epoch that ends here.
    pub epoch: Epoch,
    /// Whether the job stops behind it (end of input, or a drain).
    pub last: bool,
}

/// What travels in the same channels as records, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Control {
    /// No record at or before this time is still to come. The first control on every edge is a watermark
    /// or `Idle`: an edge has *declared* itself with it, and a receiver handles no record before all its
    /// edges have. That makes lateness independent of which task started first.
    Watermark(Timestamp),
    /// Nothing comes for the moment: leave this edge out of the minimum until its next watermark.
    Idle,
    /// See [`Barrier`].
    Barrier(Barrier),
    /// Nothing more is ready at the source: pass on what is buffered.
    Flush,
    /// Made at a source at this moment, measured where it arrives: the latency of the path.
    Marker(Instant),
}

/// What is downstream of an operator, within one subtask.
pub trait Output<T>: Send + 'static {
    /// Takes one record with its event time. Never blocks; what it cannot pass on it buffers until
    /// `poll_ready`, which is called after every batch.
    fn record(&mut self, record: T, at: Timestamp);

    /// Takes a control, after having handled every record that came before it.
    fn control(&mut self, control: Control);

    /// Ready when the next batch may come. Also where errors of the chain surface, and where counters are
    /// published. Called before the first record (state is loaded there) and after every batch.
    ///
    /// # Errors
    /// The first error of any operator in the chain; it fails the attempt.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Does a slice of deferred work (serialising state for a snapshot); true while there is more.
    fn sweep(&mut self) -> bool;
}

/// What takes its elements a batch at a time: a keyed operator, and any [`Output`] behind a gate or where its type
/// must be forgotten (behind `.boxed()` and side streams).
pub trait BatchOutput<E>: Send + 'static {
    /// Takes a batch and leaves it empty.
    fn batch(&mut self, batch: &mut Vec<E>);
    /// As [`Output::control`].
    fn control(&mut self, control: Control);
    /// As [`Output::poll_ready`].
    ///
    /// # Errors
    /// As there.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;
    /// As [`Output::sweep`].
    fn sweep(&mut self) -> bool;

    /// Deferred work beside a wait: a slice of it as long as there is `more`, for the next of which the task is woken;
    /// and whatever goes on by itself.
    ///
    /// # Errors
    /// What has gone wrong in it: what is waited for may never come, and nobody else would ask.
    fn sweep_on(&mut self, more: &mut bool, cx: &mut Context<'_>) -> Result<()> {
        if *more {
            *more = self.sweep();
            if *more {
                cx.waker().wake_by_ref();
            }
        }
        // What the state is waiting for, its snapshot, and its output have to be driven on.
        match self.poll_ready(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}

impl<T, O: Output<T>> BatchOutput<(T, Timestamp)> for O {
    fn batch(&mut self, batch: &mut Vec<(T, Timestamp)>) {
        for (record, at) in batch.drain(..) {
            self.record(record, at);
        }
    }
    fn control(&mut self, control: Control) {
        Output::control(self, control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Output::poll_ready(self, cx)
    }
    fn sweep(&mut self) -> bool {
        Output::sweep(self)
    }
}

/// Records buffered before anything dynamic is done with them.
pub const BATCH: usize = 1024;

/// A record on its way to keyed state, with its key and the key's stable hash.
#[derive(Clone, Debug)]
pub struct Keyed<K, T> {
    /// The key's stable hash; its top bits are the key group.
    pub hash: u64,
    /// The key.
    pub key: K,
    /// The record.
    pub record: T,
    /// Its event time.
    pub at: Timestamp,
}
