//! What connectors and state backends are proved with, ours and a user's own: the feature `testkit`.
//!
//! It is the code that asks, never the code that answers: nothing in the engine uses it.
pub mod source;
pub mod store;
