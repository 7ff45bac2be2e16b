//! Named kill points: places where a crash test may kill the process with SIGKILL.
//!
//! Their names are public and stable. Without the feature `failpoints` a point is nothing at all; with it,
//! `TIDEGATE_KILL_POINT=name` or `name:n` kills at the first or n-th time. It must be SIGKILL and not a
//! panic: unwinding runs destructors, a crash does not.

/// Every point, and what has happened when it is reached.
pub const POINTS: &[(&str, &str)] = &[
    ("attempt.claimed", "the attempt owns the job, nothing else has been done"),
    ("recover.observed", "the store has been listed and the plan is made"),
    ("recover.sinks", "before the sinks publish what the restored checkpoint committed"),
    ("recover.built", "every task is built, none runs"),
    ("trigger", "the coordinator has decided on a checkpoint, no source knows"),
    ("source.barrier", "a source is about to note its positions"),
    ("align.first", "the first input of a gate has delivered the barrier"),
    ("align.more", "a further input of a gate has"),
    ("snapshot.begin", "a keyed operator is about to freeze its state"),
    ("snapshot.upload.before", "the state is serialised, nothing is stored"),
    ("snapshot.upload.after", "the state is stored, not acknowledged"),
    ("sink.flush", "a sink is about to stage the epoch"),
    ("sink.staged", "a sink has staged the epoch, not acknowledged"),
    ("manifest.before", "all have acknowledged, no manifest"),
    ("manifest.after", "the manifest is written: the checkpoint is prepared"),
    ("commit.before", "nothing newer owns the job, no commit record"),
    ("commit.after", "the commit record is written: the checkpoint counts, nothing is published"),
    ("finalise.before", "a sink is about to publish"),
    ("finalise.mid", "a sink has published some of its parts"),
    ("finalise.after", "a sink has published all its parts"),
    ("collect.before", "the checkpoint is complete, nothing old is deleted"),
    ("collect.mid", "some of what is old is deleted"),
    ("collect.after", "all of what is old is deleted"),
];

/// Those of a job that commits in a Kafka transaction.
pub const KAFKA_POINTS: &[(&str, &str)] = &[
    ("kafka.recover.found", "the commit records have been read, nobody is fenced"),
    ("kafka.recover.fenced", "older producers are fenced, their transactions aborted"),
    ("kafka.recover.read", "the commit records have been read again: they are final"),
    ("kafka.sink.recorded", "the commit record is sent, behind every record of the epoch"),
    ("kafka.sink.drained", "all that is in the transaction, not acknowledged"),
    ("kafka.commit.begin", "the checkpoint is prepared, its transaction open"),
    ("kafka.commit.ended", "the transaction is committed: the checkpoint counts, the store has no copy of its record"),
    ("kafka.commit.copied", "the store has its copy"),
];

/// Reaches a point.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn point(_name: &str) {}

/// Reaches a point.
#[cfg(feature = "failpoints")]
pub fn point(name: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    };
    let is_known = |name: &str| POINTS.iter().chain(KAFKA_POINTS).any(|(known, _)| *known == name);
    static ARMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let armed = std::env::var("TIDEGATE_KILL_POINT").ok()?;
        let (name, nth) = armed.split_once(':').unwrap_or((&armed, "1"));
        Some((name.to_owned(), nth.parse().unwrap_or(1)))
    });
    static HITS: AtomicU64 = AtomicU64::new(0);
    // A test that dies nowhere would prove nothing.
    let armed = ARMED.as_ref().map_or(name, |(armed, _)| armed);
    assert!(is_known(name) && is_known(armed), "kill points {name} and {armed} are not both in the list");
    if let Some((armed, nth)) = &*ARMED
        && armed == name
        && HITS.fetch_add(1, SeqCst) + 1 == *nth
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
