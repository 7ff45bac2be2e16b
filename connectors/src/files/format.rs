//! How a file is cut into records: lines, CSV rows, JSON lines.
//!
//! Each row carries where it ends, so that a reader can be opened right behind it. For CSV the hard case is
//! the header: a reader that starts in the middle still needs it, so it is read from the front first.
use serde::de::DeserializeOwned;
use std::{
    io::{self, BufRead, BufReader, Read},
    marker::PhantomData,
};
use tidegate_core::{Error, Result};

/// A place in a file: bytes of the (decompressed) file, and line feeds, before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub line: u64,
}

/// One row: a record, or why there is none and the raw text.
pub(super) struct Row<T> {
    pub record: std::result::Result<T, (String, String)>,
    pub begins: Place,
    pub ends: Place,
}

/// A (decompressed) file, opened at its front; `skip` reads past a prefix.
pub(super) type Input = Box<dyn Read + Send>;

/// How records are written in a file.
pub trait Format: Clone + Send + Sync + 'static {
    /// What a record is.
    type Item: Send + 'static;
    /// Rows from `from` on; `open` opens the file anew at an offset.
    #[doc(hidden)]
    fn rows(&self, open: &dyn Fn(u64) -> Result<Opened>, from: (u64, u64)) -> Result<Rows<Self::Item>>;
}

/// An opened file.
#[doc(hidden)]
pub struct Opened(pub(super) Input);
/// The rows of a file.
#[doc(hidden)]
pub struct Rows<T>(pub(super) Box<dyn Iterator<Item = Result<Row<T>>> + Send>);

/// Lines of text, without their line end.
#[derive(Clone, Copy, Debug)]
pub struct Text;

/// JSON, a value a line; empty lines are passed over.
#[derive(Debug)]
pub struct JsonLines<T>(pub(super) PhantomData<fn() -> T>);

/// CSV with a header, whose names are the fields of `T`.
#[derive(Debug)]
pub struct Csv<T>(pub(super) PhantomData<fn() -> T>);

impl<T> Clone for JsonLines<T> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}
impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

/// What the operating system did not say, a decompressor has said of what it was given.
pub(super) fn unreadable(e: io::Error) -> Error {
    if e.raw_os_error().is_none() {
        Error::data("the compressed file is damaged or cut short")
            .caused_by(e)
            .hint("put the whole file there and start the job again: it goes on where it was")
    } else {
        Error::unavailable("the file cannot be read").caused_by(e)
    }
}

/// A line that is longer is not read into memory whole.
const LINE_MAX: u64 = 64 << 20;

/// The line after `before` others, without its line end, and its bytes in the input; `None` at the end.
pub(crate) fn next_line(
    input: &mut impl BufRead,
    before: u64,
    unreadable: impl Fn(io::Error) -> Error,
) -> Result<Option<(Vec<u8>, u64)>> {
    let mut line = Vec::new();
    let read = input.take(LINE_MAX).read_until(b'\n', &mut line).map_err(unreadable)? as u64;
    if read == 0 {
        return Ok(None);
    }
    if read == LINE_MAX {
        return Err(Error::data(format!("line {} is longer than {LINE_MAX} bytes", before + 1)));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        // One of them: a carriage return before the line end is the line's own.
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(Some((line, read)))
}

struct Lines<R, F> {
    reader: BufReader<R>,
    place: Place,
    decode: F,
}

impl<R: Read, T, F: Fn(&str) -> Option<std::result::Result<T, String>>> Iterator for Lines<R, F> {
    type Item = Result<Row<T>>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, read) = match next_line(&mut self.reader, self.place.line, unreadable) {
                Ok(Some(line)) => line,
                Ok(None) => return None,
                Err(e) => return Some(Err(e)),
            };
            let begins = self.place;
            self.place = Place { offset: begins.offset + read, line: begins.line + 1 };
            let record = match String::from_utf8(line) {
                Ok(text) => match (self.decode)(&text) {
                    None => continue,
                    Some(Ok(record)) => Ok(record),
                    Some(Err(why)) => Err((why, text)),
                },
                Err(e) => Err(("it is not UTF-8".into(), String::from_utf8_lossy(e.as_bytes()).into_owned())),
            };
            return Some(Ok(Row { record, begins, ends: self.place }));
        }
    }
}

