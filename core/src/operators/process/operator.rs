//! The way of a record, and of a timer, through a process function.
//!
//! A record's state is found as that of any keyed operator; the function is called with it, and what it emits goes on
//! behind each call. Where it has set a timer that comes before the key's place in the index, the key is put there
//! afterwards: the state cannot be changed in two places at once.
//!
//! When time advances, the index names buckets to be gone through. Their keys, and those that were waiting, stand in line;
//! so many at a time have their state read, and all timers of each that are due are fired, in their order.
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{self, Poll},
};

use tidegate_checkpoint::error::{Error, Result};

use super::{
    super::{
        event_time::EventTime,
        keyed::{KeyedOperator, KeyedSpec, Visit},
    },
    Context, ProcessFunction, SideSpecs, Sides, TimeToLive, Timer,
    timers::{AFTER_THE_END, Deadlines, Due, Index},
};
use crate::{
    metrics::stats::OperatorStats,
    plan::NodeId,
    record::{Control, Keyed, Output},
    runtime::build::Build,
    state::{
        hash::{Key, hash_key},
        keyed::KeyedState,
        prefetch::prefetch,
    },
    time::{MAX, MIN, Timestamp},
};

/// Where keys' states are.
const STATE: i64 = i64::MIN;
/// Names of the indices, as visits have them, and where they begin.
const EVENT: i64 = 0;
const PROCESSING: i64 = 1;
/// Not an index: the end of the epoch.
const EPOCH: i64 = 2;
/// Where the keys are that have asked to be called then: no time's bucket.
const ASKED: i64 = i64::MAX;
const ORIGINS: [i64; 2] = [0, 1 << 61];
/// Keys whose timers are fired at once.
const AT_ONCE: usize = 256;
/// Keys that wait to be put into an index while time advances: they go to many places, and cost less together.
const PUT_OFF: usize = 2048;

/// What is kept for a key; in the namespaces of an index there is nothing.
pub type Kept<S> = Option<Box<Entry<S>>>;

/// The state of a key, and what will be done about it.
#[derive(Serialize, Deserialize)]
pub struct Entry<S> {
    state: Option<S>,
    event: Deadlines,
    processing: Option<Box<Deadlines>>,
    /// When the state goes; `MAX`: not by itself.
    expires: Timestamp,
}

impl<S> Default for Entry<S> {
    fn default() -> Self {
        Self { state: None, event: Deadlines::default(), processing: None, expires: MAX }
    }
}

impl<S> Entry<S> {
    fn is_vacant(&self) -> bool {
        let waits = self.processing.as_ref().is_some_and(|p| !p.is_empty());
        self.state.is_none() && self.event.is_empty() && !waits
    }
    fn deadlines(&mut self, kind: i64) -> Option<&mut Deadlines> {
        if kind == EVENT { Some(&mut self.event) } else { self.processing.as_deref_mut() }
    }
}

/// What a process operator is made of.
#[derive(Clone)]
pub struct ProcessSpec<P> {
    pub(crate) function: P,
    pub(crate) time_to_live: Option<TimeToLive>,
    pub(crate) sides: SideSpecs,
    /// All keys that have a state are called when an epoch ends, and not only those that have asked for it.
    pub(crate) all_at_epoch_end: bool,
}

impl<P> ProcessSpec<P> {
    pub(crate) fn new(function: P) -> Self {
        Self { function, time_to_live: None, sides: SideSpecs::default(), all_at_epoch_end: false }
    }
}

impl<K: Key, T: Send + 'static, P: ProcessFunction<K, T>> KeyedSpec<K, T> for ProcessSpec<P> {
    type Operator = ProcessOperator<K, T, P>;
    fn operator(&self, build: &mut Build<'_>, node: NodeId) -> Self::Operator {
        ProcessOperator {
            caller: Caller {
                function: self.function.clone(),
                time_to_live: self.time_to_live,
                clock: MIN,
                out: Vec::new(),
                sides: self.sides.build(build),
                late: 0,
                skipped: 0,
                asks: false,
                fault: None,
            },
            indices: ORIGINS.map(Index::new),
            time: EventTime::default(),
            line: VecDeque::new(),
            to_index: Default::default(),
            asking: Vec::new(),
            has_asked: false,
            all_at_epoch_end: self.all_at_epoch_end,
            looked_at: Vec::new(),
            stats: build.stats(node),
            emitted: 0,
        }
    }
}

