//! A sink that calls a function: for tests, and for outputs that are idempotent by themselves.
use futures::future::{BoxFuture, ready};
use serde_json::Value;
use tidegate_checkpoint::{commit::CommitPermit, ids::Epoch};
use tidegate_core::{
    Result, Timestamp,
    connect::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext},
};

/// Calls a function with each record and its event time. At least once: after a failure, records since the
/// last checkpoint come again.
#[derive(Clone, Debug)]
pub struct ForEach<F>(F);

impl<F> ForEach<F> {
    /// Each subtask calls a clone of `f`.
    pub fn new<T>(f: F) -> Self
    where
        F: FnMut(T, Timestamp) + Clone + Send + Sync + 'static,
    {
        Self(f)
    }
}

impl<T: 'static, F: FnMut(T, Timestamp) + Clone + Send + Sync + 'static> Sink<T> for ForEach<F> {
    type Open = Self;
    fn recover(&self, _: SinkContext, _: Vec<Value>) -> BoxFuture<'_, Result<Self>> {
        Box::pin(ready(Ok(self.clone())))
    }
}

impl<T: 'static, F: FnMut(T, Timestamp) + Clone + Send + Sync + 'static> OpenSink<T> for ForEach<F> {
    type Writer = Self;
    fn writer(&self, _: WriterContext) -> Result<Self> {
        Ok(self.clone())
    }
    fn commit<'a>(&'a self, _: &'a CommitPermit, _: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(Ok(())))
    }
}

impl<T: 'static, F: FnMut(T, Timestamp) + Clone + Send + Sync + 'static> SinkWriter<T> for ForEach<F> {
    #[inline]
    fn write(&mut self, record: T, at: Timestamp) -> Result<()> {
        (self.0)(record, at);
        Ok(())
    }
    fn barrier(&mut self, _: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}
