//! Windows of event time: which there are, and what comes out of them.
//!
//! | windows | a record is in | operator |
//! |---|---|---|
//! | [`Tumbling`] | one | a table for each open window (`tumbling`) |
//! | [`Hopping`] | `size / hop` of them, and is added once | slices of each key, shared by all windows (`hopping`) |
//! | [`Session`] | one that grows with it | a process function with timers (`triggered`) |
//! | [`Global`] | one for ever | the same |
//! | any of them with a [`Trigger`] | | the same |
//! | [`CountWindows`] | so many records of a key | a process function, without time (`count`) |
//!
//! What they have in common is Flink's semantics. A window `[s, e)` fires when the watermark reaches `e - 1`. A record is
//! late when all its windows have fired; within the allowed lateness it still updates those, which fire again for its key;
//! after that it goes to the late stream, and is counted.
mod count;
mod global;
mod hopping;
mod session;
mod triggered;
mod tumbling;

pub use count::{CountFunction, CountWindows};
pub use global::Global;
pub use hopping::{Hopping, HoppingSpec};
pub use session::Session;
pub use triggered::{Assign, Trigger, Triggered, WindowFunction};
pub(super) use tumbling::Current;
pub use tumbling::{Tumbling, WindowSpec};

use serde::{Deserialize, Serialize};
use tidegate_checkpoint::error::Error;

use super::{
    aggregate::Aggregate,
    keyed::{KeyedOperator, KeyedSpec},
};
use crate::{plan::NodeId, state::hash::Key, time::Window};

/// The result of one key in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Windowed<K, V> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
    /// The result.
    pub value: V,
    /// Why it came now.
    #[serde(default)]
    pub firing: Firing,
}

/// Why a window has fired. As Beam's pane timing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Firing {
    /// Its trigger did not want to wait for its end: the result is not final.
    Early,
    /// The watermark has come to its end.
    #[default]
    OnTime,
    /// A record came behind its end, and within the allowed lateness: the result replaces the one before.
    Late,
}

/// What a window operator is given besides its windows.
#[derive(Clone, Debug)]
pub struct Common<A> {
    /// How long a window is kept behind its end.
    pub lateness_ms: i64,
    /// Where late records go.
    pub late: Option<NodeId>,
    /// What is computed.
    pub aggregate: A,
}

/// A kind of windows over records of type `T`.
pub trait Windows<T>: Clone + Send + Sync + 'static {
    /// The operator that computes an aggregate for each of them.
    type Spec<K: Key, A: Aggregate<T>>: KeyedSpec<K, T, Operator: KeyedOperator<K, T, Out = Windowed<K, A::Output>>>;

    /// That operator.
    fn spec<K: Key, A: Aggregate<T>>(self, common: Common<A>) -> Self::Spec<K, A>;
    /// As the plan shows them.
    fn describe(&self) -> String;
    /// What is wrong with them, before the job runs.
    fn mistake(&self, name: &str) -> Option<Error>;
    /// Whether they depend on event time.
    fn needs_event_time(&self) -> bool {
        true
    }
    /// Whether each of them ends.
    fn end(&self) -> bool {
        true
    }
}

/// That of windows of no length.
fn no_length(name: &str, what: &str) -> Error {
    Error::config(format!("window {name:?} has no {what}")).hint("use at least a millisecond")
}

fn shown(ms: i64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms.unsigned_abs())).to_string()
}
