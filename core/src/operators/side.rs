//! A port: where a chain hands batches to others that were instantiated apart from it.
//!
//! Shared streams end in one, and operators put late records and dead letters into one. The consumers
//! connect while the subtask is built, in any order; the port takes them over at its first use.
use crate::{
    record::{BATCH, BatchOutput, Control, Output},
    time::Timestamp,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tidegate_checkpoint::error::Result;

type Branches<T> = Vec<Box<dyn BatchOutput<(T, Timestamp)>>>;

/// The producing end, and while building also where consumers connect.
pub struct SidePort<T> {
    connecting: Arc<Mutex<Branches<T>>>,
    branches: Branches<T>,
    batch: Vec<(T, Timestamp)>,
}

impl<T> Default for SidePort<T> {
    fn default() -> Self {
        Self { connecting: Arc::default(), branches: Vec::new(), batch: Vec::new() }
    }
}

impl<T> Clone for SidePort<T> {
    /// Another handle of the same port, for a consumer to connect to.
    fn clone(&self) -> Self {
        Self { connecting: self.connecting.clone(), branches: Vec::new(), batch: Vec::new() }
    }
}

impl<T: Clone + Send + 'static> SidePort<T> {
    /// Connects a consumer.
    pub(crate) fn connect(&self, branch: Box<dyn BatchOutput<(T, Timestamp)>>) {
        self.connecting.lock().unwrap_or_else(PoisonError::into_inner).push(branch);
    }

    #[inline(never)]
    fn hand_on(&mut self) {
        if self.branches.is_empty() {
            self.branches.append(&mut self.connecting.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if let Some((last, others)) = self.branches.split_last_mut() {
            for branch in others {
                branch.batch(&mut self.batch.clone());
            }
            last.batch(&mut self.batch);
        }
        self.batch.clear();
    }
}

impl<T: Clone + Send + 'static> Output<T> for SidePort<T> {
    /// It is dropped when nobody has connected (the operator has counted it).
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        self.batch.push((record, at));
        if self.batch.len() >= BATCH {
            self.hand_on();
        }
    }

    /// Passed on to every consumer, behind what came before it.
    fn control(&mut self, control: Control) {
        self.hand_on();
        for branch in &mut self.branches {
            branch.control(control);
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.hand_on();
        all_ready(self.branches.iter_mut().map(|branch| branch.poll_ready(cx)))
    }

    fn sweep(&mut self) -> bool {
        self.branches.iter_mut().fold(false, |more, b| b.sweep() | more)
    }
}

/// Ready when all are. All are polled even when one is not ready: two of them may be waiting for each other behind a later
/// union.
pub(super) fn all_ready(polls: impl Iterator<Item = Poll<Result<()>>>) -> Poll<Result<()>> {
    let mut ready = Poll::Ready(Ok(()));
    for poll in polls {
        match poll {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending => ready = Poll::Pending,
        }
    }
    ready
}