/// The operator in one subtask.
pub struct ProcessOperator<K: Key, T, P: ProcessFunction<K, T>> {
    caller: Caller<P, P::Output>,
    indices: [Index<K>; 2],
    time: EventTime,
    /// Keys that are due, of which kind of time, and whether a bucket had them.
    line: VecDeque<(i64, bool, Due<K>)>,
    /// Keys that have to be in an index from now on, by kind.
    to_index: [Vec<Keyed<K, ()>>; 2],
    /// Keys that ask for the end of the epoch; and whether any has in this one.
    asking: Vec<Keyed<K, ()>>,
    has_asked: bool,
    all_at_epoch_end: bool,
    /// The head of the line, as it is looked at; kept for its memory.
    looked_at: Vec<Keyed<K, (i64, bool)>>,
    stats: Arc<OperatorStats>,
    emitted: u64,
}

/// Calls the user's function.
struct Caller<P, U> {
    function: P,
    time_to_live: Option<TimeToLive>,
    clock: Timestamp,
    out: Vec<(U, Timestamp)>,
    sides: Sides,
    late: u64,
    skipped: u64,
    /// The call asks for the end of the epoch.
    asks: bool,
    fault: Option<Error>,
}

impl<P, U> Caller<P, U> {
    /// Calls it with the state of an entry, which it may give up.
    #[inline(always)]
    fn call<K, S: Default>(
        &mut self,
        entry: &mut Entry<S>,
        (key, at, watermark): (&K, Timestamp, Timestamp),
        call: impl FnOnce(&mut P, &mut S, &mut Context<'_, K, U>),
    ) {
        let Entry { state, event, processing, expires } = entry;
        let mut context = Context {
            key,
            at,
            watermark,
            now: self.clock,
            event,
            processing,
            out: &mut self.out,
            sides: &mut self.sides,
            late: &mut self.late,
            skipped: &mut self.skipped,
            asks: &mut self.asks,
            fault: &mut self.fault,
            cleared: false,
        };
        call(&mut self.function, state.get_or_insert_default(), &mut context);
        if context.cleared {
            (*state, *expires) = (None, MAX);
        }
    }

    /// A record has used the state.
    fn used<S>(&self, entry: &mut Entry<S>, at: Timestamp) {
        if let Some(time_to_live) = self.time_to_live.filter(|_| entry.state.is_some()) {
            let used = if matches!(time_to_live, TimeToLive::EventTime(_)) { at } else { self.clock };
            let until = used.saturating_add(time_to_live.millis());
            entry.expires = if entry.expires == MAX { until } else { entry.expires.max(until) };
        }
    }

    /// When something of an entry is next to be looked at.
    fn next<S>(&self, entry: &Entry<S>, kind: i64) -> Timestamp {
        let timers = if kind == EVENT { Some(&entry.event) } else { entry.processing.as_deref() };
        let timer = timers.and_then(Deadlines::first).unwrap_or(MAX);
        if self.expires(kind) { timer.min(entry.expires) } else { timer }
    }

    /// Whether it is this kind of time that makes state go.
    fn expires(&self, kind: i64) -> bool {
        match self.time_to_live {
            None => false,
            Some(TimeToLive::EventTime(_)) => kind == EVENT,
            Some(TimeToLive::ProcessingTime(_)) => kind == PROCESSING,
        }
    }

    /// Sees to it that a key's place in an index is not behind what is next; the time, if it has to be put there.
    #[inline(always)]
    fn place<S>(&self, entry: &mut Entry<S>, kind: i64) -> Option<Timestamp> {
        let next = self.next(entry, kind);
        if next == MAX {
            return None;
        }
        let deadlines = match kind {
            EVENT => &mut entry.event,
            _ => entry.processing.get_or_insert_default(),
        };
        let is_behind = deadlines.indexed > next;
        if is_behind {
            deadlines.indexed = next;
        }
        is_behind.then_some(next)
    }

    /// Fires what is due of a key; when something of it is next to be looked at, if the index does not say so.
    fn fire<K, T, S>(
        &mut self,
        entry: &mut Entry<S>,
        kind: i64,
        now: Timestamp,
        (key, watermark): (&K, Timestamp),
    ) -> Option<Timestamp>
    where
        K: Key,
        P: ProcessFunction<K, T, State = S, Output = U>,
        S: Default,
    {
        let mut last = None;
        // When all time is over, what is set meanwhile is not due.
        let mut all = if now == MAX {
            entry.deadlines(kind).map(Deadlines::take).unwrap_or_default().into_iter()
        } else {
            Vec::new().into_iter()
        };
        loop {
            let next = match entry.deadlines(kind) {
                _ if now == MAX => all.next(),
                Some(deadlines) => deadlines.next_due(last, now),
                None => None,
            };
            if self.expires(kind) && entry.expires <= next.unwrap_or(now) {
                (entry.state, entry.expires) = (None, MAX);
            }
            let Some(at) = next else { break };
            last = Some(at);
            let (timer, time) = match kind {
                EVENT => (Timer::Event(at), at),
                _ => (Timer::Processing(at), watermark),
            };
            self.call(entry, (key, time, watermark), |f, state, context| f.on_timer(timer, state, context));
        }
        let next = self.next(entry, kind);
        let deadlines = entry.deadlines(kind)?;
        deadlines.indexed = match next {
            MAX => MAX,
            _ if now == MAX => AFTER_THE_END,
            // What is in the past is due when time advances again.
            next => next.max(now.saturating_add(1)),
        };
        (next < MAX).then_some(next)
    }
}

impl<K: Key, T: Send + 'static, P: ProcessFunction<K, T>> ProcessOperator<K, T, P> {
    /// Puts keys where time will find them.
    fn index(&mut self, state: &mut KeyedState<K, Kept<P::State>>) -> Result<()> {
        for (index, to_index) in self.indices.iter_mut().zip(&mut self.to_index) {
            if !to_index.is_empty() {
                index.insert(state, to_index, || None)?;
            }
        }
        if !self.asking.is_empty() {
            self.has_asked = true;
            state.update_while(ASKED, &mut self.asking.drain(..), |_| true, || None, |_, _| ())?;
        }
        Ok(())
    }

