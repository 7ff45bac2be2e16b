//! Hopping windows: of one length, each so much behind the one before, and so overlapping.
//!
//! Time is cut into *slices*, of the length of which both the windows' size and their hop are multiples. A record is added
//! to one slice of its key, once, in however many windows it is. When a window fires, the slices of each key that are in
//! it are merged: they lie one behind the other in the key's entry. (Flink's table runtime shares slices too; there each
//! is an entry of its own, and the windows are put together by as many look-ups.)
//!
//! The hard case is what is over. Slices that no window needs any more go when the key is next changed; a key that nobody
//! changes is seen when a window fires, has nothing in it that is needed, and is removed.
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use tidegate_checkpoint::error::{Error, Result};

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
    state::{
        hash::{Key, hash_key},
        keyed::KeyedState,
    },
    time::{MAX, MIN, Timestamp, Window, millis},
};

/// Windows of one length that begin one hop behind the other, aligned to 1970-01-01 UTC. The hop need not divide the
/// length. With a hop longer than them there is time that is in no window; its records are counted as skipped.
///
/// As Flink's sliding windows.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::{Hopping, Stream, Windowed};
/// fn per_minute(clicks: impl Stream<Item = u64>) -> impl Stream<Item = Windowed<u64, u64>> {
///     let minute = Hopping::of(Duration::from_secs(60), Duration::from_secs(10));
///     clicks.key_by(|user| *user).window("per-minute", minute).count()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hopping {
    size_ms: i64,
    hop_ms: i64,
    offset_ms: i64,
}

impl Hopping {
    /// Windows of a size, of which one begins with every hop.
    pub fn of(size: Duration, hop: Duration) -> Self {
        Self { size_ms: millis(size), hop_ms: millis(hop), offset_ms: 0 }
    }

    /// Begins them so long behind the hour, the day or whatever the hop is.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset_ms = millis(offset);
        self
    }

    fn slice_ms(&self) -> i64 {
        gcd(self.size_ms, self.hop_ms)
    }

    /// The slice of a timestamp; `None` at the ends of time.
    fn slice(&self, at: Timestamp) -> Option<Window> {
        let start = at.checked_sub(at.checked_sub(self.offset_ms)?.checked_rem_euclid(self.slice_ms())?)?;
        // All windows that it could be in are within time.
        start.checked_sub(self.size_ms)?.checked_sub(self.hop_ms)?;
        start.checked_add(self.size_ms)?.checked_add(self.hop_ms)?;
        Some(Window { start, end: start + self.slice_ms() })
    }

    /// The first start of a window that is not before `at`.
    fn start_from(&self, at: Timestamp) -> Timestamp {
        at.saturating_add((self.offset_ms.wrapping_sub(at)).rem_euclid(self.hop_ms))
    }

    /// The last window that a slice is in, if it is in any.
    fn last(&self, slice: Timestamp) -> Option<Window> {
        let start = slice - (slice - self.offset_ms).rem_euclid(self.hop_ms);
        (slice < start + self.size_ms).then(|| self.from(start))
    }

    fn from(&self, start: Timestamp) -> Window {
        Window { start, end: start.saturating_add(self.size_ms) }
    }

    /// The windows that a timestamp is in, from the last.
    pub(super) fn windows(&self, at: Timestamp) -> impl Iterator<Item = Window> + use<> {
        let this = *self;
        let last = self.slice(at).and_then(|slice| this.last(slice.start));
        let before = move |w: &Window| Some(this.from(w.start - this.hop_ms)).filter(|w| at < w.end);
        std::iter::successors(last, before)
    }
}

pub(super) fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl<T: Clone + Send + 'static> Windows<T> for Hopping {
    type Spec<K: Key, A: Aggregate<T>> = HoppingSpec<A>;
    fn spec<K: Key, A: Aggregate<T>>(self, common: Common<A>) -> HoppingSpec<A> {
        HoppingSpec { windows: self, common }
    }
    fn describe(&self) -> String {
        format!("hopping {} every {}", shown(self.size_ms), shown(self.hop_ms))
    }
    fn mistake(&self, name: &str) -> Option<Error> {
        let what = if self.size_ms <= 0 { "length" } else { "hop" };
        (self.size_ms <= 0 || self.hop_ms <= 0).then(|| no_length(name, what))
    }
}

/// What the operator is made of.
#[derive(Clone, Debug)]
pub struct HoppingSpec<A> {
    windows: Hopping,
    common: Common<A>,
}

impl<K: Key, T: Clone + Send + 'static, A: Aggregate<T>> KeyedSpec<K, T> for HoppingSpec<A> {
    type Operator = HoppingOperator<K, T, A>;
    fn operator(&self, build: &mut Build<'_>, node: NodeId) -> Self::Operator {
        HoppingOperator {
            spec: self.clone(),
            late: Late::new(build, node, self.common.late),
            time: EventTime::default(),
            slice: NO_SLICE,
            filled: BTreeSet::new(),
            unknown_from: None,
            over: Vec::new(),
            stats: build.stats(node),
            emitted: 0,
        }
    }
}

