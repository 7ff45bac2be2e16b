//! Delays by airport and hour, from every flight that left New York in January 2013.
//!
//! For each origin and hour of *scheduled* departure: flights, cancelled flights, mean and maximum delay.
//! The input is out of order by up to 22 hours; the watermark allows 2, and what comes later goes to a side
//! output. Kill it at any moment and run it again: it goes on, and its output is that of a run that was
//! never killed.
//!
//!     cargo run --release --example flight_delays
//!     cargo run --release --example flight_delays -- --rate 2000      # slowly, to kill it
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};
use tidegate::{Aggregate, FileSink, FileSource, Job, Settings, Stream, Tumbling, Watermarks, Windowed};

/// A row of the input, as it is: late rows are written out again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flight {
    year: String,
    month: String,
    day: String,
    dep_time: String,
    sched_dep_time: String,
    dep_delay: String,
    arr_time: String,
    sched_arr_time: String,
    arr_delay: String,
    carrier: String,
    flight: String,
    tailnum: String,
    origin: String,
    dest: String,
    air_time: String,
    distance: String,
    hour: String,
    minute: u32,
    time_hour: TimeHour,
}

/// An hour in RFC 3339: a row with another text there is undecodable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct TimeHour {
    text: String,
    ms: i64,
}

impl TryFrom<String> for TimeHour {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let time = humantime::parse_rfc3339(&text).map_err(|e| format!("{text:?} is not a time: {e}"))?;
        let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?;
        Ok(Self { text, ms: since.as_millis() as i64 })
    }
}
impl From<TimeHour> for String {
    fn from(hour: TimeHour) -> String {
        hour.text
    }
}

/// What is known of one origin and hour.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Delays {
    flights: u64,
    cancelled: u64,
    delay_sum: i64,
    delay_max: Option<i64>,
}

#[derive(Clone)]
struct DelaysByHour;

impl Aggregate<Flight> for DelaysByHour {
    type State = Delays;
    type Output = Delays;
    fn init(&self) -> Delays {
        Delays::default()
    }
    fn add(&self, state: &mut Delays, flight: Flight) {
        state.flights += 1;
        match flight.dep_delay.parse::<i64>() {
            Ok(delay) => {
                state.delay_sum += delay;
                state.delay_max = state.delay_max.max(Some(delay));
            }
            Err(_) => state.cancelled += 1,
        }
    }
    fn merge(&self, state: &mut Delays, other: Delays) {
        state.flights += other.flights;
        state.cancelled += other.cancelled;
        state.delay_sum += other.delay_sum;
        state.delay_max = state.delay_max.max(other.delay_max);
    }
    fn finish(&self, state: &Delays) -> Delays {
        state.clone()
    }
}

/// A row of the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    origin: String,
    window_start: String,
    flights: u64,
    cancelled: u64,
    mean_delay: String,
    max_delay: String,
}

fn row(result: Windowed<String, Delays>) -> Row {
    let Delays { flights, cancelled, delay_sum, delay_max } = result.value;
    let start = std::time::UNIX_EPOCH + Duration::from_millis(result.window.start.unsigned_abs());
    let left = flights - cancelled;
    Row {
        origin: result.key,
        window_start: humantime::format_rfc3339_seconds(start).to_string(),
        flights,
        cancelled,
        mean_delay: if left > 0 { format!("{:.2}", delay_sum as f64 / left as f64) } else { String::new() },
        max_delay: delay_max.map(|d| d.to_string()).unwrap_or_default(),
    }
}

struct Args {
    input: PathBuf,
    out: PathBuf,
    checkpoints: Option<PathBuf>,
    parallelism: Option<u32>,
    rate: f64,
    job_file: Option<PathBuf>,
    from: Option<u64>,
}

const USAGE: &str = "flight_delays [--input FILE.csv[.gz|.zst]] [--out DIR] [--checkpoints DIR] [--parallelism N]
              [--rate RECORDS_PER_SECOND] [--job-file FILE.toml] [--from CHECKPOINT]";

/// The clone, under `cargo run` from any folder of it.
fn here() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default()
}

