//! A source that marks the beginning of the steady part: once a fill, so that no record pays for it (the
//! baseline splits its loop in two, or compares a register).
use futures::future::BoxFuture;
use serde_json::Value;
use std::task::{Context, Poll};
use tidegate::{
    Result,
    extend::connect::{Emit, Progress, Source, Split, SplitReader},
};

use crate::measure::fifth;

/// The source, and after how many records of a split the steady part begins.
pub struct Marked<S> {
    pub source: S,
    pub fifth: u64,
}

pub struct Reader<R> {
    reader: R,
    /// `None` when it has been marked.
    fifth: Option<u64>,
}

impl<S: Source> Source for Marked<S> {
    type Item = S::Item;
    type Reader = Reader<S::Reader>;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        self.source.discover()
    }

    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<Self::Reader>> {
        let opened = self.source.open(split, position);
        Box::pin(async move { Ok(Reader { reader: opened.await?, fifth: Some(self.fifth) }) })
    }
}

impl<R: SplitReader> SplitReader for Reader<R> {
    type Item = R::Item;

    fn fill<E: Emit<R::Item>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        if self.fifth.is_some_and(|f| self.reader.progress().unwrap_or_default() >= f) {
            self.fifth = None;
            fifth();
        }
        self.reader.fill(budget, out)
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.reader.poll_ready(cx)
    }
    fn position(&self) -> Value {
        self.reader.position()
    }
    fn progress(&self) -> Option<u64> {
        self.reader.progress()
    }
}