/// Where all entries are.
const NAMESPACE: i64 = 0;
/// Nobody's window: entries are gone through to see which slices there are.
const LOOK: i64 = MAX;
/// The slice that nothing is in.
const NO_SLICE: Slice = Slice { window: Window { start: MAX, end: MIN }, fired: None };

/// The slices of a key that have anything in them, in their order: where each begins, and what is in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Slices<S>(Vec<(Timestamp, S)>);

impl<S> Slices<S> {
    /// What is in a slice, made by `init` if there is none.
    #[inline(always)]
    fn at(&mut self, start: Timestamp, init: impl FnOnce() -> S) -> Option<&mut S> {
        let place = match self.0.last() {
            Some((last, _)) if *last == start => self.0.len() - 1,
            Some((last, _)) if *last > start => match self.0.binary_search_by_key(&start, |slice| slice.0) {
                Ok(place) => place,
                Err(place) => {
                    self.0.insert(place, (start, init()));
                    place
                }
            },
            _ => {
                self.0.push((start, init()));
                self.0.len() - 1
            }
        };
        self.0.get_mut(place).map(|slice| &mut slice.1)
    }

    /// What is in a window, merged; `None`: nothing.
    #[inline(always)]
    fn merged<T, A: Aggregate<T, State = S>>(&self, window: Window, aggregate: &A) -> Option<S> {
        let mut within = self.0.iter().filter(|slice| window.contains(slice.0)).peekable();
        within.peek()?;
        let mut merged = aggregate.init();
        within.for_each(|slice| aggregate.merge(&mut merged, &slice.1));
        Some(merged)
    }
}

/// The slice of the last record, as long as the watermark stands.
#[derive(Clone, Copy)]
struct Slice {
    window: Window,
    /// The last of its windows that has fired, if any has.
    fired: Option<Window>,
}

/// The operator in one subtask.
pub struct HoppingOperator<K, T, A> {
    spec: HoppingSpec<A>,
    late: Late<T>,
    time: EventTime,
    slice: Slice,
    /// Slices in which any key has something.
    filled: BTreeSet<Timestamp>,
    /// They are not known: it has been restored, and its entries have not been gone through. The watermark until then.
    unknown_from: Option<Timestamp>,
    /// Keys that have nothing that is needed any more.
    over: Vec<(u64, K)>,
    stats: Arc<OperatorStats>,
    emitted: u64,
}

impl<K: Key, T: Clone + Send + 'static, A: Aggregate<T>> HoppingOperator<K, T, A> {
    fn is_open(&self, window: Window, watermark: Timestamp) -> bool {
        (window.end - 1).saturating_add(self.spec.common.lateness_ms) > watermark
    }

    /// Whether anything may still be wanted of a slice.
    fn is_needed(&self, slice: Timestamp) -> bool {
        self.spec.windows.last(slice).is_some_and(|last| self.is_open(last, self.time.watermark()))
    }

    /// The windows that have anything in them and whose end the watermark has passed since it was `before`, from the
    /// first. What no window needs any more is forgotten.
    fn fires(&mut self, before: Timestamp) -> Vec<Visit> {
        let windows = self.spec.windows;
        let mut visits = Vec::new();
        let mut start = before.checked_sub(windows.size_ms - 1).map_or(MIN, |last| windows.start_from(last + 1));
        while let Some(slice) = self.filled.range(start..).next().copied() {
            // The first window that it is in, or the one after the last.
            start = start.max(windows.start_from(slice - windows.size_ms + 1));
            if windows.from(start).end - 1 > self.time.watermark() {
                break;
            }
            visits.push(Visit::Fire(start, vec![NAMESPACE]));
            start += windows.hop_ms;
        }
        while let Some(first) = self.filled.first().copied().filter(|first| !self.is_needed(*first)) {
            self.filled.remove(&first);
        }
        visits
    }

    /// Makes the slice of a timestamp the current one; false when there is none for it.
    #[cold]
    fn enter(&mut self, next: &Keyed<K, T>, watermark: Timestamp) -> bool {
        let windows = self.spec.windows;
        let Some(slice) = windows.slice(next.at) else {
            OperatorStats::add(&self.stats.late, 1);
            return false;
        };
        let Some(last) = windows.last(slice.start) else {
            OperatorStats::add(&self.stats.skipped, 1);
            return false;
        };
        if !self.is_open(last, watermark) {
            self.late.record(next.record.clone(), next.at);
            return false;
        }
        let fired = windows.windows(next.at).find(|window| window.end - 1 <= watermark);
        self.slice = Slice { window: slice, fired };
        self.filled.insert(slice.start);
        true
    }
}

