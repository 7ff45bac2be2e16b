//! Whole checkpoints, as an earlier tidegate has left them when it was killed: gone on from, at any
//! parallelism, to the right answer.
//!
//! The hard case is what a checkpoint promises to others: its output is committed and not yet published, and
//! a part of its state lies in objects of the checkpoint before.
use std::{fs, path::Path, time::Duration};
use tidegate::{
    Codec,
    Codec::{Compact, Named},
    RestartStrategy, Settings,
    extend::{checkpoint::manifest::Manifest, env::sleep},
};

use crate::{
    HOW, data, is_written_anew,
    job::{expected, found, job, write_input},
};

fn settings(codec: Codec, parallelism: u32) -> Settings {
    let mut settings = Settings { parallelism, ..Settings::default() };
    settings.state.codec = codec;
    settings.checkpoint.interval = Duration::ZERO;
    settings.checkpoint.retained = 1;
    settings.restart.strategy = RestartStrategy::None;
    settings
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs") })
}

/// Runs the job to its middle and leaves it as a kill would between commit and publishing.
fn write(dir: &Path, codec: Codec) {
    let _ = fs::remove_dir_all(dir);
    write_input(&dir.join("in"));
    block_on(async {
        let handle = job(dir, settings(codec, 2), 60.0).start().unwrap();
        let read = || handle.metrics().operator("rows").map_or(0, |o| o.records_out);
        for limit in [30, 64] {
            while read() < limit {
                sleep(Duration::from_millis(1)).await;
            }
            handle.checkpoint_now().await.unwrap();
        }
        handle.cancel().await.unwrap();
    });
    for (sink, committables) in newest(dir).sinks {
        let out = dir.join("out").join(sink.as_str());
        for committable in committables {
            let place = |what: &str| out.join(committable[what].as_str().unwrap());
            fs::create_dir_all(place("staged").parent().unwrap()).unwrap();
            fs::rename(place("part"), place("staged")).unwrap();
        }
    }
    println!("wrote {}", dir.display());
}

fn newest(dir: &Path) -> Manifest {
    let manifests = fs::read_dir(dir.join("checkpoints/golden/manifests")).unwrap().map(|e| e.unwrap().path());
    Manifest::decode(&fs::read(manifests.max().unwrap()).unwrap()).unwrap_or_else(|e| panic!("{e}. {HOW}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}. {HOW}", from.display())) {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// What is pinned is a checkpoint from the middle, with all that there can be in one.
fn assert_rich(dir: &Path) {
    let manifest = newest(dir);
    let id = |name: &str| tidegate::extend::checkpoint::ids::OperatorId::new(name).unwrap();
    let line = manifest.sources[&id("rows")].values().next().unwrap().to_string();
    assert!(!manifest.last && manifest.parallelism == 2 && line.contains("offset"), "{line}");
    assert!(manifest.objects().any(|o| !o.path.contains(&format!("-{:012}-", manifest.epoch.0))), "no older state");
    for operator in ["balance", "per-ten-seconds"] {
        assert_eq!(manifest.states[&id(operator)].len(), 2);
    }
    let published = found(dir);
    for sink in ["balances", "late"] {
        assert!(!manifest.sinks[&id(sink)].is_empty(), "{sink} has nothing to publish");
        assert!(!published[sink].is_empty() && published[sink].len() < expected()[sink].len(), "{sink}");
    }
}

fn is_gone_on_from(name: &str, codec: Codec) {
    let golden = data(name);
    if is_written_anew() {
        write(&golden, codec);
    }
    assert_rich(&golden);
    let epoch = newest(&golden).epoch.0;
    // What is stored says itself how it is to be read: today's codec may be the other one.
    for (parallelism, today) in [(1, Named), (1, Compact), (2, Named), (3, Compact)] {
        let dir = tempfile::tempdir().unwrap();
        copy(&golden, dir.path());
        let status = block_on(async {
            let handle = job(dir.path(), settings(today, parallelism), 0.0).start().unwrap();
            let status = handle.watch();
            handle.wait().await.unwrap_or_else(|e| panic!("{e}. {HOW}"));
            status.borrow().clone()
        });
        assert_eq!(status.restored, Some(epoch));
        assert_eq!(found(dir.path()), expected(), "at parallelism {parallelism}");
    }
}

#[test]
fn an_old_checkpoint_with_names_is_gone_on_from() {
    is_gone_on_from("checkpoint-named", Named);
}

#[test]
fn an_old_compact_checkpoint_is_gone_on_from() {
    is_gone_on_from("checkpoint-compact", Compact);
}
