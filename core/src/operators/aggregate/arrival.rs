//! `First` and `Last`: by arrival, or by a time of the record's own.
use super::{
    Aggregate, By, ByKey, TotalOrder,
    extreme::{Pick, keep, keep_ref},
    over::of,
};
use serde::{Serialize, de::DeserializeOwned};

macro_rules! arrival {
    ($(#[$doc:meta])* $name:ident, $of:literal, $replaces:literal, $pick:ident, $by:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        of!($name, $name, $of);

        impl $name {
            #[doc = $by]
            /// Unless two have equal keys, this does not depend on the order of records.
            pub fn by<T, K, F>(key: F) -> By<F>
            where
                K: TotalOrder,
                F: Fn(&T) -> K + Clone + Send + Sync + 'static,
            {
                By { key: ByKey(key), pick: Pick::$pick }
            }
        }

        impl<T> Aggregate<T> for $name
        where
            T: Serialize + DeserializeOwned + Clone + Send + 'static,
        {
            type State = Option<T>;
            type Output = Option<T>;
            fn init(&self) -> Option<T> {
                None
            }
            #[inline]
            fn add(&self, state: &mut Option<T>, record: T) {
                keep(state, record, |_, _| $replaces);
            }
            #[inline]
            fn add_ref(&self, state: &mut Option<T>, record: &T) {
                keep_ref(state, record, |_, _| $replaces);
            }
            fn merge(&self, state: &mut Option<T>, other: &Option<T>) {
                if let Some(other) = other {
                    self.add_ref(state, other);
                }
            }
            fn finish(&self, state: &Option<T>) -> Option<T> {
                state.clone()
            }
        }
    };
}

arrival!(
    /// The record that arrived first; of none, `None`. Arrival is an accident wherever several splits are read; for the
    /// earliest by event time take [`First::by`].
    ///
    /// ```
    /// # use tidegate_core::{Aggregate, operators::aggregate::First};
    /// let opened = First::by(|(at, _): &(i64, String)| *at);
    /// let mut state = opened.init();
    /// opened.add(&mut state, (20, "b".to_owned()));
    /// opened.add(&mut state, (10, "a".to_owned()));
    /// assert_eq!(opened.finish(&state), Some((10, "a".to_owned())));
    /// ```
    First, "This field of the record that arrived first.", false, Least,
    "The record with the least key, such as its event time; of equal ones the first to arrive."
);
arrival!(
    /// The record that arrived last; of none, `None`. Arrival is an accident wherever several splits are read; for the
    /// latest by event time take [`Last::by`].
    ///
    /// ```
    /// # use tidegate_core::{Aggregate, operators::aggregate::Last};
    /// let status = Last::of(|(_, status): &(i64, String)| status.clone());
    /// let mut state = status.init();
    /// status.add(&mut state, (20, "b".to_owned()));
    /// status.add(&mut state, (10, "a".to_owned()));
    /// assert_eq!(status.finish(&state), Some("a".to_owned()));
    /// ```
    Last, "This field of the record that arrived last.", true, LastGreatest,
    "The record with the greatest key, such as its event time; of equal ones the last to arrive."
);
