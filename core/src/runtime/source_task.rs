//! The task of a source subtask: reads its splits in turn and pushes into the chain behind it.
//!
//! One round is: answer the coordinator, let one split fill a batch, wait for the chain. The barrier falls
//! between two fills, so the splits' positions and what has been pushed are the same cut.
//!
//! The hard case is the end. A split that has ended stays in the checkpoint; a subtask whose splits have
//! all ended says so, and keeps answering barriers. Behind the barrier that the coordinator marks as the
//! last it reads no more, but still answers, should that checkpoint be abandoned and tried again: so the
//! final checkpoint is like any other, and every epoch has all its participants. The driver ends the task.
//!
//! Where the trigger has what is there read and no more, a split that is behind that is *done*: until the next batch, or
//! for good (see `batching`). It is not at its end, so time does not end with it.
//!
//! Where the chain is held up by what it waits for itself, requests in flight or a throttle, and everything behind that is
//! ready, a barrier need not wait with the records: it is passed on at once.
//!
//! The other hard case is a split that always has something. The task then never waits, so once a turn it
//! looks at those that had nothing: whether they have something now, or have become idle.
mod batching;

use futures::future::BoxFuture;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;

use tidegate_checkpoint::{
    coordinator::Ack,
    error::{Error, Result},
    ids::OperatorId,
    kill,
};

use self::batching::Batching;
use super::{
    build::{Begin, Build, SourceHandle, TaskClock},
    emission::Emission,
    open_split::{OpenSplit, SavedSplit},
    reporter::Reporter,
    split_time::{Alignment, SplitTime},
};
use crate::{
    api::{SourceStream, Stamp},
    connect::{Progress, Source, Split, SplitReader, Undecodable},
    env::{now, sleep, wall_ms},
    metrics::stats::OperatorStats,
    operators::side::SidePort,
    plan::NodeId,
    record::{self, Barrier, Control, Output},
    time::{FarFuture, MAX, Timestamp, Watermarks},
};

/// What becomes of records that cannot be used as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub skip_undecodable: bool,
    pub dead_letters: Option<NodeId>,
    pub far_future: Option<NodeId>,
    pub max_per_batch: Option<u64>,
}

/// What the driver tells a source task.
pub(crate) enum SourceControl {
    /// End the epoch here.
    Barrier(Barrier),
    /// Read this split as well.
    Assign(Split),
    /// Read a batch.
    Read,
}

/// The ports of a source's side streams in one subtask.
pub(super) struct Ports<T> {
    pub dead_letters: Option<SidePort<Undecodable>>,
    pub far_future: Option<SidePort<T>>,
    pub skip: bool,
}

struct SourceTask<S: Source, A, O> {
    source: Arc<S>,
    stamp: A,
    out: O,
    watermarks: Option<Watermarks>,
    splits: Vec<OpenSplit<S::Reader>>,
    finished: BTreeMap<String, Value>,
    discovers: bool,
    alignment: Option<Arc<Alignment>>,
    batching: Batching,
    ports: Ports<S::Item>,
    control: mpsc::UnboundedReceiver<SourceControl>,
    reporter: Reporter,
    stats: Arc<OperatorStats>,
    clock: TaskClock,
    next: usize,
    /// The watermark passed on, and whether `Idle` was passed on since.
    emitted: Option<Timestamp>,
    idle: bool,
    exhausted: bool,
    /// The last barrier has been passed on.
    stopped: bool,
    budget: usize,
    /// A snapshot is being captured: fills are small, so that none of them captures much.
    sweeping: bool,
    /// The first control has been passed on: the chain has been ready before.
    declared: bool,
    /// See [`Build::held`].
    held: Arc<AtomicBool>,
}

/// Records a fill may emit: few at first, so that a slow function behind does not hold up a barrier.
const BUDGET: std::ops::RangeInclusive<usize> = 64..=16_384;
/// A turn of the task: after this it lets others run.
const TURN: Duration = Duration::from_micros(500);
const FILLS_A_TURN: u32 = 16;
const MARKER_EVERY: Duration = Duration::from_millis(50);

