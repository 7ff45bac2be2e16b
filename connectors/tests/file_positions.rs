//! The exactness of the file source: stop at any record, open the file again at that position, and the
//! records are those of one undisturbed reading, whatever the format, the compression and the line ends.
//!
//! The hard cases are in the generated rows: quoted line ends and commas, empty lines, bytes that are no
//! UTF-8, rows that cannot be decoded (with the line they are on), and a last line without its end. What is
//! expected is made from the rows themselves, not by reading.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
use proptest::{collection::vec, prelude::*, sample::select};
use serde::Deserialize;
use std::io::Write;
use tidegate_connectors::FileSource;
use tidegate_core::{
    connect::{Source, Undecodable},
    testkit::source::{Taken, read_all, read_in_pieces},
};

/// One row as it stands in the file, and what has to come of it: a record, a failure, or nothing.
#[derive(Clone, Debug)]
struct Line<T> {
    bytes: Vec<u8>,
    gives: Option<Result<T, ()>>,
}

#[derive(Clone, Debug)]
struct Layout {
    extension: &'static str,
    crlf: bool,
    last_end: bool,
    pieces: Vec<usize>,
    budget: usize,
}

fn layouts() -> impl Strategy<Value = Layout> {
    (select(vec!["", ".gz", ".zst"]), any::<bool>(), any::<bool>(), vec(1usize..7, 1..6), 1usize..9)
        .prop_map(|(extension, crlf, last_end, pieces, budget)| Layout { extension, crlf, last_end, pieces, budget })
}

/// The file, and the line (from 1) on which each row begins.
fn render<T>(header: Option<&str>, rows: &[Line<T>], layout: &Layout) -> (Vec<u8>, Vec<u64>) {
    let end: &[u8] = if layout.crlf { b"\r\n" } else { b"\n" };
    let mut file = Vec::new();
    if let Some(header) = header {
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(end);
    }
    let mut begins = Vec::new();
    for row in rows {
        begins.push(1 + file.iter().filter(|b| **b == b'\n').count() as u64);
        file.extend_from_slice(&row.bytes);
        file.extend_from_slice(end);
    }
    // An empty line without its end is none. (And behind an empty line the CSV reader cannot tell on which
    // line a row without its end begins: the places that it names are for people.)
    let empty = |r: &Line<T>| r.bytes.is_empty();
    if !layout.last_end && rows.len() > 1 && !rows[rows.len() - 2..].iter().any(empty) {
        file.truncate(file.len() - end.len());
    }
    (file, begins)
}

fn compress(extension: &str, content: &[u8]) -> Vec<u8> {
    // In two members or frames: files that were appended to are common.
    let (front, back) = content.split_at(content.len() / 3);
    let gz = |part: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    let zst = |part: &[u8]| zstd::encode_all(part, 1).unwrap();
    match extension {
        ".gz" => [gz(front), gz(back)].concat(),
        ".zst" => [zst(front), zst(back)].concat(),
        _ => content.to_vec(),
    }
}

/// Writes the rows, reads them whole and in pieces, and compares both with what the rows must give.
fn check<S: Source>(
    source: impl Fn(std::path::PathBuf) -> S,
    header: Option<&str>,
    rows: &[Line<S::Item>],
    layout: &Layout,
) -> Result<(), TestCaseError>
where
    S::Item: Clone + PartialEq + std::fmt::Debug,
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("rows{}", layout.extension));
    let (content, begins) = render(header, rows, layout);
    std::fs::write(&path, compress(layout.extension, &content)).unwrap();

    let records: Vec<_> = rows.iter().filter_map(|r| r.gives.clone()?.ok()).collect();
    let failing = rows.iter().zip(&begins).filter(|(r, _)| matches!(r.gives, Some(Err(())))).map(|(_, line)| line);
    let failing: Vec<String> = failing.map(|line| format!("line {line}")).collect();
    let places = |bad: &[Undecodable]| bad.iter().map(|u| u.place.clone()).collect::<Vec<_>>();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let source = source(path);
        let split = source.discover().await.unwrap().remove(0);
        let whole: Taken<S::Item> = read_all(&source, &split).await.unwrap();
        prop_assert_eq!(&whole.records, &records, "read whole");
        prop_assert_eq!(places(&whole.undecodable), failing, "read whole");
        let pieces = read_in_pieces(&source, &split, &layout.pieces, layout.budget).await.unwrap();
        prop_assert_eq!(&pieces.records, &records, "read in pieces");
        prop_assert_eq!(&pieces.undecodable, &whole.undecodable, "read in pieces");
        Ok(())
    })
}

/// Text that a line can hold: anything but line ends, and no carriage return where the line ends.
fn text() -> impl Strategy<Value = String> {
    "[a-zé,;\"' {}\t\u{1F600}]{0,12}"
}

fn text_line() -> impl Strategy<Value = Line<String>> {
    prop_oneof![
        8 => text().prop_map(|t| Line { bytes: t.clone().into_bytes(), gives: Some(Ok(t)) }),
        1 => Just(Line { bytes: b"caf\xe9".to_vec(), gives: Some(Err(())) }),
        1 => Just(Line { bytes: b"return\rinside".to_vec(), gives: Some(Ok("return\rinside".into())) }),
    ]
}

#[derive(Clone, Debug, PartialEq, Deserialize, serde::Serialize)]
struct Row {
    id: u32,
    name: String,
    note: Option<String>,
}

fn row() -> impl Strategy<Value = Row> {
    (any::<u32>(), "[a-zé,\"\r\n ]{0,10}", proptest::option::of("[a-z\n,]{1,6}")).prop_map(|(id, name, note)| Row {
        id,
        name,
        note,
    })
}

fn json_line() -> impl Strategy<Value = Line<Row>> {
    prop_oneof![
        8 => row().prop_map(|r| Line { bytes: serde_json::to_vec(&r).unwrap(), gives: Some(Ok(r)) }),
        1 => select(vec!["", "  "]).prop_map(|blank| Line { bytes: blank.into(), gives: None }),
        1 => select(vec!["{\"id\": 1", "{\"id\": -1, \"name\": \"\"}", "[]"])
            .prop_map(|bad| Line { bytes: bad.into(), gives: Some(Err(())) }),
    ]
}

fn csv_row() -> impl Strategy<Value = Line<Row>> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let good = (row(), any::<bool>()).prop_map(move |(r, quote_all)| {
        let field = |text: &str| {
            if quote_all || text.contains(['"', ',', '\r', '\n']) { quoted(text) } else { text.to_owned() }
        };
        let line = format!("{},{},{}", r.id, field(&r.name), field(r.note.as_deref().unwrap_or_default()));
        Line { bytes: line.into_bytes(), gives: Some(Ok(r)) }
    });
    prop_oneof![
        8 => good,
        1 => Just(Line { bytes: Vec::new(), gives: None }),
        1 => select(vec!["7,too few", "7,too,many,columns", "seven,\"a\nb\",x", "-1,a,b"])
            .prop_map(|bad| Line { bytes: bad.into(), gives: Some(Err(())) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_resumes_at_any_line(rows in vec(text_line(), 0..40), layout in layouts()) {
        check(FileSource::text, None, &rows, &layout)?;
    }

    #[test]
    fn json_lines_resume_at_any_line(rows in vec(json_line(), 0..40), layout in layouts()) {
        check(FileSource::json_lines::<Row>, None, &rows, &layout)?;
    }

    #[test]
    fn csv_resumes_at_any_row(rows in vec(csv_row(), 0..40), layout in layouts()) {
        check(FileSource::csv::<Row>, Some("id,name,note"), &rows, &layout)?;
    }
}
