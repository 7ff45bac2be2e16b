//! Interval join: each left record with the right ones of its key that are of about its time,
//! `l.at + lower <= r.at <= l.at + upper`.
//!
//! Each record is looked up against what has come of the other side, and then kept for what is still to come of it; so
//! each pair is found once, by whichever comes second. It bears the later one's time.
//!
//! **State.** Event time is cut into slices at least as long as the interval. What is kept of a side in a slice is one
//! namespace, so a record touches one slice of its own side and at most two of the other. A slice goes as a whole, once
//! the watermark has passed all that its records can match. In it a key's records lie in the order of their times: a hot
//! key's are searched, not gone through.
//!
//! **Outer kinds.** A record has no match once nothing that comes can be one: then its row is made, with the record's own
//! time. The hard case is that this time has passed by then, by as much as the interval is long, and the row would be
//! late for any window behind the join. So an outer join *holds back* the watermark that it passes on, by the interval
//! and a slice; an inner one passes it on as it is.
//!
//! **Late records.** One at or before the watermark is not joined, even where some of what it could match is still there:
//! else how much of it depended on when slices go. It is counted, and goes to the late stream.
use serde::{Deserialize, Serialize};
use std::{
    marker::PhantomData,
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use super::{
    super::{
        connected::Either,
        event_time::{EventTime, Late},
        keyed::{KeyedOperator, KeyedSpec, Visit},
    },
    Few, Rows,
};
use crate::{
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Control, Keyed, Output},
    runtime::build::Build,
    state::{hash::Key, keyed::KeyedState, table::Value},
    time::{MAX, MIN, Timestamp, Window},
};
use tidegate_checkpoint::error::Result;

/// A slice is not shorter, so that a narrow interval does not make a namespace of each millisecond.
const SLICE_MIN_MS: i64 = 1_000;
/// Nor so short that an interval that is far away would be more slices than this.
const SLICES_MAX: i64 = 8;

/// From where to where the right record's time may be from the left one's; and how long a slice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    lower: i64,
    upper: i64,
    width: i64,
}

impl Bounds {
    /// Both in milliseconds, and both included.
    pub fn new(lower: i64, upper: i64) -> Self {
        let span = upper.saturating_sub(lower).saturating_add(1);
        let far = lower.saturating_abs().max(upper.saturating_abs());
        Self { lower, upper, width: span.max(far / SLICES_MAX).max(SLICE_MIN_MS) }
    }

    /// The same, seen from the other side.
    fn turned(self) -> Self {
        Self { lower: self.upper.saturating_neg(), upper: self.lower.saturating_neg(), ..self }
    }

    /// First and last time of what a record of this time matches; `None`: nothing has such a time.
    #[inline(always)]
    fn reach(self, at: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let from = i128::from(at) + i128::from(self.lower);
        let to = i128::from(at) + i128::from(self.upper);
        let (from, to) = (from.max(i128::from(MIN)), to.min(i128::from(MAX)));
        Some((i64::try_from(from).ok()?, i64::try_from(to).ok()?)).filter(|(from, to)| from <= to)
    }

    #[inline(always)]
    fn slice(self, at: Timestamp) -> i64 {
        at.div_euclid(self.width)
    }

    /// The last millisecond of a slice.
    fn last(self, slice: i64) -> Timestamp {
        slice.checked_add(1).and_then(|next| next.checked_mul(self.width)).map_or(MAX, |next| next - 1)
    }

    /// With this watermark nothing is to come any more that could match a record of that time.
    #[inline(always)]
    fn until(self, at: Timestamp) -> Timestamp {
        at.saturating_add(self.upper)
    }

    /// How far behind the watermark a record of a slice that goes may be.
    fn behind(self) -> i64 {
        self.upper.saturating_add(self.width - 1).max(0)
    }
}

/// A record that is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell<T> {
    at: Timestamp,
    /// Only where its kind of join asks for it.
    matched: bool,
    record: T,
}

/// What is kept of one side, for a key in a slice.
pub type Slice<L, R> = Either<Few<Cell<L>>, Few<Cell<R>>>;

