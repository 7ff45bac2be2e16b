//! Two jobs in one process, in one checkpoint store: neither sees the other, even while it fails.
use crate::{
    kit::{Blast, end, finished, run, settings},
    pipeline::{COUNT, pipeline},
};
use tidegate::JobState;

fn shared(dir: &std::path::Path, parallelism: u32) -> tidegate::Settings {
    let mut settings = settings(parallelism);
    settings.checkpoint.store = dir.display().to_string();
    settings
}

#[test]
fn both_run_at_once_over_one_store_and_both_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let (a, b) = (pipeline("a", shared(dir.path(), 1)), pipeline("b", shared(dir.path(), 2)));
        let (running_a, running_b) = (a.job.start().unwrap(), b.job.start().unwrap());
        for part in 1..=3 {
            a.gate.open_to(COUNT / 4 * part);
            b.gate.open_to(COUNT / 4 * part);
            let (x, y) = tokio::join!(running_a.checkpoint_now(), running_b.checkpoint_now());
            assert_eq!((x.unwrap(), y.unwrap()), (part, part), "each counts its own checkpoints");
        }
        a.bomb.arm("fold", Blast::Panic, 1);
        a.gate.open();
        b.gate.open();
        let (status_a, status_b) = tokio::join!(finished(running_a), finished(running_b));
        assert_eq!((status_a.restarts, status_b.restarts), (1, 0));
        a.assert_exact();
        b.assert_exact();
    });
}

#[test]
fn one_that_fails_for_good_leaves_the_other_alone() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let (a, b) = (pipeline("a", shared(dir.path(), 2)), pipeline("b", shared(dir.path(), 2)));
        let (running_a, running_b) = (a.job.start().unwrap(), b.job.start().unwrap());
        b.gate.open_to(COUNT / 2);
        running_b.checkpoint_now().await.unwrap();
        a.bomb.arm("map", Blast::Panic, u32::MAX);
        a.gate.open();
        let (result, status) = end(running_a).await;
        assert!(result.is_err() && status.state == JobState::Failed);
        b.gate.open();
        assert_eq!(finished(running_b).await.restarts, 0);
        b.assert_exact();
        assert!(a.totals.is_empty());
    });
}
