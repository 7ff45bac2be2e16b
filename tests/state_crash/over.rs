//! The proofs that every backend has to pass, given its job file.
//!
//! The hard case is to prove something: an operator has about 1200 keys, and [`CACHE`] has room for some dozens, so
//! that almost every record reads the backend and almost every batch writes it.
use std::{collections::BTreeSet, path::Path};
use tidegate::extend::checkpoint::{ids::JobId, paths, store::CheckpointStore};

use crate::{
    child::{Case, files},
    killed::killed,
};

/// A line of `[state]` for those that cache.
pub const CACHE: &str = "cache = \"4KB\"";
/// Kills that have to hit a running job.
const KILLS: u32 = 25;

/// Runs the job over a backend, killed at random: at one parallelism, or at another one with each start.
pub fn exact_after_kills(parallelism: &[u32], job_file: impl Fn(&Path) -> String) {
    let mut case = Case::new(41, parallelism[0], 4_000, 900).with_job_file(job_file);
    let killed = killed(&mut case, KILLS + 10, |case, start| {
        case.at_parallelism(parallelism[start as usize % parallelism.len()]);
    });
    assert!(killed >= KILLS, "only {killed} kills hit a running job: give it more input");
}

/// Runs it with thirty restarts: what is left of them is the retained checkpoints, and nothing that none of those refers
/// to. And it is about as much as without restarts: at most thrice. `left` is asked when a job has ended; what it counts
/// is the backend's: bytes, files, keys.
pub fn restarts_leave_nothing(job_file: impl Fn(&Path) -> String, left: impl Fn(&Case) -> u64) {
    // At the same rate, and so with about as many checkpoints: each leaves its files, until they are made into one.
    let case = || Case::new(43, 2, 3_000, 900).with_job_file(&job_file);
    let undisturbed = case();
    assert!(undisturbed.start(None).ended().success(), "{}", undisturbed.errors());
    undisturbed.assert_exact();
    let mut restarted = case();
    killed(&mut restarted, 30, |_, _| {});
    for case in [&undisturbed, &restarted] {
        assert_eq!(kept(case), referred(case), "beside what the retained checkpoints refer to");
    }
    let (once, often) = (left(&undisturbed), left(&restarted));
    println!("left by an undisturbed run {once}, after thirty restarts {often}");
    assert!(once > 0 && often <= once * 3, "{once} is left by an undisturbed run, and {often} after thirty restarts");
}

/// All that is in the checkpoint store, but for the claim of the last attempt.
fn kept(case: &Case) -> BTreeSet<String> {
    let store = case.path().join("checkpoints");
    let below = |path: &String| Path::new(path).strip_prefix(&store).unwrap().display().to_string();
    let all: BTreeSet<_> = files(&store).iter().map(below).collect();
    let (claims, kept): (BTreeSet<_>, BTreeSet<_>) =
        all.into_iter().partition(|path| path.starts_with("crash/attempts/"));
    // What a killed process has left half-written of the very claim that the last one made is the next one's to sweep.
    let claims: BTreeSet<_> = claims.iter().map(|claim| claim.split('#').next()).collect();
    assert_eq!(claims.len(), 1, "{claims:?}");
    kept
}

/// The checkpoints that are retained, their manifests and the objects of those that count. Of an epoch that was made
/// again after a kill there are two manifests; they go when the epoch does.
fn referred(case: &Case) -> BTreeSet<String> {
    let job = JobId::new("crash").unwrap();
    let store = CheckpointStore::open(&case.path().join("checkpoints").display().to_string(), job).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (commits, manifests) = (store.commits().await.unwrap(), store.manifests().await.unwrap());
        assert_eq!(commits.len(), 2, "as many as the job is to retain");
        let of_kept = manifests.into_iter().filter(|(epoch, ..)| commits.contains(epoch));
        let mut referred: BTreeSet<_> = of_kept.map(|(_, _, path)| path).collect();
        for epoch in &commits {
            let path = store.read_commit(*epoch).await.unwrap().manifest;
            let manifest = store.read_manifest(&path).await.unwrap();
            referred.extend(manifest.objects().map(|object| object.path.clone()));
            referred.extend([paths::commit(store.job(), *epoch), path]);
        }
        referred
    })
}

/// Bytes of the objects in the checkpoint store.
pub fn stored(case: &Case) -> u64 {
    let files = files(&case.path().join("checkpoints/crash/state"));
    files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum()
}
