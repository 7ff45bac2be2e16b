//! Generator, collection and standard streams: what a split has is a function of its number alone, and a
//! reader that is opened at a position goes on with the very next record.
//!
//! Standard input and output belong to a process, so their tests run this test program again as a child (the
//! ignored tests below), with pipes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Command, Output, Stdio},
};
use tidegate_checkpoint::ids::{Epoch, Subtask};
use tidegate_connectors::{Collection, Generator, Stdin, Stdout, generator::random};
use tidegate_core::{
    Error, Kind,
    connect::{OpenSink, Sink, SinkWriter, Source, WriterContext},
    testkit::{
        sink::context,
        source::{Taken, read, read_all, read_in_pieces},
    },
};

async fn check<S: Source<Item = u64>>(
    source: &S,
    expected: impl Fn(u64) -> Vec<u64>,
    pieces: &[usize],
    budget: usize,
) -> Result<(), TestCaseError> {
    let splits = source.discover().await.unwrap();
    prop_assert_eq!(&splits, &source.discover().await.unwrap(), "splits are stable");
    for (part, split) in (0..).zip(&splits) {
        let whole = read_all(source, split).await.unwrap();
        prop_assert_eq!(&whole.records, &expected(part));
        prop_assert_eq!(split.length, Some(whole.len() as u64));
        prop_assert_eq!(&read_in_pieces(source, split, pieces, budget).await.unwrap(), &whole);
    }
    Ok(())
}

fn block_on<R>(future: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_records_are_a_function_of_their_number(
        count in 0u64..200, splits in 1u64..9, pieces in vec(1usize..20, 1..5), budget in 1usize..30,
    ) {
        let source = Generator::new(count, |i| random(7, i)).splits(splits);
        let expected = |part| (0..count).filter(|i| i % splits == part).map(|i| random(7, i)).collect();
        block_on(check(&source, expected, &pieces, budget))?;
    }

    #[test]
    fn a_collections_records_are_dealt_out_to_its_splits(
        records in vec(any::<u64>(), 0..100), splits in 1usize..9, pieces in vec(1usize..20, 1..5), budget in 1usize..30,
    ) {
        let source = Collection::new(records.clone()).splits(splits);
        let expected = |part| records.iter().copied().skip(part as usize).step_by(splits).collect();
        block_on(check(&source, expected, &pieces, budget))?;
    }
}

