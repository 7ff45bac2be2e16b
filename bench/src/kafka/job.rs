//! k1 and k2 through tidegate's public API, exactly once.
use std::{path::Path, time::Duration};
use tidegate::{
    Job, JobState, JobStatus, Settings, Stream,
    kafka::{Json, Kafka},
};
use tokio::sync::watch;

use super::{
    Failed, Run,
    meter::Meter,
    work::{Account, Order, Payment, in_euros, kept},
};

fn job(run: &Run, store: &Path) -> Result<Job, Failed> {
    let settings = serde_json::json!({
        "parallelism": run.parallelism,
        "checkpoint": { "store": store, "interval": run.interval, "retained": 1 },
        "kafka": { "bootstrap.servers": run.at },
    });
    let settings: Settings = serde_json::from_value(settings).map_err(|e| e.to_string())?;
    let mut kafka = Kafka::new(&settings);
    for (name, value) in &run.kafka {
        kafka = kafka.set(name, value);
    }
    let job = Job::new(&run.job, settings);
    let orders = kafka.source(run.input.clone(), Json::<Order>::new());
    let orders = job.source("orders", if run.endless { orders } else { orders.available_now() });
    if run.workload == "k2" {
        orders
            .key_by(|order| order.user.clone())
            .fold("accounts", (0u64, 0u64, 0i64), |sum, order: Order| {
                *sum = (sum.0 + 1, sum.1 + order.price_cents, order.ts);
            })
            .map(|(user, (count, sum_cents, ts))| Account { user, count, sum_cents, ts })
            .sink("rows", kafka.sink(&run.output, Json::new()).key(|a: &Account| a.user.as_bytes()));
    } else {
        orders.map(in_euros).filter_map(kept).sink("rows", kafka.sink(&run.output, Json::<Payment>::new()));
    }
    Ok(job)
}

/// Runs to the end of what is there, or until it is killed.
pub fn run(run: &Run) -> Result<String, Failed> {
    // Beside the process's end where that is a kill.
    let fresh = tempfile::tempdir().map_err(|e| e.to_string())?;
    let store = run.store.clone().unwrap_or_else(|| fresh.path().to_owned());
    let job = job(run, &store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let handle = job.start().map_err(|e| e.to_string())?;
        let status = handle.watch();
        let end = async {
            if run.endless {
                stdin_ended().await;
            } else {
                watch(handle.watch()).await;
            }
            let commit = handle.metrics().checkpoints.commit;
            handle.stop().await.map(|()| commit)
        };
        let ((meter, checkpoints), ended) = tokio::join!(watch(status), end);
        let commit = ended.map_err(|e| e.to_string())?.unwrap_or_default();
        Ok(meter.line(run, &checkpoints, commit))
    })
}

/// Waits until whoever started this process wants it to end.
async fn stdin_ended() {
    let (ended, heard) = tokio::sync::oneshot::channel();
    let wait = move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    };
    if std::thread::Builder::new().spawn(wait).is_ok() {
        let _ = heard.await;
    }
}

/// Waits for the job's end; says from when on it ran, and how long each checkpoint took, in ms: from its trigger to
/// when its transaction was committed.
async fn watch(mut status: watch::Receiver<JobStatus>) -> (Meter, Vec<f64>) {
    let (mut meter, mut running, mut durations, mut last) = (Meter::start(), false, Vec::new(), 0);
    loop {
        let now = status.borrow_and_update().clone();
        if now.state == JobState::Running && !running {
            (running, meter) = (true, Meter::start());
        }
        if let Some(checkpoint) = now.last_checkpoint.filter(|c| c.epoch != last) {
            last = checkpoint.epoch;
            durations.push(Duration::from_millis(checkpoint.duration_ms).as_secs_f64() * 1e3);
        }
        let over = matches!(now.state, JobState::Finished | JobState::Failed | JobState::Cancelled);
        if over || status.changed().await.is_err() {
            return (meter, durations);
        }
    }
}
