//! Tumbling windows of event time: one table an open window, so that firing costs what fires.
//!
//! Windows of records that come in time but behind others' firing are simply new.
//!
//! The hard case is determinism: lateness is judged against the watermark *that stood in the stream before
//! the record*, never against a clock, and the restored watermark is passed before the first record.
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    super::{
        aggregate::Aggregate,
        event_time::{EventTime, Late},
        keyed::{KeyedOperator, KeyedSpec, Visit},
    },
    Common, Firing, Windowed, Windows, no_length, shown,
};
use crate::{
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Control, Keyed, Output},
    runtime::build::Build,
    state::{hash::Key, keyed::KeyedState},
    time::{MAX, MIN, Timestamp, Window, millis},
};
use tidegate_checkpoint::error::{Error, Result};

/// Windows of one length, side by side, aligned to 1970-01-01 UTC.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::Tumbling;
/// let hours = Tumbling::of(Duration::from_secs(3600));
/// // Days as they are in New York in winter.
/// let days = Tumbling::of(Duration::from_secs(86_400)).offset(Duration::from_secs(5 * 3600));
/// assert_eq!(hours.window(3_600_001).unwrap().start, 3_600_000);
/// assert_eq!(days.window(0).unwrap().end, 5 * 3_600_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tumbling {
    pub(super) length_ms: i64,
    pub(super) offset_ms: i64,
}

impl Tumbling {
    /// Windows of this length.
    pub fn of(length: Duration) -> Self {
        Self { length_ms: millis(length), offset_ms: 0 }
    }

    /// Begins them so long behind the hour, the day or whatever their length is.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset_ms = millis(offset);
        self
    }

    /// The window of a timestamp; `None` at the ends of time, where it could not be written, and without a length.
    #[inline]
    pub fn window(&self, at: Timestamp) -> Option<Window> {
        let start = at.checked_sub(at.checked_sub(self.offset_ms)?.checked_rem_euclid(self.length_ms)?)?;
        Some(Window { start, end: start.checked_add(self.length_ms)? })
    }
}

impl<T: Clone + Send + 'static> Windows<T> for Tumbling {
    type Spec<K: Key, A: Aggregate<T>> = WindowSpec<A>;
    fn spec<K: Key, A: Aggregate<T>>(self, common: Common<A>) -> WindowSpec<A> {
        WindowSpec { windows: self, common }
    }
    fn describe(&self) -> String {
        let offset = if self.offset_ms == 0 { String::new() } else { format!(" from {}", shown(self.offset_ms)) };
        format!("tumbling {}{offset}", shown(self.length_ms))
    }
    fn mistake(&self, name: &str) -> Option<Error> {
        (self.length_ms <= 0).then(|| no_length(name, "length"))
    }
}

/// What a window operator is made of.
#[derive(Clone, Debug)]
pub struct WindowSpec<A> {
    windows: Tumbling,
    common: Common<A>,
}

impl<K, T, A> KeyedSpec<K, T> for WindowSpec<A>
where
    K: Key,
    T: Clone + Send + 'static,
    A: Aggregate<T>,
{
    type Operator = WindowOperator<T, A>;
    fn operator(&self, build: &mut Build<'_>, node: NodeId) -> WindowOperator<T, A> {
        WindowOperator {
            late: Late::new(build, node, self.common.late),
            time: EventTime::default(),
            current: Current::new(self.windows, self.common.lateness_ms),
            aggregate: self.common.aggregate.clone(),
            stats: build.stats(node),
            emitted: 0,
        }
    }
}

/// The operator in one subtask.
pub struct WindowOperator<T, A> {
    aggregate: A,
    late: Late<T>,
    time: EventTime,
    current: Current,
    stats: Arc<OperatorStats>,
    emitted: u64,
}

/// The window of the last record, as long as the watermark stands: it is nearly always the next one's too.
#[derive(Clone, Copy)]
pub(in crate::operators) struct Current {
    windows: Tumbling,
    lateness_ms: i64,
    pub(in crate::operators) window: Window,
    /// It has fired before.
    pub(in crate::operators) fired: bool,
}

/// The window that nothing is in.
const NO_WINDOW: Window = Window { start: MAX, end: MIN };

impl Current {
    pub(in crate::operators) fn new(windows: Tumbling, lateness_ms: i64) -> Self {
        Self { windows, lateness_ms, window: NO_WINDOW, fired: false }
    }

    fn is_open(&self, window: Window, watermark: Timestamp) -> bool {
        (window.end - 1).saturating_add(self.lateness_ms) > watermark
    }

