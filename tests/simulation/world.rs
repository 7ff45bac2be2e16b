//! One seed's run: lives of the job, each ended by a crash, then one in which nothing goes wrong any more.
//!
//! A life is a runtime of its own. Dropping it is as near to a kill as one process gets: no task of the job is
//! asked, what was in flight has happened or has not. Within a life processes come and go: the job is started
//! while it runs already, is stopped, cancelled, frozen, and dropped.
use futures::{FutureExt, TryStreamExt, future::select_all};
use object_store::{ObjectStore, memory::InMemory};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Once, mpsc},
    time::Duration,
};
use tidegate::{
    JobHandle, JobState, JobStatus, Kind, Settings,
    extend::env::{now, simulated, sleep},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    chaos::{Chaos, Client},
    job::{Process, Shelves, published},
    oracle,
    plan::{End, Plan},
    store,
};

/// 2026-01-01; the machine's clock of a run begins here.
const WALL_MS: i64 = 1_767_225_600_000;
/// Of the machine's clock; a run takes milliseconds.
const STUCK: Duration = Duration::from_secs(30);
/// In which a job without faults has to end, of the clock that is simulated.
const LIVENESS: Duration = Duration::from_secs(600);

struct World {
    plan: Arc<Plan>,
    chaos: Chaos,
    objects: Arc<InMemory>,
    shelves: Shelves,
    clients: Client,
    /// Of each client.
    parallelism: BTreeMap<Client, u32>,
}

/// A process that runs the job.
struct Running {
    client: Client,
    handle: JobHandle,
    changes: watch::Receiver<JobStatus>,
    seen: JobStatus,
    failures: u64,
    watermarks: BTreeMap<(u64, String), i64>,
}

/// Runs a seed; panics when something has come out that must not.
pub fn run(seed: u64, printed: bool) -> Chaos {
    quiet();
    let _watched = Watchdog::over(seed);
    let chaos = Chaos::new(seed, printed);
    let plan = Arc::new(Plan::draw(&chaos));
    if printed {
        println!("{plan}");
    }
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut world = World {
            plan: plan.clone(),
            chaos: chaos.clone(),
            objects: Arc::new(InMemory::new()),
            shelves: Shelves::default(),
            clients: 0,
            parallelism: BTreeMap::new(),
        };
        for _ in 0..plan.lives {
            if world.life(false) {
                break;
            }
        }
        chaos.calm();
        world.life(true);
        // Two more collections.
        world.life(true);
        world.life(true);
        runtime().block_on(world.judge());
    }));
    if let Err(panic) = outcome {
        println!("{}", how_to_replay(seed));
        panic::resume_unwind(panic);
    }
    chaos
}

fn how_to_replay(seed: u64) -> String {
    format!(
        "the seed that fails: TIDEGATE_TEST_SEED={seed}\nreplay it alone, with its trace: TIDEGATE_TEST_SEED={seed} \
         cargo test --release --workspace --features tidegate/failpoints --test simulation -- --nocapture replay"
    )
}

/// A run that never comes back, because some task never waits, is beyond the reach of a simulated clock.
struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    #[allow(clippy::disallowed_methods, reason = "it has to run while the run's own thread does not return")]
    fn over(seed: u64) -> Self {
        let (alive, ended) = mpsc::channel();
        std::thread::spawn(move || {
            if ended.recv_timeout(STUCK) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a run does not come back; {}", how_to_replay(seed));
                std::process::exit(101);
            }
        });
        Self { _alive: alive }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Panics that are injected are no news.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let injected = info.payload().downcast_ref::<String>().is_some_and(|s| s.starts_with("injected"))
                || info.payload().downcast_ref::<&str>().is_some_and(|s| s.starts_with("injected"));
            if !injected {
                usual(info);
            }
        }));
    });
}

/// What a life waits for.
enum Next {
    Changed(usize),
    Replaced,
    Act,
}

impl World {
    /// True when the job has finished.
    fn life(&mut self, calm: bool) -> bool {
        let runtime = runtime();
        let finished = runtime.block_on(async {
            let elapsed = self.chaos.begin_life();
            let _simulated = simulated::begin(self.chaos.draw(), WALL_MS + elapsed);
            let finished = if calm { self.finish().await } else { self.live().await };
            self.chaos.end_life(if finished { "finished" } else { "killed" });
            finished
        });
        drop(runtime);
        self.check();
        finished
    }

