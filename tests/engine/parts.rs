//! What tests of operators share: every kind of backend, and a job whose input comes in three parts, each with a start of
//! its own at another parallelism.
use crate::{
    kit::{Gate, finished, run, settings, until},
    store::Store,
};
use tidegate::{ByteSize, Collect, Job, Settings};

/// Backends, and how much their tables hold.
pub const BACKENDS: [(&str, u64); 3] = [("memory", 0), ("entries", 3_000), ("entries", 1_000_000)];

pub fn over(backend: (&str, u64), parallelism: u32) -> Settings {
    let mut settings = settings(parallelism);
    (settings.state.backend, settings.state.cache) = (backend.0.into(), ByteSize(backend.1));
    settings
}

/// Runs the job that `make` makes of `source`, which has `count` records: a third of them, then a checkpoint and a restore,
/// and so on. `each` is given the output of all three, over every backend, in two orders of parallelism.
pub fn in_three_parts<R: Clone + Send + Sync + 'static>(
    source: &str,
    count: u64,
    make: impl Fn(&Store, Settings) -> (Job, Gate, Collect<R>),
    mut each: impl FnMut(Vec<R>),
) {
    run(async {
        for backend in BACKENDS {
            for parallelism in [[1, 3, 2], [3, 1, 1]] {
                let store = Store::new();
                let mut found = Vec::new();
                for (part, parallelism) in (1..).zip(parallelism) {
                    let (job, gate, some) = make(&store, over(backend, parallelism));
                    gate.open_to(if part == 3 { count } else { count / 3 * part });
                    let handle = job.start().unwrap();
                    if part == 3 {
                        finished(handle).await;
                    } else {
                        let has_read = || handle.metrics().operator(source).is_some_and(|o| o.records_out >= count / 3);
                        until(has_read).await;
                        handle.checkpoint_now().await.unwrap();
                        handle.cancel().await.unwrap();
                    }
                    found.extend(some.take());
                }
                each(found);
            }
        }
    });
}
