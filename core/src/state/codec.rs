//! How keys and values become bytes.
//!
//! What an earlier version of a program has written has to be read by the next, whose types have changed. With names that
//! goes as far as it can be told: fields are found by their names, and what does not fit is an error that says which field
//! it is. To find that out costs something, so it is done when the value has failed to be read, once more from its start.
//! Without names there is little to tell by: a value that ends too soon or too late.
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use tidegate_checkpoint::error::{Error, Result};

use super::savepoint::read::json;

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
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): the bytes are not one of these. (That they are what was written
    /// is for those to find out who have kept them.) It says which field does not fit.
    #[inline]
    pub fn decode<T: DeserializeOwned>(self, bytes: &mut &[u8]) -> Result<T> {
        match self {
            Self::Named => {
                let start = *bytes;
                // Reading from `&mut &[u8]` moves the slice past the value.
                T::deserialize(&mut rmp_serde::Deserializer::new(bytes)).map_err(|_| self.unreadable::<T>(start))
            }
            Self::Compact => {
                let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| self.unreadable::<T>(bytes))?;
                *bytes = rest;
                Ok(value)
            }
        }
    }

    /// Reads a value that is all of `bytes`: what is left over was written by another type.
    ///
    /// # Errors
    /// As [`Codec::decode`].
    #[inline]
    pub fn decode_whole<T: DeserializeOwned>(self, mut bytes: &[u8]) -> Result<T> {
        let value = self.decode(&mut bytes)?;
        if bytes.is_empty() {
            Ok(value)
        } else {
            Err(self.misfit::<T>("", &format!("{} bytes are left over", bytes.len())))
        }
    }

    /// Why a value cannot be read, and where in it.
    #[cold]
    fn unreadable<T: DeserializeOwned>(self, bytes: &[u8]) -> Error {
        // Its `Deserialize` is no function of the bytes if it succeeds now.
        let (path, why) = match self {
            Self::Named => {
                let mut rest = bytes;
                let mut reader = rmp_serde::Deserializer::new(&mut rest);
                let failed = failed_at::<T, _>(serde_path_to_error::deserialize(&mut reader)).unwrap_or_default();
                // Of a number that is something else this format says no more than a marker; JSON says both types.
                let value = json(bytes).ok().map(serde_path_to_error::deserialize);
                let clearer = value.and_then(failed_at::<T, _>).filter(|clearer| clearer.0 == failed.0);
                clearer.unwrap_or(failed)
            }
            Self::Compact => {
                let mut reader = postcard::Deserializer::from_bytes(bytes);
                failed_at::<T, _>(serde_path_to_error::deserialize(&mut reader)).unwrap_or_default()
            }
        };
        self.misfit::<T>(&path, &why)
    }

    fn misfit<T>(self, path: &str, why: &str) -> Error {
        let place = if path.is_empty() { String::new() } else { format!("field {path}: ") };
        let error = Error::config(format!("{place}{why} (reading it as {})", std::any::type_name::<T>()));
        error.hint(match self {
            Self::Named => {
                "the type has changed in a way its codec cannot follow: give new fields #[serde(default)], and do not change \
                 the types of old ones"
            }
            Self::Compact => {
                "state of codec \"compact\" is read by the type that wrote it alone: go back to that, run it once with \
                 state.codec = \"named\", and change the type then"
            }
        })
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
    Codec::Named.decode_whole(bytes).map_err(|e| e.at("the key"))
}

/// The field at which reading has failed, and why; the field is empty where it is the whole value.
fn failed_at<T, E: std::fmt::Display>(read: Result<T, serde_path_to_error::Error<E>>) -> Option<(String, String)> {
    let e = read.err()?;
    let path = e.path().to_string();
    Some((if path == "." { String::new() } else { path }, e.into_inner().to_string()))
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

    #[derive(Debug, Serialize, Deserialize)]
    struct User<T> {
        name: String,
        visits: Vec<Visits<T>>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Visits<T> {
        count: T,
    }

    #[test]
    fn the_field_that_does_not_fit_is_named() {
        let user = |count| User { name: "Ada".into(), visits: vec![Visits { count }] };
        let mut bytes = Vec::new();
        Codec::Named.encode(&user("x"), &mut bytes).unwrap();
        let e = Codec::Named.decode::<User<u64>>(&mut &bytes[..]).unwrap_err();
        assert_eq!(e.kind(), tidegate_checkpoint::error::Kind::Config);
        let text = e.to_string();
        assert!(text.contains("field visits[0].count: invalid type: string \"x\", expected u64"), "{text}");
        bytes.extend_from_slice(&bytes.clone());
        let text = Codec::Named.decode::<User<Option<f64>>>(&mut &bytes[..]).unwrap_err().to_string();
        assert!(text.contains("field visits[0].count: invalid type: string \"x\", expected f64"), "{text}");
        bytes.truncate(bytes.len() / 2);
        #[derive(Debug, Deserialize)]
        struct More {
            #[allow(dead_code)]
            surname: String,
        }
        let e = Codec::Named.decode::<More>(&mut &bytes[..]).unwrap_err().to_string();
        assert!(e.contains("missing field `surname`") && e.contains("More"), "{e}");
        bytes.clear();
        Codec::Compact.encode(&user("x"), &mut bytes).unwrap();
        let e = Codec::Compact.decode_whole::<User<(u64, u64, u64)>>(&bytes).unwrap_err().to_string();
        assert!(e.contains("field [1][0][0]") && e.contains("codec \"compact\""), "{e}");
    }

    #[test]
    fn what_is_left_over_of_a_value_is_noticed() {
        for codec in [Codec::Named, Codec::Compact] {
            let mut bytes = Vec::new();
            codec.encode(&(1u8, 2u8), &mut bytes).unwrap();
            assert_eq!(codec.decode_whole::<(u8, u8)>(&bytes).unwrap(), (1, 2));
            bytes.push(3);
            let e = codec.decode_whole::<(u8, u8)>(&bytes).unwrap_err().to_string();
            assert!(e.contains("1 bytes are left over"), "{e}");
        }
    }
}
