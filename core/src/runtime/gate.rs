//! The receiving side of exchanges and unions: a task that merges its inputs in front of a chain. It runs
//! until the driver ends it, which is when the last checkpoint has committed.
//!
//! - **Barriers are aligned**: an input that has delivered the barrier is not read until all have. The
//!   senders' bounded channels then hold them back.
//! - **Watermarks** combine by minimum over the inputs that are not idle. An input that has ended says `MAX`: that
//!   must not let time run out for those that are merely idle.
//! - **Declaration**, the hard case: a record must not be judged late (or not) depending on which input
//!   started first. So no record is handled before every input has sent its first watermark or idle; on a
//!   restart that is the restored one. From then on a job over one split is deterministic.
use futures::{StreamExt, future::BoxFuture};
use std::{future::poll_fn, task::Poll};

use tidegate_checkpoint::{error::Result, kill};

use super::{
    build::{Build, TaskClock},
    channel::{Inlet, Message},
};
use crate::{
    env::now,
    plan::NodeId,
    record::{Barrier, BatchOutput, Control},
    time::{MAX, MIN, Timestamp},
};

struct Input<E> {
    inlet: Inlet<E>,
    declared: bool,
    idle: bool,
    watermark: Timestamp,
    /// It has delivered the barrier that the others have not.
    aligned: bool,
}

struct Gate<E, G> {
    inputs: Vec<Input<E>>,
    target: G,
    clock: TaskClock,
    next: usize,
    /// What has been passed on; `None` before the first control.
    watermark: Option<Timestamp>,
    idle: bool,
    aligning: Option<Barrier>,
}

/// Adds the task of a gate to the subtask's build.
pub fn task<E: Send + 'static, G: BatchOutput<E>>(
    build: &mut Build<'_>,
    node: NodeId,
    inlets: Vec<Inlet<E>>,
    target: G,
) {
    let inputs = inlets
        .into_iter()
        .map(|inlet| Input { inlet, declared: false, idle: false, watermark: MIN, aligned: false })
        .collect();
    let clock = build.task_clock(node);
    let gate = Gate { inputs, target, clock, next: 0, watermark: None, idle: false, aligning: None };
    build.task(node, gate.run());
}

impl<E: Send + 'static, G: BatchOutput<E>> Gate<E, G> {
    fn run(mut self) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            poll_fn(|cx| self.target.poll_ready(cx)).await?;
            loop {
                let waited = now();
                let (input, message) = self.receive().await?;
                let began = self.clock.idle(waited);
                self.handle(input, message);
                let began = self.clock.busy(began);
                self.ready().await?;
                self.clock.backpressured(began);
            }
        })
    }

    /// Waits until the next message may be handled; a snapshot goes on meanwhile.
    async fn ready(&mut self) -> Result<()> {
        let mut sweeping = true;
        poll_fn(|cx| {
            let ready = self.target.poll_ready(cx);
            if ready.is_pending() && sweeping {
                sweeping = self.target.sweep();
                if sweeping {
                    cx.waker().wake_by_ref();
                }
            }
            ready
        })
        .await
    }

    /// The next message of any input that may be read, in turn; deferred work while there is none.
    async fn receive(&mut self) -> Result<(usize, Message<E>)> {
        let mut sweeping = true;
        poll_fn(|cx| {
            let count = self.inputs.len();
            let undeclared = self.inputs.iter().any(|i| !i.declared);
            for k in 0..count {
                let index = (self.next + k) % count;
                let input = &mut self.inputs[index];
                if input.aligned || (undeclared && input.declared) {
                    continue;
                }
                // `None`: the sender's task has ended with an error that the driver knows; wait to be aborted.
                if let Poll::Ready(Some(message)) = input.inlet.messages.poll_next_unpin(cx) {
                    self.next = index + 1;
                    return Poll::Ready(Ok((index, message)));
                }
            }
            self.target.sweep_on(&mut sweeping, cx)?;
            Poll::Pending
        })
        .await
    }

    fn handle(&mut self, index: usize, message: Message<E>) {
        match message {
            Message::Batch(mut batch) => {
                self.target.batch(&mut batch);
                self.inputs[index].inlet.give_back(batch);
            }
            Message::Control(Control::Barrier(barrier)) => self.align(index, barrier),
            Message::Control(Control::Watermark(watermark)) => {
                let input = &mut self.inputs[index];
                input.watermark = input.watermark.max(watermark);
                (input.declared, input.idle) = (true, false);
                self.advance();
            }
            Message::Control(Control::Idle) => {
                (self.inputs[index].declared, self.inputs[index].idle) = (true, true);
                self.advance();
            }
            Message::Control(other @ (Control::Flush | Control::Marker(_))) => self.target.control(other),
        }
        self.target.sweep();
    }

    fn align(&mut self, index: usize, barrier: Barrier) {
        kill::point(if self.aligning.is_none() { "align.first" } else { "align.more" });
        self.inputs[index].aligned = true;
        self.aligning = Some(barrier);
        if self.inputs.iter().any(|i| !i.aligned) {
            return;
        }
        for input in &mut self.inputs {
            input.aligned = false;
        }
        self.aligning = None;
        self.target.control(Control::Barrier(barrier));
    }

    /// Passes on the minimum of the inputs' watermarks when it has risen (and the first one, whatever it is).
    fn advance(&mut self) {
        if self.inputs.iter().any(|i| !i.declared) {
            return;
        }
        match combined(self.inputs.iter().map(|i| (i.idle, i.watermark))) {
            None if !self.idle || self.watermark.is_none() => {
                self.idle = true;
                self.watermark.get_or_insert(MIN);
                self.target.control(Control::Idle);
            }
            Some(min) if self.idle || self.watermark.is_none_or(|w| w < min) => {
                let watermark = self.watermark.map_or(min, |w| w.max(min));
                (self.idle, self.watermark) = (false, Some(watermark));
                self.target.control(Control::Watermark(watermark));
            }
            _ => {}
        }
    }
}

/// The watermark of all inputs, of each whether it is idle and its own; `None`: nothing comes for the moment.
fn combined(inputs: impl Iterator<Item = (bool, Timestamp)> + Clone) -> Option<Timestamp> {
    let active = inputs.clone().filter(|(idle, watermark)| !idle && *watermark < MAX).map(|(_, watermark)| watermark);
    let ended = || inputs.clone().all(|(idle, _)| !idle).then_some(MAX);
    active.min().or_else(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_input_does_not_hold_time_up_and_one_that_has_ended_does_not_make_it_run_out() {
        let of = |inputs: &[(bool, Timestamp)]| combined(inputs.iter().copied());
        assert_eq!(of(&[(false, 10), (false, 20)]), Some(10));
        assert_eq!(of(&[(true, 10), (false, 20)]), Some(20));
        assert_eq!(of(&[(false, MAX), (false, 20)]), Some(20));
        assert_eq!(of(&[(false, MAX), (true, 20)]), None, "the idle input will go on");
        assert_eq!(of(&[(true, 10), (true, 20)]), None);
        assert_eq!(of(&[(false, MAX), (false, MAX)]), Some(MAX));
    }
}
