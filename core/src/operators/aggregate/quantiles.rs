//! `Quantiles`: exactly of few numbers, by a sketch within 1 % of many.
//!
//! Up to [`FEW`] numbers are kept as they are. Beyond that they go into a DDSketch (Masson, Rim, Lee 2019): counts in
//! buckets whose bounds are 2 % apart. Counts add up the same in any order, which t-digests and KLL sketches do not:
//! so the result does not depend on order, splits or merges. It is serialised in the format of its authors' libraries.
//!
//! The hard case is what has no bucket: infinities and NaN, which are counted beside it, at the ends where they belong.
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sketches_ddsketch::{Config, DDSketch};

use super::{Aggregate, Number, TotalOrder, distinct::Bytes};

/// How many numbers are kept as they are.
const FEW: usize = 64;

/// Quantiles of numbers: 0.5 is the median, 0 the least, 1 the greatest; of none, `None`. (One below 0 or above 1 is taken as
/// the nearest of them; a quantile that is NaN as 0.)
///
/// The q-quantile of n numbers is the one in place ⌊q (n - 1)⌋ when they are in order, from 0. Up to 64 numbers it is
/// exact. Beyond that it is within 1 % of it, for numbers further from zero than 10⁻⁹, what is nearer counting as zero;
/// where numbers of one sign lie more than 17 orders of magnitude apart, those nearest to zero lose the guarantee. NaN is
/// above every number, as in [`Max`](super::Max). Does not depend on the order of records.
///
/// ```
/// # use tidegate_core::{Aggregate, operators::aggregate::{Quantiles, over}};
/// let latency = over(|(_, ms): &(&str, u32)| *ms, Quantiles::at([0.5, 0.99]));
/// let mut state = latency.init();
/// for ms in 1..=10_000 {
///     latency.add(&mut state, ("/", ms));
/// }
/// let [median, p99] = latency.finish(&state).unwrap();
/// assert!((4_950.0..5_050.0).contains(&median) && (9_800.0..10_000.0).contains(&p99));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Quantiles<const Q: usize> {
    at: [f64; Q],
}

impl<const Q: usize> Quantiles<Q> {
    /// These quantiles.
    pub fn at(quantiles: [f64; Q]) -> Self {
        Self { at: quantiles.map(|q| if q > 0.0 { q.min(1.0) } else { 0.0 }) }
    }
}

/// What is kept of numbers: few as they are, or how many are in each bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Sample {
    /// The numbers.
    Few(Vec<f64>),
    /// The sketch.
    Many(Box<Buckets>),
}

/// A sketch, and what it has no bucket for.
#[derive(Clone, Serialize, Deserialize)]
pub struct Buckets {
    #[serde(serialize_with = "write", deserialize_with = "read")]
    finite: DDSketch,
    below: u64,
    above: u64,
    nan: u64,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Sample {
    #[inline]
    fn add(&mut self, n: f64) {
        match self {
            Self::Few(numbers) if numbers.len() < FEW => numbers.push(n),
            Self::Few(_) => self.outgrow(n),
            Self::Many(buckets) => buckets.add(n),
        }
    }
    fn add_all(&mut self, numbers: &[f64]) {
        for n in numbers {
            self.add(*n);
        }
    }
    #[cold]
    fn outgrow(&mut self, n: f64) {
        let mut buckets = Buckets { finite: DDSketch::new(Config::defaults()), below: 0, above: 0, nan: 0 };
        if let Self::Few(numbers) = self {
            for n in numbers {
                buckets.add(*n);
            }
        }
        buckets.add(n);
        *self = Self::Many(Box::new(buckets));
    }
}

impl Buckets {
    #[inline]
    fn add(&mut self, n: f64) {
        if n.is_finite() {
            self.finite.add(n);
        } else if n.is_nan() {
            self.nan += 1;
        } else if n < 0.0 {
            self.below += 1;
        } else {
            self.above += 1;
        }
    }
    fn merge(&mut self, other: &Self) {
        // It refuses a sketch of another accuracy, and there is only one.
        let merged = self.finite.merge(&other.finite);
        debug_assert!(merged.is_ok());
        self.below += other.below;
        self.above += other.above;
        self.nan += other.nan;
    }
    fn count(&self) -> u64 {
        self.below + self.finite.count() as u64 + self.above + self.nan
    }
    /// The number in this place of all in order.
    fn in_place(&self, place: u64) -> f64 {
        let finite = self.finite.count() as u64;
        let Some(place) = place.checked_sub(self.below) else { return f64::NEG_INFINITY };
        match place.checked_sub(finite) {
            None => self.finite.quantile(quantile(place, finite)).ok().flatten().unwrap_or(f64::NAN),
            Some(place) if place < self.above => f64::INFINITY,
            Some(_) => f64::NAN,
        }
    }
}

/// What the sketch has to be asked for to look into this place: it rounds down.
fn quantile(place: u64, count: u64) -> f64 {
    match place {
        0 => 0.0,
        place if place + 1 == count => 1.0,
        place => (place as f64 + 0.5) / (count - 1) as f64,
    }
}

fn place(q: f64, count: u64) -> u64 {
    (q * (count - 1) as f64) as u64
}

impl<N: Number, const Q: usize> Aggregate<N> for Quantiles<Q> {
    type State = Sample;
    type Output = Option<[f64; Q]>;
    fn init(&self) -> Sample {
        Sample::Few(Vec::new())
    }
    #[inline]
    fn add(&self, state: &mut Sample, record: N) {
        state.add(record.to_f64());
    }
    fn merge(&self, state: &mut Sample, other: &Sample) {
        match (&mut *state, other) {
            (Sample::Many(buckets), Sample::Many(others)) => buckets.merge(others),
            (_, Sample::Few(numbers)) => state.add_all(numbers),
            (Sample::Few(_), Sample::Many(_)) => {
                if let Sample::Few(numbers) = std::mem::replace(state, other.clone()) {
                    state.add_all(&numbers);
                }
            }
        }
    }
    fn finish(&self, state: &Sample) -> Option<[f64; Q]> {
        match state {
            Sample::Few(numbers) if numbers.is_empty() => None,
            Sample::Few(numbers) => {
                let mut numbers = numbers.clone();
                numbers.sort_unstable_by(f64::total_order);
                Some(self.at.map(|q| numbers[place(q, numbers.len() as u64) as usize]))
            }
            Sample::Many(buckets) => Some(self.at.map(|q| buckets.in_place(place(q, buckets.count())))),
        }
    }
}

fn write<S: Serializer>(sketch: &DDSketch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(&sketch.to_java_bytes())
}
fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DDSketch, D::Error> {
    DDSketch::from_java_bytes(&deserializer.deserialize_byte_buf(Bytes)?).map_err(D::Error::custom)
}
