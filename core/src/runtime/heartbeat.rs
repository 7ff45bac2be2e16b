//! Finding a subtask that is stuck in user code: a beat when the task is entered and left.
//!
//! A task that waits is not stuck, however long; one that has been entered and has not returned is, be it
//! in a loop or in a blocking call. It cannot be stopped from outside, only named.
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use crate::env::{Instant, now};

/// When a task was entered, in milliseconds since the attempt began plus one; 0 while it is not running.
#[derive(Debug, Default)]
pub struct Beat(AtomicU64);

impl Beat {
    /// How long the task has been inside its current turn.
    pub fn inside(&self, began: Instant) -> Option<Duration> {
        let entered = self.0.load(Relaxed);
        let elapsed = now().duration_since(began).as_millis() as u64 + 1;
        (entered > 0).then(|| Duration::from_millis(elapsed.saturating_sub(entered)))
    }
}

/// A task with its beat.
pub(crate) struct Beating<F> {
    inner: F,
    beat: Arc<Beat>,
    began: Instant,
}

impl<F> Beating<F> {
    pub(crate) fn new(inner: F, beat: Arc<Beat>, began: Instant) -> Self {
        Self { inner, beat, began }
    }
}

impl<F: Future + Unpin> Future for Beating<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let entered = now().duration_since(self.began).as_millis() as u64 + 1;
        self.beat.0.store(entered, Relaxed);
        let polled = Pin::new(&mut self.inner).poll(cx);
        self.beat.0.store(0, Relaxed);
        polled
    }
}
