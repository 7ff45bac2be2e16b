//! Metrics as of one moment: sums over subtasks, and what follows from them.
use hdrhistogram::Histogram;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::stats::{OperatorStats, latency_histogram};
use crate::{
    env::{now, wall_ms},
    plan::{Node, NodeKind},
    runtime::supervise::Shared,
    time::{MAX, MIN},
};
use tidegate_checkpoint::{figure::Figure, ids::OperatorId};

/// A job's metrics; counts are of the current attempt.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics {
    /// Since the job was started.
    pub elapsed: Duration,
    /// Every operator, in the order of the graph.
    pub operators: Vec<OperatorMetrics>,
    /// Checkpoints of this run.
    pub checkpoints: CheckpointMetrics,
    /// What the commit point says of itself.
    pub figures: Vec<Figure>,
}

/// One operator, all subtasks together.
#[derive(Clone, Debug, Default)]
pub struct OperatorMetrics {
    /// The user's name for it, or operator and number.
    pub name: String,
    /// What it is: `source`, `map`, `window tumbling 1h`, `sink`.
    pub operator: String,
    /// Records in; of a source: read, with those that cannot be decoded.
    pub records_in: u64,
    /// Records out.
    pub records_out: u64,
    /// Bytes read from outside.
    pub bytes_in: u64,
    /// Bytes written outside.
    pub bytes_out: u64,
    /// Records held back by a filter.
    pub filtered: u64,
    /// Records too late for their window.
    pub late: u64,
    /// Undecodable records skipped; of `dedup`, duplicates.
    pub skipped: u64,
    /// Undecodable records handed to the dead-letter stream.
    pub dead_letters: u64,
    /// Records with a timestamp too far in the future.
    pub far_future: u64,
    /// Entries of keyed state.
    pub state_entries: u64,
    /// The lowest watermark of its subtasks, if it has one that is neither the first nor the last.
    pub watermark: Option<i64>,
    /// How far that is behind the machine's clock.
    pub watermark_lag: Option<Duration>,
    /// Of a source that knows it: records that are there and have not been read.
    pub lag: Option<u64>,
    /// Throughput: records a second since the job was started (out of a source, into all others).
    pub records_per_second: f64,
    /// Throughput in bytes read or written outside.
    pub bytes_per_second: f64,
    /// From ingestion at the source to this operator.
    pub latency: Option<Latency>,
    /// Fractions of time that the busiest subtask's task worked, waited for input, waited for its output.
    /// Only the head of a task has them.
    pub busy: Option<f64>,
    /// See `busy`.
    pub idle: Option<f64>,
    /// See `busy`.
    pub backpressured: Option<f64>,
    /// Capacity: the rate at which the busiest subtask would be saturated, for the operator as a whole.
    pub capacity_per_second: Option<f64>,
    /// The longest time that one batch or one slice spent on serialising state.
    pub snapshot_pause: Duration,
    /// Of a source: of each split, `tidegate_split_records_total`, `tidegate_split_bytes_total` and, where it is known,
    /// `tidegate_split_lag_records`. And whatever a source or a sink says of itself.
    pub figures: Vec<Figure>,
}

/// Percentiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    /// Of what a histogram has counted, in microseconds; `None`: nothing.
    pub(crate) fn of(us: &Histogram<u64>) -> Option<Self> {
        let at = |q| Duration::from_micros(us.value_at_quantile(q));
        (!us.is_empty()).then(|| Self { p50: at(0.5), p99: at(0.99), max: Duration::from_micros(us.max()) })
    }
}

/// Checkpoints of this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointMetrics {
    /// Completed.
    pub completed: u64,
    /// Given up.
    pub abandoned: u64,
    /// How long the last one took, in ms.
    pub last_duration_ms: u64,
    /// How long the longest took, in ms.
    pub max_duration_ms: u64,
    /// The size of all that the last one refers to.
    pub last_bytes: u64,
    /// How long the step that makes them count has taken: the write of the commit record, or the job's transaction.
    pub commit: Option<Latency>,
    /// How long it has taken the last time.
    pub last_commit: Duration,
}

impl CheckpointMetrics {
    pub(crate) fn completed(&mut self, duration_ms: u64, bytes: u64) {
        self.completed += 1;
        self.last_duration_ms = duration_ms;
        self.max_duration_ms = self.max_duration_ms.max(duration_ms);
        self.last_bytes = bytes;
    }
}

