//! The start of an attempt: claim, observe, plan, open. The one place where a job begins or goes on.
//!
//! The order matters. The claim comes first: from then on an older attempt prepares nothing more that could
//! be committed. Then the commit point is opened, which fences where it can. Then the store is observed,
//! and what an older attempt has prepared and could still commit is taken from it, or found to be
//! committed: from then on what is seen is all. An attempt that has been overtaken by then stops: what it
//! sees may be its successor's. Then the sinks publish what the restored checkpoint has committed, before
//! any new output. Only then are sources opened and tasks built.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidegate_checkpoint::{
    commit::{CommitContext, CommitPoint, Sealed, StoreCommitPoint, committed_manifest, fenced, still_newest},
    error::{Error, Kind, Result},
    ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
    kill,
    manifest::{Manifest, StateHandle},
    recover::{self, Observed, Plan, Program, Wanted},
    store::{CheckpointStore, lineage},
};

use super::{
    build::{Begin, SourceAssignment},
    open_split::has_ended,
    terminal::{Opened, SourceNode},
};
use crate::{
    connect::{SinkContext, Split},
    env::{spawn_blocking, unique, wall_ms},
    plan::{Graph, NodeKind, changes::changes},
    settings::Settings,
    state::{
        operator,
        savepoint::{self, Savepoint, load, place},
    },
};

/// Where an attempt stands when it begins.
pub(super) struct Start {
    pub attempt: Attempt,
    pub lineage: String,
    /// The checkpoint that it goes on from, under the names of today.
    pub restored: Option<Arc<Manifest>>,
    /// Whether that is a savepoint's.
    pub saved: bool,
    /// The checkpoint of this job's own that it goes on from: a savepoint is none.
    pub parent: Option<Epoch>,
    pub next: Epoch,
}

/// The attempts of one run of the job, from its start to its end in this process.
pub(super) struct Run {
    /// What tells its claims from everybody else's.
    owner: String,
    /// The first and the last one that has claimed the job.
    attempts: Option<(Attempt, Attempt)>,
}

impl Run {
    pub(super) fn new() -> Self {
        let owner = format!("{}-{}-{:016x}", std::process::id(), wall_ms(), unique());
        Self { owner, attempts: None }
    }

    /// An attempt whose job has been taken over fails in many ways, since its files are swept under it; only one
    /// of them is the truth, and only that one keeps it from taking the job back. A newer claim alone does not
    /// say so: it may be this run's own, of an attempt that has failed before it knew that it had claimed.
    pub(super) async fn explain(&self, store: &CheckpointStore, error: Error) -> Error {
        let (Some((_, mine)), Ok(all)) = (self.attempts, store.attempts().await) else { return error };
        let Some(newest) = all.last().filter(|newest| **newest > mine && error.kind() != Kind::Fenced) else {
            return error;
        };
        let theirs = match store.claimant(*newest).await {
            Ok(owner) => owner != self.owner,
            // Deleted by an even newer attempt, or not of our writing: none of this run's in any case.
            Err(e) => e.kind() == Kind::Corrupt,
        };
        if theirs { fenced(mine, *newest).caused_by(error) } else { error }
    }
}

