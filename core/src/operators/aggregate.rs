//! What can be aggregated: a user's own [`Aggregate`], and the built-in [`Count`].
use serde::{Serialize, de::DeserializeOwned};

/// An aggregation of records of type `T`.
///
/// ```
/// use tidegate_core::Aggregate;
/// #[derive(Clone)]
/// struct Mean;
/// impl Aggregate<f64> for Mean {
///     type State = (u64, f64);
///     type Output = Option<f64>;
///     fn init(&self) -> (u64, f64) { (0, 0.0) }
///     fn add(&self, state: &mut (u64, f64), record: f64) { state.0 += 1; state.1 += record; }
///     fn merge(&self, state: &mut (u64, f64), other: &(u64, f64)) { state.0 += other.0; state.1 += other.1; }
///     fn finish(&self, state: &(u64, f64)) -> Option<f64> { (state.0 > 0).then(|| state.1 / state.0 as f64) }
/// }
/// ```
pub trait Aggregate<T>: Clone + Send + Sync + 'static {
    /// What is kept for each key (and window).
    type State: Serialize + DeserializeOwned + Send + 'static;
    /// What comes out.
    type Output: Send + 'static;
    /// The state before the first record.
    fn init(&self) -> Self::State;
    /// Adds a record.
    fn add(&self, state: &mut Self::State, record: T);
    /// Adds another state of the same key. That one stays: the slices of a hopping window are merged into one window
    /// after another.
    fn merge(&self, state: &mut Self::State, other: &Self::State);
    /// The result so far.
    fn finish(&self, state: &Self::State) -> Self::Output;
}

/// Counts records.
#[derive(Clone, Copy, Debug)]
pub struct Count;

impl<T: 'static> Aggregate<T> for Count {
    type State = u64;
    type Output = u64;
    fn init(&self) -> u64 {
        0
    }
    #[inline]
    fn add(&self, state: &mut u64, _: T) {
        *state += 1;
    }
    fn merge(&self, state: &mut u64, other: &u64) {
        *state += *other;
    }
    fn finish(&self, state: &u64) -> u64 {
        *state
    }
}

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
        state.clone_from(other);
    }
    #[inline]
    fn finish(&self, state: &A) -> A {
        state.clone()
    }
}
