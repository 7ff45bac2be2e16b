//! Temporal (as-of) join: each left record with the right one, a *version*, that was in force at its time: the newest of
//! its key with `version.at <= left.at`.
//!
//! A left record waits until the watermark has reached its time: then all versions up to it have come. A version is in
//! force until the next one of its key. Once the watermark has reached that next one's time nobody can ask for the older
//! one any more, and it goes: of each key the newest version stays, and what is still in the future.
//!
//! It is a process function with a timer at the time of each record that has come, left or right. The timers of a key
//! fire in the order of time: so when the one at a version's time fires, all left records before it have had their
//! answer.
//!
//! **Time to live.** A key is over when no record of it, left or right, has a time that is as near as that before the
//! watermark. This is told by the timers, in the order of time, and not by when a record comes: so what is joined does not
//! depend on how far the two streams were apart.
//!
//! **Late records.** A left record at or before the watermark is not joined: the version of its time may be gone. It is
//! counted, and goes to the late stream. A version that is late is taken, as if it had come in time: a table must not lose
//! a row. Left records that have had their answer do not get another one. Of two versions of one time the one that came
//! last counts.
use serde::{Deserialize, Serialize};

use super::{
    super::process::{Context, OutputTag, Timer},
    Few, Rows,
};
use crate::{
    api::process::CoProcessFunction,
    state::{hash::Key, table::Value},
    time::{MAX, MIN, Timestamp, Window},
};

/// What is kept of a key, each side in the order of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History<L, R> {
    waiting: Few<(Timestamp, L)>,
    versions: Few<(Timestamp, R)>,
    /// With a time to live: the newest time of a record, among those that the watermark has reached.
    used: Timestamp,
    /// When that is looked at; `MAX`: never.
    expires: Timestamp,
}

impl<L, R> Default for History<L, R> {
    fn default() -> Self {
        Self { waiting: Few::None, versions: Few::None, used: MIN, expires: MAX }
    }
}

/// The join as a function over two streams.
#[derive(Clone, Debug)]
pub struct AsOf<L, F> {
    pub(crate) rows: F,
    pub(crate) late: OutputTag<L>,
    pub(crate) time_to_live_ms: Option<i64>,
}

/// It has no windows.
const NONE: Window = Window { start: MIN, end: MIN };

impl<K, L, R, F> CoProcessFunction<K, L, R> for AsOf<L, F>
where
    K: Key,
    L: Value + Clone + Sync,
    R: Value,
    F: Rows<K, L, R>,
{
    type State = History<L, R>;
    type Output = F::Out;

    fn left(&mut self, record: L, state: &mut History<L, R>, ctx: &mut Context<'_, K, F::Out>) {
        let at = ctx.timestamp();
        if at <= ctx.watermark() {
            ctx.is_late();
            ctx.side(&self.late, record);
            if state.waiting.is_empty() && state.versions.is_empty() {
                ctx.clear();
            }
            return;
        }
        let index = state.waiting.as_slice().partition_point(|(other, _)| *other <= at);
        state.waiting.insert(index, (at, record));
        ctx.set_timer(at);
    }

    fn right(&mut self, record: R, state: &mut History<L, R>, ctx: &mut Context<'_, K, F::Out>) {
        let at = ctx.timestamp();
        let index = state.versions.as_slice().partition_point(|(other, _)| *other <= at);
        state.versions.insert(index, (at, record));
        if at > ctx.watermark() {
            ctx.set_timer(at);
        } else {
            state.forget(ctx.watermark());
            self.used(at, state, ctx);
        }
    }

    fn on_timer(&mut self, _: Timer, state: &mut History<L, R>, ctx: &mut Context<'_, K, F::Out>) {
        let now = ctx.timestamp();
        if self.is_over(now, state) {
            let past = state.versions.as_slice().partition_point(|(at, _)| *at < now);
            state.versions.drain_front(past);
        }
        if state.expires <= now {
            state.expires = MAX;
        }
        state.forget(now);
        let is_used = state.waiting.as_slice().first().is_some_and(|(at, _)| *at <= now)
            || state.versions.as_slice().first().is_some_and(|(at, _)| *at == now);
        self.used(if is_used { now } else { state.used }, state, ctx);
        let due = state.waiting.as_slice().partition_point(|(at, _)| *at <= now);
        if due > 0 {
            let version = state.versions.as_slice().first().filter(|(at, _)| *at <= now);
            for (at, left) in state.waiting.drain_front(due) {
                if let Some(row) = self.rows.row(ctx.key(), NONE, Some(&left), version.map(|(_, version)| version)) {
                    ctx.emit_at(row, at);
                }
            }
        }
        if state.waiting.is_empty() && state.versions.is_empty() {
            ctx.clear();
        }
    }
}

impl<L, F> AsOf<L, F> {
    /// Whether at this time the time to live of what is kept is over.
    fn is_over<R>(&self, now: Timestamp, state: &History<L, R>) -> bool {
        self.time_to_live_ms.is_some_and(|time_to_live| state.used.saturating_add(time_to_live) <= now)
    }

    /// The key was used at this time. There is one timer for it, that is set anew when it fires: not one a record.
    fn used<K, R, U>(&self, at: Timestamp, state: &mut History<L, R>, ctx: &mut Context<'_, K, U>) {
        let Some(time_to_live) = self.time_to_live_ms else { return };
        state.used = state.used.max(at);
        let over = state.used.saturating_add(time_to_live);
        if state.expires == MAX && state.used > MIN && over < MAX && !state.versions.is_empty() {
            state.expires = over;
            ctx.set_timer(over);
        }
    }
}

impl<L, R> History<L, R> {
    /// The versions that are not in force any more at this time go: the first one that is left may be.
    fn forget(&mut self, now: Timestamp) {
        let past = self.versions.as_slice().partition_point(|(at, _)| *at <= now);
        if past > 1 {
            self.versions.drain_front(past - 1);
        }
    }
}
