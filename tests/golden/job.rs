//! The job whose checkpoints are pinned: files in, files out, keyed state without windows and with, late
//! records, and a source that has ended. What must come out is computed by hand.
//!
//! What it is made of is pinned with them: names, types and the order of rows must never change.
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};
use tidegate::{Aggregate, FileSink, FileSource, Job, Settings, Stream, Tumbling, Watermarks};

const ROWS: i64 = 120;
const SINKS: [&str; 4] = ["balances", "per-ten", "late", "names"];

#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    id: i64,
    key: String,
    at: i64,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Name {
    name: String,
}

/// Read before the first checkpoint: their state is long, and never changed again.
fn names() -> impl Iterator<Item = String> {
    ["Ada", "Bob", "Cid"].into_iter().enumerate().map(|(n, name)| name.repeat(60 + n))
}

/// Most rows come in order; every eleventh is 12 s behind, and late.
fn rows() -> impl Iterator<Item = Row> {
    (0..ROWS).map(|id| {
        let at = id * 500 - if id % 11 == 10 { 12_000 } else { 0 };
        Row { id, key: format!("k{}", id * id % 7), at }
    })
}

pub fn write_input(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let lines: String = rows().map(|r| format!("{},{},{}\n", r.id, r.key, r.at)).collect();
    fs::write(dir.join("rows.csv"), format!("id,key,at\n{lines}")).unwrap();
    let lines: String = names().map(|n| n + "\n").collect();
    fs::write(dir.join("names.csv"), format!("name\n{lines}")).unwrap();
}

#[derive(Clone)]
struct Span;

#[derive(Clone, Serialize, Deserialize)]
struct Spanned {
    first: Option<i64>,
    ids: Vec<i64>,
}

impl Aggregate<Row> for Span {
    type State = Spanned;
    type Output = String;
    fn init(&self) -> Spanned {
        Spanned { first: None, ids: Vec::new() }
    }
    fn add(&self, state: &mut Spanned, row: Row) {
        state.first.get_or_insert(row.id);
        state.ids.push(row.id);
    }
    fn merge(&self, _: &mut Spanned, _: &Spanned) {}
    fn finish(&self, state: &Spanned) -> String {
        span(&state.ids)
    }
}

fn span(ids: &[i64]) -> String {
    format!("{}+{}", ids[0], ids.iter().sum::<i64>())
}

/// In `dir`: input in `in`, output in `out`, checkpoints in `checkpoints`.
pub fn job(dir: &Path, mut settings: Settings, rate: f64) -> Job {
    settings.key_groups = 8;
    settings.checkpoint.store = dir.join("checkpoints").display().to_string();
    let out = |name: &str| FileSink::csv(dir.join("out").join(name).display().to_string());
    let job = Job::new("golden", settings);
    job.source("name-files", FileSource::csv::<Name>(dir.join("in/names.csv")))
        .key_by(|n| n.name.len() as u32)
        .fold("longest", String::new(), |longest, n| *longest = n.name)
        .map(|(letters, name)| (letters, name[..3].to_owned()))
        .sink("names", out("names"));
    let rows = job
        .source("rows", FileSource::csv::<Row>(dir.join("in/rows.csv")).rate(rate))
        .event_time(|r| r.at, Watermarks::bounded(Duration::from_secs(1)).every(10))
        .boxed();
    rows.clone()
        .key_by(|r| r.key.clone())
        .fold("balance", (0u32, 0i64), |total, r| *total = (total.0 + 1, total.1 + r.id))
        .sink("balances", out("balances"));
    let mut windows = rows.key_by(|r| r.key.clone()).window("per-ten-seconds", Tumbling::of(Duration::from_secs(10)));
    windows.late().sink("late", out("late"));
    windows.aggregate(Span).map(|w| (w.key, w.window.start, w.value)).sink("per-ten", out("per-ten"));
    job
}

/// The lines of each sink, sorted.
pub fn expected() -> BTreeMap<&'static str, Vec<String>> {
    let mut lines: BTreeMap<&str, Vec<String>> = SINKS.map(|sink| (sink, Vec::new())).into();
    let mut add = |sink: &str, line: String| lines.get_mut(sink).unwrap().push(line);
    let (mut balances, mut windows) = (BTreeMap::<String, (u32, i64)>::new(), BTreeMap::<_, Vec<i64>>::new());
    let (mut newest, mut watermark) = (i64::MIN, i64::MIN);
    for (n, r) in rows().enumerate() {
        let total = balances.entry(r.key.clone()).or_default();
        *total = (total.0 + 1, total.1 + r.id);
        add("balances", format!("{},{},{}", r.key, total.0, total.1));
        let start = r.at - r.at.rem_euclid(10_000);
        if watermark >= start + 9_999 {
            add("late", format!("{},{},{}", r.id, r.key, r.at));
        } else {
            windows.entry((r.key, start)).or_default().push(r.id);
        }
        newest = newest.max(r.at);
        if n % 10 == 9 {
            watermark = newest - 1_001;
        }
    }
    for ((key, start), ids) in windows {
        add("per-ten", format!("{key},{start},{}", span(&ids)));
    }
    for name in names() {
        add("names", format!("{},{}", name.len(), &name[..3]));
    }
    for lines in lines.values_mut() {
        lines.sort();
    }
    lines
}

/// What is visible of it.
pub fn found(dir: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let lines = |sink: &str| {
        let mut lines = Vec::new();
        for path in fs::read_dir(dir.join("out").join(sink)).unwrap().map(|e| e.unwrap().path()) {
            if path.is_file() {
                let text = fs::read_to_string(path).unwrap();
                // Tuples have no header, rows have one.
                lines.extend(text.lines().filter(|l| *l != "id,key,at").map(str::to_owned));
            }
        }
        lines.sort();
        lines
    };
    SINKS.map(|sink| (sink, lines(sink))).into()
}
