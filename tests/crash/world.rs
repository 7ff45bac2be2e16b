//! The input of the crash job, and what must come out: arithmetic, CSV by hand, `HashMap`. Nothing here is
//! shared with the engine, nor with the job's own code.
//!
//! The hard case is to compare what is comparable at any parallelism: a key lives in one file only, so its
//! running sums are determined; timestamps stray less than the watermark's bound, so nothing is late.
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    path::Path,
};

pub const FILES: [(&str, &str); 4] = [("left", "a.csv"), ("left", "b.csv"), ("right", "c.csv"), ("right", "d.csv")];
const KEYS: u64 = 300;

struct Row {
    id: u64,
    key: u64,
    at: i64,
    value: i64,
}

/// Any good mixing will do: murmur3's finaliser.
fn mix(mut x: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        x = (x ^ (x >> 33)).wrapping_mul(factor);
    }
    x ^ (x >> 33)
}

fn rows(seed: u64, file: u64, count: u64) -> impl Iterator<Item = Row> {
    (0..count).map(move |n| {
        let id = file * count + n;
        let r = mix(seed ^ mix(id));
        let key = (r % KEYS) * FILES.len() as u64 + file;
        let at = (n * 5) as i64 + (r >> 20) as i64 % 400;
        Row { id, key, at, value: (r >> 40) as i64 % 1_000 - 300 }
    })
}

/// How often each line occurs, by sink.
pub type Output = BTreeMap<&'static str, HashMap<String, i64>>;

/// Writes the input and returns what an undisturbed run would make of it.
pub fn make(dir: &Path, seed: u64, rows_per_file: u64) -> Output {
    let mut output =
        Output::from([("events", HashMap::new()), ("running", HashMap::new()), ("windows", HashMap::new())]);
    let mut add = |sink, line| *output.get_mut(sink).unwrap().entry(line).or_default() += 1;
    let mut windows = HashMap::<(u64, i64), i64>::new();
    for (file, (folder, name)) in FILES.iter().enumerate() {
        let mut text = String::from("id,key,at,value\n");
        let mut running = HashMap::<u64, (u64, i64)>::new();
        for Row { id, key, at, value } in rows(seed, file as u64, rows_per_file) {
            writeln!(text, "{id},{key},{at},{value}").unwrap();
            if value % 7 == 0 {
                continue;
            }
            add("events", format!("{id},{key},{at},{value}"));
            let total = running.entry(key).or_default();
            *total = (total.0 + 1, total.1 + value);
            add("running", format!(r#"{{"key":{key},"count":{},"sum":{}}}"#, total.0, total.1));
            *windows.entry((key % 50, at - at % 1_000)).or_default() += value;
        }
        let folder = dir.join("in").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
    for ((key, start), sum) in windows {
        add("windows", format!("{key},{start},{sum}"));
    }
    output
}

/// What is visible: every line of every file under its final name, but for the CSV headers.
pub fn found(dir: &Path) -> Output {
    let mut output = Output::new();
    for sink in ["events", "running", "windows"] {
        let lines = output.entry(sink).or_default();
        let Ok(entries) = fs::read_dir(dir.join("out").join(sink)) else { continue };
        for path in entries.map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with("part-"), "{name} is visible, and is no part");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.ends_with('\n'), "{name} is half-written");
            let header = usize::from(name.ends_with(".csv"));
            for line in text.lines().skip(header) {
                *lines.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
    output
}

/// Compares multisets; says what is missing and what is too much.
pub fn compare(expected: &Output, found: &Output) -> Result<(), String> {
    for (sink, expected) in expected {
        let found = &found[sink];
        let (mut missing, mut extra) = (Vec::new(), Vec::new());
        for line in expected.keys().chain(found.keys().filter(|l| !expected.contains_key(*l))) {
            let surplus = found.get(line).unwrap_or(&0) - expected.get(line).unwrap_or(&0);
            match surplus {
                0 => {}
                1.. => extra.push(line),
                _ => missing.push(line),
            }
        }
        if !missing.is_empty() || !extra.is_empty() {
            let some = |lines: &[&String]| lines.iter().take(5).map(|l| l.as_str()).collect::<Vec<_>>().join("  ");
            return Err(format!(
                "{sink}: {} lines missing ({}), {} too often or foreign ({})",
                missing.len(),
                some(&missing),
                extra.len(),
                some(&extra)
            ));
        }
    }
    Ok(())
}

#[test]
fn the_comparison_sees_a_lost_a_doubled_and_a_foreign_line() {
    let dir = tempfile::tempdir().unwrap();
    let expected = make(dir.path(), 1, 50);
    assert!(compare(&expected, &expected).is_ok());
    let line = expected["running"].keys().next().unwrap().clone();
    let changed = |change: &dyn Fn(&mut HashMap<String, i64>)| {
        let mut other = expected.clone();
        change(other.get_mut("running").unwrap());
        compare(&expected, &other).unwrap_err()
    };
    assert!(changed(&|m| assert!(m.remove(&line).is_some())).contains("running: 1 lines missing"));
    assert!(changed(&|m| *m.get_mut(&line).unwrap() += 1).contains("1 too often"));
    assert!(changed(&|m| assert!(m.insert("x".into(), 1).is_none())).contains("foreign (x)"));
}