    /// Looks at the first keys in line.
    fn look<O: Output<P::Output>>(&mut self, state: &mut KeyedState<K, Kept<P::State>>, out: &mut O) -> Result<()> {
        let Self { caller, indices, to_index, asking, time, emitted, line, looked_at, .. } = self;
        let head = line.drain(..line.len().min(AT_ONCE));
        looked_at.extend(head.map(|(kind, in_bucket, Due { at, hash, key })| Keyed {
            hash,
            key,
            record: (kind, in_bucket),
            at,
        }));
        let mut keys = looked_at.drain(..);
        while let Some(next) = keys.as_slice().first() {
            let (watermark, only) = (time.of(state, next.hash), time.only(next.hash));
            state.update_touched(
                (STATE, false),
                &mut keys,
                |next| only.is_none_or(|hash| hash == next.hash),
                || Some(Box::default()),
                |kept| touch(kept.as_deref()),
                |kept, Keyed { hash, key, record: (kind, in_bucket), .. }| {
                    let Some(entry) = kept else { return };
                    let next = if kind == EPOCH {
                        if entry.state.is_some() {
                            // The first moment that is not late.
                            let at = if watermark == MIN { MIN } else { watermark.saturating_add(1) };
                            caller.call(entry, (&key, at, watermark), P::epoch_ends);
                        }
                        caller.asks = false;
                        caller.place(entry, EVENT)
                    } else {
                        let index = &mut indices[kind as usize];
                        let now = index.now;
                        let indexed = entry.deadlines(kind).map_or(MAX, |deadlines| deadlines.indexed);
                        if indexed > now {
                            // It was here once, or is not due yet.
                            if in_bucket && indexed < MAX {
                                index.is_near(Due { at: indexed, hash, key });
                            }
                            return;
                        }
                        if now == MAX && indexed == AFTER_THE_END {
                            return;
                        }
                        caller.fire::<K, T, P::State>(entry, kind, now, (&key, watermark))
                    };
                    *emitted += caller.out.len() as u64;
                    caller.out.drain(..).for_each(|(record, at)| out.record(record, at));
                    if std::mem::take(&mut caller.asks) {
                        asking.push(Keyed { hash, key: key.clone(), record: (), at: MIN });
                    }
                    let this = if kind == PROCESSING { PROCESSING } else { EVENT };
                    let other = EVENT + PROCESSING - this;
                    let places = [(this, next), (other, caller.place(entry, other))];
                    for (kind, at) in places.into_iter().filter_map(|(kind, at)| Some((kind, at?))) {
                        to_index[kind as usize].push(Keyed { hash, key: key.clone(), record: (), at });
                    }
                },
            )?;
        }
        drop(keys);
        if self.to_index.iter().any(|keys| keys.len() >= PUT_OFF) { self.index(state) } else { Ok(()) }
    }

    /// Calls those that have asked for the end of the epoch.
    fn ends(&mut self) -> Vec<Visit> {
        if std::mem::take(&mut self.has_asked) {
            vec![Visit::Fire(EPOCH, vec![ASKED]), Visit::Discard(ASKED)]
        } else {
            Vec::new()
        }
    }

    fn check(&mut self) -> Result<()> {
        match self.caller.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Keys whose bucket has been entered before and that are due now go to the line.
    fn refill(&mut self) {
        for (kind, index) in [EVENT, PROCESSING].into_iter().zip(&mut self.indices) {
            while self.line.len() < AT_ONCE
                && let Some(due) = index.pop()
            {
                self.line.push_back((kind, false, due));
            }
        }
    }
}

/// Asks for the entry of a key before it is needed: it may lie in two lines.
#[inline(always)]
fn touch<S>(entry: Option<&Entry<S>>) {
    if let Some(entry) = entry {
        prefetch(&entry.state);
        prefetch(&entry.event);
        prefetch(&entry.expires);
    }
}

impl<K: Key, T: Send + 'static, P: ProcessFunction<K, T>> KeyedOperator<K, T> for ProcessOperator<K, T, P> {
    type Value = Kept<P::State>;
    type Out = P::Output;
    const IS_VACANT: Option<fn(&Self::Value) -> bool> = Some(|kept| kept.as_ref().is_some_and(|e| e.is_vacant()));

