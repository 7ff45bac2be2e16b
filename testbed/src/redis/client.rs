//! As much of Redis's protocol (RESP2) as it takes to ask a server anything and to understand what it answers: arrays of
//! strings one way, five kinds of values the other.
use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::Failed;

const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// What a server answers. Its errors are errors of [`Client::ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// There is none.
    Nil,
    /// A number.
    Integer(i64),
    /// Text or bytes.
    Bytes(Vec<u8>),
    /// Several; what failed among them is the text of its error.
    List(Vec<Value>),
}

impl Value {
    /// As text, if it is some.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Nil | Self::List(_) => None,
        }
    }

    /// As a number, if it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            other => other.text()?.parse().ok(),
        }
    }

    /// The parts of a list; of anything else there are none.
    pub fn list(&self) -> &[Value] {
        if let Self::List(list) = self { list } else { &[] }
    }
}

/// One connection to a server.
pub struct Client {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects to `127.0.0.1:6379`.
    pub fn connect(address: &str) -> Result<Self, Failed> {
        let failed = |e: io::Error| format!("Redis at {address}: {e}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWERED_WITHIN)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { address: address.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks one thing: `["SET", "key", "value"]`.
    pub fn ask<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Result<Value, Failed> {
        let asked = || String::from_utf8_lossy(words.first().map_or(b"", AsRef::as_ref)).into_owned();
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        let answer = self.stream.get_mut().write_all(&request).and_then(|()| read(&mut self.stream));
        let answer = answer.map_err(|e| format!("{} at {}: {e}", asked(), self.address))?;
        answer.map_err(|why| format!("{} at {}: {why}", asked(), self.address))
    }
}

/// One answer: a value, or the server's error.
fn read(from: &mut impl io::BufRead) -> io::Result<Result<Value, String>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("no RESP: {line:?}"));
    let (kind, text) = line.trim_end().split_at_checked(1).ok_or_else(strange)?;
    let number = || text.parse::<i64>().map_err(|_| strange());
    Ok(Ok(match kind {
        "+" => Value::Bytes(text.as_bytes().to_vec()),
        "-" => return Ok(Err(text.to_owned())),
        ":" => Value::Integer(number()?),
        "$" | "*" if number()? < 0 => Value::Nil,
        "$" => {
            let length = number()? as u64;
            let mut bytes = Vec::new();
            from.take(length + 2).read_to_end(&mut bytes)?;
            if (bytes.len() as u64) < length + 2 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.truncate(length as usize);
            Value::Bytes(bytes)
        }
        "*" => {
            let parts = (0..number()?).map(|_| Ok(read(from)?.unwrap_or_else(|why| Value::Bytes(why.into_bytes()))));
            Value::List(parts.collect::<io::Result<_>>()?)
        }
        _ => return Err(strange()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_is_understood() {
        let mut from = &b"+OK\r\n:-3\r\n$5\r\na\r\nbc\r\n$-1\r\n*3\r\n:1\r\n*0\r\n-ERR in it\r\n-ERR why\r\n!\r\n"[..];
        let mut next = || read(&mut from);
        let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        let list = Value::List(vec![Value::Integer(1), Value::List(Vec::new()), text("ERR in it")]);
        for value in [text("OK"), Value::Integer(-3), text("a\r\nbc"), Value::Nil, list] {
            assert_eq!(next().unwrap(), Ok(value));
        }
        assert_eq!(next().unwrap(), Err("ERR why".to_owned()));
        assert!(next().unwrap_err().to_string().contains("no RESP"));
        assert_eq!(next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
