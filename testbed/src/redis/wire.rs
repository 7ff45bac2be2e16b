//! Redis's protocol for a [`Proxy`](super::Proxy): a request is named by its words, and an answer is an error. Replies are
//! read as they are, of the newer RESP3 too, since a client may ask for it.
use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    net::TcpStream,
};

use crate::proxy::{Reply, Request, Wire};

/// So much of a request names it.
const LINE_MAX: usize = 200;

/// RESP.
pub struct Resp;

impl Wire for Resp {
    /// An error as Redis says it: `LOADING loading the dataset in memory`.
    type Answer = String;

    fn request(from: &mut BufReader<TcpStream>, _: &mut TcpStream) -> io::Result<Option<Request>> {
        if from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        value(from, &mut bytes)?;
        Ok(Some(Request { line: line(&bytes), bytes }))
    }

    fn reply(from: &mut BufReader<TcpStream>, _: &Request) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        loop {
            // What is pushed answers nothing.
            if value(from, &mut bytes)? != b'>' {
                return Ok(Reply { bytes, is_last: false });
            }
        }
    }

    fn answer(error: &String) -> Vec<u8> {
        format!("-{error}\r\n").into_bytes()
    }
}

/// Reads one value, as it is; its kind.
fn value(from: &mut impl io::BufRead, to: &mut Vec<u8>) -> io::Result<u8> {
    let begin = to.len();
    from.read_until(b'\n', to)?;
    let line = &to[begin..];
    if !line.ends_with(b"\r\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let kind = line[0];
    let count = std::str::from_utf8(&line[1..]).ok().and_then(|text| text.trim_end().parse::<i64>().ok());
    // A negative one is none, and takes no more.
    let count = count.map(|count| count.max(-1));
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "no RESP");
    match kind {
        b'$' | b'=' | b'!' => {
            let length = count.ok_or_else(strange)?;
            if length >= 0 && from.by_ref().take(length as u64 + 2).read_to_end(to)? < length as usize + 2 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        b'*' | b'~' | b'>' => {
            for _ in 0..count.ok_or_else(strange)? {
                value(from, to)?;
            }
        }
        b'%' | b'|' => {
            for _ in 0..count.ok_or_else(strange)? * 2 {
                value(from, to)?;
            }
            // An attribute comes before what it is one of.
            if kind == b'|' {
                return value(from, to);
            }
        }
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
        _ => return Err(strange()),
    }
    Ok(kind)
}

/// The words of a request, the first in capitals.
fn line(request: &[u8]) -> String {
    let mut rest = request;
    let mut words = Vec::new();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        let (head, after) = rest.split_at(at + 1);
        let length = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix('$')?.trim_end().parse().ok());
        rest = after;
        if let Some(length) = length {
            let word = String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into_owned();
            words.push(if words.is_empty() { word.to_uppercase() } else { word });
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    words.join(" ").chars().take(LINE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_value_ends_the_next_begins() {
        let all = [
            "+OK\r\n",
            "-ERR\r\n",
            ":1\r\n",
            "$3\r\na\nb\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*2\r\n:1\r\n*1\r\n$0\r\n\r\n",
            "_\r\n",
            "#t\r\n",
            "%1\r\n+a\r\n:1\r\n",
            "~1\r\n,1.5\r\n",
            ">1\r\n+x\r\n",
            "|1\r\n+a\r\n+b\r\n:7\r\n",
            "=5\r\ntxt:a\r\n",
        ];
        let text = all.concat();
        let mut from = text.as_bytes();
        for each in all {
            let mut bytes = Vec::new();
            value(&mut from, &mut bytes).unwrap();
            assert_eq!(bytes, each.as_bytes());
        }
        assert!(value(&mut from, &mut Vec::new()).is_err());
        assert!(value(&mut &b"GET a\r\n"[..], &mut Vec::new()).is_err());
    }

    #[test]
    fn a_request_is_named_by_its_words() {
        assert_eq!(line(b"*3\r\n$3\r\nset\r\n$3\r\na\nb\r\n$1\r\nc\r\n"), "SET a\nb c");
        assert_eq!(line(b"*1\r\n$4\r\nPING\r\n"), "PING");
    }
}
