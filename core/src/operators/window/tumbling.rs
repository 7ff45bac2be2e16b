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
        keyed::{KeyedOperator, KeyedSpec, Visit},
        side::SidePort,
    },
    Common, Firing, Windowed, Windows, no_length, shown,
};
use crate::{
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Control, Keyed, Output},
    runtime::build::Build,
    state::{
        hash::{Key, hash_key},
        keyed::KeyedState,
    },
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
        let late = self.common.late.map(|late| build.port(late));
        WindowOperator {
            spec: self.clone(),
            late,
            watermark: MIN,
            ahead: None,
            current: NO_WINDOW,
            fired: false,
            stats: build.stats(node),
            emitted: 0,
        }
    }
}

/// The operator in one subtask.
pub struct WindowOperator<T, A> {
    spec: WindowSpec<A>,
    late: Option<SidePort<T>>,
    watermark: Timestamp,
    /// After another parallelism, with splits that were idle: until then some key groups have seen a later
    /// watermark than others, and what has fired for them must not fire again.
    ahead: Option<Timestamp>,
    /// The window of the last record, as long as the watermark stands; and whether it has fired before.
    current: Window,
    fired: bool,
    stats: Arc<OperatorStats>,
    emitted: u64,
}

/// The window that nothing is in.
const NO_WINDOW: Window = Window { start: MAX, end: MIN };

impl<T: Clone + Send + 'static, A: Aggregate<T>> WindowOperator<T, A> {
    /// Makes the window of a timestamp the current one; false when it is late.
    #[cold]
    fn enter(&mut self, at: Timestamp, watermark: Timestamp) -> bool {
        let Some(window) = self.spec.windows.window(at) else { return false };
        let open = (window.end - 1).saturating_add(self.spec.common.lateness_ms) > watermark;
        if open {
            (self.current, self.fired) = (window, window.end - 1 <= watermark);
        }
        open
    }

    #[cold]
    fn late(&mut self, record: T, at: Timestamp) {
        OperatorStats::add(&self.stats.late, 1);
        if let Some(late) = &mut self.late {
            late.record(record, at);
        }
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

    /// What was late is late after a restart, and what has fired does not fire again. The sources' own watermarks
    /// do not say it: those of splits that were idle are behind.
    fn opened(&mut self, state: &KeyedState<K, A::State>) {
        self.watermark = state.watermark().unwrap_or(MIN);
        self.ahead = state.newest_restored_watermark().filter(|newest| *newest > self.watermark);
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
            // The window of the previous record is nearly always the next one's too.
            if !self.current.contains(next.at) || self.ahead.is_some() {
                let ahead = self.ahead.and_then(|_| state.restored_watermark(next.hash)).unwrap_or(MIN);
                if !self.enter(next.at, self.watermark.max(ahead)) {
                    if let Some(Keyed { record, at, .. }) = records.next() {
                        self.late(record, at);
                    }
                    continue;
                }
            }
            let (window, fired, aggregate) = (self.current, self.fired, &self.spec.common.aggregate);
            // Of the same hash is of the same key group.
            let only = self.ahead.map(|_| next.hash);
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
        let Some(window) = self.spec.windows.window(record.at) else { return };
        if (window.end - 1).saturating_add(self.spec.common.lateness_ms) > self.watermark {
            need(window.start);
        }
    }

    fn advance(&mut self, state: &mut KeyedState<K, A::State>, watermark: Timestamp) -> Vec<Visit> {
        let before = self.watermark;
        self.watermark = watermark.max(before);
        self.current = NO_WINDOW;
        // The end of the input is not saved: the job may be started again with more of it.
        if self.watermark < MAX {
            state.save_watermark(self.watermark);
        }
        let end = |start: Timestamp| start.saturating_add(self.spec.windows.length_ms - 1);
        let mut due = state.namespaces();
        due.retain(|start| end(*start) <= watermark);
        let mut visits = Vec::new();
        for start in due {
            if end(start) > before {
                visits.push(Visit::Fire(start, vec![start]));
            }
            if end(start).saturating_add(self.spec.common.lateness_ms) <= watermark {
                visits.push(Visit::Discard(start));
            }
        }
        visits
    }

    fn fire<O: Output<Self::Out>>(
        &mut self,
        state: &KeyedState<K, A::State>,
        start: Timestamp,
        (key, value): (&K, &A::State),
        out: &mut O,
    ) {
        let window = Window { start, end: start.saturating_add(self.spec.windows.length_ms) };
        if self.ahead.is_some() && state.restored_watermark(hash_key(key)) >= Some(window.end - 1) {
            return;
        }
        self.emitted += 1;
        let value = self.spec.common.aggregate.finish(value);
        out.record(Windowed { key: key.clone(), window, value, firing: Firing::OnTime }, window.end - 1);
    }

    fn advanced(&mut self) -> Vec<Visit> {
        self.ahead = self.ahead.filter(|newest| *newest > self.watermark);
        Vec::new()
    }

    fn side(&mut self, control: Control) {
        if let Some(late) = &mut self.late {
            late.control(control);
        }
    }
    fn poll_side(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stats.records_out.store(self.emitted, Relaxed);
        self.late.as_mut().map_or(Poll::Ready(Ok(())), |late| late.poll_ready(cx))
    }
    fn sweep_side(&mut self) -> bool {
        self.late.as_mut().is_some_and(Output::sweep)
    }
}
