//! A keyed operator at work: its input, and the life of its state.
//!
//! The life of the state runs through the same few calls as everything else: it is loaded in the first
//! `poll_ready`, frozen at a barrier, captured piece by piece in `sweep`, and the sealed snapshot goes to
//! the coordinator through the reporter. A checkpoint for which the last snapshot is still on its way is
//! declined.
//!
//! What comes is handled at once, if the tables have what it needs. That is always so where they hold everything. Where
//! they do not, the hard case is order: a batch that has to wait for the backend is put in line, and so is what comes
//! behind it, records and controls alike. Then `poll_ready` goes on with the line. Whatever waits has the state with it
//! ([`Work`]), so that nobody can look at it half-way.
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{
    collections::VecDeque,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use tidegate_checkpoint::{
    coordinator::Ack,
    error::{Error, Result},
    ids::{Epoch, OperatorId},
    manifest::StateHandle,
};

use super::{advance::Advance, keyed::KeyedOperator};
use crate::{
    env::{Sleep, now, sleep, wall_ms},
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Barrier, BatchOutput, Control, Keyed, Output},
    runtime::{
        build::{AttemptContext, Build},
        reporter::Reporter,
    },
    state::{
        backend::OpenContext,
        cached::Sealed,
        codec::{decode_key, encode_key},
        hash::{Key, check_key, hash_key},
        keyed::{KeyedState, Swept},
        savepoint::{self, entries::Source, files::Reader},
        table::Value,
    },
    time::Timestamp,
};

/// Entries captured in one slice of sweeping.
const SWEEP_ENTRIES: u64 = 4096;
/// Records in line before the upstream has to wait.
const IN_LINE_MAX: usize = 8192;

/// What something that was waited for has come to, and the state.
pub(super) type Work<K, V> = BoxFuture<'static, (KeyedState<K, V>, Result<Done<K, V>>)>;

pub(super) enum Done<K, V> {
    /// Entries have been read.
    Loaded,
    /// Room has been made; perhaps a snapshot was finished for it.
    Tended(Option<Sealed>),
    /// Some entries of a namespace that fires, and from where on there may be more.
    Page(Vec<(K, V)>, Option<Bytes>),
}

enum Input<K, T> {
    Batch(Vec<Keyed<K, T>>),
    Control(Control),
}

/// The running operator with its state.
pub(super) struct KeyedNode<K: Key, T, Op: KeyedOperator<K, T>, O> {
    pub(super) operator: Op,
    /// `None` while something is waited for.
    pub(super) state: Option<KeyedState<K, Op::Value>>,
    pub(super) work: Option<Work<K, Op::Value>>,
    opening: Option<BoxFuture<'static, Result<KeyedState<K, Op::Value>>>>,
    /// What has come and could not be handled yet.
    line: VecDeque<Input<K, T>>,
    records_in_line: usize,
    /// So many at the head of the line have all that they need in the tables.
    loaded: usize,
    pub(super) advance: Option<Advance>,
    pub(super) out: O,
    reporter: Reporter,
    pub(super) stats: Arc<OperatorStats>,
    fault: Option<Error>,
    /// No batch has come yet.
    begins: bool,
    sweeping: bool,
    /// There may be no other call to sweep: the last one came while the state was away, or before the barrier's turn.
    sweeps_later: bool,
    /// The same of what is behind it in the chain: it was given a barrier from the line.
    pub(super) sweeps_behind: bool,
    records_in: u64,
    /// Wakes the task when the clock makes something due, and when that is.
    alarm: Option<(Timestamp, Pin<Box<Sleep>>)>,
    input: PhantomData<fn(T)>,
}

