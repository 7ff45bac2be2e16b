//! Throughput: the hand-written loop and the engine in turn over the same topic, several rounds; medians, and the
//! ratio round by round.
use serde_json::Value;
use std::collections::HashMap;

use super::{
    Failed, Run,
    meter::quantile,
    stand::{PARTITIONS, Stand, finish, spawn},
    work::{Account, Rows, in_euros, kept, made_up, numbered},
};
use crate::Args;

pub fn run(args: &Args) -> Result<(), Failed> {
    let (workload, parallelism, rounds) = (&*args.command, args.parallelism, args.rounds.max(1));
    let (events, partitions) = (args.events.unwrap_or(3_000_000), args.partitions.unwrap_or(PARTITIONS));
    let mut stand = Stand::new()?;
    let input = stand.topic("orders", PARTITIONS)?;
    stand.fill(&input, events)?;
    let (hand_rows, rows) = (answer("k1", events)?, answer(workload, events)?);
    // The first to read a topic finds it in nobody's cache.
    let hand = Run { workload: "k1".into(), by_hand: true, input, partitions, events, ..Run::default() };
    measure(&mut stand, &hand, hand_rows)?;
    let ours = ["1s", "100ms"].map(|interval| Run {
        workload: workload.to_owned(),
        by_hand: false,
        interval: interval.into(),
        parallelism,
        kafka: args.kafka.clone(),
        ..hand.clone()
    });
    let mut found: Vec<Vec<Value>> = vec![Vec::new(); 3];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        found[0].push(measure(&mut stand, &hand, hand_rows)?);
        for (run, found) in ours.iter().zip(&mut found[1..]) {
            found.push(measure(&mut stand, run, rows)?);
        }
    }
    println!(
        "{:<18} {:>8} {:>6} {:>6} {:>6} {:>18} {:>16} {:>16} {:>4}",
        "", "k/cpu-s", "ratio", "k/s", "number", "checkpoint 50/99/m", "commit 50/99/m", "longest gaps ms", "MB"
    );
    let names = ["k1 by hand".to_owned(), format!("{workload} every 1s"), format!("{workload} every 100ms")];
    for (name, runs) in names.iter().zip(&found) {
        let of = |read: &dyn Fn(&Value) -> f64| quantile(&runs.iter().map(read).collect::<Vec<_>>(), 0.5);
        let number = |name: &'static str| of(&|run| run[name].as_f64().unwrap_or(f64::NAN));
        let rate = |run: &Value| run["events_per_cpu_second"].as_f64().unwrap_or(f64::NAN);
        let ratios: Vec<_> = runs.iter().zip(&found[0]).map(|(ours, hand)| rate(ours) / rate(hand)).collect();
        let times = |name: &'static str| {
            let at = |index: usize| of(&|run| run[name][index].as_f64().unwrap_or(f64::NAN));
            format!("{:.0}/{:.0}/{:.0}", at(0), at(1), at(2))
        };
        let gaps: Vec<_> = runs.iter().map(|run| run["gaps_ms"][0].to_string()).collect();
        println!(
            "{name:<18} {:>8.0} {:>6.2} {:>6.0} {:>6.0} {:>18} {:>16} {:>16} {:>4.0}",
            number("events_per_cpu_second") / 1e3,
            quantile(&ratios, 0.5),
            number("events_per_second") / 1e3,
            number("checkpoints"),
            times("checkpoint_ms"),
            times("commit_ms"),
            gaps.join(" "),
            number("rss_mb"),
        );
    }
    Ok(())
}

/// Runs with an output of its own.
fn measure(stand: &mut Stand, run: &Run, expected: Rows) -> Result<Value, Failed> {
    let output = stand.topic(&run.workload, run.partitions)?;
    let run = Run { at: stand.servers().to_owned(), job: format!("bench-{output}"), output, ..run.clone() };
    let mut found = finish(spawn(&run)?)?;
    let output = stand.output(&run.output, run.partitions)?;
    if output.rows != expected {
        return Err(format!("{} has written {:?} instead of {expected:?}", run.job, output.rows));
    }
    found["gaps_ms"] = output.gaps_ms().into();
    eprintln!("{found}");
    stand.broker.judge()?.delete_topic(&run.output)?;
    Ok(found)
}

/// What has to come out.
fn answer(workload: &str, events: u64) -> Result<Rows, Failed> {
    let (mut rows, mut bytes, mut sums) = (Rows::default(), Vec::new(), HashMap::<String, (u64, u64)>::new());
    for n in 0..events {
        let (_, order) = numbered(n, made_up(n));
        bytes.clear();
        if workload == "k2" {
            let (count, sum_cents) = sums.entry(order.user.clone()).or_default();
            (*count, *sum_cents) = (*count + 1, *sum_cents + order.price_cents);
            let row = Account { user: order.user, count: *count, sum_cents: *sum_cents, ts: order.ts };
            serde_json::to_writer(&mut bytes, &row).map_err(|e| e.to_string())?;
        } else if let Some(row) = kept(in_euros(order)) {
            serde_json::to_writer(&mut bytes, &row).map_err(|e| e.to_string())?;
        } else {
            continue;
        }
        rows.add(&bytes);
    }
    Ok(rows)
}
