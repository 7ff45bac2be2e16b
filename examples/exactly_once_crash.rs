//! Kills a job twenty times and proves that nothing is lost and nothing doubled.
//!
//! The job runs as a child process: accounts receive payments, and each payment is written with the running
//! balance of its account, beside totals by minute. The parent kills it with SIGKILL at random moments,
//! starts it again, lets it finish, and compares every line with a reference made by plain arithmetic, which
//! shares no code with the engine. A lost, doubled or reordered payment changes a balance and is seen.
#![allow(clippy::disallowed_methods, reason = "the parent watches real processes by the real clock")]
use serde::Serialize;
use std::{
    collections::HashMap,
    error::Error,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant, SystemTime},
};
use tidegate::{FileSink, Generator, Job, Settings, Stream, Tumbling, Watermarks};

const PAYMENTS: u64 = 40_000;
const ACCOUNTS: u64 = 1_000;
const SPLITS: u64 = 4;
const RATE: f64 = 8_000.0;
const KILLS: u32 = 20;
const DEADLINE: Duration = Duration::from_secs(120);

/// Payment number `i`: account, cents, and when.
fn payment(i: u64) -> (u64, i64, i64) {
    // An account is paid from one split only, so that the order of its payments is given.
    let mixed = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    (mixed % (ACCOUNTS / SPLITS) * SPLITS + i % SPLITS, (mixed >> 12) as i64 % 10_000 - 3_000, i as i64 * 40)
}

#[derive(Clone, Serialize)]
struct Balance {
    account: u64,
    payments: u64,
    balance: i64,
}

#[derive(Clone, Serialize)]
struct Total {
    minute: i64,
    group: u64,
    cents: i64,
}

/// The child: an ordinary tidegate job.
fn job(dir: &Path) -> Result<Job, tidegate::Error> {
    let mut settings = Settings::from_toml("parallelism = 2\n[checkpoint]\ninterval = \"50ms\"")?;
    settings.checkpoint.store = dir.join("checkpoints").display().to_string();
    let out = |name: &str| dir.join(name).display().to_string();
    let job = Job::new("payments", settings);
    let payments = job
        .source("payments", Generator::new(PAYMENTS, payment).splits(SPLITS).rate(RATE))
        .event_time(|p| p.2, Watermarks::bounded(Duration::from_secs(1)).every(50))
        .boxed();
    payments
        .clone()
        .key_by(|p| p.0)
        .fold("balance-by-account", (0u64, 0i64), |sum, p| *sum = (sum.0 + 1, sum.1 + p.1))
        .map(|(account, (payments, balance))| Balance { account, payments, balance })
        .sink("balances", FileSink::csv(out("balances")));
    payments
        .key_by(|p| p.0 % 10)
        .window("by-minute", Tumbling::of(Duration::from_secs(60)))
        .reduce(|a, b| (a.0, a.1 + b.1, a.2))
        .map(|w| Total { minute: w.window.start / 60_000, group: w.key, cents: w.value.1 })
        .sink("totals", FileSink::csv(out("totals")));
    Ok(job)
}

/// How often each line of the output occurs.
pub(crate) type Lines = HashMap<String, i64>;

pub(crate) fn reference() -> Lines {
    let mut lines = Lines::new();
    let mut balances = HashMap::<u64, (u64, i64)>::new();
    let mut totals = HashMap::<(i64, u64), i64>::new();
    for (account, cents, at) in (0..PAYMENTS).map(payment) {
        let balance = balances.entry(account).or_default();
        *balance = (balance.0 + 1, balance.1 + cents);
        *lines.entry(format!("balances:{account},{},{}", balance.0, balance.1)).or_default() += 1;
        *totals.entry((at / 60_000, account % 10)).or_default() += cents;
    }
    lines.extend(totals.iter().map(|((minute, group), cents)| (format!("totals:{minute},{group},{cents}"), 1)));
    lines
}

