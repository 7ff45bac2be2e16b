//! Latency: 50,000 orders a second through k1 with a commit every 100 ms, from before an order is handed to its
//! producer to when a reader with `read_committed` has its payment. Producer and reader are here, on threads of their
//! own; the job is a process.
//!
//! It also tells whether a commit stops the flow: the broker stamps each payment when it is appended, long before
//! readers see it, and between two stamps there is to be no gap.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]
use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Failed, Run,
    batches::{Reader, Writer},
    meter::quantile,
    sleep,
    stand::{PARTITIONS, Stand, finish, spawn},
    wall,
    work::{Payment, in_euros, kept, numbered},
};
use crate::Args;

const PER_SECOND: u64 = 50_000;
const INTERVAL: &str = "100ms";
/// The beginning does not count: connections are made, caches are cold.
const WARM_UP: Duration = Duration::from_secs(3);

pub fn run(args: &Args) -> Result<(), Failed> {
    let events = args.events.unwrap_or(1_500_000);
    let mut stand = Stand::new()?;
    let (input, output) = (stand.topic("orders", PARTITIONS)?, stand.topic("payments", PARTITIONS)?);
    let run = Run {
        workload: "k1".into(),
        at: stand.servers().to_owned(),
        input: input.clone(),
        output: output.clone(),
        job: "bench-latency".into(),
        interval: INTERVAL.into(),
        parallelism: 1,
        partitions: PARTITIONS,
        events,
        endless: true,
        kafka: args.kafka.clone(),
        ..Run::default()
    };
    let client = spawn(&run)?;
    eprintln!("{} s at {PER_SECOND} orders a second", events / PER_SECOND);
    let servers = run.at.clone();
    let reading = {
        let expected = (0..events).filter(|n| kept(in_euros(numbered(*n, 0).1)).is_some()).count();
        let (servers, output) = (servers.clone(), output.clone());
        thread::spawn(move || read(&servers, &output, expected))
    };
    produce(&servers, &input, events)?;
    let latencies = reading.join().map_err(|_| "the reader has panicked")??;
    let client = finish(client)?;
    let counted = &latencies[..];
    let at = |q| quantile(counted, q);
    println!("{} payments", counted.len());
    println!("latency ms: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}", at(0.5), at(0.99), at(0.999), at(1.0));
    println!(
        "[p50, p99, max] ms of {} checkpoints: {}, of that the commit: {}",
        client["checkpoints"], client["checkpoint_ms"], client["commit_ms"]
    );
    let mut appended = stand.output(&output, PARTITIONS)?;
    let first = appended.appended_ms.first().copied().unwrap_or_default() + WARM_UP.as_millis() as i64;
    appended.appended_ms.retain(|ms| *ms >= first);
    println!("longest times without an append ms: {:?}", appended.gaps_ms());
    Ok(())
}

fn wall_us() -> i64 {
    wall().as_micros() as i64
}

fn produce(servers: &str, topic: &str, events: u64) -> Result<(), Failed> {
    let mut writer = Writer::new(servers, topic, 1)?;
    let (began, mut sent) = (Instant::now(), 0);
    while sent < events {
        let due = (began.elapsed().as_secs_f64() * PER_SECOND as f64) as u64;
        let now = wall_us();
        for n in sent..due.min(events) {
            let (partition, order) = numbered(n, now);
            writer.write(partition, |bytes| serde_json::to_writer(bytes, &order))?;
        }
        sent = due.min(events);
        writer.hand_over()?;
        sleep(Duration::from_millis(1));
    }
    writer.flush()
}

/// In ms, without those of the beginning.
fn read(servers: &str, topic: &str, expected: usize) -> Result<Vec<f64>, Failed> {
    let mut reader = Reader::new(servers, topic, &[0; PARTITIONS], true)?;
    let (mut latencies, mut seen, mut first, mut heard) = (Vec::with_capacity(expected), 0, None, Instant::now());
    while seen < expected {
        reader.next(50, |row| {
            let payment: Payment = serde_json::from_slice(row.value).map_err(|e| e.to_string())?;
            (seen, heard) = (seen + 1, Instant::now());
            if *first.get_or_insert(payment.ts) + WARM_UP.as_micros() as i64 <= payment.ts {
                latencies.push((wall_us() - payment.ts) as f64 / 1e3);
            }
            Ok(())
        })?;
        if heard.elapsed() > Duration::from_secs(30) {
            return Err(format!("{seen} of {expected} payments have come, and then none for 30 s"));
        }
    }
    Ok(latencies)
}
