//! Recovery: from the start of a process whose predecessor was killed to its first committed output.
//!
//! Orders keep coming, somewhat less than 10,000 a second; the job is k2, whose accounts are the state. What is first
//! committed by the new process is told from what the old one still had by the broker's stamp: it was appended after the start.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{
    Failed, Run,
    batches::{Reader, Writer},
    meter::quantile,
    sleep,
    stand::{PARTITIONS, Stand, spawn},
    wall,
    work::{made_up, numbered},
};
use crate::Args;

/// Orders at once; then a pause of a millisecond.
const BURST: u64 = 10;
const LIMIT: Duration = Duration::from_secs(60);

pub fn run(args: &Args) -> Result<(), Failed> {
    let rounds = args.rounds.max(1);
    let mut stand = Stand::new()?;
    let (input, output) = (stand.topic("orders", PARTITIONS)?, stand.topic("accounts", PARTITIONS)?);
    let store = tempfile::tempdir().map_err(|e| e.to_string())?;
    let run = Run {
        workload: "k2".into(),
        at: stand.servers().to_owned(),
        input: input.clone(),
        output: output.clone(),
        job: "bench-recovery".into(),
        interval: "100ms".into(),
        parallelism: 1,
        partitions: PARTITIONS,
        endless: true,
        kafka: args.kafka.clone(),
        store: Some(store.path().to_owned()),
        ..Run::default()
    };
    let over = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        let producing = scope.spawn(|| produce(&run.at, &input, &over));
        let times = (0..=rounds).map(|round| kill_and_start(&run, round as u64)).collect::<Result<Vec<_>, _>>();
        over.store(true, Relaxed);
        producing.join().map_err(|_| "the producer has panicked")??;
        times
    })?;
    // The first start had nobody before it.
    let at = |q| quantile(&times[1..], q);
    println!(
        "{rounds} recoveries, from the process's start to its first committed output, ms: p50 {:.0}, p99 {:.0}, max {:.0}; the first start {:.0}",
        at(0.5),
        at(0.99),
        at(1.0),
        times[0]
    );
    Ok(())
}

/// In ms. Kills what it has started, some time later.
fn kill_and_start(run: &Run, round: u64) -> Result<f64, Failed> {
    let mut reader = Reader::new(&run.at, &run.output, &[0; PARTITIONS], true)?;
    let ends = reader.ends(&run.output, PARTITIONS as i32)?;
    drop(reader);
    reader = Reader::new(&run.at, &run.output, &ends, true)?;
    let (began, began_ms) = (Instant::now(), wall().as_millis() as i64);
    let mut client = spawn(run)?;
    let mut took = None;
    while took.is_none() && began.elapsed() < LIMIT {
        reader.next(10, |row| {
            if row.timestamp_ms > began_ms {
                took.get_or_insert_with(|| began.elapsed().as_secs_f64() * 1e3);
            }
            Ok(())
        })?;
    }
    sleep(Duration::from_millis(300 + round * 137 % 500));
    let _ = client.kill();
    let _ = client.wait();
    took.ok_or_else(|| format!("nothing was committed within {} s", LIMIT.as_secs()))
}

fn produce(servers: &str, topic: &str, over: &AtomicBool) -> Result<(), Failed> {
    let mut writer = Writer::new(servers, topic, 1)?;
    let mut n = 0;
    while !over.load(Relaxed) {
        for _ in 0..BURST {
            let (partition, order) = numbered(n, made_up(n));
            writer.write(partition, |bytes| serde_json::to_writer(bytes, &order))?;
            n += 1;
        }
        writer.hand_over()?;
        sleep(Duration::from_millis(1));
    }
    writer.flush()
}
