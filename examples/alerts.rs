//! Alerts: process functions with state and timers, over every flight that left New York in January 2013.
//!
//! Two things are watched. An airport from which three flights have been cancelled within an hour; and a plane that came
//! in late, and has not been seen for three days since. Neither is a window: an hour begins at any flight, and the three
//! days begin anew with each flight of the plane. So each is a function with a timer.
//!
//!     cargo run --release --example alerts
//!     cargo run --release --example alerts -- flights.csv
//!
//! Flights come up to 22 hours out of order, and an alert is none of that: it goes by event time, and is the same
//! at any parallelism. What comes more than two hours late is not looked at.
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tidegate::{
    Context, FileSource, Job, ProcessFunction, Settings, Stdout, Stream, TimeToLive, Timer, Timestamp, Watermarks,
};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// So many cancelled flights within an hour are too many.
const CANCELLED: usize = 3;
/// A plane that came in so many minutes late is watched, for so long.
const LATE_MINUTES: i64 = 120;
const UNSEEN_MS: i64 = 3 * DAY_MS;

/// What is wanted of a row.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Flight {
    /// Empty or `NA` where nobody has noted it.
    tailnum: String,
    origin: String,
    dest: String,
    /// In minutes; empty or `NA` where the flight was cancelled.
    dep_delay: String,
    arr_delay: String,
    minute: u32,
    /// The hour of scheduled departure, in RFC 3339.
    time_hour: String,
}

impl Flight {
    /// When it was to leave.
    fn at(&self) -> Timestamp {
        let hour = humantime::parse_rfc3339(&self.time_hour).unwrap_or(std::time::UNIX_EPOCH);
        let since = hour.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as i64 + i64::from(self.minute) * 60_000
    }
    fn is_cancelled(&self) -> bool {
        self.dep_delay.parse::<f64>().is_err()
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Alert {
    pub(crate) at: Timestamp,
    pub(crate) what: String,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = std::time::UNIX_EPOCH + Duration::from_millis(self.at.unsigned_abs());
        write!(f, "{}  {}", humantime::format_rfc3339_seconds(at), self.what)
    }
}

/// Tells when too many flights of an airport have been cancelled within an hour.
#[derive(Clone)]
pub(crate) struct Cancellations;

/// When those flights were to leave, from an hour ago on; and some that time has not come to yet.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Cancelled {
    at: VecDeque<Timestamp>,
    told: Option<Timestamp>,
}

impl ProcessFunction<String, Flight> for Cancellations {
    type State = Cancelled;
    type Output = Alert;

    fn process(&mut self, flight: Flight, state: &mut Cancelled, ctx: &mut Context<'_, String, Alert>) {
        if flight.is_cancelled() && ctx.timestamp() > ctx.watermark() {
            state.at.push_back(ctx.timestamp());
            // When time has come to it, all flights before it are here: then it may be counted.
            ctx.set_timer(ctx.timestamp());
        }
    }

    fn on_timer(&mut self, _: Timer, state: &mut Cancelled, ctx: &mut Context<'_, String, Alert>) {
        let now = ctx.timestamp();
        state.at.retain(|at| *at > now - HOUR_MS);
        let count = state.at.iter().filter(|at| **at <= now).count();
        // Once an hour is enough.
        if count >= CANCELLED && state.told.is_none_or(|told| now >= told + HOUR_MS) {
            state.told = Some(now);
            ctx.emit(Alert { at: now, what: format!("{count} flights from {} cancelled within an hour", ctx.key()) });
        }
    }
}

/// Tells when a plane has not been seen since it came in late.
#[derive(Clone)]
pub(crate) struct Unseen;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    last: Timestamp,
    /// Where it came in late, and by how much, if its last flight did.
    late: Option<(String, i64)>,
}

impl ProcessFunction<String, Flight> for Unseen {
    type State = Seen;
    type Output = Alert;

    fn process(&mut self, flight: Flight, state: &mut Seen, ctx: &mut Context<'_, String, Alert>) {
        // Flights come out of order: an older one says nothing of where the plane is now.
        if ctx.timestamp() <= ctx.watermark() || ctx.timestamp() < state.last {
            return;
        }
        ctx.delete_timer(state.last + UNSEEN_MS);
        // It may be seen again before time has come to the timer, and too late all the same.
        if ctx.timestamp() > state.last + UNSEEN_MS {
            tell(state, ctx);
        }
        let delay = flight.arr_delay.parse::<f64>().map_or(0, |minutes| minutes as i64);
        *state = Seen { last: ctx.timestamp(), late: (delay >= LATE_MINUTES).then_some((flight.dest, delay)) };
        if state.late.is_some() {
            ctx.set_timer(state.last + UNSEEN_MS);
        }
    }

    fn on_timer(&mut self, _: Timer, state: &mut Seen, ctx: &mut Context<'_, String, Alert>) {
        // At the end of the input all time is over, but three days need not have passed.
        if ctx.watermark() == Timestamp::MAX {
            return;
        }
        tell(state, ctx);
    }
}

fn tell(state: &mut Seen, ctx: &mut Context<'_, String, Alert>) {
    if let Some((dest, delay)) = state.late.take() {
        let at = state.last + UNSEEN_MS;
        let what = format!("{} not seen for three days since it came to {dest} {delay} min late", ctx.key());
        ctx.emit_at(Alert { at, what }, at);
    }
}

/// The alerts of a file of flights.
pub(crate) fn alerts(job: &Job, input: &Path) -> impl Stream<Item = Alert> + use<> {
    let watermarks = Watermarks::bounded(Duration::from_secs(2 * 3600)).every(100);
    let flights =
        job.source("flights", FileSource::csv::<Flight>(input)).event_time(|f: &Flight| f.at(), watermarks).boxed();
    let cancelled = flights
        .clone()
        .key_by(|f| f.origin.clone())
        .process("cancellations", Cancellations)
        .bounded_by("the cancelled flights of an hour");
    let unseen = flights
        .filter(|f| !f.is_cancelled() && !matches!(&*f.tailnum, "" | "NA"))
        .key_by(|f| f.tailnum.clone())
        .process("unseen", Unseen)
        .time_to_live(TimeToLive::EventTime(Duration::from_millis(2 * UNSEEN_MS as u64)));
    cancelled.union(unseen)
}

#[tokio::main]
async fn main() -> ExitCode {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let input = std::env::args_os().nth(1).map_or(here.join("examples/data/flights-2013-01.csv"), PathBuf::from);
    let run = async {
        let job = Job::new("alerts", Settings::default().with_env()?);
        alerts(&job, &input).sink("alerts", Stdout::lines());
        job.run().await
    };
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
