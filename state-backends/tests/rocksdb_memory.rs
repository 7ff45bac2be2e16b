//! All databases of a process stay within `state.rocksdb.memory`, however large their state: asked of the operating
//! system, so this test has a process of its own.
//!
//! And one with a single heap. glibc makes one for each thread that allocates, up to eight a core, and each keeps what
//! was freed in it: what is measured then is glibc (237 MB on two cores, for a budget of 64), and not what is asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
#[path = "rocksdb/kit.rs"]
#[allow(dead_code, reason = "what snapshots need")]
mod kit;

use kit::{Kit, write, wrong};
use tidegate_checkpoint::ids::Epoch;
use tidegate_core::testkit::block_on;

const BUDGET: u64 = 64_000_000;
/// Of about 120 bytes each.
const KEYS: u64 = 750_000;

/// Set in the process that is measured.
const MEASURED: &str = "TIDEGATE_TEST_MEMORY";
const TEST: &str = "memory_stays_within_the_budget_for_a_state_several_times_as_large";

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn memory_stays_within_the_budget_for_a_state_several_times_as_large() {
    if !cfg!(target_os = "linux") {
        return;
    }
    if std::env::var_os(MEASURED).is_none() {
        let mut measured = std::process::Command::new(std::env::current_exe().unwrap());
        measured.args(["--exact", TEST, "--nocapture"]).env(MEASURED, "1").env("MALLOC_ARENA_MAX", "1");
        assert!(measured.status().unwrap().success());
        return;
    }
    block_on(async {
        let mut kit = Kit::new();
        kit.settings.rocksdb.memory = tidegate_core::ByteSize::b(BUDGET);
        // On disk, or the store itself would be in memory.
        let store = format!("{}/checkpoints", kit.path().display());
        let job = tidegate_checkpoint::ids::JobId::new("job").unwrap();
        kit.store = std::sync::Arc::new(tidegate_checkpoint::store::CheckpointStore::open(&store, job).unwrap());
        let before = resident();
        let mut most = before;
        let mut parts = Vec::new();
        for subtask in 0..4 {
            parts.push(kit.open(1, (subtask, 4), &[]).await.unwrap());
        }
        let mut stored = 0;
        for round in 0..3 {
            for first in (0..KEYS).step_by(50_000) {
                for part in &mut parts {
                    write(part.as_mut(), (first..first + 50_000).filter(|n| n % 4 == round || round == 0), round).await;
                    wrong(part.as_mut(), first..first + 5_000, 0).await;
                    most = most.max(resident());
                }
            }
            stored = 0;
            for part in &mut parts {
                let handle = part.seal(Epoch(round + 1)).await.unwrap();
                stored += handle.objects.iter().map(|o| o.bytes).sum::<u64>();
                most = most.max(resident());
            }
        }
        let grown = most - before;
        println!("{} MB of state, {} MB of memory", stored / 1_000_000, grown / 1_000_000);
        assert!(stored > BUDGET * 5, "{stored} bytes of state are too few");
        // And what the test itself takes.
        assert!(grown < BUDGET * 5 / 4 + 8_000_000, "{grown} bytes of memory, of {BUDGET}");
    });
}
