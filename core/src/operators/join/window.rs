//! Window join: all pairs of records of one key in one window. They are made when the watermark passes the window's end,
//! as the results of a window's aggregation are, and with the same time.
//!
//! What is kept is both sides of each open window: one namespace a window, one entry a key.
//!
//! **Late records.** Within the allowed lateness a record makes the pairs that it makes with what has come before it, at
//! once, and no others: those have been made. What has been made is not taken back. So of an outer kind's rows those
//! without a match say what was so at the window's end: a late record's matches come besides them. What is later goes to
//! the late stream.
//!
//! The hard case, of which key group what has fired after another parallelism, is that of all windows: see
//! [`window`](crate::operators::window).
use std::{
    marker::PhantomData,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use super::{
    super::{
        connected::Either,
        keyed::{KeyedOperator, KeyedSpec, Visit},
        side::SidePort,
        window::Tumbling,
    },
    Rows, Sides,
    sides::each_row,
};
use crate::{
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Control, Keyed, Output},
    runtime::build::Build,
    state::{
        hash::{Key, hash_key},
        keyed::KeyedState,
        table::Value,
    },
    time::{MAX, MIN, Timestamp, Window},
};
use tidegate_checkpoint::error::Result;

/// What a window join is made of.
#[derive(Clone, Debug)]
pub struct WindowJoinSpec<F> {
    pub(crate) windows: Tumbling,
    pub(crate) lateness_ms: i64,
    pub(crate) late: Option<NodeId>,
    pub(crate) rows: F,
}

impl<K, L, R, F> KeyedSpec<K, Either<L, R>> for WindowJoinSpec<F>
where
    K: Key,
    L: Value + Clone,
    R: Value + Clone,
    F: Rows<K, L, R>,
{
    type Operator = WindowJoinOperator<K, L, R, F>;
    fn operator(&self, build: &mut Build<'_>, node: NodeId) -> Self::Operator {
        WindowJoinOperator {
            spec: self.clone(),
            late: self.late.map(|late| build.port(late)),
            watermark: MIN,
            ahead: None,
            current: NO_WINDOW,
            fired: false,
            stats: build.stats(node),
            emitted: 0,
            key: PhantomData,
        }
    }
}

/// The operator in one subtask.
pub struct WindowJoinOperator<K, L, R, F> {
    spec: WindowJoinSpec<F>,
    late: Option<SidePort<Either<L, R>>>,
    watermark: Timestamp,
    /// See `window`.
    ahead: Option<Timestamp>,
    /// The window of the last record, as long as the watermark stands; and whether it has fired before.
    current: Window,
    fired: bool,
    stats: Arc<OperatorStats>,
    emitted: u64,
    key: PhantomData<fn() -> K>,
}

/// The window that nothing is in.
const NO_WINDOW: Window = Window { start: MAX, end: MIN };

impl<K: Key, L: Value + Clone, R: Value + Clone, F: Rows<K, L, R>> WindowJoinOperator<K, L, R, F> {
    /// Makes the window of a timestamp the current one; false when it is late.
    #[cold]
    fn enter(&mut self, at: Timestamp, watermark: Timestamp) -> bool {
        let Some(window) = self.spec.windows.window(at) else { return false };
        let open = (window.end - 1).saturating_add(self.spec.lateness_ms) > watermark;
        if open {
            (self.current, self.fired) = (window, window.end - 1 <= watermark);
        }
        open
    }

    #[cold]
    fn late(&mut self, record: Either<L, R>, at: Timestamp) {
        OperatorStats::add(&self.stats.late, 1);
        if let Some(late) = &mut self.late {
            late.record(record, at);
        }
    }
}

/// Makes rows, and counts them.
struct Emit<'a, F, O> {
    rows: &'a F,
    window: Window,
    emitted: &'a mut u64,
    out: &'a mut O,
}

