//! w3 over every state backend beside memory, in one run, each on a server of its own where it needs one.
//!
//! Five million keys, of which none is more likely than another, are the hardest case: of a cache that holds half of them
//! every second look is a miss. A hundred thousand fit. The table has the medians of all rounds, per CPU-second of the
//! job's process: what a server costs is not in it.
use serde_json::Value;
use std::process::Command;
use tidegate_testbed::{hdfs::Hdfs, redis};

use crate::{Args, compare::median, events::BIDDERS};

/// A backend, as the job file has it.
pub struct Case {
    pub name: &'static str,
    pub toml: Vec<String>,
    /// Held as long as it is measured.
    _server: Option<Box<dyn std::any::Any>>,
}

pub const NAMES: [&str; 5] = ["memory", "rocksdb", "redis", "objects", "hdfs"];
const FEW: u64 = 100_000;

impl Case {
    /// Over a server of its own, where it needs one, and else in a folder.
    pub fn start(name: &'static str, folder: &std::path::Path) -> Result<Self, String> {
        let mut server: Option<Box<dyn std::any::Any>> = None;
        let toml = match name {
            "memory" => Vec::new(),
            "rocksdb" => vec!["state.backend = \"rocksdb\"".into(), format!("state.rocksdb.directory = {folder:?}")],
            "redis" => {
                let redis = redis::Redis::start(&redis::Options::default())?;
                let toml = vec!["state.backend = \"redis\"".into(), format!("state.redis.url = {:?}", redis.url())];
                server = Some(Box::new(redis));
                toml
            }
            "objects" => vec![
                "state.backend = \"object-store\"".into(),
                format!("state.object-store.url = \"file://{}\"", folder.display()),
            ],
            _ => {
                let hdfs = Hdfs::start()?;
                let toml = vec![
                    "state.backend = \"object-store\"".into(),
                    format!("state.object-store.url = \"{}/state\"", hdfs.url()),
                ];
                server = Some(Box::new(hdfs));
                toml
            }
        };
        Ok(Self { name, toml, _server: server })
    }
}

fn measure(case: &Case, args: &Args, keys: u64, events: u64) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.args(["w3", "--events", &events.to_string(), "--keys", &keys.to_string()]);
    command.args(["--checkpoint-interval", if args.interval == "0s" { "1s" } else { &args.interval }]);
    for toml in case.toml.iter().chain(&args.settings) {
        command.args(["--toml", toml]);
    }
    let output = command.output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}

pub fn compare(args: &Args) -> Result<(), String> {
    println!(
        "{:<8} {:>9} {:>13} {:>9} {:>12} {:>7} {:>9} {:>7}",
        "", "keys", "k/cpu-s", "of memory", "k/s", "ckpts", "pause ms", "MB"
    );
    for keys in args.keys.map_or(vec![BIDDERS, FEW], |keys| vec![keys]) {
        let mut base = f64::NAN;
        for name in NAMES.into_iter().filter(|name| *name == "memory" || args.wants(name)) {
            let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
            let case = Case::start(name, folder.path())?;
            // So that each runs for some seconds.
            let events = args.events.unwrap_or(if name == "memory" || keys <= FEW { 60_000_000 } else { 15_000_000 });
            let found: Result<Vec<_>, _> =
                (0..args.rounds.max(1)).map(|_| measure(&case, args, keys, events)).collect();
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    println!("{:<8} {keys:>9} {why}", case.name);
                    continue;
                }
            };
            let of = |what: &str| median(found.iter().map(|v| v[what].as_f64().unwrap_or(f64::NAN)).collect());
            let rate = of("events_per_cpu_second");
            if name == "memory" {
                base = rate;
            }
            println!(
                "{:<8} {keys:>9} {:>13.0} {:>9.2} {:>12.0} {:>7} {:>9.1} {:>7.0}",
                case.name,
                rate / 1e3,
                rate / base,
                of("events_per_second") / 1e3,
                of("checkpoints"),
                of("snapshot_pause_ms"),
                of("rss_mb")
            );
        }
    }
    Ok(())
}
