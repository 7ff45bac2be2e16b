//! What users write of process functions and connected streams.
use crate::{
    operators::{
        connected::{Connected, Either},
        keyed::{KeyedInput, KeyedStreamOp},
        process::{Context, OutputTag, ProcessFunction, ProcessSpec, TimeToLive, Timer},
        shared::BoxedStream,
    },
    plan::{NodeId, NodeKind, StateBound},
    state::{hash::Key, table::Value},
};

use super::{keyed::KeyedStream, stream::Stream};

/// A process function as a stream, of which more may be said before it is used.
pub type ProcessStream<I, P, K> = KeyedStreamOp<I, ProcessSpec<P>, K>;

pub(crate) fn node<K: Key>(input: &impl KeyedInput<K>, operator: &str, name: &str) -> NodeId {
    input.graph().add(NodeKind::Keyed, operator, Some(name), &input.nodes())
}

impl<S, K, F> KeyedStream<S, F>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    /// Gives each record to a function of yours, with the state of its key: see [`ProcessFunction`].
    ///
    /// ```
    /// use tidegate_core::{Context, ProcessFunction, Stream, TimeToLive};
    /// use std::time::Duration;
    /// /// Every tenth record of a key.
    /// #[derive(Clone)]
    /// struct EveryTenth;
    /// impl ProcessFunction<u64, String> for EveryTenth {
    ///     type State = u8;
    ///     type Output = String;
    ///     fn process(&mut self, record: String, seen: &mut u8, ctx: &mut Context<'_, u64, String>) {
    ///         *seen += 1;
    ///         if *seen == 10 {
    ///             ctx.emit(record);
    ///             ctx.clear();
    ///         }
    ///     }
    /// }
    /// fn thin_out(lines: impl Stream<Item = String>) -> impl Stream<Item = String> {
    ///     lines
    ///         .key_by(|line| line.len() as u64)
    ///         .process("tenth", EveryTenth)
    ///         .time_to_live(TimeToLive::ProcessingTime(Duration::from_secs(3600)))
    /// }
    /// ```
    pub fn process<P: ProcessFunction<K, S::Item>>(self, name: &str, function: P) -> ProcessStream<Self, P, K> {
        self.process_as("process", name, function)
    }

    /// As the plan shows it under another name.
    pub(crate) fn process_as<P>(self, operator: &str, name: &str, function: P) -> ProcessStream<Self, P, K>
    where
        P: ProcessFunction<K, S::Item>,
    {
        let node = node(&self, operator, name);
        KeyedStreamOp::new(self, ProcessSpec::new(function), name, node)
    }

    /// Puts another keyed stream beside this one, to be read by one operator with state for the keys of both.
    pub fn connect<S2, F2>(self, other: KeyedStream<S2, F2>) -> Connected<S, F, S2, F2>
    where
        S2: Stream,
        F2: Fn(&S2::Item) -> K + Clone + Send + Sync + 'static,
    {
        Connected::new(self, other)
    }
}

impl<I, P, K> KeyedStreamOp<I, ProcessSpec<P>, K>
where
    K: Key,
    I: KeyedInput<K>,
    P: ProcessFunction<K, I::Record>,
{
    /// Lets the state of keys go that are not used: without it a state without end is kept, if the function does not
    /// clear it.
    #[must_use]
    pub fn time_to_live(mut self, time_to_live: TimeToLive) -> Self {
        let (TimeToLive::EventTime(of) | TimeToLive::ProcessingTime(of)) = time_to_live;
        self.graph().bound_state(self.node(), StateBound::TimeToLive(of));
        self.spec.time_to_live = Some(time_to_live);
        self
    }

    /// Says by what else the state is bounded, for `explain` to show: that the function clears it, for example.
    #[must_use]
    pub fn bounded_by(self, what: &str) -> Self {
        self.graph().bound_state(self.node(), StateBound::By(what.to_owned()));
        self
    }

    /// The stream of what the function emits under a tag.
    pub fn side_output<T: Clone + Send + 'static>(&mut self, tag: &OutputTag<T>) -> BoxedStream<T> {
        let side = BoxedStream::side(self.graph(), self.node(), tag.name());
        self.spec.sides.take(tag, side.node());
        side
    }
}

/// A user's own operator over two streams: [`ProcessFunction`] with records of two types.
///
/// As Flink's `KeyedCoProcessFunction`.
pub trait CoProcessFunction<K: Key, L, R>: Clone + Send + Sync + 'static {
    /// As [`ProcessFunction::State`]: one for the records of both.
    type State: Value + Default;
    /// What comes out.
    type Output: Send + 'static;
    /// Takes a record of the first stream.
    fn left(&mut self, record: L, state: &mut Self::State, ctx: &mut Context<'_, K, Self::Output>);
    /// Takes a record of the second stream.
    fn right(&mut self, record: R, state: &mut Self::State, ctx: &mut Context<'_, K, Self::Output>);
    /// As [`ProcessFunction::on_timer`].
    fn on_timer(&mut self, timer: Timer, state: &mut Self::State, ctx: &mut Context<'_, K, Self::Output>) {
        let _ = (timer, state, ctx);
    }
}

/// A function over two streams as one over records of either.
#[derive(Clone, Debug)]
pub struct Both<P>(pub(crate) P);

impl<K, L, R, P> ProcessFunction<K, Either<L, R>> for Both<P>
where
    K: Key,
    P: CoProcessFunction<K, L, R>,
{
    type State = P::State;
    type Output = P::Output;
    fn process(&mut self, record: Either<L, R>, state: &mut P::State, ctx: &mut Context<'_, K, P::Output>) {
        match record {
            Either::Left(record) => self.0.left(record, state, ctx),
            Either::Right(record) => self.0.right(record, state, ctx),
        }
    }
    fn on_timer(&mut self, timer: Timer, state: &mut P::State, ctx: &mut Context<'_, K, P::Output>) {
        self.0.on_timer(timer, state, ctx);
    }
}

impl<A, KA, B, KB, K> Connected<A, KA, B, KB>
where
    A: Stream,
    B: Stream,
    K: Key,
    KA: Fn(&A::Item) -> K + Clone + Send + Sync + 'static,
    KB: Fn(&B::Item) -> K + Clone + Send + Sync + 'static,
{
    /// Gives the records of both to a function of yours: see [`CoProcessFunction`].
    pub fn process<P>(self, name: &str, function: P) -> ProcessStream<Self, Both<P>, K>
    where
        P: CoProcessFunction<K, A::Item, B::Item>,
    {
        let node = node(&self, "connect", name);
        KeyedStreamOp::new(self, ProcessSpec::new(Both(function)), name, node)
    }
}
