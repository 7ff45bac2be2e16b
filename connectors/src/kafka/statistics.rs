//! What librdkafka counts by itself: its statistics, passed through as they are, and the few that a job shows.
//!
//! Each client makes a JSON text of them every few seconds (`statistics.interval.ms`; its own STATISTICS.md says what
//! is in it). With a thousand partitions that is a megabyte, so it is only kept, and looked into when somebody looks
//! at the job's metrics. The hard case is the user's function, which is called on the thread that serves the
//! client's events: without that thread no drain ever ends. So a panic of it goes no further.
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tidegate_core::connect::Figure;

/// Who wants the statistics: gets the client's name and the text.
#[derive(Clone)]
pub(super) struct OnStatistics(Arc<dyn Fn(&str, &str) + Send + Sync>);

impl OnStatistics {
    pub(super) fn new(listener: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(super) fn hear(&self, client: &str, json: &str) {
        if catch_unwind(AssertUnwindSafe(|| self.0(client, json))).is_err() {
            tracing::warn!(client, "the function for Kafka's statistics has panicked; it is called again all the same");
        }
    }
}

impl fmt::Debug for OnStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStatistics")
    }
}

/// The last statistics of a client, which are looked into once at most.
#[derive(Debug)]
pub(super) enum Latest {
    Raw(Vec<u8>),
    Read(Vec<Figure>),
}

impl Default for Latest {
    fn default() -> Self {
        Self::Read(Vec::new())
    }
}

impl Latest {
    pub(super) fn figures(&mut self) -> Vec<Figure> {
        if let Self::Raw(json) = self {
            *self = Self::Read(figures(json));
        }
        match self {
            Self::Read(figures) => figures.clone(),
            Self::Raw(_) => Vec::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Client {
    msg_cnt: i64,
    msg_size: i64,
    tx_bytes: i64,
    rx_bytes: i64,
    brokers: BTreeMap<String, Broker>,
    topics: BTreeMap<String, Topic>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Broker {
    outbuf_cnt: i64,
    waitresp_cnt: i64,
    txretries: i64,
    txerrs: i64,
    rxerrs: i64,
    req_timeouts: i64,
    disconnects: i64,
    rtt: Window,
}

/// In microseconds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Window {
    cnt: i64,
    avg: i64,
    p99: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Topic {
    partitions: BTreeMap<String, Partition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Partition {
    fetchq_cnt: i64,
    fetchq_size: i64,
}

/// Sums over a client's brokers; of round trips the slowest broker's.
fn figures(json: &[u8]) -> Vec<Figure> {
    let client: Client = match serde_json::from_slice(json) {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(%error, "librdkafka's statistics cannot be read");
            return Vec::new();
        }
    };
    let brokers = || client.brokers.values();
    let partitions = || client.topics.values().flat_map(|topic| topic.partitions.values());
    let sum = |of: fn(&Broker) -> i64| brokers().map(of).sum::<i64>();
    let queued = client.msg_cnt + partitions().map(|p| p.fetchq_cnt).sum::<i64>();
    let queued_bytes = client.msg_size + partitions().map(|p| p.fetchq_size).sum::<i64>();
    let counts = [
        ("tidegate_kafka_retries_total", sum(|b| b.txretries)),
        ("tidegate_kafka_request_errors_total", sum(|b| b.txerrs + b.rxerrs)),
        ("tidegate_kafka_request_timeouts_total", sum(|b| b.req_timeouts)),
        ("tidegate_kafka_disconnects_total", sum(|b| b.disconnects)),
        ("tidegate_kafka_sent_bytes_total", client.tx_bytes),
        ("tidegate_kafka_received_bytes_total", client.rx_bytes),
    ];
    let gauges = [
        ("tidegate_kafka_queued_records", queued),
        ("tidegate_kafka_queued_bytes", queued_bytes),
        ("tidegate_kafka_waiting_requests", sum(|b| b.outbuf_cnt)),
        ("tidegate_kafka_unanswered_requests", sum(|b| b.waitresp_cnt)),
    ];
    let mut figures: Vec<_> = counts.map(|(name, n)| Figure::count(name, n.max(0) as u64)).into();
    figures.extend(gauges.map(|(name, n)| Figure::gauge(name, n as f64)));
    let slowest = |of: fn(&Window) -> i64| brokers().map(|b| &b.rtt).filter(|rtt| rtt.cnt > 0).map(of).max();
    for (name, us) in [
        ("tidegate_kafka_round_trip_avg_seconds", slowest(|rtt| rtt.avg)),
        ("tidegate_kafka_round_trip_p99_seconds", slowest(|rtt| rtt.p99)),
    ] {
        figures.extend(us.map(|us| Figure::gauge(name, us as f64 / 1e6)));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    #[test]
    fn what_is_shown_is_summed_over_brokers_and_partitions() {
        let json = br#"{"name": "rdkafka#consumer-1", "msg_cnt": 2, "tx_bytes": 70, "rx_bytes": 80, "more": {"x": []},
            "brokers": {
                "a:1/0": {"txretries": 3, "txerrs": 1, "rxerrs": 2, "disconnects": 1, "outbuf_cnt": 4,
                          "rtt": {"cnt": 9, "avg": 500, "p99": 2500}},
                "b:1/1": {"txretries": 4, "req_timeouts": 5, "waitresp_cnt": 6, "rtt": {"cnt": 0, "p99": 9999}}},
            "topics": {"t": {"partitions": {"0": {"fetchq_cnt": 10, "fetchq_size": 100}, "-1": {}}}}}"#;
        let mut latest = Latest::Raw(json.to_vec());
        for _ in 0..2 {
            let figures = latest.figures();
            let value = |name: &str| {
                let full = format!("tidegate_kafka_{name}");
                figures.iter().find(|f| f.name == full).unwrap_or_else(|| panic!("no {full}")).value.as_f64()
            };
            let counts =
                ["retries", "request_errors", "request_timeouts", "disconnects", "sent_bytes", "received_bytes"];
            let counts = counts.map(|name| value(&format!("{name}_total")) as u64);
            assert_eq!(counts, [7, 3, 5, 1, 70, 80]);
            let gauges = ["queued_records", "queued_bytes", "waiting_requests", "unanswered_requests"];
            assert_eq!(gauges.map(|name| value(name) as u64), [12, 100, 4, 6]);
            assert_eq!((value("round_trip_avg_seconds"), value("round_trip_p99_seconds")), (0.0005, 0.0025));
        }
    }

    #[test]
    fn what_cannot_be_read_shows_nothing() {
        assert!(Latest::default().figures().is_empty());
        assert!(Latest::Raw(b"{\"brokers\": 7}".to_vec()).figures().is_empty());
    }

    #[test]
    fn a_panic_of_who_listens_goes_no_further() {
        let heard = Arc::new(AtomicU64::new(0));
        let count = heard.clone();
        let listener = OnStatistics::new(move |client, json| {
            assert_eq!((client, json), ("producer", "{}"));
            assert!(count.fetch_add(1, SeqCst) > 0, "the first time");
        });
        listener.hear("producer", "{}");
        listener.hear("producer", "{}");
        assert_eq!(heard.load(SeqCst), 2);
    }
}
