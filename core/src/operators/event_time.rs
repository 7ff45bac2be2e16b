//! What keyed operators of event time have in common: how far it has come for a key, and what becomes of late records.
//!
//! What was late is late after a restart, and what has fired does not fire again: the watermark is saved with the state.
//! The sources' own watermarks do not say it, since those of splits that were idle are behind.
//!
//! The hard case is a restart at another parallelism: then some key groups may have seen a later watermark than others
//! that are here now. Until the operator's own has caught up, each key goes by that of its key group.
use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tidegate_checkpoint::error::Result;

use super::side::SidePort;
use crate::{
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Control, Output},
    runtime::build::Build,
    state::{
        hash::{Key, hash_key},
        keyed::KeyedState,
        table::Value,
    },
    time::{MAX, MIN, Timestamp},
};

/// How far event time has come in one subtask.
pub(super) struct EventTime {
    watermark: Timestamp,
    /// The newest watermark of any key group, as long as that is ahead.
    ahead: Option<Timestamp>,
}

impl Default for EventTime {
    fn default() -> Self {
        Self { watermark: MIN, ahead: None }
    }
}

impl EventTime {
    /// As it was when the state was saved.
    pub(super) fn opened<K: Key, V: Value>(state: &KeyedState<K, V>) -> Self {
        let watermark = state.watermark().unwrap_or(MIN);
        Self { watermark, ahead: state.newest_restored_watermark().filter(|newest| *newest > watermark) }
    }

    /// The operator's own.
    #[inline(always)]
    pub(super) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Whether it is not the same for all keys.
    #[inline(always)]
    pub(super) fn is_uneven(&self) -> bool {
        self.ahead.is_some()
    }

    /// The watermark that holds for a key.
    #[inline(always)]
    pub(super) fn of<K: Key, V: Value>(&self, state: &KeyedState<K, V>, hash: u64) -> Timestamp {
        let restored = self.ahead.and_then(|_| state.restored_watermark(hash));
        restored.map_or(self.watermark, |restored| restored.max(self.watermark))
    }

    /// The only hash for which that is known to hold, unless it holds for all: of the same hash is of the same key group.
    #[inline(always)]
    pub(super) fn only(&self, hash: u64) -> Option<u64> {
        self.ahead.map(|_| hash)
    }

    /// Whether what fires at `at` has fired for a key before the restart.
    #[inline(always)]
    pub(super) fn has_passed<K: Key, V: Value>(&self, state: &KeyedState<K, V>, key: &K, at: Timestamp) -> bool {
        self.is_uneven() && state.restored_watermark(hash_key(key)) >= Some(at)
    }

    /// The watermark has come to this; what it was before.
    pub(super) fn advance<K: Key, V: Value>(&mut self, state: &mut KeyedState<K, V>, to: Timestamp) -> Timestamp {
        let before = self.watermark;
        self.watermark = to.max(before);
        // The end of the input is not saved: the job may be started again with more of it.
        if self.watermark < MAX {
            state.save_watermark(self.watermark);
        }
        before
    }

    /// What that has made due has been gone through.
    pub(super) fn advanced(&mut self) {
        self.ahead = self.ahead.filter(|newest| *newest > self.watermark);
    }
}

/// Late records: they are counted, and go to a stream if somebody has taken it.
pub(super) struct Late<T> {
    port: Option<SidePort<T>>,
    stats: Arc<OperatorStats>,
}

impl<T: Clone + Send + 'static> Late<T> {
    /// Those of the operator at `node`, to the side stream at `stream`.
    pub(super) fn new(build: &mut Build<'_>, node: NodeId, stream: Option<NodeId>) -> Self {
        Self { port: stream.map(|stream| build.port(stream)), stats: build.stats(node) }
    }

    #[cold]
    pub(super) fn record(&mut self, record: T, at: Timestamp) {
        OperatorStats::add(&self.stats.late, 1);
        if let Some(port) = &mut self.port {
            port.record(record, at);
        }
    }

    /// As [`Output::control`].
    pub(super) fn control(&mut self, control: Control) {
        if let Some(port) = &mut self.port {
            port.control(control);
        }
    }

    /// As [`Output::poll_ready`].
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.port.as_mut().map_or(Poll::Ready(Ok(())), |port| port.poll_ready(cx))
    }

    /// As [`Output::sweep`].
    pub(super) fn sweep(&mut self) -> bool {
        self.port.as_mut().is_some_and(Output::sweep)
    }
}