fn args() -> Result<Args, String> {
    let mut parsed = Args {
        input: here().join("examples/data/flights-2013-01.csv"),
        out: PathBuf::from("out/flight-delays"),
        checkpoints: None,
        parallelism: None,
        rate: 0.0,
        job_file: None,
        from: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        if matches!(&*name, "-h" | "--help") {
            println!("{USAGE}");
            std::process::exit(0);
        }
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = |e: &dyn std::fmt::Display| format!("{name} {value}: {e}");
        match &*name {
            "--input" => parsed.input = value.into(),
            "--out" => parsed.out = value.into(),
            "--checkpoints" => parsed.checkpoints = Some(value.into()),
            "--parallelism" => parsed.parallelism = Some(value.parse().map_err(|e| number(&e))?),
            "--rate" => parsed.rate = value.parse().map_err(|e| number(&e))?,
            "--job-file" => parsed.job_file = Some(value.into()),
            "--from" => parsed.from = Some(value.parse().map_err(|e| number(&e))?),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok(parsed)
}

/// The job file if there is one, then the environment, then the command line.
fn settings(args: &Args) -> Result<Settings, tidegate::Error> {
    let mut settings = if let Some(file) = &args.job_file {
        Settings::from_file(file)?
    } else {
        let mut settings = Settings::default();
        settings.checkpoint.interval = Duration::from_secs(1);
        settings.checkpoint.store = args.out.join("checkpoints").display().to_string();
        settings.report.checkpoints = true;
        settings.report.progress = true;
        settings.report.summary = true;
        settings
    }
    .with_env()?;
    if let Some(store) = &args.checkpoints {
        settings.checkpoint.store = store.display().to_string();
    }
    settings.parallelism = args.parallelism.unwrap_or(settings.parallelism);
    settings.checkpoint.from = args.from.unwrap_or(settings.checkpoint.from);
    settings.checked()
}

fn job(args: &Args, settings: Settings) -> Job {
    let job = Job::new("flight-delays", settings);
    let mut windows = job
        .source("flights", FileSource::csv::<Flight>(&args.input).rate(args.rate))
        .event_time(
            |f| f.time_hour.ms + i64::from(f.minute) * 60_000,
            Watermarks::bounded(Duration::from_secs(2 * 3600)).every(100),
        )
        .key_by(|f| f.origin.clone())
        .window("per-hour", Tumbling::of(Duration::from_secs(3600)));
    windows.late().sink("late", FileSink::csv(args.out.join("late").display().to_string()));
    windows
        .aggregate(DelaysByHour)
        .map(row)
        .sink("delays", FileSink::csv(args.out.join("delays").display().to_string()));
    job
}

/// The ten hours with the longest mean delay, from the output.
fn worst_hours(out: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut rows: Vec<Row> = Vec::new();
    for entry in std::fs::read_dir(out.join("delays"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "csv") {
            for row in csv::Reader::from_path(path)?.deserialize() {
                rows.push(row?);
            }
        }
    }
    let mean = |r: &Row| r.mean_delay.parse::<f64>().unwrap_or(f64::MIN);
    rows.sort_by(|a, b| mean(b).total_cmp(&mean(a)).then_with(|| a.window_start.cmp(&b.window_start)));
    println!("the ten worst of {} hours:", rows.len());
    println!(
        "{:<6} {:<20} {:>7} {:>9} {:>10} {:>9}",
        "origin", "hour (UTC)", "flights", "cancelled", "mean (min)", "max (min)"
    );
    for r in rows.iter().take(10) {
        println!(
            "{:<6} {:<20} {:>7} {:>9} {:>10} {:>9}",
            r.origin, r.window_start, r.flights, r.cancelled, r.mean_delay, r.max_delay
        );
    }
    Ok(())
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(e) => {
            eprintln!("{e}\n{USAGE}");
            return 2.into();
        }
    };
    let ran = async {
        job(&args, settings(&args)?).run().await?;
        if args.out.join("delays").exists() {
            worst_hours(&args.out)?;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    match ran.await {
        Ok(()) => 0.into(),
        Err(e) => {
            eprintln!("error: {e}");
            1.into()
        }
    }
}