    fn check(&self) {
        if let Some(violation) = self.chaos.violation() {
            panic!("{violation}");
        }
    }

    async fn live(&mut self) -> bool {
        let until = now() + self.chaos.ms(20..=3_000);
        let mut running = vec![self.start()];
        while now() < until {
            let next = self.chaos.ms(1..=250);
            let what = {
                let changes = running.iter_mut().map(|r| r.changes.changed().boxed());
                tokio::select! {
                    biased;
                    (_, index, _) = select_all(changes) => Next::Changed(index),
                    () = self.chaos.replacement() => Next::Replaced,
                    () = sleep(next) => Next::Act,
                }
            };
            for running in &mut running {
                self.look(running);
            }
            match what {
                Next::Changed(index) => {
                    if self.changed(&mut running[index]) {
                        let ended = running.remove(index);
                        if self.ended(ended).await {
                            return true;
                        }
                    }
                }
                Next::Replaced if running.len() < 4 => running.push(self.start()),
                Next::Replaced => {}
                Next::Act => self.act(&mut running).await,
            }
            self.check();
            if running.is_empty() {
                sleep(self.chaos.ms(0..=100)).await;
                running.push(self.start());
            }
        }
        false
    }

    /// Without faults: it must end, and soon.
    async fn finish(&mut self) -> bool {
        let mut running = self.start();
        let end = timeout(LIVENESS, async {
            while !self.changed(&mut running) {
                running.changes.changed().await.unwrap();
            }
        });
        let ended = end.await;
        assert!(ended.is_ok(), "the job hangs though nothing fails any more: {:?}", running.seen);
        match running.handle.wait().await {
            Err(e) => panic!("the job fails though nothing fails any more: {e}"),
            Ok(()) => true,
        }
    }

    fn settings(&self, parallelism: u32) -> Settings {
        Settings { parallelism, ..self.plan.settings.clone() }
    }

    fn start(&mut self) -> Running {
        self.clients += 1;
        let (client, parallelism) = (self.clients, self.chaos.between(1..=3) as u32);
        self.parallelism.insert(client, parallelism);
        self.chaos.note(format_args!("client {client} starts with parallelism {parallelism}"));
        let process = Process {
            plan: self.plan.clone(),
            chaos: self.chaos.clone(),
            client,
            objects: self.objects.clone(),
            shelves: self.shelves.clone(),
        };
        let handle = process.job(self.settings(parallelism)).start().unwrap();
        let changes = handle.watch();
        Running { client, handle, changes, seen: JobStatus::default(), failures: 0, watermarks: BTreeMap::new() }
    }

    /// Writes down what is new in a process's status; true when it has ended.
    fn changed(&mut self, running: &mut Running) -> bool {
        let status = running.changes.borrow_and_update().clone();
        let client = running.client;
        let before = std::mem::replace(&mut running.seen, status.clone());
        if (before.state, before.attempt) != (status.state, status.attempt) {
            let (state, attempt, restored) = (status.state, status.attempt, status.restored);
            self.chaos.note(format_args!("client {client}: {state:?}, attempt {attempt} from {restored:?}"));
        }
        if before.attempt != status.attempt
            && let Some(committer) = status.restored.and_then(|epoch| self.chaos.committer(epoch))
        {
            self.chaos.count("restored".into());
            if self.parallelism[&committer] != self.parallelism[&client] {
                self.chaos.count("restored at another parallelism".into());
            }
        }
        for failure in status.failures.iter().rev().take((status.restarts - running.failures) as usize) {
            self.chaos.note(format_args!("client {client}: attempt {} fails: {}", failure.attempt, failure.cause));
            self.chaos.count(format!("an attempt failed: {}", failure.kind));
        }
        running.failures = status.restarts;
        if before.last_checkpoint != status.last_checkpoint {
            self.chaos.note(format_args!("client {client}: {:?}", status.last_checkpoint));
            self.chaos.count("checkpoints".into());
        }
        if before.last_abandoned != status.last_abandoned {
            self.chaos.note(format_args!("client {client}: abandoned: {:?}", status.last_abandoned));
            self.chaos.count("checkpoints abandoned".into());
        }
        matches!(status.state, JobState::Finished | JobState::Cancelled | JobState::Failed)
    }

