//! A real HDFS: a `NameNode` and a `DataNode`, in a process each and one temporary folder, which can be killed and restarted
//! one by one. Its own web interface (`WebHDFS`) is asked what is in it, so that no client library is its own
//! witness.
//!
//! ```no_run
//! use tidegate_testbed::hdfs::Hdfs;
//!
//! let mut hdfs = Hdfs::start()?;
//! hdfs.write("/folder/file", b"text")?;
//! hdfs.kill_data_node();
//! hdfs.restart_data_node()?;
//! assert_eq!(hdfs.read("/folder/file")?, b"text");
//! # Ok::<(), tidegate_testbed::Failed>(())
//! ```
mod jars;
mod nodes;
mod options;
mod web;

pub use self::{nodes::Hdfs, options::Options};

/// Who may do everything, whoever has started it.
pub const SUPERUSER: &str = "hdfs";

/// Fetches and prepares what HDFS needs (70 MB), if it is not there. Otherwise the first start does so.
pub fn prepare() -> Result<(), crate::Failed> {
    jars::Jars::find().map(drop)
}
