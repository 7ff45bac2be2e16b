//! Records by a key, by arrival, the k of them, several aggregates at once.
use super::{cuts, floats, in_any_order, in_order, same, shuffled, sorted, written_and_read};
use crate::{
    operators::aggregate::{Aggregate, Count, First, Last, Max, Min, Reduce, Sum, TopK, over},
    state::codec::Codec,
};
use proptest::prelude::*;

/// A key, which others have too, and who it is.
fn records() -> impl Strategy<Value = (Vec<(i8, u32)>, Vec<(i8, u32)>)> {
    let keys = prop::collection::vec(-3i8..4, 0..40);
    shuffled(keys.prop_map(|keys| keys.into_iter().zip(0u32..).collect()))
}
type Record = (i8, u32);

proptest! {
    #[test]
    fn by_a_key_that_tells_records_apart_order_does_not_matter(records in records(), cuts in cuts()) {
        let all = &records.0;
        prop_assert_eq!(in_any_order(&Min::by(|r: &Record| *r), &records, &cuts, Option::eq), all.iter().min().copied());
        prop_assert_eq!(in_any_order(&Max::by(|r: &Record| *r), &records, &cuts, Option::eq), all.iter().max().copied());
        prop_assert_eq!(in_any_order(&First::by(|r: &Record| *r), &records, &cuts, Option::eq), all.iter().min().copied());
        prop_assert_eq!(in_any_order(&Last::by(|r: &Record| *r), &records, &cuts, Option::eq), all.iter().max().copied());
    }

    #[test]
    fn of_equal_keys_arrival_decides(records in records(), cuts in cuts()) {
        let all = &records.1;
        let key = |r: &Record| r.0;
        let least = all.iter().map(key).min();
        let greatest = all.iter().map(key).max();
        let first = |k: Option<i8>| all.iter().find(|r| Some(r.0) == k).copied();
        let last = |k: Option<i8>| all.iter().rfind(|r| Some(r.0) == k).copied();
        prop_assert_eq!(in_order(&Min::by(key), all, &cuts, Option::eq), first(least));
        prop_assert_eq!(in_order(&Max::by(key), all, &cuts, Option::eq), first(greatest));
        prop_assert_eq!(in_order(&First::by(key), all, &cuts, Option::eq), first(least));
        prop_assert_eq!(in_order(&Last::by(key), all, &cuts, Option::eq), last(greatest));
        prop_assert_eq!(in_order(&First, all, &cuts, Option::eq), all.first().copied());
        prop_assert_eq!(in_order(&Last, all, &cuts, Option::eq), all.last().copied());
        let of = |r: &Record| r.1;
        prop_assert_eq!(in_order(&First::of(of), all, &cuts, Option::eq), all.first().map(of));
        prop_assert_eq!(in_order(&Last::of(of), all, &cuts, Option::eq), all.last().map(of));
    }

    #[test]
    fn the_k_first_of_a_stable_sort(records in records(), k in 0usize..12, cuts in cuts()) {
        let all = &records.1;
        let mut model = all.clone();
        model.sort_by_key(|r| r.0);
        model.truncate(k);
        prop_assert_eq!(in_order(&TopK::smallest_by(k, |r: &Record| r.0), all, &cuts, Vec::eq), model);
        let mut model = all.clone();
        model.sort_by_key(|r| -r.0);
        model.truncate(k);
        prop_assert_eq!(in_order(&TopK::largest_by(k, |r: &Record| r.0), all, &cuts, Vec::eq), model);
        let mut model = all.clone();
        model.sort_unstable();
        model.truncate(k);
        prop_assert_eq!(in_any_order(&TopK::smallest(k), &records, &cuts, Vec::eq), model);
    }

    #[test]
    fn the_k_largest_floats_begin_with_nan(numbers in shuffled(prop::collection::vec(floats(), 0..40)), k in 0usize..8, cuts in cuts()) {
        let alike = |a: &Vec<f64>, b: &Vec<f64>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(*a, *b));
        let mut model = sorted(numbers.0.clone());
        let least = model.iter().copied().take(k).collect();
        model.reverse();
        model.truncate(k);
        prop_assert!(alike(&in_any_order(&TopK::largest(k), &numbers, &cuts, alike), &model));
        prop_assert!(alike(&in_any_order(&TopK::smallest(k), &numbers, &cuts, alike), &least));
    }

    #[test]
    fn several_are_each_of_them(records in records(), cuts in cuts()) {
        let id = |r: &Record| r.1;
        let (first, least) = (over(id, Sum), Min::of(id));
        let two = (Count, first);
        let both = in_any_order(&two, &records, &cuts, PartialEq::eq);
        prop_assert_eq!(both, (records.0.len() as u64, in_any_order(&first, &records, &cuts, u64::eq)));
        let eight = (Count, first, Max::of(id), Count, Count, Reduce(|a: Record, b: Record| a.max(b)), Count, least);
        let all = in_any_order(&eight, &records, &cuts, PartialEq::eq);
        prop_assert_eq!((all.0, all.1), both);
        prop_assert_eq!(all.5, records.0.iter().max().copied());
        prop_assert_eq!(all.7, in_any_order(&least, &records, &cuts, Option::eq));
    }

    #[test]
    fn outputs_are_mapped(records in records(), cuts in cuts()) {
        let twice = Sum::of(|r: &Record| r.1).map_output(|n| n * 2);
        prop_assert_eq!(in_any_order(&twice, &records, &cuts, u64::eq), records.0.iter().map(|r| u64::from(r.1)).sum::<u64>() * 2);
    }
}

#[test]
fn state_of_another_k_is_gone_on_with() {
    let (five, two) = (TopK::largest(5), TopK::largest(2));
    let mut state = five.init();
    (0..9).for_each(|n| five.add(&mut state, n));
    let mut state = written_and_read(Codec::Named, &state);
    assert_eq!(two.finish(&state), [8, 7]);
    two.add(&mut state, 5);
    assert_eq!(two.finish(&state), [8, 7]);
    two.add(&mut state, 9);
    assert_eq!((two.finish(&state), state.len()), (vec![9, 8], 2));
    let none = TopK::largest(0);
    none.add(&mut state, 10);
    assert!(none.finish(&state).is_empty());
}
