//! `TopK`: the k greatest or least.
use super::{Aggregate, ByKey, Itself, Ranking, TotalOrder};
use serde::{Serialize, de::DeserializeOwned};

/// The `k` greatest (or least) records, best first; never more than `k` are kept.
///
/// They rank by their own [`TotalOrder`], or by a key's: NaN is above every number, so that it is among the largest
/// first and among the smallest last. Of records that rank alike those that arrived first come first, and are in where
/// not all can be; with a key that tells records apart, such as `|e| (e.price, e.id)`, the result does not depend on
/// the order of records.
///
/// ```
/// # use tidegate_core::{Aggregate, operators::aggregate::TopK};
/// let dearest = TopK::largest_by(2, |(price, _): &(f64, String)| *price);
/// let mut state = dearest.init();
/// for (price, what) in [(2.5, "tea"), (7.0, "wine"), (4.0, "beer")] {
///     dearest.add(&mut state, (price, what.to_owned()));
/// }
/// assert_eq!(dearest.finish(&state), [(7.0, "wine".to_owned()), (4.0, "beer".to_owned())]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TopK<R> {
    k: usize,
    largest: bool,
    ranking: R,
}

impl TopK<Itself> {
    /// The `k` greatest values.
    pub fn largest(k: usize) -> Self {
        Self { k, largest: true, ranking: Itself }
    }
    /// The `k` least values.
    pub fn smallest(k: usize) -> Self {
        Self { k, largest: false, ranking: Itself }
    }
}

impl<F> TopK<ByKey<F>> {
    /// The `k` records with the greatest keys.
    pub fn largest_by<T, K>(k: usize, key: F) -> Self
    where
        K: TotalOrder,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        Self { k, largest: true, ranking: ByKey(key) }
    }
    /// The `k` records with the least keys.
    pub fn smallest_by<T, K>(k: usize, key: F) -> Self
    where
        K: TotalOrder,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        Self { k, largest: false, ranking: ByKey(key) }
    }
}

impl<R> TopK<R> {
    /// Whether a record ranks above one that came later or not at all.
    #[inline]
    fn above<T>(&self, kept: &T, new: &T) -> bool
    where
        R: Ranking<T>,
    {
        let order = self.ranking.rank(kept, new);
        if self.largest { order.is_ge() } else { order.is_le() }
    }
    /// Where a record goes, once there is room for it; `None` where it is not one of the `k`.
    #[inline]
    pub(in crate::operators) fn place<T>(&self, state: &mut Vec<T>, record: &T) -> Option<usize>
    where
        R: Ranking<T>,
    {
        if state.len() >= self.k {
            // More than `k` only where that was greater when the state was written.
            state.truncate(self.k);
            if state.last().is_none_or(|worst| self.above(worst, record)) {
                return None;
            }
            state.pop();
        }
        Some(state.partition_point(|kept| self.above(kept, record)))
    }
}

impl<T, R> Aggregate<T> for TopK<R>
where
    T: Serialize + DeserializeOwned + Clone + Send + 'static,
    R: Ranking<T>,
{
    /// In order, the best first.
    type State = Vec<T>;
    type Output = Vec<T>;
    fn init(&self) -> Vec<T> {
        Vec::new()
    }
    #[inline]
    fn add(&self, state: &mut Vec<T>, record: T) {
        if let Some(place) = self.place(state, &record) {
            state.insert(place, record);
        }
    }
    #[inline]
    fn add_ref(&self, state: &mut Vec<T>, record: &T) {
        if let Some(place) = self.place(state, record) {
            state.insert(place, record.clone());
        }
    }
    fn merge(&self, state: &mut Vec<T>, other: &Vec<T>) {
        for record in other {
            self.add_ref(state, record);
        }
    }
    fn finish(&self, state: &Vec<T>) -> Vec<T> {
        state.iter().take(self.k).cloned().collect()
    }
}
