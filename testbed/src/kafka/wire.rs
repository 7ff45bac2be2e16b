//! As much of Kafka's wire format as a proxy needs: a frame is a length and so many bytes; a request begins with
//! the api's key, its version and a correlation id, a reply with the correlation id alone. So what a reply
//! answers is only known to who has seen its request.
use std::io::{self, Read, Write};

/// Beyond any that a broker takes: what is longer is not Kafka, and its length no reason to take memory.
const LENGTH_MAX: i32 = 256 << 20;

/// One frame, its length with it.
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// The next one; none at the end of the stream.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        match from.read_exact(&mut length) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let count = i32::from_be_bytes(length);
        if !(0..=LENGTH_MAX).contains(&count) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {count} bytes")));
        }
        let mut frame = length.to_vec();
        let read = from.take(count as u64).read_to_end(&mut frame)?;
        if read < count as usize { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(Self(frame))) }
    }

    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.0)
    }

    /// Of a request: which api it is for, and the id that its reply will have.
    pub fn request(&self) -> Option<(i16, i32)> {
        let api = i16::from_be_bytes(self.0.get(4..6)?.try_into().ok()?);
        Some((api, i32::from_be_bytes(self.0.get(8..12)?.try_into().ok()?)))
    }

    /// Of a reply: the id of its request.
    pub fn reply(&self) -> Option<i32> {
        Some(i32::from_be_bytes(self.0.get(4..8)?.try_into().ok()?))
    }
}

#[cfg(test)]
pub(super) fn frame(content: &[u8]) -> Vec<u8> {
    [&(content.len() as i32).to_be_bytes()[..], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_one_by_one_and_written_as_they_were() {
        let bytes = [frame(&[0, 26, 0, 5, 0, 0, 1, 2, 9]), frame(&[0, 0, 1, 2])].concat();
        let (mut from, mut to) = (&bytes[..], Vec::new());
        let request = Frame::read(&mut from).unwrap().unwrap();
        assert_eq!(request.request(), Some((26, 258)));
        let reply = Frame::read(&mut from).unwrap().unwrap();
        assert_eq!((reply.reply(), reply.request()), (Some(258), None));
        assert!(Frame::read(&mut from).unwrap().is_none());
        request.write(&mut to).and_then(|()| reply.write(&mut to)).unwrap();
        assert_eq!(to, bytes);
    }

    #[test]
    fn what_is_cut_off_or_no_frame_is_an_error() {
        for bytes in [&[0, 0, 0, 9, 1][..], b"GET / HTTP/1.1", &[255; 8]] {
            assert!(Frame::read(&mut &bytes[..]).is_err());
        }
    }
}
