//! A split that a source task reads, and how it is kept in the checkpoint.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

use super::split_time::{SavedTime, SplitTime};
use crate::{env::Instant, metrics::splits::SplitStats};

/// A split in the checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedSplit {
    pub position: Value,
    pub time: SavedTime,
    pub ended: bool,
}

/// See the module.
pub(super) struct OpenSplit<R> {
    pub id: String,
    pub reader: R,
    pub stats: Arc<SplitStats>,
    pub time: SplitTime,
    pub ended: bool,
    /// Its part of the batch, which it knows if it is bounded, has been read.
    pub done: bool,
    pub bounded: bool,
    /// It had nothing at its last fill.
    pub waiting: bool,
    /// It has something that it cannot emit yet: it is not idle.
    pub held: bool,
    /// Left out of the minimum until it brings something: it has had nothing for longer than the idle time-out,
    /// or had ended when the checkpoint was made.
    pub idle: bool,
    pub last_record: Instant,
}

impl<R> OpenSplit<R> {
    pub(super) fn find_idle(&mut self, idle_after: Duration, at: Instant) {
        self.idle |= !self.held && at.duration_since(self.last_record) >= idle_after;
    }
}

/// Whether a split in the checkpoint had ended.
pub(super) fn has_ended(saved: &Value) -> bool {
    saved.get("ended").and_then(Value::as_bool).unwrap_or(false)
}

/// The reader's own position, of a split in the checkpoint.
pub(super) fn position_of(saved: &Value) -> Option<&Value> {
    saved.get("position")
}
