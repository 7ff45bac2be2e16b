//! `Count`: how many records.
use super::Aggregate;

/// Counts records.
///
/// ```
/// # use tidegate_core::{Aggregate, Count};
/// let mut state = Aggregate::<&str>::init(&Count);
/// Count.add(&mut state, "a");
/// Count.add(&mut state, "b");
/// assert_eq!(Aggregate::<&str>::finish(&Count, &state), 2);
/// ```
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
    #[inline]
    fn add_ref(&self, state: &mut u64, _: &T) {
        *state += 1;
    }
    #[inline]
    fn merge(&self, state: &mut u64, other: &u64) {
        *state += *other;
    }
    #[inline]
    fn finish(&self, state: &u64) -> u64 {
        *state
    }
}
