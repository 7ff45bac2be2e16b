//! Windows that fire when a trigger says so, and windows that merge: a process function.
//!
//! A key's state is its open windows. Each has a timer at its end, one at the end of the allowed lateness, and those of its
//! trigger; a timer says which windows it is for by its time alone, so that one may be late, or left over from a window
//! that has been merged into another, and does no harm.
//!
//! The hard case is sessions: a record may bridge the gap between two windows, of which one may have fired. They become one
//! that has not, with the state of both; its end is later than either's was, or it is late and fires at once.
use serde::{Deserialize, Serialize};
use std::time::Duration;

use tidegate_checkpoint::error::Error;

use super::{Common, Firing, Hopping, Tumbling, Windowed, Windows};
use crate::{
    operators::{
        aggregate::Aggregate,
        process::{Context, OutputTag, ProcessFunction, ProcessSpec, Timer},
        running::OutputMode,
    },
    state::hash::Key,
    time::{MAX, Timestamp, Window, millis},
};

/// When windows fire, and what becomes of what is in them then.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::{Stream, Trigger, Tumbling, Windowed};
/// /// The count of each hour, and a preview of it every minute.
/// fn hourly(clicks: impl Stream<Item = u64>) -> impl Stream<Item = Windowed<u64, u64>> {
///     let preview = Trigger::on_watermark().every(Duration::from_secs(60));
///     clicks.key_by(|user| *user).window("hourly", Tumbling::of(Duration::from_secs(3600))).trigger(preview).count()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    at_end: bool,
    every_ms: Option<i64>,
    every_processing_ms: Option<i64>,
    every_records: Option<u64>,
    every_epoch: bool,
    /// Also what has not changed.
    all: bool,
    discards: bool,
}

impl Trigger {
    /// At the window's end, as without a trigger, and besides as is said by what follows.
    pub fn on_watermark() -> Self {
        Self {
            at_end: true,
            every_ms: None,
            every_processing_ms: None,
            every_records: None,
            every_epoch: false,
            all: false,
            discards: false,
        }
    }
    /// Only as is said by what follows: not at the window's end.
    pub fn never() -> Self {
        Self { at_end: false, ..Self::on_watermark() }
    }
    /// Early, whenever event time comes to a multiple of this and there is something new.
    #[must_use]
    pub fn every(mut self, time: Duration) -> Self {
        self.every_ms = Some(millis(time));
        self
    }
    /// Early, so long after the first record that is new, by the machine's clock. What comes out is not the same in every
    /// run.
    #[must_use]
    pub fn every_processing(mut self, time: Duration) -> Self {
        self.every_processing_ms = Some(millis(time));
        self
    }
    /// Early, with every so many records of a key and window; with 1, each record gives an update.
    #[must_use]
    pub fn every_records(mut self, records: u64) -> Self {
        self.every_records = Some(records);
        self
    }
    /// Early, at the end of each epoch in which there was something new: with each checkpoint, and each micro-batch. A
    /// window that goes before that fires with what is new by then. Where it does not fire at its end besides, late records
    /// wait for the end of the epoch too.
    #[must_use]
    pub fn every_epoch(mut self) -> Self {
        self.every_epoch = true;
        self
    }
    /// What fires in an output mode.
    pub(crate) fn of(mode: OutputMode) -> Self {
        match mode {
            OutputMode::Append => Self::on_watermark(),
            OutputMode::Update => Self::never().every_epoch(),
            OutputMode::Complete => Self { all: true, ..Self::never().every_epoch() },
        }
    }
    /// What has fired is given up: the next firing has only what came since. Otherwise it accumulates.
    #[must_use]
    pub fn discarding(mut self) -> Self {
        self.discards = true;
        self
    }

    fn mistake(&self, name: &str) -> Option<Error> {
        let every = [self.every_ms, self.every_processing_ms];
        if every.iter().flatten().any(|ms| *ms <= 0) || self.every_records == Some(0) {
            let error = Error::config(format!("the trigger of window {name:?} fires every 0"));
            return Some(error.hint("use at least a millisecond, or one record"));
        }
        let never = !self.at_end && every == [None; 2] && self.every_records.is_none() && !self.every_epoch;
        never.then(|| {
            Error::config(format!("the trigger of window {name:?} never fires"))
                .hint("say when: .every(..), .every_processing(..), .every_records(..), or begin with on_watermark()")
        })
    }
}

/// Says in which windows a record is.
pub trait Assign<T>: Clone + Send + Sync + 'static {
    /// Whether windows of a key that overlap or touch become one; a record is then in one window.
    const MERGES: bool = false;
    /// The windows of a record.
    fn assign(&self, at: Timestamp, record: &T, each: impl FnMut(Window));
}