/// One of the two sides, as seen from itself.
trait Half<L, R>: 'static {
    const NUMBER: i64;
    type Record;
    type Other: Half<L, R>;
    fn none() -> Slice<L, R>;
    fn cells(slice: &Slice<L, R>) -> &[Cell<Self::Record>];
    fn few(slice: &mut Slice<L, R>) -> Option<&mut Few<Cell<Self::Record>>>;
    fn bounds(bounds: Bounds) -> Bounds;
    fn is_outer<K, F: Rows<K, L, R>>() -> bool;
    fn row<K, F: Rows<K, L, R>>(
        rows: &F,
        key: &K,
        own: &Self::Record,
        other: Option<&RecordOf<L, R, Self::Other>>,
    ) -> Option<F::Out>;
}
type RecordOf<L, R, H> = <H as Half<L, R>>::Record;

enum Lefts {}
enum Rights {}

/// An interval join has no windows.
const NONE: Window = Window { start: MIN, end: MIN };

impl<L: 'static, R: 'static> Half<L, R> for Lefts {
    const NUMBER: i64 = 0;
    type Record = L;
    type Other = Rights;
    fn none() -> Slice<L, R> {
        Either::Left(Few::None)
    }
    #[inline(always)]
    fn cells(slice: &Slice<L, R>) -> &[Cell<L>] {
        if let Either::Left(cells) = slice { cells.as_slice() } else { &[] }
    }
    fn few(slice: &mut Slice<L, R>) -> Option<&mut Few<Cell<L>>> {
        if let Either::Left(cells) = slice { Some(cells) } else { None }
    }
    fn bounds(bounds: Bounds) -> Bounds {
        bounds
    }
    fn is_outer<K, F: Rows<K, L, R>>() -> bool {
        F::LEFT
    }
    fn row<K, F: Rows<K, L, R>>(rows: &F, key: &K, own: &L, other: Option<&R>) -> Option<F::Out> {
        rows.row(key, NONE, Some(own), other)
    }
}

impl<L: 'static, R: 'static> Half<L, R> for Rights {
    const NUMBER: i64 = 1;
    type Record = R;
    type Other = Lefts;
    fn none() -> Slice<L, R> {
        Either::Right(Few::None)
    }
    #[inline(always)]
    fn cells(slice: &Slice<L, R>) -> &[Cell<R>] {
        if let Either::Right(cells) = slice { cells.as_slice() } else { &[] }
    }
    fn few(slice: &mut Slice<L, R>) -> Option<&mut Few<Cell<R>>> {
        if let Either::Right(cells) = slice { Some(cells) } else { None }
    }
    fn bounds(bounds: Bounds) -> Bounds {
        bounds.turned()
    }
    fn is_outer<K, F: Rows<K, L, R>>() -> bool {
        F::RIGHT
    }
    fn row<K, F: Rows<K, L, R>>(rows: &F, key: &K, own: &R, other: Option<&L>) -> Option<F::Out> {
        rows.row(key, NONE, other, Some(own))
    }
}

/// Those of these times, of cells in their order.
#[inline(always)]
fn within<T>(cells: &[Cell<T>], (from, to): (Timestamp, Timestamp)) -> Range<usize> {
    let start = cells.partition_point(|cell| cell.at < from);
    start..start + cells.get(start..).unwrap_or_default().partition_point(|cell| cell.at <= to)
}

/// What an interval join is made of.
#[derive(Clone, Debug)]
pub struct IntervalSpec<F> {
    pub(crate) bounds: Bounds,
    pub(crate) late: Option<NodeId>,
    pub(crate) rows: F,
}

impl<K, L, R, F> KeyedSpec<K, Either<L, R>> for IntervalSpec<F>
where
    K: Key,
    L: Value + Clone,
    R: Value + Clone,
    F: Rows<K, L, R>,
{
    type Operator = IntervalOperator<K, L, R, F>;
    fn operator(&self, build: &mut Build<'_>, node: NodeId) -> Self::Operator {
        IntervalOperator {
            bounds: self.bounds,
            rows: self.rows.clone(),
            late: Late::new(build, node, self.late),
            time: EventTime::default(),
            stats: build.stats(node),
            emitted: 0,
            key: PhantomData,
        }
    }
}

