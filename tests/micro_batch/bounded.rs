//! Jobs that end by themselves: the end of the input is the last watermark, the last checkpoint is committed, and another
//! start has nothing to do.
use crate::{
    kit::{assert_same, finished, run, settings, until},
    store::Store,
};
use std::{fs, time::Duration};
use tidegate::{
    Collect, FileSource, Generator, Job, JobState, JobTrigger, Settings, Stream, Tumbling, Watermarks,
    extend::checkpoint::manifest::Manifest,
};

const COUNT: u64 = 1_000;

/// In a window of ten, its start and how many there were.
type Counts = Collect<(i64, u64)>;

/// Windows that only the end can close: the watermark's bound is longer than the input.
fn counting(store: &Store, settings: Settings, source: impl FnOnce(&Job, Watermarks, &Counts)) -> (Job, Counts) {
    let mut job = Job::new("counting", settings);
    job.checkpoint_store(store.checkpoints("counting"));
    let counts = Collect::new();
    source(&job, Watermarks::bounded(Duration::from_secs(3_600)), &counts);
    (job, counts)
}

fn windows(times: impl Stream<Item = u64>, counts: &Counts) {
    times
        .key_by(|n| n % 7)
        .window("tens", Tumbling::of(Duration::from_millis(10)))
        .count()
        .map(|w| (w.window.start, w.value))
        .sink("counts", counts.clone());
}

fn generated(job: &Job, watermarks: Watermarks, counts: &Counts) {
    let source = Generator::new(COUNT, |n| n).splits(3);
    windows(job.source("numbers", source).event_time(|n| *n as i64, watermarks), counts);
}

fn complete(found: Vec<(i64, u64)>) {
    let expected = (0..COUNT as i64)
        .step_by(10)
        .flat_map(|start| (0..7).map(move |key| (start, (start..start + 10).filter(|n| n % 7 == key).count() as u64)));
    assert_same(found, expected.filter(|(_, count)| *count > 0));
}

async fn newest(store: &Store) -> Manifest {
    let contents = store.contents().await;
    let epoch = contents.keys().filter(|path| path.contains("/commits/")).max().expect("nothing was committed");
    let epoch = epoch.rsplit('/').next().unwrap().strip_suffix(".commit").unwrap();
    let manifest = contents.keys().find(|path| path.contains(&format!("/manifests/{epoch}"))).unwrap();
    Manifest::decode(&contents[manifest]).unwrap()
}

#[test]
fn the_end_of_the_input_closes_every_window_and_its_checkpoint_is_committed() {
    run(async {
        for trigger in [
            JobTrigger::Continuous,
            JobTrigger::AvailableNow,
            JobTrigger::Once,
            JobTrigger::Every(Duration::from_millis(20)),
        ] {
            for (parallelism, interval) in [(1, 0), (3, 0), (2, 1)] {
                let store = Store::new();
                let mut settings = Settings { trigger, ..settings(parallelism) };
                settings.checkpoint.interval = Duration::from_millis(interval);
                let (job, counts) = counting(&store, settings.clone(), generated);
                let status = finished(job.start().unwrap()).await;
                complete(counts.take());
                let last = newest(&store).await;
                assert!(last.last, "{trigger}: {last:?}");
                assert_eq!(status.last_checkpoint.map(|c| c.epoch), Some(last.epoch.0));
                // All that there was has been read.
                assert_eq!(
                    last.counters.iter().find(|(name, _)| name.as_str() == "numbers").map(|(_, c)| c["records"]),
                    Some(COUNT)
                );

                let (job, counts) = counting(&store, Settings { parallelism: 2, ..settings }, generated);
                let handle = job.start().unwrap();
                let status = handle.watch();
                until(|| status.borrow().state == JobState::Finished).await;
                assert_eq!(handle.metrics().operator("numbers").unwrap().records_in, 0, "read again");
                handle.wait().await.unwrap();
                assert!(counts.is_empty(), "{trigger}: {:?}", counts.take());
                assert!(newest(&store).await.last);
            }
        }
    });
}

/// A file that is there at its next start is more input; time has ended for what was there before.
#[test]
fn a_job_that_has_ended_goes_on_with_what_has_come_since() {
    run(async {
        let (directory, store) = (tempfile::tempdir().unwrap(), Store::new());
        let write = |name: &str, numbers: std::ops::Range<u64>| {
            let lines: String = numbers.map(|n| format!("{n}\n")).collect();
            fs::write(directory.path().join(name), lines).unwrap();
        };
        let read = |job: &Job, watermarks: Watermarks, counts: &Counts| {
            let lines = job.source("lines", FileSource::text(directory.path().join("*.txt")));
            windows(
                lines.event_time(|line| line.parse().unwrap(), watermarks).map(|line| line.parse().unwrap()),
                counts,
            );
        };
        write("a.txt", 0..500);
        let (job, counts) = counting(&store, settings(2), read);
        finished(job.start().unwrap()).await;
        let mut found = counts.take();
        write("b.txt", 500..COUNT);
        let (job, counts) = counting(&store, settings(3), read);
        finished(job.start().unwrap()).await;
        found.extend(counts.take());
        complete(found);
    });
}