/// Claims the job, opens its commit point and decides where to begin.
pub(super) async fn begin(
    store: &Arc<CheckpointStore>,
    graph: &Graph,
    settings: &Settings,
    run: &mut Run,
) -> Result<(Start, Arc<dyn CommitPoint>)> {
    let attempt = store.claim(&run.owner).await?;
    let first = run.attempts.map_or(attempt, |(first, _)| first);
    run.attempts = Some((first, attempt));
    if store.is_local() {
        let sweeper = store.clone();
        spawn_blocking(move || sweeper.sweep_unfinished(attempt))
            .await
            .map_err(|e| Error::internal("the sweep of the checkpoint store has panicked").caused_by(e))??;
    } else {
        store.sweep_unfinished_remote(attempt).await?;
    }
    let commits: Arc<dyn CommitPoint> = match graph.commit_point() {
        None => Arc::new(StoreCommitPoint::new(store.clone())),
        Some(point) => {
            let interval = settings.epoch_interval().map(|interval| interval.max(settings.checkpoint.min_pause));
            point.open(CommitContext { store: store.clone(), attempt, interval }).await?
        }
    };
    let fresh = lineage(&run.owner);
    loop {
        let committed = store.commits().await?;
        let (observed, found, next) =
            match choose(store, &*commits, committed.clone(), graph, settings, (first, attempt), &fresh).await {
                Ok(chosen) => chosen,
                // An older attempt that commits once more deletes what it has superseded: then nothing is missing, only
                // out of date.
                Err(error) if error.kind() == Kind::Corrupt && store.commits().await? != committed => continue,
                Err(error) => return Err(error),
            };
        let (lineage, parent, saved) = match &found {
            Some(Found { manifest, saved, .. }) => {
                (manifest.lineage.clone(), (!saved).then_some(manifest.epoch), *saved)
            }
            None => (fresh.clone(), None, false),
        };
        let (committed, restored) = found.map(|found| (found.manifest, Arc::new(found.adopted))).unzip();
        let start = Start { attempt, lineage, restored, saved, parent, next };
        if seal(&*commits, store.job(), &observed, (&start, committed.as_ref()), settings).await? {
            log_dropped(committed.as_ref(), graph, settings)?;
            commits.begins(&start.lineage);
            return Ok((start, commits));
        }
    }
}

/// A checkpoint to go on from.
struct Found {
    /// As it is stored.
    manifest: Manifest,
    /// As the program goes on from it.
    adopted: Manifest,
    saved: bool,
}

impl Found {
    fn new(manifest: Manifest, saved: bool, job: &JobId, graph: &Graph, settings: &Settings) -> Result<Self> {
        let adopted = adopt(&manifest, job, graph, settings)?;
        // An attempt that started from a savepoint may have sealed an epoch with it.
        let saved = saved || manifest.states.values().flatten().any(|handle| handle.backend == savepoint::BACKEND);
        Ok(Self { manifest, adopted, saved })
    }
}

/// Observes and plans: what is there, the checkpoint to go on from, the first epoch to be made. `first` is the
/// first attempt of this run, `attempt` this one; `fresh` is the lineage of a job that begins.
async fn choose(
    store: &Arc<CheckpointStore>,
    commits: &dyn CommitPoint,
    committed: BTreeSet<Epoch>,
    graph: &Graph,
    settings: &Settings,
    (first, attempt): (Attempt, Attempt),
    fresh: &str,
) -> Result<(Observed, Option<Found>, Epoch)> {
    let manifests = store.manifests().await?;
    let copy = match committed.last() {
        Some(epoch) => Some(store.read_commit(*epoch).await?),
        None => None,
    };
    let mut observed = Observed {
        commits: committed,
        latest: commits.latest().await?,
        copy,
        transactional: commits.is_transactional(),
        manifests: manifests.iter().map(|(e, a, _)| (*e, *a)).collect(),
        parent: None,
    };
    // Asked after the listing: what a newer attempt has prepared is not in it then, and what is in it the newer
    // one has found too.
    still_newest(store, attempt).await?;
    if observed.newest().is_none() && !settings.checkpoint.allow_fresh_start {
        for (_, _, path) in &manifests {
            observed.parent = observed.parent.max(store.read_manifest(path).await?.parent);
        }
    }
    // A restart inside the process goes on from its own last checkpoint, if it has made one, and not from
    // the one that was asked for at first.
    let own = observed.newest().is_some_and(|r| r.attempt >= first);
    let from = Some(Epoch(settings.checkpoint.from)).filter(|e| e.0 > 0 && !own);
    let plan = recover::plan(&observed, &Wanted { from, allow_fresh: settings.checkpoint.allow_fresh_start })?;
    kill::point("recover.observed");
    match plan {
        Plan::Fresh { next } => match savepoint(store, settings)? {
            None => Ok((observed, None, next)),
            Some(place) => {
                let saved = from_savepoint(&place, store, fresh, graph, settings).await;
                let saved = saved.map_err(|e| e.at("checkpoint.savepoint"))?;
                let next = next.max(saved.manifest.epoch.next());
                Ok((observed, Some(saved), next))
            }
        },
        Plan::Resume { epoch, next } => {
            let record = match observed.newest() {
                Some(record) if record.epoch == epoch => record.clone(),
                _ => store.read_commit(epoch).await?,
            };
            let manifest = committed_manifest(store, &record).await?;
            let found = Found::new(manifest, false, store.job(), graph, settings)?;
            Ok((observed, Some(found), next))
        }
    }
}

