//! `throttle`: no more records a second than the other side can bear.
//!
//! A record goes on at once and is paid for afterwards: `poll_ready` waits as long as what has gone on takes at the rate,
//! and so the upstream does. Nothing is buffered here, so nothing has to be in the checkpoint, and a barrier does not wait:
//! it falls between two batches, and a source is told that it is only held (`Build::held`). What has not been used for a
//! while is not saved up beyond a tenth of a second.
//!
//! The price is that records go on in small bursts, of what a source emits at once when it is held (64), or of a batch of
//! an exchange (1024). The clock decides when a record goes on, never which.
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tidegate_checkpoint::error::{Error, Result};

use super::{pass, placed};
use crate::{
    api::stream::Stream,
    env::{Instant, now, sleep},
    plan::{NodeId, NodeKind},
    record::Output,
    runtime::build::Build,
    time::Timestamp,
};

/// See [`Stream::throttle`].
#[derive(Debug)]
pub struct Throttle<S> {
    upstream: S,
    per_second: f64,
    node: NodeId,
}

impl<S: Stream> Throttle<S> {
    pub(crate) fn new(upstream: S, per_second: f64) -> Self {
        let graph = upstream.graph();
        let node = graph.add(NodeKind::Stateless, "throttle", None, &[upstream.node()]);
        // As long as a record takes, it has to be a time.
        if !(per_second >= 1e-6 && per_second.is_finite()) {
            graph.mistake(
                Error::config(format!("throttle({per_second}) is no rate"))
                    .hint("give it the records a second of the whole job: throttle(500.0)"),
            );
        }
        Self { upstream, per_second, node }
    }
}

impl<S: Stream> Stream for Throttle<S> {
    type Item = S::Item;
    placed!();
    fn attach<O: Output<S::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let each = Duration::from_secs_f64(f64::from(build.parallelism()) / self.per_second);
        let throttled = ThrottleOutput { each, taken: 0, paid: now(), pause: None, held: build.held(), out };
        self.upstream.attach(build, throttled)
    }
}

struct ThrottleOutput<O> {
    /// What a record takes.
    each: Duration,
    /// Records that have not been paid for.
    taken: u32,
    /// Until when everything before is paid for.
    paid: Instant,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    held: Arc<AtomicBool>,
    out: O,
}

/// What is not used is saved up for so long.
const SAVED: Duration = Duration::from_millis(100);
/// A century: the clock goes no further than some of them.
const PRICE_MAX: Duration = Duration::from_secs(3_155_760_000);

impl<T: Send + 'static, O: Output<T>> Output<T> for ThrottleOutput<O> {
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        self.taken = self.taken.saturating_add(1);
        self.out.record(record, at);
    }
    pass!(control);
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.out.poll_ready(cx))?;
        if self.taken > 0 {
            let now = now();
            let from = now.checked_sub(SAVED).map_or(self.paid, |saved| self.paid.max(saved));
            let price = self.each.saturating_mul(std::mem::take(&mut self.taken)).min(PRICE_MAX);
            self.paid = from + price;
            if self.paid > now {
                self.pause = Some(Box::pin(sleep(self.paid - now)));
                // Upstream waits, and does not say that nothing more comes.
                self.out.control(crate::record::Control::Flush);
                ready!(self.out.poll_ready(cx))?;
            }
        }
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                self.held.store(true, Relaxed);
                return Poll::Pending;
            }
            self.pause = None;
        }
        Poll::Ready(Ok(()))
    }
    pass!(sweep);
}