/// The operator in one subtask.
pub struct IntervalOperator<K, L, R, F> {
    bounds: Bounds,
    rows: F,
    late: Late<Either<L, R>>,
    time: EventTime,
    stats: Arc<OperatorStats>,
    emitted: u64,
    key: PhantomData<fn() -> K>,
}

/// What the records of a side are kept under.
#[inline(always)]
fn namespace(slice: i64, side: i64) -> i64 {
    slice * 2 + side
}

impl<K: Key, L: Value + Clone, R: Value + Clone, F: Rows<K, L, R>> IntervalOperator<K, L, R, F> {
    /// Joins a record with what there is of the other side, and keeps it if more may come.
    #[inline(always)]
    fn meet<H: Half<L, R>, O: Output<F::Out>>(
        &mut self,
        state: &mut KeyedState<K, Slice<L, R>>,
        (hash, key, at, watermark): (u64, &K, Timestamp, Timestamp),
        record: H::Record,
        out: &mut O,
    ) -> Result<()> {
        let bounds = H::bounds(self.bounds);
        let mut matched = false;
        if let Some(reach) = bounds.reach(at) {
            for slice in bounds.slice(reach.0)..=bounds.slice(reach.1) {
                let namespace = namespace(slice, H::Other::NUMBER);
                let Some(others) = state.get(namespace, hash, key) else { continue };
                let others = H::Other::cells(others);
                let range = within(others, reach);
                for other in &others[range.clone()] {
                    if let Some(row) = H::row(&self.rows, key, &record, Some(&other.record)) {
                        self.emitted += 1;
                        out.record(row, at.max(other.at));
                    }
                }
                matched |= !range.is_empty();
                if H::Other::is_outer::<K, F>() && others[range.clone()].iter().any(|other| !other.matched) {
                    state.update(namespace, hash, key, H::Other::none, |slice| {
                        let cells = H::Other::few(slice).map(Few::as_mut_slice).unwrap_or_default();
                        cells.get_mut(range).unwrap_or_default().iter_mut().for_each(|cell| cell.matched = true);
                    })?;
                }
            }
        }
        if bounds.until(at) > watermark {
            let namespace = namespace(bounds.slice(at), H::NUMBER);
            return state.update(namespace, hash, key, H::none, |slice| {
                if let Some(cells) = H::few(slice) {
                    let index = cells.as_slice().partition_point(|cell| cell.at <= at);
                    cells.insert(index, Cell { at, matched, record });
                }
            });
        }
        if !matched && H::is_outer::<K, F>() {
            self.alone::<H, O>(key, &record, at, out);
        }
        Ok(())
    }

    /// The row of a record that has no match.
    fn alone<H: Half<L, R>, O: Output<F::Out>>(&mut self, key: &K, record: &H::Record, at: Timestamp, out: &mut O) {
        if let Some(row) = H::row(&self.rows, key, record, None) {
            self.emitted += 1;
            out.record(row, at);
        }
    }

    fn unmatched<H: Half<L, R>, O: Output<F::Out>>(&mut self, key: &K, slice: &Slice<L, R>, out: &mut O) {
        for cell in H::cells(slice).iter().filter(|cell| !cell.matched) {
            self.alone::<H, O>(key, &cell.record, cell.at, out);
        }
    }

    fn need<H: Half<L, R>>(&self, at: Timestamp, need: &mut dyn FnMut(i64)) {
        let bounds = H::bounds(self.bounds);
        need(namespace(bounds.slice(at), H::NUMBER));
        if let Some((from, to)) = bounds.reach(at) {
            (bounds.slice(from)..=bounds.slice(to)).for_each(|slice| need(namespace(slice, H::Other::NUMBER)));
        }
    }
}

