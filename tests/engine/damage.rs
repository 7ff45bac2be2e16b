//! Damaged checkpoints: every file, bits flipped, cut short, emptied, deleted, exchanged.
//!
//! What a start needs is refused with a typed error that names the file. The hard case is what it does not
//! need (older checkpoints, claims, dead bytes): there the job may go on, but then its output must be exact,
//! so each damage is followed by a whole run, judged together with what was committed before.
use crate::{
    kit::{assert_same, end, run, settings},
    pipeline::{COUNT, expected, pipeline},
    store::Store,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tidegate::{
    Error, Kind,
    extend::checkpoint::{envelope, manifest::Manifest},
};

type Contents = BTreeMap<String, Bytes>;

/// A job that was stopped in the middle: its store, and what it had published.
struct Stopped {
    contents: Contents,
    totals: Vec<(u64, u64, u64)>,
    windows: Vec<(u64, i64, u64)>,
}

const PARALLELISM: u32 = 2;

async fn stopped() -> Stopped {
    let store = Store::new();
    let mut p = pipeline("damage", settings(PARALLELISM));
    p.job.checkpoint_store(store.checkpoints("damage"));
    let handle = p.job.start().unwrap();
    for part in 1..=4 {
        p.gate.open_to(COUNT / 8 * part);
        handle.checkpoint_now().await.unwrap();
    }
    handle.stop().await.unwrap();
    Stopped { contents: store.contents().await, totals: p.totals.take(), windows: p.windows.take() }
}

impl Stopped {
    /// Goes on over other contents: an error, or the exact rest.
    async fn go_on(&self, contents: &Contents) -> Result<(), Error> {
        self.go_on_as("damage", contents).await
    }

    async fn go_on_as(&self, job: &str, contents: &Contents) -> Result<(), Error> {
        let store = Store::with(contents).await;
        let mut p = pipeline(job, settings(PARALLELISM));
        p.job.checkpoint_store(store.checkpoints(job));
        p.gate.open();
        end(p.job.start().unwrap()).await.0?;
        let (totals, windows) = expected();
        assert_same([&self.totals[..], &p.totals.take()].concat(), totals);
        assert_same([&self.windows[..], &p.windows.take()].concat(), windows);
        Ok(())
    }

    fn newest(&self, folder: &str) -> String {
        self.contents.keys().rfind(|path| path.contains(folder)).unwrap().clone()
    }

    /// The newest commit record, its manifest, and the state objects that this refers to.
    fn needed(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let manifest = self.newest("/manifests/");
        let state = Manifest::decode(&self.contents[&manifest]).unwrap().objects().map(|o| o.path.clone()).collect();
        (BTreeSet::from([self.newest("/commits/"), manifest]), state)
    }

    fn with(&self, path: &str, bytes: Option<Bytes>) -> Contents {
        let mut contents = self.contents.clone();
        match bytes {
            Some(bytes) => contents.insert(path.to_owned(), bytes),
            None => contents.remove(path),
        };
        contents
    }
}

#[track_caller]
fn assert_names(outcome: Result<(), Error>, path: &str, damage: &str) {
    let error = outcome.expect_err(&format!("{damage} of {path} was not noticed"));
    assert_eq!(error.kind(), Kind::Corrupt, "{damage} of {path}: {error}");
    assert!(error.to_string().contains(path), "{damage} of {path} is told without the name: {error}");
    assert!(error.hint_text().is_some(), "{damage} of {path}: no hint: {error}");
}

/// About so many places, evenly, and always both ends.
fn places(length: usize, about: usize) -> impl Iterator<Item = usize> {
    let step = (length / about).max(1);
    (0..length).step_by(step).chain(length.checked_sub(1))
}

/// What was not noticed, and must be: `0` of everything that is read.
async fn damaged_everywhere(damages: impl Fn(&Bytes) -> Vec<(String, Bytes)>) {
    let stopped = stopped().await;
    stopped.go_on(&stopped.contents).await.unwrap();
    let (records, state) = stopped.needed();
    let (mut noticed, mut harmless) = (0, 0);
    for (path, whole) in &stopped.contents {
        for (damage, bytes) in damages(whole) {
            let outcome = stopped.go_on(&stopped.with(path, Some(bytes))).await;
            if records.contains(path) || outcome.is_err() {
                assert_names(outcome, path, &damage);
                noticed += 1;
            } else if state.contains(path) {
                harmless += 1;
            }
        }
    }
    println!("{noticed} noticed, {harmless} in bytes of state that are not live");
    assert!(noticed > 100 && harmless * 2 < noticed, "{noticed} noticed, {harmless} harmless: is the state read?");
}

#[test]
fn a_flipped_bit_in_any_file_is_noticed_or_harmless() {
    run(damaged_everywhere(|whole| {
        let flip = |at: usize| {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << (at % 8);
            (format!("a flipped bit at {at}"), bytes.into())
        };
        places(whole.len(), 60).map(flip).collect()
    }));
}

#[test]
fn truncation_of_any_file_is_noticed_or_harmless() {
    run(damaged_everywhere(|whole| {
        let cut = |at: usize| (format!("truncation to {at} bytes"), whole.slice(..at));
        places(whole.len(), 20).map(cut).collect()
    }));
}

#[test]
fn a_missing_file_that_is_needed_is_named() {
    run(async {
        let stopped = stopped().await;
        let (records, state) = stopped.needed();
        let commit = stopped.newest("/commits/");
        let needed: Vec<_> = records.iter().chain(&state).filter(|p| **p != commit).collect();
        assert!(needed.len() > PARALLELISM as usize * 2, "{needed:?}");
        for path in needed {
            assert_names(stopped.go_on(&stopped.with(path, None)).await, path, "loss");
        }
        for path in stopped.contents.keys().filter(|p| !records.contains(*p) && !state.contains(*p)) {
            stopped.go_on(&stopped.with(path, None)).await.unwrap();
        }
    });
}

#[test]
fn all_commit_records_lost_is_no_fresh_start() {
    run(async {
        let stopped = stopped().await;
        let mut contents = stopped.contents.clone();
        contents.retain(|path, _| !path.contains("/commits/"));
        let error = stopped.go_on(&contents).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("checkpoint.allow-fresh-start"), "{error}");
    });
}

