//! Distinct counts and quantiles: exact where they say so, within their error beyond, and the same to the last bit
//! however the records were split and merged.
use super::{cuts, floats, in_any_order, in_order, same, shuffled, sorted, written_and_read};
use crate::{
    operators::aggregate::{Aggregate, Distinct, DistinctCount, Quantiles},
    state::codec::Codec,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const AT: [f64; 7] = [0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0];

/// What the quantiles are, and how near it has to be.
fn assert_quantiles(found: Option<[f64; 7]>, numbers: &[f64]) -> Result<(), TestCaseError> {
    let sorted = sorted(numbers.to_vec());
    prop_assert_eq!(found.is_some(), !sorted.is_empty());
    for (q, found) in AT.into_iter().zip(found.into_iter().flatten()) {
        let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
        let error = if sorted.len() > 64 { exact.abs() * 0.010_001 + 1e-9 } else { 0.0 };
        prop_assert!(
            exact == found || same(exact, found) || (exact - found).abs() <= error,
            "{q}: {found} for {exact}"
        );
    }
    Ok(())
}

fn alike(a: &Option<[f64; 7]>, b: &Option<[f64; 7]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| same(*a, *b)),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// All of what [`floats`] has, but within the 17 orders of magnitude that the sketch promises.
fn numbers() -> impl Strategy<Value = f64> {
    floats().prop_map(|n| if n.is_finite() && n.abs() > 1e7 { n.signum() * 1e7 } else { n })
}

proptest! {
    #[test]
    fn few_are_counted_exactly(values in shuffled(prop::collection::vec(0u64..300, 0..400)), cuts in cuts()) {
        let model: BTreeSet<_> = values.0.iter().collect();
        let found = in_any_order(&DistinctCount::default(), &values, &cuts, u64::eq);
        if model.len() <= 256 {
            prop_assert_eq!(found, model.len() as u64);
        }
    }

    #[test]
    fn many_are_within_five_standard_errors(
        values in shuffled(prop::collection::vec(any::<u32>(), 0..3_000)),
        bits in 4u8..16,
        cuts in cuts(),
    ) {
        let model = values.0.iter().collect::<BTreeSet<_>>().len() as f64;
        let found = in_any_order(&DistinctCount::precision(bits), &values, &cuts, u64::eq) as f64;
        let error = if model > 256.0 { model * 5.0 * 1.04 / 2f64.powi(bits.into()).sqrt() } else { 0.0 };
        prop_assert!((found - model).abs() <= error, "{found} for {model}");
    }

    #[test]
    fn quantiles(numbers in shuffled(prop::collection::vec(numbers(), 0..300)), cuts in cuts()) {
        assert_quantiles(in_any_order(&Quantiles::at(AT), &numbers, &cuts, alike), &numbers.0)?;
    }

    /// Whatever is added: without a panic, and without a trace of the order.
    #[test]
    fn quantiles_of_anything_are_the_same_in_any_order(
        numbers in shuffled(prop::collection::vec(prop_oneof![floats(), any::<f64>()], 0..200)),
        cuts in cuts(),
    ) {
        let found = in_any_order(&Quantiles::at(AT), &numbers, &cuts, alike);
        if let Some(found) = found {
            prop_assert!(found.windows(2).all(|two| two[0] <= two[1] || two[1].is_nan()), "{found:?}");
        }
    }
}

#[test]
fn a_million_are_counted_to_their_error() {
    let count = DistinctCount::of(|n: &u32| *n);
    let mut state = count.init();
    for n in 0..1_000_000 {
        count.add(&mut state, n % 500_000);
    }
    let found = count.finish(&state) as f64;
    assert!((found / 500_000.0 - 1.0).abs() < 0.05, "{found}");
    for codec in [Codec::Named, Codec::Compact] {
        let mut bytes = Vec::new();
        codec.encode(&state, &mut bytes).unwrap();
        assert!(bytes.len() < 4_096 + 64, "{} bytes", bytes.len());
    }
}

#[test]
fn a_million_are_ranked_to_their_error() {
    let mut numbers: Vec<f64> = (0..1_000_000u64).map(|n| (n * 7_919 % 1_000_003) as f64 / 1_000.0).collect();
    numbers.extend(numbers.clone().iter().take(1_000).map(|n| -n));
    assert_quantiles(in_order(&Quantiles::at(AT), &numbers, &[], alike), &numbers).unwrap();
    let state = super::added(&Quantiles::at(AT), &numbers);
    for codec in [Codec::Named, Codec::Compact] {
        let mut bytes = Vec::new();
        codec.encode(&state, &mut bytes).unwrap();
        assert!(bytes.len() < 16_384, "{} bytes", bytes.len());
    }
}

#[test]
fn quantiles_that_are_none() {
    assert_eq!(in_order(&Quantiles::at([0.5]), &[0f64; 0], &[], Option::eq), None);
    let at = Quantiles::at([-1.0, 2.0, f64::NAN, f64::INFINITY]);
    assert_eq!(in_order(&at, &[3u32, 1, 2], &[], Option::eq), Some([1.0, 3.0, 1.0, 3.0]));
}

#[test]
fn state_of_another_precision_is_gone_on_with() {
    let (fine, coarse) = (DistinctCount::precision(14), DistinctCount::precision(10));
    let mut state = super::added(&coarse, &(0..2_000u32).collect::<Vec<_>>());
    for n in 2_000..10_000u32 {
        fine.add(&mut state, n);
    }
    let rest = super::added(&fine, &(10_000..20_000u32).collect::<Vec<_>>());
    Aggregate::<u32>::merge(&fine, &mut state, &rest);
    let found = Aggregate::<u32>::finish(&fine, &state) as f64;
    assert!((found / 20_000.0 - 1.0).abs() < 0.15, "{found}");
}

/// Ordered maps have no canonical encoding as keys, and are told apart all the same.
#[test]
fn whatever_has_a_hash_is_counted() {
    let maps = |n: u32| BTreeMap::from([("a", n % 3), ("b", n % 2)]);
    let maps: Vec<_> = (0..60).map(|n| (n % 5, maps(n))).collect();
    assert_eq!(in_order(&DistinctCount::default(), &maps, &[], u64::eq), 30);
    assert_eq!(in_order(&DistinctCount::default(), &["a", "b", "a"], &[], u64::eq), 2);
}

#[test]
fn a_sketch_that_is_none_is_refused() {
    for codec in [Codec::Named, Codec::Compact] {
        for wrong in [&b""[..], b"nothing of the kind", &[0; 40]] {
            let mut bytes = Vec::new();
            codec.encode(&Wrong::Many(Blob(wrong.to_vec())), &mut bytes).unwrap();
            assert!(codec.decode::<Distinct>(&mut &bytes[..]).is_err());
        }
    }
    let few = Distinct::Few(vec![1, 2]);
    assert_eq!(written_and_read(Codec::Named, &few), few);
}

#[derive(serde::Serialize)]
enum Wrong {
    #[expect(dead_code)]
    Few(Vec<u64>),
    Many(Blob),
}
struct Blob(Vec<u8>);
impl serde::Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}
