//! What all databases of the process may use together, and the options that keep them to it.
//!
//! `state.rocksdb.memory` is shared out once: a quarter for objects on their way to and from the checkpoint store, the
//! rest a cache of blocks, in which the indexes and filters of all files are kept too, and against which the memtables
//! are counted. They get a third of it; when they have it, the one that is written to is flushed.
//!
//! The hard case is a writer that is faster than the disk: memtables that wait to be flushed still take memory. A
//! database stops its writer when it has [`BUFFERS`] of them, each at most a sixteenth of the whole; that is why nobody
//! writes on a thread of the engine's. Writers are not stopped because *other* databases have memtables: those may be
//! idle, and would have to be waited for until the next checkpoint, which could not come.
//!
//! What the process's allocator adds is not in it. glibc has a heap for each of many threads and gives little of them
//! back: several times the budget, unless `MALLOC_ARENA_MAX=1` is in the environment or the program brings jemalloc.
use rust_rocksdb::{
    BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, LogLevel, Options, UniversalCompactOptions,
    WriteBufferManager,
};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Semaphore;

use tidegate_checkpoint::error::{Error, Result};

/// Bytes of a piece, of which a file is stored as many as it needs.
pub(super) const PIECE: u64 = 4 << 20;
/// Less is no use.
const MEMORY_MIN: u64 = 16_000_000;
/// Memtables of a database.
const BUFFERS: i32 = 3;
/// Of the largest memtable: to write one is what a cut takes, and what is written behind a cut waits for.
const BUFFER_MAX: u64 = 16 << 20;
/// Runs of files that a read may have to look through, before some are made into one.
const RUNS: i32 = 4;
/// Beyond this, bytes of what has been overwritten since are rewritten, in percent of the oldest run.
const STALE_MAX: i32 = 50;

/// See the module.
pub(super) struct Budget {
    memory: u64,
    cache: Cache,
    buffers: WriteBufferManager,
    /// One a piece that is in memory.
    pub(super) transfers: Semaphore,
}

impl Budget {
    /// That of the process. It is made for the first database and lasts until the last is closed; of jobs that say
    /// something else, the first is listened to.
    pub(super) fn shared(memory: u64) -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Budget>> = Mutex::new(Weak::new());
        if memory < MEMORY_MIN {
            let least = bytesize(MEMORY_MIN);
            return Err(Error::config(format!(
                "state.rocksdb.memory is {}, and {least} is the least",
                bytesize(memory)
            ))
            .hint("it is for all databases of the process together: give them some hundred megabytes"));
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = shared.upgrade() {
            return Ok(budget);
        }
        let cached = memory as usize / 4 * 3;
        let cache = Cache::new_lru_cache(cached);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(cached / 3, false, cache.clone());
        let transfers = Semaphore::new((memory / 4 / PIECE).clamp(1, 32) as usize);
        let budget = Arc::new(Self { memory, cache, buffers, transfers });
        *shared = Arc::downgrade(&budget);
        Ok(budget)
    }

    /// How every database is opened.
    pub(super) fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        // Of a hundred keys that a file does not have, one is looked for in it.
        table.set_bloom_filter(10.0, false);
        table.set_optimize_filters_for_memory(true);
        let buffer = (self.memory / 16).min(BUFFER_MAX);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_manager(&self.buffers);
        options.set_write_buffer_size(buffer as usize);
        options.set_max_write_buffer_number(BUFFERS);
        options.set_target_file_size_base(buffer * 2);
        options.set_compression_type(DBCompressionType::Lz4);
        // Runs of about one size are made into one. By levels, the changes of a few checkpoints would rewrite all of a
        // state, and all of it would have to be stored again.
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_level_zero_file_num_compaction_trigger(RUNS);
        let mut compaction = UniversalCompactOptions::default();
        compaction.set_max_size_amplification_percent(STALE_MAX);
        options.set_universal_compaction_options(&compaction);
        // Of each run that is read.
        options.set_compaction_readahead_size((self.memory as usize / 256).min(2 << 20));
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        options.set_max_background_jobs(threads as i32);
        // It is stored with every snapshot.
        options.set_max_manifest_file_size(64 << 10);
        // Nobody opens it again.
        options.set_avoid_flush_during_shutdown(true);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(1);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options
    }
}

fn bytesize(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}
