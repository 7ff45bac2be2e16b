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
//! The hard case, of which key group what has fired after another parallelism, is that of all windows: see `event_time`.
use std::{
    marker::PhantomData,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use super::{
    super::{
        connected::Either,
        event_time::{EventTime, Late},
        keyed::{KeyedOperator, KeyedSpec, Visit},
        window::{Current, Tumbling},
    },
    Rows, Sides,
    sides::each_row,
};
use crate::{
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Control, Keyed, Output},
    runtime::build::Build,
    state::{hash::Key, keyed::KeyedState, table::Value},
    time::{Timestamp, Window},
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
            rows: self.rows.clone(),
            late: Late::new(build, node, self.late),
            time: EventTime::default(),
            current: Current::new(self.windows, self.lateness_ms),
            stats: build.stats(node),
            emitted: 0,
            key: PhantomData,
        }
    }
}

/// The operator in one subtask.
pub struct WindowJoinOperator<K, L, R, F> {
    rows: F,
    late: Late<Either<L, R>>,
    time: EventTime,
    current: Current,
    stats: Arc<OperatorStats>,
    emitted: u64,
    key: PhantomData<fn() -> K>,
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
        self.time = EventTime::opened(state);
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
            if (!self.current.window.contains(next.at) || self.time.is_uneven())
                && !self.current.enter(next.at, self.time.of(state, next.hash))
            {
                if let Some(Keyed { record, at, .. }) = records.next() {
                    self.late.record(record, at);
                }
                continue;
            }
            let Current { window, fired, .. } = self.current;
            let only = self.time.only(next.hash);
            let fits =
                |next: &Keyed<K, Either<L, R>>| window.contains(next.at) && only.is_none_or(|hash| hash == next.hash);
            let mut emit = Emit { rows: &self.rows, window, emitted: &mut self.emitted, out: &mut *out };
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
        self.current.needs(record.at, self.time.watermark()).into_iter().for_each(need);
    }

    fn advance(&mut self, state: &mut KeyedState<K, Sides<L, R>>, watermark: Timestamp) -> Vec<Visit> {
        let before = self.time.advance(state, watermark);
        self.current.advance(state.namespaces(), before, watermark)
    }

    fn fire<O: Output<F::Out>>(
        &mut self,
        state: &KeyedState<K, Sides<L, R>>,
        start: Timestamp,
        (key, sides): (&K, &Sides<L, R>),
        out: &mut O,
    ) {
        let window = self.current.from(start);
        if self.time.has_passed(state, key, window.end - 1) {
            return;
        }
        let mut emit = Emit { rows: &self.rows, window, emitted: &mut self.emitted, out };
        emit.rows(key, sides.left.as_slice(), sides.right.as_slice());
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
