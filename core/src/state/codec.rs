//! How keys and values become bytes.
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use tidegate_checkpoint::error::{Error, Result};

/// The encoding of state. It stands in front of every block, so that a job can change it between runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// `MessagePack` with field names: fields may be added (with `#[serde(default)]`), removed and reordered,
    /// and state can be read without the user's types.
    #[default]
    Named,
    /// postcard: smaller and faster, but positional.
    Compact,
}

impl Codec {
    /// The byte in front of a block.
    pub fn id(self) -> u8 {
        match self {
            Self::Named => 1,
            Self::Compact => 2,
        }
    }

    /// The inverse of [`Codec::id`].
    pub fn by_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Named),
            2 => Some(Self::Compact),
            _ => None,
        }
    }

    /// Appends `value`.
    ///
    /// # Errors
    /// [`Kind::User`](tidegate_checkpoint::error::Kind): its `Serialize` fails.
    #[inline]
    pub fn encode<T: Serialize>(self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Named => value
                .serialize(&mut rmp_serde::Serializer::new(&mut *out).with_struct_map())
                .map_err(|e| unwritable(&e)),
            Self::Compact => postcard::serialize_with_flavor(value, Append(out)).map_err(|e| unwritable(&e)),
        }
    }

    /// Reads a value from the front of `bytes` and moves past it.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](tidegate_checkpoint::error::Kind): the bytes are not one of these.
    #[inline]
    pub fn decode<T: DeserializeOwned>(self, bytes: &mut &[u8]) -> Result<T> {
        match self {
            Self::Named => {
                // Reading from `&mut &[u8]` moves the slice past the value.
                T::deserialize(&mut rmp_serde::Deserializer::new(bytes)).map_err(|e| unreadable::<T>(&e))
            }
            Self::Compact => {
                let (value, rest) = postcard::take_from_bytes(bytes).map_err(|e| unreadable::<T>(&e))?;
                *bytes = rest;
                Ok(value)
            }
        }
    }
}

/// Appends a key of state, as it is under any codec: `MessagePack` without field names, which has one encoding for one
/// key, and can be read without the user's types.
///
/// # Errors
/// As [`Codec::encode`].
#[inline]
pub fn encode_key<K: Serialize>(key: &K, out: &mut Vec<u8>) -> Result<()> {
    key.serialize(&mut rmp_serde::Serializer::new(out)).map_err(|e| unwritable(&e))
}

/// The inverse of [`encode_key`].
///
/// # Errors
/// As [`Codec::decode`].
pub fn decode_key<K: DeserializeOwned>(bytes: &[u8]) -> Result<K> {
    Codec::Named.decode(&mut &bytes[..])
}

struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();
    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }
    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn unwritable(e: &dyn std::fmt::Display) -> Error {
    Error::user(format!("a state value cannot be serialised: {e}"))
}
fn unreadable<T>(e: &dyn std::fmt::Display) -> Error {
    Error::corrupt(format!("state does not read as {}: {e}", std::any::type_name::<T>()))
        .hint("the type has changed in a way its codec cannot follow: give new fields #[serde(default)], and do not change the types of old ones")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Old {
        count: u64,
        gone: String,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct New {
        #[serde(default)]
        added: Option<u8>,
        count: u64,
    }

    #[test]
    fn both_codecs_read_a_sequence_of_values_back() {
        for codec in [Codec::Named, Codec::Compact] {
            let mut bytes = Vec::new();
            for i in 0..3u64 {
                codec.encode(&(i, format!("v{i}")), &mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            for i in 0..3u64 {
                assert_eq!(codec.decode::<(u64, String)>(&mut rest).unwrap(), (i, format!("v{i}")));
            }
            assert!(rest.is_empty() && codec.decode::<(u64, String)>(&mut rest).is_err());
            assert_eq!(Codec::by_id(codec.id()), Some(codec));
        }
    }

    #[test]
    fn named_fields_may_be_added_removed_and_reordered_and_a_wrong_type_names_itself() {
        let mut bytes = Vec::new();
        Codec::Named.encode(&Old { count: 7, gone: "x".into() }, &mut bytes).unwrap();
        assert_eq!(Codec::Named.decode::<New>(&mut &bytes[..]).unwrap(), New { added: None, count: 7 });
        let e = Codec::Named.decode::<u64>(&mut &bytes[..]).unwrap_err().to_string();
        assert!(e.contains("u64") && e.contains("hint"), "{e}");
    }
}
