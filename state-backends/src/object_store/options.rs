//! How trees are run. Without a log: a snapshot is what makes writes durable. Looked at often, since a snapshot has to
//! wait for the next look: with the defaults that is seconds, with these a tenth. A store that is down is asked again
//! for half a minute, and then the attempt fails.
use slatedb::{
    Settings,
    config::{
        CompactionWorkerOptions, CompactorOptions, GarbageCollectorDirectoryOptions, GarbageCollectorOptions,
        GarbageCollectorScheduleOptions, ObjectStoreCacheOptions,
    },
};
use std::time::Duration;

use super::place::Place;

const MANIFEST_POLL: Duration = Duration::from_millis(200);
const COMPACTION_POLL: Duration = Duration::from_millis(100);
/// Up to a second lies between two.
const RETRIES: u32 = 30;
const UNFLUSHED_MAX: usize = 64 << 20;
const L0_SIZE: usize = 16 << 20;
/// Small files in a tree: a union of many begins with all of theirs.
const L0_MAX: usize = 512;
const L0_MAX_PER_KEY: usize = 32;
const COLLECT_EVERY: Duration = Duration::from_secs(30);
/// What is younger may have been written a moment ago, and not been named yet.
const MIN_AGE: Duration = Duration::from_secs(300);

pub(super) fn settings(place: &Place) -> Settings {
    let object_store_max_retries = Some(RETRIES);
    let worker = CompactionWorkerOptions {
        max_concurrent_compactions: 1,
        compactions_poll_interval: COMPACTION_POLL,
        max_sst_size: 64 << 20,
        object_store_max_retries,
        ..CompactionWorkerOptions::default()
    };
    let compactor = CompactorOptions {
        poll_interval: COMPACTION_POLL,
        commit_compacted_interval: COMPACTION_POLL,
        max_concurrent_compactions: 1,
        worker: Some(worker),
        object_store_max_retries,
        ..CompactorOptions::default()
    };
    let cache = ObjectStoreCacheOptions {
        root_folder: (!place.directory.is_empty()).then(|| place.directory.clone().into()),
        max_cache_size_bytes: Some(place.disk),
        ..ObjectStoreCacheOptions::default()
    };
    Settings {
        flush_interval: None,
        wal_enabled: false,
        manifest_poll_interval: MANIFEST_POLL,
        l0_sst_size_bytes: L0_SIZE,
        l0_max_ssts: L0_MAX,
        l0_max_ssts_per_key: L0_MAX_PER_KEY,
        max_unflushed_bytes: UNFLUSHED_MAX,
        compactor_options: Some(compactor),
        object_store_cache_options: cache,
        garbage_collector_options: Some(GarbageCollectorOptions {
            compacted_options: Some(every(COLLECT_EVERY, MIN_AGE)),
            detach_options: Some(GarbageCollectorScheduleOptions { interval: Some(COLLECT_EVERY) }),
            ..collector(place, every(COLLECT_EVERY, MIN_AGE))
        }),
        object_store_max_retries,
        ..Settings::default()
    }
}

/// For a tree that nobody writes to who counts: its manifests, at once. Its files are ours to judge.
pub(super) fn of_the_dead(place: &Place) -> GarbageCollectorOptions {
    let detach_options = Some(GarbageCollectorScheduleOptions::default());
    GarbageCollectorOptions { detach_options, ..collector(place, every(COLLECT_EVERY, Duration::ZERO)) }
}

fn every(interval: Duration, min_age: Duration) -> GarbageCollectorDirectoryOptions {
    GarbageCollectorDirectoryOptions { interval: Some(interval), min_age, dry_run: false }
}

fn collector(place: &Place, directory: GarbageCollectorDirectoryOptions) -> GarbageCollectorOptions {
    GarbageCollectorOptions {
        manifest_options: Some(directory),
        compactions_options: Some(directory),
        compacted_options: None,
        detach_options: None,
        wal_options: None,
        wal_fence_options: None,
        // They take a conditional update, which directories and HDFS do not have.
        boundary_files_enabled: place.has_updates,
        object_store_max_retries: Some(RETRIES),
        ..GarbageCollectorOptions::default()
    }
}
