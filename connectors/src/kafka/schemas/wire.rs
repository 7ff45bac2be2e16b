//! What stands before the bytes of a record: a zero, and the schema's id in four bytes, the highest first. With
//! Protobuf then the place of the message in its schema: the index of the outermost message in the file, of the one
//! in it, and so on; their count first, all as zigzag varints. The place that nearly all have, `[0]`, is a single
//! zero: that is the hard case, as it reads like a list of none.

/// The length of the zero and the id.
pub(super) const HEAD: usize = 5;
/// Messages in messages, at most.
const DEPTH_MAX: i64 = 32;

/// The schema's id, and what is behind it.
pub(super) fn split(value: &[u8]) -> Result<(u32, &[u8]), String> {
    match value {
        [0, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        [0, ..] | [] => Err(format!("it has {} bytes, and a schema's id alone takes {HEAD}", value.len())),
        [first, ..] => Err(format!("it begins with the byte {first} and not with 0: no schema's id is in it")),
    }
}

/// The zero and the id.
pub(super) fn head(id: u32) -> [u8; HEAD] {
    let [a, b, c, d] = id.to_be_bytes();
    [0, a, b, c, d]
}

/// A message's place in its schema, and what is behind it.
pub(super) fn place(mut bytes: &[u8]) -> Result<(Vec<u32>, &[u8]), String> {
    let count = varint(&mut bytes)?;
    if count == 0 {
        return Ok((vec![0], bytes));
    }
    if !(1..=DEPTH_MAX).contains(&count) {
        return Err(format!("it has {count} indexes of messages"));
    }
    let index = |_| {
        let index = varint(&mut bytes)?;
        u32::try_from(index).map_err(|_| format!("{index} is no index of a message"))
    };
    let place = (0..count).map(index).collect::<Result<_, _>>()?;
    Ok((place, bytes))
}

/// Appends a message's place.
pub(super) fn put_place(place: &[u32], to: &mut Vec<u8>) {
    if place == [0] {
        return to.push(0);
    }
    put_varint(place.len() as u64, to);
    for index in place {
        put_varint(u64::from(*index), to);
    }
}

/// A zigzag varint.
fn varint(bytes: &mut &[u8]) -> Result<i64, String> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((first, rest)) = bytes.split_first() else {
            return Err("it ends within the indexes of its message".into());
        };
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    Err("an index of its message is longer than any number".into())
}

/// Of a number that is not negative.
fn put_varint(number: u64, to: &mut Vec<u8>) {
    let mut rest = number << 1;
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_behind_a_zero_with_the_highest_byte_first() {
        assert_eq!(head(258), [0, 0, 0, 1, 2]);
        assert_eq!(split(&[0, 0, 0, 1, 2, 9]).unwrap(), (258, &[9][..]));
        for (bytes, why) in [(&b"{}"[..], "123"), (b"", "0 bytes"), (&[0, 0, 0, 1], "4 bytes")] {
            assert!(split(bytes).unwrap_err().contains(why), "{bytes:?}");
        }
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for (place_of, bytes) in
            [(&[0][..], &[0][..]), (&[1], &[2, 2]), (&[1, 0], &[4, 2, 0]), (&[2, 100], &[4, 4, 200, 1])]
        {
            let mut put = Vec::new();
            put_place(place_of, &mut put);
            assert_eq!(put, bytes);
            put.push(7);
            assert_eq!(place(&put).unwrap(), (place_of.to_vec(), &[7][..]));
        }
        // The long form of the short one.
        assert_eq!(place(&[2, 0]).unwrap(), (vec![0], &[][..]));
    }

    #[test]
    fn what_is_no_place_says_why() {
        for (bytes, why) in [
            (&[][..], "ends"),
            (&[4, 2], "ends"),
            (&[1], "-1"),
            (&[0xff, 0xff, 3], "indexes"),
            (&[2, 1], "-1"),
            (&[0xff; 11], "longer"),
        ] {
            assert!(place(bytes).unwrap_err().contains(why), "{bytes:?}: {:?}", place(bytes));
        }
    }
}
