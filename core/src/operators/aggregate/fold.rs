//! `Reduce` and `Fold`: by a user's function.
use super::Aggregate;
use serde::{Serialize, de::DeserializeOwned};

/// Reduces records with a function, as [`Iterator::reduce`] does.
#[derive(Clone, Copy, Debug)]
pub struct Reduce<F>(pub(crate) F);

impl<T, F> Aggregate<T> for Reduce<F>
where
    T: Serialize + DeserializeOwned + Clone + Send + 'static,
    F: Fn(T, T) -> T + Clone + Send + Sync + 'static,
{
    type State = Option<T>;
    type Output = Option<T>;
    fn init(&self) -> Option<T> {
        None
    }
    #[inline]
    fn add(&self, state: &mut Option<T>, record: T) {
        *state = Some(match state.take() {
            Some(before) => (self.0)(before, record),
            None => record,
        });
    }
    fn merge(&self, state: &mut Option<T>, other: &Option<T>) {
        if let Some(other) = other {
            self.add(state, other.clone());
        }
    }
    fn finish(&self, state: &Option<T>) -> Option<T> {
        state.clone()
    }
}

/// Folds records into an accumulator that is also the result.
///
/// Two accumulators cannot be made into one by a function of an accumulator and a record, so this is only for running
/// folds ([`KeyedStream::fold`](crate::KeyedStream::fold)), and never under anything that merges.
#[derive(Clone, Copy, Debug)]
pub struct Fold<A, F> {
    pub(crate) init: A,
    pub(crate) f: F,
}

impl<T, A, F> Aggregate<T> for Fold<A, F>
where
    A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    F: Fn(&mut A, T) + Clone + Send + Sync + 'static,
{
    type State = A;
    type Output = A;
    fn init(&self) -> A {
        self.init.clone()
    }
    #[inline]
    fn add(&self, state: &mut A, record: T) {
        (self.f)(state, record);
    }
    /// A fold has no way to merge; it is used where nothing is ever merged.
    fn merge(&self, state: &mut A, other: &A) {
        debug_assert!(false, "a fold is merged");
        state.clone_from(other);
    }
    #[inline]
    fn finish(&self, state: &A) -> A {
        state.clone()
    }
}