impl<K: Key, T: Send + 'static, Op: KeyedOperator<K, T>, O: Output<Op::Out>> KeyedNode<K, T, Op, O> {
    pub(super) fn new(build: &mut Build<'_>, name: &str, node: NodeId, operator: Op, out: O) -> Result<Self> {
        let id = OperatorId::new(name)?;
        let context = build.context().clone();
        let range = build.key_group_range();
        let open = OpenContext {
            store: context.store.clone(),
            operator: id.clone(),
            subtask: build.subtask(),
            attempt: context.attempt,
            run: context.backends.run,
            key_groups: range,
            // A savepoint's epoch is none of this job's.
            restored: context.restored.as_ref().filter(|_| context.savepoint.is_none()).map(|manifest| manifest.epoch),
            restore: build.restored_state(&id),
            lineage: context.lineage.clone(),
            settings: context.state.clone(),
        };
        let operator_id = id.clone();
        let opening = async move {
            open_state(&context, open, Op::IS_VACANT)
                .await
                .map_err(|e| e.at(format!("state of operator {operator_id}")))
        };
        Ok(Self {
            operator,
            state: None,
            work: None,
            opening: Some(Box::pin(opening)),
            line: VecDeque::new(),
            records_in_line: 0,
            loaded: 0,
            advance: None,
            out,
            reporter: build.reporter(id),
            stats: build.stats(node),
            fault: None,
            begins: true,
            sweeping: false,
            sweeps_later: false,
            sweeps_behind: false,
            records_in: 0,
            alarm: None,
            input: PhantomData,
        })
    }

    fn check(&mut self, result: Result<()>) {
        if let Err(e) = result {
            let name = &self.reporter.participant().operator;
            self.fault.get_or_insert(e.at(format!("operator {name}")));
        }
    }

    /// Whether what comes may be handled at once: nothing is before it.
    fn is_free(&self) -> bool {
        self.state.is_some() && self.advance.is_none() && self.line.is_empty() && self.fault.is_none()
    }

    /// Handles a batch, and leaves it empty, if all that it needs is in the tables, or `is_loaded` says so.
    fn process(&mut self, batch: &mut Vec<Keyed<K, T>>, is_loaded: bool) -> Result<bool> {
        let Some(state) = &mut self.state else {
            return Err(Error::internal("records came before the state was loaded"));
        };
        // What has no canonical encoding hashes to 0, and next to nothing else does.
        let mut why = batch.iter().filter(|r| r.hash == 0).find_map(|r| check_key(&r.key).err());
        if std::mem::take(&mut self.begins) && batch.iter().any(|r| !is_given_back(&r.key, r.hash)) {
            why = why.or(Some("what is written of it is not read back as the same key"));
        }
        if let Some(why) = why {
            let key = std::any::type_name::<K>();
            return Err(Error::config(format!("the key type {key} cannot be used: {why}"))
                .hint("use integers, strings, bytes, and structs, tuples, enums or vectors of them"));
        }
        if !is_loaded {
            let mut missing = Vec::new();
            state.missing(batch, |record, need| self.operator.needs(record, need), &mut missing)?;
            if !missing.is_empty() {
                return Ok(false);
            }
        }
        if self.operator.uses_clock() {
            self.operator.clock(wall_ms());
        }
        // While sweeping, every record may have to capture a sub-shard.
        let began = self.sweeping.then(now);
        self.operator.process(state, batch, &mut self.out)?;
        if let Some(began) = began {
            self.stats.paused(now().duration_since(began));
        }
        batch.clear();
        Ok(true)
    }

    /// Handles a control up to where something has to be waited for; then `advance` has what is left.
    fn handle(&mut self, control: Control) {
        match (control, &mut self.state) {
            (Control::Watermark(watermark), Some(_)) => {
                let advanced = self.advance_to(watermark);
                return self.check(advanced);
            }
            (Control::Barrier(barrier), Some(_)) if self.fault.is_none() => {
                let ended = self.end_epoch(barrier);
                return self.check(ended);
            }
            (Control::Marker(made), _) => self.stats.latency(now().duration_since(made).as_micros() as u64),
            _ => {}
        }
        self.pass_on(control);
    }

    pub(super) fn pass_on(&mut self, control: Control) {
        self.out.control(control);
        self.operator.side(control);
    }

    /// Something that was waited for is there.
    fn done(&mut self, done: Done<K, Op::Value>) {
        match done {
            Done::Page(entries, more) => self.page(&entries, more),
            Done::Tended(Some((epoch, durable))) => self.acknowledge(epoch, durable),
            Done::Loaded | Done::Tended(None) => {}
        }
    }

    /// Whether anything waits, or will have to. Over memory nothing ever does.
    fn has_to_go_on(&mut self) -> bool {
        !self.is_free() || self.sweeps_later || self.state.as_mut().is_some_and(KeyedState::needs_tending)
    }

    /// Goes on with what is in line, until something has to be waited for.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Result<()> {
        loop {
            if let Some(work) = &mut self.work {
                let Poll::Ready((state, done)) = work.as_mut().poll(cx) else { return Ok(()) };
                (self.state, self.work) = (Some(state), None);
                self.done(done?);
            }
            if self.out.poll_ready(cx)?.is_pending() {
                return Ok(());
            }
            if self.advance.is_some() {
                self.go_through()?;
                // It may have been a barrier that this was waiting for.
                self.sweeps_later |= self.sweeping;
                continue;
            }
            if self.loaded == 0 && self.state.as_mut().is_some_and(KeyedState::needs_tending) {
                self.tend();
                continue;
            }
            match self.line.pop_front() {
                None => {
                    if std::mem::take(&mut self.sweeps_later) && self.sweep_state()? {
                        self.sweeps_later = true;
                        cx.waker().wake_by_ref();
                    }
                    return Ok(());
                }
                Some(Input::Control(control)) => {
                    self.loaded = self.loaded.saturating_sub(1);
                    self.handle(control);
                    self.sweeps_later |= self.sweeping;
                    self.sweeps_behind |= matches!(control, Control::Barrier(_));
                }
                Some(batch @ Input::Batch(_)) if self.loaded == 0 => {
                    self.line.push_front(batch);
                    self.load()?;
                }
                Some(Input::Batch(mut batch)) => {
                    self.loaded -= 1;
                    self.records_in_line -= batch.len();
                    self.process(&mut batch, true)?;
                }
            }
        }
    }

    /// Sees to it that the tables have what the whole line needs: what is missing is read at once.
    fn load(&mut self) -> Result<()> {
        // Under a steady load there is always something to be read, and this is the only moment at which the state is here.
        if self.sweeping && self.sweep_state()? {
            self.sweeps_later = true;
        }
        let Some(state) = &self.state else { return Ok(()) };
        let mut keys: Vec<Bytes> = Vec::new();
        for input in &self.line {
            if let Input::Batch(batch) = input {
                state.missing(batch, |record, need| self.operator.needs(record, need), &mut keys)?;
            }
        }
        self.loaded = self.line.len();
        if keys.is_empty() {
            return Ok(());
        }
        self.read(keys);
        Ok(())
    }

    /// Reads entries into the tables.
    pub(super) fn read(&mut self, keys: Vec<Bytes>) {
        self.work = self.state.take().map(|mut state| -> Work<_, _> {
            Box::pin(async move {
                let loaded = state.load(keys).await;
                (state, loaded.map(|()| Done::Loaded))
            })
        });
    }

    /// Makes room in the tables, and has the backend take in what it was given.
    pub(super) fn tend(&mut self) {
        // What the line needs may have to go.
        self.loaded = 0;
        self.work = self.state.take().map(|mut state| -> Work<_, _> {
            Box::pin(async move {
                let tended = state.tend().await;
                (state, tended.map(Done::Tended))
            })
        });
    }

    /// Goes through what the clock has made due, and sees to it that the task is woken for what it will.
    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.is_free() {
            let Some(at) = self.operator.wakes_at() else {
                self.alarm = None;
                return Ok(());
            };
            let left = at.saturating_sub(wall_ms());
            if left <= 0 {
                self.tick(wall_ms())?;
                continue;
            }
            if self.alarm.as_ref().is_none_or(|(set, _)| *set != at) {
                self.alarm = Some((at, Box::pin(sleep(Duration::from_millis(left.unsigned_abs())))));
            }
            if self.alarm.as_mut().is_none_or(|(_, sleep)| sleep.as_mut().poll(cx).is_pending()) {
                return Ok(());
            }
            self.alarm = None;
        }
        Ok(())
    }

    /// All that the epoch has to say has been said.
    pub(super) fn barrier(&mut self, barrier: Barrier) {
        let Some(state) = self.state.as_mut().filter(|_| self.fault.is_none()) else { return };
        match state.freeze(barrier.epoch) {
            Ok(true) => self.sweeping = true,
            Ok(false) => self.reporter.decline(barrier.epoch, "its last snapshot is still being stored".into()),
            Err(e) => self.check(Err(e)),
        }
    }

    fn sweep_state(&mut self) -> Result<bool> {
        self.sweeps_later = self.sweeping && self.state.is_none();
        let Some(state) = self.state.as_mut().filter(|_| self.sweeping && self.fault.is_none()) else {
            return Ok(false);
        };
        let began = now();
        let swept = state.sweep(SWEEP_ENTRIES)?;
        self.stats.paused(now().duration_since(began));
        match swept {
            Swept::More => return Ok(true),
            Swept::Idle => self.sweeping = false,
            Swept::Sealed(epoch, durable) => self.acknowledge(epoch, durable),
        }
        Ok(false)
    }

    /// The snapshot has been captured: it is acknowledged when it is durable.
    fn acknowledge(&mut self, epoch: Epoch, durable: BoxFuture<'static, Result<StateHandle>>) {
        self.sweeping = false;
        let counters = [
            ("records".to_owned(), self.records_in),
            ("late".to_owned(), self.stats.late.load(Relaxed)),
            ("entries".to_owned(), self.state.as_ref().map_or(0, |state| state.len() as u64)),
        ];
        let ack = async move {
            let states = vec![durable.await?];
            Ok(Ack { states, counters: counters.into(), ..Ack::default() })
        };
        self.reporter.ack(epoch, false, Box::pin(ack));
    }
}

