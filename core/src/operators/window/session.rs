//! Sessions: windows that grow as long as records come, and end when none has come for a gap.
use std::{sync::Arc, time::Duration};

use tidegate_checkpoint::error::Error;

use super::{
    Common, Windows, no_length, shown,
    triggered::{Assign, Trigger, WindowFunction, triggered},
};
use crate::{
    operators::{aggregate::Aggregate, process::ProcessSpec},
    state::hash::Key,
    time::{Timestamp, Window, millis},
};

/// Windows of one key's records that are no further apart than a gap. Two whose records come to lie within the gap of
/// each other through one that came late are merged into one.
///
/// As Flink's session windows: a session ends one gap behind its last record, and one record more at that very
/// millisecond still belongs to it.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::{Session, Stream, Windowed};
/// struct Click { user: u64, is_mobile: bool }
/// # impl Clone for Click { fn clone(&self) -> Self { Self { ..*self } } }
/// fn visits(clicks: impl Stream<Item = Click>) -> impl Stream<Item = Windowed<u64, u64>> {
///     let gap = |click: &Click| Duration::from_secs(if click.is_mobile { 60 } else { 1800 });
///     clicks.key_by(|click| click.user).window("visits", Session::gap_of(gap)).count()
/// }
/// ```
pub struct Session<T> {
    gap: Gap<T>,
}

enum Gap<T> {
    Same(i64),
    Of(Arc<dyn Fn(&T) -> Duration + Send + Sync>),
}

impl<T> Clone for Session<T> {
    fn clone(&self) -> Self {
        let gap = match &self.gap {
            Gap::Same(ms) => Gap::Same(*ms),
            Gap::Of(gap) => Gap::Of(gap.clone()),
        };
        Self { gap }
    }
}

impl<T> std::fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.gap {
            Gap::Same(ms) => write!(f, "Session({ms} ms)"),
            Gap::Of(_) => f.write_str("Session(by record)"),
        }
    }
}

impl<T> Session<T> {
    /// Sessions with the same gap behind every record.
    pub fn gap(gap: Duration) -> Self {
        Self { gap: Gap::Same(millis(gap)) }
    }
    /// Sessions with a gap behind each record that is the record's own; one of nothing is taken for a millisecond.
    pub fn gap_of(gap: impl Fn(&T) -> Duration + Send + Sync + 'static) -> Self {
        Self { gap: Gap::Of(Arc::new(gap)) }
    }
}

impl<T: Clone + Send + 'static> Assign<T> for Session<T> {
    const MERGES: bool = true;
    #[inline]
    fn assign(&self, at: Timestamp, record: &T, mut each: impl FnMut(Window)) {
        let gap_ms = match &self.gap {
            Gap::Same(ms) => *ms,
            Gap::Of(gap) => millis(gap(record)).max(1),
        };
        if let Some(end) = at.checked_add(gap_ms) {
            each(Window { start: at, end });
        }
    }
}

impl<T: Clone + Send + 'static> Windows<T> for Session<T> {
    type Spec<K: Key, A: Aggregate<T>> = ProcessSpec<WindowFunction<Self, A, T>>;
    fn spec<K: Key, A: Aggregate<T>>(self, common: Common<A>) -> Self::Spec<K, A> {
        triggered(self, Trigger::on_watermark(), common)
    }
    fn describe(&self) -> String {
        match &self.gap {
            Gap::Same(ms) => format!("session with a gap of {}", shown(*ms)),
            Gap::Of(_) => "session with a gap by record".into(),
        }
    }
    fn mistake(&self, name: &str) -> Option<Error> {
        matches!(self.gap, Gap::Same(..=0)).then(|| no_length(name, "gap"))
    }
}
