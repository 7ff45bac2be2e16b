//! What users write of joins.
use std::{marker::PhantomData, time::Duration};

use tidegate_checkpoint::error::Error;

use super::{
    keyed::KeyedStream,
    process::{Both, node},
    stream::Stream,
};
use crate::{
    operators::{
        connected::{Connected, Either},
        join::{
            Full, Inner, JoinWindows, Joining, Left, Right, Rows,
            as_of::AsOf,
            interval::{Bounds, IntervalSpec},
        },
        keyed::{KeyedInput, KeyedStreamOp},
        process::{OutputTag, ProcessSpec, SideSpecs},
        shared::BoxedStream,
        window::Tumbling,
    },
    plan::{NodeId, StateBound},
    state::{hash::Key, table::Value},
    time::{Window, millis},
};

impl<S, K, F> KeyedStream<S, F>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    /// Puts another keyed stream beside this one, to be joined with it: the kinds of join are methods of the pair. The
    /// same as [`connect`](KeyedStream::connect).
    pub fn join<S2, F2>(self, other: KeyedStream<S2, F2>) -> Connected<S, F, S2, F2>
    where
        S2: Stream,
        F2: Fn(&S2::Item) -> K + Clone + Send + Sync + 'static,
    {
        self.connect(other)
    }
}

/// A join of two streams with these names of its parts; `kind` is for the plan.
fn joined<K: Key>(input: &impl KeyedInput<K>, kind: &str, name: &str) -> NodeId {
    let graph = input.graph();
    if input.nodes().into_iter().any(|of| !graph.node(of).event_time) {
        graph.mistake(
            Error::config(format!("join {name:?} needs event time, and not all of its records have one"))
                .hint("call .event_time(|record| ..., Watermarks::bounded(...)) on the sources of both streams"),
        );
    }
    node(input, kind, name)
}

