//! The sources and sinks of tidegate. Each implements the contracts of `tidegate_core::connect` and nothing
//! else: what is read when, what counts and what is retried is up to the engine.
pub mod collect;
pub mod collection;
pub mod each;
pub mod files;
pub mod generator;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod stdin;
pub mod stdout;

pub use collect::Collect;
pub use collection::Collection;
pub use each::ForEach;
pub use files::{FileSink, FileSource};
pub use generator::Generator;
pub use stdin::Stdin;
pub use stdout::Stdout;
