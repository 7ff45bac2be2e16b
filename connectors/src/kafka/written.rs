//! What a sink's writers have handed over, by topic and partition.
//!
//! The hard case is the price, since it is counted for each record: a writer adds to plain integers of its own
//! ([`Tally`]), and to those that all of them share once a batch.
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tidegate_core::connect::Figure;

use super::client::lock;

#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
}

/// What all writers of a sink have handed over in this attempt.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<BTreeMap<(String, i32), Arc<Counts>>>);

/// One writer's counts for one topic.
#[derive(Debug, Default)]
pub(super) struct Tally {
    shared: Vec<Arc<Counts>>,
    /// Records and bytes that the shared ones do not have yet.
    batch: Vec<(u64, u64)>,
}

impl Written {
    /// For a writer that writes to a topic of so many partitions.
    pub(super) fn tally(&self, topic: &str, partitions: i32) -> Tally {
        let mut all = lock(&self.0);
        let shared: Vec<_> = (0..partitions).map(|n| all.entry((topic.to_owned(), n)).or_default().clone()).collect();
        Tally { batch: vec![(0, 0); shared.len()], shared }
    }

    /// Of each partition that has been written to.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let all = lock(&self.0);
        let mut figures = Vec::new();
        for ((topic, partition), counts) in all.iter().filter(|(_, counts)| counts.records.load(Relaxed) > 0) {
            for (name, count) in [
                ("tidegate_kafka_written_records_total", &counts.records),
                ("tidegate_kafka_written_bytes_total", &counts.bytes),
            ] {
                let figure = Figure::count(name, count.load(Relaxed));
                figures.push(figure.with("topic", topic).with("partition", partition.to_string()));
            }
        }
        figures
    }
}

impl Tally {
    /// The partitions that it has counts for.
    pub(super) fn partitions(&self) -> usize {
        self.batch.len()
    }

    /// One more record, for a partition that there is.
    #[inline]
    pub(super) fn add(&mut self, partition: i32, bytes: usize) {
        if let Some((records, sum)) = self.batch.get_mut(partition as usize) {
            *records += 1;
            *sum += bytes as u64;
        }
    }

    /// A batch is over.
    pub(super) fn publish(&mut self) {
        for ((records, bytes), shared) in self.batch.iter_mut().zip(&self.shared).filter(|((n, _), _)| *n > 0) {
            shared.records.fetch_add(std::mem::take(records), Relaxed);
            shared.bytes.fetch_add(std::mem::take(bytes), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_add_up_by_partition_and_a_topic_may_grow() {
        let written = Written::default();
        let (mut a, mut b) = (written.tally("t", 2), written.tally("t", 3));
        a.add(1, 10);
        a.add(1, 20);
        assert_eq!(written.figures(), [], "the batch is not over");
        a.publish();
        a.publish();
        b.add(1, 5);
        b.add(2, 7);
        b.publish();
        let figures = written.figures();
        let found: Vec<_> =
            figures.iter().map(|f| (f.label("topic"), f.label("partition"), f.value.as_f64() as u64)).collect();
        let of = |partition, n| (Some("t"), Some(partition), n);
        assert_eq!(found, [of("1", 3), of("1", 35), of("2", 1), of("2", 7)]);
    }
}
