//! The figures of a small job: they are there, they agree with each other and with what was written, and they
//! reach whatever exporter the program has installed.
use crate::{
    kit::{Blast, finished, run, settings, until},
    pipeline::{COUNT, pipeline},
    script::{Event, Script, at},
};
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate::{Collect, FileSink, FileSource, Job, JobMetrics, JobState, Kind, Stream, Tumbling, Watermarks};

/// Counts CSV rows by window into a file, and leaves a filter's and a window's rest behind.
fn counting(dir: &std::path::Path, parallelism: u32) -> Job {
    let at = |name: &str| dir.join(name).display().to_string();
    let rows: String = (0..20_000).map(|i| format!("{},{}\n", i % 10, if i % 100 == 99 { 0 } else { i })).collect();
    std::fs::write(at("in.csv"), format!("key,at\n{rows}x,y\n")).unwrap();
    let mut settings = settings(parallelism);
    settings.checkpoint.store = at("checkpoints");
    let job = Job::new("figures", settings);
    job.source("rows", FileSource::csv::<(u8, i64)>(at("in.csv")))
        .skip_undecodable()
        .event_time(|row: &(u8, i64)| row.1, Watermarks::monotonous().every(1))
        .filter(|row| row.0 > 0)
        .key_by(|row| row.0)
        .window("windows", Tumbling::of(Duration::from_millis(100)))
        .count()
        .map(|w| (w.key, w.window.start, w.value))
        .sink("counts", FileSink::csv(at("out")));
    job
}

/// The metrics of a job that has run to its end, with a checkpoint on the way.
fn figures(parallelism: u32) -> JobMetrics {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let job = counting(dir.path(), parallelism);
        let handle = job.start().unwrap();
        let status = handle.watch();
        // It may have ended by then, with a last checkpoint of its own.
        let _ = handle.checkpoint_now().await;
        until(|| status.borrow().state.is_end()).await;
        let metrics = handle.metrics();
        finished(handle).await;
        metrics
    })
}

#[test]
fn every_figure_of_a_small_job_is_there_and_agrees_with_the_others() {
    for parallelism in [1, 2] {
        let m = figures(parallelism);
        let of = |name: &str| m.operator(name).unwrap();
        let (rows, windows, counts) = (of("rows"), of("windows"), of("counts"));
        let filter = m.operators.iter().find(|o| o.operator == "filter").unwrap();
        assert_eq!((rows.records_in, rows.records_out, rows.skipped), (20_001, 20_000, 1));
        assert!(rows.bytes_in > 100_000 && counts.bytes_out > 1_000, "{m}");
        assert_eq!((filter.records_in, filter.filtered, filter.records_out), (20_000, 2_000, 18_000));
        // The first of a hundred is in time: its window has not fired yet.
        assert_eq!((windows.records_in, windows.late), (18_000, 199));
        assert_eq!((windows.records_out, counts.records_in), (1_800, 1_800));

        let seconds = m.elapsed.as_secs_f64();
        for o in &m.operators {
            let records = if o.operator == "source" { o.records_out } else { o.records_in };
            assert!((o.records_per_second * seconds / records as f64 - 1.0).abs() < 1e-6, "{m}");
        }
        assert!(rows.bytes_per_second > 0.0 && counts.bytes_per_second > 0.0);
        // A task's time is work, waiting for input, or waiting for its output.
        let heads = m.operators.iter().filter(|o| o.busy.is_some());
        assert_eq!(heads.clone().count(), if parallelism == 1 { 1 } else { 2 }, "{m}");
        for head in heads {
            let parts = [head.busy, head.idle, head.backpressured].map(Option::unwrap);
            assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-6 && parts.iter().all(|p| *p >= 0.0), "{m}");
        }
        let busy = rows.busy.unwrap();
        let capacity = rows.capacity_per_second;
        assert_eq!(capacity.is_some(), busy > 0.01, "{m}");
        assert!(capacity.is_none_or(|c| (c * busy / rows.records_per_second - 1.0).abs() < 1e-6), "{m}");
        // From ingestion to the operator that keeps state, and to the sink behind it.
        let latency = |name: &str| of(name).latency.unwrap_or_else(|| panic!("{name} has no latency:\n{m}"));
        for l in [latency("windows"), latency("counts")] {
            assert!(l.p50 <= l.p99 && l.p99 <= l.max && l.max <= m.elapsed && l.p50 > Duration::ZERO, "{l:?}");
        }
        assert!(latency("windows").max <= latency("counts").max, "{m}");

        let c = &m.checkpoints;
        assert!(c.completed >= 1 && c.abandoned == 0 && c.last_bytes > 0, "{c:?}");
        assert!(c.last_duration_ms <= c.max_duration_ms && u128::from(c.max_duration_ms) <= m.elapsed.as_millis());
    }
}

