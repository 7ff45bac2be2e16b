//! `Sum` and `Mean`.
use super::{Aggregate, Number, over::of};

/// The sum of numbers; of none, zero.
///
/// Integers come out as `u64` or `i64`, floats as `f64`. The result does not depend on the order of records: 64-bit
/// integers are summed in 128 bits, and a result that does not fit is the largest or least that does; small integers
/// are summed in 64 bits, which 2³² of them cannot fill. Of floats what each addition rounds off is carried along, so
/// that order shows, if at all, in the last bit of the result, unless what is summed nearly cancels out; infinities and
/// NaN are as in any sum.
///
/// ```
/// # use tidegate_core::{Aggregate, operators::aggregate::Sum};
/// struct Click { price: u32 }
/// let revenue = Sum::of(|click: &Click| click.price);
/// let mut state = revenue.init();
/// revenue.add(&mut state, Click { price: 2 });
/// revenue.add(&mut state, Click { price: 3 });
/// assert_eq!(revenue.finish(&state), 5u64);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sum;

of!(Sum, Sum, "The sum of this field.");

impl<N: Number> Aggregate<N> for Sum {
    type State = N::Sum;
    type Output = N::Total;
    #[inline]
    fn init(&self) -> N::Sum {
        N::Sum::default()
    }
    #[inline]
    fn add(&self, state: &mut N::Sum, record: N) {
        record.add_to(state);
    }
    #[inline]
    fn merge(&self, state: &mut N::Sum, other: &N::Sum) {
        N::merge(state, other);
    }
    #[inline]
    fn finish(&self, state: &N::Sum) -> N::Total {
        N::total(state)
    }
}

/// The arithmetic mean; of nothing, `None`. Its sum is [`Sum`]'s, and so is what order means to it.
///
/// ```
/// # use tidegate_core::{Aggregate, operators::aggregate::Mean};
/// let mean = Mean::of(|word: &&str| word.len());
/// let mut state = mean.init();
/// assert_eq!(mean.finish(&state), None);
/// mean.add(&mut state, "a");
/// mean.add(&mut state, "word");
/// assert_eq!(mean.finish(&state), Some(2.5));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Mean;

of!(Mean, Mean, "The mean of this field.");

impl<N: Number> Aggregate<N> for Mean {
    type State = (u64, N::Sum);
    type Output = Option<f64>;
    fn init(&self) -> (u64, N::Sum) {
        Default::default()
    }
    #[inline]
    fn add(&self, (count, sum): &mut (u64, N::Sum), record: N) {
        *count += 1;
        record.add_to(sum);
    }
    fn merge(&self, (count, sum): &mut (u64, N::Sum), (other, others): &(u64, N::Sum)) {
        *count += other;
        N::merge(sum, others);
    }
    fn finish(&self, (count, sum): &(u64, N::Sum)) -> Option<f64> {
        (*count > 0).then(|| N::approximate(sum) / *count as f64)
    }
}