pub(crate) fn found(dir: &Path) -> Result<Lines, Box<dyn Error>> {
    let mut lines = Lines::new();
    for name in ["balances", "totals"] {
        for entry in std::fs::read_dir(dir.join(name))? {
            let path = entry?.path();
            if path.is_file() {
                for line in std::fs::read_to_string(&path)?.lines().skip(1) {
                    *lines.entry(format!("{name}:{line}")).or_default() += 1;
                }
            }
        }
    }
    Ok(lines)
}

/// Lines that are lost, and lines that are there too often or should not be there at all.
pub(crate) fn compare(expected: &Lines, found: &Lines) -> (i64, i64) {
    let surplus = |line: &String| found.get(line).unwrap_or(&0) - expected.get(line).unwrap_or(&0);
    let all = || expected.keys().chain(found.keys().filter(|l| !expected.contains_key(*l)));
    (all().map(|l| -surplus(l).min(0)).sum(), all().map(|l| surplus(l).max(0)).sum())
}

fn start(dir: &Path, child: &dyn Fn() -> Command) -> Result<Child, Box<dyn Error>> {
    let log = std::fs::File::create(dir.join("log"))?;
    Ok(child().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// Lets it run for so long; false when it has ended before.
fn runs_for(child: &mut Child, time: Duration) -> Result<bool, Box<dyn Error>> {
    let began = Instant::now();
    while began.elapsed() < time {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

fn checkpoints(dir: &Path) -> u64 {
    let names = std::fs::read_dir(dir.join("checkpoints/payments/commits")).into_iter().flatten().flatten();
    names.filter_map(|e| e.file_name().to_string_lossy().trim_end_matches(".commit").parse().ok()).max().unwrap_or(0)
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// `child` is the command that runs the job in `dir`; whether its output is exact.
pub(crate) fn prove(dir: &Path, child: &dyn Fn() -> Command) -> Result<bool, Box<dyn Error>> {
    let mut seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    println!("{PAYMENTS} payments to {ACCOUNTS} accounts, {KILLS} kills, seed {seed}");
    let mut kills = 0;
    while kills < KILLS {
        let mut child = start(dir, child)?;
        // The time is from the start of the process, or from its first further checkpoint, so that the job
        // also gets on.
        if tidegate::extend::env::random(&mut seed).is_multiple_of(2) {
            let (before, began) = (checkpoints(dir), Instant::now());
            while checkpoints(dir) == before && began.elapsed() < DEADLINE && child.try_wait()?.is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let wait = Duration::from_micros(tidegate::extend::env::random(&mut seed) % 150_000);
        let alive = runs_for(&mut child, wait)?;
        child.kill()?;
        let status = child.wait()?;
        if !alive {
            return Err(format!("the job ended ({status}) after {kills} of {KILLS} kills\n{}", log(dir)).into());
        }
        kills += 1;
        println!("  kill {kills:2} after {:3} ms, checkpoint {}", wait.as_millis(), checkpoints(dir));
    }
    let mut child = start(dir, child)?;
    if runs_for(&mut child, DEADLINE)? {
        child.kill()?;
        return Err("the job hangs".into());
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("the last run failed: {status}\n{}", log(dir)).into());
    }
    let (expected, found) = (reference(), found(dir)?);
    let (lost, doubled) = compare(&expected, &found);
    println!(
        "\nkills {kills}   checkpoints {}   lines expected {}   found {}   lost {lost}   doubled or foreign {doubled}",
        checkpoints(dir),
        expected.values().sum::<i64>(),
        found.values().sum::<i64>(),
    );
    Ok(lost == 0 && doubled == 0)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let result = match arguments.as_slice() {
        [child, dir] if child == "--child" => run(Path::new(dir)).map(|()| true),
        _ => parent(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parent() -> Result<bool, Box<dyn Error>> {
    let (dir, program) = (tempfile::tempdir()?, std::env::current_exe()?);
    prove(dir.path(), &|| {
        let mut child = Command::new(&program);
        child.arg("--child").arg(dir.path());
        child
    })
}

pub(crate) fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(job(dir)?.run())?;
    Ok(())
}