#[test]
fn the_watermark_and_how_far_it_is_behind_the_clock_are_shown_while_the_job_runs() {
    for parallelism in [1, 2] {
        run(async {
            let script = Script::new([at([1_000, 2_000, 3_000])]);
            let job = Job::new("watermark", settings(parallelism));
            job.source("events", script.clone())
                .event_time(|e: &Event| e.at, Watermarks::bounded(Duration::from_millis(500)))
                .key_by(|e| e.key)
                .fold("totals", 0u64, |n, _| *n += 1)
                .sink("out", Collect::new());
            let handle = job.start().unwrap();
            let of = |name: &str| handle.metrics().operator(name).cloned().unwrap_or_default();
            assert_eq!((of("events").watermark, of("out").watermark_lag), (None, None), "nothing has been said");
            script.gates[0].open_to(2);
            for name in ["events", "totals", "out"] {
                until(|| of(name).watermark == Some(1_499)).await;
                // The clock is the machine's, and the events are from 1970.
                assert!(of(name).watermark_lag.unwrap() > Duration::from_secs(50 * 365 * 86_400));
            }
            script.gates[0].open();
            handle.stop().await.unwrap();
        });
    }
}

#[test]
fn the_closing_table_has_the_figures() {
    let m = figures(1);
    let table = m.to_string();
    let lines: Vec<_> = table.lines().collect();
    for column in ["operator", "in", "out", "records/s", "capacity/s", "busy", "idle", "backpr", "p50", "p99", "max"] {
        assert!(lines[0].contains(column), "no column {column}:\n{table}");
    }
    let row = |name: &str| *lines.iter().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name}:\n{table}"));
    assert!(row("rows").contains("20001") && row("rows").contains("20000") && row("rows").contains("1 skipped"));
    assert!(row("rows").contains('%') && row("rows").contains("kB"), "{table}");
    assert!(row("filter").contains("2000 filtered"), "{table}");
    assert!(row("windows").contains("18000") && row("windows").contains("199 late"), "{table}");
    assert!(row("counts").contains(" ms") && row("counts").contains("1800"), "{table}");
    let last = lines[lines.len() - 1];
    let c = &m.checkpoints;
    for part in [
        format!("{:.2} s", m.elapsed.as_secs_f64()),
        format!("{} checkpoints", c.completed),
        " · commits p50 ".into(),
        format!("last {} ms, longest {} ms", c.last_duration_ms, c.max_duration_ms),
        "state ".into(),
    ] {
        assert!(last.contains(&part), "no {part:?}:\n{table}");
    }
}

#[test]
fn the_status_has_every_attempt_and_its_cause() {
    run(async {
        let p = pipeline("attempts", settings(1));
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT / 2);
        let epoch = handle.checkpoint_now().await.unwrap();
        p.bomb.arm_all([("map", Blast::Panic, 1), ("try_map", Blast::Error, 1)]);
        p.gate.open();
        let watched = handle.watch();
        let status = finished(handle).await;
        assert_eq!((status.attempt, status.restarts, status.restored), (3, 2, Some(epoch)));
        let [first, second] = &status.failures[..] else { panic!("{:?}", status.failures) };
        assert_eq!((first.attempt, first.kind, second.attempt, second.kind), (1, Kind::User, 2, Kind::User));
        assert!(first.cause.contains("the bomb at map") && second.cause.contains("the bomb at try_map"), "{status:?}");
        assert!(status.last_checkpoint.is_some_and(|c| c.epoch > epoch) && status.failure.is_none());
        assert_eq!(watched.borrow().state, JobState::Finished);
    });
}

