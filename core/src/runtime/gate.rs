//! The receiving side of exchanges and unions: a task that merges its inputs in front of a chain. It runs
//! until the driver ends it, which is when the last checkpoint has committed.
//!
//! - **Barriers are aligned**: an input that has delivered the barrier is not read until all have. The
//!   senders' bounded channels then hold them back.
//! - **Watermarks** combine by minimum over the inputs that are not idle. An input at the end of time has
//!   nothing more to say: it holds nobody back, and while all others are idle it does not end theirs.
//! - **Declaration**, the hard case: a record must not be judged late (or not) depending on which input
//!   started first. So no record is handled before every input has sent its first watermark or idle; on a
//!   restart that is the restored one. From then on a job over one split is deterministic.
use futures::{StreamExt, future::BoxFuture};
use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use tidegate_checkpoint::{error::Result, kill};

use super::{
    build::{Build, TaskClock},
    channel::{Inlet, Message},
};
use crate::{
    env::now,
    plan::NodeId,
    record::{Barrier, Control, Keyed, Output},
    time::{MAX, MIN, Timestamp},
};

/// What a gate feeds: a chain that takes its elements batch by batch.
pub trait GateTarget<E>: Send + 'static {
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
}

/// A union's target: any chain.
pub struct Forwarded<O>(pub O);

impl<T, O: Output<T>> GateTarget<(T, Timestamp)> for Forwarded<O> {
    fn batch(&mut self, batch: &mut Vec<(T, Timestamp)>) {
        for (record, at) in batch.drain(..) {
            self.0.record(record, at);
        }
    }
    fn control(&mut self, control: Control) {
        self.0.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_ready(cx)
    }
    fn sweep(&mut self) -> bool {
        self.0.sweep()
    }
}

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
pub fn task<E: Send + 'static, G: GateTarget<E>>(
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

impl<E: Send + 'static, G: GateTarget<E>> Gate<E, G> {
    fn run(mut self) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            poll_fn(|cx| self.target.poll_ready(cx)).await?;
            loop {
                let waited = now();
                let (input, message) = self.receive().await;
                let began = self.clock.idle(waited);
                self.handle(input, message);
                let began = self.clock.busy(began);
                poll_fn(|cx| self.target.poll_ready(cx)).await?;
                self.clock.backpressured(began);
            }
        })
    }

    /// The next message of any input that may be read, in turn; deferred work while there is none.
    async fn receive(&mut self) -> (usize, Message<E>) {
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
                    return Poll::Ready((index, message));
                }
            }
            if self.target.sweep() {
                cx.waker().wake_by_ref();
            }
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
        let active = self.inputs.iter().filter(|i| !i.idle).map(|i| i.watermark).min();
        let active = active.filter(|min| *min < MAX || self.inputs.iter().all(|i| !i.idle));
        match active {
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

/// The target of a keyed exchange is the keyed operator's own input.
impl<K: Send + 'static, T: Send + 'static, P> GateTarget<Keyed<K, T>> for P
where
    P: crate::operators::keyed::KeyedInput<K, T>,
{
    fn batch(&mut self, batch: &mut Vec<Keyed<K, T>>) {
        crate::operators::keyed::KeyedInput::batch(self, batch);
    }
    fn control(&mut self, control: Control) {
        crate::operators::keyed::KeyedInput::control(self, control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        crate::operators::keyed::KeyedInput::poll_ready(self, cx)
    }
    fn sweep(&mut self) -> bool {
        crate::operators::keyed::KeyedInput::sweep(self)
    }
}
