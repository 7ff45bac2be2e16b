//! What every keyed operator has in common: its place in the plan, its input, its state's life.
//!
//! At parallelism 1 the operator is fused into its upstream's chain (`KeyBy`); else it is the head of a
//! task behind an exchange. Either way records come to `KeyedNode` in batches, with key and hash.
//!
//! The life of the state runs through the same few calls as everything else: it is loaded in the first
//! `poll_ready`, frozen at a barrier, captured piece by piece in `sweep`, and the sealed snapshot goes to
//! the coordinator through the reporter. A checkpoint for which the last snapshot is still on its way is
//! declined.
use futures::future::BoxFuture;
use std::{
    marker::PhantomData,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use tidegate_checkpoint::{
    coordinator::Ack,
    error::{Error, Result},
    ids::OperatorId,
};

use crate::{
    api::stream::Stream,
    env::now,
    metrics::stats::OperatorStats,
    plan::{Graph, NodeId},
    record::{Barrier, BatchOutput, Control, Keyed, Output},
    runtime::{build::Build, exchange::Exchange, gate, reporter::Reporter},
    state::{
        backend::OpenContext,
        hash::{Key, check_key, hash_key},
        keyed::{KeyedState, Swept},
        table::Value,
    },
    time::Timestamp,
};

/// A keyed operator, in one subtask. It does no I/O and reads no clock.
pub trait KeyedOperator<K: Key, T>: Send + 'static {
    /// What it keeps for each key.
    type Value: Value;
    /// What it emits.
    type Out: Send + 'static;

    /// Takes a batch and leaves it empty.
    ///
    /// # Errors
    /// Fails the attempt: those of [`KeyedState::update_while`].
    fn process<O: Output<Self::Out>>(
        &mut self,
        state: &mut KeyedState<K, Self::Value>,
        records: &mut Vec<Keyed<K, T>>,
        out: &mut O,
    ) -> Result<()>;

    /// The state has been loaded; called once, before anything else.
    fn opened(&mut self, state: &KeyedState<K, Self::Value>) {
        let _ = state;
    }

    /// The watermark has advanced; it is passed on afterwards.
    ///
    /// # Errors
    /// Fails the attempt.
    fn watermark<O: Output<Self::Out>>(
        &mut self,
        state: &mut KeyedState<K, Self::Value>,
        watermark: Timestamp,
        out: &mut O,
    ) -> Result<()> {
        let _ = (state, watermark, out);
        Ok(())
    }

    /// A control for its side streams.
    fn side(&mut self, control: Control) {
        let _ = control;
    }
    /// As [`Output::poll_ready`], of its side streams; also where its counters are published.
    ///
    /// # Errors
    /// As there.
    fn poll_side(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }
    /// As [`Output::sweep`], of its side streams.
    fn sweep_side(&mut self) -> bool {
        false
    }
}

/// Makes the operator of each subtask.
pub trait KeyedSpec<K: Key, T>: Send + Sync + 'static {
    /// The operator.
    type Operator: KeyedOperator<K, T>;
    /// For the subtask that is being built; `node` is its node.
    fn operator(&self, build: &mut Build<'_>, node: NodeId) -> Self::Operator;
}

/// A keyed operator as a stream.
pub struct KeyedStreamOp<S, F, Spec, K> {
    upstream: S,
    key: F,
    spec: Spec,
    name: String,
    node: NodeId,
    keys: PhantomData<fn() -> K>,
}

impl<S: Stream, F, Spec, K> KeyedStreamOp<S, F, Spec, K> {
    pub(crate) fn new(upstream: S, key: F, spec: Spec, name: &str, node: NodeId) -> Self {
        Self { upstream, key, spec, name: name.to_owned(), node, keys: PhantomData }
    }
}