impl<K: Key, T: Clone + Send + 'static, A: Aggregate<T>> KeyedOperator<K, T> for HoppingOperator<K, T, A> {
    type Value = Slices<A::State>;
    type Out = Windowed<K, A::Output>;
    const IS_VACANT: Option<fn(&Self::Value) -> bool> = Some(|slices| slices.0.is_empty());

    fn opened(&mut self, state: &KeyedState<K, Self::Value>) {
        self.time = EventTime::opened(state);
        self.unknown_from = (!state.namespaces().is_empty()).then_some(self.time.watermark());
    }

    fn process<O: Output<Self::Out>>(
        &mut self,
        state: &mut KeyedState<K, Self::Value>,
        records: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) -> Result<()> {
        let mut records = records.drain(..);
        while let Some(next) = records.as_slice().first() {
            let watermark = self.time.of(state, next.hash);
            if (!self.slice.window.contains(next.at) || self.time.is_uneven()) && !self.enter(next, watermark) {
                records.next();
                continue;
            }
            let (Slice { window: slice, fired }, only) = (self.slice, self.time.only(next.hash));
            let (windows, lateness_ms) = (self.spec.windows, self.spec.common.lateness_ms);
            let (aggregate, emitted) = (&self.spec.common.aggregate, &mut self.emitted);
            let fits = |next: &Keyed<K, T>| slice.contains(next.at) && only.is_none_or(|hash| hash == next.hash);
            // What is before this is in no open window.
            let needed = watermark.saturating_sub(lateness_ms).saturating_sub(windows.size_ms);
            state.update_while(
                NAMESPACE,
                &mut records,
                fits,
                || Slices(Vec::new()),
                |slices, next| {
                    if slices.0.first().is_some_and(|first| first.0 < needed) {
                        slices.0.retain(|slice| slice.0 >= needed);
                    }
                    if let Some(value) = slices.at(slice.start, || aggregate.init()) {
                        aggregate.add(value, next.record);
                    }
                    if fired.is_none() {
                        return;
                    }
                    let fired = windows.windows(next.at).filter(|window| window.end - 1 <= watermark);
                    for window in fired.take_while(|w| (w.end - 1).saturating_add(lateness_ms) > watermark) {
                        if let Some(merged) = slices.merged(window, aggregate) {
                            let (key, value) = (next.key.clone(), aggregate.finish(&merged));
                            *emitted += 1;
                            out.record(Windowed { key, window, value, firing: Firing::Late }, window.end - 1);
                        }
                    }
                },
            )?;
        }
        Ok(())
    }

    fn needs(&self, _: &Keyed<K, T>, need: &mut dyn FnMut(i64)) {
        need(NAMESPACE);
    }

    fn advance(&mut self, state: &mut KeyedState<K, Self::Value>, watermark: Timestamp) -> Vec<Visit> {
        let before = self.time.advance(state, watermark);
        self.slice = NO_SLICE;
        if self.unknown_from.is_some() { vec![Visit::Fire(LOOK, vec![NAMESPACE])] } else { self.fires(before) }
    }

    fn fire<O: Output<Self::Out>>(
        &mut self,
        state: &KeyedState<K, Self::Value>,
        start: i64,
        (key, slices): (&K, &Self::Value),
        out: &mut O,
    ) {
        if start == LOOK {
            return self.filled.extend(slices.0.iter().map(|slice| slice.0));
        }
        let window = self.spec.windows.from(start);
        if slices.0.last().is_none_or(|last| last.0 < start) {
            if slices.0.last().is_none_or(|last| !self.is_needed(last.0)) {
                self.over.push((hash_key(key), key.clone()));
            }
            return;
        }
        if self.time.has_passed(state, key, window.end - 1) {
            return;
        }
        if let Some(merged) = slices.merged(window, &self.spec.common.aggregate) {
            self.emitted += 1;
            let value = self.spec.common.aggregate.finish(&merged);
            out.record(Windowed { key: key.clone(), window, value, firing: Firing::OnTime }, window.end - 1);
        }
    }

    fn wants(&self, want: &mut dyn FnMut(i64, u64, &K)) {
        self.over.iter().for_each(|(hash, key)| want(NAMESPACE, *hash, key));
    }

    fn due<O: Output<Self::Out>>(&mut self, state: &mut KeyedState<K, Self::Value>, _: &mut O) -> Result<bool> {
        for (hash, key) in std::mem::take(&mut self.over) {
            state.update(NAMESPACE, hash, &key, || Slices(Vec::new()), |slices| slices.0.clear())?;
        }
        Ok(false)
    }

    fn advanced(&mut self) -> Vec<Visit> {
        if let Some(before) = self.unknown_from.take() {
            return self.fires(before);
        }
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
