//! An operator's line to the coordinator: its acknowledgements, made durable in the background.
use futures::{FutureExt, future::BoxFuture};
use std::panic::AssertUnwindSafe;
use tokio::sync::mpsc;

use tidegate_checkpoint::{
    coordinator::{Ack, Participant},
    error::Result,
    ids::{Epoch, OperatorId, Subtask},
};

use super::attempt::{TaskEvent, caught};
use crate::env::{AbortOnDrop, spawn_owned};

/// Sends acknowledgements of one operator and subtask. Dropping it aborts what has not been sent: a dead
/// attempt acknowledges nothing.
pub(crate) struct Reporter {
    events: mpsc::Sender<TaskEvent>,
    participant: Participant,
    running: Vec<AbortOnDrop<()>>,
}

impl Reporter {
    pub(super) fn new(events: mpsc::Sender<TaskEvent>, operator: OperatorId, subtask: Subtask) -> Self {
        Self { events, participant: Participant { operator, subtask }, running: Vec::new() }
    }

    pub(crate) fn participant(&self) -> &Participant {
        &self.participant
    }

    /// Acknowledges `epoch` when `durable` is; declines it when that fails, with `fatal` saying whether the
    /// attempt can go on. After a panic it never can.
    pub(crate) fn ack(&mut self, epoch: Epoch, fatal: bool, durable: BoxFuture<'static, Result<Ack>>) {
        let participant = self.participant.clone();
        self.send(
            AssertUnwindSafe(durable)
                .catch_unwind()
                .map(move |result| {
                    match result
                        .map_err(|panic| (true, caught(panic.as_ref())))
                        .and_then(|made| made.map_err(|e| (fatal, e)))
                    {
                        Ok(ack) => TaskEvent::Ack { participant, epoch, ack },
                        Err((true, error)) => TaskEvent::Failed {
                            label: participant.operator.to_string(),
                            subtask: participant.subtask,
                            error,
                        },
                        Err((false, error)) => TaskEvent::Declined { participant, epoch, reason: error.to_string() },
                    }
                })
                .boxed(),
        );
    }

    /// Declines `epoch` at once.
    pub(crate) fn decline(&mut self, epoch: Epoch, reason: String) {
        let participant = self.participant.clone();
        self.send(futures::future::ready(TaskEvent::Declined { participant, epoch, reason }).boxed());
    }

    /// Says that this source's splits have all ended.
    pub(crate) fn exhausted(&mut self) {
        let participant = self.participant.clone();
        self.send(futures::future::ready(TaskEvent::Exhausted { participant }).boxed());
    }

    /// Says that this source's part of the batch has been read.
    pub(crate) fn read(&mut self) {
        let participant = self.participant.clone();
        self.send(futures::future::ready(TaskEvent::Read { participant }).boxed());
    }

    fn send(&mut self, event: BoxFuture<'static, TaskEvent>) {
        self.running.retain(|task| !task.is_finished());
        let events = self.events.clone();
        self.running.push(spawn_owned(async move {
            let event = event.await;
            // The driver has gone only when the attempt is over.
            let _ = events.send(event).await;
        }));
    }
}
