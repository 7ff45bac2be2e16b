//! Ours and the baseline in turn, several rounds: medians, and the ratio round by round.
use serde_json::Value;
use std::process::Command;

use crate::Args;

struct Case {
    workload: &'static str,
    parallelism: u32,
    events: u64,
}

const CASES: [Case; 9] = [
    Case { workload: "w1", parallelism: 1, events: 1_000_000_000 },
    Case { workload: "w2", parallelism: 1, events: 200_000_000 },
    Case { workload: "w3", parallelism: 1, events: 60_000_000 },
    Case { workload: "timers", parallelism: 1, events: 40_000_000 },
    Case { workload: "w2", parallelism: 2, events: 200_000_000 },
    Case { workload: "hop", parallelism: 1, events: 50_000_000 },
    Case { workload: "session", parallelism: 1, events: 20_000_000 },
    Case { workload: "w4", parallelism: 1, events: 60_000_000 },
    Case { workload: "interval", parallelism: 1, events: 30_000_000 },
];

fn measure(case: &Case, events: u64, extra: &[&str]) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(program)
        .args([case.workload, "--events", &events.to_string(), "--parallelism", &case.parallelism.to_string()])
        .args(extra)
        .output()
        .map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn compare(args: &Args) -> Result<(), String> {
    let interval = if args.interval == "0s" { "1s" } else { &args.interval };
    println!(
        "{:<8} {:>2} {:>12} {:>12} {:>12} {:>7} {:>13} {:>10} {:>9} {:>9}",
        "", "P", "hand M/cpu-s", "plain", "checkpointed", "ratio", "checkpoint %", "pause ms", "MB", "hand MB"
    );
    for case in CASES.iter().filter(|case| args.wants(case.workload)) {
        let events = args.events.unwrap_or(case.events);
        let (mut hand, mut plain, mut ours, mut ratios, mut costs) = (vec![], vec![], vec![], vec![], vec![]);
        let (mut pauses, mut memory, mut hand_memory) = (vec![], vec![], vec![]);
        for _ in 0..args.rounds.max(1) {
            let rate = |v: &Value| v["events_per_cpu_second"].as_f64().unwrap_or(f64::NAN) / 1e6;
            let h = measure(case, events, &["--baseline"])?;
            let o = measure(case, events, &["--checkpoint-interval", interval])?;
            let p = measure(case, events, &[])?;
            ratios.push(rate(&o) / rate(&h));
            costs.push((rate(&p) / rate(&o) - 1.0) * 100.0);
            hand.push(rate(&h));
            plain.push(rate(&p));
            pauses.push(o["snapshot_pause_ms"].as_f64().unwrap_or(f64::NAN));
            memory.push(o["rss_mb"].as_f64().unwrap_or(f64::NAN));
            hand_memory.push(h["rss_mb"].as_f64().unwrap_or(f64::NAN));
            ours.push(rate(&o));
        }
        println!(
            "{:<8} {:>2} {:>12.1} {:>12.1} {:>12.1} {:>7.2} {:>13.1} {:>10.2} {:>9.0} {:>9.0}",
            case.workload,
            case.parallelism,
            median(hand),
            median(plain),
            median(ours),
            median(ratios),
            median(costs),
            median(pauses),
            median(memory),
            median(hand_memory)
        );
    }
    Ok(())
}
