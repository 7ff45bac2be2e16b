//! Bounded channels between tasks: batches and controls in one order, buffers handed back.
//!
//! A sender never blocks inside a batch: what does not fit waits in its backlog, and `poll_ready` holds the
//! task until the backlog is gone. So a channel holds at most [`DEPTH`] messages and a sender one batch's
//! worth of output on top.
//!
//! The hard case is the other end having gone. Then its task has failed or been aborted, and the driver
//! knows or is about to: a sender waits for its own abortion rather than report a second error that would
//! hide the first.
use futures::channel::mpsc;
use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use tidegate_checkpoint::error::Result;

use crate::{
    record::{BATCH, Control, Output},
    time::Timestamp,
};

/// Messages in a channel.
pub const DEPTH: usize = 16;

/// What travels between tasks.
#[derive(Debug)]
pub enum Message<E> {
    /// A batch of records.
    Batch(Vec<E>),
    /// A control behind it.
    Control(Control),
}

/// The sending end of one channel.
pub struct Lane<E> {
    batch: Vec<E>,
    backlog: VecDeque<Message<E>>,
    messages: mpsc::Sender<Message<E>>,
    empties: mpsc::Receiver<Vec<E>>,
}

/// The receiving end of one channel.
pub struct Inlet<E> {
    pub(super) messages: mpsc::Receiver<Message<E>>,
    empties: mpsc::Sender<Vec<E>>,
}

/// A channel of [`DEPTH`] messages.
pub fn bounded<E>() -> (Lane<E>, Inlet<E>) {
    let (messages, receiver) = mpsc::channel(DEPTH);
    let (give_back, empties) = mpsc::channel(DEPTH);
    let lane = Lane { batch: Vec::new(), backlog: VecDeque::new(), messages, empties };
    (lane, Inlet { messages: receiver, empties: give_back })
}

impl<E> Lane<E> {
    /// Adds a record to the current batch.
    #[inline]
    pub fn push(&mut self, element: E) {
        self.batch.push(element);
        if self.batch.len() >= BATCH {
            self.send_batch();
        }
    }

    fn send_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let empty = self.empties.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
        let batch = std::mem::replace(&mut self.batch, empty);
        self.send(Message::Batch(batch));
    }

    /// Sends a control behind the current batch.
    pub fn control(&mut self, control: Control) {
        self.send_batch();
        // One flush behind another does nothing.
        if control != Control::Flush || !matches!(self.backlog.back(), Some(Message::Control(Control::Flush))) {
            self.send(Message::Control(control));
        }
    }

    fn send(&mut self, message: Message<E>) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(message);
        } else if let Err(refused) = self.messages.try_send(message) {
            self.backlog.push_back(refused.into_inner());
        }
    }

    /// Ready when the backlog is gone; pending for ever when the other end has gone.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(message) = self.backlog.pop_front() {
            match self.messages.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    if self.messages.start_send(message).is_err() {
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Err(_)) => {
                    self.backlog.push_front(message);
                    return Poll::Pending;
                }
                Poll::Pending => {
                    self.backlog.push_front(message);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

impl<E> Inlet<E> {
    /// Hands an emptied buffer back to the sender, who may not want it.
    pub fn give_back(&mut self, mut batch: Vec<E>) {
        batch.clear();
        // A full or closed channel means that the buffer is not needed: it is freed.
        let _ = self.empties.try_send(batch);
    }
}

/// The end of a chain that feeds one other task: an input of a union.
pub struct Forward<T> {
    lane: Lane<(T, Timestamp)>,
}

impl<T> Forward<T> {
    /// Sends into `lane`.
    pub fn new(lane: Lane<(T, Timestamp)>) -> Self {
        Self { lane }
    }
}

impl<T: Send + 'static> Output<T> for Forward<T> {
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        self.lane.push((record, at));
    }
    fn control(&mut self, control: Control) {
        self.lane.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.lane.poll_ready(cx).map(Ok)
    }
    fn sweep(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt, future::poll_fn};

    /// What a reader waits for stands behind it, and nothing comes after it that would push it on.
    #[test]
    fn a_flush_arrives_behind_the_batch_that_found_the_channel_full() {
        // Once the batch is the first that has no room, once the flush before it was.
        for before in [0, 1] {
            let (mut lane, mut inlet) = bounded::<u32>();
            for _ in 0..before {
                lane.control(Control::Idle);
            }
            let mut sent = 0;
            while lane.backlog.is_empty() {
                lane.push(sent);
                lane.control(Control::Flush);
                sent += 1;
            }
            let (mut records, mut behind) = (0, None);
            loop {
                let is_ready = poll_fn(|cx| lane.poll_ready(cx)).now_or_never().is_some();
                match inlet.messages.next().now_or_never() {
                    Some(Some(message)) => {
                        records += u32::from(matches!(message, Message::Batch(_)));
                        behind = Some(message);
                    }
                    _ if is_ready => break,
                    _ => {}
                }
            }
            assert_eq!(records, sent);
            assert!(matches!(behind, Some(Message::Control(Control::Flush))), "{behind:?}");
        }
    }
}
