//! What every keyed operator has in common: its place in the plan, its input, its state's life.
//!
//! At parallelism 1 the operator is fused into its upstream's chain (`KeyBy`); else it is the head of a
//! task behind an exchange. Either way records come to `KeyedNode` in batches, with key and hash.
//!
//! How its state lives is in `node`.
use std::{
    marker::PhantomData,
    task::{Context, Poll},
};

use tidegate_checkpoint::error::Result;

pub use super::advance::Visit;
use super::node::KeyedNode;
use crate::{
    api::{keyed::KeyedStream, stream::Stream},
    plan::{Graph, NodeId},
    record::{BatchOutput, Control, Keyed, Output},
    runtime::{build::Build, exchange::Exchange, gate},
    state::{
        hash::{Key, hash_key},
        keyed::KeyedState,
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
    /// Which entries are as none: to remove one is to make its value such. `None`: no entry is ever removed.
    const IS_VACANT: Option<fn(&Self::Value) -> bool> = None;

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

    /// Names the namespaces in which `process` would look for entries of a record's key. Where the tables hold a part of
    /// the state, those are read before.
    fn needs(&self, record: &Keyed<K, T>, need: &mut dyn FnMut(i64));

    /// The watermark has advanced; it is passed on afterwards. Says what is to be gone through before, in this order.
    fn advance(&mut self, state: &mut KeyedState<K, Self::Value>, watermark: Timestamp) -> Vec<Visit> {
        let _ = (state, watermark);
        Vec::new()
    }

    /// How far behind the watermark the times of what is emitted may be: the watermark is passed on with so much less.
    fn hold_back(&self) -> i64 {
        0
    }

    /// One of the entries of the namespaces that fire under this name.
    fn fire<O: Output<Self::Out>>(
        &mut self,
        state: &KeyedState<K, Self::Value>,
        name: i64,
        entry: (&K, &Self::Value),
        out: &mut O,
    ) {
        let _ = (state, name, entry, out);
    }

    /// Names the entries that `due` would look at, by namespace, hash and key: they are read before.
    fn wants(&self, want: &mut dyn FnMut(i64, u64, &K)) {
        let _ = want;
    }

    /// All entries of a key group have fired, or all that is due has been gone through: what comes of it is done, as much
    /// of it as `wants` has named. Returns whether there is more.
    ///
    /// # Errors
    /// As `process`.
    fn due<O: Output<Self::Out>>(&mut self, state: &mut KeyedState<K, Self::Value>, out: &mut O) -> Result<bool> {
        let _ = (state, out);
        Ok(false)
    }

    /// All visits have been made: what has been put off until then is written.
    ///
    /// # Errors
    /// As `process`.
    fn settle(&mut self, state: &mut KeyedState<K, Self::Value>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// Everything that `advance` or `tick` has named has been gone through. Says what is to be gone through yet.
    fn advanced(&mut self) -> Vec<Visit> {
        Vec::new()
    }

    /// An epoch ends here: the barrier has come, and neither has the state been frozen nor the barrier been passed on. Says
    /// what is to be gone through before; what comes of it is of the epoch that ends. As `advance`.
    fn epoch_ends(&mut self, state: &mut KeyedState<K, Self::Value>) -> Vec<Visit> {
        let _ = state;
        Vec::new()
    }

    /// Whether it has anything to do with processing time.
    fn uses_clock(&self) -> bool {
        false
    }
    /// Before a batch: the machine's clock.
    fn clock(&mut self, now: Timestamp) {
        let _ = now;
    }
    /// When the clock makes something due.
    fn wakes_at(&self) -> Option<Timestamp> {
        None
    }
    /// The clock has made something due. As `advance`.
    fn tick(&mut self, state: &mut KeyedState<K, Self::Value>, now: Timestamp) -> Vec<Visit> {
        let _ = (state, now);
        Vec::new()
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
pub struct KeyedStreamOp<I, Spec, K> {
    pub(crate) input: I,
    pub(crate) spec: Spec,
    name: String,
    node: NodeId,
    keys: PhantomData<fn() -> K>,
}

impl<I, Spec, K> KeyedStreamOp<I, Spec, K> {
    pub(crate) fn new(input: I, spec: Spec, name: &str, node: NodeId) -> Self {
        Self { input, spec, name: name.to_owned(), node, keys: PhantomData }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl<I, Spec, K> Stream for KeyedStreamOp<I, Spec, K>
where
    K: Key,
    I: KeyedInput<K>,
    Spec: KeyedSpec<K, I::Record>,
{
    type Item = <Spec::Operator as KeyedOperator<K, I::Record>>::Out;

    fn graph(&self) -> &Graph {
        self.input.graph()
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn attach<O: Output<Self::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let operator = self.spec.operator(build, self.node);
        let node = KeyedNode::new(build, &self.name, self.node, operator, out)?;
        self.input.attach(build, self.node, node)
    }
}

/// What a keyed operator reads: one stream or two, partitioned by a key.
pub trait KeyedInput<K: Key>: Send + Sync + 'static {
    /// A record, of whichever stream.
    type Record: Send + 'static;
    /// The graph that it belongs to.
    fn graph(&self) -> &Graph;
    /// The nodes of its streams.
    fn nodes(&self) -> Vec<NodeId>;
    /// Instantiates its streams for one subtask, with `target` at their end, which is that of `node`.
    ///
    /// # Errors
    /// As [`Stream::attach`].
    fn attach<P: BatchOutput<Keyed<K, Self::Record>>>(
        &self,
        build: &mut Build<'_>,
        node: NodeId,
        target: P,
    ) -> Result<()>;
}

impl<S, K, F> KeyedInput<K> for KeyedStream<S, F>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    type Record = S::Item;
    fn graph(&self) -> &Graph {
        self.upstream.graph()
    }
    fn nodes(&self) -> Vec<NodeId> {
        vec![self.upstream.node()]
    }
    fn attach<P: BatchOutput<Keyed<K, S::Item>>>(&self, build: &mut Build<'_>, node: NodeId, target: P) -> Result<()> {
        let key = self.key.clone();
        if build.parallelism() == 1 {
            let batch = Vec::with_capacity(FUSED_BATCH);
            return self.upstream.attach(build, KeyBy { key, batch, input: target });
        }
        let (lanes, inlets) = build.exchange::<K, S::Item>(node, 0)?;
        gate::task(build, node, inlets, target);
        let key_groups = build.context().key_groups;
        self.upstream.attach(build, Exchange::new(key, |record| record, lanes, key_groups))
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
