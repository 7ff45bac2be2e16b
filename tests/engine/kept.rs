//! What a backend keeps for the next attempt of a run: it is for all who open the run's state, and then for nobody.
//!
//! The hard case is a savepoint behind the end: it is read when the job has ended, and is of the same run.
use crate::kit::{Gated, paused, settings};
use futures::future::BoxFuture;
use std::{
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};
use tidegate::{
    Collect, Job, Result, Stream,
    extend::state::backend::{OpenContext, RunId, StateBackend, StateBackendFactory},
};
use tidegate_core::testkit::entries::Entries;

/// What has become of what is kept, and on which thread.
type Noted = Arc<Mutex<Vec<(&'static str, ThreadId, RunId)>>>;

struct Noting(Noted);

impl Noting {
    fn note(&self, what: &'static str, run: RunId) {
        self.0.lock().unwrap().push((what, thread::current().id(), run));
    }
}

impl StateBackendFactory for Noting {
    fn name(&self) -> &'static str {
        Entries.name()
    }

    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        self.note("opened", context.run);
        Entries.open(context)
    }

    fn ended(&self, run: RunId) -> Option<Box<dyn Send>> {
        self.note("ended", run);
        Some(Box::new(Shelf(self.0.clone(), run)))
    }
}

struct Shelf(Noted, RunId);

impl Drop for Shelf {
    fn drop(&mut self) {
        Noting(self.0.clone()).note("dropped", self.1);
    }
}

#[test]
fn what_a_run_has_kept_is_there_for_its_savepoint_and_dropped_beside_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let noted = Noted::default();
    paused(async {
        let mut settings = settings(1);
        settings.state.backend = "entries".into();
        for n in 0..2 {
            let job = Job::with_backends("kept", settings.clone(), [Arc::new(Noting(noted.clone())) as _]);
            // It must not have ended before it is stopped: then there is nothing any more.
            let (source, gate) = Gated::new(100, 1);
            gate.open_to(50);
            let numbers = job.source("numbers", source);
            numbers.key_by(|n| n % 10).fold("count", 0u64, |count, _| *count += 1).sink("out", Collect::new());
            let handle = job.start().unwrap();
            handle
                .stop_with_savepoint(&folder.path().join(format!("savepoint-{n}")).display().to_string())
                .await
                .unwrap();
        }
    });
    let noted = noted.lock().unwrap();
    let of: Vec<_> = noted.iter().map(|(what, ..)| *what).collect();
    assert_eq!(of, ["opened", "opened", "ended", "dropped"].repeat(2), "by the job, and for its savepoint");
    for run in noted.chunks(4) {
        assert!(run.iter().all(|(.., of)| *of == run[0].2), "of one run: {run:?}");
        assert_ne!(run[3].1, thread::current().id(), "the engine waits for it");
    }
    assert_ne!(noted[0].2, noted[4].2, "each run is another");
}