impl<S, F, Spec, K> Stream for KeyedStreamOp<S, F, Spec, K>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
    Spec: KeyedSpec<K, S::Item>,
{
    type Item = <Spec::Operator as KeyedOperator<K, S::Item>>::Out;

    fn graph(&self) -> &Graph {
        self.upstream.graph()
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn attach<O: Output<Self::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let operator = self.spec.operator(build, self.node);
        let input = KeyedNode::new(build, &self.name, self.node, operator, out)?;
        if build.parallelism() == 1 {
            return self
                .upstream
                .attach(build, KeyBy { key: self.key.clone(), batch: Vec::with_capacity(FUSED_BATCH), input });
        }
        let (lanes, inlets) = build.exchange::<K, S::Item>(self.node)?;
        gate::task(build, self.node, inlets, input);
        let key_groups = build.context().key_groups;
        self.upstream.attach(build, Exchange::new(self.key.clone(), lanes, key_groups))
    }
}

/// Records collected before the state is updated: enough for their cache misses to overlap, few enough to stay in
/// the first-level cache themselves. (An exchange has larger batches, which cost less to hand over.)
const FUSED_BATCH: usize = 256;

/// The end of the upstream's chain when the operator is fused into it.
struct KeyBy<F, K, T, P> {
    key: F,
    batch: Vec<Keyed<K, T>>,
    input: P,
}

impl<F, K, T, P: BatchOutput<Keyed<K, T>>> KeyBy<F, K, T, P> {
    fn hand_on(&mut self) {
        if !self.batch.is_empty() {
            self.input.batch(&mut self.batch);
        }
    }
}

impl<T, K, F, P> Output<T> for KeyBy<F, K, T, P>
where
    T: Send + 'static,
    K: Key,
    F: Fn(&T) -> K + Send + 'static,
    P: BatchOutput<Keyed<K, T>>,
{
    #[inline(always)]
    fn record(&mut self, record: T, at: Timestamp) {
        let key = (self.key)(&record);
        let hash = hash_key(&key);
        self.batch.push(Keyed { hash, key, record, at });
        if self.batch.len() >= FUSED_BATCH {
            self.hand_on();
        }
    }
    fn control(&mut self, control: Control) {
        self.hand_on();
        self.input.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.input.poll_ready(cx)
    }
    fn sweep(&mut self) -> bool {
        let sweeping = self.input.sweep();
        // A batch that has to capture what it changes is kept small.
        if sweeping {
            self.hand_on();
        }
        sweeping
    }
}

/// Entries captured in one slice of sweeping.
const SWEEP_ENTRIES: u64 = 4096;

type Opening<K, V> = BoxFuture<'static, Result<KeyedState<K, V>>>;

/// The running operator with its state.
struct KeyedNode<K, T, Op: KeyedOperator<K, T>, O>
where
    K: Key,
{
    operator: Op,
    state: Option<KeyedState<K, Op::Value>>,
    opening: Option<Opening<K, Op::Value>>,
    out: O,
    reporter: Reporter,
    stats: Arc<OperatorStats>,
    fault: Option<Error>,
    sweeping: bool,
    records_in: u64,
    input: PhantomData<fn(T)>,
}

