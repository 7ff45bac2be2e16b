//! The greatest records of each key, told anew whenever they change.
//!
//! What comes out is the whole ranking, and not which rows came and went: a consumer keeps the last one of each key and
//! needs nothing that it was told before. It is also what can be written under the key by a sink that overwrites.
use tidegate_checkpoint::error::Error;

use super::{
    aggregate::{ByKey, TopK, TotalOrder},
    process::{Context, ProcessFunction},
};
use crate::{
    api::{keyed::KeyedStream, process::ProcessStream, stream::Stream},
    state::{hash::Key, table::Value},
};

impl<S, K, F> KeyedStream<S, F>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    /// The `n` records of each key with the greatest scores, best first: the whole ranking, each time that a record gets
    /// into it.
    ///
    /// Scores are of any type with a [`TotalOrder`]: for floats that means that NaN is above every number. Of records with
    /// one score those that came first rank first, and stay where not all can; with scores that tell records
    /// apart, such as `(price, id)`, the last ranking of a key does not depend on the order of its records.
    ///
    /// At most `n` records are kept for each key; for keys that come and go say
    /// [`time_to_live`](ProcessStream::time_to_live), which begins their ranking anew. The ranking of a window
    /// is that of [`TopK`]: `.window(..).aggregate(TopK::largest_by(n, score))`.
    ///
    /// ```
    /// use tidegate_core::Stream;
    /// /// The three dearest bids of each auction.
    /// fn dearest(bids: impl Stream<Item = (u64, f64)>) -> impl Stream<Item = (u64, Vec<(u64, f64)>)> {
    ///     bids.key_by(|bid| bid.0).top_n("dearest", 3, |bid| bid.1)
    /// }
    /// ```
    pub fn top_n<G, R>(self, name: &str, n: usize, score: G) -> ProcessStream<Self, TopN<G>, K>
    where
        S::Item: Value + Clone,
        R: TotalOrder,
        G: Fn(&S::Item) -> R + Clone + Send + Sync + 'static,
    {
        if n == 0 {
            let error = Error::config(format!("top_n {name:?} ranks no records"));
            self.upstream.graph().mistake(error.hint("use an n of at least 1"));
        }
        self.process_as("top_n", name, TopN(TopK::largest_by(n, score)))
    }
}

/// See [`KeyedStream::top_n`].
#[derive(Clone, Debug)]
pub struct TopN<G>(TopK<ByKey<G>>);

impl<K, T, R, G> ProcessFunction<K, T> for TopN<G>
where
    K: Key,
    T: Value + Clone,
    R: TotalOrder,
    G: Fn(&T) -> R + Clone + Send + Sync + 'static,
{
    type State = Vec<T>;
    type Output = (K, Vec<T>);

    fn process(&mut self, record: T, ranking: &mut Vec<T>, ctx: &mut Context<'_, K, (K, Vec<T>)>) {
        if let Some(place) = self.0.place(ranking, &record) {
            ranking.insert(place, record);
            ctx.emit((ctx.key().clone(), ranking.clone()));
        }
    }
}
