//! Working days of planes, from every flight that left New York in January 2013.
//!
//! A plane that leaves again within twelve hours is at work still: its departures are one session, however long. The input
//! is out of order by up to 22 hours, so that a flight that comes late may join two sessions into one; the watermark waits
//! for that. What comes out is each plane's sessions of three flights or more, and in the end the busiest of them.
//!
//!     cargo run --release --example sessions
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tidegate::{Aggregate, Collect, FileSource, Job, Result, Session, Settings, Stream, Watermarks, Windowed};

const HOUR: Duration = Duration::from_secs(3600);

/// What is wanted of a row.
#[derive(Clone, Debug, Deserialize)]
struct Flight {
    tailnum: String,
    dest: String,
    distance: String,
    minute: u32,
    time_hour: String,
}

impl Flight {
    /// Scheduled departure, in milliseconds since 1970.
    fn at_ms(&self) -> Option<i64> {
        let hour = humantime::parse_rfc3339(&self.time_hour).ok()?;
        let since = hour.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(since.as_millis() as i64 + i64::from(self.minute) * 60_000)
    }
}

/// What a plane has done.
#[derive(Clone)]
struct Work;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Done {
    flights: u32,
    miles: u64,
    to: Vec<String>,
}

impl Aggregate<Flight> for Work {
    type State = Done;
    type Output = Done;
    fn init(&self) -> Done {
        Done::default()
    }
    fn add(&self, done: &mut Done, flight: Flight) {
        done.flights += 1;
        done.miles += flight.distance.parse().unwrap_or(0);
        done.to.push(flight.dest);
    }
    fn merge(&self, done: &mut Done, other: &Done) {
        done.flights += other.flights;
        done.miles += other.miles;
        done.to.extend_from_slice(&other.to);
    }
    fn finish(&self, done: &Done) -> Done {
        // In which order they came is no part of the answer.
        let mut done = done.clone();
        done.to.sort_unstable();
        done
    }
}

async fn run() -> Result<()> {
    let input = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data/flights-2013-01.csv");
    let mut settings = Settings::default();
    // What it comes to is shown and forgotten: so are its checkpoints.
    settings.checkpoint.store = "memory:".into();
    let job = Job::new("sessions", settings);
    let days = Collect::new();
    job.source("flights", FileSource::csv::<Flight>(input))
        .event_time(|flight| flight.at_ms().unwrap_or_default(), Watermarks::bounded(22 * HOUR).every(100))
        .filter(|flight| flight.tailnum != "NA" && flight.at_ms().is_some())
        .key_by(|flight| flight.tailnum.clone())
        .window("working-days", Session::gap(12 * HOUR))
        .aggregate(Work)
        .filter(|day| day.value.flights >= 3)
        .sink("days", days.clone());
    job.run().await?;

    let mut days: Vec<Windowed<String, Done>> = days.take();
    days.sort_by(|a, b| (b.value.miles, &a.key).cmp(&(a.value.miles, &b.key)));
    println!("{} working days of three flights or more; those of most miles:", days.len());
    println!("{:<8} {:>7} {:>7} {:>7}  to", "plane", "flights", "hours", "miles");
    for day in days.iter().take(10) {
        // Its last flight is a gap before the end.
        let hours = (day.window.end - day.window.start) as u64 / 3_600_000 - 12;
        let Done { flights, miles, to } = &day.value;
        println!("{:<8} {flights:>7} {hours:>7} {miles:>7}  {}", day.key, to.join(" "));
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
