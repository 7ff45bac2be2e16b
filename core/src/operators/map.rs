//! `map`: one record in, one out.
use super::{pass, placed, stateless};
use crate::{api::stream::Stream, record::Output, runtime::build::Build, time::Timestamp};
use tidegate_checkpoint::error::Result;

stateless!(
    /// See [`Stream::map`].
    Map, "map"
);

impl<S, U, F> Stream for Map<S, F>
where
    S: Stream,
    U: Send + 'static,
    F: FnMut(S::Item) -> U + Clone + Send + Sync + 'static,
{
    type Item = U;
    placed!();
    fn attach<O: Output<U>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        self.upstream.attach(build, MapOutput { f: self.f.clone(), out })
    }
}

struct MapOutput<F, O> {
    f: F,
    out: O,
}

impl<T, U, F, O> Output<T> for MapOutput<F, O>
where
    F: FnMut(T) -> U + Send + 'static,
    O: Output<U>,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        self.out.record((self.f)(record), at);
    }
    pass!(control);
    pass!(ready);
    pass!(sweep);
}
