//! `Variance` and `StdDev`, by Welford's recurrence, merged by Chan's.
use super::{Aggregate, Number};
use serde::{Deserialize, Serialize};

/// How many numbers, their mean, and the sum of the squares of their distances from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments(u64, f64, f64);

impl Moments {
    #[inline]
    fn add(&mut self, n: f64) {
        self.0 += 1;
        let distance = n - self.1;
        self.1 += distance / self.0 as f64;
        self.2 += distance * (n - self.1);
    }
    fn merge(&mut self, other: &Self) {
        let (mine, others) = (self.0 as f64, other.0 as f64);
        if other.0 == 0 || self.0 == 0 {
            if self.0 == 0 {
                *self = *other;
            }
            return;
        }
        let (all, distance) = (mine + others, other.1 - self.1);
        self.0 += other.0;
        self.1 += distance * (others / all);
        self.2 += other.2 + distance * distance * (mine * others / all);
    }
    fn variance(&self, sample: bool) -> Option<f64> {
        let less = u64::from(sample);
        (self.0 > less).then(|| self.2 / (self.0 - less) as f64)
    }
}

macro_rules! spread {
    ($(#[$doc:meta])* $name:ident, $of:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name {
            sample: bool,
        }
        impl $name {
            /// Of all there is: divided by n. `None` without records.
            pub fn population() -> Self {
                Self { sample: false }
            }
            /// Estimated from a sample: divided by n - 1. `None` for fewer than two records.
            pub fn sample() -> Self {
                Self { sample: true }
            }
        }
        impl<N: Number> Aggregate<N> for $name {
            type State = Moments;
            type Output = Option<f64>;
            fn init(&self) -> Moments {
                Moments::default()
            }
            #[inline]
            fn add(&self, state: &mut Moments, record: N) {
                state.add(record.to_f64());
            }
            fn merge(&self, state: &mut Moments, other: &Moments) {
                state.merge(other);
            }
            fn finish(&self, state: &Moments) -> Option<f64> {
                state.variance(self.sample).map($of)
            }
        }
    };
}

spread!(
    /// The variance of numbers. Another order of records shows in the last bits of the result; a NaN or an infinity
    /// among them makes it NaN.
    ///
    /// ```
    /// # use tidegate_core::{Aggregate, operators::aggregate::{Variance, over}};
    /// let variance = over(|n: &u32| *n, Variance::population());
    /// let mut state = variance.init();
    /// for n in [2, 4, 4, 4, 5, 5, 7, 9] {
    ///     variance.add(&mut state, n);
    /// }
    /// assert_eq!(variance.finish(&state), Some(4.0));
    /// ```
    Variance, |variance| variance
);
spread!(
    /// The standard deviation of numbers: the root of their [`Variance`].
    ///
    /// ```
    /// # use tidegate_core::{Aggregate, operators::aggregate::{StdDev, over}};
    /// let deviation = over(|n: &u32| *n, StdDev::population());
    /// let mut state = deviation.init();
    /// for n in [2, 4, 4, 4, 5, 5, 7, 9] {
    ///     deviation.add(&mut state, n);
    /// }
    /// assert_eq!(deviation.finish(&state), Some(2.0));
    /// ```
    StdDev, f64::sqrt
);
