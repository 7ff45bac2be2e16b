//! A real Kafka: a [`Broker`] that can be killed and restarted, a [`Judge`] that looks at it with Kafka's own Java
//! clients, so that no client library is its own witness, and a [`Proxy`] that loses and delays single
//! requests and replies, which is where exactly-once is won or lost.
//!
//! ```no_run
//! use tidegate_testbed::kafka::{Broker, Isolation, Record};
//!
//! let broker = Broker::start()?;
//! let judge = broker.judge()?;
//! judge.create_topic("orders", 2, &[])?;
//! judge.produce("orders", &[Record::new("key", "value")])?;
//! assert_eq!(judge.read("orders", Isolation::ReadCommitted)?.len(), 1);
//! # Ok::<(), tidegate_testbed::Failed>(())
//! ```
pub mod api;
mod broker;
pub(crate) mod jars;
mod judge;
mod protocol;
mod proxy;
mod settings;
mod wire;

pub use self::{
    broker::Broker,
    judge::Judge,
    protocol::{End, Isolation, Offsets, Placed, Read, Record, Transaction},
    proxy::{Action, Proxy},
    settings::Settings,
};

/// Fetches and prepares what a broker needs, if it is not there: once on a machine, it takes half a minute. Otherwise
/// the first start does so.
pub fn prepare() -> Result<(), crate::Failed> {
    jars::Jars::find().map(drop)
}