impl<A, KA, B, KB, K> Connected<A, KA, B, KB>
where
    A: Stream,
    B: Stream,
    A::Item: Value + Clone,
    B::Item: Value + Clone,
    K: Key,
    KA: Fn(&A::Item) -> K + Clone + Send + Sync + 'static,
    KB: Fn(&B::Item) -> K + Clone + Send + Sync + 'static,
{
    /// Joins each left record with the right ones of its key that are from `lower` to `upper` milliseconds later than
    /// it, both included: `left.at + lower <= right.at <= left.at + upper`. Negative is earlier.
    ///
    /// As Flink's `intervalJoin(..).between(lower, upper)`, and Spark's join on a range of event time.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tidegate_core::Stream;
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Shown { ad: u64, page: String }
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Clicked { ad: u64 }
    ///
    /// /// The pages on which an ad was clicked within a minute, and those on which it was not.
    /// fn clicks(
    ///     shown: impl Stream<Item = Shown>,
    ///     clicked: impl Stream<Item = Clicked>,
    /// ) -> impl Stream<Item = (String, bool)> {
    ///     shown
    ///         .key_by(|s| s.ad)
    ///         .join(clicked.key_by(|c| c.ad))
    ///         .interval("clicks", 0, 60_000)
    ///         .left(|_ad, shown, click| (shown.page.clone(), click.is_some()))
    /// }
    /// ```
    pub fn interval(self, name: &str, lower: i64, upper: i64) -> IntervalJoin<Self, K> {
        let length = |ms: i64| {
            let length = humantime::format_duration(Duration::from_millis(ms.unsigned_abs())).to_string();
            if ms < 0 { format!("-{length}") } else { length }
        };
        let interval = format!("{} to {}", length(lower), length(upper));
        let node = joined(&self, &format!("join interval {interval}"), name);
        let graph = self.graph();
        graph.bound_state(node, StateBound::By(format!("an interval of {interval}")));
        if lower > upper {
            let e = Error::config(format!("join {name:?} has an interval that ends before it begins: {interval}"));
            graph.mistake(e.hint("the lower bound comes first, and both are of the right record from the left one"));
        }
        IntervalJoin {
            input: self,
            name: name.to_owned(),
            node,
            bounds: Bounds::new(lower, upper),
            late: None,
            key: PhantomData,
        }
    }

    /// Joins records of one key that are no more than `time_to_live` apart: a regular join whose state has a bound.
    ///
    /// It is an [`interval`](Connected::interval) join from `-time_to_live` to `time_to_live`. Elsewhere the time to live of
    /// a regular join's state is counted by the machine's clock from when a record was last used, so that what is joined
    /// depends on when it came. Here it depends on the records alone.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::Stream;
    /// /// Orders and their payments, whichever comes first, at most a day apart.
    /// fn paid(
    ///     orders: impl Stream<Item = (u64, String)>,
    ///     payments: impl Stream<Item = (u64, i64)>,
    /// ) -> impl Stream<Item = (String, i64)> {
    ///     orders
    ///         .key_by(|o| o.0)
    ///         .join(payments.key_by(|p| p.0))
    ///         .within("paid", Duration::from_secs(86_400))
    ///         .inner(|_, order, payment| (order.1.clone(), payment.1))
    /// }
    /// ```
    pub fn within(self, name: &str, time_to_live: Duration) -> IntervalJoin<Self, K> {
        let far = millis(time_to_live);
        let join = self.interval(name, -far, far);
        join.input.graph().bound_state(join.node, StateBound::TimeToLive(time_to_live));
        join
    }

    /// Joins the records of one key that are in one window. Windows are
    /// [`Tumbling`], [`Hopping`](crate::Hopping) or [`Session`](crate::Session). As Flink's
    /// `join(..).where(..).equalTo(..).window(..)`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::{Stream, Tumbling};
    /// /// What was measured at a place in an hour, beside what was forecast for it.
    /// fn compared(
    ///     measured: impl Stream<Item = (u32, i64)>,
    ///     forecast: impl Stream<Item = (u32, i64)>,
    /// ) -> impl Stream<Item = (u32, i64, Option<i64>, Option<i64>)> {
    ///     measured
    ///         .key_by(|m| m.0)
    ///         .join(forecast.key_by(|f| f.0))
    ///         .window("compared", Tumbling::of(Duration::from_secs(3600)))
    ///         .allowed_lateness(Duration::from_secs(60))
    ///         .full(|place, window, m, f| (*place, window.start, m.map(|m| m.1), f.map(|f| f.1)))
    /// }
    /// ```
    pub fn window<W: JoinWindows<A::Item, B::Item>>(self, name: &str, windows: W) -> WindowJoin<Self, W, K> {
        let node = joined(&self, &format!("join window {}", windows.describe()), name);
        let graph = self.graph();
        graph.bound_state(node, StateBound::Windows { lateness_ms: 0 });
        if let Some(mistake) = windows.mistake(name) {
            graph.mistake(mistake);
        }
        let join = Joining { input: self, name: name.to_owned(), node, lateness_ms: 0, late: None };
        WindowJoin { join, windows, key: PhantomData }
    }
}

