//! The example `alerts` on the real input: the same alerts at any parallelism, and those that a sorted list gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
#[path = "../examples/alerts.rs"]
#[allow(dead_code, reason = "its main")]
mod program;

use program::Alert;
use std::{collections::BTreeMap, path::Path};
use tidegate::{Collect, Job, Settings, Stream};

const INPUT: &str = "examples/data/flights-2013-01.csv";

fn found(parallelism: u32) -> Vec<Alert> {
    let alerts = Collect::new();
    let job = Job::new("alerts", Settings { parallelism, ..Settings::default() });
    program::alerts(&job, Path::new(INPUT)).sink("alerts", alerts.clone());
    tokio::runtime::Runtime::new().unwrap().block_on(job.run()).unwrap();
    let mut alerts = alerts.take();
    alerts.sort();
    alerts
}

/// Of all flights in time: when each airport's cancelled ones were to leave, and each plane's last flights.
fn expected() -> Vec<Alert> {
    let (mut cancelled, mut planes) =
        (BTreeMap::<String, Vec<i64>>::new(), BTreeMap::<String, Vec<(i64, String, i64)>>::new());
    let (mut newest, mut watermark) = (i64::MIN, i64::MIN);
    for (row, number) in csv::Reader::from_path(INPUT).unwrap().records().zip(1..) {
        let row = row.unwrap();
        let hour = humantime::parse_rfc3339(&row[18]).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        let at = hour.as_millis() as i64 + row[17].parse::<i64>().unwrap() * 60_000;
        if at > watermark {
            if row[5].parse::<f64>().is_err() {
                cancelled.entry(row[12].into()).or_default().push(at);
            } else if !matches!(&row[11], "" | "NA") {
                let flights = planes.entry(row[11].into()).or_default();
                if flights.last().is_none_or(|last| last.0 <= at) {
                    flights.push((at, row[13].into(), row[8].parse::<f64>().map_or(0, |minutes| minutes as i64)));
                }
            }
        }
        newest = newest.max(at);
        if number % 100 == 0 {
            watermark = newest - 2 * 3_600_000 - 1;
        }
    }
    let mut alerts = Vec::new();
    for (airport, mut times) in cancelled {
        times.sort_unstable();
        let mut told = i64::MIN;
        for now in &times {
            let count = times.iter().filter(|at| **at <= *now && **at > now - 3_600_000).count();
            if count >= 3 && *now >= told.saturating_add(3_600_000) {
                told = *now;
                alerts
                    .push(Alert { at: *now, what: format!("{count} flights from {airport} cancelled within an hour") });
            }
        }
    }
    let days = 3 * 24 * 3_600_000;
    for (plane, flights) in planes {
        let next = flights.iter().skip(1).map(|flight| flight.0).chain([i64::MAX]);
        for ((at, dest, delay), next) in flights.iter().zip(next) {
            // Of the last one it is known only if time has gone on for so long.
            if *delay >= 120 && next > at + days && (next < i64::MAX || at + days <= watermark) {
                let what = format!("{plane} not seen for three days since it came to {dest} {delay} min late");
                alerts.push(Alert { at: at + days, what });
            }
        }
    }
    alerts.sort();
    alerts
}

#[test]
fn alerts_are_those_of_a_sorted_list_at_any_parallelism() {
    let expected = expected();
    let of = |what: &str| expected.iter().filter(|alert| alert.what.contains(what)).count();
    assert!(of("cancelled") > 10 && of("not seen") > 10, "{} {}", of("cancelled"), of("not seen"));
    for parallelism in [1, 3] {
        assert_eq!(found(parallelism), expected);
    }
}
