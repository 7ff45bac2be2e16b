//! The job of a plan, and where its output goes.
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use tidegate::{Aggregate, FileSink, Job, Settings, Stream, Tumbling, Watermarks};
use tidegate_core::testkit::entries::Entries;

use crate::{
    chaos::{Chaos, Client},
    plan::{End, Event, Id, Plan},
    sink::{self, Shelf},
    source,
    store::{self, JOB},
};

/// What a key has come to, and with which record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    pub key: u8,
    pub count: u64,
    pub sum: i64,
    pub id: Id,
}

/// The records of a key in a window, at a firing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pane {
    pub key: u8,
    pub start: i64,
    pub ids: Vec<Id>,
}

/// All that the sinks have.
#[derive(Clone, Default)]
pub struct Shelves {
    pub raw: Shelf<Event>,
    pub totals: Shelf<Total>,
    pub panes: Shelf<Pane>,
    pub late: Shelf<Event>,
    pub dead: [Shelf<String>; 2],
}

/// What one process needs to run the job.
pub struct Process {
    pub plan: Arc<Plan>,
    pub chaos: Chaos,
    pub client: Client,
    pub objects: Arc<InMemory>,
    pub shelves: Shelves,
}

impl Process {
    pub fn job(&self, settings: Settings) -> Job {
        let mut job = Job::with_backends(JOB, settings, [Arc::new(Entries) as _]);
        job.checkpoint_store(store::checkpoints(self.store()));
        let first = self.read(&job, 0);
        match self.plan.sources.len() {
            1 => self.ends(first),
            _ => self.ends(first.union(self.read(&job, 1))),
        }
        job
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        store::store(&self.objects, &self.chaos, self.client)
    }

    fn read(&self, job: &Job, source: usize) -> impl Stream<Item = Event> + use<> {
        let (plan, chaos) = (self.plan.clone(), self.chaos.clone());
        let seeded = source::Seeded { plan: plan.clone(), source, chaos: chaos.clone(), client: self.client };
        let mut stream = job.source(&format!("source-{source}"), seeded);
        if plan.dead_letters {
            let dead = stream.dead_letters().map(|bad| bad.raw);
            self.sink(dead, &format!("dead-{source}"), &self.shelves.dead[source]);
        } else {
            stream = stream.skip_undecodable();
        }
        let mut watermarks = Watermarks::bounded(Duration::from_millis(plan.bound_ms));
        if let Some(every) = plan.every {
            watermarks = watermarks.every(every);
        }
        if let Some(idle) = plan.idle_ms {
            watermarks = watermarks.idle_after(Duration::from_millis(idle));
        }
        if let Some(lead) = plan.align_ms {
            watermarks = watermarks.align(Duration::from_millis(lead));
        }
        stream.event_time(|e| e.at, watermarks).try_map(move |event| chaos.trip("user").map(|()| event))
    }

    fn ends(&self, stream: impl Stream<Item = Event>) {
        match self.plan.ends.as_slice() {
            [end] => self.end(stream, *end),
            ends => {
                let shared = stream.boxed();
                for end in ends {
                    self.end(shared.clone(), *end);
                }
            }
        }
    }

    fn end(&self, stream: impl Stream<Item = Event>, end: End) {
        match end {
            End::Raw => self.sink(stream, "raw", &self.shelves.raw),
            End::Totals => {
                let totals = stream.key_by(|e| e.key).fold("per-key", (0, 0, (0, 0, 0)), |total, e| {
                    *total = (total.0 + 1, total.1 + e.value, e.id);
                });
                let totals = totals.map(|(key, (count, sum, id))| Total { key, count, sum, id });
                self.sink(totals, "totals", &self.shelves.totals);
            }
            End::Windows => {
                let windows = Tumbling::of(Duration::from_millis(self.plan.window_ms));
                let mut windows = stream
                    .key_by(|e| e.key)
                    .window("per-window", windows)
                    .allowed_lateness(Duration::from_millis(self.plan.lateness_ms));
                self.sink(windows.late(), "late", &self.shelves.late);
                let panes = windows.aggregate(Gather).map(|w| Pane { key: w.key, start: w.window.start, ids: w.value });
                self.sink(panes, "panes", &self.shelves.panes);
            }
        }
    }

    fn sink<T>(&self, stream: impl Stream<Item = T>, name: &str, shelf: &Shelf<T>)
    where
        T: Serialize + Send + 'static,
    {
        if self.plan.files {
            return stream
                .sink(name, FileSink::json_lines_in(self.store(), &output(name)).roll_bytes(self.plan.part_max * 30));
        }
        let (shelf, chaos) = (shelf.clone(), self.chaos.clone());
        stream.sink(name, sink::Seeded { shelf, chaos, client: self.client, part_max: self.plan.part_max });
    }
}

fn output(sink: &str) -> String {
    format!("output/{sink}")
}

/// What a sink has published, in order.
pub async fn published<T: DeserializeOwned + Clone>(
    plan: &Plan,
    objects: &InMemory,
    name: &str,
    shelf: &Shelf<T>,
) -> Vec<T> {
    if !plan.files {
        assert_eq!(shelf.staged(), 0, "staged parts of {name} are left behind");
        return shelf.published();
    }
    let mut parts: Vec<_> = objects.list(Some(&Path::from(output(name)))).try_collect().await.unwrap();
    parts.sort_by(|a, b| a.location.cmp(&b.location));
    let mut records = Vec::new();
    for part in parts {
        assert!(!part.location.as_ref().contains(".staging"), "{} is left behind", part.location);
        let bytes = objects.get(&part.location).await.unwrap().bytes().await.unwrap();
        records.extend(
            bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice::<T>(l).unwrap()),
        );
    }
    records
}

/// Which records there were, in their order.
#[derive(Clone)]
struct Gather;

impl Aggregate<Event> for Gather {
    type State = Vec<Id>;
    type Output = Vec<Id>;
    fn init(&self) -> Vec<Id> {
        Vec::new()
    }
    fn add(&self, state: &mut Vec<Id>, event: Event) {
        state.push(event.id);
    }
    fn merge(&self, state: &mut Vec<Id>, other: &Vec<Id>) {
        state.extend(other);
    }
    fn finish(&self, state: &Vec<Id>) -> Vec<Id> {
        state.clone()
    }
}