/// Joins with a versioned stream.
impl<A, KA, B, KB, K> Connected<A, KA, B, KB>
where
    A: Stream,
    B: Stream,
    A::Item: Value + Clone + Sync,
    B::Item: Value,
    K: Key,
    KA: Fn(&A::Item) -> K + Clone + Send + Sync + 'static,
    KB: Fn(&B::Item) -> K + Clone + Send + Sync + 'static,
{
    /// Joins each left record with the version of its time: the newest right record of its key that is not later than it.
    /// As Flink's temporal join (`FOR SYSTEM_TIME AS OF`) in event time.
    ///
    /// The rows come when the watermark has reached the left record's time. The newest version of each key is kept for
    /// ever, if no [`time_to_live`](AsOfJoin::time_to_live) says otherwise.
    ///
    /// ```
    /// use tidegate_core::Stream;
    /// /// Orders in euros, at the rate that was in force when they were made.
    /// fn in_euros(
    ///     orders: impl Stream<Item = (String, f64)>,
    ///     rates: impl Stream<Item = (String, f64)>,
    /// ) -> impl Stream<Item = f64> {
    ///     orders
    ///         .key_by(|order| order.0.clone())
    ///         .join(rates.key_by(|rate| rate.0.clone()))
    ///         .as_of("in-euros")
    ///         .inner(|_currency, order, rate| order.1 * rate.1)
    /// }
    /// ```
    pub fn as_of(self, name: &str) -> AsOfJoin<Self, A::Item, K> {
        let node = joined(&self, "join as of", name);
        let (name, late, key) = (name.to_owned(), OutputTag::new("late"), PhantomData);
        AsOfJoin { input: self, name, node, time_to_live: None, late, sides: SideSpecs::default(), key }
    }
}

/// An interval join of which the kind is still to be said: see [`Connected::interval`].
#[derive(Debug)]
pub struct IntervalJoin<I, K> {
    input: I,
    name: String,
    node: NodeId,
    bounds: Bounds,
    late: Option<NodeId>,
    key: PhantomData<fn() -> K>,
}

impl<I, K, L, R> IntervalJoin<I, K>
where
    I: KeyedInput<K, Record = Either<L, R>>,
    K: Key,
    L: Value + Clone,
    R: Value + Clone,
{
    /// The records that come too late, at or before the watermark, as a stream. They are joined with nothing, and counted
    /// in any case.
    pub fn late(&mut self) -> BoxedStream<Either<L, R>> {
        let late = BoxedStream::side(self.input.graph(), self.node, "late");
        self.late = Some(late.node());
        late
    }

    /// A row of each pair. It bears the later one's time.
    pub fn inner<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, &L, &R) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Inner(move |key: &K, _: Window, left: &L, right: &R| f(key, left, right)))
    }

    /// As [`inner`](IntervalJoin::inner), and a row of each left record that has no match, with its own time, when the
    /// watermark has passed all that it could match. For the sake of these times the watermark is held back: see
    /// [`interval`](crate::operators::join::interval).
    pub fn left<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, &L, Option<&R>) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Left(move |key: &K, _: Window, left: &L, right: Option<&R>| f(key, left, right)))
    }

    /// As [`left`](IntervalJoin::left), of right records.
    pub fn right<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, Option<&L>, &R) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Right(move |key: &K, _: Window, left: Option<&L>, right: &R| f(key, left, right)))
    }

    /// As [`left`](IntervalJoin::left), of records of both sides. One of the two is always there.
    pub fn full<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, Option<&L>, Option<&R>) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Full(move |key: &K, _: Window, left: Option<&L>, right: Option<&R>| f(key, left, right)))
    }

    fn rows<F: Rows<K, L, R>>(self, rows: F) -> impl Stream<Item = F::Out> {
        let spec = IntervalSpec { bounds: self.bounds, late: self.late, rows };
        KeyedStreamOp::new(self.input, spec, &self.name, self.node)
    }
}

/// A window join of which the kind is still to be said: see [`Connected::window`].
#[derive(Debug)]
pub struct WindowJoin<I, W, K> {
    join: Joining<I>,
    windows: W,
    key: PhantomData<fn() -> K>,
}

impl<I, K, L, R> WindowJoin<I, Tumbling, K>
where
    I: KeyedInput<K, Record = Either<L, R>>,
    K: Key,
{
    /// Keeps a window for this long after it has fired: a record that comes until then makes its own pairs at once, and
    /// no others. What has been emitted is not taken back, not even that a record had no match.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.join.lateness_ms = millis(lateness);
        let bound = StateBound::Windows { lateness_ms: self.join.lateness_ms };
        self.join.input.graph().bound_state(self.join.node, bound);
        self
    }
}

