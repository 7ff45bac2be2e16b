//! Files, as a source and as an exactly-once sink.
mod encode;
pub(crate) mod format;
mod part;
mod reading;
pub mod sink;
pub mod source;

pub use encode::{CsvEncoder, JsonEncoder};
pub use format::{Csv, JsonLines, Text};
pub use sink::FileSink;
pub use source::FileSource;
