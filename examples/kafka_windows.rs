//! Clicks per minute and user, from one Kafka topic to a compacted one: its newest message of a key is the answer.
//!
//! ```sh
//! cargo xtask kafka --topic clicks:4 --topic clicks-per-minute:2      # a broker, until Ctrl-C
//! cargo run --release --features kafka --example kafka_windows -- --fill 100000
//! cargo run --release --features kafka --example kafka_windows
//! ```
//! `--fill N` writes N clicks first, some of them a little late. Run it from the repository: it reads the job file of
//! `kafka_to_kafka`. The last minute stays open until clicks of a later one come. The topic `clicks-per-minute` is
//! better made with `cleanup.policy=compact`, so that the broker drops what has been corrected; a click that comes later
//! than the watermark allows, but within an hour, corrects the count.
use serde::{Deserialize, Serialize};
use std::{process::ExitCode, time::Duration};
use tidegate::{
    Generator, Job, Result, Settings, Stream, Tumbling, Watermarks,
    kafka::{Json, Kafka},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Click {
    user: String,
    at_ms: i64,
}

#[derive(Clone, Debug, Serialize)]
struct PerMinute {
    /// User and minute: what the topic is compacted by.
    key: String,
    clicks: u64,
}

async fn fill(kafka: &Kafka, count: u64) -> Result<()> {
    let click = |n: u64| Click {
        user: format!("u{}", n * 7919 % 1_000),
        // A hundred a second, each up to three seconds late.
        at_ms: 1_700_000_000_000 + n as i64 * 10 - n as i64 * 37 % 3_000,
    };
    let sink = kafka.sink("clicks", Json::new()).key(|c: &Click| c.user.as_bytes()).at_least_once();
    let job = Job::new("fill-clicks", Settings::default());
    job.source("numbers", Generator::new(count, click)).sink("clicks", sink);
    job.run().await
}

async fn count(kafka: &Kafka, mut settings: Settings) -> Result<()> {
    settings.checkpoint.store = "out/kafka-windows/checkpoints".into();
    let counts = kafka.sink("clicks-per-minute", Json::new()).key(|m: &PerMinute| m.key.as_bytes());
    let job = Job::new("kafka-windows", settings);
    job.source("clicks", kafka.source("clicks", Json::<Click>::new()).group("kafka-windows"))
        .event_time(|c| c.at_ms, Watermarks::bounded(Duration::from_secs(5)).idle_after(Duration::from_secs(5)))
        .key_by(|c| c.user.clone())
        .window("per-minute", Tumbling::of(Duration::from_secs(60)))
        .allowed_lateness(Duration::from_secs(3600))
        .count()
        .map(|w| PerMinute { key: format!("{}@{}", w.key, w.window.start), clicks: w.value })
        .sink("counts", counts);
    println!("{}", job.explain()?);
    job.run().await
}

async fn run() -> Result<()> {
    // The job file of the other example: both talk to the same broker.
    let settings = Settings::from_file("examples/kafka_to_kafka.toml")?.with_env()?;
    let kafka = Kafka::new(&settings);
    let given: Vec<String> = std::env::args().skip(1).collect();
    match &given[..] {
        [] => count(&kafka, settings).await,
        [option, number] if option == "--fill" => match number.parse() {
            Ok(number) => fill(&kafka, number).await,
            Err(_) => Err(tidegate::Error::config(format!("{number:?} is no number"))),
        },
        _ => Err(tidegate::Error::config("kafka_windows [--fill N]")),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
