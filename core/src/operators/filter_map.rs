//! `filter_map`: one record in, one or none out; those that become none are counted as filtered, as in `filter`.
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
    /// See [`Stream::filter_map`].
    FilterMap, "filter_map"
);

impl<S, U, F> Stream for FilterMap<S, F>
where
    S: Stream,
    U: Send + 'static,
    F: FnMut(S::Item) -> Option<U> + Clone + Send + Sync + 'static,
{
    type Item = U;
    placed!();
    fn attach<O: Output<U>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let kept = build.counter(self.node, |s| &s.records_out);
        self.upstream.attach(build, FilterMapOutput { f: self.f.clone(), kept, out })
    }
}

struct FilterMapOutput<F, O> {
    f: F,
    kept: Counter,
    out: O,
}

impl<T, U, F, O> Output<T> for FilterMapOutput<F, O>
where
    F: FnMut(T) -> Option<U> + Send + 'static,
    O: Output<U>,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        if let Some(record) = (self.f)(record) {
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
