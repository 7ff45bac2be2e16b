//! Windows of so many records of a key, instead of so much time.
//!
//! Records are added to parts, of which both the size and the slide are multiples; a window is the last few parts, merged.
//! So a record is added once, and no record is kept. In which order the records of a key come is for the job to know: of
//! several splits, or behind an exchange, another run may count them off differently.
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

use tidegate_checkpoint::error::Error;

use super::hopping::gcd;
use crate::{
    operators::{
        aggregate::Aggregate,
        process::{Context, ProcessFunction},
    },
    state::hash::Key,
};

/// Windows of the last so many records of a key.
///
/// As Flink's `countWindow`.
///
/// ```
/// use tidegate_core::{Count, CountWindows, Stream};
/// /// With every tenth reading of a sensor, what its last hundred come to.
/// fn last_hundred(readings: impl Stream<Item = u64>) -> impl Stream<Item = (u64, u64)> {
///     let windows = CountWindows::of(100).slide(10);
///     readings.key_by(|sensor| *sensor).count_window("last-hundred", windows, Count)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountWindows {
    size: u64,
    slide: u64,
}

impl CountWindows {
    /// Windows of so many records, one behind the other.
    pub fn of(size: u64) -> Self {
        Self { size, slide: size }
    }

    /// One window with every so many records, of the last ones: the first of them have fewer.
    #[must_use]
    pub fn slide(mut self, slide: u64) -> Self {
        self.slide = slide;
        self
    }

    pub(crate) fn describe(self) -> String {
        if self.slide == self.size {
            return format!("window of {} records", self.size);
        }
        format!("window of {} records every {}", self.size, self.slide)
    }

    pub(crate) fn mistake(self, name: &str) -> Option<Error> {
        let too_many = self.size > i64::MAX as u64 || self.slide > i64::MAX as u64;
        (self.size == 0 || self.slide == 0 || too_many).then(|| {
            Error::config(format!("window {name:?} of {} records every {} cannot be", self.size, self.slide))
                .hint("use at least one record")
        })
    }

    /// Records of a part.
    fn part(self) -> u64 {
        gcd(self.size as i64, self.slide as i64).unsigned_abs().max(1)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct CountFunction<A> {
    pub(crate) windows: CountWindows,
    pub(crate) aggregate: A,
}

/// What a key has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parts<S> {
    /// The last of them is being filled.
    parts: VecDeque<S>,
    in_last: u64,
    /// Records since a window has fired.
    since: u64,
}

impl<S> Default for Parts<S> {
    fn default() -> Self {
        Self { parts: VecDeque::new(), in_last: 0, since: 0 }
    }
}

impl<K: Key, T: Send + 'static, A: Aggregate<T>> ProcessFunction<K, T> for CountFunction<A> {
    type State = Parts<A::State>;
    type Output = (K, A::Output);

    fn process(&mut self, record: T, state: &mut Self::State, ctx: &mut Context<'_, K, Self::Output>) {
        let (windows, part) = (self.windows, self.windows.part());
        if state.parts.is_empty() || state.in_last == part {
            state.parts.push_back(self.aggregate.init());
            state.in_last = 0;
        }
        if let Some(last) = state.parts.back_mut() {
            self.aggregate.add(last, record);
        }
        (state.in_last, state.since) = (state.in_last + 1, state.since + 1);
        if state.parts.len() as u64 > windows.size / part {
            state.parts.pop_front();
        }
        if state.since < windows.slide {
            return;
        }
        state.since = 0;
        let mut merged = self.aggregate.init();
        state.parts.iter().for_each(|part| self.aggregate.merge(&mut merged, part));
        ctx.emit((ctx.key().clone(), self.aggregate.finish(&merged)));
        if windows.slide >= windows.size {
            ctx.clear();
        }
    }
}
