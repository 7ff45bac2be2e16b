//! Standard output, a line a record. At least once: what has been printed cannot be taken back, so after a
//! failure the records since the last checkpoint are printed again.
use futures::future::{BoxFuture, ready};
use serde::Serialize;
use serde_json::Value;
use std::{fmt::Display, io::Write};
use tidegate_checkpoint::{commit::CommitPermit, ids::Epoch};
use tidegate_core::{
    Error, Result, Timestamp,
    connect::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext},
};

/// Prints records.
pub struct Stdout<F> {
    format: F,
}

impl Stdout<()> {
    /// As their `Display` says.
    pub fn lines<T: Display>() -> Stdout<impl Fn(&T, &mut Vec<u8>) -> Result<()> + Clone + Send + Sync + 'static> {
        Stdout { format: |record: &T, out: &mut Vec<u8>| writeln!(out, "{record}").map_err(|e| unprintable(&e)) }
    }
    /// As JSON.
    pub fn json<T: Serialize>() -> Stdout<impl Fn(&T, &mut Vec<u8>) -> Result<()> + Clone + Send + Sync + 'static> {
        let format = |record: &T, out: &mut Vec<u8>| {
            serde_json::to_writer(&mut *out, record).map_err(|e| unprintable(&e))?;
            out.push(b'\n');
            Ok(())
        };
        Stdout { format }
    }
}

fn unprintable(e: &dyn Display) -> Error {
    Error::user(format!("a record cannot be printed: {e}"))
}

impl<T: 'static, F> Sink<T> for Stdout<F>
where
    F: Fn(&T, &mut Vec<u8>) -> Result<()> + Clone + Send + Sync + 'static,
{
    type Open = Self;
    fn recover(&self, _: SinkContext, _: Vec<Value>) -> BoxFuture<'_, Result<Self>> {
        Box::pin(ready(Ok(Self { format: self.format.clone() })))
    }
}

impl<T: 'static, F> OpenSink<T> for Stdout<F>
where
    F: Fn(&T, &mut Vec<u8>) -> Result<()> + Clone + Send + Sync + 'static,
{
    type Writer = StdoutWriter<F>;
    fn writer(&self, _: WriterContext) -> Result<StdoutWriter<F>> {
        Ok(StdoutWriter { format: self.format.clone(), lines: Vec::new(), bytes: 0 })
    }
    fn commit<'a>(&'a self, _: &'a CommitPermit, _: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(Ok(())))
    }
}

/// Prints one subtask's records, whole lines at a time.
pub struct StdoutWriter<F> {
    format: F,
    lines: Vec<u8>,
    bytes: u64,
}

const LINES_MAX: usize = 64 * 1024;

impl<F> StdoutWriter<F> {
    fn print(&mut self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&self.lines).and_then(|()| out.flush());
        self.bytes += self.lines.len() as u64;
        self.lines.clear();
        written.map_err(|e| Error::unavailable("standard output cannot be written").caused_by(e))
    }
}

impl<T: 'static, F> SinkWriter<T> for StdoutWriter<F>
where
    F: Fn(&T, &mut Vec<u8>) -> Result<()> + Clone + Send + Sync + 'static,
{
    fn write(&mut self, record: T, _: Timestamp) -> Result<()> {
        (self.format)(&record, &mut self.lines)?;
        if self.lines.len() >= LINES_MAX { self.print() } else { Ok(()) }
    }
    fn flush(&mut self) -> Result<()> {
        self.print()
    }
    fn barrier(&mut self, _: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        let printed = self.print();
        Box::pin(ready(printed.map(|()| Vec::new())))
    }
    fn bytes(&self) -> u64 {
        self.bytes
    }
}
