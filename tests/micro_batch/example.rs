//! The example `micro_batch`, in each trigger that ends: its files against a count of the input that shares nothing with
//! it.
#![allow(clippy::disallowed_methods)] // files are the oracle's
use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

#[path = "../../examples/micro_batch.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, clippy::print_stdout)]
mod micro_batch;

/// Flights, cancelled ones and minutes of delay, by carrier.
fn counted(files: &[&Path]) -> BTreeMap<String, (u64, u64, i64)> {
    let mut counts = BTreeMap::new();
    for file in files {
        for row in csv::Reader::from_path(file).unwrap().records() {
            let row = row.unwrap();
            let count: &mut (u64, u64, i64) = counts.entry(row[9].to_owned()).or_default();
            count.0 += 1;
            match row[5].parse::<i64>() {
                Ok(minutes) => count.2 += minutes,
                Err(_) => count.1 += 1,
            }
        }
    }
    counts
}

fn run(arguments: &[(&str, &Path)], trigger: &str) -> u8 {
    let paths = arguments.iter().flat_map(|(name, path)| [OsString::from(name), path.as_os_str().to_owned()]);
    micro_batch::run(paths.chain(["--trigger".into(), trigger.into()]))
}

#[test]
fn its_files_are_those_of_a_count_by_hand_in_any_style_and_after_more_input() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/flights-2013-01.csv");
    let job_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/micro_batch.toml");
    let text = fs::read_to_string(data).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for trigger in ["available-now", "once"] {
        let dir = tempfile::tempdir().unwrap();
        let (input, out) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir(&input).unwrap();
        let arguments = [("--input", &*input), ("--out", &*out), ("--job-file", &*job_file)];
        // The second half comes when the first has been read.
        let mut files = Vec::new();
        for (name, rows) in [("a.csv", &lines[1..13_000]), ("b.csv", &lines[13_000..])] {
            files.push(input.join(name));
            fs::write(files.last().unwrap(), format!("{}\n{}\n", lines[0], rows.join("\n"))).unwrap();
            assert_eq!(run(&arguments, trigger), 0);
            let found = micro_batch::totals(&out.join("totals")).unwrap();
            let found = found.into_iter().map(|(c, t)| (c, (t.flights, t.cancelled, t.delay_minutes)));
            let files: Vec<_> = files.iter().map(|f| &**f).collect();
            assert_eq!(found.collect::<BTreeMap<_, _>>(), counted(&files), "{trigger}");
        }
    }
}

#[test]
fn it_refuses_a_trigger_that_is_none_and_a_directory_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert_eq!(run(&[("--out", dir.path())], "every=0s"), 1);
    assert_eq!(run(&[("--out", dir.path()), ("--input", &missing)], "once"), 1);
}
