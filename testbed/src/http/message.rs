//! Requests and replies as they are on the wire, read whole: where one ends is all that a proxy has to know of it.
//! The hard case is just that: a reply to HEAD says how long the body would be, and has none; a body comes with its
//! length, in chunks, or lasts until the connection is closed.
use std::io::{self, BufRead, Read as _};

/// Longer is no head of a test's.
const HEAD_MAX: u64 = 1 << 20;

pub(super) struct Message {
    /// The first line and the headers, and the empty line.
    pub head: String,
    /// As it came, chunks and all.
    pub body: Vec<u8>,
    /// Nothing can follow it on its connection.
    pub is_last: bool,
}

/// A header's value; names are in lower case.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Message {
    /// The head of the next one; none at the end of the stream.
    fn head(from: &mut impl BufRead) -> io::Result<Option<String>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let left = HEAD_MAX.saturating_sub(head.len() as u64);
            if from.by_ref().take(left).read_until(b'\n', &mut head)? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        String::from_utf8(head).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// The next request. Of one that waits to be told to go on, `go_on` is called before its body.
    pub fn request(from: &mut impl BufRead, go_on: impl FnOnce() -> io::Result<()>) -> io::Result<Option<Self>> {
        let Some(head) = Self::head(from)? else { return Ok(None) };
        if header(&head, "expect").is_some() {
            go_on()?;
        }
        Self::with_body(head, from, false).map(Some)
    }

    /// The next reply, interim ones too.
    pub fn reply(from: &mut impl BufRead, to_head: bool) -> io::Result<Option<Self>> {
        let Some(head) = Self::head(from)? else { return Ok(None) };
        let bare = Self { head, body: Vec::new(), is_last: false };
        if to_head || matches!(bare.status(), Some(100..=199 | 204 | 304)) {
            return Ok(Some(bare));
        }
        Self::with_body(bare.head, from, true).map(Some)
    }

    fn with_body(head: String, from: &mut impl BufRead, to_end: bool) -> io::Result<Self> {
        let mut body = Vec::new();
        let length = header(&head, "content-length").and_then(|length| length.parse::<u64>().ok());
        let mut is_last = header(&head, "connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        if header(&head, "transfer-encoding").is_some() {
            while chunk(from, &mut body)? {}
        } else if let Some(length) = length {
            exactly(length, from, &mut body)?;
        } else if to_end {
            is_last = true;
            from.read_to_end(&mut body)?;
        }
        Ok(Self { head, body, is_last })
    }

    /// Of a reply.
    pub fn status(&self) -> Option<u16> {
        self.head.split(' ').nth(1)?.parse().ok()
    }

    /// Of a request: its method and path, as `PUT /bucket/key`.
    pub fn line(&self) -> &str {
        self.head.rsplit_once(" HTTP/1.").and_then(|_| self.head.split(" HTTP/1.").next()).unwrap_or_default()
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }

    /// The body without its chunks.
    pub fn content(&self) -> Vec<u8> {
        if header(&self.head, "transfer-encoding").is_none() {
            return self.body.clone();
        }
        let (mut content, mut rest) = (Vec::new(), &self.body[..]);
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let length = length(&rest[..at]).unwrap_or_default() as usize;
            let chunk = rest.get(at + 1..at + 1 + length).unwrap_or_default();
            if chunk.is_empty() {
                break;
            }
            content.extend_from_slice(chunk);
            rest = rest.get(at + 3 + length..).unwrap_or_default();
        }
        content
    }
}

/// Reads one chunk, or the trailers; whether there are more.
fn chunk(from: &mut impl BufRead, to: &mut Vec<u8>) -> io::Result<bool> {
    let begin = to.len();
    from.read_until(b'\n', to)?;
    let length = length(&to[begin..]).ok_or(io::ErrorKind::InvalidData)?;
    if length > 0 {
        exactly(length + 2, from, to)?;
        return Ok(true);
    }
    loop {
        let begin = to.len();
        if from.read_until(b'\n', to)? == 0 || &to[begin..] == b"\r\n" {
            return Ok(false);
        }
    }
}

fn length(line: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(line).ok()?.split(';').next()?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn exactly(length: u64, from: &mut impl BufRead, to: &mut Vec<u8>) -> io::Result<()> {
    let read = from.by_ref().take(length).read_to_end(to)?;
    if (read as u64) < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_message_ends_the_next_begins() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab\
            HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 503 Slow Down\r\n\r\nto the end";
        let mut from = text.as_bytes();
        let mut contents = Vec::new();
        let mut all = Vec::new();
        for n in 0..5 {
            let reply = Message::reply(&mut from, n == 0).unwrap().unwrap();
            contents.push((reply.status().unwrap(), String::from_utf8(reply.content()).unwrap()));
            all.extend(reply.bytes());
        }
        let expected = [(200, ""), (200, "ab"), (200, "abcd"), (204, ""), (503, "to the end")];
        assert_eq!(contents, expected.map(|(status, content)| (status, content.to_owned())));
        assert!(all == text.as_bytes() && Message::reply(&mut from, false).unwrap().is_none());
    }

    #[test]
    fn a_request_may_wait_before_its_body() {
        let mut from =
            &b"PUT /a/b HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\r\n\r\n"[..];
        let mut told = 0;
        let mut next = || {
            let request = Message::request(&mut from, || {
                told += 1;
                Ok(())
            });
            request.unwrap().map(|request| (request.line().to_owned(), request.body))
        };
        assert_eq!(next(), Some(("PUT /a/b".to_owned(), b"x".to_vec())));
        assert_eq!(next(), Some(("GET /".to_owned(), Vec::new())));
        assert_eq!(next(), None);
        assert_eq!(told, 1);
    }
}
