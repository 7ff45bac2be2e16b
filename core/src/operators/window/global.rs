//! One window for all of a key's records. Without a trigger it fires at the end of the input.
use tidegate_checkpoint::error::Error;

use super::{
    Common, Windows,
    triggered::{Assign, Trigger, WindowFunction, triggered},
};
use crate::{
    operators::{aggregate::Aggregate, process::ProcessSpec},
    state::hash::Key,
    time::{MAX, MIN, Timestamp, Window},
};

/// The window of all time.
///
/// ```
/// use tidegate_core::{Global, Stream, Trigger, Windowed};
/// /// The count of every user, told with each hundredth click.
/// fn hundreds(clicks: impl Stream<Item = u64>) -> impl Stream<Item = Windowed<u64, u64>> {
///     clicks.key_by(|user| *user).window("hundreds", Global).trigger(Trigger::on_watermark().every_records(100)).count()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global;

impl<T: Clone + Send + 'static> Assign<T> for Global {
    #[inline]
    fn assign(&self, _: Timestamp, _: &T, mut each: impl FnMut(Window)) {
        each(Window { start: MIN, end: MAX });
    }
}

impl<T: Clone + Send + 'static> Windows<T> for Global {
    type Spec<K: Key, A: Aggregate<T>> = ProcessSpec<WindowFunction<Self, A, T>>;
    fn spec<K: Key, A: Aggregate<T>>(self, common: Common<A>) -> Self::Spec<K, A> {
        triggered(self, Trigger::on_watermark(), common)
    }
    fn describe(&self) -> String {
        "global".into()
    }
    fn mistake(&self, _: &str) -> Option<Error> {
        None
    }
    fn needs_event_time(&self) -> bool {
        false
    }
    fn end(&self) -> bool {
        false
    }
}
