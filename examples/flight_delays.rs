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
use std::{
    error::Error,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};
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
    fn merge(&self, state: &mut Delays, other: &Delays) {
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

#[derive(Debug)]
struct Args {
    input: PathBuf,
    out: PathBuf,
    checkpoints: Option<PathBuf>,
    parallelism: Option<u32>,
    rate: Option<f64>,
    job_file: Option<PathBuf>,
    from: Option<u64>,
}

const USAGE: &str = "\
flight_delays [OPTION VALUE]...

  --input FILE        flights, as CSV (.csv, .csv.gz, .csv.zst); default: the month in examples/data
  --out DIR           where the results go: DIR/delays, DIR/late; default: out/flight-delays
  --checkpoints DIR   a directory or URL for checkpoints; default: DIR/checkpoints below --out
  --parallelism N     subtasks of every operator; default: 1
  --rate N            records a second that are read; default: as many as can be
  --job-file FILE     settings, as TOML
  --from N            go on from checkpoint N instead of the latest

Run it again to go on where it was ended or killed. Settings come from the job file, the environment
(TIDEGATE_CHECKPOINT__INTERVAL=5s) and these options, later ones winning.";

/// The clone, under `cargo run` from any folder of it.
fn here() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default()
}

/// `None`: only help is wanted.
fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Args>, String> {
    let mut parsed = Args {
        input: here().join("examples/data/flights-2013-01.csv"),
        out: PathBuf::from("out/flight-delays"),
        checkpoints: None,
        parallelism: None,
        rate: None,
        job_file: None,
        from: None,
    };
    while let Some(name) = args.next() {
        let name = name.to_string_lossy().into_owned();
        if matches!(&*name, "-h" | "--help") {
            return Ok(None);
        }
        let known = ["--input", "--out", "--checkpoints", "--parallelism", "--rate", "--job-file", "--from"];
        if !known.contains(&&*name) {
            return Err(format!("there is no option {name}"));
        }
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match &*name {
            "--input" => parsed.input = value.into(),
            "--out" => parsed.out = value.into(),
            "--checkpoints" => parsed.checkpoints = Some(value.into()),
            "--parallelism" => parsed.parallelism = Some(number(&name, &value, "a whole number", |n| *n > 0)?),
            "--rate" => {
                parsed.rate = Some(number(&name, &value, "records a second", |n: &f64| *n > 0.0 && n.is_finite())?);
            }
            "--job-file" => parsed.job_file = Some(value.into()),
            _ => parsed.from = Some(number(&name, &value, "the number of a checkpoint", |n| *n > 0)?),
        }
    }
    Ok(Some(parsed))
}

fn number<N: FromStr>(name: &str, value: &OsStr, what: &str, fits: impl Fn(&N) -> bool) -> Result<N, String> {
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(fits);
    number.ok_or_else(|| format!("{name} {}: it has to be {what}, above 0", value.display()))
}

/// What this program likes, then the job file if there is one, the environment, the command line.
fn settings(args: &Args) -> Result<Settings, tidegate::Error> {
    let mut settings = Settings::default();
    settings.checkpoint.interval = Duration::from_secs(1);
    settings.checkpoint.store = args.out.join("checkpoints").display().to_string();
    settings.report.checkpoints = true;
    settings.report.progress = true;
    settings.report.summary = true;
    if let Some(file) = &args.job_file {
        settings = settings.with_file(file)?;
    }
    settings = settings.with_env()?;
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
        .source("flights", FileSource::csv::<Flight>(&args.input).rate(args.rate.unwrap_or(0.0)))
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
fn worst_hours(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut rows: Vec<Row> = Vec::new();
    for entry in std::fs::read_dir(out.join("delays"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "csv") {
            for row in csv::Reader::from_path(path)?.deserialize() {
                rows.push(row?);
            }
        }
    }
    if rows.is_empty() {
        println!("\nno flights in the input: there are no hours to compare");
        return Ok(());
    }
    let mean = |r: &Row| r.mean_delay.parse::<f64>().unwrap_or(f64::MIN);
    let order = |r: &Row| (r.window_start.clone(), r.origin.clone());
    rows.sort_by(|a, b| mean(b).total_cmp(&mean(a)).then_with(|| order(a).cmp(&order(b))));
    let shown = rows.len().min(10);
    println!("\nthe {shown} worst of {} hours (each airport's count for itself), delays in minutes:", rows.len());
    println!(
        "{:<6} {:<20} {:>7} {:>9} {:>10} {:>9}",
        "origin", "hour (UTC)", "flights", "cancelled", "mean delay", "max delay"
    );
    for r in &rows[..shown] {
        println!(
            "{:<6} {:<20} {:>7} {:>9} {:>10} {:>9}",
            r.origin, r.window_start, r.flights, r.cancelled, r.mean_delay, r.max_delay
        );
    }
    Ok(())
}

/// The program; its exit code.
#[tokio::main]
pub(crate) async fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let args = match parse(args) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{USAGE}");
            return 0;
        }
        Err(why) => {
            eprintln!("error: {why}\n  hint: --help names the options");
            return 2;
        }
    };
    let ran = async {
        job(&args, settings(&args)?).run().await?;
        worst_hours(&args.out)
    };
    match ran.await {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("error: {e}");
            1
        }
    }
}

fn main() -> ExitCode {
    run(std::env::args_os().skip(1)).into()
}
