//! Undisturbed: the result is the reference's, whatever the parallelism and however the input is packed.
use std::{fs, io::Write, path::Path};

use crate::{
    child::Case,
    reference::{expected, input},
};

fn pack(to: &Path) {
    let plain = fs::read(input()).unwrap();
    if to.extension().is_some_and(|e| e == "gz") {
        let mut gz = flate2::write::GzEncoder::new(fs::File::create(to).unwrap(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        gz.finish().unwrap();
    } else {
        fs::write(to, zstd::encode_all(&plain[..], 1).unwrap()).unwrap();
    }
}

#[test]
fn the_month_is_exact_plain_and_compressed_at_any_parallelism() {
    let (rows, expected) = (fs::read_to_string(input()).unwrap().lines().count() - 1, expected());
    let flights = expected.delays.iter().map(|l| l.split(',').nth(2).unwrap().parse::<usize>().unwrap()).sum::<usize>();
    assert_eq!(flights + expected.late.len(), rows);
    assert!(expected.late.len() > 100, "a reference without late flights proves little");
    for parallelism in ["1", "2", "3"] {
        Case::new().finish(&["--parallelism", parallelism]);
        for name in ["flights.csv", "flights.csv.gz", "flights.csv.zst"] {
            let case = Case::new();
            let file = case.arg(name);
            if name == "flights.csv" {
                fs::copy(input(), &file).unwrap();
            } else {
                pack(Path::new(&file));
            }
            case.finish(&["--input", &file, "--parallelism", parallelism]);
            case.assert_exact(&expected);
        }
    }
}

/// From the reference's lines.
fn ten_worst() -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> =
        expected().delays.iter().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let mean = |row: &[String]| row[4].parse::<f64>().unwrap_or(f64::MIN);
    rows.sort_by(|a, b| mean(b).total_cmp(&mean(a)).then_with(|| (&a[1], &a[0]).cmp(&(&b[1], &b[0]))));
    rows.truncate(10);
    rows
}

#[test]
fn the_ten_worst_hours_and_the_summary_are_printed() {
    let ended = Case::new().finish(&[]);
    let mut lines = ended.stdout.lines().skip_while(|l| !l.starts_with("the 10 worst of 1642 hours"));
    assert!(lines.next().is_some(), "{}", ended.stdout);
    let header = lines.next().unwrap();
    assert!(header.starts_with("origin hour (UTC)") && header.ends_with("max delay"), "{header}");
    let table: Vec<&str> = lines.take(10).collect();
    let fields: Vec<Vec<&str>> = table.iter().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(fields, ten_worst());
    assert!(table.iter().all(|l| l.len() == header.len()), "the columns are not straight: {table:?}");

    let errors = &ended.stderr;
    let line = |name: &str| errors.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}: {errors}"));
    assert!(line("operator").ends_with("max"), "{errors}");
    assert!(line("flights ").contains("27004") && line("flights ").contains("2.5 MB"), "{errors}");
    assert!(line("per-hour ").contains("27004") && line("per-hour ").contains(" · 142 late"), "{errors}");
    assert!(line("delays ").contains("1642") && line("late ").contains("142"), "{errors}");
    assert!(line("checkpoint 1 committed in ").ends_with(" records read"), "{errors}");
    assert!(errors.lines().last().unwrap().contains(" s · "), "{errors}");
    assert!(errors.lines().all(|l| !l.ends_with(' ')), "{errors}");
}

#[test]
fn a_second_run_after_the_end_adds_nothing() {
    let case = Case::new();
    let first = case.finish(&[]);
    let (delays, late) = (case.files("out/delays"), case.files("out/late"));
    let second = case.finish(&["--parallelism", "2"]);
    assert_eq!(case.files("out/delays"), delays);
    assert_eq!(case.files("out/late"), late);
    case.assert_exact_month();
    let table = |stdout: &str| stdout.split_once("the 10 worst").unwrap().1.lines().take(12).collect::<String>();
    assert_eq!(table(&second.stdout), table(&first.stdout));
    assert!(!second.stderr.contains("MB"), "it says that it has read what it has not: {}", second.stderr);
}

#[test]
fn a_job_file_is_heeded_the_environment_wins_over_it_and_the_command_line_over_both() {
    let mut case = Case::new();
    let commits = |case: &Case, store: &str| case.files(&format!("{store}/flight-delays/commits")).len();
    let store = case.arg("from-file");
    fs::write(case.at("job.toml"), format!("[checkpoint]\nstore = {store:?}\n[report]\nsummary = false\n")).unwrap();
    let job_file = case.arg("job.toml");
    let ended = case.finish(&["--job-file", &job_file]);
    case.assert_exact_month();
    assert_eq!((commits(&case, "from-file"), case.files("out/checkpoints").len()), (1, 0));
    assert!(!ended.stderr.contains("capacity/s") && ended.stderr.contains("checkpoint 1 committed"), "{ended:?}");

    let other = case.arg("from-options");
    case.environment("TIDEGATE_REPORT__SUMMARY", "true");
    case.environment("TIDEGATE_CHECKPOINT__STORE", "nowhere://");
    fs::remove_dir_all(case.at("out")).unwrap();
    let ended = case.finish(&["--job-file", &job_file, "--checkpoints", &other, "--parallelism", "2"]);
    case.assert_exact_month();
    assert_eq!((commits(&case, "from-file"), commits(&case, "from-options")), (1, 1));
    assert!(ended.stderr.contains("capacity/s"), "{ended:?}");
}

#[test]
fn a_job_file_without_a_store_leaves_the_checkpoints_where_they_are() {
    let case = Case::new();
    fs::write(case.at("job.toml"), "parallelism = 2\n").unwrap();
    case.finish(&["--job-file", &case.arg("job.toml")]);
    case.assert_exact_month();
    assert_eq!(case.committed(), 1);
}

#[test]
fn a_file_without_flights_gives_no_hours_and_is_no_error() {
    for text in [String::new(), format!("{}\n", expected().header)] {
        let case = Case::new();
        fs::write(case.at("empty.csv"), text).unwrap();
        let ended = case.finish(&["--input", &case.arg("empty.csv")]);
        assert_eq!((case.files("out/delays").len(), case.files("out/late").len()), (0, 0));
        assert!(ended.stdout.contains("no flights in the input"), "{}", ended.stdout);
    }
}