/// Where the savepoint is that the job is to start from.
pub(super) fn savepoint(store: &CheckpointStore, settings: &Settings) -> Result<Option<Arc<CheckpointStore>>> {
    let url = &settings.checkpoint.savepoint;
    if url.is_empty() {
        return Ok(None);
    }
    place(url, store.job()).map(Some).map_err(|e| e.at("checkpoint.savepoint"))
}

/// The checkpoint that a savepoint is of, as one of this job's: positions as they were, state in the savepoint's files, and
/// a lineage of its own, since the job that the savepoint is of may go on.
async fn from_savepoint(
    place: &CheckpointStore,
    store: &CheckpointStore,
    fresh: &str,
    graph: &Graph,
    settings: &Settings,
) -> Result<Found> {
    let Savepoint { mut checkpoint, operators } = load(place, &settings.checkpoint.savepoint).await?;
    let whole = KeyGroupRange { start: 0, end: checkpoint.key_groups };
    // What is there of states are lists of no key.
    let mut states = std::mem::take(&mut checkpoint.states);
    states.values_mut().flatten().for_each(|handle| savepoint::BACKEND.clone_into(&mut handle.backend));
    for (operator, files) in operators {
        let data = serde_json::to_value(files)
            .map_err(|e| Error::internal("files of a savepoint do not serialise").caused_by(e))?;
        let (subtask, backend, objects) = (Subtask(0), savepoint::BACKEND.to_owned(), Vec::new());
        states.insert(operator, vec![StateHandle { subtask, key_groups: whole, backend, data, objects }]);
    }
    let (job, lineage) = (store.job().clone(), fresh.to_owned());
    let manifest = Manifest { job, lineage, states, ..checkpoint };
    Found::new(manifest, true, store.job(), graph, settings)
}

