//! Tuples of two to eight aggregates of the same records, as one.
use super::Aggregate;

macro_rules! tuples {
    ($(#[$doc:meta])* $($a:ident $i:tt)*; $last:ident $j:tt) => {
        $(#[$doc])*
        impl<T: Clone, $($a: Aggregate<T>,)* $last: Aggregate<T>> Aggregate<T> for ($($a,)* $last) {
            type State = ($($a::State,)* $last::State);
            type Output = ($($a::Output,)* $last::Output);
            #[inline]
            fn init(&self) -> Self::State {
                ($(self.$i.init(),)* self.$j.init())
            }
            #[inline]
            fn add(&self, state: &mut Self::State, record: T) {
                $(self.$i.add_ref(&mut state.$i, &record);)*
                self.$j.add(&mut state.$j, record);
            }
            #[inline]
            fn add_ref(&self, state: &mut Self::State, record: &T) {
                $(self.$i.add_ref(&mut state.$i, record);)*
                self.$j.add_ref(&mut state.$j, record);
            }
            #[inline]
            fn merge(&self, state: &mut Self::State, other: &Self::State) {
                $(self.$i.merge(&mut state.$i, &other.$i);)*
                self.$j.merge(&mut state.$j, &other.$j);
            }
            #[inline]
            fn finish(&self, state: &Self::State) -> Self::Output {
                ($(self.$i.finish(&state.$i),)* self.$j.finish(&state.$j))
            }
        }
    };
}
tuples!(
    /// ```
    /// # use tidegate_core::{Aggregate, Count, operators::aggregate::{Max, Sum}};
    /// let all = (Count, Sum::of(|price: &u32| *price), Max::of(|price: &u32| *price));
    /// let mut state = all.init();
    /// all.add(&mut state, 2);
    /// all.add(&mut state, 3);
    /// assert_eq!(all.finish(&state), (2, 5, Some(3)));
    /// ```
    A 0; B 1
);
tuples!(A 0 B 1; C 2);
tuples!(A 0 B 1 C 2; D 3);
tuples!(A 0 B 1 C 2 D 3; E 4);
tuples!(A 0 B 1 C 2 D 3 E 4; F 5);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5; G 6);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6; H 7);
