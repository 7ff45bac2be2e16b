//! One program in the style of a stream or of micro-batches, by a setting: delays by carrier, out of a directory of CSV
//! files, written by a function of the program's own (`foreach_batch`).
//!
//! ```sh
//! cargo run --release --example micro_batch                                   # what is there, then it ends
//! cargo run --release --example micro_batch -- --trigger once
//! cargo run --release --example micro_batch -- --trigger every=5s --rate 1000 # until Ctrl-C
//! cargo run --release --example micro_batch -- --trigger continuous --rate 1000
//! ```
//! Each epoch's file has the carriers that the epoch has changed, with their totals so far: Spark's output mode
//! `update`. It is written beside its place and moved there, under the epoch's number: the same batch gives the same
//! file, so that each is there once, wherever the program is killed. Run it again to go on; put more files into the
//! directory first (written elsewhere, and moved in).
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tidegate::{Batch, FileSource, Job, Settings, Stream};

/// What is wanted of a row.
#[derive(Clone, Debug, Deserialize)]
struct Flight {
    carrier: String,
    /// In minutes; empty or `NA` where the flight was cancelled.
    dep_delay: String,
}

/// All flights of a carrier so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) flights: u64,
    pub(crate) cancelled: u64,
    pub(crate) delay_minutes: i64,
}

impl Totals {
    fn add(&mut self, flight: &Flight) {
        self.flights += 1;
        match flight.dep_delay.parse::<i64>() {
            Ok(minutes) => self.delay_minutes += minutes,
            Err(_) => self.cancelled += 1,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    carrier: String,
    flights: u64,
    cancelled: u64,
    delay_minutes: i64,
}

/// Writes the file of one epoch: all of it or nothing, and the same one if it is asked to again.
async fn write(directory: PathBuf, batch: Batch<(String, Totals)>, epoch: u64) -> Result<(), Box<dyn Error>> {
    let records = batch.len();
    // Of one carrier the later ones replace the earlier ones: its records come in order.
    let changed: BTreeMap<_, _> = batch.collect().await?.into_iter().collect();
    let mut text = csv::Writer::from_writer(Vec::new());
    for (carrier, Totals { flights, cancelled, delay_minutes }) in &changed {
        let carrier = carrier.clone();
        let row = Row { carrier, flights: *flights, cancelled: *cancelled, delay_minutes: *delay_minutes };
        text.serialize(row)?;
    }
    let (beside, file) = (directory.join(".epoch"), directory.join(format!("epoch-{epoch:06}.csv")));
    let again = if file.exists() { ", once more" } else { "" };
    fs::write(&beside, text.into_inner()?)?;
    fs::rename(&beside, &file)?;
    println!("epoch {epoch}{again}: {records} flights changed {} carriers: {}", changed.len(), file.display());
    Ok(())
}

/// The newest totals of each carrier, out of the files.
pub(crate) fn totals(directory: &Path) -> Result<BTreeMap<String, Totals>, Box<dyn Error>> {
    let mut files: Vec<_> = fs::read_dir(directory)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "csv"));
    files.sort();
    let mut totals = BTreeMap::new();
    for file in files {
        for row in csv::Reader::from_path(file)?.deserialize() {
            let Row { carrier, flights, cancelled, delay_minutes } = row?;
            totals.insert(carrier, Totals { flights, cancelled, delay_minutes });
        }
    }
    Ok(totals)
}

struct Args {
    input: PathBuf,
    out: PathBuf,
    rate: f64,
    max: Option<u64>,
    settings: Settings,
}

const USAGE: &str = "\
micro_batch [OPTION VALUE]...

  --trigger T     continuous, every=5s, available-now, once; default: as the job file says
  --input DIR     a directory of flights, as CSV; default: examples/data
  --out DIR       where the results and the checkpoints go; default: out/micro-batch
  --rate N        rows a second that are read of each file; default: as many as can be
  --max N         rows of a batch, with the trigger every; default: what is there
  --job-file F    settings, as TOML; default: examples/micro_batch.toml";

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Args, Box<dyn Error>> {
    // The clone, under `cargo run` from any folder of it.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let (mut input, mut out) = (here.join("examples/data"), PathBuf::from("out/micro-batch"));
    let (mut job_file, mut trigger, mut rate, mut max) = (here.join("examples/micro_batch.toml"), None, 0.0, None);
    while let Some(name) = args.next() {
        let name = name.to_string_lossy().into_owned();
        let value = args.next().ok_or_else(|| format!("{name} needs a value, or is no option\n\n{USAGE}"))?;
        let text = value.to_string_lossy().into_owned();
        match &*name {
            "--input" => input = value.into(),
            "--out" => out = value.into(),
            "--job-file" => job_file = value.into(),
            "--trigger" => trigger = Some(text.parse()?),
            "--rate" => rate = text.parse().map_err(|e| format!("--rate {text}: {e}"))?,
            "--max" => max = Some(text.parse().map_err(|e| format!("--max {text}: {e}"))?),
            _ => return Err(format!("there is no option {name}\n\n{USAGE}").into()),
        }
    }
    let mut settings = Settings::from_file(job_file)?;
    settings.checkpoint.store = out.join("checkpoints").display().to_string();
    let mut settings = settings.with_env()?;
    settings.trigger = trigger.unwrap_or(settings.trigger);
    Ok(Args { input, out, rate, max, settings: settings.checked()? })
}

async fn batches(args: Args) -> Result<(), Box<dyn Error>> {
    let results = args.out.join("totals");
    fs::create_dir_all(&results)?;
    let job = Job::new("micro-batch", args.settings);
    let files = FileSource::csv::<Flight>(args.input.join("*.csv")).rate(args.rate).watch(Duration::from_secs(1));
    let mut flights = job.source("flights", files);
    if let Some(max) = args.max {
        flights = flights.max_per_batch(max);
    }
    let directory = results.clone();
    flights
        .key_by(|flight| flight.carrier.clone())
        .fold("by-carrier", Totals::default(), |totals, flight| totals.add(&flight))
        .foreach_batch("totals", move |batch, epoch| {
            let directory = directory.clone();
            async move { write(directory, batch, epoch).await.map_err(|e| e.to_string()) }
        });
    println!("{}", job.explain()?);
    job.run().await?;

    println!("\n{:<8} {:>8} {:>10} {:>11}", "carrier", "flights", "cancelled", "mean delay");
    for (carrier, Totals { flights, cancelled, delay_minutes }) in totals(&results)? {
        let mean = delay_minutes as f64 / (flights - cancelled).max(1) as f64;
        println!("{carrier:<8} {flights:>8} {cancelled:>10} {mean:>11.2}");
    }
    Ok(())
}

/// The program; its exit code.
#[tokio::main]
pub(crate) async fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let ran = async { batches(parse(args)?).await };
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