    fn opened(&mut self, state: &KeyedState<K, Self::Value>) {
        self.time = EventTime::opened(state);
        self.indices.iter_mut().for_each(|index| index.opened(state));
    }

    fn process<O: Output<Self::Out>>(
        &mut self,
        state: &mut KeyedState<K, Self::Value>,
        records: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) -> Result<()> {
        let Self { caller, to_index, asking, emitted, time, .. } = self;
        let mut records = records.drain(..);
        while let Some(next) = records.as_slice().first() {
            let (watermark, only) = (time.of(state, next.hash), time.only(next.hash));
            state.update_touched(
                (STATE, false),
                &mut records,
                |next| only.is_none_or(|hash| hash == next.hash),
                || Some(Box::default()),
                |kept| touch(kept.as_deref()),
                |kept, Keyed { hash, key, record, at }| {
                    let entry = kept.get_or_insert_default();
                    caller.call(entry, (&key, at, watermark), |f, state, context| f.process(record, state, context));
                    caller.used(entry, at);
                    if std::mem::take(&mut caller.asks) {
                        asking.push(Keyed { hash, key: key.clone(), record: (), at });
                    }
                    for kind in [EVENT, PROCESSING] {
                        if let Some(at) = caller.place(entry, kind) {
                            to_index[kind as usize].push(Keyed { hash, key: key.clone(), record: (), at });
                        }
                    }
                    *emitted += caller.out.len() as u64;
                    caller.out.drain(..).for_each(|(record, at)| out.record(record, at));
                },
            )?;
        }
        drop(records);
        self.index(state)?;
        self.check()
    }

    fn needs(&self, _: &Keyed<K, T>, need: &mut dyn FnMut(i64)) {
        need(STATE);
    }

    fn advance(&mut self, state: &mut KeyedState<K, Self::Value>, watermark: Timestamp) -> Vec<Visit> {
        self.time.advance(state, watermark);
        let mut visits = self.indices[EVENT as usize].advance(watermark, EVENT);
        if watermark == MAX {
            // Behind the last watermark what is told would be late.
            visits.extend(self.ends());
        }
        visits
    }

    fn epoch_ends(&mut self, _: &mut KeyedState<K, Self::Value>) -> Vec<Visit> {
        if self.all_at_epoch_end { vec![Visit::Fire(EPOCH, vec![STATE])] } else { self.ends() }
    }

    fn fire<O: Output<Self::Out>>(
        &mut self,
        _: &KeyedState<K, Self::Value>,
        kind: i64,
        (key, _): (&K, &Self::Value),
        _: &mut O,
    ) {
        let due = Due { at: MIN, hash: hash_key(key), key: key.clone() };
        self.line.push_back((kind, true, due));
    }

    fn wants(&self, want: &mut dyn FnMut(i64, u64, &K)) {
        self.line.iter().take(AT_ONCE).for_each(|(_, _, due)| want(STATE, due.hash, &due.key));
    }

    fn due<O: Output<Self::Out>>(&mut self, state: &mut KeyedState<K, Self::Value>, out: &mut O) -> Result<bool> {
        self.look(state, out)?;
        self.check()?;
        self.refill();
        Ok(!self.line.is_empty())
    }

    fn advanced(&mut self) -> Vec<Visit> {
        self.time.advanced();
        Vec::new()
    }

    fn settle(&mut self, state: &mut KeyedState<K, Self::Value>) -> Result<()> {
        self.index(state)
    }

    fn uses_clock(&self) -> bool {
        true
    }
    fn clock(&mut self, now: Timestamp) {
        self.caller.clock = now;
    }
    fn wakes_at(&self) -> Option<Timestamp> {
        self.indices[PROCESSING as usize].next()
    }
    fn tick(&mut self, _: &mut KeyedState<K, Self::Value>, now: Timestamp) -> Vec<Visit> {
        self.caller.clock = now;
        self.indices[PROCESSING as usize].advance(now, PROCESSING)
    }

    fn side(&mut self, control: Control) {
        self.caller.sides.control(control);
    }
    fn poll_side(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<()>> {
        self.stats.records_out.store(self.emitted, Relaxed);
        self.stats.late.store(self.caller.late, Relaxed);
        self.stats.skipped.store(self.caller.skipped, Relaxed);
        self.caller.sides.poll_ready(cx)
    }
    fn sweep_side(&mut self) -> bool {
        self.caller.sides.sweep()
    }
}
