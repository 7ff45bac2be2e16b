//! The end of a chain at a sink: writes each record, and stages the epoch at the barrier.
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use tidegate_checkpoint::{
    coordinator::Ack,
    error::{Error, Result},
    kill,
};

use super::reporter::Reporter;
use crate::{
    connect::SinkWriter,
    env::now,
    metrics::stats::OperatorStats,
    record::{Control, Output},
    time::Timestamp,
};

/// A writer as an output.
pub(crate) struct SinkOutput<W> {
    writer: W,
    reporter: Reporter,
    stats: Arc<OperatorStats>,
    written: u64,
    published: u64,
    fault: Option<Error>,
}

impl<W> SinkOutput<W> {
    pub(crate) fn new(writer: W, reporter: Reporter, stats: Arc<OperatorStats>) -> Self {
        Self { writer, reporter, stats, written: 0, published: 0, fault: None }
    }

    fn failed(&mut self, error: Error) {
        let name = &self.reporter.participant().operator;
        self.fault.get_or_insert(error.at(format!("sink {name}")));
    }
}

impl<T, W: SinkWriter<T>> Output<T> for SinkOutput<W> {
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        self.written += 1;
        if let Err(e) = self.writer.write(record, at) {
            self.failed(e);
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Barrier(barrier) => {
                kill::point("sink.flush");
                let staged = self.writer.barrier(barrier.epoch);
                let written = self.written;
                self.reporter.ack(
                    barrier.epoch,
                    true,
                    Box::pin(async move {
                        let committables = staged.await?;
                        let counters = [("records".to_owned(), written)].into();
                        Ok(Ack { committables, counters, ..Ack::default() })
                    }),
                );
            }
            Control::Flush => {
                if let Err(e) = self.writer.flush() {
                    self.failed(e);
                }
            }
            Control::Marker(made) => self.stats.latency(now().duration_since(made).as_micros() as u64),
            Control::Watermark(watermark) => self.stats.watermark.store(watermark, Relaxed),
            Control::Idle => {}
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        OperatorStats::add(&self.stats.records_in, self.written - self.published);
        self.published = self.written;
        self.stats.bytes_out.store(self.writer.bytes(), Relaxed);
        self.writer.poll_ready(cx)
    }

    fn sweep(&mut self) -> bool {
        false
    }
}