#[test]
fn exchanged_files_are_noticed() {
    run(async {
        let stopped = stopped().await;
        let of = |folder: &str| -> Vec<String> {
            stopped.contents.keys().filter(|p| p.contains(folder)).rev().take(2).cloned().collect()
        };
        for folder in ["/manifests/", "/commits/", "/state/per-number/", "/state/per-window/"] {
            let [newest, older] = <[String; 2]>::try_from(of(folder)).unwrap();
            let contents = stopped.with(&newest, Some(stopped.contents[&older].clone()));
            assert_names(stopped.go_on(&contents).await, &newest, "exchange");
        }
    });
}

#[test]
fn a_checkpoint_of_another_job_is_refused() {
    run(async {
        let stopped = stopped().await;
        let renamed = |(path, bytes): (&String, &Bytes)| (path.replacen("damage/", "other/", 1), bytes.clone());
        let mut contents: Contents = stopped.contents.iter().map(renamed).collect();
        // The records speak of the files by their old names: those are there as well.
        contents.extend(stopped.contents.clone());
        let error = stopped.go_on_as("other", &contents).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        let text = error.to_string();
        assert!(text.contains("job damage") && text.contains("job other") && error.hint_text().is_some(), "{text}");
    });
}

#[test]
fn a_newer_format_is_refused_and_says_so() {
    run(async {
        let stopped = stopped().await;
        for (what, path) in [("manifest", stopped.newest("/manifests/")), ("commit", stopped.newest("/commits/"))] {
            let body = stopped.contents[&path].split(|b| *b == b'\n').nth(1).unwrap();
            let value: serde_json::Value = serde_json::from_slice(body).unwrap();
            let newer = envelope::encode(what, 2, &value).unwrap();
            let error = stopped.go_on(&stopped.with(&path, Some(newer.into()))).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt);
            let text = error.to_string();
            assert!(text.contains(&path) && text.contains("format 2") && text.contains("up to 1"), "{text}");
            assert!(error.hint_text().unwrap().contains("newer"), "{text}");
        }
    });
}
