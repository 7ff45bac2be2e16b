//! Keyed operators that give a result for each record: which one it is follows from the order of a key's records, and that
//! is not defined between splits.
use crate::{Conformance, over_both};
use tidegate::{
    Count, Stream,
    testing::{TestStream, Way},
};

type Click = (&'static str, u32);

#[test]
fn a_running_aggregate() {
    over_both(|| {
        Conformance::of(|s: TestStream<Click>| s.key_by(|c| c.0.to_owned()).aggregate("counts", Count))
            .without(Way::ThreeSplits)
            .push(("ann", 1), 10)
            .emits_at(("ann", 1), 10)
            .push(("bob", 1), 20)
            .emits_at(("bob", 1), 20)
            .watermark(15)
            .push(("ann", 5), 5)
            .emits_at(("ann", 2), 5)
            .push(("ann", 6), 30)
            .emits_at(("ann", 3), 30)
            .push(("cid", 1), 31)
            .emits_at(("cid", 1), 31)
            .end()
    });
}

#[test]
fn a_running_fold() {
    over_both(|| {
        let build =
            |s: TestStream<Click>| s.key_by(|c| c.0.to_owned()).fold("sums", 0u64, |sum, c| *sum += u64::from(c.1));
        Conformance::of(build)
            .without(Way::ThreeSplits)
            .push(("ann", 1), 10)
            .emits(("ann", 1))
            .push(("bob", 7), 20)
            .emits(("bob", 7))
            .push(("ann", 2), 30)
            .emits(("ann", 3))
            .push(("bob", 8), 40)
            .emits(("bob", 15))
    });
}

#[test]
fn a_running_reduce() {
    over_both(|| {
        let build =
            |s: TestStream<(u8, u32)>| s.key_by(|c| c.0).reduce("largest", |a, b| if b.1 > a.1 { b } else { a });
        Conformance::of(build)
            .without(Way::ThreeSplits)
            .push((1, 5), 10)
            .emits((1, 5))
            .push((1, 3), 20)
            .emits((1, 5))
            .push((2, 9), 30)
            .emits((2, 9))
            .push((1, 8), 40)
            .emits((1, 8))
    });
}
