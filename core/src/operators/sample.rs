//! `sample`: a fraction of the records, chosen by the hash of a key.
//!
//! The choice is a function of the key alone: the same at every run, restore, parallelism and in every job, and all
//! records of a key stay or go together. Which keys are chosen grows with the fraction: those of a tenth are among those
//! of a fifth.
use std::task::{Context, Poll};

use tidegate_checkpoint::error::{Error, Result};

use super::{pass, placed};
use crate::{
    api::stream::Stream,
    plan::{NodeId, NodeKind},
    record::Output,
    runtime::build::{Build, Counter},
    state::hash::{Key, hash_key},
    time::Timestamp,
};

/// See [`Stream::sample`].
#[derive(Debug)]
pub struct Sample<S, F> {
    upstream: S,
    key: F,
    /// Hashes up to here are kept; `None`: none are.
    limit: Option<u64>,
    node: NodeId,
}

impl<S: Stream, F> Sample<S, F> {
    pub(crate) fn new(upstream: S, fraction: f64, key: F) -> Self {
        let graph = upstream.graph();
        let node = graph.add(NodeKind::Stateless, "sample", None, &[upstream.node()]);
        if !(0.0..=1.0).contains(&fraction) {
            graph.mistake(
                Error::config(format!("sample({fraction}, ..): a fraction is between 0 and 1"))
                    .hint("0.01 keeps the records of one key in a hundred"),
            );
        }
        // (As of the next power of two the conversion is saturated.)
        let limit = (fraction > 0.0).then(|| (fraction * 2f64.powi(64)) as u64);
        Self { upstream, key, limit, node }
    }
}

impl<S, K, F> Stream for Sample<S, F>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    type Item = S::Item;
    placed!();
    fn attach<O: Output<S::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let kept = build.counter(self.node, |s| &s.records_out);
        self.upstream.attach(build, SampleOutput { key: self.key.clone(), limit: self.limit, kept, out })
    }
}

struct SampleOutput<F, O> {
    key: F,
    limit: Option<u64>,
    kept: Counter,
    out: O,
}

/// The hash of a key decides on its key group too: without this a sample would be of few key groups.
fn mixed(hash: u64) -> u64 {
    crate::env::random(&mut { hash })
}

impl<T, K, F, O> Output<T> for SampleOutput<F, O>
where
    K: Key,
    F: Fn(&T) -> K + Send + 'static,
    O: Output<T>,
{
    #[inline]
    fn record(&mut self, record: T, at: Timestamp) {
        if self.limit.is_some_and(|limit| mixed(hash_key(&(self.key)(&record))) <= limit) {
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
