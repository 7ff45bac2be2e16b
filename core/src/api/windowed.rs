//! What users write of windows.
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tidegate_checkpoint::error::Error;

use super::stream::Stream;
use crate::{
    operators::{
        aggregate::{Aggregate, Count, Reduce},
        keyed::{KeyedInput, KeyedStreamOp},
        running::OutputMode,
        shared::BoxedStream,
        window::{Assign, Common, Trigger, Triggered, Windowed, Windows},
    },
    plan::{NodeId, StateBound},
    state::hash::Key,
    time::millis,
};

/// Windows waiting for what to compute: see [`KeyedStream::window`](crate::KeyedStream::window).
#[derive(Debug)]
pub struct WindowedStream<I, W> {
    keyed: I,
    name: String,
    node: NodeId,
    windows: W,
    lateness_ms: i64,
    late: Option<NodeId>,
}

impl<I, W> WindowedStream<I, W> {
    pub(crate) fn new<K: Key>(keyed: I, name: &str, windows: W) -> Self
    where
        I: KeyedInput<K>,
        W: Windows<I::Record>,
    {
        let node = super::process::node(&keyed, &format!("window {}", windows.describe()), name);
        let graph = keyed.graph();
        if windows.end() {
            graph.bound_state(node, StateBound::Windows { lateness_ms: 0 });
        }
        if windows.needs_event_time() && keyed.nodes().iter().any(|node| !graph.node(*node).event_time) {
            graph.mistake(
                Error::config(format!("window {name:?} needs event time, and its records have none"))
                    .hint("call .event_time(|record| ..., Watermarks::bounded(...)) on the source"),
            );
        }
        if let Some(mistake) = windows.mistake(name) {
            graph.mistake(mistake);
        }
        Self { keyed, name: name.to_owned(), node, windows, lateness_ms: 0, late: None }
    }

    /// Keeps a window for this long after it has fired: records that come until then update it, and it
    /// fires again for their key.
    #[must_use]
    pub fn allowed_lateness<K: Key>(mut self, lateness: Duration) -> Self
    where
        I: KeyedInput<K>,
        W: Windows<I::Record>,
    {
        self.lateness_ms = millis(lateness);
        if self.windows.end() {
            self.keyed.graph().bound_state(self.node, StateBound::Windows { lateness_ms: self.lateness_ms });
        }
        self
    }

    /// Has the windows fire as a trigger says. A record is then added to each window that it is in by itself, however
    /// many those are.
    #[must_use]
    pub fn trigger<K: Key>(self, trigger: Trigger) -> WindowedStream<I, Triggered<W>>
    where
        I: KeyedInput<K, Record: Clone>,
        W: Windows<I::Record> + Assign<I::Record>,
    {
        let Self { keyed, name, node, windows, lateness_ms, late } = self;
        let windows = Triggered { windows, trigger };
        if let Some(mistake) = windows.mistake(&name) {
            keyed.graph().mistake(mistake);
        }
        WindowedStream { keyed, name, node, windows, lateness_ms, late }
    }

    /// Emits what an output mode says, instead of each window once it is complete: in [`OutputMode::Update`], when an epoch
    /// ends, the windows that it has changed; in [`OutputMode::Complete`] all that are kept (a window goes at its
    /// end and the allowed lateness, in every mode; what it has not told yet is told then). [`OutputMode::Append`]
    /// is what is emitted without this.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::{OutputMode, Stream, Tumbling, Windowed};
    /// fn hourly(clicks: impl Stream<Item = u64>) -> impl Stream<Item = Windowed<u64, u64>> {
    ///     let hour = Tumbling::of(Duration::from_secs(3600));
    ///     clicks.key_by(|user| *user).window("hourly", hour).output_mode(OutputMode::Update).count()
    /// }
    /// ```
    #[must_use]
    pub fn output_mode<K: Key>(self, mode: OutputMode) -> WindowedStream<I, Triggered<W>>
    where
        I: KeyedInput<K, Record: Clone>,
        W: Windows<I::Record> + Assign<I::Record>,
    {
        self.trigger(Trigger::of(mode))
    }

    /// The records that come too late for their window, as a stream. They are counted in any case.
    pub fn late<K: Key>(&mut self) -> BoxedStream<I::Record>
    where
        I: KeyedInput<K, Record: Clone>,
    {
        let late = BoxedStream::side(self.keyed.graph(), self.node, "late");
        self.late = Some(late.node());
        late
    }

    /// One result for each key and window.
    pub fn aggregate<K: Key, A>(self, aggregate: A) -> impl Stream<Item = Windowed<K, A::Output>>
    where
        I: KeyedInput<K>,
        W: Windows<I::Record>,
        A: Aggregate<I::Record>,
    {
        let Self { keyed, name, node, windows, lateness_ms, late } = self;
        let spec = windows.spec(Common { lateness_ms, late, aggregate });
        KeyedStreamOp::new(keyed, spec, &name, node)
    }

    /// The reduction of each key's records in each window.
    pub fn reduce<K: Key, G>(self, f: G) -> impl Stream<Item = Windowed<K, I::Record>>
    where
        I: KeyedInput<K, Record: Serialize + DeserializeOwned + Clone>,
        W: Windows<I::Record>,
        G: Fn(I::Record, I::Record) -> I::Record + Clone + Send + Sync + 'static,
    {
        self.aggregate(Reduce(f)).filter_map(|Windowed { key, window, value, firing }| {
            value.map(|value| Windowed { key, window, value, firing })
        })
    }

    /// How many records each key has in each window.
    pub fn count<K: Key>(self) -> impl Stream<Item = Windowed<K, u64>>
    where
        I: KeyedInput<K>,
        W: Windows<I::Record>,
    {
        self.aggregate(Count)
    }
}
