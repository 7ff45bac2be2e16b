//! Speed, as ratios in one run: each workload through the public API and as a hand-written loop.
//!
//!     cargo run --release -p tidegate-bench -- w2 --events 50000000 --parallelism 1 --checkpoint-interval 1s
//!     cargo run --release -p tidegate-bench -- w2 --events 50000000 --baseline
//!     cargo run --release -p tidegate-bench -- compare --rounds 5
//!     cargo run --release -p tidegate-bench -- k1 --rounds 3
//!
//! One JSON line a run. `events_per_cpu_second` counts the CPU time of the whole process in the *steady part*,
//! from the moment the last source has emitted a fifth of its events to the end: on a shared machine it is
//! the figure to trust. What begins with a k runs against a real Kafka broker, and compares at once: see [`kafka`].
mod backends;
mod baseline;
mod compare;
mod deltas;
mod engine;
mod events;
mod kafka;
mod marked;
mod measure;

use std::process::ExitCode;

const USAGE: &str =
    "tidegate-bench w1|w2|w3|w4|hop|session|interval|timers [--events N] [--parallelism P] [--checkpoint-interval 1s] [--baseline]
          [--keys N] [--backend memory|rocksdb|redis|object-store] [--toml 'state.cache = \"256MB\"' ...]
tidegate-bench backends [memory rocksdb redis objects hdfs ...] [--events N] [--keys N] [--rounds R]
tidegate-bench deltas [memory rocksdb redis objects hdfs ...] [--keys N]
tidegate-bench compare [w1 w2 w3 w4 hop session interval timers ...] [--events N] [--rounds R] [--checkpoint-interval 1s]
tidegate-bench k1|k2 [--events N] [--parallelism P] [--rounds R] [--partitions N] [--set linger.ms=5 ...]
tidegate-bench latency [--events N] [--set ...]
tidegate-bench recovery [--rounds R] [--set ...]";

/// What to run.
#[derive(Clone, Debug)]
pub struct Args {
    /// `compare`, or a workload.
    command: String,
    workloads: Vec<String>,
    events: Option<u64>,
    parallelism: u32,
    interval: String,
    baseline: bool,
    rounds: usize,
    /// Of w3 and timers.
    keys: Option<u64>,
    /// Settings of the engine's jobs.
    settings: Vec<String>,
    /// Of Kafka topics that are written.
    partitions: Option<usize>,
    /// Properties of librdkafka's, for the engine's clients.
    kafka: Vec<(String, String)>,
}

impl Args {
    /// Whether something is to be compared: all is, where nothing is named.
    fn wants(&self, name: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|wanted| wanted == name)
    }
}

fn args() -> Result<Args, String> {
    let mut given = std::env::args().skip(1);
    let command = given.next().ok_or("what to run?")?;
    let mut args = Args {
        command,
        workloads: Vec::new(),
        events: None,
        parallelism: 1,
        interval: "0s".into(),
        baseline: false,
        rounds: 5,
        keys: None,
        settings: Vec::new(),
        partitions: None,
        kafka: Vec::new(),
    };
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or(format!("{name} needs a value"));
        let number = |v: String| v.replace('_', "").parse::<u64>().map_err(|e| format!("{v}: {e}"));
        match &*name {
            "--events" => args.events = Some(number(value()?)?),
            "--parallelism" => args.parallelism = number(value()?)? as u32,
            "--checkpoint-interval" => args.interval = value()?,
            "--rounds" => args.rounds = number(value()?)? as usize,
            "--keys" => args.keys = Some(number(value()?)?),
            "--backend" => args.settings.push(format!("state.backend = {:?}", value()?)),
            "--toml" => args.settings.push(value()?),
            "--baseline" => args.baseline = true,
            "--partitions" => args.partitions = Some(number(value()?)? as usize),
            "--set" => {
                let set = value()?;
                let (name, value) = set.split_once('=').ok_or(format!("--set {set}: not NAME=VALUE"))?;
                args.kafka.push((name.to_owned(), value.to_owned()));
            }
            _ if !name.starts_with('-') => args.workloads.push(name),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok(args)
}

fn run(args: &Args) -> Result<(), String> {
    if args.command == "compare" {
        return compare::compare(args);
    }
    if args.command == "backends" {
        return backends::compare(args);
    }
    if args.command == "deltas" {
        return deltas::compare(args);
    }
    if kafka::COMMANDS.contains(&&*args.command) {
        return kafka::run(args);
    }
    let workload = events::Workload::by_name(&args.command).ok_or(format!("there is no workload {}", args.command))?;
    let events = args.events.unwrap_or(50_000_000);
    let keys = args.keys.unwrap_or(workload.keys());
    let outcome = if args.baseline {
        baseline::run(workload, events, keys, args.parallelism)?
    } else {
        engine::run(workload, events, args)?
    };
    if let Some(expected) = (!args.baseline).then(|| baseline::answer(workload, events, keys)).flatten()
        && expected != outcome.answer
    {
        return Err(format!("wrong answer: {:?} instead of {expected:?}", outcome.answer));
    }
    println!("{}", outcome.line(&args.command, events, args.parallelism));
    Ok(())
}

fn main() -> ExitCode {
    match args().and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}