impl<K, L, R, F> KeyedOperator<K, Either<L, R>> for IntervalOperator<K, L, R, F>
where
    K: Key,
    L: Value + Clone,
    R: Value + Clone,
    F: Rows<K, L, R>,
{
    type Value = Slice<L, R>;
    type Out = F::Out;

    fn opened(&mut self, state: &KeyedState<K, Slice<L, R>>) {
        self.time = EventTime::opened(state);
    }

    fn process<O: Output<F::Out>>(
        &mut self,
        state: &mut KeyedState<K, Slice<L, R>>,
        records: &mut Vec<Keyed<K, Either<L, R>>>,
        out: &mut O,
    ) -> Result<()> {
        for Keyed { hash, key, record, at } in records.drain(..) {
            let watermark = self.time.of(state, hash);
            if at <= watermark {
                self.late.record(record, at);
                continue;
            }
            let of = (hash, &key, at, watermark);
            match record {
                Either::Left(record) => self.meet::<Lefts, O>(state, of, record, out)?,
                Either::Right(record) => self.meet::<Rights, O>(state, of, record, out)?,
            }
        }
        Ok(())
    }

    fn needs(&self, record: &Keyed<K, Either<L, R>>, need: &mut dyn FnMut(i64)) {
        match record.record {
            _ if record.at <= self.time.watermark() => {}
            Either::Left(_) => self.need::<Lefts>(record.at, need),
            Either::Right(_) => self.need::<Rights>(record.at, need),
        }
    }

    fn hold_back(&self) -> i64 {
        let left = if F::LEFT { self.bounds.behind() } else { 0 };
        let right = if F::RIGHT { self.bounds.turned().behind() } else { 0 };
        left.max(right)
    }

    fn advance(&mut self, state: &mut KeyedState<K, Slice<L, R>>, watermark: Timestamp) -> Vec<Visit> {
        self.time.advance(state, watermark);
        let mut visits = Vec::new();
        for namespace in state.namespaces() {
            let (slice, is_left) = (namespace.div_euclid(2), namespace.rem_euclid(2) == 0);
            let (bounds, is_outer) = if is_left { (self.bounds, F::LEFT) } else { (self.bounds.turned(), F::RIGHT) };
            if bounds.until(bounds.last(slice)) <= self.time.watermark() {
                visits.extend(is_outer.then(|| Visit::Fire(namespace, vec![namespace])));
                visits.push(Visit::Discard(namespace));
            }
        }
        visits
    }

    fn fire<O: Output<F::Out>>(
        &mut self,
        _: &KeyedState<K, Slice<L, R>>,
        _: i64,
        (key, slice): (&K, &Slice<L, R>),
        out: &mut O,
    ) {
        match slice {
            Either::Left(_) => self.unmatched::<Lefts, O>(key, slice, out),
            Either::Right(_) => self.unmatched::<Rights, O>(key, slice, out),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_reach_as_far_as_time_does() {
        let all = Bounds::new(i64::MIN, i64::MAX);
        assert_eq!(all.reach(5), Some((MIN + 5, MAX)));
        assert_eq!(all.turned().reach(0).map(|(from, _)| from), Some(-MAX));
        assert_eq!((all.until(7), all.last(all.slice(7)), all.behind()), (MAX, MAX - 1, MAX));
        assert_eq!(Bounds::new(10, 20).reach(MAX - 5), None);
        assert_eq!(Bounds::new(-20, -10).reach(MIN + 15), Some((MIN, MIN + 5)));
        let narrow = Bounds::new(0, 0);
        assert_eq!((narrow.width, narrow.last(0), narrow.slice(-1), narrow.last(-1)), (1_000, 999, -1, -1));
        assert!(all.slice(MIN) >= i64::MIN / 2 && narrow.slice(MIN) >= i64::MIN / 2);
    }

    #[test]
    fn at_most_two_slices_are_probed() {
        for (lower, upper) in [(-5, 5), (0, 100_000), (-100_000, -99_000), (3, 3), (-40, 7_000)] {
            for bounds in [Bounds::new(lower, upper), Bounds::new(lower, upper).turned()] {
                for at in -20_000..20_000 {
                    let (from, to) = bounds.reach(at * 13).unwrap();
                    assert!(bounds.slice(to) - bounds.slice(from) <= 1);
                }
            }
        }
    }
}