impl<F, O> Emit<'_, F, O> {
    #[inline(always)]
    fn row<K, L, R>(&mut self, key: &K, left: Option<&L>, right: Option<&R>)
    where
        F: Rows<K, L, R>,
        O: Output<F::Out>,
    {
        if let Some(row) = self.rows.row(key, self.window, left, right) {
            *self.emitted += 1;
            self.out.record(row, self.window.end - 1);
        }
    }

    /// All rows of these.
    #[inline(always)]
    fn rows<K, L, R>(&mut self, key: &K, left: &[L], right: &[R])
    where
        F: Rows<K, L, R>,
        O: Output<F::Out>,
    {
        each_row::<K, L, R, F>(left, right, |left, right| self.row(key, left, right));
    }
}

impl<K, L, R, F> KeyedOperator<K, Either<L, R>> for WindowJoinOperator<K, L, R, F>
where
    K: Key,
    L: Value + Clone,
    R: Value + Clone,
    F: Rows<K, L, R>,
{
    type Value = Sides<L, R>;
    type Out = F::Out;

    fn opened(&mut self, state: &KeyedState<K, Sides<L, R>>) {
        self.watermark = state.watermark().unwrap_or(MIN);
        self.ahead = state.newest_restored_watermark().filter(|newest| *newest > self.watermark);
    }

    #[inline(always)]
    fn process<O: Output<F::Out>>(
        &mut self,
        state: &mut KeyedState<K, Sides<L, R>>,
        records: &mut Vec<Keyed<K, Either<L, R>>>,
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
            let (window, fired) = (self.current, self.fired);
            // Of the same hash is of the same key group.
            let only = self.ahead.map(|_| next.hash);
            let fits =
                |next: &Keyed<K, Either<L, R>>| window.contains(next.at) && only.is_none_or(|hash| hash == next.hash);
            let mut emit = Emit { rows: &self.spec.rows, window, emitted: &mut self.emitted, out: &mut *out };
            state.update_while(
                window.start,
                &mut records,
                fits,
                Sides::none,
                |Sides { left, right }, Keyed { key, record, .. }| match record {
                    Either::Left(record) => {
                        if fired {
                            emit.rows(&key, std::slice::from_ref(&record), right.as_slice());
                        }
                        left.push(record);
                    }
                    Either::Right(record) => {
                        if fired {
                            emit.rows(&key, left.as_slice(), std::slice::from_ref(&record));
                        }
                        right.push(record);
                    }
                },
            )?;
        }
        Ok(())
    }

    fn needs(&self, record: &Keyed<K, Either<L, R>>, need: &mut dyn FnMut(i64)) {
        let Some(window) = self.spec.windows.window(record.at) else { return };
        if (window.end - 1).saturating_add(self.spec.lateness_ms) > self.watermark {
            need(window.start);
        }
    }

    fn advance(&mut self, state: &mut KeyedState<K, Sides<L, R>>, watermark: Timestamp) -> Vec<Visit> {
        let before = self.watermark;
        self.watermark = watermark.max(before);
        self.current = NO_WINDOW;
        // The end of the input is not saved: the job may be started again with more of it.
        if self.watermark < MAX {
            state.save_watermark(self.watermark);
        }
        let last = |start: Timestamp| self.spec.windows.window(start).map_or(MAX, |window| window.end - 1);
        let mut visits = Vec::new();
        for start in state.namespaces() {
            if last(start) > before && last(start) <= watermark {
                visits.push(Visit::Fire(start, vec![start]));
            }
            if last(start).saturating_add(self.spec.lateness_ms) <= watermark {
                visits.push(Visit::Discard(start));
            }
        }
        visits
    }

    fn fire<O: Output<F::Out>>(
        &mut self,
        state: &KeyedState<K, Sides<L, R>>,
        start: Timestamp,
        (key, sides): (&K, &Sides<L, R>),
        out: &mut O,
    ) {
        let Some(window) = self.spec.windows.window(start) else { return };
        if self.ahead.is_some() && state.restored_watermark(hash_key(key)) >= Some(window.end - 1) {
            return;
        }
        let mut emit = Emit { rows: &self.spec.rows, window, emitted: &mut self.emitted, out };
        emit.rows(key, sides.left.as_slice(), sides.right.as_slice());
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
