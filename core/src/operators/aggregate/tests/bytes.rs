//! The bytes of states, pinned: state of today must be read by later versions, on any machine.
use super::added;
use crate::{
    operators::aggregate::{Aggregate, DistinctCount, Max, Mean, Quantiles, Sum, TopK, Variance},
    state::codec::Codec,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// That this state has these bytes, under either codec, and that these bytes have this result.
#[track_caller]
fn pinned<T: Clone, A: Aggregate<T>>(aggregate: &A, records: &[T], golden: [&str; 2], result: A::Output)
where
    A::Output: PartialEq + std::fmt::Debug,
{
    for (codec, golden) in [Codec::Named, Codec::Compact].into_iter().zip(golden) {
        let mut bytes = Vec::new();
        codec.encode(&added(aggregate, records), &mut bytes).unwrap();
        assert_eq!(hex(&bytes), golden, "{codec:?}");
        let state = codec.decode(&mut &unhex(golden)[..]).unwrap();
        assert_eq!(aggregate.finish(&state), result, "{codec:?}");
    }
}

#[test]
fn states_have_the_bytes_that_they_had() {
    pinned(&Sum, &[1u32, 2], ["03", "03"], 3);
    pinned(&Sum, &[1u64, 2], ["920300", "0300"], 3);
    pinned(&Sum, &[-1i64], ["92cfffffffffffffffffff", "ffffffffffffffffff0101"], -1);
    let floats = ["92cb3ff8000000000000cb0000000000000000", "000000000000f83f0000000000000000"];
    pinned(&Sum, &[0.5f64, 1.0], floats, 1.5);
    pinned(&Mean, &[1u32, 2], ["920203", "0203"], Some(1.5));
    let moments = ["9302cb3ff8000000000000cb3fe0000000000000", "02000000000000f83f000000000000e03f"];
    pinned(&Variance::sample(), &[1.0, 2.0], moments, Some(0.5));
    pinned(&Max, &["b".to_owned(), "a".to_owned()], ["a162", "010162"], Some("b".to_owned()));
    pinned(&TopK::largest(2), &[1u8, 2, 3], ["920302", "020302"], vec![3, 2]);
    let hashes = ["81a346657792cf4ef33f64fd3f05a2cf5b61bd0bb55af206", "0002a28bfce9cfeccff94e86e4ebaabba1efb05b"];
    pinned(&DistinctCount::default(), &["a", "b"], hashes, 2);
    let numbers = ["81a346657792cb3ff0000000000000cb4000000000000000", "0002000000000000f03f0000000000000040"];
    pinned(&Quantiles::at([0.5]), &[1u8, 2], numbers, Some([1.0]));
}

#[test]
fn sketches_have_the_bytes_that_they_had() {
    const REGISTERS: &str = "0a0107040000000a1b1cd98e4ff676400000000000d0de3f00000000000000000000000000000000\
        060405040608050604050a0605070405";
    let golden = [format!("81a44d616e79c438{REGISTERS}"), format!("0138{REGISTERS}")];
    let numbers: Vec<u32> = (0..300).collect();
    pinned(&DistinctCount::precision(4), &numbers, golden.each_ref().map(|g| &**g), 358);

    const SKETCH: &str = "a08c1c8800000000000000008c000000000000004084000000000040514002fd4a815abf52f03f\
        0000000000000000048910050200094409";
    let golden = [
        format!("81a44d616e7984a666696e697465c438{SKETCH}a562656c6f7700a561626f766500a36e616e00"),
        format!("0138{SKETCH}000000"),
    ];
    let numbers: Vec<u32> = (0..70).map(|n| n % 3).collect();
    pinned(&Quantiles::at([0.0, 1.0]), &numbers, golden.each_ref().map(|g| &**g), Some([0.0, 2.0]));
}