/// Adds the task of a source to the subtask's build.
pub(crate) fn task<S, A, O>(stream: &SourceStream<S, A>, build: &mut Build<'_>, out: O) -> Result<()>
where
    S: Source,
    S::Item: Clone,
    A: Stamp<S::Item>,
    O: Output<S::Item>,
{
    let name = OperatorId::new(&*stream.name)?;
    let context = build.context().clone();
    let assignment = context
        .assignments
        .get(&name)
        .ok_or_else(|| Error::internal(format!("source {name} was not assigned its splits")))?;
    let subtask = build.subtask();
    let lead = stream.watermarks.as_ref().and_then(|w| w.align_ms);
    let alignment =
        lead.map(|lead| assignment.alignment.get_or_init(|| Alignment::new(lead, context.parallelism)).clone());
    let ports = Ports {
        dead_letters: stream.policies.dead_letters.map(|n| build.port(n)),
        far_future: stream.policies.far_future.map(|n| build.port(n)),
        skip: stream.policies.skip_undecodable,
    };
    let (sender, control) = mpsc::unbounded_channel();
    build.source_handle(SourceHandle { source: name.clone(), subtask, control: sender });
    let finished = if subtask.0 == 0 { assignment.finished.clone() } else { BTreeMap::new() };
    let task = SourceTask {
        source: stream.source.clone(),
        stamp: stream.stamp.clone(),
        out,
        watermarks: stream.watermarks.clone(),
        splits: Vec::new(),
        finished,
        discovers: assignment.discovers,
        alignment,
        batching: Batching::new(context.trigger, stream.policies.max_per_batch, context.parallelism, subtask),
        ports,
        control,
        reporter: build.reporter(name),
        stats: build.stats(stream.node),
        clock: build.task_clock(stream.node),
        next: 0,
        emitted: None,
        idle: false,
        exhausted: false,
        stopped: false,
        budget: *BUDGET.start(),
        sweeping: false,
        declared: false,
        held: build.held(),
    };
    let assigned = assignment.splits.get(subtask.0 as usize).cloned().unwrap_or_default();
    build.task(stream.node, task.run(assigned));
    Ok(())
}

impl<S, A, O> SourceTask<S, A, O>
where
    S: Source,
    S::Item: Clone,
    A: Stamp<S::Item>,
    O: Output<S::Item>,
{
    fn run(mut self, assigned: Vec<(Split, Begin)>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            for (split, begin) in assigned {
                self.open(split, begin).await?;
            }
            if self.batching.is_bounded() {
                self.begin_batch();
            }
            self.ready().await?;
            self.declare();
            let mut turn = now();
            let (mut fills, mut marked, mut at) = (0, None, turn);
            loop {
                while let Ok(control) = self.control.try_recv() {
                    self.take(control).await?;
                    self.ready().await?;
                    self.sweeping = self.sweep();
                }
                if let Some(split) = self.choose() {
                    let before = at;
                    self.fill(split)?;
                    at = self.clock.busy(before);
                    self.adapt_budget(at.duration_since(before));
                } else {
                    self.announce_end();
                    self.announce_read();
                    self.control_all(Control::Flush);
                    self.ready().await?;
                    self.wait().await?;
                    at = self.clock.idle(at);
                }
                // The first one at once: a job that ends before the second has its latency all the same.
                if marked.is_none_or(|marked| at.duration_since(marked) >= MARKER_EVERY) {
                    marked = Some(at);
                    self.control_all(Control::Marker(at));
                    self.measure_lag();
                }
                self.ready().await?;
                self.sweeping = self.sweep();
                fills += 1;
                if fills >= FILLS_A_TURN || at.duration_since(turn) >= TURN {
                    at = self.clock.backpressured(at);
                    poll_fn(|cx| Poll::Ready(self.poll_waiting(cx).map(drop))).await?;
                    self.find_idle();
                    tokio::task::yield_now().await;
                    (fills, turn) = (0, at);
                }
            }
        })
    }

    async fn open(&mut self, split: Split, begin: Begin) -> Result<()> {
        let (is_new, is_again) = (matches!(begin, Begin::New), matches!(begin, Begin::Again(_)));
        let saved: Option<SavedSplit> = match begin {
            Begin::Job | Begin::New => None,
            Begin::Saved(saved) | Begin::Again(saved) => Some(serde_json::from_value(saved).map_err(|e| {
                Error::corrupt(format!("the checkpoint's position of split {} cannot be read", split.id)).caused_by(e)
            })?),
        };
        let time = SplitTime::new(self.watermarks.as_ref(), saved.as_ref().map(|s| &s.time));
        let id = split.id.clone();
        // It has most likely nothing more: it must not hold time back, nor be taken for the end of time.
        let idle = saved.as_ref().is_some_and(|s| s.ended);
        OperatorStats::add(&self.stats.progress_total, split.length.unwrap_or(0));
        let opened = match saved {
            None if is_new => self.source.open_new(split),
            Some(saved) if is_again => self.source.open_again(split, saved.position),
            saved => self.source.open(split, saved.map(|s| s.position)),
        };
        let reader = opened.await.map_err(|e| e.at(&id))?;
        let stats = self.stats.splits.open(&id);
        self.splits.push(OpenSplit {
            id,
            reader,
            stats,
            time,
            ended: false,
            done: false,
            bounded: false,
            waiting: false,
            held: false,
            idle,
            last_record: now(),
        });
        self.exhausted = false;
        Ok(())
    }

    /// Waits until the next batch may come. What the coordinator says waits too, unless the chain is only held.
    async fn ready(&mut self) -> Result<()> {
        loop {
            let control = poll_fn(|cx| {
                self.held.store(false, Relaxed);
                if self.poll_out(cx)?.is_ready() {
                    return Poll::Ready(Ok(None));
                }
                if !self.declared || !self.held.load(Relaxed) {
                    return Poll::Pending;
                }
                // More would only stand in line.
                self.budget = *BUDGET.start();
                if self.sweeping {
                    self.sweeping = self.sweep();
                    if self.sweeping {
                        cx.waker().wake_by_ref();
                    }
                }
                match self.control.poll_recv(cx) {
                    Poll::Ready(Some(control)) => Poll::Ready(Ok(Some(control))),
                    Poll::Ready(None) | Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            let Some(control) = control else { return Ok(()) };
            self.take(control).await?;
            self.sweeping = true;
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut ready = self.out.poll_ready(cx)?;
        if let Some(port) = &mut self.ports.dead_letters {
            ready = both(ready, port.poll_ready(cx)?);
        }
        if let Some(port) = &mut self.ports.far_future {
            ready = both(ready, port.poll_ready(cx)?);
        }
        ready.map(Ok)
    }

    /// A slice of what is deferred, in the chain and in the side streams.
    fn sweep(&mut self) -> bool {
        let more = self.out.sweep();
        let dead_letters = self.ports.dead_letters.as_mut().is_some_and(Output::sweep);
        let far_future = self.ports.far_future.as_mut().is_some_and(Output::sweep);
        more | dead_letters | far_future
    }

    /// Passes a control to the chain and to the side streams.
    fn control_all(&mut self, control: Control) {
        self.out.control(control);
        if let Some(port) = &mut self.ports.dead_letters {
            port.control(control);
        }
        if let Some(port) = &mut self.ports.far_future {
            port.control(control);
        }
    }

    /// The first control: the restored watermark, before any record.
    fn declare(&mut self) {
        self.declared = true;
        let slowest = self.slowest();
        self.publish_alignment();
        match slowest {
            // None of them has more than it had; or so it seems, until they have been read.
            None if self.discovers || !self.splits.is_empty() => {
                self.idle = true;
                self.control_all(Control::Idle);
            }
            None => self.emit_watermark(MAX),
            Some(watermark) => self.emit_watermark(watermark),
        }
    }

    /// The minimum over the splits that count; `None` when none does.
    fn slowest(&self) -> Option<Timestamp> {
        self.splits.iter().filter(|s| !s.idle && !s.ended).map(|s| s.time.watermark()).min()
    }

    fn emit_watermark(&mut self, watermark: Timestamp) {
        let watermark = self.emitted.map_or(watermark, |e| e.max(watermark));
        (self.emitted, self.idle) = (Some(watermark), false);
        self.stats.watermark.store(watermark, Relaxed);
        self.control_all(Control::Watermark(watermark));
    }

    /// Passes on what has changed in the splits' time.
    fn advance(&mut self) {
        let slowest = self.slowest();
        self.publish_alignment();
        match slowest {
            Some(w) if self.idle || self.emitted.is_none_or(|e| e < w) => self.emit_watermark(w),
            Some(_) => {}
            // The end is said once, and stands: it is never followed by `Idle`.
            None if self.emitted == Some(MAX) => {}
            None if self.all_ended() && !self.discovers => self.emit_watermark(MAX),
            None if !self.idle => {
                self.idle = true;
                self.control_all(Control::Idle);
            }
            None => {}
        }
    }

    fn all_ended(&self) -> bool {
        self.splits.iter().all(|s| s.ended)
    }

    /// The next split, in turn, that may be read.
    fn choose(&mut self) -> Option<usize> {
        if self.stopped || !self.batching.reads() {
            return None;
        }
        let count = self.splits.len();
        let index = (0..count).map(|k| (self.next + k) % count).find(|i| {
            let split = &self.splits[*i];
            !split.ended
                && !split.done
                && !split.waiting
                && !self.alignment.as_ref().is_some_and(|a| a.holds(split.time.watermark()))
        })?;
        self.next = index + 1;
        Some(index)
    }

    fn fill(&mut self, index: usize) -> Result<()> {
        let others = self.splits.iter().enumerate().filter(|(i, s)| *i != index && !s.idle && !s.ended);
        let others = others.map(|(_, s)| s.time.watermark()).min().unwrap_or(MAX);
        let guard = self.watermarks.as_ref().and_then(|w| w.future);
        let limit = guard.map_or((MAX, FarFuture::Count), |(ahead, policy)| (wall_ms().saturating_add(ahead), policy));
        let split = &mut self.splits[index];
        let progress_before = split.reader.progress().unwrap_or(0);
        let read_before = self.stats.read();
        let mut emission = Emission {
            out: &mut self.out,
            stamp: &mut self.stamp,
            time: &mut split.time,
            ports: &mut self.ports,
            others,
            emitted: &mut self.emitted,
            idle: &mut self.idle,
            limit,
            stats: &self.stats,
            records: 0,
            aside: 0,
            fault: None,
        };
        let budget = self.batching.budget(if self.sweeping { *BUDGET.start() } else { self.budget });
        let progress = split.reader.fill(budget, &mut emission)?;
        let (records, aside) = (emission.records - emission.aside, emission.aside);
        if let Some(fault) = emission.fault {
            return Err(fault.at(&split.id));
        }
        OperatorStats::add(&self.stats.records_in, records + aside);
        OperatorStats::add(&self.stats.records_out, records);
        OperatorStats::add(&self.stats.progress, split.reader.progress().unwrap_or(0).saturating_sub(progress_before));
        let read = self.stats.read();
        split.stats.read(read.0 - read_before.0, read.1 - read_before.1);
        self.batching.took(read.0 - read_before.0);
        if records > 0 && self.watermarks.is_some() {
            split.last_record = now();
            split.idle = false;
        }
        split.held = progress == Progress::Held;
        match progress {
            Progress::More => {}
            Progress::Wait | Progress::Held => {
                split.waiting = true;
                split.idle &= !split.held;
                // The task may now sleep for long, and must not leave behind what was left in the middle.
                split.stats.left(split.reader.lag());
            }
            Progress::End => {
                split.ended = true;
                split.stats.left(split.reader.lag());
                self.stats.splits.end(&split.stats);
            }
        }
        split.done = self.batching.is_done(progress, split.bounded, || split.reader.is_at_bound());
        if let Some(watermarks) = &self.watermarks {
            if split.time.at_batch_end() {
                split.time.advance();
            }
            if let (Some(idle_after), true) =
                (watermarks.idle_after, split.waiting && self.batching.finds_idle(split.done))
            {
                split.find_idle(idle_after, now());
            }
            self.advance();
        } else if progress == Progress::End {
            self.advance();
        }
        Ok(())
    }

    fn measure_lag(&self) {
        for split in self.splits.iter().filter(|split| !split.ended) {
            split.stats.left(split.reader.lag());
        }
    }

    fn adapt_budget(&mut self, took: Duration) {
        if took < TURN / 4 {
            self.budget = (self.budget * 2).min(*BUDGET.end());
        } else if took > TURN * 2 {
            self.budget = (self.budget / 2).max(*BUDGET.start());
        }
    }

    /// Waits until a split can be read or the coordinator speaks.
    async fn wait(&mut self) -> Result<()> {
        let idle_after = self.watermarks.as_ref().and_then(|w| w.idle_after);
        let alignment = self.alignment.clone();
        let mut moved = pin!(async {
            match &alignment {
                Some(a) => a.moved().await,
                None => std::future::pending().await,
            }
        });
        let mut timeout = pin!(sleep(idle_after.unwrap_or(Duration::from_secs(3600))));
        let mut held_check = alignment.is_some();
        // Of the chain, and of the two side streams.
        let mut sweeping = [true; 3];
        let control = poll_fn(|cx| {
            // `None`: the driver has gone; it is about to end this task.
            if let Poll::Ready(Some(control)) = self.control.poll_recv(cx) {
                return Poll::Ready(Ok(Some(control)));
            }
            if self.poll_waiting(cx)? {
                return Poll::Ready(Ok(None));
            }
            if moved.as_mut().poll(cx).is_ready() || timeout.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(None));
            }
            // The notification is registered now: look once more, a move may have come just before it.
            if std::mem::take(&mut held_check) && self.choose().is_some() {
                return Poll::Ready(Ok(None));
            }
            let [chain, dead_letters, far_future] = &mut sweeping;
            record::BatchOutput::<(S::Item, Timestamp)>::sweep_on(&mut self.out, chain, cx)?;
            if let Some(port) = &mut self.ports.dead_letters {
                record::BatchOutput::sweep_on(port, dead_letters, cx)?;
            }
            if let Some(port) = &mut self.ports.far_future {
                record::BatchOutput::sweep_on(port, far_future, cx)?;
            }
            Poll::Pending
        })
        .await?;
        if let Some(control) = control {
            return self.take(control).await;
        }
        self.find_idle();
        Ok(())
    }

    /// Asks every split that had nothing whether it has something now; true when one has.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        let mut any = false;
        let reads = !self.stopped && self.batching.reads();
        for split in self.splits.iter_mut().filter(|s| s.waiting && !s.done && reads) {
            if let Poll::Ready(ready) = split.reader.poll_ready(cx) {
                split.waiting = false;
                any = true;
                ready.map_err(|e| e.at(&split.id))?;
            }
        }
        Ok(any)
    }

    /// Does what the coordinator says.
    async fn take(&mut self, control: SourceControl) -> Result<()> {
        match control {
            SourceControl::Assign(split) => {
                self.open(split, Begin::New).await?;
                self.advance();
                Ok(())
            }
            SourceControl::Read => {
                self.begin_batch();
                Ok(())
            }
            SourceControl::Barrier(barrier) => {
                kill::point("source.barrier");
                self.batching.end();
                let ack = self.positions()?;
                self.reporter.ack(barrier.epoch, true, Box::pin(futures::future::ready(Ok(ack))));
                self.control_all(Control::Barrier(barrier));
                self.stopped |= barrier.last;
                Ok(())
            }
        }
    }

    fn positions(&self) -> Result<Ack> {
        let mut splits = self.finished.clone();
        for split in &self.splits {
            let saved = SavedSplit { position: split.reader.position(), time: split.time.save(), ended: split.ended };
            let saved = serde_json::to_value(saved)
                .map_err(|e| Error::internal(format!("the position of {} cannot be written", split.id)).caused_by(e))?;
            splits.insert(split.id.clone(), saved);
        }
        let count = |c: &std::sync::atomic::AtomicU64| c.load(Relaxed);
        let counters = BTreeMap::from([
            ("records".to_owned(), count(&self.stats.records_out)),
            ("skipped".to_owned(), count(&self.stats.skipped)),
            ("dead-letters".to_owned(), count(&self.stats.dead_letters)),
        ]);
        Ok(Ack { splits, counters, ..Ack::default() })
    }
}

fn both(a: Poll<()>, b: Poll<()>) -> Poll<()> {
    if a.is_ready() { b } else { a }
}
