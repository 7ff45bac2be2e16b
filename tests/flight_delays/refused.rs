//! Bad arguments, bad input, bad places: one clear `error:` line with a hint, a code that is not 0, and
//! nothing lost.
use std::fs;

use crate::{
    child::Case,
    reference::{expected, input},
};

/// It must end by itself, at once, with this code and these words.
#[track_caller]
fn refused(case: &Case, arguments: &[&str], code: i32, words: &[&str]) {
    let ended = case.run(arguments);
    assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
    let errors: Vec<&str> = ended.stderr.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{arguments:?}: {}", ended.stderr);
    let said = ended.stderr.split_once("error: ").unwrap().1;
    for word in words.iter().chain(&["\n  hint: "]) {
        assert!(said.contains(word), "{arguments:?}: no {word:?} in: {said}");
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn bad_arguments_are_named() {
    let case = Case::new();
    for (arguments, words) in [
        (&["--outt", "x"][..], "there is no option --outt"),
        (&["flights.csv"], "there is no option flights.csv"),
        (&["--rate"], "--rate needs a value"),
        (&["--rate", "fast"], "--rate fast: it has to be records a second, above 0"),
        (&["--rate", "-1"], "--rate -1: it has to be"),
        (&["--rate", "inf"], "--rate inf: it has to be"),
        (&["--rate", "nan"], "--rate nan: it has to be"),
        (&["--parallelism", "0"], "--parallelism 0: it has to be a whole number, above 0"),
        (&["--parallelism", "1.5"], "--parallelism 1.5: it has to be"),
        (&["--from", "latest"], "--from latest: it has to be the number of a checkpoint"),
    ] {
        refused(&case, arguments, 2, &[words, "--help"]);
    }
    assert!(!case.at("out").exists(), "something was done all the same");
}

#[test]
fn what_cannot_be_begun_is_said_with_what_to_do() {
    let case = Case::new();
    fs::write(case.at("file"), "").unwrap();
    fs::write(case.at("typo.toml"), "paralelism = 2\n").unwrap();
    let below = case.arg("file/below");
    let missing = case.arg("missing");
    let refused = |arguments: &[&str], words: &[&str]| refused(&case, arguments, 1, words);
    refused(&["--input", &missing], &["source flights: the input file", "missing cannot be read", "check the path"]);
    refused(&["--out", &below], &["file/below/checkpoints\" cannot be used", "name a directory"]);
    refused(&["--checkpoints", &below], &["file/below\" cannot be used", "name a directory"]);
    // The checkpoints can be written, the output cannot.
    refused(&["--out", &below, "--checkpoints", &case.arg("elsewhere")], &["file/below/", "name a directory"]);
    refused(&["--parallelism", "129"], &["parallelism = 129 is not in 1..=128"]);
    refused(&["--from", "7"], &["there is no committed checkpoint 7", "there is none"]);
    refused(&["--job-file", &missing], &["cannot read the job file", "missing"]);
    refused(&["--job-file", &case.arg("typo.toml")], &["typo.toml", "did you mean parallelism?"]);
    // None of it is in the way of a right start.
    case.finish(&[]);
    case.assert_exact_month();
}

#[test]
fn a_job_that_cannot_begin_prints_no_table_of_nothing() {
    let case = Case::new();
    let ended = case.run(&["--input", &case.arg("missing")]);
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
}

/// Checkpoints come before the bad row, the row is mended, and the job goes on behind them.
#[test]
fn a_row_with_too_few_columns_is_named_with_its_line_and_nothing_is_lost_when_it_is_mended() {
    let month = fs::read_to_string(input()).unwrap();
    let mut lines: Vec<&str> = month.lines().collect();
    let whole = lines[9_000];
    lines[9_000] = whole.rsplit_once(',').unwrap().0;
    let case = Case::with_checkpoints();
    let file = case.arg("flights.csv");
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    let words = ["line 9001 of flights.csv: it has 18 columns, the header has 19", "mend the input", lines[9_000]];
    refused(&case, &["--input", &file, "--rate", "6000"], 1, &words);
    let committed = case.committed();
    assert!(committed > 0, "there was no checkpoint before the row");
    // Again: it goes on from there, and comes to the same row.
    refused(&case, &["--input", &file], 1, &words);

    lines[9_000] = whole;
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    case.finish(&["--input", &file, "--parallelism", "2"]);
    case.assert_exact_month();
}

#[test]
fn a_time_that_is_none_and_columns_of_another_table_are_named() {
    let header = expected().header;
    let case = Case::new();
    let file = case.arg("flights.csv");
    let row = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15";
    fs::write(&file, format!("{header}\n{row},yesterday\n")).unwrap();
    refused(&case, &["--input", &file], 1, &["line 2 of flights.csv", "\"yesterday\" is not a time"]);
    fs::write(&file, "a,b\n1,2\n").unwrap();
    refused(&case, &["--input", &file], 1, &["line 2 of flights.csv", "missing field `year`"]);
}

#[test]
fn a_compressed_file_that_is_cut_short_is_named_and_nothing_is_lost_when_it_is_whole() {
    let case = Case::with_checkpoints();
    let file = case.arg("flights.csv.zst");
    let packed = zstd::encode_all(fs::File::open(input()).unwrap(), 1).unwrap();
    fs::write(&file, &packed[..packed.len() / 2]).unwrap();
    refused(&case, &["--input", &file, "--rate", "6000"], 1, &["flights.csv.zst", "damaged or cut short"]);
    assert!(case.committed() > 0, "there was no checkpoint before the end");
    fs::write(&file, &packed).unwrap();
    case.finish(&["--input", &file]);
    case.assert_exact_month();
}