impl<K: Key, T: Send + 'static, Op: KeyedOperator<K, T>, O: Output<Op::Out>> KeyedNode<K, T, Op, O> {
    fn new(build: &mut Build<'_>, name: &str, node: NodeId, operator: Op, out: O) -> Result<Self> {
        let id = OperatorId::new(name)?;
        let context = build.context().clone();
        let range = build.key_group_range();
        let open = OpenContext {
            store: context.store.clone(),
            operator: id.clone(),
            subtask: build.subtask(),
            attempt: context.attempt,
            key_groups: range,
            restore: build.restored_state(&id),
        };
        let opening = Box::pin(async move {
            let name = open.operator.to_string();
            let backend = context.backends.open(open).await.map_err(|e| e.at(format!("state of operator {name}")))?;
            let mut state = KeyedState::new(&name, backend, context.codec, context.key_groups, range)?;
            state.restore().await?;
            Ok(state)
        });
        Ok(Self {
            operator,
            state: None,
            opening: Some(opening),
            out,
            reporter: build.reporter(id),
            stats: build.stats(node),
            fault: None,
            sweeping: false,
            records_in: 0,
            input: PhantomData,
        })
    }

    fn check(&mut self, result: Result<()>) {
        if let Err(e) = result {
            let name = &self.reporter.participant().operator;
            self.fault.get_or_insert(e.at(format!("operator {name}")));
        }
    }

    fn process(&mut self, batch: &mut Vec<Keyed<K, T>>) -> Result<()> {
        let Some(state) = &mut self.state else {
            return Err(Error::internal("records came before the state was loaded"));
        };
        // What has no canonical encoding hashes to 0, and next to nothing else does.
        if let Some(why) = batch.iter().filter(|r| r.hash == 0).find_map(|r| check_key(&r.key).err()) {
            let key = std::any::type_name::<K>();
            return Err(Error::config(format!("the key type {key} cannot be used: {why}"))
                .hint("use integers, strings, bytes, and structs, tuples, enums or vectors of them"));
        }
        // While sweeping, every record may have to capture a sub-shard.
        let began = self.sweeping.then(now);
        self.operator.process(state, batch, &mut self.out)?;
        if let Some(began) = began {
            self.stats.paused(now().duration_since(began));
        }
        Ok(())
    }

    fn barrier(&mut self, barrier: Barrier) {
        let Some(state) = self.state.as_mut().filter(|_| self.fault.is_none()) else { return };
        match state.freeze(barrier.epoch) {
            Ok(true) => self.sweeping = true,
            Ok(false) => self.reporter.decline(barrier.epoch, "its last snapshot is still being stored".into()),
            Err(e) => self.check(Err(e)),
        }
    }

    fn sweep_state(&mut self) -> Result<bool> {
        let Some(state) = self.state.as_mut().filter(|_| self.sweeping && self.fault.is_none()) else {
            return Ok(false);
        };
        let began = now();
        let swept = state.sweep(SWEEP_ENTRIES)?;
        self.stats.paused(now().duration_since(began));
        match swept {
            Swept::More => return Ok(true),
            Swept::Idle => {}
            Swept::Sealed(epoch, durable) => {
                let counters = [
                    ("records".to_owned(), self.records_in),
                    ("late".to_owned(), self.stats.late.load(Relaxed)),
                    ("entries".to_owned(), state.len() as u64),
                ];
                let ack = async move {
                    let states = vec![durable.await?];
                    Ok(Ack { states, counters: counters.into(), ..Ack::default() })
                };
                self.reporter.ack(epoch, false, Box::pin(ack));
            }
        }
        self.sweeping = false;
        Ok(false)
    }
}

impl<K: Key, T: Send + 'static, Op: KeyedOperator<K, T>, O: Output<Op::Out>> BatchOutput<Keyed<K, T>>
    for KeyedNode<K, T, Op, O>
{
    fn batch(&mut self, batch: &mut Vec<Keyed<K, T>>) {
        self.records_in += batch.len() as u64;
        if self.fault.is_none() && !batch.is_empty() {
            let result = self.process(batch);
            self.check(result);
        }
        batch.clear();
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Watermark(watermark) => {
                self.stats.watermark.store(watermark, Relaxed);
                if let Some(state) = &mut self.state {
                    let result = self.operator.watermark(state, watermark, &mut self.out);
                    self.check(result);
                }
            }
            Control::Barrier(barrier) => self.barrier(barrier),
            Control::Marker(made) => self.stats.latency(now().duration_since(made).as_micros() as u64),
            Control::Idle | Control::Flush => {}
        }
        self.out.control(control);
        self.operator.side(control);
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(opening) = &mut self.opening {
            let opened = ready!(opening.as_mut().poll(cx))?;
            self.operator.opened(&opened);
            (self.state, self.opening) = (Some(opened), None);
        }
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        OperatorStats::add(&self.stats.records_in, self.records_in - self.stats.records_in.load(Relaxed));
        if let Some(state) = &self.state {
            self.stats.state_entries.store(state.len() as u64, Relaxed);
        }
        let side = self.operator.poll_side(cx)?;
        let out = self.out.poll_ready(cx)?;
        if side.is_ready() && out.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
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
