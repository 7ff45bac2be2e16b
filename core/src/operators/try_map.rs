//! `try_map`: a map whose error fails the attempt. What comes after the error in the same batch is not
//! processed: the attempt goes back to the last checkpoint anyway.
use super::{pass, placed, stateless};
use crate::{api::stream::Stream, record::Output, runtime::build::Build, time::Timestamp};
use std::task::{Context, Poll};
use tidegate_checkpoint::error::{Error, Result};

stateless!(
    /// See [`Stream::try_map`].
    TryMap, "try_map"
);

impl<S, U, E, F> Stream for TryMap<S, F>
where
    S: Stream,
    U: Send + 'static,
    E: std::fmt::Display,
    F: FnMut(S::Item) -> std::result::Result<U, E> + Clone + Send + Sync + 'static,
{
    type Item = U;
    placed!();
    fn attach<O: Output<U>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        self.upstream.attach(build, TryMapOutput { f: self.f.clone(), fault: None, out })
    }
}

struct TryMapOutput<F, O> {
    f: F,
    fault: Option<Error>,
    out: O,
}

impl<T, U, E, F, O> Output<T> for TryMapOutput<F, O>
where
    E: std::fmt::Display,
    F: FnMut(T) -> std::result::Result<U, E> + Send + 'static,
    O: Output<U>,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        if self.fault.is_some() {
            return;
        }
        match (self.f)(record) {
            Ok(record) => self.out.record(record, at),
            Err(e) => self.fault = Some(Error::user(format!("try_map: {e}"))),
        }
    }
    pass!(control);
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.fault.take() {
            Some(fault) => Poll::Ready(Err(fault)),
            None => self.out.poll_ready(cx),
        }
    }
    pass!(sweep);
}
