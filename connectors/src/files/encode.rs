//! How records are written into a part: CSV with a header in every part, or JSON lines.
use serde::Serialize;
use tidegate_core::{Error, Result};

/// Turns records into the bytes of one part.
pub trait Encoder<T>: Send + 'static {
    /// At the beginning of a part.
    fn new() -> Self;
    /// The extension of its files.
    const EXTENSION: &'static str;
    /// Appends a record.
    ///
    /// # Errors
    /// [`tidegate_core::Kind::User`]: its `Serialize` fails, or is not a flat row.
    fn write(&mut self, record: &T) -> Result<()>;
    /// How many bytes wait to be taken.
    fn waiting(&self) -> usize;
    /// Takes the bytes so far; what comes goes on behind them.
    ///
    /// # Errors
    /// As `write`.
    fn take(&mut self) -> Result<Vec<u8>>;
}

fn unwritable(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::user("a record cannot be written").caused_by(e)
}

/// See [`FileSink::csv`](super::FileSink::csv).
#[derive(Debug)]
pub struct CsvEncoder(csv::Writer<Vec<u8>>);

impl<T: Serialize> Encoder<T> for CsvEncoder {
    fn new() -> Self {
        Self(csv::Writer::from_writer(Vec::new()))
    }
    const EXTENSION: &'static str = "csv";
    fn write(&mut self, record: &T) -> Result<()> {
        self.0.serialize(record).map_err(unwritable)?;
        // Out of its own buffer, into the vector: a part is rolled by what it has, not by what was flushed.
        self.0.flush().map_err(unwritable)
    }
    fn waiting(&self) -> usize {
        self.0.get_ref().len()
    }
    fn take(&mut self) -> Result<Vec<u8>> {
        let rest = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        let written = std::mem::replace(&mut self.0, rest);
        written.into_inner().map_err(|e| unwritable(e.into_error()))
    }
}

/// See [`FileSink::json_lines`](super::FileSink::json_lines).
#[derive(Debug)]
pub struct JsonEncoder(Vec<u8>);

impl<T: Serialize> Encoder<T> for JsonEncoder {
    fn new() -> Self {
        Self(Vec::new())
    }
    const EXTENSION: &'static str = "jsonl";
    fn write(&mut self, record: &T) -> Result<()> {
        let start = self.0.len();
        if let Err(e) = serde_json::to_writer(&mut self.0, record) {
            self.0.truncate(start);
            return Err(unwritable(e));
        }
        self.0.push(b'\n');
        Ok(())
    }
    fn waiting(&self) -> usize {
        self.0.len()
    }
    fn take(&mut self) -> Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.0))
    }
}