impl<I, W, K, L, R> WindowJoin<I, W, K>
where
    I: KeyedInput<K, Record = Either<L, R>>,
    W: JoinWindows<L, R>,
    K: Key,
    L: Value + Clone,
    R: Value + Clone,
{
    /// The records that come too late for their window, as a stream. They are counted in any case.
    pub fn late(&mut self) -> BoxedStream<Either<L, R>> {
        let late = BoxedStream::side(self.join.input.graph(), self.join.node, "late");
        self.join.late = Some(late.node());
        late
    }

    /// A row of each pair, with the time of the window's last millisecond.
    pub fn inner<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, Window, &L, &R) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Inner(f))
    }

    /// As [`inner`](WindowJoin::inner), and a row of each left record whose window has no right one of its key.
    pub fn left<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, Window, &L, Option<&R>) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Left(f))
    }

    /// As [`inner`](WindowJoin::inner), and a row of each right record whose window has no left one of its key.
    pub fn right<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, Window, Option<&L>, &R) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Right(f))
    }

    /// All of these. One of the two is always there.
    pub fn full<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, Window, Option<&L>, Option<&R>) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Full(f))
    }

    fn rows<F: Rows<K, L, R>>(self, rows: F) -> impl Stream<Item = F::Out> {
        self.windows.rows(self.join, rows)
    }
}

/// An as-of join of which the kind is still to be said: see [`Connected::as_of`].
pub struct AsOfJoin<I, L, K> {
    input: I,
    name: String,
    node: NodeId,
    time_to_live: Option<Duration>,
    late: OutputTag<L>,
    sides: SideSpecs,
    key: PhantomData<fn() -> K>,
}

impl<I: std::fmt::Debug, L, K> std::fmt::Debug for AsOfJoin<I, L, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsOfJoin").field("input", &self.input).field("name", &self.name).finish_non_exhaustive()
    }
}

impl<I, K, L, R> AsOfJoin<I, L, K>
where
    I: KeyedInput<K, Record = Either<L, R>>,
    K: Key,
    L: Value + Clone + Sync,
    R: Value,
{
    /// Forgets a key, its newest version too, when the watermark is so far ahead of the newest record of either side. It is
    /// told by event time alone: a left record that is so much later than anything before it finds no version.
    pub fn time_to_live(mut self, time_to_live: Duration) -> Self {
        let graph = self.input.graph();
        graph.bound_state(self.node, StateBound::TimeToLive(time_to_live));
        if millis(time_to_live) == 0 {
            let e = Error::config(format!("join {:?} has a time to live of nothing", self.name));
            graph.mistake(e.hint("use at least a millisecond, or none"));
        }
        self.time_to_live = Some(time_to_live);
        self
    }

    /// The left records that come too late, at or before the watermark, as a stream. They are joined with nothing, and
    /// counted in any case.
    pub fn late(&mut self) -> BoxedStream<L> {
        let late = BoxedStream::side(self.input.graph(), self.node, "late");
        self.sides.take(&self.late, late.node());
        late
    }

    /// A row of each left record that has a version, with its time.
    pub fn inner<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, &L, &R) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Inner(move |key: &K, _: Window, left: &L, right: &R| f(key, left, right)))
    }

    /// A row of each left record, with its time, whether it has a version or not.
    pub fn left<U, F>(self, f: F) -> impl Stream<Item = U>
    where
        F: Fn(&K, &L, Option<&R>) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.rows(Left(move |key: &K, _: Window, left: &L, right: Option<&R>| f(key, left, right)))
    }

    fn rows<F: Rows<K, L, R>>(self, rows: F) -> impl Stream<Item = F::Out> {
        let Self { input, name, node, time_to_live, late, sides, .. } = self;
        let mut spec = ProcessSpec::new(Both(AsOf { rows, late, time_to_live_ms: time_to_live.map(millis) }));
        spec.sides = sides;
        KeyedStreamOp::new(input, spec, &name, node)
    }
}