/// Remembers the last value of everything, by name and operator.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<(String, String), f64>>>);

struct Entry(Recorder, (String, String));

impl Entry {
    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl CounterFn for Entry {
    fn increment(&self, _: u64) {
        panic!("counts are handed over as they are");
    }
    fn absolute(&self, value: u64) {
        self.set(value as f64);
    }
}

impl GaugeFn for Entry {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }
    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }
    fn set(&self, value: f64) {
        Entry::set(self, value);
    }
}

impl Recorder {
    fn entry(&self, key: &Key) -> Arc<Entry> {
        let label = |name: &str| key.labels().find(|l| l.key() == name).map(|l| l.value().to_owned());
        assert_eq!(label("job").as_deref(), Some("figures"));
        Arc::new(Entry(self.clone(), (key.name().to_owned(), label("operator").unwrap_or_default())))
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.entry(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.entry(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The recorder is this thread's, so the job runs on this thread.
#[test]
fn an_exporter_gets_the_figures_through_the_metrics_facade() {
    let recorder = Recorder::default();
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (m, status) = metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let job = counting(dir.path(), 1);
            let handle = job.start().unwrap();
            let status = handle.watch();
            until(|| status.borrow().state.is_end()).await;
            let metrics = handle.metrics();
            (metrics, finished(handle).await)
        })
    });
    let seen = recorder.0.lock().unwrap().clone();
    let value = |name: &str, operator: &str| {
        *seen.get(&(name.to_owned(), operator.to_owned())).unwrap_or_else(|| panic!("no {name} of {operator}"))
    };
    for o in &m.operators {
        let counts = [
            ("tidegate_records_in_total", o.records_in),
            ("tidegate_records_out_total", o.records_out),
            ("tidegate_bytes_in_total", o.bytes_in),
            ("tidegate_bytes_out_total", o.bytes_out),
            ("tidegate_filtered_total", o.filtered),
            ("tidegate_late_total", o.late),
            ("tidegate_skipped_total", o.skipped),
            ("tidegate_dead_letters_total", o.dead_letters),
            ("tidegate_far_future_total", o.far_future),
        ];
        for (name, count) in counts {
            assert_eq!(value(name, &o.name) as u64, count, "{name} of {}", o.name);
        }
        assert!(value("tidegate_records_per_second", &o.name) > 0.0);
    }
    let ratios = ["busy", "idle", "backpressured"].map(|part| value(&format!("tidegate_{part}_ratio"), "rows"));
    assert!((ratios.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{ratios:?}");
    for quantile in ["p50", "p99", "max"] {
        assert!(value(&format!("tidegate_latency_{quantile}_seconds"), "counts") > 0.0);
    }
    assert_eq!(value("tidegate_split_records_total", "rows") as u64, m.operator("rows").unwrap().records_in);
    assert_eq!(value("tidegate_split_bytes_total", "rows") as u64, m.operator("rows").unwrap().bytes_in);
    let commit = m.checkpoints.commit.unwrap();
    let last = m.checkpoints.last_commit;
    for (which, took) in [("last", last), ("p50", commit.p50), ("p99", commit.p99), ("max", commit.max)] {
        let exported = Duration::from_secs_f64(value(&format!("tidegate_commit_{which}_seconds"), ""));
        assert_eq!(exported, took, "{which}");
    }
    assert_eq!(value("tidegate_checkpoints_completed_total", "") as u64, m.checkpoints.completed);
    assert_eq!(value("tidegate_checkpoints_abandoned_total", "") as u64, 0);
    assert_eq!(value("tidegate_restarts_total", "") as u64, status.restarts);
    assert_eq!(value("tidegate_checkpoint_bytes", "") as u64, m.checkpoints.last_bytes);
    assert!(value("tidegate_checkpoint_duration_seconds", "") * 1_000.0 <= m.elapsed.as_millis() as f64);
}
