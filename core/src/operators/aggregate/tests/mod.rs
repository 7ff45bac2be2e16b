//! The laws that every aggregate keeps, each against a model: adding everything is merging the parts of any split in
//! any order, and state that has been written, in either codec, and read back goes on as if it had not been.
#![allow(clippy::float_cmp, clippy::ref_option)] // what is equal here is equal to the bit; and results are compared as they are
mod bytes;
mod numbers;
mod records;
mod sketches;

use super::Aggregate;
use crate::state::codec::Codec;
use proptest::{prelude::*, sample::Index};

/// Where a list is cut.
pub fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..5)
}

/// A list, and the same in another order.
pub fn shuffled<T: Clone + std::fmt::Debug>(
    lists: impl Strategy<Value = Vec<T>>,
) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    lists.prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()))
}

fn added<T: Clone, A: Aggregate<T>>(aggregate: &A, records: &[T]) -> A::State {
    let mut state = aggregate.init();
    for (i, record) in records.iter().enumerate() {
        match i % 2 {
            0 => aggregate.add(&mut state, record.clone()),
            _ => aggregate.add_ref(&mut state, record),
        }
    }
    state
}

pub fn written_and_read<S: serde::Serialize + serde::de::DeserializeOwned>(codec: Codec, state: &S) -> S {
    let mut bytes = Vec::new();
    codec.encode(state, &mut bytes).unwrap();
    codec.encode(&7u8, &mut bytes).unwrap();
    let mut rest = &bytes[..];
    let read = codec.decode(&mut rest).unwrap();
    assert_eq!(codec.decode::<u8>(&mut rest).unwrap(), 7, "more or less was read than was written");
    read
}

fn pieces<T: Clone, A: Aggregate<T>>(aggregate: &A, records: &[T], cuts: &[Index]) -> Vec<A::State> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(records.len() + 1)).chain([0, records.len()]).collect();
    at.sort_unstable();
    let codecs = [Codec::Named, Codec::Compact].into_iter().cycle();
    let states = at.windows(2).map(|piece| added(aggregate, &records[piece[0]..piece[1]]));
    states.zip(codecs).map(|(state, codec)| written_and_read(codec, &state)).collect()
}

/// The result of all records, once it has been seen that the parts, merged from the left and from the right, come to
/// the same.
pub fn in_order<T: Clone, A: Aggregate<T>>(
    aggregate: &A,
    records: &[T],
    cuts: &[Index],
    same: impl Fn(&A::Output, &A::Output) -> bool,
) -> A::Output {
    let whole = aggregate.finish(&added(aggregate, records));
    let mut left = aggregate.init();
    for state in pieces(aggregate, records, cuts) {
        aggregate.merge(&mut left, &state);
    }
    assert!(same(&whole, &aggregate.finish(&left)), "merged from the left");
    let mut right = aggregate.init();
    for mut state in pieces(aggregate, records, cuts).into_iter().rev() {
        aggregate.merge(&mut state, &right);
        right = state;
    }
    assert!(same(&whole, &aggregate.finish(&right)), "merged from the right");
    // And it goes on as if it had never been cut.
    let mut longer = added(aggregate, records);
    for record in records.iter().take(3) {
        aggregate.add(&mut longer, record.clone());
        aggregate.add(&mut left, record.clone());
    }
    assert!(same(&aggregate.finish(&longer), &aggregate.finish(&left)), "gone on with");
    whole
}

/// As [`in_order`], and that the result of the records in another order, merged backwards, is the same.
pub fn in_any_order<T: Clone, A: Aggregate<T>>(
    aggregate: &A,
    (records, others): &(Vec<T>, Vec<T>),
    cuts: &[Index],
    same: impl Fn(&A::Output, &A::Output) -> bool + Copy,
) -> A::Output {
    let whole = in_order(aggregate, records, cuts, same);
    let mut backwards = aggregate.init();
    for state in pieces(aggregate, others, cuts).into_iter().rev() {
        aggregate.merge(&mut backwards, &state);
    }
    assert!(same(&whole, &aggregate.finish(&backwards)), "in another order");
    whole
}

/// Finite floats of all magnitudes, both zeros, infinities and both NaN of x86 and ARM.
pub fn floats() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => any::<i16>().prop_map(|n| f64::from(n) / 8.0),
        4 => (any::<i32>(), -60..60).prop_map(|(n, e)| f64::from(n) * 2f64.powi(e)),
        1 => prop::sample::select(vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, f64::MAX, f64::MIN, 5e-324]),
    ]
}

/// NaN last, zeros by sign: by counting, not by the order that is tested.
pub fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    let nan = numbers.iter().filter(|n| n.is_nan()).count();
    numbers.retain(|n| !n.is_nan());
    numbers.sort_by(|a, b| a.partial_cmp(b).unwrap().then(b.is_sign_negative().cmp(&a.is_sign_negative())));
    numbers.extend(std::iter::repeat_n(f64::NAN, nan));
    numbers
}

/// The same float; any NaN is any other.
pub fn same(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a.to_bits() == b.to_bits()
}
pub fn same_option(a: &Option<f64>, b: &Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(*a, *b),
        (a, b) => a.is_none() && b.is_none(),
    }
}
