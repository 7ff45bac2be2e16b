//! The logical graph as it is written down by the API, its checks, and how it is shown.
pub(crate) mod changes;
pub mod explain;
pub mod graph;

pub use graph::{Graph, Node, NodeId, NodeKind, StateBound};
