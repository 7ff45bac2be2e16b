//! `filter`: keeps some records and counts them; what went in and did not come out is the count of the others,
//! so that none disappears unseen.
use super::{pass, placed, stateless};
use crate::{
    api::stream::Stream,
    record::Output,
    runtime::build::{Build, Counter},
    time::Timestamp,
};
use std::task::{Context, Poll};
use tidegate_checkpoint::error::Result;

stateless!(
    /// See [`Stream::filter`].
    Filter, "filter"
);

impl<S, F> Stream for Filter<S, F>
where
    S: Stream,
    F: FnMut(&S::Item) -> bool + Clone + Send + Sync + 'static,
{
    type Item = S::Item;
    placed!();
    fn attach<O: Output<S::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let kept = build.counter(self.node, |s| &s.records_out);
        self.upstream.attach(build, FilterOutput { f: self.f.clone(), kept, out })
    }
}

struct FilterOutput<F, O> {
    f: F,
    kept: Counter,
    out: O,
}

impl<T, F, O> Output<T> for FilterOutput<F, O>
where
    F: FnMut(&T) -> bool + Send + 'static,
    O: Output<T>,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        if (self.f)(&record) {
            self.kept.n += 1;
            self.out.record(record, at);
        }
    }
    pass!(control);
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.kept.publish();
        self.out.poll_ready(cx)
    }
    pass!(sweep);
}
