//! `flat_map`: one record in, any number out, all with its timestamp.
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
    /// See [`Stream::flat_map`].
    FlatMap, "flat_map"
);

impl<S, I, F> Stream for FlatMap<S, F>
where
    S: Stream,
    I: IntoIterator,
    I::Item: Send + 'static,
    F: FnMut(S::Item) -> I + Clone + Send + Sync + 'static,
{
    type Item = I::Item;
    placed!();
    fn attach<O: Output<I::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let taken = build.counter(self.node, |s| &s.records_in);
        let made = build.counter(self.node, |s| &s.records_out);
        self.upstream.attach(build, FlatMapOutput { f: self.f.clone(), taken, made, out })
    }
}

struct FlatMapOutput<F, O> {
    f: F,
    taken: Counter,
    made: Counter,
    out: O,
}

impl<T, I, F, O> Output<T> for FlatMapOutput<F, O>
where
    I: IntoIterator,
    F: FnMut(T) -> I + Send + 'static,
    O: Output<I::Item>,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        self.taken.n += 1;
        for record in (self.f)(record) {
            self.made.n += 1;
            self.out.record(record, at);
        }
    }
    pass!(control);
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.taken.publish();
        self.made.publish();
        self.out.poll_ready(cx)
    }
    pass!(sweep);
}
