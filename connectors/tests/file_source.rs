//! The file source at its edges: which files it takes, files with nothing or too little in them, files that
//! were damaged or replaced, and user code that fails on the reading thread. Whatever is wrong is an error
//! that names the file; nothing ever looks like an early end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
use serde::{Deserialize, Deserializer};
use serde_json::json;
use std::{fs, io::Write, path::Path};
use tempfile::tempdir;
use tidegate_connectors::FileSource;
use tidegate_core::{
    Error, Kind,
    connect::Source,
    env::now,
    testkit::source::{Taken, read, read_all, read_in_pieces},
};

async fn all<S: Source>(source: &S) -> Result<Taken<S::Item>, Error> {
    let mut taken = Taken::new();
    for split in source.discover().await? {
        read(source, &split, None, usize::MAX, 100, &mut taken).await?;
    }
    Ok(taken)
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Incompressible enough for damage to matter.
fn numbers(count: u64) -> String {
    (0..count).map(|k| format!("{:x}\n", k.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Row {
    id: u32,
    name: String,
}

#[tokio::test]
async fn empty_files_have_no_records() {
    let directory = tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        fs::write(directory.path().join(name), content).unwrap();
        directory.path().join(name)
    };
    assert!(all(&FileSource::text(file("a.txt", b""))).await.unwrap().is_empty());
    assert!(all(&FileSource::text(file("a.txt.gz", &gz(b"")))).await.unwrap().is_empty());
    assert!(all(&FileSource::text(file("a.zst", &zstd::encode_all(&b""[..], 1).unwrap()))).await.unwrap().is_empty());
    assert!(all(&FileSource::csv::<Row>(file("a.csv", b""))).await.unwrap().is_empty());
    assert!(all(&FileSource::csv::<Row>(file("b.csv", b"id,name\r\n"))).await.unwrap().is_empty());
    assert!(all(&FileSource::csv::<Row>(file("c.csv", b"id,name"))).await.unwrap().is_empty());
    assert!(all(&FileSource::json_lines::<Row>(file("a.jsonl", b"\n\n"))).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_byte_order_mark_is_not_part_of_the_first_column() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("excel.csv");
    fs::write(&path, "\u{feff}id,name\r\n1,a\r\n2,b\r\n3,c\r\n").unwrap();
    let source = FileSource::csv::<Row>(&path);
    let split = source.discover().await.unwrap().remove(0);
    let ids = |taken: Taken<Row>| taken.records.iter().map(|r| r.id).collect::<Vec<_>>();
    assert_eq!(ids(read_all(&source, &split).await.unwrap()), [1, 2, 3]);
    assert_eq!(ids(read_in_pieces(&source, &split, &[1], 1).await.unwrap()), [1, 2, 3]);
}

#[tokio::test]
async fn a_line_keeps_a_carriage_return_that_is_not_its_end() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, "a\r\r\nb\rc\n\r\n\nd\r").unwrap();
    assert_eq!(all(&FileSource::text(&path)).await.unwrap().records, ["a\r", "b\rc", "", "", "d\r"]);
}

#[tokio::test]
async fn a_file_of_many_chunks_resumes_on_both_sides_of_every_chunks_end() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("many.gz");
    let content = numbers(3000);
    fs::write(&path, gz(content.as_bytes())).unwrap();
    let source = FileSource::text(&path);
    let split = source.discover().await.unwrap().remove(0);
    let expected: Vec<_> = content.lines().collect();
    assert_eq!(read_all(&source, &split).await.unwrap().records, expected);
    assert_eq!(read_in_pieces(&source, &split, &[511, 1, 1, 512], 300).await.unwrap().records, expected);
}

#[tokio::test]
async fn a_directory_gives_its_files_in_order_and_a_pattern_chooses_among_them() {
    let directory = tempdir().unwrap();
    for name in ["b.csv", "a.csv", "a.csv.gz", ".hidden.csv", "notes.txt"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    fs::create_dir(directory.path().join("sub.csv")).unwrap();
    let ids = async |path: &Path| {
        let splits = FileSource::text(path).discover().await.unwrap();
        splits.into_iter().map(|s| s.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(directory.path()).await, ["a.csv", "a.csv.gz", "b.csv", "notes.txt"]);
    assert_eq!(ids(&directory.path().join("*.csv")).await, ["a.csv", "b.csv"]);
    assert_eq!(ids(&directory.path().join("a*")).await, ["a.csv", "a.csv.gz"]);
    assert_eq!(ids(&directory.path().join("b*.csv")).await, ["b.csv"]);
    assert_eq!(ids(&directory.path().join("notes.txt")).await, ["notes.txt"]);
}

#[tokio::test]
async fn a_missing_file_directory_or_match_is_an_error_that_names_it_with_a_hint() {
    let directory = tempdir().unwrap();
    for (path, named) in [("gone.csv", "gone.csv"), ("*.csv", "*.csv"), ("gone/*.csv", "gone")] {
        let e = FileSource::text(directory.path().join(path)).discover().await.unwrap_err();
        assert_eq!(e.kind(), Kind::Config);
        assert!(e.message().contains(named) && e.hint_text().is_some(), "{e}");
    }
    let watched = FileSource::text(directory.path().join("*.csv")).watch(std::time::Duration::from_secs(1));
    assert_eq!(watched.discover().await.unwrap(), [], "a watched directory may be empty at first");
}

#[tokio::test]
async fn a_compressed_file_that_is_cut_short_or_damaged_is_an_error_never_an_early_end() {
    let directory = tempdir().unwrap();
    let content = numbers(4000);
    let whole = [("a.gz", gz(content.as_bytes())), ("a.zst", zstd::encode_all(content.as_bytes(), 1).unwrap())];
    for (name, whole) in whole {
        let path = directory.path().join(name);
        let mut outcomes = Vec::new();
        for cut in [1, 5, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            outcomes.push((format!("{name} cut at {cut}"), all(&FileSource::text(&path)).await));
        }
        // The gzip checksum is at the end; zstd's default frames have none, so damage there shows at its start.
        for at in if name == "a.gz" { vec![0, whole.len() / 2, whole.len() - 6] } else { vec![0, 1] } {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
            outcomes.push((format!("{name} flipped at {at}"), all(&FileSource::text(&path)).await));
        }
        for (what, outcome) in outcomes {
            let e = outcome.err().unwrap_or_else(|| panic!("{what} was read as if nothing was wrong"));
            assert_eq!(e.kind(), Kind::Data, "{what}: {e}");
            assert!(e.message().contains(name), "{what}: {e}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_shorter_than_what_was_read_from_it_is_refused() {
    let directory = tempdir().unwrap();
    for name in ["a.txt", "a.gz"] {
        let path = directory.path().join(name);
        let write = |content: &[u8]| fs::write(&path, if name == "a.gz" { gz(content) } else { content.to_vec() });
        write(b"one\ntwo\nthree\n").unwrap();
        let source = FileSource::text(&path);
        let split = source.discover().await.unwrap().remove(0);
        let mut taken = Taken::new();
        let (position, _) = read(&source, &split, None, 2, 2, &mut taken).await.unwrap();
        assert_eq!(position, json!({ "offset": 8, "line": 2 }), "the position is a format: it is in checkpoints");

        write(b"one\n").unwrap();
        let e = read(&source, &split, Some(position.clone()), 9, 9, &mut taken).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt);
        assert!(e.to_string().contains("8 have been read from it") && e.hint_text().is_some(), "{e}");

        fs::remove_file(&path).unwrap();
        let e = read(&source, &split, Some(position), 9, 9, &mut taken).await.unwrap_err();
        assert!(e.message().contains(name) && e.hint_text().is_some(), "{e}");
    }
}

#[tokio::test]
async fn a_position_that_is_none_is_refused() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, "one\n").unwrap();
    let source = FileSource::text(&path);
    let split = source.discover().await.unwrap().remove(0);
    for wrong in [json!(7), json!({ "offset": "1", "line": 0 }), json!({ "offset": -1, "line": 0 })] {
        let e = source.open(split.clone(), Some(wrong)).await.err().unwrap();
        assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    }
}

/// Panics at one of its values.
#[derive(Debug)]
struct Grumpy;
impl<'de> Deserialize<'de> for Grumpy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        assert!(u32::deserialize(deserializer)? != 13, "I do not like this number");
        Ok(Self)
    }
}

#[tokio::test]
async fn a_deserialize_that_panics_is_an_error_not_the_end_of_the_file() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    fs::write(&path, "11\n12\n13\n14\n").unwrap();
    let e = all(&FileSource::json_lines::<Grumpy>(&path)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::User);
    assert!(e.message().contains("panicked"), "{e}");
}

#[tokio::test]
async fn a_rate_slows_each_file_down_and_loses_nothing() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, numbers(60)).unwrap();
    let began = now();
    assert_eq!(all(&FileSource::text(&path).rate(200.0)).await.unwrap().records.len(), 60);
    // At most a tenth of a second's worth may come at once.
    let took = now().duration_since(began).as_secs_f64();
    assert!(took >= 0.19, "60 records at 200 a second took {took} s");
}
