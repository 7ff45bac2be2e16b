//! The input, and what the output must be.
//!
//! A key's records are in one partition, but for every tenth key, whose records are spread over all: then the order
//! of its counts is not known, only that each is there once. Aborted records are in between, and must not be seen.
use std::{collections::BTreeMap, time::Duration};
use tidegate::extend::env::now;
use tidegate_testbed::kafka::{Broker, End, Isolation, Record};

use crate::job::{Count, Event};

const PARTITIONS: i32 = 3;
const KEYS: u64 = 60;

pub struct World {
    events: Vec<Event>,
}

fn record(event: &Event, partition: i32) -> Record {
    Record::new(event.key.as_str(), serde_json::to_string(event).unwrap()).to(partition)
}

impl World {
    /// Makes the topics and fills the input with `count` records.
    pub fn make(broker: &Broker, count: u64) -> Self {
        let judge = broker.judge().unwrap();
        judge.create_topic("in", PARTITIONS, &[]).unwrap();
        judge.create_topic("copies", 4, &[]).unwrap();
        judge.create_topic("counts", 2, &[]).unwrap();
        let mut world = Self { events: Vec::new() };
        world.add(broker, count / 2);
        let aborted: Vec<_> =
            (0..30).map(|n| record(&Event { id: n, key: "aborted".into() }, n as i32 % PARTITIONS)).collect();
        judge.produce_transaction("aborting", "in", &aborted, End::Abort).unwrap();
        world.add(broker, count - count / 2);
        world
    }

    /// More input.
    pub fn add(&mut self, broker: &Broker, count: u64) {
        let from = self.events.len() as u64;
        let mut records = Vec::new();
        for id in from..from + count {
            let key = id * 7919 % KEYS;
            let partition = if key.is_multiple_of(10) { id / KEYS } else { key } % PARTITIONS as u64;
            let event = Event { id, key: format!("k{key}") };
            records.push(record(&event, partition as i32));
            self.events.push(event);
        }
        broker.judge().unwrap().produce("in", &records).unwrap();
    }

    /// More input, in a partition that is new as well as in the others.
    pub fn add_a_partition(&mut self, broker: &Broker, count: u64) {
        let judge = broker.judge().unwrap();
        judge.add_partitions("in", PARTITIONS + 1).unwrap();
        let from = self.events.len() as u64;
        let new: Vec<_> = (from..from + count).map(|id| Event { id, key: format!("new{}", id % 5) }).collect();
        judge.produce("in", &new.iter().map(|e| record(e, PARTITIONS)).collect::<Vec<_>>()).unwrap();
        self.events.extend(new);
    }

    /// Everything once, nothing else, in order, and no transaction left open.
    pub fn assert_exact(&self, broker: &Broker) {
        let judge = broker.judge().unwrap();
        let is_open = |topic: &&str| judge.has_open(topic).unwrap();
        // A broker answers a commit before it has told every partition of it. Transactions time out later than this.
        let began = now();
        while let Some(topic) = ["copies", "counts", "crash-commits"].iter().find(|topic| is_open(topic)) {
            let waited = now().duration_since(began);
            assert!(waited < Duration::from_secs(10), "an open transaction holds back readers of {topic}");
        }
        let read = |topic| judge.read(topic, Isolation::ReadCommitted).unwrap();
        let mut copies: Vec<Event> = read("copies").iter().map(|r| serde_json::from_str(&r.text()).unwrap()).collect();
        let mut last = BTreeMap::new();
        for Event { id, key } in copies.iter().filter(|e| !is_spread(&e.key)) {
            if let Some(before) = last.insert(key, id) {
                assert!(before < id, "key {key}: record {id} comes behind {before}");
            }
        }
        copies.sort();
        let mut expected = self.events.clone();
        expected.sort();
        assert_same(&copies, &expected);
        let mut counts: Vec<Count> = read("counts").iter().map(|r| serde_json::from_str(&r.text()).unwrap()).collect();
        let mut last = BTreeMap::new();
        for Count { key, count } in &counts {
            let before = last.insert(key, *count).unwrap_or(0);
            assert!(before < *count, "key {key}: count {count} comes behind {before}");
        }
        counts.sort();
        let mut totals = BTreeMap::new();
        let mut expected: Vec<_> = self
            .events
            .iter()
            .map(|e| {
                let count = totals.entry(&e.key).or_insert(0);
                *count += 1;
                Count { key: e.key.clone(), count: *count }
            })
            .collect();
        expected.sort();
        assert_same(&counts, &expected);
    }
}

fn is_spread(key: &str) -> bool {
    key.ends_with('0')
}

/// The same multiset; with the first difference.
fn assert_same<T: Ord + std::fmt::Debug>(found: &[T], expected: &[T]) {
    if let Some(at) = found.iter().zip(expected).position(|(f, e)| f != e) {
        panic!(
            "{} records instead of {}; found {:?}, expected {:?}",
            found.len(),
            expected.len(),
            found[at],
            expected[at]
        );
    }
    assert_eq!(found.len(), expected.len());
}
