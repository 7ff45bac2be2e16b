//! The formats that checkpoints are written in, pinned byte by byte in `data`: what an earlier tidegate has
//! written must be read for ever.
//!
//! Each test goes both ways. What is written today has to be the pinned bytes, so that no change of a format
//! goes unnoticed; what is pinned has to be read, so that no change of the reader leaves old checkpoints
//! behind. Whole checkpoints are pinned too, and have to be gone on from.
//!
//! A format that is changed on purpose gets a new version number, and code that reads both; the pinned files
//! of the old one stay, under another name, as what has to be read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
mod checkpoint;
mod evolved;
mod job;
mod objects;
mod state;

use std::{env, fs, path::PathBuf};

/// Set, the pinned files are written anew.
const WRITE: &str = "TIDEGATE_TEST_WRITE_GOLDEN";
const HOW: &str = "Checkpoints of before this change can perhaps not be read any more. If it is meant to be: give the format \
     a new version, go on reading the old one, keep its golden file as a test of that, and write the new one with\n  \
     TIDEGATE_TEST_WRITE_GOLDEN=1 cargo test -p tidegate --test golden";

fn data(name: &str) -> PathBuf {
    PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/golden/data").join(name)
}

fn is_written_anew() -> bool {
    env::var_os(WRITE).is_some()
}

/// The pinned bytes, which `written` has to be.
#[track_caller]
fn pinned(name: &str, written: &[u8]) -> Vec<u8> {
    let path = data(name);
    if is_written_anew() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, written).unwrap();
        println!("wrote {}", path.display());
    }
    let pinned = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}. {HOW}", path.display()));
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert!(
        pinned == written,
        "{name} is written differently.\n  pinned {}\n  now    {}\n{HOW}",
        show(&pinned),
        show(written)
    );
    pinned
}