impl<T> Assign<T> for Tumbling {
    fn assign(&self, at: Timestamp, _: &T, each: impl FnMut(Window)) {
        self.window(at).into_iter().for_each(each);
    }
}
impl<T> Assign<T> for Hopping {
    fn assign(&self, at: Timestamp, _: &T, each: impl FnMut(Window)) {
        self.windows(at).for_each(each);
    }
}

/// Windows with a trigger of their own: see [`WindowedStream::trigger`](crate::WindowedStream::trigger).
#[derive(Clone, Debug)]
pub struct Triggered<W> {
    pub(crate) windows: W,
    pub(crate) trigger: Trigger,
}

impl<T: Clone + Send + 'static, W: Windows<T> + Assign<T>> Windows<T> for Triggered<W> {
    type Spec<K: Key, A: Aggregate<T>> = ProcessSpec<WindowFunction<W, A, T>>;
    fn spec<K: Key, A: Aggregate<T>>(self, common: Common<A>) -> Self::Spec<K, A> {
        triggered(self.windows, self.trigger, common)
    }
    fn describe(&self) -> String {
        self.windows.describe()
    }
    fn mistake(&self, name: &str) -> Option<Error> {
        self.windows.mistake(name).or_else(|| self.trigger.mistake(name))
    }
    fn needs_event_time(&self) -> bool {
        self.windows.needs_event_time() || self.trigger.every_ms.is_some()
    }
    fn end(&self) -> bool {
        self.windows.end()
    }
}

/// The operator.
pub(super) fn triggered<T: Clone + Send + 'static, W: Assign<T>, A: Aggregate<T>>(
    windows: W,
    trigger: Trigger,
    common: Common<A>,
) -> ProcessSpec<WindowFunction<W, A, T>> {
    let late = OutputTag::new("late");
    let node = common.late;
    let all_at_epoch_end = trigger.all;
    let mut spec = ProcessSpec::new(WindowFunction { windows, trigger, common, late: late.clone() });
    spec.all_at_epoch_end = all_at_epoch_end;
    if let Some(node) = node {
        spec.sides.take(&late, node);
    }
    spec
}

/// See the module.
pub struct WindowFunction<W, A, T> {
    windows: W,
    trigger: Trigger,
    common: Common<A>,
    late: OutputTag<T>,
}

impl<W: Clone, A: Clone, T> Clone for WindowFunction<W, A, T> {
    fn clone(&self) -> Self {
        let Self { windows, trigger, common, late } = self;
        Self { windows: windows.clone(), trigger: *trigger, common: common.clone(), late: late.clone() }
    }
}

/// An open window.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pane<S> {
    window: Window,
    state: S,
    /// Records since it has fired.
    records: u64,
}

/// The open windows of a key.
#[derive(Debug, Serialize, Deserialize)]
pub struct Panes<S>(Vec<Pane<S>>);

impl<S> Default for Panes<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<W, A, T> WindowFunction<W, A, T>
where
    T: Clone + Send + 'static,
    W: Assign<T>,
    A: Aggregate<T>,
{
    /// When a window goes.
    fn until(&self, window: Window) -> Timestamp {
        (window.end - 1).saturating_add(self.common.lateness_ms)
    }

    /// The place of the pane of a window, into which all that it touches have been merged.
    fn merge<K, U>(
        &self,
        panes: &mut Vec<Pane<A::State>>,
        mut window: Window,
        ctx: &mut Context<'_, K, U>,
    ) -> Option<usize> {
        let touches =
            |pane: &Pane<A::State>, window: Window| pane.window.start <= window.end && pane.window.end >= window.start;
        // Those that there are touch none of each other, and so nothing that the record does not touch itself.
        window = panes.iter().filter(|pane| touches(pane, window)).fold(window, |all, pane| Window {
            start: all.start.min(pane.window.start),
            end: all.end.max(pane.window.end),
        });
        if self.until(window) <= ctx.watermark() {
            return None;
        }
        let mut found = None;
        let mut at = 0;
        while at < panes.len() {
            if !touches(&panes[at], window) {
                at += 1;
                continue;
            }
            if panes[at].window.end != window.end {
                ctx.delete_timer(panes[at].window.end - 1);
                ctx.delete_timer(self.until(panes[at].window));
            }
            match found {
                None => {
                    found = Some(at);
                    at += 1;
                }
                Some(first) => {
                    let merged: Pane<A::State> = panes.remove(at);
                    self.common.aggregate.merge(&mut panes[first].state, &merged.state);
                    panes[first].records += merged.records;
                }
            }
        }
        if let Some(first) = found {
            panes[first].window = window;
        }
        Some(found.unwrap_or_else(|| self.open(panes, window)))
    }

    fn open(&self, panes: &mut Vec<Pane<A::State>>, window: Window) -> usize {
        // Most keys have one, and there are many keys.
        panes.reserve_exact(1);
        panes.push(Pane { window, state: self.common.aggregate.init(), records: 0 });
        panes.len() - 1
    }

    fn fire<K: Clone>(
        &self,
        pane: &mut Pane<A::State>,
        firing: Firing,
        ctx: &mut Context<'_, K, Windowed<K, A::Output>>,
    ) {
        let (window, value) = (pane.window, self.common.aggregate.finish(&pane.state));
        let at = if window.end == MAX { ctx.timestamp() } else { window.end - 1 };
        ctx.emit_at(Windowed { key: ctx.key().clone(), window, value, firing }, at);
        pane.records = 0;
        if self.trigger.discards {
            pane.state = self.common.aggregate.init();
        }
    }

    /// Sets the timers that a pane has to have.
    #[inline]
    fn set_timers<K, U>(&self, window: Window, ctx: &mut Context<'_, K, U>) {
        let watermark = ctx.watermark();
        if window.end - 1 > watermark {
            ctx.set_timer(window.end - 1);
        }
        if self.common.lateness_ms > 0 {
            ctx.set_timer(self.until(window));
        }
        if let Some(every) = self.trigger.every_ms {
            let behind = watermark.max(window.start).max(ctx.timestamp().saturating_sub(every));
            let next = behind.saturating_sub(behind.rem_euclid(every)).saturating_add(every);
            if next < window.end - 1 {
                ctx.set_timer(next);
            }
        }
    }
}

