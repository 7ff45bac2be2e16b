//! The order that `Min`, `Max` and `TopK` go by: total, floats too.
use std::cmp::Ordering::{self, Equal, Greater, Less};
use std::{cmp::Reverse, time::Duration};

/// A total order: [`Ord`], and floats, with NaN above every number (as in Spark) and -0.0 below 0.0.
///
/// For a type of one's own it is one line:
///
/// ```
/// # use std::cmp::Ordering;
/// # use tidegate_core::operators::aggregate::TotalOrder;
/// #[derive(PartialEq, Eq, PartialOrd, Ord)]
/// enum Level { Low, High }
/// impl TotalOrder for Level {
///     fn total_order(&self, other: &Self) -> Ordering { self.cmp(other) }
/// }
/// assert_eq!(f64::NAN.total_order(&f64::INFINITY), Ordering::Greater);
/// assert_eq!((1.5, Level::Low).total_order(&(1.5, Level::High)), Ordering::Less);
/// ```
pub trait TotalOrder {
    /// How this one and another are ordered.
    fn total_order(&self, other: &Self) -> Ordering;
}

macro_rules! ordered {
    ($($t:ty),*) => {$(
        impl TotalOrder for $t {
            #[inline]
            fn total_order(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
        }
    )*};
}
ordered!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, bool, char, str, String, (), Duration);

macro_rules! floats {
    ($($t:ty),*) => {$(
        impl TotalOrder for $t {
            #[inline]
            fn total_order(&self, other: &Self) -> Ordering {
                match (self < other, self > other) {
                    (true, _) => Less,
                    (_, true) => Greater,
                    // Zeros, equal ones and NaN; the sign of a NaN is an accident of the processor.
                    _ => match (self.is_nan(), other.is_nan()) {
                        (true, true) => self.to_bits().cmp(&other.to_bits()),
                        (true, false) => Greater,
                        (false, true) => Less,
                        (false, false) => self.total_cmp(other),
                    },
                }
            }
        }
    )*};
}
floats!(f32, f64);

impl<T: TotalOrder + ?Sized> TotalOrder for &T {
    #[inline]
    fn total_order(&self, other: &Self) -> Ordering {
        (**self).total_order(other)
    }
}

impl<T: TotalOrder> TotalOrder for Reverse<T> {
    #[inline]
    fn total_order(&self, other: &Self) -> Ordering {
        other.0.total_order(&self.0)
    }
}

/// `None` comes first, as in [`Ord`].
impl<T: TotalOrder> TotalOrder for Option<T> {
    fn total_order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Some(a), Some(b)) => a.total_order(b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }
}

impl<T: TotalOrder> TotalOrder for [T] {
    fn total_order(&self, other: &Self) -> Ordering {
        let differ = self.iter().zip(other).map(|(a, b)| a.total_order(b)).find(|order| order.is_ne());
        differ.unwrap_or_else(|| self.len().cmp(&other.len()))
    }
}
impl<T: TotalOrder> TotalOrder for Vec<T> {
    fn total_order(&self, other: &Self) -> Ordering {
        self[..].total_order(other)
    }
}
impl<T: TotalOrder, const N: usize> TotalOrder for [T; N] {
    fn total_order(&self, other: &Self) -> Ordering {
        self[..].total_order(other)
    }
}

macro_rules! tuples {
    ($($t:ident $i:tt),*) => {
        impl<$($t: TotalOrder),*> TotalOrder for ($($t,)*) {
            #[inline]
            fn total_order(&self, other: &Self) -> Ordering {
                Equal$(.then_with(|| self.$i.total_order(&other.$i)))*
            }
        }
    };
}
tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);

/// How records rank: by themselves ([`Itself`]) or by a key of theirs ([`ByKey`]).
pub trait Ranking<T>: Clone + Send + Sync + 'static {
    /// How two records are ordered.
    fn rank(&self, a: &T, b: &T) -> Ordering;
}

/// Records rank by their own order.
#[derive(Clone, Copy, Debug)]
pub struct Itself;

impl<T: TotalOrder> Ranking<T> for Itself {
    #[inline]
    fn rank(&self, a: &T, b: &T) -> Ordering {
        a.total_order(b)
    }
}

/// Records rank by what a function makes of them.
#[derive(Clone, Copy, Debug)]
pub struct ByKey<F>(pub(crate) F);

impl<T, K, F> Ranking<T> for ByKey<F>
where
    K: TotalOrder,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
{
    #[inline]
    fn rank(&self, a: &T, b: &T) -> Ordering {
        (self.0)(a).total_order(&(self.0)(b))
    }
}
