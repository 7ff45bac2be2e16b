//! A source of records that are in memory already.
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_core::{
    Error, Result,
    connect::{Emit, Progress, Source, Split, SplitReader},
};

/// The records of a vector, in order; with several splits, split `p` of `n` has records `p`, `p + n`, ...
pub struct Collection<T> {
    records: Arc<[T]>,
    splits: usize,
}

impl<T: Clone + Send + Sync + 'static> Collection<T> {
    /// One split.
    pub fn new(records: impl Into<Vec<T>>) -> Self {
        Self { records: records.into().into(), splits: 1 }
    }
    /// Spreads the records over so many splits.
    pub fn splits(mut self, splits: usize) -> Self {
        self.splits = splits.max(1);
        self
    }
}

impl<T: Clone + Send + Sync + 'static> Source for Collection<T> {
    type Item = T;
    type Reader = CollectionReader<T>;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let length = |p| (p..self.records.len()).step_by(self.splits).len() as u64;
        let splits = (0..self.splits).map(|p| Split { id: p.to_string(), length: Some(length(p)) });
        Box::pin(ready(Ok(splits.collect())))
    }

    fn can_end(&self) -> Result<()> {
        Ok(())
    }

    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<CollectionReader<T>>> {
        let opened = || {
            let part: usize =
                split.id.parse().map_err(|_| Error::config(format!("the collection has no split {:?}", split.id)))?;
            let read = match &position {
                None => 0,
                Some(p) => {
                    p["read"].as_u64().ok_or_else(|| Error::corrupt(format!("{p} is no position of a collection")))?
                }
            };
            Ok(CollectionReader { records: self.records.clone(), part, step: self.splits, read: read as usize })
        };
        Box::pin(ready(opened()))
    }
}

/// Reads one split.
pub struct CollectionReader<T> {
    records: Arc<[T]>,
    part: usize,
    step: usize,
    read: usize,
}

impl<T: Clone + Send + Sync + 'static> SplitReader for CollectionReader<T> {
    type Item = T;
    fn fill<E: Emit<T>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        for _ in 0..budget {
            let Some(record) = self.records.get(self.part + self.step * self.read) else { return Ok(Progress::End) };
            out.record(record.clone());
            self.read += 1;
        }
        Ok(Progress::More)
    }
    fn position(&self) -> Value {
        json!({ "read": self.read })
    }
    fn progress(&self) -> Option<u64> {
        Some(self.read as u64)
    }
}
