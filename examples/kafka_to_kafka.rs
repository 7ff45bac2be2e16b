//! Kafka to Kafka, exactly once: reads orders, prices them in euros, leaves out the small ones, writes payments.
//!
//! ```sh
//! cargo xtask kafka --topic orders:2 --topic payments:2      # a broker, until Ctrl-C
//! cargo run --release --features kafka --example kafka_to_kafka -- --fill 100000
//! cargo run --release --features kafka --example kafka_to_kafka
//! ```
//! `--fill N` writes N orders first, and that is a job too. Kill the job with `kill -9` whenever you like and start it
//! again: `payments`, read with `read_committed`, has every payment once.
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use tidegate::{
    Generator, Job, Result, Settings, Stream,
    kafka::{Json, Kafka},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    user: String,
    item: u64,
    price_cents: u64,
    ts: i64,
}

#[derive(Clone, Debug, Serialize)]
struct Payment {
    user: String,
    item: u64,
    euro_cents: u64,
    ts: i64,
}

const USAGE: &str = "\
kafka_to_kafka [--all] [--fill N] [JOB.toml]

  --all      end with what is there now, instead of waiting for more
  --fill N   write N orders to the topic orders, and end
  JOB.toml   the job file; examples/kafka_to_kafka.toml without it";

#[derive(Default)]
struct Arguments {
    all: bool,
    fill: Option<u64>,
    file: Option<String>,
}

fn arguments() -> Option<Arguments> {
    let mut arguments = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--all" => arguments.all = true,
            "--fill" => arguments.fill = Some(given.next()?.parse().ok()?),
            file if !file.starts_with('-') => arguments.file = Some(file.to_owned()),
            _ => return None,
        }
    }
    Some(arguments)
}

/// The same orders every time. A filling that is killed is begun again: so it is at least once, and no transaction.
async fn fill(count: u64, settings: Settings) -> Result<()> {
    let kafka = Kafka::new(&settings);
    let mut settings = settings;
    settings.checkpoint.store = "memory:".into();
    let job = Job::new("fill-orders", settings);
    let order = |n: u64| Order {
        user: format!("u{}", n * 7919 % 100_000),
        item: n,
        price_cents: n * 31 % 10_000,
        ts: 1_700_000_000_000 + n as i64,
    };
    job.source("numbers", Generator::new(count, order))
        .sink("orders", kafka.sink("orders", Json::new()).key(|o: &Order| o.user.as_bytes()).at_least_once());
    job.run().await
}

async fn pay(all: bool, settings: Settings) -> Result<()> {
    let kafka = Kafka::new(&settings);
    let orders = kafka.source("orders", Json::<Order>::new()).group("kafka-to-kafka");
    let job = Job::new("kafka-to-kafka", settings);
    job.source("orders", if all { orders.available_now() } else { orders })
        .map(|o| Payment { user: o.user, item: o.item, euro_cents: o.price_cents * 908 / 1000, ts: o.ts })
        .filter_map(|p| (p.item % 10 != 0).then_some(p))
        .sink("payments", kafka.sink("payments", Json::new()).key(|p: &Payment| p.user.as_bytes()));
    println!("{}", job.explain()?);
    job.run().await
}

async fn run(arguments: Arguments) -> Result<()> {
    let file = arguments.file.as_deref().unwrap_or("examples/kafka_to_kafka.toml");
    let settings = Settings::from_file(file)?.with_env()?;
    match arguments.fill {
        Some(count) => fill(count, settings).await,
        None => pay(arguments.all, settings).await,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
