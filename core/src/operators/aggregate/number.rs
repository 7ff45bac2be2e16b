//! Numbers, and sums of them that hold what is added: no wrap-around, no lost small change.
//!
//! Small integers are summed in 64 bits, which takes 2³² records to fill. 64-bit integers are summed in 128, so that
//! what overflows on the way is right again when the rest has been added, in whatever order, and only a *result*
//! beyond 64 bits is held at the end of the range. Floats carry what each addition has rounded off.
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What can be summed: the primitive numbers, and any type of a user's own (money, decimals) that says how.
pub trait Number: Clone + Send + 'static {
    /// What is kept of a sum.
    type Sum: Serialize + DeserializeOwned + Default + Clone + Send + 'static;
    /// What a sum comes to.
    type Total: Send + 'static;
    /// Adds this number.
    fn add_to(self, sum: &mut Self::Sum);
    /// Adds another sum.
    fn merge(sum: &mut Self::Sum, other: &Self::Sum);
    /// What it comes to.
    fn total(sum: &Self::Sum) -> Self::Total;
    /// As near to it as a float can be, for means.
    fn approximate(sum: &Self::Sum) -> f64;
    /// This number as a float, for variances and quantiles.
    fn to_f64(self) -> f64;
}

/// A sum of 64-bit integers, in 128: the lower and the upper half, in two's complement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wide(u64, i64);

impl Wide {
    #[inline]
    fn add(&mut self, low: u64, high: i64) {
        let (sum, carry) = self.0.overflowing_add(low);
        self.0 = sum;
        // 2^63 records of the largest would fill it.
        self.1 = self.1.wrapping_add(high).wrapping_add(i64::from(carry));
    }
    fn value(self) -> i128 {
        i128::from(self.1) << 64 | i128::from(self.0)
    }
}

/// A sum of floats and what has been rounded off, exactly, of each addition (Knuth's two-sum).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compensated(f64, f64);

impl Compensated {
    #[inline]
    fn add(&mut self, n: f64) {
        let Self(sum, rest) = *self;
        let next = sum + n;
        let of_n = next - sum;
        *self = Self(next, rest + ((sum - (next - of_n)) + (n - of_n)));
    }
    /// Past the largest float there is no rest: infinity less infinity would be none.
    fn value(self) -> f64 {
        if self.0.is_finite() { self.0 + self.1 } else { self.0 }
    }
}

macro_rules! narrow {
    ($sum:ty: $($n:ty),*) => {$(
        impl Number for $n {
            type Sum = $sum;
            type Total = $sum;
            #[inline]
            fn add_to(self, sum: &mut $sum) {
                *sum = sum.saturating_add(<$sum>::from(self));
            }
            #[inline]
            fn merge(sum: &mut $sum, other: &$sum) {
                *sum = sum.saturating_add(*other);
            }
            #[inline]
            fn total(sum: &$sum) -> $sum {
                *sum
            }
            fn approximate(sum: &$sum) -> f64 {
                *sum as f64
            }
            #[inline]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
    )*};
}
narrow!(u64: u8, u16, u32);
narrow!(i64: i8, i16, i32);

macro_rules! wide {
    ($($n:ty as $total:ty),*) => {$(
        impl Number for $n {
            type Sum = Wide;
            type Total = $total;
            #[inline]
            #[allow(unused_comparisons)] // of unsigned ones, which are never below zero
            fn add_to(self, sum: &mut Wide) {
                sum.add(self as u64, if self < 0 { -1 } else { 0 });
            }
            #[inline]
            fn merge(sum: &mut Wide, other: &Wide) {
                sum.add(other.0, other.1);
            }
            #[inline]
            fn total(sum: &Wide) -> $total {
                sum.value().clamp(i128::from(<$total>::MIN), i128::from(<$total>::MAX)) as $total
            }
            fn approximate(sum: &Wide) -> f64 {
                sum.value() as f64
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}
wide!(u64 as u64, usize as u64, i64 as i64, isize as i64);

macro_rules! float {
    ($($n:ty),*) => {$(
        impl Number for $n {
            type Sum = Compensated;
            type Total = f64;
            #[inline]
            fn add_to(self, sum: &mut Compensated) {
                sum.add(f64::from(self));
            }
            #[inline]
            fn merge(sum: &mut Compensated, other: &Compensated) {
                sum.add(other.0);
                sum.1 += other.1;
            }
            #[inline]
            fn total(sum: &Compensated) -> f64 {
                sum.value()
            }
            fn approximate(sum: &Compensated) -> f64 {
                sum.value()
            }
            #[inline]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
    )*};
}
float!(f32, f64);
