//! What is asked of a judge and what it reports, and the words in which both cross the pipe (see
//! `java/Judge.java`). A reading may be of millions of records, so they are lines of numbers and hexadecimal digits
//! that are taken apart in one pass; the hard case is to tell no bytes (a tombstone) from empty ones, which is why
//! bytes begin with a mark.
use std::fmt::Write as _;

use crate::Failed;

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Without one, the Java client chooses.
    pub partition: Option<i32>,
    /// In milliseconds since 1970; without one, the time of sending.
    pub timestamp: Option<i64>,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// A record with a key and a value.
    pub fn new(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Self { key: Some(key.as_ref().to_vec()), ..Self::value(value) }
    }

    /// A record without a key.
    pub fn value(value: impl AsRef<[u8]>) -> Self {
        Self { value: Some(value.as_ref().to_vec()), ..Self::default() }
    }

    /// To a given partition.
    #[must_use]
    pub fn to(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With a given timestamp.
    #[must_use]
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Where it is.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// In milliseconds since 1970.
    pub timestamp: i64,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Read {
    /// The value as text; what is not UTF-8 is replaced, none is empty.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// Where a record that was written went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition that was chosen.
    pub partition: i32,
    /// The offset that it got.
    pub offset: i64,
}

/// What a partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Which one.
    pub partition: i32,
    /// The first that is still there.
    pub earliest: i64,
    /// Where the first open transaction begins, or else the end.
    pub last_stable: i64,
    /// The end: where the next record goes.
    pub high_watermark: i64,
}

/// A transaction that the coordinator knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The transactional id.
    pub id: String,
    /// Its state, in Kafka's words: `Ongoing`, `CompleteCommit`, …
    pub state: String,
    /// Who writes it.
    pub producer_id: i64,
}

/// How a transaction is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is to be seen.
    Commit,
    /// It is never to be seen.
    Abort,
}

/// Which records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, and those of none; up to the last stable offset.
    ReadCommitted,
    /// All, up to the high watermark.
    ReadUncommitted,
}

pub(super) fn bytes(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(
        || "-".into(),
        |bytes| {
            let mut word = String::with_capacity(1 + 2 * bytes.len());
            word.push('=');
            for byte in bytes {
                let _ = write!(word, "{byte:02x}");
            }
            word
        },
    )
}

pub(super) fn text(text: &str) -> String {
    bytes(Some(text.as_bytes()))
}

pub(super) fn record(record: &Record) -> String {
    let (partition, timestamp) = (record.partition.unwrap_or(-1), record.timestamp.unwrap_or(-1));
    let (key, value) = (bytes(record.key.as_deref()), bytes(record.value.as_deref()));
    let headers: Vec<_> =
        record.headers.iter().map(|(name, value)| format!("{}:{}", text(name), bytes(value.as_deref()))).collect();
    let headers = if headers.is_empty() { "-".into() } else { headers.join(",") };
    format!("{partition} {timestamp} {key} {value} {headers}\n")
}

/// The words of a line of a reply.
pub(super) struct Words<'a> {
    line: &'a str,
    rest: std::str::Split<'a, char>,
}

impl<'a> Words<'a> {
    pub fn of(line: &'a str) -> Self {
        Self { line, rest: line.split(' ') }
    }

    pub fn word(&mut self) -> Result<&'a str, Failed> {
        self.rest.next().ok_or_else(|| self.strange())
    }

    pub fn number<N: std::str::FromStr>(&mut self) -> Result<N, Failed> {
        self.word()?.parse().map_err(|_| self.strange())
    }

    pub fn bytes(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        let word = self.word()?;
        self.decoded(word)
    }

    pub fn text(&mut self) -> Result<String, Failed> {
        let bytes = self.bytes()?.unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| self.strange())
    }

    pub fn read(&mut self) -> Result<Read, Failed> {
        let (partition, offset, timestamp) = (self.number()?, self.number()?, self.number()?);
        Ok(Read { partition, offset, timestamp, key: self.bytes()?, value: self.bytes()?, headers: self.headers()? })
    }

    fn headers(&mut self) -> Result<Vec<(String, Option<Vec<u8>>)>, Failed> {
        let word = self.word()?;
        if word == "-" {
            return Ok(Vec::new());
        }
        let header = |pair: &str| {
            let (name, value) = pair.split_once(':').ok_or_else(|| self.strange())?;
            let name = self.decoded(name)?.unwrap_or_default();
            Ok((String::from_utf8(name).map_err(|_| self.strange())?, self.decoded(value)?))
        };
        word.split(',').map(header).collect()
    }

    fn decoded(&self, word: &str) -> Result<Option<Vec<u8>>, Failed> {
        let Some(digits) = word.strip_prefix('=') else {
            return if word == "-" { Ok(None) } else { Err(self.strange()) };
        };
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        digits.as_bytes().chunks(2).map(pair).collect::<Option<_>>().map(Some).ok_or_else(|| self.strange())
    }

    fn strange(&self) -> Failed {
        format!("the judge says what is not understood: {:.200}", self.line)
    }
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let written = Record::new([0, 255], "").to(3).at(7).header("h", "v").header("", [1]);
        // A record that was read has an offset behind its partition.
        let line = record(&written).replacen(' ', " 9 ", 1);
        let read = Words::of(line.trim_end()).read().unwrap();
        let Record { partition, timestamp, key, value, headers } = written;
        let (partition, timestamp) = (partition.unwrap(), timestamp.unwrap());
        assert_eq!(read, Read { partition, offset: 9, timestamp, key, value, headers });
    }

    #[test]
    fn nothing_is_not_the_same_as_empty() {
        let read = Words::of("0 1 2 - = -").read().unwrap();
        assert_eq!((read.key, read.value), (None, Some(Vec::new())));
    }

    #[test]
    fn nonsense_is_named() {
        for line in ["", "0 1", "x 1 2 - - -", "0 1 2 61 - -", "0 1 2 =6 - -", "0 1 2 =6g - -", "0 1 2 - - =61"] {
            let error = Words::of(line).read().unwrap_err();
            assert!(error.contains("not understood") && error.contains(line), "{error}");
        }
    }
}