#[test]
fn the_random_numbers_of_the_generator_are_splitmix64() {
    // The first outputs of the reference implementation for the seed 1234567.
    let reference = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!([random(1_234_567, 0), random(1_234_567, 1), random(1_234_567, 2)], reference);
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_that_of_all_splits_together() {
    let source = Generator::new(300, |i| i).splits(3).rate(100.0);
    let began = tidegate_core::env::now();
    let splits = source.discover().await.unwrap();
    let reads = splits.iter().map(|split| read_all(&source, split));
    let taken = futures::future::try_join_all(reads).await.unwrap();
    assert_eq!(taken.iter().map(Taken::len).sum::<usize>(), 300);
    let took = tidegate_core::env::now().duration_since(began).as_secs_f64();
    assert!((2.7..3.1).contains(&took), "300 records at 100 a second took {took} s of virtual time");
}

#[tokio::test]
async fn positions_that_are_none_are_refused() {
    for wrong in [json!(null), json!({ "made": -1 }), json!({ "read": "1" }), json!([])] {
        let generator = Generator::new(9, |i| i);
        let split = generator.discover().await.unwrap().remove(0);
        assert_eq!(generator.open(split, Some(wrong.clone())).await.err().unwrap().kind(), Kind::Corrupt);
        let collection = Collection::new([1u64]);
        let split = collection.discover().await.unwrap().remove(0);
        assert_eq!(collection.open(split, Some(wrong)).await.err().unwrap().kind(), Kind::Corrupt);
    }
}

/// Runs an ignored test of this program in a process of its own.
fn child(test: &str, position: Option<&Value>, input: &[u8]) -> Output {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program)
        .args(["--ignored", "--exact", test, "--nocapture", "--test-threads=1"])
        .env("TIDEGATE_TEST_POSITION", position.map_or(String::new(), Value::to_string))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that refuses its input has closed the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

const MARK: &str = "child says ";

/// What `child_reads_standard_input` has to say: records and position, or the error.
fn reads(position: Option<&Value>, input: &[u8]) -> Value {
    let output = String::from_utf8(child("child_reads_standard_input", position, input).stdout).unwrap();
    let said = output.split_once(MARK).unwrap_or_else(|| panic!("{output}")).1;
    serde_json::Deserializer::from_str(said).into_iter().next().unwrap().unwrap()
}

#[test]
#[ignore = "run as a child process by the tests of standard input"]
fn child_reads_standard_input() {
    let position = std::env::var("TIDEGATE_TEST_POSITION").unwrap_or_default();
    let outcome: Result<Value, Error> = block_on(async {
        let source = Stdin::lines();
        let split = source.discover().await?.remove(0);
        let mut taken = Taken::new();
        let position = (!position.is_empty()).then(|| position.parse().unwrap());
        let (position, ended) = read(&source, &split, position, usize::MAX, 2, &mut taken).await?;
        Ok(json!({ "lines": taken.records, "position": position, "ended": ended }))
    });
    println!("{MARK}{}", outcome.unwrap_or_else(|e| json!({ "error": e.to_string() })));
}

#[test]
fn standard_input_is_read_by_lines_and_resumes_on_the_same_input() {
    let input = b"one\ntwo\r\n\nf\xffur\r\r\nlast\r";
    let whole = reads(None, input);
    let lines = ["one", "two", "", "f\u{fffd}ur\r", "last\r"];
    assert_eq!(whole, json!({ "lines": lines, "position": { "lines": 5 }, "ended": true }));
    for read in 0..=5 {
        let rest = reads(Some(&json!({ "lines": read })), input);
        assert_eq!(rest, json!({ "lines": lines[read..], "position": { "lines": 5 }, "ended": true }));
    }
    assert_eq!(reads(None, b""), json!({ "lines": [], "position": { "lines": 0 }, "ended": true }));
}

#[test]
fn standard_input_that_is_shorter_than_what_was_read_is_an_error() {
    let said = reads(Some(&json!({ "lines": 3 })), b"one\ntwo\n");
    let error = said["error"].as_str().unwrap();
    assert!(error.contains("has 2 lines, and 3 have been read") && error.contains("hint"), "{error}");
}

/// It does not go into memory whole.
#[test]
fn a_line_of_standard_input_without_end_is_an_error() {
    let said = reads(None, &[b"one\n", vec![b'x'; 65 << 20].as_slice()].concat());
    let error = said["error"].as_str().unwrap();
    assert!(error.contains("line 2 is longer than"), "{error}");
}

#[test]
#[ignore = "run as a child process by the test of a second reader"]
fn child_reads_standard_input_twice() {
    let second = block_on(async {
        let source = Stdin::lines();
        let split = source.discover().await.unwrap().remove(0);
        let mut taken = Taken::new();
        let (position, _) = read(&source, &split, None, 2, 1, &mut taken).await.unwrap();
        read(&source, &split, Some(position), usize::MAX, 1, &mut taken).await.map(|_| taken.records)
    });
    let said = second.map_or_else(|e| json!({ "kind": e.kind().to_string(), "error": e.to_string() }), |r| json!(r));
    println!("{MARK}{said}");
}

/// As when an attempt fails and the next one begins in the same process: what the first reader took is gone.
#[test]
fn standard_input_is_not_read_twice_in_one_process() {
    let output =
        String::from_utf8(child("child_reads_standard_input_twice", None, b"1\n2\n3\n4\n5\n6\n").stdout).unwrap();
    let said = output.split_once(MARK).unwrap().1;
    assert!(said.contains("\"configuration\"") && said.contains("start the process again"), "{said}");
}

#[test]
#[ignore = "run as a child process by the test of standard output"]
fn child_writes_standard_output() {
    block_on(async {
        let context = context("out", 1, None);
        let subtask = WriterContext { subtask: Subtask(0), parallelism: 1 };
        let lines = Stdout::lines::<u32>();
        let mut writer = lines.recover(context.clone(), Vec::new()).await.unwrap().writer(subtask).unwrap();
        println!("{MARK}");
        writer.write(1, 0).unwrap();
        println!("not yet");
        SinkWriter::<u32>::flush(&mut writer).unwrap();
        writer.write(2, 0).unwrap();
        assert_eq!(SinkWriter::<u32>::barrier(&mut writer, Epoch(1)).await.unwrap(), [Value::Null; 0]);
        let json = Stdout::json::<(u32, String)>();
        let mut writer = json.recover(context, Vec::new()).await.unwrap().writer(subtask).unwrap();
        writer.write((3, "a\nb".into()), 0).unwrap();
        SinkWriter::<(u32, String)>::flush(&mut writer).unwrap();
        println!("dropped lines stay away");
        writer.write((4, "lost".into()), 0).unwrap();
    });
}

#[test]
fn standard_output_shows_what_was_flushed_or_is_before_a_barrier() {
    let output = String::from_utf8(child("child_writes_standard_output", None, b"").stdout).unwrap();
    let shown = output.split_once(MARK).unwrap().1;
    let expected = "\nnot yet\n1\n2\n[3,\"a\\nb\"]\ndropped lines stay away\n";
    assert!(shown.starts_with(expected) && !shown.contains("lost"), "{shown}");
}
