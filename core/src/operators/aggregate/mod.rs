//! What can be aggregated: the [`Aggregate`] trait, and those that are built in.
//!
//! Windows merge states (slices of a hopping window, sessions that have grown together, subtasks' own), so
//! whatever is here merges, and a merge gives what adding all the records to one state would have given. Where
//! records' or states' order can be seen in the result, the aggregate's documentation says so; where it cannot, one
//! input has one result at every parallelism, batch size and timing. docs/aggregates.md has all of it in a table.
//!
//! The hard case is state that outlives versions and machines: what is serialised here is plain numbers and lists,
//! or a sketch in a published format of its project; hashes are [`hash_key`](crate::state::hash::hash_key)'s.
use serde::{Serialize, de::DeserializeOwned};

mod number;
mod order;

mod arrival;
mod count;
mod distinct;
mod extreme;
mod fold;
mod over;
mod quantiles;
mod sum;
mod top;
mod tuple;
mod variance;

#[cfg(test)]
mod tests;

pub use arrival::{First, Last};
pub use count::Count;
pub use distinct::{Distinct, DistinctCount, Registers};
pub use extreme::{By, Max, Min};
pub use fold::{Fold, Reduce};
pub use number::{Compensated, Number, Wide};
pub use order::{ByKey, Itself, Ranking, TotalOrder};
pub use over::{MapOutput, Over, over};
pub use quantiles::{Buckets, Quantiles, Sample};
pub use sum::{Mean, Sum};
pub use top::TopK;
pub use variance::{Moments, StdDev, Variance};

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
    /// Adds a record that others need too; worth writing where the record itself is not kept.
    #[inline]
    fn add_ref(&self, state: &mut Self::State, record: &T)
    where
        T: Clone,
    {
        self.add(state, record.clone());
    }
    /// Adds another state of the same key, whose records come after this one's where there is an order. That one stays:
    /// the slices of a hopping window are merged into one window after another.
    fn merge(&self, state: &mut Self::State, other: &Self::State);
    /// The result so far.
    fn finish(&self, state: &Self::State) -> Self::Output;

    /// This aggregate with each result made into another.
    ///
    /// ```
    /// # use tidegate_core::{Aggregate, operators::aggregate::Sum};
    /// let euros = Sum::of(|cents: &u64| *cents).map_output(|cents: u64| cents as f64 / 100.0);
    /// let mut state = euros.init();
    /// euros.add(&mut state, 150);
    /// assert_eq!(euros.finish(&state), 1.5);
    /// ```
    fn map_output<U, F>(self, f: F) -> MapOutput<Self, F>
    where
        U: Send + 'static,
        F: Fn(Self::Output) -> U + Clone + Send + Sync + 'static,
    {
        MapOutput::new(self, f)
    }
}
