//! `DistinctCount`: how many different values, exactly for few, by a sketch for many.
//!
//! Up to [`FEW`] different hashes are kept as they are, so that small counts are exact; beyond that they go into a
//! HyperLogLog sketch of Apache DataSketches. What is kept depends on the *set* of values alone: which form it has is
//! decided by how many different hashes there have been, and the estimate is the one that is read off the registers
//! (the project's "composite"), not the one that follows the order of updates. So the result does not depend on
//! order, splits or merges. The hashes are those of keys, and the sketch is serialised in its project's own format,
//! which C++ and Java read too: both stay what they are over versions and machines.
use datasketches::hll::{HllSketch, HllType, HllUnion};
use rapidhash::v3::rapidhash_v3;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};
use std::hash::Hash;

use super::{Aggregate, over::of};
use crate::state::{
    codec::encode_key,
    hash::{check_key, hash_key},
};

/// How many values are counted exactly.
const FEW: usize = 256;
const PRECISION: u8 = 12;

/// How many different values there are: exactly up to 256, beyond that with a standard error of 1.6 %
/// (4 KiB of state), or what [`precision`](Self::precision) gives. Does not depend on the order of records.
///
/// ```
/// # use tidegate_core::{Aggregate, operators::aggregate::DistinctCount};
/// let visitors = DistinctCount::of(|(user, _): &(u64, &str)| *user);
/// let mut state = visitors.init();
/// for visit in [(1, "/"), (2, "/"), (1, "/cart")] {
///     visitors.add(&mut state, visit);
/// }
/// assert_eq!(visitors.finish(&state), 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DistinctCount {
    precision: u8,
}

of!(DistinctCount, DistinctCount::default(), "How many different values this field has.");

impl Default for DistinctCount {
    fn default() -> Self {
        Self { precision: PRECISION }
    }
}

impl DistinctCount {
    /// With 2^`bits` registers of a byte each, from 4 to 21 (what is outside is taken as the nearest); the standard error
    /// is about 1.04 / √(2^`bits`): 12 bits give 1.6 %, 14 give 0.8 %. State that was written with fewer goes on with
    /// those.
    pub fn precision(bits: u8) -> Self {
        Self { precision: bits.clamp(4, 21) }
    }
}

/// What is kept of values that are counted: few hashes as they are, in order, or registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Distinct {
    /// The hashes.
    Few(Vec<u64>),
    /// The sketch.
    Many(Registers),
}

/// A HyperLogLog sketch; serialised as Apache DataSketches does.
#[derive(Clone, PartialEq)]
pub struct Registers(Box<HllSketch>);

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registers").field("precision", &self.0.lg_config_k()).finish_non_exhaustive()
    }
}

impl Distinct {
    #[inline]
    fn add(&mut self, hash: u64, precision: u8) {
        match self {
            Self::Few(hashes) => {
                if let Err(place) = hashes.binary_search(&hash) {
                    hashes.insert(place, hash);
                    if hashes.len() > FEW {
                        self.outgrow(precision);
                    }
                }
            }
            Self::Many(registers) => registers.add(hash),
        }
    }
    fn add_all(&mut self, hashes: &[u64], precision: u8) {
        for hash in hashes {
            self.add(*hash, precision);
        }
    }
    #[cold]
    fn outgrow(&mut self, precision: u8) {
        if let Self::Few(hashes) = self {
            let mut registers = Registers::new(precision);
            for hash in hashes {
                registers.add(*hash);
            }
            *self = Self::Many(registers);
        }
    }
}

impl Registers {
    fn new(precision: u8) -> Self {
        let Ok(sketch) = HllSketch::new(precision, HllType::Hll8) else {
            unreachable!("a precision out of its bounds")
        };
        Self(Box::new(sketch))
    }
    #[inline]
    fn add(&mut self, hash: u64) {
        // Little-endian on every machine.
        self.0.update(hash.to_le());
    }
    fn merge(&mut self, other: &Self) {
        let precision = self.0.lg_config_k().min(other.0.lg_config_k());
        let Ok(mut union) = HllUnion::new(precision) else { unreachable!("a sketch's precision is in its bounds") };
        union.update(&self.0);
        union.update(&other.0);
        *self.0 = union.to_sketch(HllType::Hll8);
    }
}

/// A hash that is the same for ever. Unordered maps and sets have none, and are no [`Hash`] either; what else has no
/// canonical encoding (ordered maps) is hashed as it is written into state.
#[inline]
fn stable_hash<T: Serialize>(value: &T) -> u64 {
    match hash_key(value) {
        0 => encoded_hash(value),
        hash => hash,
    }
}
#[cold]
fn encoded_hash<T: Serialize>(value: &T) -> u64 {
    let mut bytes = Vec::new();
    let encoded = check_key(value).is_err() && encode_key(value, &mut bytes).is_ok();
    if encoded { rapidhash_v3(&bytes) } else { 0 }
}

impl<T: Serialize + Hash + Eq + 'static> Aggregate<T> for DistinctCount {
    type State = Distinct;
    type Output = u64;
    fn init(&self) -> Distinct {
        Distinct::Few(Vec::new())
    }
    #[inline]
    fn add(&self, state: &mut Distinct, record: T) {
        state.add(stable_hash(&record), self.precision);
    }
    #[inline]
    fn add_ref(&self, state: &mut Distinct, record: &T) {
        state.add(stable_hash(record), self.precision);
    }
    fn merge(&self, state: &mut Distinct, other: &Distinct) {
        match (&mut *state, other) {
            (Distinct::Many(registers), Distinct::Many(others)) => registers.merge(others),
            (_, Distinct::Few(hashes)) => state.add_all(hashes, self.precision),
            (Distinct::Few(_), Distinct::Many(_)) => {
                if let Distinct::Few(hashes) = std::mem::replace(state, other.clone()) {
                    state.add_all(&hashes, self.precision);
                }
            }
        }
    }
    fn finish(&self, state: &Distinct) -> u64 {
        match state {
            Distinct::Few(hashes) => hashes.len() as u64,
            Distinct::Many(registers) => registers.0.composite_estimate().round() as u64,
        }
    }
}

impl Serialize for Registers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.serialize())
    }
}

impl<'de> Deserialize<'de> for Registers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sketch = HllSketch::deserialize(&deserializer.deserialize_byte_buf(Bytes)?).map_err(D::Error::custom)?;
        Ok(Self(Box::new(sketch)))
    }
}

/// Reads bytes, however the codec has them.
pub(super) struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bytes of a sketch")
    }
    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}
