//! The test harness for users, used as a user would: `tidegate::testing`.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may
mod clock;
mod ends;
mod failures;
mod restores;
mod state;

use std::time::Duration;
use tidegate::{Stream, Tumbling, testing::TestStream};

/// A word, in which it does not matter what else is in a record.
pub type Word = &'static str;

/// How often each word comes in a second.
pub fn counts(words: TestStream<Word>) -> impl Stream<Item = (i64, String, u64)> {
    words
        .key_by(|w| (*w).to_owned())
        .window("counts", Tumbling::of(Duration::from_secs(1)))
        .count()
        .map(|w| (w.window.start, w.key, w.value))
}