impl JobMetrics {
    pub(crate) fn of(shared: &Shared) -> Self {
        let elapsed = now().duration_since(shared.began);
        let (registry, checkpoints) = shared.stats();
        let mut contributed = shared.contributed();
        let all = registry.all();
        let mut operators: Vec<OperatorMetrics> = Vec::new();
        for node in shared.graph.nodes() {
            let stats: Vec<_> = all.iter().filter(|((n, _), _)| *n == node.id).map(|(_, s)| s.as_ref()).collect();
            let mut metrics = operator(&node, &stats, elapsed);
            metrics.figures = stats.iter().flat_map(|s| s.splits.figures()).collect();
            if let (NodeKind::Source | NodeKind::Sink, Ok(name)) = (node.kind, OperatorId::new(&*metrics.name)) {
                metrics.figures.extend(contributed.operators.remove(&name).unwrap_or_default());
            }
            let counts = matches!(node.kind, NodeKind::Source | NodeKind::Keyed | NodeKind::Stateful | NodeKind::Sink)
                || node.operator.starts_with("split ");
            if metrics.records_in == 0 && !counts {
                // Operators that change no counts keep none: what went in is what came out before them.
                metrics.records_in = node.inputs.iter().map(|i| operators[i.0 as usize].records_out).sum();
            }
            if matches!(node.kind, NodeKind::Union | NodeKind::Shared)
                || matches!(&*node.operator, "map" | "inspect" | "try_map" | "throttle")
            {
                metrics.records_out = metrics.records_in;
            }
            if matches!(&*node.operator, "filter" | "filter_map" | "sample" | "sample_every") {
                metrics.filtered = metrics.records_in.saturating_sub(metrics.records_out);
            }
            if matches!(&*node.operator, "fold" | "aggregate" | "reduce") {
                metrics.records_out = metrics.records_in;
            }
            match &*node.operator {
                "late" => metrics.records_out = operators[node.inputs[0].0 as usize].late,
                "dead letters" => metrics.records_out = operators[node.inputs[0].0 as usize].dead_letters,
                "far future" => metrics.records_out = operators[node.inputs[0].0 as usize].taken_aside(),
                _ => {}
            }
            if node.kind == NodeKind::Side {
                metrics.records_in = metrics.records_out;
            }
            let records = if node.kind == NodeKind::Source { metrics.records_out } else { metrics.records_in };
            metrics.records_per_second = rate(records, elapsed);
            // Saturation is when the busiest subtask has no time left.
            metrics.capacity_per_second =
                metrics.busy.filter(|b| *b > 0.01 && records > 0).map(|busy| metrics.records_per_second / busy);
            operators.push(metrics);
        }
        Self { elapsed, operators, checkpoints, figures: contributed.commits }
    }

    /// An operator by name.
    pub fn operator(&self, name: &str) -> Option<&OperatorMetrics> {
        self.operators.iter().find(|o| o.name == name)
    }
}

impl OperatorMetrics {
    /// Of a source: what has gone to the far-future side stream only.
    fn taken_aside(&self) -> u64 {
        self.records_in.saturating_sub(self.records_out + self.skipped + self.dead_letters)
    }
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn operator(node: &Node, stats: &[&OperatorStats], elapsed: Duration) -> OperatorMetrics {
    let sum = |which: fn(&OperatorStats) -> &AtomicU64| stats.iter().map(|s| which(s).load(Relaxed)).sum::<u64>();
    let watermark = stats.iter().map(|s| s.watermark.load(Relaxed)).min().filter(|w| *w > MIN && *w < MAX);
    let busiest = stats.iter().max_by_key(|s| s.busy_ns.load(Relaxed));
    let parts = busiest.map(|s| [&s.busy_ns, &s.idle_ns, &s.backpressured_ns].map(|p| p.load(Relaxed) as f64));
    let parts = parts.filter(|p| p.iter().sum::<f64>() > 0.0).map(|p| p.map(|part| part / p.iter().sum::<f64>()));
    let (bytes_in, bytes_out) = (sum(|s| &s.bytes_in), sum(|s| &s.bytes_out));
    OperatorMetrics {
        name: node.label(),
        operator: node.operator.clone(),
        records_in: sum(|s| &s.records_in),
        records_out: sum(|s| &s.records_out),
        bytes_in,
        bytes_out,
        filtered: 0,
        late: sum(|s| &s.late),
        skipped: sum(|s| &s.skipped),
        dead_letters: sum(|s| &s.dead_letters),
        far_future: sum(|s| &s.far_future),
        state_entries: sum(|s| &s.state_entries),
        watermark,
        watermark_lag: watermark.map(|w| Duration::from_millis(wall_ms().saturating_sub(w).max(0) as u64)),
        lag: stats.iter().filter_map(|s| s.splits.lag()).reduce(u64::saturating_add),
        records_per_second: 0.0,
        bytes_per_second: rate(bytes_in + bytes_out, elapsed),
        latency: latency(stats),
        busy: parts.map(|p| p[0]),
        idle: parts.map(|p| p[1]),
        backpressured: parts.map(|p| p[2]),
        capacity_per_second: None,
        snapshot_pause: Duration::from_nanos(
            stats.iter().map(|s| s.snapshot_pause_ns.load(Relaxed)).max().unwrap_or(0),
        ),
        figures: Vec::new(),
    }
}

fn latency(stats: &[&OperatorStats]) -> Option<Latency> {
    let mut all: Histogram<u64> = latency_histogram()?;
    for stats in stats {
        stats.add_latency_to(&mut all);
    }
    Latency::of(&all)
}