impl<K: Key, T: Send + 'static, Op: KeyedOperator<K, T>, O: Output<Op::Out>> BatchOutput<Keyed<K, T>>
    for KeyedNode<K, T, Op, O>
{
    fn batch(&mut self, batch: &mut Vec<Keyed<K, T>>) {
        self.records_in += batch.len() as u64;
        if batch.is_empty() || self.fault.is_some() {
            return batch.clear();
        }
        let done = if self.is_free() || self.opening.is_some() { self.process(batch, false) } else { Ok(false) };
        match done {
            Ok(true) => {}
            Ok(false) => {
                self.records_in_line += batch.len();
                self.line.push_back(Input::Batch(std::mem::take(batch)));
            }
            Err(e) => {
                batch.clear();
                self.check(Err(e));
            }
        }
    }

    fn control(&mut self, control: Control) {
        if self.is_free() || self.fault.is_some() || self.opening.is_some() {
            self.handle(control);
        } else {
            self.line.push_back(Input::Control(control));
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(opening) = &mut self.opening {
            let opened = ready!(opening.as_mut().poll(cx))?;
            self.operator.opened(&opened);
            (self.state, self.opening) = (Some(opened), None);
        }
        if self.fault.is_none() && self.has_to_go_on() {
            let gone_on = self.go_on(cx);
            self.check(gone_on);
        }
        if self.operator.uses_clock() {
            let looked = self.look_at_the_clock(cx);
            self.check(looked);
        }
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        OperatorStats::add(&self.stats.records_in, self.records_in - self.stats.records_in.load(Relaxed));
        if let Some(state) = &self.state {
            self.stats.state_entries.store(state.len() as u64, Relaxed);
        }
        if std::mem::take(&mut self.sweeps_behind) && (self.out.sweep() | self.operator.sweep_side()) {
            self.sweeps_behind = true;
            cx.waker().wake_by_ref();
        }
        let side = self.operator.poll_side(cx)?;
        let out = self.out.poll_ready(cx)?;
        let has_room = self.records_in_line < IN_LINE_MAX && self.line.len() < IN_LINE_MAX;
        if has_room && side.is_ready() && out.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn sweep(&mut self) -> bool {
        let more = self.sweep_state().unwrap_or_else(|e| {
            self.sweeping = false;
            self.check(Err(e));
            false
        });
        let side = self.operator.sweep_side();
        self.out.sweep() | more | side
    }
}

/// Whether a key is read back as itself. Those that are not, such as an option in an option, or one with fields that are
/// left out, would be lost with the first restore.
fn is_given_back<K: Key>(key: &K, hash: u64) -> bool {
    let mut bytes = Vec::new();
    let read: Result<K> = encode_key(key, &mut bytes).and_then(|()| decode_key(&bytes));
    read.is_ok_and(|read| read == *key && hash_key(&read) == hash)
}

/// Opens the state from the checkpoint; from one of another backend, or a savepoint, by taking over what is in it.
async fn open_state<K: Key, V: Value>(
    context: &AttemptContext,
    mut open: OpenContext,
    is_vacant: Option<fn(&V) -> bool>,
) -> Result<KeyedState<K, V>> {
    let backend = context.backends.of(&open.operator)?;
    let is_foreign = |handle: &StateHandle| handle.backend != backend.name();
    let (foreign, own): (Vec<_>, Vec<_>) = std::mem::take(&mut open.restore).into_iter().partition(is_foreign);
    let (range, own_is_empty) = (open.key_groups, own.is_empty());
    let taken = OpenContext { restore: Vec::new(), ..open.clone() };
    (open.restore, open.restored) = (own, open.restored.filter(|_| foreign.is_empty()));
    let (name, settings) = (open.operator.to_string(), open.settings.clone());
    let cache = usize::try_from(settings.cache.as_u64()).unwrap_or(usize::MAX);
    let opened = backend.open(open).await?;
    let mut state = KeyedState::new(&name, opened, settings.codec, context.key_groups, range, cache);
    if let Some(is_vacant) = is_vacant {
        state = state.removing(is_vacant);
    }
    if !foreign.is_empty() && !own_is_empty {
        return Err(Error::corrupt("a checkpoint has state of one operator in two backends"));
    }
    if foreign.is_empty() {
        state.restore().await?;
        return Ok(state);
    }
    for handle in foreign {
        let source = if handle.backend == savepoint::BACKEND {
            let files = serde_json::from_value(handle.data)
                .map_err(|e| Error::internal("the files of a savepoint are not named").caused_by(e))?;
            let place = context.savepoint.clone().ok_or_else(|| {
                Error::config("its state is in a savepoint").hint("set checkpoint.savepoint to the savepoint's URL")
            })?;
            Source::Files(Reader::new(place, files, range))
        } else {
            let other = context.backends.named(&handle.backend)?;
            let context = OpenContext { restore: vec![handle], ..taken.clone() };
            Source::of(other.open(context).await?, range)
        };
        state.take_over(source).await?;
    }
    Ok(state)
}
