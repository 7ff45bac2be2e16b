//! `inspect`: a look at each record.
use super::{pass, placed, stateless};
use crate::{api::stream::Stream, record::Output, runtime::build::Build, time::Timestamp};
use tidegate_checkpoint::error::Result;

stateless!(
    /// See [`Stream::inspect`].
    Inspect, "inspect"
);

impl<S, F> Stream for Inspect<S, F>
where
    S: Stream,
    F: FnMut(&S::Item) + Clone + Send + Sync + 'static,
{
    type Item = S::Item;
    placed!();
    fn attach<O: Output<S::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        self.upstream.attach(build, InspectOutput { f: self.f.clone(), out })
    }
}

struct InspectOutput<F, O> {
    f: F,
    out: O,
}

impl<T, F, O> Output<T> for InspectOutput<F, O>
where
    F: FnMut(&T) + Send + 'static,
    O: Output<T>,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        (self.f)(&record);
        self.out.record(record, at);
    }
    pass!(control);
    pass!(ready);
    pass!(sweep);
}
