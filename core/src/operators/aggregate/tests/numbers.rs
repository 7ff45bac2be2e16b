//! Sums, means, variances, and what is least and greatest.
use super::{cuts, floats, in_any_order, in_order, same_option, shuffled, sorted};
use crate::operators::aggregate::{Aggregate, Count, Max, Mean, Min, StdDev, Sum, Variance};
use proptest::prelude::*;

fn list<T: std::fmt::Debug + Clone>(of: impl Strategy<Value = T>) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    shuffled(prop::collection::vec(of, 0..60))
}

/// Whole numbers of so many bits of 2⁻²⁰, of which a sum of a few is exact in 128 bits.
fn exact() -> impl Strategy<Value = (i64, i32)> {
    (-(1i64 << 40)..1 << 40, 0..60)
}
fn float((n, e): &(i64, i32)) -> f64 {
    *n as f64 * 2f64.powi(e - 20)
}
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}
fn near_option(a: &Option<f64>, b: &Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => near(*a, *b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

proptest! {
    #[test]
    fn counts(records in list(any::<u8>()), cuts in cuts()) {
        prop_assert_eq!(in_any_order(&Count, &records, &cuts, u64::eq), records.0.len() as u64);
    }

    #[test]
    fn sums_of_64_bits_do_not_wrap(unsigned in list(any::<u64>()), signed in list(any::<i64>()), cuts in cuts()) {
        let model = unsigned.0.iter().map(|n| i128::from(*n)).sum::<i128>().min(u64::MAX.into());
        prop_assert_eq!(i128::from(in_any_order(&Sum, &unsigned, &cuts, u64::eq)), model);
        let sum = signed.0.iter().map(|n| i128::from(*n)).sum::<i128>();
        let total = in_any_order(&Sum, &signed, &cuts, i64::eq);
        prop_assert_eq!(i128::from(total), sum.clamp(i64::MIN.into(), i64::MAX.into()));
        let mean = in_any_order(&Mean, &signed, &cuts, same_option);
        prop_assert_eq!(mean, (!signed.0.is_empty()).then(|| sum as f64 / signed.0.len() as f64));
    }

    #[test]
    fn sums_of_small_integers_are_wide(a in list(any::<u32>()), b in list(any::<i32>()), c in list(any::<i8>()), cuts in cuts()) {
        prop_assert_eq!(in_any_order(&Sum, &a, &cuts, u64::eq), a.0.iter().map(|n| u64::from(*n)).sum::<u64>());
        prop_assert_eq!(in_any_order(&Sum, &b, &cuts, i64::eq), b.0.iter().map(|n| i64::from(*n)).sum::<i64>());
        prop_assert_eq!(in_any_order(&Sum, &c, &cuts, i64::eq), c.0.iter().map(|n| i64::from(*n)).sum::<i64>());
    }

    /// In any order, however unequal the numbers are: within the last bits of what was added, where a naive sum is not.
    #[test]
    fn sums_of_floats_are_right_to_the_last_bits(parts in list(exact()), cuts in cuts()) {
        let exact = parts.0.iter().map(|(n, e)| i128::from(*n) << e).sum::<i128>() as f64 / 2f64.powi(20);
        let numbers = (parts.0.iter().map(float).collect::<Vec<_>>(), parts.1.iter().map(float).collect());
        let magnitude = numbers.0.iter().map(|n| n.abs()).sum::<f64>();
        // The rest itself is rounded, by 2⁻⁵³ of what is 2⁻⁵³ of the sum already.
        let bound = |sum: f64| sum.abs() * f64::EPSILON + magnitude * f64::EPSILON * f64::EPSILON * 64.0;
        let close = |a: &f64, b: &f64| (a - b).abs() <= 2.0 * bound(a.abs().max(b.abs()));
        let total = in_any_order(&Sum, &numbers, &cuts, close);
        prop_assert!((total - exact).abs() <= bound(exact), "{total} for {exact}");
        let count = numbers.0.len().max(1) as f64;
        let mean = Aggregate::<f64>::map_output(Mean, |mean| mean.unwrap_or(0.0));
        let mean = in_any_order(&mean, &numbers, &cuts, close);
        prop_assert!((mean - exact / count).abs() <= 2.0 * bound(exact / count), "{mean}");
    }

    #[test]
    fn variances(numbers in list((any::<i16>(), prop_oneof![Just(0.0), Just(1e6)])), cuts in cuts()) {
        let float = |list: &Vec<(i16, f64)>| list.iter().map(|(n, far)| f64::from(*n) / 64.0 + far).collect::<Vec<_>>();
        let numbers = (float(&numbers.0), float(&numbers.1));
        let n = numbers.0.len() as f64;
        let mean = numbers.0.iter().sum::<f64>() / n;
        let squares = numbers.0.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        let population = in_any_order(&Variance::population(), &numbers, &cuts, near_option);
        prop_assert!(near_option(&population, &(n > 0.0).then(|| squares / n)), "{population:?}");
        let sample = in_any_order(&Variance::sample(), &numbers, &cuts, near_option);
        prop_assert!(near_option(&sample, &(n > 1.0).then(|| squares / (n - 1.0))), "{sample:?}");
        let deviation = in_any_order(&StdDev::sample(), &numbers, &cuts, near_option);
        prop_assert!(near_option(&deviation, &sample.map(f64::sqrt)), "{deviation:?}");
    }

    #[test]
    fn least_and_greatest(numbers in list(floats()), words in list("[a-c]{0,3}"), cuts in cuts()) {
        let sorted = sorted(numbers.0.clone());
        let min = in_any_order(&Min, &numbers, &cuts, same_option);
        prop_assert!(same_option(&min, &sorted.first().copied()), "{min:?}");
        let max = in_any_order(&Max, &numbers, &cuts, same_option);
        prop_assert!(same_option(&max, &sorted.last().copied()), "{max:?}");
        prop_assert_eq!(in_any_order(&Min, &words, &cuts, Option::eq), words.0.iter().min().cloned());
        prop_assert_eq!(in_any_order(&Max, &words, &cuts, Option::eq), words.0.iter().max().cloned());
    }
}

#[test]
fn what_overflows_on_the_way_is_right_in_the_end() {
    let sum = |numbers: &[i64]| in_order(&Sum, numbers, &[], i64::eq);
    assert_eq!(sum(&[i64::MAX, i64::MAX, -i64::MAX, -5]), i64::MAX - 5);
    assert_eq!((sum(&[i64::MAX, 1]), sum(&[i64::MIN, -1])), (i64::MAX, i64::MIN));
    assert_eq!(in_order(&Sum, &[u64::MAX, u64::MAX], &[], u64::eq), u64::MAX);
    assert_eq!(in_order(&Sum, &[usize::MAX, 1], &[], u64::eq), u64::MAX);
}

#[test]
fn floats_that_are_not_numbers() {
    let sum = |numbers: &[f64]| in_order(&Sum, numbers, &[], |a, b| super::same(*a, *b));
    assert_eq!(sum(&[f64::INFINITY, 1.0, -1e300]), f64::INFINITY);
    assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan() && sum(&[1.0, f64::NAN]).is_nan());
    // Lost by a naive sum.
    assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
    let variance = in_order(&Variance::sample(), &[1.0, f64::NAN, 2.0], &[], same_option);
    assert!(variance.is_some_and(f64::is_nan));
}

#[test]
fn nothing_comes_to_nothing() {
    let none: [f64; 0] = [];
    assert_eq!(in_order(&Sum, &none, &[], f64::eq), 0.0);
    assert_eq!(in_order(&Mean, &none, &[], Option::eq), None);
    assert_eq!(in_order(&Min, &none, &[], Option::eq), None);
    assert_eq!(in_order(&Variance::population(), &none, &[], Option::eq), None);
    assert_eq!(in_order(&Variance::sample(), &[1.0], &[], Option::eq), None);
    assert_eq!(in_order(&Variance::population(), &[1.0], &[], Option::eq), Some(0.0));
}