    /// Makes the window of a timestamp the current one; false when it is late.
    #[cold]
    pub(in crate::operators) fn enter(&mut self, at: Timestamp, watermark: Timestamp) -> bool {
        let open = self.windows.window(at).filter(|window| self.is_open(*window, watermark));
        if let Some(window) = open {
            (self.window, self.fired) = (window, window.end - 1 <= watermark);
        }
        open.is_some()
    }

    /// The namespace of the window of a record, unless it is late.
    pub(in crate::operators) fn needs(&self, at: Timestamp, watermark: Timestamp) -> Option<i64> {
        self.windows.window(at).filter(|window| self.is_open(*window, watermark)).map(|window| window.start)
    }

    /// The window that begins there.
    pub(in crate::operators) fn from(&self, start: Timestamp) -> Window {
        Window { start, end: start.saturating_add(self.windows.length_ms) }
    }

    /// The watermark has come from `before` to `watermark`: which of the windows that begin with these namespaces fire,
    /// and which are discarded.
    pub(in crate::operators) fn advance(
        &mut self,
        starts: Vec<i64>,
        before: Timestamp,
        watermark: Timestamp,
    ) -> Vec<Visit> {
        self.window = NO_WINDOW;
        let mut visits = Vec::new();
        for start in starts {
            let last = start.saturating_add(self.windows.length_ms - 1);
            if last > before && last <= watermark {
                visits.push(Visit::Fire(start, vec![start]));
            }
            if last.saturating_add(self.lateness_ms) <= watermark {
                visits.push(Visit::Discard(start));
            }
        }
        visits
    }
}

impl<K, T, A> KeyedOperator<K, T> for WindowOperator<T, A>
where
    K: Key,
    T: Clone + Send + 'static,
    A: Aggregate<T>,
{
    type Value = A::State;
    type Out = Windowed<K, A::Output>;

    fn opened(&mut self, state: &KeyedState<K, A::State>) {
        self.time = EventTime::opened(state);
    }

    #[inline(always)]
    fn process<O: Output<Self::Out>>(
        &mut self,
        state: &mut KeyedState<K, A::State>,
        records: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) -> Result<()> {
        let mut records = records.drain(..);
        while let Some(next) = records.as_slice().first() {
            if (!self.current.window.contains(next.at) || self.time.is_uneven())
                && !self.current.enter(next.at, self.time.of(state, next.hash))
            {
                if let Some(Keyed { record, at, .. }) = records.next() {
                    self.late.record(record, at);
                }
                continue;
            }
            let (Current { window, fired, .. }, aggregate) = (self.current, &self.aggregate);
            let only = self.time.only(next.hash);
            let fits = |next: &Keyed<K, T>| window.contains(next.at) && only.is_none_or(|hash| hash == next.hash);
            state.update_while(
                window.start,
                &mut records,
                fits,
                || aggregate.init(),
                |value, next| {
                    aggregate.add(value, next.record);
                    if fired {
                        let value = aggregate.finish(value);
                        self.emitted += 1;
                        out.record(Windowed { key: next.key, window, value, firing: Firing::Late }, window.end - 1);
                    }
                },
            )?;
        }
        Ok(())
    }

    fn needs(&self, record: &Keyed<K, T>, need: &mut dyn FnMut(i64)) {
        self.current.needs(record.at, self.time.watermark()).into_iter().for_each(need);
    }

    fn advance(&mut self, state: &mut KeyedState<K, A::State>, watermark: Timestamp) -> Vec<Visit> {
        let before = self.time.advance(state, watermark);
        self.current.advance(state.namespaces(), before, watermark)
    }

    fn fire<O: Output<Self::Out>>(
        &mut self,
        state: &KeyedState<K, A::State>,
        start: Timestamp,
        (key, value): (&K, &A::State),
        out: &mut O,
    ) {
        let window = self.current.from(start);
        if self.time.has_passed(state, key, window.end - 1) {
            return;
        }
        self.emitted += 1;
        let value = self.aggregate.finish(value);
        out.record(Windowed { key: key.clone(), window, value, firing: Firing::OnTime }, window.end - 1);
    }

    fn advanced(&mut self) -> Vec<Visit> {
        self.time.advanced();
        Vec::new()
    }

    fn side(&mut self, control: Control) {
        self.late.control(control);
    }
    fn poll_side(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stats.records_out.store(self.emitted, Relaxed);
        self.late.poll_ready(cx)
    }
    fn sweep_side(&mut self) -> bool {
        self.late.sweep()
    }
}