impl<K, T, W, A> ProcessFunction<K, T> for WindowFunction<W, A, T>
where
    K: Key,
    T: Clone + Send + 'static,
    W: Assign<T>,
    A: Aggregate<T>,
{
    type State = Panes<A::State>;
    type Output = Windowed<K, A::Output>;

    fn process(&mut self, record: T, Panes(panes): &mut Self::State, ctx: &mut Context<'_, K, Self::Output>) {
        let (at, watermark) = (ctx.timestamp(), ctx.watermark());
        let mut is_late = true;
        self.windows.assign(at, &record, |window| {
            let place = if W::MERGES {
                self.merge(panes, window, ctx)
            } else if self.until(window) <= watermark {
                None
            } else {
                let found = panes.iter().position(|pane| pane.window == window);
                Some(found.unwrap_or_else(|| self.open(panes, window)))
            };
            let Some(pane) = place.and_then(|place| panes.get_mut(place)) else { return };
            is_late = false;
            self.common.aggregate.add(&mut pane.state, record.clone());
            pane.records += 1;
            if pane.records == 1
                && let Some(every) = self.trigger.every_processing_ms
            {
                ctx.set_processing_timer(ctx.processing_time().saturating_add(every));
            }
            self.set_timers(pane.window, ctx);
            if self.trigger.every_epoch && !self.trigger.all {
                ctx.at_epoch_end();
            }
            let waits = self.trigger.every_epoch && !self.trigger.at_end;
            if pane.window.end - 1 <= watermark && !waits {
                self.fire(pane, Firing::Late, ctx);
            } else if self.trigger.every_records.is_some_and(|every| pane.records >= every) {
                self.fire(pane, Firing::Early, ctx);
            }
        });
        if is_late {
            ctx.is_late();
            ctx.side(&self.late, record);
        }
        if panes.is_empty() {
            ctx.clear();
        }
    }

    fn on_timer(&mut self, timer: Timer, Panes(panes): &mut Self::State, ctx: &mut Context<'_, K, Self::Output>) {
        for pane in panes.iter_mut() {
            let firing = match timer {
                Timer::Event(at) if at == pane.window.end - 1 => {
                    (self.trigger.at_end && !(self.trigger.discards && pane.records == 0)).then_some(Firing::OnTime)
                }
                Timer::Event(at) => {
                    let is_due = self.trigger.every_ms.is_some_and(|every| at.rem_euclid(every) == 0);
                    let is_open = pane.window.contains(at) && pane.records > 0;
                    (is_due && is_open).then_some(Firing::Early)
                }
                Timer::Processing(_) => (pane.records > 0).then_some(Firing::Early),
            };
            if let Some(firing) = firing {
                self.fire(pane, firing, ctx);
            }
        }
        if let Timer::Event(at) = timer {
            panes.retain_mut(|pane| {
                let stays = self.until(pane.window) > at;
                if !stays && self.trigger.every_epoch && pane.records > 0 {
                    self.fire(pane, Firing::OnTime, ctx);
                }
                stays
            });
        }
        if panes.is_empty() {
            ctx.clear();
        }
    }

    fn epoch_ends(&mut self, Panes(panes): &mut Self::State, ctx: &mut Context<'_, K, Self::Output>) {
        for pane in panes {
            if pane.records > 0 || self.trigger.all {
                let is_over = pane.window.end - 1 <= ctx.watermark();
                self.fire(pane, if is_over { Firing::Late } else { Firing::Early }, ctx);
            }
        }
    }
}
