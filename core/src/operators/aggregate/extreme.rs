//! `Min` and `Max`, of values or of records by a key.
use super::{Aggregate, ByKey, Ranking, TotalOrder, over::of};
use serde::{Serialize, de::DeserializeOwned};
use std::cmp::Ordering::{Greater, Less};

/// Keeps one of two, the other of which came later.
#[inline]
pub(super) fn keep<T>(state: &mut Option<T>, record: T, replaces: impl FnOnce(&T, &T) -> bool) {
    if state.as_ref().is_none_or(|kept| replaces(&record, kept)) {
        *state = Some(record);
    }
}

/// As [`keep`], and copies it only then.
#[inline]
pub(super) fn keep_ref<T: Clone>(state: &mut Option<T>, record: &T, replaces: impl FnOnce(&T, &T) -> bool) {
    if state.as_ref().is_none_or(|kept| replaces(record, kept)) {
        *state = Some(record.clone());
    }
}

macro_rules! extreme {
    ($(#[$doc:meta])* $name:ident, $of:literal, $wins:ident, $pick:ident, $by:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        of!($name, $name, $of);

        impl $name {
            #[doc = $by]
            ///
            /// Of records with equal keys it is the one that arrived first; with a key that tells them apart, such as
            /// `|e| (e.price, e.id)`, the result does not depend on the order of records.
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
            T: TotalOrder + Serialize + DeserializeOwned + Clone + Send + 'static,
        {
            type State = Option<T>;
            type Output = Option<T>;
            fn init(&self) -> Option<T> {
                None
            }
            #[inline]
            fn add(&self, state: &mut Option<T>, record: T) {
                keep(state, record, |new, kept| new.total_order(kept) == $wins);
            }
            #[inline]
            fn add_ref(&self, state: &mut Option<T>, record: &T) {
                keep_ref(state, record, |new, kept| new.total_order(kept) == $wins);
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

extreme!(
    /// The least value, by its [`TotalOrder`]; of none, `None`. Does not depend on the order of records. NaN is above
    /// every number: it comes out only where there is nothing else.
    ///
    /// ```
    /// # use tidegate_core::{Aggregate, operators::aggregate::Min};
    /// let cheapest = Min::of(|price: &f64| *price);
    /// let mut state = cheapest.init();
    /// for price in [f64::NAN, 2.5, 1.5] {
    ///     cheapest.add(&mut state, price);
    /// }
    /// assert_eq!(cheapest.finish(&state), Some(1.5));
    /// ```
    Min, "The least of this field.", Less, Least, "The whole record whose key is the least."
);
extreme!(
    /// The greatest value, by its [`TotalOrder`]; of none, `None`. Does not depend on the order of records. NaN is
    /// above every number: where there is one, it comes out.
    ///
    /// ```
    /// # use tidegate_core::{Aggregate, operators::aggregate::Max};
    /// let dearest = Max::by(|(_, price): &(String, f64)| *price);
    /// let mut state = dearest.init();
    /// dearest.add(&mut state, ("tea".to_owned(), 2.5));
    /// dearest.add(&mut state, ("wine".to_owned(), 7.0));
    /// assert_eq!(dearest.finish(&state), Some(("wine".to_owned(), 7.0)));
    /// ```
    Max, "The greatest of this field.", Greater, Greatest, "The whole record whose key is the greatest."
);

/// One record, by its key: see [`Min::by`], [`Max::by`], [`First::by`](super::First::by), [`Last::by`](super::Last::by).
#[derive(Clone, Copy, Debug)]
pub struct By<F> {
    pub(super) key: ByKey<F>,
    pub(super) pick: Pick,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    Least,
    Greatest,
    /// And of equals the last.
    LastGreatest,
}

impl<F> By<F> {
    #[inline]
    fn replaces<T>(&self, new: &T, kept: &T) -> bool
    where
        ByKey<F>: Ranking<T>,
    {
        match (self.pick, self.key.rank(new, kept)) {
            (Pick::Least, order) => order == Less,
            (Pick::Greatest, order) => order == Greater,
            (Pick::LastGreatest, order) => order != Less,
        }
    }
}

impl<T, F> Aggregate<T> for By<F>
where
    T: Serialize + DeserializeOwned + Clone + Send + 'static,
    ByKey<F>: Ranking<T>,
    F: Clone + Send + Sync + 'static,
{
    type State = Option<T>;
    type Output = Option<T>;
    fn init(&self) -> Option<T> {
        None
    }
    #[inline]
    fn add(&self, state: &mut Option<T>, record: T) {
        keep(state, record, |new, kept| self.replaces(new, kept));
    }
    #[inline]
    fn add_ref(&self, state: &mut Option<T>, record: &T) {
        keep_ref(state, record, |new, kept| self.replaces(new, kept));
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
