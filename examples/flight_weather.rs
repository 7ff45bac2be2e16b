//! Each flight with the weather at its airport as it was at the hour of its departure.
//!
//! The weather is a table of versions: a report is in force at its airport until the next one. A flight is joined as of
//! its scheduled departure, however late it comes: it waits for the watermark, by which all reports up to then have come.
//! So the answer does not depend on which of the two files is read faster.
//!
//!     cargo run --release --example flight_weather
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};
use tidegate::{Collect, FileSource, Job, Result, Settings, Stream, Watermarks};

const HOUR: Duration = Duration::from_secs(3600);

/// What is wanted of a flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flight {
    origin: String,
    dep_delay: String,
    minute: u32,
    time_hour: String,
}

/// What is wanted of a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Weather {
    origin: String,
    wind_speed: String,
    visib: String,
    precip: String,
    time_hour: String,
}

fn ms(hour: &str) -> i64 {
    let time = humantime::parse_rfc3339(hour).ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    time.map_or(0, |since| since.as_millis() as i64)
}

/// The weather as travellers see it.
fn kind(weather: Option<&Weather>) -> &'static str {
    let Some(weather) = weather else { return "not reported" };
    let number = |text: &str| text.parse::<f64>().ok();
    if number(&weather.visib).is_some_and(|miles| miles < 3.0) {
        "fog or snow"
    } else if number(&weather.precip).is_some_and(|inches| inches > 0.0) {
        "rain"
    } else if number(&weather.wind_speed).is_some_and(|mph| mph > 20.0) {
        "wind"
    } else {
        "fair"
    }
}

async fn run() -> Result<()> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let mut settings = Settings::default();
    // What it comes to is shown and forgotten: so are its checkpoints.
    settings.checkpoint.store = "memory:".into();
    let job = Job::new("flight-weather", settings);
    let joined = Collect::new();
    let flights = job
        .source("flights", FileSource::csv::<Flight>(data.join("flights-2013-01.csv")))
        .event_time(|f| ms(&f.time_hour) + i64::from(f.minute) * 60_000, Watermarks::bounded(22 * HOUR).every(100))
        .key_by(|flight| flight.origin.clone());
    let weather = job
        .source("weather", FileSource::csv::<Weather>(data.join("weather-2013-01.csv")))
        .event_time(|weather| ms(&weather.time_hour), Watermarks::monotonous().every(10))
        .key_by(|weather| weather.origin.clone());
    flights
        .join(weather)
        .as_of("weather-at-departure")
        .left(|origin, flight, weather| (origin.clone(), kind(weather), flight.dep_delay.parse::<i64>().ok()))
        .sink("joined", joined.clone());
    job.run().await?;

    let mut by_weather = BTreeMap::<_, (u64, u64, i64)>::new();
    for (origin, kind, delay) in joined.take() {
        let (flights, cancelled, minutes) = by_weather.entry((origin, kind)).or_default();
        *flights += 1;
        *cancelled += u64::from(delay.is_none());
        *minutes += delay.unwrap_or(0);
    }
    println!("{:<6} {:<12} {:>7} {:>9} {:>10}", "origin", "weather", "flights", "cancelled", "mean delay");
    for ((origin, kind), (flights, cancelled, minutes)) in by_weather {
        let left = (flights - cancelled).max(1);
        println!("{origin:<6} {kind:<12} {flights:>7} {cancelled:>9} {:>10.1}", minutes as f64 / left as f64);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