/// Takes every epoch that an older attempt may still commit; false: one of them has been committed since. What is put
/// there is the checkpoint as it is stored: what the program wants changed only its own checkpoints change.
async fn seal(
    commits: &dyn CommitPoint,
    job: &JobId,
    observed: &Observed,
    (start, committed): (&Start, Option<&Manifest>),
    settings: &Settings,
) -> Result<bool> {
    let newest = observed.newest().map(|r| r.epoch);
    let prepared: BTreeSet<_> = observed.manifests.iter().map(|(e, _)| *e).filter(|e| Some(*e) > newest).collect();
    for epoch in prepared {
        let content = match committed {
            Some(manifest) => Manifest { parent: start.parent, ..manifest.clone() },
            None => Manifest::empty(job, &start.lineage, settings.key_groups, settings.parallelism),
        };
        let manifest = Manifest { epoch, attempt: start.attempt, created_ms: wall_ms(), ..content };
        if commits.seal(&manifest).await? == Sealed::Committed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A checkpoint as the job's program goes on from it.
fn adopt(manifest: &Manifest, job: &JobId, graph: &Graph, settings: &Settings) -> Result<Manifest> {
    let (keyed, listed) = (graph.names(NodeKind::Keyed), graph.names(NodeKind::Stateful));
    let program = Program {
        job,
        key_groups: settings.key_groups,
        sources: &graph.names(NodeKind::Source),
        keyed: &keyed.union(&listed).cloned().collect(),
        sinks: &graph.names(NodeKind::Sink),
        changes: &changes(graph, &settings.state)?,
    };
    let adopted = recover::adopt(manifest, &program)?;
    for (name, handles) in &adopted.states {
        if keyed.contains(name) && handles.iter().any(operator::is_list) {
            return Err(Error::config(format!("the state of {:?} in the checkpoint is of no key", name.as_str()))
                .hint("names are the identity of state: give the keyed operator a name of its own"));
        }
    }
    Ok(adopted)
}

fn log_dropped(committed: Option<&Manifest>, graph: &Graph, settings: &Settings) -> Result<()> {
    let Some(manifest) = committed else { return Ok(()) };
    for operator in changes(graph, &settings.state)?.dropped_of(manifest) {
        tracing::warn!(job = %manifest.job, checkpoint = %manifest.epoch, %operator, "its state is dropped, as the job says");
    }
    Ok(())
}

/// Opens every sink through its recovery.
pub(super) async fn open_sinks(
    graph: &Graph,
    store: &Arc<CheckpointStore>,
    start: &Start,
    commits: &Arc<dyn CommitPoint>,
) -> Result<BTreeMap<OperatorId, Arc<dyn Opened>>> {
    kill::point("recover.sinks");
    let mut opened = BTreeMap::new();
    for terminal in graph.terminals() {
        let Some(sink) = terminal.sink().cloned() else { continue };
        let committed = start.restored.as_ref().and_then(|m| m.sinks.get(&sink)).cloned().unwrap_or_default();
        let restored = start.restored.as_ref().map(|m| m.epoch);
        let (job, commits, store) = (store.job().clone(), commits.clone(), store.clone());
        let context = SinkContext { job, sink: sink.clone(), attempt: start.attempt, restored, commits, store };
        if let Some(open) = terminal.recover(context, committed).await? {
            opened.insert(sink, open);
        }
    }
    Ok(opened)
}

/// Spreads every source's splits over the subtasks: those there are, and those of the checkpoint.
pub(super) async fn assign(
    sources: &[SourceNode],
    start: &Start,
    parallelism: u32,
) -> Result<BTreeMap<OperatorId, SourceAssignment>> {
    let mut assigned = BTreeMap::new();
    for source in sources {
        let listed = source.discover().await?;
        let mut ids = BTreeSet::new();
        if let Some(twice) = listed.iter().find(|s| !ids.insert(&s.id)) {
            return Err(Error::config(format!("source {} lists split {:?} twice", source.name, twice.id)));
        }
        let known = start.restored.as_ref().and_then(|m| m.sources.get(&source.name));
        let mut saved = known.cloned().unwrap_or_default();
        let ended = start.restored.as_ref().is_some_and(|m| m.last);
        let again = |saved: serde_json::Value| {
            if ended && has_ended(&saved) { Begin::Again(saved) } else { Begin::Saved(saved) }
        };
        let mut splits: Vec<(Split, Begin)> = Vec::new();
        for split in listed {
            let unknown = if known.is_some() { Begin::New } else { Begin::Job };
            let begin = saved.remove(&split.id).map_or(unknown, again);
            splits.push((split, begin));
        }
        let mut finished = BTreeMap::new();
        for (id, position) in saved {
            if has_ended(&position) {
                finished.insert(id, position);
            } else {
                // No longer listed: its `open` says what that means.
                splits.push((Split::new(id), Begin::Saved(position)));
            }
        }
        splits.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        let mut assignment =
            SourceAssignment { finished, discovers: source.interval().is_some(), ..Default::default() };
        assignment.splits.resize_with(parallelism as usize, Vec::new);
        for (index, split) in splits.into_iter().enumerate() {
            assignment.splits[index % parallelism as usize].push(split);
        }
        assigned.insert(source.name.clone(), assignment);
    }
    Ok(assigned)
}