    /// True when it has come to the end of its input.
    async fn ended(&mut self, ended: Running) -> bool {
        let client = ended.client;
        match ended.handle.wait().await {
            Ok(()) => true,
            Err(error) => {
                self.chaos.note(format_args!("client {client} ends: {error}"));
                self.chaos.count(format!("a process ended: {}", error.kind()));
                // Only one that has been replaced is fenced; and it may miss what its successor has done away with,
                // and not find out why.
                let expected = matches!(error.kind(), Kind::Unavailable | Kind::User);
                let replaced = client != self.chaos.owner();
                self.chaos.must(expected || replaced, || format!("client {client} ends: {error}"));
                false
            }
        }
    }

    /// Something happens from outside.
    async fn act(&mut self, running: &mut Vec<Running>) {
        let index = self.chaos.below(running.len() as u64) as usize;
        let client = running[index].client;
        match self.chaos.below(100) {
            0..30 => {
                let asked = running[index].handle.checkpoint_now();
                let outcome = timeout(self.chaos.ms(1..=300), asked).await;
                let outcome = outcome.map(|r| r.map_err(|e| e.message().to_owned()));
                self.chaos.note(format_args!("client {client}: checkpoint asked for: {outcome:?}"));
            }
            30..42 if running.len() < 3 => {
                if self.chaos.below(2) == 0 {
                    self.chaos.freeze(client, self.chaos.ms(10..=2_000));
                }
                let next = self.start();
                running.push(next);
                self.chaos.count("started while it runs".into());
            }
            42..48 => self.chaos.freeze(client, self.chaos.ms(10..=1_000)),
            48..52 => {
                let stopped = timeout(self.chaos.ms(1..=1_000), running.remove(index).handle.stop()).await;
                self.chaos.note(format_args!(
                    "client {client}: stop: {:?}",
                    stopped.as_ref().map(|r| r.as_ref().map_err(tidegate::Error::kind))
                ));
                if let Ok(Ok(())) = stopped {
                    self.chaos.count("stopped".into());
                }
            }
            52..55 => {
                let cancelled = timeout(self.chaos.ms(1..=1_000), running.remove(index).handle.cancel()).await;
                self.chaos
                    .note(format_args!("client {client}: cancel: {:?}", cancelled.map(|r| r.map_err(|e| e.kind()))));
            }
            55..60 => {
                self.chaos.note(format_args!("client {client} is dropped"));
                drop(running.remove(index));
            }
            _ => {}
        }
    }

    /// The watermark of no operator goes back.
    fn look(&self, running: &mut Running) {
        let attempt = running.handle.status().attempt;
        for operator in running.handle.metrics().operators {
            let Some(watermark) = operator.watermark else { continue };
            let before = running.watermarks.insert((attempt, operator.name.clone()), watermark);
            let back = before.is_some_and(|before| before > watermark);
            self.chaos.must(!back, || format!("the watermark of {} goes back: {before:?}, {watermark}", operator.name));
        }
    }

    async fn judge(&self) {
        let Self { plan, objects, shelves, chaos, .. } = self;
        for (source, dead) in shelves.dead.iter().enumerate().take(plan.sources.len()) {
            let dead = published(plan, objects, &format!("dead-{source}"), dead).await;
            oracle::dead_letters(plan, source, &dead);
            for _ in dead {
                chaos.count("dead letters".into());
            }
        }
        for end in &plan.ends {
            match end {
                End::Raw => {
                    let raw = published(plan, objects, "raw", &shelves.raw).await;
                    oracle::same("records", &raw, plan.events().cloned());
                }
                End::Totals => {
                    oracle::totals(plan, &published(plan, objects, "totals", &shelves.totals).await);
                }
                End::Windows => {
                    let panes = published(plan, objects, "panes", &shelves.panes).await;
                    let late = published(plan, objects, "late", &shelves.late).await;
                    oracle::windows(plan, &panes, &late, chaos);
                }
            }
        }
        let paths: Vec<_> = objects.list(None).map_ok(|o| o.location.to_string()).try_collect().await.unwrap();
        let paths: BTreeSet<String> = paths.into_iter().filter(|p| p.starts_with(store::JOB)).collect();
        let store = store::checkpoints(objects.clone());
        let mut referred = BTreeSet::new();
        let kept = store.commits().await.unwrap();
        for epoch in &kept {
            let record = store.read_commit(*epoch).await.unwrap();
            let manifest = store.read_manifest(&record.manifest).await.unwrap();
            referred.extend(manifest.objects().map(|o| o.path.clone()));
        }
        let kept = kept.into_iter().map(|e| e.0).collect();
        oracle::no_orphans(&paths, &referred, &kept, plan.settings.checkpoint.retained);
    }
}