fn lines<T: Send + 'static>(
    open: &dyn Fn(u64) -> Result<Opened>,
    from: (u64, u64),
    decode: impl Fn(&str) -> Option<std::result::Result<T, String>> + Send + 'static,
) -> Result<Rows<T>> {
    let reader = BufReader::with_capacity(128 << 10, open(from.0)?.0);
    Ok(Rows(Box::new(Lines { reader, place: Place { offset: from.0, line: from.1 }, decode })))
}

impl Format for Text {
    type Item = String;
    fn rows(&self, open: &dyn Fn(u64) -> Result<Opened>, from: (u64, u64)) -> Result<Rows<String>> {
        lines(open, from, |line| Some(Ok(line.to_owned())))
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for JsonLines<T> {
    type Item = T;
    fn rows(&self, open: &dyn Fn(u64) -> Result<Opened>, from: (u64, u64)) -> Result<Rows<T>> {
        lines(open, from, |line| {
            (!line.trim().is_empty()).then(|| serde_json::from_str(line).map_err(|e| e.to_string()))
        })
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for Csv<T> {
    type Item = T;
    fn rows(&self, open: &dyn Fn(u64) -> Result<Opened>, from: (u64, u64)) -> Result<Rows<T>> {
        let builder = || {
            let mut builder = csv::ReaderBuilder::new();
            builder.flexible(true).buffer_capacity(128 << 10);
            builder
        };
        let mut reader = builder().from_reader(open(0)?.0);
        let header = reader.byte_headers().map_err(broken)?.clone();
        // A row is over at the carriage return; the line feed behind it is read with the next row.
        let crlf = reader.position().line() == 1 + line_feeds(&header);
        let mut base = Place::default();
        if from.0 > 0 {
            reader = builder().has_headers(false).from_reader(open(from.0)?.0);
            base = Place { offset: from.0, line: from.1 };
        }
        Ok(Rows(Box::new(CsvRows { reader, header, crlf, base, ended: false, record: PhantomData::<fn() -> T> })))
    }
}

fn broken(e: csv::Error) -> Error {
    match e.into_kind() {
        csv::ErrorKind::Io(e) => unreadable(e),
        other => Error::data(format!("the file is not CSV: {other:?}")),
    }
}

struct CsvRows<T> {
    reader: csv::Reader<Input>,
    header: csv::ByteRecord,
    /// Whether its lines end with `\r\n`.
    crlf: bool,
    base: Place,
    ended: bool,
    record: PhantomData<fn() -> T>,
}

impl<T> CsvRows<T> {
    fn place(&self) -> Place {
        let at = self.reader.position();
        Place { offset: self.base.offset + at.byte(), line: self.base.line + at.line() - 1 }
    }
}

impl<T: DeserializeOwned> Iterator for CsvRows<T> {
    type Item = Result<Row<T>>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let mut begins = self.place();
        let mut row = csv::ByteRecord::new();
        match self.reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => {
                self.ended = true;
                return None;
            }
            Err(e) => {
                self.ended = true;
                return Some(Err(broken(e)));
            }
        }
        let raw = |row: &csv::ByteRecord| {
            let columns: Vec<_> = row.iter().map(String::from_utf8_lossy).collect();
            columns.join(",")
        };
        let record = if row.len() == self.header.len() {
            row.deserialize(Some(&self.header)).map_err(|e| (cause(&e), raw(&row)))
        } else {
            Err((format!("it has {} columns, the header has {}", row.len(), self.header.len()), raw(&row)))
        };
        let ends = self.place();
        // Empty lines before the row were read with it; its own line end was too, unless it is `\r\n`.
        let around = (ends.line - begins.line).saturating_sub(line_feeds(&row));
        begins.line += around.saturating_sub(u64::from(!self.crlf));
        Some(Ok(Row { record, begins, ends }))
    }
}

fn line_feeds(row: &csv::ByteRecord) -> u64 {
    row.as_slice().iter().filter(|b| **b == b'\n').count() as u64
}

fn cause(e: &csv::Error) -> String {
    match e.kind() {
        csv::ErrorKind::Deserialize { err, .. } => match err.field() {
            Some(field) => format!("column {}: {}", field + 1, err.kind()),
            None => err.kind().to_string(),
        },
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".into(),
        _ => e.to_string(),
    }
}
