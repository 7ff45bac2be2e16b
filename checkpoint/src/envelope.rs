//! The wrapping of every small object: one line that says what it is, then JSON.
//!
//! ```text
//! tidegate manifest v1 crc32=5f0c3a19 bytes=1234\n
//! {"job":...}
//! ```
//! A person can read it, `head -1` names its version, and no damage goes unseen: the length catches
//! truncation, the checksum everything else, and anything in the first line that is not as written is an
//! error too. Decoding allocates nothing beyond the value.
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The first line is not one of ours.
    #[error("it is not a tidegate {0}")]
    Foreign(&'static str),
    /// Written by a newer tidegate.
    #[error("it has format {found}, and this tidegate reads up to {known}")]
    Newer {
        /// The version in the file.
        found: u32,
        /// The version that this code knows.
        known: u32,
    },
    /// Fewer or more bytes than were written.
    #[error("it should have {expected} bytes and has {found}")]
    Length {
        /// Bytes written.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Bytes have changed.
    #[error("its checksum does not match")]
    Checksum,
    /// Well protected, but not what was expected.
    #[error("its content cannot be read: {0}")]
    Content(String),
}

impl EnvelopeError {
    /// The error for users: which object and why.
    pub fn of(self, path: &str) -> Error {
        let hint = match self {
            Self::Newer { .. } => "start the job with the tidegate that wrote it, or a newer one",
            _ => "restore the file from a copy, or start from another checkpoint with checkpoint.from",
        };
        Error::corrupt(format!("{path} cannot be used: {self}")).hint(hint)
    }
}

/// Wraps `value` as a `what` of `version`.
///
/// # Errors
/// [`Kind::Internal`](crate::error::Kind) when it does not serialise.
pub fn encode<T: Serialize>(what: &str, version: u32, value: &T) -> Result<Vec<u8>> {
    let body =
        serde_json::to_vec(value).map_err(|e| Error::internal(format!("a {what} does not serialise")).caused_by(e))?;
    Ok(wrap(what, version, &body))
}

/// Wraps a body that is not JSON.
pub fn wrap(what: &str, version: u32, body: &[u8]) -> Vec<u8> {
    let crc = checksum(what, version, body);
    let mut bytes = format!("tidegate {what} v{version} crc32={crc:08x} bytes={}\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Unwraps a `what` of at most `version`.
///
/// # Errors
/// Says precisely what is wrong; never panics, whatever the bytes.
pub fn decode<T: DeserializeOwned>(what: &'static str, version: u32, bytes: &[u8]) -> Result<T, EnvelopeError> {
    let body = unwrap(what, version, bytes)?;
    serde_json::from_slice(body).map_err(|e| EnvelopeError::Content(e.to_string()))
}

/// The body of what [`wrap`] has wrapped.
///
/// # Errors
/// As [`decode`].
pub fn unwrap<'a>(what: &'static str, version: u32, bytes: &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
    let foreign = || EnvelopeError::Foreign(what);
    let end = bytes.iter().take(200).position(|b| *b == b'\n').ok_or_else(foreign)?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| foreign())?;
    let rest = line.strip_prefix("tidegate ").and_then(|l| l.strip_prefix(what)).ok_or_else(foreign)?;
    let (found, rest) = rest.strip_prefix(" v").and_then(|r| r.split_once(" crc32=")).ok_or_else(foreign)?;
    let (crc, length) = rest.split_once(" bytes=").ok_or_else(foreign)?;
    let found_version: u32 = found.parse().map_err(|_| foreign())?;
    if found_version > version {
        return Err(EnvelopeError::Newer { found: found_version, known: version });
    }
    let body = &bytes[end + 1..];
    let expected: u64 = length.parse().map_err(|_| foreign())?;
    if expected != body.len() as u64 {
        return Err(EnvelopeError::Length { expected, found: body.len() as u64 });
    }
    let actual = checksum(what, found_version, body);
    // The line must be, letter for letter, what would be written today.
    if format!("tidegate {what} v{found_version} crc32={actual:08x} bytes={expected}") != line {
        return Err(if format!("{actual:08x}") == crc { foreign() } else { EnvelopeError::Checksum });
    }
    Ok(body)
}

/// Over the kind, the version and the body: a flipped version digit is damage, not another version.
fn checksum(what: &str, version: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(format!("{what} v{version}\n").as_bytes());
    crc.update(body);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        encode("thing", 3, &vec!["a", "b"]).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(decode::<Vec<String>>("thing", 3, &sample()).unwrap(), ["a", "b"]);
        assert_eq!(decode::<Vec<String>>("thing", 4, &sample()).unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_newer_format_and_another_kind_of_object_are_told_apart() {
        assert_eq!(decode::<Vec<String>>("thing", 2, &sample()), Err(EnvelopeError::Newer { found: 3, known: 2 }));
        assert_eq!(decode::<Vec<String>>("other", 3, &sample()), Err(EnvelopeError::Foreign("other")));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_an_error() {
        let whole = sample();
        for end in 0..whole.len() {
            assert!(decode::<Vec<String>>("thing", 3, &whole[..end]).is_err(), "truncated at {end}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Vec<String>>("thing", 3, &bad).is_err(), "bit {bit} flipped");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Vec<String>>("thing", 3, &bytes);
            let mut framed = b"tidegate thing v3 crc32=00000000 bytes=".to_vec();
            framed.extend_from_slice(&bytes);
            prop_assert!(decode::<Vec<String>>("thing", 3, &framed).is_err());
        }
    }
}
