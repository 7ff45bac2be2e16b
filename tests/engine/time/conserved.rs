//! Nothing is dropped without being counted: on every edge what comes in has gone out, and at every operator
//! in = out + filtered + late + dead letters, by the metrics alone; and what the sinks have agrees with them.
use super::MS;
use crate::{
    kit::{finished, run, settings, until},
    script::{BAD, Event, Script},
};
use std::time::Duration;
use tidegate::{Collect, FarFuture, Job, JobMetrics, JobState, Stream, Tumbling, Watermarks, extend::env::wall_ms};

/// Every seventh cannot be decoded, every eleventh is from a far future, every fifth is old.
fn mixed(count: u64) -> Vec<Event> {
    let start = wall_ms() - 3_600_000;
    (0..count)
        .map(|i| {
            let at = match i {
                i if i % 11 == 10 => start + 86_400_000,
                i if i % 5 == 4 => start + i as i64 - 50,
                i => start + i as i64,
            };
            Event { id: if i % 7 == 6 { BAD } else { i }, key: (i % 3) as u8, at }
        })
        .collect()
}

#[track_caller]
fn assert_conserved(metrics: &JobMetrics, edges: &[(&str, &str)]) {
    // By its name, or, where it is the only one of its kind, by what it is.
    let is = |o: &&tidegate::OperatorMetrics, name: &str| o.name == name || o.operator == name;
    let of = |name: &str| metrics.operators.iter().find(|o| is(o, name)).unwrap_or_else(|| panic!("no {name}"));
    for (from, to) in edges {
        assert_eq!(of(from).records_out, of(to).records_in, "between {from} and {to}:\n{metrics}");
    }
    for o in &metrics.operators {
        let aside = o.filtered + o.late + o.dead_letters + o.skipped;
        match o.operator.as_str() {
            "source" => {
                let far = metrics.operators.iter().find(|f| f.operator == "far future").map_or(0, |f| f.records_out);
                assert_eq!(o.records_in, o.records_out + aside + far, "{}:\n{metrics}", o.name);
            }
            // One result for many records, or many for one.
            "flat_map" | "sink" => {}
            window if window.starts_with("window") => assert!(o.records_in >= o.late, "{metrics}"),
            _ => assert_eq!(o.records_in, o.records_out + aside, "{}:\n{metrics}", o.name),
        }
    }
}

#[test]
fn what_comes_in_goes_out_or_is_counted_on_every_edge() {
    for parallelism in [1, 2] {
        for skip in [false, true] {
            run(async {
                let job = Job::new("conserved", settings(parallelism));
                let events = mixed(3_000);
                let script = Script::new([events[..1_500].to_vec(), events[1_500..].to_vec()]);
                let watermarks =
                    Watermarks::monotonous().every(1).guard_future(Duration::from_secs(600), FarFuture::SideStream);
                let (out, all, late, far, dead) =
                    (Collect::new(), Collect::new(), Collect::new(), Collect::new(), Collect::new());
                let mut source = job.source("events", script.clone()).event_time(|e: &Event| e.at, watermarks);
                if skip {
                    source = source.skip_undecodable();
                } else {
                    source.dead_letters().sink("dead", dead.clone());
                }
                source.far_future().sink("far", far.clone());
                let kept = source.filter(|e| e.id % 2 == 0).map(|e| e).boxed();
                kept.clone().filter_map(|e| (e.id % 4 == 0).then_some(e)).flat_map(|e| [e, e]).sink("all", all.clone());
                let mut windows = kept.inspect(|_| {}).key_by(|e| e.key).window("windows", Tumbling::of(10 * MS));
                windows.late().sink("late", late.clone());
                windows.count().sink("counts", out.clone());
                let handle = job.start().unwrap();
                script.gates.iter().for_each(crate::kit::Gate::open);
                let status = handle.watch();
                until(|| status.borrow().state == JobState::Finished).await;
                let metrics = handle.metrics();
                finished(handle).await;
                let edges = [
                    ("events", "filter"),
                    ("filter", "map"),
                    ("map", "boxed"),
                    ("boxed", "filter_map"),
                    ("filter_map", "flat_map"),
                    ("flat_map", "all"),
                    ("boxed", "inspect"),
                    ("inspect", "windows"),
                    ("windows", "counts"),
                    ("far future", "far"),
                ];
                assert_conserved(&metrics, &edges);
                let of = |name: &str| metrics.operator(name).unwrap();
                let bad = events.iter().filter(|e| e.id == BAD).count() as u64;
                let future = events.iter().filter(|e| e.id != BAD && e.id % 11 == 10).count() as u64;
                let source = of("events");
                assert_eq!((source.records_in, source.dead_letters + source.skipped), (3_000, bad));
                assert_eq!((source.far_future, far.len() as u64), (future, future));
                assert_eq!(dead.len() as u64, if skip { 0 } else { bad });
                assert_eq!((of("windows").late, of("late").records_in), (late.len() as u64, late.len() as u64));
                assert!(!late.is_empty());
                let counted: u64 = out.take().iter().map(|w| w.value).sum();
                assert_eq!(counted + late.len() as u64, of("windows").records_in);
                assert_eq!(of("all").records_in, all.len() as u64);
            });
        }
    }
}
